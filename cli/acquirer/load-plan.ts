import type { Clock } from '../../base/clock.ts';
import { assert } from '../../base/errors.ts';
import { Pan } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import type { AcquirerCard } from './cards.ts';
import { operationNames, operations } from './load-mix.ts';
import type { Mix, Operation } from './load-mix.ts';
import {
  acquiringInstitution,
  base36,
  nameAndLocation,
  originalDataElements,
  repeatOf,
  RrnCounter,
  textOf,
  transmissionDateAndTime,
  undecidedCodes,
} from './message-parts.ts';

/** One request of the load, as first sent. */
export interface PlannedRequest {
  /** 1, 2, 3 ... in the order of planning. */
  readonly sequence: number;
  readonly operation: Operation;
  readonly message: IsoMessage;
  readonly card: PlannedCard | undefined;
  /** The request that this one completes, reverses or repeats. */
  readonly original: PlannedRequest | undefined;
  /** What `learned` was told of it. */
  readonly learned: Learned | undefined;
}

export interface PlannedCard {
  /** Line of the card file; 0 for a card in no file. */
  readonly line: number;
  readonly masked: string;
  /** Clear: for DE 2 only. */
  readonly digits: string;
  readonly expiry: string;
  readonly currency: string;
}

/** What the acquirer learned of a request. `undecided`: no answer, or one that says that nobody decided. */
export type Learned =
  | { readonly kind: 'answered'; readonly responseCode: string; readonly authorizationCode: string }
  | { readonly kind: 'undecided' };

const poolSize = 10_000;

/**
 * What the load sends next: pure but for the injected clock (dates) and chance. One seed gives one sequence of
 * operations, cards and amounts, as far as the answers are the same.
 *
 * - Keys are unique: a terminal's STAN counts up (1,000,000 of them before it wraps, and DE 7 has moved on by then),
 *   RRNs carry the time of the run's start, terminals the seed.
 * - Two requests never race for the same money: only what has been answered is completed, reversed or repeated,
 *   an original has one dependent request in flight at most, and is left alone when a dependent's fate is unknown.
 * - An operation that has no original yet is replaced by a purchase and made up for when a purchase's turn comes, so
 *   the shares approach the mix.
 */
export class LoadPlan {
  readonly #random: Random;
  readonly #dates: Dates;
  readonly #cards: readonly PlannedCard[];
  readonly #known: ReadonlySet<string>;
  readonly #terminals: readonly TerminalState[];
  readonly #rrns: RrnCounter;
  readonly #draws: readonly { readonly operation: Operation; readonly upTo: number }[];
  readonly #totalWeight: number;
  /** How often a purchase went out in the operation's place. */
  readonly #owed = new Map<Operation, number>();
  #sequence = 0;

  readonly #holds: Pool;
  readonly #postings: Pool;
  readonly #completions: Pool;
  readonly #answered: Pool;

