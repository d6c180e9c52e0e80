import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { maskCardData } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import type { HistoryRecord } from '../../config-db/configuration-history.ts';
import {
  columnsOf,
  configurationTables,
  keyColumnsOf,
  keyTextOf,
  type ConfigurationTable,
} from '../../config-db/rows.ts';
import { readShellEdits, type ShellEdit } from '../../config-db/shell-edits.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import { openShell, type ShellConnection } from '../../config-db/testing.ts';
import type { SwitchProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';
import { Violation } from './violation.ts';

/** What of a cluster those who change its configuration need to know. */
export interface ConfiguredCluster {
  readonly scheduler: Scheduler;
  readonly processes: readonly SwitchProcess[];
  readonly disks: { readonly forgetful: ReadonlyMap<NodeId, number> };
  readonly observer: {
    count(event: string): void;
    file(process: SwitchProcess, group: GroupId): GroupReader | undefined;
  };
}

type Row = Readonly<Record<string, unknown>>;

interface EditedRow {
  readonly table: ConfigurationTable;
  readonly key: string;
  /** What the log said, with the version; undefined where there was no row. */
  readonly before: Row | undefined;
  readonly version: number;
  /** As it was committed last; undefined: deleted. */
  after: Row | undefined;
}

/** What was committed at one node between two looks of its guard: one change, or none. */
interface EditGroup {
  readonly node: NodeId;
  atMs: number;
  /** Edits that the file knew already. */
  readonly known: ReadonlySet<string>;
  readonly rows: Map<string, EditedRow>;
}

/** Longest that somebody leaves a transaction open. */
const openMs = 1_500;

/**
 * People who edit config.db of a node with the plain sqlite3 shell: several rows in a transaction, valid or not, some left
 * open for a while, some rolled back, some right before their node dies. What they commit is entered exactly once, as
 * one change for the versions that were there, or it is undone and reported.
 */
export class ShellEdits {
  readonly #cluster: ConfiguredCluster;
  readonly #random: Random;
  readonly #groups: EditGroup[] = [];
  #stopped = false;

  constructor(cluster: ConfiguredCluster, random: Random) {
    this.#cluster = cluster;
    this.#random = random;
  }

  stop(): void {
    this.#stopped = true;
  }

  edit(): void {
    const { observer, processes } = this.#cluster;
    const up = processes.filter(
      ({ isWitness, running, isDiskFull }) => !isWitness && running !== undefined && !isDiskFull,
    );
    const process = up[this.#random.below(Math.max(1, up.length))];
    const path = process?.path(configGroup);
    if (process === undefined || path === undefined || process.shells.size > 0) return;
    const shell = openShell(path);
    shell.exec('BEGIN IMMEDIATE');
    const statements = Array.from({ length: 1 + this.#random.below(3) }, () => this.#statement(shell));
    for (const sql of statements) if (sql !== undefined) shell.exec(sql);
    const end = (): void => {
      process.shells.delete(shell);
      if (!shell.open) return;
      // A copy that was made anew is another file: the shell holds one that is nobody's.
      const isGone = process.path(configGroup) !== path;
      if (isGone || this.#random.below(8) === 0) shell.exec('ROLLBACK');
      else this.#commit(process, shell, path, statements);
      shell.close();
    };
    if (this.#random.below(4) !== 0) {
      end();
      return;
    }
    observer.count('shell transaction left open');
    process.shells.add(shell);
    this.#cluster.scheduler.after(50 + this.#random.below(openMs), end);
  }

  #commit(
    process: SwitchProcess,
    shell: ShellConnection,
    path: string,
    statements: readonly (string | undefined)[],
  ): void {
    const { observer, scheduler } = this.#cluster;
    const known = new Set(readShellEdits(shell, -1).map(({ change }) => change));
    const last = this.#groups.findLast(({ node }) => node === process.id);
    const open = last?.known.size === known.size && this.#isUnsettled(shell, last) ? last : undefined;
    const group = open ?? { node: process.id, atMs: 0, known, rows: new Map<string, EditedRow>() };
    if (open === undefined) this.#groups.push(group);
    group.atMs = scheduler.nowMs;
    for (const table of configurationTables) this.#note(shell, table, group);
    shell.exec('COMMIT');
    process.disk.synced(path);
    observer.count('shell edit');
    scheduler.trace(process.id, `edited by the shell: ${statements.join('; ')}`);
    if (this.#random.below(6) !== 0) return;
    observer.count('killed after a shell edit');
    scheduler.after(this.#random.below(120), () => {
      if (!this.#stopped) process.crash('killed', this.#random.below(2) === 0);
    });
  }

  /** Rows of an earlier edit that nobody has looked at are there still, beside the present ones. */
  #isUnsettled(shell: ShellConnection, { rows }: EditGroup): boolean {
    return [...rows.values()].some(({ table, key }) =>
      shell
        .prepare<[], Row>(`SELECT * FROM shell_touched_${table}`)
        .all()
        .some((row) => keyTextOf(table, row) === key),
    );
  }

  #note(shell: ShellConnection, table: ConfigurationTable, group: EditGroup): void {
    const where = keyColumnsOf(table).map((column) => `${column} IS ?`);
    const rowOf = (from: string, key: readonly unknown[]): Row | undefined =>
      shell.prepare<unknown[], Row>(`SELECT * FROM ${from} WHERE ${where.join(' AND ')}`).get(...key);
    for (const touched of shell.prepare<[], Row>(`SELECT * FROM shell_touched_${table}`).all()) {
      const values = keyColumnsOf(table).map((column) => touched[column]);
      const key = keyTextOf(table, touched);
      const before = rowOf(`shell_logged_${table}`, values);
      const version = Number(before?.['changed_at_index'] ?? 0);
      group.rows.set(`${table} ${key}`, { table, key, before, version, after: rowOf(table, values) });
    }
  }

  /** Nothing that was committed waits, and every table is what the log says. */
  get settled(): boolean {
    return this.#cluster.processes.every((process) => {
      if (process.isWitness) return true;
      const reader = this.#cluster.observer.file(process, configGroup);
      if (reader === undefined) return false;
      const isClean = configurationTables.every(
        (table) => reader.database.prepare(`SELECT 1 FROM shell_touched_${table} LIMIT 1`).get() === undefined,
      );
      return isClean && readShellEdits(reader.database, -1).every(({ outcome }) => outcome !== 'waiting');
    });
  }

  check(records: readonly HistoryRecord[]): void {
    for (const process of this.#cluster.processes) {
      const reader = process.isWitness ? undefined : this.#cluster.observer.file(process, configGroup);
      if (reader === undefined) continue;
      for (const table of configurationTables) {
        const [rows, logged] = [table, `shell_logged_${table}`].map((name) =>
          JSON.stringify(reader.database.prepare(`SELECT * FROM ${name} ORDER BY 1, 2`).raw().all()),
        );
        if (rows !== logged) throw new Violation(`${process.id} has an edit of ${table} that was not put back`);
      }
      const edits = readShellEdits(reader.database, -1).reverse();
      for (const group of this.#groups) if (group.node === process.id) this.#checkGroup(group, edits, records);
    }
  }

  #checkGroup(group: EditGroup, edits: readonly ShellEdit[], records: readonly HistoryRecord[]): void {
    const { node, known, rows, atMs } = group;
    const { observer, disks } = this.#cluster;
    if (atMs <= (disks.forgetful.get(node) ?? Number.NEGATIVE_INFINITY)) return;
    const changed = [...rows.values()].filter(({ table, before, after }) => isChanged(table, before, after));
    const [first] = changed;
    if (first === undefined) return;
    const has = (edit: ShellEdit, { table, key }: EditedRow): boolean =>
      // As it is told to people: a prefix may be as long as a card number.
      edit.rows.some((row) => row.table === table && row.key === maskCardData(key));
    const edit = edits.find((each) => !known.has(each.change) && has(each, first));
    const what = `the edit of ${changed.map(({ table, key }) => `${table} ${key}`).join(', ')} at ${node}`;
    if (edit === undefined) throw new Violation(`${what} is neither entered nor reported`);
    if (changed.some((row) => !has(edit, row))) throw new Violation(`${what} is not one change: ${edit.change}`);
    const entered = records.filter(({ change }) => change === edit.change);
    observer.count(`shell edit: ${edit.outcome}`);
    if (edit.outcome === 'refused') {
      if (entered.length > 0) throw new Violation(`${what} was undone, and is in the log`);
      if (edit.reason === null || edit.reason === '') throw new Violation(`${what} was undone for no reason`);
      return;
    }
    if (edit.outcome === 'nothing to change') return;
    if (edit.outcome !== 'entered') throw new Violation(`${what} is ${edit.outcome}`);
    for (const row of changed) this.#checkEntered(row, entered, records, what);
  }

  #checkEntered(
    { table, key, version, after }: EditedRow,
    entered: readonly HistoryRecord[],
    records: readonly HistoryRecord[],
    what: string,
  ): void {
    const record = entered.find((each) => each.table === table && each.key === key);
    const index = record?.index ?? entered[0]?.index ?? 0;
    const before = records.findLast((each) => each.table === table && each.key === key && each.index < index);
    if (record === undefined) {
      // Somebody else had made the same of the row.
      if (isSame(table, before?.after ?? null, after)) return;
      throw new Violation(`${what} was entered without ${table} ${key}`);
    }
    const replaced = before === undefined || before.after === null ? 0 : before.index;
    if (replaced !== version) {
      throw new Violation(`${what} replaces version ${replaced} of ${table} ${key}, and was made of ${version}`);
    }
    if (!isSame(table, record.after, after))
      throw new Violation(`${what} was entered as ${String(record.after)}, and was ${JSON.stringify(after)}`);
  }

  /** Some of them make no sense. */
  #statement(shell: ShellConnection): string | undefined {
    const number = this.#random.below(1_000_000);
    const anyOf = (table: ConfigurationTable): Row | undefined => {
      const rows = shell.prepare<[], Row>(`SELECT * FROM ${table}`).all();
      return rows[this.#random.below(Math.max(1, rows.length))];
    };
    const whereIs = (table: ConfigurationTable): string | undefined => {
      const row = anyOf(table);
      return (
        row &&
        keyColumnsOf(table)
          .map((column) => `${column} = '${String(row[column])}'`)
          .join(' AND ')
      );
    };
    const update = (table: ConfigurationTable, set: string): string | undefined => {
      const where = whereIs(table);
      return where && `UPDATE ${table} SET ${set} WHERE ${where}`;
    };
    switch (this.#random.below(12)) {
      case 0:
      case 1:
        return update('range_limit', `daily_maximum_count = ${200_000 + number}`);
      case 2:
      case 3:
        return update('pan_range', `description = 'by the shell ${number}'`);
      case 4: {
        const limit = anyOf('range_limit');
        return `INSERT OR REPLACE INTO merchant_limit (prefix, merchant_category, currency, transaction_maximum_minor)
          VALUES ('${String(limit?.['prefix'])}', '${5_000 + (number % 4)}', '978', ${1_000_000 + number})`;
      }
      case 5: {
        const where = whereIs('merchant_limit');
        return where && `DELETE FROM merchant_limit WHERE ${where}`;
      }
      case 6:
        return `INSERT OR REPLACE INTO acquirer_link
          (link_id, acquiring_institutions, partial_approval, deadline_ms, unmatched_reversal_request_code)
          VALUES ('spare-${number % 3}', '*', 0, ${1_000 + (number % 1_900)}, '25')`;
      case 7:
        return `DELETE FROM acquirer_link WHERE link_id = 'spare-${number % 3}'`;
      case 8:
        return `INSERT OR REPLACE INTO node_state (node_id, state, reason) VALUES ('n1', 'in-service', 'shell ${number}')`;
      case 9:
        return update('pan_range', `hold_days = hold_days`);
      case 10:
        return update('failover_map', `rank = ${7 + (number % 5)}`);
      default:
        return update('failover_map', `failover_order = 'n1'`);
    }
  }
}

function isChanged(table: ConfigurationTable, before: Row | undefined, after: Row | undefined): boolean {
  if (before === undefined || after === undefined) return before !== after;
  return Object.keys(before).some((column) => {
    if (before[column] === after[column]) return false;
    return columnsOf(table).includes(column) || (after[column] !== null && after[column] !== '' && after[column] !== 0);
  });
}

/** A row of the history, and one as SQLite has it. */
function isSame(table: ConfigurationTable, logged: string | null, row: Row | undefined): boolean {
  if (logged === null || row === undefined) return logged === null && row === undefined;
  const values = JSON.parse(logged) as Row;
  return columnsOf(table).every((column) => text(values[column]) === text(row[column]));
}

/** Amounts are text in the log's JSON, flags are booleans. */
function text(value: unknown): string {
  return typeof value === 'boolean' ? String(Number(value)) : String(value);
}
