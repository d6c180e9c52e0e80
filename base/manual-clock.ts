import type { Clock, Timer } from './clock.ts';
import { realClock } from './real.ts';

interface Due {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

/**
 * A clock for tests and simulations: time passes only when they say so, and what is due runs in one order, by time,
 * then by when it was set. `soon` waits for `runSoon` or `advance`; with `soon: 'event-loop'` it is the event loop's
 * own, for tests that have real sockets.
 */
export class ManualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  readonly #startWallMs: number;
  readonly #eventLoop: boolean;
  #timers: Due[] = [];
  #soon: (() => void)[] = [];

  constructor(options: { readonly startWallMs?: number; readonly soon?: 'manual' | 'event-loop' } = {}) {
    this.#startWallMs = options.startWallMs ?? Date.UTC(2026, 2, 1, 12);
    this.#eventLoop = options.soon === 'event-loop';
  }

  /** How many timers are set: a test that ends with more than it began with has found a leak. */
  get timers(): number {
    return this.#timers.length;
  }

  wallMs(): number {
    return this.#startWallMs + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, action };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  soon(action: () => void): void {
    if (this.#eventLoop) realClock.soon(action);
    else this.#soon.push(action);
  }

  /** Runs what was asked for with `soon`, and what that asks for, until nothing is left; time stands still. */
  runSoon(): void {
    for (let action = this.#soon.shift(); action !== undefined; action = this.#soon.shift()) action();
  }

  /** When the next timer falls due on the monotonic clock, or undefined when none is set. */
  nextTimerMs(): number | undefined {
    return this.#next()?.atMs;
  }

  /** Runs every timer that falls due, in order, each at its own time, and whatever is `soon` before and after each. */
  advance(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    this.runSoon();
    for (let due = this.#next(); due !== undefined && due.atMs <= untilMs; due = this.#next()) {
      const { atMs, action } = due;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowMs = Math.max(this.#nowMs, atMs);
      action();
      this.runSoon();
    }
    this.#nowMs = untilMs;
  }

  #next(): Due | undefined {
    return this.#timers.reduce<Due | undefined>(
      (first, timer) =>
        first === undefined || timer.atMs < first.atMs || (timer.atMs === first.atMs && timer.order < first.order)
          ? timer
          : first,
      undefined,
    );
  }
}
