import { assert } from '../base/errors.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import {
  chainEntry,
  decodeBody,
  encodeBody,
  type LogEntry,
  type LogPosition,
  type Member,
  type MembershipEntry,
} from '../store/entry.ts';

/*
 * Over 500 lines because the rules of consensus can only be judged together.
 *
 * The consensus of one group, as published by Ongaro ("Consensus: Bridging Theory and Practice", 2014), as a pure
 * state machine: no socket, file, timer or thread. Inputs are method calls with the time given; outputs gather in
 * `takeReady()`, and whoever drives the machine must carry them out in this order:
 *
 *   1. sync `incarnation` and `hardState` (term and vote) to disk, when present;
 *   2. send `messages`;
 *   3. keep `write.removed` elsewhere, synced (R9); hand `write` to the group's file, and report with `onDurable` what
 *      it has synced;
 *   4. act on `commit` (apply, answer) and on `fetchSnapshotFrom`.
 *
 * Messages, all to one peer, none of which needs to arrive. Each carries its sender's incarnation:
 *
 *   hello           starting member -> peer   "this is where my log and my term end"
 *   hello-reply     peer -> starting member   what the peer remembers that this member once acknowledged (R8)
 *   pre-vote        would-be candidate -> voter  "would you vote for me in this term?"; changes nothing at the voter
 *   pre-vote-reply  voter -> would-be candidate
 *   vote            candidate -> voter   "my log ends here (index, term); vote for me in this term"
 *   vote-reply      voter -> candidate   granted or not; the vote was synced before this was sent
 *   append          leader -> follower   entries that follow `previous`, the leader's commit index, a sequence number,
 *                                        when it was sent; without entries it is the heartbeat, which also spreads what
 *                                        each member has acknowledged
 *   append-reply    follower -> leader   accepted: everything up to `match` is on the follower's disk and equals the
 *                                        leader's log; refused: the follower lacks `previous`, send again after `match`
 *   behind          leader -> follower   "what you lack has been trimmed from my log: fetch a snapshot"; a heartbeat too
 *   take-over       leader -> follower   "campaign now": leadership transfer
 *
 * Rules, with their place in the thesis:
 *
 *   - A higher term in any message makes the receiver a follower of that term (3.3), but for votes that it does not
 *     listen to: while a leader was heard within the election timeout, and as long after a start, a voter answers no
 *     candidate but one whom the leader has asked to take over (4.2.3, 6.4.1). Leases rest on that.
 *   - Before it campaigns a member asks whether it would win; so one that was cut off disturbs nobody (9.6).
 *   - A vote is given once a term, to a log that ends no earlier than the voter's own (3.6.1).
 *   - A follower accepts entries only after the one it has at `previous`; a conflicting tail is cut (3.5).
 *   - An entry is committed when a majority has it on disk and it is of the leader's own term; all before it are
 *     committed with it (3.6.2). The leader sends an entry only after its own sync: an answer then never waits for the
 *     owner's disk alone, and many entries share a message.
 *   - A leader that has not heard a majority for an election timeout leads no longer (6.2).
 *   - A leader's lease (6.4.1): a majority answered a message that was *sent* less than `leaseMs` ago, and voters are
 *     deaf to others for the election timeout, which is longer. It ends for good when a transfer begins (R3).
 *   - Transfer (3.10): the target has everything, is told to campaign at once, and says so in its vote requests.
 *   - Membership changes by one voter at a time, in effect when appended; the next one only after the one before it,
 *     and an entry of the leader's own term, are committed (4.1).
 *   - Votes and acknowledgements count for the member *and incarnation* in the counter's membership (R8). A starting
 *     member votes after peers have confirmed that its log and term end no earlier than what they know it to have
 *     acknowledged. One that ends earlier has lost its disk or has an old one: it takes a new incarnation, which nobody
 *     counts until the leader has removed the old member, fed the new one as a learner, and added it.
 *   - Entries carry a hash chain. Another hash at the same index and term, or a conflict at or below the commit
 *     index, cannot come from this protocol: that copy is broken, stops taking part and says so (R6).
 *
 * Which member ought to lead is no rule of safety: the driver says how long this member waits before it campaigns, and
 * when to transfer (R7, `priority.ts`).
 */

export type RaftMessage = { readonly incarnation: number; readonly term: number } & (
  | { readonly kind: 'hello'; readonly lastIndex: number }
  | {
      readonly kind: 'hello-reply';
      /** What the peer remembers of the greeting member; incarnation 0: nothing. */
      readonly knownIncarnation: number;
      readonly knownTerm: number;
      readonly knownIndex: number;
    }
  | { readonly kind: 'pre-vote'; readonly lastIndex: number; readonly lastTerm: number }
  | { readonly kind: 'pre-vote-reply'; readonly granted: boolean }
  | {
      readonly kind: 'vote';
      readonly lastIndex: number;
      readonly lastTerm: number;
      readonly reason: CampaignReason;
    }
  | { readonly kind: 'vote-reply'; readonly granted: boolean }
  | {
      readonly kind: 'append';
      readonly previous: LogPosition;
      readonly entries: readonly LogEntry[];
      readonly commit: number;
      readonly sequence: number;
      readonly sentMs: number;
      /** Heartbeats only: what members have acknowledged in this term. */
      readonly acknowledged: readonly Acknowledgement[];
    }
  | {
      readonly kind: 'append-reply';
      readonly accepted: boolean;
      readonly match: number;
      readonly applied: number;
      readonly sequence: number;
      /** As in the message that is answered. */
      readonly sentMs: number;
      /** This member is in a state to lead. */
      readonly willing: boolean;
    }
  | { readonly kind: 'behind'; readonly base: number; readonly sequence: number; readonly sentMs: number }
  | { readonly kind: 'take-over' }
);

/** timeout: the leader is silent. transfer: the leader asked for it. recovery: an operator gave up a lost majority. */
export type CampaignReason = 'timeout' | 'transfer' | 'recovery';

export interface Acknowledgement {
  readonly id: NodeId;
  readonly incarnation: number;
  readonly index: number;
  readonly applied: number;
}

/** Term and vote: on disk before anyone is told of them. */
export interface HardState {
  readonly term: number;
  readonly votedFor: NodeId | undefined;
}

/** Who takes part, from the entry with this index on. */
export interface Membership {
  readonly index: number;
  readonly voters: readonly Member[];
  readonly learners: readonly Member[];
}

