import { showValue } from '../store/canonical.ts';
import { ofEach, type SideCaller } from './caller.ts';
import { compareTable, rowAsFound, wrongVotes, type LogStretch, type TableOptions } from './compare-table.ts';
import type { Difference, TableResult } from './result.ts';

interface LogOptions {
  readonly markIndex: number;
  readonly verifyChain: boolean;
  /** Entries up to this index are left out. */
  readonly since: number;
}

/**
 * The log of all sides. Each has trimmed its own up to some entry, its base; so it is compared in stretches from base
 * to base, each among the sides that have it. What only one side still has is held against its own hash chain; and all
 * chains must come to the same hash wherever one of them begins, so that a trimmed copy stands on the same history.
 * What has been trimmed everywhere is judged by nothing but the folds.
 */
export async function compareLog(
  options: Omit<TableOptions, 'chain' | 'range' | 'even'>,
  { markIndex, verifyChain, since }: LogOptions,
): Promise<TableResult> {
  const { sides, maximumListed } = options;
  const bases = [...new Set(sides.map(({ base }) => Math.max(base, since)))].sort((one, other) => one - other);
  let total: TableResult | undefined;
  for (const [at, base] of bases.entries()) {
    const stretch: LogStretch = { after: base, through: bases[at + 1] };
    const holders = sides.filter((side) => side.base <= base);
    const listed = total?.differences.length ?? 0;
    const result = await compareTable({
      ...options,
      sides: holders,
      maximumListed: maximumListed - listed,
      chain: verifyChain ? stretch : undefined,
      range: rangeOf(stretch),
      even: { from: base, through: stretch.through ?? markIndex },
    });
    total = total === undefined ? result : joined(total, result);
    if (base === 0) continue;
    total = withFindings(total, await unequalPositions(options, holders, base, total), maximumListed);
    const beginning = holders.filter((side) => side.base === base);
    total = withFindings(total, await misplacedEntries(options, beginning, base), maximumListed);
  }
  if (total === undefined) throw new RangeError('a log is compared between sides');
  return total;
}

/** The first stretch of a log that was never trimmed has no lower bound: rows that nobody should have are found. */
function rangeOf({ after, through }: LogStretch): TableOptions['range'] & object {
  return {
    after: after === 0 ? null : [`i${after}`],
    through: through === undefined ? null : [`i${through}`],
  };
}

function joined(one: TableResult, other: TableResult): TableResult {
  return {
    table: other.table,
    reference: other.reference,
    rows: one.rows + other.rows,
    blocks: one.blocks + other.blocks,
    blocksThatDiffer: one.blocksThatDiffer + other.blocksThatDiffer,
    differences: [...one.differences, ...other.differences],
    unlisted: one.unlisted + other.unlisted,
    nodesThatDiffer: [...new Set([...one.nodesThatDiffer, ...other.nodesThatDiffer])],
  };
}

/** Sides that have another hash at the index than the others, as differences of that entry. */
async function unequalPositions(
  { group, table }: Pick<TableOptions, 'group' | 'table'>,
  holders: readonly SideCaller[],
  index: number,
  found: TableResult,
): Promise<Difference[]> {
  const answers = await ofEach(holders, (side) => side.position(index));
  if (answers.length < 2) return [];
  const broken = new Set(found.differences.flatMap(({ kind, node }) => (kind === 'broken-chain' ? [node] : [])));
  const { right, wrong } = wrongVotes(
    answers.map(({ side, answer }) => ({ side, digest: answer })),
    broken,
  );
  return wrong
    .filter(
      ({ side }) => !found.differences.some(({ node, key }) => node === side.node && key['log_index'] === `${index}`),
    )
    .map(({ side, digest }) => {
      const place = { node: side.node, group, table: table.name, key: { log_index: String(index) } };
      if (digest === undefined) return { ...place, kind: 'missing-here' };
      const columns = [{ column: 'hash', here: shown(digest), others: shown(right.digest) }];
      return { ...place, kind: 'columns-differ', columns };
    });
}

/** Entries that stand where these sides have trimmed everything: nothing says what they follow from. */
async function misplacedEntries(
  { group, table }: Pick<TableOptions, 'group' | 'table'>,
  sides: readonly SideCaller[],
  base: number,
): Promise<Difference[]> {
  const answers = await ofEach(sides, (side) => side.rows(table.name, [{ after: null, through: [`i${base}`] }]));
  return answers.flatMap(({ side, answer }) =>
    (answer[0]?.rows ?? []).map(({ key, digest }): Difference => {
      const place = {
        ...rowAsFound({ key, here: digest, right: null, sources: [] }),
        node: side.node,
        group,
        table: table.name,
        key: { log_index: showValue('log_index', key[0] ?? 'n') },
      };
      return { ...place, kind: 'broken-chain' };
    }),
  );
}

/** Enough of a hash to see that two differ. */
function shown(hash: string | undefined): string {
  return hash === undefined ? 'absent' : `'${hash.slice(0, 16)}…'`;
}

/** The result with these differences besides its own. */
export function withFindings(total: TableResult, findings: readonly Difference[], maximumListed: number): TableResult {
  const all = [...total.differences, ...findings];
  const differences = all.slice(0, maximumListed);
  return {
    ...total,
    differences,
    unlisted: total.unlisted + all.length - differences.length,
    nodesThatDiffer: [...new Set([...total.nodesThatDiffer, ...findings.map(({ node }) => node)])],
  };
}
