import Database from 'better-sqlite3';

/**
 * Moves what is committed in a file's write-ahead log into the file, as far as no reader stands before it. It takes
 * no lock that the writing connection would wait for; a reader's snapshot makes it do less, never wait.
 */
export function checkpoint(path: string): void {
  const database = new Database(path, { fileMustExist: true, timeout: 0 });
  try {
    database.pragma('wal_checkpoint(PASSIVE)');
  } finally {
    database.close();
  }
}
