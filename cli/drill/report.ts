import { maskCardData } from '../../base/pan.ts';
import { ascending, medianOf } from '../../base/statistics.ts';
import type { DrillKind, Expectation } from './fault.ts';
import type { DrillRun, FinalFindings } from './figures.ts';
import { doubleApprovals, localLost } from './limits.ts';
import type { Check, Conditions, LimitSet } from './limits.ts';

/** A drill's result, and its text. JSON is the same object; HTML is in html.ts. */
export interface DrillReport {
  readonly drill: DrillKind;
  /** What was said beyond the kind: `with its broker`, `out only`. */
  readonly variant: string;
  readonly expectation: Expectation;
  readonly cluster: string;
  /** Whether the drill started the cluster itself. */
  readonly ownCluster: boolean;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly seed: number;
  readonly conditions: Conditions;
  readonly limits: { readonly set: LimitSet; readonly text: string };
  readonly runs: readonly DrillRun[];
  readonly final: FinalFindings;
  readonly checks: readonly Check[];
  readonly passed: boolean;
  /** Where the acquirers' journals are; undefined: they went with the drill's own cluster. */
  readonly journals: string | undefined;
}

export function reportJson(report: DrillReport): string {
  // Nothing in a report comes from a card, and should something do so, it is masked.
  return maskCardData(JSON.stringify(report, undefined, 2));
}

interface Column {
  readonly head: string;
  readonly cell: (run: DrillRun) => string;
  /** What median and maximum are taken of; absent: the column has none. */
  readonly value?: (run: DrillRun) => number;
}

const figure = (head: string, value: (run: DrillRun) => number): Column => ({
  head,
  cell: (run) => text(value(run)),
  value,
});

const moved = figure('moved', ({ ownersChanged }) => ownersChanged.length);
const rto = figure('RTO', ({ firstApprovalMs }) => firstApprovalMs ?? Infinity);
const outage: readonly Column[] = [
  figure('gap', ({ gapMs }) => gapMs),
  figure('others', ({ othersGapMs }) => othersGapMs ?? Number.NaN),
  figure('return', ({ returnGapMs }) => returnGapMs),
  figure('back', ({ returnedMs }) => returnedMs),
];
const ofExpectation: Readonly<Record<Expectation, readonly Column[]>> = {
  takeover: [rto, ...outage],
  'site-takeover': [rto, ...outage],
  none: [rto, ...outage],
  undisturbed: [moved, ...outage],
  unnoticed: [moved, figure('failed', ({ failedAttempts }) => failedAttempts), ...outage.slice(0, 2)],
};

function columnsOf(expectation: Expectation): readonly Column[] {
  return [
    { head: 'run', cell: ({ run }) => String(run) },
    ...ofExpectation[expectation],
    figure('p99', ({ latencyMs }) => latencyMs.p99),
    figure('p99.9', ({ latencyMs }) => latencyMs.p999),
    figure('max', ({ latencyMs }) => latencyMs.maximum),
    figure('91', ({ inoperative }) => inoperative),
    figure('late', ({ lateAnswers }) => lateAnswers),
    figure('overdue', ({ beyondDeadline }) => beyondDeadline),
    figure('lost', ({ quorum }) => quorum.missing),
    figure('double', doubleApprovals),
    figure('local lost', localLost),
    { head: 'compare', cell: ({ compared }) => compared },
  ];
}

export const legend = `milliseconds: RTO = fault to first approval; gap = longest time without one, of the cards concerned, of others, while
everything returns; back = until it has; p99, p99.9, max = latency from the fault until then. Counts: late = answers
after the acquirer had gone elsewhere; overdue = requests without an answer within their deadline; lost = answered
\`quorum\` approvals that some node lacks (RPO); double = approvals given or recorded twice; local lost =
\`local\` approvals that a later owner did not have, which must be void; moved = owners changed`;

/** Cells are right-aligned under their heads, so that lines printed one by one make a table. */
function line(expectation: Expectation, cellOf: (column: Column, position: number) => string): string {
  return columnsOf(expectation)
    .map((column, position) => cellOf(column, position).padStart(Math.max(column.head.length, 5)))
    .join(' ');
}

export function headLine(expectation: Expectation): string {
  return line(expectation, ({ head }) => head);
}

export function runLine(expectation: Expectation, run: DrillRun): string {
  return line(expectation, ({ cell }) => cell(run));
}

/** The same as cells: heads, then runs. */
export function tableOf(expectation: Expectation, runs: readonly DrillRun[]): readonly (readonly string[])[] {
  const columns = columnsOf(expectation);
  return [columns.map(({ head }) => head), ...runs.map((run) => columns.map(({ cell }) => cell(run)))];
}

/** Median and maximum of every figure. */
export function summaryLines(expectation: Expectation, runs: readonly DrillRun[]): readonly string[] {
  const row = (name: string, of: (values: readonly number[]) => number): string =>
    line(expectation, ({ value }, position) => {
      if (position === 0) return name;
      return value === undefined ? '' : text(of(runs.map(value)));
    });
  return [row('med', medianOf), row('most', (values) => ascending(values).at(-1) ?? Infinity)];
}

export function checkLines(checks: readonly Check[]): readonly string[] {
  return checks.map(({ claim, measured, good }) => `${good ? 'ok    ' : 'FAILED'} ${claim}: ${measured}`);
}

/** `kill of n1 under 500 requests/s`. */
export function titleOf({ drill, variant, runs, conditions }: DrillReport): string {
  const target = runs[0]?.target ?? '';
  const what = `${drill} of ${target}${variant === '' ? '' : `, ${variant}`}`;
  return `${what}, under ${conditions.rate} requests/s, ${runs.length} ${runs.length === 1 ? 'run' : 'runs'}`;
}

/** What comes after the lines of the runs. */
export function closingLines(report: DrillReport): readonly string[] {
  const { expectation, runs, checks, limits, passed, journals } = report;
  return [
    ...(runs.length > 1 ? summaryLines(expectation, runs) : []),
    `limits: ${limits.text}`,
    ...checkLines(checks),
    ...(journals === undefined ? [] : [`acquirers' journals and data: ${journals}`]),
    passed ? 'PASSED' : 'FAILED',
  ];
}

export function reportText(report: DrillReport): string {
  const { expectation, runs, startedAt, seed, cluster, ownCluster } = report;
  return [
    titleOf(report),
    `${startedAt}, seed ${seed}, cluster "${cluster}"${ownCluster ? ', started by the drill' : ''}`,
    legend,
    headLine(expectation),
    ...runs.map((run) => runLine(expectation, run)),
    ...closingLines(report),
    '',
  ].join('\n');
}

function text(value: number): string {
  if (Number.isNaN(value)) return '-';
  return Number.isFinite(value) ? String(Math.round(value)) : 'never';
}
