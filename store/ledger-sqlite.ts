/*
 * Columns, statements and rows of a card group's fold. Over 500 lines because a table's columns stand beside what reads
 * and writes them; there is nothing else in it.
 */
import type Database from 'better-sqlite3';

import type { CardId, GroupId } from '../base/identifiers.ts';
import { cardsSchema, SqliteCards } from './cards-sqlite.ts';
import { arrivedMarks } from './import-marks.ts';
import type { MovedRow, MtiClass, ResolutionReason, StandInOutcome, Tombstone } from './entry.ts';
import type {
  LedgerState,
  RepeatAttemptRow,
  ResolutionRow,
  StandInRow,
  TombstoneRow,
  TransactionRow,
  TransactionState,
  UndeliveredAttemptRow,
} from './ledger.ts';
import { movedIndex, type RangeMoveRow } from './range-move.ts';
import { movedMarks, RangeWriter, readMovedMarks } from './range-reader.ts';
import type { Row } from './table-shape.ts';

/** Tables of a card group's fold. Money is INTEGER minor units; log indexes identify transactions. */
export const ledgerSchema = `
${cardsSchema}  CREATE TABLE IF NOT EXISTS card_transaction (
    log_index INTEGER PRIMARY KEY,
    request_key TEXT NOT NULL UNIQUE,
    mti_class TEXT NOT NULL,
    link TEXT NOT NULL,
    card_id TEXT NOT NULL,
    acquirer TEXT NOT NULL,
    terminal TEXT NOT NULL,
    merchant TEXT NOT NULL,
    stan TEXT NOT NULL,
    transmission TEXT NOT NULL,
    rrn TEXT NOT NULL,
    processing_code TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    business_date TEXT NOT NULL,
    response_code TEXT NOT NULL,
    authorization_code TEXT NOT NULL,
    additional_amounts TEXT NOT NULL,
    decided_at_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    billed_minor INTEGER NOT NULL,
    held_minor INTEGER NOT NULL,
    posted_minor INTEGER NOT NULL,
    hold_expires_at_ms INTEGER NOT NULL,
    original_index INTEGER NOT NULL,
    restores_minor INTEGER NOT NULL,
    config_index INTEGER NOT NULL,
    attempt TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS card_transaction_match ON card_transaction (card_id, stan, rrn, authorization_code);
  CREATE INDEX IF NOT EXISTS card_transaction_due ON card_transaction (hold_expires_at_ms) WHERE state = 'held';
  CREATE TABLE IF NOT EXISTS reversal_tombstone (
    log_index INTEGER PRIMARY KEY,
    card_id TEXT NOT NULL,
    match_key TEXT NOT NULL,
    link TEXT NOT NULL,
    terminal TEXT NOT NULL,
    tombstone TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS reversal_tombstone_card ON reversal_tombstone (card_id, match_key);
  CREATE TABLE IF NOT EXISTS repeat_attempt (
    transaction_index INTEGER NOT NULL,
    attempt TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    PRIMARY KEY (transaction_index, attempt)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS undelivered_attempt (
    attempt TEXT PRIMARY KEY,
    log_index INTEGER NOT NULL,
    request_key TEXT NOT NULL,
    transaction_index INTEGER NOT NULL,
    released INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS undelivered_attempt_transaction ON undelivered_attempt (transaction_index);
  CREATE TABLE IF NOT EXISTS resolution (
    offered_group TEXT NOT NULL,
    offered_term INTEGER NOT NULL,
    offered_index INTEGER NOT NULL,
    offered_hash TEXT NOT NULL,
    offered_by TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    request_key TEXT NOT NULL,
    card_id TEXT NOT NULL,
    PRIMARY KEY (offered_group, offered_term, offered_index)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS resolution_card ON resolution (card_id);
  CREATE TABLE IF NOT EXISTS stand_in (
    attempt TEXT PRIMARY KEY,
    log_index INTEGER NOT NULL,
    node TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    card_id TEXT NOT NULL,
    request_key TEXT NOT NULL,
    outcome TEXT NOT NULL,
    transaction_index INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    overspent_minor INTEGER NOT NULL,
    approved_at_ms INTEGER NOT NULL,
    entered_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS stand_in_transaction ON stand_in (transaction_index);
  CREATE INDEX IF NOT EXISTS stand_in_card ON stand_in (card_id, transaction_index);
  CREATE TABLE IF NOT EXISTS range_move (
    move TEXT PRIMARY KEY,
    direction TEXT NOT NULL,
    prefix TEXT NOT NULL,
    nested TEXT NOT NULL,
    other_group TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    end_index INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    cards INTEGER NOT NULL,
    through TEXT NOT NULL,
    rows_hash TEXT NOT NULL,
    config_index INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
`;

