import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { groupId } from '../base/identifiers.ts';
import { compareKeys, emptyDigest, isEncodedValue, showValue, type EncodedKey } from './canonical.ts';
import { GroupFile, noFold } from './group-file.ts';
import {
  chained,
  copyFile,
  editByHand,
  relayFile,
  runByHand,
  sampleLog,
  temporaryFolder,
  writeFile,
} from './testing.ts';
import { SnapshotReader, type TableSpecification } from './snapshot-reader.ts';

const group = groupId('a');
const whole = { after: null, through: null };

const any: TableSpecification = {
  name: 'any_value',
  keyColumns: ['id', 'part'],
  columns: ['id', 'part', 'value'],
  derivedColumns: [],
  jsonColumns: [],
  throughApplied: false,
};
const anySchema =
  'CREATE TABLE any_value (id INTEGER, part TEXT, value ANY, PRIMARY KEY (id, part)) STRICT, WITHOUT ROWID';
const log: TableSpecification = {
  name: 'log',
  keyColumns: ['log_index'],
  columns: ['log_index', 'term', 'body', 'hash'],
  derivedColumns: [],
  jsonColumns: ['body'],
  throughApplied: true,
};

/** A group's file with an empty log and a table of any values. */
function anyFile(folder: string, name = 'any.db'): string {
  const path = join(folder, name);
  writeFile(path, group, [], noFold);
  runByHand(path, anySchema);
  return path;
}

function reading<Result>(path: string, read: (reader: SnapshotReader) => Result): Result {
  const reader = SnapshotReader.open(path);
  try {
    return read(reader);
  } finally {
    reader.close();
  }
}

const digestOf = (bytes: string): string => hash('sha256', Buffer.from(bytes, 'latin1'), 'hex').slice(0, 32);

