import { medianOf } from '../../base/statistics.ts';
import { escapeHtml as text, htmlPage } from '../html-page.ts';
import type { Expectation } from './fault.ts';
import type { DrillRun } from './figures.ts';
import { legend, tableOf, titleOf } from './report.ts';
import type { DrillReport } from './report.ts';

/** Reports as one page that needs nothing else: plots are inline SVG, and there is no script. */
export function reportHtml(reports: readonly DrillReport[]): string {
  const [first] = reports;
  const failed = reports.filter(({ passed }) => !passed).length;
  const title = reports.length === 1 && first !== undefined ? titleOf(first) : `${reports.length} drills`;
  const verdict = failed === 0 ? 'passed' : `${failed} of ${reports.length} failed`;
  return htmlPage(
    title,
    `${title}: ${verdict}`,
    `${reports.length > 1 ? overview(reports) : ''}
<p class="legend">${text(legend)}</p>
${reports.map(section).join('\n')}`,
  );
}

function overview(reports: readonly DrillReport[]): string {
  const rows = reports.map((report, index) => {
    const failures = report.checks.filter(({ good }) => !good).map(({ claim, measured }) => `${claim}: ${measured}`);
    const rto = report.runs.map(({ firstApprovalMs }) => firstApprovalMs ?? Infinity);
    return (
      `<tr><td class="words"><a href="#d${index + 1}">${text(titleOf(report))}</a></td>` +
      `<td>${ms(medianOf(rto))}</td><td>${ms(Math.max(...rto))}</td>` +
      `<td class="${report.passed ? 'good' : 'bad'} words">${text(report.passed ? 'passed' : failures.join('; '))}</td></tr>`
    );
  });
  return (
    '<table><thead><tr><th>drill</th><th>RTO median, ms</th><th>most</th><th class="words">verdict</th></tr></thead>' +
    `<tbody>${rows.join('\n')}</tbody></table>`
  );
}

function section(report: DrillReport, index: number): string {
  const { expectation, runs, checks, limits, startedAt, seed, cluster, ownCluster, passed } = report;
  const [head = [], ...rows] = tableOf(expectation, runs);
  const cells = (row: readonly string[], tag: 'th' | 'td'): string =>
    `<tr>${row.map((cell) => `<${tag}>${text(cell)}</${tag}>`).join('')}</tr>`;
  return `<section id="d${index + 1}">
<h2>${text(titleOf(report))}: <span class="${passed ? 'good' : 'bad'}">${passed ? 'passed' : 'failed'}</span></h2>
<p class="small">${text(startedAt)}, seed ${seed}, cluster “${text(cluster)}”${ownCluster ? ', started by the drill' : ''}.
Limits: ${text(limits.text)}.</p>
<table><tbody>
${checks.map(({ claim, measured, good }) => `<tr><td class="words">${text(claim)}</td><td>${text(measured)}</td><td class="${good ? 'good' : 'bad'}">${good ? 'ok' : 'FAILED'}</td></tr>`).join('\n')}
</tbody></table>
<h3>Longest time without an approval of the cards concerned, by run</h3>
${gapPlot(runs, expectation)}
<h3>Latency around the fault</h3>
${latencyPlot(runs)}
<div class="wide"><table><thead>${cells(head, 'th')}</thead><tbody>${rows.map((row) => cells(row, 'td')).join('\n')}</tbody></table></div>
</section>`;
}

// ---- plots -----------------------------------------------------------------------------------------------------------

const width = 960;
const left = 56;
const right = 12;

/** Milliseconds that a gap must stay below, where the drill has a limit for that. */
const limitOf: Readonly<Record<Expectation, number | undefined>> = {
  takeover: 1_500,
  'site-takeover': 2_000,
  undisturbed: 1_000,
  unnoticed: 1_000,
  none: undefined,
};

