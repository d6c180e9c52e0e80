import type { CardKeys } from '../../base/card-keys.ts';
import { nextTurn, type Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { Pan } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import type { CardFileCard } from '../../config-db/card-file.ts';
import { numberOf, type CardVersionRow, type RestrictionRow } from '../../store/cards.ts';
import type { CardImport, StoredNumber } from '../../store/entry.ts';
import { markOf } from '../../store/import-marks.ts';
import type { SqliteLedger } from '../../store/ledger-sqlite.ts';
import {
  planImport,
  planPurge,
  planRequests,
  type CardImportResult,
  type CardRequest,
  type CardsContent,
  type PlanContext,
} from '../../switch/card-changes.ts';
import type { GroupOwner } from '../../switch/owner.ts';

/** Cards in one entry at most: bounds its size, and what the deciding thread does in one turn. */
export const maximumCardsPerEntry = 250;
/** Cards that one tick purges at most. */
const purgesPerTick = 100;

/** Who entered a change, and at which node. */
export interface Entered {
  readonly by: string;
  readonly origin: string;
}

/** What a desk has of its node. */
export interface DeskTools {
  readonly clock: Clock;
  readonly random: Random;
}

export interface ImportTools extends DeskTools {
  readonly cardKeys: Pick<CardKeys, 'decrypt'>;
}

/** A card number as it is stored. */
export function sealNumber(pan: Pan, keys: CardKeys, random: Random): StoredNumber {
  return { bin: pan.bin(), panHash: keys.hash(pan), panKeyVersion: keys.version, panCipher: keys.encrypt(pan, random) };
}

/** A card from a file, ready for its owner: its number is hashed and encrypted where it was entered. */
export function sealCard(card: CardFileCard, keys: CardKeys, random: Random): CardImport {
  const { pan, expiry, status, currency, limitMinor } = card;
  return { ...sealNumber(pan, keys, random), expiry, status, currency, limit: limitMinor.toString() };
}

/** A card with the line of the file that it is of. */
export interface CardFileInput extends CardImport {
  readonly line: number;
}

/**
 * At the owner: enters lines of an issuer's file, in their order; resolves when they are committed. How far the file has
 * been entered is part of each entry, so that lines that come again, from whomever, have one effect: nothing is done for
 * a line that has been entered, also when somebody has changed its card since. One entry a turn of the event loop.
 */
export async function importCards(
  owner: GroupOwner,
  { file, cards }: { readonly file: string; readonly cards: readonly CardFileInput[] },
  entered: Entered,
  tools: ImportTools,
): Promise<readonly CardImportResult[]> {
  const results: CardImportResult[] = [];
  let last = 0;
  for (const batch of distinctBatches(cards)) {
    if (results.length > 0) await nextTurn(tools.clock);
    const outcome = importBatch(owner, file, batch, entered, tools);
    results.push(...outcome.results);
    last = Math.max(last, outcome.last);
  }
  if (last > 0) await committed(owner, last);
  return results;
}

/** `last`: the entry that these lines, or those of them that have been entered before, wait for. */
function importBatch(
  owner: GroupOwner,
  file: string,
  batch: readonly CardFileInput[],
  entered: Entered,
  tools: ImportTools,
): { readonly results: readonly CardImportResult[]; readonly last: number } {
  if (owner.awaitsMarks) throw new SwitchError('OWNER_UNREACHABLE', 'a range is coming to this group: enter it again');
  const marks = owner.ledger.imported(file);
  const through: Record<string, number> = {};
  const fresh: CardImport[] = [];
  let last = 0;
  const isFresh = batch.map(({ line, ...card }) => {
    const mark = markOf(marks, card.bin, () => tools.cardKeys.decrypt(card.panCipher)?.reveal());
    if (line <= (mark?.through ?? 0)) {
      // What is repeated may be of an entry that has not committed yet.
      last = Math.max(last, mark?.index ?? 0);
      return false;
    }
    through[mark?.prefix ?? ''] = line;
    fresh.push(card);
    return true;
  });
  if (fresh.length === 0) return { results: batch.map(() => 'entered-before'), last };
  const context = { ...planContext(entered, tools), file: { hash: file, through } };
  const { results, ...content } = planImport(owner.ledger, fresh, context);
  const index = append(owner, content, entered, tools) ?? 0;
  let next = 0;
  return {
    results: isFresh.map((is): CardImportResult => (is ? (results[next++] ?? 'unchanged') : 'entered-before')),
    last: Math.max(last, index),
  };
}

/**
 * At the owner: carries out what somebody asks for cards, all of it or, when one is refused, nothing; `check`: nothing in
 * any case. How many cards it changes.
 */
export async function enterRequests(
  owner: GroupOwner,
  {
    requests,
    places,
    check,
  }: {
    readonly requests: readonly CardRequest[];
    readonly places?: readonly number[] | undefined;
    readonly check: boolean;
  },
  entered: Entered,
  tools: DeskTools,
): Promise<number> {
  const content = planRequests(owner.ledger, requests, planContext(entered, tools), places);
  if (!check) {
    const index = append(owner, content, entered, tools);
    if (index !== undefined) await committed(owner, index);
  }
  return content.added.length + new Set(content.changes.map(({ card }) => card)).size;
}

/** As owner: removes deleted cards for which nothing can come back any more. */
export function purgeCards(owner: GroupOwner, at: number, origin: string): void {
  const changes = planPurge(owner.ledger, at, purgesPerTick);
  if (changes.length > 0) owner.append({ kind: 'cards', at, by: 'quadrant', origin, added: [], changes });
}

/** A card as people see it: everything but its number. */
export interface CardView {
  readonly card: string;
  readonly group: string;
  readonly version: number;
  readonly status: string;
  readonly expiry: string;
  readonly currency: string;
  readonly limit: string;
  readonly held: string;
  readonly posted: string;
  /** How many numbers the card has had; `isPresent`: it was asked for by the last one. */
  readonly numbers: number;
  readonly isPresent: boolean;
  readonly deletedAt: number;
  /** What made the present version. */
  readonly change: string;
  readonly enteredAt: number;
  readonly enteredBy: string;
  readonly origin: string;
  readonly restrictions: readonly RestrictionView[];
  /** What came before, the oldest first. */
  readonly history: readonly VersionView[];
}

type RestrictionView = Pick<RestrictionRow, 'id' | 'status' | 'at' | 'by' | 'origin' | 'number'>;
type VersionView = Omit<CardVersionRow, 'cardId' | 'limit'> & { readonly limit: string };

/** The committed card in a copy. Throws CARD_UNKNOWN. */
export function viewCard(ledger: SqliteLedger, group: string, panHash: string): CardView {
  const found = numberOf(ledger, panHash);
  if (found === undefined) throw new SwitchError('CARD_UNKNOWN', 'no such card is on file');
  const { card, isPresent } = found;
  return {
    card: card.cardId,
    group,
    version: card.version,
    status: card.status,
    expiry: card.expiry,
    currency: card.currency,
    limit: card.limit.toString(),
    held: card.held.toString(),
    posted: card.posted.toString(),
    numbers: card.number,
    isPresent,
    deletedAt: card.deletedAt,
    change: card.change,
    enteredAt: card.enteredAt,
    enteredBy: card.enteredBy,
    origin: card.origin,
    restrictions: ledger
      .restrictions(card.cardId)
      .filter(({ lifted }) => lifted === 0)
      .map(({ id, status, at, by, origin, number }) => ({ id, status, at, by, origin, number })),
    history: ledger
      .versions(card.cardId)
      .map(({ version, change, enteredAt, enteredBy, origin, expiry, status, limit }) => ({
        ...{ version, change, enteredAt, enteredBy, origin, expiry, status },
        limit: limit.toString(),
      })),
  };
}

/** A card that comes twice is changed by its second line, so the two cannot stand in one entry. */
function distinctBatches(cards: readonly CardFileInput[]): CardFileInput[][] {
  const batches: CardFileInput[][] = [];
  let seen = new Set<string>();
  for (const card of cards) {
    const current = batches.at(-1);
    if (current === undefined || current.length >= maximumCardsPerEntry || seen.has(card.panHash)) {
      batches.push([card]);
      seen = new Set([card.panHash]);
    } else {
      current.push(card);
      seen.add(card.panHash);
    }
  }
  return batches;
}

/** Restrictions are named by the node where they were entered and by chance: never the same again. */
function planContext({ origin }: Entered, { clock, random }: DeskTools): PlanContext {
  return { at: clock.wallMs(), name: () => `${origin}.${random.bytes(6).toString('hex')}` };
}

/** The entry's index; undefined when there is nothing to enter. */
function append(owner: GroupOwner, content: CardsContent, entered: Entered, { clock }: DeskTools): number | undefined {
  if (content.added.length === 0 && content.changes.length === 0 && content.file === undefined) return undefined;
  const index = owner.append({ kind: 'cards', at: clock.wallMs(), ...entered, ...content });
  if (index === undefined) throw new SwitchError('OWNER_UNREACHABLE', 'this node does not own the card');
  return index;
}

function committed(owner: GroupOwner, index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    owner.whenCommitted(index, resolve, () => {
      reject(new SwitchError('OWNER_UNREACHABLE', 'the owner changed before the change was committed: enter it again'));
    });
  });
}
