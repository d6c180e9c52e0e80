import type Database from 'better-sqlite3';

import type { CardId } from '../base/identifiers.ts';
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
import { prepareWrite, TableShape } from './table-shape.ts';

/** A card; also for whoever measures its rows alone. */
export const cardTable = new TableShape<CardRow>('card', {
  cardId: 'card_id TEXT PRIMARY KEY',
  panHash: 'pan_hash TEXT NOT NULL UNIQUE',
  panKeyVersion: 'pan_key_version INTEGER NOT NULL',
  panCipher: 'pan_cipher TEXT NOT NULL',
  expiry: 'expiry TEXT NOT NULL',
  status: 'status TEXT NOT NULL',
  currency: 'currency TEXT NOT NULL',
  limit: 'limit_minor INTEGER NOT NULL',
  held: 'held_minor INTEGER NOT NULL',
  posted: 'posted_minor INTEGER NOT NULL',
  usageDate: 'usage_date TEXT NOT NULL',
  usageCount: 'usage_count INTEGER NOT NULL',
  usageAmount: 'usage_minor INTEGER NOT NULL',
  changedAt: 'changed_at_index INTEGER NOT NULL',
  number: 'number INTEGER NOT NULL',
  version: 'version INTEGER NOT NULL',
  change: 'change TEXT NOT NULL',
  enteredAt: 'entered_at_ms INTEGER NOT NULL',
  enteredBy: 'entered_by TEXT NOT NULL',
  origin: 'origin TEXT NOT NULL',
  deletedAt: 'deleted_at_ms INTEGER NOT NULL',
});
const versionTable = new TableShape<CardVersionRow>(
  'card_version',
  {
    cardId: 'card_id TEXT NOT NULL',
    version: 'version INTEGER NOT NULL',
    change: 'change TEXT NOT NULL',
    enteredAt: 'entered_at_ms INTEGER NOT NULL',
    enteredBy: 'entered_by TEXT NOT NULL',
    origin: 'origin TEXT NOT NULL',
    expiry: 'expiry TEXT NOT NULL',
    status: 'status TEXT NOT NULL',
    limit: 'limit_minor INTEGER NOT NULL',
  },
  'PRIMARY KEY (card_id, version)',
);
const restrictionTable = new TableShape<RestrictionRow>('card_restriction', {
  id: 'restriction_id TEXT PRIMARY KEY',
  card: 'card_id TEXT NOT NULL',
  number: 'number INTEGER NOT NULL',
  status: 'status TEXT NOT NULL',
  at: 'entered_at_ms INTEGER NOT NULL',
  by: 'entered_by TEXT NOT NULL',
  origin: 'origin TEXT NOT NULL',
  index: 'log_index INTEGER NOT NULL',
  lifted: 'lifted_at_index INTEGER NOT NULL',
});
const replacedNumberTable = new TableShape<ReplacedNumberRow>('card_replaced_number', {
  panHash: 'pan_hash TEXT PRIMARY KEY',
  card: 'card_id TEXT NOT NULL',
  number: 'number INTEGER NOT NULL',
  status: 'status TEXT NOT NULL',
});
const importTable = new TableShape<ImportRow>(
  'card_import',
  {
    file: 'file TEXT NOT NULL',
    prefix: 'prefix TEXT NOT NULL',
    through: 'through_line INTEGER NOT NULL',
    index: 'log_index INTEGER NOT NULL',
    at: 'entered_at_ms INTEGER NOT NULL',
    by: 'entered_by TEXT NOT NULL',
    origin: 'origin TEXT NOT NULL',
  },
  'PRIMARY KEY (file, prefix)',
);

/**
 * Tables of a card group's fold that are about cards. All but the lookup of earlier numbers are keyed by the card's
 * surrogate id or name it: a card's rows are found by that wherever the card is.
 */
