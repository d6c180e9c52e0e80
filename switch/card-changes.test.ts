import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { SwitchError } from '../base/errors.ts';
import { cardId } from '../base/identifiers.ts';
import type { Pan } from '../base/pan.ts';
import { cardStatuses, type CardStatus } from '../store/card-status.ts';
import type { CardImport, StoredNumber } from '../store/entry.ts';
import { planImport, planPurge, planRequests, type CardRequest, type PlanContext } from './card-changes.ts';
import { cardImport, group, hashOf, otherPan, pan, panOf, TestLedger } from './testing.ts';

const known = (changes: Partial<CardImport> = {}): CardImport => cardImport(changes);

const at = 1_772_366_400_000;
let named = 0;
const context: PlanContext = { at, name: () => `n1.${(named += 1)}` };

describe('an import', () => {
  test('adds cards that are not on file and leaves known ones as they are', () => {
    const bench = new TestLedger();
    const added = cardImport({ pan: otherPan });
    const plan = planImport(bench.ledger, [known(), added], context);
    assert.deepEqual(plan, { added: [added], changes: [], results: ['unchanged', 'added'] });
  });
  test('changes expiry and limit, and the same batch again plans nothing', () => {
    const bench = new TestLedger();
    const batch = [known({ expiry: '3001', limit: '7' }), cardImport({ pan: otherPan })];
    const { added, changes, results } = planImport(bench.ledger, batch, context);
    assert.deepEqual(results, ['changed', 'added']);
    bench.apply({ kind: 'cards', at: 0, by: 'test', origin: 'n1', added, changes });
    assert.equal(bench.card().limit, 7n);
    assert.deepEqual(planImport(bench.ledger, batch, context), {
      added: [],
      changes: [],
      results: ['unchanged', 'unchanged'],
    });
  });
  test('does not touch what stands on the card', () => {
    const bench = new TestLedger();
    bench.code();
    const { added, changes } = planImport(bench.ledger, [known({ limit: '1' })], context);
    bench.apply({ kind: 'cards', at: 0, by: 'test', origin: 'n1', added, changes });
    assert.equal(bench.money(), '5000/0');
  });
  test("never changes a card's currency, whatever else the line says", () => {
    const bench = new TestLedger();
    const plan = planImport(bench.ledger, [known({ currency: '978', status: 'stolen', limit: '1' })], context);
    assert.deepEqual(plan, { added: [], changes: [], results: ['other-currency'] });
  });
  for (const [severity, onFile] of cardStatuses.entries()) {
    for (const [asked, status] of cardStatuses.entries()) {
      const wins: CardStatus = asked > severity ? status : onFile;
      test(`of ${status} over ${onFile} leaves ${wins}`, () => {
        const bench = new TestLedger([cardImport({ status: onFile })]);
        const plan = planImport(bench.ledger, [known({ status, limit: '5' })], context);
        bench.apply({ kind: 'cards', at: 0, by: 'test', origin: 'n1', ...plan });
        assert.deepEqual([bench.card().status, bench.card().limit], [wins, 5n]);
        assert.deepEqual(plan.results, [asked < severity ? 'kept-restriction' : 'changed']);
      });
    }
  }
});

/** The code of what is thrown, with its message. */
function refusalOf(bench: TestLedger, ...requests: CardRequest[]): string {
  try {
    planRequests(bench.ledger, requests, context);
    return 'none';
  } catch (error) {
    return error instanceof SwitchError ? `${error.code}: ${error.message}` : String(error);
  }
}

function enter(bench: TestLedger, ...requests: CardRequest[]): void {
  const content = planRequests(bench.ledger, requests, context);
  bench.apply({ kind: 'cards', at, by: 'ann', origin: 'n3', ...content });
}

const set = (changes: Partial<CardRequest & { kind: 'set' }> = {}): CardRequest => ({
  kind: 'set',
  panHash: hashOf(pan),
  replaces: 1,
  ...changes,
});
const lift = (...restrictions: string[]): CardRequest => ({ kind: 'lift', panHash: hashOf(pan), restrictions });
const numberOfPan = (number: Pan): StoredNumber => ({
  bin: number.bin(),
  panHash: hashOf(number),
  panKeyVersion: 1,
  panCipher: 'new cipher',
});
const replace = (changes: Partial<CardRequest & { kind: 'replace' }> = {}): CardRequest => ({
  kind: 'replace',
  panHash: hashOf(pan),
  replaces: 1,
  by: numberOfPan(otherPan),
  expiry: '3112',
  status: 'stolen',
  ...changes,
});
const remove = (replaces = 1): CardRequest => ({ kind: 'delete', panHash: hashOf(pan), replaces });

