import { readFileSync } from 'node:fs';

import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import type { Operator } from '../../base/topology.ts';
import { changeDigest, operatorOf, refusalOf, signersOf, signPlan, type SignedPlan } from '../../compare/approval.ts';
import { planRepair, type RepairChoice, type RepairPlan } from '../../compare/repair-plan.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, type CommandContext } from '../context.ts';
import { loadCompare } from '../kept-compare.ts';
import { keepPlan, loadPlan, planId, planNames, removePlan, type WaitingPlan } from '../plan-folder.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';

/** Carries out what was approved: the exit code, and whether it is through. */
export interface ApprovedActions {
  readonly repair: (context: CommandContext, plan: RepairPlan, signed: SignedPlan, json: boolean) => Promise<number>;
  readonly undo: (context: CommandContext, repair: string, signed: SignedPlan, json: boolean) => Promise<number>;
}

/** Whether nodes.yaml has rows changed only when several persons agree. */
export function needsApproval(context: Pick<CommandContext, 'topology'>): boolean {
  return context.topology().repair.approvals > 1;
}

/**
 * Keeps the plan for others to approve. `key`: the file of the private key of the operator who proposes it; undefined:
 * nobody's, as of the nightly run.
 */
export function proposePlan(
  context: Pick<CommandContext, 'topology' | 'clock' | 'dataFolder'>,
  what: { readonly plan: RepairPlan; readonly choice: RepairChoice } | { readonly undo: string },
  key: string | undefined,
): { readonly id: string; readonly signed: SignedPlan } {
  const { cluster, repair } = context.topology();
  const nowMs = context.clock.wallMs();
  const expiresAt = new Date(nowMs + repair.planHours * 3_600_000).toISOString();
  const changes = 'undo' in what ? [] : digestsOf(what.plan);
  const head = { cluster, expiresAt, changes, signatures: [] };
  const unsigned: SignedPlan =
    'undo' in what
      ? { ...head, action: 'undo', repair: what.undo }
      : { ...head, action: 'repair', repair: what.plan.repair };
  const signed = key === undefined ? unsigned : sign(context, unsigned, key);
  const kept = 'undo' in what ? { signed } : { signed, report: what.plan.compare, choice: what.choice };
  return { id: keepPlan(context.dataFolder, kept), signed };
}

function digestsOf({ steps }: RepairPlan): string[] {
  return steps.map((step) => changeDigest(step.node, step.group, step)).sort();
}

/** Throws UsageError where the key is none of an operator of nodes.yaml. */
function sign(context: Pick<CommandContext, 'topology' | 'clock'>, plan: SignedPlan, file: string): SignedPlan {
  const { id, privateKey } = operatorIn(context, file);
  if (signersOf(plan, context.topology().repair.operators).includes(id)) {
    throw new SwitchError(
      'REPAIR_NOT_APPROVED',
      `${id} has signed plan ${planId(plan)} already: another operator has to`,
    );
  }
  return signPlan(plan, id, privateKey, new Date(context.clock.wallMs()).toISOString());
}

function operatorIn(
  context: Pick<CommandContext, 'topology'>,
  file: string,
): Operator & { readonly privateKey: string } {
  let found: Operator | undefined;
  let privateKey: string;
  try {
    privateKey = readFileSync(file, 'utf8');
    found = operatorOf(privateKey, context.topology().repair.operators);
  } catch {
    // No cause: what cannot be read may be a key all the same.
    throw new UsageError(`--key ${file}: there is no Ed25519 private key in PEM`);
  }
  if (found === undefined)
    throw new UsageError(`--key ${file}: nodes.yaml has no operator with this key under repair.operators`);
  return { ...found, privateKey };
}

export function waitingText(context: Pick<CommandContext, 'topology'>, id: string, signed: SignedPlan): string {
  const { approvals, operators } = context.topology().repair;
  const signers = signersOf(signed, operators);
  const left = approvals - signers.length;
  return [
    `Plan ${id} waits for ${left} ${left === 1 ? 'approval' : 'approvals'}, until ${signed.expiresAt}. Nothing was changed.`,
    `Signed by ${signers.length === 0 ? 'nobody' : signers.join(', ')}. Another operator: quadrant repair approve ${id} --key FILE`,
  ].join('\n');
}

