// Over 500 lines because each rule has its own journal, written out by hand, and belongs beside the others.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Pan } from '../../base/pan.ts';
import type { AcquirerCard } from './cards.ts';
import type { JournalLine } from './journal.ts';
import { approvals, expectedBalances } from './recompute.ts';

const pan = Pan.parse('9900010000000019');
assert.ok(pan);
const cards: readonly AcquirerCard[] = [{ line: 2, pan, expiry: '3508', currency: '840' }];

/**
 * One row: name, MTI, DE 3, DE 4, answer, further fields. The answer is `00` with an optional DE 38 (`00/A1`), `-` for none.
 * Names serve as STAN, and unless given otherwise as RRN.
 */
type Row = readonly [
  name: string,
  mti: string,
  purpose: string,
  amount: number,
  answer: string,
  fields?: Readonly<Record<number, string>>,
];

const stans = 'abcdefghijklmnopqrstuvwxyz';

function stanOf(name: string): string {
  return String(stans.indexOf(name) + 1).padStart(6, '0');
}

function journalOf(rows: readonly Row[]): JournalLine[] {
  return rows.flatMap(([name, mti, purpose, amount, answer, changes = {}], index): JournalLine[] => {
    const all: Record<string, string> = {
      3: `${purpose}0000`,
      4: String(amount).padStart(12, '0'),
      7: '0301120000',
      11: stanOf(name),
      32: '900001',
      37: `RRN-${name}`,
      41: 'TERM0001',
      42: 'MERCHANT',
      49: '840',
      ...changes,
    };
    const fields = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ''));
    const id = `run-${index}`;
    const request: JournalLine = {
      kind: 'request',
      id,
      attempt: 1,
      operation: 'x',
      mti,
      node: 'n1',
      sentAt: '2026-03-01T12:00:00.000Z',
      card: 2,
      pan: '990001******0019',
      fields,
    };
    if (answer === '-') return [request, { kind: 'unanswered', id, at: '2026-03-01T12:00:10.000Z' }];
    const [responseCode = '', code = '', part = ''] = answer.split('/');
    const answerFields: Record<string, string> = { 39: responseCode };
    if (code !== '') answerFields[38] = code;
    if (part !== '') answerFields[4] = part.padStart(12, '0');
    const answerMti = `${mti.slice(0, 2)}${Number(mti[2]) + 1}0`;
    return [
      request,
      {
        kind: 'answer',
        id,
        attempt: 1,
        mti: answerMti,
        node: 'n1',
        answeredAt: '2026-03-01T12:00:00.005Z',
        fields: answerFields,
      },
    ];
  });
}

/** DE 90 for the row with this name. */
function original(mti: string, name: string): string {
  return `${mti}${stanOf(name)}030112000000000900001${'0'.repeat(11)}`;
}

/** DE 95 */
function final(amount: number): string {
  return String(amount).padStart(12, '0').padEnd(42, '0');
}

const byTrace = (
  mti: string,
  name: string,
  more: Readonly<Record<number, string>> = {},
): Readonly<Record<number, string>> => ({
  90: original(mti, name),
  37: `RRN-${name}`,
  ...more,
});

