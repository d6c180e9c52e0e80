import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Pan } from '../base/pan.ts';
import type { Configuration } from './configuration.ts';
import { parseFailoverOrder } from './failover-order.ts';
import { RangeTable } from './routing.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow, RangeMoveRow } from './rows.ts';

/** What the view needs of this node's derived rows. */
export interface DerivedColumns {
  readonly table: string;
  readonly key: string;
  readonly columns: Readonly<Record<string, string | number | null>>;
}

/**
 * The configuration as deciding and routing read it: in memory, immutable, made anew from the fold of the `config`
 * group whenever that has moved on. `index` is the log index it was made at.
 */
export class ConfigurationView {
  readonly index: number;
  readonly #ranges: RangeTable;
  readonly #prefixes: readonly string[];
  readonly #moves: ReadonlyMap<string, RangeMoveRow>;
  readonly #limits: ReadonlyMap<string, RangeLimitRow>;
  readonly #links: ReadonlyMap<string, AcquirerLinkRow>;
  readonly #orders: ReadonlyMap<GroupId, readonly NodeId[]>;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(index: number, configuration: Configuration, derived: readonly DerivedColumns[]) {
    this.index = index;
    this.#ranges = new RangeTable(configuration.pan_range);
    this.#prefixes = configuration.pan_range.map(({ prefix }) => prefix);
    this.#moves = new Map(configuration.range_move.map((row) => [row.prefix, row]));
    this.#limits = new Map(configuration.range_limit.map((row) => [`${row.prefix} ${row.currency}`, row]));
    this.#links = new Map(configuration.acquirer_link.map((row) => [row.link_id, row]));
    this.#ranks = new Map(
      derived.flatMap(({ table, key, columns }) =>
        table === 'failover_map' && typeof columns['rank'] === 'number' ? [[key, columns['rank']] as const] : [],
      ),
    );
    this.#orders = new Map(
      configuration.failover_map.map((row) => [row.group_id, parseFailoverOrder(row.failover_order) as NodeId[]]),
    );
  }

  /** The range of a card: the longest prefix, at last the catch-all (prefix ''). */
  rangeOf(pan: Pan): PanRangeRow {
    return this.#ranges.find(pan.reveal());
  }

  /** The range with exactly this prefix. */
  range(prefix: string): PanRangeRow | undefined {
    const found = this.#ranges.find(prefix);
    return found.prefix === prefix ? found : undefined;
  }

  /** The move that the range is on, if it is on one (R12). */
  moveOf(prefix: string): RangeMoveRow | undefined {
    return this.#moves.get(prefix);
  }

  /** Ranges that are on their way to another group. */
  get moves(): readonly RangeMoveRow[] {
    return [...this.#moves.values()];
  }

  /** Prefixes of the ranges within a range: their cards are not its. */
  nestedIn(prefix: string): readonly string[] {
    return this.#prefixes.filter((each) => each.length > prefix.length && each.startsWith(prefix)).sort();
  }

  limits(prefix: string, currency: string): RangeLimitRow | undefined {
    return this.#limits.get(`${prefix} ${currency}`);
  }

  link(id: string): AcquirerLinkRow | undefined {
    return this.#links.get(id);
  }

  /** Every group and its failover order, the owner first. */
  get orders(): ReadonlyMap<GroupId, readonly NodeId[]> {
    return this.#orders;
  }

  /** This node's place in the group's failover order by its own derived row, 1 for the owner (R7). */
  rankIn(group: GroupId): number | undefined {
    return this.#ranks.get(group);
  }
}
