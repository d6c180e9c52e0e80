/*
 * Over 500 lines because sender, receiver and what may happen between them are driven by one set of helpers.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { groupId, nodeId, type NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { seededRandom, type Random } from '../base/random.ts';
import type { LogEntry } from '../store/entry.ts';
import { GroupFile, noFold, type Fold } from '../store/group-file.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { currentGroupFile } from '../store/snapshot-install.ts';
import { SnapshotShelf } from '../store/snapshot-shelf.ts';
import { readByHand, sampleLog, temporaryFolder } from '../store/testing.ts';
import { WriteQueue } from '../store/write-queue.ts';
import type { SnapshotOutcome } from './snapshot-receiver.ts';
import { SnapshotTransfers } from './snapshot-transfer.ts';
import { decodeSnapshotMessage, encodeSnapshotMessage, type SnapshotMessage } from './snapshot-wire.ts';

const group = groupId('a');
const [n1, n2, n3, w1] = [nodeId('n1'), nodeId('n2'), nodeId('n3'), nodeId('w1')];
const entries = sampleLog(group, 4_000);

interface Faults {
  readonly lostPercent: number;
  readonly doubledPercent: number;
  readonly lateMs: number;
}

/** Processes with real files, a bus that loses, doubles and delays what they send, one clock, one seed. */
class Cluster {
  readonly clock = new ManualClock();
  readonly random: Random;
  readonly processes = new Map<NodeId, Process>();
  readonly trace: string[] = [];
  faults: Faults = { lostPercent: 0, doubledPercent: 0, lateMs: 0 };
  /** What these processes send, or are sent, is lost. */
  readonly cut = new Set<NodeId>();
  readonly folder: string;
  readonly context: TestContext;

  constructor(context: TestContext, seed = 1) {
    this.context = context;
    this.random = seededRandom(seed);
    this.folder = temporaryFolder(context);
  }

  /** Starts a process, with so much of the log in its file when it is a new one. */
  start(id: NodeId, applied = 0, options: ProcessOptions = {}): Process {
    const process = new Process(this, id, applied, options);
    this.processes.set(id, process);
    this.context.after(() => {
      process.stop();
    });
    return process;
  }

  send(from: NodeId, to: NodeId, datagram: Buffer): void {
    const message = decodeSnapshotMessage(datagram);
    this.trace.push(
      `${this.clock.monotonicMs()} ${from} ${to} ${message === undefined ? 'damaged' : inShort(message)}`,
    );
    const happens = (percent: number): boolean => this.random.below(100) < percent;
    const copies = 1 + Number(happens(this.faults.doubledPercent));
    for (let copy = 0; copy < copies; copy++) {
      if (happens(this.faults.lostPercent)) continue;
      this.clock.after(1 + this.random.below(1 + this.faults.lateMs), () => {
        if (this.cut.has(from) || this.cut.has(to)) return;
        this.processes.get(to)?.transfers.receive(from, datagram);
      });
    }
  }

  /** Time passes until the condition holds; how long it took. */
  until(condition: () => boolean, limitMs = 120_000): number {
    const startMs = this.clock.monotonicMs();
    while (!condition()) {
      assert.ok(this.clock.monotonicMs() - startMs < limitMs, 'it did not come to that');
      this.clock.advance(10);
    }
    return this.clock.monotonicMs() - startMs;
  }
}

function inShort(message: SnapshotMessage): string {
  if (message.kind === 'want') return `want ${message.chunks.join()}`;
  return message.kind === 'chunk' ? `chunk ${message.chunk}${message.end === null ? '' : ' end'}` : message.kind;
}

interface ProcessOptions {
  readonly fold?: Fold;
  readonly bytesPerSecond?: number;
  readonly mayInstall?: () => boolean;
}

class Process {
  readonly id: NodeId;
  readonly transfers: SnapshotTransfers;
  readonly shelf: SnapshotShelf;
  readonly outcomes: SnapshotOutcome[] = [];
  readonly #queue: WriteQueue;
  readonly #first: string;
  /** The writer does nothing before this time. */
  stalledUntilMs = 0;
  #running = true;

