import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { waitFor } from '../../base/clock.ts';
import { realClock } from '../../base/real.ts';
import type { Topology } from '../../base/topology.ts';
import { checkPortsFree } from './preflight.ts';
import { startCluster } from './supervisor.ts';
import type { ClusterOptions } from './supervisor.ts';
import { requireNatsServer, temporaryFolder, topologyOnFreePorts } from './testing.ts';

// Real brokers; the nodes are a stand-in that keeps the contract of `quadrant node start` and misbehaves on request.
type Behaviour = 'refuses' | 'crashes' | 'never ready' | 'ignores SIGTERM';

const standIn = `
const [, , , , id] = process.argv;
const behaviour = BEHAVIOURS[id];
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => { if (behaviour !== 'ignores SIGTERM') process.exit(0); });
if (process.env.QUADRANT_SUPERVISED !== '1') process.exit(9);
if (behaviour === 'crashes') { console.error('last words of ' + id + ': 4000001234567899'); process.exit(3); }
if (behaviour === 'refuses') process.send({ kind: 'failed', message: 'the disk is full' }, () => process.exit(1));
else if (behaviour !== 'never ready') process.send({ kind: 'ready' });
`;

interface Prepared {
  readonly options: ClusterOptions;
  readonly topology: Topology;
  readonly printed: string[];
}

async function prepare(context: TestContext, behaviours: Readonly<Record<string, Behaviour>> = {}): Promise<Prepared> {
  const folder = temporaryFolder(context);
  const { topology, file } = await topologyOnFreePorts(folder);
  const program = join(folder, 'stand-in.mjs');
  writeFileSync(program, standIn.replace('BEHAVIOURS', JSON.stringify(behaviours)));
  const printed: string[] = [];
  const options: ClusterOptions = {
    topology,
    configFile: file,
    dataFolder: join(folder, 'data'),
    natsServer: requireNatsServer(),
    program: [program],
    print: (line) => void printed.push(line),
  };
  return { options, topology, printed };
}

