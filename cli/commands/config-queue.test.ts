import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { QueuedReport } from '../node/change-queue.ts';
import { queueReport, queueText } from './config-queue.ts';
import { answersOf, fakeBus } from './testing.ts';

function queued(changes: Partial<QueuedReport>): QueuedReport {
  return {
    id: 'n2-77',
    by: 'ann',
    at: Date.UTC(2026, 2, 1, 12),
    rows: ['range_limit 990001/840', 'node_state n2'],
    outcome: 'waiting',
    index: 0,
    reason: '',
    endedAt: 0,
    ...changes,
  };
}

test('changes queued at every node are listed with what became of them, and nodes that did not answer are named', async () => {
  const known: Readonly<Record<string, readonly QueuedReport[]>> = {
    n1: [],
    n2: [
      queued({}),
      queued({
        id: 'n2-78',
        rows: ['node_state n2'],
        outcome: 'refused',
        reason: 'VERSION_CONFLICT: version 9 is there',
      }),
    ],
    n3: [queued({ id: 'n3-5', rows: [], outcome: 'entered', index: 17 })],
  };
  const bus = fakeBus(
    () => answersOf({ away: { n4: 1 } }),
    (to) => known[to],
  );
  assert.equal(
    queueText(await queueReport(bus, undefined)),
    `node  change  queued at                 by   rows                                   outcome
n2    n2-77   2026-03-01T12:00:00.000Z  ann  range_limit 990001/840 and 1 more row  waits
n2    n2-78   2026-03-01T12:00:00.000Z  ann  node_state n2                          refused: VERSION_CONFLICT: version 9 is there
n3    n3-5    2026-03-01T12:00:00.000Z  ann  -                                      entered as version 17
! n4 did not answer: what is queued there is missing.`,
  );
});
