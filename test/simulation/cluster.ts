/*
 * Over 500 lines because what a simulated cluster is made of, and what must be true of it in the end, belong together.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CardKeys } from '../../base/card-keys.ts';
import { configGroup, groupId, nodeId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { Pan } from '../../base/pan.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import { voters as votersOf, type Topology } from '../../base/topology.ts';
import { changesOf, type Configuration } from '../../config-db/configuration.ts';
import { configurationFold } from '../../config-db/configuration-fold.ts';
import { readRuleSetFile } from '../../config-db/rule-file.ts';
import { encodeConfigurationChange } from '../../config-db/rows.ts';
import { encodeBody, type CardsEntry, type ConfigurationRowChange } from '../../store/entry.ts';
import { Acquirers, cardNumbers, links, type SimulatedCard } from './acquirers.ts';
import { AllBooks } from './books.ts';
import { SimulatedBus } from './bus.ts';
import { CardChanges, changedCards } from './card-changes.ts';
import { ConfigurationChanges } from './configuration-changes.ts';
import { booksOf, checkBalances, checkDerived, configurationContent, ReferenceFold } from './copies.ts';
import { DiskFaults } from './disk-faults.ts';
import { Machine } from './machine.ts';
import { Moves } from './moves.ts';
import type { Promised } from './journal.ts';
import { checkJournals } from './model.ts';
import { Observer } from './observer.ts';
import { SwitchProcess } from './process.ts';
import { Scheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

export interface ClusterOptions {
  readonly seed: number;
  /** Full nodes; with a witness there is one voter more. */
  readonly nodes: number;
  readonly witness: boolean;
  readonly groups: number;
  /** There is one group more, which `addLaterGroup` enters: none has cards at first. */
  readonly laterGroup?: boolean;
  /** People change rows of the configuration. */
  readonly configurationChanges?: boolean;
  /** Entries that are kept when a log is trimmed; so few by default that it often is. */
  readonly keptLogEntries?: number;
  /** Where the files lie; in memory when undefined and the machine has such a folder. */
  readonly folder?: string;
  /** Gets every line of the trace. */
  readonly print?: (line: string) => void;
}

/** Longest simulated time in which a healed cluster has to agree. */
const healingMs = 30_000;
/** Everything is up and connected: somebody leads every group after this. */
const electionMs = 6_000;
const samplingMs = 50;
const laterGroup = groupId('e');
/** Nobody puts another disk in faster than this. */
const diskChangeMs = 1_200;
const cardsPerRange = 4;

/** A cluster in one thread, driven by one seed. `close` when done. */
export class Cluster {
  readonly scheduler: Scheduler;
  readonly seed: number;
  readonly random: Random;
  readonly bus: SimulatedBus;
  readonly processes: readonly SwitchProcess[];
  readonly observer: Observer;
  readonly acquirers: Acquirers;
  readonly disks: DiskFaults;
  readonly changes: CardChanges;
  readonly moves: Moves;
  readonly configurationChanges: ConfigurationChanges | undefined;
  readonly orders: Map<GroupId, readonly NodeId[]>;
  /** Processes that nobody starts again until they are let. */
  readonly staysDown = new Set<NodeId>();
  readonly #folder: string;
  readonly #groupsAtFirst: readonly GroupId[];
  readonly #cards: readonly SimulatedCard[];
  readonly #configuration: Configuration;
  readonly #cardKeys = new CardKeys(1, Buffer.alloc(32, 1), Buffer.alloc(32, 2));
  readonly #references: ReadonlyMap<GroupId, ReferenceFold>;
  readonly #topology: Topology;
  #healed = false;

