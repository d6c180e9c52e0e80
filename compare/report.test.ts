import assert from 'node:assert/strict';
import { test } from 'node:test';

import { exitCodes, reportJson, reportText, verdictOf, type CompareResult } from './report.ts';
import type { Difference, GroupResult, Outcome } from './result.ts';

function groupOf(outcomes: readonly Outcome[], differences: readonly Difference[] = [], unlisted = 0): GroupResult {
  const nodesThatDiffer = [...new Set(differences.map(({ node }) => node))];
  const counts = { rows: 12_345, blocks: 13, blocksThatDiffer: 1, unlisted };
  return {
    group: 'a',
    markIndex: 12_345,
    tables: [{ table: 'card', reference: 'n1', ...counts, differences, nodesThatDiffer }],
    outcomes,
    replyBytes: 2_048,
  };
}

const resultOf = (...groups: GroupResult[]): CompareResult => ({
  compare: 'compare-1',
  startedAt: '2026-01-02T03:04:05.678Z',
  durationMs: 1_234,
  groups,
});

const equal: Outcome = { node: 'n1', table: 'card', outcome: 'equal' };
const different: Outcome = { node: 'n3', table: 'card', outcome: 'different' };
const silent: Outcome = {
  node: 'n4',
  table: 'card',
  outcome: 'inconclusive',
  reason: 'mark-not-reached',
  message: 'at 3 of 9',
};
const place = { node: 'n3', group: 'a', table: 'card', key: { card_id: 'a.1.1.7' } };
const changed: Difference = {
  ...place,
  kind: 'columns-differ',
  columns: [{ column: 'held_minor', here: '500', others: '700' }],
};

test('the exit code is 0 for equal, 3 for differences, 4 when nothing was found and not all could be judged', () => {
  const code = (...groups: GroupResult[]): number => exitCodes[verdictOf(groups)];
  assert.equal(code(groupOf([equal])), 0);
  assert.equal(code(groupOf([equal]), groupOf([different], [changed])), 3);
  assert.equal(code(groupOf([silent]), groupOf([different], [changed])), 3);
  assert.equal(code(groupOf([equal, silent])), 4);
  assert.equal(code(), 4, 'a compare of nothing proves nothing');
});

test('the text names node, group, table, key and column of a difference, and both values', () => {
  const derived: Difference = {
    ...place,
    table: 'failover_map',
    key: { group_id: 'a' },
    kind: 'derived-differs',
    columns: [{ column: 'rank', here: '1', expected: '3' }],
  };
  const text = reportText(
    resultOf(groupOf([equal, different, silent], [changed, derived, { ...place, kind: 'only-here' }])),
  );
  assert.equal(
    text,
    `DIFFERENT: 3 differences.
12,345 rows in 13 blocks, 2,048 bytes of answers, 1.2 s

group    mark    rows  blocks  bytes  result
a      12,345  12,345      13  2,048  3 at n3; n4 inconclusive

group a, n4 inconclusive, mark not reached: at 3 of 9 (card)

n3  group a  card  card_id=a.1.1.7  columns differ
    held_minor: here 500, others 700
n3  group a  failover_map  group_id=a  derived columns are not what the rules make
    rank: here 1, expected 3
n3  group a  card  card_id=a.1.1.7  row only here`,
  );
});

test('the text of equal copies is short', () => {
  const [headline] = reportText(resultOf(groupOf([equal]))).split('\n');
  assert.equal(headline, 'EQUAL: all copies agree.');
});

test('what is not printed is counted', () => {
  const many = groupOf(
    [different],
    Array.from({ length: 10 }, () => changed),
    90,
  );
  const text = reportText(resultOf(many), 3);
  assert.match(text, /^DIFFERENT: 100 differences\./);
  assert.match(text, /\nand 97 more$/);
});

test('the JSON has the verdict, totals and every listed difference', () => {
  const json = JSON.parse(reportJson(resultOf(groupOf([different], [changed], 2)))) as Record<string, unknown>;
  const { groups, ...head } = json;
  assert.deepEqual(head, {
    compare: 'compare-1',
    startedAt: '2026-01-02T03:04:05.678Z',
    durationMs: 1_234,
    verdict: 'different',
    rows: 12_345,
    blocks: 13,
    replyBytes: 2_048,
    differences: 3,
  });
  assert.deepEqual((groups as GroupResult[])[0]?.tables[0]?.differences, [changed]);
});
