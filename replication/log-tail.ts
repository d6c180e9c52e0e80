import { assert } from '../base/errors.ts';
import type { LogEntry, LogPosition } from '../store/entry.ts';
import type { RaftLog } from './raft.ts';

/** The part of a log that is on disk: store/log-reader.ts, or an array in tests. */
export interface EntrySource {
  last(): LogPosition;
  /** The position before the first entry that has not been trimmed. */
  base(): LogPosition;
  position(index: number): LogPosition | undefined;
  /** At most `count`, and no more than the first beyond `maximumBytes` of bodies. */
  entries(from: number, count: number, maximumBytes: number): readonly LogEntry[];
}

/** Entries kept in memory at least; older ones that are on disk are read back when a slow peer needs them. */
const keptEntries = 4096;
/** Bytes of bodies in memory at most, twice as much for a while: entries of card files are long. */
const keptBytes = 2 * 1024 * 1024;
/** Entries read from disk at a time for a peer that is far behind. */
const readEntries = 512;

/**
 * A group's log in two parts: the newest entries in memory, among them every one that is not yet on disk, and the
 * rest in the group's file. Memory is bounded by `keptEntries` plus what is not yet on disk.
 */
export class LogTail implements RaftLog {
  #source: EntrySource;
  /** Entries with indexes #from .. #from + length - 1, up to the last one of the log. */
  #tail: LogEntry[] = [];
  #from: number;
  #before: LogPosition;
  #base: LogPosition;
  #durable: number;
  /** Of the bodies in `#tail`. */
  #bytes = 0;

  constructor(source: EntrySource) {
    this.#source = source;
    this.#before = source.last();
    this.#base = source.base();
    this.#from = this.#before.index + 1;
    this.#durable = this.#before.index;
  }

  get last(): LogPosition {
    return this.#tail.at(-1) ?? this.#before;
  }

  get base(): LogPosition {
    return this.#base;
  }

  /** The file has been trimmed: entries that are not kept in memory can be read from the new base on only. */
  onTrimmed(base: LogPosition): void {
    if (base.index > this.#base.index) this.#base = base;
  }

  /** The file was replaced: what is not in memory is read from `source` from now on. */
  onReplaced(source: EntrySource): void {
    this.#source = source;
  }

  reset(position: LogPosition): void {
    this.#tail = [];
    this.#bytes = 0;
    this.#before = position;
    this.#base = position;
    this.#from = position.index + 1;
    this.#durable = position.index;
  }

  position(index: number): LogPosition | undefined {
    if (index < this.#base.index) return undefined;
    if (index === this.#base.index) return this.#base;
    if (index >= this.#from) return this.#tail[index - this.#from];
    return index === this.#before.index ? this.#before : this.#source.position(index);
  }

  entries(from: number, maximumBytes: number): readonly LogEntry[] {
    const available =
      from >= this.#from
        ? this.#tail.slice(from - this.#from, from - this.#from + readEntries)
        : this.#source.entries(from, Math.min(readEntries, this.#from - from), maximumBytes);
    let bytes = 0;
    const fitting = available.findIndex((entry) => (bytes += entry.body.length) > maximumBytes);
    return fitting === -1 ? available : available.slice(0, Math.max(1, fitting));
  }

  /** Every entry after an index that the log has, whatever their size. */
  entriesAfter(index: number): LogEntry[] {
    const entries: LogEntry[] = [];
    for (let next = index + 1; next <= this.last.index; next = index + entries.length + 1) {
      const more = this.entries(next, Number.MAX_SAFE_INTEGER);
      assert(more.length > 0, `the log has entry ${next}`);
      entries.push(...more);
    }
    return entries;
  }

  append(entry: LogEntry): void {
    assert(entry.index === this.last.index + 1, `entry ${entry.index} follows ${this.last.index}`);
    this.#tail.push(entry);
    this.#bytes += entry.body.length;
  }

  cut(keepThrough: number): void {
    if (keepThrough >= this.#from - 1) {
      for (const { body } of this.#tail.slice(keepThrough - this.#from + 1)) this.#bytes -= body.length;
      this.#tail.length = keepThrough - this.#from + 1;
    } else {
      const position = this.position(keepThrough);
      assert(position !== undefined, `entry ${keepThrough} is in the log`);
      this.#tail = [];
      this.#bytes = 0;
      this.#before = position;
      this.#from = keepThrough + 1;
    }
    this.#durable = Math.min(this.#durable, keepThrough);
  }

  /** Entries in memory. */
  get kept(): number {
    return this.#tail.length;
  }

  /** The file holds this very log up to `index`: what is older than the kept tail may leave memory. */
  onDurable(index: number): void {
    this.#durable = Math.max(this.#durable, Math.min(index, this.last.index));
    const drop = Math.min(this.#excess(), this.#durable - this.#from + 1);
    if (drop <= 0) return;
    const dropped = this.#tail[drop - 1];
    assert(dropped !== undefined, 'the tail holds what is dropped from it');
    this.#before = dropped;
    for (const { body } of this.#tail.slice(0, drop)) this.#bytes -= body.length;
    this.#tail = this.#tail.slice(drop);
    this.#from += drop;
  }

  /** How many of the oldest are too many: none until there are twice as many, or as much, as are to be kept. */
  #excess(): number {
    let excess = this.#tail.length > 2 * keptEntries ? this.#tail.length - keptEntries : 0;
    if (this.#bytes <= 2 * keptBytes) return excess;
    let bytes = this.#bytes;
    for (const { body } of this.#tail.slice(0, excess)) bytes -= body.length;
    while (bytes > keptBytes) bytes -= this.#tail[excess++]?.body.length ?? bytes;
    return excess;
  }
}
