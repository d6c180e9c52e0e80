import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { Durability } from '../../store/entry.ts';
import { Violation } from './violation.ts';

/** An answer on its way out of an owner. */
export interface LeavingAnswer {
  readonly id: NodeId;
  readonly group: GroupId;
  readonly term: number;
  /** The entry that it stands on. */
  readonly index: number;
  readonly durability: Durability;
  readonly isCommitted: boolean;
  /** On the owner's own disk. */
  readonly isOnDisk: boolean;
}

/**
 * What holds of every answer as it leaves its owner (R2, R3): its entry is on the owner's disk; for `quorum` it is
 * committed; for `local` nobody of a later term answers for the group's cards already.
 */
export class AnswerChecks {
  /** Clocks differ by more than the leases allow for: what rests on them is not promised. */
  clocksKeepTheMargin = true;
  readonly #newest = new Map<GroupId, { readonly id: NodeId; readonly term: number }>();

  left(answer: LeavingAnswer): void {
    const { id, group, term, index, durability, isCommitted, isOnDisk } = answer;
    if (!isOnDisk) throw new Violation(`${id} answers with entry ${index} of ${group}, which is not on its disk`);
    if (isCommitted) {
      this.#decides(group, id, term);
      return;
    }
    if (durability === 'quorum') throw new Violation(`${id} answers with entry ${index} of ${group} before its commit`);
    const newest = this.#newest.get(group);
    if (this.clocksKeepTheMargin && newest !== undefined && newest.term > term) {
      throw new Violation(
        `${id} answers for ${group} by itself in term ${term}: ${newest.id} does in term ${newest.term}`,
      );
    }
    this.#decides(group, id, term);
  }

  #decides(group: GroupId, id: NodeId, term: number): void {
    const newest = this.#newest.get(group);
    if (newest === undefined || newest.term < term) this.#newest.set(group, { id, term });
  }

  /**
   * An owner decides, or answers by itself: nobody of an earlier term has a lease at this instant, or both could answer
   * for a card; and who answers by itself is the only one who may.
   */
  leases(group: GroupId, decider: Leaseholder, valid: readonly Leaseholder[]): void {
    const hasLease = valid.some(({ id }) => id === decider.id);
    const other = valid.find(({ id, term }) => id !== decider.id && (term < decider.term || hasLease));
    if (this.clocksKeepTheMargin && other !== undefined) {
      throw new Violation(`${decider.id} decides for ${group} while ${other.id} may still answer by itself`);
    }
  }
}

/** An owner, in the term that it goes by. */
export interface Leaseholder {
  readonly id: NodeId;
  readonly term: number;
}
