import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import Database from 'better-sqlite3';
import fc from 'fast-check';

import { groupId, type CardId, type GroupId } from '../base/identifiers.ts';
import type { EntryBody, MovedRow, RangeOfCards, RequestRecord } from './entry.ts';
import { applyToLedger, type LedgerReader } from './ledger.ts';
import { ledgerSchema, SqliteLedger } from './ledger-sqlite.ts';
import { markOf } from './import-marks.ts';
import { hashOfRows, isInRange } from './range-move.ts';
import { movedTables, RangeReader } from './range-reader.ts';
import { cardImport, requestRecord } from './testing.ts';

const [a, b] = [groupId('a'), groupId('b')];
const digitsOf = (cipher: string): string | undefined => (cipher === '' ? undefined : cipher);

const request = (card: CardId, key: string, mtiClass: RequestRecord['mtiClass']): RequestRecord =>
  requestRecord(card, key, { mtiClass, rrn: key, amount: '500' });

/** A card group's fold, in memory; ciphers are the numbers themselves. */
class Fold {
  readonly database = new Database(':memory:');
  readonly ledger: SqliteLedger;
  readonly ranges: RangeReader;
  readonly group: GroupId;
  index = 0;

  constructor(group: GroupId) {
    this.group = group;
    this.database.exec(ledgerSchema);
    this.ledger = new SqliteLedger(this.database);
    this.ranges = new RangeReader(this.database, digitsOf);
  }

  apply(...bodies: readonly EntryBody[]): this {
    for (const body of bodies) applyToLedger(this.ledger, this.group, ++this.index, 1, body);
    return this;
  }

  addCards(...numbers: readonly string[]): this {
    const added = numbers.map((number) =>
      cardImport({ bin: number.slice(0, 8), panHash: `hash ${number}`, panCipher: number }),
    );
    return this.apply({ kind: 'cards', at: 0, by: 'test', origin: 'n1', added, changes: [] });
  }

  card(number: string): CardId {
    return this.ledger.cardByPanHash(`hash ${number}`)?.cardId ?? ('' as CardId);
  }

  decide(number: string, key: string, changes: object = {}): this {
    return this.apply({
      kind: 'decision',
      at: 1000,
      configIndex: 3,
      durability: 'quorum',
      attempt: `n1.1.${key}`,
      request: request(this.card(number), key, '0100'),
      responseCode: '00',
      authorizationCode: '123456',
      additionalAmounts: '',
      hold: '500',
      holdExpiresAt: 9000,
      post: '0',
      completes: 0,
      ...changes,
    });
  }

  rows(sql: string): unknown[] {
    return this.database.prepare(sql).all();
  }
}

let moves = 0;

/** Moves the range as the leaders of both groups do, in parts of about so many bytes. */
function move(from: Fold, to: Fold, range: RangeOfCards, bytes = 1): string {
  const id = `move-${++moves}`;
  from.apply({ kind: 'range-out', at: 1, configIndex: 5, move: id, to: to.group, ...range });
  for (let through = '', isLast = false; !isLast;) {
    const page = from.ranges.cards(range, through, 1);
    ({ through, isLast } = page);
    from.apply({ kind: 'range-leave', at: 1, move: id, cards: page.cards, through, last: isLast });
  }
  const about = { at: 1, configIndex: 6, move: id, prefix: range.prefix, from: from.group, outIndex: from.index };
  for (;;) {
    const { parts = 0, cards = 0, through = '', hash = '' } = to.ledger.rangeMove(id) ?? {};
    const part = from.ranges.part(range, through, bytes);
    if (part.rows.length === 0) {
      to.apply({ kind: 'range-in', ...about, parts, cards, hash });
      return id;
    }
    to.apply({ kind: 'range-rows', ...about, part: parts + 1, ...part });
  }
}

const range: RangeOfCards = { prefix: '990001', nested: [] };
const number = '9900010000000011';
const other = '9900020000000011';

