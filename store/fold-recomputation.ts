import { rmSync } from 'node:fs';

import Database from 'better-sqlite3';

import { assert } from '../base/errors.ts';
import { decodeBody } from './entry.ts';
import { prepareGroupFile, type Fold } from './group-file.ts';
import { SnapshotReader } from './snapshot-reader.ts';

/**
 * The fold of a group made anew from its log, beside the one in the group's file: what the entries add up to, whatever
 * stands in the file. It is made in a file of its own, which nobody needs to find again: nothing of it is synced, it is
 * removed at the end, and memory stays bounded. A log that has been trimmed does not tell how its fold began.
 */
export class FoldRecomputation {
  #source: SnapshotReader;
  readonly #path: string;
  readonly #database: Database.Database;
  readonly #apply: ReturnType<Fold['open']>;
  #through = 0;
  #reader: SnapshotReader | undefined;

  /** `source` has a log that was never trimmed, and stays open until this is closed. */
  constructor(source: SnapshotReader, path: string, fold: Fold) {
    assert(source.base.index === 0, 'the log begins with its first entry');
    this.#source = source;
    this.#path = path;
    remove(path);
    this.#database = new Database(path);
    this.#database.pragma('journal_mode = OFF');
    this.#database.pragma('synchronous = OFF');
    this.#database.pragma('cache_size = -16384');
    prepareGroupFile(this.#database, { group: source.group, cluster: 'recomputed', fold });
    this.#apply = fold.open(this.#database, source.group);
  }

  /** Applies up to `limit` more entries. `done`: all up to the source's fold are. Throws what applying throws. */
  advance(limit: number): { readonly through: number; readonly done: boolean } {
    const entries = this.#source.entries(this.#through, limit);
    this.#database.transaction(() => {
      for (const { index, term, body } of entries) {
        this.#apply(index, term, decodeBody(body));
        this.#through = index;
      }
    })();
    const done = entries.length < limit;
    if (done && this.#reader === undefined) {
      this.#database
        .prepare("UPDATE meta SET value = ? WHERE name = 'applied_index'")
        .run(String(this.#source.appliedIndex));
      this.#reader = SnapshotReader.open(this.#path);
    }
    return { through: this.#through, done };
  }

  /** Goes on to where a later snapshot of the same file is; `advance` until it is done again. */
  goOn(source: SnapshotReader): void {
    assert(source.base.index === 0 && source.appliedIndex >= this.#through, 'a later snapshot of the same log');
    // A reader of this file would keep it from being written.
    this.#reader?.close();
    this.#reader = undefined;
    this.#source = source;
  }

  /** The fold, once it is done. */
  get reader(): SnapshotReader | undefined {
    return this.#reader;
  }

  close(): void {
    this.#reader?.close();
    this.#database.close();
    remove(this.#path);
  }
}

function remove(path: string): void {
  for (const suffix of ['', '-journal', '-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true });
}
