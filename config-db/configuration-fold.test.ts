import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import Database from 'better-sqlite3';

import { configGroup, groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { Pan } from '../base/pan.ts';
import type { ConfigurationEntry, EntryBody } from '../store/entry.ts';
import { GroupFile } from '../store/group-file.ts';
import { changesOf, loadConfigurationFile, type Configuration } from './configuration.ts';
import {
  configurationFold,
  readConfiguration,
  readConfigurationView,
  readDerivedRows,
  readVersions,
} from './configuration-fold.ts';
import { indexOfChange, lastChangeIndex, readHistory } from './configuration-history.ts';
import type { RewriteTopology } from './rewrite.ts';
import { readRuleSetFile } from './rule-file.ts';
import { encodeConfigurationChange, type ConfigurationChange, type RewriteRuleSetRow } from './rows.ts';

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
const ruleSetRow = readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml');
const sample: Configuration = {
  ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
  rewrite_rule_set: [ruleSetRow],
};
const names = ['n1', 'n2', 'n3', 'n4'].map((name) => nodeId(name));
const topology: RewriteTopology = {
  nodes: names.map((id, index) => ({ id, site: index < 2 ? 'east' : 'west' })),
};
const a = groupId('a');

function entry(changes: readonly ConfigurationChange[], more: Partial<ConfigurationEntry> = {}): ConfigurationEntry {
  return {
    kind: 'configuration',
    id: 'change',
    checkedAt: 0,
    at: 1_772_000_000_000,
    by: 'operator',
    origin: 'n2',
    // As it lies in the log: amounts as text.
    changes: changes.map(
      (change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationEntry['changes'][number],
    ),
    ...more,
  };
}

/** config.db of one node, in memory. */
class NodeFold {
  readonly database = new Database(':memory:');
  readonly #apply: (index: number, term: number, entry: EntryBody) => void;
  #index = 0;

  constructor(self: NodeId) {
    const fold = configurationFold(self, topology);
    this.database.exec(
      "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT; INSERT INTO meta VALUES ('applied_index', '0')",
    );
    this.database.exec(fold.schema);
    this.#apply = fold.open(this.database, configGroup);
  }

  /** Every change of the configuration has been checked against what is here. */
  apply(...entries: EntryBody[]): this {
    for (const each of entries) {
      const checkedAt = lastChangeIndex(this.database);
      this.enter(each.kind === 'configuration' ? { ...each, checkedAt } : each);
    }
    return this;
  }

  enter(...entries: EntryBody[]): this {
    for (const each of entries) {
      this.#index += 1;
      this.#apply(this.#index, 1, each);
      this.database.prepare("UPDATE meta SET value = ? WHERE name = 'applied_index'").run(String(this.#index));
    }
    return this;
  }

  derived(table: string, key: string): Readonly<Record<string, string | number | null>> | undefined {
    return readDerivedRows(this.database).find((row) => row.table === table && row.key === key)?.columns;
  }

  row(table: string, key: string, value: string): Record<string, unknown> | undefined {
    return this.database
      .prepare<[string], Record<string, unknown>>(`SELECT * FROM ${table} WHERE ${key} = ?`)
      .get(value);
  }
}

const four = (): NodeFold[] => names.map((name) => new NodeFold(name));
const seeded = (...entries: EntryBody[]): NodeFold[] =>
  four().map((node) => node.apply(entry(changesOf(sample)), ...entries));

const putOrder = (failover_order: string): ConfigurationChange => ({
  table: 'failover_map',
  operation: 'put',
  row: { group_id: a, failover_order },
});

describe('the same entry on four nodes', () => {
  test('has one canonical form, byte for byte what was entered', () => {
    for (const { database } of seeded()) {
      const stored = readConfiguration(database);
      for (const [table, rows] of Object.entries(sample)) {
        const text = (each: object): string =>
          JSON.stringify(each, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value));
        const found = stored[table as keyof Configuration].map(text).sort();
        assert.deepEqual(found, (rows as readonly object[]).map(text).sort(), table);
      }
    }
  });
  test('has the derived columns that the rules say for each: rank, action, who fails over to whom', () => {
    const expected = [
      { rank: 1, action: 'own', takeover_after: '', forward_to: 'n2>n3>n4', next_owner: 'n2', site_owner: 'n1' },
      { rank: 2, action: 'standby', takeover_after: 'n1', forward_to: 'n1>n3>n4', next_owner: 'n3', site_owner: 'n1' },
      {
        rank: 3,
        action: 'standby',
        takeover_after: 'n1>n2',
        forward_to: 'n1>n4>n2',
        next_owner: 'n4',
        site_owner: 'n3',
      },
      {
        rank: 4,
        action: 'standby',
        takeover_after: 'n1>n2>n3',
        forward_to: 'n1>n3>n2',
        next_owner: '',
        site_owner: 'n3',
      },
    ];
    const nodes = seeded();
    for (const [at, node] of nodes.entries()) {
      for (const [table, key] of [
        ['failover_map', 'a'],
        ['pan_range', '990001'],
      ] as const) {
        const { rule_set_version, derived_by, ...columns } = node.derived(table, key) ?? {};
        assert.deepEqual(columns, { succession: 'n1>n2>n3>n4', ...expected[at] }, `${names[at] ?? ''} ${table}`);
        assert.equal(rule_set_version, 1);
        assert.match(String(derived_by), /^under-maintenance-left-out,rank-by-order,/);
      }
    }
    const ofGroupD = nodes.map((node) => node.derived('failover_map', 'd')?.['rank']);
    assert.deepEqual(ofGroupD, [4, 3, 2, 1]);
  });
  test('says who entered it, where, when and at which index', () => {
    for (const node of seeded(entry([putOrder('n2>n1>n3>n4')], { by: 'somebody', origin: 'n3', at: 5 }))) {
      const row = node.row('failover_map', 'group_id', 'a');
      assert.deepEqual(
        [row?.['entered_by'], row?.['origin'], row?.['entered_at_ms'], row?.['changed_at_index']],
        ['somebody', 'n3', 5, 2],
      );
      assert.equal(node.row('failover_map', 'group_id', 'b')?.['changed_at_index'], 1);
    }
  });
});

describe('derived columns are made anew', () => {
  test('for the group and all its ranges when its order changes, and for no other group', () => {
    const before = seeded();
    const after = seeded(entry([putOrder('n4>n3>n2>n1')]));
    for (const [at, node] of after.entries()) {
      assert.equal(node.derived('failover_map', 'a')?.['rank'], 4 - at);
      assert.equal(node.derived('pan_range', '990001')?.['action'], at === 3 ? 'own' : 'standby');
      assert.deepEqual(node.derived('pan_range', '990002'), before[at]?.derived('pan_range', '990002'));
    }
  });
  test('for a range that moves to another group', () => {
    const range = sample.pan_range.find(({ prefix }) => prefix === '990001');
    assert.ok(range !== undefined);
    const moved = entry([{ table: 'pan_range', operation: 'put', row: { ...range, group_id: groupId('d') } }]);
    const ranks = seeded(moved).map((node) => node.derived('pan_range', '990001')?.['rank']);
    assert.deepEqual(ranks, [4, 3, 2, 1]);
  });
  test('for every row when the rules change, and the version stands with them', () => {
    const rules = JSON.parse(ruleSetRow.rules) as { name: string }[];
    const renamed = rules.map((rule) => ({ ...rule, name: `${rule.name}-2` }));
    const next: RewriteRuleSetRow = { version: 2, rules: JSON.stringify(renamed) };
    const older: RewriteRuleSetRow = { version: 1, rules: ruleSetRow.rules };
    for (const node of seeded(
      entry([{ table: 'rewrite_rule_set', operation: 'put', row: next }]),
      entry([{ table: 'rewrite_rule_set', operation: 'put', row: older }]),
    )) {
      for (const { columns } of readDerivedRows(node.database)) {
        assert.equal(columns['rule_set_version'], 2, 'the highest version is in force');
        assert.match(String(columns['derived_by']), /-2/);
      }
    }
  });
  test('whether the rules come before, with or after the rows', () => {
    const changes = changesOf(sample);
    const rows = entry(changes.filter(({ table }) => table !== 'rewrite_rule_set'));
    const rules = entry(changes.filter(({ table }) => table === 'rewrite_rule_set'));
    for (const [at, name] of names.entries()) {
      const together = readDerivedRows(seeded()[at]?.database ?? new Database(':memory:'));
      for (const order of [
        [rows, rules],
        [rules, rows],
      ]) {
        assert.deepEqual(readDerivedRows(new NodeFold(name).apply(...order).database), together);
      }
    }
  });
  test('not of ranges by a change of limits or links', () => {
    const successions = ({ database }: NodeFold) =>
      readDerivedRows(database).filter(({ table }) => table !== 'range_limit');
    for (const node of seeded()) {
      const before = successions(node);
      node.apply(
        entry([
          {
            table: 'range_limit',
            operation: 'put',
            row: {
              prefix: '990001',
              currency: '840',
              transaction_maximum_minor: 1n,
              daily_maximum_minor: null,
              daily_maximum_count: null,
              stand_in_floor_minor: 1n,
              stand_in_card_count: 1,
              stand_in_card_minor: 1n,
            },
          },
        ]),
      );
      assert.deepEqual(successions(node), before);
    }
  });
  test('for every group when a node goes under maintenance, and again when it comes back', () => {
    const state = (of: 'maintenance' | 'in-service') =>
      entry([{ table: 'node_state', operation: 'put', row: { node_id: 'n1', state: of, reason: '' } }]);
    const before = readDerivedRows(seeded()[2]?.database ?? new Database(':memory:'));
    for (const [at, node] of seeded(state('maintenance')).entries()) {
      const { rank, action, succession } = node.derived('failover_map', 'a') ?? {};
      assert.deepEqual([rank, succession], [at, 'n2>n3>n4']);
      assert.equal(action, ['out', 'own', 'standby', 'standby'][at]);
      const view = readConfigurationView(node.database);
      assert.deepEqual(view?.orders.get(a), ['n2', 'n3', 'n4']);
      assert.equal(view.rankIn(a), at === 0 ? undefined : at);
    }
    const [, , third] = seeded(state('maintenance'), state('in-service'));
    assert.deepEqual(readDerivedRows(third?.database ?? new Database(':memory:')), before);
  });
  test('for limits: both values, of which the one for the duty at hand is used when deciding', () => {
    for (const node of seeded()) {
      const view = readConfigurationView(node.database);
      const [limit] = sample.range_limit;
      assert.ok(view !== undefined && limit !== undefined && limit.transaction_maximum_minor !== null);
      const most = (as: 'own' | 'standby') => view.limits(limit.prefix, limit.currency, as)?.transaction_maximum_minor;
      assert.equal(most('own'), limit.transaction_maximum_minor);
      assert.equal(most('standby'), limit.transaction_maximum_minor / 2n);
    }
    assert.deepEqual(
      seeded().map((node) => readConfigurationView(node.database)?.dutyIn(a)),
      ['own', 'standby', 'standby', 'standby'],
    );
  });
});

describe('a change', () => {
  test('replaces the whole row, and the largest amount and an empty one stand as they are', () => {
    const limit = {
      prefix: '990001',
      currency: '978',
      transaction_maximum_minor: 999_999_999_999n,
      daily_maximum_minor: null,
      daily_maximum_count: 0,
      stand_in_floor_minor: 2_500n,
      stand_in_card_count: 3,
      stand_in_card_minor: null,
    };
    const [node] = seeded(entry([{ table: 'range_limit', operation: 'put', row: limit }]));
    const find = () =>
      readConfiguration(node?.database ?? new Database(':memory:')).range_limit.find(
        ({ prefix, currency }) => prefix === '990001' && currency === '978',
      );
    assert.deepEqual(find(), limit);
    const next = { ...limit, transaction_maximum_minor: null };
    node?.apply(entry([{ table: 'range_limit', operation: 'put', row: next }]));
    assert.deepEqual(find(), next);
  });
  test('that deletes takes its row only, by the whole key', () => {
    for (const node of seeded(
      entry([
        { table: 'pan_range', operation: 'delete', key: { prefix: '990001' } },
        { table: 'acquirer_link', operation: 'delete', key: { link_id: sample.acquirer_link[0]?.link_id ?? '' } },
      ]),
    )) {
      const stored = readConfiguration(node.database);
      assert.equal(stored.pan_range.length, sample.pan_range.length - 1);
      assert.equal(stored.acquirer_link.length, sample.acquirer_link.length - 1);
      assert.equal(node.derived('pan_range', '990001'), undefined);
      assert.equal(node.derived('pan_range', '990002')?.['rule_set_version'], 1);
    }
  });
  test('of one limit of a range leaves its other currencies', () => {
    const [first] = sample.range_limit;
    assert.ok(first !== undefined);
    const key = { prefix: first.prefix, currency: first.currency };
    const [node] = seeded(entry([{ table: 'range_limit', operation: 'delete', key }]));
    const left = readConfiguration(node?.database ?? new Database(':memory:')).range_limit;
    assert.equal(left.length, sample.range_limit.length - 1);
    assert.ok(!left.some(({ prefix, currency }) => prefix === key.prefix && currency === key.currency));
  });
  test('of what is not there deletes nothing', () => {
    const [node] = seeded(entry([{ table: 'pan_range', operation: 'delete', key: { prefix: '123' } }]));
    assert.equal(
      readConfiguration(node?.database ?? new Database(':memory:')).pan_range.length,
      sample.pan_range.length,
    );
  });
  test('of another kind than configuration is a broken invariant', () => {
    const node = new NodeFold(nodeId('n1'));
    node.apply({ kind: 'no-op', leader: 'n1', term: 1 }, { kind: 'mark', at: 1, compare: 'x' });
    assert.throws(() => node.apply({ kind: 'expiry', at: 1, holds: [] }), /broken invariant/);
  });
});

test("the fold works inside a group's file", () => {
  const file = GroupFile.open(':memory:', configGroup, 'quadrant', configurationFold(nodeId('n1'), topology));
  assert.equal(file.applied, 0);
  file.close();
});

describe('the view', () => {
  const pan = (digits: string): Pan => {
    const parsed = Pan.parse(digits);
    assert.ok(parsed !== undefined);
    return parsed;
  };
  const viewOf = (node: NodeFold | undefined) => readConfigurationView(node?.database ?? new Database(':memory:'));

  test('is not there before a configuration was entered', () => {
    assert.equal(viewOf(new NodeFold(nodeId('n1'))), undefined);
  });
  test('gives each node its own rank and all nodes the same routes', () => {
    for (const [at, node] of seeded().entries()) {
      const view = viewOf(node);
      assert.equal(view?.rankIn(a), at + 1);
      assert.equal(view.rankIn(groupId('zz')), undefined);
      assert.equal(view.index, 1);
      assert.deepEqual(view.orders.get(a), ['n1', 'n2', 'n3', 'n4']);
      assert.equal(view.rangeOf(pan('9900010000000019')).group_id, 'a');
      assert.equal(view.rangeOf(pan('9900015000000019')).prefix, '99000150', 'the longest prefix wins');
      assert.equal(view.rangeOf(pan('1234567890123')).prefix, '');
    }
  });
  test('gives limits by range and currency, links by name, and nothing for what is not there', () => {
    const view = viewOf(seeded()[0]);
    for (const row of sample.range_limit) assert.deepEqual(view?.limits(row.prefix, row.currency, 'own'), row);
    for (const row of sample.acquirer_link) assert.deepEqual(view?.link(row.link_id), row);
    assert.equal(view?.limits('990001', '000', 'own'), undefined);
    assert.equal(view?.link('nobody'), undefined);
  });
  test('does not change when the fold does: a new one is made', () => {
    const [node] = seeded();
    const before = viewOf(node);
    node?.apply(entry([putOrder('n4>n3>n2>n1')]));
    assert.equal(before?.rankIn(a), 1);
    assert.equal(viewOf(node)?.rankIn(a), 4);
    assert.equal(viewOf(node)?.index, 2);
  });
});

describe('history', () => {
  const changed = (by: string, failover_order: string) => entry([putOrder(failover_order)], { by, id: `of-${by}` });

  test('has each change of a row, before and after, who, where and when, under which rules, on every node alike', () => {
    const nodes = seeded(changed('alice', 'n2>n1>n3>n4'), changed('bob', 'n4>n3>n2>n1'));
    const [first] = nodes.map(({ database }) =>
      readHistory(database, { table: 'failover_map', key: 'a', from: 0, limit: 9 }),
    );
    assert.ok(first !== undefined);
    assert.deepEqual(
      first.map(({ by, index, change, ruleSetVersion }) => [by, index, change, ruleSetVersion]),
      [
        ['bob', 3, 'of-bob', 1],
        ['alice', 2, 'of-alice', 1],
        ['operator', 1, 'change', 1],
      ],
    );
    assert.equal(first[0]?.before, first[1]?.after);
    assert.equal(first[2]?.before, null);
    assert.match(first[0]?.after ?? '', /n4>n3>n2>n1/);
    for (const { database } of nodes) {
      assert.deepEqual(readHistory(database, { table: 'failover_map', key: 'a', from: 0, limit: 9 }), first);
    }
  });
  test('knows a change by its id, and a row by its version', () => {
    const [node] = seeded(changed('alice', 'n2>n1>n3>n4'));
    assert.ok(node !== undefined);
    assert.equal(indexOfChange(node.database, 'of-alice'), 2);
    assert.equal(indexOfChange(node.database, 'of-nobody'), undefined);
    const { versionOf } = readVersions(node.database);
    assert.deepEqual(versionOf('failover_map', 'a'), { version: 2, by: 'alice', origin: 'n2', at: 1_772_000_000_000 });
    assert.equal(versionOf('failover_map', 'b')?.version, 1);
    assert.equal(versionOf('failover_map', 'zz'), undefined);
  });
});

test('a change that was checked against another configuration than is here has no effect', () => {
  for (const node of seeded()) {
    const mine = entry([putOrder('n4>n3>n2>n1')], { checkedAt: 1, id: 'mine' });
    const other = entry([putOrder('n2>n1>n3>n4')], { checkedAt: 1, id: 'other' });
    node.enter(other, mine);
    assert.equal(node.row('failover_map', 'group_id', 'a')?.['failover_order'], 'n2>n1>n3>n4');
    assert.deepEqual([indexOfChange(node.database, 'mine'), indexOfChange(node.database, 'other')], [undefined, 2]);
    node.enter(entry([putOrder('n4>n3>n2>n1')], { checkedAt: 2, id: 'mine' }));
    assert.equal(node.row('failover_map', 'group_id', 'a')?.['failover_order'], 'n4>n3>n2>n1');
  }
});
