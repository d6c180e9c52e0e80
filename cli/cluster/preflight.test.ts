import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import { realClock } from '../../base/real.ts';
import { acquireFolderLock } from '../../store/folder-lock.ts';
import { checkPortsFree, claimDataFolder, ensureNatsServer, eraseDataFolder, inspectDataFolder } from './preflight.ts';
import type { Machine } from './preflight.ts';
import { temporaryFolder, topologyOnFreePorts } from './testing.ts';

interface Pretence {
  readonly files?: readonly string[];
  readonly version?: string;
  readonly isRoot?: boolean;
  readonly answer?: boolean;
  readonly platform?: NodeJS.Platform;
  readonly distribution?: string;
  readonly aptFails?: boolean;
}

/** A machine that has what `pretence` says; apt-get puts /usr/sbin/nats-server on it. */
function pretend(pretence: Pretence): {
  readonly machine: Machine;
  readonly ran: string[];
  readonly printed: string[];
} {
  const files = new Set(pretence.files ?? []);
  const ran: string[] = [];
  const printed: string[] = [];
  let version = pretence.version ?? 'nats-server: v2.9.10';
  const machine: Machine = {
    platform: pretence.platform ?? 'linux',
    isRoot: pretence.isRoot ?? false,
    hasTerminal: pretence.answer !== undefined,
    searchPath: ['/usr/bin'],
    distribution: pretence.distribution,
    exists: (file) => files.has(file),
    run(program, args) {
      const line = [program, ...args].join(' ');
      if (args[0] === '--version') return { status: 0, output: version };
      ran.push(line);
      if (pretence.aptFails === true) return { status: 100, output: 'E: no network\n' };
      if (line.includes('install')) {
        files.add('/usr/sbin/nats-server');
        version = 'nats-server: v2.9.10';
      }
      return { status: 0, output: '' };
    },
    ask: () => Promise.resolve(pretence.answer ?? false),
    print: (line) => void printed.push(line),
  };
  return { machine, ran, printed };
}

test('a nats-server of 2.9 or newer is used, also from where Debian puts it', async () => {
  for (const version of ['nats-server: v2.9.0', 'nats-server: v2.10.27-RC.1', 'nats-server: v3.0.0']) {
    const { machine, ran } = pretend({ files: ['/usr/sbin/nats-server'], version });
    assert.equal(await ensureNatsServer(machine), '/usr/sbin/nats-server');
    assert.deepEqual(ran, []);
  }
});

test("root gets Debian's package without a question, and no open server of its own stays running", async () => {
  const { machine, ran, printed } = pretend({ isRoot: true, files: ['/usr/bin/apt-get', '/run/systemd/system'] });
  assert.equal(await ensureNatsServer(machine), '/usr/sbin/nats-server');
  assert.deepEqual(ran, [
    '/usr/bin/apt-get update -q',
    '/usr/bin/apt-get install -y -q --no-install-recommends nats-server',
    'systemctl disable --now nats-server',
  ]);
  assert.equal(printed.length, 1);
});

test('someone else is asked, and sudo is used only after a yes', async () => {
  const files = ['/usr/bin/apt-get', '/usr/bin/sudo'];
  const agreed = pretend({ files, answer: true });
  assert.equal(await ensureNatsServer(agreed.machine), '/usr/sbin/nats-server');
  assert.deepEqual(agreed.ran[0], 'sudo /usr/bin/apt-get update -q');
  for (const answer of [{ answer: false }, {}]) {
    const { machine, ran } = pretend({ files, distribution: 'debian', ...answer });
    await assert.rejects(ensureNatsServer(machine), { code: 'NATS_SERVER_MISSING' });
    assert.deepEqual(ran, []);
  }
});

