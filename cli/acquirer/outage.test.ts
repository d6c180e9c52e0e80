import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { JournalLine } from './journal.ts';
import {
  exchangesOf,
  firstApprovalAfter,
  longestGapMs,
  quantileOf,
  serviceIn,
  type Exchange,
  type IsConcerned,
} from './outage.ts';

const startMs = Date.UTC(2026, 2, 1, 12);
const time = (atMs: number): string => new Date(startMs + atMs).toISOString();

/** `id`: a letter for the card, a number. `answer`: DE 39, at which time; none: it got no answer. */
function request(
  id: string,
  sentMs: number,
  answer?: readonly [responseCode: string, atMs: number],
  attempt = 1,
): JournalLine[] {
  const lines: JournalLine[] = [
    {
      kind: 'request',
      id,
      attempt,
      operation: 'purchase',
      mti: attempt === 1 ? '0100' : '0101',
      node: 'n1',
      sentAt: time(sentMs),
      card: id.startsWith('a') ? 1 : 2,
      pan: '',
      fields: {},
    },
  ];
  if (answer !== undefined) lines.push(answerTo(id, answer[0], answer[1], attempt));
  return lines;
}

function answerTo(id: string, responseCode: string, atMs: number, attempt = 1, late?: true): JournalLine {
  const line = { kind: 'answer', id, attempt, mti: '0110', node: 'n1', answeredAt: time(atMs) } as const;
  return { ...line, ...(late === undefined ? {} : { late }), fields: { '39': responseCode } };
}

const ofCardA: IsConcerned = ({ card }) => card === 1;
const everyCard: IsConcerned = () => true;
const journal = (...requests: readonly JournalLine[][]): readonly Exchange[] => exchangesOf(requests.flat());
const during = (fromMs: number, toMs: number): { fromMs: number; toMs: number } => ({
  fromMs: startMs + fromMs,
  toMs: startMs + toMs,
});

const outage = journal(
  request('a1', 0, ['00', 10]),
  request('b1', 5, ['00', 20]),
  request('a2', 100, ['00', 110]),
  request('b2', 300, ['00', 310]),
  request('a3', 200, ['91', 3200]),
  request('a4', 190, ['00', 215]),
  request('a5', 400, ['51', 500]),
  request('a6', 700, ['10', 905]),
  request('a7', 650, ['00', 910]),
  request('b3', 800, ['00', 810]),
  request('a8', 1500),
);

test('the longest gap is between approvals of the cards concerned: declines, 91s and other cards end none', () => {
  assert.equal(longestGapMs(outage, ofCardA, during(0, 1000)), 905 - 215);
  assert.equal(longestGapMs(outage, everyCard, during(0, 1000)), 810 - 310);
});

test('a gap that begins before the window or has not ended in it counts from its beginning, to its end', () => {
  assert.equal(longestGapMs(outage, ofCardA, during(300, 900)), 600);
  assert.equal(longestGapMs(outage, ofCardA, during(900, 2000)), 2000 - 910);
  assert.equal(longestGapMs([], ofCardA, during(0, 70)), 70);
});

test('the first approval after a moment is of a request sent since, whatever came of those before', () => {
  assert.equal(firstApprovalAfter(outage, startMs + 195, ofCardA), startMs + 905);
  assert.equal(firstApprovalAfter(outage, startMs + 190, ofCardA), startMs + 215);
  assert.equal(firstApprovalAfter(outage, startMs + 195, everyCard), startMs + 310);
  assert.equal(firstApprovalAfter(outage, startMs + 800, ofCardA), undefined);
});

test('service counts what was sent in the window: beyond the deadline, 91, and the latency of what was answered', () => {
  const { latenciesMs, ...counts } = serviceIn(outage, during(150, 1600), 3000);
  assert.deepEqual(counts, { requests: 8, beyondDeadline: 1, inoperative: 1 });
  assert.deepEqual(latenciesMs, [10, 10, 25, 100, 205, 260, 3000]);
  assert.deepEqual(serviceIn(outage, during(150, 1600), 2999, ofCardA).beyondDeadline, 2);
  assert.deepEqual(serviceIn(outage, during(5000, 6000), 3000), {
    requests: 0,
    beyondDeadline: 0,
    inoperative: 0,
    latenciesMs: [],
  });
});

test('a repeated request is one exchange, from its first sending to the first answer that counted', () => {
  const exchanges = journal(
    request('a1', 0),
    [{ kind: 'failure', id: 'a1', attempt: 1, node: 'n1', at: time(50), reason: 'connection-lost' }],
    request('a1', 51, undefined, 2),
    [answerTo('a1', '05', 60, 1, true)],
    [answerTo('a1', '00', 90, 2), answerTo('a1', '51', 95, 2)],
    [{ kind: 'unanswered', id: 'a2', at: time(99) }],
  );
  assert.equal(exchanges.length, 1);
  const [exchange] = exchanges;
  assert.deepEqual(
    [exchange?.sentAtMs, exchange?.answeredAtMs, exchange?.responseCode, exchange?.request.attempt],
    [startMs, startMs + 90, '00', 1],
  );
});

test('quantiles are values that occurred', () => {
  const values = Array.from({ length: 1000 }, (_, index) => index + 1);
  assert.deepEqual(
    [0.5, 0.99, 0.999, 1, 0].map((quantile) => quantileOf(values, quantile)),
    [500, 990, 999, 1000, 1],
  );
  assert.deepEqual([quantileOf([], 0.5), quantileOf([7], 0.999)], [0, 7]);
});
