import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  append,
  appendReply,
  at,
  Disk,
  electionTimeoutMs,
  extend,
  firstAppend,
  firstVoters,
  granted,
  group,
  heartbeatMs,
  indexesOf,
  kindsOf,
  logOf,
  Machine,
  members,
  membershipBody,
  n1,
  n2,
  n3,
  n4,
  Network,
  vote,
} from './testing.ts';
import { originPosition } from '../store/entry.ts';
import type { RaftMessage } from './raft.ts';

/* Members that lack what the leader has trimmed (R10, 5.1). Names of scenarios in brackets: see raft.test.ts. */

const behind = (term: number, base: number): RaftMessage => ({
  kind: 'behind',
  incarnation: 1,
  term,
  base,
  sequence: 1,
  sentMs: 7,
});

/** A disk whose log has been trimmed up to `base`. */
function trimmedDisk(log: Disk['log'], base: number, voters = firstVoters(3)): Disk {
  const disk = new Disk(voters);
  disk.log = [...log];
  disk.applied = base;
  disk.hardState = { term: log.at(-1)?.term ?? 0, votedFor: undefined };
  disk.trim(base);
  return disk;
}

describe('a leader whose log has been trimmed', () => {
  const log = logOf(1, 1, 1, 2, 2);
  const leading = (): Machine => {
    const leader = new Machine(n1, {}, trimmedDisk(log, 3));
    leader.lead();
    leader.take();
    return leader;
  };

  test('tells a follower that lacks what was trimmed, and no other [TestProvideSnap, TestIgnoreProvidingSnap]', () => {
    const leader = leading();
    leader.hears(n2, 2, { accepted: false });
    leader.hears(n3, 3, { accepted: false });
    leader.take();
    const beat = leader.tick(heartbeatMs);
    assert.deepEqual(kindsOf(beat), ['behind to n2', 'append to n3']);
    const message = beat.messages[0]?.message;
    assert.ok(message?.kind === 'behind');
    assert.equal(message.base, 3);
  });

  test('goes on telling it with every heartbeat, and is heard by that [TestPendingSnapshotPauseReplication]', () => {
    const leader = leading();
    leader.hears(n2, 0, { accepted: false });
    for (let count = 0; count < 20; count++) {
      leader.hears(n2, 0, { accepted: false, sentMs: Math.floor(leader.nowMs) });
      leader.propose('"x"');
      leader.take();
      const kinds = kindsOf(leader.tick(heartbeatMs)).filter((kind) => kind.endsWith('n2'));
      assert.deepEqual(kinds, ['behind to n2']);
    }
    assert.equal(leader.raft.role, 'leader', 'n2 makes a majority with it');
  });

  test('sends entries as soon as the follower has the snapshot [TestSnapshotSucceed, TestRestoreFromSnapMsg]', () => {
    const leader = leading();
    leader.hears(n2, 0, { accepted: false });
    leader.tick(heartbeatMs);
    leader.hears(n2, 3, { accepted: false });
    const messages = leader.messagesTo(n2);
    assert.equal(firstAppend(messages).previous.index, 3);
    assert.deepEqual(indexesOf(messages), [4, 5, 6]);
  });

  test('that is trimmed while a follower is being sent entries tells that one, too', () => {
    const disk = trimmedDisk(log, 1);
    const leader = new Machine(n1, {}, disk);
    leader.lead();
    leader.take();
    leader.hears(n2, 2, { accepted: false });
    disk.applied = 4;
    disk.trim(4);
    leader.tail.onTrimmed(disk.start);
    assert.deepEqual(kindsOf(leader.tick(heartbeatMs)), ['behind to n2', 'append to n3']);
  });
});

