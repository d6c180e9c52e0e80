import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { Pan } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import { duplicateKey, readRequest } from '../../switch/request.ts';
import { answersTo, approvalsOf, approved, inoperative, isDeclined, wasSent } from './journal.ts';
import type { Exchange, Promised, Purchase } from './journal.ts';
import type { Scheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

/** A node as acquirers see it: a port that takes messages while its process is up. */
export interface AcquirerPort {
  readonly id: NodeId;
  readonly up: boolean;
  handle(message: IsoMessage, link: string, respond: (answer: IsoMessage) => void): void;
}

export interface SimulatedCard {
  readonly pan: string;
  readonly group: GroupId;
  readonly promise: Promised;
  /** Minor units. Some cards have little, so that deciding on an old balance shows. */
  readonly limit: bigint;
}

/** No answer for this long: the acquirer takes it for lost. Longer than the links' deadlines. */
const patienceMs = 3_500;
const triesInARow = 4;
export const links = ['pos', 'atm'] as const;

/** Answers that an owner may give, besides 91 from an edge; any other is a finding. */
const possibleAnswers: Readonly<Record<Exchange['kind'], ReadonlySet<string>>> = {
  request: new Set([approved, '51', '94']),
  reversal: new Set([approved, '25']),
  completion: new Set([approved]),
};

/**
 * Acquirers: they ask at any node that is up, ask again elsewhere with the same key when no answer comes, reverse and
 * complete some of what was approved, give some up, and keep a journal that the copies are held against in the end.
 * What can be judged from the journal alone is judged at once.
 */
export class Acquirers {
  readonly counts = {
    requests: 0,
    repeats: 0,
    approvals: 0,
    reversals: 0,
    completions: 0,
    declines: 0,
    unavailable: 0,
  };
  readonly purchases: Purchase[] = [];
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #ports: readonly AcquirerPort[];
  readonly #cards: readonly SimulatedCard[];
  /** What acquirers are bent on: sent again, after pauses, until it is answered. */
  readonly #standing = new Map<Purchase, Exchange['kind']>();
  #open = 0;
  #stopped = false;

  constructor(scheduler: Scheduler, random: Random, ports: readonly AcquirerPort[], cards: readonly SimulatedCard[]) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#ports = ports;
    this.#cards = cards;
  }

  /** Purchases about every `everyMs` until `stop`: some alone, most in bursts, where one card may be asked for twice. */
  start(everyMs: number): void {
    if (this.#stopped) return;
    const burst = this.#random.below(3) === 0 ? 1 : 4 + this.#random.below(16);
    const card = this.#anyCard();
    for (let count = 0; count < burst; count++) {
      const each = this.#random.below(4) === 0 ? card : this.#anyCard();
      this.#scheduler.after(count === 0 ? 0 : this.#random.below(30), () => {
        this.#buy(each);
      });
    }
    this.#scheduler.after((burst * this.#random.below(2 * everyMs * 1000)) / 1000, () => {
      this.start(everyMs);
    });
  }

  /** No new purchases; what was begun is brought to an end, but for what is given up. */
  stop(): void {
    this.#stopped = true;
    for (const purchase of this.purchases) {
      if (!this.#isUndecided(purchase) || this.#standing.has(purchase)) continue;
      const wish = this.#random.below(3);
      if (wish === 0) this.#insist(purchase, 'request');
      if (wish === 1) this.#insist(purchase, 'reversal');
    }
  }

  /** Nothing is under way, and nobody insists on anything. */
  get settled(): boolean {
    return this.#stopped && this.#open === 0 && this.#standing.size === 0;
  }

  /** One purchase more, which comes to this node first. */
  buyAt(node: NodeId): void {
    if (!this.#stopped) this.#buy(this.#anyCard(), node);
  }

  #isUndecided(purchase: Purchase): boolean {
    return approvalsOf(purchase).length === 0 && !isDeclined(purchase) && !wasSent(purchase, 'reversal');
  }

  #anyCard(): SimulatedCard {
    const card = this.#cards[this.#random.below(this.#cards.length)];
    if (card === undefined) throw new Error('there are cards');
    return card;
  }

  #buy(card: SimulatedCard, node?: NodeId): void {
    const amount = BigInt(100 + this.#random.below(5_000));
    const purchase: Purchase = {
      number: this.purchases.length + 1,
      pan: card.pan,
      group: card.group,
      promise: card.promise,
      amount,
      completedAmount: (amount * BigInt(50 + this.#random.below(70))) / 100n + 1n,
      exchanges: [],
    };
    this.purchases.push(purchase);
    this.#ask(purchase, triesInARow, node);
    if (this.#random.below(8) !== 0) return;
    // An impatient terminal asks again, elsewhere, while its first request may still be under way.
    this.#scheduler.after(this.#random.below(400), () => {
      if (!this.#stopped && approvalsOf(purchase).length === 0) this.#ask(purchase, 1);
    });
  }

  /** The request, for the first time or again; when nothing comes of it, again up to `tries` times in all. */
  #ask(purchase: Purchase, tries: number, node?: NodeId): void {
    const ended = (exchange: Exchange): void => {
      const code = exchange.answer?.responseCode;
      if (code === approved) this.#afterApproval(purchase);
      else if (code === undefined || code === inoperative) this.#askLater(purchase, tries - 1);
    };
    this.#send(purchase, 'request', ended, node);
  }

  #askLater(purchase: Purchase, tries: number): void {
    if (!this.#isUndecided(purchase) || this.#standing.has(purchase)) return;
    if (tries > 0 && !this.#stopped) {
      this.#scheduler.after(50 + this.#random.below(1_500), () => {
        const isOpen = this.#isUndecided(purchase) && !this.#standing.has(purchase);
        if (isOpen && !this.#stopped) this.#ask(purchase, tries);
      });
    } else if (this.#random.below(3) === 0) {
      this.#insist(purchase, 'reversal');
    }
  }

  #afterApproval(purchase: Purchase): void {
    if (this.#standing.get(purchase) === 'request') this.#standing.delete(purchase);
    if (this.#standing.has(purchase) || wasSent(purchase, 'reversal') || wasSent(purchase, 'completion')) return;
    const wish = this.#random.below(8);
    const waitMs = this.#random.below(this.#random.below(2) === 0 ? 20 : 4_000);
    // A terminal that asks again though it was answered gets the same answer; others take it back, or complete it.
    this.#scheduler.after(waitMs, () => {
      if (this.#stopped) return;
      if (wish === 0) this.#ask(purchase, 1);
      if (this.#standing.has(purchase) || wasSent(purchase, 'reversal') || wasSent(purchase, 'completion')) return;
      if (wish === 1 || wish === 2) this.#insist(purchase, 'reversal');
      if (wish === 3) this.#insist(purchase, 'completion');
    });
  }

  /** Sends until it is answered. */
  #insist(purchase: Purchase, kind: Exchange['kind']): void {
    this.#standing.set(purchase, kind);
    const again = (): void => {
      if (this.#standing.get(purchase) !== kind) return;
      this.#send(purchase, kind, (exchange) => {
        const code = exchange.answer?.responseCode;
        if (code === undefined || code === inoperative) {
          this.#scheduler.after(100 + this.#random.below(900), again);
          return;
        }
        if (this.#standing.get(purchase) === kind) this.#standing.delete(purchase);
        // What was reversed may be asked for again, and is not approved.
        if (kind === 'reversal' && this.#random.below(4) === 0 && !this.#stopped) this.#ask(purchase, 1);
        if (kind === 'request' && code === approved) this.#afterApproval(purchase);
      });
    };
    again();
  }

  /** Sends a message to a node that is up, or to this one; `done` is called once, also when nothing came in time. */
  #send(purchase: Purchase, kind: Exchange['kind'], done: (exchange: Exchange) => void, node?: NodeId): void {
    const up = this.#ports.filter((port) => port.up && (node === undefined || port.id === node));
    const port = up[this.#random.below(Math.max(1, up.length))];
    const message = messageOf(purchase, kind);
    this.#count(purchase, kind);
    const exchange: Exchange = {
      kind,
      key: keyOf(message, linkOf(purchase)),
      node: port?.id ?? ('none' as NodeId),
      sentMs: this.#scheduler.nowMs,
      answer: undefined,
      over: false,
    };
    purchase.exchanges.push(exchange);
    this.#open += 1;
    const finish = (answer: IsoMessage | undefined): void => {
      if (exchange.over) return;
      exchange.over = true;
      this.#open -= 1;
      const responseCode = textOf(answer, 39);
      this.#scheduler.trace('acquirer', `${message.mti} ${textOf(message, 11)} ${exchange.node}: ${responseCode}`);
      if (answer !== undefined) {
        exchange.answer = { atMs: this.#scheduler.nowMs, responseCode, authorizationCode: textOf(answer, 38) };
        this.#judge(purchase, exchange, responseCode);
      }
      done(exchange);
    };
    port?.handle(message, linkOf(purchase), (answer) => {
      // On the wire: what a process wrote before it crashed arrives.
      this.#scheduler.after(0.5, () => {
        finish(answer);
      });
    });
    this.#scheduler.after(port === undefined ? 50 : patienceMs, () => {
      finish(undefined);
    });
  }

  #count(purchase: Purchase, kind: Exchange['kind']): void {
    if (kind === 'reversal') this.counts.reversals += 1;
    else if (kind === 'completion') this.counts.completions += 1;
    else if (wasSent(purchase, 'request')) this.counts.repeats += 1;
    else this.counts.requests += 1;
  }

  /** What one answer says, against everything that its acquirer was told before it asked. */
  #judge(purchase: Purchase, exchange: Exchange, responseCode: string): void {
    if (responseCode === inoperative) {
      this.counts.unavailable += 1;
      return;
    }
    const { number, promise } = purchase;
    if (!possibleAnswers[exchange.kind].has(responseCode)) {
      throw new Violation(`purchase ${number}: its ${exchange.kind} was answered with ${responseCode}`);
    }
    if (exchange.kind === 'request') {
      if (responseCode === approved) this.counts.approvals += 1;
      else this.counts.declines += 1;
    }
    // What follows is promised for `quorum`; a `local` approval may be lost with its disk, and is then listed.
    if (promise === 'quorum') judgeQuorum(purchase, exchange, responseCode);
  }
}

