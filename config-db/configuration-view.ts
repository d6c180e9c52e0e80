import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { MinorUnits } from '../base/money.ts';
import type { Pan } from '../base/pan.ts';
import type { Configuration } from './configuration.ts';
import { parseFailoverOrder } from './failover-order.ts';
import { RangeTable } from './routing.ts';
import type { AcquirerLinkRow, PanRangeRow, RangeLimitRow, RangeMoveRow } from './rows.ts';

/** A group's first node owns; whoever else comes to own stands by for it. */
type Duty = 'own' | 'standby';

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
  readonly #limits: ReadonlyMap<string, Readonly<Record<Duty, RangeLimitRow>>>;
  readonly #merchantLimits: ReadonlyMap<string, MinorUnits>;
  readonly #prefixes: readonly string[];
  readonly #moves: ReadonlyMap<string, RangeMoveRow>;
  readonly #links: ReadonlyMap<string, AcquirerLinkRow>;
  readonly #orders: ReadonlyMap<GroupId, readonly NodeId[]>;
  readonly #ranks: ReadonlyMap<string, number>;

  constructor(index: number, configuration: Configuration, derived: readonly DerivedColumns[]) {
    this.index = index;
    this.#ranges = new RangeTable(configuration.pan_range);
    const limits = new Map(derived.flatMap((row) => (row.table === 'range_limit' ? [[row.key, row.columns]] : [])));
    this.#limits = new Map(
      configuration.range_limit.map((row) => {
        const columns = limits.get(`${row.prefix}/${row.currency}`);
        const as = (maximum: string | number | null | undefined): RangeLimitRow =>
          typeof maximum === 'number' ? { ...row, transaction_maximum_minor: BigInt(maximum) } : row;
        const duties = {
          own: as(columns?.['maximum_as_owner_minor']),
          standby: as(columns?.['maximum_as_standby_minor']),
        };
        return [`${row.prefix} ${row.currency}`, duties];
      }),
    );
    this.#merchantLimits = new Map(
      configuration.merchant_limit.map((row) => [
        `${row.prefix} ${row.merchant_category} ${row.currency}`,
        row.transaction_maximum_minor,
      ]),
    );
    this.#prefixes = configuration.pan_range.map(({ prefix }) => prefix);
    this.#moves = new Map(configuration.range_move.map((row) => [row.prefix, row]));
    this.#links = new Map(configuration.acquirer_link.map((row) => [row.link_id, row]));
    this.#ranks = new Map(
      derived.flatMap(({ table, key, columns }) =>
        table === 'failover_map' && typeof columns['rank'] === 'number' && columns['rank'] > 0
          ? [[key, columns['rank']] as const]
          : [],
      ),
    );
    const successions = new Map(
      derived.flatMap(({ table, key, columns }) =>
        table === 'failover_map' && typeof columns['succession'] === 'string' ? [[key, columns['succession']]] : [],
      ),
    );
    this.#orders = new Map(
      configuration.failover_map.map(({ group_id: group, failover_order: order }) => [
        group,
        parseFailoverOrder(successions.get(group) ?? order) as NodeId[],
      ]),
    );
  }

  /** The range of a card: the longest prefix, at last the catch-all (prefix ''). */
  rangeOf(pan: Pan): PanRangeRow {
    return this.#ranges.find(pan.reveal());
  }

  /** The limits of a range for a node that decides as the first of the succession, or as a stand-by. */
  limits(prefix: string, currency: string, as: Duty): RangeLimitRow | undefined {
    return this.#limits.get(`${prefix} ${currency}`)?.[as];
  }

  /** The most that a card of the range may spend at once at this kind of merchant (DE 18); undefined: no such limit. */
  merchantLimit(prefix: string, category: string, currency: string): MinorUnits | undefined {
    return this.#merchantLimits.get(`${prefix} ${category} ${currency}`);
  }

  /** As what this node decides for the group when it does. */
  dutyIn(group: GroupId): Duty {
    return this.#ranks.get(group) === 1 ? 'own' : 'standby';
  }

  /** The range of all cards whose number begins with these digits; undefined: longer prefixes divide them. */
  rangeOfAll(digits: string): PanRangeRow | undefined {
    const isDivided = this.#prefixes.some((prefix) => prefix.length > digits.length && prefix.startsWith(digits));
    return isDivided ? undefined : this.#ranges.find(digits);
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

  link(id: string): AcquirerLinkRow | undefined {
    return this.#links.get(id);
  }

  /** Every group and who owns it in turn, by this node's own derived rows: nodes under maintenance are not in it. */
  get orders(): ReadonlyMap<GroupId, readonly NodeId[]> {
    return this.#orders;
  }

  /** This node's place in the succession by its own derived row, 1 for the owner (R7); undefined: it is left out. */
  rankIn(group: GroupId): number | undefined {
    return this.#ranks.get(group);
  }
}
