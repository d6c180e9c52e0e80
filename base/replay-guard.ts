import type { Clock } from './clock.ts';

/** How far a call's time may lie from the receiver's clock; clocks of a cluster are kept closer than this. */
const windowMs = 30_000;
/** Ids remembered at most: beyond it calls are refused rather than forgotten. */
const rememberedIds = 100_000;

/**
 * Refuses a sealed call that comes a second time: whoever can read and write the bus without having the key could
 * otherwise send an old `cards set --status active` again. A call carries a unique id and the time it was made; it is
 * taken once, within the window.
 */
export class ReplayGuard {
  readonly #clock: Clock;
  readonly #seen = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Why the call is refused, or undefined: then it is remembered. */
  refuse(id: unknown, at: unknown): string | undefined {
    const nowMs = this.#clock.wallMs();
    for (const [known, seenMs] of this.#seen) {
      if (nowMs - seenMs <= 2 * windowMs) break;
      this.#seen.delete(known);
    }
    if (typeof id !== 'string' || typeof at !== 'number') return 'the call has no id and time';
    if (Math.abs(nowMs - at) > windowMs) return 'the call was made more than 30 s ago, or clocks differ by that much';
    if (this.#seen.has(id)) return 'the call was made before';
    if (this.#seen.size >= rememberedIds) return 'too many calls';
    this.#seen.set(id, nowMs);
    return undefined;
  }
}
