import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import Database from 'better-sqlite3';

import { cardId, groupId, nodeId, type CardId } from '../base/identifiers.ts';
import type { DecisionEntry, EntryBody, ResolutionEntry, StandInEntry } from './entry.ts';
import { applyToLedger } from './ledger.ts';
import { LedgerOverlay } from './ledger-overlay.ts';
import {
  countResolutions,
  countStandIns,
  pendingStandIns,
  readResolutionCounts,
  readStandIns,
  voidedByKey,
} from './ledger-reports.ts';
import { ledgerSchema, SqliteLedger } from './ledger-sqlite.ts';
import { cardImport, requestRecord } from './testing.ts';

const group = groupId('a');
const n2 = nodeId('n2');
const card = cardId(group, 1, 1, 0);

const cards: EntryBody = {
  kind: 'cards',
  at: 0,
  by: 'test',
  added: [cardImport()],
  origin: 'n1',
  changes: [],
};

const decision = (key: string, changes: Partial<DecisionEntry> = {}): DecisionEntry => ({
  kind: 'decision',
  at: 1000,
  configIndex: 3,
  durability: 'local',
  attempt: `n1.1.${key}`,
  request: requestRecord(card, key),
  responseCode: '00',
  authorizationCode: '123456',
  additionalAmounts: '',
  hold: '5000',
  holdExpiresAt: 9_000,
  post: '0',
  completes: 0,
  ...changes,
});

const resolution = (index: number, entry: Partial<ResolutionEntry>): ResolutionEntry => ({
  kind: 'resolution',
  at: 2000,
  offer: { group, term: 1, index, hash: 'h', from: n2 },
  outcome: 'adopted',
  reason: '',
  decision: decision('salvaged'),
  ...entry,
});

const standIn = (entry: Partial<StandInEntry>): StandInEntry => ({
  kind: 'stand-in',
  at: 2000,
  node: n2,
  sequence: 4,
  amount: '5000',
  outcome: 'counted',
  decision: decision('stand-in'),
  transaction: 0,
  overspent: '0',
  ...entry,
});

/** Applies to the file at once, and to an overlay over an empty file: both are to say the same. */
function apply(...bodies: EntryBody[]): { ledger: SqliteLedger; overlay: LedgerOverlay } {
  const database = new Database(':memory:');
  database.exec(ledgerSchema);
  const ledger = new SqliteLedger(database);
  const empty = new Database(':memory:');
  empty.exec(ledgerSchema);
  const overlay = new LedgerOverlay(new SqliteLedger(empty));
  [cards, ...bodies].forEach((body, at) => {
    applyToLedger(ledger, group, at + 1, 1, body);
    overlay.begin(at + 1);
    applyToLedger(overlay, group, at + 1, 1, body);
  });
  return { ledger, overlay };
}

const undelivered = (attempt: string, transaction: number, releases: boolean): EntryBody => ({
  kind: 'undelivered',
  at: 5,
  attempt,
  key: '1',
  transaction,
  releases,
});
const attempt = (name: string, transaction = 2): EntryBody => ({
  kind: 'attempt',
  at: 5,
  durability: 'local',
  key: '1',
  transaction,
  attempt: name,
});

