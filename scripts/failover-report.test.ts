import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readArguments } from './failover-drill.ts';
import {
  checkLines,
  checksOf,
  faults,
  headLine,
  medianOf,
  runLine,
  summaryLines,
  type FailoverRun,
  type FinalFindings,
} from './failover-report.ts';

const nothing = { approvals: 1000, missing: 0, doubled: 0, contradicted: 0 };
const final: FinalFindings = { quorum: nothing, local: nothing, wrongBalances: 0, wrongLocalBalances: 3 };

function run(changes: Partial<FailoverRun> = {}): FailoverRun {
  return {
    run: 1,
    target: 'n1',
    groups: ['a', 'config'],
    firstApprovalMs: 700,
    gapMs: 720,
    othersGapMs: 40,
    returnGapMs: 90,
    returnedMs: 4000,
    requests: 8000,
    beyondDeadline: 0,
    inoperative: 0,
    failedAttempts: 0,
    faultyAnswers: 0,
    latenciesMs: Array.from({ length: 1000 }, (_, index) => index / 10),
    ownersChanged: [],
    quorum: nothing,
    local: nothing,
    adopted: 0,
    voided: 0,
    compared: 'equal',
    ...changes,
  };
}

/** The claims that a drill of these runs does not keep. */
function failed(...[fault, runs, found]: Parameters<typeof checksOf>): readonly string[] {
  return checksOf(fault, runs, found)
    .filter(({ good }) => !good)
    .map(({ claim }) => claim);
}

test('a drill in which everything is as asked for passes, whatever the fault', () => {
  for (const fault of faults) assert.deepEqual(failed(fault, [run(), run()], final), [], fault);
});

test('a drill without runs passes nothing', () => {
  for (const fault of faults) assert.ok(failed(fault, [], final).includes('runs were made'), fault);
});

const failures: readonly (readonly [
  claim: string,
  fault: (typeof faults)[number],
  changes: Partial<FailoverRun>,
  failed: string,
])[] = [
  [
    'a first approval after 1.5 s',
    'kill',
    { firstApprovalMs: 1500 },
    'fault to first approval, every run below 1500 ms',
  ],
  [
    'no approval at all',
    'kill-broker',
    { firstApprovalMs: undefined },
    'fault to first approval, every run below 1500 ms',
  ],
  ['a request that got 91 in a drain', 'drain', { inoperative: 1 }, 'requests answered 91, attempts without an answer'],
  ['a lost connection in a drain', 'drain', { failedAttempts: 1 }, 'requests answered 91, attempts without an answer'],
  ['a stop that lets requests wait', 'stop', { latenciesMs: [1, 2, 3300] }, 'p99.9 of every run below 1500 ms'],
  ['a slow drain', 'drain', { latenciesMs: [1, 2, 250] }, 'p99.9 of every run below 250 ms'],
  ['an owner that moved when a broker died', 'broker', { ownersChanged: ['b'] }, 'groups whose owner or term changed'],
  ['a lost approval', 'kill', { quorum: { ...nothing, missing: 1 } }, '`quorum` approvals that some node lacks'],
  [
    'a doubled approval of a `local` range',
    'kill',
    { local: { ...nothing, doubled: 1 } },
    'approvals doubled, or recorded otherwise than answered',
  ],
  [
    'an approval recorded otherwise',
    'kill',
    { quorum: { ...nothing, contradicted: 1 } },
    'approvals doubled, or recorded otherwise than answered',
  ],
  [
    'more missing `local` approvals than void ones',
    'kill',
    { local: { ...nothing, missing: 3 }, voided: 2 },
    'runs in which `local` approvals are missing that were not voided',
  ],
  ['a request out of time', 'stop', { beyondDeadline: 1 }, 'requests without an answer within their deadline'],
  ['a contradicting answer', 'kill', { faultyAnswers: 1 }, 'faulty or contradicting answers'],
  ['copies that differ', 'broker', { compared: 'different' }, 'runs after which copies were not equal'],
  ['copies that could not be judged', 'broker', { compared: 'inconclusive' }, 'runs after which copies were not equal'],
];
for (const [claim, fault, changes, expected] of failures) {
  test(`${claim} fails the drill`, () => {
    assert.deepEqual(failed(fault, [run(), run(), run(changes)], final), [expected]);
  });
}

test('the median of the first approvals has its own limit', () => {
  const slow = run({ firstApprovalMs: 900 });
  assert.deepEqual(failed('kill', [slow, slow, run()], final), ['fault to first approval, median below 900 ms']);
  assert.deepEqual(failed('kill', [slow, run(), run()], final), []);
});

test('void `local` approvals that are missing are no failure, nor are balances of `local` cards', () => {
  assert.deepEqual(failed('kill', [run({ local: { ...nothing, missing: 2 }, voided: 2 })], final), []);
});

test('what is found at the end over all runs counts, too', () => {
  const wrong = { ...final, quorum: { ...nothing, missing: 1 }, wrongBalances: 1 };
  assert.deepEqual(failed('kill', [run()], wrong), [
    'the same at the end, over all runs',
    'wrong balances of cards of `quorum` ranges at the end',
  ]);
});

test('the lines of a drill make a table of at most 120 columns, with median and most', () => {
  for (const fault of faults) {
    const runs = [run(), run({ firstApprovalMs: undefined, gapMs: 12_345 })];
    const lines = [headLine(fault), ...runs.map((each) => runLine(fault, each)), ...summaryLines(fault, runs)];
    for (const line of lines) assert.ok(line.length <= 120 && line.length === headLine(fault).length, line);
  }
  const [median, most] = summaryLines('kill', [run(), run({ firstApprovalMs: undefined })]);
  assert.match(median ?? '', /^ +med +never +720 /);
  assert.match(most ?? '', /^ +most +never +720 /);
  assert.deepEqual(checkLines([{ claim: 'x', measured: '3', good: false }]), ['FAILED x: 3']);
});

test('a median of an even number of values is the mean of the middle two', () => {
  assert.deepEqual([medianOf([9, 1, 5]), medianOf([4, 1, 2, 9]), medianOf([Infinity, 1])], [5, 3, Infinity]);
});

test('the command line takes a fault, and refuses what it does not know', () => {
  assert.deepEqual(
    readArguments(['--fault', 'kill-broker', '--runs', '20', '--seed', '7', '--target', 'n2', '--json']),
    {
      fault: 'kill-broker',
      runs: 20,
      rate: 500,
      seed: 7,
      target: 'n2',
      json: true,
      keep: undefined,
    },
  );
  assert.equal(readArguments(['--help']), 'help');
  for (const args of [[], ['--fault', 'flood'], ['--fault', 'kill', '--runs', '0'], ['--fault', 'kill', '--bogus']]) {
    assert.throws(() => readArguments(args), /--fault takes|--runs takes|--bogus/);
  }
});
