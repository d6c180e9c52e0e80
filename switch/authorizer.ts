import type { Random } from '../base/random.ts';
import { moreRestrictive, responseCodeOfStatus } from '../store/card-status.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow } from '../config-db/rows.ts';
import type { AttemptEntry, DecisionEntry, Durability, RequestRecord, ReversalEntry } from '../store/entry.ts';
import type { CardRow } from '../store/cards.ts';
import { isApproval, openToBuy, usageDateOf, type LedgerReader, type TransactionRow } from '../store/ledger.ts';
import { findHold, matchReversal, standsAlready, tombstoneOf, wasReversedBefore } from './matching.ts';
import { duplicateKey, purposeOf, type SwitchRequest } from './request.ts';

/** Everything that a decision is made from besides the request: nothing else is read, and nothing is changed. */
export interface DecisionContext {
  readonly ledger: LedgerReader;
  /** Keyed hash of the request's card number. */
  readonly panHash: string;
  readonly range: PanRangeRow;
  readonly limits: (currency: string) => RangeLimitRow | undefined;
  /** The most at once at a kind of merchant (DE 18) for a card of the range; undefined: no such limit. */
  readonly merchantLimit: (category: string, currency: string) => bigint | undefined;
  readonly link: AcquirerLinkRow;
  readonly configIndex: number;
  readonly durability: Durability;
  readonly attempt: string;
  /** Wall clock, milliseconds since 1970. */
  readonly at: number;
  readonly random: Random;
  /** The card as it is to be judged, where the ledger does not have all of it: an edge's own approvals. */
  readonly judged?: (card: CardRow) => CardRow;
}

export type Decision =
  /** To be appended; the answer leaves when the entry is as durable as its range asks (R2). */
  | { readonly kind: 'decided'; readonly entry: DecisionEntry | ReversalEntry }
  /** The request was decided before: its stored answer, as soon as entry `index` is durable by the same rule (R2, R4). */
  | { readonly kind: 'stored'; readonly index: number; readonly answer: DecidedAnswer }
  /** The same, and it approves: this attempt is entered first, and the answer waits for that entry (R5). */
  | { readonly kind: 'repeated'; readonly entry: AttemptEntry; readonly answer: DecidedAnswer }
  /** The edge has answered 91 to this very attempt and has said so: nobody would take an answer (R5). */
  | { readonly kind: 'given-up' }
  /** An answer that leaves no trace, because every repeat gets it again. */
  | { readonly kind: 'refused'; readonly responseCode: string; readonly reason: string };

/** The decided fields of an answer; everything else is echoed from the request at hand (R4). */
export interface DecidedAnswer {
  /** DE 39 */ readonly responseCode: string;
  /** DE 38, or '' */ readonly authorizationCode: string;
  /** DE 54, or '' */ readonly additionalAmounts: string;
}

/** An answer that only says no. */
export function refusal(responseCode: string): DecidedAnswer {
  return { responseCode, authorizationCode: '', additionalAmounts: '' };
}

/** The decided fields of an entry or of a stored transaction, and nothing else of it: this is what leaves the owner. */
export function answerOf(
  decided: DecisionEntry | ReversalEntry | Pick<TransactionRow, keyof DecidedAnswer>,
): DecidedAnswer {
  if ('kind' in decided && decided.kind === 'reversal') return refusal(decided.responseCode);
  const { responseCode, authorizationCode, additionalAmounts } = decided;
  return { responseCode, authorizationCode, additionalAmounts };
}

/** DE 39 for a request whose transaction was reversed or has expired, and for one whose reversal came first. */
const alreadyReversed = '94';
const duplicateOfAnother = '94';

const dayMs = 86_400_000;

/** Decides one request. Pure: the same request, ledger, configuration, time and chance give the same decision. */
export function decide(request: SwitchRequest, context: DecisionContext): Decision {
  if (context.ledger.undeliveredAttempt(context.attempt) !== undefined) return { kind: 'given-up' };
  const row = context.ledger.cardByPanHash(context.panHash);
  const card = row && restricted(context.judged?.(row) ?? row, request);
  const key = duplicateKey(request);
  const known = context.ledger.transactionByKey(key);
  if (known !== undefined) return answerRepeat(request, card, known, context);
  if (!mayUse(context.link, request.acquirer)) {
    return { kind: 'refused', responseCode: '58', reason: 'DE 32 is not one that the link may use' };
  }
  const record = recordOf(request, key, card);
  const entry =
    request.mtiClass === '0400' || request.mtiClass === '0420'
      ? decideReversal(request, record, card, context)
      : decideTransaction(request, record, card, context);
  return { kind: 'decided', entry };
}

