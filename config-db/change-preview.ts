import type { NodeId } from '../base/identifiers.ts';
import {
  applyChanges,
  keyOfChange,
  nameOfRow,
  planChanges,
  type VersionedChange,
  type VersionedConfiguration,
} from './configuration-change.ts';
import type { Configuration } from './configuration.ts';
import { deriveRows, type OriginOf } from './derivation.ts';
import type { Derived, DerivedValue, RewriteTopology } from './rewrite.ts';
import { configurationTables, encodeConfigurationRow, keyTextOf, toSqlRow, type ConfigurationTable } from './rows.ts';

/** What a change would do, at every node, entered now. */
export interface ChangePreview {
  /** Applied index of the copy that it was worked out from. */
  readonly index: number;
  /** The first of the rows that would be another than they are, canonically or at some node. */
  readonly rows: readonly RowPreview[];
  /** How many more there would be. */
  readonly more: number;
}

export interface RowPreview {
  readonly table: ConfigurationTable;
  readonly key: string;
  /** The version that is there now; 0: none. */
  readonly version: number;
  /** Canonical JSON; null: no row. Equal: only nodes' derived columns change. */
  readonly before: string | null;
  readonly after: string | null;
  /** By node, in file order; empty for a table that nodes do not rewrite. */
  readonly nodes: readonly { readonly node: NodeId; readonly columns: readonly ColumnPreview[] }[];
}

/** One derived column of a row at one node; null: the row is not there. */
export interface ColumnPreview {
  readonly column: string;
  readonly before: DerivedValue;
  readonly after: DerivedValue;
  /** The rule that says so after the change; '' where none does. */
  readonly rule: string;
}

const maximumRows = 100;

/** Throws what entering the change would throw. */
export function previewChanges(options: {
  readonly before: VersionedConfiguration;
  readonly changes: readonly VersionedChange[];
  readonly topology: RewriteTopology;
  /** The node where the change would be entered. */
  readonly origin: NodeId;
  readonly index: number;
}): ChangePreview {
  const { before, topology, origin, index } = options;
  const changes = planChanges(before, options.changes, topology);
  const after = applyChanges(before.rows, changes);
  const changed = new Set(changes.map((change) => nameOfRow(change.table, keyOfChange(change))));
  const originBefore: OriginOf = (table, key) => (before.versionOf(table, key)?.origin ?? origin) as NodeId;
  const originAfter: OriginOf = (table, key) =>
    changed.has(nameOfRow(table, key)) ? origin : originBefore(table, key);
  const nodes = topology.nodes.map(({ id }) => ({
    node: id,
    before: derivedByName(before.rows, id, topology, originBefore),
    after: derivedByName(after, id, topology, originAfter),
  }));
  const was = rowsByName(before.rows);
  const will = rowsByName(after);
  const rows: RowPreview[] = [];
  let more = 0;
  for (const name of new Set([...was.keys(), ...will.keys()])) {
    const ofNodes = nodes.map((each) => ({
      node: each.node,
      columns: columnsOf(each.before.get(name), each.after.get(name)),
    }));
    const isChanged =
      was.get(name)?.text !== will.get(name)?.text ||
      ofNodes.some(({ columns }) => columns.some((column) => column.before !== column.after));
    if (!isChanged) continue;
    if (rows.length >= maximumRows) {
      more += 1;
      continue;
    }
    const place = will.get(name) ?? was.get(name);
    if (place === undefined) continue;
    rows.push({
      table: place.table,
      key: place.key,
      version: before.versionOf(place.table, place.key)?.version ?? 0,
      before: was.get(name)?.text ?? null,
      after: will.get(name)?.text ?? null,
      nodes: ofNodes.filter(({ columns }) => columns.length > 0),
    });
  }
  return { index, rows, more };
}

function derivedByName(
  rows: Configuration,
  node: NodeId,
  topology: RewriteTopology,
  originOf: OriginOf,
): ReadonlyMap<string, Derived> {
  return new Map(
    deriveRows(rows, node, topology, originOf).map(({ table, key, derived }) => [nameOfRow(table, key), derived]),
  );
}

function rowsByName(
  configuration: Configuration,
): ReadonlyMap<string, { readonly table: ConfigurationTable; readonly key: string; readonly text: string }> {
  return new Map(
    configurationTables.flatMap((table) =>
      configuration[table].map((row) => {
        const key = keyTextOf(table, toSqlRow(row));
        return [nameOfRow(table, key), { table, key, text: encodeConfigurationRow(table, row) }] as const;
      }),
    ),
  );
}

function columnsOf(before: Derived | undefined, after: Derived | undefined): ColumnPreview[] {
  const names = Object.keys((after ?? before)?.columns ?? {});
  return names.map((column) => ({
    column,
    before: before?.columns[column] ?? null,
    after: after?.columns[column] ?? null,
    rule: after?.ruleOf[column] ?? '',
  }));
}
