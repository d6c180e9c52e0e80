import Database from 'better-sqlite3';

import { assert, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { decodeBody, type EntryBody, type LogEntry, type LogPosition } from './entry.ts';
import { readApplied, readBase } from './log-reader.ts';
import { appendUndo, changeRows, type RepairedTable, type RowChange, type RowOutcome } from './row-repair.ts';
import { currentGroupFile, earlierGenerations, removeLeftovers } from './snapshot-install.ts';

/** What tables a fold has, and which of their columns are the same on every node. */
export interface FoldShape {
  /** SQL that creates the fold's tables and indexes when they are missing. */
  readonly schema: string;
  /** By table, the columns that each node makes for itself: they are in no snapshot (R10). */
  readonly derived?: Readonly<Record<string, readonly string[]>>;
  /** Whether the tables hold an edit by hand that has not been dealt with: they are not what the log says then. */
  readonly isEdited?: (database: Database.Database) => boolean;
}

/** The state that a group's committed entries add up to: what the file computes from its log as it applies it. */
export interface Fold extends FoldShape {
  /** Prepares to apply; the returned function is called inside the file's transaction, once for each entry. */
  open(database: Database.Database, group: GroupId): (index: number, term: number, entry: EntryBody) => void;
  /**
   * Makes all derived columns, after the other ones came with a snapshot; or those of these rows alone, each as
   * `table key`.
   */
  derive?(database: Database.Database, only?: ReadonlySet<string>): void;
  /** Of a fold whose tables people edit by hand. */
  guard?(database: Database.Database): EditGuard;
}

/**
 * Keeps a fold as the log says although somebody may edit its tables in a shell. All but `isDue` are called inside the
 * file's transaction, which nobody's edit can come into.
 */
export interface EditGuard {
  /** Whether an edit, or something that was done to the guard itself, waits to be dealt with. Only reads. */
  isDue(): boolean;
  /** Puts the tables back to what the log says and keeps what was edited as a proposal. */
  settle(): void;
  /** Entries were applied: what the tables hold now is what the log says. */
  keep(): void;
  /** What became of a proposal that will not come through the log. */
  close(outcome: EditOutcome): void;
  /** Takes over what waits in the file at `path`, which this one replaces. */
  inherit(path: string): void;
  /** The transaction was rolled back. */
  forget(): void;
}

/** An edit that came to nothing, with the reason; without one, nothing had to be changed. */
export interface EditOutcome {
  readonly change: string;
  readonly reason: string | undefined;
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
  /** Entries up to here, applied ones only, are no longer needed: as many as a short transaction takes are removed. */
  readonly trimThrough?: number;
}

export interface WriteOutcome {
  /** All of the log up to here is on disk. */
  readonly durable: LogPosition;
  readonly applied: number;
  /** The position before the first entry that is kept. */
  readonly base: LogPosition;
  /** Apply stopped right after this mark: the caller opens its snapshots, then lets apply go on. */
  readonly mark: { readonly compare: string; readonly index: number } | undefined;
}

/** Rows that a repair changes in one transaction. */
export interface RepairBatch {
  /** The index at which the right rows were read: the fold must stand there. Undefined: the rows' digests are enough. */
  readonly at: number | undefined;
  readonly changes: readonly RowChange[];
  /** Where what was there before is kept; undefined: nowhere, this is an undoing. */
  readonly undoFile: string | undefined;
}

/** Whose file it is, and what is computed in it. */
export interface GroupIdentity {
  readonly group: GroupId;
  readonly cluster: string;
  readonly fold: Fold;
}

const formatVersion = 2;

/**
 * `membership` has the bodies of the membership entries of `log`, so that they are found without reading all of it; of
 * those that were trimmed the newest. `meta` has the base: the position before the first entry that is kept.
 */
const logSchema = `
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS log (
    log_index INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS membership (log_index INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
`;

/** How the body of a membership entry begins: `kind` is the first property of every body (entry.ts). */
const membershipStart = '{"kind":"membership"';

/** Entries applied in one transaction at most: bounds the time for which a batch keeps its file. */
const maximumAppliedPerBatch = 20_000;
/** Bodies kept in memory until they are applied, at most: entries of card files are long. */
const maximumUnappliedBytes = 4 * 1024 * 1024;
/** Entries trimmed in one transaction at most: a few milliseconds. */
const maximumTrimmedPerBatch = 1_000;

/** Creates what is missing in a group's file. Throws DATA_FOLDER_FOREIGN for another format's, cluster's or group's. */
export function prepareGroupFile(database: Database.Database, { group, cluster, fold }: GroupIdentity): void {
  database.exec(logSchema);
  const identity = { format: String(formatVersion), cluster, group: group as string };
  // Nothing is written where nothing is missing: a shell that holds the file locked keeps no node from starting.
  const read = database.prepare<[string], string>('SELECT value FROM meta WHERE name = ?').pluck();
  const insert = database.prepare('INSERT INTO meta VALUES (?, ?)');
  for (const [name, value] of Object.entries(identity)) {
    if (read.get(name) === undefined) insert.run(name, value);
    const found = read.get(name);
    if (found !== value) {
      throw new SwitchError(
        'DATA_FOLDER_FOREIGN',
        `${database.name} has ${name} "${found ?? ''}" and this process expects "${value}"`,
      );
    }
  }
  database.exec(fold.schema);
  if (read.get('applied_index') === undefined) insert.run('applied_index', '0');
}

/**
 * Of a new file. A decision dirties a few random pages (card, key, match index): smaller ones halve what the
 * write-ahead log has to carry.
 */
export const pageBytes = 2048;

/** Writes the position before the first entry that is kept; inside the caller's transaction. */
export function writeBase(database: Database.Database, base: LogPosition): void {
  const upsert = database.prepare('INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value');
  upsert.run('base_index', String(base.index));
  upsert.run('base_term', String(base.term));
  upsert.run('base_hash', base.hash);
}

/**
 * A group's file: its log, and the fold of the log's committed entries. One transaction appends what is new and
 * applies what is newly committed, so that one fdatasync covers both and the two never disagree after a crash.
 *
 * Guarantees: when `write` returns, every entry that it reports is on disk (`synchronous=FULL` on a write-ahead log);
 * how far the fold is may fall back after a crash of the machine, and is then made up from the log. The
 * fold holds committed entries only and is never rolled back: cutting the log below it is a broken invariant, and
 * trimming goes no further than it.
 */
export class GroupFile {
  /** Where the file is: `path` of `open`, or one that a snapshot has put in its place. */
  readonly path: string;
  readonly identity: GroupIdentity;
  readonly #database: Database.Database;
  readonly #apply: (index: number, term: number, entry: EntryBody) => void;
  readonly #guard: EditGuard | undefined;
  readonly #insert: Database.Statement;
  readonly #insertMembership: Database.Statement;
  readonly #cut: Database.Statement;
  readonly #cutMemberships: Database.Statement;
  readonly #trimLog: Database.Statement;
  readonly #trimMemberships: Database.Statement;
  readonly #select: Database.Statement<unknown[], { log_index: number; term: number; body: string }>;
  readonly #position: Database.Statement<[number], LogPosition>;
  readonly #setApplied: Database.Statement;
  readonly #transact: (batch: WriteBatch) => void;
  #last: LogPosition;
  #base: LogPosition;
  #applied: number;
  #mark: WriteOutcome['mark'];
  #synchronous = true;
  /** Bodies appended but not yet applied, so that apply need not read back what was just written. */
  #unapplied = new Map<number, LogEntry>();
  #unappliedBytes = 0;

  /** Opens the file, or the one that has replaced it, and removes what an interrupted replacement has left. */
  static open(path: string, group: GroupId, cluster: string, fold: Fold): GroupFile {
    let database: Database.Database | undefined;
    let current = path;
    try {
      current = currentGroupFile(path);
      database = new Database(current, { timeout: 0 });
      const file = new GroupFile(database, { group, cluster, fold });
      file.#inherit(earlierGenerations(current));
      removeLeftovers(current);
      return file;
    } catch (error) {
      database?.close();
      if (error instanceof SwitchError) throw error;
      throw new SwitchError('STORE_UNREADABLE', `cannot open ${current}: ${String(error)}`, { cause: error });
    }
  }

  private constructor(database: Database.Database, identity: GroupIdentity) {
    const { group, fold } = identity;
    this.#database = database;
    this.path = database.name;
    this.identity = identity;
    database.pragma(`page_size = ${pageBytes}`);
    database.pragma('journal_mode = WAL');
    database.pragma('synchronous = FULL');
    // Checkpoints run on another connection (store/checkpoint.ts): one here stalls every answer behind it.
    database.pragma('wal_autocheckpoint = 0');
    database.pragma('cache_size = -8192');
    prepareGroupFile(database, identity);
    this.#applied = readApplied(database);
    this.#base = readBase(database, group);
    this.#insert = database.prepare('INSERT INTO log VALUES (?, ?, ?, ?)');
    this.#insertMembership = database.prepare('INSERT INTO membership VALUES (?, ?)');
    this.#cut = database.prepare('DELETE FROM log WHERE log_index > ?');
    this.#cutMemberships = database.prepare('DELETE FROM membership WHERE log_index > ?');
    this.#trimLog = database.prepare('DELETE FROM log WHERE log_index <= ?');
    this.#trimMemberships = database.prepare(
      'DELETE FROM membership WHERE log_index < (SELECT max(log_index) FROM membership WHERE log_index <= ?)',
    );
    this.#select = database.prepare('SELECT log_index, term, body FROM log WHERE log_index = ?');
    this.#position = database.prepare('SELECT log_index AS "index", term, hash FROM log WHERE log_index = ?');
    this.#setApplied = database.prepare("UPDATE meta SET value = ? WHERE name = 'applied_index'");
    this.#last = this.#readLast();
    this.#apply = fold.open(database, group);
    this.#guard = fold.guard?.(database);
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

  /** The position before the first entry that is kept. */
  get base(): LogPosition {
    return this.#base;
  }

  /** The position of an entry that is kept, or the base. */
  position(index: number): LogPosition | undefined {
    return index === this.#base.index ? this.#base : this.#position.get(index);
  }

  /** Appends and applies in one durable transaction. Throws the store's error, with nothing changed, when it fails. */
  write(batch: WriteBatch): WriteOutcome {
    const before = { last: this.#last, applied: this.#applied, base: this.#base };
    this.#mark = undefined;
    // What is only applied can be applied again from the log, what is trimmed trimmed again: no sync of their own.
    this.#sync(batch.entries.length > 0 || batch.keepThrough !== undefined);
    try {
      this.#transact(batch);
    } catch (error) {
      this.#last = before.last;
      this.#applied = before.applied;
      this.#base = before.base;
      this.#forgetUnapplied();
      this.#guard?.forget();
      throw error;
    }
    return { durable: this.#last, applied: this.#applied, base: this.#base, mark: this.#mark };
  }

  /**
   * Deals with edits by hand, and with what became of earlier ones; gives whether there was anything to do. Throws the
   * store's error, with nothing changed, when it fails.
   */
  tendEdits(outcomes: readonly EditOutcome[]): boolean {
    const guard = this.#guard;
    if (guard === undefined || (outcomes.length === 0 && !guard.isDue())) return false;
    // Whoever is told of a proposal must find it here again.
    this.#sync(true);
    this.#guarded(guard, () => {
      for (const outcome of outcomes) guard.close(outcome);
      guard.settle();
    });
    return true;
  }

  #inherit(paths: readonly string[]): void {
    const guard = this.#guard;
    if (guard === undefined || paths.length === 0) return;
    this.#sync(true);
    this.#guarded(guard, () => {
      for (const path of paths) guard.inherit(path);
    });
  }

  #guarded(guard: EditGuard, action: () => void): void {
    try {
      this.#database.transaction(action).immediate();
    } catch (error) {
      guard.forget();
      throw error;
    }
  }

  /**
   * Moves the rest of the write-ahead log into the file, so that the next write may begin the log anew. For right after
   * `checkpoint` has moved the bulk from another thread.
   */
  finishCheckpoint(): void {
    this.#database.pragma('wal_checkpoint(PASSIVE)');
  }

  /**
   * Changes rows as a repair says, in one durable transaction; what was there before is on disk before it commits. The
   * log and what waits to be applied are as they were. Throws REPAIR_REFUSED when the fold is not at the batch's index or
   * a row would not become what it should, and what the disk says: nothing has been changed then.
   */
  repair(batch: RepairBatch, tables: readonly RepairedTable[]): readonly RowOutcome[] {
    if (batch.at !== undefined && batch.at !== this.#applied) {
      throw new SwitchError('REPAIR_REFUSED', `the fold is at ${this.#applied}, no longer at ${batch.at}`);
    }
    this.#sync(true);
    // What is judged and mended is what is on disk: pages in memory may be from before a bit flipped there.
    this.#database.pragma('shrink_memory');
    const transaction = this.#database.transaction((): readonly RowOutcome[] => {
      // What somebody edits in a shell is no part of it, before or after.
      this.#guard?.settle();
      const { outcomes, undo } = changeRows(this.#database, tables, this.identity.fold, batch.changes);
      for (const { table, key } of undo) if (table === 'log') this.#repairMembership(Number(key[0]?.slice(1)));
      if (undo.length > 0) this.#guard?.keep();
      if (batch.undoFile !== undefined && undo.length > 0) appendUndo(batch.undoFile, undo);
      return outcomes;
    });
    let outcomes: readonly RowOutcome[];
    try {
      outcomes = transaction.immediate();
    } catch (error) {
      this.#guard?.forget();
      throw error;
    }
    this.#forgetUnapplied();
    // The log ends where it did: a repaired row may have another hash, and a row beyond the end is none of ours.
    this.#last = this.position(this.#last.index) ?? this.#readLast();
    return outcomes;
  }

  #repairMembership(index: number): void {
    this.#database.prepare('DELETE FROM membership WHERE log_index = ?').run(index);
    const entry = this.#select.get(index);
    if (entry?.body.startsWith(membershipStart) === true) this.#insertMembership.run(index, entry.body);
  }

  #sync(full: boolean): void {
    if (full === this.#synchronous) return;
    this.#database.pragma(`synchronous = ${full ? 'FULL' : 'NORMAL'}`);
    this.#synchronous = full;
  }

  close(): void {
    this.#database.close();
  }

  /** Closes the file and opens it anew, or the one that has replaced it. Throws what `open` throws. */
  reopened(): GroupFile {
    this.close();
    const { group, cluster, fold } = this.identity;
    return GroupFile.open(this.path, group, cluster, fold);
  }

  /** Writes and syncs something that changes nothing. Throws the store's error when the file cannot be written. */
  probe(): void {
    this.#sync(true);
    this.#setApplied.run(String(this.#applied));
  }

  #write(batch: WriteBatch, group: GroupId): void {
    if (batch.keepThrough !== undefined && batch.keepThrough < this.#last.index) {
      assert(batch.keepThrough >= this.#applied, `log of ${group} is cut above applied index ${this.#applied}`);
      this.#forgetUnapplied();
      this.#cut.run(batch.keepThrough);
      this.#cutMemberships.run(batch.keepThrough);
      this.#last = this.#readLast();
    }
    for (const entry of batch.entries) {
      assert(entry.index === this.#last.index + 1, `entry ${entry.index} of ${group} follows ${this.#last.index}`);
      this.#insert.run(entry.index, entry.term, entry.body, entry.hash);
      if (entry.body.startsWith(membershipStart)) this.#insertMembership.run(entry.index, entry.body);
      this.#unapplied.set(entry.index, entry);
      this.#unappliedBytes += entry.body.length;
      this.#last = { index: entry.index, term: entry.term, hash: entry.hash };
    }
    const applyThrough = Math.min(batch.applyThrough, this.#last.index, this.#applied + maximumAppliedPerBatch);
    const from = this.#applied;
    if (from < applyThrough) this.#guard?.settle();
    while (this.#applied < applyThrough && this.#mark === undefined) this.#applyNext();
    if (this.#applied !== from) {
      this.#setApplied.run(String(this.#applied));
      this.#guard?.keep();
    }
    // A tail that is long in coming to commit is read back from the file instead of being pinned here.
    if (this.#unapplied.size > maximumAppliedPerBatch || this.#unappliedBytes > maximumUnappliedBytes) {
      this.#forgetUnapplied();
    }
    if (batch.trimThrough !== undefined) this.#trim(batch.trimThrough);
  }

  #applyNext(): void {
    const index = this.#applied + 1;
    const entry = this.#unapplied.get(index) ?? this.#select.get(index);
    assert(entry !== undefined, `committed entry ${index} is in the log`);
    const body = decodeBody(entry.body);
    this.#apply(index, entry.term, body);
    if (this.#unapplied.delete(index)) this.#unappliedBytes -= entry.body.length;
    this.#applied = index;
    if (body.kind === 'mark') this.#mark = { compare: body.compare, index };
  }

  #forgetUnapplied(): void {
    this.#unapplied.clear();
    this.#unappliedBytes = 0;
  }

  /** Never above the fold: what has been removed cannot be applied any more. */
  #trim(trimThrough: number): void {
    const through = Math.min(trimThrough, this.#applied, this.#base.index + maximumTrimmedPerBatch);
    if (through <= this.#base.index) return;
    const base = this.#position.get(through);
    assert(base !== undefined, `applied entry ${through} is in the log`);
    this.#trimLog.run(through);
    this.#trimMemberships.run(through);
    writeBase(this.#database, base);
    this.#base = base;
  }

  #readLast(): LogPosition {
    const row = this.#database
      .prepare<[], LogPosition>('SELECT log_index AS "index", term, hash FROM log ORDER BY log_index DESC LIMIT 1')
      .get();
    return row ?? this.#base;
  }
}
