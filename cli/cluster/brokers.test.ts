import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { connect, nkeyAuthenticator, nkeys } from '@nats-io/transport-node';
import type { Authenticator, NatsConnection } from '@nats-io/transport-node';

import { waitFor } from '../../base/clock.ts';
import { realClock, realRandom } from '../../base/real.ts';
import type { Topology } from '../../base/topology.ts';
import { brokerConfigurationFile, permissionsByProcess, writeBrokerConfigurations } from './brokers.ts';
import { natsGreeting } from './preflight.ts';
import { ensureSecrets, readSecrets } from './secrets.ts';
import { requireNatsServer, temporaryFolder, topologyOnFreePorts } from './testing.ts';

// Real nats-servers of the sample's shape, meshed; every test connects anew.
const cleanups: (() => unknown)[] = [];
let folder = '';
let topology: Topology;

before(async () => {
  folder = temporaryFolder({ after: (action: () => unknown) => cleanups.push(action) });
  ({ topology } = await topologyOnFreePorts(folder));
  writeBrokerConfigurations(topology, ensureSecrets(topology, folder, realRandom), folder);
  for (const broker of topology.brokers) {
    const child = spawn(requireNatsServer(), ['-c', brokerConfigurationFile(folder, broker.id)], { stdio: 'ignore' });
    cleanups.unshift(async () => {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    });
    await waitFor(realClock, () => natsGreeting(broker.client, realClock), {
      timeoutMs: 10_000,
      onTimeout: () => new Error(`${broker.id} does not serve`),
    });
  }
});

after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

async function connectAs(id: string, brokerIndex = 0): Promise<NatsConnection> {
  const seed = new TextEncoder().encode(readSecrets(folder, id).nkeySeed);
  return connectWith(nkeyAuthenticator(seed), brokerIndex);
}

async function connectWith(authenticator: Authenticator | undefined, brokerIndex = 0): Promise<NatsConnection> {
  const client = topology.brokers[brokerIndex]?.client;
  return connect({
    servers: `127.0.0.1:${client?.port ?? 0}`,
    reconnect: false,
    ...(authenticator === undefined ? {} : { authenticator }),
  });
}

/** The subjects that the auditor sees of `publications` by `id`; the last must be one that `id` may publish. */
async function published(id: string, publications: readonly string[]): Promise<readonly string[]> {
  const auditor = await connectAs('auditor');
  const speaker = await connectAs(id);
  const last = publications.at(-1);
  const subjects: string[] = [];
  const complete = new Promise<void>((resolve) => {
    auditor.subscribe('>', {
      callback: (_, message) => {
        subjects.push(message.subject);
        if (message.subject === last) resolve();
      },
    });
  });
  await auditor.flush();
  for (const subject of publications) speaker.publish(subject, 'x');
  await speaker.flush();
  await complete;
  await Promise.all([auditor.close(), speaker.close()]);
  return subjects;
}

async function mayListen(id: string, subject: string): Promise<boolean> {
  const listener = await connectAs(id);
  const refused = new Promise<boolean>((resolve) => {
    listener.subscribe(subject, {
      callback: (error) => {
        if (error !== null) resolve(true);
      },
    });
  });
  const flushed = listener.flush().then(() => false);
  const result = await Promise.race([refused, flushed]);
  await listener.close();
  return !result;
}

test('a client with no key, an unknown key or a password is refused', async () => {
  const refused = { name: 'AuthorizationError' };
  await assert.rejects(connectWith(undefined), refused);
  await assert.rejects(connectWith(nkeyAuthenticator(nkeys.createUser().getSeed())), refused);
  const { routes } = ensureSecrets(topology, folder, realRandom);
  await assert.rejects(
    connectWith(() => ({ user: routes.user, pass: routes.password })),
    refused,
  );
});

