import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { SwitchError } from '../base/errors.ts';
import { groupId, nodeId } from '../base/identifiers.ts';
import { planChanges, type VersionedChange, type VersionedConfiguration } from './configuration-change.ts';
import { changesOf, loadConfigurationFile, type Configuration } from './configuration.ts';
import { previewChanges } from './change-preview.ts';
import { readChangeFile } from './change-file.ts';
import { readRuleSetFile } from './rule-file.ts';
import { parseKeyText, readColumnText, type ConfigurationChange } from './rows.ts';

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
const rules = readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml');
const rows: Configuration = {
  ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
  rewrite_rule_set: [rules],
};
const topology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, index) => ({ id: nodeId(id), site: index < 2 ? 'east' : 'west' })),
};
/** Every row has been entered by alice at n2, with entry 7. */
const before: VersionedConfiguration = {
  rows,
  versionOf: (table, key) =>
    changesOf(rows).some(
      (change) => change.table === table && JSON.stringify(keyOf(change)) === JSON.stringify(parseKeyText(table, key)),
    )
      ? { version: 7, by: 'alice', origin: 'n2', at: Date.UTC(2026, 1, 3) }
      : undefined,
};

function keyOf(change: ConfigurationChange): object {
  const content = { ...(change.operation === 'put' ? change.row : change.key) } as Record<string, unknown>;
  const names = { failover_map: ['group_id'], pan_range: ['prefix'], range_limit: ['prefix', 'currency'] };
  const columns = change.table in names ? names[change.table as keyof typeof names] : Object.keys(content).slice(0, 1);
  return Object.fromEntries(columns.map((column) => [column, content[column]]));
}

const order = (failover_order: string, replaces = 7, group = 'a'): VersionedChange => ({
  change: { table: 'failover_map', operation: 'put', row: { ...mapRow(), group_id: groupId(group), failover_order } },
  replaces,
});
function mapRow() {
  const [row] = rows.failover_map;
  assert.ok(row !== undefined);
  return row;
}
const range = (prefix: string, group: string, replaces: number): VersionedChange => {
  const [row] = rows.pan_range;
  assert.ok(row !== undefined);
  return {
    change: { table: 'pan_range', operation: 'put', row: { ...row, prefix, group_id: groupId(group) } },
    replaces,
  };
};
const noRange = (prefix: string): VersionedChange => ({
  change: { table: 'pan_range', operation: 'delete', key: { prefix } },
  replaces: 7,
});

function plan(...changes: VersionedChange[]): ConfigurationChange[] {
  return planChanges(before, changes, topology);
}

function refusal(...changes: VersionedChange[]): { code: string; message: string } {
  try {
    plan(...changes);
  } catch (error) {
    assert.ok(error instanceof SwitchError);
    return error;
  }
  return { code: 'none', message: '' };
}

