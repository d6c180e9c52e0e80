import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Exchange } from '../acquirer/outage.ts';
import { outageFigures } from './figures.ts';
import type { Concern, Moments } from './figures.ts';

const faultMs = Date.UTC(2026, 2, 1, 12);
const moments: Moments = { faultMs, doneMs: faultMs + 10, endedMs: faultMs + 5_000, returnedMs: faultMs + 8_000 };
const concern: Concern = {
  groups: ['a'],
  silent: [],
  cutOff: [],
  groupOfCard: new Map([
    [1, 'a'],
    [2, 'b'],
  ]),
  deadlineMs: 3_000,
  requestTimeoutMs: 4_000,
  afterwardsMs: 1_000,
};

/** Times are relative to the fault. */
function exchange(card: number, node: string, sentMs: number, answeredMs?: number, responseCode = '00'): Exchange {
  return {
    request: {
      kind: 'request',
      id: `${card}-${sentMs}`,
      attempt: 1,
      operation: 'purchase',
      mti: '0100',
      node,
      sentAt: new Date(faultMs + sentMs).toISOString(),
      card,
      pan: '',
      fields: {},
    },
    sentAtMs: faultMs + sentMs,
    answeredAtMs: answeredMs === undefined ? undefined : faultMs + answeredMs,
    responseCode: answeredMs === undefined ? undefined : responseCode,
  };
}

test('RTO counts from the fault to the first approval of what was sent since, for the cards concerned', () => {
  const figures = outageFigures(
    [
      exchange(1, 'n2', -500, -490),
      // Sent before, approved after: the owner that died may have done that.
      exchange(1, 'n2', 5, 20),
      exchange(2, 'n2', 50, 60),
      exchange(1, 'n2', 100, 730),
      exchange(1, 'n2', 4_000, 4_010),
    ],
    moments,
    concern,
  );
  assert.equal(figures.firstApprovalMs, 730);
  assert.equal(figures.gapMs, 3_280);
  assert.equal(figures.othersGapMs, 4_940);
  assert.equal(figures.returnedMs, 3_000);
  assert.deepEqual(figures.latencyMs, { p50: 10, p99: 630, p999: 630, maximum: 630 });
});

test('without an approval for one of the groups concerned there is no RTO; without other groups no gap of theirs', () => {
  const both = { ...concern, groups: ['a', 'b', 'config'] };
  const figures = outageFigures([exchange(1, 'n2', 100, 200), exchange(2, 'n2', 100, 200, '91')], moments, both);
  assert.deepEqual([figures.firstApprovalMs, figures.othersGapMs, figures.inoperative], [undefined, undefined, 1]);
});

test('what waited at a silent node is counted apart: it says nothing of the switch', () => {
  const exchanges = [exchange(1, 'n1', 100, 4_400), exchange(1, 'n2', 100, 3_500), exchange(1, 'n2', 200)];
  const figures = outageFigures(exchanges, moments, { ...concern, silent: ['n1'] });
  assert.deepEqual([figures.waitedAtSilentNode, figures.beyondDeadline], [1, 2]);
  assert.equal(outageFigures(exchanges, moments, concern).beyondDeadline, 3);
});

test('what is cut off is judged by its own answers, and its `local` approvals end no outage', () => {
  const exchanges = [
    exchange(1, 'n1', 100, 110),
    exchange(1, 'n1', 200, 3_210, '91'),
    exchange(2, 'n1', 300, 3_900, '91'),
    exchange(0, 'n1', 400, 410),
    exchange(1, 'n2', 100, 900),
  ];
  const figures = outageFigures(exchanges, moments, { ...concern, cutOff: ['n1'] });
  assert.deepEqual(figures.cutOff, { requests: 3, inTime: 2, inPatience: 3, inoperative: 2, approved: 1 });
  assert.equal(figures.firstApprovalMs, 900);
});

test('the time around the fault is cut into slices by sending, with holes where nothing was answered', () => {
  const { slices } = outageFigures(
    [exchange(1, 'n2', -2_950, -2_900), exchange(2, 'n2', -2_940, -2_930), exchange(1, 'n2', 20)],
    moments,
    concern,
  );
  assert.equal(slices.length, 120);
  assert.deepEqual(slices[0], { atMs: -3_000, requests: 2, approved: 1, p50Ms: 10, maximumMs: 50 });
  assert.deepEqual(slices[30], { atMs: 0, requests: 1, approved: 0, p50Ms: undefined, maximumMs: undefined });
  const hour = { ...moments, endedMs: faultMs + 3_600_000, returnedMs: faultMs + 3_600_000 };
  assert.ok(outageFigures([], hour, concern).slices.length <= 400);
});
