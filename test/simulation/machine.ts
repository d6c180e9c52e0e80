import type { Clock, Timer } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { Scheduler } from './scheduler.ts';

/** What the wall clocks show when a simulation begins, unless they are wrong. */
const beginWallMs = Date.UTC(2026, 2, 1, 12);

/**
 * The clocks of one machine: the monotonic one runs a little fast or slow, the wall clock jumps when the seed says so.
 * They outlive the processes that read them.
 */
export class Machine {
  /** What the wall clock is wrong by; changed at any time. */
  wallErrorMs = 0;
  readonly rate: number;
  readonly #scheduler: Scheduler;
  readonly #originMs: number;

  /** `rate`: milliseconds that the monotonic clock shows in one; `originMs`: what it shows at the beginning. */
  constructor(scheduler: Scheduler, rate: number, originMs: number) {
    this.#scheduler = scheduler;
    this.rate = rate;
    this.#originMs = originMs;
  }

  monotonicMs(): number {
    return this.#originMs + this.#scheduler.nowMs * this.rate;
  }

  wallMs(): number {
    return beginWallMs + Math.floor(this.#scheduler.nowMs * this.rate + this.wallErrorMs);
  }
}

/**
 * One thread of a process, from the process's start to its end, with the machine's clocks: what it has asked for dies
 * with it. While it is stalled nothing happens in it; what came meanwhile happens when the stall is over, in order.
 */
export class Thread implements Clock {
  readonly #scheduler: Scheduler;
  readonly #machine: Machine;
  readonly #run: (action: () => void) => void;
  #stalledUntilMs = 0;
  #backlog: (() => void)[] = [];
  #stopped = false;

  /** `run` calls each action, and sees what it throws. */
  constructor(scheduler: Scheduler, machine: Machine, run: (action: () => void) => void) {
    this.#scheduler = scheduler;
    this.#machine = machine;
    this.#run = run;
  }

  stop(): void {
    this.#stopped = true;
    this.#backlog = [];
  }

  /** Nothing happens in the thread for so long. A longer stall that is under way stays. */
  stall(durationMs: number): void {
    const untilMs = this.#scheduler.nowMs + durationMs;
    if (untilMs <= this.#stalledUntilMs) return;
    this.#stalledUntilMs = untilMs;
    this.#scheduler.after(durationMs, () => {
      this.#catchUp();
    });
  }

  /** When the last stall ended or will end, in simulated time. */
  get stalledUntilMs(): number {
    return this.#stalledUntilMs;
  }

  /** Something from outside reaches the thread: it happens now, or after the stall. */
  enter(action: () => void): void {
    if (this.#stopped) return;
    if (this.#isStalled()) this.#backlog.push(action);
    else this.#run(action);
  }

  wallMs(): number {
    return this.#machine.wallMs();
  }

  monotonicMs(): number {
    return this.#machine.monotonicMs();
  }

  after(delayMs: number, action: () => void): Timer {
    let cancelled = false;
    const unlessCancelled = (): void => {
      if (!cancelled) action();
    };
    this.#scheduler.after(delayMs / this.#machine.rate, () => {
      if (!cancelled) this.enter(unlessCancelled);
    });
    return {
      cancel: () => {
        cancelled = true;
      },
    };
  }

  soon(action: () => void): void {
    this.#scheduler.after(0, () => {
      this.enter(action);
    });
  }

  /** What is called happens in this thread, in the order of the calls, a little after them. */
  channel(random: Random): (action: () => void) => void {
    let lastMs = 0;
    return (action) => {
      const { nowMs } = this.#scheduler;
      lastMs = Math.max(lastMs, nowMs + 0.02 + random.below(400) / 1000);
      this.#scheduler.after(lastMs - nowMs, () => {
        this.enter(action);
      });
    };
  }

  #isStalled(): boolean {
    return this.#scheduler.nowMs < this.#stalledUntilMs || this.#backlog.length > 0;
  }

  #catchUp(): void {
    if (this.#scheduler.nowMs < this.#stalledUntilMs) return;
    for (let action = this.#backlog.shift(); action !== undefined; action = this.#backlog.shift()) {
      if (this.#stopped) return;
      this.#run(action);
      // What it did may have stalled the thread anew.
      if (this.#scheduler.nowMs < this.#stalledUntilMs) return;
    }
  }
}
