import type { CardId, GroupId, NodeId } from '../base/identifiers.ts';
import { numberOf } from '../store/cards.ts';
import type { HeldRestriction } from '../store/edge-store.ts';
import {
  decodeBody,
  type AttemptEntry,
  type CardChange,
  type DecisionEntry,
  type EntryBody,
  type ResolutionReason,
  type ReversalEntry,
  type SalvageableEntry,
  type StandInEntry,
  type StandInOutcome,
  type Tombstone,
} from '../store/entry.ts';
import { attemptsOf, isApproval, openToBuy, type LedgerReader, type TransactionRow } from '../store/ledger.ts';
import { salvageableEntry, type SalvagedEntry, type SalvageOutcome } from '../store/salvage.ts';
import { wouldOverflow } from './authorizer.ts';
import { isOpenHold, matchReversal, standsAlready, wasCompletedBefore, wasReversedBefore } from './matching.ts';
import { partsOfKey } from './request.ts';

/*
 * What nodes bring to the owner of a group besides requests, again and again until an entry about it has committed, and
 * what the owner enters for each. The plans are pure: ledger and claim in, entry out; the same claim again finds its
 * entry and plans nothing.
 */

/** An attempt that its edge answered 91 (R5). */
export interface UndeliveredClaim {
  readonly kind: 'undelivered';
  readonly group: GroupId;
  readonly attempt: string;
  readonly key: string;
}

/** An entry that a node's log lost (R9). */
export interface SalvagedClaim extends SalvagedEntry {
  readonly kind: 'salvaged';
}

/** An approval that an edge gave by itself. */
export interface StandInClaim {
  readonly kind: 'stand-in';
  readonly group: GroupId;
  readonly sequence: number;
  readonly decision: DecisionEntry;
}

/** A restriction that works at a node already (R11). */
export interface RestrictionClaim extends HeldRestriction {
  readonly kind: 'restriction';
}

export type Claim = (UndeliveredClaim | SalvagedClaim | StandInClaim | RestrictionClaim) & {
  /** The group that has the card now, when that is another than the claim's own: its range has moved (R12). */
  readonly heir?: GroupId;
};

/** Where the claim is to be brought. */
export function groupOf(claim: Claim): GroupId {
  return claim.heir ?? claim.group;
}

/** `moved`: nothing was entered; another group has the card. */
export type ClaimOutcome = 'entered' | 'moved' | SalvageOutcome | StandInOutcome;

/** Names a claim among those of its node. */
export function claimId(claim: Claim): string {
  switch (claim.kind) {
    case 'undelivered':
      return `undelivered ${claim.attempt}`;
    case 'restriction':
      return `restriction ${claim.id}`;
    case 'stand-in':
      return `stand-in ${claim.decision.attempt}`;
    case 'salvaged':
      return `salvaged ${claim.group} ${claim.term} ${claim.index}`;
  }
}

export type ClaimPlan =
  | { readonly kind: 'enter'; readonly entry: EntryBody; readonly outcome: ClaimOutcome }
  /** The log says it already: settled as soon as entry `index` has committed. */
  | { readonly kind: 'known'; readonly index: number; readonly outcome: ClaimOutcome };

export interface ClaimContext {
  readonly ledger: LedgerReader;
  /** The node that brings it. */
  readonly from: NodeId;
  /** Wall clock of the owner, milliseconds since 1970. */
  readonly at: number;
  /** The owner's configuration: what it enters counts as decided by that, or the log's would not be in order. */
  readonly configIndex: number;
}

/** The card that the claim is about; '' when this log knows of none. */
export function cardOf(claim: Claim, ledger: LedgerReader): CardId | '' {
  const ofKey = (key: string): CardId | '' => ledger.transactionByKey(key)?.request.card ?? '';
  switch (claim.kind) {
    case 'undelivered':
      return ofKey(claim.key);
    case 'stand-in':
      return claim.decision.request.card;
    case 'restriction':
      return numberOf(ledger, claim.panHash)?.card.cardId ?? '';
    case 'salvaged': {
      const entry = readSalvaged(claim.body);
      if (entry === undefined) return '';
      return entry.kind === 'attempt' ? ofKey(entry.key) : entry.request.card;
    }
  }
}

/** What the owner does about a claim. */
export function planClaim(claim: Claim, context: ClaimContext): ClaimPlan {
  switch (claim.kind) {
    case 'undelivered':
      return planUndelivered(claim, context);
    case 'salvaged':
      return planAdoption(claim, context);
    case 'stand-in':
      return planStandIn(claim, context);
    case 'restriction':
      return planRestriction(claim, context);
  }
}

