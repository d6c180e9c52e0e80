import type { CardKeys } from '../../base/card-keys.ts';
import { Pan } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import type { GroupOwner } from '../../switch/owner.ts';
import { Violation } from './checks.ts';
import type { SwitchProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';

export const quorumPrefix = '400001';
export const localPrefix = '400002';

/** One purchase as its acquirer's journal has it. */
interface Purchase {
  readonly number: number;
  readonly pan: string;
  readonly fields: ReadonlyMap<number, FieldValue>;
  tries: number;
  /** DE 38 of the approval that was received. */
  approval: string | undefined;
  reversal: 'none' | 'sent' | 'confirmed';
}

const cardsInPlay = 12;
/** No answer for this long: the acquirer asks again, at another node. */
const patienceMs = 2_000;

/**
 * Acquirers: they ask at any node that is up, ask again elsewhere with the same key when no answer comes, reverse some
 * of what was approved, and keep a journal that the copies are held against in the end.
 */
export class Acquirers {
  readonly counts = { requests: 0, repeats: 0, approvals: 0, reversals: 0, declines: 0, unavailable: 0 };
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #cardKeys: CardKeys;
  readonly #processes: readonly SwitchProcess[];
  readonly #localLasts: boolean;
  readonly #pans: readonly string[];
  readonly #purchases: Purchase[] = [];
  #stopped = false;

  /** `localLasts`: `local` approvals are never lost, as they are not while one node leads for good (R9 is not here yet). */
  constructor(
    scheduler: Scheduler,
    random: Random,
    cardKeys: CardKeys,
    processes: readonly SwitchProcess[],
    localLasts: boolean,
  ) {
    this.#localLasts = localLasts;
    this.#scheduler = scheduler;
    this.#random = random;
    this.#cardKeys = cardKeys;
    this.#processes = processes;
    this.#pans = Array.from({ length: cardsInPlay }, (_, index) =>
      withCheckDigit(`${index % 3 === 0 ? localPrefix : quorumPrefix}${String(index).padStart(9, '0')}`),
    );
  }

  /** A purchase about every `everyMs`, until `stop`. */
  start(everyMs: number): void {
    if (this.#stopped) return;
    const purchase = this.#next();
    this.#ask(purchase);
    if (this.#random.below(6) === 0) {
      // An impatient terminal asks again, elsewhere, while its first request may still be under way.
      this.#scheduler.after(this.#random.below(150), () => {
        if (purchase.approval === undefined && !this.#stopped) this.#ask(purchase);
      });
    }
    this.#scheduler.after(this.#random.below(2 * everyMs * 1000) / 1000, () => {
      this.start(everyMs);
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  /** The issuer's file: entered at the owner as soon as there is one, and again when it got lost. */
  enterCards(owner: GroupOwner, at: number): void {
    const pans = this.#pans.map((digits) => Pan.parse(digits)).filter((pan) => pan !== undefined);
    const [first] = pans;
    if (!owner.ready || first === undefined) return;
    if (owner.ledger.cardByPanHash(this.#cardKeys.hash(first)) !== undefined) return;
    owner.append({
      kind: 'cards',
      at,
      by: 'simulation',
      added: pans.map((pan) => ({
        panHash: this.#cardKeys.hash(pan),
        panKeyVersion: 1,
        panCipher: this.#cardKeys.encrypt(pan, this.#random),
        expiry: '3012',
        status: 'active',
        currency: '978',
        limit: '100000000',
      })),
      changed: [],
    });
  }

  /** Holds a copy against the journal. */
  checkCopy(who: string, reader: GroupReader): void {
    const rows = reader.database
      .prepare<[], { stan: string; authorization_code: string; response_code: string; state: string }>(
        "SELECT stan, authorization_code, response_code, state FROM card_transaction WHERE mti_class = '0100'",
      )
      .all();
    const byStan = new Map(rows.map((row) => [row.stan, row]));
    if (byStan.size !== rows.length) throw new Violation(`${who} has a purchase twice`);
    for (const { number, pan, approval, reversal } of this.#purchases) {
      if (approval === undefined || !this.#lasts(pan)) continue;
      const row = byStan.get(stanOf(number));
      if (row === undefined) throw new Violation(`${who} has lost purchase ${number}, which was approved`);
      if (row.authorization_code !== approval) throw new Violation(`${who} approved purchase ${number} another way`);
      if (reversal === 'none' && row.state !== 'held')
        throw new Violation(`purchase ${number} is ${row.state} at ${who}`);
      if (reversal === 'confirmed' && row.state !== 'reversed') {
        throw new Violation(`the hold of purchase ${number} stands at ${who}, after its reversal was confirmed`);
      }
    }
    const wrong = reader.database
      .prepare<[], { count: number }>(
        `SELECT count(*) AS count FROM card WHERE held_minor !=
           (SELECT coalesce(sum(held_minor), 0) FROM card_transaction t WHERE t.card_id = card.card_id)`,
      )
      .get();
    if (wrong?.count !== 0) throw new Violation(`balances at ${who} are not the sum of its transactions`);
  }

  #lasts(pan: string): boolean {
    return this.#localLasts || !pan.startsWith(localPrefix);
  }

  #next(): Purchase {
    const number = this.#purchases.length + 1;
    const pan = this.#pans[this.#random.below(this.#pans.length)] ?? '';
    const fields = new Map<number, FieldValue>([
      [2, pan],
      [3, '000000'],
      [4, String(100 + this.#random.below(5_000)).padStart(12, '0')],
      [7, '0301120000'],
      [11, stanOf(number)],
      [32, '12345'],
      [37, stanOf(number).padStart(12, '0')],
      [41, 'TERM0001'],
      [42, 'MERCHANT0000001'],
      [49, '978'],
    ]);
    const purchase: Purchase = { number, pan, fields, tries: 0, approval: undefined, reversal: 'none' };
    this.#purchases.push(purchase);
    return purchase;
  }

  #ask(purchase: Purchase): void {
    if (purchase.tries === 0) this.counts.requests += 1;
    else this.counts.repeats += 1;
    const mti = purchase.tries === 0 ? '0100' : '0101';
    purchase.tries += 1;
    this.#exchange({ mti, fields: purchase.fields }, (answer) => {
      const code = answer?.fields.get(39);
      if (code === '00') this.#approved(purchase, textOf(answer, 38));
      else if (code === undefined || code === '91') this.#unavailable(purchase);
      else this.counts.declines += 1;
    });
  }

  #approved(purchase: Purchase, approval: string): void {
    const changed = purchase.approval !== undefined && purchase.approval !== approval;
    if (changed && purchase.reversal === 'none' && this.#lasts(purchase.pan)) {
      throw new Violation(`purchase ${purchase.number} was approved as ${purchase.approval} and as ${approval}`);
    }
    this.counts.approvals += 1;
    purchase.approval = approval;
    if (this.#random.below(6) !== 0) {
      // A terminal asks again though it was answered: it gets the same answer.
      if (purchase.tries === 1 && this.#random.below(8) === 0) this.#ask(purchase);
      return;
    }
    if (purchase.reversal !== 'none' || purchase.tries > 1) return;
    purchase.reversal = 'sent';
    this.counts.reversals += 1;
    const fields = new Map(purchase.fields).set(7, '0301120001');
    this.#exchange({ mti: '0400', fields }, (answer) => {
      if (answer?.fields.get(39) === '00') purchase.reversal = 'confirmed';
    });
  }

  #unavailable(purchase: Purchase): void {
    this.counts.unavailable += 1;
    if (purchase.tries >= 4 || this.#stopped) return;
    this.#scheduler.after(50 + this.#random.below(200), () => {
      if (!this.#stopped) this.#ask(purchase);
    });
  }

  /** Sends to a node that is up; `done` is called once, with undefined when nothing came in time. */
  #exchange(message: IsoMessage, done: (answer: IsoMessage | undefined) => void): void {
    const up = this.#processes.filter((process) => process.running !== undefined);
    const process = up[this.#random.below(Math.max(1, up.length))];
    let open = true;
    const finish = (answer: IsoMessage | undefined): void => {
      if (!open) return;
      open = false;
      this.#scheduler.trace('acquirer', `${message.mti} ${textOf(message, 11)}: ${textOf(answer, 39)}`);
      done(answer);
    };
    process?.act(({ edge }) => {
      edge.handle(message, 'pos', (answer) => {
        process.answering();
        // On the wire: what a process wrote before it crashed arrives.
        this.#scheduler.after(0.5, () => {
          finish(answer);
        });
      });
    });
    this.#scheduler.after(patienceMs, () => {
      finish(undefined);
    });
  }
}

function textOf(message: IsoMessage | undefined, field: number): string {
  const value = message?.fields.get(field);
  return typeof value === 'string' ? value : 'nothing';
}

function stanOf(number: number): string {
  return String(number).padStart(6, '0');
}

function withCheckDigit(digits: string): string {
  let sum = 0;
  for (let at = 0; at < digits.length; at++) {
    const digit = Number(digits[digits.length - 1 - at]);
    const doubled = at % 2 === 0 ? digit * 2 : digit;
    sum += doubled > 9 ? doubled - 9 : doubled;
  }
  return `${digits}${(10 - (sum % 10)) % 10}`;
}
