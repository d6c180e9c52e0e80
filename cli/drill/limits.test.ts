import assert from 'node:assert/strict';
import { test } from 'node:test';

import { medianOf } from '../../base/statistics.ts';
import type { Expectation } from './fault.ts';
import type { DrillRun } from './figures.ts';
import { checksOf, limitsText } from './limits.ts';
import { goodEnd, goodRun, noContradictions, nothingWrong } from './testing.ts';

const expectations: readonly Expectation[] = ['takeover', 'site-takeover', 'undisturbed', 'unnoticed', 'none'];

/** The claims that a drill of these runs does not keep. */
function failed(...[expectation, set, runs, final]: Parameters<typeof checksOf>): readonly string[] {
  return checksOf(expectation, set, runs, final)
    .filter(({ good }) => !good)
    .map(({ claim }) => claim);
}

test('a drill in which everything is as asked for passes, whatever is expected of it', () => {
  for (const expectation of expectations) {
    assert.deepEqual(failed(expectation, 'table', [goodRun(), goodRun()], goodEnd), [], expectation);
  }
});

test('a drill without runs passes nothing', () => {
  for (const expectation of expectations) {
    assert.ok(failed(expectation, 'table', [], goodEnd).includes('runs were made'), expectation);
    assert.ok(failed(expectation, 'safety', [], goodEnd).includes('runs were made'), expectation);
  }
});

const failuresOfTime: readonly (readonly [Expectation, Partial<DrillRun>, failed: string])[] = [
  ['takeover', { firstApprovalMs: 1500 }, 'fault to first approval (RTO), every run below 1500 ms'],
  ['site-takeover', { firstApprovalMs: 2000 }, 'fault to first approval (RTO), every run below 2000 ms'],
  ['undisturbed', { ownersChanged: ['b'] }, 'groups whose owner or term changed'],
  ['undisturbed', { latencyMs: { p50: 1, p99: 2, p999: 3, maximum: 1000 } }, 'slowest answer below 1000 ms'],
  ['unnoticed', { latencyMs: { p50: 1, p99: 2, p999: 250, maximum: 260 } }, 'p99.9 of every run below 250 ms'],
  ['unnoticed', { latencyMs: { p50: 1, p99: 2, p999: 3, maximum: 1000 } }, 'slowest answer below 1000 ms'],
  ['none', { beyondDeadline: 1 }, 'requests without an answer within their deadline'],
];
for (const [expectation, changes, expected] of failuresOfTime) {
  test(`limits on times: ${JSON.stringify(changes)} fails a drill of kind "${expectation}", and not for safety alone`, () => {
    const runs = [goodRun(), goodRun(), goodRun(changes)];
    assert.deepEqual(failed(expectation, 'table', runs, goodEnd), [expected]);
    assert.deepEqual(failed(expectation, 'safety', runs, goodEnd), []);
  });
}

const cutOff = { requests: 100, inTime: 99, inPatience: 100, inoperative: 90, approved: 0 };
const failuresOfSafety: readonly (readonly [claim: string, Expectation, Partial<DrillRun>, failed: string])[] = [
  [
    'a lost approval',
    'takeover',
    { quorum: { ...nothingWrong, missing: 1 } },
    'answered `quorum` approvals that some node lacks (RPO)',
  ],
  ['an approval that is in a log twice', 'none', { local: { ...nothingWrong, doubled: 1 } }, 'double approvals'],
  [
    'a request that was approved twice',
    'undisturbed',
    { contradictions: { quorum: { approvedTwice: 1, others: 0 }, local: noContradictions } },
    'double approvals',
  ],
  [
    'an approval recorded otherwise',
    'none',
    { quorum: { ...nothingWrong, contradicted: 1 } },
    '`quorum` approvals recorded otherwise than answered, or declined as well',
  ],
  [
    'more missing `local` approvals than void ones',
    'takeover',
    { local: { ...nothingWrong, missing: 3 }, voided: 2 },
    'runs with more lost `local` approvals than void ones',
  ],
  ['an answer to nothing', 'takeover', { faultyAnswers: 1 }, 'unexpected answers: unasked, repeated or wrong'],
  ['copies that differ', 'undisturbed', { compared: 'different' }, 'runs after which copies were not equal'],
  [
    'copies that could not be judged',
    'undisturbed',
    { compared: 'inconclusive' },
    'runs after which copies were not equal',
  ],
  [
    'a request that failed in an upgrade',
    'unnoticed',
    { failedAttempts: 1 },
    'requests answered 91, attempts without an answer',
  ],
  [
    'a request that got 91 in an upgrade',
    'unnoticed',
    { inoperative: 1 },
    'requests answered 91, attempts without an answer',
  ],
  [
    'a disk that went back unnoticed',
    'takeover',
    { rebuilt: { expected: 1, noticed: 0 } },
    'disks that went back were noticed, their nodes made anew',
  ],
  ['an answer that never came', 'none', { unanswered: 1 }, 'requests that were given up, after all repeats'],
  [
    'a node that is cut off and does not say so',
    'none',
    { cutOff: { ...cutOff, inPatience: 99 } },
    "requests to what was cut off are answered within their deadline and the acquirer's patience",
  ],
  ['no approval at all', 'none', { firstApprovalMs: undefined }, 'runs in which no approval came after the fault'],
];
for (const [claim, expectation, changes, expected] of failuresOfSafety) {
  test(`${claim} fails the drill, without limits on times too`, () => {
    assert.deepEqual(failed(expectation, 'safety', [goodRun(), goodRun(changes)], goodEnd), [expected]);
  });
}

