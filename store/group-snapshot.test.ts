import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { groupId, nodeId } from '../base/identifiers.ts';
import { chainEntry, encodeBody, originPosition, type EntryBody, type LogEntry } from './entry.ts';
import { GroupFile, noFold, type Fold } from './group-file.ts';
import {
  canonicalTables,
  maximumChunkBytes,
  SnapshotSource,
  type SnapshotEnd,
  type SnapshotHeader,
} from './group-snapshot.ts';
import { ledgerFold } from './ledger-fold.ts';
import { GroupReader } from './log-reader.ts';
import { incomingFile } from './snapshot-install.ts';
import { SnapshotReader } from './snapshot-reader.ts';
import { SnapshotRefused, SnapshotTarget } from './snapshot-target.ts';
import { chained, readByHand, runByHand, sampleLog, temporaryFolder, writeFile } from './testing.ts';

const group = groupId('a');
const identity = { group, cluster: 'test', fold: ledgerFold };

interface Snapshot {
  readonly header: SnapshotHeader;
  readonly chunks: readonly Buffer[];
  readonly end: SnapshotEnd;
}

/** A snapshot read to its end. */
function read(source: SnapshotSource): Snapshot {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk = source.read(chunks.length);
    assert.ok(chunk !== undefined);
    chunks.push(chunk.bytes);
    if (chunk.end !== undefined) return { header: source.header, chunks, end: chunk.end };
  }
}

function snapshotOf(path: string, fold: Fold = ledgerFold): Snapshot {
  const source = SnapshotSource.open(path, group, fold);
  try {
    return read(source);
  } finally {
    source.close();
  }
}

/** A file of a group with its log applied to the end, and what would be its snapshot. */
function sample(context: TestContext, decisions: number): { path: string; entries: LogEntry[] } {
  const path = join(temporaryFolder(context), 'a.db');
  const entries = sampleLog(group, decisions);
  writeFile(path, group, entries, ledgerFold);
  return { path, entries };
}

/** Everything that compare would look at: a digest of each table's canonical rows. */
function digests(path: string, fold: Fold): string[] {
  const reader = SnapshotReader.open(path);
  try {
    return canonicalTables(fold).map(({ name, key, columns }) => {
      const table = { name, keyColumns: key, columns, derivedColumns: [], jsonColumns: [], throughApplied: false };
      const { blocks } = reader.blocks(table, { after: null, through: null }, 1_000_000, 1);
      return `${name} ${blocks[0]?.rows ?? 0} ${blocks[0]?.digest.toString('hex') ?? ''}`;
    });
  } finally {
    reader.close();
  }
}

/** Receives the snapshot beside `current`, and gives the path of the finished file. */
function receive(current: string, { header, chunks, end }: Snapshot, fold: Fold = ledgerFold): string {
  const target = SnapshotTarget.begin(current, { ...identity, fold }, header);
  chunks.forEach((bytes, chunk) => {
    target.write(chunk, bytes);
  });
  target.finish(end);
  return incomingFile(current);
}

