import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { configGroup, groupId, nodeId, type GroupId, type NodeId } from '../base/identifiers.ts';
import { append, at, extend, hello, logOf, members, vote } from './testing.ts';
import { decodeGroupMessages, encodeGroupMessages } from './wire.ts';
import {
  group,
  n1,
  n2,
  n3,
  n4,
  w1,
  everybody,
  keptLogEntries,
  topologyText,
  Folder,
  Process,
  Cluster,
  formed,
  digestOf,
} from './driver/testing.ts';

/*
 * What a driver tells its deciding thread and takes from it, what it remembers of members (R8), whom it listens to, what it
 * trims (R10).
 */

describe('between driver and deciding thread', () => {
  test('an owner is told the log’s tail, and its proposals come into the log at the indexes that it gave them', () => {
    const cluster = new Cluster();
    cluster.until(n1);
    cluster.advance(100);
    const leader = cluster.of(n1);
    const lead = at(leader.events.find(({ kind }) => kind === 'lead'));
    assert.ok(lead.kind === 'lead');
    assert.deepEqual([lead.applied, lead.tail.map(({ index }) => index)], [0, [1]]);
    leader.propose(group, '"x"', '"y"');
    leader.propose(group, '"z"');
    cluster.advance(200);
    assert.deepEqual(
      cluster
        .of(n3)
        .folder.diskOf(group)
        .log.slice(1)
        .map(({ index, body }) => [index, body]),
      [
        [2, '"x"'],
        [3, '"y"'],
        [4, '"z"'],
      ],
    );
    const progress = leader.events.filter(({ kind }) => kind === 'progress').at(-1);
    assert.ok(progress?.kind === 'progress');
    assert.deepEqual([progress.progress.commit, progress.progress.durable, progress.epoch], [4, 4, lead.epoch]);
  });

  test('a proposal at another index is dropped; the owner begins anew, with the log as it is', () => {
    const cluster = formed();
    const leader = cluster.of(n1);
    const { epoch, next } = at(leader.led.get(group));
    leader.driver.propose(group, epoch, next + 1, ['"gap"']);
    leader.driver.propose(group, epoch, next, ['"of the same deciding thread, and void with it"']);
    assert.deepEqual(leader.told('resign', 'lead'), ['resign']);
    cluster.advance(50);
    assert.deepEqual(leader.told('lead'), ['lead']);
    leader.driver.propose(group, epoch, next, ['"still void"']);
    leader.propose(group, '"valid"');
    cluster.advance(50);
    assert.deepEqual(
      leader.folder
        .diskOf(group)
        .log.slice(1)
        .map(({ body }) => body),
      ['"valid"'],
    );
  });

  test('after leadership is lost nothing that the deciding thread proposes is taken', () => {
    const cluster = formed();
    const former = cluster.of(n1);
    former.stall();
    cluster.cutOff = new Set([n1]);
    cluster.advance(2_000);
    const { epoch, next } = at(former.led.get(group));
    former.driver.propose(group, epoch, next, ['"late"']);
    former.wake();
    former.propose(group, '"later"');
    cluster.cutOff = new Set();
    cluster.advance(1_000);
    assert.ok(!former.folder.diskOf(group).log.some(({ body }) => body.includes('late')));
  });

  test('an owner’s uncommitted entries are kept elsewhere when another leader’s replace them (R9)', () => {
    const cluster = formed();
    const former = cluster.of(n1);
    cluster.cutOff = new Set([n1]);
    former.propose(group, '"answered on the strength of this disk alone"');
    cluster.advance(2_000);
    cluster.cutOff = new Set();
    cluster.advance(1_000);
    assert.deepEqual(former.salvaged, [2]);
  });

  test('what belongs to no owner is entered by the leader alone, and through it', () => {
    const cluster = formed();
    const index = cluster.of(n1).folder.diskOf(configGroup).last().index + 1;
    assert.deepEqual(cluster.of(n1).driver.enter(configGroup, ['"row"']), { index, term: 1 });
    assert.equal(cluster.of(n2).driver.enter(configGroup, ['"row"']), undefined);
    assert.equal(cluster.of(n1).driver.enter(group, ['"not past the owner"']), undefined);
    assert.equal(cluster.of(n1).driver.enter(groupId('unknown'), ['"row"']), undefined);
  });

  test('who leads is told at every node', () => {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    cluster.advance(100);
    for (const id of [n2, n3, n4]) {
      const told = cluster
        .of(id)
        .events.flatMap((event) => (event.kind === 'leader' && event.group === group ? [event.leader] : []));
      assert.deepEqual(told, [undefined, n2], id);
    }
  });

  test('a change of membership goes through the owner’s hands, one at a time', () => {
    const cluster = formed();
    cluster.kill(n4);
    cluster.folders.set(n4, new Folder());
    cluster.start(n4);
    const leader = cluster.of(n1);
    cluster.advance(5_000);
    assert.equal(leader.told('append').length, 2, 'removed and fed; made a voter');
    assert.deepEqual(leader.status().voters, [...members(n1, n2, n3, w1), { id: n4, incarnation: 2 }]);
    assert.deepEqual(cluster.of(n4).status().incarnation, 2);
    assert.ok(cluster.of(n4).status().votes);
  });

  test('an owner that does not get to it is asked again, and what comes twice is refused (4.1)', () => {
    const cluster = formed();
    cluster.kill(n4);
    cluster.folders.set(n4, new Folder());
    cluster.start(n4);
    const leader = cluster.of(n1);
    leader.stall();
    cluster.advance(275);
    leader.wake();
    cluster.advance(100);
    const entries = leader.folder.diskOf(group).log.filter(({ body }) => body.startsWith('{"kind":"membership"'));
    assert.ok(entries.length <= 1);
    cluster.advance(5_000);
    assert.deepEqual(leader.status().voters.length, 5);
  });
});

