import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { test } from 'node:test';

import { groupId } from '../base/identifiers.ts';
import { chainEntry, decodeBody, encodeBody, originPosition, type EntryBody } from './entry.ts';

const a = originPosition(groupId('a'));

test('an entry follows the one before, and its hash covers that one, index, term and body', () => {
  const entry = chainEntry(a, 3, '{"kind":"x"}');
  assert.deepEqual([entry.index, entry.term, entry.body], [1, 3, '{"kind":"x"}']);
  assert.equal(entry.hash, hash('sha256', `${a.hash} 1 3\n{"kind":"x"}`, 'hex'));
  assert.equal(chainEntry(entry, 3, 'y').index, 2);
});

test('another body, term, index or entry before gives another hash, and so does every hash after it', () => {
  const entry = chainEntry(a, 1, 'body');
  const others = [
    chainEntry(a, 1, 'bodY'),
    chainEntry(a, 2, 'body'),
    chainEntry({ ...a, index: 1 }, 1, 'body'),
    chainEntry(originPosition(groupId('b')), 1, 'body'),
    chainEntry(chainEntry(a, 1, 'before'), 1, 'body'),
  ];
  const hashes = [entry, ...others].map((each) => each.hash);
  assert.equal(new Set(hashes).size, hashes.length);
  const after = hashes.map((each, index) => chainEntry({ index, term: 1, hash: each }, 1, 'same').hash);
  assert.equal(new Set(after).size, after.length);
});

test('where a digit ends in index and term is part of the hash', () => {
  const entry = (index: number, term: number): string => chainEntry({ ...a, index: index - 1 }, term, '').hash;
  assert.notEqual(entry(1, 11), entry(11, 1));
  assert.notEqual(entry(111, 1), entry(11, 11));
});

test("a log of one group is no other group's from its beginning on", () => {
  assert.notEqual(a.hash, originPosition(groupId('b')).hash);
  assert.deepEqual([a.index, a.term], [0, 0]);
});

test('a body is the same after its way through text', () => {
  const bodies: EntryBody[] = [
    { kind: 'no-op', leader: 'n1', term: 2 },
    { kind: 'mark', at: 5, compare: 'c1' },
    { kind: 'expiry', at: 5, holds: [1, 2] },
    { kind: 'cards', at: 5, by: 'import', added: [], origin: 'n1', changes: [] },
    { kind: 'configuration', id: 'i', checkedAt: 0, at: 5, by: 'x', origin: 'n1', changes: [] },
  ];
  for (const body of bodies) assert.deepEqual(decodeBody(encodeBody(body)), body);
});
