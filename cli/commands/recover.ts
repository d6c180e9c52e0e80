import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { configGroup, nodeId } from '../../base/identifiers.ts';
import { nearest } from '../../base/nearest.ts';
import { voters, type Topology } from '../../base/topology.ts';
import { CommandFailure, systemErrorCode, UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, operatorName, wrapText, type CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';
import { hasMajority, newerLogFirst, viewGroups, type ClusterAnswers, type GroupView } from './situation.ts';
import { askAll } from './status.ts';
import { groupNames } from './wording.ts';

/** Where a group goes on without the members that are lost, and what each survivor had. */
export interface GroupPlan {
  readonly group: string;
  /** The survivor with the newest log: its log becomes the group's. */
  readonly at: string;
  /** The end of each survivor's log, the newest first. */
  readonly logs: readonly { readonly node: string; readonly lastTerm: number; readonly last: number }[];
}

export interface RecoveryPlan {
  readonly lost: readonly string[];
  readonly survivors: readonly string[];
  readonly groups: readonly GroupPlan[];
  /** Groups that have a majority without the lost members: nothing is done to them. */
  readonly untouched: readonly string[];
}

/** What came of one group: what `node.recover` answered, or why it failed. */
export type GroupRecovery = GroupPlan &
  (
    | {
        readonly outcome: 'recovered';
        readonly term: number;
        readonly index: number;
        readonly voters: readonly string[];
      }
    | { readonly outcome: 'failed'; readonly reason: string }
  );

/**
 * What can be done when the members `lost` are gone for good. Throws UsageError for members that are not there;
 * NODE_UNREACHABLE when a member that is not lost does not answer (it may have the newest log); CommandFailure when a
 * lost one answers, when no node is left to own cards, or when every group has its majority.
 */
export function planRecovery(topology: Topology, answers: ClusterAnswers, lost: readonly string[]): RecoveryPlan {
  const members: readonly string[] = voters(topology);
  const unknown = lost.find((id) => !members.includes(id));
  if (unknown !== undefined) {
    const meant = nearest(unknown, members);
    const advice = meant === undefined ? `nodes.yaml has ${members.join(', ')}` : `did you mean "${meant}"?`;
    throw new UsageError(`--lost: there is no member "${unknown}"; ${advice}`);
  }
  const alive = lost.filter((id) => answers.get(id) !== undefined);
  if (alive.length > 0) {
    throw new CommandFailure(
      `${alive.join(', ')} answers, and is not lost. Nothing was changed: name only members whose disks are gone, and ` +
        'stop those that must not come back.',
    );
  }
  const survivors = members.filter((id) => !lost.includes(id));
  if (!topology.nodes.some(({ id }) => survivors.includes(id))) {
    throw new CommandFailure(
      'no node would be left to own cards: a witness has no copy of them. Nothing was changed: restore a node first.',
    );
  }
  const silent = survivors.filter((id) => answers.get(id) === undefined);
  if (silent.length > 0) {
    throw new SwitchError('NODE_UNREACHABLE', `${silent.join(', ')} is not named as lost and does not answer`, {
      hint: 'Nothing was changed. Start it, for it may have the newest log; or name it as lost, too.',
    });
  }
  const groups = viewGroups(topology, answers);
  const untouched = groups.filter(hasMajority).map(({ name }) => name);
  const plans = groups.filter((group) => !hasMajority(group)).map((group) => planGroup(group, topology));
  if (plans.length === 0) {
    throw new CommandFailure(
      'every group has its majority without them, so nothing has to be given up and nothing was changed. A member whose ' +
        'disk is gone is added again when it is started with an empty folder.',
    );
  }
  // Orders of the other groups are in `config`: it goes first.
  plans.sort((one, other) => Number(other.group === configGroup) - Number(one.group === configGroup));
  return { lost, survivors, groups: plans, untouched };
}

/** Of logs that end alike a node's is taken rather than the witness's, by the group's order. */
function planGroup(group: GroupView, topology: Topology): GroupPlan {
  const place = (id: string): number => {
    const inOrder = group.order.indexOf(id);
    if (inOrder !== -1) return inOrder;
    return topology.witness?.id === id ? Infinity : group.order.length;
  };
  const copies = [...group.copies]
    .filter(([, copy]) => copy.failure === undefined)
    .sort(([one, its], [other, others]) => newerLogFirst(its, others) || place(one) - place(other));
  const [newest] = copies;
  if (newest === undefined) {
    throw new CommandFailure(`no survivor has a good copy of group ${group.name}. Nothing was changed.`);
  }
  return {
    group: group.name,
    at: newest[0],
    logs: copies.map(([node, { lastTerm, last }]) => ({ node, lastTerm, last })),
  };
}

/** Carries out a plan, group after group; a group that fails does not keep the others from going on. */
export async function recoverGroups(
  bus: Pick<OperatorBus, 'call'>,
  { note }: Pick<CommandContext, 'note'>,
  plan: RecoveryPlan,
  by: string,
): Promise<readonly GroupRecovery[]> {
  const results: GroupRecovery[] = [];
  for (const each of plan.groups) {
    note(`group ${each.group}: ${each.at} goes on with its log (${results.length + 1} of ${plan.groups.length}) ...`);
    try {
      const parameters = { group: each.group, lost: plan.lost, by };
      const {
        term,
        index,
        voters: left,
      } = (await bus.call(nodeId(each.at), 'node.recover', parameters)) as {
        readonly term: number;
        readonly index: number;
        readonly voters: readonly string[];
      };
      results.push({ ...each, outcome: 'recovered', term, index, voters: left });
    } catch (error) {
      results.push({ ...each, outcome: 'failed', reason: describeError(error) });
    }
  }
  return results;
}

/** The record of recoveries, a JSON line each. Opened before anything is done, so that nothing goes unrecorded. */
class RecoveryRecord {
  readonly file: string;
  readonly #descriptor: number;

  constructor(dataFolder: string) {
    this.file = join(dataFolder, 'recoveries.jsonl');
    try {
      mkdirSync(dataFolder, { recursive: true, mode: 0o700 });
      this.#descriptor = openSync(this.file, 'a', 0o600);
    } catch (error) {
      throw new CommandFailure(
        `a recovery is recorded, and ${this.file} cannot be written (${systemErrorCode(error)}). Nothing was changed.`,
      );
    }
  }

  append(line: object): void {
    writeSync(this.#descriptor, `${JSON.stringify(line)}\n`);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

interface RecoverFlags {
  readonly acceptLoss?: boolean;
  readonly lost?: string;
  readonly by?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** Who is lost, as the flags say. Throws UsageError before anything is asked or done. */
function readFlags({ acceptLoss, lost, by }: RecoverFlags): { readonly lost: readonly string[]; readonly by: string } {
  if (lost === undefined) throw new UsageError('--lost: which members are gone for good? For example --lost n3,n4,w1');
  if (acceptLoss !== true) {
    throw new UsageError(
      'going on without a majority can lose approvals that acquirers were given; say so with --accept-loss',
    );
  }
  return { lost: [...new Set(lost.split(',').map((id) => id.trim()))], by: by ?? operatorName() };
}

/** `quadrant recover`: plans, asks, does, records. */
export async function recover(
  bus: Pick<OperatorBus, 'call' | 'status' | 'processes' | 'topology'>,
  context: CommandContext,
  flags: RecoverFlags,
): Promise<number> {
  const { lost, by } = readFlags(flags);
  const plan = planRecovery(bus.topology, await askAll(bus), lost);
  if (flags.json === true) context.note(warningText(plan));
  else context.print(warningText(plan));
  if (!(await confirm(context, `Are ${lost.join(', ')} gone for good?`, flags.yes === true))) {
    context.note('Nothing was changed.');
    return exitCode.failed;
  }
  const record = new RecoveryRecord(context.dataFolder);
  try {
    const head = { by, ...plan };
    const at = (): string => new Date(context.clock.wallMs()).toISOString();
    record.append({ kind: 'recovery-begun', at: at(), ...head });
    const groups = await recoverGroups(bus, context, plan, by);
    record.append({ kind: 'recovery-done', at: at(), ...head, groups });
    if (flags.json === true) context.printJson({ ...head, groups, record: record.file });
    else context.print(resultText(plan, groups, record.file));
    return groups.every(({ outcome }) => outcome === 'recovered') ? exitCode.good : exitCode.failed;
  } finally {
    record.close();
  }
}

const columns = 100;

function warningText({ lost, survivors, groups, untouched }: RecoveryPlan): string {
  const names = groupNames(groups.map(({ group }) => group));
  return [
    `${lost.join(', ')} will be given up, and ${survivors.join(', ')} go on alone with ${names}.`,
    'What only the lost members had is lost with them: approvals that acquirers were given may be missing afterwards.',
    'A lost member must never come back with the data it has now: it would not know that it was given up. Erase its ' +
      'folder before it is started again; then it is added again from the survivors.',
    ...(untouched.length === 0 ? [] : [`Nothing is done to ${groupNames(untouched)}: a majority is there.`]),
  ]
    .map((text) => wrapText(text, columns, 0))
    .join('\n');
}

function resultText({ lost }: RecoveryPlan, groups: readonly GroupRecovery[], file: string): string {
  const table = formatTable([
    ['group', 'goes on from', 'term', 'index', 'voters now', "survivors' logs (term.index)"],
    ...groups.map((each) => [
      each.group,
      each.at,
      ...(each.outcome === 'recovered'
        ? [String(each.term), String(each.index), each.voters.join(' ')]
        : ['-', '-', 'NOT recovered']),
      each.logs.map(({ node, lastTerm, last }) => `${node} ${lastTerm}.${last}`).join(', '),
    ]),
  ]);
  const failures = groups.flatMap((each) =>
    each.outcome === 'failed' ? [wrapText(`! group ${each.group}: ${each.reason}`, columns, 2)] : [],
  );
  return [
    table,
    ...failures,
    `Recorded in ${file}.`,
    wrapText(
      `Next: erase the folders of ${lost.join(', ')} before any of them is started; \`quadrant compare\`; hold acquirers' ` +
        'journals against the survivors with `quadrant verify`.',
      columns,
      2,
    ),
  ].join('\n');
}

export function registerRecover(program: Command, run: RunCommand): void {
  program
    .command('recover')
    .description('goes on with the survivors when a majority is lost for good, and with it what only the lost ones had')
    .option('--accept-loss', 'say that answered approvals may be lost')
    .option('--lost <ids>', 'members that are gone for good, separated by commas')
    .option('--by <name>', 'who decides this, for the record (default: QUADRANT_OPERATOR, else the user)')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .addHelpText('after', recoverHelp)
    .action((flags: RecoverFlags) =>
      run(async (context) => {
        readFlags(flags);
        return context.withCluster((bus) => recover(bus, context, flags));
      }),
    );
}

const recoverHelp = `
Only for when a majority of the voters is gone for good: disks destroyed, not processes stopped. Every member that is
not named as lost has to answer. For each group the survivor with the newest log goes on with it, alone with the other
survivors. What is decided is appended to DATA/recoveries.jsonl.

Exit codes: 0 every group goes on, 1 some does not, or nothing was done, 2 usage, 4 a survivor cannot be reached

Example, after site west and the witness were lost:
  quadrant recover --accept-loss --lost n3,n4,w1 --by "J. Doe, change 4711"
`;