describe('the fold, and the overlay like it,', () => {
  test('keeps the first attempt with the transaction and later ones apart, each once', () => {
    const { ledger, overlay } = apply(decision('1'), attempt('n1.1.1'), attempt('b'), attempt('c'), attempt('b'));
    for (const reader of [ledger, overlay]) {
      assert.equal(reader.transaction(2)?.attempt, 'n1.1.1');
      assert.deepEqual(reader.repeatAttempts(2), [
        { transaction: 2, attempt: 'b', index: 4 },
        { transaction: 2, attempt: 'c', index: 5 },
      ]);
    }
  });
  test('releases what the entry says, once, and keeps the report', () => {
    const { ledger, overlay } = apply(
      decision('1'),
      undelivered('x', 0, false),
      undelivered('n1.1.1', 2, true),
      undelivered('n1.1.1', 2, true),
    );
    for (const reader of [ledger, overlay]) {
      assert.deepEqual([reader.transaction(2)?.state, reader.cardById(card)?.held], ['reversed', 0n]);
      assert.equal(reader.cardById(card)?.usageCount, 0);
      assert.deepEqual(reader.undeliveredAttempt('n1.1.1'), {
        attempt: 'n1.1.1',
        index: 4,
        key: '1',
        transaction: 2,
        released: true,
      });
      assert.equal(reader.undeliveredAttempt('x')?.transaction, 0);
      assert.equal(reader.undeliveredAttempt('y'), undefined);
      assert.deepEqual([...reader.undeliveredAttempts(9)].sort(), ['n1.1.1', 'x']);
      assert.equal(reader.undeliveredAttempts(1).length, 1);
    }
  });
  test('counts what was adopted, and not what was voided; an offer has one outcome', () => {
    const { ledger, overlay } = apply(
      resolution(7, {}),
      resolution(8, { outcome: 'voided', reason: 'decided', decision: decision('other') }),
      resolution(7, { outcome: 'voided', reason: 'decided' }),
    );
    for (const reader of [ledger, overlay]) {
      assert.equal(reader.cardById(card)?.held, 5000n);
      assert.equal(reader.transactionByKey('salvaged')?.index, 2);
      assert.equal(reader.transactionByKey('other'), undefined);
      assert.deepEqual(reader.resolution(group, 1, 7), {
        group,
        term: 1,
        offered: 7,
        hash: 'h',
        from: 'n2',
        index: 2,
        at: 2000,
        outcome: 'adopted',
        reason: '',
        key: 'salvaged',
        card,
      });
      assert.equal(reader.resolution(group, 1, 8)?.outcome, 'voided');
      assert.equal(reader.resolution(group, 2, 7), undefined);
    }
  });
  test('counts an approval in stand-in, in place of what the owner declined', () => {
    const declined = decision('1', { responseCode: '51', authorizationCode: '', hold: '0', holdExpiresAt: 0 });
    const approved = decision('1', { attempt: 'n2.7.7', authorizationCode: '777777', at: 500 });
    const { ledger, overlay } = apply(declined, standIn({ decision: approved, transaction: 2, overspent: '12' }));
    for (const reader of [ledger, overlay]) {
      const row = reader.transactionByKey('1');
      assert.deepEqual(
        [row?.index, row?.state, row?.responseCode, row?.authorizationCode, row?.held, row?.decidedAt, row?.attempt],
        [2, 'held', '00', '777777', 5000n, 500, 'n1.1.1'],
      );
      assert.deepEqual(reader.holdsByAuthorizationCode(card, '777777').length, 1);
      assert.equal(reader.cardById(card)?.held, 5000n);
      assert.deepEqual(
        reader.repeatAttempts(2).map((each) => each.attempt),
        ['n2.7.7'],
      );
      assert.deepEqual(reader.standIn('n2.7.7'), {
        attempt: 'n2.7.7',
        index: 3,
        node: 'n2',
        sequence: 4,
        card,
        key: '1',
        outcome: 'counted',
        transaction: 2,
        amount: 5000n,
        overspent: 12n,
        approvedAt: 500,
        enteredAt: 2000,
      });
    }
  });
  test('knows by which configuration it was decided last', () => {
    const { ledger, overlay } = apply(decision('1', { configIndex: 3 }), decision('2', { configIndex: 9 }));
    assert.deepEqual([ledger.lastConfigIndex(), overlay.lastConfigIndex()], [9, 9]);
    assert.equal(apply().ledger.lastConfigIndex(), 0);
  });
  test('stops at an entry about a transaction that is not there', () => {
    for (const body of [attempt('x', 9), undelivered('x', 9, true), standIn({ outcome: 'same', transaction: 9 })]) {
      assert.throws(() => apply(body), /broken invariant/);
    }
  });
});