  constructor(options: ClusterOptions) {
    const random = seededRandom(options.seed);
    this.seed = options.seed;
    this.random = random;
    this.scheduler = new Scheduler(options.print);
    const parent = options.folder ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());
    this.#folder = mkdtempSync(join(parent, 'quadrant-simulation-'));
    const topology = topologyOf(options);
    this.#topology = topology;
    const configurationRandom =
      options.configurationChanges === true ? seededRandom(options.seed + 1_000_004) : undefined;
    const nodes = topology.nodes.map(({ id }) => id);
    const voters = votersOf(topology);
    const apartMs = random.below(3) === 0 ? 12.5 : 0.2;
    const sites = new Map(
      [...topology.nodes, ...(topology.witness ? [topology.witness] : [])].map((each) => [each.id, each.site]),
    );
    this.bus = new SimulatedBus(this.scheduler, random, (from, to) =>
      sites.get(from) === sites.get(to) ? 0.2 : apartMs,
    );
    this.orders = new Map(
      Array.from({ length: options.groups }, (_, index) => [
        groupId(['a', 'b', 'c'][index] ?? 'd'),
        rotated(nodes, index + (index === 2 ? random.below(nodes.length) : 0)),
      ]),
    );
    this.#configuration = configurationOf(this.orders);
    this.#groupsAtFirst = [...this.orders.keys()];
    if (options.laterGroup === true) this.orders.set(laterGroup, rotated(nodes, 1));
    const groups = [...this.orders.keys()];
    const { pan_range: ranges } = this.#configuration;
    this.observer = new Observer(
      this.scheduler,
      (pan) => ranges.find(({ prefix }) => prefix !== '' && pan.startsWith(prefix))?.durability ?? 'quorum',
      [configGroup, ...groups],
      () => this.processes,
      (id, group, index) => this.disks.hadOnDisk(id, group, index),
    );
    this.observer.answers.clocksKeepTheMargin = !clocksAreBad(options.seed);
    this.processes = voters.map(
      (id, place) =>
        new SwitchProcess({
          id,
          topology,
          folder: this.#folder,
          scheduler: this.scheduler,
          machine: new Machine(this.scheduler, rateOf(random, options.seed, place), random.below(1_000_000)),
          random,
          bus: this.bus,
          cardKeys: this.#cardKeys,
          sealingKey: Buffer.alloc(32, 3),
          observer: this.observer,
          endMove: (move) => {
            this.moves.end(move);
          },
          configurationRandom,
          onDown: (how) => {
            this.observer.count(how);
            this.#restartLater(id, how.endsWith('disk') ? diskChangeMs : 20);
          },
        }),
    );
    const bought = this.#groupsAtFirst.flatMap((group) => cardsOf(group));
    const changed = this.#groupsAtFirst.flatMap((group) =>
      promises.flatMap((promise) => changedCards(prefixOf(group, promise), { group, promise })),
    );
    this.#cards = [...bought, ...changed];
    this.acquirers = new Acquirers(
      this.scheduler,
      random,
      this.processes.filter(({ isWitness }) => !isWitness),
      bought,
    );
    this.disks = new DiskFaults(this);
    this.moves = new Moves(this, options.seed);
    this.changes = new CardChanges(this, changed, { cardKeys: this.#cardKeys, seed: options.seed });
    this.configurationChanges =
      options.configurationChanges === true ? new ConfigurationChanges(this, options.seed) : undefined;
    this.#references = new Map([
      ...groups.map((group) => [group, new ReferenceFold(this.#folder, group)] as const),
      // Whose fold it is makes derived columns, which are looked at apart.
      [
        configGroup,
        new ReferenceFold(this.#folder, configGroup, configurationFold(nodeId('n1'), topology), configurationContent),
      ] as const,
    ]);
    for (const process of this.processes) process.start();
    const sample = (): void => {
      this.observer.sample(this.bus);
      this.scheduler.after(samplingMs, sample);
    };
    sample();
  }

  get pans(): readonly string[] {
    return this.#cards.map(({ pan }) => pan);
  }

  get healed(): boolean {
    return this.#healed;
  }

  process(id: NodeId): SwitchProcess {
    const process = this.processes.find((each) => each.id === id);
    if (process === undefined) throw new Error(`no process ${id}`);
    return process;
  }

  leaderOf(group: GroupId): SwitchProcess | undefined {
    const term = ({ running }: SwitchProcess): number => running?.driver.replica(group)?.raft.term ?? 0;
    return this.processes
      .filter(({ running }) => running?.driver.replica(group)?.raft.role === 'leader')
      .sort((one, other) => term(other) - term(one))[0];
  }

  /** Until the configuration is entered, and every group has its cards, committed. */
  enterCards(): void {
    const done = (): boolean => this.#groupsAtFirst.every((group) => this.#hasEntry(group, 'cards'));
    for (let tries = 0; tries < 100 && !done(); tries++) {
      if (!this.#hasEntry(configGroup, 'configuration')) this.#enterConfiguration();
      for (const group of this.#groupsAtFirst) this.#enterCardsOf(group);
      this.scheduler.run(200, done);
    }
    if (!done()) throw new Violation(`no leader has taken the cards in 20 s: ${this.#positions()}`);
  }

  /** A group that is created while others work. */
  addLaterGroup(): void {
    this.moves.addGroup(laterGroup, this.orders.get(laterGroup) ?? []);
  }

  /** Folds of all copies, each at its own index, against that of the log. */
  checkFolds(): void {
    for (const [group, reference] of this.#references) {
      const copies = this.processes
        .filter(({ isWitness, running }) => !isWitness && running !== undefined)
        .flatMap((process) => {
          const reader = this.observer.file(process, group);
          return reader === undefined ? [] : [{ id: process.id, reader }];
        });
      this.observer.count('fold compared', reference.check(copies, this.observer.committedLog(group)));
      if (group === configGroup) for (const { id, reader } of copies) checkDerived(id, reader, this.#topology);
    }
  }

  /** Everything is up and connected: acquirers finish, and every copy must become the same. */
  settle(): void {
    this.scheduler.trace('cluster', 'heals');
    this.#healed = true;
    this.acquirers.stop();
    this.changes.stop();
    this.configurationChanges?.stop();
    this.staysDown.clear();
    for (const process of this.processes) {
      if (process.running === undefined)
        this.scheduler.after(50, () => {
          process.start();
        });
    }
    this.#runUntil(
      () => [...this.orders.keys()].every((group) => this.leaderOf(group) !== undefined),
      'not every group has a leader',
      electionMs,
    );
    this.#runUntil(() => this.moves.haveEnded, 'ranges are still on their way');
    this.#runUntil(() => this.acquirers.settled, 'what acquirers insist on is not answered');
    this.#runUntil(() => this.#hasSettledClaims(), 'what nodes bring to owners is not entered');
    this.#runUntil(
      () => this.configurationChanges?.settled !== false,
      'changes of the configuration still wait at their nodes',
    );
    this.#runUntil(() => this.#agrees(), 'the copies do not agree');
    this.#checkAgreement();
  }

  close(): void {
    this.#healed = true;
    for (const process of this.processes) {
      process.crash('end');
      this.observer.closeFiles(process.id);
    }
    for (const reference of this.#references.values()) reference.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #runUntil(done: () => boolean, otherwise: string, withinMs = healingMs): void {
    const endMs = this.scheduler.nowMs + withinMs;
    while (!done()) {
      if (this.scheduler.nowMs >= endMs) throw new Violation(`${otherwise} after ${withinMs} ms: ${this.#positions()}`);
      this.scheduler.run(250);
    }
  }

  /** Whoever watches over processes starts them again, sooner or later. */
  #restartLater(id: NodeId, atLeastMs: number): void {
    const soon = this.#healed || this.random.below(3) !== 0;
    this.scheduler.after(atLeastMs + this.random.below(soon ? 400 : 4_000), () => {
      if (!this.staysDown.has(id)) this.process(id).start();
    });
  }

  #hasEntry(group: GroupId, kind: string): boolean {
    return this.observer.committedLog(group).some(({ body }) => body.startsWith(`{"kind":"${kind}"`));
  }

  #enterConfiguration(): void {
    this.leaderOf(configGroup)?.inThread('consensus', ({ driver, threads }) => {
      const changes = changesOf(this.#configuration).map(
        (change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationRowChange,
      );
      const at = threads.consensus.wallMs();
      driver.enter(configGroup, [
        encodeBody({ kind: 'configuration', id: 'first', checkedAt: 0, at, by: 'simulation', origin: 'n1', changes }),
      ]);
    });
  }

  #enterCardsOf(group: GroupId): void {
    this.leaderOf(group)?.inThread('main', ({ groups, threads }) => {
      const owner = groups.ownerOf(group);
      const cards = this.#cards.filter((card) => card.group === group);
      const [first] = cards.map(({ pan }) => panOf(pan));
      if (owner?.ready !== true || first === undefined) return;
      if (owner.ledger.cardByPanHash(this.#cardKeys.hash(first)) !== undefined) return;
      const entry: CardsEntry = {
        kind: 'cards',
        at: threads.main.wallMs(),
        by: 'simulation',
        added: cards.map(({ pan, limit }) => ({
          bin: panOf(pan).bin(),
          panHash: this.#cardKeys.hash(panOf(pan)),
          panKeyVersion: 1,
          panCipher: this.#cardKeys.encrypt(panOf(pan), this.random),
          expiry: '3012',
          status: 'active',
          currency: '978',
          limit: limit.toString(),
        })),
        origin: 'n1',
        changes: [],
      };
      owner.append(entry);
    });
  }

  /** No node has anything left that an owner has to enter: lost entries, undelivered approvals, those in stand-in. */
  #hasSettledClaims(): boolean {
    return this.processes.every(({ running }) => {
      if (running?.edge === undefined) return running !== undefined;
      const { edge } = running.edge;
      const isEntered = edge.undeliveredRestrictions.length === 0 && edge.reversalsDue === 0;
      return isEntered && edge.standIns.length === 0 && running.salvage?.counts().pending === 0;
    });
  }

  /** All up, one leader for each group, all logs equally long, all applied to their end. */
  #agrees(): boolean {
    return [configGroup, ...this.orders.keys()].every((group) => {
      const leader = this.leaderOf(group)?.running?.driver.replica(group);
      if (leader === undefined || leader.raft.commit < leader.log.last.index) return false;
      return this.processes.every((process) => {
        const replica = process.running?.driver.replica(group);
        const knownLeader = process.running?.groups.leaderOf(group);
        return (
          replica?.log.last.hash === leader.log.last.hash &&
          replica.applied === leader.log.last.index &&
          knownLeader === leader.raft.self
        );
      });
    });
  }

  #positions(): string {
    return this.processes
      .map(({ id, running }) => {
        if (running === undefined) return `${id} is down`;
        const groups = running.driver.status().map(({ group, role, term, last, commit, applied, leader }) => {
          return `${group} ${role} term ${term} last ${last} commit ${commit} applied ${applied} leader ${leader ?? '-'}`;
        });
        return `${id}: ${groups.join(', ')}`;
      })
      .join('; ');
  }

  #checkAgreement(): void {
    this.checkFolds();
    this.changes.check();
    const history = this.#references.get(configGroup);
    if (history !== undefined) this.configurationChanges?.check(history.reader);
    const all = [...this.orders.keys()].map((group) => {
      const books = booksOf(group, this.observer.committedLog(group));
      for (const process of this.processes) {
        const reader = this.observer.file(process, group);
        if (reader !== undefined && !process.isWitness) checkBalances(process.id, reader, books);
      }
      return books;
    });
    // Cards move between groups: what their acquirers were promised stands in all books together.
    const books = new AllBooks(all);
    for (const [how, keys] of Object.entries(books.resolved)) this.observer.count(`${how} entry`, keys.size);
    this.observer.count('range moved', books.moves);
    const { unknown } = checkJournals(this.acquirers.purchases, books, {
      resolved: books.resolved,
      lostWithDisk: this.disks.lostKeys,
      forgetful: this.disks.forgetful,
    });
    this.observer.count('purchase of which its acquirer knows no end', unknown);
    const committed = [...this.orders.keys()].map((group) => `${group} ${this.observer.committedLog(group).length}`);
    this.scheduler.trace('cluster', `agrees at ${committed.join(', ')}: ${JSON.stringify(this.acquirers.counts)}`);
  }
}

