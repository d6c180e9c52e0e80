import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Pan } from '../base/pan.ts';
import type { Configuration } from './configuration.ts';
import { parseFailoverOrder } from './failover-order.ts';
import { RangeTable } from './routing.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow } from './rows.ts';

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
  readonly #limits: ReadonlyMap<string, RangeLimitRow>;
  readonly #links: ReadonlyMap<string, AcquirerLinkRow>;
  readonly #orders: ReadonlyMap<GroupId, readonly NodeId[]>;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(index: number, configuration: Configuration, derived: readonly DerivedColumns[]) {
    this.index = index;
    this.#ranges = new RangeTable(configuration.pan_range);
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
