import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { NodeId } from '../base/identifiers.ts';
import type { MembershipEntry, Member } from '../store/entry.ts';
import type { Remembered } from './raft.ts';
import {
  append,
  at,
  Disk,
  electionTimeoutMs,
  extend,
  firstVoters,
  granted,
  heartbeatMs,
  hello,
  helloReply,
  kindsOf,
  logOf,
  Machine,
  members,
  membershipBody,
  n1,
  n2,
  n3,
  n4,
  n5,
  n6,
  names,
  Network,
  preVote,
  vote,
  voteReply,
} from './testing.ts';
import { chainEntry } from '../store/entry.ts';

/*
 * Who counts: changes of membership (4), members that lost their disks (R8), and what an operator does when a majority is
 * lost. Names of scenarios in brackets: see raft.test.ts. Over 500 lines because all of it is one question: whose vote and
 * whose acknowledgement counts, when.
 */

const second = (id: NodeId): Member => ({ id, incarnation: 2 });

/** A leader of the first voters whose first entry is committed. */
function leading(voters = 5, learners: readonly Member[] = []): Machine {
  const leader = new Machine(n1, { voters, learners });
  leader.lead();
  leader.take();
  for (const id of names.slice(1, voters)) leader.hears(id, 1);
  return leader;
}

/** The leader's next step comes into its log, to the disks of `acknowledgedBy`, and so is committed. */
function takeStep(leader: Machine, acknowledgedBy: readonly NodeId[]): { readonly by: string } {
  const step = at(leader.raft.membershipStep(leader.nowMs));
  const index = at(leader.propose(membershipBody(step.voters, step.learners)));
  leader.take();
  for (const id of acknowledgedBy) {
    leader.hears(id, index, { incarnation: leader.raft.progress().get(id)?.incarnation ?? 1 });
  }
  assert.equal(leader.raft.commit, index);
  return step;
}

