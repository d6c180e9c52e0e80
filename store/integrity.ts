import Database from 'better-sqlite3';

import { describeError } from '../base/errors.ts';
import { maskCardData } from '../base/pan.ts';
import { isDamage } from './snapshot-reader.ts';

/** Faults that are told of one file. */
const maximumFaults = 20;

/**
 * What SQLite finds wrong in a file: pages that contradict each other, rows and indexes that do not match, values that
 * their columns do not allow. Reads the whole file, which takes seconds for each gigabyte: for a thread of its own.
 * Throws what is no damage.
 */
export function integrityFaults(path: string): readonly string[] {
  let database: Database.Database | undefined;
  try {
    database = new Database(path, { readonly: true, fileMustExist: true, timeout: 0 });
    const lines = database.prepare<[], string>(`PRAGMA integrity_check(${maximumFaults})`).pluck().all();
    return lines.filter((line) => line !== 'ok').map((line) => maskCardData(line).slice(0, 500));
  } catch (error) {
    if (!isDamage(error)) throw error;
    return [maskCardData(describeError(error)).slice(0, 500)];
  } finally {
    database?.close();
  }
}
