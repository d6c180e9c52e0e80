import { createHash, hash } from 'node:crypto';

import Database from 'better-sqlite3';

import { assert, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { maskCardData } from '../base/pan.ts';
import {
  canonicalSql,
  type DeclaredClass,
  compareKeys,
  decodeValue,
  digestBytes,
  digestOf,
  encodeRow,
  exactValueSql,
  identifierSql,
  leafOf,
  leavesOf,
  parameterSql,
  showValue,
  type EncodedKey,
  type EncodedValue,
  type KeyRange,
  type SqlScalar,
} from './canonical.ts';
import { chainEntry, type LogPosition } from './entry.ts';
import type { FoldShape } from './group-file.ts';
import { readBase } from './log-reader.ts';
import { readRow, type RowState } from './row-repair.ts';

/** What of a table is compared. Names come from our own code, never from a message. */
export interface TableSpecification {
  readonly name: string;
  /** The primary key; none of its columns is ever NULL. */
  readonly keyColumns: readonly string[];
  /** The columns that must be equal on all copies, key columns included. */
  readonly columns: readonly string[];
  /** Columns that each node makes for itself: not compared, but held against the rules. */
  readonly derivedColumns: readonly string[];
  /** Columns whose JSON text is looked into to say which property differs. */
  readonly jsonColumns: readonly string[];
  /** Only rows up to the snapshot's applied index belong to it: the log, whose tail may not be committed. */
  readonly throughApplied: boolean;
}

export interface Block {
  /** Key of the block's last row; of the last block, the asked range's own end. */
  readonly end: EncodedKey | null;
  readonly rows: number;
  readonly digest: Buffer;
  /** SHA-256 of the same bytes, of which the digest is the beginning. */
  readonly leaf: Buffer;
}

export interface RowDigest {
  readonly key: EncodedKey;
  readonly digest: Buffer;
}

export interface ColumnDigest {
  /** A column's name, or `body.request.amount`: a property within a JSON column. */
  readonly column: string;
  readonly digest: Buffer;
  /** For people, card data masked. */
  readonly shown: string;
}

export interface ChainFault {
  readonly index: number;
  /** `missing`: no such entry. `hash`: the entry's hash is not that of what is before it and of itself. */
  readonly fault: 'missing' | 'hash';
}

/**
 * A group's file as it is at one moment, for comparing it. The connection is read-only and its transaction pins the
 * write-ahead log: nothing that is written later is seen, no writer waits for it, and the log file cannot shrink until
 * `close`. Every call does a bounded amount of work and says how far it came, so that a caller can do others between.
 * Throws SQLite's own error for a missing table, a missing column and a damaged page.
 */
export class SnapshotReader {
  readonly group: GroupId;
  /** The fold in this snapshot is that of the log up to here. */
  readonly appliedIndex: number;
  readonly lastLogIndex: number;
  /** The position before the first entry that this copy keeps: older ones have been trimmed. */
  readonly base: LogPosition;
  readonly #database: Database.Database;
  readonly #rowBytes = new Map<string, string>();
  readonly #statements = new Map<string, Database.Statement<SqlScalar[], SqlScalar[]>>();

  /** The file holds an edit by hand that has not been dealt with: it is not what the log says. */
  readonly isEdited: boolean;

  /** Pins the file as it is now, its log as it was at entry `through` if that is given. Throws STORE_UNREADABLE. */
  static open(path: string, isEdited?: FoldShape['isEdited'], through?: number): SnapshotReader {
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
      return new SnapshotReader(database, isEdited, through);
    } catch (error) {
      database?.close();
      throw new SwitchError('STORE_UNREADABLE', `cannot read a snapshot of ${path}: ${String(error)}`, {
        cause: error,
      });
    }
  }

  /** How far the fold in the file is. */
  static appliedIn(path: string): number {
    const reader = SnapshotReader.open(path);
    reader.close();
    return reader.appliedIndex;
  }

  private constructor(database: Database.Database, isEdited: FoldShape['isEdited'], through = Infinity) {
    this.#database = database;
    database.pragma('cache_size = -8192');
    database.exec('BEGIN');
    this.isEdited = isEdited?.(database) === true;
    const meta = new Map(
      database
        .prepare<[], { name: string; value: string }>('SELECT name, value FROM meta')
        .all()
        .map((row) => [row.name, row.value]),
    );
    this.group = (meta.get('group') ?? '') as GroupId;
    this.appliedIndex = Math.min(through, Number(meta.get('applied_index') ?? 0));
    this.base = readBase(database, this.group);
    const last = database.prepare<[], { last: number | null }>('SELECT max(log_index) AS last FROM log').get();
    this.lastLogIndex = Math.max(this.base.index, last?.last ?? 0);
  }

  /**
   * Cuts the range into blocks of `size` rows, at most `maximumBlocks` of them. The last block of the range goes to its
   * end, and may be empty: then `done`, else the next call goes on after the last block's end.
   */
  blocks(
    table: TableSpecification,
    range: KeyRange,
    size: number,
    maximumBlocks: number,
  ): { readonly blocks: readonly Block[]; readonly done: boolean } {
    const blocks: Block[] = [];
    let { after } = range;
    while (blocks.length < maximumBlocks) {
      const block = this.#denseBlock(table, { after, through: range.through }, size);
      const full = block?.end ?? this.#keyAt(table, { after, through: range.through }, size - 1);
      const end = full ?? range.through;
      blocks.push(block ?? { end, ...this.#digest(table, { after, through: end }, size) });
      if (full === undefined || (range.through !== null && compareKeys(full, range.through) === 0)) {
        return { blocks, done: true };
      }
      after = full;
    }
    return { blocks, done: false };
  }

  /** The next block of a log that misses none of these entries: where it ends need not be looked for. */
  #denseBlock(table: TableSpecification, { after, through }: KeyRange, size: number): Block | undefined {
    const from = after?.[0] ?? `i${this.base.index}`;
    if (!table.throughApplied || !from.startsWith('i')) return undefined;
    const last = Number(from.slice(1)) + size;
    const end = [`i${last}`];
    if (last > this.appliedIndex || (through !== null && compareKeys(end, through) > 0)) return undefined;
    const digested = this.#digest(table, { after: after ?? [from], through: end }, size);
    return digested.rows === size &&
      (after !== null || this.#keyAt(table, { after: null, through: [from] }, 0) === undefined)
      ? { end, ...digested }
      : undefined;
  }

  /**
   * Digests of the blocks with these ends, the first one after `after`. At most `size + 1` rows of each are read: where
   * the other side has `size` at most, the digest then differs as it must.
   */
  digests(
    table: TableSpecification,
    after: EncodedKey | null,
    ends: readonly (EncodedKey | null)[],
    size: number,
  ): Buffer[] {
    let start = after;
    return ends.map((end) => {
      const { digest } = this.#digest(table, { after: start, through: end }, size + 1);
      start = end;
      return digest;
    });
  }

  /** Each row's key and digest in key order, `limit` at most. `done`: the range has no more. */
  rows(
    table: TableSpecification,
    range: KeyRange,
    limit: number,
  ): { readonly rows: readonly RowDigest[]; readonly done: boolean } {
    const keys = table.keyColumns.map(exactValueSql).join(', ');
    const found = this.#select(table, `${keys}, CAST(${this.#rowBytesSql(table)} AS BLOB)`, range, `LIMIT ${limit}`);
    const rows = found.map((row) => ({
      key: encodeRow(row, table.keyColumns.length),
      digest: digestOf(row.at(-1) as Buffer),
    }));
    return { rows, done: rows.length < limit };
  }

  /** What stands in a row, column by column; undefined when there is no such row. */
  columns(table: TableSpecification, key: EncodedKey): readonly ColumnDigest[] | undefined {
    const values = this.#row(table, table.columns, key);
    return values && table.columns.flatMap((column, at) => describeColumn(table, column, values[at] ?? 'n'));
  }

  /** One row whole, as a repair copies it; undefined when there is no such row. */
  row(table: TableSpecification, key: EncodedKey): RowState | undefined {
    return readRow(this.#database, table, key);
  }

  /** Rows with what they hold, derived columns too, in clear: only for tables that hold no card data. */
  values(
    table: TableSpecification,
    range: KeyRange,
    limit: number,
  ): {
    readonly rows: readonly { readonly key: EncodedKey; readonly values: readonly EncodedValue[] }[];
    readonly done: boolean;
  } {
    const names = [...table.keyColumns, ...table.columns, ...table.derivedColumns];
    const found = this.#select(table, names.map(exactValueSql).join(', '), range, `LIMIT ${limit}`);
    const rows = found.map((row) => ({
      key: encodeRow(row, table.keyColumns.length),
      values: encodeRow(row, names.length).slice(table.keyColumns.length),
    }));
    return { rows, done: rows.length < limit };
  }

  /**
   * Recomputes the hashes of up to `limit` entries after index `after`, none above `through`; `next` is where to go on,
   * null at the end. A fault is told where it stands; what follows is held against the hash that is written there. What
   * has been trimmed cannot be recomputed: the chain begins at the base.
   */
  verifyChain(
    after: number,
    limit: number,
    through: number = this.appliedIndex,
  ): { readonly faults: readonly ChainFault[]; readonly next: number | null } {
    const last = Math.min(through, this.appliedIndex);
    const faults: ChainFault[] = [];
    let previous = this.position(Math.max(after, this.base.index)) ?? this.base;
    const entries = this.#database
      .prepare<[number, number, number], [number, number, string, string]>(
        'SELECT log_index, term, body, hash FROM log WHERE log_index > ? AND log_index <= ? ORDER BY log_index LIMIT ?',
      )
      .raw()
      .all(Math.max(after, this.base.index), last, limit);
    for (const [index, term, body, stored] of entries) {
      if (index !== previous.index + 1) faults.push({ index: previous.index + 1, fault: 'missing' });
      else if (chainEntry(previous, term, body).hash !== stored) faults.push({ index, fault: 'hash' });
      previous = { index, term, hash: stored };
    }
    if (entries.length === limit) return { faults, next: previous.index };
    if (previous.index < last) faults.push({ index: previous.index + 1, fault: 'missing' });
    return { faults, next: null };
  }

  /** Up to `limit` entries after index `after` that the fold is made of. */
  entries(
    after: number,
    limit: number,
  ): readonly { readonly index: number; readonly term: number; readonly body: string }[] {
    return this.#database
      .prepare<[number, number, number], { index: number; term: number; body: string }>(
        'SELECT log_index AS "index", term, body FROM log WHERE log_index > ? AND log_index <= ? ORDER BY log_index LIMIT ?',
      )
      .all(after, this.appliedIndex, limit);
  }

  /** The newest entry at or before `index`, or the base: what the next one's hash is made from. None below the base. */
  position(index: number): LogPosition | undefined {
    if (index < this.base.index) return undefined;
    return (
      this.#database
        .prepare<[number, number], LogPosition>(
          'SELECT log_index AS "index", term, hash FROM log WHERE log_index > ? AND log_index <= ?' +
            ' ORDER BY log_index DESC LIMIT 1',
        )
        .get(this.base.index, index) ?? this.base
    );
  }

  close(): void {
    this.#statements.clear();
    this.#database.close();
  }

  #keyAt(table: TableSpecification, range: KeyRange, offset: number): EncodedKey | undefined {
    const keys = table.keyColumns.map(exactValueSql).join(', ');
    const [row] = this.#select(table, keys, range, `LIMIT 1 OFFSET ${offset}`);
    return row && encodeRow(row, table.keyColumns.length);
  }

  /** Of up to `limit` rows; in one query, unless these rows are so long that SQLite refuses to put them together. */
  #digest(table: TableSpecification, range: KeyRange, limit: number): { rows: number; digest: Buffer; leaf: Buffer } {
    try {
      const { rows, bytes } = this.#bytes(table, range, limit);
      const leaf = leafOf(bytes);
      return { rows, digest: leaf.subarray(0, digestBytes), leaf };
    } catch (error) {
      if (!(error instanceof Database.SqliteError) || error.code !== 'SQLITE_TOOBIG') throw error;
    }
    const sum = createHash('sha256');
    let rows = 0;
    for (let { after } = range; rows < limit;) {
      const end = this.#keyAt(table, { after, through: range.through }, longRowsAtOnce - 1) ?? range.through;
      const part = this.#bytes(table, { after, through: end }, Math.min(longRowsAtOnce, limit - rows));
      sum.update(part.bytes);
      rows += part.rows;
      if (part.rows < longRowsAtOnce) break;
      after = end;
    }
    const leaf = sum.digest();
    return { rows, digest: leaf.subarray(0, digestBytes), leaf };
  }

  #bytes(table: TableSpecification, range: KeyRange, limit: number): { rows: number; bytes: Buffer } {
    const { where, parameters } = this.#where(table, range);
    const row = this.#rowBytesSql(table);
    const name = identifierSql(table.name);
    const [found] = this.#all(
      widthOf(table, range) <= limit
        ? // By the row id, in its order and no more rows than are asked for: no inner query, which would cost a sixth more.
          `SELECT count(*), CAST(group_concat(${row}, '') AS BLOB) FROM ${name} NOT INDEXED ${where}`
        : // The inner query's order is that of the concatenation: it has a limit, so SQLite does not merge it into the outer.
          `SELECT count(*), CAST(group_concat(row_bytes, '') AS BLOB) FROM (SELECT ${row} AS row_bytes` +
            ` FROM ${name} ${where} ORDER BY ${keyList(table)} LIMIT ${limit})`,
      parameters,
    );
    assert(found !== undefined, 'an aggregate has one row');
    return { rows: Number(found[0]), bytes: (found[1] as Buffer | null) ?? Buffer.alloc(0) };
  }

  #rowBytesSql(table: TableSpecification): string {
    const known = this.#rowBytes.get(table.name);
    if (known !== undefined) return known;
    const types = new Map(
      this.#database
        .prepare<[string], { name: string; type: string }>('SELECT name, type FROM pragma_table_info(?)')
        .all(table.name)
        .map((column) => [column.name, declaredClasses[column.type]]),
    );
    const declared = table.columns.flatMap((column) => types.get(column) ?? []);
    const sql = canonicalSql(table.columns, declared.length === table.columns.length ? declared : undefined);
    this.#rowBytes.set(table.name, sql);
    return sql;
  }

  #row(table: TableSpecification, columns: readonly string[], key: EncodedKey): readonly EncodedValue[] | undefined {
    const conditions = table.keyColumns.map(
      (column, at) => `${identifierSql(column)} = ${parameterSql(key[at] ?? 'n')}`,
    );
    const [row] = this.#all(
      `SELECT ${columns.map(exactValueSql).join(', ')} FROM ${identifierSql(table.name)} WHERE ${conditions.join(' AND ')}`,
      key.map(decodeValue),
    );
    return row && encodeRow(row, columns.length);
  }

  #select(table: TableSpecification, what: string, range: KeyRange, limit: string): SqlScalar[][] {
    const { where, parameters } = this.#where(table, range);
    return this.#all(
      `SELECT ${what} FROM ${identifierSql(table.name)} ${where} ORDER BY ${keyList(table)} ${limit}`,
      parameters,
    );
  }

  #where(table: TableSpecification, { after, through }: KeyRange): { where: string; parameters: SqlScalar[] } {
    const conditions: string[] = [];
    const parameters: SqlScalar[] = [];
    for (const [operator, key] of [
      ['>', after],
      ['<=', through],
    ] as const) {
      if (key === null) continue;
      assert(key.length === table.keyColumns.length, `a key of ${table.name} has ${table.keyColumns.length} values`);
      conditions.push(`(${keyList(table)}) ${operator} (${key.map(parameterSql).join(', ')})`);
      parameters.push(...key.map(decodeValue));
    }
    if (table.throughApplied) {
      conditions.push(`${identifierSql(table.keyColumns[0] ?? '')} <= ?`);
      parameters.push(BigInt(this.appliedIndex));
    }
    return { where: conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`, parameters };
  }

  #all(sql: string, parameters: readonly SqlScalar[]): SqlScalar[][] {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare<SqlScalar[], SqlScalar[]>(sql).raw().safeIntegers(true);
      this.#statements.set(sql, statement);
    }
    return statement.all(...parameters);
  }
}

/** Whether the error says that a file's pages cannot be read or make no sense, or that it lacks what every such file has. */
export function isDamage(error: unknown): boolean {
  if (error instanceof SwitchError) return isDamage(error.cause);
  if (!(error instanceof Database.SqliteError)) return false;
  return /^SQLITE_(CORRUPT|NOTADB|IOERR)/.test(error.code) || /^no such (table|column): /.test(error.message);
}

const declaredClasses: Readonly<Record<string, DeclaredClass>> = { INTEGER: 'number', REAL: 'number', TEXT: 'text' };

/** Rows put together at once where a block's are too long for that. */
const longRowsAtOnce = 32;

/** Most rows that can have a key in the range; told from the keys where they are row ids, as a `log_index` alone is. */
function widthOf({ keyColumns }: TableSpecification, { after, through }: KeyRange): number {
  const [from, to] = [after?.[0], through?.[0]];
  if (keyColumns.length !== 1 || keyColumns[0] !== 'log_index') return Infinity;
  return from?.startsWith('i') === true && to?.startsWith('i') === true
    ? Number(to.slice(1)) - Number(from.slice(1))
    : Infinity;
}

function keyList(table: TableSpecification): string {
  return table.keyColumns.map(identifierSql).join(', ');
}

/** Longer paths, which only a body that nobody of us wrote can have, are cut. */
const maximumPathLength = 200;

function describeColumn(table: TableSpecification, column: string, value: EncodedValue): ColumnDigest[] {
  if (!table.jsonColumns.includes(column) || !value.startsWith('t')) {
    return [{ column, digest: digestOf(Buffer.from(value)), shown: showValue(column, value) }];
  }
  // The whole text may hold what must be hidden: it is told by length and hash, its properties one by one.
  const text = value.slice(1);
  const shown = `${Buffer.byteLength(text)} bytes, hash ${hash('sha256', text, 'hex').slice(0, 8)}`;
  const leaves = leavesOf(text).map(([path, leaf]) => ({
    column: maskCardData(`${column}.${path}`).slice(0, maximumPathLength),
    digest: digestOf(Buffer.from(leaf)),
    shown: showValue(path.slice(path.lastIndexOf('.') + 1), leaf),
  }));
  return [{ column, digest: digestOf(Buffer.from(value)), shown }, ...leaves];
}
