import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { seededRandom } from '../base/random.ts';
import { isDamage } from '../store/snapshot-reader.ts';
import { copyFile, editByHand, readByHand, rowsByHand, runByHand, temporaryFolder } from '../store/testing.ts';
import { failed, type CompareSide } from './protocol.ts';
import { compareSides, copies, differencesOf, sideOf, sidesOf, summaries, verdict } from './testing.ts';

test('entries that were changed at most copies are told by the chain even where every copy is broken somewhere', async (context) => {
  const { paths, markIndex } = copies(temporaryFolder(context), 200);
  for (const node of ['n1', 'n2', 'w1'])
    editByHand(paths[node] ?? '', "UPDATE log SET body = '{}' WHERE log_index = 50");
  for (const node of ['n3', 'n4']) editByHand(paths[node] ?? '', "UPDATE log SET hash = 'no' WHERE log_index = 90");
  const result = await compareSides(sidesOf(context, paths), { markIndex });
  const wrong = differencesOf(result).filter(({ kind }) => kind !== 'broken-chain');
  assert.deepEqual(
    wrong.map(({ node, key, row }) => `${node} ${key['log_index'] ?? ''} ${row?.sources.join() ?? ''}`).sort(),
    ['n1 50 n3,n4', 'n2 50 n3,n4', 'n3 90 n1,n2,w1', 'n4 90 n1,n2,w1', 'w1 50 n3,n4'],
  );
});

describe('folds held against a recomputation from the log', () => {
  test('are as the entries make them, and it is said at which node and of how many', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 2_500);
    const result = await compareSides(sidesOf(context, paths), { markIndex, recompute: true });
    assert.deepEqual(differencesOf(result), []);
    assert.equal(verdict(result), 0);
    assert.deepEqual(result.recomputation, { node: 'n2', entries: markIndex });
  });

  test('that all copies have wrongly are found at each, with what the entries add up to', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 300);
    const nodes = ['n1', 'n2', 'n3', 'n4'];
    for (const node of nodes) {
      runByHand(
        paths[node] ?? '',
        `UPDATE card SET held_minor = held_minor + 100 WHERE card_id = 'a.1.1.7';
         DELETE FROM card_transaction WHERE log_index = 33;
         INSERT INTO repeat_attempt VALUES (9, 'n1.1.9', 9)`,
      );
    }
    const result = await compareSides(sidesOf(context, paths), { markIndex, recompute: true });
    assert.deepEqual(
      summaries(result),
      nodes
        .flatMap((node) => [
          `${node} card card_id=a.1.1.7 wrong-fold held_minor`,
          `${node} card_transaction log_index=33 wrong-fold row`,
          `${node} repeat_attempt transaction_index=9 attempt=n1.1.9 wrong-fold row`,
        ])
        .sort(),
    );
    const [held] = differencesOf(result).flatMap((each) => (each.kind === 'wrong-fold' ? each.columns : []));
    assert.equal(Number(held?.here) - Number(held?.expected), 100);
    const copiesAlone = await compareSides(sidesOf(context, paths), { markIndex });
    assert.equal(verdict(copiesAlone), 0, 'nothing but the log can tell');
  });

  test('decide where two copies alone could not', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 300);
    const two = { n1: paths['n1'] ?? '', n2: paths['n2'] ?? '' };
    editByHand(two.n1, "UPDATE card SET held_minor = held_minor + 100 WHERE card_id = 'a.1.1.7'");
    const result = await compareSides(sidesOf(context, two), { markIndex, recompute: true });
    assert.deepEqual(
      differencesOf(result).map(({ node, key }) => [node, key['card_id']]),
      [['n1', 'a.1.1.7']],
    );
  });

  test('cannot be where every log was trimmed: then copies alone are judged, and that is said', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 100);
    for (const path of Object.values(paths)) {
      const [hash] = readByHand(path, 'SELECT hash FROM log WHERE log_index = 50');
      runByHand(
        path,
        `DELETE FROM log WHERE log_index <= 50;
         INSERT INTO meta VALUES ('base_index', '50'), ('base_term', '1'), ('base_hash', '${String(hash)}')`,
      );
    }
    const result = await compareSides(sidesOf(context, paths), { markIndex, recompute: true });
    assert.equal(verdict(result), 0);
    assert.deepEqual(result.recomputation, {
      node: undefined,
      message: 'n1 recomputed: its log begins after entry 50',
    });
  });
});

