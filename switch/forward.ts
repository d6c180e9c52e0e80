import type { GroupId, NodeId } from '../base/identifiers.ts';
import { Pan } from '../base/pan.ts';
import type { Sealer } from '../base/sealing.ts';
import type { Clock } from '../base/clock.ts';
import type { Claim, ClaimOutcome } from './claims.ts';
import type { OwnerOutcome } from './owner.ts';
import type { SwitchRequest } from './request.ts';

/*
 * Between an edge and an owner, on the bus's channel `forward`: datagrams, sealed with the cluster's key for this
 * sender and receiver, each with what gathered in one turn of the event loop:
 *
 *   claims       [{kind, group, ...}]                    any node -> owner, again until it is settled; before requests,
 *                                                        which may depend on what a claim says has happened before
 *   requests     [{id, attempt, group, remainingMs, request}]   edge -> owner; may come again with the same id and attempt
 *   answers      [{id, attempt, outcome}]                owner -> edge; for one that is no longer waiting: late
 *   settlements  [{group, id, outcome, heir}]            owner -> who brought the claim: an entry about it has committed,
 *                                                        or the group `heir` has the card now
 *
 * Nothing here needs to arrive: the edge sends a request again until its deadline, and the owner knows it by its
 * duplicate key; a claim is brought again until its settlement comes.
 */

export interface ForwardedRequest {
  readonly id: number;
  /** Of this group's owner alone: another group's would decide it under an attempt of its own (R12). */
  readonly attempt: string;
  readonly group: GroupId;
  readonly remainingMs: number;
  readonly request: SwitchRequest;
}

export interface ForwardedAnswer {
  readonly id: number;
  /** As in the request: ids begin anew with every start of an edge, attempts never come again. */
  readonly attempt: string;
  readonly outcome: OwnerOutcome;
}

export interface Settlement {
  readonly group: GroupId;
  /** `claimId` of what was settled. */
  readonly id: string;
  readonly outcome: ClaimOutcome;
  /** With `moved`. */
  readonly heir?: GroupId;
}

export interface ForwarderOptions {
  readonly self: NodeId;
  readonly sealer: Sealer;
  readonly clock: Clock;
  readonly send: (to: NodeId, bytes: Buffer) => void;
  readonly onRequest: (from: NodeId, request: ForwardedRequest) => void;
  readonly onAnswer: (from: NodeId, answer: ForwardedAnswer) => void;
  readonly onClaim: (from: NodeId, claim: Claim) => void;
  readonly onSettlement: (from: NodeId, settlement: Settlement) => void;
}

interface Outgoing {
  readonly claims: Claim[];
  readonly requests: ForwardedRequest[];
  readonly answers: ForwardedAnswer[];
  readonly settlements: Settlement[];
}

/** Of each kind in one datagram: keeps it well below the bus's limit. */
const maximumBatch = 512;
/** Claims may hold a whole entry. */
const maximumClaims = 64;