describe('a follower that is told that it is behind', () => {
  test('says where it is, whom it asks for a snapshot, and takes the message for a heartbeat', () => {
    const follower = new Machine(n2, { log: logOf(1, 1), applied: 1 });
    follower.receive(n1, behind(3, 5));
    const ready = follower.take();
    assert.equal(ready.fetchSnapshotFrom, n1);
    const expected = appendReply(3, 1, { accepted: false, applied: 1, sequence: 1, sentMs: 7 });
    assert.deepEqual(ready.messages, [{ to: n1, message: expected }]);
    assert.equal(follower.take().fetchSnapshotFrom, undefined, 'once for each message');
    follower.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(granted(follower.exchange(n3, vote(9, logOf(9)))), [], 'it is deaf to others');
  });

  test('asks for none when it has all that was trimmed', () => {
    const follower = new Machine(n2, { log: logOf(1, 1, 1), applied: 3 });
    follower.receive(n1, behind(3, 3));
    assert.equal(follower.take().fetchSnapshotFrom, undefined);
  });

  test('does not listen to a deposed leader that says so', () => {
    const follower = new Machine(n2, { hardState: { term: 4, votedFor: undefined } });
    follower.receive(n1, behind(3, 5));
    assert.equal(follower.take().fetchSnapshotFrom, undefined);
  });
});

describe('a snapshot that has arrived', () => {
  const log = logOf(1, 1, 2, 2, 2, 2);
  const position = at(log[3]);

  test('replaces a log that ends before it, with its membership [TestRestore, TestRestoreWithLearner, TestSlowNodeRestore]', () => {
    const follower = new Machine(n2, { log: logOf(1, 1), applied: 1 });
    follower.exchange(n1, append(log, { term: 3, after: 5 }));
    const taken = follower.raft.takeSnapshot(position);
    assert.ok(taken.kind === 'install');
    follower.installSnapshot(position, { index: 3, voters: members(n1, n2), learners: members(n3) });
    const { raft, tail } = follower;
    assert.deepEqual([raft.commit, raft.durable, tail.last, tail.base], [4, 4, position, position]);
    assert.deepEqual(raft.membership, { index: 3, voters: members(n1, n2), learners: members(n3) });
    const [reply] = follower.exchange(n1, append(log, { term: 3, after: 4, commit: 6 }));
    assert.ok(reply?.kind === 'append-reply');
    assert.deepEqual([reply.accepted, reply.match, raft.commit], [true, 6, 6]);
  });

  test('does not: one that has its last entry keeps what comes after, which it may have acknowledged [figure 5.3, TestRestoreIgnoreSnapshot]', () => {
    const follower = new Machine(n2, { log, applied: 1 });
    assert.deepEqual(follower.raft.takeSnapshot(position), { kind: 'have' });
    assert.deepEqual([follower.raft.commit, follower.tail.last.index], [4, 6], 'all in it was committed');
    follower.nowMs += 10_000;
    assert.deepEqual(
      granted(follower.exchange(n3, vote(9, log.slice(0, 5)))),
      [false],
      'its votes answer for all of it',
    );
    assert.deepEqual(granted(follower.exchange(n3, vote(10, log))), [true]);
  });

  test('so a member that restarts with a full log and a fold far behind it loses none of it [5.1]', () => {
    const network = new Network(3);
    network.elect(n1);
    for (let count = 0; count < 10; count++) network.of(n1).propose('"x"');
    network.advance(2 * heartbeatMs);
    // What it applied was not synced, and its log was.
    const { disk } = network.of(n2);
    disk.applied = 2;
    network.of(n1).disk.trim(8);
    network.of(n1).tail.onTrimmed(network.of(n1).disk.start);
    network.restart(n2);
    network.of(n1).propose('"y"');
    network.advance(1_000);
    assert.equal(network.snapshots, 0);
    assert.deepEqual(network.lastIndexes(), [12, 12, 12]);
  });

  test('replaces one that holds something else there, of which what was on disk is kept elsewhere (R9)', () => {
    const own = logOf(1, 1, 1, 1, 1, 1, 1);
    const follower = new Machine(n2, { log: own.slice(0, 6), applied: 2 });
    const taken = follower.raft.takeSnapshot(position);
    assert.ok(taken.kind === 'install');
    assert.deepEqual(taken.removed, own.slice(2, 6));
    follower.installSnapshot(position, { index: 0, voters: firstVoters(3), learners: [] });
    assert.deepEqual(follower.tail.last, position);
    assert.deepEqual(follower.take().write, undefined, 'nothing of the old log is written to the new file');
  });

  test('that has been cut in the same turn is kept, too', () => {
    const own = logOf(1, 1, 1, 1);
    const follower = new Machine(n2, { log: own, applied: 1 });
    follower.receive(n1, append(log, { term: 3, after: 2, through: 3 }));
    const taken = follower.raft.takeSnapshot(position);
    assert.ok(taken.kind === 'install');
    assert.deepEqual(taken.removed.map(({ index }) => index).sort(), [2, 3, 4]);
  });

  for (const [what, prepare] of [
    [
      'is no newer than what is committed here',
      (machine: Machine) => machine.exchange(n1, append(log, { term: 2, commit: 4 })),
    ],
    ['comes to a leader', (machine: Machine) => machine.lead()],
    ['comes to a candidate, whose votes are for the log that it has', (machine: Machine) => machine.campaign()],
    ['comes to one that asks for votes', (machine: Machine) => machine.tick(50)],
  ] as const) {
    test(`is of no use when it ${what} [TestRestoreIgnoreSnapshot]`, () => {
      const machine = new Machine(n2, { log: logOf(1, 1), applied: 1 });
      prepare(machine);
      const before = machine.tail.last;
      assert.deepEqual(machine.raft.takeSnapshot(position), { kind: 'useless' });
      assert.deepEqual(machine.tail.last, before);
    });
  }

  test('is the only thing that happens until it is installed: nothing is heard, promised or asked', () => {
    const follower = new Machine(n2, { log: logOf(1), applied: 1 });
    follower.raft.takeSnapshot(position);
    assert.deepEqual(follower.raft.takeSnapshot(at(log[5])), { kind: 'useless' }, 'one at a time');
    assert.deepEqual(follower.exchange(n1, append(log, { term: 3, after: 1 })), []);
    assert.deepEqual(follower.exchange(n3, vote(9, log)), []);
    follower.nowMs += 10_000;
    assert.deepEqual(kindsOf(follower.tick(50)), []);
    assert.deepEqual([follower.raft.term, follower.tail.last.index], [1, 1]);
  });

  test('and is refused, or fails: this copy goes on as it was [TestSnapshotFailure, TestSnapshotAbort]', () => {
    const follower = new Machine(n2, { log: logOf(1), applied: 1 });
    follower.raft.takeSnapshot(position);
    follower.raft.onSnapshotRefused();
    const [reply] = follower.exchange(n1, append(log, { term: 3, after: 1 }));
    assert.ok(reply?.kind === 'append-reply' && reply.accepted);
  });
});