describe('a change of the configuration', () => {
  test('that replaces the version that is there is entered', () => {
    assert.equal(plan(order('n4>n3>n2>n1')).length, 1);
  });
  test('that replaces another version is told which is there, who entered it, where and when: VERSION_CONFLICT', () => {
    const { code, message } = refusal(order('n4>n3>n2>n1', 5));
    assert.equal(code, 'VERSION_CONFLICT');
    assert.equal(
      message,
      'failover_map a: the change replaces version 5, and version 7 is there, entered by alice at n2 on 2026-02-03T00:00:00.000Z',
    );
    assert.equal(refusal(range('990001', 'a', 0)).code, 'none', 'the row is as wanted, whoever made it so');
    assert.equal(refusal(range('99000199', 'a', 7)).code, 'VERSION_CONFLICT', 'there is no such row any more');
  });
  test('that changes nothing is not entered, and what is left of it is', () => {
    assert.deepEqual(plan(order('n1>n2>n3>n4')), []);
    assert.equal(plan(order('n1>n2>n3>n4'), order('n1>n2>n3>n4', 7, 'b')).length, 1);
  });
  const refused: [string, VersionedChange[], RegExp][] = [
    ['an order that misses a node', [order('n1>n2>n3')], /n4 is missing/],
    ['an order that repeats a node', [order('n1>n2>n3>n4>n1')], /n1 is repeated/],
    ['an order with a node that is not there', [order('n1>n2>n3>n4>n5')], /"n5" is not a node/],
    [
      'a row that stands twice',
      [order('n4>n3>n2>n1'), order('n4>n1>n2>n3')],
      /failover_map a: the same row stands twice/,
    ],
    ['a range moved to another group', [range('990001', 'b', 7)], /pan_range "990001": its cards are group a's/],
    [
      'a range cut out of another group',
      [range('99000177', 'c', 0)],
      /its cards are group a's: enter it with that group/,
    ],
    ['a range deleted into another group', [noRange('99000150')], /its cards are group b's, .* move it there first/],
    ['a range with cards deleted', [noRange('990001')], /no range is around it that could take its cards/],
    ['the catch-all deleted', [noRange('')], /the catch-all cannot be deleted/],
    [
      'a group deleted',
      [{ change: { table: 'failover_map', operation: 'delete', key: { group_id: groupId('a') } }, replaces: 7 }],
      /failover_map a: a group cannot be deleted/,
    ],
    [
      'a rule set rewritten',
      [{ change: { table: 'rewrite_rule_set', operation: 'put', row: { ...rules, rules: '[]' } }, replaces: 7 }],
      /other rules have this version/,
    ],
  ];
  for (const [name, changes, message] of refused) {
    test(`is refused: ${name}`, () => {
      const error = refusal(...changes);
      assert.equal(error.code, 'CONFIGURATION_REFUSED');
      assert.match(error.message, message);
    });
  }
  test('may carve a range within its group', () => {
    assert.equal(plan(range('99000177', 'a', 0)).length, 1);
  });
});

describe('a preview', () => {
  test('shows the row and what each node makes of it, before and after, with the rule that says so', () => {
    const preview = previewChanges({
      before,
      changes: [order('n4>n3>n2>n1')],
      topology,
      origin: nodeId('n3'),
      index: 9,
    });
    const map = preview.rows.find(({ table }) => table === 'failover_map');
    assert.match(map?.before ?? '', /n1>n2>n3>n4/);
    assert.match(map?.after ?? '', /n4>n3>n2>n1/);
    assert.deepEqual([map?.version, map?.nodes.map(({ node }) => node)], [7, ['n1', 'n2', 'n3', 'n4']]);
    const ranks = map?.nodes.map(({ columns }) => columns.find(({ column }) => column === 'rank'));
    assert.deepEqual(
      ranks?.map((rank) => [rank?.before, rank?.after]),
      [
        [1, 4],
        [2, 3],
        [3, 2],
        [4, 1],
      ],
    );
    for (const rank of ranks) assert.ok(rank?.rule.startsWith('rank-') === true);
    const derivedOnly = preview.rows.filter((row) => row.before === row.after);
    assert.ok(
      derivedOnly.length > 0 && derivedOnly.every(({ table }) => table === 'pan_range'),
      "the group's ranges follow",
    );
  });
  test('refuses what entering would refuse', () => {
    assert.throws(
      () => previewChanges({ before, changes: [order('n1>n2')], topology, origin: nodeId('n3'), index: 9 }),
      /n3 is missing/,
    );
  });
});

describe('a file of changes', () => {
  test('has rows to be there, rows to be gone, and the versions that they replace', () => {
    const changes = readChangeFile(
      `acquirer_link:
  - { link_id: acquirer, acquiring_institutions: '*', partial_approval: false, deadline_ms: 100, replaces: 12 }
delete:
  range_limit: [{ prefix: '990001', currency: '840' }]
`,
      'c.yaml',
    );
    assert.deepEqual(
      changes.map(({ change, replaces }) => [change.table, change.operation, replaces]),
      [
        ['acquirer_link', 'put', 12],
        ['range_limit', 'delete', undefined],
      ],
    );
  });
  test('is refused with the line: an unknown column, a prefix of 20 digits, a limit of 2^53', () => {
    const error = (text: string): RegExpMatchArray | null => {
      try {
        readChangeFile(text, 'c.yaml');
      } catch (thrown) {
        assert.ok(thrown instanceof SwitchError && thrown.code === 'CONFIGURATION_FILE_INVALID');
        return /^c\.yaml:(\d+): (\S+): /.exec(thrown.message);
      }
      return null;
    };
    assert.deepEqual(error('delete:\n  range_limit:\n    - { prefix: "1", currency: "840", x: 1 }\n')?.slice(1), [
      '3',
      'delete.range_limit[0].x',
    ]);
    assert.equal(error(`delete:\n  pan_range: [{ prefix: '${'1'.repeat(20)}' }]\n`)?.[1], '2');
    assert.equal(
      error(`range_limit:\n  - { prefix: '1', currency: '840', transaction_maximum_minor: ${2 ** 53} }\n`)?.[1],
      '2',
    );
  });
});

describe('what an operator types', () => {
  test('is read as the column takes it', () => {
    assert.equal(readColumnText('pan_range', 'hold_days', '9'), 9);
    assert.equal(readColumnText('pan_range', 'description', '12'), '12');
    assert.equal(readColumnText('range_limit', 'transaction_maximum_minor', '500'), '500');
    assert.equal(readColumnText('range_limit', 'transaction_maximum_minor', 'none'), null);
    assert.equal(readColumnText('acquirer_link', 'partial_approval', 'true'), true);
    assert.deepEqual(parseKeyText('range_limit', '990001/840'), { prefix: '990001', currency: '840' });
    assert.deepEqual(parseKeyText('pan_range', ''), { prefix: '' });
    assert.deepEqual(parseKeyText('rewrite_rule_set', '3'), { version: 3 });
  });
  for (const [table, column, text] of [
    ['pan_range', 'hold_days', 'x'],
    ['pan_range', 'colour', 'x'],
    ['range_limit', 'transaction_maximum_minor', String(2 ** 53)],
  ] as const) {
    test(`is refused: ${column}=${text}`, () => {
      assert.throws(() => readColumnText(table, column, text), { code: 'CONFIGURATION_ROW_INVALID' });
    });
  }
  test('is refused: a key with too few parts', () => {
    assert.throws(() => parseKeyText('range_limit', '990001'), /written as prefix\/currency/);
  });
});
