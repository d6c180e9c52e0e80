import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { cardId, groupId } from '../base/identifiers.ts';
import type { CardsEntry, DecisionEntry, EntryBody, RequestRecord, ReversalEntry } from './entry.ts';
import type { CardRow } from './cards.ts';
import { applyToLedger, usageDateOf, type LedgerState } from './ledger.ts';
import { ledgerFold } from './ledger-fold.ts';
import { LedgerOverlay } from './ledger-overlay.ts';
import { ledgerSchema, SqliteLedger } from './ledger-sqlite.ts';
import { cardImport, requestRecord } from './testing.ts';

const group = groupId('a');
const card = cardId(group, 1, 1, 0);
const dayMs = 86_400_000;
const tombstoneKeys = ['rrn|5|TERM0001'];

const imported = (count: number, changes: object = {}): CardsEntry => ({
  kind: 'cards',
  at: 0,
  by: 'test',
  added: Array.from({ length: count }, (_, at) => cardImport({ panHash: `hash ${at}`, ...changes })),

  origin: 'n1',
  changes: [],
});

const record = (key: string, changes: Partial<RequestRecord> = {}): RequestRecord => requestRecord(card, key, changes);

const decision = (key: string, changes: Partial<DecisionEntry> = {}): DecisionEntry => ({
  kind: 'decision',
  at: 1000,
  configIndex: 1,
  durability: 'quorum',
  attempt: 'n1.1.1',
  request: record(key),
  responseCode: '00',
  authorizationCode: '123456',
  additionalAmounts: '',
  hold: '5000',
  holdExpiresAt: 7 * dayMs,
  post: '0',
  completes: 0,
  ...changes,
});

const reversal = (key: string, original: number, changes: Partial<ReversalEntry> = {}): ReversalEntry => ({
  kind: 'reversal',
  at: 2000,
  configIndex: 1,
  durability: 'quorum',
  attempt: 'n1.1.2',
  request: record(key, { mtiClass: '0420' }),
  responseCode: '00',
  original,
  remaining: '0',
  tombstone: undefined,
  ...changes,
});

const expiry = (...holds: number[]): EntryBody => ({ kind: 'expiry', at: 9, holds });

function inMemory(t: TestContext): {
  database: Database.Database;
  ledger: SqliteLedger;
  apply: (...bodies: EntryBody[]) => void;
} {
  const database = new Database(':memory:');
  t.after(() => database.close());
  database.exec(ledgerSchema);
  const ledger = new SqliteLedger(database);
  let index = 0;
  const apply = (...bodies: EntryBody[]): void => {
    for (const body of bodies) applyToLedger(ledger, group, ++index, 1, body);
  };
  return { database, ledger, apply };
}

const mustCard = (ledger: LedgerState): CardRow => {
  const row = ledger.cardById(card);
  assert.ok(row !== undefined);
  return row;
};

describe('apply', () => {
  test('gives cards ids of the entry that brought them, and finds them by hash', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(2));
    assert.equal(ledger.cardByPanHash('hash 1')?.cardId, 'a.1.1.1');
    assert.equal(ledger.cardByPanHash('hash 2'), undefined);
  });
  test('keeps every minor unit of the largest amounts', (t) => {
    const { ledger, apply } = inMemory(t);
    const large = 9_007_199_254_740_993n;
    apply(imported(1, { limit: large.toString() }));
    apply(decision('1', { hold: large.toString() }));
    apply(decision('2', { hold: '0', post: (-large).toString() }));
    const { limit, held, posted } = mustCard(ledger);
    assert.deepEqual([limit, held, posted], [large, large, -large]);
  });
  test('releases a hold once, whatever comes twice: expiry, reversal, reversal of what has expired', (t) => {
    for (const steps of [
      [expiry(2), expiry(2)],
      [expiry(2, 2)],
      [reversal('r', 2), reversal('s', 2)],
      [reversal('r', 2), expiry(2)],
      [expiry(2), reversal('r', 2)],
    ]) {
      const { ledger, apply } = inMemory(t);
      apply(imported(1), decision('1'), ...steps);
      assert.equal(mustCard(ledger).held, 0n);
      assert.equal(mustCard(ledger).posted, 0n);
    }
  });
  test("leaves a completed hold to its completion when the owner's expiry comes late", (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1), decision('1'), decision('2', { hold: '0', post: '4000', completes: 2 }), expiry(2));
    assert.deepEqual([mustCard(ledger).held, mustCard(ledger).posted], [0n, 4000n]);
    assert.equal(ledger.transaction(2)?.state, 'completed');
  });
  test('never raises what remains', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1), decision('1'), reversal('r', 2, { remaining: '9000' }), reversal('s', 2, { remaining: '100' }));
    assert.equal(mustCard(ledger).held, 100n);
    apply(reversal('t', 2, { remaining: '200' }));
    assert.equal(mustCard(ledger).held, 100n);
  });
  test('records a request without a card, and moves nothing', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(decision('1', { request: record('1', { card: '' }), responseCode: '14', hold: '0' }));
    assert.equal(ledger.transactionByKey('1')?.state, 'declined');
  });
  test('stops at an entry that names what is not there, or that a card group cannot hold', (t) => {
    const { apply } = inMemory(t);
    assert.throws(() => {
      apply(decision('1'));
    }, /broken invariant/);
    assert.throws(() => {
      apply(expiry(99));
    }, /broken invariant/);
    assert.throws(() => {
      apply({ kind: 'configuration', id: 'i', checkedAt: 0, at: 1, by: 'x', origin: 'n1', changes: [] });
    }, /which a card group cannot hold/);
    assert.throws(() => {
      apply({ kind: 'of the future' } as unknown as EntryBody);
    }, /"of the future"/);
  });
  test('is done by the fold as by itself', () => {
    const database = new Database(':memory:');
    database.exec(ledgerFold.schema);
    const apply = ledgerFold.open(database, group);
    apply(1, 1, imported(1));
    apply(2, 1, { kind: 'no-op', leader: 'n1', term: 1 });
    apply(3, 1, decision('1'));
    assert.equal(mustCard(new SqliteLedger(database)).held, 5000n);
    database.close();
  });
});

