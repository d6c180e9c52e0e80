import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { SwitchError } from '../base/errors.ts';
import { groupId, nodeId } from '../base/identifiers.ts';
import { readRuleFile } from './rule-file.ts';

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), 'utf8');
const shipped = read('rewrite-rules.yaml');
const topology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, at) => ({ id: nodeId(id), site: at < 2 ? 'east' : 'west' })),
};
const rows = { failover_map: [{ group_id: groupId('a'), failover_order: 'n1>n3>n2>n4' }], pan_range: [] };

/** The file's line on which a text stands first. */
const lineOf = (file: string, text: string): number => file.slice(0, file.indexOf(text)).split('\n').length;

function refusal(file: string, check: (rules: ReturnType<typeof readRuleFile>) => void = () => undefined): string {
  try {
    check(readRuleFile(file, 'r.yaml'));
  } catch (error) {
    assert.ok(error instanceof SwitchError && error.code === 'REWRITE_RULES_INVALID');
    return error.message;
  }
  return '';
}

describe('a file of rewrite rules', () => {
  for (const name of ['rewrite-rules.yaml', 'samples/same-site-first.yaml']) {
    test(`passes its own tests and is total: ${name}`, () => {
      const { tests, checkAgainst } = readRuleFile(read(name), name);
      assert.ok(tests >= 2);
      checkAgainst(rows, topology);
    });
  }
  test('is refused when a test comes out otherwise, with the line of the test', () => {
    const wrong = shipped.replace('{ rank: 3, takeover_after: n2>n3', '{ rank: 2, takeover_after: n2>n3');
    const message = refusal(wrong);
    assert.match(message, /tests\[1\]\.expect\.n4\.rank: expected 2, the rules come to 3$/);
    assert.ok(message.startsWith(`r.yaml:${lineOf(wrong, '{ rank: 2, takeover_after')}:`), message);
  });
  test('that reads the clock is refused with the line', () => {
    const wrong = shipped.replace('action: { text: own }', 'action: clock.now');
    const message = refusal(wrong);
    assert.ok(message.startsWith(`r.yaml:${lineOf(wrong, 'clock.now')}: `), message);
    assert.match(message, /unknown reference: clock\.now .*rules read no clock/);
  });
  test('with an expression without end is refused', () => {
    const endless =
      'version: 1\nrules:\n  - name: x\n    tables: [failover_map]\n    when: &a { not: *a }\n    set: { rank: 1 }\n';
    assert.match(refusal(endless), /^r\.yaml:\d+: .*nested deeper than 8|not valid YAML/);
  });
  test('that leaves out a node, or gives nobody the cards, is refused with the line of the rule', () => {
    const total = (file: string) =>
      refusal(file, ({ checkAgainst }) => {
        checkAgainst(rows, topology);
      });
    const withoutTests = shipped.slice(0, shipped.indexOf('\ntests:'));
    const noOwner = withoutTests.replace('action: { text: own }', 'action: { text: standby }');
    assert.match(
      total(noOwner),
      /^r\.yaml:\d+: rules\[\d+\]\.set\.action: failover_map\[0\]: rewrite rules: no node owns/,
    );
    const lost = withoutTests.replace(
      'succession: { outside: [row.failover_order, maintenance.nodes] }',
      'succession: { at_site: [row.failover_order, { text: east }] }',
    );
    assert.match(total(lost), /n3 and n4 left out, and not under maintenance/);
    assert.ok(total(lost).startsWith(`r.yaml:${lineOf(lost, 'succession: { at_site')}:`));
  });
  test('is refused when all nodes are under maintenance: nobody would own', () => {
    const states = topology.nodes.map(({ id }) => ({ node_id: id, state: 'maintenance' as const, reason: '' }));
    assert.match(
      refusal(shipped, ({ checkAgainst }) => {
        checkAgainst({ ...rows, node_state: states }, topology);
      }),
      /no node owns/,
    );
  });
  test('may lower a limit for a stand-by, and not raise or forget it', () => {
    const limit = {
      prefix: '990001',
      currency: '840' as never,
      transaction_maximum_minor: 1_000n,
      daily_maximum_minor: null,
      daily_maximum_count: null,
      stand_in_floor_minor: null,
      stand_in_card_count: null,
      stand_in_card_minor: null,
    };
    const check = (file: string) =>
      refusal(file, ({ checkAgainst }) => {
        checkAgainst({ ...rows, range_limit: [limit] }, topology);
      });
    const withoutTests = shipped.slice(0, shipped.indexOf('\ntests:'));
    assert.equal(check(withoutTests), '');
    assert.match(
      check(withoutTests.replace('maximum_minor, 50]', 'maximum_minor, 101]')),
      /not between 0 and the limit/,
    );
    assert.match(
      check(withoutTests.replace('maximum_as_standby_minor: {', 'maximum_as_owner_minor: {')),
      /no maximum_as_standby_minor for n1/,
    );
  });
});
