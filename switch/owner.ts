/*
 * Over 500 lines because everything that an owner promises is to be seen, and kept, in one place.
 */
import type { Clock } from '../base/clock.ts';
import type { CardKeys } from '../base/card-keys.ts';
import { assert, whenReadable } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import type { ConfigurationView } from '../config-db/configuration-view.ts';
import type { PanRangeRow } from '../config-db/rows.ts';
import { decodeBody, encodeBody, type Durability, type EntryBody, type LogEntry } from '../store/entry.ts';
import { applyToLedger, type LedgerReader } from '../store/ledger.ts';
import type { RangeMoveRow } from '../store/range-move.ts';
import { LedgerOverlay } from '../store/ledger-overlay.ts';
import { answerOf, decide, refusal, type DecidedAnswer, type Decision } from './authorizer.ts';
import { cardOf, planClaim, type Claim, type ClaimOutcome } from './claims.ts';
import { placeOf, type MoveState } from './range-moves.ts';
import type { SwitchRequest } from './request.ts';

/** The log of a group as its owner uses it; replication provides it. */
export interface OwnedLog {
  /** Appends; the index of the first entry, or undefined when this node does not lead. */
  propose(bodies: readonly string[]): number | undefined;
}

/** What an edge gets back for a request that it brought to an owner. */
export type OwnerOutcome =
  | { readonly kind: 'answer'; readonly answer: DecidedAnswer }
  /**
   * No answer from here: try the owner that the group has now. It may have been recorded all the same, by an owner that
   * then lost the group; the next one knows it by its duplicate key. `given-up`: its edge has reported it undelivered.
   */
  | {
      readonly kind: 'bounce';
      readonly reason: 'not-the-owner' | 'not-ready' | 'overloaded' | 'given-up';
    }
  /** Another group has the card's range: `group`, as far as this one knows. */
  | { readonly kind: 'bounce'; readonly reason: 'other-group'; readonly group: GroupId };

export interface OwnerOptions {
  readonly group: GroupId;
  readonly log: OwnedLog;
  /** The committed fold of the group, in its file. */
  readonly ledger: LedgerReader;
  readonly configuration: () => ConfigurationView | undefined;
  readonly cardKeys: CardKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly localTailEntries: number;
  readonly localTailMs: number;
  /** Uncommitted entries older than this: the group has no majority, and takes nothing new. */
  readonly stalledMs: number;
  /** Until when, on the clock's monotonic time, nobody else can lead the group (R3); 0: no lease. */
  readonly leaseUntilMs: () => number;
  readonly meter?: OwnerMeter;
  /** The group's file cannot be read here: the owner has resigned. */
  readonly onUnreadable: (error: unknown) => void;
}

/** Hears of every decision that had to wait for its entry's durability; so it has to be quick. */
export interface OwnerMeter {
  /** Its answer left after so long. */
  durable(group: GroupId, attempt: string, index: number, durationMs: number): void;
  /** Leadership ended before: the edge is told to ask again. */
  lost(group: GroupId, attempt: string, index: number, durationMs: number): void;
  /** Not decided: too much is uncommitted, or for too long. */
  overloaded(group: GroupId, attempt: string): void;
  /** An approval that no acquirer received was entered as such, or something else a node brought was settled. */
  settled(group: GroupId, claim: Claim, outcome: ClaimOutcome): void;
}

/** How far the log is in the term that this node leads. */
export interface OwnerProgress {
  readonly term: number;
  readonly commit: number;
  readonly durable: number;
}

interface Waiter {
  readonly durability: Durability;
  readonly deliver: () => void;
  readonly giveUp: () => void;
}

/** Entries between applied and last beyond which nothing new is decided: bounds the overlay. */
const maximumOverlay = 50_000;
const expiriesPerEntry = 500;