function toTransaction(row: Row): TransactionRow {
  return {
    index: Number(row['log_index']),
    request: {
      key: row['request_key'] as string,
      mtiClass: row['mti_class'] as MtiClass,
      link: row['link'] as string,
      card: row['card_id'] as CardId | '',
      acquirer: row['acquirer'] as string,
      terminal: row['terminal'] as string,
      merchant: row['merchant'] as string,
      stan: row['stan'] as string,
      transmission: row['transmission'] as string,
      rrn: row['rrn'] as string,
      processingCode: row['processing_code'] as string,
      amount: String(row['amount_minor']),
      currency: row['currency'] as string,
      businessDate: row['business_date'] as string,
    },
    responseCode: row['response_code'] as string,
    authorizationCode: row['authorization_code'] as string,
    additionalAmounts: row['additional_amounts'] as string,
    decidedAt: Number(row['decided_at_ms']),
    state: row['state'] as TransactionState,
    billed: row['billed_minor'] as bigint,
    held: row['held_minor'] as bigint,
    posted: row['posted_minor'] as bigint,
    holdExpiresAt: Number(row['hold_expires_at_ms']),
    original: Number(row['original_index']),
    restores: row['restores_minor'] as bigint,
    configIndex: Number(row['config_index']),
    attempt: row['attempt'] as string,
  };
}

function toTombstone(row: Row): TombstoneRow {
  return {
    index: Number(row['log_index']),
    card: row['card_id'] as CardId,
    matchKey: row['match_key'] as string,
    link: row['link'] as string,
    terminal: row['terminal'] as string,
    tombstone: JSON.parse(row['tombstone'] as string) as Tombstone,
  };
}

function toRepeatAttempt(row: Row): RepeatAttemptRow {
  return {
    transaction: Number(row['transaction_index']),
    attempt: row['attempt'] as string,
    index: Number(row['log_index']),
  };
}

function toUndeliveredAttempt(row: Row): UndeliveredAttemptRow {
  return {
    attempt: row['attempt'] as string,
    index: Number(row['log_index']),
    key: row['request_key'] as string,
    transaction: Number(row['transaction_index']),
    released: row['released'] === 1n,
  };
}

function toResolution(row: Row): ResolutionRow {
  return {
    group: row['offered_group'] as GroupId,
    term: Number(row['offered_term']),
    offered: Number(row['offered_index']),
    hash: row['offered_hash'] as string,
    from: row['offered_by'] as string,
    index: Number(row['log_index']),
    at: Number(row['entered_at_ms']),
    outcome: row['outcome'] as ResolutionRow['outcome'],
    reason: row['reason'] as ResolutionReason,
    key: row['request_key'] as string,
    card: row['card_id'] as CardId | '',
  };
}

function toRangeMove(row: Row): RangeMoveRow {
  return {
    move: row['move'] as string,
    direction: row['direction'] as RangeMoveRow['direction'],
    prefix: row['prefix'] as string,
    nested: JSON.parse(row['nested'] as string) as string[],
    other: row['other_group'] as GroupId,
    index: Number(row['log_index']),
    endIndex: Number(row['end_index']),
    parts: Number(row['parts']),
    cards: Number(row['cards']),
    through: row['through'] as string,
    hash: row['rows_hash'] as string,
    configIndex: Number(row['config_index']),
  };
}

function toStandIn(row: Row): StandInRow {
  return {
    attempt: row['attempt'] as string,
    index: Number(row['log_index']),
    node: row['node'] as string,
    sequence: Number(row['sequence']),
    card: row['card_id'] as CardId | '',
    key: row['request_key'] as string,
    outcome: row['outcome'] as StandInOutcome,
    transaction: Number(row['transaction_index']),
    amount: row['amount_minor'] as bigint,
    overspent: row['overspent_minor'] as bigint,
    approvedAt: Number(row['approved_at_ms']),
    enteredAt: Number(row['entered_at_ms']),
  };
}

