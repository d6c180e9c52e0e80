import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { Cluster, type ClusterOptions } from './cluster.ts';
import type { SwitchProcess } from './process.ts';

/*
 * Single scenarios in the simulated cluster, whose outcome is known: what is bounded, and what goes on by itself.
 */

const group = groupId('a');
const [n1, n2, n3] = ['n1', 'n2', 'n3'].map(nodeId) as [NodeId, NodeId, NodeId];

/** Calls `use` with a cluster of three nodes and one group, which n1 leads. */
function withCluster(options: Partial<ClusterOptions>, use: (cluster: Cluster) => void): void {
  const cluster = new Cluster({ seed: 1, nodes: 3, witness: false, groups: 1, keptLogEntries: 1_000_000, ...options });
  try {
    cluster.enterCards();
    cluster.scheduler.run(3_000);
    assert.equal(cluster.leaderOf(group)?.id, n1);
    use(cluster);
  } finally {
    cluster.close();
  }
}

/** Entries of the owner's own, without waiting for their commit; each of the size of a decision. */
function append(process: SwitchProcess, count: number): void {
  process.inThread('main', ({ groups }) => {
    const by = 'x'.repeat(600);
    for (let each = 0; each < count; each++) {
      groups.ownerOf(group)?.append({ kind: 'cards', at: 0, by, added: [], origin: 'n1', changes: [] });
    }
  });
}

const replicaOf = (cluster: Cluster, id: NodeId) => cluster.process(id).running?.driver.replica(group);
const lastOf = (cluster: Cluster, id: NodeId): number => replicaOf(cluster, id)?.log.last.index ?? 0;
const committed = (cluster: Cluster): number => cluster.observer.consensus.get(group)?.committed ?? 0;

function stopForLong(cluster: Cluster, id: NodeId): void {
  cluster.staysDown.add(id);
  cluster.process(id).crash('for long');
}

function startAgain(cluster: Cluster, id: NodeId): void {
  cluster.staysDown.delete(id);
  cluster.process(id).start();
}

describe('a group', () => {
  for (const [how, keptLogEntries] of [
    ['from its log', 1_000_000],
    ['by a snapshot', 100],
  ] as const) {
    test(`brings a node that was away for 20,000 entries level ${how}, with bounded memory`, (context) => {
      const folder = mkdtempSync(join(tmpdir(), 'quadrant-catch-up-'));
      try {
        withCluster({ folder, keptLogEntries }, (cluster) => {
          stopForLong(cluster, n3);
          for (let batch = 0; batch < 200; batch++) {
            append(cluster.process(n1), 100);
            cluster.scheduler.run(20);
          }
          cluster.scheduler.run(3_000);
          assert.ok(lastOf(cluster, n1) > 20_000);
          startAgain(cluster, n3);
          const beginMs = realClock.monotonicMs();
          const simulatedMs = cluster.scheduler.nowMs;
          const level = (): boolean => replicaOf(cluster, n3)?.applied === lastOf(cluster, n1);
          cluster.scheduler.run(60_000, level);
          const seconds = (realClock.monotonicMs() - beginMs) / 1000;
          const rate = Math.round(lastOf(cluster, n1) / seconds);
          const tookMs = Math.round(cluster.scheduler.nowMs - simulatedMs);
          context.diagnostic(`level after ${tookMs} simulated ms, ${rate} entries/s of real time`);
          assert.ok(tookMs < 10_000, `${tookMs} ms`);
          assert.equal((cluster.observer.events.get('snapshot installed') ?? 0) > 0, how === 'by a snapshot');
          assert.ok(cluster.bus.mostUnderWay < 10 * 1024 * 1024, `${cluster.bus.mostUnderWay} bytes under way`);
          cluster.settle();
        });
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }

  test('sends a node that is away nothing but heartbeats, however much is entered', () => {
    withCluster({}, (cluster) => {
      stopForLong(cluster, n3);
      for (let batch = 0; batch < 120; batch++) {
        append(cluster.process(n1), 100);
        cluster.scheduler.run(10);
      }
      cluster.scheduler.run(2_000);
      const { sent } = cluster.bus.counts;
      cluster.scheduler.run(1_000);
      assert.ok(cluster.bus.counts.sent - sent < 100, `${cluster.bus.counts.sent - sent} messages in a quiet second`);
      const kept = replicaOf(cluster, n1)?.log.kept ?? 0;
      assert.ok(kept <= 8_192, `${kept} entries in the leader's memory`);
      startAgain(cluster, n3);
      cluster.settle();
    });
  });

  test('goes on by itself after all brokers were away', () => {
    withCluster({ nodes: 4, witness: true }, (cluster) => {
      const ids = cluster.processes.map(({ id }) => id);
      const ends = ids.flatMap((from) => ids.map((to) => cluster.bus.cut(from, to)));
      append(cluster.process(n1), 50);
      cluster.scheduler.run(400);
      const before = committed(cluster);
      assert.ok(lastOf(cluster, n1) >= before + 50, 'nothing is committed without a majority');
      cluster.scheduler.run(3_000);
      assert.equal(cluster.leaderOf(group), undefined, 'and nobody leads without one');
      for (const end of ends) end();
      cluster.scheduler.run(3_000);
      assert.ok(committed(cluster) > before);
      cluster.settle();
    });
  });

  test('commits nothing without a majority, and everything once there is one again', () => {
    withCluster({ nodes: 4 }, (cluster) => {
      stopForLong(cluster, nodeId('n4'));
      stopForLong(cluster, n3);
      append(cluster.process(n1), 10);
      cluster.scheduler.run(400);
      const before = committed(cluster);
      assert.ok(lastOf(cluster, n1) > before, 'two of four');
      startAgain(cluster, n3);
      cluster.scheduler.run(4_000);
      assert.ok(committed(cluster) > before, 'three of four');
      startAgain(cluster, nodeId('n4'));
      cluster.settle();
    });
  });

  test('gets a new owner in less than two seconds when the old one dies, and its cards come back to it', (context) => {
    withCluster({ nodes: 4, witness: true }, (cluster) => {
      const { scheduler } = cluster;
      const decides = (id: NodeId): boolean => cluster.process(id).running?.groups.ownerOf(group)?.ready === true;
      const diedMs = scheduler.nowMs;
      stopForLong(cluster, n1);
      scheduler.run(10_000, () => decides(n2));
      context.diagnostic(`a new owner decides after ${Math.round(scheduler.nowMs - diedMs)} ms`);
      assert.ok(scheduler.nowMs - diedMs < 2_000);
      startAgain(cluster, n1);
      scheduler.run(10_000, () => decides(n1));
      assert.ok(decides(n1), 'the first of the order leads again');
      cluster.settle();
    });
  });
});