describe('holds that are due', () => {
  test('come earliest first, up to a number, and only while they stand', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1));
    for (const [at, days] of [3, 1, 2, 9].entries()) apply(decision(String(at), { holdExpiresAt: days * dayMs }));
    const due = (at: number, limit: number): number[] => ledger.holdsDue(at, limit).map((row) => row.index);
    assert.deepEqual(due(3 * dayMs, 9), [3, 4, 2]);
    assert.deepEqual(due(3 * dayMs, 2), [3, 4]);
    assert.deepEqual(due(3 * dayMs - 1, 9), [3, 4]);
    apply(expiry(3));
    assert.deepEqual(due(3 * dayMs, 9), [4, 2]);
  });
  test('that the overlay has released are not due again', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1), decision('1'));
    const overlay = new LedgerOverlay(ledger);
    overlay.begin(3);
    applyToLedger(overlay, group, 3, 1, expiry(2));
    assert.equal(ledger.holdsDue(7 * dayMs, 9).length, 1);
    assert.deepEqual(overlay.holdsDue(7 * dayMs, 9), []);
  });
});

test('a read-only connection reads the ledger', (t) => {
  const { ledger, apply, database } = inMemory(t);
  apply(imported(1), decision('1'), reversal('r', 0, { tombstone: { by: 'rrn', rrn: '5' } }));
  const copy = new Database(database.serialize(), { readonly: true });
  const reader = new SqliteLedger(copy);
  assert.deepEqual(reader.cardById(card), ledger.cardById(card));
  assert.deepEqual(reader.transaction(2), ledger.transaction(2));
  assert.deepEqual(reader.tombstones(card, tombstoneKeys), ledger.tombstones(card, tombstoneKeys));
  assert.deepEqual(reader.cardsWithTombstones(9), [card]);
  copy.close();
});

describe('the overlay', () => {
  test('sees what the file does not have yet, and nothing after it is cleared', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1));
    const overlay = new LedgerOverlay(ledger);
    overlay.begin(2);
    applyToLedger(overlay, group, 2, 1, decision('1'));
    overlay.begin(3);
    applyToLedger(overlay, group, 3, 1, reversal('r', 0, { tombstone: { by: 'rrn', rrn: '5' } }));
    assert.equal(mustCard(overlay).held, 5000n);
    assert.equal(mustCard(ledger).held, 0n);
    assert.equal(overlay.tombstones(card, tombstoneKeys).length, 1);
    assert.equal(overlay.depth, 2);
    overlay.clear();
    assert.equal(mustCard(overlay).held, 0n);
    assert.equal(overlay.transaction(2), undefined);
    assert.deepEqual([overlay.tombstones(card, tombstoneKeys), overlay.depth], [[], 0]);
  });
  test("keeps an older entry's row from coming back when a newer one is settled later", (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(1));
    const overlay = new LedgerOverlay(ledger);
    const entries: EntryBody[] = [decision('1'), decision('2')];
    entries.forEach((entry, at) => {
      overlay.begin(at + 2);
      applyToLedger(overlay, group, at + 2, 1, entry);
    });
    apply(decision('1'));
    overlay.settle(2);
    assert.equal(mustCard(overlay).held, 10_000n);
    apply(decision('2'));
    assert.equal(mustCard(overlay).held, 10_000n, 'the file may be ahead of what the overlay was told');
    overlay.settle(99);
    assert.equal(mustCard(overlay).held, 10_000n);
    assert.equal(overlay.depth, 0);
  });
  test('remembers a bounded number of cards, and reads the others from the file as they are', (t) => {
    const { ledger, apply } = inMemory(t);
    apply(imported(20_500));
    const overlay = new LedgerOverlay(ledger);
    for (const round of [1, 2]) {
      for (let at = 0; at < 20_500; at++)
        assert.equal(overlay.cardByPanHash(`hash ${at}`)?.cardId, `a.1.1.${at}`, String(round));
    }
    overlay.begin(2);
    applyToLedger(overlay, group, 2, 1, decision('1'));
    apply(decision('1'));
    overlay.settle(2);
    for (let at = 1; at < 20_500; at++) overlay.cardByPanHash(`hash ${at}`);
    assert.equal(overlay.cardByPanHash('hash 0')?.held, 5000n);
  });
});

test('a debit one day behind counts with the later day, and any other begins its own', (t) => {
  const { ledger, apply } = inMemory(t);
  apply(imported(1));
  const row = (usageDate: string): CardRow => ({ ...mustCard(ledger), usageDate });
  for (const [counted, asked, expected] of [
    ['', '2026-03-01', '2026-03-01'],
    ['2026-03-01', '2026-03-01', '2026-03-01'],
    ['2026-03-01', '2026-03-02', '2026-03-02'],
    ['2026-03-02', '2026-03-01', '2026-03-02'],
    ['2026-03-01', '2026-02-28', '2026-03-01'],
    ['2027-01-01', '2026-12-31', '2027-01-01'],
    ['2026-03-03', '2026-03-01', '2026-03-01'],
  ] as const) {
    assert.equal(usageDateOf(row(counted), asked), expected, `${counted} ${asked}`);
  }
});
