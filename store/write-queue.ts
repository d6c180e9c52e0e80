import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import type { LogEntry } from './entry.ts';
import type { GroupFile } from './group-file.ts';
import type { WriteRequest, WriterEvent } from './writer.ts';

interface GroupQueue {
  readonly file: GroupFile;
  waiting: WriteRequest[];
  applyThrough: number;
  /** Set while apply stands at a mark. */
  paused: Timer | undefined;
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
  readonly #groups = new Map<GroupId, GroupQueue>();
  #scheduled = false;

  constructor(clock: Clock, emit: (event: WriterEvent) => void) {
    this.#clock = clock;
    this.#emit = emit;
  }

  add(group: GroupId, file: GroupFile): void {
    this.#groups.set(group, { file, waiting: [], applyThrough: file.applied, paused: undefined });
  }

  submit(request: WriteRequest): void {
    const queue = this.#groups.get(request.group);
    if (queue === undefined) return;
    queue.waiting.push(request);
    queue.applyThrough = Math.max(queue.applyThrough, request.applyThrough);
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
    this.#groups.get(group)?.file.finishCheckpoint();
  }

  close(): void {
    for (const queue of this.#groups.values()) {
      queue.paused?.cancel();
      queue.file.close();
    }
    this.#groups.clear();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      for (const [group, queue] of this.#groups) this.#run(group, queue);
    });
  }

  #run(group: GroupId, queue: GroupQueue): void {
    const { file } = queue;
    const toApply = queue.paused === undefined && queue.applyThrough > file.applied;
    if (queue.waiting.length === 0 && !toApply) return;
    const waiting = queue.waiting;
    queue.waiting = [];
    try {
      const outcome = file.write({
        ...mergeRequests(waiting),
        applyThrough: queue.paused === undefined ? queue.applyThrough : 0,
      });
      this.#emit({ kind: 'written', group, durable: outcome.durable, applied: outcome.applied });
      if (outcome.mark !== undefined) {
        queue.paused = this.#clock.after(maximumPauseMs, () => {
          this.resume(group);
        });
        this.#emit({ kind: 'mark', group, ...outcome.mark });
      } else if (queue.paused === undefined && Math.min(queue.applyThrough, file.last.index) > file.applied) {
        this.#schedule();
      }
    } catch (error) {
      if (isBusy(error)) {
        // Someone's shell has the file locked: nothing was written, so the same is tried again, in order.
        queue.waiting = [...waiting, ...queue.waiting];
        this.#clock.after(busyRetryMs, () => {
          this.#schedule();
        });
      } else {
        this.#emit({ kind: 'failed', group, reason: describeError(error) });
      }
    }
  }
}

const busyRetryMs = 5;

function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('SQLITE_BUSY');
}

/** Several requests in order as one: a cut removes what earlier ones would have appended above it. */
function mergeRequests(requests: readonly WriteRequest[]): { keepThrough: number | undefined; entries: LogEntry[] } {
  let keepThrough: number | undefined;
  let entries: LogEntry[] = [];
  for (const request of requests) {
    const cut = request.keepThrough;
    if (cut !== undefined) {
      entries = entries.filter((entry) => entry.index <= cut);
      keepThrough = Math.min(keepThrough ?? cut, cut);
    }
    entries.push(...request.entries);
  }
  return { keepThrough, entries };
}
