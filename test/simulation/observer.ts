import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { Groups } from '../../cli/node/groups.ts';
import type { Replica } from '../../replication/replica.ts';
import type { Durability, LogEntry, LogPosition } from '../../store/entry.ts';
import { GroupReader } from '../../store/log-reader.ts';
import type { DecidedAnswer } from '../../switch/authorizer.ts';
import type { OwnerOutcome } from '../../switch/owner.ts';
import { duplicateKey, type SwitchRequest } from '../../switch/request.ts';
import { AnswerChecks, type Leaseholder } from './answer-checks.ts';
import type { SimulatedBus } from './bus.ts';
import { ConsensusChecks, type Life, type LogView } from './consensus-checks.ts';
import { approved } from './journal.ts';
import type { SwitchProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';
import { Stability } from './stability.ts';
import { Violation } from './violation.ts';

/** More than this of a log in memory is a leak, besides what is not yet on disk. */
const keptEntries = 8_192;

/** A leader takes an election timeout, and a tick, by a clock that may be slow, to notice that it is alone. */
const cutOffLimitMs = 1_000;
/** A process or thread that has come back counts as sound after this. */
const recoveryMs = 2_000;

/**
 * Sees all processes at once, their disks included, also of those that are down; holds what they do against what was
 * promised; counts what happens.
 */
export class Observer {
  /** How often each thing happened. */
  readonly events = new Map<string, number>();
  readonly consensus: ReadonlyMap<GroupId, ConsensusChecks>;
  readonly answers = new AnswerChecks();
  readonly stability = new Stability(cutOffLimitMs);
  readonly #scheduler: Scheduler;
  readonly #durability: (pan: string) => Durability;
  readonly #hadOnDisk: (id: NodeId, group: GroupId, index: number) => boolean;
  readonly #processes: () => readonly SwitchProcess[];
  /** Of each running process, its groups. */
  readonly #lives = new Map<NodeId, ObservedLife[]>();
  readonly #diskTroubleMs = new Map<NodeId, number>();
  readonly #files = new Map<string, GroupReader>();
  readonly #committedLogs = new Map<GroupId, LogEntry[]>();

  constructor(
    scheduler: Scheduler,
    durability: (pan: string) => Durability,
    groups: readonly GroupId[],
    processes: () => readonly SwitchProcess[],
    hadOnDisk: (id: NodeId, group: GroupId, index: number) => boolean,
  ) {
    this.#hadOnDisk = hadOnDisk;
    this.#scheduler = scheduler;
    this.#durability = durability;
    this.#processes = processes;
    this.consensus = new Map(
      groups.map((group) => [group, new ConsensusChecks(group, (id, index) => this.#onDisk(id, group, index))]),
    );
  }

  /** Every committed entry of a group, whatever its copies still have. */
  committedLog(group: GroupId): LogEntry[] {
    let entries = this.#committedLogs.get(group);
    if (entries === undefined) {
      entries = [];
      this.#committedLogs.set(group, entries);
    }
    return entries;
  }

  count(event: string, times = 1): void {
    this.events.set(event, (this.events.get(event) ?? 0) + times);
  }

  /** A process's file of a group, for reading; undefined when there is none. */
  file(process: SwitchProcess, group: GroupId): GroupReader | undefined {
    const running = process.running?.readers.get(group);
    if (running !== undefined) return running;
    const key = `${process.id} ${group}`;
    let reader = this.#files.get(key);
    const path = reader === undefined ? process.path(group) : undefined;
    if (path !== undefined) {
      reader = new GroupReader(path, group);
      this.#files.set(key, reader);
    }
    return reader;
  }

  /** Before a process's files are opened by it, moved or replaced. */
  closeFiles(id: NodeId): void {
    for (const [key, reader] of this.#files) {
      if (!key.startsWith(`${id} `)) continue;
      reader.close();
      this.#files.delete(key);
    }
  }

  ended(id: NodeId): void {
    this.#lives.delete(id);
  }

  /** A snapshot has replaced a group's file. */
  installed(process: SwitchProcess, group: GroupId): void {
    this.count('snapshot installed');
    this.#life(process.id, group).isReplaced = true;
  }

  /** After every turn of a process's consensus thread: what has changed in its groups. */
  look(process: SwitchProcess): void {
    const { running } = process;
    if (running === undefined) return;
    let lives = this.#lives.get(process.id);
    if (lives === undefined) {
      lives = [];
      this.#lives.set(process.id, lives);
    }
    // A group's file was opened anew: its replica has begun a new life.
    if (lives.some((life) => running.driver.replica(life.group) !== life.replica)) {
      lives = lives.filter((life) => running.driver.replica(life.group) === life.replica);
      this.#lives.set(process.id, lives);
    }
    if (lives.length < this.consensus.size) {
      for (const [group, checks] of this.consensus) {
        const replica = running.driver.replica(group);
        if (replica === undefined || lives.some((life) => life.group === group)) continue;
        const life = new ObservedLife(process.id, group, replica, checks);
        lives.push(life);
        checks.started(life, replica.applied);
        if (this.#leaderTerm(group) < replica.raft.term) this.stability.startsAhead(group, this.#scheduler.nowMs);
      }
    }
    for (const life of lives) this.#lookAt(life);
  }

  /** The latest term that somebody leads the group in; 0 when nobody does. */
  #leaderTerm(group: GroupId): number {
    const terms = this.#processes().map(({ running }) => {
      const raft = running?.driver.replica(group)?.raft;
      return raft?.role === 'leader' ? raft.term : 0;
    });
    return Math.max(...terms);
  }

  /** Call every few tens of milliseconds. */
  sample(bus: Pick<SimulatedBus, 'faults' | 'isUnderWay' | 'reaches'>): void {
    const { nowMs } = this.#scheduler;
    const processes = this.#processes();
    // Neither counts on a member whose disk is in trouble, or which is not counted since it was.
    for (const { id, running, isDiskFull } of processes) {
      const isCounted = [...this.consensus.keys()].every(
        (group) =>
          running?.driver.replica(group)?.raft.votes !== false && running?.driver.stopped.includes(group) !== true,
      );
      if (isDiskFull || !isCounted) this.#diskTroubleMs.set(id, nowMs);
    }
    const isSound = ({ id, running, startedMs }: SwitchProcess): boolean =>
      running !== undefined &&
      nowMs - startedMs > recoveryMs &&
      nowMs - (this.#diskTroubleMs.get(id) ?? Number.NEGATIVE_INFINITY) > recoveryMs &&
      Object.values(running.threads).every((thread) => nowMs - thread.stalledUntilMs > recoveryMs);
    this.stability.sample({
      nowMs,
      isCalm: bus.faults.lostPercent === 0 && bus.faults.latePercent === 0,
      sound: new Set(processes.filter(isSound).map(({ id }) => id)),
      hears: (one, other) =>
        bus.isUnderWay(other, one) || (bus.reaches(other, one) && this.#process(other).running !== undefined),
      areConnected: (one, other) =>
        bus.reaches(one, other) && bus.reaches(other, one) && this.#process(other).running !== undefined,
      leaders: processes.flatMap(({ id, running }) =>
        [...this.consensus.keys()].flatMap((group) => {
          const raft = running?.driver.replica(group)?.raft;
          if (raft?.role !== 'leader') return [];
          return [{ id, group, term: raft.term, voters: raft.membership.voters.map((member) => member.id) }];
        }),
      ),
    });
  }

  /** What a process's consensus says in its log. */
  logged(id: NodeId, message: string, details: object): void {
    const group = 'group' in details ? (details.group as GroupId) : undefined;
    if (message === 'hands the group over' && group !== undefined) {
      this.count('transfer');
      this.stability.handsOver(id, group);
    }
  }

  /** A tail of the log is about to be cut. */
  cut(id: NodeId, group: GroupId, keepThrough: number): void {
    this.count('truncation');
    this.#scheduler.trace(id, `${group}: cuts its log after ${keepThrough}`);
  }

  /** An owner lets an answer go. */
  decided(id: NodeId, group: GroupId, groups: Groups, request: SwitchRequest, outcome: OwnerOutcome): void {
    if (outcome.kind !== 'answer') return;
    const hosted = groups.hosted.get(group);
    const transaction = hosted?.owner?.ledger.transactionByKey(duplicateKey(request));
    // What leaves no trace has nothing that could be lost.
    if (transaction === undefined) {
      if (isYes(outcome.answer)) throw new Violation(`${id} approves ${request.stan} and has no entry of it`);
      return;
    }
    const term = hosted?.led?.term;
    if (term === undefined) throw new Violation(`${id} answers for ${group}, which it does not lead`);
    const { index } = transaction;
    const { log, commit } = this.#life(id, group);
    const own = log.position(index);
    // What it has no longer, it has trimmed, after it was committed.
    const isCommitted = own === undefined ? index <= commit : own.hash === this.#checks(group).committedAt(index)?.hash;
    this.answers.left({
      id,
      group,
      term,
      index,
      durability: this.#durabilityOf(request),
      isCommitted,
      isOnDisk: this.#onDisk(id, group, index) !== undefined,
    });
    this.decides(id, group, term);
  }

  /** An owner is ready to decide, or does. */
  decides(id: NodeId, group: GroupId, term: number): void {
    this.answers.leases(group, { id, term }, this.#leaseholders(group));
  }

  /** Who may answer for `local` cards of the group by itself at this instant. */
  #leaseholders(group: GroupId): readonly Leaseholder[] {
    return this.#processes().flatMap(({ id, running, machine }) => {
      const hosted = running?.groups.hosted.get(group);
      const { led, owner } = hosted ?? {};
      if (led === undefined || owner?.ready !== true || machine.monotonicMs() >= led.leaseUntilMs) return [];
      return [{ id, term: led.term }];
    });
  }

  #lookAt(life: ObservedLife): void {
    const { id, group, checks } = life;
    const { raft, log, applied } = life.replica;
    const { term, commit, durable, failure } = raft;
    const leads = raft.role === 'leader' ? term : 0;
    if (failure !== undefined) throw new Violation(`${id} has stopped group ${group}: ${failure}`);
    if (leads !== life.leads) {
      this.#scheduler.trace(
        id,
        leads > 0 ? `leads ${group} in term ${term}` : `leads ${group} no longer: ${raft.endedBecause}`,
      );
      this.count(leads > 0 ? 'election' : 'deposition');
      if (leads > 0) checks.elected(life, term);
      else {
        checks.resigned(life);
        this.stability.deposed(id, group, this.#scheduler.nowMs);
      }
      life.leads = leads;
    }
    if (life.isReplaced) {
      life.isReplaced = false;
      checks.installed(life, log.base);
      life.last = log.last;
      life.commit = Math.max(life.commit, log.base.index);
      life.durable = log.base.index;
      life.applied = log.base.index;
      this.#scheduler.trace(id, `${group}: stands at the snapshot of ${log.base.index}`);
    }
    if (log.last !== life.last) {
      checks.changed(life);
      life.last = log.last;
    }
    if (durable !== life.durable) {
      checks.durableThrough(life, durable);
      life.durable = durable;
    }
    if (commit !== life.commit) {
      const voters = leads > 0 ? raft.membership.voters.map((member) => member.id) : undefined;
      checks.committedThrough(life, commit, term, voters);
      this.#keepCommitted(group, life, commit);
      life.commit = commit;
      this.#scheduler.trace(id, `${group}: commit ${commit} durable ${durable} term ${term}`);
    }
    if (applied !== life.applied) {
      checks.applied(life, applied);
      life.applied = applied;
    }
    if (log.kept > keptEntries + log.last.index - durable) {
      throw new Violation(`${id} keeps ${log.kept} entries of ${group} in memory`);
    }
  }

  #keepCommitted(group: GroupId, { replica }: ObservedLife, commit: number): void {
    const entries = this.committedLog(group);
    while (entries.length < commit) {
      const more = replica.log.entries(entries.length + 1, Number.MAX_SAFE_INTEGER);
      if (more.length === 0) throw new Error(`the committed entry ${entries.length + 1} is gone before it was seen`);
      entries.push(...more.filter(({ index }) => index <= commit));
    }
  }

  #durabilityOf(request: SwitchRequest): Durability {
    return this.#durability(request.pan.reveal());
  }

  #onDisk(id: NodeId, group: GroupId, index: number): LogPosition | 'trimmed' | undefined {
    const file = this.file(this.#process(id), group);
    const found = file?.position(index);
    if (found !== undefined) return found;
    const isTrimmed = file !== undefined && index < file.base().index;
    return isTrimmed || this.#hadOnDisk(id, group, index) ? 'trimmed' : undefined;
  }

  #process(id: NodeId): SwitchProcess {
    const process = this.#processes().find((each) => each.id === id);
    if (process === undefined) throw new Error(`no process ${id}`);
    return process;
  }

  #checks(group: GroupId): ConsensusChecks {
    const checks = this.consensus.get(group);
    if (checks === undefined) throw new Error(`no group ${group}`);
    return checks;
  }

  #life(id: NodeId, group: GroupId): ObservedLife {
    const life = this.#lives.get(id)?.find((each) => each.group === group);
    if (life === undefined) throw new Error(`${id} has not started`);
    return life;
  }
}

function isYes({ responseCode }: DecidedAnswer): boolean {
  return responseCode === approved;
}

/** A member of a group as it was seen last. */
class ObservedLife implements Life {
  readonly id: NodeId;
  readonly group: GroupId;
  readonly replica: Replica;
  readonly checks: ConsensusChecks;
  readonly log: LogView;
  /** Its log has been replaced by a snapshot since it was looked at. */
  isReplaced = false;
  leads = 0;
  last: LogPosition;
  commit: number;
  durable: number;
  applied: number;

  constructor(id: NodeId, group: GroupId, replica: Replica, checks: ConsensusChecks) {
    const { log } = replica;
    this.id = id;
    this.group = group;
    this.replica = replica;
    this.checks = checks;
    this.last = log.last;
    this.commit = replica.applied;
    this.durable = log.last.index;
    this.applied = replica.applied;
    this.log = {
      get last() {
        return log.last;
      },
      get base() {
        return log.base.index;
      },
      position: (index) => log.position(index),
    };
  }
}
