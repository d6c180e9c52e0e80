import { createHash } from 'node:crypto';

import type { Clock } from '../base/clock.ts';
import {
  describeError,
  isStoreError,
  storeFailureOf,
  SwitchError,
  whenReadable,
  type StoreFailure,
} from '../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import { voters as votersOf, type Topology } from '../base/topology.ts';
import { encodeBody, type LogEntry, type Member, type MembershipEntry } from '../store/entry.ts';
import type { SnapshotReading } from '../store/snapshot-shelf.ts';
import type { GroupWriter, WriterEvent } from '../store/writer.ts';
import type { OpenedGroup } from './opened-group.ts';
import { anySuccessor, betterPlaced, campaignDelayMs } from './priority.ts';
import type { Acknowledgement, HardState, Membership, RaftMessage, Remembered } from './raft.ts';
import { Replica, type Progress, type ReplicaListener } from './replica.ts';
import { SnapshotTransfers } from './snapshot-transfer.ts';
import { decodeGroupMessages, encodeGroupMessages, type GroupMessage } from './wire.ts';

/*
 * Over 500 lines because hand-over, membership and memory act on the same few facts about a group.
 *
 * The consensus side of one process: the replicas of all its groups, what they tell their peers, and the rules that
 * say which of them ought to lead (R7). It is free of threads, sockets and files, which come in through its options; in
 * a node it runs in a thread of its own, and the deciding thread is at the other end of a message port:
 *
 *   deciding thread -> driver (methods)              driver -> deciding thread (`DriverEvent`)
 *
 *   configure   the failover orders, as its own      opened    a group's file is open
 *               derived rows have them               lead      this process leads: the log's tail, for the overlay
 *   propose     entries, at the indexes that the     resign    it leads no longer, or a proposal came too late
 *               deciding thread has given them       progress  commit, disk and lease of a group that it leads
 *   enter       entries of groups without an owner   applied   how far the fold in the file is
 *   paused      nothing more will be proposed        leader    who leads, as far as known here
 *   drain, failback, recover                         pause     a hand-over begins (on) or has come to nothing (off)
 *                                                    append    a membership entry, for the owner to put in its log
 *
 * While a process leads a group with an owner, the deciding thread alone gives out log indexes, so that it can go on
 * deciding without waiting for this side. A proposal whose index or term does not fit is dropped, and `resign` is sent:
 * nothing of it was answered, since nothing of it was reported durable.
 */

export interface DriverState {
  hardState(group: GroupId): HardState;
  saveHardState(group: GroupId, state: HardState): void;
  incarnation(group: GroupId): number;
  saveIncarnation(group: GroupId, incarnation: number): void;
  /** What was remembered of a group's members when this process last ran. */
  acknowledged(group: GroupId): readonly (Remembered & { readonly id: NodeId })[];
  /** One synced transaction. */
  rememberAcknowledged(memory: readonly (Remembered & { readonly group: GroupId; readonly id: NodeId })[]): void;
}

/** How a group's file is opened: for the first time, again after it had failed, or an empty one in its place. */
export type Opening = 'first' | 'again' | 'empty';

export interface DriverOptions {
  readonly self: NodeId;
  readonly topology: Topology;
  readonly clock: Clock;
  readonly random: Random;
  readonly writer: GroupWriter;
  readonly state: DriverState;
  readonly send: (to: NodeId, bytes: Buffer) => void;
  readonly emit: (event: DriverEvent) => void;
  /**
   * Opens a group's file; `done` is called once. `again`: after it had failed, and only if it can be written. `empty`: an
   * empty one in its place.
   */
  readonly open: (group: GroupId, how: Opening, done: (opened: OpenedGroup | Error) => void) => void;
  /** A snapshot has become the group's file: opens that for reading. */
  readonly openInstalled: (group: GroupId, path: string, applied: number) => OpenedGroup;
  /** Snapshots of this process's groups, for members that are far behind. */
  readonly reading: SnapshotReading;
  readonly sendSnapshot: (to: NodeId, bytes: Buffer) => void;
  /** Keeps `local` entries that are about to be cut, synced (R9). */
  readonly salvage: (group: GroupId, entries: readonly LogEntry[]) => void;
  /** Milliseconds since the deciding thread was last seen at work; 0 where it has no thread of its own. */
  readonly deciderSilentMs: () => number;
  readonly log: (level: 'info' | 'warn' | 'error', details: object, message: string) => void;
}

export type DriverEvent =
  | { readonly kind: 'opened'; readonly group: GroupId; readonly path: string; readonly applied: number }
  /** The group's file was replaced: readers have to open the one at `path`. */
  | { readonly kind: 'installed'; readonly group: GroupId; readonly path: string; readonly applied: number }
  | {
      readonly kind: 'lead';
      readonly group: GroupId;
      readonly term: number;
      /** Proposals name it: those that were made before this event do not fit the log that it begins with. */
      readonly epoch: number;
      readonly applied: number;
      /** Every entry after `applied`. */
      readonly tail: readonly LogEntry[];
      readonly progress: Progress;
    }
  | { readonly kind: 'resign'; readonly group: GroupId }
  | { readonly kind: 'progress'; readonly group: GroupId; readonly epoch: number; readonly progress: Progress }
  | { readonly kind: 'applied'; readonly group: GroupId; readonly applied: number }
  | { readonly kind: 'leader'; readonly group: GroupId; readonly leader: NodeId | undefined; readonly term: number }
  | { readonly kind: 'pause'; readonly group: GroupId; readonly on: boolean }
  | { readonly kind: 'append'; readonly group: GroupId; readonly epoch: number; readonly entry: MembershipEntry }
  | { readonly kind: 'mark'; readonly group: GroupId; readonly compare: string; readonly index: number }
  | { readonly kind: 'failure'; readonly group: GroupId; readonly reason: string };

