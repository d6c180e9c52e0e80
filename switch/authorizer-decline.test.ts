import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { CardStatus } from '../store/card-status.ts';
import type { MtiClass } from '../store/entry.ts';
import { openToBuy } from '../store/ledger.ts';
import type { SwitchRequest } from './request.ts';
import { cardImport, link, namedBy, otherPan, pan, range, requestOf, TestLedger } from './testing.ts';

const noLimits = {
  prefix: range.prefix,
  currency: '840',
  transaction_maximum_minor: null,
  daily_maximum_minor: null,
  daily_maximum_count: null,
  stand_in_floor_minor: null,
  stand_in_card_count: null,
  stand_in_card_minor: null,
};

type Change = Partial<SwitchRequest>;

/** One broken rule each, in the order in which they are to win. `spoil` breaks it for the request that it returns. */
const faults: readonly {
  readonly name: string;
  readonly code: string;
  readonly spoil: (bench: TestLedger) => Change;
  /** A card has one status, and one that is not on file has nothing else: faults of one kind exclude each other. */
  readonly kind?: 'card';
}[] = [
  {
    name: 'DE 32 that the link may not use',
    code: '58',
    spoil: (bench) => {
      bench.link = { ...link, acquiring_institutions: '1,2' };
      return {};
    },
  },
  {
    name: 'its reversal came first',
    code: '94',
    spoil: (bench) => {
      bench.code({ mtiClass: '0420', stan: '000900', originalDataElements: namedBy(requestOf()) });
      return {};
    },
  },
  {
    name: 'no range',
    code: '92',
    spoil: (bench) => {
      bench.range = { ...range, prefix: '' };
      return {};
    },
  },
  { name: 'not on file', code: '14', kind: 'card', spoil: () => ({ pan: otherPan }) },
  ...(['closed', 'stolen', 'lost', 'blocked'] as const).map((status: CardStatus) => ({
    name: status,
    code: { closed: '14', stolen: '43', lost: '41', blocked: '62', active: '' }[status],
    kind: 'card' as const,
    spoil: (bench: TestLedger): Change => {
      bench.set({ status });
      return {};
    },
  })),
  {
    name: 'expired',
    code: '54',
    spoil: (bench) => {
      bench.set({ expiry: '2602' });
      return {};
    },
  },
  { name: 'another currency', code: '57', spoil: () => ({ currency: '978' }) },
  {
    name: 'over the amount of one transaction',
    code: '61',
    spoil: (bench) => {
      bench.limits = [{ ...noLimits, ...bench.limits[0], transaction_maximum_minor: 4999n }];
      return {};
    },
  },
  {
    name: 'over the limit for the merchant category',
    code: '61',
    spoil: (bench) => {
      bench.merchantLimits = new Map([['7995 840', 0n]]);
      return { merchantCategory: '7995' };
    },
  },
  {
    name: 'over the count of a day',
    code: '65',
    spoil: (bench) => {
      bench.limits = [{ ...noLimits, ...bench.limits[0], daily_maximum_count: 0 }];
      return {};
    },
  },
  {
    name: 'over open-to-buy',
    code: '51',
    spoil: (bench) => {
      bench.set({ limit: '4999' });
      return {};
    },
  },
];

describe('a request that breaks one rule is declined with its code:', () => {
  for (const { name, code, spoil } of faults) {
    for (const mtiClass of ['0100', '0200'] as const) {
      test(`${mtiClass} ${name}: ${code}`, () => {
        const bench = new TestLedger();
        const change = spoil(bench);
        // A tombstone by DE 90 names the 0100.
        const asked = name === 'its reversal came first' ? '0100' : mtiClass;
        const answer = bench.ask({ mtiClass: asked, ...change });
        assert.deepEqual(answer, { responseCode: code, authorizationCode: '', additionalAmounts: '' });
        assert.equal(bench.money(), '0/0');
      });
    }
  }
});

