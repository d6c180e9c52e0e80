import { groupId, type CardId } from '../../base/identifiers.ts';
import { tablesOf } from '../../compare/tables.ts';
import type { DecisionEntry, EntryBody, MovedRow, ReversalEntry, StandInEntry } from '../../store/entry.ts';
import { movedIndex } from '../../store/range-move.ts';
import { Violation } from './violation.ts';

/** A decided request in the books: what it holds and has posted now. */
export interface BookedTransaction {
  readonly index: number;
  readonly key: string;
  readonly mtiClass: string;
  readonly card: CardId | '';
  responseCode: string;
  authorizationCode: string;
  held: bigint;
  posted: bigint;
  state: 'declined' | 'recorded' | 'held' | 'completed' | 'posted' | 'reversed' | 'expired';
  /** What a completion took out of its hold. */
  restores: bigint;
  completes: number;
  /** Deliveries that were entered for it, and those of them that an edge has reported undelivered (R5). */
  readonly attempts: Set<string>;
  readonly undelivered: Set<string>;
}

/**
 * A group's log read a second way, apart from the product's fold: every hold is placed once and released once, and what
 * stands of each transaction adds up to the card's balances. Entries are given in order; what cannot be is thrown.
 */
export class Books {
  readonly transactions = new Map<number, BookedTransaction>();
  readonly byKey = new Map<string, BookedTransaction>();
  /** Keys of transactions by what became of them other than through their acquirer. */
  readonly resolved = {
    adopted: new Set<string>(),
    voided: new Set<string>(),
    undelivered: new Set<string>(),
    standIn: new Set<string>(),
    expired: new Set<string>(),
  };
  /** Cards of the group, and those that have left it, by which move. */
  readonly cards = new Set<CardId>();
  readonly gone = new Map<CardId, string>();
  /** What each move has taken out of these books, and what each has brought into them: a line for each transaction. */
  readonly left = new Map<string, readonly string[]>();
  readonly came = new Map<string, readonly string[]>();
  readonly #limits = new Map<CardId, bigint>();
  readonly #coming = new Map<CardId, string>();
  readonly #group: string;

  constructor(group: string) {
    this.#group = group;
  }

  balance(card: string): { readonly held: bigint; readonly posted: bigint } {
    let held = 0n;
    let posted = 0n;
    for (const transaction of this.transactions.values()) {
      if (transaction.card !== card) continue;
      held += transaction.held;
      posted += transaction.posted;
    }
    return { held, posted };
  }

