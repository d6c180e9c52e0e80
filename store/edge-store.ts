import Database from 'better-sqlite3';

import type { Clock } from '../base/clock.ts';
import { describeError, isStoreBusy, SwitchError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import type { CardStatus } from './card-status.ts';
import type { DecisionEntry } from './entry.ts';

/**
 * A request that an edge has brought to its owner and answered 91: whatever the owner decides, or has decided, was not
 * delivered (R5). It names the request by attempt and duplicate key, and so holds no card data.
 */
export interface ReversalDue {
  readonly attempt: string;
  readonly key: string;
  readonly group: GroupId;
  /** Wall clock of the edge when time was up. */
  readonly at: number;
}

/** An approval that this edge gave by itself; `decision` has its attempt and time. */
export interface StandIn {
  /** Counts this edge's own approvals, for people; what names one for good is its attempt. */
  readonly sequence: number;
  readonly group: GroupId;
  /** The card's, in which `decision` holds or posts. */
  readonly currency: string;
  readonly decision: DecisionEntry;
}

/** A restriction that was entered at this node and works here, whether or not the card's log has it (R11). */
export interface HeldRestriction {
  /** Names it for good. */
  readonly id: string;
  readonly group: GroupId;
  readonly panHash: string;
  readonly status: CardStatus;
  /** Wall clock of this node when it was entered, and by whom. */
  readonly at: number;
  readonly by: string;
}

/** What has become of a change that waits at a node; `dropped`: an operator did not want it any more. */
export type QueueOutcome = 'waiting' | 'entered' | 'refused' | 'dropped';

/** A change of the configuration that is kept at this node until its leader has taken or refused it. */
export interface QueuedChange {
  /** Names the change for good, in the log too. */
  readonly id: string;
  readonly by: string;
  /** Wall clock of this node. */
  readonly at: number;
  /** Names of its rows, for people. */
  readonly rows: readonly string[];
  readonly changes: readonly { readonly change: string; readonly replaces: number }[];
  readonly outcome: QueueOutcome;
  /** Of an entered one its log index, 0 when nothing had to be changed. */
  readonly index: number;
  readonly reason: string;
  /** Wall clock when it came to its end; 0 while it waits. */
  readonly endedAt: number;
}

export type QueueEnd = Pick<QueuedChange, 'id' | 'outcome' | 'index' | 'reason' | 'endedAt'>;

export type EdgeChange =
  | { readonly kind: 'due'; readonly due: ReversalDue }
  | { readonly kind: 'stand-in'; readonly standIn: StandIn }
  | { readonly kind: 'restriction'; readonly restriction: HeldRestriction }
  /** This node's own copy of the card's group has it, or no such card is on file. */
  | { readonly kind: 'restriction-over'; readonly id: string }
  /** An entry about it has committed, or it never took effect. */
  | { readonly kind: 'settled'; readonly of: 'due' | 'stand-in'; readonly attempt: string };

export type QueueChange =
  { readonly kind: 'queued'; readonly queued: QueuedChange } | { readonly kind: 'queue-end'; readonly end: QueueEnd };

export interface EdgePending {
  /** The oldest ones, in order. */
  readonly dues: readonly ReversalDue[];
  /** All of them: the limits of a node and of its ranges keep them few. */
  readonly standIns: readonly StandIn[];
  readonly lastSequence: number;
  /** All of them, the oldest first. */
  readonly restrictions: readonly HeldRestriction[];
}

/**
 * What an edge must not forget. Both calls may be carried out by another thread; each `done` is called once.
 */
export interface EdgeStore {
  /** All or nothing; on disk when `done` is called without a failure. */
  submit(changes: readonly EdgeChange[], done: (failure: SwitchError | undefined) => void): void;
  /** What was synced and is not settled; undefined when the file cannot be read. */
  pending(maximumDues: number, done: (pending: EdgePending | undefined) => void): void;
}

const schema = `
  CREATE TABLE IF NOT EXISTS reversal_due (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    attempt TEXT NOT NULL UNIQUE,
    request_key TEXT NOT NULL,
    group_id TEXT NOT NULL,
    at_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS stand_in (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    attempt TEXT NOT NULL UNIQUE,
    group_id TEXT NOT NULL,
    currency TEXT NOT NULL,
    decision TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS restriction (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    restriction_id TEXT NOT NULL UNIQUE,
    group_id TEXT NOT NULL,
    pan_hash TEXT NOT NULL,
    status TEXT NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    entered_by TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS queued_change (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    change_id TEXT NOT NULL UNIQUE,
    queued_by TEXT NOT NULL,
    queued_at_ms INTEGER NOT NULL,
    rows TEXT NOT NULL,
    changes TEXT NOT NULL,
    outcome TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    reason TEXT NOT NULL,
    ended_at_ms INTEGER NOT NULL
  ) STRICT;
`;

/** Queued changes that have come to their end and are kept to be looked at. */
const keptEnds = 200;

/** A shell's lock on the file is waited for so often, and so long each time, without holding up the thread. */
const busyRetries = 40;
const busyRetryMs = 5;

/**
 * edge.db. What gathers in one turn of the event loop is one transaction with one sync: at an outage hundreds of
 * requests run out of time together.
 */
export class EdgeFile implements EdgeStore {
  readonly #clock: Clock;
  readonly #database: Database.Database;
  readonly #write: (changes: readonly (EdgeChange | QueueChange)[]) => void;
  #waiting: {
    readonly changes: readonly (EdgeChange | QueueChange)[];
    readonly done: (failure: SwitchError | undefined) => void;
  }[] = [];
  #scheduled = false;
  #closed = false;

  /** Opens or creates the file. Throws STORE_UNREADABLE. */
  constructor(path: string, clock: Clock) {
    this.#clock = clock;
    let database: Database.Database | undefined;
    try {
      database = new Database(path, { timeout: 0 });
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = FULL');
      database.exec(schema);
      this.#database = database;
      this.#write = prepareWrite(database);
    } catch (error) {
      database?.close();
      throw new SwitchError('STORE_UNREADABLE', `cannot open ${path}: ${describeError(error)}`, { cause: error });
    }
  }

  submit(changes: readonly (EdgeChange | QueueChange)[], done: (failure: SwitchError | undefined) => void): void {
    this.#waiting.push({ changes, done });
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#flush(busyRetries);
    });
  }

  pending(maximumDues: number, done: (pending: EdgePending | undefined) => void): void {
    let pending: EdgePending | undefined;
    try {
      pending = readPending(this.#database, maximumDues);
    } catch {
      pending = undefined;
    }
    done(pending);
  }

  /** Changes that wait, and the last that have come to their end, in order. Throws STORE_UNREADABLE. */
  queuedChanges(): QueuedChange[] {
    try {
      return readQueued(this.#database);
    } catch (error) {
      throw new SwitchError('STORE_UNREADABLE', `cannot read edge.db: ${describeError(error)}`, { cause: error });
    }
  }

  /** As the end of a process that is killed: what was submitted and not yet written is gone, and nobody hears of it. */
  abandon(): void {
    this.#waiting = [];
    this.close();
  }

  /** What was submitted and not yet written is written first. */
  close(): void {
    if (this.#closed) return;
    this.#flush(0);
    this.#closed = true;
    this.#database.close();
  }

  #flush(retries: number): void {
    if (this.#closed) return;
    const waiting = this.#waiting;
    const changes = waiting.flatMap((each) => each.changes);
    let failure: SwitchError | undefined;
    try {
      if (changes.length > 0) this.#write(changes);
    } catch (error) {
      if (isStoreBusy(error) && retries > 0) {
        this.#clock.after(busyRetryMs, () => {
          this.#flush(retries - 1);
        });
        return;
      }
      failure = new SwitchError('STORE_UNREADABLE', `cannot write edge.db: ${describeError(error)}`, { cause: error });
    }
    this.#scheduled = false;
    this.#waiting = [];
    for (const { done } of waiting) done(failure);
  }
}

