import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import fc from 'fast-check';

import { arbitraryMessage } from './arbitrary-messages.ts';
import { pack, unpack } from './codec.ts';
import type { CodecErrorCode, FieldValue, IsoMessage } from './codec.ts';
import { compileSpec } from './compiled-spec.ts';
import { goldenBytes, goldenMessages } from './golden-messages.ts';
import { iso87Ascii } from './spec.ts';
import type { MessageSpec } from './spec.ts';
import { formatTlv } from './tlv.ts';

function unpacked(bytes: Buffer, spec: MessageSpec = iso87Ascii): IsoMessage {
  const result = unpack(bytes, spec);
  assert.equal(result.kind, 'message', result.kind === 'invalid' ? result.error.message : '');
  return result.message;
}

function packed(message: IsoMessage, spec: MessageSpec = iso87Ascii): Buffer {
  const result = pack(message, spec);
  assert.equal(result.kind, 'packed', result.kind === 'invalid' ? result.error.message : '');
  return result.bytes;
}

function refused(bytes: Buffer) {
  const result = unpack(bytes, iso87Ascii);
  return result.kind === 'invalid' ? result : assert.fail('a faulty message was accepted');
}

function refusedToPack(fields: readonly (readonly [number, FieldValue])[], mti = '0100') {
  const result = pack({ mti, fields: new Map(fields) }, iso87Ascii);
  return result.kind === 'invalid' ? result.error : assert.fail('a faulty message was packed');
}

/** As golden messages write fields: text as it is, bytes and DE 55 in hexadecimal. */
function asWritten(value: FieldValue): string {
  if (typeof value === 'string') return value;
  if (Buffer.isBuffer(value)) return value.toString('hex').toUpperCase();
  const formatted = formatTlv(value);
  return formatted.kind === 'bytes' ? formatted.bytes.toString('hex').toUpperCase() : assert.fail();
}

/** A message in pieces: MTI, then hexadecimal bitmap, then text. */
function wire(mti: string, bitmap: string, content: string): Buffer {
  return Buffer.concat([Buffer.from(mti, 'latin1'), Buffer.from(bitmap, 'hex'), Buffer.from(content, 'latin1')]);
}

describe('golden messages', () => {
  for (const golden of goldenMessages) {
    it(`${golden.name}: unpacks to what it says, and packs to the same bytes`, () => {
      const bytes = goldenBytes(golden);
      const message = unpacked(bytes);
      assert.equal(message.mti, golden.mti);
      const fields = Object.fromEntries([...message.fields].map(([number, value]) => [number, asWritten(value)]));
      assert.deepEqual(fields, golden.fields);
      assert.deepEqual(packed(message), bytes);
    });

    it(`${golden.name}: every truncation is refused, and says so`, () => {
      const bytes = goldenBytes(golden);
      for (let length = 0; length < bytes.length; length++) {
        assert.equal(refused(bytes.subarray(0, length)).error.code, 'truncated', `at ${length} bytes`);
      }
    });

    it(`${golden.name}: a byte too many is refused, with every field readable`, () => {
      const bytes = goldenBytes(golden);
      const { error, readable } = refused(Buffer.concat([bytes, Buffer.from('0')]));
      assert.deepEqual([error.code, error.field, error.offset], ['trailing', undefined, bytes.length]);
      assert.deepEqual(readable, unpacked(bytes));
    });
  }
});

describe('a message that another link could send', () => {
  it('packing and unpacking any message of the table gives the same message and the same bytes', () => {
    fc.assert(
      fc.property(arbitraryMessage(iso87Ascii), (message) => {
        const bytes = packed(message);
        const again = unpacked(bytes);
        assert.deepEqual(again, message);
        assert.deepEqual(packed(again), bytes);
      }),
      { numRuns: 300 },
    );
  });

  it('no proper beginning of any message is a message', () => {
    fc.assert(
      fc.property(
        arbitraryMessage(iso87Ascii),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (message, share) => {
          const bytes = packed(message);
          assert.equal(unpack(bytes.subarray(0, Math.floor(bytes.length * share)), iso87Ascii).kind, 'invalid');
        },
      ),
      { numRuns: 100 },
    );
  });

  it('the order in which fields were set does not matter', () => {
    const ordered: [number, FieldValue][] = [
      [3, '000000'],
      [11, '000001'],
      [90, '0'.repeat(42)],
    ];
    const bytes = packed({ mti: '0400', fields: new Map(ordered) });
    assert.deepEqual(packed({ mti: '0400', fields: new Map(ordered.toReversed()) }), bytes);
  });

  it('a secondary bitmap with no bit set is accepted, and left out when packed', () => {
    const message = unpacked(wire('0800', '80200000000000000000000000000000', '000042'));
    assert.deepEqual(message, { mti: '0800', fields: new Map([[11, '000042']]) });
    assert.deepEqual(packed(message), wire('0800', '0020000000000000', '000042'));
  });

  it('a message with no fields is a message', () => {
    assert.deepEqual(packed(unpacked(wire('0800', '0000000000000000', ''))), wire('0800', '0000000000000000', ''));
  });

  it('what was unpacked does not change when the memory it was read from is used again', () => {
    for (const golden of goldenMessages) {
      const bytes = goldenBytes(golden);
      const message = unpacked(bytes);
      bytes.fill(0);
      assert.deepEqual(packed(message), goldenBytes(golden), golden.name);
    }
  });
});

