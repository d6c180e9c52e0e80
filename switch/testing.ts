import { describeError, SwitchError } from '../base/errors.ts';
import { groupId, nodeId, type GroupId, type NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { Pan } from '../base/pan.ts';
import { seededRandom } from '../base/random.ts';
import type { CardKeys } from '../base/card-keys.ts';
import { ConfigurationView } from '../config-db/configuration-view.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow, RangeMoveRow } from '../config-db/rows.ts';
import {
  chainEntry,
  encodeBody,
  originPosition,
  type CardImport,
  type CardsEntry,
  type EntryBody,
  type LogEntry,
  type MtiClass,
  type NoOpEntry,
} from '../store/entry.ts';
import type { EdgeChange, EdgePending, EdgeStore, HeldRestriction, ReversalDue, StandIn } from '../store/edge-store.ts';
import type { CardRow } from '../store/cards.ts';
import { applyToLedger, type LedgerReader, type TransactionRow } from '../store/ledger.ts';
import { LedgerOverlay } from '../store/ledger-overlay.ts';
import { answerOf, decide, type DecidedAnswer, type Decision, type DecisionContext } from './authorizer.ts';
import { planRequests } from './card-changes.ts';
import { claimId, planClaim, type Claim, type ClaimOutcome } from './claims.ts';
import { Edge, type EdgeOptions } from './edge.ts';
import type { ForwardedAnswer, ForwardedRequest, Settlement } from './forward.ts';
import type { FieldValue, IsoMessage } from './iso8583/codec.ts';
import { GroupOwner, type OwnerOptions, type OwnerOutcome } from './owner.ts';
import { duplicateKey, type OriginalDataElements, type SwitchRequest } from './request.ts';

/*
 * For tests: requests with sensible fields, one group's ledger in memory that decides and applies them, an owner and an
 * edge that a test drives by hand. Over 500 lines because the import rules know one such file in a folder.
 */

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
    merchantCategory: '5411',
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
    bin: number.bin(),
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
  replacedNumber: () => undefined,
  replacedNumbers: () => [],
  restrictions: () => [],
  restriction: () => undefined,
  purgeableCards: () => [],
  imported: () => [],
  imports: () => [],
  transaction: () => undefined,
  transactionByKey: () => undefined,
  transactionsByStan: () => [],
  transactionsByRrn: () => [],
  holdsByAuthorizationCode: () => [],
  tombstones: () => [],
  cardsWithTombstones: () => [],
  holdsDue: () => [],
  lastConfigIndex: () => 0,
  reversalsOf: () => [],
  repeatAttempts: () => [],
  undeliveredAttempt: () => undefined,
  undeliveredAttempts: () => [],
  resolution: () => undefined,
  standIn: () => undefined,
  rangeMove: () => undefined,
  leftBy: () => '',
  standingHolds: () => [],
};

/** One group's cards: every decision is made and applied at once, as an owner does with its overlay. */
export class TestLedger {
  readonly ledger: LedgerOverlay;
  readonly #random = seededRandom(7);
  /** Called with everything that is applied. */
  readonly #onEntry: (index: number, term: number, body: EntryBody) => void;
  /** Everything that was applied, from index 1 on. */
  readonly entries: EntryBody[] = [];
  index = 0;
  /** Of requests that are asked without another. */
  attempt = 'n1.1.1';
  /** Wall clock of the decisions. */
  atMs = startMs;
  link: AcquirerLinkRow = link;
  range: PanRangeRow = range;
  limits: readonly RangeLimitRow[] = [];
  /** By `DE 18 currency`. */
  merchantLimits: ReadonlyMap<string, bigint> = new Map();

  constructor(
    cards: readonly CardImport[] = [cardImport()],
    options: {
      readonly base?: LedgerReader;
      readonly onEntry?: (index: number, term: number, body: EntryBody) => void;
    } = {},
  ) {
    this.ledger = new LedgerOverlay(options.base ?? emptyLedger);
    this.#onEntry = options.onEntry ?? (() => undefined);
    if (cards.length > 0)
      this.apply({ kind: 'cards', at: startMs, by: 'test', added: cards, origin: 'n1', changes: [] });
  }

  apply(body: EntryBody): number {
    this.index += 1;
    this.ledger.begin(this.index);
    applyToLedger(this.ledger, group, this.index, 1, body);
    this.entries.push(body);
    this.#onEntry(this.index, 1, body);
    return this.index;
  }

