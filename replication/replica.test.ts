import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { seededRandom } from '../base/random.ts';
import type { LogEntry } from '../store/entry.ts';
import type { WriteRequest } from '../store/writer.ts';
import type { HardState, RaftMessage } from './raft.ts';
import { Replica } from './replica.ts';
import {
  append,
  appendReply,
  at,
  Disk,
  electionTimeoutMs,
  extend,
  firstVoters,
  group,
  heartbeatMs,
  helloReply,
  leaseMs,
  logOf,
  n1,
  n2,
  n3,
  preVoteReply,
  takeOver,
  vote,
  voteReply,
} from './testing.ts';

/*
 * The order in which a replica carries out what consensus says. Over 500 lines because every test needs the same bench.
 */

/** A replica with everything around it written down in one list, in order. */
class Bench {
  readonly clock = new ManualClock();
  readonly order: string[] = [];
  readonly sent: { to: NodeId; message: RaftMessage }[] = [];
  readonly submitted: WriteRequest[] = [];
  readonly salvaged: LogEntry[] = [];
  readonly disk: Disk;
  readonly replica: Replica;

  constructor(
    self: NodeId,
    options: { readonly log?: readonly LogEntry[]; readonly hardState?: HardState; readonly confirmed?: boolean } = {},
  ) {
    const { hardState = { term: 0, votedFor: undefined }, confirmed = true } = options;
    this.disk = new Disk(firstVoters(3));
    this.disk.log = [...(options.log ?? [])];
    const note =
      <T>(name: (value: T) => string) =>
      (_: unknown, value: T): void => {
        this.order.push(name(value));
      };
    this.replica = new Replica({
      group,
      self,
      incarnation: 1,
      memberships: this.disk.memberships(),
      campaignDelayMs: () => 0,
      willing: () => true,
      remembered: (id) => this.disk.remembered.get(id),
      hardState,
      source: this.disk,
      applied: 0,
      heartbeatMs,
      electionTimeoutMs,
      clock: this.clock,
      random: seededRandom(1),
      writer: {
        open: () => Promise.reject(new Error('not here')),
        reopen: () => Promise.reject(new Error('not here')),
        submit: (request) => {
          this.order.push(`submit ${request.entries.length} apply ${request.applyThrough}`);
          this.submitted.push(request);
        },
        trim: () => undefined,
        resume: () => undefined,
        finishCheckpoint: () => undefined,
        snapshot: () => undefined,
        close: () => Promise.resolve(),
      },
      saveHardState: ({ term, votedFor }) =>
        this.order.push(`sync term ${term}${votedFor === undefined ? '' : ` vote ${votedFor}`}`),
      saveIncarnation: (incarnation) => this.order.push(`sync incarnation ${incarnation}`),
      salvage: (entries) => {
        this.order.push(`salvage ${entries.map(({ index }) => index).join(' ')}`);
        this.salvaged.push(...entries);
      },
      send: (to, message) => {
        this.order.push(`send ${message.kind} to ${to}`);
        this.sent.push({ to, message });
      },
      listener: {
        onRole: (_, leading, term) => this.order.push(leading ? `lead ${term}` : 'follow'),
        onLeader: note<NodeId | undefined>((leader) => `leader ${leader ?? 'unknown'}`),
        onProgress: (_, { commit, durable, leaseUntilMs }) => {
          this.order.push(`commit ${commit} durable ${durable}${leaseUntilMs > 0 ? ` lease ${leaseUntilMs}` : ''}`);
        },
        onApplied: note<number>((applied) => `applied ${applied}`),
        onMark: note<string>((compare) => `mark ${compare}`),
        onAcknowledged: (_, term, all) =>
          this.order.push(`acknowledged ${term}: ${all.map(({ id, index }) => `${id} ${index}`).join(', ')}`),
        onBehind: note<NodeId>((leader) => `behind ${leader}`),
        onFailure: note<string>((reason) => `failed: ${reason}`),
      },
    });
    for (const peer of [n1, n2, n3]) if (confirmed && peer !== self) this.receive(peer, helloReply());
    this.clock.advance(2 * electionTimeoutMs);
    this.happened();
  }

  /** Everything that happened since the last call. */
  happened(): string[] {
    return this.order.splice(0);
  }

  tick(): void {
    this.replica.tick();
    this.clock.runSoon();
  }

