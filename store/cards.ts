import { assert } from '../base/errors.ts';
import { cardId, type CardId, type GroupId } from '../base/identifiers.ts';
import { moreRestrictive, type CardStatus } from './card-status.ts';
import type { CardChange, CardImport, CardsEntry, StoredNumber } from './entry.ts';

/** A card as the fold holds it. Open-to-buy is `limit - held - posted`; money in the card's own currency. */
export interface CardRow extends Omit<StoredNumber, 'bin'> {
  readonly cardId: CardId;
  readonly expiry: string;
  /** The most restrictive of the restrictions that stand on its present number. */
  readonly status: CardStatus;
  readonly currency: string;
  readonly limit: bigint;
  readonly held: bigint;
  /** Postings less credits. */
  readonly posted: bigint;
  /** What `usageCount` and `usageAmount` count: approved debits of this business date. */
  readonly usageDate: string;
  readonly usageCount: number;
  readonly usageAmount: bigint;
  /** Log index of the last entry that changed the row. */
  readonly changedAt: number;
  /** How many numbers it has had, with this one. */
  readonly number: number;
  /** Grows with every change that somebody entered; money does not count. */
  readonly version: number;
  /** What made this version, when, who, and at which node. */
  readonly change: string;
  readonly enteredAt: number;
  readonly enteredBy: string;
  readonly origin: string;
  /** When somebody deleted it, or 0. */
  readonly deletedAt: number;
}

/** A version of a card that another one has followed. */
export interface CardVersionRow extends Pick<
  CardRow,
  'cardId' | 'version' | 'change' | 'enteredAt' | 'enteredBy' | 'origin' | 'expiry' | 'status' | 'limit'
> {
  readonly cardId: CardId;
}

/** Something that declines a card's number until it is lifted by its name. */
export interface RestrictionRow {
  readonly id: string;
  readonly card: CardId;
  /** Which of the card's numbers. */
  readonly number: number;
  readonly status: CardStatus;
  /** When it was entered, by whom, and at which node. */
  readonly at: number;
  readonly by: string;
  readonly origin: string;
  /** Log indexes of the entries that placed and lifted it; 0: it stands. */
  readonly index: number;
  readonly lifted: number;
}

/** A number that a card had before: what still comes for it finds the card, and is declined as the number's status says. */
export interface ReplacedNumberRow {
  readonly panHash: string;
  readonly card: CardId;
  readonly number: number;
  readonly status: CardStatus;
}

/** How far a card file has been entered in this group, for the cards with a prefix (`import-marks.ts`). */
export interface ImportRow {
  /** Names the file by its content. */
  readonly file: string;
  /** '': of all cards that no other mark of the file is for. */
  readonly prefix: string;
  readonly through: number;
  /** The last entry that has brought it this far. */
  readonly index: number;
  readonly at: number;
  readonly by: string;
  readonly origin: string;
}

export interface CardsReader {
  cardById(card: CardId): CardRow | undefined;
  /** By its number; by an earlier one, with that number's status. */
  cardByPanHash(panHash: string): CardRow | undefined;
  replacedNumber(panHash: string): ReplacedNumberRow | undefined;
  /** Those that the card had before. */
  replacedNumbers(card: CardId): readonly ReplacedNumberRow[];
  /** Of all numbers of the card, the oldest first, lifted ones too. */
  restrictions(card: CardId): readonly RestrictionRow[];
  restriction(id: string): RestrictionRow | undefined;
  /** The marks of a file. */
  imported(file: string): readonly ImportRow[];
  /** Those of all files that are known. */
  imports(): readonly ImportRow[];
  /** Cards without holds that were deleted at or before `at` and have had no transaction since. */
  purgeableCards(at: number, limit: number): readonly CardId[];
}

export interface CardsState extends CardsReader {
  addCard(row: CardRow): void;
  /** Its money is another: held, posted, usage. */
  changeCard(row: CardRow): void;
  /** Anything of it may be another. */
  reviseCard(row: CardRow): void;
  /** The row, its versions, restrictions and earlier numbers. */
  removeCard(row: CardRow): void;
  /** Where a card is found by its range: the first digits of its present number. */
  placeCard(card: CardId, bin: string): void;
  /** A version that is past; older ones than `keptVersions` before it go. */
  addVersion(row: CardVersionRow): void;
  putRestriction(row: RestrictionRow): void;
  removeRestriction(row: RestrictionRow): void;
  putReplacedNumber(row: ReplacedNumberRow): void;
  /** The last `keptImports` files are known. */
  putImport(row: ImportRow): void;
}

/** Versions of a card that are kept besides the present one. */
export const keptVersions = 50;
/** Card files whose progress is kept, the newest. */
export const keptImports = 200;
/** Lifted restrictions of a card that are kept: one that is brought again is known by its row. */
const keptLifted = 50;

/** The card that a number belongs to, and which of the card's numbers it is. */
export function numberOf(
  ledger: CardsReader,
  panHash: string,
): { readonly card: CardRow; readonly number: number; readonly isPresent: boolean } | undefined {
  const card = ledger.cardByPanHash(panHash);
  if (card === undefined) return undefined;
  if (card.panHash === panHash) return { card, number: card.number, isPresent: true };
  const replaced = ledger.replacedNumber(panHash);
  return replaced === undefined ? undefined : { card, number: replaced.number, isPresent: false };
}

