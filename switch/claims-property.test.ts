import assert from 'node:assert/strict';
import { test } from 'node:test';

import Database from 'better-sqlite3';
import fc from 'fast-check';

import { nodeId } from '../base/identifiers.ts';
import { decodeBody, encodeBody, type MtiClass } from '../store/entry.ts';
import { applyToLedger, attemptsOf, isApproval, type LedgerReader } from '../store/ledger.ts';
import { LedgerOverlay } from '../store/ledger-overlay.ts';
import { ledgerSchema, SqliteLedger } from '../store/ledger-sqlite.ts';
import { claimId, planClaim, type Claim } from './claims.ts';
import { duplicateKey, type SwitchRequest } from './request.ts';
import { cardImport, everyClass, group, namedBy, otherPan, pan, requestOf, TestLedger } from './testing.ts';

/*
 * An owner's log that is lost at some point, the log that goes on without its tail, and everything that nodes bring to
 * the latter: attempts that were not delivered, what the first log lost, approvals in stand-in. Few keys, so that
 * nearly everything meets something else, in any order and more than once.
 */

interface Step {
  readonly kind: 'ask' | 'undelivered' | 'offer' | 'stand-in' | 'expire';
  readonly mtiClass: MtiClass;
  readonly stan: number;
  readonly amount: bigint;
  readonly otherCard: boolean;
  readonly named: number;
  readonly attempt: number;
  /** Before the logs part, at the one that is lost, or at the one that goes on. */
  readonly at: 'both' | 'lost' | 'owner';
  readonly applies: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('ask', 'ask', 'ask', 'undelivered', 'offer', 'stand-in', 'expire'),
  mtiClass: fc.oneof({ weight: 3, arbitrary: fc.constant<MtiClass>('0100') }, fc.constantFrom(...everyClass)),
  stan: fc.nat(3),
  amount: fc.constantFrom(5000n, 5000n, 60_000n),
  otherCard: fc.nat(9).map((one) => one === 0),
  named: fc.nat(3),
  attempt: fc.nat(5),
  at: fc.constantFrom('both', 'lost', 'owner', 'owner'),
  applies: fc.double({ min: 0, max: 1, noNaN: true }),
});

const pans = [pan, otherPan];
const attempts = [0, 1, 2, 3, 4, 5].map((number) => `n${number % 3}.1.${number}`);

class World {
  readonly #cards = [cardImport(), cardImport({ pan: otherPan })];
  readonly #lost = new TestLedger(this.#cards);
  readonly #owner: TestLedger;
  readonly #file: SqliteLedger;
  readonly #overFile: LedgerOverlay;
  readonly #open: { readonly index: number; readonly body: string }[] = [];
  readonly #settled = new Map<string, string>();
  #apart = false;
  #applied = 0;
  #common = 1;

