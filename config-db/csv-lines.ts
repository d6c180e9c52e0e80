import { SwitchError } from '../base/errors.ts';

/*
 * Tables of card data as issuers and operators write them: CSV with RFC 4180 quoting, UTF-8 with or without BOM, lines
 * ended by CRLF, LF or CR, a header that names the columns in any order. Read line by line in constant memory, however long
 * the file or a line is.
 */

/** Longer lines are bad and are skipped without being kept; a line with every field at its longest has 60 bytes. */
export const maximumLineBytes = 512;

export interface RawLine {
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

/** Columns of a table: all of `columns`, or those that are not in `optional`. */
export interface CsvShape<Column extends string> {
  readonly columns: readonly Column[];
  readonly optional?: readonly Column[];
}

/** One line after the header. `reason` holds nothing of the line's content. */
export type CsvLine<Column extends string> =
  | { readonly kind: 'row'; readonly line: number; readonly value: (column: Column) => string }
  | { readonly kind: 'bad'; readonly line: number; readonly reason: string };

/**
 * Every line after the header, blank ones left out. No valid field has a line break, so a quoted field ends with its line:
 * one stray quote costs one line only. Values are taken as they stand; a column that the header leaves out is empty.
 * Throws CARD_FILE_HEADER_INVALID, with the line, when there is no usable header; errors of `chunks` pass through.
 */
export async function* readCsv<Column extends string>(
  chunks: AsyncIterable<Buffer>,
  shape: CsvShape<Column>,
): AsyncGenerator<CsvLine<Column>, void, undefined> {
  const splitter = new LineSplitter();
  let header: readonly Column[] | undefined;
  const read = function* (lines: Iterable<RawLine>): Generator<CsvLine<Column>, void, undefined> {
    for (const raw of lines) {
      if (raw.text !== undefined && isBlank(raw.text)) continue;
      if (header === undefined) header = readHeader(raw, shape);
      else yield readLine(raw, header);
    }
  };
  for await (const chunk of chunks) yield* read(splitter.push(chunk));
  yield* read(splitter.end());
  if (header === undefined) throw headerError(1, 'the file is empty', shape);
}

function readLine<Column extends string>(raw: RawLine, header: readonly Column[]): CsvLine<Column> {
  const bad = (reason: string): CsvLine<Column> => ({ kind: 'bad', line: raw.line, reason });
  if (raw.text === undefined) return bad(`longer than ${maximumLineBytes} bytes`);
  const split = splitFields(raw.text);
  if (split.kind === 'fault') return bad(split.reason);
  const { fields } = split;
  if (fields.length !== header.length) return bad(`${fields.length} fields, expected ${header.length}`);
  return { kind: 'row', line: raw.line, value: (column) => fields[header.indexOf(column)] ?? '' };
}

function headerError(line: number, fault: string, { columns }: CsvShape<string>): SwitchError {
  return new SwitchError(
    'CARD_FILE_HEADER_INVALID',
    `card file, line ${line}: ${fault}; expected a header of ${columns.join(',')}`,
  );
}

/** The faults name columns by their place: a file without a header has a card in its first line. */
function readHeader<Column extends string>(raw: RawLine, shape: CsvShape<Column>): readonly Column[] {
  const { columns, optional = [] } = shape;
  if (raw.text === undefined) throw headerError(raw.line, `longer than ${maximumLineBytes} bytes`, shape);
  if (/^(?:\xff\xfe|\xfe\xff)/.test(raw.text)) throw headerError(raw.line, 'UTF-16 text, not UTF-8', shape);
  const split = splitFields(raw.text);
  if (split.kind === 'fault') throw headerError(raw.line, split.reason, shape);
  const names: Column[] = [];
  for (const [index, field] of split.fields.entries()) {
    const name = columns.find((column) => column === field.toLowerCase());
    if (name === undefined) throw headerError(raw.line, `column ${index + 1} is not a column of card files`, shape);
    if (names.includes(name)) throw headerError(raw.line, `two columns are named ${name}`, shape);
    names.push(name);
  }
  const missing = columns.filter((column) => !names.includes(column) && !optional.includes(column));
  if (missing.length > 0) throw headerError(raw.line, `no column ${missing.join(', ')}`, shape);
  return names;
}
