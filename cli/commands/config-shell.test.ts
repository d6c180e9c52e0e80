import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { ShellEdit } from '../../config-db/shell-edits.ts';
import { shellReport, shellText } from './config-shell.ts';
import { answersOf, fakeBus } from './testing.ts';

function edit(changes: Partial<ShellEdit>): ShellEdit {
  return {
    sequence: 1,
    change: 'shell-1',
    editedAt: '2026-03-01T12:00:00.000Z',
    rows: [{ table: 'range_limit', key: '990001/840', edit: 'update', columns: ['daily_maximum_count'] }],
    outcome: 'entered',
    index: 17,
    reason: null,
    ...changes,
  };
}

test('edits of every node are listed with what became of them, and nodes that did not answer are named', async () => {
  const known: Readonly<Record<string, readonly ShellEdit[]>> = {
    n1: [],
    n2: [
      edit({
        outcome: 'restored',
        editedAt: null,
        rows: [],
        reason: 'shell_update_pan_range was missing and is restored',
      }),
      edit({
        outcome: 'refused',
        index: null,
        reason: 'failover_map a: rank is made by the nodes and not entered',
        rows: [
          { table: 'failover_map', key: 'a', edit: 'update', columns: ['rank'] },
          { table: 'pan_range', key: '', edit: 'insert', columns: [] },
        ],
      }),
    ],
    n3: [edit({})],
  };
  const bus = fakeBus(
    () => answersOf({ away: { n4: 1 } }),
    (to) => known[to],
  );
  const report = await shellReport(bus, undefined);
  assert.equal(
    shellText(report),
    `node  edited at                 outcome        rows                                                 reason
n2    -                         restored       -                                                    shell_update_pan_range was missing and is restored
n2    2026-03-01T12:00:00.000Z  undone         update failover_map a (rank) and 1 more row          failover_map a: rank is made by the nodes and not entered
n3    2026-03-01T12:00:00.000Z  entered at 17  update range_limit 990001/840 (daily_maximum_count)
! n4 did not answer: their edits are missing.`,
  );
});

test('one node alone can be asked, and may have nothing to tell', async () => {
  const bus = fakeBus(
    () => answersOf({}),
    () => [],
  );
  assert.equal(shellText(await shellReport(bus, 'n2')), 'Nobody has edited config.db with the sqlite3 shell.');
  assert.deepEqual(
    bus.calls.map(({ to }) => to),
    ['n2'],
  );
});
