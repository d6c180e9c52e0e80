import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

/**
 * DATA/run.json: which processes a supervisor has started, for whoever comes after it and for drills. A pid may be
 * another program's by now, so a process is the recorded one only while its command line has the recorded marks.
 */
const runRecord = z.object({
  processes: z.array(z.object({ id: z.string(), pid: z.int().positive(), marks: z.array(z.string()).min(1) })),
});

export interface RecordedProcess {
  readonly id: string;
  readonly pid: number;
  /** Words of its command line that no other program has together. */
  readonly marks: readonly string[];
}

export function runFile(dataFolder: string): string {
  return join(dataFolder, 'run.json');
}

export function recordProcesses(dataFolder: string, processes: readonly RecordedProcess[]): void {
  writeFileSync(runFile(dataFolder), `${JSON.stringify({ processes }, null, 2)}\n`, { mode: 0o600 });
}

/** Those of the record that run. */
export function recordedProcesses(dataFolder: string): readonly RecordedProcess[] {
  const file = runFile(dataFolder);
  if (!existsSync(file)) return [];
  try {
    return runRecord.parse(JSON.parse(readFileSync(file, 'utf8'))).processes.filter(isRunning);
  } catch {
    // Half written when its supervisor was killed: the port check finds what still runs.
    return [];
  }
}

export function isRunning({ pid, marks }: Pick<RecordedProcess, 'pid' | 'marks'>): boolean {
  const words = commandLine(pid);
  return marks.every((mark) => words.includes(mark));
}

/** Does nothing when the process does not run any more. */
export function signalProcess(recorded: Pick<RecordedProcess, 'pid' | 'marks'>, signal: NodeJS.Signals): void {
  if (!isRunning(recorded)) return;
  try {
    process.kill(recorded.pid, signal);
  } catch (error) {
    // It ended in between.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/** Words of a process's command line; none when it has ended. */
function commandLine(pid: number): readonly string[] {
  if (existsSync('/proc/self/cmdline')) {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    } catch {
      return [];
    }
  }
  return spawnSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' })
    .stdout.trim()
    .split(' ');
}