// ---- R5: what was not delivered --------------------------------------------------------------------------------------

/**
 * Released is only what none of those who asked for it can have: every attempt that was entered has been reported. An
 * attempt that was never seen here may still be on its way: its entry makes the owner refuse it when it comes.
 */
function planUndelivered({ attempt, key }: UndeliveredClaim, { ledger, at }: ClaimContext): ClaimPlan {
  const reported = ledger.undeliveredAttempt(attempt);
  if (reported !== undefined) return { kind: 'known', index: reported.index, outcome: 'entered' };
  const decided = ledger.transactionByKey(key);
  const attempts = decided === undefined ? [] : attemptsOf(ledger, decided);
  const transaction = decided !== undefined && attempts.includes(attempt) ? decided : undefined;
  // It moved no money and never will: there is nothing to say about it.
  if (transaction?.billed === 0n) return { kind: 'known', index: transaction.index, outcome: 'entered' };
  const stands = transaction?.state === 'held' || transaction?.state === 'posted';
  const releases =
    stands && attempts.every((each) => each === attempt || ledger.undeliveredAttempt(each) !== undefined);
  const index = transaction?.index ?? 0;
  return {
    kind: 'enter',
    entry: { kind: 'undelivered', at, attempt, key, transaction: index, releases },
    outcome: 'entered',
  };
}

// ---- R11: what works at a node already --------------------------------------------------------------------------------

/**
 * Entered once, whoever has lifted it since. For a card that is not on file an entry is made, too, that says nothing: only
 * when it has committed is it certain that this node's log, and not a newer one, does not have the card.
 */
function planRestriction(claim: RestrictionClaim, { ledger, from, at }: ClaimContext): ClaimPlan {
  const known = ledger.restriction(claim.id);
  if (known !== undefined) return { kind: 'known', index: known.index, outcome: 'entered' };
  const found = numberOf(ledger, claim.panHash);
  const changes: CardChange[] =
    found === undefined
      ? []
      : [
          {
            kind: 'restrict',
            card: found.card.cardId,
            number: found.number,
            restriction: claim.id,
            status: claim.status,
            at: claim.at,
          },
        ];
  return {
    kind: 'enter',
    entry: { kind: 'cards', at, by: claim.by, origin: from, added: [], changes },
    outcome: found === undefined ? 'card-unknown' : 'entered',
  };
}

// ---- R9: what a log lost ---------------------------------------------------------------------------------------------

type Resolution =
  | { readonly outcome: 'adopted'; readonly reason: ResolutionReason; readonly decision: SalvageableEntry }
  | { readonly outcome: 'voided'; readonly reason: ResolutionReason }
  | { readonly outcome: 'kept'; readonly index: number };

function voided(reason: ResolutionReason): Resolution {
  return { outcome: 'voided', reason };
}

/**
 * Adopted: the acquirer was told, and nobody has decided otherwise since, so it counts as if it were decided now, over
 * the limit or not. Voided: here the same request was decided, taken back or released since, and that stands.
 *
 * Entries refer to others by log index, which here is another entry's. They name them by duplicate key, too: that is
 * the same request in any log, however it was decided and wherever its entry came to stand. So:
 *
 * - A reversal takes back what stands under its original's key, also when that was decided anew here: the acquirer
 *   means the request. If there is nothing, the original may still come, by a repeat or from another disk: the
 *   reversal is adopted as an unmatched one, with a tombstone that declines it then. The acquirer was told that the
 *   original no longer counts; to void the reversal would let it count.
 * - A completion goes into its hold if that is open here, else it posts by itself, as an unmatched advice does:
 *   goods have been delivered for it.
 * - A hold whose completion has come first, and posted by itself, is adopted without its amount.
 * - A repeat's attempt is entered for what stands under its key, so that nobody releases what it was answered.
 */
function planAdoption(offer: SalvagedClaim, { ledger, from, at, configIndex }: ClaimContext): ClaimPlan {
  const { group, term, index, hash } = offer;
  const before = ledger.resolution(group, term, index);
  if (before !== undefined) return { kind: 'known', index: before.index, outcome: before.outcome };
  const entry = readSalvaged(offer.body);
  // Nothing that a node of this version keeps; index 0 has always committed.
  if (entry === undefined) return { kind: 'known', index: 0, outcome: 'voided' };
  const resolution = resolve(entry, index, ledger);
  if (resolution.outcome === 'kept') return { kind: 'known', index: resolution.index, outcome: 'kept' };
  const { outcome, reason } = resolution;
  const resolved = resolution.outcome === 'adopted' ? resolution.decision : entry;
  const decision = resolved.kind === 'attempt' ? resolved : { ...resolved, configIndex };
  return {
    kind: 'enter',
    entry: { kind: 'resolution', at, offer: { group, term, index, hash, from }, outcome, reason, decision },
    outcome,
  };
}