  context(request: SwitchRequest, changes: Partial<DecisionContext> = {}): DecisionContext {
    return {
      ledger: this.ledger,
      panHash: hashOf(request.pan),
      range: this.range,
      limits: (currency) => this.limits.find((row) => row.currency === currency),
      merchantLimit: (category, currency) => this.merchantLimits.get(`${category} ${currency}`),
      link: this.link,
      configIndex: 1,
      durability: 'quorum',
      attempt: this.attempt,
      at: this.atMs,
      random: this.#random,
      ...changes,
    };
  }

  decide(request: SwitchRequest, attempt = this.attempt): Decision {
    return decide(request, this.context(request, { attempt }));
  }

  /** Decides and applies; the answer as the acquirer gets it. */
  ask(changes: Partial<SwitchRequest> = {}, attempt = this.attempt): DecidedAnswer {
    const request = requestOf(changes);
    const decision = this.decide(request, attempt);
    switch (decision.kind) {
      case 'given-up':
        throw new Error('the attempt was not reported undelivered');
      case 'repeated':
        this.apply(decision.entry);
        return decision.answer;
      case 'refused':
        return { responseCode: decision.responseCode, authorizationCode: '', additionalAmounts: '' };
      case 'stored':
        return decision.answer;
      case 'decided':
        this.apply(decision.entry);
        return answerOf(decision.entry);
    }
  }

  /** Plans and enters what node n2 brings. */
  claim(claim: Claim): ClaimOutcome {
    const context = { ledger: this.ledger, from: nodeId('n2'), at: this.atMs, configIndex: 1 };
    const plan = planClaim(claim, context);
    if (plan.kind === 'enter') this.apply(plan.entry);
    return plan.outcome;
  }

  /** The edge of `attempt` has answered 91 to the request. */
  undelivered(attempt: string, changes: Partial<SwitchRequest> = {}): ClaimOutcome {
    return this.claim({ kind: 'undelivered', group, attempt, key: duplicateKey(requestOf(changes)) });
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
    const request = { kind: 'set', panHash: card.panHash, replaces: card.version, ...change } as const;
    const context = { at: this.atMs, name: () => `test.${this.index}` };
    const content = planRequests(this.ledger, [request], context);
    this.apply({ kind: 'cards', at: this.atMs, by: 'test', origin: 'n1', ...content });
  }
}

/** The card keys of a test: `hashOf` for a hash. */
export const cardKeys = { version: 1, hash: hashOf, decrypt: () => undefined } as unknown as CardKeys;

export const localPan = panOf('990002000000001');
export const foreignPan = panOf('990009000000001');

/** Up to 50.00 at once, three times or 120.00 in all. */
export const standInLimits: RangeLimitRow = {
  prefix: range.prefix,
  currency: '840',
  transaction_maximum_minor: null,
  daily_maximum_minor: null,
  daily_maximum_count: null,
  stand_in_floor_minor: 5000n,
  stand_in_card_count: 3,
  stand_in_card_minor: 12_000n,
};

/** As `configurationView`; edges may stand in for cards of 990001. */
export function standInView(): ConfigurationView {
  return configurationView(1, [standInLimits]);
}

/** 990001 of group a waits for the quorum, 990002 is local; everything else is group b's. */
export function configurationView(
  index = 1,
  limits: readonly RangeLimitRow[] = [],
  moves: readonly RangeMoveRow[] = [],
): ConfigurationView {
  return new ConfigurationView(
    index,
    {
      failover_map: [
        { group_id: group, failover_order: 'n1>n2' },
        { group_id: otherGroup, failover_order: 'n2>n1' },
      ],
      pan_range: [
        { ...range, prefix: '', group_id: otherGroup },
        range,
        { ...range, prefix: '990002', durability: 'local' },
        { ...range, prefix: '990009', group_id: otherGroup },
      ],
      range_move: [...moves],
      range_limit: [...limits],
      merchant_limit: [],
      node_state: [],
      acquirer_link: [link],
      rewrite_rule_set: [],
    },
    [],
  );
}

export const everyClass: readonly MtiClass[] = ['0100', '0120', '0200', '0220', '0400', '0420'];

export const cardsEntry: CardsEntry = {
  kind: 'cards',
  at: 0,
  by: 'test',
  added: [cardImport(), cardImport({ pan: localPan })],
  origin: 'n1',
  changes: [],
};
export const noOpEntry: NoOpEntry = { kind: 'no-op', leader: 'n1', term: 1 };

/** An owner whose log and disk do what the test says: entries 1 (cards) and 2 (the term's first) are its tail. */
export class OwnerBench {
  readonly clock = new ManualClock();
  readonly log: EntryBody[] = [];
  leads = true;
  configIndex = 1;
  term = 1;
  leaseUntilMs = Number.POSITIVE_INFINITY;
  readonly owner: GroupOwner;
  readonly outcomes: string[] = [];
  /** Why the ledger could not be read. */
  readonly unreadable: string[] = [];

