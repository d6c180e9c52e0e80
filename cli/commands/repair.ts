import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { unpackMessage } from '../../compare/packing.ts';
import { runRepair, type RepairCluster, type StepResult } from '../../compare/repair.ts';
import { planRepair, type RepairChoice, type RepairPlan, type RepairStep } from '../../compare/repair-plan.ts';
import type { CompareResult } from '../../compare/report.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, type CommandContext } from '../context.ts';
import { enterHead, keepReport } from '../evidence-folder.ts';
import { loadCompare } from '../kept-compare.ts';
import { enterMark } from '../marks.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';

const callTimeoutMs = 20_000;
/** Steps that are printed; a report of the repair has all. */
const maximumPrinted = 200;

/** The cluster as `runRepair` uses it. */
export function repairCluster(bus: OperatorBus): RepairCluster {
  return {
    call: (node, method, parameters) => bus.call(processOf(bus, node), method, parameters, callTimeoutMs),
    mark: async (group, mark, sources) => {
      const { index } = await enterMark(bus, group, mark);
      for (const source of sources) {
        const open = { kind: 'open', compare: mark, group, index };
        const answer = await bus.call(processOf(bus, source), 'compare.call', open, callTimeoutMs);
        const reply = unpackMessage(answer) as {
          kind?: unknown;
          message?: unknown;
        };
        if (reply.kind !== 'opened') {
          throw new SwitchError('REPAIR_REFUSED', `${source} has no snapshot: ${describeError(reply.message)}`);
        }
      }
      return index;
    },
    unmark: async (group, mark, sources) => {
      const close = { kind: 'close', compare: mark, group };
      await Promise.allSettled(sources.map((node) => bus.call(processOf(bus, node), 'compare.call', close)));
    },
  };
}

function processOf(bus: OperatorBus, node: string): OperatorBus['processes'][number] {
  const found = bus.processes.find((id) => id === node);
  if (found === undefined) throw new SwitchError('REPAIR_REFUSED', `nodes.yaml has no process "${node}"`);
  return found;
}

/** Makes the repair and keeps a signed report of it. */
export async function repairByReport(
  context: CommandContext,
  bus: OperatorBus,
  plan: RepairPlan,
): Promise<readonly StepResult[]> {
  const { clock } = context;
  const beganAt = new Date(clock.wallMs()).toISOString();
  let saidMs = clock.monotonicMs();
  const rebuilding = await copiesBeingRebuilt(bus);
  const [later, now] = split(plan.steps, ({ node, group }) => rebuilding.has(`${node} ${group}`));
  const results = await runRepair({ ...plan, steps: now }, repairCluster(bus), clock, (done) => {
    if (clock.monotonicMs() - saidMs < 1_000) return;
    saidMs = clock.monotonicMs();
    context.note(`repair ${plan.repair}: ${done} of ${now.length} rows ...`);
  });
  const all: readonly StepResult[] = [
    ...results,
    ...later.map((step) => ({ step, outcome: 'failed', reason: 'this copy is being made anew' }) as const),
  ];
  await keepRepair(context, bus, plan.repair, beganAt, { compare: plan.compare, ...countsOf(all) }, all);
  return all;
}

async function keepRepair(
  context: CommandContext,
  bus: OperatorBus,
  repair: string,
  at: string,
  summary: Readonly<Record<string, unknown>>,
  lines: readonly unknown[],
): Promise<void> {
  const id = `${repair}-${context.random.bytes(4).toString('hex')}`;
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  const { cluster } = context.topology();
  const files = [{ name: 'rows.jsonl', text }];
  const kept = keepReport(context.dataFolder, {
    kind: 'repair',
    id,
    cluster,
    at,
    summary: { repair, ...summary },
    files,
  });
  await enterHead(bus, kept);
  context.note(`Report ${id}: ${kept.folder}`);
}