/** Two holds, one completed, one asked for twice and reported; a reversal that came first; what was salvaged and stood in. */
function busy(): Fold {
  const fold = new Fold(a).addCards(number, other).decide(number, 'k1').decide(number, 'k2').decide(other, 'k3');
  const card = fold.card(number);
  const completion = { request: request(card, 'c2', '0220'), hold: '0', holdExpiresAt: 0, post: '500', completes: 3 };
  fold.decide(number, 'c2', { ...completion, completesKey: 'k2' });
  return fold.apply(
    { kind: 'attempt', at: 2, durability: 'quorum', key: 'k1', transaction: 2, attempt: 'n2.1.k1' },
    { kind: 'undelivered', at: 2, attempt: 'n2.1.k1', key: 'k1', transaction: 2, releases: false },
    {
      kind: 'reversal',
      at: 3,
      configIndex: 3,
      durability: 'quorum',
      attempt: 'n1.1.r',
      request: request(card, 'r', '0400'),
      responseCode: '25',
      original: 0,
      remaining: '0',
      tombstone: { by: 'rrn', rrn: 'k9' },
    },
    {
      kind: 'resolution',
      at: 4,
      offer: { group: a, term: 1, index: 7, hash: 'h', from: 'n3' as never },
      outcome: 'voided',
      reason: 'decided',
      decision: { kind: 'attempt', at: 4, durability: 'local', key: 'k1', transaction: 2, attempt: 'n3.1.k1' },
    },
  );
}

/** What a group knows of the card, but for numbers that are its own log's. */
function knowledge(ledger: LedgerReader, card: CardId): unknown {
  const of = (index: number): string | undefined => ledger.transaction(index)?.request.key;
  const transactions = ['k1', 'k2', 'c2', 'r'].map((key) => {
    const row = ledger.transactionByKey(key);
    if (row === undefined) return undefined;
    const { index, original, ...rest } = row;
    const attempts = ledger.repeatAttempts(index).map(({ attempt }) => attempt);
    return { ...rest, original: of(original), attempts };
  });
  const { transaction, ...undelivered } = ledger.undeliveredAttempt('n2.1.k1') ?? { transaction: 0 };
  const tombstones = ledger.tombstones(card, ['rrn|k9|TERM0001']).map(({ tombstone }) => tombstone);
  const resolution = ledger.resolution(a, 1, 7);
  return {
    card: { ...ledger.cardById(card), changedAt: 0 },
    transactions,
    undelivered: { ...undelivered, index: 0, of: of(transaction) },
    tombstones,
    resolution: { ...resolution, index: 0 },
    holds: ledger.standingHolds(card).map(({ request }) => request.key),
    configuration: ledger.lastConfigIndex() >= 3,
  };
}