  constructor(options: {
    readonly cards: readonly AcquirerCard[];
    readonly mix: Mix;
    /** How many terminals there are; `next` is told which one asks. */
    readonly terminals: number;
    readonly seed: number;
    readonly random: Random;
    readonly clock: Clock;
  }) {
    const { cards, mix, terminals, seed, random, clock } = options;
    assert(cards.length > 0, 'a load has cards');
    this.#random = random;
    this.#dates = new Dates(clock);
    this.#cards = cards.map(({ line, pan, expiry, currency }) => ({
      line,
      masked: pan.masked(),
      digits: pan.reveal(),
      expiry,
      currency,
    }));
    this.#known = new Set(this.#cards.map((card) => card.digits));
    this.#terminals = Array.from({ length: terminals }, (_, index) => ({
      id: `L${base36(seed, 4)}${base36(index, 3)}`,
      merchant: `LOADMERCHANT${String(index % 1_000).padStart(3, '0')}`,
      stan: random.below(1_000_000),
    }));
    this.#rrns = new RrnCounter(clock.wallMs());
    let upTo = 0;
    this.#draws = operationNames
      .filter((operation) => (mix.get(operation) ?? 0) > 0)
      .map((operation) => ({ operation, upTo: (upTo += mix.get(operation) ?? 0) }));
    this.#totalWeight = upTo;
    this.#holds = new Pool(random);
    this.#postings = new Pool(random);
    this.#completions = new Pool(random);
    this.#answered = new Pool(random);
  }

  /** The next request, made at the terminal with this number. */
  next(terminal: number): PlannedRequest {
    const at = this.#terminals[terminal % this.#terminals.length];
    assert(at !== undefined, 'a load has terminals');
    const drawn = this.#draw();
    if (drawn === 'purchase') {
      return this.#payOwed() ?? this.#independent('purchase', at);
    }
    if (operations[drawn].needs === undefined) return this.#independent(drawn, at);
    const made = this.#dependent(drawn);
    if (made !== undefined) return made;
    this.#owed.set(drawn, (this.#owed.get(drawn) ?? 0) + 1);
    return this.#independent('purchase', at);
  }

  /** What became of `request`: until this call nothing refers to it. */
  learned(request: PlannedRequest, learned: Learned): void {
    assert(request instanceof Request, 'a request of this plan');
    const { original } = request;
    request.learned = learned;
    if (request.operation === 'repeat') {
      if (original !== undefined) original.repeating = false;
      return;
    }
    if (learned.kind === 'undecided' || undecidedCodes.has(learned.responseCode)) return;
    const approved = learned.responseCode === '00';
    if (request.operation !== 'echo' && request.operation !== 'inquiry') this.#answered.add(request);
    if (!approved) {
      // A declined dependent changed nothing, so its original could be used again; but a decline here is unexpected,
      // and whoever looks into it will want the original as it was.
      return;
    }
    switch (request.operation) {
      case 'purchase':
      case 'cash':
      case 'cashback':
        request.standing = 'hold';
        this.#holds.add(request);
        break;
      case 'financial':
      case 'refund':
      case 'advice':
        request.standing = 'posting';
        this.#postings.add(request);
        break;
      case 'completion':
        request.standing = 'completion';
        this.#completions.add(request);
        break;
      case 'completion-reversal':
        // The hold stands again. Its RRN is also the completion's, so only DE 90 can tell them apart.
        if (original?.original !== undefined) this.#holds.add(original.original);
        break;
      case 'partial-reversal':
        if (original !== undefined) (original.standing === 'hold' ? this.#holds : this.#postings).add(original);
        break;
      case 'reversal':
      case 'reversal-advice':
      case 'inquiry':
      case 'verification':
      case 'refund-authorization':
      case 'unknown-card':
      case 'echo':
        break;
    }
  }

  /** The 0420 with which an acquirer takes back a request that it got no answer to; undefined when it cannot matter. */
  reversalOfUnanswered(request: PlannedRequest): PlannedRequest | undefined {
    assert(request instanceof Request, 'a request of this plan');
    const { needs, mti } = operations[request.operation];
    const money = needs === undefined && (mti === '0100' || mti === '0200');
    if (!money || request.operation === 'inquiry' || request.operation === 'verification') return undefined;
    return this.#reversal('reversal-advice', request, 'original-data', undefined);
  }

  #draw(): Operation {
    const at = (this.#random.below(0x1_0000_0000) / 0x1_0000_0000) * this.#totalWeight;
    return this.#draws.find(({ upTo }) => at < upTo)?.operation ?? 'purchase';
  }

  #payOwed(): Request | undefined {
    for (const [operation, count] of this.#owed) {
      const made = count > 0 ? this.#dependent(operation) : undefined;
      if (made === undefined) continue;
      this.#owed.set(operation, count - 1);
      return made;
    }
    return undefined;
  }

  #independent(operation: Operation, terminal: TerminalState): Request {
    const { mti, processingCode } = operations[operation];
    if (operation === 'echo') {
      const fields = new Map<number, FieldValue>([
        [7, this.#dates.transmission()],
        [11, takeStan(terminal)],
        [70, '301'],
      ]);
      return this.#request(operation, { mti, fields }, terminal, undefined, undefined, 0);
    }
    const card = operation === 'unknown-card' ? this.#unknownCard() : this.#knownCard();
    const amount = operation === 'inquiry' || operation === 'verification' ? 0 : 100 + this.#random.below(2_901);
    const fields = this.#common(card, processingCode ?? '', amount, takeStan(terminal));
    fields.set(37, this.#rrns.take());
    setTerminal(fields, terminal, card.currency);
    if (operation === 'cashback') {
      const cash = Math.floor(amount / 2);
      fields.set(54, `0040${card.currency}D${String(cash).padStart(12, '0')}`);
    }
    return this.#request(operation, { mti, fields }, terminal, card, undefined, amount);
  }

  /** A request that refers to an earlier one, or undefined when none is fit for it. */
  #dependent(operation: Operation): Request | undefined {
    if (operation === 'repeat') return this.#repeat();
    const original = this.#originalFor(operation);
    if (original === undefined) return undefined;
    const firstTouch = !original.touched;
    original.touched = true;
    if (operation === 'completion') return this.#completion(original);
    const variants =
      firstTouch && operation !== 'completion-reversal' ? reversalVariants : (['original-data'] as const);
    const variant = variants[this.#random.below(variants.length)] ?? 'original-data';
    // A second partial reversal may name more than the first has left: that must raise nothing.
    const final = operation === 'partial-reversal' ? 1 + this.#random.below(original.amount - 1) : undefined;
    const made = this.#reversal(operation, original, variant, final);
    if (final !== undefined) original.remaining = Math.min(original.remaining, final);
    return made;
  }

  #originalFor(operation: Operation): Request | undefined {
    const { needs } = operations[operation];
    if (needs === 'completion') return this.#completions.take(isFree);
    const fits =
      operation === 'completion'
        ? (request: Request) => isFree(request) && !request.completed
        : operation === 'partial-reversal'
          ? (request: Request) => isFree(request) && request.remaining > 1
          : isFree;
    if (needs === 'hold') return this.#holds.take(fits);
    const both = this.#holds.size + this.#postings.size;
    const [first, second] =
      both > 0 && this.#random.below(both) < this.#holds.size
        ? [this.#holds, this.#postings]
        : [this.#postings, this.#holds];
    return first.take(fits) ?? second.take(fits);
  }

  #completion(hold: Request): Request | undefined {
    const { card, terminal } = hold;
    assert(card !== undefined, 'a hold is on a card');
    // Some complete for less, some for a little more (tips), most for what was authorized.
    const share = this.#random.below(10);
    const factor = share < 2 ? 0.5 : share === 9 ? 1.15 : 1;
    const amount = Math.max(1, Math.round(hold.remaining * factor));
    const authorizationCode = hold.learned?.kind === 'answered' ? hold.learned.authorizationCode : '';
    const byAuthorizationCode = authorizationCode !== '' && this.#random.below(5) === 0;
    const fields = this.#common(card, textOf(hold.message, 3), amount, takeStan(terminal));
    fields.set(37, byAuthorizationCode ? this.#rrns.take() : textOf(hold.message, 37));
    if (byAuthorizationCode || this.#random.below(2) === 0) setAuthorizationCode(fields, authorizationCode);
    setTerminal(fields, terminal, card.currency);
    hold.completed = true;
    return this.#request('completion', { mti: operations.completion.mti, fields }, terminal, card, hold, amount);
  }

  #reversal(
    operation: Operation,
    original: Request,
    variant: (typeof reversalVariants)[number],
    final: number | undefined,
  ): Request {
    const { card, terminal } = original;
    assert(card !== undefined, 'what is reversed is on a card');
    const stan = variant === 'stan' ? textOf(original.message, 11) : takeStan(terminal);
    const fields = this.#common(card, textOf(original.message, 3), original.amount, stan);
    if (variant !== 'stan') fields.set(37, textOf(original.message, 37));
    setTerminal(fields, terminal, card.currency);
    if (variant === 'original-data') fields.set(90, originalDataElements(original.message));
    if (final !== undefined) fields.set(95, String(final).padStart(12, '0').padEnd(42, '0'));
    return this.#request(
      operation,
      { mti: operations[operation].mti, fields },
      terminal,
      card,
      original,
      original.amount,
    );
  }

  #repeat(): Request | undefined {
    const original = this.#answered.take((request) => isFree(request) && !request.touched);
    if (original === undefined) return undefined;
    original.repeating = true;
    const { message, terminal, card, amount } = original;
    return this.#request(
      'repeat',
      { mti: repeatOf(message.mti), fields: message.fields },
      terminal,
      card,
      original,
      amount,
    );
  }

  /** DE 2 to 32, which all messages of a card have, in the order in which the codec writes them. */
  #common(card: PlannedCard, processingCode: string, amount: number, stan: string): Map<number, FieldValue> {
    const transmission = this.#dates.transmission();
    return new Map<number, FieldValue>()
      .set(2, card.digits)
      .set(3, processingCode)
      .set(4, String(amount).padStart(12, '0'))
      .set(7, transmission)
      .set(11, stan)
      .set(12, transmission.slice(4))
      .set(13, transmission.slice(0, 4))
      .set(14, card.expiry)
      .set(18, processingCode.startsWith('01') ? '6011' : '5999')
      .set(22, '051')
      .set(25, '00')
      .set(32, acquiringInstitution);
  }

  #request(
    operation: Operation,
    message: IsoMessage,
    terminal: TerminalState,
    card: PlannedCard | undefined,
    original: Request | undefined,
    amount: number,
  ): Request {
    this.#sequence += 1;
    return new Request(this.#sequence, operation, message, terminal, card, original, amount);
  }

  #knownCard(): PlannedCard {
    const card = this.#cards[this.#random.below(this.#cards.length)];
    assert(card !== undefined, 'a load has cards');
    return card;
  }

  /** A well-formed number in no file: half of them in a range that the file has, half with an issuer nobody has. */
  #unknownCard(): PlannedCard {
    const like = this.#knownCard();
    const prefix = this.#random.below(2) === 0 ? like.digits.slice(0, 8) : '99099999';
    for (;;) {
      let digits = prefix;
      while (digits.length < like.digits.length - 1) digits += String(this.#random.below(10));
      const pan = withCheckDigit(digits);
      if (this.#known.has(pan.reveal())) continue;
      return { ...like, line: 0, masked: pan.masked(), digits: pan.reveal() };
    }
  }
}

