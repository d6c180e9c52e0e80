import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { DecisionEntry, StandInEntry } from '../store/entry.ts';
import type { Claim } from './claims.ts';
import type { SwitchRequest } from './request.ts';
import { everyForm, group, original as purchase, requestOf, TestLedger } from './testing.ts';

const [first, second, third] = ['n1.9.1', 'n2.9.1', 'n3.9.1'];

/** An approval in stand-in of `request` by an edge whose copy is as `copy`. */
function standInOf(
  changes: Partial<SwitchRequest> = {},
  attempt = first,
  copy = new TestLedger(),
): Claim & { kind: 'stand-in' } {
  const decision = copy.decide(requestOf({ ...purchase, ...changes }), attempt);
  assert.ok(decision.kind === 'decided' && decision.entry.kind === 'decision');
  const entry: DecisionEntry = { ...decision.entry, authorizationCode: '555555' };
  return { kind: 'stand-in', group, sequence: 1, decision: entry };
}

function standInEntry(log: TestLedger): StandInEntry {
  const entry = log.entries.at(-1);
  assert.ok(entry?.kind === 'stand-in');
  return entry;
}

describe('an approval in stand-in', () => {
  test('counts, once, and a repeat of it gets what the edge answered', () => {
    const log = new TestLedger();
    const claim = standInOf();
    assert.deepEqual([log.claim(claim), log.claim(claim)], ['counted', 'counted']);
    assert.equal(log.money(), '5000/0');
    assert.equal(log.ask({ ...purchase, repeat: true }, second).authorizationCode, '555555');
  });
  test('counts over the limit, and says by how much', () => {
    for (const [held, overspent] of [
      [0n, '0'],
      [95_000n, '0'],
      [96_000n, '1000'],
      [100_000n, '5000'],
    ] as const) {
      const log = new TestLedger();
      if (held > 0n) log.ask({ stan: '000002', amount: held });
      assert.equal(log.claim(standInOf()), 'counted');
      assert.equal(standInEntry(log).overspent, overspent);
      assert.equal(log.card().held, held + 5000n);
    }
  });
  test('whose completion came first, and posted by itself, counts without its amount', () => {
    const log = new TestLedger();
    log.ask({ ...purchase, mtiClass: '0220', stan: '000777', transmission: '0301120500', amount: 3000n }, second);
    assert.equal(log.claim(standInOf()), 'counted');
    assert.equal(log.money(), '0/3000');
    assert.equal(standInEntry(log).overspent, '0');
  });
  test('of a card that is blocked by now counts: it was answered', () => {
    const log = new TestLedger();
    log.set({ status: 'stolen' });
    assert.equal(log.claim(standInOf()), 'counted');
  });
  test('that the owner approved, too, is the same transaction, with the DE 38 that was delivered', () => {
    const log = new TestLedger();
    log.ask(purchase, first);
    assert.equal(log.claim(standInOf()), 'same');
    assert.equal(log.money(), '5000/0');
    assert.equal(log.transactionOf(purchase).authorizationCode, '555555');
    assert.equal(log.code({ mtiClass: '0220', stan: '000700', authorizationCode: '555555', amount: 4000n }), '00');
    assert.equal(log.money(), '0/4000', 'the completion that names it finds its hold');
  });
  test("that the owner approved to a repeat, too, keeps the owner's DE 38, and is not released with the repeat", () => {
    const log = new TestLedger();
    const { authorizationCode } = log.ask(purchase, second);
    assert.equal(log.claim(standInOf()), 'same');
    assert.equal(log.transactionOf(purchase).authorizationCode, authorizationCode);
    log.undelivered(second, purchase);
    assert.equal(log.money(), '5000/0');
  });
  test('that the owner declined counts: the acquirer was told so', () => {
    const log = new TestLedger();
    log.set({ status: 'blocked' });
    assert.equal(log.code(purchase), '62');
    assert.equal(log.claim(standInOf({}, third)), 'counted');
    const row = log.transactionOf(purchase);
    assert.deepEqual([row.responseCode, row.authorizationCode, row.state, row.billed], ['00', '555555', 'held', 5000n]);
    assert.equal(log.money(), '5000/0');
    assert.equal(log.code({ ...purchase, repeat: true }), '00');
  });
  test('that the owner approved to a repeat and released counts again', () => {
    const log = new TestLedger();
    log.ask(purchase, second);
    log.undelivered(second, purchase);
    assert.equal(log.money(), '0/0');
    assert.equal(log.claim(standInOf()), 'counted');
    assert.deepEqual([log.money(), log.card().usageCount], ['5000/0', 1]);
  });
  for (const [form, changes] of everyForm) {
    test(`that was reversed before it was entered does not count (${form})`, () => {
      const log = new TestLedger();
      log.ask(changes);
      assert.equal(log.claim(standInOf()), 'reversed');
      assert.equal(log.money(), '0/0');
    });
    test(`that the owner approved, or declined, and the acquirer reversed does not count (${form})`, () => {
      for (const blocked of [false, true]) {
        const log = new TestLedger();
        if (blocked) log.set({ status: 'blocked' });
        log.ask(purchase, second);
        log.ask(changes);
        assert.equal(log.claim(standInOf()), 'reversed');
        assert.equal(log.money(), '0/0');
      }
    });
  }
  test('of two edges for one request is one transaction', () => {
    const log = new TestLedger();
    assert.deepEqual([log.claim(standInOf({}, first)), log.claim(standInOf({}, second))], ['counted', 'same']);
    assert.equal(log.money(), '5000/0');
  });
  test('whose key was used for another amount is a transaction of its own', () => {
    const log = new TestLedger();
    log.ask({ ...purchase, amount: 700n });
    assert.equal(log.claim(standInOf()), 'counted');
    assert.equal(log.money(), '5700/0');
  });
  test('of a card that is not on file here, or beyond any sum, counts for nothing', () => {
    assert.equal(new TestLedger([]).claim(standInOf()), 'card-unknown');
    const log = new TestLedger();
    log.set({ limit: String(1n << 61n) });
    log.ask({ stan: '000002', amount: (1n << 60n) - 10n });
    assert.equal(log.claim(standInOf()), 'too-large');
  });
});
