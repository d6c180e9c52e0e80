import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { groupId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { GroupFile } from './group-file.ts';
import { ledgerFold } from './ledger-fold.ts';
import { SnapshotShelf, type OpenReply, type ReadReply } from './snapshot-shelf.ts';
import { sampleLog, temporaryFolder } from './testing.ts';

const group = groupId('a');
const entries = sampleLog(group, 1_500);

function start(context: TestContext): { clock: ManualClock; shelf: SnapshotShelf; file: GroupFile } {
  const clock = new ManualClock();
  const file = GroupFile.open(join(temporaryFolder(context), 'a.db'), group, 'test', ledgerFold);
  file.write({ entries: entries.slice(0, 1_000), keepThrough: undefined, applyThrough: 1_000 });
  const shelf = new SnapshotShelf({
    clock,
    fileOf: () => file.path,
    shapeOf: () => ledgerFold,
    pinnedBytes: 2_000_000,
  });
  context.after(() => {
    shelf.closeAll();
    file.close();
  });
  return { clock, shelf, file };
}

/** Answers come before the call returns. */
function open(shelf: SnapshotShelf): OpenReply {
  let reply: OpenReply | undefined;
  shelf.open(group, 'log-and-fold', (each) => {
    reply = each;
  });
  assert.ok(reply !== undefined);
  return reply;
}

function read(shelf: SnapshotShelf, snapshot: number, chunk = 0): ReadReply['kind'] {
  let reply: ReadReply | undefined;
  shelf.read(snapshot, chunk, (each) => {
    reply = each;
  });
  assert.ok(reply !== undefined);
  return reply.kind;
}

function opened(shelf: SnapshotShelf): number {
  const reply = open(shelf);
  assert.ok(reply.kind === 'opened');
  return reply.snapshot;
}

test('a snapshot that nobody reads is given up after a minute, one that is read is not', (context) => {
  const { clock, shelf } = start(context);
  const [idle, used] = [opened(shelf), opened(shelf)];
  for (let second = 0; second <= 61; second++) {
    assert.equal(read(shelf, used), 'chunk');
    clock.advance(1_000);
    shelf.tend();
  }
  assert.deepEqual([read(shelf, idle), read(shelf, used), shelf.size], ['refused', 'chunk', 1]);
});

test("a snapshot is given up when its file's write-ahead log has grown too long, so that it can begin anew", (context) => {
  const { shelf, file } = start(context);
  const snapshot = opened(shelf);
  shelf.tend();
  assert.equal(read(shelf, snapshot), 'chunk');
  file.write({ entries: entries.slice(1_000), keepThrough: undefined, applyThrough: entries.length });
  for (let step = 0; step < 20; step++) {
    file.write({ entries: [], keepThrough: undefined, applyThrough: 0, trimThrough: 50 * step });
  }
  shelf.tend();
  assert.equal(read(shelf, snapshot), 'refused');
});

test('no more than sixteen snapshots are open at once, and a closed one makes room', (context) => {
  const { shelf } = start(context);
  const open16 = Array.from({ length: 16 }, () => opened(shelf));
  assert.equal(open(shelf).kind, 'refused');
  shelf.close(open16[3] ?? 0);
  assert.equal(open(shelf).kind, 'opened');
  assert.equal(shelf.size, 16);
});

test('a chunk after the last one is told from one of a snapshot that is not open', (context) => {
  const { shelf } = start(context);
  const snapshot = opened(shelf);
  assert.equal(read(shelf, snapshot, 500), 'beyond-end');
  assert.equal(read(shelf, snapshot + 1), 'refused');
});
