import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { groupId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { chainEntry, encodeBody, originPosition, type EntryBody, type LogEntry } from './entry.ts';
import { GroupFile, noFold, type Fold } from './group-file.ts';
import { SnapshotSource, type SnapshotEnd, type SnapshotHeader } from './group-snapshot.ts';
import { ledgerFold } from './ledger-fold.ts';
import { GroupReader } from './log-reader.ts';
import { installSteps, type InstallStep } from './snapshot-install.ts';
import { chained, readByHand, sampleLog, temporaryFolder, writeFile } from './testing.ts';
import { WriteQueue, type WriteMeter } from './write-queue.ts';
import type { WriterEvent } from './writer.ts';

const group = groupId('a');
const noOp: EntryBody = { kind: 'no-op', leader: 'n1', term: 1 };

/** An event in short. */
function told(event: WriterEvent): string {
  switch (event.kind) {
    case 'written':
      return `written ${event.durable.index} ${event.applied}`;
    case 'installed':
      return `installed ${event.transfer} ${event.position.index} ${event.applied}`;
    case 'failed':
      return `failed: ${event.reason}`;
    case 'snapshot-refused':
      return `refused ${event.transfer}: ${event.reason}`;
    case 'snapshot-written':
      return `chunk ${event.chunk}`;
    default:
      return event.kind;
  }
}

interface Bench {
  readonly path: string;
  readonly folder: string;
  readonly clock: ManualClock;
  readonly queue: WriteQueue;
  /** What has happened since the last call. */
  readonly came: () => string[];
  readonly submit: (request: { entries?: readonly LogEntry[]; keepThrough?: number; applyThrough?: number }) => void;
}

function start(
  context: TestContext,
  options: {
    readonly fold?: Fold;
    readonly onEvent?: (event: WriterEvent) => void;
    readonly onStep?: (step: InstallStep) => void;
    readonly meter?: WriteMeter;
  } = {},
): Bench {
  const folder = temporaryFolder(context);
  const path = join(folder, 'a.db');
  const clock = new ManualClock();
  const events: WriterEvent[] = [];
  const queue = new WriteQueue(
    clock,
    (event) => {
      events.push(event);
      options.onEvent?.(event);
    },
    options.onStep,
    options.meter,
  );
  queue.add(group, GroupFile.open(path, group, 'test', options.fold ?? noFold));
  context.after(() => {
    queue.close();
  });
  return {
    path,
    folder,
    clock,
    queue,
    came: () => {
      clock.runSoon();
      return events.splice(0).map(told);
    },
    submit: ({ entries = [], keepThrough, applyThrough = 0 }) => {
      queue.submit({ group, entries, keepThrough, applyThrough });
    },
  };
}

test('a shell that holds one file locked holds up that file alone, and nothing is lost of it', async (context) => {
  const { queue, came, submit, clock, path } = start(context, { fold: ledgerFold });
  const other = groupId('b');
  queue.add(other, GroupFile.open(`${path}.b`, other, 'test', ledgerFold));
  const shell = spawn('sqlite3', [path]);
  context.after(() => shell.kill());
  // Its answers wait in a buffer, its complaints do not: it has come as far as the statement that is none.
  shell.stdin.write('BEGIN EXCLUSIVE;\nnothing;\n');
  await once(shell.stderr, 'data');
  submit({ entries: sampleLog(group, 5).slice(0, 3), applyThrough: 3 });
  queue.submit({ group: other, entries: sampleLog(other, 5).slice(0, 2), keepThrough: undefined, applyThrough: 2 });
  queue.tendEdits();
  const during = came();
  for (let at = 0; at < 100; at++) {
    clock.advance(5);
    during.push(...came());
  }
  assert.deepEqual(during, ['written 2 2']);
  shell.stdin.end('COMMIT;\n');
  await once(shell, 'exit');
  clock.advance(5);
  assert.deepEqual(came(), ['written 3 3']);
});

describe('a file that cannot be written', () => {
  /** No file of this fold can have more pages than it has after 50 entries of some size. */
  const small = (pages: number): Fold => ({
    schema: '',
    open(database) {
      database.pragma(`max_page_count = ${pages}`);
      return () => undefined;
    },
  });
  const large = (after: { index: number; term: number; hash: string }, count: number): LogEntry[] => {
    const entries: LogEntry[] = [];
    for (let at = 0; at < count; at++) {
      entries.push(chainEntry(entries.at(-1) ?? after, 1, JSON.stringify({ kind: 'no-op', leader: 'x'.repeat(500) })));
    }
    return entries;
  };

  test('fails the whole write and says so once; the file is as it was', (context) => {
    const counted: string[] = [];
    const meter: WriteMeter = {
      committed: (entries, durationMs) => counted.push(`${entries} in ${durationMs} ms`),
      locked: () => counted.push('locked'),
      failed: () => counted.push('failed'),
    };
    const { path, came, submit } = start(context, { fold: small(40), meter });
    const good = large(originPosition(group), 20);
    submit({ entries: good, applyThrough: 20 });
    assert.deepEqual(came(), ['written 20 20']);
    submit({ entries: large(good.at(-1) ?? originPosition(group), 10) });
    submit({ entries: large(good.at(-1) ?? originPosition(group), 500).slice(10), applyThrough: 520 });
    assert.deepEqual(came(), ['failed: database or disk is full']);
    assert.deepEqual(readByHand(path, 'SELECT max(log_index) FROM log'), [20]);
    assert.deepEqual(readByHand(path, 'SELECT count(*) FROM log'), [20]);
    assert.deepEqual(counted, ['20 in 0 ms', 'failed']);
  });

  test('takes nothing more until it has been opened anew, also what would fit', (context) => {
    const { queue, came, submit } = start(context, { fold: small(40) });
    const good = large(originPosition(group), 20);
    submit({ entries: good });
    submit({ entries: large(good.at(-1) ?? originPosition(group), 500) });
    assert.deepEqual(came(), ['failed: database or disk is full'], 'one transaction');
    submit({ entries: good.slice(0, 1) });
    queue.trim(group, 1);
    queue.finishCheckpoint(group);
    queue.resume(group);
    queue.snapshot({ kind: 'abandon', group, transfer: 't' });
    assert.deepEqual(came(), ['failed: database or disk is full', 'refused t: database or disk is full']);
    const file = queue.reopen(group);
    assert.deepEqual([file.last, file.applied], [originPosition(group), 0]);
    assert.deepEqual(came(), [], 'what waited is dropped');
    submit({ entries: good.slice(0, 1), applyThrough: 1 });
    assert.deepEqual(came(), ['written 1 1']);
  });

  test('stays closed while it cannot be written', (context) => {
    const { queue, came, submit, path } = start(context);
    submit({ entries: chained(group, [noOp]), applyThrough: 1 });
    assert.deepEqual(came(), ['written 1 1']);
    const shell = new Database(path, { timeout: 0 });
    shell.exec('BEGIN IMMEDIATE');
    assert.throws(() => queue.reopen(group), /database is locked/);
    submit({ entries: [] });
    assert.deepEqual(came(), ['failed: the file is not open']);
    shell.close();
    assert.deepEqual([queue.reopen(group).last.index, queue.has(group)], [1, true]);
  });

  test('can be opened as an empty one, which takes its place on disk', (context) => {
    const { queue, came, submit, folder, path } = start(context);
    submit({ entries: chained(group, [noOp, noOp]), applyThrough: 2 });
    came();
    const file = queue.reopen(group, true);
    assert.deepEqual([file.path, file.last.index, file.applied], [join(folder, 'a.g2.db'), 0, 0]);
    assert.equal(existsSync(path), false);
    submit({ entries: chained(group, [noOp]), applyThrough: 1 });
    assert.deepEqual(came(), ['written 1 1']);
  });

  test('is no reason to stop for another group', (context) => {
    const { queue, came, submit, folder } = start(context, { fold: small(12) });
    const other = groupId('b');
    queue.add(other, GroupFile.open(join(folder, 'b.db'), other, 'test', noFold));
    submit({ entries: large(originPosition(group), 100) });
    const [entry] = chained(other, [noOp]);
    assert.ok(entry !== undefined);
    queue.submit({ group: other, entries: [entry], keepThrough: undefined, applyThrough: 1 });
    assert.deepEqual(came(), ['failed: database or disk is full', 'written 1 1']);
  });
});

test('what a listener throws is its own failure, and none of the file', (context) => {
  const broken = new Error('broken invariant');
  const { path, clock, queue, submit } = start(context, {
    onEvent: (event) => {
      if (event.kind === 'written' && event.durable.index === 1) throw broken;
    },
  });
  const [entry] = chained(group, [noOp]);
  assert.ok(entry !== undefined);
  submit({ entries: [entry], applyThrough: 1 });
  assert.throws(
    () => {
      clock.runSoon();
    },
    (error) => error === broken,
  );
  assert.deepEqual(readByHand(path, 'SELECT log_index FROM log'), [1]);
  assert.equal(queue.reopen(group).applied, 1);
});

test("trimming waits for somebody else's lock without taking the processor meanwhile", (context) => {
  const { path, clock, queue, came, submit } = start(context);
  submit({ entries: chained(group, [noOp, noOp, noOp]), applyThrough: 3 });
  assert.deepEqual(came(), ['written 3 3']);
  const shell = new Database(path, { timeout: 0 });
  shell.exec('BEGIN IMMEDIATE');
  queue.trim(group, 2);
  assert.deepEqual(came(), []);
  assert.equal(clock.timers, 1);
  shell.exec('ROLLBACK');
  shell.close();
  clock.advance(5);
  assert.deepEqual(came(), ['trimmed']);
  assert.equal(clock.timers, 0);
});

describe('a snapshot in place of a file', () => {
  const entries = sampleLog(group, 1_000);
  const newest = entries.length;

  interface Snapshot {
    readonly header: SnapshotHeader;
    readonly chunks: readonly Buffer[];
    readonly end: SnapshotEnd;
  }
  function snapshotAt(context: TestContext, applied: number, fold: Fold = ledgerFold): Snapshot {
    const path = join(temporaryFolder(context), 'other.db');
    writeFile(path, group, entries.slice(0, applied), fold);
    const source = SnapshotSource.open(path, group, fold);
    const chunks: Buffer[] = [];
    for (;;) {
      const chunk = source.read(chunks.length);
      assert.ok(chunk !== undefined);
      chunks.push(chunk.bytes);
      if (chunk.end === undefined) continue;
      source.close();
      return { header: source.header, chunks, end: chunk.end };
    }
  }
  function receive(queue: WriteQueue, snapshot: Snapshot, transfer = 't'): void {
    queue.snapshot({ kind: 'begin', group, transfer, header: snapshot.header });
    snapshot.chunks.forEach((bytes, chunk) => {
      queue.snapshot({ kind: 'write', group, transfer, chunk, bytes });
    });
  }
  function install(queue: WriteQueue, snapshot: Snapshot, transfer = 't'): void {
    receive(queue, snapshot, transfer);
    queue.snapshot({ kind: 'install', group, transfer, end: snapshot.end });
  }
  const filesIn = (folder: string): string[] => readdirSync(folder).filter((name) => !/-(wal|shm)$/.test(name));

  test('is told with its position and where it is, after everything that was written before it', (context) => {
    const events: WriterEvent[] = [];
    const { queue, came, submit, folder } = start(context, {
      fold: ledgerFold,
      onEvent: (event) => events.push(event),
    });
    const snapshot = snapshotAt(context, newest);
    submit({ entries: entries.slice(0, 100), applyThrough: 50 });
    install(queue, snapshot);
    assert.deepEqual(came(), [
      'written 100 50',
      'snapshot-begun',
      ...snapshot.chunks.map((_, chunk) => `chunk ${chunk}`),
      `installed t ${newest} ${newest}`,
    ]);
    const event = events.at(-1);
    assert.ok(event?.kind === 'installed');
    assert.deepEqual(event.position, snapshot.header.position);
    assert.deepEqual(filesIn(folder), ['a.g2.db']);
    assert.equal(event.path, join(folder, 'a.g2.db'));
    const reader = new GroupReader(event.path, group);
    assert.deepEqual(
      [reader.last(), reader.base(), reader.first(), reader.applied()],
      [event.position, event.position, newest + 1, newest],
    );
    const next = chainEntry(event.position, 1, encodeBody(noOp));
    submit({ entries: [next], applyThrough: newest + 1 });
    assert.deepEqual(came(), [`written ${newest + 1} ${newest + 1}`]);
    assert.deepEqual(reader.entries(newest + 1, 9), [next]);
    reader.close();
  });

  test('leaves whoever still reads the old file with what it was, and does not suffer from its closing', (context) => {
    const { queue, came, submit, path, folder } = start(context, { fold: ledgerFold });
    submit({ entries: entries.slice(0, 100), applyThrough: 100 });
    came();
    const shell = new Database(path);
    assert.equal(shell.prepare('SELECT count(*) FROM log').pluck().get(), 100);
    install(queue, snapshotAt(context, newest));
    came();
    const next = chainEntry(entries.at(-1) ?? originPosition(group), 1, encodeBody(noOp));
    submit({ entries: [next] });
    came();
    assert.equal(shell.prepare('SELECT count(*) FROM log').pluck().get(), 100);
    shell.exec("UPDATE meta SET value = value WHERE name = 'format'");
    shell.close();
    const current = join(folder, 'a.g2.db');
    assert.ok(existsSync(`${current}-wal`));
    assert.deepEqual(readByHand(current, 'SELECT log_index FROM log'), [newest + 1]);
  });

  test('comes again, a newer one', (context) => {
    const { queue, came, folder } = start(context, { fold: ledgerFold });
    install(queue, snapshotAt(context, 500));
    install(queue, snapshotAt(context, newest), 'u');
    const events = came();
    assert.ok(events.includes('installed t 500 500'));
    assert.equal(events.at(-1), `installed u ${newest} ${newest}`);
    assert.deepEqual(filesIn(folder), ['a.g3.db']);
    queue.close();
    const file = GroupFile.open(join(folder, 'a.db'), group, 'test', ledgerFold);
    assert.deepEqual([file.path, file.applied], [join(folder, 'a.g3.db'), newest]);
    file.close();
  });

  test('lets apply go on that stood at a mark', (context) => {
    const { clock, queue, came, submit } = start(context, { fold: noFold });
    const log = chained(group, [noOp, { kind: 'mark', at: 1, compare: 'c' }, noOp]);
    submit({ entries: log, applyThrough: 3 });
    assert.deepEqual(came(), ['written 3 2', 'mark']);
    install(queue, snapshotAt(context, 400, noFold));
    assert.equal(came().at(-1), 'installed t 400 400');
    assert.equal(clock.timers, 0);
    submit({ entries: entries.slice(400, 402), applyThrough: 402 });
    assert.deepEqual(came(), ['written 402 402']);
  });

  test('takes the place of a log that has another entry there: that one goes, with all after it', (context) => {
    const { queue, came, submit } = start(context, { fold: ledgerFold });
    const other = chained(
      group,
      Array.from({ length: 700 }, () => noOp),
    );
    submit({ entries: other });
    install(queue, snapshotAt(context, 500));
    assert.equal(came().at(-1), 'installed t 500 500');
  });

  describe('is refused, and the file left as it is, when', () => {
    test('the fold is as far as the snapshot or further, at the beginning or by the end', (context) => {
      const { queue, came, submit, folder } = start(context, { fold: ledgerFold });
      const snapshot = snapshotAt(context, 500);
      submit({ entries: entries.slice(0, 500), applyThrough: 500 });
      receive(queue, snapshot, 'late');
      assert.match(came()[1] ?? '', /^refused late: the fold is at 500/);
      const other = start(context, { fold: ledgerFold });
      receive(other.queue, snapshot);
      other.submit({ entries: entries.slice(0, 600), applyThrough: 600 });
      other.queue.snapshot({ kind: 'install', group, transfer: 't', end: snapshot.end });
      assert.match(other.came().at(-1) ?? '', /^refused t: the fold is at 600, the snapshot at 500/);
      for (const each of [folder, other.folder]) assert.deepEqual(filesIn(each), ['a.db']);
    });

    test("the log goes on from the snapshot's position: its tail may have been acknowledged", (context) => {
      const { queue, came, submit, folder } = start(context, { fold: ledgerFold });
      const snapshot = snapshotAt(context, 500);
      receive(queue, snapshot);
      submit({ entries: entries.slice(0, 700), applyThrough: 100 });
      queue.snapshot({ kind: 'install', group, transfer: 't', end: snapshot.end });
      assert.equal(came().at(-1), 'refused t: the log holds entry 500 of the snapshot');
      assert.deepEqual(filesIn(folder), ['a.db']);
      assert.deepEqual(readByHand(join(folder, 'a.db'), 'SELECT max(log_index) FROM log'), [700]);
    });

    test('it is not what was sent, or another one has been begun, or it was given up', (context) => {
      const { queue, came, folder } = start(context, { fold: ledgerFold });
      const snapshot = snapshotAt(context, 500);
      receive(queue, snapshot);
      queue.snapshot({ kind: 'install', group, transfer: 't', end: { ...snapshot.end, sha256: 'other' } });
      assert.match(came().at(-1) ?? '', /^refused t: the chunks are not those/);
      receive(queue, snapshot, 'one');
      receive(queue, snapshot, 'two');
      queue.snapshot({ kind: 'install', group, transfer: 'one', end: snapshot.end });
      assert.equal(came().at(-1), 'refused one: no such snapshot was begun');
      queue.snapshot({ kind: 'abandon', group, transfer: 'one' });
      queue.snapshot({ kind: 'install', group, transfer: 'two', end: snapshot.end });
      assert.deepEqual(came(), ['installed two 500 500']);
      receive(queue, snapshotAt(context, newest), 'three');
      queue.snapshot({ kind: 'abandon', group, transfer: 'three' });
      queue.snapshot({ kind: 'install', group, transfer: 'three', end: snapshot.end });
      assert.equal(came().at(-1), 'refused three: no such snapshot was begun');
      assert.deepEqual(filesIn(folder), ['a.g2.db']);
    });

    test('its own file cannot be written: the group goes on as if there had been none', (context) => {
      const full: Fold = {
        ...ledgerFold,
        derive: () => {
          throw new Error('database or disk is full');
        },
      };
      const { queue, came, submit, folder } = start(context, { fold: full });
      install(queue, snapshotAt(context, 500));
      assert.equal(came().at(-1), 'refused t: database or disk is full');
      assert.deepEqual(filesIn(folder), ['a.db']);
      submit({ entries: entries.slice(0, 10), applyThrough: 10 });
      assert.deepEqual(came(), ['written 10 10']);
    });
  });

  test('is whole, or the old file is, wherever the process dies', (context) => {
    const expected = new Map<InstallStep, 'old' | 'new'>([
      ['written', 'old'],
      ['renamed', 'new'],
      ['folder synced', 'new'],
      ['closed', 'new'],
      ['opened', 'new'],
    ]);
    for (const step of installSteps) {
      const death = new Error(`died: ${step}`);
      const { queue, clock, submit, folder } = start(context, {
        fold: ledgerFold,
        onStep: (reached) => {
          if (reached === step) throw death;
        },
      });
      submit({ entries: entries.slice(0, 300), applyThrough: 200 });
      install(queue, snapshotAt(context, newest));
      assert.throws(
        () => {
          clock.runSoon();
        },
        (error) => error === death,
      );
      const file = GroupFile.open(join(folder, 'a.db'), group, 'test', ledgerFold);
      const found = [file.base.index, file.last.index, file.applied];
      const isNew = expected.get(step) === 'new';
      assert.deepEqual(found, isNew ? [newest, newest, newest] : [0, 300, 200], step);
      assert.deepEqual(filesIn(folder), [isNew ? 'a.g2.db' : 'a.db'], step);
      file.write({ entries: isNew ? [] : entries.slice(300), keepThrough: undefined, applyThrough: newest });
      const count = readByHand(file.path, 'SELECT count(*) FROM card_transaction');
      assert.deepEqual(count, [1_000], step);
      file.close();
    }
  });

  test('that cannot be put in place leaves the file closed to writers, until it is opened as it was', (context) => {
    const { queue, came, submit, folder } = start(context, { fold: ledgerFold });
    submit({ entries: entries.slice(0, 300), applyThrough: 200 });
    const inTheWay = join(folder, 'a.g2.db');
    mkdirSync(inTheWay);
    receive(queue, snapshotAt(context, newest), 't');
    came();
    queue.snapshot({ kind: 'install', group, transfer: 't', end: snapshotAt(context, newest).end });
    submit({ entries: entries.slice(300, 301) });
    assert.match(came().join(), /^failed: EISDIR[^,]*,[^,]*$/);
    rmdirSync(inTheWay);
    const file = queue.reopen(group);
    assert.deepEqual([file.path, file.last.index, file.applied], [join(folder, 'a.db'), 300, 200]);
    assert.deepEqual(filesIn(folder), ['a.db']);
  });

  test('that was interrupted while it was received is begun anew after the restart', (context) => {
    const { queue, came, submit, folder } = start(context, { fold: ledgerFold });
    submit({ entries: entries.slice(0, 300), applyThrough: 200 });
    receive(queue, snapshotAt(context, newest));
    came();
    assert.deepEqual(filesIn(folder).sort(), ['a.db', 'a.db.incoming']);
    // As after a kill: nobody has closed anything.
    const file = GroupFile.open(join(folder, 'a.db'), group, 'test', ledgerFold);
    assert.deepEqual([file.last.index, file.applied], [300, 200]);
    assert.deepEqual(filesIn(folder), ['a.db']);
    file.close();
  });
});