/** The fold in its file. Reading needs a read-only connection only; writing happens inside the caller's transaction. */
export class SqliteLedger extends SqliteCards implements LedgerState {
  readonly #selectTransaction: Database.Statement<unknown[], Row>;
  readonly #selectByKey: Database.Statement<unknown[], Row>;
  readonly #selectByStan: Database.Statement<unknown[], Row>;
  readonly #selectByRrn: Database.Statement<unknown[], Row>;
  readonly #selectOpenByCode: Database.Statement<unknown[], Row>;
  readonly #selectTombstones: Database.Statement<unknown[], Row>;
  readonly #selectTombstoneCards: Database.Statement<unknown[], Row>;
  readonly #selectDue: Database.Statement<unknown[], Row>;
  readonly #selectLastConfigIndex: Database.Statement<unknown[], Row>;
  readonly #selectReversals: Database.Statement<unknown[], Row>;
  readonly #selectRepeatAttempts: Database.Statement<unknown[], Row>;
  readonly #selectUndelivered: Database.Statement<unknown[], Row>;
  readonly #selectUndeliveredAttempts: Database.Statement<unknown[], Row>;
  readonly #selectResolution: Database.Statement<unknown[], Row>;
  readonly #selectStandIn: Database.Statement<unknown[], Row>;
  readonly #selectRangeMove: Database.Statement<unknown[], Row>;
  readonly #selectLeftBy: Database.Statement<unknown[], string>;
  readonly #selectHolds: Database.Statement<unknown[], Row>;
  readonly #insertTransaction: Database.Statement | undefined;
  readonly #updateTransaction: Database.Statement | undefined;
  readonly #redecideTransaction: Database.Statement | undefined;
  readonly #insertTombstone: Database.Statement | undefined;
  readonly #insertRepeatAttempt: Database.Statement | undefined;
  readonly #insertUndelivered: Database.Statement | undefined;
  readonly #insertResolution: Database.Statement | undefined;
  readonly #insertStandIn: Database.Statement | undefined;
  readonly #updatePlace: Database.Statement | undefined;
  readonly #putRangeMove: Database.Statement | undefined;
  readonly #range: RangeWriter | undefined;