/** What holds for a `quorum` range from the first answer on, whatever fails: throws when this answer breaks it. */
export function judgeQuorum(purchase: Purchase, exchange: Exchange, responseCode: string): void {
  const { number } = purchase;
  const before = (kind: Exchange['kind']): readonly string[] =>
    answersTo(purchase, kind)
      .filter((answer) => answer !== exchange.answer && answer.atMs <= exchange.sentMs)
      .map((answer) => answer.responseCode);
  const decided = before('request').filter((code) => code !== inoperative);
  if (exchange.kind === 'request') {
    const approvals = approvalsOf(purchase);
    if (approvals.length > 1) throw new Violation(`purchase ${number} was approved as ${approvals.join(' and as ')}`);
    if (responseCode === approved && before('reversal').some((code) => code !== inoperative)) {
      throw new Violation(`purchase ${number} was approved after it was reversed`);
    }
    const other = decided.find((code) => code !== responseCode);
    // Between the two it may have been taken back, which its acquirer asked for; otherwise a decision stands.
    if (other !== undefined && !(other === approved && wasSent(purchase, 'reversal'))) {
      throw new Violation(`purchase ${number} was answered with ${other}, and its repeat with ${responseCode}`);
    }
  }
  if (exchange.kind === 'reversal' && responseCode !== approved && decided.includes(approved)) {
    throw new Violation(`purchase ${number} was approved, and its reversal found nothing`);
  }
  if (exchange.kind === 'reversal' && before('reversal').some((code) => ![inoperative, responseCode].includes(code))) {
    throw new Violation(`the reversal of purchase ${number} was answered in two ways`);
  }
}