export const cardsSchema = `
  ${cardTable.schema}
  CREATE INDEX IF NOT EXISTS card_deleted ON card (deleted_at_ms) WHERE deleted_at_ms > 0;
  CREATE TABLE IF NOT EXISTS card_place (
    card_id TEXT PRIMARY KEY,
    bin TEXT NOT NULL,
    left_by TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS card_place_bin ON card_place (bin, card_id);
  ${versionTable.schema}
  ${restrictionTable.schema}
  CREATE INDEX IF NOT EXISTS card_restriction_card ON card_restriction (card_id, log_index, restriction_id);
  ${replacedNumberTable.schema}
  CREATE INDEX IF NOT EXISTS card_replaced_number_card ON card_replaced_number (card_id, number);
  ${importTable.schema}
`;

/** Every file's marks (`import-marks.ts`), in no order that counts. */
export function readImports(database: Database.Database): () => readonly ImportRow[] {
  return importTable.select(database, 'ORDER BY file, prefix');
}

/** Cards in a group's file; writing needs a connection that may. */
export class SqliteCards implements CardsState {
  readonly #card;
  readonly #cardByHash;
  readonly #replaced;
  readonly #replacedOfCard;
  readonly #restrictions;
  readonly #restriction;
  readonly #purgeable: Database.Statement<unknown[], CardId>;
  readonly #versions;
  readonly #imported;
  readonly #imports;
  readonly #writing: ReturnType<typeof prepareWriting> | undefined;

  constructor(database: Database.Database) {
    this.#card = cardTable.find(database, 'WHERE card_id = ?');
    this.#cardByHash = cardTable.find(database, 'WHERE pan_hash = ?');
    this.#replaced = replacedNumberTable.find(database, 'WHERE pan_hash = ?');
    this.#replacedOfCard = replacedNumberTable.select(database, 'WHERE card_id = ? ORDER BY number');
    this.#restrictions = restrictionTable.select(database, 'WHERE card_id = ? ORDER BY log_index, restriction_id');
    this.#restriction = restrictionTable.find(database, 'WHERE restriction_id = ?');
    this.#purgeable = database
      .prepare<unknown[], CardId>(
        "SELECT card_id FROM card JOIN card_place USING (card_id) WHERE left_by = '' AND" +
          ' deleted_at_ms > 0 AND deleted_at_ms <= @at AND held_minor = 0 AND NOT EXISTS' +
          ' (SELECT 1 FROM card_transaction AS used WHERE used.card_id = card.card_id AND used.decided_at_ms > @at)' +
          ' ORDER BY deleted_at_ms, card_id LIMIT @limit',
      )
      .pluck();
    this.#versions = versionTable.select(database, 'WHERE card_id = ? ORDER BY version');
    this.#imported = importTable.select(database, 'WHERE file = ?');
    this.#imports = readImports(database);
    this.#writing = database.readonly ? undefined : prepareWriting(database);
  }

  cardById(card: CardId): CardRow | undefined {
    return this.#card(card);
  }

  cardByPanHash(panHash: string): CardRow | undefined {
    const row = this.#cardByHash(panHash);
    if (row !== undefined) return row;
    const replaced = this.replacedNumber(panHash);
    const card = replaced && this.cardById(replaced.card);
    return card && { ...card, status: replaced.status };
  }

  replacedNumber(panHash: string): ReplacedNumberRow | undefined {
    return this.#replaced(panHash);
  }

  replacedNumbers(card: CardId): readonly ReplacedNumberRow[] {
    return this.#replacedOfCard(card);
  }

  restrictions(card: CardId): readonly RestrictionRow[] {
    return this.#restrictions(card);
  }

  restriction(id: string): RestrictionRow | undefined {
    return this.#restriction(id);
  }

  imported(file: string): readonly ImportRow[] {
    return this.#imported(file);
  }

  imports(): readonly ImportRow[] {
    return this.#imports();
  }

  purgeableCards(at: number, limit: number): readonly CardId[] {
    return this.#purgeable.all({ at, limit });
  }

