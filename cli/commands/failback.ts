import type { Command } from 'commander';

import { delay } from '../../base/clock.ts';
import { describeError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { parseDurationMs, UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, type CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { couldLead, nodesBeforeOwner, viewGroups, type ClusterAnswers, type GroupView } from './situation.ts';
import { askAll } from './status.ts';

/** What became of one group. */
export interface GroupFailback {
  readonly group: string;
  /**
   * returned: its owner is where it belongs now. in-place: it was. kept: its owner would not hand over, or there is
   * nobody to. pending: it was handed over, and the new owner has not shown in time.
   */
  readonly outcome: 'returned' | 'in-place' | 'kept' | 'pending';
  readonly owner: string | undefined;
  readonly reason: string | undefined;
}

/** What `node.failback` answers. */
interface FailbackAnswer {
  readonly handedOver: readonly { readonly group: string; readonly to: string }[];
  readonly kept: readonly { readonly group: string; readonly reason: string }[];
}

const pollMs = 50;
const progressMs = 1000;

/**
 * Returns groups to the first node of their order that can lead: those named, or all. Each owner is asked to hand over
 * what is not its own, and then the new owners are awaited. Throws UsageError for a group that is not there.
 */
export async function failBack(
  bus: Pick<OperatorBus, 'call' | 'status' | 'processes' | 'topology'>,
  context: Pick<CommandContext, 'clock' | 'note'>,
  names: readonly string[],
  timeoutMs: number,
): Promise<readonly GroupFailback[]> {
  const answers = await askAll(bus);
  const groups = viewGroups(bus.topology, answers);
  const unknown = names.find((name) => !groups.some((group) => group.name === name));
  if (unknown !== undefined) {
    throw new UsageError(
      `there is no group "${unknown}"; the cluster has ${groups.map(({ name }) => name).join(', ')}`,
    );
  }
  const chosen = names.length === 0 ? groups : groups.filter(({ name }) => names.includes(name));
  const judged = chosen.map((group) => judge(group, answers));
  const asked = judged.flatMap(({ outcome, owner, group }) =>
    outcome === undefined && owner !== undefined ? [{ group, owner }] : [],
  );
  const handed = await handOver(bus, asked);
  const shown = await awaitOwners(bus, context, handed.targets, timeoutMs);
  return judged.map(({ group, outcome, owner, reason }): GroupFailback => {
    if (outcome !== undefined) return { group, outcome, owner, reason };
    const to = handed.targets.get(group);
    if (to === undefined) return { group, outcome: 'kept', owner, reason: handed.reasons.get(group) };
    if (shown.get(group) === to) return { group, outcome: 'returned', owner: to, reason: undefined };
    return {
      group,
      outcome: 'pending',
      owner: shown.get(group),
      reason: `handed over to ${to}, which does not lead yet`,
    };
  });
}

/** What can be said without asking the owner; `outcome` undefined: it has to be asked. */
function judge(
  group: GroupView,
  answers: ClusterAnswers,
): Omit<GroupFailback, 'outcome'> & { readonly outcome: GroupFailback['outcome'] | undefined } {
  const { name, owner } = group;
  const known = { group: name, owner };
  if (owner === undefined) return { ...known, outcome: 'kept', reason: 'nobody leads it: see `quadrant status`' };
  const before = nodesBeforeOwner(group);
  if (before.some((id) => couldLead(group, id, answers))) return { ...known, outcome: undefined, reason: undefined };
  const reason = before.length === 0 ? undefined : `nobody before ${owner} in its order can lead it now`;
  return { ...known, outcome: 'in-place', reason };
}

/** Asks each owner, once, for its groups. An owner that cannot do it keeps them, with the reason. */
async function handOver(
  bus: Pick<OperatorBus, 'call'>,
  asked: readonly { readonly group: string; readonly owner: string }[],
): Promise<{ readonly targets: ReadonlyMap<string, string>; readonly reasons: ReadonlyMap<string, string> }> {
  const targets = new Map<string, string>();
  const reasons = new Map<string, string>();
  await Promise.all(
    [...new Set(asked.map(({ owner }) => owner))].map(async (owner) => {
      const groups = asked.filter((each) => each.owner === owner).map(({ group }) => group);
      try {
        const answer = (await bus.call(nodeId(owner), 'node.failback', { groups })) as FailbackAnswer;
        for (const { group, to } of answer.handedOver) targets.set(group, to);
        for (const { group, reason } of answer.kept) reasons.set(group, reason);
      } catch (error) {
        for (const group of groups) reasons.set(group, describeError(error));
      }
    }),
  );
  return { targets, reasons };
}

/** Who leads the groups of `targets` as soon as all are led by whom they were handed to, or when the time is over. */
async function awaitOwners(
  bus: Pick<OperatorBus, 'status' | 'processes' | 'topology'>,
  { clock, note }: Pick<CommandContext, 'clock' | 'note'>,
  targets: ReadonlyMap<string, string>,
  timeoutMs: number,
): Promise<ReadonlyMap<string, string | undefined>> {
  if (targets.size === 0) return new Map();
  const beginMs = clock.monotonicMs();
  let saidMs = beginMs;
  for (;;) {
    const groups = viewGroups(bus.topology, await askAll(bus));
    const owners = new Map(groups.map(({ name, owner }) => [name, owner]));
    const waiting = [...targets].filter(([group, to]) => owners.get(group) !== to);
    const nowMs = clock.monotonicMs();
    if (waiting.length === 0 || nowMs - beginMs >= timeoutMs) return owners;
    if (nowMs - saidMs >= progressMs) {
      saidMs = nowMs;
      note(`waiting for ${waiting.map(([group, to]) => `${to} to lead group ${group}`).join(', ')} ...`);
    }
    await delay(clock, pollMs);
  }
}

export function registerFailback(program: Command, run: RunCommand): void {
  program
    .command('failback')
    .argument('[group...]', 'groups (default: all that are not with the first node of their order that can lead)')
    .description('returns ownership to the first node of the failover order, now rather than by itself')
    .option('--timeout <time>', 'how long to wait for the new owners (default: 10s)')
    .option('--json', 'as JSON')
    .addHelpText('after', failbackHelp)
    .action((groups: string[], options: { timeout?: string; json?: boolean }) =>
      run(async (context) => {
        const timeoutMs = parseDurationMs('--timeout', options.timeout ?? '10s');
        const results = await context.withCluster((bus) => failBack(bus, context, groups, timeoutMs));
        if (options.json === true) context.printJson({ groups: results });
        else context.print(failbackText(results));
        const done = results.every(({ outcome }) => outcome === 'returned' || outcome === 'in-place');
        return done ? exitCode.good : exitCode.failed;
      }),
    );
}

const outcomeWords: Readonly<Record<GroupFailback['outcome'], string>> = {
  returned: 'returned',
  'in-place': 'where it was',
  kept: 'NOT returned',
  pending: 'NOT there yet',
};

export function failbackText(results: readonly GroupFailback[]): string {
  if (results.length === 0) return 'The cluster has no groups yet.';
  return formatTable([
    ['group', 'owner', 'ownership', ''],
    ...results.map(({ group, owner, outcome, reason }) => [group, owner ?? '-', outcomeWords[outcome], reason ?? '']),
  ]);
}

const failbackHelp = `
Ownership returns by itself when a node is back and has caught up; this does it at once. A node that is away, drained,
behind or being rebuilt gets nothing.

Exit codes: 0 every group is where it belongs, 1 some is not (the table says why), 2 usage, 4 the cluster cannot be reached
`;
