import assert from 'node:assert/strict';
import { test } from 'node:test';

import Database from 'better-sqlite3';
import fc from 'fast-check';

import type { Pan } from '../base/pan.ts';
import { decodeBody, encodeBody, type DecisionEntry, type EntryBody, type MtiClass } from '../store/entry.ts';
import type { CardRow } from '../store/cards.ts';
import {
  applyToLedger,
  isApproval,
  openToBuy,
  tombstoneKey,
  type LedgerReader,
  type TransactionRow,
  type TransactionState,
} from '../store/ledger.ts';
import { LedgerOverlay } from '../store/ledger-overlay.ts';
import { ledgerSchema, SqliteLedger } from '../store/ledger-sqlite.ts';
import { duplicateKey, type SwitchRequest } from './request.ts';
import { cardImport, everyClass, group, hashOf, namedBy, otherPan, pan, requestOf, TestLedger } from './testing.ts';

/*
 * Random traffic over so few cards, STANs, RRNs, terminals and times that nearly everything collides with something:
 * repeats, reversals of what is there, was there and never was, completions, expiries, changed limits.
 */

interface Step {
  readonly mtiClass: MtiClass;
  readonly pan: Pan;
  readonly stan: string;
  readonly transmission: string;
  readonly terminal: string;
  readonly rrn: string;
  readonly amount: bigint;
  readonly processingCode: string;
  readonly currency: string;
  readonly businessDate: string;
  readonly replacementAmount: bigint | undefined;
  readonly responseCode: string;
  /** Ask again what was asked this many steps ago, or name it in DE 90; 0: neither. */
  readonly again: number;
  readonly named: number;
  readonly withCode: boolean;
  readonly other: 'none' | 'expire' | 'limit' | 'status';
  /** How far the file follows after the step, and how much of that the overlay is told of: shares of what is open. */
  readonly applies: number;
  readonly settles: number;
}

const stans = ['000001', '000002', '000003', '000004'];
const rrns = ['', '1', '2', '3'];

/** The first value in nine of ten cases. */
function mostly<const T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
}

const step: fc.Arbitrary<Step> = fc.record({
  mtiClass: fc.constantFrom(...everyClass),
  pan: mostly(pan, otherPan),
  stan: fc.constantFrom(...stans),
  transmission: fc.constantFrom('0301120000', '0301120001'),
  terminal: mostly('TERM0001', 'TERM0002', ''),
  rrn: fc.constantFrom(...rrns),
  amount: fc.constantFrom(1n, 5000n, 20_000n),
  processingCode: mostly('000000', '200000', '310000'),
  currency: mostly('840', '978'),
  businessDate: fc.constantFrom('2026-03-01', '2026-03-02', '2026-03-04'),
  replacementAmount: fc.constantFrom(undefined, undefined, 0n, 3000n, 90_000n),
  responseCode: mostly('', '05'),
  again: mostly(0, 1, 2, 5),
  named: fc.constantFrom(0, 0, 1, 2, 3, 6),
  withCode: fc.boolean(),
  other: mostly('none', 'expire', 'limit', 'status'),
  applies: fc.double({ min: 0, max: 1, noNaN: true }),
  settles: fc.double({ min: 0, max: 1, noNaN: true }),
});

const following: Readonly<Record<TransactionState, readonly TransactionState[]>> = {
  declined: [],
  recorded: [],
  held: ['held', 'completed', 'reversed', 'expired'],
  moved: [],
  completed: ['held', 'expired'],
  posted: ['posted', 'reversed'],
  reversed: [],
  expired: ['completed'],
};

const pans = [pan, otherPan];

class Traffic {
  readonly #asked: SwitchRequest[] = [];
  readonly #open: { readonly index: number; readonly body: string }[] = [];
  readonly #file: SqliteLedger;
  readonly #overFile: LedgerOverlay;
  readonly #reference: TestLedger;
  #applied = 0;
  #before: TransactionRow[] = [];

