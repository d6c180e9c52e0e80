import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, type GroupId, type NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import type { SalvagedEntry, SalvageOutcome } from '../store/salvage.ts';
import { ClaimDesk } from './claim-desk.ts';
import { claimId, type Claim, type ClaimOutcome } from './claims.ts';
import { group, n1, n2, TestStore } from './testing.ts';

const other = groupId('b');

/** What a log lost, in memory; another thread can have the file. */
class TestSalvage {
  readonly entries: (SalvagedEntry & { outcome?: SalvageOutcome })[] = [];
  busy = false;

  add(of: GroupId, count: number): void {
    const from = this.entries.length;
    for (let index = from + 1; index <= from + count; index++) {
      this.entries.push({ group: of, term: 1, index, hash: '', body: '{}' });
    }
  }

  groups(): readonly GroupId[] {
    return [...new Set(this.entries.filter(({ outcome }) => outcome === undefined).map((entry) => entry.group))];
  }

  pending(of: GroupId, limit: number): readonly SalvagedEntry[] {
    return this.entries.filter((entry) => entry.group === of && entry.outcome === undefined).slice(0, limit);
  }

  resolve(of: GroupId, term: number, index: number, outcome: SalvageOutcome): boolean {
    if (this.busy) return false;
    const entry = this.entries.find((each) => each.group === of && each.term === term && each.index === index);
    if (entry !== undefined) entry.outcome = outcome;
    return true;
  }
}

class Bench {
  readonly clock = new ManualClock();
  readonly store = new TestStore();
  readonly salvage = new TestSalvage();
  readonly sent: [NodeId, Claim][] = [];
  /** Restrictions that this node's copy of the log has. */
  readonly inCopy = new Set<string>();
  leader: NodeId | undefined = n2;
  cardGroups: readonly GroupId[] = [];
  readonly desk: ClaimDesk;

  constructor(store = new TestStore()) {
    this.store = store;
    this.desk = new ClaimDesk({
      self: n1,
      clock: this.clock,
      store,
      salvage: this.salvage,
      leaderOf: () => this.leader,
      ownerOf: () => undefined,
      sendClaim: (to, claim) => this.sent.push([to, claim]),
      cardGroups: () => this.cardGroups,
      hasRestriction: (_group, id) => this.inCopy.has(id),
    });
  }

  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += 25) {
      this.clock.advance(25);
      this.desk.tick();
    }
  }

  due(number: number, of = group): void {
    this.desk.due([{ attempt: `n1.1.${number}`, key: `key ${number}`, group: of, at: 1 }], () => undefined);
  }

  /** Settles everything that was sent; what it was, each once. */
  settle(outcome: ClaimOutcome = 'entered'): string[] {
    const ids = this.sent.splice(0).map(([, claim]) => {
      const id = claimId(claim);
      this.desk.onSettled({ group: claim.group, id, outcome });
      return id;
    });
    return [...new Set(ids)];
  }
}

describe('what a log lost', () => {
  test('is offered in the order of the log, batch by batch, until all of it is resolved', () => {
    const bench = new Bench();
    bench.salvage.add(group, 150);
    const offered: string[] = [];
    for (let round = 0; round < 10; round++) {
      bench.pass(25);
      offered.push(...bench.settle('adopted'));
    }
    assert.deepEqual(
      offered,
      bench.salvage.entries.map((claim) => claimId({ kind: 'salvaged', ...claim })),
    );
    assert.ok(bench.salvage.entries.every(({ outcome }) => outcome === 'adopted'));
  });
  test('later than the last look is found within a second', () => {
    const bench = new Bench();
    bench.pass(500);
    bench.salvage.add(group, 1);
    bench.pass(1_025);
    assert.deepEqual(bench.settle('voided'), ['salvaged a 1 1']);
  });
  test('is offered again when its outcome could not be noted', () => {
    const bench = new Bench();
    bench.salvage.add(group, 1);
    bench.salvage.busy = true;
    bench.pass(25);
    bench.settle('kept');
    bench.salvage.busy = false;
    bench.pass(1_000);
    assert.deepEqual(bench.settle('kept'), ['salvaged a 1 1']);
    assert.equal(bench.salvage.entries[0]?.outcome, 'kept');
  });
  test('is not resolved by what is no resolution', () => {
    const bench = new Bench();
    bench.salvage.add(group, 1);
    bench.pass(25);
    bench.settle('entered');
    assert.deepEqual(bench.salvage.groups(), [group]);
  });
  test('of one group does not hold up another', () => {
    const bench = new Bench();
    bench.salvage.add(group, 70);
    bench.salvage.add(other, 2);
    bench.pass(25);
    assert.equal(bench.sent.filter(([, claim]) => claim.group === other).length, 2);
  });
});

