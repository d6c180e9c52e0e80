import type { Clock, Timer } from '../base/clock.ts';
import { assert, describeError, storeFailureOf, whenReadable, type StoreFailure } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import type { LogEntry, LogPosition, MembershipEntry } from '../store/entry.ts';
import { mergeAppends, type GroupWriter, type WriterEvent } from '../store/writer.ts';
import { LogTail, type EntrySource } from './log-tail.ts';
import {
  Raft,
  type Acknowledgement,
  type HardState,
  type Membership,
  type RaftMessage,
  type Ready,
  type Remembered,
} from './raft.ts';

export interface ReplicaOptions {
  readonly group: GroupId;
  readonly self: NodeId;
  readonly incarnation: number;
  readonly memberships: readonly Membership[];
  readonly campaignDelayMs: (leader: NodeId | undefined) => number;
  readonly willing: () => boolean;
  readonly remembered: (id: NodeId) => Remembered | undefined;
  readonly hardState: HardState;
  readonly source: EntrySource;
  readonly applied: number;
  readonly patient?: () => ReadonlySet<NodeId>;
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly writer: GroupWriter;
  /** Syncs term and vote; returns when they are on disk. */
  readonly saveHardState: (state: HardState) => void;
  /** Syncs this member's new incarnation; returns when it is on disk. */
  readonly saveIncarnation: (incarnation: number) => void;
  /** Syncs what is about to be cut, so that it can be offered to the present owner (R9). */
  readonly salvage: (entries: readonly LogEntry[]) => void;
  readonly send: (to: NodeId, message: RaftMessage) => void;
  readonly listener: ReplicaListener;
}

export interface ReplicaListener {
  /** This node came to lead, or no longer does. */
  onRole(group: GroupId, leading: boolean, term: number): void;
  /** This node stands for election, or has since the last turn. */
  onCampaign?(group: GroupId, term: number, reason: string): void;
  /** Another leader is known than before, or none. */
  onLeader(group: GroupId, leader: NodeId | undefined, term: number): void;
  /** More of the log is committed or on this node's disk, or the lease was renewed. */
  onProgress(group: GroupId, progress: Progress): void;
  /** The fold in the file has come this far. */
  onApplied(group: GroupId, applied: number): void;
  onMark(group: GroupId, compare: string, index: number): void;
  /** What members have on their disks in this term, as the leader says. */
  onAcknowledged(group: GroupId, term: number, acknowledged: readonly Acknowledgement[]): void;
  /** The leader has trimmed what this copy lacks. */
  onBehind(group: GroupId, leader: NodeId): void;
  /**
   * Nothing more is done for the group here. `disk`: its files could not be read or written, and once they can it may
   * begin anew with what is in them. `damage`: what is in them makes no sense. `alarm`: this copy contradicts the others.
   */
  onFailure(group: GroupId, reason: string, cause: FailureCause): void;
}

export type FailureCause = StoreFailure | 'alarm';

export interface Progress {
  readonly commit: number;
  readonly durable: number;
  /** Monotonic time until which a leader may answer for `local` ranges; 0: it may not (R3). */
  readonly leaseUntilMs: number;
}

type Write = NonNullable<Ready['write']>;

/** Committed entries are applied at the latest this long after the last ones, or when so many have gathered. */
const applyDelayMs = 50;
const applyBatch = 512;

/**
 * Drives one group's consensus: carries its outputs to disk and peers in the order that `raft.ts` asks for, and
 * brings back what has been synced. Everything that happens in one turn of the event loop shares one flush, and so
 * one message to each peer and one transaction.
 */
