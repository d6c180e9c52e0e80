import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  approvalOutcome as approval,
  bounceOutcome as bounce,
  EdgeBench as Bench,
  n1,
  n2,
  n3,
  otherGroup,
} from './testing.ts';

describe('when the group has another owner, a request', () => {
  test('that the last one has is sent to the new one at once, with the same attempt', () => {
    const bench = new Bench();
    bench.handle();
    bench.leads(n3);
    assert.deepEqual(
      bench.sent.map(([to, { id, attempt }]) => [to, id, attempt]),
      [
        [n2, 1, 'n1.4.1'],
        [n3, 1, 'n1.4.1'],
      ],
    );
    bench.outcome(approval, 1);
    assert.deepEqual(bench.codes(), ['00']);
  });
  test('that waited for an owner is sent at once', () => {
    const bench = new Bench();
    bench.leads(undefined);
    bench.handle();
    bench.pass(100);
    assert.deepEqual(bench.sent, []);
    bench.leads(n3);
    assert.equal(bench.sent.length, 1);
  });
  test('that bounced is sent to the new one at once, and to the same one when it leads again', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome(bounce('not-the-owner'));
    bench.leads(n3);
    bench.outcome(bounce('not-ready'), 1);
    bench.leads(n3);
    assert.deepEqual(
      bench.sent.map(([to]) => to),
      [n2, n3, n3],
    );
  });
  test('goes on from this node to another, and from another to this node', () => {
    const bench = new Bench();
    bench.leads(n1);
    bench.handle();
    assert.equal(bench.asked.length, 1);
    bench.leads(n2);
    assert.equal(bench.sent.length, 1);
    bench.leads(n1);
    assert.equal(bench.asked.length, 2);
    bench.asked[0]?.(bounce('not-the-owner'));
    bench.asked[1]?.(approval);
    assert.deepEqual(bench.codes(), ['00']);
  });
  test('that the owner in this process has is not asked again because it is told again that it leads', () => {
    const bench = new Bench();
    bench.leads(n1);
    bench.handle();
    bench.leads(n1);
    assert.equal(bench.asked.length, 1);
    bench.asked[0]?.(bounce('not-ready'));
    bench.leads(n1);
    assert.equal(bench.asked.length, 2, 'but after a bounce');
  });
  test('of another group stays where it is', () => {
    const bench = new Bench();
    bench.handle();
    bench.leads(n3, otherGroup);
    assert.equal(bench.sent.length, 1);
  });
});

test('while a group has no owner its requests wait to the deadline, and are sent to nobody', () => {
  const bench = new Bench();
  bench.handle();
  bench.leads(undefined);
  bench.outcome(bounce('not-the-owner'));
  bench.pass(2975);
  assert.equal(bench.sent.length, 1);
  assert.deepEqual(bench.codes(), []);
  bench.pass(25);
  assert.deepEqual(bench.codes(), ['91']);
  bench.leads(n3);
  assert.equal(bench.sent.length, 1, 'what was answered is sent no more');
});

test('a node that leads a group which it does not have is asked again soon', () => {
  const bench = new Bench({ ownerOf: () => undefined });
  bench.leads(n1);
  bench.handle();
  bench.pass(100);
  bench.leads(n2);
  assert.equal(bench.sent.length, 1);
});
