import type { Command } from 'commander';

import { delay } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import type { Topology } from '../../base/topology.ts';
import { CommandFailure, parseDurationMs, UsageError } from '../acquirer/usage.ts';
import { exitCode, nodeOf, operatorName, type CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';
import { drainNode } from './drain.ts';
import { viewGroups, votingNow, type ClusterAnswers, type GroupView } from './situation.ts';
import { askAll } from './status.ts';
import { groupNames, lasting } from './wording.ts';

export interface RebuildResult {
  readonly node: string;
  readonly groups: readonly string[];
  /** Of those, where the node does not vote with all that is committed yet. */
  readonly left: readonly string[];
  readonly tookMs: number;
}

const pollMs = 250;
const progressMs = 1000;
const drainTimeoutMs = 10_000;

/**
 * The groups whose copies at `node` can be made anew: each must have a majority of its voters without it. Throws
 * NODE_UNREACHABLE when it does not answer, UsageError for a group that there is not, CommandFailure where the group
 * would be left without a majority.
 */
export function planRebuild(
  topology: Topology,
  answers: ClusterAnswers,
  node: string,
  wanted: readonly string[],
): readonly string[] {
  if (answers.get(node) === undefined) {
    throw new SwitchError('NODE_UNREACHABLE', `${node} does not answer`, {
      hint: 'Nothing was changed. Start it; when its files cannot be opened at all, with its folder of the data emptied: it is filled by itself.',
    });
  }
  const groups = viewGroups(topology, answers);
  const unknown = wanted.find((name) => !groups.some((group) => group.name === name));
  if (unknown !== undefined) {
    throw new UsageError(
      `--group: there is no group "${unknown}"; there are ${groups.map(({ name }) => name).join(', ')}`,
    );
  }
  const chosen = groups.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
  const alone = chosen.filter(
    (group) => 2 * votingNow(group).filter((id) => id !== node).length <= group.voters.length,
  );
  if (alone.length > 0) {
    throw new CommandFailure(
      `${groupNames(alone.map(({ name }) => name))} would be without a majority while ${node} is made anew. ` +
        'Nothing was changed: bring back another voter first.',
    );
  }
  return chosen.map(({ name }) => name);
}

/** Has the copies made anew and waits until the node votes in each group again, with all that is committed. */
export async function rebuildNode(
  bus: Pick<OperatorBus, 'call' | 'status' | 'topology' | 'processes'>,
  { clock, note }: Pick<CommandContext, 'clock' | 'note'>,
  options: {
    readonly node: NodeId;
    readonly groups: readonly string[];
    readonly by: string;
    readonly timeoutMs: number;
  },
): Promise<RebuildResult> {
  const { node, groups, by, timeoutMs } = options;
  const beginMs = clock.monotonicMs();
  const before = await bus.status(node);
  const isNode = before?.role !== 'witness';
  if (isNode) {
    const drained = await drainNode(bus, { clock, note }, node, drainTimeoutMs);
    if (drained.leads.length > 0) {
      throw new CommandFailure(
        `${node} still owns ${groupNames(drained.leads)}, and nobody takes over. Nothing was changed.`,
      );
    }
  }
  try {
    await bus.call(node, 'node.rebuild', { groups, by });
    let saidMs = clock.monotonicMs();
    for (;;) {
      await delay(clock, pollMs);
      const nowMs = clock.monotonicMs();
      const answers = await askAll(bus);
      const whole = viewGroups(bus.topology, answers).filter((group) => isWhole(group, node));
      const left = groups.filter((name) => !whole.some((group) => group.name === name));
      if (left.length === 0 || nowMs - beginMs >= timeoutMs) {
        return { node, groups, left, tookMs: Math.round(nowMs - beginMs) };
      }
      if (nowMs - saidMs >= progressMs) {
        saidMs = nowMs;
        note(
          `${node}: ${groups.length - left.length} of ${groups.length} groups are whole; ${shares(answers, node, left)} ...`,
        );
      }
    }
  } finally {
    if (isNode && before?.draining !== true) await bus.call(node, 'node.drain', { on: false });
  }
}

/** Votes there, and is no more than what commits in a moment behind. */
function isWhole(group: GroupView, node: string): boolean {
  const copy = group.copies.get(node);
  return (
    copy?.failure === undefined &&
    copy?.votes === true &&
    group.voters.includes(node) &&
    copy.durable >= group.commit - entriesOfAMoment
  );
}

const entriesOfAMoment = 1000;

function shares(answers: ClusterAnswers, node: string, left: readonly string[]): string {
  const percents = new Map(answers.get(node)?.rebuilding.map(({ group, percent }) => [group, Math.floor(percent)]));
  return left.map((name) => `${name} ${percents.has(name) ? `${percents.get(name) ?? 0} %` : 'catches up'}`).join(', ');
}

export function registerRebuild(node: Command, run: RunCommand): void {
  node
    .command('rebuild')
    .argument('<id>', 'a node or the witness of nodes.yaml, running')
    .description('throws its copies away and has them made anew from the other nodes, while it runs')
    .option('--group <name...>', 'only these groups (default: all)')
    .option('--timeout <time>', 'how long to wait until it is whole again (default: 30m)')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .addHelpText('after', rebuildHelp)
    .action((id: string, options: { group?: string[]; timeout?: string; yes?: boolean; json?: boolean }) =>
      run((context) => rebuild(context, id, options)),
    );
}

async function rebuild(
  context: CommandContext,
  id: string,
  options: {
    readonly group?: readonly string[];
    readonly timeout?: string;
    readonly yes?: boolean;
    readonly json?: boolean;
  },
): Promise<number> {
  const topology = context.topology();
  const node = topology.witness?.id === id ? topology.witness.id : nodeOf(topology, id);
  const timeoutMs = parseDurationMs('--timeout', options.timeout ?? '30m');
  const result = await context.withCluster(async (bus) => {
    const groups = planRebuild(topology, await askAll(bus), node, options.group ?? []);
    const question = `${node} throws away its copies of ${groupNames(groups)} and fetches them from the others.`;
    if (!(await confirm(context, question, options.yes === true))) return undefined;
    return rebuildNode(bus, context, { node, groups, by: operatorName(), timeoutMs });
  });
  if (result === undefined) {
    context.print('Nothing was changed.');
    return exitCode.failed;
  }
  if (options.json === true) context.printJson(result);
  else context.print(rebuildText(result));
  return result.left.length === 0 ? exitCode.good : exitCode.failed;
}

export function rebuildText({ node, groups, left, tookMs }: RebuildResult): string {
  return left.length === 0
    ? `${node} has ${groupNames(groups)} anew and votes there (${lasting(tookMs)}).`
    : `${node} is not whole yet in ${groupNames(left)} after ${lasting(tookMs)}. It goes on by itself; see \`quadrant status\`.`;
}

const rebuildHelp = `
For a copy that is damaged, or that differs from the others. The node goes on serving its acquirers and forwards to the
owners; it owns nothing meanwhile. What it had that nobody else has is kept apart first (R9). Killed half-way it goes on
when it is started again. A node whose files cannot be opened at all: stop it, empty its folder, start it; it is filled
in the same way.

Exit codes: 0 it is whole, 1 it is not yet or nothing was done, 2 usage, 4 it cannot be reached
`;
