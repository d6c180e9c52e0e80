import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { SwitchRequest } from './request.ts';
import {
  byName,
  byRrn,
  byStan,
  cardImport,
  everyForm,
  later,
  link,
  namedBy,
  original,
  otherPan,
  requestOf,
  TestLedger,
} from './testing.ts';

type Change = Partial<SwitchRequest>;

describe('a full reversal', () => {
  for (const [form, reversal] of everyForm) {
    for (const mtiClass of ['0400', '0420'] as const) {
      for (const undone of ['0100', '0120', '0200', '0220'] as const) {
        test(`${mtiClass} by ${form} takes back a ${undone} once and gets 00, and so does another one`, () => {
          const bench = new TestLedger();
          bench.code({ ...original, mtiClass: undone });
          const named = namedBy(requestOf({ ...original, mtiClass: undone }));
          const change: Change = {
            ...reversal,
            mtiClass,
            originalDataElements: reversal.originalDataElements === undefined ? undefined : named,
          };
          assert.equal(bench.code(change), '00');
          assert.equal(bench.money(), '0/0');
          assert.equal(bench.state({ ...original, mtiClass: undone }), 'reversed');
          assert.equal(bench.code(change), '00', 'its repeat');
          assert.equal(bench.code({ ...change, transmission: '0301120600' }), '00', 'another one');
          assert.equal(bench.money(), '0/0');
          assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [0, 0n]);
        });
      }
    }
  }

  test('of a refund takes the credit back', () => {
    const bench = new TestLedger();
    bench.code({ ...original, mtiClass: '0200', processingCode: '200000' });
    assert.equal(bench.money(), '0/-5000');
    assert.equal(bench.code(byRrn), '00');
    assert.equal(bench.money(), '0/0');
  });
  test('of a declined or expired original gets 00 and releases nothing', () => {
    const bench = new TestLedger();
    bench.code({ ...original, amount: 999_999n });
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '00');
    bench.code({ ...original, stan: '000002', rrn: '2' });
    bench.expire(8);
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', rrn: '2', stan: '000901' }), '00');
    assert.equal(bench.money(), '0/0');
  });
  test('is possible for a card that was blocked or has expired since', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.set({ status: 'stolen', expiry: '2001' });
    assert.equal(bench.code(byRrn), '00');
    assert.equal(bench.money(), '0/0');
  });
});

describe('a reversal means nothing of', () => {
  for (const [form, reversal] of everyForm) {
    for (const [what, change] of [
      ['another link', { link: 'link-2' }],
      ['another card', { pan: otherPan }],
      ['another terminal', { terminal: 'TERM0002' }],
    ] as [string, Change][]) {
      test(`${what}, by ${form}: 25, or 00 for an advice, and nothing moves`, () => {
        const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
        bench.code(original);
        assert.equal(bench.code({ ...reversal, ...change, mtiClass: '0400' }), '25');
        assert.equal(bench.code({ ...reversal, ...change, mtiClass: '0420' }), '00');
        assert.equal(bench.money(), '5000/0');
        assert.equal(bench.state(original), 'held');
      });
    }
  }
  for (const [what, named] of [
    ['STAN', { stan: '000002' }],
    ['DE 7', { transmission: '0301115959' }],
    ['MTI', { mtiClass: '0200' }],
    ['DE 32', { acquirer: '00000654321' }],
  ] as const) {
    test(`another ${what} in DE 90, though DE 37 and DE 4, 11 would fit`, () => {
      const bench = new TestLedger();
      bench.code(original);
      const originalDataElements = { ...namedBy(requestOf(original)), ...named };
      assert.equal(bench.code({ ...byRrn, ...byStan, mtiClass: '0400', originalDataElements }), '25');
      assert.equal(bench.money(), '5000/0');
    });
  }
  test('another amount, by STAN', () => {
    const bench = new TestLedger();
    bench.code(original);
    assert.equal(bench.code({ ...byStan, mtiClass: '0400', amount: 4999n }), '25');
  });
  test('an earlier day: a terminal begins its STANs anew', () => {
    const bench = new TestLedger();
    bench.code({ ...original, rrn: '', mtiClass: '0200' });
    // The original of this one never came; the purchase of the day before yesterday is none of its business.
    const reversal = { ...byStan, mtiClass: '0400', transmission: '0303120500', businessDate: '2026-03-03' } as const;
    assert.equal(bench.code(reversal), '25');
    assert.equal(bench.money(), '0/5000');
  });
  test('a STAN alone', () => {
    const bench = new TestLedger();
    bench.code(original);
    assert.equal(bench.code({ ...byStan, mtiClass: '0400', terminal: '' }), '25');
    assert.equal(bench.money(), '5000/0');
  });
  test('several that fit, and nothing is kept that would decline one of them', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.code({ ...original, stan: '000002', amount: 700n });
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '25');
    assert.equal(bench.money(), '5700/0');
    assert.deepEqual(bench.ledger.cardsWithTombstones(1), []);
  });
});

