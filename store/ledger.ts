/*
 * The fold of a card group: its rows, and what each kind of entry does to them. Over 500 lines because every effect that
 * an entry can have on money stands here and nowhere else.
 */
import type { CardId, GroupId } from '../base/identifiers.ts';
import { assert } from '../base/errors.ts';
import { applyCards, type CardRow, type CardsReader, type CardsState } from './cards.ts';
import { dividedMarks } from './import-marks.ts';
import { hashOfRows, type RangeMoveRow } from './range-move.ts';
import type {
  AttemptEntry,
  DecisionEntry,
  EntryBody,
  ExpiryEntry,
  MovedRow,
  RangeInEntry,
  RangeLeaveEntry,
  RangeOutEntry,
  RangeRowsEntry,
  RequestRecord,
  ResolutionEntry,
  ResolutionReason,
  ReversalEntry,
  StandInEntry,
  StandInOutcome,
  Tombstone,
  UndeliveredEntry,
} from './entry.ts';

/**
 * declined: no effect, ever. recorded: approved, no money (inquiry, verification, reversal). held: a hold stands.
 * moved: it stands in the group to which the card's range has moved, and is that one's to release. completed: its hold went into a posting. posted: money moved. reversed, expired: the effect was taken back.
 */
export type TransactionState =
  'declined' | 'recorded' | 'held' | 'moved' | 'completed' | 'posted' | 'reversed' | 'expired';

/** One decided request and what became of it. */
export interface TransactionRow {
  /**
   * Index of the deciding entry: the transaction's identity within its group. Below 0: it was decided in another group,
   * and came with the card (`movedIndex`).
   */
  readonly index: number;
  readonly request: RequestRecord;
  readonly responseCode: string;
  readonly authorizationCode: string;
  readonly additionalAmounts: string;
  readonly decidedAt: number;
  readonly state: TransactionState;
  /** Amount in billing currency when decided; what DE 95 is scaled by. */
  readonly billed: bigint;
  readonly held: bigint;
  readonly posted: bigint;
  readonly holdExpiresAt: number;
  /** What this completes or reverses, or 0. */
  readonly original: number;
  /** What a completion took out of its hold: given back when the completion is reversed. */
  readonly restores: bigint;
  /** The configuration that it was decided by: never an older one than of any row before. */
  readonly configIndex: number;
  /** The delivery of the request that was decided; later ones that may get the approval are `RepeatAttemptRow`s (R5). */
  readonly attempt: string;
}

/** A repeat that may have been answered with a stored approval. */
export interface RepeatAttemptRow {
  readonly transaction: number;
  readonly attempt: string;
  readonly index: number;
}

/** An attempt that its edge answered 91. */
export interface UndeliveredAttemptRow {
  readonly attempt: string;
  readonly index: number;
  readonly key: string;
  /** What it was entered for; 0: it was never seen, and is refused when it comes. */
  readonly transaction: number;
  readonly released: boolean;
}

/** What became of a salvaged entry, named by the term and index that it had in the log that lost it. */
export interface ResolutionRow {
  readonly group: GroupId;
  readonly term: number;
  readonly offered: number;
  readonly hash: string;
  readonly from: string;
  readonly index: number;
  readonly at: number;
  readonly outcome: ResolutionEntry['outcome'];
  readonly reason: ResolutionReason;
  readonly key: string;
  readonly card: CardId | '';
}

/** An edge's own approval, entered. */
export interface StandInRow {
  readonly attempt: string;
  readonly index: number;
  readonly node: string;
  readonly sequence: number;
  readonly card: CardId | '';
  readonly key: string;
  readonly outcome: StandInOutcome;
  /** The transaction that it is, or 0. */
  readonly transaction: number;
  readonly amount: bigint;
  readonly overspent: bigint;
  readonly approvedAt: number;
  readonly enteredAt: number;
}

export interface TombstoneRow {
  readonly index: number;
  readonly card: CardId;
  /** What an original is looked up by: `tombstoneKey`. */
  readonly matchKey: string;
  readonly link: string;
  readonly terminal: string;
  readonly tombstone: Tombstone;
}

