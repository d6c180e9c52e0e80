import type { GroupId } from '../base/identifiers.ts';
import type { Configuration } from './configuration.ts';
import type { ConfigurationChange, PanRangeRow, Problem } from './rows.ts';

/*
 * Which changes of ranges may be entered (R12). Who has a card is said by the groups' logs; `config` must never say
 * otherwise, or a card would have no group, or two:
 *
 *   - a range that is new takes cards from the range around it, so it is of the same group (carve); from the catch-all,
 *     which has no cards, it may be of any
 *   - a range that goes gives its cards to the range around it, so that is of the same group (merge)
 *   - a range gets another group only with the end of its move, whose beginning is a `range_move` row
 *   - while a range moves, nothing is carved out of it or merged into it: which cards move is fixed when the move begins
 */

/** The end of a move: the range is the other group's from here on. */
export function endOfMove(configuration: Configuration, move: string): readonly ConfigurationChange[] {
  const moving = configuration.range_move.find((row) => row.move_id === move);
  const range = configuration.pan_range.find((row) => row.prefix === moving?.prefix);
  if (moving === undefined || range === undefined) return [];
  return [
    { table: 'pan_range', operation: 'put', row: { ...range, group_id: moving.to_group } },
    { table: 'range_move', operation: 'delete', key: { prefix: moving.prefix } },
  ];
}

/** What is wrong with the changes of ranges among these. `ends`: the move that they end, after all its cards have come. */
export function problemsOfRangeChanges(
  before: Configuration,
  changes: readonly ConfigurationChange[],
  ends?: string,
): readonly Problem[] {
  // Nobody has cards before the first configuration.
  if (before.pan_range.length === 0) return [];
  const ranges = new Map(before.pan_range.map((row) => [row.prefix, row]));
  const problems: Problem[] = [];
  const moving = new Map(before.range_move.map((row) => [row.prefix, row]));
  const isMoving = (prefix: string): boolean => moving.has(prefix);
  // In order: what one of them carves, another may divide again.
  for (const change of changes) {
    if (change.table === 'range_move') {
      const prefix = change.operation === 'put' ? change.row.prefix : change.key.prefix;
      const known = moving.get(prefix);
      const message =
        known !== undefined && known.move_id !== ends
          ? `it is on its way to group ${known.to_group}: a move that was begun is brought to its end`
          : undefined;
      if (message !== undefined) problems.push({ path: `range_move "${prefix}"`, message });
      if (change.operation === 'delete') moving.delete(prefix);
      else moving.set(prefix, change.row);
      continue;
    }
    if (change.table !== 'pan_range') continue;
    const prefix = change.operation === 'put' ? change.row.prefix : change.key.prefix;
    const known = ranges.get(prefix);
    const message =
      change.operation === 'delete'
        ? problemOfMerge(ranges, known, isMoving)
        : known === undefined
          ? problemOfCarve(ranges, prefix, change.row.group_id, isMoving)
          : problemOfGroup(known, change.row.group_id, ends !== undefined && moving.get(prefix)?.move_id === ends);
    if (message !== undefined) problems.push({ path: `pan_range "${prefix}"`, message });
    if (change.operation === 'delete') ranges.delete(prefix);
    else ranges.set(prefix, change.row);
  }
  return problems;
}

function problemOfCarve(
  ranges: ReadonlyMap<string, PanRangeRow>,
  prefix: string,
  group: GroupId,
  isMoving: (prefix: string) => boolean,
): string | undefined {
  const around = rangeAround(ranges, prefix);
  if (around === undefined) return undefined;
  if (isMoving(around.prefix)) return `the range "${around.prefix}" around it is moving: wait until that has ended`;
  return around.group_id === group || around.prefix === ''
    ? undefined
    : `its cards are group ${around.group_id}'s: enter it with that group, and move it then`;
}

function problemOfMerge(
  ranges: ReadonlyMap<string, PanRangeRow>,
  range: PanRangeRow | undefined,
  isMoving: (prefix: string) => boolean,
): string | undefined {
  if (range === undefined) return undefined;
  const around = rangeAround(ranges, range.prefix);
  if (around === undefined) return 'the catch-all cannot be deleted';
  if (isMoving(range.prefix) || isMoving(around.prefix))
    return 'it or the range around it is moving: wait until that has ended';
  if (around.prefix === '') return 'no range is around it that could take its cards';
  return around.group_id === range.group_id
    ? undefined
    : `its cards are group ${range.group_id}'s, and the range "${around.prefix}" around it is group ${around.group_id}'s: move it there first`;
}

function problemOfGroup(known: PanRangeRow, group: GroupId, isEnd: boolean): string | undefined {
  return known.group_id === group || isEnd
    ? undefined
    : `its cards are group ${known.group_id}'s: "quadrant ranges move ${known.prefix} ${group}" moves them`;
}

/** The range that has the cards of this prefix, or would have them without the range of this prefix. */
function rangeAround(ranges: ReadonlyMap<string, PanRangeRow>, prefix: string): PanRangeRow | undefined {
  for (let length = prefix.length - 1; length >= 0; length--) {
    const row = ranges.get(prefix.slice(0, length));
    if (row !== undefined) return row;
  }
  return undefined;
}