/** Carries out an entry of card changes. */
export function applyCards(state: CardsState, group: GroupId, index: number, term: number, entry: CardsEntry): void {
  const { file, at, by, origin } = entry;
  for (const [prefix, through] of Object.entries(file?.through ?? {})) {
    state.putImport({ file: file?.hash ?? '', prefix, through, index, at, by, origin });
  }
  entry.added.forEach((added, position) => {
    addCard(state, cardId(group, term, index, position), index, entry, added);
  });
  for (const change of entry.changes) {
    const card = state.cardById(change.card);
    assert(card !== undefined, `card ${change.card} is in the fold`);
    applyChange(state, index, entry, card, change);
  }
}

/** How a version says that it is of a card file: by the beginning of its name. */
export function fromFile({ file }: Pick<CardsEntry, 'file'>): string {
  return file === undefined ? '' : ` from file ${file.hash.slice(0, 12)}`;
}

function addCard(state: CardsState, id: CardId, index: number, entry: CardsEntry, added: CardImport): void {
  const { status } = added;
  const { at, by, origin } = entry;
  state.placeCard(id, added.bin);
  state.addCard({
    cardId: id,
    panHash: added.panHash,
    panKeyVersion: added.panKeyVersion,
    panCipher: added.panCipher,
    expiry: added.expiry,
    status,
    currency: added.currency,
    limit: BigInt(added.limit),
    held: 0n,
    posted: 0n,
    usageDate: '',
    usageCount: 0,
    usageAmount: 0n,
    changedAt: index,
    number: 1,
    version: 1,
    change: `added${fromFile(entry)}`,
    enteredAt: at,
    enteredBy: by,
    origin,
    deletedAt: 0,
  });
  if (status !== 'active') state.putRestriction({ id, card: id, number: 1, status, at, by, origin, index, lifted: 0 });
}

function applyChange(state: CardsState, index: number, entry: CardsEntry, card: CardRow, change: CardChange): void {
  const { at, by, origin } = entry;
  const revise = (what: string, changed: Partial<CardRow>): void => {
    const { cardId: id, version, change: made, enteredAt, enteredBy, expiry, status, limit } = card;
    state.addVersion({
      cardId: id,
      version,
      change: made,
      enteredAt,
      enteredBy,
      origin: card.origin,
      expiry,
      status,
      limit,
    });
    const entered = { change: what, enteredAt: at, enteredBy: by, origin, changedAt: index };
    state.reviseCard({ ...card, ...changed, ...entered, version: version + 1 });
  };
  const place = (id: string, number: number, status: CardStatus, since: number): void => {
    state.putRestriction({ id, card: card.cardId, number, status, at: since, by, origin, index, lifted: 0 });
  };
  switch (change.kind) {
    case 'set':
      revise(`set${fromFile(entry)}`, { expiry: change.expiry, limit: BigInt(change.limit) });
      return;
    case 'restrict': {
      if (state.restriction(change.restriction) !== undefined) return;
      place(change.restriction, change.number, change.status, change.at);
      revise(`${change.status} by ${change.restriction}${fromFile(entry)}`, { status: statusOf(state, card) });
      refreshReplaced(state, card, change.number);
      return;
    }
    case 'lift': {
      const lifted = state
        .restrictions(card.cardId)
        .filter(({ id, lifted: before }) => before === 0 && change.restrictions.includes(id));
      if (lifted.length === 0) return;
      for (const row of lifted) state.putRestriction({ ...row, lifted: index });
      const status = statusOf(state, card);
      const isDeleted = standing(state, card.cardId, card.number).some((row) => row.status === 'closed');
      revise(`lifted ${lifted.map(({ id }) => id).join(', ')}`, {
        status,
        deletedAt: isDeleted ? card.deletedAt : 0,
      });
      for (const number of new Set(lifted.map((row) => row.number))) refreshReplaced(state, card, number);
      forgetLifted(state, card.cardId);
      return;
    }
    case 'replace': {
      const { panHash, panKeyVersion, panCipher, expiry } = change;
      state.placeCard(card.cardId, change.bin);
      place(change.restriction, card.number, change.status, at);
      const status = moreRestrictive(card.status, change.status);
      state.putReplacedNumber({ panHash: card.panHash, card: card.cardId, number: card.number, status });
      revise(`replaced, the old number is ${status}`, {
        panHash,
        panKeyVersion,
        panCipher,
        expiry,
        status: 'active',
        number: card.number + 1,
      });
      return;
    }
    case 'delete':
      place(change.restriction, card.number, 'closed', at);
      revise('deleted', { status: statusOf(state, card), deletedAt: at });
      return;
    case 'purge':
      state.removeCard(card);
      return;
  }
}

function standing(state: CardsState, card: CardId, number: number): readonly RestrictionRow[] {
  return state.restrictions(card).filter((row) => row.lifted === 0 && row.number === number);
}

function statusOf(state: CardsState, { cardId: id, number }: CardRow): CardStatus {
  return standing(state, id, number).reduce<CardStatus>(
    (worst, { status }) => moreRestrictive(worst, status),
    'active',
  );
}

/** An earlier number has never less than `closed`: nothing new is approved for it. */
function refreshReplaced(state: CardsState, card: CardRow, number: number): void {
  if (number === card.number) return;
  for (const row of state.replacedNumbers(card.cardId)) {
    if (row.number !== number) continue;
    const status = standing(state, card.cardId, number).reduce<CardStatus>(
      (worst, each) => moreRestrictive(worst, each.status),
      'closed',
    );
    state.putReplacedNumber({ ...row, status });
  }
}

function forgetLifted(state: CardsState, card: CardId): void {
  const lifted = state.restrictions(card).filter((row) => row.lifted !== 0);
  for (const row of lifted.slice(0, Math.max(0, lifted.length - keptLifted))) state.removeRestriction(row);
}
