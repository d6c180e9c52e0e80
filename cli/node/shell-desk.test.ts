import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { ConfigFile, shell } from '../../config-db/testing.ts';
import { closedShellEdits } from '../../config-db/shell-edits.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { configGroup } from '../../base/identifiers.ts';
import type { EditOutcome } from '../../store/group-file.ts';
import type { KeptChange } from './change-carrier.ts';
import { ShellDesk } from './shell-desk.ts';

const edit = 'UPDATE acquirer_link SET deadline_ms = 999;';

/** A node's config.db with its writer, and a desk whose leader answers as the test says. */
class Bench {
  readonly config: ConfigFile;
  readonly clock = new ManualClock();
  readonly brought: KeptChange[] = [];
  readonly said: string[] = [];
  readonly outcomes: EditOutcome[] = [];
  readonly desk: ShellDesk;
  leader: (change: KeptChange) => number = (change) => this.enter(change);

  constructor(context: TestContext, config = new ConfigFile(context).enterSample()) {
    this.config = config;
    const reader = new GroupReader(config.path, configGroup);
    context.after(() => {
      reader.close();
    });
    const say = (details: object): void => {
      const { event, reason } = details as { event: string; reason?: string };
      this.said.push(reason === undefined ? event : `${event}: ${reason}`);
    };
    this.desk = new ShellDesk({
      self: nodeId('n1'),
      clock: this.clock,
      log: { info: say, warn: say } as never,
      database: () => reader.database,
      bring: (change, done) => {
        this.brought.push(change);
        try {
          done(this.leader(change));
        } catch (error) {
          done(error as Error);
        }
      },
      close: (outcome) => {
        this.outcomes.push(outcome);
      },
      closedBefore: closedShellEdits(config.path),
    });
  }

  enter({ id, by, changes }: KeptChange): number {
    return this.config.enterText(
      changes.map(({ change }) => change),
      { id, by },
    );
  }

  /** What a tenth of a second does: the writer looks, then the desk. */
  async pass(ms = 100): Promise<void> {
    this.config.file.tendEdits(this.outcomes.splice(0));
    this.desk.tick();
    // What the desk has asked for is answered within this turn.
    for (let at = 0; at < 10; at++) await Promise.resolve();
    this.clock.advance(ms);
  }
}

describe('an edit by the shell', () => {
  test('is entered once as the node that was edited, and said to be when the log has brought it', async (context) => {
    const bench = new Bench(context);
    shell(bench.config.path, edit);
    for (let at = 0; at < 20; at++) await bench.pass();
    assert.deepEqual(
      bench.brought.map(({ by }) => by),
      ['shell@n1'],
    );
    assert.deepEqual(bench.said, ['shell-edit-entered']);
    assert.equal(shell(bench.config.path, 'SELECT deadline_ms, entered_by FROM acquirer_link;'), '999|shell@n1\n');
    assert.deepEqual(bench.desk.status, { waiting: 0, entered: 1, refused: 0, restored: 0, last: null });
  });

  test('that is refused is undone and reported with the reason, once', async (context) => {
    const bench = new Bench(context);
    bench.leader = () => {
      throw new SwitchError('CONFIGURATION_REFUSED', 'acquirer_link acquirer: no');
    };
    shell(bench.config.path, edit);
    for (let at = 0; at < 20; at++) await bench.pass();
    assert.equal(bench.brought.length, 1);
    assert.equal(bench.said.length, 1);
    assert.match(bench.said[0] ?? '', /^shell-edit-undone: .*acquirer_link acquirer: no/);
    assert.match(bench.desk.status.last?.reason ?? '', /acquirer_link acquirer: no/);
    assert.notEqual(shell(bench.config.path, 'SELECT deadline_ms FROM acquirer_link;'), '999\n');
    bench.clock.advance(3_600_000);
    assert.equal(bench.desk.status.last, null);
  });

  test('waits while the configuration has no majority, and is entered when it has one', async (context) => {
    const bench = new Bench(context);
    bench.leader = () => {
      throw new SwitchError('OWNER_UNREACHABLE', 'nobody leads group config');
    };
    shell(bench.config.path, edit);
    for (let at = 0; at < 30; at++) await bench.pass();
    assert.ok(bench.brought.length >= 2 && bench.brought.length <= 4, String(bench.brought.length));
    assert.equal(new Set(bench.brought.map(({ id }) => id)).size, 1);
    assert.equal(bench.desk.status.waiting, 1);
    assert.deepEqual(bench.said, []);
    bench.leader = (change) => bench.enter(change);
    for (let at = 0; at < 20; at++) await bench.pass();
    assert.deepEqual(bench.said, ['shell-edit-entered']);
    assert.equal(bench.desk.status.waiting, 0);
  });

  test('is brought again under the same name by a node that was killed before it heard of it', async (context) => {
    const first = new Bench(context);
    first.leader = () => {
      throw new SwitchError('OWNER_UNREACHABLE', 'no answer');
    };
    shell(first.config.path, edit);
    await first.pass();
    const [asked] = first.brought;
    first.config.restart();
    const second = new Bench(context, first.config);
    for (let at = 0; at < 20; at++) await second.pass();
    assert.deepEqual(second.brought, [asked]);
    assert.deepEqual(second.said, ['shell-edit-entered']);
    const third = new Bench(context, first.config);
    for (let at = 0; at < 20; at++) await third.pass();
    assert.deepEqual([third.brought, third.said], [[], []]);
  });

  test('waits its turn behind the one before it', async (context) => {
    const bench = new Bench(context);
    bench.leader = () => {
      throw new SwitchError('OWNER_UNREACHABLE', 'nobody leads group config');
    };
    shell(bench.config.path, edit);
    await bench.pass();
    shell(bench.config.path, "UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001';");
    for (let at = 0; at < 20; at++) await bench.pass();
    assert.equal(new Set(bench.brought.map(({ id }) => id)).size, 1);
    assert.equal(bench.desk.status.waiting, 2);
    bench.leader = (change) => bench.enter(change);
    for (let at = 0; at < 40; at++) await bench.pass();
    assert.equal(bench.desk.status.entered, 2);
  });

  test('whose rows are as wanted by now is closed without an entry', async (context) => {
    const bench = new Bench(context);
    bench.leader = () => 0;
    shell(bench.config.path, edit);
    for (let at = 0; at < 20; at++) await bench.pass();
    assert.deepEqual([bench.brought.length, bench.said], [1, ['shell-edit-entered']]);
  });
});

test('triggers that were dropped are reported', async (context) => {
  const bench = new Bench(context);
  await bench.pass();
  shell(bench.config.path, 'DROP TRIGGER shell_update_pan_range;');
  await bench.pass();
  assert.deepEqual(bench.said, ['shell-watch-restored: shell_update_pan_range was missing and is restored']);
  assert.equal(bench.desk.status.restored, 1);
});
