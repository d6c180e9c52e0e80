import Database from 'better-sqlite3';

import { assert } from '../base/errors.ts';
import { configurationTables, type ConfigurationTable } from './rows.ts';

/*
 * What config.db has beside the configuration's own tables, so that an edit by the plain `sqlite3` shell is noticed and
 * can be undone; for each table T of the configuration:
 *
 *   shell_logged_T    every row of T as the log says, all columns. What the node works by is read from here.
 *   shell_touched_T   keys of rows that somebody has written since, with the time; the applier clears what it has written
 *   shell_insert_T, shell_update_T, shell_delete_T
 *                     triggers that note the keys. They call nothing but what is built into a shell of SQLite 3.40.
 *
 * and shell_edit: what became of every edit. None of this is compared or sent to others.
 *
 * A trigger runs under the conflict clause of the statement that fires it (`INSERT OR REPLACE`), so it must not run into a
 * conflict. And a row that REPLACE removes fires no delete trigger: it has to be known by the new row's key, so no table
 * of the configuration has a second unique key.
 */

export interface GuardedTable {
  readonly name: ConfigurationTable;
  readonly columns: readonly string[];
  readonly keyColumns: readonly string[];
  readonly logged: string;
  readonly touched: string;
  /** SQL of the two tables. */
  readonly schema: string;
  /** SQL of each trigger by its name, as `sqlite_schema` keeps it. */
  readonly triggers: ReadonlyMap<string, string>;
}

/** Edits by the shell and what became of them. `change_id` names the change for good: in the log, too. */
export const editsSchema = `
  CREATE TABLE IF NOT EXISTS shell_edit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    change_id TEXT NOT NULL DEFAULT ('shell-' || lower(hex(randomblob(12)))),
    edited_at TEXT, rows TEXT NOT NULL, proposal TEXT, outcome TEXT NOT NULL, log_index INTEGER, reason TEXT
  ) STRICT;
`;

/** The configuration's tables of a fold's schema, with what guards each. */
export function guardedTables(schema: string): GuardedTable[] {
  const database = new Database(':memory:');
  try {
    database.exec(schema);
    return configurationTables.map((name) => guardedTable(database, name));
  } finally {
    database.close();
  }
}

interface ColumnInfo {
  readonly name: string;
  readonly type: string;
  readonly pk: number;
}

function guardedTable(database: Database.Database, name: ConfigurationTable): GuardedTable {
  const info = database.prepare<[string], ColumnInfo>('SELECT name, type, pk FROM pragma_table_info(?)').all(name);
  const uniqueKeys = database
    .prepare<[string], number>('SELECT count(*) FROM pragma_index_list(?) WHERE "unique" AND origin <> \'pk\'')
    .pluck()
    .get(name);
  assert(uniqueKeys === 0, `${name} has one unique key only`);
  const keys = info.filter(({ pk }) => pk > 0).sort((one, other) => one.pk - other.pk);
  const keyColumns = keys.map((column) => column.name);
  const [logged, touched] = [`shell_logged_${name}`, `shell_touched_${name}`];
  const columnSql = (columns: readonly ColumnInfo[]): string =>
    columns.map((column) => `${column.name} ${column.type}`).join(', ');
  const primaryKey = `PRIMARY KEY (${keyColumns.join(', ')})`;
  return {
    name,
    columns: info.map((column) => column.name),
    keyColumns,
    logged,
    touched,
    schema: `
      CREATE TABLE IF NOT EXISTS ${logged} (${columnSql(info)}, ${primaryKey}) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS ${touched} (${columnSql(keys)}, edited_at TEXT, ${primaryKey}) STRICT, WITHOUT ROWID;
    `,
    triggers: new Map(
      (
        [
          ['insert', ['NEW']],
          ['update', ['OLD', 'NEW']],
          ['delete', ['OLD']],
        ] as const
      ).map(([event, rows]) => {
        const trigger = `shell_${event}_${name}`;
        const notes = rows.map((row) => noteSql(touched, keyColumns, row)).join(' ');
        return [trigger, `CREATE TRIGGER ${trigger} AFTER ${event.toUpperCase()} ON ${name} BEGIN ${notes} END`];
      }),
    ),
  };
}

function noteSql(touched: string, keyColumns: readonly string[], row: 'OLD' | 'NEW'): string {
  const values = keyColumns.map((column) => `${row}.${column}`).join(', ');
  const same = keyColumns.map((column) => `${column} = ${row}.${column}`).join(' AND ');
  return (
    `INSERT INTO ${touched} SELECT ${values}, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')` +
    ` WHERE NOT EXISTS (SELECT 1 FROM ${touched} WHERE ${same});`
  );
}

/** From which table of the file a table's rows are read. */
export type NameOf = (table: ConfigurationTable) => string;

/** Where the rows stand as the log says, whatever somebody has just written into the tables themselves. */
export function asLogged(database: Database.Database): NameOf {
  const exists = database.prepare<[string], string>('SELECT name FROM sqlite_schema WHERE name = ?').pluck();
  return (table) => exists.get(`shell_logged_${table}`) ?? table;
}

/** The tables themselves: for the one who applies the log, inside whose transaction they are what it says. */
export const itself: NameOf = (table) => table;
