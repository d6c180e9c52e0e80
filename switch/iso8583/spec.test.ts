import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { pack } from './codec.ts';
import { iso87Ascii } from './spec.ts';
import type { FieldSpec, MessageSpec } from './spec.ts';

function dialect(...fields: readonly FieldSpec[]): MessageSpec {
  return { ...iso87Ascii, fields: new Map(fields.map((field) => [field.number, field])) };
}

const stan: FieldSpec = {
  number: 11,
  name: 'systemTraceAuditNumber',
  format: { kind: 'text', content: 'n', encoding: 'ascii' },
  length: { kind: 'fixed', length: 6 },
  sensitive: undefined,
};

describe('the table of 1987', () => {
  it('has every field of two bitmaps but the bitmaps themselves, each name once', () => {
    const expected = Array.from({ length: 128 }, (_, index) => index + 1).filter(
      (number) => number !== 1 && number !== 65,
    );
    assert.deepEqual([...iso87Ascii.fields.keys()], expected);
    assert.equal(new Set([...iso87Ascii.fields.values()].map((field) => field.name)).size, expected.length);
  });

  it('marks card numbers, tracks, PIN data, secrets and private data as sensitive', () => {
    const marked = [...iso87Ascii.fields.values()].filter((field) => field.sensitive !== undefined);
    assert.deepEqual(
      marked.map((field) => field.number).filter((number) => number < 105),
      [2, 34, 35, 36, 44, 45, 46, 47, 48, 52, 53, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 96, 102, 103],
    );
    assert.equal(marked.filter((field) => field.number >= 105).length, 24);
  });
});

describe('a table that contradicts itself', () => {
  const message = { mti: '0800', fields: new Map([[11, '000042']]) };
  const cases: readonly (readonly [string, MessageSpec])[] = [
    ['a field under another number', { ...iso87Ascii, fields: new Map([[12, stan]]) }],
    ['a field where the bitmap is', dialect({ ...stan, number: 65 })],
    ['a field beyond the last', dialect({ ...stan, number: 129 })],
    [
      'a length that the prefix cannot say',
      dialect({
        ...stan,
        length: { kind: 'variable', prefixDigits: 2, prefixEncoding: 'ascii', minimum: 1, maximum: 100 },
      }),
    ],
  ];
  for (const [name, spec] of cases) {
    it(`is a broken invariant: ${name}`, () => {
      assert.throws(() => pack(message, spec), /broken invariant/);
    });
  }
});