describe('changes of membership [4.1]', () => {
  test('are in effect as soon as they are appended, at the leader and at followers [4.1]', () => {
    const leader = leading(3);
    leader.propose(membershipBody(firstVoters(4)));
    assert.equal(leader.raft.membership.voters.length, 4);
    leader.take();
    leader.hears(n2, 2);
    assert.equal(leader.raft.commit, 1, 'two of four are no majority');
    leader.hears(n4, 2);
    assert.equal(leader.raft.commit, 2);
    const follower = new Machine(n2);
    const log = [chainEntry(at(logOf(1)[0]), 1, membershipBody(firstVoters(4)))];
    follower.exchange(n1, append([at(logOf(1)[0]), ...log], { term: 1 }), { sync: false });
    assert.equal(follower.raft.membership.voters.length, 4, 'committed or not');
  });

  test('are undone when their entry is cut [4.1]', () => {
    const first = at(logOf(1)[0]);
    const log = [first, chainEntry(first, 1, membershipBody(firstVoters(4)))];
    const follower = new Machine(n2);
    follower.exchange(n1, append(log, { term: 1 }));
    assert.equal(follower.raft.membership.index, 2);
    follower.exchange(n3, append(extend([first], 2), { term: 2, after: 1 }));
    assert.deepEqual(follower.raft.membership, { index: 0, voters: firstVoters(3), learners: [] });
  });

  test('also by one that has restarted since [4.1]', () => {
    const first = at(logOf(1)[0]);
    const one = chainEntry(first, 1, membershipBody(firstVoters(4)));
    const two = chainEntry(one, 1, membershipBody(firstVoters(5)));
    const follower = new Machine(n2, { log: [first, one, two], applied: 1 });
    assert.equal(follower.raft.membership.index, 3);
    follower.exchange(n3, append(extend([first, one], 2), { term: 2, after: 2 }));
    assert.equal(follower.raft.membership.index, 2);
    follower.exchange(n4, append(extend([first], 3), { term: 3, after: 1 }));
    assert.equal(follower.raft.membership.index, 0);
  });

  test('come one after the other: not before the one before is committed [4.1]', () => {
    const leader = leading(5);
    assert.equal(leader.propose(membershipBody(firstVoters(4))), 2);
    leader.take();
    const further = membershipBody(members(n1, n2, n3));
    assert.equal(leader.propose(further), undefined);
    leader.hears(n2, 2);
    assert.equal(leader.propose(further), undefined);
    leader.hears(n3, 2);
    assert.equal(leader.propose(further), 3);
  });

  test('and not before an entry of the leader’s own term is: two leaders could change it differently [4.1, the correction of 2015]', () => {
    const leader = new Machine(n1, { voters: 4, log: logOf(1) });
    leader.lead();
    leader.take();
    for (const id of [n2, n3, n4]) leader.hears(id, 1);
    assert.equal(leader.propose(membershipBody(firstVoters(3))), undefined);
    assert.equal(leader.raft.membershipStep(leader.nowMs), undefined);
    for (const id of [n2, n3]) leader.hears(id, 2);
    assert.equal(leader.propose(membershipBody(firstVoters(3))), 3);
  });

  test('add or remove a single voter: more at once, or two in one batch, are refused [4.1]', () => {
    for (const voters of [firstVoters(3), members(n1, n2, n3, n4, n6), [...firstVoters(4), second(n5)]]) {
      assert.equal(leading(5).propose(membershipBody(voters)), undefined, JSON.stringify(voters));
    }
    assert.equal(leading(5).propose(membershipBody(firstVoters(4)), membershipBody(firstVoters(5))), undefined);
    const leader = leading(5);
    assert.ok(leader.propose('"x"', membershipBody(firstVoters(4)), '"y"'), 'others may come with it');
    assert.equal(leading(5).raft.commit, 1);
  });

  test('a follower without the newest of them is led all the same, and votes [4.1, TestAddNodeCheckQuorum]', () => {
    const network = new Network(3);
    const joining = network.add(n4);
    network.elect(n1);
    network.isolate(n3);
    network.of(n1).propose(membershipBody(firstVoters(4)));
    network.advance(500);
    assert.equal(network.of(n1).raft.commit, 2);
    network.isolate(n1);
    network.loses = (from, to, message) => message.kind === 'append' && [from, to].includes(n1);
    network.heal();
    network.isolate(n1);
    network.advance(3_000);
    assert.ok(network.leader === n2 || network.leader === n4, 'n3 votes for one whose membership it does not know');
    assert.deepEqual([joining.raft.leader, network.of(n3).raft.membership.voters.length], [network.leader, 4]);
  });

  test('a leader that removes itself leads until that is committed, and is not counted [4.2.2, TestLeaderTransferRemoveNode]', () => {
    const leader = leading(3);
    assert.ok(leader.propose(membershipBody(members(n2, n3))));
    leader.take();
    leader.hears(n2, 2);
    leader.tick(50);
    assert.deepEqual([leader.raft.commit, leader.raft.role], [1, 'leader'], 'its own copy is none of two');
    leader.hears(n3, 2);
    leader.tick(50);
    assert.deepEqual([leader.raft.commit, leader.raft.role], [2, 'follower']);
    for (let waited = 0; waited < 5_000; waited += 50) leader.tick(50);
    assert.equal(leader.raft.role, 'follower', 'and it campaigns no more');
  });

  test('who was removed disturbs nobody [4.2.3, TestRemoveNode]', () => {
    const network = new Network(4);
    network.elect(n1);
    network.loses = (_, to, message) => to === n4 && message.kind === 'append';
    network.of(n1).propose(membershipBody(firstVoters(3)));
    network.advance(5_000);
    assert.deepEqual([network.leader, network.of(n1).raft.term], [n1, 1]);
    assert.equal(network.of(n4).raft.role, 'pre-candidate', 'it does not even know');
  });

  test('entries go to new members and no more to removed ones [TestAddNode, TestRemoveNode]', () => {
    const leader = leading(3);
    leader.propose(membershipBody(firstVoters(4)));
    assert.deepEqual([...leader.raft.progress().keys()], [n2, n3, n4]);
    leader.take();
    for (const id of [n2, n3]) leader.hears(id, 2);
    leader.propose(membershipBody(members(n1, n2, n4)));
    assert.deepEqual([...leader.raft.progress().keys()], [n2, n4]);
    leader.take();
    leader.tick(heartbeatMs);
    leader.hears(n3, 99);
    assert.equal(leader.raft.progress().get(n3), undefined);
  });
});