  receive(from: NodeId, message: RaftMessage): void {
    this.replica.receive(from, message);
  }

  /** Receives, and the turn ends. */
  hear(from: NodeId, message: RaftMessage): void {
    this.receive(from, message);
    this.clock.runSoon();
  }

  /** The writer has carried out what was submitted, or so many requests of it. */
  write(count = this.submitted.length): void {
    for (const { keepThrough, entries, applyThrough } of this.submitted.splice(0, count)) {
      this.disk.write(keepThrough, entries);
      this.disk.applied = Math.max(this.disk.applied, Math.min(applyThrough, this.disk.last().index));
    }
    this.replica.onWriter({ kind: 'written', group, durable: this.disk.last(), applied: this.disk.applied });
    this.clock.runSoon();
  }

  lead(): void {
    this.tick();
    this.hear(n2, preVoteReply(true));
    this.hear(n2, voteReply(this.replica.raft.term, true));
  }

  /** What goes to a peer, of those messages that say how much is on this disk. */
  acknowledged(): number[] {
    const acknowledged = this.sent.splice(0).flatMap(({ message }) => {
      return message.kind === 'append-reply' && message.accepted ? [message.match] : [];
    });
    return acknowledged;
  }
}

describe('the order in which a replica carries things out', () => {
  test('term and vote are synced before anybody is told of them [3.8, 10.2.1]', () => {
    const candidate = new Bench(n1);
    candidate.tick();
    assert.deepEqual(candidate.happened().slice(-2), ['send pre-vote to n2', 'send pre-vote to n3']);
    candidate.hear(n2, preVoteReply(true));
    assert.deepEqual(candidate.happened(), ['sync term 1 vote n1', 'send vote to n2', 'send vote to n3']);
    const voter = new Bench(n2);
    voter.hear(n1, vote(4, []));
    assert.deepEqual(voter.happened(), ['sync term 4 vote n1', 'send vote-reply to n1']);
  });

  test('a new incarnation is synced before anybody is told of it (R8)', () => {
    const member = new Bench(n2, { log: logOf(3), hardState: { term: 3, votedFor: undefined }, confirmed: false });
    member.hear(n1, helloReply({ incarnation: 1, term: 3, index: 2_000 }));
    assert.deepEqual(member.happened(), ['sync incarnation 2', 'commit 0 durable 1']);
    member.hear(n1, append(logOf(3), { term: 3, after: 1 }));
    assert.equal(member.sent.at(-1)?.message.incarnation, 2);
  });

  test('a leader writes its entries, then sends them, then commits with the first answer, then applies', () => {
    const leader = new Bench(n1);
    leader.tick();
    leader.hear(n2, preVoteReply(true));
    leader.happened();
    leader.hear(n2, voteReply(1, true));
    assert.deepEqual(leader.happened(), [
      'send append to n2',
      'send append to n3',
      'submit 1 apply 0',
      'lead 1',
      'leader n1',
    ]);
    leader.write();
    assert.deepEqual(leader.happened(), ['send append to n2', 'send append to n3', 'commit 0 durable 1']);
    leader.hear(n2, appendReply(1, 1, { sentMs: 1200 }));
    assert.deepEqual(leader.happened(), ['submit 0 apply 1', `commit 1 durable 1 lease ${1200 + leaseMs}`]);
    leader.write();
    assert.deepEqual(leader.happened(), ['applied 1']);
  });

  test('a follower acknowledges in the turn in which it learns of its sync', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append(logOf(1, 1), { term: 1 }));
    assert.deepEqual(follower.happened(), ['sync term 1', 'submit 2 apply 0', 'leader n1']);
    follower.write();
    assert.deepEqual(follower.happened(), ['send append-reply to n1', 'commit 0 durable 2']);
  });

  test('what is cut is kept elsewhere before it is cut (R9)', () => {
    const old = logOf(1, 1, 1);
    const follower = new Bench(n2, { log: old, hardState: { term: 1, votedFor: undefined } });
    follower.hear(n1, append(extend(old.slice(0, 1), 2), { term: 2, after: 1 }));
    assert.deepEqual(follower.happened(), [
      'sync term 2',
      'salvage 2 3',
      'submit 1 apply 0',
      'leader n1',
      'commit 0 durable 1',
    ]);
    assert.deepEqual(follower.salvaged, old.slice(1));
    assert.equal(follower.submitted[0]?.keepThrough, 1);
  });

  test('what comes in one turn is one flush, and what comes during a write is one next write', () => {
    const follower = new Bench(n2);
    const entries = logOf(1, 1, 1, 1, 1, 1);
    follower.receive(n1, append(entries, { term: 1, through: 1 }));
    follower.hear(n1, append(entries, { term: 1, after: 1, through: 2 }));
    assert.deepEqual(follower.happened(), ['sync term 1', 'submit 2 apply 0', 'leader n1']);
    for (let after = 2; after < 6; after++) {
      follower.hear(n1, append(entries, { term: 1, after, through: after + 1, commit: after }));
    }
    assert.equal(follower.submitted.length, 1, 'one write at a time');
    follower.write();
    assert.deepEqual(
      follower.submitted.map((request) => request.entries.length),
      [4],
    );
  });

  test('committed entries are applied some time after the last ones, with what is appended then or alone', () => {
    const follower = new Bench(n2);
    const entries = logOf(1, 1, 1);
    const applied = (): number[] => follower.submitted.map(({ applyThrough }) => applyThrough);
    follower.hear(n1, append(entries, { term: 1, through: 1 }));
    follower.write();
    follower.replica.tick();
    follower.hear(n1, append(entries, { term: 1, after: 3, through: 3 }));
    follower.hear(n1, append(entries, { term: 1, after: 1 }));
    follower.write();
    follower.hear(n1, append(entries, { term: 1, after: 3, commit: 3 }));
    follower.write();
    assert.equal(follower.replica.applied, 3);
    follower.hear(n1, append(extend(entries, 1), { term: 1, after: 3, commit: 4 }));
    assert.deepEqual(applied(), [3], 'what has just come waits for more');
    follower.write();
    assert.deepEqual(applied(), []);
    follower.clock.advance(100);
    assert.deepEqual(applied(), [4]);
    follower.write();
    assert.equal(follower.replica.applied, 4);
    assert.equal(follower.clock.timers, 0);
  });

  test('a commit that comes during a write, and is due before that ends, is applied all the same', () => {
    const follower = new Bench(n2);
    const entries = logOf(1, 1);
    follower.hear(n1, append(entries, { term: 1, through: 1 }));
    follower.write();
    follower.hear(n1, append(entries, { term: 1, after: 1, through: 1, commit: 1 }));
    follower.hear(n1, append(entries, { term: 1, after: 1 }));
    follower.hear(n1, append(entries, { term: 1, after: 2, commit: 2 }));
    follower.clock.advance(200);
    follower.write();
    follower.clock.advance(200);
    follower.write();
    assert.equal(follower.replica.applied, 2);
  });

  test('a leader says that it leads before it says how far it is, and of a lost lease at once (R3)', () => {
    const leader = new Bench(n1);
    leader.lead();
    leader.write();
    leader.hear(n2, appendReply(1, 1, { sentMs: 1200 }));
    leader.happened();
    leader.hear(n2, appendReply(1, 1, { sentMs: 1201 }));
    assert.deepEqual(leader.happened(), [], 'a little more lease is not worth a message');
    leader.hear(n2, appendReply(1, 1, { sentMs: 1260 }));
    assert.deepEqual(leader.happened(), [`commit 1 durable 1 lease ${1260 + leaseMs}`]);
    assert.ok(leader.replica.transfer(n2));
    leader.clock.runSoon();
    assert.deepEqual(leader.happened(), ['send take-over to n2', 'commit 1 durable 1']);
    leader.hear(n2, appendReply(2, 1, { accepted: false }));
    assert.deepEqual(leader.happened(), ['sync term 2', 'follow', 'leader unknown']);
  });

  test('whoever is told to take over campaigns in that turn [3.10]', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append([], { term: 1 }));
    follower.happened();
    follower.hear(n1, takeOver(1));
    assert.deepEqual(follower.happened(), [
      'sync term 2 vote n2',
      'send vote to n1',
      'send vote to n3',
      'leader unknown',
    ]);
  });

  test('a leader that steps down has said so when the call returns', () => {
    const leader = new Bench(n1);
    leader.lead();
    leader.happened();
    leader.replica.stepDown('it was asked to');
    assert.deepEqual(leader.happened(), ['follow', 'leader unknown']);
    assert.equal(leader.replica.propose(['"x"']), undefined);
  });

  test('what the leader says of its members is passed on, what another says is not (R8)', () => {
    const follower = new Bench(n2);
    const acknowledged = [{ id: n3, incarnation: 1, index: 7, applied: 0 }];
    follower.hear(n1, { ...append([], { term: 2 }), acknowledged });
    assert.ok(follower.happened().includes('acknowledged 2: n3 7'));
    follower.hear(n3, { ...append([], { term: 2 }), acknowledged });
    follower.hear(n3, { ...append([], { term: 1 }), acknowledged });
    assert.ok(!follower.happened().some((each) => each.startsWith('acknowledged')));
  });
});

