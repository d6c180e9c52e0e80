import { z } from 'zod';

import type { NodeId } from '../base/identifiers.ts';
import { formatFailoverOrder, parseFailoverOrder, type FailoverOrder } from './failover-order.ts';
import {
  ExpressionCompiler,
  invalid,
  type Expression,
  type RowTypes,
  type Scope,
  type Value,
  type ValueType,
} from './rewrite-expression.ts';
import {
  problemsOf,
  type FailoverMapRow,
  type NodeStateRow,
  type PanRangeRow,
  type Problem,
  type RangeLimitRow,
  type RewriteRuleSetRow,
} from './rows.ts';

/**
 * Rewrite rules: one canonical row, and for each node its own derived columns. The rules are data
 * (`rewrite-rules.yaml` explains the language); this module compiles a rule set, applies it and checks that it is
 * total. It is pure and total: `derive` gives a result for every row, good or bad, and the same one everywhere.
 */

/** A range's row with the order of its group, which stands in `failover_map`. */
export type JoinedPanRangeRow = PanRangeRow & { readonly failover_order: string };

export interface DerivationRows {
  readonly failover_map: FailoverMapRow;
  readonly pan_range: JoinedPanRangeRow;
  readonly range_limit: RangeLimitRow;
}

export type DerivedTable = keyof DerivationRows;

/** The part of a topology that rules can see; nodes in file order. */
export interface RewriteTopology {
  readonly nodes: readonly { readonly id: NodeId; readonly site: string }[];
}

export interface DerivationContext {
  /** The node where the row was entered. */
  readonly origin: NodeId;
  /** The node that derives. */
  readonly target: NodeId;
  readonly topology: RewriteTopology;
  /** Nodes that `node_state` has under maintenance; none when left out. */
  readonly maintenance?: FailoverOrder;
}

export type DerivedValue = string | number | null;

export interface Derived {
  /** `derivedColumns`, then `rule_set_version` and `derived_by`. null: no rule gave the column a value. */
  readonly columns: Readonly<Record<string, DerivedValue>>;
  /** For each column of `derivedColumns` that a rule has set: its name. */
  readonly ruleOf: Readonly<Record<string, string>>;
}

/** Who owns a group's cards and who comes next, as a node has to act on it. Orders stand as `n1>n2`. */
const successionTypes = {
  /** The order at work: without nodes that are left out. */
  succession: 'order',
  /** From 1; 0 for a node that is left out. */
  rank: 'number',
  /** own, standby or out */
  action: 'text',
  takeover_after: 'order',
  forward_to: 'order',
  next_owner: 'text',
  site_owner: 'text',
} as const satisfies Record<string, ValueType>;

/** What rules set, by table. Limits are set where the row has one. */
const derivedTypes: Readonly<Record<DerivedTable, RowTypes>> = {
  failover_map: successionTypes,
  pan_range: successionTypes,
  range_limit: {
    /** What counts while the first of the succession owns, and while a stand-by does: chosen when deciding. */
    maximum_as_owner_minor: 'number',
    maximum_as_standby_minor: 'number',
  },
};

/** Tables whose rows each node rewrites for itself. */
export const derivedTables = Object.keys(derivedTypes) as readonly DerivedTable[];

/** Columns that rules set, in their order in SQLite. */
export function derivedColumnsOf(table: DerivedTable): readonly string[] {
  return Object.keys(derivedTypes[table]);
}

/** Every column that a node derives: those that rules set, and by which rules. */
export function allDerivedColumnsOf(table: DerivedTable): readonly string[] {
  return [...derivedColumnsOf(table), 'rule_set_version', 'derived_by'];
}

const rowTypes: Readonly<Record<DerivedTable, RowTypes>> = {
  failover_map: { group_id: 'text', failover_order: 'order' },
  pan_range: {
    prefix: 'text',
    group_id: 'text',
    description: 'text',
    issuer: 'text',
    durability: 'text',
    hold_days: 'number',
    failover_order: 'order',
  },
  range_limit: { prefix: 'text', currency: 'text', transaction_maximum_minor: 'number' },
};

