/*
 * Over 500 lines because one process is all its threads, and what may happen between any two of their steps.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import type { CardKeys } from '../../base/card-keys.ts';
import { isStoreError } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { Sealer } from '../../base/sealing.ts';
import { voters as votersOf, type Topology } from '../../base/topology.ts';
import { Groups } from '../../cli/node/groups.ts';
import { groupFileName, groupOfFile } from '../../cli/node/thread-writer.ts';
import { configurationFold } from '../../config-db/configuration-fold.ts';
import type { Channel } from '../../replication/bus.ts';
import { Driver, type DriverEvent } from '../../replication/driver.ts';
import { openedGroup, type OpenedGroup } from '../../replication/opened-group.ts';
import { EdgeFile, type EdgeStore } from '../../store/edge-store.ts';
import { GroupFile, noFold, type Fold } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { NodeState } from '../../store/node-state.ts';
import { SalvageFile } from '../../store/salvage.ts';
import { currentGroupFile, installSteps } from '../../store/snapshot-install.ts';
import { SnapshotShelf, type SnapshotReading } from '../../store/snapshot-shelf.ts';
import { WriteQueue } from '../../store/write-queue.ts';
import type { GroupWriter, WriterEvent } from '../../store/writer.ts';
import { Edge } from '../../switch/edge.ts';
import { RangeMover } from '../../switch/range-mover.ts';
import { Forwarder } from '../../switch/forward.ts';
import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import type { AcquirerPort } from './acquirers.ts';
import type { OwnerOutcome } from '../../switch/owner.ts';
import type { SwitchRequest } from '../../switch/request.ts';
import type { SimulatedBus } from './bus.ts';
import { ConfigurationParts } from './configuration-parts.ts';
import { Disk } from './disk.ts';
import { Thread, type Machine } from './machine.ts';
import type { Scheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

type GroupDatabase = Parameters<Fold['open']>[0];

/** Steps at which a process can be made to crash, besides any moment between two events. */
export const crashPoints = [
  'before the vote is synced',
  'after the vote is synced',
  'before the new incarnation is synced',
  'after the new incarnation is synced',
  'before the salvage is synced',
  'after the salvage is synced',
  'after an append is handed over',
  'before the write',
  'after the write',
  'after an apply is written',
  'after a trim is written',
  'before a message',
  'at a commit',
  'before a proposal',
  'before a step of a move',
  'before a reversal due is synced',
  'after a reversal due is synced',
  'before a stand-in is synced',
  'after a stand-in is synced',
  'before a restriction is synced',
  'after a restriction is synced',
  'before the answer',
  'after a chunk of a snapshot is written',
  ...installSteps.map((step) => `after a snapshot's step "${step}"` as const),
] as const;
/** Steps of the way of a change of the configuration, in runs in which it is changed. */
export const configurationCrashPoints = [
  'after an edit by the shell is put back',
  'before a queued change is synced',
  'after a queued change is synced',
  'before the end of a queued change is synced',
] as const;
export type CrashPoint = (typeof crashPoints)[number] | (typeof configurationCrashPoints)[number];

export const threads = ['main', 'consensus', 'writer', 'maintenance'] as const;
export type ThreadName = (typeof threads)[number];

/** Who sees what a process does: `Observer`. */
interface ProcessObserver {
  count(event: string, times?: number): void;
  closeFiles(id: NodeId): void;
  ended(id: NodeId): void;
  installed(process: SwitchProcess, group: GroupId): void;
  look(process: SwitchProcess): void;
  logged(id: NodeId, message: string, details: object): void;
  cut(id: NodeId, group: GroupId, keepThrough: number): void;
  decided(id: NodeId, group: GroupId, groups: Groups, request: SwitchRequest, outcome: OwnerOutcome): void;
  decides(id: NodeId, group: GroupId, term: number): void;
}

/** A crash that waits: for the `passes`th time that any process which is armed with it comes to the point. */
export interface Trap {
  readonly point: CrashPoint;
  /** 0: it has been sprung, or is taken away. */
  passes: number;
  readonly powerFails: boolean;
}

