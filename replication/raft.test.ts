import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition } from '../store/entry.ts';
import { LogTail } from './log-tail.ts';
import { Raft, type HardState, type RaftMessage, type Ready } from './raft.ts';

/*
 * Scenarios of the pure machine. Where one has a name in Ongaro's thesis (section) or among the tests of etcd's raft
 * (test's name), it is given; the scenarios are theirs, the code is not.
 * Over 500 lines because one machine's rules are read in one place, like the machine itself.
 */

const group = groupId('a');
const names = ['n1', 'n2', 'n3', 'n4', 'n5'].map(nodeId);
const [n1, n2, n3] = names as [NodeId, NodeId, NodeId];
const electionTimeoutMs = 600;
const heartbeatMs = 100;

/** A log whose entries have the given terms, bodies `body-<index>-<term>`. */
function logOf(...terms: number[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const term of terms) {
    const previous: LogPosition = entries.at(-1) ?? originPosition(group);
    entries.push(chainEntry(previous, term, `"body-${previous.index + 1}-${term}"`));
  }
  return entries;
}

function sourceOf(entries: readonly LogEntry[]) {
  return {
    last: () => entries.at(-1) ?? originPosition(group),
    position: (index: number) => (index === 0 ? originPosition(group) : entries[index - 1]),
    entries: (from: number, count: number) => entries.slice(from - 1, from - 1 + count),
  };
}

class Member {
  readonly raft: Raft;
  readonly log: LogTail;
  nowMs = 10_000;
  /** Everything handed over so far, with what is still to be synced. */
  readonly written: LogEntry[] = [];
  ready: Ready | undefined;

  constructor(
    self: NodeId,
    options: {
      readonly voters?: number;
      readonly log?: readonly LogEntry[];
      readonly applied?: number;
      readonly hardState?: HardState;
      readonly mayCampaign?: boolean;
      readonly patient?: NodeId;
    } = {},
  ) {
    this.log = new LogTail(sourceOf(options.log ?? []));
    this.raft = new Raft({
      group,
      self,
      voters: names.slice(0, options.voters ?? 3),
      mayCampaign: () => options.mayCampaign ?? true,
      hardState: options.hardState ?? { term: options.log?.at(-1)?.term ?? 0, votedFor: undefined },
      log: this.log,
      applied: options.applied ?? 0,
      patient: new Set(options.patient === undefined ? [] : [options.patient]),
      heartbeatMs,
      electionTimeoutMs,
    });
  }

  /** Takes what is ready; `sync` reports it as written. */
  take({ sync = true }: { readonly sync?: boolean } = {}): Ready {
    const ready = this.raft.takeReady(this.nowMs);
    this.ready = ready;
    if (ready.write !== undefined) this.written.push(...ready.write.entries);
    if (sync) this.raft.onDurable(this.log.last);
    return ready;
  }

  receive(from: NodeId, message: RaftMessage): void {
    this.raft.receive(from, message, this.nowMs);
  }

  /** Receives and returns the answers to `from`. */
  exchange(from: NodeId, message: RaftMessage, options: { readonly sync?: boolean } = {}): RaftMessage[] {
    this.receive(from, message);
    const before = this.take(options).messages;
    // What the sync made ready.
    const after = options.sync === false ? [] : this.raft.takeReady(this.nowMs).messages;
    return [...before, ...after].filter(({ to }) => to === from).map(({ message: each }) => each);
  }

  campaign(): Ready {
    this.raft.tick(this.nowMs);
    return this.take();
  }

  /** Campaigns and wins with the votes of the others. */
  lead(): Ready {
    this.campaign();
    const { term } = this.raft;
    for (const voter of names) {
      if (voter !== this.raft.self) this.receive(voter, { kind: 'vote-reply', term, granted: true });
    }
    assert.equal(this.raft.role, 'leader');
    return this.take();
  }

  /** Messages that go to `to` now. */
  messagesTo(to: NodeId): RaftMessage[] {
    return this.take()
      .messages.filter((each) => each.to === to)
      .map(({ message }) => message);
  }

  hears(from: NodeId, match: number, options: Partial<RaftMessage & { kind: 'append-reply' }> = {}): void {
    const reply = { kind: 'append-reply', accepted: true, applied: 0, sequence: 1_000_000, ...options } as const;
    this.receive(from, { term: this.raft.term, match, ...reply });
  }
}

