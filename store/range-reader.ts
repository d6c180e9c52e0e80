import type Database from 'better-sqlite3';

import type { CardId } from '../base/identifiers.ts';
import type { MovedRow, RangeOfCards } from './entry.ts';
import { readImports } from './cards-sqlite.ts';
import type { ImportRow } from './cards.ts';
import { leavingMarks } from './import-marks.ts';
import { binDigits, isInRange } from './range-move.ts';

/*
 * The rows of a card, for a group that takes over its range (R12): which tables have them, how they are read from the old
 * group's fold, and how they are written into the new one's. Log indexes are the old log's, and say nothing in another:
 *
 *   - a column that names the entry which wrote the row gets the number that the row comes with (`movedIndex`)
 *   - a column that refers to a transaction travels as that transaction's duplicate key, and is its new number again
 *
 * Before all cards comes how far card files have been entered for the range (`import-marks.ts`), as one row of its own kind.
 *
 * A table of the fold that has rows of single cards and is not in this list would be left behind: a test holds the two
 * against each other.
 */

/** What stands in the place of a table's name in the row of marks. */
export const movedMarks = 'import-marks';

type MovedMark = Omit<ImportRow, 'index'>;

/** The range is in it, too: which cards the marks are for has to be known where they come. */
function movedMarksRow({ prefix, nested }: RangeOfCards, marks: readonly ImportRow[]): MovedRow {
  const moved = marks.map(({ index: _index, ...mark }): MovedMark => mark);
  return [movedMarks, prefix, JSON.stringify(nested), JSON.stringify(moved)];
}

export function readMovedMarks([, prefix, nested, marks]: MovedRow): {
  readonly range: RangeOfCards;
  readonly marks: readonly MovedMark[];
} {
  return {
    range: { prefix: prefix ?? '', nested: JSON.parse(nested ?? '[]') as string[] },
    marks: JSON.parse(marks ?? '[]') as MovedMark[],
  };
}

interface MovedTable {
  readonly name: string;
  /** Whose rows: a condition with the card's id as its parameter, or the transaction's index. */
  readonly where: string;
}

const ofCard: readonly MovedTable[] = [
  { name: 'card', where: 'card_id = ?' },
  { name: 'card_place', where: 'card_id = ?' },
  { name: 'card_version', where: 'card_id = ? ORDER BY version' },
  { name: 'card_restriction', where: 'card_id = ? ORDER BY log_index, restriction_id' },
  { name: 'card_replaced_number', where: 'card_id = ? ORDER BY number' },
  { name: 'reversal_tombstone', where: 'card_id = ? ORDER BY log_index' },
  { name: 'resolution', where: 'card_id = ? ORDER BY log_index' },
];
const transactionTable: MovedTable = { name: 'card_transaction', where: 'log_index = ?' };
const ofTransaction: readonly MovedTable[] = [
  { name: 'repeat_attempt', where: 'transaction_index = ? ORDER BY log_index, attempt' },
  { name: 'undelivered_attempt', where: 'transaction_index = ? ORDER BY log_index, attempt' },
  { name: 'stand_in', where: 'transaction_index = ? ORDER BY log_index, attempt' },
];
/** Approvals in stand-in that came to nothing: there is no transaction to bring them with. */
const standInsOfCard: MovedTable = {
  name: 'stand_in',
  where: 'card_id = ? AND transaction_index = 0 ORDER BY attempt',
};

export const movedTables: readonly string[] = [
  ...new Set([...ofCard, transactionTable, ...ofTransaction].map(({ name }) => name)),
];

/** Columns that hold the index of the entry which wrote the row. */
const numberColumns: ReadonlySet<string> = new Set(['log_index', 'changed_at_index']);
/** The same, or 0 for none: of which only that is told. */
const markColumns: ReadonlySet<string> = new Set(['lifted_at_index']);
/** Columns that hold a transaction's index, or 0. */
const referenceColumns: ReadonlySet<string> = new Set(['original_index', 'transaction_index']);

/** How far a range has been read: bin and id of a card, and the last transaction of it; null: all of the card. */
type Place = readonly [bin: string, card: CardId | '', transaction: number | null];

function readPlace(through: string): Place {
  return through === '' ? ['', '', null] : (JSON.parse(through) as Place);
}

export interface RangePart {
  readonly rows: readonly MovedRow[];
  /** Cards that begin in this part. */
  readonly cards: number;
  readonly through: string;
  /** The range has no more after these. */
  readonly isLast: boolean;
}

/** Digits of the number in a card's `pan_cipher`. */
export type Decrypt = (cipher: string) => string | undefined;

type Value = string | bigint | null;