export interface ProcessOptions {
  readonly id: NodeId;
  readonly topology: Topology;
  readonly folder: string;
  readonly scheduler: Scheduler;
  readonly machine: Machine;
  readonly random: Random;
  readonly bus: SimulatedBus;
  readonly cardKeys: CardKeys;
  readonly sealingKey: Buffer;
  readonly observer: ProcessObserver;
  /** A range's move has come to its end in the logs (R12): the configuration is to say so. */
  readonly endMove: (move: string) => void;
  /** What the times in the ways of configuration changes are drawn from; undefined where nobody makes any. */
  readonly configurationRandom: Random | undefined;
  /** The process is down: killed, out of power, or crashed at a point. */
  readonly onDown: (how: string) => void;
}

/** Thrown at an armed crash point; ends the process, not the simulation. */
class Crash extends Error {}

/** What lives in a process's memory, from start to crash. */
export interface Running {
  readonly threads: Readonly<Record<ThreadName, Thread>>;
  readonly state: NodeState;
  readonly salvage: SalvageFile | undefined;
  readonly queue: WriteQueue;
  readonly shelf: SnapshotShelf;
  /** Of the consensus thread. */
  readonly readers: ReadonlyMap<GroupId, GroupReader>;
  readonly driver: Driver;
  readonly groups: Groups;
  readonly edge: RunningEdge | undefined;
  readonly configuration: ConfigurationParts | undefined;
}

interface RunningEdge {
  readonly edge: Edge;
  readonly forwarder: Forwarder;
  readonly store: EdgeFile;
}

const tickMs = 25;
const slowTickMs = 1_000;
const tendEditsMs = 100;

/**
 * One process of the cluster, a node or the witness: the product's own parts on real files, put together as
 * cli/node/node.ts does, with this simulation's clocks, bus and threads in place of the real ones.
 */
export class SwitchProcess implements AcquirerPort {
  readonly id: NodeId;
  readonly isWitness: boolean;
  readonly machine: Machine;
  readonly disk: Disk;
  running: Running | undefined;
  /** In simulated time. */
  startedMs = 0;
  readonly #options: ProcessOptions;
  #trap: Trap | undefined;
  #crashing: { readonly how: string; readonly powerFails: boolean } | undefined;
  #doing = false;
  #isFull = false;
  /** Connections of sqlite3 shells to this process's files, with transactions that are open. */
  readonly shells = new Set<{ close(): void }>();
  /** The writer's connection to each group's file. */
  readonly #databases = new Map<GroupId, GroupDatabase>();
  /** Each group's file, and the end of its log on disk. */
  readonly #places = new Map<GroupId, { path: string; durable: string }>();

  constructor(options: ProcessOptions) {
    this.#options = options;
    this.id = options.id;
    this.isWitness = options.topology.witness?.id === options.id;
    this.machine = options.machine;
    this.disk = new Disk(join(options.folder, options.id));
  }

  get up(): boolean {
    return this.running !== undefined && !this.isWitness;
  }

  /** The file of a group, whichever generation it is; undefined when there is none. */
  path(group: GroupId): string | undefined {
    const path = currentGroupFile(join(this.disk.folder, groupFileName(group)));
    return existsSync(path) ? path : undefined;
  }

  /** The process crashes when it is the one that springs the trap. */
  arm(trap: Trap): void {
    this.#trap = trap;
  }

  /** A message of an acquirer, taken by the main thread. */
  handle(message: IsoMessage, link: string, respond: (answer: IsoMessage) => void): void {
    this.inThread('main', ({ edge }) => {
      edge?.edge.handle(message, link, (answer) => {
        this.#passes('before the answer');
        respond(answer);
      });
    });
  }

  /** Calls `action` in the process's thread: a crash in it ends the process. */
  inThread(name: ThreadName, action: (running: Running) => void): void {
    const { running } = this;
    running?.threads[name].enter(() => {
      action(running);
    });
  }

