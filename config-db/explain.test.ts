import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { explain, explanationText, type ExplainInput } from './explain.ts';
import { compileRuleSetRow, derive } from './rewrite.ts';
import { readRuleSetFile } from './rule-file.ts';
import type { FailoverMapRow, PanRangeRow } from './rows.ts';

const rules = readFileSync(new URL('rewrite-rules.yaml', import.meta.url), 'utf8');
const ruleSet = compileRuleSetRow(readRuleSetFile(rules, 'rewrite-rules.yaml'));
const [n1, n2, n3, n4] = ['n1', 'n2', 'n3', 'n4'].map(nodeId) as [NodeId, NodeId, NodeId, NodeId];
const topology = { nodes: [n1, n2, n3, n4].map((id, index) => ({ id, site: index < 2 ? 'east' : 'west' })) };
const map: FailoverMapRow = { group_id: groupId('a'), failover_order: 'n1>n2>n3>n4' };
const range: PanRangeRow = {
  prefix: '990001',
  group_id: groupId('a'),
  description: 'Harbour Savings, debit',
  issuer: 'Harbour Savings',
  durability: 'quorum',
  hold_days: 7,
};

function input(node: NodeId, changed: Partial<ExplainInput> = {}): ExplainInput {
  const row = { ...range, failover_order: map.failover_order };
  const nodes = topology.nodes.map(({ id, site }) => ({
    node: id,
    site,
    derived: derive(ruleSet, 'pan_range', row, { origin: n1, target: id, topology }),
  }));
  return { node, card: '990001******0019', range, map, nodes, owner: n1, term: 3, ...changed };
}

describe('an explanation', () => {
  test('says as JSON what the node derives, by which rule, and what the others derive', () => {
    const explanation = explain(input(n3));
    assert.equal(explanation.group, 'a');
    assert.deepEqual(explanation.order, ['n1', 'n2', 'n3', 'n4']);
    assert.equal(explanation.owner, 'n1');
    assert.equal(explanation.term, 3);
    assert.equal(explanation.range.prefix, '990001');
    assert.equal(explanation.derived['rank'], 3);
    assert.equal(explanation.derived['takeover_after'], 'n1>n2');
    assert.equal(explanation.rules['action'], 'others-stand-by');
    assert.deepEqual(
      explanation.nodes.map(({ node, derived }) => [node, derived['action']]),
      [
        ['n1', 'own'],
        ['n2', 'standby'],
        ['n3', 'standby'],
        ['n4', 'standby'],
      ],
    );
    assert.deepEqual(JSON.parse(JSON.stringify(explanation)), explanation, 'nothing is lost on the way to JSON');
  });

  test('reads as text for a stand-by', () => {
    assert.equal(
      explanationText(explain(input(n3))),
      `Card 990001******0019: range 990001 (Harbour Savings, debit; issuer Harbour Savings), group a.
Durability quorum, holds kept for 7 days.
n1 is the configured owner; then n2, then n3, then n4 take over, in this order.
Owner now: n1, term 3.

At n3 (site west): it stands by with rank 3 and takes over once n1 and n2 have failed. Until then it forwards to the owner, trying n1, then n4, then n2. When it fails, n4 takes over.

column          at n3        rule
succession      n1>n2>n3>n4  under-maintenance-left-out
rank            3            rank-by-order
action          standby      others-stand-by
takeover_after  n1>n2        takeover-in-order
forward_to      n1>n4>n2     forward-nearest-first
next_owner      n4           takeover-in-order
site_owner      n3           first-of-own-site
Rule set version 1.

column          n1           n2           n3           n4
succession      n1>n2>n3>n4  n1>n2>n3>n4  n1>n2>n3>n4  n1>n2>n3>n4
rank            1            2            3            4
action          own          standby      standby      standby
takeover_after  -            n1           n1>n2        n1>n2>n3
forward_to      n2>n3>n4     n1>n3>n4     n1>n4>n2     n1>n3>n2
next_owner      n2           n3           n4           -
site_owner      n1           n1           n3           n3`,
    );
  });

  test('reads as text for the owner, the last in line, and a range with no card', () => {
    assert.match(
      explanationText(explain(input(n1))),
      /At n1 \(site east\): it owns and decides\. When it fails, n2 takes over\./,
    );
    assert.match(
      explanationText(explain(input(n4))),
      /takes over once n1 and n2 and n3 have failed.*No node is left after it\./,
    );
    const unknown = explain(
      input(n2, { card: undefined, range: { ...range, prefix: '' }, owner: undefined, term: undefined }),
    );
    assert.equal(unknown.owner, null);
    assert.match(explanationText(unknown), /^The catch-all range \(/);
    assert.match(explanationText(unknown), /The present owner is not known to this node\./);
    assert.match(explanationText(unknown), /takes over once n1 has failed/);
  });

  test('cannot be made for a node that gave no derived row', () => {
    assert.throws(() => explain(input(nodeId('n9'))), RangeError);
  });
});