  constructor(changes: Partial<OwnerOptions> = {}) {
    this.owner = new GroupOwner({
      group,
      log: {
        propose: (bodies) => {
          if (!this.leads) return undefined;
          const first = this.log.length + 1;
          this.log.push(...bodies.map((body) => JSON.parse(body) as EntryBody));
          return first;
        },
      },
      ledger: emptyLedger,
      configuration: () => configurationView(this.configIndex),
      cardKeys,
      clock: this.clock,
      random: seededRandom(3),
      localTailEntries: 5,
      localTailMs: 500,
      stalledMs: 3000,
      leaseUntilMs: () => this.leaseUntilMs,
      onUnreadable: (error) => {
        this.unreadable.push(describeError(error));
      },
      ...changes,
    });
  }

  lead(...tail: EntryBody[]): this {
    this.log.splice(0, this.log.length, ...tail);
    this.owner.lead(this.term, 0, chain(tail));
    return this;
  }

  /** Leads, and the first entry of the term has committed. */
  ready(): this {
    return this.lead(cardsEntry, noOpEntry).progress(2, 2);
  }

  progress(commit: number, durable: number, term = this.term): this {
    this.owner.onProgress({ term, commit, durable });
    return this;
  }

  /** Asks; what comes back stands in `outcomes` as `name code` when it may leave. */
  ask(name: string, changes: Partial<SwitchRequest> = {}, attempt = `n2.1.${name}`): void {
    this.owner.request(requestOf(changes), attempt, (outcome) => {
      this.outcomes.push(`${name} ${shown(outcome)}`);
    });
  }

  /** Brings a claim of node n2; its outcome stands in `outcomes` as `kind outcome` when it is settled. */
  claim(claim: Claim): void {
    this.owner.claim(claim, nodeId('n2'), (outcome) => {
      this.outcomes.push(`${claim.kind} ${outcome}`);
    });
  }

  /** Kinds of the entries after the first two. */
  kinds(): string[] {
    return this.log.slice(2).map(({ kind }) => kind);
  }

  get last(): number {
    return this.log.length;
  }

  /** What has come back since this was asked last. */
  came(): string[] {
    return this.outcomes.splice(0);
  }
}

function shown(outcome: OwnerOutcome): string {
  return outcome.kind === 'answer' ? outcome.answer.responseCode : outcome.reason;
}

function chain(bodies: readonly EntryBody[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const body of bodies) entries.push(chainEntry(entries.at(-1) ?? originPosition(group), 1, encodeBody(body)));
  return entries;
}

export const [n1, n2, n3] = [nodeId('n1'), nodeId('n2'), nodeId('n3')];
export const otherGroup = groupId('b');

export const approvalOutcome: OwnerOutcome = {
  kind: 'answer',
  answer: { responseCode: '00', authorizationCode: '123456', additionalAmounts: '' },
};

export function bounceOutcome(
  reason: Exclude<(OwnerOutcome & { kind: 'bounce' })['reason'], 'other-group'>,
): OwnerOutcome {
  return { kind: 'bounce', reason };
}

/** A purchase as an acquirer sends it; fields that are undefined are left out. */
export function purchaseMessage(changes: Readonly<Record<number, string | undefined>> = {}, mti = '0100'): IsoMessage {
  const fields = new Map<number, FieldValue>();
  const all: typeof changes = {
    2: pan.reveal(),
    3: '000000',
    4: '000000005000',
    7: '0301120000',
    11: '000001',
    32: '123456',
    35: `${pan.reveal()}=2812`,
    41: 'TERM0001',
    49: '840',
    ...changes,
  };
  for (const [number, value] of Object.entries(all)) if (value !== undefined) fields.set(Number(number), value);
  return { mti, fields };
}

/** A disk that syncs when the test says so, or at once, or not at all. */
export class TestStore implements EdgeStore {
  readonly dues = new Map<string, ReversalDue>();
  readonly standIns = new Map<string, StandIn>();
  readonly restrictions = new Map<string, HeldRestriction>();
  sync: 'at once' | 'later' | 'fails' = 'at once';
  lastSequence = 0;
  #waiting: (() => void)[] = [];

  submit(changes: readonly EdgeChange[], done: (failure: SwitchError | undefined) => void): void {
    const write = (): void => {
      if (this.sync === 'fails') {
        done(new SwitchError('STORE_UNREADABLE', 'the disk is full'));
        return;
      }
      for (const change of changes) this.#write(change);
      done(undefined);
    };
    if (this.sync === 'later') this.#waiting.push(write);
    else write();
  }

