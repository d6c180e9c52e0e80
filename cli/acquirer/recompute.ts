import { assert } from '../../base/errors.ts';
import type { MinorUnits } from '../../base/money.ts';
import type { AcquirerCard } from './cards.ts';
import type { AnswerLine, JournalFields, JournalLine, RequestLine } from './journal.ts';

/**
 * What the switch must hold, computed from what the acquirer sent and got. Written from domain.md's rules alone, and
 * not as the switch does it: nothing is applied in order. Each request is a fact with an outcome, and the money of a
 * card is a sum over facts:
 *
 *   posting     its amount, lowered to the smallest final amount of its reversals
 *   hold        the same, or nothing while a completion of it stands
 *   completion  a posting, which stands until it is wholly reversed
 *
 * That is right in any order in which dependent requests do not overlap, which is how the load sends them.
 *
 * A request without an answer may or may not have taken effect: it widens the range that a balance can be in, until a
 * reversal of it is answered. The point values count such requests as if they had never been sent.
 * It knows nothing of limits, expiry of holds, or the currency conversion of DE 6 and 51.
 */
export interface ExpectedBalance {
  readonly held: MinorUnits;
  readonly posted: MinorUnits;
  /** Whether any other balance is possible: then the ranges, lowest to highest, say which. */
  readonly uncertain: boolean;
  readonly heldRange: readonly [MinorUnits, MinorUnits];
  readonly postedRange: readonly [MinorUnits, MinorUnits];
  /** Why it is uncertain, without card data. */
  readonly reasons: readonly string[];
}

/** A request that was approved: it must be in the log of its card's group, as approved, exactly once. */
export interface Approval {
  /** link|DE 32|DE 41|DE 11|DE 7|MTI class */
  readonly key: string;
  readonly id: string;
  readonly mtiClass: string;
  readonly cardLine: number;
  readonly responseCode: string;
  readonly authorizationCode: string;
  readonly rrn: string;
  readonly amount: MinorUnits;
}

/** `approvedTwice`: with different DE 38; else it was approved and declined. */
export interface Contradiction {
  readonly id: string;
  readonly cardLine: number;
  readonly approvedTwice: boolean;
}

export interface RecomputeOptions {
  /** The link's id in the configuration, first part of every duplicate key. */
  readonly link?: string;
  /**
   * DE 39 of answers after which it is not known what was decided. The acquirer takes them for declines; whether the
   * switch does may take until its own reversals are through. Default: 91 and 96.
   */
  readonly undecidedCodes?: ReadonlySet<string>;
}

/**
 * Journals in the order in which they were made, as arrays or anything that gives lines. For files, use `AcquirerBooks`
 * with `readJournal`, which does not hold them in memory.
 */
export function expectedBalances(
  cards: readonly AcquirerCard[],
  journals: Iterable<Iterable<JournalLine>>,
  options?: RecomputeOptions,
): Map<number, ExpectedBalance> {
  const books = new AcquirerBooks(cards, options);
  for (const journal of journals) for (const line of journal) books.enter(line);
  return books.balances();
}

export function approvals(journals: Iterable<Iterable<JournalLine>>, options?: RecomputeOptions): readonly Approval[] {
  const books = new AcquirerBooks([], options);
  for (const journal of journals) for (const line of journal) books.enter(line);
  return books.approvals();
}

type Outcome = 'approved' | 'declined' | 'unknown';

/** A request and all its repeats. */
interface Fact {
  readonly key: string;
  readonly id: string;
  readonly mtiClass: string;
  readonly cardLine: number;
  readonly fields: JournalFields;
  /** Rank by first sending: a request can only refer to earlier ones. */
  readonly order: number;
  approval: { readonly responseCode: string; readonly fields: JournalFields } | undefined;
  declined: boolean;
  contradiction: string | undefined;
}

const doubleApproval = 'two approvals with different DE 38';
const defaultUndecided: ReadonlySet<string> = new Set(['91', '96']);

/** Takes journal lines, of any number of journals, and gives balances and approvals at any time. */
export class AcquirerBooks {
  readonly #cards: ReadonlyMap<number, { readonly masked: string; readonly currency: string }>;
  readonly #link: string;
  readonly #undecidedCodes: ReadonlySet<string>;
  readonly #facts = new Map<string, Fact>();
  readonly #byId = new Map<string, Fact>();

