import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId } from '../base/identifiers.ts';
import type { Configuration } from './configuration.ts';
import { endOfMove, problemsOfRangeChanges } from './range-changes.ts';
import type { ConfigurationChange, PanRangeRow } from './rows.ts';

const [a, b] = [groupId('a'), groupId('b')];

function range(prefix: string, group = a): PanRangeRow {
  return { prefix, group_id: group, description: '', issuer: '', durability: 'quorum', hold_days: 7 };
}

const before: Configuration = {
  failover_map: [a, b].map((group) => ({ group_id: group, failover_order: 'n1' })),
  pan_range: [range('', b), range('4000'), range('400001'), range('400002', b), range('5000'), range('500001')],
  range_move: [{ prefix: '5000', to_group: b, move_id: 'm-1' }],
  range_limit: [],
  merchant_limit: [],
  node_state: [],
  acquirer_link: [],
  rewrite_rule_set: [],
};

const put = (prefix: string, group = a): ConfigurationChange => ({
  table: 'pan_range',
  operation: 'put',
  row: range(prefix, group),
});
const drop = (prefix: string): ConfigurationChange => ({ table: 'pan_range', operation: 'delete', key: { prefix } });
const move = (prefix: string, id = 'm-2'): ConfigurationChange => ({
  table: 'range_move',
  operation: 'put',
  row: { prefix, to_group: b, move_id: id },
});

describe('a change of ranges', () => {
  const cases: readonly [string, readonly ConfigurationChange[], RegExp | undefined][] = [
    ['carves a range out of one of its own group', [put('40007')], undefined],
    ['carves what has been carved by the change before', [put('40007'), put('400071')], undefined],
    ['takes a range of new cards into any group', [put('77', b)], undefined],
    ['describes a range anew', [{ ...put('4000'), row: { ...range('4000'), description: 'new' } } as never], undefined],
    ['merges a range into that around it', [drop('400001')], undefined],
    ['lets a range begin to move', [move('4000')], undefined],
    ['cannot carve into another group', [put('40007', b)], /^pan_range "40007": its cards are group a's/],
    ['cannot give a range to another group', [put('4000', b)], /"quadrant ranges move 4000 b" moves them/],
    ['cannot merge into another group', [drop('400002')], /around it is group a's: move it there first/],
    ['cannot leave cards without a range', [drop('4000')], /no range is around it/],
    ['cannot delete the catch-all', [drop('')], /the catch-all cannot be deleted/],
    ['cannot move a range twice at once', [move('5000')], /it is on its way to group b/],
    [
      'cannot call a move off',
      [{ table: 'range_move', operation: 'delete', key: { prefix: '5000' } }],
      /brought to its end/,
    ],
    ['cannot carve out of a range that moves', [put('50007')], /the range "5000" around it is moving/],
    ['cannot merge into a range that moves', [drop('500001')], /is moving: wait/],
    ['cannot delete a range that begins to move', [move('400001'), drop('400001')], /is moving: wait/],
  ];
  for (const [name, changes, problem] of cases) {
    test(name, () => {
      const problems = problemsOfRangeChanges(before, changes).map(({ path, message }) => `${path}: ${message}`);
      if (problem === undefined) assert.deepEqual(problems, []);
      else assert.match(problems.join('; '), problem);
    });
  }

  test('that ends a move gives the range to the heir, once', () => {
    const changes = endOfMove(before, 'm-1');
    assert.deepEqual(problemsOfRangeChanges(before, changes, 'm-1'), []);
    assert.deepEqual(changes[0], put('5000', b));
    assert.equal(problemsOfRangeChanges(before, changes).length, 2, 'not for somebody who only says so');
    assert.deepEqual(endOfMove({ ...before, range_move: [] }, 'm-1'), []);
  });

  test('is free before anybody has cards', () => {
    assert.deepEqual(problemsOfRangeChanges({ ...before, pan_range: [] }, [put('4000', b), drop('4000')]), []);
  });
});
