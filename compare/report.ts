import type { Difference, GroupResult, Outcome } from './result.ts';

/** All groups of one compare. */
export interface CompareResult {
  readonly compare: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly durationMs: number;
  readonly groups: readonly GroupResult[];
}

/** different: something was found. inconclusive: nothing was, and not every copy could be judged. */
export type Verdict = 'equal' | 'different' | 'inconclusive';

export function verdictOf(groups: readonly GroupResult[]): Verdict {
  const outcomes = groups.flatMap((group) => group.outcomes);
  if (outcomes.some(({ outcome }) => outcome === 'different')) return 'different';
  // A compare of nothing proves nothing.
  return outcomes.length === 0 || outcomes.some(({ outcome }) => outcome === 'inconclusive') ? 'inconclusive' : 'equal';
}

/** Exit codes of `quadrant compare`; 1 is left for a compare that could not be made at all. */
export const exitCodes: Readonly<Record<Verdict, number>> = { equal: 0, different: 3, inconclusive: 4 };

/** The report for programs: complete, one JSON text. */
export function reportJson(result: CompareResult): string {
  const { groups, ...head } = result;
  return JSON.stringify({ ...head, verdict: verdictOf(groups), ...totalsOf(groups), groups }, undefined, 2);
}

interface Totals {
  readonly rows: number;
  readonly blocks: number;
  readonly replyBytes: number;
  readonly differences: number;
}

export function totalsOf(groups: readonly GroupResult[]): Totals {
  const tables = groups.flatMap((group) => group.tables);
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);
  return {
    rows: sum(tables.map(({ rows }) => rows)),
    blocks: sum(tables.map(({ blocks }) => blocks)),
    replyBytes: sum(groups.map(({ replyBytes }) => replyBytes)),
    differences: sum(tables.map(({ differences, unlisted }) => differences.length + unlisted)),
  };
}

/** Every difference that is listed, in the order of groups and tables. */
export function findingsOf(groups: readonly GroupResult[]): readonly Difference[] {
  return groups.flatMap((group) => group.tables.flatMap(({ differences }) => differences));
}

/** The report for a person. Lists up to `maximumPrinted` differences; the JSON report lists more. */
export function reportText(result: CompareResult, maximumPrinted = 50): string {
  const { groups } = result;
  const listed = findingsOf(groups);
  const { rows, blocks, replyBytes, differences } = totalsOf(groups);
  const more = differences - Math.min(listed.length, maximumPrinted);
  return [
    headline(verdictOf(groups), differences),
    `${thousands(rows)} rows in ${thousands(blocks)} blocks, ${thousands(replyBytes)} bytes of answers, ${(result.durationMs / 1_000).toFixed(1)} s`,
    '',
    ...columns([['group', 'mark', 'rows', 'blocks', 'bytes', 'result'], ...groups.map(groupLine)]),
    ...recomputationLines(groups),
    ...evidenceLines(groups),
    ...inconclusiveLines(groups),
    ...(listed.length === 0 ? [] : ['']),
    ...listed.slice(0, maximumPrinted).flatMap(differenceLines),
    ...(more > 0 ? [`and ${thousands(more)} more`] : []),
  ].join('\n');
}

function headline(verdict: Verdict, differences: number): string {
  switch (verdict) {
    case 'equal':
      return 'EQUAL: all copies agree.';
    case 'different':
      return `DIFFERENT: ${thousands(differences)} ${differences === 1 ? 'difference' : 'differences'}.`;
    case 'inconclusive':
      return 'INCONCLUSIVE: no difference was found, but not every copy could be judged.';
  }
}

function groupLine(group: GroupResult): string[] {
  const { rows, blocks, differences } = totalsOf([group]);
  const verdict = verdictOf([group]);
  const nodes = new Set(group.tables.flatMap(({ nodesThatDiffer }) => nodesThatDiffer));
  const inconclusive = new Set(
    group.outcomes.filter(({ outcome }) => outcome === 'inconclusive').map(({ node }) => node),
  );
  const notes = [
    ...(verdict === 'different' ? [`${thousands(differences)} at ${[...nodes].join(', ')}`] : []),
    ...(inconclusive.size > 0 ? [`${[...inconclusive].join(', ')} inconclusive`] : []),
  ];
  return [
    group.group,
    thousands(group.markIndex),
    thousands(rows),
    thousands(blocks),
    thousands(group.replyBytes),
    notes.length === 0 ? 'equal' : notes.join('; '),
  ];
}

