import { quantileOf } from '../cli/acquirer/outage.ts';
import type { Verdict } from '../compare/report.ts';

/** What a failover drill measured, and what is asked of it. Pure: the drill itself is failover-drill.ts. */

export const faults = ['kill', 'kill-broker', 'stop', 'broker', 'drain'] as const;
export type Fault = (typeof faults)[number];

/** Approvals that some node lacks, has twice, or has otherwise than the acquirer was told. */
export interface Findings {
  readonly approvals: number;
  readonly missing: number;
  readonly doubled: number;
  readonly contradicted: number;
}

export interface FailoverRun {
  readonly run: number;
  readonly target: string;
  /** Groups whose cards are concerned. */
  readonly groups: readonly string[];
  /** From the fault to the first approval of a request sent since, in the group that waited longest. */
  readonly firstApprovalMs: number | undefined;
  /** Longest time without an approval from just before the fault until what was stopped is started again. */
  readonly gapMs: number;
  /** The same for the cards of the other groups. */
  readonly othersGapMs: number;
  /** Longest time without an approval of the cards concerned while ownership returned. */
  readonly returnGapMs: number;
  /** From the restart, or the end of the drain, until everything was as before. */
  readonly returnedMs: number;
  /** Over the whole run. */
  readonly requests: number;
  readonly beyondDeadline: number;
  readonly inoperative: number;
  /** Attempts that got no answer, and answers that were wrong in themselves or contradicted each other. */
  readonly failedAttempts: number;
  readonly faultyAnswers: number;
  /** From the fault until what was stopped is started again; of a drain, until ownership has returned. Sorted. */
  readonly latenciesMs: readonly number[];
  /** Groups whose owner or term is another than before the fault. */
  readonly ownersChanged: readonly string[];
  readonly quorum: Findings;
  readonly local: Findings;
  /** Of the answers of `local` ranges that nobody else had received. */
  readonly adopted: number;
  readonly voided: number;
  readonly compared: Verdict;
}

/** All journals against all nodes, at the end. */
export interface FinalFindings {
  readonly quorum: Findings;
  readonly local: Findings;
  /** Cards of `quorum` ranges whose balance is not what the journals add up to, over all nodes; and of `local` ones. */
  readonly wrongBalances: number;
  readonly wrongLocalBalances: number;
}

export interface Check {
  readonly claim: string;
  readonly measured: string;
  readonly good: boolean;
}

/** The figures. */
const medianFirstApprovalMs = 900;
const everyFirstApprovalMs = 1500;
const drainP999Ms = 250;

/** What is asked of a fault, and whether it was so. A drill without runs passes nothing. */
export function checksOf(fault: Fault, runs: readonly FailoverRun[], final: FinalFindings): readonly Check[] {
  const sum = (count: (run: FailoverRun) => number): number => runs.reduce((total, run) => total + count(run), 0);
  const none = (claim: string, count: number): Check => ({ claim, measured: String(count), good: count === 0 });
  const unequal = runs.filter(({ compared }) => compared !== 'equal').length;
  const unexplained = runs.filter(({ local, voided }) => local.missing > 0 && local.missing > voided).length;
  const wrong = ({ missing, doubled, contradicted }: Findings): number => missing + doubled + contradicted;
  return [
    { claim: 'runs were made', measured: String(runs.length), good: runs.length > 0 },
    ...ofFault(fault, runs, sum),
    none(
      '`quorum` approvals that some node lacks',
      sum(({ quorum }) => quorum.missing),
    ),
    none(
      'approvals doubled, or recorded otherwise than answered',
      sum(({ quorum, local }) => wrong({ ...quorum, missing: 0 }) + wrong({ ...local, missing: 0 })),
    ),
    none('the same at the end, over all runs', wrong(final.quorum) + wrong({ ...final.local, missing: 0 })),
    none('wrong balances of cards of `quorum` ranges at the end', final.wrongBalances),
    none('runs in which `local` approvals are missing that were not voided', unexplained),
    none(
      'requests without an answer within their deadline',
      sum(({ beyondDeadline }) => beyondDeadline),
    ),
    none(
      'faulty or contradicting answers',
      sum(({ faultyAnswers }) => faultyAnswers),
    ),
    none('runs after which copies were not equal', unequal),
  ];
}

function ofFault(
  fault: Fault,
  runs: readonly FailoverRun[],
  sum: (count: (run: FailoverRun) => number) => number,
): readonly Check[] {
  const below = (claim: string, value: number, limitMs: number): Check => ({
    claim: `${claim} below ${limitMs} ms`,
    measured: Number.isFinite(value) ? `${Math.round(value)} ms` : 'never',
    good: value < limitMs,
  });
  const worstP999 =
    runs.length === 0 ? Infinity : Math.max(...runs.map(({ latenciesMs }) => quantileOf(latenciesMs, 0.999)));
  switch (fault) {
    case 'kill':
    case 'kill-broker':
    case 'stop': {
      const first = runs.map(({ firstApprovalMs }) => firstApprovalMs ?? Infinity);
      return [
        below('fault to first approval, median', medianOf(first), medianFirstApprovalMs),
        below('fault to first approval, every run', sorted(first).at(-1) ?? Infinity, everyFirstApprovalMs),
        // A node that is told to end does not let requests wait for that.
        ...(fault === 'stop' ? [below('p99.9 of every run', worstP999, everyFirstApprovalMs)] : []),
      ];
    }
    case 'drain': {
      const errors = sum(({ inoperative, failedAttempts }) => inoperative + failedAttempts);
      return [
        below('p99.9 of every run', worstP999, drainP999Ms),
        { claim: 'requests answered 91, attempts without an answer', measured: String(errors), good: errors === 0 },
      ];
    }
    case 'broker': {
      const changed = sum(({ ownersChanged }) => ownersChanged.length);
      return [{ claim: 'groups whose owner or term changed', measured: String(changed), good: changed === 0 }];
    }
  }
}

