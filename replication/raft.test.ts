import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { nodeId } from '../base/identifiers.ts';
import {
  append,
  appendReply,
  electionTimeoutMs,
  granted,
  heartbeatMs,
  kindsOf,
  logOf,
  Machine,
  members,
  n1,
  n2,
  n3,
  n4,
  n5,
  names,
  Network,
  preVote,
  preVoteReply,
  takeOver,
  vote,
  voteReply,
} from './testing.ts';

/*
 * Elections (here), and where to find which scenario; over 500 lines because of this table. Tests have the scenarios'
 * names in brackets: sections and figures of Ongaro's thesis, and tests of etcd's raft, whose situations these are; the
 * code is not theirs.
 *
 *   raft.test.ts  3.3, 3.4, 3.6.1, 3.8, 4.2.3, 6.2, 9.6: terms, votes, pre-votes, silence
 *     TestVoteFromAnyState, TestRecvMsgVote, TestLeaderElectionInOneRoundRPC, TestCandidateFallback,
 *     TestUpdateTermFromMessage, TestRejectStaleTermMessage, TestOldMessages, TestPastElectionTimeout,
 *     TestFollowersElectionTimeoutNonconflict, TestLearnerElectionTimeout, TestNonPromotableVoterWithCheckQuorum,
 *     TestLearnerCanVote, TestSingleNodeCandidate, TestSingleNodePreCandidate, TestPreVoteWithCheckQuorum,
 *     TestDuelingPreCandidates, TestDuelingCandidates, TestPreVoteWithSplitVote, TestDisruptiveFollowerPreVote,
 *     TestLeaderElectionWithCheckQuorum, TestLeaderSupersedingWithCheckQuorum, TestDisruptiveFollower,
 *     TestLeaderStepdownWhenQuorumLost, TestLeaderStepdownWhenQuorumActive, TestFreeStuckCandidateWithCheckQuorum,
 *     TestLeaderElectionOverwriteNewerLogs, TestLeaderCycle, TestLogReplication, TestLeaderElection, TestProposal
 *
 *   raft-replication.test.ts  3.5, 3.6.2, 10.2.1, figures 3.6, 3.7: what is appended, acknowledged, committed; slow peers; R6
 *     TestLeaderElection, TestLeaderAcknowledgeCommit, TestSingleNodeCommit, TestCommit,
 *     TestLeaderOnlyCommitsLogFromCurrentTerm, TestCannotCommitWithoutNewTermEntry, TestCommitWithoutNewTermEntry,
 *     TestFollowerCommitEntry, TestLeaderAppResp, TestProposal, TestLeaderSyncFollowerLog, TestFollowerCheckMsgApp,
 *     TestFastLogRejection, TestFollowerAppendEntries, TestHandleMsgApp, TestHandleHeartbeat,
 *     TestRejectStaleTermMessage, TestLeaderBcastBeat, TestBcastBeat, TestRecvMsgUnreachable,
 *     TestMsgAppFlowControlFull, TestMsgAppFlowControlMoveForward, TestLogReplication
 *
 *   raft-snapshot.test.ts  5.1, figure 5.3: what a member gets that lacks what was trimmed; R10
 *     TestProvideSnap, TestIgnoreProvidingSnap, TestPendingSnapshotPauseReplication, TestSnapshotSucceed,
 *     TestRestoreFromSnapMsg, TestRestore, TestRestoreWithLearner, TestSlowNodeRestore, TestRestoreIgnoreSnapshot,
 *     TestSnapshotFailure, TestSnapshotAbort
 *
 *   raft-transfer.test.ts  3.10, 6.4.1: transfer of leadership; leases, R3 (at random: raft-lease.test.ts)
 *     TestLeaderTransferToUpToDateNode, ...WithCheckQuorum, TestLeaderTransferToSlowFollower,
 *     TestLeaderTransferAfterSnapshot, TestLeaderTransferToSelf, TestLeaderTransferToNonExistingNode,
 *     TestLeaderTransferToLearner, TestLeaderTransferToUpToDateNodeFromFollower,
 *     TestLeaderTransferSecondTransferToAnotherNode, ...ToSameNode, TestLeaderTransferTimeout,
 *     TestLeaderTransferIgnoreProposal, TestLeaderTransferReceiveHigherTermVote, TestLeaderTransferRemoveNode,
 *     ...DemoteNode, TestTransferNonMember, TestLeaderTransferBackwardTerm
 *
 *   raft-membership.test.ts  4.1 with its correction, 4.2.1, 4.2.2, 4.2.3: changes of membership; R8; an operator's recovery
 *     TestAddNodeCheckQuorum, TestLeaderTransferRemoveNode, TestRemoveNode, TestAddNode, TestAddLearner,
 *     TestLearnerLogReplication, TestLearnerPromotion, TestRestoreWithLearner
 *
 *   raft-whole.test.ts  3.2: the four properties, at random
 *
 * These of etcd's do not apply: TestReadOnly..., TestRaftFreesReadOnlyMem (no read index: leases and commits answer),
 * TestProposalByProxy (followers forward nothing: the edge finds the owner), TestStepConfig, TestConfChange... with joint
 * consensus (single steps only), TestPreVoteMigration... and elections without PreVote or CheckQuorum (always on),
 * TestSendAppendForProgressProbe, ...Replicate, ...Snapshot (entries go ahead in every state, within a window),
 * TestMsgAppRespWaitReset with asynchronous storage of its own (the replica reports what is synced),
 * TestUncommittedEntryLimit (the owner bounds its tail), TestLeaderTransferToUpToDateNodeFromFollower as far as a follower
 * passes the wish on (operators ask the leader).
 */

