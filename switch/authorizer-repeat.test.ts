import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { SwitchRequest } from './request.ts';
import { byRrn, byStan, cardImport, everyForm, namedBy, original, otherPan, requestOf, TestLedger } from './testing.ts';

type Change = Partial<SwitchRequest>;

describe('a reversal that comes before its original', () => {
  for (const [form, reversal] of everyForm) {
    test(`by ${form} declines it when it comes, and its repeat`, () => {
      for (const mtiClass of ['0400', '0420'] as const) {
        const bench = new TestLedger();
        assert.equal(bench.code({ ...reversal, mtiClass }), mtiClass === '0400' ? '25' : '00');
        assert.equal(bench.code(original), '94');
        assert.equal(bench.code({ ...original, repeat: true }), '94');
        assert.equal(bench.money(), '0/0');
      }
    });
    test(`by ${form} does not decline another purchase`, () => {
      for (const change of [
        { link: 'link-2' },
        { terminal: 'TERM0002' },
        { pan: otherPan },
        { stan: '000002', rrn: '606012000002', transmission: '0301120100' },
      ] as Change[]) {
        const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
        bench.code({ ...reversal, terminal: 'TERM0001' });
        assert.equal(bench.code({ ...original, ...change }), '00', JSON.stringify(Object.keys(change)));
      }
    });
    test(`by ${form} lets an advice be recorded; it moves money unless the reversal named this very advice`, () => {
      const bench = new TestLedger();
      const advice: Change = { ...original, mtiClass: '0220' };
      const named = namedBy(requestOf(advice));
      bench.code({
        ...reversal,
        originalDataElements: reversal.originalDataElements === undefined ? undefined : named,
      });
      assert.equal(bench.code(advice), '00');
      assert.equal(bench.money(), reversal.originalDataElements === undefined ? '0/5000' : '0/0');
    });
  }
  test('by STAN does not decline the purchase of another day', () => {
    const bench = new TestLedger();
    bench.code(byStan);
    assert.equal(bench.code({ ...original, transmission: '0304120000', businessDate: '2026-03-04' }), '00');
  });
  test('again, in another message, gets the same answer and declines it still', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '25');
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', stan: '000901' }), '25');
    assert.equal(bench.code(original), '94');
  });
});

describe('a repeat', () => {
  test('gets the stored answer: same codes and amounts', () => {
    for (const [mtiClass, processingCode] of [
      ['0100', '000000'],
      ['0100', '310000'],
      ['0200', '000000'],
      ['0120', '000000'],
      ['0220', '000000'],
      ['0400', '000000'],
    ] as const) {
      const bench = new TestLedger();
      const request: Change = { ...original, mtiClass, processingCode };
      const first = bench.ask(request);
      const money = bench.money();
      for (const repeat of [true, false]) assert.deepEqual(bench.ask({ ...request, repeat }), first);
      assert.equal(bench.money(), money);
    }
  });
  test('of a decline gets the decline, though it would be approved by now', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, amount: 200_000n }), '51');
    bench.set({ limit: '900000' });
    assert.equal(bench.code({ ...original, amount: 200_000n, repeat: true }), '51');
  });
  test('of an approval gets it, though the card was stolen since', () => {
    const bench = new TestLedger();
    const first = bench.ask(original);
    bench.set({ status: 'stolen' });
    assert.deepEqual(bench.ask({ ...original, repeat: true }), first);
  });
  test('with no original is decided as new', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, repeat: true }), '00');
    assert.equal(bench.money(), '5000/0');
  });
  test('with another card, amount or currency gets 94, and nothing moves', () => {
    const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
    bench.code(original);
    for (const change of [{ pan: otherPan }, { amount: 4999n }, { currency: '978' }] as Change[]) {
      for (const repeat of [true, false]) assert.equal(bench.code({ ...original, ...change, repeat }), '94');
    }
    assert.equal(bench.money(), '5000/0');
    assert.equal(bench.money(otherPan), '0/0');
  });
  test('of a request for an unknown card gets its 14 again', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...original, pan: otherPan }), '14');
    assert.equal(bench.code({ ...original, pan: otherPan, repeat: true }), '14');
    assert.equal(bench.code(original), '14', 'nor is its key free for another card');
    assert.equal(bench.money(), '0/0');
  });
  for (const mtiClass of ['0100', '0200'] as const) {
    test(`of a reversed ${mtiClass} gets a decline, never the old approval`, () => {
      const bench = new TestLedger();
      bench.code({ ...original, mtiClass });
      bench.code(byRrn);
      assert.deepEqual(bench.ask({ ...original, mtiClass, repeat: true }), {
        responseCode: '94',
        authorizationCode: '',
        additionalAmounts: '',
      });
      assert.equal(bench.money(), '0/0');
    });
  }
  test('of a request whose hold has expired gets a decline', () => {
    const bench = new TestLedger();
    bench.code(original);
    bench.expire(8);
    assert.equal(bench.code({ ...original, repeat: true }), '94');
  });
  test('of a completed authorization gets its approval', () => {
    const bench = new TestLedger();
    const first = bench.ask(original);
    bench.code({ mtiClass: '0220', stan: '000500', rrn: '606012000001' });
    assert.deepEqual(bench.ask({ ...original, repeat: true }), first);
  });
  test('of an advice is acknowledged always: it approves nothing, and nobody could stop sending it', () => {
    for (const mtiClass of ['0120', '0220'] as const) {
      const bench = new TestLedger();
      bench.code({ ...original, mtiClass });
      bench.code(byRrn);
      assert.equal(bench.code({ ...original, mtiClass, repeat: true }), '00');
      assert.equal(bench.money(), '0/0');
    }
    const bench = new TestLedger();
    bench.code({ ...original, mtiClass: '0120' });
    bench.expire(8);
    assert.equal(bench.code({ ...original, mtiClass: '0120', repeat: true }), '00');
  });
  test('of a reversal gets its answer, also after what it reversed came again', () => {
    const bench = new TestLedger();
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400' }), '25');
    bench.code(original);
    assert.equal(bench.code({ ...byRrn, mtiClass: '0400', repeat: true }), '25');
  });
});

test('reversals that match nothing leave one tombstone, when they are the same', () => {
  const bench = new TestLedger();
  for (let at = 0; at < 50; at++) bench.code({ ...byRrn, stan: String(1000 + at).padStart(6, '0') });
  const { cardId } = bench.card();
  assert.equal(bench.ledger.tombstones(cardId, ['rrn|606012000001|TERM0001']).length, 1);
});

test('no sum grows beyond what the store can hold: a request gets 61, an advice is recorded without effect', () => {
  const bench = new TestLedger([cardImport({ limit: '9000000000000000000' })]);
  for (let at = 0; at < 3; at++) {
    bench.code({ ...original, mtiClass: '0220', stan: String(at + 1), rrn: String(at), amount: 1n << 59n });
  }
  assert.equal(bench.money(), `0/${1n << 60n}`);
  assert.equal(bench.code({ ...original, stan: '000777', rrn: 'other' }), '61');
  assert.equal(bench.money(), `0/${1n << 60n}`);
});