describe('reports of the writer are fenced (R6)', () => {
  // Two leaders have the same entries after index 1; the one between them has others.
  const ours = logOf(1, 1, 1, 1);
  const theirs = extend(ours.slice(0, 1), 2, 2);

  /** Three entries are being written when another leader has them cut, and a third has them appended again. */
  function cutAndAppendedAgain(): Bench {
    const follower = new Bench(n2);
    follower.hear(n1, append(ours, { term: 1 }));
    follower.hear(n3, append(theirs, { term: 2, after: 1 }));
    follower.hear(n1, append(ours, { term: 3, after: 1 }));
    follower.acknowledged();
    return follower;
  }

  test('cut and appended again while a write is under way: its report counts up to the cut', () => {
    const follower = cutAndAppendedAgain();
    follower.write();
    assert.deepEqual(follower.acknowledged(), [1], 'the disk has all four, and is about to cut three of them');
    assert.equal(follower.replica.raft.durable, 1);
    follower.write();
    assert.deepEqual(follower.acknowledged(), [4]);
    assert.deepEqual(follower.disk.log, ours);
  });

  test('what gathered meanwhile is one request: nothing is reported between its cuts', () => {
    const follower = cutAndAppendedAgain();
    follower.write();
    assert.equal(follower.submitted.length, 1);
    assert.deepEqual(
      { keepThrough: follower.submitted[0]?.keepThrough, entries: follower.submitted[0]?.entries },
      { keepThrough: 1, entries: ours.slice(1) },
    );
  });

  test('the second write is not fenced by what came before it', () => {
    const follower = cutAndAppendedAgain();
    follower.write();
    follower.hear(n1, append(extend(ours, 3), { term: 3, after: 4 }));
    follower.acknowledged();
    follower.write();
    assert.deepEqual(follower.acknowledged(), [4]);
    follower.write();
    assert.deepEqual(follower.acknowledged(), [5]);
  });

  test('a report of what was cut for good counts for nothing', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append(ours, { term: 1 }));
    follower.hear(n3, append(theirs, { term: 2, after: 1 }));
    follower.acknowledged();
    follower.write();
    assert.deepEqual([follower.acknowledged(), follower.replica.raft.durable], [[1], 1]);
    follower.write();
    assert.deepEqual([follower.acknowledged(), follower.replica.raft.durable], [[3], 3]);
  });

  test('nor does a deposed leader count a write of its term for the next', () => {
    const leader = new Bench(n1);
    leader.lead();
    leader.write();
    leader.replica.propose(['"x"']);
    leader.clock.runSoon();
    leader.hear(n3, append(extend(logOf(), 2, 2), { term: 2 }));
    leader.acknowledged();
    leader.write();
    assert.deepEqual(leader.acknowledged(), []);
    assert.equal(leader.replica.raft.durable, 0);
    leader.write();
    assert.deepEqual(leader.acknowledged(), [2]);
  });

  test('what lies on disk and was cut is salvaged though the writer has not reported it', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append(ours, { term: 1 }));
    follower.write();
    follower.hear(n3, append(theirs, { term: 2, after: 1 }));
    assert.deepEqual(follower.salvaged, ours.slice(1));
  });
});

