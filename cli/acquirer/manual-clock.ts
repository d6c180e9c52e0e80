import type { Clock, Timer } from '../../base/clock.ts';

/** A clock for tests: time passes only when they say so. `soon` is the event loop's, so that sockets go on. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #startWallMs: number;
  #timers: { readonly atMs: number; readonly action: () => void }[] = [];

  constructor(startWallMs = Date.UTC(2026, 2, 1, 12)) {
    this.#startWallMs = startWallMs;
  }

  wallMs(): number {
    return this.#startWallMs + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, action };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  soon(action: () => void): void {
    setImmediate(action);
  }

  /** Runs every timer that falls due, in order, each at its own time. */
  advance(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    for (;;) {
      const due = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((left, right) => left.atMs - right.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.action();
    }
    this.#nowMs = untilMs;
  }
}
