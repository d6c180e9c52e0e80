import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import Database from 'better-sqlite3';
import fc from 'fast-check';

import { cardId, groupId, type CardId } from '../base/identifiers.ts';
import type { CardStatus } from './card-status.ts';
import { keptImports, keptVersions, numberOf } from './cards.ts';
import type { CardChange, CardImport, CardsEntry, EntryBody } from './entry.ts';
import { applyToLedger } from './ledger.ts';
import { LedgerOverlay } from './ledger-overlay.ts';
import { ledgerSchema, SqliteLedger } from './ledger-sqlite.ts';

const group = groupId('a');
const at = 1_772_366_400_000;

const imported = (name: string, status: CardStatus = 'active'): CardImport => ({
  bin: '40000000',
  panHash: name,
  panKeyVersion: 1,
  panCipher: `cipher of ${name}`,
  expiry: '2812',
  status,
  currency: '840',
  limit: '100000',
});

const entry = (changes: readonly CardChange[], added: readonly CardImport[] = []): CardsEntry => ({
  kind: 'cards',
  at,
  by: 'ann',
  origin: 'n3',
  added,
  changes,
});

/** A fold in its file, and an overlay that has the entries since `settled`. */
class Bench {
  readonly ledger: SqliteLedger;
  readonly overlay: LedgerOverlay;
  readonly #database = new Database(':memory:');
  #index = 0;
  #waiting: EntryBody[] = [];

