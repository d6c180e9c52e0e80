import type Database from 'better-sqlite3';

import type { ConfigurationEntry } from '../store/entry.ts';
import type { ConfigurationTable } from './rows.ts';

/**
 * Every change that a row of the configuration has had, in the fold of `config`: who made it, when, at which node, by
 * which entry of the log, under which rule set, what stood there before and after. It is part of the fold, so every
 * copy has the same and snapshots carry it. Nothing is ever removed.
 */
export const historySchema = `
  CREATE TABLE IF NOT EXISTS configuration_history (
    log_index INTEGER NOT NULL, position INTEGER NOT NULL, table_name TEXT NOT NULL, row_key TEXT NOT NULL,
    before TEXT, after TEXT, rule_set_version INTEGER, change_id TEXT NOT NULL,
    origin TEXT NOT NULL, entered_by TEXT NOT NULL, entered_at_ms INTEGER NOT NULL,
    PRIMARY KEY (log_index, position)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS configuration_history_row ON configuration_history (table_name, row_key, log_index);
  CREATE INDEX IF NOT EXISTS configuration_history_change ON configuration_history (change_id);
`;

/** One change of one row. */
export interface HistoryRecord {
  readonly index: number;
  readonly table: string;
  /** As `keyTextOf` writes it. */
  readonly key: string;
  /** Canonical JSON of the row; null: there was none, or there is none any more. */
  readonly before: string | null;
  readonly after: string | null;
  /** The rule set in force after the change; null before the first one. */
  readonly ruleSetVersion: number | null;
  readonly change: string;
  readonly origin: string;
  readonly by: string;
  readonly at: number;
}

/** What an entry does to one row: canonical JSON, null where there is no row. */
export interface RowChange {
  readonly table: ConfigurationTable;
  readonly key: string;
  readonly before: string | null;
  readonly after: string | null;
}

/** Writes the history of one entry; inside the transaction that applies it. */
export class HistoryWriter {
  readonly #database: Database.Database;
  readonly #insert: Database.Statement;

  constructor(database: Database.Database) {
    this.#database = database;
    this.#insert = database.prepare('INSERT INTO configuration_history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
  }

  /** Whether the entry was checked against the configuration that is here. */
  isCurrent(entry: ConfigurationEntry): boolean {
    return entry.checkedAt === lastChangeIndex(this.#database);
  }

  write(index: number, entry: ConfigurationEntry, rows: readonly RowChange[]): void {
    const version = this.#database.prepare('SELECT max(version) FROM rewrite_rule_set').pluck().get();
    const { id, origin, by, at } = entry;
    rows.forEach(({ table, key, before, after }, position) => {
      this.#insert.run(index, position, table, key, before, after, version, id, origin, by, at);
    });
  }
}

/** Log index of the last change; 0 before the first one. */
export function lastChangeIndex(database: Database.Database): number {
  return Number(database.prepare('SELECT coalesce(max(log_index), 0) FROM configuration_history').pluck().get());
}

/** The log index at which a change has been entered, or undefined. */
export function indexOfChange(database: Database.Database, id: string): number | undefined {
  const select = database.prepare<[string], number>('SELECT log_index FROM configuration_history WHERE change_id = ?');
  return select.pluck().get(id);
}

/** The newest first, after the first `from` of them; at most `limit`. */
export function readHistory(
  database: Database.Database,
  filter: {
    readonly table?: string | undefined;
    readonly key?: string | undefined;
    readonly from: number;
    readonly limit: number;
  },
): HistoryRecord[] {
  return database
    .prepare<unknown[], HistoryRecord>(
      `SELECT log_index AS "index", table_name AS "table", row_key AS "key", before, after,
         rule_set_version AS ruleSetVersion, change_id AS change, origin, entered_by AS by, entered_at_ms AS at
       FROM configuration_history WHERE (@table IS NULL OR table_name = @table) AND (@key IS NULL OR row_key = @key)
       ORDER BY log_index DESC, position LIMIT @limit OFFSET @from`,
    )
    .all({ table: null, key: null, ...defined(filter) });
}

function defined(values: object): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
