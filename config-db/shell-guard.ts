import Database from 'better-sqlite3';

import { describeError } from '../base/errors.ts';
import type { EditGuard, EditOutcome } from '../store/group-file.ts';
import type { SqlValue } from './rows.ts';
import { judgeEdits, type RowEdit } from './shell-proposal.ts';
import { editsSchema, type GuardedTable } from './shell-tables.ts';

/** Closed edits that are kept to be looked at. */
const maximumKept = 1000;

/**
 * Keeps the configuration's tables as the log says although somebody may edit them with the plain `sqlite3` shell.
 *
 *   - Before entries are applied, and some ten times a second, edited rows are put back to what the log says, in one
 *     transaction that also keeps what was edited: as a proposal, when it may be entered, or as refused, with the reason.
 *     So the fold is a function of the log at every transaction of the one who writes it.
 *   - What is committed between two looks is one proposal: whole transactions, often several. All of it is entered or
 *     nothing.
 *   - Triggers say which rows were written. Where somebody has written past them (dropped, altered, switched off in the
 *     shell) all rows are held against what the log says. What is found is put back and reported, not proposed. The triggers
 *     are restored, other people's triggers and indexes on these tables are removed.
 */
export class ShellGuard implements EditGuard {
  readonly #database: Database.Database;
  readonly #tables: readonly GuardedTable[];
  readonly #schema: string;
  /** As they were when everything was last found in order; undefined: look at everything. */
  #schemaVersion: unknown;
  #dataVersion: unknown;
  #touched: Database.Statement<[], number> | undefined;

  /** `schema` is the SQL of the tables that are guarded. */
  constructor(database: Database.Database, tables: readonly GuardedTable[], schema: string) {
    this.#database = database;
    this.#tables = tables;
    this.#schema = schema;
    if (missingObjects(database, tables).length > 0) {
      database
        .transaction(() => {
          this.#install();
        })
        .immediate();
    }
  }

  isDue(): boolean {
    return (
      this.#database.pragma('schema_version', { simple: true }) !== this.#schemaVersion ||
      this.#database.pragma('data_version', { simple: true }) !== this.#dataVersion ||
      this.#isTouched()
    );
  }

