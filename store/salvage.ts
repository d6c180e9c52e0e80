import Database from 'better-sqlite3';

import { describeError, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { decodeBody, type LogEntry, type SalvageableEntry } from './entry.ts';

/** An entry that this node's log lost and that may have been answered: offered to the group's owner (R9). */
export interface SalvagedEntry {
  readonly group: GroupId;
  readonly term: number;
  readonly index: number;
  readonly hash: string;
  readonly body: string;
}

/** kept: the present log has that very entry. The others are the owner's resolution. */
export type SalvageOutcome = 'adopted' | 'voided' | 'kept';

export interface SalvageCounts {
  readonly pending: number;
  readonly adopted: number;
  readonly voided: number;
  readonly kept: number;
}

const schema = `
  CREATE TABLE IF NOT EXISTS salvaged_entry (
    group_id TEXT NOT NULL,
    term INTEGER NOT NULL,
    log_index INTEGER NOT NULL,
    hash TEXT NOT NULL,
    body TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (group_id, term, log_index)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS salvaged_entry_pending ON salvaged_entry (group_id, term, log_index) WHERE outcome = '';
`;

/** One thread waits at most this long while the other writes its few rows. */
const lockTimeoutMs = 2_000;

/**
 * salvage.db: the entries of `local` durability that Raft cut from this node's logs, or that a snapshot replaced. They
 * were answered on the strength of one disk, so they are kept on it until an owner has adopted or voided each (R9).
 * Resolved ones stay, for the record. Two threads have it open: one adds before a log is cut, the other offers and
 * resolves.
 */
export class SalvageFile {
  readonly #database: Database.Database;
  readonly #insert: Database.Statement;
  readonly #resolve: Database.Statement;
  readonly #select: Database.Statement<[string, number], SalvagedEntry>;
  readonly #selectGroups: Database.Statement<[], { group: GroupId }>;
  readonly #count: Database.Statement<[{ group: string | null }], { outcome: string; count: number }>;
  readonly #addAll: (group: GroupId, entries: readonly LogEntry[]) => void;

  /** Opens or creates the file. Throws STORE_UNREADABLE. */
  constructor(path: string) {
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { timeout: lockTimeoutMs });
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = FULL');
      database.exec(schema);
      this.#database = database;
    } catch (error) {
      database?.close();
      throw new SwitchError('STORE_UNREADABLE', `cannot open ${path}: ${describeError(error)}`, { cause: error });
    }
    this.#insert = database.prepare("INSERT OR IGNORE INTO salvaged_entry VALUES (?, ?, ?, ?, ?, '')");
    this.#resolve = database.prepare(
      "UPDATE salvaged_entry SET outcome = ? WHERE group_id = ? AND term = ? AND log_index = ? AND outcome = ''",
    );
    this.#select = database.prepare(
      'SELECT group_id AS "group", term, log_index AS "index", hash, body FROM salvaged_entry' +
        " WHERE outcome = '' AND group_id = ? ORDER BY term, log_index LIMIT ?",
    );
    this.#selectGroups = database.prepare(
      'SELECT DISTINCT group_id AS "group" FROM salvaged_entry WHERE outcome = \'\' ORDER BY group_id',
    );
    this.#count = database.prepare(
      'SELECT outcome, count(*) AS count FROM salvaged_entry WHERE $group IS NULL OR group_id = $group GROUP BY outcome',
    );
    const transaction = database.transaction((group: GroupId, entries: readonly LogEntry[]) => {
      for (const { term, index, hash, body } of entries) this.#insert.run(group, term, index, hash, body);
    });
    this.#addAll = (group, entries) => {
      transaction.immediate(group, entries);
    };
  }

  /**
   * Keeps those of the entries that may have been answered before they committed; on disk when it returns. The same
   * entry again changes nothing, resolved or not. Throws the store's error: then nothing may be cut.
   */
  add(group: GroupId, entries: readonly LogEntry[]): void {
    const kept = entries.filter(({ body }) => isSalvageable(body));
    if (kept.length > 0) this.#addAll(group, kept);
  }

  /** Groups of which something is to be offered. */
  groups(): readonly GroupId[] {
    return this.#selectGroups.all().map((row) => row.group);
  }

  /** The first ones not yet resolved, in the order of their log: what refers to another comes after it. */
  pending(group: GroupId, limit: number): readonly SalvagedEntry[] {
    return this.#select.all(group, limit);
  }

  /** False when the other thread had the file: offer it again, the owner gives the same outcome. */
  resolve(group: GroupId, term: number, index: number, outcome: SalvageOutcome): boolean {
    // The deciding thread waits for no lock (R13).
    this.#database.pragma('busy_timeout = 0');
    try {
      this.#resolve.run(outcome, group, term, index);
      return true;
    } catch (error) {
      if (error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY')) return false;
      throw error;
    } finally {
      this.#database.pragma(`busy_timeout = ${lockTimeoutMs}`);
    }
  }

  /** Of one group, or of all. */
  counts(group?: GroupId): SalvageCounts {
    const counts = new Map(this.#count.all({ group: group ?? null }).map((row) => [row.outcome, row.count]));
    const of = (outcome: string): number => counts.get(outcome) ?? 0;
    return { pending: of(''), adopted: of('adopted'), voided: of('voided'), kept: of('kept') };
  }

  close(): void {
    this.#database.close();
  }
}

/** `quorum` answers wait for the commit, and what has committed is never cut. */
function isSalvageable(text: string): boolean {
  const body = decodeBody(text);
  return salvageableEntry(body) !== undefined && 'durability' in body && body.durability === 'local';
}

export function salvageableEntry(body: ReturnType<typeof decodeBody>): SalvageableEntry | undefined {
  return body.kind === 'decision' || body.kind === 'reversal' || body.kind === 'attempt' ? body : undefined;
}
