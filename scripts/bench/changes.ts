/**
 * Many changes of the configuration at all nodes through all ways (operators' calls, files, queues, `quadrant` processes,
 * the sqlite3 shell), while nodes and brokers are frozen, killed and started again. Real processes, brokers and disks. The verdict comes from a
 * journal of every change: what was acknowledged is in the history once and replaces what its author saw, what was refused
 * is not, what was edited by the shell is one of the two; the folds are equal, and `quadrant compare` finds nothing.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import Database from 'better-sqlite3';

import { delay, waitFor } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import { configGroup, type NodeId } from '../../base/identifiers.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import { realClock } from '../../base/real.ts';
import { prepareCluster } from '../../cli/cluster/first-start.ts';
import { startCluster, type RunningCluster } from '../../cli/cluster/supervisor.ts';
import { changesOfFile } from '../../cli/commands/config-change.ts';
import { findRow, listRows } from '../../cli/commands/config-rows.ts';
import { placeForDrill, type DrillPlace } from '../../cli/drill/place.ts';
import type { QueuedReport } from '../../cli/node/change-queue.ts';
import { encodeChanges } from '../../cli/node/configuration-calls.ts';
import { groupFileName } from '../../cli/node/thread-writer.ts';
import { OperatorBus } from '../../cli/operator-bus.ts';
import { keyOfChange, type VersionedChange } from '../../config-db/configuration-change.ts';
import { readHistory, type HistoryRecord } from '../../config-db/configuration-history.ts';
import type { ConfigurationChange } from '../../config-db/rows.ts';
import { readShellEdits } from '../../config-db/shell-edits.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';

const ways = ['call', 'file', 'queue', 'process', 'shell'] as const;
type Way = (typeof ways)[number];

/** A change that was made, and what was said of it. */
interface MadeChange {
  readonly way: Way;
  readonly node: NodeId;
  /** Stands in one of its rows, and in no other change. */
  readonly marker: string;
  /** `table key` of each row with the version that its author saw; the shell's are those of the guard. */
  readonly replaces: ReadonlyMap<string, number>;
  /** The log index that was acknowledged, 0 for a change of nothing; undefined: refused, or not known. */
  entered: number | undefined;
  refused: boolean;
}

export interface ChangesBench {
  readonly changes: number;
  readonly seconds: number;
  readonly byWay: Readonly<Record<string, { made: number; entered: number; refused: number; open: number }>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly historyRecords: number;
  /** What is not as promised; empty when all is well. */
  readonly problems: readonly string[];
}

interface Place {
  readonly place: DrillPlace;
  readonly dataFolder: string;
  readonly folder: string;
  readonly cluster: RunningCluster;
  readonly bus: OperatorBus;
}

const program = fileURLToPath(new URL('../../cli/quadrant.mjs', import.meta.url));
const run = promisify(execFile);
const workersPerNode = 10;
const settleMs = 60_000;

