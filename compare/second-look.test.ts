import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { copyFile, editByHand, runByHand, temporaryFolder } from '../store/testing.ts';
import { reportText } from './report.ts';
import type { GroupResult } from './result.ts';
import { compareSides, copies, differencesOf, sidesOf, summaries, verdict } from './testing.ts';

const lost = "UPDATE card SET status = 'lost' WHERE card_id = 'a.1.1.7'";

/** Compares copies of which n3's differ, and looks again when `meanwhile` has been done to n3's. */
async function lookedAtTwice(
  context: TestContext,
  planted: readonly string[],
  meanwhile: readonly string[] | 'nobody leads',
): Promise<{ readonly result: GroupResult; readonly marks: number }> {
  const folder = temporaryFolder(context);
  const { paths, markIndex } = copies(folder, 300);
  const later = { ...paths, n3: copyFile(paths['n3'] ?? '', join(folder, 'later.db')) };
  for (const sql of planted) {
    editByHand(paths['n3'] ?? '', sql);
    editByHand(later.n3, sql);
  }
  let marks = 0;
  const result = await compareSides(sidesOf(context, paths), {
    markIndex,
    laterMark: () => {
      marks++;
      if (meanwhile === 'nobody leads') return Promise.reject(new Error('nobody leads the group'));
      for (const sql of meanwhile) runByHand(later.n3, sql);
      return Promise.resolve({ compare: 'compare-1.2', index: markIndex, sides: sidesOf(context, later) });
    },
  });
  return { result, marks };
}

describe('a row that differs is looked at once more, at a later mark', () => {
  const found = (result: GroupResult): (string | undefined)[] => differencesOf(result).map(({ again }) => again?.found);

  test('and that it differs still is noted', async (context) => {
    const planted = [lost, "DELETE FROM card WHERE card_id = 'a.1.1.9'", 'DELETE FROM reversal_tombstone'];
    const { result } = await lookedAtTwice(context, planted, []);
    assert.ok(found(result).length > 2);
    assert.deepEqual(new Set(found(result)), new Set(['still']));
  });

  test('and is a finding all the same when it is gone: the report says so', async (context) => {
    const { result } = await lookedAtTwice(context, [lost], ["UPDATE card SET status = 'active'"]);
    assert.deepEqual(summaries(result), ['n3 card card_id=a.1.1.7 columns-differ status']);
    assert.deepEqual(found(result), ['gone']);
    assert.equal(verdict(result), 3);
    const text = reportText({ compare: 'c1', startedAt: '', durationMs: 1, groups: [result] });
    assert.match(text, /columns differ; written since, equal at index \d+/);
  });

  test('but not when there is no later mark: it stands as it was found', async (context) => {
    const { result } = await lookedAtTwice(context, [lost], 'nobody leads');
    assert.deepEqual(found(result), [undefined]);
    assert.equal(verdict(result), 3);
  });

  test('and nothing is asked for when all copies are equal', async (context) => {
    const { result, marks } = await lookedAtTwice(context, [], []);
    assert.equal(verdict(result), 0);
    assert.equal(marks, 0);
  });
});
