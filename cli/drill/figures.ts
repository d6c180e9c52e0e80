import type { Verdict } from '../../compare/report.ts';
import { firstApprovalAfter, longestGapMs, quantileOf, serviceIn } from '../acquirer/outage.ts';
import type { Exchange, IsConcerned, Window } from '../acquirer/outage.ts';
import { isApproval } from '../acquirer/load-summary.ts';

/** What one run of a drill was like, from the acquirer's own journal. Pure: nothing here asks the switch. */

/** Approvals that some node lacks, has twice, or has otherwise than the acquirer was told. */
export interface Findings {
  readonly approvals: number;
  readonly missing: number;
  readonly doubled: number;
  readonly contradicted: number;
}

/** Requests whose answers cannot both be right, by the journal: approved twice with different DE 38, or also declined. */
export interface Contradictions {
  readonly approvedTwice: number;
  readonly others: number;
}

/** All journals against all nodes, at the end. */
export interface FinalFindings {
  readonly quorum: Findings;
  readonly local: Findings;
  /**
   * Cards of `quorum` ranges whose holds or postings are not what the journals add up to, over all nodes, and of
   * `local` ones. Undefined: the journals do not tell all that happened to the cards.
   */
  readonly wrongBalances: number | undefined;
  readonly wrongLocalBalances: number | undefined;
  /** Approvals that edges had still to take back or to have entered after a minute without load: what they concern is not judged yet. */
  readonly undelivered: number;
}

/** Epoch milliseconds, by the clock that the journal has its times of. */
export interface Moments {
  /** Just before the fault, and when all of it had happened. */
  readonly faultMs: number;
  readonly doneMs: number;
  /** Just before it was ended. */
  readonly endedMs: number;
  /** Everything was as before. */
  readonly returnedMs: number;
}

export interface Latencies {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly maximum: number;
}

/** Requests first sent in a slice of time, relative to the fault. */
export interface Slice {
  readonly atMs: number;
  readonly requests: number;
  /** Of the cards concerned. */
  readonly approved: number;
  /** None: nothing was answered. */
  readonly p50Ms: number | undefined;
  readonly maximumMs: number | undefined;
}

/** How a node that is cut off served its acquirers: requests first sent to it meanwhile. */
export interface CutOffService {
  readonly requests: number;
  readonly inTime: number;
  /** Within the acquirer's own timeout. */
  readonly inPatience: number;
  readonly inoperative: number;
  readonly approved: number;
}

export interface OutageFigures {
  /** From the fault to the first approval of a request sent since, in the group that waited longest. */
  readonly firstApprovalMs: number | undefined;
  /** Longest time without an approval of the cards concerned, from just before the fault until it was ended. */
  readonly gapMs: number;
  /** The same for the cards of the other groups; undefined: there are none. */
  readonly othersGapMs: number | undefined;
  /** The same for the cards concerned while everything returned. */
  readonly returnGapMs: number;
  /** From the end of the fault until everything was as before. */
  readonly returnedMs: number;
  /** Over the whole run; those that waited at a silent node are counted apart. */
  readonly requests: number;
  readonly beyondDeadline: number;
  readonly waitedAtSilentNode: number;
  readonly inoperative: number;
  /** Requests sent from just before the fault until everything was as before. */
  readonly latencyMs: Latencies;
  readonly cutOff: CutOffService | undefined;
  readonly slices: readonly Slice[];
}

/** What a run is judged from. */
export interface DrillRun extends OutageFigures {
  readonly run: number;
  readonly target: string;
  /** Groups whose cards are concerned. */
  readonly groups: readonly string[];
  /** Attempts that got no answer, and answers that were wrong in themselves. */
  readonly failedAttempts: number;
  readonly faultyAnswers: number;
  /** Answers that came after the acquirer had gone elsewhere. Allowed, and held against the answer that counted. */
  readonly lateAnswers: number;
  readonly unanswered: number;
  /** Of cards of `quorum` ranges, and of `local` ones. */
  readonly contradictions: { readonly quorum: Contradictions; readonly local: Contradictions };
  /** Groups whose owner or term is another than before the fault. */
  readonly ownersChanged: readonly string[];
  /** Nodes whose disk went back, and of those the ones that were seen not to vote until they were made anew. */
  readonly rebuilt: { readonly expected: number; readonly noticed: number };
  readonly quorum: Findings;
  readonly local: Findings;
  /** Of the answers of `local` ranges that nobody else had received. */
  readonly adopted: number;
  readonly voided: number;
  readonly compared: Verdict;
}

/** Beyond the deadline: an edge counts from when it has read the request, and looks for what is out of time now and then. */
const wayMs = 100;
/** Shown of the time before the fault. */
const beforeMs = 3_000;
const sliceMs = 100;
const mostSlices = 400;
/** Requests that were on their way to a node when it fell silent. */
const onTheWayMs = 1_000;

export interface Concern {
  readonly groups: readonly string[];
  readonly silent: readonly string[];
  readonly cutOff: readonly string[];
  /** By line of the card file. */
  readonly groupOfCard: ReadonlyMap<number, string>;
  readonly deadlineMs: number;
  /** How long the acquirer waits, deadline included. */
  readonly requestTimeoutMs: number;
  /** How long the load went on after everything was as before. */
  readonly afterwardsMs: number;
}

