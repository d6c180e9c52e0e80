import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { duplicateKey } from './request.ts';
import {
  approvalOutcome as approval,
  bounceOutcome as bounce,
  EdgeBench as Bench,
  group,
  n1,
  n2,
  n3,
  otherGroup,
  OwnerBench,
  pan,
  requestOf,
  TestStore,
} from './testing.ts';

const due = { attempt: 'n1.4.1', key: duplicateKey(requestOf()), group };

/** A request has run out of time that n2 may have approved. */
function overdue(store = new TestStore()): Bench {
  const bench = new Bench({ store });
  bench.handle();
  bench.pass(2850);
  return bench;
}

describe('before a request that an owner may have approved gets 91', () => {
  test('the reversal due is on disk', () => {
    const store = new TestStore();
    store.sync = 'later';
    const bench = overdue(store);
    assert.deepEqual(bench.codes(), []);
    assert.equal(bench.edge.inFlight, 0);
    store.flush();
    assert.deepEqual(bench.codes(), ['91']);
    assert.deepEqual([...store.dues.values()], [{ ...due, at: bench.clock.wallMs() }]);
  });
  test('an approval that comes while it is being synced is late: it is not delivered', () => {
    const store = new TestStore();
    store.sync = 'later';
    const bench = overdue(store);
    bench.outcome(approval);
    assert.deepEqual([bench.codes(), bench.edge.late], [[], 1]);
    store.flush();
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(store.dues.size, 1);
  });
  test('nothing is synced when no owner can have it: none led, or the one here bounced it at once', () => {
    for (const prepare of [
      (bench: Bench) => {
        bench.leads(undefined);
        bench.handle();
      },
      (bench: Bench) => {
        bench.leads(n1);
        bench.handle();
      },
    ]) {
      const bench = new Bench({
        ownerOf: () =>
          ({
            request: (_1: unknown, _2: unknown, done: (o: typeof approval) => void) => {
              done(bounce('not-ready'));
            },
          }) as never,
      });
      prepare(bench);
      bench.pass(3000);
      assert.deepEqual(bench.codes(), ['91']);
      assert.equal(bench.store.dues.size, 0);
    }
  });
  test('it is synced also after a bounce: what was sent may come again, or late', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome(bounce('not-ready'));
    bench.leads(undefined);
    bench.pass(3000);
    assert.equal(bench.store.dues.size, 1);
  });
  test('it is synced when the owner here had it before it lost the group', () => {
    const bench = new Bench();
    bench.leads(n1);
    bench.handle();
    bench.leads(undefined);
    bench.asked[0]?.(bounce('not-the-owner'));
    bench.pass(3000);
    assert.equal(bench.store.dues.size, 1);
  });
  test('it is synced when the owner is overloaded, and an earlier one had it', () => {
    const bench = new Bench();
    bench.handle();
    bench.leads(n3);
    bench.outcome(bounce('overloaded'), 1);
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.store.dues.size, 1);
  });
  for (const [mti, changes] of [
    ['0120', {}],
    ['0220', {}],
    ['0400', {}],
    ['0420', {}],
    ['0100', { 3: '310000' }],
    ['0100', { 3: '380000', 4: '000000000000' }],
    ['0100', { 3: '200000' }],
  ] as const) {
    test(`nothing is synced for what is never taken back: ${mti} ${JSON.stringify(changes)}`, () => {
      const bench = new Bench();
      bench.handle(changes, mti);
      bench.pass(3000);
      assert.deepEqual(bench.codes(), ['91']);
      assert.equal(bench.store.dues.size, 0);
    });
  }
  test('it gets 91 also when the disk cannot be written, which is counted, and the owner is told all the same', () => {
    const store = new TestStore();
    store.sync = 'fails';
    const bench = overdue(store);
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.edge.unsyncedReversals, 1);
    bench.pass(25);
    assert.equal(bench.claims.length, 1);
  });
  test('many of one tick are given to the disk in one turn', () => {
    const store = new TestStore();
    store.sync = 'later';
    const bench = new Bench({ store });
    for (let at = 1; at <= 9; at++) bench.handle({ 11: `00000${at}` });
    bench.pass(3000);
    store.flush();
    assert.deepEqual([bench.codes().length, store.dues.size], [9, 9]);
  });
});

test('a reversal due holds no card number', () => {
  const bench = overdue();
  bench.pass(25);
  const told = JSON.stringify([[...bench.store.dues.values()], bench.claims]);
  assert.ok(!told.includes(pan.reveal()));
});