  start(): void {
    if (this.running !== undefined) return;
    const { id, topology, scheduler, machine, random, bus, cardKeys, observer } = this.#options;
    this.startedMs = scheduler.nowMs;
    observer.closeFiles(id);
    const run = (action: () => void): void => {
      this.#do(action);
    };
    const main = new Thread(scheduler, machine, run);
    const consensus = new Thread(scheduler, machine, (action) => {
      this.#do(() => {
        action();
        observer.look(this);
      });
    });
    const writer = new Thread(scheduler, machine, run);
    const maintenance = new Thread(scheduler, machine, run);
    const toMain = main.channel(random);
    const toConsensus = consensus.channel(random);

    const state = new NodeState(join(this.disk.folder, 'consensus.db'));
    const salvage = this.isWitness ? undefined : new SalvageFile(join(this.disk.folder, 'salvage.db'));
    const boot = state.countBoot(Math.floor(machine.wallMs() / 1000));
    const readers = new Map<GroupId, GroupReader>();
    let tickedMs = machine.monotonicMs();

    const queue = new WriteQueue(
      writer,
      (event) => {
        this.#noteWritten(event);
        toConsensus(() => {
          driver.onWriter(event);
        });
      },
      (step) => {
        this.#passes(`after a snapshot's step "${step}"`);
      },
    );
    const shelf = new SnapshotShelf({
      clock: maintenance,
      fileOf: (group) => this.path(group) ?? '',
      shapeOf: (group) => this.#foldOf(group),
    });
    const driver: Driver = new Driver({
      self: id,
      topology,
      clock: consensus,
      random,
      writer: this.#writer(queue, writer),
      state: this.#driverState(state),
      send: (to, bytes) => {
        this.#passes('before a message');
        bus.send(id, to, 'raft', bytes);
      },
      emit: (event) => {
        if (event.kind === 'progress') this.#passes('at a commit');
        toMain(() => {
          this.#onDriverEvent(groups, event);
        });
      },
      open: (group, how, done) => {
        if (how === 'first') {
          const path = join(this.disk.folder, groupFileName(group));
          const file = GroupFile.open(path, group, topology.cluster, this.#foldOf(group));
          queue.add(group, file);
          done(this.#opened(readers, group, file));
          return;
        }
        writer.enter(() => {
          try {
            const file = queue.reopen(group, how === 'empty');
            observer.count(`file opened ${how}`);
            toConsensus(() => {
              done(this.#opened(readers, group, file));
            });
          } catch (error) {
            if (!isStoreError(error)) throw error;
            toConsensus(() => {
              done(error instanceof Error ? error : new Error(String(error)));
            });
          }
        });
      },
      openInstalled: (group, path, applied) => {
        observer.installed(this, group);
        return this.#openReader(readers, group, path, applied);
      },
      reading: snapshotReading(shelf, maintenance.channel(random), toConsensus),
      sendSnapshot: (to, bytes) => {
        bus.send(id, to, 'snapshot', bytes);
      },
      salvage: (group, entries) => {
        this.#passes('before the salvage is synced');
        salvage?.add(group, entries);
        this.#passes('after the salvage is synced');
      },
      deciderSilentMs: () => machine.monotonicMs() - tickedMs,
      log: (level, details, message) => {
        scheduler.trace(id, `${level}: ${message} ${JSON.stringify(details)}`);
        observer.logged(id, message, details);
      },
    });
    const groups = new Groups({
      topology,
      clock: main,
      random,
      log: silentLog,
      cardKeys: this.isWitness ? undefined : cardKeys,
      port: {
        configure: (orders, ranks) => {
          toConsensus(() => {
            driver.configure(new Map(orders), new Map(ranks));
          });
        },
        propose: (group, epoch, first, bodies) => {
          this.#passes('before a proposal');
          toConsensus(() => {
            driver.propose(group, epoch, first, bodies);
          });
        },
        paused: (group) => {
          toConsensus(() => {
            driver.paused(group);
          });
        },
        fail: (group, reason, cause) => {
          toConsensus(() => {
            driver.fail(group, reason, cause);
          });
        },
      },
      onMark: () => undefined,
      onLeader: (group) => {
        edge?.edge.onLeader(group);
      },
    });
    const edge = salvage === undefined ? undefined : this.#edge(main, groups, boot, salvage);
    const mover = this.#mover(main, groups);
    const configuration = this.#configurationParts(edge, { main, consensus, writer }, groups, driver, queue);
    this.running = {
      threads: { main, consensus, writer, maintenance },
      state,
      salvage,
      queue,
      shelf,
      readers,
      driver,
      groups,
      edge,
      configuration,
    };
    scheduler.trace(id, `starts for the ${boot}. time, at ${new Date(machine.wallMs()).toISOString()}`);
    consensus.enter(() => {
      driver.open(configGroup);
      for (const name of readdirSync(this.disk.folder).sort()) {
        const group = groupOfFile(name);
        if (group !== undefined && group !== configGroup) driver.open(group);
      }
    });
    bus.attach(id, (from, channel, bytes) => {
      if (channel === 'raft' || channel === 'snapshot') {
        consensus.enter(() => {
          if (channel === 'raft') driver.receive(from, bytes);
          else driver.receiveSnapshot(from, bytes);
        });
      } else if (edge !== undefined) {
        main.enter(() => {
          if (channel === 'call' && configuration !== undefined) configuration.receive(from, bytes);
          else this.#receive(from, channel, bytes, edge.forwarder);
        });
      }
    });
    const tick = (): void => {
      tickedMs = machine.monotonicMs();
      edge?.edge.tick();
      if (edge !== undefined) mover.tick();
      main.after(tickMs, tick);
    };
    const consensusTick = (): void => {
      driver.tick();
      consensus.after(tickMs, consensusTick);
    };
    const slowTick = (): void => {
      expireHolds(groups, main.wallMs());
      shelf.tend();
      main.after(slowTickMs, slowTick);
    };
    main.after(random.below(tickMs), tick);
    main.after(random.below(slowTickMs), slowTick);
    consensus.after(random.below(tickMs), consensusTick);
  }

  /** Ends the process at once. Without power, what its files have not synced is gone. */
  crash(how: string, powerFails = false): void {
    const { running } = this;
    if (running === undefined) return;
    const { scheduler, bus, id, onDown, observer } = this.#options;
    this.running = undefined;
    for (const shell of this.shells) shell.close();
    this.shells.clear();
    for (const thread of Object.values(running.threads)) thread.stop();
    bus.detach(id);
    // A snapshot that is being taken in would be cleared away by closing the files; a crash leaves what there is.
    const isTakingIn = readdirSync(this.disk.folder).some((name) => name.includes('.incoming'));
    const left = powerFails ? this.disk.copyAfterPowerLoss() : isTakingIn ? this.disk.copy() : undefined;
    observer.ended(id);
    running.groups.close();
    running.shelf.closeAll();
    for (const reader of running.readers.values()) reader.close();
    running.queue.close();
    running.salvage?.close();
    running.edge?.store.abandon();
    running.state.close();
    if (left !== undefined) this.disk.restore(left);
    scheduler.trace(id, `is down: ${how}${powerFails ? ', and its power is gone' : ''}`);
    onDown(how);
  }

  #foldOf(group: GroupId): Fold {
    const fold = this.#ownFoldOf(group);
    return {
      ...fold,
      open: (database, of) => {
        this.#databases.set(group, database);
        limitPages(database, this.#isFull);
        return fold.open(database, of);
      },
    };
  }

  #ownFoldOf(group: GroupId): Fold {
    if (this.isWitness) return noFold;
    return group === configGroup ? configurationFold(this.id, { nodes: this.#options.topology.nodes }) : ledgerFold;
  }

  #opened(readers: Map<GroupId, GroupReader>, group: GroupId, file: GroupFile): OpenedGroup {
    this.#places.set(group, { path: file.path, durable: file.last.hash });
    this.disk.synced(file.path);
    return this.#openReader(readers, group, file.path, file.applied);
  }

  get isDiskFull(): boolean {
    return this.#isFull;
  }

  /** While it is full nothing that needs another page can be written to the groups' files. */
  fillDisk(full: boolean): void {
    this.#isFull = full;
    for (const database of this.#databases.values()) if (database.open) limitPages(database, full);
  }

  #openReader(readers: Map<GroupId, GroupReader>, group: GroupId, path: string, applied: number): OpenedGroup {
    const reader = new GroupReader(path, group);
    readers.set(group, reader);
    return openedGroup(reader, path, applied);
  }

  /** What the writer thread has done: where a file's last sync was, and the steps at which it can die. */
  #noteWritten(event: WriterEvent): void {
    const place = this.#places.get(event.group);
    switch (event.kind) {
      case 'written':
        if (place === undefined) return;
        // An append or a cut is synced with all that was written before; what is only applied is not.
        if (event.durable.hash !== place.durable) {
          place.durable = event.durable.hash;
          this.disk.synced(place.path);
          this.#passes('after the write', false);
        } else {
          this.#passes('after an apply is written', false);
        }
        return;
      case 'trimmed':
        this.#options.observer.count('trim');
        this.#passes('after a trim is written', false);
        return;
      case 'snapshot-written':
        this.#passes('after a chunk of a snapshot is written', false);
        return;
      case 'installed':
        this.#places.set(event.group, { path: event.path, durable: event.position.hash });
        this.disk.synced(event.path);
        return;
      default:
        return;
    }
  }

  /** The writer thread, as consensus uses it: what one turn hands over travels together. */
  #writer(queue: WriteQueue, thread: Thread): GroupWriter {
    const { id, random, observer } = this.#options;
    const toWriter = thread.channel(random);
    let handedOver: (() => void)[] = [];
    const hand = (action: () => void): void => {
      if (handedOver.length === 0) {
        toWriter(() => {
          this.#passes('before the write');
          const actions = handedOver;
          handedOver = [];
          for (const each of actions) each();
        });
      }
      handedOver.push(action);
    };
    const neverAsked = (): Promise<never> => Promise.reject(new Error('files are opened by the simulation itself'));
    return {
      open: neverAsked,
      reopen: neverAsked,
      submit: (request) => {
        if (request.keepThrough !== undefined) observer.cut(id, request.group, request.keepThrough);
        hand(() => {
          queue.submit(request);
        });
        this.#passes('after an append is handed over');
      },
      trim: (group, through) => {
        hand(() => {
          queue.trim(group, through);
        });
      },
      resume: (group) => {
        hand(() => {
          queue.resume(group);
        });
      },
      finishCheckpoint: () => undefined,
      snapshot: (request) => {
        hand(() => {
          queue.snapshot(request);
        });
      },
      close: () => Promise.resolve(),
    };
  }

  #driverState(state: NodeState): ConstructorParameters<typeof Driver>[0]['state'] {
    const voters = votersOf(this.#options.topology);
    return {
      hardState: (group) => state.hardState(group),
      saveHardState: (group, hardState) => {
        this.#passes('before the vote is synced');
        state.saveHardState(group, hardState);
        this.#passes('after the vote is synced');
      },
      incarnation: (group) => state.incarnation(group),
      saveIncarnation: (group, incarnation) => {
        this.#passes('before the new incarnation is synced');
        state.saveIncarnation(group, incarnation);
        this.#passes('after the new incarnation is synced');
      },
      acknowledged: (group) =>
        voters.flatMap((id) => {
          const known = state.acknowledgedBy(group, id);
          return known === undefined ? [] : [{ id, ...known }];
        }),
      rememberAcknowledged: (memory) => {
        state.rememberAcknowledged(memory);
      },
    };
  }

  #onDriverEvent(groups: Groups, event: DriverEvent): void {
    const wasReady = groups.ownerOf(event.group)?.ready === true;
    groups.onEvent(event);
    const hosted = groups.hosted.get(event.group);
    if (!wasReady && hosted?.owner?.ready === true && hosted.led !== undefined) {
      this.#options.observer.decides(this.id, event.group, hosted.led.term);
    }
    if (event.kind !== 'opened' && event.kind !== 'installed') return;
    const owner = groups.ownerOf(event.group);
    if (owner === undefined) return;
    const { observer, id } = this.#options;
    const request = owner.request.bind(owner);
    owner.request = (asked, attempt, done) => {
      request(asked, attempt, (outcome) => {
        observer.decided(id, event.group, groups, asked, outcome);
        done(outcome);
      });
    };
  }

  #edge(main: Thread, groups: Groups, boot: number, salvage: SalvageFile): RunningEdge {
    const { id, random, bus, sealingKey, topology, cardKeys } = this.#options;
    const forwarder = new Forwarder({
      self: id,
      sealer: new Sealer(sealingKey, random),
      clock: main,
      send: (to, bytes) => {
        bus.send(id, to, 'forward', bytes);
      },
      onRequest: (from, request) => {
        edge.onRequest(from, request);
      },
      onAnswer: (_, answer) => {
        edge.onAnswer(answer);
      },
      onClaim: (from, claim) => {
        edge.onClaim(from, claim);
      },
      onSettlement: (_, settlement) => {
        if (settlement.outcome === 'moved') this.#options.observer.count('claim sent on');
        edge.onSettlement(settlement);
      },
    });
    const store = new EdgeFile(join(this.disk.folder, 'edge.db'), main);
    const edge = new Edge({
      self: id,
      boot,
      clock: main,
      configuration: () => groups.configuration,
      leaderOf: (group) => groups.leaderOf(group),
      ownerOf: (group) => groups.ownerOf(group),
      forwarder,
      store: this.#edgeStore(store),
      salvage,
      cardKeys,
      ledgerOf: (group) => groups.hosted.get(group)?.ledger,
      standIn: {
        random,
        afterMs: 2 * topology.timings.electionTimeoutMs,
        maximumCount: topology.limits.standInCount,
        maximumMinor: BigInt(topology.limits.standInMinor),
      },
      requestDeadlineMs: topology.timings.requestDeadlineMs,
    });
    return { edge, forwarder, store };
  }

  #mover(main: Thread, groups: Groups): RangeMover {
    const { endMove } = this.#options;
    return new RangeMover({
      clock: main,
      configuration: () => groups.configuration,
      ownerOf: (group) => groups.ownerOf(group),
      foldOf: (group) => {
        this.#passes('before a step of a move');
        return groups.foldOf(group);
      },
      end: endMove,
      // A move takes many entries, however few cards a range has here.
      partBytes: 4_000,
      cardsPerEntry: 2,
      onFault: (move, reason) => {
        throw new Violation(`${move} cannot go on: ${reason}`);
      },
    });
  }

  /** A node's, and the writer's part in it: what is edited is looked for ten times a second. */
  #configurationParts(
    edge: RunningEdge | undefined,
    { main, consensus, writer }: Pick<Running['threads'], 'main' | 'consensus' | 'writer'>,
    groups: Groups,
    driver: Driver,
    queue: WriteQueue,
  ): ConfigurationParts | undefined {
    const { id, topology, bus, configurationRandom: random } = this.#options;
    if (edge === undefined || random === undefined) return undefined;
    const toWriter = writer.channel(random);
    const tend = (): void => {
      writer.after(tendEditsMs, tend);
      const path = this.path(configGroup);
      if (path === undefined) return;
      const before = this.disk.logBytes(path);
      queue.tendEdits();
      if (this.disk.logBytes(path) === before) return;
      // A transaction of its own, which it syncs.
      this.disk.synced(path);
      this.#passes('after an edit by the shell is put back', false);
    };
    writer.after(random.below(tendEditsMs), tend);
    return new ConfigurationParts({
      self: id,
      main,
      consensus,
      random,
      topology: { nodes: topology.nodes },
      groups,
      driver,
      store: {
        queuedChanges: () => edge.store.queuedChanges(),
        submit: (changes, done) => {
          const isNew = changes.some(({ kind }) => kind === 'queued');
          this.#passes(isNew ? 'before a queued change is synced' : 'before the end of a queued change is synced');
          edge.store.submit(changes, (failure) => {
            if (isNew) this.#passes('after a queued change is synced');
            done(failure);
          });
        },
      },
      send: (to, bytes) => {
        bus.send(id, to, 'call', bytes);
      },
      closeEdit: (outcome) => {
        toWriter(() => {
          queue.closeEdit(configGroup, outcome);
        });
      },
    });
  }

  #edgeStore(store: EdgeFile): EdgeStore {
    return {
      submit: (changes, done) => {
        const isDue = changes.some(({ kind }) => kind === 'due');
        const isStandIn = changes.some(({ kind }) => kind === 'stand-in');
        const isRestriction = changes.some(({ kind }) => kind === 'restriction');
        if (isDue) this.#passes('before a reversal due is synced');
        if (isStandIn) this.#passes('before a stand-in is synced');
        if (isRestriction) this.#passes('before a restriction is synced');
        for (const change of changes) this.#options.observer.count(`edge.db: ${change.kind}`);
        store.submit(changes, (failure) => {
          if (isDue) this.#passes('after a reversal due is synced');
          if (isStandIn) this.#passes('after a stand-in is synced');
          if (isRestriction) this.#passes('after a restriction is synced');
          done(failure);
        });
      },
      pending: (maximum, done) => {
        store.pending(maximum, done);
      },
    };
  }

  #do(action: () => void): void {
    if (this.#doing) {
      action();
      return;
    }
    this.#doing = true;
    try {
      action();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
    } finally {
      this.#doing = false;
    }
    const crashing = this.#crashing;
    if (crashing === undefined) return;
    this.#crashing = undefined;
    this.crash(crashing.how, crashing.powerFails);
  }

  /** `atOnce`: nothing of the thread's present turn happens after this; else it is the last thing that the process does. */
  #passes(point: CrashPoint, atOnce = true): void {
    const trap = this.#trap;
    if (trap?.point !== point || trap.passes === 0) return;
    trap.passes -= 1;
    if (trap.passes > 0) return;
    this.#crashing = { how: `crash ${point}`, powerFails: trap.powerFails };
    if (atOnce) throw new Crash(point);
  }

  #receive(from: NodeId, channel: Channel, bytes: Buffer, forwarder: Forwarder): void {
    if (channel === 'forward') forwarder.receive(from, bytes);
    else throw new Violation(`${this.id} is called by ${from}, which nobody asked for`);
  }
}

