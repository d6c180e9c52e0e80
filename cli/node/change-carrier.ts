import type { Clock } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import type { ProposedChange } from '../../config-db/shell-proposal.ts';

/** A change of the configuration that a node keeps until it is known what became of it. */
export interface KeptChange {
  /** Names it for good: the desk at the leader of `config` enters a name once. */
  readonly id: string;
  readonly by: string;
  readonly changes: readonly ProposedChange[];
}

/** Has the leader of `config` enter a change: its log index, 0 when every row is as wanted already; or why not. */
export type Bring = (change: KeptChange, done: (outcome: number | Error) => void) => void;

/** What came of a change for good: a log index, as above, or the reason for which it cannot be entered. */
export type Carried =
  { readonly kind: 'entered'; readonly index: number } | { readonly kind: 'refused'; readonly reason: string };

const retryMs = 1000;

/**
 * Brings changes that a node keeps to the leader of `config`, one at a time, each again until it is entered or refused:
 * nobody is too late for a majority, and whoever is killed in between brings the same change again.
 */
export class ChangeCarrier {
  readonly #clock: Clock;
  readonly #bring: Bring;
  #carrying = false;
  #notBeforeMs = 0;

  constructor(clock: Clock, bring: Bring) {
    this.#clock = clock;
    this.#bring = bring;
  }

  get mayCarry(): boolean {
    return !this.#carrying && this.#clock.monotonicMs() >= this.#notBeforeMs;
  }

  /** `ended` is called when it has come to its end, and not when it has to be brought again. */
  carry(change: KeptChange, ended: (carried: Carried) => void): void {
    this.#carrying = true;
    this.#bring(change, (outcome) => {
      this.#carrying = false;
      // It waits where it is kept until its end is noted there: not every tick brings it once more.
      this.#notBeforeMs = this.#clock.monotonicMs() + retryMs;
      if (typeof outcome === 'number') ended({ kind: 'entered', index: outcome });
      else if (!(outcome instanceof SwitchError) || !outcome.retryable) {
        ended({ kind: 'refused', reason: describeError(outcome) });
      }
    });
  }

  /** The end of the last change is noted: the next one may go at once. */
  goOn(): void {
    this.#notBeforeMs = 0;
  }
}