/**
 * Decides the requests for one group's cards while this node leads the group.
 *
 * - It decides against the committed fold and an overlay of every later entry, and decides nothing before its first
 *   entry of the term has committed (R1) and its configuration is as new as any that the log was decided at.
 * - An answer leaves when its entry is committed and on this disk (`quorum`), or on this disk while the lease is valid
 *   at that very moment (`local`, R3). A stored answer waits for the same, so a repeat of a request that is being
 *   decided joins it (R2); where it approves, it waits for the entry of its own attempt (R5). So no stored approval
 *   leaves an owner that has been replaced without knowing it.
 * - A `local` answer waits for the commit too while there is no lease, or the uncommitted tail is long or old.
 * - Who waits, waits for an entry of this term's log as this node saw it when it came to lead. When leadership ends, or
 *   begins anew, everybody is told to ask again: the entry may have been cut, or be the next owner's to answer.
 */
export class GroupOwner {
  readonly #options: OwnerOptions;
  readonly #overlay: LedgerOverlay;
  readonly #waiting = new Map<number, Waiter[]>();
  #leading = false;
  #ready = false;
  #paused = false;
  #term = 0;
  #firstOfTerm = 0;
  #last = 0;
  #commit = 0;
  #durable = 0;
  /** Highest configuration index that an entry of this log was decided at. */
  #configIndex = 0;
  /** When entries were appended, oldest first: how long the oldest uncommitted one has waited. */
  #appendedAt: { readonly index: number; readonly ms: number }[] = [];

  constructor(options: OwnerOptions) {
    this.#options = options;
    this.#overlay = new LedgerOverlay(options.ledger);
  }

  /** Whether it decides and appends. */
  get ready(): boolean {
    return this.#ready && !this.#paused;
  }

  /** Reads go through here: what the owner sees of its cards, later entries included. */
  get ledger(): LedgerReader {
    return this.#overlay;
  }

  /** How many requests wait for their entry's durability. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * This node came to lead: `tail` is every entry after the applied one, the term's first entry the last of them. To be
   * called while the ledger shows the fold at `applied`. It may come for a later term without `resign` between.
   */
  lead(term: number, applied: number, tail: readonly LogEntry[]): void {
    const waiting = this.#takeWaiting();
    this.#leading = true;
    this.#ready = false;
    this.#paused = false;
    this.#term = term;
    this.#overlay.clear();
    this.#last = applied;
    this.#appendedAt = [];
    // What is applied has committed and is on this disk; for all else this term's own progress counts.
    this.#commit = applied;
    this.#durable = applied;
    this.#configIndex = this.#options.ledger.lastConfigIndex();
    for (const entry of tail) this.#apply(entry.index, entry.term, decodeBody(entry.body));
    this.#firstOfTerm = this.#last;
    for (const waiter of waiting) waiter.giveUp();
  }

  /** This node leads no longer: whoever waits is told to look for the owner. */
  resign(): void {
    const waiting = this.#takeWaiting();
    this.#leading = false;
    this.#ready = false;
    this.#paused = false;
    this.#overlay.clear();
    this.#appendedAt = [];
    for (const waiter of waiting) waiter.giveUp();
  }

  /** While a hand-over is under way nothing new is decided or appended; who waits goes on waiting. */
  pause(on: boolean): void {
    this.#paused = on;
  }

