import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';

import { systemErrorCode, UsageError } from '../acquirer/usage.ts';

const header = 'line,card,result,reason';
const tailBytes = 4096;

/**
 * The results of an import: one line for each of the card file's, in their order, card numbers masked. It begins with the
 * name of what was imported, so that an import that is begun again goes on where its results end, and never adds to those
 * of another file.
 */
export class ImportResults {
  /** The last line of the card file that has its result here. */
  readonly through: number;
  readonly #path: string;
  readonly #file: number;
  #waiting: string[] = [];
  /** Where the next line goes. */
  #end = 0;

  /** Opens or begins the file. Throws UsageError when it is another's, or cannot be written. */
  constructor(path: string, name: string, hash: string) {
    this.#path = path;
    const title = `# cards of ${name}, file ${hash}\n${header}\n`;
    try {
      const isThere = existsSync(path);
      this.#file = openSync(path, isThere ? 'r+' : 'wx');
      this.through = isThere ? this.#goOn(title) : 0;
      if (!isThere) this.#write(title);
    } catch (error) {
      if (error instanceof UsageError) throw error;
      throw new UsageError(`cannot write ${path}: ${systemErrorCode(error)}`);
    }
  }

  add(line: number, card: string, result: string, reason: string): void {
    this.#waiting.push(`${line},${card},${result},${reason === '' ? '' : `"${reason.replaceAll('"', '""')}"`}\n`);
    if (this.#waiting.length >= 1000) this.flush();
  }

  flush(): void {
    if (this.#waiting.length === 0) return;
    try {
      this.#write(this.#waiting.join(''));
    } catch (error) {
      throw new UsageError(`cannot write ${this.#path}: ${systemErrorCode(error)}`);
    }
    this.#waiting = [];
  }

  close(): void {
    this.flush();
    closeSync(this.#file);
  }

  /** Cuts off a line that was not written whole; the number that the last whole one begins with. */
  #goOn(title: string): number {
    const begins = this.#read(0, Buffer.byteLength(title));
    if (begins !== title) {
      throw new UsageError(
        `${this.#path} has the results of another import: remove it, or name another with --results`,
      );
    }
    const { size } = fstatSync(this.#file);
    const from = Math.max(0, size - tailBytes);
    const tail = this.#read(from, size - from);
    const whole = tail.slice(0, tail.lastIndexOf('\n') + 1);
    this.#end = from + Buffer.byteLength(whole);
    ftruncateSync(this.#file, this.#end);
    const last = whole.trimEnd().split('\n').at(-1) ?? '';
    return Number(/^([0-9]+),/.exec(last)?.[1] ?? 0);
  }

  #write(text: string): void {
    this.#end += writeSync(this.#file, text, this.#end);
  }

  #read(from: number, length: number): string {
    const bytes = Buffer.alloc(length);
    return bytes.toString('utf8', 0, readSync(this.#file, bytes, 0, length, from));
  }
}