function append(
  log: readonly LogEntry[],
  options: { term: number; after: number; through?: number; commit?: number; sequence?: number },
): RaftMessage & { kind: 'append' } {
  return {
    kind: 'append',
    term: options.term,
    previous: log[options.after - 1] ?? originPosition(group),
    entries: log.slice(options.after, options.through ?? log.length),
    commit: options.commit ?? 0,
    sequence: options.sequence ?? 1,
  };
}

function at(entry: LogEntry | undefined): LogEntry {
  assert.ok(entry !== undefined);
  return entry;
}

const indexesOf = (messages: readonly RaftMessage[]): number[] =>
  messages.flatMap((message) => (message.kind === 'append' ? message.entries.map(({ index }) => index) : []));
const firstAppend = (messages: readonly RaftMessage[]): RaftMessage & { kind: 'append' } => {
  const found = messages.find((message) => message.kind === 'append');
  assert.ok(found?.kind === 'append');
  return found;
};

describe('votes (3.4, 3.6.1)', () => {
  const vote = (term: number, log: readonly LogEntry[]): RaftMessage => ({
    kind: 'vote',
    term,
    lastIndex: log.length,
    lastTerm: log.at(-1)?.term ?? 0,
  });
  const granted = (messages: readonly RaftMessage[]): boolean[] =>
    messages.flatMap((message) => (message.kind === 'vote-reply' ? [message.granted] : []));

  test('a vote is given once a term, and again to the same candidate (TestVoteFromAnyState)', () => {
    const voter = new Member(n3);
    assert.deepEqual(granted(voter.exchange(n1, vote(5, []))), [true]);
    assert.deepEqual(granted(voter.exchange(n2, vote(5, []))), [false]);
    assert.deepEqual(granted(voter.exchange(n1, vote(5, []))), [true]);
    assert.deepEqual(granted(voter.exchange(n2, vote(6, []))), [true]);
  });

  test('a vote that was given before a restart counts', () => {
    const voter = new Member(n3, { hardState: { term: 5, votedFor: n1 } });
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
    test(`a candidate whose log is ${what} gets ${expected ? 'the' : 'no'} vote (TestRecvMsgVote)`, () => {
      const voter = new Member(n3, { log: logOf(...own), hardState: { term: 3, votedFor: undefined } });
      assert.deepEqual(granted(voter.exchange(n1, vote(4, logOf(...candidate)))), [expected]);
      assert.equal(voter.raft.term, 4, 'the term is taken whether or not the vote is given');
    });
  }

  test('an earlier term gets no vote, and is told the later one (TestPastElectionTimeout, 3.3)', () => {
    const voter = new Member(n3, { hardState: { term: 7, votedFor: undefined } });
    assert.deepEqual(voter.exchange(n1, vote(6, [])), [{ kind: 'vote-reply', term: 7, granted: false }]);
  });

  test('term and vote are handed over to be synced with the very messages that tell of them', () => {
    const voter = new Member(n3);
    voter.receive(n1, vote(5, []));
    const ready = voter.take();
    assert.deepEqual(ready.hardState, { term: 5, votedFor: n1 });
    assert.deepEqual(granted(ready.messages.map(({ message }) => message)), [true]);
    const candidate = new Member(n1).campaign();
    assert.deepEqual(candidate.hardState, { term: 1, votedFor: n1 });
    assert.equal(candidate.messages.length, 2);
    assert.equal(voter.take().hardState, undefined, 'once');
  });

  for (const [voters, needed] of [
    [1, 0],
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
  ] as const) {
    test(`of ${voters} voters, a candidate needs ${needed} besides itself (TestLeaderElectionInOneRoundRPC)`, () => {
      const candidate = new Member(n1, { voters });
      candidate.campaign();
      const replies = names.slice(1, voters);
      for (const [index, voter] of replies.entries()) {
        assert.equal(candidate.raft.role, index < needed ? 'candidate' : 'leader');
        candidate.receive(voter, { kind: 'vote-reply', term: 1, granted: true });
      }
      assert.equal(candidate.raft.role, 'leader');
    });
  }

  test('the same vote twice, a refused one, one of an earlier term and one of a stranger do not count', () => {
    const candidate = new Member(n1, { voters: 5, hardState: { term: 3, votedFor: undefined } });
    candidate.campaign();
    for (let copy = 0; copy < 3; copy++) candidate.receive(n2, { kind: 'vote-reply', term: 4, granted: true });
    candidate.receive(n3, { kind: 'vote-reply', term: 4, granted: false });
    candidate.receive(n3, { kind: 'vote-reply', term: 3, granted: true });
    candidate.receive(nodeId('stranger'), { kind: 'vote-reply', term: 4, granted: true });
    assert.equal(candidate.raft.role, 'candidate');
  });

  test('a candidate that gets no majority asks again in a later term, after the election timeout', () => {
    const candidate = new Member(n1);
    candidate.campaign();
    candidate.nowMs += electionTimeoutMs - 1;
    assert.equal(candidate.campaign().messages.length, 0);
    candidate.nowMs += 1;
    assert.equal(candidate.campaign().messages.length, 2);
    assert.equal(candidate.raft.term, 2);
  });

  test('who may not campaign does not, and who may does not while it hears a leader', () => {
    const follower = new Member(n2, { mayCampaign: false });
    follower.nowMs += 1_000_000;
    assert.deepEqual(follower.campaign().messages, []);
    const heir = new Member(n2);
    heir.exchange(n1, append([], { term: 1, after: 0 }));
    heir.nowMs += electionTimeoutMs - 1;
    assert.deepEqual(heir.campaign().messages, []);
    heir.nowMs += 1;
    assert.equal(heir.campaign().messages.length, 2);
  });
});

describe('what the leader commits (3.6.2, 5.4.2 of the paper)', () => {
  test('a new leader enters one entry of its own at once', () => {
    const leader = new Member(n1, { log: logOf(1, 1) });
    assert.deepEqual(
      leader.lead().write?.entries.map(({ index, term, body }) => ({
        index,
        term,
        kind: (JSON.parse(body) as { kind: string }).kind,
      })),
      [{ index: 3, term: 2, kind: 'no-op' }],
    );
  });

  for (const [voters, needed] of [
    [2, 1],
    [3, 1],
    [4, 2],
    [5, 2],
  ] as const) {
    test(`of ${voters} voters, an entry is committed with ${needed} besides the leader (TestLeaderAcknowledgeCommit)`, () => {
      const leader = new Member(n1, { voters });
      leader.lead();
      for (const [index, voter] of names.slice(1, voters).entries()) {
        assert.equal(leader.raft.commit, index < needed ? 0 : 1);
        leader.hears(voter, 1);
      }
      assert.equal(leader.raft.commit, 1);
    });
  }

  test('a single voter commits with its own sync (TestSingleNodeCommit)', () => {
    const single = new Member(n1, { voters: 1 });
    single.raft.tick(single.nowMs);
    assert.equal(single.raft.role, 'leader');
    single.take({ sync: false });
    assert.equal(single.raft.commit, 0);
    single.raft.onDurable(single.log.last);
    assert.equal(single.raft.commit, 1);
  });

  test('entries of earlier terms are not committed by counting (figure 3.7, TestLeaderOnlyCommitsLogFromCurrentTerm)', () => {
    const leader = new Member(n1, { voters: 5, log: logOf(1, 2) });
    leader.lead();
    leader.hears(n2, 2);
    leader.hears(n3, 2);
    assert.equal(leader.raft.commit, 0, 'a majority has entry 2, which is of term 2, and the leader is of term 3');
    leader.hears(n2, 3);
    leader.hears(n3, 3);
    assert.equal(leader.raft.commit, 3, 'with the first entry of its own term, all before it');
  });

  test("nothing is sent or committed before the leader's own sync", () => {
    const leader = new Member(n1);
    leader.lead();
    leader.raft.takeReady(leader.nowMs);
    leader.raft.propose(['"x"']);
    const before = leader.take({ sync: false });
    assert.deepEqual(indexesOf(before.messages.map(({ message }) => message)), []);
    assert.deepEqual(
      before.write?.entries.map(({ index }) => index),
      [2],
    );
    leader.hears(n2, 1);
    assert.equal(leader.raft.commit, 1);
    leader.raft.onDurable(leader.log.last);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2]);
    assert.equal(leader.raft.commit, 1);
    leader.hears(n2, 2);
    assert.equal(leader.raft.commit, 2);
  });

  test('stale and repeated acknowledgements take nothing back (TestMsgAppRespWaitReset)', () => {
    const leader = new Member(n1);
    leader.lead();
    leader.raft.propose(['"x"', '"y"']);
    leader.take();
    leader.hears(n2, 3);
    leader.hears(n2, 1);
    assert.equal(leader.raft.commit, 3);
    assert.equal(leader.raft.progress().get(n2)?.match, 3);
    leader.receive(n3, { kind: 'append-reply', term: 0, accepted: true, match: 3, applied: 0, sequence: 1 });
    assert.equal(leader.raft.progress().get(n3)?.match, 0, 'an acknowledgement of another term counts for nothing');
  });

  test('a deposed leader steps down at the first message of a later term (TestLeaderUpdateTermFromMessage)', () => {
    const leader = new Member(n1);
    leader.lead();
    leader.receive(n2, { kind: 'append-reply', term: 9, accepted: false, match: 0, applied: 0, sequence: 1 });
    assert.equal(leader.raft.role, 'follower');
    assert.equal(leader.raft.propose(['"x"']), undefined);
    assert.deepEqual(leader.take().hardState, { term: 9, votedFor: undefined });
  });
});

