import type { GroupId, NodeId } from '../../base/identifiers.ts';

/**
 * What its range promises an acquirer: `quorum` and `local` as the rules have it; `stand-in`, a `quorum` range whose
 * purchases an edge may approve by itself while there is no owner.
 */
export type Promised = 'quorum' | 'local' | 'stand-in';

/** What an acquirer has sent once, and what came of it. */
export interface Exchange {
  readonly kind: 'request' | 'reversal' | 'completion';
  /** Duplicate key of the message. */
  readonly key: string;
  /** The node that it was sent to. */
  readonly node: NodeId;
  readonly sentMs: number;
  /** Undefined: nothing yet, or nothing ever. */
  answer: { readonly atMs: number; readonly responseCode: string; readonly authorizationCode: string } | undefined;
  /** The acquirer waits for it no longer: it was answered, or is taken for lost. */
  over: boolean;
}

/** One purchase as its acquirer's journal has it: all that the acquirer knows. */
export interface Purchase {
  readonly number: number;
  readonly pan: string;
  readonly group: GroupId;
  readonly promise: Promised;
  readonly amount: bigint;
  /** What its completion asks for, when there is one. */
  readonly completedAmount: bigint;
  readonly exchanges: Exchange[];
}

/** An edge could not bring the request to an owner in time. */
export const inoperative = '91';
export const approved = '00';

/** DE 38 of the approvals that were received, each once, in order. */
export function approvalsOf(purchase: Purchase): readonly string[] {
  const codes = answersTo(purchase, 'request')
    .filter(({ responseCode }) => responseCode === approved)
    .map(({ authorizationCode }) => authorizationCode);
  return [...new Set(codes)];
}

/** Whether a message of this kind was answered with 00. */
export function isConfirmed(purchase: Purchase, kind: Exchange['kind']): boolean {
  return answersTo(purchase, kind).some(({ responseCode }) => responseCode === approved);
}

export function wasSent(purchase: Purchase, kind: Exchange['kind']): boolean {
  return purchase.exchanges.some((exchange) => exchange.kind === kind);
}

/** Whether the request was declined by an owner: the last word on it, unless an approval came too. */
export function isDeclined(purchase: Purchase): boolean {
  return answersTo(purchase, 'request').some(
    ({ responseCode }) => responseCode !== approved && responseCode !== inoperative,
  );
}

export function answersTo(purchase: Purchase, kind: Exchange['kind']): readonly NonNullable<Exchange['answer']>[] {
  return purchase.exchanges.flatMap((exchange) =>
    exchange.kind === kind && exchange.answer !== undefined ? [exchange.answer] : [],
  );
}