describe('votes', () => {
  test('a vote is given once a term, and again to the same candidate [3.4, TestVoteFromAnyState]', () => {
    const voter = new Machine(n3);
    assert.deepEqual(granted(voter.exchange(n1, vote(5, []))), [true]);
    assert.deepEqual(granted(voter.exchange(n2, vote(5, []))), [false]);
    assert.deepEqual(granted(voter.exchange(n1, vote(5, []))), [true]);
    assert.deepEqual(granted(voter.exchange(n2, vote(6, []))), [true]);
  });

  for (const state of ['follower', 'pre-candidate', 'candidate', 'leader'] as const) {
    test(`a ${state} votes in a later term, and follows [TestVoteFromAnyState]`, () => {
      const voter = new Machine(n3);
      if (state === 'pre-candidate') voter.tick(50);
      if (state === 'candidate') voter.campaign();
      if (state === 'leader') voter.lead();
      assert.equal(voter.raft.role, state);
      voter.nowMs += electionTimeoutMs;
      const term = voter.raft.term + 1;
      assert.deepEqual(granted(voter.exchange(n1, vote(term, logOf(term)))), [true]);
      assert.deepEqual([voter.raft.role, voter.raft.term], ['follower', term]);
    });
  }

  test('a vote that was given before a restart counts [3.8]', () => {
    const voter = new Machine(n3, { hardState: { term: 5, votedFor: n1 } });
    assert.deepEqual(granted(voter.exchange(n2, vote(5, []))), [false]);
    assert.deepEqual(granted(voter.exchange(n1, vote(5, []))), [true]);
  });

  for (const [what, own, candidate, expected] of [
    ['equal', [1, 2], [1, 2], true],
    ['longer', [1, 2], [1, 2, 2], true],
    ['shorter', [1, 2], [1], false],
    ['of a later term and shorter', [1, 2, 2], [1, 3], true],
    ['of an earlier term and longer', [1, 3], [1, 2, 2, 2], false],
    ['empty', [1], [], false],
  ] as const) {
    test(`a candidate whose log is ${what} gets ${expected ? 'the' : 'no'} vote [3.6.1, TestRecvMsgVote]`, () => {
      const voter = new Machine(n3, { log: logOf(...own), hardState: { term: 3, votedFor: undefined } });
      assert.deepEqual(granted(voter.exchange(n1, preVote(4, logOf(...candidate)))), [expected]);
      assert.equal(voter.raft.term, 3, 'a question changes nothing');
      assert.deepEqual(granted(voter.exchange(n1, vote(4, logOf(...candidate)))), [expected]);
      assert.equal(voter.raft.term, 4, 'the term is taken whether or not the vote is given');
    });
  }

  test('an earlier term gets no vote, and is told the later one [3.3]', () => {
    const voter = new Machine(n3, { hardState: { term: 7, votedFor: undefined } });
    assert.deepEqual(voter.exchange(n1, vote(6, [])), [voteReply(7, false)]);
  });

  test('term and vote are handed over to be synced with the very messages that tell of them [3.8, 10.2.1]', () => {
    const voter = new Machine(n3);
    voter.receive(n1, vote(5, []));
    const first = voter.take();
    assert.deepEqual(first.hardState, { term: 5, votedFor: n1 });
    assert.deepEqual(granted(first.messages.map(({ message }) => message)), [true]);
    assert.equal(voter.take().hardState, undefined, 'once');
    const informed = new Machine(n3, { hardState: { term: 5, votedFor: undefined } });
    informed.receive(n1, vote(5, []));
    assert.deepEqual(informed.take().hardState, { term: 5, votedFor: n1 }, 'also where only the vote is new');
    const candidate = new Machine(n1).campaign();
    assert.deepEqual(candidate.hardState, { term: 1, votedFor: n1 });
    assert.deepEqual(kindsOf(candidate), ['vote to n2', 'vote to n3']);
  });

  for (const [voters, needed] of [
    [1, 0],
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
  ] as const) {
    test(`of ${voters} voters, a candidate needs ${needed} besides itself [TestLeaderElectionInOneRoundRPC]`, () => {
      const candidate = new Machine(n1, { voters });
      candidate.campaign();
      const others = names.slice(1, voters);
      for (const [index, voter] of others.entries()) {
        assert.equal(candidate.raft.role, index < needed ? 'candidate' : 'leader');
        candidate.receive(voter, voteReply(1, true));
      }
      assert.equal(candidate.raft.role, 'leader');
    });
  }

  test('the same vote twice, a refused one, one of an earlier term, a stranger, another disk do not count', () => {
    const candidate = new Machine(n1, { voters: 5, hardState: { term: 3, votedFor: undefined } });
    candidate.campaign();
    for (let copy = 0; copy < 3; copy++) candidate.receive(n2, voteReply(4, true));
    candidate.receive(n3, voteReply(4, false));
    candidate.receive(n3, voteReply(3, true));
    candidate.receive(n4, voteReply(4, true, { incarnation: 2 }));
    candidate.receive(nodeId('stranger'), voteReply(4, true));
    assert.equal(candidate.raft.role, 'candidate');
    candidate.receive(n5, voteReply(4, true));
    assert.equal(candidate.raft.role, 'leader');
  });

  test('a candidate that hears of a leader of its term, or of a later one, follows it [TestCandidateFallback]', () => {
    for (const term of [1, 2]) {
      const candidate = new Machine(n2);
      candidate.campaign();
      candidate.exchange(n1, append([], { term }));
      assert.deepEqual([candidate.raft.role, candidate.raft.leader, candidate.raft.term], ['follower', n1, term]);
    }
  });

  test('a message of a later term makes anyone a follower of it [3.3, TestUpdateTermFromMessage]', () => {
    for (const become of ['campaign', 'lead'] as const) {
      const machine = new Machine(n1);
      machine[become]();
      machine.receive(n2, appendReply(9, 0, { accepted: false }));
      assert.deepEqual([machine.raft.role, machine.raft.leader, machine.raft.term], ['follower', undefined, 9]);
      assert.deepEqual(machine.take().hardState, { term: 9, votedFor: undefined });
    }
  });

  test('messages of an earlier term change nothing [3.3, TestRejectStaleTermMessage, TestOldMessages]', () => {
    const leader = new Machine(n1, { log: logOf(1, 2), hardState: { term: 2, votedFor: undefined } });
    leader.lead();
    leader.receive(n2, voteReply(2, false));
    leader.receive(n2, appendReply(2, 3));
    leader.receive(n2, takeOver(2));
    leader.receive(n2, append(logOf(1, 1, 1), { term: 2, commit: 3 }));
    assert.deepEqual([leader.raft.role, leader.raft.term, leader.raft.commit], ['leader', 3, 0]);
    assert.deepEqual(
      leader.disk.log.map(({ term }) => term),
      [1, 2, 3],
    );
  });

  test('a message from itself is not heard', () => {
    const follower = new Machine(n2);
    follower.receive(n2, append(logOf(9), { term: 9 }));
    assert.deepEqual([follower.raft.term, follower.tail.last.index], [0, 0]);
  });
});

