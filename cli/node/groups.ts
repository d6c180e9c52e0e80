import { existsSync } from 'node:fs';

import type { CardKeys } from '../../base/card-keys.ts';
import type { Clock } from '../../base/clock.ts';
import { assert, describeError, storeFailureOf, whenReadable, type StoreFailure } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Topology } from '../../base/topology.ts';
import { readConfigurationView } from '../../config-db/configuration-fold.ts';
import type { ConfigurationView } from '../../config-db/configuration-view.ts';
import type { DriverEvent } from '../../replication/driver.ts';
import type { LogEntry } from '../../store/entry.ts';
import { SqliteLedger } from '../../store/ledger-sqlite.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { RangeReader } from '../../store/range-reader.ts';
import { GroupOwner, type OwnerMeter } from '../../switch/owner.ts';

/** What the deciding side tells consensus; `Consensus` in a node, its driver itself in a simulation. */
export interface ConsensusPort {
  configure(
    orders: readonly (readonly [GroupId, readonly NodeId[]])[],
    ranks: readonly (readonly [GroupId, number])[],
  ): void;
  /** Entries at the indexes that they were given here, on top of the log that the `lead` event of `epoch` began with. */
  propose(group: GroupId, epoch: number, first: number, bodies: readonly string[]): void;
  /** Nothing more will be proposed for the group until a `pause` event says `on: false`, or it is led anew. */
  paused(group: GroupId): void;
  /** This side cannot read the group's file. */
  fail(group: GroupId, reason: string, cause: StoreFailure): void;
}

export interface GroupsOptions {
  readonly topology: Topology;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly port: ConsensusPort;
  /** Absent at the witness, which decides nothing. */
  readonly cardKeys: CardKeys | undefined;
  readonly meter?: OwnerMeter;
  /** Apply of a group stands at a mark: snapshots are opened, then apply is let go on. */
  readonly onMark: (group: GroupId, path: string, compare: string, index: number) => void;
  /** Another leader of the group is known than before, or none. */
  readonly onLeader: (group: GroupId) => void;
}

export interface HostedGroup {
  readonly group: GroupId;
  readonly reader: GroupReader;
  readonly path: string;
  /** Card groups on a node; undefined for `config` and at the witness. */
  readonly owner: GroupOwner | undefined;
  readonly ledger: SqliteLedger | undefined;
  readonly ranges: RangeReader | undefined;
  leader: NodeId | undefined;
  term: number;
  applied: number;
  /** While this node's owner may decide: for which `lead` event, and the index that its next entry gets. */
  led: Led | undefined;
  /** This copy has followed a leader since the start, and has not stopped: stand-in may read it. */
  isCurrent: boolean;
}

interface Led {
  readonly epoch: number;
  readonly term: number;
  next: number;
  leaseUntilMs: number;
  /** Bodies that this turn has added, and the index of the first. */
  waiting: string[];
  waitingFrom: number;
}

/**
 * The deciding side of a process's groups: readers of their files, their owners, the configuration in force. It follows
 * the events of consensus (`replication/driver.ts`), and gives indexes to what its owners append.
 */
export class Groups {
  readonly #options: GroupsOptions;
  readonly #hosted = new Map<GroupId, HostedGroup>();
  #configuration: ConfigurationView | undefined;
  #configurationFault: string | undefined;

  constructor(options: GroupsOptions) {
    this.#options = options;
  }

  get configuration(): ConfigurationView | undefined {
    return this.#configuration;
  }

  /** Why the configuration in this node's file cannot be read, or undefined. */
  get configurationFault(): string | undefined {
    return this.#configurationFault;
  }

  get hosted(): ReadonlyMap<GroupId, HostedGroup> {
    return this.#hosted;
  }

  leaderOf(group: GroupId): NodeId | undefined {
    return this.#hosted.get(group)?.leader;
  }

  ownerOf(group: GroupId): GroupOwner | undefined {
    return this.#hosted.get(group)?.owner;
  }

  /** This node's committed copy of a card group's fold. */
  foldOf(group: GroupId): { readonly ledger: SqliteLedger; readonly ranges: RangeReader } | undefined {
    const { ledger, ranges } = this.#hosted.get(group) ?? {};
    return ledger === undefined || ranges === undefined ? undefined : { ledger, ranges };
  }