const reversalVariants = ['original-data', 'rrn', 'stan'] as const;

interface TerminalState {
  /** DE 41 */ readonly id: string;
  /** DE 42 */ readonly merchant: string;
  stan: number;
}

class Request implements PlannedRequest {
  readonly sequence: number;
  readonly operation: Operation;
  readonly message: IsoMessage;
  readonly terminal: TerminalState;
  readonly card: PlannedCard | undefined;
  readonly original: Request | undefined;
  readonly amount: number;
  /** What of the amount has not been reversed. */
  remaining: number;
  standing: 'none' | 'hold' | 'posting' | 'completion' = 'none';
  learned: Learned | undefined;
  /** Something has referred to it: its stored answer may have changed, other requests share its RRN. */
  touched = false;
  completed = false;
  repeating = false;

  constructor(
    sequence: number,
    operation: Operation,
    message: IsoMessage,
    terminal: TerminalState,
    card: PlannedCard | undefined,
    original: Request | undefined,
    amount: number,
  ) {
    this.sequence = sequence;
    this.operation = operation;
    this.message = message;
    this.terminal = terminal;
    this.card = card;
    this.original = original;
    this.amount = amount;
    this.remaining = amount;
  }
}

function isFree(request: Request): boolean {
  return !request.repeating;
}

