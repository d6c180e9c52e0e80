import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ManualClock } from './manual-clock.ts';
import { ReplayGuard } from './replay-guard.ts';

test('a call is taken once, within half a minute of the time it was made', () => {
  const clock = new ManualClock();
  const guard = new ReplayGuard(clock);
  const at = clock.wallMs();
  assert.equal(guard.refuse('one', at), undefined);
  assert.match(guard.refuse('one', at) ?? '', /before/);
  assert.equal(guard.refuse('two', at + 29_000), undefined);
  clock.advance(31_000);
  assert.match(guard.refuse('three', at) ?? '', /30 s/);
  assert.match(guard.refuse('one', at) ?? '', /30 s/);
  clock.advance(60_000);
  assert.match(guard.refuse('two', at + 29_000) ?? '', /30 s/);
  assert.equal(guard.refuse('three', clock.wallMs()), undefined);
});

test('a call without id or time is refused', () => {
  const guard = new ReplayGuard(new ManualClock());
  assert.notEqual(guard.refuse(undefined, 0), undefined);
  assert.notEqual(guard.refuse('one', '0'), undefined);
});
