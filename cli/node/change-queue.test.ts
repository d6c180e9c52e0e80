import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { createLogger } from '../../base/log.ts';
import { encodeConfigurationChange } from '../../config-db/rows.ts';
import { EdgeFile } from '../../store/edge-store.ts';
import { temporaryFolder } from '../../store/testing.ts';
import type { KeptChange } from './change-carrier.ts';
import { ChangeQueue, describe as describeReport, type QueuedReport } from './change-queue.ts';

const silent = createLogger({ process: 'n3', level: 'silent' });
const noMajority = new SwitchError('OWNER_UNREACHABLE', 'nobody leads group config');

function change(id: string): KeptChange {
  const row = { node_id: 'n2', state: 'maintenance', reason: id } as const;
  return {
    id,
    by: 'ann',
    changes: [
      {
        change: encodeConfigurationChange({ table: 'node_state', operation: 'put', row } as never),
        replaces: 0,
      },
    ],
  };
}

/** A node's queue in its edge.db, and a leader that answers as the test says. */
class Bench {
  readonly clock = new ManualClock();
  readonly brought: string[] = [];
  /** Names in the log, which this node's copy has. */
  readonly log = new Map<string, number>();
  leader: (change: KeptChange) => number | Error = () => noMajority;
  /** While it is set, what is asked of the leader is answered later. */
  held: (() => void)[] | undefined;
  readonly #path: string;
  #file: EdgeFile;
  queue: ChangeQueue;

  constructor(context: TestContext) {
    this.#path = join(temporaryFolder(context), 'edge.db');
    [this.#file, this.queue] = this.#open();
    context.after(() => {
      this.#file.close();
    });
  }

  #open(): [EdgeFile, ChangeQueue] {
    const file = new EdgeFile(this.#path, this.clock);
    const queue = new ChangeQueue({
      clock: this.clock,
      log: silent,
      store: file,
      bring: (asked, done) => {
        this.brought.push(asked.id);
        const answer = (): void => {
          done(this.leader(asked));
        };
        if (this.held === undefined) answer();
        else this.held.push(answer);
      },
      indexOf: (id) => this.log.get(id),
    });
    return [file, queue];
  }

  /** kill -9, and a new process on the same disk. */
  restart(): void {
    [this.#file, this.queue] = this.#open();
  }

  add(id: string): (SwitchError | undefined)[] {
    const told: (SwitchError | undefined)[] = [];
    this.queue.add(change(id), (outcome) => told.push(outcome));
    this.clock.runSoon();
    return told;
  }

  drop(id: string): (QueuedReport | SwitchError)[] {
    const told: (QueuedReport | SwitchError)[] = [];
    this.queue.drop(id, 'bob', (outcome) => told.push(outcome));
    this.clock.runSoon();
    return told;
  }

  pass(ms = 2_000): void {
    for (let at = 0; at < ms; at += 100) {
      this.queue.tick();
      this.clock.advance(100);
    }
  }

  get outcomes(): string[] {
    return this.queue.list().map((each) => `${each.id} ${describeReport(each)}`);
  }
}

describe('a queued change', () => {
  test('is on disk before its author is told, outlives its process, and is entered when there is a leader', (context) => {
    const bench = new Bench(context);
    assert.deepEqual(bench.add('n3-1'), [undefined]);
    bench.restart();
    bench.pass();
    assert.deepEqual(bench.outcomes, ['n3-1 waits']);
    assert.deepEqual(bench.queue.status, { waiting: 1, last: null });
    bench.leader = () => 17;
    bench.pass();
    assert.deepEqual(bench.outcomes, ['n3-1 entered as version 17']);
    const { length } = bench.brought;
    bench.restart();
    bench.pass();
    assert.equal(bench.brought.length, length, 'and is not brought again');
    assert.deepEqual(bench.outcomes, ['n3-1 entered as version 17']);
  });

  test('is brought again under its name by a process that was killed before it heard of it', (context) => {
    const bench = new Bench(context);
    bench.held = [];
    bench.add('n3-1');
    bench.restart();
    bench.held = undefined;
    bench.leader = () => 17;
    bench.pass();
    assert.deepEqual(bench.brought, ['n3-1', 'n3-1']);
  });

  test('waits behind those before it, and a refused one holds up nobody', (context) => {
    const bench = new Bench(context);
    for (const id of ['n3-1', 'n3-2', 'n3-3']) bench.add(id);
    bench.pass();
    assert.deepEqual(new Set(bench.brought), new Set(['n3-1']));
    bench.leader = ({ id }) => (id === 'n3-1' ? new SwitchError('VERSION_CONFLICT', 'version 9 is there') : 20);
    bench.pass();
    assert.deepEqual(bench.outcomes, [
      'n3-1 refused: version 9 is there',
      'n3-2 entered as version 20',
      'n3-3 entered as version 20',
    ]);
    assert.deepEqual(bench.queue.status, { waiting: 0, last: 'version 9 is there' });
    bench.clock.advance(3_600_000);
    assert.equal(bench.queue.status.last, null, 'said for an hour');
  });

  test('that is dropped is brought no more; one that no longer waits cannot be: QUEUE_REFUSED', (context) => {
    const bench = new Bench(context);
    bench.add('n3-1');
    bench.add('n3-2');
    assert.deepEqual(
      bench.drop('n3-2').map((each) => each instanceof SwitchError || each.outcome),
      ['dropped'],
    );
    bench.leader = () => 17;
    bench.restart();
    bench.pass();
    assert.deepEqual(bench.outcomes, ['n3-1 entered as version 17', 'n3-2 dropped by bob']);
    for (const id of ['n3-1', 'n3-2', 'n3-9']) {
      const [refused] = bench.drop(id);
      assert.ok(refused instanceof SwitchError && refused.code === 'QUEUE_REFUSED', id);
    }
  });

  test('that was on its way when it was dropped is shown as entered when it is', (context) => {
    const bench = new Bench(context);
    bench.held = [];
    bench.add('n3-1');
    bench.drop('n3-1');
    bench.leader = () => 17;
    bench.log.set('n3-1', 17);
    assert.deepEqual(bench.outcomes, ['n3-1 entered as version 17'], 'by this copy of the log');
    for (const answer of bench.held) answer();
    bench.clock.runSoon();
    bench.log.clear();
    assert.deepEqual(bench.outcomes, ['n3-1 entered as version 17'], 'by what its leader said');
  });

  test('is told of when it has come to its end, or that it waits when that takes long', (context) => {
    const bench = new Bench(context);
    const told: string[] = [];
    const ask = (id: string): void => {
      bench.queue.whenEnded(id, 2_000, (report) => {
        told.push(report instanceof SwitchError ? report.code : describeReport(report));
      });
    };
    bench.add('n3-1');
    ask('n3-1');
    ask('n3-7');
    assert.deepEqual(told, ['QUEUE_REFUSED']);
    bench.pass(2_000);
    assert.deepEqual(told, ['QUEUE_REFUSED', 'waits']);
    bench.leader = () => 17;
    ask('n3-1');
    bench.pass();
    ask('n3-1');
    assert.deepEqual(told.slice(2), ['entered as version 17', 'entered as version 17']);
  });
});

test('no more than a thousand changes wait at a node', (context) => {
  const bench = new Bench(context);
  for (let at = 0; at < 1_000; at++) bench.queue.add(change(`n3-${at}`), () => undefined);
  bench.clock.runSoon();
  assert.deepEqual(
    bench.add('n3-1000').map((each) => each?.code),
    ['QUEUE_REFUSED'],
  );
});
