import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { noFold } from '../store/group-file.ts';
import {
  copyFile,
  editByHand,
  readByHand,
  relayFile,
  runByHand,
  temporaryFolder,
  writeFile,
} from '../store/testing.ts';
import { SnapshotReader } from '../store/snapshot-reader.ts';
import { compareSides, copies, differencesOf, group, sidesOf, summaries, verdict } from './testing.ts';
import { answerCompareCall, type CompareCall, type CompareSide } from './protocol.ts';
import { tablesOf } from './tables.ts';

describe('copies that are equal', () => {
  test('are equal at every node and table, the witness in its log', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 3_000);
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(differencesOf(result), []);
    assert.equal(verdict(result), 0);
    assert.equal(result.outcomes.length, 4 * tablesOf(group).length + 1);
    assert.ok(result.outcomes.every(({ outcome }) => outcome === 'equal'));
    assert.deepEqual(
      result.tables.filter(({ rows }) => rows > 0).map(({ table, rows }) => [table, rows]),
      [
        ['log', 3_002],
        ['card', 50],
        ['card_place', 50],
        ['card_transaction', 3_000],
        ['reversal_tombstone', 150],
      ],
    );
  });

  test('are equal in any page layout', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 3_000);
    relayFile(paths['n2'] ?? '', 1_024);
    relayFile(paths['n3'] ?? '', 16_384);
    assert.equal(verdict(await compareSides(sidesOf(context, paths), { markIndex })), 0);
  });

  test('are equal whatever stands in the log above the mark', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 50);
    editByHand(paths['n2'] ?? '', `INSERT INTO log VALUES (${markIndex + 1}, 9, '{}', 'uncommitted')`);
    assert.equal(verdict(await compareSides(sidesOf(context, paths), { markIndex })), 0);
  });
});

interface Edit {
  readonly kind: 'change' | 'delete' | 'insert';
  readonly node: string;
  readonly table: 'log' | 'card' | 'card_transaction' | 'reversal_tombstone';
  readonly row: number;
  readonly column: number;
}

const keyOf = { log: 'log_index', card: 'card_id', card_transaction: 'log_index', reversal_tombstone: 'log_index' };
const columnsToEdit = {
  log: ['term', 'body', 'hash'],
  card: ['held_minor', 'status', 'pan_hash', 'pan_cipher', 'usage_date'],
  card_transaction: ['posted_minor', 'terminal', 'state', 'request_key'],
  reversal_tombstone: ['tombstone', 'card_id'],
};

/** The row that the edit is about, by its key. */
function rowOf({ table, row }: Edit, keys: Readonly<Record<Edit['table'], readonly unknown[]>>): string | number {
  return keys[table][row % keys[table].length] as string | number;
}

/** Makes the edit in the file and tells what compare must say of it. */
function plant(
  path: string,
  { table, node, kind, column: at }: Edit,
  chosen: string | number,
  position: number,
): string {
  const key = keyOf[table];
  const where = `WHERE ${key} = '${chosen}'`;
  if (kind === 'delete') {
    editByHand(path, `DELETE FROM ${table} ${where}`);
    return `${node} ${table} ${key}=${chosen} missing-here`;
  }
  if (kind === 'change') {
    const names = columnsToEdit[table];
    const column = names[at % names.length] ?? '';
    const changed = `CASE typeof(${column}) WHEN 'integer' THEN ${column} + 1 ELSE ${column} || 'x' END`;
    editByHand(path, `UPDATE ${table} SET ${column} = ${changed} ${where}`);
    return `${node} ${table} ${key}=${chosen} columns-differ ${column}`;
  }
  // Before the first key, after the last, between two: keys that nobody has. Above the mark a log is not compared.
  const before = typeof chosen === 'string' ? `!${position}` : -1 - position;
  const after = typeof chosen === 'string' ? `${chosen}.${position}` : 1_000_000 + position;
  const added = at % 2 === 0 || table === 'log' ? before : after;
  const columns = readByHand(path, `SELECT name FROM pragma_table_info('${table}')`) as string[];
  const values = columns.map((column) => {
    if (column === key) return `'${added}'`;
    return ['pan_hash', 'request_key'].includes(column) ? `'${position} ' || ${column}` : column;
  });
  editByHand(path, `INSERT INTO ${table} SELECT ${values.join(', ')} FROM ${table} ${where}`);
  return `${node} ${table} ${key}=${added} only-here`;
}

const someEdit: fc.Arbitrary<Edit> = fc.record({
  kind: fc.constantFrom('change', 'delete', 'insert'),
  node: fc.constantFrom('n1', 'n2', 'n3', 'n4', 'w1'),
  table: fc.constantFrom('log', 'card', 'card_transaction', 'reversal_tombstone'),
  row: fc.nat(100_000),
  column: fc.nat(10),
});

