import { ascending, medianOf } from '../../base/statistics.ts';
import type { Expectation } from './fault.ts';
import type { DrillRun, Findings, FinalFindings } from './figures.ts';

/** What is asked of a drill, and whether it was so. Pure. */

/** table: safety and times. safety: no limits on times, for a machine that is busy with other things. */
export const limitSets = ['table', 'safety'] as const;
export type LimitSet = (typeof limitSets)[number];

export interface Check {
  readonly claim: string;
  readonly measured: string;
  readonly good: boolean;
}

/** The conditions under which the limits on times are meant. */
export const tableConditions = { rate: 500, runs: 20 } as const;

/** Milliseconds. */
const takeover = { median: 900, every: 1_500 } as const;
const siteTakeover = 2_000;
const slowestUndisturbed = 1_000;
const upgrade = { p999: 250, slowest: 1_000 } as const;

export interface Conditions {
  readonly rate: number;
  readonly runs: number;
  /** Whether nodes.yaml has the sample's timings. */
  readonly sampleTimings: boolean;
}

/** Which limits were applied, and whether the conditions were those that they are meant for. */
export function limitsText(set: LimitSet, { rate, runs, sampleTimings }: Conditions): string {
  if (set === 'safety') return 'safety only: no limits were applied to times, which are as seen';
  const meant = `${tableConditions.rate} requests/s, ${tableConditions.runs} runs, sample timings`;
  const others = [
    ...(rate === tableConditions.rate ? [] : [`${rate} requests/s`]),
    ...(runs === tableConditions.runs ? [] : [`${runs} ${runs === 1 ? 'run' : 'runs'}`]),
    ...(sampleTimings ? [] : ["timings that are not the sample's"]),
  ];
  if (others.length === 0) return `safety and times, as meant for ${meant}`;
  return `safety and times; the times' limits are meant for ${meant}, and this was ${others.join(', ')}`;
}

/** Given twice in a `quorum` range, or in a log twice in any. */
export function doubleApprovals({ quorum, local, contradictions }: DrillRun): number {
  return quorum.doubled + local.doubled + contradictions.quorum.approvedTwice;
}

/**
 * Approvals of `local` ranges that the log does not have as they were answered. A later owner that had not received them
 * may have decided anew, and the acquirer have seen both; then the first is void, and only then it is no failure (R9).
 */
export function localLost({ local, contradictions }: DrillRun): number {
  const otherwise = Math.max(local.contradicted, contradictions.local.approvedTwice + contradictions.local.others);
  return local.missing + otherwise;
}

/** A drill without runs passes nothing. */
export function checksOf(
  expectation: Expectation,
  set: LimitSet,
  runs: readonly DrillRun[],
  final: FinalFindings,
): readonly Check[] {
  const sum = (count: (run: DrillRun) => number): number => runs.reduce((total, run) => total + count(run), 0);
  const none = (claim: string, count: number): Check => ({ claim, measured: String(count), good: count === 0 });
  const wrong = ({ missing, doubled, contradicted }: Findings): number => missing + doubled + contradicted;
  const unexplained = runs.filter((run) => localLost(run) > 0 && localLost(run) > run.voided).length;
  return [
    { claim: 'runs were made', measured: String(runs.length), good: runs.length > 0 },
    ...ofService(expectation, runs, sum).filter(({ ofTimes }) => set === 'table' || !ofTimes),
    ...ofCutOff(runs, sum, set),
    ...ofRebuilt(sum),
    none(
      'answered `quorum` approvals that some node lacks (RPO)',
      sum(({ quorum }) => quorum.missing),
    ),
    none('double approvals', sum(doubleApprovals)),
    none(
      '`quorum` approvals recorded otherwise than answered, or declined as well',
      sum(({ quorum, contradictions }) => quorum.contradicted + contradictions.quorum.others),
    ),
    none('the same at the end, over all runs', wrong(final.quorum) + final.local.doubled),
    ...(final.wrongBalances === undefined
      ? []
      : [none('cards of `quorum` ranges with wrong holds or postings at the end', final.wrongBalances)]),
    none('approvals that edges could not have entered or taken back', final.undelivered),
    none('runs with more lost `local` approvals than void ones', unexplained),
    set === 'table'
      ? none(
          'requests without an answer within their deadline',
          sum(({ beyondDeadline }) => beyondDeadline),
        )
      : none(
          'requests that were given up, after all repeats',
          sum(({ unanswered }) => unanswered),
        ),
    none(
      'unexpected answers: unasked, repeated or wrong',
      sum(({ faultyAnswers }) => faultyAnswers),
    ),
    none('runs after which copies were not equal', runs.filter(({ compared }) => compared !== 'equal').length),
  ].map(({ claim, measured, good }) => ({ claim, measured, good }));
}