  constructor(database: Database.Database) {
    super(database);
    const select = (sql: string): Database.Statement<unknown[], Row> =>
      database.prepare<unknown[], Row>(sql).safeIntegers(true);
    this.#selectTransaction = select('SELECT * FROM card_transaction WHERE log_index = ?');
    this.#selectByKey = select('SELECT * FROM card_transaction WHERE request_key = ?');
    this.#selectByStan = select('SELECT * FROM card_transaction WHERE card_id = ? AND stan = ? ORDER BY log_index');
    this.#selectByRrn = select('SELECT * FROM card_transaction WHERE card_id = ? AND rrn = ? ORDER BY log_index');
    this.#selectOpenByCode = select(
      "SELECT * FROM card_transaction WHERE card_id = ? AND authorization_code = ? AND state IN ('held', 'expired')" +
        ' ORDER BY log_index',
    );
    this.#selectTombstones = select(
      'SELECT * FROM reversal_tombstone WHERE card_id = ? AND match_key = ? ORDER BY log_index',
    );
    this.#selectTombstoneCards = select('SELECT DISTINCT card_id FROM reversal_tombstone LIMIT ?');
    this.#selectDue = select(
      "SELECT * FROM card_transaction WHERE state = 'held' AND hold_expires_at_ms <= ?" +
        ' ORDER BY hold_expires_at_ms, log_index LIMIT ?',
    );
    this.#selectLastConfigIndex = select(
      'SELECT max(config_index) AS config_index FROM (SELECT config_index FROM range_move UNION ALL' +
        ' SELECT * FROM (SELECT config_index FROM card_transaction ORDER BY log_index DESC LIMIT 1))',
    );
    this.#selectReversals = select(
      "SELECT * FROM card_transaction WHERE card_id = ? AND original_index = ? AND mti_class IN ('0400', '0420')" +
        ' ORDER BY log_index',
    );
    this.#selectRepeatAttempts = select('SELECT * FROM repeat_attempt WHERE transaction_index = ? ORDER BY log_index');
    this.#selectUndelivered = select('SELECT * FROM undelivered_attempt WHERE attempt = ?');
    this.#selectUndeliveredAttempts = select('SELECT attempt FROM undelivered_attempt LIMIT ?');
    this.#selectResolution = select(
      'SELECT * FROM resolution WHERE offered_group = ? AND offered_term = ? AND offered_index = ?',
    );
    this.#selectStandIn = select('SELECT * FROM stand_in WHERE attempt = ?');
    this.#selectRangeMove = select('SELECT * FROM range_move WHERE move = ?');
    this.#selectLeftBy = database
      .prepare<unknown[], string>('SELECT left_by FROM card_place WHERE card_id = ?')
      .pluck();
    this.#selectHolds = select(
      "SELECT * FROM card_transaction WHERE card_id = ? AND state = 'held' ORDER BY log_index",
    );
    if (database.readonly) return;
    this.#insertTransaction = database.prepare(
      `INSERT INTO card_transaction VALUES (${Array.from({ length: 28 }, () => '?').join(', ')})`,
    );
    this.#updateTransaction = database.prepare(
      'UPDATE card_transaction SET state = ?, held_minor = ?, posted_minor = ? WHERE log_index = ?',
    );
    // Apart from the update above, which touches no index: this one is rare.
    this.#redecideTransaction = database.prepare(
      'UPDATE card_transaction SET response_code = ?, authorization_code = ?, decided_at_ms = ?, state = ?,' +
        ' billed_minor = ?, held_minor = ?, posted_minor = ?, hold_expires_at_ms = ? WHERE log_index = ?',
    );
    this.#insertTombstone = database.prepare('INSERT INTO reversal_tombstone VALUES (?, ?, ?, ?, ?, ?)');
    this.#insertRepeatAttempt = database.prepare('INSERT INTO repeat_attempt VALUES (?, ?, ?)');
    this.#insertUndelivered = database.prepare('INSERT INTO undelivered_attempt VALUES (?, ?, ?, ?, ?)');
    this.#insertResolution = database.prepare('INSERT INTO resolution VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
    this.#insertStandIn = database.prepare('INSERT INTO stand_in VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
    this.#updatePlace = database.prepare('UPDATE card_place SET left_by = ? WHERE card_id = ?');
    this.#putRangeMove = database.prepare(
      'INSERT OR REPLACE INTO range_move VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
    );
    this.#range = new RangeWriter(database);
  }

  transaction(index: number): TransactionRow | undefined {
    const row = this.#selectTransaction.get(index);
    return row === undefined ? undefined : toTransaction(row);
  }

  transactionByKey(key: string): TransactionRow | undefined {
    const row = this.#selectByKey.get(key);
    return row === undefined ? undefined : toTransaction(row);
  }

  transactionsByStan(card: CardId, stan: string): readonly TransactionRow[] {
    return this.#selectByStan.all(card, stan).map(toTransaction);
  }

  transactionsByRrn(card: CardId, rrn: string): readonly TransactionRow[] {
    return this.#selectByRrn.all(card, rrn).map(toTransaction);
  }

  holdsByAuthorizationCode(card: CardId, authorizationCode: string): readonly TransactionRow[] {
    return this.#selectOpenByCode.all(card, authorizationCode).map(toTransaction);
  }

  tombstones(card: CardId, matchKeys: readonly string[]): readonly TombstoneRow[] {
    return matchKeys
      .flatMap((key) => this.#selectTombstones.all(card, key).map(toTombstone))
      .sort((one, other) => one.index - other.index);
  }

  cardsWithTombstones(limit: number): readonly CardId[] {
    return this.#selectTombstoneCards.all(limit).map((row) => row['card_id'] as CardId);
  }

  holdsDue(at: number, limit: number): readonly TransactionRow[] {
    return this.#selectDue.all(at, limit).map(toTransaction);
  }

  lastConfigIndex(): number {
    return Number(this.#selectLastConfigIndex.get()?.['config_index'] ?? 0n);
  }

  reversalsOf(card: CardId, transaction: number): readonly TransactionRow[] {
    return this.#selectReversals.all(card, transaction).map(toTransaction);
  }

  repeatAttempts(transaction: number): readonly RepeatAttemptRow[] {
    return this.#selectRepeatAttempts.all(transaction).map(toRepeatAttempt);
  }

  undeliveredAttempt(attempt: string): UndeliveredAttemptRow | undefined {
    const row = this.#selectUndelivered.get(attempt);
    return row === undefined ? undefined : toUndeliveredAttempt(row);
  }

  undeliveredAttempts(limit: number): readonly string[] {
    return this.#selectUndeliveredAttempts.all(limit).map((row) => row['attempt'] as string);
  }

  resolution(group: GroupId, term: number, index: number): ResolutionRow | undefined {
    const row = this.#selectResolution.get(group, term, index);
    return row === undefined ? undefined : toResolution(row);
  }

  standIn(attempt: string): StandInRow | undefined {
    const row = this.#selectStandIn.get(attempt);
    return row === undefined ? undefined : toStandIn(row);
  }

  rangeMove(move: string): RangeMoveRow | undefined {
    const row = this.#selectRangeMove.get(move);
    return row === undefined ? undefined : toRangeMove(row);
  }

  leftBy(card: CardId): string {
    return this.#selectLeftBy.get(card) ?? '';
  }

  standingHolds(card: CardId): readonly TransactionRow[] {
    return this.#selectHolds.all(card).map(toTransaction);
  }

  putRangeMove(row: RangeMoveRow): void {
    this.#putRangeMove?.run(
      row.move,
      row.direction,
      row.prefix,
      JSON.stringify(row.nested),
      row.other,
      row.index,
      row.endIndex,
      row.parts,
      row.cards,
      row.through,
      row.hash,
      row.configIndex,
    );
  }

  leave(card: CardId, move: string): void {
    this.#updatePlace?.run(move, card);
  }

  takeRows(index: number, rows: readonly MovedRow[]): void {
    for (const row of rows) if (row[0] === movedMarks) this.#takeMarks(index, row);
    this.#range?.take(rows, index, (position) => movedIndex(index, position));
  }

  #takeMarks(index: number, row: MovedRow): void {
    const { range, marks } = readMovedMarks(row);
    const come = marks.map((mark) => ({ ...mark, index }));
    const { removed, put } = arrivedMarks(this.imports(), range, come);
    for (const mark of removed) this.removeImport(mark);
    for (const mark of put) this.putImport(mark);
  }

  addTransaction(row: TransactionRow): void {
    const { request } = row;
    this.#insertTransaction?.run(
      row.index,
      request.key,
      request.mtiClass,
      request.link,
      request.card,
      request.acquirer,
      request.terminal,
      request.merchant,
      request.stan,
      request.transmission,
      request.rrn,
      request.processingCode,
      BigInt(request.amount),
      request.currency,
      request.businessDate,
      row.responseCode,
      row.authorizationCode,
      row.additionalAmounts,
      row.decidedAt,
      row.state,
      row.billed,
      row.held,
      row.posted,
      row.holdExpiresAt,
      row.original,
      row.restores,
      row.configIndex,
      row.attempt,
    );
  }

  changeTransaction(row: TransactionRow): void {
    this.#updateTransaction?.run(row.state, row.held, row.posted, row.index);
  }

  redecideTransaction(row: TransactionRow): void {
    this.#redecideTransaction?.run(
      row.responseCode,
      row.authorizationCode,
      row.decidedAt,
      row.state,
      row.billed,
      row.held,
      row.posted,
      row.holdExpiresAt,
      row.index,
    );
  }

  addTombstone(row: TombstoneRow): void {
    this.#insertTombstone?.run(
      row.index,
      row.card,
      row.matchKey,
      row.link,
      row.terminal,
      JSON.stringify(row.tombstone),
    );
  }

  addRepeatAttempt(row: RepeatAttemptRow): void {
    this.#insertRepeatAttempt?.run(row.transaction, row.attempt, row.index);
  }

  addUndeliveredAttempt(row: UndeliveredAttemptRow): void {
    this.#insertUndelivered?.run(row.attempt, row.index, row.key, row.transaction, row.released ? 1 : 0);
  }

  addResolution(row: ResolutionRow): void {
    this.#insertResolution?.run(
      row.group,
      row.term,
      row.offered,
      row.hash,
      row.from,
      row.index,
      row.at,
      row.outcome,
      row.reason,
      row.key,
      row.card,
    );
  }

  addStandIn(row: StandInRow): void {
    this.#insertStandIn?.run(
      row.attempt,
      row.index,
      row.node,
      row.sequence,
      row.card,
      row.key,
      row.outcome,
      row.transaction,
      row.amount,
      row.overspent,
      row.approvedAt,
      row.enteredAt,
    );
  }
}