test('what the file has of them leaves the overlay, and is read from the file', () => {
  const database = new Database(':memory:');
  database.exec(ledgerSchema);
  const file = new SqliteLedger(database);
  const overlay = new LedgerOverlay(file);
  const bodies = [cards, decision('1'), attempt('b'), undelivered('x', 0, false), resolution(7, {}), standIn({})];
  bodies.forEach((body, at) => {
    overlay.begin(at + 1);
    applyToLedger(overlay, group, at + 1, 1, body);
  });
  bodies.forEach((body, at) => {
    applyToLedger(file, group, at + 1, 1, body);
    overlay.settle(at + 1);
    assert.equal(overlay.repeatAttempts(2).length, 1, 'neither lost nor doubled');
    for (const found of [
      overlay.undeliveredAttempt('x'),
      overlay.resolution(group, 1, 7),
      overlay.standIn('n1.1.stand-in'),
    ]) {
      assert.ok(found !== undefined);
    }
  });
  assert.equal(overlay.depth, 0);
  const cut = new LedgerOverlay(file);
  cut.begin(7);
  applyToLedger(cut, group, 7, 1, undelivered('cut', 0, false));
  cut.clear();
  assert.equal(cut.undeliveredAttempt('cut'), undefined, 'what was cut from the log was never reported');
});

describe('reports', () => {
  const database = (...bodies: EntryBody[]): Database.Database => {
    const file = new Database(':memory:');
    file.exec(ledgerSchema);
    const ledger = new SqliteLedger(file);
    [cards, ...bodies].forEach((body, at) => {
      applyToLedger(ledger, group, at + 1, 1, body);
    });
    return file;
  };
  test('say what became of what logs lost', () => {
    const voided = { outcome: 'voided', reason: 'decided' } as const;
    const file = database(resolution(7, {}), resolution(8, voided), resolution(9, voided));
    assert.deepEqual(readResolutionCounts(file), { adopted: 1, voided: 2 });
    assert.deepEqual(readResolutionCounts(database()), { adopted: 0, voided: 0 });
    const { decision } = resolution(8, voided);
    const key = decision.kind === 'attempt' ? decision.key : decision.request.key;
    const card = decision.kind === 'attempt' ? cardId(group, 1, 1, 0) : (decision.request.card as CardId);
    assert.deepEqual([countResolutions(file, card), countResolutions(database(), card)], [3, 0]);
    assert.deepEqual([...voidedByKey(file, [key, 'another'])], [[key, 'decided']]);
    assert.deepEqual([...voidedByKey(file, ['another'])], []);
    assert.deepEqual([...voidedByKey(database(resolution(7, {})), [key])], [], 'what was adopted is not voided');
  });
  test('say what was approved in stand-in, by which edge, for which card, and by how much it overspent', () => {
    const file = database(standIn({}), standIn({ decision: decision('2'), sequence: 5, overspent: '300' }));
    assert.deepEqual(readStandIns(file, group, 1), [
      {
        node: 'n2',
        sequence: 5,
        group: 'a',
        card: 'a.1.1.0',
        amountMinor: '5000',
        currency: '840',
        at: 1000,
        state: 'entered',
        outcome: 'counted',
        overspentMinor: '300',
      },
    ]);
    assert.deepEqual(
      readStandIns(file, group, 9).map(({ sequence }) => sequence),
      [5, 4],
    );
    assert.deepEqual([countStandIns(file, 'n2'), countStandIns(file, 'n1')], [2, 0]);
  });
  test('say what an edge has approved that no log has yet', () => {
    const [pending] = pendingStandIns('n1', [{ sequence: 2, group, currency: '978', decision: decision('3') }]);
    assert.deepEqual(
      [pending?.node, pending?.state, pending?.amountMinor, pending?.currency, pending?.card],
      ['n1', 'pending', '5000', '978', 'a.1.1.0'],
    );
  });
});