test('DE 90 with zeros for DE 32 means the institution that DE 7 and STAN say', () => {
  const bench = new TestLedger();
  bench.code(original);
  const originalDataElements = { ...namedBy(requestOf(original)), acquirer: '00000000000' };
  assert.equal(bench.code({ ...byName, originalDataElements }), '00');
  assert.equal(bench.money(), '0/0');
});

test('the same purchase shortly before midnight is found by STAN shortly after', () => {
  const bench = new TestLedger();
  bench.code({ ...original, businessDate: '2026-02-28' });
  assert.equal(bench.code({ ...byStan, businessDate: '2026-03-01' }), '00');
  assert.equal(bench.money(), '0/0');
});

test('of candidates by STAN the one that still stands is meant', () => {
  const bench = new TestLedger();
  bench.code(original);
  bench.code(byName);
  bench.code({ ...original, transmission: '0301130000' });
  assert.equal(bench.money(), '5000/0');
  assert.equal(bench.code({ ...byStan, transmission: '0301130500' }), '00');
  assert.equal(bench.money(), '0/0');
});

test("what an unmatched 0400 gets is the link's to say", () => {
  const bench = new TestLedger();
  bench.link = { ...link, unmatched_reversal_request_code: '00' };
  assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '00');
});

test('a reversal for a card that is not on file gets 25, or 00 as an advice, and moves nothing', () => {
  const bench = new TestLedger();
  assert.equal(bench.code({ ...byRrn, mtiClass: '0400', pan: otherPan }), '25');
  assert.equal(bench.code({ ...byRrn, pan: otherPan }), '00');
});

describe('a partial reversal (DE 95)', () => {
  const posted: Change = { ...original, mtiClass: '0200', amount: 5000n };
  const cases: [name: string, whole: Change, replacement: bigint, money: string, state: string][] = [
    ['leaves its amount of a hold', original, 3000n, '3000/0', 'held'],
    ['leaves its amount of a posting', posted, 3000n, '0/3000', 'posted'],
    ['leaves its amount of a refund', { ...posted, processingCode: '200000' }, 3000n, '0/-3000', 'posted'],
    ['of nothing is a full one', original, 0n, '0/0', 'reversed'],
    ['to the whole amount changes nothing', original, 5000n, '5000/0', 'held'],
    ['never raises a hold', original, 9000n, '5000/0', 'held'],
    ['never raises a posting', posted, 9000n, '0/5000', 'posted'],
    ['never raises a refund', { ...posted, processingCode: '200000' }, 9000n, '0/-5000', 'posted'],
    [
      'leaves its share of what was billed, rounded half up',
      { ...original, currency: '978', amount: 3n, billing: { amount: 1000n, currency: '840' } },
      2n,
      '667/0',
      'held',
    ],
  ];
  for (const [name, whole, replacementAmount, money, state] of cases) {
    test(name, () => {
      const bench = new TestLedger();
      assert.equal(bench.code(whole), '00');
      assert.equal(bench.code({ ...byRrn, replacementAmount }), '00');
      assert.equal(bench.money(), money);
      assert.equal(bench.state(whole), state);
    });
  }
  test('after a partial one lowers further and never back up', () => {
    const bench = new TestLedger();
    bench.code(original);
    const partial = (replacementAmount: bigint, stan: string): string => {
      assert.equal(bench.code({ ...byRrn, replacementAmount, stan }), '00');
      return bench.money();
    };
    assert.equal(partial(4000n, '000901'), '4000/0');
    assert.equal(partial(1000n, '000902'), '1000/0');
    assert.equal(partial(2000n, '000903'), '1000/0');
    assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [1, 1000n]);
    assert.equal(partial(0n, '000904'), '0/0');
    assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [0, 0n]);
  });
  test('of a hold leaves the rest to be completed', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.code({ ...byRrn, replacementAmount: 3000n });
    bench.code({ mtiClass: '0220', stan: '000500', rrn: '606012000001', amount: 2500n });
    assert.equal(bench.money(), '0/2500');
  });
  test("that leaves something does not make the original's repeat a decline", () => {
    const bench = new TestLedger();
    const answer = bench.ask(original);
    bench.code({ ...byRrn, replacementAmount: 3000n });
    assert.deepEqual(bench.ask({ ...original, repeat: true }), answer);
  });
});

