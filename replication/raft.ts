import { assert } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import { chainEntry, type LogEntry, type LogPosition } from '../store/entry.ts';

/*
 * Over 500 lines because the rules of consensus can only be judged together.
 *
 * The consensus of one group, as published by Ongaro ("Consensus: Bridging Theory and Practice", 2014), as a pure
 * state machine: no socket, file, timer or thread. Inputs are method calls with the time given; outputs gather in
 * `takeReady()`, and whoever drives the machine must carry them out in this order:
 *
 *   1. sync `hardState` (term and vote) to disk, when present;
 *   2. send `messages`;
 *   3. hand `write` to the group's file, and report with `onDurable` what it has synced;
 *   4. act on `commit` (apply, answer).
 *
 * Messages, all to one peer, none of which needs to arrive:
 *
 *   vote          candidate -> voter   "my log ends here (index, term); vote for me in this term"
 *   vote-reply    voter -> candidate   granted or not; the vote was synced before this was sent
 *   append        leader -> follower   entries that follow `previous`, the leader's commit index, a sequence number;
 *                                      without entries it is the heartbeat
 *   append-reply  follower -> leader   accepted: everything up to `match` is on the follower's disk and equals the
 *                                      leader's log; refused: the follower lacks `previous`, send again after `match`
 *
 * Rules, with their place in the thesis:
 *
 *   - A higher term in any message makes the receiver a follower of that term (3.3).
 *   - A vote is given once a term, to a log that ends no earlier than the voter's own (3.6.1).
 *   - A follower accepts entries only after the one it has at `previous`; a conflicting tail is cut (3.5).
 *   - An entry is committed when a majority has it on disk and it is of the leader's own term; all before it are
 *     committed with it (3.6.2). The leader sends an entry only after its own sync, so what it answers is always in
 *     its own file, and no follower's log is ever longer than the leader's disk.
 *   - Entries carry a hash chain. Another hash at the same index and term, or a conflict at or below the commit
 *     index, cannot come from this protocol: that copy is broken, stops taking part and says so (R6).
 *
 * Who may lead: in this release only the first node of the group's failover order campaigns (`mayCampaign`), and
 * only by winning a vote, so a node with an old or empty disk does not come to lead. Elections by timeout, PreVote,
 * CheckQuorum, leases, transfer and membership changes are not here yet.
 */

export type RaftMessage =
  | { readonly kind: 'vote'; readonly term: number; readonly lastIndex: number; readonly lastTerm: number }
  | { readonly kind: 'vote-reply'; readonly term: number; readonly granted: boolean }
  | {
      readonly kind: 'append';
      readonly term: number;
      readonly previous: LogPosition;
      readonly entries: readonly LogEntry[];
      readonly commit: number;
      readonly sequence: number;
    }
  | {
      readonly kind: 'append-reply';
      readonly term: number;
      readonly accepted: boolean;
      readonly match: number;
      readonly applied: number;
      readonly sequence: number;
    };

/** Term and vote: on disk before anyone is told of them. */
export interface HardState {
  readonly term: number;
  readonly votedFor: NodeId | undefined;
}

/** The log as consensus sees it: the newest part in memory, the rest read from the group's file. */
export interface RaftLog {
  readonly last: LogPosition;
  position(index: number): LogPosition | undefined;
  /** Entries from `from` on, at least one when there is one, within about `maximumBytes`. */
  entries(from: number, maximumBytes: number): readonly LogEntry[];
  append(entry: LogEntry): void;
  cut(keepThrough: number): void;
}

export interface RaftOptions {
  readonly group: GroupId;
  readonly self: NodeId;
  /** Everyone who votes, self included. */
  readonly voters: readonly NodeId[];
  /** Whether this node may come to lead now. */
  readonly mayCampaign: () => boolean;
  readonly hardState: HardState;
  readonly log: RaftLog;
  /** Applied index of the fold: committed for certain. */
  readonly applied: number;
  /**
   * Peers that a majority does not need while the others answer: they get entries gathered, at most `gatherMs` late.
   * A hint for the machine's load, never a condition: with any eager peer silent they are sent everything at once.
   */
  readonly patient?: ReadonlySet<NodeId>;
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
}

export interface Ready {
  readonly hardState: HardState | undefined;
  readonly messages: readonly { readonly to: NodeId; readonly message: RaftMessage }[];
  readonly write: { readonly keepThrough: number | undefined; readonly entries: readonly LogEntry[] } | undefined;
  readonly commit: number;
}

