import type Database from 'better-sqlite3';

import type { CardId } from '../base/identifiers.ts';
import type { CardStatus } from './card-status.ts';
import {
  keptImports,
  keptVersions,
  type CardRow,
  type CardsState,
  type CardVersionRow,
  type ImportRow,
  type ReplacedNumberRow,
  type RestrictionRow,
} from './cards.ts';

/**
 * Tables of a card group's fold that are about cards. All but the lookup of earlier numbers are keyed by the card's
 * surrogate id or name it: a card's rows are found by that wherever the card is.
 */
export const cardsSchema = `
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
    changed_at_index INTEGER NOT NULL,
    number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    change TEXT NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    entered_by TEXT NOT NULL,
    origin TEXT NOT NULL,
    deleted_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS card_deleted ON card (deleted_at_ms) WHERE deleted_at_ms > 0;
  CREATE TABLE IF NOT EXISTS card_place (
    card_id TEXT PRIMARY KEY,
    bin TEXT NOT NULL,
    left_by TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS card_place_bin ON card_place (bin, card_id);
  CREATE TABLE IF NOT EXISTS card_version (
    card_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    change TEXT NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    entered_by TEXT NOT NULL,
    origin TEXT NOT NULL,
    expiry TEXT NOT NULL,
    status TEXT NOT NULL,
    limit_minor INTEGER NOT NULL,
    PRIMARY KEY (card_id, version)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS card_restriction (
    restriction_id TEXT PRIMARY KEY,
    card_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    entered_by TEXT NOT NULL,
    origin TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    lifted_at_index INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS card_restriction_card ON card_restriction (card_id, log_index, restriction_id);
  CREATE TABLE IF NOT EXISTS card_replaced_number (
    pan_hash TEXT PRIMARY KEY,
    card_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    status TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS card_import (
    file TEXT PRIMARY KEY,
    through_line INTEGER NOT NULL,
    log_index INTEGER NOT NULL,
    entered_at_ms INTEGER NOT NULL,
    entered_by TEXT NOT NULL,
    origin TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS card_replaced_number_card ON card_replaced_number (card_id, number);
`;

export type Row = Record<string, string | bigint>;

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
    number: Number(row['number']),
    version: Number(row['version']),
    change: row['change'] as string,
    enteredAt: Number(row['entered_at_ms']),
    enteredBy: row['entered_by'] as string,
    origin: row['origin'] as string,
    deletedAt: Number(row['deleted_at_ms']),
  };
}

function toVersion(row: Row): CardVersionRow {
  return {
    cardId: row['card_id'] as CardId,
    version: Number(row['version']),
    change: row['change'] as string,
    enteredAt: Number(row['entered_at_ms']),
    enteredBy: row['entered_by'] as string,
    origin: row['origin'] as string,
    expiry: row['expiry'] as string,
    status: row['status'] as CardStatus,
    limit: row['limit_minor'] as bigint,
  };
}

function toRestriction(row: Row): RestrictionRow {
  return {
    id: row['restriction_id'] as string,
    card: row['card_id'] as CardId,
    number: Number(row['number']),
    status: row['status'] as CardStatus,
    at: Number(row['entered_at_ms']),
    by: row['entered_by'] as string,
    origin: row['origin'] as string,
    index: Number(row['log_index']),
    lifted: Number(row['lifted_at_index']),
  };
}

function toReplacedNumber(row: Row): ReplacedNumberRow {
  return {
    panHash: row['pan_hash'] as string,
    card: row['card_id'] as CardId,
    number: Number(row['number']),
    status: row['status'] as CardStatus,
  };
}

function toImport(row: Row): ImportRow {
  return {
    file: row['file'] as string,
    through: Number(row['through_line']),
    index: Number(row['log_index']),
    at: Number(row['entered_at_ms']),
    by: row['entered_by'] as string,
    origin: row['origin'] as string,
  };
}

interface Writing {
  readonly insertCard: Database.Statement;
  readonly updateMoney: Database.Statement;
  readonly updateCard: Database.Statement;
  readonly removals: readonly Database.Statement[];
  readonly placeCard: Database.Statement;
  readonly insertVersion: Database.Statement;
  readonly trimVersions: Database.Statement;
  readonly putRestriction: Database.Statement;
  readonly deleteRestriction: Database.Statement;
  readonly putReplacedNumber: Database.Statement;
  readonly updateImport: Database.Statement;
  readonly insertImport: Database.Statement;
  readonly trimImports: Database.Statement;
}