/** The fold of a card group, as deciding reads it: committed rows, with the overlay of later entries on top (R1). */
export interface LedgerReader extends CardsReader {
  transaction(index: number): TransactionRow | undefined;
  transactionByKey(key: string): TransactionRow | undefined;
  transactionsByStan(card: CardId, stan: string): readonly TransactionRow[];
  transactionsByRrn(card: CardId, rrn: string): readonly TransactionRow[];
  /** Holds of the card that stand or have expired, with this DE 38. */
  holdsByAuthorizationCode(card: CardId, authorizationCode: string): readonly TransactionRow[];
  /** Those of the card that stand under one of these keys (`tombstoneKey`). */
  tombstones(card: CardId, matchKeys: readonly string[]): readonly TombstoneRow[];
  /** Cards that have any, up to `limit` of them. */
  cardsWithTombstones(limit: number): readonly CardId[];
  /** Standing holds that end at or before `at`, the earliest first. */
  holdsDue(at: number, limit: number): readonly TransactionRow[];
  /** `configIndex` of the last transaction, which is the highest of all; 0 without any. */
  lastConfigIndex(): number;
  /** Reversals of the card that meant this transaction, whatever they found left of it. */
  reversalsOf(card: CardId, transaction: number): readonly TransactionRow[];
  repeatAttempts(transaction: number): readonly RepeatAttemptRow[];
  undeliveredAttempt(attempt: string): UndeliveredAttemptRow | undefined;
  /** Up to `limit` of all that were reported. */
  undeliveredAttempts(limit: number): readonly string[];
  /** What became of the salvaged entry that the group's log had at this term and index. */
  resolution(group: GroupId, term: number, index: number): ResolutionRow | undefined;
  standIn(attempt: string): StandInRow | undefined;
  rangeMove(move: string): RangeMoveRow | undefined;
  /** The move with which the card has left this group; '' while it is here. */
  leftBy(card: CardId): string;
  /** Transactions of the card whose holds stand. */
  standingHolds(card: CardId): readonly TransactionRow[];
}

/** What apply writes; the SQLite fold and the in-memory overlay are the two implementations. */
export interface LedgerState extends LedgerReader, CardsState {
  addTransaction(row: TransactionRow): void;
  changeTransaction(row: TransactionRow): void;
  /** As `changeTransaction`, and what was decided is another: DE 38, DE 39, amounts, times. */
  redecideTransaction(row: TransactionRow): void;
  addTombstone(row: TombstoneRow): void;
  addRepeatAttempt(row: RepeatAttemptRow): void;
  addUndeliveredAttempt(row: UndeliveredAttemptRow): void;
  addResolution(row: ResolutionRow): void;
  addStandIn(row: StandInRow): void;
  putRangeMove(row: RangeMoveRow): void;
  leave(card: CardId, move: string): void;
  /** Rows that come from another group, with entry `index`. Nothing is decided by them before all have come. */
  takeRows(index: number, rows: readonly MovedRow[]): void;
}

/** Under what a tombstone is found again: the values that an original must repeat exactly. */
export function tombstoneKey(tombstone: Tombstone, terminal: string): string {
  switch (tombstone.by) {
    case 'original-data':
      return `original|${tombstone.mtiClass}|${tombstone.stan}|${tombstone.transmission}`;
    case 'rrn':
      return `rrn|${tombstone.rrn}|${terminal}`;
    case 'stan':
      return `stan|${tombstone.stan}|${tombstone.amount}|${terminal}`;
  }
}

/** Every delivery of the request that may have been answered with what was decided, the first one first. */
export function attemptsOf(ledger: LedgerReader, transaction: TransactionRow): readonly string[] {
  return [transaction.attempt, ...ledger.repeatAttempts(transaction.index).map((row) => row.attempt)];
}

/** Limit less holds and postings, plus credits. */
export function openToBuy(card: CardRow): bigint {
  return card.limit - card.held - card.posted;
}

/** Whether the entry's DE 39 approves: 00, and 10 for a part. */
export function isApproval(responseCode: string): boolean {
  return responseCode === '00' || responseCode === '10';
}

/**
 * Applies one entry of a card group. Pure over `state`: it reads the entry and the fold only, so that every copy
 * computes the same rows (R1). The same code runs in the file, in the overlay and in the recomputation.
 */
