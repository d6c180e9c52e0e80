import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { keyOfChange, nameOfRow } from '../../config-db/configuration-change.ts';
import { decodeConfigurationChange } from '../../config-db/rows.ts';
import type { EdgeFile, QueuedChange, QueueEnd } from '../../store/edge-store.ts';
import { ChangeCarrier, type Bring, type Carried, type KeptChange } from './change-carrier.ts';
import type { QueueStatus } from './status.ts';

/** A queued change as operators see it. */
export type QueuedReport = Omit<QueuedChange, 'changes'>;

export interface ChangeQueueOptions {
  readonly clock: Clock;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly store: Pick<EdgeFile, 'submit' | 'queuedChanges'>;
  readonly bring: Bring;
  /** The log index of a change, by this node's own copy of the configuration. */
  readonly indexOf: (id: string) => number | undefined;
}

const maximumWaiting = 1000;
const maximumNamedRows = 20;
const saidForMs = 3_600_000;

/**
 * Changes of the configuration that were entered at this node while `config` may have had no majority (`--queue`). Each is
 * on this node's disk before its author is told so, is brought to the leader of `config` in the order in which they came,
 * and is entered once: its name stands in its entry. What became of it is kept, the last 200 of them.
 */
export class ChangeQueue {
  readonly #options: ChangeQueueOptions;
  readonly #carrier: ChangeCarrier;
  #changes: QueuedChange[];
  /** Of those whose end is being written. */
  readonly #ending = new Set<string>();
  readonly #awaited = new Map<string, (() => void)[]>();

  /** Throws STORE_UNREADABLE. */
  constructor(options: ChangeQueueOptions) {
    this.#options = options;
    this.#carrier = new ChangeCarrier(options.clock, options.bring);
    this.#changes = options.store.queuedChanges();
  }

  get status(): QueueStatus {
    const { clock } = this.#options;
    const recent = this.#changes.filter(({ endedAt }) => endedAt > 0 && clock.wallMs() - endedAt < saidForMs);
    return {
      waiting: this.#changes.filter(isWaiting).length,
      last: recent.findLast(({ outcome }) => outcome === 'refused')?.reason ?? null,
    };
  }

  /** Keeps a change; it is on disk when `done` is called with nothing. */
  add({ id, by, changes }: KeptChange, done: (outcome: SwitchError | undefined) => void): void {
    const { store, clock, log } = this.#options;
    if (this.#changes.filter(isWaiting).length >= maximumWaiting) {
      done(new SwitchError('QUEUE_REFUSED', `${maximumWaiting} changes wait at this node: no more are taken`));
      return;
    }
    const names = changes.map(({ change }) => decodeConfigurationChange(change));
    const rows = names.slice(0, maximumNamedRows).map((change) => nameOfRow(change.table, keyOfChange(change)));
    const none = { outcome: 'waiting', index: 0, reason: '', endedAt: 0 } as const;
    const queued: QueuedChange = { id, by, at: clock.wallMs(), rows, changes, ...none };
    store.submit([{ kind: 'queued', queued }], (failure) => {
      if (failure === undefined) {
        this.#changes.push(queued);
        log.info({ event: 'change-queued', change: id, by, rows: changes.length }, 'a change waits for its leader');
        this.tick();
      }
      done(failure);
    });
  }

