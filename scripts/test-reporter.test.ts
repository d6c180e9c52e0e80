import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { closingLine } from './test-reporter.ts';

const reporter = new URL('./test-reporter.ts', import.meta.url).href;

interface Run {
  readonly lastLine: string | undefined;
  readonly status: number | null;
  readonly text: string;
}

function run(source: string): Run {
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
    return { lastLine: stdout.trim().split('\n').at(-1), status, text: stdout };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const head = "import { test } from 'node:test';\n";

test('the closing line has the real counts of a run, and a failure ends it non-zero', () => {
  const ends = ({ lastLine, status }: Run): unknown[] => [lastLine, status];
  const good = run(`${head}test('a', () => {}); test('b', () => {});`);
  assert.deepEqual(ends(good), ['2 passed, 0 failed, 0 skipped', 0]);
  assert.doesNotMatch(good.text, /FAILED/);
  const bad = run(`${head}test('a', () => {}); test('b', () => { throw new Error(); }); test['skip']('c', () => {});`);
  assert.deepEqual(ends(bad), ['1 passed, 1 failed, 1 skipped', 1]);
  assert.deepEqual(ends(run('syntax error')), ['0 passed, 1 failed, 0 skipped', 1]);
});

test('a failure is told in full before the tests after it have run', () => {
  const slow = "test('after', () => { console.log('later'); });";
  const { text } = run(`${head}test('bad', () => { throw new Error('what was wrong'); });${slow}`);
  assert.match(text, /FAILED: bad \(.*a\.test\.mjs\)\n.*what was wrong/);
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
