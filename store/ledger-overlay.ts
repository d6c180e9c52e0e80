/*
 * What deciding sees. Over 500 lines because each kind of row that an entry can write has its later version here, and how
 * that is forgotten when the file has it.
 */
import type { CardId, GroupId } from '../base/identifiers.ts';
import { RecentMap } from '../base/recent-map.ts';
import type { CardRow, ImportRow, ReplacedNumberRow, RestrictionRow } from './cards.ts';
import type {
  LedgerReader,
  LedgerState,
  RepeatAttemptRow,
  ResolutionRow,
  StandInRow,
  TombstoneRow,
  TransactionRow,
  UndeliveredAttemptRow,
} from './ledger.ts';
import type { RangeMoveRow } from './range-move.ts';

interface Versioned<Row> {
  row: Row;
  /** Log index of the entry that wrote this version. */
  index: number;
}

/** Cards kept in memory although the file has them as they are: some 500 bytes each. */
const keptCards = 50_000;
const knownTombstoneCards = 50_000;
const knownUndelivered = 50_000;

/**
 * What deciding sees (R1): the committed fold in its file, and on top the effect of every log entry after it,
 * committed or not. Rows here are whole states, so it does no harm when the file is already further than `settle`
 * has been told: the overlay's row is then the same or newer.
 *
 * Cards that were read or changed lately stay in memory beyond that, for as long as this node leads: nobody else
 * changes them then, so they need not be read again. Memory is bounded: by the entries between applied and last, which
 * the leader bounds, by `keptCards`, `knownTombstoneCards` and `knownUndelivered`.
 */
export class LedgerOverlay implements LedgerState {
  readonly #base: LedgerReader;
  /** undefined: it was purged. */
  readonly #cards = new Map<CardId, Versioned<CardRow | undefined>>();
  readonly #cardsByHash = new Map<string, CardId>();
  readonly #transactions = new Map<number, Versioned<TransactionRow>>();
  readonly #transactionsByKey = new Map<string, number>();
  readonly #transactionsByCard = new Map<CardId, Set<number>>();
  readonly #tombstones = new Map<CardId, TombstoneRow[]>();
  readonly #repeatAttempts = new Map<number, RepeatAttemptRow[]>();
  readonly #undelivered = new Map<string, UndeliveredAttemptRow>();
  readonly #resolutions = new Map<string, ResolutionRow>();
  readonly #standIns = new Map<string, StandInRow>();
  readonly #imports = new Map<string, Versioned<ImportRow>>();
  readonly #rangeMoves = new Map<string, Versioned<RangeMoveRow>>();
  /** Cards that have left, and by which move. */
  readonly #left = new Map<CardId, string>();
  /** undefined: it was purged, or forgotten. */
  readonly #replacedNumbers = new Map<string, Versioned<ReplacedNumberRow | undefined>>();
  readonly #restrictions = new Map<string, Versioned<RestrictionRow | undefined>>();
  /** Cards as the file has them. */
  readonly #clean = new RecentMap<CardId, CardRow>(keptCards);
  /** May outlive the rows, and a number may have been replaced: what is found by it is held against the row. */
  readonly #cleanByHash = new RecentMap<string, CardId>(keptCards);
  /** Every card with a tombstone; undefined: there are too many to know, so the file is asked each time. */
  #tombstoneCards: Set<CardId> | undefined;
  /** Every attempt that was reported undelivered: each request asks for its own; undefined: too many to know. */
  #undeliveredKnown: Set<string> | undefined;
  /** What was written by which entry, in order: what `settle` takes from the front. */
  #written: (() => void)[][] = [];
  #writtenFrom = 0;
  #current = 0;

  constructor(base: LedgerReader) {
    this.#base = base;
    this.#tombstoneCards = this.#readTombstoneCards();
    this.#undeliveredKnown = this.#readUndelivered();
  }

