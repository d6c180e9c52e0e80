import type { Command } from 'commander';

import type { ShellEdit } from '../../config-db/shell-edits.ts';
import { exitCode, formatTable } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { askNodes } from './asking.ts';
import { counted } from './wording.ts';

/** `quadrant config shell --json`. */
export interface ShellReport {
  /** The newest first, for each node. */
  readonly nodes: readonly { readonly node: string; readonly edits: readonly ShellEdit[] }[];
  /** Nodes that did not answer. */
  readonly missing: readonly string[];
}

/** Asks nodes for what became of the edits of their own config.db by the sqlite3 shell. */
export async function shellReport(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  node: string | undefined,
): Promise<ShellReport> {
  const { answers, missing } = await askNodes(bus, node, 'configuration.edits');
  return {
    nodes: answers.map(({ node: at, answer: edits }) => ({ node: at, edits: edits as readonly ShellEdit[] })),
    missing,
  };
}

export function shellText({ nodes, missing }: ShellReport): string {
  const rows = nodes.flatMap(({ node, edits }) =>
    edits.map((edit) => [node, edit.editedAt ?? '-', outcomeOf(edit), rowsOf(edit), edit.reason ?? '']),
  );
  return [
    rows.length === 0
      ? 'Nobody has edited config.db with the sqlite3 shell.'
      : formatTable([['node', 'edited at', 'outcome', 'rows', 'reason'], ...rows]),
    ...(missing.length === 0 ? [] : [`! ${missing.join(', ')} did not answer: their edits are missing.`]),
  ].join('\n');
}

/** Named columns of an edit. */
const maximumColumns = 3;

function outcomeOf({ outcome, index }: ShellEdit): string {
  return outcome === 'entered' ? `entered at ${index ?? '?'}` : outcome === 'refused' ? 'undone' : outcome;
}

function rowsOf({ rows }: ShellEdit): string {
  const [first, ...more] = rows;
  if (first === undefined) return '-';
  const key = first.key === '' ? "''" : first.key;
  const others = first.columns.length - maximumColumns;
  const columns = [...first.columns.slice(0, maximumColumns), ...(others > 0 ? [`${others} more`] : [])].join(', ');
  const one = `${first.edit} ${first.table} ${key}${columns === '' ? '' : ` (${columns})`}`;
  return more.length === 0 ? one : `${one} and ${counted(more.length, 'more row')}`;
}

export function registerConfigShell(config: Command, run: RunCommand): void {
  config
    .command('shell')
    .description('what became of edits of config.db by the sqlite3 shell: entered, undone with the reason, or waiting')
    .option('--node <id>', 'only edits of this node (default: of every node)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExit codes: 0 good, 4 some node could not be asked')
    .action((options: { node?: string; json?: boolean }) =>
      run(async (context) => {
        const report = await context.withCluster((bus) => shellReport(bus, options.node));
        if (options.json === true) context.printJson(report);
        else context.print(shellText(report));
        return report.missing.length === 0 ? exitCode.good : exitCode.unreachable;
      }),
    );
}
