import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { seededRandom } from '../base/random.ts';
import type { ConfigurationView } from '../config-db/configuration-view.ts';
import type { LedgerReader } from '../store/ledger.ts';
import type { StandInOptions } from './edge.ts';
import {
  approvalOutcome as approval,
  cardKeys,
  EdgeBench as Bench,
  group,
  n1,
  n2,
  n3,
  OwnerBench,
  pan,
  standInView,
  TestLedger,
  TestStore,
} from './testing.ts';

const afterMs = 1_200;
/** 10 % of the link's 3 s before its end, noticed by the next tick. */
const inTimeMs = 2_700;

function options(changes: Partial<StandInOptions> = {}): StandInOptions {
  return {
    random: seededRandom(5),
    afterMs,
    maximumCount: 10,
    maximumMinor: 100_000n,
    ...changes,
  };
}

/** An edge that may stand in for group a, which has no leader here. */
function alone(
  changes: Partial<StandInOptions> = {},
  store = new TestStore(),
  boot = 4,
  ledger: LedgerReader | 'none' = new TestLedger().ledger,
): Bench {
  const configuration = (): ConfigurationView => standInView();
  const bench = new Bench({
    standIn: options(changes),
    store,
    boot,
    configuration,
    ledgerOf: () => (ledger === 'none' ? undefined : ledger),
  });
  bench.leads(undefined);
  bench.pass(25);
  return bench;
}

describe('a purchase of a group without a leader', () => {
  test('is approved by the edge itself when its time is nearly up, after the approval is on disk', () => {
    const store = new TestStore();
    const bench = alone({}, store);
    bench.handle();
    bench.pass(inTimeMs - 25);
    assert.deepEqual(bench.codes(), []);
    store.sync = 'later';
    bench.pass(25);
    assert.deepEqual([bench.codes(), bench.edge.inFlight, bench.edge.standIns.length], [[], 0, 1]);
    store.flush();
    assert.deepEqual(bench.codes(), ['00']);
    const [standIn] = store.standIns.values();
    assert.equal(bench.answers[0]?.fields.get(38), standIn?.decision.authorizationCode);
    assert.deepEqual([standIn?.sequence, standIn?.group, standIn?.currency], [1, group, '840']);
    assert.ok(!JSON.stringify(standIn).includes(pan.reveal()));
  });
  test('gets 91 when the disk cannot be written, and nothing counts', () => {
    const store = new TestStore();
    const bench = alone({}, store);
    bench.handle();
    store.sync = 'fails';
    bench.pass(inTimeMs);
    assert.deepEqual(bench.codes(), ['91']);
    assert.deepEqual([bench.edge.standIns, store.standIns.size], [[], 0]);
    bench.leads(n2);
    bench.pass(1_000);
    assert.deepEqual(bench.claims, []);
  });
  test('gets 91 when the disk was too slow: the approval is withdrawn, and what an owner may have is reversed', () => {
    for (const exposed of [false, true]) {
      const store = new TestStore();
      const bench = alone({}, store);
      if (exposed) bench.leads(n2);
      bench.handle();
      bench.leads(undefined);
      store.sync = 'later';
      bench.pass(2_975);
      bench.clock.advance(25);
      store.flush();
      assert.deepEqual(bench.codes(), ['91']);
      assert.deepEqual([bench.edge.standIns, store.standIns.size, store.dues.size], [[], 0, exposed ? 1 : 0]);
      bench.leads(n3);
      bench.pass(1_000);
      assert.ok(bench.claims.every(([, { kind }]) => kind === 'undelivered'));
    }
  });
  for (const [claim, changes, prepare] of [
    [
      'it has one again',
      {},
      (bench: Bench) => {
        bench.pass(500);
        bench.leads(n2);
      },
    ],
    [
      'it had one until a moment ago',
      {},
      (bench: Bench) => {
        bench.leads(n2);
        bench.pass(2_000);
        bench.leads(undefined);
      },
    ],
    ['the node gives none', { maximumCount: 0 }, () => undefined],
  ] as const) {
    test(`gets 91 when ${claim}`, () => {
      const bench = alone(changes);
      bench.handle();
      prepare(bench);
      bench.pass(3_000);
      assert.deepEqual(bench.codes(), ['91']);
      assert.deepEqual(bench.edge.standIns, []);
    });
  }
  test('gets 91 when its copy is no use, or does not know the card', () => {
    for (const ledger of ['none', new TestLedger([]).ledger] as const) {
      const bench = alone({}, new TestStore(), 4, ledger);
      bench.handle();
      bench.pass(3_000);
      assert.deepEqual([bench.codes(), bench.edge.standIns], [['91'], []]);
    }
  });
  test('gets 91 where stand-in is not set up at all', () => {
    const bench = new Bench({ configuration: () => standInView() });
    bench.leads(undefined);
    bench.handle();
    bench.pass(3_000);
    assert.deepEqual(bench.codes(), ['91']);
  });
  test('is approved also when an owner had it that was lost on the way, and then no reversal is due', () => {
    const bench = alone();
    bench.leads(n2);
    bench.handle();
    bench.leads(undefined);
    bench.pass(inTimeMs);
    assert.deepEqual(bench.codes(), ['00']);
    bench.outcome(approval);
    bench.pass(5_000);
    assert.deepEqual([bench.codes(), bench.edge.late, bench.store.dues.size], [['00'], 1, 0]);
  });
});

