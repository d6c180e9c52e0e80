import { statSync } from 'node:fs';

import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import { noFold, type FoldShape } from './group-file.ts';
import { SnapshotSource, type SnapshotEnd, type SnapshotHeader } from './group-snapshot.ts';

/** What a member keeps of a group: a witness the log only. */
export type Holding = 'log' | 'log-and-fold';

export interface SnapshotRefusal {
  readonly kind: 'refused';
  readonly reason: string;
}

export type OpenReply =
  { readonly kind: 'opened'; readonly snapshot: number; readonly header: SnapshotHeader } | SnapshotRefusal;

export type ReadReply =
  | { readonly kind: 'chunk'; readonly bytes: Buffer; readonly end: SnapshotEnd | undefined }
  | { readonly kind: 'beyond-end' }
  | SnapshotRefusal;

/** Who reads snapshots for others: a thread of its own in a node, `SnapshotShelf` itself in a simulation. */
export interface SnapshotReading {
  /** Pins the group's file as it is now, for a member that holds the fold or does not. */
  open(group: GroupId, holding: Holding, done: (reply: OpenReply) => void): void;
  /** Any chunk, as often as it is asked for; those before it are read on the way. */
  read(snapshot: number, chunk: number, done: (reply: ReadReply) => void): void;
  close(snapshot: number): void;
}

export interface ShelfOptions {
  readonly clock: Clock;
  readonly fileOf: (group: GroupId) => string;
  readonly shapeOf: (group: GroupId) => FoldShape;
  /** How large a file's write-ahead log may grow before its snapshots are given up; 1 GiB when not given. */
  readonly pinnedBytes?: number;
}

/** Snapshots open at once: each holds up the reuse of a write-ahead log. */
const maximumOpen = 16;
/** A snapshot that nobody has read from this long is given up. */
const idleMs = 60_000;
/** Several times what a compare may pin: a snapshot that is begun anew pins as much again. */
const defaultPinnedBytes = 1024 * 1024 * 1024;

interface Shelved {
  readonly source: SnapshotSource;
  readonly path: string;
  usedMs: number;
}

/** The snapshots that are being read; each answer comes before the call returns. */
export class SnapshotShelf implements SnapshotReading {
  readonly #options: ShelfOptions;
  readonly #open = new Map<number, Shelved>();
  #next = 1;

  constructor(options: ShelfOptions) {
    this.#options = options;
  }

  /** How many are open. */
  get size(): number {
    return this.#open.size;
  }

  open(group: GroupId, holding: Holding, done: (reply: OpenReply) => void): void {
    const { clock, fileOf, shapeOf } = this.#options;
    if (this.#open.size >= maximumOpen) {
      done({ kind: 'refused', reason: `${maximumOpen} snapshots are being read already` });
      return;
    }
    let reply: OpenReply;
    try {
      const path = fileOf(group);
      const source = SnapshotSource.open(path, group, holding === 'log' ? noFold : shapeOf(group));
      const snapshot = this.#next++;
      this.#open.set(snapshot, { source, path, usedMs: clock.monotonicMs() });
      reply = { kind: 'opened', snapshot, header: source.header };
    } catch (error) {
      reply = { kind: 'refused', reason: describeError(error) };
    }
    done(reply);
  }

  read(snapshot: number, chunk: number, done: (reply: ReadReply) => void): void {
    const shelved = this.#open.get(snapshot);
    let reply: ReadReply;
    if (shelved === undefined) {
      reply = { kind: 'refused', reason: 'the snapshot is not open any more' };
    } else {
      shelved.usedMs = this.#options.clock.monotonicMs();
      try {
        const read = shelved.source.read(chunk);
        reply = read === undefined ? { kind: 'beyond-end' } : { kind: 'chunk', ...read };
      } catch (error) {
        this.close(snapshot);
        reply = { kind: 'refused', reason: describeError(error) };
      }
    }
    done(reply);
  }

  close(snapshot: number): void {
    this.#open.get(snapshot)?.source.close();
    this.#open.delete(snapshot);
  }

  /** Gives up what has been idle or has pinned too much. Call every second or so. */
  tend(): void {
    const { clock, pinnedBytes = defaultPinnedBytes } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const [snapshot, { path, usedMs }] of this.#open) {
      const walBytes = statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
      if (nowMs - usedMs > idleMs || walBytes > pinnedBytes) this.close(snapshot);
    }
  }

  closeAll(): void {
    for (const snapshot of [...this.#open.keys()]) this.close(snapshot);
  }
}
