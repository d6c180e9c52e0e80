import { join } from 'node:path';

import { assert } from '../../base/errors.ts';
import { configGroup, groupId } from '../../base/identifiers.ts';
import { maskCardData } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import { groupFileName } from '../../cli/node/thread-writer.ts';
import type { CompareResult } from '../../compare/report.ts';
import { findingsOf } from '../../compare/report.ts';
import type { Difference } from '../../compare/result.ts';
import { tablesOf } from '../../compare/tables.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import type { TableSpecification } from '../../store/snapshot-reader.ts';
import { readByHand, rowsByHand, runByHand } from '../../store/testing.ts';

export const plantKinds = ['changed', 'missing', 'extra', 'broken-chain', 'wrong-fold', 'wrong-derived'] as const;
export type PlantKind = (typeof plantKinds)[number];

/** One thing done by hand to the files of some nodes, past the nodes and their log. */
export interface Plant {
  readonly kind: PlantKind;
  /** Whose copies are wrong now. */
  readonly nodes: readonly string[];
  readonly group: string;
  readonly table: string;
  /** As a report shows it. */
  readonly key: Readonly<Record<string, string>>;
  /** The column that is wrong; undefined: the row as a whole. */
  readonly column: string | undefined;
  /** The row at each of the nodes after it was done: SQL that reads it. */
  readonly select: string;
}

export interface Ground {
  readonly dataFolder: string;
  readonly nodes: readonly string[];
  readonly witness: string;
  readonly groups: readonly string[];
  /** By group, the log index before which a card was last used that nobody uses any more. */
  readonly coldBefore: ReadonlyMap<string, number>;
}

/** Columns of the configuration whose change breaks nothing but the proof; of every other table any column will do. */
const harmless: Readonly<Record<string, readonly string[]>> = {
  failover_map: ['entered_by', 'entered_at_ms'],
  pan_range: ['description', 'issuer', 'entered_by', 'entered_at_ms'],
  range_limit: ['daily_maximum_count', 'entered_by', 'entered_at_ms'],
  acquirer_link: ['deadline_ms', 'entered_by', 'entered_at_ms'],
  configuration_history: ['entered_by', 'origin'],
};

/** Rows of the configuration that may be away for a while, and that may be there too much. */
const dispensable: ReadonlySet<string> = new Set(['configuration_history']);
const addable: ReadonlySet<string> = new Set(['configuration_history', 'acquirer_link']);

/** Columns that have to be unique, besides the key. */
const uniqueColumns: Readonly<Record<string, string>> = { card: 'pan_hash', card_transaction: 'request_key' };

const derivedColumns: Readonly<Record<string, readonly string[]>> = {
  range_limit: ['maximum_as_owner_minor', 'maximum_as_standby_minor', 'rule_set_version', 'derived_by'],
  pan_range: ['rule_set_version', 'derived_by', 'next_owner', 'site_owner'],
  failover_map: ['rule_set_version', 'derived_by', 'next_owner', 'site_owner'],
};

type Row = Readonly<Record<string, string | number | null>>;

/** Rows are looked for so often before another table or group is tried. */
const mostTries = 100;

/** There is no row left to plant in. */
class Exhausted extends Error {}

/** Plants differences at random; no row twice. */
export class Planter {
  readonly #ground: Ground;
  readonly #random: Random;
  readonly #used = new Set<string>();
  #extras = 0;

  constructor(ground: Ground, random: Random) {
    this.#ground = ground;
    this.#random = random;
  }

  /** What was planted has been mended: its rows can be planted in again. */
  forget(): void {
    this.#used.clear();
  }

  plant(kind: PlantKind): Plant {
    for (let attempt = 1; ; attempt++) {
      try {
        return this.#plant(kind);
      } catch (error) {
        if (!(error instanceof Exhausted) || attempt === mostTries) throw error;
      }
    }
  }

