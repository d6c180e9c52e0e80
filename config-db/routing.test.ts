import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { RangeTable } from './routing.ts';

const table = (...prefixes: string[]) => new RangeTable(prefixes.map((prefix) => ({ prefix })));

describe('a range table', () => {
  test('finds the longest prefix, and the catch-all for the rest', () => {
    const ranges = table('990001', '', '99000150', '9');
    assert.equal(ranges.find('9900015000000018').prefix, '99000150');
    assert.equal(ranges.find('9900010000000019').prefix, '990001');
    assert.equal(ranges.find('9100000000000000').prefix, '9');
    assert.equal(ranges.find('4000000000000000').prefix, '');
    assert.equal(ranges.find('9900').prefix, '9', 'leading digits alone are enough');
    assert.equal(ranges.find('').prefix, '');
    assert.equal(ranges.catchAll.prefix, '');
  });

  test('finds what a naive scan finds, for any ranges and any digits', () => {
    // Three digits only, so that prefixes overlap often.
    const digits = (maxLength: number) => fc.string({ unit: fc.constantFrom('0', '1', '9'), maxLength });
    fc.assert(
      fc.property(fc.uniqueArray(digits(19), { maxLength: 40 }), digits(19), (prefixes, pan) => {
        const all = [...new Set(['', ...prefixes])];
        const naive = all.filter((prefix) => pan.startsWith(prefix)).sort((one, other) => other.length - one.length)[0];
        assert.equal(table(...all).find(pan).prefix, naive);
      }),
      { numRuns: 2_000 },
    );
  });

  test('cannot be made without a catch-all, with two, or with one prefix twice', () => {
    assert.throws(() => table('990001'), /catch-all/);
    assert.throws(() => table('', ''), /catch-all/);
    assert.throws(() => table('', '990001', '990001'), /prefixes of ranges differ/);
  });
});