export const ruleSetSchema = z.strictObject({
  version: z.int().min(1).max(1_000_000_000),
  rules: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, 'expected lower-case letters, digits and dashes'),
        tables: z.array(z.enum(['failover_map', 'pan_range', 'range_limit'])).min(1),
        // Expressions are read by their compiler, which knows the types and the depth.
        when: z.unknown().optional(),
        set: z.record(z.string(), z.unknown()),
      }),
    )
    .max(100),
});

type RuleSetDocument = z.infer<typeof ruleSetSchema>;

interface CompiledRule {
  readonly name: string;
  readonly when: Expression | undefined;
  readonly set: readonly (readonly [column: string, expression: Expression])[];
}

export interface RuleSet {
  readonly version: number;
  readonly rulesOf: Readonly<Record<DerivedTable, readonly CompiledRule[]>>;
  /** Whether the node where a row was entered makes a difference. */
  readonly readsOrigin: boolean;
}

/** Compiles `{version, rules}`. Throws REWRITE_RULES_INVALID with the path of what is wrong. */
export function compileRuleSet(content: unknown): RuleSet {
  const parsed = ruleSetSchema.safeParse(content);
  if (!parsed.success) {
    const [problem] = problemsOf(parsed.error);
    throw invalid(problem?.path ?? '', problem?.message ?? 'not a rule set');
  }
  const budget = { expressions: 0 };
  const names = new Set<string>();
  parsed.data.rules.forEach(({ name }, index) => {
    if (names.has(name)) throw invalid(`rules[${index}].name`, 'another rule has this name');
    names.add(name);
  });
  const rulesOf = {
    failover_map: compileTable(parsed.data, 'failover_map', budget),
    pan_range: compileTable(parsed.data, 'pan_range', budget),
    range_limit: compileTable(parsed.data, 'range_limit', budget),
  };
  const expressions = Object.values(rulesOf)
    .flat()
    .flatMap((rule) => [
      ...(rule.when === undefined ? [] : [rule.when]),
      ...rule.set.map(([, expression]) => expression),
    ]);
  return { version: parsed.data.version, rulesOf, readsOrigin: expressions.some((each) => each.readsOrigin) };
}

function compileTable(document: RuleSetDocument, table: DerivedTable, budget: { expressions: number }): CompiledRule[] {
  const compiler = new ExpressionCompiler(rowTypes[table], budget);
  const types = derivedTypes[table];
  return document.rules.flatMap((rule, index): CompiledRule[] => {
    if (!rule.tables.includes(table)) return [];
    const path = `rules[${index}]`;
    const set = Object.entries(rule.set).map(([column, source]): [string, Expression] => {
      const type = Object.hasOwn(types, column) ? types[column] : undefined;
      if (type === undefined) throw invalid(`${path}.set.${column}`, 'unknown derived column');
      return [column, compiler.compile(source, type, `${path}.set.${column}`)];
    });
    const when = rule.when === undefined ? undefined : compiler.compile(rule.when, 'truth', `${path}.when`);
    compiler.define(Object.fromEntries(set.map(([column, { type }]) => [column, type])));
    return [{ name: rule.name, when, set }];
  });
}

/** Throws REWRITE_RULES_INVALID. */
export function compileRuleSetRow(row: RewriteRuleSetRow): RuleSet {
  let rules: unknown;
  try {
    rules = JSON.parse(row.rules);
  } catch {
    throw invalid('rules', 'not JSON');
  }
  return compileRuleSet({ version: row.version, rules });
}

/** The derived columns of one row at one node. A column is set by the first rule that applies and names it. */
export function derive<Table extends DerivedTable>(
  ruleSet: RuleSet,
  table: Table,
  row: DerivationRows[Table],
  context: DerivationContext,
): Derived {
  const values: Record<string, Value> = {};
  const scope: Scope = { ...scopeOf(table, row, context), derived: values };
  const columns: Record<string, DerivedValue> = Object.fromEntries(
    derivedColumnsOf(table).map((column) => [column, null]),
  );
  const ruleOf: Record<string, string> = {};
  const appliedRules: string[] = [];
  for (const rule of ruleSet.rulesOf[table]) {
    const due = rule.set.filter(([column]) => columns[column] === null);
    if (due.length === 0 || (rule.when !== undefined && rule.when.evaluate(scope) !== true)) continue;
    let applied = false;
    for (const [column, expression] of due) {
      const value = expression.evaluate(scope);
      if (value === null) continue;
      values[column] = value;
      columns[column] = toColumn(value);
      ruleOf[column] = rule.name;
      applied = true;
    }
    if (applied) appliedRules.push(rule.name);
  }
  columns['rule_set_version'] = ruleSet.version;
  columns['derived_by'] = appliedRules.join(',');
  return { columns, ruleOf };
}

