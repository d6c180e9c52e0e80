import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { closingLine } from './test-reporter.ts';

const reporter = new URL('./test-reporter.ts', import.meta.url).href;

function run(source: string): { readonly lastLine: string | undefined; readonly status: number | null } {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-reporter-'));
  try {
    writeFileSync(join(folder, 'a.test.mjs'), source);
    // The variable tells a test file that a runner collects its results; this run is one of its own.
    const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
    const args = [
      '--test',
      `--test-reporter=${reporter}`,
      '--test-reporter-destination=stdout',
      join(folder, 'a.test.mjs'),
    ];
    const { stdout, status } = spawnSync(process.execPath, args, { encoding: 'utf8', env: environment });
    return { lastLine: stdout.trim().split('\n').at(-1), status };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('the closing line has the real counts of a run, and a failure ends it non-zero', () => {
  const head = "import { test } from 'node:test';\n";
  assert.deepEqual(run(`${head}test('a', () => {}); test('b', () => {});`), {
    lastLine: '2 passed, 0 failed, 0 skipped',
    status: 0,
  });
  const bad = run(`${head}test('a', () => {}); test('b', () => { throw new Error(); }); test['skip']('c', () => {});`);
  assert.deepEqual(bad, { lastLine: '1 passed, 1 failed, 1 skipped', status: 1 });
  assert.deepEqual(run('syntax error'), { lastLine: '0 passed, 1 failed, 0 skipped', status: 1 });
});

test('a run of no tests is not ok, nor is one with a cancelled test', () => {
  const none = { tests: 0, passed: 0, cancelled: 0, skipped: 0, todo: 0 };
  assert.equal(closingLine(none).ok, false);
  assert.deepEqual(closingLine({ ...none, tests: 3, passed: 2, cancelled: 1 }), {
    line: '2 passed, 1 failed, 0 skipped',
    ok: false,
  });
  assert.equal(closingLine({ ...none, tests: 1, skipped: 1 }).ok, false);
});

test('the runner refuses a file that does not exist', () => {
  const script = fileURLToPath(new URL('./test.ts', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [script, 'no-such.test.ts'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /no such test file: no-such\.test\.ts/);
});