/** What consensus knows of one group here, for `status`. */
export interface ReplicaStatus {
  readonly group: GroupId;
  readonly role: 'leader' | 'follower' | 'candidate';
  readonly leader: NodeId | undefined;
  readonly term: number;
  readonly base: number;
  readonly last: number;
  readonly lastTerm: number;
  readonly durable: number;
  readonly commit: number;
  readonly applied: number;
  readonly silenceMs: number;
  readonly leaseMs: number;
  readonly rank: number | undefined;
  readonly order: readonly NodeId[];
  readonly voters: readonly Member[];
  readonly learners: readonly Member[];
  readonly incarnation: number;
  readonly confirmed: boolean;
  readonly votes: boolean;
  readonly transferringTo: NodeId | undefined;
  readonly failure: string | undefined;
  readonly counts: Readonly<GroupCounts>;
  readonly followers: readonly {
    readonly id: NodeId;
    readonly match: number;
    readonly applied: number;
    readonly silenceMs: number;
  }[];
}

/** What happened to a group here since the start of the process. */
export interface GroupCounts {
  /** Elections that this process stood for, and those that it won. */
  elections: number;
  won: number;
  /** Hand-overs that it began as leader, and those that came to nothing. */
  handOvers: number;
  handOversFailed: number;
  /** Times that another leader was heard of than before. */
  leaderChanges: number;
}

interface Hosted {
  readonly group: GroupId;
  /** The leader that was heard of last, unless it has been given up. */
  known: { readonly leader: NodeId; readonly term: number } | undefined;
  readonly counts: GroupCounts;
  readonly replica: Replica;
  opened: OpenedGroup;
  failure: string | undefined;
  /** When it is tried again, after `failure`; undefined: somebody has to see to it. */
  mend: { atMs: number; afterMs: number } | undefined;
  /** Set while the deciding thread may propose: the term, and which of its `lead` events it has to go by. */
  led: { readonly term: number; readonly epoch: number } | undefined;
  handOver: HandOver | undefined;
  /** The better-placed member that is ready, and since when. */
  better: { readonly id: NodeId; readonly sinceMs: number } | undefined;
  /** When leadership of the group was seen to move, lately. */
  moves: number[];
  notBeforeMs: number;
  leadsSinceMs: number;
  remembered: Map<NodeId, Remembered>;
  /** How far members' folds are, as the leader last said. */
  appliedBy: Map<NodeId, number>;
}

interface HandOver {
  readonly to: NodeId;
  /** The deciding thread is asked to pause until then at most. */
  readonly pauseUntilMs: number;
  begun: boolean;
}

/** Groups one process takes part in at most: a bound on what peers can make it open. */
const maximumGroups = 256;
/** Raft bytes in one datagram, headers included: well below the bus's limit. */
const maximumBatchBytes = 600 * 1024;
/** What members acknowledged is synced so often; a rollback shorter than this can go unnoticed (R8). */
const rememberEveryMs = 1000;
/** A deciding thread that has not ticked for so long is not fit to lead (R7). */
const maximumSilentMs = 300;
/** A tick of this thread that took longer counts as this much. */
const longTickMs = 50;
/** How long the deciding thread may take to stop proposing before a hand-over goes on without it. */
const pauseMs = 50;
/** A hand-over that came to nothing is tried again after this. */
const retryHandOverMs = 1000;
/** Moves of leadership that are remembered to slow failback down. */
const movesWindowMs = 60_000;
const maximumBackOff = 16;
/** A file that cannot be written is tried again after this, and then after twice as long, up to the longest. */
const mendMs = 1000;
const longestMendMs = 8000;
/** A write that has taken so long: others' disks are faster. */
const longWriteMs = 1500;
/** Fewer are not worth a transaction. */
const trimAtLeast = 500;
/** A peer with another nodes.yaml is told ours this often. */
const describeEveryMs = 1000;

export class Driver {
  readonly #options: DriverOptions;
  readonly #hosted = new Map<GroupId, Hosted>();
  readonly #opening = new Map<GroupId, ((error: Error | undefined) => void)[]>();
  readonly #outgoing = new Map<NodeId, GroupMessage[]>();
  readonly #voters: readonly NodeId[];
  readonly #isNode: boolean;
  readonly #topology: { readonly digest: string; readonly description: string };
  readonly #mismatches = new Map<NodeId, { difference: string; toldMs: number }>();
  readonly #transfers: SnapshotTransfers;
  readonly #dirty = new Map<string, Remembered & { readonly group: GroupId; readonly id: NodeId }>();
  #orders: ReadonlyMap<GroupId, readonly NodeId[]> = new Map();
  #ranks: ReadonlyMap<GroupId, number> = new Map();
  #draining = false;
  #flushScheduled = false;
  #rememberedMs = 0;
  #damaged = 0;
  #tickedMs = 0;
  #deciderSilentMs = 0;
  #strangers = 0;
  #epoch = 0;

