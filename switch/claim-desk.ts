import type { Clock } from '../base/clock.ts';
import type { SwitchError } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import { moreRestrictive, type CardStatus } from '../store/card-status.ts';
import type { EdgeChange, EdgeStore, HeldRestriction, ReversalDue, StandIn } from '../store/edge-store.ts';
import type { SalvagedEntry, SalvageOutcome } from '../store/salvage.ts';
import { claimId, groupOf, type Claim, type ClaimOutcome } from './claims.ts';
import type { Settlement } from './forward.ts';
import type { GroupOwner } from './owner.ts';

/** What this node's logs lost: store/salvage.ts. */
export interface SalvageSource {
  groups(): readonly GroupId[];
  pending(group: GroupId, limit: number): readonly SalvagedEntry[];
  resolve(group: GroupId, term: number, index: number, outcome: SalvageOutcome): boolean;
}

export interface ClaimDeskOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly store: EdgeStore;
  readonly salvage: SalvageSource | undefined;
  readonly leaderOf: (group: GroupId) => NodeId | undefined;
  readonly ownerOf: (group: GroupId) => GroupOwner | undefined;
  readonly sendClaim: (to: NodeId, claim: Claim) => void;
  /** Every group of cards that is configured. */
  readonly cardGroups: () => readonly GroupId[];
  /** Whether this node's own copy of the group has the restriction. */
  readonly hasRestriction: (group: GroupId, id: string) => boolean;
}

interface Held {
  readonly restriction: HeldRestriction;
  /** The owner has entered it: the card's log has it, this node's copy perhaps not yet. */
  isDelivered: boolean;
  /** Groups that have said that they do not have the card. */
  readonly strangers: Set<GroupId>;
}

/** The claims of one group, the oldest first. */
interface Queue {
  readonly claims: Map<string, Claim>;
  /** Brought last and not settled yet. */
  readonly brought: Set<string>;
  nextMs: number;
  backOffMs: number;
}

/** Brought together; the next ones follow when these are settled. */
const batch = 64;
const leastBackOffMs = 200;
const mostBackOffMs = 5_000;
/** Reversals due in memory; more than these wait in the store. */
const keptDues = 50_000;
/** How often it is looked for what logs have lost, and a store that could not be read is tried again. */
const pollMs = 1_000;

/**
 * Keeps what this node has to bring to owners, and brings it to each group's present owner until that says that an
 * entry about it has committed. Every claim is on disk before it counts as made, and so survives this process.
 *
 * Always the first ones of a group are brought, so that claims are entered in their order: what arrives out of order
 * has been preceded by nothing but settled ones.
 */
export class ClaimDesk {
  readonly #options: ClaimDeskOptions;
  readonly #queues = new Map<GroupId, Queue>();
  readonly #standIns = new Map<string, StandIn>();
  /** Attempts of those that were answered, by duplicate key. */
  readonly #answered = new Map<string, string>();
  /** Restrictions that work here without this node's copy of the log, by the hash of their card's number. */
  readonly #held = new Map<string, Held[]>();
  /** Who waits to hear that a restriction was entered. */
  readonly #waiting = new Map<string, (outcome: ClaimOutcome) => void>();
  #watchedMs = Number.NEGATIVE_INFINITY;
  #dues = 0;
  #unsynced = 0;
  /** The store has dues that memory does not. */
  #more = false;
  #reading = false;
  #loaded = false;
  #readAgainMs = 0;
  #salvagePolledMs = Number.NEGATIVE_INFINITY;
  #sequence = 0;

  constructor(options: ClaimDeskOptions) {
    this.#options = options;
    this.#read();
  }

  /** Reversals due that no owner has confirmed yet; those in memory. */
  get dues(): number {
    return this.#dues;
  }

  /** Of those, and of earlier ones, how many could not be written to disk. */
  get unsynced(): number {
    return this.#unsynced;
  }