function prepareWrite(database: Database.Database): (changes: readonly (EdgeChange | QueueChange)[]) => void {
  const insertDue = database.prepare(
    'INSERT OR IGNORE INTO reversal_due (attempt, request_key, group_id, at_ms) VALUES (?, ?, ?, ?)',
  );
  const insertStandIn = database.prepare('INSERT INTO stand_in VALUES (?, ?, ?, ?, ?)');
  const insertRestriction = database.prepare(
    'INSERT INTO restriction (restriction_id, group_id, pan_hash, status, entered_at_ms, entered_by)' +
      ' VALUES (?, ?, ?, ?, ?, ?)',
  );
  const deleteRestriction = database.prepare('DELETE FROM restriction WHERE restriction_id = ?');
  const insertQueued = database.prepare(
    'INSERT INTO queued_change (change_id, queued_by, queued_at_ms, rows, changes, outcome, log_index, reason,' +
      ' ended_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
  );
  const endQueued = database.prepare(
    "UPDATE queued_change SET outcome = ?, log_index = ?, reason = ?, ended_at_ms = ?, changes = '[]' WHERE change_id = ?",
  );
  const forgetQueued = database.prepare(
    "DELETE FROM queued_change WHERE outcome <> 'waiting' AND number <= (SELECT max(number) FROM queued_change) - ?",
  );
  const deleteFrom = {
    due: database.prepare('DELETE FROM reversal_due WHERE attempt = ?'),
    'stand-in': database.prepare('DELETE FROM stand_in WHERE attempt = ?'),
  };
  const transaction = database.transaction((changes: readonly (EdgeChange | QueueChange)[]) => {
    for (const change of changes) {
      switch (change.kind) {
        case 'due': {
          const { attempt, key, group, at } = change.due;
          insertDue.run(attempt, key, group, at);
          break;
        }
        case 'stand-in': {
          const { sequence, group, currency, decision } = change.standIn;
          insertStandIn.run(sequence, decision.attempt, group, currency, JSON.stringify(decision));
          break;
        }
        case 'restriction': {
          const { id, group, panHash, status, at, by } = change.restriction;
          insertRestriction.run(id, group, panHash, status, at, by);
          break;
        }
        case 'restriction-over':
          deleteRestriction.run(change.id);
          break;
        case 'queued': {
          const { id, by, at, rows, changes: wanted, outcome, index, reason, endedAt } = change.queued;
          insertQueued.run(id, by, at, JSON.stringify(rows), JSON.stringify(wanted), outcome, index, reason, endedAt);
          break;
        }
        case 'queue-end': {
          const { id, outcome, index, reason, endedAt } = change.end;
          endQueued.run(outcome, index, reason, endedAt, id);
          forgetQueued.run(keptEnds);
          break;
        }
        case 'settled':
          deleteFrom[change.of].run(change.attempt);
      }
    }
  });
  return (changes) => {
    transaction.immediate(changes);
  };
}

