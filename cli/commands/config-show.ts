import type { Command } from 'commander';

import type { HistoryRecord } from '../../config-db/configuration-history.ts';
import { keyOfChange } from '../../config-db/configuration-change.ts';
import { toSqlRow } from '../../config-db/rows.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, nodeOf, reachableNode, type CommandContext } from '../context.ts';
import { plainRow, type HistoryPage, type ListedRow } from '../node/configuration-reports.ts';
import type { RunCommand } from '../run-command.ts';
import { changesOfFile } from './config-change.ts';
import { findRow, listRows, type ListedConfiguration } from './config-rows.ts';

/** Records that are shown unless more are asked for. */
const shownRecords = '50';

export function registerReports(config: Command, run: RunCommand): void {
  config
    .command('get')
    .argument('<table>')
    .argument('<key>', 'as `config list` shows it')
    .description('one row: its columns, its version and who changed it last, and what every node makes of it')
    .option('--node <id>', 'which node to ask (default: the first that answers)')
    .option('--json', 'as JSON')
    .action((table: string, key: string, options: { readonly node?: string; readonly json?: boolean }) =>
      run((context) => get(context, table, key, options)),
    );
  config
    .command('history')
    .argument('[table]')
    .argument('[key]', 'as `config list` shows it')
    .description('who changed which row, when, at which node, under which rules; the newest first')
    .option('--last <count>', 'how many changes of rows', shownRecords)
    .option('--node <id>', 'which node to ask (default: the first that answers)')
    .option('--json', 'as JSON')
    .action(
      (
        table: string | undefined,
        key: string | undefined,
        options: { readonly node?: string; readonly last: string; readonly json?: boolean },
      ) => run((context) => history(context, table, key, options)),
    );
  config
    .command('diff')
    .argument('<file-or-node>', 'a file of rows, held against what is in force; or one node')
    .argument('[node]', 'another node: every row of both, with what each makes of it')
    .description('what differs; exit code 3 when something does')
    .option('--node <id>', 'whose rows a file is held against (default: the first that answers)')
    .option('--json', 'as JSON')
    .action((one: string, other: string | undefined, options: { readonly node?: string; readonly json?: boolean }) =>
      run((context) => diff(context, one, other, options)),
    );
}

async function get(
  context: CommandContext,
  table: string,
  key: string,
  options: { readonly node?: string; readonly json?: boolean },
): Promise<number> {
  const { asked, rows } = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    const answering = await Promise.all(
      bus.topology.nodes.map(async ({ id }) => ({ node: id, up: (await bus.status(id)) !== undefined })),
    );
    const lists = await Promise.all(
      answering.filter(({ up }) => up).map(async (each) => ({ node: each.node, list: await listRows(bus, each.node) })),
    );
    return { asked: node, rows: lists.map((each) => ({ node: each.node, row: findRow(each.list, table, key) })) };
  });
  const row = rows.find(({ node }) => node === asked)?.row;
  if (row === undefined) throw new UsageError(`${asked} has no row ${table} ${key}`);
  if (options.json === true) {
    context.printJson({ ...row, nodes: rows.map((each) => ({ node: each.node, ...each.row })) });
    return exitCode.good;
  }
  const { version, by, origin, at } = row;
  context.print(`${table} ${key}: version ${version}, entered by ${by} at ${origin} on ${new Date(at).toISOString()}`);
  context.print(formatTable(Object.entries(row.row).map(([column, value]) => [`  ${column}`, shown(value)])));
  if (row.derived !== undefined) {
    const names = Object.keys(row.derived).filter((column) => column !== 'derived_by');
    context.print('');
    context.print(
      formatTable([
        ['column', ...rows.map(({ node }) => node)],
        ...names.map((column) => [column, ...rows.map((each) => shown(each.row?.derived?.[column] ?? null))]),
      ]),
    );
  }
  return exitCode.good;
}

async function history(
  context: CommandContext,
  table: string | undefined,
  key: string | undefined,
  options: { readonly node?: string; readonly last: string; readonly json?: boolean },
): Promise<number> {
  if (!/^[1-9][0-9]{0,6}$/.test(options.last)) throw new UsageError('--last takes a number');
  const wanted = Number(options.last);
  const records = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    const all: HistoryRecord[] = [];
    for (let from: number | undefined = 0; from !== undefined && all.length < wanted;) {
      const page = (await bus.call(node, 'configuration.history', { from, table, key })) as HistoryPage;
      all.push(...page.records);
      from = page.next;
    }
    return all.slice(0, wanted);
  });
  if (options.json === true) {
    context.printJson(records);
    return exitCode.good;
  }
  context.print(records.length === 0 ? 'No changes.' : records.map(historyText).join('\n\n'));
  return exitCode.good;
}

