import type { GroupId } from '../base/identifiers.ts';
import { groupId } from '../base/identifiers.ts';
import { Pan } from '../base/pan.ts';
import { seededRandom } from '../base/random.ts';
import type { CardKeys } from '../base/card-keys.ts';
import { ConfigurationView } from '../config-db/configuration-view.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow } from '../config-db/rows.ts';
import type { CardImport, EntryBody, MtiClass } from '../store/entry.ts';
import { applyToLedger, type CardRow, type LedgerReader, type TransactionRow } from '../store/ledger.ts';
import { LedgerOverlay } from '../store/ledger-overlay.ts';
import { answerOf, decide, type DecidedAnswer, type Decision, type DecisionContext } from './authorizer.ts';
import { duplicateKey, type OriginalDataElements, type SwitchRequest } from './request.ts';

/** For tests: requests with sensible fields, and one group's ledger in memory that decides and applies them. */

export const group: GroupId = groupId('a');

/** `digits` and their check digit (ISO/IEC 7812-1). */
export function panOf(digits: string): Pan {
  for (let check = 0; check < 10; check++) {
    const pan = Pan.parse(`${digits}${check}`);
    if (pan?.hasValidCheckDigit() === true) return pan;
  }
  throw new RangeError('12 to 18 digits');
}

export const pan = panOf('990001000000001');
export const otherPan = panOf('990001000000002');

export const range: PanRangeRow = {
  prefix: '990001',
  group_id: group,
  description: 'debit',
  issuer: 'Harbour',
  durability: 'quorum',
  hold_days: 7,
};
export const link: AcquirerLinkRow = {
  link_id: 'link-1',
  acquiring_institutions: '*',
  partial_approval: false,
  deadline_ms: 3000,
  unmatched_reversal_request_code: '25',
};

export const startMs = Date.UTC(2026, 2, 1, 12);
const dayMs = 86_400_000;

/** A purchase of 50.00 USD at TERM0001. */
export function requestOf(changes: Partial<SwitchRequest> = {}): SwitchRequest {
  return {
    mtiClass: '0100',
    repeat: false,
    link: 'link-1',
    pan,
    expiry: '',
    processingCode: '000000',
    amount: 5000n,
    currency: '840',
    billing: undefined,
    transmission: '0301120000',
    stan: '000001',
    acquirer: '123456',
    rrn: '',
    authorizationCode: '',
    responseCode: '',
    terminal: 'TERM0001',
    merchant: 'MERCHANT0000001',
    originalDataElements: undefined,
    replacementAmount: undefined,
    businessDate: '2026-03-01',
    ...changes,
  };
}

/** DE 90 that names `request`. */
export function namedBy(request: SwitchRequest): OriginalDataElements {
  return {
    mtiClass: request.mtiClass,
    stan: request.stan,
    transmission: request.transmission,
    acquirer: request.acquirer.padStart(11, '0'),
  };
}

/** A purchase, and the three forms in which a later message can reverse it. */
export const original: Partial<SwitchRequest> = { rrn: '606012000001', stan: '000001' };
/** A reversal in a message of its own: own STAN and time, no RRN of its own. */
export const later: Partial<SwitchRequest> = { mtiClass: '0420', stan: '000900', transmission: '0301120500' };
export const byName: Partial<SwitchRequest> = {
  ...later,
  originalDataElements: namedBy(requestOf(original)),
  terminal: '',
};
export const byRrn: Partial<SwitchRequest> = { ...later, rrn: '606012000001' };
export const byStan: Partial<SwitchRequest> = { ...later, stan: '000001' };
export const everyForm: readonly [string, Partial<SwitchRequest>][] = [
  ['DE 90', byName],
  ['DE 37 and 41', byRrn],
  ['DE 4, 11 and 41', byStan],
];

export function cardImport(changes: Partial<CardImport> & { readonly pan?: Pan } = {}): CardImport {
  const { pan: number = pan, ...rest } = changes;
  return {
    panHash: hashOf(number),
    panKeyVersion: 1,
    panCipher: 'cipher',
    expiry: '2812',
    status: 'active',
    currency: '840',
    limit: '100000',
    ...rest,
  };
}

/** Stands in for the keyed hash. */
export function hashOf(number: Pan): string {
  return `hash of ${number.reveal()}`;
}

/** A fold with nothing in it. */
export const emptyLedger: LedgerReader = {
  cardById: () => undefined,
  cardByPanHash: () => undefined,
  transaction: () => undefined,
  transactionByKey: () => undefined,
  transactionsByStan: () => [],
  transactionsByRrn: () => [],
  holdsByAuthorizationCode: () => [],
  tombstones: () => [],
  cardsWithTombstones: () => [],
  holdsDue: () => [],
};