export function applyToLedger(state: LedgerState, group: GroupId, index: number, term: number, entry: EntryBody): void {
  switch (entry.kind) {
    case 'decision':
      applyDecision(state, index, entry);
      return;
    case 'reversal':
      applyReversal(state, index, entry);
      return;
    case 'cards':
      applyCards(state, group, index, term, entry);
      return;
    case 'expiry':
      applyExpiry(state, index, entry);
      return;
    case 'attempt':
      applyAttempt(state, index, entry);
      return;
    case 'undelivered':
      applyUndelivered(state, index, entry);
      return;
    case 'resolution':
      applyResolution(state, index, entry);
      return;
    case 'stand-in':
      applyStandIn(state, index, entry);
      return;
    case 'range-out':
      applyRangeOut(state, index, entry);
      return;
    case 'range-leave':
      applyRangeLeave(state, index, entry);
      return;
    case 'range-rows':
      applyRangeRows(state, index, entry);
      return;
    case 'range-in':
      applyRangeIn(state, index, entry);
      return;
    case 'no-op':
    case 'mark':
    case 'membership':
      return;
    default:
      throw new Error(`entry ${index} of group ${group} is of kind "${entry.kind}", which a card group cannot hold`);
  }
}

function mustCard(state: LedgerState, card: CardId): CardRow {
  const row = state.cardById(card);
  assert(row !== undefined, `card ${card} is in the fold`);
  return row;
}

function mustTransaction(state: LedgerState, index: number): TransactionRow {
  const row = state.transaction(index);
  assert(row !== undefined, `transaction ${index} is in the fold`);
  return row;
}

function applyDecision(state: LedgerState, index: number, entry: DecisionEntry): void {
  const effects = applyEffects(state, index, entry);
  state.addTransaction({
    index,
    request: entry.request,
    responseCode: entry.responseCode,
    authorizationCode: entry.authorizationCode,
    additionalAmounts: entry.additionalAmounts,
    decidedAt: entry.at,
    holdExpiresAt: entry.holdExpiresAt,
    original: entry.completes,
    configIndex: entry.configIndex,
    attempt: entry.attempt,
    ...effects,
  });
}

/** Places and posts what was decided; the row's columns that say so. */
function applyEffects(
  state: LedgerState,
  index: number,
  entry: DecisionEntry,
): Pick<TransactionRow, 'state' | 'billed' | 'held' | 'posted' | 'restores'> {
  const hold = BigInt(entry.hold);
  const post = BigInt(entry.post);
  let restores = 0n;
  if (entry.request.card !== '') {
    let card = mustCard(state, entry.request.card);
    if (entry.completes !== 0) {
      const held = mustTransaction(state, entry.completes);
      restores = held.held;
      state.changeTransaction({ ...held, state: 'completed', held: 0n });
    }
    if (hold !== 0n || post !== 0n || restores !== 0n) {
      card = { ...card, held: card.held + hold - restores, posted: card.posted + post, changedAt: index };
      const debit = entry.completes === 0 ? hold + (post > 0n ? post : 0n) : 0n;
      state.changeCard(debit > 0n ? countUsage(card, entry.request.businessDate, debit) : card);
    }
  }
  return {
    state: decidedState(entry, hold, post),
    billed: hold !== 0n ? hold : post < 0n ? -post : post,
    held: hold,
    posted: post,
    restores,
  };
}

function decidedState(entry: DecisionEntry, hold: bigint, post: bigint): TransactionState {
  if (!isApproval(entry.responseCode)) return 'declined';
  if (hold !== 0n) return 'held';
  return post !== 0n ? 'posted' : 'recorded';
}

const dayMs = 86_400_000;

/**
 * The business date under which a debit of `businessDate` counts. Edges' days do not turn in the same instant, so
 * around midnight dates come in either order: what is one day behind counts with the later day, or the two in turn
 * would begin the count anew each time.
 */
export function usageDateOf(card: CardRow, businessDate: string): string {
  const behind = businessDate < card.usageDate && Date.parse(card.usageDate) - Date.parse(businessDate) === dayMs;
  return behind ? card.usageDate : businessDate;
}

/** The card with one more debit in its count and sum of the day. */
export function countUsage(card: CardRow, businessDate: string, debit: bigint): CardRow {
  const usageDate = usageDateOf(card, businessDate);
  const sameDay = card.usageDate === usageDate;
  return {
    ...card,
    usageDate,
    usageCount: (sameDay ? card.usageCount : 0) + 1,
    usageAmount: (sameDay ? card.usageAmount : 0n) + debit,
  };
}

function applyReversal(state: LedgerState, index: number, entry: ReversalEntry): void {
  const { request } = entry;
  if (entry.original !== 0 && request.card !== '') {
    reverse(
      state,
      index,
      mustCard(state, request.card),
      mustTransaction(state, entry.original),
      BigInt(entry.remaining),
    );
  }
  state.addTransaction({
    index,
    request,
    responseCode: entry.responseCode,
    authorizationCode: '',
    additionalAmounts: '',
    decidedAt: entry.at,
    state: isApproval(entry.responseCode) ? 'recorded' : 'declined',
    billed: 0n,
    held: 0n,
    posted: 0n,
    holdExpiresAt: 0,
    original: entry.original,
    restores: 0n,
    configIndex: entry.configIndex,
    attempt: entry.attempt,
  });
  if (entry.tombstone !== undefined && request.card !== '') {
    state.addTombstone({
      index,
      card: request.card,
      matchKey: tombstoneKey(entry.tombstone, request.terminal),
      link: request.link,
      terminal: request.terminal,
      tombstone: entry.tombstone,
    });
  }
}

