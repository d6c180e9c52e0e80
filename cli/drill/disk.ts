import { closeSync, mkdirSync, openSync, rmSync, statfsSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { must, programPath, run, runBeside } from './machine.ts';
import type { UndoJournal } from './undo.ts';

const imageBytes = 384 * 1024 * 1024;
const fillerBytes = 64 * 1024;
/** Left for what the file system needs to write down how it has given out the rest; then they are written full, too. */
const spareBytes = 8 * 1024 * 1024;
/** Of each half second a slow disk writes for a tenth. */
const stillMs = 450;
const movingMs = 50;

/**
 * One process's data on a file system of its own, an ext4 image, so that its disk alone can be full or slow. Slow is a
 * file system that is frozen (fsfreeze) most of the time: every write and sync waits. Needs root.
 */
export class StallableDisk {
  readonly process: string;
  readonly #mount: string;
  #moving: Promise<void> | undefined;
  #slow = false;

  /** `dataFolder` has been claimed and the process has not run yet. */
  static make(process: string, dataFolder: string, folder: string, undo: UndoJournal): StallableDisk {
    for (const program of ['mkfs.ext4', 'mount', 'umount', 'fsfreeze', 'fallocate']) {
      if (programPath(program) === undefined) throw new SwitchError('DRILL_REFUSED', `${program} is not installed`);
    }
    const mount = join(dataFolder, process);
    const image = join(folder, `${process}.img`);
    mkdirSync(mount, { recursive: true, mode: 0o700 });
    writeFileSync(image, '', { mode: 0o600 });
    truncateSync(image, imageBytes);
    // No blocks kept back for root: full is full.
    must(run('mkfs.ext4', ['-q', '-m', '0', image]));
    undo.record({ kind: 'mount', folder: mount });
    must(run('mount', ['-o', 'loop', image, mount]));
    rmSync(join(mount, 'lost+found'), { recursive: true, force: true });
    const disk = new StallableDisk(process, mount);
    undo.atClose(() => {
      disk.#slow = false;
    });
    return disk;
  }

  private constructor(process: string, mount: string) {
    this.process = process;
    this.#mount = mount;
  }

  /** Not a byte is left. The room is taken, not written: the load comes from this process, and the disk beneath is everybody's. */
  async fill(): Promise<void> {
    const filler = join(this.#mount, 'filler');
    const { bavail, bsize } = statfsSync(this.#mount);
    must(await runBeside('fallocate', ['--length', String(Math.max(bsize, bavail * bsize - spareBytes)), filler]));
    const descriptor = openSync(filler, 'a', 0o600);
    try {
      for (let bytes = fillerBytes; bytes >= 1;) {
        try {
          writeSync(descriptor, Buffer.alloc(bytes, 1));
        } catch (error) {
          if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error;
          bytes = Math.floor(bytes / 4);
        }
      }
    } finally {
      closeSync(descriptor);
    }
  }

  empty(): void {
    rmSync(join(this.#mount, 'filler'), { force: true });
  }

  /** Until `recover`. */
  slowDown(clock: Clock): void {
    this.#slow = true;
    this.#moving = (async () => {
      while (this.#slow) {
        await this.#fsfreeze('-f');
        await delay(clock, stillMs);
        await this.#fsfreeze('-u');
        await delay(clock, movingMs);
      }
    })();
  }

  /** What fails while the drill is being undone has been undone already. */
  async #fsfreeze(what: '-f' | '-u'): Promise<void> {
    const outcome = await runBeside('fsfreeze', [what, this.#mount]);
    if (this.#slow) must(outcome);
  }

  async recover(): Promise<void> {
    this.#slow = false;
    await this.#moving;
  }
}
