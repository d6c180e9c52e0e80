import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cardStatuses, isCardStatus, moreRestrictive, responseCodeOfStatus } from './card-status.ts';

test('each status implies its response code', () => {
  const codes = Object.fromEntries(cardStatuses.map((status) => [status, responseCodeOfStatus(status)]));
  assert.deepEqual(codes, { active: null, blocked: '62', closed: '14', lost: '41', stolen: '43' });
});

test('the more restrictive of two statuses wins, in either order', () => {
  cardStatuses.forEach((milder, index) => {
    for (const severer of cardStatuses.slice(index)) {
      assert.equal(moreRestrictive(milder, severer), severer);
      assert.equal(moreRestrictive(severer, milder), severer);
    }
  });
  assert.deepEqual(cardStatuses, ['active', 'blocked', 'closed', 'lost', 'stolen']);
});

test('other words are no statuses', () => {
  for (const text of ['', 'Active', 'constructor', 'restricted']) assert.equal(isCardStatus(text), false);
  assert.ok(isCardStatus('lost'));
});