/** Lowers what remains of `original` to `remaining`; never raises it, so that reversing twice releases once. */
function reverse(state: LedgerState, index: number, card: CardRow, original: TransactionRow, remaining: bigint): void {
  if (original.state === 'held') {
    const held = remaining < original.held ? remaining : original.held;
    const released = original.held - held;
    state.changeTransaction({ ...original, held, state: held === 0n ? 'reversed' : 'held' });
    state.changeCard(
      uncountUsage({ ...card, held: card.held - released, changedAt: index }, original, released, held === 0n),
    );
  } else if (original.state === 'posted') {
    const size = original.posted < 0n ? -original.posted : original.posted;
    const kept = remaining < size ? remaining : size;
    const posted = original.posted < 0n ? -kept : kept;
    let after: CardRow = { ...card, posted: card.posted - (original.posted - posted), changedAt: index };
    state.changeTransaction({ ...original, posted, state: kept === 0n ? 'reversed' : 'posted' });
    if (kept === 0n && original.original !== 0) {
      const hold = mustTransaction(state, original.original);
      state.changeTransaction({
        ...hold,
        held: original.restores,
        state: original.restores === 0n ? 'expired' : 'held',
      });
      after = { ...after, held: after.held + original.restores };
    } else if (original.original === 0 && original.posted > 0n) {
      after = uncountUsage(after, original, size - kept, kept === 0n);
    }
    state.changeCard(after);
  }
}

function uncountUsage(card: CardRow, original: TransactionRow, released: bigint, whole: boolean): CardRow {
  if (card.usageDate !== original.request.businessDate) return card;
  // Not below zero: the count may have begun anew since the original was in it.
  const amount = card.usageAmount - released;
  return {
    ...card,
    usageAmount: amount < 0n ? 0n : amount,
    usageCount: Math.max(0, card.usageCount - (whole ? 1 : 0)),
  };
}

function applyExpiry(state: LedgerState, index: number, entry: ExpiryEntry): void {
  for (const holdIndex of entry.holds) {
    const hold = mustTransaction(state, holdIndex);
    // Completed or reversed between the owner's look and this entry: nothing is left to release.
    if (hold.state !== 'held' || hold.request.card === '') continue;
    const card = mustCard(state, hold.request.card);
    state.changeTransaction({ ...hold, held: 0n, state: 'expired' });
    state.changeCard({ ...card, held: card.held - hold.held, changedAt: index });
  }
}

function applyAttempt(state: LedgerState, index: number, { transaction, attempt }: AttemptEntry): void {
  addAttempt(state, { index, transaction, attempt });
}

function addAttempt(state: LedgerState, row: RepeatAttemptRow): void {
  if (!attemptsOf(state, mustTransaction(state, row.transaction)).includes(row.attempt)) state.addRepeatAttempt(row);
}

function applyUndelivered(state: LedgerState, index: number, entry: UndeliveredEntry): void {
  const { attempt, key, transaction, releases } = entry;
  if (state.undeliveredAttempt(attempt) !== undefined) return;
  state.addUndeliveredAttempt({ index, attempt, key, transaction, released: releases });
  if (!releases) return;
  const row = mustTransaction(state, transaction);
  const card = row.request.card === '' ? undefined : state.cardById(row.request.card);
  // A purged card has nothing left to be released.
  if (card !== undefined) reverse(state, index, card, row, 0n);
}

function applyResolution(state: LedgerState, index: number, { at, offer, ...entry }: ResolutionEntry): void {
  if (state.resolution(offer.group, offer.term, offer.index) !== undefined) return;
  const { outcome, reason, decision } = entry;
  if (outcome === 'adopted') {
    if (decision.kind === 'decision') applyDecision(state, index, decision);
    else if (decision.kind === 'reversal') applyReversal(state, index, decision);
    else applyAttempt(state, index, decision);
  }
  const { key, card } =
    decision.kind === 'attempt'
      ? { key: decision.key, card: state.transactionByKey(decision.key)?.request.card ?? '' }
      : decision.request;
  const { group, term, index: offered, hash, from } = offer;
  state.addResolution({ group, term, offered, hash, from, index, at, outcome, reason, key, card });
}

