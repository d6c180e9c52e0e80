import { SwitchError } from '../base/errors.ts';
import { validateConfiguration, type Configuration } from './configuration.ts';
import { problemsOfRangeChanges } from './range-changes.ts';
import type { RewriteTopology } from './rewrite.ts';
import {
  configurationTables,
  formatProblem,
  keyTextOf,
  toSqlRow,
  type ConfigurationChange,
  type ConfigurationTable,
  type Problem,
  type SqlValue,
} from './rows.ts';

/*
 * What a change of the configuration must be like to be entered. Pure: the same configuration and change give the same
 * verdict, at the node that leads `config`, in a dry run at any other, and in tests.
 */

/** The version of a row that is not there. */
export const absent = 0;

/** A change, and the version of the row that it is meant to replace: what its author has seen. */
export interface VersionedChange {
  readonly change: ConfigurationChange;
  /** Log index of the row's last change; `absent` when it is meant to be new. */
  readonly replaces: number;
}

/** A row's last change. */
export interface RowVersion {
  readonly version: number;
  readonly by: string;
  readonly origin: string;
  /** Wall clock, milliseconds since 1970. */
  readonly at: number;
}

/** The configuration with the version of every row, at one log index. */
export interface VersionedConfiguration {
  readonly rows: Configuration;
  /** Undefined for a row that is not there. */
  readonly versionOf: (table: ConfigurationTable, key: string) => RowVersion | undefined;
}

/**
 * What of the changes is to be entered, in their order: those that change something. `ends`: the move that they end (R12). Throws VERSION_CONFLICT when a row
 * is not the one that its change replaces, CONFIGURATION_REFUSED with every reason when the result may not be.
 */
export function planChanges(
  before: VersionedConfiguration,
  changes: readonly VersionedChange[],
  topology: RewriteTopology,
  ends?: string,
): ConfigurationChange[] {
  refuse(repeated(changes.map(({ change }) => change)));
  const known = contentByKey(before.rows);
  const real = changes.filter(({ change }) => changesSomething(known, change));
  const conflicts = real.flatMap((each) => conflictOf(before, each));
  if (conflicts.length > 0) throw new SwitchError('VERSION_CONFLICT', conflicts.join('; '));
  const wanted = real.map(({ change }) => change);
  refuse([
    ...problemsOfRangeChanges(before.rows, wanted, ends),
    ...groupsDeleted(before.rows, wanted),
    ...rulesRewritten(before.rows, wanted),
  ]);
  refuse(validateConfiguration(applyChanges(before.rows, wanted), topology));
  return wanted;
}

function refuse(problems: readonly Problem[]): void {
  if (problems.length > 0) throw new SwitchError('CONFIGURATION_REFUSED', problems.map(formatProblem).join('; '));
}

/** The configuration with the changes made. */
export function applyChanges(before: Configuration, changes: readonly ConfigurationChange[]): Configuration {
  const tables = configurationTables.map((table) => {
    const rows = new Map<string, unknown>(before[table].map((row) => [keyTextOf(table, toSqlRow(row)), row]));
    for (const change of changes) {
      if (change.table !== table) continue;
      if (change.operation === 'put') rows.set(keyOfChange(change), change.row);
      else rows.delete(keyOfChange(change));
    }
    return [table, [...rows.values()]] as const;
  });
  return Object.fromEntries(tables) as unknown as Configuration;
}

export function keyOfChange(change: ConfigurationChange): string {
  return keyTextOf(change.table, contentOf(change));
}

function contentOf(change: ConfigurationChange): Record<string, SqlValue> {
  return toSqlRow(change.operation === 'put' ? change.row : change.key);
}

/** `pan_range 990001`, for people. */
export function nameOfRow(table: ConfigurationTable, key: string): string {
  return `${table} ${key === '' ? "''" : key}`;
}

function repeated(changes: readonly ConfigurationChange[]): Problem[] {
  const seen = new Set<string>();
  return changes.flatMap((change) => {
    const name = nameOfRow(change.table, keyOfChange(change));
    if (seen.has(name)) return [{ path: name, message: 'the same row stands twice in one change' }];
    seen.add(name);
    return [];
  });
}

function contentByKey(configuration: Configuration): ReadonlyMap<string, Record<string, SqlValue>> {
  return new Map(
    configurationTables.flatMap((table) =>
      configuration[table].map((row) => {
        const values = toSqlRow(row);
        return [nameOfRow(table, keyTextOf(table, values)), values] as const;
      }),
    ),
  );
}

function changesSomething(
  known: ReadonlyMap<string, Readonly<Record<string, SqlValue>>>,
  change: ConfigurationChange,
): boolean {
  const row = known.get(nameOfRow(change.table, keyOfChange(change)));
  if (change.operation === 'delete' || row === undefined) return (row === undefined) === (change.operation === 'put');
  return Object.entries(contentOf(change)).some(([column, value]) => row[column] !== value);
}

function conflictOf(before: VersionedConfiguration, { change, replaces }: VersionedChange): string[] {
  const key = keyOfChange(change);
  const present = before.versionOf(change.table, key);
  if ((present?.version ?? absent) === replaces) return [];
  const wanted = replaces === absent ? 'no row yet' : `version ${replaces}`;
  const there =
    present === undefined
      ? 'there is none any more'
      : `version ${present.version} is there, entered by ${present.by} at ${present.origin} on ${new Date(present.at).toISOString()}`;
  return [`${nameOfRow(change.table, key)}: the change replaces ${wanted}, and ${there}`];
}

/** Rules are versioned so that every node can say by which it derived: a version is entered once. */
function rulesRewritten(before: Configuration, changes: readonly ConfigurationChange[]): Problem[] {
  const versions = new Set(before.rewrite_rule_set.map(({ version }) => version));
  return changes.flatMap((change) =>
    change.table === 'rewrite_rule_set' && change.operation === 'put' && versions.has(change.row.version)
      ? [
          {
            path: `rewrite_rule_set ${change.row.version}`,
            message: 'other rules have this version: raise it with every change',
          },
        ]
      : [],
  );
}

function groupsDeleted(before: Configuration, changes: readonly ConfigurationChange[]): Problem[] {
  const groups = new Set(before.failover_map.map((row) => row.group_id));
  return changes.flatMap((change): Problem[] =>
    change.table === 'failover_map' && change.operation === 'delete' && groups.has(change.key.group_id)
      ? [{ path: `failover_map ${change.key.group_id}`, message: 'a group cannot be deleted' }]
      : [],
  );
}
