/**
 * Reads system call traces of the processes of a cluster and says which answers left too early (R1, R2). Pure: text in,
 * findings out. A trace is what this writes, one file for each process:
 *
 *   strace -f -ttt -T -yy -s 65536 -e trace=pwrite64,write,writev,sendto,sendmsg,fdatasync,fsync
 *
 * A process has an entry on disk when it wrote a page with the entry's body to the group's write-ahead log, and an
 * fdatasync or fsync (SQLite uses the one that it was compiled for) of the same file descriptor began after that write
 * had ended, and ended without an error. Times of several processes are of one clock: a call's beginning is noted
 * before the kernel carries it out, its end afterwards, so an answer that waits for a sync anywhere is noted after it.
 */
export interface Call {
  readonly name: string;
  /** The file descriptor as strace shows it, number and what it stands for: `23</data/n1/group-a.db-wal>`. */
  readonly descriptor: string;
  /** All arguments, as strace shows them. */
  readonly text: string;
  readonly result: number;
  /** Seconds of the epoch. */
  readonly beganAt: number;
  readonly endedAt: number;
}

/** The calls of one trace that came to an end, in the order of their beginnings. */
export function parseTrace(trace: string): readonly Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, { readonly name: string; readonly text: string; readonly beganAt: number }>();
  for (const line of trace.split('\n')) {
    const begun = /^([0-9]+) +([0-9]+\.[0-9]+) ([a-z0-9_]+)\((.*) <unfinished \.\.\.>$/s.exec(line);
    if (begun !== null) {
      const [, thread = '', at = '', name = '', text = ''] = begun;
      unfinished.set(thread, { name, text, beganAt: Number(at) });
      continue;
    }
    const resumed = /^([0-9]+) +([0-9]+\.[0-9]+) <\.\.\. [a-z0-9_]+ resumed>(.*)\) += (-?[0-9]+).* <[0-9.]+>$/s.exec(
      line,
    );
    if (resumed !== null) {
      const [, thread = '', at = '', rest = '', result = ''] = resumed;
      const before = unfinished.get(thread);
      unfinished.delete(thread);
      if (before === undefined) continue;
      calls.push(callOf(before.name, before.text + rest, Number(result), before.beganAt, Number(at)));
      continue;
    }
    const whole = /^[0-9]+ +([0-9]+\.[0-9]+) ([a-z0-9_]+)\((.*)\) += (-?[0-9]+).* <([0-9.]+)>$/s.exec(line);
    if (whole === null) continue;
    const [, at = '', name = '', text = '', result = '', took = ''] = whole;
    calls.push(callOf(name, text, Number(result), Number(at), Number(at) + Number(took)));
  }
  return calls.sort((left, right) => left.beganAt - right.beganAt);
}

function callOf(name: string, text: string, result: number, beganAt: number, endedAt: number): Call {
  const descriptor = /^[0-9]+<[^>]*(?:->[^>]*)?>/.exec(text)?.[0] ?? '';
  return { name, descriptor, text, result, beganAt, endedAt };
}

/** An answer that an acquirer received. */
export interface ExpectedAnswer {
  /** DE 37: only in this request's entry, and in its answer. */
  readonly rrn: string;
  readonly group: string;
  /** The group's leader: with `local`, its disk has to have the entry. */
  readonly owner: string;
  /** How many processes must have the entry on disk: 1 and the owner among them (`local`), or a majority (`quorum`). */
  readonly copies: number;
  /** Port of the acquirer's connection at the node that answered. */
  readonly port: number;
}

const writes: ReadonlySet<string> = new Set(['write', 'writev', 'sendto', 'sendmsg']);
const syncs: ReadonlySet<string> = new Set(['fdatasync', 'fsync']);

/**
 * What is wrong, a sentence for each answer: it left before its entry was on enough disks, or the traces do not show
 * it at all (then they prove nothing). `traces` by process id.
 */
