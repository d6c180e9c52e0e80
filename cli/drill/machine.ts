import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { SwitchError } from '../../base/errors.ts';

/** Programs of the operating system that a drill runs: `ip`, `mount`, `fsfreeze`. */

export interface Outcome {
  readonly command: string;
  readonly status: number;
  readonly output: string;
}

/** Where administrators' programs are; not on everyone's PATH. */
const administrators = ['/usr/sbin', '/sbin'];

export function programPath(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...administrators];
  return folders.map((folder) => join(folder, name)).find((file) => existsSync(file));
}

/** Runs a program to its end, unseen. */
export function run(program: string, args: readonly string[]): Outcome {
  const command = `${program} ${args.join(' ')}`;
  const path = programPath(program);
  if (path === undefined) return { command, status: 127, output: `${program} is not installed` };
  const result = spawnSync(path, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  return { command, status: result.status ?? 1, output: `${result.stdout}${result.stderr}`.trim() };
}

/** The same without standing still: a load goes on meanwhile. */
export function runBeside(program: string, args: readonly string[]): Promise<Outcome> {
  const command = `${program} ${args.join(' ')}`;
  const path = programPath(program);
  if (path === undefined) return Promise.resolve({ command, status: 127, output: `${program} is not installed` });
  return new Promise((resolve) => {
    execFile(path, args, { encoding: 'utf8' }, (error, stdout, stderr) => {
      resolve({ command, status: error === null ? 0 : 1, output: `${stdout}${stderr}`.trim() });
    });
  });
}

export function ip(...args: readonly string[]): Outcome {
  return run('ip', args);
}

/** Throws DRILL_REFUSED when the program failed. */
export function must(outcome: Outcome): void {
  if (outcome.status !== 0) throw new SwitchError('DRILL_REFUSED', `${outcome.command}: ${outcome.output}`);
}

/** As `must`, but a failure whose output matches is none: what was to go is gone. */
export function mayHaveFailed(outcome: Outcome, harmless: RegExp): void {
  if (!harmless.test(outcome.output)) must(outcome);
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}