interface Column {
  readonly head: string;
  readonly cell: (run: FailoverRun) => string;
  /** What median and maximum are taken of; absent: the column has none. */
  readonly value?: (run: FailoverRun) => number;
}

const figure = (head: string, value: (run: FailoverRun) => number): Column => ({
  head,
  cell: (run) => text(value(run)),
  value,
});

const beginning: readonly Column[] = [
  { head: 'run', cell: ({ run }) => String(run) },
  { head: 'node', cell: ({ target }) => target },
];
const ending: readonly Column[] = [
  figure('91', ({ inoperative }) => inoperative),
  figure('late', ({ beyondDeadline }) => beyondDeadline),
  figure('p99', ({ latenciesMs }) => quantileOf(latenciesMs, 0.99)),
  figure('p99.9', ({ latenciesMs }) => quantileOf(latenciesMs, 0.999)),
  figure('max', ({ latenciesMs }) => latenciesMs.at(-1) ?? 0),
  figure('lost', ({ quorum }) => quorum.missing),
  figure('doubled', ({ quorum, local }) => quorum.doubled + local.doubled),
  figure('local lost', ({ local }) => local.missing),
  { head: 'compare', cell: ({ compared }) => compared },
];
const first = figure('first', ({ firstApprovalMs }) => firstApprovalMs ?? Infinity);
const gap = figure('gap', ({ gapMs }) => gapMs);
const others = figure('others', ({ othersGapMs }) => othersGapMs);
const returning: readonly Column[] = [
  figure('return gap', ({ returnGapMs }) => returnGapMs),
  figure('back', ({ returnedMs }) => returnedMs),
];
const unanswered = figure('failed', ({ failedAttempts }) => failedAttempts);
const moved = figure('moved', ({ ownersChanged }) => ownersChanged.length);

/** What a line says of a run of this fault; everything is in the JSON. */
const columns: Readonly<Record<Fault, readonly Column[]>> = {
  kill: [...beginning, first, gap, others, ...returning, ...ending],
  'kill-broker': [...beginning, first, gap, others, ...returning, ...ending],
  stop: [...beginning, first, gap, others, ...returning, ...ending],
  broker: [...beginning, moved, gap, others, ...ending],
  drain: [...beginning, gap, ...returning, unanswered, ...ending],
};

export const legend = `milliseconds: first = fault to first approval; gap = longest time without one, of the cards concerned, of others,
while ownership returns; back = until it has; p99, p99.9, max = latency of requests sent from the fault until then`;

/** Cells are right-aligned under their heads, so that lines printed one by one make a table. */
function line(fault: Fault, cellOf: (column: Column, position: number) => string): string {
  return columns[fault]
    .map((column, position) => cellOf(column, position).padStart(Math.max(column.head.length, 5)))
    .join(' ');
}

export function headLine(fault: Fault): string {
  return line(fault, ({ head }) => head);
}

export function runLine(fault: Fault, run: FailoverRun): string {
  return line(fault, ({ cell }) => cell(run));
}

/** Median and maximum of every figure. */
export function summaryLines(fault: Fault, runs: readonly FailoverRun[]): readonly string[] {
  const row = (name: string, of: (values: readonly number[]) => number): string =>
    line(fault, ({ value }, position) => {
      if (position === 0) return name;
      return value === undefined ? '' : text(of(runs.map(value)));
    });
  return [row('med', medianOf), row('most', (values) => sorted(values).at(-1) ?? Infinity)];
}

export function checkLines(checks: readonly Check[]): readonly string[] {
  return checks.map(({ claim, measured, good }) => `${good ? 'ok    ' : 'FAILED'} ${claim}: ${measured}`);
}

function text(value: number): string {
  return Number.isFinite(value) ? String(Math.round(value)) : 'never';
}

/** Infinities, too: an owner that never came back. */
function sorted(values: readonly number[]): readonly number[] {
  return [...values].sort((one, other) => (one === other ? 0 : one < other ? -1 : 1));
}

/** Of an even number of values the mean of the two in the middle. */
export function medianOf(values: readonly number[]): number {
  const inOrder = sorted(values);
  const upper = inOrder[Math.floor(inOrder.length / 2)] ?? Infinity;
  return inOrder.length % 2 === 1 ? upper : ((inOrder[inOrder.length / 2 - 1] ?? Infinity) + upper) / 2;
}
