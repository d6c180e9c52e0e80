/*
 * Over 500 lines because every way that a request can end at its edge is a state of the same pending request, and whoever
 * changes one has to see the others.
 */
import type { CardKeys } from '../base/card-keys.ts';
import type { Clock } from '../base/clock.ts';
import { whenReadable, type SwitchError } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Pan } from '../base/pan.ts';
import type { Random } from '../base/random.ts';
import { RecentMap } from '../base/recent-map.ts';
import type { ConfigurationView } from '../config-db/configuration-view.ts';
import type { PanRangeRow } from '../config-db/rows.ts';
import { moreRestrictive, responseCodeOfStatus, type CardStatus } from '../store/card-status.ts';
import type { EdgeStore, HeldRestriction, ReversalDue, StandIn } from '../store/edge-store.ts';
import type { DecisionEntry } from '../store/entry.ts';
import type { LedgerReader } from '../store/ledger.ts';
import { buildAnswer, buildRefusal, type Answerable } from './answer.ts';
import { answerOf, isSameRequest, mayBeUndelivered, type DecidedAnswer } from './authorizer.ts';
import { ClaimDesk, type SalvageSource } from './claim-desk.ts';
import { claimId, groupOf, type Claim, type ClaimOutcome } from './claims.ts';
import type { ForwardedAnswer, ForwardedRequest, Settlement } from './forward.ts';
import type { IsoMessage } from './iso8583/codec.ts';
import type { GroupOwner, OwnerOutcome } from './owner.ts';
import { duplicateKey, readRequest, type SwitchRequest } from './request.ts';
import { decideStandIn } from './stand-in.ts';

/** How this edge may approve by itself. */
export interface StandInOptions {
  readonly random: Random;
  /** The group must have been without a leader here for so long: longer than any takeover takes. */
  readonly afterMs: number;
  /** Approvals that no log has yet: how many, and their sum in minor units of each currency; 0: none. */
  readonly maximumCount: number;
  readonly maximumMinor: bigint;
}

export interface EdgeOptions {
  readonly self: NodeId;
  /** Grows with every start of this node: makes its attempts unique. */
  readonly boot: number;
  readonly clock: Clock;
  readonly configuration: () => ConfigurationView | undefined;
  readonly cardKeys: CardKeys;
  /** This node's copy of the group's fold; undefined when it is known to be no use. */
  readonly ledgerOf: (group: GroupId) => LedgerReader | undefined;
  /** The node that leads the group now, as far as this one knows. */
  readonly leaderOf: (group: GroupId) => NodeId | undefined;
  /** This node's own owner of the group. */
  readonly ownerOf: (group: GroupId) => GroupOwner | undefined;
  readonly forwarder: {
    sendRequest(to: NodeId, request: ForwardedRequest): void;
    sendAnswer(to: NodeId, answer: ForwardedAnswer): void;
    sendClaim(to: NodeId, claim: Claim): void;
    sendSettlement(to: NodeId, settlement: Settlement): void;
  };
  /** What must survive this process. */
  readonly store: EdgeStore;
  /** What this node's logs lost, to be offered to the owners of today. */
  readonly salvage?: SalvageSource;
  /** Absent: this edge approves nothing by itself. */
  readonly standIn?: StandInOptions;
  /** For requests of links that have no deadline of their own. */
  readonly requestDeadlineMs: number;
  readonly meter?: EdgeMeter;
}

/** Hears of every request that this edge brings to an owner; so it has to be quick. */
export interface EdgeMeter {
  /** It was answered. `asked`: the owner that had it last, if any. `durationMs`: since it was read. */
  answered(answered: {
    readonly attempt: string;
    readonly mti: string;
    readonly responseCode: string;
    readonly group: GroupId;
    readonly asked: NodeId | undefined;
    readonly durationMs: number;
  }): void;
  /** Answered 91 without having been brought to anybody. */
  refused(reason: string): void;
}

interface Unrouted {
  readonly message: IsoMessage;
  readonly link: string;
  readonly respond: (answer: IsoMessage) => void;
  readonly sinceMs: number;
  readonly deadlineMs: number;
}