describe('a snapshot of a group', () => {
  test('has every row of the fold, and its receiver the same fold at the same index, with no entry in its log', (context) => {
    const { path, entries } = sample(context, 3_000);
    const snapshot = snapshotOf(path);
    assert.ok(snapshot.chunks.length > 3);
    const received = receive(join(temporaryFolder(context), 'a.db'), snapshot);
    assert.deepEqual(digests(received, ledgerFold), digests(path, ledgerFold));
    const file = GroupFile.open(received, group, 'test', ledgerFold);
    const { index, term, hash } = entries.at(-1) ?? originPosition(group);
    assert.deepEqual([file.last, file.base, file.applied], [{ index, term, hash }, { index, term, hash }, index]);
    file.close();
    assert.deepEqual(readByHand(received, 'SELECT count(*) FROM log'), [0]);
  });

  test('is of committed entries only: what stands in the log above the applied index is not in it', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    const entries = sampleLog(group, 100);
    const file = GroupFile.open(path, group, 'test', ledgerFold);
    file.write({ entries, keepThrough: undefined, applyThrough: 40 });
    const early = snapshotOf(path);
    assert.equal(early.header.position.hash, entries[39]?.hash);
    const other = join(temporaryFolder(context), 'a.db');
    writeFile(other, group, entries.slice(0, 40), ledgerFold);
    assert.deepEqual(snapshotOf(other), early, 'the same bytes, wherever it was made');
    file.write({ entries: [], keepThrough: undefined, applyThrough: 100, trimThrough: 100 });
    assert.equal(snapshotOf(path).header.position.hash, entries[99]?.hash, 'also at the base of a trimmed log');
    file.close();
  });

  test('does not see what is written while it is read, and gives each chunk again as often as it is asked', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    const entries = sampleLog(group, 2_500);
    const file = GroupFile.open(path, group, 'test', ledgerFold);
    file.write({ entries, keepThrough: undefined, applyThrough: 2_000 });
    const expected = snapshotOf(path);
    const source = SnapshotSource.open(path, group, ledgerFold);
    const first = source.read(0);
    file.write({ entries: [], keepThrough: undefined, applyThrough: 2_500, trimThrough: 2_500 });
    assert.deepEqual(source.read(0), first);
    const last = expected.chunks.length - 1;
    assert.ok(last > 1);
    assert.equal(source.read(last + 1), undefined, 'there is none after the last');
    assert.deepEqual(source.read(last), { bytes: expected.chunks[last], end: expected.end });
    assert.deepEqual(read(source), expected);
    source.close();
    file.close();
  });

  test('comes in chunks of bounded size that end with a row', (context) => {
    const { path } = sample(context, 3_000);
    for (const bytes of snapshotOf(path).chunks) {
      assert.ok(bytes.length > 0 && bytes.length <= maximumChunkBytes);
      assert.equal(bytes.at(-1), 0x0a);
    }
  });

  test('is for a witness the position and the membership alone', (context) => {
    const { path, entries } = sample(context, 50);
    const snapshot = snapshotOf(path, noFold);
    assert.deepEqual(snapshot.header.tables, []);
    assert.deepEqual([snapshot.chunks, snapshot.end.chunks], [[Buffer.alloc(0)], 1]);
    const received = receive(join(temporaryFolder(context), 'w1.db'), snapshot, noFold);
    const file = GroupFile.open(received, group, 'test', noFold);
    assert.deepEqual([file.last.index, file.applied], [entries.length, entries.length]);
    file.close();
    assert.throws(() => SnapshotSource.open(received, group, ledgerFold), { code: 'STORE_UNREADABLE' });
  });

  test('brings the membership in effect at its position, and not a later one', (context) => {
    const membership = (by: string): EntryBody => ({
      kind: 'membership',
      at: 1,
      by,
      voters: [{ id: nodeId('n1'), incarnation: 2 }],
      learners: [],
      lost: [],
    });
    const noOp: EntryBody = { kind: 'no-op', leader: 'n1', term: 1 };
    const entries = chained(group, [noOp, membership('first'), membership('second'), noOp, membership('third'), noOp]);
    const folder = temporaryFolder(context);
    const file = GroupFile.open(join(folder, 'a.db'), group, 'test', noFold);
    file.write({ entries, keepThrough: undefined, applyThrough: 4, trimThrough: 4 });
    const snapshot = snapshotOf(file.path, noFold);
    file.close();
    const received = receive(join(folder, 'b.db'), snapshot, noFold);
    const reader = new GroupReader(received, group);
    assert.deepEqual(reader.membership(), { index: 3, entry: membership('second') });
    reader.close();
  });

  test('of a file that is none, of another group, or without the fold is refused as unreadable', (context) => {
    const { path } = sample(context, 5);
    const unreadable = { code: 'STORE_UNREADABLE' };
    assert.throws(() => SnapshotSource.open(`${path}.none`, group, ledgerFold), unreadable);
    assert.throws(() => SnapshotSource.open(path, groupId('b'), ledgerFold), unreadable);
    runByHand(path, 'DROP TABLE reversal_tombstone');
    assert.throws(() => SnapshotSource.open(path, group, ledgerFold), unreadable);
  });

  const anyFold: Fold = {
    schema: `CREATE TABLE IF NOT EXISTS any_value (part TEXT NOT NULL, id INTEGER NOT NULL, value ANY, mine TEXT,
      PRIMARY KEY (id, part)) STRICT, WITHOUT ROWID`,
    derived: { any_value: ['mine'] },
    open: () => () => undefined,
    derive(database) {
      database.exec("UPDATE any_value SET mine = 'made here'");
    },
  };

  test('loses nothing of any value: types, NULL, large integers, invalid text', (context) => {
    const folder = temporaryFolder(context);
    const values = [
      'NULL',
      "''",
      "x''",
      '0',
      "'0'",
      "x'30'",
      '9223372036854775807',
      '-9223372036854775808',
      '9007199254740993',
      '0.1 + 0.2',
      '1.0',
      '9e999',
      '-9e999',
      '5e-324',
      "'Grüße \u{1F4B3}'",
      "'a' || char(0) || 'b' || char(10)",
      "CAST(x'ff00' AS TEXT)",
      "x'ff00'",
    ];
    const path = join(folder, 'a.db');
    writeFile(path, group, [], anyFold);
    const rows = values.map((value, at) => `('p', ${at}, ${value}, 'of the sender')`);
    runByHand(
      path,
      `INSERT INTO any_value VALUES ${rows.join()}, ('o', 3, 1, NULL), ('q', 4611686018427387905, 1, NULL)`,
    );
    const snapshot = snapshotOf(path, anyFold);
    assert.ok(!snapshot.chunks.join('').includes('of the sender'), 'what a node derives for itself does not travel');
    const received = receive(join(folder, 'b.db'), snapshot, anyFold);
    assert.deepEqual(digests(received, anyFold), digests(path, anyFold));
    assert.deepEqual(readByHand(received, 'SELECT DISTINCT mine FROM any_value'), ['made here']);
  });
});

