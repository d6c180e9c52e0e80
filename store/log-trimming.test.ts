import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { groupId, nodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { chainEntry, encodeBody, originPosition, type EntryBody, type LogEntry } from './entry.ts';
import { GroupFile, noFold, type Fold } from './group-file.ts';
import { ledgerFold } from './ledger-fold.ts';
import { GroupReader } from './log-reader.ts';
import { SnapshotReader } from './snapshot-reader.ts';
import { chained, readByHand, runByHand, sampleLog, temporaryFolder } from './testing.ts';
import { WriteQueue } from './write-queue.ts';
import type { WriterEvent } from './writer.ts';

const group = groupId('a');
const noOp: EntryBody = { kind: 'no-op', leader: 'n1', term: 1 };
const membershipOf = (by: string): EntryBody => ({
  kind: 'membership',
  at: 1,
  by,
  voters: [{ id: nodeId('n1'), incarnation: 1 }],
  learners: [],
  lost: [],
});

/** A file and a reader of it, with entries appended and applied through `applied`. */
function fileOf(
  context: TestContext,
  entries: readonly LogEntry[],
  applied: number,
  fold: Fold = noFold,
): { readonly path: string; readonly file: GroupFile; readonly reader: GroupReader } {
  const path = join(temporaryFolder(context), 'a.db');
  const file = GroupFile.open(path, group, 'test', fold);
  const reader = new GroupReader(path, group);
  context.after(() => {
    reader.close();
    file.close();
  });
  file.write({ entries, keepThrough: undefined, applyThrough: applied });
  return { path, file, reader };
}

const trim = (file: GroupFile, trimThrough: number) =>
  file.write({ entries: [], keepThrough: undefined, applyThrough: 0, trimThrough });
const positionOf = ({ index, term, hash }: LogEntry) => ({ index, term, hash });
const at = (entries: readonly LogEntry[], index: number) => {
  const entry = entries[index - 1];
  assert.ok(entry !== undefined);
  return positionOf(entry);
};

describe('a trimmed log', () => {
  const ten = chained(
    group,
    Array.from({ length: 10 }, () => noOp),
  );

  test('begins after its base, which is the position of the last entry that was removed', (context) => {
    const { file, reader } = fileOf(context, ten, 10);
    assert.deepEqual([reader.base(), reader.first()], [originPosition(group), 1]);
    assert.deepEqual(trim(file, 4).base, at(ten, 4));
    assert.deepEqual([file.base, reader.base(), reader.first()], [at(ten, 4), at(ten, 4), 5]);
    assert.deepEqual(reader.position(4), at(ten, 4));
    assert.deepEqual(reader.position(5), at(ten, 5));
    for (const below of [0, 1, 3]) assert.equal(reader.position(below), undefined);
    assert.deepEqual(reader.entries(5, 3), ten.slice(4, 7));
    for (const below of [0, 1, 4]) assert.deepEqual(reader.entries(below, 9), [], `from ${below}`);
  });

  test('is trimmed no further than its fold, and never back', (context) => {
    const { file, reader } = fileOf(context, ten, 6);
    assert.deepEqual(trim(file, 99).base, at(ten, 6));
    assert.deepEqual(trim(file, 2).base, at(ten, 6));
    assert.deepEqual(reader.entries(7, 9), ten.slice(6));
    file.write({ entries: [], keepThrough: undefined, applyThrough: 10 });
    assert.deepEqual(trim(file, 9).base, at(ten, 9));
  });

  test('ends at its base when nothing is left of it, goes on from there, and is the same when opened again', (context) => {
    const { path, file, reader } = fileOf(context, ten, 10);
    trim(file, 10);
    assert.deepEqual([file.last, reader.last(), reader.first()], [at(ten, 10), at(ten, 10), 11]);
    const again = file.reopened();
    assert.deepEqual([again.path, again.last, again.base, again.applied], [path, at(ten, 10), at(ten, 10), 10]);
    const next = chainEntry(at(ten, 10), 2, encodeBody(noOp));
    again.write({ entries: [next], keepThrough: undefined, applyThrough: 11 });
    assert.deepEqual([reader.last(), reader.entries(11, 9)], [positionOf(next), [next]]);
    assert.throws(
      () => again.write({ entries: [], keepThrough: 10, applyThrough: 0 }),
      /broken invariant/,
      'what is applied is not cut',
    );
    again.close();
  });

  test('is cut back to its base at most, and then ends there', (context) => {
    const { file, reader } = fileOf(context, ten, 4);
    trim(file, 4);
    file.write({ entries: [], keepThrough: 4, applyThrough: 0 });
    assert.deepEqual([file.last, reader.last(), reader.position(5)], [at(ten, 4), at(ten, 4), undefined]);
  });

  test('loses a thousand entries in one step at most, and nothing when the step fails', (context) => {
    const long = chained(
      group,
      Array.from({ length: 5_000 }, () => noOp),
    );
    const refusing: Fold = {
      schema: '',
      open: () => (index) => {
        if (index === 5_000) throw new Error('this entry cannot be applied');
      },
    };
    const { file, reader } = fileOf(context, long, 4_999, refusing);
    assert.throws(() => file.write({ entries: [], keepThrough: undefined, applyThrough: 5_000, trimThrough: 4_000 }));
    assert.deepEqual([file.base.index, reader.first()], [0, 1]);
    const steps: number[] = [];
    while (file.base.index < 4_999) steps.push(trim(file, 5_000).base.index);
    assert.deepEqual(steps, [1_000, 2_000, 3_000, 4_000, 4_999]);
  });

  test('leaves the fold as it was', (context) => {
    const entries = sampleLog(group, 300);
    const { path, file } = fileOf(context, entries, entries.length, ledgerFold);
    const fold = (): unknown[] => [
      readByHand(path, 'SELECT group_concat(concat_ws(char(9), card_id, held_minor, changed_at_index)) FROM card'),
      readByHand(path, 'SELECT count(*) FROM card_transaction'),
      readByHand(path, 'SELECT count(*) FROM reversal_tombstone'),
    ];
    const before = fold();
    trim(file, entries.length - 1);
    assert.deepEqual(readByHand(path, 'SELECT count(*) FROM log'), [1]);
    assert.deepEqual(fold(), before);
  });

  test('has a hash chain that begins at the base, where a fault is found as everywhere', (context) => {
    const { path, file } = fileOf(context, ten, 10);
    trim(file, 4);
    const faults = (after = 0, through?: number): string[] => {
      const reader = SnapshotReader.open(path);
      const { faults: found, next } = reader.verifyChain(after, 100, through);
      reader.close();
      assert.equal(next, null);
      return found.map(({ index, fault }) => `${index} ${fault}`);
    };
    assert.deepEqual([faults(), faults(2), faults(4), faults(7)], [[], [], [], []]);
    runByHand(path, "UPDATE log SET body = '{}' WHERE log_index = 8");
    assert.deepEqual([faults(), faults(0, 7), faults(8)], [['8 hash'], [], []]);
    runByHand(path, "UPDATE meta SET value = 'x' WHERE name = 'base_hash'");
    assert.deepEqual(faults(), ['5 hash', '8 hash']);
    runByHand(path, 'DELETE FROM log');
    assert.deepEqual(faults(), ['5 missing']);
  });
});

describe('the memberships of a log', () => {
  const log = chained(group, [noOp, membershipOf('first'), noOp, membershipOf('second'), noOp, membershipOf('third')]);
  const found = (reader: GroupReader, atOrBelow?: number): string | undefined => {
    const membership = reader.membership(atOrBelow);
    return membership && `${membership.index} ${membership.entry.by}`;
  };

  test('are found from the newest down, committed or not', (context) => {
    const { reader } = fileOf(context, log, 1);
    assert.deepEqual(
      [undefined, 99, 6, 5, 4, 3, 2, 1, 0].map((index) => found(reader, index)),
      ['6 third', '6 third', '6 third', '4 second', '4 second', '2 first', '2 first', undefined, undefined],
    );
    assert.deepEqual(reader.membership(2)?.entry, membershipOf('first'));
  });

  test('are undone when their entries are cut', (context) => {
    const { file, reader } = fileOf(context, log, 1);
    file.write({ entries: [], keepThrough: 5, applyThrough: 0 });
    assert.equal(found(reader), '4 second');
    const [other] = chained(group, [membershipOf('other')]);
    assert.ok(other !== undefined);
    const branch = chainEntry(at(log, 3), 2, other.body);
    file.write({ entries: [branch], keepThrough: 3, applyThrough: 0 });
    assert.equal(found(reader), '4 other');
    file.write({ entries: [], keepThrough: 1, applyThrough: 0 });
    assert.equal(found(reader), undefined);
  });

  test('are kept when the log is trimmed, as far as they are still in effect somewhere in it', (context) => {
    const { path, file, reader } = fileOf(context, log, 6);
    trim(file, 1);
    assert.equal(found(reader, 3), '2 first');
    trim(file, 3);
    assert.equal(found(reader, 3), '2 first', 'the newest at or below the base');
    trim(file, 5);
    assert.deepEqual(readByHand(path, 'SELECT log_index FROM membership'), [4, 6]);
    assert.deepEqual([found(reader, 5), found(reader)], ['4 second', '6 third']);
    trim(file, 6);
    assert.equal(found(reader), '6 third');
  });
});

describe('trimming through the write queue', () => {
  test('goes on beside other work until it is done, and tells how far it is', (context) => {
    const entries = chained(
      group,
      Array.from({ length: 5_000 }, () => noOp),
    );
    const { file, reader } = fileOf(context, entries, 5_000);
    const clock = new ManualClock();
    const events: WriterEvent[] = [];
    const queue = new WriteQueue(clock, (event) => events.push(event));
    queue.add(group, file);
    queue.trim(group, 4_500);
    const next = chainEntry(at(entries, 5_000), 1, encodeBody(noOp));
    queue.submit({ group, entries: [next], keepThrough: undefined, applyThrough: 5_001 });
    queue.trim(group, 100);
    clock.runSoon();
    assert.deepEqual(
      events.map((event) => (event.kind === 'trimmed' ? `trimmed ${event.base.index}` : event.kind)),
      ['written', 'trimmed 1000', 'trimmed 2000', 'trimmed 3000', 'trimmed 4000', 'trimmed 4500'],
    );
    assert.equal(reader.first(), 4_501);
    clock.runSoon();
    assert.equal(events.length, 6);
  });

  test('of what is not yet applied waits until it is', (context) => {
    const entries = chained(group, [noOp, noOp, noOp, noOp]);
    const { file, reader } = fileOf(context, entries, 2);
    const clock = new ManualClock();
    const queue = new WriteQueue(clock, () => undefined);
    queue.add(group, file);
    queue.trim(group, 3);
    clock.runSoon();
    assert.equal(reader.first(), 3);
    queue.submit({ group, entries: [], keepThrough: undefined, applyThrough: 4 });
    clock.runSoon();
    assert.equal(reader.first(), 4);
  });
});