/**
 * What a machine's clock shows in a millisecond. Leases allow for clocks that are wrong by one part in 24 either way
 * (voters are deaf for 12/11 of a lease): in a third of the seeds the first owner's is as slow as that and the others'
 * are as fast, in the others any are anything up to it; where clocks are bad they are worse.
 */
function rateOf(random: Random, seed: number, place: number): number {
  if (clocksAreBad(seed)) return 0.8 + random.below(400) / 1000;
  if (seed % 3 === 0) return place === 0 ? 0.96 : 1.04;
  return 0.96 + random.below(81) / 1000;
}

function clocksAreBad(seed: number): boolean {
  return seed % 11 === 0;
}

function panOf(digits: string): Pan {
  const pan = Pan.parse(digits);
  if (pan === undefined) throw new Error('a simulated card has a valid number');
  return pan;
}

/** Two sites, and a third for the witness. */
function topologyOf({ nodes, witness, keptLogEntries = 60 }: ClusterOptions): Topology {
  return {
    cluster: 'simulation',
    sites: ['east', 'west', 'north'].map((id) => ({ id, description: '' })),
    nodes: Array.from({ length: nodes }, (_, index) => ({
      id: nodeId(`n${index + 1}`),
      site: index % 2 === 0 ? 'east' : 'west',
      acquirer: { host: '127.0.0.1', port: 9_000 + index },
    })),
    witness: witness ? { id: nodeId('w1'), site: 'north' } : undefined,
    brokers: [],
    timings: {
      heartbeatMs: 150,
      electionTimeoutMs: 600,
      failbackMs: 2_000,
      requestDeadlineMs: 3_000,
      partialFrameMs: 30_000,
      slowReaderMs: 30_000,
      brokerPingMs: 1_000,
      brokerReconnectMs: 100,
    },
    repair: { approvals: 1, planHours: 24, operators: [] },
    nightly: { repair: 'none', budgetMinutes: 240, keepDays: 90 },
    limits: {
      acquirerConnections: 4_096,
      requestsInFlightPerConnection: 1_024,
      frameBytes: 8_192,
      localTailEntries: 2_000,
      localTailMs: 500,
      keptLogEntries,
      standInCount: 20,
      standInMinor: 100_000,
    },
  };
}

