import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import { formatAmount } from '../../base/money.ts';
import type { StandInApproval } from '../../store/ledger-reports.ts';
import { exitCode, formatTable } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { counted } from './wording.ts';

export interface StandInTotal {
  readonly currency: string;
  readonly approvals: number;
  readonly pending: number;
  readonly amountMinor: string;
  readonly overspent: number;
  readonly overspentMinor: string;
}

export interface StandInReport {
  readonly approvals: readonly StandInApproval[];
  readonly totals: readonly StandInTotal[];
  /** Nodes that did not answer: what only they know is missing. */
  readonly missing: readonly string[];
}

/** Asks every node; an approval that several know of stands in the report once. */
export async function standInReport(bus: Pick<OperatorBus, 'call' | 'topology'>): Promise<StandInReport> {
  const missing: string[] = [];
  const known = new Map<string, StandInApproval>();
  const answers = await Promise.all(
    bus.topology.nodes.map(async ({ id }) => {
      try {
        return (await bus.call(id, 'standin.report', {})) as { readonly approvals: readonly StandInApproval[] };
      } catch (error) {
        if (!(error instanceof SwitchError && error.code === 'NODE_UNREACHABLE')) throw error;
        missing.push(id);
        return { approvals: [] };
      }
    }),
  );
  for (const approval of answers.flatMap(({ approvals }) => approvals)) {
    const key = `${approval.node} ${approval.sequence}`;
    // Its edge may not have heard yet that the approval has been entered.
    if (known.get(key)?.state !== 'entered') known.set(key, approval);
  }
  const approvals = [...known.values()].sort(
    (one, other) => one.at - other.at || (one.node < other.node ? -1 : 1) || one.sequence - other.sequence,
  );
  return { approvals, totals: totalsOf(approvals), missing };
}

/** By currency: amounts of different currencies have no sum. */
function totalsOf(approvals: readonly StandInApproval[]): readonly StandInTotal[] {
  return [...new Set(approvals.map(({ currency }) => currency))].sort().map((currency) => {
    const of = approvals.filter((approval) => approval.currency === currency);
    const sum = (amount: (approval: StandInApproval) => string): string =>
      of.reduce((total, approval) => total + BigInt(amount(approval)), 0n).toString();
    return {
      currency,
      approvals: of.length,
      pending: of.filter(({ state }) => state === 'pending').length,
      amountMinor: sum(({ amountMinor }) => amountMinor),
      overspent: of.filter(({ overspentMinor }) => BigInt(overspentMinor) > 0n).length,
      overspentMinor: sum(({ overspentMinor }) => overspentMinor),
    };
  });
}

export function standInText({ approvals, totals, missing }: StandInReport): string {
  const rows = approvals.map((each) => [
    new Date(each.at).toISOString(),
    each.node,
    String(each.sequence),
    each.group,
    each.card,
    formatAmount(BigInt(each.amountMinor), each.currency),
    each.state,
    BigInt(each.overspentMinor) === 0n ? '-' : formatAmount(BigInt(each.overspentMinor), each.currency),
  ]);
  const sums = totals.map(
    ({ currency, approvals: count, pending, amountMinor, overspent, overspentMinor }) =>
      `${counted(count, 'approval')} of ${formatAmount(BigInt(amountMinor), currency)}, ${pending} not entered yet; ` +
      `${overspent} overspent by ${formatAmount(BigInt(overspentMinor), currency)}`,
  );
  return [
    ...(rows.length === 0
      ? ['No stand-in approvals.']
      : [formatTable([['approved at', 'node', 'number', 'group', 'card', 'amount', 'state', 'overspent'], ...rows])]),
    ...sums,
    ...(missing.length === 0 ? [] : [`! ${missing.join(', ')} did not answer: what only they know is missing.`]),
  ].join('\n');
}

export function registerStandIn(program: Command, run: RunCommand): void {
  const standIn = program.command('stand-in').description('approvals that edges gave while no owner could be reached');
  standIn
    .command('report')
    .description('what was approved in stand-in, whether it is entered, and by how much it overspent')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExit codes: 0 good, 4 some node could not be asked, so the report may lack something')
    .action((options: { json?: boolean }) =>
      run(async (context) => {
        const report = await context.withCluster(standInReport);
        if (options.json === true) context.printJson(report);
        else context.print(standInText(report));
        return report.missing.length === 0 ? exitCode.good : exitCode.unreachable;
      }),
    );
}
