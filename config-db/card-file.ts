import { SwitchError } from '../base/errors.ts';
import { currencyCode, maximumAmount, type CurrencyCode, type MinorUnits } from '../base/money.ts';
import { Pan } from '../base/pan.ts';
import { cardStatuses, isCardStatus, type CardStatus } from './cards.ts';

/** A card as an issuer's file gives it. */
export interface CardFileCard {
  readonly pan: Pan;
  /** DE 14: YYMM, valid to the end of the month. */
  readonly expiry: string;
  readonly status: CardStatus;
  readonly currency: CurrencyCode;
  readonly limitMinor: MinorUnits;
}

/** One line of the file, blank ones left out. `line` counts from 1; `reason` holds nothing of the line's content. */
export type CardFileLine =
  | { readonly kind: 'card'; readonly line: number; readonly card: CardFileCard }
  | { readonly kind: 'bad'; readonly line: number; readonly reason: string };

/** Longer lines are bad and are skipped without being kept; a line with every field at its longest has 60 bytes. */
export const maximumLineBytes = 512;

const columns = ['pan', 'expiry', 'status', 'currency', 'limit'] as const;
type Column = (typeof columns)[number];

/**
 * Reads an issuer's card file (CSV, RFC 4180 quoting, UTF-8 with or without BOM, lines ended by CRLF, LF or CR) line
 * by line in constant memory, however long the file or a line is. Every line after the header is reported, good or
 * bad. No valid field has a line break, so a quoted field ends with its line: one stray quote costs one line only.
 * Values are taken as they stand: nothing is trimmed, and only the header, statuses and alphabetic currencies may be
 * in either case. The same card twice in a file is not noticed here.
 * Throws CARD_FILE_HEADER_INVALID, with the line, when there is no usable header; errors of `chunks` pass through.
 */
export async function* readCardFile(chunks: AsyncIterable<Buffer>): AsyncGenerator<CardFileLine, void, undefined> {
  const splitter = new LineSplitter();
  let header: readonly Column[] | undefined;
  const read = function* (lines: Iterable<RawLine>): Generator<CardFileLine, void, undefined> {
    for (const raw of lines) {
      if (raw.text !== undefined && isBlank(raw.text)) continue;
      if (header === undefined) header = readHeader(raw);
      else yield readCardLine(raw, header);
    }
  };
  for await (const chunk of chunks) yield* read(splitter.push(chunk));
  yield* read(splitter.end());
  if (header === undefined) throw headerError(1, 'the file is empty');
}

interface RawLine {
  readonly line: number;
  /** One character for each byte; undefined when the line was longer than `maximumLineBytes`. */
  readonly text: string | undefined;
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;
const byteOrderMark = '\u00ef\u00bb\u00bf';

/** Cuts chunks into lines; keeps at most one line's permitted bytes between chunks. */
class LineSplitter {
  readonly #bytes = Buffer.alloc(maximumLineBytes);
  #length = 0;
  #overlong = false;
  #line = 1;
  #afterCarriageReturn = false;

