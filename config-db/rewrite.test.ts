import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { SwitchError } from '../base/errors.ts';
import { groupId, nodeId } from '../base/identifiers.ts';
import {
  checkRuleSet,
  compileRuleSet,
  compileRuleSetRow,
  derive,
  derivedColumnsOf,
  type DerivedTable,
  type JoinedPanRangeRow,
  type RewriteTopology,
  type RuleSet,
} from './rewrite.ts';
import { readRuleSetFile } from './rule-file.ts';
import type { FailoverMapRow, PanRangeRow } from './rows.ts';

const rulesText = readFileSync(new URL('rewrite-rules.yaml', import.meta.url), 'utf8');
const shipped = compileRuleSetRow(readRuleSetFile(rulesText, 'rewrite-rules.yaml'));

const topology: RewriteTopology = {
  nodes: [
    { id: nodeId('n1'), site: 'east' },
    { id: nodeId('n2'), site: 'east' },
    { id: nodeId('n3'), site: 'west' },
    { id: nodeId('n4'), site: 'west' },
  ],
};

function mapRow(failover_order: string): FailoverMapRow {
  return { group_id: groupId('a'), failover_order };
}

const rangeRow: PanRangeRow = {
  prefix: '990001',
  group_id: groupId('a'),
  description: 'debit',
  issuer: 'Harbour',
  durability: 'quorum',
  hold_days: 7,
};

function deriveMap(ruleSet: RuleSet, order: string, target: string, origin = 'n1', within = topology) {
  return derive(ruleSet, 'failover_map', mapRow(order), {
    origin: nodeId(origin),
    target: nodeId(target),
    topology: within,
  });
}

describe('the shipped rules', () => {
  // order | node | rank | action | takeover_after | forward_to | next_owner | site_owner
  const cases = `
    n1>n2>n3>n4 | n1 | 1 | own     |          | n2>n3>n4 | n2 | n1
    n1>n2>n3>n4 | n2 | 2 | standby | n1       | n1>n3>n4 | n3 | n1
    n1>n2>n3>n4 | n3 | 3 | standby | n1>n2    | n1>n4>n2 | n4 | n3
    n1>n2>n3>n4 | n4 | 4 | standby | n1>n2>n3 | n1>n3>n2 |    | n3
    n3>n4>n1>n2 | n1 | 3 | standby | n3>n4    | n3>n2>n4 | n2 | n1
    n3>n4>n1>n2 | n3 | 1 | own     |          | n4>n1>n2 | n4 | n3
    n4>n3>n2>n1 | n3 | 2 | standby | n4       | n4>n2>n1 | n2 | n4
    n4>n3>n2>n1 | n2 | 3 | standby | n4>n3    | n4>n1>n3 | n1 | n2`;
  for (const line of cases.trim().split('\n')) {
    const [order = '', node = '', rank, action, takeover_after, forward_to, next_owner, site_owner] = line
      .split('|')
      .map((cell) => cell.trim());
    test(`derive at ${node} from order ${order}: rank ${String(rank)}, ${String(action)}`, () => {
      const expected = {
        succession: order,
        rank: Number(rank),
        action,
        takeover_after,
        forward_to,
        next_owner,
        site_owner,
      };
      const { columns, ruleOf } = deriveMap(shipped, order, node);
      const { rule_set_version, derived_by, ...derived } = columns;
      assert.deepEqual(derived, expected);
      assert.equal(rule_set_version, 1);
      const actionRule = action === 'own' ? 'first-owns' : 'others-stand-by';
      assert.equal(
        derived_by,
        `under-maintenance-left-out,rank-by-order,${actionRule},takeover-in-order,forward-nearest-first,first-of-own-site`,
      );
      assert.equal(ruleOf['action'], actionRule);
      assert.deepEqual(Object.keys(ruleOf).sort(), [...derivedColumnsOf('failover_map')].sort());
      const joined = { ...rangeRow, failover_order: order };
      const context = { origin: nodeId('n4'), target: nodeId(node), topology };
      assert.deepEqual(derive(shipped, 'pan_range', joined, context), { columns, ruleOf }, 'a range follows its group');
    });
  }

  test('are total for the four nodes', () => {
    const rows = { failover_map: [mapRow('n1>n2>n3>n4')], pan_range: [rangeRow] };
    assert.deepEqual(checkRuleSet(shipped, topology, rows), []);
  });

  test('survive the way through a row of JSON text unchanged', () => {
    const row = readRuleSetFile(rulesText, 'rewrite-rules.yaml');
    assert.equal(readRuleSetFile(rulesText, 'again').rules, row.rules);
    assert.equal(row.version, compileRuleSetRow(row).version);
  });
});