  onEvent(event: DriverEvent): void {
    switch (event.kind) {
      case 'opened':
        // Again, when the file had failed or was replaced.
        if (this.#hosted.has(event.group)) this.#leave(this.#mustHost(event.group));
        this.#open(event.group, event.path, event.applied);
        return;
      case 'installed':
        this.#leave(this.#mustHost(event.group));
        this.#open(event.group, event.path, event.applied);
        return;
      case 'lead':
        this.#lead(this.#mustHost(event.group), event);
        return;
      case 'resign':
        this.#resign(this.#mustHost(event.group));
        return;
      case 'progress': {
        const { owner, led } = this.#mustHost(event.group);
        if (led?.epoch !== event.epoch) return;
        led.leaseUntilMs = event.progress.leaseUntilMs;
        owner?.onProgress({ term: led.term, ...event.progress });
        return;
      }
      case 'applied': {
        const hosted = this.#mustHost(event.group);
        hosted.applied = event.applied;
        hosted.owner?.onApplied(event.applied);
        if (event.group === configGroup) this.#reloadConfiguration(hosted.reader);
        return;
      }
      case 'leader': {
        const hosted = this.#mustHost(event.group);
        hosted.leader = event.leader;
        hosted.term = event.term;
        if (event.leader !== undefined) hosted.isCurrent = true;
        this.#options.onLeader(event.group);
        return;
      }
      case 'pause': {
        const hosted = this.#mustHost(event.group);
        if (event.on) {
          this.#flush(hosted);
          // No lease is left to answer by once this side has said so (R3).
          if (hosted.led !== undefined) hosted.led.leaseUntilMs = 0;
        }
        hosted.owner?.pause(event.on);
        if (event.on) this.#options.port.paused(event.group);
        return;
      }
      case 'append': {
        const { owner, led } = this.#mustHost(event.group);
        if (led?.epoch === event.epoch) owner?.append(event.entry);
        return;
      }
      case 'mark':
        this.#options.onMark(event.group, this.#mustHost(event.group).path, event.compare, event.index);
        return;
      case 'failure':
        this.#mustHost(event.group).isCurrent = false;
        return;
    }
  }

  stop(): void {
    for (const hosted of this.#hosted.values()) this.#resign(hosted);
  }

  close(): void {
    for (const { reader } of this.#hosted.values()) reader.close();
  }

  #open(group: GroupId, path: string, applied: number): void {
    const { clock, random, topology, cardKeys, meter } = this.#options;
    assert(existsSync(path), `the file of group ${group} is there`);
    const reader = new GroupReader(path, group);
    const ledger = group !== configGroup && cardKeys !== undefined ? new SqliteLedger(reader.database) : undefined;
    const ranges =
      ledger === undefined
        ? undefined
        : new RangeReader(reader.database, (cipher) => cardKeys?.decrypt(cipher)?.reveal());
    const owner =
      ledger === undefined || cardKeys === undefined
        ? undefined
        : new GroupOwner({
            group,
            log: { propose: (bodies) => this.#propose(this.#mustHost(group), bodies) },
            ledger,
            configuration: () => this.#configuration,
            cardKeys,
            clock,
            random,
            leaseUntilMs: () => this.#hosted.get(group)?.led?.leaseUntilMs ?? 0,
            localTailEntries: topology.limits.localTailEntries,
            localTailMs: topology.limits.localTailMs,
            stalledMs: topology.timings.requestDeadlineMs,
            ...(meter === undefined ? {} : { meter }),
            onUnreadable: (error) => {
              this.#onUnreadable(this.#mustHost(group), error);
            },
          });
    owner?.onApplied(applied);
    const before = this.#hosted.get(group);
    this.#hosted.set(group, {
      group,
      reader,
      path,
      owner,
      ledger,
      ranges,
      leader: before?.leader,
      term: before?.term ?? 0,
      applied,
      led: undefined,
      isCurrent: false,
    });
    // An empty copy that is being made anew: the node goes on by the configuration that it knew.
    const isKnown = applied > 0 || this.#configuration === undefined;
    if (group === configGroup && cardKeys !== undefined && isKnown) this.#reloadConfiguration(reader);
  }

  // ---- leading ---------------------------------------------------------------------------------------------------

  /**
   * The owner's overlay begins where the file stands: index and rows are of one snapshot, for the writing thread may be
   * further than consensus had heard, and nothing may be applied twice. When this thread comes to the event so late that
   * the file holds what a later leader entered, the event is over: its `resign` is on the way.
   */
  #lead(hosted: HostedGroup, event: DriverEvent & { kind: 'lead' }): void {
    const { owner, reader } = hosted;
    if (owner === undefined) return;
    const next = event.applied + event.tail.length + 1;
    const { leaseUntilMs } = event.progress;
    hosted.led = { epoch: event.epoch, term: event.term, next, leaseUntilMs, waiting: [], waitingFrom: next };
    const begin = reader.database.transaction(() => {
      const applied = reader.applied();
      const here = event.tail.find(({ index }) => index === applied);
      if (applied !== event.applied && reader.position(applied)?.hash !== here?.hash) return false;
      const tail: readonly LogEntry[] = event.tail.filter(({ index }) => index > applied);
      owner.lead(event.term, applied, tail);
      return true;
    });
    const isCurrent = whenReadable(begin, (error) => {
      this.#onUnreadable(hosted, error);
    });
    if (isCurrent !== true) {
      this.#resign(hosted);
      return;
    }
    owner.onProgress({ term: event.term, ...event.progress });
  }

