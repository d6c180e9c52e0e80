import { closeSync, fsyncSync, openSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/*
 * How a snapshot replaces a group's file. The new file never takes the old one's name: it gets the name of the next
 * generation, `group-a.db`, `group-a.g2.db`, `group-a.g3.db`, and of several the highest is the group's file.
 *
 * Were the name the same, a connection that somebody still has to the old file (a shell, a checkpoint under way) would
 * on closing checkpoint its own write-ahead log and then remove `group-a.db-wal` by name, which by then is the new
 * file's: what had been acknowledged since would be gone. With another name it removes what is its own.
 *
 *   1. the new file is written whole as `group-a.db.incoming`, synced, closed   crash: the old file; incoming is removed
 *   2. `group-a.db.incoming` is renamed to `group-a.g2.db`                      crash: either of them, each whole
 *   3. the folder is synced: from here on the new file is the group's           crash: the new file; the old is removed
 *   4. the old file is closed                                                   crash: the new file; the old is removed
 *   5. the new file is opened: it takes over what its node alone knew, then the old file is removed with what belongs
 *      to it; and whoever reads the group is told
 */

/** Where a replacement can be interrupted: after its five steps. */
export const installSteps = ['written', 'renamed', 'folder synced', 'closed', 'opened'] as const;
export type InstallStep = (typeof installSteps)[number];

interface Generation {
  readonly path: string;
  readonly number: number;
}

/** Splits `group-a.g2.db` into `group-a` and 2; the first generation has no number. */
function generationOf(path: string): { readonly stem: string; readonly number: number } {
  const name = basename(path);
  const [, stem = name, number = '1'] = /^(.*?)(?:\.g([1-9][0-9]{0,8}))?\.db$/.exec(name) ?? [];
  return { stem, number: Number(number) };
}

function generations(path: string): Generation[] {
  const folder = dirname(path);
  const { stem } = generationOf(path);
  return readdirSync(folder)
    .filter((name) => name.endsWith('.db') && generationOf(name).stem === stem)
    .map((name) => ({ path: join(folder, name), number: generationOf(name).number }));
}

/** The group's file: the one at `path`, of any generation, or whichever has replaced it. */
export function currentGroupFile(path: string): string {
  let current: Generation = { path, number: 0 };
  for (const each of generations(path)) if (each.number > current.number) current = each;
  return current.path;
}

/** The files that the one at `current` has replaced and that are still there. */
export function earlierGenerations(current: string): string[] {
  return generations(current).flatMap(({ path }) => (path === current ? [] : [path]));
}

/** Where a snapshot is written before it becomes the group's file. */
export function incomingFile(current: string): string {
  return `${current}.incoming`;
}

/** The group's file after the one at `current`. */
export function nextGeneration(current: string): string {
  const { stem, number } = generationOf(current);
  return join(dirname(current), `${stem}.g${number + 1}.db`);
}

/**
 * Puts an empty file in the group's place, on disk when this returns: what it had is gone with the next opening. For a
 * copy that is to be made anew from the others'; its members take it for a lost disk (R8).
 */
export function emptyGroupFile(path: string): string {
  const next = nextGeneration(currentGroupFile(path));
  closeSync(openSync(next, 'wx', 0o600));
  syncPath(dirname(next));
  return next;
}

/** Removes what a replacement has left, finished or not: older generations of the file, and unfinished snapshots. */
export function removeLeftovers(current: string): void {
  const folder = dirname(current);
  const older = earlierGenerations(current);
  // Of an interrupted one it is not known whether the new file's name is on disk.
  if (older.length > 0) syncPath(folder);
  for (const path of older) removeDatabase(path);
  const { stem } = generationOf(current);
  for (const name of readdirSync(folder)) {
    const [, of] = /^(.*\.db)\.incoming(?:-journal)?$/.exec(name) ?? [];
    if (of !== undefined && generationOf(of).stem === stem) rmSync(join(folder, name), { force: true });
  }
}

/** Removes a database, after what SQLite keeps beside it: nothing is left that would have no database. */
export function removeDatabase(path: string): void {
  for (const suffix of ['-wal', '-shm', '-journal', '']) rmSync(path + suffix, { force: true });
}

/** Syncs a file or a folder. For files that no connection has open: closing drops the process's locks on a file. */
export function syncPath(path: string): void {
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
