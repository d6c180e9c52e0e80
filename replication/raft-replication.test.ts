import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { nodeId } from '../base/identifiers.ts';
import { chainEntry, type LogEntry } from '../store/entry.ts';
import type { RaftMessage } from './raft.ts';
import {
  append,
  appendReply,
  at,
  electionTimeoutMs,
  firstAppend,
  heartbeatMs,
  indexesOf,
  kindsOf,
  logOf,
  Machine,
  n1,
  n2,
  n3,
  n4,
  names,
  Network,
} from './testing.ts';

/*
 * What is appended, acknowledged and committed; lost messages and slow peers; copies that cannot be right (R6). Names of
 * scenarios in brackets: see raft.test.ts. Over 500 lines because leader and follower of one message are read together.
 */

type AppendReply = RaftMessage & { kind: 'append-reply' };

function replyOf(messages: readonly RaftMessage[]): AppendReply {
  const [reply] = messages;
  assert.ok(reply?.kind === 'append-reply');
  return reply;
}

describe('what the leader commits [3.6.2]', () => {
  test('a new leader enters one entry of its own at once [TestLeaderElection, 6.4]', () => {
    const leader = new Machine(n1, { log: logOf(1, 1) });
    assert.deepEqual(
      leader.lead().write?.entries.map(({ index, term, body }) => ({ index, term, body: JSON.parse(body) as unknown })),
      [{ index: 3, term: 2, body: { kind: 'no-op', leader: 'n1', term: 2 } }],
    );
  });

  for (const [voters, needed] of [
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
  ] as const) {
    test(`of ${voters} voters, an entry is committed with ${needed} besides the leader [TestLeaderAcknowledgeCommit]`, () => {
      const leader = new Machine(n1, { voters });
      leader.lead();
      for (const [index, voter] of names.slice(1, voters).entries()) {
        assert.equal(leader.raft.commit, index < needed ? 0 : 1);
        leader.hears(voter, 1);
      }
      assert.equal(leader.raft.commit, 1);
    });
  }

  test('a single voter commits with its own sync [TestSingleNodeCommit]', () => {
    const single = new Machine(n1, { voters: 1 });
    single.raft.tick(single.nowMs);
    assert.equal(single.raft.role, 'leader');
    single.take({ sync: false });
    assert.equal(single.raft.commit, 0);
    single.write();
    assert.equal(single.raft.commit, 1);
  });

  for (const [matches, terms, leaderTerm, expected] of [
    // The leader's own log is the first figure's; its first entry of its own term comes after `terms`.
    [[3, 3], [1, 1], 2, 3],
    [[3, 0], [1, 1], 2, 3],
    [[2, 2], [1, 1], 2, 0],
    [[2, 1], [1, 2], 3, 0],
    [[1, 1, 0, 0], [1, 1], 2, 0],
    [[3, 3, 0, 0], [1, 2], 3, 3],
    [[3, 2, 2, 2], [1, 2], 3, 0],
    [[3, 0, 0, 3], [2, 2], 3, 3],
    [[3, 0, 0], [1, 1], 2, 0],
    [[3, 3, 0], [1, 1], 2, 3],
  ] as const) {
    test(`with entries of terms ${terms.join(', ')} at a leader of term ${leaderTerm} and peers at ${matches.join(', ')}, ${expected} are committed [TestCommit]`, () => {
      const hardState = { term: leaderTerm - 1, votedFor: undefined };
      const leader = new Machine(n1, { voters: matches.length + 1, log: logOf(...terms), hardState });
      leader.lead();
      for (const [place, match] of matches.entries()) leader.hears(at(names[place + 1]), match);
      assert.equal(leader.raft.commit, expected);
    });
  }

  test('entries of earlier terms are not committed by counting [figure 3.7, TestLeaderOnlyCommitsLogFromCurrentTerm]', () => {
    const leader = new Machine(n1, { voters: 5, log: logOf(1, 2) });
    leader.lead();
    leader.hears(n2, 2);
    leader.hears(n3, 2);
    assert.equal(leader.raft.commit, 0, 'a majority has entry 2, which is of term 2, and the leader is of term 3');
    leader.hears(n2, 3);
    leader.hears(n3, 3);
    assert.equal(leader.raft.commit, 3, 'with the first entry of its own term, all before it');
  });

  test('figure 3.7 as drawn: an old-term entry that a majority holds can still be replaced [figure 3.7]', () => {
    const [a, b] = [logOf(1, 2), logOf(1, 3)];
    // (c): S1 leads term 4 and has sent entry 2 of term 2 to S2 and S3; it is not committed.
    const s1 = new Machine(n1, { voters: 5, log: a, hardState: { term: 3, votedFor: undefined } });
    s1.lead();
    s1.hears(n2, 2);
    s1.hears(n3, 2);
    assert.equal(s1.raft.commit, 0);
    // (d): S5 is elected with its entry of term 3, and S3 lets its entry of term 2 be replaced.
    const s3 = new Machine(n3, { voters: 5, log: a, hardState: { term: 4, votedFor: undefined } });
    assert.equal(replyOf(s3.exchange(n4, append(b, { term: 5, after: 1 }))).match, 2);
    assert.deepEqual(s3.tail.last, b[1]);
    assert.equal(s3.raft.failure, undefined);
  });

  test('without an entry of its own term a new leader commits nothing, however long [TestCannotCommitWithoutNewTermEntry]', () => {
    const network = new Network(5);
    network.elect(n1);
    network.isolate(n1, n2);
    for (const body of ['"x"', '"y"']) network.of(n1).propose(body);
    network.settle();
    assert.equal(network.of(n1).raft.commit, 1);
    network.heal();
    network.loses = (from, _, message) => from === n2 && message.kind === 'append' && indexesOf([message]).includes(4);
    network.elect(n2);
    network.advance(500);
    assert.equal(network.of(n2).raft.commit, 1, 'entries 2 and 3 of term 1 are everywhere by now, its own is not');
    network.loses = () => false;
    network.advance(500);
    assert.equal(network.of(n2).raft.commit, 4);
    assert.deepEqual(network.lastIndexes(), [4, 4, 4, 4, 4]);
  });

  test('with an entry of its own, it commits all before it [TestCommitWithoutNewTermEntry]', () => {
    const network = new Network(5);
    network.elect(n1);
    network.isolate(n1, n2);
    network.of(n1).propose('"x"', '"y"');
    network.settle();
    network.heal();
    network.elect(n2);
    assert.equal(network.of(n2).raft.commit, 4);
  });

  test('a follower learns what is committed with the next message [3.5, TestFollowerCommitEntry]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.settle();
    assert.equal(network.of(n1).raft.commit, 2);
    assert.equal(network.of(n2).raft.commit, 1);
    network.advance(heartbeatMs);
    assert.equal(network.of(n2).raft.commit, 2);
  });

  test("nothing is sent or counted before the leader's own sync [10.2.1]", () => {
    const leader = new Machine(n1);
    leader.lead();
    leader.take();
    leader.propose('"x"');
    const before = leader.take({ sync: false });
    assert.deepEqual(indexesOf(before.messages.map(({ message }) => message)), []);
    assert.deepEqual(
      before.write?.entries.map(({ index }) => index),
      [2],
    );
    leader.hears(n2, 1);
    assert.equal(leader.raft.commit, 1);
    leader.write();
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2]);
    assert.equal(leader.raft.commit, 1);
    leader.hears(n2, 2);
    assert.equal(leader.raft.commit, 2);
  });

  test('stale and repeated acknowledgements take nothing back [TestLeaderAppResp]', () => {
    const leader = new Machine(n1);
    leader.lead();
    leader.propose('"x"', '"y"');
    leader.take();
    leader.hears(n2, 3);
    leader.hears(n2, 1);
    assert.equal(leader.raft.commit, 3);
    assert.equal(leader.raft.progress().get(n2)?.match, 3);
    leader.receive(n3, appendReply(0, 3));
    assert.equal(leader.raft.progress().get(n3)?.match, 0, 'an acknowledgement of another term counts for nothing');
  });

  test('an acknowledgement of more than there is does not harm the leader', () => {
    const leader = new Machine(n1);
    leader.lead();
    leader.take();
    leader.hears(n2, 1_000_000);
    assert.equal(leader.raft.progress().get(n2)?.match, 1);
    leader.propose('"x"');
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2]);
  });

  test('nobody but the leader takes proposals [TestProposal]', () => {
    const follower = new Machine(n1);
    assert.equal(follower.propose('"x"'), undefined);
    follower.campaign();
    assert.equal(follower.propose('"x"'), undefined);
    assert.equal(new Machine(n1, { voters: 1 }).propose('"x"'), undefined);
  });
});

