import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { nodeId } from '../base/identifiers.ts';
import {
  append,
  appendReply,
  at,
  electionTimeoutMs,
  granted,
  heartbeatMs,
  indexesOf,
  kindsOf,
  leaseMs,
  logOf,
  Machine,
  members,
  membershipBody,
  n1,
  n2,
  n3,
  n4,
  n5,
  Network,
  takeOver,
  vote,
  voteReply,
} from './testing.ts';

/* Transfer of leadership (3.10), and a leader's lease (6.4.1, R3). Names of scenarios in brackets: see raft.test.ts. */

const tellsTo = (machine: Machine): string[] => kindsOf(machine.take()).filter((kind) => kind.startsWith('take-over'));

describe('a transfer of leadership [3.10]', () => {
  const leading = (voters = 3): Machine => {
    const leader = new Machine(n1, { voters });
    leader.lead();
    leader.take();
    return leader;
  };

  test('to a member that has everything: it is told at once, and leads [TestLeaderTransferToUpToDateNode, ...WithCheckQuorum]', () => {
    const network = new Network(3);
    network.elect(n1);
    assert.ok(network.of(n1).raft.transfer(n2, network.of(n1).nowMs));
    network.settle();
    assert.deepEqual(network.roles(), ['n1 follower 2', 'n2 leader 2', 'n3 follower 2']);
    network.of(n1).propose('"x"');
    assert.ok(network.of(n2).raft.transfer(n1, network.of(n2).nowMs));
    network.settle();
    assert.equal(network.leader, n1);
  });

  test('to one that is behind: it gets everything first [TestLeaderTransferToSlowFollower]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n3);
    for (let count = 0; count < 10; count++) network.of(n1).propose('"x"');
    network.advance(heartbeatMs);
    network.heal();
    assert.ok(network.of(n1).raft.transfer(n3, network.of(n1).nowMs));
    network.advance(500);
    assert.equal(network.leader, n3);
    assert.deepEqual(network.lastIndexes(), [12, 12, 12]);
  });

  test('to one that needs a snapshot: after it [TestLeaderTransferAfterSnapshot]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n3);
    for (let count = 0; count < 10; count++) network.of(n1).propose('"x"');
    network.advance(heartbeatMs);
    const { disk, tail } = network.of(n1);
    disk.trim(11);
    tail.onTrimmed(disk.start);
    network.heal();
    assert.ok(network.of(n1).raft.transfer(n3, network.of(n1).nowMs));
    network.advance(500);
    assert.deepEqual([network.snapshots, network.leader], [1, n3]);
  });

  test('waits while the target lacks an entry, also one that came after it began', () => {
    const leader = leading();
    leader.propose('"x"');
    leader.take();
    leader.hears(n2, 1);
    assert.ok(leader.raft.transfer(n2, leader.nowMs));
    assert.equal(leader.raft.transferringTo, n2);
    leader.propose('"y"');
    leader.hears(n2, 2);
    assert.deepEqual(tellsTo(leader), []);
    leader.hears(n3, 3);
    assert.deepEqual(tellsTo(leader), [], 'another one does not matter');
    leader.hears(n2, 3);
    assert.deepEqual(tellsTo(leader), ['take-over to n2']);
    leader.hears(n2, 3);
    assert.deepEqual(tellsTo(leader), [], 'once');
  });

  for (const [what, to] of [
    ['itself [TestLeaderTransferToSelf]', n1],
    ['nobody that is known [TestLeaderTransferToNonExistingNode]', nodeId('n9')],
    ['a learner [TestLeaderTransferToLearner]', n4],
    ['a voter with another disk than the membership counts (R8)', n3],
  ] as const) {
    test(`is not begun to ${what}`, () => {
      const leader = new Machine(n1, { learners: members(n4) });
      leader.lead();
      leader.hears(n3, 0, { incarnation: 2 });
      leader.hears(n4, 1);
      assert.equal(leader.raft.transfer(to, leader.nowMs), false);
      assert.equal(leader.raft.transferringTo, undefined);
    });
  }

  test('is begun by the leader only [TestLeaderTransferToUpToDateNodeFromFollower]', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append([], { term: 1 }));
    assert.equal(follower.raft.transfer(n3, follower.nowMs), false);
  });

  test('while one is under way no other is begun [TestLeaderTransferSecondTransferToAnotherNode, ...ToSameNode]', () => {
    const leader = leading();
    assert.ok(leader.raft.transfer(n2, leader.nowMs));
    for (const to of [n2, n3]) assert.equal(leader.raft.transfer(to, leader.nowMs), false);
    leader.hears(n3, 1);
    leader.tick(electionTimeoutMs - 1);
    assert.equal(leader.raft.transferringTo, n2, 'and the second attempt does not prolong the first');
    leader.hears(n3, 1);
    leader.tick(1);
    assert.ok(leader.raft.transfer(n3, leader.nowMs));
  });

  test('ends with the election timeout, and the leader leads on [TestLeaderTransferTimeout]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n3);
    network.of(n1).propose('"x"');
    assert.ok(network.of(n1).raft.transfer(n3, network.of(n1).nowMs));
    network.advance(electionTimeoutMs);
    assert.equal(network.of(n1).raft.transferringTo, undefined);
    assert.deepEqual([network.leader, network.of(n1).raft.term], [n1, 1]);
    assert.ok(network.of(n1).propose('"y"'));
  });

  test('once the target is told, proposals are refused until it leads or the time is over [TestLeaderTransferIgnoreProposal]', () => {
    const leader = leading();
    leader.hears(n2, 1);
    assert.ok(leader.raft.transfer(n2, leader.nowMs));
    assert.equal(leader.propose('"x"'), undefined);
    leader.tick(electionTimeoutMs - 1);
    leader.hears(n3, 1);
    leader.tick(1);
    assert.equal(leader.propose('"x"'), 2);
  });

  test('a message of a later term ends it [TestLeaderTransferReceiveHigherTermVote]', () => {
    const leader = leading();
    leader.raft.transfer(n2, leader.nowMs);
    leader.receive(n3, appendReply(5, 0, { accepted: false }));
    assert.deepEqual([leader.raft.role, leader.raft.transferringTo, leader.raft.term], ['follower', undefined, 5]);
  });

  test('to a member that is removed or made a learner meanwhile comes to nothing [TestLeaderTransferRemoveNode, ...DemoteNode]', () => {
    for (const learners of [[], members(n3)]) {
      const leader = leading();
      leader.hears(n2, 1);
      leader.hears(n3, 0);
      assert.ok(leader.raft.transfer(n3, leader.nowMs));
      assert.ok(leader.propose(membershipBody(members(n1, n2), learners)));
      leader.take();
      leader.hears(n2, 2);
      leader.hears(n3, 1);
      assert.deepEqual(tellsTo(leader), []);
      leader.tick(electionTimeoutMs - 1);
      leader.hears(n2, 2);
      leader.tick(1);
      assert.deepEqual([leader.raft.role, leader.raft.transferringTo], ['leader', undefined]);
    }
  });

  test('its target is listened to by voters that hear the leader, and says why [4.2.3]', () => {
    const target = new Machine(n2);
    target.exchange(n1, append([], { term: 1 }));
    target.receive(n1, takeOver(1));
    const { messages, hardState } = target.take();
    assert.deepEqual(hardState, { term: 2, votedFor: n2 });
    assert.deepEqual(
      messages.map(({ to, message }) => [to, message]),
      [n1, n3].map((to) => [to, vote(2, [], 'transfer')]),
    );
    const voter = new Machine(n3);
    voter.exchange(n1, append([], { term: 1 }));
    assert.deepEqual(granted(voter.exchange(n2, vote(2, [], 'transfer'))), [true]);
  });

  test('is taken up only from this term’s leader, by a voter [TestTransferNonMember, TestLeaderTransferBackwardTerm]', () => {
    const follower = (): Machine => {
      const machine = new Machine(n2, { hardState: { term: 3, votedFor: undefined } });
      machine.exchange(n1, append([], { term: 3 }));
      return machine;
    };
    for (const [from, term] of [
      [n3, 3],
      [n1, 2],
    ] as const) {
      const machine = follower();
      machine.receive(from, takeOver(term));
      assert.deepEqual([machine.raft.role, machine.raft.term], ['follower', 3]);
    }
    const learner = new Machine(n4, { learners: members(n4) });
    learner.exchange(n1, append([], { term: 3 }));
    learner.receive(n1, takeOver(3));
    assert.equal(learner.raft.role, 'follower');
    const machine = follower();
    machine.receive(n1, takeOver(3));
    machine.receive(n1, takeOver(3));
    assert.deepEqual([machine.raft.role, machine.raft.term], ['candidate', 4], 'a second copy is of an earlier term');
  });

  test('whose target dies leaves the group with an ordinary election', () => {
    const network = new Network(3);
    network.elect(n1);
    network.loses = (from) => from === n2;
    assert.ok(network.of(n1).raft.transfer(n2, network.of(n1).nowMs));
    network.advance(3_000);
    assert.ok(network.leader === n1 || network.leader === n3);
    assert.ok(network.of(network.leader).propose('"x"'));
  });

  test('a leader that steps down by itself lets others try first', () => {
    const network = new Network(3);
    network.elect(n1);
    network.of(n1).raft.stepDown(network.of(n1).nowMs);
    assert.equal(network.of(n1).raft.role, 'follower');
    network.advance(1_200);
    assert.equal(network.leader, n2);
  });
});