  apply(index: number, term: number, body: EntryBody): void {
    switch (body.kind) {
      case 'decision':
        this.#decide(index, body);
        this.#isWithinLimit(index, body);
        return;
      case 'reversal':
        this.#reverse(index, body);
        return;
      case 'attempt':
        this.#at(index, body.transaction).attempts.add(body.attempt);
        return;
      case 'undelivered':
        this.#undelivered(index, body);
        return;
      case 'resolution':
        this.resolved[body.outcome].add(
          body.decision.kind === 'attempt' ? body.decision.key : body.decision.request.key,
        );
        if (body.outcome === 'voided') return;
        if (body.decision.kind === 'decision') this.#decide(index, body.decision);
        else if (body.decision.kind === 'reversal') this.#reverse(index, body.decision);
        else this.#at(index, body.decision.transaction).attempts.add(body.decision.attempt);
        return;
      case 'stand-in':
        this.#standIn(index, body);
        return;
      case 'expiry':
        for (const hold of body.holds) this.#expire(this.#at(index, hold));
        return;
      case 'cards':
        body.added.forEach(({ limit }, position) => {
          const card = `${this.#group}.${term}.${index}.${position}` as CardId;
          this.cards.add(card);
          this.#limits.set(card, BigInt(limit));
        });
        for (const change of body.changes)
          if (change.kind === 'set') this.#limits.set(change.card, BigInt(change.limit));
        return;
      case 'range-out':
        return;
      case 'range-leave':
        for (const card of body.cards) {
          if (!this.cards.delete(card)) throw new Violation(`${this.#group}: card ${card} leaves, and is not here`);
          this.gone.set(card, body.move);
        }
        if (body.last) this.left.set(body.move, this.#lines(this.gone, body.move));
        return;
      case 'range-rows':
        this.#take(index, body.move, body.rows);
        return;
      case 'range-in':
        this.came.set(body.move, this.#lines(this.#coming, body.move));
        for (const [card, move] of this.#coming) {
          if (move !== body.move) continue;
          this.#coming.delete(card);
          this.cards.add(card);
        }
        return;
      case 'no-op':
      case 'mark':
      case 'membership':
        return;
      case 'configuration':
        throw new Violation(`entry ${index} of group ${this.#group} is of kind ${body.kind}`);
    }
  }

  /** An approval of an edge's own: a transaction, or the fate of one that the log has already. */
  #standIn(index: number, { outcome, decision, transaction }: StandInEntry): void {
    this.resolved.standIn.add(decision.request.key);
    if (outcome === 'counted' && transaction === 0) {
      this.#decide(index, decision);
    } else if (outcome === 'counted') {
      const before = this.#at(index, transaction);
      if (before.held !== 0n || before.posted !== 0n) {
        throw new Violation(`${this.#group}: ${index} counts ${transaction} a second time`);
      }
      const { attempts, undelivered } = before;
      Object.assign(before, { ...this.#effectsOf(index, decision), attempts, undelivered });
      attempts.add(decision.attempt);
    } else if (outcome === 'same') {
      const before = this.#at(index, transaction);
      // What its only attempt was answered with is what a completion will name.
      const isUnheard = [...before.attempts].every((each) => each === decision.attempt);
      if (isUnheard) before.authorizationCode = decision.authorizationCode;
      before.attempts.add(decision.attempt);
    }
  }

  #decide(index: number, entry: DecisionEntry): void {
    const { request } = entry;
    this.#mustBeHere(request.card);
    if (this.byKey.has(request.key)) throw new Violation(`${this.#group}: ${request.key} is decided again at ${index}`);
    this.#add({
      index,
      key: request.key,
      mtiClass: request.mtiClass,
      card: request.card,
      ...this.#effectsOf(index, entry),
      attempts: new Set([entry.attempt]),
      undelivered: new Set(),
    });
  }

