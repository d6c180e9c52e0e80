import type { Command } from 'commander';

import { exitCode, formatTable, nodeOf, operatorName, type CommandContext } from '../context.ts';
import { describe, type QueuedReport } from '../node/change-queue.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { askNodes, confirm } from './asking.ts';
import { counted } from './wording.ts';

/** `quadrant config queue --json`. */
export interface QueueReport {
  /** The oldest first, for each node. */
  readonly nodes: readonly { readonly node: string; readonly changes: readonly QueuedReport[] }[];
  /** Nodes that did not answer. */
  readonly missing: readonly string[];
}

/** Asks nodes for the changes that were queued at them, and what became of each. */
export async function queueReport(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  node: string | undefined,
): Promise<QueueReport> {
  const { answers, missing } = await askNodes(bus, node, 'configuration.queued');
  return {
    nodes: answers.map(({ node: at, answer: changes }) => ({ node: at, changes: changes as readonly QueuedReport[] })),
    missing,
  };
}

export function queueText({ nodes, missing }: QueueReport): string {
  const rows = nodes.flatMap(({ node, changes }) =>
    changes.map((each) => [node, each.id, new Date(each.at).toISOString(), each.by, rowsOf(each), describe(each)]),
  );
  return [
    rows.length === 0
      ? 'No change of the configuration was queued.'
      : formatTable([['node', 'change', 'queued at', 'by', 'rows', 'outcome'], ...rows]),
    ...(missing.length === 0 ? [] : [`! ${missing.join(', ')} did not answer: what is queued there is missing.`]),
  ].join('\n');
}

function rowsOf({ rows }: QueuedReport): string {
  const [first, ...more] = rows;
  if (first === undefined) return '-';
  return more.length === 0 ? first : `${first} and ${counted(more.length, 'more row')}`;
}

export function registerConfigQueue(config: Command, run: RunCommand): void {
  const queue = config
    .command('queue')
    .description('changes entered with --queue: waiting for a majority of config, entered, or refused with the reason')
    .option('--node <id>', 'only those queued at this node (default: at every node)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExit codes: 0 good, 4 some node could not be asked')
    .action((options: { node?: string; json?: boolean }) =>
      run(async (context) => {
        const report = await context.withCluster((bus) => queueReport(bus, options.node));
        if (options.json === true) context.printJson(report);
        else context.print(queueText(report));
        return report.missing.length === 0 ? exitCode.good : exitCode.unreachable;
      }),
    );
  queue
    .command('drop')
    .argument('<change>', 'as `config queue` shows it')
    .description('has a change that waits not entered any more')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .action((id: string, options: { yes?: boolean; json?: boolean }) =>
      run((context) => context.withCluster((bus) => drop(context, bus, id, options))),
    );
}

/** A change's name begins with the node that keeps it. */
async function drop(
  context: CommandContext,
  bus: OperatorBus,
  id: string,
  options: { readonly yes?: boolean; readonly json?: boolean },
): Promise<number> {
  const node = nodeOf(bus.topology, id.split('-')[0] ?? '');
  if (!(await confirm(context, `Drop the change ${id} that waits at ${node}?`, options.yes === true))) {
    return exitCode.failed;
  }
  const report = (await bus.call(node, 'configuration.drop', { id, by: operatorName() })) as QueuedReport;
  if (options.json === true) context.printJson(report);
  else context.print(`${id}: ${describe(report)}.`);
  return report.outcome === 'dropped' ? exitCode.good : exitCode.failed;
}
