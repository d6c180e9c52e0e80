import assert from 'node:assert/strict';
import { test } from 'node:test';

import { delay } from './clock.ts';
import { ManualClock } from './manual-clock.ts';

test('timers run by time, then by when they were set, each at its own time', () => {
  const clock = new ManualClock({ startWallMs: 1000 });
  const seen: string[] = [];
  const at = (name: string) => (): void => {
    seen.push(`${name} ${clock.monotonicMs()} ${clock.wallMs()}`);
  };
  clock.after(20, at('b'));
  clock.after(10, at('a'));
  clock.after(20, at('c'));
  clock.after(21, at('never')).cancel();
  clock.after(10, () => {
    clock.after(5, at('nested'));
  });
  assert.equal(clock.nextTimerMs(), 10);
  clock.advance(20);
  assert.deepEqual(seen, ['a 10 1010', 'nested 15 1015', 'b 20 1020', 'c 20 1020']);
  assert.deepEqual([clock.timers, clock.monotonicMs()], [0, 20]);
});

test('what is soon runs before time passes, and after each timer', () => {
  const clock = new ManualClock();
  const seen: string[] = [];
  clock.soon(() => {
    seen.push('first');
    clock.soon(() => seen.push('second'));
  });
  clock.after(10, () => {
    clock.soon(() => seen.push(`soon at ${clock.monotonicMs()}`));
  });
  assert.deepEqual(seen, []);
  clock.advance(30);
  assert.deepEqual(seen, ['first', 'second', 'soon at 10']);
});

test('a delay ends when its time has come', async () => {
  const clock = new ManualClock();
  const waited = delay(clock, 50);
  clock.advance(50);
  await waited;
});