export async function withCluster<Result>(name: string, use: (place: Place) => Promise<Result>): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  const dataFolder = join(folder, 'data');
  const print = (): void => undefined;
  const place = await placeForDrill(folder, name);
  const cluster = await startCluster({ ...place, dataFolder, print });
  let bus: OperatorBus | undefined;
  try {
    await prepareCluster({ ...place, dataFolder, print });
    bus = await OperatorBus.connect(place.topology, dataFolder);
    return await use({ place, dataFolder, folder, cluster, bus });
  } finally {
    await bus?.close();
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

export function benchChanges(options: {
  readonly changes: number;
  readonly seed: number;
  readonly print: (line: string) => void;
}): Promise<ChangesBench> {
  const { changes, seed, print } = options;
  return withCluster('changes', async (place) => {
    const journal = new Journal(place, changes, seed, print);
    const beginMs = realClock.monotonicMs();
    await journal.run();
    const seconds = (realClock.monotonicMs() - beginMs) / 1000;
    print(`${changes} changes in ${seconds.toFixed(0)} s; holding them against the history ...`);
    const records = await journal.settle();
    return {
      changes,
      seconds,
      byWay: journal.byWay,
      faults: journal.faults,
      historyRecords: records.length,
      problems: [...journal.problemsIn(records), ...(await differences(place))],
    };
  });
}

/** What `quadrant compare` finds. */
async function differences({ place, dataFolder }: Place): Promise<string[]> {
  const flags = ['--config', place.configFile, '--data', dataFolder];
  try {
    await run(process.execPath, [program, 'compare', ...flags], { maxBuffer: 1 << 26 });
    return [];
  } catch (error) {
    const { stdout = '', code } = error as { readonly stdout?: string; readonly code?: number };
    return [`compare exits with ${String(code)}: ${stdout.split('\n').slice(0, 20).join(' / ')}`];
  }
}

/** Makes the changes and the faults, and knows what was said of each. */
class Journal {
  readonly #place: Place;
  readonly #random: Random;
  readonly #total: number;
  readonly #print: (line: string) => void;
  readonly #made: MadeChange[] = [];
  readonly faults: Record<string, number> = {};
  #left: number;
  #number = 0;
  /** What should not happen and did. */
  readonly #surprises: string[] = [];
  #ended = false;

  constructor(place: Place, total: number, seed: number, print: (line: string) => void) {
    this.#place = place;
    this.#random = seededRandom(seed);
    this.#total = total;
    this.#left = total;
    this.#print = print;
  }

  async run(): Promise<void> {
    const nodes = this.#place.place.topology.nodes.map(({ id }) => id);
    const faults = this.#makeFaults().catch((error: unknown) => {
      this.#surprises.push(describeError(error));
    });
    const working = nodes.flatMap((node) => [
      this.#shells(node),
      ...Array.from({ length: workersPerNode }, () => this.#operator(node)),
    ]);
    for (const outcome of await Promise.allSettled(working)) {
      if (outcome.status === 'rejected') this.#surprises.push(describeError(outcome.reason));
    }
    this.#ended = true;
    await faults;
  }

  get byWay(): ChangesBench['byWay'] {
    return Object.fromEntries(
      ways.map((way) => {
        const made = this.#made.filter((each) => each.way === way);
        const entered = made.filter((each) => each.entered !== undefined).length;
        const refused = made.filter((each) => each.refused).length;
        return [way, { made: made.length, entered, refused, open: made.length - entered - refused }];
      }),
    );
  }

  /** Until every queue is empty, nothing waits, and all copies are equally far: the history of the first. */
  async settle(): Promise<HistoryRecord[]> {
    const { bus, place } = this.#place;
    const nodes = place.topology.nodes.map(({ id }) => id);
    await waitFor(
      realClock,
      async () => {
        const all = await Promise.all(nodes.map((id) => bus.status(id)));
        const ends = new Set(
          all.map((status) => status?.groups.find(({ name }) => name === configGroup)?.applied ?? -1),
        );
        const waits = all.some((status) => status === undefined || status.queue.waiting + status.edits.waiting > 0);
        return ends.size === 1 && !ends.has(-1) && !waits ? true : undefined;
      },
      { timeoutMs: settleMs, everyMs: 200, onTimeout: () => new Error('the copies do not come level') },
    );
    await this.#readQueues(nodes);
    return this.#inFile(nodes[0], (database) => readHistory(database, { from: 0, limit: -1 }).reverse());
  }

  problemsIn(records: readonly HistoryRecord[]): string[] {
    const problems = [...this.#surprises];
    const byMarker = new Map<string, HistoryRecord[]>();
    const marker = /#[0-9]+#/;
    const byChange = Map.groupBy(records, ({ change }) => change);
    for (const rows of byChange.values()) {
      const [{ index, change } = { index: 0, change: '' }] = rows;
      if (rows.some((row) => row.index !== index)) problems.push(`change ${change} is in the history twice`);
      const found = rows
        .map(({ after, by }) => marker.exec(by) ?? marker.exec(after ?? ''))
        .find((each) => each !== null);
      if (found !== undefined) byMarker.set(found[0], [...(byMarker.get(found[0]) ?? []), ...rows]);
    }
    const versions = new Map<string, number>();
    const replaced = new Map<HistoryRecord, number>();
    for (const record of records) {
      const row = `${record.table} ${record.key}`;
      replaced.set(record, versions.get(row) ?? 0);
      versions.set(row, record.after === null ? 0 : record.index);
    }
    for (const made of this.#made) {
      const rows = byMarker.get(made.marker) ?? [];
      const name = `the ${made.way} change ${made.marker} at ${made.node}`;
      const indexes = new Set(rows.map(({ index }) => index));
      if (indexes.size > 1) problems.push(`${name} was entered at ${[...indexes].join(' and ')}`);
      if (made.refused && rows.length > 0) problems.push(`${name} was refused, and is in the history`);
      if (made.entered !== undefined && made.entered > 0 && !indexes.has(made.entered)) {
        problems.push(`${name} was acknowledged as ${made.entered}, and the history has ${[...indexes].join('')}`);
      }
      for (const row of rows) {
        const seen = made.replaces.get(`${row.table} ${row.key}`);
        if (seen !== undefined && seen !== replaced.get(row)) {
          problems.push(
            `${name} replaces ${replaced.get(row) ?? 0} of ${row.table} ${row.key}, and its author saw ${seen}`,
          );
        }
      }
    }
    if (this.#made.length !== this.#total) problems.push(`${this.#made.length} of ${this.#total} changes were made`);
    return problems;
  }

  /** Takes one of the changes that are still to be made. */
  #take(): string | undefined {
    if (this.#left === 0) return undefined;
    this.#left -= 1;
    if (this.#left % 1000 === 0) this.#print(`${this.#total - this.#left} changes, ${JSON.stringify(this.faults)}`);
    return `#${++this.#number}#`;
  }

  #note(change: Omit<MadeChange, 'entered' | 'refused'>): MadeChange {
    const made: MadeChange = { ...change, entered: undefined, refused: false };
    this.#made.push(made);
    return made;
  }

  /** One change after the other at a node, whether it is there or not; the rows as another node has them. */
  async #operator(node: NodeId): Promise<void> {
    for (let marker = this.#take(); marker !== undefined; marker = this.#take()) {
      const wish = this.#random.below(200);
      const way: Way = wish === 0 ? 'process' : wish < 20 ? 'file' : wish < 50 ? 'queue' : 'call';
      const made = { way, node, marker, replaces: new Map<string, number>() };
      const noted = this.#note(made);
      try {
        await this.#make(noted, made.replaces);
      } catch (error) {
        const code = error instanceof SwitchError ? error.code : undefined;
        if (code === undefined) this.#surprises.push(`${noted.way} at ${node}: ${describeError(error)}`);
        if (code === 'VERSION_CONFLICT' || code === 'CONFIGURATION_REFUSED') noted.refused = true;
        else await delay(realClock, 50);
      }
    }
  }

  async #make(made: MadeChange, replaces: Map<string, number>): Promise<void> {
    const { bus, place, folder, dataFolder } = this.#place;
    const { way, node, marker } = made;
    const seen = place.topology.nodes[this.#random.below(place.topology.nodes.length)]?.id ?? node;
    if (way === 'process') {
      const flags = ['--config', place.configFile, '--data', dataFolder, '--node', node, '--yes', '--json'];
      const set = ['node_state', node, 'state=in-service', `reason=${marker}`];
      const answer = await quadrant(['config', 'set', ...set, ...flags]);
      if (answer.exitCode === 0) made.entered = (JSON.parse(answer.stdout) as { index: number }).index;
      else made.refused = /VERSION_CONFLICT|CONFIGURATION_REFUSED/.test(answer.stderr);
      return;
    }
    const there = await listRows(bus, seen);
    let changes: VersionedChange[];
    if (way === 'file') {
      const file = join(folder, `change-${marker.replaceAll('#', '')}.yaml`);
      const [one, other] = [this.#draw(marker), this.#draw(marker)];
      writeFileSync(file, JSON.stringify(mergedFile([one, other])));
      changes = changesOfFile(there, { configuration: file, rules: undefined });
    } else {
      changes = [this.#draw(marker)].map((change) => {
        return { change, replaces: findRow(there, change.table, keyOfChange(change))?.version ?? 0 };
      });
    }
    for (const { change, replaces: version } of changes)
      replaces.set(`${change.table} ${keyOfChange(change)}`, version);
    const parameters = { by: `operator ${marker}`, changes: encodeChanges(changes) };
    if (way === 'queue') {
      const report = (await bus.call(node, 'configuration.queue', parameters)) as QueuedReport;
      this.#noteQueued(made, report);
    } else {
      made.entered = (await bus.call(node, 'configuration.enter', parameters)) as number;
    }
  }

  #noteQueued(made: MadeChange, { outcome, index }: QueuedReport): void {
    if (outcome === 'entered') made.entered = index;
    made.refused = outcome === 'refused';
  }

  /** What has become of queued changes since, as far as the nodes still know. */
  async #readQueues(nodes: readonly NodeId[]): Promise<void> {
    const made = new Map(this.#made.map((each) => [`operator ${each.marker}`, each]));
    for (const node of nodes) {
      for (const report of (await this.#place.bus.call(node, 'configuration.queued', {})) as QueuedReport[]) {
        const change = made.get(report.by);
        if (change !== undefined) this.#noteQueued(change, report);
      }
    }
  }

  /** A row that has the marker, among few enough that operators meet. */
  #draw(marker: string): ConfigurationChange {
    const number = this.#random.below(12);
    if (this.#random.below(2) === 0) {
      const row = { node_id: `n${1 + (number % 4)}`, state: 'in-service', reason: marker } as const;
      return { table: 'node_state', operation: 'put', row };
    }
    const row = {
      prefix: `99009${number}`.slice(0, 6),
      group_id: ['a', 'b', 'c', 'd'][number % 4] ?? 'a',
      description: marker,
      issuer: 'bench',
      durability: 'quorum',
      hold_days: 7,
    } as const;
    return { table: 'pan_range', operation: 'put', row } as unknown as ConfigurationChange;
  }

  /** The plain sqlite3 shell at one node, also while its process is frozen or dead: one transaction after the other. */
  async #shells(node: NodeId): Promise<void> {
    for (let marker = this.#take(); marker !== undefined; marker = this.#take()) {
      const made = this.#note({ way: 'shell', node, marker, replaces: new Map() });
      const known = new Set(this.#inFile(node, (database) => readShellEdits(database, -1)).map(({ change }) => change));
      const wrong = this.#random.below(10) === 0 ? "UPDATE failover_map SET rank = 9 WHERE group_id = 'a';" : '';
      const sql = `.timeout 5000\nBEGIN IMMEDIATE; INSERT OR REPLACE INTO node_state (node_id, state, reason) VALUES ('${node}', 'in-service', '${marker}'); ${wrong} COMMIT;`;
      try {
        await shell(this.#file(node), sql);
      } catch (error) {
        // Busy: nothing was edited.
        if (!/locked|busy/i.test(describeError(error))) throw error;
        made.refused = true;
        continue;
      }
      const ended = await waitFor(
        realClock,
        () =>
          this.#inFile(node, (database) => readShellEdits(database, -1)).find(
            ({ change, outcome, rows }) => !known.has(change) && outcome !== 'waiting' && rows.length > 0,
          ),
        {
          timeoutMs: settleMs,
          everyMs: 25,
          onTimeout: () => new Error(`${made.marker} of the shell at ${node} vanished`),
        },
      );
      if (ended.outcome === 'entered') made.entered = ended.index ?? 0;
      else made.refused = true;
    }
  }

  #file(node: NodeId | undefined): string {
    return currentGroupFile(join(this.#place.dataFolder, String(node), groupFileName(configGroup)));
  }

  #inFile<Answer>(node: NodeId | undefined, read: (database: Database.Database) => Answer): Answer {
    const database = new Database(this.#file(node), { readonly: true, timeout: 5_000 });
    try {
      return read(database);
    } finally {
      database.close();
    }
  }

  /** One fault after the other: what is frozen or dead is cut off from all others. */
  async #makeFaults(): Promise<void> {
    const { cluster, place } = this.#place;
    const nodes = place.topology.nodes.map(({ id }) => String(id));
    const brokers = place.topology.brokers.map(({ id }) => id);
    const pick = (ids: readonly string[]): string => ids[this.#random.below(ids.length)] ?? '';
    while (!this.#ended) {
      await delay(realClock, 3_000 + this.#random.below(4_000));
      const kind =
        ['node frozen', 'node frozen', 'node killed', 'broker killed', 'majority frozen'][this.#random.below(5)] ?? '';
      this.faults[kind] = (this.faults[kind] ?? 0) + 1;
      if (kind === 'node killed' || kind === 'broker killed') {
        const id = pick(kind === 'node killed' ? nodes : brokers);
        await cluster.kill(id, 'SIGKILL');
        await delay(realClock, this.#random.below(2_000));
        await cluster.restart(id);
      } else {
        const first = this.#random.below(nodes.length);
        const frozen = [...nodes, ...nodes].slice(first, first + (kind === 'node frozen' ? 1 : 3));
        for (const id of frozen) await cluster.kill(id, 'SIGSTOP');
        await delay(realClock, 500 + this.#random.below(3_000));
        for (const id of frozen) await cluster.kill(id, 'SIGCONT');
      }
    }
  }
}

/** As YAML, of which JSON is a part. */
function mergedFile(changes: readonly ConfigurationChange[]): object {
  const rows = new Map(changes.map((change) => [`${change.table} ${keyOfChange(change)}`, change]));
  const file: Record<string, object[]> = {};
  for (const change of rows.values()) if (change.operation === 'put') (file[change.table] ??= []).push(change.row);
  return file;
}

async function quadrant(args: readonly string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  try {
    const { stdout, stderr } = await run(process.execPath, [program, ...args], { maxBuffer: 1 << 26 });
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout = '', stderr = '' } = error as { code?: number; stdout?: string; stderr?: string };
    return { exitCode: code ?? 1, stdout, stderr };
  }
}

function shell(path: string, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = execFile('sqlite3', ['-bail', path], (error, _stdout, stderr) => {
      if (error === null) resolve();
      else reject(new Error(stderr));
    });
    child.stdin?.end(sql);
  });
}
