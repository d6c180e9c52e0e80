import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { groupId, nodeId } from '../base/identifiers.ts';
import { NodeState } from './node-state.ts';
import { temporaryFolder } from './testing.ts';

const [a, b] = [groupId('a'), groupId('b')];
const [n1, n2] = [nodeId('n1'), nodeId('n2')];

test('a node remembers term and vote of each group, and never starts twice under one number', (context) => {
  const path = join(temporaryFolder(context), 'node.db');
  let state = new NodeState(path);
  assert.deepEqual(state.hardState(a), { term: 0, votedFor: undefined });
  assert.equal(state.countBoot(), 1);
  state.saveHardState(a, { term: 3, votedFor: n2 });
  state.saveHardState(b, { term: 9, votedFor: undefined });
  state.close();
  state = new NodeState(path);
  assert.deepEqual(state.hardState(a), { term: 3, votedFor: n2 });
  assert.deepEqual(state.hardState(b), { term: 9, votedFor: undefined });
  state.saveHardState(a, { term: 4, votedFor: undefined });
  assert.deepEqual(state.hardState(a), { term: 4, votedFor: undefined });
  assert.deepEqual([state.countBoot(), state.countBoot()], [2, 3]);
  state.close();
});

test("a copy's incarnation is 1 until another one is saved, group by group", (context) => {
  const path = join(temporaryFolder(context), 'node.db');
  let state = new NodeState(path);
  assert.equal(state.incarnation(a), 1);
  state.saveIncarnation(a, 2);
  state.saveIncarnation(a, 5);
  state.close();
  state = new NodeState(path);
  assert.deepEqual([state.incarnation(a), state.incarnation(b)], [5, 1]);
  state.close();
});

test('of what members have acknowledged the newest is remembered: incarnation, then term, then index', (context) => {
  const path = join(temporaryFolder(context), 'node.db');
  let state = new NodeState(path);
  assert.equal(state.acknowledgedBy(a, n1), undefined);
  state.rememberAcknowledged([
    { group: a, id: n1, incarnation: 1, term: 2, index: 100 },
    { group: a, id: n2, incarnation: 1, term: 2, index: 90 },
    { group: b, id: n1, incarnation: 3, term: 1, index: 7 },
  ]);
  const steps = [
    [
      { incarnation: 1, term: 2, index: 99 },
      { incarnation: 1, term: 2, index: 100 },
    ],
    // The tail of term 2 was cut by the leader of term 3.
    [
      { incarnation: 1, term: 3, index: 95 },
      { incarnation: 1, term: 3, index: 95 },
    ],
    [
      { incarnation: 1, term: 2, index: 200 },
      { incarnation: 1, term: 3, index: 95 },
    ],
    // A new disk begins anew.
    [
      { incarnation: 2, term: 3, index: 1 },
      { incarnation: 2, term: 3, index: 1 },
    ],
    [
      { incarnation: 1, term: 9, index: 300 },
      { incarnation: 2, term: 3, index: 1 },
    ],
  ] as const;
  for (const [said, remembered] of steps) {
    state.rememberAcknowledged([{ group: a, id: n1, ...said }]);
    assert.deepEqual(state.acknowledgedBy(a, n1), remembered);
  }
  state.rememberAcknowledged([]);
  state.close();
  state = new NodeState(path);
  assert.deepEqual(state.acknowledgedBy(a, n1), { incarnation: 2, term: 3, index: 1 });
  assert.deepEqual(state.acknowledgedBy(a, n2), { incarnation: 1, term: 2, index: 90 });
  assert.deepEqual(state.acknowledgedBy(b, n1), { incarnation: 3, term: 1, index: 7 });
  assert.equal(state.acknowledgedBy(b, n2), undefined);
  state.close();
});

test('two threads may have the file open at once', (context) => {
  const path = join(temporaryFolder(context), 'node.db');
  const [one, other] = [new NodeState(path), new NodeState(path)];
  assert.equal(one.countBoot(), 1);
  other.saveHardState(a, { term: 1, votedFor: n1 });
  assert.equal(one.hardState(a).term, 1);
  assert.equal(other.countBoot(), 2);
  one.close();
  other.close();
});

test('a folder that was lost begins above what it may have counted before', (context) => {
  const state = new NodeState(join(temporaryFolder(context), 'consensus.db'));
  assert.deepEqual([state.countBoot(1_700_000_000), state.countBoot(5)], [1_700_000_000, 1_700_000_001]);
  state.close();
});
