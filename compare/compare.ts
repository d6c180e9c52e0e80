import type { Clock } from '../base/clock.ts';
import { maskCardData } from '../base/pan.ts';
import type { RewriteTopology } from '../config-db/rewrite.ts';
import type { EncodedKey } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import { SideCaller, SideFailed } from './caller.ts';
import { compareLog } from './compare-log.ts';
import { compareTable, ofEach, rowAsFound } from './compare-table.ts';
import { checkDerived, derivationTables, toNodeRow, type NodeConfiguration, type NodeRow } from './derived.ts';
import type { CompareSide } from './protocol.ts';
import type { Difference, GroupResult, Inconclusive, Outcome, TableResult } from './result.ts';
import { formatOf } from './tables.ts';

export interface CompareOptions {
  /** Names the compare; the mark entry carries it, and so does every call. */
  readonly compare: string;
  readonly group: string;
  /** Index of the mark entry: where every side has pinned its snapshot. */
  readonly markIndex: number;
  /** The group's leader first: it sets the blocks, and its rows are right when votes are equal. */
  readonly sides: readonly CompareSide[];
  /** `tablesOf(group)`: what is compared; the witness takes part in `log`. */
  readonly tables: readonly TableSpecification[];
  /** For the `config` group: the derived columns of every node are held against the rules. */
  readonly topology: RewriteTopology | undefined;
  readonly clock: Clock;
  /** How long a side may take to reach the mark and to open its snapshot; for every other call. */
  readonly openTimeoutMs: number;
  readonly callTimeoutMs: number;
  /** Recompute every log entry's hash; about 1.5 s per million entries. Default true. */
  readonly verifyChain?: boolean;
  /** Differences listed for each table; beyond them they are counted. Default 1,000. */
  readonly maximumListed?: number;
  /** Rows of a block, and of the blocks within one that differs. Default 1,024 and 32. */
  readonly blockSizes?: readonly number[];
}

/**
 * Compares all copies of one group at one mark, and gives for each table and node whether its copy is equal to what
 * most copies have, different, or inconclusive with the reason. Never throws for what a side does or does not do.
 */
export async function compareGroup(options: CompareOptions): Promise<GroupResult> {
  const { compare, group, tables, clock, markIndex } = options;
  const sides = options.sides.map((side) => new SideCaller(side, { compare, group }, clock, options.callTimeoutMs));
  await ofEach(sides, (side) => side.open(markIndex, formatOf(tables), options.openTimeoutMs));
  const outcomes: Outcome[] = [];
  const results: TableResult[] = [];
  for (const table of tables) {
    const holders = sides.filter(({ holds }) => table.throughApplied || holds === 'log-and-fold');
    const { result, alone } = await compareAmong(holders, table, options);
    results.push(result);
    for (const side of holders)
      outcomes.push({ node: side.node, table: table.name, ...outcomeOf(side, result, alone) });
  }
  const nodes = sides.filter(({ holds }) => holds === 'log-and-fold');
  const checked =
    options.topology === undefined
      ? { tables: results, outcomes }
      : withDerived(results, outcomes, await derivedOf(nodes, options, options.topology), options);
  await Promise.all(sides.map((side) => side.close()));
  return { group, markIndex, ...checked, replyBytes: sides.reduce((sum, side) => sum + side.replyBytes, 0) };
}

const noOtherCopy: Inconclusive = { reason: 'no-other-copy', message: 'no other copy could be read' };

/** Begins anew, with what was found so far dropped, whenever the reference fails: its blocks are all the others have. */
async function compareAmong(
  holders: readonly SideCaller[],
  table: TableSpecification,
  options: CompareOptions,
): Promise<{ readonly result: TableResult; readonly alone: boolean }> {
  for (;;) {
    const sides = holders.filter(({ failure }) => failure === undefined);
    if (sides.length < 2) return { result: emptyResult(table.name), alone: true };
    try {
      const asked = {
        group: options.group,
        table,
        sides,
        blockSizes: options.blockSizes ?? [1_024, 32],
        maximumListed: options.maximumListed ?? 1_000,
      };
      const result = table.throughApplied
        ? await compareLog(asked, options.verifyChain ?? true)
        : await compareTable({ ...asked, chain: undefined });
      return { result, alone: false };
    } catch (error) {
      if (!(error instanceof SideFailed)) throw error;
    }
  }
}

function emptyResult(table: string): TableResult {
  return {
    table,
    reference: undefined,
    rows: 0,
    blocks: 0,
    blocksThatDiffer: 0,
    differences: [],
    unlisted: 0,
    nodesThatDiffer: [],
  };
}

