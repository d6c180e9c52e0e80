import { compileSpec } from './compiled-spec.ts';
import type { CompiledField } from './compiled-spec.ts';
import { contentRule } from './content.ts';
import { notDigits } from './encodings.ts';
import type { Source } from './encodings.ts';
import type { MessageSpec } from './spec.ts';
import { formatTlv, parseTlv } from './tlv.ts';
import type { TlvElement } from './tlv.ts';

/**
 * Bytes to message and back, for any dialect that a `MessageSpec` describes.
 *
 * - Neither direction throws, whatever it is given.
 * - Nothing is lost or guessed: text stays text, and `pack` pads, trims and rounds nothing.
 * - `pack(unpack(bytes))` gives the same bytes, with one exception. A secondary bitmap with no bit set is accepted,
 *   because widespread senders announce one in every message; it carries nothing, so `pack` leaves it out.
 * - A message owns its memory: `unpack` keeps no view of the bytes given, `pack` none of the values.
 */

/** Text fields are strings, binary fields are Buffers, DE 55 is its elements; which one a field is, the table says. */
export type FieldValue = string | Buffer | readonly TlvElement[];

export interface IsoMessage {
  /** Four digits. */
  readonly mti: string;
  /** By field number; `unpack` gives them in ascending order, `pack` takes them in any. */
  readonly fields: ReadonlyMap<number, FieldValue>;
}

/**
 * - `bad-mti`: not four digits, or of another edition than the table's
 * - `truncated`: the message ends inside the MTI, a bitmap or a field
 * - `unknown-field`: a field that the table does not have
 * - `bad-length`: a length prefix that is not digits; in `pack`, a fixed field of another length
 * - `overlong`, `too-short`: a variable field of more, or fewer, characters or bytes than the table allows
 * - `ill-typed`: a character outside the field's content class; in `pack`, also a value of another type
 * - `bad-tlv`: DE 55 is not well-formed BER-TLV
 * - `trailing`: bytes after the last field
 */
export type CodecErrorCode =
  | 'bad-mti'
  | 'truncated'
  | 'unknown-field'
  | 'bad-length'
  | 'overlong'
  | 'too-short'
  | 'ill-typed'
  | 'bad-tlv'
  | 'trailing';

export interface CodecError {
  readonly code: CodecErrorCode;
  /** Undefined when the fault is in the MTI, in a bitmap or after the last field. */
  readonly field: number | undefined;
  /** Where the faulty part begins in the bytes read, or would begin in the bytes written. */
  readonly offset: number;
  /** For people. Made of the table's words only: no content of any field is in it. */
  readonly message: string;
}

export type Unpacked =
  | { readonly kind: 'message'; readonly message: IsoMessage }
  | {
      readonly kind: 'invalid';
      /** The first fault, in the order of the bytes. */
      readonly error: CodecError;
      /** Every field that is sound by itself, so that an answer with response code 30 can echo its keys. */
      readonly readable: { readonly mti: string | undefined; readonly fields: ReadonlyMap<number, FieldValue> };
    };

export type Packed =
  { readonly kind: 'packed'; readonly bytes: Buffer } | { readonly kind: 'invalid'; readonly error: CodecError };

const mtiDigits = 4;
const mtiRule = contentRule('n');
const wordBits = 32;
const wordsOfOneBitmap = 2;
/** In place of a length: the message ends inside the prefix. */
const cutOff = -2;
/** Field 1: a secondary bitmap follows. */
const secondaryBitmapBit = 1 << 31;

/** What stopped or spoiled a field: a code and the table's words for it. */
class Fault {
  readonly code: CodecErrorCode;
  readonly reason: string;
  constructor(code: CodecErrorCode, reason: string) {
    this.code = code;
    this.reason = reason;
  }
}

function codecError(fault: Fault, field: CompiledField | number | undefined, offset: number): CodecError {
  const number = typeof field === 'object' ? field.number : field;
  const where = typeof field === 'object' ? `DE ${field.number} (${field.name})` : `DE ${number}`;
  const message = `${number === undefined ? 'message' : where}: ${fault.reason}`;
  return { code: fault.code, field: number, offset, message };
}

/**
 * Decodes one message, which `bytes` must hold exactly, without its frame's header.
 *
 * A field whose end is known but whose content is faulty (ill-typed, overlong, too short, bad TLV) is skipped and the
 * rest still decoded into `readable`. Decoding stops where the next field cannot be located: a truncated or unreadable
 * length, an unknown field, another edition's MTI.
 */
