import { join } from 'node:path';

import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { Topology } from '../../base/topology.ts';
import { readConfiguration, readDerivedRows } from '../../config-db/configuration-fold.ts';
import { deriveRows } from '../../config-db/derivation.ts';
import { allDerivedColumnsOf } from '../../config-db/rewrite.ts';
import { columnsOf, configurationTables } from '../../config-db/rows.ts';
import { asLogged } from '../../config-db/shell-tables.ts';
import { decodeBody, type LogEntry } from '../../store/entry.ts';
import { GroupFile, type Fold } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { Books } from './books.ts';
import { Violation } from './violation.ts';

/** Rows of every table as text, by table: two copies at one index are equal when these are. */
export type Content = ReadonlyMap<string, readonly string[]>;

/** Tables that are no part of the fold: the log, what is read from its tail, and what is a process's own. */
const otherTables: ReadonlySet<string> = new Set(['meta', 'log', 'membership']);

/** The fold in a copy: everything that must be equal at one applied index. */
export function foldOf(reader: GroupReader): Content {
  const content = new Map<string, readonly string[]>();
  const tables = reader.database
    .prepare<[], { name: string }>("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    .all();
  for (const { name } of tables) {
    if (otherTables.has(name)) continue;
    content.set(name, rowsOf(reader, `SELECT * FROM "${name}" ORDER BY 1`));
  }
  return content;
}

function rowsOf(reader: GroupReader, sql: string): readonly string[] {
  return (reader.database.prepare(sql).raw().all() as unknown[][]).map((row) => row.join('|'));
}

/** What of the configuration is the same on every node, as the log says: rows as they were entered, by whom, and their history. */
export function configurationContent(reader: GroupReader): Content {
  const nameOf = asLogged(reader.database);
  const tables = configurationTables.map((table): [string, readonly string[]] => {
    const columns = [...columnsOf(table), 'origin', 'entered_by', 'entered_at_ms', 'changed_at_index'];
    return [table, rowsOf(reader, `SELECT ${columns.join(', ')} FROM ${nameOf(table)} ORDER BY 1, 2`)];
  });
  const history = rowsOf(reader, 'SELECT * FROM configuration_history ORDER BY log_index, position');
  return new Map([...tables, ['configuration_history', history]]);
}

/** Throws where a node's derived columns are not what its rule set makes of its rows, all of them anew. */
export function checkDerived(id: NodeId, { database }: GroupReader, topology: Topology): void {
  const stored = new Map(readDerivedRows(database).map((row) => [`${row.table} ${row.key}`, row]));
  const originOf = (table: string, key: string): NodeId => (stored.get(`${table} ${key}`)?.origin ?? id) as NodeId;
  for (const { table, key, derived } of deriveRows(readConfiguration(database), id, topology, originOf)) {
    const columns = stored.get(`${table} ${key}`)?.columns;
    for (const column of allDerivedColumnsOf(table)) {
      if (columns?.[column] === derived.columns[column]) continue;
      const [has, makes] = [columns?.[column], derived.columns[column]].map(String);
      throw new Violation(`${id} has ${column} ${has ?? ''} in ${table} ${key}, and its rules make ${makes ?? ''}`);
    }
  }
}

/** Throws at the first row in which two folds at one index differ. */
export function checkEqual(one: Content, oneName: string, other: Content, otherName: string): void {
  for (const table of new Set([...one.keys(), ...other.keys()])) {
    const rows = one.get(table) ?? [];
    const others = other.get(table) ?? [];
    const at = rows.findIndex((row, index) => row !== others[index]);
    if (at === -1 && rows.length === others.length) continue;
    const [left, right] = at === -1 ? [rows.length, others.length] : [rows[at], others[at]];
    throw new Violation(`${table} differs between ${oneName} and ${otherName}: ${String(left)} / ${String(right)}`);
  }
}

/** The fold of a group's committed log, computed apart from every copy: what each of them must be at its own index. */
export class ReferenceFold {
  readonly #group: GroupId;
  readonly #file: GroupFile;
  readonly reader: GroupReader;
  readonly #contentOf: (reader: GroupReader) => Content;

  constructor(folder: string, group: GroupId, fold: Fold = ledgerFold, contentOf = foldOf) {
    const path = join(folder, `reference-${group}.db`);
    this.#group = group;
    this.#contentOf = contentOf;
    this.#file = GroupFile.open(path, group, 'reference', fold);
    this.reader = new GroupReader(path, group);
  }

  /** Holds copies against the reference, each at its own index; one that is behind the reference waits for the next time. */
  check(copies: readonly { readonly id: string; readonly reader: GroupReader }[], log: readonly LogEntry[]): number {
    const placed = copies.map((copy) => ({ ...copy, applied: copy.reader.applied() }));
    let checked = 0;
    for (const { id, reader, applied } of placed.sort((one, other) => one.applied - other.applied)) {
      if (applied < this.#file.applied) continue;
      const entries = log.slice(this.#file.last.index, applied);
      this.#file.write({ entries, keepThrough: undefined, applyThrough: applied });
      const expected = this.#contentOf(this.reader);
      checkEqual(this.#contentOf(reader), `${this.#group} at ${id}`, expected, `its log at ${applied}`);
      checked += 1;
    }
    return checked;
  }

  close(): void {
    this.reader.close();
    this.#file.close();
  }
}

/** The books of a group, from its log. */
export function booksOf(group: GroupId, entries: Iterable<LogEntry>): Books {
  const books = new Books(group);
  for (const { index, term, body } of entries) books.apply(index, term, decodeBody(body));
  return books;
}

/** The balances of a copy's cards against the books' own. */
export function checkBalances(who: string, reader: GroupReader, books: Books): void {
  const rows = reader.database
    .prepare<[], { card_id: string; held_minor: bigint; posted_minor: bigint }>(
      'SELECT card_id, held_minor, posted_minor FROM card',
    )
    .safeIntegers()
    .all();
  for (const { card_id: card, held_minor: held, posted_minor: posted } of rows) {
    const booked = books.balance(card);
    if (held !== booked.held || posted !== booked.posted) {
      throw new Violation(
        `card ${card} at ${who} has ${held} held and ${posted} posted, its log adds up to ${booked.held} and ${booked.posted}`,
      );
    }
  }
}