describe('a snapshot that replaces the file (R10)', () => {
  const log = logOf(1, 1, 2, 2, 2);
  const position = at(log[3]);
  const behind: RaftMessage = { kind: 'behind', incarnation: 1, term: 3, base: 4, sequence: 1, sentMs: 0 };

  test('is asked for from the leader that says so', () => {
    const follower = new Bench(n2);
    follower.hear(n1, behind);
    assert.deepEqual(follower.happened(), ['sync term 3', 'send append-reply to n1', 'leader n1', 'behind n1']);
  });

  test('begins when what it replaces is salvaged; until it is installed nothing is written or said', () => {
    const old = logOf(1, 1, 1);
    const follower = new Bench(n2, { log: old, hardState: { term: 1, votedFor: undefined } });
    follower.hear(n1, behind);
    follower.happened();
    assert.equal(follower.replica.takeSnapshot(position), 'install');
    assert.deepEqual(follower.happened(), ['salvage 1 2 3']);
    follower.hear(n1, append(log, { term: 3 }));
    follower.tick();
    follower.clock.advance(5_000);
    assert.deepEqual(follower.happened(), []);
    assert.deepEqual(follower.submitted, []);
  });

  test('and then stands at its position, with the new file to read from', () => {
    const follower = new Bench(n2);
    follower.replica.takeSnapshot(position);
    const replacing = new Disk(firstVoters(3));
    replacing.install(position, { index: 0, voters: firstVoters(3), learners: [] });
    follower.replica.onInstalled(position, replacing.startMembership, replacing);
    follower.clock.runSoon();
    assert.deepEqual(follower.happened(), ['applied 4', 'commit 4 durable 4']);
    assert.deepEqual(follower.replica.log.last, position);
    follower.hear(n1, append(log, { term: 3, after: 4 }));
    assert.deepEqual(
      follower.submitted.map(({ keepThrough, entries }) => [keepThrough, entries.length]),
      [[undefined, 1]],
    );
  });

  test('goes on as before when the writer refuses it', () => {
    const follower = new Bench(n2, { log: logOf(1), hardState: { term: 1, votedFor: undefined } });
    follower.replica.takeSnapshot(position);
    follower.replica.onWriter({ kind: 'snapshot-refused', group, transfer: 't', reason: 'disk full' });
    follower.hear(n1, append(log, { term: 3, after: 1 }));
    assert.equal(follower.submitted.length, 1);
  });

  test('a write that was under way is reported before, and counts', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append(logOf(1, 1), { term: 1 }));
    assert.equal(follower.replica.takeSnapshot(position), 'install');
    follower.write();
    assert.equal(follower.replica.raft.durable, 2);
    assert.deepEqual(follower.submitted, []);
  });
});

