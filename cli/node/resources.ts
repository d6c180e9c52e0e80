import { readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';

import type { ProcessResources } from './metrics.ts';
import type { DiskStatus } from './status.ts';

/** How full the disk is, and how much waits in write-ahead logs. Undefined when the folder cannot be read. */
export async function diskStatus(folder: string): Promise<DiskStatus | undefined> {
  try {
    const [{ bavail, bsize }, names] = await Promise.all([statfs(folder), readdir(folder)]);
    const logs = names.filter((name) => name.endsWith('.db-wal'));
    const sizes = await Promise.all(
      logs.map(async (name): Promise<[string, number]> => {
        // It may have gone meanwhile.
        const size = await stat(join(folder, name)).then(
          (found) => found.size,
          () => 0,
        );
        return [name.slice(0, -'-wal'.length), size];
      }),
    );
    return { freeBytes: bavail * bsize, walBytes: Object.fromEntries(sizes) };
  } catch {
    return undefined;
  }
}

export async function processResources(startedAtSeconds: number): Promise<ProcessResources> {
  const { user, system } = process.cpuUsage();
  const openFiles = await readdir('/proc/self/fd').then(
    (names) => names.length,
    () => undefined,
  );
  return {
    cpuSeconds: (user + system) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    heapBytes: process.memoryUsage().heapUsed,
    startedAtSeconds,
    openFiles,
  };
}
