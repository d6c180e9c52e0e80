/**
 * BER-TLV as EMV uses it in DE 55 (EMV Book 3, annex B; ISO/IEC 8825-1).
 *
 * Lossless: order, repeated tags and unknown tags are kept; a constructed element (template) is kept as its raw value,
 * whose inside nobody here needs; and a length field longer than necessary, which some terminals send, is
 * remembered, so that packing what was unpacked gives the same bytes. Refused: the indefinite length form, tags of
 * more than four bytes, filler bytes 00 and FF between elements, and everything that ends early.
 */
export interface TlvElement {
  /** The tag's bytes in upper-case hexadecimal: `9F02`. */
  readonly tag: string;
  readonly value: Buffer;
  /** Bytes of the length field; present only when that is more than the value needs. */
  readonly lengthBytes?: number;
}

export type ParsedTlv =
  | { readonly kind: 'elements'; readonly elements: readonly TlvElement[] }
  /** `reason` has no content of the data in it. */
  | { readonly kind: 'invalid'; readonly offset: number; readonly reason: string };

const longestTagBytes = 4;
/** `84` and four bytes: more than any frame holds. */
const longestLengthBytes = 5;

/** Bytes of the tag that begins at `at`, or a reason why none does. */
function tagBytes(bytes: Buffer, at: number): number | string {
  const first = bytes[at] ?? 0;
  if (first === 0x00 || first === 0xff) return 'filler where a tag should be';
  if ((first & 0x1f) !== 0x1f) return 1;
  for (let count = 2; count <= longestTagBytes; count++) {
    const next = bytes[at + count - 1];
    if (next === undefined) return 'ends inside a tag';
    if ((next & 0x80) === 0) return count;
  }
  return `a tag of more than ${longestTagBytes} bytes`;
}

function minimalLengthBytes(length: number): number {
  if (length < 0x80) return 1;
  if (length <= 0xff) return 2;
  if (length <= 0xffff) return 3;
  return length <= 0xffffff ? 4 : 5;
}

/** The elements of `bytes`; their values are views of it. */
export function parseTlv(bytes: Buffer): ParsedTlv {
  const elements: TlvElement[] = [];
  let at = 0;
  const invalid = (reason: string): ParsedTlv => ({ kind: 'invalid', offset: at, reason });
  while (at < bytes.length) {
    const tagLength = tagBytes(bytes, at);
    if (typeof tagLength === 'string') return invalid(tagLength);
    const tag = bytes.toString('hex', at, at + tagLength).toUpperCase();
    at += tagLength;

    const first = bytes[at];
    if (first === undefined) return invalid('ends before a length');
    if (first === 0x80) return invalid('the indefinite length form');
    const lengthBytes = first < 0x80 ? 1 : first - 0x80 + 1;
    if (lengthBytes > longestLengthBytes) return invalid('a length field that is too long');
    if (at + lengthBytes > bytes.length) return invalid('ends inside a length');
    const length = first < 0x80 ? first : bytes.readUIntBE(at + 1, lengthBytes - 1);
    const end = at + lengthBytes + length;
    if (end > bytes.length) return invalid('ends inside a value');
    const value = bytes.subarray(at + lengthBytes, end);
    elements.push(lengthBytes === minimalLengthBytes(length) ? { tag, value } : { tag, value, lengthBytes });
    at = end;
  }
  return { kind: 'elements', elements };
}

export type FormattedTlv =
  { readonly kind: 'bytes'; readonly bytes: Buffer } | { readonly kind: 'invalid'; readonly reason: string };

/** The bytes of `elements`. Refuses what `parseTlv` would not give back as it is. */
export function formatTlv(elements: readonly TlvElement[]): FormattedTlv {
  const parts: Buffer[] = [];
  for (const { tag, value, lengthBytes } of elements) {
    const tagPart = Buffer.from(tag, 'hex');
    if (
      tagPart.length === 0 ||
      tagPart.toString('hex').toUpperCase() !== tag ||
      tagBytes(tagPart, 0) !== tagPart.length
    ) {
      return { kind: 'invalid', reason: 'a tag that is not one' };
    }
    const minimal = minimalLengthBytes(value.length);
    const chosen = lengthBytes ?? minimal;
    if (!Number.isInteger(chosen) || chosen < minimal || chosen > longestLengthBytes) {
      return { kind: 'invalid', reason: 'a length field of an impossible size' };
    }
    const lengthPart = Buffer.alloc(chosen);
    if (chosen > 1) lengthPart.writeUIntBE(value.length, 1, chosen - 1);
    lengthPart[0] = chosen === 1 ? value.length : 0x80 + chosen - 1;
    parts.push(tagPart, lengthPart, value);
  }
  return { kind: 'bytes', bytes: Buffer.concat(parts) };
}