  #leave(hosted: HostedGroup): void {
    this.#resign(hosted);
    hosted.reader.close();
  }

  #onUnreadable(hosted: HostedGroup, error: unknown): void {
    hosted.isCurrent = false;
    this.#resign(hosted);
    this.#options.port.fail(hosted.group, describeError(error), storeFailureOf(error));
  }

  #resign(hosted: HostedGroup): void {
    if (hosted.led === undefined) return;
    hosted.led = undefined;
    hosted.owner?.resign();
  }

  #propose(hosted: HostedGroup, bodies: readonly string[]): number | undefined {
    const { led } = hosted;
    if (led === undefined) return undefined;
    const first = led.next;
    led.next += bodies.length;
    if (led.waiting.length === 0) {
      this.#options.clock.soon(() => {
        if (hosted.led === led) this.#flush(hosted);
      });
    }
    led.waiting.push(...bodies);
    return first;
  }

  /** What one turn of the event loop has appended travels together. */
  #flush({ group, led }: HostedGroup): void {
    if (led === undefined || led.waiting.length === 0) return;
    this.#options.port.propose(group, led.epoch, led.waitingFrom, led.waiting);
    led.waiting = [];
    led.waitingFrom = led.next;
  }

  // ---- configuration ---------------------------------------------------------------------------------------------

  /** Rows that somebody has changed by hand may make no sense: the last good view stays at work, and `status` tells. */
  #reloadConfiguration(reader: GroupReader): void {
    if (this.#options.cardKeys === undefined) return;
    const before = this.#configuration?.index;
    try {
      this.#configuration = readConfigurationView(reader.database);
      this.#configurationFault = undefined;
    } catch (error) {
      this.#configurationFault = describeError(error);
      this.#options.log.error(
        { event: 'configuration-unreadable', reason: this.#configurationFault },
        'the configuration cannot be read: compare it',
      );
    }
    const view = this.#configuration;
    if (view === undefined) return;
    if (view.index !== before) {
      this.#options.log.info(
        { event: 'configuration-in-force', group: configGroup, index: view.index },
        'the configuration here is now that of this index',
      );
    }
    const ranks = [...view.orders.keys()].flatMap((group): [GroupId, number][] => {
      const rank = view.rankIn(group);
      return rank === undefined ? [] : [[group, rank]];
    });
    this.#options.port.configure([...view.orders], ranks);
  }

  #mustHost(group: GroupId): HostedGroup {
    const hosted = this.#hosted.get(group);
    assert(hosted !== undefined, `group ${group} is open`);
    return hosted;
  }
}
