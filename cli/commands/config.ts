import type { Command } from 'commander';

import { explanationText, type Explanation } from '../../config-db/explain.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, reachableNode, type CommandContext } from '../context.ts';
import type { ListedRow } from '../node/configuration-reports.ts';
import type { RunCommand } from '../run-command.ts';
import { registerConfigQueue } from './config-queue.ts';
import { registerConfigShell } from './config-shell.ts';
import { readCardNumber } from './asking.ts';
import { registerChanges } from './config-change.ts';
import { listRows } from './config-rows.ts';
import { registerRules } from './config-rules.ts';
import { registerReports } from './config-show.ts';

export function registerConfig(program: Command, run: RunCommand): void {
  const config = program.command('config').description('ranges, failover map, limits and links');
  registerConfigShell(config, run);
  registerConfigQueue(config, run);
  config
    .command('list')
    .description('the configuration as a node holds it: what was entered, and what the node made of it')
    .option('--node <id>', 'which node to ask (default: the first that answers)')
    .option('--all-nodes', 'derived columns of every node side by side')
    .option('--table <name>', 'only this table')
    .option('--json', 'as JSON')
    .action((options: { node?: string; allNodes?: boolean; table?: string; json?: boolean }) =>
      run((context) => listConfiguration(context, options)),
    );
  config
    .command('explain')
    .argument('[pan]', 'card number, or its leading digits made up to one; - or nothing reads standard input')
    .description('what a node does for a card, who takes over in which order, and which rule made it so')
    .option('--node <id>', 'which node to ask (default: the first that answers)')
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: { node?: string; json?: boolean }) =>
      run(async (context) => {
        const number = await readCardNumber(context, pan);
        const explanation = await context.withCluster(async (bus) => {
          const node = await reachableNode(bus, options.node);
          return (await bus.call(node, 'configuration.explain', { pan: number })) as Explanation;
        });
        if (options.json === true) context.printJson({ ...explanation, range: explanation.range });
        else context.print(explanationText(explanation));
        return exitCode.good;
      }),
    );
  registerReports(config, run);
  registerChanges(config, run);
  registerRules(config, run);
}

async function listConfiguration(
  context: CommandContext,
  options: { readonly node?: string; readonly allNodes?: boolean; readonly table?: string; readonly json?: boolean },
): Promise<number> {
  const lists = await context.withCluster(async (bus) => {
    const nodes =
      options.allNodes === true ? bus.topology.nodes.map((node) => node.id) : [await reachableNode(bus, options.node)];
    return Promise.all(
      nodes.map(async (node) => {
        const rows = await listRows(bus, node);
        return { node, rows: rows.filter((row) => options.table === undefined || row.table === options.table) };
      }),
    );
  });
  if (options.json === true) {
    context.printJson(options.allNodes === true ? { nodes: lists } : lists[0]);
    return exitCode.good;
  }
  const [first] = lists;
  if (first === undefined) return exitCode.failed;
  if (first.rows.length === 0) {
    throw new UsageError(
      options.table === undefined ? 'the configuration is empty' : `no rows in table "${options.table}"`,
    );
  }
  for (const table of new Set(first.rows.map((row) => row.table))) {
    context.print(`\n${table}`);
    const rows = first.rows.filter((row) => row.table === table);
    context.print(options.allNodes === true ? sideBySide(table, lists) : plainTable(first.node, rows));
  }
  return exitCode.good;
}

const longTexts: ReadonlySet<string> = new Set(['rules']);

function cells(row: Readonly<Record<string, string | number | null>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(row).map(([column, value]) => [
      column,
      longTexts.has(column) ? '(shown with --json)' : value === null ? '-' : String(value),
    ]),
  );
}

function plainTable(node: string, rows: readonly ListedRow[]): string {
  const canonical = Object.keys(rows[0]?.row ?? {});
  const derived = Object.keys(rows[0]?.derived ?? {});
  const heads = [...canonical, ...derived.map((column) => `${node}:${column}`)];
  const lines = rows.map((row) => {
    const values = cells(row.row);
    const own = cells(row.derived ?? {});
    return [...canonical.map((column) => values[column] ?? ''), ...derived.map((column) => own[column] ?? '')];
  });
  return formatTable([heads, ...lines]);
}

/** One canonical form, and below it what each node derives. */
function sideBySide(
  table: string,
  lists: readonly { readonly node: string; readonly rows: readonly ListedRow[] }[],
): string {
  const [first] = lists;
  const rows = (first?.rows ?? []).filter((row) => row.table === table);
  return rows
    .flatMap((row) => {
      const canonical = Object.entries(cells(row.row)).map(([column, value]) => `${column}=${value}`);
      const key = JSON.stringify(row.row);
      const ofNodes = lists.map(({ node, rows: theirs }) => {
        const same = theirs.find((other) => other.table === table && JSON.stringify(other.row) === key);
        return { node, derived: same?.derived };
      });
      const lines = ofNodes.flatMap(({ node, derived }) =>
        derived === undefined ? [] : [[`  ${node}`, ...Object.entries(cells(derived)).map(([c, v]) => `${c}=${v}`)]],
      );
      return [canonical.join('  '), ...(lines.length === 0 ? [] : [formatTable(lines)])];
    })
    .join('\n');
}