describe('a received snapshot is refused, and nothing is left of it, when', () => {
  const refused = (context: TestContext, change: (good: Snapshot) => Partial<Snapshot>, reason: RegExp): void => {
    const { path } = sample(context, 600);
    const current = join(temporaryFolder(context), 'a.db');
    const good = snapshotOf(path);
    assert.ok(good.chunks.length > 1);
    assert.throws(
      () => receive(current, { ...good, ...change(good) }),
      (error) => error instanceof SnapshotRefused && reason.test(error.message),
    );
  };
  const header = (change: Partial<SnapshotHeader>) => (good: Snapshot) => ({ header: { ...good.header, ...change } });
  const edited = (from: string, to: string) => (good: Snapshot) => ({
    chunks: good.chunks.map((bytes) => Buffer.from(bytes.toString().replace(from, to))),
  });

  const cases: readonly (readonly [string, (good: Snapshot) => Partial<Snapshot>, RegExp])[] = [
    ['it has an unknown format', header({ format: 2 }), /format/],
    ['it is of another group', header({ group: groupId('b') }), /of group b/],
    ['it is of another cluster', header({ cluster: 'other' }), /cluster other/],
    ['it has other tables', header({ tables: [] }), /other tables/],
    [
      'it has other columns',
      ({ header: good }) => ({
        header: { ...good, tables: good.tables.map((each) => ({ ...each, columns: each.columns.slice(1) })) },
      }),
      /other tables or columns/,
    ],
    ['a chunk is left out', ({ chunks }) => ({ chunks: [Buffer.alloc(0), ...chunks.slice(1)] }), /not those/],
    ['the last chunk is left out', ({ chunks }) => ({ chunks: chunks.slice(0, -1) }), /chunks of/],
    ['a row is cut', ({ chunks }) => ({ chunks: chunks.map((bytes) => bytes.subarray(0, -1)) }), /within a row/],
    ['a value is changed', edited('"tactive"', '"tstolen"'), /not those that were sent/],
    ['a row has no such table', edited('[0,', '[99,'), /no table/],
    ['a row has a value too few', edited(',"tactive"', ''), /no table/],
    ['a row has a value of no type', edited('"tactive"', '"xactive"'), /no table/],
    ['a row is no JSON', edited('[0,', '[0'), /no table/],
    ['a row breaks what the table requires', edited('"tactive"', '"n"'), /cannot be taken/],
    ['a row comes twice', ({ chunks }) => ({ chunks: [...chunks, ...chunks] }), /cannot be taken/],
    [
      'there are fewer rows than there were',
      ({ header: good }) => ({
        header: { ...good, tables: good.tables.map((each) => ({ ...each, rows: each.rows + 1 })) },
      }),
      /rows of/,
    ],
  ];
  for (const [name, change, reason] of cases) {
    test(name, (context) => {
      refused(context, change, reason);
    });
  }

  test('a chunk comes before its turn; one that came before is ignored', (context) => {
    const { path } = sample(context, 600);
    const current = join(temporaryFolder(context), 'a.db');
    const { header: good, chunks, end } = snapshotOf(path);
    const target = SnapshotTarget.begin(current, identity, good);
    const [first, second] = chunks;
    assert.ok(first !== undefined && second !== undefined);
    assert.throws(() => {
      target.write(1, second);
    }, SnapshotRefused);
    target.write(0, first);
    target.write(0, Buffer.from('anything'));
    assert.equal(target.next, 1);
    chunks.forEach((bytes, chunk) => {
      target.write(chunk, bytes);
    });
    target.finish(end);
    assert.deepEqual(digests(incomingFile(current), ledgerFold), digests(path, ledgerFold));
  });

  test('it is given up', (context) => {
    const { path } = sample(context, 10);
    const current = join(temporaryFolder(context), 'a.db');
    const { header: good, chunks } = snapshotOf(path);
    const target = SnapshotTarget.begin(current, identity, good);
    target.write(0, chunks[0] ?? Buffer.alloc(0));
    assert.ok(existsSync(incomingFile(current)));
    target.discard();
    target.discard();
    assert.ok(!existsSync(incomingFile(current)));
  });
});

