import Database from 'better-sqlite3';

import type { GroupId } from '../base/identifiers.ts';
import { decodeBody, originPosition, type LogEntry, type LogPosition, type MembershipEntry } from './entry.ts';

const baseSql = "SELECT name, value FROM meta WHERE name IN ('base_index', 'base_term', 'base_hash')";

interface MetaRow {
  readonly name: string;
  readonly value: string;
}

function toBase(rows: readonly MetaRow[], group: GroupId): LogPosition {
  const [index, term, hash] = ['base_index', 'base_term', 'base_hash'].map(
    (name) => rows.find((row) => row.name === name)?.value,
  );
  return hash === undefined ? originPosition(group) : { index: Number(index), term: Number(term), hash };
}

/** The position before the first entry that a group's file keeps: the log's origin until it has been trimmed. */
export function readBase(database: Database.Database, group: GroupId): LogPosition {
  return toBase(database.prepare<[], MetaRow>(baseSql).all(), group);
}

/** How far the fold in a group's file is. */
export function readApplied(database: Database.Database): number {
  const row = database.prepare<[], { value: string }>("SELECT value FROM meta WHERE name = 'applied_index'").get();
  return Number(row?.value ?? 0);
}

/** A membership as the log has it, and where. */
export interface LoggedMembership {
  readonly index: number;
  readonly entry: MembershipEntry;
}

/** The newest membership entry at or below an index, with its body's text; undefined when there is none. */
export function readMembership(
  database: Database.Database,
  atOrBelow: number,
): { readonly index: number; readonly body: string } | undefined {
  return database
    .prepare<[number], { index: number; body: string }>(
      'SELECT log_index AS "index", body FROM membership WHERE log_index <= ? ORDER BY log_index DESC LIMIT 1',
    )
    .get(atOrBelow);
}

/**
 * Reads a group's file beside the one connection that writes it: the log for replication, the fold for deciding.
 * It never takes a lock that a writer would wait for (write-ahead log), and sees committed transactions only. When a
 * snapshot has replaced the file it goes on reading the old one: a new reader has to be opened then.
 */
export class GroupReader {
  readonly database: Database.Database;
  readonly #group: GroupId;
  readonly #position: Database.Statement<[number], LogPosition>;
  readonly #last: Database.Statement<[], LogPosition>;
  readonly #base: Database.Statement<[], MetaRow>;
  readonly #entries: Database.Statement<[number, number], LogEntry>;

  /** `path` is a group's file that a GroupFile has opened before. `cacheKb`: who reads the log alone needs little. */
  constructor(path: string, group: GroupId, cacheKb = 8192) {
    this.#group = group;
    this.database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
    this.database.pragma(`cache_size = -${cacheKb}`);
    this.#position = this.database.prepare('SELECT log_index AS "index", term, hash FROM log WHERE log_index = ?');
    this.#last = this.database.prepare(
      'SELECT log_index AS "index", term, hash FROM log ORDER BY log_index DESC LIMIT 1',
    );
    this.#base = this.database.prepare(baseSql);
    this.#entries = this.database.prepare(
      'SELECT log_index AS "index", term, body, hash FROM log WHERE log_index >= ? ORDER BY log_index LIMIT ?',
    );
  }

  last(): LogPosition {
    return this.#last.get() ?? this.base();
  }

  /** The position before the first entry that is kept: all up to it has been trimmed, or came as a snapshot. */
  base(): LogPosition {
    return toBase(this.#base.all(), this.#group);
  }

  /** Index of the first entry that is kept, or of the one that will be. */
  first(): number {
    return this.base().index + 1;
  }

  applied(): number {
    return readApplied(this.database);
  }

  position(index: number): LogPosition | undefined {
    const found = this.#position.get(index);
    if (found !== undefined) return found;
    const base = this.base();
    return index === base.index ? base : undefined;
  }

  /** Up to `count` entries from index `from` on; none when that one has been trimmed. */
  entries(from: number, count: number, maximumBytes = Number.MAX_SAFE_INTEGER): LogEntry[] {
    const found: LogEntry[] = [];
    let bytes = 0;
    for (const entry of this.#entries.iterate(from, count)) {
      found.push(entry);
      bytes += entry.body.length;
      if (bytes > maximumBytes) break;
    }
    return found[0]?.index === from ? found : [];
  }

  /** The newest membership in the log at or below an index, committed or not; also one that has been trimmed. */
  membership(atOrBelow: number = Number.MAX_SAFE_INTEGER): LoggedMembership | undefined {
    const found = readMembership(this.database, atOrBelow);
    return found && { index: found.index, entry: decodeBody(found.body) as MembershipEntry };
  }

  close(): void {
    this.database.close();
  }
}

/** Names, in order, of the marks in a group's file that begin with `start`; a running node may be writing to it. */
export function marksIn(path: string, start: string): readonly string[] {
  const database = new Database(path, { readonly: true, fileMustExist: true });
  try {
    return database
      .prepare<[string], string>(
        `SELECT body ->> 'compare' FROM log WHERE body LIKE '{"kind":"mark"%' AND body ->> 'compare' LIKE ? || '%'` +
          ' ORDER BY log_index',
      )
      .pluck()
      .all(start);
  } finally {
    database.close();
  }
}
