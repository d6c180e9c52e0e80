/**
 * The content classes of ISO 8583:1987 (its attribute notation) as character sets over ISO 646 (ASCII) codes. A
 * dialect with another character code translates to these codes first, so the classes are the same for all dialects.
 */

/**
 * - `n` digits · `a` letters · `an` both · `anp` also the pad character, space
 * - `ns` digits and special characters · `ans` every printable character, space included
 * - `z` the code set of tracks 2 and 3 (ISO/IEC 7811: 0x30 to 0x3F), and `D`, which many links send as separator
 * - `x+n` `C` (credit) or `D` (debit), then digits: signed amounts, DE 28 to 31 and 97
 */
export type ContentClass = 'n' | 'a' | 'an' | 'anp' | 'ns' | 'ans' | 'z' | 'x+n';

const digits = '0123456789';
const upper = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
const letters = upper + upper.toLowerCase();
const special = ' !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~';

/** Every character of a class, in no particular order. For `x+n`: of the digits, the sign is `signs`. */
const characters: Readonly<Record<ContentClass, string>> = {
  n: digits,
  a: letters,
  an: digits + letters,
  anp: digits + letters + ' ',
  ns: digits + special,
  ans: digits + letters + special,
  z: `${digits}:;<=>?D`,
  'x+n': digits,
};

/** What may stand first in an `x+n` field. */
const signs = 'CD';

/** Bit of each class in `classesOf`; the sign of `x+n` is a class of its own. */
const bits = { n: 1, a: 2, an: 4, anp: 8, ns: 16, ans: 32, z: 64, 'x+n': 1, sign: 128 } as const;

/** For each of the 256 byte values, the classes it belongs to, as bits: one look-up per byte decides. */
const classesOf = new Uint8Array(256);
for (const [content, members] of [...Object.entries(characters), ['sign', signs]] as [keyof typeof bits, string][]) {
  for (const character of members) {
    const code = character.charCodeAt(0);
    classesOf[code] = (classesOf[code] ?? 0) | bits[content];
  }
}

/** A class made ready for the codec's loops. */
export interface ContentRule {
  /** Bit that every character must have; of the first one, when `firstBit` differs, that bit instead. */
  readonly bit: number;
  readonly firstBit: number;
}

export function contentRule(content: ContentClass): ContentRule {
  return { bit: bits[content], firstBit: content === 'x+n' ? bits.sign : bits[content] };
}

/** Whether the ISO 646 codes in `bytes[start, end)` all belong to the class; an empty range does. */
export function bytesConform(rule: ContentRule, bytes: Uint8Array, start: number, end: number): boolean {
  const { bit, firstBit } = rule;
  if (firstBit !== bit && start < end && ((classesOf[bytes[start] ?? 0] ?? 0) & firstBit) === 0) return false;
  for (let at = firstBit === bit ? start : start + 1; at < end; at++) {
    if (((classesOf[bytes[at] ?? 0] ?? 0) & bit) === 0) return false;
  }
  return true;
}

/**
 * Writes the characters of `text` as ISO 646 codes to `out` from `at` on. False when one is not of the class: then
 * what was written is worthless. The caller has made room.
 */
export function writeConforming(rule: ContentRule, text: string, out: Uint8Array, at: number): boolean {
  let bit = rule.firstBit;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (((classesOf[code] ?? 0) & bit) === 0) return false;
    out[at + index] = code;
    bit = rule.bit;
  }
  return true;
}

/** The characters that a class allows after the first one, and as the first one: for generators of test messages. */
export function allowedCharacters(content: ContentClass): { readonly first: string; readonly rest: string } {
  return { first: content === 'x+n' ? signs : characters[content], rest: characters[content] };
}
