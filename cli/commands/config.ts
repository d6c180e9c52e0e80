import { readFileSync } from 'node:fs';

import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { changesOf, loadConfigurationFile, validateConfiguration } from '../../config-db/configuration.ts';
import { explanationText, type Explanation } from '../../config-db/explain.ts';
import { readRuleSetFile } from '../../config-db/rewrite.ts';
import { encodeConfigurationChange, formatProblem } from '../../config-db/rows.ts';
import { systemErrorCode, UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, nodeOf, operatorName, reachableNode, type CommandContext } from '../context.ts';
import { maximumEntryBytes } from '../node/configuration-desk.ts';
import type { ListedPage, ListedRow } from '../node/operations.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm, readCardNumber } from './asking.ts';

/** The rules that the project ships; they are data, entered with the first configuration. */
const shippedRules = new URL('../../config-db/rewrite-rules.yaml', import.meta.url);

/** Enters a whole configuration file; the log index of the change, 0 when nothing was new. */
export async function loadConfiguration(
  bus: OperatorBus,
  node: string,
  files: { readonly configuration: string; readonly rules: string | undefined },
): Promise<number> {
  const rulesFile = files.rules ?? shippedRules;
  const configuration = {
    ...loadConfigurationFile(readText(files.configuration), files.configuration),
    rewrite_rule_set: [readRuleSetFile(readText(rulesFile), files.rules ?? 'config-db/rewrite-rules.yaml')],
  };
  const problems = validateConfiguration(configuration, bus.topology);
  if (problems.length > 0) throw new SwitchError('CONFIGURATION_REFUSED', problems.map(formatProblem).join('; '));
  const changes = changesOf(configuration).map(encodeConfigurationChange);
  const bytes = changes.reduce((sum, change) => sum + change.length, 0);
  if (bytes > maximumEntryBytes) {
    throw new SwitchError(
      'CONFIGURATION_REFUSED',
      `${files.configuration} makes a change of ${bytes} bytes; at most ${maximumEntryBytes} can be entered as one`,
      { hint: 'Nothing was changed. Enter it in parts: the first with all groups, each later one with more ranges.' },
    );
  }
  return (await bus.call(nodeOf(bus.topology, node), 'configuration.enter', { by: operatorName(), changes })) as number;
}

function readText(file: string | URL): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read ${String(file)}: ${systemErrorCode(error)}`);
  }
}

export function registerConfig(program: Command, run: RunCommand): void {
  const config = program.command('config').description('ranges, failover map, limits and links');
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
  config
    .command('load')
    .argument('<file>', 'YAML as in config-db/samples/configuration.yaml')
    .description('enters a configuration file: all of it or nothing')
    .option('--rules <file>', 'rewrite rules (default: those shipped)')
    .option('--node <id>', 'where to enter it (default: the first node that answers)')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .action((file: string, options: { rules?: string; node?: string; yes?: boolean; json?: boolean }) =>
      run(async (context) => {
        if (!(await confirm(context, `Enter the configuration of ${file} into the cluster?`, options.yes === true))) {
          return exitCode.failed;
        }
        const index = await context.withCluster(async (bus) => {
          const node = await reachableNode(bus, options.node);
          return loadConfiguration(bus, node, { configuration: file, rules: options.rules });
        });
        if (options.json === true) context.printJson({ index });
        else
          context.print(index === 0 ? 'Nothing to change: every row is as in the file.' : `Entered at index ${index}.`);
        return exitCode.good;
      }),
    );
}

/** Every row as the node holds it, page by page. */
export async function listRows(bus: OperatorBus, node: NodeId): Promise<readonly ListedRow[]> {
  const rows: ListedRow[] = [];
  for (let next: number | undefined = 0; next !== undefined;) {
    const page = (await bus.call(node, 'configuration.list', { from: next })) as ListedPage;
    rows.push(...page.rows);
    next = page.next;
  }
  return rows;
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