interface Pending {
  readonly id: number;
  readonly message: Answerable;
  readonly request: SwitchRequest;
  /** Whose the card is, as far as this edge knows. */
  group: GroupId;
  /** Of the request at that group: another group gets another one, so that each knows whether it may have decided it. */
  attempt: string;
  /** Attempts at other groups, which had the card's range before (R12). */
  readonly before: { readonly group: GroupId; readonly attempt: string }[];
  readonly sinceMs: number;
  /** An answer that has not been handed to the connection by then is late. */
  readonly deadlineMs: number;
  /** From then on it is not tried again. */
  readonly giveUpMs: number;
  /** From when on this edge may approve it by itself. */
  standInMs: number;
  readonly respond: (answer: IsoMessage) => void;
  nextTryMs: number;
  /** Who has it now, as far as this edge knows; undefined after a bounce, and while nobody leads. */
  asked: NodeId | undefined;
  /** An owner may have decided it, or may yet: a datagram that was sent can arrive at any later time. */
  exposed: boolean;
  redirects: number;
}

/** Sent again after this long without an answer: datagrams get lost. */
const resendMs = 300;
/** Tried again after a bounce: the owner is coming up, or another is about to be it. */
const bounceRetryMs = 50;
/** Left of the deadline for an approval in stand-in, as a part of it and at least: for its sync. */
const standInReserve = 0.1;
const leastStandInReserveMs = 50;
/** The same for a 91: what was sent to an owner is synced as undelivered before (R5), and the 91 has to be in time itself. */
const refusalReserve = 0.05;
const leastRefusalReserveMs = 25;
/** A request follows its card to another group at once so often; then it waits a little before it does. */
const promptRedirects = 3;
/** Keys remembered to notice one that returns for a card of another owner. */
const rememberedKeys = 50_000;

/** DE 39: the owner of the card cannot be reached. */
const inoperative = '91';
const duplicate = '94';
const systemMalfunction = '96';

/**
 * The node that has the acquirer's connection: reads the request, finds the card's owner, brings the request there
 * and the answer back. Until shortly before the link's deadline it tries again: at once when the group has another owner, soon
 * after a bounce or while it has none. Then it answers 91, and whatever the owner still says is late and never delivered.
 *
 * A request keeps its attempt however often it is sent and to whom, so every owner of the log knows it for the same.
 *
 * An approval that was not delivered in time must not stand (R5): before it answers 91 to a request that an owner may
 * have decided, the edge syncs a *reversal due*, and brings that to the owner until it is entered. What is delivered in
 * this sense is what was handed to the acquirer's connection in time. Whether it was read there is not known to anybody:
 * when a connection is lost, the acquirer repeats the request and gets the stored answer, or reverses it. To take the
 * approval back from here, too, would undo one that the terminal may have printed.
 *
 * Stand-in: a purchase whose group has had no leader here for a while may be approved by this edge itself when its time
 * is nearly up, by its own copy of the fold and within limits (`stand-in.ts`). The approval is on disk before it is
 * answered, and is brought to the owner until that has entered it (`claims.ts`). The request may be with an owner that
 * lost its majority and commits it later: as an approval it is the same transaction, as a decline it is overruled, and
 * in neither case is a reversal due, for the acquirer has the approval. One that could not be answered in time is
 * withdrawn; one that this process did not live to answer counts, like any approval whose connection was lost.
 */
export class Edge {
  readonly #options: EdgeOptions;
  readonly #desk: ClaimDesk;
  /** Messages that came before there was a configuration to route them by. */
  #unrouted: Unrouted[] = [];
  readonly #pending = new Map<number, Pending>();
  readonly #rangeOfKey = new RecentMap<string, PanRangeRow>(rememberedKeys);
  /** Groups that have no leader here, since when. */
  readonly #leaderlessSince = new Map<GroupId, number>();
  #nextId = 1;
  #restrictions = 0;
  #lastTickMs: number;
  #late = 0;

