/*
 * Over 500 lines because the import rules know one such file in a folder.
 */
import assert from 'node:assert/strict';

import { groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { seededRandom } from '../base/random.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition, type Member } from '../store/entry.ts';
import { LogTail, type EntrySource } from './log-tail.ts';
import {
  Raft,
  type CampaignReason,
  type HardState,
  type Membership,
  type RaftMessage,
  type Ready,
  type Remembered,
} from './raft.ts';

/*
 * For tests of consensus: one machine with its disk, several of them with a network, and messages with defaults. Over 500
 * lines because hardly a test does with one of the three.
 */

export const group = groupId('a');
export const names = ['n1', 'n2', 'n3', 'n4', 'n5', 'n6'].map(nodeId);
export const [n1, n2, n3, n4, n5, n6] = names as [NodeId, NodeId, NodeId, NodeId, NodeId, NodeId];
export const electionTimeoutMs = 600;
export const heartbeatMs = 100;
/** R3: what a leader may count on after a message was sent that a majority has answered. */
export const leaseMs = 550;

const origin = originPosition(group);

export function members(...ids: readonly (NodeId | Member)[]): Member[] {
  return ids.map((each) => (typeof each === 'string' ? { id: each, incarnation: 1 } : each));
}

export function firstVoters(count: number): Member[] {
  return members(...names.slice(0, count));
}

/** A log whose entries have the given terms, bodies `body-<index>-<term>`. */
export function logOf(...terms: readonly number[]): LogEntry[] {
  return extend([], ...terms);
}

/** The log with entries of the given terms after it. */
export function extend(log: readonly LogEntry[], ...terms: readonly number[]): LogEntry[] {
  const entries = [...log];
  for (const term of terms) {
    const previous: LogPosition = entries.at(-1) ?? origin;
    entries.push(chainEntry(previous, term, `"body-${previous.index + 1}-${term}"`));
  }
  return entries;
}

/** The body of a membership entry. */
export function membershipBody(voters: readonly Member[], learners: readonly Member[] = []): string {
  return JSON.stringify({ kind: 'membership', at: 0, by: 'test', voters, learners, lost: [] });
}

const isMembership = (body: string): boolean => body.startsWith('{"kind":"membership"');

export function at<T>(entry: T | undefined): T {
  assert.ok(entry !== undefined);
  return entry;
}

/** What outlives a process. */
export class Disk implements EntrySource {
  start: LogPosition = origin;
  startMembership: Membership;
  log: LogEntry[] = [];
  hardState: HardState = { term: 0, votedFor: undefined };
  incarnation = 1;
  applied = 0;
  remembered = new Map<NodeId, Remembered>();

  constructor(formedWith: readonly Member[], learners: readonly Member[] = []) {
    this.startMembership = { index: 0, voters: formedWith, learners };
  }

  last(): LogPosition {
    return this.log.at(-1) ?? this.start;
  }

  base(): LogPosition {
    return this.start;
  }

  position(index: number): LogPosition | undefined {
    return index === this.start.index ? this.start : this.log[index - this.start.index - 1];
  }

  entries(from: number, count: number): readonly LogEntry[] {
    const first = from - this.start.index - 1;
    return first < 0 ? [] : this.log.slice(first, first + count);
  }

  /** The newest membership at or below an index. */
  membershipAt(index: number): Membership {
    for (const entry of [...this.log].reverse()) {
      if (entry.index > index || !isMembership(entry.body)) continue;
      const { voters, learners } = JSON.parse(entry.body) as Membership;
      return { index: entry.index, voters, learners };
    }
    return this.startMembership;
  }

  /** What a start reads: the newest membership that is applied, and every later one. */
  memberships(): Membership[] {
    const later = this.log.filter(({ index, body }) => index > this.applied && isMembership(body));
    return [this.membershipAt(this.applied), ...later.map(({ index }) => this.membershipAt(index))];
  }

  write(keepThrough: number | undefined, entries: readonly LogEntry[]): void {
    if (keepThrough !== undefined) this.log = this.log.filter(({ index }) => index <= keepThrough);
    for (const entry of entries) {
      assert.equal(entry.index, this.last().index + 1, 'entries follow each other on disk');
      this.log.push(entry);
    }
  }

  trim(through: number): void {
    const base = this.position(through);
    assert.ok(base !== undefined && through <= this.applied);
    this.startMembership = this.membershipAt(through);
    this.start = base;
    this.log = this.log.filter(({ index }) => index > through);
  }

  install(position: LogPosition, membership: Membership): void {
    this.start = position;
    this.startMembership = membership;
    this.log = [];
    this.applied = position.index;
  }

  copy(): Disk {
    const copy = new Disk([]);
    Object.assign(copy, this, { log: [...this.log], remembered: new Map(this.remembered) });
    return copy;
  }
}

export interface MachineOptions {
  readonly voters?: number | readonly Member[];
  readonly learners?: readonly Member[];
  readonly log?: readonly LogEntry[];
  readonly applied?: number;
  readonly hardState?: HardState;
  readonly incarnation?: number;
  readonly remembered?: ReadonlyMap<NodeId, Remembered>;
  readonly patient?: NodeId;
  readonly willing?: () => boolean;
  readonly campaignDelayMs?: (leader: NodeId | undefined) => number;
  readonly seed?: number;
  readonly nowMs?: number;
  /** The machine as it is right after its start: deaf, and with nobody's word about its disk. */
  readonly justStarted?: boolean;
}

/** One machine, its disk and its clock. */
export class Machine {
  readonly self: NodeId;
  readonly disk: Disk;
  readonly raft: Raft;
  readonly tail: LogTail;
  nowMs: number;
  /** What has been cut, to be kept elsewhere (R9). */
  readonly removed: LogEntry[] = [];
  /** Everything handed over to be written so far. */
  readonly written: LogEntry[] = [];
  #unwritten: { readonly keepThrough: number | undefined; readonly entries: readonly LogEntry[] }[] = [];

  constructor(self: NodeId, options: MachineOptions = {}, disk?: Disk) {
    this.self = self;
    const { voters = 3, nowMs = 10_000 } = options;
    this.nowMs = nowMs;
    this.disk = disk ?? new Disk(typeof voters === 'number' ? firstVoters(voters) : voters, options.learners);
    if (options.log !== undefined) this.disk.log = [...options.log];
    if (options.applied !== undefined) this.disk.applied = options.applied;
    if (options.incarnation !== undefined) this.disk.incarnation = options.incarnation;
    if (options.remembered !== undefined) this.disk.remembered = new Map(options.remembered);
    if (disk === undefined) {
      this.disk.hardState = options.hardState ?? { term: options.log?.at(-1)?.term ?? 0, votedFor: undefined };
    }
    const { patient } = options;
    this.tail = new LogTail(this.disk);
    this.raft = new Raft({
      group,
      self,
      incarnation: this.disk.incarnation,
      memberships: this.disk.memberships(),
      campaignDelayMs: options.campaignDelayMs ?? (() => 0),
      willing: options.willing ?? (() => true),
      remembered: (id) => this.disk.remembered.get(id),
      hardState: this.disk.hardState,
      log: this.tail,
      applied: this.disk.applied,
      ...(patient === undefined ? {} : { patient: () => new Set([patient]) }),
      heartbeatMs,
      electionTimeoutMs,
      nowMs: options.justStarted === true ? this.nowMs : this.nowMs - 2 * electionTimeoutMs,
      random: seededRandom(options.seed ?? 1),
    });
    if (options.justStarted !== true) this.beConfirmed();
  }

  /** Peers say that they know of nothing that this disk lacks. */
  beConfirmed(): void {
    for (const { id } of this.raft.membership.voters) {
      if (id !== this.self) this.receive(id, helloReply());
    }
    this.raft.takeReady(this.nowMs);
  }

  /** Takes what is ready, and syncs it; `sync: false` leaves the log's part to `write`. */
  take({ sync = true }: { readonly sync?: boolean } = {}): Ready {
    const ready = this.raft.takeReady(this.nowMs);
    if (ready.incarnation !== undefined) this.disk.incarnation = ready.incarnation;
    if (ready.hardState !== undefined) this.disk.hardState = ready.hardState;
    if (ready.write !== undefined) {
      this.removed.push(...ready.write.removed);
      this.written.push(...ready.write.entries);
      this.#unwritten.push(ready.write);
    }
    if (sync) this.write();
    return ready;
  }

  /** What was taken so far comes to disk, and is reported. */
  write(): void {
    for (const { keepThrough, entries } of this.#unwritten.splice(0)) this.disk.write(keepThrough, entries);
    this.raft.onDurable(this.disk.last());
    this.tail.onDurable(this.raft.durable);
  }

  get hasUnwritten(): boolean {
    return this.#unwritten.length > 0;
  }

  /** A snapshot has replaced the file. */
  installSnapshot(position: LogPosition, membership: Membership): void {
    this.#unwritten = [];
    this.disk.install(position, membership);
    this.raft.onSnapshot(position, membership);
  }

  receive(from: NodeId, message: RaftMessage): void {
    this.raft.receive(from, message, this.nowMs);
  }

  /** Receives and returns what goes to `from` then. */
  exchange(from: NodeId, message: RaftMessage, options: { readonly sync?: boolean } = {}): RaftMessage[] {
    this.receive(from, message);
    const before = this.take(options).messages;
    // What the sync has made ready.
    const after = options.sync === false ? [] : this.take().messages;
    return [...before, ...after].filter(({ to }) => to === from).map((each) => each.message);
  }

  tick(afterMs = 0): Ready {
    this.nowMs += afterMs;
    this.raft.tick(this.nowMs);
    return this.take();
  }

  /** Asks, is told by every other voter that it would win, and campaigns. */
  campaign(): Ready {
    this.tick(50);
    for (const { id, incarnation } of this.raft.membership.voters) {
      if (this.raft.role === 'pre-candidate') this.receive(id, preVoteReply(true, { incarnation }));
    }
    return this.take();
  }

  /** Campaigns and wins with the votes of the others. */
  lead(): Ready {
    this.campaign();
    const { term } = this.raft;
    for (const { id, incarnation } of this.raft.membership.voters) {
      if (id !== this.self) this.receive(id, voteReply(term, true, { incarnation }));
    }
    assert.equal(this.raft.role, 'leader');
    return this.take();
  }

  propose(...bodies: readonly string[]): number | undefined {
    return this.raft.propose(bodies, this.nowMs);
  }

  /** As leader: a follower answers. */
  hears(from: NodeId, match: number, options: Partial<RaftMessage & { kind: 'append-reply' }> = {}): void {
    this.receive(from, appendReply(this.raft.term, match, options));
  }

  /** Messages that go to `to` now. */
  messagesTo(to: NodeId): RaftMessage[] {
    return this.take()
      .messages.filter((each) => each.to === to)
      .map(({ message }) => message);
  }
}

// ---- messages ----------------------------------------------------------------------------------------------------

interface Sender {
  readonly incarnation?: number;
}

/** Entries of `log` after index `after`; without entries it is a heartbeat. */
export function append(
  log: readonly LogEntry[],
  options: {
    readonly term: number;
    readonly after?: number;
    readonly through?: number;
    readonly commit?: number;
    readonly sequence?: number;
    readonly sentMs?: number;
  },
): RaftMessage & { kind: 'append' } {
  const { term, after = 0, through = log.length, commit = 0, sequence = 1, sentMs = 0 } = options;
  const previous = log[after - 1] ?? origin;
  return {
    kind: 'append',
    incarnation: 1,
    term,
    previous: { index: previous.index, term: previous.term, hash: previous.hash },
    entries: log.slice(after, through),
    commit,
    sequence,
    sentMs,
    acknowledged: [],
  };
}

export function appendReply(
  term: number,
  match: number,
  options: Partial<RaftMessage & { kind: 'append-reply' }> = {},
): RaftMessage & { kind: 'append-reply' } {
  return {
    kind: 'append-reply',
    incarnation: 1,
    term,
    accepted: true,
    match,
    applied: 0,
    sequence: 1_000_000,
    sentMs: 0,
    willing: true,
    ...options,
  };
}

export function vote(term: number, log: readonly LogEntry[], reason: CampaignReason = 'timeout'): RaftMessage {
  const { index, term: lastTerm } = log.at(-1) ?? origin;
  return { kind: 'vote', incarnation: 1, term, lastIndex: index, lastTerm, reason };
}

export function preVote(term: number, log: readonly LogEntry[]): RaftMessage {
  const { index, term: lastTerm } = log.at(-1) ?? origin;
  return { kind: 'pre-vote', incarnation: 1, term, lastIndex: index, lastTerm };
}

export function voteReply(term: number, granted: boolean, { incarnation = 1 }: Sender = {}): RaftMessage {
  return { kind: 'vote-reply', incarnation, term, granted };
}

/** `term` is the voter's own; 0: no later one than the candidate's. */
export function preVoteReply(
  granted: boolean,
  { incarnation = 1, term = 0 }: Sender & { term?: number } = {},
): RaftMessage {
  return { kind: 'pre-vote-reply', incarnation, term, granted };
}

export function hello(lastIndex = 0, { incarnation = 1 }: Sender = {}): RaftMessage {
  return { kind: 'hello', incarnation, term: 0, lastIndex };
}

/** Without `known`, the peer remembers nothing of this member. */
export function helloReply(known: Remembered = { incarnation: 0, term: 0, index: 0 }): RaftMessage {
  const { incarnation: knownIncarnation, term: knownTerm, index: knownIndex } = known;
  return { kind: 'hello-reply', incarnation: 1, term: 0, knownIncarnation, knownTerm, knownIndex };
}

export function takeOver(term: number): RaftMessage {
  return { kind: 'take-over', incarnation: 1, term };
}

/** Whether each of the votes or pre-votes among the messages was granted. */
export function granted(messages: readonly RaftMessage[]): boolean[] {
  return messages.flatMap((each) =>
    each.kind === 'vote-reply' || each.kind === 'pre-vote-reply' ? [each.granted] : [],
  );
}

export function indexesOf(messages: readonly RaftMessage[]): number[] {
  return messages.flatMap((each) => (each.kind === 'append' ? each.entries.map(({ index }) => index) : []));
}

export function firstAppend(messages: readonly RaftMessage[]): RaftMessage & { kind: 'append' } {
  const found = messages.find(({ kind }) => kind === 'append');
  assert.ok(found?.kind === 'append');
  return found;
}

export function kindsOf(ready: Ready): string[] {
  return ready.messages.map(({ to, message }) => `${message.kind} to ${to}`);
}

// ---- several machines --------------------------------------------------------------------------------------------

/**
 * Machines whose messages arrive at once and in order, unless they are told not to: for scenarios. Every disk syncs at
 * once. Members' folds are at their commit index; what members acknowledged is remembered as in a node.
 */
export class Network {
  readonly machines = new Map<NodeId, Machine>();
  /** Messages for which this holds are lost. */
  loses: (from: NodeId, to: NodeId, message: RaftMessage) => boolean = () => false;
  /** Snapshots that were installed. */
  snapshots = 0;
  readonly #options: Omit<MachineOptions, 'log' | 'applied'>;
  #cut = new Set<string>();
  #inFlight: { readonly from: NodeId; readonly to: NodeId; readonly message: RaftMessage }[] = [];

  constructor(ids: number | readonly NodeId[], options: Omit<MachineOptions, 'log' | 'applied'> = {}) {
    const voters = typeof ids === 'number' ? names.slice(0, ids) : ids;
    this.#options = { voters: members(...voters), ...options };
    for (const id of voters) this.add(id);
  }

  add(id: NodeId, options: MachineOptions = {}, disk?: Disk): Machine {
    const nowMs = [...this.machines.values()][0]?.nowMs ?? 10_000;
    // Each waits longer than the one before, as their ranks have it in a node.
    const campaignDelayMs = (): number => 120 * names.indexOf(id);
    const machine = new Machine(id, { nowMs, campaignDelayMs, ...this.#options, ...options }, disk);
    this.machines.set(id, machine);
    return machine;
  }

  /** The process ends and starts again, on the disk it had or another one. */
  restart(id: NodeId, disk = this.of(id).disk): Machine {
    const { nowMs } = this.of(id);
    return this.add(id, { nowMs, justStarted: true }, disk);
  }

  of(id: NodeId): Machine {
    return at(this.machines.get(id));
  }

  /** Nothing goes between `some` and the others, or comes back. */
  isolate(...some: readonly NodeId[]): void {
    for (const one of some) {
      for (const other of this.machines.keys()) {
        if (some.includes(other)) continue;
        this.#cut.add(`${one} ${other}`).add(`${other} ${one}`);
      }
    }
  }

  heal(): void {
    this.#cut.clear();
    this.loses = () => false;
  }

  /** Carries out what is ready and delivers, until nothing is under way. */
  settle(): void {
    for (let round = 0; round < 10_000; round++) {
      for (const machine of this.machines.values()) this.#takeFrom(machine);
      const next = this.#inFlight.shift();
      if (next === undefined) return;
      const { from, to, message } = next;
      const machine = this.machines.get(to);
      if (machine === undefined || this.#isCut(from, to) || this.loses(from, to, message)) continue;
      machine.receive(from, message);
      if (message.kind === 'append' && machine.raft.leader === from) {
        for (const { id, incarnation, index } of message.acknowledged) {
          machine.disk.remembered.set(id, { incarnation, term: message.term, index });
        }
      }
    }
    assert.fail('messages never end');
  }

  /** Time passes for everybody. */
  advance(durationMs: number): void {
    for (let passed = 0; passed < durationMs; passed += 25) {
      for (const machine of this.machines.values()) {
        machine.nowMs += 25;
        machine.raft.tick(machine.nowMs);
      }
      this.settle();
    }
  }

  /** Time passes until `id` leads and its first entry is committed. */
  elect(id: NodeId): Machine {
    const machine = this.of(id);
    machine.nowMs += electionTimeoutMs;
    for (let passed = 0; passed < 3_000 && machine.raft.role !== 'leader'; passed += 25) {
      machine.nowMs += 25;
      for (const other of this.machines.values()) {
        if (other !== machine) other.nowMs = Math.max(other.nowMs, machine.nowMs);
      }
      machine.raft.tick(machine.nowMs);
      this.settle();
    }
    assert.equal(machine.raft.role, 'leader', `${id} leads`);
    this.advance(heartbeatMs);
    return machine;
  }

  /** Who leads: of several, of the latest term. */
  get leader(): NodeId | undefined {
    const leaders = [...this.machines.values()].filter(({ raft }) => raft.role === 'leader');
    return leaders.sort((one, other) => other.raft.term - one.raft.term)[0]?.self;
  }

  roles(): string[] {
    return [...this.machines.values()].map(({ self, raft }) => `${self} ${raft.role} ${raft.term}`);
  }

  lastIndexes(): number[] {
    return [...this.machines.values()].map(({ tail }) => tail.last.index);
  }

  #isCut(from: NodeId, to: NodeId): boolean {
    return this.#cut.has(`${from} ${to}`);
  }

  #fetchSnapshot(from: Disk, to: Machine): void {
    const position = at(from.position(from.applied));
    if (to.raft.takeSnapshot(position).kind !== 'install') return;
    to.installSnapshot(position, from.membershipAt(from.applied));
    this.snapshots += 1;
  }

  #takeFrom(machine: Machine): void {
    for (;;) {
      const { messages, write, commit, fetchSnapshotFrom } = machine.take();
      if (fetchSnapshotFrom !== undefined && !this.#isCut(fetchSnapshotFrom, machine.self)) {
        this.#fetchSnapshot(this.of(fetchSnapshotFrom).disk, machine);
      }
      for (const { to, message } of messages) this.#inFlight.push({ from: machine.self, to, message });
      const applied = Math.min(commit, machine.disk.last().index);
      machine.disk.applied = Math.max(machine.disk.applied, applied);
      machine.raft.onApplied(machine.disk.applied);
      if (machine.raft.role === 'leader') {
        for (const { id, incarnation, index } of machine.raft.acknowledgements()) {
          machine.disk.remembered.set(id, { incarnation, term: machine.raft.term, index });
        }
      }
      if (messages.length === 0 && write === undefined) return;
    }
  }
}