export function answersBeforeSync(
  traces: ReadonlyMap<string, readonly Call[]>,
  answers: readonly ExpectedAnswer[],
): readonly string[] {
  const index = new TraceIndex(traces, answers);
  return answers.flatMap((answer) => {
    const { rrn, owner, copies, port } = answer;
    const leftAt = index.answeredAt(rrn, port);
    if (leftAt === undefined) return [`${rrn}: no trace has its answer`];
    const onDisk = [...traces.keys()].flatMap((process) => {
      const at = index.onDiskAt(process, answer);
      return at !== undefined && at <= leftAt ? [process] : [];
    });
    if (onDisk.length >= copies && onDisk.includes(owner)) return [];
    const which = onDisk.length === 0 ? 'no disk' : `the disk of ${onDisk.join(', ')} only`;
    return [`${rrn}: answered when it was on ${which}; it needs ${copies}, that of ${owner} among them`];
  });
}

class TraceIndex {
  /** Process, group and RRN: the first write of the entry's body. */
  readonly #written = new Map<string, Call>();
  /** Process and descriptor: syncs in the order of their beginnings. */
  readonly #synced = new Map<string, Call[]>();
  /** Port and RRN: when its answer began to leave. */
  readonly #answered = new Map<string, number>();

  constructor(traces: ReadonlyMap<string, readonly Call[]>, answers: readonly ExpectedAnswer[]) {
    const rrns = new Set(answers.map(({ rrn }) => rrn));
    const ports = new Set(answers.map(({ port }) => String(port)));
    for (const [process, calls] of traces) {
      for (const call of calls) {
        if (call.result < 0) continue;
        if (syncs.has(call.name)) file(this.#synced, `${process} ${call.descriptor}`, call);
        else if (call.name === 'pwrite64') this.#indexPage(process, call, rrns);
        else if (writes.has(call.name)) this.#indexAnswers(call, rrns, ports);
      }
    }
  }

  answeredAt(rrn: string, port: number): number | undefined {
    return this.#answered.get(`${port} ${rrn}`);
  }

  onDiskAt(process: string, { group, rrn }: ExpectedAnswer): number | undefined {
    const written = this.#written.get(`${process} ${group} ${rrn}`);
    if (written === undefined) return undefined;
    const ends = (this.#synced.get(`${process} ${written.descriptor}`) ?? [])
      .filter((sync) => sync.beganAt >= written.endedAt)
      .map((sync) => sync.endedAt);
    return ends.length === 0 ? undefined : Math.min(...ends);
  }

  #indexPage(process: string, call: Call, rrns: ReadonlySet<string>): void {
    const group = /\/group-([a-z0-9-]+)\.db-wal>$/.exec(call.descriptor)?.[1];
    if (group === undefined) return;
    // As it stands in an entry's body, quotes escaped by strace: the fold's tables have the bare number.
    for (const [, rrn = ''] of call.text.matchAll(/rrn\\":\\"([0-9A-Z]{12})\\"/g)) {
      const key = `${process} ${group} ${rrn}`;
      if (rrns.has(rrn) && !this.#written.has(key)) this.#written.set(key, call);
    }
  }

  #indexAnswers(call: Call, rrns: ReadonlySet<string>, ports: ReadonlySet<string>): void {
    const port = /^[0-9]+<TCP:\[[^\]]*:([0-9]+)->/.exec(call.descriptor)?.[1];
    if (port === undefined || !ports.has(port)) return;
    for (const rrn of rrns) {
      if (!call.text.includes(rrn)) continue;
      const key = `${port} ${rrn}`;
      if (!this.#answered.has(key)) this.#answered.set(key, call.beganAt);
    }
  }
}

function file(map: Map<string, Call[]>, key: string, call: Call): void {
  const calls = map.get(key);
  if (calls === undefined) map.set(key, [call]);
  else calls.push(call);
}
