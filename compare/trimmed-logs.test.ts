import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';

import { GroupFile, noFold } from '../store/group-file.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { editByHand, readByHand, temporaryFolder } from '../store/testing.ts';
import { compareSides, copies, group, sidesOf, summaries, verdict } from './testing.ts';
import type { CompareSide } from './protocol.ts';

const decisions = 6_000;

/** Copies whose logs have been trimmed up to these indexes. */
function trimmed(
  context: TestContext,
  bases: Readonly<Record<string, number>>,
): { readonly paths: Record<string, string>; readonly markIndex: number } {
  const made = copies(temporaryFolder(context), decisions);
  for (const [node, base] of Object.entries(bases)) {
    const file = GroupFile.open(made.paths[node] ?? '', group, 'test', node === 'w1' ? noFold : ledgerFold);
    while (file.base.index < base) {
      file.write({ entries: [], keepThrough: undefined, applyThrough: 0, trimThrough: base });
    }
    file.close();
  }
  return made;
}

const rowsOfLog = (result: Awaited<ReturnType<typeof compareSides>>): number | undefined =>
  result.tables.find(({ table }) => table === 'log')?.rows;

describe('copies whose logs begin at different entries', () => {
  const bases = { n1: 3_000, n2: 0, n3: 5_500, n4: 3_000, w1: 700 };

  test('are equal, as far as each of them has the log', async (context) => {
    const { paths, markIndex } = trimmed(context, bases);
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result, true), []);
    assert.equal(verdict(result), 0);
    assert.equal(rowsOfLog(result), markIndex, 'every entry that any copy has');
    assert.deepEqual(readByHand(paths['n3'] ?? '', 'SELECT min(log_index) FROM log'), [5_501]);
  });

  const plants: readonly (readonly [string, string, number])[] = [
    ['that all have', 'n4', 5_900],
    ['that some have', 'n1', 3_500],
    ['that two have', 'w1', 1_000],
  ];
  for (const [name, node, index] of plants) {
    test(`differ where one was changed, in a stretch ${name}`, async (context) => {
      const { paths, markIndex } = trimmed(context, bases);
      editByHand(paths[node] ?? '', `UPDATE log SET body = '{}' WHERE log_index = ${index}`);
      const result = await compareSides(sidesOf(context, paths), { markIndex });
      assert.deepEqual(summaries(result, true), [
        `${node} log log_index=${index} broken-chain`,
        `${node} log log_index=${index} columns-differ body`,
      ]);
      assert.equal(verdict(result), 3);
    });
  }

  test('differ where one was changed in what only it has: its own chain tells', async (context) => {
    const { paths, markIndex } = trimmed(context, bases);
    editByHand(paths['n2'] ?? '', "UPDATE log SET body = '{}' WHERE log_index = 300");
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result, true), ['n2 log log_index=300 broken-chain']);
  });

  test('differ where one lacks an entry that it should have', async (context) => {
    const { paths, markIndex } = trimmed(context, bases);
    editByHand(paths['n3'] ?? '', 'DELETE FROM log WHERE log_index = 5501');
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result), ['n3 log log_index=5501 missing-here']);
  });

  test('differ where one has an entry below its base', async (context) => {
    const { paths, markIndex } = trimmed(context, bases);
    editByHand(paths['n3'] ?? '', "INSERT INTO log VALUES (17, 1, '{}', 'x')");
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result, true), ['n3 log log_index=17 broken-chain']);
  });

  test('differ where the base of one is of another history', async (context) => {
    const { paths, markIndex } = trimmed(context, bases);
    editByHand(paths['n3'] ?? '', "UPDATE meta SET value = 'another' WHERE name = 'base_hash'");
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result), ['n3 log log_index=5500 columns-differ hash']);
    assert.equal(verdict(result), 3);
  });

  test('stand on one history even if not an entry is left to compare', async (context) => {
    const made = copies(temporaryFolder(context), 10);
    for (const node of ['n1', 'n2', 'n3', 'n4', 'w1']) {
      const file = GroupFile.open(made.paths[node] ?? '', group, 'test', node === 'w1' ? noFold : ledgerFold);
      file.write({ entries: [], keepThrough: undefined, applyThrough: 0, trimThrough: made.markIndex });
      file.close();
    }
    const { paths, markIndex } = made;
    assert.equal(verdict(await compareSides(sidesOf(context, paths), { markIndex })), 0);
    editByHand(paths['w1'] ?? '', "UPDATE meta SET value = 'another' WHERE name = 'base_hash'");
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(summaries(result), [`w1 log log_index=${markIndex} columns-differ hash`]);
  });
});

describe('a side that says that it has trimmed its log', () => {
  const lying = (base: number, sides: readonly CompareSide[]): CompareSide[] =>
    sides.map((side) => ({
      ...side,
      call: async (call) => {
        const reply = await side.call(call);
        return side.node === 'n1' && call.kind === 'open' ? { ...(reply as object), base } : reply;
      },
    }));

  test('hides nothing of what the others have', async (context) => {
    const { paths, markIndex } = trimmed(context, {});
    editByHand(paths['n4'] ?? '', "UPDATE log SET body = '{}' WHERE log_index = 100");
    const result = await compareSides(lying(markIndex, sidesOf(context, paths)), { markIndex });
    assert.deepEqual(summaries(result), ['n4 log log_index=100 columns-differ body']);
  });

  test('further than its fold is, is not believed', async (context) => {
    const { paths, markIndex } = trimmed(context, {});
    const result = await compareSides(lying(markIndex + 1, sidesOf(context, paths)), { markIndex });
    const found = result.outcomes.flatMap((each) =>
      each.outcome === 'inconclusive' ? [`${each.node} ${each.reason}`] : [],
    );
    assert.deepEqual([...new Set(found)], ['n1 garbage']);
  });
});

describe('with `since` a log is compared from there', () => {
  const changed = async (context: TestContext, index: number, sql: string): Promise<string[]> => {
    const { paths, markIndex } = copies(temporaryFolder(context), 500);
    editByHand(paths['n3'] ?? '', `UPDATE log SET ${sql} WHERE log_index = ${index}`);
    return summaries(await compareSides(sidesOf(context, paths), { markIndex, since: 300 }));
  };

  test('and what comes after it is found, by rows and by the chain', async (context) => {
    assert.deepEqual(await changed(context, 400, 'term = term + 1'), ['n3 log log_index=400 columns-differ term']);
  });

  test('and that all copies have the same entry there', async (context) => {
    assert.deepEqual(await changed(context, 300, "hash = 'x'"), ['n3 log log_index=300 columns-differ hash']);
  });

  test('and what is before it is left out', async (context) => {
    assert.deepEqual(await changed(context, 200, 'term = term + 1'), []);
  });
});
