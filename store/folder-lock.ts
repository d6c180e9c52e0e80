import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import Database from 'better-sqlite3';

import { SwitchError } from '../base/errors.ts';

/** The files that a lock leaves in its folder; they stay when it is released. */
export const folderLockFiles: readonly string[] = ['lock.db', 'lock.db-journal', 'lock.owner'];

// A lock that its owner keeps no reference to would be released by the garbage collector.
const held = new Set<Database.Database>();

export interface FolderLock {
  readonly folder: string;
  /** Idempotent. */
  release(): void;
}

/**
 * Takes `folder` (made when it is missing) for this process alone, or throws DATA_FOLDER_IN_USE. The lock is SQLite's
 * exclusive lock on `lock.db`, held by the operating system: it ends with the process, however that ends, and no stale
 * lock can stay behind. `owner` says for people who has it; `lock.owner` beside it keeps that and the pid, for the
 * message only. Not for folders on network file systems that do not lock.
 */
export function acquireFolderLock(folder: string, owner: string): FolderLock {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const ownerFile = join(folder, 'lock.owner');
  const database = new Database(join(folder, 'lock.db'), { timeout: 0 });
  try {
    database.pragma('locking_mode = EXCLUSIVE');
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database.close();
    if (!(cause instanceof Database.SqliteError) || !cause.code.startsWith('SQLITE_BUSY')) throw cause;
    throw new SwitchError('DATA_FOLDER_IN_USE', `${folder} is in use by ${holder(ownerFile)}`, { cause });
  }
  held.add(database);
  writeFileSync(ownerFile, `${owner}, pid ${process.pid}\n`, { mode: 0o600 });
  return {
    folder,
    release() {
      held.delete(database);
      database.close();
    },
  };
}

function holder(ownerFile: string): string {
  try {
    return readFileSync(ownerFile, 'utf8').trim() || 'another process';
  } catch {
    return 'another process';
  }
}
