import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, Worker, workerData, type MessagePort } from 'node:worker_threads';

import { delay } from '../../base/clock.ts';
import { assert, describeError } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { CompareDesk } from '../../compare/desk.ts';
import { failed, parseCompareCall } from '../../compare/protocol.ts';
import { tablesOf } from '../../compare/tables.ts';
import { configurationFold, configurationShape } from '../../config-db/configuration-fold.ts';
import type { RewriteTopology } from '../../config-db/rewrite.ts';
import { checkpoint } from '../../store/checkpoint.ts';
import type { EncodedKey } from '../../store/canonical.ts';
import type { FoldShape } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import type { RowState } from '../../store/row-repair.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import { isDamage, SnapshotReader } from '../../store/snapshot-reader.ts';
import { SnapshotShelf, type Holding, type OpenReply, type ReadReply } from '../../store/snapshot-shelf.ts';
import { groupFileName } from './thread-writer.ts';

/** What the thread is started with. */
export interface MaintenanceThreadData {
  readonly folder: string;
  /** Whose folds these are; undefined: a witness, which has none. */
  readonly folds: { readonly self: NodeId; readonly topology: RewriteTopology } | undefined;
}

export interface ToMaintenanceThread {
  readonly call: number;
  readonly request:
    | { readonly kind: 'checkpoint' }
    | {
        readonly kind: 'open';
        readonly group: GroupId;
        readonly path: string;
        readonly compare: string;
        readonly index: number;
      }
    | { readonly kind: 'compare'; readonly parameters: unknown }
    | {
        readonly kind: 'read-rows';
        readonly group: GroupId;
        readonly compare: string;
        readonly table: string;
        readonly keys: readonly EncodedKey[];
        /** Of the fold as it was made anew. */
        readonly copy: 'recomputed' | undefined;
      }
    | { readonly kind: 'snapshot-open'; readonly group: GroupId; readonly holding: Holding }
    | { readonly kind: 'snapshot-read'; readonly snapshot: number; readonly chunk: number }
    | { readonly kind: 'snapshot-close'; readonly snapshot: number }
    /** Another thread of the process asks through this port. */
    | { readonly kind: 'connect'; readonly port: MessagePort }
    | { readonly kind: 'close' };
}

export type FromMaintenanceThread =
  | { readonly call: number; readonly kind: 'done' }
  | { readonly call: number; readonly kind: 'checkpointed'; readonly files: readonly string[] }
  | { readonly call: number; readonly kind: 'result'; readonly result: unknown }
  | { readonly call: number; readonly kind: 'rows'; readonly rows: readonly (RowState | null)[] }
  | { readonly call: number; readonly kind: 'snapshot-opened'; readonly reply: OpenReply }
  | { readonly call: number; readonly kind: 'snapshot-chunk'; readonly reply: ReadReply }
  | { readonly call: number; readonly kind: 'refused'; readonly reason: string };

/** A write-ahead log is moved into its file when it is larger than this. */
const checkpointBytes = 4 * 1024 * 1024;
/** A snapshot holds up the reuse of its file's write-ahead log: beyond this size it is cut off. */
const pinnedBytes = 256 * 1024 * 1024;
/** A snapshot that nobody has asked for this long is given up. */
const idleMs = 60_000;
/** How long an edited row may take to be put back: less than apply stands at a mark. */
const putBackWithinMs = 1500;
/** How long a compare's first call waits for the mark to be applied here. */
const openWaitMs = 25_000;

const port = parentPort;
assert(port !== null, 'maintenance runs in a thread of its own');
const { folder, folds } = workerData as MaintenanceThreadData;

interface OpenSnapshot {
  readonly desk: CompareDesk;
  readonly path: string;
  usedMs: number;
}

/** Files of folds that are made anew; those of a process that was killed are of no use to anybody. */
const recomputedPrefix = 'recomputed-';
let recomputations = 0;
for (const name of readdirSync(folder)) if (name.startsWith(recomputedPrefix)) rmSync(join(folder, name));

/** By compare and group. */
const snapshots = new Map<string, OpenSnapshot>();
/** Files that could not be opened at a mark because they are damaged: what is said of them, by compare and group. */
const damaged = new Map<string, { readonly message: string; readonly atMs: number }>();
/** First calls of compares that wait for their mark, by compare and group. */
const waiting = new Map<string, ((snapshot: OpenSnapshot | undefined) => void)[]>();

