import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { Violation } from './violation.ts';

/** What an observer sees of a cluster at one moment. */
export interface Situation {
  readonly nowMs: number;
  /** Messages are neither lost nor late now. */
  readonly isCalm: boolean;
  /** Processes that run, with no thread that stands or has stood lately. */
  readonly sound: ReadonlySet<NodeId>;
  /** Of two processes, whether messages get from the one to the other and back. */
  readonly areConnected: (one: NodeId, other: NodeId) => boolean;
  /**
   * Whether anything at all gets to the one from the other, however late: what a process has sent before it died is heard
   * after its death, and CheckQuorum counts who is heard, not when it spoke (the lease counts that, R3).
   */
  readonly hears: (one: NodeId, other: NodeId) => boolean;
  readonly leaders: readonly {
    readonly id: NodeId;
    readonly group: GroupId;
    readonly term: number;
    readonly voters: readonly NodeId[];
  }[];
}

/** How long everything around a leader has been well before its loss of leadership is a finding. */
const wellForMs = 1_500;
/** A member that starts in a later term explains a change of leader for so long. */
const explainsMs = 3_000;

interface Leadership {
  readonly term: number;
  /** Since when nothing has been wrong around the leader; undefined: something is. */
  wellSinceMs: number | undefined;
  /** Since when it has had no way to a majority; undefined: it has one. */
  cutOffSinceMs: number | undefined;
}

/**
 * Leadership is neither lost without a reason nor kept without a majority (R6): a leader that has been connected to a
 * sound majority is not deposed by one that was cut off and comes back (PreVote), and one that has had no majority leads
 * no longer after an election timeout (CheckQuorum).
 */
export class Stability {
  readonly #cutOffLimitMs: number;
  readonly #leaderships = new Map<string, Leadership>();
  /** Leaderships that were to be handed over. */
  readonly #handOvers = new Set<string>();
  readonly #startsAhead = new Map<GroupId, number>();

  /** `cutOffLimitMs`: how long a leader may take to notice that it has no majority. */
  constructor(cutOffLimitMs: number) {
    this.#cutOffLimitMs = cutOffLimitMs;
  }

  /** Call every few tens of milliseconds. */
  sample(situation: Situation): void {
    const { nowMs, leaders } = situation;
    const present = new Set<string>();
    for (const { id, group, term, voters } of leaders) {
      const key = `${id} ${group}`;
      present.add(key);
      let leadership = this.#leaderships.get(key);
      if (leadership?.term !== term) {
        leadership = { term, wellSinceMs: undefined, cutOffSinceMs: undefined };
        this.#handOvers.delete(key);
        this.#leaderships.set(key, leadership);
      }
      const majority = Math.floor(voters.length / 2) + 1;
      const connected = voters.filter((voter) => voter === id || situation.areConnected(id, voter));
      const sound = connected.filter((voter) => situation.sound.has(voter));
      const isWell = situation.isCalm && situation.sound.has(id) && sound.length >= majority;
      leadership.wellSinceMs = isWell ? (leadership.wellSinceMs ?? nowMs) : undefined;
      const heard = voters.filter((voter) => voter === id || situation.hears(id, voter));
      const isCutOff = heard.length < majority && situation.sound.has(id);
      leadership.cutOffSinceMs = isCutOff ? (leadership.cutOffSinceMs ?? nowMs) : undefined;
      if (leadership.cutOffSinceMs !== undefined && nowMs - leadership.cutOffSinceMs > this.#cutOffLimitMs) {
        throw new Violation(`${id} still leads ${group}, and has had no majority for ${this.#cutOffLimitMs} ms`);
      }
    }
    for (const key of this.#leaderships.keys()) if (!present.has(key)) this.#leaderships.delete(key);
  }

  /**
   * The leader has begun to hand the group over. When that comes to nothing, its target may have stood for election all
   * the same, unheard, and depose the leader whenever it is heard again: it explains whatever comes in this term.
   */
  handsOver(id: NodeId, group: GroupId): void {
    this.#handOvers.add(`${id} ${group}`);
  }

  /**
   * A member has started whose disk knows a later term than the leader's: it had been asked for its vote, or had asked,
   * before it went down. Nobody can lead over its head.
   */
  startsAhead(group: GroupId, nowMs: number): void {
    this.#startsAhead.set(group, nowMs);
  }

  /** A process that runs leads no longer. */
  deposed(id: NodeId, group: GroupId, nowMs: number): void {
    const key = `${id} ${group}`;
    const leadership = this.#leaderships.get(key);
    this.#leaderships.delete(key);
    const startedMs = this.#startsAhead.get(group);
    const isExplained = this.#handOvers.delete(key) || (startedMs !== undefined && nowMs - startedMs < explainsMs);
    if (leadership?.wellSinceMs === undefined || isExplained) return;
    const wellMs = nowMs - leadership.wellSinceMs;
    if (wellMs >= wellForMs) {
      throw new Violation(
        `${id} was deposed as leader of ${group} in term ${leadership.term}: all had been well for ${wellMs.toFixed(0)} ms`,
      );
    }
  }
}
