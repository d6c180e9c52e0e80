import { assert } from '../../base/errors.ts';
import { contentRule } from './content.ts';
import type { ContentRule } from './content.ts';
import { bitmapEncodings, lengthEncodings, textEncodings } from './encodings.ts';
import type { BitmapEncoding, LengthEncoding, TextEncoding } from './encodings.ts';
import type { FieldSpec, MessageSpec } from './spec.ts';

/** A field of the table with everything looked up that the codec's loops need. */
export interface CompiledField {
  readonly number: number;
  readonly name: string;
  readonly kind: 'text' | 'bytes' | 'tlv';
  /** The table's word for the content, for messages. */
  readonly content: string;
  /** Undefined for binary fields: their length counts bytes. */
  readonly text: TextEncoding | undefined;
  /** Of no meaning for binary fields. */
  readonly rule: ContentRule;
  /** Undefined for fixed fields, whose `minimum` and `maximum` are the same. */
  readonly prefix: LengthEncoding | undefined;
  readonly prefixDigits: number;
  readonly prefixBytes: number;
  readonly minimum: number;
  readonly maximum: number;
}

export interface CompiledSpec {
  readonly mti: TextEncoding;
  readonly bitmap: BitmapEncoding;
  /** Indexed by field number; undefined where the table has no field. */
  readonly fields: readonly (CompiledField | undefined)[];
  /**
   * Room for the longest message of the dialect, where `pack` builds each message before it copies it out and wipes
   * the room. Packing is synchronous, so one room serves.
   */
  readonly room: Buffer;
}

const mtiDigits = 4;
const lastField = 128;
const bitmapWords = 4;
const compiledSpecs = new WeakMap<MessageSpec, CompiledSpec>();

/** The compiled form of `spec`, made on first use. A table that contradicts itself is a broken invariant. */
export function compileSpec(spec: MessageSpec): CompiledSpec {
  let compiled = compiledSpecs.get(spec);
  if (compiled === undefined) {
    compiled = compile(spec);
    compiledSpecs.set(spec, compiled);
  }
  return compiled;
}

function compile(spec: MessageSpec): CompiledSpec {
  const mti = textEncodings[spec.mtiEncoding];
  const bitmap = bitmapEncodings[spec.bitmapEncoding];
  const fields = Array.from({ length: lastField + 1 }, (): CompiledField | undefined => undefined);
  let longest = mti.bytesFor(mtiDigits) + bitmapWords * bitmap.bytesPerWord;
  for (const [number, field] of spec.fields) {
    assert(number === field.number, 'a field stands under its own number');
    assert(number >= 2 && number <= lastField && number !== 65, 'fields 1 and 65 are bitmaps');
    const compiled = compileField(field);
    fields[number] = compiled;
    longest += compiled.prefixBytes + (compiled.text?.bytesFor(compiled.maximum) ?? compiled.maximum);
  }
  return { mti, bitmap, fields, room: Buffer.alloc(longest) };
}

function compileField({ number, name, format, length }: FieldSpec): CompiledField {
  const variable = length.kind === 'variable' ? length : undefined;
  const prefix = variable && lengthEncodings[variable.prefixEncoding];
  const prefixDigits = variable?.prefixDigits ?? 0;
  const minimum = length.kind === 'fixed' ? length.length : length.minimum;
  const maximum = length.kind === 'fixed' ? length.length : length.maximum;
  assert(minimum <= maximum && minimum >= 0, 'a field has room for its shortest content');
  assert(prefixDigits === 0 || maximum < 10 ** prefixDigits, 'a length prefix can say the longest length');
  return {
    number,
    name,
    kind: format.kind,
    content: format.kind === 'text' ? format.content : 'b',
    text: format.kind === 'text' ? textEncodings[format.encoding] : undefined,
    rule: contentRule(format.kind === 'text' ? format.content : 'ans'),
    prefix,
    prefixDigits,
    prefixBytes: prefix?.bytesFor(prefixDigits) ?? 0,
    minimum,
    maximum,
  };
}
