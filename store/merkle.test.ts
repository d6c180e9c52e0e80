import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';

import { leafOf } from './canonical.ts';
import { merkleRoot } from './merkle.ts';

const leaf = (text: string): Buffer => leafOf(Buffer.from(text));
const above = (left: Buffer, right: Buffer): Buffer =>
  hash('sha256', Buffer.concat([Buffer.from([1]), left, right]), 'buffer');

test('the roots are those of the test vectors in docs/COMPARE.md', () => {
  const rows = ['1,2:n1n0:x0:1.0,', '2,2:n2n0:x0:1.0,', '3,2:n3n0:x0:1.0,'];
  const roots = [0, 1, 2, 3].map((count) => merkleRoot(rows.slice(0, count).map(leaf)).toString('hex'));
  assert.deepEqual(roots, [
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'b7af3ad6015023f7d846829ecf9f00dc9f78fafcf86212a41450ee2bfd011665',
    'b05f685d1ed68e7687f29610552b507f08a6ae6b657ff49daa182fc2c628403d',
    'f5c32f48adbc6ee58406705f14279376ff16276cb27c25f63b3f6497d934e191',
  ]);
});

test('a tree is split at the largest power of two below the number of its leaves', () => {
  const [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map(leaf) as [Buffer, Buffer, Buffer, Buffer, Buffer];
  assert.deepEqual(merkleRoot([a, b, c]), above(above(a, b), c));
  assert.deepEqual(merkleRoot([a, b, c, d, e]), above(above(above(a, b), above(c, d)), e));
});
