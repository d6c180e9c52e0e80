import assert from 'node:assert/strict';
import { test } from 'node:test';

import { completeStatus, type AnsweredStatus } from '../node/status.ts';
import type { BrokerState } from './brokers.ts';
import { askAll, describeCluster, formatStatus } from './status.ts';
import { answersOf, fakeBus, processOf, topology } from './testing.ts';

const brokers = topology.brokers.map(({ id, site, client }): BrokerState => ({
  id,
  site,
  address: `${client.host}:${client.port}`,
  state: 'ready',
}));

test('a cluster in which everything is in its place fits a screen and says so', () => {
  const text = formatStatus(describeCluster(topology, brokers, answersOf({})));
  assert.equal(
    text,
    `cluster test
node  site   state  pid   ISO 8583        connections  owns
n1    east   ready  4000  127.0.0.1:8581  5            a config
n2    east   ready  4001  127.0.0.1:8582  5            b
n3    west   ready  4002  127.0.0.1:8583  5            -
n4    west   ready  4003  127.0.0.1:8584  5            -
w1    north  ready  4004  witness         -            -

group   owner  term  committed  order        copies
a       n1     3     100        n1>n2>n3>n4  up to date
b       n2     3     100        n2>n1>n4>n3  up to date
config  n1     3     100        n1>n2>n3>n4  up to date

brokers: b-east 127.0.0.1:7421 ready, b-west 127.0.0.1:7422 ready, b-north 127.0.0.1:7423 ready
Everything answers and has its owner.`,
  );
});

test('with everything wrong at once the text stays within 100 columns', () => {
  const answers = answersOf({
    away: { n1: 3_600_000, n4: 10 },
    owners: { a: 'n3', b: undefined, config: 'n2' },
    processes: {
      n2: { draining: true, state: 'degraded', reasons: ['no broker can be reached'], reversalsDue: 12 },
      n3: { standIn: { pending: 100, entered: 0 }, rebuilding: [{ group: 'a', percent: 99.9 }] },
    },
    copies: {
      n2: { b: { votes: false, votesReason: 'its disk is empty: it is being added again', applied: 1 } },
      w1: { a: { durable: 2 } },
    },
  });
  const states = brokers.map((broker, index) => (index === 1 ? { ...broker, state: 'unreachable' as const } : broker));
  const text = formatStatus(describeCluster(topology, states, answers));
  for (const line of text.split('\n')) assert.ok(line.length <= 100, `${line.length}: ${line}`);
  assert.match(text, /^n1 +east +unreachable +- /m);
  assert.match(text, /^n2 +east +degraded, drained /m);
  assert.match(text, /^a +n3 +3 +100 +n1>n2>n3>n4 +n1 none n4 none w1 -98$/m);
  assert.match(text, /^! broker b-west does not answer at 127\.0\.0\.1:7422: start it again; /m);
  assert.doesNotMatch(text, /Everything/);
});

test('when no broker answers nothing is said of processes: they could not be asked', () => {
  const unreachable = brokers.map((broker) => ({ ...broker, state: 'unreachable' as const }));
  const away = { n1: 0, n2: 0, n3: 0, n4: 0, w1: 0 };
  const { problems } = describeCluster(topology, unreachable, answersOf({ away }));
  assert.equal(problems.length, 1);
  assert.match(
    problems[0] ?? '',
    /^no broker answers: b-east \(127\.0\.0\.1:7421\), .*Is the cluster running \(`npm start`\)/,
  );
});

test('when only ownership is not where it belongs, everything answers and the rest is told', () => {
  const status = describeCluster(topology, brokers, answersOf({ owners: { a: 'n2' } }));
  assert.deepEqual([status.problems.length, status.displaced.length], [0, 1]);
  assert.match(formatStatus(status), /^Everything answers\.\n- n2 leads group a for n1, which is back: /m);
});

test('scripts find lag, members and who owns what', () => {
  const answers = answersOf({ away: { n4: 9 }, copies: { n2: { a: { applied: 93 } }, w1: { a: { applied: 0 } } } });
  const status = describeCluster(topology, brokers, answers);
  const [a] = status.groups;
  assert.deepEqual(a, {
    name: 'a',
    owner: 'n1',
    term: 3,
    order: ['n1', 'n2', 'n3', 'n4'],
    voters: ['n1', 'n2', 'n3', 'n4', 'w1'],
    learners: [],
    commit: 100,
    leaseMs: undefined,
    transferring: undefined,
    behind: { n1: 0, n2: 7, n3: 0, n4: null, w1: 0 },
  });
  assert.equal(status.nodes[1]?.lag['a'], 7);
  assert.deepEqual(status.nodes[0]?.groups, [
    { name: 'a', term: 3 },
    { name: 'config', term: 3 },
  ]);
});

test('a process of an earlier version, which says less, is shown as if nothing were special about it', async () => {
  const { draining, rebuilding, stalledMs, reversalsDue, standIn, edits, ...said } = processOf('n1');
  const group = answersOf({}).get('n1')?.groups[0];
  assert.ok(group !== undefined);
  const { lastTerm, order, voters, learners, votes, salvage, ...saidOfGroup } = group;
  const earlier: AnsweredStatus = { ...said, groups: [saidOfGroup] };
  const whole = completeStatus(earlier);
  assert.deepEqual(
    [whole.draining, whole.rebuilding, whole.stalledMs, whole.reversalsDue, whole.standIn, whole.edits],
    [draining, rebuilding, stalledMs, reversalsDue, standIn, edits],
  );
  assert.deepEqual(whole.groups, [{ ...group, order: [], voters: [] }]);
  assert.deepEqual([lastTerm, learners, votes, salvage.pending], [3, [], true, 0]);
  assert.ok(order.length > 0 && voters.length > 0);
  const bus = fakeBus(() => new Map([['n1', earlier as typeof whole]]));
  assert.equal((await askAll(bus)).get('n1')?.groups[0]?.votes, true);
});
