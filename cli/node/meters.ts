import type { Clock } from '../../base/clock.ts';
import { Counter, Histogram } from '../../base/metrics.ts';
import type { Remarks } from '../../base/remarks.ts';
import type { WriteMeter } from '../../store/write-queue.ts';
import type { EdgeMeter } from '../../switch/edge.ts';
import type { OwnerMeter } from '../../switch/owner.ts';
import type { SessionMeter } from '../../switch/session.ts';

/*
 * What a process counts while it works, and which of its requests are worth a log line. What is only looked at when
 * somebody asks is in `metrics.ts`.
 */

/** In milliseconds. */
const requestBounds = [2, 5, 10, 20, 50, 100, 250, 500, 1000, 2000, 5000];
const durableBounds = [1, 2, 5, 10, 20, 50, 100, 250, 1000];
const commitBounds = [0.5, 1, 2, 5, 10, 25, 100, 500];
const delayBounds = [1, 5, 10, 25, 50, 100, 300, 1000];
/** Entries in one transaction. */
const groupBounds = [1, 2, 5, 10, 20, 50, 100, 250, 1000];

/** Numbers of other threads than the main one: each has one thread that writes it. */
export class SharedMeters {
  /** To be given to the other threads, which make a `SharedMeters` of it. */
  readonly buffer: SharedArrayBuffer;
  /** Consensus: how late its ticks were. */
  readonly consensusDelayMs: Histogram;
  /** Writer. */
  readonly commitEntries: Histogram;
  readonly commitMs: Histogram;
  readonly writeFailures: Counter;
  readonly writeLocked: Counter;

  constructor(buffer?: SharedArrayBuffer) {
    const bounds = [delayBounds, groupBounds, commitBounds];
    const cells = bounds.reduce((sum, each) => sum + Histogram.cells(each), 0) + 2;
    this.buffer = buffer ?? new SharedArrayBuffer(cells * Float64Array.BYTES_PER_ELEMENT);
    let at = 0;
    const take = (length: number): Float64Array => {
      const taken = new Float64Array(this.buffer, at * Float64Array.BYTES_PER_ELEMENT, length);
      at += length;
      return taken;
    };
    const histogram = (of: readonly number[]): Histogram => new Histogram(of, take(Histogram.cells(of)));
    this.consensusDelayMs = histogram(delayBounds);
    this.commitEntries = histogram(groupBounds);
    this.commitMs = histogram(commitBounds);
    this.writeFailures = new Counter(take(1));
    this.writeLocked = new Counter(take(1));
  }

  get writer(): WriteMeter {
    return {
      committed: (entries, durationMs) => {
        this.commitEntries.observe(entries);
        this.commitMs.observe(durationMs);
      },
      locked: () => {
        this.writeLocked.add();
      },
      failed: () => {
        this.writeFailures.add();
      },
    };
  }
}

/** Measures how late a thread comes to what it does every so often: what else in it had to wait as long. */
export class LoopDelay {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #histogram: Histogram;
  #lastMs: number | undefined;

  constructor(clock: Clock, intervalMs: number, histogram: Histogram) {
    this.#clock = clock;
    this.#intervalMs = intervalMs;
    this.#histogram = histogram;
  }

