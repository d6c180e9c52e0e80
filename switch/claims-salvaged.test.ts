import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { encodeBody, type ResolutionEntry } from '../store/entry.ts';
import type { Claim, ClaimOutcome } from './claims.ts';
import type { SwitchRequest } from './request.ts';
import { byRrn, everyForm, group, original as purchase, requestOf, TestLedger } from './testing.ts';

const [first, second, third] = ['n1.9.1', 'n2.9.1', 'n3.9.1'];

/** The log of an owner that was lost, after what both logs have; offers come from it. */
class Lost extends TestLedger {
  /** Offers to `owner` everything that only this log has, in order. */
  offerAll(owner: TestLedger): ClaimOutcome[] {
    return this.offers().map((claim) => owner.claim(claim));
  }

  offers(): Claim[] {
    return this.entries.flatMap((body, at) =>
      body.kind === 'decision' || body.kind === 'reversal' || body.kind === 'attempt'
        ? [{ kind: 'salvaged', group, term: 1, index: at + 1, hash: `hash ${at + 1}`, body: encodeBody(body) }]
        : [],
    );
  }
}

/** Two owners' logs with a purchase that both have, and the rest apart. */
function branches(prepare: (log: TestLedger) => void = () => undefined): { lost: Lost; owner: TestLedger } {
  const [lost, owner] = [new Lost(), new TestLedger()];
  prepare(lost);
  prepare(owner);
  lost.entries.fill({ kind: 'no-op', leader: 'n1', term: 1 });
  // The present log has other entries at the same indexes.
  for (let time = 0; time < 5; time++) owner.apply({ kind: 'no-op', leader: 'n2', term: 2 });
  return { lost, owner };
}

function resolutionOf(log: TestLedger): ResolutionEntry {
  const entry = log.entries.at(-1);
  assert.ok(entry?.kind === 'resolution');
  return entry;
}

describe('a salvaged approval', () => {
  test('is adopted: it counts with its own codes, times and attempt, and a repeat gets it', () => {
    const { lost, owner } = branches();
    const answer = lost.ask(purchase, first);
    assert.deepEqual(lost.offerAll(owner), ['adopted']);
    assert.equal(owner.money(), '5000/0');
    assert.equal(owner.card().usageCount, 1);
    assert.deepEqual(owner.ask({ ...purchase, repeat: true }, second), answer);
    const row = owner.transactionOf(purchase);
    assert.deepEqual([row.attempt, row.state], [first, 'held']);
    owner.undelivered(first, purchase);
    assert.equal(owner.money(), '5000/0', 'the repeat may have it');
    owner.undelivered(second, purchase);
    assert.equal(owner.money(), '0/0');
  });
  test('counts over the limit, too: it was answered', () => {
    const { lost, owner } = branches();
    lost.ask({ ...purchase, amount: 90_000n });
    owner.ask({ stan: '000002', amount: 90_000n });
    assert.deepEqual(lost.offerAll(owner), ['adopted']);
    assert.equal(owner.money(), '180000/0');
  });
  test('is entered once, however often and by whomever it is offered', () => {
    const { lost, owner } = branches();
    lost.ask(purchase);
    lost.offerAll(owner);
    const { index } = owner;
    assert.deepEqual(lost.offerAll(owner), ['adopted']);
    assert.equal(owner.index, index);
  });
  test('keeps its outcome: what was voided stays voided', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    owner.undelivered(first, purchase);
    assert.deepEqual([lost.offerAll(owner), lost.offerAll(owner)], [['voided'], ['voided']]);
  });
  test('is kept when the log has that very entry after all', () => {
    const [lost, owner] = [new Lost(), new TestLedger()];
    for (const log of [lost, owner]) log.ask(purchase);
    assert.deepEqual(lost.offerAll(owner), ['kept']);
    assert.equal(owner.index, 2);
  });
  for (const [reason, happens] of [
    ['decided', (owner: TestLedger) => owner.ask(purchase, second)],
    ['decided', (owner: TestLedger) => owner.ask({ ...purchase, amount: 4000n })],
    ['undelivered', (owner: TestLedger) => owner.undelivered(first, purchase)],
    ...everyForm.map(([, form]) => ['reversed', (owner: TestLedger) => owner.ask(form)] as const),
  ] as const) {
    test(`is voided when its request was ${reason} since, and moves nothing`, () => {
      const { lost, owner } = branches();
      lost.ask(purchase, first);
      happens(owner);
      const money = owner.money();
      assert.deepEqual(lost.offerAll(owner), ['voided']);
      assert.equal(resolutionOf(owner).reason, reason);
      assert.equal(owner.money(), money);
    });
  }
  test('is voided when its card never came onto file here', () => {
    const lost = new Lost();
    lost.entries.length = 0;
    lost.ask(purchase);
    const owner = new TestLedger([]);
    assert.deepEqual(lost.offerAll(owner), ['voided']);
    assert.equal(resolutionOf(owner).reason, 'card-unknown');
  });
  test('that was voided leaves its key free: a repeat is decided anew', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    owner.undelivered(first, purchase);
    lost.offerAll(owner);
    assert.equal(owner.decide(requestOf(purchase), second).kind, 'decided');
  });
  test('whose completion came first, and posted by itself, is adopted without its amount', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    owner.ask({ ...purchase, mtiClass: '0220', stan: '000777', transmission: '0301120500', amount: 3000n }, second);
    assert.equal(owner.money(), '0/3000');
    assert.deepEqual(lost.offerAll(owner), ['adopted']);
    assert.equal(resolutionOf(owner).reason, 'completed');
    assert.equal(owner.money(), '0/3000');
    assert.equal(owner.ask({ ...purchase, repeat: true }, third).responseCode, '00', 'it was answered so');
  });
  test('whose sums would overflow is voided', () => {
    const { lost, owner } = branches();
    lost.set({ limit: String(1n << 61n) });
    lost.ask({ ...purchase, amount: 1n << 60n });
    owner.set({ limit: String(1n << 61n) });
    owner.ask({ stan: '000002' });
    assert.deepEqual(lost.offerAll(owner), ['voided']);
    assert.equal(resolutionOf(owner).reason, 'too-large');
  });
  test('that declined, or moved nothing, is adopted and moves nothing', () => {
    const { lost, owner } = branches();
    lost.ask({ amount: 900_000n });
    lost.ask({ stan: '000002', processingCode: '310000', amount: 0n });
    lost.ask({ stan: '000003', pan: requestOf().pan, mtiClass: '0120', responseCode: '05' });
    assert.deepEqual(lost.offerAll(owner), ['adopted', 'adopted', 'adopted']);
    assert.equal(owner.money(), '0/0');
    assert.equal(owner.code({ amount: 900_000n, repeat: true }), '51');
  });
});