describe('when two rules are broken, the earlier in the table gives the code:', () => {
  for (const [at, first] of faults.entries()) {
    for (const second of faults.slice(at + 1)) {
      if (first.kind !== undefined && first.kind === second.kind) continue;
      test(`${first.name}, then ${second.name}: ${first.code}`, () => {
        const bench = new TestLedger();
        // Later faults first: the tombstone of a reversal has to be entered for the card that will be asked for.
        const change = { ...second.spoil(bench), ...first.spoil(bench) };
        // A card that is not on file has no tombstone either.
        const expected = first.code === '94' && second.name === 'not on file' ? '14' : first.code;
        assert.equal(bench.code(change), expected);
      });
    }
  }
});

describe('a card', () => {
  const cases: [name: string, expiryOnFile: string, asked: string, at: string, code: string][] = [
    ['is good on the last day of its month', '2602', '', '2026-02-28T23:59:00Z', '00'],
    ['is good as long as its month lasts anywhere', '2602', '', '2026-03-01T11:59:00Z', '00'],
    ['is expired when it lasts nowhere', '2602', '', '2026-03-01T12:00:00Z', '54'],
    ['is good with the expiry on file', '2812', '2812', '2026-03-01T12:00:00Z', '00'],
    ['is refused with a later expiry than on file', '2812', '2901', '2026-03-01T12:00:00Z', '54'],
    ['is refused with an earlier one that is not over', '2812', '2811', '2026-03-01T12:00:00Z', '54'],
    ['is good over the turn of a year', '2612', '', '2027-01-01T11:59:00Z', '00'],
    ['is expired after the turn of a year', '2612', '', '2027-01-01T12:00:00Z', '54'],
  ];
  for (const [name, expiry, asked, at, code] of cases) {
    test(name, () => {
      const bench = new TestLedger([cardImport({ expiry })]);
      bench.atMs = Date.parse(at);
      assert.equal(bench.code({ expiry: asked, businessDate: at.slice(0, 10) }), code);
    });
  }
});

describe('DE 32', () => {
  for (const [allowed, asked, code] of [
    ['*', '123456', '00'],
    ['*', '', '00'],
    ['123456', '123456', '00'],
    ['1,123456', '123456', '00'],
    ['123456', '12345', '58'],
    ['123456', '1234567', '58'],
    ['123456', '', '58'],
  ] as const) {
    test(`"${asked}" where the link may use ${allowed} gives ${code}`, () => {
      const bench = new TestLedger();
      bench.link = { ...link, acquiring_institutions: allowed };
      for (const mtiClass of ['0100', '0200', '0220'] as const)
        assert.equal(bench.code({ mtiClass, acquirer: asked }), code);
      assert.equal(bench.code({ mtiClass: '0400', acquirer: asked, stan: '000777' }), code === '00' ? '25' : '58');
    });
  }
});

