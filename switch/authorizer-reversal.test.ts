import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { openToBuy } from './authorizer.ts';
import type { SwitchRequest } from './request.ts';
import { cardImport, link, namedBy, otherPan, requestOf, TestLedger } from './testing.ts';

type Change = Partial<SwitchRequest>;

const original: Change = { rrn: '606012000001', stan: '000001' };
/** A reversal in a message of its own: own STAN and time, no RRN of its own. */
const later: Change = { mtiClass: '0420', stan: '000900', transmission: '0301120500' };
const byName: Change = { ...later, originalDataElements: namedBy(requestOf(original)), terminal: '' };
const byRrn: Change = { ...later, rrn: '606012000001' };
const byStan: Change = { ...later, stan: '000001' };
const everyForm: readonly [string, Change][] = [
  ['DE 90', byName],
  ['DE 37 and 41', byRrn],
  ['DE 4, 11 and 41', byStan],
];

describe('a completion (0220)', () => {
  const held = (): { bench: TestLedger; code: string } => {
    const bench = new TestLedger();
    const { authorizationCode } = bench.ask({ ...original, amount: 5000n });
    return { bench, code: authorizationCode };
  };
  const completion: Change = { mtiClass: '0220', stan: '000500', amount: 4000n };

  test('finds its hold by DE 37 and 41 and takes all of it', () => {
    const { bench } = held();
    assert.equal(bench.code({ ...completion, rrn: '606012000001' }), '00');
    assert.equal(bench.money(), '0/4000');
    assert.equal(bench.state(original), 'completed');
  });
  test('finds its hold by DE 38 and 42 at another terminal', () => {
    const { bench, code } = held();
    assert.equal(bench.code({ ...completion, authorizationCode: code, terminal: 'TERM0009' }), '00');
    assert.equal(bench.money(), '0/4000');
  });
  test('finds its hold by DE 38 when DE 37 finds none', () => {
    const { bench, code } = held();
    bench.code({ ...completion, rrn: 'other', authorizationCode: code });
    assert.equal(bench.money(), '0/4000');
  });
  for (const [what, change] of [
    ['another RRN and no DE 38', { rrn: '606012000002' }],
    ['the RRN at another terminal', { rrn: '606012000001', terminal: 'TERM0002' }],
    ['another authorization code', { authorizationCode: 'XXXXXX' }],
    ['another link', { rrn: '606012000001', link: 'link-2' }],
    ['nothing to find it by', {}],
  ] as [string, Change][]) {
    test(`with ${what} posts by itself and leaves the hold`, () => {
      const { bench } = held();
      assert.equal(bench.code({ ...completion, ...change }), '00');
      assert.equal(bench.money(), '5000/4000');
    });
  }
  test('of another merchant does not take the hold by its DE 38', () => {
    const { bench, code } = held();
    bench.code({ ...completion, authorizationCode: code, merchant: 'OTHER' });
    assert.equal(bench.money(), '5000/4000');
  });
  test('of another card takes nothing', () => {
    const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
    bench.code(original);
    bench.code({ ...completion, rrn: '606012000001', pan: otherPan });
    assert.equal(bench.money(), '5000/0');
    assert.equal(bench.money(otherPan), '0/4000');
  });
  test('over its hold posts its whole amount, even beyond the limit', () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001', amount: 250_000n });
    assert.equal(bench.money(), '0/250000');
    assert.equal(openToBuy(bench.card()), -150_000n);
  });
  test('of an expired hold completes it, and releases nothing again', () => {
    const { bench } = held();
    bench.expire(8);
    bench.code({ ...completion, rrn: '606012000001' });
    assert.equal(bench.money(), '0/4000');
    assert.equal(bench.state(original), 'completed');
    bench.expire(8);
    assert.equal(bench.money(), '0/4000');
  });
  test('that comes twice in two messages posts twice and releases once', () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001' });
    bench.code({ ...completion, rrn: '606012000001', stan: '000501' });
    assert.equal(bench.money(), '0/8000');
  });
  test('with two holds that fit takes neither', () => {
    const { bench } = held();
    bench.code({ ...original, stan: '000002', amount: 700n });
    bench.code({ ...completion, rrn: '606012000001' });
    assert.equal(bench.money(), '5700/4000');
  });
  test("is not counted again in the day's usage", () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001' });
    assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [1, 5000n]);
  });
});

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
    assert.deepEqual(bench.ledger.tombstones(bench.card().cardId), []);
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