/** The newest membership at or below the applied index, and all later ones. */
/** The maintenance thread, as consensus uses it. */
function snapshotReading(
  shelf: SnapshotShelf,
  toMaintenance: (action: () => void) => void,
  toConsensus: (action: () => void) => void,
): SnapshotReading {
  return {
    open: (group, holding, done) => {
      toMaintenance(() => {
        shelf.open(group, holding, (reply) => {
          toConsensus(() => {
            done(reply);
          });
        });
      });
    },
    read: (snapshot, chunk, done) => {
      toMaintenance(() => {
        shelf.read(snapshot, chunk, (reply) => {
          toConsensus(() => {
            done(reply);
          });
        });
      });
    },
    close: (snapshot) => {
      toMaintenance(() => {
        shelf.close(snapshot);
      });
    },
  };
}

/** As the node does (cli/node/node.ts). */
function expireHolds(groups: Groups, at: number): void {
  for (const { owner } of groups.hosted.values()) {
    if (owner?.ready !== true) continue;
    const holds = owner.ledger.holdsDue(at, 500).map((row) => row.index);
    if (holds.length > 0) owner.append({ kind: 'expiry', at, holds });
  }
}

const silentLog = createLogger({ process: 'simulation', level: 'silent' });

/** SQLite takes a limit below the file's present size for that size. */
function limitPages(database: GroupDatabase, full: boolean): void {
  database.pragma(`max_page_count = ${full ? 1 : 4_294_967_294}`);
}
