import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import type { Clock } from '../../base/clock.ts';
import { configGroup, groupId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { voters, type Topology } from '../../base/topology.ts';
import { compareGroup, type GroupProgress } from '../../compare/compare.ts';
import { packMessage } from '../../compare/packing.ts';
import { limits, type CompareSide } from '../../compare/protocol.ts';
import { exitCodes, reportJson, reportText, verdictOf, type CompareResult } from '../../compare/report.ts';
import type { GroupResult } from '../../compare/result.ts';
import type { LaterMark } from '../../compare/second-look.ts';
import { tablesOf } from '../../compare/tables.ts';
import type { TableSpecification } from '../../store/snapshot-reader.ts';
import { parseDurationMs, UsageError } from '../acquirer/usage.ts';
import type { CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import { keepCompare, loadCompare } from '../kept-compare.ts';
import { enterMark } from '../marks.ts';
import type { RunCommand } from '../run-command.ts';

const openTimeoutMs = 30_000;
const callTimeoutMs = 15_000;
const prepareTimeoutMs = 2_000;

/** What of the copies is compared, and what they are held against besides each other. */
export interface CompareScope {
  /** Only these processes' copies; default all. */
  readonly between?: readonly NodeId[];
  /** Only these tables; default all of each group. */
  readonly tables?: readonly string[];
  readonly recompute?: boolean;
  readonly checkIntegrity?: boolean;
  /** With the Merkle root of every table. */
  readonly evidence?: boolean;
  /** Ends the compare; what has not been judged by then is inconclusive. */
  readonly stop?: AbortSignal;
  /** Threads with which each process reads, and the load above which it waits. */
  readonly workers?: number;
  readonly maximumLoad?: number;
  /** Of the logs, only what comes after this index. */
  readonly since?: number;
  /** A compare that was cut off: groups of which it had judged every copy are taken over from it. */
  readonly resumed?: CompareResult;
}

/** Compares all copies of the named groups, or of every group that any process has. */
export async function compareCluster(
  bus: OperatorBus,
  context: Pick<CommandContext, 'clock' | 'random' | 'note'>,
  only: readonly string[] | undefined,
  scope: CompareScope = {},
): Promise<CompareResult> {
  const { clock, random } = context;
  const startedAt = new Date(clock.wallMs()).toISOString();
  const startedMs = clock.monotonicMs();
  const compare = `c${random.bytes(8).toString('hex')}`;
  const groups = await groupsOf(bus, only);
  const results: GroupResult[] = [];
  for (const group of groups) {
    const earlier = judgedBy(group, bus, scope);
    if (earlier !== undefined) {
      results.push(earlier);
      continue;
    }
    if (results.length > 0 && scope.stop?.aborted === true) {
      results.push(uncovered(group, scope.between ?? bus.processes, scope.stop));
      continue;
    }
    context.note(`comparing group ${group} (${results.length + 1} of ${groups.length}) ...`);
    results.push(await compareOne(bus, context, compare, group, scope));
  }
  return { compare, startedAt, durationMs: Math.round(clock.monotonicMs() - startedMs), groups: results };
}

/** What an earlier compare found of the group, if it came to the end with all that is asked for now. */
function judgedBy(group: GroupId, bus: OperatorBus, scope: CompareScope): GroupResult | undefined {
  const { resumed } = scope;
  const result = resumed?.groups.find((each) => each.group === group);
  if (resumed === undefined || result === undefined) return undefined;
  const judged = new Set(
    result.outcomes.flatMap(({ outcome, node, table }) => (outcome === 'inconclusive' ? [] : [`${node} ${table}`])),
  );
  const isJudged = (scope.between ?? bus.processes).every((node) =>
    tablesIn(group, scope.tables).every(
      ({ name, throughApplied }) => judged.has(`${node} ${name}`) || (!throughApplied && holdsLogOnly(bus, node)),
    ),
  );
  if (!isJudged || (scope.recompute === true && result.recomputation === undefined)) return undefined;
  return { ...result, earlier: result.earlier ?? { compare: resumed.compare, startedAt: resumed.startedAt } };
}

function tablesIn(group: GroupId, named: readonly string[] | undefined): readonly TableSpecification[] {
  return tablesOf(group).filter(({ name }) => named === undefined || named.includes(name));
}

function holdsLogOnly(bus: OperatorBus, node: NodeId): boolean {
  return bus.topology.witness?.id === node;
}

function uncovered(group: GroupId, processes: readonly NodeId[], stop: AbortSignal): GroupResult {
  const why = { outcome: 'inconclusive', reason: 'not-covered', message: describeError(stop.reason) } as const;
  const outcomes = processes.map((node) => ({ node, table: 'log', ...why }));
  return { group, markIndex: 0, tables: [], outcomes, replyBytes: 0 };
}

async function groupsOf(bus: OperatorBus, only: readonly string[] | undefined): Promise<readonly GroupId[]> {
  const statuses = await Promise.all(bus.processes.map((id) => bus.status(id)));
  const known = [...new Set(statuses.flatMap((status) => (status?.groups ?? []).map(({ name }) => name)))].sort();
  if (known.length === 0) throw new SwitchError('NODE_UNREACHABLE', 'no process of the cluster answers');
  const unknown = only?.find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new UsageError(`there is no group "${unknown}"; the cluster has ${known.join(', ')}`);
  return (only ?? known).map(groupId);
}

async function compareOne(
  bus: OperatorBus,
  { clock, note }: Pick<CommandContext, 'clock' | 'note'>,
  compare: string,
  group: GroupId,
  { between, tables: named, maximumLoad, workers = 1, resumed: _, ...scope }: CompareScope,
): Promise<GroupResult> {
  const processes = between ?? bus.processes;
  const prepare = { kind: 'prepare', compare, group, workers, ...(maximumLoad !== undefined && { maximumLoad }) };
  // Who does not answer is asked again, for its snapshot.
  await Promise.allSettled(processes.map((node) => bus.call(node, 'compare.call', prepare, prepareTimeoutMs)));
  const tables = tablesIn(group, named);
  let mark: { readonly index: number; readonly leader: string };
  try {
    mark = await enterMark(bus, group, compare);
  } catch (error) {
    // Without a mark there is no index at which copies must be equal: nothing can be said of this group.
    const message = describeError(error);
    const outcomes = processes.map(
      (node) => ({ node, table: 'log', outcome: 'inconclusive', reason: 'mark-not-reached', message }) as const,
    );
    return { group, markIndex: 0, tables: [], outcomes, replyBytes: 0 };
  }
  const leaderFirst = [...processes].sort((a, b) => Number(b === mark.leader) - Number(a === mark.leader));
  const laterMark = async (): Promise<LaterMark> => {
    const later = `${compare}.2`;
    const { index } = await enterMark(bus, group, later);
    return { compare: later, index, sides: processes.map((node) => sideOf(bus, node)) };
  };
  return compareGroup({
    laterMark,
    compare,
    group,
    markIndex: mark.index,
    sides: leaderFirst.map((node) => sideOf(bus, node)),
    tables,
    // The rules are held against rows of several tables together.
    topology: named === undefined ? bus.topology : undefined,
    clock,
    onProgress: progressNotes(clock, note),
    ...scope,
    workers,
    openTimeoutMs,
    callTimeoutMs,
  });
}

const noteEveryMs = 2_000;

/** A line every other second: what is being done, how fast, and how long what is known of it will still take. */
function progressNotes(clock: Clock, note: (line: string) => void): (progress: GroupProgress) => void {
  let last = { atMs: clock.monotonicMs(), doing: '', rows: 0 };
  return ({ group, doing, rows, of }) => {
    const atMs = clock.monotonicMs();
    if (doing !== last.doing) last = { ...last, doing, rows: 0 };
    if (atMs - last.atMs < noteEveryMs) return;
    const perSecond = ((rows - last.rows) * 1_000) / (atMs - last.atMs);
    last = { atMs, doing, rows };
    const left = of === undefined || perSecond <= 0 ? '' : `, ${Math.ceil((of - rows) / perSecond)} s left`;
    const total = of === undefined ? '' : ` of ${of.toLocaleString('en-US')}`;
    note(
      `group ${group}, ${doing}: ${rows.toLocaleString('en-US')}${total}, ${Math.round(perSecond).toLocaleString('en-US')}/s${left}`,
    );
  };
}

function sideOf(bus: OperatorBus, node: NodeId): CompareSide {
  return {
    node,
    holds: holdsLogOnly(bus, node) ? 'log' : 'log-and-fold',
    call: (call) => bus.call(node, 'compare.call', packMessage(call), openTimeoutMs),
  };
}

interface CompareFlags {
  readonly groups?: string;
  readonly between?: string;
  readonly tables?: string;
  readonly budget?: string;
  readonly workers?: string;
  readonly maxLoad?: string;
  readonly since?: string;
  readonly resume?: string;
  readonly recompute: boolean;
  readonly pages: boolean;
  readonly evidence?: boolean;
  readonly json?: boolean;
}

export function registerCompare(program: Command, run: RunCommand): void {
  program
    .command('compare')
    .description('proves that all copies of every log and fold are equal, and that derived columns follow the rules')
    .option('--groups <names>', 'only these groups, separated by commas')
    .option('--between <ids>', 'only the copies of these processes, two or more; the witness has logs only')
    .option('--tables <names>', 'only these tables, and no check of derived columns')
    .option('--budget <time>', 'ends after this time (90s, 30m, 2h) and says what was not covered')
    .option('--workers <n>', 'threads with which each process reads, 1 to 16; default 1')
    .option('--max-load <load>', 'each process waits while its load average for each processor is above this: 0.7')
    .option(
      '--since <index>',
      'of the logs only the entries after this index, and that all stand on the same one; folds whole',
    )
    .option(
      '--resume <report>',
      'goes on after a compare that was cut off: groups it had judged are taken over from it',
    )
    .option('--no-recompute', 'does not hold the folds against what the log entries add up to')
    .option('--no-pages', 'does not have SQLite look at every page of every copy')
    .option('--evidence', 'with the Merkle root of every table: see `quadrant audit root`')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nCtrl-C ends it: copies that were judged by then are reported, the others are inconclusive.' +
        '\nExit codes: 0 equal, 3 differences found, 4 some copy could not be judged, 1 failed',
    )
    .action((flags: CompareFlags) =>
      run(async (context) => {
        const tables = flags.tables?.split(',');
        const unknown = tables?.find((name) => !tableNames.has(name));
        if (unknown !== undefined) {
          throw new UsageError(`there is no table "${unknown}"; compared are ${[...tableNames].join(', ')}`);
        }
        const between = flags.between === undefined ? undefined : processesOf(context.topology(), flags.between);
        const stop = new AbortController();
        const onSignal = (): void => {
          context.note('ending ...');
          stop.abort(new Error('ended by the operator'));
        };
        const budget =
          flags.budget === undefined
            ? undefined
            : context.clock.after(parseDurationMs('--budget', flags.budget), () => {
                stop.abort(new Error(`the budget of ${flags.budget ?? ''} is spent`));
              });
        process.once('SIGINT', onSignal);
        try {
          const resumed = flags.resume === undefined ? undefined : loadCompare(context, flags.resume);
          const result = await context.withCluster(async (bus) => {
            const compared = await compareCluster(bus, context, flags.groups?.split(','), {
              ...(between && { between }),
              ...(tables && { tables }),
              recompute: flags.recompute,
              checkIntegrity: flags.pages,
              evidence: flags.evidence === true,
              stop: stop.signal,
              ...scopeOf(flags),
              ...(resumed && { resumed }),
            });
            await keepCompare(context, bus, compared);
            return compared;
          });
          context.print(flags.json === true ? reportJson(result) : reportText(result));
          return exitCodes[verdictOf(result.groups)];
        } finally {
          process.off('SIGINT', onSignal);
          budget?.cancel();
        }
      }),
    );
}

function scopeOf(flags: CompareFlags): Pick<CompareScope, 'workers' | 'maximumLoad' | 'since'> {
  const workers = flags.workers === undefined ? 1 : Number(flags.workers);
  if (!Number.isInteger(workers) || workers < 1 || workers > limits.workers) {
    throw new UsageError(`--workers takes a number from 1 to ${limits.workers}`);
  }
  const maximumLoad = flags.maxLoad === undefined ? undefined : Number(flags.maxLoad);
  if (maximumLoad !== undefined && !(maximumLoad > 0)) throw new UsageError('--max-load takes a number above 0');
  const since = flags.since === undefined ? undefined : Number(flags.since);
  if (since !== undefined && (!Number.isSafeInteger(since) || since < 0)) {
    throw new UsageError('--since takes the index of an entry');
  }
  return { workers, ...(maximumLoad !== undefined && { maximumLoad }), ...(since !== undefined && { since }) };
}

/** Of card groups, and of the configuration. */
const tableNames: ReadonlySet<string> = new Set(
  [groupId('a'), configGroup].flatMap((group) => tablesOf(group).map(({ name }) => name)),
);

function processesOf(topology: Topology, flag: string): readonly NodeId[] {
  const known = voters(topology);
  const named = flag.split(',').map((name) => {
    const found = known.find((id) => id === name);
    if (found === undefined) throw new UsageError(`there is no process "${name}"; nodes.yaml has ${known.join(', ')}`);
    return found;
  });
  if (new Set(named).size < 2) throw new UsageError('--between takes two processes or more, separated by commas');
  return [...new Set(named)];
}
