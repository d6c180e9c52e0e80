import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import type { RangeLimitRow } from '../config-db/rows.ts';
import type { StandIn } from '../store/edge-store.ts';
import type { CardStatus } from '../store/card-status.ts';
import type { SwitchRequest } from './request.ts';
import { decideStandIn, standInRules, type StandInContext, type StandInDecision } from './stand-in.ts';
import {
  byName,
  cardImport,
  everyClass,
  group,
  original,
  otherPan,
  panOf,
  range,
  requestOf,
  standInLimits,
  TestLedger,
} from './testing.ts';

/** An edge's own approvals over its copy of the fold. */
class Bench {
  readonly copy = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
  readonly own: StandIn[] = [];
  limits: RangeLimitRow = standInLimits;
  maximumCount = 5;
  maximumMinor = 20_000n;

  decide(changes: Partial<SwitchRequest> = {}, more: Partial<StandInContext> = {}): StandInDecision {
    const request = requestOf(changes);
    const { maximumCount, maximumMinor, own } = this;
    return decideStandIn(request, {
      ...this.copy.context(request),
      limits: () => this.limits,
      own,
      maximumCount,
      maximumMinor,
      ...more,
    });
  }

  /** Decides, and counts what was approved; `approved`, or why not. */
  ask(changes: Partial<SwitchRequest> = {}, more: Partial<StandInContext> = {}): string {
    const result = this.decide(changes, more);
    if (result.kind === 'refused') return result.reason;
    const { decision, currency } = result;
    this.own.push({ sequence: this.own.length + 1, group, currency, decision });
    return 'approved';
  }
}

describe('an edge approves by itself', () => {
  test('a purchase within its limits: with a code, and held or posted as an owner would', () => {
    for (const [mtiClass, hold, post] of [
      ['0100', '5000', '0'],
      ['0200', '0', '5000'],
    ] as const) {
      const result = new Bench().decide({ mtiClass });
      assert.ok(result.kind === 'approved');
      const { decision } = result;
      assert.match(decision.authorizationCode, /^[0-9]{6}$/);
      assert.deepEqual(
        [decision.responseCode, decision.hold, decision.post, decision.durability, result.currency],
        ['00', hold, post, 'quorum', '840'],
      );
    }
  });
  test("in the card's currency when the acquirer converts", () => {
    const result = new Bench().decide({ currency: '978', billing: { amount: 4000n, currency: '840' } });
    assert.deepEqual([result.kind === 'approved' && result.decision.hold], ['4000']);
  });
});

