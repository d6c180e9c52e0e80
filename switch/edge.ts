import type { Clock } from '../base/clock.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import { RecentMap } from '../base/recent-map.ts';
import type { ConfigurationView } from '../config-db/configuration-view.ts';
import { buildAnswer, buildRefusal, type Answerable } from './answer.ts';
import type { DecidedAnswer } from './authorizer.ts';
import type { ForwardedAnswer, ForwardedRequest } from './forward.ts';
import type { IsoMessage } from './iso8583/codec.ts';
import type { GroupOwner, OwnerOutcome } from './owner.ts';
import { duplicateKey, readRequest, type SwitchRequest } from './request.ts';

export interface EdgeOptions {
  readonly self: NodeId;
  /** Grows with every start of this node: makes its attempts unique. */
  readonly boot: number;
  readonly clock: Clock;
  readonly configuration: () => ConfigurationView | undefined;
  /** The node that leads the group now, as far as this one knows. */
  readonly leaderOf: (group: GroupId) => NodeId | undefined;
  /** This node's own owner of the group. */
  readonly ownerOf: (group: GroupId) => GroupOwner | undefined;
  readonly forwarder: {
    sendRequest(to: NodeId, request: ForwardedRequest): void;
    sendAnswer(to: NodeId, answer: ForwardedAnswer): void;
  };
  /** For requests of links that have no deadline of their own. */
  readonly requestDeadlineMs: number;
}

interface Pending {
  readonly id: number;
  readonly message: Answerable;
  readonly request: SwitchRequest;
  readonly group: GroupId;
  readonly attempt: string;
  readonly deadlineMs: number;
  readonly respond: (answer: IsoMessage) => void;
  nextTryMs: number;
}

/** Sent again after this long without an answer: datagrams get lost. */
const resendMs = 300;
/** Tried again after a bounce: the owner is coming up, or another is about to be it. */
const bounceRetryMs = 50;
/** Keys remembered to notice one that returns for a card of another owner. */
const rememberedKeys = 50_000;

/** DE 39: the owner of the card cannot be reached. */
const inoperative = '91';
const duplicate = '94';
const systemMalfunction = '96';

/**
 * The node that has the acquirer's connection: reads the request, finds the card's owner, brings the request there
 * and the answer back. Until the link's deadline it tries again; then it answers 91, and whatever the owner still
 * says is late and never delivered.
 */
export class Edge {
  readonly #options: EdgeOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #groupOfKey = new RecentMap<string, GroupId>(rememberedKeys);
  #nextId = 1;
  #lastTickMs: number;
  #late = 0;

  constructor(options: EdgeOptions) {
    this.#options = options;
    this.#lastTickMs = options.clock.monotonicMs();
  }

  /** Requests that wait for their owner. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Answers of owners that came after their deadline. */
  get late(): number {
    return this.#late;
  }

  /** Handles a message of an owner's class; calls `respond` exactly once. */
  handle(message: IsoMessage, link: string, respond: (answer: IsoMessage) => void): void {
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
    if (configuration === undefined || stale) {
      refuse(inoperative);
      return;
    }
    const { request } = read;
    const group = configuration.rangeOf(request.pan).group_id;
    if (this.#isForOtherOwner(request, group)) {
      refuse(duplicate);
      return;
    }
    const id = this.#nextId++;
    const pending: Pending = {
      id,
      message,
      request,
      group,
      attempt: `${self}.${boot}.${id}`,
      deadlineMs: nowMs + deadlineMs,
      respond,
      nextTryMs: 0,
    };
    this.#pending.set(id, pending);
    this.#try(pending, nowMs);
  }

  /** Call about every 25 ms: sends again what got lost, and answers 91 what is out of time. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#lastTickMs = nowMs;
    for (const pending of this.#pending.values()) {
      if (nowMs >= pending.deadlineMs) this.#finish(pending, buildRefusal(pending.message, inoperative));
      else if (nowMs >= pending.nextTryMs) this.#try(pending, nowMs);
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
    const group = this.#options.configuration()?.rangeOf(forwarded.request.pan).group_id;
    const owner = group === undefined ? undefined : this.#options.ownerOf(group);
    const answer = (outcome: OwnerOutcome): void => {
      this.#options.forwarder.sendAnswer(from, { id: forwarded.id, attempt: forwarded.attempt, outcome });
    };
    if (owner === undefined) answer({ kind: 'bounce', reason: 'other-group' });
    else owner.request(forwarded.request, forwarded.attempt, answer);
  }

  #isForOtherOwner(request: SwitchRequest, group: GroupId): boolean {
    const key = duplicateKey(request);
    const before = this.#groupOfKey.get(key);
    if (before === undefined) this.#groupOfKey.set(key, group);
    return before !== undefined && before !== group;
  }

  #try(pending: Pending, nowMs: number): void {
    const { self, leaderOf, ownerOf, forwarder } = this.#options;
    const leader = leaderOf(pending.group);
    pending.nextTryMs = nowMs + (leader === undefined ? bounceRetryMs : resendMs);
    if (leader === undefined) return;
    if (leader === self) {
      const { id, attempt } = pending;
      // Decided in this process: there is nothing to get lost, so it is only tried again after a bounce.
      pending.nextTryMs = Number.POSITIVE_INFINITY;
      ownerOf(pending.group)?.request(pending.request, pending.attempt, (outcome) => {
        this.#onOutcome(id, attempt, outcome);
      });
      return;
    }
    const { id, attempt, request, deadlineMs } = pending;
    forwarder.sendRequest(leader, { id, attempt, remainingMs: deadlineMs - nowMs, request });
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
      this.#finish(pending, buildRefusal(pending.message, inoperative));
    } else if (outcome.kind === 'answer') {
      this.#finish(pending, this.#answer(pending.message, outcome.answer));
    } else if (outcome.reason === 'overloaded') {
      this.#finish(pending, buildRefusal(pending.message, inoperative));
    } else {
      pending.nextTryMs = nowMs + bounceRetryMs;
    }
  }

  #answer(message: Answerable, decided: DecidedAnswer): IsoMessage {
    return /^[0-9A-Z]{2}$/.test(decided.responseCode)
      ? buildAnswer(message, decided)
      : buildRefusal(message, systemMalfunction);
  }

  #finish(pending: Pending, answer: IsoMessage): void {
    this.#pending.delete(pending.id);
    pending.respond(answer);
  }
}

/** The business date at an edge: the UTC day. Cutover by message (0800/201) is not here yet. */
function businessDate(wallMs: number): string {
  return new Date(wallMs).toISOString().slice(0, 10);
}