describe('what a follower accepts [3.5]', () => {
  const leaders = logOf(1, 1, 4, 4, 5, 5, 6, 6, 6);

  for (const [what, own] of [
    ['(a) lacks one', [1, 1, 4, 4, 5, 5, 6, 6]],
    ['(b) lacks many', [1, 1, 4, 4]],
    ['(c) has one more', [1, 1, 4, 4, 5, 5, 6, 6, 6, 6]],
    ['(d) has entries of a later term', [1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]],
    ['(e) has others and lacks some', [1, 1, 4, 4, 4, 4]],
    ['(f) has others of several terms', [1, 1, 2, 2, 2, 3, 3, 3, 3, 3]],
  ] as const) {
    test(`a log that ${what} becomes the leader's [figure 3.6, TestLeaderSyncFollowerLog]`, () => {
      const leader = new Machine(n1, { log: leaders, hardState: { term: 7, votedFor: undefined } });
      const follower = new Machine(n2, { log: logOf(...own), hardState: { term: 7, votedFor: undefined } });
      leader.lead();
      for (let round = 0; round < 20 && follower.tail.last.hash !== leader.tail.last.hash; round++) {
        leader.raft.tick((leader.nowMs += heartbeatMs));
        for (const message of leader.messagesTo(n2)) {
          for (const reply of follower.exchange(n1, message)) leader.receive(n2, reply);
        }
      }
      assert.deepEqual(follower.tail.last, leader.tail.last);
      assert.equal(follower.raft.failure, undefined);
      assert.equal(leader.raft.commit, 10);
    });
  }

  test('without the previous entry, or with another there, nothing is taken [TestFollowerCheckMsgApp]', () => {
    const short = new Machine(n2, { log: leaders.slice(0, 4) });
    assert.equal(replyOf(short.exchange(n1, append(leaders, { term: 6, after: 6 }))).accepted, false);
    const other = new Machine(n2, { log: logOf(1, 1, 4, 4, 4, 4) });
    assert.equal(replyOf(other.exchange(n1, append(leaders, { term: 6, after: 6 }))).accepted, false);
    assert.deepEqual([short.tail.last.index, other.tail.last.index], [4, 6]);
  });

  test("a refusal says where the leader may try: the log's end, or before the term in conflict [3.5, TestFastLogRejection]", () => {
    for (const [own, after, expected] of [
      [[1, 1, 4, 4], 8, 4],
      [[1, 1, 4, 4, 4, 4, 4], 7, 2],
      [[1, 1, 2, 2, 2, 3, 3, 3, 3], 9, 5],
      [[1, 1, 1, 1, 1, 1], 5, 0],
      [[], 3, 0],
    ] as const) {
      const follower = new Machine(n2, { log: logOf(...own) });
      const refusal = replyOf(follower.exchange(n1, append(leaders, { term: 6, after })));
      assert.deepEqual([refusal.accepted, refusal.match], [false, expected], own.join(' '));
    }
  });

  test('but never before what it knows to be committed, or has matched in this term', () => {
    const follower = new Machine(n2, { log: leaders.slice(0, 4), applied: 2 });
    follower.exchange(n1, append(leaders, { term: 6, after: 2, through: 3 }), { sync: false });
    const conflicting = logOf(1, 1, 4, 5, 5, 5, 5);
    assert.equal(replyOf(follower.exchange(n1, append(conflicting, { term: 6, after: 4 }))).match, 3);
    const committed = new Machine(n2, { log: logOf(1, 1, 1, 1), applied: 2 });
    assert.equal(replyOf(committed.exchange(n1, append(leaders, { term: 6, after: 3 }))).match, 2);
  });

  test('so a follower far off is found in a handful of messages [TestFastLogRejection]', () => {
    const many = (term: number): number[] => Array.from({ length: 500 }, () => term);
    const leader = new Machine(n1, { log: logOf(1, ...many(2), ...many(5)) });
    const follower = new Machine(n2, { log: logOf(1, ...many(2), ...many(3), ...many(4)) });
    leader.lead();
    let heartbeats = 0;
    while (follower.tail.last.hash !== leader.tail.last.hash) {
      heartbeats += 1;
      leader.raft.tick((leader.nowMs += heartbeatMs));
      for (const message of leader.messagesTo(n2)) {
        for (const reply of follower.exchange(n1, message)) leader.receive(n2, reply);
      }
      assert.ok(heartbeats < 6);
    }
  });

  test('a conflicting tail is cut, and what was written of it is cut on disk [TestFollowerAppendEntries]', () => {
    const follower = new Machine(n2, { log: logOf(1, 1, 2, 2, 2), applied: 2 });
    follower.receive(n1, append(leaders, { term: 6, after: 2, through: 5 }));
    const { write } = follower.take();
    assert.equal(write?.keepThrough, 2);
    assert.deepEqual(write.entries, leaders.slice(2, 5));
    assert.deepEqual(follower.tail.last, leaders[4]);
  });

  test('what is cut is handed over to be kept, as far as it was on this disk (R9)', () => {
    const old = logOf(1, 1, 2, 2, 2);
    const follower = new Machine(n2, { log: old.slice(0, 4) });
    follower.exchange(n3, append(old, { term: 2, after: 4 }), { sync: false });
    follower.receive(n1, append(leaders, { term: 6, after: 2, through: 5 }));
    assert.deepEqual(follower.take().write?.removed, old.slice(2, 4), 'entry 5 was answered by nobody here');
  });

  test('entries that are there already are neither cut nor written again, duplicated or late as they may be', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append(leaders, { term: 6 }));
    const written = follower.written.length;
    for (const [after, through] of [
      [0, 9],
      [2, 4],
      [8, 9],
      [0, 1],
    ] as const) {
      const reply = replyOf(follower.exchange(n1, append(leaders, { term: 6, after, through })));
      assert.deepEqual([reply.accepted, reply.match], [true, 9]);
    }
    assert.equal(follower.written.length, written);
    assert.equal(follower.tail.last.index, 9);
  });

  test('reordered appends are refused until the gap is filled, then all is taken', () => {
    const follower = new Machine(n2);
    const accepted = (after: number, through: number): boolean =>
      replyOf(follower.exchange(n1, append(leaders, { term: 6, after, through }))).accepted;
    assert.equal(accepted(3, 6), false);
    assert.equal(accepted(0, 3), true);
    assert.equal(accepted(3, 6), true);
    assert.equal(follower.tail.last.index, 6);
  });

  for (const [what, message, commit] of [
    ['as far as the leader', { after: 1, through: 3, commit: 2 }, 2],
    ['not beyond what the message shows to be equal', { after: 1, through: 2, commit: 5 }, 2],
    ['nor beyond the previous entry of a heartbeat', { after: 3, through: 3, commit: 5 }, 3],
    ['never back', { after: 2, through: 2, commit: 0 }, 1],
  ] as const) {
    test(`the commit index follows ${what} [TestHandleMsgApp, TestHandleHeartbeat]`, () => {
      const follower = new Machine(n2, { log: logOf(1, 1, 1, 1, 1), applied: 1 });
      follower.exchange(n1, append(logOf(1, 1, 1, 1, 1), { term: 6, ...message }));
      assert.equal(follower.raft.commit, commit);
    });
  }

  test('a leader of an earlier term is refused and told [TestRejectStaleTermMessage]', () => {
    const follower = new Machine(n2, { hardState: { term: 7, votedFor: undefined } });
    const reply = replyOf(follower.exchange(n1, append(leaders, { term: 6 })));
    assert.deepEqual([reply.accepted, reply.term, follower.tail.last.index], [false, 7, 0]);
  });

  test('a second leader of one term is not listened to [3.2]', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append(leaders, { term: 6, through: 3 }));
    assert.deepEqual(follower.exchange(n3, append(leaders, { term: 6, after: 3 })), []);
    assert.deepEqual([follower.raft.leader, follower.tail.last.index], [n1, 3]);
    const leader = new Machine(n1);
    leader.lead();
    leader.receive(n3, append(leaders, { term: 1 }));
    assert.deepEqual([leader.raft.role, leader.tail.last.index], ['leader', 1]);
  });

  test('the leader of a later term is followed whether or not it is in the follower’s membership [4.1]', () => {
    const follower = new Machine(n2);
    follower.exchange(nodeId('joined'), append(leaders, { term: 9 }));
    assert.deepEqual([follower.raft.leader, follower.tail.last.index], ['joined', 9]);
  });
});