  /** Decides a request, or answers it from store; `done` is called once, when the answer may leave. */
  request(request: SwitchRequest, attempt: string, done: (outcome: OwnerOutcome) => void): void {
    const bounce = (reason: 'not-the-owner' | 'not-ready' | 'overloaded' | 'given-up'): void => {
      done({ kind: 'bounce', reason });
    };
    const { clock, cardKeys, random } = this.#options;
    if (!this.#leading) {
      bounce('not-the-owner');
      return;
    }
    const configuration = this.#readyConfiguration();
    if (configuration === undefined) {
      bounce('not-ready');
      return;
    }
    const range = configuration.rangeOf(request.pan);
    const link = configuration.link(request.link);
    const place = this.reading(() => this.#placeOf(range, configuration));
    if (place === undefined) {
      bounce('not-the-owner');
      return;
    }
    if (place === 'coming') {
      bounce('not-ready');
      return;
    }
    if (place !== 'here') {
      done({ kind: 'bounce', reason: 'other-group', group: place });
      return;
    }
    if (link === undefined) {
      // No such link is configured: nothing on it is permitted.
      done({ kind: 'answer', answer: refusal('58') });
      return;
    }
    if (this.#stalled()) {
      this.#options.meter?.overloaded(this.#options.group, attempt);
      bounce('overloaded');
      return;
    }
    const panHash = cardKeys.hash(request.pan);
    const decision = this.reading((): Decision | 'elsewhere' => {
      const card = this.#overlay.cardByPanHash(panHash);
      // An earlier number of a card whose present one is of a range that has been divided off and moved since.
      const isElsewhere = card !== undefined && card.panHash !== panHash && this.#overlay.leftBy(card.cardId) !== '';
      if (isElsewhere) return 'elsewhere';
      return decide(request, {
        ledger: this.#overlay,
        panHash,
        range,
        limits: (currency) => configuration.limits(range.prefix, currency, configuration.dutyIn(this.#options.group)),
        merchantLimit: (category, currency) => configuration.merchantLimit(range.prefix, category, currency),
        link,
        configIndex: configuration.index,
        durability: range.durability,
        attempt,
        at: clock.wallMs(),
        random,
      });
    });
    if (decision === 'elsewhere') {
      bounce('not-ready');
      return;
    }
    if (decision === undefined) {
      bounce('not-the-owner');
      return;
    }
    switch (decision.kind) {
      case 'given-up':
        bounce('given-up');
        return;
      case 'refused':
        done({ kind: 'answer', answer: refusal(decision.responseCode) });
        return;
      case 'stored':
        this.#whenDurable(decision.index, range.durability, decision.answer, attempt, done);
        return;
      case 'repeated':
      case 'decided': {
        const index = this.append(decision.entry);
        if (index === undefined) {
          bounce('not-the-owner');
          return;
        }
        const answer = decision.kind === 'repeated' ? decision.answer : answerOf(decision.entry);
        this.#whenDurable(index, range.durability, answer, attempt, done);
        return;
      }
    }
  }

  /**
   * Settles what a node brings (`claims.ts`); `settled` is called once, when an entry about it has committed, whatever
   * the range's durability. Not called when this node cannot: whoever brought it brings it again. What is about a card
   * that has left the group is `heir`'s, once the move has ended: until then nobody settles it.
   */
  claim(claim: Claim, from: NodeId, settled: (outcome: ClaimOutcome, heir?: GroupId) => void): void {
    const configuration = this.#readyConfiguration();
    if (configuration === undefined || this.#stalled()) return;
    // A card of the claim may be among what has come and is not in the file yet.
    if (this.#overlay.unsettledMoves.some(({ direction }) => direction === 'in')) return;
    const move = this.reading(() => this.#leftWith(claim));
    if (move !== null) {
      const hasEnded = move !== undefined && configuration.moves.every(({ move_id: other }) => other !== move.move);
      if (hasEnded) settled('moved', move.other);
      return;
    }
    const at = this.#options.clock.wallMs();
    const plan = this.reading(() =>
      planClaim(claim, { ledger: this.#overlay, from, at, configIndex: configuration.index }),
    );
    if (plan === undefined) return;
    const index = plan.kind === 'known' ? plan.index : this.append(plan.entry);
    if (index === undefined) return;
    const committed = (): void => {
      if (plan.kind !== 'known') this.#options.meter?.settled(this.#options.group, claim, plan.outcome);
      settled(plan.outcome);
    };
    this.whenCommitted(index, committed, () => undefined);
  }

  /** Appends an entry of the owner's own (cards, expiries); its index, or undefined when this node cannot decide. */
  append(body: EntryBody): number | undefined {
    if (!this.ready || !this.#mayAppend(body)) return undefined;
    const index = this.#options.log.propose([encodeBody(body)]);
    if (index === undefined) return undefined;
    return this.reading(() => {
      this.#apply(index, this.#term, body);
      this.#appendedAt.push({ index, ms: this.#options.clock.monotonicMs() });
      return index;
    });
  }

  /** Enters the end of holds whose time is over (R9: an entry, never a node's own clock at apply), so many at most. */
  expireHolds(most: number): void {
    if (!this.ready) return;
    const at = this.#options.clock.wallMs();
    const due = this.reading(() => this.#overlay.holdsDue(at, most).map((row) => row.index)) ?? [];
    for (let from = 0; from < due.length; from += expiriesPerEntry) {
      this.append({ kind: 'expiry', at, holds: due.slice(from, from + expiriesPerEntry) });
    }
  }

  /** What cannot be read cannot be decided from: the group is left to the other copies. */
  reading<Result>(read: () => Result): Result | undefined {
    return whenReadable(read, (error) => {
      this.resign();
      this.#options.onUnreadable(error);
    });
  }

  /** Calls one of the two once: `committed` when the entry is, `lost` when this node stops leading before. */
  whenCommitted(index: number, committed: () => void, lost: () => void): void {
    if (index <= Math.min(this.#commit, this.#durable)) committed();
    else this.#wait(index, { durability: 'quorum', deliver: committed, giveUp: lost });
  }

  /** More has committed, or is on this disk. What is said of another term is about another log. */
  onProgress({ term, commit, durable }: OwnerProgress): void {
    if (!this.#leading || term !== this.#term) return;
    this.#commit = Math.max(this.#commit, commit);
    this.#durable = Math.max(this.#durable, durable);
    const young = this.#appendedAt.findIndex((entry) => entry.index > commit);
    if (young === -1) this.#appendedAt = [];
    else if (young > 0) this.#appendedAt.splice(0, young);
    this.#becomeReady();
    this.#release();
  }

  onApplied(applied: number): void {
    this.#overlay.settle(applied);
  }

  /** The configuration that it decides by; undefined while it can decide nothing. */
  get decidesBy(): ConfigurationView | undefined {
    return this.#readyConfiguration();
  }

  /** How far a move has come in this owner's log (R12). */
  moveState(move: string): MoveState {
    const isSettled = this.#overlay.unsettledMoves.every((row) => row.move !== move);
    return { row: this.#overlay.rangeMove(move), isSettled, inFile: this.#options.ledger.rangeMove(move) };
  }

  /** A range is coming whose marks of card files are not in the file yet: what has been entered for it is not known. */
  get awaitsMarks(): boolean {
    return this.#overlay.unsettledMoves.some(
      ({ direction, move }) => direction === 'in' && (this.#options.ledger.rangeMove(move)?.parts ?? 0) === 0,
    );
  }

  /** The move with which the claim's card has left the group; null while it is here, or unknown. */
  #leftWith(claim: Claim): RangeMoveRow | undefined | null {
    const card = cardOf(claim, this.#overlay);
    const leftBy = card === '' ? '' : this.#overlay.leftBy(card);
    if (leftBy === '') return null;
    return this.#overlay.rangeMove(leftBy);
  }

  #placeOf(range: PanRangeRow, configuration: ConfigurationView): ReturnType<typeof placeOf> {
    return placeOf(this.#options.group, range, configuration.moveOf(range.prefix), {
      stateOf: (move) => this.moveState(move),
      isComing: (prefix) =>
        this.#overlay.unsettledMoves.some(
          // It may have been divided or merged since.
          (move) => move.direction === 'in' && (prefix.startsWith(move.prefix) || move.prefix.startsWith(prefix)),
        ),
    });
  }

  /** No card comes onto file, or is changed by a row that is past, in a group that has not its range (R12). */
  #mayAppend(body: EntryBody): boolean {
    if (body.kind !== 'cards') return true;
    const configuration = this.#options.configuration();
    const places = new Map<string, boolean>();
    const isHere = (bin: string, panCipher: string): boolean => {
      if (configuration === undefined) return true;
      let range = bin === '' ? undefined : configuration.rangeOfAll(bin);
      if (range === undefined) {
        const pan = this.#options.cardKeys.decrypt(panCipher);
        if (pan === undefined) return true;
        range = configuration.rangeOf(pan);
      }
      const known = places.get(range.prefix) ?? this.#placeOf(range, configuration) === 'here';
      places.set(range.prefix, known);
      return known;
    };
    return (
      body.added.every(({ bin, panCipher }) => isHere(bin, panCipher)) &&
      body.changes.every(({ card }) => {
        const row = this.#overlay.unsettledMoves.length === 0 ? undefined : this.#overlay.cardById(card);
        return this.#overlay.leftBy(card) === '' && (row === undefined || isHere('', row.panCipher));
      })
    );
  }

  #apply(index: number, term: number, body: EntryBody): void {
    assert(index === this.#last + 1, `overlay of ${this.#options.group} follows the log without a gap`);
    this.#last = index;
    const decided = body.kind === 'resolution' || body.kind === 'stand-in' ? body.decision : body;
    if ('configIndex' in decided) {
      this.#configIndex = Math.max(this.#configIndex, decided.configIndex);
    }
    this.#overlay.begin(index);
    applyToLedger(this.#overlay, this.#options.group, index, term, body);
  }

  #becomeReady(): void {
    if (this.#ready || !this.#leading || this.#commit < this.#firstOfTerm || this.#firstOfTerm === 0) return;
    this.#ready = true;
  }

  /** The configuration to decide by; undefined while nothing can be decided. */
  #readyConfiguration(): ConfigurationView | undefined {
    this.#becomeReady();
    const configuration = this.#options.configuration();
    const fresh = configuration !== undefined && configuration.index >= this.#configIndex;
    return this.ready && fresh ? configuration : undefined;
  }

  #stalled(): boolean {
    const oldest = this.#appendedAt[0];
    const age = oldest === undefined ? 0 : this.#options.clock.monotonicMs() - oldest.ms;
    return age > this.#options.stalledMs || this.#overlay.depth > maximumOverlay;
  }

  #mayLeave(index: number, durability: Durability): boolean {
    if (index > this.#durable) return false;
    if (index <= this.#commit) return true;
    if (durability === 'quorum') return false;
    const { clock, leaseUntilMs, localTailEntries, localTailMs } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs >= leaseUntilMs()) return false;
    const oldestMs = this.#appendedAt[0]?.ms ?? nowMs;
    return this.#last - this.#commit <= localTailEntries && nowMs - oldestMs <= localTailMs;
  }

  #whenDurable(
    index: number,
    durability: Durability,
    answer: DecidedAnswer,
    attempt: string,
    done: (outcome: OwnerOutcome) => void,
  ): void {
    if (this.#mayLeave(index, durability)) {
      done({ kind: 'answer', answer });
      return;
    }
    const { clock, group, meter } = this.#options;
    const sinceMs = clock.monotonicMs();
    const deliver = (): void => {
      meter?.durable(group, attempt, index, clock.monotonicMs() - sinceMs);
      done({ kind: 'answer', answer });
    };
    const giveUp = (): void => {
      meter?.lost(group, attempt, index, clock.monotonicMs() - sinceMs);
      done({ kind: 'bounce', reason: 'not-the-owner' });
    };
    this.#wait(index, { durability, deliver, giveUp });
  }

  #takeWaiting(): readonly Waiter[] {
    const waiting = [...this.#waiting.values()].flat();
    this.#waiting.clear();
    return waiting;
  }

  #wait(index: number, waiter: Waiter): void {
    const waiters = this.#waiting.get(index);
    if (waiters === undefined) this.#waiting.set(index, [waiter]);
    else waiters.push(waiter);
  }

  /** Delivers what has become durable. Indexes were added in ascending order but for repeats, which join old ones. */
  #release(): void {
    for (const [index, waiters] of this.#waiting) {
      // Beyond this disk nothing may leave, whatever its durability; what follows was appended later.
      if (index > this.#durable) break;
      const staying = waiters.filter((waiter) => !this.#mayLeave(index, waiter.durability));
      if (staying.length === waiters.length) continue;
      if (staying.length === 0) this.#waiting.delete(index);
      else this.#waiting.set(index, staying);
      for (const waiter of waiters) if (!staying.includes(waiter)) waiter.deliver();
    }
  }
}