describe('a salvaged reversal', () => {
  test('takes back its original, wherever that stands here', () => {
    for (const [claim, prepare, before] of [
      ['both logs have it', (log: TestLedger) => log.ask(purchase), () => undefined],
      ['salvaged with it', () => undefined, (lost: TestLedger) => lost.ask(purchase)],
    ] as const) {
      const { lost, owner } = branches(prepare);
      before(lost);
      lost.ask(byRrn);
      lost.offerAll(owner);
      assert.deepEqual([owner.money(), owner.state(purchase)], ['0/0', 'reversed'], claim);
      assert.equal(owner.code({ ...byRrn, repeat: true }), '00');
    }
  });
  test('takes back the same request when that was decided anew here', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    lost.ask(byRrn);
    owner.ask(purchase, second);
    assert.deepEqual(lost.offerAll(owner), ['voided', 'adopted']);
    assert.equal(owner.money(), '0/0');
  });
  test('lowers it to what DE 95 left', () => {
    const { lost, owner } = branches((log) => log.ask(purchase));
    lost.ask({ ...byRrn, replacementAmount: 2000n });
    lost.offerAll(owner);
    assert.equal(owner.money(), '2000/0');
  });
  test('whose original is not here leaves a tombstone, so that it counts neither by a repeat nor by another offer', () => {
    const { lost, owner } = branches();
    lost.ask(purchase);
    lost.ask(byRrn);
    const [approval, reversal] = lost.offers();
    assert.ok(approval !== undefined && reversal !== undefined);
    assert.equal(owner.claim(reversal), 'adopted');
    assert.equal(resolutionOf(owner).reason, 'unmatched');
    assert.equal(owner.claim(approval), 'voided');
    assert.equal(owner.code(purchase), '94');
    assert.equal(owner.money(), '0/0');
  });
  for (const [form, changes] of everyForm) {
    test(`that came before its original there (${form}) takes it back where it was decided meanwhile`, () => {
      const { lost, owner } = branches();
      lost.ask(changes);
      owner.ask(purchase);
      assert.deepEqual(lost.offerAll(owner), ['adopted']);
      assert.equal(owner.money(), '0/0');
    });
    test(`that came before its original there (${form}) declines it here, too`, () => {
      const { lost, owner } = branches();
      lost.ask(changes);
      assert.deepEqual(lost.offerAll(owner), ['adopted']);
      assert.equal(owner.code(purchase), '94');
    });
  }
  test('that was decided here, too, is voided', () => {
    const { lost, owner } = branches((log) => log.ask(purchase));
    lost.ask(byRrn);
    owner.ask(byRrn);
    assert.deepEqual(lost.offerAll(owner), ['voided']);
    assert.equal(resolutionOf(owner).reason, 'decided');
  });
});