  #effectsOf(
    index: number,
    entry: DecisionEntry,
  ): Omit<BookedTransaction, 'index' | 'key' | 'mtiClass' | 'card' | 'attempts' | 'undelivered'> {
    let restores = 0n;
    if (entry.completes !== 0) {
      const hold = this.#at(index, entry.completes);
      // An expired hold is completed too: nothing of it is left to release.
      if (hold.state !== 'held' && hold.state !== 'expired') {
        throw new Violation(`${this.#group}: entry ${index} completes ${hold.index}, which is ${hold.state}`);
      }
      restores = hold.held;
      hold.held = 0n;
      hold.state = 'completed';
    }
    const held = BigInt(entry.hold);
    const posted = BigInt(entry.post);
    const declined = entry.responseCode !== '00' && entry.responseCode !== '10';
    if (declined && (held !== 0n || posted !== 0n))
      throw new Violation(`${this.#group}: ${index} declines and charges`);
    return {
      responseCode: entry.responseCode,
      authorizationCode: entry.authorizationCode,
      held,
      posted,
      state: declined ? 'declined' : held !== 0n ? 'held' : posted !== 0n ? 'posted' : 'recorded',
      restores,
      completes: entry.completes,
    };
  }

  #reverse(index: number, entry: ReversalEntry): void {
    const { request } = entry;
    this.#mustBeHere(request.card);
    if (this.byKey.has(request.key)) throw new Violation(`${this.#group}: ${request.key} is decided again at ${index}`);
    if (entry.original !== 0) {
      if (BigInt(entry.remaining) !== 0n) throw new Violation(`${this.#group}: ${index} reverses in part, unasked`);
      this.#release(this.#at(index, entry.original));
    }
    this.#add({
      index,
      key: request.key,
      mtiClass: request.mtiClass,
      card: request.card,
      responseCode: entry.responseCode,
      authorizationCode: '',
      held: 0n,
      posted: 0n,
      state: 'recorded',
      restores: 0n,
      completes: 0,
      attempts: new Set([entry.attempt]),
      undelivered: new Set(),
    });
  }

  #undelivered(index: number, entry: EntryBody & { kind: 'undelivered' }): void {
    if (entry.transaction === 0) return;
    const transaction = this.#at(index, entry.transaction);
    if (!transaction.attempts.has(entry.attempt)) {
      throw new Violation(`${this.#group}: ${index} reports an attempt at ${transaction.index} that was not entered`);
    }
    transaction.undelivered.add(entry.attempt);
    if (!entry.releases) return;
    const delivered = [...transaction.attempts].filter((attempt) => !transaction.undelivered.has(attempt));
    if (delivered.length > 0) {
      throw new Violation(
        `${this.#group}: ${index} takes back ${transaction.index}, which ${delivered.join(' and ')} may have got`,
      );
    }
    this.resolved.undelivered.add(transaction.key);
    this.#release(transaction);
  }

  /** Takes back what stands; a second time there is nothing left. */
  #release(transaction: BookedTransaction): void {
    this.#mustBeHere(transaction.card);
    if (transaction.state === 'held') {
      transaction.held = 0n;
      transaction.state = 'reversed';
    } else if (transaction.state === 'posted') {
      transaction.posted = 0n;
      transaction.state = 'reversed';
      const hold = this.transactions.get(transaction.completes);
      if (hold === undefined) return;
      hold.held = transaction.restores;
      hold.state = transaction.restores === 0n ? 'expired' : 'held';
    }
  }

  #expire(transaction: BookedTransaction): void {
    if (transaction.state !== 'held') return;
    this.#mustBeHere(transaction.card);
    transaction.held = 0n;
    transaction.state = 'expired';
    this.resolved.expired.add(transaction.key);
  }

  /** Rows of another group's books; what was left of the card from an earlier time here goes. */
  #take(index: number, move: string, rows: readonly MovedRow[]): void {
    let current: BookedTransaction | undefined;
    rows.forEach(([table, ...values], position) => {
      const columns = tablesOf(groupId('a')).find(({ name }) => name === table)?.columns ?? [];
      const of = (column: string): string => values[columns.indexOf(column)] ?? '';
      const card = of('card_id') as CardId;
      if (table === 'card') {
        if (this.cards.has(card)) throw new Violation(`${this.#group}: card ${card} comes, and is here already`);
        this.gone.delete(card);
        for (const before of [...this.transactions.values()].filter((each) => each.card === card)) {
          this.transactions.delete(before.index);
          this.byKey.delete(before.key);
        }
        this.#coming.set(card, move);
        this.#limits.set(card, BigInt(of('limit_minor')));
      } else if (table === 'card_transaction') {
        const isReversal = of('mti_class').startsWith('04');
        current = {
          index: Number(movedIndex(index, position)),
          key: of('request_key'),
          mtiClass: of('mti_class'),
          card,
          responseCode: of('response_code'),
          authorizationCode: of('authorization_code'),
          held: BigInt(of('held_minor')),
          posted: BigInt(of('posted_minor')),
          state: isReversal
            ? 'recorded'
            : ((of('state') === 'moved' ? 'held' : of('state')) as BookedTransaction['state']),
          restores: BigInt(of('restores_minor')),
          completes: isReversal ? 0 : (this.byKey.get(of('original_index'))?.index ?? 0),
          attempts: new Set([of('attempt')]),
          undelivered: new Set(),
        };
        this.#add(current);
      } else if (table === 'repeat_attempt' || table === 'stand_in') {
        if (table === 'repeat_attempt') current?.attempts.add(of('attempt'));
      } else if (table === 'undelivered_attempt') {
        current?.undelivered.add(of('attempt'));
      }
    });
  }

  #lines(cards: ReadonlyMap<CardId, string>, move: string): readonly string[] {
    return [...this.transactions.values()]
      .filter(({ card }) => card !== '' && cards.get(card) === move)
      .map(({ card, key, state, responseCode, authorizationCode, held, posted, restores, attempts, undelivered }) =>
        JSON.stringify([
          ...[card, key, state, responseCode, authorizationCode, String(held), String(posted), String(restores)],
          ...[[...attempts].sort(), [...undelivered].sort()],
        ]),
      )
      .sort();
  }

  /** A card that has left, or has not come yet, is another group's. */
  #mustBeHere(card: CardId | ''): void {
    if (card === '' || this.cards.has(card)) return;
    throw new Violation(`${this.#group}: card ${card} is decided here, and is not here`);
  }

  #add(transaction: BookedTransaction): void {
    this.transactions.set(transaction.index, transaction);
    this.byKey.set(transaction.key, transaction);
  }

  #at(by: number, index: number): BookedTransaction {
    const transaction = this.transactions.get(index);
    if (transaction === undefined)
      throw new Violation(`${this.#group}: entry ${by} refers to ${index}, a decision of nobody`);
    return transaction;
  }

  /** What the owner approved by its own rules was within what the card had left. */
  #isWithinLimit(index: number, entry: DecisionEntry): void {
    const { card, mtiClass } = entry.request;
    if (card === '' || entry.hold === '0' || mtiClass === '0120') return;
    const { held, posted } = this.balance(card);
    const limit = this.#limits.get(card);
    if (limit === undefined || held + posted > limit) {
      throw new Violation(
        `${this.#group}: ${index} approves ${entry.hold}, and ${held + posted} of ${limit ?? 0n} is used`,
      );
    }
  }
}

