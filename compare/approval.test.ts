import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';

import {
  changeDigest,
  digestOfCall,
  operatorOf,
  planHash,
  refusalOf,
  signersOf,
  signPlan,
  type SignedPlan,
} from './approval.ts';

function person(id: string): { readonly id: string; readonly key: string; readonly privateKey: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  return {
    id,
    key: publicKey.export({ type: 'spki', format: 'der' }).toString('base64'),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

const [alice, bob, mallory] = ['alice', 'bob', 'mallory'].map(person) as [
  ReturnType<typeof person>,
  ReturnType<typeof person>,
  ReturnType<typeof person>,
];
const operators = [alice, bob].map(({ id, key }) => ({ id, key }));
const rules = { cluster: 'test', approvals: 2, operators };
const at = '2026-01-02T03:04:05.678Z';
const nowMs = Date.parse(at);
const step = { table: 'card', key: ['ta.1.1.7'], kind: 'put', found: 'x', right: 'y' } as const;
const plan: SignedPlan = {
  cluster: 'test',
  action: 'repair',
  repair: 'r0123456789abcdef',
  expiresAt: '2026-01-03T03:04:05.678Z',
  changes: [changeDigest('n1', 'a', step)],
  signatures: [],
};
const byAlice = signPlan(plan, 'alice', alice.privateKey, at);
const byBoth = signPlan(byAlice, 'bob', bob.privateKey, at);

test('a plan is carried out when so many different operators have signed it, and not before', () => {
  assert.equal(refusalOf(byBoth, rules, nowMs), undefined);
  assert.match(refusalOf(plan, rules, nowMs) ?? '', /signed by nobody; 2 different operators have to/);
  assert.match(refusalOf(byAlice, rules, nowMs) ?? '', /signed by alice; 2/);
  const twice = signPlan(byAlice, 'alice', alice.privateKey, '2026-01-02T04:00:00.000Z');
  assert.deepEqual(signersOf(twice, operators), ['alice']);
  assert.match(refusalOf(twice, rules, nowMs) ?? '', /signed by alice/);
});

test("nobody signs for another, nobody who is not in nodes.yaml, and no signature is another plan's", () => {
  const forged = signPlan(byAlice, 'bob', mallory.privateKey, at);
  assert.deepEqual(signersOf(forged, operators), ['alice']);
  assert.deepEqual(signersOf(signPlan(byAlice, 'mallory', mallory.privateKey, at), operators), ['alice']);
  assert.equal(operatorOf(mallory.privateKey, operators), undefined);
  assert.equal(operatorOf(bob.privateKey, operators)?.id, 'bob');
  const changed: readonly Partial<SignedPlan>[] = [
    { cluster: 'other' },
    { action: 'undo' },
    { repair: 'rfedcba9876543210' },
    { expiresAt: '2027-01-03T03:04:05.678Z' },
    { changes: [changeDigest('n2', 'a', step)] },
  ];
  for (const change of changed) {
    const other = { ...byBoth, ...change };
    assert.notEqual(planHash(other), planHash(plan));
    assert.deepEqual(signersOf(other, operators), [], JSON.stringify(change));
  }
});

test('a plan that has expired or is of another cluster is refused, whoever has signed it', () => {
  assert.match(refusalOf(byBoth, rules, Date.parse(byBoth.expiresAt)) ?? '', /expired at 2026-01-03/);
  assert.match(refusalOf(byBoth, { ...rules, cluster: 'other' }, nowMs) ?? '', /of cluster test/);
});

test('a change that a node is asked for is known by node, group, table, key, kind, and both digests', () => {
  const call = { table: 'card', key: ['ta.1.1.7'], kind: 'put', found: 'x', right: 'y', values: ['i1'] } as const;
  assert.equal(digestOfCall('n1', 'a', call), plan.changes[0]);
  const others = [
    digestOfCall('n2', 'a', call),
    digestOfCall('n1', 'b', call),
    digestOfCall('n1', 'a', { ...call, table: 'log' }),
    digestOfCall('n1', 'a', { ...call, key: ['ta.1.1.8'] }),
    digestOfCall('n1', 'a', { ...call, found: null }),
    digestOfCall('n1', 'a', { ...call, right: 'z' }),
    digestOfCall('n1', 'a', { table: 'card', key: ['ta.1.1.7'], found: 'x', kind: 'delete' }),
  ];
  assert.equal(new Set([plan.changes[0], ...others]).size, 8);
});