describe('what a follower accepts (3.5)', () => {
  const leaders = logOf(1, 1, 4, 4, 5, 5, 6, 6, 6);

  for (const [what, own] of [
    ['(a) lacks one', [1, 1, 4, 4, 5, 5, 6, 6]],
    ['(b) lacks many', [1, 1, 4, 4]],
    ['(c) has one more', [1, 1, 4, 4, 5, 5, 6, 6, 6, 6]],
    ['(d) has entries of a later term', [1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]],
    ['(e) has others and lacks some', [1, 1, 4, 4, 4, 4]],
    ['(f) has others of several terms', [1, 1, 2, 2, 2, 3, 3, 3, 3, 3]],
  ] as const) {
    test(`a log that ${what} becomes the leader's (figure 3.6, TestLeaderSyncFollowerLog)`, () => {
      const leader = new Member(n1, { log: leaders, hardState: { term: 7, votedFor: undefined } });
      const follower = new Member(n2, { log: logOf(...own), hardState: { term: 7, votedFor: undefined } });
      leader.lead();
      for (let round = 0; round < 20 && follower.log.last.hash !== leader.log.last.hash; round++) {
        leader.nowMs += heartbeatMs;
        leader.raft.tick(leader.nowMs);
        for (const message of leader.messagesTo(n2)) {
          for (const reply of follower.exchange(n1, message)) leader.receive(n2, reply);
        }
      }
      assert.deepEqual(follower.log.last, leader.log.last);
      assert.equal(follower.raft.failure, undefined);
      assert.equal(leader.raft.commit, 10);
    });
  }

  test('without the previous entry, or with another there, nothing is taken (TestFollowerCheckMsgApp)', () => {
    const short = new Member(n2, { log: leaders.slice(0, 4) });
    const [missing] = short.exchange(n1, append(leaders, { term: 6, after: 6 }));
    assert.deepEqual(missing, { kind: 'append-reply', term: 6, accepted: false, match: 0, applied: 0, sequence: 1 });
    const other = new Member(n2, { log: logOf(1, 1, 4, 4, 4, 4) });
    assert.equal(
      (other.exchange(n1, append(leaders, { term: 6, after: 6 }))[0] as { accepted: boolean }).accepted,
      false,
    );
    assert.deepEqual([short.log.last.index, other.log.last.index], [4, 6]);
  });

  test('a refusal names what the follower is sure of: its commit index, or what it has matched in this term', () => {
    const follower = new Member(n2, { log: leaders.slice(0, 4), applied: 2 });
    const refused = (): number => {
      const [reply] = follower.exchange(n1, append(leaders, { term: 6, after: 8 }), { sync: false });
      assert.ok(reply?.kind === 'append-reply' && !reply.accepted);
      return reply.match;
    };
    assert.equal(refused(), 2);
    follower.exchange(n1, append(leaders, { term: 6, after: 2, through: 6 }), { sync: false });
    assert.equal(refused(), 6);
  });

  test('a conflicting tail is cut, and what was written of it is cut on disk (TestFollowerAppendEntries)', () => {
    const follower = new Member(n2, { log: logOf(1, 1, 2, 2, 2), applied: 2 });
    follower.receive(n1, append(leaders, { term: 6, after: 2, through: 5 }));
    const { write } = follower.take();
    assert.equal(write?.keepThrough, 2);
    assert.deepEqual(write.entries, leaders.slice(2, 5));
    assert.deepEqual(follower.log.last, leaders[4]);
  });

  test('entries that are there already are neither cut nor written again, duplicated or late as they may be', () => {
    const follower = new Member(n2);
    follower.exchange(n1, append(leaders, { term: 6, after: 0 }));
    const written = follower.written.length;
    for (const [after, through] of [
      [0, 9],
      [2, 4],
      [8, 9],
      [0, 1],
    ] as const) {
      const [reply] = follower.exchange(n1, append(leaders, { term: 6, after, through }));
      assert.deepEqual(reply, { kind: 'append-reply', term: 6, accepted: true, match: 9, applied: 0, sequence: 1 });
    }
    assert.equal(follower.written.length, written);
    assert.equal(follower.log.last.index, 9);
  });

  test('reordered appends are refused until the gap is filled, then all is taken', () => {
    const follower = new Member(n2);
    const accepted = (after: number, through: number): boolean | undefined => {
      const [reply] = follower.exchange(n1, append(leaders, { term: 6, after, through }));
      return reply?.kind === 'append-reply' ? reply.accepted : undefined;
    };
    assert.equal(accepted(3, 6), false);
    assert.equal(accepted(0, 3), true);
    assert.equal(accepted(3, 6), true);
    assert.equal(follower.log.last.index, 6);
  });

  test('the commit index follows the leader as far as the logs are known to be equal (TestHandleMsgApp)', () => {
    const follower = new Member(n2, { log: logOf(1, 1, 1, 1, 1) });
    follower.exchange(n1, append(leaders, { term: 6, after: 1, through: 2, commit: 5 }));
    assert.equal(follower.raft.commit, 2, 'entries 3 to 5 here may be others');
    follower.exchange(n1, append(leaders, { term: 6, after: 2, through: 2, commit: 1 }));
    assert.equal(follower.raft.commit, 2, 'never back');
  });

  test('a leader of an earlier term is refused and told (TestRejectStaleTermMessage)', () => {
    const follower = new Member(n2, { hardState: { term: 7, votedFor: undefined } });
    const [reply] = follower.exchange(n1, append(leaders, { term: 6, after: 0 }));
    assert.ok(reply?.kind === 'append-reply' && !reply.accepted && reply.term === 7);
    assert.equal(follower.log.last.index, 0);
  });

  test('a candidate that hears of a leader of its term follows it (TestCandidateFallback)', () => {
    const candidate = new Member(n2);
    candidate.campaign();
    candidate.exchange(n1, append([], { term: 1, after: 0 }));
    assert.equal(candidate.raft.role, 'follower');
    assert.equal(candidate.raft.leader, n1);
  });

  test('messages of who is no voter, or of itself, change nothing', () => {
    const follower = new Member(n2);
    for (const from of [nodeId('stranger'), n2]) follower.receive(from, append(leaders, { term: 9, after: 0 }));
    assert.deepEqual([follower.raft.term, follower.log.last.index], [0, 0]);
  });
});

