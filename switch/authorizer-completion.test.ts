import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { openToBuy } from '../store/ledger.ts';
import type { SwitchRequest } from './request.ts';
import { cardImport, original, otherPan, TestLedger } from './testing.ts';

type Change = Partial<SwitchRequest>;

describe('a completion (0220)', () => {
  const held = (): { bench: TestLedger; code: string } => {
    const bench = new TestLedger();
    const { authorizationCode } = bench.ask({ ...original, amount: 5000n });
    return { bench, code: authorizationCode };
  };
  const completion: Change = { mtiClass: '0220', stan: '000500', amount: 4000n };

  test('finds its hold by DE 37 and 41 and takes all of it', () => {
    const { bench } = held();
    assert.equal(bench.code({ ...completion, rrn: '606012000001' }), '00');
    assert.equal(bench.money(), '0/4000');
    assert.equal(bench.state(original), 'completed');
  });
  test('finds its hold by DE 38 and 42 at another terminal', () => {
    const { bench, code } = held();
    assert.equal(bench.code({ ...completion, authorizationCode: code, terminal: 'TERM0009' }), '00');
    assert.equal(bench.money(), '0/4000');
  });
  test('finds its hold by DE 38 when DE 37 finds none', () => {
    const { bench, code } = held();
    bench.code({ ...completion, rrn: 'other', authorizationCode: code });
    assert.equal(bench.money(), '0/4000');
  });
  for (const [what, change] of [
    ['another RRN and no DE 38', { rrn: '606012000002' }],
    ['the RRN at another terminal', { rrn: '606012000001', terminal: 'TERM0002' }],
    ['another authorization code', { authorizationCode: 'XXXXXX' }],
    ['another link', { rrn: '606012000001', link: 'link-2' }],
    ['nothing to find it by', {}],
  ] as [string, Change][]) {
    test(`with ${what} posts by itself and leaves the hold`, () => {
      const { bench } = held();
      assert.equal(bench.code({ ...completion, ...change }), '00');
      assert.equal(bench.money(), '5000/4000');
    });
  }
  test('of another merchant does not take the hold by its DE 38', () => {
    const { bench, code } = held();
    bench.code({ ...completion, authorizationCode: code, merchant: 'OTHER' });
    assert.equal(bench.money(), '5000/4000');
  });
  test('of another card takes nothing', () => {
    const bench = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
    bench.code(original);
    bench.code({ ...completion, rrn: '606012000001', pan: otherPan });
    assert.equal(bench.money(), '5000/0');
    assert.equal(bench.money(otherPan), '0/4000');
  });
  test('over its hold posts its whole amount, even beyond the limit', () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001', amount: 250_000n });
    assert.equal(bench.money(), '0/250000');
    assert.equal(openToBuy(bench.card()), -150_000n);
  });
  test('of an expired hold completes it, and releases nothing again', () => {
    const { bench } = held();
    bench.expire(8);
    bench.code({ ...completion, rrn: '606012000001' });
    assert.equal(bench.money(), '0/4000');
    assert.equal(bench.state(original), 'completed');
    bench.expire(8);
    assert.equal(bench.money(), '0/4000');
  });
  test('that comes twice in two messages posts twice and releases once', () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001' });
    bench.code({ ...completion, rrn: '606012000001', stan: '000501' });
    assert.equal(bench.money(), '0/8000');
  });
  test('with two holds that fit takes neither', () => {
    const { bench } = held();
    bench.code({ ...original, stan: '000002', amount: 700n });
    bench.code({ ...completion, rrn: '606012000001' });
    assert.equal(bench.money(), '5700/4000');
  });
  test("is not counted again in the day's usage", () => {
    const { bench } = held();
    bench.code({ ...completion, rrn: '606012000001' });
    assert.deepEqual([bench.card().usageCount, bench.card().usageAmount], [1, 5000n]);
  });
});
