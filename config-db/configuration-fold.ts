import type Database from 'better-sqlite3';

import { assert } from '../base/errors.ts';
import type { NodeId } from '../base/identifiers.ts';
import type { ConfigurationEntry, EntryBody } from '../store/entry.ts';
import type { Fold, FoldShape } from '../store/group-file.ts';
import { currentRuleSetRow, type Configuration } from './configuration.ts';
import { ConfigurationView } from './configuration-view.ts';
import { compileRuleSetRow, derive, derivedColumns, joinFailoverOrders, type RewriteTopology } from './rewrite.ts';
import {
  columnsOf,
  configurationTables,
  decodeConfigurationChange,
  keyColumnsOf,
  parseConfigurationRow,
  toSqlRow,
  type ConfigurationChange,
  type ConfigurationTable,
  type SqlValue,
} from './rows.ts';

const derivedSql = `
    rank INTEGER, action TEXT, takeover_after TEXT, forward_to TEXT, next_owner TEXT, site_owner TEXT,
    rule_set_version INTEGER, derived_by TEXT,`;
const bookkeepingSql = `
    origin TEXT NOT NULL, entered_by TEXT NOT NULL, entered_at_ms INTEGER NOT NULL, changed_at_index INTEGER NOT NULL`;

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
  CREATE TABLE IF NOT EXISTS range_limit (
    prefix TEXT NOT NULL, currency TEXT NOT NULL, transaction_maximum_minor INTEGER, daily_maximum_minor INTEGER,
    daily_maximum_count INTEGER, stand_in_floor_minor INTEGER, stand_in_card_count INTEGER,
    stand_in_card_minor INTEGER, ${bookkeepingSql}, PRIMARY KEY (prefix, currency)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS acquirer_link (
    link_id TEXT PRIMARY KEY, acquiring_institutions TEXT NOT NULL, partial_approval INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL, unmatched_reversal_request_code TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS rewrite_rule_set (
    version INTEGER PRIMARY KEY, rules TEXT NOT NULL, ${bookkeepingSql}
  ) STRICT;
`;

/** Tables whose rows each node rewrites for itself. */
const derivedTables = ['failover_map', 'pan_range'] as const;

const derivedNames = [...derivedColumns, 'rule_set_version', 'derived_by'];
const bookkeepingNames = ['origin', 'entered_by', 'entered_at_ms', 'changed_at_index'];

/** The tables of the `config` group's fold, whichever node's. */
export const configurationShape: FoldShape = {
  schema,
  derived: Object.fromEntries(derivedTables.map((table) => [table, derivedNames])),
};

/** The fold of the `config` group on node `self`: applies changes and rewrites the rows for this node. */
export function configurationFold(self: NodeId, topology: RewriteTopology): Fold {
  return {
    ...configurationShape,
    open(database) {
      addMissingColumns(database);
      const writer = new ConfigurationWriter(database, self, topology);
      return (index, _term, entry) => {
        writer.apply(index, entry);
      };
    },
    derive(database, only) {
      new ConfigurationWriter(database, self, topology).derive(only);
    },
  };
}

/** Columns that an earlier release did not have: nobody has entered a value for them yet. */
function addMissingColumns(database: Database.Database): void {
  const columns = database.prepare("SELECT name FROM pragma_table_info('range_limit')").pluck().all();
  for (const column of ['stand_in_floor_minor', 'stand_in_card_count', 'stand_in_card_minor']) {
    if (!columns.includes(column)) database.exec(`ALTER TABLE range_limit ADD COLUMN ${column} INTEGER`);
  }
}

class ConfigurationWriter {
  readonly #database: Database.Database;
  readonly #self: NodeId;
  readonly #topology: RewriteTopology;

  constructor(database: Database.Database, self: NodeId, topology: RewriteTopology) {
    this.#database = database;
    this.#self = self;
    this.#topology = topology;
  }

  apply(index: number, entry: EntryBody): void {
    if (entry.kind === 'no-op' || entry.kind === 'mark' || entry.kind === 'membership') return;
    assert(entry.kind === 'configuration', `entry ${index} of config is a change of the configuration`);
    const changes = entry.changes.map((change) => decodeConfigurationChange(JSON.stringify(change)));
    for (const change of changes) this.#change(index, entry, change);
    this.#rewrite(changes);
  }


  #change(index: number, entry: ConfigurationEntry, change: ConfigurationChange): void {
    const { table } = change;
    if (change.operation === 'delete') {
      const key = toSqlRow(change.key as never);
      const where = keyColumnsOf(table).map((column) => `${column} = ?`);
      this.#database
        .prepare(`DELETE FROM ${table} WHERE ${where.join(' AND ')}`)
        .run(...valuesOf(key, keyColumnsOf(table)));
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

  /** Makes the derived columns anew: all when an order or the rules changed, else those of the changed ranges. */
  #rewrite(changes: readonly ConfigurationChange[]): void {
    const all = changes.some(({ table }) => table === 'failover_map' || table === 'rewrite_rule_set');
    const ranges = new Set(
      changes.flatMap((change) =>
        change.table === 'pan_range' && change.operation === 'put' ? [`pan_range ${change.row.prefix}`] : [],
      ),
    );
    if (all) this.derive();
    else if (ranges.size > 0) this.derive(ranges);
  }

  /** Makes the derived columns of all rows, or of these, each as `table key`. */
  derive(only?: ReadonlySet<string>): void {
    const configuration = readConfiguration(this.#database);
    const ruleSetRow = currentRuleSetRow(configuration.rewrite_rule_set);
    if (ruleSetRow === undefined) return;
    const ruleSet = compileRuleSetRow(ruleSetRow);
    const rows = { failover_map: configuration.failover_map, pan_range: joinFailoverOrders(configuration) };
    for (const table of derivedTables) {
      const [key] = keyColumnsOf(table);
      assert(key !== undefined, `${table} has a key`);
      const origins = this.#database.prepare<[], { key: string; origin: string }>(
        `SELECT ${key} AS key, origin FROM ${table}`,
      );
      const originOf = new Map(origins.all().map((row) => [row.key, row.origin as NodeId]));
      const update = this.#database.prepare(
        `UPDATE ${table} SET ${derivedNames.map((column) => `${column} = ?`).join(', ')} WHERE ${key} = ?`,
      );
      for (const row of rows[table]) {
        const id = 'prefix' in row ? row.prefix : row.group_id;
        if (only?.has(`${table} ${id}`) === false) continue;
        const context = { origin: originOf.get(id) ?? this.#self, target: this.#self, topology: this.#topology };
        const { columns } = derive(ruleSet, table, row as never, context);
        update.run(...valuesOf(columns, derivedNames), id);
      }
    }
  }
}

function valuesOf(row: Readonly<Record<string, SqlValue>>, columns: readonly string[]): SqlValue[] {
  return columns.map((column) => row[column] ?? null);
}

/** Every canonical row, from a connection to config.db. */
export function readConfiguration(database: Database.Database): Configuration {
  const rows = configurationTables.map((table): [ConfigurationTable, unknown[]] => {
    const select = database.prepare(`SELECT ${columnsOf(table).join(', ')} FROM ${table}`).safeIntegers(true);
    return [table, select.all().map((row) => parseConfigurationRow(table, row))];
  });
  return Object.fromEntries(rows) as unknown as Configuration;
}

/** A derived row with its key, as this node has it. */
export interface DerivedRow {
  readonly table: (typeof derivedTables)[number];
  readonly key: string;
  readonly origin: string;
  readonly columns: Readonly<Record<string, string | number | null>>;
}

/** The rows that this node works by: its own derived columns. */
export function readDerivedRows(database: Database.Database): DerivedRow[] {
  return derivedTables.flatMap((table) => {
    const [key] = keyColumnsOf(table);
    const select = database.prepare<[], Record<string, string | number | null>>(
      `SELECT ${key ?? ''} AS row_key, origin, ${derivedNames.join(', ')} FROM ${table}`,
    );
    return select.all().map(({ row_key, origin, ...columns }) => ({
      table,
      key: String(row_key),
      origin: String(origin),
      columns,
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
