import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';

import type Database from 'better-sqlite3';

import { assert, SwitchError } from '../base/errors.ts';
import {
  canonicalSql,
  decodeValue,
  digestOf,
  digestOfValues,
  encodeRow,
  exactValueSql,
  identifierSql,
  parameterSql,
  type EncodedKey,
  type EncodedValue,
  type SqlScalar,
} from './canonical.ts';

/**
 * One row as it is to be. `found` is the digest that it was found with, null for no row: when it has another one by now,
 * somebody has written it since and it is left alone.
 *
 *   put      these canonical columns, which have the digest `right`; derived ones are made anew by the fold's own rules
 *   delete   no such row
 *   derive   `found` and `right` are of the derived columns (`digestOfValues`), which are made anew
 *   restore  all columns, or no row (null): undoes one of the others. `found` is the digest of all columns' values
 */
export type RowChange = {
  readonly table: string;
  readonly key: EncodedKey;
  readonly found: string | null;
} & (
  | { readonly kind: 'put'; readonly values: readonly EncodedValue[]; readonly right: string }
  | { readonly kind: 'delete' }
  | { readonly kind: 'derive'; readonly right: string }
  | { readonly kind: 'restore'; readonly values: readonly EncodedValue[] | null }
);

/** already: the row is as it is to be. newer: it is not as it was found. */
export type RowOutcome = 'changed' | 'already' | 'newer';

/** A row as it was before it was changed: all of its columns, those too that are its node's own. */
export interface UndoRecord {
  readonly table: string;
  readonly key: EncodedKey;
  readonly before: readonly EncodedValue[] | null;
  /** Digest of all columns' values after the change; null: no row. */
  readonly after: string | null;
}

/** What of a `TableSpecification` matters for single rows. */
export interface RepairedTable {
  readonly name: string;
  readonly keyColumns: readonly string[];
  readonly columns: readonly string[];
  readonly derivedColumns: readonly string[];
}

export interface RowState {
  /** Of the canonical columns. */
  readonly digest: string;
  /** Canonical columns, then derived ones. */
  readonly values: readonly EncodedValue[];
}

/** What stands in one row. */
export function readRow(database: Database.Database, table: RepairedTable, key: EncodedKey): RowState | undefined {
  assert(key.length === table.keyColumns.length, `a key of ${table.name} has ${table.keyColumns.length} values`);
  const columns = allColumns(table);
  const row = database
    .prepare<SqlScalar[], SqlScalar[]>(
      `SELECT ${columns.map(exactValueSql).join(', ')}, CAST(${canonicalSql(table.columns).any} AS BLOB)` +
        ` FROM ${identifierSql(table.name)} WHERE ${whereKey(table, key)}`,
    )
    .raw()
    .safeIntegers(true)
    .get(...key.map(decodeValue));
  if (row === undefined) return undefined;
  return { digest: digestOf(row.at(-1) as Buffer).toString('base64'), values: encodeRow(row, columns.length) };
}

/**
 * Changes rows inside the caller's transaction, all or, by what it throws, none: what has to be undone is for the
 * caller to keep before it commits. Rows that are to be written are all removed first, so that values which have to be
 * unique can change places.
 */
export function changeRows(
  database: Database.Database,
  tables: readonly RepairedTable[],
  fold: { derive?(database: Database.Database, only?: ReadonlySet<string>): void },
  changes: readonly RowChange[],
): { readonly outcomes: readonly RowOutcome[]; readonly undo: readonly UndoRecord[] } {
  const planned = changes.map((change) => {
    const table = tables.find(({ name }) => name === change.table);
    if (table === undefined) throw refused(`there is no table "${change.table}" to repair`);
    const before = readRow(database, table, change.key);
    return { change, table, before, outcome: outcomeOf(change, table, before) };
  });
  const due = planned.filter(({ outcome }) => outcome === 'changed');
  for (const { change, table } of due) {
    if (change.kind === 'derive') continue;
    database
      .prepare(`DELETE FROM ${identifierSql(table.name)} WHERE ${whereKey(table, change.key)}`)
      .run(...change.key.map(decodeValue));
  }
  for (const { change, table } of due) {
    if (change.kind === 'put') insert(database, table, table.columns, change.values);
    if (change.kind === 'restore' && change.values !== null) insert(database, table, allColumns(table), change.values);
  }
  const derived = due.filter(
    ({ change, table }) => (change.kind === 'put' && table.derivedColumns.length > 0) || change.kind === 'derive',
  );
  if (derived.length > 0) {
    fold.derive?.(
      database,
      new Set(derived.map(({ change }) => `${change.table} ${change.key.map((value) => value.slice(1)).join('/')}`)),
    );
  }
  const undo = due.map(({ change, table, before }): UndoRecord => {
    const after = readRow(database, table, change.key);
    const isRight =
      (change.kind !== 'put' || after?.digest === change.right) &&
      (change.kind !== 'derive' || (after && derivedDigest(table, after)) === change.right);
    if (!isRight) throw refused(`a row of ${table.name} would not be what it was said to become`);
    return { ...keyOf(change), before: before?.values ?? null, after: after ? digestOfValues(after.values) : null };
  });
  return { outcomes: planned.map(({ outcome }) => outcome), undo };
}

