import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { groupId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { compareGroup } from '../../compare/compare.ts';
import type { CompareSide } from '../../compare/protocol.ts';
import { exitCodes, reportJson, reportText, verdictOf, type CompareResult } from '../../compare/report.ts';
import type { GroupResult } from '../../compare/result.ts';
import { tablesOf } from '../../compare/tables.ts';
import { UsageError } from '../acquirer/usage.ts';
import type { CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import { keepCompare } from '../kept-compare.ts';
import { enterMark } from '../marks.ts';
import type { RunCommand } from '../run-command.ts';

const openTimeoutMs = 30_000;
const callTimeoutMs = 15_000;

/** Compares all copies of the named groups, or of every group that any process has. */
export async function compareCluster(
  bus: OperatorBus,
  context: Pick<CommandContext, 'clock' | 'random' | 'note'>,
  only: readonly string[] | undefined,
): Promise<CompareResult> {
  const { clock, random } = context;
  const startedAt = new Date(clock.wallMs()).toISOString();
  const startedMs = clock.monotonicMs();
  const compare = `c${random.bytes(8).toString('hex')}`;
  const groups = await groupsOf(bus, only);
  const results: GroupResult[] = [];
  for (const group of groups) {
    context.note(`comparing group ${group} (${results.length + 1} of ${groups.length}) ...`);
    results.push(await compareOne(bus, context, compare, group));
  }
  return { compare, startedAt, durationMs: Math.round(clock.monotonicMs() - startedMs), groups: results };
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
  { clock }: Pick<CommandContext, 'clock'>,
  compare: string,
  group: GroupId,
): Promise<GroupResult> {
  let mark: { readonly index: number; readonly leader: string };
  try {
    mark = await enterMark(bus, group, compare);
  } catch (error) {
    // Without a mark there is no index at which copies must be equal: nothing can be said of this group.
    const message = describeError(error);
    const outcomes = bus.processes.map(
      (node) => ({ node, table: 'log', outcome: 'inconclusive', reason: 'mark-not-reached', message }) as const,
    );
    return { group, markIndex: 0, tables: [], outcomes, replyBytes: 0 };
  }
  const leaderFirst = [...bus.processes].sort((a, b) => Number(b === mark.leader) - Number(a === mark.leader));
  return compareGroup({
    compare,
    group,
    markIndex: mark.index,
    sides: leaderFirst.map((node) => sideOf(bus, node)),
    tables: tablesOf(group),
    topology: bus.topology,
    clock,
    openTimeoutMs,
    callTimeoutMs,
  });
}

function sideOf(bus: OperatorBus, node: NodeId): CompareSide {
  return {
    node,
    holds: bus.topology.witness?.id === node ? 'log' : 'log-and-fold',
    call: (call) => bus.call(node, 'compare.call', call, openTimeoutMs),
  };
}

export function registerCompare(program: Command, run: RunCommand): void {
  program
    .command('compare')
    .description('proves that all copies of every log and fold are equal, and that derived columns follow the rules')
    .option('--groups <names>', 'only these groups, separated by commas')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExit codes: 0 equal, 3 differences found, 4 some copy could not be judged, 1 failed')
    .action((options: { groups?: string; json?: boolean }) =>
      run(async (context) => {
        const result = await context.withCluster(async (bus) => {
          const compared = await compareCluster(bus, context, options.groups?.split(','));
          await keepCompare(context, bus, compared);
          return compared;
        });
        context.print(options.json === true ? reportJson(result) : reportText(result));
        return exitCodes[verdictOf(result.groups)];
      }),
    );
}