export class Replica {
  readonly group: GroupId;
  readonly raft: Raft;
  readonly #options: ReplicaOptions;
  readonly #tail: LogTail;
  #applied: number;
  #applyRequested: number;
  #applyTimer: Timer | undefined;
  /** When apply was last asked for. */
  #appliedMs: number;
  #writing = false;
  #writingSinceMs = 0;
  #flushScheduled = false;
  #reported = { commit: 0, durable: 0, leaseUntilMs: 0, leading: false, term: 0 };
  #reportedLeader: NodeId | undefined;
  #reportedCampaigns = 0;
  /** What has been cut since the write that is under way was handed over: its report says nothing about what follows. */
  #cutSinceWrite: number | undefined;
  #waiting: Write[] = [];
  #stopped = false;
  /** A snapshot is about to replace the file: nothing is written to it meanwhile. */
  #installing = false;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.group = options.group;
    this.#tail = new LogTail(options.source);
    this.#applied = options.applied;
    this.#applyRequested = options.applied;
    this.#appliedMs = options.clock.monotonicMs();
    this.raft = new Raft({ ...options, log: this.#tail, nowMs: this.#appliedMs });
  }

  get applied(): number {
    return this.#applied;
  }

  /** How long the write that is under way has taken; 0 when there is none. */
  writingForMs(nowMs: number): number {
    return this.#writing ? nowMs - this.#writingSinceMs : 0;
  }

  get log(): LogTail {
    return this.#tail;
  }

  /** Call at least every quarter of the heartbeat. */
  tick(): void {
    if (this.#stopped) return;
    this.#attempt(() => {
      this.raft.tick(this.#options.clock.monotonicMs());
    });
    this.#scheduleFlush();
  }

  receive(from: NodeId, message: RaftMessage): void {
    if (this.#stopped) return;
    this.#attempt(() => {
      this.raft.receive(from, message, this.#options.clock.monotonicMs());
    });
    const isLeaders = message.kind === 'append' && message.term === this.raft.term && this.raft.leader === from;
    if (isLeaders && message.acknowledged.length > 0) {
      this.#options.listener.onAcknowledged(this.group, message.term, message.acknowledged);
    }
    this.#scheduleFlush();
  }

  /** Appends entries; the index of the first, or undefined when this node does not lead the group. */
  propose(bodies: readonly string[]): number | undefined {
    if (this.#stopped) return undefined;
    const first = this.#attempt(() => this.raft.propose(bodies, this.#options.clock.monotonicMs()));
    if (first !== undefined) this.#scheduleFlush();
    return first;
  }

  /** Hands leadership to a voter (3.10). False: not possible now. */
  transfer(to: NodeId): boolean {
    const begun = !this.#stopped && this.raft.transfer(to, this.#options.clock.monotonicMs());
    this.#scheduleFlush();
    return begun;
  }

  /** Leads no longer, at once. */
  stepDown(reason: string): void {
    if (this.#stopped) return;
    this.raft.stepDown(this.#options.clock.monotonicMs(), reason);
    this.#flush();
  }

  /** An operator gives up the members that `entry` leaves out. */
  recover(entry: MembershipEntry): boolean {
    const begun = !this.#stopped && this.raft.recover(entry, this.#options.clock.monotonicMs());
    this.#scheduleFlush();
    return begun;
  }

  /** See `Raft.takeSnapshot`; what is about to be replaced has been salvaged when this returns. */
  takeSnapshot(position: LogPosition): 'have' | 'useless' | 'install' {
    if (this.#stopped) return 'useless';
    const taken = this.raft.takeSnapshot(position);
    const salvaged = this.#attempt(() => {
      if (taken.kind === 'install' && taken.removed.length > 0) this.#options.salvage(taken.removed);
      return true;
    });
    if (salvaged !== true) return 'useless';
    if (taken.kind === 'install') this.#installing = true;
    this.#scheduleFlush();
    return taken.kind;
  }

  /** The group's file was replaced by a snapshot: log and fold stand at `position`. */
  onInstalled(position: LogPosition, membership: Membership, source: EntrySource): void {
    this.#tail.onReplaced(source);
    this.raft.onSnapshot(position, membership);
    this.#installing = false;
    this.#waiting = [];
    this.#writing = false;
    this.#cutSinceWrite = undefined;
    this.#applied = position.index;
    this.#applyRequested = position.index;
    this.#options.listener.onApplied(this.group, position.index);
    this.#scheduleFlush();
  }

  onWriter(event: WriterEvent): void {
    if (this.#stopped) return;
    switch (event.kind) {
      case 'written':
        this.#writing = false;
        this.#reportDurable(event.durable);
        this.raft.onApplied(event.applied);
        if (event.applied !== this.#applied) {
          this.#applied = event.applied;
          this.#options.listener.onApplied(this.group, event.applied);
        }
        // What has become durable may be committed by it: answers leave in this turn, not after the next.
        this.#flush();
        return;
      case 'trimmed':
        this.#tail.onTrimmed(event.base);
        return;
      case 'snapshot-refused':
        if (!this.#installing) return;
        this.#installing = false;
        this.raft.onSnapshotRefused();
        this.#scheduleFlush();
        return;
      case 'snapshot-begun':
      case 'snapshot-written':
      case 'installed':
        return;
      case 'mark':
        this.#options.listener.onMark(this.group, event.compare, event.index);
        return;
      case 'failed':
        this.fail(event.reason, event.cause);
        return;
    }
  }

  /**
   * Fenced: what was cut after the write had been handed over may stand in the log again, from a later leader, while
   * the disk has yet to cut and write it again. Such a report counts up to the cut only.
   */
  #reportDurable(durable: LogPosition): void {
    const cut = this.#cutSinceWrite;
    const counts = cut === undefined || durable.index <= cut ? durable : this.#tail.position(cut);
    if (counts !== undefined) this.raft.onDurable(counts);
    this.#tail.onDurable(this.raft.durable);
  }

  stop(): void {
    this.#stopped = true;
    this.#applyTimer?.cancel();
  }

  /** This copy stops here and now: nothing more is told or written by it. */
  fail(reason: string, cause: FailureCause): void {
    if (this.#stopped) return;
    this.stop();
    this.#options.listener.onFailure(this.group, reason, cause);
  }

  /** Whatever reads the group's file, or keeps what has to be kept: what cannot be read or kept stops this copy. */
  #attempt<Result>(action: () => Result): Result | undefined {
    return whenReadable(action, (error) => {
      this.fail(describeError(error), storeFailureOf(error));
    });
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#options.clock.soon(() => {
      this.#flushScheduled = false;
      if (!this.#stopped) this.#flush();
    });
  }

  #flush(): void {
    const { clock, listener, send, saveHardState, saveIncarnation, salvage } = this.#options;
    const ready = this.#attempt(() => this.raft.takeReady(clock.monotonicMs()));
    if (this.raft.failure !== undefined) this.fail(this.raft.failure, 'alarm');
    if (ready === undefined) return;
    const removed = ready.write?.removed ?? [];
    this.#attempt(() => {
      if (ready.incarnation !== undefined) saveIncarnation(ready.incarnation);
      if (ready.hardState !== undefined) saveHardState(ready.hardState);
      // Before anything is cut, and before anybody is told.
      if (removed.length > 0) salvage(removed);
    });
    // Nothing is said and nothing written by what could not be kept.
    if (this.#stopped) return;
    for (const { to, message } of ready.messages) send(to, message);
    if (ready.write !== undefined) {
      const { keepThrough } = ready.write;
      if (keepThrough !== undefined) this.#cutSinceWrite = Math.min(this.#cutSinceWrite ?? keepThrough, keepThrough);
      this.#waiting.push(ready.write);
    }
    this.#write(ready.commit);
    this.#report(listener);
    if (ready.fetchSnapshotFrom !== undefined) listener.onBehind(this.group, ready.fetchSnapshotFrom);
  }

  /**
   * One transaction at a time is under way for a group; what gathers meanwhile goes into the next one together. An
   * append alone touches a page or two and is what answers wait for; applying touches a dozen, and many entries share
   * them, so it is left until enough has gathered or some time has passed.
   */
  #write(commit: number): void {
    if (this.#writing || this.#installing) return;
    const appends = this.#waiting;
    const nowMs = this.#options.clock.monotonicMs();
    const behind = commit - this.#applyRequested;
    const due = behind >= applyBatch || (behind > 0 && nowMs - this.#appliedMs >= applyDelayMs);
    if (appends.length === 0 && !due) {
      if (behind > 0) this.#applyLater();
      return;
    }
    this.#waiting = [];
    if (due) this.#appliedMs = nowMs;
    else if (behind > 0) this.#applyLater();
    this.#submit(appends, due ? commit : this.#applyRequested);
  }

  #applyLater(): void {
    this.#applyTimer ??= this.#options.clock.after(applyDelayMs, () => {
      this.#applyTimer = undefined;
      if (!this.#stopped) this.#write(this.raft.commit);
    });
  }