/** As a node answers: a file that cannot even be opened is damaged. */
function sideOrDamage(context: TestContext, node: string, path: string): CompareSide {
  try {
    return sideOf(context, node, path);
  } catch (error) {
    assert.ok(isDamage(error), String(error));
    return { node, holds: 'log-and-fold', call: () => Promise.resolve(failed('damaged', String(error))) };
  }
}

describe('a bit that flipped on a disk', () => {
  test('is found wherever a row or an index is, in any page of any copy, and ends nothing', async (context) => {
    const folder = temporaryFolder(context);
    const { paths, markIndex } = copies(folder, 400);
    const random = seededRandom(6);
    const tables = readByHand(paths['n1'] ?? '', "SELECT name FROM sqlite_schema WHERE type = 'table'") as string[];
    const contentOf = (path: string): string =>
      tables.map((table) => JSON.stringify(rowsByHand(path, `SELECT * FROM ${table}`))).join();
    let found = 0;
    for (let run = 0; run < 40; run++) {
      const node = ['n1', 'n2', 'n3', 'n4'][random.below(4)] ?? 'n1';
      const path = copyFile(paths[node] ?? '', join(folder, `flipped-${run}.db`));
      const bytes = readFileSync(path);
      // The first page has the file's own description: without it there is no file.
      const at = 2_048 + random.below(bytes.length - 2_048);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
      writeFileSync(path, bytes);
      const others = sidesOf(context, Object.fromEntries(Object.entries(paths).filter(([name]) => name !== node)));
      const sides = [...others, sideOrDamage(context, node, path)];
      const result = await compareSides(sides, { markIndex, checkIntegrity: true });
      if (verdict(result) === 3) {
        found++;
        assert.ok(differencesOf(result).every((each) => each.node === node));
        continue;
      }
      // Nothing in use has changed: the bit is in space that holds nothing.
      assert.equal(verdict(result), 0, JSON.stringify(result.outcomes.filter(({ outcome }) => outcome !== 'equal')));
      assert.equal(contentOf(path), contentOf(paths[node] ?? ''));
    }
    assert.ok(found >= 20, `${found} of 40`);
  });
});

test('a compare that is stopped says what it has not covered, and gives its snapshots up', async (context) => {
  const { paths, markIndex } = copies(temporaryFolder(context), 300);
  const stop = new AbortController();
  const closed: string[] = [];
  const sides = sidesOf(context, paths).map((side) => ({
    ...side,
    call: (call: Parameters<typeof side.call>[0]) => {
      if (call.kind === 'close') closed.push(side.node);
      if (call.kind === 'digests' && call.table === 'card') stop.abort(new Error('the time is spent'));
      return side.call(call);
    },
  }));
  const result = await compareSides(sides, { markIndex, stop: stop.signal });
  const outcomes = new Map(result.outcomes.map((each) => [`${each.node} ${each.table}`, each]));
  assert.equal(outcomes.get('n3 log')?.outcome, 'equal');
  const uncovered = outcomes.get('n3 stand_in');
  assert.deepEqual(uncovered, {
    node: 'n3',
    table: 'stand_in',
    outcome: 'inconclusive',
    reason: 'not-covered',
    message: 'the time is spent',
  });
  assert.deepEqual(closed.sort(), ['n1', 'n2', 'n3', 'n4', 'w1']);
});