/** What an edge knows against the card counts although the log does not have it yet (R11). */
function restricted(card: CardRow, { restriction }: SwitchRequest): CardRow {
  return restriction === undefined ? card : { ...card, status: moreRestrictive(card.status, restriction) };
}

function answerRepeat(
  request: SwitchRequest,
  card: CardRow | undefined,
  known: TransactionRow,
  context: DecisionContext,
): Decision {
  if (!isSameRequest(known.request, request, card)) {
    return { kind: 'refused', responseCode: duplicateOfAnother, reason: 'same key, other card or amount' };
  }
  // An advice is acknowledged always: that approves nothing, and its sender would go on sending it.
  const over = known.state === 'reversed' || known.state === 'expired';
  if (over && !isAdvice(request)) {
    return { kind: 'stored', index: known.index, answer: refusal(alreadyReversed) };
  }
  const answer = answerOf(known);
  const { attempt, at, durability } = context;
  if (!mayBeUndelivered(request) || known.billed === 0n || known.attempt === attempt) {
    return { kind: 'stored', index: known.index, answer };
  }
  const before = context.ledger.repeatAttempts(known.index).find((row) => row.attempt === attempt);
  if (before !== undefined) return { kind: 'stored', index: before.index, answer };
  const { key } = known.request;
  return {
    kind: 'repeated',
    entry: { kind: 'attempt', at, durability, key, transaction: known.index, attempt },
    answer,
  };
}

/** Whether a request with the duplicate key of `before` is that request: same card, same amount. */
export function isSameRequest(before: RequestRecord, request: SwitchRequest, card: CardRow | undefined): boolean {
  if (before.card !== '' && before.card !== card?.cardId) return false;
  return before.amount === request.amount.toString() && before.currency === request.currency;
}

/**
 * Whether an approval of the request places or posts money that must not stand when its answer was not delivered (R5).
 * An advice has happened already, and a reversal takes money back only: their senders repeat them until they are
 * acknowledged, and the repeat finds the first one.
 */
export function mayBeUndelivered({ mtiClass, processingCode }: SwitchRequest): boolean {
  const purpose = purposeOf(processingCode);
  return (
    (mtiClass === '0100' && purpose === 'debit') ||
    (mtiClass === '0200' && (purpose === 'debit' || purpose === 'refund'))
  );
}

function isAdvice({ mtiClass }: SwitchRequest): boolean {
  return mtiClass === '0120' || mtiClass === '0220';
}

export function mayUse(link: AcquirerLinkRow, acquirer: string): boolean {
  const allowed = link.acquiring_institutions;
  return allowed === '*' || allowed.split(',').includes(acquirer);
}

export function recordOf(request: SwitchRequest, key: string, card: CardRow | undefined): RequestRecord {
  return {
    key,
    mtiClass: request.mtiClass,
    link: request.link,
    card: card?.cardId ?? '',
    acquirer: request.acquirer,
    terminal: request.terminal,
    merchant: request.merchant,
    stan: request.stan,
    transmission: request.transmission,
    rrn: request.rrn,
    processingCode: request.processingCode,
    amount: request.amount.toString(),
    currency: request.currency,
    businessDate: request.businessDate,
  };
}

// ---- authorizations, financial requests, advices ---------------------------------------------------------------------

/** What the decline rules look at. */
interface Candidate {
  readonly request: SwitchRequest;
  readonly context: DecisionContext;
  readonly card: CardRow | undefined;
  /** Request amount in the card's currency; undefined when nobody has converted it. */
  readonly billed: bigint | undefined;
  /** Whether the card is to be charged: limits and open-to-buy count. */
  readonly debit: boolean;
}

