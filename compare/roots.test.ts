import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { ledgerFold } from '../store/ledger-fold.ts';
import { leafOf } from '../store/canonical.ts';
import { merkleRoot } from '../store/merkle.ts';
import { SnapshotReader } from '../store/snapshot-reader.ts';
import { editByHand, relayFile, temporaryFolder } from '../store/testing.ts';
import type { GroupResult } from './result.ts';
import { checkRoots } from './roots.ts';
import { tablesOf } from './tables.ts';
import { compareSides, copies, group, sidesOf, verdict } from './testing.ts';

const tables = tablesOf(group);

const rootsOf = ({ tables: all }: GroupResult): readonly (string | undefined)[] =>
  all.map(({ evidence }) => evidence?.root);

function check(result: GroupResult, path: string): Record<string, string> {
  const found = checkRoots(result, { path, tables, fold: ledgerFold, temporary: `${path}.tmp` });
  return Object.fromEntries(
    found.map(({ table, reported, found: here, reason }) => [
      table,
      here === undefined ? (reason ?? '') : here === reported ? 'same' : 'other',
    ]),
  );
}

test('a report with evidence has the root of every table, the entry at its mark, and costs no other answer', async (context) => {
  const { paths, markIndex } = copies(temporaryFolder(context), 9_000, 300);
  const result = await compareSides(sidesOf(context, paths), { markIndex, evidence: true });
  assert.equal(verdict(result), 0);
  assert.equal(
    rootsOf(result).every((root) => /^[0-9a-f]{64}$/.test(root ?? '')),
    true,
  );
  const reader = SnapshotReader.open(paths['n3'] ?? '');
  context.after(() => {
    reader.close();
  });
  assert.equal(result.markHash, reader.position(markIndex)?.hash);
  const [log] = tables;
  assert.ok(log);
  const { blocks } = reader.blocks(log, { after: null, through: null }, 4_096, 10);
  assert.equal(rootsOf(result)[0], merkleRoot(blocks.map(({ leaf }) => leaf)).toString('hex'));
  assert.equal(blocks.length, 3);
  const plain = await compareSides(sidesOf(context, paths), { markIndex });
  assert.deepEqual(new Set(rootsOf(plain)), new Set([undefined]));
  assert.ok(result.replyBytes - plain.replyBytes < 100 * result.tables.length);
});

test('roots do not depend on page layout, nor on which copy was the reference; one changed value gives another', async (context) => {
  const { paths, markIndex } = copies(temporaryFolder(context), 300);
  const one = await compareSides(sidesOf(context, { n1: paths['n1'] ?? '', n2: paths['n2'] ?? '' }), {
    markIndex,
    evidence: true,
  });
  relayFile(paths['n3'] ?? '', 4_096);
  editByHand(paths['n4'] ?? '', "UPDATE card SET held_minor = held_minor + 1 WHERE card_id = 'a.1.1.7'");
  const two = await compareSides(sidesOf(context, { n3: paths['n3'] ?? '', n4: paths['n4'] ?? '' }), {
    markIndex,
    evidence: true,
  });
  assert.deepEqual(rootsOf(one), rootsOf(two));
  const three = await compareSides(sidesOf(context, { n4: paths['n4'] ?? '' }), { markIndex, evidence: true });
  assert.equal(
    rootsOf(three).every((root) => root === undefined),
    true,
    'one copy alone is not compared',
  );
});

test('roots are made again from the log of any one copy, whatever stands in its fold; and not from one that was edited', async (context) => {
  const folder = temporaryFolder(context);
  const { paths, markIndex } = copies(folder, 5_000);
  const result = await compareSides(sidesOf(context, paths), { markIndex, evidence: true });
  const same = Object.fromEntries(tables.map(({ name }) => [name, 'same']));
  assert.deepEqual(check(result, paths['n2'] ?? ''), same);
  assert.deepEqual(check(result, paths['w1'] ?? ''), same, 'the witness has no fold, and its log makes one');
  editByHand(paths['n2'] ?? '', "UPDATE meta SET value = '1' WHERE name = 'applied_index'");
  assert.match(check(result, paths['n2'] ?? '')['card'] ?? '', /the file's log ends before entry/);
  editByHand(paths['n3'] ?? '', 'UPDATE log SET term = 2 WHERE log_index = 4000');
  assert.equal(check(result, paths['n3'] ?? '')['log'], 'other');
  assert.deepEqual(
    leafOf(Buffer.alloc(0)).toString('hex'),
    result.tables.find(({ rows }) => rows === 0)?.evidence?.root,
  );
  assert.equal(join(folder, 'n4.db'), paths['n4']);
});
