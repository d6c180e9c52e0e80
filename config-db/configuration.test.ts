import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { SwitchError } from '../base/errors.ts';
import { groupId, nodeId } from '../base/identifiers.ts';
import {
  changesOf,
  currentRuleSetRow,
  loadConfigurationFile,
  validateConfiguration,
  type Configuration,
} from './configuration.ts';
import type { RewriteTopology } from './rewrite.ts';
import { readRuleSetFile } from './rule-file.ts';
import { RangeTable } from './routing.ts';
import { formatProblem } from './rows.ts';

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
const ruleSetRow = readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml');
const sample: Configuration = {
  ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
  rewrite_rule_set: [ruleSetRow],
};
const topology: RewriteTopology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, index) => ({ id: nodeId(id), site: index < 2 ? 'east' : 'west' })),
};

describe('the sample configuration', () => {
  test('is valid for the four nodes', () => {
    assert.deepEqual(validateConfiguration(sample, topology), []);
  });

  test('has ranges of 6 and 8 digits, one local range for each group, and overlaps across groups', () => {
    const ranges = sample.pan_range.filter(({ prefix }) => prefix !== '');
    assert.ok(ranges.length >= 12);
    assert.deepEqual([...new Set(ranges.map(({ prefix }) => prefix.length))].sort(), [6, 8]);
    const local = ranges.filter(({ durability }) => durability === 'local').map(({ group_id }) => group_id);
    assert.deepEqual(local, ['a', 'b', 'c', 'd']);
    const table = new RangeTable(sample.pan_range);
    const overlaps = ranges.filter(({ prefix, group_id }) => {
      const outer = table.find(prefix.slice(0, 6));
      return prefix.length > 6 && outer.prefix !== '' && outer.group_id !== group_id;
    });
    assert.equal(overlaps.length, 4);
  });

  test('is entered group by group before the ranges that need them', () => {
    const tables = changesOf(sample).map(({ table }) => table);
    assert.equal(tables.lastIndexOf('failover_map') + 1, tables.indexOf('pan_range'));
    assert.equal(
      tables.length,
      Object.values(sample).reduce((sum, rows) => sum + rows.length, 0),
    );
  });
});