interface Progress {
  /** On the peer's disk, and equal to ours. */
  match: number;
  /** Next index to send. */
  next: number;
  /** Peer's fold, as last reported. */
  applied: number;
  /** Sequence number of the first message after the last rewind: refusals of older ones are stale. */
  rewoundAt: number;
  lastSentMs: number;
  /** When entries were sent last. */
  lastEntriesMs: number;
  lastHeardMs: number;
  /** Messages with entries that are sent and not acknowledged, in order, and their size together. */
  unacknowledged: { readonly through: number; readonly bytes: number }[];
  unacknowledgedBytes: number;
}

/** Bytes of entries in one message: well below the broker's payload limit, also with several groups in a batch. */
const maximumMessageBytes = 256 * 1024;
/** How long, and how many, entries gather for a patient peer. */
const gatherMs = 20;
const gatheredEntries = 256;
/** Sent beyond what a peer has acknowledged: bounds what lies in brokers and sockets for a slow one. */
const maximumUnacknowledgedEntries = 8192;
const maximumUnacknowledgedBytes = 8 * 1024 * 1024;

export class Raft {
  readonly group: GroupId;
  readonly self: NodeId;
  readonly #voters: readonly NodeId[];
  readonly #mayCampaign: () => boolean;
  readonly #log: RaftLog;
  readonly #patient: ReadonlySet<NodeId>;
  readonly #heartbeatMs: number;
  readonly #electionTimeoutMs: number;

  #term: number;
  #votedFor: NodeId | undefined;
  #role: 'follower' | 'candidate' | 'leader' = 'follower';
  #leader: NodeId | undefined;
  #commit: number;
  #applied: number;
  /** Our log is on our disk up to here. */
  #durable: number;
  #votes = new Set<NodeId>();
  #peers = new Map<NodeId, Progress>();
  #campaignAtMs = 0;
  #leaderHeardMs = Number.NEGATIVE_INFINITY;
  #sequence = 0;
  /** Follower: equal to the leader's log up to here, in memory at least. */
  #matched = 0;
  #acknowledgeTo: { leader: NodeId; sequence: number } | undefined;
  #failure: string | undefined;

  #hardStateChanged = false;
  #messages: { to: NodeId; message: RaftMessage }[] = [];
  #staged: LogEntry[] = [];
  #keepThrough: number | undefined;

  constructor(options: RaftOptions) {
    this.group = options.group;
    this.self = options.self;
    this.#voters = options.voters;
    this.#mayCampaign = options.mayCampaign;
    this.#log = options.log;
    this.#patient = options.patient ?? new Set();
    this.#heartbeatMs = options.heartbeatMs;
    this.#electionTimeoutMs = options.electionTimeoutMs;
    this.#term = options.hardState.term;
    this.#votedFor = options.hardState.votedFor;
    this.#commit = options.applied;
    this.#applied = options.applied;
    this.#durable = options.log.last.index;
  }

  get term(): number {
    return this.#term;
  }

  get role(): 'follower' | 'candidate' | 'leader' {
    return this.#role;
  }

  /** Who leads this term, as far as this node knows. */
  get leader(): NodeId | undefined {
    return this.#leader;
  }

  get commit(): number {
    return this.#commit;
  }

  get durable(): number {
    return this.#durable;
  }