describe('the reversal of a completion', () => {
  test('by DE 37 and 41, followed by another of its own, releases nothing again: the hold stands as before', () => {
    const bench = new TestLedger();
    bench.code({ ...original, amount: 5000n });
    bench.code({ ...original, mtiClass: '0220', stan: '000500', amount: 4000n });
    assert.equal(bench.money(), '0/4000');
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', stan: '000901' }), '00');
    assert.equal(bench.money(), '5000/0');
    assert.equal(bench.code({ ...byRrn, stan: '000902' }), '00');
    assert.equal(bench.money(), '5000/0');
  });

  const completion: Change = { ...original, mtiClass: '0220', stan: '000500', amount: 4000n };
  const ofCompletion: Change = { ...later, originalDataElements: namedBy(requestOf(completion)) };
  const completed = (): TestLedger => {
    const bench = new TestLedger();
    bench.code(original);
    bench.code(completion);
    assert.equal(bench.money(), '0/4000');
    return bench;
  };

  for (const [form, reversal] of [
    ['DE 90', ofCompletion],
    ['DE 37 and 41', byRrn],
    ['DE 4, 11 and 41', { ...later, stan: '000500', amount: 4000n }],
  ] as const) {
    test(`by ${form} restores the hold`, () => {
      const bench = completed();
      assert.equal(bench.code(reversal), '00');
      assert.equal(bench.money(), '5000/0');
      assert.deepEqual([bench.state(original), bench.state(completion)], ['held', 'reversed']);
    });
  }
  test('restores a hold that can be completed again, reversed, or expire', () => {
    for (const [next, money] of [
      [(bench: TestLedger) => bench.code({ ...completion, stan: '000501' }), '0/4000'],
      [(bench: TestLedger) => bench.code({ ...byName, stan: '000902' }), '0/0'],
      [
        (bench: TestLedger) => {
          bench.expire(8);
        },
        '0/0',
      ],
    ] as const) {
      const bench = completed();
      bench.code(ofCompletion);
      next(bench);
      assert.equal(bench.money(), money);
    }
  });
  test('restores no hold that had expired before', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.expire(8);
    bench.code(completion);
    bench.code(ofCompletion);
    assert.equal(bench.money(), '0/0');
    assert.equal(bench.state(original), 'expired');
  });
  test('restores what a partial reversal had left of it', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.code({ ...byName, replacementAmount: 3000n });
    bench.code(completion);
    bench.code({ ...ofCompletion, stan: '000905' });
    assert.equal(bench.money(), '3000/0');
  });
  test('in part lowers the posting only', () => {
    const bench = completed();
    assert.equal(bench.code({ ...ofCompletion, replacementAmount: 1000n }), '00');
    assert.equal(bench.money(), '0/1000');
    assert.equal(bench.state(original), 'completed');
  });
  test('has to come before that of its hold: the completed hold cannot be released', () => {
    const bench = completed();
    assert.equal(bench.code({ ...byName, mtiClass: '0400' }), '25');
    assert.equal(bench.code({ ...byName, mtiClass: '0420' }), '00');
    assert.equal(bench.money(), '0/4000');
  });
  test('twice by DE 90 leaves the restored hold alone', () => {
    const bench = completed();
    bench.code(ofCompletion);
    assert.equal(bench.code({ ...ofCompletion, stan: '000906' }), '00');
    assert.equal(bench.money(), '5000/0');
  });
});

test('a reversal is not reversed', () => {
  const bench = new TestLedger();
  bench.code(original);
  bench.code({ ...byRrn, mtiClass: '0400' });
  const originalDataElements = namedBy(requestOf({ ...byRrn, mtiClass: '0400' }));
  const again: Change = { ...later, stan: '000910', originalDataElements };
  assert.equal(bench.code({ ...again, mtiClass: '0400' }), '25');
  assert.equal(bench.code(again), '00');
  assert.equal(bench.money(), '0/0');
});
