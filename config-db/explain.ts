import type { GroupId, NodeId } from '../base/identifiers.ts';
import { parseFailoverOrder } from './failover-order.ts';
import { derivedColumnsOf, type Derived, type DerivedValue } from './rewrite.ts';
import type { FailoverMapRow, PanRangeRow } from './rows.ts';

/** What `config explain` is made of: rows and derived rows as the nodes hold them. */
export interface ExplainInput {
  /** The node that is asked about; one of `nodes`. */
  readonly node: NodeId;
  /** Masked card number; undefined when a range alone is explained. */
  readonly card: string | undefined;
  readonly range: PanRangeRow;
  readonly map: FailoverMapRow;
  /** The range's derived row at every node, in file order. */
  readonly nodes: readonly { readonly node: NodeId; readonly site: string; readonly derived: Derived }[];
  /** Who leads the group now, and its term, as far as the node knows. */
  readonly owner: NodeId | undefined;
  readonly term: number | undefined;
}

/** The JSON of `config explain --json`. */
export interface Explanation {
  readonly node: NodeId;
  readonly card: string | null;
  readonly range: PanRangeRow;
  readonly group: GroupId;
  /** Failover order, the first is the configured owner. */
  readonly order: readonly string[];
  /** Who leads the group now; null when the node does not know. */
  readonly owner: NodeId | null;
  readonly term: number | null;
  /** The asked node's derived row. */
  readonly derived: Readonly<Record<string, DerivedValue>>;
  /** For each derived column the rule that set it at the asked node. */
  readonly rules: Readonly<Record<string, string>>;
  /** Every node's derived row, in file order. */
  readonly nodes: readonly {
    readonly node: NodeId;
    readonly site: string;
    readonly derived: Readonly<Record<string, DerivedValue>>;
  }[];
}

export function explain(input: ExplainInput): Explanation {
  const asked = input.nodes.find(({ node }) => node === input.node);
  if (asked === undefined) throw new RangeError(`no derived row of node ${input.node}`);
  return {
    node: input.node,
    card: input.card ?? null,
    range: input.range,
    group: input.map.group_id,
    order: parseFailoverOrder(input.map.failover_order),
    owner: input.owner ?? null,
    term: input.term ?? null,
    derived: asked.derived.columns,
    rules: asked.derived.ruleOf,
    nodes: input.nodes.map(({ node, site, derived }) => ({ node, site, derived: derived.columns })),
  };
}

/** The explanation for a person: what the node does, who takes over in which order, which rule made each column. */
export function explanationText(explanation: Explanation): string {
  const { node, range, group, order, derived } = explanation;
  const site = explanation.nodes.find((each) => each.node === node)?.site ?? '';
  const prefix = range.prefix === '' ? 'the catch-all range' : `range ${range.prefix}`;
  const subject = explanation.card === null ? capitalize(prefix) : `Card ${explanation.card}: ${prefix}`;
  const [first, ...heirs] = order;
  const owner =
    explanation.owner === null
      ? 'The present owner is not known to this node.'
      : `Owner now: ${explanation.owner}${explanation.term === null ? '' : `, term ${explanation.term}`}.`;
  return [
    `${subject} (${range.description}; issuer ${range.issuer}), group ${group}.`,
    `Durability ${range.durability}, holds kept for ${range.hold_days} days.`,
    `${first ?? 'No node'} is the configured owner; ${heirs.length === 0 ? 'nobody takes over' : `then ${heirs.join(', then ')} take over, in this order`}.`,
    owner,
    '',
    `At ${node} (site ${site}): ${duty(derived)}`,
    '',
    ...table([
      ['column', `at ${node}`, 'rule'],
      ...derivedColumnsOf('pan_range').map((column) => [
        column,
        shown(derived[column]),
        explanation.rules[column] ?? '(none)',
      ]),
    ]),
    `Rule set version ${shown(derived['rule_set_version'])}.`,
    '',
    ...table([
      ['column', ...explanation.nodes.map((each) => each.node)],
      ...derivedColumnsOf('pan_range').map((column) => [
        column,
        ...explanation.nodes.map((each) => shown(each.derived[column])),
      ]),
    ]),
  ].join('\n');
}

function duty(derived: Explanation['derived']): string {
  const list = (column: string): readonly string[] => parseFailoverOrder(shown(derived[column], ''));
  const next = shown(derived['next_owner'], '');
  const heir = next === '' ? 'No node is left after it' : `When it fails, ${next} takes over`;
  if (derived['action'] === 'out') return 'it is under maintenance: it neither owns nor stands by.';
  if (derived['action'] === 'own') return `it owns and decides. ${heir}.`;
  const before = list('takeover_after');
  const condition =
    before.length === 0 ? '' : ` once ${before.join(' and ')} ${before.length === 1 ? 'has' : 'have'} failed`;
  const forward = list('forward_to');
  const forwards =
    forward.length === 0
      ? 'It forwards to nobody'
      : `Until then it forwards to the owner, trying ${forward.join(', then ')}`;
  return `it stands by with rank ${shown(derived['rank'])} and takes over${condition}. ${forwards}. ${heir}.`;
}

function shown(value: DerivedValue | undefined, empty = '-'): string {
  return value === null || value === undefined || value === '' ? empty : String(value);
}

function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
