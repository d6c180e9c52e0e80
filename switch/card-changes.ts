import { SwitchError } from '../base/errors.ts';
import type { CardId } from '../base/identifiers.ts';
import { moreRestrictive, type CardStatus } from '../store/card-status.ts';
import { fromFile, numberOf, type CardRow, type CardsReader } from '../store/cards.ts';
import type { CardChange, CardImport, CardsEntry, StoredNumber } from '../store/entry.ts';

/*
 * What changes of cards do to the cards on file. Plans are pure: ledger and request in, content of an entry out. Nothing
 * here can make an entry that a copy could not apply.
 */

/**
 * added, changed, unchanged: as they say. kept-restriction: changed or not, but a stricter status on file stays.
 * replaced: the number is one that a card had before. duplicate: an earlier line of the file has added or changed the card;
 * this one counts. entered-before: the file's line has been entered, by an earlier try or from another node.
 */
export type CardImportResult =
  | 'duplicate'
  | 'entered-before'
  | 'added'
  | 'changed'
  | 'unchanged'
  | 'kept-restriction'
  | 'other-currency'
  | 'replaced';

export type CardsContent = Pick<CardsEntry, 'added' | 'changes' | 'file'>;

export interface PlanContext {
  /** Now, for new restrictions. */
  readonly at: number;
  /** Names a restriction for good: another name at every call. */
  readonly name: () => string;
  /** The card file that it is of, and the last line. */
  readonly file?: NonNullable<CardsEntry['file']>;
}

/**
 * What a batch of an issuer's file does to the cards on file. The more restrictive status wins until somebody lifts
 * it, so a file never unblocks a card; a card's currency never changes, for its balance is in it. The same batch
 * again plans nothing. The inputs of one batch are different cards.
 */
export function planImport(
  ledger: CardsReader,
  cards: readonly CardImport[],
  context: PlanContext,
): CardsContent & { readonly results: readonly CardImportResult[] } {
  const added: CardImport[] = [];
  const changes: CardChange[] = [];
  const results = cards.map((input): CardImportResult => {
    const known = ledger.cardByPanHash(input.panHash);
    if (known === undefined) {
      added.push(input);
      return 'added';
    }
    if (known.panHash !== input.panHash) return 'replaced';
    if (known.currency !== input.currency) return 'other-currency';
    const before = changes.length;
    if (known.expiry !== input.expiry || known.limit !== BigInt(input.limit)) {
      changes.push({ kind: 'set', card: known.cardId, expiry: input.expiry, limit: input.limit });
    }
    const status = moreRestrictive(known.status, input.status);
    if (status !== known.status) changes.push(restriction(known, status, context));
    if (status !== input.status) return 'kept-restriction';
    if (context.file !== undefined && known.change.endsWith(fromFile(context))) return 'duplicate';
    return changes.length === before ? 'unchanged' : 'changed';
  });
  return { added, changes, ...(context.file === undefined ? {} : { file: context.file }), results };
}

/** What somebody asks for one card. What it replaces is a version that he has seen: never another one unseen. */
export type CardRequest =
  | { readonly kind: 'add'; readonly card: CardImport }
  | {
      /** Absent: as it is. `status` lifts what stands now and places what it says. */
      readonly kind: 'set';
      readonly panHash: string;
      readonly replaces: number;
      readonly expiry?: string | undefined;
      readonly limit?: string | undefined;
      readonly status?: CardStatus | undefined;
    }
  | {
      /** `status`: of the old number. */
      readonly kind: 'replace';
      readonly panHash: string;
      readonly replaces: number;
      readonly by: StoredNumber;
      readonly expiry: string;
      readonly status: CardStatus;
    }
  | { readonly kind: 'delete'; readonly panHash: string; readonly replaces: number }
  | { readonly kind: 'lift'; readonly panHash: string; readonly restrictions: readonly string[] };

/**
 * The changes that requests make, all or none, each of another card. Throws CARD_UNKNOWN, VERSION_CONFLICT where a version is
 * not the present one, and CARD_CHANGE_REFUSED; the message says which by its number in `places`, where that is given.
 */