/** When several rules would decline, the first one in this table gives the response code. */
export const declineRules: readonly {
  readonly responseCode: string;
  readonly reason: string;
  readonly applies: (candidate: Candidate) => boolean;
}[] = [
  { responseCode: '92', reason: 'no range for the card', applies: ({ context }) => context.range.prefix === '' },
  { responseCode: '14', reason: 'card not on file', applies: ({ card }) => card === undefined },
  ...(['14', '43', '41', '62'] as const).map((responseCode) => ({
    responseCode,
    reason: 'status of the card',
    applies: ({ card }: Candidate) => card !== undefined && responseCodeOfStatus(card.status) === responseCode,
  })),
  {
    responseCode: '54',
    reason: 'card expired, or another expiry than on file',
    applies: ({ card, request, context }) =>
      card !== undefined &&
      (card.expiry < monthThatIsOverNowhere(context.at) || (request.expiry !== '' && request.expiry !== card.expiry)),
  },
  { responseCode: '57', reason: 'currency of the card', applies: ({ billed, debit }) => debit && billed === undefined },
  {
    responseCode: '57',
    reason: 'currency of the card',
    applies: ({ billed, request }) => purposeOf(request.processingCode) === 'refund' && billed === undefined,
  },
  {
    responseCode: '61',
    reason: 'sums of the card',
    applies: ({ card, billed, debit, request }) =>
      card !== undefined &&
      billed !== undefined &&
      (debit || purposeOf(request.processingCode) === 'refund') &&
      wouldOverflow(card, billed),
  },
  {
    responseCode: '61',
    reason: 'amount limit of the range',
    applies: (candidate) => exceedsAmountLimit(candidate),
  },
  {
    responseCode: '61',
    reason: 'amount limit of the range for the merchant category',
    applies: ({ debit, billed, card, context, request }) => {
      const maximum = card && context.merchantLimit(request.merchantCategory, card.currency);
      return debit && billed !== undefined && maximum !== undefined && billed > maximum;
    },
  },
  {
    responseCode: '65',
    reason: 'count limit of the range',
    applies: ({ debit, card, context, request }) => {
      const most = card === undefined ? undefined : context.limits(card.currency)?.daily_maximum_count;
      return debit && most !== undefined && most !== null && usageOf(card, request).count + 1 > most;
    },
  },
  {
    responseCode: '51',
    reason: 'open-to-buy',
    applies: ({ debit, billed, card }) => debit && card !== undefined && (billed ?? 0n) > openToBuy(card),
  },
];

/**
 * No sum of a card may come near what SQLite's integers hold: an entry that overflowed could be applied nowhere.
 * Nobody's card gets there but by millions of the largest amounts.
 */
const largestSum = 1n << 60n;

export function wouldOverflow(card: CardRow, billed: bigint): boolean {
  const posted = card.posted < 0n ? -card.posted : card.posted;
  return posted + billed > largestSum || card.held + billed > largestSum || card.usageAmount + billed > largestSum;
}

function exceedsAmountLimit({ debit, billed, card, context, request }: Candidate): boolean {
  const limits = card === undefined ? undefined : context.limits(card.currency);
  if (!debit || limits === undefined || billed === undefined) return false;
  const { transaction_maximum_minor: each, daily_maximum_minor: daily } = limits;
  return (each !== null && billed > each) || (daily !== null && usageOf(card, request).amount + billed > daily);
}

function usageOf(card: CardRow | undefined, request: SwitchRequest): { count: number; amount: bigint } {
  const none = { count: 0, amount: 0n };
  if (card === undefined) return none;
  const sameDay = card.usageDate === usageDateOf(card, request.businessDate);
  return sameDay ? { count: card.usageCount, amount: card.usageAmount } : none;
}

/**
 * YYMM of the month that it is at the westernmost clocks (UTC-12): a card is valid to the end of its month where it is
 * used, and the switch is told no time zone. Years are of this century, as in DE 14.
 */
function monthThatIsOverNowhere(atMs: number): string {
  const date = new Date(atMs - 12 * 3_600_000).toISOString();
  return date.slice(2, 4) + date.slice(5, 7);
}

function decideTransaction(
  request: SwitchRequest,
  record: RequestRecord,
  card: CardRow | undefined,
  context: DecisionContext,
): DecisionEntry {
  const advice = isAdvice(request);
  const purpose = purposeOf(request.processingCode);
  const billed = card === undefined ? undefined : billedAmount(request, card);
  const reversedBefore = card !== undefined && wasReversedBefore(record, card.cardId, context.ledger);
  const nothing: DecisionEntry = {
    kind: 'decision',
    at: context.at,
    configIndex: context.configIndex,
    durability: context.durability,
    attempt: context.attempt,
    request: record,
    responseCode: '00',
    authorizationCode: advice ? request.authorizationCode : '',
    additionalAmounts: '',
    hold: '0',
    holdExpiresAt: 0,
    post: '0',
    completes: 0,
  };

  if (advice) {
    // It has already happened: recorded and acknowledged whatever the rules say. It moves no money when it tells of
    // a decline, when it was reversed before it came, or when there is no card or no amount in its currency.
    const declinedThere = request.responseCode !== '' && !isApproval(request.responseCode);
    if (card === undefined || billed === undefined || reversedBefore || declinedThere || wouldOverflow(card, billed)) {
      return nothing;
    }
    return { ...nothing, ...adviceEffects(request, record, card, billed, context) };
  }

  if (reversedBefore) return { ...nothing, responseCode: alreadyReversed };
  const debit = purpose === 'debit';
  const failed = declineRules.find((rule) => rule.applies({ request, context, card, billed, debit }));
  if (failed !== undefined || card === undefined) return { ...nothing, responseCode: failed?.responseCode ?? '14' };
  const approved: DecisionEntry = { ...nothing, authorizationCode: authorizationCode(context.random) };
  if (purpose === 'balance-inquiry') return { ...approved, additionalAmounts: availableBalance(card) };
  if (request.mtiClass === '0100') return debit ? { ...approved, ...placeHold(billed ?? 0n, context) } : approved;
  const post = debit ? (billed ?? 0n) : purpose === 'refund' ? -(billed ?? 0n) : 0n;
  return { ...approved, post: post.toString() };
}