test('a node that is cut off has to answer within the deadline itself where times count', () => {
  assert.deepEqual(failed('takeover', 'table', [goodRun({ cutOff })], goodEnd), [
    'requests to what was cut off are answered within their deadline',
  ]);
  assert.deepEqual(failed('takeover', 'safety', [goodRun({ cutOff })], goodEnd), []);
});

test('the median of the first approvals has its own limit', () => {
  const slow = goodRun({ firstApprovalMs: 900 });
  assert.deepEqual(failed('takeover', 'table', [slow, slow, goodRun()], goodEnd), [
    'fault to first approval (RTO), median below 900 ms',
  ]);
  assert.deepEqual(failed('takeover', 'table', [slow, goodRun(), goodRun()], goodEnd), []);
  assert.deepEqual([medianOf([9, 1, 5]), medianOf([4, 1, 2, 9]), medianOf([Infinity, 1])], [5, 3, Infinity]);
});

test('void `local` approvals that are missing are no failure, nor are balances of `local` cards', () => {
  const run = goodRun({ local: { ...nothingWrong, missing: 2 }, voided: 2 });
  assert.deepEqual(failed('takeover', 'table', [run], goodEnd), []);
});

test('a `local` request that was decided anew by a later owner is no double approval as long as the first is void', () => {
  const twice = { quorum: noContradictions, local: { approvedTwice: 1, others: 0 } };
  const run = { contradictions: twice, local: { ...nothingWrong, contradicted: 1 } };
  assert.deepEqual(failed('none', 'table', [goodRun({ ...run, voided: 1 })], goodEnd), []);
  assert.deepEqual(failed('none', 'table', [goodRun({ ...run, voided: 0 })], goodEnd), [
    'runs with more lost `local` approvals than void ones',
  ]);
});

test('what is found at the end over all runs counts, too, and balances only where they are known', () => {
  const wrong = { ...goodEnd, quorum: { ...nothingWrong, missing: 1 }, wrongBalances: 1 };
  assert.deepEqual(failed('takeover', 'table', [goodRun()], wrong), [
    'the same at the end, over all runs',
    'cards of `quorum` ranges with wrong holds or postings at the end',
  ]);
  assert.deepEqual(failed('takeover', 'safety', [goodRun()], { ...goodEnd, undelivered: 1 }), [
    'approvals that edges could not have entered or taken back',
  ]);
  const unknown = { ...goodEnd, wrongBalances: undefined, wrongLocalBalances: undefined };
  assert.deepEqual(failed('takeover', 'table', [goodRun()], unknown), []);
});

test('a drill says which limits it applied, and how it differs from what they are meant for', () => {
  const meant = { rate: 500, runs: 20, sampleTimings: true };
  assert.equal(limitsText('table', meant), 'safety and times, as meant for 500 requests/s, 20 runs, sample timings');
  assert.match(
    limitsText('table', { rate: 100, runs: 1, sampleTimings: false }),
    /this was 100 requests\/s, 1 run, tim/,
  );
  assert.match(limitsText('safety', meant), /^safety only/);
});
