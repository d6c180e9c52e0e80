import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { realClock } from '../../base/real.ts';
import { Cluster, runSeed, type RunResult } from './cluster.ts';
import { crashPoints } from './process.ts';
import { loadMutant, mutants } from './mutants.ts';

/*
 * A simulated cluster of the product's own replicas, files, owners and edges: one thread, one clock, one seed.
 *
 *   QUADRANT_SEED=N   runs that seed only, and prints its trace when it finds something
 *   QUADRANT_SEEDS=N  runs seeds 1 .. N instead of 1 .. 100
 */
const onlySeed = Number(process.env['QUADRANT_SEED'] ?? 0);
const seeds =
  onlySeed > 0 ? [onlySeed] : Array.from({ length: Number(process.env['QUADRANT_SEEDS'] ?? 100) }, (_, at) => at + 1);

/** What must have happened at least once in a hundred seeds, or the simulation does not try what it claims to. */
const mustHappen: readonly string[] = [
  'election',
  'deposition',
  'truncation',
  'takeover',
  'crash',
  'leader crash',
  'two-way partition',
  'one-way partition',
  'isolation',
  'brokers away',
  'slow disk',
  ...crashPoints.map((point) => `crash ${point}`),
];

describe('a simulated cluster', () => {
  const results: RunResult[] = [];

  test(`keeps every promise in ${seeds.length} seeds of faults`, { timeout: 3_600_000 }, () => {
    for (const seed of seeds) {
      const result = runSeed(seed);
      results.push(result);
      if (result.violation !== undefined) assert.fail(result.violation);
    }
  });

  test('has tried every kind of fault and every crash point', (context) => {
    const events = new Map<string, number>();
    for (const result of results) {
      for (const [name, count] of result.events) events.set(name, (events.get(name) ?? 0) + count);
    }
    const approvals = results.reduce((sum, { counts }) => sum + counts.approvals, 0);
    const repeats = results.reduce((sum, { counts }) => sum + counts.repeats, 0);
    context.diagnostic(`approvals ${approvals}, repeats ${repeats}, ${JSON.stringify(Object.fromEntries(events))}`);
    if (onlySeed > 0) return;
    assert.deepEqual(
      mustHappen.filter((name) => !events.has(name)),
      [],
    );
  });

  test('one seed has one trace', () => {
    for (const seed of seeds.slice(0, 4)) {
      const again = runSeed(seed).traceHash;
      assert.equal(again, results.find((result) => result.seed === seed)?.traceHash, `seed ${seed}`);
    }
    assert.equal(new Set(results.map(({ traceHash }) => traceHash)).size, results.length, 'another seed has another');
  });
});

describe('the simulation finds', { skip: onlySeed > 0 }, () => {
  for (const mutant of mutants) {
    test(mutant.name, async (context) => {
      const { runSeed: runMutant } = await loadMutant(mutant);
      for (const seed of [mutant.foundBy, ...Array.from({ length: 200 }, (_, at) => at + 1)]) {
        const { violation } = runMutant(seed);
        if (violation === undefined) continue;
        context.diagnostic(violation.split('\n')[0] ?? '');
        return;
      }
      assert.fail(`no seed finds that ${mutant.name}`);
    });
  }
});

describe('a cluster with a fixed leader', () => {
  /** Calls `use` with a cluster that has elected its leader. */
  function withCluster(
    options: { readonly folder?: string; readonly voters?: number },
    use: (cluster: Cluster) => void,
  ): void {
    const cluster = new Cluster({ seed: 1, voters: options.voters ?? 3, leadership: 'fixed', ...options });
    try {
      cluster.scheduler.run(500);
      use(cluster);
    } finally {
      cluster.close();
    }
  }

  const lastOf = (cluster: Cluster, index: number): number =>
    cluster.process(index).running?.replica.log.last.index ?? 0;

  test('brings a node that was away for 20,000 entries level, with bounded memory', (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'quadrant-catch-up-'));
    try {
      withCluster({ folder }, (cluster) => {
        cluster.stopForLong(2);
        for (let batch = 0; batch < 200; batch++) {
          cluster.propose(100);
          cluster.scheduler.run(20);
        }
        cluster.scheduler.run(200);
        assert.ok(lastOf(cluster, 0) > 20_000);
        cluster.startAgain(2);
        const beginMs = realClock.monotonicMs();
        const simulatedMs = cluster.scheduler.nowMs;
        cluster.scheduler.run(60_000, () => cluster.process(2).running?.replica.applied === lastOf(cluster, 0));
        const seconds = (realClock.monotonicMs() - beginMs) / 1000;
        const rate = Math.round(lastOf(cluster, 0) / seconds);
        const took = Math.round(cluster.scheduler.nowMs - simulatedMs);
        context.diagnostic(`caught up in ${took} simulated ms, ${rate} entries/s of real time`);
        assert.ok(took < 2_000, `${took} ms`);
        assert.ok(cluster.bus.mostUnderWay < 10 * 1024 * 1024, `${cluster.bus.mostUnderWay} bytes under way`);
        cluster.heal();
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('sends a node that is away nothing but heartbeats, however much is entered', () => {
    withCluster({}, (cluster) => {
      cluster.stopForLong(2);
      for (let batch = 0; batch < 120; batch++) {
        cluster.propose(100);
        cluster.scheduler.run(10);
      }
      const sent = cluster.bus.counts.sent;
      cluster.scheduler.run(1_000);
      assert.ok(cluster.bus.counts.sent - sent < 100, `${cluster.bus.counts.sent - sent} messages in a quiet second`);
      const kept = cluster.process(0).running?.replica.log.kept ?? 0;
      assert.ok(kept <= 8_192, `${kept} entries in the leader's memory`);
      cluster.startAgain(2);
      cluster.heal();
    });
  });

  test('goes on by itself after all brokers were away, and keeps little meanwhile', () => {
    withCluster({ voters: 5 }, (cluster) => {
      cluster.bus.silent = true;
      for (let batch = 0; batch < 20; batch++) {
        cluster.propose(10);
        cluster.scheduler.run(50);
      }
      const committed = cluster.checks.committed;
      assert.ok(lastOf(cluster, 0) >= committed + 200, 'nothing is committed without a majority');
      cluster.bus.silent = false;
      cluster.scheduler.run(1_000, () => cluster.checks.committed === lastOf(cluster, 0));
      assert.equal(cluster.checks.committed, lastOf(cluster, 0));
      cluster.heal();
    });
  });

  test('commits nothing without a majority, and everything once there is one again', () => {
    withCluster({ voters: 4 }, (cluster) => {
      cluster.stopForLong(2);
      cluster.stopForLong(3);
      const before = cluster.checks.committed;
      cluster.propose(10);
      cluster.scheduler.run(2_000);
      assert.equal(cluster.checks.committed, before, 'two of four');
      cluster.startAgain(3);
      cluster.scheduler.run(2_000);
      assert.equal(cluster.checks.committed, lastOf(cluster, 0), 'three of four');
      cluster.startAgain(2);
      cluster.heal();
    });
  });
});