  /** This edge's own approvals that no owner has entered yet, those that are being synced included. */
  get standIns(): readonly StandIn[] {
    return [...this.#standIns.values()];
  }

  get hasStandIns(): boolean {
    return this.#standIns.size > 0;
  }

  /** The one that was given for a request with this duplicate key and answered. */
  standInOf(key: string): StandIn | undefined {
    const attempt = this.#answered.get(key);
    return attempt === undefined ? undefined : this.#standIns.get(attempt);
  }

  /** `done` is called when the dues are on disk, or when they cannot be written: they are brought all the same. */
  due(dues: readonly ReversalDue[], done: () => void): void {
    this.#writeDues([], dues, done);
  }

  /**
   * Takes an approval of this edge's own; `done` is called when it is on disk or cannot be written. It counts in
   * `standIns` from now on, and has then to be answered and `offer`ed, or else withdrawn. False: nothing can be taken,
   * because it is not known yet what was given before.
   */
  approve(approval: Omit<StandIn, 'sequence'>, done: (failure: SwitchError | undefined) => void): boolean {
    if (!this.#loaded) return false;
    this.#sequence += 1;
    const standIn = { ...approval, sequence: this.#sequence };
    const { attempt } = approval.decision;
    this.#standIns.set(attempt, standIn);
    this.#write([{ kind: 'stand-in', standIn }], (failure) => {
      if (failure !== undefined) this.#standIns.delete(attempt);
      done(failure);
    });
    return true;
  }

  /** It is about to be answered: from here on it is brought to the owner until that has entered it. */
  offer(attempt: string): void {
    const standIn = this.#standIns.get(attempt);
    if (standIn !== undefined) this.#addStandIn(standIn);
  }

  /** It was not answered. In one step with what is due instead; `done` as for `due`. */
  withdraw(attempt: string, dues: readonly ReversalDue[], done: () => void): void {
    this.#standIns.delete(attempt);
    this.#writeDues([{ kind: 'settled', of: 'stand-in', attempt }], dues, done);
  }

  #writeDues(changes: readonly EdgeChange[], dues: readonly ReversalDue[], done: () => void): void {
    this.#write([...changes, ...dues.map((due) => ({ kind: 'due', due }) as const)], (failure) => {
      if (failure !== undefined) this.#unsynced += Math.max(1, dues.length);
      for (const due of dues) this.#addDue(due);
      done();
    });
  }

  /** What has survived this process's end is known: which restrictions hold here, what was approved. */
  get isLoaded(): boolean {
    return this.#loaded;
  }

  /** Whether any restriction works here that this node's copy of the log may not have. */
  get holdsAny(): boolean {
    return this.#held.size > 0;
  }

  /** The most restrictive that is held here against the number. */
  restrictionOf(panHash: string): CardStatus | undefined {
    return this.#held
      .get(panHash)
      ?.map(({ restriction }) => restriction.status)
      .reduce((one, other) => moreRestrictive(one, other));
  }

  /** Restrictions that work here and that no owner has entered yet. */
  get undeliveredRestrictions(): readonly HeldRestriction[] {
    return [...this.#held.values()]
      .flat()
      .filter(({ isDelivered }) => !isDelivered)
      .map(({ restriction }) => restriction);
  }

  /**
   * Holds the restriction from now on (R11). `kept` is called when it is on disk, or could not be written: then it does not
   * hold. After that it is brought to the owner until the card's log has it; then `entered` is called, in this process's
   * life at most.
   */
  restrict(
    restriction: HeldRestriction,
    kept: (failure: SwitchError | undefined, id: string) => void,
    entered: (outcome: ClaimOutcome) => void,
  ): void {
    this.#hold(restriction);
    this.#waiting.set(restriction.id, entered);
    this.#write([{ kind: 'restriction', restriction }], (failure) => {
      if (failure === undefined) this.#addRestriction(restriction);
      else {
        this.#waiting.delete(restriction.id);
        this.#release(restriction);
      }
      kept(failure, restriction.id);
    });
  }

  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#salvagePolledMs >= pollMs) {
      this.#salvagePolledMs = nowMs;
      for (const group of this.#options.salvage?.groups() ?? []) this.#topUp(group);
    }
    if (this.#held.size > 0 && nowMs - this.#watchedMs >= pollMs) {
      this.#watchedMs = nowMs;
      this.#forgetWhatIsInTheCopy();
    }
    if (this.#more && this.#dues < keptDues / 2 && nowMs >= this.#readAgainMs) this.#read();
    for (const [group, queue] of this.#queues) if (nowMs >= queue.nextMs) this.#bring(group, queue, nowMs);
  }

  /** The group has another owner, or has one again. */
  onLeader(group: GroupId): void {
    const queue = this.#queues.get(group);
    if (queue === undefined) return;
    queue.backOffMs = leastBackOffMs;
    this.#bring(group, queue, this.#options.clock.monotonicMs());
  }

  onSettled({ group, id, outcome, heir }: Settlement): void {
    const queue = this.#queues.get(group);
    const claim = queue?.claims.get(id);
    if (queue === undefined || claim === undefined) return;
    if (outcome === 'moved') {
      // Where it is from does not change: that group is asked again after a start, and says the same.
      if (heir === undefined) return;
      this.#add({ ...claim, heir });
    } else if (!this.#forget(claim, outcome)) return;
    queue.claims.delete(id);
    queue.brought.delete(id);
    queue.backOffMs = leastBackOffMs;
    if (queue.brought.size === 0) queue.nextMs = 0;
    if (queue.claims.size === 0) {
      this.#queues.delete(group);
      if (claim.kind === 'salvaged' && outcome !== 'moved') this.#topUp(claim.group);
    }
  }

  /** False when it could not be noted: the owner will say it again. */
  #forget(claim: Claim, outcome: ClaimOutcome): boolean {
    switch (claim.kind) {
      case 'undelivered':
        this.#dues -= 1;
        this.#write([{ kind: 'settled', of: 'due', attempt: claim.attempt }], () => undefined);
        return true;
      case 'stand-in': {
        const { attempt, request } = claim.decision;
        this.#standIns.delete(attempt);
        this.#answered.delete(request.key);
        this.#write([{ kind: 'settled', of: 'stand-in', attempt }], () => undefined);
        return true;
      }
      case 'restriction': {
        const held = this.#held.get(claim.panHash)?.find(({ restriction }) => restriction.id === claim.id);
        if (outcome === 'card-unknown' && held !== undefined) {
          // Where this node took it to be, by a configuration or a copy that was behind: another group may have it.
          held.strangers.add(claim.heir ?? claim.group);
          const heir = this.#options.cardGroups().find((each) => !held.strangers.has(each));
          if (heir !== undefined) {
            this.#add({ ...claim, heir });
            return true;
          }
        }
        this.#waiting.get(claim.id)?.(outcome);
        this.#waiting.delete(claim.id);
        if (held !== undefined) held.isDelivered = true;
        if (outcome === 'card-unknown') this.#end(claim);
        return true;
      }
      case 'salvaged': {
        const { group, term, index } = claim;
        const { salvage } = this.#options;
        const known = outcome === 'adopted' || outcome === 'voided' || outcome === 'kept';
        return known && salvage?.resolve(group, term, index, outcome) === true;
      }
    }
  }

  #hold(restriction: HeldRestriction): void {
    const held = this.#held.get(restriction.panHash) ?? [];
    held.push({ restriction, isDelivered: false, strangers: new Set() });
    this.#held.set(restriction.panHash, held);
  }

  #release({ panHash, id }: HeldRestriction): void {
    const left = (this.#held.get(panHash) ?? []).filter(({ restriction }) => restriction.id !== id);
    if (left.length === 0) this.#held.delete(panHash);
    else this.#held.set(panHash, left);
  }

  #end(restriction: HeldRestriction): void {
    this.#release(restriction);
    this.#write([{ kind: 'restriction-over', id: restriction.id }], () => undefined);
  }

  /** Until this node's copy has a restriction, an approval in stand-in would not know of it. */
  #forgetWhatIsInTheCopy(): void {
    for (const { restriction, isDelivered } of [...this.#held.values()].flat()) {
      if (isDelivered && this.#options.hasRestriction(restriction.group, restriction.id)) this.#end(restriction);
    }
  }

  #addRestriction(restriction: HeldRestriction): void {
    this.#add({ kind: 'restriction', ...restriction });
    const queue = this.#queues.get(restriction.group);
    if (queue !== undefined) this.#bring(restriction.group, queue, this.#options.clock.monotonicMs());
  }

  #write(changes: readonly EdgeChange[], done: (failure: SwitchError | undefined) => void): void {
    this.#options.store.submit(changes, done);
  }

  #read(): void {
    if (this.#reading) return;
    this.#reading = true;
    this.#options.store.pending(keptDues, (pending) => {
      this.#reading = false;
      this.#more = pending === undefined;
      if (pending === undefined) {
        this.#readAgainMs = this.#options.clock.monotonicMs() + pollMs;
        return;
      }
      for (const due of pending.dues) this.#addDue(due);
      this.#more ||= pending.dues.length === keptDues;
      // Once: later on memory knows better which of them were answered.
      if (!this.#loaded) {
        for (const standIn of pending.standIns) this.#addStandIn(standIn);
        for (const restriction of pending.restrictions) {
          this.#hold(restriction);
          this.#addRestriction(restriction);
        }
      }
      this.#sequence = Math.max(this.#sequence, pending.lastSequence);
      this.#loaded = true;
    });
  }

  #addDue({ attempt, key, group }: ReversalDue): void {
    if (this.#dues >= keptDues) this.#more = true;
    else if (this.#add({ kind: 'undelivered', group, attempt, key })) this.#dues += 1;
  }

  #addStandIn(standIn: StandIn): void {
    const { sequence, group, decision } = standIn;
    this.#standIns.set(decision.attempt, standIn);
    this.#answered.set(decision.request.key, decision.attempt);
    this.#add({ kind: 'stand-in', group, sequence, decision });
  }

  #add(claim: Claim): boolean {
    const id = claimId(claim);
    const group = groupOf(claim);
    let queue = this.#queues.get(group);
    if (queue === undefined) {
      queue = { claims: new Map(), brought: new Set(), nextMs: 0, backOffMs: leastBackOffMs };
      this.#queues.set(group, queue);
    }
    if (queue.claims.has(id)) return false;
    queue.claims.set(id, claim);
    if (queue.brought.size === 0) queue.nextMs = 0;
    return true;
  }

  #topUp(group: GroupId): void {
    for (const entry of this.#options.salvage?.pending(group, batch) ?? []) this.#add({ kind: 'salvaged', ...entry });
  }

  #bring(group: GroupId, queue: Queue, nowMs: number): void {
    const { self, leaderOf, ownerOf, sendClaim } = this.#options;
    const leader = leaderOf(group);
    queue.nextMs = nowMs + queue.backOffMs;
    if (leader === undefined) return;
    queue.backOffMs = Math.min(2 * queue.backOffMs, mostBackOffMs);
    // At this node an owner may settle one at once: the queue changes under the loop.
    const claims: (readonly [string, Claim])[] = [];
    for (const each of queue.claims) {
      if (claims.length === batch) break;
      claims.push(each);
      queue.brought.add(each[0]);
    }
    for (const [id, claim] of claims) {
      if (leader !== self) sendClaim(leader, claim);
      else {
        ownerOf(group)?.claim(claim, self, (outcome, heir) => {
          this.onSettled({ group, id, outcome, ...(heir !== undefined && { heir }) });
        });
      }
    }
  }
}
