import { availableParallelism, loadavg } from 'node:os';
import { Worker } from 'node:worker_threads';

import { delay, type Clock } from '../../base/clock.ts';
import type { GroupId } from '../../base/identifiers.ts';
import type { CompareCall, CompareReply, SnapshotCall } from '../../compare/protocol.ts';
import type { FromReaderThread, ToReaderThread } from './compare-reader-thread.ts';

/** How a side works on one compare. */
export interface ReaderSettings {
  /** Threads that read at a time. */
  readonly workers: number;
  /** Load average for each processor above which an answer waits; undefined: none. */
  readonly maximumLoad?: number | undefined;
}

/** Threads without a snapshot are ended after this time. */
const idleMs = 60_000;
/** Settings of a compare whose mark never came. */
const settingsKeptMs = 120_000;
/** An answer waits no longer for a lower load: whoever asked would take this side for gone. */
const loadWaitMs = 8_000;
const loadPollMs = 250;

/** Work on many rows; everything else is answered by whoever has the compare's desk. */
function isHeavy(call: CompareCall): call is SnapshotCall {
  return ['digests', 'blocks', 'split', 'chain'].includes(call.kind);
}

type Request = ToReaderThread extends infer Each ? (Each extends unknown ? Omit<Each, 'call'> : never) : never;

/**
 * The threads in which one node reads its snapshots for compares, each with a connection of its own; each compare and
 * group is one name. All are opened while apply stands at the mark, so that all show the same rows.
 */
export class CompareReaders {
  readonly #clock: Clock;
  readonly #load: () => number;
  #threads: ReaderThread[] = [];
  readonly #settings = new Map<string, ReaderSettings & { readonly atMs: number }>();
  readonly #open = new Map<string, readonly ReaderThread[]>();
  #usedMs = 0;

  /** `load` is the machine's load average for each processor. */
  constructor(clock: Clock, load: () => number = () => (loadavg()[0] ?? 0) / availableParallelism()) {
    this.#clock = clock;
    this.#load = load;
  }

  /** Before the mark: threads take some time to start, and apply stands at the mark. Resolves when they have. */
  async prepare(compare: string, settings: ReaderSettings): Promise<void> {
    this.#settings.set(compare, { ...settings, atMs: this.#clock.monotonicMs() });
    this.#start(settings.workers);
    await Promise.all(this.#threads.map((thread) => thread.ask({ kind: 'close', name: '' })));
  }

  async open(compare: string, group: GroupId, path: string, index: number): Promise<void> {
    const { workers } = this.#settings.get(compare) ?? {};
    // The mark of a repair, which asks for few rows.
    if (workers === undefined) return;
    this.#start(workers);
    const name = nameOf(compare, group);
    const opened = await Promise.all(
      this.#threads.slice(0, workers).map(async (thread) => {
        const reply = await thread.ask({ kind: 'open', name, path, group, index });
        return reply.kind === 'opened' && reply.isOpen ? [thread] : [];
      }),
    );
    this.#open.set(name, opened.flat());
  }

  /** Undefined when no thread can answer this call. */
  async answer(call: CompareCall): Promise<CompareReply | undefined> {
    if (!isHeavy(call) || call.copy !== undefined) return undefined;
    const threads = (this.#open.get(nameOf(call.compare, call.group)) ?? []).filter(({ hasEnded }) => !hasEnded);
    const [first, ...others] = threads;
    if (first === undefined) return undefined;
    this.#usedMs = this.#clock.monotonicMs();
    await this.#untilCalm(this.#settings.get(call.compare)?.maximumLoad);
    const idlest = others.reduce((best, each) => (each.waiting < best.waiting ? each : best), first);
    const reply = await idlest.ask({ kind: 'answer', name: nameOf(call.compare, call.group), asked: call });
    return reply.kind === 'answered' ? reply.reply : undefined;
  }

  close(compare: string, group: string): void {
    const name = nameOf(compare, group);
    for (const thread of this.#open.get(name) ?? []) void thread.ask({ kind: 'close', name });
    this.#open.delete(name);
  }

  /** Ends what nobody uses any more. Call every second or so. */
  tend(): void {
    const nowMs = this.#clock.monotonicMs();
    for (const [compare, { atMs }] of this.#settings) {
      if (nowMs - atMs > settingsKeptMs && ![...this.#open.keys()].some((name) => name.startsWith(`${compare} `))) {
        this.#settings.delete(compare);
      }
    }
    if (this.#open.size === 0 && nowMs - this.#usedMs > idleMs) this.end();
  }

  end(): void {
    for (const thread of this.#threads) thread.end();
    this.#threads = [];
    this.#open.clear();
  }

  #start(workers: number): void {
    this.#usedMs = this.#clock.monotonicMs();
    this.#threads = this.#threads.filter(({ hasEnded }) => !hasEnded);
    while (this.#threads.length < workers) this.#threads.push(new ReaderThread());
  }

  async #untilCalm(maximumLoad: number | undefined): Promise<void> {
    if (maximumLoad === undefined) return;
    const deadlineMs = this.#clock.monotonicMs() + loadWaitMs;
    while (this.#load() > maximumLoad && this.#clock.monotonicMs() < deadlineMs) await delay(this.#clock, loadPollMs);
  }
}

function nameOf(compare: string, group: string): string {
  return `${compare} ${group}`;
}

class ReaderThread {
  readonly #worker = new Worker(new URL('./compare-reader-thread.ts', import.meta.url));
  readonly #waiting = new Map<number, (reply: FromReaderThread) => void>();
  #next = 1;
  #ended = false;

  constructor() {
    this.#worker.on('message', (reply: FromReaderThread) => {
      this.#waiting.get(reply.call)?.(reply);
      this.#waiting.delete(reply.call);
    });
    // It may have run out of memory: another answers then.
    this.#worker.on('error', () => undefined);
    this.#worker.on('exit', () => {
      this.#ended = true;
      for (const [call, resolve] of this.#waiting) resolve({ call, kind: 'failed', message: 'the thread has ended' });
      this.#waiting.clear();
    });
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  ask(request: Request): Promise<FromReaderThread> {
    const call = this.#next++;
    if (this.#ended) return Promise.resolve({ call, kind: 'failed', message: 'the thread has ended' });
    return new Promise((resolve) => {
      this.#waiting.set(call, resolve);
      this.#worker.postMessage({ ...request, call } satisfies ToReaderThread);
    });
  }

  end(): void {
    void this.#worker.terminate();
  }
}