describe('a range that moves', () => {
  for (const bytes of [1, 700, 1_000_000]) {
    test(`brings all that is known of its cards, in parts of ${bytes} bytes, and leaves other cards alone`, () => {
      const from = busy();
      const card = from.card(number);
      const before = knowledge(from.ledger, card);
      const to = new Fold(b);
      move(from, to, range, bytes);
      assert.deepEqual(knowledge(to.ledger, card), before);
      assert.equal(to.ledger.cardByPanHash(`hash ${other}`), undefined);
      assert.equal(to.ledger.leftBy(card), '');
      assert.equal(from.ledger.leftBy(card), `move-${moves}`);
      assert.equal(from.ledger.leftBy(from.card(other)), '');
      assert.deepEqual(
        from.ledger.holdsDue(9_999, 10).map(({ request }) => request.key),
        ['k3'],
        'holds that have left are not released here',
      );
      assert.deepEqual(
        to.ledger.holdsDue(9_999, 10).map(({ request }) => request.key),
        ['k1'],
        'but where they have come',
      );
    });
  }

  test('comes back as it has become, in place of what it left', () => {
    const [from, to] = [busy(), new Fold(b)];
    const card = from.card(number);
    move(from, to, range);
    const hold = to.ledger.transactionByKey('k1')?.index ?? 0;
    to.apply({ kind: 'expiry', at: 9_999, holds: [hold] }).decide(number, 'k4');
    const before = knowledge(to.ledger, card);
    move(to, from, range, 300);
    assert.deepEqual(knowledge(from.ledger, card), before);
    assert.equal(from.ledger.transactionByKey('k1')?.state, 'expired');
    assert.equal(from.ledger.transactionByKey('k4')?.state, 'held');
    assert.equal(from.ledger.leftBy(card), '');
    assert.equal(from.rows("SELECT * FROM card_transaction WHERE state = 'moved'").length, 0);
  });

  test('brings a transaction whose key another card has there, under a key of its own', () => {
    const [from, to] = [busy(), new Fold(b).addCards('9900030000000011').decide('9900030000000011', 'k2')];
    const card = from.card(number);
    move(from, to, range);
    assert.equal(to.ledger.transactionByKey('k2')?.request.card, to.card('9900030000000011'));
    const moved = to.ledger.transactionByKey(`k2|${card}`);
    assert.equal(moved?.state, 'completed');
    assert.equal(to.ledger.transactionByKey('c2')?.original, moved.index, 'what refers to it finds it');
  });

  test('of no cards takes three entries', () => {
    const [from, to] = [new Fold(a), new Fold(b)];
    const id = move(from, to, range);
    assert.equal(to.index, 2);
    assert.ok((to.ledger.rangeMove(id)?.endIndex ?? 0) > 0);
  });

  test('is taken over whole or not at all: a part that is missing or changed is a broken invariant', () => {
    const [from, to] = [busy(), new Fold(b)];
    const id = move(from, to, range, 1);
    const { cards, parts, hash } = to.ledger.rangeMove(id) ?? { cards: 0, parts: 0, hash: '' };
    const about = { at: 1, configIndex: 6, move: 'm', prefix: '990001', from: a, outIndex: 1 } as const;
    assert.throws(() => new Fold(b).apply({ kind: 'range-in', ...about, parts, cards, hash }), /has brought all/);
    const rows: MovedRow[] = [];
    assert.throws(
      () => new Fold(b).apply({ kind: 'range-rows', ...about, part: 2, cards: 0, through: '', rows }),
      /part 2 of move m follows part 0/,
    );
    assert.notEqual(hashOfRows('', [['card', 'x']]), hashOfRows('', [['card', 'y']]));
  });

  test('finds its cards by the first eight digits, and by the whole number where these do not say', () => {
    const cases: readonly [RangeOfCards, boolean][] = [
      [{ prefix: '9900', nested: [] }, true],
      [{ prefix: '99000100', nested: [] }, true],
      [{ prefix: '990001000000001', nested: [] }, true],
      [{ prefix: '990001000000002', nested: [] }, false],
      [{ prefix: '9901', nested: [] }, false],
      [{ prefix: '9900', nested: ['990001'] }, false],
      [{ prefix: '9900', nested: ['990001000000001'] }, false],
      [{ prefix: '9900', nested: ['990001000000002'] }, true],
    ];
    for (const [each, isIn] of cases) {
      assert.equal(
        isInRange(each, number.slice(0, 8), () => number),
        isIn,
        JSON.stringify(each),
      );
      const { cards } = new Fold(a).addCards(number).ranges.cards(each, '', 10);
      assert.equal(cards.length, isIn ? 1 : 0, JSON.stringify(each));
    }
    assert.equal(
      isInRange({ prefix: '990001000000002', nested: [] }, '99000100', () => undefined),
      true,
    );
  });
});

