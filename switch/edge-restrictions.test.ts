import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { seededRandom } from '../base/random.ts';
import type { CardStatus } from '../store/card-status.ts';
import type { GroupOwner, OwnerOutcome } from './owner.ts';
import type { SwitchRequest } from './request.ts';
import {
  cardKeys,
  EdgeBench as Bench,
  emptyLedger,
  group,
  hashOf,
  n1,
  n2,
  OwnerBench,
  pan,
  requestOf,
  standInView,
  TestLedger,
  TestStore,
} from './testing.ts';

/** What an operator hears of a restriction at this edge. */
function restrict(bench: Bench, status: CardStatus = 'stolen'): string[] {
  const heard: string[] = [];
  bench.edge.restrict(
    { pan, status, by: 'ann' },
    (failure) => heard.push(failure === undefined ? 'kept' : failure.code),
    (outcome) => heard.push(outcome),
  );
  return heard;
}

const restriction = (bench: Bench) => ({
  id: 'n1.4.r1',
  group,
  panHash: hashOf(pan),
  status: 'stolen',
  at: bench.clock.wallMs(),
  by: 'ann',
});

describe('a restriction at an edge', () => {
  test('is acknowledged when it is on disk, and holds no card number', () => {
    const bench = new Bench();
    bench.store.sync = 'later';
    const heard = restrict(bench);
    assert.deepEqual([heard, [...bench.store.restrictions.values()]], [[], []]);
    bench.store.flush();
    assert.deepEqual([heard, [...bench.store.restrictions.values()]], [['kept'], [restriction(bench)]]);
  });
  test('that cannot be written does not hold', () => {
    const bench = new Bench();
    bench.store.sync = 'fails';
    assert.deepEqual(restrict(bench), ['STORE_UNREADABLE']);
    bench.handle();
    assert.equal(bench.firstSent.request.restriction, undefined);
    assert.deepEqual(bench.edge.undeliveredRestrictions, []);
  });
  test('goes with every request for the card from then on, also with one that is sent again', () => {
    const bench = new Bench();
    bench.handle();
    restrict(bench, 'blocked');
    bench.pass(300);
    restrict(bench);
    bench.pass(300);
    bench.handle({ 2: '9900010000000027', 35: undefined, 11: '000002' });
    assert.deepEqual(
      bench.sent.map(([, { request }]) => request.restriction),
      [undefined, 'blocked', 'stolen', undefined],
    );
  });
  test('declines at once what nobody can decide', () => {
    const bench = new Bench();
    bench.leads(undefined);
    restrict(bench);
    bench.handle();
    assert.deepEqual([bench.codes(), bench.edge.inFlight, bench.store.dues.size], [['43'], 0, 0]);
  });
  test('declines what no owner answers in time, and has what may have been approved taken back', () => {
    const bench = new Bench();
    restrict(bench);
    bench.handle();
    bench.pass(3000);
    assert.deepEqual([bench.codes(), bench.store.dues.size], [['43'], 1]);
  });
  test('leaves advices, reversals and repeats to the owner: 91', () => {
    for (const mti of ['0120', '0220', '0400', '0420', '0101', '0201']) {
      const bench = new Bench();
      bench.leads(undefined);
      restrict(bench);
      bench.handle({}, mti);
      bench.pass(3000);
      assert.deepEqual([mti, bench.codes()], [mti, ['91']]);
    }
  });
  test('approves nothing in stand-in', () => {
    const standIn = { random: seededRandom(5), afterMs: 1200, maximumCount: 10, maximumMinor: 100_000n };
    const ledgerOf = (): TestLedger['ledger'] => new TestLedger().ledger;
    const bench = new Bench({ standIn, ledgerOf, configuration: () => standInView() });
    bench.leads(undefined);
    bench.handle();
    restrict(bench);
    bench.pass(3000);
    assert.deepEqual([bench.codes(), bench.edge.standIns], [['43'], []]);
  });
  test('counts for what other edges forward to this node as the owner', () => {
    const asked: SwitchRequest[] = [];
    const owner = {
      request: (request: SwitchRequest, _attempt: string, _done: (outcome: OwnerOutcome) => void) =>
        asked.push(request),
      claim: () => undefined,
    } as unknown as GroupOwner;
    const bench = new Bench({ ownerOf: () => owner });
    bench.leads(n1);
    restrict(bench);
    bench.edge.onRequest(n2, { id: 1, attempt: 'n2.1.1', group, remainingMs: 3000, request: requestOf() });
    const blocked = requestOf({ stan: '000002', restriction: 'blocked' });
    bench.edge.onRequest(n2, { id: 2, attempt: 'n2.1.2', group, remainingMs: 3000, request: blocked });
    assert.deepEqual(
      asked.map((request) => request.restriction),
      ['stolen', 'stolen'],
    );
  });
});

