import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { SwitchError } from '../base/errors.ts';
import { groupId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { checkpoint } from './checkpoint.ts';
import { chainEntry, encodeBody, originPosition, type EntryBody, type LogEntry, type LogPosition } from './entry.ts';
import { GroupFile, noFold, type Fold } from './group-file.ts';
import { GroupReader } from './log-reader.ts';
import { WriteQueue } from './write-queue.ts';
import type { WriterEvent } from './writer.ts';

const group = groupId('a');

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'quadrant-store-'));
  t.after(() => {
    rmSync(path, { recursive: true });
  });
  return path;
}

/** A fold that writes down what it applies; the text `fail` in an entry makes it throw. */
const diary: Fold = {
  schema: 'CREATE TABLE IF NOT EXISTS diary (log_index INTEGER PRIMARY KEY, term INTEGER, body TEXT) STRICT;',
  open(database) {
    const insert = database.prepare('INSERT INTO diary VALUES (?, ?, ?)');
    return (index, term, body) => {
      const text = encodeBody(body);
      if (text.includes('fail')) throw new Error('this entry cannot be applied');
      insert.run(index, term, text);
    };
  },
};

const body = (name: string): EntryBody => ({ kind: 'no-op', leader: name, term: 1 });
const mark = (name: string): EntryBody => ({ kind: 'mark', at: 1, compare: name });

function chain(after: LogPosition, term: number, ...bodies: EntryBody[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const each of bodies) entries.push(chainEntry(entries.at(-1) ?? after, term, encodeBody(each)));
  return entries;
}

const origin = originPosition(group);
const five = chain(origin, 1, ...['1', '2', '3', '4', '5'].map(body));
const at = (index: number): LogEntry => {
  const entry = five[index - 1];
  assert.ok(entry !== undefined);
  return entry;
};

function open(
  path: string,
  options: { readonly cluster?: string; readonly of?: string; readonly fold?: Fold } = {},
): GroupFile {
  const { cluster = 'quadrant', of = 'a', fold = diary } = options;
  return GroupFile.open(join(path, 'group.db'), groupId(of), cluster, fold);
}

/** What an observer on another connection sees: the log's bodies and the diary. */
function seen(path: string): { log: number[]; applied: number; diary: number[] } {
  const reader = new GroupReader(join(path, 'group.db'), group);
  const log = reader.entries(1, 1000).map(({ index }) => index);
  const rows = reader.database.prepare<[], { log_index: number }>('SELECT log_index FROM diary ORDER BY 1').all();
  const result = { log, applied: reader.applied(), diary: rows.map(({ log_index }) => log_index) };
  reader.close();
  return result;
}