describe('when a member campaigns', () => {
  test('not while it hears a leader, and not before an election timeout of silence [3.4, TestPastElectionTimeout]', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append([], { term: 1 }));
    assert.deepEqual(kindsOf(follower.tick(electionTimeoutMs - 1)), []);
    follower.tick(1);
    assert.equal(follower.raft.leader, undefined);
    follower.tick(50);
    assert.equal(follower.raft.role, 'pre-candidate');
  });

  test('the driver says how much longer it waits, knowing whose silence it is (R7)', () => {
    const asked: unknown[] = [];
    const follower = new Machine(n2, {
      campaignDelayMs: (leader) => {
        asked.push(leader);
        return leader === n1 ? 300 : 0;
      },
    });
    follower.exchange(n1, append([], { term: 1 }));
    follower.tick(electionTimeoutMs);
    assert.deepEqual(
      kindsOf(follower.tick(299)).filter((kind) => kind.startsWith('pre-vote')),
      [],
    );
    follower.tick(50);
    assert.equal(follower.raft.role, 'pre-candidate');
    assert.ok(asked.includes(n1));
  });

  test('members draw their times: not everybody at once [3.4, TestFollowersElectionTimeoutNonconflict]', () => {
    const times = new Set<number>();
    for (let seed = 1; seed <= 20; seed++) {
      const follower = new Machine(n2, { seed });
      follower.exchange(n1, append([], { term: 1 }));
      follower.tick(electionTimeoutMs);
      let waitedMs = 0;
      for (; follower.raft.role === 'follower'; waitedMs++) follower.tick(1);
      times.add(waitedMs);
    }
    assert.ok(times.size > 5, [...times].join(' '));
  });

  test('a candidate that gets no majority asks again, and campaigns in a later term [3.4]', () => {
    const candidate = new Machine(n1);
    candidate.campaign();
    assert.equal(candidate.raft.term, 1);
    candidate.tick(electionTimeoutMs);
    assert.equal(candidate.raft.role, 'pre-candidate');
    candidate.campaign();
    assert.deepEqual([candidate.raft.role, candidate.raft.term], ['candidate', 2]);
  });

  test('who is no voter does not [TestLearnerElectionTimeout, TestNonPromotableVoterWithCheckQuorum]', () => {
    const learner = new Machine(n3, { voters: 2, learners: members(n3) });
    const stranger = new Machine(n5);
    for (const machine of [learner, stranger]) {
      for (let waited = 0; waited < 5_000; waited += 50) machine.tick(50);
      assert.deepEqual([machine.raft.role, machine.raft.term], ['follower', 0]);
      machine.exchange(n1, append([], { term: 1 }));
      machine.receive(n1, takeOver(1));
      assert.deepEqual([machine.raft.role, machine.raft.term], ['follower', 1]);
    }
  });

  test('a learner that is asked votes: its membership may be the older one [4.2.1, TestLearnerCanVote]', () => {
    const learner = new Machine(n3, { voters: 2, learners: members(n3) });
    assert.deepEqual(granted(learner.exchange(n1, vote(1, []))), [true]);
  });

  test('a single voter leads at once [TestSingleNodeCandidate, TestSingleNodePreCandidate]', () => {
    const single = new Machine(n1, { voters: 1 });
    single.tick(50);
    assert.deepEqual([single.raft.role, single.raft.term], ['leader', 1]);
  });
});