/** Seals, batches and opens what edges and owners tell each other. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #outgoing = new Map<NodeId, Outgoing>();
  #scheduled = false;
  #refused = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** Datagrams that were not sealed for this node by a process with the cluster's key. */
  get refused(): number {
    return this.#refused;
  }

  sendRequest(to: NodeId, request: ForwardedRequest): void {
    this.#to(to).requests.push(request);
  }

  sendAnswer(to: NodeId, answer: ForwardedAnswer): void {
    this.#to(to).answers.push(answer);
  }

  sendClaim(to: NodeId, claim: Claim): void {
    this.#to(to).claims.push(claim);
  }

  sendSettlement(to: NodeId, settlement: Settlement): void {
    this.#to(to).settlements.push(settlement);
  }

  receive(from: NodeId, bytes: Buffer): void {
    const clear = this.#options.sealer.open(`forward ${from} ${this.#options.self}`, bytes);
    if (clear === undefined) {
      this.#refused += 1;
      return;
    }
    const content = readContent(clear);
    if (content === undefined) {
      this.#refused += 1;
      return;
    }
    const { onClaim, onRequest, onAnswer, onSettlement } = this.#options;
    for (const claim of content.claims) onClaim(from, claim);
    for (const request of content.requests) onRequest(from, request);
    for (const answer of content.answers) onAnswer(from, answer);
    for (const settlement of content.settlements) onSettlement(from, settlement);
  }

  #to(peer: NodeId): Outgoing {
    let outgoing = this.#outgoing.get(peer);
    if (outgoing === undefined) {
      outgoing = { claims: [], requests: [], answers: [], settlements: [] };
      this.#outgoing.set(peer, outgoing);
    }
    if (!this.#scheduled) {
      this.#scheduled = true;
      this.#options.clock.soon(() => {
        this.#flush();
      });
    }
    return outgoing;
  }

  #flush(): void {
    this.#scheduled = false;
    const { self, sealer, send } = this.#options;
    for (const [peer, { claims, requests, answers, settlements }] of this.#outgoing) {
      const most = Math.max(requests.length, answers.length, settlements.length);
      const datagrams = Math.max(Math.ceil(most / maximumBatch), Math.ceil(claims.length / maximumClaims));
      for (let at = 0; at < datagrams; at++) {
        const part = <T>(all: readonly T[], size: number): readonly T[] => all.slice(at * size, (at + 1) * size);
        const content = {
          requests: part(requests, maximumBatch).map(({ request, ...rest }) => ({ ...rest, request: toWire(request) })),
          answers: part(answers, maximumBatch),
          // Rare, and then left out.
          ...(claims.length > 0 && { claims: part(claims, maximumClaims) }),
          ...(settlements.length > 0 && { settlements: part(settlements, maximumBatch) }),
        };
        send(peer, sealer.seal(`forward ${self} ${peer}`, Buffer.from(JSON.stringify(content))));
      }
    }
    this.#outgoing.clear();
  }
}

/** What a sealed datagram holds; undefined when a peer of another version sealed what this one cannot read. */
function readContent(clear: Buffer): Outgoing | undefined {
  try {
    const content = JSON.parse(clear.toString('utf8')) as {
      readonly requests: readonly (Omit<ForwardedRequest, 'request'> & { readonly request: WireRequest })[];
      readonly answers: readonly ForwardedAnswer[];
      readonly claims?: readonly Claim[];
      readonly settlements?: readonly Settlement[];
    };
    const requests = content.requests.flatMap(({ request, ...rest }) => {
      const read = fromWire(request);
      return read === undefined ? [] : [{ ...rest, request: read }];
    });
    const { answers, claims = [], settlements = [] } = content;
    return { requests, answers: [...answers], claims: [...claims], settlements: [...settlements] };
  } catch {
    return undefined;
  }
}

/** A request as JSON inside the sealed datagram: the one place where a clear card number is serialized. */
type WireRequest = Omit<SwitchRequest, 'pan' | 'amount' | 'billing' | 'replacementAmount'> & {
  readonly pan: string;
  readonly amount: string;
  readonly billing: { readonly amount: string; readonly currency: string } | undefined;
  readonly replacementAmount: string | undefined;
};

function toWire(request: SwitchRequest): WireRequest {
  const { billing, replacementAmount } = request;
  return {
    ...request,
    pan: request.pan.reveal(),
    amount: request.amount.toString(),
    billing: billing === undefined ? undefined : { amount: billing.amount.toString(), currency: billing.currency },
    replacementAmount: replacementAmount?.toString(),
  };
}

function fromWire(wire: WireRequest): SwitchRequest | undefined {
  const pan = Pan.parse(wire.pan);
  if (pan === undefined) return undefined;
  const { billing, replacementAmount } = wire;
  return {
    ...wire,
    pan,
    amount: BigInt(wire.amount),
    billing: billing === undefined ? undefined : { amount: BigInt(billing.amount), currency: billing.currency },
    originalDataElements: wire.originalDataElements,
    replacementAmount: replacementAmount === undefined ? undefined : BigInt(replacementAmount),
  };
}