describe('the limits of a range', () => {
  const limited = (change: object): TestLedger => {
    const bench = new TestLedger();
    bench.limits = [{ ...noLimits, ...change }];
    return bench;
  };
  const each = (bench: TestLedger, ...amounts: [number, string][]): void => {
    for (const [at, [amount, code]] of amounts.entries()) {
      const stan = String(at + 1).padStart(6, '0');
      assert.equal(bench.code({ amount: BigInt(amount), stan, mtiClass: at % 2 === 0 ? '0100' : '0200' }), code, stan);
    }
  };

  test('take exactly the amount of one transaction and not one more', () => {
    each(limited({ transaction_maximum_minor: 5000n }), [5000, '00'], [5001, '61'], [5000, '00']);
  });
  test('add up holds and postings over a business day, declines not counted', () => {
    each(limited({ daily_maximum_minor: 10_000n }), [6000, '00'], [4001, '61'], [4000, '00'], [1, '61']);
  });
  test('count approved debits of a business day', () => {
    each(limited({ daily_maximum_count: 2 }), [1, '00'], [1_000_000, '51'], [1, '00'], [1, '65']);
  });
  test('begin anew on the next business day', () => {
    const bench = limited({ daily_maximum_count: 1, daily_maximum_minor: 5000n });
    assert.equal(bench.code({ stan: '000001' }), '00');
    assert.equal(bench.code({ stan: '000002' }), '61');
    assert.equal(bench.code({ stan: '000003', businessDate: '2026-03-02' }), '00');
    assert.equal(bench.code({ stan: '000004', businessDate: '2026-03-02' }), '61');
  });
  test('are not evaded around midnight by an edge whose day has not yet turned', () => {
    const bench = limited({ daily_maximum_count: 2 });
    assert.equal(bench.code({ stan: '000001', businessDate: '2026-03-02' }), '00');
    assert.equal(bench.code({ stan: '000002', businessDate: '2026-03-01' }), '00');
    assert.equal(bench.code({ stan: '000003', businessDate: '2026-03-02' }), '65');
    assert.equal(bench.code({ stan: '000004', businessDate: '2026-03-01' }), '65');
  });
  test('give back what was reversed, and never more than was counted', () => {
    const bench = limited({ daily_maximum_count: 1, daily_maximum_minor: 5000n });
    assert.equal(bench.code({ stan: '000001', amount: 5000n }), '00');
    bench.code({ mtiClass: '0420', stan: '000901', originalDataElements: namedBy(requestOf({ stan: '000001' })) });
    assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [0, 0n]);
    assert.equal(bench.code({ stan: '000002', amount: 5000n }), '00');
    assert.equal(bench.code({ stan: '000003', amount: 1n }), '61');
  });
  test('never count below zero, whatever order the days come in', () => {
    const bench = new TestLedger();
    const days = ['2026-03-01', '2026-06-01', '2026-03-01', '2026-06-01'];
    days.forEach((businessDate, at) =>
      bench.code({ stan: `00000${at}`, amount: BigInt(100 * (at + 1)), businessDate }),
    );
    days.forEach((businessDate, at) => {
      const named = namedBy(requestOf({ stan: `00000${at}` }));
      bench.code({ mtiClass: '0420', stan: `00090${at}`, originalDataElements: named, businessDate });
      const { usageCount, usageAmount } = bench.card();
      assert.ok(usageCount >= 0 && usageAmount >= 0n, `${usageCount} ${usageAmount}`);
    });
    assert.equal(bench.money(), '0/0');
  });
  test("are those of the card's currency, in the amount that was billed", () => {
    const bench = limited({ transaction_maximum_minor: 5000n });
    assert.equal(bench.code({ currency: '978', billing: { amount: 5001n, currency: '840' }, amount: 10n }), '61');
    assert.equal(
      bench.code({ currency: '978', billing: { amount: 5000n, currency: '840' }, amount: 9999n, stan: '2' }),
      '00',
    );
  });
  test('do not hold for inquiries, verifications and refunds', () => {
    const bench = limited({ transaction_maximum_minor: 0n, daily_maximum_minor: 0n, daily_maximum_count: 0 });
    for (const [at, processingCode] of ['200000', '310000', '380000'].entries()) {
      assert.equal(bench.code({ processingCode, stan: `00000${at}` }), '00');
    }
  });
});