const certain: readonly (readonly [claim: string, rows: readonly Row[], held: number, posted: number])[] = [
  ['nothing sent, nothing held', [], 0, 0],
  ['an approved purchase holds', [['a', '0100', '00', 500, '00/A1']], 500, 0],
  [
    'cash and cash back hold too',
    [
      ['a', '0100', '01', 500, '00'],
      ['b', '0100', '09', 70, '00'],
    ],
    570,
    0,
  ],
  [
    'a decline does nothing',
    [
      ['a', '0100', '00', 500, '51'],
      ['b', '0200', '00', 500, '05'],
    ],
    0,
    0,
  ],
  ['an approval in part holds the part', [['a', '0100', '00', 500, '10/A1/300']], 300, 0],
  [
    'an authorized refund, an inquiry and a verification move nothing',
    [
      ['a', '0100', '20', 500, '00'],
      ['b', '0100', '31', 0, '00'],
      ['c', '0100', '38', 0, '00'],
    ],
    0,
    0,
  ],
  [
    'a financial request posts',
    [
      ['a', '0200', '00', 500, '00'],
      ['b', '0200', '01', 10, '00'],
      ['c', '0200', '09', 1, '00'],
    ],
    0,
    511,
  ],
  [
    'a refund credits',
    [
      ['a', '0200', '20', 500, '00'],
      ['b', '0220', '20', 30, '00'],
    ],
    0,
    -530,
  ],
  ['another currency than the card has moves nothing', [['a', '0220', '00', 500, '00', { 49: '978' }]], 0, 0],
  [
    'a repeat counts once, answered twice',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['a', '0101', '00', 500, '00/A1'],
    ],
    500,
    0,
  ],
  [
    'a repeat that is answered settles the original',
    [
      ['a', '0100', '00', 500, '-'],
      ['a', '0101', '00', 500, '00/A1'],
    ],
    500,
    0,
  ],
  [
    'the same key with another amount is another request, refused',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['a', '0100', '00', 600, '94'],
    ],
    500,
    0,
  ],

  [
    'a completion by RRN posts its own amount and releases the whole hold',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
    ],
    0,
    350,
  ],
  [
    'a completion may be over the hold',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 575, '00', { 37: 'RRN-a' }],
    ],
    0,
    575,
  ],
  [
    'a completion by DE 38 and 42',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 350, '00', { 38: 'A1' }],
    ],
    0,
    350,
  ],
  [
    'DE 38 of another merchant completes nothing',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 350, '00', { 38: 'A1', 42: 'OTHER' }],
    ],
    500,
    350,
  ],
  [
    'an RRN of another terminal completes nothing',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a', 41: 'TERM0002' }],
    ],
    500,
    350,
  ],
  ['an advice with no hold posts by itself', [['b', '0220', '00', 350, '00']], 0, 350],
  [
    'a repeated completion posts once',
    [
      ['a', '0100', '00', 500, '00/A1'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
      ['b', '0221', '00', 350, '00', { 37: 'RRN-a' }],
    ],
    0,
    350,
  ],

  [
    'a reversal by DE 90 releases the hold',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0400', '00', 500, '00', byTrace('0100', 'a', { 37: '' })],
    ],
    0,
    0,
  ],
  [
    'a reversal by DE 90 of a repeat means the original',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', byTrace('0101', 'a', { 37: '' })],
    ],
    0,
    0,
  ],
  [
    'a reversal by RRN and terminal releases the hold',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', { 37: 'RRN-a' }],
    ],
    0,
    0,
  ],
  [
    'a reversal by amount, STAN and terminal releases the hold',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0400', '00', 500, '00', { 37: '', 11: stanOf('a') }],
    ],
    0,
    0,
  ],
  [
    'a reversal that fits nothing does nothing',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00'],
      ['c', '0400', '00', 500, '25', byTrace('0200', 'a')],
    ],
    500,
    0,
  ],
  [
    'a reversal takes a posting and a refund back',
    [
      ['a', '0200', '00', 500, '00'],
      ['b', '0200', '20', 90, '00'],
      ['c', '0400', '00', 500, '00', byTrace('0200', 'a')],
      ['d', '0420', '20', 90, '00', byTrace('0200', 'b')],
    ],
    0,
    0,
  ],
  [
    'a partial reversal leaves the amount of DE 95',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a', { 95: final(120) })],
    ],
    120,
    0,
  ],
  [
    'a partial reversal of a refund leaves a part of the credit',
    [
      ['a', '0200', '20', 500, '00'],
      ['b', '0420', '20', 500, '00', byTrace('0200', 'a', { 95: final(120) })],
    ],
    0,
    -120,
  ],
  [
    'DE 95 never raises an amount',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a', { 95: final(120) })],
      ['c', '0420', '00', 500, '00', byTrace('0100', 'a', { 95: final(400) })],
    ],
    120,
    0,
  ],
  [
    'reversing twice releases once',
    [
      ['a', '0100', '00', 500, '00'],
      ['z', '0100', '00', 1, '00'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a')],
      ['c', '0420', '00', 500, '00', byTrace('0100', 'a')],
    ],
    1,
    0,
  ],
  [
    'a declined original has nothing to reverse',
    [
      ['a', '0100', '00', 500, '51'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a')],
    ],
    0,
    0,
  ],
  [
    'a partly reversed hold is completed like any',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', { 37: 'RRN-a', 95: final(120) }],
      ['c', '0220', '00', 100, '00', { 37: 'RRN-a' }],
    ],
    0,
    100,
  ],

  [
    'reversing a completion restores its hold',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
      ['c', '0420', '00', 350, '00', byTrace('0220', 'b')],
    ],
    500,
    0,
  ],
  [
    'the restored hold is what partial reversals had left of it',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a', { 95: final(120) })],
      ['c', '0220', '00', 100, '00', { 37: 'RRN-a' }],
      ['d', '0420', '00', 100, '00', byTrace('0220', 'c')],
    ],
    120,
    0,
  ],
  [
    'a restored hold can be reversed',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
      ['c', '0420', '00', 350, '00', byTrace('0220', 'b')],
      ['d', '0400', '00', 500, '00', byTrace('0100', 'a')],
    ],
    0,
    0,
  ],
  [
    'a partly reversed completion still releases the hold',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
      ['c', '0420', '00', 350, '00', byTrace('0220', 'b', { 95: final(50) })],
    ],
    0,
    50,
  ],

  [
    'an unanswered request that was reversed has no effect',
    [
      ['a', '0100', '00', 500, '-'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a')],
    ],
    0,
    0,
  ],
  [
    'nor has one whose reversal did not find it: it is declined if it comes',
    [
      ['a', '0100', '00', 500, '-'],
      ['b', '0400', '00', 500, '25', byTrace('0100', 'a')],
    ],
    0,
    0,
  ],
];

