/**
 * `npm run check`: types, lint, format, import directions, unused code; two at a time. Each is run and reported, also
 * after another failed. Exit code 1 when any failed.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { realClock } from '../base/real.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = ['base', 'store', 'config-db', 'switch', 'replication', 'compare', 'cli', 'scripts', 'test'];

/** The slowest first. */
const checks: readonly (readonly [name: string, program: string, args: readonly string[]])[] = [
  ['lint', 'eslint/bin/eslint.js', ['--max-warnings', '0', '.']],
  ['types', 'typescript/bin/tsc', ['--project', '.']],
  ['format', 'prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']],
  ['imports', 'dependency-cruiser/bin/dependency-cruise.mjs', ['--config', '.dependency-cruiser.cjs', ...folders]],
  ['unused', 'knip/bin/knip.js', ['--no-progress']],
];

interface Result {
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: string;
}

/** Runs one check to its end, and prints all that it said together. */
async function run([name, program, args]: (typeof checks)[number]): Promise<Result> {
  const beginMs = realClock.monotonicMs();
  const child = spawn(process.execPath, [`node_modules/${program}`, ...args], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes: Buffer) => output.push(bytes));
  const passed = await new Promise<boolean>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      resolve(code === 0);
    });
  });
  const seconds = ((realClock.monotonicMs() - beginMs) / 1000).toFixed(1);
  process.stdout.write(`--- ${name}: ${program.split('/')[0] ?? ''}\n`);
  process.stdout.write(Buffer.concat(output));
  return { name, passed, seconds };
}

const waiting = [...checks];
const results: Result[] = [];

async function lane(): Promise<void> {
  for (let check = waiting.shift(); check !== undefined; check = waiting.shift()) results.push(await run(check));
}

await Promise.all([lane(), lane()]);

const lines = results.map(({ name, passed, seconds }) => `${passed ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)`);
process.stdout.write(`\n${lines.join('\n')}\n`);
process.exitCode = results.every(({ passed }) => passed) ? 0 : 1;