  constructor(options: EdgeOptions) {
    this.#options = options;
    this.#lastTickMs = options.clock.monotonicMs();
    const { self, clock, store, salvage, leaderOf, ownerOf, forwarder, ledgerOf } = options;
    const sendClaim = (to: NodeId, claim: Claim): void => {
      forwarder.sendClaim(to, claim);
    };
    // The card's range may have moved since: the names of restrictions are nobody else's in any group.
    const hasRestriction = (group: GroupId, id: string): boolean =>
      [group, ...(options.configuration()?.orders.keys() ?? [])].some(
        (each) => whenReadable(() => ledgerOf(each)?.restriction(id) !== undefined) === true,
      );
    const cardGroups = (): readonly GroupId[] => [...(options.configuration()?.orders.keys() ?? [])];
    this.#desk = new ClaimDesk({
      self,
      clock,
      store,
      salvage,
      leaderOf,
      ownerOf,
      sendClaim,
      cardGroups,
      hasRestriction,
    });
  }

  /** Requests that wait for their owner. */
  get inFlight(): number {
    return this.#pending.size + this.#unrouted.length;
  }

  /** Answers of owners that came after their deadline. */
  get late(): number {
    return this.#late;
  }

  /** Undelivered approvals that are to be reversed, as far as no owner has confirmed it. */
  get reversalsDue(): number {
    return this.#desk.dues;
  }

  /** Reversals due that could not be written to disk, and would not survive this process. */
  get unsyncedReversals(): number {
    return this.#desk.unsynced;
  }

  /** This edge's own approvals that no log has yet. */
  get standIns(): readonly StandIn[] {
    return this.#desk.standIns;
  }

  /** Restrictions that were entered at this node and that no owner has entered yet. */
  get undeliveredRestrictions(): readonly HeldRestriction[] {
    return this.#desk.undeliveredRestrictions;
  }

  /**
   * Restricts a card at once, whoever leads its group and whether or not anybody does (R11): requests for it that come
   * through this node, or that this node decides as their owner, are declined from now on. `kept` and `entered` as
   * `ClaimDesk.restrict` calls them. Its name; undefined when no range has the card: then neither is called.
   */
  restrict(
    { pan, status, by }: { readonly pan: Pan; readonly status: CardStatus; readonly by: string },
    kept: (failure: SwitchError | undefined, id: string) => void,
    entered: (outcome: ClaimOutcome) => void,
  ): string | undefined {
    const { self, boot, clock, configuration, cardKeys } = this.#options;
    const range = configuration()?.rangeOf(pan);
    if (range === undefined || range.prefix === '') return undefined;
    this.#restrictions += 1;
    const id = `${self}.${boot}.r${this.#restrictions}`;
    const panHash = cardKeys.hash(pan);
    const group = this.#groupOfCard(panHash) ?? range.group_id;
    const restriction = { id, group, panHash, status, at: clock.wallMs(), by };
    this.#desk.restrict(restriction, kept, entered);
    return id;
  }

  /**
   * The group that has the card by this node's copies. An earlier number may be of a range that was divided off and moved
   * away from the card's present one.
   */
  #groupOfCard(panHash: string): GroupId | undefined {
    const { configuration, ledgerOf } = this.#options;
    return [...(configuration()?.orders.keys() ?? [])].find(
      (group) =>
        whenReadable(() => {
          const ledger = ledgerOf(group);
          const card = ledger?.cardByPanHash(panHash);
          return card !== undefined && ledger?.leftBy(card.cardId) === '';
        }) === true,
    );
  }

  /** Handles a message of an owner's class; calls `respond` exactly once. */
  handle(message: IsoMessage, link: string, respond: (answer: IsoMessage) => void): void {
    const { clock, configuration, requestDeadlineMs } = this.#options;
    const sinceMs = clock.monotonicMs();
    // What was read after a pause is refused below.
    if ((configuration() === undefined || !this.#desk.isLoaded) && sinceMs - this.#lastTickMs <= requestDeadlineMs) {
      this.#unrouted.push({ message, link, respond, sinceMs, deadlineMs: sinceMs + requestDeadlineMs });
    } else {
      this.#handle(message, link, respond, sinceMs);
    }
  }

  /**
   * A node that starts is open before it has its configuration and knows what it holds against cards: what comes then waits
   * for it, and gets 91 in time.
   */
  #routeWaiting(nowMs: number): void {
    const hasConfiguration = this.#options.configuration() !== undefined && this.#desk.isLoaded;
    for (const waiting of this.#unrouted.splice(0)) {
      const { message, link, respond, sinceMs, deadlineMs } = waiting;
      if (hasConfiguration) this.#handle(message, link, respond, sinceMs);
      else if (nowMs < deadlineMs) this.#unrouted.push(waiting);
      else {
        this.#options.meter?.refused('no configuration has been entered yet');
        respond(buildRefusal(message, inoperative));
      }
    }
  }

  #handle(message: IsoMessage, link: string, respond: (answer: IsoMessage) => void, sinceMs: number): void {
    const { clock, self, boot } = this.#options;
    const refuse = (responseCode: string): void => {
      respond(buildRefusal(message, responseCode));
    };
    const read = readRequest(message, link, businessDate(clock.wallMs()));
    if (read.kind === 'refused') {
      refuse(read.responseCode);
      return;
    }
    const configuration = this.#options.configuration();
    const nowMs = clock.monotonicMs();
    const deadlineMs = configuration?.link(link)?.deadline_ms ?? this.#options.requestDeadlineMs;
    // Read after a pause longer than the deadline (R5): it has been in our buffers for who knows how long.
    const stale = nowMs - this.#lastTickMs > deadlineMs;
    if (configuration === undefined || !this.#desk.isLoaded || stale) {
      this.#options.meter?.refused(stale ? 'it was read after a pause' : 'no configuration has been entered yet');
      refuse(inoperative);
      return;
    }
    const { request } = read;
    const range = configuration.rangeOf(request.pan);
    const group = range.group_id;
    if (this.#isForOtherOwner(request, range)) {
      refuse(duplicate);
      return;
    }
    const own = this.#ownApproval(request, group);
    if (own !== undefined) {
      respond(own === 'other' ? buildRefusal(message, duplicate) : buildAnswer(message, answerOf(own.decision)));
      return;
    }
    const id = this.#nextId++;
    const reserveMs = Math.max(leastStandInReserveMs, deadlineMs * standInReserve);
    const pending: Pending = {
      id,
      message,
      request,
      group,
      attempt: `${self}.${boot}.${id}`,
      before: [],
      sinceMs,
      deadlineMs: sinceMs + deadlineMs,
      giveUpMs: sinceMs + deadlineMs - Math.max(leastRefusalReserveMs, deadlineMs * refusalReserve),
      standInMs: this.#options.standIn === undefined ? Number.POSITIVE_INFINITY : sinceMs + deadlineMs - reserveMs,
      respond,
      nextTryMs: 0,
      asked: undefined,
      exposed: false,
      redirects: 0,
    };
    this.#pending.set(id, pending);
    this.#try(pending, nowMs);
  }

  /** Call about every 25 ms: sends again what got lost, and answers 91 what is out of time. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#lastTickMs = nowMs;
    this.#routeWaiting(nowMs);
    this.#noteLeaders(nowMs);
    for (const pending of this.#pending.values()) {
      if (nowMs >= pending.giveUpMs) this.#giveUp(pending);
      else if (nowMs >= pending.standInMs && this.#standIn(pending, nowMs)) continue;
      else if (nowMs >= pending.nextTryMs) this.#try(pending, nowMs);
    }
    this.#desk.tick();
  }

  /** Another node leads the group now, or the same one again, or nobody: what waits for its owner is sent there. */
  onLeader(group: GroupId): void {
    const { clock, self, leaderOf } = this.#options;
    const leader = leaderOf(group);
    if (leader === undefined) return;
    this.#leaderlessSince.delete(group);
    // First, so that an owner hears what has been taken back before it is asked for more.
    this.#desk.onLeader(group);
    const nowMs = clock.monotonicMs();
    for (const pending of this.#pending.values()) {
      if (pending.group !== group || nowMs >= pending.giveUpMs) continue;
      // The owner in this process has it still, or would have said so.
      if (leader === self && pending.asked === self) continue;
      this.#try(pending, nowMs);
    }
  }

  /** An owner's answer from the bus. */
  onAnswer(answer: ForwardedAnswer): void {
    this.#onOutcome(answer.id, answer.attempt, answer.outcome);
  }

  /** As the owner: decides what another edge has forwarded. */
  onRequest(from: NodeId, forwarded: ForwardedRequest): void {
    // Read after a pause longer than what was left: its edge has answered 91, and a decision would hold for nobody.
    if (this.#options.clock.monotonicMs() - this.#lastTickMs > forwarded.remainingMs) return;
    const owner = this.#options.ownerOf(forwarded.group);
    const answer = (outcome: OwnerOutcome): void => {
      this.#options.forwarder.sendAnswer(from, { id: forwarded.id, attempt: forwarded.attempt, outcome });
    };
    if (owner === undefined) answer({ kind: 'bounce', reason: 'not-the-owner' });
    else owner.request(this.#restricted(forwarded.request), forwarded.attempt, answer);
  }

  /** As the owner: settles what another node brings. */
  onClaim(from: NodeId, claim: Claim): void {
    const group = groupOf(claim);
    this.#options.ownerOf(group)?.claim(claim, from, (outcome, heir) => {
      this.#options.forwarder.sendSettlement(from, {
        group,
        id: claimId(claim),
        outcome,
        ...(heir !== undefined && { heir }),
      });
    });
  }

  /** An owner has entered what this node brought it. */
  onSettlement(settlement: Settlement): void {
    this.#desk.onSettled(settlement);
  }

  /** A range that was carved, merged or moved since is no other one: its owner knows whether the card is another. */
  #isForOtherOwner(request: SwitchRequest, range: PanRangeRow): boolean {
    const key = duplicateKey(request);
    const before = this.#rangeOfKey.get(key);
    if (before === undefined) this.#rangeOfKey.set(key, range);
    if (before === undefined || before.group_id === range.group_id) return false;
    return !before.prefix.startsWith(range.prefix) && !range.prefix.startsWith(before.prefix);
  }

  /** Another group has the card's range. What the one before may have decided is due when this is not answered. */
  #redirect(pending: Pending, group: GroupId): void {
    const { self, boot } = this.#options;
    if (pending.exposed) pending.before.push({ group: pending.group, attempt: pending.attempt });
    pending.redirects += 1;
    pending.group = group;
    pending.attempt = `${self}.${boot}.${pending.id}.${pending.redirects}`;
    pending.exposed = false;
  }

  #try(pending: Pending, nowMs: number): void {
    const { self, leaderOf, forwarder } = this.#options;
    const leader = leaderOf(pending.group);
    pending.asked = leader;
    pending.nextTryMs = nowMs + (leader === undefined ? bounceRetryMs : resendMs);
    const request = this.#restricted(pending.request);
    if (leader === undefined) {
      this.#declineRestricted(pending, request);
      return;
    }
    if (leader === self) {
      this.#askHere(pending, request, nowMs);
      return;
    }
    pending.exposed = true;
    const { id, attempt, group, deadlineMs } = pending;
    forwarder.sendRequest(leader, { id, attempt, group, remainingMs: deadlineMs - nowMs, request });
  }

  /** Nobody can decide it now, and its owner would decline it; nobody knows it, so nothing is left to take back. */
  #declineRestricted(pending: Pending, request: SwitchRequest): void {
    const responseCode = declineOf(request);
    if (responseCode === undefined || pending.exposed || pending.before.length > 0) return;
    this.#finish(pending, buildRefusal(pending.message, responseCode));
  }

  /** With what this node holds against the card (R11). */
  #restricted(request: SwitchRequest): SwitchRequest {
    if (!this.#desk.holdsAny) return request;
    const held = this.#desk.restrictionOf(this.#options.cardKeys.hash(request.pan));
    if (held === undefined) return request;
    return { ...request, restriction: moreRestrictive(held, request.restriction ?? 'active') };
  }

  #askHere(pending: Pending, request: SwitchRequest, nowMs: number): void {
    const { id, attempt, group } = pending;
    const owner = this.#options.ownerOf(group);
    if (owner === undefined) {
      pending.asked = undefined;
      pending.nextTryMs = nowMs + bounceRetryMs;
      return;
    }
    // Decided in this process: there is nothing to get lost, so it is only tried again after a bounce.
    pending.nextTryMs = Number.POSITIVE_INFINITY;
    let first: OwnerOutcome | undefined;
    owner.request(request, attempt, (outcome) => {
      first ??= outcome;
      this.#onOutcome(id, attempt, outcome);
    });
    // What bounces at once has not been recorded.
    if (first?.kind !== 'bounce') pending.exposed = true;
  }

  #onOutcome(id: number, attempt: string, outcome: OwnerOutcome): void {
    const pending = this.#pending.get(id);
    // Another attempt under this id was that of an earlier start of this node: its answer is for another card.
    if (pending?.attempt !== attempt) {
      if (outcome.kind === 'answer') this.#late += 1;
      return;
    }
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs >= pending.deadlineMs) {
      if (outcome.kind === 'answer') this.#late += 1;
      this.#giveUp(pending);
    } else if (outcome.kind === 'answer') {
      this.#finish(pending, this.#answer(pending.message, outcome.answer));
    } else if (outcome.reason === 'overloaded') {
      this.#giveUp(pending);
    } else {
      pending.asked = undefined;
      pending.nextTryMs = nowMs + bounceRetryMs;
      if (outcome.reason === 'other-group') this.#follow(pending, outcome.group, nowMs);
    }
  }

  #follow(pending: Pending, group: GroupId, nowMs: number): void {
    if (group === pending.group) return;
    this.#redirect(pending, group);
    if (pending.redirects <= promptRedirects) this.#try(pending, nowMs);
  }

  /** 91; when an owner may approve the request all the same, not before that is on disk as a reversal due. */
  #giveUp(pending: Pending): void {
    // From here on an approval is late, also one that comes before the sync has returned.
    this.#pending.delete(pending.id);
    const dues = this.#duesOf(pending);
    if (dues.length === 0) this.#answerInoperative(pending);
    else {
      this.#desk.due(dues, () => {
        this.#answerInoperative(pending);
      });
    }
  }

  #duesOf({ attempt, group, request, exposed, before }: Pending): readonly ReversalDue[] {
    if (!mayBeUndelivered(request)) return [];
    const due = { key: duplicateKey(request), at: this.#options.clock.wallMs() };
    return [...before, ...(exposed ? [{ attempt, group }] : [])].map((each) => ({ ...due, ...each }));
  }

  #answerInoperative(pending: Pending): void {
    const responseCode = declineOf(this.#restricted(pending.request)) ?? inoperative;
    this.#respond(pending, buildRefusal(pending.message, responseCode));
  }

  #respond({ attempt, message, group, asked, sinceMs, respond }: Pending, answer: IsoMessage): void {
    const { clock, meter } = this.#options;
    if (meter !== undefined) {
      const code = answer.fields.get(39);
      const responseCode = typeof code === 'string' ? code : '';
      const durationMs = clock.monotonicMs() - sinceMs;
      meter.answered({ attempt, mti: message.mti, responseCode, group, asked, durationMs });
    }
    respond(answer);
  }

  #noteLeaders(nowMs: number): void {
    const { standIn, leaderOf, configuration } = this.#options;
    if (standIn === undefined) return;
    for (const group of configuration()?.orders.keys() ?? []) {
      if (leaderOf(group) !== undefined) this.#leaderlessSince.delete(group);
      else if (!this.#leaderlessSince.has(group)) this.#leaderlessSince.set(group, nowMs);
    }
  }

  /** Approves by itself if it may; whether the request is in good hands with that. */
  #standIn(pending: Pending, nowMs: number): boolean {
    const { standIn, clock } = this.#options;
    const { group, attempt } = pending;
    const request = this.#restricted(pending.request);
    const since = this.#leaderlessSince.get(group);
    if (standIn === undefined || since === undefined || nowMs - since < standIn.afterMs) return false;
    const configuration = this.#options.configuration();
    const range = configuration?.rangeOf(request.pan);
    const link = configuration?.link(request.link);
    const ledger = this.#options.ledgerOf(group);
    const isMoving = range !== undefined && configuration?.moveOf(range.prefix) !== undefined;
    if (
      configuration === undefined ||
      range?.group_id !== group ||
      isMoving ||
      link === undefined ||
      ledger === undefined
    ) {
      return false;
    }
    const result = whenReadable(() =>
      decideStandIn(request, {
        ledger,
        panHash: this.#options.cardKeys.hash(request.pan),
        range,
        limits: (currency) => configuration.limits(range.prefix, currency, 'standby'),
        merchantLimit: (category, currency) => configuration.merchantLimit(range.prefix, category, currency),
        link,
        configIndex: configuration.index,
        attempt,
        at: clock.wallMs(),
        random: standIn.random,
        own: this.#desk.standIns,
        maximumCount: standIn.maximumCount,
        maximumMinor: standIn.maximumMinor,
      }),
    );
    if (result === undefined) return false;
    // What the rules refuse now they refuse until the deadline.
    if (result.kind === 'refused') pending.standInMs = Number.POSITIVE_INFINITY;
    if (result.kind === 'refused') return false;
    const { decision, currency } = result;
    const taken = this.#desk.approve({ group, currency, decision }, (failure) => {
      this.#onApproved(pending, decision, failure !== undefined);
    });
    // From here on what an owner still says is late.
    if (taken) this.#pending.delete(pending.id);
    return taken;
  }

  /** The approval is on disk, or could not be written. */
  #onApproved(pending: Pending, decision: DecisionEntry, failed: boolean): void {
    const { attempt, message, deadlineMs } = pending;
    if (failed) {
      this.#giveUp(pending);
    } else if (this.#options.clock.monotonicMs() >= deadlineMs) {
      this.#desk.withdraw(attempt, this.#duesOf(pending), () => {
        this.#answerInoperative(pending);
      });
    } else {
      this.#desk.offer(attempt);
      this.#respond(pending, buildAnswer(message, answerOf(decision)));
    }
  }

  /** A repeat of what this edge has approved, before a log has it: no owner could know of it. */
  #ownApproval(request: SwitchRequest, group: GroupId): StandIn | 'other' | undefined {
    const { standIn } = this.#options;
    if (standIn === undefined || !this.#desk.hasStandIns) return undefined;
    const own = this.#desk.standInOf(duplicateKey(request));
    const ledger = this.#options.ledgerOf(group);
    if (own === undefined || ledger === undefined) return undefined;
    return whenReadable(() => {
      const card = ledger.cardByPanHash(this.#options.cardKeys.hash(request.pan));
      return isSameRequest(own.decision.request, request, card) ? own : 'other';
    });
  }

  #answer(message: Answerable, decided: DecidedAnswer): IsoMessage {
    return /^[0-9A-Z]{2}$/.test(decided.responseCode)
      ? buildAnswer(message, decided)
      : buildRefusal(message, systemMalfunction);
  }

  #finish(pending: Pending, answer: IsoMessage): void {
    this.#pending.delete(pending.id);
    this.#respond(pending, answer);
  }
}

/**
 * DE 39 with which a restriction that an edge knows of declines the request; undefined without one, for what is recorded all
 * the same, and for a repeat: its first copy may have been approved before.
 */
function declineOf({ restriction, mtiClass, repeat }: SwitchRequest): string | undefined {
  if (restriction === undefined || repeat || (mtiClass !== '0100' && mtiClass !== '0200')) return undefined;
  return responseCodeOfStatus(restriction) ?? undefined;
}

/** The business date at an edge: the UTC day. Cutover by message (0800/201) is not here yet. */
function businessDate(wallMs: number): string {
  return new Date(wallMs).toISOString().slice(0, 10);
}