/** The log as consensus sees it: the newest part in memory, the rest read from the group's file. */
export interface RaftLog {
  readonly last: LogPosition;
  /** The position before the first entry that is kept: entries up to it were trimmed. */
  readonly base: LogPosition;
  position(index: number): LogPosition | undefined;
  /** Entries from `from` on, at least one when there is one, within about `maximumBytes`. */
  entries(from: number, maximumBytes: number): readonly LogEntry[];
  append(entry: LogEntry): void;
  cut(keepThrough: number): void;
  /** A snapshot has replaced the log: it now ends at `position`, and holds no entry. */
  reset(position: LogPosition): void;
}

export interface RaftOptions {
  readonly group: GroupId;
  readonly self: NodeId;
  readonly incarnation: number;
  /**
   * Ascending: the newest membership at or below the applied index, or the one that the cluster was formed with (index
   * 0), and every later one in the log, which may yet be cut.
   */
  readonly memberships: readonly Membership[];
  /** How much longer than the election timeout this member waits before it campaigns; `leader`: the last one heard. */
  readonly campaignDelayMs: (leader: NodeId | undefined) => number;
  /** Whether this member is in a state to lead for more than a moment. */
  readonly willing: () => boolean;
  /** What this process remembers that a member has acknowledged (R8). */
  readonly remembered: (id: NodeId) => Remembered | undefined;
  readonly hardState: HardState;
  readonly log: RaftLog;
  /** Applied index of the fold: committed for certain. */
  readonly applied: number;
  /**
   * Peers that a majority does not need while the others answer: they get entries gathered, at most `gatherMs` late.
   * A hint for the machine's load, never a condition: with any eager peer silent they are sent everything at once.
   */
  readonly patient?: () => ReadonlySet<NodeId>;
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
  /** Now: nobody is listened to for an election timeout after a start. */
  readonly nowMs: number;
  readonly random: Random;
}

export interface Remembered {
  readonly incarnation: number;
  readonly term: number;
  readonly index: number;
}

export interface Ready {
  readonly incarnation: number | undefined;
  readonly hardState: HardState | undefined;
  readonly messages: readonly { readonly to: NodeId; readonly message: RaftMessage }[];
  readonly write:
    | {
        readonly keepThrough: number | undefined;
        readonly entries: readonly LogEntry[];
        /** What is cut, in the log's order: never committed, but perhaps answered (R9). */
        readonly removed: readonly LogEntry[];
      }
    | undefined;
  readonly commit: number;
  /** The leader has trimmed what this follower lacks. */
  readonly fetchSnapshotFrom: NodeId | undefined;
}

export type Role = 'follower' | 'pre-candidate' | 'candidate' | 'leader';

interface Progress {
  /** Incarnation of the member that answers. */
  incarnation: number;
  /** On the peer's disk, and equal to ours. */
  match: number;
  /** Next index to send. */
  next: number;
  /** Peer's fold, as last reported. */
  applied: number;
  willing: boolean;
  /** Sequence number of the first message after the last rewind: refusals of older ones are stale. */
  rewoundAt: number;
  lastSentMs: number;
  /** When entries were sent last. */
  lastEntriesMs: number;
  lastHeardMs: number;
  /** When the newest message that it has answered was sent. */
  answeredSentMs: number;
  /** Messages with entries that are sent and not acknowledged, in order, and their size together. */
  unacknowledged: { readonly through: number; readonly bytes: number }[];
  unacknowledgedBytes: number;
}

interface Transfer {
  readonly to: NodeId;
  readonly untilMs: number;
  told: boolean;
}

/** Bytes of entries in one message: well below the broker's payload limit, also with several groups in a batch. */
const maximumMessageBytes = 256 * 1024;
/** How long, and how many, entries gather for a patient peer. */
const gatherMs = 20;
const gatheredEntries = 256;
/** Sent beyond what a peer has acknowledged: bounds what lies in brokers and sockets for a slow one. */
const maximumUnacknowledgedEntries = 8192;
const maximumUnacknowledgedBytes = 8 * 1024 * 1024;
/**
 * Peers that have to confirm where a starting member's log ends, or all where there are fewer. One alone would not do for
 * three voters either: it may have been cut off while this member acknowledged what its disk does not have any more.
 */
const confirmations = 2;
/** A learner this close to the log's end becomes a voter. */
const caughtUpEntries = 1000;

export class Raft {
  readonly group: GroupId;
  readonly self: NodeId;
  readonly #options: RaftOptions;
  readonly #log: RaftLog;
  readonly #heartbeatMs: number;
  readonly #electionTimeoutMs: number;
  readonly #leaseMs: number;

  #incarnation: number;
  #term: number;
  #votedFor: NodeId | undefined;
  #role: Role = 'follower';
  #leader: NodeId | undefined;
  /** The last one that was known, after it has fallen silent too. */
  #formerLeader: NodeId | undefined;
  #commit: number;
  #applied: number;
  /** Our log is on our disk up to here. */
  #durable: number;
  /** Newest last; the first one is at or below the log's base or the one the cluster was formed with. */
  #memberships: Membership[];
  #patient: ReadonlySet<NodeId> = new Set();
  #votes = new Set<NodeId>();
  #peers = new Map<NodeId, Progress>();
  #campaignAtMs = 0;
  #campaigns = 0;
  #campaignReason: CampaignReason = 'timeout';
  #endedBecause = '';
  #leaderHeardMs = Number.NEGATIVE_INFINITY;
  /** Until then nobody's candidacy is answered: whoever this member followed before its start may hold a lease. */
  #deafUntilMs: number;
  /** Term and log's end on this disk at the start: what peers' memory is held against. */
  readonly #atStart: { readonly term: number; readonly index: number };
  #confirmedBy = new Set<NodeId>();
  #confirmed: boolean;
  #lastHelloMs = Number.NEGATIVE_INFINITY;
  /** Processes that are in no membership and greet: they ask to be added. */
  #strangers = new Map<NodeId, number>();
  #sequence = 0;
  #transfer: Transfer | undefined;
  /** No lease for the rest of the term: somebody was told to take over. */
  #leaseEnded = false;
  #firstOfTerm = 0;
  /** Follower: equal to the leader's log up to here, in memory at least. */
  #matched = 0;
  #acknowledgeTo: { leader: NodeId; sequence: number; sentMs: number } | undefined;
  /** An operator's attempt to go on without a lost majority; what was before is put back when it fails. */
  #recovery:
    | {
        readonly entry: string;
        readonly before: { readonly memberships: Membership[]; readonly confirmed: boolean };
        readonly untilMs: number;
      }
    | undefined;
  /** A snapshot is replacing this copy: until it has, nothing is heard, acknowledged or voted. */
  #frozen = false;
  #failure: string | undefined;

