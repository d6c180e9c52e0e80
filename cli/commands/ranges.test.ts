import assert from 'node:assert/strict';
import { test } from 'node:test';

import { groupId, nodeId } from '../../base/identifiers.ts';
import type { RangeProgress } from '../node/range-desk.ts';
import { awaitEnd } from './ranges.ts';
import { answersOf, fakeBus, fakeContext } from './testing.ts';

const n1 = nodeId('n1');
const moving: RangeProgress = {
  prefix: '990001',
  move: 'm',
  from: groupId('a'),
  to: groupId('b'),
  state: 'copying',
  cardsLeft: 40,
  cardsCome: 12,
  owners: { a: n1, b: null, config: n1 },
};

test('a move is awaited, with a line each second that says how far it is and for whose owner it waits', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => answersOf({}),
    () => ({ moves: context.clock.monotonicMs() < 1500 ? [moving] : [{ ...moving, move: 'another' }] }),
  );
  assert.equal(await awaitEnd(context, bus, n1, 'm', 10_000), true);
  assert.deepEqual(context.notes, ['"990001": 12 of 40 cards have come to group b; waits for an owner of b ...']);
});

test('a move that has not ended in time goes on by itself', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => answersOf({}),
    () => ({ moves: [{ ...moving, state: 'leaving', owners: {} }] }),
  );
  assert.equal(await awaitEnd(context, bus, n1, 'm', 2500), false);
  assert.deepEqual(context.notes, Array(2).fill('"990001": 40 cards have left group a ...'));
});