test('a claim that is lost on its way is brought again, the first ones always first', () => {
  const bench = new Bench();
  for (let number = 1; number <= 3; number++) bench.due(number);
  bench.pass(25);
  bench.sent.splice(0);
  bench.due(4);
  bench.pass(225);
  assert.deepEqual(bench.settle(), [
    'undelivered n1.1.1',
    'undelivered n1.1.2',
    'undelivered n1.1.3',
    'undelivered n1.1.4',
  ]);
  assert.equal(bench.desk.dues, 0);
});

test("a settlement of what is not this node's, or of what is settled, changes nothing", () => {
  const bench = new Bench();
  bench.due(1);
  bench.desk.onSettled({ group: other, id: 'undelivered n1.1.1', outcome: 'entered' });
  bench.desk.onSettled({ group, id: 'undelivered n1.1.2', outcome: 'entered' });
  assert.equal(bench.desk.dues, 1);
  for (let time = 0; time < 2; time++) bench.desk.onSettled({ group, id: 'undelivered n1.1.1', outcome: 'entered' });
  assert.equal(bench.desk.dues, 0);
});

test('more reversals due than memory takes are left on disk, and come when there is room', () => {
  const store = new TestStore();
  const total = 50_010;
  for (let number = 1; number <= total; number++) {
    store.dues.set(`n1.1.${number}`, { attempt: `n1.1.${number}`, key: `${number}`, group, at: 1 });
  }
  const bench = new Bench(store);
  assert.equal(bench.desk.dues, 50_000);
  bench.due(total + 1);
  const inMemory: number[] = [];
  let brought = 0;
  while (store.dues.size > 0) {
    inMemory.push(bench.desk.dues);
    bench.desk.tick();
    brought += bench.settle().length;
  }
  assert.equal(Math.max(...inMemory), 50_000);
  assert.equal(brought, total + 1);
  assert.equal(bench.desk.dues, 0);
});

describe('a claim for a card that has moved', () => {
  test('is brought to the group that has it now, and settled there', () => {
    const bench = new Bench();
    bench.due(1);
    bench.pass(25);
    assert.equal(bench.sent.length, 1);
    bench.desk.onSettled({ group, id: 'undelivered n1.1.1', outcome: 'moved', heir: other });
    bench.pass(25);
    assert.deepEqual(
      bench.sent.map(([, claim]) => [claim.group, claim.heir]),
      [
        [group, undefined],
        [group, other],
      ],
    );
    assert.equal(bench.desk.dues, 1);
    bench.desk.onSettled({ group: other, id: 'undelivered n1.1.1', outcome: 'entered' });
    assert.deepEqual([bench.desk.dues, bench.store.dues.size], [0, 0]);
  });
  test('that a log has lost is still the log that lost it: that is where it is noted', () => {
    const bench = new Bench();
    bench.salvage.add(group, 1);
    bench.pass(1025);
    bench.desk.onSettled({ group, id: `salvaged ${group} 1 1`, outcome: 'moved', heir: other });
    bench.pass(25);
    bench.desk.onSettled({ group: other, id: `salvaged ${group} 1 1`, outcome: 'adopted' });
    assert.equal(bench.salvage.entries[0]?.outcome, 'adopted');
  });
});

describe('a restriction of a card that its group does not know', () => {
  const restriction = { id: 'n1.1.r1', group, panHash: 'hash', status: 'lost', at: 1, by: 'operator' } as const;
  const begin = (): { readonly bench: Bench; readonly heard: string[] } => {
    const bench = new Bench();
    bench.cardGroups = [group, other];
    const heard: string[] = [];
    bench.desk.restrict(
      restriction,
      () => undefined,
      (outcome) => heard.push(outcome),
    );
    bench.pass(25);
    bench.desk.onSettled({ group, id: 'restriction n1.1.r1', outcome: 'card-unknown' });
    bench.pass(25);
    return { bench, heard };
  };

  test('is brought to the other groups, and holds here meanwhile', () => {
    const { bench, heard } = begin();
    assert.deepEqual(bench.sent.map(([, claim]) => claim.heir).at(-1), other);
    assert.deepEqual([heard, bench.desk.restrictionOf('hash')], [[], 'lost']);
    bench.desk.onSettled({ group: other, id: 'restriction n1.1.r1', outcome: 'entered' });
    assert.deepEqual(heard, ['entered']);
  });
  test('is over when no group has the card', () => {
    const { bench, heard } = begin();
    bench.desk.onSettled({ group: other, id: 'restriction n1.1.r1', outcome: 'card-unknown' });
    assert.deepEqual([heard, bench.desk.restrictionOf('hash')], [['card-unknown'], undefined]);
  });
});
