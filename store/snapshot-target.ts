import { createHash } from 'node:crypto';

import Database from 'better-sqlite3';

import { describeError } from '../base/errors.ts';
import { decodeValue, identifierSql, isEncodedValue, type EncodedValue } from './canonical.ts';
import { pageBytes, prepareGroupFile, writeBase, type GroupIdentity } from './group-file.ts';
import {
  areSameTables,
  canonicalTables,
  snapshotFormat,
  type SnapshotEnd,
  type SnapshotHeader,
} from './group-snapshot.ts';
import { incomingFile, removeDatabase, syncPath } from './snapshot-install.ts';

/** A snapshot cannot be taken: it is not for this group, or not what was sent. The group's file is as it was. */
export class SnapshotRefused extends Error {}

/** Chunks that are handed to the disk together: what the last sync of all has left to do stays short. */
const chunksPerSync = 16;

interface TableWriter {
  readonly sql: string;
  readonly columns: number;
  readonly insert: Database.Statement;
  rows: number;
}

/**
 * Receives a snapshot into a new file beside the group's. Chunks come in order, each in one transaction; what was
 * interrupted is thrown away, so nothing is on disk for certain before `finish` has returned. Every method but `discard`
 * throws SnapshotRefused for a snapshot that is not good, and the store's own error when the disk is not.
 */
export class SnapshotTarget {
  readonly header: SnapshotHeader;
  readonly #path: string;
  readonly #identity: GroupIdentity;
  readonly #database: Database.Database;
  readonly #tables: readonly TableWriter[];
  readonly #hash = createHash('sha256');
  readonly #take: (lines: readonly string[]) => void;
  #next = 0;
  #open = true;

  /** Begins a new file for the group whose present file is at `current`; an earlier unfinished one is thrown away. */
  static begin(current: string, identity: GroupIdentity, header: SnapshotHeader): SnapshotTarget {
    const tables = canonicalTables(identity.fold);
    if (header.format !== snapshotFormat)
      throw new SnapshotRefused('the snapshot has a format that this version does not know');
    if (header.group !== identity.group || header.cluster !== identity.cluster) {
      throw new SnapshotRefused(`the snapshot is of group ${header.group} of cluster ${header.cluster}`);
    }
    if (!areSameTables(tables, header.tables)) {
      throw new SnapshotRefused('the snapshot has other tables or columns than this version');
    }
    const path = incomingFile(current);
    removeDatabase(path);
    return new SnapshotTarget(path, identity, header);
  }

  private constructor(path: string, identity: GroupIdentity, header: SnapshotHeader) {
    this.header = header;
    this.#path = path;
    this.#identity = identity;
    const database = new Database(path, { timeout: 0 });
    this.#database = database;
    database.pragma(`page_size = ${pageBytes}`);
    database.pragma('journal_mode = MEMORY');
    database.pragma('synchronous = OFF');
    database.pragma('cache_size = -32768');
    prepareGroupFile(database, identity);
    this.#tables = header.tables.map(({ name, columns }) => {
      const names = columns.map(identifierSql).join(', ');
      const sql = `INSERT INTO ${identifierSql(name)} (${names}) VALUES`;
      const insert = database.prepare(`${sql} (${columns.map(() => '?').join(', ')})`);
      return { sql, columns: columns.length, insert, rows: 0 };
    });
    const transaction = database.transaction((lines: readonly string[]) => {
      for (const line of lines) this.#takeRow(line);
    });
    this.#take = (lines) => {
      transaction.immediate(lines);
    };
  }

  /** The chunk that comes next; those before it are in the file. */
  get next(): number {
    return this.#next;
  }

  /** Takes the next chunk; one that was taken before is ignored. */
  write(chunk: number, bytes: Buffer): void {
    if (chunk < this.#next) return;
    if (chunk > this.#next) throw new SnapshotRefused(`chunk ${chunk} comes where ${this.#next} is next`);
    const lines = bytes.toString('utf8').split('\n');
    if (lines.pop() !== '') throw new SnapshotRefused(`chunk ${chunk} ends within a row`);
    const syncs = (chunk + 1) % chunksPerSync === 0;
    if (syncs) this.#database.pragma('synchronous = NORMAL');
    this.#take(lines);
    if (syncs) this.#database.pragma('synchronous = OFF');
    this.#hash.update(bytes);
    this.#next = chunk + 1;
  }

  /**
   * Holds what has come against what was sent, makes the derived columns and the rest of the file, syncs it and closes
   * it: it can take the group's place.
   */
  finish(end: SnapshotEnd): void {
    if (this.#next !== end.chunks) throw new SnapshotRefused(`${this.#next} chunks of ${end.chunks} have come`);
    if (this.#hash.digest('hex') !== end.sha256) throw new SnapshotRefused('the chunks are not those that were sent');
    this.#tables.forEach(({ rows }, at) => {
      const table = this.header.tables[at];
      if (rows !== table?.rows) throw new SnapshotRefused(`${rows} rows of ${table?.name ?? ''} have come`);
    });
    const { position, membership } = this.header;
    this.#database
      .transaction(() => {
        this.#identity.fold.derive?.(this.#database);
        writeBase(this.#database, position);
        this.#database.prepare("UPDATE meta SET value = ? WHERE name = 'applied_index'").run(String(position.index));
        if (membership !== null) {
          this.#database.prepare('INSERT INTO membership VALUES (?, ?)').run(membership.index, membership.body);
        }
      })
      .immediate();
    this.#close();
    syncPath(this.#path);
  }

  /** Gives the snapshot up. */
  discard(): void {
    this.#close();
    removeDatabase(this.#path);
  }

  #close(): void {
    if (this.#open) this.#database.close();
    this.#open = false;
  }

  #takeRow(line: string): void {
    const [at, ...values] = parseLine(line);
    const table = typeof at === 'number' ? this.#tables[at] : undefined;
    if (table?.columns !== values.length || !values.every(isValue)) {
      throw new SnapshotRefused('a row is of no table of the snapshot');
    }
    try {
      if (values.some((value) => value.startsWith('u'))) {
        // Text that is not valid UTF-8 has to be bound as bytes.
        const places = values.map((value) => (value.startsWith('u') ? 'CAST(? AS TEXT)' : '?'));
        this.#database.prepare(`${table.sql} (${places.join(', ')})`).run(...values.map(decodeValue));
      } else {
        table.insert.run(...values.map(decodeValue));
      }
    } catch (error) {
      if (isConstraint(error)) throw new SnapshotRefused(`a row cannot be taken: ${describeError(error)}`);
      throw error;
    }
    table.rows += 1;
  }
}

function parseLine(line: string): readonly unknown[] {
  try {
    const values: unknown = JSON.parse(line);
    return Array.isArray(values) ? (values as readonly unknown[]) : [];
  } catch {
    return [];
  }
}

function isValue(value: unknown): value is EncodedValue {
  return typeof value === 'string' && isEncodedValue(value);
}

function isConstraint(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_CONSTRAINT');
}
