import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { acquireFolderLock } from './folder-lock.ts';

function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-lock-'));
  context.after(() => {
    rmSync(folder, { recursive: true });
  });
  return folder;
}

/** A process that holds the lock of `folder` until it is killed. */
async function holdElsewhere(folder: string): Promise<{ readonly pid: number; kill(): Promise<void> }> {
  const program = `
    import { acquireFolderLock } from ${JSON.stringify(import.meta.resolve('./folder-lock.ts'))};
    acquireFolderLock(process.argv[1], 'n1');
    process.send('held');
    process.on('disconnect', () => process.exit());
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program, folder], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  await once(child, 'message');
  assert.ok(child.pid !== undefined);
  return {
    pid: child.pid,
    async kill() {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}

test('a folder that another process holds is refused, naming folder and holder', async (context) => {
  const folder = temporaryFolder(context);
  const other = await holdElsewhere(folder);
  try {
    assert.throws(() => acquireFolderLock(folder, 'n1'), {
      code: 'DATA_FOLDER_IN_USE',
      message: `${folder} is in use by n1, pid ${other.pid}`,
    });
  } finally {
    await other.kill();
  }
});

test('the lock of a process that was killed is free at once', async (context) => {
  const folder = temporaryFolder(context);
  const other = await holdElsewhere(folder);
  await other.kill();
  acquireFolderLock(folder, 'n1').release();
});

test('a second lock in the same process is refused until the first is released', (context) => {
  const folder = join(temporaryFolder(context), 'made', 'when', 'missing');
  const lock = acquireFolderLock(folder, 'first');
  assert.throws(() => acquireFolderLock(folder, 'second'), { code: 'DATA_FOLDER_IN_USE', message: /in use by first/ });
  lock.release();
  lock.release();
  acquireFolderLock(folder, 'second').release();
});