describe('a replica that has stopped', () => {
  test('by a failed write or a broken log says so once, and does nothing more', () => {
    const follower = new Bench(n2);
    follower.replica.onWriter({ kind: 'failed', group, reason: 'disk full', cause: 'disk' });
    assert.deepEqual(follower.happened(), ['failed: disk full']);
    follower.hear(n1, append(logOf(1, 1), { term: 1 }));
    follower.tick();
    follower.clock.advance(5_000);
    assert.deepEqual(follower.happened(), []);
    assert.equal(follower.replica.propose(['"x"']), undefined);
    assert.equal(follower.replica.transfer(n1), false);
    assert.equal(follower.replica.takeSnapshot(at(logOf(1)[0])), 'useless');
  });

  test('by its owner leaves no timer and reports nothing', () => {
    const follower = new Bench(n2);
    follower.hear(n1, append(logOf(1), { term: 1, commit: 1 }));
    follower.write();
    follower.replica.stop();
    follower.happened();
    follower.clock.advance(5_000);
    assert.deepEqual(follower.happened(), []);
    assert.equal(follower.clock.timers, 0);
  });

  test('a mark is passed on', () => {
    const follower = new Bench(n2);
    follower.replica.onWriter({ kind: 'mark', group, compare: 'c1', index: 7 });
    assert.deepEqual(follower.happened(), ['mark c1']);
  });

  test('what was trimmed is no longer sent', () => {
    const leader = new Bench(n1, { log: logOf(1, 1, 1), hardState: { term: 1, votedFor: undefined } });
    leader.disk.applied = 3;
    leader.lead();
    leader.write();
    leader.disk.trim(2);
    leader.replica.onWriter({ kind: 'trimmed', group, base: leader.disk.start });
    leader.sent.length = 0;
    leader.hear(n2, appendReply(2, 0, { accepted: false }));
    leader.clock.advance(heartbeatMs);
    leader.tick();
    assert.ok(leader.sent.some(({ to, message }) => to === n2 && message.kind === 'behind'));
  });
});