  #plant(kind: PlantKind): Plant {
    switch (kind) {
      case 'changed':
        return this.#edit(kind, 'change', [this.#anyOf(this.#ground.nodes)]);
      case 'missing':
        return this.#edit(kind, 'remove', [this.#anyOf(this.#ground.nodes)]);
      case 'extra':
        return this.#edit(kind, 'add', [this.#anyOf(this.#ground.nodes)]);
      case 'wrong-fold': {
        // All copies agree, or all but one do.
        const spared = this.#random.below(2) === 0 ? this.#anyOf(this.#ground.nodes) : undefined;
        const nodes = this.#ground.nodes.filter((node) => node !== spared);
        return this.#edit(kind, this.#anyOf(['change', 'remove', 'add']), nodes);
      }
      case 'broken-chain':
        return this.#breakChain();
      case 'wrong-derived':
        return this.#derive();
    }
  }

  fileOf(node: string, group: string): string {
    return currentGroupFile(join(this.#ground.dataFolder, node, groupFileName(groupId(group))));
  }

  #anyOf<Item>(items: readonly Item[]): Item {
    const item = items[this.#random.below(items.length)];
    assert(item !== undefined, 'there is something to choose from');
    return item;
  }

  #edit(kind: PlantKind, action: 'change' | 'remove' | 'add', nodes: readonly string[]): Plant {
    const group = this.#anyOf(this.#ground.groups);
    const tables = tablesOf(groupId(group)).filter(({ name }) => {
      if (group !== configGroup) return this.#rowCount(group, name) > 0 && (name !== 'log' || kind !== 'wrong-fold');
      if (name === 'log') return kind !== 'wrong-fold' && action !== 'change';
      return action === 'change' ? name in harmless : (action === 'remove' ? dispensable : addable).has(name);
    });
    const table = this.#anyOf(tables);
    const [first = ''] = nodes;
    if (table.name === 'log' && action === 'change') return this.#breakChain();
    const row = this.#anyRow(first, group, table);
    const before = table.keyColumns.map((column) => `${column} = ${sqlText(row[column])}`).join(' AND ');
    if (action === 'remove') {
      this.#run(nodes, group, table, before, `DELETE FROM ${table.name} WHERE ${before}`);
      return this.#planted(kind, nodes, group, table, row, undefined);
    }
    if (action === 'change') {
      const columns = harmless[table.name] ?? table.columns.filter((column) => !table.keyColumns.includes(column));
      const column = this.#anyOf(columns);
      const value = row[column];
      const other = typeof value === 'number' ? value + 1 + this.#random.below(99) : `${value ?? ''}x`;
      const sql = `UPDATE ${table.name} SET ${column} = ${sqlText(other)} WHERE ${before}`;
      this.#run(nodes, group, table, before, sql);
      return this.#planted(kind, nodes, group, table, row, column);
    }
    this.#extras += 1;
    const unique = uniqueColumns[table.name];
    const changed: Record<string, string | number | null> = { ...row };
    for (const column of [table.keyColumns.at(-1) ?? '', ...(unique === undefined ? [] : [unique])]) {
      const value = changed[column] ?? null;
      changed[column] = typeof value === 'number' ? -1_000_000 - this.#extras : `${value ?? ''}x${this.#extras}`;
    }
    const names = Object.keys(changed);
    const sql = `INSERT INTO ${table.name} (${names.join(', ')}) VALUES (${names.map((name) => sqlText(changed[name])).join(', ')})`;
    const where = table.keyColumns.map((column) => `${column} = ${sqlText(changed[column])}`).join(' AND ');
    this.#run(nodes, group, table, where, sql);
    return this.#planted(kind, nodes, group, table, changed, undefined);
  }

  /** At up to three of the five who keep the log: those that are left still say what the entry was. */
  #breakChain(): Plant {
    const group = this.#anyOf(this.#ground.groups);
    const [log] = tablesOf(groupId(group));
    assert(log !== undefined, 'the log is a table');
    const all = [...this.#ground.nodes, this.#ground.witness];
    const nodes: string[] = [];
    for (let left = 1 + this.#random.below(3); left > 0; left--) {
      nodes.push(this.#anyOf(all.filter((node) => !nodes.includes(node))));
    }
    const row = this.#anyRow(nodes[0] ?? '', group, log);
    const where = `log_index = ${sqlText(row['log_index'])}`;
    const column = this.#anyOf(['body', 'hash', 'term']);
    const value = column === 'term' ? 'term + 1' : column === 'hash' ? "'0' || substr(hash, 2) || 'f'" : "'{}'";
    this.#run(nodes, group, log, where, `UPDATE log SET ${column} = ${value} WHERE ${where}`);
    return this.#planted('broken-chain', nodes, group, log, row, undefined);
  }

  #derive(): Plant {
    const node = this.#anyOf(this.#ground.nodes);
    const tables = tablesOf(configGroup).filter(({ name }) => name in derivedColumns);
    for (;;) {
      const table = this.#anyOf(tables);
      const row = this.#anyRow(node, configGroup, table);
      const column = this.#anyOf((derivedColumns[table.name] ?? []).filter((name) => row[name] !== null));
      const value = row[column];
      if (value === undefined) continue;
      const other =
        typeof value === 'number'
          ? value + 1 + this.#random.below(9)
          : column === 'derived_by'
            ? `${value ?? ''}x`
            : this.#anyOf(this.#ground.nodes.filter((each) => each !== value));
      const where = table.keyColumns.map((name) => `${name} = ${sqlText(row[name])}`).join(' AND ');
      this.#run(
        [node],
        configGroup,
        table,
        where,
        `UPDATE ${table.name} SET ${column} = ${sqlText(other)} WHERE ${where}`,
      );
      return this.#planted('wrong-derived', [node], configGroup, table, row, column);
    }
  }

  #rowCount(group: string, table: string): number {
    const [node = ''] = this.#ground.nodes;
    return Number(readByHand(this.fileOf(node, group), `SELECT count(*) FROM ${table}`)[0]);
  }

  /** A row that nothing was planted in yet and that the load does not touch. */
  #anyRow(node: string, group: string, table: TableSpecification): Row {
    const path = this.fileOf(node, group);
    const cold = coldRows(table.name, this.#ground.coldBefore.get(group) ?? 0);
    const columns = [...table.columns, ...table.derivedColumns];
    const count = Number(readByHand(path, `SELECT count(*) FROM ${table.name} ${cold}`)[0]);
    for (let attempt = 1; count > 0 && attempt <= mostTries; attempt++) {
      const [found] = rowsByHand(
        path,
        `SELECT ${columns.join(', ')} FROM ${table.name} ${cold} ORDER BY ${table.keyColumns.join(', ')} LIMIT 1 OFFSET ${this.#random.below(count)}`,
      ) as (string | number | null)[][];
      const row = Object.fromEntries(columns.map((column, at) => [column, found?.[at] ?? null]));
      // Neighbours in a log share a hash: two plants there could not be told apart.
      const near = table.name === 'log' ? [-1, 0, 1] : [0];
      const names = near.map((step) =>
        JSON.stringify([group, table.name, ...table.keyColumns.map((column) => stepped(row[column], step))]),
      );
      if (names.some((name) => this.#used.has(name))) continue;
      this.#used.add(names[near.indexOf(0)] ?? '');
      return row;
    }
    throw new Exhausted(`${table.name} of group ${group} has no rows left to plant in`);
  }

  /** As somebody who knows the files: what guards the configuration's tables is told that nothing was done. */
  #run(nodes: readonly string[], group: string, table: TableSpecification, where: string, sql: string): void {
    const guarded = group === configGroup && table.name !== 'log' && table.name !== 'configuration_history';
    const logged = `shell_logged_${table.name}`;
    const covering = guarded
      ? `DELETE FROM ${logged} WHERE ${where}; INSERT INTO ${logged} SELECT * FROM ${table.name} WHERE ${where};
         DELETE FROM shell_touched_${table.name};`
      : '';
    for (const node of nodes) runByHand(this.fileOf(node, group), `BEGIN IMMEDIATE; ${sql}; ${covering} COMMIT;`);
  }

  #planted(
    kind: PlantKind,
    nodes: readonly string[],
    group: string,
    table: TableSpecification,
    row: Row,
    column: string | undefined,
  ): Plant {
    const key = Object.fromEntries(table.keyColumns.map((name) => [name, String(row[name] ?? '')]));
    const where = table.keyColumns.map((name) => `${name} = ${sqlText(row[name])}`).join(' AND ');
    const columns = [...table.columns, ...table.derivedColumns].join(', ');
    return {
      kind,
      nodes,
      group,
      table: table.name,
      key,
      column,
      select: `SELECT ${columns} FROM ${table.name} WHERE ${where}`,
    };
  }
}