/** Reads a range of a card group's file, some of it at a time and always in the same order. */
export class RangeReader {
  readonly #cards: Database.Statement<[string, string, string, string, number], [CardId, string, string]>;
  readonly #transactions: Database.Statement<[string, bigint], [bigint]>;
  readonly #keyOf: Database.Statement<[bigint], string>;
  readonly #tables: ReadonlyMap<MovedTable, Database.Statement<[string | bigint], Value[]>>;
  readonly #columns: ReadonlyMap<string, readonly string[]>;
  readonly #imports: () => readonly ImportRow[];
  readonly #decrypt: Decrypt;

  constructor(database: Database.Database, decrypt: Decrypt) {
    this.#decrypt = decrypt;
    this.#imports = readImports(database);
    this.#cards = database
      .prepare<[string, string, string, string, number], [CardId, string, string]>(
        'SELECT card_id, bin, pan_cipher FROM card_place JOIN card USING (card_id)' +
          ' WHERE bin >= ? AND bin < ? AND (bin, card_id) > (?, ?) ORDER BY bin, card_id LIMIT ?',
      )
      .raw();
    this.#transactions = database
      .prepare<[string, bigint], [bigint]>(
        'SELECT log_index FROM card_transaction WHERE card_id = ? AND log_index > ? ORDER BY log_index LIMIT 100',
      )
      .raw()
      .safeIntegers(true);
    this.#keyOf = database
      .prepare<[bigint], string>('SELECT request_key FROM card_transaction WHERE log_index = ?')
      .pluck();
    this.#tables = new Map(
      [...ofCard, transactionTable, ...ofTransaction, standInsOfCard].map((table) => [
        table,
        database
          .prepare<[string | bigint], Value[]>(`SELECT * FROM ${table.name} WHERE ${table.where}`)
          .raw()
          .safeIntegers(true),
      ]),
    );
    this.#columns = new Map(movedTables.map((name) => [name, columnsOf(database, name)]));
  }

  /** The next cards of the range after `through`; fewer than `limit` where its bin is shared with other ranges. */
  cards(
    range: RangeOfCards,
    through: string,
    limit: number,
  ): { readonly cards: readonly CardId[]; readonly through: string; readonly isLast: boolean } {
    const [bin, card] = readPlace(through);
    const found = this.#after(range, bin, card, limit);
    const last = found.at(-1);
    return {
      cards: found.filter(({ isIn }) => isIn).map((each) => each.card),
      through: last === undefined ? through : JSON.stringify([last.bin, last.card, null] satisfies Place),
      isLast: found.length < limit,
    };
  }

  /** The next rows of the range after `through`, about `maximumBytes` of them. */
  part(range: RangeOfCards, through: string, maximumBytes: number): RangePart {
    const rows: MovedRow[] = [];
    let bytes = 0;
    let cards = 0;
    let [bin, card, transaction] = readPlace(through);
    if (through === '') rows.push(movedMarksRow(range, leavingMarks(this.#imports(), range)));
    const add = (table: MovedTable, key: string | bigint): void => {
      for (const row of this.#tables.get(table)?.all(key) ?? []) {
        const made = this.#rowOf(table.name, row);
        rows.push(made);
        bytes += made.reduce((sum, value) => sum + (value?.length ?? 4) + 3, 2);
      }
    };
    const here = (): string => JSON.stringify([bin, card, transaction] satisfies Place);
    for (;;) {
      if (transaction === null) {
        const next = this.#after(range, bin, card, 1)[0];
        if (next === undefined) return { rows, cards, through: here(), isLast: true };
        ({ bin, card } = next);
        if (!next.isIn) continue;
        cards += 1;
        for (const table of ofCard) add(table, card);
        add(standInsOfCard, card);
        transaction = Number.MIN_SAFE_INTEGER;
      }
      const next = this.#transactions.all(card, BigInt(transaction));
      for (const [index] of next) {
        add(transactionTable, index);
        for (const table of ofTransaction) add(table, index);
        transaction = Number(index);
        if (bytes >= maximumBytes) return { rows, cards, through: here(), isLast: false };
      }
      if (next.length > 0) continue;
      transaction = null;
      if (bytes >= maximumBytes) return { rows, cards, through: here(), isLast: false };
    }
  }

  #after(
    range: RangeOfCards,
    bin: string,
    card: string,
    limit: number,
  ): readonly { readonly card: CardId; readonly bin: string; readonly isIn: boolean }[] {
    const from = range.prefix.slice(0, binDigits);
    // ':' comes after the digits.
    return this.#cards.all(from, `${from}:`, bin, card, limit).map(([found, ofFound, cipher]) => ({
      card: found,
      bin: ofFound,
      isIn: isInRange(range, ofFound, () => this.#decrypt(cipher)),
    }));
  }

  #rowOf(table: string, row: readonly Value[]): MovedRow {
    const columns = this.#columns.get(table) ?? [];
    const values = row.map((value, at): string | null => {
      const column = columns[at] ?? '';
      if (value === null || numberColumns.has(column)) return null;
      if (markColumns.has(column)) return value === 0n ? '0' : '1';
      if (!referenceColumns.has(column)) return value.toString();
      return value === 0n ? '' : (this.#keyOf.get(value as bigint) ?? '');
    });
    return [table, ...values];
  }
}

