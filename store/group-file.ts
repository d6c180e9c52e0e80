import Database from 'better-sqlite3';

import { assert, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { decodeBody, originPosition, type EntryBody, type LogEntry, type LogPosition } from './entry.ts';

/** The state that a group's committed entries add up to: what the file computes from its log as it applies it. */
export interface Fold {
  /** SQL that creates the fold's tables and indexes when they are missing. */
  readonly schema: string;
  /** Prepares to apply; the returned function is called inside the file's transaction, once for each entry. */
  open(database: Database.Database, group: GroupId): (index: number, term: number, entry: EntryBody) => void;
}

/** A fold of nothing: what the witness keeps. */
export const noFold: Fold = { schema: '', open: () => () => undefined };

export interface WriteBatch {
  /** New entries, consecutive; the first one's index is the present last index + 1 unless the log is cut first. */
  readonly entries: readonly LogEntry[];
  /** Entries above this index are removed first (they were never committed), or undefined. */
  readonly keepThrough: number | undefined;
  /** Apply committed entries up to here. */
  readonly applyThrough: number;
}

export interface WriteOutcome {
  /** All of the log up to here is on disk. */
  readonly durable: LogPosition;
  readonly applied: number;
  /** Apply stopped right after this mark: the caller opens its snapshots, then lets apply go on. */
  readonly mark: { readonly compare: string; readonly index: number } | undefined;
}

const formatVersion = 1;

const logSchema = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS log (
    log_index INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash TEXT NOT NULL
  ) STRICT;
`;

/** Entries applied in one transaction at most: bounds the time for which a batch keeps its file. */
const maximumAppliedPerBatch = 20_000;

/**
 * A group's file: its log, and the fold of the log's committed entries. One transaction appends what is new and
 * applies what is newly committed, so that one fdatasync covers both and the two never disagree after a crash.
 *
 * Guarantees: when `write` returns, every entry that it reports is on disk (`synchronous=FULL` on a write-ahead log);
 * how far the fold is may fall back after a crash of the machine, and is then made up from the log. The
 * fold holds committed entries only and is never rolled back; cutting the log below it is a broken invariant.
 */
export class GroupFile {
  readonly #database: Database.Database;
  readonly #apply: (index: number, term: number, entry: EntryBody) => void;
  readonly #insert: Database.Statement;
  readonly #cut: Database.Statement;
  readonly #select: Database.Statement<unknown[], { log_index: number; term: number; body: string }>;
  readonly #setApplied: Database.Statement;
  readonly #transact: (batch: WriteBatch) => void;
  #last: LogPosition;
  #applied: number;
  #mark: WriteOutcome['mark'];
  #synchronous = true;
  /** Bodies appended but not yet applied, so that apply need not read back what was just written. */
  #unapplied = new Map<number, LogEntry>();

  static open(path: string, group: GroupId, cluster: string, fold: Fold): GroupFile {
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { timeout: 0 });
      return new GroupFile(database, path, group, cluster, fold);
    } catch (error) {
      database?.close();
      if (error instanceof SwitchError) throw error;
      throw new SwitchError('STORE_UNREADABLE', `cannot open ${path}: ${String(error)}`, { cause: error });
    }
  }

  private constructor(database: Database.Database, path: string, group: GroupId, cluster: string, fold: Fold) {
    this.#database = database;
    // A decision dirties a few random pages (card, key, match index): smaller ones halve what the log has to carry.
    database.pragma('page_size = 2048');
    database.pragma('journal_mode = WAL');
    database.pragma('synchronous = FULL');
    // Checkpoints run on another connection (store/checkpoint.ts): one here stalls every answer behind it.
    database.pragma('wal_autocheckpoint = 0');
    database.pragma('cache_size = -16384');
    database.exec(logSchema);
    const identity = { format: String(formatVersion), cluster, group: group as string };
    for (const [name, value] of Object.entries(identity)) {
      database.prepare('INSERT OR IGNORE INTO meta VALUES (?, ?)').run(name, value);
      const found = readMeta(database, name);
      if (found !== value) {
        throw new SwitchError(
          'DATA_FOLDER_FOREIGN',
          `${path} has ${name} "${found ?? ''}" and this process expects "${value}"`,
        );
      }
    }
    database.exec(fold.schema);
    database.prepare("INSERT OR IGNORE INTO meta VALUES ('applied_index', '0')").run();
    this.#applied = Number(readMeta(database, 'applied_index'));
    this.#last = lastPosition(database, group);
    this.#insert = database.prepare('INSERT INTO log VALUES (?, ?, ?, ?)');
    this.#cut = database.prepare('DELETE FROM log WHERE log_index > ?');
    this.#select = database.prepare('SELECT log_index, term, body FROM log WHERE log_index = ?');
    this.#setApplied = database.prepare("UPDATE meta SET value = ? WHERE name = 'applied_index'");
    this.#apply = fold.open(database, group);
    const transaction = database.transaction((batch: WriteBatch) => {
      this.#write(batch, group);
    });
    this.#transact = (batch) => {
      transaction.immediate(batch);
    };
  }

  get last(): LogPosition {
    return this.#last;
  }

  get applied(): number {
    return this.#applied;
  }

  /** Appends and applies in one durable transaction. Throws the store's error, with nothing changed, when it fails. */
  write(batch: WriteBatch): WriteOutcome {
    const before = { last: this.#last, applied: this.#applied };
    this.#mark = undefined;
    // What is only applied can be applied again from the log: it needs no sync of its own.
    this.#sync(batch.entries.length > 0 || batch.keepThrough !== undefined);
    try {
      this.#transact(batch);
    } catch (error) {
      this.#last = before.last;
      this.#applied = before.applied;
      this.#unapplied.clear();
      throw error;
    }
    return { durable: this.#last, applied: this.#applied, mark: this.#mark };
  }

  /**
   * Moves the rest of the write-ahead log into the file, so that the next write may begin the log anew. For right after
   * `checkpoint` has moved the bulk from another thread.
   */
  finishCheckpoint(): void {
    this.#database.pragma('wal_checkpoint(PASSIVE)');
  }

  #sync(full: boolean): void {
    if (full === this.#synchronous) return;
    this.#database.pragma(`synchronous = ${full ? 'FULL' : 'NORMAL'}`);
    this.#synchronous = full;
  }

  close(): void {
    this.#database.close();
  }

  #write(batch: WriteBatch, group: GroupId): void {
    if (batch.keepThrough !== undefined && batch.keepThrough < this.#last.index) {
      assert(batch.keepThrough >= this.#applied, `log of ${group} is cut above applied index ${this.#applied}`);
      for (let index = batch.keepThrough + 1; index <= this.#last.index; index++) this.#unapplied.delete(index);
      this.#cut.run(batch.keepThrough);
      this.#last = lastPosition(this.#database, group);
    }
    for (const entry of batch.entries) {
      assert(entry.index === this.#last.index + 1, `entry ${entry.index} of ${group} follows ${this.#last.index}`);
      this.#insert.run(entry.index, entry.term, entry.body, entry.hash);
      this.#unapplied.set(entry.index, entry);
      this.#last = entry;
    }
    const applyThrough = Math.min(batch.applyThrough, this.#last.index, this.#applied + maximumAppliedPerBatch);
    const from = this.#applied;
    while (this.#applied < applyThrough && this.#mark === undefined) this.#applyNext();
    if (this.#applied !== from) this.#setApplied.run(String(this.#applied));
    // A tail that is long in coming to commit is read back from the file instead of being pinned here.
    if (this.#unapplied.size > maximumAppliedPerBatch) this.#unapplied.clear();
  }

  #applyNext(): void {
    const index = this.#applied + 1;
    const entry = this.#unapplied.get(index) ?? this.#select.get(index);
    assert(entry !== undefined, `committed entry ${index} is in the log`);
    const body = decodeBody(entry.body);
    this.#apply(index, entry.term, body);
    this.#unapplied.delete(index);
    this.#applied = index;
    if (body.kind === 'mark') this.#mark = { compare: body.compare, index };
  }
}

function readMeta(database: Database.Database, name: string): string | undefined {
  return database.prepare<[string], { value: string }>('SELECT value FROM meta WHERE name = ?').get(name)?.value;
}

function lastPosition(database: Database.Database, group: GroupId): LogPosition {
  const row = database
    .prepare<[], { log_index: number; term: number; hash: string }>(
      'SELECT log_index, term, hash FROM log ORDER BY log_index DESC LIMIT 1',
    )
    .get();
  return row === undefined ? originPosition(group) : { index: row.log_index, term: row.term, hash: row.hash };
}