function readSalvaged(body: string): SalvageableEntry | undefined {
  try {
    return salvageableEntry(decodeBody(body));
  } catch {
    return undefined;
  }
}

function resolve(entry: SalvageableEntry, offered: number, ledger: LedgerReader): Resolution {
  if (entry.kind === 'attempt') return resolveAttempt(entry, ledger);
  const known = ledger.transactionByKey(entry.request.key);
  if (known !== undefined) {
    // A snapshot replaces entries that the log has after all; what came with its range has another index here.
    const same =
      (known.index === offered || known.index < 0) && known.attempt === entry.attempt && known.decidedAt === entry.at;
    return same ? { outcome: 'kept', index: known.index } : voided('decided');
  }
  const { card } = entry.request;
  if (card !== '' && ledger.cardById(card) === undefined) return voided('card-unknown');
  return entry.kind === 'reversal' ? resolveReversal(entry, ledger) : resolveDecision(entry, ledger);
}

function resolveAttempt(entry: AttemptEntry, ledger: LedgerReader): Resolution {
  const transaction = ledger.transactionByKey(entry.key);
  if (transaction === undefined) return voided('original-unknown');
  const { index, state, billed, attempt, responseCode } = transaction;
  const entered = ledger.repeatAttempts(index).find((row) => row.attempt === entry.attempt);
  if (attempt === entry.attempt || entered !== undefined) return { outcome: 'kept', index: entered?.index ?? index };
  if (ledger.undeliveredAttempt(entry.attempt) !== undefined) return voided('undelivered');
  // Without money nothing can be released: an approval stays what it is, a decline was decided here.
  if (billed === 0n) return isApproval(responseCode) ? { outcome: 'kept', index } : voided('decided');
  if (state === 'reversed') return voided('reversed');
  return { outcome: 'adopted', reason: '', decision: { ...entry, transaction: index } };
}

function resolveDecision(entry: DecisionEntry, ledger: LedgerReader): Resolution {
  if (ledger.undeliveredAttempt(entry.attempt) !== undefined) return voided('undelivered');
  const card = entry.request.card === '' ? undefined : ledger.cardById(entry.request.card);
  const amount = BigInt(entry.hold) + BigInt(entry.post);
  if (card === undefined || amount === 0n) return { outcome: 'adopted', reason: '', decision: entry };
  if (wasReversedBefore(entry.request, card.cardId, ledger)) return voided('reversed');
  if (wasCompletedBefore(entry.request, card.cardId, ledger)) {
    return { outcome: 'adopted', reason: 'completed', decision: { ...entry, hold: '0', holdExpiresAt: 0 } };
  }
  if (wouldOverflow(card, amount < 0n ? -amount : amount)) return voided('too-large');
  if (entry.completes === 0) return { outcome: 'adopted', reason: '', decision: entry };
  const hold = entry.completesKey === undefined ? undefined : ledger.transactionByKey(entry.completesKey);
  const open = hold !== undefined && isOpenHold(hold) && hold.request.card === card.cardId;
  return open
    ? { outcome: 'adopted', reason: '', decision: { ...entry, completes: hold.index } }
    : { outcome: 'adopted', reason: 'unmatched', decision: { ...entry, completes: 0 } };
}

function resolveReversal(entry: ReversalEntry, ledger: LedgerReader): Resolution {
  const { card } = entry.request;
  const adopted = (reason: ResolutionReason, changes: Partial<ReversalEntry>): Resolution => ({
    outcome: 'adopted',
    reason,
    decision: { ...entry, ...changes },
  });
  if (card === '') return adopted('', {});
  const unlessThere = (tombstone: Tombstone | undefined): Tombstone | undefined =>
    tombstone === undefined || standsAlready(entry.request, tombstone, card, ledger) ? undefined : tombstone;

  if (entry.original !== 0) {
    const original = entry.originalKey === undefined ? undefined : ledger.transactionByKey(entry.originalKey);
    if (original?.request.card === card) return adopted('', { original: original.index });
    return adopted('unmatched', { original: 0, tombstone: unlessThere(tombstoneOfKey(entry.originalKey)) });
  }
  if (entry.tombstone === undefined) return adopted('', {});
  // It came before its original there; here the original may have been decided meanwhile.
  const named = entry.tombstone.by === 'original-data' ? entry.tombstone : undefined;
  const match = matchReversal(entry.request, named, card, ledger);
  return match.kind === 'live' || match.kind === 'settled'
    ? adopted('', { original: match.row.index, originalKey: match.row.request.key, tombstone: undefined })
    : adopted('', { tombstone: unlessThere(entry.tombstone) });
}