describe('a reversal due', () => {
  test("is brought to the group's present owner, again with back-off, until that has entered it; then it is forgotten", () => {
    const bench = overdue();
    bench.pass(25);
    assert.deepEqual(bench.claims, [[n2, { kind: 'undelivered', ...due }]]);
    bench.pass(6000);
    const times = bench.claims.length;
    assert.ok(times >= 4 && times <= 7, `${times} times in six seconds`);
    assert.equal(bench.edge.reversalsDue, 1);
    bench.leads(n3);
    assert.equal(bench.claims.at(-1)?.[0], n3, 'another owner is told at once');
    bench.settle();
    assert.deepEqual([bench.edge.reversalsDue, bench.store.dues.size], [0, 0]);
    const { length } = bench.claims;
    bench.pass(60_000);
    bench.settle();
    assert.equal(bench.claims.length, length);
  });
  test('waits while nobody leads', () => {
    const store = new TestStore();
    store.sync = 'later';
    const bench = overdue(store);
    bench.leads(undefined);
    store.flush();
    bench.pass(1000);
    assert.deepEqual(bench.claims, []);
    bench.leads(n1);
    assert.equal(bench.brought.length, 1, 'and goes to the owner in this process, too');
    bench.brought[0]?.[2]('entered');
    assert.equal(bench.store.dues.size, 0);
  });
  test('survives the edge', () => {
    const { store } = overdue();
    const bench = new Bench({ store, boot: 5 });
    assert.equal(bench.edge.reversalsDue, 1);
    bench.pass(25);
    assert.deepEqual(bench.claims, [[n2, { kind: 'undelivered', ...due }]]);
  });
  test('goes before the requests that wait for the same owner', () => {
    const bench = overdue();
    bench.leads(undefined);
    bench.handle({ 11: '000002' });
    const order: string[] = [];
    bench.claims.push = (...claims) => order.push(...claims.map(() => 'claim'));
    bench.sent.push = (...requests) => order.push(...requests.map(() => 'request'));
    bench.leads(n3);
    assert.deepEqual(order, ['claim', 'request']);
  });
});

test('many reversals due are brought a batch at a time, the next when the last is settled', () => {
  const bench = new Bench();
  for (let at = 0; at < 150; at++) bench.handle({ 11: String(at).padStart(6, '0') });
  bench.pass(3025);
  assert.equal(bench.claims.length, 64);
  for (let at = 0; at < 64; at++) bench.settle('entered', at);
  bench.pass(25);
  assert.equal(bench.claims.length, 128);
  for (let at = 64; at < 128; at++) bench.settle('entered', at);
  bench.pass(25);
  assert.equal(bench.claims.length, 150);
  assert.equal(bench.store.dues.size, 22);
});

/*
 * The edge dies at any step of a reversal due and starts again: whatever it has told the acquirer, the approval is
 * released once, or the acquirer has no 91 for it.
 */
describe('an edge that dies', () => {
  const steps = [
    'before the sync',
    'before the 91',
    'before it tells',
    'before it is told',
    'after it was told',
  ] as const;
  for (const [at, step] of steps.entries()) {
    test(`${step}, and starts again`, () => {
      const owner = new OwnerBench().ready();
      const store = new TestStore();
      const bench = new Bench({ store });
      bench.handle();
      owner.ask('r', {}, 'n1.4.1');
      owner.progress(3, 3);
      store.sync = 'later';
      bench.pass(3000);
      if (at >= 1) {
        store.flush();
        // Written, and the process is gone before it hears of it.
        if (at === 1) bench.answers.splice(0);
      }
      const tell = (from: Bench): void => {
        for (const [, claim] of from.claims.splice(0)) {
          owner.owner.claim(claim, n1, (outcome) => {
            if (step !== 'before it is told' || from !== bench) {
              from.edge.onSettlement({ group, id: `undelivered n1.4.1`, outcome });
            }
          });
        }
        owner.progress(owner.last, owner.last);
      };
      if (at >= 3) {
        bench.pass(25);
        tell(bench);
      }
      // What was not yet written is lost with the process.
      const kept = new TestStore();
      for (const [attempt, each] of store.dues) kept.dues.set(attempt, each);
      const again = new Bench({ store: kept, boot: 5 });
      again.pass(25);
      tell(again);
      again.pass(25);
      tell(again);
      const row = owner.owner.ledger.transaction(3);
      assert.equal(row?.state, at === 0 ? 'held' : 'reversed', 'without its 91 the acquirer repeats or reverses');
      assert.equal(bench.codes().length, at <= 1 ? 0 : 1);
      assert.equal(owner.kinds().filter((kind) => kind === 'undelivered').length, at === 0 ? 0 : 1);
      assert.equal(kept.dues.size, 0);
    });
  }
});

describe('as the owner, the node', () => {
  test('settles what another node brings, and tells it so under its name', () => {
    const bench = new Bench();
    const claim = { kind: 'undelivered', ...due } as const;
    bench.edge.onClaim(n2, claim);
    const [brought, from, settled] = bench.brought[0] ?? [];
    assert.deepEqual([brought, from], [claim, n2]);
    assert.deepEqual(bench.settlements, []);
    settled?.('entered');
    assert.deepEqual(bench.settlements, [[n2, { group, id: 'undelivered n1.4.1', outcome: 'entered' }]]);
  });
  test('says nothing about a group that is not its own', () => {
    const bench = new Bench();
    bench.edge.onClaim(n2, { kind: 'undelivered', ...due, group: otherGroup });
    assert.deepEqual([bench.brought, bench.settlements], [[], []]);
  });
});
