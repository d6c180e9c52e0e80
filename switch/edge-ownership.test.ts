import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  approvalOutcome as approval,
  bounceOutcome as bounce,
  configurationView,
  EdgeBench as Bench,
  group,
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

test('while a group has no owner its requests wait until their time is up, and are sent to nobody', () => {
  const bench = new Bench();
  bench.handle();
  bench.leads(undefined);
  bench.outcome(bounce('not-the-owner'));
  bench.pass(2825);
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

describe('a request whose card has moved', () => {
  const moved = { kind: 'bounce', reason: 'other-group', group: otherGroup } as const;
  test('follows it to its owner at once, as another attempt of that group', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome(moved);
    assert.deepEqual(
      bench.sent.map(([, { group: of, attempt }]) => [of, attempt]),
      [
        [group, 'n1.4.1'],
        [otherGroup, 'n1.4.1.1'],
      ],
    );
    bench.outcome(approval);
    assert.deepEqual([bench.codes(), bench.edge.late], [[], 1], 'what the old group says now is nothing');
    bench.outcome(approval, 1);
    assert.deepEqual(bench.codes(), ['00']);
    assert.equal(bench.store.dues.size, 0);
  });
  test('that runs out of time is due at both groups: either may have decided it', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome(moved);
    bench.pass(3000);
    assert.deepEqual(bench.codes(), ['91']);
    assert.deepEqual(
      [...bench.store.dues.values()].map(({ attempt, group: of }) => [attempt, of]),
      [
        ['n1.4.1', group],
        ['n1.4.1.1', otherGroup],
      ],
    );
  });
  test('and which two groups send to each other waits between its steps', () => {
    const bench = new Bench();
    bench.handle();
    for (let at = 0; at < 50; at++) {
      if (bench.sent.length <= at) break;
      const of = bench.sent[at]?.[1].group === group ? otherGroup : group;
      bench.outcome({ ...moved, group: of }, at);
    }
    assert.equal(bench.sent.length, 4);
    bench.pass(50);
    assert.equal(bench.sent.length, 5);
  });
  test('is no duplicate of another card when it is repeated', () => {
    let heir = group;
    const view = () => {
      const rows = configurationView(heir === group ? 1 : 2);
      return Object.assign(Object.create(rows), {
        rangeOf: (of: never) => ({ ...rows.rangeOf(of), group_id: heir }),
        link: (id: string) => rows.link(id),
      }) as typeof rows;
    };
    const bench = new Bench({ configuration: view });
    bench.handle();
    heir = otherGroup;
    bench.handle({}, '0101');
    assert.deepEqual(bench.codes(), []);
    assert.equal(bench.sent.at(-1)?.[1].group, otherGroup);
  });
});
