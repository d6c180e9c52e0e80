import Database from 'better-sqlite3';

import type { GroupId, NodeId } from '../base/identifiers.ts';

export interface StoredHardState {
  readonly term: number;
  readonly votedFor: NodeId | undefined;
}

/**
 * What a process must not forget besides its logs: the term and vote of each group, and how often it has started.
 * A file of its own, so that no long transaction of a group stands before a vote. Every write is synced when it
 * returns.
 */
export class NodeState {
  readonly #database: Database.Database;

  constructor(path: string) {
    this.#database = new Database(path);
    this.#database.pragma('journal_mode = WAL');
    this.#database.pragma('synchronous = FULL');
    this.#database.exec(`
      CREATE TABLE IF NOT EXISTS hard_state (
        group_id TEXT PRIMARY KEY, term INTEGER NOT NULL, voted_for TEXT
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS process (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), boot INTEGER NOT NULL) STRICT;
    `);
  }

  /** Counts this start; the number has never been used by this folder before. */
  countBoot(): number {
    const row = this.#database
      .prepare<[], { boot: number }>(
        'INSERT INTO process VALUES (1, 1) ON CONFLICT DO UPDATE SET boot = boot + 1 RETURNING boot',
      )
      .get();
    return row?.boot ?? 1;
  }

  hardState(group: GroupId): StoredHardState {
    const row = this.#database
      .prepare<[string], { term: number; voted_for: NodeId | null }>(
        'SELECT term, voted_for FROM hard_state WHERE group_id = ?',
      )
      .get(group);
    return { term: row?.term ?? 0, votedFor: row?.voted_for ?? undefined };
  }

  saveHardState(group: GroupId, state: StoredHardState): void {
    this.#database
      .prepare(
        'INSERT INTO hard_state VALUES (?, ?, ?)' +
          ' ON CONFLICT DO UPDATE SET term = excluded.term, voted_for = excluded.voted_for',
      )
      .run(group, state.term, state.votedFor ?? null);
  }

  close(): void {
    this.#database.close();
  }
}
