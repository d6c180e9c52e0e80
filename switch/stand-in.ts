import type { RangeLimitRow } from '../config-db/rows.ts';
import type { StandIn } from '../store/edge-store.ts';
import type { DecisionEntry } from '../store/entry.ts';
import type { CardRow } from '../store/cards.ts';
import { countUsage } from '../store/ledger.ts';
import { decide, type DecisionContext } from './authorizer.ts';
import type { SwitchRequest } from './request.ts';

/** What an edge goes by when it approves in the place of an owner that cannot be reached. */
export interface StandInContext extends Omit<DecisionContext, 'durability' | 'judged'> {
  /** This edge's own approvals that no log has yet. */
  readonly own: readonly StandIn[];
  /** How many of them there may be, and their sum in minor units of one currency; 0: none. */
  readonly maximumCount: number;
  readonly maximumMinor: bigint;
}

export type StandInReason =
  | 'purchases only'
  | 'the copy here declines it'
  | 'the range has no stand-in'
  | 'floor limit'
  | 'count of the card'
  | 'amount of the card'
  | 'count of the node'
  | 'amount of the node';

export type StandInDecision =
  | { readonly kind: 'approved'; readonly decision: DecisionEntry; readonly currency: string }
  | { readonly kind: 'refused'; readonly reason: StandInReason };

interface Candidate {
  readonly context: StandInContext;
  readonly limits: RangeLimitRow | undefined;
  /** What it is to hold or post, in the card's currency. */
  readonly billed: bigint;
  /** With this one: the card's own approvals, and all of the currency or of the node. */
  readonly cardCount: number;
  readonly cardMinor: bigint;
  readonly nodeCount: number;
  readonly nodeMinor: bigint;
}

/** Whether `value` is beyond a limit that may be missing; a missing one allows nothing. */
function exceeds(value: bigint, limit: bigint | number | null | undefined): boolean {
  return limit === null || limit === undefined || value > BigInt(limit);
}

/** The first that applies is the reason not to approve. */
export const standInRules: readonly {
  readonly reason: StandInReason;
  readonly applies: (candidate: Candidate) => boolean;
}[] = [
  {
    reason: 'the range has no stand-in',
    applies: ({ limits }) =>
      [limits?.stand_in_floor_minor, limits?.stand_in_card_count, limits?.stand_in_card_minor].some(
        (limit) => limit === null || limit === undefined,
      ),
  },
  { reason: 'floor limit', applies: ({ limits, billed }) => exceeds(billed, limits?.stand_in_floor_minor) },
  {
    reason: 'count of the card',
    applies: ({ limits, cardCount }) => exceeds(BigInt(cardCount), limits?.stand_in_card_count),
  },
  { reason: 'amount of the card', applies: ({ limits, cardMinor }) => exceeds(cardMinor, limits?.stand_in_card_minor) },
  { reason: 'count of the node', applies: ({ context, nodeCount }) => nodeCount > context.maximumCount },
  { reason: 'amount of the node', applies: ({ context, nodeMinor }) => nodeMinor > context.maximumMinor },
];

/**
 * Decides a purchase by this node's own copy of the fold. All rules of an owner apply, with this edge's earlier approvals
 * counted in: a card that the copy shows blocked, lost, stolen, closed, expired, unknown, over its limits or without
 * enough left is never approved, nor is a request that the copy knows already. Beyond that the range's and the node's own
 * limits bound what can be lost, because the copy may be old and other nodes may approve the same card meanwhile.
 */
export function decideStandIn(request: SwitchRequest, context: StandInContext): StandInDecision {
  const refused = (reason: StandInReason): StandInDecision => ({ kind: 'refused', reason });
  const purchase = request.mtiClass === '0100' || request.mtiClass === '0200';
  if (!purchase || !request.processingCode.startsWith('00')) return refused('purchases only');
  const card = context.ledger.cardByPanHash(context.panHash);
  const ofCard = context.own.filter(({ decision }) => decision.request.card === card?.cardId);
  const judged = (row: CardRow): CardRow => ofCard.reduce(withApproval, row);
  const decided = decide(request, { ...context, durability: 'quorum', judged });
  const entry = decided.kind === 'decided' && decided.entry.kind === 'decision' ? decided.entry : undefined;
  if (card === undefined || entry?.responseCode !== '00') return refused('the copy here declines it');

  const billed = amountOf(entry);
  const ofCurrency = context.own.filter(({ currency }) => currency === card.currency);
  const candidate: Candidate = {
    context,
    limits: context.limits(card.currency),
    billed,
    cardCount: ofCard.length + 1,
    cardMinor: sumOf(ofCard) + billed,
    nodeCount: context.own.length + 1,
    nodeMinor: sumOf(ofCurrency) + billed,
  };
  const rule = standInRules.find(({ applies }) => applies(candidate));
  return rule === undefined ? { kind: 'approved', decision: entry, currency: card.currency } : refused(rule.reason);
}

/** The card as an owner will have it when it has entered the approval. */
function withApproval(card: CardRow, { decision }: StandIn): CardRow {
  const hold = BigInt(decision.hold);
  const post = BigInt(decision.post);
  const after = { ...card, held: card.held + hold, posted: card.posted + post };
  return countUsage(after, decision.request.businessDate, hold + post);
}

function amountOf({ hold, post }: DecisionEntry): bigint {
  return BigInt(hold) + BigInt(post);
}

function sumOf(standIns: readonly StandIn[]): bigint {
  return standIns.reduce((sum, { decision }) => sum + amountOf(decision), 0n);
}
