import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';

import { waitFor } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { realClock } from '../../base/real.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { inSession } from './session.ts';
import { UndoJournal } from './undo.ts';

const saysNothing = (line: string): void => {
  assert.fail(line);
};
const neverEnds = (): void => {
  assert.fail('the process would end');
};
const hasCode = (code: string) => (error: unknown) => error instanceof SwitchError && error.code === code;

function open(context: TestContext, folder: string, name = 'kill'): UndoJournal {
  const undo = UndoJournal.open(folder, name, realClock);
  context.after(() => {
    undo.release();
  });
  return undo;
}

/** A process that does nothing, with words on its command line that no other has. */
async function idler(
  context: TestContext,
): Promise<{ readonly pid: number; readonly marks: string[]; readonly ended: Promise<unknown> }> {
  const mark = `mark-of-${context.name.length}-${process.pid}`;
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume(); console.log("up")', mark], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = once(child, 'exit');
  context.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return { pid: child.pid ?? 0, marks: [mark], ended };
}

function stateOf(pid: number): string | undefined {
  return / ([A-Z]) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1];
}

test('two drills at once are refused, and the second says which the first is', (context) => {
  const folder = temporaryFolder(context);
  open(context, folder);
  assert.throws(
    () => UndoJournal.open(folder, 'site', realClock),
    (error) =>
      hasCode('DRILL_RUNNING')(error) &&
      (error as Error).message ===
        `another drill is under way on this machine (quadrant drill kill, pid ${process.pid})`,
  );
});

test('a record is on disk before its act; what is done is forgotten, and an empty journal is no file', (context) => {
  const folder = temporaryFolder(context);
  const undo = open(context, folder);
  const file = join(folder, 'undo.jsonl');
  const first = undo.record({ kind: 'namespace', name: 'quadrant-n1' });
  const second = undo.record({ kind: 'mount', folder: '/nowhere' });
  assert.match(readFileSync(file, 'utf8'), /quadrant-n1.*\n.*\/nowhere/);
  undo.done(first);
  undo.release();
  // A drill that was killed while it wrote.
  appendFileSync(file, '{"at":3,"record":{"kind":"mou');
  const next = open(context, folder);
  assert.deepEqual(next.pending, [{ kind: 'mount', folder: '/nowhere' }]);
  next.done(second);
  assert.ok(!existsSync(file));
});

test('what has been undone by the drill itself is forgotten by what it was about', (context) => {
  const undo = open(context, temporaryFolder(context));
  const of = (node: string) => ({ kind: 'undrain', configFile: 'nodes.yaml', dataFolder: 'data', node }) as const;
  undo.record(of('n1'));
  undo.record(of('n2'));
  undo.doneWhere((record) => record.kind === 'undrain' && record.node === 'n1');
  assert.deepEqual(undo.pending, [of('n2')]);
});

test('nothing new is done once undoing has begun', (context) => {
  const undo = open(context, temporaryFolder(context));
  let told = 0;
  undo.atClose(() => {
    told += 1;
  });
  undo.close();
  assert.equal(told, 1);
  assert.throws(() => undo.record({ kind: 'link', name: 'x' }), hasCode('DRILL_REFUSED'));
});

test('the next drill lets a stopped process run on and ends a process of one that was killed', async (context) => {
  const stateFolder = temporaryFolder(context);
  const [stopped, helper] = [await idler(context), await idler(context)];
  const killed = UndoJournal.open(stateFolder, 'freeze', realClock);
  killed.record({ kind: 'continue', id: 'n1', pid: stopped.pid, marks: stopped.marks });
  killed.record({ kind: 'process', what: 'the helper', pid: helper.pid, marks: helper.marks });
  process.kill(stopped.pid, 'SIGSTOP');
  killed.release();
  const notes: string[] = [];
  const session = {
    stateFolder,
    name: 'kill',
    clock: realClock,
    note: (line: string) => notes.push(line),
    exit: neverEnds,
  };
  const seen = await inSession(session, (undo) => Promise.resolve(undo.pending.length));
  assert.equal(seen, 0);
  assert.deepEqual(notes, ['An earlier drill was killed. Undoing the stop of n1, the helper ...']);
  await helper.ended;
  await waitFor(realClock, () => stateOf(stopped.pid) !== 'T' || undefined, {
    timeoutMs: 5_000,
    onTimeout: () => new Error('it is still stopped'),
  });
});

test('a process that has another command line by now is left alone', async (context) => {
  const undo = open(context, temporaryFolder(context));
  const other = await idler(context);
  undo.record({ kind: 'process', what: 'x', pid: other.pid, marks: ['other words'] });
  assert.ok(await undo.undoAll(saysNothing));
  process.kill(other.pid, 0);
  assert.deepEqual(undo.pending, []);
});

test('what fails is undone as well, and the lock is free afterwards', async (context) => {
  const stateFolder = temporaryFolder(context);
  const helper = await idler(context);
  const session = { stateFolder, name: 'kill', clock: realClock, note: () => undefined, exit: neverEnds };
  await assert.rejects(
    inSession(session, (undo) => {
      undo.record({ kind: 'process', what: 'the helper', pid: helper.pid, marks: helper.marks });
      return Promise.reject(new Error('the cluster takes no load'));
    }),
    /takes no load/,
  );
  await helper.ended;
  open(context, stateFolder);
});