describe('an approval in stand-in', () => {
  test('is brought to the next owner until that has entered it', () => {
    const bench = alone();
    bench.handle();
    bench.pass(inTimeMs);
    assert.equal(bench.claims.length, 0);
    bench.leads(n2);
    const [to, claim] = bench.claims[0] ?? [];
    assert.ok(to === n2 && claim?.kind === 'stand-in');
    assert.equal(claim.decision.attempt, 'n1.4.1');
    bench.settle('counted');
    assert.deepEqual([bench.edge.standIns, bench.store.standIns.size], [[], 0]);
  });
  test('survives the edge, and its number is never given again', () => {
    const store = new TestStore();
    const bench = alone({}, store);
    bench.handle();
    bench.pass(inTimeMs);
    const again = alone({}, store, 5);
    assert.equal(again.edge.standIns.length, 1);
    again.handle({ 11: '000002' });
    again.pass(inTimeMs);
    assert.deepEqual(
      again.edge.standIns.map(({ sequence }) => sequence),
      [1, 2],
    );
    again.leads(n2);
    assert.equal(again.claims.length, 2);
  });
  test('is the answer to a repeat at this edge, at once, whoever leads, until it is entered', () => {
    const bench = alone();
    bench.handle();
    bench.pass(inTimeMs);
    bench.handle({}, '0101');
    bench.leads(n2);
    bench.handle({}, '0101');
    const codes = bench.answers.map(({ fields }) => fields.get(38));
    assert.deepEqual([codes.length, new Set(codes).size], [3, 1]);
    assert.equal(bench.edge.standIns.length, 1, 'and counts once');
    bench.handle({ 4: '000000000700' }, '0101');
    assert.equal(bench.codes().at(-1), '94', 'another amount is another request');
    bench.settle('counted');
    bench.handle({}, '0101');
    assert.equal(bench.sent.length, 1, "then it is the owner's to answer");
  });
  test('counts towards the limits of the next one, before it is on disk', () => {
    const store = new TestStore();
    const bench = alone({ maximumCount: 1 }, store);
    bench.handle();
    bench.handle({ 11: '000002' });
    store.sync = 'later';
    bench.pass(inTimeMs);
    store.flush();
    bench.pass(300);
    assert.deepEqual(bench.codes(), ['00', '91']);
  });
  test('is the same transaction for the owner that had the request and committed it later', () => {
    const owner = new OwnerBench().ready();
    const bench = alone();
    bench.leads(n2);
    bench.handle();
    // n2 has it, and then no majority.
    owner.owner.request(bench.firstSent.request, bench.firstSent.attempt, () => undefined);
    bench.leads(undefined);
    bench.pass(inTimeMs);
    assert.deepEqual(bench.codes(), ['00']);
    // Its majority is back.
    owner.progress(3, 3);
    bench.leads(n2);
    for (const [, claim] of bench.claims) {
      owner.owner.claim(claim, n1, (outcome) => {
        bench.settle(outcome);
      });
    }
    owner.progress(4, 4);
    assert.deepEqual(owner.kinds(), ['decision', 'stand-in']);
    const row = owner.owner.ledger.transaction(3);
    assert.equal(row?.authorizationCode, bench.answers[0]?.fields.get(38));
    assert.equal(row?.held, 5000n);
    assert.equal(owner.owner.ledger.cardByPanHash(cardKeys.hash(pan))?.held, 5000n);
    assert.deepEqual(bench.edge.standIns, []);
  });
});