  #incarnationChanged = false;
  #hardStateChanged = false;
  #messages: { to: NodeId; message: RaftMessage }[] = [];
  #staged: LogEntry[] = [];
  #keepThrough: number | undefined;
  #removed: LogEntry[] = [];
  #fetchSnapshotFrom: NodeId | undefined;

  constructor(options: RaftOptions) {
    this.group = options.group;
    this.self = options.self;
    this.#options = options;
    this.#log = options.log;
    this.#heartbeatMs = options.heartbeatMs;
    this.#electionTimeoutMs = options.electionTimeoutMs;
    // Shorter than voters' deafness by what two clocks may differ in that time (R3).
    this.#leaseMs = Math.floor((options.electionTimeoutMs * 11) / 12);
    this.#incarnation = options.incarnation;
    this.#term = options.hardState.term;
    this.#votedFor = options.hardState.votedFor;
    this.#commit = options.applied;
    this.#applied = options.applied;
    this.#durable = options.log.last.index;
    this.#memberships = [...options.memberships];
    this.#atStart = { term: this.#term, index: this.#durable };
    this.#confirmed = this.#confirmationsNeeded() === 0;
    const startsAnew = options.hardState.term === 0 && options.log.last.index === 0;
    this.#deafUntilMs = startsAnew ? 0 : options.nowMs + options.electionTimeoutMs;
    this.#campaignLater(options.nowMs, 0);
  }

  get term(): number {
    return this.#term;
  }

