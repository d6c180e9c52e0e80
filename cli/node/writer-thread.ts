import { parentPort, workerData } from 'node:worker_threads';

import { assert, describeError, SwitchError, type ErrorCode } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { tablesOf } from '../../compare/tables.ts';
import { configurationFold } from '../../config-db/configuration-fold.ts';
import type { RewriteTopology } from '../../config-db/rewrite.ts';
import { GroupFile, noFold, type EditOutcome, type Fold, type RepairBatch } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import type { RowOutcome } from '../../store/row-repair.ts';
import { emptyGroupFile } from '../../store/snapshot-install.ts';
import { WriteQueue } from '../../store/write-queue.ts';
import type { OpenedGroup, SnapshotRequest, WriteRequest, WriterEvent } from '../../store/writer.ts';
import { SharedMeters } from './meters.ts';

/** What the thread is started with. */
export interface WriterThreadData {
  readonly self: NodeId;
  readonly cluster: string;
  readonly topology: RewriteTopology;
  /** A witness keeps logs and no folds. */
  readonly witness: boolean;
  /** `SharedMeters`. */
  readonly meters: SharedArrayBuffer;
}

export type ToWriterThread =
  | { readonly kind: 'open'; readonly call: number; readonly group: GroupId; readonly path: string }
  | {
      readonly kind: 'reopen';
      readonly call: number;
      readonly group: GroupId;
      readonly path: string;
      readonly empty: boolean;
    }
  | { readonly kind: 'submit'; readonly requests: readonly WriteRequest[] }
  | { readonly kind: 'trim'; readonly group: GroupId; readonly through: number }
  | { readonly kind: 'resume'; readonly group: GroupId }
  | { readonly kind: 'finish-checkpoint'; readonly group: GroupId }
  | { readonly kind: 'close-edit'; readonly group: GroupId; readonly outcome: EditOutcome }
  | { readonly kind: 'snapshot'; readonly request: SnapshotRequest }
  | { readonly kind: 'repair'; readonly call: number; readonly group: GroupId; readonly batch: RepairBatch }
  | { readonly kind: 'close'; readonly call: number };

export type FromWriterThread =
  | ({ readonly kind: 'opened'; readonly call: number } & OpenedGroup)
  | { readonly kind: 'refused'; readonly call: number; readonly code: ErrorCode | undefined; readonly message: string }
  | { readonly kind: 'repaired'; readonly call: number; readonly outcomes: readonly RowOutcome[] }
  | { readonly kind: 'closed'; readonly call: number }
  | { readonly kind: 'events'; readonly events: readonly WriterEvent[] };

/*
 * The one thread of a process that writes its groups' files. It takes what has gathered for a group, in one
 * transaction, and tells what has been synced; it decides nothing.
 */
const port = parentPort;
assert(port !== null, 'the writer runs in a thread of its own');
const data = workerData as WriterThreadData;

let events: WriterEvent[] = [];
const post = (message: FromWriterThread): void => {
  port.postMessage(message);
};
const emit = (event: WriterEvent): void => {
  if (events.length === 0) {
    queueMicrotask(() => {
      post({ kind: 'events', events });
      events = [];
    });
  }
  events.push(event);
};
const queue = new WriteQueue(realClock, emit, undefined, new SharedMeters(data.meters).writer);

/** How soon an edit by the sqlite3 shell is noticed. */
const tendEditsMs = 100;
let tending = realClock.after(tendEditsMs, tendEdits);
function tendEdits(): void {
  queue.tendEdits();
  tending = realClock.after(tendEditsMs, tendEdits);
}

function foldOf(group: GroupId): Fold {
  if (data.witness) return noFold;
  return group === configGroup ? configurationFold(data.self, data.topology) : ledgerFold;
}

/** A file that could not even be opened at the start has no queue yet. */
function reopened({ group, path, empty }: ToWriterThread & { kind: 'reopen' }): GroupFile {
  if (queue.has(group)) return queue.reopen(group, empty);
  if (empty) emptyGroupFile(path);
  const file = GroupFile.open(path, group, data.cluster, foldOf(group));
  queue.add(group, file);
  return file;
}

function answerOpened(call: number, open: () => GroupFile): void {
  try {
    const { last, applied, base, path } = open();
    post({ kind: 'opened', call, last, applied, base, path });
  } catch (error) {
    refuse(call, error);
  }
}

function refuse(call: number, error: unknown): void {
  const code = error instanceof SwitchError ? error.code : undefined;
  post({ kind: 'refused', call, code, message: describeError(error) });
}

/** Between threads a Buffer becomes a plain array of bytes. */
function withBuffer(request: SnapshotRequest): SnapshotRequest {
  if (request.kind !== 'write') return request;
  const { buffer, byteOffset, byteLength } = request.bytes;
  return { ...request, bytes: Buffer.from(buffer, byteOffset, byteLength) };
}

port.on('message', (message: ToWriterThread) => {
  switch (message.kind) {
    case 'open':
      answerOpened(message.call, () => {
        const file = GroupFile.open(message.path, message.group, data.cluster, foldOf(message.group));
        queue.add(message.group, file);
        return file;
      });
      break;
    case 'reopen':
      answerOpened(message.call, () => reopened(message));
      break;
    case 'submit':
      for (const request of message.requests) queue.submit(request);
      break;
    case 'trim':
      queue.trim(message.group, message.through);
      break;
    case 'resume':
      queue.resume(message.group);
      break;
    case 'finish-checkpoint':
      queue.finishCheckpoint(message.group);
      break;
    case 'close-edit':
      queue.closeEdit(message.group, message.outcome);
      break;
    case 'snapshot':
      queue.snapshot(withBuffer(message.request));
      break;
    case 'repair': {
      const { call, group, batch } = message;
      queue.repair(group, batch, tablesOf(group), (outcome) => {
        if (outcome instanceof Error) refuse(call, outcome);
        else post({ kind: 'repaired', call, outcomes: outcome });
      });
      break;
    }
    case 'close':
      tending.cancel();
      queue.close();
      post({ kind: 'closed', call: message.call });
      port.close();
      break;
  }
});