describe('open-to-buy', () => {
  test('takes the last minor unit and not one more', () => {
    const bench = new TestLedger([cardImport({ limit: '5000' })]);
    assert.equal(bench.code({ amount: 5001n, stan: '000001' }), '51');
    assert.equal(bench.code({ amount: 5000n, stan: '000002' }), '00');
    assert.equal(openToBuy(bench.card()), 0n);
    assert.equal(bench.code({ amount: 1n, stan: '000003' }), '51');
  });
  test('is limit less holds and postings, plus credits', () => {
    const bench = new TestLedger([cardImport({ limit: '10000' })]);
    bench.code({ amount: 3000n, stan: '000001' });
    bench.code({ mtiClass: '0200', amount: 4000n, stan: '000002' });
    bench.code({ mtiClass: '0200', processingCode: '200000', amount: 500n, stan: '000003' });
    assert.equal(openToBuy(bench.card()), 3500n);
    assert.equal(bench.code({ amount: 3501n, stan: '000004' }), '51');
    assert.equal(bench.code({ amount: 3500n, stan: '000005' }), '00');
  });
  test('that a lowered limit made negative approves no debit, and refunds still', () => {
    const bench = new TestLedger();
    bench.code({ mtiClass: '0200', amount: 5000n });
    bench.set({ limit: '1000' });
    assert.equal(bench.code({ amount: 1n, stan: '000002' }), '51');
    assert.equal(bench.code({ mtiClass: '0200', processingCode: '200000', amount: 1n, stan: '000003' }), '00');
  });
});

describe('a currency', () => {
  const billing = { amount: 5400n, currency: '840' };
  const cases: [name: string, change: Change, code: string, money: string][] = [
    ['of the card is taken as DE 4', {}, '00', '5000/0'],
    ['of the card is taken as DE 4 though DE 6 is there', { billing: { amount: 1n, currency: '840' } }, '00', '5000/0'],
    ['that the acquirer converts is taken from DE 6', { currency: '978', billing }, '00', '5400/0'],
    ['that nobody converts is declined', { currency: '978' }, '57', '0/0'],
    ['converted into a third is declined', { currency: '978', billing: { amount: 1n, currency: '392' } }, '57', '0/0'],
  ];
  for (const [name, change, code, money] of cases) {
    test(name, () => {
      const bench = new TestLedger();
      assert.equal(bench.code(change), code);
      assert.equal(bench.money(), money);
    });
  }
  test('that nobody converts declines a refund too, and does not matter to an inquiry', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ mtiClass: '0200', processingCode: '200000', currency: '978' }), '57');
    assert.equal(bench.code({ processingCode: '310000', currency: '978', stan: '000002' }), '00');
    assert.equal(bench.code({ processingCode: '380000', currency: '', amount: 0n, stan: '000003' }), '00');
  });
});

describe('what each message does by its purpose:', () => {
  // class | DE 3 | DE 39 | held/posted | state | DE 38 | DE 54
  const rows = `
    0100 | 00 | 00 | 5000/0  | held     | yes |
    0100 | 01 | 00 | 5000/0  | held     | yes |
    0100 | 09 | 00 | 5000/0  | held     | yes |
    0100 | 20 | 00 | 0/0     | recorded | yes |
    0100 | 31 | 00 | 0/0     | recorded | yes | 0002840C000000100000
    0100 | 38 | 00 | 0/0     | recorded | yes |
    0200 | 00 | 00 | 0/5000  | posted   | yes |
    0200 | 01 | 00 | 0/5000  | posted   | yes |
    0200 | 09 | 00 | 0/5000  | posted   | yes |
    0200 | 20 | 00 | 0/-5000 | posted   | yes |
    0200 | 31 | 00 | 0/0     | recorded | yes | 0002840C000000100000
    0200 | 38 | 00 | 0/0     | recorded | yes |
    0120 | 00 | 00 | 5000/0  | held     | no  |
    0120 | 20 | 00 | 0/0     | recorded | no  |
    0120 | 31 | 00 | 0/0     | recorded | no  |
    0120 | 38 | 00 | 0/0     | recorded | no  |
    0220 | 00 | 00 | 0/5000  | posted   | no  |
    0220 | 01 | 00 | 0/5000  | posted   | no  |
    0220 | 20 | 00 | 0/-5000 | posted   | no  |
    0220 | 31 | 00 | 0/0     | recorded | no  |
    0220 | 38 | 00 | 0/0     | recorded | no  |`;
  for (const line of rows.trim().split('\n')) {
    const [mtiClass, code, responseCode, money, state, hasCode, amounts] = line.split('|').map((cell) => cell.trim());
    test(`${mtiClass ?? ''} ${code ?? ''}: ${money ?? ''}, ${state ?? ''}`, () => {
      const bench = new TestLedger();
      const processingCode = `${code ?? ''}0000`;
      const amount = code === '31' || code === '38' ? 0n : 5000n;
      const request = { mtiClass: mtiClass as MtiClass, processingCode, amount };
      const answer = bench.ask(request);
      assert.equal(answer.responseCode, responseCode);
      assert.equal(/^[0-9]{6}$/.test(answer.authorizationCode), hasCode === 'yes');
      assert.equal(answer.additionalAmounts, amounts ?? '');
      assert.equal(bench.money(), money);
      assert.equal(bench.state(request), state);
    });
  }

  test('an inquiry tells what is available, below zero as a debit', () => {
    const bench = new TestLedger([cardImport({ currency: '392' })]);
    bench.code({ currency: '392', amount: 1n });
    const inquiry: Change = { processingCode: '310000', amount: 0n, currency: '392' };
    assert.equal(bench.ask({ ...inquiry, stan: '000002' }).additionalAmounts, '0002392C000000099999');
    bench.code({ mtiClass: '0220', currency: '392', amount: 100_000n, stan: '000003' });
    assert.equal(bench.ask({ ...inquiry, stan: '000004' }).additionalAmounts, '0002392D000000000001');
  });
});