type Judgement = { readonly outcome: 'equal' | 'different' } | ({ readonly outcome: 'inconclusive' } & Inconclusive);

function outcomeOf(side: SideCaller, result: TableResult, alone: boolean): Judgement {
  // What was found before the side failed stands.
  if (result.nodesThatDiffer.includes(side.node)) return { outcome: 'different' };
  if (side.failure !== undefined) return { outcome: 'inconclusive', ...side.failure };
  return alone ? { outcome: 'inconclusive', ...noOtherCopy } : { outcome: 'equal' };
}

interface DerivedFindings {
  readonly differences: readonly Difference[];
  /** Why nothing can be said of a node's derived columns. */
  readonly unchecked: ReadonlyMap<string, Inconclusive>;
}

async function derivedOf(
  nodes: readonly SideCaller[],
  { group, tables }: CompareOptions,
  topology: RewriteTopology,
): Promise<DerivedFindings> {
  const answers = await ofEach(
    nodes.filter(({ failure }) => failure === undefined),
    async (side): Promise<NodeConfiguration> => {
      return { node: side.node, tables: await readAll(side, tables) };
    },
  );
  const found = checkDerived(
    answers.map(({ answer }) => answer),
    topology,
  );
  const unchecked = new Map(
    nodes.flatMap(({ node, failure }) => (failure === undefined ? [] : [[node, failure] as const])),
  );
  if ('unreadable' in found) {
    const unreadable: Inconclusive = { reason: 'rules-unreadable', message: found.unreadable };
    return { differences: [], unchecked: new Map(nodes.map(({ node }) => [node, unchecked.get(node) ?? unreadable])) };
  }
  const differences = found.map(({ node, table, key, columns, here, expected }): Difference => {
    const keyColumns = tables.find(({ name }) => name === table)?.keyColumns ?? [];
    const shown = keyColumns.map((column, at) => [column, maskCardData(key[at]?.slice(1) ?? '')]);
    return {
      node,
      group,
      table,
      key: Object.fromEntries(shown) as Difference['key'],
      kind: 'derived-differs',
      columns,
      ...rowAsFound({ key, here, right: expected, sources: [] }),
    };
  });
  return { differences, unchecked };
}

async function readAll(side: SideCaller, tables: readonly TableSpecification[]): Promise<NodeConfiguration['tables']> {
  const read = async (name: string): Promise<NodeRow[]> => {
    const table = tables.find((each) => each.name === name);
    const rows: NodeRow[] = [];
    if (table === undefined) return rows;
    for (let after: EncodedKey | null = null; ;) {
      const reply: Awaited<ReturnType<SideCaller['derived']>> = await side.derived(name, after);
      rows.push(...reply.rows.map((row) => toNodeRow(table, row)));
      if (reply.done) return rows;
      after = reply.rows.at(-1)?.key ?? null;
    }
  };
  const found: [string, NodeRow[]][] = [];
  for (const name of derivationTables) found.push([name, await read(name)]);
  return Object.fromEntries(found) as unknown as NodeConfiguration['tables'];
}

/** Adds what the check of derived columns found to the tables' results and outcomes. */
function withDerived(
  results: readonly TableResult[],
  outcomes: readonly Outcome[],
  { differences, unchecked }: DerivedFindings,
  options: CompareOptions,
): Pick<GroupResult, 'tables' | 'outcomes'> {
  const maximumListed = options.maximumListed ?? 1_000;
  const derivedIn = (table: string): readonly Difference[] => differences.filter((each) => each.table === table);
  const rewritten = new Set(
    options.tables.filter(({ derivedColumns }) => derivedColumns.length > 0).map(({ name }) => name),
  );
  return {
    tables: results.map((result) => {
      const derived = derivedIn(result.table);
      const all = [...result.differences, ...derived];
      const listed = all.slice(0, maximumListed);
      const nodesThatDiffer = [...new Set([...result.nodesThatDiffer, ...derived.map(({ node }) => node)])];
      const unlisted = result.unlisted + all.length - listed.length;
      return { ...result, differences: listed, unlisted, nodesThatDiffer };
    }),
    outcomes: outcomes.map((outcome): Outcome => {
      const { node, table } = outcome;
      if (derivedIn(table).some((each) => each.node === node)) return { node, table, outcome: 'different' };
      const inconclusive = rewritten.has(table) ? unchecked.get(node) : undefined;
      if (inconclusive === undefined || outcome.outcome !== 'equal') return outcome;
      return { node, table, outcome: 'inconclusive', ...inconclusive };
    }),
  };
}
