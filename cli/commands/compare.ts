import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import type { Clock } from '../../base/clock.ts';
import { configGroup, groupId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { voters, type Topology } from '../../base/topology.ts';
import { compareGroup, type GroupProgress } from '../../compare/compare.ts';
import type { CompareSide } from '../../compare/protocol.ts';
import { exitCodes, reportJson, reportText, verdictOf, type CompareResult } from '../../compare/report.ts';
import type { GroupResult } from '../../compare/result.ts';
import { tablesOf } from '../../compare/tables.ts';
import { parseDurationMs, UsageError } from '../acquirer/usage.ts';
import type { CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import { keepCompare } from '../kept-compare.ts';
import { enterMark } from '../marks.ts';
import type { RunCommand } from '../run-command.ts';

const openTimeoutMs = 30_000;
const callTimeoutMs = 15_000;

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
    if (results.length > 0 && scope.stop?.aborted === true) {
      results.push(uncovered(group, scope.between ?? bus.processes, scope.stop));
      continue;
    }
    context.note(`comparing group ${group} (${results.length + 1} of ${groups.length}) ...`);
    results.push(await compareOne(bus, context, compare, group, scope));
  }
  return { compare, startedAt, durationMs: Math.round(clock.monotonicMs() - startedMs), groups: results };
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
  { between, tables: named, ...scope }: CompareScope,
): Promise<GroupResult> {
  const processes = between ?? bus.processes;
  const tables = tablesOf(group).filter(({ name }) => named === undefined || named.includes(name));
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
  return compareGroup({
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
    holds: bus.topology.witness?.id === node ? 'log' : 'log-and-fold',
    call: (call) => bus.call(node, 'compare.call', call, openTimeoutMs),
  };
}

interface CompareFlags {
  readonly groups?: string;
  readonly between?: string;
  readonly tables?: string;
  readonly budget?: string;
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
          const result = await context.withCluster(async (bus) => {
            const compared = await compareCluster(bus, context, flags.groups?.split(','), {
              ...(between && { between }),
              ...(tables && { tables }),
              recompute: flags.recompute,
              checkIntegrity: flags.pages,
              evidence: flags.evidence === true,
              stop: stop.signal,
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
