/**
 * `npm run check`: types, lint, format, import directions, unused code. Each is run and reported, also after another
 * failed. Exit code 1 when any failed.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { realClock } from '../base/real.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const folders = ['base', 'store', 'config-db', 'switch', 'replication', 'compare', 'cli', 'scripts', 'test'];

const checks: readonly (readonly [name: string, program: string, args: readonly string[]])[] = [
  ['types', 'typescript/bin/tsc', ['--project', '.']],
  ['lint', 'eslint/bin/eslint.js', ['--max-warnings', '0', '.']],
  ['format', 'prettier/bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']],
  ['imports', 'dependency-cruiser/bin/dependency-cruise.mjs', ['--config', '.dependency-cruiser.cjs', ...folders]],
  ['unused', 'knip/bin/knip.js', ['--no-progress']],
];

const results = checks.map(([name, program, args]) => {
  process.stdout.write(`--- ${name}: ${program.split('/')[0] ?? ''}\n`);
  const beginMs = realClock.monotonicMs();
  const result = spawnSync(process.execPath, [`node_modules/${program}`, ...args], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const passed = result.status === 0;
  const seconds = ((realClock.monotonicMs() - beginMs) / 1000).toFixed(1);
  return { passed, line: `${passed ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)` };
});

process.stdout.write(`\n${results.map(({ line }) => line).join('\n')}\n`);
process.exitCode = results.every(({ passed }) => passed) ? 0 : 1;
