import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { Cluster } from './cluster.ts';
import { approved } from './journal.ts';

const group = groupId('a');
const [n1, n2] = ['n1', 'n2'].map(nodeId) as [NodeId, NodeId];

interface Outcome {
  /** Duplicate keys of what n1 answered by itself. */
  readonly answered: readonly string[];
  /** Those that went with its disk. */
  readonly lost: ReadonlySet<string>;
  readonly adopted: number;
}

/**
 * n1 owns the cards, is cut off and answers `local` requests by itself; `then` it leads no longer, others take over and
 * commit something else where its log has those answers, and its disk is lost or goes back. In the end the acquirers'
 * journals are held against the books.
 */
function loseDiskOfReplacedOwner(how: 'old' | 'empty', then: (cluster: Cluster) => void = () => undefined): Outcome {
  const cluster = new Cluster({ seed: 1, nodes: 3, witness: false, groups: 1 });
  try {
    const { scheduler, bus, acquirers, observer, disks } = cluster;
    cluster.enterCards();
    scheduler.run(3_000);
    assert.equal(cluster.leaderOf(group)?.id, n1);
    const others = cluster.processes.map(({ id }) => id).filter((id) => id !== n1);
    const ends = others.flatMap((id) => [bus.cut(n1, id), bus.cut(id, n1)]);
    for (let count = 0; count < 20; count++) acquirers.buyAt(n1);
    scheduler.run(1_500);
    const answered = acquirers.purchases.flatMap(({ promise, exchanges }) =>
      exchanges.flatMap(({ key, node, answer }) =>
        promise === 'local' && node === n1 && answer?.responseCode === approved ? [key] : [],
      ),
    );
    assert.ok(answered.length > 0, 'its lease was valid for a while');
    then(cluster);
    for (let count = 0; count < 30; count++) acquirers.buyAt(n2);
    scheduler.run(2_000);
    const last = cluster.process(n1).running?.driver.replica(group)?.log.last.index ?? Number.POSITIVE_INFINITY;
    assert.ok((observer.consensus.get(group)?.committed ?? 0) >= last, 'its whole tail has been overtaken');
    assert.ok(disks.lose(cluster.process(n1), how), 'that can be noticed');
    for (const end of ends) end();
    cluster.settle();
    return { answered, lost: disks.lostKeys, adopted: observer.events.get('adopted entry') ?? 0 };
  } finally {
    cluster.close();
  }
}

describe('the disk of an owner that was cut off and replaced', () => {
  test('takes with it what was answered on its strength alone', () => {
    const { answered, lost, adopted } = loseDiskOfReplacedOwner('empty');
    assert.deepEqual(
      answered.filter((key) => !lost.has(key)),
      [],
    );
    assert.equal(adopted, 0);
  });

  test('has lost nothing of that when it goes back to a copy that has it', () => {
    const { answered, lost, adopted } = loseDiskOfReplacedOwner('old', (cluster) => {
      cluster.disks.copy(cluster.process(n1));
    });
    assert.deepEqual(
      answered.filter((key) => lost.has(key)),
      [],
    );
    assert.ok(adopted > 0, 'it is offered to the present owner (R9)');
  });
});