function readPending(database: Database.Database, maximumDues: number): EdgePending {
  const dues = database
    .prepare<[number], ReversalDue>(
      'SELECT attempt, request_key AS "key", group_id AS "group", at_ms AS at FROM reversal_due ORDER BY number LIMIT ?',
    )
    .all(maximumDues);
  const standIns = database
    .prepare<[], { sequence: number; group: GroupId; currency: string; decision: string }>(
      'SELECT sequence, group_id AS "group", currency, decision FROM stand_in ORDER BY sequence',
    )
    .all()
    .map((row) => ({ ...row, decision: JSON.parse(row.decision) as DecisionEntry }));
  const last = database.prepare<[], { seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'stand_in'").get();
  const restrictions = database
    .prepare<[], HeldRestriction>(
      'SELECT restriction_id AS id, group_id AS "group", pan_hash AS panHash, status, entered_at_ms AS at,' +
        ' entered_by AS by FROM restriction ORDER BY number',
    )
    .all();
  return { dues, standIns, lastSequence: last?.seq ?? 0, restrictions };
}

function readQueued(database: Database.Database): QueuedChange[] {
  return database
    .prepare<[], Omit<QueuedChange, 'rows' | 'changes'> & { readonly rows: string; readonly changes: string }>(
      'SELECT change_id AS id, queued_by AS by, queued_at_ms AS at, rows, changes, outcome, log_index AS "index", reason,' +
        ' ended_at_ms AS endedAt FROM queued_change ORDER BY number',
    )
    .all()
    .map((row) => ({
      ...row,
      rows: JSON.parse(row.rows) as QueuedChange['rows'],
      changes: JSON.parse(row.changes) as QueuedChange['changes'],
    }));
}
