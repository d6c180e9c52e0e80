import { readFileSync } from 'node:fs';

import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import { readChangeFile, type FileChange } from '../../config-db/change-file.ts';
import type { ChangePreview, RowPreview } from '../../config-db/change-preview.ts';
import { absent, keyOfChange, nameOfRow, type VersionedChange } from '../../config-db/configuration-change.ts';
import { readRuleSetFile } from '../../config-db/rule-file.ts';
import {
  encodeConfigurationChange,
  isConfigurationTable,
  keyColumnsOf,
  parseConfigurationRow,
  parseKeyText,
  readColumnText,
  configurationTables,
  type ConfigurationChange,
  type ConfigurationTable,
} from '../../config-db/rows.ts';
import { systemErrorCode, UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, nodeOf, operatorName, reachableNode, type CommandContext } from '../context.ts';
import { maximumEntryBytes } from '../node/configuration-desk.ts';
import { describe, type QueuedReport } from '../node/change-queue.ts';
import { encodeChanges } from '../node/configuration-calls.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm } from './asking.ts';
import { findRow, listRows, type ListedConfiguration } from './config-rows.ts';

/** The rules that the project ships; they are data, entered with the first configuration. */
const shippedRules = new URL('../../config-db/rewrite-rules.yaml', import.meta.url);

export interface ChangeOptions {
  readonly node?: string;
  readonly replaces?: string;
  readonly dryRun?: boolean;
  readonly queue?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export function withChangeFlags(command: Command): Command {
  return command
    .option('--node <id>', 'where to enter it (default: the first node that answers)')
    .option('--dry-run', 'show every row as each node would hold it, and enter nothing')
    .option('--queue', 'keep it at that node until `config` has a majority: see `config queue`')
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON');
}

export function registerChanges(config: Command, run: RunCommand): void {
  withChangeFlags(
    config
      .command('set')
      .argument('<table>', configurationTables.join(', '))
      .argument('<key>', 'as `config list` shows it: 990001, 990001/840')
      .argument('<column=value...>', 'columns to change; of a new row all that have no default; none: no value')
      .description('changes one row, or enters a new one'),
  )
    .option('--replaces <version>', 'the version that is to be replaced (default: the one there now; 0: none)')
    .action((table: string, key: string, settings: readonly string[], options: ChangeOptions) =>
      run((context) =>
        change(context, options, (there) => [changeOfSettings(there, tableOf(table), key, settings, options.replaces)]),
      ),
    );
  withChangeFlags(
    config
      .command('delete')
      .argument('<table>', configurationTables.join(', '))
      .argument('<key>', 'as `config list` shows it')
      .description('deletes one row'),
  )
    .option('--replaces <version>', 'the version that is to be deleted (default: the one there now)')
    .action((table: string, key: string, options: ChangeOptions) =>
      run((context) =>
        change(context, options, (there) => {
          const name = tableOf(table);
          if (findRow(there, name, key) === undefined) throw new UsageError(`${nameOfRow(name, key)} is not there`);
          const gone = { table: name, operation: 'delete', key: parseKeyText(name, key) } as ConfigurationChange;
          return [versioned(there, { change: gone, replaces: versionFlag(options.replaces) })];
        }),
      ),
    );
  withChangeFlags(
    config
      .command('apply')
      .alias('load')
      .argument('<file>', 'YAML as in config-db/samples/configuration.yaml; rows may say `replaces: VERSION`')
      .option('--rules <file>', 'rewrite rules (default: those shipped, when there are none yet)')
      .description('enters the rows of a file, and deletes those below `delete`: all of it or nothing'),
  ).action((file: string, options: ChangeOptions & { readonly rules?: string }) =>
    run((context) =>
      change(context, options, (there) => changesOfFile(there, { configuration: file, rules: options.rules })),
    ),
  );
}

/** Enters a whole configuration file; the log index of the change, 0 when nothing was new. */
export async function loadConfiguration(
  bus: OperatorBus,
  node: string,
  files: { readonly configuration: string; readonly rules: string | undefined },
): Promise<number> {
  const at = nodeOf(bus.topology, node);
  return enter(bus, at, changesOfFile(await listRows(bus, at), files));
}

async function enter(
  bus: OperatorBus,
  node: ReturnType<typeof nodeOf>,
  changes: readonly VersionedChange[],
): Promise<number> {
  const parameters = { by: operatorName(), changes: encoded(changes) };
  return (await bus.call(node, 'configuration.enter', parameters)) as number;
}

/** Throws CONFIGURATION_REFUSED when it is too large to be one change. */
function encoded(changes: readonly VersionedChange[]): ReturnType<typeof encodeChanges> {
  const bytes = changes.reduce((sum, each) => sum + encodeConfigurationChange(each.change).length, 0);
  if (bytes > maximumEntryBytes) {
    throw new SwitchError(
      'CONFIGURATION_REFUSED',
      `the change has ${bytes} bytes; at most ${maximumEntryBytes} can be entered as one`,
      { hint: 'Nothing was changed. Enter it in parts: the first with all groups, each later one with more ranges.' },
    );
  }
  return encodeChanges(changes);
}

/** The node keeps the change and brings it, and says what has become of it so far. */
async function queue(
  context: CommandContext,
  bus: OperatorBus,
  node: ReturnType<typeof nodeOf>,
  changes: readonly VersionedChange[],
  options: ChangeOptions,
): Promise<number> {
  const parameters = { by: operatorName(), changes: encoded(changes) };
  const report = (await bus.call(node, 'configuration.queue', parameters)) as QueuedReport;
  if (options.json === true) context.printJson(report);
  else {
    context.print(`${report.id}: ${describe(report)}.`);
    if (report.outcome === 'waiting') {
      context.print(
        `${node} keeps it, and enters it once when the configuration has a majority: quadrant config queue`,
      );
    }
  }
  return report.outcome === 'refused' ? exitCode.failed : exitCode.good;
}

/** Reads what is there, makes the changes of it, and enters or shows them. */
export async function change(
  context: CommandContext,
  options: ChangeOptions,
  make: (there: ListedConfiguration) => VersionedChange[],
): Promise<number> {
  return context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    const changes = make(await listRows(bus, node));
    if (options.dryRun === true) {
      const preview = (await bus.call(node, 'configuration.preview', {
        changes: encodeChanges(changes),
      })) as ChangePreview;
      if (options.json === true) context.printJson(preview);
      else context.print(previewText(preview));
      return exitCode.good;
    }
    const rows = changes.length === 1 ? nameOf(changes[0]) : `${changes.length} rows`;
    if (!(await confirm(context, `Enter the change of ${rows} into the cluster?`, options.yes === true))) {
      return exitCode.failed;
    }
    if (options.queue === true) return queue(context, bus, node, changes, options);
    const index = await enter(bus, node, changes);
    if (options.json === true) context.printJson({ index });
    else context.print(index === 0 ? 'Nothing to change: every row is as wanted.' : `Entered at index ${index}.`);
    return exitCode.good;
  });
}

