import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { LogPosition } from '../../store/entry.ts';
import { Violation } from './violation.ts';

/** A copy of a group's log as an observer sees it. */
export interface LogView {
  readonly last: LogPosition;
  /** Entries up to here have been trimmed; 0 when none have. */
  readonly base: number;
  /** Undefined when the log has no such entry, or has it no longer. */
  position(index: number): LogPosition | undefined;
}

/** One process from its start to its end, as a member of one group. */
export interface Life {
  readonly id: NodeId;
  readonly log: LogView;
}

interface Seen {
  readonly life: Life;
  commit: number;
  durable: number;
  applied: number;
  /** The term that this process leads, or 0. */
  leads: number;
  /** The end of its log when it was seen to lead last. */
  ledThrough: LogPosition | undefined;
}

/**
 * What consensus promises, at every step, as the thesis states it (figure 3.2), for one group and seen by an observer
 * that knows all processes: election safety, leader append-only, log matching, leader completeness, state machine
 * safety; and that what counts as committed is on the disks of a majority.
 */
export class ConsensusChecks {
  readonly #group: GroupId;
  /** What a process has on disk at an index, also when it is down. `trimmed`: it had the entry, and applied it. */
  readonly #onDisk: (id: NodeId, index: number) => LogPosition | 'trimmed' | undefined;
  readonly #leaders = new Map<number, Life>();
  readonly #hashes = new Map<string, string>();
  /** Every committed entry, and in which term it was first known to be committed. */
  readonly #committed: { readonly position: LogPosition; readonly inTerm: number }[] = [];
  readonly #seen = new Map<NodeId, Seen>();

  constructor(group: GroupId, onDisk: (id: NodeId, index: number) => LogPosition | 'trimmed' | undefined) {
    this.#group = group;
    this.#onDisk = onDisk;
  }

  /** The highest index that any process knew to be committed. */
  get committed(): number {
    return this.#committed.length;
  }

  committedAt(index: number): LogPosition | undefined {
    return this.#committed[index - 1]?.position;
  }

  /** The highest term in which somebody was elected. */
  get newestTerm(): number {
    return Math.max(0, ...this.#leaders.keys());
  }

  started(life: Life, applied: number): void {
    const { last, base } = life.log;
    this.#seen.set(life.id, { life, commit: applied, durable: last.index, applied, leads: 0, ledThrough: undefined });
    for (let index = Math.max(1, base + 1, last.index - 50); index <= last.index; index++) this.#matches(life, index);
    if (applied > this.committed)
      this.#fail(life, `starts with ${applied} applied, and ${this.committed} is committed`);
  }

  elected(life: Life, term: number): void {
    const seen = this.#seenOf(life);
    const other = this.#leaders.get(term);
    // One election a term: the same process may not win it again after a crash either.
    if (other !== undefined && other !== life) {
      throw new Violation(`election safety: ${other.id} and ${life.id} were elected in term ${term} of ${this.#group}`);
    }
    if (term < seen.leads) this.#fail(life, `leads term ${term} after term ${seen.leads}`);
    this.#leaders.set(term, life);
    seen.leads = term;
    seen.ledThrough = life.log.last;
    this.#isComplete(life, term);
  }

  resigned(life: Life): void {
    const seen = this.#seenOf(life);
    seen.leads = 0;
    seen.ledThrough = undefined;
  }

  /** In `term`, as its leader who counted a majority of `voters`, or (undefined) told by its leader. */
  committedThrough(life: Life, commit: number, term: number, voters: readonly NodeId[] | undefined): void {
    const seen = this.#seenOf(life);
    if (commit < seen.commit) this.#fail(life, `takes its commit index back from ${seen.commit} to ${commit}`);
    if (commit > life.log.last.index) this.#fail(life, `commits ${commit}, beyond its log`);
    if (commit > seen.commit && voters !== undefined) this.#isOnMajority(life, commit, term, voters);
    for (let index = seen.commit + 1; index <= commit; index++) this.#commits(life, index, term);
    seen.commit = commit;
  }

  /** More of the log is on this process's disk; or less, when a tail was cut. */
  durableThrough(life: Life, durable: number): void {
    const seen = this.#seenOf(life);
    for (let index = Math.min(seen.durable, durable) + 1; index <= durable; index++) this.#matches(life, index);
    seen.durable = durable;
  }

  /** The log ends elsewhere than before: a leader's has only grown, and nobody's has lost what it knew to be committed. */
  changed(life: Life): void {
    const seen = this.#seenOf(life);
    const { log } = life;
    const { ledThrough } = seen;
    if (seen.leads !== 0 && ledThrough !== undefined && !has(log, ledThrough)) {
      this.#fail(
        life,
        `leader append-only: has replaced its entry ${ledThrough.index} while it leads term ${seen.leads}`,
      );
    }
    seen.ledThrough = seen.leads === 0 ? undefined : log.last;
    const committed = this.committedAt(seen.commit);
    if (committed !== undefined && !has(log, committed)) this.#fail(life, `has cut committed entry ${seen.commit}`);
    seen.durable = Math.min(seen.durable, log.last.index);
  }

