import Database from 'better-sqlite3';

import type { EditedRow, ProposedChange } from './shell-proposal.ts';

/** What becomes of an edit. `waiting`: proposed, and not in the log yet. `restored`: the triggers were put in order. */
export type EditOutcomeKind = 'waiting' | 'entered' | 'refused' | 'nothing to change' | 'restored';

/** An edit of this node's config.db by the `sqlite3` shell, or what was done to the triggers that watch for them. */
export interface ShellEdit {
  readonly sequence: number;
  /** Names the change in the log. */
  readonly change: string;
  /** When the first row was edited, ISO; null when nothing noted it. */
  readonly editedAt: string | null;
  readonly rows: readonly EditedRow[];
  readonly outcome: EditOutcomeKind;
  readonly index: number | null;
  readonly reason: string | null;
}

interface StoredEdit extends Omit<ShellEdit, 'rows'> {
  readonly rows: string;
}

const editSql = `
  SELECT sequence, change_id AS change, edited_at AS editedAt, rows, outcome, log_index AS "index", reason
  FROM shell_edit`;

function parsed(edits: readonly StoredEdit[]): ShellEdit[] {
  return edits.map((edit) => ({ ...edit, rows: JSON.parse(edit.rows) as EditedRow[] }));
}

/** The newest edits first, at most `limit`. */
export function readShellEdits(database: Database.Database, limit: number): ShellEdit[] {
  return parsed(database.prepare<[number], StoredEdit>(`${editSql} ORDER BY sequence DESC LIMIT ?`).all(limit));
}

/** What has to be entered for an edit that waits. */
export function readProposal(database: Database.Database, sequence: number): readonly ProposedChange[] {
  const select = database
    .prepare<[number], string | null>('SELECT proposal FROM shell_edit WHERE sequence = ?')
    .pluck();
  return JSON.parse(select.get(sequence) ?? '[]') as ProposedChange[];
}

/** Of a file that no node has open: the edits that are done with. */
export function closedShellEdits(path: string): string[] {
  let database: Database.Database | undefined;
  try {
    database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
    return readShellEdits(database, -1).flatMap(({ change, outcome }) => (outcome === 'waiting' ? [] : [change]));
  } catch {
    // No file yet, one without the table, or one whose opening will say what is wrong with it.
    return [];
  } finally {
    database?.close();
  }
}