describe('a lease [6.4.1] (R3)', () => {
  const leading = (voters = 5): Machine => {
    const leader = new Machine(n1, { voters });
    leader.lead();
    leader.take();
    return leader;
  };

  test('begins when the first entry of the term is committed: before, others’ answers may be unknown (R1)', () => {
    const leader = leading();
    const sentMs = Math.floor(leader.nowMs);
    for (const id of [n2, n3]) leader.hears(id, 0, { accepted: false, sentMs });
    assert.equal(leader.raft.leaseUntilMs, 0);
    for (const id of [n2, n3]) leader.hears(id, 1, { sentMs });
    assert.equal(leader.raft.leaseUntilMs, sentMs + leaseMs);
  });

  test('counts from when the messages were sent that a majority has answered, not from the answers', () => {
    const leader = leading();
    for (const [id, sentMs] of [
      [n2, 10_900],
      [n3, 10_800],
      [n4, 10_500],
    ] as const) {
      leader.hears(id, 1, { sentMs });
    }
    assert.equal(leader.raft.leaseUntilMs, 10_800 + leaseMs, 'itself and two of four');
    leader.hears(n5, 1, { sentMs: 10_850 });
    assert.equal(leader.raft.leaseUntilMs, 10_850 + leaseMs);
    leader.hears(n5, 1, { sentMs: 10_000 });
    assert.equal(leader.raft.leaseUntilMs, 10_850 + leaseMs, 'a late answer takes nothing back');
  });

  test('every message carries when it was sent, and the answer says it again', () => {
    const leader = leading(3);
    leader.nowMs = 12_345.6;
    const beat = leader.tick(heartbeatMs).messages[0]?.message;
    assert.ok(beat?.kind === 'append');
    assert.equal(beat.sentMs, 12_445, 'rounded down, never up');
    const follower = new Machine(n2);
    for (const sync of [true, false]) {
      for (const reply of follower.exchange(n1, { ...beat, entries: [] }, { sync })) {
        assert.ok(reply.kind === 'append-reply');
        assert.equal(reply.sentMs, 12_445);
      }
    }
  });

  test('a refusal renews it: whoever refuses an entry has heard the leader all the same', () => {
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: 10_100 });
    leader.hears(n2, 0, { accepted: false, sentMs: 10_200 });
    assert.equal(leader.raft.leaseUntilMs, 10_200 + leaseMs);
  });

  test('is not renewed by learners, or by disks that the membership does not count (R8)', () => {
    const leader = new Machine(n1, { learners: members(n4) });
    leader.lead();
    leader.hears(n2, 1, { sentMs: 10_100 });
    leader.hears(n4, 1, { sentMs: 10_900 });
    leader.hears(n3, 0, { sentMs: 10_900, incarnation: 2 });
    assert.equal(leader.raft.leaseUntilMs, 10_100 + leaseMs);
  });

  test('is shorter than a voter’s deafness by more than clocks may differ in that time', () => {
    assert.ok(leaseMs * 1.02 < electionTimeoutMs * 0.98);
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: 10_000 });
    assert.equal(leader.raft.leaseUntilMs - 10_000, leaseMs);
  });

  test('ends for the rest of the term when a transfer begins, whatever comes of it', () => {
    const network = new Network(3);
    network.elect(n1);
    const { raft } = network.of(n1);
    assert.ok(raft.leaseUntilMs > network.of(n1).nowMs);
    network.isolate(n3);
    network.of(n1).propose('"x"');
    assert.ok(raft.transfer(n3, network.of(n1).nowMs), 'which is not told: it lacks an entry');
    assert.equal(raft.leaseUntilMs, 0);
    network.advance(2 * electionTimeoutMs);
    assert.deepEqual([network.leader, raft.term, raft.leaseUntilMs], [n1, 1, 0]);
    network.heal();
    network.elect(n2);
    network.elect(n1);
    assert.ok(network.of(n1).raft.leaseUntilMs > network.of(n1).nowMs, 'a new term, a new lease');
  });

  test('can be ended before the transfer begins; it is said until when the last one goes', () => {
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: 10_100 });
    assert.equal(leader.raft.endLease(), 10_100 + leaseMs);
    leader.hears(n2, 1, { sentMs: 10_900 });
    assert.equal(leader.raft.leaseUntilMs, 0);
    assert.equal(leader.raft.role, 'leader');
  });

  test('is nobody’s who does not lead', () => {
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: 10_100 });
    leader.raft.stepDown(leader.nowMs);
    assert.equal(leader.raft.leaseUntilMs, 0);
    assert.equal(new Machine(n1).raft.leaseUntilMs, 0);
  });

  test('a leader that steps down by itself keeps deaf as long as a lease of its own may last', () => {
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: Math.floor(leader.nowMs) });
    leader.raft.stepDown(leader.nowMs);
    leader.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(granted(leader.exchange(n3, vote(2, logOf(1)))), []);
    leader.nowMs += 1;
    assert.deepEqual(granted(leader.exchange(n3, vote(2, logOf(1)))), [true]);
  });

  test('has no end in a group of one voter', () => {
    const single = new Machine(n1, { voters: 1 });
    single.tick(50);
    single.take();
    assert.equal(single.raft.leaseUntilMs, Number.POSITIVE_INFINITY);
  });

  test('a candidate has none before it is elected, and none from its last term', () => {
    const leader = leading(3);
    leader.hears(n2, 1, { sentMs: 10_900 });
    leader.nowMs += 2 * electionTimeoutMs;
    leader.tick();
    leader.campaign();
    assert.deepEqual([leader.raft.role, leader.raft.leaseUntilMs], ['candidate', 0]);
    leader.receive(n3, voteReply(2, true));
    leader.take();
    assert.deepEqual([leader.raft.role, leader.raft.leaseUntilMs], ['leader', 0]);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [at(leader.disk.log[1]).index]);
  });
});
