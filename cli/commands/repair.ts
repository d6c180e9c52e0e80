import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { planHash, signersOf, type SignedPlan } from '../../compare/approval.ts';
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
import { needsApproval, proposePlan, registerApproval, waitingText } from './repair-approval.ts';

const callTimeoutMs = 20_000;
/** Steps that are printed; a report of the repair has all. */
const maximumPrinted = 200;

/** The cluster as `runRepair` uses it. `plan`: what operators have signed, for nodes that ask for that. */
function repairCluster(bus: OperatorBus, plan: SignedPlan | undefined): RepairCluster {
  return {
    call: (node, method, parameters) => callApproved(bus, processOf(bus, node), method, parameters, plan),
    mark: async (group, mark, sources) => {
      const { index } = await enterMark(bus, group, mark);
      for (const source of sources) {
        const open = { kind: 'open', compare: mark, group, index };
        const reply = (await bus.call(processOf(bus, source), 'compare.call', open, callTimeoutMs)) as {
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
    recompute: async (group, mark, source, from) => {
      const ask = { kind: 'recompute', compare: mark, group, ...(from && { from }) };
      for (;;) {
        const reply = (await bus.call(processOf(bus, source), 'compare.call', ask, callTimeoutMs)) as {
          kind?: unknown;
          done?: unknown;
          message?: unknown;
        };
        if (reply.kind !== 'recomputed') {
          throw new SwitchError('REPAIR_REFUSED', `${source} has no fold made anew: ${describeError(reply.message)}`);
        }
        if (reply.done === true) return;
      }
    },
  };
}

/** A node that does not know the plan yet, or has been started since it did, is shown it. */
async function callApproved(
  bus: OperatorBus,
  node: OperatorBus['processes'][number],
  method: string,
  parameters: unknown,
  plan: SignedPlan | undefined,
  timeoutMs = callTimeoutMs,
): Promise<unknown> {
  try {
    return await bus.call(node, method, parameters, timeoutMs);
  } catch (error) {
    if (plan === undefined || !(error instanceof SwitchError) || error.code !== 'REPAIR_NOT_APPROVED') throw error;
    await bus.call(node, 'repair.approve', { plan }, callTimeoutMs);
    return bus.call(node, method, parameters, timeoutMs);
  }
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
  signed?: SignedPlan,
): Promise<readonly StepResult[]> {
  const { clock } = context;
  const beganAt = new Date(clock.wallMs()).toISOString();
  let saidMs = clock.monotonicMs();
  const rebuilding = await copiesBeingRebuilt(bus);
  const [later, now] = split(plan.steps, ({ node, group }) => rebuilding.has(`${node} ${group}`));
  const results = await runRepair({ ...plan, steps: now }, repairCluster(bus, signed), clock, (done) => {
    if (clock.monotonicMs() - saidMs < 1_000) return;
    saidMs = clock.monotonicMs();
    context.note(`repair ${plan.repair}: ${done} of ${now.length} rows ...`);
  });
  const all: readonly StepResult[] = [
    ...results,
    ...later.map((step) => ({ step, outcome: 'failed', reason: 'this copy is being made anew' }) as const),
  ];
  await keepRepair(context, bus, plan.repair, beganAt, { compare: plan.compare, ...countsOf(all) }, all, signed);
  return all;
}

async function keepRepair(
  context: CommandContext,
  bus: OperatorBus,
  repair: string,
  at: string,
  summary: Readonly<Record<string, unknown>>,
  lines: readonly unknown[],
  signed: SignedPlan | undefined,
): Promise<void> {
  const id = `${repair}-${context.random.bytes(4).toString('hex')}`;
  const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  const { cluster, repair: rules } = context.topology();
  const files = [
    { name: 'rows.jsonl', text },
    ...(signed === undefined ? [] : [{ name: 'plan.json', text: `${JSON.stringify(signed)}\n` }]),
  ];
  const approvals = signed && { plan: planHash(signed), approvedBy: signersOf(signed, rules.operators) };
  const kept = keepReport(context.dataFolder, {
    kind: 'repair',
    id,
    cluster,
    at,
    summary: { repair, ...summary, ...approvals },
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
  readonly key?: string;
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
    .option('--key <file>', "where approvals are asked for: the proposing operator's private key (Ed25519, PEM)")
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
    .option('--key <file>', "where approvals are asked for: the proposing operator's private key")
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .action((name: string, _flags: RepairFlags, command: Command) =>
      run((context) => undoCommand(context, name, command.optsWithGlobals<RepairFlags>())),
    );
  registerApproval(repair, run, { repair: carryOut, undo: carryOutUndo }, planText);
}

/** The key of the operator who proposes a plan; undefined where nobody has to approve. */
function proposersKey(context: CommandContext, flags: RepairFlags): string | undefined {
  if (!needsApproval(context)) return undefined;
  if (flags.key === undefined) {
    throw new UsageError(
      'nodes.yaml asks for approvals: give your own private key with --key FILE; another operator approves',
    );
  }
  return flags.key;
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
  const key = proposersKey(context, flags);
  const whose = choice.source ?? (choice.reverse === true ? 'the copy that differs' : undefined);
  const nodes = [...new Set(plan.steps.map(({ node }) => node))].join(', ');
  const question =
    `${plan.steps.length} rows at ${nodes} are changed` +
    `${whose === undefined ? '' : `, and ${whose} is taken to be right whatever the others have`}. Go on?`;
  if (!(await confirm(context, question, flags.yes === true))) {
    context.print('Nothing was changed.');
    return exitCode.failed;
  }
  if (key !== undefined) {
    const { id, signed } = proposePlan(context, { plan, choice }, key);
    if (flags.json === true) context.printJson({ waiting: id, ...signed });
    else context.print(waitingText(context, id, signed));
    return exitCode.differences;
  }
  return carryOut(context, plan, undefined, flags.json === true);
}

async function carryOut(
  context: CommandContext,
  plan: RepairPlan,
  signed: SignedPlan | undefined,
  json: boolean,
): Promise<number> {
  const results = await context.withCluster((bus) => repairByReport(context, bus, plan, signed));
  const counts = countsOf(results);
  if (json) context.printJson({ repair: plan.repair, ...counts, results, rebuild: plan.rebuild });
  else context.print(resultText(plan, results));
  if (counts.failed > 0) return exitCode.failed;
  return counts.newer + plan.rebuild.length > 0 ? exitCode.differences : exitCode.good;
}

async function undoCommand(context: CommandContext, repair: string, flags: RepairFlags): Promise<number> {
  if (!/^r[0-9a-f]{16}$/.test(repair)) throw new UsageError(`"${repair}" is no name of a repair: r and 16 hex digits`);
  const key = proposersKey(context, flags);
  if (!(await confirm(context, `What repair ${repair} has changed is put back. Go on?`, flags.yes === true))) {
    context.print('Nothing was changed.');
    return exitCode.failed;
  }
  if (key !== undefined) {
    const { id, signed } = proposePlan(context, { undo: repair }, key);
    if (flags.json === true) context.printJson({ waiting: id, ...signed });
    else context.print(waitingText(context, id, signed));
    return exitCode.differences;
  }
  return carryOutUndo(context, repair, undefined, flags.json === true);
}

async function carryOutUndo(
  context: CommandContext,
  repair: string,
  signed: SignedPlan | undefined,
  json: boolean,
): Promise<number> {
  return context.withCluster(async (bus) => {
    const at = new Date(context.clock.wallMs()).toISOString();
    const answers = await Promise.all(
      bus.processes.map(async (node) => {
        try {
          const counts = await callApproved(bus, node, 'repair.undo', { repair }, signed, 10 * callTimeoutMs);
          return { node, ...(counts as { known: boolean; changed: number; already: number; newer: number }) };
        } catch (error) {
          return { node, failed: describeError(error) };
        }
      }),
    );
    const known = answers.filter((each) => 'failed' in each || each.known);
    if (known.length === 0) throw new SwitchError('REPAIR_REFUSED', `no process has an undo file of ${repair}`);
    await keepRepair(context, bus, repair, at, { undone: true }, answers, signed);
    if (json) context.printJson({ repair, nodes: answers });
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
  const made = step.recomputed === true ? " as its log's entries make it" : '';
  const from = step.kind === 'put' ? ` ${step.sources.join(' or ')}${made}` : '';
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
