import Database from 'better-sqlite3';

import type { LogEntry } from '../../store/entry.ts';

/** The baseline of the store: one table, one insert a row, one synced transaction a batch, nothing else. */
export class BareInserts {
  readonly #database: Database.Database;
  readonly #insert: (entries: readonly LogEntry[]) => void;

  constructor(path: string) {
    this.#database = new Database(path);
    this.#database.pragma('journal_mode = WAL');
    this.#database.pragma('synchronous = FULL');
    this.#database.exec('CREATE TABLE log (log_index INTEGER PRIMARY KEY, term INTEGER, body TEXT, hash TEXT)');
    const insert = this.#database.prepare('INSERT INTO log VALUES (?, ?, ?, ?)');
    this.#insert = this.#database.transaction((entries: readonly LogEntry[]) => {
      for (const entry of entries) insert.run(entry.index, entry.term, entry.body, entry.hash);
    });
  }

  insert(entries: readonly LogEntry[]): void {
    this.#insert(entries);
  }

  close(): void {
    this.#database.close();
  }
}
