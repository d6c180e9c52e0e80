import type { JournalLine, RequestLine } from './journal.ts';
import { isApproval } from './load-summary.ts';

/**
 * What an outage was like for the acquirer, from its own journal alone: nothing here asks the switch. Times are the
 * journal's, epoch milliseconds; a window counts from its first millisecond to the one before its last.
 */
export interface Exchange {
  /** As first sent. */
  readonly request: RequestLine;
  readonly sentAtMs: number;
  /** When the answer that counted came, and its DE 39; undefined: none did. */
  readonly answeredAtMs: number | undefined;
  readonly responseCode: string | undefined;
}

export interface Window {
  readonly fromMs: number;
  readonly toMs: number;
}

export type IsConcerned = (request: RequestLine) => boolean;

/** Requests with what became of them, in the order of first sending. Repeats belong to their request. */
export function exchangesOf(lines: Iterable<JournalLine>): readonly Exchange[] {
  const exchanges = new Map<string, { -readonly [Key in keyof Exchange]: Exchange[Key] }>();
  for (const line of lines) {
    if (line.kind === 'request' && !exchanges.has(line.id)) {
      const sentAtMs = Date.parse(line.sentAt);
      exchanges.set(line.id, { request: line, sentAtMs, answeredAtMs: undefined, responseCode: undefined });
    } else if (line.kind === 'answer' && line.late !== true) {
      const exchange = exchanges.get(line.id);
      if (exchange === undefined || exchange.answeredAtMs !== undefined) continue;
      exchange.answeredAtMs = Date.parse(line.answeredAt);
      exchange.responseCode = line.fields['39'] ?? '';
    }
  }
  return [...exchanges.values()];
}

/**
 * The longest time within the window in which no concerned request was approved, its ends included: an outage that has
 * not ended by then counts to the end.
 */
export function longestGapMs(exchanges: readonly Exchange[], isConcerned: IsConcerned, window: Window): number {
  const approved = exchanges
    .flatMap((exchange) => (isApproved(exchange) && isConcerned(exchange.request) ? [exchange.answeredAtMs] : []))
    .filter((atMs) => atMs >= window.fromMs && atMs < window.toMs)
    .sort((one, other) => one - other);
  let lastMs = window.fromMs;
  let longestMs = 0;
  for (const atMs of [...approved, window.toMs]) {
    longestMs = Math.max(longestMs, atMs - lastMs);
    lastMs = atMs;
  }
  return longestMs;
}

/**
 * When the first concerned request was approved that was sent at `atMs` or later; undefined: none was. Approvals of what
 * was sent before say nothing: an owner that is gone by `atMs` may still have given them.
 */
export function firstApprovalAfter(
  exchanges: readonly Exchange[],
  atMs: number,
  isConcerned: IsConcerned,
): number | undefined {
  let first: number | undefined;
  for (const exchange of exchanges) {
    if (exchange.sentAtMs < atMs || !isApproved(exchange) || !isConcerned(exchange.request)) continue;
    if (first === undefined || exchange.answeredAtMs < first) first = exchange.answeredAtMs;
  }
  return first;
}

export interface Service {
  /** Requests first sent in the window. */
  readonly requests: number;
  /** Of those: no answer within the deadline, from the first sending on. */
  readonly beyondDeadline: number;
  /** Of those: answered 91, the switch could not decide. */
  readonly inoperative: number;
  /** From first sending to answer, repeats included, sorted. */
  readonly latenciesMs: readonly number[];
}

/** How the requests of a window were served. */
export function serviceIn(
  exchanges: readonly Exchange[],
  window: Window,
  deadlineMs: number,
  isConcerned: IsConcerned = () => true,
): Service {
  const sent = exchanges.filter(
    ({ request, sentAtMs }) => sentAtMs >= window.fromMs && sentAtMs < window.toMs && isConcerned(request),
  );
  const latenciesMs = sent.flatMap(({ sentAtMs, answeredAtMs }) =>
    answeredAtMs === undefined ? [] : [answeredAtMs - sentAtMs],
  );
  return {
    requests: sent.length,
    beyondDeadline: sent.length - latenciesMs.filter((latencyMs) => latencyMs <= deadlineMs).length,
    inoperative: sent.filter(({ responseCode }) => responseCode === '91').length,
    latenciesMs: latenciesMs.sort((one, other) => one - other),
  };
}

/** The value that the fraction `quantile` of sorted values does not exceed; 0 when there is none. */
export function quantileOf(sorted: readonly number[], quantile: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * quantile) - 1)] ?? 0;
}

function isApproved(exchange: Exchange): exchange is Exchange & { readonly answeredAtMs: number } {
  return exchange.answeredAtMs !== undefined && isApproval(exchange.responseCode ?? '');
}
