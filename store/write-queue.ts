import type { Clock, Timer } from '../base/clock.ts';
import { assert, describeError, isStoreBusy, storeFailureOf, SwitchError, type StoreFailure } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import type { EditOutcome, GroupFile, RepairBatch, WriteBatch, WriteOutcome } from './group-file.ts';
import type { RowOutcome } from './row-repair.ts';
import { emptyGroupFile, type InstallStep } from './snapshot-install.ts';
import { SnapshotIntake } from './snapshot-intake.ts';
import type { TableSpecification } from './snapshot-reader.ts';
import { mergeAppends, type SnapshotRequest, type WriteRequest, type WriterEvent } from './writer.ts';

/** What waits for a group's file, in the order in which it came. */
type Task = WriteRequest | SnapshotRequest;

/** A batch of a repair, and who waits for what came of it. */
interface RepairTask {
  readonly batch: RepairBatch;
  readonly tables: readonly TableSpecification[];
  readonly done: (outcome: readonly RowOutcome[] | Error) => void;
}

interface Failure {
  readonly reason: string;
  readonly cause: StoreFailure;
}

interface GroupQueue {
  file: GroupFile;
  repairs: RepairTask[];
  waiting: Task[];
  applyThrough: number;
  trimThrough: number;
  /** Set while apply stands at a mark. */
  paused: Timer | undefined;
  readonly intake: SnapshotIntake;
  /** Why the file cannot be written; nothing is until it has been opened anew. */
  failure: Failure | undefined;
  /** What became of edits by hand, to be noted in the file. */
  outcomes: EditOutcome[];
}

/** Hears of every transaction; so it has to be quick. */
export interface WriteMeter {
  /** A transaction of so many entries was synced, and took so long. */
  committed(entries: number, durationMs: number): void;
  /** The file was locked by somebody's shell, and is tried again. */
  locked(): void;
  /** The file cannot be written any more. */
  failed(): void;
}

/** How long apply waits at a mark for the comparing reader's snapshot before it goes on without it (R14). */
const maximumPauseMs = 2000;

/**
 * Merges what is waiting for each group's file into one transaction a turn, so that requests that arrive while one
 * fdatasync runs share the next (group commit). Runs inside the writer thread, or in a simulation's own thread.
 */
export class WriteQueue {
  readonly #clock: Clock;
  readonly #emit: (event: WriterEvent) => void;
  readonly #onInstallStep: (step: InstallStep) => void;
  readonly #meter: WriteMeter | undefined;
  readonly #groups = new Map<GroupId, GroupQueue>();
  #scheduled = false;

  /** `onInstallStep` is for tests: what it throws is as if the process had died there. */
  constructor(
    clock: Clock,
    emit: (event: WriterEvent) => void,
    onInstallStep: (step: InstallStep) => void = () => undefined,
    meter?: WriteMeter,
  ) {
    this.#clock = clock;
    this.#emit = emit;
    this.#onInstallStep = onInstallStep;
    this.#meter = meter;
  }

