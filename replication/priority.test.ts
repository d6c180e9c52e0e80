import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { nodeId, type NodeId } from '../base/identifiers.ts';
import { anySuccessor, betterPlaced, campaignDelayMs, type Candidate, type Succession } from './priority.ts';

const [n1, n2, n3, w1] = ['n1', 'n2', 'n3', 'w1'].map((id) => nodeId(id)) as [NodeId, NodeId, NodeId, NodeId];
const order = [n1, n2, n3];

describe('a member waits before it campaigns', () => {
  const delayOf = (self: NodeId, silent?: NodeId, willing = true): number =>
    campaignDelayMs({ self, order, silent, willing, stepMs: 120 });

  test('a step for each better-placed member', () => {
    assert.deepEqual(
      [n1, n2, n3].map((id) => delayOf(id)),
      [0, 120, 240],
    );
  });
  test('but not for the one that has fallen silent', () => {
    assert.deepEqual(
      [n2, n3].map((id) => delayOf(id, n1)),
      [0, 120],
    );
    assert.equal(delayOf(n1, n1), 0);
  });
  test('longer than all others when it is not willing, or a witness', () => {
    assert.equal(delayOf(n2, undefined, false), 360);
    assert.equal(delayOf(w1), 360);
  });
});

describe('a leader hands over', () => {
  const ready: Candidate = { match: 100, lastHeardMs: 990, willing: true };
  const succession = (self: NodeId, peers: Readonly<Record<string, Candidate>>): Succession => ({
    self,
    order,
    peers: new Map(Object.entries(peers) as [NodeId, Candidate][]),
    last: 100,
    nowMs: 1000,
    heartbeatMs: 100,
  });

  test('to a better-placed member that has caught up, never to a worse one', () => {
    assert.equal(betterPlaced(succession(n2, { n1: ready, n3: ready })), n1);
    assert.equal(betterPlaced(succession(n1, { n2: ready, n3: ready })), undefined);
    assert.equal(betterPlaced(succession(n3, { n1: { ...ready, willing: false }, n2: ready })), n2);
  });
  test('not to one that is silent, or far behind', () => {
    assert.equal(betterPlaced(succession(n2, { n1: { ...ready, lastHeardMs: 600 } })), undefined);
    assert.equal(betterPlaced({ ...succession(n2, { n1: ready }), last: 5000 }), undefined);
  });
  test('to anyone when it cannot stay: a witness, a drained node', () => {
    assert.equal(anySuccessor(succession(w1, { n2: ready, n3: ready })), n2);
    assert.equal(anySuccessor(succession(n1, { n2: { ...ready, willing: false }, n3: ready })), n3);
    assert.equal(betterPlaced(succession(w1, { n3: ready })), n3);
  });
});
