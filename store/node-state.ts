import Database from 'better-sqlite3';

import type { GroupId, NodeId } from '../base/identifiers.ts';

export interface StoredHardState {
  readonly term: number;
  readonly votedFor: NodeId | undefined;
}

/** How far a member has acknowledged a group's log: its disk holds it up to `index`, as the leader of `term` had it. */
export interface Acknowledged {
  readonly incarnation: number;
  readonly term: number;
  readonly index: number;
}

/** How long a statement waits for the process's other thread to finish its own. */
const lockTimeoutMs = 5_000;

/**
 * What a process must not forget besides its logs: the term and vote of each group, the incarnation of its own disk, what
 * other members have acknowledged (R8), and how often it has started. A file of its own, so that no long transaction of
 * a group stands before a vote. Every write is synced when it returns. Two threads may have it open.
 */
export class NodeState {
  readonly #database: Database.Database;
  readonly #remember: Database.Statement;
  readonly #rememberAll: (all: Iterable<Acknowledged & { readonly group: GroupId; readonly id: NodeId }>) => void;

  constructor(path: string) {
    this.#database = new Database(path, { timeout: lockTimeoutMs });
    this.#database.pragma('journal_mode = WAL');
    this.#database.pragma('synchronous = FULL');
    this.#database.exec(`
      CREATE TABLE IF NOT EXISTS hard_state (
        group_id TEXT PRIMARY KEY, term INTEGER NOT NULL, voted_for TEXT
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS incarnation (group_id TEXT PRIMARY KEY, incarnation INTEGER NOT NULL) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS acknowledged (
        group_id TEXT NOT NULL, node_id TEXT NOT NULL, incarnation INTEGER NOT NULL, term INTEGER NOT NULL,
        log_index INTEGER NOT NULL, PRIMARY KEY (group_id, node_id)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS process (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), boot INTEGER NOT NULL) STRICT;
    `);
    this.#remember = this.#database.prepare(
      'INSERT INTO acknowledged VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET' +
        ' incarnation = excluded.incarnation, term = excluded.term, log_index = excluded.log_index' +
        ' WHERE (excluded.incarnation, excluded.term, excluded.log_index) > (incarnation, term, log_index)',
    );
    const transaction = this.#database.transaction(
      (all: Iterable<Acknowledged & { readonly group: GroupId; readonly id: NodeId }>) => {
        for (const { group, id, incarnation, term, index } of all) {
          this.#remember.run(group, id, incarnation, term, index);
        }
      },
    );
    this.#rememberAll = (all) => {
      transaction.immediate(all);
    };
  }

  /**
   * Counts this start. The number is higher than any before it in this folder, and at least `atLeast`: given the time in
   * seconds, it has not been used either by a folder that was lost.
   */
  countBoot(atLeast = 1): number {
    const row = this.#database
      .prepare<[number, number], { boot: number }>(
        'INSERT INTO process VALUES (1, ?) ON CONFLICT DO UPDATE SET boot = max(boot + 1, ?) RETURNING boot',
      )
      .get(atLeast, atLeast);
    return row?.boot ?? atLeast;
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

  /** Which of this process's disks the group's copy is on (R8): 1 for the first. */
  incarnation(group: GroupId): number {
    const row = this.#database
      .prepare<[string], { incarnation: number }>('SELECT incarnation FROM incarnation WHERE group_id = ?')
      .get(group);
    return row?.incarnation ?? 1;
  }

  saveIncarnation(group: GroupId, incarnation: number): void {
    this.#database
      .prepare('INSERT INTO incarnation VALUES (?, ?) ON CONFLICT DO UPDATE SET incarnation = excluded.incarnation')
      .run(group, incarnation);
  }

  /**
   * Remembers what members of any groups have acknowledged: one synced transaction. Of each member the newest is kept: a
   * higher incarnation, then a higher term, then a higher index. A log that was cut ends lower in a higher term.
   */
  rememberAcknowledged(all: readonly (Acknowledged & { readonly group: GroupId; readonly id: NodeId })[]): void {
    if (all.length > 0) this.#rememberAll(all);
  }

  /** The newest that this process remembers of the member, or undefined. */
  acknowledgedBy(group: GroupId, id: NodeId): Acknowledged | undefined {
    return this.#database
      .prepare<[string, string], Acknowledged>(
        'SELECT incarnation, term, log_index AS "index" FROM acknowledged WHERE group_id = ? AND node_id = ?',
      )
      .get(group, id);
  }

  close(): void {
    this.#database.close();
  }
}
