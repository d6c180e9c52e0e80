import type Database from 'better-sqlite3';

import { assert } from '../base/errors.ts';
import type { NodeId } from '../base/identifiers.ts';
import type { ConfigurationEntry, EntryBody } from '../store/entry.ts';
import type { Fold, FoldShape } from '../store/group-file.ts';
import type { Configuration } from './configuration.ts';
import { keyOfChange, type RowVersion, type VersionedConfiguration } from './configuration-change.ts';
import { HistoryWriter, historySchema, type RowChange } from './configuration-history.ts';
import { ConfigurationView } from './configuration-view.ts';
import { deriveRows, type OriginOf } from './derivation.ts';
import { allDerivedColumnsOf, derivedTables, type DerivedTable, type RewriteTopology } from './rewrite.ts';
import {
  columnsOf,
  configurationTables,
  decodeConfigurationChange,
  encodeConfigurationRow,
  keyColumnsOf,
  keyTextOf,
  parseConfigurationRow,
  parseKeyText,
  toSqlRow,
  type ConfigurationChange,
  type ConfigurationTable,
  type SqlValue,
} from './rows.ts';
import { isEdited, ShellGuard } from './shell-guard.ts';
import { asLogged, guardedTables, itself, type NameOf } from './shell-tables.ts';

const derivedSql = `
    succession TEXT, rank INTEGER, action TEXT, takeover_after TEXT, forward_to TEXT, next_owner TEXT, site_owner TEXT,
    rule_set_version INTEGER, derived_by TEXT,`;
const bookkeepingSql = `
    origin TEXT NOT NULL DEFAULT '', entered_by TEXT NOT NULL DEFAULT '', entered_at_ms INTEGER NOT NULL DEFAULT 0,
    changed_at_index INTEGER NOT NULL DEFAULT 0`;

/**
 * Tables of config.db: the canonical columns as they were entered, the same on every node; the derived columns that
 * this node's rewrite rules make of them; and who entered the row, where, when, at which log index.
 */
const schema = `
  CREATE TABLE IF NOT EXISTS failover_map (
    group_id TEXT PRIMARY KEY, failover_order TEXT NOT NULL, ${derivedSql} ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS pan_range (
    prefix TEXT PRIMARY KEY, group_id TEXT NOT NULL, description TEXT NOT NULL, issuer TEXT NOT NULL,
    durability TEXT NOT NULL, hold_days INTEGER NOT NULL, ${derivedSql} ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS range_move (
    prefix TEXT PRIMARY KEY, to_group TEXT NOT NULL, move_id TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS range_limit (
    prefix TEXT NOT NULL, currency TEXT NOT NULL, transaction_maximum_minor INTEGER, daily_maximum_minor INTEGER,
    daily_maximum_count INTEGER, stand_in_floor_minor INTEGER, stand_in_card_count INTEGER,
    stand_in_card_minor INTEGER, maximum_as_owner_minor INTEGER, maximum_as_standby_minor INTEGER,
    rule_set_version INTEGER, derived_by TEXT, ${bookkeepingSql}, PRIMARY KEY (prefix, currency)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS merchant_limit (
    prefix TEXT NOT NULL, merchant_category TEXT NOT NULL, currency TEXT NOT NULL,
    transaction_maximum_minor INTEGER NOT NULL, ${bookkeepingSql}, PRIMARY KEY (prefix, merchant_category, currency)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS node_state (
    node_id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS acquirer_link (
    link_id TEXT PRIMARY KEY, acquiring_institutions TEXT NOT NULL, partial_approval INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL, unmatched_reversal_request_code TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS rewrite_rule_set (
    version INTEGER PRIMARY KEY, rules TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT;
  ${historySchema}
`;

/** Tables of which a change can make derived columns other than they are. */
const rewriting: ReadonlySet<ConfigurationTable> = new Set([...derivedTables, 'node_state', 'rewrite_rule_set']);

const bookkeepingNames = ['origin', 'entered_by', 'entered_at_ms', 'changed_at_index'];