/** What the folds were held against: nobody should take agreement of copies for more than it is. */
function recomputationLines(groups: readonly GroupResult[]): string[] {
  const lines = groups.flatMap(({ group, recomputation }) => {
    if (recomputation === undefined) return [];
    return recomputation.node === undefined
      ? [`group ${group}, fold not recomputed, copies held against each other only: ${recomputation.message}`]
      : [`group ${group}, fold recomputed from ${thousands(recomputation.entries)} entries at ${recomputation.node}`];
  });
  return lines.length === 0 ? [] : ['', ...lines];
}

function evidenceLines(groups: readonly GroupResult[]): string[] {
  const lines = groups.flatMap(({ group, markIndex, markHash, ruleSetVersion, tables }) => {
    const roots = tables.flatMap(({ table, rows, evidence }) =>
      evidence === undefined ? [] : [`  ${evidence.root}  ${table}, ${thousands(rows)} rows`],
    );
    if (roots.length === 0) return [];
    const rules = ruleSetVersion === undefined ? '' : `, rule set ${ruleSetVersion}`;
    return [`group ${group} at ${thousands(markIndex)}, log ${markHash ?? 'unknown'}${rules}; Merkle roots:`, ...roots];
  });
  return lines.length === 0 ? [] : ['', ...lines];
}

/** One line for each node and cause, with the tables it is about. */
function inconclusiveLines(groups: readonly GroupResult[]): string[] {
  const lines = groups.flatMap(({ group, outcomes }) => {
    const tables = new Map<string, string[]>();
    for (const outcome of outcomes) {
      if (outcome.outcome !== 'inconclusive') continue;
      const cause = describeInconclusive(outcome);
      tables.set(cause, [...(tables.get(cause) ?? []), outcome.table]);
    }
    return [...tables].map(([cause, names]) => `group ${group}, ${cause} (${names.join(', ')})`);
  });
  return lines.length === 0 ? [] : ['', ...lines];
}

function describeInconclusive(outcome: Extract<Outcome, { outcome: 'inconclusive' }>): string {
  return `${outcome.node} inconclusive, ${outcome.reason.replaceAll('-', ' ')}: ${outcome.message}`;
}

export const kindText: Readonly<Record<Difference['kind'], string>> = {
  'only-here': 'row only here',
  'missing-here': 'row missing here',
  'columns-differ': 'columns differ',
  'derived-differs': 'derived columns are not what the rules make',
  'wrong-fold': "row is not what the log's entries add up to",
  damaged: 'file damaged',
  'broken-chain': 'hash chain broken',
};

function differenceLines(difference: Difference): string[] {
  const key = Object.entries(difference.key).map(([column, value]) => `${column}=${value}`);
  const head = `${difference.node}  group ${difference.group}  ${difference.table}  ${key.join(' ')}  ${kindText[difference.kind]}`;
  switch (difference.kind) {
    case 'columns-differ':
      return [
        head,
        ...difference.columns.map(({ column, here, others }) => `    ${column}: here ${here}, others ${others}`),
      ];
    case 'damaged':
      return [head, `    ${difference.message}`];
    case 'wrong-fold':
    case 'derived-differs':
      return [
        head,
        ...difference.columns.map(({ column, here, expected }) => `    ${column}: here ${here}, expected ${expected}`),
      ];
    default:
      return [head];
  }
}

function thousands(count: number): string {
  return count.toLocaleString('en-US');
}

/** Cells padded so that columns stand below each other; all but the first and the last to the right. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, at) => {
        if (at === row.length - 1) return cell;
        return at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0);
      })
      .join('  '),
  );
}
