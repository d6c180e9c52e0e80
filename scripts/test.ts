/**
 * `npm test [-- FILE ...]`: every *.test.ts of the project, or those named. Two files at a time; a test that takes
 * longer than three minutes and has no limit of its own fails. The last line has the counts.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const named = process.argv.slice(2);
const missing = named.filter((file) => !existsSync(file));
if (missing.length > 0) {
  process.stderr.write(`no such test file: ${missing.join(', ')}\n`);
  process.exit(2);
}
const folders = '{base,store,config-db,switch,replication,compare,cli,scripts,test}';
const files =
  named.length > 0
    ? named.map((file) => relative(root, file))
    : globSync(`${folders}/**/*.test.ts`, { cwd: root }).sort();
if (files.length === 0) {
  process.stdout.write('0 passed, 0 failed, 0 skipped\n');
  process.exit(1);
}

const result = spawnSync(
  process.execPath,
  [
    '--test',
    '--test-concurrency=2',
    '--test-timeout=180000',
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${new URL('./test-reporter.ts', import.meta.url).href}`,
    '--test-reporter-destination=stdout',
    ...files,
  ],
  { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
);
process.exitCode = result.status ?? 1;
