import { createHash } from 'node:crypto';

interface Scheduled {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

/** Lines of the trace that are kept for a report; with a `print` every line is given to it. */
const keptLines = 4_000;

/**
 * The one order in which everything of a simulation happens: by simulated time, then by when it was asked for. The
 * trace is what happened, one line each; two runs of one seed have the same trace, and its hash says so.
 */
export class Scheduler {
  #nowMs = 0;
  #order = 0;
  readonly #heap: Scheduled[] = [];
  readonly #hash = createHash('sha256');
  readonly #print: ((line: string) => void) | undefined;
  #tail: string[] = [];
  #unhashed = '';
  #lines = 0;

  constructor(print?: (line: string) => void) {
    this.#print = print;
  }

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

  /** Runs events for `durationMs`, or until `done` says so; `done` is asked before each event. */
  run(durationMs: number, done: () => boolean = () => false): void {
    const untilMs = this.#nowMs + durationMs;
    for (;;) {
      const next = this.#heap[0];
      if (done()) return;
      if (next === undefined || next.atMs > untilMs) break;
      this.#removeFirst();
      this.#nowMs = next.atMs;
      next.action();
    }
    this.#nowMs = untilMs;
  }

  trace(who: string, what: string): void {
    const line = `${this.#nowMs.toFixed(3).padStart(10)} ${who.padEnd(8)} ${what}`;
    this.#lines += 1;
    this.#unhashed += line;
    if (this.#unhashed.length > 8_192) this.#flush();
    this.#tail.push(line);
    if (this.#tail.length > 2 * keptLines) this.#tail = this.#tail.slice(-keptLines);
    this.#print?.(line);
  }

  /** The last lines of the trace, and how many there were. */
  traceTail(lines: number): string {
    return `${this.#lines} lines, the last:\n${this.#tail.slice(-lines).join('\n')}`;
  }

  traceHash(): string {
    this.#flush();
    return this.#hash.copy().digest('hex');
  }

  #flush(): void {
    this.#hash.update(this.#unhashed);
    this.#unhashed = '';
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
