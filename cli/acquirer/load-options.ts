import type { Clock } from '../../base/clock.ts';
import type { AcquirerCard } from './cards.ts';
import type { Mix } from './load-mix.ts';
import type { LoadCounts } from './load-summary.ts';
import type { Target } from './usage.ts';

export interface LoadOptions {
  readonly targets: readonly Target[];
  /** Over all targets, which take turns. Each connection has its own terminal. */
  readonly connections: number;
  readonly cards: readonly AcquirerCard[];
  /** For the journal: which file the card lines refer to. */
  readonly cardFile: string;
  readonly mix: Mix;
  /** `rate`: an open loop, requests per second whatever the answers do. `max`: a closed loop. */
  readonly pace:
    { readonly kind: 'rate'; readonly perSecond: number } | { readonly kind: 'max'; readonly inFlight: number };
  /** New requests end at the first of these that is given; one must be. */
  readonly durationMs?: number;
  readonly count?: number;
  readonly seed: number;
  /** Undefined: no journal. */
  readonly journalFile: string | undefined;
  /** An attempt without an answer in this time is repeated at another node. */
  readonly requestTimeoutMs: number;
  /** A request without an answer in this time since it was first sent is given up. */
  readonly giveUpMs: number;
  /** Whether a request that was given up and may have been approved is reversed by 0420. */
  readonly reverseUnanswered: boolean;
  /** How long an interrupted load waits for the answers in flight. */
  readonly drainMs?: number;
  readonly clock: Clock;
  /** Ends the load early: nothing new is sent. */
  readonly signal?: AbortSignal;
  /** Called when the load begins, with what can be done to it while it goes on. */
  readonly onControl?: (control: LoadControl) => void;
  /** Called each second of `clock`. */
  readonly onProgress?: (counts: LoadCounts, elapsedMs: number) => void;
}

/** What an acquirer does before a node goes down for maintenance, and after. */
export interface LoadControl {
  /**
   * Sends the node nothing more, waits for the answers that it still owes, and signs off at each of its connections
   * (0800, DE 70 002). Requests go to the other nodes meanwhile.
   */
  signOff(node: string): Promise<void>;
  /** Signs on (001) and sends to the node again. */
  signOn(node: string): Promise<void>;
}
