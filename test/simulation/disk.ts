import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** The files of a data folder as they were at some moment: name to bytes. */
export type Image = ReadonlyMap<string, Buffer>;

/**
 * The disk of one process: a real folder, with what a real disk can do to it besides keeping it. Everything but
 * `synced` and `copy` asks that no file of it be open.
 *
 * A crash of the process alone loses nothing that SQLite has written. When the power fails, a write-ahead log ends
 * where it ended at its file's last sync, or anywhere after that: here either there or at its end, which are the two
 * that differ (a transaction that is there in part is not there).
 */
export class Disk {
  readonly folder: string;
  /** Length of a write-ahead log when its file was last synced. */
  readonly #syncedLength = new Map<string, number>();

  constructor(folder: string) {
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  /** The file at this path was synced just now, and all that was written to it before. */
  synced(path: string): void {
    this.#syncedLength.set(basename(path), lengthOf(`${path}-wal`));
  }

  /** Length of the write-ahead log of the file at this path. */
  logBytes(path: string): number {
    return lengthOf(`${path}-wal`);
  }

  /** Everything as it is now; files may be open, as long as nobody writes. */
  copy(): Image {
    return new Map(
      readdirSync(this.folder)
        .filter((name) => !name.endsWith('-shm'))
        .map((name) => [name, readFileSync(join(this.folder, name))]),
    );
  }

  /** What would be left if the power failed now: the logs of files that were written since their sync end there. */
  copyAfterPowerLoss(): Image {
    const image = new Map(this.copy());
    for (const [name, length] of this.#syncedLength) {
      const log = image.get(`${name}-wal`);
      if (log !== undefined && log.length > length) image.set(`${name}-wal`, log.subarray(0, length));
    }
    return image;
  }

  restore(image: Image): void {
    this.empty();
    for (const [name, bytes] of image) writeFileSync(join(this.folder, name), bytes);
  }

  empty(): void {
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder);
    this.#syncedLength.clear();
  }
}

function lengthOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