export function planRequests(
  ledger: CardsReader,
  requests: readonly CardRequest[],
  context: PlanContext,
  places?: readonly number[],
): CardsContent {
  const added: CardImport[] = [];
  const changes: CardChange[] = [];
  const seen = new Set<string>();
  for (const [place, request] of requests.entries()) {
    try {
      for (const hash of hashesOf(request)) {
        if (seen.has(hash)) throw refusal('the card is changed twice: enter one after the other');
        seen.add(hash);
      }
      if (request.kind === 'add') added.push(planAdding(ledger, request.card));
      else changes.push(...planChange(ledger, request, context));
    } catch (error) {
      if (places === undefined || !(error instanceof SwitchError)) throw error;
      throw new SwitchError(error.code, `change ${places[place] ?? place + 1}: ${error.message}`);
    }
  }
  return { added, changes };
}

function hashesOf(request: CardRequest): readonly string[] {
  if (request.kind === 'add') return [request.card.panHash];
  return request.kind === 'replace' ? [request.panHash, request.by.panHash] : [request.panHash];
}

function planAdding(ledger: CardsReader, card: CardImport): CardImport {
  const known = ledger.cardByPanHash(card.panHash);
  if (known === undefined) return card;
  throw refusal(known.panHash === card.panHash ? 'the card is on file already' : 'the number was replaced by another');
}

function planChange(
  ledger: CardsReader,
  request: Exclude<CardRequest, { kind: 'add' }>,
  context: PlanContext,
): readonly CardChange[] {
  const found = numberOf(ledger, request.panHash);
  if (found === undefined) throw new SwitchError('CARD_UNKNOWN', 'no such card is on file');
  const { card } = found;
  const id = card.cardId;
  if (request.kind === 'lift') {
    const standing = standingOf(ledger, id).map((row) => row.id);
    const other = request.restrictions.find((each) => !standing.includes(each));
    if (other !== undefined) {
      const known = standing.length === 0 ? 'none stands' : `those that stand: ${standing.join(', ')}`;
      throw refusal(`restriction ${other} does not stand on this card; ${known}`);
    }
    return [{ kind: 'lift', card: id, restrictions: request.restrictions }];
  }
  if (!found.isPresent) throw refusal('the number was replaced by another: change the card by its present one');
  if (request.replaces !== card.version) throw changedMeanwhile(card, request.replaces);
  switch (request.kind) {
    case 'set': {
      const expiry = request.expiry ?? card.expiry;
      const limit = request.limit ?? card.limit.toString();
      const isOther = expiry !== card.expiry || BigInt(limit) !== card.limit;
      const changes: CardChange[] = isOther ? [{ kind: 'set', card: id, expiry, limit }] : [];
      const { status } = request;
      if (status === undefined || status === card.status) return changes;
      const standing = standingOf(ledger, id).filter(({ number }) => number === card.number);
      if (standing.length > 0) changes.push({ kind: 'lift', card: id, restrictions: standing.map((row) => row.id) });
      if (status !== 'active') changes.push(restriction(card, status, context));
      return changes;
    }
    case 'replace': {
      if (ledger.cardByPanHash(request.by.panHash) !== undefined) throw refusal('the new number is on file already');
      if (card.deletedAt !== 0) throw refusal('the card has been deleted');
      const { by, expiry, status } = request;
      return [{ kind: 'replace', card: id, ...by, expiry, status, restriction: context.name() }];
    }
    case 'delete':
      return card.deletedAt === 0 ? [{ kind: 'delete', card: id, restriction: context.name() }] : [];
  }
}

/** At a time at which nothing can come back for them: a repeat, a reversal, a completion. */
export function planPurge(ledger: CardsReader, at: number, limit: number): readonly CardChange[] {
  return ledger.purgeableCards(at - keptDeletedMs, limit).map((card) => ({ kind: 'purge', card }));
}

/** How long a deleted card stays closed on file after its last transaction: longer than anything comes back. */
const keptDeletedMs = 30 * 86_400_000;

function standingOf(ledger: CardsReader, card: CardId): readonly { readonly id: string; readonly number: number }[] {
  return ledger.restrictions(card).filter(({ lifted }) => lifted === 0);
}

function restriction(card: CardRow, status: CardStatus, { at, name }: PlanContext): CardChange {
  return { kind: 'restrict', card: card.cardId, number: card.number, restriction: name(), status, at };
}

function refusal(reason: string): SwitchError {
  return new SwitchError('CARD_CHANGE_REFUSED', reason);
}

function changedMeanwhile(card: CardRow, replaces: number): SwitchError {
  const when = new Date(card.enteredAt).toISOString();
  return new SwitchError(
    'VERSION_CONFLICT',
    `the change replaces version ${replaces}, and the card is at version ${card.version}: ${card.change}, ` +
      `${when} by ${card.enteredBy} at ${card.origin}`,
  );
}