test('a member that was away for long is brought up to date by a snapshot, then entries [TestSlowNodeRestore]', () => {
  const network = new Network(3);
  network.elect(n1);
  network.isolate(n3);
  for (let count = 0; count < 30; count++) {
    network.of(n1).propose(`"${count}"`);
    network.advance(25);
  }
  const { disk, tail } = network.of(n1);
  disk.trim(20);
  tail.onTrimmed(disk.start);
  network.heal();
  network.advance(2_000);
  assert.equal(network.snapshots, 1);
  assert.deepEqual(network.lastIndexes(), [31, 31, 31]);
  assert.equal(network.of(n3).raft.commit, 31);
});

test('a snapshot brings the membership of its index; later ones come with the entries [TestRestoreWithLearner]', () => {
  const network = new Network(3);
  network.elect(n1);
  network.isolate(n3);
  network.of(n1).propose(membershipBody(firstVoters(3), members(n4)));
  network.advance(500);
  const { disk, tail } = network.of(n1);
  disk.trim(2);
  tail.onTrimmed(disk.start);
  network.heal();
  network.advance(2_000);
  assert.deepEqual(network.of(n3).raft.membership, network.of(n1).raft.membership);
  network.restart(n3);
  assert.deepEqual(network.of(n3).raft.membership.learners, members(n4), 'also after a restart');
});

test('the log after a snapshot is chained to it', () => {
  const follower = new Machine(n2);
  const log = extend(logOf(1, 1), 2);
  follower.raft.takeSnapshot(at(log[1]));
  follower.installSnapshot(at(log[1]), { index: 0, voters: firstVoters(3), learners: [] });
  follower.exchange(n1, append(log, { term: 2, after: 2 }));
  assert.equal(follower.tail.position(3)?.hash, log[2]?.hash);
  assert.equal(follower.tail.position(1), undefined);
  assert.notEqual(follower.tail.base.hash, originPosition(group).hash);
});
