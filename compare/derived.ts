import { SwitchError } from '../base/errors.ts';
import { nodeId } from '../base/identifiers.ts';
import { deriveRows, type DerivationSource, type OriginOf } from '../config-db/derivation.ts';
import {
  allDerivedColumnsOf,
  derivedTables,
  type DerivedTable,
  type DerivedValue,
  type RewriteTopology,
} from '../config-db/rewrite.ts';
import { columnsOf, keyTextOf, parseConfigurationRow, type ConfigurationRows } from '../config-db/rows.ts';
import { decodeValue, digestOfValues, showValue, type EncodedKey, type EncodedValue } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';

/** A configuration row as one node has it, by column. */
export interface NodeRow {
  readonly key: EncodedKey;
  readonly values: Readonly<Record<string, EncodedValue>>;
}

/** All rows of the configuration tables that derivation reads, of one node. */
export interface NodeConfiguration {
  readonly node: string;
  readonly tables: Readonly<Record<DerivationTable, readonly NodeRow[]>>;
}

export const derivationTables = ['failover_map', 'pan_range', 'range_limit', 'node_state', 'rewrite_rule_set'] as const;
export type DerivationTable = (typeof derivationTables)[number];

export interface DerivedDifference {
  readonly node: string;
  readonly table: DerivedTable;
  readonly key: EncodedKey;
  readonly columns: readonly { readonly column: string; readonly here: string; readonly expected: string }[];
  /** Digests of all derived columns of the row (`digestOfValues`). */
  readonly here: string;
  readonly expected: string;
}

/**
 * Derived columns of every node against the rules. The canonical rows that the rules are applied to are those that most
 * nodes have (the first node's, when votes are equal): a canonical row that was changed by hand in one copy is a
 * difference of its own, and says nothing about what that node has derived. So is a row that a node does not have.
 * Rows that agree on two nodes though the rules make them differ are wrong on one of them, and come out of this too.
 * Gives a text when the rules cannot be applied: then nothing can be said.
 */
export function checkDerived(
  configurations: readonly NodeConfiguration[],
  topology: RewriteTopology,
): readonly DerivedDifference[] | { readonly unreadable: string } {
  const found: DerivedDifference[] = [];
  try {
    const sources = {
      failover_map: agreed(configurations, 'failover_map'),
      pan_range: agreed(configurations, 'pan_range'),
      range_limit: agreed(configurations, 'range_limit'),
    };
    const rows: DerivationSource = {
      failover_map: sources.failover_map.rows,
      pan_range: sources.pan_range.rows,
      range_limit: sources.range_limit.rows,
      node_state: agreed(configurations, 'node_state').rows,
      rewrite_rule_set: agreed(configurations, 'rewrite_rule_set').rows,
    };
    const originOf: OriginOf = (table, key) => nodeId(sources[table].places.get(key)?.origin ?? '');
    for (const { node, tables } of configurations) {
      if (!topology.nodes.some(({ id }) => id === node)) return { unreadable: `${node} is not in the topology` };
      // Before a rule set has been entered nothing is derived.
      const expectedOf = new Map(
        deriveRows(rows, nodeId(node), topology, originOf).map(({ table, key, derived }) => [
          `${table} ${key}`,
          derived.columns,
        ]),
      );
      for (const table of derivedTables) {
        const here = new Map(tables[table].map((row) => [JSON.stringify(row.key), row]));
        for (const [key, place] of sources[table].places) {
          const own = here.get(place.key);
          if (own === undefined) continue;
          const expected = expectedOf.get(`${table} ${key}`) ?? {};
          const columns = wrongColumns(table, own, expected);
          if (columns.length > 0)
            found.push({ node, table, key: own.key, columns, ...digestsOf(table, own, expected) });
        }
      }
    }
  } catch (error) {
    if (error instanceof SwitchError || error instanceof RangeError) return { unreadable: error.message };
    throw error;
  }
  return found;
}

function wrongColumns(
  table: DerivedTable,
  own: NodeRow,
  expected: Readonly<Record<string, DerivedValue>>,
): DerivedDifference['columns'] {
  return allDerivedColumnsOf(table).flatMap((column) => {
    const here = own.values[column] ?? 'n';
    const wanted = encodeDerived(expected[column] ?? null);
    return here === wanted ? [] : [{ column, here: showValue(column, here), expected: showValue(column, wanted) }];
  });
}

function digestsOf(
  table: DerivedTable,
  own: NodeRow,
  expected: Readonly<Record<string, DerivedValue>>,
): Pick<DerivedDifference, 'here' | 'expected'> {
  return {
    here: digestOfValues(allDerivedColumnsOf(table).map((column) => own.values[column] ?? 'n')),
    expected: digestOfValues(allDerivedColumnsOf(table).map((column) => encodeDerived(expected[column] ?? null))),
  };
}

function encodeDerived(value: DerivedValue): EncodedValue {
  if (value === null) return 'n';
  return typeof value === 'number' ? `i${value}` : `t${value}`;
}

/** By a row's key as people write it: its encoded key as JSON, and the node where it was entered. */
interface RowSource {
  readonly places: ReadonlyMap<string, { readonly key: string; readonly origin: string }>;
}

/** The rows of a table that most nodes have. */
function agreed<Table extends DerivationTable>(
  configurations: readonly NodeConfiguration[],
  table: Table,
): RowSource & { readonly rows: readonly ConfigurationRows[Table][] } {
  const columns = columnsOf(table);
  const candidates = new Map<string, Map<string, number>>();
  for (const { tables } of configurations) {
    for (const { key, values } of tables[table]) {
      const votes = candidates.get(JSON.stringify(key)) ?? new Map<string, number>();
      candidates.set(JSON.stringify(key), votes);
      const content = JSON.stringify([values['origin'] ?? 'n', ...columns.map((column) => values[column] ?? 'n')]);
      votes.set(content, (votes.get(content) ?? 0) + 1);
    }
  }
  const rows: ConfigurationRows[Table][] = [];
  const places = new Map<string, { key: string; origin: string }>();
  for (const [key, votes] of candidates) {
    const present = [...votes.values()].reduce((sum, each) => sum + each, 0);
    const [content, most] = [...votes].reduce((best, each) => (each[1] > best[1] ? each : best));
    if (configurations.length - present > most) continue;
    const [origin, ...values] = JSON.parse(content) as EncodedValue[];
    const row = Object.fromEntries(columns.map((column, at) => [column, decodeValue(values[at] ?? 'n')]));
    rows.push(parseConfigurationRow(table, row));
    places.set(keyTextOf(table, row), { key, origin: origin?.slice(1) ?? '' });
  }
  return { rows, places };
}

/** A row as `derived` brings it: values in the order of the table's columns, then its derived columns. */
export function toNodeRow(
  table: TableSpecification,
  row: { readonly key: EncodedKey; readonly values: readonly EncodedValue[] },
): NodeRow {
  const names = [...table.columns, ...table.derivedColumns];
  return { key: row.key, values: Object.fromEntries(names.map((column, at) => [column, row.values[at] ?? 'n'])) };
}
