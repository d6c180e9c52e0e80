import assert from 'node:assert/strict';
import type { StoreFailure } from '../../base/errors.ts';
import { configGroup, groupId, nodeId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { parseTopology } from '../../base/topology.ts';
import { encodeBody } from '../../store/entry.ts';
import type { GroupWriter, WriteRequest } from '../../store/writer.ts';
import { Driver, type DriverEvent, type ReplicaStatus } from '../driver.ts';
import type { HardState, Remembered } from '../raft.ts';
import { at, Disk, electionTimeoutMs, heartbeatMs, members } from '../testing.ts';
import { decodeGroupMessages } from '../wire.ts';

/* For tests of the driver: processes with their disks and deciding threads, on one clock and one bus. */

export const group = groupId('a');
export const [n1, n2, n3, n4, w1] = ['n1', 'n2', 'n3', 'n4', 'w1'].map(nodeId) as [
  NodeId,
  NodeId,
  NodeId,
  NodeId,
  NodeId,
];
export const everybody = [n1, n2, n3, n4, w1];
export const failbackMs = 2_000;
export const keptLogEntries = 1_000;

export const topologyText = (siteOfN4 = 'west'): string => `cluster: test
sites: [{ id: east }, { id: west }, { id: north }]
nodes:
  - { id: n1, site: east, acquirer: { port: 9001 } }
  - { id: n2, site: east, acquirer: { port: 9002 } }
  - { id: n3, site: west, acquirer: { port: 9003 } }
  - { id: n4, site: ${siteOfN4}, acquirer: { port: 9004 } }
witness: { id: w1, site: north }
brokers:
  - { id: b1, site: east, client: { port: 9011 }, cluster: { port: 9012 } }
  - { id: b2, site: west, client: { port: 9013 }, cluster: { port: 9014 } }
  - { id: b3, site: north, client: { port: 9015 }, cluster: { port: 9016 } }
timings: { heartbeatMs: ${heartbeatMs}, electionTimeoutMs: ${electionTimeoutMs}, failbackMs: ${failbackMs} }
limits: { keptLogEntries: ${keptLogEntries} }
`;

/** What is on a process's disk. */
export class Folder {
  readonly disks = new Map<GroupId, Disk>();
  readonly hardStates = new Map<GroupId, HardState>();
  readonly incarnations = new Map<GroupId, number>();
  readonly acknowledged = new Map<string, Remembered & { readonly group: GroupId; readonly id: NodeId }>();

  diskOf(of: GroupId): Disk {
    const disk = this.disks.get(of) ?? new Disk(members(...everybody));
    this.disks.set(of, disk);
    return disk;
  }
}

export interface LoggedEvent {
  readonly event: string;
  readonly group?: string;
  readonly term?: number;
  readonly reason?: string;
}

/** One process: a driver, and a deciding thread that does what it is told, or has stalled. */
export class Process {
  readonly id: NodeId;
  readonly folder: Folder;
  readonly driver: Driver;
  readonly events: DriverEvent[] = [];
  readonly logged: string[] = [];
  /** The details of its log lines. */
  readonly loggedEvents: LoggedEvent[] = [];
  readonly salvaged: number[] = [];
  readonly trimmed: [GroupId, number][] = [];
  /** What every write, and opening a file again, fails with; undefined: the disk works. */
  diskFailure: string | undefined;
  failureCause: StoreFailure = 'disk';
  /** Writes take as long as it lasts. */
  diskStands = false;
  readonly openings: string[] = [];
  stalledSinceMs: number | undefined;
  /** Where the deciding thread is, in each group that it decides for. */
  readonly led = new Map<GroupId, { readonly epoch: number; next: number }>();
  answersPause = true;
  alive = true;
  readonly #cluster: Cluster;
  #unread: DriverEvent[] = [];

  constructor(cluster: Cluster, id: NodeId, folder: Folder, topology = topologyText()) {
    this.#cluster = cluster;
    this.id = id;
    this.folder = folder;
    const { clock } = cluster;
    this.driver = new Driver({
      self: id,
      topology: parseTopology(topology, 'nodes.yaml'),
      clock,
      random: seededRandom(everybody.indexOf(id) + 1),
      writer: this.#writer(),
      state: {
        hardState: (of) => folder.hardStates.get(of) ?? { term: 0, votedFor: undefined },
        saveHardState: (of, state) => folder.hardStates.set(of, state),
        incarnation: (of) => folder.incarnations.get(of) ?? 1,
        saveIncarnation: (of, incarnation) => folder.incarnations.set(of, incarnation),
        acknowledged: (of) => [...folder.acknowledged.values()].filter((each) => each.group === of),
        rememberAcknowledged: (all) => {
          for (const each of all) folder.acknowledged.set(`${each.group} ${each.id}`, each);
        },
      },
      send: (to, bytes) => {
        cluster.send(id, to, bytes);
      },
      sendSnapshot: () => undefined,
      reading: {
        open: (_, __, done) => {
          done({ kind: 'refused', reason: 'not here' });
        },
        read: () => undefined,
        close: () => undefined,
      },
      emit: (event) => {
        this.events.push(event);
        this.#unread.push(event);
        if (this.stalledSinceMs === undefined)
          clock.soon(() => {
            this.decide();
          });
      },
      open: (of, how, done) => {
        if (how !== 'first') {
          this.openings.push(`${of} ${how}`);
          if (this.diskFailure !== undefined) {
            done(new Error(this.diskFailure));
            return;
          }
          if (how === 'empty') folder.disks.delete(of);
        }
        const disk = folder.diskOf(of);
        const memberships = disk.memberships().filter(({ index }) => index > 0);
        done({ path: `${of}.db`, applied: disk.applied, source: disk, memberships, close: () => undefined });
      },
      openInstalled: () => {
        throw new Error('not here');
      },
      salvage: (_, entries) => {
        this.salvaged.push(...entries.map(({ index }) => index));
      },
      deciderSilentMs: () => (this.stalledSinceMs === undefined ? 0 : clock.monotonicMs() - this.stalledSinceMs),
      log: (level, details, message) => {
        this.logged.push(`${level}: ${message}`);
        this.loggedEvents.push(details as LoggedEvent);
      },
    });
  }

  #writer(): GroupWriter {
    const { clock } = this.#cluster;
    const refuse = (): Promise<never> => Promise.reject(new Error('not here'));
    return {
      open: refuse,
      reopen: refuse,
      submit: (request) => {
        clock.soon(() => {
          if (this.alive) this.#write(request);
        });
      },
      trim: (of, through) => {
        this.trimmed.push([of, through]);
        const disk = this.folder.diskOf(of);
        disk.trim(Math.min(through, disk.applied));
        clock.soon(() => {
          this.driver.onWriter({ kind: 'trimmed', group: of, base: disk.start });
        });
      },
      resume: () => undefined,
      finishCheckpoint: () => undefined,
      snapshot: () => undefined,
      close: () => Promise.resolve(),
    };
  }

  #write(request: WriteRequest): void {
    const { group: of, keepThrough, entries, applyThrough } = request;
    if (this.diskStands) {
      this.#cluster.clock.after(25, () => {
        if (this.alive) this.#write(request);
      });
      return;
    }
    if (this.diskFailure !== undefined) {
      this.driver.onWriter({ kind: 'failed', group: of, reason: this.diskFailure, cause: this.failureCause });
      return;
    }
    const disk = this.folder.diskOf(of);
    disk.write(keepThrough, entries);
    disk.applied = Math.max(disk.applied, Math.min(applyThrough, disk.last().index));
    this.driver.onWriter({ kind: 'written', group: of, durable: disk.last(), applied: disk.applied });
  }

  /** The deciding thread reads what it was sent. */
  decide(): void {
    for (const event of this.#unread.splice(0)) {
      if (event.kind === 'lead') {
        const next = event.applied + event.tail.length + 1;
        this.led.set(event.group, { epoch: event.epoch, next });
      } else if (event.kind === 'resign') {
        this.led.delete(event.group);
      } else if (event.kind === 'pause' && event.on && this.answersPause) {
        this.driver.paused(event.group);
      } else if (event.kind === 'append') {
        this.propose(event.group, encodeBody(event.entry));
      }
    }
  }

  propose(of: GroupId, ...bodies: readonly string[]): void {
    const led = this.led.get(of);
    if (led === undefined) return;
    this.driver.propose(of, led.epoch, led.next, bodies);
    led.next += bodies.length;
  }

  stall(): void {
    this.stalledSinceMs = this.#cluster.clock.monotonicMs();
  }

  wake(): void {
    this.stalledSinceMs = undefined;
    this.decide();
  }

  /** What the deciding thread was told about the group since the last call, of these kinds. */
  told(...kinds: readonly DriverEvent['kind'][]): string[] {
    return this.events.splice(0).flatMap((event) => {
      if (!kinds.includes(event.kind)) return [];
      return [event.kind === 'pause' ? `pause ${event.on ? 'on' : 'off'}` : event.kind];
    });
  }

  status(of = group): ReplicaStatus {
    return at(this.driver.status().find((each) => each.group === of));
  }
}