/** Adds `approve` and `plans` to `repair`. */
export function registerApproval(
  repair: Command,
  run: RunCommand,
  actions: ApprovedActions,
  describe: (plan: RepairPlan) => string,
): void {
  repair
    .command('approve')
    .argument('<plan>', 'the name of a plan: p and 12 hex digits')
    .description('signs a plan that waits for approval; with the last approval that it needs it is carried out')
    .option('--key <file>', "the operator's own private key (Ed25519, PEM)")
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .addHelpText('after', approveHelp)
    .action((id: string, _flags: unknown, command: Command) =>
      run(async (context) => {
        // `repair` has the same options, and takes them.
        const flags = command.optsWithGlobals<{ key?: string; yes?: boolean; json?: boolean }>();
        if (flags.key === undefined) throw new UsageError('approve signs with your own private key: --key FILE');
        const waiting = loadPlan(context.dataFolder, id);
        const plan = planOf(context, id, waiting);
        const { cluster, repair: rules } = context.topology();
        const signers = signersOf(waiting.signed, rules.operators);
        // One that was approved and killed is carried on by any of those who have signed it.
        const resumes = signers.length >= rules.approvals && signers.includes(operatorIn(context, flags.key).id);
        const signed = resumes ? waiting.signed : sign(context, waiting.signed, flags.key);
        const refusal = refusalOf(signed, { cluster, ...rules, approvals: 1 }, context.clock.wallMs());
        if (refusal !== undefined) throw new SwitchError('REPAIR_NOT_APPROVED', refusal);
        const isLast = signersOf(signed, rules.operators).length >= rules.approvals;
        if (flags.json !== true && plan !== undefined) context.print(describe(plan));
        const then = isLast ? 'It is carried out now.' : 'Others have to approve it, too.';
        if (!(await confirm(context, `Approve plan ${id}? ${then}`, flags.yes === true))) {
          context.print('Nothing was signed.');
          return exitCode.failed;
        }
        keepPlan(context.dataFolder, { ...waiting, signed });
        if (!isLast) {
          context.print(waitingText(context, id, signed));
          return exitCode.differences;
        }
        const code =
          plan === undefined
            ? await actions.undo(context, signed.repair, signed, flags.json === true)
            : await actions.repair(context, plan, signed, flags.json === true);
        if (code === exitCode.good || code === exitCode.differences) removePlan(context.dataFolder, id);
        return code;
      }),
    );
  repair
    .command('plans')
    .description('lists the plans that wait for approval')
    .option('--json', 'as JSON')
    .action((_flags: unknown, command: Command) =>
      run((context) => {
        const plans = listPlans(context);
        if (command.optsWithGlobals<{ json?: boolean }>().json === true) context.printJson(plans);
        else if (plans.length === 0) context.print('No plan waits.');
        else {
          const rows = plans.map((each) => [
            each.id,
            each.what,
            String(each.rows),
            each.signedBy.join(', '),
            each.state,
          ]);
          context.print(formatTable([['plan', 'what', 'rows', 'signed by', 'state'], ...rows]));
        }
        return Promise.resolve(exitCode.good);
      }),
    );
}

function listPlans(context: CommandContext) {
  const { operators } = context.topology().repair;
  return planNames(context.dataFolder).map((id) => {
    try {
      const { signed, report } = loadPlan(context.dataFolder, id);
      const isOver = Date.parse(signed.expiresAt) <= context.clock.wallMs();
      return {
        id,
        what: report === undefined ? `undo of ${signed.repair}` : `repair by ${report}`,
        rows: signed.changes.length,
        signedBy: signersOf(signed, operators),
        state: isOver ? `expired ${signed.expiresAt}` : `waits until ${signed.expiresAt}`,
      };
    } catch (error) {
      if (!(error instanceof SwitchError)) throw error;
      return { id, what: '', rows: 0, signedBy: [], state: error.message };
    }
  });
}

/** What the report asks for now: it has to be what was signed. Undefined of an undo. */
function planOf(context: CommandContext, id: string, { signed, report, choice }: WaitingPlan): RepairPlan | undefined {
  if (signed.action === 'undo') return undefined;
  const { compare, groups } = loadCompare(context, report ?? '');
  const plan = planRepair(compare, groups, {
    ...(choice?.source !== undefined && { source: choice.source }),
    ...(choice?.reverse !== undefined && { reverse: choice.reverse }),
  });
  if (plan.repair !== signed.repair || JSON.stringify(digestsOf(plan)) !== JSON.stringify(signed.changes)) {
    throw new SwitchError('REPAIR_NOT_APPROVED', `plan ${id} is not what report ${compare} asks for`);
  }
  return plan;
}

const approveHelp = `
nodes.yaml says under repair how many different operators have to sign (approvals), who they are (operators), and how long a
plan waits (planHours). Every node checks each change against the signed plan. What was killed is gone on with by giving
the command again.

Exit codes: 0 all is right now, 3 more approvals are needed or some rows were left alone, 1 failed or nothing was done,
2 usage, 4 nobody can be reached
`;