  /** Calls `done` when the change has come to its end, or so much later as it is: what has become of it. */
  whenEnded(id: string, withinMs: number, done: (report: QueuedReport | SwitchError) => void): void {
    const tell = (): void => {
      timer.cancel();
      this.#awaited.set(
        id,
        (this.#awaited.get(id) ?? []).filter((each) => each !== tell),
      );
      if (this.#awaited.get(id)?.length === 0) this.#awaited.delete(id);
      const found = this.#changes.find((each) => each.id === id);
      done(found === undefined ? unknown(id) : this.#report(found));
    };
    const timer = this.#options.clock.after(withinMs, tell);
    this.#awaited.set(id, [...(this.#awaited.get(id) ?? []), tell]);
    if (this.#changes.find((each) => each.id === id)?.outcome !== 'waiting') tell();
  }

  /** The oldest first. */
  list(): QueuedReport[] {
    return this.#changes.map((each) => this.#report(each));
  }

  /** Has a change that waits not brought any more. */
  drop(id: string, by: string, done: (report: QueuedReport | SwitchError) => void): void {
    const found = this.#changes.find((each) => each.id === id);
    if (found === undefined) {
      done(unknown(id));
      return;
    }
    if (found.outcome !== 'waiting' || this.#ending.has(id)) {
      done(new SwitchError('QUEUE_REFUSED', `${id} does not wait any more: ${describe(this.#report(found))}`));
      return;
    }
    const reason = `dropped by ${by}`;
    this.#end({ id, outcome: 'dropped', index: 0, reason, endedAt: this.#options.clock.wallMs() }, (failure) => {
      const ended = this.#changes.find((each) => each.id === id);
      done(failure ?? (ended === undefined ? unknown(id) : this.#report(ended)));
    });
  }

  /** Some times a second. */
  tick(): void {
    if (!this.#carrier.mayCarry) return;
    const next = this.#changes.find((each) => isWaiting(each) && !this.#ending.has(each.id));
    if (next === undefined) return;
    const { id, by, changes } = next;
    this.#carrier.carry({ id, by, changes }, (carried) => {
      this.#carried(id, carried);
    });
  }

  #carried(id: string, carried: Carried): void {
    const endedAt = this.#options.clock.wallMs();
    const found = this.#changes.find((each) => each.id === id);
    // Dropped while it was under way: that it was refused is of no matter then.
    if (found === undefined || (found.outcome === 'dropped' && carried.kind === 'refused')) return;
    const end =
      carried.kind === 'entered'
        ? { id, outcome: 'entered' as const, index: carried.index, reason: '', endedAt }
        : { id, outcome: 'refused' as const, index: 0, reason: carried.reason, endedAt };
    this.#end(end, (failure) => {
      // What could not be noted is brought again, and comes to the same.
      if (failure !== undefined) return;
      this.#carrier.goOn();
      this.tick();
    });
  }

  #end(end: QueueEnd, done: (failure: SwitchError | undefined) => void): void {
    const { store, log } = this.#options;
    this.#ending.add(end.id);
    store.submit([{ kind: 'queue-end', end }], (failure) => {
      this.#ending.delete(end.id);
      if (failure === undefined) {
        this.#changes = this.#changes.map((each) => (each.id === end.id ? { ...each, ...end, changes: [] } : each));
        const { id: change, outcome, index, reason } = end;
        const event = 'queued-change-ended';
        const level = outcome === 'entered' ? 'info' : 'warn';
        log[level]({ event, change, outcome, index, reason }, 'a change that waited here has come to its end');
        for (const tell of this.#awaited.get(change) ?? []) tell();
      }
      done(failure);
    });
  }

  /** One that was under way when it was dropped, or when this node was killed, may be in the log. */
  #report({ changes: _, ...queued }: QueuedChange): QueuedReport {
    if (queued.outcome !== 'dropped') return queued;
    const index = this.#options.indexOf(queued.id);
    return index === undefined ? queued : { ...queued, outcome: 'entered', index, reason: 'before it was dropped' };
  }
}

function isWaiting({ outcome }: QueuedChange): boolean {
  return outcome === 'waiting';
}

function unknown(id: string): SwitchError {
  return new SwitchError('QUEUE_REFUSED', `no change ${id} waits at this node`);
}

/** What became of a queued change, for people. */
export function describe({ outcome, index, reason }: QueuedReport): string {
  switch (outcome) {
    case 'waiting':
      return 'waits';
    case 'entered':
      return index === 0 ? 'nothing to change' : `entered as version ${index}`;
    case 'refused':
      return `refused: ${reason}`;
    case 'dropped':
      return reason;
  }
}
