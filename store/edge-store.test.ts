import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { groupId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import {
  EdgeFile,
  type EdgeChange,
  type EdgePending,
  type HeldRestriction,
  type QueueChange,
  type QueuedChange,
  type ReversalDue,
  type StandIn,
} from './edge-store.ts';
import type { DecisionEntry } from './entry.ts';
import { temporaryFolder } from './testing.ts';

const group = groupId('a');

const due = (number: number): ReversalDue => ({
  attempt: `n1.4.${number}`,
  key: `0301120000|00000${number}|link-1|123456|TERM0001|0100`,
  group,
  at: 1_772_366_400_000,
});

const standIn = (sequence: number): StandIn => ({
  sequence,
  group,
  currency: '840',
  decision: { kind: 'decision', attempt: `n1.4.9${sequence}`, hold: '5000' } as DecisionEntry,
});

/** An edge's file, and what was called back. */
class Bench {
  readonly clock = new ManualClock();
  readonly path: string;
  file: EdgeFile;
  readonly done: string[] = [];

  constructor(context: TestContext) {
    this.path = join(temporaryFolder(context), 'edge.db');
    this.file = new EdgeFile(this.path, this.clock);
    context.after(() => {
      this.file.close();
    });
  }

  submit(name: string, ...changes: EdgeChange[]): void {
    this.file.submit(changes, (failure) => this.done.push(failure === undefined ? name : `${name} ${failure.code}`));
  }

  /** Ends the process without closing, and starts it again. */
  restart(): void {
    this.file = new EdgeFile(this.path, this.clock);
  }

  pending(maximumDues = 99): EdgePending | undefined {
    let found: EdgePending | undefined;
    this.file.pending(maximumDues, (pending) => (found = pending));
    return found;
  }
}

describe("an edge's file", () => {
  test('has on disk what it has called back for, and nothing before', (context) => {
    const bench = new Bench(context);
    bench.submit('one', { kind: 'due', due: due(1) });
    assert.deepEqual([bench.done, bench.pending()?.dues], [[], []]);
    bench.clock.runSoon();
    assert.deepEqual(bench.done, ['one']);
    bench.restart();
    assert.deepEqual(bench.pending(), { dues: [due(1)], standIns: [], lastSequence: 0, restrictions: [] });
  });
  test('writes what gathers in one turn together, and calls back in order', (context) => {
    const bench = new Bench(context);
    for (const number of [1, 2, 3]) bench.submit(String(number), { kind: 'due', due: due(number) });
    bench.submit('stand-in', { kind: 'stand-in', standIn: standIn(1) });
    bench.clock.runSoon();
    assert.deepEqual(bench.done, ['1', '2', '3', 'stand-in']);
    assert.deepEqual(bench.pending(2)?.dues, [due(1), due(2)], 'the oldest ones');
    assert.deepEqual(bench.pending()?.standIns, [standIn(1)]);
  });
  test('forgets what is settled, and never gives a number of a stand-in again', (context) => {
    const bench = new Bench(context);
    bench.submit('x', { kind: 'due', due: due(1) }, { kind: 'stand-in', standIn: standIn(7) });
    bench.submit(
      'y',
      { kind: 'settled', of: 'due', attempt: due(1).attempt },
      { kind: 'settled', of: 'stand-in', attempt: standIn(7).decision.attempt },
      { kind: 'settled', of: 'due', attempt: 'nobody' },
    );
    bench.clock.runSoon();
    bench.restart();
    assert.deepEqual(bench.pending(), { dues: [], standIns: [], lastSequence: 7, restrictions: [] });
  });
  test('takes the same due twice for one', (context) => {
    const bench = new Bench(context);
    bench.submit('x', { kind: 'due', due: due(1) });
    bench.submit('y', { kind: 'due', due: due(1) });
    bench.clock.runSoon();
    assert.deepEqual([bench.done, bench.pending()?.dues.length], [['x', 'y'], 1]);
  });
  test('keeps restrictions in the order in which they were entered until they are over', (context) => {
    const bench = new Bench(context);
    const restriction = (number: number): HeldRestriction => ({
      id: `n1.4.r${number}`,
      group,
      panHash: `${number}`.repeat(64),
      status: 'stolen',
      at: 1_772_366_400_000,
      by: 'ann',
    });
    for (const number of [2, 1, 3]) bench.submit('x', { kind: 'restriction', restriction: restriction(number) });
    bench.clock.runSoon();
    bench.submit('over', { kind: 'restriction-over', id: 'n1.4.r1' });
    bench.clock.runSoon();
    bench.restart();
    assert.deepEqual(bench.pending()?.restrictions, [restriction(2), restriction(3)]);
  });
  test('keeps queued changes in order with what became of them, of those that ended the last 200', (context) => {
    const bench = new Bench(context);
    const changes = [{ change: '{}', replaces: 4 }];
    const none = { outcome: 'waiting', index: 0, reason: '', endedAt: 0 } as const;
    const queued = (number: number): QueuedChange => {
      return { id: `n1-${number}`, by: 'ann', at: 7, rows: ['node_state n2'], changes, ...none };
    };
    const end = { outcome: 'entered', index: 9, reason: '', endedAt: 8 } as const;
    const submit = (change: QueueChange): void => {
      bench.file.submit([change], () => undefined);
    };
    for (let number = 0; number < 203; number++) submit({ kind: 'queued', queued: queued(number) });
    for (let number = 0; number < 202; number++) {
      if (number !== 1) submit({ kind: 'queue-end', end: { id: `n1-${number}`, ...end } });
    }
    bench.clock.runSoon();
    bench.restart();
    const found = bench.file.queuedChanges();
    assert.deepEqual(
      [found[0], found[1]?.id, found.at(-2), found.at(-1)],
      [queued(1), 'n1-3', { ...queued(201), ...end, changes: [] }, queued(202)],
    );
  });
  test('withdraws a stand-in and notes its due in one step, or does neither', (context) => {
    const bench = new Bench(context);
    bench.submit('x', { kind: 'stand-in', standIn: standIn(1) });
    bench.clock.runSoon();
    bench.submit(
      'y',
      { kind: 'settled', of: 'stand-in', attempt: standIn(1).decision.attempt },
      { kind: 'due', due: due(1) },
      // Its number is taken: the transaction fails.
      { kind: 'stand-in', standIn: standIn(1) },
      { kind: 'stand-in', standIn: standIn(1) },
    );
    bench.clock.runSoon();
    assert.deepEqual(bench.done, ['x', 'y STORE_UNREADABLE']);
    assert.deepEqual(bench.pending(), { dues: [], standIns: [standIn(1)], lastSequence: 1, restrictions: [] });
  });
  test('waits a while for a shell that has it locked, without stopping its thread', (context) => {
    const bench = new Bench(context);
    const shell = new Database(bench.path);
    shell.exec('BEGIN IMMEDIATE');
    bench.submit('one', { kind: 'due', due: due(1) });
    bench.clock.runSoon();
    bench.submit('two', { kind: 'due', due: due(2) });
    bench.clock.advance(20);
    assert.deepEqual(bench.done, []);
    shell.exec('ROLLBACK');
    bench.clock.advance(5);
    assert.deepEqual(bench.done, ['one', 'two']);
    shell.exec('BEGIN IMMEDIATE');
    bench.submit('three', { kind: 'due', due: due(3) });
    bench.clock.advance(1_000);
    assert.deepEqual(bench.done, ['one', 'two', 'three STORE_UNREADABLE'], 'but not for ever');
    shell.close();
    bench.submit('four', { kind: 'due', due: due(4) });
    bench.clock.runSoon();
    assert.deepEqual(bench.pending()?.dues, [due(1), due(2), due(4)]);
  });
  test('writes what was submitted before it closes', (context) => {
    const bench = new Bench(context);
    bench.submit('one', { kind: 'due', due: due(1) });
    bench.file.close();
    assert.deepEqual(bench.done, ['one']);
    bench.restart();
    assert.deepEqual(bench.pending()?.dues, [due(1)]);
  });
  test('that is none is refused with its path', (context) => {
    const folder = temporaryFolder(context);
    assert.throws(() => new EdgeFile(folder, new ManualClock()), { code: 'STORE_UNREADABLE' });
  });
});