describe('a reversal that comes before its original', () => {
  for (const [form, reversal] of everyForm) {
    test(`by ${form} declines it when it comes, and its repeat`, () => {
      for (const mtiClass of ['0400', '0420'] as const) {
        const bench = new TestLedger();
        assert.equal(bench.code({ ...reversal, mtiClass }), mtiClass === '0400' ? '25' : '00');
        assert.equal(bench.code(original), '94');
        assert.equal(bench.code({ ...original, repeat: true }), '94');
        assert.equal(bench.money(), '0/0');
      }
    });
    test(`by ${form} does not decline another purchase`, () => {
      for (const change of [
        { link: 'link-2' },
        { terminal: 'TERM0002' },
        { pan: otherPan },
        { stan: '000002', rrn: '606012000002', transmission: '0301120100' },
      ] as Change[]) {
        const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
        bench.code({ ...reversal, terminal: 'TERM0001' });
        assert.equal(bench.code({ ...original, ...change }), '00', JSON.stringify(Object.keys(change)));
      }
    });
    test(`by ${form} lets an advice be recorded without moving money`, () => {
      const bench = new TestLedger();
      const advice: Change = { ...original, mtiClass: '0220' };
      const named = namedBy(requestOf(advice));
      bench.code({
        ...reversal,
        originalDataElements: reversal.originalDataElements === undefined ? undefined : named,
      });
      assert.equal(bench.code(advice), '00');
      assert.equal(bench.money(), '0/0');
    });
  }
  test('by STAN does not decline the purchase of another day', () => {
    const bench = new TestLedger();
    bench.code(byStan);
    assert.equal(bench.code({ ...original, transmission: '0304120000', businessDate: '2026-03-04' }), '00');
  });
  test('again, in another message, gets the same answer and declines it still', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '25');
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', stan: '000901' }), '25');
    assert.equal(bench.code(original), '94');
  });
});

describe('a repeat', () => {
  test('gets the stored answer: same codes and amounts', () => {
    for (const [mtiClass, processingCode] of [
      ['0100', '000000'],
      ['0100', '310000'],
      ['0200', '000000'],
      ['0120', '000000'],
      ['0220', '000000'],
      ['0400', '000000'],
    ] as const) {
      const bench = new TestLedger();
      const request: Change = { ...original, mtiClass, processingCode };
      const first = bench.ask(request);
      const money = bench.money();
      for (const repeat of [true, false]) assert.deepEqual(bench.ask({ ...request, repeat }), first);
      assert.equal(bench.money(), money);
    }
  });
  test('of a decline gets the decline, though it would be approved by now', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, amount: 200_000n }), '51');
    bench.set({ limit: '900000' });
    assert.equal(bench.code({ ...original, amount: 200_000n, repeat: true }), '51');
  });
  test('of an approval gets it, though the card was stolen since', () => {
    const bench = new TestLedger();
    const first = bench.ask(original);
    bench.set({ status: 'stolen' });
    assert.deepEqual(bench.ask({ ...original, repeat: true }), first);
  });
  test('with no original is decided as new', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, repeat: true }), '00');
    assert.equal(bench.money(), '5000/0');
  });
  test('with another card, amount or currency gets 94, and nothing moves', () => {
    const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
    bench.code(original);
    for (const change of [{ pan: otherPan }, { amount: 4999n }, { currency: '978' }] as Change[]) {
      for (const repeat of [true, false]) assert.equal(bench.code({ ...original, ...change, repeat }), '94');
    }
    assert.equal(bench.money(), '5000/0');
    assert.equal(bench.money(otherPan), '0/0');
  });
  test('of a request for an unknown card gets its 14 again', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, pan: otherPan }), '14');
    assert.equal(bench.code({ ...original, pan: otherPan, repeat: true }), '14');
    assert.equal(bench.code(original), '14', 'nor is its key free for another card');
    assert.equal(bench.money(), '0/0');
  });
  for (const mtiClass of ['0100', '0200'] as const) {
    test(`of a reversed ${mtiClass} gets a decline, never the old approval`, () => {
      const bench = new TestLedger();
      bench.code({ ...original, mtiClass });
      bench.code(byRrn);
      assert.deepEqual(bench.ask({ ...original, mtiClass, repeat: true }), {
        responseCode: '94',
        authorizationCode: '',
        additionalAmounts: '',
      });
      assert.equal(bench.money(), '0/0');
    });
  }
  test('of a request whose hold has expired gets a decline', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.expire(8);
    assert.equal(bench.code({ ...original, repeat: true }), '94');
  });
  test('of a completed authorization gets its approval', () => {
    const bench = new TestLedger();
    const first = bench.ask(original);
    bench.code({ mtiClass: '0220', stan: '000500', rrn: '606012000001' });
    assert.deepEqual(bench.ask({ ...original, repeat: true }), first);
  });
  test('of an advice is acknowledged always: it approves nothing, and nobody could stop sending it', () => {
    for (const mtiClass of ['0120', '0220'] as const) {
      const bench = new TestLedger();
      bench.code({ ...original, mtiClass });
      bench.code(byRrn);
      assert.equal(bench.code({ ...original, mtiClass, repeat: true }), '00');
      assert.equal(bench.money(), '0/0');
    }
    const bench = new TestLedger();
    bench.code({ ...original, mtiClass: '0120' });
    bench.expire(8);
    assert.equal(bench.code({ ...original, mtiClass: '0120', repeat: true }), '00');
  });
  test('of a reversal gets its answer, also after what it reversed came again', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '25');
    bench.code(original);
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', repeat: true }), '25');
  });
});
