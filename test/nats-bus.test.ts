import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { nkeys } from '@nats-io/transport-node';

import { waitFor } from '../base/clock.ts';
import { SwitchError } from '../base/errors.ts';
import { nodeId, type NodeId } from '../base/identifiers.ts';
import { realClock, realRandom } from '../base/real.ts';
import type { Topology } from '../base/topology.ts';
import { brokerConfigurationFile, writeBrokerConfigurations } from '../cli/cluster/brokers.ts';
import { natsGreeting } from '../cli/cluster/preflight.ts';
import { ensureSecrets, readSecrets } from '../cli/cluster/secrets.ts';
import { requireNatsServer, temporaryFolder, topologyOnFreePorts } from '../cli/cluster/testing.ts';
import { maximumMessageBytes, type Channel } from '../replication/bus.ts';
import { connectNatsBus, type NatsBus } from '../replication/nats-bus.ts';

// Three real brokers of the sample's shape, meshed; tests stop and start them.
const cleanups: (() => unknown)[] = [];
const running = new Map<number, ChildProcess>();
let folder = '';
let topology: Topology;
const [n1, n2, n3] = [nodeId('n1'), nodeId('n2'), nodeId('n3')];

before(async () => {
  folder = temporaryFolder({ after: (action: () => unknown) => cleanups.push(action) });
  ({ topology } = await topologyOnFreePorts(folder));
  writeBrokerConfigurations(topology, ensureSecrets(topology, folder, realRandom), folder);
  for (const index of topology.brokers.keys()) await startBroker(index);
});

after(async () => {
  for (const index of [...running.keys()]) await stopBroker(index);
  for (const cleanup of cleanups) await cleanup();
});

async function startBroker(index: number): Promise<void> {
  const broker = topology.brokers[index];
  if (broker === undefined || running.has(index)) return;
  const child = spawn(requireNatsServer(), ['-c', brokerConfigurationFile(folder, broker.id)], { stdio: 'ignore' });
  running.set(index, child);
  await waitFor(realClock, () => natsGreeting(broker.client, realClock), {
    timeoutMs: 10_000,
    onTimeout: () => new Error(`${broker.id} does not serve`),
  });
}

