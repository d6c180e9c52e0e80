import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { temporaryFolder, topologyOnFreePorts } from '../cli/cluster/testing.ts';

const script = fileURLToPath(new URL('./start.ts', import.meta.url));

function start(args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  const env = { ...process.env, ...environment };
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
    encoding: 'utf8',
    env,
    input: '',
  });
  return { status, stdout, stderr };
}

test('an unknown flag is answered with the usage and exit code 2', () => {
  for (const args of [['--bogus'], ['extra'], ['--config']]) {
    const { status, stderr } = start(args);
    assert.equal(status, 2);
    assert.match(stderr, /\nusage: npm start -- /);
  }
  assert.equal(start(['--help']).status, 0);
});

test('an invalid nodes.yaml is answered with file, line and key, and nothing is written', (context) => {
  const folder = temporaryFolder(context);
  const file = join(folder, 'nodes.yaml');
  writeFileSync(file, 'cluster: x\nnode: []\n');
  const data = join(folder, 'data');
  for (const result of [
    start(['--config', file, '--data', data]),
    start([], { QUADRANT_CONFIG: file, QUADRANT_DATA: data }),
  ]) {
    assert.equal(result.status, 1);
    assert.match(result.stderr, /nodes\.yaml, line 2: node: unknown key; did you mean "nodes"\?/);
    assert.ok(!existsSync(data));
  }
});

test('data is not erased unasked, and never when it is not ours', async (context) => {
  const folder = temporaryFolder(context);
  const { file } = await topologyOnFreePorts(folder);
  const unasked = start(['--config', file, '--data', join(folder, 'data'), '--fresh']);
  assert.equal(unasked.status, 2);
  assert.match(unasked.stderr, /add --yes/);
  const foreign = start(['--config', file, '--data', folder, '--fresh', '--yes']);
  assert.equal(foreign.status, 1);
  assert.match(foreign.stderr, /are not Quadrant's: --fresh does not erase it/);
  assert.ok(existsSync(file));
});