function columnsOf(database: Database.Database, table: string): readonly string[] {
  return database.prepare<[string], string>('SELECT name FROM pragma_table_info(?) ORDER BY cid').pluck().all(table);
}

interface TakenTable {
  readonly columns: readonly string[];
  readonly isInteger: readonly boolean[];
  readonly insert: Database.Statement;
}

/** Writes rows that came from another group's fold; inside the caller's transaction. */
export class RangeWriter {
  readonly #tables: ReadonlyMap<string, TakenTable>;
  readonly #known: Database.Statement<[string], { log_index: bigint; card_id: string }>;
  readonly #forget: readonly Database.Statement<[string]>[];

  constructor(database: Database.Database) {
    this.#tables = new Map(
      movedTables.map((name) => {
        const info = database
          .prepare<[string], { name: string; type: string }>('SELECT name, type FROM pragma_table_info(?) ORDER BY cid')
          .all(name);
        const places = info.map(() => '?').join(', ');
        return [
          name,
          {
            columns: info.map((column) => column.name),
            isInteger: info.map(({ type }) => type === 'INTEGER'),
            // Of a card that has been here before there are rows still, as it left.
            insert: database.prepare(`INSERT OR REPLACE INTO ${name} VALUES (${places})`),
          },
        ];
      }),
    );
    this.#known = database
      .prepare<[string], { log_index: bigint; card_id: string }>(
        'SELECT log_index, card_id FROM card_transaction WHERE request_key = ?',
      )
      .safeIntegers(true);
    this.#forget = [
      'DELETE FROM repeat_attempt WHERE transaction_index IN (SELECT log_index FROM card_transaction WHERE card_id = ?)',
      'DELETE FROM card_transaction WHERE card_id = ?',
      'DELETE FROM reversal_tombstone WHERE card_id = ?',
      'DELETE FROM card_version WHERE card_id = ?',
      'DELETE FROM card_restriction WHERE card_id = ?',
      'DELETE FROM card_replaced_number WHERE card_id = ?',
    ].map((sql) => database.prepare<[string]>(sql));
  }

  /** `numberOf` is what stands for a log index in the row at this position. */
  take(rows: readonly MovedRow[], index: number, numberOf: (position: number) => bigint): void {
    let card = '';
    rows.forEach(([name, ...values], position) => {
      if (name === movedMarks) return;
      const table = this.#tables.get(name);
      if (table === undefined) throw new Error(`no table ${name} takes rows of another group`);
      const valueOf = (column: string): string => values[table.columns.indexOf(column)] ?? '';
      if (table.columns.includes('card_id')) card = valueOf('card_id');
      if (name === 'card') for (const statement of this.#forget) statement.run(card);
      const made = table.columns.map((column, at) => {
        const value = values[at] ?? null;
        if (column === 'changed_at_index') return BigInt(index);
        if (numberColumns.has(column)) return numberOf(position);
        if (markColumns.has(column)) return value === '0' ? 0n : numberOf(position);
        if (referenceColumns.has(column)) return this.#transactionOf(value ?? '', card);
        if (name === 'card_place' && column === 'left_by') return '';
        if (name === 'card_transaction' && column === 'request_key') return this.#freeKey(value ?? '', card);
        if (name === 'card_transaction' && column === 'state') return value === 'moved' ? 'held' : value;
        return value !== null && table.isInteger[at] === true ? BigInt(value) : value;
      });
      table.insert.run(...made);
    });
  }

  /** Under the key, of this card; or under the one that it got here because another card's transaction has it. */
  #transactionOf(key: string, card: string): bigint {
    if (key === '') return 0n;
    const rows = [this.#known.get(key), this.#known.get(otherKey(key, card))];
    return rows.find((row) => row?.card_id === card)?.log_index ?? 0n;
  }

  /** A key is used twice only by an acquirer's fault, at two groups that cannot know of each other. */
  #freeKey(key: string, card: string): string {
    const known = this.#known.get(key);
    return known === undefined || known.card_id === card ? key : otherKey(key, card);
  }
}

function otherKey(key: string, card: string): string {
  return `${key}|${card}`;
}