describe('a faulty field', () => {
  const keys = '1122132843' + '123456';
  const cases: readonly {
    readonly name: string;
    readonly bytes: Buffer;
    readonly code: CodecErrorCode;
    readonly field: number | undefined;
    readonly offset: number;
    readonly readable: readonly number[];
  }[] = [
    {
      name: 'letters in DE 4',
      bytes: wire('0100', '3220000000000000', `00000000000000AB00${keys}`),
      code: 'ill-typed',
      field: 4,
      offset: 18,
      readable: [3, 7, 11],
    },
    {
      name: 'a byte above ASCII in DE 41',
      bytes: wire('0100', '0220000000800000', `${keys}TERM\xe9001`),
      code: 'ill-typed',
      field: 41,
      offset: 28,
      readable: [7, 11],
    },
    {
      name: 'a control character in DE 41',
      bytes: wire('0100', '0220000000800000', `${keys}TERM\n001`),
      code: 'ill-typed',
      field: 41,
      offset: 28,
      readable: [7, 11],
    },
    {
      name: 'a DE 2 of 20 digits',
      bytes: wire('0100', '4220000000000000', `20${'4'.repeat(20)}${keys}`),
      code: 'overlong',
      field: 2,
      offset: 12,
      readable: [7, 11],
    },
    {
      name: 'a DE 2 of 12 digits',
      bytes: wire('0100', '4220000000000000', `12${'4'.repeat(12)}${keys}`),
      code: 'too-short',
      field: 2,
      offset: 12,
      readable: [7, 11],
    },
    {
      name: 'an empty DE 32',
      bytes: wire('0100', '0220000100800000', `${keys}00TERM0001`),
      code: 'too-short',
      field: 32,
      offset: 28,
      readable: [7, 11, 41],
    },
    {
      name: 'a length of DE 2 that is not digits',
      bytes: wire('0100', '4220000000000000', `1 ${'4'.repeat(16)}${keys}`),
      code: 'bad-length',
      field: 2,
      offset: 12,
      readable: [],
    },
    {
      name: 'a signed length',
      bytes: wire('0100', '0220000100000000', `${keys}+5400000`),
      code: 'bad-length',
      field: 32,
      offset: 28,
      readable: [7, 11],
    },
    {
      name: 'an amount with a sign that is none',
      bytes: wire('0100', '0220001000800000', `${keys}+00000150TERM0001`),
      code: 'ill-typed',
      field: 28,
      offset: 28,
      readable: [7, 11, 41],
    },
    {
      name: 'TLV that ends early',
      bytes: wire('0100', '0220000000800200', `${keys}TERM0001003\x9f\x02\x06`),
      code: 'bad-tlv',
      field: 55,
      offset: 36,
      readable: [7, 11, 41],
    },
    {
      name: 'a tertiary bitmap',
      bytes: wire('0100', '82200000000000008000000000000000', `${keys}00000000`),
      code: 'unknown-field',
      field: 65,
      offset: 36,
      readable: [7, 11],
    },
    {
      name: 'two faults: the first is told',
      bytes: wire('0100', '3220000000800000', `00000A${'0'.repeat(12)}112213284x123456TERM0001`),
      code: 'ill-typed',
      field: 3,
      offset: 12,
      readable: [4, 11, 41],
    },
    {
      name: 'a fault, then a truncation',
      bytes: wire('0100', '3220000000800000', `00000A${'0'.repeat(12)}1122132843123456TERM`),
      code: 'ill-typed',
      field: 3,
      offset: 12,
      readable: [4, 7, 11],
    },
  ];
  for (const { name, bytes, code, field, offset, readable } of cases) {
    it(`${name}: ${code}, and the fields whose place is known can be read`, () => {
      const result = refused(bytes);
      assert.deepEqual([result.error.code, result.error.field, result.error.offset], [code, field, offset]);
      assert.equal(result.readable.mti, '0100');
      assert.deepEqual([...result.readable.fields.keys()], readable);
    });
  }

  it('a bad MTI is refused before anything else is believed', () => {
    const rest = Buffer.concat([Buffer.from('0020000000000000', 'hex'), Buffer.from('000042')]);
    for (const [mti, readable] of [
      ['1100', '1100'],
      ['01A0', undefined],
      [' 100', undefined],
    ] as const) {
      const result = refused(Buffer.concat([Buffer.from(mti), rest]));
      assert.deepEqual([result.error.code, result.error.field, result.error.offset], ['bad-mti', undefined, 0]);
      assert.deepEqual(result.readable, { mti: readable, fields: new Map() });
    }
  });

  it('a field is unknown when the table lacks it', () => {
    const fields = new Map([...iso87Ascii.fields].filter(([number]) => number !== 11));
    const result = unpack(wire('0100', '0220000000000000', keys), { ...iso87Ascii, fields });
    assert.equal(result.kind === 'invalid' && result.error.code, 'unknown-field');
  });

  it('no error repeats what the field held', () => {
    const { error } = refused(wire('0100', '4220000000000000', `16476173900101011X${keys}`));
    assert.equal(error.message, 'DE 2 (primaryAccountNumber): content is not of class n');
  });
});