  *push(chunk: Buffer): Generator<RawLine, void, undefined> {
    let start = 0;
    for (let index = 0; index < chunk.length; index++) {
      const byte = chunk[index];
      if (byte !== lineFeed && byte !== carriageReturn) continue;
      // CRLF is one line end, also when a chunk ends between the two.
      const secondHalf = byte === lineFeed && this.#afterCarriageReturn && index === start && this.#isEmpty();
      if (!secondHalf) {
        this.#keep(chunk.subarray(start, index));
        yield this.#take();
      }
      this.#afterCarriageReturn = byte === carriageReturn;
      start = index + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  *end(): Generator<RawLine, void, undefined> {
    if (!this.#isEmpty()) yield this.#take();
  }

  #isEmpty(): boolean {
    return this.#length === 0 && !this.#overlong;
  }

  #keep(part: Buffer): void {
    if (this.#overlong || this.#length + part.length > maximumLineBytes) {
      this.#overlong = true;
      return;
    }
    part.copy(this.#bytes, this.#length);
    this.#length += part.length;
  }

  #take(): RawLine {
    const line = this.#line++;
    const text = this.#overlong ? undefined : this.#bytes.toString('latin1', 0, this.#length);
    this.#length = 0;
    this.#overlong = false;
    return { line, text: line === 1 && text?.startsWith(byteOrderMark) ? text.slice(byteOrderMark.length) : text };
  }
}

function isBlank(text: string): boolean {
  return /^[ \t]*$/.test(text);
}

type Fields =
  { readonly kind: 'fields'; readonly fields: readonly string[] } | { readonly kind: 'fault'; readonly reason: string };

function splitFields(text: string): Fields {
  const fault = (reason: string): Fields => ({ kind: 'fault', reason });
  const fields: string[] = [];
  let position = 0;
  for (;;) {
    if (text[position] === '"') {
      let field = '';
      let end = position + 1;
      for (;;) {
        const quote = text.indexOf('"', end);
        if (quote < 0) return fault('a quote is not closed on its line');
        field += text.slice(end, quote);
        end = quote + 1;
        if (text[end] !== '"') break;
        field += '"';
        end++;
      }
      if (end < text.length && text[end] !== ',') return fault('text follows a closing quote');
      fields.push(field);
      position = end;
    } else {
      const comma = text.indexOf(',', position);
      const end = comma < 0 ? text.length : comma;
      const field = text.slice(position, end);
      if (field.includes('"')) return fault('a quote stands inside a field without quotes');
      fields.push(field);
      position = end;
    }
    if (position >= text.length) return { kind: 'fields', fields };
    position++; // the comma
  }
}

function headerError(line: number, fault: string): SwitchError {
  return new SwitchError(
    'CARD_FILE_HEADER_INVALID',
    `card file, line ${line}: ${fault}; expected a header of ${columns.join(',')}`,
  );
}

/** The faults name columns by their place: a file without a header has a card in its first line. */
function readHeader(raw: RawLine): readonly Column[] {
  if (raw.text === undefined) throw headerError(raw.line, `longer than ${maximumLineBytes} bytes`);
  if (/^(?:\xff\xfe|\xfe\xff)/.test(raw.text)) throw headerError(raw.line, 'UTF-16 text, not UTF-8');
  const split = splitFields(raw.text);
  if (split.kind === 'fault') throw headerError(raw.line, split.reason);
  const names: Column[] = [];
  for (const [index, field] of split.fields.entries()) {
    const name = columns.find((column) => column === field.toLowerCase());
    if (name === undefined) throw headerError(raw.line, `column ${index + 1} is not a column of card files`);
    if (names.includes(name)) throw headerError(raw.line, `two columns are named ${name}`);
    names.push(name);
  }
  const missing = columns.filter((column) => !names.includes(column));
  if (missing.length > 0) throw headerError(raw.line, `no column ${missing.join(', ')}`);
  return names;
}

function readCardLine(raw: RawLine, header: readonly Column[]): CardFileLine {
  const bad = (reason: string): CardFileLine => ({ kind: 'bad', line: raw.line, reason });
  if (raw.text === undefined) return bad(`longer than ${maximumLineBytes} bytes`);
  const split = splitFields(raw.text);
  if (split.kind === 'fault') return bad(split.reason);
  if (split.fields.length !== header.length) return bad(`${split.fields.length} fields, expected ${header.length}`);
  const value = (column: Column): string => split.fields[header.indexOf(column)] ?? '';

  const faults: string[] = [];
  const digits = value('pan');
  const pan = Pan.parse(digits);
  if (pan === undefined) {
    faults.push(/^[0-9]*$/.test(digits) ? `pan: ${digits.length} digits, expected 13 to 19` : 'pan: not digits only');
  } else if (!pan.hasValidCheckDigit()) {
    faults.push('pan: wrong check digit');
  }
  const expiry = value('expiry');
  if (!/^[0-9]{2}(?:0[1-9]|1[0-2])$/.test(expiry)) faults.push('expiry: expected YYMM with a month of 01 to 12');
  const status = value('status').toLowerCase();
  if (!isCardStatus(status)) faults.push(`status: expected ${cardStatuses.join(', ')}`);
  const currency = currencyCode(value('currency').toUpperCase());
  if (currency === undefined) faults.push('currency: not a known ISO 4217 code');
  const limit = value('limit');
  const limitMinor = /^[0-9]{1,12}$/.test(limit) ? BigInt(limit) : undefined;
  if (limitMinor === undefined) faults.push(`limit: expected whole minor units, 0 to ${maximumAmount}`);

  if (
    faults.length > 0 ||
    pan === undefined ||
    !isCardStatus(status) ||
    currency === undefined ||
    limitMinor === undefined
  ) {
    return bad(faults.join('; '));
  }
  return { kind: 'card', line: raw.line, card: { pan, expiry, status, currency, limitMinor } };
}
