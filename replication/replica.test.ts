import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { chainEntry, originPosition, type LogEntry } from '../store/entry.ts';
import type { WriteRequest } from '../store/writer.ts';
import type { RaftMessage } from './raft.ts';
import { Replica } from './replica.ts';

const group = groupId('a');
const [n1, n2, n3] = [nodeId('n1'), nodeId('n2'), nodeId('n3')];

/** A replica with everything around it written down in one list, in order. */
class Bench {
  readonly clock = new ManualClock();
  readonly order: string[] = [];
  readonly sent: { to: NodeId; message: RaftMessage }[] = [];
  readonly submitted: WriteRequest[] = [];
  readonly replica: Replica;
  readonly #file: LogEntry[] = [];
  #applied = 0;

  constructor(self: NodeId, voters: readonly NodeId[] = [n1, n2, n3]) {
    const origin = originPosition(group);
    this.replica = new Replica({
      group,
      self,
      voters,
      mayCampaign: () => self === n1,
      hardState: { term: 0, votedFor: undefined },
      source: {
        last: () => this.#file.at(-1) ?? origin,
        position: (index) => (index === 0 ? origin : this.#file[index - 1]),
        entries: (from, count) => this.#file.slice(from - 1, from - 1 + count),
      },
      applied: 0,
      heartbeatMs: 100,
      electionTimeoutMs: 600,
      clock: this.clock,
      writer: {
        open: () => Promise.reject(new Error('not here')),
        submit: (request) => {
          this.order.push(`submit ${request.entries.length} apply ${request.applyThrough}`);
          this.submitted.push(request);
        },
        resume: () => undefined,
        close: () => Promise.resolve(),
      },
      saveHardState: ({ term }) => this.order.push(`sync term ${term}`),
      send: (to, message) => {
        this.order.push(`send ${message.kind} to ${to}`);
        this.sent.push({ to, message });
      },
      listener: {
        onRole: (_, leading, term) => this.order.push(leading ? `lead ${term}` : 'follow'),
        onProgress: (_, { commit, durable }) => this.order.push(`commit ${commit} durable ${durable}`),
        onApplied: (_, applied) => this.order.push(`applied ${applied}`),
        onMark: (_, compare) => this.order.push(`mark ${compare}`),
        onFailure: (_, reason) => this.order.push(`failed: ${reason}`),
      },
    });
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

  /** The writer has carried out what was submitted. */
  write(): void {
    for (const { keepThrough, entries, applyThrough } of this.submitted.splice(0)) {
      if (keepThrough !== undefined) this.#file.length = Math.min(this.#file.length, keepThrough);
      this.#file.push(...entries);
      this.#applied = Math.max(this.#applied, Math.min(applyThrough, this.#file.length));
    }
    const durable = this.#file.at(-1) ?? originPosition(group);
    this.replica.onWriter({ kind: 'written', group, durable, applied: this.#applied });
    this.clock.runSoon();
  }

  append(entries: readonly LogEntry[], after: number, commit: number): void {
    const previous = entries[after - 1] ?? originPosition(group);
    this.receive(n1, { kind: 'append', term: 1, previous, entries: entries.slice(after), commit, sequence: 1 });
  }
}

function logOf(count: number): LogEntry[] {
  const entries: LogEntry[] = [];
  for (let index = 0; index < count; index++)
    entries.push(chainEntry(entries.at(-1) ?? originPosition(group), 1, '"x"'));
  return entries;
}

describe('the order in which a replica carries things out', () => {
  test('term and vote are synced before anybody is told of them', () => {
    const candidate = new Bench(n1);
    candidate.tick();
    assert.deepEqual(candidate.happened(), ['sync term 1', 'send vote to n2', 'send vote to n3']);
    const voter = new Bench(n2);
    voter.receive(n1, { kind: 'vote', term: 4, lastIndex: 0, lastTerm: 0 });
    voter.clock.runSoon();
    assert.deepEqual(voter.happened(), ['sync term 4', 'send vote-reply to n1']);
  });

  test('a leader writes its entries, then sends them, then commits with the first answer, then applies', () => {
    const leader = new Bench(n1);
    leader.tick();
    leader.happened();
    leader.receive(n2, { kind: 'vote-reply', term: 1, granted: true });
    leader.clock.runSoon();
    assert.deepEqual(leader.happened(), ['submit 1 apply 0', 'lead 1']);
    leader.write();
    assert.deepEqual(leader.happened(), ['send append to n2', 'send append to n3', 'commit 0 durable 1']);
    leader.receive(n2, { kind: 'append-reply', term: 1, accepted: true, match: 1, applied: 0, sequence: 1 });
    leader.clock.runSoon();
    assert.deepEqual(leader.happened(), ['commit 1 durable 1']);
    leader.clock.advance(100);
    assert.deepEqual(leader.happened(), ['submit 0 apply 1']);
    leader.write();
    assert.deepEqual(leader.happened(), ['applied 1']);
  });

  test('a follower acknowledges in the turn in which it learns of its sync', () => {
    const follower = new Bench(n2);
    follower.append(logOf(2), 0, 0);
    follower.clock.runSoon();
    assert.deepEqual(follower.happened(), ['sync term 1', 'submit 2 apply 0']);
    follower.write();
    assert.deepEqual(follower.happened(), ['send append-reply to n1', 'commit 0 durable 2']);
  });

  test('what comes in one turn is one flush, and what comes during a write is one next write', () => {
    const follower = new Bench(n2);
    const entries = logOf(6);
    follower.append(entries.slice(0, 1), 0, 0);
    follower.append(entries.slice(0, 2), 1, 0);
    follower.clock.runSoon();
    assert.deepEqual(follower.happened(), ['sync term 1', 'submit 2 apply 0']);
    for (let after = 2; after < 6; after++) {
      follower.append(entries.slice(0, after + 1), after, after);
      follower.clock.runSoon();
    }
    assert.deepEqual(follower.submitted.length, 1, 'one write at a time');
    follower.happened();
    follower.write();
    assert.equal(
      follower.submitted.reduce((sum, { entries: each }) => sum + each.length, 0),
      4,
    );
  });

  test('committed entries are applied some time after the last ones, with what is appended then or alone', () => {
    const follower = new Bench(n2);
    const entries = logOf(3);
    follower.append(entries.slice(0, 1), 0, 0);
    follower.clock.runSoon();
    follower.write();
    follower.append(entries, 1, 1);
    follower.clock.runSoon();
    assert.deepEqual(
      follower.submitted.map(({ applyThrough }) => applyThrough),
      [0],
    );
    follower.write();
    follower.append(entries, 3, 3);
    follower.clock.runSoon();
    assert.deepEqual(follower.submitted, []);
    follower.clock.advance(100);
    assert.deepEqual(
      follower.submitted.map(({ applyThrough }) => applyThrough),
      [3],
    );
    follower.write();
    assert.equal(follower.replica.applied, 3);
    assert.equal(follower.clock.timers, 0);
  });

  test('what is due to be applied goes with what is appended then', () => {
    const follower = new Bench(n2);
    const entries = logOf(3);
    follower.append(entries.slice(0, 1), 0, 1);
    follower.clock.runSoon();
    follower.write();
    follower.clock.advance(100);
    follower.write();
    assert.equal(follower.replica.applied, 1);
    follower.append(entries.slice(0, 2), 1, 2);
    follower.clock.advance(100);
    follower.append(entries, 2, 2);
    follower.clock.runSoon();
    const together = follower.submitted.map((each) => [each.entries.length, each.applyThrough]);
    assert.deepEqual(together, [[1, 2]]);
  });

  test('a commit that comes during a write, and is due before that ends, is applied all the same', () => {
    const follower = new Bench(n2);
    const entries = logOf(2);
    follower.append(entries.slice(0, 1), 0, 0);
    follower.clock.runSoon();
    follower.write();
    follower.append(entries.slice(0, 1), 1, 1);
    follower.clock.runSoon();
    follower.append(entries, 1, 0);
    follower.clock.runSoon();
    follower.append(entries, 2, 2);
    follower.clock.runSoon();
    follower.clock.advance(200);
    follower.write();
    follower.clock.advance(200);
    follower.write();
    assert.equal(follower.replica.applied, 2);
  });
});

describe('a replica that has stopped', () => {
  test('by a failed write or a broken log says so once, and does nothing more', () => {
    const follower = new Bench(n2);
    follower.replica.onWriter({ kind: 'failed', group, reason: 'disk full' });
    assert.deepEqual(follower.happened(), ['failed: disk full']);
    follower.append(logOf(2), 0, 0);
    follower.tick();
    follower.clock.advance(5_000);
    assert.deepEqual(follower.happened(), []);
    assert.equal(follower.replica.propose(['"x"']), undefined);
  });

  test('by its owner leaves no timer and reports nothing', () => {
    const follower = new Bench(n2);
    follower.append(logOf(1), 0, 1);
    follower.clock.runSoon();
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
});