describe('PreVote: a member asks first whether it would win [9.6]', () => {
  test('asking changes neither its own term nor the voter’s', () => {
    const candidate = new Machine(n1, { hardState: { term: 4, votedFor: n2 } });
    const asked = candidate.tick(50);
    assert.deepEqual(kindsOf(asked), ['hello to n2', 'hello to n3', 'pre-vote to n2', 'pre-vote to n3']);
    assert.equal(asked.hardState, undefined);
    assert.deepEqual(asked.messages[2]?.message, preVote(5, []));
    const voter = new Machine(n2, { hardState: { term: 4, votedFor: n3 } });
    assert.deepEqual(voter.exchange(n1, preVote(5, [])), [preVoteReply(true, { term: 4 })]);
    assert.equal(voter.take().hardState, undefined);
    assert.deepEqual(granted(voter.exchange(n3, preVote(5, []))), [true], 'to as many as ask');
  });

  test('a majority of grants makes it a candidate, one refusal less than that does not', () => {
    const candidate = new Machine(n1, { voters: 5 });
    candidate.tick(50);
    candidate.receive(n2, preVoteReply(true));
    candidate.receive(n2, preVoteReply(true));
    candidate.receive(n3, preVoteReply(false));
    candidate.receive(n4, preVoteReply(true, { incarnation: 2 }));
    assert.equal(candidate.raft.role, 'pre-candidate');
    candidate.receive(n5, preVoteReply(true));
    assert.deepEqual([candidate.raft.role, candidate.raft.term], ['candidate', 1]);
  });

  test('a refusal of a later term is followed, and asking goes on in that [TestPreVoteWithCheckQuorum]', () => {
    const candidate = new Machine(n1);
    candidate.tick(50);
    candidate.receive(n2, preVoteReply(false, { term: 6 }));
    assert.deepEqual([candidate.raft.role, candidate.raft.term], ['follower', 6]);
    candidate.campaign();
    assert.deepEqual([candidate.raft.role, candidate.raft.term], ['candidate', 7]);
  });

  test('of two that ask, the one with the shorter log never campaigns [TestDuelingPreCandidates]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n3);
    assert.ok(network.of(n1).propose('"x"'));
    network.advance(2_000);
    assert.equal(network.of(n3).raft.term, 1, 'cut off as it is, it stays in the term');
    network.heal();
    network.advance(500);
    assert.deepEqual(network.roles(), ['n1 leader 1', 'n2 follower 1', 'n3 follower 1']);
    assert.deepEqual(network.lastIndexes(), [2, 2, 2]);
  });

  test('two candidates of one term split the votes, and one of them wins a later one [3.4, TestDuelingCandidates, TestPreVoteWithSplitVote]', () => {
    const network = new Network(4);
    network.loses = (_, __, message) => message.kind === 'vote';
    for (const id of [n1, n2]) network.of(id).campaign();
    network.heal();
    for (const id of [n1, n2]) assert.deepEqual([network.of(id).raft.role, network.of(id).raft.term], ['candidate', 1]);
    network.advance(3_000);
    const leader = network.leader;
    assert.ok(leader !== undefined);
    assert.ok(network.of(leader).raft.term > 1);
    assert.ok([...network.machines.values()].every(({ raft }) => raft.leader === leader));
  });

  test('one that was cut off and comes back deposes nobody [9.6, TestDisruptiveFollowerPreVote]', () => {
    const network = new Network(5);
    network.elect(n1);
    network.isolate(n5);
    network.advance(10_000);
    assert.equal(network.of(n5).raft.role, 'pre-candidate');
    network.heal();
    network.advance(1_000);
    assert.deepEqual(network.leader, n1);
    assert.deepEqual([network.of(n5).raft.leader, network.of(n1).raft.term], [n1, 1]);
  });
});

