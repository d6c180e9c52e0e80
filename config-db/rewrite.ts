import { z } from 'zod';

import type { NodeId } from '../base/identifiers.ts';
import { formatFailoverOrder, parseFailoverOrder } from './failover-order.ts';
import {
  ExpressionCompiler,
  invalid,
  type Expression,
  type RowTypes,
  type Scope,
  type Value,
  type ValueType,
} from './rewrite-expression.ts';
import { problemsOf, type FailoverMapRow, type PanRangeRow, type Problem, type RewriteRuleSetRow } from './rows.ts';
import { readYamlDocument } from './yaml-document.ts';

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
}

export type DerivedValue = string | number | null;

export interface Derived {
  /** `derivedColumns`, then `rule_set_version` and `derived_by`. null: no rule gave the column a value. */
  readonly columns: Readonly<Record<string, DerivedValue>>;
  /** For each column of `derivedColumns` that a rule has set: its name. */
  readonly ruleOf: Readonly<Record<string, string>>;
}

/** What rules must set, for every node. Orders stand as `n1>n2`. */
const derivedTypes = {
  rank: 'number',
  action: 'text',
  takeover_after: 'order',
  forward_to: 'order',
  next_owner: 'text',
  site_owner: 'text',
} as const satisfies Record<string, ValueType>;

/** Columns that rules set, in their order in SQLite; both tables have all of them. */
export const derivedColumns = Object.keys(derivedTypes) as readonly (keyof typeof derivedTypes)[];

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
};

const ruleSetSchema = z.strictObject({
  version: z.int().min(1).max(1_000_000_000),
  rules: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, 'expected lower-case letters, digits and dashes'),
        tables: z.array(z.enum(['failover_map', 'pan_range'])).min(1),
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
  };
  const expressions = [...rulesOf.failover_map, ...rulesOf.pan_range].flatMap((rule) => [
    ...(rule.when === undefined ? [] : [rule.when]),
    ...rule.set.map(([, expression]) => expression),
  ]);
  return { version: parsed.data.version, rulesOf, readsOrigin: expressions.some((each) => each.readsOrigin) };
}

function compileTable(document: RuleSetDocument, table: DerivedTable, budget: { expressions: number }): CompiledRule[] {
  const compiler = new ExpressionCompiler(rowTypes[table], budget);
  return document.rules.flatMap((rule, index): CompiledRule[] => {
    if (!rule.tables.includes(table)) return [];
    const path = `rules[${index}]`;
    const set = Object.entries(rule.set).map(([column, source]): [string, Expression] => {
      const type = Object.hasOwn(derivedTypes, column) ? derivedTypes[column as keyof typeof derivedTypes] : undefined;
      if (type === undefined) throw invalid(`${path}.set.${column}`, 'unknown derived column');
      return [column, compiler.compile(source, type, `${path}.set.${column}`)];
    });
    const when = rule.when === undefined ? undefined : compiler.compile(rule.when, 'truth', `${path}.when`);
    return [{ name: rule.name, when, set }];
  });
}

/** The rule set as the row that is entered; reading it back with `compileRuleSetRow` gives the same rules. */
export function readRuleSetFile(text: string, fileName: string): RewriteRuleSetRow {
  const document = readYamlDocument(text, fileName, ruleSetSchema, 'REWRITE_RULES_INVALID');
  // Compiled before it is serialized: the compiler's depth limit is what refuses an alias that contains itself.
  compileRuleSet(document);
  return { version: document.version, rules: JSON.stringify(document.rules) };
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
  const scope = scopeOf(table, row, context);
  const columns: Record<string, DerivedValue> = Object.fromEntries(derivedColumns.map((column) => [column, null]));
  const ruleOf: Record<string, string> = {};
  const appliedRules: string[] = [];
  for (const rule of ruleSet.rulesOf[table]) {
    const due = rule.set.filter(([column]) => columns[column] === null);
    if (due.length === 0 || (rule.when !== undefined && rule.when.evaluate(scope) !== true)) continue;
    let applied = false;
    for (const [column, expression] of due) {
      const value = toColumn(expression.evaluate(scope));
      if (value === null) continue;
      columns[column] = value;
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
): Scope {
  const siteOf = (node: string): string | null => context.topology.nodes.find(({ id }) => id === node)?.site ?? null;
  const values: Record<string, Value> = {};
  for (const [column, value] of Object.entries(row) as [string, Value][]) {
    values[column] = rowTypes[table][column] === 'order' ? parseFailoverOrder(String(value)) : value;
  }
  return {
    row: values,
    target: { id: context.target, site: siteOf(context.target) },
    origin: { id: context.origin, site: siteOf(context.origin) },
    nodes: context.topology.nodes.map(({ id }) => id),
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
}

/** Ranges with their groups' orders; '' for a group that is not there. */
export function joinFailoverOrders(rows: DerivableRows): JoinedPanRangeRow[] {
  const orderOf = new Map(rows.failover_map.map((row) => [row.group_id, row.failover_order]));
  return rows.pan_range.map((row) => ({ ...row, failover_order: orderOf.get(row.group_id) ?? '' }));
}

/** Findings beyond this many are not listed: one bad rule shows at every row and node. */
const maximumProblems = 20;

/**
 * Whether the rule set is total: for every row, whoever entered it, every node has every column, the nodes' ranks
 * are 1 to n once each, and exactly one node owns. A rule set with problems must not be entered.
 */
export function checkRuleSet(ruleSet: RuleSet, topology: RewriteTopology, rows: DerivableRows): Problem[] {
  const problems: Problem[] = [];
  const nodes = topology.nodes.map(({ id }) => id);
  const origins = ruleSet.readsOrigin ? nodes : nodes.slice(0, 1);
  const check = <Table extends DerivedTable>(table: Table, list: readonly DerivationRows[Table][]): void => {
    for (const [index, row] of list.entries()) {
      for (const origin of origins) {
        if (problems.length >= maximumProblems) return;
        const derived = nodes.map((target) => derive(ruleSet, table, row, { origin, target, topology }));
        const where = ruleSet.readsOrigin ? ` of a row entered at ${origin}` : '';
        for (const message of faultsOf(derived, nodes)) {
          problems.push({ path: `${table}[${index}]`, message: `rewrite rules: ${message}${where}` });
        }
      }
    }
  };
  check('failover_map', rows.failover_map);
  check('pan_range', joinFailoverOrders(rows));
  return problems.slice(0, maximumProblems);
}

function faultsOf(derived: readonly Derived[], nodes: readonly NodeId[]): string[] {
  const unset = derived.flatMap(({ columns }, index) =>
    derivedColumns
      .filter((column) => columns[column] === null)
      .map((column) => `no ${column} for ${nodes[index] ?? ''}`),
  );
  if (unset.length > 0) return unset;
  const faults: string[] = [];
  const ranks = derived.map(({ columns }) => Number(columns['rank'])).sort((one, other) => one - other);
  if (ranks.some((rank, index) => rank !== index + 1)) faults.push(`ranks are ${ranks.join(', ')}`);
  const actions = derived.map(({ columns }) => columns['action']);
  if (actions.some((action) => action !== 'own' && action !== 'standby'))
    faults.push('an action is neither own nor standby');
  const owners = nodes.filter((_, index) => actions[index] === 'own');
  if (owners.length !== 1) faults.push(owners.length === 0 ? 'no node owns' : `${owners.join(' and ')} own`);
  if (derived.some(({ columns }) => (columns['action'] === 'own') !== (columns['rank'] === 1))) {
    faults.push('the owner is not the node of rank 1');
  }
  return faults;
}
