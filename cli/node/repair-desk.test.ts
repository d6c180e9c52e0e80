import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test, type TestContext } from 'node:test';

import { groupId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { parseTopology, type Topology } from '../../base/topology.ts';
import { changeDigest, signPlan, type SignedPlan } from '../../compare/approval.ts';
import type { RepairBatch } from '../../store/group-file.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { RepairDesk } from './repair-desk.ts';

const nodesYaml = `
cluster: tiny
sites: [{ id: here }]
nodes: [{ id: n1, site: here, acquirer: { port: 8581 } }]
brokers: [{ id: b, site: here, client: { port: 7421 }, cluster: { port: 7431 } }]
`;

function deskOf(context: TestContext, clock: ManualClock, rules: Topology, asked: RepairBatch[] = []): RepairDesk {
  return new RepairDesk({
    id: 'n1',
    rules,
    folder: temporaryFolder(context),
    clock,
    log: createLogger({ process: 'n1', level: 'silent' }),
    hasGroup: () => true,
    repair: (_group, batch) => {
      asked.push(batch);
      return Promise.resolve([]);
    },
    readRows: () => Promise.resolve([]),
  });
}

test('a second repair is refused until the first has ended or was not heard of for half a minute', async (context) => {
  const clock = new ManualClock();
  const desk = deskOf(context, clock, parseTopology(nodesYaml, 'nodes.yaml'));
  const hold = (repair: string): Promise<unknown> =>
    desk.serve({ method: 'repair.hold', parameters: { repair, group: 'a', mark: `${repair}.1` } });
  const [one, other] = ['r0123456789abcdef', 'rfedcba9876543210'];
  await hold(one);
  assert.ok(desk.holds(groupId('a'), `${one}.1`));
  await hold(one);
  await assert.rejects(hold(other), { code: 'REPAIR_RUNNING' });
  await desk.serve({ method: 'repair.end', parameters: { repair: one } });
  await hold(other);
  await assert.rejects(hold(one), { code: 'REPAIR_RUNNING' });
  clock.advance(30_001);
  await hold(one);
  await assert.rejects(desk.serve({ method: 'repair.undo', parameters: { repair: '../../etc' } }), {
    code: 'CALL_INVALID',
  });
});

test('where approvals are asked for, a node changes nothing but what is in a plan that enough operators have signed', async (context) => {
  const clock = new ManualClock();
  const people = ['alice', 'bob'].map((id) => ({ id, ...generateKeyPairSync('ed25519') }));
  const operators = people
    .map(
      ({ id, publicKey }) =>
        `{ id: ${id}, key: "${publicKey.export({ type: 'spki', format: 'der' }).toString('base64')}" }`,
    )
    .join(', ');
  const rules = parseTopology(`${nodesYaml}repair: { approvals: 2, operators: [${operators}] }\n`, 'nodes.yaml');
  const asked: RepairBatch[] = [];
  const desk = deskOf(context, clock, rules, asked);
  const [repair, right] = ['r0123456789abcdef', 'y'];
  const change = { table: 'card', key: ['ta.1.1.7'], kind: 'derive', found: 'x', right } as const;
  const apply = (key: string): Promise<unknown> =>
    desk.serve({ method: 'repair.apply', parameters: { repair, group: 'a', changes: [{ ...change, key: [key] }] } });
  const hold = (): Promise<unknown> =>
    desk.serve({ method: 'repair.hold', parameters: { repair, group: 'a', mark: 'm' } });
  const approve = (plan: SignedPlan): Promise<unknown> =>
    desk.serve({ method: 'repair.approve', parameters: { plan } });
  const refused = { code: 'REPAIR_NOT_APPROVED' };

  await assert.rejects(hold(), refused);
  await assert.rejects(apply('ta.1.1.7'), refused);
  const plan: SignedPlan = {
    cluster: 'tiny',
    action: 'repair',
    repair,
    expiresAt: new Date(clock.wallMs() + 60_000).toISOString(),
    changes: [changeDigest('n1', 'a', change)],
    signatures: [],
  };
  const signed = people.reduce((all, { id, privateKey }) => {
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    return signPlan(all, id, pem, new Date(clock.wallMs()).toISOString());
  }, plan);
  await assert.rejects(approve({ ...signed, signatures: signed.signatures.slice(0, 1) }), refused);
  await approve(signed);
  await hold();
  await apply('ta.1.1.7');
  assert.equal(asked.length, 1);
  await assert.rejects(apply('ta.1.1.8'), /not in the approved plan/);
  await assert.rejects(desk.serve({ method: 'repair.undo', parameters: { repair } }), refused);
  clock.advance(60_000);
  await assert.rejects(apply('ta.1.1.7'), /expired/);
  assert.equal(asked.length, 1);
});