const anyTopology = fc
  .record({ size: fc.integer({ min: 1, max: 20 }), sites: fc.integer({ min: 1, max: 4 }) })
  .chain(({ size, sites }) => {
    const nodes = Array.from({ length: size }, (_, index) => ({
      id: nodeId(`n${index + 1}`),
      site: `s${index % sites}`,
    }));
    const order = fc.shuffledSubarray(
      nodes.map(({ id }) => id),
      { minLength: size, maxLength: size },
    );
    return fc.record({ topology: fc.constant({ nodes }), order });
  });

describe('for any topology and any order', () => {
  test('ranks are 1 to n, one node owns, and before + self + after is the order', () => {
    fc.assert(
      fc.property(anyTopology, ({ topology: within, order }) => {
        const text = order.join('>');
        const derived = within.nodes.map(({ id }) => ({
          id,
          columns: deriveMap(shipped, text, id, id, within).columns,
        }));
        const ranks = derived.map(({ columns }) => columns['rank']);
        assert.deepEqual(
          [...ranks].sort((one, other) => Number(one) - Number(other)),
          within.nodes.map((_, at) => at + 1),
        );
        assert.deepEqual(
          derived.filter(({ columns }) => columns['action'] === 'own').map(({ id }) => id),
          [order[0]],
        );
        for (const { id, columns } of derived) {
          const before = split(columns['takeover_after']);
          const after = order.slice(before.length + 1);
          assert.deepEqual([...before, id, ...after], order);
          assert.equal(columns['succession'], text);
          const others = order.filter((node) => node !== id);
          const siteOf = (node: string) => within.nodes.find((each) => each.id === node)?.site;
          const near = others.filter((node) => siteOf(node) === siteOf(id) && node !== order[0]);
          const far = others.filter((node) => siteOf(node) !== siteOf(id) && node !== order[0]);
          const owner = others.filter((node) => node === order[0]);
          assert.deepEqual(split(columns['forward_to']), [...owner, ...near, ...far]);
          assert.equal(columns['next_owner'], after[0] ?? '');
          const site = within.nodes.find((node) => node.id === id)?.site;
          const local = order.filter((node) => within.nodes.find((each) => each.id === node)?.site === site);
          assert.equal(columns['site_owner'], local[0]);
        }
        assert.deepEqual(checkRuleSet(shipped, within, { failover_map: [mapRow(text)], pan_range: [] }), []);
      }),
    );
  });

  test('deriving never throws, whatever stands in the row and whoever asks', () => {
    const id = fc.constantFrom('n1', 'n2', 'n9', 'gone').map(nodeId);
    fc.assert(
      fc.property(fc.string(), fc.string(), id, id, (order, description, origin, target) => {
        const context = { origin, target, topology };
        deriveMap(shipped, order, target, origin);
        derive(shipped, 'pan_range', { ...rangeRow, description, failover_order: order }, context);
        checkRuleSet(shipped, topology, { failover_map: [mapRow(order)], pan_range: [rangeRow] });
      }),
    );
  });

  test('an order that misses a node is never found total', () => {
    const orders = fc.array(fc.constantFrom<string>('n1', 'n2', 'n3', 'n4', 'n5'), { maxLength: 6 });
    fc.assert(
      fc.property(orders, (order) => {
        const missing = topology.nodes.some(({ id }) => !order.includes(id));
        fc.pre(missing);
        const rows = { failover_map: [mapRow(order.join('>'))], pan_range: [] };
        assert.notDeepEqual(checkRuleSet(shipped, topology, rows), []);
      }),
    );
  });
});