/** Cards in a group's file; writing needs a connection that may. */
export class SqliteCards implements CardsState {
  readonly #selectCard: Database.Statement<unknown[], Row>;
  readonly #selectCardByHash: Database.Statement<unknown[], Row>;
  readonly #selectReplaced: Database.Statement<unknown[], Row>;
  readonly #selectReplacedOfCard: Database.Statement<unknown[], Row>;
  readonly #selectRestrictions: Database.Statement<unknown[], Row>;
  readonly #selectRestriction: Database.Statement<unknown[], Row>;
  readonly #selectPurgeable: Database.Statement<unknown[], Row>;
  readonly #selectVersions: Database.Statement<unknown[], Row>;
  readonly #selectImport: Database.Statement<unknown[], Row>;
  readonly #writing: Writing | undefined;

  constructor(database: Database.Database) {
    const select = (sql: string): Database.Statement<unknown[], Row> =>
      database.prepare<unknown[], Row>(sql).safeIntegers(true);
    this.#selectCard = select('SELECT * FROM card WHERE card_id = ?');
    this.#selectCardByHash = select('SELECT * FROM card WHERE pan_hash = ?');
    this.#selectReplaced = select('SELECT * FROM card_replaced_number WHERE pan_hash = ?');
    this.#selectReplacedOfCard = select('SELECT * FROM card_replaced_number WHERE card_id = ? ORDER BY number');
    this.#selectRestrictions = select(
      'SELECT * FROM card_restriction WHERE card_id = ? ORDER BY log_index, restriction_id',
    );
    this.#selectRestriction = select('SELECT * FROM card_restriction WHERE restriction_id = ?');
    this.#selectPurgeable = select(
      "SELECT card_id FROM card JOIN card_place USING (card_id) WHERE left_by = '' AND" +
        ' deleted_at_ms > 0 AND deleted_at_ms <= @at AND held_minor = 0 AND NOT EXISTS' +
        ' (SELECT 1 FROM card_transaction AS used WHERE used.card_id = card.card_id AND used.decided_at_ms > @at)' +
        ' ORDER BY deleted_at_ms, card_id LIMIT @limit',
    );
    this.#selectVersions = select('SELECT * FROM card_version WHERE card_id = ? ORDER BY version');
    this.#selectImport = select('SELECT * FROM card_import WHERE file = ?');
    this.#writing = database.readonly ? undefined : prepareWriting(database);
  }

  cardById(card: CardId): CardRow | undefined {
    const row = this.#selectCard.get(card);
    return row === undefined ? undefined : toCard(row);
  }

  cardByPanHash(panHash: string): CardRow | undefined {
    const row = this.#selectCardByHash.get(panHash);
    if (row !== undefined) return toCard(row);
    const replaced = this.replacedNumber(panHash);
    const card = replaced && this.cardById(replaced.card);
    return card && { ...card, status: replaced.status };
  }

  replacedNumber(panHash: string): ReplacedNumberRow | undefined {
    const row = this.#selectReplaced.get(panHash);
    return row === undefined ? undefined : toReplacedNumber(row);
  }

  replacedNumbers(card: CardId): readonly ReplacedNumberRow[] {
    return this.#selectReplacedOfCard.all(card).map(toReplacedNumber);
  }

  restrictions(card: CardId): readonly RestrictionRow[] {
    return this.#selectRestrictions.all(card).map(toRestriction);
  }

  restriction(id: string): RestrictionRow | undefined {
    const row = this.#selectRestriction.get(id);
    return row === undefined ? undefined : toRestriction(row);
  }

  imported(file: string): ImportRow | undefined {
    const row = this.#selectImport.get(file);
    return row === undefined ? undefined : toImport(row);
  }

  purgeableCards(at: number, limit: number): readonly CardId[] {
    return this.#selectPurgeable.all({ at, limit }).map((row) => row['card_id'] as CardId);
  }

  /** Versions that are past, the oldest first. */
  versions(card: CardId): readonly CardVersionRow[] {
    return this.#selectVersions.all(card).map(toVersion);
  }

  addCard(row: CardRow): void {
    this.#writing?.insertCard.run(
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
      row.number,
      row.version,
      row.change,
      row.enteredAt,
      row.enteredBy,
      row.origin,
      row.deletedAt,
    );
  }

  changeCard(row: CardRow): void {
    this.#writing?.updateMoney.run(
      row.held,
      row.posted,
      row.usageDate,
      row.usageCount,
      row.usageAmount,
      row.changedAt,
      row.cardId,
    );
  }

  reviseCard(row: CardRow): void {
    this.#writing?.updateCard.run(
      row.panHash,
      row.panKeyVersion,
      row.panCipher,
      row.expiry,
      row.status,
      row.limit,
      row.number,
      row.version,
      row.change,
      row.enteredAt,
      row.enteredBy,
      row.origin,
      row.deletedAt,
      row.changedAt,
      row.cardId,
    );
  }

  removeCard({ cardId: card }: CardRow): void {
    for (const removal of this.#writing?.removals ?? []) removal.run(card);
  }

  placeCard(card: CardId, bin: string): void {
    this.#writing?.placeCard.run(card, bin);
  }

  addVersion(row: CardVersionRow): void {
    this.#writing?.insertVersion.run(
      row.cardId,
      row.version,
      row.change,
      row.enteredAt,
      row.enteredBy,
      row.origin,
      row.expiry,
      row.status,
      row.limit,
    );
    if (row.version > keptVersions) this.#writing?.trimVersions.run(row.cardId, row.version - keptVersions);
  }

  putRestriction(row: RestrictionRow): void {
    const { id, card, number, status, at, by, origin, index, lifted } = row;
    this.#writing?.putRestriction.run(id, card, number, status, at, by, origin, index, lifted);
  }

  removeRestriction({ id }: RestrictionRow): void {
    this.#writing?.deleteRestriction.run(id);
  }

  putReplacedNumber({ panHash, card, number, status }: ReplacedNumberRow): void {
    this.#writing?.putReplacedNumber.run(panHash, card, number, status);
  }

  putImport({ file, through, index, at, by, origin }: ImportRow): void {
    if (this.#writing?.updateImport.run(through, index, at, by, origin, file).changes !== 0) return;
    this.#writing.insertImport.run(file, through, index, at, by, origin);
    this.#writing.trimImports.run();
  }
}