describe('acknowledgements stand for what is on disk [10.2.1]', () => {
  const entries = logOf(1, 1, 1, 1);
  const matchOf = (messages: readonly RaftMessage[]): number => replyOf(messages).match;

  test('none leaves before the sync, and one does after it', () => {
    const follower = new Machine(n2);
    assert.deepEqual(follower.exchange(n1, append(entries, { term: 1 }), { sync: false }), []);
    follower.write();
    assert.deepEqual(follower.messagesTo(n1), [appendReply(1, 4, { sequence: 1 })]);
  });

  test('a heartbeat is answered at once, with what is on disk', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append(entries, { term: 1 }), { sync: false });
    follower.raft.onDurable(at(entries[1]));
    follower.take({ sync: false });
    const heartbeat = append(entries, { term: 1, after: 4, sequence: 2, sentMs: 77 });
    const reply = replyOf(follower.exchange(n1, heartbeat, { sync: false }));
    assert.deepEqual(reply, appendReply(1, 2, { sequence: 2, sentMs: 77 }));
  });

  test('a follower that is never level with what comes in still acknowledges each sync', () => {
    const follower = new Machine(n2);
    const acknowledged: number[] = [];
    for (let index = 1; index <= 3; index++) {
      // One more arrives while the one before is being written.
      follower.receive(n1, append(entries, { term: 1, after: index - 1, through: index, sequence: index }));
      if (index > 1) follower.raft.onDurable(at(entries[index - 2]));
      for (const { message } of follower.take({ sync: false }).messages) {
        if (message.kind === 'append-reply') acknowledged.push(message.match);
      }
    }
    assert.deepEqual(acknowledged, [1, 2]);
  });

  test('a report about entries that were cut since counts for nothing', () => {
    const follower = new Machine(n2);
    const [old, newer] = [logOf(1, 1, 1, 1), logOf(1, 1, 2, 2)];
    follower.exchange(n1, append(old, { term: 1 }), { sync: false });
    follower.exchange(n3, append(newer, { term: 2, after: 2 }), { sync: false });
    follower.raft.onDurable(at(old[3]));
    assert.equal(follower.raft.durable, 0);
    follower.raft.onDurable(at(newer[3]));
    assert.equal(follower.raft.durable, 4);
  });

  test('only for what this term’s leader is known to have too, not for a tail of its own', () => {
    const follower = new Machine(n2, { log: logOf(1, 1, 1, 1, 1, 1) });
    assert.equal(matchOf(follower.exchange(n1, append(entries, { term: 2, after: 2, through: 3 }))), 3);
    assert.equal(matchOf(follower.exchange(n3, append(entries, { term: 3, after: 1, through: 1 }))), 1);
  });

  test('a sync that ends in a later term is not acknowledged to that one’s leader as matched', () => {
    const follower = new Machine(n2);
    follower.exchange(n1, append(entries, { term: 1 }), { sync: false });
    follower.exchange(n3, append([], { term: 2 }), { sync: false });
    follower.write();
    assert.deepEqual(
      follower.messagesTo(n3).map((message) => (message as AppendReply).match),
      [],
    );
    assert.equal(matchOf(follower.exchange(n3, append([], { term: 2 }))), 0);
  });
});