  constructor(options: DriverOptions) {
    this.#options = options;
    this.#voters = votersOf(options.topology);
    this.#isNode = options.topology.nodes.some((node) => node.id === options.self);
    const description = describeTopology(options.topology);
    const digest = createHash('sha256').update(description).digest('hex').slice(0, 16);
    this.#topology = { digest, description };
    this.#transfers = new SnapshotTransfers({
      clock: options.clock,
      random: options.random,
      reading: options.reading,
      send: options.sendSnapshot,
      holding: this.#isNode ? 'log-and-fold' : 'log',
      writer: options.writer,
      mayInstall: (group, position) => this.#hosted.get(group)?.replica.takeSnapshot(position) === 'install',
      onOutcome: (group, outcome) => {
        const { kind, ...rest } = outcome;
        const details =
          'position' in rest ? { group, from: rest.from, index: rest.position.index } : { group, ...rest };
        const event = `snapshot-${kind}`;
        options.log(kind === 'given-up' ? 'warn' : 'info', { event, ...details }, 'snapshot of the group');
      },
    });
  }

  /** Datagrams that could not be read. */
  get damaged(): number {
    return this.#damaged;
  }

  /** Datagrams of processes that are not in nodes.yaml. */
  get strangers(): number {
    return this.#strangers;
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Peers whose nodes.yaml has other voters or sites, and in what. */
  get mismatches(): readonly { readonly peer: NodeId; readonly difference: string }[] {
    return [...this.#mismatches].map(([peer, { difference }]) => ({ peer, difference }));
  }

  /** Groups whose copies here have stopped. */
  get stopped(): readonly GroupId[] {
    return [...this.#hosted.values()].filter(({ failure }) => failure !== undefined).map(({ group }) => group);
  }

  /** Groups that this process leads. */
  get leads(): readonly GroupId[] {
    return [...this.#hosted.values()].filter(isLeader).map(({ group }) => group);
  }

  replica(group: GroupId): Replica | undefined {
    return this.#hosted.get(group)?.replica;
  }

  /** Opens a group that this process is to take part in. */
  open(group: GroupId, done: (error: Error | undefined) => void = () => undefined): void {
    if (this.#hosted.has(group)) {
      done(undefined);
      return;
    }
    const waiting = this.#opening.get(group);
    if (waiting !== undefined) {
      waiting.push(done);
      return;
    }
    this.#opening.set(group, [done]);
    this.#options.open(group, 'first', (opened) => {
      const callers = this.#opening.get(group) ?? [];
      this.#opening.delete(group);
      if (!(opened instanceof Error)) this.#host(group, opened);
      for (const caller of callers) caller(opened instanceof Error ? opened : undefined);
    });
  }

  /** The failover orders, and this node's rank in each by its own derived rows (R7). */
  configure(orders: ReadonlyMap<GroupId, readonly NodeId[]>, ranks: ReadonlyMap<GroupId, number>): void {
    this.#orders = orders;
    this.#ranks = ranks;
    for (const group of orders.keys()) this.open(group, this.#logOpening(group));
  }

  /** How long the deciding thread has not moved while this one did, when that is too long; else 0. */
  get stalledMs(): number {
    return this.#deciderSilentMs > maximumSilentMs ? Math.round(this.#deciderSilentMs) : 0;
  }

  /**
   * What stops the whole process, or the machine, does not tell the two threads apart: only time in which this one has
   * ticked counts.
   */
  #watchDecider(nowMs: number): void {
    const elapsedMs = Math.min(nowMs - this.#tickedMs, longTickMs);
    this.#tickedMs = nowMs;
    this.#deciderSilentMs = Math.min(this.#options.deciderSilentMs(), this.#deciderSilentMs + elapsedMs);
  }

  /** Call at least every quarter of the heartbeat. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#watchDecider(nowMs);
    for (const hosted of this.#hosted.values()) {
      if (hosted.failure !== undefined) {
        if (hosted.mend !== undefined && nowMs >= hosted.mend.atMs) this.#mend(hosted, hosted.mend, nowMs);
        continue;
      }
      hosted.replica.tick();
      this.#attempt(hosted, () => {
        this.#govern(hosted, nowMs);
      });
    }
    if (nowMs - this.#rememberedMs >= rememberEveryMs) {
      this.#saveMemory(nowMs);
      for (const hosted of this.#hosted.values()) this.#trim(hosted);
    }
  }

  receive(from: NodeId, bytes: Buffer): void {
    if (!this.#voters.includes(from)) {
      this.#strangers += 1;
      return;
    }
    const datagram = decodeGroupMessages(bytes);
    if (datagram === undefined) {
      this.#damaged += 1;
      return;
    }
    if (!this.#agrees(from, datagram.topology, datagram.description)) return;
    for (const { group, message } of datagram.messages) {
      const hosted = this.#hosted.get(group);
      if (hosted !== undefined) hosted.replica.receive(from, message);
      else this.#openOnDemand(group);
    }
  }

  /** What comes on the channel `snapshot`. */
  receiveSnapshot(from: NodeId, bytes: Buffer): void {
    if (this.#voters.includes(from)) this.#transfers.receive(from, bytes);
    else this.#strangers += 1;
  }

  /** Snapshots that are being fetched. */
  get rebuilding(): readonly { readonly group: GroupId; readonly percent: number }[] {
    return this.#transfers.receiver.progress().map(({ group, percent }) => ({ group, percent }));
  }

  onWriter(event: WriterEvent): void {
    const hosted = this.#hosted.get(event.group);
    if (hosted === undefined) return;
    if (event.kind === 'installed') this.#onInstalled(hosted, event);
    else hosted.replica.onWriter(event);
    this.#transfers.receiver.onWriter(event);
  }

  // ---- disks that failed, and copies that are made anew ------------------------------------------------------------

  /** The deciding thread cannot read the group's file: this copy is of no use here. */
  fail(group: GroupId, reason: string, cause: StoreFailure): void {
    this.#hosted.get(group)?.replica.fail(reason, cause);
  }

  /** Whatever reads the group's file stops this copy when it cannot. */
  #attempt(hosted: Hosted, action: () => void): void {
    whenReadable(action, (error) => {
      hosted.replica.fail(describeError(error), storeFailureOf(error));
    });
  }

  #mend(hosted: Hosted, mend: { atMs: number; afterMs: number }, nowMs: number): void {
    const { group } = hosted;
    const afterMs = Math.min(2 * mend.afterMs, longestMendMs);
    hosted.mend = { atMs: Number.POSITIVE_INFINITY, afterMs };
    this.#options.open(group, 'again', (opened) => {
      if (this.#hosted.get(group) !== hosted) return;
      if (!(opened instanceof Error)) {
        this.#rehost(hosted, opened);
        this.#options.log('info', { event: 'disk-mended', group }, 'the files of the group can be written again');
        return;
      }
      const reason = describeError(opened);
      if (reason !== hosted.failure) {
        this.#options.log('error', { event: 'disk-failed', group, reason }, 'the files of the group cannot be opened');
      }
      hosted.failure = reason;
      hosted.mend = { atMs: nowMs + afterMs, afterMs };
    });
  }

  /** As after a start of the process: what is on disk counts, and nothing that was in memory. */
  #rehost(before: Hosted, opened: OpenedGroup): void {
    before.replica.stop();
    before.opened.close();
    this.#hosted.delete(before.group);
    this.#host(before.group, opened);
    const hosted = this.#mustHost(before.group);
    hosted.moves = before.moves;
    Object.assign(hosted.counts, before.counts);
  }

  /**
   * Makes this process's copy of a group anew from the others': its file is replaced by an empty one, which peers take
   * for a lost disk (R8). What it has and nobody committed is salvaged first (R9). Throws REBUILD_REFUSED where that
   * would cost more than this copy.
   */
  rebuild(group: GroupId, done: (error: Error | undefined) => void): void {
    const hosted = this.#hosted.get(group);
    if (hosted !== undefined && hosted.failure === undefined) {
      const { raft, log } = hosted.replica;
      const isLed = raft.leader !== undefined && raft.leader !== this.#options.self;
      if (!isLed) {
        const why = raft.role === 'leader' ? 'this process leads it; drain it first' : 'nobody leads it';
        throw new SwitchError('REBUILD_REFUSED', `group ${group} is not made anew: ${why}`);
      }
      const tail = log.entriesAfter(raft.commit);
      if (tail.length > 0) this.#options.salvage(group, tail);
      hosted.replica.stop();
      hosted.failure = 'its copy is being made anew';
      this.#resign(hosted);
      this.#options.emit({ kind: 'failure', group, reason: hosted.failure });
    }
    if (hosted !== undefined) hosted.mend = undefined;
    this.#options.log('warn', { event: 'rebuild', group }, 'makes its copy of the group anew');
    this.#options.open(group, 'empty', (opened) => {
      if (opened instanceof Error) {
        if (hosted !== undefined) {
          hosted.failure = describeError(opened);
          hosted.mend = { atMs: this.#options.clock.monotonicMs() + mendMs, afterMs: mendMs };
        }
        done(opened);
        return;
      }
      if (hosted === undefined) this.#host(group, opened);
      else this.#rehost(hosted, opened);
      done(undefined);
    });
  }

  /**
   * Rows of the group's file were changed without an entry: what the deciding thread knows of them may be wrong. It
   * begins anew with the file and the log's tail, as when it came to lead; what it has not been told is durable is asked
   * for again.
   */
  onRepaired(group: GroupId): void {
    const hosted = this.#hosted.get(group);
    if (hosted === undefined || hosted.failure !== undefined) return;
    if (hosted.led !== undefined) this.#lead(hosted);
    else if (group === configGroup) this.#options.emit({ kind: 'applied', group, applied: hosted.replica.applied });
  }

  #onInstalled(hosted: Hosted, { position, applied, path }: WriterEvent & { kind: 'installed' }): void {
    const { group } = hosted;
    hosted.opened.close();
    hosted.opened = this.#options.openInstalled(group, path, applied);
    const membership = this.#membershipsOf(hosted.opened).at(-1);
    if (membership === undefined) throw new Error(`the snapshot of group ${group} has a membership`);
    hosted.replica.onInstalled(position, membership, hosted.opened.source);
    this.#options.emit({ kind: 'installed', group, path, applied });
  }

  /** Entries at the indexes that the deciding thread gave them, which must follow the log. */
  propose(group: GroupId, epoch: number, first: number, bodies: readonly string[]): void {
    const hosted = this.#hosted.get(group);
    if (hosted?.led?.epoch !== epoch) return;
    const { raft, log } = hosted.replica;
    const fits = raft.term === hosted.led.term && log.last.index + 1 === first;
    if (fits && hosted.replica.propose(bodies) !== undefined) return;
    this.#resign(hosted);
  }

  /** Entries of a group that has no owner here; the index of the first, or undefined when this process does not lead. */
  enter(group: GroupId, bodies: readonly string[]): { readonly index: number; readonly term: number } | undefined {
    const hosted = this.#hosted.get(group);
    if (hosted === undefined || this.#hasOwner(group)) return undefined;
    const index = hosted.replica.propose(bodies);
    return index === undefined ? undefined : { index, term: hosted.replica.raft.term };
  }

  /** The deciding thread will propose nothing more for the group until it is told to go on. */
  paused(group: GroupId): void {
    const hosted = this.#hosted.get(group);
    if (hosted?.handOver !== undefined) this.#transfer(hosted, hosted.handOver);
  }

  /** A draining node leads nothing that another can lead. */
  drain(on: boolean): void {
    this.#draining = on;
    const [event, message] = on ? ['drain', 'hands on what it leads'] : ['undrain', 'takes over again'];
    this.#options.log('info', { event }, message);
    this.tick();
  }

  /** Hands over what a better-placed member can lead, without waiting; says why the rest stays. */
  failback(groups: readonly GroupId[]): {
    readonly handedOver: { readonly group: GroupId; readonly to: NodeId }[];
    readonly kept: { readonly group: GroupId; readonly reason: string }[];
  } {
    const handedOver: { group: GroupId; to: NodeId }[] = [];
    const kept: { group: GroupId; reason: string }[] = [];
    for (const hosted of this.#hosted.values()) {
      const { group } = hosted;
      if (!isLeader(hosted) || (groups.length > 0 && !groups.includes(group))) continue;
      const to = betterPlaced(this.#succession(hosted, this.#options.clock.monotonicMs()));
      if (to === undefined) kept.push({ group, reason: 'no better-placed node is up and has caught up' });
      else if (hosted.handOver !== undefined) kept.push({ group, reason: 'a hand-over is under way' });
      else {
        this.#handOver(hosted, to, this.#options.clock.monotonicMs());
        handedOver.push({ group, to });
      }
    }
    return { handedOver, kept };
  }

  /** Goes on without members that an operator has given up: see `Raft.recover`. */
  recover(group: GroupId, lost: readonly NodeId[], by: string): { readonly voters: readonly Member[] } | undefined {
    const hosted = this.#hosted.get(group);
    if (hosted === undefined) return undefined;
    const { voters, learners } = hosted.replica.raft.membership;
    const left = (members: readonly Member[]): Member[] => members.filter(({ id }) => !lost.includes(id));
    const entry: MembershipEntry = {
      kind: 'membership',
      at: this.#options.clock.wallMs(),
      by,
      voters: left(voters),
      learners: left(learners),
      lost,
    };
    return hosted.replica.recover(entry) ? { voters: entry.voters } : undefined;
  }

  status(): ReplicaStatus[] {
    const nowMs = this.#options.clock.monotonicMs();
    return [...this.#hosted.values()].map((hosted) => this.#statusOf(hosted, nowMs));
  }

  /** Whether somebody could lead what this process leads: a stopping process waits for them to do so. */
  get canHandOver(): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    return [...this.#hosted.values()].some(
      (hosted) => isLeader(hosted) && anySuccessor(this.#succession(hosted, nowMs)) !== undefined,
    );
  }

  stop(): void {
    this.#transfers.stop();
    for (const { replica, opened } of this.#hosted.values()) {
      replica.stop();
      opened.close();
    }
    this.#saveMemory(this.#options.clock.monotonicMs());
  }

  // ---- groups ----------------------------------------------------------------------------------------------------

  #hasOwner(group: GroupId): boolean {
    return this.#isNode && group !== configGroup;
  }

  #openOnDemand(group: GroupId): void {
    if (this.#hosted.size >= maximumGroups || !/^[a-z][a-z0-9-]{0,15}$/.test(group)) return;
    this.open(group, this.#logOpening(group));
  }

  #logOpening(group: GroupId): (error: Error | undefined) => void {
    return (error) => {
      if (error !== undefined) {
        const reason = describeError(error);
        this.#options.log('error', { event: 'group-not-opened', group, reason }, 'the group cannot be opened');
      }
    };
  }

  #host(group: GroupId, opened: OpenedGroup): void {
    const { self, topology, clock, random, writer, state, salvage, log } = this.#options;
    const remembered = new Map(state.acknowledged(group).map(({ id, ...known }) => [id, known]));
    const replica: Replica = new Replica({
      group,
      self,
      incarnation: state.incarnation(group),
      memberships: this.#membershipsOf(opened),
      campaignDelayMs: (silent) =>
        campaignDelayMs({
          self,
          order: this.#orderOf(group),
          silent,
          willing: this.#isWilling(group),
          stepMs: Math.floor(topology.timings.electionTimeoutMs / 5),
        }),
      willing: () => this.#isWilling(group),
      remembered: (id) => this.#remembered(group, id),
      hardState: state.hardState(group),
      source: opened.source,
      applied: opened.applied,
      patient: () => this.#patientPeers(group),
      heartbeatMs: topology.timings.heartbeatMs,
      electionTimeoutMs: topology.timings.electionTimeoutMs,
      clock,
      random,
      writer,
      saveHardState: (hardState) => {
        state.saveHardState(group, hardState);
      },
      saveIncarnation: (incarnation) => {
        state.saveIncarnation(group, incarnation);
        log(
          'warn',
          { event: 'old-disk', group, incarnation },
          'this disk is older than peers remember: it becomes a new member',
        );
      },
      salvage: (entries) => {
        salvage(group, entries);
        const [first, last] = [entries[0]?.index, entries.at(-1)?.index];
        log(
          'warn',
          { event: 'entries-cut', group, first, last, count: entries.length },
          'a later leader has other entries: what was cut is kept apart, and `local` answers are offered to the owner',
        );
      },
      send: (to, message) => {
        this.#send(to, group, message);
      },
      listener: this.#listener,
    });
    this.#hosted.set(group, {
      group,
      known: undefined,
      counts: { elections: 0, won: 0, handOvers: 0, handOversFailed: 0, leaderChanges: 0 },
      replica,
      opened,
      failure: undefined,
      mend: undefined,
      led: undefined,
      handOver: undefined,
      better: undefined,
      moves: [],
      notBeforeMs: 0,
      leadsSinceMs: 0,
      remembered,
      appliedBy: new Map(),
    });
    const { applied, path } = opened;
    const { term } = replica.raft;
    log('info', { event: 'group-opened', group, applied, last: replica.log.last.index, term }, 'group opened');
    this.#options.emit({ kind: 'opened', group, path, applied });
  }

  /** Before the first change in its log a group has the members of nodes.yaml. */
  #membershipsOf({ applied, memberships }: OpenedGroup): readonly Membership[] {
    const [oldest] = memberships;
    if (oldest !== undefined && oldest.index <= applied) return memberships;
    const voters = this.#voters.map((id) => ({ id, incarnation: 1 }));
    return [{ index: 0, voters, learners: [] }, ...memberships];
  }

  readonly #listener: ReplicaListener = {
    onCampaign: (group, term, reason) => {
      this.#mustHost(group).counts.elections += 1;
      this.#options.log('info', { event: 'election', group, term, reason }, 'stands for election');
    },
    onRole: (group, leading, term) => {
      const hosted = this.#mustHost(group);
      if (leading) {
        hosted.counts.won += 1;
        this.#options.log('info', { event: 'elected', group, term }, 'leads the group');
      } else {
        const reason = hosted.replica.raft.endedBecause;
        this.#options.log('info', { event: 'leads-no-longer', group, term, reason }, 'leads the group no longer');
      }
      this.#resign(hosted);
      hosted.handOver = undefined;
      hosted.better = undefined;
      hosted.leadsSinceMs = this.#options.clock.monotonicMs();
      if (leading) this.#lead(hosted);
    },
    onLeader: (group, leader, term) => {
      const hosted = this.#mustHost(group);
      if (leader !== undefined) {
        const nowMs = this.#options.clock.monotonicMs();
        hosted.moves = [...hosted.moves.filter((at) => nowMs - at < movesWindowMs), nowMs];
        hosted.counts.leaderChanges += 1;
      }
      if (leader !== this.#options.self) this.#logLeader(hosted, leader, term);
      hosted.known = leader === undefined ? undefined : { leader, term };
      this.#options.emit({ kind: 'leader', group, leader, term });
    },
    onProgress: (group, progress) => {
      const { led, replica } = this.#mustHost(group);
      if (led?.term !== replica.raft.term) return;
      this.#options.emit({ kind: 'progress', group, epoch: led.epoch, progress });
    },
    onApplied: (group, applied) => {
      // Owners and the configuration alone follow it: a message between threads costs as much as many entries.
      const matters = group === configGroup || this.#mustHost(group).led !== undefined;
      if (matters) this.#options.emit({ kind: 'applied', group, applied });
    },
    onMark: (group, compare, index) => {
      this.#options.emit({ kind: 'mark', group, compare, index });
    },
    onAcknowledged: (group, term, acknowledged) => {
      this.#remember(this.#mustHost(group), term, acknowledged);
    },
    onBehind: (group, leader) => {
      this.#transfers.receiver.fetch(group, leader);
    },
    onFailure: (group, reason, cause) => {
      const hosted = this.#mustHost(group);
      const isDisk = cause === 'disk';
      hosted.failure = reason;
      hosted.handOver = undefined;
      hosted.mend = isDisk ? { atMs: this.#options.clock.monotonicMs() + mendMs, afterMs: mendMs } : undefined;
      this.#resign(hosted);
      const [event, message] = isDisk
        ? ['disk-failed', 'the files of the group cannot be used: it is left to the others until they can']
        : ['copy-stopped', 'this copy of the group has stopped: rebuild it from the others'];
      this.#options.log('error', { event, group, cause, reason }, message);
      this.#options.emit({ kind: 'failure', group, reason });
    },
  };

  #mustHost(group: GroupId): Hosted {
    const hosted = this.#hosted.get(group);
    if (hosted === undefined) throw new Error(`group ${group} is not open`);
    return hosted;
  }

  /** That nobody leads is a line where a silence was noticed, not at everybody who is asked for a vote after that. */
  #logLeader(hosted: Hosted, leader: NodeId | undefined, term: number): void {
    const { log, self } = this.#options;
    const { group, known } = hosted;
    if (leader !== undefined) log('info', { event: 'follows', group, leader, term }, 'follows the leader of the group');
    else if (known !== undefined && known.leader !== self && known.term === term) {
      log('warn', { event: 'leader-silent', group, leader: known.leader, term }, 'does not hear the leader any more');
    }
  }

  // ---- leading ---------------------------------------------------------------------------------------------------

  #lead(hosted: Hosted): void {
    const { group, replica } = hosted;
    if (!this.#hasOwner(group)) return;
    const { raft, log, applied } = replica;
    const tail = log.entriesAfter(applied);
    this.#epoch += 1;
    hosted.led = { term: raft.term, epoch: this.#epoch };
    const { commit, durable, leaseUntilMs } = raft;
    this.#options.emit({
      kind: 'lead',
      group,
      term: raft.term,
      epoch: this.#epoch,
      applied,
      tail,
      progress: { commit, durable, leaseUntilMs },
    });
  }

  #resign(hosted: Hosted): void {
    if (hosted.led === undefined) return;
    hosted.led = undefined;
    this.#options.emit({ kind: 'resign', group: hosted.group });
  }

  /** What a leader does besides replicating: hand over, change the membership, go on after a hand-over failed. */
  #govern(hosted: Hosted, nowMs: number): void {
    if (!isLeader(hosted)) return;
    if (hosted.handOver !== undefined) {
      this.#continueHandOver(hosted, hosted.handOver, nowMs);
      return;
    }
    if (this.#hasOwner(hosted.group) && hosted.led === undefined) this.#lead(hosted);
    const writingMs = Math.round(hosted.replica.writingForMs(nowMs));
    if (writingMs > longWriteMs * this.#backOff(hosted, nowMs)) {
      // No hand-over: followers are not sent what this disk does not have, so none of them could catch up.
      hosted.replica.stepDown(`its disk has taken ${writingMs} ms for a write`);
      return;
    }
    const to = this.#successor(hosted, nowMs);
    if (to !== undefined) this.#handOver(hosted, to, nowMs);
    else if (this.#isStalled(hosted, nowMs)) {
      hosted.replica.stepDown(`its deciding thread has stood still for ${this.stalledMs} ms`);
    } else this.#stepMembership(hosted, nowMs);
  }

  /** To whom the group is to go now, if to anyone. */
  #successor(hosted: Hosted, nowMs: number): NodeId | undefined {
    if (nowMs < hosted.notBeforeMs) return undefined;
    const succession = this.#succession(hosted, nowMs);
    const backOff = this.#backOff(hosted, nowMs);
    const mayStay = this.#isNode && !this.#draining && (hosted.group === configGroup || this.#ranks.has(hosted.group));
    if (!mayStay || this.#isStalled(hosted, nowMs)) return anySuccessor(succession);
    const id = betterPlaced(succession);
    if (id === undefined) {
      hosted.better = undefined;
      return undefined;
    }
    if (hosted.better?.id !== id) hosted.better = { id, sinceMs: nowMs };
    const { failbackMs } = this.#options.topology.timings;
    // A leader that has only just begun serves nobody better than the one who ought to: after a start of the cluster.
    const justBegun = backOff === 1 && nowMs - hosted.leadsSinceMs < failbackMs;
    return justBegun || nowMs - hosted.better.sinceMs >= failbackMs * backOff ? id : undefined;
  }

  /** Doubles with each move of leadership within the last minute beyond two. */
  #backOff({ moves }: Hosted, nowMs: number): number {
    const recent = moves.filter((at) => nowMs - at < movesWindowMs).length;
    return Math.min(maximumBackOff, 2 ** Math.max(0, recent - 2));
  }

  /**
   * Whether the deciding thread has stalled so that another had better lead. On an overloaded machine all stall in turn,
   * and moving on helps nobody: the more often leadership has moved, the longer a leader bears it.
   */
  #isStalled(hosted: Hosted, nowMs: number): boolean {
    if (!this.#hasOwner(hosted.group)) return false;
    return this.stalledMs > maximumSilentMs * this.#backOff(hosted, nowMs);
  }

  #succession(hosted: Hosted, nowMs: number): Parameters<typeof betterPlaced>[0] {
    const { self, topology } = this.#options;
    return {
      self,
      order: this.#orderOf(hosted.group),
      peers: hosted.replica.raft.progress(),
      last: hosted.replica.log.last.index,
      nowMs,
      heartbeatMs: topology.timings.heartbeatMs,
    };
  }

  #handOver(hosted: Hosted, to: NodeId, nowMs: number): void {
    const { group } = hosted;
    hosted.counts.handOvers += 1;
    this.#options.log('info', { event: 'hand-over', group, to }, 'hands the group over');
    // A deciding thread that does not answer may go by the last lease that it heard of until that is over (R3).
    const leaseUntilMs = Math.min(
      hosted.replica.raft.endLease(),
      nowMs + this.#options.topology.timings.electionTimeoutMs,
    );
    hosted.handOver = { to, pauseUntilMs: Math.max(nowMs + pauseMs, leaseUntilMs), begun: false };
    if (!this.#hasOwner(group)) this.#transfer(hosted, hosted.handOver);
    else if (hosted.led !== undefined) this.#options.emit({ kind: 'pause', group, on: true });
  }

  #transfer(hosted: Hosted, handOver: HandOver): void {
    if (handOver.begun) return;
    handOver.begun = true;
    hosted.replica.transfer(handOver.to);
  }

  #continueHandOver(hosted: Hosted, handOver: HandOver, nowMs: number): void {
    if (!handOver.begun && nowMs >= handOver.pauseUntilMs) this.#transfer(hosted, handOver);
    if (!handOver.begun || hosted.replica.raft.transferringTo !== undefined) return;
    const { group } = hosted;
    hosted.counts.handOversFailed += 1;
    this.#options.log('warn', { event: 'hand-over-failed', group, to: handOver.to }, 'the hand-over came to nothing');
    hosted.handOver = undefined;
    hosted.notBeforeMs = nowMs + retryHandOverMs;
    this.#options.emit({ kind: 'pause', group, on: false });
  }

  #stepMembership(hosted: Hosted, nowMs: number): void {
    const { group, replica } = hosted;
    const step = replica.raft.membershipStep(nowMs);
    if (step === undefined || nowMs < hosted.notBeforeMs) return;
    // One at a time, and again only when it has not come into the log by then.
    hosted.notBeforeMs = nowMs + retryHandOverMs / 4;
    const entry: MembershipEntry = { kind: 'membership', at: this.#options.clock.wallMs(), ...step, lost: [] };
    this.#options.log('info', { event: 'membership', group, ...step }, 'changes the membership');
    if (hosted.led === undefined) replica.propose([encodeBody(entry)]);
    else this.#options.emit({ kind: 'append', group, epoch: hosted.led.epoch, entry });
  }

  // ---- who ought to lead -----------------------------------------------------------------------------------------

  #orderOf(group: GroupId): readonly NodeId[] {
    return this.#orders.get(group) ?? this.#options.topology.nodes.map(({ id }) => id);
  }

  /** Whether this process is in a state to lead the group: its own derived row has to give it a rank. */
  #isWilling(group: GroupId): boolean {
    if (!this.#isNode || this.#draining || this.stalledMs > 0) return false;
    const nowMs = this.#options.clock.monotonicMs();
    if ((this.#hosted.get(group)?.replica.writingForMs(nowMs) ?? 0) > longWriteMs) return false;
    return group === configGroup || this.#ranks.has(group);
  }

  /**
   * The last of a group's order, and the witness after them: whoever is not in the first majority of its voters with
   * this node. Under steady load they take entries in larger steps, which halves what following costs them.
   */
  #patientPeers(group: GroupId): ReadonlySet<NodeId> {
    const { self } = this.#options;
    const order = [self, ...this.#orderOf(group).filter((id) => id !== self)];
    const rest = this.#voters.filter((voter) => !order.includes(voter));
    return new Set([...order, ...rest].slice(Math.floor(this.#voters.length / 2) + 1));
  }

  // ---- what members have acknowledged (R8) -----------------------------------------------------------------------

  #remember(hosted: Hosted, term: number, acknowledged: readonly Acknowledgement[]): void {
    for (const { id, incarnation, index, applied } of acknowledged) {
      hosted.appliedBy.set(id, applied);
      const known = hosted.remembered.get(id);
      if (known !== undefined && !isLater({ incarnation, term, index }, known)) continue;
      hosted.remembered.set(id, { incarnation, term, index });
      if (id !== this.#options.self) {
        this.#dirty.set(`${hosted.group} ${id}`, { group: hosted.group, id, incarnation, term, index });
      }
    }
  }

  /** A leader hears it first. */
  #rememberFollowers(hosted: Hosted): void {
    const { raft } = hosted.replica;
    this.#remember(hosted, raft.term, raft.acknowledgements());
  }

  #remembered(group: GroupId, id: NodeId): Remembered | undefined {
    const hosted = this.#hosted.get(group);
    if (hosted !== undefined && isLeader(hosted)) this.#rememberFollowers(hosted);
    return hosted?.remembered.get(id);
  }

  #saveMemory(nowMs: number): void {
    this.#rememberedMs = nowMs;
    for (const hosted of this.#hosted.values()) if (isLeader(hosted)) this.#rememberFollowers(hosted);
    if (this.#dirty.size === 0) return;
    try {
      this.#options.state.rememberAcknowledged([...this.#dirty.values()]);
    } catch (error) {
      if (!isStoreError(error)) throw error;
      // Tried again with the next: what votes and appends need of this disk stops them by itself.
      return;
    }
    this.#dirty.clear();
  }

  /**
   * Removes what a snapshot replaces: below what is kept for auditors, and at a witness, which has no fold to make a
   * snapshot from, below what two full nodes have applied (R10). A peer that is behind pins nothing.
   */
  #trim({ group, replica, appliedBy, failure }: Hosted): void {
    if (failure !== undefined) return;
    const { topology, writer } = this.#options;
    const applied = this.#isNode
      ? replica.applied
      : (topology.nodes.map(({ id }) => appliedBy.get(id) ?? 0).sort((one, other) => other - one)[1] ?? 0);
    const held = this.#transfers.sender.heldIndex(group) ?? Number.POSITIVE_INFINITY;
    const through = Math.min(Math.min(applied, replica.applied) - topology.limits.keptLogEntries, held);
    if (through > replica.log.base.index + trimAtLeast) writer.trim(group, through);
  }

  // ---- peers -----------------------------------------------------------------------------------------------------

  /** Whether the peer counts majorities of the same voters; if not, both sides learn in what their files differ. */
  #agrees(from: NodeId, digest: string, description: string | undefined): boolean {
    if (digest === this.#topology.digest) {
      this.#mismatches.delete(from);
      return true;
    }
    const nowMs = this.#options.clock.monotonicMs();
    const known = this.#mismatches.get(from) ?? {
      difference: 'its nodes.yaml has other voters or sites',
      toldMs: Number.NEGATIVE_INFINITY,
    };
    if (!this.#mismatches.has(from)) {
      this.#options.log('error', { event: 'peer-refused', peer: from }, 'refused: other voters or sites');
    }
    if (description !== undefined) known.difference = differenceOf(this.#topology.description, description);
    if (nowMs - known.toldMs >= describeEveryMs) {
      known.toldMs = nowMs;
      this.#options.send(from, encodeGroupMessages(this.#topology.digest, [], this.#topology.description));
    }
    this.#mismatches.set(from, known);
    return false;
  }

  #send(to: NodeId, group: GroupId, message: RaftMessage): void {
    const waiting = this.#outgoing.get(to);
    if (waiting === undefined) this.#outgoing.set(to, [{ group, message }]);
    else waiting.push({ group, message });
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#options.clock.soon(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  /** All groups' messages to one peer travel together, as far as they fit. */
  #flush(): void {
    const { send } = this.#options;
    const { digest } = this.#topology;
    for (const [to, messages] of this.#outgoing) {
      let batch: GroupMessage[] = [];
      let bytes = 0;
      for (const each of messages) {
        const size = sizeOf(each.message);
        if (batch.length > 0 && bytes + size > maximumBatchBytes) {
          send(to, encodeGroupMessages(digest, batch));
          batch = [];
          bytes = 0;
        }
        batch.push(each);
        bytes += size;
      }
      if (batch.length > 0) send(to, encodeGroupMessages(digest, batch));
    }
    this.#outgoing.clear();
  }

  #statusOf(hosted: Hosted, nowMs: number): ReplicaStatus {
    const { group, replica, failure } = hosted;
    const { raft, log } = replica;
    const { voters, learners } = raft.membership;
    return {
      group,
      role: raft.role === 'pre-candidate' ? 'candidate' : raft.role,
      leader: raft.leader,
      term: raft.term,
      base: log.base.index,
      last: log.last.index,
      lastTerm: log.last.term,
      durable: raft.durable,
      commit: raft.commit,
      applied: replica.applied,
      silenceMs: raft.silenceMs(nowMs),
      leaseMs: Math.max(0, raft.leaseUntilMs - nowMs),
      rank: this.#ranks.get(group),
      order: this.#orderOf(group),
      voters,
      learners,
      incarnation: raft.incarnation,
      confirmed: raft.confirmed,
      votes: raft.votes,
      transferringTo: raft.transferringTo,
      failure,
      counts: hosted.counts,
      followers: [...raft.progress()].map(([id, { match, applied, lastHeardMs }]) => ({
        id,
        match,
        applied,
        silenceMs: Math.round(nowMs - lastHeardMs),
      })),
    };
  }
}

