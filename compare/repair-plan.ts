import { hash } from 'node:crypto';

import { SwitchError } from '../base/errors.ts';
import type { EncodedKey } from '../store/canonical.ts';
import type { Difference, GroupResult, RowAsFound } from './result.ts';

/** One row of one copy as it is to be, and as it was found. */
export interface RepairStep {
  readonly node: string;
  readonly group: string;
  readonly table: string;
  readonly key: EncodedKey;
  /** For people, card data masked. */
  readonly shown: string;
  readonly kind: 'put' | 'delete' | 'derive';
  readonly found: string | null;
  readonly right: string | null;
  /** Nodes to take the row from, the first that answers; of `put` only. */
  readonly sources: readonly string[];
  /** No copy has the right row: it is taken from a fold that the source makes anew from its log. */
  readonly recomputed?: true;
  /** What changes, as the report shows it; none where a row comes or goes whole. */
  readonly columns: readonly { readonly column: string; readonly here: string; readonly right: string }[];
}

/** What cannot be mended row by row: the node's copy of the group has to be made anew. */
export interface RebuildOffer {
  readonly node: string;
  readonly group: string;
  readonly reason: string;
}

export interface RepairPlan {
  readonly repair: string;
  readonly compare: string;
  readonly steps: readonly RepairStep[];
  readonly rebuild: readonly RebuildOffer[];
}

/** Whose rows are right, when it is not to be what the report found: an operator's word, to be confirmed. */
export interface RepairChoice {
  readonly source?: string;
  /** The one copy that differs is right, and the others are overwritten. */
  readonly reverse?: boolean;
}

/**
 * What a report asks to be changed. The same report and choice give the same plan under the same name, so that a repair
 * which was killed goes on where it was. Throws REPAIR_REFUSED where the choice names no copy, or one whose log's hash
 * chain does not verify.
 */
export function planRepair(compare: string, groups: readonly GroupResult[], choice: RepairChoice = {}): RepairPlan {
  const named = choice.source === undefined && choice.reverse !== true ? '' : JSON.stringify(choice);
  const steps: RepairStep[] = [];
  const rebuild: RebuildOffer[] = [];
  for (const group of groups) {
    for (const { table, differences, unlisted, nodesThatDiffer } of group.tables) {
      const byKey = new Map<string, (Difference & { readonly row: RowAsFound })[]>();
      for (const difference of differences) {
        const { node, row } = difference;
        const offer = (reason: string): void => {
          rebuild.push({ node, group: group.group, reason });
        };
        if (difference.kind === 'damaged') offer(`its file is damaged: ${difference.message}`);
        else if (row === undefined) {
          const follows =
            difference.kind === 'broken-chain' &&
            differences.some((other) => other.node === node && other.row !== undefined);
          if (difference.kind !== 'broken-chain') offer(`a row of ${table} has a key that no report may name`);
          else if (!follows) offer(`its log's hash chain is broken, and no other copy tells what the entry was`);
        } else if (difference.kind === 'derived-differs') steps.push(stepOf(difference, row, 'derive'));
        else if (difference.kind === 'wrong-fold' && row.right !== null && row.sources.length === 0) {
          const node = group.recomputation?.node;
          if (node === undefined) offer(`a row of ${table} is in no copy what the log adds up to`);
          else steps.push({ ...stepOf(difference, row, 'put'), sources: [node], recomputed: true });
        } else {
          const key = JSON.stringify(row.key);
          byKey.set(key, [...(byKey.get(key) ?? []), { ...difference, row }]);
        }
      }
      for (const found of byKey.values()) steps.push(...stepsOfKey(group, table, found, choice));
      if (unlisted > 0) {
        const reason = `${unlisted} more differences of ${table} than the report lists`;
        rebuild.push(...nodesThatDiffer.map((node) => ({ node, group: group.group, reason })));
      }
    }
  }
  const unique = [...new Map(rebuild.map((each) => [`${each.node} ${each.group}`, each])).values()];
  return { repair: `r${hash('sha256', `${compare}${named}`, 'hex').slice(0, 16)}`, compare, steps, rebuild: unique };
}

type Found = Difference & { readonly row: RowAsFound };

function stepsOfKey(
  group: GroupResult,
  table: string,
  found: readonly Found[],
  { source, reverse }: RepairChoice,
): readonly RepairStep[] {
  const [first] = found;
  if (first === undefined) return [];
  if (reverse === true && found.length > 1) {
    const nodes = found.map(({ node }) => node).join(', ');
    throw refused(`--reverse: ${nodes} differ in the same row of ${table}; name one with --source`);
  }
  const chosen =
    source === undefined ? (reverse === true ? first : undefined) : found.find(({ node }) => node === source);
  if (chosen === undefined) {
    return found.map((each) => {
      const sources = source !== undefined && each.row.sources.includes(source) ? [source] : each.row.sources;
      return stepOf(each, { ...each.row, sources }, each.row.right === null ? 'delete' : 'put');
    });
  }
  if (table === 'log' && hasBrokenChain(group, chosen.node)) {
    throw refused(
      `the log of group ${group.group} at ${chosen.node} has a broken hash chain: nothing is taken from it`,
    );
  }
  const right = chosen.row.here;
  const kind = right === null ? 'delete' : 'put';
  const others = found.filter((each) => each !== chosen);
  const agreed = group.outcomes
    .filter((each) => each.table === table && each.outcome !== 'inconclusive')
    .map(({ node }) => node)
    .filter((node) => !found.some((each) => each.node === node));
  return [
    ...agreed.map((node) => stepOf({ ...chosen, node }, { ...chosen.row, here: chosen.row.right }, kind)),
    ...others.map((each) => stepOf(each, each.row, kind)),
  ].map((step) => ({ ...step, right, sources: right === null ? [] : [chosen.node], columns: [] }));
}

function hasBrokenChain({ tables }: GroupResult, node: string): boolean {
  return tables.some(({ differences }) =>
    differences.some((each) => each.kind === 'broken-chain' && each.node === node),
  );
}

function stepOf(difference: Difference, row: RowAsFound, kind: RepairStep['kind']): RepairStep {
  const { node, group, table, key } = difference;
  const columns =
    'columns' in difference
      ? difference.columns.map((each) => ({
          column: each.column,
          here: each.here,
          right: 'others' in each ? each.others : each.expected,
        }))
      : [];
  const shown = Object.entries(key)
    .map(([column, value]) => `${column}=${value}`)
    .join(' ');
  return {
    node,
    group,
    table,
    key: row.key,
    shown,
    kind,
    found: row.here,
    right: row.right,
    sources: row.sources,
    columns,
  };
}

function refused(message: string): SwitchError {
  return new SwitchError('REPAIR_REFUSED', message);
}
