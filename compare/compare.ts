import type { Clock } from '../base/clock.ts';
import { maskCardData } from '../base/pan.ts';
import type { RewriteTopology } from '../config-db/rewrite.ts';
import type { EncodedKey } from '../store/canonical.ts';
import { leafRows } from '../store/merkle.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import { SideCaller, SideFailed } from './caller.ts';
import { compareLog, withFindings } from './compare-log.ts';
import { compareTable, ofEach, rowAsFound } from './compare-table.ts';
import { checkDerived, derivationTables, toNodeRow, type NodeConfiguration, type NodeRow } from './derived.ts';
import { Leaves } from './leaves.ts';
import type { CompareSide } from './protocol.ts';
import type { Difference, GroupResult, Inconclusive, Outcome, Recomputation, TableResult } from './result.ts';
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
  /** Hold the folds against a recomputation from the log's entries; about 30 s per million entries. Default false. */
  readonly recompute?: boolean;
  /** Make the Merkle root of every table. Default false. */
  readonly evidence?: boolean;
  /** Have SQLite look at every page of every copy, beside the rest; a few seconds per gigabyte. Default false. */
  readonly checkIntegrity?: boolean;
  /** Ends the compare when it is aborted: what has not been judged by then is inconclusive, with the signal's reason. */
  readonly stop?: AbortSignal;
  readonly onProgress?: (progress: GroupProgress) => void;
  /** Differences listed for each table; beyond them they are counted. Default 1,000. */
  readonly maximumListed?: number;
  /** Rows of a block, and of the blocks within one that differs. Default 4,096, 512, 64 and 8. */
  readonly blockSizes?: readonly number[];
}

/** Rows of a table that have been compared, or entries that have been applied to a fold made anew. */
export interface GroupProgress {
  readonly group: string;
  readonly doing: string;
  readonly rows: number;
  /** As far as it is known. */
  readonly of: number | undefined;
}

/**
 * Compares all copies of one group at one mark, and gives for each table and node whether its copy is equal to what
 * most copies have, different, or inconclusive with the reason. Never throws for what a side does or does not do.
 */
export async function compareGroup(options: CompareOptions): Promise<GroupResult> {
  const { compare, group, tables, clock, markIndex } = options;
  const sides = options.sides.map(
    (side) => new SideCaller(side, { compare, group }, clock, options.callTimeoutMs, options.stop),
  );
  await ofEach(sides, (side) => side.open(markIndex, formatOf(tables), options.openTimeoutMs));
  const markHash = await hashAt(sides, markIndex);
  // The answers are asked for at the end: the sides look while the rows are compared.
  if (options.checkIntegrity === true) await ofEach(sides, (side) => side.integrity());
  const outcomes: Outcome[] = [];
  const results: TableResult[] = [];
  const alive = new KeptAlive(sides, options);
  let recomputed: Recomputed | undefined;
  for (const table of tables) {
    const holders = sides.filter(({ holds }) => table.throughApplied || holds === 'log-and-fold');
    if (options.recompute === true && !table.throughApplied) {
      recomputed ??= await recompute(withGoodLogs(sides, results), options, alive);
    }
    const expected = table.throughApplied ? undefined : recomputed?.side;
    const { result, alone } = await compareAmong(holders, table, expected, alive, options);
    results.push(result);
    for (const side of holders)
      outcomes.push({ node: side.node, table: table.name, ...outcomeOf(side, result, alone) });
  }
  const checkedPages = options.checkIntegrity === true ? await integrityOf(sides, options) : undefined;
  const damages = [
    ...sides.flatMap(({ node, failure, failedAt }) =>
      failure?.reason === 'damaged' ? [{ node, table: failedAt ?? 'log', message: failure.message }] : [],
    ),
    ...(checkedPages?.damages ?? []),
  ];
  const nodes = sides.filter(({ holds }) => holds === 'log-and-fold');
  const derived =
    options.topology === undefined
      ? { tables: results, outcomes }
      : withDerived(results, outcomes, await derivedOf(nodes, options, options.topology), options);
  const checked = withDamages(derived, damages, checkedPages?.unchecked ?? new Map(), options);
  await Promise.all(sides.map((side) => side.close()));
  const asked = recomputed?.side === undefined ? sides : [...sides, recomputed.side];
  const replyBytes = asked.reduce((sum, side) => sum + side.replyBytes, 0);
  return {
    group,
    markIndex,
    ...(markHash !== undefined && { markHash }),
    ...checked,
    ...(recomputed && { recomputation: recomputed.told }),
    replyBytes,
  };
}

