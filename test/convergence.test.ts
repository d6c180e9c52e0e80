import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { nodeId } from '../base/identifiers.ts';
import type { LoadOptions } from '../cli/acquirer/load-options.ts';
import type { LoadSummary } from '../cli/acquirer/load-summary.ts';
import { reportText, verdictOf } from '../compare/report.ts';
import type { Durability } from '../store/entry.ts';
import {
  Cleanups,
  journaledRequests,
  judge,
  load,
  residentMegabytes,
  sampleCards,
  startTestCluster,
  until,
  untilReady,
} from './harness.ts';
import type { TestCluster } from './harness.ts';

// One cluster under load that everything happens to, one thing after another; at the end all copies must be right.

const cleanups = new Cleanups();
const journals: string[] = [];
let cluster: TestCluster;

/** Sanity, not a budget: a node of this cluster needs a quarter of it. */
const mostMegabytes = 600;

before(async () => {
  cluster = await startTestCluster(cleanups);
});

after(() => cleanups.run());

/**
 * Sends requests all the while that `action` goes on; `sent` waits for so many more of them. One load for cards of
 * `quorum` ranges, whose answers stand whatever happens; one for `local` ones, which may have been decided anew.
 */
async function underLoad(
  name: string,
  action: (sent: (more: number) => Promise<void>) => Promise<void>,
  options: Partial<Pick<LoadOptions, 'pace'>> & { readonly nodes?: string; readonly without?: string } = {},
): Promise<Record<Durability, LoadSummary>> {
  const { without, ...others } = options;
  const end = new AbortController();
  const cards = (await sampleCards()).filter(({ range }) => range.group_id !== without);
  const begin = (durability: Durability): { readonly journalFile: string; readonly ended: Promise<LoadSummary> } => {
    const journalFile = join(cluster.folder, `${name}.${durability}.journal.jsonl`);
    journals.push(journalFile);
    const ended = load(cluster, {
      journalFile,
      cards: cards.filter(({ range }) => range.durability === durability),
      pace: { kind: 'rate', perSecond: 100 },
      connections: 6,
      durationMs: 120_000,
      drainMs: 20_000,
      signal: end.signal,
      ...others,
    });
    return { journalFile, ended };
  };
  const [quorum, local] = [begin('quorum'), begin('local')];
  const count = (): number => journaledRequests(quorum.journalFile) + journaledRequests(local.journalFile);
  const sent = async (more: number): Promise<void> => {
    const enough = count() + more;
    await until(`${enough} requests are sent`, () => count() >= enough || undefined, 60_000);
  };
  try {
    await sent(100);
    await action(sent);
    await sent(100);
  } finally {
    end.abort();
  }
  return { quorum: await quorum.ended, local: await local.ended };
}

/**
 * Some may have got 91, which nobody could decide; none may have got a wrong answer, and none two. A `local` approval
 * that nobody received may be lost with its owner: a repeat of it is decided anew (R9), and the books say so.
 */
function assertTookRequests({ quorum, local }: Record<Durability, LoadSummary>): void {
  const none = { unknown: 0, duplicate: 0, undecodable: 0, wrongEcho: 0 };
  for (const summary of [quorum, local]) {
    const { unknown, duplicate, undecodable, wrongEcho } = summary.unexpected;
    assert.deepEqual({ unknown, duplicate, undecodable, wrongEcho }, none, JSON.stringify(summary));
    assert.ok(summary.approved > 0, JSON.stringify(summary));
  }
  assert.equal(quorum.unexpected.contradicting, 0, JSON.stringify(quorum));
}

/** Ready, and no copy is behind. */
async function untilConverged(): Promise<void> {
  await untilReady(cluster);
  await until(
    'every copy has applied every entry',
    async () => {
      const statuses = await Promise.all(cluster.bus.processes.map((id) => cluster.bus.status(id)));
      const groups = statuses.flatMap((status) => status?.groups ?? []);
      const highest = new Map<string, number>();
      for (const { name, last } of groups) highest.set(name, Math.max(highest.get(name) ?? 0, last));
      if (statuses.includes(undefined)) return undefined;
      return groups.every(({ name, applied }) => applied === highest.get(name)) || undefined;
    },
    60_000,
  );
}

/** Everything has come right by itself: copies are equal, and are what the acquirers saw since the beginning. */
async function assertRight(): Promise<void> {
  await untilConverged();
  const { compared, verified } = await judge(cluster.bus, journals);
  assert.equal(verdictOf(compared.groups), 'equal', reportText(compared));
  for (const { node, missing, doubled, contradicted, wrongBalances, approvals } of verified) {
    assert.deepEqual({ node, missing, doubled, contradicted, wrongBalances }, { node, ...right });
    assert.ok(approvals > 0);
  }
}

const right = { missing: [], doubled: [], contradicted: [], wrongBalances: [] };

test('when a broker is killed its nodes go on over the others, and it may come back', async () => {
  const summaries = await underLoad('broker', async (sent) => {
    await cluster.running.kill('b-east', 'SIGKILL');
    const gone = cluster.topology.brokers.find(({ id }) => id === 'b-east')?.client.port ?? 0;
    await until('nodes of its site use other brokers', async () => {
      const east = await Promise.all([nodeId('n1'), nodeId('n2')].map((id) => cluster.bus.status(id)));
      return east.every((status) => status?.broker?.endsWith(`:${gone}`) === false) || undefined;
    });
    await sent(100);
    await cluster.running.restart('b-east');
  });
  assertTookRequests(summaries);
  await assertRight();
});

test('all brokers killed at once, with everything that they knew, are no loss', async () => {
  const brokers = cluster.topology.brokers.map(({ id }) => id);
  const summaries = await underLoad('brokers', async (sent) => {
    await Promise.all(brokers.map((id) => cluster.running.kill(id, 'SIGKILL')));
    await sent(100);
    await Promise.all(brokers.map((id) => cluster.running.restart(id)));
    await untilReady(cluster);
  });
  assertTookRequests(summaries);
  await assertRight();
});

test('a node and the witness that were away for thousands of entries get them all when they are back', async () => {
  const pace = { kind: 'max', inFlight: 32 } as const;
  const { quorum, local } = await underLoad(
    'away',
    async (sent) => {
      await cluster.running.kill('n4', 'SIGKILL');
      await cluster.running.kill('w1', 'SIGKILL');
      await sent(3_000);
      await Promise.all([cluster.running.restart('n4'), cluster.running.restart('w1')]);
    },
    // Without the cards of n4's own group, whose requests would wait for it.
    { nodes: 'n1,n2,n3', without: 'd', pace },
  );
  // Three of five voters are enough: nobody noticed.
  for (const summary of [quorum, local]) assert.ok(summary.clean && summary.repeats === 0, JSON.stringify(summary));
  await assertRight();
});

test('a node that stood still for seconds goes on as if it had only been slow', async () => {
  const summaries = await underLoad('still', async (sent) => {
    await cluster.running.kill('n3', 'SIGSTOP');
    await sent(800);
    await cluster.running.kill('n3', 'SIGCONT');
  });
  assertTookRequests(summaries);
  await assertRight();
});

test('after all this no process has grown beyond reason', (context) => {
  const megabytes = new Map(
    [...cluster.running.processes].map(([id, pid]) => [id, Math.round(residentMegabytes(pid) ?? Infinity)]),
  );
  context.diagnostic(JSON.stringify(Object.fromEntries(megabytes)));
  assert.equal(megabytes.size, 8);
  for (const [id, size] of megabytes) assert.ok(size < mostMegabytes, `${id} has ${size} MB`);
});
