import assert from 'node:assert/strict';
import { test } from 'node:test';

import { groupId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { RepairDesk } from './repair-desk.ts';

test('a second repair is refused until the first has ended or was not heard of for half a minute', async (context) => {
  const clock = new ManualClock();
  const desk = new RepairDesk({
    folder: temporaryFolder(context),
    clock,
    log: createLogger({ process: 'n1', level: 'silent' }),
    hasGroup: () => true,
    repair: () => Promise.resolve([]),
    readRows: () => Promise.resolve([]),
  });
  const hold = (repair: string): Promise<unknown> =>
    desk.serve({ method: 'repair.hold', parameters: { repair, group: 'a', mark: `${repair}.1` } });
  const [one, other] = ['r0123456789abcdef', 'rfedcba9876543210'];
  await hold(one);
  assert.ok(desk.holds(groupId('a'), `${one}.1`));
  await hold(one);
  await assert.rejects(hold(other), { code: 'REPAIR_RUNNING' });
  await desk.serve({ method: 'repair.end', parameters: { repair: one } });
  await hold(other);
  await assert.rejects(hold(one), { code: 'REPAIR_RUNNING' });
  clock.advance(30_001);
  await hold(one);
  await assert.rejects(desk.serve({ method: 'repair.undo', parameters: { repair: '../../etc' } }), {
    code: 'CALL_INVALID',
  });
});
