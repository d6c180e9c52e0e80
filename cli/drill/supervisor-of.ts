import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { isRunning } from '../cluster/run-record.ts';
import type { RecordedProcess } from '../cluster/run-record.ts';

const startScript = fileURLToPath(new URL('../../scripts/start.ts', import.meta.url));

/**
 * The `npm start` that has the cluster of this data folder; undefined: none of this installation has. Another program
 * would not know what SIGUSR2 is to mean, and end.
 */
export function supervisorOf(dataFolder: string): Pick<RecordedProcess, 'pid' | 'marks'> | undefined {
  const file = join(dataFolder, 'lock.owner');
  const pid = existsSync(file) ? /, pid ([0-9]+)$/.exec(readFileSync(file, 'utf8').trim())?.[1] : undefined;
  const supervisor = { pid: Number(pid ?? 0), marks: [startScript] };
  return isRunning(supervisor) ? supervisor : undefined;
}