describe('a copy that cannot be right stops, alone (R6)', () => {
  const leaders = logOf(1, 1, 2);
  const forged = chainEntry(at(leaders[0]), 1, '"forged"');

  for (const [what, own, applied, message] of [
    ['another hash at the same index and term', [leaders[0], forged], 0, append(leaders, { term: 2, after: 1 })],
    ['another hash at the previous entry', [leaders[0], forged], 0, append(leaders, { term: 2, after: 2 })],
    ['another entry below the commit index', logOf(1, 1, 1), 3, append(leaders, { term: 2, after: 2 })],
    ['another previous entry below the commit index', logOf(1, 1, 1), 3, append(leaders, { term: 2, after: 3 })],
  ] as const) {
    test(what, () => {
      const copy = new Machine(n2, { log: own as LogEntry[], applied });
      assert.deepEqual(copy.exchange(n1, message), []);
      assert.match(copy.raft.failure ?? '', /another (?:hash|entry)/);
      assert.deepEqual(copy.exchange(n1, append(leaders, { term: 3 })), [], 'it takes part no more');
      copy.nowMs += 10_000;
      assert.deepEqual(kindsOf(copy.tick(50)), []);
      assert.equal(copy.tail.last.index, own.length, 'its log stays as evidence');
      assert.equal(copy.propose('"x"'), undefined);
    });
  }

  test('and the others go on without it', () => {
    const network = new Network(3);
    network.elect(n1);
    network.of(n1).propose('"x"');
    network.advance(heartbeatMs);
    const { disk } = network.of(n3);
    disk.log = [at(disk.log[0]), chainEntry(at(disk.log[0]), 1, '"edited"')];
    network.restart(n3);
    network.advance(2_000);
    assert.match(network.of(n3).raft.failure ?? '', /entry 2 of term 1 has another hash/);
    network.of(n1).propose('"y"');
    network.advance(2 * heartbeatMs);
    assert.deepEqual([network.of(n1).raft.commit, network.of(n2).raft.commit], [3, 3]);
  });
});

