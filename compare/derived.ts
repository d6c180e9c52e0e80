import { SwitchError } from '../base/errors.ts';
import { nodeId } from '../base/identifiers.ts';
import { currentRuleSetRow } from '../config-db/configuration.ts';
import {
  compileRuleSetRow,
  derive,
  joinFailoverOrders,
  type DerivationRows,
  type DerivedTable,
  type DerivedValue,
  type RewriteTopology,
  type RuleSet,
} from '../config-db/rewrite.ts';
import { columnsOf, parseConfigurationRow, type ConfigurationRows } from '../config-db/rows.ts';
import { decodeValue, digestOfValues, showValue, type EncodedKey, type EncodedValue } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import { allDerivedColumns, rewrittenTables } from './tables.ts';

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

export const derivationTables = [...rewrittenTables, 'rewrite_rule_set'] as const;
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
    const map = agreed(configurations, 'failover_map');
    const ranges = agreed(configurations, 'pan_range');
    const joined = joinFailoverOrders({ failover_map: map.rows, pan_range: ranges.rows });
    const ruleSet = ruleSetOf(configurations);
    for (const { node, tables } of configurations) {
      if (!topology.nodes.some(({ id }) => id === node)) return { unreadable: `${node} is not in the topology` };
      const check = <Table extends DerivedTable>(
        table: Table,
        rows: readonly DerivationRows[Table][],
        of: RowSource,
      ): void => {
        const here = new Map(tables[table].map((row) => [JSON.stringify(row.key), row]));
        rows.forEach((row, at) => {
          const own = here.get(of.keys[at] ?? '');
          if (own === undefined) return;
          const context = { origin: nodeId(of.origins[at] ?? ''), target: nodeId(node), topology };
          // Before a rule set has been entered nothing is derived.
          const expected = ruleSet === undefined ? {} : derive(ruleSet, table, row, context).columns;
          const columns = wrongColumns(own, expected);
          if (columns.length > 0) found.push({ node, table, key: own.key, columns, ...digestsOf(own, expected) });
        });
      };
      check('failover_map', map.rows, map);
      check('pan_range', joined, ranges);
    }
  } catch (error) {
    if (error instanceof SwitchError || error instanceof RangeError) return { unreadable: error.message };
    throw error;
  }
  return found;
}

function wrongColumns(own: NodeRow, expected: Readonly<Record<string, DerivedValue>>): DerivedDifference['columns'] {
  return allDerivedColumns.flatMap((column) => {
    const here = own.values[column] ?? 'n';
    const wanted = encodeDerived(expected[column] ?? null);
    return here === wanted ? [] : [{ column, here: showValue(column, here), expected: showValue(column, wanted) }];
  });
}

function digestsOf(
  own: NodeRow,
  expected: Readonly<Record<string, DerivedValue>>,
): Pick<DerivedDifference, 'here' | 'expected'> {
  return {
    here: digestOfValues(allDerivedColumns.map((column) => own.values[column] ?? 'n')),
    expected: digestOfValues(allDerivedColumns.map((column) => encodeDerived(expected[column] ?? null))),
  };
}

function encodeDerived(value: DerivedValue): EncodedValue {
  if (value === null) return 'n';
  return typeof value === 'number' ? `i${value}` : `t${value}`;
}

function ruleSetOf(configurations: readonly NodeConfiguration[]): RuleSet | undefined {
  const row = currentRuleSetRow(agreed(configurations, 'rewrite_rule_set').rows);
  return row && compileRuleSetRow(row);
}

/** Keys of a table's rows, and the nodes where they were entered, in the rows' order. */
interface RowSource {
  readonly keys: readonly string[];
  readonly origins: readonly string[];
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
  const [rows, keys, origins]: [ConfigurationRows[Table][], string[], string[]] = [[], [], []];
  for (const [key, votes] of candidates) {
    const present = [...votes.values()].reduce((sum, each) => sum + each, 0);
    const [content, most] = [...votes].reduce((best, each) => (each[1] > best[1] ? each : best));
    if (configurations.length - present > most) continue;
    const [origin, ...values] = JSON.parse(content) as EncodedValue[];
    const row = Object.fromEntries(columns.map((column, at) => [column, decodeValue(values[at] ?? 'n')]));
    rows.push(parseConfigurationRow(table, row));
    keys.push(key);
    origins.push(origin?.slice(1) ?? '');
  }
  return { rows, keys, origins };
}

/** A row as `derived` brings it: values in the order of the table's columns, then its derived columns. */
export function toNodeRow(
  table: TableSpecification,
  row: { readonly key: EncodedKey; readonly values: readonly EncodedValue[] },
): NodeRow {
  const names = [...table.columns, ...table.derivedColumns];
  return { key: row.key, values: Object.fromEntries(names.map((column, at) => [column, row.values[at] ?? 'n'])) };
}