describe("a group's file", () => {
  test("begins at the group's origin with nothing applied", (t) => {
    const path = folder(t);
    const file = open(path);
    assert.deepEqual(file.last, origin);
    assert.equal(file.applied, 0);
    file.close();
  });
  test('appends and applies in one step, and applies no further than it is told', (t) => {
    const path = folder(t);
    const file = open(path);
    const outcome = file.write({ entries: five.slice(0, 3), keepThrough: undefined, applyThrough: 2 });
    assert.equal(outcome.durable.hash, at(3).hash);
    assert.equal(outcome.applied, 2);
    assert.deepEqual(seen(path), { log: [1, 2, 3], applied: 2, diary: [1, 2] });
    file.write({ entries: [], keepThrough: undefined, applyThrough: 3 });
    assert.deepEqual(seen(path).diary, [1, 2, 3]);
    file.close();
  });
  test('applies nothing beyond its log, however far the commit is', (t) => {
    const path = folder(t);
    const file = open(path);
    assert.equal(file.write({ entries: five.slice(0, 2), keepThrough: undefined, applyThrough: 99 }).applied, 2);
    file.close();
  });
  test('changes nothing at all when one entry of a batch cannot be applied', (t) => {
    const path = folder(t);
    const file = open(path);
    file.write({ entries: five.slice(0, 2), keepThrough: undefined, applyThrough: 1 });
    const bad = chain(at(2), 1, body('fail'));
    assert.throws(() => file.write({ entries: bad, keepThrough: undefined, applyThrough: 3 }), /cannot be applied/);
    assert.deepEqual(seen(path), { log: [1, 2], applied: 1, diary: [1] });
    assert.deepEqual([file.last.index, file.applied], [2, 1]);
    const outcome = file.write({ entries: five.slice(2), keepThrough: undefined, applyThrough: 5 });
    assert.deepEqual([outcome.durable.index, outcome.applied], [5, 5]);
    assert.deepEqual(seen(path).diary, [1, 2, 3, 4, 5]);
    file.close();
  });
  test('refuses a gap and an entry that it has, with nothing changed', (t) => {
    const path = folder(t);
    const file = open(path);
    file.write({ entries: five.slice(0, 2), keepThrough: undefined, applyThrough: 0 });
    for (const entries of [[at(4)], [at(2)], [at(3), at(5)]]) {
      assert.throws(() => file.write({ entries, keepThrough: undefined, applyThrough: 0 }), /broken invariant/);
    }
    assert.deepEqual(seen(path).log, [1, 2]);
    file.close();
  });
  test('cuts what was never committed and follows the new branch', (t) => {
    const path = folder(t);
    const file = open(path);
    file.write({ entries: five, keepThrough: undefined, applyThrough: 2 });
    const branch = chain(at(3), 2, body('4 of term 2'));
    const outcome = file.write({ entries: branch, keepThrough: 3, applyThrough: 4 });
    assert.equal(outcome.durable.hash, branch[0]?.hash);
    assert.deepEqual(seen(path), { log: [1, 2, 3, 4], applied: 4, diary: [1, 2, 3, 4] });
    const reader = new GroupReader(join(path, 'group.db'), group);
    assert.deepEqual(reader.entries(4, 9), branch);
    assert.match(
      String(reader.database.prepare('SELECT body FROM diary WHERE log_index = 4').pluck().get()),
      /of term 2/,
    );
    reader.close();
    file.close();
  });
  test('never cuts below what it has applied', (t) => {
    const path = folder(t);
    const file = open(path);
    file.write({ entries: five, keepThrough: undefined, applyThrough: 3 });
    assert.throws(() => file.write({ entries: [], keepThrough: 2, applyThrough: 0 }), /broken invariant/);
    assert.deepEqual(seen(path).log, [1, 2, 3, 4, 5]);
    file.close();
  });
  test('is the same after it was opened again, and goes on', (t) => {
    const path = folder(t);
    let file = open(path);
    file.write({ entries: five.slice(0, 4), keepThrough: undefined, applyThrough: 2 });
    file.close();
    file = open(path);
    assert.deepEqual([file.last.hash, file.applied], [at(4).hash, 2]);
    file.write({ entries: five.slice(4), keepThrough: undefined, applyThrough: 5 });
    assert.deepEqual(seen(path), { log: [1, 2, 3, 4, 5], applied: 5, diary: [1, 2, 3, 4, 5] });
    file.close();
  });
  test('is never seen half written by a second opening while the first is still there', (t) => {
    const path = folder(t);
    const crashed = open(path);
    crashed.write({ entries: five.slice(0, 3), keepThrough: undefined, applyThrough: 3 });
    // As after a kill: nobody has closed the first one.
    const file = open(path);
    assert.deepEqual([file.last.hash, file.applied], [at(3).hash, 3]);
    file.close();
    crashed.close();
  });
  for (const [what, options] of [
    ['another cluster', { cluster: 'other' }],
    ['another group', { of: 'b' }],
  ] as const) {
    test(`of ${what} is refused by name, and left as it is`, (t) => {
      const path = folder(t);
      const file = open(path);
      file.write({ entries: five.slice(0, 2), keepThrough: undefined, applyThrough: 2 });
      file.close();
      assert.throws(
        () => open(path, options),
        (error) => error instanceof SwitchError && error.code === 'DATA_FOLDER_FOREIGN',
      );
      assert.deepEqual(seen(path), { log: [1, 2], applied: 2, diary: [1, 2] });
    });
  }
  test('stops applying right after a mark, appends on, and applies on when asked again', (t) => {
    const path = folder(t);
    const file = open(path);
    const entries = chain(origin, 1, body('1'), mark('compare'), body('3'), mark('second'), body('5'));
    const first = file.write({ entries, keepThrough: undefined, applyThrough: 5 });
    assert.deepEqual([first.durable.index, first.applied, first.mark], [5, 2, { compare: 'compare', index: 2 }]);
    const second = file.write({ entries: [], keepThrough: undefined, applyThrough: 5 });
    assert.deepEqual([second.applied, second.mark], [4, { compare: 'second', index: 4 }]);
    const third = file.write({ entries: [], keepThrough: undefined, applyThrough: 5 });
    assert.deepEqual([third.applied, third.mark], [5, undefined]);
    file.close();
  });
  test('of a witness keeps the log and no fold', (t) => {
    const path = folder(t);
    const file = open(path, { fold: noFold });
    assert.equal(file.write({ entries: five, keepThrough: undefined, applyThrough: 5 }).applied, 5);
    file.close();
  });
});