/** Snapshots for members that are far behind. */
const shelf = new SnapshotShelf({
  clock: realClock,
  fileOf: (group) => currentGroupFile(join(folder, groupFileName(group))),
  shapeOf,
});

function shapeOf(group: GroupId): FoldShape {
  return group === configGroup ? configurationShape : ledgerFold;
}

function nameOf(compare: string, group: string): string {
  return `${compare} ${group}`;
}

function give(name: string, snapshot: OpenSnapshot | undefined): void {
  const resolvers = waiting.get(name) ?? [];
  waiting.delete(name);
  for (const resolve of resolvers) resolve(snapshot);
}

/**
 * Pins the state of a group's file as it is now: its writer stands at the compare's mark. A row that somebody has just
 * edited in the sqlite3 shell is not what the log says until the writer has put it back: that is waited for. Where it
 * takes too long, because a shell holds the file locked, there is no snapshot.
 */
async function openSnapshot({
  compare,
  group,
  path,
}: {
  compare: string;
  group: GroupId;
  path: string;
}): Promise<void> {
  const name = nameOf(compare, group);
  const deadlineMs = realClock.monotonicMs() + putBackWithinMs;
  while (!snapshots.has(name) && !damaged.has(name)) {
    const reader = openOrNote(name, path, group);
    if (reader === undefined) return;
    if (!reader.isEdited) {
      const snapshot = { desk: deskOf(reader, group, path), path, usedMs: realClock.monotonicMs() };
      snapshots.set(name, snapshot);
      give(name, snapshot);
      return;
    }
    reader.close();
    if (realClock.monotonicMs() > deadlineMs) return;
    await delay(realClock, 20);
  }
}

/** Undefined when the file is damaged: that is what the compare's calls are answered with. */
function openOrNote(name: string, path: string, group: GroupId): SnapshotReader | undefined {
  try {
    return SnapshotReader.open(path, shapeOf(group).isEdited);
  } catch (error) {
    if (!isDamage(error)) throw error;
    damaged.set(name, { message: describeError(error), atMs: realClock.monotonicMs() });
    give(name, undefined);
    return undefined;
  }
}

function deskOf(reader: SnapshotReader, group: GroupId, path: string): CompareDesk {
  const fold = folds && (group === configGroup ? configurationFold(folds.self, folds.topology) : ledgerFold);
  return new CompareDesk({
    reader,
    tables: tablesOf(group),
    recomputation: fold && { fold, path: join(folder, `${recomputedPrefix}${++recomputations}.tmp`) },
    integrityFaults: () => integrityFaultsOf(path),
  });
}

function integrityFaultsOf(path: string): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./integrity-thread.ts', import.meta.url), { workerData: path });
    worker.on('message', resolve);
    worker.on('error', reject);
    worker.on('exit', () => {
      reject(new Error('the thread that looks at the pages ended'));
    });
  });
}

function closeSnapshot(name: string): void {
  snapshots.get(name)?.desk.close();
  snapshots.delete(name);
}