  constructor(database: Database.Database) {
    database.exec(ledgerSchema);
    this.#file = new SqliteLedger(database);
    this.#overFile = new LedgerOverlay(this.#file);
    this.#reference = new TestLedger([cardImport(), cardImport({ pan: otherPan, limit: '70000' })], {
      onEntry: (index, term, body) => {
        const text = encodeBody(body);
        this.#open.push({ index, body: text });
        this.#overFile.begin(index);
        applyToLedger(this.#overFile, group, index, term, decodeBody(text));
      },
    });
  }

  run(steps: readonly Step[]): void {
    for (const each of steps) {
      this.#ask(this.#requestOf(each));
      if (each.other === 'expire') this.#reference.expire(8);
      if (each.other === 'limit') this.#reference.set({ limit: String(each.amount * 2n) }, each.pan);
      if (each.other === 'status') this.#reference.set({ status: each.amount === 1n ? 'blocked' : 'active' }, each.pan);
      this.#check();
      this.#follow(each.applies, each.settles);
      this.#compare(this.#overFile);
    }
    this.#follow(1, 1);
    assert.equal(this.#overFile.depth, 0);
    this.#compare(this.#overFile);
    this.#compare(this.#file);
  }

  #requestOf(each: Step): SwitchRequest {
    const before = each.again === 0 ? undefined : this.#asked.at(-each.again);
    const named = each.named === 0 || each.mtiClass < '0400' ? undefined : this.#asked.at(-each.named);
    const {
      again: _again,
      named: _named,
      withCode,
      other: _other,
      applies: _applies,
      settles: _settles,
      ...fields
    } = each;
    const authorizationCode = withCode ? (this.#transactions().at(-1)?.authorizationCode ?? '') : '';
    const originalDataElements = named === undefined ? undefined : namedBy(named);
    return before ?? requestOf({ ...fields, authorizationCode, originalDataElements });
  }

  #ask(request: SwitchRequest): void {
    const card = this.#reference.ledger.cardByPanHash(hashOf(request.pan));
    const decision = this.#reference.decide(request);
    this.#asked.push(request);
    if (decision.kind === 'stored') {
      const known = this.#reference.ledger.transactionByKey(duplicateKey(request));
      assert.equal(decision.index, known?.index);
      const over = known?.state === 'reversed' || known?.state === 'expired';
      if (over && (request.mtiClass === '0100' || request.mtiClass === '0200')) {
        assert.ok(!isApproval(decision.answer.responseCode), 'a repeat of what was taken back is declined');
      }
    }
    if (decision.kind !== 'decided') return;
    const { entry } = decision;
    if (entry.kind === 'decision' && card !== undefined) this.#checkOpenToBuy(request, card, entry);
    this.#reference.apply(entry);
  }

  #checkOpenToBuy(request: SwitchRequest, card: CardRow, entry: DecisionEntry): void {
    if (request.mtiClass !== '0100' && request.mtiClass !== '0200') return;
    const debit = BigInt(entry.hold) + (BigInt(entry.post) > 0n ? BigInt(entry.post) : 0n);
    assert.ok(debit === 0n || debit <= openToBuy(card), 'an approval never exceeds open-to-buy');
  }

  #transactions(): TransactionRow[] {
    const { ledger, index } = this.#reference;
    return Array.from({ length: index }, (_, at) => ledger.transaction(at + 1)).filter((row) => row !== undefined);
  }

  /** Money on the cards is the sum of what stands; what was taken back stays taken back. */
  #check(): void {
    const now = this.#transactions();
    for (const number of pans) {
      const card = this.#reference.card(number);
      const own = now.filter((row) => row.request.card === card.cardId);
      const sum = (amounts: readonly bigint[]): bigint => amounts.reduce((total, amount) => total + amount, 0n);
      assert.equal(card.held, sum(own.map((row) => row.held)), 'held is the sum of standing holds');
      assert.equal(card.posted, sum(own.map((row) => row.posted)), 'posted is the sum of posted effects');
      assert.ok(card.usageCount >= 0 && card.usageAmount >= 0n, 'usage is never negative');
    }
    const later = new Map(now.map((row) => [row.index, row]));
    for (const before of this.#before) {
      const after = later.get(before.index);
      assert.ok(after !== undefined && after.held >= 0n);
      if (after.state !== before.state)
        assert.ok(following[before.state].includes(after.state), `${before.state} to ${after.state}`);
      if (after.held > before.held)
        assert.equal(before.state, 'completed', 'only a reversed completion gives a hold back');
      assert.ok(size(after.posted) <= size(before.posted), 'nothing posted grows');
      if (after.state === 'reversed' || after.state === 'expired') assert.equal(after.held + after.posted, 0n);
    }
    this.#before = now;
  }

  /** The file applies a part of what is open, and the overlay hears of a part of that. */
  #follow(applies: number, settles: number): void {
    const count = Math.round(this.#open.length * applies);
    for (const { index, body } of this.#open.splice(0, count)) {
      const entry: EntryBody = decodeBody(body);
      applyToLedger(this.#file, group, index, 1, entry);
      this.#applied = index;
    }
    this.#overFile.settle(Math.round(this.#applied * settles));
    if (settles === 1) this.#overFile.settle(this.#applied);
  }

  /** Every row and every way to find it: the same as in memory. */
  #compare(other: LedgerReader): void {
    const { ledger } = this.#reference;
    const everything = (reader: LedgerReader): unknown => {
      const rows = this.#transactions();
      const cards = pans.map((number) => this.#reference.card(number).cardId);
      const codes = [...new Set(rows.map((row) => row.authorizationCode))];
      const keys = [
        ...new Set(
          rows.flatMap(({ request: { mtiClass, stan, transmission, rrn, amount, terminal } }) => [
            tombstoneKey({ by: 'original-data', mtiClass, stan, transmission, acquirer: '' }, terminal),
            tombstoneKey({ by: 'rrn', rrn }, terminal),
            tombstoneKey({ by: 'stan', stan, amount }, terminal),
          ]),
        ),
      ];
      return {
        byId: cards.map((card) => reader.cardById(card)),
        byHash: pans.map((number) => reader.cardByPanHash(hashOf(number))),
        transactions: rows.map((row) => reader.transaction(row.index)),
        byKey: rows.map((row) => reader.transactionByKey(row.request.key)),
        byStan: cards.map((card) => stans.map((stan) => reader.transactionsByStan(card, stan))),
        byRrn: cards.map((card) => rrns.map((rrn) => reader.transactionsByRrn(card, rrn))),
        byCode: cards.map((card) => codes.map((code) => reader.holdsByAuthorizationCode(card, code))),
        tombstones: cards.map((card) => reader.tombstones(card, keys)),
      };
    };
    assert.deepEqual(everything(other), everything(ledger));
  }
}

function size(amount: bigint): bigint {
  return amount < 0n ? -amount : amount;
}

test('after any traffic money is the sum of what stands, and file, overlay and memory are the same row by row', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 50, size: 'max' }), (steps) => {
      const database = new Database(':memory:');
      try {
        new Traffic(database).run(steps);
      } finally {
        database.close();
      }
    }),
    { numRuns: 60 },
  );
});

test('any traffic again, message by message, changes nothing and approves nothing that was taken back', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 30, size: 'max' }), (steps) => {
      const ledger = new TestLedger([cardImport(), cardImport({ pan: otherPan })]);
      const first = steps.map((each) => ledger.ask(each).responseCode);
      const { index } = ledger;
      const money = pans.map((number) => ledger.money(number));
      const second = steps.map((each) => ledger.ask({ ...each, repeat: true }).responseCode);
      assert.equal(ledger.index, index, 'nothing new is entered');
      assert.deepEqual(
        pans.map((number) => ledger.money(number)),
        money,
      );
      second.forEach((code, at) => {
        if (isApproval(code)) assert.ok(isApproval(first[at] ?? ''), 'a decline never becomes an approval');
      });
    }),
    { numRuns: 100 },
  );
});
