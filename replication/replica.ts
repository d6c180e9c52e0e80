import type { Clock, Timer } from '../base/clock.ts';
import { assert } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { GroupWriter, WriterEvent } from '../store/writer.ts';
import { LogTail, type EntrySource } from './log-tail.ts';
import { Raft, type HardState, type RaftMessage, type Ready } from './raft.ts';

export interface ReplicaOptions {
  readonly group: GroupId;
  readonly self: NodeId;
  readonly voters: readonly NodeId[];
  readonly mayCampaign: () => boolean;
  readonly hardState: HardState;
  readonly source: EntrySource;
  readonly applied: number;
  readonly patient?: ReadonlySet<NodeId>;
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
  readonly clock: Clock;
  readonly writer: GroupWriter;
  /** Syncs term and vote; returns when they are on disk. */
  readonly saveHardState: (state: HardState) => void;
  readonly send: (to: NodeId, message: RaftMessage) => void;
  readonly listener: ReplicaListener;
}

export interface ReplicaListener {
  /** This node came to lead, or no longer does. */
  onRole(group: GroupId, leading: boolean, term: number): void;
  /** More of the log is committed, or on this node's disk. */
  onProgress(group: GroupId, progress: { readonly commit: number; readonly durable: number }): void;
  /** The fold in the file has come this far. */
  onApplied(group: GroupId, applied: number): void;
  onMark(group: GroupId, compare: string, index: number): void;
  /** This copy has stopped: its log is broken or its disk cannot be written. */
  onFailure(group: GroupId, reason: string): void;
}

type Append = NonNullable<Ready['write']>;

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
  #flushScheduled = false;
  #reported = { commit: 0, durable: 0, leading: false, term: 0 };
  #waiting: Append[] = [];
  #stopped = false;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.group = options.group;
    this.#tail = new LogTail(options.source);
    this.#applied = options.applied;
    this.#applyRequested = options.applied;
    this.#appliedMs = options.clock.monotonicMs();
    this.raft = new Raft({ ...options, log: this.#tail });
  }

  get applied(): number {
    return this.#applied;
  }

  get log(): LogTail {
    return this.#tail;
  }

  /** Call at least every quarter of the heartbeat. */
  tick(): void {
    if (this.#stopped) return;
    this.raft.tick(this.#options.clock.monotonicMs());
    this.#scheduleFlush();
  }

  receive(from: NodeId, message: RaftMessage): void {
    if (this.#stopped) return;
    this.raft.receive(from, message, this.#options.clock.monotonicMs());
    this.#scheduleFlush();
  }

  /** Appends entries; the index of the first, or undefined when this node does not lead the group. */
  propose(bodies: readonly string[]): number | undefined {
    if (this.#stopped) return undefined;
    const first = this.raft.propose(bodies);
    if (first !== undefined) this.#scheduleFlush();
    return first;
  }

  onWriter(event: WriterEvent): void {
    if (this.#stopped) return;
    switch (event.kind) {
      case 'written':
        this.#writing = false;
        // A report about entries that were cut since does not count: raft knows how far it is this log that is on disk.
        this.raft.onDurable(event.durable);
        this.#tail.onDurable(this.raft.durable);
        this.raft.onApplied(event.applied);
        if (event.applied !== this.#applied) {
          this.#applied = event.applied;
          this.#options.listener.onApplied(this.group, event.applied);
        }
        // What has become durable may be committed by it: answers leave in this turn, not after the next.
        this.#flush();
        return;
      case 'mark':
        this.#options.listener.onMark(this.group, event.compare, event.index);
        return;
      case 'failed':
        this.#stop(event.reason);
        return;
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#applyTimer?.cancel();
  }

  #stop(reason: string): void {
    this.stop();
    this.#options.listener.onFailure(this.group, reason);
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
    const { clock, listener, send, saveHardState } = this.#options;
    const ready = this.raft.takeReady(clock.monotonicMs());
    if (this.raft.failure !== undefined) {
      this.#stop(this.raft.failure);
      return;
    }
    if (ready.hardState !== undefined) saveHardState(ready.hardState);
    for (const { to, message } of ready.messages) send(to, message);
    if (ready.write !== undefined) this.#waiting.push(ready.write);
    this.#write(ready.commit);
    this.#report(listener);
  }

  /**
   * One transaction at a time is under way for a group; what gathers meanwhile goes into the next one together. An
   * append alone touches a page or two and is what answers wait for; applying touches a dozen, and many entries share
   * them, so it is left until enough has gathered or some time has passed.
   */
  #write(commit: number): void {
    if (this.#writing) return;
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

  #submit(appends: readonly Append[], applyThrough: number): void {
    this.#writing = true;
    this.#applyRequested = Math.max(this.#applyRequested, applyThrough);
    const { writer } = this.#options;
    for (const append of appends) writer.submit({ group: this.group, ...append, applyThrough });
    if (appends.length === 0) writer.submit({ group: this.group, keepThrough: undefined, entries: [], applyThrough });
  }

  #report(listener: ReplicaListener): void {
    const leading = this.raft.role === 'leader';
    const { term, commit, durable } = this.raft;
    if (leading !== this.#reported.leading || (leading && term !== this.#reported.term)) {
      this.#reported = { ...this.#reported, leading, term };
      listener.onRole(this.group, leading, term);
    }
    assert(commit >= this.#reported.commit, `commit index of ${this.group} never goes back`);
    if (commit !== this.#reported.commit || durable !== this.#reported.durable) {
      this.#reported = { ...this.#reported, commit, durable };
      listener.onProgress(this.group, { commit, durable });
    }
  }
}