  #submit(appends: readonly Write[], applyThrough: number): void {
    this.#writing = true;
    this.#writingSinceMs = this.#options.clock.monotonicMs();
    this.#applyRequested = Math.max(this.#applyRequested, applyThrough);
    const { writer } = this.#options;
    this.#cutSinceWrite = undefined;
    // One request, and so one report: what was cut and came again would seem to be on disk between two of them.
    writer.submit({ group: this.group, ...mergeAppends(appends), applyThrough });
  }

  #report(listener: ReplicaListener): void {
    const leading = this.raft.role === 'leader';
    const { term, commit, durable, leader, leaseUntilMs, campaigns } = this.raft;
    if (campaigns.count !== this.#reportedCampaigns) {
      this.#reportedCampaigns = campaigns.count;
      listener.onCampaign?.(this.group, term, campaigns.reason);
    }
    if (leading !== this.#reported.leading || (leading && term !== this.#reported.term)) {
      this.#reported = { ...this.#reported, leading, term };
      listener.onRole(this.group, leading, term);
    }
    if (leader !== this.#reportedLeader) {
      this.#reportedLeader = leader;
      listener.onLeader(this.group, leader, term);
    }
    assert(commit >= this.#reported.commit, `commit index of ${this.group} never goes back`);
    const before = this.#reported;
    // A little more lease is not worth a message between threads.
    const lease = leaseUntilMs - before.leaseUntilMs;
    const leaseMoved = lease < 0 || lease >= this.#options.heartbeatMs / 2;
    if (commit !== before.commit || durable !== before.durable || leaseMoved) {
      this.#reported = { ...before, commit, durable, leaseUntilMs };
      listener.onProgress(this.group, { commit, durable, leaseUntilMs });
    }
  }
}