  constructor() {
    this.#database.exec(ledgerSchema);
    this.ledger = new SqliteLedger(this.#database);
    this.overlay = new LedgerOverlay(this.ledger);
  }

  enter(body: EntryBody): void {
    this.#index += 1;
    this.#waiting.push(body);
    this.overlay.begin(this.#index);
    applyToLedger(this.overlay, group, this.#index, 1, body);
  }

  /** The file gets what the overlay has. */
  settle(): void {
    const from = this.#index - this.#waiting.length + 1;
    this.#waiting.splice(0).forEach((body, position) => {
      applyToLedger(this.ledger, group, from + position, 1, body);
    });
    this.overlay.settle(this.#index);
  }

  count(table: string): number {
    return this.#database.prepare<[], number>(`SELECT count(*) FROM ${table}`).pluck().get() ?? 0;
  }
}

const first = cardId(group, 1, 1, 0);
const placed = (restriction: string, status: CardStatus = 'stolen', number = 1): CardChange => ({
  kind: 'restrict',
  card: first,
  number,
  restriction,
  status,
  at,
});

describe("a card's versions", () => {
  test('say what, when, who and where, the present one in its row', () => {
    const bench = new Bench();
    bench.enter(entry([], [imported('one')]));
    bench.enter({
      ...entry([{ kind: 'set', card: first, expiry: '3001', limit: '7' }]),
      at: at + 1,
      by: 'bob',
      origin: 'n1',
    });
    bench.enter({ ...entry([placed('n2.5.r1')]), at: at + 2 });
    bench.settle();
    const { version, change, enteredAt, enteredBy, origin, status } = bench.ledger.cardById(first) ?? {};
    assert.deepEqual(
      [version, change, enteredAt, enteredBy, origin, status],
      [3, 'stolen by n2.5.r1', at + 2, 'ann', 'n3', 'stolen'],
    );
    assert.deepEqual(
      bench.ledger.versions(first).map((row) => [row.version, row.change, row.enteredAt, row.enteredBy, row.limit]),
      [
        [1, 'added', at, 'ann', 100000n],
        [2, 'set', at + 1, 'bob', 7n],
      ],
    );
  });
  test('are kept up to a number, the newest', () => {
    const bench = new Bench();
    bench.enter(entry([], [imported('one')]));
    for (let limit = 0; limit < keptVersions + 9; limit++) {
      bench.enter(entry([{ kind: 'set', card: first, expiry: '3001', limit: String(limit) }]));
    }
    bench.settle();
    const versions = bench.ledger.versions(first).map(({ version }) => version);
    assert.deepEqual([versions.length, versions[0], versions.at(-1)], [keptVersions, 10, keptVersions + 9]);
  });
});

test('a restriction that is brought after more than are kept have been lifted is one of them for the newest only', () => {
  const bench = new Bench();
  bench.enter(entry([], [imported('one')]));
  for (let number = 0; number < 60; number++) {
    bench.enter(entry([placed(`r${number}`), { kind: 'lift', card: first, restrictions: [`r${number}`] }]));
  }
  bench.settle();
  assert.deepEqual([bench.count('card_restriction'), bench.ledger.cardById(first)?.status], [50, 'active']);
  assert.equal(bench.ledger.restriction('r9'), undefined);
  assert.notEqual(bench.ledger.restriction('r10'), undefined);
});

describe('a purge', () => {
  const remove: CardChange = { kind: 'delete', card: first, restriction: 'n1.1' };
  test('waits for the last hold and transaction, and leaves nothing', () => {
    const bench = new Bench();
    bench.enter(entry([], [imported('one')]));
    bench.enter(
      entry([
        {
          kind: 'replace',
          card: first,
          bin: '40000001',
          panHash: 'two',
          panKeyVersion: 1,
          panCipher: 'c',
          expiry: '3112',
          status: 'lost',
          restriction: 'n1.0',
        },
      ]),
    );
    bench.enter(entry([remove]));
    assert.deepEqual(bench.overlay.purgeableCards(at, 9), [], 'what has not committed is not purged');
    bench.settle();
    assert.deepEqual(bench.overlay.purgeableCards(at - 1, 9), []);
    assert.deepEqual(bench.overlay.purgeableCards(at, 9), [first]);
    bench.enter(entry([{ kind: 'purge', card: first }]));
    assert.deepEqual(bench.overlay.purgeableCards(at, 9), []);
    assert.deepEqual([bench.overlay.cardByPanHash('one'), bench.overlay.cardByPanHash('two')], [undefined, undefined]);
    bench.settle();
    for (const table of ['card', 'card_version', 'card_restriction', 'card_replaced_number']) {
      assert.equal(bench.count(table), 0, table);
    }
    assert.deepEqual([bench.overlay.cardByPanHash('one'), bench.overlay.cardByPanHash('two')], [undefined, undefined]);
  });
});

test('how far a card file has been entered is known of the newest files, in the overlay as in the file', () => {
  const bench = new Bench();
  for (let number = 0; number < keptImports + 3; number++) {
    bench.enter({ ...entry([]), file: { hash: `file ${number}`, through: { '': 5 } } });
    bench.enter({ ...entry([]), file: { hash: 'the first', through: { '': number + 1 } } });
  }
  assert.deepEqual(bench.overlay.imported('the first')[0]?.through, keptImports + 3);
  bench.settle();
  for (const ledger of [bench.overlay, bench.ledger]) {
    const [{ through, by, origin } = {}] = ledger.imported('the first');
    assert.deepEqual([through, by, origin], [keptImports + 3, 'ann', 'n3']);
    assert.deepEqual(ledger.imported('file 0'), []);
  }
  assert.equal(bench.count('card_import'), keptImports);
});

test('of its earlier numbers the card is known as each of them is', () => {
  const bench = new Bench();
  bench.enter(entry([], [imported('one')]));
  const next = (panHash: string, restriction: string): CardChange => ({
    ...{ kind: 'replace', card: first, bin: '40000000', panHash, panKeyVersion: 1, panCipher: 'c', expiry: '3112' },
    ...{ status: 'closed', restriction },
  });
  bench.enter(entry([next('two', 'x')]));
  bench.enter(entry([next('three', 'y'), placed('z', 'stolen', 1)]));
  for (const ledger of [bench.overlay, (bench.settle(), bench.ledger)]) {
    const found = ['one', 'two', 'three'].map((hash) => {
      const { card, number, isPresent } = numberOf(ledger, hash) ?? {};
      return [card?.cardId, number, isPresent, card?.status];
    });
    assert.deepEqual(found, [
      [first, 1, false, 'stolen'],
      [first, 2, false, 'closed'],
      [first, 3, true, 'active'],
    ]);
  }
});

test('an overlay shows what the file will: whatever is entered, and wherever it is settled', () => {
  const card = fc.integer({ min: 0, max: 2 }).map((number): CardId => cardId(group, 1, 1, number));
  const id = fc.constantFrom('r1', 'r2', 'r3', 'r4', 'r5');
  const status = fc.constantFrom<CardStatus>('blocked', 'lost', 'stolen');
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('set' as const),
      card,
      expiry: fc.constant('3001'),
      limit: fc.constantFrom('1', '2'),
    }),
    fc.record({
      kind: fc.constant('restrict' as const),
      card,
      number: fc.constantFrom(1, 2),
      restriction: id,
      status,
      at: fc.constant(at),
    }),
    fc.record({ kind: fc.constant('lift' as const), card, restrictions: fc.array(id, { minLength: 1, maxLength: 3 }) }),
    fc.record({ kind: fc.constant('replace' as const), card, status }),
    fc.record({ kind: fc.constant('delete' as const), card, restriction: fc.constantFrom('d1', 'd2', 'd3', 'd4') }),
    fc.record({ kind: fc.constant('purge' as const), card }),
    fc.record({ kind: fc.constant('settle' as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const bench = new Bench();
      const hashes = ['0', '1', '2'];
      bench.enter(
        entry(
          [],
          hashes.map((hash) => imported(hash)),
        ),
      );
      for (const [place, each] of steps.entries()) {
        if (each.kind === 'settle') {
          bench.settle();
          continue;
        }
        if (bench.overlay.cardById(each.card) === undefined) continue;
        if (each.kind === 'delete' && bench.overlay.restriction(each.restriction) !== undefined) continue;
        if (each.kind === 'replace') {
          hashes.push(`n${place}`);
          const replaced = { bin: '40000000', panHash: `n${place}`, panKeyVersion: 1, panCipher: 'c', expiry: '3112' };
          bench.enter(entry([{ ...each, ...replaced, restriction: `x${place}` }]));
        } else bench.enter(entry([each]));
      }
      const cards = [0, 1, 2].map((number) => cardId(group, 1, 1, number));
      const seen = (ledger: LedgerOverlay | SqliteLedger): unknown => ({
        byHash: hashes.map((hash) => ledger.cardByPanHash(hash)),
        byId: cards.map((each) => ledger.cardById(each)),
        restrictions: cards.map((each) => (ledger.cardById(each) === undefined ? [] : ledger.restrictions(each))),
        numbers: cards.map((each) => (ledger.cardById(each) === undefined ? [] : ledger.replacedNumbers(each))),
      });
      const before = seen(bench.overlay);
      bench.settle();
      assert.deepEqual(seen(bench.ledger), before);
      assert.deepEqual(seen(bench.overlay), before);
    }),
    { numRuns: 300 },
  );
});