async function stopBroker(index: number): Promise<void> {
  const child = running.get(index);
  if (child === undefined) return;
  running.delete(index);
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

interface Received {
  readonly from: NodeId;
  readonly channel: Channel;
  readonly text: string;
}

interface Client {
  readonly bus: NatsBus;
  readonly received: Received[];
  readonly statuses: string[];
}

/** A process `self` at the given brokers, with the key of `key`, hearing all its channels. */
async function client(
  context: { after(action: () => unknown): void },
  self: NodeId,
  brokers: readonly number[],
  key: NodeId = self,
): Promise<Client> {
  const statuses: string[] = [];
  const bus = await connectNatsBus({
    self,
    brokers: brokers.map((index) => {
      const broker = topology.brokers[index];
      assert.ok(broker !== undefined);
      return broker.client;
    }),
    nkeySeed: Buffer.from(readSecrets(folder, key).nkeySeed),
    clock: realClock,
    pingMs: 500,
    reconnectMs: 50,
    homewardMs: 200,
    onFatal: (error: Error) => {
      throw error;
    },
    onStatus: (status, detail) => statuses.push(`${status} ${detail}`),
  });
  context.after(() => bus.close());
  const received: Received[] = [];
  bus.receive(['raft', 'forward', 'call'], (from, channel, bytes) => {
    received.push({ from, channel, text: bytes.toString() });
  });
  return { bus, received, statuses };
}

/** A valid key that no broker was told of. */
function strangersSeed(): Buffer {
  return Buffer.from(nkeys.createUser().getSeed());
}

async function until(what: string, condition: () => boolean): Promise<void> {
  await waitFor(realClock, () => condition() || undefined, {
    timeoutMs: 20_000,
    everyMs: 5,
    onTimeout: () => new Error(`not within 20 s: ${what}`),
  });
}

/** Sends `hello` until it arrives: interest spreads between brokers in its own time. */
async function meet(one: Client, other: Client, otherId: NodeId): Promise<void> {
  const before = other.received.length;
  await until(`hello to ${otherId}`, () => {
    one.bus.send(otherId, 'raft', Buffer.from('hello'));
    return other.received.length > before;
  });
}

const withoutHello = (received: readonly Received[]): string[] =>
  received.map(({ text }) => text).filter((text) => text !== 'hello');

describe('the bus over NATS', () => {
  test('brings messages to whom they are addressed, in the order of one sender, with its name and channel', async (context) => {
    const one = await client(context, n1, [0]);
    const other = await client(context, n3, [1]);
    const bystander = await client(context, n2, [0]);
    await meet(one, other, n3);
    for (let count = 0; count < 500; count++) one.bus.send(n3, 'raft', Buffer.from(`${count}`));
    one.bus.send(n3, 'forward', Buffer.from('request'));
    await until('the last message', () => other.received.at(-1)?.channel === 'forward');
    assert.deepEqual(withoutHello(other.received), [...Array.from({ length: 500 }, (_, at) => `${at}`), 'request']);
    assert.ok(other.received.every(({ from }) => from === n1));
    assert.deepEqual(bystander.received, []);
  });

  test('brings one message of the largest size, and drops a larger one without a sound', async (context) => {
    const one = await client(context, n1, [0]);
    const other = await client(context, n2, [0]);
    await meet(one, other, n2);
    one.bus.send(n2, 'raft', Buffer.alloc(maximumMessageBytes + 1, 'x'));
    one.bus.send(n2, 'raft', Buffer.alloc(maximumMessageBytes, 'y'));
    await until('the large message', () => withoutHello(other.received).length > 0);
    assert.deepEqual(
      withoutHello(other.received).map((text) => [text.length, text[0]]),
      [[maximumMessageBytes, 'y']],
    );
  });

  test("nobody speaks in another's name, or hears another's messages: its key decides, not what it says", async (context) => {
    const honest = await client(context, n1, [0]);
    const victim = await client(context, n2, [0]);
    await meet(honest, victim, n2);
    // The process of n3, which says that it is n1.
    const liar = await client(context, n1, [0], n3);
    liar.bus.send(n2, 'raft', Buffer.from('forged'));
    await until('the refusal', () => liar.statuses.some((status) => /permissions violation/i.test(status)));
    victim.bus.send(n1, 'raft', Buffer.from('for n1 only'));
    await until('the answer', () => honest.received.some(({ text }) => text === 'for n1 only'));
    await meet(honest, victim, n2);
    assert.deepEqual(withoutHello(victim.received), []);
    assert.deepEqual(withoutHello(liar.received), []);
  });

  test('a process with a key that the brokers do not know is told so at once, and one without a broker after a while', async () => {
    const options = {
      self: n1,
      brokers: topology.brokers.map((broker) => broker.client),
      nkeySeed: strangersSeed(),
      clock: realClock,
      pingMs: 500,
      reconnectMs: 10,
      onFatal: (error: Error) => {
        throw error;
      },
      onStatus: () => undefined,
    };
    const unreachable = (error: unknown): boolean =>
      error instanceof SwitchError && error.code === 'BROKER_UNREACHABLE';
    await assert.rejects(connectNatsBus(options), unreachable);
    const nobody = { host: '127.0.0.1', port: 1 };
    await assert.rejects(connectNatsBus({ ...options, brokers: [nobody], patienceMs: 100 }), unreachable);
  });

  test('what is sent while no broker can be reached is dropped, not kept: memory stays, and nothing comes late', async (context) => {
    const one = await client(context, n1, [2]);
    const other = await client(context, n2, [2]);
    await meet(one, other, n2);
    await stopBroker(2);
    await until('both to notice', () => !one.bus.connected && !other.bus.connected);
    assert.equal(one.bus.broker, undefined);
    const before = process.memoryUsage();
    for (let count = 0; count < 3_000; count++) one.bus.send(n2, 'raft', Buffer.alloc(100_000, 'z'));
    const { rss, external } = process.memoryUsage();
    assert.ok(external - before.external < 120e6 && rss - before.rss < 150e6, '300 MB were not kept');
    await startBroker(2);
    await until('both to be back', () => one.bus.connected && other.bus.connected);
    await meet(one, other, n2);
    one.bus.send(n2, 'raft', Buffer.from('after'));
    await until('what was sent afterwards', () => other.received.at(-1)?.text === 'after');
    assert.deepEqual(withoutHello(other.received), ['after']);
  });

  test('a process whose broker dies goes on at the next one in its list, and hears and speaks there', async (context) => {
    const one = await client(context, n1, [0, 1]);
    const other = await client(context, n3, [1]);
    await meet(one, other, n3);
    const [first, second] = topology.brokers.map((broker) => `${broker.client.host}:${broker.client.port}`);
    assert.equal(one.bus.broker, first);
    await stopBroker(0);
    try {
      await until('the fallback', () => one.bus.connected && one.bus.broker === second);
      await meet(one, other, n3);
      await meet(other, one, n1);
    } finally {
      await startBroker(0);
    }
  });

  test('a broker that falls silent is left at once, whatever lies in the socket to it; its process comes back to it', async (context) => {
    const one = await client(context, n1, [0, 1]);
    const other = await client(context, n3, [1]);
    await meet(one, other, n3);
    const [first, second] = topology.brokers.map((broker) => `${broker.client.host}:${broker.client.port}`);
    running.get(0)?.kill('SIGSTOP');
    try {
      // More than a socket takes: closing it in good order would wait for whoever reads it.
      await until('the fallback', () => {
        if (one.bus.broker === first) one.bus.send(n3, 'raft', Buffer.alloc(200_000, 'x'));
        return one.bus.broker === second;
      });
      await meet(one, other, n3);
      await meet(other, one, n1);
      assert.equal(one.bus.disconnects, 1);
    } finally {
      running.get(0)?.kill('SIGCONT');
    }
    await until('the way home', () => one.bus.broker === first);
    await meet(other, one, n1);
    assert.deepEqual(
      one.statuses.filter((status) => !status.startsWith('error')),
      [`disconnect ${first}`, `reconnect ${second}`, `home ${first}`],
    );
  });
});
