import { findingsOf, kindText, totalsOf, verdictOf, type CompareResult } from '../compare/report.ts';
import type { Difference, GroupResult } from '../compare/result.ts';
import { escapeHtml as text, htmlPage } from './html-page.ts';

/** Differences that the page lists: a browser has to show them. */
const maximumShown = 5_000;

/** A compare's report as one page: totals, a map of every table at every node, the differences. */
export function compareHtml(result: CompareResult, cluster: string): string {
  const { groups, compare, startedAt, durationMs } = result;
  const { rows, blocks, replyBytes, differences } = totalsOf(groups);
  const found = findingsOf(groups);
  const facts: readonly (readonly [string, string])[] = [
    ['cluster', cluster],
    ['compare', compare],
    ['begun', startedAt],
    ['took', `${(durationMs / 1_000).toFixed(1)} s`],
    ['rows', thousands(rows)],
    ['blocks', thousands(blocks)],
    ['bytes of answers', thousands(replyBytes)],
    ['differences', thousands(differences)],
  ];
  const more = differences - Math.min(found.length, maximumShown);
  return htmlPage(
    `compare ${compare}`,
    `Compare: ${verdictOf(groups)}`,
    `<table><tbody>${facts.map(([name, value]) => `<tr><td>${name}</td><td>${text(value)}</td></tr>`).join('\n')}</tbody></table>
<h2>Map</h2>
<p class="legend">For each group the mark at which its copies were held against each other; for each table its blocks, of
which those that differ are the right-hand part of the bar; for each node what its copy is.</p>
${groups.map(groupMap).join('\n')}
<h2>Differences</h2>
${found.length === 0 ? '<p>None.</p>' : `<table><thead><tr><th>node</th><th class="words">group, table, key</th><th class="words">what</th></tr></thead><tbody>${found.slice(0, maximumShown).map(differenceRow).join('\n')}</tbody></table>`}
${more > 0 ? `<p>And ${thousands(more)} more.</p>` : ''}`,
  );
}

function groupMap({ group, markIndex, markHash, ruleSetVersion, tables, outcomes }: GroupResult): string {
  const nodes = [...new Set(outcomes.map(({ node }) => node))];
  const head = ['table', 'rows', 'blocks', '', ...nodes].map((each) => `<th>${text(each)}</th>`).join('');
  const names = [...new Set(outcomes.map(({ table }) => table))];
  const rows = names.map((name) => {
    const table = tables.find((each) => each.table === name);
    const cells = nodes.map((node) => {
      const outcome = outcomes.find((each) => each.node === node && each.table === name);
      if (outcome === undefined) return '<td></td>';
      const title = outcome.outcome === 'inconclusive' ? `${outcome.reason}: ${outcome.message}` : outcome.outcome;
      return `<td class="${outcome.outcome === 'equal' ? 'good' : 'bad'}" title="${text(title)}">${outcome.outcome}</td>`;
    });
    const counts = [thousands(table?.rows ?? 0), thousands(table?.blocks ?? 0)].map((each) => `<td>${each}</td>`);
    const root = table?.evidence === undefined ? '' : `<br><span class="small">${table.evidence.root}</span>`;
    return `<tr><td>${text(name)}${root}</td>${counts.join('')}<td>${bar(table?.blocks ?? 0, table?.blocksThatDiffer ?? 0)}</td>${cells.join('')}</tr>`;
  });
  const marked =
    markHash === undefined
      ? ''
      : `<p class="small">log ${text(markHash)}${ruleSetVersion === undefined ? '' : `, rule set ${ruleSetVersion}`}</p>`;
  return `<h3>Group ${text(group)}, mark ${thousands(markIndex)}</h3>
${marked}
<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

function bar(blocks: number, unequal: number): string {
  const wide = 120;
  const bad = blocks === 0 ? 0 : Math.max(unequal === 0 ? 0 : 2, Math.round((wide * unequal) / blocks));
  return (
    `<svg viewBox="0 0 ${wide} 10" style="width:${wide}px;margin:0" role="img" aria-label="${unequal} of ${blocks} blocks differ">` +
    `<rect width="${wide - bad}" height="10" fill="var(--good)"/><rect x="${wide - bad}" width="${bad}" height="10" fill="var(--bad)"/></svg>`
  );
}

function differenceRow(difference: Difference): string {
  const key = Object.entries(difference.key)
    .map(([column, value]) => `${column}=${value}`)
    .join(' ');
  const columns =
    'columns' in difference
      ? difference.columns
          .map((each) => `${each.column}: here ${each.here}, right ${'others' in each ? each.others : each.expected}`)
          .map((line) => `<br><span class="small">${text(line)}</span>`)
          .join('')
      : '';
  return `<tr><td>${text(difference.node)}</td><td class="words">${text(`${difference.group} ${difference.table} ${key}`)}</td><td class="words">${text(kindText[difference.kind])}${columns}</td></tr>`;
}

function thousands(count: number): string {
  return count.toLocaleString('en-US');
}