describe('canonical bytes, format 2', () => {
  // SQL of the value | its bytes (latin1)
  const vectors: readonly (readonly [string, string])[] = [
    ['NULL', 'n'],
    ["''", '0:'],
    ["x''", 'x0:'],
    ['0', '0,'],
    ["'0'", '1:0'],
    ["x'30'", 'x1:0'],
    ['-9223372036854775808', '-9223372036854775808,'],
    ['4611686018427387904', '4611686018427387904,'],
    ['0.1 + 0.2', '0.30000000000000004,'],
    ['1.0', '1.0,'],
    ["'1.0'", '3:1.0'],
    ['-0.0', '0.0,'],
    ['0.0 / 0.0', 'n'],
    ['9e999', 'Inf,'],
    ["'Grüße'", '7:Gr\xc3\xbc\xc3\x9fe'],
    ["'a' || char(0) || 'b'", '3:a\0b'],
    ["CAST(x'ff00' AS TEXT)", '2:\xff\0'],
    ["x'ff00'", 'x2:\xff\0'],
    ["x'476f6f64'", 'x4:Good'],
    ['zeroblob(3)', 'x3:\0\0\0'],
  ];
  for (const [sql, bytes] of vectors) {
    test(`${sql} is ${JSON.stringify(bytes)}`, (context) => {
      const path = anyFile(temporaryFolder(context));
      editByHand(path, `INSERT INTO any_value VALUES (1, 'p', ${sql})`);
      const expected = digestOf(`1,1:p${bytes}`);
      reading(path, (reader) => {
        assert.equal(reader.rows(any, whole, 10).rows[0]?.digest.toString('hex'), expected);
        assert.equal(reader.blocks(any, whole, 10, 10).blocks[0]?.digest.toString('hex'), expected);
      });
    });
  }

  test('a block is its rows one after the other, in key order', (context) => {
    const path = anyFile(temporaryFolder(context));
    runByHand(path, "INSERT INTO any_value VALUES (2, 'a', 7), (1, 'b', NULL), (1, 'a', 'x')");
    const bytes = ['1,1:a1:x', '1,1:bn', '2,1:a7,'];
    const blocks = reading(path, (reader) => reader.blocks(any, whole, 2, 10).blocks);
    assert.deepEqual(
      blocks.map(({ end, rows, digest }) => ({ end, rows, digest: digest.toString('hex') })),
      [
        { end: ['i1', 'tb'], rows: 2, digest: digestOf(bytes.slice(0, 2).join('')) },
        { end: null, rows: 1, digest: digestOf(bytes[2] ?? '') },
      ],
    );
  });

  test('values of another class than their column is declared for have the bytes of their own', (context) => {
    const path = anyFile(temporaryFolder(context));
    runByHand(
      path,
      `CREATE TABLE loose (log_index INTEGER PRIMARY KEY, count INTEGER, name TEXT);
       INSERT INTO loose VALUES (1, 'abc', x'00'), (2, 5, 't'), (3, NULL, NULL), (4, x'', 'y'), (5, 0.5, '5')`,
    );
    const loose = { ...any, name: 'loose', keyColumns: ['log_index'], columns: ['log_index', 'count', 'name'] };
    const bytes = ['1,3:abcx1:\0', '2,5,1:t', '3,nn', '4,x0:1:y', '5,0.5,1:5'];
    reading(path, (reader) => {
      const found = reader.rows(loose, whole, 10).rows.map(({ digest }) => digest.toString('hex'));
      assert.deepEqual(found, bytes.map(digestOf));
      const [block] = reader.digests(loose, ['i1'], [['i4']], 10);
      assert.equal(block?.digest.toString('hex'), digestOf(bytes.slice(1, 4).join('')));
    });
  });

  test('a table of more columns than one SQL function takes has bytes all the same', (context) => {
    const path = anyFile(temporaryFolder(context));
    const names = Array.from({ length: 70 }, (_, at) => `c${at}`);
    runByHand(path, `CREATE TABLE wide (${names.join(', ')})`);
    editByHand(path, `INSERT INTO wide VALUES (${names.map((_, at) => at).join(', ')})`);
    const wide = { ...any, name: 'wide', keyColumns: ['c0'], columns: names };
    const expected = digestOf(names.map((_, at) => `${at},`).join(''));
    assert.equal(
      reading(path, (reader) => reader.rows(wide, whole, 10).rows[0]?.digest.toString('hex')),
      expected,
    );
  });
});

describe('a snapshot', () => {
  test('does not see what is written after it was opened', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    const entries = sampleLog(group, 30);
    const file = GroupFile.open(path, group, 'test', noFold);
    context.after(() => {
      file.close();
    });
    file.write({ entries: entries.slice(0, 20), keepThrough: undefined, applyThrough: 15 });
    const reader = SnapshotReader.open(path);
    const before = reader.rows(log, whole, 100);
    file.write({ entries: entries.slice(20), keepThrough: undefined, applyThrough: 30 });
    assert.deepEqual(reader.rows(log, whole, 100), before);
    assert.equal(before.rows.length, 15, 'entries above the applied index may not be committed: they are left out');
    assert.deepEqual([reader.group, reader.appliedIndex, reader.lastLogIndex], ['a', 15, 20]);
    reader.close();
    assert.equal(
      reading(path, (later) => later.appliedIndex),
      30,
    );
  });

  test('of a file that is none is refused as unreadable', (context) => {
    const folder = temporaryFolder(context);
    assert.throws(() => SnapshotReader.open(join(folder, 'missing.db')), { code: 'STORE_UNREADABLE' });
    assert.throws(() => SnapshotReader.open(import.meta.filename), { code: 'STORE_UNREADABLE' });
  });

  test('has the same digests in another page layout', (context) => {
    const folder = temporaryFolder(context);
    const path = join(folder, 'a.db');
    writeFile(path, group, sampleLog(group, 5_000), noFold);
    const read = (file: string) => reading(file, (reader) => reader.blocks(log, whole, 1_024, 10));
    const expected = read(path);
    for (const pageSize of [1_024, 8_192]) {
      const other = copyFile(path, join(folder, `${pageSize}.db`));
      relayFile(other, pageSize);
      assert.deepEqual(read(other), expected);
    }
  });
});