for (const [claim, rows, held, posted] of certain) {
  test(claim, () => {
    const balance = expectedBalances(cards, [journalOf(rows)]).get(2);
    assert.ok(balance);
    assert.deepEqual(
      { held: balance.held, posted: balance.posted, uncertain: balance.uncertain, reasons: balance.reasons },
      { held: BigInt(held), posted: BigInt(posted), uncertain: false, reasons: [] },
    );
    assert.deepEqual(balance.heldRange, [BigInt(held), BigInt(held)]);
    assert.deepEqual(balance.postedRange, [BigInt(posted), BigInt(posted)]);
  });
}

const uncertain: readonly (readonly [
  claim: string,
  rows: readonly Row[],
  held: readonly [number, number],
  posted: readonly [number, number],
])[] = [
  [
    'an unanswered purchase may hold',
    [
      ['z', '0100', '00', 7, '00'],
      ['a', '0100', '00', 500, '-'],
    ],
    [7, 507],
    [0, 0],
  ],
  ['an unanswered refund may credit', [['a', '0200', '20', 500, '-']], [0, 0], [-500, 0]],
  ['91 does not say what was decided', [['a', '0100', '00', 500, '91']], [0, 500], [0, 0]],
  [
    'an unanswered reversal may release',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0400', '00', 500, '-', byTrace('0100', 'a', { 95: final(120) })],
    ],
    [120, 500],
    [0, 0],
  ],
  [
    'an unanswered completion may release and post',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0220', '00', 350, '-', { 37: 'RRN-a' }],
    ],
    [0, 500],
    [0, 350],
  ],
  [
    'an unanswered reversal of a completion may restore',
    [
      ['a', '0100', '00', 500, '00'],
      ['b', '0220', '00', 350, '00', { 37: 'RRN-a' }],
      ['c', '0420', '00', 350, '-', byTrace('0220', 'b')],
    ],
    [0, 500],
    [0, 350],
  ],
  [
    'an unanswered purchase with a partial reversal may hold the rest',
    [
      ['a', '0100', '00', 500, '-'],
      ['b', '0420', '00', 500, '00', byTrace('0100', 'a', { 95: final(120) })],
    ],
    [0, 120],
    [0, 0],
  ],
];