describe('a configuration file is refused with line and path when', () => {
  const refused: [name: string, text: string, message: RegExp][] = [
    ['a table is unknown', 'failover_map: []\npan_range: []\nroutes: []\n', /^c\.yaml:3: routes: unknown key$/],
    [
      'a column is unknown',
      'failover_map:\n  - group_id: a\n    failover_order: n1\n    weight: 3\npan_range: []\n',
      /^c\.yaml:4: failover_map\[0\]\.weight: unknown key$/,
    ],
    [
      'digits have no quotes',
      'failover_map: []\npan_range:\n  - prefix: 990001\n    group_id: a\n    description: d\n    issuer: i\n    durability: quorum\n    hold_days: 7\n',
      /^c\.yaml:3: pan_range\[0\]\.prefix: expected digits in quotes$/,
    ],
    ['a table is missing', 'failover_map: []\n', /^c\.yaml:1: pan_range: /],
    ['a key stands twice', 'failover_map: []\nfailover_map: []\n', /^c\.yaml:2: not valid YAML \(duplicate key\)/],
    ['it is no YAML', 'failover_map: [\n', /^c\.yaml:\d: not valid YAML/],
    ['it is empty', '', /^c\.yaml:1: /],
    ['it is a bomb of aliases', bomb(), /^c\.yaml: not valid YAML \(too many aliases/],
    [
      'it has many faults, of which ten are shown',
      `failover_map: [${'{},'.repeat(10)}]\npan_range: []\n`,
      /(?:c\.yaml:1: failover_map\[\d\]\.\w+: .*\n){10}and 10 more$/,
    ],
  ];
  for (const [name, text, message] of refused) {
    test(name, () => {
      assert.throws(
        () => loadConfigurationFile(text, 'c.yaml'),
        (error) => {
          assert.ok(error instanceof SwitchError);
          assert.equal(error.code, 'CONFIGURATION_FILE_INVALID');
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  function bomb(): string {
    const level = (name: string, of: string): string => `${name}: &${name} [${`*${of},`.repeat(9)}]`;
    return ['a0: &a0 [1]', ...Array.from({ length: 9 }, (_, index) => level(`a${index + 1}`, `a${index}`))].join('\n');
  }
});

describe('the whole configuration is refused when', () => {
  const problems = (changed: Partial<Configuration>, within = topology): string =>
    validateConfiguration({ ...sample, ...changed }, within)
      .map(formatProblem)
      .join('\n');
  const orders = (order: string) => ({
    failover_map: sample.failover_map.map((row, index) => (index === 1 ? { ...row, failover_order: order } : row)),
  });

  test('an order misses a node', () => {
    assert.equal(problems(orders('n2>n1>n4')), 'failover_map[1].failover_order: n3 is missing');
  });

  test('an order repeats a node', () => {
    assert.equal(problems(orders('n2>n1>n4>n3>n2')), 'failover_map[1].failover_order: n2 is repeated');
  });

  test('an order names what is not a node, or is garbage', () => {
    assert.match(problems(orders('n2>n1>n4>n3>witness')), /"witness" is not a node/);
    assert.match(problems(orders('>')), /n1 is missing[^]*"" is not a node/);
  });

  test('the topology has a node that the orders do not know', () => {
    const grown = { nodes: [...topology.nodes, { id: nodeId('n5'), site: 'west' }] };
    assert.match(problems({}, grown), /failover_map\[0\]\.failover_order: n5 is missing/);
  });

  test('a range names a group that is not there', () => {
    const [first, ...rest] = sample.pan_range;
    assert.ok(first);
    assert.equal(
      problems({ pan_range: [{ ...first, group_id: groupId('z') }, ...rest] }),
      'pan_range[0].group_id: no group z in failover_map',
    );
  });

  test('there is no catch-all, or a second one, or a prefix twice', () => {
    const without = sample.pan_range.filter(({ prefix }) => prefix !== '');
    assert.equal(problems({ pan_range: without }), "pan_range: no catch-all range (prefix '')");
    const [first] = sample.pan_range;
    const last = sample.pan_range.at(-1);
    assert.ok(first && last);
    assert.match(
      problems({ pan_range: [...sample.pan_range, last] }),
      /^pan_range\[17\]: same prefix as pan_range\[16\]$/,
    );
    assert.match(
      problems({ pan_range: [...sample.pan_range, first] }),
      /^pan_range\[17\]: same prefix as pan_range\[0\]$/,
    );
  });

  test('a limit has no range, or stands twice', () => {
    const [first] = sample.range_limit;
    assert.ok(first);
    assert.equal(
      problems({ range_limit: [{ ...first, prefix: '8' }] }),
      'range_limit[0].prefix: no range has this prefix',
    );
    assert.equal(
      problems({ range_limit: [first, first] }),
      'range_limit[1]: same prefix and currency as range_limit[0]',
    );
  });

  test('a group takes the name of the configuration group', () => {
    const taken = { group_id: groupId('config'), failover_order: 'n1>n2>n3>n4' };
    assert.match(
      problems({ failover_map: [...sample.failover_map, taken] }),
      /config is the configuration's own group/,
    );
  });

  test('there is no rule set, or the one in force cannot be compiled or is not total', () => {
    assert.equal(problems({ rewrite_rule_set: [] }), 'rewrite_rule_set: no rule set');
    const rule = '[{"name":"x","tables":["pan_range"],"set":{"rank":{"now":[]}}}]';
    assert.match(
      problems({ rewrite_rule_set: [ruleSetRow, { version: 2, rules: rule }] }),
      /^rewrite_rule_set\[1\]: rules\[0\]\.set\.rank\.now: unknown operator$/,
    );
    assert.match(
      problems({ rewrite_rule_set: [{ version: 2, rules: '[]' }] }),
      /failover_map\[0\]: rewrite rules: no rank for n1/,
    );
  });

  test('and an older rule set does not matter', () => {
    assert.equal(
      currentRuleSetRow([
        { version: 2, rules: '' },
        { version: 10, rules: '' },
        { version: 9, rules: '' },
      ])?.version,
      10,
    );
    assert.equal(
      problems({
        rewrite_rule_set: [
          { version: 9, rules: ruleSetRow.rules },
          { version: 1, rules: '[]' },
        ],
      }),
      '',
    );
  });
});