test('a node speaks in its own name only', async () => {
  const allowed = ['q.raft.n2.n1', 'q.forward.n4.n1', '_INBOX.operator.abc.1'];
  const forbidden = ['q.raft.n1.n2', 'q.raft.n2', 'q.raft.n2.n1.x', 'raft', '_INBOX.other.abc', '$SYS.REQ.SERVER.PING'];
  assert.deepEqual(await published('n1', [...forbidden, ...allowed]), allowed);
});

test('the witness speaks of consensus only, and the operator of administration only', async () => {
  const allowed = ['q.snapshot.n1.w1', 'q.raft.n1.w1'];
  assert.deepEqual(await published('w1', ['q.forward.n1.w1', 'q.call.n1.w1', 'q.admin.n1.w1', ...allowed]), allowed);
  const operator = ['q.raft.n1.operator', 'q.admin.n1.n2', 'q.admin.n1.operator'];
  assert.deepEqual(await published('operator', operator), ['q.admin.n1.operator']);
});

test('the auditor publishes nothing', async () => {
  const auditor = await connectAs('auditor');
  const refused = (async () => {
    for await (const status of auditor.status()) if (status.type === 'error') return status.error.message;
    return undefined;
  })();
  auditor.publish('q.admin.n1.auditor');
  assert.match((await refused) ?? '', /[Pp]ermissions? [Vv]iolation/);
  await auditor.close();
});

test('everyone reads only what is addressed to them', async () => {
  for (const [id, subject, expected] of [
    ['n1', 'q.*.n1.*', true],
    ['n1', 'q.admin.n1.operator', true],
    ['n1', 'q.*.n2.*', false],
    ['n1', 'q.>', false],
    ['n1', '_INBOX.operator.>', false],
    ['w1', 'q.raft.w1.*', true],
    ['w1', 'q.snapshot.w1.*', true],
    ['w1', 'q.snapshot.n1.*', false],
    ['w1', 'q.admin.w1.operator', true],
    ['w1', 'q.forward.w1.*', false],
    ['w1', '>', false],
    ['operator', '_INBOX.operator.abc.*', true],
    ['operator', 'q.admin.n1.operator', false],
    ['operator', '>', false],
    ['auditor', '>', true],
  ] as const) {
    assert.equal(await mayListen(id, subject), expected, `${id} ${subject}`);
  }
});

test('a message goes from a node at one broker to a node at another, once', async () => {
  const listener = await connectAs('n3', 1);
  const speaker = await connectAs('n1', 2);
  let received = 0;
  const arrived = new Promise<void>((resolve) => {
    listener.subscribe('q.*.n3.*', {
      callback: (_, message) => {
        if (message.subject === 'q.raft.n3.n1') received++;
        else resolve();
      },
    });
  });
  await listener.flush();
  // Interest spreads between brokers in its own time: announce until it has, count afterwards.
  let isOver = false;
  void arrived.then(() => (isOver = true));
  await waitFor(
    realClock,
    () => {
      speaker.publish('q.hello.n3.n1');
      return isOver || undefined;
    },
    { timeoutMs: 10_000, everyMs: 10, onTimeout: () => new Error('nothing arrived') },
  );
  for (let count = 0; count < 100; count++) speaker.publish('q.raft.n3.n1');
  await waitFor(realClock, () => (received === 100 ? true : undefined), {
    timeoutMs: 10_000,
    everyMs: 10,
    onTimeout: () => new Error(`${received} of 100 arrived`),
  });
  await Promise.all([listener.close(), speaker.close()]);
});

test("a broker's configuration is for its owner's eyes and opens no other door", () => {
  for (const broker of topology.brokers) {
    const file = brokerConfigurationFile(folder, broker.id);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const text = readFileSync(file, 'utf8');
    assert.doesNotMatch(text, /jetstream|http|no_auth_user|0\.0\.0\.0/i);
    assert.equal(text.match(/nats-route:/g)?.length, topology.brokers.length - 1);
  }
});

test('every process of the topology has permissions, whatever their number', () => {
  assert.deepEqual([...permissionsByProcess(topology).keys()], ['n1', 'n2', 'n3', 'n4', 'w1', 'operator', 'auditor']);
});
