import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { requireNatsServer, temporaryFolder } from '../cli/cluster/testing.ts';
import { recordedProcesses } from '../cli/cluster/run-record.ts';
import { quadrantCommand, runProgram, until } from './harness.ts';

// Drills that are ended in the middle, as a person does it: what they did is undone. `npm run drills` lets them end.

interface DrillUnderWay {
  readonly folder: string;
  /** Where its cluster, journals and data are. */
  readonly keep: string;
  readonly pid: number;
  readonly ended: Promise<readonly [code: number | null, signal: string | null]>;
  readonly said: () => string;
}

/** A drill whose fault lasts for ever, when its node has been frozen. */
async function freezeForEver(context: TestContext): Promise<DrillUnderWay> {
  requireNatsServer();
  const folder = temporaryFolder(context);
  const keep = join(folder, 'drill');
  const args = ['--rate', '50', '--warm-up', '500ms', '--hold', '1h', '--keep', keep, '--limits', 'safety'];
  const child = spawn(process.execPath, [quadrantCommand, 'drill', 'freeze', 'n1', ...args], {
    cwd: folder,
    env: { ...process.env, QUADRANT_DRILL_STATE: join(folder, 'state') },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  context.after(() => child.kill('SIGKILL'));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  const drill = { folder, keep, pid: child.pid ?? 0, ended, said: () => text };
  await until(`n1 is frozen: ${text}`, () => stateOf(drill, 'n1') === 'T' || undefined, 90_000);
  return drill;
}

/** The operating system's letter for the state of a process of the drill's cluster: T is stopped. */
function stateOf({ keep }: DrillUnderWay, id: string): string | undefined {
  const pid = recordedProcesses(join(keep, 'data')).find((each) => each.id === id)?.pid;
  const file = `/proc/${pid ?? 0}/stat`;
  return existsSync(file) ? /\) ([A-Z]) /.exec(readFileSync(file, 'utf8'))?.[1] : undefined;
}

function drillCommand({ folder }: DrillUnderWay, ...args: readonly string[]): ReturnType<typeof runProgram> {
  const state = `QUADRANT_DRILL_STATE=${join(folder, 'state')}`;
  return runProgram('env', [state, process.execPath, quadrantCommand, 'drill', ...args], folder);
}

test('Ctrl-C in a drill ends everything that it started, stopped processes included; meanwhile another one is refused', async (context) => {
  const drill = await freezeForEver(context);
  const second = await drillCommand(drill, 'kill', 'n2');
  assert.equal(second.code, 1);
  assert.match(second.stderr, /another drill is under way on this machine \(quadrant drill freeze, pid [0-9]+\)/);
  assert.ok(recordedProcesses(join(drill.keep, 'data')).length >= 8);
  process.kill(drill.pid, 'SIGINT');
  assert.deepEqual(await drill.ended, [1, null]);
  assert.match(drill.said(), /Stopped, and everything undone\.\n$/);
  assert.deepEqual(recordedProcesses(join(drill.keep, 'data')), []);
  assert.ok(!existsSync(join(drill.folder, 'state', 'undo.jsonl')));
});

test('what a drill leaves that was killed itself, `drill undo` undoes', async (context) => {
  const drill = await freezeForEver(context);
  process.kill(drill.pid, 'SIGKILL');
  await drill.ended;
  assert.equal(stateOf(drill, 'n1'), 'T');
  const undone = await drillCommand(drill, 'undo');
  assert.deepEqual([undone.code, undone.stdout], [0, 'Undone.\n']);
  assert.deepEqual(recordedProcesses(join(drill.keep, 'data')), []);
  assert.ok(readdirSync(drill.keep).some((name) => name.endsWith('.journal.jsonl')));
  assert.equal((await drillCommand(drill, 'undo')).stdout, 'There is nothing to undo.\n');
});

test('a drill on a running cluster needs to be meant', async (context) => {
  const folder = temporaryFolder(context);
  const refused = await runProgram(process.execPath, [quadrantCommand, 'drill', 'kill', '--data', 'data'], folder);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /on the running cluster of data, not on one of its own: add --yes if that is meant/);
});
