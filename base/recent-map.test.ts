import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RecentMap } from './recent-map.ts';

test('the last half of its capacity is kept for certain, and never more than its capacity', () => {
  const map = new RecentMap<number, string>(10);
  for (let key = 0; key < 1000; key++) {
    map.set(key, String(key));
    assert.ok(map.size <= 10, `${map.size} entries`);
    for (let recent = Math.max(0, key - 4); recent <= key; recent++) assert.equal(map.get(recent), String(recent));
  }
  assert.equal(map.get(0), undefined);
});

test('what is read stays, what is deleted is gone from both generations', () => {
  const map = new RecentMap<string, number>(4);
  map.set('kept', 1);
  map.set('deleted', 2);
  for (let key = 0; key < 100; key++) {
    map.set(`other ${key}`, key);
    assert.equal(map.get('kept'), 1);
    if (key === 0) map.delete('deleted');
    assert.equal(map.get('deleted'), undefined);
  }
});

test('setting again replaces the value, whichever generation had it', () => {
  const map = new RecentMap<string, number>(4);
  map.set('a', 1);
  map.set('b', 2);
  map.set('c', 3);
  map.set('a', 4);
  assert.equal(map.get('a'), 4);
  assert.equal(map.size, 3);
  map.clear();
  assert.equal(map.size, 0);
});