function applyStandIn(state: LedgerState, index: number, entry: StandInEntry): void {
  const { outcome, decision, transaction } = entry;
  const { attempt, request } = decision;
  if (state.standIn(attempt) !== undefined) return;
  const known = transaction === 0 ? undefined : mustTransaction(state, transaction);
  if (outcome === 'counted' && known === undefined) {
    applyDecision(state, index, decision);
  } else if (outcome === 'counted' && known !== undefined) {
    const { responseCode, authorizationCode, at: decidedAt, holdExpiresAt } = decision;
    const effects = applyEffects(state, index, decision);
    state.redecideTransaction({ ...known, responseCode, authorizationCode, decidedAt, holdExpiresAt, ...effects });
    addAttempt(state, { index, transaction, attempt });
  } else if (outcome === 'same' && known !== undefined) {
    // The owner's DE 38 went nowhere when the stand-in answered its only attempt: completions will name the other one.
    const unheard = attemptsOf(state, known).every((each) => each === attempt);
    if (unheard) state.redecideTransaction({ ...known, authorizationCode: decision.authorizationCode });
    addAttempt(state, { index, transaction, attempt });
  }
  state.addStandIn({
    attempt,
    index,
    node: entry.node,
    sequence: entry.sequence,
    card: request.card,
    key: request.key,
    outcome,
    transaction: known?.index ?? (outcome === 'counted' ? index : 0),
    amount: BigInt(entry.amount),
    overspent: BigInt(entry.overspent),
    approvedAt: decision.at,
    enteredAt: entry.at,
  });
}

// ---- R12: ranges that move (switch/range-moves.ts) -----------------------------------------------------------------

function applyRangeOut(state: LedgerState, index: number, entry: RangeOutEntry): void {
  const { move, prefix, nested, to: other, configIndex } = entry;
  if (state.rangeMove(move) !== undefined) return;
  for (const mark of dividedMarks(state.imports(), entry)) state.putImport(mark);
  state.putRangeMove({
    move,
    direction: 'out',
    prefix,
    nested,
    other,
    index,
    endIndex: 0,
    parts: 0,
    cards: 0,
    through: '',
    hash: '',
    configIndex,
  });
}

function applyRangeLeave(state: LedgerState, index: number, entry: RangeLeaveEntry): void {
  const before = state.rangeMove(entry.move);
  assert(before?.direction === 'out' && before.endIndex === 0, `the range of move ${entry.move} is leaving`);
  for (const card of entry.cards) {
    state.leave(card, entry.move);
    for (const hold of state.standingHolds(card)) state.changeTransaction({ ...hold, state: 'moved' });
  }
  const { parts, cards } = before;
  const endIndex = entry.last ? index : 0;
  state.putRangeMove({
    ...before,
    parts: parts + 1,
    cards: cards + entry.cards.length,
    through: entry.through,
    endIndex,
  });
}

/** The move as it was before this entry; its first one begins it. */
function incoming(state: LedgerState, index: number, entry: RangeRowsEntry | RangeInEntry): RangeMoveRow {
  const { move, prefix, from: other, configIndex } = entry;
  const before = state.rangeMove(move);
  assert(before === undefined || (before.direction === 'in' && before.endIndex === 0), `move ${move} is coming in`);
  const begun = { direction: 'in', index, endIndex: 0, parts: 0, cards: 0, through: '', hash: '' } as const;
  return { ...begun, ...before, move, prefix, nested: [], other, configIndex };
}

function applyRangeRows(state: LedgerState, index: number, entry: RangeRowsEntry): void {
  const before = incoming(state, index, entry);
  const { part, cards, through, rows } = entry;
  assert(part === before.parts + 1, `part ${part} of move ${entry.move} follows part ${before.parts}`);
  state.takeRows(index, rows);
  const hash = hashOfRows(before.hash, rows);
  state.putRangeMove({ ...before, parts: part, cards: before.cards + cards, through, hash });
}

function applyRangeIn(state: LedgerState, index: number, entry: RangeInEntry): void {
  const before = incoming(state, index, entry);
  const { parts, cards, hash } = entry;
  const isWhole = before.parts === parts && before.cards === cards && before.hash === hash;
  assert(isWhole, `move ${entry.move} has brought all ${cards} cards`);
  state.putRangeMove({ ...before, endIndex: index });
}