function prepareWriting(database: Database.Database): Writing {
  const places = (count: number): string => Array.from({ length: count }, () => '?').join(', ');
  return {
    insertCard: database.prepare(`INSERT INTO card VALUES (${places(21)})`),
    updateMoney: database.prepare(
      'UPDATE card SET held_minor = ?, posted_minor = ?, usage_date = ?, usage_count = ?, usage_minor = ?,' +
        ' changed_at_index = ? WHERE card_id = ?',
    ),
    // Apart from the update above, which touches no index.
    updateCard: database.prepare(
      'UPDATE card SET pan_hash = ?, pan_key_version = ?, pan_cipher = ?, expiry = ?, status = ?, limit_minor = ?,' +
        ' number = ?, version = ?, change = ?, entered_at_ms = ?, entered_by = ?, origin = ?, deleted_at_ms = ?,' +
        ' changed_at_index = ? WHERE card_id = ?',
    ),
    placeCard: database.prepare(
      "INSERT INTO card_place VALUES (?, ?, '') ON CONFLICT DO UPDATE SET bin = excluded.bin",
    ),
    removals: ['card_place', 'card_version', 'card_restriction', 'card_replaced_number', 'card'].map((table) =>
      database.prepare(`DELETE FROM ${table} WHERE card_id = ?`),
    ),
    insertVersion: database.prepare(`INSERT INTO card_version VALUES (${places(9)})`),
    trimVersions: database.prepare('DELETE FROM card_version WHERE card_id = ? AND version <= ?'),
    putRestriction: database.prepare(
      `INSERT INTO card_restriction VALUES (${places(9)})` +
        ' ON CONFLICT DO UPDATE SET lifted_at_index = excluded.lifted_at_index',
    ),
    deleteRestriction: database.prepare('DELETE FROM card_restriction WHERE restriction_id = ?'),
    updateImport: database.prepare(
      'UPDATE card_import SET through_line = ?, log_index = ?, entered_at_ms = ?, entered_by = ?, origin = ?' +
        ' WHERE file = ?',
    ),
    insertImport: database.prepare(`INSERT INTO card_import VALUES (${places(6)})`),
    trimImports: database.prepare(
      'DELETE FROM card_import WHERE file NOT IN' +
        ` (SELECT file FROM card_import ORDER BY log_index DESC, file LIMIT ${keptImports})`,
    ),
    putReplacedNumber: database.prepare(
      `INSERT INTO card_replaced_number VALUES (${places(4)}) ON CONFLICT DO UPDATE SET status = excluded.status`,
    ),
  };
}