for (const [claim, rows, held, posted] of uncertain) {
  test(claim, () => {
    const balance = expectedBalances(cards, [journalOf(rows)]).get(2);
    assert.ok(balance);
    assert.deepEqual(balance.heldRange, held.map(BigInt));
    assert.deepEqual(balance.postedRange, posted.map(BigInt));
    assert.equal(balance.uncertain, true);
    assert.ok(balance.reasons.length > 0);
  });
}

test('point values count what was answered only', () => {
  const rows: Row[] = [
    ['a', '0100', '00', 500, '00'],
    ['b', '0220', '00', 350, '-', { 37: 'RRN-a' }],
    ['c', '0200', '00', 9, '-'],
  ];
  const balance = expectedBalances(cards, [journalOf(rows)]).get(2);
  assert.deepEqual([balance?.held, balance?.posted], [500n, 0n]);
});

test('a balance is uncertain when a request got two different decisions, or a reference fits several', () => {
  const twice: Row[] = [
    ['a', '0100', '00', 500, '00/A1'],
    ['a', '0101', '00', 500, '00/A2'],
  ];
  const both: Row[] = [
    ['a', '0100', '00', 500, '00/A1'],
    ['a', '0101', '00', 500, '51'],
  ];
  const several: Row[] = [
    ['a', '0100', '00', 5, '00/A1'],
    ['b', '0100', '00', 6, '00/A1'],
    ['c', '0220', '00', 6, '00', { 38: 'A1' }],
  ];
  for (const [rows, reason] of [
    [twice, /two approvals/],
    [both, /approved and declined/],
    [several, /fits 2 earlier requests/],
  ] as const) {
    const balance = expectedBalances(cards, [journalOf(rows)]).get(2);
    assert.equal(balance?.uncertain, true);
    assert.match(balance.reasons.join(), reason);
  }
});

test('approvals are listed once each, with the key that the log has', () => {
  const rows: Row[] = [
    ['a', '0100', '00', 500, '-'],
    ['a', '0101', '00', 500, '00/A1'],
    ['b', '0200', '00', 20, '51'],
    ['c', '0420', '00', 500, '00', byTrace('0100', 'a')],
    ['d', '0800', '00', 0, '00'],
  ];
  assert.deepEqual(
    approvals([journalOf(rows)]).map(({ key, authorizationCode, rrn, cardLine, amount }) => [
      key,
      authorizationCode,
      rrn,
      cardLine,
      amount,
    ]),
    [
      ['0301120000|000001|acquirer|900001|TERM0001|0100', 'A1', 'RRN-a', 2, 500n],
      ['0301120000|000003|acquirer|900001|TERM0001|0420', '', 'RRN-a', 2, 500n],
    ],
  );
});

test('a journal of another card file is noticed', () => {
  const other = Pan.parse('9900010782328216');
  assert.ok(other);
  assert.throws(
    () =>
      expectedBalances(
        [{ line: 2, pan: other, expiry: '3508', currency: '840' }],
        [journalOf([['a', '0100', '00', 5, '00']])],
      ),
    /was made with this card file/,
  );
});

test('a request with a card in no file concerns no balance', () => {
  const lines = journalOf([['a', '0100', '00', 500, '00']]).map((line) =>
    line.kind === 'request' ? { ...line, card: 0, pan: '990999******0000' } : line,
  );
  assert.deepEqual([...expectedBalances(cards, [lines]).keys()], [2]);
  assert.equal(expectedBalances(cards, [lines]).get(2)?.held, 0n);
});