describe('a broken copy or disk', () => {
  test('stops alone, says so, and another leads', () => {
    const cluster = formed();
    const broken = cluster.of(n1);
    broken.driver.onWriter({ kind: 'failed', group, reason: 'disk full', cause: 'disk' });
    assert.deepEqual(broken.told('failure', 'resign'), ['resign', 'failure']);
    assert.deepEqual([broken.status().failure, broken.driver.leads], ['disk full', [configGroup]]);
    cluster.until(n2);
    assert.equal(cluster.leader(configGroup), n1, 'its other groups go on');
  });

  test('a group whose file cannot be opened is not hosted, and the caller is told', () => {
    const cluster = new Cluster([]);
    const process = new Process(cluster, n1, new Folder());
    process.folder.diskOf = () => {
      throw new Error('unused');
    };
    const errors: (Error | undefined)[] = [];
    assert.throws(() => {
      process.driver.open(group, (error) => errors.push(error));
    }, /unused/);
    assert.equal(process.driver.replica(group), undefined);
  });
});

describe('what is remembered of members (R8)', () => {
  test('is synced every second and when the process stops, and read when it starts', () => {
    const cluster = formed();
    cluster.of(n1).propose(group, '"x"');
    cluster.advance(1_100);
    for (const id of [n1, n2, n3, n4, w1]) {
      const { acknowledged } = at(cluster.folders.get(id));
      for (const other of everybody.filter((each) => each !== id)) {
        const known = acknowledged.get(`${group} ${other}`);
        assert.deepEqual([known?.incarnation, known?.term, known?.index], [1, 1, 2], `${id} of ${other}`);
      }
      assert.equal(acknowledged.get(`${group} ${id}`), undefined, 'of itself its disk tells');
    }
    cluster.of(n1).propose(group, '"y"');
    cluster.advance(300);
    cluster.kill(n2);
    assert.equal(at(cluster.folders.get(n2)).acknowledged.get(`${group} ${n3}`)?.index, 3);
    const restarted = cluster.start(n2);
    const greeting = encodeGroupMessages(digestOf(cluster), [{ group, message: hello(0) }]);
    cluster.datagrams.length = 0;
    restarted.driver.receive(n3, greeting);
    cluster.clock.advance(1);
    const reply = cluster.datagrams
      .filter(({ from, to }) => from === n2 && to === n3)
      .flatMap(({ bytes }) => at(decodeGroupMessages(bytes)).messages)
      .find(({ message }) => message.kind === 'hello-reply');
    assert.ok(reply?.message.kind === 'hello-reply');
    assert.deepEqual([reply.message.knownIncarnation, reply.message.knownTerm, reply.message.knownIndex], [1, 1, 3]);
  });

  test('the latest counts: of a later incarnation, then of a later term, though its log is shorter', () => {
    const cluster = formed();
    const follower = cluster.of(n3);
    const known = (): unknown => {
      cluster.advance(1_100);
      const { incarnation, term, index } = at(follower.folder.acknowledged.get(`${group} ${n4}`));
      return [incarnation, term, index];
    };
    assert.deepEqual(known(), [1, 1, 1]);
    cluster.kill(n4);
    for (const [term, incarnation, index, expected] of [
      [1, 1, 9, [1, 1, 9]],
      [1, 1, 5, [1, 1, 9]],
      [1, 2, 3, [2, 1, 3]],
      [1, 1, 99, [2, 1, 3]],
    ] as const) {
      const heartbeat = append(follower.folder.diskOf(group).log, { term, after: 1 });
      const acknowledged = [{ id: n4, incarnation, index, applied: 0 }];
      follower.driver.receive(
        n1,
        encodeGroupMessages(digestOf(cluster), [{ group, message: { ...heartbeat, acknowledged } }]),
      );
      assert.deepEqual(known(), expected);
    }
  });
});