function scopeOf<Table extends DerivedTable>(
  table: Table,
  row: DerivationRows[Table],
  context: DerivationContext,
): Omit<Scope, 'derived'> {
  const siteOf = (node: string): string | null => context.topology.nodes.find(({ id }) => id === node)?.site ?? null;
  const values: Record<string, Value> = {};
  for (const [column, value] of Object.entries(row) as [string, Value | bigint][]) {
    // An amount has at most 12 digits.
    const plain = typeof value === 'bigint' ? Number(value) : value;
    values[column] = rowTypes[table][column] === 'order' ? parseFailoverOrder(String(plain)) : plain;
  }
  return {
    row: values,
    target: { id: context.target, site: siteOf(context.target) },
    origin: { id: context.origin, site: siteOf(context.origin) },
    nodes: context.topology.nodes.map(({ id }) => id),
    maintenance: context.maintenance ?? [],
    siteOf,
  };
}

function toColumn(value: Value): DerivedValue {
  if (typeof value === 'object' && value !== null) return formatFailoverOrder(value);
  return typeof value === 'boolean' ? Number(value) : value;
}

export interface DerivableRows {
  readonly failover_map: readonly FailoverMapRow[];
  readonly pan_range: readonly PanRangeRow[];
  readonly range_limit?: readonly RangeLimitRow[];
  readonly node_state?: readonly NodeStateRow[];
}

/** The nodes that are left out of every succession. */
export function nodesUnderMaintenance({ node_state: states = [] }: DerivableRows): FailoverOrder {
  return states.filter(({ state }) => state === 'maintenance').map(({ node_id }) => node_id);
}

/** Ranges with their groups' orders; '' for a group that is not there. */
export function joinFailoverOrders(rows: DerivableRows): JoinedPanRangeRow[] {
  const orderOf = new Map(rows.failover_map.map((row) => [row.group_id, row.failover_order]));
  return rows.pan_range.map((row) => ({ ...row, failover_order: orderOf.get(row.group_id) ?? '' }));
}

/** Findings beyond this many are not listed: one bad rule shows at every row and node. */
const maximumProblems = 20;

/** What is wrong with what a rule set makes of a row; `column` is the one that says so. */
export interface RuleProblem extends Problem {
  readonly column: string;
}

/**
 * Whether the rule set is total: for every row, whoever entered it, every node has every column, the ranks of the
 * nodes that are not left out are 1 to n once each and agree with the succession, exactly one node owns, and no limit
 * is missing or raised. A rule set with problems must not be entered.
 */
export function checkRuleSet(ruleSet: RuleSet, topology: RewriteTopology, rows: DerivableRows): RuleProblem[] {
  const problems: RuleProblem[] = [];
  const nodes = topology.nodes.map(({ id }) => id);
  const maintenance = nodesUnderMaintenance(rows);
  const origins = ruleSet.readsOrigin ? nodes : nodes.slice(0, 1);
  const check = <Table extends DerivedTable>(
    table: Table,
    list: readonly DerivationRows[Table][],
    faults: (derived: readonly Derived[], row: DerivationRows[Table]) => readonly Fault[],
  ): void => {
    for (const [index, row] of list.entries()) {
      for (const origin of origins) {
        if (problems.length >= maximumProblems) return;
        const derived = nodes.map((target) => derive(ruleSet, table, row, { origin, target, topology, maintenance }));
        const where = ruleSet.readsOrigin ? ` of a row entered at ${origin}` : '';
        for (const { message, column } of faults(derived, row)) {
          problems.push({ path: `${table}[${index}]`, message: `rewrite rules: ${message}${where}`, column });
        }
      }
    }
  };
  check('failover_map', rows.failover_map, (derived) => faultsOfSuccession(derived, nodes, maintenance));
  check('pan_range', joinFailoverOrders(rows), (derived) => faultsOfSuccession(derived, nodes, maintenance));
  check('range_limit', rows.range_limit ?? [], (derived, row) => faultsOfLimit(derived, row, nodes));
  return problems.slice(0, maximumProblems);
}