describe('learners [4.2.1]', () => {
  test('are sent everything and are not counted [TestAddLearner, TestLearnerLogReplication]', () => {
    const leader = leading(2, members(n3));
    leader.propose('"x"');
    leader.take();
    leader.hears(n3, 2);
    assert.equal(leader.raft.commit, 1);
    leader.hears(n2, 2);
    assert.equal(leader.raft.commit, 2);
  });

  test('become voters when they have caught up [4.2.1, TestLearnerPromotion]', () => {
    const leader = leading(3, members(n4));
    leader.propose(...Array.from({ length: 2_000 }, () => '"x"'));
    leader.take();
    for (const id of [n2, n3]) leader.hears(id, 2_001);
    assert.equal(leader.raft.membershipStep(leader.nowMs), undefined, 'it has nothing yet');
    leader.hears(n4, 500);
    assert.equal(leader.raft.membershipStep(leader.nowMs), undefined);
    leader.hears(n4, 1_500);
    assert.deepEqual(leader.raft.membershipStep(leader.nowMs), {
      by: 'caught up',
      voters: firstVoters(4),
      learners: [],
    });
    leader.nowMs += electionTimeoutMs + 1;
    for (const id of [n2, n3]) leader.hears(id, 2_001);
    assert.equal(leader.raft.membershipStep(leader.nowMs), undefined, 'not while it is silent');
  });

  test('a process that is in no membership greets, and is fed as a learner (R8)', () => {
    const leader = leading(3);
    const answers = leader.exchange(n6, hello(0));
    assert.deepEqual(answers[0], { ...helloReply(), term: 1 });
    assert.deepEqual(leader.raft.membershipStep(leader.nowMs), {
      by: 'asked to join',
      voters: firstVoters(3),
      learners: members(n6),
    });
    takeStep(leader, [n2, n3]);
    assert.equal(leader.raft.membershipStep(leader.nowMs), undefined);
    leader.hears(n6, 2);
    assert.equal(takeStep(leader, [n2, n3]).by, 'caught up');
  });

  test('a flood of greetings is bounded', () => {
    const leader = leading(3);
    for (let count = 0; count < 1_000; count++) leader.receive(`x${count}` as NodeId, hello(0));
    assert.equal(leader.raft.membershipStep(leader.nowMs)?.learners.length, 1);
    leader.take();
  });

  test('a new process becomes a voter by itself [4.2.1, 4.4, TestRestoreWithLearner]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.add(n4, { justStarted: true }, new Disk(firstVoters(4)));
    govern(network, 5_000);
    assert.deepEqual(network.of(n1).raft.membership.voters, firstVoters(4));
    assert.deepEqual(network.of(n4).raft.commit, network.of(n1).raft.commit);
    assert.ok(network.of(n4).raft.votes);
  });
});

/** Time passes, and leaders take the steps that their groups need, as the driver does. */
function govern(network: Network, durationMs: number): void {
  for (let passed = 0; passed < durationMs; passed += 50) {
    for (const machine of network.machines.values()) {
      const step = machine.raft.membershipStep(machine.nowMs);
      if (step !== undefined) machine.propose(membershipBody(step.voters, step.learners));
    }
    network.advance(50);
  }
}