describe('lost messages and slow peers', () => {
  const leading = (bodies: readonly string[], options: { readonly voters?: number } = {}): Machine => {
    const leader = new Machine(n1, options);
    leader.lead();
    leader.take();
    for (const peer of names.slice(1, options.voters ?? 3)) leader.hears(peer, 1);
    leader.propose(...bodies);
    leader.take();
    return leader;
  };
  const beat = (leader: Machine): RaftMessage[] => {
    leader.raft.tick((leader.nowMs += heartbeatMs));
    return leader.messagesTo(n2);
  };

  test('a heartbeat goes to everybody who was sent nothing for so long [TestLeaderBcastBeat, TestBcastBeat]', () => {
    const leader = leading([], { voters: 5 });
    assert.deepEqual(kindsOf(leader.tick(heartbeatMs - 1)), []);
    assert.deepEqual(
      kindsOf(leader.tick(1)),
      ['n2', 'n3', 'n4', 'n5'].map((id) => `append to ${id}`),
    );
  });

  test('a heartbeat finds the batch that was lost, and it is sent again [TestRecvMsgUnreachable]', () => {
    const leader = leading(['"x"', '"y"']);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [], 'once');
    const heartbeat = firstAppend(beat(leader));
    assert.equal(heartbeat.previous.index, 3);
    leader.hears(n2, 1, { accepted: false, sequence: heartbeat.sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
  });

  test('refusals of messages that were sent before it went back do not send it back again [TestLeaderAppResp]', () => {
    const leader = leading(['"x"', '"y"']);
    const { sequence } = firstAppend(leader.messagesTo(n2));
    for (let copy = 0; copy < 5; copy++) leader.hears(n2, 1, { accepted: false, sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
    leader.hears(n2, 1, { accepted: false, sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), []);
  });

  test('a peer that lacks what it has acknowledged is sent all of it again, and not counted', () => {
    const leader = leading(['"x"', '"y"']);
    leader.take();
    leader.hears(n2, 2);
    leader.hears(n2, 0, { accepted: false });
    assert.equal(leader.raft.progress().get(n2)?.match, 0);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [1, 2, 3]);
  });

  test('a silent peer is sent 8,192 entries and then heartbeats only [10.2.1, TestMsgAppFlowControlFull]', () => {
    const leader = leading(Array.from({ length: 10_000 }, () => '"x"'));
    const sent = indexesOf(leader.messagesTo(n2)).length;
    assert.ok(sent >= 8192 && sent < 8192 + 512, `${sent}: at most a message more`);
    for (let count = 0; count < 5; count++) {
      const messages = beat(leader);
      assert.equal(messages.length, 1);
      assert.deepEqual(indexesOf(messages), []);
      // The rest of the majority is heard.
      leader.hears(n3, 1);
    }
    leader.hears(n2, 5_000);
    assert.equal(indexesOf(leader.messagesTo(n2)).length, 10_001 - 1 - sent);
  });

  test('a silent peer is sent no more than 8 MiB of large entries [TestMsgAppFlowControlMoveForward]', () => {
    const body = `"${'x'.repeat(100 * 1024)}"`;
    const leader = leading(Array.from({ length: 300 }, () => body));
    const sent = leader.messagesTo(n2);
    const bytes = indexesOf(sent).length * body.length;
    assert.ok(bytes >= 8 * 1024 * 1024 && bytes < 8.3 * 1024 * 1024, `${bytes}`);
    for (const message of sent) {
      assert.ok(message.kind === 'append' && message.entries.length <= 2, '256 KiB a message');
    }
    leader.hears(n2, 41);
    assert.equal(indexesOf(leader.messagesTo(n2)).length, 40);
  });

  test("each peer's window is its own", () => {
    const leader = leading(Array.from({ length: 9_000 }, () => '"x"'));
    leader.take();
    leader.hears(n3, 8_192);
    const { messages } = leader.take();
    assert.ok(messages.every(({ to }) => to === n3));
    assert.ok(messages.length > 0);
  });

  test('silence is counted from when a majority was heard', () => {
    const leader = leading([], { voters: 5 });
    leader.nowMs += 1_000;
    assert.equal(leader.raft.silenceMs(leader.nowMs), 1_000);
    leader.hears(n2, 1);
    assert.equal(leader.raft.silenceMs(leader.nowMs), 1_000);
    leader.hears(n3, 1);
    assert.equal(leader.raft.silenceMs(leader.nowMs), 0);
  });

  test('a follower that was away gets what it missed, in order and once [3.5, TestLogReplication]', () => {
    const network = new Network(3);
    network.elect(n1);
    network.isolate(n3);
    for (let count = 0; count < 50; count++) {
      network.of(n1).propose(`"${count}"`);
      network.settle();
    }
    assert.equal(network.of(n1).raft.commit, 51);
    network.heal();
    network.advance(1_000);
    assert.equal(network.of(n3).raft.commit, 51);
    assert.equal(network.of(n3).written.length, 51);
  });
});

describe('a patient peer', () => {
  const patient = (): Machine => {
    const leader = new Machine(n1, { patient: n3 });
    leader.lead();
    leader.take();
    for (const peer of [n2, n3]) leader.hears(peer, 1);
    return leader;
  };

  test('gets entries a little later than the others, and all that have gathered', () => {
    const leader = patient();
    leader.propose('"x"');
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2]);
    leader.propose('"y"');
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n3)), []);
    leader.nowMs += 20;
    assert.deepEqual(indexesOf(leader.messagesTo(n3)), [2, 3]);
  });

  test('is sent everything at once while an eager peer is silent, or leadership goes to it', () => {
    const silent = patient();
    silent.nowMs += 4 * heartbeatMs;
    silent.hears(n3, 1);
    const handing = patient();
    handing.propose('"w"');
    handing.raft.transfer(n3, handing.nowMs);
    for (const leader of [silent, handing]) {
      leader.propose('"x"');
      leader.take();
      leader.messagesTo(n3);
      leader.propose('"y"');
      leader.take();
      assert.deepEqual(indexesOf(leader.messagesTo(n3)), [leader.tail.last.index]);
    }
  });

  test('is heard like any other: with it alone there is a majority', () => {
    const leader = patient();
    for (let waited = 0; waited < 2 * electionTimeoutMs; waited += 50) {
      leader.hears(n3, 1);
      leader.tick(50);
    }
    assert.equal(leader.raft.role, 'leader');
  });
});
