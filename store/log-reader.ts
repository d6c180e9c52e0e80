import Database from 'better-sqlite3';

import type { GroupId } from '../base/identifiers.ts';
import { originPosition, type LogEntry, type LogPosition } from './entry.ts';

interface LogRow {
  readonly log_index: number;
  readonly term: number;
  readonly body: string;
  readonly hash: string;
}

/**
 * Reads a group's file beside the one connection that writes it: the log for replication, the fold for deciding.
 * It never takes a lock that a writer would wait for (write-ahead log), and sees committed transactions only.
 */
export class GroupReader {
  readonly database: Database.Database;
  readonly #group: GroupId;
  readonly #position: Database.Statement<[number], LogRow>;
  readonly #last: Database.Statement<[], LogRow>;
  readonly #entries: Database.Statement<[number, number], LogRow>;

  /** `path` is a group's file that a GroupFile has opened before. */
  constructor(path: string, group: GroupId) {
    this.#group = group;
    this.database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
    this.database.pragma('cache_size = -8192');
    this.#position = this.database.prepare("SELECT log_index, term, '' AS body, hash FROM log WHERE log_index = ?");
    this.#last = this.database.prepare(
      "SELECT log_index, term, '' AS body, hash FROM log ORDER BY log_index DESC LIMIT 1",
    );
    this.#entries = this.database.prepare(
      'SELECT log_index, term, body, hash FROM log WHERE log_index >= ? ORDER BY log_index LIMIT ?',
    );
  }

  last(): LogPosition {
    const row = this.#last.get();
    return row === undefined ? originPosition(this.#group) : toPosition(row);
  }

  applied(): number {
    const row = this.database
      .prepare<[], { value: string }>("SELECT value FROM meta WHERE name = 'applied_index'")
      .get();
    return Number(row?.value ?? 0);
  }

  position(index: number): LogPosition | undefined {
    if (index === 0) return originPosition(this.#group);
    const row = this.#position.get(index);
    return row === undefined ? undefined : toPosition(row);
  }

  /** Up to `count` entries from index `from` on. */
  entries(from: number, count: number): LogEntry[] {
    return this.#entries
      .all(from, count)
      .map((row) => ({ index: row.log_index, term: row.term, body: row.body, hash: row.hash }));
  }

  close(): void {
    this.database.close();
  }
}

function toPosition(row: LogRow): LogPosition {
  return { index: row.log_index, term: row.term, hash: row.hash };
}