  add(group: GroupId, file: GroupFile): void {
    this.#groups.set(group, {
      file,
      repairs: [],
      waiting: [],
      applyThrough: file.applied,
      trimThrough: 0,
      paused: undefined,
      intake: new SnapshotIntake(this.#onInstallStep),
      failure: undefined,
      outcomes: [],
    });
  }

  submit(request: WriteRequest): void {
    const queue = this.#groups.get(request.group);
    if (queue === undefined) return;
    queue.waiting.push(request);
    queue.applyThrough = Math.max(queue.applyThrough, request.applyThrough);
    this.#schedule();
  }

  trim(group: GroupId, through: number): void {
    const queue = this.#groups.get(group);
    if (queue === undefined) return;
    queue.trimThrough = Math.max(queue.trimThrough, through);
    this.#schedule();
  }

  snapshot(request: SnapshotRequest): void {
    const queue = this.#groups.get(request.group);
    if (queue === undefined) return;
    queue.waiting.push(request);
    this.#schedule();
  }

  /**
   * Changes rows of the group's file, between two of its other transactions; `done` is called once. Apply that stands at
   * the batch's mark goes on after it.
   */
  repair(
    group: GroupId,
    batch: RepairBatch,
    tables: readonly TableSpecification[],
    done: (outcome: readonly RowOutcome[] | Error) => void,
  ): void {
    const queue = this.#groups.get(group);
    if (queue === undefined) {
      done(new SwitchError('REPAIR_REFUSED', `this process has no group ${group}`));
      return;
    }
    queue.repairs.push({ batch, tables, done });
    this.#schedule();
  }

  resume(group: GroupId): void {
    const queue = this.#groups.get(group);
    if (queue?.paused === undefined) return;
    queue.paused.cancel();
    queue.paused = undefined;
    this.#schedule();
  }

  /** The bulk of the group's write-ahead log has been moved into its file: moves the rest. */
  finishCheckpoint(group: GroupId): void {
    const queue = this.#groups.get(group);
    if (queue?.failure === undefined) queue?.file.finishCheckpoint();
  }

  /** Some ten times a second: deals with edits by hand. A file that somebody has locked has its turn the next time. */
  tendEdits(): void {
    for (const [group, queue] of this.#groups) {
      if (queue.failure !== undefined) continue;
      try {
        if (queue.file.tendEdits(queue.outcomes)) queue.outcomes = [];
      } catch (error) {
        if (!isStoreBusy(error)) this.#fail(group, queue, error);
      }
    }
  }

  /** Noted by the next `tendEdits`. */
  closeEdit(group: GroupId, outcome: EditOutcome): void {
    this.#groups.get(group)?.outcomes.push(outcome);
  }

  has(group: GroupId): boolean {
    return this.#groups.has(group);
  }

  /**
   * Opens the group's file anew, or an empty one in its place; what waited for it is dropped. Throws what opening it
   * throws, and what a write to it does.
   */
  reopen(group: GroupId, empty = false): GroupFile {
    const queue = this.#groups.get(group);
    assert(queue !== undefined, `group ${group} is open`);
    this.#giveUp(queue);
    queue.failure = { reason: 'the file is not open', cause: 'disk' };
    queue.file.close();
    if (empty) emptyGroupFile(queue.file.path);
    const file = queue.file.reopened();
    try {
      file.probe();
    } catch (error) {
      file.close();
      throw error;
    }
    this.add(group, file);
    return file;
  }

  close(): void {
    for (const queue of this.#groups.values()) {
      this.#giveUp(queue);
      queue.file.close();
    }
    this.#groups.clear();
  }

  #giveUp(queue: GroupQueue): void {
    queue.waiting = [];
    for (const { done } of queue.repairs.splice(0)) done(notWritable('the file is not open'));
    queue.paused?.cancel();
    queue.paused = undefined;
    queue.intake.discard();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      for (const [group, queue] of this.#groups) this.#run(group, queue);
    });
  }

  /** One transaction of appends and applies, or one step of less urgent work; then the other groups have their turn. */
  #run(group: GroupId, queue: GroupQueue): void {
    if (queue.failure !== undefined) {
      this.#refuse(group, queue.waiting.splice(0), queue.failure);
      for (const { done } of queue.repairs.splice(0)) done(notWritable(queue.failure.reason));
      return;
    }
    const repair = queue.repairs.shift();
    if (repair !== undefined) {
      this.#repair(queue, repair);
      return;
    }
    const appends = takeAppends(queue);
    if (appends.length > 0 || this.#canApply(queue)) {
      this.#append(group, queue, appends);
      return;
    }
    const next = queue.waiting.shift();
    if (next !== undefined && isSnapshotRequest(next)) this.#takeSnapshot(group, queue, next);
    else if (canTrim(queue)) this.#trim(group, queue);
  }

  #append(group: GroupId, queue: GroupQueue, requests: readonly WriteRequest[]): void {
    const applyThrough = queue.paused === undefined ? queue.applyThrough : 0;
    const outcome = this.#write(group, queue, requests, { ...mergeAppends(requests), applyThrough });
    if (outcome === undefined) return;
    const { durable, applied, mark } = outcome;
    if (mark !== undefined) {
      queue.paused = this.#clock.after(maximumPauseMs, () => {
        this.resume(group);
      });
    }
    this.#goOn(queue);
    this.#emit({ kind: 'written', group, durable, applied });
    if (mark !== undefined) this.#emit({ kind: 'mark', group, ...mark });
  }

  /** What makes it impossible is told to whoever asked; the file is as it was, and goes on being written. */
  #repair(queue: GroupQueue, task: RepairTask): void {
    let outcome: readonly RowOutcome[] | Error;
    try {
      outcome = queue.file.repair(task.batch, task.tables);
    } catch (error) {
      if (isStoreBusy(error)) {
        queue.repairs.unshift(task);
        this.#retryLater();
        return;
      }
      outcome = error instanceof SwitchError ? error : notWritable(describeError(error));
    }
    if (task.batch.at !== undefined) {
      queue.paused?.cancel();
      queue.paused = undefined;
    }
    // Appends have waited for it.
    this.#schedule();
    task.done(outcome);
  }

  #trim(group: GroupId, queue: GroupQueue): void {
    const { trimThrough } = queue;
    const outcome = this.#write(group, queue, [], {
      entries: [],
      keepThrough: undefined,
      applyThrough: 0,
      trimThrough,
    });
    if (outcome === undefined) return;
    this.#goOn(queue);
    this.#emit({ kind: 'trimmed', group, base: outcome.base });
  }

  /** Undefined when nothing was written: because of somebody's lock, or because the file cannot be written. */
  #write(
    group: GroupId,
    queue: GroupQueue,
    requests: readonly WriteRequest[],
    batch: WriteBatch,
  ): WriteOutcome | undefined {
    try {
      const beganMs = this.#clock.monotonicMs();
      const outcome = queue.file.write(batch);
      if (batch.entries.length > 0) {
        this.#meter?.committed(batch.entries.length, this.#clock.monotonicMs() - beganMs);
      }
      return outcome;
    } catch (error) {
      queue.waiting = [...requests, ...queue.waiting];
      if (!isStoreBusy(error)) {
        this.#fail(group, queue, error);
        return undefined;
      }
    }
    this.#retryLater();
    return undefined;
  }

  /** Someone's shell has the file locked: the same is tried again, in order. */
  #retryLater(): void {
    this.#meter?.locked();
    this.#clock.after(busyRetryMs, () => {
      this.#schedule();
    });
  }

  /** What whoever asked has in memory and what is in the file differ from here on: it has to begin anew. */
  #fail(group: GroupId, queue: GroupQueue, error: unknown): void {
    const refused = queue.waiting;
    this.#giveUp(queue);
    const failure = { reason: describeError(error), cause: storeFailureOf(error) };
    queue.failure = failure;
    this.#meter?.failed();
    this.#emit({ kind: 'failed', group, ...failure });
    this.#refuse(group, refused.filter(isSnapshotRequest), failure);
  }

  #refuse(group: GroupId, requests: readonly Task[], { reason, cause }: Failure): void {
    if (requests.some((each) => !isSnapshotRequest(each))) this.#emit({ kind: 'failed', group, reason, cause });
    for (const { transfer } of requests.filter(isSnapshotRequest)) {
      this.#emit({ kind: 'snapshot-refused', group, transfer, reason });
    }
  }

  #takeSnapshot(group: GroupId, queue: GroupQueue, request: SnapshotRequest): void {
    const { transfer } = request;
    const outcome = queue.intake.take(queue.file, request);
    if (outcome.kind === 'failed') {
      this.#fail(group, queue, outcome.error);
      return;
    }
    if (outcome.kind === 'installed') {
      queue.file = outcome.file;
      queue.paused?.cancel();
      queue.paused = undefined;
    }
    this.#goOn(queue);
    switch (outcome.kind) {
      case 'nothing':
        return;
      case 'begun':
        this.#emit({ kind: 'snapshot-begun', group, transfer });
        return;
      case 'written':
        this.#emit({ kind: 'snapshot-written', group, transfer, chunk: outcome.chunk });
        return;
      case 'refused':
        this.#emit({ kind: 'snapshot-refused', group, transfer, reason: outcome.reason });
        return;
      case 'installed': {
        const { base: position, applied, path } = outcome.file;
        this.#emit({ kind: 'installed', group, transfer, position, applied, path });
      }
    }
  }

  /** Whether committed entries wait to be applied. */
  #canApply({ paused, applyThrough, file }: GroupQueue): boolean {
    return paused === undefined && Math.min(applyThrough, file.last.index) > file.applied;
  }

  #goOn(queue: GroupQueue): void {
    if (queue.failure !== undefined) return;
    if (queue.waiting.length > 0 || this.#canApply(queue) || canTrim(queue)) this.#schedule();
  }
}

function notWritable(reason: string): SwitchError {
  return new SwitchError('REPAIR_REFUSED', `the rows cannot be written: ${reason}`);
}

/** Whether trimmable entries wait to be removed. */
function canTrim({ trimThrough, file }: GroupQueue): boolean {
  return Math.min(trimThrough, file.applied) > file.base.index;
}

function isSnapshotRequest(task: Task): task is SnapshotRequest {
  return 'kind' in task;
}

/** The appends that come before any other task. */
function takeAppends(queue: GroupQueue): WriteRequest[] {
  const appends: WriteRequest[] = [];
  for (const task of queue.waiting) {
    if (isSnapshotRequest(task)) break;
    appends.push(task);
  }
  queue.waiting = queue.waiting.slice(appends.length);
  return appends;
}

const busyRetryMs = 5;