function linkOf(purchase: Purchase): string {
  return links[purchase.number % links.length] ?? links[0];
}

function messageOf(purchase: Purchase, kind: Exchange['kind']): IsoMessage {
  const { number, pan, amount, completedAmount } = purchase;
  const repeat = wasSent(purchase, kind);
  const stan = String(number).padStart(6, '0');
  const fields = new Map<number, FieldValue>([
    [2, pan],
    [3, '000000'],
    [4, (kind === 'completion' ? completedAmount : amount).toString().padStart(12, '0')],
    [7, kind === 'request' ? '0301120000' : '0301120001'],
    [11, stan],
    [32, '12345'],
    [37, stan.padStart(12, '0')],
    [41, `TERM000${number % 4}`],
    [42, 'MERCHANT0000001'],
    [49, '978'],
  ]);
  if (kind === 'request') return { mti: repeat ? '0101' : '0100', fields };
  if (kind === 'completion') return { mti: repeat ? '0221' : '0220', fields };
  // What was never answered is reversed by advice, which is acknowledged even when there is nothing to reverse.
  const advice = approvalsOf(purchase).length === 0;
  const first = purchase.exchanges.find((exchange) => exchange.kind === 'reversal');
  const mti = first === undefined ? (advice ? '0420' : '0400') : first.key.endsWith('0420') ? '0421' : '0401';
  return { mti, fields };
}

function keyOf(message: IsoMessage, link: string): string {
  const read = readRequest(message, link, '2026-03-01');
  if (read.kind === 'refused') throw new Error(`acquirers send what can be read: ${read.reason}`);
  return duplicateKey(read.request);
}

function textOf(message: IsoMessage | undefined, field: number): string {
  const value = message?.fields.get(field);
  return typeof value === 'string' ? value : 'nothing';
}

/** Cards of a range, their numbers with a right check digit. */
export function cardNumbers(prefix: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => withCheckDigit(`${prefix}${String(index).padStart(9, '0')}`));
}

function withCheckDigit(digits: string): string {
  let sum = 0;
  for (let at = 0; at < digits.length; at++) {
    const digit = Number(digits[digits.length - 1 - at]);
    const doubled = at % 2 === 0 ? digit * 2 : digit;
    sum += doubled > 9 ? doubled - 9 : doubled;
  }
  const number = `${digits}${(10 - (sum % 10)) % 10}`;
  if (Pan.parse(number) === undefined) throw new Error('a card number has a right check digit');
  return number;
}