/** Of the first side that can tell: the leader's, or else the next one's. */
async function hashAt(sides: readonly SideCaller[], index: number): Promise<string | undefined> {
  for (const side of sides) {
    const [found] = await ofEach(
      [side].filter(({ failure }) => failure === undefined),
      (each) => each.position(index),
    );
    if (found?.answer !== undefined) return found.answer;
  }
  return undefined;
}

const touchEveryMs = 15_000;

/** Sides that have nothing to do for long would take their snapshots for forgotten. */
class KeptAlive {
  readonly #sides: readonly SideCaller[];
  readonly #options: CompareOptions;
  #touchedMs: number;

  constructor(sides: readonly SideCaller[], options: CompareOptions) {
    this.#sides = sides;
    this.#options = options;
    this.#touchedMs = options.clock.monotonicMs();
  }

  touch(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#touchedMs < touchEveryMs) return;
    this.#touchedMs = nowMs;
    void ofEach(
      this.#sides.filter(({ failure }) => failure === undefined),
      (side) => side.position(this.#options.markIndex),
    );
  }
}

interface Recomputed {
  readonly side: SideCaller | undefined;
  readonly told: Recomputation;
}

/** What a log says is worth as much as the log: the tables begin with it. */
function withGoodLogs(sides: readonly SideCaller[], results: readonly TableResult[]): readonly SideCaller[] {
  const log = results.find(({ table }) => table === 'log');
  return log === undefined ? [] : sides.filter(({ node }) => !log.nodesThatDiffer.includes(node));
}

/**
 * Has one side make its fold anew, one that is not the reference if possible: that is the leader, which has enough to do.
 * A log that has been trimmed does not say how its fold came about: then it is another side's turn.
 */
async function recompute(
  sides: readonly SideCaller[],
  { group, markIndex, onProgress }: CompareOptions,
  alive: KeptAlive,
): Promise<Recomputed> {
  let message = 'no node has a log that was found good';
  const able = sides.filter(({ holds, failure }) => holds === 'log-and-fold' && failure === undefined);
  for (const side of [...able.slice(1), ...able.slice(0, 1)]) {
    const made = side.recomputed();
    try {
      for (;;) {
        const { through, done } = await made.recompute();
        alive.touch();
        onProgress?.({ group, doing: `making the fold anew at ${side.node}`, rows: through, of: markIndex });
        if (done) return { side: made, told: { node: side.node, entries: through } };
      }
    } catch (error) {
      if (!(error instanceof SideFailed)) throw error;
      ({ message } = error);
    }
  }
  return { side: undefined, told: { node: undefined, message } };
}

interface Damage {
  readonly node: string;
  readonly table: string;
  readonly message: string;
}

const integrityPollMs = 250;

/** What the sides have found in their files' pages, and why some could not say. */
async function integrityOf(
  sides: readonly SideCaller[],
  { tables, clock }: CompareOptions,
): Promise<{ readonly damages: readonly Damage[]; readonly unchecked: ReadonlyMap<string, Inconclusive> }> {
  const standing = sides.filter(({ failure }) => failure === undefined);
  const answers = await ofEach(standing, async (side) => {
    for (;;) {
      const faults = await side.integrity();
      if (faults !== undefined) return faults;
      await new Promise<void>((resolve) => {
        clock.after(integrityPollMs, resolve);
      });
    }
  });
  const names = tables.map(({ name }) => name).sort((one, other) => other.length - one.length);
  const damages = answers.flatMap(({ side, answer }) =>
    answer.map((message) => {
      const table = names.find((name) => message.includes(name)) ?? 'log';
      return { node: side.node, table, message };
    }),
  );
  const unchecked = standing.flatMap(({ node, failure }) => (failure === undefined ? [] : [[node, failure] as const]));
  return { damages, unchecked: new Map(unchecked) };
}

function withDamages(
  { tables, outcomes, ...rest }: Pick<GroupResult, 'tables' | 'outcomes' | 'ruleSetVersion'>,
  damages: readonly Damage[],
  unchecked: ReadonlyMap<string, Inconclusive>,
  { group, maximumListed = 1_000 }: CompareOptions,
): Pick<GroupResult, 'tables' | 'outcomes' | 'ruleSetVersion'> {
  const of = (table: string): readonly Damage[] => damages.filter((each) => each.table === table);
  return {
    ...rest,
    tables: tables.map((result) =>
      withFindings(
        result,
        of(result.table).map((damage): Difference => ({ ...damage, group, key: {}, kind: 'damaged' })),
        maximumListed,
      ),
    ),
    outcomes: outcomes.map((outcome): Outcome => {
      const { node, table } = outcome;
      if (of(table).some((each) => each.node === node)) return { node, table, outcome: 'different' };
      const why = unchecked.get(node);
      return why === undefined || outcome.outcome !== 'equal'
        ? outcome
        : { node, table, outcome: 'inconclusive', ...why };
    }),
  };
}

const noOtherCopy: Inconclusive = { reason: 'no-other-copy', message: 'no other copy could be read' };

/** Begins anew, with what was found so far dropped, whenever the reference fails: its blocks are all the others have. */
async function compareAmong(
  holders: readonly SideCaller[],
  table: TableSpecification,
  expected: SideCaller | undefined,
  alive: KeptAlive,
  options: CompareOptions,
): Promise<{ readonly result: TableResult; readonly alone: boolean }> {
  for (;;) {
    const sides = holders.filter(({ failure }) => failure === undefined);
    if (sides.length < 2) return { result: emptyResult(table.name), alone: true };
    const leaves = options.evidence === true ? new Leaves() : undefined;
    try {
      const asked = {
        group: options.group,
        table,
        sides,
        blockSizes: options.blockSizes ?? [leafRows, 512, 64, 8],
        maximumListed: options.maximumListed ?? 1_000,
        leaves,
        onRows: (rows: number): void => {
          alive.touch();
          const of = table.throughApplied ? options.markIndex : undefined;
          options.onProgress?.({ group: options.group, doing: `comparing ${table.name}`, rows, of });
        },
      };
      const result = table.throughApplied
        ? await compareLog(asked, options.verifyChain ?? true)
        : await compareTable({ ...asked, chain: undefined, expected });
      return { result: leaves === undefined ? result : { ...result, evidence: leaves.evidence() }, alone: false };
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
  readonly ruleSetVersion?: number;
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
  const versions = answers.flatMap(({ answer }) =>
    answer.tables.rewrite_rule_set.map(({ key }) => Number(key[0]?.slice(1))),
  );
  return { differences, unchecked, ...(versions.length > 0 && { ruleSetVersion: Math.max(...versions) }) };
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
  { differences, unchecked, ruleSetVersion }: DerivedFindings,
  options: CompareOptions,
): Pick<GroupResult, 'tables' | 'outcomes' | 'ruleSetVersion'> {
  const maximumListed = options.maximumListed ?? 1_000;
  const derivedIn = (table: string): readonly Difference[] => differences.filter((each) => each.table === table);
  const rewritten = new Set(
    options.tables.filter(({ derivedColumns }) => derivedColumns.length > 0).map(({ name }) => name),
  );
  return {
    ...(ruleSetVersion !== undefined && { ruleSetVersion }),
    tables: results.map((result) => withFindings(result, derivedIn(result.table), maximumListed)),
    outcomes: outcomes.map((outcome): Outcome => {
      const { node, table } = outcome;
      if (derivedIn(table).some((each) => each.node === node)) return { node, table, outcome: 'different' };
      const inconclusive = rewritten.has(table) ? unchecked.get(node) : undefined;
      if (inconclusive === undefined || outcome.outcome !== 'equal') return outcome;
      return { node, table, outcome: 'inconclusive', ...inconclusive };
    }),
  };
}