test('the tables of a fold that has none without a key are all copied, with all columns that are not derived', () => {
  const names = canonicalTables(ledgerFold).map(({ name }) => name);
  assert.deepEqual(names, [...names].sort());
  for (const name of ['card', 'card_transaction', 'reversal_tombstone']) assert.ok(names.includes(name));
  const keyless: Fold = { schema: 'CREATE TABLE loose (value TEXT) STRICT', open: () => () => undefined };
  assert.throws(() => canonicalTables(keyless), /primary key/);
});

test('what comes after a snapshot is appended and applied as after the log that it stands for', (context) => {
  const entries = sampleLog(group, 400);
  const folder = temporaryFolder(context);
  const whole = join(folder, 'whole.db');
  const half = join(folder, 'half.db');
  writeFile(whole, group, entries, ledgerFold);
  writeFile(half, group, entries.slice(0, 200), ledgerFold);
  const received = receive(join(folder, 'a.db'), snapshotOf(half));
  const file = GroupFile.open(received, group, 'test', ledgerFold);
  file.write({ entries: entries.slice(200), keepThrough: undefined, applyThrough: entries.length });
  const next = chainEntry(file.last, 2, encodeBody({ kind: 'no-op', leader: 'n2', term: 2 }));
  assert.equal(file.write({ entries: [next], keepThrough: undefined, applyThrough: 0 }).durable.index, next.index);
  file.close();
  assert.deepEqual(digests(received, ledgerFold), digests(whole, ledgerFold));
});
