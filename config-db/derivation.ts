import type { NodeId } from '../base/identifiers.ts';
import { currentRuleSetRow, type Configuration } from './configuration.ts';
import {
  compileRuleSetRow,
  derive,
  joinFailoverOrders,
  nodesUnderMaintenance,
  type Derived,
  type DerivationRows,
  type DerivedTable,
  type RewriteTopology,
} from './rewrite.ts';
import { keyTextOf } from './rows.ts';

/** What one node makes of one row. */
export interface RowDerivation {
  readonly table: DerivedTable;
  /** As `keyTextOf` writes it. */
  readonly key: string;
  readonly derived: Derived;
}

/** The tables that derived columns are made from. */
export type DerivationSource = Pick<Configuration, DerivedTable | 'node_state' | 'rewrite_rule_set'>;

/** Where a row was entered. */
export type OriginOf = (table: DerivedTable, key: string) => NodeId;

/**
 * What the rule set in force makes of every row at one node; nothing before there is a rule set.
 * Throws REWRITE_RULES_INVALID.
 */
export function deriveRows(
  rows: DerivationSource,
  target: NodeId,
  topology: RewriteTopology,
  originOf: OriginOf,
): RowDerivation[] {
  const ruleSetRow = currentRuleSetRow(rows.rewrite_rule_set);
  if (ruleSetRow === undefined) return [];
  const ruleSet = compileRuleSetRow(ruleSetRow);
  const maintenance = nodesUnderMaintenance(rows);
  const of = <Table extends DerivedTable>(table: Table, list: readonly DerivationRows[Table][]): RowDerivation[] =>
    list.map((row) => {
      const key = keyTextOf(table, { ...row });
      const context = { origin: originOf(table, key), target, topology, maintenance };
      return { table, key, derived: derive(ruleSet, table, row, context) };
    });
  return [
    ...of('failover_map', rows.failover_map),
    ...of('pan_range', joinFailoverOrders(rows)),
    ...of('range_limit', rows.range_limit),
  ];
}