test('otherwise one line says how to install it on this system', async () => {
  for (const [pretence, message] of [
    [{ platform: 'darwin' }, 'nats-server was not found: install it with "brew install nats-server" and start again.'],
    [
      { distribution: 'ubuntu' },
      'nats-server was not found: install it with "sudo apt-get install nats-server" and start again.',
    ],
    [
      { distribution: 'alpine' },
      'nats-server was not found: install it with "sudo apk add nats-server" and start again.',
    ],
    [
      { distribution: 'arch' },
      'nats-server was not found: install it with "sudo pacman -S nats-server" and start again.',
    ],
    [{}, /^nats-server was not found: install nats-server 2\.9 or newer[^\n]*$/],
    [{ platform: 'win32' }, /^nats-server was not found: install nats-server 2\.9 or newer[^\n]*$/],
    [
      { files: ['/usr/bin/nats-server'], version: 'v2.8.4' },
      /^\/usr\/bin\/nats-server is v2\.8\.4, older than 2\.9: install/,
    ],
    [{ isRoot: true, files: ['/usr/bin/apt-get'], aptFails: true }, 'apt-get update failed: E: no network'],
  ] as const) {
    await assert.rejects(ensureNatsServer(pretend(pretence).machine), { code: 'NATS_SERVER_MISSING', message });
  }
});

test('a port that is taken is named with its key, and a broker there with its cluster', async (context) => {
  const { topology } = await topologyOnFreePorts(temporaryFolder(context));
  await checkPortsFree(topology, realClock);
  const [node, broker] = [topology.nodes[1]?.acquirer, topology.brokers[2]?.client];
  const monitor = topology.witness?.monitor;
  assert.ok(node !== undefined && broker !== undefined && monitor !== undefined);
  const monitoring = createServer().listen(monitor);
  const silent = createServer().listen(node);
  const greeting = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write('INFO {"server_name":"b-north","cluster":"quadrant"}\r\n');
  }).listen(broker);
  await Promise.all([once(silent, 'listening'), once(greeting, 'listening'), once(monitoring, 'listening')]);
  context.after(() => {
    silent.close();
    greeting.close();
    monitoring.close();
  });
  await assert.rejects(checkPortsFree(topology, realClock), {
    code: 'PORT_TAKEN',
    message: [
      `127.0.0.1:${broker.port} (brokers[2].client.port) is taken by a broker of cluster "quadrant": another Quadrant may be running`,
      `127.0.0.1:${node.port} (nodes[1].acquirer.port) is taken`,
      `127.0.0.1:${monitor.port} (witness.monitor.port) is taken`,
    ].join('\n'),
  });
});

test("a data folder is its cluster's and no other's", (context) => {
  const folder = join(temporaryFolder(context), 'data');
  assert.equal(inspectDataFolder(folder, 'first'), 'new');
  acquireFolderLock(folder, 'test').release();
  assert.equal(inspectDataFolder(folder, 'first'), 'new');
  claimDataFolder(folder, 'first', realClock);
  assert.equal(inspectDataFolder(folder, 'first'), 'continued');
  assert.throws(() => inspectDataFolder(folder, 'second'), {
    code: 'DATA_FOLDER_FOREIGN',
    message: `${folder} has the data of cluster "first", not "second"`,
  });
  writeFileSync(join(folder, 'cluster.json'), '{"cluster":"first","format":2,"created":""}');
  assert.throws(() => inspectDataFolder(folder, 'first'), { code: 'DATA_FOLDER_FOREIGN', message: /format 2/ });
});

test("only Quadrant's own data is erased, and not under a process that runs", (context) => {
  const folder = temporaryFolder(context);
  writeFileSync(join(folder, 'thesis.txt'), 'mine');
  assert.throws(() => inspectDataFolder(folder, 'first'), { code: 'DATA_FOLDER_FOREIGN' });
  assert.throws(
    () => {
      eraseDataFolder(folder);
    },
    { code: 'DATA_FOLDER_FOREIGN' },
  );
  assert.ok(existsSync(join(folder, 'thesis.txt')));

  const own = join(folder, 'own');
  mkdirSync(own);
  claimDataFolder(own, 'first', realClock);
  const lock = acquireFolderLock(join(own, 'n1'), 'n1');
  assert.throws(
    () => {
      eraseDataFolder(own);
    },
    { code: 'DATA_FOLDER_IN_USE' },
  );
  lock.release();
  eraseDataFolder(own);
  assert.deepEqual(readdirSync(own), []);
});