describe('blocks', () => {
  test('cover the range without gap or overlap, whatever the size and the number in one call', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    writeFile(path, group, sampleLog(group, 98), noFold);
    const reader = SnapshotReader.open(path);
    context.after(() => {
      reader.close();
    });
    const all = reader.rows(log, whole, 1_000).rows;
    assert.equal(all.length, 100);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 120 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 0, max: 100 }),
        fc.integer({ min: 0, max: 100 }),
        (size, maximumBlocks, one, other) => {
          const [from, to] = one < other ? [one, other] : [other, one];
          const range = { after: from === 0 ? null : [`i${from}`], through: to === 100 ? null : [`i${to}`] };
          let after: EncodedKey | null = range.after;
          let rows = 0;
          for (let done = false; !done;) {
            const page = reader.blocks(log, { after, through: range.through }, size, maximumBlocks);
            const ends = page.blocks.map(({ end }) => end);
            assert.deepEqual(page.blocks, reader.digests(log, after, ends, size));
            for (const block of page.blocks) rows += block.rows;
            after = ends.at(-1) ?? null;
            ({ done } = page);
          }
          assert.equal(rows, to - from);
          assert.deepEqual(after, range.through);
        },
      ),
    );
  });

  test('of a table without rows are one block, with the digest of nothing', (context) => {
    const path = anyFile(temporaryFolder(context));
    const { blocks, done } = reading(path, (reader) => reader.blocks(any, whole, 10, 10));
    assert.deepEqual(
      blocks.map(({ end, rows, digest }) => [end, rows, digest.toString('base64')]),
      [[null, 0, emptyDigest]],
    );
    assert.equal(done, true);
  });

  test('with more rows than the other side has differ, however many there are', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    writeFile(path, group, sampleLog(group, 60), noFold);
    reading(path, (reader) => {
      const [three] = reader.digests(log, null, [['i3']], 3);
      const [more] = reader.digests(log, null, [null], 3);
      assert.notDeepEqual(three?.digest, more?.digest);
    });
  });
});

describe('keys', () => {
  test('of any text are found again, in the order that compareKeys says', (context) => {
    const path = anyFile(temporaryFolder(context));
    const texts = [
      "''",
      "'a'",
      "'A'",
      "'ä'",
      "'\u{1F4B3}'",
      "'\uFB01'",
      "'a' || char(0)",
      "CAST(x'ff' AS TEXT)",
      "'10'",
      "'9'",
    ];
    const ids = [-5, 0, 9_007_199_254_740_993n, 4_611_686_018_427_387_904n];
    for (const id of ids)
      for (const text of texts) editByHand(path, `INSERT INTO any_value VALUES (${id}, ${text}, ${id})`);
    reading(path, (reader) => {
      const { rows } = reader.rows(any, whole, 1_000);
      assert.equal(rows.length, texts.length * ids.length);
      rows.forEach(({ key, digest }, at) => {
        assert.ok(key.every(isEncodedValue));
        const before = rows[at - 1];
        if (before !== undefined) assert.ok(compareKeys(before.key, key) < 0);
        const found = reader.rows(any, { after: before?.key ?? null, through: key }, 10);
        assert.deepEqual(found.rows, [{ key, digest }]);
        assert.equal(reader.columns(any, key)?.length, 3);
      });
    });
  });

  test('that are not there have no columns', (context) => {
    const path = anyFile(temporaryFolder(context));
    assert.equal(
      reading(path, (reader) => reader.columns(any, ['i1', 'tx'])),
      undefined,
    );
  });
});

