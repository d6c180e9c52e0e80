import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** A fresh clone in which nothing is installed, as far as the two entry points go. */
function bareClone(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bare-'));
  context.after(() => {
    rmSync(folder, { recursive: true });
  });
  for (const name of ['scripts', 'cli']) mkdirSync(join(folder, name));
  for (const file of ['package.json', 'package-lock.json', 'scripts/bootstrap.mjs', 'cli/quadrant.mjs']) {
    cpSync(join(root, file), join(folder, file));
  }
  return folder;
}

function run(cwd: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  // The variables that npm gives its scripts would lead to the caller's own npm and settings.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('npm_'));
  const env = { ...Object.fromEntries(inherited), ...environment };
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, env, encoding: 'utf8' });
  return { status, stdout, lastLine: stderr.trim().split('\n').at(-1) };
}

test('without packages the quadrant command says what to run first', (context) => {
  assert.deepEqual(run(bareClone(context), ['cli/quadrant.mjs', 'status']), {
    status: 1,
    stdout: '',
    lastLine: 'quadrant is not installed yet: run `npm start` in its folder first.',
  });
});

test('when the registry cannot be reached, a sentence says so', (context) => {
  const folder = bareClone(context);
  const result = run(folder, ['scripts/bootstrap.mjs', 'start'], {
    npm_config_registry: 'http://127.0.0.1:1',
    npm_config_fetch_retries: '0',
    npm_config_cache: join(folder, 'cache'),
  });
  assert.equal(result.status, 1);
  assert.match(result.lastLine ?? '', /^The packages could not be installed: the npm registry cannot be reached\./);
});

test('an unknown target is answered with the known ones', () => {
  for (const args of [[], ['stop'], ['constructor']]) {
    const result = run(root, ['scripts/bootstrap.mjs', ...args]);
    assert.equal(result.status, 1);
    assert.equal(
      result.lastLine,
      'usage: node scripts/bootstrap.mjs start|test|check|bench|bench:compare|drills|simulate|planted [arguments]',
    );
  }
});
