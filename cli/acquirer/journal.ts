import { closeSync, createReadStream, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { CommandFailure, systemErrorCode } from './usage.ts';

/**
 * The acquirer's own record: JSON lines, appended. A request's line is with the operating system before its bytes are
 * (kill -9 of the acquirer loses no sent request); an answer's line may be lost with the process, and then its request
 * counts as unanswered. No card data: a card is its line in the card file, and its masked number to check that.
 *
 * Lines of a run carry the run's name; `id` is unique in the file. One request has a line for each attempt, with the
 * same `id` and the MTI's repeat digit set from the second on. Times are ISO 8601, UTC.
 */
export type JournalLine =
  | {
      readonly kind: 'run';
      readonly run: string;
      readonly startedAt: string;
      readonly seed: number;
      readonly cardFile: string;
    }
  | RequestLine
  | AnswerLine
  /** An attempt that has no answer (so far): `timeout`, `connection-lost`. */
  | {
      readonly kind: 'failure';
      readonly id: string;
      readonly attempt: number;
      readonly node: string;
      readonly at: string;
      readonly reason: string;
    }
  /** The acquirer gave up: the outcome of the request is not known to it. */
  | { readonly kind: 'unanswered'; readonly id: string; readonly at: string }
  /** The run ended by itself; without this line its process was killed. */
  | {
      readonly kind: 'end';
      readonly run: string;
      readonly at: string;
      readonly requests: number;
      readonly answers: number;
    };

export interface RequestLine {
  readonly kind: 'request';
  readonly id: string;
  readonly attempt: number;
  readonly operation: string;
  readonly mti: string;
  readonly node: string;
  readonly sentAt: string;
  /** Line of the card file; 0: a card that is in no file, or no card. */
  readonly card: number;
  /** Masked. Empty: no card. */
  readonly pan: string;
  /** By field number, those of `journalFields` that the message has. */
  readonly fields: JournalFields;
}

export interface AnswerLine {
  readonly kind: 'answer';
  readonly id: string;
  /** 0: which of the attempts is not known. */
  readonly attempt: number;
  readonly mti: string;
  readonly node: string;
  readonly answeredAt: string;
  /** It came after its attempt had been given up; an earlier or later attempt may have its own answer. */
  readonly late?: true;
  readonly fields: JournalFields;
}

export type JournalFields = Readonly<Record<string, string>>;

/** What balances are recomputed from; none of them is card data. */
const journalFields: readonly number[] = [3, 4, 7, 11, 32, 37, 38, 39, 41, 42, 49, 54, 70, 90, 95];

const bufferedCharacters = 64 * 1024;

/** Appends lines. Holds at most 64 kB; `flush` hands them to the operating system. */
export class JournalWriter {
  readonly #file: string;
  readonly #descriptor: number;
  #buffer = '';
  #failure: CommandFailure | undefined;

  constructor(file: string) {
    this.#file = file;
    try {
      this.#descriptor = openSync(file, 'a+', 0o600);
      if (endsInsideLine(this.#descriptor)) this.#buffer = '\n';
    } catch (error) {
      throw new CommandFailure(`the journal ${file} cannot be written (${systemErrorCode(error)})`);
    }
  }

  /** Why nothing can be written any more. */
  get failure(): CommandFailure | undefined {
    return this.#failure;
  }

  append(line: Exclude<JournalLine, RequestLine | AnswerLine>): void {
    this.#add(`${JSON.stringify(line)}\n`);
  }

  /** The line of a request, with the fields of `message`. */
  appendRequest(line: Omit<RequestLine, 'kind' | 'mti' | 'fields'>, message: IsoMessage): void {
    const { id, attempt, operation, node, sentAt, card, pan } = line;
    this.#add(
      `{"kind":"request","id":"${id}","attempt":${attempt},"operation":"${operation}","mti":"${message.mti}",` +
        `"node":${quoted(node)},"sentAt":"${sentAt}","card":${card},"pan":"${pan}","fields":${fieldsText(message)}}\n`,
    );
  }

  /** The line of an answer, with the fields of `message`. */
  appendAnswer(line: Omit<AnswerLine, 'kind' | 'mti' | 'fields'>, message: IsoMessage): void {
    const { id, attempt, node, answeredAt, late } = line;
    this.#add(
      `{"kind":"answer","id":"${id}","attempt":${attempt},"mti":"${message.mti}","node":${quoted(node)},` +
        `"answeredAt":"${answeredAt}",${late === true ? '"late":true,' : ''}"fields":${fieldsText(message)}}\n`,
    );
  }

  #add(text: string): void {
    this.#buffer += text;
    if (this.#buffer.length >= bufferedCharacters && this.#failure === undefined) this.#write();
  }

  /** Throws CommandFailure when the lines could not be written, now or before. */
  flush(): void {
    if (this.#failure === undefined && this.#buffer !== '') this.#write();
    if (this.#failure !== undefined) throw this.#failure;
  }

  close(): void {
    try {
      this.flush();
    } finally {
      closeSync(this.#descriptor);
    }
  }

  #write(): void {
    const bytes = Buffer.from(this.#buffer);
    this.#buffer = '';
    try {
      for (let written = 0; written < bytes.length;) written += writeSync(this.#descriptor, bytes, written);
    } catch (error) {
      this.#failure = new CommandFailure(`the journal ${this.#file} cannot be written (${systemErrorCode(error)})`);
    }
  }
}

// Two lines for each request, tens of thousands of requests a second: JSON.stringify costs three times as much.

function fieldsText(message: IsoMessage): string {
  let text = '';
  for (const number of journalFields) {
    const value = message.fields.get(number);
    if (typeof value !== 'string') continue;
    // Of these fields only DE 41 and 42 can hold a quote or a backslash: the others' content is letters and digits.
    text += `${text === '' ? '' : ','}"${number}":${number === 41 || number === 42 ? quoted(value) : `"${value}"`}`;
  }
  return `{${text}}`;
}

const plain = /^[ !#-[\]-~]*$/;

function quoted(text: string): string {
  return plain.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** Whether an earlier run was killed inside a line, which must not swallow the next one. */
function endsInsideLine(descriptor: number): boolean {
  const status = fstatSync(descriptor);
  if (!status.isFile() || status.size === 0) return false;
  const last = Buffer.alloc(1);
  readSync(descriptor, last, 0, 1, status.size - 1);
  return last[0] !== 0x0a;
}

/**
 * The lines of a journal. A line that is not whole is left out: its request was never sent, because a line is written
 * before its request; an answer's counts as not received.
 */
export async function* readJournal(file: string): AsyncGenerator<JournalLine, void, undefined> {
  const input = createReadStream(file, 'utf8');
  try {
    for await (const text of createInterface({ input, crlfDelay: Infinity })) {
      const line = parseLine(text);
      if (line !== undefined) yield line;
    }
  } catch (error) {
    throw new CommandFailure(`the journal ${file} cannot be read (${systemErrorCode(error)})`);
  } finally {
    input.destroy();
  }
}

const kinds: ReadonlySet<unknown> = new Set(['run', 'request', 'answer', 'failure', 'unanswered', 'end']);

function parseLine(text: string): JournalLine | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const known = typeof value === 'object' && value !== null && 'kind' in value && kinds.has(value.kind);
    return known ? (value as JournalLine) : undefined;
  } catch {
    return undefined;
  }
}
