import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { configGroup, nodeId } from '../base/identifiers.ts';
import { changesOf, loadConfigurationFile } from '../config-db/configuration.ts';
import { configurationFold } from '../config-db/configuration-fold.ts';
import { readRuleSetFile } from '../config-db/rule-file.ts';
import { encodeConfigurationChange } from '../config-db/rows.ts';
import type { ConfigurationRowChange } from '../store/entry.ts';
import { noFold } from '../store/group-file.ts';
import { chained, copyFile, editByHand, readByHand, temporaryFolder, writeFile } from '../store/testing.ts';
import { compareSides, differencesOf, nodes, sideOf, summaries, topology, verdict } from './testing.ts';
import type { GroupResult } from './result.ts';
import { tablesOf } from './tables.ts';

describe('the configuration', () => {
  const at = (file: string): URL => new URL(`../config-db/${file}`, import.meta.url);
  const configuration = {
    ...loadConfigurationFile(readFileSync(at('samples/configuration.yaml'), 'utf8'), 'configuration.yaml'),
    rewrite_rule_set: [readRuleSetFile(readFileSync(at('rewrite-rules.yaml'), 'utf8'), 'rewrite-rules.yaml')],
  };
  const entries = chained(configGroup, [
    {
      kind: 'configuration',
      id: 'first',
      checkedAt: 0,
      at: 1_760_000_000_000,
      by: 'sample',
      origin: 'n2',
      changes: changesOf(configuration).map(
        (change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationRowChange,
      ),
    },
    { kind: 'mark', at: 1_760_000_000_000, compare: 'compare-1' },
  ]);

  function configurationFiles(context: TestContext): Record<string, string> {
    const folder = temporaryFolder(context);
    return Object.fromEntries(
      [...nodes, 'w1'].map((node) => {
        const path = join(folder, `${node}.db`);
        writeFile(path, configGroup, entries, node === 'w1' ? noFold : configurationFold(nodeId(node), topology));
        return [node, path];
      }),
    );
  }

  function compareConfiguration(context: TestContext, paths: Readonly<Record<string, string>>): Promise<GroupResult> {
    const sides = Object.entries(paths).map(([node, path]) =>
      sideOf(context, node, path, { group: configGroup, holds: node === 'w1' ? 'log' : 'log-and-fold' }),
    );
    return compareSides(sides, { markIndex: 2, group: configGroup, tables: tablesOf(configGroup), topology });
  }

  test('as every node has rewritten it for itself is equal', async (context) => {
    const paths = configurationFiles(context);
    const ranks = nodes.map((node) =>
      readByHand(paths[node] ?? '', "SELECT rank FROM failover_map WHERE group_id = 'a'"),
    );
    assert.deepEqual(ranks.flat(), [1, 2, 3, 4], 'the rows differ as the rules say');
    const result = await compareConfiguration(context, paths);
    assert.deepEqual(differencesOf(result), []);
    assert.equal(verdict(result), 0);
  });

  // what is done at n3 | what is found
  const cases: readonly (readonly [string, string, readonly string[]])[] = [
    [
      'a derived column',
      "UPDATE failover_map SET action = 'own' WHERE group_id = 'a'",
      ['n3 failover_map group_id=a derived-differs action'],
    ],
    [
      'a derived column emptied',
      "UPDATE pan_range SET derived_by = NULL, rank = 9 WHERE prefix = '990001'",
      ['n3 pan_range prefix=990001 derived-differs rank,derived_by'],
    ],
    [
      'a canonical column',
      "UPDATE pan_range SET hold_days = 300 WHERE prefix = '990001'",
      ['n3 pan_range prefix=990001 columns-differ hold_days'],
    ],
    [
      'an order, from which others derive',
      "UPDATE failover_map SET failover_order = 'n4>n3>n2>n1' WHERE group_id = 'a'",
      ['n3 failover_map group_id=a columns-differ failover_order'],
    ],
    [
      'bookkeeping',
      "UPDATE acquirer_link SET entered_by = 'mallory' WHERE rowid_of_first",
      ['n3 acquirer_link columns-differ entered_by'],
    ],
    ['a removed row', "DELETE FROM pan_range WHERE prefix = ''", ["n3 pan_range prefix='' missing-here"]],
    [
      'an added row',
      "INSERT INTO pan_range SELECT '99', group_id, description, issuer, durability, hold_days, succession, rank, action," +
        ' takeover_after, forward_to, next_owner, site_owner, rule_set_version, derived_by, origin, entered_by,' +
        " entered_at_ms, changed_at_index FROM pan_range WHERE prefix = ''",
      ['n3 pan_range prefix=99 only-here'],
    ],
    ['a rule set', "UPDATE rewrite_rule_set SET rules = 'x'", ['n3 rewrite_rule_set version=1 columns-differ rules']],
  ];
  for (const [name, sql, expected] of cases) {
    test(`changed by hand at n3 is found: ${name}`, async (context) => {
      const paths = configurationFiles(context);
      const first = 'link_id = (SELECT min(link_id) FROM acquirer_link)';
      assert.equal(editByHand(paths['n3'] ?? '', sql.replace('rowid_of_first', first)), 1);
      const result = await compareConfiguration(context, paths);
      assert.deepEqual(
        summaries(result).map((line) => line.replace(/ link_id=\S+/, '')),
        expected,
      );
      assert.equal(verdict(result), 3);
    });
  }

  test('whose rows agree though the rules make them differ is wrong', async (context) => {
    const paths = configurationFiles(context);
    // n3 works by n1's rows: equal bytes, two owners.
    copyFile(paths['n1'] ?? '', paths['n3'] ?? '');
    const result = await compareConfiguration(context, paths);
    const found = summaries(result);
    const rows = configuration.failover_map.length + configuration.pan_range.length;
    assert.equal(found.length, rows);
    assert.ok(found.every((line) => line.startsWith('n3 ') && line.includes('derived-differs')));
    const wrong = differencesOf(result).find(({ key }) => key['group_id'] === 'a');
    assert.ok(wrong?.kind === 'derived-differs');
    assert.deepEqual(wrong.columns[0], { column: 'rank', here: '1', expected: '3' });
  });

  test('whose rules cannot be read is inconclusive, not wrong', async (context) => {
    const paths = configurationFiles(context);
    for (const node of nodes) editByHand(paths[node] ?? '', "UPDATE rewrite_rule_set SET rules = 'x'");
    const result = await compareConfiguration(context, paths);
    assert.deepEqual(differencesOf(result), []);
    assert.equal(verdict(result), 4);
  });
});
