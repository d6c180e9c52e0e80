import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { CardKeys } from '../base/card-keys.ts';
import { cardId } from '../base/identifiers.ts';
import type { EntryBody } from '../store/entry.ts';
import type { RangeMoveRow } from '../store/range-move.ts';
import { nextStep, placeOf, type MoveState } from './range-moves.ts';
import { duplicateKey } from './request.ts';
import { configurationView, group, localPan, otherGroup, OwnerBench, pan, requestOf } from './testing.ts';

const move = { prefix: '990001', to_group: otherGroup, move_id: 'm' };
const row = (direction: 'out' | 'in', changes: Partial<RangeMoveRow> = {}): RangeMoveRow => ({
  ...{ move: 'm', direction, prefix: '990001', nested: [], other: otherGroup, index: 3, endIndex: 0, parts: 0 },
  ...{ cards: 0, through: '', hash: '', configIndex: 2 },
  ...changes,
});
const none: MoveState = { row: undefined, isSettled: true, inFile: undefined };
const view = configurationView(2, [], [move]);
const range = view.range('990001');
assert.ok(range !== undefined);

describe('a card is decided', () => {
  const place = (of: typeof group, moving: typeof move | undefined, state = none, isComing = false) =>
    placeOf(of, range, moving, { stateOf: () => state, isComing: () => isComing });
  const cases: readonly [string, unknown, unknown][] = [
    ['where its range is', place(group, undefined), 'here'],
    ['nowhere else', place(otherGroup, undefined), group],
    ['where its range is, until it leaves', place(group, move), 'here'],
    ['not there from its leaving on', place(group, move, { ...none, row: row('out') }), otherGroup],
    ['not by the heir before it has begun', place(otherGroup, move), 'coming'],
    ['not by the heir while rows come', place(otherGroup, move, { ...none, row: row('in', { parts: 2 }) }), 'coming'],
    [
      'not by the heir before its fold has all of them',
      place(otherGroup, move, { ...none, row: row('in', { endIndex: 9 }), isSettled: false }),
      'coming',
    ],
    ['then by the heir', place(otherGroup, move, { ...none, row: row('in', { endIndex: 9 }) }), 'here'],
    [
      'not by a leader of the heir that has the end of the move before the rows',
      place(group, undefined, none, true),
      'coming',
    ],
  ];
  for (const [name, found, expected] of cases) {
    test(name, () => {
      assert.equal(found, expected);
    });
  }
});

describe('the next step', () => {
  const left = row('out', { endIndex: 8, cards: 3 });
  const cases: readonly [string, string, string][] = [
    ['is that the range leaves', nextStep(group, range, move, none, undefined), 'out'],
    [
      'waits until all that came onto file before is in the file',
      nextStep(group, range, move, { ...none, row: row('out') }, undefined),
      'nothing',
    ],
    [
      'is that its cards leave',
      nextStep(group, range, move, { ...none, row: row('out'), inFile: row('out') }, undefined),
      'leave',
    ],
    [
      'waits when others are not applied yet',
      nextStep(
        group,
        range,
        move,
        { ...none, row: row('out', { parts: 6 }), inFile: row('out', { parts: 2 }) },
        undefined,
      ),
      'nothing',
    ],
    [
      'is none of the old group when all have left',
      nextStep(group, range, move, { ...none, row: left, inFile: left }, left),
      'nothing',
    ],
    [
      'is none of the heir while they leave',
      nextStep(otherGroup, range, move, none, row('out', { cards: 2 })),
      'nothing',
    ],
    ['is that rows come', nextStep(otherGroup, range, move, none, left), 'rows'],
    [
      'is the end, when the heir has all',
      nextStep(otherGroup, range, move, { ...none, row: row('in', { endIndex: 9 }) }, left),
      'end',
    ],
    ['is none of a third group', nextStep('c' as never, range, move, none, left), 'nothing'],
  ];
  for (const [name, found, expected] of cases) {
    test(name, () => {
      assert.equal(found, expected);
    });
  }
});

describe('an owner whose range leaves', () => {
  const out = {
    kind: 'range-out',
    at: 1,
    configIndex: 2,
    move: 'm',
    prefix: '990001',
    nested: [],
    to: otherGroup,
  } as const;
  const card = cardId(group, 1, 1, 0);
  const gone: EntryBody = { kind: 'range-leave', at: 1, move: 'm', cards: [card], through: '', last: true };
  const due = { kind: 'undelivered', group, attempt: 'n2.1.r', key: duplicateKey(requestOf()) } as const;

  function leaving(): { bench: OwnerBench; heirs: unknown[]; end: () => void } {
    let configuration = view;
    const bench = new OwnerBench({ configuration: () => configuration }).ready();
    bench.ask('r');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
    const heirs: unknown[] = [];
    bench.owner.append(out);
    return {
      bench,
      heirs,
      end: () => {
        configuration = configurationView(3);
      },
    };
  }

  test('tells edges who will have it, from the entry on, committed or not; other ranges go on', () => {
    const { bench } = leaving();
    bench.ask('s', { stan: '000002' });
    bench.owner.request(requestOf({ stan: '000003' }), 'n2.1.t', (outcome) => {
      assert.deepEqual(outcome, { kind: 'bounce', reason: 'other-group', group: otherGroup });
    });
    bench.ask('local', { pan: localPan, stan: '000004' });
    bench.progress(5, 5);
    assert.deepEqual(bench.came(), ['s other-group', 'local 00']);
  });

  test('settles no claim for a card that has left until the move has ended; then it names the heir', () => {
    const { bench, heirs, end } = leaving();
    bench.owner.append(gone);
    const claim = (): void => {
      bench.owner.claim(due, 'n2' as never, (outcome, heir) => heirs.push([outcome, heir]));
    };
    claim();
    bench.progress(5, 5);
    assert.deepEqual(heirs, []);
    end();
    claim();
    assert.deepEqual(heirs, [['moved', otherGroup]]);
    assert.deepEqual(bench.kinds(), ['decision', 'range-out', 'range-leave']);
  });

  test('takes no change of a card that has left', () => {
    const { bench } = leaving();
    const change = { kind: 'set', card, expiry: '2912', limit: '1' } as const;
    const cards = { kind: 'cards', at: 1, by: 'test', origin: 'n1', added: [], changes: [change] } as const;
    assert.notEqual(bench.owner.append(cards), undefined);
    bench.owner.append(gone);
    assert.equal(bench.owner.append(cards), undefined);
  });
});

test('an owner takes no change of a card that comes back, of which it knows the old row, before all rows have come', () => {
  const bench = new OwnerBench({ cardKeys: { decrypt: () => pan } as unknown as CardKeys }).ready();
  const change = { kind: 'set', card: cardId(group, 1, 1, 0), expiry: '2912', limit: '1' } as const;
  const cards = { kind: 'cards', at: 1, by: 'test', origin: 'n1', added: [], changes: [change] } as const;
  assert.notEqual(bench.owner.append(cards), undefined);
  const coming = { move: 'm', prefix: '990001', from: otherGroup, outIndex: 9, part: 1, cards: 1, through: '' };
  bench.owner.append({ kind: 'range-rows', at: 1, configIndex: 1, ...coming, rows: [] });
  assert.equal(bench.owner.append(cards), undefined);
});