function closeUnwanted(): void {
  const nowMs = realClock.monotonicMs();
  for (const [name, { atMs }] of damaged) if (nowMs - atMs > idleMs) damaged.delete(name);
  for (const [name, { path, usedMs }] of snapshots) {
    if (nowMs - usedMs > idleMs || sizeOf(`${path}-wal`) > pinnedBytes) closeSnapshot(name);
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function checkpointLarge(): string[] {
  const large = readdirSync(folder)
    .filter((name) => name.endsWith('.db-wal') && sizeOf(join(folder, name)) > checkpointBytes)
    .map((name) => name.slice(0, -'-wal'.length))
    .filter((name) => existsSync(join(folder, name)));
  for (const name of large) checkpoint(join(folder, name));
  return large;
}

async function compare(parameters: unknown): Promise<unknown> {
  const call = parseCompareCall(parameters);
  if (call === undefined) return failed('error', 'not a call of the compare protocol');
  const name = nameOf(call.compare, call.group);
  const snapshot =
    snapshots.get(name) ?? (call.kind === 'open' && !damaged.has(name) ? await awaitSnapshot(name) : undefined);
  if (snapshot === undefined) {
    const damage = damaged.get(name);
    if (damage !== undefined) return failed('damaged', damage.message);
    return call.kind === 'open'
      ? failed('mark-not-reached', `the mark was not applied within ${openWaitMs} ms`)
      : failed('snapshot-closed', 'the snapshot is not open any more');
  }
  snapshot.usedMs = realClock.monotonicMs();
  const earlier =
    call.kind === 'recompute' && call.from !== undefined ? snapshots.get(nameOf(call.from, call.group)) : undefined;
  if (earlier !== undefined) snapshot.desk.adopt(earlier.desk);
  const reply = snapshot.desk.answer(call);
  if (call.kind === 'close') closeSnapshot(name);
  return reply;
}

/** Bytes of rows after which an answer is cut: whoever asks goes on with the next key. */
const maximumRowBytes = 300_000;

/** The first rows of these, one at least, as the snapshot has them. */
function readRows({
  compare: name,
  group,
  table,
  keys,
  copy,
}: ToMaintenanceThread['request'] & { kind: 'read-rows' }): (RowState | null)[] {
  const snapshot = snapshots.get(nameOf(name, group));
  const specification = tablesOf(group).find((each) => each.name === table);
  const reader = copy === undefined ? snapshot?.desk.reader : snapshot?.desk.recomputed;
  if (snapshot === undefined || reader === undefined || specification === undefined) {
    throw new Error('there is no such snapshot or table');
  }
  snapshot.usedMs = realClock.monotonicMs();
  const rows: (RowState | null)[] = [];
  let bytes = 0;
  for (const key of keys) {
    if (bytes > maximumRowBytes) break;
    const row = reader.row(specification, key);
    bytes += row === undefined ? 10 : JSON.stringify(row).length;
    // Derived columns are each node's own.
    rows.push(row === undefined ? null : { ...row, values: row.values.slice(0, specification.columns.length) });
  }
  return rows;
}

function awaitSnapshot(name: string): Promise<OpenSnapshot | undefined> {
  return new Promise((resolve) => {
    const timer = realClock.after(openWaitMs, () => {
      resolve(undefined);
    });
    const resolvers = waiting.get(name) ?? [];
    resolvers.push((snapshot) => {
      timer.cancel();
      resolve(snapshot);
    });
    waiting.set(name, resolvers);
  });
}

type Reply = FromMaintenanceThread extends infer Each ? (Each extends unknown ? Omit<Each, 'call'> : never) : never;

async function carryOut(request: ToMaintenanceThread['request']): Promise<Reply> {
  switch (request.kind) {
    case 'checkpoint':
      closeUnwanted();
      shelf.tend();
      return { kind: 'checkpointed', files: checkpointLarge() };
    case 'open':
      await openSnapshot(request);
      return { kind: 'done' };
    case 'compare':
      return { kind: 'result', result: await compare(request.parameters) };
    case 'read-rows':
      return { kind: 'rows', rows: readRows(request) };
    case 'snapshot-open':
      return await new Promise((resolve) => {
        shelf.open(request.group, request.holding, (reply) => {
          resolve({ kind: 'snapshot-opened', reply });
        });
      });
    case 'snapshot-read':
      return await new Promise((resolve) => {
        shelf.read(request.snapshot, request.chunk, (reply) => {
          resolve({ kind: 'snapshot-chunk', reply });
        });
      });
    case 'snapshot-close':
      shelf.close(request.snapshot);
      return { kind: 'done' };
    case 'connect':
      serve(request.port);
      return { kind: 'done' };
    case 'close':
      shelf.closeAll();
      for (const name of snapshots.keys()) closeSnapshot(name);
      for (const name of waiting.keys()) give(name, undefined);
      return { kind: 'done' };
  }
}

/** Answers what comes through a port: the process's main thread's, or another thread's. */
function serve(caller: MessagePort): void {
  caller.on('message', ({ call, request }: ToMaintenanceThread) => {
    void carryOut(request)
      .then(
        (reply): FromMaintenanceThread => ({ call, ...reply }),
        (error: unknown): FromMaintenanceThread => ({ call, kind: 'refused', reason: describeError(error) }),
      )
      .then((reply) => {
        caller.postMessage(reply);
        if (request.kind !== 'close') return;
        for (const each of callers) each.close();
      });
  });
  callers.push(caller);
}

const callers: MessagePort[] = [];
serve(port);
