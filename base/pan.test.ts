import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';

import fc from 'fast-check';

import { maskCardData, Pan } from './pan.ts';

const clear = '4000001234567899';

test('a card number never turns into text by itself', () => {
  const pan = Pan.parse(clear);
  assert.ok(pan !== undefined);
  for (const text of [String(pan), JSON.stringify({ pan }), inspect(pan), inspect({ deep: [pan] })]) {
    assert.ok(!text.includes(clear), text);
  }
  assert.equal(pan.masked(), '400000******7899');
  assert.equal(pan.reveal(), clear);
});

test('13 to 19 digits are a card number and nothing else is', () => {
  for (const text of ['', '400000123456', '40000012345678991234', '400000123456789x', ' 4000001234567899']) {
    assert.equal(Pan.parse(text), undefined, text);
  }
  assert.ok(Pan.parse('4'.repeat(13)) !== undefined);
  assert.ok(Pan.parse('4'.repeat(19)) !== undefined);
});

test('masking leaves at most the first six and last four digits, however the number is written', () => {
  const digits = Array.from(clear);
  const writings: readonly string[] = [
    clear,
    '4000-0012-3456-7899',
    '4000 0012 3456 7899',
    '4000  0012  3456  7899',
    '4000_0012_3456_7899',
    '4000\t0012\n3456\r\n7899',
    '4000\\t0012\\n3456\\\\n7899',
    '4000\u20130012\u00a03456\u200b7899',
    digits.join(' '),
    `${clear}=25121010000000000`,
    `${clear}D25121010000000000`,
    `${clear}%3D2512101`,
    `;${clear}=2512101123?`,
    `%B${clear}^DOE/JANE^2512101123400000?`,
    `{"pan":${clear}}`,
    JSON.stringify({ text: JSON.stringify({ pan: clear }) }),
    digits.map((digit) => `\\u003${digit}`).join(''),
    `\\u0034${clear.slice(1)}`,
    `\\\\u0034${clear.slice(1)}`,
    digits.map((digit) => `%3${digit}`).join(''),
    digits.map((digit) => `&#${digit.charCodeAt(0)};`).join(''),
    digits.map((digit) => String.fromCodePoint(0xff10 + Number(digit))).join(''),
    digits.map((digit) => `F${digit}`).join(''),
    Buffer.from(clear).toString('hex'),
    inspect(Buffer.from(clear)),
    JSON.stringify(Buffer.from(clear)),
    JSON.stringify(new Uint8Array(Buffer.from(clear))),
    `x${clear}y`,
    `12 ${clear}`,
  ];
  for (const writing of writings) {
    const result = maskCardData(`before ${writing} after`);
    assert.match(result, /\*{6}/, writing);
    assert.ok(result.startsWith('before ') && result.endsWith(' after'), result);
    assert.ok(
      !result.includes('123456') && !result.includes('001234') && !result.includes('3456'),
      `${writing} -> ${result}`,
    );
    assert.ok(!result.includes('DOE') && !result.includes('2512'), result);
    assert.equal(maskCardData(result), result);
  }
});

test('masking leaves what is no card number as it is', () => {
  for (const text of [
    '2026-11-22T13:28:37.123Z n1 ready at 127.0.0.1:8581',
    'group a, term 3, index 1234567, card group-a.3.1234567.12345',
    'p50 1,234 µs, p99 12,345 µs; [100,200,300,400,500,600]',
    '[52,48,48]',
    'STAN 123456 RRN 123456789012',
  ]) {
    assert.equal(maskCardData(text), text);
  }
});

test('no run of 13 or more digits survives masking, whatever stands around it', () => {
  fc.assert(
    fc.property(fc.string(), fc.stringMatching(/^[0-9]{13,40}$/), fc.string(), (before, digits, after) => {
      assert.doesNotMatch(maskCardData(before + digits + after), /\d{13}/);
    }),
  );
});

test('masking a long text takes time in proportion to its length', () => {
  const hostile = '4 '.repeat(6).repeat(20_000) + '\\u003'.repeat(20_000) + 'F4'.repeat(12).concat('x').repeat(5_000);
  assert.ok(maskCardData(hostile).length > 0);
});