describe('an edge never approves by itself', () => {
  test('anything but a purchase', () => {
    for (const mtiClass of everyClass) {
      const expected = mtiClass === '0100' || mtiClass === '0200' ? 'approved' : 'purchases only';
      assert.equal(new Bench().ask({ mtiClass }), expected, mtiClass);
    }
    for (const processingCode of ['010000', '090000', '200000', '310000', '380000', '990000']) {
      assert.equal(new Bench().ask({ processingCode }), 'purchases only', processingCode);
    }
  });
  for (const status of ['blocked', 'lost', 'stolen', 'closed'] satisfies CardStatus[]) {
    test(`for a card that its copy shows ${status}`, () => {
      const bench = new Bench();
      bench.copy.set({ status });
      assert.equal(bench.ask(), 'the copy here declines it');
    });
  }
  for (const [claim, prepare, changes] of [
    [
      'for a card that has expired',
      (bench: Bench) => {
        bench.copy.set({ expiry: '2512' });
      },
      {},
    ],
    ['with another expiry than on file', () => undefined, { expiry: '2601' }],
    ['for a card that is not on file', () => undefined, { pan: panOf('990001000000009') }],
    ['in another currency than the card', () => undefined, { currency: '978' }],
    [
      'beyond what its copy says is left',
      (bench: Bench) => {
        bench.copy.set({ limit: '4999' });
      },
      {},
    ],
    [
      'what its copy knows already',
      (bench: Bench) => {
        bench.copy.ask();
      },
      {},
    ],
    [
      'what was reversed before it came',
      (bench: Bench) => {
        bench.copy.ask(byName);
      },
      original,
    ],
    [
      'beyond the daily limits',
      (bench: Bench) => {
        bench.limits = { ...standInLimits, daily_maximum_minor: 4999n };
      },
      {},
    ],
  ] as const) {
    test(claim, () => {
      const bench = new Bench();
      prepare(bench);
      assert.equal(bench.ask(changes), 'the copy here declines it');
    });
  }
  test('in the catch-all range, or for an acquirer that the link may not use', () => {
    assert.equal(new Bench().ask({}, { range: { ...range, prefix: '' } }), 'the copy here declines it');
    const link = { ...new TestLedger().link, acquiring_institutions: '1' };
    assert.equal(new Bench().ask({}, { link }), 'the copy here declines it');
  });
  test('in a range without all three limits', () => {
    for (const missing of ['stand_in_floor_minor', 'stand_in_card_count', 'stand_in_card_minor'] as const) {
      const bench = new Bench();
      bench.limits = { ...standInLimits, [missing]: null };
      assert.equal(bench.ask(), 'the range has no stand-in', missing);
    }
    assert.equal(new Bench().ask({}, { limits: () => undefined }), 'the range has no stand-in');
  });
  test('above the floor limit, to the minor unit', () => {
    assert.equal(new Bench().ask({ amount: 5000n }), 'approved');
    assert.equal(new Bench().ask({ amount: 5001n }), 'floor limit');
  });
  test("beyond the card's count and sum of what is not entered yet", () => {
    const bench = new Bench();
    const next = (amount: bigint): string => bench.ask({ amount, stan: String(bench.own.length).padStart(6, '0') });
    assert.deepEqual([next(4000n), next(4000n), next(4001n)], ['approved', 'approved', 'amount of the card']);
    assert.deepEqual([next(4000n), next(1n)], ['approved', 'count of the card']);
    bench.own.shift();
    assert.equal(next(1n), 'approved', 'entered ones count no more');
  });
  test("beyond the node's count and sum, whatever the cards", () => {
    const counted = new Bench();
    counted.maximumCount = 1;
    assert.deepEqual([counted.ask(), counted.ask({ pan: otherPan })], ['approved', 'count of the node']);
    const summed = new Bench();
    summed.maximumMinor = 9999n;
    assert.deepEqual([summed.ask(), summed.ask({ pan: otherPan })], ['approved', 'amount of the node']);
    const off = new Bench();
    off.maximumCount = 0;
    assert.equal(off.ask(), 'count of the node');
  });
  test('sums of different currencies together', () => {
    const bench = new Bench();
    bench.maximumMinor = 5000n;
    bench.ask({ pan: otherPan });
    for (const [at, standIn] of bench.own.entries()) bench.own[at] = { ...standIn, currency: '392' };
    assert.equal(bench.ask(), 'approved');
  });
  test("what the card has left only without this edge's own approvals", () => {
    const bench = new Bench();
    bench.copy.set({ limit: '7000' });
    assert.deepEqual([bench.ask(), bench.ask({ stan: '000002' })], ['approved', 'the copy here declines it']);
    const daily = new Bench();
    daily.limits = { ...standInLimits, daily_maximum_count: 1 };
    assert.deepEqual([daily.ask(), daily.ask({ stan: '000002' })], ['approved', 'the copy here declines it']);
  });
});

test('the rules are these, in this order', () => {
  assert.deepEqual(
    standInRules.map(({ reason }) => reason),
    [
      'the range has no stand-in',
      'floor limit',
      'count of the card',
      'amount of the card',
      'count of the node',
      'amount of the node',
    ],
  );
});

test('whatever is asked, what an edge has given stays within every limit', () => {
  const ask = fc.record({ amount: fc.bigInt({ min: 1n, max: 6000n }), other: fc.boolean(), stan: fc.nat(999_999) });
  fc.assert(
    fc.property(fc.array(ask, { maxLength: 20 }), (asks) => {
      const bench = new Bench();
      for (const { amount, other, stan } of asks) {
        bench.ask({ amount, stan: String(stan).padStart(6, '0'), ...(other && { pan: otherPan }) });
        const sum = (own: readonly StandIn[]): bigint =>
          own.reduce((total, { decision }) => total + BigInt(decision.hold), 0n);
        assert.ok(bench.own.length <= 5 && sum(bench.own) <= 20_000n);
        for (const pan of [undefined, otherPan]) {
          const { cardId } = pan === undefined ? bench.copy.card() : bench.copy.card(pan);
          const ofCard = bench.own.filter(({ decision }) => decision.request.card === cardId);
          assert.ok(ofCard.length <= 3 && sum(ofCard) <= 12_000n);
        }
      }
    }),
  );
});
