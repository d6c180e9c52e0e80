import type { GroupId } from '../base/identifiers.ts';
import type { PanRangeRow, RangeMoveRow as RangeMove } from '../config-db/rows.ts';
import type { RangeMoveRow } from '../store/range-move.ts';

/*
 * How a range moves from the group `old` to the group `heir` (R12). Its cards are always one group's, or for a moment
 * nobody's; never two groups' at once. Each step is an entry, so whoever leads the group then goes on with the next one:
 *
 *   config  range_move       the range is to move. From here on which cards it has cannot change (config-db/range-changes.ts)
 *   old     range-out        nothing is decided for the range here any more; no card comes onto file in it. Requests wait:
 *                            they are sent on to the heir
 *   old     range-leave ...  names the range's cards, some at a time. Their rows are frozen: expiries, completions, reversals,
 *                            claims do not touch them. The last one says that there are no more
 *   heir    range-rows ...   how far card files have been entered for the range, and the cards' rows: cards, holds, usage,
 *                            duplicate keys, attempts, tombstones, resolutions. The
 *                            heir's leader reads them from its own copy of the old group's fold, once that has applied the
 *                            last range-leave; they are the same in every copy, and so another leader goes on where the one
 *                            before has stopped
 *   heir    range-in         names the old group's entry, the number of cards and the hash of all rows. Once it is applied,
 *                            and so committed, the heir decides for the range
 *   config  range, heir's    the range has the heir's group, and `range_move` goes
 *
 * The rows travel in the heir's log, though every node has them in its old file: so the heir's fold is made of its own log
 * alone, at every index, on every copy - also on one that is filled anew when the old group has trimmed its log, or has
 * the range again. Logs of a witness hold no more of cards than import entries do.
 *
 * A log never contradicts `config`: a leader decides only with a configuration at least as new as any that its log names
 * (R1), and every entry of a move names one that has the move. So the configuration at hand says whose the range is or
 * was, and the log says how far its present move has come (`placeOf`). An edge's idea of it is a hint: an owner that has
 * not got a range tells the edge who has. The edge follows with another attempt, for each group must know which attempts
 * it may have decided (R5).
 *
 * What nodes bring the old group for cards that have left (undelivered, salvaged, stand-in) is settled by nobody until the
 * move has ended, and is sent on to the heir then. Frozen rows stay in the old group: they say where a card has gone. When
 * a range comes back, what comes with it replaces them.
 */

/** Who decides for a card: this group, the one named; `coming`: this group, once all of the range has come. */
export type Place = 'here' | 'coming' | GroupId;

/** How far a move has come in this group's log. */
export interface MoveState {
  /** Later entries included; undefined: the log has nothing of it. */
  readonly row: RangeMoveRow | undefined;
  /** The owner's fold has all of that. */
  readonly isSettled: boolean;
  /** As the file has it, which may be further than the owner knows. */
  readonly inFile: RangeMoveRow | undefined;
}

export function placeOf(
  group: GroupId,
  range: PanRangeRow,
  move: RangeMove | undefined,
  log: { stateOf(move: string): Omit<MoveState, 'inFile'>; isComing(prefix: string): boolean },
): Place {
  if (range.group_id === group) {
    if (move !== undefined && log.stateOf(move.move_id).row !== undefined) return move.to_group;
    return log.isComing(range.prefix) ? 'coming' : 'here';
  }
  if (move?.to_group !== group) return range.group_id;
  const { row, isSettled } = log.stateOf(move.move_id);
  return row !== undefined && row.endIndex > 0 && isSettled ? 'here' : 'coming';
}

type Step = 'out' | 'leave' | 'rows' | 'end' | 'nothing';

/** Entries of cards or rows that are not applied yet, at most: bounds what a move adds to anybody's memory. */
const maximumAhead = 4;

/** What the leader of `group` does next. `left`: the move in the old group's fold, as this node has it. */
export function nextStep(
  group: GroupId,
  range: PanRangeRow,
  move: RangeMove,
  { row, isSettled, inFile }: MoveState,
  left: RangeMoveRow | undefined,
): Step {
  const mayGoOn = row === undefined || row.parts - (inFile?.parts ?? 0) < maximumAhead;
  if (range.group_id === group) {
    if (row === undefined) return 'out';
    // What came onto file before has to be in the file: the cards are read from there.
    return row.endIndex === 0 && inFile !== undefined && mayGoOn ? 'leave' : 'nothing';
  }
  if (move.to_group !== group) return 'nothing';
  if (row !== undefined && row.endIndex > 0) return isSettled ? 'end' : 'nothing';
  const hasLeft = left !== undefined && left.endIndex > 0;
  return hasLeft && mayGoOn ? 'rows' : 'nothing';
}