export function historyText(record: HistoryRecord): string {
  const { index, table, key, before, after, by, origin, at, ruleSetVersion, change } = record;
  const what = before === null ? 'entered' : after === null ? 'deleted' : 'changed';
  const was = columnsOf(before);
  const will = columnsOf(after);
  const columns = [...new Set([...Object.keys(was), ...Object.keys(will)])].filter(
    (column) => was[column] !== will[column],
  );
  return [
    `${index}  ${table} ${key} ${what} by ${by} at ${origin} on ${new Date(at).toISOString()}`,
    `    change ${change}, rule set ${ruleSetVersion ?? 'none'}`,
    ...columns.map((column) => `    ${column}: ${brief(was[column])} -> ${brief(will[column])}`),
  ].join('\n');
}

function columnsOf(json: string | null): Record<string, string> {
  if (json === null) return {};
  const row = JSON.parse(json) as Record<string, unknown>;
  return Object.fromEntries(Object.entries(row).map(([column, value]) => [column, JSON.stringify(value)]));
}

const longestShown = 80;

function brief(text: string | undefined): string {
  if (text === undefined) return '-';
  return text.length > longestShown ? `(${text.length} characters)` : text;
}

function shown(value: string | number | null): string {
  return value === null || value === '' ? '-' : brief(String(value));
}

interface RowDifference {
  readonly row: string;
  /** Empty where the row is on one side only. */
  readonly columns: readonly { readonly column: string; readonly one: string; readonly other: string }[];
  readonly only: 'one' | 'other' | undefined;
}

async function diff(
  context: CommandContext,
  one: string,
  other: string | undefined,
  options: { readonly node?: string; readonly json?: boolean },
): Promise<number> {
  const { names, differences } = await context.withCluster(async (bus) => {
    if (other === undefined) {
      const node = await reachableNode(bus, options.node);
      return { names: [one, node], differences: fileDifferences(await listRows(bus, node), one) };
    }
    const nodes = [nodeOf(bus.topology, one), nodeOf(bus.topology, other)] as const;
    const [left, right] = await Promise.all([listRows(bus, nodes[0]), listRows(bus, nodes[1])]);
    return { names: nodes, differences: differencesOf(contentOf(left, true), contentOf(right, true)) };
  });
  if (options.json === true) context.printJson({ one: names[0], other: names[1], rows: differences });
  else if (differences.length === 0) context.print(`No differences between ${names.join(' and ')}.`);
  else context.print(differences.map((each) => differenceText(each, names)).join('\n'));
  return differences.length === 0 ? exitCode.good : exitCode.differences;
}

type Content = ReadonlyMap<string, Readonly<Record<string, string>>>;

/** By row its columns; of two nodes what each makes of it, too: there derived columns differ by design. */
function contentOf(rows: ListedConfiguration, derived: boolean): Content {
  return new Map(
    rows.map((row) => [
      `${row.table} ${row.key}`,
      {
        ...shownColumns(row.row),
        ...(derived ? { version: String(row.version), ...shownColumns(row.derived ?? {}) } : {}),
      },
    ]),
  );
}

function shownColumns(row: ListedRow['row']): Record<string, string> {
  return Object.fromEntries(Object.entries(row).map(([column, value]) => [column, shown(value)]));
}

/** The rows that a file names, as it has them, against those in force. */
function fileDifferences(there: ListedConfiguration, file: string): RowDifference[] {
  const changes = changesOfFile(there, { configuration: file, rules: undefined }).map((each) => each.change);
  const named = new Set(changes.map((change) => `${change.table} ${keyOfChange(change)}`));
  const wanted = changes.flatMap((change): [string, Record<string, string>][] =>
    change.operation === 'put'
      ? [[`${change.table} ${keyOfChange(change)}`, shownColumns(plainRow(toSqlRow(change.row)))]]
      : [],
  );
  const present = [...contentOf(there, false)].filter(([name]) => named.has(name));
  return differencesOf(new Map(wanted), new Map(present));
}

function differencesOf(one: Content, other: Content): RowDifference[] {
  return [...new Set([...one.keys(), ...other.keys()])].flatMap((row): RowDifference[] => {
    const [here, there] = [one.get(row), other.get(row)];
    if (here === undefined || there === undefined) {
      return [{ row, columns: [], only: there === undefined ? 'one' : 'other' }];
    }
    const columns = Object.keys({ ...here, ...there })
      .filter((column) => here[column] !== there[column])
      .map((column) => ({ column, one: here[column] ?? '-', other: there[column] ?? '-' }));
    return columns.length === 0 ? [] : [{ row, columns, only: undefined }];
  });
}

function differenceText({ row, columns, only }: RowDifference, [one = '', other = '']: readonly string[]): string {
  if (only !== undefined) return `${row}: only ${only === 'one' ? one : other} has it`;
  const lines = columns.map((each) => [`  ${each.column}`, brief(each.one), brief(each.other)]);
  return `${row}\n${formatTable([['  column', one, other], ...lines])}`;
}