/** DE 90, as it would have named the request of this duplicate key. */
function tombstoneOfKey(key: string | undefined): Tombstone | undefined {
  const parts = key === undefined ? undefined : partsOfKey(key);
  if (parts === undefined) return undefined;
  const { mtiClass, stan, transmission, acquirer } = parts;
  return { by: 'original-data', mtiClass, stan, transmission, acquirer: acquirer.padStart(11, '0') };
}

// ---- no majority: what an edge approved by itself --------------------------------------------------------------------

/**
 * An approval in stand-in was answered, so it counts, also over the limit, and once. The duplicate key says what else
 * the log knows of the request, whoever decided it, before or after the edge did:
 *
 * - approved, and it stands or has taken its course: it is this same transaction. The owner had the forwarded request
 *   before it lost its majority, and its entry was committed later; or a repeat was decided at another node. Nothing
 *   is placed twice, and the edge's attempt is entered for it: it was delivered, so no other attempt's edge can have it
 *   released. The edge itself reports no reversal due for a request that it has approved.
 * - declined, or approved and released because no attempt of it was delivered: the acquirer has the edge's approval,
 *   so the request is approved after all.
 * - reversed, by a reversal that found it or by one that came before this: the acquirer has taken it back.
 * - completed, by an advice that came before this and posted by itself: it counts without its amount.
 */
function planStandIn(claim: StandInClaim, { ledger, from, at, configIndex }: ClaimContext): ClaimPlan {
  const entered = ledger.standIn(claim.decision.attempt);
  if (entered !== undefined) return { kind: 'known', index: entered.index, outcome: entered.outcome };
  const { sequence } = claim;
  const { request, hold, post } = claim.decision;
  const approved = (BigInt(hold) + BigInt(post)).toString();
  const card = request.card === '' ? undefined : ledger.cardById(request.card);
  const completed = card !== undefined && wasCompletedBefore(request, card.cardId, ledger);
  const decision: DecisionEntry = {
    ...claim.decision,
    configIndex,
    ...(completed && { hold: '0', holdExpiresAt: 0 }),
  };
  const plan = (outcome: StandInOutcome, changes: Partial<StandInEntry> = {}): ClaimPlan => {
    const known = { at, node: from, sequence, amount: approved, decision };
    const entry: StandInEntry = { kind: 'stand-in', ...known, outcome, transaction: 0, overspent: '0', ...changes };
    return { kind: 'enter', entry, outcome };
  };
  if (card === undefined) return plan('card-unknown');
  const amount = BigInt(decision.hold) + BigInt(decision.post);
  const room = openToBuy(card);
  const over = amount - (room > 0n ? room : 0n);
  const counted = (changes: Partial<StandInEntry>): ClaimPlan =>
    wouldOverflow(card, amount)
      ? plan('too-large')
      : plan('counted', { ...changes, overspent: (over > 0n ? over : 0n).toString() });

  const known = ledger.transactionByKey(request.key);
  if (known === undefined) {
    return wasReversedBefore(request, card.cardId, ledger) ? plan('reversed') : counted({});
  }
  if (!isSameRecord(known, decision)) {
    // The key was used twice, at two nodes that could not know of each other: a transaction of its own.
    const key = `${request.key}|${decision.attempt}`;
    return counted({ decision: { ...decision, request: { ...request, key } } });
  }
  const transaction = known.index;
  if (known.billed !== 0n && known.state !== 'reversed') return plan('same', { transaction });
  const reversed =
    ledger.reversalsOf(card.cardId, transaction).length > 0 || wasReversedBefore(request, card.cardId, ledger);
  return reversed ? plan('reversed', { transaction }) : counted({ transaction });
}

function isSameRecord({ request: known }: TransactionRow, { request }: DecisionEntry): boolean {
  return known.card === request.card && known.amount === request.amount && known.currency === request.currency;
}
