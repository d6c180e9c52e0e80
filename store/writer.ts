import type { StoreFailure } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import type { LogEntry, LogPosition } from './entry.ts';
import type { SnapshotEnd, SnapshotHeader } from './group-snapshot.ts';

/** Entries for the end of a log. `keepThrough`: those after this index are cut off first. */
export interface Append {
  readonly keepThrough: number | undefined;
  readonly entries: readonly LogEntry[];
}

/** What is handed to a group's file in one step; several may be merged into one transaction, in order. */
export interface WriteRequest extends Append {
  readonly group: GroupId;
  readonly applyThrough: number;
}

/** Appends in order as one: a cut removes what earlier ones would have appended above it. */
export function mergeAppends(appends: readonly Append[]): Append {
  let keepThrough: number | undefined;
  let entries: LogEntry[] = [];
  for (const append of appends) {
    const cut = append.keepThrough;
    if (cut !== undefined) {
      entries = entries.filter(({ index }) => index <= cut);
      keepThrough = Math.min(keepThrough ?? cut, cut);
    }
    entries.push(...append.entries);
  }
  return { keepThrough, entries };
}

/**
 * Receiving a snapshot, one at a time for a group: `begin`, then every chunk in order, then `install`, each after the
 * event for the one before. `transfer` names the snapshot; what is about another one than the one that was begun last is
 * refused. `abandon` gives it up.
 */
export type SnapshotRequest = { readonly group: GroupId; readonly transfer: string } & (
  | { readonly kind: 'begin'; readonly header: SnapshotHeader }
  | { readonly kind: 'write'; readonly chunk: number; readonly bytes: Buffer }
  | { readonly kind: 'install'; readonly end: SnapshotEnd }
  | { readonly kind: 'abandon' }
);

/** What the writer has done, in the order in which it did it. */
export type WriterEvent = { readonly group: GroupId } & (
  | { readonly kind: 'written'; readonly durable: LogPosition; readonly applied: number }
  | { readonly kind: 'mark'; readonly compare: string; readonly index: number }
  /** Entries up to `base` have been removed. */
  | { readonly kind: 'trimmed'; readonly base: LogPosition }
  /** Nothing of what was asked for is in the file, and nothing will be written to it until `reopen`. */
  | { readonly kind: 'failed'; readonly reason: string; readonly cause: StoreFailure }
  | { readonly kind: 'snapshot-begun'; readonly transfer: string }
  | { readonly kind: 'snapshot-written'; readonly transfer: string; readonly chunk: number }
  /** The snapshot is given up. The group's file is as it was. */
  | { readonly kind: 'snapshot-refused'; readonly transfer: string; readonly reason: string }
  /**
   * The snapshot is the group's file now: its log is empty after `position`, which its fold is at. Whoever reads the
   * group has to open the file at `path`.
   */
  | {
      readonly kind: 'installed';
      readonly transfer: string;
      readonly position: LogPosition;
      readonly applied: number;
      readonly path: string;
    }
);

/** A group's file as it was when it was opened. */
export interface OpenedGroup {
  readonly last: LogPosition;
  readonly applied: number;
  /** The position before the first entry that is kept. */
  readonly base: LogPosition;
  readonly path: string;
}

/**
 * The one that writes the groups' files: a thread of its own in a node, the caller's own thread in a simulation. What is
 * asked for of one group is done in the order in which it is asked for.
 */
export interface GroupWriter {
  /** Creates or continues a group's file. */
  open(group: GroupId): Promise<OpenedGroup>;
  /**
   * Opens the file anew after `failed`: what had not been reported as written is not in it. Fails when it cannot be
   * written. `empty`: an empty one in its place, also when there was none that could be opened.
   */
  reopen(group: GroupId, empty?: boolean): Promise<OpenedGroup>;
  submit(request: WriteRequest): void;
  /** Removes entries up to `through`, applied ones only, beside other work and some at a time. */
  trim(group: GroupId, through: number): void;
  /** After a `mark` event the group applies nothing until this, for a bounded time (R14); appends go on. */
  resume(group: GroupId): void;
  /** The bulk of the group's write-ahead log has been moved into its file: moves the rest. */
  finishCheckpoint(group: GroupId): void;
  snapshot(request: SnapshotRequest): void;
  close(): Promise<void>;
}