/** One group's cards: every decision is made and applied at once, as an owner does with its overlay. */
export class TestLedger {
  readonly ledger: LedgerOverlay;
  readonly #random = seededRandom(7);
  /** Called with everything that is applied. */
  readonly #onEntry: (index: number, term: number, body: EntryBody) => void;
  index = 0;
  /** Wall clock of the decisions. */
  atMs = startMs;
  link: AcquirerLinkRow = link;
  range: PanRangeRow = range;
  limits: readonly RangeLimitRow[] = [];

  constructor(
    cards: readonly CardImport[] = [cardImport()],
    options: {
      readonly base?: LedgerReader;
      readonly onEntry?: (index: number, term: number, body: EntryBody) => void;
    } = {},
  ) {
    this.ledger = new LedgerOverlay(options.base ?? emptyLedger);
    this.#onEntry = options.onEntry ?? (() => undefined);
    if (cards.length > 0) this.apply({ kind: 'cards', at: startMs, by: 'test', added: cards, changed: [] });
  }

  apply(body: EntryBody): number {
    this.index += 1;
    this.ledger.begin(this.index);
    applyToLedger(this.ledger, group, this.index, 1, body);
    this.#onEntry(this.index, 1, body);
    return this.index;
  }

  context(request: SwitchRequest, changes: Partial<DecisionContext> = {}): DecisionContext {
    return {
      ledger: this.ledger,
      panHash: hashOf(request.pan),
      range: this.range,
      limits: (currency) => this.limits.find((row) => row.currency === currency),
      link: this.link,
      configIndex: 1,
      durability: 'quorum',
      attempt: 'n1.1.1',
      at: this.atMs,
      random: this.#random,
      ...changes,
    };
  }

  decide(request: SwitchRequest): Decision {
    return decide(request, this.context(request));
  }

  /** Decides and applies; the answer as the acquirer gets it. */
  ask(changes: Partial<SwitchRequest> = {}): DecidedAnswer {
    const request = requestOf(changes);
    const decision = this.decide(request);
    switch (decision.kind) {
      case 'refused':
        return { responseCode: decision.responseCode, authorizationCode: '', additionalAmounts: '' };
      case 'stored':
        return decision.answer;
      case 'decided':
        this.apply(decision.entry);
        return answerOf(decision.entry);
    }
  }

  /** DE 39 of the answer. */
  code(changes: Partial<SwitchRequest> = {}): string {
    return this.ask(changes).responseCode;
  }

  card(number: Pan = pan): CardRow {
    const row = this.ledger.cardByPanHash(hashOf(number));
    if (row === undefined) throw new Error('the card is on file');
    return row;
  }

  /** What stands on the card: `held/posted`. */
  money(number: Pan = pan): string {
    const { held, posted } = this.card(number);
    return `${held}/${posted}`;
  }

  transactionOf(changes: Partial<SwitchRequest> = {}): TransactionRow {
    const row = this.ledger.transactionByKey(duplicateKey(requestOf(changes)));
    if (row === undefined) throw new Error('the request has been decided');
    return row;
  }

  state(changes: Partial<SwitchRequest> = {}): string {
    return this.transactionOf(changes).state;
  }

  /** The owner's expiry entry for everything that is due after `days`. */
  expire(days: number): void {
    this.atMs += days * dayMs;
    const holds = [...Array(this.index).keys()]
      .map((at) => this.ledger.transaction(at + 1))
      .filter((row) => row?.state === 'held' && row.holdExpiresAt <= this.atMs)
      .map((row) => row?.index ?? 0);
    this.apply({ kind: 'expiry', at: this.atMs, holds });
  }

  set(change: Partial<Pick<CardImport, 'status' | 'expiry' | 'limit'>>, number: Pan = pan): void {
    const card = this.card(number);
    const changed = {
      card: card.cardId,
      expiry: card.expiry,
      status: card.status,
      limit: String(card.limit),
      ...change,
    };
    this.apply({ kind: 'cards', at: this.atMs, by: 'test', added: [], changed: [changed] });
  }
}

/** The card keys of a test: `hashOf` for a hash. */
export const cardKeys = { version: 1, hash: hashOf } as unknown as CardKeys;

export const localPan = panOf('990002000000001');
export const foreignPan = panOf('990009000000001');

/** 990001 of group a waits for the quorum, 990002 is local; everything else is group b's. */
export function configurationView(index = 1): ConfigurationView {
  const other = groupId('b');
  return new ConfigurationView(
    index,
    {
      failover_map: [
        { group_id: group, failover_order: 'n1>n2' },
        { group_id: other, failover_order: 'n2>n1' },
      ],
      pan_range: [
        { ...range, prefix: '', group_id: other },
        range,
        { ...range, prefix: '990002', durability: 'local' },
        { ...range, prefix: '990009', group_id: other },
      ],
      range_limit: [],
      acquirer_link: [link],
      rewrite_rule_set: [],
    },
    [],
  );
}

export const everyClass: readonly MtiClass[] = ['0100', '0120', '0200', '0220', '0400', '0420'];