function split(text: string | number | null | undefined): string[] {
  return text === '' || typeof text !== 'string' ? [] : text.split('>');
}

/** A rule set that is total, with rules put before the shipped ones. */
function withRules(...rules: object[]): RuleSet {
  const row = readRuleSetFile(rulesText, 'rewrite-rules.yaml');
  return compileRuleSet({ version: 7, rules: [...rules, ...(JSON.parse(row.rules) as object[])] });
}

describe('the language', () => {
  const both: DerivedTable[] = ['failover_map', 'pan_range'];
  const evaluations: [expression: unknown, column: string, expected: unknown][] = [
    [{ position: ['target.id', 'topology.nodes'] }, 'rank', 3],
    [{ before: ['target.id', 'row.failover_order'] }, 'forward_to', 'n4'],
    [{ after: ['target.id', 'row.failover_order'] }, 'forward_to', 'n2>n1'],
    [{ without: [{ without: ['row.failover_order', 'target.id'] }, { text: 'n1' }] }, 'forward_to', 'n4>n2'],
    [{ at_site: ['row.failover_order', 'origin.site'] }, 'forward_to', 'n2>n1'],
    [{ first: { after: [{ text: 'n1' }, 'row.failover_order'] } }, 'next_owner', ''],
    ['origin.id', 'next_owner', 'n1'],
    ['row.group_id', 'next_owner', 'a'],
    [42, 'rank', 42],
  ];
  for (const [expression, column, expected] of evaluations) {
    test(`${JSON.stringify(expression)} gives ${JSON.stringify(expected)} at n3 for n4>n3>n2>n1 entered at n1`, () => {
      const ruleSet = withRules({ name: 'tried', tables: both, set: { [column]: expression } });
      const derived = deriveMap(ruleSet, 'n4>n3>n2>n1', 'n3');
      assert.equal(derived.columns[column], expected);
      assert.equal(derived.ruleOf[column], 'tried');
    });
  }

  const conditions: [condition: unknown, holds: boolean][] = [
    [true, true],
    [{ equals: ['target.site', { text: 'west' }] }, true],
    [{ equals: [{ position: ['target.id', 'row.failover_order'] }, 1] }, false],
    [{ equals: ['row.failover_order', 'topology.nodes'] }, false],
    [{ same_site: ['target.id', 'origin.id'] }, false],
    [{ same_site: ['target.id', { text: 'n4' }] }, true],
    [{ same_site: [{ text: 'gone' }, 'target.id'] }, false],
    [{ not: { same_site: [{ text: 'gone' }, 'target.id'] } }, false],
    [{ contains: ['topology.nodes', 'target.id'] }, true],
    [{ not: { contains: ['topology.nodes', 'target.id'] } }, false],
    [{ all: [true, { not: false }] }, true],
    [{ all: [true, false] }, false],
    [{ any: [false, true] }, true],
    [{ any: [false] }, false],
  ];
  for (const [when, holds] of conditions) {
    test(`the condition ${JSON.stringify(when)} ${holds ? 'holds' : 'does not hold'}`, () => {
      const ruleSet = withRules({ name: 'tried', tables: both, when, set: { next_owner: { text: 'tried' } } });
      const derived = deriveMap(ruleSet, 'n4>n3>n2>n1', 'n3');
      assert.equal(derived.columns['next_owner'], holds ? 'tried' : 'n2');
      assert.equal(String(derived.columns['derived_by']).startsWith('tried,'), holds);
    });
  }

  test('the first rule that applies sets a column, a later one only what is left', () => {
    const ruleSet = withRules(
      { name: 'west-first', tables: both, when: { equals: ['target.site', { text: 'west' }] }, set: { rank: 9 } },
      { name: 'never', tables: both, when: false, set: { rank: 8 } },
    );
    assert.equal(deriveMap(ruleSet, 'n1>n2>n3>n4', 'n3').ruleOf['rank'], 'west-first');
    assert.equal(deriveMap(ruleSet, 'n1>n2>n3>n4', 'n1').ruleOf['rank'], 'rank-by-order');
  });
});