function gapPlot(runs: readonly DrillRun[], expectation: Expectation): string {
  const height = 180;
  const bottom = 24;
  const limit = limitOf[expectation];
  const top = roundUp(Math.max(...runs.map(({ gapMs }) => gapMs), limit ?? 0, 1));
  const y = (value: number): number => round(height - bottom - (value / top) * (height - bottom - 10));
  const step = (width - left - right) / Math.max(1, runs.length);
  const bars = runs.map(({ run, gapMs }, index) => {
    const x = round(left + index * step + step * 0.15);
    const bar = `<rect class="bar" x="${x}" y="${y(gapMs)}" width="${round(Math.min(step * 0.7, 60))}" height="${round(y(0) - y(gapMs))}"><title>run ${run}: ${Math.round(gapMs)} ms</title></rect>`;
    return `${bar}<text x="${x}" y="${height - 8}">${run}</text>`;
  });
  return svg(height, 'longest gap by run', [
    ...yAxis([0, top / 2, top], y, (value) => `${Math.round(value)} ms`),
    ...bars,
    ...(limit === undefined ? [] : [`<path class="limit" d="M${left} ${y(limit)}H${width - right}"/>`]),
  ]);
}

/** Slowest answer of each slice, one line for each run, and the median run's median answer; logarithmic. */
function latencyPlot(runs: readonly DrillRun[]): string {
  const height = 260;
  const bottom = 28;
  const times = runs.flatMap(({ slices }) => slices.map(({ atMs }) => atMs));
  if (times.length === 0) return '<p class="small">No answers.</p>';
  const fromMs = Math.min(...times);
  const toMs = Math.max(...times, fromMs + 1);
  const most = Math.max(10, ...runs.flatMap(({ slices }) => slices.map(({ maximumMs }) => maximumMs ?? 0)));
  const decades = Math.ceil(Math.log10(most));
  const x = (atMs: number): number => round(left + ((atMs - fromMs) / (toMs - fromMs)) * (width - left - right));
  const y = (value: number): number =>
    round(height - bottom - (Math.log10(Math.max(1, value)) / decades) * (height - bottom - 10));
  const path = (name: string, points: readonly (readonly [number, number | undefined])[]): string => {
    let pen = 'M';
    let d = '';
    for (const [atMs, value] of points) {
      // Nothing was answered: the line has a hole there.
      if (value === undefined) pen = 'M';
      else {
        d += `${pen}${x(atMs)} ${y(value)}`;
        pen = 'L';
      }
    }
    return `<path class="${name}" d="${d}"/>`;
  };
  const [longest] = [...runs].sort((one, other) => other.slices.length - one.slices.length);
  const medians = (longest?.slices ?? []).map(({ atMs }): readonly [number, number | undefined] => {
    const values = runs.flatMap(({ slices }) => slices.find((slice) => slice.atMs === atMs)?.p50Ms ?? []);
    return [atMs, values.length === 0 ? undefined : medianOf(values)];
  });
  const seconds = ticks(fromMs / 1000, toMs / 1000);
  const rows = Array.from({ length: decades + 1 }, (_, exponent) => 10 ** exponent);
  return (
    svg(height, 'latency over time around the fault', [
      ...yAxis(rows, y, (value) => `${value} ms`),
      ...seconds.map((at) => `<text x="${x(at * 1000)}" y="${height - 8}">${at} s</text>`),
      `<path class="mark" d="M${x(0)} 6V${height - bottom}"/><text x="${x(0) + 4}" y="14">fault</text>`,
      ...runs.map(({ slices }) =>
        path(
          'run',
          slices.map(({ atMs, maximumMs }) => [atMs, maximumMs]),
        ),
      ),
      path('median', medians),
    ]) +
    '<p class="small">By time of sending. Blue: the slowest answer of each slice of time, one line for each run. ' +
    'Orange: the median answer, median over the runs. The scale is logarithmic.</p>'
  );
}

function svg(height: number, label: string, parts: readonly string[]): string {
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">\n${parts.join('\n')}\n</svg>`;
}

function yAxis(
  values: readonly number[],
  y: (value: number) => number,
  name: (value: number) => string,
): readonly string[] {
  return values.map(
    (value) =>
      `<path class="grid" d="M${left} ${y(value)}H${width - right}"/>` +
      `<text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${name(value)}</text>`,
  );
}

/** Whole seconds for an axis, some eight of them. */
function ticks(from: number, to: number): readonly number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((each) => (to - from) / each <= 9) ?? 1_000;
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, index) => first + index * step);
}

/** The next of 1, 2, 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((each) => each * power >= value) ?? 10) * power;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function ms(value: number): string {
  return Number.isFinite(value) ? String(Math.round(value)) : 'never';
}