describe('whom it listens to', () => {
  test('a peer with another nodes.yaml is refused, and both sides name the difference', () => {
    const cluster = new Cluster([n1, n2, n3]);
    const other = cluster.start(n4, topologyText('east'));
    cluster.until(n1);
    cluster.advance(1_000);
    assert.deepEqual(other.driver.mismatches.map(({ peer }) => peer).sort(), [n1, n2, n3]);
    assert.equal(other.driver.mismatches[0]?.difference, 'only here: n4@east; only there: n4@west');
    assert.deepEqual(cluster.of(n1).driver.mismatches, [
      { peer: n4, difference: 'only here: n4@west; only there: n4@east' },
    ]);
    assert.deepEqual(other.status().leader, undefined, 'it takes part in nothing');
    assert.ok(other.logged.includes('error: refused: other voters or sites'));
  });

  test('when the files agree again it is heard, and the difference forgotten', () => {
    const cluster = new Cluster([n1, n2, n3]);
    cluster.start(n4, topologyText('east'));
    cluster.until(n1);
    cluster.kill(n4);
    cluster.start(n4);
    cluster.advance(1_000);
    assert.deepEqual([cluster.of(n4).status().leader, cluster.of(n1).driver.mismatches], [n1, []]);
  });

  test('a peer that differs is told so once a second, not with every message', () => {
    const cluster = new Cluster([n1, n2, n3]);
    cluster.start(n4, topologyText('east'));
    cluster.until(n1);
    cluster.datagrams.length = 0;
    cluster.advance(3_000);
    const told = cluster.datagrams.filter(
      ({ from, bytes }) => from === n4 && decodeGroupMessages(bytes)?.description !== undefined,
    );
    assert.ok(told.length >= 3 && told.length <= 12, `${told.length} to three peers`);
  });

  test('whoever is not in nodes.yaml is counted, and not heard', () => {
    const cluster = formed();
    const { driver } = cluster.of(n2);
    const message = vote(9, extend(logOf(), 9, 9), 'transfer');
    const bytes = encodeGroupMessages(digestOf(cluster), [{ group, message }]);
    driver.receive(nodeId('n9'), bytes);
    driver.receiveSnapshot(nodeId('n9'), bytes);
    cluster.advance(50);
    assert.deepEqual([driver.strangers, cluster.of(n2).status().term], [2, 1]);
  });

  test('a damaged datagram is counted, and nothing of it is taken', () => {
    const cluster = formed();
    const bytes = Buffer.from(at(cluster.datagrams[0]).bytes);
    bytes[20] = (bytes[20] ?? 0) ^ 1;
    cluster.of(n2).driver.receive(n1, bytes);
    assert.equal(cluster.of(n2).driver.damaged, 1);
  });

  test('a group that a peer speaks of is opened, if its name can be one and there are not too many', () => {
    const cluster = formed();
    const { driver } = cluster.of(n2);
    const receive = (name: string): void => {
      const message = append([], { term: 1 });
      driver.receive(n1, encodeGroupMessages(digestOf(cluster), [{ group: name as GroupId, message }]));
    };
    receive('b');
    for (const name of ['../../etc', 'B', '', 'x'.repeat(17)]) receive(name);
    assert.deepEqual(
      driver
        .status()
        .map((each) => each.group)
        .sort(),
      ['a', 'b', 'config'],
    );
    for (let count = 0; count < 1_000; count++) receive(`g${count}`);
    assert.equal(driver.status().length, 256);
  });

  test('messages of all groups to a peer travel together, as far as they fit into a datagram', () => {
    const cluster = formed();
    const leader = cluster.of(n1);
    cluster.datagrams.length = 0;
    leader.propose(group, '"x"');
    leader.driver.enter(configGroup, ['"y"']);
    cluster.clock.advance(1);
    const toN2 = cluster.datagrams.filter(({ from, to }) => from === n1 && to === n2);
    assert.equal(toN2.length, 1);
    assert.deepEqual(
      at(decodeGroupMessages(at(toN2[0]).bytes))
        .messages.map((each) => each.group)
        .sort(),
      ['a', 'config'],
    );
    const large = Array.from({ length: 40 }, () => `"${'x'.repeat(50_000)}"`);
    cluster.datagrams.length = 0;
    leader.propose(group, ...large);
    cluster.advance(200);
    for (const { bytes } of cluster.datagrams) assert.ok(bytes.length < 700 * 1024, `${bytes.length}`);
    assert.equal(cluster.of(n2).folder.diskOf(group).last().index, 42);
  });
});