function nameOf(each: VersionedChange | undefined): string {
  return each === undefined ? 'nothing' : nameOfRow(each.change.table, keyOfChange(each.change));
}

function tableOf(name: string): ConfigurationTable {
  if (isConfigurationTable(name)) return name;
  throw new UsageError(`there is no table "${name}"; there are ${configurationTables.join(', ')}`);
}

function versionFlag(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,15}$/.test(text))
    throw new UsageError('--replaces takes the version of a row, as `config get` shows it');
  return Number(text);
}

/** What a change does not say that it replaces is what its author has just been shown. */
function versioned(there: ListedConfiguration, { change: wanted, replaces }: FileChange): VersionedChange {
  const row = findRow(there, wanted.table, keyOfChange(wanted));
  return { change: wanted, replaces: replaces ?? row?.version ?? absent };
}

/** The row as it is there with the columns set; a new row, where there is none. */
export function changeOfSettings(
  there: ListedConfiguration,
  table: ConfigurationTable,
  key: string,
  settings: readonly string[],
  replaces: string | undefined,
): VersionedChange {
  const keyValues: object = parseKeyText(table, key);
  const set = settings.map((setting): [string, unknown] => {
    const [, column, text] = /^([a-z_]+)=(.*)$/s.exec(setting) ?? [];
    if (column === undefined || text === undefined) throw new UsageError(`"${setting}": expected column=value`);
    if (keyColumnsOf(table).includes(column)) {
      throw new UsageError(`${column} is the key: enter the row anew under the other key, and delete this one`);
    }
    return [column, readColumnText(table, column, text)];
  });
  const row = { ...findRow(there, table, key)?.row, ...keyValues, ...Object.fromEntries(set) };
  const put = { table, operation: 'put', row: parseConfigurationRow(table, row) } as ConfigurationChange;
  return versioned(there, { change: put, replaces: versionFlag(replaces) });
}

export function changesOfFile(
  there: ListedConfiguration,
  files: { readonly configuration: string; readonly rules: string | undefined },
): VersionedChange[] {
  const changes = readChangeFile(readText(files.configuration), files.configuration);
  const hasRules =
    there.some(({ table }) => table === 'rewrite_rule_set') ||
    changes.some((each) => each.change.table === 'rewrite_rule_set');
  if (files.rules !== undefined || !hasRules) {
    const row = readRuleSetFile(readText(files.rules ?? shippedRules), files.rules ?? 'config-db/rewrite-rules.yaml');
    changes.push({ change: { table: 'rewrite_rule_set', operation: 'put', row }, replaces: undefined });
  }
  return changes.map((each) => versioned(there, each));
}

export function readText(file: string | URL): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read ${String(file)}: ${systemErrorCode(error)}`);
  }
}

/** What a change would do, row by row: the row as entered, and below it what each node would make of it. */
export function previewText(preview: ChangePreview): string {
  const { rows, more, index } = preview;
  if (rows.length === 0) return 'Nothing would change: every row is as wanted.';
  return [
    `Nothing was entered. By the configuration of index ${index} this would change:`,
    ...rows.map(rowText),
    ...(more === 0 ? [] : [`and ${more} more rows.`]),
  ].join('\n\n');
}

function rowText(row: RowPreview): string {
  const { table, key, version, before, after, nodes } = row;
  const how =
    before === null ? 'new' : after === null ? 'deleted' : before === after ? 'derived columns only' : 'changed';
  const lines = nodes.flatMap(({ node, columns }) =>
    columns
      .filter(({ column }) => column !== 'derived_by')
      .map(({ column, before: was, after: will, rule }) => [
        `  ${node}`,
        column,
        shown(was),
        was === will ? '=' : '->',
        shown(will),
        rule,
      ]),
  );
  return [
    `${nameOfRow(table, key)}: ${how}${version === absent ? '' : `, replaces version ${version}`}`,
    ...(before === after ? [] : [`  before ${before ?? '-'}`, `  after  ${after ?? '-'}`]),
    ...(lines.length === 0 ? [] : [formatTable([['  node', 'column', 'before', '', 'after', 'rule'], ...lines])]),
  ].join('\n');
}

function shown(value: string | number | null): string {
  return value === null || value === '' ? '-' : String(value);
}