  /** To be called every `intervalMs`; returns how late it was, in milliseconds. */
  tick(): number {
    const nowMs = this.#clock.monotonicMs();
    const delayMs = Math.max(0, nowMs - (this.#lastMs ?? nowMs) - this.#intervalMs);
    this.#lastMs = nowMs;
    this.#histogram.observe(delayMs);
    return delayMs;
  }
}

/** A request that took longer is logged, at its edge and at its owner. */
const slowMs = 1000;
/** Message types and response codes that are told apart: a bound on what acquirers can make it remember. */
const maximumKinds = 64;
const otherKind = 'other';

/** What the main thread counts of requests; slow and failed ones get a log line at their edge and at their owner. */
export class RequestMeters implements SessionMeter, EdgeMeter, OwnerMeter {
  readonly requestMs = new Histogram(requestBounds);
  readonly durableMs = new Histogram(durableBounds);
  readonly loopDelayMs = new Histogram(delayBounds);
  readonly losses = new Counter();
  readonly overloads = new Counter();
  readonly #requests = new Map<string, number>();
  readonly #answers = new Map<string, Map<string, number>>();
  readonly #remarks: Remarks;

  constructor(remarks: Remarks) {
    this.#remarks = remarks;
  }

  /** By MTI. */
  get requests(): ReadonlyMap<string, number> {
    return this.#requests;
  }

  /** By MTI of the answer and response code. */
  get answers(): ReadonlyMap<string, ReadonlyMap<string, number>> {
    return this.#answers;
  }

  request(mti: string): void {
    count(this.#requests, mti);
  }

  answer(mti: string, responseCode: string): void {
    let codes = this.#answers.get(mti);
    if (codes === undefined) {
      const kind = this.#answers.size < maximumKinds ? mti : otherKind;
      codes = this.#answers.get(kind) ?? new Map<string, number>();
      this.#answers.set(kind, codes);
    }
    count(codes, responseCode);
  }

  answered(answered: Parameters<EdgeMeter['answered']>[0]): void {
    const { durationMs, responseCode, asked, ...request } = answered;
    this.requestMs.observe(durationMs);
    if (responseCode !== '91' && durationMs < slowMs) return;
    const details = { ...request, responseCode, owner: asked, durationMs: Math.round(durationMs) };
    if (responseCode === '91') this.#remarks.say('warn', 'inoperative', details, 'a request was answered 91');
    else this.#remarks.say('warn', 'slow-request', details, 'a request took long');
  }

  refused(reason: string): void {
    this.#remarks.say('warn', 'inoperative', { responseCode: '91', reason }, 'a request was answered 91');
  }

  durable(group: string, attempt: string, index: number, durationMs: number): void {
    this.durableMs.observe(durationMs);
    if (durationMs < slowMs) return;
    const details = { group, attempt, index, durationMs: Math.round(durationMs) };
    this.#remarks.say('warn', 'slow-commit', details, 'a decision took long to become durable');
  }

  lost(group: string, attempt: string, index: number, durationMs: number): void {
    this.losses.add();
    const details = { group, attempt, index, durationMs: Math.round(durationMs) };
    this.#remarks.say('warn', 'decision-open', details, 'leadership ended before a decision was durable');
  }

  overloaded(group: string, attempt: string): void {
    this.overloads.add();
    this.#remarks.say('warn', 'overloaded', { group, attempt }, 'not decided: too much waits for a majority');
  }

  settled(...[group, claim, outcome]: Parameters<OwnerMeter['settled']>): void {
    if (claim.kind === 'undelivered') {
      const details = { group, attempt: claim.attempt, outcome };
      this.#remarks.say('info', 'undelivered', details, 'entered: no acquirer has this approval');
    } else if (claim.kind === 'stand-in') {
      const details = { group, attempt: claim.decision.attempt, outcome };
      this.#remarks.say('info', 'stand-in-entered', details, 'entered: an approval in stand-in');
    } else if (claim.kind === 'restriction') {
      const details = { group, restriction: claim.id, by: claim.by, outcome };
      this.#remarks.say('info', 'restriction-entered', details, 'entered: a restriction that worked at a node already');
    } else {
      const details = { group, term: claim.term, index: claim.index, outcome };
      this.#remarks.say('info', 'salvaged', details, 'settled: an entry that a log had lost');
    }
  }
}

function count(counts: Map<string, number>, kind: string): void {
  const known = counts.get(kind);
  if (known !== undefined) counts.set(kind, known + 1);
  else if (counts.size < maximumKinds) counts.set(kind, 1);
  else counts.set(otherKind, (counts.get(otherKind) ?? 0) + 1);
}
