import { maskCardData } from '../../base/pan.ts';
import { medianOf } from '../../base/statistics.ts';
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
  return maskCardData(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Quadrant: ${text(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${text(title)}: ${text(verdict)}</h1>
${reports.length > 1 ? overview(reports) : ''}
<p class="legend">${text(legend)}</p>
${reports.map(section).join('\n')}
</body>
</html>
`);
}

const style = `
:root { color-scheme: light dark; --ink: #1c2733; --pale: #6b7885; --line: #d5dbe1; --paper: #fff; --good: #1d7f4e; --bad: #b3261e; --one: #2563a8; --two: #d97706; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --pale: #93a1b0; --line: #3a4651; --paper: #14191f; --good: #58c08b; --bad: #f2857c; --one: #6fa8e6; --two: #f0a94b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .7rem 0; }
.wide { overflow-x: auto; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.words, th.words { text-align: left; white-space: normal; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.legend, .small { color: var(--pale); font-size: .85rem; }
svg { width: 100%; height: auto; margin: .5rem 0; } svg text { fill: var(--pale); font-size: 11px; }
svg .grid { stroke: var(--line); } svg .limit { stroke: var(--bad); stroke-dasharray: 5 4; }
svg .mark { stroke: var(--pale); stroke-dasharray: 2 3; } svg .bar { fill: var(--one); }
svg .run { fill: none; stroke: var(--one); stroke-opacity: .45; } svg .median { fill: none; stroke: var(--two); stroke-width: 1.5; }
`;

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

function text(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