  /** Without cards, card lines are not checked and currencies are taken to fit. */
  constructor(cards: readonly AcquirerCard[], options: RecomputeOptions = {}) {
    this.#cards = new Map(cards.map((card) => [card.line, { masked: card.pan.masked(), currency: card.currency }]));
    this.#link = options.link ?? 'acquirer';
    this.#undecidedCodes = options.undecidedCodes ?? defaultUndecided;
  }

  enter(line: JournalLine): void {
    if (line.kind === 'request') this.#enterRequest(line);
    else if (line.kind === 'answer') this.#enterAnswer(line);
  }

  approvals(): readonly Approval[] {
    return [...this.#facts.values()].flatMap((fact) =>
      fact.approval === undefined || isNetwork(fact)
        ? []
        : [
            {
              key: fact.key,
              id: fact.id,
              mtiClass: fact.mtiClass,
              cardLine: fact.cardLine,
              responseCode: fact.approval.responseCode,
              authorizationCode: fact.approval.fields['38'] ?? '',
              rrn: fact.fields['37'] ?? '',
              amount: amountOf(fact),
            },
          ],
    );
  }

  /** Requests with answers that cannot both be right. */
  contradictions(): readonly Contradiction[] {
    return [...this.#facts.values()].flatMap(({ id, cardLine, contradiction }) =>
      contradiction === undefined ? [] : [{ id, cardLine, approvedTwice: contradiction === doubleApproval }],
    );
  }