describe('a rule set is refused with the path when', () => {
  const rule = (set: unknown, more: object = {}) => ({
    version: 1,
    rules: [{ name: 'tried', tables: ['failover_map'], set, ...more }],
  });
  let deep: unknown = true;
  for (let depth = 0; depth < 9; depth++) deep = { not: deep };
  const wide = { any: Array.from({ length: 2_001 }, () => true) };
  const cyclic: { not?: unknown } = {};
  cyclic.not = cyclic;
  const refused: [name: string, content: unknown, message: RegExp][] = [
    ['an operator is unknown', rule({ rank: { now: [] } }), /^rules\[0\]\.set\.rank\.now: unknown operator$/],
    ['it reads the clock', rule({ rank: 'clock.now' }), /rules\[0\]\.set\.rank: unknown reference: clock\.now/],
    ['it reaches for a prototype', rule({ rank: { constructor: [] } }), /rank\.constructor: unknown operator/],
    ['it reaches for a prototype by reference', rule({ rank: 'row.constructor' }), /unknown column of the row/],
    ['a column of the row is unknown', rule({ next_owner: 'row.prefix' }), /unknown column of the row: prefix/],
    ['a derived column is unknown', rule({ owner: 'target.id' }), /set\.owner: unknown derived column/],
    ['a type is wrong', rule({ rank: 'target.id' }), /set\.rank: expected number, this is text/],
    [
      'an argument has the wrong type',
      rule({ next_owner: { first: ['target.id'] } }),
      /first\[0\]: expected order, this is text/,
    ],
    ['types are compared that differ', rule({}, { when: { equals: ['target.id', 1] } }), /equals\[1\]: expected text/],
    [
      'an argument is missing',
      rule({ rank: { position: ['target.id'] } }),
      /position: expected arguments: text, order/,
    ],
    ['there are no arguments', rule({}, { when: { all: [] } }), /all: expected at least one argument/],
    [
      'two operators stand in one place',
      rule({}, { when: { not: true, any: [true] } }),
      /expected exactly one operator/,
    ],
    ['a number is not an integer', rule({ rank: 1.5 }), /expected an integer/],
    ['null stands for an expression', rule({ rank: null }), /set\.rank: expected a reference/],
    ['a text literal is no text', rule({ action: { text: 1 } }), /action\.text: expected a literal text/],
    ['it nests too deep', rule({}, { when: deep }), /nested deeper than 8/],
    ['it contains itself', rule({}, { when: cyclic }), /nested deeper than 8/],
    ['it is too large', rule({}, { when: wide }), /more than 2000 expressions/],
    ['a key is unknown', rule({}, { unless: true }), /^rules\[0\]\.unless: unknown key$/],
    ['a table is unknown', rule({}, { tables: ['cards'] }), /^rules\[0\]\.tables\[0\]: invalid option/],
    ['a name has a comma', rule({}, { name: 'one,two' }), /^rules\[0\]\.name: expected lower-case/],
    [
      'two rules have one name',
      { version: 1, rules: [...rule({}).rules, ...rule({}).rules] },
      /^rules\[1\]\.name: another rule/,
    ],
    ['the version is missing', { rules: [] }, /^version: /],
    ['it is no object', [], /expected object/],
  ];
  for (const [name, content, message] of refused) {
    test(name, () => {
      assert.throws(() => compileRuleSet(content), refusal(message));
    });
  }

  test('a row holds no JSON', () => {
    assert.throws(() => compileRuleSetRow({ version: 1, rules: '[' }), refusal(/not JSON/));
  });

  test('a file has an unknown key, an alias to itself, or is no YAML, and the line is told', () => {
    assert.throws(
      () => readRuleSetFile('version: 1\nrules: []\nclock: now\n', 'r.yaml'),
      refusal(/^r\.yaml:3: clock: unknown key$/),
    );
    assert.throws(() => readRuleSetFile('version: [1\n', 'r.yaml'), refusal(/^r\.yaml:\d: not valid YAML/));
    const looped = 'version: 1\nrules:\n  - { name: x, tables: [pan_range], set: {}, when: &loop { not: *loop } }\n';
    assert.throws(() => readRuleSetFile(looped, 'r.yaml'), refusal(/nested deeper|not valid YAML/));
  });

  function refusal(message: RegExp) {
    return (error: unknown): boolean => {
      assert.ok(error instanceof SwitchError);
      assert.equal(error.code, 'REWRITE_RULES_INVALID');
      assert.match(error.message, message);
      return true;
    };
  }
});