describe('an advice', () => {
  test('is recorded and acknowledged whatever the rules say', () => {
    for (const { name, code, spoil } of faults) {
      if (code === '58' || code === '94') continue;
      for (const mtiClass of ['0120', '0220'] as const) {
        const bench = new TestLedger();
        assert.equal(bench.code({ mtiClass, ...spoil(bench) }), '00', name);
        const nothing = code === '57' || name === 'not on file';
        const moved = mtiClass === '0120' ? '5000/0' : '0/5000';
        assert.equal(bench.money(), nothing ? '0/0' : moved, name);
      }
    }
  });
  test('keeps the authorization code that it brings', () => {
    assert.equal(new TestLedger().ask({ mtiClass: '0120', authorizationCode: 'A1B2C3' }).authorizationCode, 'A1B2C3');
  });
  test('of a decline moves no money', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ mtiClass: '0220', responseCode: '05' }), '00');
    assert.equal(bench.code({ mtiClass: '0120', responseCode: '51', stan: '000002' }), '00');
    assert.equal(bench.money(), '0/0');
    assert.equal(bench.code({ mtiClass: '0220', responseCode: '10', stan: '000003' }), '00');
    assert.equal(bench.money(), '0/5000');
  });
  test('counts towards the limits of the day', () => {
    const bench = new TestLedger();
    bench.limits = [{ ...noLimits, daily_maximum_count: 1 }];
    bench.code({ mtiClass: '0220' });
    assert.equal(bench.code({ stan: '000002' }), '65');
  });
});

test('a hold lasts for the days of its range', () => {
  const bench = new TestLedger();
  bench.code();
  bench.expire(6);
  assert.equal(bench.money(), '5000/0');
  bench.expire(1);
  assert.equal(bench.money(), '0/0');
  assert.equal(bench.state(), 'expired');
  bench.expire(1);
  assert.equal(bench.money(), '0/0', 'an expiry releases once');
});

test('a decision changes nothing and is the same again', () => {
  const bench = new TestLedger();
  const request = requestOf({ processingCode: '310000', pan });
  const random = { bytes: () => Buffer.alloc(0), below: () => 42 };
  const before = bench.card();
  const context = bench.context(request, { random });
  assert.deepEqual(bench.decide(request).kind, 'decided');
  assert.deepEqual(bench.card(), before);
  assert.deepEqual(context.random, random);
});