function isLeader({ replica, failure }: Hosted): boolean {
  return failure === undefined && replica.raft.role === 'leader';
}

function isLater(one: Remembered, other: Remembered): boolean {
  if (one.incarnation !== other.incarnation) return one.incarnation > other.incarnation;
  if (one.term !== other.term) return one.term > other.term;
  return one.index > other.index;
}

function sizeOf(message: RaftMessage): number {
  const entries = message.kind === 'append' ? message.entries : [];
  return entries.reduce((sum, entry) => sum + entry.body.length + 24, 600);
}

/** What every process of a cluster must have the same: who votes, at which site. Everything else may be rolled out. */
function describeTopology({ cluster, nodes, witness }: Topology): string {
  const members = [
    ...nodes.map(({ id, site }) => `${id}@${site}`),
    ...(witness ? [`${witness.id}@${witness.site}`] : []),
  ];
  return [`cluster ${cluster}`, ...members.sort()].join('\n');
}

/** What two descriptions have that the other has not. */
function differenceOf(ours: string, theirs: string): string {
  const [our, their] = [ours.split('\n'), theirs.slice(0, 10_000).split('\n')];
  const only = (some: string[], others: string[]): string => some.filter((each) => !others.includes(each)).join(', ');
  return `only here: ${only(our, their) || 'nothing'}; only there: ${only(their, our) || 'nothing'}`;
}