describe('logs are trimmed', () => {
  test('at a node below what is kept, at a witness below what two nodes have applied, whoever is behind', () => {
    const cluster = formed();
    cluster.kill(n4);
    const leader = cluster.of(n1);
    for (let count = 0; count < 20; count++) {
      leader.propose(group, ...Array.from({ length: 100 }, () => '"x"'));
      cluster.advance(100);
    }
    cluster.advance(2_500);
    for (const id of [n1, n2, n3, w1]) {
      const { base, last, applied } = cluster.of(id).status();
      assert.equal(last, 2_001, id);
      assert.ok(base > 500 && base <= applied - keptLogEntries, `${id}: ${base} of ${applied}`);
    }
  });

  test('and not for a few entries', () => {
    const cluster = formed();
    for (let count = 0; count < 14; count++) {
      cluster.of(n1).propose(group, ...Array.from({ length: 100 }, () => '"x"'));
      cluster.advance(100);
    }
    cluster.advance(2_500);
    assert.deepEqual(cluster.of(n1).trimmed, []);
  });
});

describe('recovery of a lost majority', () => {
  test('goes on with those who are left; the entry names who is not', () => {
    const cluster = formed();
    for (const id of [n1, n3, n4]) cluster.kill(id);
    cluster.advance(2_000);
    assert.equal(cluster.leader(), undefined);
    const recovered = cluster.of(n2).driver.recover(group, [n1, n3, n4], 'an operator');
    assert.deepEqual(recovered?.voters, members(n2, w1));
    cluster.until(n2, 1_000);
    cluster.advance(500);
    const { voters, commit, last } = cluster.of(n2).status();
    assert.deepEqual([voters, commit], [members(n2, w1), last]);
    const entry = JSON.parse(at(cluster.of(w1).folder.diskOf(group).log.at(-1)).body) as { by: string; lost: NodeId[] };
    assert.deepEqual([entry.by, entry.lost], ['an operator', [n1, n3, n4]]);
    cluster.of(n2).propose(group, '"on"');
    cluster.advance(200);
    assert.equal(cluster.of(w1).folder.diskOf(group).log.at(-1)?.body, '"on"');
  });

  test('is refused where this process would be among the lost, or has no such group', () => {
    const cluster = formed();
    assert.equal(cluster.of(n2).driver.recover(group, [n2], 'an operator'), undefined);
    assert.equal(cluster.of(n2).driver.recover(group, everybody, 'an operator'), undefined);
    assert.equal(cluster.of(n2).driver.recover(groupId('unknown'), [n1], 'an operator'), undefined);
    cluster.advance(1_000);
    assert.equal(cluster.leader(), n1);
  });
});