export function unpack(bytes: Buffer, spec: MessageSpec): Unpacked {
  const compiled = compileSpec(spec);
  const fields = new Map<number, FieldValue>();
  const source: Source = { bytes, text: bytes.toString('latin1') };
  const bodyStart = compiled.mti.bytesFor(mtiDigits);
  const fail = (error: CodecError, mti?: string): Unpacked => ({ kind: 'invalid', error, readable: { mti, fields } });

  if (bytes.length < bodyStart) return fail(codecError(mtiTruncated, undefined, 0));
  const mti = compiled.mti.read(source, 0, mtiDigits, mtiRule);
  if (mti === undefined) return fail(codecError(notAnMti, undefined, 0));
  if (!mti.startsWith(spec.version)) return fail(codecError(otherEdition(spec), undefined, 0), mti);

  const { bitmap } = compiled;
  const primaryEnd = bodyStart + wordsOfOneBitmap * bitmap.bytesPerWord;
  if (bytes.length < primaryEnd) return fail(codecError(bitmapTruncated, undefined, bodyStart), mti);
  const hasSecondary = ((bitmap.readWord(bytes, bodyStart) ?? 0) & secondaryBitmapBit) !== 0;
  const words = hasSecondary ? 2 * wordsOfOneBitmap : wordsOfOneBitmap;
  let at = bodyStart + words * bitmap.bytesPerWord;
  if (bytes.length < at) return fail(codecError(bitmapTruncated, undefined, primaryEnd), mti);

  let error: CodecError | undefined;
  for (let word = 0; word < words; word++) {
    const wordAt = bodyStart + word * bitmap.bytesPerWord;
    let remaining = bitmap.readWord(bytes, wordAt);
    if (remaining === undefined) return fail(error ?? codecError(bitmapIllTyped, undefined, wordAt), mti);
    if (word === 0) remaining &= ~secondaryBitmapBit;
    while (remaining !== 0) {
      const bit = Math.clz32(remaining);
      remaining &= ~(secondaryBitmapBit >>> bit);
      const number = word * wordBits + bit + 1;
      const field = compiled.fields[number];
      if (field === undefined) return fail(error ?? codecError(unknownField, number, at), mti);

      const start = at + field.prefixBytes;
      const length = start > bytes.length ? cutOff : readLength(field, bytes, at);
      const end = start + bytesOf(field, length);
      if (length < 0 || end > bytes.length) return fail(error ?? codecError(endless(length), field, at), mti);
      const value = checkLength(field, length) ?? readValue(field, source, start, end, length);
      if (value instanceof Fault) error ??= codecError(value, field, at);
      else fields.set(number, value);
      at = end;
    }
  }
  if (error === undefined && at < bytes.length) error = codecError(trailingBytes, undefined, at);
  return error === undefined ? { kind: 'message', message: { mti, fields } } : fail(error, mti);
}

function otherEdition(spec: MessageSpec): Fault {
  return new Fault('bad-mti', `an MTI of this dialect begins with ${spec.version}`);
}

const notAnMti = new Fault('bad-mti', 'an MTI is four digits');
const mtiTruncated = new Fault('truncated', 'ends inside the MTI');
const bitmapTruncated = new Fault('truncated', 'ends inside a bitmap');
const bitmapIllTyped = new Fault('ill-typed', 'a bitmap is not in its encoding');
const unknownField = new Fault('unknown-field', 'the dialect has no such field');
const prefixTruncated = new Fault('truncated', 'ends inside the length');
const prefixNotDigits = new Fault('bad-length', 'the length is not digits');
const contentTruncated = new Fault('truncated', 'ends before the field does');
const trailingBytes = new Fault('trailing', 'bytes follow the last field');

/** Why the end of a field with this length, or sign for one, is not in the message. */
function endless(length: number): Fault {
  if (length === notDigits) return prefixNotDigits;
  return length === cutOff ? prefixTruncated : contentTruncated;
}

/** Characters or bytes of the field that begins at `at`; `notDigits` when its prefix is that. */
function readLength(field: CompiledField, bytes: Buffer, at: number): number {
  return field.prefix === undefined ? field.maximum : field.prefix.read(bytes, at, field.prefixDigits);
}

function bytesOf(field: CompiledField, length: number): number {
  return field.text === undefined ? length : field.text.bytesFor(length);
}

function checkLength(field: CompiledField, length: number): Fault | undefined {
  if (length >= field.minimum && length <= field.maximum) return undefined;
  const unit = field.text === undefined ? 'bytes' : 'characters';
  if (field.prefix === undefined) return new Fault('bad-length', `exactly ${field.maximum} ${unit}`);
  if (length > field.maximum) return new Fault('overlong', `more than ${field.maximum} ${unit}`);
  return new Fault('too-short', `fewer than ${field.minimum} ${unit}`);
}

