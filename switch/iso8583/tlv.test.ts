import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import fc from 'fast-check';

import { arbitraryElements } from './arbitrary-messages.ts';
import { formatTlv, parseTlv } from './tlv.ts';
import type { TlvElement } from './tlv.ts';

function parsed(hex: string): readonly TlvElement[] {
  const result = parseTlv(Buffer.from(hex, 'hex'));
  return result.kind === 'elements' ? result.elements : assert.fail(result.reason);
}

function formatted(elements: readonly TlvElement[]): string {
  const result = formatTlv(elements);
  return result.kind === 'bytes' ? result.bytes.toString('hex').toUpperCase() : assert.fail(result.reason);
}

function element(tag: string, value: string): TlvElement {
  return { tag, value: Buffer.from(value, 'hex') };
}

describe('BER-TLV', () => {
  it('keeps order, repeated and unknown tags, and empty values', () => {
    const hex = '9F360201FF' + 'DF8A7F00' + '5A0147' + 'DF8A7F00' + '820239C0';
    assert.deepEqual(parsed(hex), [
      element('9F36', '01FF'),
      element('DF8A7F', ''),
      element('5A', '47'),
      element('DF8A7F', ''),
      element('82', '39C0'),
    ]);
    assert.equal(formatted(parsed(hex)), hex);
  });

  it('keeps a template as its raw value', () => {
    assert.deepEqual(parsed('70065A0147820200'.slice(0, 16)), [element('70', '5A0147820200')]);
  });

  it('reads and writes lengths of one, two and three bytes', () => {
    for (const [length, header] of [
      [0x7f, '7F'],
      [0x80, '8180'],
      [0xff, '81FF'],
      [0x100, '820100'],
    ] as const) {
      const hex = `5A${header}${'00'.repeat(length)}`;
      assert.deepEqual(parsed(hex), [element('5A', '00'.repeat(length))]);
      assert.equal(formatted(parsed(hex)), hex);
    }
  });

  it('remembers a length field that is longer than its value needs', () => {
    for (const hex of ['5A810147', '5A82000147', '5A8300000147', '5A840000000147']) {
      assert.equal(parsed(hex)[0]?.lengthBytes, (hex.length - 4) / 2);
      assert.equal(formatted(parsed(hex)), hex);
    }
  });

  it('says where and why it refuses', () => {
    for (const [hex, offset, reason] of [
      ['5A01479F', 3, 'ends inside a tag'],
      ['5A', 1, 'ends before a length'],
      ['5A82', 1, 'ends inside a length'],
      ['5A024700', 0, undefined],
      ['5A0347', 1, 'ends inside a value'],
      ['5A8200', 1, 'ends inside a length'],
      ['5A80470000', 1, 'the indefinite length form'],
      ['5A85000000000147', 1, 'a length field that is too long'],
      ['5AFF', 1, 'a length field that is too long'],
      ['5A84FFFFFFFF47', 1, 'ends inside a value'],
      ['5A014700', 3, 'filler where a tag should be'],
      ['FF5A0147', 0, 'filler where a tag should be'],
      ['9F8080808001', 0, 'a tag of more than 4 bytes'],
    ] as const) {
      const result = parseTlv(Buffer.from(hex, 'hex'));
      if (reason === undefined) assert.equal(result.kind, 'elements', hex);
      else assert.deepEqual(result, { kind: 'invalid', offset, reason }, hex);
    }
  });

  it('does not write what it would not read', () => {
    for (const tag of ['', '9F', '5A5A', '5a', '5', 'XY', '00', 'FF01', '9F808080', '9F80808001', '5A ']) {
      assert.equal(formatTlv([element(tag, '47')]).kind, 'invalid', tag);
    }
    for (const lengthBytes of [0, 1.5, 6, -1, Number.NaN]) {
      assert.equal(formatTlv([{ ...element('5A', '47'), lengthBytes }]).kind, 'invalid', String(lengthBytes));
    }
    assert.equal(formatTlv([{ ...element('5A', '00'.repeat(200)), lengthBytes: 1 }]).kind, 'invalid');
  });

  it('gives back any elements', () => {
    fc.assert(
      fc.property(arbitraryElements, (elements) => {
        assert.deepEqual(parsed(formatted(elements)), elements);
      }),
    );
  });

  it('gives back any bytes that it accepts', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const result = parseTlv(Buffer.from(bytes));
        if (result.kind === 'elements')
          assert.equal(formatted(result.elements), Buffer.from(bytes).toString('hex').toUpperCase());
      }),
      { numRuns: 2000 },
    );
  });
});
