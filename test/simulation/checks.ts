import type { NodeId } from '../../base/identifiers.ts';
import type { Replica } from '../../replication/replica.ts';
import type { GroupReader } from '../../store/log-reader.ts';

/** A promise of the protocol was broken: the simulation's finding. */
export class Violation extends Error {}

/**
 * What must hold at every step, as the thesis states it (figure 3.2), seen by an observer that knows all processes:
 * election safety, log matching, leader completeness, state machine safety; and that an acknowledged entry is on disk.
 */
export class Checks {
  readonly #majority: number;
  /** The files of all processes, those that are down included. */
  readonly #files: ReadonlyMap<NodeId, GroupReader>;
  readonly #leaders = new Map<number, { readonly id: NodeId; readonly replica: Replica }>();
  readonly #hashes = new Map<string, string>();
  readonly #committed: (string | undefined)[] = [];
  readonly #seen = new Map<NodeId, { replica: Replica; commit: number; durable: number; applied: number }>();

  constructor(voters: number, files: ReadonlyMap<NodeId, GroupReader>) {
    this.#majority = Math.floor(voters / 2) + 1;
    this.#files = files;
  }

  get committed(): number {
    return Math.max(0, this.#committed.length - 1);
  }

  started(id: NodeId, replica: Replica): void {
    const { last } = replica.log;
    this.#seen.set(id, { replica, commit: replica.applied, durable: last.index, applied: replica.applied });
    for (let index = Math.max(1, last.index - 50); index <= last.index; index++) this.#matches(id, replica, index);
  }

  leads(id: NodeId, replica: Replica, term: number): void {
    const other = this.#leaders.get(term);
    // One election a term: the same process may not win it again after a crash either.
    if (other !== undefined && other.replica !== replica) {
      throw new Violation(`election safety: ${other.id} and ${id} were elected in term ${term}`);
    }
    this.#leaders.set(term, { id, replica });
    // Leader completeness: the newest committed entry, and by its hash all before it, is in the new leader's log.
    const index = this.committed;
    const hash = replica.log.position(index)?.hash;
    if (index > 0 && hash !== this.#committed[index]) {
      throw new Violation(`leader completeness: ${id} leads term ${term} without committed entry ${index}`);
    }
  }

  progressed(id: NodeId, replica: Replica, commit: number, durable: number): void {
    const seen = this.#seenOf(id, replica);
    if (commit < seen.commit) throw new Violation(`commit index of ${id} went from ${seen.commit} to ${commit}`);
    if (commit > replica.log.last.index) throw new Violation(`${id} commits ${commit}, beyond its log`);
    for (let index = Math.min(seen.durable, durable) + 1; index <= durable; index++) this.#matches(id, replica, index);
    for (let index = seen.commit + 1; index <= commit; index++) this.#commits(id, replica, index);
    if (commit > seen.commit && replica.raft.role === 'leader') this.#leaderCommits(id, replica, commit);
    const unsynced = replica.log.last.index - durable;
    if (replica.log.kept > 8192 + unsynced) throw new Violation(`${id} keeps ${replica.log.kept} entries in memory`);
    seen.commit = commit;
    seen.durable = durable;
  }

  applied(id: NodeId, replica: Replica, applied: number): void {
    const seen = this.#seenOf(id, replica);
    if (applied < seen.applied) throw new Violation(`applied index of ${id} went from ${seen.applied} to ${applied}`);
    if (applied > replica.raft.commit) throw new Violation(`${id} applied ${applied}, beyond its commit index`);
    seen.applied = applied;
  }

  #seenOf(id: NodeId, replica: Replica): { commit: number; durable: number; applied: number } {
    const seen = this.#seen.get(id);
    if (seen?.replica !== replica) throw new Violation(`${id} works on after its crash`);
    return seen;
  }

  #matches(id: NodeId, replica: Replica, index: number): void {
    const position = replica.log.position(index);
    if (position === undefined) throw new Violation(`${id} has a hole at ${index}`);
    const key = `${index} ${position.term}`;
    const known = this.#hashes.get(key);
    if (known === undefined) this.#hashes.set(key, position.hash);
    else if (known !== position.hash) throw new Violation(`log matching: ${id} has another entry at ${key}`);
  }

  #commits(id: NodeId, replica: Replica, index: number): void {
    const hash = replica.log.position(index)?.hash;
    const known = this.#committed[index];
    if (known === undefined) this.#committed[index] = hash;
    else if (known !== hash) throw new Violation(`state machine safety: ${id} commits another entry at ${index}`);
  }

  #leaderCommits(id: NodeId, replica: Replica, commit: number): void {
    const position = replica.log.position(commit);
    if (position?.term !== replica.raft.term) {
      throw new Violation(
        `${id} of term ${replica.raft.term} commits by counting entry ${commit} of ${position?.term ?? '-'}`,
      );
    }
    const holders = [...this.#files.values()].filter((file) => file.position(commit)?.hash === position.hash);
    if (holders.length < this.#majority) {
      throw new Violation(`${id} commits entry ${commit}, which ${holders.length} of the voters have on disk`);
    }
    if (this.#files.get(id)?.position(commit)?.hash !== position.hash) {
      throw new Violation(`${id} commits entry ${commit}, which it does not have on its own disk`);
    }
  }
}

/** Everything in a file but what differs by design, as text: two copies are equal when these are. */
export function contentOf(reader: GroupReader): Map<string, string[]> {
  const content = new Map<string, string[]>();
  const tables = reader.database
    .prepare<[], { name: string }>("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    .all();
  for (const { name } of tables) {
    const rows = reader.database
      .prepare(`SELECT * FROM "${name}" ORDER BY 1`)
      .raw()
      .safeIntegers()
      .all() as unknown[][];
    content.set(
      name,
      rows.map((row) => row.map(String).join('|')),
    );
  }
  return content;
}