  /** Why this copy has stopped (a broken log), or undefined. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Milliseconds since the leader was heard; at the leader, since a majority was. Infinity before the first time. */
  silenceMs(nowMs: number): number {
    if (this.#role !== 'leader') return nowMs - this.#leaderHeardMs;
    const heard = [nowMs, ...[...this.#peers.values()].map((peer) => peer.lastHeardMs)].sort((a, b) => b - a);
    return nowMs - (heard[this.#majority() - 1] ?? nowMs);
  }

  /** What the leader knows of each peer, for `status`. */
  progress(): ReadonlyMap<NodeId, { readonly match: number; readonly applied: number; readonly lastHeardMs: number }> {
    return this.#peers;
  }

  /** Time has passed. Call at least every quarter of the heartbeat. */
  tick(nowMs: number): void {
    if (this.#failure !== undefined) return;
    if (this.#role === 'leader') {
      for (const [peer, progress] of this.#peers) {
        if (nowMs - progress.lastSentMs >= this.#heartbeatMs) this.#sendAppend(peer, progress, nowMs, true);
      }
    } else if (
      nowMs >= this.#campaignAtMs &&
      nowMs - this.#leaderHeardMs >= this.#electionTimeoutMs &&
      this.#mayCampaign()
    ) {
      this.#campaign(nowMs);
    }
  }

  /** Appends bodies as entries of this term; the index of the first, or undefined when this node does not lead. */
  propose(bodies: readonly string[]): number | undefined {
    if (this.#role !== 'leader' || this.#failure !== undefined) return undefined;
    const first = this.#log.last.index + 1;
    for (const body of bodies) this.#appendOwn(body);
    return first;
  }

  /** The group's file has synced the log up to `position`. A report about entries that were cut since is ignored. */
  onDurable(position: LogPosition): void {
    if (this.#log.position(position.index)?.hash !== position.hash || position.index <= this.#durable) return;
    this.#durable = position.index;
    if (this.#role === 'leader') {
      this.#advanceCommit();
    } else if (this.#acknowledgeTo !== undefined) {
      // Also when more has arrived meanwhile: under load a follower may never be level with what it has received.
      this.#acknowledge(this.#acknowledgeTo.leader, this.#acknowledgeTo.sequence);
      if (this.#durable >= this.#matched) this.#acknowledgeTo = undefined;
    }
  }

  onApplied(index: number): void {
    this.#applied = index;
  }

  receive(from: NodeId, message: RaftMessage, nowMs: number): void {
    if (this.#failure !== undefined || !this.#voters.includes(from) || from === this.self) return;
    if (message.term > this.#term) this.#follow(message.term, undefined);
    switch (message.kind) {
      case 'vote':
        this.#onVote(from, message);
        return;
      case 'vote-reply':
        if (message.granted && message.term === this.#term && this.#role === 'candidate') {
          this.#votes.add(from);
          this.#leadWhenElected(nowMs);
        }
        return;
      case 'append':
        this.#onAppend(from, message, nowMs);
        return;
      case 'append-reply':
        if (message.term === this.#term && this.#role === 'leader') this.#onAppendReply(from, message, nowMs);
        return;
    }
  }

  /** Sends what peers lack, and hands over everything that is to be carried out. */
  takeReady(nowMs: number): Ready {
    if (this.#role === 'leader') {
      for (const [peer, progress] of this.#peers) {
        while (this.#hasUnsent(progress) && !this.#mayGather(peer, progress, nowMs)) {
          this.#sendAppend(peer, progress, nowMs, false);
        }
      }
    }
    const ready: Ready = {
      hardState: this.#hardStateChanged ? { term: this.#term, votedFor: this.#votedFor } : undefined,
      messages: this.#messages,
      write:
        this.#staged.length > 0 || this.#keepThrough !== undefined
          ? { keepThrough: this.#keepThrough, entries: this.#staged }
          : undefined,
      commit: this.#commit,
    };
    this.#hardStateChanged = false;
    this.#messages = [];
    this.#staged = [];
    this.#keepThrough = undefined;
    return ready;
  }

  // ---- elections -------------------------------------------------------------------------------------------------

  #campaign(nowMs: number): void {
    this.#term += 1;
    this.#votedFor = this.self;
    this.#hardStateChanged = true;
    this.#role = 'candidate';
    this.#leader = undefined;
    this.#votes = new Set([this.self]);
    this.#campaignAtMs = nowMs + this.#electionTimeoutMs;
    const { last } = this.#log;
    for (const peer of this.#voters) {
      if (peer === this.self) continue;
      this.#send(peer, { kind: 'vote', term: this.#term, lastIndex: last.index, lastTerm: last.term });
    }
    this.#leadWhenElected(nowMs);
  }

  #onVote(from: NodeId, message: RaftMessage & { kind: 'vote' }): void {
    const { last } = this.#log;
    const upToDate =
      message.lastTerm > last.term || (message.lastTerm === last.term && message.lastIndex >= last.index);
    const free = this.#votedFor === undefined || this.#votedFor === from;
    const granted = message.term === this.#term && free && upToDate;
    if (granted && this.#votedFor === undefined) {
      this.#votedFor = from;
      this.#hardStateChanged = true;
    }
    this.#send(from, { kind: 'vote-reply', term: this.#term, granted });
  }

  #leadWhenElected(nowMs: number): void {
    if (this.#votes.size < this.#majority()) return;
    this.#role = 'leader';
    this.#leader = this.self;
    const { last } = this.#log;
    this.#peers = new Map(
      this.#voters
        .filter((peer) => peer !== this.self)
        .map((peer) => [
          peer,
          {
            match: 0,
            next: last.index + 1,
            applied: 0,
            rewoundAt: 0,
            lastEntriesMs: nowMs,
            lastSentMs: nowMs,
            lastHeardMs: nowMs,
            unacknowledged: [],
            unacknowledgedBytes: 0,
          },
        ]),
    );
    // Nothing of earlier terms is committed by counting, so the new leader enters one entry of its own (3.6.2).
    this.#appendOwn(JSON.stringify({ kind: 'no-op', leader: this.self, term: this.#term }));
  }

  #follow(term: number, leader: NodeId | undefined): void {
    if (term > this.#term) {
      this.#term = term;
      this.#votedFor = undefined;
      this.#hardStateChanged = true;
    }
    this.#role = 'follower';
    this.#leader = leader;
    this.#peers = new Map();
    this.#matched = 0;
    this.#acknowledgeTo = undefined;
  }

  // ---- replication: leader ---------------------------------------------------------------------------------------

  #appendOwn(body: string): void {
    const entry = chainEntry(this.#log.last, this.#term, body);
    this.#log.append(entry);
    this.#staged.push(entry);
  }

  #hasUnsent(progress: Progress): boolean {
    // Only what is on this node's own disk: as long as nobody else may lead, a follower with a longer log than the
    // leader's disk would keep the leader from winning its vote after a crash. Elections lift this (10.2.1).
    return (
      progress.next <= this.#durable &&
      progress.next - progress.match <= maximumUnacknowledgedEntries &&
      progress.unacknowledgedBytes < maximumUnacknowledgedBytes
    );
  }

  /** Whether a patient peer's entries may wait for more: there are few, they are young, and the eager peers answer. */
  #mayGather(peer: NodeId, progress: Progress, nowMs: number): boolean {
    if (!this.#patient.has(peer) || nowMs - progress.lastEntriesMs >= gatherMs) return false;
    if (this.#durable - progress.next >= gatheredEntries) return false;
    for (const [other, { lastHeardMs }] of this.#peers) {
      if (!this.#patient.has(other) && nowMs - lastHeardMs > 3 * this.#heartbeatMs) return false;
    }
    return true;
  }

  #sendAppend(peer: NodeId, progress: Progress, nowMs: number, heartbeat: boolean): void {
    const position = this.#log.position(progress.next - 1);
    assert(position !== undefined, `log of ${this.group} holds entry ${progress.next - 1}`);
    // The position alone: what the log gives may be the whole entry, and its body has been sent before.
    const previous: LogPosition = { index: position.index, term: position.term, hash: position.hash };
    const entries = heartbeat ? [] : this.#unsent(progress.next);
    this.#sequence += 1;
    progress.lastSentMs = nowMs;
    progress.next += entries.length;
    if (entries.length > 0) {
      progress.lastEntriesMs = nowMs;
      const bytes = entries.reduce((sum, entry) => sum + entry.body.length, 0);
      progress.unacknowledged.push({ through: progress.next - 1, bytes });
      progress.unacknowledgedBytes += bytes;
    }
    this.#send(peer, {
      kind: 'append',
      term: this.#term,
      previous,
      entries,
      commit: this.#commit,
      sequence: this.#sequence,
    });
  }

  #unsent(from: number): readonly LogEntry[] {
    const entries = this.#log.entries(from, maximumMessageBytes);
    const beyond = entries.findIndex((entry) => entry.index > this.#durable);
    return beyond === -1 ? entries : entries.slice(0, beyond);
  }

  #onAppendReply(from: NodeId, message: RaftMessage & { kind: 'append-reply' }, nowMs: number): void {
    const progress = this.#peers.get(from);
    if (progress === undefined) return;
    progress.lastHeardMs = nowMs;
    progress.applied = Math.max(progress.applied, message.applied);
    if (message.accepted) {
      progress.match = Math.max(progress.match, message.match);
      progress.next = Math.max(progress.next, progress.match + 1);
      while ((progress.unacknowledged[0]?.through ?? Infinity) <= progress.match) {
        progress.unacknowledgedBytes -= progress.unacknowledged.shift()?.bytes ?? 0;
      }
      this.#advanceCommit();
    } else if (message.sequence >= progress.rewoundAt) {
      // Less than it acknowledged before: it has started anew, perhaps without its disk. What it has not, is not counted.
      progress.match = Math.min(progress.match, message.match);
      progress.next = Math.max(progress.match, Math.min(message.match, this.#log.last.index)) + 1;
      progress.rewoundAt = this.#sequence + 1;
      progress.unacknowledged = [];
      progress.unacknowledgedBytes = 0;
    }
  }

  #advanceCommit(): void {
    const matches = [this.#durable, ...[...this.#peers.values()].map((peer) => peer.match)].sort((a, b) => b - a);
    const replicated = Math.min(matches[this.#majority() - 1] ?? 0, this.#durable);
    if (replicated > this.#commit && this.#log.position(replicated)?.term === this.#term) this.#commit = replicated;
  }

  // ---- replication: follower -------------------------------------------------------------------------------------

  #onAppend(from: NodeId, message: RaftMessage & { kind: 'append' }, nowMs: number): void {
    if (message.term < this.#term) {
      // Tells a deposed leader of the newer term.
      this.#reply(from, false, this.#commit, message.sequence);
      return;
    }
    // A term has one leader: a second one is broken or forged, and is not listened to.
    if (this.#role === 'leader' || (this.#leader !== undefined && this.#leader !== from)) return;
    if (this.#role === 'candidate' || this.#leader === undefined) this.#follow(message.term, from);
    this.#leaderHeardMs = nowMs;
    const own = this.#log.position(message.previous.index);
    if (own?.term !== message.previous.term) {
      if (own !== undefined && own.index <= this.#commit) {
        this.#fail(`the leader's log has another entry at committed index ${own.index}`);
        return;
      }
      // Everything up to our commit index is in the leader's log (leader completeness), and so is what was matched in
      // this term: it may send from there.
      this.#reply(from, false, Math.max(this.#commit, this.#matched), message.sequence);
      return;
    }
    if (own.hash !== message.previous.hash) {
      this.#fail(`entry ${own.index} of term ${own.term} has another hash than the leader's`);
      return;
    }
    if (!this.#takeEntries(message.entries)) return;
    const matched = message.previous.index + message.entries.length;
    this.#matched = Math.max(this.#matched, matched);
    this.#commit = Math.max(this.#commit, Math.min(message.commit, matched));
    if (this.#durable >= this.#matched) {
      this.#acknowledge(from, message.sequence);
      this.#acknowledgeTo = undefined;
    } else {
      this.#acknowledgeTo = { leader: from, sequence: message.sequence };
      if (message.entries.length === 0) this.#acknowledge(from, message.sequence);
    }
  }

  #takeEntries(entries: readonly LogEntry[]): boolean {
    for (const entry of entries) {
      const own = entry.index <= this.#log.last.index ? this.#log.position(entry.index) : undefined;
      if (own?.term === entry.term) {
        if (own.hash === entry.hash) continue;
        this.#fail(`entry ${own.index} of term ${own.term} has another hash than the leader's`);
        return false;
      }
      if (own !== undefined) {
        if (entry.index <= this.#commit) {
          this.#fail(`the leader's log has another entry at committed index ${entry.index}`);
          return false;
        }
        this.#cut(entry.index - 1);
      }
      this.#log.append(entry);
      this.#staged.push(entry);
    }
    return true;
  }

  #cut(keepThrough: number): void {
    this.#log.cut(keepThrough);
    this.#durable = Math.min(this.#durable, keepThrough);
    this.#matched = Math.min(this.#matched, keepThrough);
    this.#staged = this.#staged.filter((entry) => entry.index <= keepThrough);
    this.#keepThrough = Math.min(this.#keepThrough ?? keepThrough, keepThrough);
  }

  #acknowledge(leader: NodeId, sequence: number): void {
    this.#reply(leader, true, Math.min(this.#matched, this.#durable), sequence);
  }

  #reply(to: NodeId, accepted: boolean, match: number, sequence: number): void {
    this.#send(to, { kind: 'append-reply', term: this.#term, accepted, match, applied: this.#applied, sequence });
  }

  // ---- common ----------------------------------------------------------------------------------------------------

  #fail(reason: string): void {
    this.#failure = reason;
    this.#role = 'follower';
    this.#leader = undefined;
    this.#messages = [];
  }

  #send(to: NodeId, message: RaftMessage): void {
    this.#messages.push({ to, message });
  }

  #majority(): number {
    return Math.floor(this.#voters.length / 2) + 1;
  }
}