describe('what is shown of a value', () => {
  test('never has a card number, nor the hash and ciphertext of one', () => {
    assert.equal(showValue('terminal', 't4761739001010119'), "'476173******0119'");
    assert.equal(showValue('amount_minor', 'i4761739001010119'), '476173******0119');
    assert.match(showValue('pan_hash', 't0011'), /^hash [0-9a-f]{8}$/);
    assert.match(showValue('panCipher', 'tabc'), /^hash [0-9a-f]{8}$/);
    assert.match(
      showValue('terminal', `b${Buffer.from('4761739001010119').toString('hex')}`),
      /^blob of 16 bytes, hash/,
    );
  });

  test('tells NULL, empty text, 0 and the text 0 apart, and times by date', () => {
    assert.deepEqual(
      ['n', 't', 'i0', 't0'].map((value) => showValue('value', value)),
      ['NULL', "''", '0', "'0'"],
    );
    assert.equal(showValue('decided_at_ms', 'i1760000000000'), '2025-10-09T08:53:20.000Z');
  });

  test('of a body is told property by property, with what must be hidden as a hash', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    writeFile(path, group, sampleLog(group, 3, 2), noFold);
    const columns = reading(path, (reader) => reader.columns(log, ['i1']));
    const shown = new Map(columns?.map(({ column, shown: text }) => [column, text]));
    assert.equal(shown.get('body.added.0.status'), "'active'");
    assert.match(shown.get('body.added.0.panHash') ?? '', /^hash [0-9a-f]{8}$/);
    assert.match(shown.get('body.added.1.panCipher') ?? '', /^hash [0-9a-f]{8}$/);
    assert.match(shown.get('body') ?? '', /^\d+ bytes, hash [0-9a-f]{8}$/);
  });
});

describe('the hash chain', () => {
  const faultsOf = (path: string, limit: number): string[] =>
    reading(path, (reader) => {
      const faults: string[] = [];
      for (let after: number | null = 0; after !== null;) {
        const reply: ReturnType<SnapshotReader['verifyChain']> = reader.verifyChain(after, limit);
        faults.push(...reply.faults.map(({ index, fault }) => `${index} ${fault}`));
        after = reply.next;
      }
      return faults;
    });

  // what is done by hand | the faults
  const cases: readonly (readonly [string, string, readonly string[]])[] = [
    ['nothing', 'SELECT 1', []],
    ['a body', "UPDATE log SET body = body || ' ' WHERE log_index = 17", ['17 hash']],
    ['a term', 'UPDATE log SET term = 2 WHERE log_index = 1', ['1 hash']],
    ['a hash', "UPDATE log SET hash = 'x' WHERE log_index = 40", ['40 hash', '41 hash']],
    ['the last hash', "UPDATE log SET hash = 'x' WHERE log_index = 62", ['62 hash']],
    ['an entry removed', 'DELETE FROM log WHERE log_index = 17', ['17 missing']],
    ['the first entry removed', 'DELETE FROM log WHERE log_index = 1', ['1 missing']],
    ['the last entry removed', 'DELETE FROM log WHERE log_index = 62', ['62 missing']],
    ['all removed', 'DELETE FROM log', ['1 missing']],
  ];
  for (const [name, sql, expected] of cases) {
    test(`shows where it is broken: ${name}`, (context) => {
      const path = join(temporaryFolder(context), 'a.db');
      writeFile(path, group, sampleLog(group, 60), noFold);
      runByHand(path, sql);
      for (const limit of [1, 7, 31, 62, 1_000]) assert.deepEqual(faultsOf(path, limit), expected);
    });
  }

  test('of another group is no chain of this one', (context) => {
    const path = join(temporaryFolder(context), 'a.db');
    const foreign = chained(groupId('b'), [{ kind: 'no-op', leader: 'n1', term: 1 }]);
    writeFile(path, group, foreign, noFold);
    assert.deepEqual(faultsOf(path, 10), ['1 hash']);
  });
});
