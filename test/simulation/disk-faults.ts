import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { StandIn } from '../../store/edge-store.ts';
import { decodeBody, type LogEntry } from '../../store/entry.ts';
import type { NodeState } from '../../store/node-state.ts';
import type { Observer } from './observer.ts';
import type { Scheduler } from './scheduler.ts';
import type { Image } from './disk.ts';
import type { SwitchProcess } from './process.ts';

/** A disk as it was, with what its owner had promised by then. */
interface Copy {
  readonly atMs: number;
  readonly image: Image;
  readonly promises: ReadonlyMap<GroupId, Promised>;
  /** Hashes of the entries on it that nobody had committed. */
  readonly uncommitted: ReadonlySet<string>;
  /** Attempts of the stand-in approvals on it that no owner had entered. */
  readonly standIns: ReadonlySet<string>;
}

/** What a member of a group has on its disk that others may count on. */
interface Promised {
  readonly term: number;
  readonly votedFor: NodeId | undefined;
  readonly lastIndex: number;
  readonly lastHash: string;
}

/** A copy is at least this old when it comes back. */
const leastAgeMs = 1_500;

/** What of a cluster its disks' faults need to know. */
interface FaultyCluster {
  readonly scheduler: Scheduler;
  readonly processes: readonly SwitchProcess[];
  readonly observer: Observer;
  readonly orders: ReadonlyMap<GroupId, readonly NodeId[]>;
}

/**
 * Disks that are lost, or go back to an earlier copy of themselves (R8, R9). Only what can be noticed is done: a majority
 * keeps its disks, and the others remember what the lost one had promised; what no protocol could notice is described
 * in docs/ARCHITECTURE.md.
 */
export class DiskFaults {
  /** Keys of answered `local` entries that were on one disk only, and went with it. */
  readonly lostKeys = new Set<string>();
  /** Nodes that have lost what they had noted of approvals that nobody got. */
  readonly forgetful = new Map<NodeId, number>();
  readonly #cluster: FaultyCluster;
  readonly #copies = new Map<NodeId, Copy>();
  /** Members whose disks went, and that are not whole again in all groups: where their logs had ended. */
  readonly #ill = new Map<NodeId, ReadonlyMap<GroupId, Promised>>();

  constructor(cluster: FaultyCluster) {
    this.#cluster = cluster;
  }

