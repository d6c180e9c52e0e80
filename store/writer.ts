import type { GroupId } from '../base/identifiers.ts';
import type { LogEntry, LogPosition } from './entry.ts';

/** What is handed to a group's file in one step; several may be merged into one transaction, in order. */
export interface WriteRequest {
  readonly group: GroupId;
  readonly keepThrough: number | undefined;
  readonly entries: readonly LogEntry[];
  readonly applyThrough: number;
}

export type WriterEvent =
  | { readonly kind: 'written'; readonly group: GroupId; readonly durable: LogPosition; readonly applied: number }
  | { readonly kind: 'mark'; readonly group: GroupId; readonly compare: string; readonly index: number }
  | { readonly kind: 'failed'; readonly group: GroupId; readonly reason: string };

/**
 * The one that writes the groups' files: a thread of its own in a node, the caller's own thread in a simulation.
 * `open` creates or continues a group's file. After a `mark` event the group applies nothing until `resume`, for a
 * bounded time (R14); appends go on.
 */
export interface GroupWriter {
  open(group: GroupId): Promise<{ readonly last: LogPosition; readonly applied: number; readonly path: string }>;
  submit(request: WriteRequest): void;
  resume(group: GroupId): void;
  close(): Promise<void>;
}
