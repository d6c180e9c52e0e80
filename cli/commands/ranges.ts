import type { Command } from 'commander';

import { delay } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { encodeConfigurationChange, parseConfigurationRow, type ConfigurationChange } from '../../config-db/rows.ts';
import { parseDurationMs, UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, operatorName, reachableNode, type CommandContext } from '../context.ts';
import type { RangePlan, RangeProgress } from '../node/range-desk.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';
import { listRows } from './config-rows.ts';

interface Options {
  readonly node?: string;
  readonly dryRun?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
  readonly wait?: boolean;
  readonly timeout?: string;
}

type Bus = Pick<OperatorBus, 'call'>;

const pollMs = 100;
const progressMs = 1000;

export function registerRanges(program: Command, run: RunCommand): void {
  const ranges = program
    .command('ranges')
    .description('PAN ranges: divide them, merge them, move them to other groups');
  const changing = (name: string): Command =>
    ranges
      .command(name)
      .option('--node <id>', 'where to enter it (default: the first node that answers)')
      .option('--dry-run', 'say what would happen, and change nothing')
      .option('--yes', 'do not ask')
      .option('--json', 'as JSON');
  changing('move')
    .argument('<prefix>', 'of the range')
    .argument('<group>', 'that is to have its cards')
    .description('moves a range with its cards to another group, while both work')
    .option('--no-wait', 'do not wait until it has ended')
    .option('--timeout <time>', 'how long to wait (default: 5m)')
    .addHelpText('after', moveHelp)
    .action((prefix: string, group: string, options: Options) =>
      run((context) => move(context, prefix, group, options)),
    );
  changing('carve')
    .argument('<prefix>', 'of the new range, longer than that of the range around it')
    .description('makes a range of its own of some cards of a range, in the same group')
    .option('--description <text>', 'of the new range (default: that of the range around it)')
    .action((prefix: string, options: Options & { description?: string }) =>
      run((context) => change(context, options, (bus, node) => planCarve(bus, node, prefix, options.description))),
    );
  changing('merge')
    .argument('<prefix>', 'of the range that goes')
    .description('gives the cards of a range to the range around it, in the same group')
    .action((prefix: string, options: Options) =>
      run((context) => change(context, options, () => Promise.resolve([deletion(prefix)]))),
    );
  ranges
    .command('status')
    .description('ranges that are on their way to another group')
    .option('--node <id>', 'which node to ask (default: the first that answers)')
    .option('--json', 'as JSON')
    .action((options: Options) => run((context) => status(context, options)));
}

function prefixOf(text: string): string {
  if (/^[0-9]{1,19}$/.test(text)) return text;
  throw new UsageError('a prefix has 1 to 19 digits; the catch-all range is neither moved nor merged');
}

function deletion(prefix: string): ConfigurationChange {
  return { table: 'pan_range', operation: 'delete', key: { prefix: prefixOf(prefix) } };
}

async function planCarve(
  bus: OperatorBus,
  node: NodeId,
  prefix: string,
  description: string | undefined,
): Promise<readonly ConfigurationChange[]> {
  prefixOf(prefix);
  const rows = (await listRows(bus, node)).flatMap(({ table, row }) => (table === 'pan_range' ? [row] : []));
  const around = rows
    .filter((row) => String(row['prefix']).length < prefix.length && prefix.startsWith(String(row['prefix'])))
    .sort((one, other) => String(other['prefix']).length - String(one['prefix']).length)[0];
  if (around === undefined || around['prefix'] === '') {
    throw new UsageError(`no range is around "${prefix}": a range of new cards is entered with \`quadrant config\``);
  }
  if (rows.some((row) => row['prefix'] === prefix)) throw new UsageError(`there is a range "${prefix}" already`);
  const row = parseConfigurationRow('pan_range', {
    ...around,
    prefix,
    description: description ?? around['description'],
  });
  return [{ table: 'pan_range', operation: 'put', row }];
}

/** Enters changes of ranges after they have been held against the node's configuration; undefined: nothing was entered. */
async function enter(
  context: CommandContext,
  bus: OperatorBus,
  node: NodeId,
  changes: readonly ConfigurationChange[],
  options: Options,
): Promise<{ readonly plan: RangePlan; readonly index: number | undefined }> {
  const encoded = changes.map(encodeConfigurationChange);
  const plan = (await bus.call(node, 'ranges.plan', { changes: encoded })) as RangePlan;
  if (plan.problems.length > 0) throw new SwitchError('CONFIGURATION_REFUSED', [...new Set(plan.problems)].join('; '));
  if (plan.withoutOwner.length > 0) {
    const names = plan.withoutOwner.join(' and ');
    throw new SwitchError('OWNER_UNREACHABLE', `${node} knows no owner of ${names}: nothing was changed`, {
      hint: 'A range that moves has no owner until both groups have done their part. See `quadrant status`.',
    });
  }
  const cards = Object.entries(plan.cards).map(([prefix, count]) => `"${prefix}" has ${count} cards`);
  if (cards.length > 0) context.note(`${cards.join(', ')}.`);
  if (options.dryRun === true) return { plan, index: undefined };
  if (!(await confirm(context, 'Enter the change into the cluster?', options.yes === true))) {
    return { plan, index: undefined };
  }
  const versioned = encoded.map((each, at) => ({ change: each, replaces: plan.replaces[at] ?? 0 }));
  const index = (await bus.call(node, 'configuration.enter', { by: operatorName(), changes: versioned })) as number;
  return { plan, index };
}