describe('acknowledgements stand for what is on disk', () => {
  const entries = logOf(1, 1, 1, 1);

  test('none leaves before the sync, and one does after it', () => {
    const follower = new Member(n2);
    assert.deepEqual(follower.exchange(n1, append(entries, { term: 1, after: 0 }), { sync: false }), []);
    follower.raft.onDurable(at(entries[3]));
    assert.deepEqual(follower.messagesTo(n1), [
      { kind: 'append-reply', term: 1, accepted: true, match: 4, applied: 0, sequence: 1 },
    ]);
  });

  test('a heartbeat is answered at once, with what is on disk', () => {
    const follower = new Member(n2);
    follower.exchange(n1, append(entries, { term: 1, after: 0 }), { sync: false });
    follower.raft.onDurable(at(entries[1]));
    follower.take({ sync: false });
    const [reply] = follower.exchange(n1, append(entries, { term: 1, after: 4, sequence: 2 }), { sync: false });
    assert.deepEqual(reply, { kind: 'append-reply', term: 1, accepted: true, match: 2, applied: 0, sequence: 2 });
  });

  test('a follower that is never level with what comes in still acknowledges each sync', () => {
    const follower = new Member(n2);
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
    const follower = new Member(n2);
    const old = logOf(1, 1, 1, 1);
    follower.exchange(n1, append(old, { term: 1, after: 0 }), { sync: false });
    const newer = logOf(1, 1, 2, 2);
    follower.exchange(n3, append(newer, { term: 2, after: 2 }), { sync: false });
    follower.raft.onDurable(at(old[3]));
    assert.equal(follower.raft.durable, 0);
    follower.raft.onDurable(at(newer[3]));
    assert.equal(follower.raft.durable, 4);
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
      const copy = new Member(n2, { log: own as LogEntry[], applied });
      assert.deepEqual(copy.exchange(n1, message), []);
      assert.match(copy.raft.failure ?? '', /another (?:hash|entry)/);
      assert.deepEqual(copy.exchange(n1, append(leaders, { term: 3, after: 0 })), [], 'it takes part no more');
      assert.deepEqual(copy.campaign().messages, []);
      assert.equal(copy.log.last.index, own.length, 'its log stays as evidence');
    });
  }
});