test('a reader sees positions and entries as they were written, and only what is committed', (t) => {
  const path = folder(t);
  const file = open(path);
  file.write({ entries: five, keepThrough: undefined, applyThrough: 1 });
  const reader = new GroupReader(join(path, 'group.db'), group);
  assert.deepEqual(reader.entries(2, 2), five.slice(1, 3));
  assert.deepEqual(reader.entries(6, 2), []);
  assert.deepEqual(reader.last(), { index: 5, term: 1, hash: at(5).hash });
  assert.deepEqual(reader.position(3), { index: 3, term: 1, hash: at(3).hash });
  assert.deepEqual(reader.position(0), origin);
  assert.equal(reader.position(6), undefined);
  assert.equal(reader.applied(), 1);
  assert.throws(() => reader.database.exec('DELETE FROM log'), /readonly/);
  reader.close();
  file.close();
});

test("an empty file's reader stands at the origin", (t) => {
  const path = folder(t);
  const file = open(path);
  const reader = new GroupReader(join(path, 'group.db'), group);
  assert.deepEqual([reader.last(), reader.applied(), reader.entries(1, 9)], [origin, 0, []]);
  reader.close();
  file.close();
});

test('a checkpoint beside the writer loses nothing, with a reader in its way or not', (t) => {
  const path = folder(t);
  const file = open(path);
  file.write({ entries: five.slice(0, 2), keepThrough: undefined, applyThrough: 2 });
  const reader = new GroupReader(join(path, 'group.db'), group);
  reader.database.exec('BEGIN');
  assert.equal(reader.last().index, 2);
  file.write({ entries: five.slice(2, 4), keepThrough: undefined, applyThrough: 4 });
  checkpoint(join(path, 'group.db'));
  assert.equal(reader.last().index, 2, "the reader's snapshot stays");
  reader.database.exec('COMMIT');
  assert.equal(reader.last().index, 4);
  checkpoint(join(path, 'group.db'));
  file.finishCheckpoint();
  file.write({ entries: five.slice(4), keepThrough: undefined, applyThrough: 5 });
  reader.close();
  file.close();
  assert.deepEqual(seen(path), { log: [1, 2, 3, 4, 5], applied: 5, diary: [1, 2, 3, 4, 5] });
});