async function copiesBeingRebuilt(bus: OperatorBus): Promise<ReadonlySet<string>> {
  const statuses = await Promise.all(bus.processes.map(async (id) => ({ id, status: await bus.status(id) })));
  return new Set(statuses.flatMap(({ id, status }) => (status?.rebuilding ?? []).map(({ group }) => `${id} ${group}`)));
}

function split<Item>(items: readonly Item[], is: (item: Item) => boolean): readonly [Item[], Item[]] {
  return [items.filter(is), items.filter((item) => !is(item))];
}

export function countsOf(results: readonly StepResult[]): Readonly<Record<StepResult['outcome'], number>> {
  const counts = { changed: 0, already: 0, newer: 0, failed: 0 };
  for (const { outcome } of results) counts[outcome] += 1;
  return counts;
}

interface RepairFlags {
  readonly dryRun?: boolean;
  readonly source?: string;
  readonly reverse?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export function registerRepair(program: Command, run: RunCommand): void {
  const repair = program
    .command('repair')
    .argument('[report]', 'a report of `quadrant compare`: its name, or the path of its report.json')
    .description('mends the rows that a compare found different, from the copies that are right')
    .option('--dry-run', 'show what would be changed, row by row, and change nothing')
    .option('--source <node>', 'what this node has is right, whatever the others have')
    .option('--reverse', 'the one copy that differs is right, and the others are overwritten')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .addHelpText('after', help)
    .action((report: string | undefined, flags: RepairFlags) =>
      run(async (context) => {
        if (report === undefined) throw new UsageError('name a report: quadrant repair c0123456789abcdef');
        return repairCommand(context, loadCompare(context, report), flags);
      }),
    );
  repair
    .command('undo')
    .argument('<repair>', 'the name of a repair: r and 16 hex digits')
    .description('puts back what a repair has changed, where nobody has changed it since')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .action((name: string, _flags: RepairFlags, command: Command) =>
      run((context) => undoCommand(context, name, command.optsWithGlobals<RepairFlags>())),
    );
}

async function repairCommand(context: CommandContext, report: CompareResult, flags: RepairFlags): Promise<number> {
  const choice: RepairChoice = {
    ...(flags.source === undefined ? {} : { source: flags.source }),
    ...(flags.reverse === true ? { reverse: true } : {}),
  };
  if (flags.source !== undefined && flags.reverse === true) throw new UsageError('either --source or --reverse');
  const plan = planRepair(report.compare, report.groups, choice);
  if (flags.dryRun === true) {
    if (flags.json === true) context.printJson(plan);
    else context.print(planText(plan));
    return plan.steps.length + plan.rebuild.length === 0 ? exitCode.good : exitCode.differences;
  }
  if (plan.steps.length === 0) {
    context.print(['There is no row to repair.', ...rebuildLines(plan)].join('\n'));
    return plan.rebuild.length === 0 ? exitCode.good : exitCode.differences;
  }
  const whose = choice.source ?? (choice.reverse === true ? 'the copy that differs' : undefined);
  const nodes = [...new Set(plan.steps.map(({ node }) => node))].join(', ');
  const question =
    `${plan.steps.length} rows at ${nodes} are changed` +
    `${whose === undefined ? '' : `, and ${whose} is taken to be right whatever the others have`}. Go on?`;
  if (!(await confirm(context, question, flags.yes === true))) {
    context.print('Nothing was changed.');
    return exitCode.failed;
  }
  const results = await context.withCluster((bus) => repairByReport(context, bus, plan));
  const counts = countsOf(results);
  if (flags.json === true) context.printJson({ repair: plan.repair, ...counts, results, rebuild: plan.rebuild });
  else context.print(resultText(plan, results));
  if (counts.failed > 0) return exitCode.failed;
  return counts.newer + plan.rebuild.length > 0 ? exitCode.differences : exitCode.good;
}

async function undoCommand(context: CommandContext, repair: string, flags: RepairFlags): Promise<number> {
  if (!/^r[0-9a-f]{16}$/.test(repair)) throw new UsageError(`"${repair}" is no name of a repair: r and 16 hex digits`);
  if (!(await confirm(context, `What repair ${repair} has changed is put back. Go on?`, flags.yes === true))) {
    context.print('Nothing was changed.');
    return exitCode.failed;
  }
  return context.withCluster(async (bus) => {
    const at = new Date(context.clock.wallMs()).toISOString();
    const answers = await Promise.all(
      bus.processes.map(async (node) => {
        try {
          const counts = await bus.call(node, 'repair.undo', { repair }, 10 * callTimeoutMs);
          return { node, ...(counts as { known: boolean; changed: number; already: number; newer: number }) };
        } catch (error) {
          return { node, failed: describeError(error) };
        }
      }),
    );
    const known = answers.filter((each) => 'failed' in each || each.known);
    if (known.length === 0) throw new SwitchError('REPAIR_REFUSED', `no process has an undo file of ${repair}`);
    await keepRepair(context, bus, repair, at, { undone: true }, answers);
    if (flags.json === true) context.printJson({ repair, nodes: answers });
    else {
      for (const each of known) {
        context.print(
          'failed' in each
            ? `${each.node}: ${each.failed}`
            : `${each.node}: ${each.changed} put back, ${each.already} were so already, ${each.newer} left alone: changed since`,
        );
      }
    }
    if (answers.some((each) => 'failed' in each)) return exitCode.unreachable;
    return answers.some((each) => 'newer' in each && each.newer > 0) ? exitCode.differences : exitCode.good;
  });
}

const kindText: Readonly<Record<RepairStep['kind'], string>> = {
  put: 'is written as it is at',
  delete: 'is removed',
  derive: 'is derived anew',
};

function planText(plan: RepairPlan): string {
  const more = plan.steps.length - maximumPrinted;
  return [
    `Repair ${plan.repair} would change ${plan.steps.length} rows:`,
    ...plan.steps.slice(0, maximumPrinted).flatMap(stepLines),
    ...(more > 0 ? [`and ${more} more; --json has all`] : []),
    ...rebuildLines(plan),
  ].join('\n');
}

function stepLines(step: RepairStep): string[] {
  const from = step.kind === 'put' ? ` ${step.sources.join(' or ')}` : '';
  const where = `${step.node}  group ${step.group}  ${step.table}  ${step.shown}`;
  const whole = step.kind === 'put' && step.found === null ? ' (there is none)' : '';
  return [
    `${where}  ${kindText[step.kind]}${from}${whole}`,
    ...step.columns.map(({ column, here, right }) => `    ${column}: ${here} -> ${right}`),
  ];
}

function rebuildLines({ rebuild }: RepairPlan): string[] {
  return rebuild.map(
    ({ node, group, reason }) =>
      `${node}, group ${group}: ${reason}. Try: quadrant node rebuild ${node} --group ${group}`,
  );
}

function resultText(plan: RepairPlan, results: readonly StepResult[]): string {
  const { changed, already, newer, failed } = countsOf(results);
  const remarks = results.filter(({ outcome }) => outcome === 'newer' || outcome === 'failed');
  return [
    `Repair ${plan.repair}: ${changed} rows changed, ${already} were right already, ${newer} left alone, ${failed} failed.`,
    ...remarks.slice(0, maximumPrinted).map(({ step, outcome, reason }) => {
      const why =
        outcome === 'newer' ? 'left alone: it has changed since the report; compare again' : (reason ?? 'failed');
      return `${step.node}  group ${step.group}  ${step.table}  ${step.shown}  ${why}`;
    }),
    ...rebuildLines(plan),
    `To take it back: quadrant repair undo ${plan.repair}`,
  ].join('\n');
}

const help = `
Right is the copy whose log's hash chain verifies, then what most copies have, then the leader's. A row is changed only
while it is as the report found it; what was there before is kept at its node first. A repair that was killed is finished
by making it again. It is asked before anything is changed.

Exit codes: 0 all is right now, 3 some rows were left alone or need \`node rebuild\`, 1 failed or nothing was done, 2 usage,
4 nobody can be reached
`;