describe('how far a card file has been entered', () => {
  const through = (lines: Record<string, number>, hash = 'f'): EntryBody => ({
    ...{ kind: 'cards', at: 0, by: 'test', origin: 'n1', added: [], changes: [] },
    file: { hash, through: lines },
  });
  const lineOf = (fold: Fold, digits: string, hash = 'f'): number =>
    markOf(fold.ledger.imported(hash), digits.slice(0, 8), () => digits)?.through ?? 0;

  test('is known of the cards of a range where the range has moved, and of others as before', () => {
    const [from, to] = [new Fold(a).apply(through({ '': 50 })), new Fold(b).apply(through({ '': 70 }))];
    move(from, to, range);
    from.apply(through({ '': 90 }));
    assert.deepEqual(
      [lineOf(to, number), lineOf(to, other)],
      [50, 70],
      'line 60 of the range is not taken for entered',
    );
    to.apply(through({ '': 80, '990001': 60 }));
    assert.deepEqual([lineOf(to, number), lineOf(to, other), lineOf(from, other)], [60, 80, 90]);
    move(to, from, range);
    assert.deepEqual([lineOf(from, number), lineOf(from, other)], [60, 90]);
  });

  test('is nothing where the old group knows nothing of the file', () => {
    const [from, to] = [new Fold(a), new Fold(b).apply(through({ '': 70 }))];
    move(from, to, range);
    assert.deepEqual([lineOf(to, number), lineOf(to, other)], [0, 70]);
    assert.deepEqual([lineOf(to, number, 'g'), to.ledger.imported('g')], [0, []]);
  });

  test('is that of its own group for a range within the one that moves, however long its prefix is', () => {
    const inner = '9900010000000022';
    const outer = { prefix: '990001', nested: ['990001000000002'] };
    const [from, to] = [new Fold(a).apply(through({ '': 50 })), new Fold(b).apply(through({ '': 70 }))];
    move(from, to, outer);
    from.apply(through({ '990001000000002': 55 }));
    assert.deepEqual([lineOf(to, number), lineOf(to, inner), lineOf(from, inner)], [50, 70, 55]);
    move(from, to, { prefix: '990001000000002', nested: [] });
    assert.deepEqual([lineOf(to, number), lineOf(to, inner), lineOf(to, other)], [50, 55, 70]);
  });

  test('counts for every card as if each had a mark of its own', () => {
    const cards = ['9900', '9900010', '99000100', '990001000000001', '99000200'].map((start) => start.padEnd(16, '5'));
    const prefixes = ['9900', '990001', '99000100', '990001000000001', '990002'];
    const step = fc.oneof(
      fc.record({ kind: fc.constant('enter' as const), group: fc.nat(1), lines: fc.integer({ min: 1, max: 9 }) }),
      fc.record({ kind: fc.constant('move' as const), group: fc.nat(1), prefix: fc.nat(prefixes.length - 1) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const folds = [new Fold(a), new Fold(b)] as const;
        const rangeOf = (digits: string): string =>
          prefixes.filter((prefix) => digits.startsWith(prefix)).sort((x, y) => y.length - x.length)[0] ?? '';
        const groupOf = new Map(prefixes.map((prefix) => [prefix, 0]));
        const expected = new Map(cards.map((card) => [card, 0]));
        let line = 0;
        for (const each of steps) {
          const here = folds[each.group === 0 ? 0 : 1];
          if (each.kind === 'move') {
            const prefix = prefixes[each.prefix] ?? '';
            if (groupOf.get(prefix) !== each.group) continue;
            const nested = prefixes.filter((other_) => other_ !== prefix && other_.startsWith(prefix));
            move(here, folds[each.group === 0 ? 1 : 0], { prefix, nested });
            groupOf.set(prefix, 1 - each.group);
            continue;
          }
          // The cards of the group that come in the next lines: every second one, so that marks differ.
          const entered: Record<string, number> = {};
          for (const card of cards.filter((_, at) => (at + each.lines) % 2 === 0)) {
            if (groupOf.get(rangeOf(card)) !== each.group) continue;
            line += each.lines;
            const mark = markOf(here.ledger.imported('f'), card.slice(0, 8), () => card);
            entered[mark?.prefix ?? ''] = line;
            for (const known of cards) {
              if (groupOf.get(rangeOf(known)) !== each.group) continue;
              const of = markOf(here.ledger.imported('f'), known.slice(0, 8), () => known);
              if ((of?.prefix ?? '') === (mark?.prefix ?? '')) expected.set(known, line);
            }
          }
          if (Object.keys(entered).length > 0) here.apply(through(entered));
        }
        for (const card of cards) {
          const fold = folds[groupOf.get(rangeOf(card)) === 0 ? 0 : 1];
          assert.equal(lineOf(fold, card), expected.get(card), card);
        }
      }),
      { numRuns: 60 },
    );
  });
});

test('every table of the fold that has rows of single cards moves with them', () => {
  const fold = new Fold(a);
  const names = fold.rows("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
  const ofCards = names
    .map((row) => (row as { readonly name: string }).name)
    .filter((name) => {
      const columns = fold.rows(`SELECT name FROM pragma_table_info('${name}')`) as { readonly name: string }[];
      return columns.some((column) => column.name === 'card_id' || column.name === 'transaction_index');
    });
  assert.deepEqual(ofCards.sort(), [...movedTables].sort());
});