describe('a rule set is not total when', () => {
  const rows = { failover_map: [mapRow('n1>n2>n3>n4')], pan_range: [rangeRow] };
  const both: DerivedTable[] = ['failover_map', 'pan_range'];
  const find = (ruleSet: RuleSet): string =>
    checkRuleSet(ruleSet, topology, rows)
      .map(({ message }) => message)
      .join('; ');

  test('a column stays unset at some node', () => {
    const document = JSON.parse(readRuleSetFile(rulesText, 'r').rules) as { name: string }[];
    const ruleSet = compileRuleSet({ version: 1, rules: document.filter(({ name }) => name !== 'others-stand-by') });
    assert.match(find(ruleSet), /no action for n2.*no action for n3.*no action for n4/);
    assert.equal(checkRuleSet(ruleSet, topology, rows)[0]?.path, 'failover_map[0]');
  });

  test('no node owns', () => {
    assert.match(find(withRules({ name: 'idle', tables: both, set: { action: { text: 'standby' } } })), /no node owns/);
  });

  test('two nodes own', () => {
    const when = { equals: ['target.id', { text: 'n2' }] };
    assert.match(
      find(withRules({ name: 'too', tables: both, when, set: { action: { text: 'own' } } })),
      /n1 and n2 own/,
    );
  });

  test('two nodes have one rank', () => {
    assert.match(find(withRules({ name: 'flat', tables: both, set: { rank: 1 } })), /ranks are 1, 1, 1, 1/);
  });

  test('an action is unknown', () => {
    assert.match(
      find(withRules({ name: 'odd', tables: both, set: { action: { text: 'rest' } } })),
      /neither own nor standby/,
    );
  });

  test('the owner is not first', () => {
    const last = { equals: ['target.id', { text: 'n4' }] };
    const ruleSet = withRules(
      { name: 'last', tables: both, when: last, set: { action: { text: 'own' } } },
      { name: 'rest', tables: both, set: { action: { text: 'standby' } } },
    );
    assert.match(find(ruleSet), /not the node of rank 1/);
  });

  test('it fails for rows entered at one node only', () => {
    const when = { all: [{ equals: ['origin.id', { text: 'n3' }] }] };
    const ruleSet = withRules({ name: 'odd', tables: both, when, set: { action: { text: 'own' } } });
    assert.match(find(ruleSet), /own of a row entered at n3/);
  });

  test('a range names a group that is not there', () => {
    const problems = checkRuleSet(shipped, topology, { failover_map: [], pan_range: [rangeRow] });
    assert.equal(problems[0]?.path, 'pan_range[0]');
  });

  test('and many faults are cut to a list that can be read', () => {
    const many: JoinedPanRangeRow[] = Array.from({ length: 1_000 }, () => ({ ...rangeRow, failover_order: '' }));
    assert.equal(checkRuleSet(shipped, topology, { failover_map: [], pan_range: many }).length, 20);
  });
});