describe('a salvaged completion', () => {
  const completion: Partial<SwitchRequest> = {
    mtiClass: '0220',
    stan: '000700',
    rrn: purchase.rrn ?? '',
    amount: 4000n,
  };
  test('goes into its hold, wherever that stands here', () => {
    for (const [prepare, before] of [
      [(log: TestLedger) => log.ask(purchase), () => undefined],
      [() => undefined, (lost: TestLedger) => lost.ask(purchase)],
    ] as const) {
      const { lost, owner } = branches(prepare);
      before(lost);
      lost.ask(completion);
      lost.offerAll(owner);
      assert.deepEqual([owner.money(), owner.state(purchase)], ['0/4000', 'completed']);
    }
  });
  test('posts by itself when its hold is not here, or is no longer open', () => {
    for (const happens of [
      () => undefined,
      (owner: TestLedger) => owner.ask({ ...completion, stan: '000701', rrn: '' }),
    ]) {
      const { lost, owner } = branches();
      lost.ask(purchase);
      lost.ask(completion);
      happens(owner);
      const posted = owner.card().posted;
      const [, offer] = lost.offers();
      assert.ok(offer !== undefined);
      assert.equal(owner.claim(offer), 'adopted');
      assert.equal(resolutionOf(owner).reason, 'unmatched');
      assert.equal(owner.card().posted, posted + 4000n);
    }
  });
  test('of a hold that was reversed here posts, and the hold stays reversed', () => {
    const { lost, owner } = branches((log) => log.ask(purchase));
    lost.ask(completion);
    owner.ask(byRrn);
    lost.offerAll(owner);
    assert.deepEqual([owner.money(), owner.state(purchase)], ['0/4000', 'reversed']);
  });
});

describe("a salvaged repeat's attempt", () => {
  test('keeps what it was answered from being released', () => {
    const { lost, owner } = branches((log) => log.ask(purchase, first));
    lost.ask(purchase, second);
    assert.deepEqual(lost.offerAll(owner), ['adopted']);
    owner.undelivered(first, purchase);
    assert.equal(owner.money(), '5000/0');
  });
  test('comes after its salvaged approval, which is another entry here', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    lost.ask(purchase, second);
    assert.deepEqual(lost.offerAll(owner), ['adopted', 'adopted']);
    owner.undelivered(first, purchase);
    assert.equal(owner.money(), '5000/0');
    owner.undelivered(second, purchase);
    assert.equal(owner.money(), '0/0');
  });
  for (const [reason, happens] of [
    ['reversed', (owner: TestLedger) => owner.undelivered(first, purchase)],
    ['reversed', (owner: TestLedger) => owner.ask(byRrn)],
    ['undelivered', (owner: TestLedger) => owner.undelivered(second, purchase)],
  ] as const) {
    test(`is voided when what it was answered was ${reason} since`, () => {
      const { lost, owner } = branches((log) => log.ask(purchase, first));
      lost.ask(purchase, second);
      happens(owner);
      assert.deepEqual(lost.offerAll(owner), ['voided']);
      assert.equal(resolutionOf(owner).reason, reason);
    });
  }
  test('is voided when there is no approval here', () => {
    const { lost, owner } = branches();
    lost.ask(purchase, first);
    lost.ask(purchase, second);
    const [, offer] = lost.offers();
    assert.ok(offer !== undefined);
    assert.equal(owner.claim(offer), 'voided');
    assert.equal(resolutionOf(owner).reason, 'original-unknown');
    owner.set({ status: 'blocked' });
    owner.ask(purchase, third);
    assert.equal(owner.claim({ ...offer, index: 99 } as Claim), 'voided');
    assert.equal(resolutionOf(owner).reason, 'decided', 'declined here');
  });
  test('is kept when it was entered here, too', () => {
    const { lost, owner } = branches((log) => log.ask(purchase, first));
    lost.ask(purchase, second);
    owner.ask(purchase, second);
    assert.deepEqual(lost.offerAll(owner), ['kept']);
  });
});

test('what is no entry of this version is voided, and enters nothing', () => {
  const owner = new TestLedger();
  const { index } = owner;
  for (const body of ['', '{', '{"kind":"of the future"}', encodeBody({ kind: 'expiry', at: 1, holds: [] })]) {
    assert.equal(owner.claim({ kind: 'salvaged', group, term: 1, index: 1, hash: '', body }), 'voided');
  }
  assert.equal(owner.index, index);
});
