import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { UsageError } from '../acquirer/usage.ts';
import { drainNode } from './drain.ts';
import { failBack, failbackText } from './failback.ts';
import { answersOf, fakeBus, fakeContext } from './testing.ts';

const n1 = nodeId('n1');

test('drain waits until the node owns nothing, and says each second what is left', async () => {
  const context = fakeContext();
  const owners = (): Record<string, string> => {
    const seconds = context.clock.monotonicMs() / 1000;
    return { a: seconds < 1.5 ? 'n1' : 'n2', config: seconds < 2.2 ? 'n1' : 'n2' };
  };
  const bus = fakeBus(
    () => answersOf({ owners: owners(), processes: { n1: { draining: true } } }),
    () => ({ draining: true, leads: ['a', 'config'] }),
  );
  const result = await drainNode(bus, context, n1, 10_000);
  assert.deepEqual(bus.calls, [{ to: 'n1', method: 'node.drain', parameters: { on: true } }]);
  assert.deepEqual([result.leads, result.draining], [[], true]);
  assert.ok(result.tookMs >= 2200 && result.tookMs < 2400, `${result.tookMs} ms`);
  assert.deepEqual(context.notes, [
    'n1 still owns groups a and config after 1 s ...',
    'n1 still owns group config after 2 s ...',
  ]);
});

test('drain gives up waiting, not draining, when nobody takes over in time', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => answersOf({ processes: { n1: { draining: true } } }),
    () => ({ draining: true, leads: ['a', 'config'] }),
  );
  const result = await drainNode(bus, context, n1, 3000);
  assert.deepEqual([result.leads, result.draining], [['a', 'config'], true]);
  assert.equal(context.notes.length, 2);
});

test('a node that goes away while it drains is an error of its own', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => answersOf(context.clock.monotonicMs() > 500 ? { away: { n1: 1 } } : {}),
    () => ({ draining: true, leads: ['a'] }),
  );
  await assert.rejects(drainNode(bus, context, n1, 3000), {
    code: 'NODE_UNREACHABLE',
    message: 'n1 was told to drain, and does not answer any more',
  });
});

test('a node that does not know how to drain says so', async () => {
  const bus = fakeBus(
    () => answersOf({}),
    () => {
      throw new SwitchError('CALL_INVALID', 'n1: there is no call "node.drain"');
    },
  );
  await assert.rejects(drainNode(bus, fakeContext(), n1, 3000), { code: 'CALL_INVALID' });
});

test('failback asks each owner for what is not its own, and waits for the new owners', async () => {
  const context = fakeContext();
  let moved = false;
  const bus = fakeBus(
    () => answersOf({ owners: moved && context.clock.monotonicMs() > 300 ? {} : { a: 'n2', config: 'n3' } }),
    (_to, _method, parameters) => {
      moved = true;
      const { groups } = parameters as { groups: string[] };
      return { handedOver: groups.map((group) => ({ group, to: 'n1' })), kept: [] };
    },
  );
  const results = await failBack(bus, context, [], 5000);
  assert.deepEqual(bus.calls, [
    { to: 'n2', method: 'node.failback', parameters: { groups: ['a'] } },
    { to: 'n3', method: 'node.failback', parameters: { groups: ['config'] } },
  ]);
  assert.deepEqual(
    results.map(({ group, outcome, owner }) => [group, outcome, owner]),
    [
      ['a', 'returned', 'n1'],
      ['b', 'in-place', 'n2'],
      ['config', 'returned', 'n1'],
    ],
  );
});

test('failback asks nobody when nobody before the owner can lead', async () => {
  const bus = fakeBus(() => answersOf({ away: { n1: 5 }, owners: { a: 'n2', config: undefined } }));
  const results = await failBack(bus, fakeContext(), ['a', 'config'], 5000);
  assert.deepEqual(bus.calls, []);
  assert.equal(
    failbackText(results),
    `group   owner  ownership
a       n2     where it was  nobody before n2 in its order can lead it now
config  -      NOT returned  nobody leads it: see \`quadrant status\``,
  );
});

test('failback tells why an owner kept a group, and which hand-over is not done in time', async () => {
  const context = fakeContext();
  const bus = fakeBus(
    () => answersOf({ owners: { a: 'n2', b: 'n1', config: 'n3' } }),
    (to) => {
      if (to === 'n3') throw new SwitchError('CALL_INVALID', 'n3: there is no call "node.failback"');
      return to === 'n2'
        ? { handedOver: [], kept: [{ group: 'a', reason: 'n1 has not caught up' }] }
        : { handedOver: [{ group: 'b', to: 'n2' }], kept: [] };
    },
  );
  const results = await failBack(bus, context, [], 2500);
  assert.deepEqual(results, [
    { group: 'a', outcome: 'kept', owner: 'n2', reason: 'n1 has not caught up' },
    { group: 'b', outcome: 'pending', owner: 'n1', reason: 'handed over to n2, which does not lead yet' },
    { group: 'config', outcome: 'kept', owner: 'n3', reason: 'n3: there is no call "node.failback"' },
  ]);
  assert.deepEqual(context.notes, Array(2).fill('waiting for n2 to lead group b ...'));
});

test('failback refuses a group that is not there', async () => {
  const bus = fakeBus(() => answersOf({}));
  await assert.rejects(failBack(bus, fakeContext(), ['a', 'z'], 5000), (error) => {
    assert.ok(error instanceof UsageError);
    assert.equal(error.message, 'there is no group "z"; the cluster has a, b, config');
    return true;
  });
});