/** Processes on one clock, with a bus that takes a millisecond. */
export class Cluster {
  readonly clock = new ManualClock();
  readonly processes = new Map<NodeId, Process>();
  readonly folders = new Map<NodeId, Folder>();
  readonly datagrams: { readonly from: NodeId; readonly to: NodeId; readonly bytes: Buffer }[] = [];
  order: readonly NodeId[] = [n1, n2, n3, n4];
  /** Nothing goes between these and the others. */
  cutOff = new Set<NodeId>();

  constructor(ids: readonly NodeId[] = everybody) {
    // A group's processes have been running for a while: what one of them remembers from before is tried by itself.
    for (const id of ids) this.start(id);
  }

  start(id: NodeId, topology?: string): Process {
    const folder = this.folders.get(id) ?? new Folder();
    this.folders.set(id, folder);
    const process = new Process(this, id, folder, topology);
    this.processes.set(id, process);
    this.configure(process);
    return process;
  }

  configure(process: Process): void {
    process.driver.open(configGroup);
    if (process.id === w1) return;
    process.driver.configure(
      new Map([
        [group, this.order],
        [configGroup, this.order],
      ]),
      new Map([[group, this.order.indexOf(process.id) + 1]]),
    );
  }

  of(id: NodeId): Process {
    return at(this.processes.get(id));
  }

