import type { CardKeys } from '../../base/card-keys.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { Pan } from '../../base/pan.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import { enterRequests, sealNumber } from '../../cli/node/cards-desk.ts';
import { decodeBody, type LogEntry } from '../../store/entry.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import { SqliteLedger } from '../../store/ledger-sqlite.ts';
import type { CardRequest } from '../../switch/card-changes.ts';
import type { FieldValue } from '../../switch/iso8583/codec.ts';
import { cardNumbers, links, type SimulatedCard } from './acquirers.ts';
import type { SwitchProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

/** What of the cluster operators of cards see. */
interface ChangedCluster {
  readonly scheduler: Scheduler;
  readonly processes: readonly SwitchProcess[];
  readonly orders: ReadonlyMap<GroupId, readonly NodeId[]>;
  readonly disks: { readonly forgetful: ReadonlyMap<NodeId, number> };
  readonly observer: {
    committedLog(group: GroupId): readonly LogEntry[];
    count(event: string): void;
    file(process: SwitchProcess, group: GroupId): GroupReader | undefined;
  };
  leaderOf(group: GroupId): SwitchProcess | undefined;
}

interface Restriction {
  readonly pan: string;
  readonly node: NodeId;
  /** When its node had acknowledged it. */
  readonly keptMs: number;
  isCommitted: boolean;
  /** Somebody has asked for its lift by its name, whatever became of that. */
  isLiftAsked: boolean;
}

/** A card that only operators and their trials touch. */
interface ChangedCard {
  readonly group: GroupId;
  readonly promise: SimulatedCard['promise'];
  /** Its numbers, as far as somebody asked for them; the first one is on file. */
  readonly pans: string[];
}

const cardsOfEach = 2;
const everyMs = 260;
const inoperative = '91';
const approvals: ReadonlySet<string> = new Set(['00', '10']);

/**
 * Operators who change, restrict, replace and lift cards at random nodes while everything fails, and buy with these cards to
 * see what comes of it. What is promised, and held against every answer and every copy:
 *
 * - A restriction holds from its acknowledgement at the node where it was entered, and everywhere once it is in the log, until
 *   its lift by name is asked for (R11). A replaced number is never approved again.
 * - After healing every acknowledged restriction of a number that was on file then is in the log, whose lift alone takes it
 *   away. Of a number that nobody has the entering node says so in the end, and nothing of it is entered.
 * - A change that says what it replaces is entered for that version or not at all.
 */
export class CardChanges {
  readonly cards: readonly ChangedCard[];
  readonly #cluster: ChangedCluster;
  readonly #cardKeys: CardKeys;
  readonly #random: Random;
  readonly #restrictions = new Map<string, Restriction>();
  /** Numbers whose replacement has committed. */
  readonly #replaced = new Set<string>();
  /** Later numbers that have committed, since when at the latest; a card's first one is on file from the start. */
  readonly #onFileMs = new Map<string, number>();
  readonly #read = new Map<GroupId, number>();
  #stopped = false;
  #stan = 0;

  constructor(
    cluster: ChangedCluster,
    cards: readonly SimulatedCard[],
    { cardKeys, seed }: { readonly cardKeys: CardKeys; readonly seed: number },
  ) {
    this.#cluster = cluster;
    this.#cardKeys = cardKeys;
    this.#random = seededRandom(seed + 1_000_000);
    this.cards = cards.map(({ pan, group, promise }) => ({ group, promise, pans: [pan] }));
  }

  /** Something about every quarter of a second until `stop`. */
  start(): void {
    if (this.#stopped) return;
    const card = this.#any(this.cards);
    if (card !== undefined) this.#act(card);
    this.#cluster.scheduler.after(1 + this.#random.below(2 * everyMs), () => {
      this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  /** To be called when all copies are equal: holds what was promised against one of each group. */
  check(): void {
    this.#lookAtLogs();
    for (const [id, { pan, isCommitted, keptMs, node }] of this.#restrictions) {
      const isFirst = this.cards.some(({ pans }) => pans[0] === pan);
      if (!isFirst && (this.#onFileMs.get(pan) ?? Number.POSITIVE_INFINITY) > keptMs) continue;
      const isForgotten = keptMs <= (this.#cluster.disks.forgetful.get(node) ?? Number.NEGATIVE_INFINITY);
      if (!isCommitted && !isForgotten) {
        throw new Violation(`restriction ${id} was acknowledged by ${node}, and is in no log`);
      }
    }
    for (const process of this.#cluster.processes) {
      for (const group of this.#cluster.orders.keys()) {
        const reader = process.isWitness ? undefined : this.#cluster.observer.file(process, group);
        if (reader !== undefined) this.#checkCopy(process.id, group, reader);
      }
    }
  }

  #checkCopy(id: NodeId, group: GroupId, reader: GroupReader): void {
    const ledger = new SqliteLedger(reader.database);
    for (const [name, { pan, isLiftAsked, isCommitted }] of this.#restrictions) {
      const row = ledger.restriction(name);
      if (row?.lifted !== undefined && row.lifted !== 0 && !isLiftAsked) {
        throw new Violation(`${id} has restriction ${name} lifted, which nobody asked for`);
      }
      const found = ledger.cardByPanHash(this.#hash(pan));
      if (isCommitted && !isLiftAsked && found !== undefined && row !== undefined && found.status === 'active') {
        throw new Violation(`${id} has a card active that restriction ${name} stands on`);
      }
    }
    for (const { pans, group: first } of this.cards) {
      const card = ledger.cardByPanHash(this.#hash(pans[0] ?? ''));
      // Where its range is, or has been.
      if (card === undefined && group !== first) continue;
      if (card === undefined) throw new Violation(`${id} has lost a card of group ${group}`);
      for (const { version, enteredBy } of [...ledger.versions(card.cardId), card]) {
        const replaces = /^replaces (\d+)$/.exec(enteredBy)?.[1];
        if (replaces !== undefined && version !== Number(replaces) + 1) {
          throw new Violation(`${id} has version ${version} of ${card.cardId} from a change that replaces ${replaces}`);
        }
      }
    }
  }

  #act(card: ChangedCard): void {
    const wish = this.#random.below(20);
    if (wish < 4) this.#restrict(card);
    else if (wish < 7) this.#lift(card);
    else if (wish < 10) this.#set(card);
    else if (wish === 10) this.#replace(card);
    else this.#buy(card);
  }

  #restrict(card: ChangedCard): void {
    const { scheduler, observer } = this.#cluster;
    const node = this.#node();
    const pan = this.#any(card.pans);
    if (node === undefined || pan === undefined) return;
    const status = this.#any(['blocked', 'lost', 'stolen'] as const) ?? 'blocked';
    node.inThread('main', ({ edge }) => {
      edge?.edge.restrict(
        { pan: panOf(pan), status, by: 'operator' },
        (failure, id) => {
          if (failure !== undefined) return;
          const keptMs = scheduler.nowMs;
          this.#restrictions.set(id, { pan, node: node.id, keptMs, isCommitted: false, isLiftAsked: false });
          scheduler.trace(node.id, `restriction ${id}: ${status}`);
          observer.count('restriction kept');
        },
        () => undefined,
      );
    });
  }

  /** Of those that the owner knows, some. */
  #lift(card: ChangedCard): void {
    this.#atOwner(card, (process, ledger) => {
      const found = ledger.cardByPanHash(this.#hash(card.pans[0] ?? ''));
      if (found === undefined) return undefined;
      const standing = ledger.restrictions(found.cardId).filter(({ lifted }) => lifted === 0);
      const restrictions = standing.map(({ id }) => id).filter(() => this.#random.below(2) === 0);
      if (restrictions.length === 0) return undefined;
      for (const id of restrictions) {
        const restriction = this.#restrictions.get(id);
        if (restriction !== undefined) restriction.isLiftAsked = true;
      }
      this.#cluster.scheduler.trace(process.id, `lifts ${restrictions.join(', ')}`);
      return { kind: 'lift', panHash: found.panHash, restrictions };
    });
  }

  /** By a version that the operator saw a while ago, at another node perhaps. */
  #set(card: ChangedCard): void {
    const hosted = this.#any(this.#cluster.processes.filter(({ isWitness }) => !isWitness))?.running?.groups.hosted;
    const seen = hosted?.get(this.#groupOf(card))?.ledger?.cardByPanHash(this.#hash(card.pans.at(-1) ?? ''));
    if (seen === undefined) return;
    const limit = String(100_000_000 + this.#random.below(1_000));
    this.#cluster.scheduler.after(this.#random.below(400), () => {
      this.#atOwner(
        card,
        () => ({ kind: 'set', panHash: seen.panHash, replaces: seen.version, limit }),
        `replaces ${seen.version}`,
      );
    });
  }

  #replace(card: ChangedCard): void {
    const [next] = cardNumbers((card.pans[0] ?? '').slice(0, 6), 100 + this.#stan).slice(-1);
    this.#stan += 1;
    this.#atOwner(card, (process, ledger) => {
      const found = ledger.cardByPanHash(this.#hash(card.pans[0] ?? ''));
      if (found === undefined || next === undefined || ledger.cardByPanHash(this.#hash(next)) !== undefined) {
        return undefined;
      }
      // As where a replacement is entered: the numbers of a card are of one range.
      const configuration = process.running?.groups.configuration;
      const ranges = [...card.pans, next].map((pan) => configuration?.rangeOf(panOf(pan)).prefix);
      if (ranges.some((prefix) => prefix !== ranges[0])) return undefined;
      card.pans.push(next);
      this.#cluster.scheduler.trace(process.id, `replaces a number of ${found.cardId}`);
      const by = sealNumber(panOf(next), this.#cardKeys, this.#random);
      const { panHash, version: replaces } = found;
      return { kind: 'replace', panHash, replaces, by, expiry: '3112', status: 'closed' };
    });
  }

  /** The group that has the card, as far as its present leaders know: ranges move. */
  #groupOf({ pans, group }: ChangedCard): GroupId {
    const hash = this.#hash(pans[0] ?? '');
    const isHome = (each: GroupId): boolean => {
      const ledger = this.#cluster.leaderOf(each)?.running?.groups.hosted.get(each)?.ledger;
      const card = ledger?.cardByPanHash(hash);
      return card !== undefined && ledger?.leftBy(card.cardId) === '';
    };
    return [...this.#cluster.orders.keys()].find(isHome) ?? group;
  }

  #atOwner(
    card: ChangedCard,
    ask: (process: SwitchProcess, ledger: SqliteLedger) => CardRequest | undefined,
    by = 'operator',
  ): void {
    const group = this.#groupOf(card);
    const process = this.#cluster.leaderOf(group);
    process?.inThread('main', ({ groups, threads }) => {
      const { owner, ledger } = groups.hosted.get(group) ?? {};
      if (owner?.ready !== true || ledger === undefined) return;
      const request = ask(process, ledger);
      if (request === undefined) return;
      const tools = { clock: threads.main, random: this.#random };
      // What it comes to is seen in the log.
      void enterRequests(owner, { requests: [request], check: false }, { by, origin: process.id }, tools).catch(
        () => undefined,
      );
    });
  }

  #buy(card: ChangedCard): void {
    const { scheduler, observer } = this.#cluster;
    this.#lookAtLogs();
    const pan = this.#any(card.pans);
    // Half of the time where a restriction was entered.
    const entered = this.#any([...this.#restrictions.values()].filter((each) => each.pan === pan))?.node;
    const port = this.#cluster.processes.find(({ id }) => id === entered);
    const node = port !== undefined && this.#random.below(2) === 0 ? port : this.#node();
    if (node?.running === undefined || pan === undefined) return;
    const reason = this.#mustDecline(card, pan, node.id);
    const link = links[this.#random.below(links.length)] ?? links[0];
    node.handle({ mti: '0100', fields: this.#purchaseWith(pan) }, link, (answer) => {
      const code = answer.fields.get(39);
      const responseCode = typeof code === 'string' ? code : '';
      scheduler.trace('operator', `buys at ${node.id}: ${responseCode}`);
      if (responseCode === inoperative) return;
      observer.count(approvals.has(responseCode) ? 'trial approved' : 'trial declined');
      const still = this.#mustDecline(card, pan, node.id);
      if (approvals.has(responseCode) && reason !== undefined && still !== undefined) {
        throw new Violation(`${node.id} approves a card although ${reason}`);
      }
    });
  }

  #purchaseWith(pan: string): Map<number, FieldValue> {
    this.#stan += 1;
    const stan = String(900_000 + this.#stan);
    return new Map<number, FieldValue>([
      [2, pan],
      [3, '000000'],
      [4, '000000000100'],
      [7, '0301120000'],
      [11, stan],
      [32, '12345'],
      [37, stan.padStart(12, '0')],
      [41, 'TERM0009'],
      [42, 'MERCHANT0000001'],
      [49, '978'],
    ]);
  }

  /** Why the card cannot be approved at the node from now on; undefined when it can. */
  #mustDecline({ promise }: ChangedCard, pan: string, node: NodeId): string | undefined {
    // An edge that stands in goes by its own copy, which may be behind.
    const everywhere = promise !== 'stand-in';
    const forgotMs = this.#cluster.disks.forgetful.get(node) ?? Number.NEGATIVE_INFINITY;
    for (const [id, restriction] of this.#restrictions) {
      const { keptMs, isCommitted, isLiftAsked } = restriction;
      if (restriction.pan !== pan || isLiftAsked) continue;
      if (isCommitted && everywhere) return `restriction ${id} is in the log`;
      if (restriction.node === node && keptMs > forgotMs) return `it has acknowledged ${id}`;
    }
    return this.#replaced.has(pan) && everywhere ? 'its number was replaced' : undefined;
  }

  #lookAtLogs(): void {
    for (const group of this.#cluster.orders.keys()) {
      const log = this.#cluster.observer.committedLog(group);
      for (const { body } of log.slice(this.#read.get(group) ?? 0)) {
        if (!body.startsWith('{"kind":"cards"')) continue;
        const entry = decodeBody(body);
        if (entry.kind !== 'cards') continue;
        for (const change of entry.changes) {
          this.#cluster.observer.count(`card change: ${change.kind}`);
          const restriction = change.kind === 'restrict' ? this.#restrictions.get(change.restriction) : undefined;
          if (restriction !== undefined) restriction.isCommitted = true;
          if (change.kind === 'replace') this.#noteReplaced(change.panHash);
        }
      }
      this.#read.set(group, log.length);
    }
  }

  /** All numbers that were asked for before the one that has committed. */
  #noteReplaced(panHash: string): void {
    for (const { pans } of this.cards) {
      const at = pans.findIndex((pan) => this.#hash(pan) === panHash);
      const number = pans[at];
      if (number !== undefined && !this.#onFileMs.has(number)) {
        this.#onFileMs.set(number, this.#cluster.scheduler.nowMs);
      }
      // A replacement that was asked for before and never committed has not put its number on file.
      for (const pan of pans.slice(0, Math.max(0, at))) this.#replaced.add(pan);
    }
  }

  #node(): SwitchProcess | undefined {
    return this.#any(this.#cluster.processes.filter(({ isWitness, running }) => !isWitness && running !== undefined));
  }

  #any<Item>(items: readonly Item[]): Item | undefined {
    return items.length === 0 ? undefined : items[this.#random.below(items.length)];
  }

  #hash(pan: string): string {
    return this.#cardKeys.hash(panOf(pan));
  }
}

/** Cards of a range for operators, apart from those that acquirers buy with. */
export function changedCards(prefix: string, card: Omit<SimulatedCard, 'pan' | 'limit'>): readonly SimulatedCard[] {
  const all = cardNumbers(prefix, 50 + cardsOfEach);
  return all.slice(-cardsOfEach).map((pan) => ({ ...card, pan, limit: 100_000_000n }));
}

function panOf(digits: string): Pan {
  const pan = Pan.parse(digits);
  if (pan === undefined) throw new Error('a simulated card has a valid number');
  return pan;
}