type TimedCheck = Check & { readonly ofTimes: boolean };

function ofService(
  expectation: Expectation,
  runs: readonly DrillRun[],
  sum: (count: (run: DrillRun) => number) => number,
): readonly TimedCheck[] {
  const below = (claim: string, value: number, limitMs: number): TimedCheck => ({
    claim: `${claim} below ${limitMs} ms`,
    measured: Number.isFinite(value) ? `${Math.round(value)} ms` : 'never',
    good: value < limitMs,
    ofTimes: true,
  });
  const most = (value: (run: DrillRun) => number): number => ascending(runs.map(value)).at(-1) ?? Infinity;
  const first = runs.map(({ firstApprovalMs }) => firstApprovalMs ?? Infinity);
  const never = first.filter((atMs) => !Number.isFinite(atMs)).length;
  const resumed: TimedCheck = {
    claim: 'runs in which no approval came after the fault',
    measured: String(never),
    good: never === 0,
    ofTimes: false,
  };
  switch (expectation) {
    case 'takeover':
      return [
        resumed,
        below('fault to first approval (RTO), median', medianOf(first), takeover.median),
        below('fault to first approval (RTO), every run', ascending(first).at(-1) ?? Infinity, takeover.every),
      ];
    case 'site-takeover':
      return [
        resumed,
        below('fault to first approval (RTO), every run', ascending(first).at(-1) ?? Infinity, siteTakeover),
      ];
    case 'undisturbed': {
      const changed = sum(({ ownersChanged }) => ownersChanged.length);
      return [
        // On a busy machine owners change because threads do not get their turn: that is a matter of times, too.
        { claim: 'groups whose owner or term changed', measured: String(changed), good: changed === 0, ofTimes: true },
        below(
          'slowest answer',
          most(({ latencyMs }) => latencyMs.maximum),
          slowestUndisturbed,
        ),
      ];
    }
    case 'unnoticed': {
      const errors = sum(({ inoperative, failedAttempts, unanswered }) => inoperative + failedAttempts + unanswered);
      return [
        {
          claim: 'requests answered 91, attempts without an answer',
          measured: String(errors),
          good: errors === 0,
          ofTimes: false,
        },
        below(
          'p99.9 of every run',
          most(({ latencyMs }) => latencyMs.p999),
          upgrade.p999,
        ),
        below(
          'slowest answer',
          most(({ latencyMs }) => latencyMs.maximum),
          upgrade.slowest,
        ),
      ];
    }
    case 'none':
      return [resumed];
  }
}

/** A node that is cut off says so in time. */
function ofCutOff(
  runs: readonly DrillRun[],
  sum: (count: (run: DrillRun) => number) => number,
  set: LimitSet,
): readonly Check[] {
  if (runs.every(({ cutOff }) => cutOff === undefined)) return [];
  const strict = set === 'table';
  const asked = sum(({ cutOff }) => cutOff?.requests ?? 0);
  const inTime = sum(({ cutOff }) => (strict ? cutOff?.inTime : cutOff?.inPatience) ?? 0);
  const inoperative = sum(({ cutOff }) => cutOff?.inoperative ?? 0);
  return [
    {
      claim: `requests to what was cut off are answered within their deadline${strict ? '' : " and the acquirer's patience"}`,
      measured: `${inTime} of ${asked}, ${inoperative} of them 91`,
      good: asked > 0 && inTime === asked,
    },
  ];
}

/** Disks that went back were noticed. */
function ofRebuilt(sum: (count: (run: DrillRun) => number) => number): readonly Check[] {
  const expected = sum(({ rebuilt }) => rebuilt.expected);
  const noticed = sum(({ rebuilt }) => rebuilt.noticed);
  if (expected === 0) return [];
  return [
    {
      claim: 'disks that went back were noticed, their nodes made anew',
      measured: `${noticed} of ${expected}`,
      good: noticed === expected,
    },
  ];
}
