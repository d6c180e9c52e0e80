import fc from 'fast-check';

import type { FieldValue, IsoMessage } from './codec.ts';
import { allowedCharacters } from './content.ts';
import type { FieldSpec, MessageSpec } from './spec.ts';
import { formatTlv } from './tlv.ts';
import type { TlvElement } from './tlv.ts';

/** Generators for properties: messages that a table allows, over all of its fields. */

const tag = fc.oneof(
  fc.constantFrom('5A', '57', '5F20', '9F1F', '9F6B', '56', '99', '9F02', '9F36', '95', '70', 'E1'),
  fc
    .integer({ min: 1, max: 0xfe })
    .filter((byte) => (byte & 0x1f) !== 0x1f)
    .map((byte) => byte.toString(16).toUpperCase().padStart(2, '0')),
  fc.integer({ min: 0, max: 0x7f }).map((byte) => `DF${byte.toString(16).toUpperCase().padStart(2, '0')}`),
  fc.integer({ min: 0, max: 0x7f }).map((byte) => `BF81${byte.toString(16).toUpperCase().padStart(2, '0')}`),
);

const shortElement = fc
  .tuple(tag, fc.uint8Array({ maxLength: 20 }), fc.constantFrom(undefined, undefined, 2, 3))
  .map(([name, value, lengthBytes]): TlvElement => {
    const element = { tag: name, value: Buffer.from(value) };
    return lengthBytes === undefined ? element : { ...element, lengthBytes };
  });

/** Values on either side of each length form's limit. */
const longElement = fc
  .tuple(tag, fc.constantFrom(127, 128, 255, 256, 900))
  .map(([name, length]): TlvElement => ({ tag: name, value: Buffer.alloc(length, 0x5a) }));

export const arbitraryElements: fc.Arbitrary<readonly TlvElement[]> = fc
  .oneof(
    { weight: 5, arbitrary: fc.array(shortElement, { minLength: 1, maxLength: 12 }) },
    { weight: 1, arbitrary: fc.tuple(longElement) },
  )
  .filter((elements) => {
    const formatted = formatTlv(elements);
    return formatted.kind === 'bytes' && formatted.bytes.length <= 999;
  });

function characters(alphabet: string, minLength: number, maxLength: number): fc.Arbitrary<string> {
  return fc.string({ unit: fc.constantFrom(...Array.from(alphabet)), minLength, maxLength, size: 'max' });
}

/** A value that the table allows in the field. Long ones are rare above 120 characters, to keep runs short. */
export function arbitraryValue({ format, length }: FieldSpec): fc.Arbitrary<FieldValue> {
  const minimum = length.kind === 'fixed' ? length.length : length.minimum;
  const maximum = length.kind === 'fixed' ? length.length : length.maximum;
  if (format.kind === 'tlv') return arbitraryElements;
  if (format.kind === 'bytes') {
    return fc.uint8Array({ minLength: minimum, maxLength: maximum }).map((bytes) => Buffer.from(bytes));
  }
  const { first, rest } = allowedCharacters(format.content);
  const ofLength = (shortest: number, longest: number): fc.Arbitrary<FieldValue> =>
    fc
      .tuple(fc.constantFrom(...Array.from(first)), characters(rest, shortest - 1, longest - 1))
      .map(([head, tail]) => head + tail);
  const usual = ofLength(minimum, Math.min(maximum, 120));
  return maximum <= 120
    ? usual
    : fc.oneof({ weight: 40, arbitrary: usual }, { weight: 1, arbitrary: ofLength(maximum, maximum) });
}

/** A message with any of the table's fields, in ascending order as `unpack` gives them. */
export function arbitraryMessage(spec: MessageSpec): fc.Arbitrary<IsoMessage> {
  const fields = [...spec.fields.values()];
  const values = new Map(fields.map((field) => [field.number, arbitraryValue(field)]));
  return fc
    .tuple(
      fc.integer({ min: 0, max: 999 }),
      fc.oneof(
        { weight: 4, arbitrary: fc.subarray(fields, { maxLength: 20 }) },
        { weight: 1, arbitrary: fc.subarray(fields) },
      ),
    )
    .chain(([rest, chosen]) =>
      fc.tuple(...chosen.map((field) => values.get(field.number) ?? fc.constant(''))).map((contents) => ({
        mti: spec.version + String(rest).padStart(3, '0'),
        fields: new Map(chosen.map((field, index): [number, FieldValue] => [field.number, contents[index] ?? ''])),
      })),
    );
}