const guarded = guardedTables(schema);

/** The tables of the `config` group's fold, whichever node's. */
export const configurationShape: FoldShape = {
  schema,
  derived: Object.fromEntries(derivedTables.map((table) => [table, allDerivedColumnsOf(table)])),
  isEdited: (database) => isEdited(database, guarded),
};

/** The fold of the `config` group on node `self`: applies changes and rewrites the rows for this node. */
export function configurationFold(self: NodeId, topology: RewriteTopology): Fold {
  return {
    ...configurationShape,
    open(database) {
      const writer = new ConfigurationWriter(database, self, topology);
      return (index, _term, entry) => {
        writer.apply(index, entry);
      };
    },
    derive(database, only) {
      new ConfigurationWriter(database, self, topology).derive(only);
    },
    guard: (database) => new ShellGuard(database, guarded, schema),
  };
}

class ConfigurationWriter {
  readonly #database: Database.Database;
  readonly #self: NodeId;
  readonly #topology: RewriteTopology;
  readonly #history: HistoryWriter;

  constructor(database: Database.Database, self: NodeId, topology: RewriteTopology) {
    this.#database = database;
    this.#history = new HistoryWriter(database);
    this.#self = self;
    this.#topology = topology;
  }

  apply(index: number, entry: EntryBody): void {
    if (entry.kind === 'no-op' || entry.kind === 'mark' || entry.kind === 'membership') return;
    assert(entry.kind === 'configuration', `entry ${index} of config is a change of the configuration`);
    if (!this.#history.isCurrent(entry)) return;
    const changes = entry.changes.map((change) => decodeConfigurationChange(JSON.stringify(change)));
    const rows = changes.map((change): RowChange => {
      const { table } = change;
      const before = this.#stored(change);
      this.#change(index, entry, change);
      return { table, key: keyOfChange(change), before, after: this.#stored(change) };
    });
    this.#history.write(index, entry, rows);
    if (changes.some(({ table }) => rewriting.has(table))) this.derive();
  }

  #stored(change: ConfigurationChange): string | null {
    const { table } = change;
    const row = selectRow(this.#database, table, change.operation === 'put' ? change.row : change.key, itself);
    return row === undefined
      ? null
      : encodeConfigurationRow(table, parseConfigurationRow(table, canonicalOf(table, row)));
  }

  #change(index: number, entry: ConfigurationEntry, change: ConfigurationChange): void {
    const { table } = change;
    if (change.operation === 'delete') {
      const { where, values } = byKey(table, change.key);
      this.#database.prepare(`DELETE FROM ${table} ${where}`).run(...values);
      return;
    }
    const row = toSqlRow(change.row);
    const columns = [...columnsOf(table), ...bookkeepingNames];
    const others = columns.filter((column) => !keyColumnsOf(table).includes(column));
    this.#database
      .prepare(
        `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})` +
          ` ON CONFLICT DO UPDATE SET ${others.map((column) => `${column} = excluded.${column}`).join(', ')}`,
      )
      .run(...valuesOf(row, columnsOf(table)), entry.origin, entry.by, entry.at, index);
  }

  /** Makes derived columns anew, of all rows or of these (each as `table key`): those that come out otherwise than they are. */
  derive(only?: ReadonlySet<string>): void {
    const stored = new Map(readDerivedRows(this.#database, itself).map((row) => [`${row.table} ${row.key}`, row]));
    const originOf: OriginOf = (table, key) => (stored.get(`${table} ${key}`)?.origin ?? this.#self) as NodeId;
    for (const { table, key, derived } of deriveRows(
      readConfiguration(this.#database, itself),
      this.#self,
      this.#topology,
      originOf,
    )) {
      const names = allDerivedColumnsOf(table);
      if (only?.has(`${table} ${key}`) === false) continue;
      const present = stored.get(`${table} ${key}`)?.columns;
      if (names.every((column) => present?.[column] === derived.columns[column])) continue;
      const { where, values } = byKey(table, parseKeyText(table, key));
      this.#database
        .prepare(`UPDATE ${table} SET ${names.map((column) => `${column} = ?`).join(', ')} ${where}`)
        .run(...valuesOf(derived.columns, names), ...values);
    }
  }
}

function valuesOf(row: Readonly<Record<string, SqlValue>>, columns: readonly string[]): SqlValue[] {
  return columns.map((column) => row[column] ?? null);
}

function byKey(table: ConfigurationTable, content: object): { readonly where: string; readonly values: SqlValue[] } {
  const columns = keyColumnsOf(table);
  return {
    where: `WHERE ${columns.map((column) => `${column} = ?`).join(' AND ')}`,
    values: valuesOf(toSqlRow(content), columns),
  };
}

/** A whole row as it is stored, bookkeeping and derived columns included. */
function selectRow(
  database: Database.Database,
  table: ConfigurationTable,
  key: object,
  nameOf: NameOf,
): Record<string, SqlValue> | undefined {
  const { where, values } = byKey(table, key);
  const select = database.prepare<SqlValue[], Record<string, SqlValue>>(`SELECT * FROM ${nameOf(table)} ${where}`);
  return select.safeIntegers(true).get(...values);
}

function canonicalOf(table: ConfigurationTable, row: Readonly<Record<string, SqlValue>>): Record<string, SqlValue> {
  return Object.fromEntries(columnsOf(table).map((column) => [column, row[column] ?? null]));
}

/** Every row with its version, at the fold's present index. */
export function readVersions(database: Database.Database): VersionedConfiguration {
  return {
    rows: readConfiguration(database),
    versionOf: (table, key) => {
      const row = selectRow(database, table, parseKeyText(table, key), asLogged(database));
      return row && versionOf(row);
    },
  };
}

function versionOf(row: Readonly<Record<string, SqlValue>>): RowVersion {
  return {
    version: Number(row['changed_at_index']),
    by: String(row['entered_by']),
    origin: String(row['origin']),
    at: Number(row['entered_at_ms']),
  };
}

/** Every canonical row as the log says, from a connection to config.db. */
export function readConfiguration(database: Database.Database, nameOf = asLogged(database)): Configuration {
  const rows = configurationTables.map((table): [ConfigurationTable, unknown[]] => {
    const select = database.prepare(`SELECT ${columnsOf(table).join(', ')} FROM ${nameOf(table)}`).safeIntegers(true);
    return [table, select.all().map((row) => parseConfigurationRow(table, row))];
  });
  return Object.fromEntries(rows) as unknown as Configuration;
}

/** A derived row with its key, as this node has it. */
export interface DerivedRow {
  readonly table: DerivedTable;
  /** As `keyTextOf` writes it. */
  readonly key: string;
  readonly origin: string;
  readonly columns: Readonly<Record<string, string | number | null>>;
}

/** The rows that this node works by: its own derived columns. */
export function readDerivedRows(database: Database.Database, nameOf = asLogged(database)): DerivedRow[] {
  return derivedTables.flatMap((table) => {
    const keys = keyColumnsOf(table);
    const names = allDerivedColumnsOf(table);
    const select = database.prepare<[], Record<string, string | number | null>>(
      `SELECT ${keys.join(', ')}, origin, ${names.join(', ')} FROM ${nameOf(table)}`,
    );
    return select.all().map((row) => ({
      table,
      key: keyTextOf(table, row),
      origin: String(row['origin']),
      columns: Object.fromEntries(names.map((column) => [column, row[column] ?? null])),
    }));
  });
}

/** The configuration at the fold's applied index, or undefined before one has been entered. */
export function readConfigurationView(database: Database.Database): ConfigurationView | undefined {
  return database.transaction(() => {
    const configuration = readConfiguration(database);
    if (configuration.pan_range.length === 0) return undefined;
    const applied = database
      .prepare<[], { value: string }>("SELECT value FROM meta WHERE name = 'applied_index'")
      .get();
    return new ConfigurationView(Number(applied?.value ?? 0), configuration, readDerivedRows(database));
  })();
}
