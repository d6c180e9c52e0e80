/**
 * A node that comes back after it has missed many entries, and a node whose copies are made anew in a cluster that has
 * many: real processes and brokers under 500 requests/s. The entries are written into the files of the stopped cluster,
 * because making millions by requests would take half an hour. `node scripts/bench/recovery.ts [MISSED [HELD]]`.
 */
import { copyFileSync, existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import { configGroup, type CardId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import type { Topology } from '../../base/topology.ts';
import { sampleCardFile } from '../../cli/acquirer/load-command.ts';
import { defaultMix } from '../../cli/acquirer/load-mix.ts';
import type { LoadSummary } from '../../cli/acquirer/load-summary.ts';
import { rebuildNode } from '../../cli/commands/rebuild.ts';
import { behind, viewGroups } from '../../cli/commands/situation.ts';
import { askAll } from '../../cli/commands/status.ts';
import { groupFileName, groupOfFile } from '../../cli/node/thread-writer.ts';
import { OperatorBus } from '../../cli/operator-bus.ts';
import { chainEntry, encodeBody, type DecisionEntry, type LogEntry, type LogPosition } from '../../store/entry.ts';
import { GroupFile, noFold } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import { BenchCluster } from './cluster.ts';

export interface RecoveryBench {
  readonly missed: number;
  readonly caughtUpMs: number;
  readonly caughtUpPerSecond: number;
  readonly held: number;
  readonly rebuiltMs: number;
  /** 99th percentile of authorizations, before the rebuild and during it, and their ratio. */
  readonly p99BeforeMs: number;
  readonly p99DuringMs: number;
  readonly p99Ratio: number;
  /** Requests without an answer, in all of it. */
  readonly unanswered: number;
}

const requestsPerSecond = 500;
const quietMs = 15_000;
const batchEntries = 5_000;
const pollMs = 100;
const rebuildTimeoutMs = 30 * 60_000;
const dayMs = 86_400_000;

export async function benchRecovery(options: {
  readonly missed: number;
  readonly held: number;
  readonly print: (line: string) => void;
}): Promise<RecoveryBench> {
  const { missed, held, print } = options;
  const cluster = await BenchCluster.ofSample('recovery');
  const { topology, dataFolder } = cluster;
  const node = topology.nodes[1]?.id ?? topology.nodes[0]?.id;
  if (node === undefined) throw new Error('the sample has nodes');
  try {
    await cluster.start();
    await cluster.stop();
    print(`writing ${held} entries into each copy ...`);
    extendLogs(dataFolder, topology, held, undefined);
    await cluster.start();
    const before = await underLoad(cluster, () => delay(realClock, quietMs));
    print(`rebuilding ${node} ...`);
    const during = await underLoad(cluster, () => rebuild(topology, dataFolder, node, print));
    await cluster.stop();
    print(`writing ${missed} entries into each copy but those of ${node} ...`);
    extendLogs(dataFolder, topology, missed, node);
    await cluster.start();
    const back = await underLoad(cluster, () => untilCaughtUp(topology, dataFolder, node));
    const [p99BeforeMs, p99DuringMs] = [before.summary.latencyMs.p99, during.summary.latencyMs.p99];
    return {
      missed,
      caughtUpMs: back.result,
      caughtUpPerSecond: Math.round(missed / (back.result / 1000)),
      held,
      rebuiltMs: during.result,
      p99BeforeMs,
      p99DuringMs,
      p99Ratio: p99DuringMs / p99BeforeMs,
      unanswered: [before, during, back].reduce((sum, { summary }) => sum + summary.unanswered, 0),
    };
  } finally {
    await cluster.remove();
  }
}

async function underLoad<Result>(
  cluster: BenchCluster,
  happening: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly summary: LoadSummary }> {
  const end = new AbortController();
  const loading = cluster.load(sampleCardFile, {
    connections: 20,
    mix: defaultMix,
    pace: { kind: 'rate', perSecond: requestsPerSecond },
    durationMs: 2 * rebuildTimeoutMs,
    requestTimeoutMs: 4_000,
    giveUpMs: 12_000,
    reverseUnanswered: true,
    drainMs: 12_000,
    signal: end.signal,
  });
  const result = await happening().finally(() => {
    end.abort();
  });
  return { result, summary: await loading };
}

async function rebuild(
  topology: Topology,
  dataFolder: string,
  node: NodeId,
  print: (line: string) => void,
): Promise<number> {
  const bus = await OperatorBus.connect(topology, dataFolder);
  try {
    const groups = viewGroups(topology, await askAll(bus)).map(({ name }) => name);
    const context = { clock: realClock, note: print };
    const { left, tookMs } = await rebuildNode(bus, context, {
      node,
      groups,
      by: 'bench',
      timeoutMs: rebuildTimeoutMs,
    });
    if (left.length > 0) throw new Error(`${node} is not whole in ${left.join(', ')}`);
    return tookMs;
  } finally {
    await bus.close();
  }
}

/** Milliseconds until the node has what the others have but for what is always on its way. */
async function untilCaughtUp(topology: Topology, dataFolder: string, node: NodeId): Promise<number> {
  const beginMs = realClock.monotonicMs();
  const bus = await OperatorBus.connect(topology, dataFolder);
  try {
    for (;;) {
      const answers = await askAll(bus);
      const left = viewGroups(topology, answers).reduce((sum, group) => sum + behind(group, node, 'node'), 0);
      if (answers.get(node) !== undefined && left <= requestsPerSecond) return realClock.monotonicMs() - beginMs;
      await delay(realClock, pollMs);
    }
  } finally {
    await bus.close();
  }
}

// ---- the files of a cluster that stands --------------------------------------------------------------------------------

/** Appends `count` approvals over all card groups to the copies of every process, `except` left out. */
function extendLogs(dataFolder: string, topology: Topology, count: number, except: NodeId | undefined): void {
  const [first, ...others] = topology.nodes.map(({ id }) => id).filter((id) => id !== except);
  if (first === undefined) throw new Error('some node has to be written to');
  const groups = [...new Set(readdirSync(join(dataFolder, first)).flatMap((file) => groupOfFile(file) ?? []))];
  const cardGroups = groups.filter((group) => cardsOf(fileOf(dataFolder, first, group), group).length > 0);
  for (const group of cardGroups) {
    const path = fileOf(dataFolder, first, group);
    const from = extendLog(path, group, topology.cluster, Math.ceil(count / cardGroups.length));
    for (const other of others) replaceFile(path, fileOf(dataFolder, other, group));
    if (topology.witness !== undefined) {
      copyLog(path, fileOf(dataFolder, topology.witness.id, group), group, topology.cluster, from);
    }
  }
}

function fileOf(dataFolder: string, id: NodeId, group: GroupId): string {
  return currentGroupFile(join(dataFolder, id, groupFileName(group)));
}

function cardsOf(path: string, group: GroupId): readonly CardId[] {
  if (group === configGroup) return [];
  const reader = new GroupReader(path, group);
  try {
    return reader.database.prepare<[], CardId>('SELECT card_id FROM card').pluck().all();
  } finally {
    reader.close();
  }
}

/** The index after which the entries were appended. */
function extendLog(path: string, group: GroupId, cluster: string, count: number): number {
  const cards = cardsOf(path, group);
  const file = GroupFile.open(path, group, cluster, ledgerFold);
  const before = file.last;
  file.write({ entries: [], keepThrough: undefined, applyThrough: before.index });
  for (let done = 0; done < count; done += batchEntries) {
    const entries: LogEntry[] = [];
    for (let number = done; number < Math.min(count, done + batchEntries); number++) {
      const previous: LogPosition = entries.at(-1) ?? file.last;
      const card = cards[number % cards.length];
      if (card === undefined) throw new Error('the group has cards');
      entries.push(chainEntry(previous, previous.term, encodeBody(approval(card, before.index + number))));
    }
    file.write({ entries, keepThrough: undefined, applyThrough: Number.MAX_SAFE_INTEGER });
    file.finishCheckpoint();
  }
  file.close();
  return before.index;
}

/** Of one minor unit, so that no card's limit is reached. */
function approval(card: CardId, number: number): DecisionEntry {
  const at = realClock.wallMs();
  const stan = String(number % 1_000_000).padStart(6, '0');
  const transmission = String(1_000_000_000 + Math.floor(number / 1_000_000)).slice(0, 10);
  return {
    kind: 'decision',
    at,
    configIndex: 1,
    durability: 'quorum',
    attempt: `bench.1.${number}`,
    request: {
      key: `${transmission}|${stan}|bench|1|BENCH001|0100`,
      mtiClass: '0100',
      link: 'bench',
      card,
      acquirer: '1',
      terminal: 'BENCH001',
      merchant: 'BENCH0000000001',
      stan,
      transmission,
      rrn: String(number).padStart(12, '0'),
      processingCode: '000000',
      amount: '1',
      currency: '840',
      businessDate: new Date(at).toISOString().slice(0, 10),
    },
    responseCode: '00',
    authorizationCode: stan,
    additionalAmounts: '',
    hold: '1',
    holdExpiresAt: at + 7 * dayMs,
    post: '0',
    completes: 0,
  };
}

function replaceFile(from: string, to: string): void {
  for (const suffix of ['-wal', '-shm']) if (existsSync(to + suffix)) rmSync(to + suffix);
  copyFileSync(from, to);
}

function copyLog(from: string, to: string, group: GroupId, cluster: string, after: number): void {
  const reader = new GroupReader(from, group);
  const file = GroupFile.open(to, group, cluster, noFold);
  for (let next = Math.min(after, file.last.index) + 1; ;) {
    const entries = reader.entries(next, batchEntries);
    const fresh = entries.filter(({ index }) => index > file.last.index);
    if (entries.length === 0) break;
    file.write({ entries: fresh, keepThrough: undefined, applyThrough: Number.MAX_SAFE_INTEGER });
    file.finishCheckpoint();
    next += entries.length;
  }
  reader.close();
  file.close();
}

if (process.argv[1]?.endsWith('recovery.ts') === true) {
  const [missed = 300_000, held = 3_000_000] = process.argv.slice(2).map(Number);
  const print = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  print(JSON.stringify(await benchRecovery({ missed, held, print }), undefined, 2));
  process.exit();
}