describe('a restriction is brought to the owner', () => {
  test('at once, and again until it is entered; then its caller hears so', () => {
    const bench = new Bench();
    const heard = restrict(bench);
    assert.deepEqual(bench.claims, [[n2, { kind: 'restriction', ...restriction(bench) }]]);
    bench.pass(1000);
    assert.ok(bench.claims.length > 1);
    assert.equal(bench.edge.undeliveredRestrictions.length, 1);
    bench.settle('entered');
    assert.deepEqual([heard, bench.edge.undeliveredRestrictions], [['kept', 'entered'], []]);
  });
  test("and holds here until this node's own copy has it: stand-in goes by that", () => {
    let copy = emptyLedger;
    const bench = new Bench({ ledgerOf: () => copy });
    restrict(bench);
    bench.settle('entered');
    bench.pass(5000);
    bench.handle();
    assert.deepEqual([bench.firstSent.request.restriction, bench.store.restrictions.size], ['stolen', 1]);
    const row = { ...restriction(bench), card: 'a.1.1.0', number: 1, origin: 'n1', index: 9, lifted: 0 } as never;
    copy = { ...emptyLedger, restriction: (id) => (id === 'n1.4.r1' ? row : undefined) };
    bench.pass(1000);
    bench.handle({ 11: '000002' });
    assert.deepEqual([bench.sent.at(-1)?.[1].request.restriction, bench.store.restrictions.size], [undefined, 0]);
  });
  test('by the process that starts again, too, and holds before the first request is read', () => {
    const store = new TestStore();
    restrict(new Bench({ store }));
    const bench = new Bench({ store, boot: 5 });
    bench.handle();
    assert.equal(bench.firstSent.request.restriction, 'stolen');
    bench.pass(25);
    assert.equal(bench.claims[0]?.[1].kind, 'restriction');
  });
  test('and is over when no group has such a card on file', () => {
    const bench = new Bench();
    const heard = restrict(bench);
    for (let at = 0; at < bench.claims.length; at++) {
      bench.settle('card-unknown', at);
      bench.pass(25);
    }
    assert.deepEqual([heard, bench.store.restrictions.size], [['kept', 'card-unknown'], 0]);
    bench.handle();
    assert.equal(bench.firstSent.request.restriction, undefined);
  });
});

test('requests wait for what this node holds against cards when that cannot be read yet', () => {
  const store = new TestStore();
  restrict(new Bench({ store }));
  let isReadable = false;
  const pending = store.pending.bind(store);
  store.pending = (maximum, done) => {
    if (isReadable) pending(maximum, done);
    else done(undefined);
  };
  const bench = new Bench({ store, boot: 5 });
  bench.handle();
  bench.pass(1000);
  assert.deepEqual([bench.sent.length, bench.edge.inFlight], [0, 1]);
  isReadable = true;
  bench.pass(1100);
  assert.equal(bench.firstSent.request.restriction, 'stolen');
});

describe('an owner', () => {
  const claim = {
    kind: 'restriction',
    group,
    id: 'n2.9.r1',
    panHash: hashOf(pan),
    status: 'lost',
    at: 5,
    by: 'bob',
  } as const;
  test('declines by what an edge knows before its log does, and keeps the decline', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ restriction: 'blocked' }), '62');
    assert.equal(bench.code(), '62', 'the repeat through another edge');
    assert.equal(new TestLedger().code({ restriction: 'active' }), '00');
    assert.equal(bench.code({ mtiClass: '0420', restriction: 'stolen', stan: '000900', rrn: '1' }), '00');
  });
  test('enters a restriction once, and its answer waits until it has committed', () => {
    const bench = new OwnerBench();
    const heard: string[] = [];
    bench.ready();
    for (let time = 0; time < 2; time++) bench.owner.claim(claim, n2, (outcome) => heard.push(outcome));
    assert.deepEqual(heard, []);
    bench.progress(99, 99);
    assert.deepEqual(heard, ['entered', 'entered']);
    assert.equal(bench.kinds().length, 1);
    assert.equal(bench.owner.ledger.cardByPanHash(cardKeys.hash(pan))?.status, 'lost');
  });
  test('says that a card is unknown only when a later leader cannot know it: after an entry has committed', () => {
    const bench = new OwnerBench();
    const heard: string[] = [];
    bench.ready();
    bench.owner.claim({ ...claim, panHash: 'nobody' }, n2, (outcome) => heard.push(outcome));
    assert.deepEqual(heard, []);
    bench.progress(99, 99);
    assert.deepEqual(heard, ['card-unknown']);
  });
});

test('what a purged card is claimed for releases nothing', () => {
  const bench = new TestLedger();
  assert.equal(bench.code(), '00');
  const { cardId: card } = bench.card();
  bench.apply({ kind: 'cards', at: 0, by: 'q', origin: 'n1', added: [], changes: [{ kind: 'purge', card }] });
  assert.equal(bench.undelivered('n1.1.1'), 'entered');
});
