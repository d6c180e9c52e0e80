import Database from 'better-sqlite3';

/** Passes over one file at most: each leaves only what was committed while it ran. */
const maximumPasses = 5;
/** Frames that are left to the writing connection: a few milliseconds of its time. */
const remainderFrames = 1000;

interface Progress {
  /** Frames in the write-ahead log, and how many of them are in the file. */
  readonly log: number;
  readonly checkpointed: number;
}

/**
 * Moves what is committed in a file's write-ahead log into the file, as far as no reader stands before it. It takes
 * no lock that the writing connection would wait for; a reader's snapshot makes it do less, never wait.
 *
 * While others write, it never gets quite to the end, and a log that is not wholly in its file is never begun anew
 * but grows: the writing connection has to make the last step itself (`GroupFile.finishCheckpoint`).
 */
export function checkpoint(path: string): void {
  const database = new Database(path, { fileMustExist: true, timeout: 0 });
  try {
    for (let pass = 0; pass < maximumPasses; pass++) {
      const [progress] = database.pragma('wal_checkpoint(PASSIVE)') as Progress[];
      if (progress === undefined || progress.log - progress.checkpointed <= remainderFrames) return;
    }
  } finally {
    database.close();
  }
}