describe('a member that starts (R8)', () => {
  const hardState = { term: 5, votedFor: undefined };
  const starting = (voters: number, options: { incarnation?: number; log?: number } = {}): Machine =>
    new Machine(n1, {
      voters,
      log: logOf(...Array.from({ length: options.log ?? 3 }, () => 5)),
      hardState,
      incarnation: options.incarnation ?? 1,
      justStarted: true,
    });

  test('says where its log ends, again and again, until it is confirmed', () => {
    const member = starting(3);
    assert.deepEqual(kindsOf(member.tick()), ['hello to n2', 'hello to n3']);
    assert.deepEqual(kindsOf(member.tick(heartbeatMs - 1)), []);
    const [greeting] = member.tick(1).messages;
    assert.deepEqual(greeting?.message, { ...hello(3), term: 5 });
    for (const peer of [n2, n3]) member.receive(peer, helloReply());
    member.exchange(n2, append(logOf(5, 5, 5), { term: 5, after: 3 }));
    assert.deepEqual(kindsOf(member.tick(heartbeatMs)), []);
  });

  test('and afterwards whenever no leader is heard: perhaps none knows of it', () => {
    const member = starting(3);
    for (const peer of [n2, n3]) member.receive(peer, helloReply());
    member.exchange(n2, append(logOf(5, 5, 5), { term: 5, after: 3 }));
    assert.deepEqual(kindsOf(member.tick(electionTimeoutMs)), []);
    assert.deepEqual(kindsOf(member.tick(1)), ['hello to n2', 'hello to n3']);
  });

  for (const [voters, needed] of [
    [1, 0],
    [2, 1],
    [3, 2],
    [4, 2],
    [5, 2],
  ] as const) {
    test(`votes in a group of ${voters} when ${needed} peers have confirmed its log's end`, () => {
      const member = starting(voters);
      for (const [place, peer] of names.slice(1, 1 + needed).entries()) {
        assert.equal(member.raft.confirmed, false, `after ${place}`);
        member.receive(peer, helloReply({ incarnation: 1, term: 5, index: 3 }));
        member.receive(peer, helloReply({ incarnation: 1, term: 5, index: 3 }));
      }
      assert.equal(member.raft.confirmed, true);
      assert.deepEqual([member.raft.votes, member.raft.incarnation], [true, 1]);
    });
  }

  test('before that it votes for nobody, acknowledges nothing, campaigns not, is willing to nothing', () => {
    const member = starting(5);
    member.receive(n2, helloReply());
    member.nowMs += 2 * electionTimeoutMs;
    const log = logOf(5, 5, 5, 6);
    assert.deepEqual(granted(member.exchange(n2, preVote(6, log))), []);
    assert.deepEqual(granted(member.exchange(n2, vote(6, log))), []);
    assert.deepEqual(granted(member.exchange(n2, vote(6, log, 'transfer'))), []);
    assert.deepEqual(member.exchange(n2, append(log, { term: 6 })), []);
    for (let waited = 0; waited < 3_000; waited += 50) {
      const kinds = kindsOf(member.tick(50)).map((kind) => kind.split(' ')[0]);
      assert.ok(kinds.every((kind) => kind === 'hello'));
    }
    assert.deepEqual(member.take().hardState, undefined);
    assert.equal(member.raft.term, 5, 'nothing moves on its disk: its next start would pass for a good one');
  });

  for (const [what, known, newer] of [
    ['nothing', { incarnation: 0, term: 0, index: 0 }, false],
    ['less', { incarnation: 1, term: 5, index: 2 }, false],
    ['just that', { incarnation: 1, term: 5, index: 3 }, false],
    ['more of the same term', { incarnation: 1, term: 5, index: 4 }, true],
    ['a later term, and less', { incarnation: 1, term: 6, index: 1 }, true],
    ['more of an earlier term: it was cut since', { incarnation: 1, term: 4, index: 900 }, false],
    ['a later incarnation', { incarnation: 2, term: 1, index: 1 }, true],
  ] as const) {
    test(`whose peers remember ${what} has ${newer ? 'an old disk' : 'its disk'}`, () => {
      const member = starting(3);
      for (const peer of [n2, n3]) member.receive(peer, helloReply(known));
      assert.equal(member.raft.incarnation, newer ? Math.max(2, known.incarnation + 1) : 1);
      assert.equal(
        member.take().incarnation,
        newer ? member.raft.incarnation : undefined,
        'to be synced before it is told',
      );
      assert.equal(member.raft.votes, !newer);
    });
  }

  test('what a stranger says is not counted', () => {
    const member = starting(3);
    member.receive(n6, helloReply());
    member.receive(n6, helloReply({ incarnation: 4, term: 9, index: 9 }));
    assert.deepEqual([member.raft.confirmed, member.raft.incarnation], [false, 1]);
  });

  test('an old disk is known as such also after a failover: the new leader’s term does not count for it', () => {
    const network = new Network(5);
    network.elect(n1);
    network.advance(500);
    const old = network.of(n5).disk.copy();
    for (let count = 0; count < 5; count++) network.of(n1).propose('"x"');
    network.advance(500);
    network.isolate(n5);
    network.elect(n2);
    network.heal();
    network.restart(n5, old);
    network.advance(50);
    network.restart(n5, old);
    network.advance(1_000);
    assert.equal(network.of(n5).raft.incarnation, 2);
    assert.equal(old.incarnation, 2, 'on its disk');
  });

  test('with an old disk is removed, fed as a learner and made a voter again', () => {
    const network = new Network(5);
    network.elect(n1);
    const old = network.of(n5).disk.copy();
    for (let count = 0; count < 5; count++) network.of(n1).propose('"x"');
    network.advance(500);
    network.restart(n5, old);
    const steps: string[] = [];
    for (let passed = 0; passed < 5_000; passed += 50) {
      const leader = network.of(n1);
      const step = leader.raft.membershipStep(leader.nowMs);
      if (step !== undefined) {
        steps.push(`${step.by}: ${step.voters.length} voters, ${step.learners.length} learners`);
        leader.propose(membershipBody(step.voters, step.learners));
      }
      network.advance(50);
    }
    assert.deepEqual(steps, ['lost or old disk: 4 voters, 1 learners', 'caught up: 5 voters, 0 learners']);
    assert.deepEqual(network.of(n1).raft.membership.voters, [...firstVoters(4), second(n5)]);
    assert.ok(network.of(n5).raft.votes);
    network.elect(n5);
  });

  for (const voters of [3, 5]) {
    test(`an empty disk in a group of ${voters} comes back the same way`, () => {
      const network = new Network(voters);
      network.elect(n1);
      for (let count = 0; count < 5; count++) network.of(n1).propose('"x"');
      network.advance(500);
      network.restart(n3, new Disk(firstVoters(voters)));
      govern(network, 5_000);
      assert.ok(network.of(n1).raft.membership.voters.some((each) => each.id === n3 && each.incarnation === 2));
      assert.equal(network.of(n3).tail.last.hash, network.of(n1).tail.last.hash);
    });
  }

  test('a lost disk of a group that leads elsewhere is one voter less until then: nothing is counted twice', () => {
    const network = new Network(3);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.advance(500);
    network.isolate(n2);
    network.restart(n3, new Disk(firstVoters(3)));
    network.of(n1).propose('"y"');
    network.advance(300);
    assert.equal(network.of(n1).raft.commit, 2, 'n3 has it, on a disk that is not counted');
    network.heal();
    govern(network, 5_000);
    assert.equal(network.of(n1).raft.membership.voters.length, 3);
  });

  test('empty disks vote when the cluster is formed, and the first leader needs no delay for it', () => {
    const network = new Network([]);
    for (const id of [n1, n2, n3, n4, n5]) network.add(id, { justStarted: true }, new Disk(firstVoters(5)));
    network.advance(1_000);
    assert.equal(network.leader, n1);
    assert.ok([...network.machines.values()].every(({ raft }) => raft.confirmed && raft.incarnation === 1));
  });

  test('after a power failure of all, disks that were kept are confirmed by each other', () => {
    const network = new Network(5);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.advance(500);
    for (const id of [n1, n2, n3, n4, n5]) network.restart(id);
    network.advance(3_000);
    assert.ok(network.leader !== undefined);
    assert.ok([...network.machines.values()].every(({ raft }) => raft.confirmed && raft.incarnation === 1));
  });

  test('and two of them that are empty do not form a cluster of their own', () => {
    const network = new Network(5);
    network.elect(n1);
    network.advance(500);
    network.isolate(n4, n5);
    for (const id of [n4, n5]) network.restart(id, new Disk(firstVoters(5)));
    network.advance(5_000);
    assert.deepEqual([network.of(n4).raft.confirmed, network.of(n5).raft.confirmed], [false, false]);
  });

  test('a second loss takes a third incarnation, though only the membership tells of the second', () => {
    const peer = new Machine(n2, { remembered: new Map([[n3, { incarnation: 1, term: 4, index: 9 }]]) });
    const first = at(logOf(4)[0]);
    const log = [first, chainEntry(first, 4, membershipBody([...members(n1, n2), second(n3)]))];
    peer.exchange(n1, append(log, { term: 4 }));
    const [reply] = peer.exchange(n3, hello(0));
    assert.ok(reply?.kind === 'hello-reply');
    const member = new Machine(n3, { justStarted: true });
    member.receive(n2, reply);
    assert.equal(member.raft.incarnation, 3);
  });

  test('one that took too low an incarnation hears of it from the leader, and takes a higher one', () => {
    const network = new Network(3);
    network.elect(n1);
    network.advance(500);
    network.restart(n3, new Disk(firstVoters(3)));
    govern(network, 3_000);
    assert.equal(network.of(n3).raft.incarnation, 2);
    const disk = new Disk(firstVoters(3));
    disk.incarnation = 1;
    // Of n3's second disk n2 has heard nothing.
    network.of(n2).disk.remembered.set(n3, { incarnation: 1, term: 1, index: 1 });
    network.loses = (from, to, message) => message.kind === 'hello-reply' && from === n1 && to === n3;
    network.restart(n3, disk);
    network.advance(200);
    network.loses = () => false;
    govern(network, 3_000);
    assert.ok(network.of(n3).raft.incarnation >= 3);
    assert.ok(network.of(n3).raft.votes);
  });

  test('acknowledgements of the leader’s term are what peers are told to remember', () => {
    const leader = leading(3, members(n4));
    leader.hears(n4, 1);
    const beat = leader.tick(heartbeatMs).messages[0]?.message;
    assert.ok(beat?.kind === 'append');
    const remembered = new Map<NodeId, Remembered>();
    for (const { id, incarnation, index } of beat.acknowledged) remembered.set(id, { incarnation, term: 1, index });
    assert.deepEqual([...remembered.keys()], [n1, n2, n3, n4]);
    assert.ok([...remembered.values()].every(({ index, incarnation }) => index === 1 && incarnation === 1));
  });

  test('a vote of an old disk’s new incarnation is told, and counts for nobody', () => {
    const member = starting(3);
    member.receive(n2, helloReply({ incarnation: 1, term: 5, index: 9 }));
    member.take();
    member.nowMs += 2 * electionTimeoutMs;
    const replies = member.exchange(n2, vote(6, logOf(5, 5, 5, 5)));
    assert.deepEqual(replies, [voteReply(6, true, { incarnation: 2 })]);
    const candidate = new Machine(n2, { hardState });
    candidate.campaign();
    for (const reply of replies) candidate.receive(n1, reply);
    assert.equal(candidate.raft.role, 'candidate');
  });
});