describe('a change', () => {
  test('of a version that is past is refused, and says what has come between: what, when, who, where', () => {
    const bench = new TestLedger();
    enter(bench, set({ limit: '7' }));
    assert.equal(
      refusalOf(bench, set({ limit: '8' })),
      'VERSION_CONFLICT: the change replaces version 1, and the card is at version 2: set, 2026-03-01T12:00:00.000Z by ann at n3',
    );
    assert.throws(() => planRequests(bench.ledger, [remove()], context), { code: 'VERSION_CONFLICT' });
    enter(bench, set({ limit: '8', replaces: 2 }));
    assert.deepEqual([bench.card().limit, bench.card().version], [8n, 3]);
  });
  test('is not refused for the money that has moved since', () => {
    const bench = new TestLedger();
    bench.code();
    enter(bench, set({ limit: '7' }));
    assert.deepEqual([bench.card().limit, bench.money()], [7n, '5000/0']);
  });
  test('that changes nothing makes no version', () => {
    const bench = new TestLedger();
    for (const request of [set(), set({ status: 'active' }), set({ limit: '100000', expiry: '2812' })]) {
      assert.deepEqual(planRequests(bench.ledger, [request], context), { added: [], changes: [] });
    }
  });
  test('of an unknown card, a second one of the same card, an addition of a known one: refused, each by its place', () => {
    const bench = new TestLedger();
    const other = { ...set(), panHash: hashOf(otherPan) };
    assert.equal(refusalOf(bench, other), 'CARD_UNKNOWN: no such card is on file');
    assert.throws(() => planRequests(bench.ledger, [set({ limit: '1' }), other], context, [4, 9]), {
      code: 'CARD_UNKNOWN',
      message: 'change 9: no such card is on file',
    });
    assert.match(refusalOf(bench, set(), remove()), /^CARD_CHANGE_REFUSED: the card is changed twice/);
    assert.match(
      refusalOf(bench, { kind: 'add', card: cardImport() }),
      /^CARD_CHANGE_REFUSED: the card is on file already/,
    );
    assert.throws(() => planRequests(bench.ledger, [lift('x')], context), { code: 'CARD_CHANGE_REFUSED' });
    enter(bench, { kind: 'add', card: cardImport({ pan: otherPan }) });
    assert.equal(bench.card(otherPan).version, 1);
  });
});

describe('a restriction', () => {
  const stolen = (id: string, status: CardStatus = 'stolen') =>
    ({ kind: 'restrict', card: cardId(group, 1, 1, 0), number: 1, restriction: id, status, at }) as const;
  const restricted = (...placed: ReturnType<typeof stolen>[]): TestLedger => {
    const bench = new TestLedger();
    bench.apply({ kind: 'cards', at, by: 'bob', origin: 'n2', added: [], changes: placed });
    return bench;
  };
  test('is lifted by its name only: another one that was not known stays, and the most restrictive counts', () => {
    const bench = restricted(stolen('n2.1', 'blocked'), stolen('n3.1'), stolen('n4.1', 'lost'));
    assert.equal(bench.code(), '43');
    enter(bench, lift('n3.1'));
    assert.equal(bench.card().status, 'lost');
    enter(bench, lift('n2.1', 'n4.1'));
    assert.equal(bench.code({ stan: '000002' }), '00');
  });
  test('that is brought again after it was lifted changes nothing', () => {
    const bench = restricted(stolen('n3.1'));
    enter(bench, lift('n3.1'));
    const before = bench.card();
    bench.apply({ kind: 'cards', at, by: 'bob', origin: 'n2', added: [], changes: [stolen('n3.1')] });
    assert.deepEqual(bench.card(), before);
  });
  test('that does not stand cannot be lifted, and the refusal names those that do', () => {
    const bench = restricted(stolen('n3.1'));
    assert.match(refusalOf(bench, lift('n3.1', 'n9.9')), /n9\.9 does not stand on this card; those that stand: n3\.1$/);
    assert.match(refusalOf(new TestLedger(), lift('n9.9')), /none stands$/);
  });
  test('goes with the status that is set by hand, for whoever sets it names the version that had it', () => {
    const bench = restricted(stolen('n3.1'));
    assert.match(refusalOf(bench, set({ status: 'active' })), /^VERSION_CONFLICT/);
    enter(bench, set({ status: 'blocked', replaces: 2 }));
    assert.deepEqual([bench.card().status, bench.card().version], ['blocked', 4]);
    enter(bench, set({ status: 'active', replaces: 4 }));
    assert.equal(bench.code(), '00');
  });
});

