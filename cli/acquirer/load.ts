import type { Clock, Timer } from '../../base/clock.ts';
import { delay } from '../../base/clock.ts';
import { assert, SwitchError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { contradicts, echoFaults, watchKey } from './answer-checks.ts';
import type { Decision } from './answer-checks.ts';
import { openConnection } from './connection.ts';
import type { AcquirerConnection, Stray } from './connection.ts';
import { JournalWriter } from './journal.ts';
import { LoadPlan } from './load-plan.ts';
import type { PlannedRequest } from './load-plan.ts';
import type { LoadOptions } from './load-options.ts';
import { LoadCounts } from './load-summary.ts';
import type { LoadSummary } from './load-summary.ts';
import { networkMessage, repeatOf, textOf } from './message-parts.ts';
import { Times } from './times.ts';
import type { Target } from './usage.ts';

/**
 * Runs an acquirer against the switch and says what came of it. Rejects with NODE_UNREACHABLE when no target can be
 * reached at the start, and with CommandFailure when the journal cannot be written; everything after that is in the
 * summary.
 */
export function runLoad(options: LoadOptions): Promise<LoadSummary> {
  return new LoadRun(options).run();
}

/** One connection's place: when its connection is lost, it opens another to the same node. */
interface Lane {
  readonly index: number;
  readonly target: Target;
  connection: AcquirerConnection | undefined;
  /** Before the next try to connect. */
  waitMs: number;
}

/** A request on its way. */
interface Journey {
  readonly id: string;
  readonly request: PlannedRequest;
  readonly startedMs: number;
  attempts: number;
  /** Where the last attempt went: the next one goes to another node if it can. */
  lastNode: string | undefined;
}

const tickMs = 1;
const progressMs = 1_000;
const drainDefaultMs = 5_000;
const reconnectFirstMs = 50;
const reconnectMostMs = 1_000;
const waitForLaneMs = 20;
const disagreementsKept = 100_000;
const noCard = { line: 0, masked: '' };
class LoadRun {
  readonly #options: LoadOptions;
  readonly #clock: Clock;
  readonly #plan: LoadPlan;
  readonly #counts = new LoadCounts();
  #journal: JournalWriter | undefined;
  readonly #run: string;
  readonly #lanes: readonly Lane[];
  readonly #times: Times;
  /** Decisions that a repeat or a late answer can still be held against, by duplicate key. Bounded. */
  readonly #watched = new Map<string, { readonly id: string; readonly decision: Decision | undefined }>();
  /** Requests that no open connection takes now. */
  readonly #stranded = new Set<Journey>();
  #strandedTimer: Timer | undefined;
  /** Nodes that get nothing now. */
  readonly #signedOff = new Set<string>();
  #nextLane = 0;
  #active = 0;
  #sending = true;
  /** No attempt is begun any more. */
  #ending = false;
  #interrupted = false;
  #idle: (() => void) | undefined;

  constructor(options: LoadOptions) {
    const { clock, seed, connections, targets } = options;
    assert(targets.length > 0 && connections > 0, 'a load has connections');
    assert(options.durationMs !== undefined || options.count !== undefined, 'a load ends');
    this.#options = options;
    this.#clock = clock;
    this.#times = new Times(clock);
    this.#run = `${clock.wallMs().toString(36)}.${seed.toString(36)}`;
    this.#plan = new LoadPlan({
      cards: options.cards,
      mix: options.mix,
      terminals: connections,
      seed,
      random: seededRandom(seed),
      clock,
    });
    this.#lanes = Array.from({ length: connections }, (_, index) => {
      const target = targets[index % targets.length];
      assert(target !== undefined, 'a load has targets');
      return { index, target, connection: undefined, waitMs: reconnectFirstMs };
    });
  }

  async run(): Promise<LoadSummary> {
    const { seed, signal, journalFile, cardFile } = this.#options;
    try {
      await this.#connectAll();
      // Only now: a load that reaches nobody leaves no file behind.
      if (journalFile !== undefined) this.#journal = new JournalWriter(journalFile);
      const startedAt = this.#times.now();
      this.#journal?.append({ kind: 'run', run: this.#run, startedAt, seed, cardFile });
      const startedMs = this.#clock.monotonicMs();
      this.#options.onControl?.({ signOff: (node) => this.#signOff(node), signOn: (node) => this.#signOn(node) });
      const progress = this.#reportProgress(startedMs);
      const stop = (): void => {
        this.#interrupted = true;
        this.#sending = false;
      };
      signal?.addEventListener('abort', stop);
      if (signal?.aborted === true) stop();
      await this.#send(startedMs);
      await this.#drain();
      const durationMs = this.#clock.monotonicMs() - startedMs;
      signal?.removeEventListener('abort', stop);
      progress.cancel();
      const { requests, answers } = this.#counts;
      this.#journal?.append({ kind: 'end', run: this.#run, at: this.#times.now(), requests, answers });
      this.#journal?.flush();
      return this.#counts.summary({
        seed,
        startedAt,
        durationMs,
        interrupted: this.#interrupted,
        journal: journalFile,
      });
    } finally {
      this.#ending = true;
      for (const { connection } of this.#lanes) connection?.destroy();
      this.#journal?.close();
    }
  }

  // ---- pace ----------------------------------------------------------------------------------------------------------

  async #send(startedMs: number): Promise<void> {
    const { pace, durationMs = Infinity, count = Infinity, signal } = this.#options;
    const over = (): boolean =>
      !this.#sending ||
      this.#counts.requests - this.#counts.reversalsOfUnanswered >= count ||
      this.#clock.monotonicMs() - startedMs >= durationMs ||
      this.#journal?.failure !== undefined;
    if (pace.kind === 'max') {
      const stopTimers: (() => void)[] = [];
      await new Promise<void>((resolve) => {
        const fill = (): void => {
          while (this.#active < pace.inFlight && !over()) {
            const lane = this.#freeLane(undefined);
            if (lane === undefined) break;
            this.#start(this.#plan.next(lane.index), lane);
          }
          if (over()) {
            this.#refill = undefined;
            resolve();
          } else if (this.#active === 0) {
            this.#clock.after(tickMs, fill);
          }
        };
        this.#refill = fill;
        // Ends an idle closed loop too: one whose every lane is congested or gone.
        signal?.addEventListener('abort', fill, { once: true });
        const end = Number.isFinite(durationMs) ? this.#clock.after(durationMs, fill) : undefined;
        stopTimers.push(() => {
          signal?.removeEventListener('abort', fill);
          end?.cancel();
        });
        fill();
      });
      for (const stop of stopTimers) stop();
    } else {
      for (let begun = 0; !over();) {
        const elapsedMs = this.#clock.monotonicMs() - startedMs;
        const due = Math.min(count, Math.floor((elapsedMs * pace.perSecond) / 1_000) + 1);
        if (begun < due) {
          const lateMs = elapsedMs - (begun * 1_000) / pace.perSecond;
          this.#counts.generatorLateMs = Math.max(this.#counts.generatorLateMs, lateMs);
        }
        while (begun < due) {
          const lane = this.#freeLane(undefined);
          const terminal = lane?.index ?? begun % this.#lanes.length;
          this.#start(this.#plan.next(terminal), lane);
          begun += 1;
        }
        if (!over()) await delay(this.#clock, tickMs);
      }
    }
    this.#sending = false;
  }

  /** Called when a request is done: a closed loop begins the next one. */
  #refill: (() => void) | undefined;

  #start(request: PlannedRequest, lane: Lane | undefined): void {
    this.#counts.started(request.operation);
    this.#active += 1;
    const startedMs = this.#clock.monotonicMs();
    const id = `${this.#run}-${request.sequence}`;
    this.#advance({ id, request, startedMs, attempts: 0, lastNode: undefined }, lane);
  }

  /** A request is answered or given up. */
  #finished(): void {
    this.#active -= 1;
    this.#refill?.();
    if (this.#active === 0) this.#idle?.();
  }

  /** Waits for what is in flight; an interrupted load waits for a limited time. */
  async #drain(): Promise<void> {
    if (this.#active === 0) return;
    const { drainMs = drainDefaultMs, signal } = this.#options;
    let timer = { cancel: (): void => undefined };
    let cut = (): void => undefined;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      cut = (): void => {
        timer = this.#clock.after(drainMs, () => {
          this.#ending = true;
          for (const { connection } of this.#lanes) connection?.destroy();
        });
      };
      if (signal?.aborted === true) cut();
      else signal?.addEventListener('abort', cut, { once: true });
    });
    signal?.removeEventListener('abort', cut);
    timer.cancel();
  }

  // ---- one request -----------------------------------------------------------------------------------------------------

  /** The next attempt at `lane`, or at any that is free. From the second on it is a repeat, at another node. */
  #advance(journey: Journey, lane: Lane | undefined): void {
    const chosen = lane ?? this.#freeLane(journey.lastNode);
    if (chosen?.connection?.isOpen === true && !this.#ending) {
      this.#attempt(journey, chosen, chosen.connection);
    } else if (this.#isOver(journey)) {
      this.#giveUp(journey);
    } else {
      this.#stranded.add(journey);
      this.#strandedTimer ??= this.#clock.after(waitForLaneMs, this.#advanceStranded);
    }
  }

  /** One look for all of them: when every node is away they are thousands. */
  readonly #advanceStranded = (): void => {
    this.#strandedTimer = undefined;
    const journeys = [...this.#stranded];
    const canSend = this.#ending || this.#freeLane(undefined) !== undefined;
    this.#stranded.clear();
    for (const journey of journeys) {
      if (canSend || this.#isOver(journey)) this.#advance(journey, undefined);
      else this.#stranded.add(journey);
    }
    if (this.#stranded.size > 0) this.#strandedTimer ??= this.#clock.after(waitForLaneMs, this.#advanceStranded);
  };

  #isOver({ startedMs }: Journey): boolean {
    if (this.#ending || this.#journal?.failure !== undefined) return true;
    return this.#clock.monotonicMs() - startedMs >= this.#options.giveUpMs;
  }

  #giveUp(journey: Journey): void {
    const { id, request } = journey;
    this.#counts.unanswered += 1;
    this.#journal?.append({ kind: 'unanswered', id, at: this.#times.now() });
    this.#plan.learned(request, { kind: 'undecided' });
    if (journey.attempts > 0 && this.#options.reverseUnanswered && !this.#ending) {
      const reversal = this.#plan.reversalOfUnanswered(request);
      if (reversal !== undefined) {
        this.#counts.reversalsOfUnanswered += 1;
        this.#start(reversal, undefined);
      }
    }
    this.#finished();
  }

  #attempt(journey: Journey, lane: Lane, connection: AcquirerConnection): void {
    const { request, id, startedMs } = journey;
    const node = lane.target.name;
    const message =
      journey.attempts === 0 ? request.message : { ...request.message, mti: repeatOf(request.message.mti) };
    const attempt = journey.attempts + 1;
    const { line: card, masked: pan } = request.card ?? noCard;
    this.#journal?.appendRequest(
      { id, attempt, operation: request.operation, node, sentAt: this.#times.now(), card, pan },
      message,
    );
    journey.attempts = attempt;
    journey.lastNode = node;
    if (attempt > 1) this.#counts.repeats += 1;
    connection.send(message, (outcome) => {
      switch (outcome.kind) {
        case 'answered':
          this.#journalAnswer(id, attempt, node, outcome.message, false);
          this.#answered(journey, message, outcome.message, node, this.#clock.monotonicMs() - startedMs);
          this.#finished();
          return;
        case 'timeout':
        case 'connection-lost':
          this.#counts.attemptFailed(outcome.kind);
          this.#watch(watchKey(request.message), { id, decision: undefined });
          this.#journal?.append({ kind: 'failure', id, attempt, node, at: this.#times.now(), reason: outcome.kind });
          if (this.#isOver(journey)) this.#giveUp(journey);
          else this.#advance(journey, undefined);
          return;
        case 'unpackable':
          throw new Error(`broken invariant: the load packs its own messages: ${outcome.error.message}`);
      }
    });
  }

  #answered(journey: Journey, sent: IsoMessage, answer: IsoMessage, node: string, latencyMs: number): void {
    const { request, id } = journey;
    const responseCode = textOf(answer, 39);
    const authorizationCode = textOf(answer, 38);
    this.#counts.answered(request.message.mti, responseCode, node, latencyMs);
    for (const fault of echoFaults(sent, answer)) this.#counts.fault('wrongEcho', `${fault} in the answer to ${id}`);
    const decision = { responseCode, authorizationCode };
    if (journey.attempts > 1) {
      const key = watchKey(request.message);
      this.#holdAgainst(key, id, decision);
      this.#watch(key, { id, decision });
    }
    if (request.operation === 'repeat' && request.original !== undefined) {
      const before = request.original.learned;
      if (before?.kind === 'answered' && contradicts(before, decision)) {
        this.#counts.fault(
          'contradicting',
          `${id} repeats a request answered ${before.responseCode}, and was answered ${responseCode}`,
        );
      }
    }
    this.#plan.learned(request, { kind: 'answered', responseCode, authorizationCode });
  }

  #watch(key: string, watched: { readonly id: string; readonly decision: Decision | undefined }): void {
    if (watched.decision === undefined && this.#watched.has(key)) return;
    this.#watched.set(key, watched);
    if (this.#watched.size <= disagreementsKept) return;
    for (const oldest of this.#watched.keys()) {
      this.#watched.delete(oldest);
      return;
    }
  }

  #holdAgainst(key: string, id: string, decision: Decision): void {
    const before = this.#watched.get(key)?.decision;
    if (before !== undefined && contradicts(before, decision)) {
      this.#counts.fault('contradicting', `${id} was answered ${before.responseCode} and ${decision.responseCode}`);
    }
  }

  #journalAnswer(id: string, attempt: number, node: string, answer: IsoMessage, late: boolean): void {
    const line = { id, attempt, node, answeredAt: this.#times.now() };
    this.#journal?.appendAnswer(late ? { ...line, late } : line, answer);
  }

  #stray(stray: Stray, node: string): void {
    if (stray.kind === 'undecodable') {
      this.#counts.fault('undecodable', `${stray.error.message}, from ${node}`);
      return;
    }
    const { message } = stray;
    const key = watchKey(message);
    const watched = this.#watched.get(key);
    // A request with several attempts may get an answer to each, wherever they were sent.
    if (watched === undefined) {
      const kind = stray.kind === 'late' ? 'unknown' : stray.kind;
      this.#counts.fault(
        kind,
        `mti ${message.mti}, STAN ${textOf(message, 11)}, terminal ${textOf(message, 41)}, from ${node}`,
      );
      return;
    }
    this.#counts.unexpected.late += 1;
    const decision = { responseCode: textOf(message, 39), authorizationCode: textOf(message, 38) };
    this.#holdAgainst(key, watched.id, decision);
    if (watched.decision === undefined) this.#watched.set(key, { id: watched.id, decision });
    this.#journalAnswer(watched.id, 0, node, message, true);
  }

  // ---- connections -----------------------------------------------------------------------------------------------------

  async #connectAll(): Promise<void> {
    const reasons = await Promise.all(this.#lanes.map((lane) => this.#connect(lane)));
    if (reasons.some((reason) => reason === undefined)) return;
    const where = this.#options.targets.map(({ name, endpoint }) => `${name} (${endpoint.host}:${endpoint.port})`);
    throw new SwitchError('NODE_UNREACHABLE', `no node can be reached: ${where.join(', ')}: ${reasons[0] ?? ''}`);
  }

  /** Opens the lane's connection, and keeps doing so whenever it is lost. Why the first try failed, if it did. */
  async #connect(lane: Lane): Promise<string | undefined> {
    const opened = await openConnection({
      endpoint: lane.target.endpoint,
      clock: this.#clock,
      requestTimeoutMs: this.#options.requestTimeoutMs,
      onStray: (stray) => {
        this.#stray(stray, lane.target.name);
      },
      beforeWrite: () => this.#journal?.flush(),
    });
    if (opened.kind === 'connected') {
      lane.connection = opened.connection;
      if (this.#ending) opened.connection.destroy();
      void opened.connection.closed.then(() => {
        lane.connection = undefined;
        lane.waitMs = reconnectFirstMs;
        this.#reconnect(lane);
      });
      return undefined;
    }
    this.#reconnect(lane);
    return opened.reason;
  }

  #reconnect(lane: Lane): void {
    if (this.#ending) return;
    this.#clock.after(lane.waitMs, () => {
      if (!this.#ending) void this.#connect(lane);
    });
    lane.waitMs = Math.min(2 * lane.waitMs, reconnectMostMs);
  }

  /** The next open lane that takes more, preferably at another node than `notNode`. */
  #freeLane(notNode: string | undefined): Lane | undefined {
    let second: Lane | undefined;
    for (let step = 0; step < this.#lanes.length; step++) {
      const lane = this.#lanes[(this.#nextLane + step) % this.#lanes.length];
      if (lane?.connection?.isOpen !== true || lane.connection.congested) continue;
      if (this.#signedOff.has(lane.target.name)) continue;
      if (lane.target.name === notNode) {
        second ??= lane;
        continue;
      }
      this.#nextLane = (this.#nextLane + step + 1) % this.#lanes.length;
      return lane;
    }
    return second;
  }

  async #signOff(node: string): Promise<void> {
    this.#signedOff.add(node);
    const owed = (): boolean => this.#connectionsTo(node).some(({ inFlight }) => inFlight > 0);
    while (owed() && !this.#ending) await delay(this.#clock, waitForLaneMs);
    await this.#tell(node, '002');
  }

  async #signOn(node: string): Promise<void> {
    await this.#tell(node, '001');
    this.#signedOff.delete(node);
  }

  /** A network message at each connection to the node; one that is lost meanwhile needs none. */
  async #tell(node: string, networkCode: string): Promise<void> {
    const outcomes = await Promise.all(
      this.#connectionsTo(node).map((connection) =>
        connection.request(networkMessage(this.#clock.wallMs(), networkCode)),
      ),
    );
    for (const outcome of outcomes) if (outcome.kind === 'timeout') this.#counts.attemptFailed(outcome.kind);
  }

  #connectionsTo(node: string): readonly AcquirerConnection[] {
    return this.#lanes.flatMap(({ target, connection }) =>
      target.name === node && connection?.isOpen === true ? [connection] : [],
    );
  }

  #reportProgress(startedMs: number): { cancel(): void } {
    const { onProgress } = this.#options;
    let timer = { cancel: (): void => undefined };
    if (onProgress === undefined) return timer;
    const report = (): void => {
      onProgress(this.#counts, this.#clock.monotonicMs() - startedMs);
      this.#counts.recentLatency.reset();
      timer = this.#clock.after(progressMs, report);
    };
    timer = this.#clock.after(progressMs, report);
    return {
      cancel: () => {
        timer.cancel();
      },
    };
  }
}