  kill(id: NodeId): void {
    const process = this.of(id);
    process.alive = false;
    process.driver.stop();
    this.processes.delete(id);
  }

  send(from: NodeId, to: NodeId, bytes: Buffer): void {
    this.datagrams.push({ from, to, bytes });
    this.clock.after(1, () => {
      if (!this.processes.has(from) || this.cutOff.has(from) !== this.cutOff.has(to)) return;
      this.processes.get(to)?.driver.receive(from, bytes);
    });
  }

  advance(durationMs: number): void {
    for (let passed = 0; passed < durationMs; passed += 25) {
      for (const { driver } of this.processes.values()) driver.tick();
      this.clock.advance(25);
    }
  }

  /** Who leads the group, by the latest term. */
  leader(of = group): NodeId | undefined {
    const leading = [...this.processes.values()].flatMap(({ id, driver }) =>
      driver.status().flatMap((each) => (each.group === of && each.role === 'leader' ? [{ id, term: each.term }] : [])),
    );
    return leading.sort((one, other) => other.term - one.term)[0]?.id;
  }

  /** Time passes until this one leads; how long it took. */
  until(id: NodeId | undefined, mostMs = 10_000): number {
    let passedMs = 0;
    for (; this.leader() !== id && passedMs < mostMs; passedMs += 25) this.advance(25);
    assert.equal(this.leader(), id);
    return passedMs;
  }
}

/** The first of the order leads, and its first entry is committed everywhere. */
export function formed(): Cluster {
  const cluster = new Cluster();
  cluster.until(n1);
  cluster.advance(failbackMs);
  for (const { events } of cluster.processes.values()) events.length = 0;
  return cluster;
}

/** The topology's digest, as the cluster's own datagrams carry it. */
export function digestOf(cluster: Cluster): string {
  return at(decodeGroupMessages(at(cluster.datagrams[0]).bytes)).topology;
}
