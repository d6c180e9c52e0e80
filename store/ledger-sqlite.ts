import type Database from 'better-sqlite3';

import type { CardId } from '../base/identifiers.ts';
import type { CardStatus, MtiClass, Tombstone } from './entry.ts';
import type { CardRow, LedgerState, TombstoneRow, TransactionRow, TransactionState } from './ledger.ts';

/** Tables of a card group's fold. Money is INTEGER minor units; log indexes identify transactions. */
export const ledgerSchema = `
  CREATE TABLE IF NOT EXISTS card (
    card_id TEXT PRIMARY KEY,
    pan_hash TEXT NOT NULL UNIQUE,
    pan_key_version INTEGER NOT NULL,
    pan_cipher TEXT NOT NULL,
    expiry TEXT NOT NULL,
    status TEXT NOT NULL,
    currency TEXT NOT NULL,
    limit_minor INTEGER NOT NULL,
    held_minor INTEGER NOT NULL,
    posted_minor INTEGER NOT NULL,
    usage_date TEXT NOT NULL,
    usage_count INTEGER NOT NULL,
    usage_minor INTEGER NOT NULL,
    changed_at_index INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS card_transaction (
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
    restores_minor INTEGER NOT NULL
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
`;

type Column = string | bigint;
type Row = Record<string, Column>;

function toCard(row: Row): CardRow {
  return {
    cardId: row['card_id'] as CardId,
    panHash: row['pan_hash'] as string,
    panKeyVersion: Number(row['pan_key_version']),
    panCipher: row['pan_cipher'] as string,
    expiry: row['expiry'] as string,
    status: row['status'] as CardStatus,
    currency: row['currency'] as string,
    limit: row['limit_minor'] as bigint,
    held: row['held_minor'] as bigint,
    posted: row['posted_minor'] as bigint,
    usageDate: row['usage_date'] as string,
    usageCount: Number(row['usage_count']),
    usageAmount: row['usage_minor'] as bigint,
    changedAt: Number(row['changed_at_index']),
  };
}

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

/** The fold in its file. Reading needs a read-only connection only; writing happens inside the caller's transaction. */
export class SqliteLedger implements LedgerState {
  readonly #selectCard: Database.Statement<unknown[], Row>;
  readonly #selectCardByHash: Database.Statement<unknown[], Row>;
  readonly #selectTransaction: Database.Statement<unknown[], Row>;
  readonly #selectByKey: Database.Statement<unknown[], Row>;
  readonly #selectByStan: Database.Statement<unknown[], Row>;
  readonly #selectByRrn: Database.Statement<unknown[], Row>;
  readonly #selectOpenByCode: Database.Statement<unknown[], Row>;
  readonly #selectTombstones: Database.Statement<unknown[], Row>;
  readonly #selectTombstoneCards: Database.Statement<unknown[], Row>;
  readonly #selectDue: Database.Statement<unknown[], Row>;
  readonly #insertCard: Database.Statement | undefined;
  readonly #updateCard: Database.Statement | undefined;
  readonly #insertTransaction: Database.Statement | undefined;
  readonly #updateTransaction: Database.Statement | undefined;
  readonly #insertTombstone: Database.Statement | undefined;

  constructor(database: Database.Database) {
    const select = (sql: string): Database.Statement<unknown[], Row> =>
      database.prepare<unknown[], Row>(sql).safeIntegers(true);
    this.#selectCard = select('SELECT * FROM card WHERE card_id = ?');
    this.#selectCardByHash = select('SELECT * FROM card WHERE pan_hash = ?');
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
    if (database.readonly) return;
    this.#insertCard = database.prepare('INSERT INTO card VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)');
    this.#updateCard = database.prepare(
      'UPDATE card SET expiry = ?, status = ?, limit_minor = ?, held_minor = ?, posted_minor = ?, usage_date = ?,' +
        ' usage_count = ?, usage_minor = ?, changed_at_index = ? WHERE card_id = ?',
    );
    this.#insertTransaction = database.prepare(
      `INSERT INTO card_transaction VALUES (${Array.from({ length: 26 }, () => '?').join(', ')})`,
    );
    this.#updateTransaction = database.prepare(
      'UPDATE card_transaction SET state = ?, held_minor = ?, posted_minor = ? WHERE log_index = ?',
    );
    this.#insertTombstone = database.prepare('INSERT INTO reversal_tombstone VALUES (?, ?, ?, ?, ?, ?)');
  }

  cardById(card: CardId): CardRow | undefined {
    const row = this.#selectCard.get(card);
    return row === undefined ? undefined : toCard(row);
  }

  cardByPanHash(panHash: string): CardRow | undefined {
    const row = this.#selectCardByHash.get(panHash);
    return row === undefined ? undefined : toCard(row);
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

  addCard(row: CardRow): void {
    this.#insertCard?.run(
      row.cardId,
      row.panHash,
      row.panKeyVersion,
      row.panCipher,
      row.expiry,
      row.status,
      row.currency,
      row.limit,
      row.held,
      row.posted,
      row.usageDate,
      row.usageCount,
      row.usageAmount,
      row.changedAt,
    );
  }

  changeCard(row: CardRow): void {
    this.#updateCard?.run(
      row.expiry,
      row.status,
      row.limit,
      row.held,
      row.posted,
      row.usageDate,
      row.usageCount,
      row.usageAmount,
      row.changedAt,
      row.cardId,
    );
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
    );
  }

  changeTransaction(row: TransactionRow): void {
    this.#updateTransaction?.run(row.state, row.held, row.posted, row.index);
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
}
