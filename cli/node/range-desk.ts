import { delay, type Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { ConfigurationView } from '../../config-db/configuration-view.ts';
import { absent, keyOfChange } from '../../config-db/configuration-change.ts';
import { readVersions } from '../../config-db/configuration-fold.ts';
import { problemsOfRangeChanges } from '../../config-db/range-changes.ts';
import { formatProblem, type ConfigurationChange } from '../../config-db/rows.ts';
import type { Groups } from './groups.ts';

/** What an operator is told before a change of ranges is entered. */
export interface RangePlan {
  readonly problems: readonly string[];
  /** Of each change the version of the row that it replaces. */
  readonly replaces: readonly number[];
  /** Of each range that is to move or to go, how many cards it has as this node knows it. */
  readonly cards: Readonly<Record<string, number>>;
  /** Groups of which this node knows no owner: `config` and those that the change is about. */
  readonly withoutOwner: readonly string[];
}

/** A range on its way, as far as the copies of this node know. */
export interface RangeProgress {
  readonly prefix: string;
  readonly move: string;
  readonly from: GroupId;
  readonly to: GroupId;
  /** begun: it is in the configuration only. arrived: the heir decides, and the configuration is to say so. */
  readonly state: 'begun' | 'leaving' | 'copying' | 'arrived';
  readonly cardsLeft: number;
  readonly cardsCome: number;
  /** Who leads the two groups and `config`, each of which has something to do. */
  readonly owners: Readonly<Record<string, NodeId | null>>;
}

/** Cards looked at in one step, and then others have their turn. */
const cardsPerStep = 500;

export async function planRanges(
  groups: Groups,
  configuration: ConfigurationView,
  changes: readonly ConfigurationChange[],
  clock: Clock,
): Promise<RangePlan> {
  const hosted = groups.hosted.get(configGroup);
  if (hosted === undefined) throw new SwitchError('OWNER_UNREACHABLE', 'this node has no configuration yet');
  const { database } = hosted.reader;
  const versions = database.transaction(() => readVersions(database))();
  const before = versions.rows;
  const replaces = changes.map((change) => versions.versionOf(change.table, keyOfChange(change))?.version ?? absent);
  const involved = new Set<GroupId>([configGroup]);
  const cards: Record<string, number> = {};
  const problems = problemsOfRangeChanges(before, changes).map(formatProblem);
  for (const change of changes) {
    if (change.table !== 'pan_range' && change.table !== 'range_move') continue;
    const prefix = change.operation === 'put' ? change.row.prefix : change.key.prefix;
    const range = configuration.range(prefix);
    if (change.table === 'range_move' && range === undefined)
      problems.push(`pan_range "${prefix}": there is no such range`);
    if (change.table === 'range_move' && change.operation === 'put') {
      involved.add(change.row.to_group);
      const { to_group: to } = change.row;
      if (!configuration.orders.has(to)) problems.push(`group ${to}: there is no such group in the failover map`);
      if (prefix === '') problems.push('pan_range "": the catch-all range cannot be moved');
      if (range?.group_id === to) problems.push(`pan_range "${prefix}": the range is group ${to}'s already`);
    }
    if (range === undefined || (change.table === 'pan_range' && change.operation === 'put')) continue;
    involved.add(range.group_id);
    cards[prefix] = await countCards(groups, configuration, prefix, range.group_id, clock);
  }
  const withoutOwner = [...involved].filter((group) => groups.leaderOf(group) === undefined);
  return { problems, replaces, cards, withoutOwner };
}

async function countCards(
  groups: Groups,
  configuration: ConfigurationView,
  prefix: string,
  group: GroupId,
  clock: Clock,
): Promise<number> {
  let through = '';
  let count = 0;
  for (;;) {
    const ranges = groups.foldOf(group)?.ranges;
    if (ranges === undefined) return count;
    const page = ranges.cards({ prefix, nested: configuration.nestedIn(prefix) }, through, cardsPerStep);
    count += page.cards.length;
    if (page.isLast) return count;
    through = page.through;
    await delay(clock, 1);
  }
}

export function rangesOnTheirWay(groups: Groups, configuration: ConfigurationView): readonly RangeProgress[] {
  return configuration.moves.flatMap(({ prefix, to_group: to, move_id: move }): RangeProgress[] => {
    const from = configuration.range(prefix)?.group_id;
    if (from === undefined) return [];
    const left = groups.foldOf(from)?.ledger.rangeMove(move);
    const come = groups.foldOf(to)?.ledger.rangeMove(move);
    const owners = Object.fromEntries([from, to, configGroup].map((group) => [group, groups.leaderOf(group) ?? null]));
    const state =
      left === undefined
        ? 'begun'
        : left.endIndex === 0
          ? 'leaving'
          : come === undefined || come.endIndex === 0
            ? 'copying'
            : 'arrived';
    return [{ prefix, move, from, to, state, cardsLeft: left?.cards ?? 0, cardsCome: come?.cards ?? 0, owners }];
  });
}