describe('CheckQuorum and deafness', () => {
  test('while a leader is heard nobody else’s candidacy is answered, whatever its term [4.2.3, TestLeaderElectionWithCheckQuorum, TestLeaderSupersedingWithCheckQuorum]', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append([], { term: 1 }));
    follower.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(granted(follower.exchange(n3, preVote(9, []))), [false]);
    assert.deepEqual(follower.exchange(n3, vote(9, [])), [], 'not even its term is taken');
    assert.equal(follower.raft.term, 1);
    follower.nowMs += 1;
    assert.deepEqual(granted(follower.exchange(n3, preVote(9, []))), [true]);
    assert.deepEqual(granted(follower.exchange(n3, vote(9, []))), [true]);
  });

  test('a leader that a majority answers is as deaf [4.2.3, TestDisruptiveFollower]', () => {
    const leader = new Machine(n1, { voters: 5 });
    leader.lead();
    leader.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(granted(leader.exchange(n5, vote(9, logOf(1)))), []);
    assert.equal(leader.raft.term, 1);
    leader.nowMs += 1;
    assert.deepEqual(granted(leader.exchange(n5, vote(9, logOf(1)))), [true]);
  });

  test('a leader that hears no majority for an election timeout leads no longer [6.2, TestLeaderStepdownWhenQuorumLost]', () => {
    const leader = new Machine(n1, { voters: 5 });
    leader.lead();
    for (let waited = 0; waited < 550; waited += 50) {
      leader.hears(n2, 1);
      leader.tick(50);
    }
    assert.equal(leader.raft.role, 'leader');
    assert.equal(leader.raft.silenceMs(leader.nowMs), 550);
    leader.tick(50);
    assert.deepEqual([leader.raft.role, leader.raft.leader, leader.raft.term], ['follower', undefined, 1]);
    assert.equal(leader.propose('"x"'), undefined);
  });

  test('one that hears a majority leads on for ever [6.2, TestLeaderStepdownWhenQuorumActive]', () => {
    const leader = new Machine(n1, { voters: 5 });
    leader.lead();
    for (let waited = 0; waited < 10_000; waited += 50) {
      if (waited % 500 === 0) for (const id of [n2, n3]) leader.hears(id, 1);
      leader.tick(50);
    }
    assert.deepEqual([leader.raft.role, leader.raft.term], ['leader', 1]);
  });

  test('whoever answers with another disk, or is no voter, is not a part of the majority (R8)', () => {
    const leader = new Machine(n1, { voters: 3, learners: members(n4) });
    leader.lead();
    for (let waited = 0; waited < 600; waited += 50) {
      leader.hears(n2, 0, { incarnation: 2 });
      leader.hears(n3, 0, { incarnation: 2 });
      leader.hears(n4, 1);
      leader.tick(50);
      if (leader.raft.role !== 'leader') break;
    }
    assert.equal(leader.raft.role, 'follower');
  });

  test('a member whose term is ahead comes back in: the leader follows its term and is elected again [TestFreeStuckCandidateWithCheckQuorum]', () => {
    const network = new Network(3);
    network.elect(n1);
    const { disk } = network.of(n3);
    disk.hardState = { term: 7, votedFor: n3 };
    network.restart(n3);
    network.advance(3_000);
    assert.ok(network.leader !== undefined);
    assert.ok([...network.machines.values()].every(({ raft }) => raft.leader === network.leader && raft.term >= 7));
  });

  test('a new leader’s log replaces what an old one has not committed [3.5, TestLeaderElectionOverwriteNewerLogs]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n1);
    for (let count = 0; count < 5; count++) network.of(n1).propose('"lost"');
    network.elect(n2);
    assert.ok(network.of(n2).propose('"kept"'));
    network.heal();
    network.advance(1_000);
    assert.deepEqual(network.leader, n2);
    assert.deepEqual(network.lastIndexes(), [3, 3, 3]);
    assert.deepEqual(
      network.of(n1).removed.map(({ index, body }) => [index, body]),
      [2, 3, 4, 5, 6].map((index) => [index, '"lost"']),
      'what was on its disk is kept elsewhere first (R9)',
    );
  });

  test('leadership passes round, and every leader’s entries stay [TestLeaderCycle, TestLogReplication]', () => {
    const network = new Network(5);
    for (const [turn, id] of [n1, n2, n3, n4, n5, n1].entries()) {
      network.elect(id);
      assert.ok(network.of(id).propose(`"turn ${turn}"`));
      network.advance(heartbeatMs * 2);
    }
    assert.deepEqual(network.lastIndexes(), [12, 12, 12, 12, 12]);
    assert.ok([...network.machines.values()].every(({ raft }) => raft.commit === 12 && raft.term === 6));
  });

  test('without a majority there is no leader; with it there is again [TestLeaderElection, TestProposal]', () => {
    const network = new Network(5);
    network.elect(n1);
    network.isolate(n1, n2);
    network.advance(2_000);
    assert.equal(network.of(n1).raft.role === 'leader' || network.of(n2).raft.role === 'leader', false);
    const leader = network.leader;
    assert.ok(leader !== undefined && [n3, n4, n5].includes(leader));
    network.isolate(leader);
    network.advance(2_000);
    assert.equal(network.leader, undefined, 'two and two and one');
    network.heal();
    network.advance(2_000);
    assert.ok([n1, n2, n3, n4, n5].some((id) => network.of(id).raft.role === 'leader'));
  });
});