function illTyped(field: CompiledField): Fault {
  return new Fault('ill-typed', `content is not of class ${field.content}`);
}

function readValue(
  field: CompiledField,
  source: Source,
  start: number,
  end: number,
  length: number,
): FieldValue | Fault {
  if (field.text !== undefined) return field.text.read(source, start, length, field.rule) ?? illTyped(field);
  const owned = Buffer.from(source.bytes.subarray(start, end));
  if (field.kind === 'bytes') return owned;
  const parsed = parseTlv(owned);
  return parsed.kind === 'elements' ? parsed.elements : new Fault('bad-tlv', parsed.reason);
}

/** Encodes a message, without a frame's header. The bitmap is the smallest that holds the fields. */
export function pack(message: IsoMessage, spec: MessageSpec): Packed {
  const compiled = compileSpec(spec);
  const { bitmap, room } = compiled;
  const { mti, fields } = message;
  if (typeof mti !== 'string' || mti.length !== mtiDigits || !compiled.mti.write(mti, mtiRule, room, 0)) {
    return { kind: 'invalid', error: codecError(notAnMti, undefined, 0) };
  }
  if (!mti.startsWith(spec.version)) return { kind: 'invalid', error: codecError(otherEdition(spec), undefined, 0) };

  const numbers = ascending(fields);
  const hasSecondary = (numbers.at(-1) ?? 0) > wordsOfOneBitmap * wordBits;
  const present = [hasSecondary ? secondaryBitmapBit : 0, 0, 0, 0];
  const bitmapStart = compiled.mti.bytesFor(mtiDigits);
  const words = hasSecondary ? 2 * wordsOfOneBitmap : wordsOfOneBitmap;
  let at = bitmapStart + words * bitmap.bytesPerWord;
  for (const number of numbers) {
    const field = compiled.fields[number];
    const end = field === undefined ? unknownField : writeField(field, fields.get(number), room, at);
    if (end instanceof Fault) {
      room.fill(0);
      return { kind: 'invalid', error: codecError(end, field ?? number, at) };
    }
    at = end;
    const word = (number - 1) >>> 5;
    present[word] = (present[word] ?? 0) | (secondaryBitmapBit >>> ((number - 1) & 31));
  }
  for (let word = 0; word < words; word++) {
    bitmap.writeWord(room, bitmapStart + word * bitmap.bytesPerWord, present[word] ?? 0);
  }
  const bytes = Buffer.from(room.subarray(0, at));
  room.fill(0, 0, at);
  return { kind: 'packed', bytes };
}

function ascending(fields: ReadonlyMap<number, FieldValue>): readonly number[] {
  const numbers = [...fields.keys()];
  let previous = 0;
  for (const number of numbers) {
    if (!(number > previous)) return numbers.sort((left, right) => left - right);
    previous = number;
  }
  return numbers;
}

/** Writes prefix and content at `at`; where the next field begins, or what is wrong with the value. */
function writeField(field: CompiledField, value: FieldValue | undefined, out: Buffer, at: number): number | Fault {
  const content = contentOf(field, value);
  if (content instanceof Fault) return content;
  const fault = checkLength(field, content.length);
  if (fault !== undefined) return fault;
  field.prefix?.write(out, at, field.prefixDigits, content.length);
  const start = at + field.prefixBytes;
  if (typeof content !== 'string') return start + content.copy(out, start);
  if (field.text?.write(content, field.rule, out, start) !== true) return illTyped(field);
  return start + field.text.bytesFor(content.length);
}

/** The value as what is written: text, or bytes. */
function contentOf(field: CompiledField, value: FieldValue | undefined): string | Buffer | Fault {
  if (field.kind === 'text') return typeof value === 'string' ? value : wrongType(field, 'text');
  if (field.kind === 'bytes') return Buffer.isBuffer(value) ? value : wrongType(field, 'bytes');
  if (!isElements(value)) return wrongType(field, 'TLV elements');
  const formatted = formatTlv(value);
  return formatted.kind === 'bytes' ? formatted.bytes : new Fault('bad-tlv', formatted.reason);
}

function isElements(value: FieldValue | undefined): value is readonly TlvElement[] {
  return Array.isArray(value);
}

function wrongType(field: CompiledField, expected: string): Fault {
  return new Fault('ill-typed', `the value of a field of class ${field.content} must be ${expected}`);
}