async function change(
  context: CommandContext,
  options: Options,
  plan: (bus: OperatorBus, node: NodeId) => Promise<readonly ConfigurationChange[]>,
): Promise<number> {
  const result = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    return enter(context, bus, node, await plan(bus, node), options);
  });
  if (options.json === true) context.printJson({ ...result.plan, index: result.index ?? null });
  else context.print(result.index === undefined ? 'Nothing was changed.' : `Entered at index ${result.index}.`);
  return result.index === undefined && options.dryRun !== true ? exitCode.failed : exitCode.good;
}

async function move(context: CommandContext, prefix: string, group: string, options: Options): Promise<number> {
  const timeoutMs = parseDurationMs('--timeout', options.timeout ?? '5m');
  const moveId = `${prefixOf(prefix)}-${context.random.bytes(6).toString('hex')}`;
  const row = parseConfigurationRow('range_move', { prefix, to_group: group, move_id: moveId });
  const result = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    const entered = await enter(context, bus, node, [{ table: 'range_move', operation: 'put', row }], options);
    if (entered.index === undefined || options.wait === false) return { ...entered, hasEnded: false };
    return { ...entered, hasEnded: await awaitEnd(context, bus, node, moveId, timeoutMs) };
  });
  const { plan, index, hasEnded } = result;
  if (options.json === true) context.printJson({ ...plan, move: moveId, index: index ?? null, hasEnded });
  else if (index === undefined) context.print('Nothing was changed.');
  else if (hasEnded) context.print(`The cards of "${prefix}" are group ${group}'s.`);
  else context.print(`The cards of "${prefix}" are on their way to group ${group}: see \`quadrant ranges status\`.`);
  if (index === undefined) return options.dryRun === true ? exitCode.good : exitCode.failed;
  return hasEnded || options.wait === false ? exitCode.good : exitCode.failed;
}

/** Whether the move has ended in time; it goes on by itself if not. */
export async function awaitEnd(
  { clock, note }: Pick<CommandContext, 'clock' | 'note'>,
  bus: Bus,
  node: NodeId,
  moveId: string,
  timeoutMs: number,
): Promise<boolean> {
  const endMs = clock.monotonicMs() + timeoutMs;
  let saidMs = clock.monotonicMs();
  while (clock.monotonicMs() < endMs) {
    const { moves } = (await bus.call(node, 'ranges.status', {})) as { readonly moves: readonly RangeProgress[] };
    const mine = moves.find((each) => each.move === moveId);
    if (mine === undefined) return true;
    if (clock.monotonicMs() - saidMs >= progressMs) {
      saidMs = clock.monotonicMs();
      note(`${progressOf(mine)} ...`);
    }
    await delay(clock, pollMs);
  }
  return false;
}

function progressOf({ prefix, state, cardsLeft, cardsCome, from, to, owners }: RangeProgress): string {
  const absent = Object.entries(owners).flatMap(([group, owner]) => (owner === null ? [group] : []));
  const waits = absent.length === 0 ? '' : `; waits for an owner of ${absent.join(' and ')}`;
  const how = {
    begun: `group ${from} has not begun`,
    leaving: `${cardsLeft} cards have left group ${from}`,
    copying: `${cardsCome} of ${cardsLeft} cards have come to group ${to}`,
    arrived: `all ${cardsCome} cards are group ${to}'s, and the configuration does not say so yet`,
  }[state];
  return `"${prefix}": ${how}${waits}`;
}

async function status(context: CommandContext, options: Options): Promise<number> {
  const moves = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    return ((await bus.call(node, 'ranges.status', {})) as { readonly moves: readonly RangeProgress[] }).moves;
  });
  if (options.json === true) context.printJson({ moves });
  else if (moves.length === 0) context.print('No range is on its way.');
  else context.print(formatTable([['range', 'from', 'to', 'how far'], ...moves.map(rowOf)]));
  return exitCode.good;
}

function rowOf(progress: RangeProgress): string[] {
  return [progress.prefix, progress.from, progress.to, progressOf(progress).replace(/^"[0-9]*": /, '')];
}

const moveHelp = `
Requests for the range's cards wait while they move, some milliseconds for a few cards, about a second for 10,000; others
do not notice. A request that was decided before gets its stored answer afterwards. Whatever dies meanwhile, the move goes
on when both groups have an owner again; it cannot be called off.

Exit codes: 0 the cards have moved, or --no-wait, 1 not in time or nothing was done, 2 usage, 4 no node answers
`;