  /** Versions that are past, the oldest first. */
  versions(card: CardId): readonly CardVersionRow[] {
    return this.#versions(card);
  }

  addCard(row: CardRow): void {
    this.#writing?.insertCard(row);
  }

  changeCard(row: CardRow): void {
    this.#writing?.updateMoney(row);
  }

  reviseCard(row: CardRow): void {
    this.#writing?.updateCard(row);
  }

  removeCard({ cardId: card }: CardRow): void {
    for (const removal of this.#writing?.removals ?? []) removal.run(card);
  }

  placeCard(card: CardId, bin: string): void {
    this.#writing?.placeCard.run(card, bin);
  }

  addVersion(row: CardVersionRow): void {
    this.#writing?.insertVersion(row);
    if (row.version > keptVersions) this.#writing?.trimVersions.run(row.cardId, row.version - keptVersions);
  }

  putRestriction(row: RestrictionRow): void {
    this.#writing?.putRestriction(row);
  }

  removeRestriction({ id }: RestrictionRow): void {
    this.#writing?.deleteRestriction.run(id);
  }

  putReplacedNumber(row: ReplacedNumberRow): void {
    this.#writing?.putReplacedNumber(row);
  }

  putImport(row: ImportRow): void {
    if (this.#writing?.updateImport(row) !== 0) return;
    this.#writing.insertImport(row);
    this.#writing.trimImports.run();
  }

  removeImport({ file, prefix }: ImportRow): void {
    this.#writing?.deleteImport.run(file, prefix);
  }
}

function prepareWriting(database: Database.Database) {
  return {
    insertCard: prepareWrite(database, cardTable.insert()),
    updateMoney: prepareWrite(
      database,
      cardTable.update(['held', 'posted', 'usageDate', 'usageCount', 'usageAmount', 'changedAt'], ['cardId']),
    ),
    // Apart from the update above, which touches no index.
    updateCard: prepareWrite(
      database,
      cardTable.update(
        [
          ...(['panHash', 'panKeyVersion', 'panCipher', 'expiry', 'status', 'limit', 'number', 'version'] as const),
          ...(['change', 'enteredAt', 'enteredBy', 'origin', 'deletedAt', 'changedAt'] as const),
        ],
        ['cardId'],
      ),
    ),
    placeCard: database.prepare(
      "INSERT INTO card_place VALUES (?, ?, '') ON CONFLICT DO UPDATE SET bin = excluded.bin",
    ),
    removals: ['card_place', 'card_version', 'card_restriction', 'card_replaced_number', 'card'].map((table) =>
      database.prepare(`DELETE FROM ${table} WHERE card_id = ?`),
    ),
    insertVersion: prepareWrite(database, versionTable.insert()),
    trimVersions: database.prepare('DELETE FROM card_version WHERE card_id = ? AND version <= ?'),
    putRestriction: prepareWrite(
      database,
      restrictionTable.insert('ON CONFLICT DO UPDATE SET lifted_at_index = excluded.lifted_at_index'),
    ),
    deleteRestriction: database.prepare('DELETE FROM card_restriction WHERE restriction_id = ?'),
    putReplacedNumber: prepareWrite(
      database,
      replacedNumberTable.insert('ON CONFLICT DO UPDATE SET status = excluded.status'),
    ),
    updateImport: prepareWrite(
      database,
      importTable.update(['through', 'index', 'at', 'by', 'origin'], ['file', 'prefix']),
    ),
    insertImport: prepareWrite(database, importTable.insert()),
    deleteImport: database.prepare('DELETE FROM card_import WHERE file = ? AND prefix = ?'),
    trimImports: database.prepare(
      'DELETE FROM card_import WHERE file NOT IN (SELECT file FROM card_import' +
        ` GROUP BY file ORDER BY max(log_index) DESC, file LIMIT ${keptImports})`,
    ),
  };
}
