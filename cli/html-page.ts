import { maskCardData } from '../base/pan.ts';

/** A report as one page that needs nothing else: no script, no font, no picture from elsewhere. */
export function htmlPage(title: string, heading: string, body: string): string {
  return maskCardData(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Quadrant: ${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeHtml(heading)}</h1>
${body}
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

export function escapeHtml(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
