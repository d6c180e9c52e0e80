import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { seededRandom } from '../../base/random.ts';
import { chainEntry, encodeBody, originPosition } from '../../store/entry.ts';
import { GroupFile } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { SimulatedBus } from './bus.ts';
import { Disk } from './disk.ts';
import { Machine, Thread } from './machine.ts';
import { Scheduler } from './scheduler.ts';

/*
 * The simulated machines themselves: what is not as it says here would make a simulation of something else.
 */

describe('a simulated thread', () => {
  const threadOf = (rate = 1) => {
    const scheduler = new Scheduler();
    const machine = new Machine(scheduler, rate, 5_000);
    const thread = new Thread(scheduler, machine, (action) => {
      action();
    });
    return { scheduler, machine, thread };
  };

  test('sets its timers by its own clock, which runs fast or slow', () => {
    const { scheduler, machine, thread } = threadOf(1.25);
    let atMs = 0;
    thread.after(1_000, () => {
      atMs = scheduler.nowMs;
    });
    scheduler.run(2_000);
    assert.equal(atMs, 800);
    assert.equal(machine.monotonicMs(), 7_500);
  });

  test('has a wall clock that jumps, and a monotonic one that does not', () => {
    const { scheduler, machine, thread } = threadOf();
    scheduler.run(1_000);
    const [wallMs, monotonicMs] = [thread.wallMs(), thread.monotonicMs()];
    machine.wallErrorMs = -86_400_000;
    assert.equal(thread.wallMs(), wallMs - 86_400_000);
    assert.equal(thread.monotonicMs(), monotonicMs);
  });

  test('does nothing while it is stalled, and then everything in its order', () => {
    const { scheduler, thread } = threadOf();
    const done: string[] = [];
    const note = (what: string) => () => {
      done.push(`${what} at ${scheduler.nowMs}`);
    };
    thread.after(20, note('timer'));
    const cancelled = thread.after(30, note('cancelled timer'));
    thread.stall(100);
    scheduler.run(10);
    thread.enter(note('message'));
    scheduler.run(60);
    cancelled.cancel();
    assert.deepEqual(done, []);
    scheduler.run(100);
    assert.deepEqual(done, ['message at 100', 'timer at 100']);
  });

  test('ends with its process: nothing that it had asked for happens', () => {
    const { scheduler, thread } = threadOf();
    let done = 0;
    const count = (): void => {
      done += 1;
    };
    thread.after(10, count);
    thread.stall(50);
    thread.enter(count);
    thread.stop();
    thread.enter(count);
    scheduler.run(1_000);
    assert.equal(done, 0);
  });

  test('gets what another thread tells it in the order in which it was told', () => {
    const { scheduler, thread } = threadOf();
    const channel = thread.channel(seededRandom(1));
    const got: number[] = [];
    for (let each = 0; each < 50; each++) {
      channel(() => {
        got.push(each);
      });
    }
    scheduler.run(100);
    assert.deepEqual(
      got,
      Array.from({ length: 50 }, (_, each) => each),
    );
  });
});

describe('the simulated brokers', () => {
  const [n1, n2] = ['n1', 'n2'].map(nodeId) as [NodeId, NodeId];

  test('cut one way for as long as any fault does', () => {
    const scheduler = new Scheduler();
    const bus = new SimulatedBus(scheduler, seededRandom(1));
    let got = 0;
    bus.attach(n2, () => {
      got += 1;
    });
    const [first, second] = [bus.cut(n1, n2), bus.cut(n1, n2)];
    first();
    first();
    assert.equal(bus.reaches(n1, n2), false);
    assert.equal(bus.reaches(n2, n1), true);
    bus.send(n1, n2, 'raft', Buffer.alloc(1));
    second();
    bus.send(n1, n2, 'raft', Buffer.alloc(1));
    scheduler.run(100);
    assert.equal(got, 1);
  });

  test('lose what is under way when a way is cut', () => {
    const scheduler = new Scheduler();
    const bus = new SimulatedBus(scheduler, seededRandom(1), () => 50);
    let got = 0;
    bus.attach(n2, () => {
      got += 1;
    });
    bus.send(n1, n2, 'raft', Buffer.alloc(1));
    scheduler.run(10);
    bus.cut(n1, n2);
    scheduler.run(100);
    assert.equal(got, 0);
  });

  test('say whether something is under way that will arrive, whoever has sent it', () => {
    const scheduler = new Scheduler();
    const bus = new SimulatedBus(scheduler, seededRandom(1), () => 50);
    bus.attach(n2, () => undefined);
    bus.send(n1, n2, 'raft', Buffer.from('late'));
    bus.detach(n1);
    assert.ok(bus.isUnderWay(n1, n2));
    assert.ok(!bus.isUnderWay(n2, n1));
    const mend = bus.cut(n1, n2);
    assert.ok(!bus.isUnderWay(n1, n2));
    mend();
    scheduler.run(100);
    assert.ok(!bus.isUnderWay(n1, n2));
  });
});

describe('a simulated disk without power', () => {
  const group = groupId('a');
  const first = chainEntry(originPosition(group), 1, encodeBody({ kind: 'no-op', leader: 'n1', term: 1 }));
  const second = chainEntry(first, 1, encodeBody({ kind: 'expiry', at: 0, holds: [] }));

  test('keeps what was synced, and loses what was only applied', (context) => {
    const parent = mkdtempSync(join(tmpdir(), 'quadrant-disk-'));
    context.after(() => {
      rmSync(parent, { recursive: true, force: true });
    });
    const disk = new Disk(join(parent, 'n1'));
    const path = join(disk.folder, 'group-a.db');
    const open = (): GroupFile => GroupFile.open(path, group, 'test', ledgerFold);
    const file = open();
    file.write({ entries: [first, second], keepThrough: undefined, applyThrough: 0 });
    disk.synced(path);
    file.write({ entries: [], keepThrough: undefined, applyThrough: 2 });
    assert.equal(file.applied, 2);
    const [left, whole] = [disk.copyAfterPowerLoss(), disk.copy()];
    file.close();

    disk.restore(left);
    const afterwards = open();
    assert.deepEqual([afterwards.last.index, afterwards.applied], [2, 0]);
    afterwards.close();
    disk.restore(whole);
    const killed = open();
    assert.deepEqual([killed.last.index, killed.applied], [2, 2]);
    killed.close();
    disk.empty();
    const empty = open();
    assert.equal(empty.last.index, 0);
    empty.close();
  });
});