function rotated<T>(items: readonly T[], by: number): readonly T[] {
  const from = by % items.length;
  return [...items.slice(from), ...items.slice(0, from)];
}

const promises = ['quorum', 'local', 'stand-in'] as const;

function prefixOf(group: GroupId, promise: Promised): string {
  return `400${group.charCodeAt(0)}${promises.indexOf(promise) + 1}`.padEnd(6, '0');
}

function cardsOf(group: GroupId): readonly SimulatedCard[] {
  return promises.flatMap((promise) =>
    cardNumbers(prefixOf(group, promise), cardsPerRange).map((pan, index) => ({
      pan,
      group,
      promise,
      limit: index === 0 ? 40_000n : 100_000_000n,
    })),
  );
}

const rulesFile = new URL('../../config-db/rewrite-rules.yaml', import.meta.url);

function configurationOf(orders: ReadonlyMap<GroupId, readonly NodeId[]>): Configuration {
  const [first] = orders.keys();
  const range = (group: GroupId) => ({ group_id: group, description: '', issuer: 'test', hold_days: 7 });
  return {
    failover_map: [...orders].map(([group, order]) => ({ group_id: group, failover_order: order.join('>') })),
    pan_range: [
      ...(first === undefined ? [] : [{ ...range(first), prefix: '', durability: 'quorum' as const }]),
      ...[...orders.keys()].flatMap((group) =>
        promises.map((promise) => ({
          ...range(group),
          prefix: prefixOf(group, promise),
          durability: promise === 'local' ? ('local' as const) : ('quorum' as const),
          // A clock that is a day ahead ends these.
          hold_days: promise === 'local' ? 1 : 7,
        })),
      ),
    ],
    range_move: [],
    range_limit: [...orders.keys()].map((group) => ({
      prefix: prefixOf(group, 'stand-in'),
      currency: '978',
      transaction_maximum_minor: null,
      daily_maximum_minor: null,
      daily_maximum_count: null,
      stand_in_floor_minor: 3_000n,
      stand_in_card_count: 5,
      stand_in_card_minor: 10_000n,
    })),
    merchant_limit: [],
    node_state: [],
    acquirer_link: links.map((link, index) => ({
      link_id: link,
      acquiring_institutions: '*',
      partial_approval: false,
      deadline_ms: index === 0 ? 3_000 : 1_500,
      unmatched_reversal_request_code: '25',
    })),
    rewrite_rule_set: [readRuleSetFile(readFileSync(rulesFile, 'utf8'), 'config-db/rewrite-rules.yaml')],
  };
}