  get role(): Role {
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

  get incarnation(): number {
    return this.#incarnation;
  }

  get membership(): Membership {
    const newest = this.#memberships.at(-1);
    assert(newest !== undefined, `group ${this.group} has a membership`);
    return newest;
  }

  /** Whether this member's votes and acknowledgements count, as far as it knows. */
  get votes(): boolean {
    return this.#confirmed && isIn(this.membership.voters, this.self, this.#incarnation);
  }

  /** Whether peers have confirmed where this member's log ends. */
  get confirmed(): boolean {
    return this.#confirmed;
  }

  /** Who was told, or is about to be told, to take over. */
  get transferringTo(): NodeId | undefined {
    return this.#transfer?.to;
  }

  /** Why this copy has stopped (a broken log), or undefined. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Until when this leader may answer for `local` ranges without asking anyone; 0: not at all (R3). */
  get leaseUntilMs(): number {
    if (this.#role !== 'leader' || this.#leaseEnded || this.#commit < this.#firstOfTerm) return 0;
    const answered = this.#ofVoters((progress) => progress.answeredSentMs, Number.POSITIVE_INFINITY);
    const majority = answered[this.#majority() - 1] ?? Number.NEGATIVE_INFINITY;
    if (majority === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    return Math.max(0, majority + this.#leaseMs);
  }

  /** Milliseconds since the leader was heard; at the leader, since a majority was. Infinity before the first time. */
  silenceMs(nowMs: number): number {
    if (this.#role !== 'leader') return nowMs - this.#leaderHeardMs;
    const heard = this.#ofVoters((peer) => peer.lastHeardMs, nowMs)[this.#majority() - 1];
    return heard === undefined ? Number.POSITIVE_INFINITY : Math.max(0, nowMs - heard);
  }

  /** What the leader knows of each peer. */
  progress(): ReadonlyMap<
    NodeId,
    {
      readonly match: number;
      readonly applied: number;
      readonly lastHeardMs: number;
      readonly willing: boolean;
      readonly incarnation: number;
    }
  > {
    return this.#peers;
  }

  /** Time has passed. Call at least every quarter of the heartbeat. */
  tick(nowMs: number): void {
    if (this.#failure !== undefined || this.#frozen) return;
    if (this.#role === 'leader') this.#tickLeader(nowMs);
    else this.#tickOther(nowMs);
  }

  /** Appends bodies as entries of this term; the index of the first, or undefined when this node does not lead. */
  propose(bodies: readonly string[], nowMs: number): number | undefined {
    if (this.#role !== 'leader' || this.#failure !== undefined || this.#transfer?.told === true) return undefined;
    const memberships = bodies.filter(isMembership);
    if (memberships.length > 1 || !memberships.every((body) => this.#mayChangeMembership(body))) return undefined;
    const first = this.#log.last.index + 1;
    for (const body of bodies) this.#appendOwn(body, nowMs);
    return first;
  }

  /** The group's file has synced the log up to `position`. A report about entries that were cut since is ignored. */
  onDurable(position: LogPosition): void {
    if (position.index <= this.#durable || this.#log.position(position.index)?.hash !== position.hash) return;
    this.#durable = position.index;
    if (this.#role === 'leader') {
      this.#advanceCommit();
    } else if (this.#acknowledgeTo !== undefined) {
      // Also when more has arrived meanwhile: under load a follower may never be level with what it has received.
      this.#acknowledge(this.#acknowledgeTo.leader, this.#acknowledgeTo.sequence, this.#acknowledgeTo.sentMs);
      if (this.#durable >= this.#matched) this.#acknowledgeTo = undefined;
    }
  }

  onApplied(index: number): void {
    this.#applied = index;
  }

  /**
   * A snapshot up to `position` has arrived. have: this log has that entry, so all before it is good and committed, and
   * nothing needs to be replaced. useless: this member is further, or leads. install: from now on nothing is heard until
   * `onSnapshot`; `removed` is what was on this disk and never committed here, to be kept elsewhere first (R9).
   */
  takeSnapshot(
    position: LogPosition,
  ): { readonly kind: 'have' | 'useless' } | { readonly kind: 'install'; readonly removed: readonly LogEntry[] } {
    if (this.#role !== 'follower' || position.index <= this.#commit || this.#frozen) return { kind: 'useless' };
    const own = position.index <= this.#log.last.index ? this.#log.position(position.index) : undefined;
    if (own?.hash === position.hash && own.term === position.term) {
      this.#commit = position.index;
      return { kind: 'have' };
    }
    this.#frozen = true;
    this.#collectRemoved(this.#commit);
    const removed = this.#removed;
    this.#removed = [];
    return { kind: 'install', removed };
  }

  /** The snapshot was not installed after all: this copy goes on as it is. */
  onSnapshotRefused(): void {
    this.#frozen = false;
  }

  /** The group's file was replaced by the snapshot up to `position`: everything in it was committed. */
  onSnapshot(position: LogPosition, membership: Membership): void {
    this.#log.reset(position);
    this.#memberships = [membership];
    this.#durable = position.index;
    this.#commit = position.index;
    this.#applied = position.index;
    this.#matched = 0;
    this.#acknowledgeTo = undefined;
    this.#staged = [];
    this.#keepThrough = undefined;
    this.#removed = [];
    this.#frozen = false;
  }

  receive(from: NodeId, message: RaftMessage, nowMs: number): void {
    if (this.#failure !== undefined || this.#frozen || from === this.self) return;
    if (!this.#confirmed && !isForUnconfirmed(message)) return;
    switch (message.kind) {
      case 'hello':
        this.#onHello(from, message);
        return;
      case 'hello-reply':
        this.#onHelloReply(from, message);
        return;
      case 'pre-vote':
        this.#onPreVote(from, message, nowMs);
        return;
      case 'vote':
        this.#onVote(from, message, nowMs);
        return;
      case 'pre-vote-reply':
      case 'vote-reply':
      case 'append-reply':
      case 'append':
      case 'behind':
      case 'take-over':
        break;
    }
    if (message.term > this.#term) {
      this.#endedBecause = `${from} is at term ${message.term}`;
      this.#follow(message.term, undefined);
      this.#campaignLater(nowMs, 0);
    }
    switch (message.kind) {
      case 'pre-vote-reply':
        if (message.granted && this.#role === 'pre-candidate' && this.#counts(from, message)) {
          this.#votes.add(from);
          if (this.#votes.size >= this.#majority()) this.#campaign('timeout', nowMs);
        }
        return;
      case 'vote-reply':
        if (
          message.granted &&
          message.term === this.#term &&
          this.#role === 'candidate' &&
          this.#counts(from, message)
        ) {
          this.#votes.add(from);
          this.#leadWhenElected(nowMs);
        }
        return;
      case 'append':
        this.#onAppend(from, message, nowMs);
        return;
      case 'behind':
        this.#onBehind(from, message, nowMs);
        return;
      case 'append-reply':
        if (message.term === this.#term && this.#role === 'leader') this.#onAppendReply(from, message, nowMs);
        return;
      case 'take-over':
        if (message.term === this.#term && this.#leader === from && this.votes) this.#campaign('transfer', nowMs);
        return;
    }
  }

  /**
   * No lease from now on, for the rest of the term: leadership is about to be handed over (R3). Until when the last one
   * went, which somebody may still go by.
   */
  endLease(): number {
    const { leaseUntilMs } = this;
    this.#leaseEnded = true;
    return leaseUntilMs;
  }

  /** Elections that this member has stood for since its start, and why it stood for the last one; for people. */
  get campaigns(): { readonly count: number; readonly reason: string } {
    return { count: this.#campaigns, reason: this.#campaignReason };
  }

  /** Why this member last ceased to lead, in words; for people. */
  get endedBecause(): string {
    return this.#endedBecause;
  }

  /** Hands leadership to a voter: as soon as it has everything it is told to campaign. False: not possible now. */
  transfer(to: NodeId, nowMs: number): boolean {
    const progress = this.#peers.get(to);
    if (this.#role !== 'leader' || this.#transfer !== undefined || progress === undefined) return false;
    if (!isIn(this.membership.voters, to, progress.incarnation)) return false;
    this.#leaseEnded = true;
    this.#transfer = { to, untilMs: nowMs + this.#electionTimeoutMs, told: false };
    this.#tellToTakeOver(progress);
    return true;
  }

  /** Leads no longer, and lets others try first: this process cannot serve as a leader. */
  stepDown(nowMs: number, reason = 'it does not vote any more'): void {
    if (this.#role !== 'leader') return;
    this.#endedBecause = reason;
    // Its lease, which the deciding thread may still go by, rests on its own deafness too.
    this.#deafUntilMs = Math.max(this.#deafUntilMs, nowMs + this.#electionTimeoutMs);
    this.#follow(this.#term, undefined);
    this.#campaignLater(nowMs, 2 * this.#electionTimeoutMs);
  }

  /**
   * The one-voter step that the group needs next, or undefined: remove a member whose disk was lost, feed its new
   * incarnation or a process that is to join as a learner, make a learner that has caught up a voter.
   */
  membershipStep(
    nowMs: number,
  ): { readonly by: string; readonly voters: Member[]; readonly learners: Member[] } | undefined {
    const { index, voters, learners } = this.membership;
    if (this.#role !== 'leader' || this.#commit < index || this.#commit < this.#firstOfTerm) return undefined;
    const without = (members: readonly Member[], id: NodeId): Member[] => members.filter((member) => member.id !== id);
    for (const [id, progress] of this.#peers) {
      if (nowMs - progress.lastHeardMs > this.#electionTimeoutMs) continue;
      const now = { id, incarnation: progress.incarnation };
      if (voters.some((member) => member.id === id && member.incarnation < now.incarnation)) {
        return { by: 'lost or old disk', voters: without(voters, id), learners: [...without(learners, id), now] };
      }
      if (learners.some((member) => member.id === id && member.incarnation < now.incarnation)) {
        return { by: 'lost or old disk', voters: [...voters], learners: [...without(learners, id), now] };
      }
      const isLearner = isIn(learners, id, now.incarnation);
      if (isLearner && progress.match > 0 && this.#log.last.index - progress.match <= caughtUpEntries) {
        return { by: 'caught up', voters: [...voters, now], learners: without(learners, id) };
      }
    }
    for (const [id, incarnation] of this.#strangers) {
      return { by: 'asked to join', voters: [...voters], learners: [...learners, { id, incarnation }] };
    }
    return undefined;
  }

  /**
   * An operator gives up members for lost, together with the majority that they were part of: this member campaigns
   * among the others alone, and if it wins enters `entry`, the membership without them. What only the lost had is lost;
   * they must not come back with their old disks. False: this very member is not among those that are left.
   */
  recover(entry: MembershipEntry, nowMs: number): boolean {
    const { voters, learners } = entry;
    if (!isIn(voters, this.self, this.#incarnation) || this.#frozen) return false;
    this.#endRecovery();
    this.#recovery = {
      entry: encodeBody(entry),
      before: { memberships: this.#memberships, confirmed: this.#confirmed },
      untilMs: nowMs + this.#electionTimeoutMs,
    };
    this.#memberships = [...this.#memberships, { index: this.#log.last.index, voters, learners }];
    this.#confirmed = true;
    this.#campaign('recovery', nowMs);
    return true;
  }

  /** What was in effect before an operator's attempt is so again: it was not won, or its entry now says the same. */
  #endRecovery(): void {
    if (this.#recovery === undefined) return;
    const { memberships, confirmed } = this.#recovery.before;
    this.#memberships = memberships;
    this.#confirmed = confirmed;
    this.#recovery = undefined;
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
      incarnation: this.#incarnationChanged ? this.#incarnation : undefined,
      hardState: this.#hardStateChanged ? { term: this.#term, votedFor: this.#votedFor } : undefined,
      messages: this.#messages,
      write:
        this.#staged.length > 0 || this.#keepThrough !== undefined
          ? { keepThrough: this.#keepThrough, entries: this.#staged, removed: this.#removed }
          : undefined,
      commit: this.#commit,
      fetchSnapshotFrom: this.#fetchSnapshotFrom,
    };
    this.#incarnationChanged = false;
    this.#hardStateChanged = false;
    this.#messages = [];
    this.#staged = [];
    this.#keepThrough = undefined;
    this.#removed = [];
    this.#fetchSnapshotFrom = undefined;
    return ready;
  }

  // ---- time ------------------------------------------------------------------------------------------------------

  #tickLeader(nowMs: number): void {
    for (const [peer, progress] of this.#peers) {
      if (nowMs - progress.lastSentMs >= this.#heartbeatMs) this.#sendAppend(peer, progress, nowMs, true);
    }
    if (this.silenceMs(nowMs) >= this.#electionTimeoutMs) {
      this.#endedBecause = `no majority has answered for ${this.#electionTimeoutMs} ms`;
      this.#follow(this.#term, undefined);
      this.#campaignLater(nowMs, 0);
    } else if (this.#transfer !== undefined && nowMs >= this.#transfer.untilMs) {
      this.#transfer = undefined;
    } else if (!this.votes && this.#commit >= this.membership.index) {
      this.stepDown(nowMs);
    }
  }

  #tickOther(nowMs: number): void {
    if (this.#recovery !== undefined && nowMs >= this.#recovery.untilMs) this.#endRecovery();
    // Whom no leader sends anything may have been left out of a membership that it has not heard of.
    const greets = !this.#confirmed || nowMs - this.#leaderHeardMs > this.#electionTimeoutMs;
    if (greets && nowMs - this.#lastHelloMs >= this.#heartbeatMs) this.#greet(nowMs);
    if (this.#leader !== undefined && nowMs - this.#leaderHeardMs >= this.#electionTimeoutMs) {
      this.#leader = undefined;
      this.#campaignLater(nowMs, 0);
    }
    // Its own vote is one of those that leases rest on.
    const mayAsk = this.#leader === undefined && this.votes && !this.#isDeaf(nowMs) && this.#recovery === undefined;
    if (mayAsk && nowMs >= this.#campaignAtMs) this.#ask(nowMs);
  }

  /** Sets when this member tries next: its rank's delay after now, and a little chance, so that equals do not collide. */
  #campaignLater(nowMs: number, extraMs: number): void {
    const { campaignDelayMs, random } = this.#options;
    const chanceMs = random.below(Math.max(1, Math.floor(this.#electionTimeoutMs / 20)));
    this.#campaignAtMs = nowMs + extraMs + chanceMs + campaignDelayMs(this.#formerLeader);
  }

  // ---- who may vote (R8) -----------------------------------------------------------------------------------------

  #confirmationsNeeded(): number {
    return Math.min(confirmations, this.#otherVoters().length);
  }

  #greet(nowMs: number): void {
    this.#lastHelloMs = nowMs;
    for (const peer of this.#others()) this.#send(peer, { kind: 'hello', lastIndex: this.#atStart.index });
  }

  #onHello(from: NodeId, message: RaftMessage & { kind: 'hello' }): void {
    this.#tellWhatIsKnown(from);
    if (this.#role !== 'leader' || this.#memberOf(from) !== undefined) return;
    if (this.#strangers.size < maximumStrangers) this.#strangers.set(from, message.incarnation);
  }

  #tellWhatIsKnown(of: NodeId): void {
    const none: Remembered = { incarnation: 0, term: 0, index: 0 };
    const remembered = this.#options.remembered(of) ?? none;
    const member = this.#memberOf(of)?.incarnation ?? 0;
    // A member of a later incarnation than anything that was heard of it: it may have acknowledged anything.
    const known =
      member > 1 && member > remembered.incarnation
        ? { incarnation: member, term: this.#term, index: Number.MAX_SAFE_INTEGER }
        : remembered;
    const { incarnation: knownIncarnation, term: knownTerm, index: knownIndex } = known;
    this.#send(of, { kind: 'hello-reply', knownIncarnation, knownTerm, knownIndex });
  }

  #memberOf(id: NodeId): Member | undefined {
    const { voters, learners } = this.membership;
    return [...voters, ...learners].find((member) => member.id === id);
  }

  #onHelloReply(from: NodeId, message: RaftMessage & { kind: 'hello-reply' }): void {
    const { knownIncarnation, knownTerm, knownIndex } = message;
    const isCounted = isIn(this.membership.voters, this.self, this.#incarnation);
    const isOutdated = knownIncarnation > this.#incarnation && !isCounted;
    if ((this.#confirmed && !isOutdated) || !this.#others().includes(from)) return;
    const isNewer =
      knownIncarnation > this.#incarnation ||
      (knownIncarnation === this.#incarnation &&
        (knownTerm > this.#atStart.term || (knownTerm === this.#atStart.term && knownIndex > this.#atStart.index)));
    if (isNewer) {
      this.#incarnation = Math.max(knownIncarnation, this.#incarnation) + 1;
      this.#incarnationChanged = true;
      this.#confirmed = true;
      return;
    }
    this.#confirmedBy.add(from);
    if (this.#confirmedBy.size >= this.#confirmationsNeeded()) this.#confirmed = true;
  }

  /** Whether the sender is the member that this node's membership counts. */
  #counts(from: NodeId, { incarnation }: RaftMessage): boolean {
    return isIn(this.membership.voters, from, incarnation);
  }

  // ---- elections -------------------------------------------------------------------------------------------------

  #ask(nowMs: number): void {
    this.#role = 'pre-candidate';
    this.#votes = new Set([this.self]);
    this.#campaignLater(nowMs, Math.floor(this.#electionTimeoutMs / 3));
    const { last } = this.#log;
    for (const peer of this.#otherVoters()) {
      // The term that the votes would be for: the reply names the voter's own.
      this.#messages.push({
        to: peer,
        message: {
          kind: 'pre-vote',
          incarnation: this.#incarnation,
          term: this.#term + 1,
          lastIndex: last.index,
          lastTerm: last.term,
        },
      });
    }
    if (this.#votes.size >= this.#majority()) this.#campaign('timeout', nowMs);
  }

  #campaign(reason: CampaignReason, nowMs: number): void {
    this.#campaigns += 1;
    this.#campaignReason = reason;
    this.#term += 1;
    this.#votedFor = this.self;
    this.#hardStateChanged = true;
    this.#role = 'candidate';
    this.#leader = undefined;
    this.#votes = new Set([this.self]);
    this.#campaignLater(nowMs, Math.floor(this.#electionTimeoutMs / 2));
    const { last } = this.#log;
    for (const peer of this.#otherVoters()) {
      this.#send(peer, { kind: 'vote', lastIndex: last.index, lastTerm: last.term, reason });
    }
    this.#leadWhenElected(nowMs);
  }

  /** While a leader is heard, or may hold a lease from before this member's start, no candidate is listened to. */
  #isDeaf(nowMs: number): boolean {
    const leads = this.#role === 'leader' && this.silenceMs(nowMs) < this.#electionTimeoutMs;
    return leads || nowMs < this.#deafUntilMs || nowMs - this.#leaderHeardMs < this.#electionTimeoutMs;
  }

  #isUpToDate(message: { readonly lastIndex: number; readonly lastTerm: number }): boolean {
    const { last } = this.#log;
    return message.lastTerm > last.term || (message.lastTerm === last.term && message.lastIndex >= last.index);
  }

  #onPreVote(from: NodeId, message: RaftMessage & { kind: 'pre-vote' }, nowMs: number): void {
    const granted = this.#confirmed && !this.#isDeaf(nowMs) && message.term > this.#term && this.#isUpToDate(message);
    this.#send(from, { kind: 'pre-vote-reply', granted });
  }

  #onVote(from: NodeId, message: RaftMessage & { kind: 'vote' }, nowMs: number): void {
    const isRecovery = message.reason === 'recovery';
    if (!this.#confirmed && !isRecovery) return;
    if (message.reason === 'timeout' && this.#isDeaf(nowMs)) return;
    if (message.term > this.#term) {
      this.#endedBecause = `${from} asks for votes in term ${message.term} (${message.reason})`;
      this.#follow(message.term, undefined);
      this.#campaignLater(nowMs, 0);
    }
    const free = this.#votedFor === undefined || this.#votedFor === from;
    const granted = message.term === this.#term && free && this.#isUpToDate(message);
    if (granted) {
      if (this.#votedFor === undefined) {
        this.#votedFor = from;
        this.#hardStateChanged = true;
      }
      // Whoever votes lets the candidate win first.
      this.#campaignLater(nowMs, this.#electionTimeoutMs);
    }
    this.#send(from, { kind: 'vote-reply', granted });
  }

  #leadWhenElected(nowMs: number): void {
    if (this.#votes.size < this.#majority()) return;
    this.#role = 'leader';
    this.#leader = this.self;
    this.#formerLeader = this.self;
    this.#transfer = undefined;
    this.#leaseEnded = false;
    this.#strangers.clear();
    this.#peers = new Map();
    this.#followMembership(nowMs);
    // Nothing of earlier terms is committed by counting, so the new leader enters one entry of its own (3.6.2).
    this.#firstOfTerm = this.#log.last.index + 1;
    this.#appendOwn(JSON.stringify({ kind: 'no-op', leader: this.self, term: this.#term }), nowMs);
    if (this.#recovery !== undefined) {
      const { entry } = this.#recovery;
      this.#endRecovery();
      this.#confirmed = true;
      this.#appendOwn(entry, nowMs);
    }
    for (const [peer, progress] of this.#peers) this.#sendAppend(peer, progress, nowMs, true);
  }

  #follow(term: number, leader: NodeId | undefined): void {
    this.#endRecovery();
    if (term > this.#term) {
      this.#term = term;
      this.#votedFor = undefined;
      this.#hardStateChanged = true;
    }
    this.#role = 'follower';
    if (leader !== undefined || this.#leader !== undefined) this.#formerLeader = leader ?? this.#leader;
    this.#leader = leader;
    this.#peers = new Map();
    this.#transfer = undefined;
    this.#strangers.clear();
    this.#matched = 0;
    this.#acknowledgeTo = undefined;
  }

  // ---- membership ------------------------------------------------------------------------------------------------

  /** Entries take effect when appended, whoever leads. */
  #noteMembership(entry: LogEntry): void {
    if (!isMembership(entry.body)) return;
    const body = decodeBody(entry.body);
    if (body.kind !== 'membership') return;
    this.#memberships = this.#memberships.filter(({ index }) => index < entry.index);
    this.#memberships.push({ index: entry.index, voters: body.voters, learners: body.learners });
  }

  /** A membership may differ from the one before it in one voter, and follows only when that is committed (4.1). */
  #mayChangeMembership(body: string): boolean {
    const entry = decodeBody(body);
    if (entry.kind !== 'membership') return false;
    const { index, voters } = this.membership;
    if (this.#commit < index || this.#commit < this.#firstOfTerm) return false;
    const differ = (some: readonly Member[], others: readonly Member[]): number =>
      some.filter(({ id, incarnation }) => !isIn(others, id, incarnation)).length;
    return differ(voters, entry.voters) + differ(entry.voters, voters) <= 1;
  }

  /** The leader's peers are the members of the newest membership. */
  #followMembership(nowMs: number): void {
    const { voters, learners } = this.membership;
    this.#patient = this.#options.patient?.() ?? new Set();
    for (const { id, incarnation } of [...voters, ...learners]) {
      if (id === this.self) continue;
      const known = this.#peers.get(id);
      if (known !== undefined && known.incarnation >= incarnation) continue;
      this.#peers.set(id, freshProgress(incarnation, this.#log.last.index + 1, nowMs));
      this.#strangers.delete(id);
    }
    for (const id of this.#peers.keys()) {
      if (![...voters, ...learners].some((member) => member.id === id)) this.#peers.delete(id);
    }
  }

  // ---- replication: leader ---------------------------------------------------------------------------------------

  #appendOwn(body: string, nowMs: number): void {
    const entry = chainEntry(this.#log.last, this.#term, body);
    this.#log.append(entry);
    this.#staged.push(entry);
    const before = this.membership;
    this.#noteMembership(entry);
    if (this.membership !== before) this.#followMembership(nowMs);
  }

  #hasUnsent(progress: Progress): boolean {
    return (
      progress.next <= this.#durable &&
      progress.next > this.#log.base.index &&
      progress.next - progress.match <= maximumUnacknowledgedEntries &&
      progress.unacknowledgedBytes < maximumUnacknowledgedBytes
    );
  }

  /** Whether a patient peer's entries may wait for more: there are few, they are young, and the eager peers answer. */
  #mayGather(peer: NodeId, progress: Progress, nowMs: number): boolean {
    if (this.#transfer !== undefined || !this.#patient.has(peer)) return false;
    if (nowMs - progress.lastEntriesMs >= gatherMs || this.#durable - progress.next >= gatheredEntries) return false;
    for (const [other, { lastHeardMs }] of this.#peers) {
      if (!this.#patient.has(other) && nowMs - lastHeardMs > 3 * this.#heartbeatMs) return false;
    }
    return true;
  }

  #sendAppend(peer: NodeId, progress: Progress, nowMs: number, heartbeat: boolean): void {
    this.#sequence += 1;
    const { base } = this.#log;
    const stamp = { sequence: this.#sequence, sentMs: Math.floor(nowMs) };
    progress.lastSentMs = nowMs;
    if (progress.next <= base.index) {
      this.#send(peer, { kind: 'behind', base: base.index, ...stamp });
      return;
    }
    const position = this.#log.position(progress.next - 1);
    assert(position !== undefined, `log of ${this.group} holds entry ${progress.next - 1}`);
    // The position alone: what the log gives may be the whole entry, and its body has been sent before.
    const previous: LogPosition = { index: position.index, term: position.term, hash: position.hash };
    const entries = heartbeat ? [] : this.#unsent(progress.next);
    progress.next += entries.length;
    if (entries.length > 0) {
      progress.lastEntriesMs = nowMs;
      const bytes = entries.reduce((sum, entry) => sum + entry.body.length, 0);
      progress.unacknowledged.push({ through: progress.next - 1, bytes });
      progress.unacknowledgedBytes += bytes;
    }
    const acknowledged = heartbeat ? this.acknowledgements() : [];
    this.#send(peer, { kind: 'append', previous, entries, commit: this.#commit, ...stamp, acknowledged });
  }

  /** As leader: what each member has on its disk, to be remembered here and by the peers (R8). */
  acknowledgements(): Acknowledgement[] {
    const own = { id: this.self, incarnation: this.#incarnation, index: this.#durable, applied: this.#applied };
    const peers = [...this.#peers].map(([id, { incarnation, match, applied }]) => ({
      id,
      incarnation,
      index: match,
      applied,
    }));
    return [own, ...peers].filter(({ index }) => index > 0);
  }

  #unsent(from: number): readonly LogEntry[] {
    const entries = this.#log.entries(from, maximumMessageBytes);
    const beyond = entries.findIndex((entry) => entry.index > this.#durable);
    return beyond === -1 ? entries : entries.slice(0, beyond);
  }

  #onAppendReply(from: NodeId, message: RaftMessage & { kind: 'append-reply' }, nowMs: number): void {
    let progress = this.#peers.get(from);
    if (progress === undefined) return;
    if (message.incarnation < progress.incarnation) {
      this.#tellWhatIsKnown(from);
      return;
    }
    if (message.incarnation > progress.incarnation) {
      // Another disk: nothing that the old one acknowledged is on it.
      progress = freshProgress(message.incarnation, this.#log.last.index + 1, nowMs);
      this.#peers.set(from, progress);
    }
    progress.lastHeardMs = nowMs;
    progress.answeredSentMs = Math.max(progress.answeredSentMs, message.sentMs);
    progress.applied = Math.max(progress.applied, message.applied);
    progress.willing = message.willing;
    if (message.accepted) {
      progress.match = Math.max(progress.match, Math.min(message.match, this.#log.last.index));
      progress.next = Math.max(progress.next, progress.match + 1);
      while ((progress.unacknowledged[0]?.through ?? Infinity) <= progress.match) {
        progress.unacknowledgedBytes -= progress.unacknowledged.shift()?.bytes ?? 0;
      }
      this.#advanceCommit();
      this.#tellToTakeOver(progress);
    } else if (message.sequence >= progress.rewoundAt) {
      // Less than it acknowledged before: it has started anew, perhaps without its disk. What it has not, is not counted.
      progress.match = Math.min(progress.match, message.match);
      progress.next = Math.max(progress.match, Math.min(message.match, this.#log.last.index)) + 1;
      progress.rewoundAt = this.#sequence + 1;
      progress.unacknowledged = [];
      progress.unacknowledgedBytes = 0;
    }
  }

  #tellToTakeOver(progress: Progress): void {
    const transfer = this.#transfer;
    if (transfer === undefined || transfer.told || this.#peers.get(transfer.to) !== progress) return;
    if (progress.match < this.#log.last.index) return;
    transfer.told = true;
    this.#send(transfer.to, { kind: 'take-over' });
  }

  #advanceCommit(): void {
    const matches = this.#ofVoters((progress) => progress.match, this.#durable);
    const replicated = Math.min(matches[this.#majority() - 1] ?? 0, this.#durable);
    if (replicated > this.#commit && this.#log.position(replicated)?.term === this.#term) this.#commit = replicated;
  }

  /** A figure of every voter that counts, the largest first; `own` is this member's. */
  #ofVoters(figure: (progress: Progress) => number, own: number): number[] {
    return this.membership.voters
      .flatMap(({ id, incarnation }) => {
        if (id === this.self) return incarnation === this.#incarnation ? [own] : [];
        const progress = this.#peers.get(id);
        return progress?.incarnation === incarnation ? [figure(progress)] : [];
      })
      .sort((one, other) => other - one);
  }

  // ---- replication: follower -------------------------------------------------------------------------------------

  /** Whether the message is this term's leader's; notes that it was heard. */
  #hears(from: NodeId, message: RaftMessage & { kind: 'append' | 'behind' }, nowMs: number): boolean {
    if (message.term < this.#term) {
      // Tells a deposed leader of the newer term.
      this.#reply(from, false, this.#commit, message);
      return false;
    }
    // A term has one leader: a second one is broken or forged, and is not listened to.
    if (this.#role === 'leader' || (this.#leader !== undefined && this.#leader !== from)) return false;
    if (this.#role !== 'follower' || this.#leader === undefined) this.#follow(message.term, from);
    this.#leaderHeardMs = nowMs;
    return true;
  }

  #onBehind(from: NodeId, message: RaftMessage & { kind: 'behind' }, nowMs: number): void {
    if (!this.#hears(from, message, nowMs)) return;
    if (this.#commit < message.base) this.#fetchSnapshotFrom = from;
    this.#reply(from, false, this.#commit, message);
  }

  #onAppend(from: NodeId, message: RaftMessage & { kind: 'append' }, nowMs: number): void {
    if (!this.#hears(from, message, nowMs)) return;
    const { previous } = message;
    const own = previous.index < this.#log.base.index ? undefined : this.#log.position(previous.index);
    if (own?.term !== previous.term) {
      if (own !== undefined && own.index <= this.#commit) {
        this.#fail(`the leader's log has another entry at committed index ${own.index}`);
        return;
      }
      this.#reply(from, false, this.#lastLikelyMatch(previous.index, own), message);
      return;
    }
    if (own.hash !== previous.hash) {
      this.#fail(`entry ${own.index} of term ${own.term} has another hash than the leader's`);
      return;
    }
    if (!this.#takeEntries(message.entries)) return;
    const matched = previous.index + message.entries.length;
    this.#matched = Math.max(this.#matched, matched);
    this.#commit = Math.max(this.#commit, Math.min(message.commit, matched));
    if (this.#durable >= this.#matched) {
      this.#acknowledge(from, message.sequence, message.sentMs);
      this.#acknowledgeTo = undefined;
    } else {
      this.#acknowledgeTo = { leader: from, sequence: message.sequence, sentMs: message.sentMs };
      if (message.entries.length === 0) this.#acknowledge(from, message.sequence, message.sentMs);
    }
  }

  /**
   * Where the leader may try next: our log's end, or before the term that is in conflict (3.5, etcd's hint). Everything
   * up to our commit index is in the leader's log (leader completeness), and so is what was matched in this term.
   */
  #lastLikelyMatch(previous: number, own: LogPosition | undefined): number {
    const certain = Math.max(this.#commit, this.#matched);
    if (own === undefined) return Math.max(certain, Math.min(this.#log.last.index, previous - 1));
    let likely = previous - 1;
    while (likely > certain && this.#log.position(likely)?.term === own.term) likely -= 1;
    return Math.max(certain, likely);
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
      this.#noteMembership(entry);
    }
    return true;
  }

  #cut(keepThrough: number): void {
    this.#collectRemoved(keepThrough);
    this.#log.cut(keepThrough);
    this.#durable = Math.min(this.#durable, keepThrough);
    this.#matched = Math.min(this.#matched, keepThrough);
    this.#staged = this.#staged.filter((entry) => entry.index <= keepThrough);
    this.#keepThrough = Math.min(this.#keepThrough ?? keepThrough, keepThrough);
    this.#memberships = this.#memberships.filter(({ index }) => index <= keepThrough);
  }

  /** What lies on this disk above `keepThrough`; what never came to it was answered by nobody here. */
  #collectRemoved(keepThrough: number): void {
    for (let from = keepThrough + 1; from <= this.#durable;) {
      const entries = this.#log.entries(from, maximumMessageBytes);
      assert(entries.length > 0, `log of ${this.group} has entry ${from}`);
      this.#removed.push(...entries.filter(({ index }) => index <= this.#durable));
      from += entries.length;
    }
  }

  #acknowledge(leader: NodeId, sequence: number, sentMs: number): void {
    this.#reply(leader, true, Math.min(this.#matched, this.#durable), { sequence, sentMs });
  }

  #reply(
    to: NodeId,
    accepted: boolean,
    match: number,
    { sequence, sentMs }: { readonly sequence: number; readonly sentMs: number },
  ): void {
    const willing = this.votes && this.#options.willing();
    this.#send(to, { kind: 'append-reply', accepted, match, applied: this.#applied, sequence, sentMs, willing });
  }

  // ---- common ----------------------------------------------------------------------------------------------------

  #fail(reason: string): void {
    this.#failure = reason;
    this.#role = 'follower';
    this.#leader = undefined;
    this.#messages = [];
  }

  #send(to: NodeId, message: UnsignedMessage): void {
    this.#messages.push({
      to,
      message: { ...message, incarnation: this.#incarnation, term: this.#term },
    });
  }

  #others(): NodeId[] {
    const { voters, learners } = this.membership;
    return [...voters, ...learners].map(({ id }) => id).filter((id) => id !== this.self);
  }

  #otherVoters(): NodeId[] {
    return this.membership.voters.map(({ id }) => id).filter((id) => id !== this.self);
  }

  #majority(): number {
    return Math.floor(this.membership.voters.length / 2) + 1;
  }
}

/** A message without what every message carries. */
type UnsignedMessage = RaftMessage extends infer Message
  ? Message extends RaftMessage
    ? Omit<Message, 'incarnation' | 'term'>
    : never
  : never;

/** Processes that a leader remembers as wishing to join: a bound against a flood of greetings. */
const maximumStrangers = 16;

/**
 * What a member hears whose log's end nobody has confirmed: nothing that would move term or log on its disk, or the next
 * start would pass for a good one; and what peers remember of it must not be of this start.
 */
function isForUnconfirmed(message: RaftMessage): boolean {
  if (message.kind === 'vote') return message.reason === 'recovery';
  return message.kind === 'hello' || message.kind === 'hello-reply';
}

function isMembership(body: string): boolean {
  return body.startsWith('{"kind":"membership"');
}

function isIn(members: readonly Member[], id: NodeId, incarnation: number): boolean {
  return members.some((member) => member.id === id && member.incarnation === incarnation);
}

function freshProgress(incarnation: number, next: number, nowMs: number): Progress {
  return {
    incarnation,
    match: 0,
    next,
    applied: 0,
    willing: false,
    rewoundAt: 0,
    lastSentMs: nowMs,
    lastEntriesMs: nowMs,
    lastHeardMs: nowMs,
    answeredSentMs: Number.NEGATIVE_INFINITY,
    unacknowledged: [],
    unacknowledgedBytes: 0,
  };
}
