import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { groupId } from '../base/identifiers.ts';
import type { DecisionEntry, EntryBody, LogEntry, ReversalEntry } from './entry.ts';
import { SalvageFile } from './salvage.ts';
import { chained, temporaryFolder } from './testing.ts';

const [a, b] = [groupId('a'), groupId('b')];

const decision = { kind: 'decision', durability: 'local', attempt: 'n1.1.1' } as DecisionEntry;
const bodies: EntryBody[] = [
  { kind: 'no-op', leader: 'n1', term: 1 },
  decision,
  { ...decision, durability: 'quorum' },
  { kind: 'reversal', durability: 'local', attempt: 'n1.1.2' } as ReversalEntry,
  { kind: 'attempt', at: 1, durability: 'local', key: 'k', transaction: 2, attempt: 'n1.1.3' },
  { kind: 'attempt', at: 1, durability: 'quorum', key: 'k', transaction: 3, attempt: 'n1.1.4' },
  { kind: 'undelivered', at: 1, attempt: 'n1.1.5', key: 'k', transaction: 0, releases: false },
  { kind: 'expiry', at: 1, holds: [] },
];
const entries = chained(a, bodies);

function open(context: TestContext): { file: SalvageFile; path: string; other: () => SalvageFile } {
  const path = join(temporaryFolder(context), 'salvage.db');
  const opened: SalvageFile[] = [];
  const other = (): SalvageFile => {
    const file = new SalvageFile(path);
    opened.push(file);
    return file;
  };
  const file = other();
  context.after(() => {
    for (const each of opened) each.close();
  });
  return { file, path, other };
}

describe('what a log loses', () => {
  test('is kept where it may have been answered from one disk: local decisions, reversals and attempts', (context) => {
    const { file, other } = open(context);
    file.add(a, entries);
    const kept = other().pending(a, 99);
    assert.deepEqual(
      kept.map(({ index }) => index),
      [2, 4, 5],
    );
    const [first] = kept;
    assert.deepEqual(first, { group: a, ...entries[1] });
    assert.deepEqual(file.counts(), { pending: 3, adopted: 0, voided: 0, kept: 0 });
  });
  test('is kept once, and resolved once', (context) => {
    const { file } = open(context);
    for (let time = 0; time < 2; time++) {
      file.add(a, entries);
      assert.equal(file.resolve(a, 1, 2, time === 0 ? 'adopted' : 'voided'), true);
    }
    file.resolve(a, 1, 4, 'voided');
    file.resolve(a, 1, 5, 'kept');
    assert.deepEqual(file.pending(a, 99), []);
    assert.deepEqual(file.counts(a), { pending: 0, adopted: 1, voided: 1, kept: 1 });
    assert.deepEqual(file.groups(), []);
  });
  test('is offered in the order of its log, group by group, up to a number', (context) => {
    const { file } = open(context);
    const later: LogEntry[] = chained(a, [decision, decision]).map((entry) => ({ ...entry, term: 3 }));
    file.add(a, later.toReversed());
    file.add(a, entries);
    file.add(b, chained(b, [decision]));
    assert.deepEqual(
      file.pending(a, 4).map(({ term, index }) => [term, index]),
      [
        [1, 2],
        [1, 4],
        [1, 5],
        [3, 1],
      ],
    );
    assert.deepEqual(file.groups(), [a, b]);
    assert.equal(file.counts(b).pending, 1);
    assert.equal(file.counts().pending, 6);
  });
  test('of which nothing was answered is not kept', (context) => {
    const { file } = open(context);
    file.add(a, entries.slice(0, 1));
    file.add(a, []);
    assert.equal(file.counts().pending, 0);
  });
});

test('the deciding thread does not wait for the other one: what it could not resolve it resolves later', (context) => {
  const { file, path } = open(context);
  file.add(a, entries);
  const busy = new Database(path);
  busy.exec('BEGIN IMMEDIATE');
  assert.equal(file.resolve(a, 1, 2, 'adopted'), false);
  assert.equal(file.counts().pending, 3, 'and it reads all the while');
  busy.exec('ROLLBACK');
  busy.close();
  assert.equal(file.resolve(a, 1, 2, 'adopted'), true);
});

test('a file that is none is refused', (context) => {
  assert.throws(() => new SalvageFile(temporaryFolder(context)), { code: 'STORE_UNREADABLE' });
});