interface Fault {
  readonly column: string;
  readonly message: string;
}

function unsetIn(table: DerivedTable, derived: readonly Derived[], nodes: readonly NodeId[]): Fault[] {
  return derived.flatMap(({ columns }, index) =>
    derivedColumnsOf(table)
      .filter((column) => columns[column] === null)
      .map((column) => ({ column, message: `no ${column} for ${nodes[index] ?? ''}` })),
  );
}

function faultsOfSuccession(
  derived: readonly Derived[],
  nodes: readonly NodeId[],
  maintenance: FailoverOrder,
): Fault[] {
  const unset = unsetIn('failover_map', derived, nodes);
  if (unset.length > 0) return unset;
  const faults: Fault[] = [];
  const inLine = derived.filter(({ columns }) => columns['action'] !== 'out');
  const ranks = inLine.map(({ columns }) => Number(columns['rank'])).sort((one, other) => one - other);
  if (ranks.some((rank, index) => rank !== index + 1)) {
    faults.push({ column: 'rank', message: `ranks are ${ranks.join(', ')}` });
  }
  const actions = derived.map(({ columns }) => columns['action']);
  if (actions.some((action) => action !== 'own' && action !== 'standby' && action !== 'out'))
    faults.push({ column: 'action', message: 'an action is neither own nor standby nor out' });
  const owners = nodes.filter((_, index) => actions[index] === 'own');
  if (owners.length !== 1) {
    faults.push({ column: 'action', message: owners.length === 0 ? 'no node owns' : `${owners.join(' and ')} own` });
  }
  if (inLine.some(({ columns }) => (columns['action'] === 'own') !== (columns['rank'] === 1))) {
    faults.push({ column: 'action', message: 'the owner is not the node of rank 1' });
  }
  const leftOut = nodes.filter((node, index) => actions[index] === 'out' && !maintenance.includes(node));
  if (leftOut.length > 0) {
    faults.push({ column: 'succession', message: `${leftOut.join(' and ')} left out, and not under maintenance` });
  }
  if (faults.length > 0) return faults;
  const byRank = nodes
    .map((node, index) => ({ node, rank: actions[index] === 'out' ? 0 : Number(derived[index]?.columns['rank']) }))
    .filter(({ rank }) => rank > 0)
    .sort((one, other) => one.rank - other.rank);
  const line = formatFailoverOrder(byRank.map(({ node }) => node));
  if (derived.some(({ columns }) => columns['succession'] !== line)) {
    faults.push({ column: 'succession', message: `a succession is not the order of the ranks, ${line}` });
  }
  if (derived.some(({ columns }) => columns['action'] === 'out' && columns['rank'] !== 0)) {
    faults.push({ column: 'rank', message: 'a node that is left out has a rank other than 0' });
  }
  return faults;
}

/** A rule may lower a limit, never lift or forget it. */
function faultsOfLimit(derived: readonly Derived[], row: RangeLimitRow, nodes: readonly NodeId[]): Fault[] {
  const { transaction_maximum_minor: maximum } = row;
  if (maximum === null) {
    return derivedColumnsOf('range_limit')
      .filter((column) => derived.some(({ columns }) => columns[column] !== null))
      .map((column) => ({ column, message: `${column} where the row has no limit` }));
  }
  const unset = unsetIn('range_limit', derived, nodes);
  if (unset.length > 0) return unset;
  return derivedColumnsOf('range_limit')
    .filter((column) =>
      derived.some(({ columns }) => Number(columns[column]) > Number(maximum) || Number(columns[column]) < 0),
    )
    .map((column) => ({ column, message: `${column} is not between 0 and the limit of the row` }));
}
