import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';

/** Read at a time. */
const chunkBytes = 256 * 1024;
const lineFeed = 0x0a;
/** A line that is longer is cut: nothing that Quadrant writes is. */
const maximumLineBytes = 1024 * 1024;

/**
 * Reads a file that others append to, line by line, from wherever it was told to begin. It need not be there yet. When it
 * is replaced (rotation by renaming) the rest of the old file is read first; when it is cut (`copytruncate`) it begins at
 * the new start. What has no line feed yet is kept until it has one.
 */
export class LogReader {
  readonly path: string;
  #file: number | undefined;
  #offset = 0;
  #partial = '';
  #decoder = new StringDecoder('utf8');

  constructor(path: string) {
    this.path = path;
  }

  get exists(): boolean {
    return statSync(this.path, { throwIfNoEntry: false })?.isFile() === true;
  }

  /** When the file was last written, milliseconds since 1970; 0 when it is not there. */
  get modifiedMs(): number {
    return statSync(this.path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  }

  /**
   * Begins at the first line that `isBefore` is not true of, which has to be so of all lines after it too: looked for
   * by halving, so that a large file costs a few reads.
   */
  seek(isBefore: (line: string) => boolean): void {
    const file = this.#open();
    if (file === undefined) return;
    let from = 0;
    let to = fstatSync(file).size;
    while (to - from > chunkBytes) {
      const middle = Math.floor((from + to) / 2);
      const bytes = readBytes(file, middle, chunkBytes);
      const begin = bytes.indexOf(lineFeed) + 1;
      const end = begin === 0 ? -1 : bytes.indexOf(lineFeed, begin);
      if (end !== -1 && isBefore(bytes.toString('utf8', begin, end))) from = middle + begin;
      else to = middle;
    }
    this.#begin(from);
  }

  /** Begins so many bytes before the end, at a whole line. */
  seekEnd(bytes: number): void {
    const file = this.#open();
    if (file === undefined) return;
    const from = Math.max(0, fstatSync(file).size - bytes);
    // One byte more: where a line begins just here its predecessor's line feed is cut off, and no line.
    this.#begin(from === 0 ? 0 : from + readBytes(file, from - 1, chunkBytes).indexOf(lineFeed));
  }

  /** Calls `onLine` for each line that has come since the last time. */
  read(onLine: (line: string) => void): void {
    const file = this.#open();
    if (file === undefined) return;
    if (fstatSync(file).size < this.#offset) this.#begin(0);
    this.#readOn(file, onLine);
    const there = statSync(this.path, { throwIfNoEntry: false });
    const open = fstatSync(file);
    if (there !== undefined && (there.ino !== open.ino || there.dev !== open.dev)) {
      // The old file may have been written between the two; what comes later cannot be ours to wait for.
      this.#readOn(file, onLine);
      if (this.#partial !== '') onLine(this.#partial);
      this.close();
      const next = this.#open();
      if (next !== undefined) this.#readOn(next, onLine);
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
    this.#begin(0);
  }

  #open(): number | undefined {
    if (this.#file === undefined && this.exists) this.#file = openSync(this.path, 'r');
    return this.#file;
  }

  #begin(offset: number): void {
    this.#offset = offset;
    this.#partial = '';
    this.#decoder = new StringDecoder('utf8');
  }

  #readOn(file: number, onLine: (line: string) => void): void {
    const buffer = Buffer.alloc(chunkBytes);
    for (;;) {
      const length = readSync(file, buffer, 0, buffer.length, this.#offset);
      if (length === 0) return;
      this.#offset += length;
      const parts = (this.#partial + this.#decoder.write(buffer.subarray(0, length))).split('\n');
      this.#partial = (parts.pop() ?? '').slice(0, maximumLineBytes);
      for (const part of parts) onLine(part);
    }
  }
}

function readBytes(file: number, from: number, length: number): Buffer {
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, readSync(file, buffer, 0, length, from));
}