  applied(life: Life, applied: number): void {
    const seen = this.#seenOf(life);
    if (applied < seen.applied) this.#fail(life, `takes its applied index back from ${seen.applied} to ${applied}`);
    if (applied > seen.commit) this.#fail(life, `applies ${applied}, and knows ${seen.commit} to be committed`);
    seen.applied = applied;
  }

  /** A snapshot has replaced log and fold. */
  installed(life: Life, at: LogPosition): void {
    const seen = this.#seenOf(life);
    const known = this.committedAt(at.index);
    if (known === undefined) this.#fail(life, `installs a snapshot at ${at.index}, which is not committed`);
    else if (known.hash !== at.hash) this.#fail(life, `installs a snapshot of another log at ${at.index}`);
    if (at.index < seen.applied) this.#fail(life, `installs a snapshot at ${at.index} over its ${seen.applied}`);
    seen.commit = Math.max(seen.commit, at.index);
    seen.durable = at.index;
    seen.applied = at.index;
  }

  #seenOf(life: Life): Seen {
    const seen = this.#seen.get(life.id);
    if (seen?.life !== life) throw new Violation(`${life.id} works on after its crash`);
    return seen;
  }

  #matches(life: Life, index: number): void {
    const position = life.log.position(index);
    if (position === undefined) {
      if (index > life.log.base) this.#fail(life, `has a hole at ${index}`);
      return;
    }
    const key = `${index} ${position.term}`;
    const known = this.#hashes.get(key);
    if (known === undefined) this.#hashes.set(key, position.hash);
    else if (known !== position.hash) this.#fail(life, `log matching: has another entry ${index} of ${position.term}`);
  }

  /** Leader completeness: the newest entry committed in an earlier term, and by its hash all before it, is in its log. */
  #isComplete(life: Life, term: number): void {
    let index = this.committed;
    while ((this.#committed[index - 1]?.inTerm ?? 0) >= term) index -= 1;
    const hash = this.committedAt(index)?.hash;
    if (hash !== undefined) this.#mustHave(life, index, hash, term);
  }

  #mustHave(life: Life, index: number, hash: string, term: number): void {
    if (!has(life.log, { index, hash })) {
      this.#fail(life, `leader completeness: leads term ${term} without committed entry ${index}`);
    }
  }

  #commits(life: Life, index: number, term: number): void {
    const position = life.log.position(index);
    const known = this.committedAt(index);
    if (position === undefined) {
      if (known === undefined || index > life.log.base) this.#fail(life, `commits ${index}, which it does not have`);
      return;
    }
    if (known === undefined) {
      this.#committed[index - 1] = { position, inTerm: term };
      // Who was elected for a later term before this entry counted must have it as well.
      for (const seen of this.#seen.values()) {
        if (seen.leads > term) this.#mustHave(seen.life, index, position.hash, seen.leads);
      }
    } else if (known.hash !== position.hash) {
      this.#fail(life, `state machine safety: commits another entry at ${index}`);
    }
  }

  #isOnMajority(life: Life, commit: number, term: number, voters: readonly NodeId[]): void {
    const position = life.log.position(commit);
    if (position?.term !== term) {
      this.#fail(life, `counts entry ${commit} of term ${position?.term ?? '-'} in its own term ${term}`);
    }
    const has = (id: NodeId): boolean => {
      const found = this.#onDisk(id, commit);
      return found === 'trimmed' || found?.hash === position.hash;
    };
    const holders = voters.filter(has);
    if (2 * holders.length <= voters.length) {
      this.#fail(life, `commits entry ${commit}: ${holders.length} of ${voters.length} voters have it on disk`);
    }
    if (!has(life.id)) this.#fail(life, `commits entry ${commit}, which it does not have on its own disk`);
  }

  #fail(life: Life, what: string): never {
    throw new Violation(`${life.id}, group ${this.#group}: ${what}`);
  }
}

/** Whether the entry is in the log, or was before the log was trimmed. */
function has(log: LogView, { index, hash }: { readonly index: number; readonly hash: string }): boolean {
  const own = log.position(index);
  return own === undefined ? index <= log.base : own.hash === hash;
}
