import { createHash } from 'node:crypto';

import type { Clock, Timer } from '../../base/clock.ts';

interface Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

/**
 * The one order in which everything of a simulation happens: by simulated time, then by when it was asked for. The
 * trace is what happened, one line each; two runs of one seed have the same trace, and its hash says so.
 */
export class Scheduler {
  #nowMs = 0;
  #order = 0;
  readonly #heap: Scheduled[] = [];
  readonly #hash = createHash('sha256');
  readonly #tail: string[] = [];
  #lines = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, action: () => void): void {
    const event = { atMs: this.#nowMs + delayMs, order: this.#order++, action };
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  /** Runs events for `durationMs`, or until `done` says so. */
  run(durationMs: number, done: () => boolean = () => false): void {
    const untilMs = this.#nowMs + durationMs;
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs || done()) break;
      this.#removeFirst();
      this.#nowMs = next.atMs;
      next.action();
    }
    if (!done()) this.#nowMs = untilMs;
  }

  trace(who: string, what: string): void {
    const line = `${this.#nowMs.toFixed(3).padStart(10)} ${who.padEnd(8)} ${what}`;
    this.#hash.update(line);
    this.#lines += 1;
    this.#tail.push(line);
    if (this.#tail.length > 2000) this.#tail.splice(0, 1000);
  }

  /** The last lines of the trace, and how many there were. */
  traceTail(lines = 120): string {
    return `${this.#lines} lines, the last:\n${this.#tail.slice(-lines).join('\n')}`;
  }

  traceHash(): string {
    return this.#hash.copy().digest('hex');
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const [left, right] = [heap[2 * at + 1], heap[2 * at + 2]];
      const smaller = right !== undefined && left !== undefined && isBefore(right, left) ? right : left;
      if (smaller === undefined || !isBefore(smaller, last)) break;
      heap[at] = smaller;
      at = smaller === left ? 2 * at + 1 : 2 * at + 2;
    }
    heap[at] = last;
  }
}

function isBefore(one: Scheduled, other: Scheduled): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/** The clock of one process from start to crash: what it has asked for dies with it. */
export class ProcessClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #run: (action: () => void) => void;
  #stopped = false;

  /** `run` calls each action, and sees what it throws. */
  constructor(scheduler: Scheduler, run: (action: () => void) => void) {
    this.#scheduler = scheduler;
    this.#run = run;
  }

  stop(): void {
    this.#stopped = true;
  }

  wallMs(): number {
    return Date.UTC(2026, 2, 1, 12) + Math.floor(this.#scheduler.nowMs);
  }

  monotonicMs(): number {
    return this.#scheduler.nowMs;
  }

  after(delayMs: number, action: () => void): Timer {
    let cancelled = false;
    this.#scheduler.after(delayMs, () => {
      if (!cancelled && !this.#stopped) this.#run(action);
    });
    return {
      cancel: () => {
        cancelled = true;
      },
    };
  }

  soon(action: () => void): void {
    this.after(0, action);
  }
}