function adviceEffects(
  request: SwitchRequest,
  record: RequestRecord,
  card: CardRow,
  billed: bigint,
  context: DecisionContext,
): Partial<DecisionEntry> {
  const purpose = purposeOf(request.processingCode);
  if (request.mtiClass === '0120') return purpose === 'debit' ? placeHold(billed, context) : {};
  if (purpose === 'refund') return { post: (-billed).toString() };
  if (purpose !== 'debit') return {};
  const post = billed.toString();
  const hold = findHold(record, request.authorizationCode, card.cardId, context.ledger);
  return hold === undefined ? { post } : { post, completes: hold.index, completesKey: hold.request.key };
}

export function placeHold(billed: bigint, context: DecisionContext): Pick<DecisionEntry, 'hold' | 'holdExpiresAt'> {
  return { hold: billed.toString(), holdExpiresAt: context.at + context.range.hold_days * dayMs };
}

/** DE 4 when it is in the card's currency, else DE 6 when DE 51 is; else nobody has converted it. */
export function billedAmount(request: SwitchRequest, card: CardRow): bigint | undefined {
  if (request.currency === card.currency) return request.amount;
  return request.billing?.currency === card.currency ? request.billing.amount : undefined;
}

/** DE 54: default account, available balance (type 02), currency, sign, twelve digits. */
function availableBalance(card: CardRow): string {
  const available = openToBuy(card);
  const size = available < 0n ? -available : available;
  const shown = size > 999_999_999_999n ? 999_999_999_999n : size;
  return `0002${card.currency}${available < 0n ? 'D' : 'C'}${shown.toString().padStart(12, '0')}`;
}

export function authorizationCode(random: Random): string {
  return String(random.below(1_000_000)).padStart(6, '0');
}

// ---- reversals -------------------------------------------------------------------------------------------------------

function decideReversal(
  request: SwitchRequest,
  record: RequestRecord,
  card: CardRow | undefined,
  context: DecisionContext,
): ReversalEntry {
  const unmatched = request.mtiClass === '0400' ? context.link.unmatched_reversal_request_code : '00';
  const entry: ReversalEntry = {
    kind: 'reversal',
    at: context.at,
    configIndex: context.configIndex,
    durability: context.durability,
    attempt: context.attempt,
    request: record,
    responseCode: unmatched,
    original: 0,
    remaining: '0',
    tombstone: undefined,
  };
  if (card === undefined) return entry;
  const match = matchReversal(record, request.originalDataElements, card.cardId, context.ledger);
  switch (match.kind) {
    case 'live': {
      const { index: original, request: reversed } = match.row;
      const remaining = remainingOf(request, match.row);
      return { ...entry, responseCode: '00', original, originalKey: reversed.key, remaining };
    }
    case 'settled':
      return { ...entry, responseCode: '00', original: match.row.index, originalKey: match.row.request.key };
    case 'several':
    case 'completed':
      return entry;
    case 'none': {
      const tombstone = tombstoneOf(record, request.originalDataElements);
      return standsAlready(record, tombstone, card.cardId, context.ledger) ? entry : { ...entry, tombstone };
    }
  }
}

/** What DE 95 leaves, in billing currency: its share of the amount that was billed, rounded half up. */
function remainingOf(request: SwitchRequest, original: TransactionRow): string {
  const replacement = request.replacementAmount ?? 0n;
  const amount = BigInt(original.request.amount);
  if (replacement === 0n || amount === 0n) return '0';
  return ((original.billed * replacement * 2n + amount) / (amount * 2n)).toString();
}