function stepped(value: string | number | null | undefined, step: number): string | number | null {
  return typeof value === 'number' ? value + step : (value ?? null);
}

/** Rows of cards that nobody uses any more, and entries that everybody has applied. */
function coldRows(table: string, before: number): string {
  const coldCard = `card_id IN (SELECT card_id FROM card WHERE changed_at_index < ${before})`;
  switch (table) {
    case 'log':
      return `WHERE log_index > 2 AND log_index < ${before}`;
    case 'card':
    case 'card_place':
    case 'card_version':
    case 'card_restriction':
    case 'card_transaction':
    case 'reversal_tombstone':
    case 'stand_in':
    case 'resolution':
      return `WHERE ${coldCard}`;
    case 'repeat_attempt':
    case 'undelivered_attempt':
      return `WHERE transaction_index IN (SELECT log_index FROM card_transaction WHERE ${coldCard})`;
    default:
      return '';
  }
}

function sqlText(value: string | number | null | undefined): string {
  if (value === null || value === undefined) return 'NULL';
  return typeof value === 'number' ? String(value) : `'${value.replaceAll("'", "''")}'`;
}

const namedAs: Readonly<Record<PlantKind, readonly Difference['kind'][]>> = {
  changed: ['columns-differ'],
  missing: ['missing-here'],
  extra: ['only-here'],
  'broken-chain': ['broken-chain'],
  'wrong-fold': ['wrong-fold'],
  'wrong-derived': ['derived-differs'],
};

/** As a report shows a key's value: empty text is quoted, so that it is not taken for nothing. */
function shownKey(value: string): string {
  return value === '' ? "''" : maskCardData(value);
}

/** Nodes where the report does not name the plant by its kind, group, table, key and column. */
export function unnamedAt(plant: Plant, report: Pick<CompareResult, 'groups'>): readonly string[] {
  const named = findingsOf(report.groups).filter(
    (found) =>
      found.group === plant.group &&
      found.table === plant.table &&
      namedAs[plant.kind].includes(found.kind) &&
      Object.entries(plant.key).every(([column, value]) => found.key[column] === shownKey(value)) &&
      (plant.column === undefined ||
        ('columns' in found && found.columns.some(({ column }) => column === plant.column))),
  );
  return plant.nodes.filter((node) => !named.some((found) => found.node === node));
}

export function describePlant({ kind, nodes, group, table, key, column }: Plant): string {
  const where = Object.entries(key).map(([name, value]) => `${name}=${value}`);
  return `${kind} at ${nodes.join(', ')}: group ${group} ${table} ${where.join(' ')}${column === undefined ? '' : ` ${column}`}`;
}