function runs(pid: number): boolean {
  try {
    // A process that ended and was not collected yet has no command line.
    if (existsSync('/proc/self')) return readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function untilEnded(pids: readonly number[]): Promise<void> {
  await waitFor(realClock, () => (pids.some(runs) ? undefined : true), {
    timeoutMs: 10_000,
    everyMs: 20,
    onTimeout: () => new Error('processes are left running'),
  });
}

test('starts every process of nodes.yaml, and stopping leaves none and frees ports and folder', async (context) => {
  const { options, topology, printed } = await prepare(context);
  const cluster = await startCluster(options);
  const pids = [...cluster.processes.values()];
  assert.deepEqual([...cluster.processes.keys()].sort(), ['b-east', 'b-north', 'b-west', 'n1', 'n2', 'n3', 'n4', 'w1']);
  assert.ok(pids.every(runs));
  assert.deepEqual(cluster.keysCreated, ['n1', 'n2', 'n3', 'n4', 'w1', 'operator', 'auditor']);
  await assert.rejects(startCluster(options), {
    code: 'DATA_FOLDER_IN_USE',
    message: /in use by quadrant start, pid \d+/,
  });

  await Promise.all([cluster.stop(), cluster.stop()]);
  assert.ok(!pids.some(runs));
  assert.deepEqual(printed, []);
  await checkPortsFree(topology, realClock);
  const again = await startCluster(options);
  assert.deepEqual(again.keysCreated, []);
  await again.stop();
});

test('a process that ends by itself is reported with the command that brings it back, and can be started again', async (context) => {
  const { options, printed } = await prepare(context);
  const cluster = await startCluster(options);
  context.after(() => cluster.stop());
  await cluster.kill('n2', 'SIGKILL');
  assert.equal(printed.length, 1);
  assert.match(
    printed[0] ?? '',
    /^n2 ended \(SIGKILL\)\. Its cards are with the next node of their order until it is back: npx quadrant node start n2 --config \S+nodes\.yaml --data \S+data$/,
  );
  assert.ok(!cluster.processes.has('n2'));
  await assert.rejects(cluster.kill('n2', 'SIGTERM'), RangeError);

  await cluster.restart('n2');
  assert.ok(runs(cluster.processes.get('n2') ?? 0));
  await assert.rejects(cluster.restart('n2'), RangeError);

  await cluster.kill('b-west', 'SIGKILL');
  assert.match(printed[1] ?? '', /^Broker b-west ended \(SIGKILL\)/);
  await cluster.restart('b-west');
  assert.equal(cluster.processes.size, 8);
});

for (const [behaviour, message] of [
  ['refuses', /^n3: the disk is full$/],
  ['crashes', /^n3 ended before it was ready\nlast lines of \S+output\.log:\n {2}last words of n3: 400000\*{6}7899$/],
  ['never ready', /^n3 is not ready after 0\.5 s/],
] as const) {
  test(`when a node ${behaviour === 'never ready' ? 'is never ready' : behaviour}, it is named and nothing is left running`, async (context) => {
    const { options, topology, printed } = await prepare(context, { n3: behaviour });
    const timeout = behaviour === 'never ready' ? { readyTimeoutMs: 500 } : {};
    let pids: readonly number[] = [];
    const starting = startCluster({
      ...options,
      ...timeout,
      onOpened: (cluster) => {
        const stop = cluster.stop.bind(cluster);
        cluster.stop = () => {
          pids = [...cluster.processes.values()];
          return stop();
        };
      },
    });
    await assert.rejects(starting, { code: 'START_FAILED', message });
    assert.ok(pids.length >= 3);
    assert.deepEqual(printed, []);
    assert.ok(!pids.some(runs));
    await checkPortsFree(topology, realClock);
  });
}

test('a node that does not end when told is killed after a while, and one that is paused as well', async (context) => {
  const { options, printed } = await prepare(context, { n1: 'ignores SIGTERM' });
  const cluster = await startCluster(options);
  const pids = [...cluster.processes.values()];
  await cluster.kill('n4', 'SIGSTOP');
  await cluster.stop();
  assert.ok(!pids.some(runs));
  assert.deepEqual(printed, ['n1 did not end within 5 s and is killed.']);
});

test('a start can be stopped while it goes on', async (context) => {
  const { options, topology } = await prepare(context, { n3: 'never ready' });
  const starting = startCluster({
    ...options,
    onOpened: (cluster) => {
      realClock.soon(() => void cluster.stop());
    },
  });
  await assert.rejects(starting, { code: 'START_FAILED' });
  await checkPortsFree(topology, realClock);
});

test('killing the supervisor ends its nodes, and the next start ends its brokers', async (context) => {
  const { options } = await prepare(context);
  const program = `
    import { loadTopology } from ${JSON.stringify(import.meta.resolve('../../base/topology.ts'))};
    import { startCluster } from ${JSON.stringify(import.meta.resolve('./supervisor.ts'))};
    const options = JSON.parse(process.argv[1]);
    const topology = loadTopology(options.configFile);
    const cluster = await startCluster({ ...options, topology, print: () => undefined });
    process.send([...cluster.processes]);
  `;
  const { topology: _, print: __, ...plain } = options;
  const supervisor = spawn(process.execPath, ['--input-type=module', '--eval', program, JSON.stringify(plain)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [message] = (await once(supervisor, 'message')) as [[string, number][]];
  const processes = new Map(message);
  const brokers = [...processes].filter(([id]) => id.startsWith('b-')).map(([, pid]) => pid);
  const nodes = [...processes].filter(([id]) => !id.startsWith('b-')).map(([, pid]) => pid);
  supervisor.kill('SIGKILL');
  await once(supervisor, 'exit');
  await untilEnded(nodes);
  assert.ok(brokers.every(runs));

  const cluster = await startCluster(options);
  assert.ok(!brokers.some(runs));
  assert.equal(cluster.processes.size, 8);
  await cluster.stop();
});

test('a fresh start has none of the earlier data, and keeps off what is not its own', async (context) => {
  const { options } = await prepare(context);
  const first = await startCluster(options);
  const file = join(options.dataFolder, 'n1', 'old.db');
  writeFileSync(file, '');
  await first.stop();
  await (await startCluster(options)).stop();
  assert.ok(existsSync(file));
  await (await startCluster({ ...options, fresh: true })).stop();
  assert.ok(!existsSync(file));

  const foreign = temporaryFolder(context);
  writeFileSync(join(foreign, 'thesis.txt'), 'mine');
  await assert.rejects(startCluster({ ...options, dataFolder: foreign, fresh: true }), { code: 'DATA_FOLDER_FOREIGN' });
  assert.ok(existsSync(join(foreign, 'thesis.txt')));
});
