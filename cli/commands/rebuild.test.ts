import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { CommandFailure, UsageError } from '../acquirer/usage.ts';
import { planRebuild, rebuildNode, rebuildText } from './rebuild.ts';
import { answersOf, fakeBus, fakeContext, topology } from './testing.ts';

const n3 = nodeId('n3');

test('every group is made anew, or those that are named', () => {
  assert.deepEqual(planRebuild(topology, answersOf({}), 'n3', []), ['a', 'b', 'config']);
  assert.deepEqual(planRebuild(topology, answersOf({ away: { n4: 9000 } }), 'n3', ['b']), ['b']);
  assert.throws(() => planRebuild(topology, answersOf({}), 'n3', ['c']), UsageError);
});

test('not where a group would have no majority without it, nor of a node that does not answer', () => {
  assert.throws(
    () => planRebuild(topology, answersOf({ away: { n4: 9000, w1: 9000 } }), 'n3', []),
    (error) => error instanceof CommandFailure && error.message.includes('without a majority while n3 is made anew'),
  );
  assert.throws(
    () => planRebuild(topology, answersOf({ away: { n3: 9000 } }), 'n3', []),
    (error) => error instanceof SwitchError && error.code === 'NODE_UNREACHABLE',
  );
});

test('the node is drained first, watched until it votes everywhere, and takes over again', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => {
      const seconds = context.clock.monotonicMs() / 1000;
      const isWhole = seconds > 2.6;
      return answersOf({
        processes: { n3: { rebuilding: isWhole ? [] : [{ group: 'a', percent: 41.5 }] } },
        copies: { n3: { a: { votes: isWhole }, b: { durable: seconds > 1.2 ? 100 : 0, votes: seconds > 1.2 } } },
      });
    },
    () => ({ draining: true, leads: [] }),
  );
  const result = await rebuildNode(bus, context, { node: n3, groups: ['a', 'b'], by: 'ops', timeoutMs: 60_000 });
  assert.deepEqual([result.left, result.groups], [[], ['a', 'b']]);
  assert.deepEqual(
    bus.calls.map(({ method, parameters }) => [method, parameters]),
    [
      ['node.drain', { on: true }],
      ['node.rebuild', { groups: ['a', 'b'], by: 'ops' }],
      ['node.drain', { on: false }],
    ],
  );
  assert.deepEqual(context.notes, [
    'n3: 0 of 2 groups are whole; a 41 %, b catches up ...',
    'n3: 1 of 2 groups are whole; a 41 % ...',
  ]);
  assert.match(rebuildText(result), /^n3 has groups a and b anew and votes there \(3 s\)\.$/);
});

test('it stays drained when it was, is not touched when nobody takes over, and is named when it is not whole in time', async () => {
  const context = fakeContext();
  const whole = { draining: true, leads: [] };
  const drained = fakeBus(
    () => answersOf({ processes: { n3: { draining: true } }, copies: { n3: { a: { failure: 'full' } } } }),
    () => whole,
  );
  const options = { node: n3, groups: ['a'], by: 'ops', timeoutMs: 3_000 };
  const late = await rebuildNode(drained, context, options);
  assert.deepEqual(late.left, ['a']);
  assert.match(rebuildText(late), /not whole yet in group a after/);
  assert.deepEqual(
    drained.calls.map(({ method }) => method),
    ['node.drain', 'node.rebuild'],
  );
  const stuck = fakeBus(
    () => answersOf({ owners: { a: 'n3' } }),
    () => ({ draining: true, leads: ['a'] }),
  );
  await assert.rejects(rebuildNode(stuck, context, options), /n3 still owns group a, and nobody takes over/);
  assert.ok(stuck.calls.every(({ method }) => method !== 'node.rebuild'));
});