  constructor(database: Database.Database) {
    database.exec(ledgerSchema);
    this.#file = new SqliteLedger(database);
    this.#overFile = new LedgerOverlay(this.#file);
    this.#owner = new TestLedger(this.#cards, {
      onEntry: (index, _term, body) => {
        const text = encodeBody(body);
        this.#open.push({ index, body: text });
        this.#overFile.begin(index);
        applyToLedger(this.#overFile, group, index, 1, decodeBody(text));
      },
    });
  }

  run(steps: readonly Step[]): void {
    for (const each of steps) {
      this.#do(each);
      this.#checkMoney();
      this.#follow(each.applies);
    }
    this.#compare(this.#overFile);
    for (const claim of this.#offers()) this.#bring(claim);
    for (const claim of this.#offers()) this.#bring(claim);
    this.#checkMoney();
    this.#checkOffers();
    this.#follow(1);
    this.#overFile.settle(this.#applied);
    this.#compare(this.#overFile);
    this.#compare(this.#file);
  }

  #do(each: Step): void {
    switch (each.kind) {
      case 'ask':
        this.#ask(this.#requestOf(each), each);
        break;
      case 'undelivered':
        this.#bring({
          kind: 'undelivered',
          group,
          attempt: attempts[each.attempt] ?? '',
          key: duplicateKey(this.#requestOf({ ...each, mtiClass: '0100' })),
        });
        break;
      case 'offer': {
        const offers = this.#offers();
        for (const claim of offers.slice(0, 1 + (each.attempt % 3))) this.#bring(claim);
        const any = offers[each.stan];
        if (any !== undefined && this.#settled.has(claimId(any))) this.#bring(any);
        break;
      }
      case 'stand-in':
        this.#standIn(each);
        break;
      case 'expire':
        this.#part();
        this.#owner.expire(3);
    }
  }

  #requestOf(each: Step): SwitchRequest {
    const stan = String(each.stan + 1).padStart(6, '0');
    const reversal = each.mtiClass === '0400' || each.mtiClass === '0420';
    const original = requestOf({ stan: String(each.named + 1).padStart(6, '0'), rrn: `R${each.named}` });
    return requestOf({
      mtiClass: each.mtiClass,
      pan: each.otherCard ? otherPan : pan,
      stan: reversal ? `9${stan.slice(1)}` : stan,
      amount: each.amount,
      rrn: each.mtiClass === '0220' ? `R${each.named}` : `R${each.stan}`,
      originalDataElements: reversal ? namedBy(original) : undefined,
    });
  }

  #ask(request: SwitchRequest, { at, attempt }: Step): void {
    const ask = (ledger: TestLedger): void => {
      const decision = ledger.decide(request, attempts[attempt]);
      if (decision.kind === 'decided' || decision.kind === 'repeated') ledger.apply(decision.entry);
      if (decision.kind === 'given-up') assert.ok(ledger.ledger.undeliveredAttempt(attempts[attempt] ?? ''));
    };
    if (at === 'both' && !this.#apart) {
      // The same entry in both logs, chance included.
      const from = this.#lost.index;
      ask(this.#lost);
      for (const body of this.#lost.entries.slice(from)) this.#owner.apply(body);
      this.#common = this.#lost.index;
      return;
    }
    this.#part();
    ask(at === 'lost' ? this.#lost : this.#owner);
  }

  /** From here on the two logs have different entries at the same indexes. */
  #part(): void {
    if (this.#apart) return;
    this.#apart = true;
    this.#owner.atMs += 1;
    this.#owner.apply({ kind: 'no-op', leader: 'n2', term: 2 });
  }

  #offers(): Claim[] {
    return this.#lost.entries.flatMap((body, at) =>
      at >= this.#common && (body.kind === 'decision' || body.kind === 'reversal' || body.kind === 'attempt')
        ? [{ kind: 'salvaged', group, term: 1, index: at + 1, hash: `hash ${at + 1}`, body: encodeBody(body) }]
        : [],
    );
  }

  #standIn(each: Step): void {
    this.#part();
    const request = this.#requestOf({ ...each, mtiClass: '0100' });
    const copy = new TestLedger(this.#cards);
    const decision = copy.decide(request, `n3.2.${each.attempt}-${each.stan}`);
    if (decision.kind !== 'decided' || decision.entry.kind !== 'decision') return;
    this.#bring({ kind: 'stand-in', group, sequence: each.attempt, decision: decision.entry });
  }

  #bring(claim: Claim): void {
    this.#part();
    const held = this.#reversedNow();
    const outcome = this.#owner.claim(claim);
    const id = claimId(claim);
    assert.equal(this.#settled.get(id) ?? outcome, outcome, 'a claim that comes again gets the outcome it had');
    this.#settled.set(id, outcome);
    const context = { ledger: this.#owner.ledger, from: nodeId('n4'), at: 1, configIndex: 1 };
    assert.equal(planClaim(claim, context).kind, 'known', 'and plans nothing');
    if (claim.kind !== 'undelivered') return;
    for (const index of this.#reversedNow()) {
      if (held.has(index)) continue;
      const row = this.#owner.ledger.transaction(index);
      assert.ok(row !== undefined);
      for (const attempt of attemptsOf(this.#owner.ledger, row)) {
        assert.ok(this.#owner.ledger.undeliveredAttempt(attempt), 'nothing is released that somebody may have');
      }
    }
  }

  #reversedNow(): Set<number> {
    const rows = this.#owner.entries.map((_, at) => this.#owner.ledger.transaction(at + 1));
    return new Set(rows.flatMap((row) => (row?.state === 'reversed' ? [row.index] : [])));
  }

  /** Money on the cards is the sum of what stands. */
  #checkMoney(): void {
    const rows = this.#owner.entries.flatMap((_, at) => this.#owner.ledger.transaction(at + 1) ?? []);
    for (const number of pans) {
      const card = this.#owner.card(number);
      const own = rows.filter((row) => row.request.card === card.cardId);
      assert.equal(
        card.held,
        own.reduce((sum, row) => sum + row.held, 0n),
      );
      assert.equal(
        card.posted,
        own.reduce((sum, row) => sum + row.posted, 0n),
      );
      assert.ok(card.usageCount >= 0 && card.usageAmount >= 0n);
    }
    for (const row of rows)
      if (row.state === 'reversed' || row.state === 'expired') assert.equal(row.held + row.posted, 0n);
  }

  /** Each answered approval that was lost counts, or is listed with a reason that the log shows. */
  #checkOffers(): void {
    const { ledger } = this.#owner;
    for (const claim of this.#offers()) {
      if (claim.kind !== 'salvaged') continue;
      const entry = decodeBody(claim.body);
      if (entry.kind !== 'decision' || !isApproval(entry.responseCode) || entry.hold === '0') continue;
      const resolution = ledger.resolution(claim.group, claim.term, claim.index);
      const known = ledger.transactionByKey(entry.request.key);
      assert.ok(resolution !== undefined, 'every offer has its resolution');
      if (resolution.outcome === 'adopted') {
        assert.equal(known?.index, resolution.index);
        assert.equal(known.billed, resolution.reason === 'completed' ? 0n : BigInt(entry.hold));
      } else if (resolution.reason === 'decided') {
        assert.ok(known !== undefined && known.index !== resolution.index);
      } else if (resolution.reason === 'undelivered') {
        assert.ok(ledger.undeliveredAttempt(entry.attempt));
      } else {
        assert.equal(resolution.reason, 'reversed');
      }
    }
  }

  #follow(applies: number): void {
    const count = Math.round(this.#open.length * applies);
    for (const { index, body } of this.#open.splice(0, count)) {
      applyToLedger(this.#file, group, index, 1, decodeBody(body));
      this.#applied = index;
    }
    this.#overFile.settle(Math.round(this.#applied * applies));
  }

  /** Every row that claims can write, and every way to find it: the same as in memory. */
  #compare(other: LedgerReader): void {
    const indexes = this.#owner.entries.map((_, at) => at + 1);
    const cards = pans.map((number) => this.#owner.card(number).cardId);
    const standIns = attempts.flatMap((_, attempt) => [0, 1, 2, 3].map((stan) => `n3.2.${attempt}-${stan}`));
    const everything = (reader: LedgerReader): unknown => ({
      cards: cards.map((card) => reader.cardById(card)),
      transactions: indexes.map((index) => reader.transaction(index)),
      byKey: indexes.map((index) => reader.transactionByKey(reader.transaction(index)?.request.key ?? '')),
      reversals: cards.map((card) => indexes.map((index) => reader.reversalsOf(card, index))),
      repeats: indexes.map((index) => reader.repeatAttempts(index)),
      undelivered: attempts.map((attempt) => reader.undeliveredAttempt(attempt)),
      reported: [...reader.undeliveredAttempts(99)].sort(),
      resolutions: this.#offers().map(
        (claim) => claim.kind === 'salvaged' && reader.resolution(claim.group, claim.term, claim.index),
      ),
      standIns: standIns.map((attempt) => reader.standIn(attempt)),
      configuration: reader.lastConfigIndex(),
    });
    assert.deepEqual(everything(other), everything(this.#owner.ledger));
  }
}

test('whatever nodes bring, in any order and again: money is the sum of what stands, and all copies are the same', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }), (steps) => {
      const database = new Database(':memory:');
      try {
        new World(database).run(steps);
      } finally {
        database.close();
      }
    }),
    { numRuns: 100 },
  );
});
