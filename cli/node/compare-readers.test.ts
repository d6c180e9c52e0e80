import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { groupId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { realClock } from '../../base/real.ts';
import { answerCompareCall, type SnapshotCall } from '../../compare/protocol.ts';
import { tablesOf } from '../../compare/tables.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';
import { sampleLog, temporaryFolder, writeFile } from '../../store/testing.ts';
import { CompareReaders } from './compare-readers.ts';

const group = groupId('a');
const call: SnapshotCall = {
  kind: 'digests',
  compare: 'c1',
  group,
  table: 'log',
  ranges: [{ after: null, even: [0, 300] }],
  size: 64,
};

function sampleFile(context: TestContext): { readonly path: string; readonly index: number } {
  const path = join(temporaryFolder(context), 'a.db');
  const entries = sampleLog(group, 300);
  writeFile(path, group, entries, ledgerFold);
  return { path, index: entries.length };
}

test('threads answer several calls at a time, each as the snapshot has it; others are left to who asks', async (context) => {
  const { path, index } = sampleFile(context);
  const readers = new CompareReaders(realClock);
  context.after(() => {
    readers.end();
  });
  await readers.prepare('c1', { workers: 2 });
  await readers.open('c1', group, path, index);
  const reader = SnapshotReader.open(path);
  const expected = answerCompareCall(reader, tablesOf(group), call);
  reader.close();
  assert.deepEqual(await Promise.all([1, 2, 3].map(() => readers.answer(call))), [expected, expected, expected]);
  assert.equal(await readers.answer({ ...call, copy: 'recomputed' }), undefined);
  assert.equal(await readers.answer({ kind: 'position', compare: 'c1', group, index: 1 }), undefined);
  readers.close('c1', group);
  assert.equal(await readers.answer(call), undefined);
});

test('a thread whose snapshot is not at the mark is not asked, nor is one for a mark nobody prepared for', async (context) => {
  const { path, index } = sampleFile(context);
  const readers = new CompareReaders(realClock);
  context.after(() => {
    readers.end();
  });
  await readers.prepare('c1', { workers: 1 });
  await readers.open('c1', group, path, index - 1);
  assert.equal(await readers.answer(call), undefined);
  await readers.open('repair', group, path, index);
  assert.equal(await readers.answer({ ...call, compare: 'repair' }), undefined);
});

test('an answer waits while the machine is busier than allowed, and not for ever', async (context) => {
  const { path, index } = sampleFile(context);
  const clock = new ManualClock();
  let load = 2;
  const readers = new CompareReaders(clock, () => load);
  context.after(() => {
    readers.end();
  });
  await readers.prepare('c1', { workers: 1, maximumLoad: 0.8 });
  await readers.open('c1', group, path, index);
  const answered: string[] = [];
  const first = readers.answer(call).then(() => answered.push('first'));
  const pass = async (polls: number): Promise<void> => {
    for (let poll = 0; poll < polls; poll++) {
      clock.advance(250);
      await new Promise<void>((resolve) => {
        realClock.soon(resolve);
      });
    }
  };
  await pass(4);
  assert.deepEqual(answered, []);
  load = 0.5;
  await pass(1);
  await first;
  load = 2;
  const second = readers.answer(call);
  await pass(40);
  assert.equal((await second)?.kind, 'digests');
});