  /** Names the entry whose effects the following puts are. */
  begin(index: number): void {
    if (this.#written.length === 0) this.#writtenFrom = index;
    while (this.#writtenFrom + this.#written.length <= index) this.#written.push([]);
    this.#current = index;
  }

  /** The file holds everything up to `applied`: those rows are read from it again. */
  settle(applied: number): void {
    let count = 0;
    while (count < this.#written.length && this.#writtenFrom + count <= applied) {
      for (const forget of this.#written[count] ?? []) forget();
      count += 1;
    }
    if (count === 0) return;
    this.#written = this.#written.slice(count);
    this.#writtenFrom += count;
  }

  /** Forgets everything: the caller applies the log's tail anew (a new term, a truncated log). */
  clear(): void {
    for (const map of [
      this.#cards,
      this.#cardsByHash,
      this.#transactions,
      this.#transactionsByKey,
      this.#transactionsByCard,
      this.#tombstones,
      this.#repeatAttempts,
      this.#undelivered,
      this.#resolutions,
      this.#standIns,
      this.#imports,
      this.#rangeMoves,
      this.#left,
      this.#replacedNumbers,
      this.#restrictions,
      this.#clean,
      this.#cleanByHash,
    ]) {
      map.clear();
    }
    this.#tombstoneCards = this.#readTombstoneCards();
    this.#undeliveredKnown = this.#readUndelivered();
    this.#written = [];
  }

  cardById(card: CardId): CardRow | undefined {
    const later = this.#cards.get(card);
    return later === undefined ? (this.#clean.get(card) ?? this.#keep(this.#base.cardById(card))) : later.row;
  }

  cardByPanHash(panHash: string): CardRow | undefined {
    const known = this.#cardsByHash.get(panHash) ?? this.#cleanByHash.get(panHash);
    const row = known === undefined ? undefined : this.cardById(known);
    if (row?.panHash === panHash) return row;
    const replaced = this.#replacedNumbers.get(panHash);
    if (replaced !== undefined) return this.#asReplaced(replaced.row);
    const found = this.#base.cardByPanHash(panHash);
    if (found === undefined) return undefined;
    // By an earlier number: what is kept is the card as its present one shows it.
    if (found.panHash !== panHash) return this.#asReplaced(this.#base.replacedNumber(panHash));
    const later = this.#cards.get(found.cardId);
    return later === undefined ? this.#keep(found) : later.row;
  }

  replacedNumber(panHash: string): ReplacedNumberRow | undefined {
    const later = this.#replacedNumbers.get(panHash);
    return later === undefined ? this.#base.replacedNumber(panHash) : later.row;
  }

  replacedNumbers(card: CardId): readonly ReplacedNumberRow[] {
    const rows = new Map(this.#base.replacedNumbers(card).map((row) => [row.panHash, row]));
    for (const [panHash, { row }] of this.#replacedNumbers) {
      if (row === undefined) rows.delete(panHash);
      else if (row.card === card) rows.set(panHash, row);
    }
    return [...rows.values()].sort((one, other) => one.number - other.number);
  }

  restrictions(card: CardId): readonly RestrictionRow[] {
    const rows = new Map(this.#base.restrictions(card).map((row) => [row.id, row]));
    for (const [id, { row }] of this.#restrictions) {
      if (row === undefined) rows.delete(id);
      else if (row.card === card) rows.set(id, row);
    }
    return [...rows.values()].sort(
      (one, other) => one.index - other.index || (one.id < other.id ? -1 : Number(one.id > other.id)),
    );
  }

  restriction(id: string): RestrictionRow | undefined {
    const later = this.#restrictions.get(id);
    return later === undefined ? this.#base.restriction(id) : later.row;
  }

  imported(file: string): readonly ImportRow[] {
    return this.#withLaterImports(this.#base.imported(file)).filter((row) => row.file === file);
  }

  imports(): readonly ImportRow[] {
    return this.#withLaterImports(this.#base.imports());
  }

  purgeableCards(at: number, limit: number): readonly CardId[] {
    return this.#base.purgeableCards(at, limit).filter((card) => {
      const row = this.cardById(card);
      return row !== undefined && row.deletedAt > 0 && row.held === 0n && !this.#transactionsByCard.has(card);
    });
  }

  transaction(index: number): TransactionRow | undefined {
    return this.#transactions.get(index)?.row ?? this.#base.transaction(index);
  }

  transactionByKey(key: string): TransactionRow | undefined {
    const known = this.#transactionsByKey.get(key);
    if (known !== undefined) return this.transaction(known);
    const row = this.#base.transactionByKey(key);
    return row === undefined ? undefined : (this.#transactions.get(row.index)?.row ?? row);
  }

  transactionsByStan(card: CardId, stan: string): readonly TransactionRow[] {
    return this.#merge(card, this.#base.transactionsByStan(card, stan), (row) => row.request.stan === stan);
  }

  transactionsByRrn(card: CardId, rrn: string): readonly TransactionRow[] {
    return this.#merge(card, this.#base.transactionsByRrn(card, rrn), (row) => row.request.rrn === rrn);
  }

  holdsByAuthorizationCode(card: CardId, authorizationCode: string): readonly TransactionRow[] {
    return this.#merge(
      card,
      this.#base.holdsByAuthorizationCode(card, authorizationCode),
      (row) => row.authorizationCode === authorizationCode && (row.state === 'held' || row.state === 'expired'),
    );
  }

  tombstones(card: CardId, matchKeys: readonly string[]): readonly TombstoneRow[] {
    if (this.#tombstoneCards?.has(card) === false) return [];
    const later = this.#tombstones.get(card)?.filter((row) => matchKeys.includes(row.matchKey)) ?? [];
    const base = this.#base.tombstones(card, matchKeys);
    if (later.length === 0) return base;
    const known = new Set(base.map((row) => row.index));
    return [...base, ...later.filter((row) => !known.has(row.index))].sort((one, other) => one.index - other.index);
  }

  cardsWithTombstones(limit: number): readonly CardId[] {
    return [...new Set([...this.#base.cardsWithTombstones(limit), ...this.#tombstones.keys()])].slice(0, limit);
  }

  holdsDue(at: number, limit: number): readonly TransactionRow[] {
    return this.#base
      .holdsDue(at, limit)
      .map((row) => this.#transactions.get(row.index)?.row ?? row)
      .filter((row) => row.state === 'held');
  }

  lastConfigIndex(): number {
    const [last] = [...this.#transactions.values()].map(({ row }) => row).sort((one, other) => other.index - one.index);
    return last?.configIndex ?? this.#base.lastConfigIndex();
  }

  reversalsOf(card: CardId, transaction: number): readonly TransactionRow[] {
    return this.#merge(
      card,
      this.#base.reversalsOf(card, transaction),
      (row) => row.original === transaction && (row.request.mtiClass === '0400' || row.request.mtiClass === '0420'),
    );
  }

  repeatAttempts(transaction: number): readonly RepeatAttemptRow[] {
    const base = this.#base.repeatAttempts(transaction);
    const later = this.#repeatAttempts.get(transaction) ?? [];
    return [...base, ...later.filter((row) => !base.some((each) => each.attempt === row.attempt))];
  }

  undeliveredAttempt(attempt: string): UndeliveredAttemptRow | undefined {
    if (this.#undeliveredKnown?.has(attempt) === false) return undefined;
    return this.#undelivered.get(attempt) ?? this.#base.undeliveredAttempt(attempt);
  }

  undeliveredAttempts(limit: number): readonly string[] {
    return [...new Set([...this.#base.undeliveredAttempts(limit), ...this.#undelivered.keys()])].slice(0, limit);
  }

  resolution(group: GroupId, term: number, index: number): ResolutionRow | undefined {
    return this.#resolutions.get(`${group} ${term} ${index}`) ?? this.#base.resolution(group, term, index);
  }

  standIn(attempt: string): StandInRow | undefined {
    return this.#standIns.get(attempt) ?? this.#base.standIn(attempt);
  }

  rangeMove(move: string): RangeMoveRow | undefined {
    return this.#rangeMoves.get(move)?.row ?? this.#base.rangeMove(move);
  }

  /** Moves of which the file has not all entries yet: what they have brought is not to be seen here. */
  get unsettledMoves(): readonly RangeMoveRow[] {
    return this.#rangeMoves.size === 0 ? [] : [...this.#rangeMoves.values()].map(({ row }) => row);
  }

  leftBy(card: CardId): string {
    return this.#left.get(card) ?? this.#base.leftBy(card);
  }

  standingHolds(card: CardId): readonly TransactionRow[] {
    return this.#merge(card, this.#base.standingHolds(card), ({ state }) => state === 'held');
  }

  /** A card that comes onto file is not kept beyond its entry: a card file has more than memory is meant for. */
  addCard(row: CardRow): void {
    this.#putCard(row, false);
  }

  changeCard(row: CardRow): void {
    this.#putCard(row, true);
  }

  #putCard(row: CardRow, isKept: boolean): void {
    this.#clean.delete(row.cardId);
    this.#cards.set(row.cardId, { row, index: this.#current });
    this.#cardsByHash.set(row.panHash, row.cardId);
    this.#remember((written) => {
      const present = this.#cards.get(row.cardId);
      if (present?.index !== written) return;
      this.#cards.delete(row.cardId);
      if (present.row === undefined) return;
      this.#cardsByHash.delete(row.panHash);
      if (isKept) this.#keep(present.row);
    });
  }

  reviseCard(row: CardRow): void {
    const before = this.cardById(row.cardId);
    if (before !== undefined && before.panHash !== row.panHash) this.#cardsByHash.delete(before.panHash);
    this.changeCard(row);
  }

  removeCard(row: CardRow): void {
    for (const restriction of this.restrictions(row.cardId)) this.removeRestriction(restriction);
    for (const { panHash } of this.replacedNumbers(row.cardId)) {
      this.#putVersioned(this.#replacedNumbers, panHash, undefined);
    }
    this.#cardsByHash.delete(row.panHash);
    this.#clean.delete(row.cardId);
    this.#cards.set(row.cardId, { row: undefined, index: this.#current });
    this.#remember((written) => {
      if (this.#cards.get(row.cardId)?.index === written) this.#cards.delete(row.cardId);
    });
  }

  /** Nothing is decided by what is past. */
  addVersion(): void {
    return;
  }

  putRestriction(row: RestrictionRow): void {
    this.#putVersioned(this.#restrictions, row.id, row);
  }

  removeRestriction({ id }: RestrictionRow): void {
    this.#putVersioned(this.#restrictions, id, undefined);
  }

  putReplacedNumber(row: ReplacedNumberRow): void {
    this.#putVersioned(this.#replacedNumbers, row.panHash, row);
  }

  putImport(row: ImportRow): void {
    this.#putVersioned(this.#imports, importKey(row), row);
  }

  addTransaction(row: TransactionRow): void {
    this.changeTransaction(row);
  }

  changeTransaction(row: TransactionRow): void {
    const { card } = row.request;
    this.#transactions.set(row.index, { row, index: this.#current });
    this.#transactionsByKey.set(row.request.key, row.index);
    if (card !== '') {
      const ofCard = this.#transactionsByCard.get(card) ?? new Set();
      ofCard.add(row.index);
      this.#transactionsByCard.set(card, ofCard);
    }
    this.#remember((written) => {
      if (this.#transactions.get(row.index)?.index !== written) return;
      this.#transactions.delete(row.index);
      this.#transactionsByKey.delete(row.request.key);
      if (card === '') return;
      const ofCard = this.#transactionsByCard.get(card);
      ofCard?.delete(row.index);
      if (ofCard?.size === 0) this.#transactionsByCard.delete(card);
    });
  }

  redecideTransaction(row: TransactionRow): void {
    this.changeTransaction(row);
  }

  addTombstone(row: TombstoneRow): void {
    this.#tombstoneCards?.add(row.card);
    this.#addToList(this.#tombstones, row.card, row);
  }

  addRepeatAttempt(row: RepeatAttemptRow): void {
    this.#addToList(this.#repeatAttempts, row.transaction, row);
  }

  addUndeliveredAttempt(row: UndeliveredAttemptRow): void {
    this.#undeliveredKnown?.add(row.attempt);
    this.#addUnder(this.#undelivered, row.attempt, row);
  }

  addResolution(row: ResolutionRow): void {
    this.#addUnder(this.#resolutions, `${row.group} ${row.term} ${row.offered}`, row);
  }

  addStandIn(row: StandInRow): void {
    this.#addUnder(this.#standIns, row.attempt, row);
  }

  /** A card that is new here is in the log after every move's end: no range is read before the file has it. */
  placeCard(): void {
    return;
  }

  putRangeMove(row: RangeMoveRow): void {
    this.#rangeMoves.set(row.move, { row, index: this.#current });
    this.#remember((written) => {
      if (this.#rangeMoves.get(row.move)?.index !== written) return;
      this.#rangeMoves.delete(row.move);
      // What has come is in the file: nothing that was known before of its cards counts.
      if (row.direction === 'in' && row.endIndex > 0) this.#forgetClean();
    });
  }

  leave(card: CardId, move: string): void {
    this.#addUnder(this.#left, card, move);
  }

  /** They are read from the file, when it has all of them. */
  takeRows(): void {
    return;
  }

  /** Entries after the applied one that the overlay still carries. */
  get depth(): number {
    return this.#written.length;
  }

  #forgetClean(): void {
    this.#clean.clear();
    this.#cleanByHash.clear();
    this.#tombstoneCards = this.#readTombstoneCards();
    for (const card of this.#tombstones.keys()) this.#tombstoneCards?.add(card);
    this.#undeliveredKnown = this.#readUndelivered();
    for (const attempt of this.#undelivered.keys()) this.#undeliveredKnown?.add(attempt);
  }

  #withLaterImports(rows: readonly ImportRow[]): readonly ImportRow[] {
    if (this.#imports.size === 0) return rows;
    const later = [...this.#imports.values()].map(({ row }) => row);
    const merged = new Map([...rows, ...later].map((row) => [importKey(row), row]));
    return [...merged.values()];
  }

  #asReplaced(replaced: ReplacedNumberRow | undefined): CardRow | undefined {
    const card = replaced && this.cardById(replaced.card);
    return card && { ...card, status: replaced.status };
  }

  #putVersioned<Stored>(map: Map<string, Versioned<Stored>>, key: string, row: Stored): void {
    map.set(key, { row, index: this.#current });
    this.#remember((written) => {
      if (map.get(key)?.index === written) map.delete(key);
    });
  }

  #keep(row: CardRow | undefined): CardRow | undefined {
    if (row === undefined) return undefined;
    this.#clean.set(row.cardId, row);
    this.#cleanByHash.set(row.panHash, row.cardId);
    return row;
  }

  #readTombstoneCards(): Set<CardId> | undefined {
    const cards = this.#base.cardsWithTombstones(knownTombstoneCards + 1);
    return cards.length > knownTombstoneCards ? undefined : new Set(cards);
  }

  #readUndelivered(): Set<string> | undefined {
    const attempts = this.#base.undeliveredAttempts(knownUndelivered + 1);
    return attempts.length > knownUndelivered ? undefined : new Set(attempts);
  }

  /** A row that is written once and never changes: it goes when the file has it. */
  #addUnder<Row>(map: Map<string, Row>, key: string, row: Row): void {
    map.set(key, row);
    this.#remember(() => {
      map.delete(key);
    });
  }

  #addToList<Key, Row extends { readonly index: number }>(map: Map<Key, Row[]>, key: Key, row: Row): void {
    map.set(key, [...(map.get(key) ?? []), row]);
    this.#remember(() => {
      const left = (map.get(key) ?? []).filter((other) => other.index !== row.index);
      if (left.length === 0) map.delete(key);
      else map.set(key, left);
    });
  }

  #remember(forget: (written: number) => void): void {
    const written = this.#current;
    this.#written.at(-1)?.push(() => {
      forget(written);
    });
  }

  #merge(
    card: CardId,
    base: readonly TransactionRow[],
    fits: (row: TransactionRow) => boolean,
  ): readonly TransactionRow[] {
    const later = this.#transactionsByCard.get(card);
    if (later === undefined) return base;
    const merged = new Map(base.map((row) => [row.index, row]));
    for (const index of later) {
      const row = this.#transactions.get(index)?.row;
      if (row === undefined) continue;
      if (fits(row)) merged.set(index, row);
      else merged.delete(index);
    }
    return [...merged.values()].sort((a, b) => a.index - b.index);
  }
}

function importKey({ file, prefix }: ImportRow): string {
  return `${file} ${prefix}`;
}