describe('after a start', () => {
  test('a voter refuses votes for an election timeout, transfers excepted (R3)', () => {
    const voter = new Machine(n2, { hardState: { term: 3, votedFor: n1 }, justStarted: true });
    voter.beConfirmed();
    voter.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(granted(voter.exchange(n3, preVote(4, []))), [false]);
    assert.deepEqual(voter.exchange(n3, vote(4, [])), []);
    assert.deepEqual(granted(voter.exchange(n3, vote(4, [], 'transfer'))), [true]);
    const later = new Machine(n2, { hardState: { term: 3, votedFor: n1 }, justStarted: true });
    later.beConfirmed();
    later.nowMs += electionTimeoutMs;
    assert.deepEqual(granted(later.exchange(n3, vote(4, []))), [true]);
  });

  test('nor does it campaign in that time: its own vote counts like any (R3)', () => {
    const voter = new Machine(n2, { voters: 1, hardState: { term: 3, votedFor: n1 }, justStarted: true });
    const single = new Machine(n1, { voters: 1, hardState: { term: 3, votedFor: n1 }, justStarted: true });
    for (let waited = 0; waited < electionTimeoutMs - 25; waited += 25) {
      voter.tick(25);
      single.tick(25);
    }
    assert.equal(single.raft.role, 'follower');
    single.tick(25);
    single.tick(50);
    assert.equal(single.raft.role, 'leader');
    assert.equal(voter.raft.role, 'follower', 'who is no voter never');
  });

  test('where the cluster is being formed there is no lease to wait for', () => {
    const voter = new Machine(n2, { justStarted: true });
    voter.beConfirmed();
    assert.deepEqual(granted(voter.exchange(n1, vote(1, []))), [true]);
  });
});