  pending(maximumDues: number, done: (pending: EdgePending | undefined) => void): void {
    const { standIns, lastSequence, restrictions } = this;
    done({
      dues: [...this.dues.values()].slice(0, maximumDues),
      standIns: [...standIns.values()],
      lastSequence,
      restrictions: [...restrictions.values()],
    });
  }

  /** What was held back reaches the disk. */
  flush(): void {
    this.sync = 'at once';
    for (const write of this.#waiting.splice(0)) write();
  }

  #write(change: EdgeChange): void {
    if (change.kind === 'due') this.dues.set(change.due.attempt, change.due);
    else if (change.kind === 'restriction') this.restrictions.set(change.restriction.id, change.restriction);
    else if (change.kind === 'restriction-over') this.restrictions.delete(change.id);
    else if (change.kind === 'settled') (change.of === 'due' ? this.dues : this.standIns).delete(change.attempt);
    else {
      this.standIns.set(change.standIn.decision.attempt, change.standIn);
      this.lastSequence = Math.max(this.lastSequence, change.standIn.sequence);
    }
  }
}

/** Node n1. Group a is led by `leader`; group b by n2. */
export class EdgeBench {
  readonly clock = new ManualClock();
  readonly sent: [NodeId, ForwardedRequest][] = [];
  readonly returned: [NodeId, ForwardedAnswer][] = [];
  readonly answers: IsoMessage[] = [];
  readonly claims: [NodeId, Claim][] = [];
  readonly settlements: [NodeId, Settlement][] = [];
  readonly store: TestStore;
  /** What this node's own owner was asked, and brought. */
  readonly asked: ((outcome: OwnerOutcome) => void)[] = [];
  readonly brought: [Claim, NodeId, (outcome: ClaimOutcome) => void][] = [];
  readonly leaders = new Map<GroupId, NodeId | undefined>([
    [group, n2],
    [otherGroup, n2],
  ]);
  readonly edge: Edge;

  constructor(changes: Partial<EdgeOptions> & { readonly store?: TestStore } = {}) {
    this.store = changes.store ?? new TestStore();
    const owner = {
      request: (_request: SwitchRequest, _attempt: string, done: (outcome: OwnerOutcome) => void) =>
        this.asked.push(done),
      claim: (claim: Claim, from: NodeId, settled: (outcome: ClaimOutcome) => void) =>
        this.brought.push([claim, from, settled]),
    } as unknown as GroupOwner;
    this.edge = new Edge({
      self: n1,
      boot: 4,
      clock: this.clock,
      configuration: () => configurationView(),
      cardKeys,
      ledgerOf: () => undefined,
      leaderOf: (of) => this.leaders.get(of),
      ownerOf: (of) => (of === group ? owner : undefined),
      forwarder: {
        sendRequest: (to, request) => this.sent.push([to, request]),
        sendAnswer: (to, answer) => this.returned.push([to, answer]),
        sendClaim: (to, claim) => this.claims.push([to, claim]),
        sendSettlement: (to, settlement) => this.settlements.push([to, settlement]),
      },
      store: this.store,
      requestDeadlineMs: 3000,
      ...changes,
    });
  }

  handle(changes: Parameters<typeof purchaseMessage>[0] = {}, mti = '0100'): void {
    this.edge.handle(purchaseMessage(changes, mti), 'link-1', (answer) => this.answers.push(answer));
  }

  /** Lets time pass, with a tick every 25 ms as in a node. */
  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += 25) {
      this.clock.advance(25);
      this.edge.tick();
    }
  }

  get firstSent(): ForwardedRequest {
    const [, request] = this.sent[0] ?? [];
    if (request === undefined) throw new Error('a request was sent');
    return request;
  }

  outcome(outcome: OwnerOutcome, at = 0): void {
    const [, request] = this.sent[at] ?? [];
    if (request === undefined) throw new Error('a request was sent');
    this.edge.onAnswer({ id: request.id, attempt: request.attempt, outcome });
  }

  /** The group has this leader from now on. */
  leads(leader: NodeId | undefined, of = group): void {
    this.leaders.set(of, leader);
    this.edge.onLeader(of);
  }

  /** The owner has entered the claim that was sent as number `at`. */
  settle(outcome: ClaimOutcome = 'entered', at = 0): void {
    const [, claim] = this.claims[at] ?? [];
    if (claim === undefined) throw new Error('a claim was sent');
    this.edge.onSettlement({ group: claim.heir ?? claim.group, id: claimId(claim), outcome });
  }

  codes(): unknown[] {
    return this.answers.map(({ fields }) => fields.get(39));
  }
}