describe('a write queue', () => {
  interface Queue {
    readonly clock: ManualClock;
    readonly queue: WriteQueue;
    readonly file: GroupFile;
    readonly events: WriterEvent[];
    readonly submit: (request: { entries?: readonly LogEntry[]; keepThrough?: number; applyThrough?: number }) => void;
    readonly came: () => string[];
  }
  function start(t: TestContext): Queue & { path: string } {
    const path = folder(t);
    const clock = new ManualClock();
    const events: WriterEvent[] = [];
    const queue = new WriteQueue(clock, (event) => events.push(event));
    const file = open(path);
    queue.add(group, file);
    t.after(() => {
      queue.close();
    });
    return {
      path,
      clock,
      queue,
      file,
      events,
      submit: ({ entries = [], keepThrough, applyThrough = 0 }) => {
        queue.submit({ group, entries, keepThrough, applyThrough });
      },
      came: () =>
        events
          .splice(0)
          .map((event) =>
            event.kind === 'written'
              ? `written ${event.durable.index} ${event.applied}`
              : event.kind === 'mark'
                ? `mark ${event.compare} ${event.index}`
                : 'failed',
          ),
    };
  }

  test('writes what came in one turn as one', (t) => {
    const { clock, submit, came } = start(t);
    submit({ entries: five.slice(0, 1) });
    submit({ entries: five.slice(1, 3), applyThrough: 1 });
    submit({ entries: five.slice(3), applyThrough: 4 });
    assert.deepEqual(came(), [], 'nothing before the turn ends');
    clock.runSoon();
    assert.deepEqual(came(), ['written 5 4']);
    clock.runSoon();
    assert.deepEqual(came(), []);
  });
  test('applies on a commit that comes without entries, and remembers one that comes before them', (t) => {
    const { clock, submit, came } = start(t);
    submit({ entries: five.slice(0, 2), applyThrough: 5 });
    clock.runSoon();
    assert.deepEqual(came(), ['written 2 2']);
    submit({ entries: five.slice(2, 4) });
    clock.runSoon();
    assert.deepEqual(came(), ['written 4 4']);
    submit({ entries: five.slice(4), applyThrough: 1 });
    clock.runSoon();
    assert.deepEqual(came(), ['written 5 5'], 'an older commit takes nothing back');
  });
  const branch = chain(at(2), 2, ...['3 of 2', '4 of 2'].map(body));
  const again = chain(at(1), 3, body('2 of 3'));
  for (const [name, requests, expected] of [
    [
      'a cut removes what came before it in the same turn',
      [{ entries: five }, { keepThrough: 2, entries: branch }],
      branch[1],
    ],
    [
      'the lowest of two cuts holds',
      [{ entries: five }, { keepThrough: 2, entries: branch }, { keepThrough: 1, entries: again }],
      again[0],
    ],
    [
      'a cut above what is there removes nothing',
      [{ entries: five.slice(0, 2) }, { keepThrough: 9, entries: branch }],
      branch[1],
    ],
    ['a cut alone cuts', [{ entries: five }, { keepThrough: 2 }], at(2)],
  ] as const) {
    test(`${name}, as if each had been written by itself`, (t) => {
      const merged = start(t);
      for (const request of requests) merged.submit(request);
      merged.clock.runSoon();
      const single = start(t);
      for (const request of requests) {
        single.submit(request);
        single.clock.runSoon();
      }
      assert.equal(merged.file.last.hash, expected?.hash);
      assert.equal(single.file.last.hash, expected?.hash);
      const read = ({ path }: { path: string }): LogEntry[] => {
        const reader = new GroupReader(join(path, 'group.db'), group);
        const entries = reader.entries(1, 99);
        reader.close();
        return entries;
      };
      assert.deepEqual(read(merged), read(single));
    });
  }
  const marked = chain(origin, 1, body('1'), mark('c'), body('3'), body('4'));
  test('pauses apply at a mark, appends on, and applies on when resumed', (t) => {
    const { clock, queue, submit, came } = start(t);
    submit({ entries: marked.slice(0, 3), applyThrough: 3 });
    clock.runSoon();
    assert.deepEqual(came(), ['written 3 2', 'mark c 2']);
    submit({ entries: marked.slice(3), applyThrough: 4 });
    clock.runSoon();
    assert.deepEqual(came(), ['written 4 2']);
    queue.resume(group);
    clock.runSoon();
    assert.deepEqual(came(), ['written 4 4']);
    clock.advance(10_000);
    assert.deepEqual(came(), []);
    assert.equal(clock.timers, 0);
  });
  test('goes on by itself when the reader does not come', (t) => {
    const { clock, submit, came } = start(t);
    submit({ entries: marked, applyThrough: 4 });
    clock.advance(1999);
    assert.deepEqual(came(), ['written 4 2', 'mark c 2']);
    clock.advance(1);
    assert.deepEqual(came(), ['written 4 4']);
  });
  test('ignores a resume for nothing and a group that it does not have', (t) => {
    const { clock, queue, came } = start(t);
    queue.resume(group);
    queue.resume(groupId('b'));
    queue.submit({ group: groupId('b'), entries: five, keepThrough: undefined, applyThrough: 0 });
    clock.runSoon();
    assert.deepEqual(came(), []);
  });
  test("waits for somebody else's lock, tries again in order, and loses nothing", (t) => {
    const { path, clock, submit, came } = start(t);
    const shell = new Database(join(path, 'group.db'), { timeout: 0 });
    shell.exec('BEGIN IMMEDIATE');
    submit({ entries: five.slice(0, 2), applyThrough: 1 });
    clock.runSoon();
    submit({ entries: five.slice(2), applyThrough: 5 });
    clock.advance(50);
    assert.deepEqual(came(), []);
    shell.exec('ROLLBACK');
    shell.close();
    clock.advance(5);
    assert.deepEqual(came(), ['written 5 5']);
    clock.advance(50);
    assert.deepEqual(came(), []);
  });
  test('reports a failure once for each write, without card data', (t) => {
    const { clock, submit, events } = start(t);
    submit({ entries: chain(origin, 1, body('fail')), applyThrough: 1 });
    clock.runSoon();
    assert.deepEqual(events, [{ kind: 'failed', group, reason: 'this entry cannot be applied', cause: 'damage' }]);
  });
  test('keeps the groups apart', (t) => {
    const { clock, queue, submit, events } = start(t);
    const other = GroupFile.open(join(folder(t), 'b.db'), groupId('b'), 'quadrant', diary);
    queue.add(groupId('b'), other);
    submit({ entries: chain(origin, 1, body('fail')), applyThrough: 1 });
    const entries = chain(originPosition(groupId('b')), 1, body('1'));
    queue.submit({ group: groupId('b'), entries, keepThrough: undefined, applyThrough: 1 });
    clock.runSoon();
    assert.deepEqual(
      events.map((event) => `${event.group} ${event.kind}`),
      ['a failed', 'b written'],
    );
  });
});