describe('when a majority is lost, an operator may go on without it', () => {
  const entry = (voters: readonly Member[], lost: readonly NodeId[]): MembershipEntry => ({
    kind: 'membership',
    at: 0,
    by: 'operator',
    voters,
    learners: [],
    lost,
  });
  const survivors = members(n1, n2);
  const lost = [n3, n4, n5];

  const halved = (): Network => {
    const network = new Network(5);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.advance(500);
    for (const id of lost) network.isolate(id);
    network.advance(2_000);
    assert.equal(network.leader, undefined);
    return network;
  };

  test('the survivors elect a leader, whose second entry says who is left', () => {
    const network = halved();
    assert.ok(network.of(n1).raft.recover(entry(survivors, lost), network.of(n1).nowMs));
    network.advance(500);
    assert.deepEqual([network.of(n1).raft.role, network.of(n1).raft.commit], ['leader', 4]);
    assert.deepEqual(network.of(n2).raft.membership, { index: 4, voters: survivors, learners: [] });
    assert.deepEqual(JSON.parse(at(network.of(n2).disk.log[3]).body), entry(survivors, lost));
    network.of(n1).propose('"y"');
    network.advance(200);
    assert.equal(network.of(n2).raft.commit, 5);
    network.restart(n1);
    network.advance(2_000);
    assert.ok(network.leader !== undefined, 'and it is so after a restart');
  });

  test('a single one that is left leads at once', () => {
    const machine = new Machine(n1, { log: logOf(1) });
    assert.ok(machine.raft.recover(entry(members(n1), [n2, n3]), machine.nowMs));
    machine.take();
    machine.take();
    assert.deepEqual([machine.raft.role, machine.raft.commit], ['leader', 3]);
    assert.deepEqual(machine.raft.membership.voters, members(n1));
  });

  test('voters take part that hear a leader no more or have just started, not confirmed by anybody', () => {
    const voter = new Machine(n2, { voters: 5, hardState: { term: 3, votedFor: undefined }, justStarted: true });
    assert.deepEqual(granted(voter.exchange(n1, vote(4, [], 'recovery'))), [true]);
    assert.equal(voter.raft.confirmed, false, 'which does not confirm it');
    const longer = new Machine(n2, { voters: 5, log: logOf(1, 1) });
    assert.deepEqual(
      granted(longer.exchange(n1, vote(4, logOf(1), 'recovery'))),
      [false],
      'a longer log has to go first',
    );
  });

  for (const [what, disturb] of [
    ['nobody answers', (network: Network) => (network.loses = (from) => from === n2)],
    [
      'its votes are lost, and it could win a pre-vote of the survivors later',
      (network: Network) => (network.loses = (_, __, message) => message.kind === 'vote'),
    ],
  ] as const) {
    test(`an attempt that is not won leaves everything as it was: ${what}`, () => {
      const network = halved();
      const { raft } = network.of(n1);
      const before = raft.membership;
      disturb(network);
      raft.recover(entry(survivors, lost), network.of(n1).nowMs);
      network.advance(electionTimeoutMs + 50);
      network.loses = () => false;
      network.advance(3_000);
      assert.deepEqual([raft.membership, network.leader], [before, undefined]);
      network.heal();
      network.advance(3_000);
      assert.equal(network.of(at(network.leader)).raft.membership.voters.length, 5);
    });
  }

  test('also when it is tried twice', () => {
    const network = halved();
    const { raft } = network.of(n1);
    network.loses = (from) => from === n2;
    raft.recover(entry(survivors, lost), network.of(n1).nowMs);
    network.advance(100);
    raft.recover(entry(survivors, lost), network.of(n1).nowMs);
    network.advance(2_000);
    assert.equal(raft.membership.voters.length, 5);
  });

  test('a leader that turns up during the attempt ends it, with the membership that it sends', () => {
    const machine = new Machine(n1, { voters: 5, log: logOf(1) });
    machine.raft.recover(entry(survivors, lost), machine.nowMs);
    machine.take();
    const log = [at(logOf(1)[0]), chainEntry(at(logOf(1)[0]), 2, membershipBody(firstVoters(4)))];
    machine.exchange(n3, append(log, { term: 2 }));
    assert.deepEqual([machine.raft.role, machine.raft.leader], ['follower', n3]);
    assert.deepEqual(machine.raft.membership, { index: 2, voters: firstVoters(4), learners: [] });
    machine.tick(2 * electionTimeoutMs);
    assert.equal(machine.raft.membership.index, 2, 'nothing is put back later');
  });

  test('a member that nobody had confirmed is as unconfirmed after an attempt that failed', () => {
    const machine = new Machine(n1, { voters: 5, log: logOf(1), justStarted: true });
    assert.ok(machine.raft.recover(entry(survivors, lost), machine.nowMs));
    machine.take();
    machine.tick(electionTimeoutMs);
    machine.tick(50);
    assert.equal(machine.raft.confirmed, false);
    assert.deepEqual(granted(machine.exchange(n3, vote(9, logOf(9)))), []);
  });

  for (const [what, voters] of [
    ['this member', members(n2)],
    ['this member’s disk', [second(n1), ...members(n2)]],
    ['anybody', []],
  ] as const) {
    test(`is refused where it would go on without ${what}`, () => {
      const machine = new Machine(n1, { voters: 5, log: logOf(1) });
      assert.equal(machine.raft.recover(entry(voters, lost), machine.nowMs), false);
      assert.deepEqual([machine.raft.role, machine.raft.term], ['follower', 1]);
    });
  }
});
