import { bytesConform, writeConforming } from './content.ts';
import type { ContentRule } from './content.ts';
import type { BitmapEncodingName, LengthEncodingName, TextEncodingName } from './spec.ts';

/**
 * How text, length prefixes and bitmaps lie in bytes: one entry for each name that a `MessageSpec` can use. The codec
 * knows these interfaces only. Readers never look outside the range that the caller has checked.
 */

/** A frame being read. */
export interface Source {
  readonly bytes: Buffer;
  /** The whole frame with one character for each byte: cutting short strings out of it beats decoding each anew. */
  readonly text: string;
}

export interface TextEncoding {
  /** Bytes that so many characters take. */
  bytesFor(characters: number): number;
  /** The characters that begin at `at`; undefined when one is not of the class. */
  read(source: Source, at: number, characters: number, rule: ContentRule): string | undefined;
  /** Writes all of `text` at `at`; false when a character is not of the class. */
  write(text: string, rule: ContentRule, out: Buffer, at: number): boolean;
}

/** In place of a length that cannot be read. */
export const notDigits = -1;

export interface LengthEncoding {
  bytesFor(digits: number): number;
  /** The number at `at`, or `notDigits`. */
  read(bytes: Buffer, at: number, digits: number): number;
  write(out: Buffer, at: number, digits: number, value: number): void;
}

/** A bitmap is read and written as 32-bit words, the highest bit first: field 1, 33, 65 or 97. */
export interface BitmapEncoding {
  readonly bytesPerWord: number;
  /** The word at `at`, or undefined when the bytes are not the encoding's. */
  readWord(bytes: Buffer, at: number): number | undefined;
  writeWord(out: Buffer, at: number, word: number): void;
}

/**
 * V8 represents a cut of 13 characters or more as a pointer into the string it was cut from, which would keep the
 * whole frame, track and all, in memory for as long as a merchant's name is kept. Such fields are decoded by
 * themselves; shorter cuts are copies.
 */
const longestCopiedCut = 12;

const ascii: TextEncoding = {
  bytesFor: (characters) => characters,
  read(source, at, characters, rule) {
    if (!bytesConform(rule, source.bytes, at, at + characters)) return undefined;
    return characters <= longestCopiedCut
      ? source.text.slice(at, at + characters)
      : source.bytes.toString('latin1', at, at + characters);
  },
  write: (text, rule, out, at) => writeConforming(rule, text, out, at),
};

const asciiDigits: LengthEncoding = {
  bytesFor: (digits) => digits,
  read(bytes, at, digits) {
    let value = 0;
    for (let index = at; index < at + digits; index++) {
      const digit = (bytes[index] ?? 0) - 0x30;
      if (digit < 0 || digit > 9) return notDigits;
      value = value * 10 + digit;
    }
    return value;
  },
  write(out, at, digits, value) {
    let rest = value;
    for (let index = at + digits - 1; index >= at; index--) {
      out[index] = 0x30 + (rest % 10);
      rest = Math.trunc(rest / 10);
    }
  },
};

const binary: BitmapEncoding = {
  bytesPerWord: 4,
  readWord: (bytes, at) => bytes.readInt32BE(at),
  writeWord: (out, at, word) => {
    out.writeInt32BE(word | 0, at);
  },
};

export const textEncodings: Readonly<Record<TextEncodingName, TextEncoding>> = { ascii };
export const lengthEncodings: Readonly<Record<LengthEncodingName, LengthEncoding>> = { ascii: asciiDigits };
export const bitmapEncodings: Readonly<Record<BitmapEncodingName, BitmapEncoding>> = { binary };