function outcomeOf(change: RowChange, table: RepairedTable, before: RowState | undefined): RowOutcome {
  const judge = (now: string | null, right: string | null): RowOutcome =>
    now === right ? 'already' : now === change.found ? 'changed' : 'newer';
  switch (change.kind) {
    case 'put':
      return judge(before?.digest ?? null, change.right);
    case 'delete':
      return judge(before?.digest ?? null, null);
    case 'derive':
      return before === undefined ? 'newer' : judge(derivedDigest(table, before), change.right);
    case 'restore': {
      const wanted = change.values === null ? null : digestOfValues(change.values);
      return judge(before === undefined ? null : digestOfValues(before.values), wanted);
    }
  }
}

function derivedDigest(table: RepairedTable, { values }: RowState): string {
  return digestOfValues(values.slice(table.columns.length));
}

function insert(
  database: Database.Database,
  table: RepairedTable,
  columns: readonly string[],
  values: readonly EncodedValue[],
): void {
  if (values.length !== columns.length) throw refused(`a row of ${table.name} has ${columns.length} columns`);
  database
    .prepare(
      `INSERT INTO ${identifierSql(table.name)} (${columns.map(identifierSql).join(', ')})` +
        ` VALUES (${values.map(parameterSql).join(', ')})`,
    )
    .run(...values.map(decodeValue));
}

function keyOf({ table, key }: RowChange): Pick<UndoRecord, 'table' | 'key'> {
  return { table, key };
}

function allColumns(table: RepairedTable): readonly string[] {
  return [...table.columns, ...table.derivedColumns];
}

function whereKey(table: RepairedTable, key: EncodedKey): string {
  return table.keyColumns
    .map((column, at) => `${identifierSql(column)} = ${parameterSql(key[at] ?? 'n')}`)
    .join(' AND ');
}

function refused(message: string): SwitchError {
  return new SwitchError('REPAIR_REFUSED', message);
}

/**
 * Appends to an undo file; what it returns from is on disk. A line that a crash has cut off is removed first: the change
 * that it was for has not been made, for it waits for this.
 */
export function appendUndo(path: string, records: readonly UndoRecord[]): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const file = openSync(path, 'a+', 0o600);
  try {
    const size = fstatSync(file).size;
    const whole = wholeLines(file, size);
    if (whole < size) ftruncateSync(file, whole);
    writeSync(file, records.map((record) => `${JSON.stringify(record)}\n`).join(''));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  // So that the file's name is there after a crash, too.
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** The changes that undo what a file has records of, last one first; [] when there is no such file. */
export function readUndo(path: string): readonly RowChange[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
  const changes = new Map<string, RowChange>();
  const lines = text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .slice(0, -1);
  for (const line of lines) {
    const { table, key, before, after } = JSON.parse(line) as UndoRecord;
    // Again, when a crash came between the record and its change.
    changes.set(JSON.stringify([table, key]), { kind: 'restore', table, key, found: after, values: before });
  }
  return [...changes.values()].reverse();
}

/** Bytes up to the end of the last whole line. */
function wholeLines(file: number, size: number): number {
  const chunk = Buffer.alloc(64 * 1024);
  for (let end = size; end > 0;) {
    const from = Math.max(0, end - chunk.length);
    const read = readSync(file, chunk, 0, end - from, from);
    const at = chunk.subarray(0, read).lastIndexOf(0x0a);
    if (at !== -1) return from + at + 1;
    end = from;
  }
  return 0;
}