describe('planted differences', () => {
  test('exactly those are found, in any copy, table and place, with the column', async (context) => {
    const folder = temporaryFolder(context);
    const { paths, markIndex } = copies(folder, 3_000);
    const keysIn = (table: Edit['table']) => readByHand(paths['n1'] ?? '', `SELECT ${keyOf[table]} FROM ${table}`);
    const keys = {
      log: keysIn('log'),
      card: keysIn('card'),
      card_transaction: keysIn('card_transaction'),
      reversal_tombstone: keysIn('reversal_tombstone'),
    };
    let run = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(someEdit, { minLength: 1, maxLength: 12 }), async (wanted) => {
        const closers: (() => void)[] = [];
        const scope = { after: (close: unknown) => closers.push(close as () => void) };
        run++;
        // A row that two copies have wrongly has no majority: each row is edited once. The witness has no folds.
        const edits = wanted
          .filter(({ node, table }) => node !== 'w1' || table === 'log')
          // Most copies of the log have to be whole: among broken ones there is no saying who is right.
          .filter(({ node, table }) => table !== 'log' || node === 'n2' || node === 'w1')
          .map((edit) => ({ edit, row: rowOf(edit, keys) }))
          .filter(
            ({ edit, row }, at, all) =>
              all.findIndex((each) => each.edit.table === edit.table && each.row === row) === at,
          );
        const own = Object.fromEntries(
          Object.entries(paths).map(([node, path]) => [node, copyFile(path, join(folder, `${run}-${node}.db`))]),
        );
        const expected = edits.map(({ edit, row }, at) => plant(own[edit.node] ?? '', edit, row, at)).sort();
        try {
          const result = await compareSides(sidesOf(scope, own), { markIndex });
          assert.deepEqual(summaries(result), expected);
          assert.equal(verdict(result), expected.length === 0 ? 0 : 3);
          for (const { outcome, node, table } of result.outcomes) {
            const planted = differencesOf(result).some((each) => each.node === node && each.table === table);
            assert.equal(outcome, planted ? 'different' : 'equal');
          }
        } finally {
          for (const close of closers) close();
        }
      }),
      { numRuns: 25 },
    );
  });

  test('in a log break its chain, which says whose copy is wrong even when there are two only', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 100);
    // The reference, which wins every tie, is the one that was changed.
    editByHand(
      paths['n1'] ?? '',
      `UPDATE log SET body = replace(body, '"responseCode":"00"', '"responseCode":"05"') WHERE log_index = 17`,
    );
    const result = await compareSides(sidesOf(context, { n1: paths['n1'] ?? '', n2: paths['n2'] ?? '' }), {
      markIndex,
    });
    assert.deepEqual(summaries(result, true), [
      'n1 log log_index=17 broken-chain',
      'n1 log log_index=17 columns-differ body',
    ]);
    const columns = differencesOf(result).flatMap((each) => (each.kind === 'columns-differ' ? each.columns : []));
    assert.deepEqual(columns[1], { column: 'body.responseCode', here: "'05'", others: "'00'" });
  });

  test('that all copies of a log share are found by the chain', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 100);
    for (const path of Object.values(paths)) editByHand(path, "UPDATE log SET body = '{}' WHERE log_index = 5");
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(
      summaries(result, true),
      ['n1', 'n2', 'n3', 'n4', 'w1'].map((node) => `${node} log log_index=5 broken-chain`),
    );
    assert.equal(verdict(await compareSides(sidesOf(context, paths), { markIndex, verifyChain: false })), 0);
  });

  test('right is what most have; with two only, what the reference has', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 100);
    const sql = "UPDATE card SET status = 'lost' WHERE card_id = 'a.1.1.7'";
    editByHand(paths['n1'] ?? '', sql);
    const all = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(all), ['n1 card card_id=a.1.1.7 columns-differ status']);
    const two = await compareSides(sidesOf(context, { n1: paths['n1'] ?? '', n2: paths['n2'] ?? '' }), { markIndex });
    assert.deepEqual(summaries(two), ['n2 card card_id=a.1.1.7 columns-differ status']);
  });

  test('among 20,000 rows are named without the rows having travelled', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 20_000);
    const two = { n1: paths['n1'] ?? '', n2: paths['n2'] ?? '' };
    runByHand(two.n2, 'UPDATE card_transaction SET held_minor = 1 WHERE log_index IN (2, 9999, 20001)');
    const result = await compareSides(sidesOf(context, two), { markIndex, verifyChain: false });
    assert.deepEqual(
      summaries(result),
      [2, 20_001, 9_999].map((index) => `n2 card_transaction log_index=${index} columns-differ held_minor`),
    );
    assert.ok(result.replyBytes < 30_000, `${result.replyBytes} bytes`);
  });

  test('of type or emptiness alone are differences', async (context) => {
    const folder = temporaryFolder(context);
    const values = [
      'NULL',
      "''",
      '0',
      "'0'",
      "x''",
      "x'30'",
      '4611686018427387904',
      '4611686018427387905',
      "'é'",
      "'e\u0301'",
      '1',
      '1.0',
    ];
    const [table] = tablesOf(group);
    assert.ok(table);
    const any = {
      ...table,
      name: 'any_value',
      keyColumns: ['id'],
      columns: ['id', 'value'],
      throughApplied: false,
      jsonColumns: [],
    };
    const make = (name: string, shift: number): SnapshotReader => {
      const path = join(folder, name);
      writeFile(path, group, [], noFold);
      const rows = values.map((_, at) => `(${at}, ${values[(at + shift) % values.length] ?? ''})`);
      runByHand(
        path,
        `CREATE TABLE any_value (id INTEGER PRIMARY KEY, value ANY) STRICT; INSERT INTO any_value VALUES ${rows.join()}`,
      );
      const reader = SnapshotReader.open(path);
      context.after(() => {
        reader.close();
      });
      return reader;
    };
    const inProcess = (node: string, reader: SnapshotReader): CompareSide => ({
      node,
      holds: 'log-and-fold',
      call: (call) => Promise.resolve(answerCompareCall(reader, [any], call)),
    });
    for (const shift of [1, 2, 5, 6, 10]) {
      const sides = [inProcess('n1', make(`base-${shift}.db`, 0)), inProcess('n2', make(`${shift}.db`, shift))];
      const result = await compareSides(sides, { markIndex: 0, tables: [any] });
      assert.deepEqual(summaries(result).length, values.length, `shifted by ${shift}`);
    }
  });

  test('beyond the longest list are counted', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 5_000);
    runByHand(paths['n3'] ?? '', 'UPDATE card_transaction SET held_minor = held_minor + 1');
    const result = await compareSides(sidesOf(context, paths), { markIndex, maximumListed: 100 });
    const table = result.tables.find((each) => each.table === 'card_transaction');
    assert.equal(table?.differences.length, 100);
    assert.equal(table.unlisted, 4_900);
    assert.deepEqual(table.nodesThatDiffer, ['n3']);
  });

  test('an empty copy lacks every row, and an empty reference too', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 5_000);
    for (const node of ['n1', 'n4']) {
      const path = copyFile(paths[node] ?? '', `${paths[node] ?? ''}.empty`);
      runByHand(path, 'DELETE FROM card_transaction; DELETE FROM card');
      const result = await compareSides(sidesOf(context, { ...paths, [node]: path }), { markIndex, maximumListed: 60 });
      assert.deepEqual(
        result.tables
          .filter(({ nodesThatDiffer }) => nodesThatDiffer.length > 0)
          .map(({ table, differences, unlisted, nodesThatDiffer }) => [
            table,
            differences.length + unlisted,
            ...nodesThatDiffer,
          ]),
        [
          ['card', 50, node],
          ['card_transaction', 5_000, node],
        ],
      );
      assert.ok(differencesOf(result).every(({ kind }) => kind === 'missing-here'));
    }
  });

  test('never show a card number, whatever stands in the row', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 100);
    const pan = '4761739001010119';
    runByHand(
      paths['n2'] ?? '',
      `UPDATE card SET pan_hash = '${pan}', expiry = '${pan}=2812' WHERE card_id = 'a.1.1.1';
       UPDATE card SET card_id = '${pan}' WHERE card_id = 'a.1.1.2';
       UPDATE card SET limit_minor = ${pan}, usage_date = CAST('${pan}' AS TEXT) WHERE card_id = 'a.1.1.3';
       UPDATE log SET body = '{"${pan}":"${pan}","n":${pan},"panHash":"${pan}"}' WHERE log_index = 9;`,
    );
    const seen: unknown[] = [];
    const sides = sidesOf(context, paths).map((side) => ({
      ...side,
      call: async (call: CompareCall) => {
        const reply = await side.call(call);
        if (call.kind === 'columns') seen.push(reply);
        return reply;
      },
    }));
    const result = await compareSides(sides, { markIndex });
    assert.equal(summaries(result).length, 5);
    assert.ok(!JSON.stringify([result, seen]).includes(pan));
  });
});
