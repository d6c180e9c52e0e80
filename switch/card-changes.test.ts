import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { cardStatuses } from '../config-db/cards.ts';
import type { CardStatus } from '../store/entry.ts';
import { planImport, planSetting, type CardInput } from './card-changes.ts';
import { cardImport, hashOf, otherPan, pan, panOf, TestLedger } from './testing.ts';

const known = (changes: Partial<CardInput> = {}): CardInput => cardImport(changes);

describe('an import', () => {
  test('adds cards that are not on file and leaves known ones as they are', () => {
    const bench = new TestLedger();
    const added = cardImport({ pan: otherPan });
    const plan = planImport(bench.ledger, [known(), added]);
    assert.deepEqual(plan, { added: [added], changed: [], results: ['unchanged', 'added'] });
  });
  test('changes expiry and limit, and the same batch again plans nothing', () => {
    const bench = new TestLedger();
    const batch = [known({ expiry: '3001', limit: '7' }), cardImport({ pan: otherPan })];
    const { added, changed, results } = planImport(bench.ledger, batch);
    assert.deepEqual(results, ['changed', 'added']);
    bench.apply({ kind: 'cards', at: 0, by: 'test', added, changed });
    assert.equal(bench.card().limit, 7n);
    assert.deepEqual(planImport(bench.ledger, batch), { added: [], changed: [], results: ['unchanged', 'unchanged'] });
  });
  test('does not touch what stands on the card', () => {
    const bench = new TestLedger();
    bench.code();
    const { added, changed } = planImport(bench.ledger, [known({ limit: '1' })]);
    bench.apply({ kind: 'cards', at: 0, by: 'test', added, changed });
    assert.equal(bench.money(), '5000/0');
  });
  test("never changes a card's currency, whatever else the line says", () => {
    const bench = new TestLedger();
    const plan = planImport(bench.ledger, [known({ currency: '978', status: 'stolen', limit: '1' })]);
    assert.deepEqual(plan, { added: [], changed: [], results: ['other-currency'] });
  });
  for (const [at, onFile] of cardStatuses.entries()) {
    for (const [asked, status] of cardStatuses.entries()) {
      const wins: CardStatus = asked > at ? status : onFile;
      test(`of ${status} over ${onFile} leaves ${wins}`, () => {
        const bench = new TestLedger([cardImport({ status: onFile })]);
        const plan = planImport(bench.ledger, [known({ status, limit: '5' })]);
        assert.equal(plan.changed[0]?.status, wins);
        assert.equal(plan.changed[0].limit, '5');
        assert.deepEqual(plan.results, [asked < at ? 'kept-restriction' : 'changed']);
      });
    }
  }
});

describe('a setting', () => {
  test('of an unknown card is no change at all', () => {
    assert.equal(
      planSetting(new TestLedger().ledger, { panHash: hashOf(otherPan), status: 'lost', limit: undefined }),
      undefined,
    );
  });
  test('lifts a restriction, and leaves what it does not name', () => {
    const bench = new TestLedger([cardImport({ status: 'stolen', limit: '9', expiry: '3005' })]);
    const [change] = planSetting(bench.ledger, { panHash: hashOf(pan), status: 'active', limit: undefined }) ?? [];
    assert.deepEqual(change, { card: bench.card().cardId, expiry: '3005', status: 'active', limit: '9' });
  });
  test('of the limit leaves the status', () => {
    const bench = new TestLedger([cardImport({ status: 'blocked' })]);
    const [change] = planSetting(bench.ledger, { panHash: hashOf(pan), status: undefined, limit: '77' }) ?? [];
    assert.deepEqual([change?.status, change?.limit], ['blocked', '77']);
  });
  test('that changes nothing plans nothing', () => {
    const bench = new TestLedger();
    for (const setting of [{}, { status: 'active' as const }, { limit: '100000' }]) {
      assert.deepEqual(
        planSetting(bench.ledger, { panHash: hashOf(pan), status: undefined, limit: undefined, ...setting }),
        [],
      );
    }
  });
});

test("a card keeps its number's keys from its import on", () => {
  const third = panOf('990001000000003');
  const bench = new TestLedger([cardImport(), cardImport({ pan: third, panCipher: 'other' })]);
  assert.equal(bench.card(third).panCipher, 'other');
  assert.equal(bench.card(third).cardId, 'a.1.1.1');
});