/** Bounded: when it is full, a new member takes the place of a random one. */
class Pool {
  readonly #random: Random;
  readonly #members: Request[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  get size(): number {
    return this.#members.length;
  }

  add(request: Request): void {
    if (this.#members.length < poolSize) this.#members.push(request);
    else this.#members[this.#random.below(poolSize)] = request;
  }

  /** Takes out a random member that fits; looks at a few only. Members that do not fit stay. */
  take(fits: (request: Request) => boolean): Request | undefined {
    for (let look = 0; look < 8 && this.#members.length > 0; look++) {
      const index = this.#random.below(this.#members.length);
      const member = this.#members[index];
      const last = this.#members.at(-1);
      if (member === undefined || last === undefined || !fits(member)) continue;
      this.#members[index] = last;
      this.#members.pop();
      return member;
    }
    return undefined;
  }
}

/** DE 7, made once for each second. */
class Dates {
  readonly #clock: Clock;
  #second = -1;
  #text = '';

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  transmission(): string {
    const second = Math.floor(this.#clock.wallMs() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#text = transmissionDateAndTime(second * 1_000);
    }
    return this.#text;
  }
}

function takeStan(terminal: TerminalState): string {
  terminal.stan = (terminal.stan + 1) % 1_000_000;
  return String(terminal.stan).padStart(6, '0');
}

function setAuthorizationCode(fields: Map<number, FieldValue>, authorizationCode: string): void {
  if (authorizationCode !== '') fields.set(38, authorizationCode);
}

function setTerminal(fields: Map<number, FieldValue>, terminal: TerminalState, currency: string): void {
  fields.set(41, terminal.id);
  fields.set(42, terminal.merchant);
  fields.set(43, nameAndLocation('QUADRANT LOAD'));
  fields.set(49, currency);
}

function withCheckDigit(digits: string): Pan {
  for (let check = 0; check < 10; check++) {
    const pan = Pan.parse(`${digits}${check}`);
    if (pan?.hasValidCheckDigit() === true) return pan;
  }
  throw new Error('broken invariant: one of ten check digits fits');
}