  copy(process: SwitchProcess): void {
    const { running } = process;
    if (running === undefined) return;
    this.#copies.set(process.id, {
      atMs: this.#cluster.scheduler.nowMs,
      image: process.disk.copy(),
      promises: this.#promisesOf(process, running.state),
      uncommitted: new Set(
        this.#groups().flatMap((group) => this.#uncommitted(process, group).map(({ hash }) => hash)),
      ),
      standIns: new Set(standInsOf(process).map(({ decision }) => decision.attempt)),
    });
  }

  /** Whether the member had the entry on the disk that it lost: it may have acknowledged it, and counts as one that is down. */
  hadOnDisk(id: NodeId, group: GroupId, index: number): boolean {
    return index <= (this.#ill.get(id)?.get(group)?.lastIndex ?? -1);
  }

  /** Puts an old copy in the disk's place, or nothing; false when that could not be noticed, or would be one too many. */
  lose(process: SwitchProcess, how: 'old' | 'empty'): boolean {
    const { scheduler, observer } = this.#cluster;
    const { running, id } = process;
    const copy = how === 'old' ? this.#copies.get(id) : undefined;
    if (running === undefined || (how === 'old' && (copy === undefined || scheduler.nowMs - copy.atMs < leastAgeMs))) {
      return false;
    }
    if (!this.#maySpare(id) || !this.#isNoticed(process, running.state, copy)) return false;
    this.#note(process, copy);
    const promises = this.#promisesOf(process, running.state);
    process.crash(how === 'old' ? 'for an old disk' : 'for an empty disk');
    observer.closeFiles(id);
    if (copy === undefined) process.disk.empty();
    else process.disk.restore(copy.image);
    this.#ill.set(id, promises);
    this.#copies.delete(id);
    if (!process.isWitness) this.forgetful.set(id, scheduler.nowMs);
    return true;
  }

  /** An operator has the process's copies of the groups made anew that it does not lead, one too many left alone. */
  rebuild(process: SwitchProcess): void {
    const { running, id } = process;
    if (running === undefined || !this.#maySpare(id)) return;
    const promises = this.#promisesOf(process, running.state);
    process.inThread('consensus', ({ driver }) => {
      const groups = this.#groups().filter((group) => {
        const raft = driver.replica(group)?.raft;
        return raft?.leader !== undefined && raft.leader !== id;
      });
      if (groups.length === 0) return;
      this.#ill.set(id, promises);
      for (const group of groups) {
        driver.rebuild(group, () => undefined);
        this.#cluster.observer.count('copy made anew, carried out');
      }
    });
  }

  /** Whether a majority is left without this member and those that are not whole again. */
  #maySpare(id: NodeId): boolean {
    const { processes } = this.#cluster;
    for (const each of processes) if (this.#isWhole(each)) this.#ill.delete(each.id);
    const ill = new Set([...this.#ill.keys(), id]);
    return 2 * ill.size < processes.length;
  }

  /** Counted in every group again, on the disk that it has now, with all that is committed there. */
  #isWhole({ running }: SwitchProcess): boolean {
    return (
      running !== undefined &&
      this.#groups().every((group) => {
        const raft = running.driver.replica(group)?.raft;
        return raft?.votes === true && raft.durable >= (this.#cluster.observer.consensus.get(group)?.committed ?? 0);
      })
    );
  }

  /**
   * Every other process runs, and all but one of them remember on disk what this one promised after the copy was made;
   * or it has promised nothing since.
   */
  #isNoticed(process: SwitchProcess, state: NodeState, copy: Copy | undefined): boolean {
    const others = this.#cluster.processes.filter(({ id }) => id !== process.id);
    if (others.some(({ running }) => running === undefined)) return false;
    const promises = this.#promisesOf(process, state);
    return this.#groups().every((group) => {
      const now = promises.get(group);
      const then = copy?.promises.get(group) ?? { term: 0, votedFor: undefined, lastIndex: 0, lastHash: '' };
      if (now === undefined) return false;
      const isSame = now.term === then.term && now.lastHash === then.lastHash && now.votedFor === then.votedFor;
      if (isSame) return true;
      const noticing = others.filter(({ running }) => {
        const known = running?.state.acknowledgedBy(group, process.id);
        if (known === undefined || known.term < now.term) return false;
        return known.term > then.term || known.index > then.lastIndex;
      });
      return noticing.length >= others.length - 1;
    });
  }

  /**
   * What is about to be forgotten by all the world: `local` can lose the tail that nobody else received, together with
   * the disk that it was answered on (R9), and so with what an edge approved by itself. What has been committed, comes
   * back with the copy or is on another disk is promised all the same. The tail of a leader that was cut off may lie
   * where others have committed something else long since.
   */
  #note(process: SwitchProcess, copy: Copy | undefined): void {
    for (const { decision } of standInsOf(process)) {
      if (copy?.standIns.has(decision.attempt) !== true) this.lostKeys.add(decision.request.key);
    }
    const others = this.#cluster.processes.filter((other) => other !== process);
    for (const group of this.#groups()) {
      const elsewhere = new Set(others.flatMap((other) => this.#uncommitted(other, group).map(({ hash }) => hash)));
      for (const entry of this.#uncommitted(process, group)) {
        if (copy?.uncommitted.has(entry.hash) !== true && !elsewhere.has(entry.hash)) this.#forget(entry);
      }
    }
  }

  /** Entries on the process's disk that nobody has committed: of its log, and of what was cut from its log (R9). */
  #uncommitted(process: SwitchProcess, group: GroupId): readonly Pick<LogEntry, 'hash' | 'body'>[] {
    const { observer } = this.#cluster;
    const reader = observer.file(process, group);
    const checks = observer.consensus.get(group);
    const logged = reader?.entries(reader.first(), Number.MAX_SAFE_INTEGER) ?? [];
    const cut = process.running?.salvage?.pending(group, Number.MAX_SAFE_INTEGER) ?? [];
    return [...logged, ...cut].filter(({ index, hash }) => checks?.committedAt(index)?.hash !== hash);
  }

  #forget({ body }: Pick<LogEntry, 'body'>): void {
    const entry = decodeBody(body);
    if (!('durability' in entry) || entry.durability !== 'local') return;
    this.lostKeys.add(entry.kind === 'attempt' ? entry.key : entry.request.key);
  }

  #promisesOf(process: SwitchProcess, state: NodeState): ReadonlyMap<GroupId, Promised> {
    return new Map(
      this.#groups().flatMap((group) => {
        const last = this.#cluster.observer.file(process, group)?.last();
        if (last === undefined) return [];
        return [[group, { ...state.hardState(group), lastIndex: last.index, lastHash: last.hash }]];
      }),
    );
  }

  #groups(): readonly GroupId[] {
    return [configGroup, ...this.#cluster.orders.keys()];
  }
}

/** Approvals that the process's edge gave by itself, as its disk has them. */
function standInsOf({ running }: SwitchProcess): readonly StandIn[] {
  let standIns: readonly StandIn[] = [];
  running?.edge?.store.pending(0, (pending) => {
    standIns = pending?.standIns ?? [];
  });
  return standIns;
}