describe('a replaced number', () => {
  test('is declined as it was said, and what comes back for it finds the card', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ rrn: '606012000001' }), '00');
    enter(bench, replace());
    assert.deepEqual([bench.card(otherPan).held, bench.card(otherPan).expiry], [5000n, '3112']);
    assert.equal(bench.code({ stan: '000002' }), '43');
    assert.equal(bench.code({ stan: '000003', pan: otherPan }), '00');
    assert.equal(bench.card(otherPan).held, 10_000n);
    // The first purchase is reversed by the number that it was made with.
    assert.equal(bench.code({ mtiClass: '0420', stan: '000900', rrn: '606012000001' }), '00');
    assert.equal(bench.card(otherPan).held, 5000n);
    // A repeat of a purchase of the old number gets the answer it got.
    assert.equal(bench.code({ stan: '000002', repeat: true }), '43');
  });
  test('keeps its restrictions to itself: the new number begins without', () => {
    const bench = new TestLedger([cardImport({ status: 'lost' })]);
    enter(bench, replace({ status: 'closed' }));
    assert.deepEqual([bench.card(otherPan).status, bench.card(pan).status], ['active', 'lost']);
    const standing = bench.ledger.restrictions(bench.card(otherPan).cardId).map(({ id }) => id);
    enter(bench, { ...lift(...standing), panHash: hashOf(otherPan) } as CardRequest);
    // Nothing brings it back: at least closed it is for good.
    assert.deepEqual([bench.card(otherPan).status, bench.card(pan).status], ['active', 'closed']);
  });
  test('takes no changes any more, is no new card, and cannot be taken by another', () => {
    const third = panOf('990001000000003');
    const bench = new TestLedger([cardImport(), cardImport({ pan: third })]);
    enter(bench, replace());
    assert.match(refusalOf(bench, set({ replaces: 2 })), /change the card by its present one$/);
    assert.match(refusalOf(bench, { kind: 'add', card: cardImport() }), /replaced by another$/);
    assert.match(refusalOf(bench, replace({ panHash: hashOf(third), by: numberOfPan(pan) })), /on file already$/);
    assert.deepEqual(planImport(bench.ledger, [known({ limit: '1' })], context).results, ['replaced']);
  });
});

describe('a deleted card', () => {
  const days = (count: number): number => at + count * 86_400_000;
  test('is closed at once, and purged 30 days after its last transaction, with all that was known of it', () => {
    const bench = new TestLedger();
    enter(bench, remove());
    assert.deepEqual([bench.card().status, bench.code()], ['closed', '14']);
    // Deletion and decline are in the overlay only: that a committed fold purges is store/cards.test.ts's.
    assert.deepEqual(planPurge(bench.ledger, days(29), 9), []);
    bench.apply({
      kind: 'cards',
      at,
      by: 'q',
      origin: 'n1',
      added: [],
      changes: [{ kind: 'purge', card: bench.card().cardId }],
    });
    assert.equal(bench.ledger.cardByPanHash(hashOf(pan)), undefined);
    assert.equal(bench.code({ stan: '000009' }), '14');
  });
  test('is on file again when what closed it is lifted', () => {
    const bench = new TestLedger();
    enter(bench, remove());
    assert.deepEqual(planRequests(bench.ledger, [remove(2)], context).changes, []);
    enter(bench, lift(...bench.ledger.restrictions(bench.card().cardId).map(({ id }) => id)));
    assert.deepEqual([bench.card().deletedAt, bench.code()], [0, '00']);
  });
  test('whose number is added again after the purge is another card', () => {
    const bench = new TestLedger();
    const before = bench.card().cardId;
    enter(bench, remove());
    bench.apply({ kind: 'cards', at, by: 'q', origin: 'n1', added: [], changes: [{ kind: 'purge', card: before }] });
    enter(bench, { kind: 'add', card: cardImport() });
    assert.notEqual(bench.card().cardId, before);
  });
});

test("a card keeps its number's keys from its import on", () => {
  const third = panOf('990001000000003');
  const bench = new TestLedger([cardImport(), cardImport({ pan: third, panCipher: 'other' })]);
  assert.equal(bench.card(third).panCipher, 'other');
  assert.equal(bench.card(third).cardId, 'a.1.1.1');
});