export function outageFigures(exchanges: readonly Exchange[], moments: Moments, concern: Concern): OutageFigures {
  const { faultMs, doneMs, endedMs, returnedMs } = moments;
  const { groups, groupOfCard, deadlineMs, afterwardsMs } = concern;
  const always: Window = { fromMs: 0, toMs: Infinity };
  const during: Window = { fromMs: faultMs - 1000, toMs: endedMs };
  const returning: Window = { fromMs: endedMs, toMs: returnedMs + afterwardsMs };
  const ofGroups: IsConcerned = ({ card }) => groups.includes(groupOfCard.get(card) ?? '');
  const withCards = new Set(groupOfCard.values());
  // An owner that is cut off answers its own acquirers for `local` ranges until its lease ends: no sign of recovery.
  const elsewhere = exchanges.filter(({ request }) => !concern.cutOff.includes(request.node));
  const firsts = groups
    .filter((group) => withCards.has(group))
    .map((group) => firstApprovalAfter(elsewhere, doneMs, ({ card }) => groupOfCard.get(card) === group));
  const known = firsts.filter((atMs) => atMs !== undefined);
  const atSilent = requestsAtSilentNodes(exchanges, moments, concern);
  const served = exchanges.filter((exchange) => !atSilent.has(exchange));
  const latencies = serviceIn(served, { fromMs: during.fromMs, toMs: returning.toMs }, Infinity).latenciesMs;
  return {
    firstApprovalMs: known.length < firsts.length || known.length === 0 ? undefined : Math.max(...known) - faultMs,
    gapMs: longestGapMs(exchanges, ofGroups, during),
    othersGapMs: [...withCards].every((group) => groups.includes(group))
      ? undefined
      : longestGapMs(exchanges, (request) => request.card !== 0 && !ofGroups(request), during),
    returnGapMs: longestGapMs(exchanges, ofGroups, returning),
    returnedMs: returnedMs - endedMs,
    requests: exchanges.length,
    beyondDeadline: serviceIn(served, always, deadlineMs + wayMs).beyondDeadline,
    waitedAtSilentNode: atSilent.size,
    inoperative: exchanges.filter(({ responseCode }) => responseCode === '91').length,
    latencyMs: {
      p50: quantileOf(latencies, 0.5),
      p99: quantileOf(latencies, 0.99),
      p999: quantileOf(latencies, 0.999),
      maximum: latencies.at(-1) ?? 0,
    },
    cutOff: cutOffService(exchanges, moments, concern),
    slices: slicesOf(exchanges, moments, afterwardsMs, ofGroups),
  };
}

/** Their acquirer waited for its own timeout: what they took says nothing of the switch. */
function requestsAtSilentNodes(
  exchanges: readonly Exchange[],
  { faultMs, endedMs }: Moments,
  { silent, deadlineMs }: Concern,
): ReadonlySet<Exchange> {
  // A node that runs on still has what it had taken in: until its deadline it is as good as silent.
  const untilMs = endedMs + deadlineMs;
  return new Set(
    exchanges.filter(
      ({ request, sentAtMs }) =>
        silent.includes(request.node) && sentAtMs >= faultMs - onTheWayMs && sentAtMs < untilMs,
    ),
  );
}

function cutOffService(
  exchanges: readonly Exchange[],
  { doneMs, endedMs }: Moments,
  { cutOff, deadlineMs, requestTimeoutMs }: Concern,
): CutOffService | undefined {
  if (cutOff.length === 0) return undefined;
  const those = exchanges.filter(
    ({ request, sentAtMs }) =>
      cutOff.includes(request.node) && request.card !== 0 && sentAtMs >= doneMs && sentAtMs < endedMs,
  );
  const within = (limitMs: number): number =>
    those.filter(({ sentAtMs, answeredAtMs }) => answeredAtMs !== undefined && answeredAtMs - sentAtMs <= limitMs)
      .length;
  return {
    requests: those.length,
    inTime: within(deadlineMs + wayMs),
    inPatience: within(requestTimeoutMs),
    inoperative: those.filter(({ responseCode }) => responseCode === '91').length,
    approved: those.filter(({ responseCode }) => isApproval(responseCode ?? '')).length,
  };
}

/** The time around the fault in slices; longer ones when it took long. */
function slicesOf(
  exchanges: readonly Exchange[],
  { faultMs, returnedMs }: Moments,
  afterwardsMs: number,
  isConcerned: IsConcerned,
): readonly Slice[] {
  const fromMs = faultMs - beforeMs;
  const lengthMs = returnedMs + afterwardsMs - fromMs;
  const widthMs = sliceMs * Math.max(1, Math.ceil(lengthMs / sliceMs / mostSlices));
  const slices = Array.from({ length: Math.max(1, Math.ceil(lengthMs / widthMs)) }, () => ({
    requests: 0,
    approved: 0,
    latencies: [] as number[],
  }));
  for (const exchange of exchanges) {
    const slice = slices[Math.floor((exchange.sentAtMs - fromMs) / widthMs)];
    if (slice === undefined) continue;
    slice.requests += 1;
    if (exchange.answeredAtMs !== undefined) slice.latencies.push(exchange.answeredAtMs - exchange.sentAtMs);
    if (isApproval(exchange.responseCode ?? '') && isConcerned(exchange.request)) slice.approved += 1;
  }
  return slices.map(({ requests, approved, latencies }, index) => {
    const sorted = latencies.sort((one, other) => one - other);
    return {
      atMs: index * widthMs - beforeMs,
      requests,
      approved,
      p50Ms: sorted.length === 0 ? undefined : quantileOf(sorted, 0.5),
      maximumMs: sorted.at(-1),
    };
  });
}