describe('lost messages and slow peers', () => {
  const leading = (bodies: readonly string[], options: { readonly voters?: number } = {}): Member => {
    const leader = new Member(n1, options);
    leader.lead();
    leader.take();
    for (const peer of names.slice(1)) leader.hears(peer, 1);
    leader.raft.propose(bodies);
    leader.take();
    return leader;
  };

  test('a heartbeat finds the batch that was lost, and it is sent again (TestMsgAppRespWaitReset)', () => {
    const leader = leading(['"x"', '"y"']);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [], 'once');
    leader.nowMs += heartbeatMs;
    leader.raft.tick(leader.nowMs);
    const heartbeat = firstAppend(leader.messagesTo(n2));
    assert.equal(heartbeat.previous.index, 3);
    leader.hears(n2, 1, { accepted: false, sequence: heartbeat.sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
  });

  test('refusals of messages that were sent before it went back do not send it back again', () => {
    const leader = leading(['"x"', '"y"']);
    const { sequence } = firstAppend(leader.messagesTo(n2));
    for (let copy = 0; copy < 5; copy++) leader.hears(n2, 1, { accepted: false, sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2, 3]);
    leader.hears(n2, 1, { accepted: false, sequence });
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), []);
  });

  test('a peer that lacks what it has acknowledged has lost its disk: it is sent all of it again, and not counted', () => {
    const leader = leading(['"x"', '"y"']);
    leader.take();
    leader.hears(n2, 2);
    leader.hears(n2, 0, { accepted: false });
    assert.equal(leader.raft.progress().get(n2)?.match, 0);
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [1, 2, 3]);
  });

  test('a silent peer is sent 8,192 entries and then heartbeats only (TestMsgAppFlowControlFull)', () => {
    const leader = leading(Array.from({ length: 10_000 }, () => '"x"'));
    assert.deepEqual(indexesOf(leader.messagesTo(n2)).length, 8192);
    for (let beat = 0; beat < 10; beat++) {
      leader.nowMs += heartbeatMs;
      leader.raft.tick(leader.nowMs);
      const messages = leader.messagesTo(n2);
      assert.equal(messages.length, 1);
      assert.deepEqual(indexesOf(messages), []);
    }
    leader.hears(n2, 5_000);
    assert.equal(indexesOf(leader.messagesTo(n2)).length, 10_001 - 1 - 8192);
  });

  test('a silent peer is sent no more than 8 MiB of large entries (TestMsgAppFlowControlMoveForward)', () => {
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
    const messages = leader.take().messages;
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
});

describe('a patient peer', () => {
  const patient = (): Member => {
    const leader = new Member(n1, { voters: 3, patient: n3 });
    leader.lead();
    leader.take();
    for (const peer of [n2, n3]) leader.hears(peer, 1);
    return leader;
  };

  test('gets entries a little later than the others, and all that have gathered', () => {
    const leader = patient();
    leader.raft.propose(['"x"']);
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n2)), [2]);
    leader.raft.propose(['"y"']);
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n3)), []);
    leader.nowMs += 20;
    assert.deepEqual(indexesOf(leader.messagesTo(n3)), [2, 3]);
  });

  test('is sent everything at once while an eager peer is silent', () => {
    const leader = patient();
    leader.nowMs += 4 * heartbeatMs;
    leader.hears(n3, 1);
    leader.raft.propose(['"x"']);
    leader.take();
    leader.messagesTo(n3);
    leader.raft.propose(['"y"']);
    leader.take();
    assert.deepEqual(indexesOf(leader.messagesTo(n3)), [3]);
  });
});