/**
 * The books of all groups together: each card is in one of them, and what has left one for another has come there as it
 * was.
 */
export class AllBooks {
  readonly byKey = new Map<string, BookedTransaction>();
  readonly resolved: Books['resolved'];
  /** Moves that have come to their end. */
  readonly moves: number;
  readonly #all: readonly Books[];

  constructor(all: readonly Books[]) {
    this.#all = all;
    const cards = new Map<CardId, number>();
    for (const books of all) {
      for (const card of books.cards) cards.set(card, (cards.get(card) ?? 0) + 1);
      for (const card of books.gone.keys()) cards.set(card, cards.get(card) ?? 0);
      for (const [key, booked] of books.byKey) {
        if (booked.card === '' || books.cards.has(booked.card)) this.byKey.set(key, booked);
      }
    }
    for (const [card, groups] of cards) if (groups !== 1) throw new Violation(`card ${card} is in ${groups} groups`);
    const left = new Map(all.flatMap((books) => [...books.left]));
    const came = new Map(all.flatMap((books) => [...books.came]));
    this.moves = came.size;
    for (const [move, lines] of came) {
      const before = left.get(move) ?? [];
      const at = lines.findIndex((line, index) => line !== before[index]);
      if (at === -1 && lines.length === before.length) continue;
      throw new Violation(`${move} has brought ${String(lines[at])} of ${String(before[at])}`);
    }
    const union = (how: keyof Books['resolved']): Set<string> =>
      new Set(all.flatMap((books) => [...books.resolved[how]]));
    this.resolved = {
      adopted: union('adopted'),
      voided: union('voided'),
      undelivered: union('undelivered'),
      standIn: union('standIn'),
      expired: union('expired'),
    };
  }

  balance(card: string): { readonly held: bigint; readonly posted: bigint } {
    const home = this.#all.find((books) => books.cards.has(card as CardId));
    return home?.balance(card) ?? { held: 0n, posted: 0n };
  }
}
