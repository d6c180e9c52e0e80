import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';

import { assert, describeError } from '../../base/errors.ts';
import { configGroup, type GroupId } from '../../base/identifiers.ts';
import { answerCompareCall, type CompareReply, type SnapshotCall } from '../../compare/protocol.ts';
import { tablesOf } from '../../compare/tables.ts';
import { configurationShape } from '../../config-db/configuration-fold.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';

/** Opens, reads and closes snapshots of one node's files for compares: what takes long is done here (`CompareReaders`). */
export type ToReaderThread = { readonly call: number } & (
  | {
      readonly kind: 'open';
      readonly name: string;
      readonly path: string;
      readonly group: GroupId;
      readonly index: number;
    }
  | { readonly kind: 'answer'; readonly name: string; readonly asked: SnapshotCall }
  | { readonly kind: 'close'; readonly name: string }
);

export type FromReaderThread = { readonly call: number } & (
  | { readonly kind: 'opened'; readonly isOpen: boolean }
  | { readonly kind: 'answered'; readonly reply: CompareReply | undefined }
  | { readonly kind: 'closed' }
  | { readonly kind: 'failed'; readonly message: string }
);

/** How far below the threads that decide: a compare takes what they leave of the processors, and a little more. */
const niceness = 10;

const port = parentPort;
assert(port !== null, 'snapshots are read in a thread of its own');

try {
  // Linux alone has priorities of threads, and says there which thread this is.
  setPriority(Number(readlinkSync('/proc/thread-self').split('/').at(-1)), niceness);
} catch {
  // As important as all others then.
}

const readers = new Map<string, SnapshotReader>();

/** Only of the same rows as the snapshots of the other threads: at the mark, and without an edit that is to be undone. */
function open(name: string, path: string, group: GroupId, index: number): boolean {
  const reader = SnapshotReader.open(path, (group === configGroup ? configurationShape : ledgerFold).isEdited);
  const isOpen = reader.appliedIndex === index && !reader.isEdited;
  if (isOpen) readers.set(name, reader);
  else reader.close();
  return isOpen;
}

function carryOut(request: ToReaderThread): FromReaderThread {
  const { call } = request;
  switch (request.kind) {
    case 'open':
      return { call, kind: 'opened', isOpen: open(request.name, request.path, request.group, request.index) };
    case 'answer': {
      const reader = readers.get(request.name);
      const reply = reader && answerCompareCall(reader, tablesOf(reader.group), request.asked);
      return { call, kind: 'answered', reply };
    }
    case 'close':
      readers.get(request.name)?.close();
      readers.delete(request.name);
      return { call, kind: 'closed' };
  }
}

port.on('message', (request: ToReaderThread) => {
  let reply: FromReaderThread;
  try {
    reply = carryOut(request);
  } catch (error) {
    reply = { call: request.call, kind: 'failed', message: describeError(error) };
  }
  port.postMessage(reply);
});
