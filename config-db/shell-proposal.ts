import { SwitchError } from '../base/errors.ts';
import { maskCardData } from '../base/pan.ts';
import {
  columnsOf,
  decodeConfigurationChange,
  encodeConfigurationChange,
  parseConfigurationRow,
  type ConfigurationChange,
  type ConfigurationTable,
  type SqlValue,
} from './rows.ts';

/** A row that somebody has edited in the shell, whole, before and after; undefined where there was or is none. */
export interface RowEdit {
  readonly table: ConfigurationTable;
  readonly key: Readonly<Record<string, SqlValue>>;
  readonly before: Readonly<Record<string, SqlValue>> | undefined;
  readonly after: Readonly<Record<string, SqlValue>> | undefined;
  /** Its trigger has noted it. */
  readonly isWatched: boolean;
}

/** What was edited, for people: no value is told but the key's, masked. */
export interface EditedRow {
  readonly table: ConfigurationTable;
  readonly key: string;
  readonly edit: 'insert' | 'update' | 'delete';
  readonly columns: readonly string[];
}

export interface EditVerdict {
  readonly rows: readonly EditedRow[];
  readonly outcome: 'waiting' | 'refused';
  /** JSON of `ProposedChange`s: what is to be entered; null when refused. */
  readonly proposal: string | null;
  readonly reason: string | null;
}

/** A change as it goes to the desk: the version is the log index of the edited row's last change, 0 for a new row. */
export interface ProposedChange {
  /** Canonical JSON. */
  readonly change: string;
  readonly replaces: number;
}

/** Reasons beyond this many are counted only, and so are the rows that one reason is about. */
const maximumReasons = 10;
const maximumNamed = 3;

/**
 * What comes of rows that were edited together: all of it is proposed, or nothing. Undefined when the rows are as they
 * were. What can be said without the rest of the configuration is said here; the desk that enters changes judges the rest.
 */
export function judgeEdits(edits: readonly RowEdit[]): EditVerdict | undefined {
  const rows: EditedRow[] = [];
  const changes: ProposedChange[] = [];
  const reasons = new Reasons();
  for (const edit of edits) {
    const columns = changedColumns(edit);
    if (columns.length === 0) continue;
    const key = keyText(edit);
    const kind = edit.before === undefined ? 'insert' : edit.after === undefined ? 'delete' : 'update';
    rows.push({ table: edit.table, key, edit: kind, columns: kind === 'update' ? columns : [] });
    const name = `${edit.table} ${key === '' ? "''" : key}`;
    if (!edit.isWatched) {
      reasons.add(name, 'edited past the triggers that watch this table');
      continue;
    }
    const made = columns.filter((column) => kind === 'update' && !columnsOf(edit.table).includes(column));
    if (made.length > 0) {
      reasons.add(name, `${made.join(', ')} ${made.length === 1 ? 'is' : 'are'} made by the nodes and not entered`);
      continue;
    }
    try {
      changes.push({ change: encodeConfigurationChange(changeOf(edit)), replaces: versionOf(edit) });
    } catch (error) {
      if (!(error instanceof SwitchError)) throw error;
      reasons.add(name, error.message);
    }
  }
  if (rows.length === 0) return undefined;
  return reasons.text === ''
    ? { rows, outcome: 'waiting', proposal: JSON.stringify(changes), reason: null }
    : { rows, outcome: 'refused', proposal: null, reason: reasons.text };
}

/** Why rows cannot be entered; what holds for several is said once. */
class Reasons {
  readonly #rowsBy = new Map<string, string[]>();

  add(row: string, reason: string): void {
    this.#rowsBy.set(reason, [...(this.#rowsBy.get(reason) ?? []), row]);
  }

  get text(): string {
    const told = [...this.#rowsBy].map(([reason, rows]) => {
      const more = rows.length - maximumNamed;
      return `${rows.slice(0, maximumNamed).join(', ')}${more > 0 ? ` and ${more} more` : ''}: ${reason}`;
    });
    const more = told.length - maximumReasons;
    return [...told.slice(0, maximumReasons), ...(more > 0 ? [`and ${more} more reasons`] : [])].join('; ');
  }
}

/** Columns that differ. What nodes make themselves may be left to its default, as `INSERT OR REPLACE` does. */
function changedColumns({ table, before, after }: RowEdit): string[] {
  const entered = columnsOf(table);
  const all = Object.keys(before ?? after ?? {});
  return all.filter((column) => {
    const [old, now] = [before?.[column], after?.[column]];
    if (old === now) return false;
    return entered.includes(column) || (now !== null && now !== '' && now !== 0n);
  });
}

function changeOf({ table, key, after }: RowEdit): ConfigurationChange {
  if (after === undefined) {
    const texts = Object.entries(key).map(([column, value]) => [column, plain(value)]);
    const change = { table, operation: 'delete', key: Object.fromEntries(texts) as Record<string, string | number> };
    return decodeConfigurationChange(JSON.stringify(change));
  }
  const canonical = Object.fromEntries(columnsOf(table).map((column) => [column, after[column] ?? null]));
  const row = parseConfigurationRow(table, canonical);
  // A row of the table's own schema is the table's row; the union type cannot say so.
  return { table, operation: 'put', row } as ConfigurationChange;
}

function versionOf({ before }: RowEdit): number {
  return Number(before?.['changed_at_index'] ?? 0);
}

function keyText({ key }: RowEdit): string {
  const text = Object.values(key).map(String).join('/');
  return maskCardData(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

function plain(value: SqlValue): string | number | null {
  return typeof value === 'bigint' ? Number(value) : value;
}