  constructor(cluster: Cluster, id: NodeId, applied: number, options: ProcessOptions) {
    const { clock, random } = cluster;
    const { fold = ledgerFold, bytesPerSecond, mayInstall = () => true } = options;
    this.id = id;
    this.#first = join(cluster.folder, `${id}.db`);
    const file = GroupFile.open(this.#first, group, 'test', fold);
    if (file.applied < applied) {
      file.write({ entries: entries.slice(file.last.index, applied), keepThrough: undefined, applyThrough: applied });
    }
    this.#queue = new WriteQueue(clock, (event) => {
      if (this.#running) this.transfers.receiver.onWriter(event);
    });
    this.#queue.add(group, file);
    this.shelf = new SnapshotShelf({ clock, fileOf: () => this.path, shapeOf: () => ledgerFold });
    this.transfers = new SnapshotTransfers({
      clock,
      random,
      reading: this.shelf,
      holding: fold === noFold ? 'log' : 'log-and-fold',
      writer: {
        snapshot: (request) => {
          clock.after(Math.max(1, this.stalledUntilMs - clock.monotonicMs()), () => {
            this.#queue.snapshot(request);
          });
        },
      },
      send: (to, datagram) => {
        if (this.#running) cluster.send(id, to, datagram);
      },
      mayInstall,
      onOutcome: (_, outcome) => this.outcomes.push(outcome),
      ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
    });
  }

  get path(): string {
    return currentGroupFile(this.#first);
  }

  get applied(): number {
    return Number(readByHand(this.path, "SELECT value FROM meta WHERE name = 'applied_index'")[0]);
  }

  get installed(): boolean {
    return this.outcomes.at(-1)?.kind === 'installed';
  }

  /** How each attempt ended so far. */
  get ended(): string[] {
    return this.outcomes.flatMap((outcome) =>
      outcome.kind === 'begun' ? [] : [outcome.kind === 'installed' ? 'installed' : outcome.reason],
    );
  }

  write(more: readonly LogEntry[], applyThrough: number): void {
    this.#queue.submit({ group, entries: more, keepThrough: undefined, applyThrough });
  }

  trim(through: number): void {
    this.#queue.trim(group, through);
  }

  /** As a kill: nothing is said to anyone, nothing more is done. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    this.transfers.stop();
    this.shelf.closeAll();
    this.#queue.close();
  }
}

const balances = (path: string): unknown[] =>
  readByHand(path, 'SELECT concat_ws(char(9), card_id, held_minor, changed_at_index) FROM card ORDER BY 1');

describe('a snapshot', () => {
  test('arrives whole over a bus that loses, doubles and delays, and leaves nothing open behind it', (context) => {
    for (let seed = 1; seed <= 8; seed++) {
      const cluster = new Cluster(context, seed);
      const sender = cluster.start(n1, 3_000);
      const receiver = cluster.start(n2, 100);
      cluster.faults = { lostPercent: 25, doubledPercent: 25, lateMs: 700 };
      cluster.until(() => {
        if (!receiver.installed) receiver.transfers.receiver.fetch(group, n1);
        return receiver.installed;
      });
      assert.equal(receiver.applied, 3_000, `seed ${seed}`);
      assert.deepEqual(balances(receiver.path), balances(sender.path));
      cluster.clock.advance(60_000);
      assert.equal(sender.shelf.size, 0);
      assert.equal(cluster.clock.timers, 0);
      assert.deepEqual(receiver.transfers.receiver.progress(), []);
    }
  });

  test('takes the same course with the same seed', (context) => {
    const course = (): string[] => {
      const cluster = new Cluster(context, 7);
      cluster.start(n1, 2_000);
      const receiver = cluster.start(n2);
      cluster.faults = { lostPercent: 30, doubledPercent: 10, lateMs: 300 };
      receiver.transfers.receiver.fetch(group, n1);
      cluster.until(() => receiver.ended.length > 0);
      return cluster.trace;
    };
    assert.deepEqual(course(), course());
  });

  test('is asked for by number, a few chunks ahead of what has been written, each once when nothing is lost', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 4_000);
    const receiver = cluster.start(n2);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receiver.installed);
    const said = cluster.trace.map((line) => line.split(' ').slice(3).join(' '));
    const chunks = said.filter((line) => line.startsWith('chunk'));
    assert.ok(chunks.length >= 5);
    assert.deepEqual(
      chunks,
      chunks.map((_, at) => `chunk ${at}${at === chunks.length - 1 ? ' end' : ''}`),
    );
    assert.deepEqual(said.slice(0, 3), ['begin', 'header', 'want 0,1,2,3']);
    assert.equal(said.at(-1), 'done');
    const asked = said.flatMap((line) => /^want (.*)$/.exec(line)?.[1]?.split(',') ?? []);
    assert.equal(new Set(asked).size, asked.length);
  });

  test('is sent no faster than it may be', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 4_000, { bytesPerSecond: 100_000 });
    const receiver = cluster.start(n2);
    receiver.transfers.receiver.fetch(group, n1);
    const tookMs = cluster.until(() => receiver.installed);
    const chunks = cluster.trace.filter((line) => line.includes(' chunk ')).length;
    assert.ok(tookMs > (chunks - 2) * 1_900, `${chunks} chunks in ${tookMs} ms`);
  });

  test('says how much of it there is', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 4_000, { bytesPerSecond: 200_000 });
    const receiver = cluster.start(n2);
    const { receiver: fetching } = receiver.transfers;
    fetching.fetch(group, n1);
    const seen: number[] = [];
    cluster.until(() => {
      seen.push(fetching.progress()[0]?.percent ?? 100);
      return receiver.installed;
    });
    assert.deepEqual(
      seen,
      [...seen].sort((one, other) => one - other),
    );
    assert.ok(new Set(seen).size > 4);
  });

  test('is of the position at which it was begun, whatever is written and trimmed meanwhile; then comes a newer one', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 300_000 });
    const receiver = cluster.start(n2);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => (receiver.transfers.receiver.progress()[0]?.percent ?? 0) > 30);
    assert.equal(sender.transfers.sender.heldIndex(group), 3_000, 'a trim leaves what comes after it');
    sender.write(entries.slice(3_000), entries.length);
    sender.trim(entries.length);
    cluster.until(() => receiver.installed);
    assert.equal(receiver.applied, 3_000);
    assert.equal(sender.transfers.sender.heldIndex(group), undefined);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receiver.ended.length === 2);
    assert.equal(receiver.applied, entries.length);
    assert.deepEqual(balances(receiver.path), balances(sender.path));
  });

  test('is for a witness the position alone', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 3_000);
    const witness = cluster.start(w1, 100, { fold: noFold });
    witness.transfers.receiver.fetch(group, n1);
    cluster.until(() => witness.installed);
    assert.equal(witness.applied, 3_000);
    assert.deepEqual(
      cluster.trace.filter((line) => line.includes(' chunk ')).map((line) => line.split(' ').slice(3).join(' ')),
      ['chunk 0 end'],
    );
  });

  test('comes to several receivers at once, in turn', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 3_000, { bytesPerSecond: 1_000_000 });
    const receivers = [cluster.start(n2), cluster.start(n3)];
    for (const receiver of receivers) receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receivers.every(({ installed }) => installed));
    const chunks = cluster.trace.filter((line) => line.includes(' chunk ')).map((line) => line.split(' ')[2]);
    assert.equal(new Set(chunks.slice(0, 2)).size, 2);
  });
});

describe('when a sender', () => {
  const halfway = (receiver: Process) => () => (receiver.transfers.receiver.progress()[0]?.percent ?? 0) > 40;

  test('dies half-way, another one is asked as soon as it is known, and the group is as it was until then', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    cluster.start(n3, 3_500);
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(halfway(receiver));
    sender.stop();
    cluster.processes.delete(n1);
    const tookMs = cluster.until(() => {
      receiver.transfers.receiver.fetch(group, n3);
      return receiver.ended.length > 0;
    });
    assert.ok(tookMs >= 2_500 && tookMs < 5_000, `${tookMs} ms`);
    assert.equal(receiver.applied, 100);
    cluster.until(() => receiver.installed);
    assert.equal(receiver.applied, 3_500);
  });

  test('dies half-way and nobody else is there, the receiver gives up after a while and throws away what it has', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(halfway(receiver));
    sender.stop();
    cluster.processes.delete(n1);
    const tookMs = cluster.until(() => receiver.ended.length > 0);
    assert.ok(tookMs >= 19_000 && tookMs < 22_000, `${tookMs} ms`);
    assert.deepEqual(receiver.ended, ['it does not answer']);
    cluster.clock.advance(100);
    assert.equal(cluster.clock.timers, 0);
    assert.equal(receiver.applied, 100);
  });

  test('restarts, it does not know the transfer any more, and the receiver begins anew', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(halfway(receiver));
    sender.stop();
    const again = cluster.start(n1);
    again.write(entries.slice(3_000, 3_100), 3_100);
    cluster.until(() => {
      if (!receiver.installed) receiver.transfers.receiver.fetch(group, n1);
      return receiver.installed;
    });
    assert.deepEqual(receiver.ended, ['it has given the snapshot up', 'installed']);
    assert.equal(receiver.applied, 3_100);
  });

  test('is cut off for a while, the transfer goes on where it was', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(halfway(receiver));
    cluster.cut.add(n1);
    cluster.clock.advance(15_000);
    cluster.cut.clear();
    cluster.until(() => receiver.ended.length > 0);
    assert.deepEqual(receiver.ended, ['installed']);
    assert.equal(cluster.trace.filter((line) => line.endsWith('header')).length, 1);
  });

  test('lets its file go because it pins too much, the receiver begins anew', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(halfway(receiver));
    sender.shelf.closeAll();
    cluster.until(() => {
      if (!receiver.installed) receiver.transfers.receiver.fetch(group, n1);
      return receiver.installed;
    });
    assert.deepEqual(receiver.ended, ['it has given the snapshot up', 'installed']);
  });

  test('has no such fold, it says so', (context) => {
    const cluster = new Cluster(context);
    cluster.start(w1, 3_000, { fold: noFold });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, w1);
    cluster.until(() => receiver.ended.length > 0);
    assert.match(receiver.ended[0] ?? '', /cannot make a snapshot/);
    receiver.transfers.receiver.fetch(group, w1);
    assert.deepEqual(receiver.transfers.receiver.progress(), [], 'it is not asked again at once');
  });

  test('has applied no more than the receiver, the writer refuses it', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 100);
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receiver.ended.length > 0);
    assert.match(receiver.ended[0] ?? '', /the fold is at 100/);
  });
});

describe('when a receiver', () => {
  test('restarts, it begins anew, and its sender keeps one file open for it', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => (receiver.transfers.receiver.progress()[0]?.percent ?? 0) > 40);
    receiver.stop();
    const again = cluster.start(n2);
    assert.equal(again.applied, 100);
    again.transfers.receiver.fetch(group, n1);
    cluster.clock.advance(50);
    assert.equal(sender.shelf.size, 1);
    cluster.until(() => again.installed);
    assert.equal(again.applied, 3_000);
    assert.equal(sender.shelf.size, 0);
  });

  test('has gone, its sender lets the file go after a while', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.clock.advance(1_000);
    assert.equal(sender.shelf.size, 1);
    receiver.stop();
    const tookMs = cluster.until(() => sender.shelf.size === 0);
    assert.ok(tookMs > 25_000 && tookMs <= 31_000, `${tookMs} ms`);
    assert.equal(sender.transfers.sender.heldIndex(group), undefined);
    assert.equal(cluster.clock.timers, 0);
  });

  test('has a writer that stands still, nobody gives up', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => (receiver.transfers.receiver.progress()[0]?.percent ?? 0) > 40);
    receiver.stalledUntilMs = cluster.clock.monotonicMs() + 90_000;
    cluster.until(() => receiver.ended.length > 0);
    assert.deepEqual(receiver.ended, ['installed']);
  });

  test('may not have its file replaced, it keeps the one it has', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000);
    const receiver = cluster.start(n2, 100, { mayInstall: () => false });
    receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receiver.ended.length > 0);
    cluster.clock.advance(100);
    assert.deepEqual([receiver.installed, receiver.applied, sender.shelf.size], [false, 100, 0]);
  });

  test('is one too many, it is told, and served when another one is done', (context) => {
    const cluster = new Cluster(context);
    cluster.start(n1, 3_000, { bytesPerSecond: 3_000_000 });
    const receivers = Array.from({ length: 9 }, (_, at) => cluster.start(nodeId(`r${at}`)));
    for (const receiver of receivers) receiver.transfers.receiver.fetch(group, n1);
    cluster.until(() => receivers.some(({ ended }) => ended.length > 0));
    assert.deepEqual(receivers[8]?.ended, ['too many snapshots are being sent']);
    cluster.until(() => {
      receivers[8]?.transfers.receiver.fetch(group, n1);
      return receivers.every(({ installed }) => installed);
    });
  });

  test('sends a late `begin` of an attempt that is over, the present one goes on', (context) => {
    const cluster = new Cluster(context);
    const sender = cluster.start(n1, 3_000, { bytesPerSecond: 500_000 });
    const receiver = cluster.start(n2, 100);
    const late: SnapshotMessage = { kind: 'begin', group, attempt: 'late', holding: 'log-and-fold' };
    sender.transfers.receive(n2, encodeSnapshotMessage(late));
    receiver.transfers.receiver.fetch(group, n1);
    cluster.clock.advance(1_000);
    sender.transfers.receive(n2, encodeSnapshotMessage(late));
    cluster.until(() => receiver.ended.length > 0);
    assert.deepEqual(receiver.ended, ['installed']);
  });
});

describe('a datagram', () => {
  const messages: readonly SnapshotMessage[] = [
    { kind: 'begin', group, attempt: 'a1', holding: 'log' },
    {
      kind: 'header',
      group,
      attempt: 'a1',
      transfer: 't1',
      header: {
        format: 1,
        cluster: 'test',
        group,
        position: { index: 7, term: 2, hash: 'ab' },
        membership: { index: 3, body: '{}' },
        tables: [{ name: 'card', columns: ['card_id'], rows: 9 }],
      },
    },
    { kind: 'unavailable', group, attempt: 'a1', reason: 'why' },
    { kind: 'want', group, transfer: 't1', chunks: [0, 5] },
    { kind: 'chunk', group, transfer: 't1', chunk: 5, end: null, bytes: Buffer.from('[0,"n"]\n') },
    { kind: 'chunk', group, transfer: 't1', chunk: 6, end: { chunks: 7, sha256: 'ab' }, bytes: Buffer.alloc(0) },
    { kind: 'gone', group, transfer: 't1' },
    { kind: 'done', group, transfer: 't1' },
  ];
  for (const message of messages) {
    test(`of kind ${inShort(message)} is read as it was sent, and not when a bit of it has changed`, () => {
      const datagram = encodeSnapshotMessage(message);
      assert.deepEqual(decodeSnapshotMessage(datagram), message);
      for (let at = 0; at < datagram.length; at++) {
        const damaged = Buffer.from(datagram);
        damaged[at] = (damaged[at] ?? 0) ^ 1;
        assert.equal(decodeSnapshotMessage(damaged), undefined);
        assert.equal(decodeSnapshotMessage(datagram.subarray(0, at)), undefined);
      }
    });
  }

  test('of another shape than ours is not taken', () => {
    const [begin, header, , want, chunk] = messages;
    const wrong: readonly unknown[] = [
      { ...begin, kind: 'other' },
      { ...begin, group: '../a' },
      { ...begin, attempt: '' },
      { ...begin, attempt: 'x'.repeat(129) },
      { ...begin, holding: 'all' },
      { ...header, header: null },
      { ...header, header: { ...(header as { header: object }).header, position: { index: -1, term: 1, hash: 'x' } } },
      {
        ...header,
        header: { ...(header as { header: object }).header, tables: [{ name: 'x', columns: [1], rows: 1 }] },
      },
      { ...want, chunks: [1.5] },
      { ...want, chunks: Array.from({ length: 65 }, (_, at) => at) },
      { ...chunk, chunk: -1 },
      { ...chunk, end: { chunks: 'x', sha256: 'y' } },
    ];
    for (const each of wrong) {
      assert.equal(
        decodeSnapshotMessage(encodeSnapshotMessage(each as SnapshotMessage)),
        undefined,
        JSON.stringify(each),
      );
    }
  });

  test('that is damaged is counted and does nothing', (context) => {
    const cluster = new Cluster(context);
    const process = cluster.start(n1, 10);
    process.transfers.receive(n2, Buffer.from('nonsense'));
    process.transfers.receive(n2, Buffer.alloc(0));
    assert.equal(process.transfers.damaged, 2);
  });

  test('of the largest chunk fits the bus', () => {
    const bytes = Buffer.alloc(300_000, 'x');
    const datagram = encodeSnapshotMessage({ kind: 'chunk', group, transfer: 't', chunk: 1, end: null, bytes });
    assert.ok(datagram.length < 1000 * 1024);
  });
});