  /** By card line; a card that no request concerned has zeros. */
  balances(): Map<number, ExpectedBalance> {
    const ofCard = new Map<number, Fact[]>();
    for (const line of this.#cards.keys()) ofCard.set(line, []);
    for (const fact of this.#facts.values()) {
      if (fact.cardLine === 0 || isNetwork(fact)) continue;
      const facts = ofCard.get(fact.cardLine);
      if (facts === undefined) ofCard.set(fact.cardLine, [fact]);
      else facts.push(fact);
    }
    return new Map([...ofCard].map(([line, facts]) => [line, balanceOf(facts, this.#cards.get(line)?.currency)]));
  }

  #enterRequest(line: RequestLine): void {
    const known = this.#cards.get(line.card);
    const sameCard = line.card === 0 || this.#cards.size === 0 || known?.masked === line.pan;
    assert(sameCard, `the journal was made with this card file (request ${line.id}, card line ${line.card})`);
    const { fields } = line;
    const mtiClass = classOf(line.mti);
    const part = (field: number): string => fields[field] ?? '';
    const key = `${part(7)}|${part(11)}|${this.#link}|${part(32)}|${part(41)}|${mtiClass}`;
    // The same key with another card or amount is another request, which the switch has to refuse.
    const identity = `${key}|${line.card}|${line.pan}|${part(4)}|${part(49)}`;
    let fact = this.#facts.get(identity);
    if (fact === undefined) {
      fact = {
        key,
        id: line.id,
        mtiClass,
        cardLine: line.card,
        fields,
        order: this.#facts.size,
        approval: undefined,
        declined: false,
        contradiction: undefined,
      };
      this.#facts.set(identity, fact);
    }
    this.#byId.set(line.id, fact);
  }

  #enterAnswer(line: AnswerLine): void {
    const fact = this.#byId.get(line.id);
    if (fact === undefined) return;
    const responseCode = line.fields['39'] ?? '';
    if (responseCode === '00' || responseCode === '10') {
      const before = fact.approval?.fields['38'] ?? line.fields['38'];
      if (before !== line.fields['38']) fact.contradiction = doubleApproval;
      fact.approval ??= { responseCode, fields: line.fields };
    } else if (!this.#undecidedCodes.has(responseCode)) {
      fact.declined = true;
    }
    if (fact.approval !== undefined && fact.declined) fact.contradiction ??= 'approved and declined';
  }
}

function classOf(mti: string): string {
  return `${mti.slice(0, 3)}0`;
}

function isNetwork(fact: Fact): boolean {
  return fact.mtiClass.startsWith('08');
}

function isReversal(fact: Fact): boolean {
  return fact.mtiClass.startsWith('04');
}

function outcomeOf(fact: Fact): Outcome {
  if (fact.approval !== undefined) return 'approved';
  return fact.declined ? 'declined' : 'unknown';
}

function amountOf(fact: Fact): MinorUnits {
  const partial = fact.approval?.responseCode === '10' ? fact.approval.fields['4'] : undefined;
  return BigInt(partial ?? fact.fields['4'] ?? '0');
}

/** What an approval of this request does by itself. */
function effectOf(fact: Fact, cardCurrency: string | undefined): 'hold' | 'debit' | 'credit' | 'none' {
  if (cardCurrency !== undefined && fact.fields['49'] !== cardCurrency) return 'none';
  const purpose = (fact.fields['3'] ?? '').slice(0, 2);
  const debit = purpose === '00' || purpose === '01' || purpose === '09';
  switch (fact.mtiClass) {
    case '0100':
    case '0120':
      return debit ? 'hold' : 'none';
    case '0200':
    case '0220':
      if (debit) return 'debit';
      return purpose === '20' ? 'credit' : 'none';
    default:
      return 'none';
  }
}

/** Money that one request has put onto the card, as far as it is known. */
interface Effect {
  readonly fact: Fact;
  readonly kind: 'hold' | 'debit' | 'credit';
  /** Sure to have been approved. */
  readonly certain: boolean;
  readonly amount: MinorUnits;
  /** What reversals that were approved leave of it, and what would be left if the unanswered ones were, too. */
  surelyAtMost: MinorUnits;
  possiblyAtMost: MinorUnits;
  /** Of a hold: whether a completion of it stands, for sure, going by the answers, and possibly. */
  completedSurely: boolean;
  completedAsAnswered: boolean;
  completedPossibly: boolean;
}

function balanceOf(facts: readonly Fact[], cardCurrency: string | undefined): ExpectedBalance {
  const reasons = new Set<string>();
  const effects: Effect[] = [];
  for (const fact of facts) {
    const outcome = outcomeOf(fact);
    if (fact.contradiction !== undefined) reasons.add(`${fact.id}: ${fact.contradiction}`);
    const kind = effectOf(fact, cardCurrency);
    if (outcome === 'declined' || kind === 'none') continue;
    const amount = amountOf(fact);
    effects.push({
      fact,
      kind,
      certain: outcome === 'approved',
      amount,
      surelyAtMost: amount,
      possiblyAtMost: amount,
      completedSurely: false,
      completedAsAnswered: false,
      completedPossibly: false,
    });
  }
  const index = new EffectIndex(effects);
  for (const fact of facts) if (isReversal(fact)) reverse(fact, index, reasons);
  for (const effect of effects)
    if (effect.fact.mtiClass === '0220' && effect.kind === 'debit') complete(effect, index, reasons);
  return sumUp(effects, reasons);
}

function reverse(reversal: Fact, index: EffectIndex, reasons: Set<string>): void {
  const outcome = outcomeOf(reversal);
  const original = index.reversedBy(reversal, reasons);
  if (original === undefined) return;
  const final = BigInt((reversal.fields['95'] ?? '0').slice(0, 12));
  const atMost = final < original.possiblyAtMost ? final : original.possiblyAtMost;
  // 25, original not found: had it not come by then, it is declined when it comes; so it has no effect either.
  const neverHappened = outcome === 'declined' && !original.certain;
  if (outcome === 'approved' || neverHappened) {
    if (final < original.surelyAtMost) original.surelyAtMost = final;
    original.possiblyAtMost = atMost;
  } else if (outcome === 'unknown') {
    original.possiblyAtMost = atMost;
  }
}

/** A completion releases the whole hold, until it is itself wholly reversed. */
function complete(completion: Effect, index: EffectIndex, reasons: Set<string>): void {
  const hold = index.completedBy(completion.fact, reasons);
  if (hold === undefined) return;
  if (completion.certain && completion.possiblyAtMost > 0n) hold.completedSurely = true;
  if (completion.certain && completion.surelyAtMost > 0n) hold.completedAsAnswered = true;
  if (completion.surelyAtMost > 0n) hold.completedPossibly = true;
}

function sumUp(effects: readonly Effect[], reasons: Set<string>): ExpectedBalance {
  const contradictory = reasons.size > 0;
  let held = 0n;
  let posted = 0n;
  const heldRange: [MinorUnits, MinorUnits] = [0n, 0n];
  const postedRange: [MinorUnits, MinorUnits] = [0n, 0n];
  for (const effect of effects) {
    const { kind, certain, surelyAtMost, possiblyAtMost } = effect;
    const most = effect.completedSurely ? 0n : surelyAtMost;
    const least = certain && !effect.completedPossibly ? possiblyAtMost : 0n;
    const asAnswered = certain && !effect.completedAsAnswered ? surelyAtMost : 0n;
    if (least !== most) reasons.add(`${effect.fact.id}: ${certain ? 'a later request on it' : 'it'} has no answer`);
    if (kind === 'hold') {
      held += asAnswered;
      heldRange[0] += least;
      heldRange[1] += most;
    } else if (kind === 'debit') {
      posted += asAnswered;
      postedRange[0] += least;
      postedRange[1] += most;
    } else {
      posted -= asAnswered;
      postedRange[0] -= most;
      postedRange[1] -= least;
    }
  }
  const open = heldRange[0] !== heldRange[1] || postedRange[0] !== postedRange[1];
  return { held, posted, uncertain: contradictory || open, heldRange, postedRange, reasons: [...reasons] };
}

/** Finds what a request refers to, by the rules of domain.md; several candidates are none, and make the card uncertain. */
class EffectIndex {
  readonly #byTrace = new Map<string, Effect[]>();
  readonly #byRrn = new Map<string, Effect[]>();
  readonly #byAmount = new Map<string, Effect[]>();
  readonly #byAuthorizationCode = new Map<string, Effect[]>();

  constructor(effects: readonly Effect[]) {
    for (const effect of effects) {
      const { fields, mtiClass, approval } = effect.fact;
      const part = (field: number): string => fields[field] ?? '';
      file(this.#byTrace, `${mtiClass}|${part(11)}|${part(7)}`, effect);
      if (part(37) !== '') file(this.#byRrn, `${part(37)}|${part(41)}`, effect);
      file(this.#byAmount, `${part(4)}|${part(11)}|${part(41)}`, effect);
      const code = approval?.fields['38'] ?? '';
      if (effect.kind === 'hold' && code !== '') file(this.#byAuthorizationCode, `${code}|${part(42)}`, effect);
    }
  }

  reversedBy(reversal: Fact, reasons: Set<string>): Effect | undefined {
    const part = (field: number): string => reversal.fields[field] ?? '';
    const named = /^([0-9]{4})([0-9]{6})([0-9]{10})([0-9]{11})/.exec(part(90));
    let found: readonly Effect[];
    if (named !== null && Number(named[1]) !== 0) {
      const institution = named[4] ?? '';
      found = (this.#byTrace.get(`${classOf(named[1] ?? '')}|${named[2]}|${named[3]}`) ?? []).filter(({ fact }) => {
        const terminal = fact.fields['41'] ?? '';
        const sameTerminal = terminal === '' || part(41) === '' || terminal === part(41);
        return (
          sameTerminal && (Number(institution) === 0 || (fact.fields['32'] ?? '').padStart(11, '0') === institution)
        );
      });
    } else if (part(37) !== '' && part(41) !== '') {
      found = this.#byRrn.get(`${part(37)}|${part(41)}`) ?? [];
    } else {
      found = this.#byAmount.get(`${part(4)}|${part(11)}|${part(41)}`) ?? [];
    }
    return only(reversal, found, reasons);
  }

  /** The hold that a 0220 completes: by DE 37 and 41, else by DE 38 and 42. */
  completedBy(completion: Fact, reasons: Set<string>): Effect | undefined {
    const part = (field: number): string => completion.fields[field] ?? '';
    const holds = (this.#byRrn.get(`${part(37)}|${part(41)}`) ?? []).filter(({ kind }) => kind === 'hold');
    if (part(37) !== '' && part(41) !== '' && holds.some((hold) => hold.fact.order < completion.order)) {
      return only(completion, holds, reasons);
    }
    if (part(38) === '') return undefined;
    return only(completion, this.#byAuthorizationCode.get(`${part(38)}|${part(42)}`) ?? [], reasons);
  }
}

function file(index: Map<string, Effect[]>, key: string, effect: Effect): void {
  const there = index.get(key);
  if (there === undefined) index.set(key, [effect]);
  else there.push(effect);
}

function only(fact: Fact, found: readonly Effect[], reasons: Set<string>): Effect | undefined {
  const earlier = found.filter((effect) => effect.fact.order < fact.order);
  if (earlier.length > 1) reasons.add(`${fact.id}: fits ${earlier.length} earlier requests`);
  return earlier.length === 1 ? earlier[0] : undefined;
}
