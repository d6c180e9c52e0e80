import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { duplicateKey } from './request.ts';
import { byName, byRrn, byStan, later, namedBy, original as purchase, requestOf, TestLedger } from './testing.ts';

const [first, second, third] = ['n1.9.1', 'n2.9.1', 'n3.9.1'];

describe('an undelivered approval', () => {
  test('is released when its only attempt is reported, as by a full reversal', () => {
    for (const [mtiClass, processingCode, before] of [
      ['0100', '000000', '5000/0'],
      ['0200', '000000', '0/5000'],
      ['0200', '200000', '0/-5000'],
    ] as const) {
      const log = new TestLedger();
      const request = { ...purchase, mtiClass, processingCode };
      log.ask(request, first);
      assert.equal(log.money(), before);
      assert.equal(log.undelivered(first, request), 'entered');
      assert.equal(log.money(), '0/0');
      assert.equal(log.state(request), 'reversed');
      assert.deepEqual([log.card().usageCount, log.card().usageAmount], [0, 0n]);
      assert.equal(log.code({ ...request, repeat: true }), '94', 'a repeat gets a decline');
    }
  });
  test('stays while another attempt may have been answered with it, and goes with the last one', () => {
    const log = new TestLedger();
    log.ask(purchase, first);
    log.ask(purchase, second);
    log.ask(purchase, third);
    log.undelivered(second, purchase);
    log.undelivered(first, purchase);
    assert.equal(log.money(), '5000/0');
    log.undelivered(third, purchase);
    assert.equal(log.money(), '0/0');
  });
  test('is released once, however often its attempt is reported', () => {
    const log = new TestLedger();
    log.ask(purchase, first);
    log.undelivered(first, purchase);
    const { index } = log;
    assert.equal(log.undelivered(first, purchase), 'entered');
    assert.equal(log.index, index, 'nothing is entered again');
  });
  test('that was reversed in part is released wholly', () => {
    const log = new TestLedger();
    log.ask(purchase, first);
    log.ask({ ...byName, replacementAmount: 3000n });
    assert.equal(log.money(), '3000/0');
    log.undelivered(first, purchase);
    assert.equal(log.money(), '0/0');
  });
  test('is left to what became of it: a completion, a reversal, its expiry', () => {
    for (const [claim, happens, state, money] of [
      [
        'completed',
        (log: TestLedger) => log.ask({ mtiClass: '0220', stan: '000002', rrn: purchase.rrn ?? '' }),
        'completed',
        '0/5000',
      ],
      ['reversed', (log: TestLedger) => log.ask(byRrn), 'reversed', '0/0'],
      [
        'expired',
        (log: TestLedger) => {
          log.expire(8);
        },
        'expired',
        '0/0',
      ],
    ] as const) {
      const log = new TestLedger();
      log.ask(purchase, first);
      happens(log);
      log.undelivered(first, purchase);
      assert.deepEqual([log.state(purchase), log.money()], [state, money], claim);
    }
  });
  test('of nothing that moved money is settled by its decision: nothing is entered', () => {
    const log = new TestLedger();
    const declined = { amount: 900_000n };
    log.ask(declined, first);
    const { index } = log;
    assert.equal(log.undelivered(first, declined), 'entered');
    assert.equal(log.index, index);
  });
});

describe('an attempt that was never seen', () => {
  test('is refused when it comes after it was reported, and another attempt of the same request is decided', () => {
    const log = new TestLedger();
    log.undelivered(first, purchase);
    assert.equal(log.decide(requestOf(purchase), first).kind, 'given-up');
    assert.equal(log.decide(requestOf(purchase), second).kind, 'decided');
    assert.equal(log.code(purchase), '00');
  });
  test('releases nothing of what other attempts were answered', () => {
    const log = new TestLedger();
    log.ask(purchase, first);
    log.undelivered(second, purchase);
    assert.equal(log.money(), '5000/0');
    assert.deepEqual(log.entries.at(-1), {
      kind: 'undelivered',
      at: log.atMs,
      attempt: second,
      key: duplicateKey(requestOf(purchase)),
      transaction: 0,
      releases: false,
    });
    log.undelivered(first, purchase);
    assert.equal(log.money(), '0/0', 'it does not keep what nobody has either');
  });
});

test('names of requests in claims and entries hold no card number', () => {
  const request = requestOf({ ...byStan, ...later, originalDataElements: namedBy(requestOf()) });
  assert.ok(!duplicateKey(request).includes(request.pan.reveal()));
});