  /** Only while all that watches is there. */
  #isTouched(): boolean {
    this.#touched ??= this.#database
      .prepare<[], number>(
        `SELECT ${this.#tables.map(({ touched }) => `EXISTS (SELECT 1 FROM ${touched})`).join(' OR ')}`,
      )
      .pluck();
    return this.#touched.get() === 1;
  }

  settle(): void {
    if (!this.isDue()) return;
    const restored = this.#restore();
    const touched = this.#isTouched();
    const first = this.#schemaVersion === undefined;
    const edits = this.#tables.flatMap((table) => this.#editsOf(table, restored.length > 0 || first || !touched));
    const times = this.#tables.flatMap(({ touched: from }) =>
      this.#database.prepare<[], string | null>(`SELECT min(edited_at) FROM ${from}`).pluck().all(),
    );
    for (const table of this.#tables) this.#putBack(table);
    if (restored.length > 0)
      this.#record({ editedAt: null, rows: [], outcome: 'restored', reason: restored.join('; ') });
    const verdict = judgeEdits(edits);
    if (verdict !== undefined) {
      const [editedAt = null] = times.filter((time) => time !== null).sort();
      this.#record({ editedAt, ...verdict });
    }
    this.#inOrder();
  }

  keep(): void {
    for (const { name, columns, keyColumns, logged, touched } of this.#tables) {
      const [list, keys] = [columns.join(', '), keyColumns.join(', ')];
      if (!hasRows(this.#database, touched)) continue;
      this.#database.exec(`
        DELETE FROM ${logged} WHERE (${keys}) IN (SELECT ${keys} FROM ${touched});
        INSERT INTO ${logged} (${list}) SELECT ${list} FROM ${name} WHERE (${keys}) IN (SELECT ${keys} FROM ${touched});
        DELETE FROM ${touched};
      `);
    }
    this.#markEntered();
  }

  close({ change, reason }: EditOutcome): void {
    this.#database
      .prepare(
        "UPDATE shell_edit SET outcome = ?, reason = ?, proposal = NULL WHERE change_id = ? AND outcome = 'waiting'",
      )
      .run(reason === undefined ? 'nothing to change' : 'refused', reason ?? null, change);
  }

  inherit(path: string): void {
    let earlier: Database.Database | undefined;
    try {
      earlier = new Database(path, { fileMustExist: true, timeout: 0 });
      const insert = this.#database.prepare(
        `INSERT INTO shell_edit (change_id, edited_at, rows, proposal, outcome, log_index, reason)
         SELECT $change_id, $edited_at, $rows, $proposal, $outcome, $log_index, $reason
         WHERE NOT EXISTS (SELECT 1 FROM shell_edit WHERE change_id = $change_id)`,
      );
      if (!hasTable(earlier, 'shell_edit')) return;
      const found = earlier;
      found
        .transaction(() => {
          new ShellGuard(found, this.#tables, this.#schema).settle();
        })
        .immediate();
      for (const row of found.prepare('SELECT * FROM shell_edit ORDER BY sequence').iterate()) insert.run(row);
      this.#markEntered();
    } catch (error) {
      // A copy that is made anew because it is damaged: what nobody can read any more cannot be proposed.
      const reason = `what was edited in the copy that this one replaces cannot be read: ${describeError(error)}`;
      this.#record({ editedAt: null, rows: [], outcome: 'refused', reason });
    } finally {
      earlier?.close();
    }
  }

  forget(): void {
    this.#schemaVersion = undefined;
    this.#dataVersion = undefined;
  }

  /** Makes what is missing; a table that was not guarded before is taken to be as the log says. */
  #install(): void {
    this.#database.exec(editsSchema);
    for (const { name, columns, logged, schema, triggers } of this.#tables) {
      const isNew = !hasTable(this.#database, logged);
      const list = columns.join(', ');
      this.#database.exec(schema);
      if (isNew) this.#database.exec(`INSERT INTO ${logged} (${list}) SELECT ${list} FROM ${name}`);
      for (const [trigger, sql] of triggers) {
        if (sqlOf(this.#database, trigger) === undefined) this.#database.exec(sql);
      }
    }
  }

  /** Puts back what was dropped or altered, and removes what others have put upon the tables. Says what that was. */
  #restore(): string[] {
    if (this.#database.pragma('schema_version', { simple: true }) === this.#schemaVersion) return [];
    const foreign = foreignObjects(this.#database, this.#tables);
    const missing = missingObjects(this.#database, this.#tables);
    for (const { type, name } of foreign) this.#database.exec(`DROP ${type} "${name.replaceAll('"', '""')}"`);
    if (missing.length > 0) {
      this.#database.exec(this.#schema);
      this.#install();
    }
    return [
      ...foreign.map(({ type, name, ours }) => `${type} ${name} was ${ours ? 'altered and is restored' : 'removed'}`),
      ...missing
        .filter((name) => !foreign.some((each) => each.name === name))
        .map((name) => `${name} was missing and is restored`),
    ];
  }

  /** Rows that differ from what the log says: those that were touched, or any. */
  #editsOf({ name, columns, keyColumns, logged, touched }: GuardedTable, all: boolean): RowEdit[] {
    const keys = keyColumns.join(', ');
    const list = columns.join(', ');
    if (all) {
      this.#database.exec(`
        INSERT INTO ${touched} (${keys}) SELECT ${keys} FROM (
          SELECT ${keys} FROM (SELECT ${list} FROM ${name} EXCEPT SELECT ${list} FROM ${logged})
          UNION SELECT ${keys} FROM (SELECT ${list} FROM ${logged} EXCEPT SELECT ${list} FROM ${name})
        ) WHERE (${keys}) NOT IN (SELECT ${keys} FROM ${touched})
      `);
    }
    const rowOf = (table: string): Database.Statement<SqlValue[], Record<string, SqlValue>> =>
      this.#database
        .prepare<SqlValue[], Record<string, SqlValue>>(
          `SELECT ${list} FROM ${table} WHERE ${keyColumns.map((column) => `${column} = ?`).join(' AND ')}`,
        )
        .safeIntegers(true);
    const [before, after] = [rowOf(logged), rowOf(name)];
    return this.#database
      .prepare<[], Record<string, SqlValue>>(`SELECT ${keys}, edited_at FROM ${touched} ORDER BY ${keys}`)
      .safeIntegers(true)
      .all()
      .map(({ edited_at: editedAt, ...key }) => {
        const values = keyColumns.map((column) => key[column] ?? null);
        return {
          table: name,
          key,
          before: before.get(...values),
          after: after.get(...values),
          isWatched: editedAt !== null,
        };
      });
  }

  #putBack({ name, columns, keyColumns, logged, touched }: GuardedTable): void {
    if (!hasRows(this.#database, touched)) return;
    const [list, keys] = [columns.join(', '), keyColumns.join(', ')];
    this.#database.exec(`
      DELETE FROM ${name} WHERE (${keys}) IN (SELECT ${keys} FROM ${touched});
      INSERT INTO ${name} (${list}) SELECT ${list} FROM ${logged} WHERE (${keys}) IN (SELECT ${keys} FROM ${touched});
      DELETE FROM ${touched};
    `);
  }

  #record(edit: {
    readonly editedAt: string | null;
    readonly rows: readonly unknown[];
    readonly outcome: string;
    readonly proposal?: string | null;
    readonly reason?: string | null;
  }): void {
    const { editedAt, rows, outcome, proposal = null, reason = null } = edit;
    this.#database
      .prepare('INSERT INTO shell_edit (edited_at, rows, proposal, outcome, reason) VALUES (?, ?, ?, ?, ?)')
      .run(editedAt, JSON.stringify(rows), proposal, outcome, reason);
    this.#database
      .prepare(
        "DELETE FROM shell_edit WHERE outcome <> 'waiting' AND sequence <= (SELECT max(sequence) FROM shell_edit) - ?",
      )
      .run(maximumKept);
  }

  #markEntered(): void {
    this.#database.exec(`
      UPDATE shell_edit SET outcome = 'entered', proposal = NULL,
        log_index = (SELECT min(log_index) FROM configuration_history WHERE configuration_history.change_id = shell_edit.change_id)
      WHERE outcome = 'waiting' AND change_id IN (SELECT change_id FROM configuration_history)
    `);
  }

  #inOrder(): void {
    this.#schemaVersion = this.#database.pragma('schema_version', { simple: true });
    this.#dataVersion = this.#database.pragma('data_version', { simple: true });
  }
}

/** Whether the tables hold an edit that has not been dealt with, or nothing watches for edits. */
export function isEdited(database: Database.Database, tables: readonly GuardedTable[]): boolean {
  return (
    hasTable(database, 'shell_edit') && (missingObjects(database, tables).length > 0 || isTouched(database, tables))
  );
}

function isTouched(database: Database.Database, tables: readonly GuardedTable[]): boolean {
  return tables.some(({ touched }) => hasTable(database, touched) && hasRows(database, touched));
}

function hasRows(database: Database.Database, table: string): boolean {
  return database.prepare(`SELECT 1 FROM ${table} LIMIT 1`).get() !== undefined;
}

function hasTable(database: Database.Database, name: string): boolean {
  return sqlOf(database, name) !== undefined;
}

function sqlOf(database: Database.Database, name: string): string | undefined {
  return database.prepare<[string], string>('SELECT sql FROM sqlite_schema WHERE name = ?').pluck().get(name);
}

function missingObjects(database: Database.Database, tables: readonly GuardedTable[]): string[] {
  const present = new Map(
    database
      .prepare<[], { name: string; sql: string | null }>('SELECT name, sql FROM sqlite_schema')
      .all()
      .map(({ name, sql }) => [name, sql]),
  );
  return [
    ...['shell_edit', ...tables.flatMap(({ name, logged, touched }) => [name, logged, touched])].filter(
      (name) => !present.has(name),
    ),
    ...tables.flatMap(({ triggers }) =>
      [...triggers].flatMap(([name, sql]) => (present.get(name) === sql ? [] : [name])),
    ),
  ];
}

interface ForeignObject {
  readonly type: string;
  readonly name: string;
  /** It has the name of one of ours, and does something else. */
  readonly ours: boolean;
}

/** Triggers, and indexes that are not made by a table itself, that are not ours. */
function foreignObjects(database: Database.Database, tables: readonly GuardedTable[]): ForeignObject[] {
  const ours = new Map(tables.flatMap(({ triggers }) => [...triggers]));
  const guarded = new Set<string>(tables.flatMap(({ name, logged, touched }) => [name, logged, touched]));
  return database
    .prepare<[], { type: string; name: string; tbl_name: string; sql: string | null }>(
      "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE type IN ('trigger', 'index') AND sql IS NOT NULL",
    )
    .all()
    .filter(({ type, name, tbl_name, sql }) =>
      ours.has(name) ? ours.get(name) !== sql : type === 'trigger' || guarded.has(tbl_name),
    )
    .map(({ type, name }) => ({ type, name, ours: ours.has(name) }));
}
