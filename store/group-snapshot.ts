import { createHash } from 'node:crypto';

import Database from 'better-sqlite3';

import { assert, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { encodeValue, exactValueSql, identifierSql, type SqlScalar } from './canonical.ts';
import type { LogPosition } from './entry.ts';
import type { FoldShape } from './group-file.ts';
import { readApplied, readBase, readMembership } from './log-reader.ts';

/*
 * Snapshot of a group (R10), format 1: what a member needs instead of a log that its peers have trimmed. The canonical
 * fold as it is after the entry at `position`, which is committed, and the membership in effect there; no vote, no
 * entry, no column that a node derives for itself, nothing else of the file it was read from.
 *
 *   header   JSON: SnapshotHeader
 *   chunks   numbered from 0; UTF-8 text of lines, each ending in LF: a JSON array of the table's position in the
 *            header and the row's values in the order of its columns (`EncodedValue` of canonical.ts: nothing is
 *            lost). Tables in the header's order, rows in the order of their keys.
 *   end      how many chunks, and the SHA-256 over all of them in order
 */
export const snapshotFormat = 1;

export interface SnapshotTable {
  readonly name: string;
  readonly columns: readonly string[];
}

export interface SnapshotHeader {
  readonly format: number;
  readonly cluster: string;
  readonly group: GroupId;
  /** The fold is that of the log up to here. */
  readonly position: LogPosition;
  /** The newest membership entry at or below the position; null when the log has none. */
  readonly membership: { readonly index: number; readonly body: string } | null;
  readonly tables: readonly (SnapshotTable & { readonly rows: number })[];
}

export interface SnapshotEnd {
  readonly chunks: number;
  readonly sha256: string;
}

export interface SnapshotChunk {
  readonly bytes: Buffer;
  /** With the last chunk. */
  readonly end: SnapshotEnd | undefined;
}

/** A chunk ends before the row that would make it larger, unless it is the first. */
export const maximumChunkBytes = 200_000;

/** The tables that the fold's schema makes, without derived columns, in the order of their names. */
export function canonicalTables({ schema, derived = {} }: FoldShape): (SnapshotTable & { key: readonly string[] })[] {
  const database = new Database(':memory:');
  try {
    database.exec(schema);
    const names = database
      .prepare<[], string>(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1",
      )
      .pluck()
      .all();
    return names.map((name) => {
      const all = database
        .prepare<[string], { name: string; pk: number }>('SELECT name, pk FROM pragma_table_info(?) ORDER BY cid')
        .all(name);
      const key = all.filter(({ pk }) => pk > 0).sort((one, other) => one.pk - other.pk);
      assert(key.length > 0, `table ${name} of a fold has a primary key`);
      const columns = all.map((column) => column.name).filter((column) => derived[name]?.includes(column) !== true);
      return { name, key: key.map((column) => column.name), columns };
    });
  } finally {
    database.close();
  }
}

/** Whether two lists of tables hold rows of the same columns. */
export function areSameTables(one: readonly SnapshotTable[], other: readonly SnapshotTable[]): boolean {
  const plain = (tables: readonly SnapshotTable[]): string =>
    JSON.stringify(tables.map(({ name, columns }) => [name, columns]));
  return plain(one) === plain(other);
}

interface Start {
  /** Position of the table in the header. */
  readonly table: number;
  /** The row before the chunk's first one: its key as SQL gives it; undefined at the table's beginning. */
  readonly after: readonly SqlScalar[] | undefined;
}

/** Rows in the order of their keys: each one's line, or NULL where SQL cannot make it, and its key. */
interface TableQuery {
  readonly first: Database.Statement<SqlScalar[], SqlScalar[]>;
  readonly next: Database.Statement<SqlScalar[], SqlScalar[]>;
  /** The row with a key, value by value. */
  readonly exact: Database.Statement<SqlScalar[], SqlScalar[]>;
}

/**
 * Reads a group's file as a snapshot, from one read transaction: nothing written later is in it, no writer waits for
 * it, and the file's write-ahead log cannot begin anew until `close`. A chunk may be read as often as its receiver asks;
 * the first time they are read in order. What is kept between chunks is where each one begins.
 */
export class SnapshotSource {
  readonly header: SnapshotHeader;
  readonly #database: Database.Database;
  readonly #queries: readonly TableQuery[];
  /** Where the chunks begin, up to the first that has not been read. */
  readonly #starts: Start[] = [{ table: 0, after: undefined }];
  readonly #hash = createHash('sha256');
  #end: SnapshotEnd | undefined;

  /** Pins the file as it is now. Throws STORE_UNREADABLE, also when the file has no such fold. */
  static open(path: string, group: GroupId, shape: FoldShape): SnapshotSource {
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
      return new SnapshotSource(database, group, shape);
    } catch (error) {
      database?.close();
      throw new SwitchError('STORE_UNREADABLE', `cannot make a snapshot of ${path}: ${String(error)}`, {
        cause: error,
      });
    }
  }

  private constructor(database: Database.Database, group: GroupId, shape: FoldShape) {
    this.#database = database;
    database.pragma('cache_size = -8192');
    database.exec('BEGIN');
    const meta = (name: string): string =>
      database.prepare<[string], string>('SELECT value FROM meta WHERE name = ?').pluck().get(name) ?? '';
    assert(meta('group') === group, `the file is of group ${group}`);
    assert(shape.isEdited?.(database) !== true, 'an edit by hand in it has been dealt with: ask again');
    const index = readApplied(database);
    const base = readBase(database, group);
    const position =
      index === base.index
        ? base
        : database
            .prepare<[number], LogPosition>('SELECT log_index AS "index", term, hash FROM log WHERE log_index = ?')
            .get(index);
    assert(position !== undefined, `the log of ${group} has its applied entry ${index}`);
    const tables = canonicalTables(shape);
    const count = (table: string): number =>
      database
        .prepare<[], number>(`SELECT count(*) FROM ${identifierSql(table)}`)
        .pluck()
        .get() ?? 0;
    this.header = {
      format: snapshotFormat,
      cluster: meta('cluster'),
      group,
      position,
      membership: readMembership(database, index) ?? null,
      tables: tables.map(({ name, columns }) => ({ name, columns, rows: count(name) })),
    };
    this.#queries = tables.map(({ name, key, columns }, at) => {
      const keys = key.map(identifierSql).join(', ');
      const places = key.map(() => '?').join(', ');
      const prepare = (select: string, where: string): TableQuery['first'] =>
        database
          .prepare<SqlScalar[], SqlScalar[]>(`SELECT ${select} FROM ${identifierSql(name)} ${where} ORDER BY ${keys}`)
          .raw()
          .safeIntegers(true);
      const line = `${lineSql(at, columns)}, ${keys}`;
      return {
        first: prepare(line, ''),
        next: prepare(line, `WHERE (${keys}) > (${places})`),
        exact: prepare(columns.map(exactValueSql).join(', '), `WHERE (${keys}) = (${places})`),
      };
    });
  }

  /** Reads the chunk, and before it those that have not been read yet. Undefined for one after the last. */
  read(chunk: number): SnapshotChunk | undefined {
    while (this.#end === undefined || chunk < this.#end.chunks) {
      const number = Math.min(chunk, this.#starts.length - 1);
      const start = this.#starts[number];
      assert(start !== undefined, 'the first chunk begins somewhere');
      const { bytes, next } = this.#chunkFrom(start);
      if (number === this.#starts.length - 1 && this.#end === undefined) {
        this.#hash.update(bytes);
        if (next === undefined) this.#end = { chunks: number + 1, sha256: this.#hash.digest('hex') };
        else this.#starts.push(next);
      }
      if (number === chunk) return { bytes, end: next === undefined ? this.#end : undefined };
    }
    return undefined;
  }

  close(): void {
    this.#database.close();
  }

  /** The rows from `start` on as far as they fit, and where the next chunk begins; undefined after the last row. */
  #chunkFrom(start: Start): { readonly bytes: Buffer; readonly next: Start | undefined } {
    const lines: string[] = [];
    let bytes = 0;
    let { after } = start;
    for (let table = start.table; table < this.#queries.length; table++) {
      const query = this.#queries[table];
      if (query === undefined) break;
      const rows = after === undefined ? query.first.iterate() : query.next.iterate(...after);
      for (const row of rows) {
        const [made, ...key] = row;
        const line = isExact(made) ? made : exactLine(table, query.exact.get(...key) ?? []);
        const size = Buffer.byteLength(line) + 1;
        if (bytes > 0 && bytes + size > maximumChunkBytes) {
          return { bytes: toChunk(lines), next: { table, after } };
        }
        lines.push(line);
        bytes += size;
        after = key;
      }
      after = undefined;
    }
    return { bytes: toChunk(lines), next: undefined };
  }
}

/** A row's line, made by SQL: stepping through its values in JavaScript takes several times as long. */
function lineSql(table: number, columns: readonly string[]): string {
  const values = columns.map((column) => {
    const name = identifierSql(column);
    return `CASE typeof(${name}) WHEN 'text' THEN 't' || ${name} WHEN 'integer' THEN 'i' || ${name} WHEN 'null' THEN 'n' END`;
  });
  return `json_array(${[table, ...values].join(', ')})`;
}

/** Whether `lineSql` has lost nothing: it leaves out other types, and text that is not valid UTF-8 is lost in it. */
function isExact(line: SqlScalar | undefined): line is string {
  return typeof line === 'string' && !line.includes(',null') && !line.includes('\ufffd');
}

/** The same value by value; `row` was read by `exactValueSql`: types and values take turns. */
function exactLine(table: number, row: readonly SqlScalar[]): string {
  const values = Array.from({ length: row.length / 2 }, (_, at) => encodeValue(row[2 * at], row[2 * at + 1]));
  return JSON.stringify([table, ...values]);
}

function toChunk(lines: readonly string[]): Buffer {
  return Buffer.from(lines.length === 0 ? '' : `${lines.join('\n')}\n`);
}