describe('a message that cannot be packed', () => {
  it('is refused with the field and the reason, never bent into shape', () => {
    const cases: readonly (readonly [number, FieldValue, CodecErrorCode])[] = [
      [4, '5000', 'bad-length'],
      [4, '0000000050000', 'bad-length'],
      [4, '00000000500A', 'ill-typed'],
      [2, '4'.repeat(12), 'too-short'],
      [2, '4'.repeat(20), 'overlong'],
      [43, `CAF\u00c9${' '.repeat(36)}`, 'ill-typed'],
      [43, `\u0130${' '.repeat(39)}`, 'ill-typed'],
      [48, '', 'too-short'],
      [48, 'x'.repeat(1000), 'overlong'],
      [4, Buffer.from('000000005000'), 'ill-typed'],
      [52, '12345678', 'ill-typed'],
      [52, Buffer.alloc(7), 'bad-length'],
      [55, Buffer.from('9F0200', 'hex'), 'ill-typed'],
      [55, [], 'too-short'],
      [55, [{ tag: '9F', value: Buffer.alloc(1) }], 'bad-tlv'],
      [55, [{ tag: '5A', value: Buffer.alloc(999) }], 'overlong'],
      [0, '0100', 'unknown-field'],
      [1, '0', 'unknown-field'],
      [65, '0', 'unknown-field'],
      [129, '0', 'unknown-field'],
      [-1, '0', 'unknown-field'],
      [2.5, '0', 'unknown-field'],
      [Number.NaN, '0', 'unknown-field'],
      [Number.POSITIVE_INFINITY, '0', 'unknown-field'],
    ];
    for (const [field, value, code] of cases) {
      const error = refusedToPack([[field, value]]);
      assert.deepEqual([error.code, error.field], [code, field], error.message);
    }
  });

  it('a value of no type that a field can have is refused, not thrown at', () => {
    for (const value of [undefined, null, 5000, {}, true]) {
      for (const field of [4, 52, 55]) assert.equal(refusedToPack([[field, value as never]]).code, 'ill-typed');
    }
  });

  it('a bad MTI is refused', () => {
    for (const mti of ['1100', '010', '01000', '01A0', '']) {
      assert.equal(refusedToPack([], mti).code, 'bad-mti');
    }
    const none = pack({ mti: undefined as never, fields: new Map() }, iso87Ascii);
    assert.equal(none.kind === 'invalid' && none.error.code, 'bad-mti');
  });

  it('leaves no field behind in memory', () => {
    const pin: readonly [number, FieldValue] = [52, Buffer.from('7434F67813BAE545', 'hex')];
    const { room } = compileSpec(iso87Ascii);
    packed({ mti: '0100', fields: new Map([pin]) });
    assert.ok(
      room.every((byte) => byte === 0),
      'after a message',
    );
    refusedToPack([pin, [70, 'x']]);
    assert.ok(
      room.every((byte) => byte === 0),
      'after a refusal',
    );
  });
});
