import { SwitchError } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Pan } from '../../base/pan.ts';
import type { Topology } from '../../base/topology.ts';
import { previewChanges, type ChangePreview } from '../../config-db/change-preview.ts';
import type { VersionedChange } from '../../config-db/configuration-change.ts';
import { readConfiguration, readDerivedRows, readVersions } from '../../config-db/configuration-fold.ts';
import { readHistory, type HistoryRecord } from '../../config-db/configuration-history.ts';
import { deriveRows, type OriginOf } from '../../config-db/derivation.ts';
import { explain, type Explanation } from '../../config-db/explain.ts';
import { configurationTables, keyTextOf, toSqlRow, type SqlValue } from '../../config-db/rows.ts';
import type { Groups, HostedGroup } from './groups.ts';

type PlainRow = Readonly<Record<string, string | number | null>>;

/** One row of configuration as this node holds it, derived columns included. */
export interface ListedRow {
  readonly table: string;
  /** As people write it: `990001`, `990001/840`. */
  readonly key: string;
  readonly row: PlainRow;
  readonly derived: PlainRow | undefined;
  /** Log index of the row's last change, and whose that was. */
  readonly version: number;
  readonly by: string;
  readonly origin: string;
  /** Wall clock, milliseconds since 1970. */
  readonly at: number;
}

/** A page of `configuration.list`; `next` is where the following one begins. */
export interface ListedPage {
  readonly rows: readonly ListedRow[];
  readonly next: number | undefined;
}

/** A page of `configuration.history`. */
export interface HistoryPage {
  readonly records: readonly HistoryRecord[];
  readonly next: number | undefined;
}

/** Rows of a page: with the longest rule set among them they fit one answer. */
const rowsPerPage = 500;
const recordsPerPage = 200;
/** Characters of a page of history: what fits one answer, with the longest rule set as its last record. */
const maximumPageCharacters = 500_000;

/** What this node can say of the configuration from its own copy: it asks nobody, and works without a majority. */
export class ConfigurationReports {
  readonly #options: {
    readonly self: NodeId;
    readonly topology: Topology;
    readonly groups: Groups;
    /** Throws OWNER_UNREACHABLE when the group is not open here. */
    readonly hosted: (group: GroupId) => HostedGroup;
  };

  constructor(options: {
    readonly self: NodeId;
    readonly topology: Topology;
    readonly groups: Groups;
    readonly hosted: (group: GroupId) => HostedGroup;
  }) {
    this.#options = options;
  }

  list(from: number): ListedPage {
    const { database } = this.#options.hosted(configGroup).reader;
    const { rows, versionOf } = readVersions(database);
    const derived = new Map(readDerivedRows(database).map((row) => [`${row.table} ${row.key}`, row.columns]));
    const all = configurationTables.flatMap((table) => rows[table].map((row) => ({ table, row: toSqlRow(row) })));
    const next = from + rowsPerPage;
    return {
      rows: all.slice(from, next).map(({ table, row }): ListedRow => {
        const key = keyTextOf(table, row);
        const version = versionOf(table, key) ?? { version: 0, by: '', origin: '', at: 0 };
        return { table, key, row: plainRow(row), derived: derived.get(`${table} ${key}`), ...version };
      }),
      next: next < all.length ? next : undefined,
    };
  }

  history(filter: {
    readonly table?: string | undefined;
    readonly key?: string | undefined;
    readonly from: number;
  }): HistoryPage {
    const { database } = this.#options.hosted(configGroup).reader;
    const found = readHistory(database, { ...filter, limit: recordsPerPage + 1 });
    const records: HistoryRecord[] = [];
    let characters = 0;
    for (const record of found.slice(0, recordsPerPage)) {
      characters += (record.before?.length ?? 0) + (record.after?.length ?? 0);
      if (characters > maximumPageCharacters && records.length > 0) break;
      records.push(record);
    }
    return { records, next: records.length < found.length ? filter.from + records.length : undefined };
  }

  /** What the change would do at every node, by what this node knows. Throws as entering it would. */
  preview(changes: readonly VersionedChange[]): ChangePreview {
    const { self, topology, hosted } = this.#options;
    const { reader, applied } = hosted(configGroup);
    return reader.database.transaction(() =>
      previewChanges({ before: readVersions(reader.database), changes, topology, origin: self, index: applied }),
    )();
  }

  explain(number: Pan): Explanation {
    const { self, topology, groups, hosted } = this.#options;
    const { database } = hosted(configGroup).reader;
    const configuration = readConfiguration(database);
    const view = groups.configuration;
    if (view === undefined) throw new SwitchError('OWNER_UNREACHABLE', 'no configuration has been entered yet');
    const range = view.rangeOf(number);
    const map = configuration.failover_map.find((row) => row.group_id === range.group_id);
    if (map === undefined) {
      throw new SwitchError('CONFIGURATION_REFUSED', `group ${range.group_id} is not in the failover map`);
    }
    const stored = readDerivedRows(database);
    const originOf: OriginOf = (table, key) =>
      (stored.find((row) => row.table === table && row.key === key)?.origin ?? self) as NodeId;
    const rows = { ...configuration, failover_map: [map], pan_range: [range], range_limit: [] };
    const own = stored.find((row) => row.table === 'pan_range' && row.key === range.prefix)?.columns;
    const nodes = topology.nodes.map(({ id, site }) => {
      const derived = deriveRows(rows, id, topology, originOf).find(({ table }) => table === 'pan_range')?.derived;
      if (derived === undefined) throw new SwitchError('CONFIGURATION_REFUSED', 'there are no rewrite rules yet');
      // Its own row is shown as it is at work, not as it should be.
      return {
        node: id,
        site,
        derived: { ...derived, columns: id === self ? (own ?? derived.columns) : derived.columns },
      };
    });
    const { leader: owner, term } = groups.hosted.get(range.group_id) ?? {};
    return explain({ node: self, card: number.masked(), range, map, nodes, owner, term });
  }
}

export function plainRow(row: Readonly<Record<string, SqlValue>>): PlainRow {
  return Object.fromEntries(
    Object.entries(row).map(([column, value]) => [column, typeof value === 'bigint' ? value.toString() : value]),
  );
}
