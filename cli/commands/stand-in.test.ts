import assert from 'node:assert/strict';
import { test } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import type { StandInApproval } from '../../store/ledger-reports.ts';
import { standInReport, standInText } from './stand-in.ts';
import { answersOf, fakeBus } from './testing.ts';

const at = Date.UTC(2026, 2, 1, 12);

function approval(node: string, sequence: number, changes: Partial<StandInApproval> = {}): StandInApproval {
  return {
    node,
    sequence,
    group: 'a',
    card: '3.17.…2',
    amountMinor: '1250',
    currency: '840',
    at: at + sequence,
    state: 'pending',
    outcome: '',
    overspentMinor: '0',
    ...changes,
  };
}

test('what edges approved by themselves is listed once, in the order of time, with sums by currency', async () => {
  const entered = approval('n2', 7, { state: 'entered', overspentMinor: '250' });
  const known: Readonly<Record<string, readonly StandInApproval[]>> = {
    n1: [approval('n1', 9), entered],
    n2: [approval('n2', 7), approval('n2', 8, { currency: '392', amountMinor: '500' })],
    n3: [entered],
    n4: [],
  };
  const bus = fakeBus(
    () => answersOf({}),
    (to) => ({ approvals: known[to], totals: [] }),
  );
  const report = await standInReport(bus);
  assert.deepEqual(
    report.approvals.map(({ node, sequence, state }) => [node, sequence, state]),
    [
      ['n2', 7, 'entered'],
      ['n2', 8, 'pending'],
      ['n1', 9, 'pending'],
    ],
  );
  assert.equal(
    standInText(report),
    `approved at               node  number  group  card     amount     state    overspent
2026-03-01T12:00:00.007Z  n2    7       a      3.17.…2  12.50 USD  entered  2.50 USD
2026-03-01T12:00:00.008Z  n2    8       a      3.17.…2  500 JPY    pending  -
2026-03-01T12:00:00.009Z  n1    9       a      3.17.…2  12.50 USD  pending  -
1 approval of 500 JPY, 1 not entered yet; 0 overspent by 0 JPY
2 approvals of 25.00 USD, 1 not entered yet; 1 overspent by 2.50 USD`,
  );
});

test('a report names the nodes that could not be asked', async () => {
  const bus = fakeBus(
    () => answersOf({ away: { n4: 1 } }),
    () => ({ approvals: [] }),
  );
  const report = await standInReport(bus);
  assert.deepEqual(report.missing, ['n4']);
  assert.equal(standInText(report), 'No stand-in approvals.\n! n4 did not answer: what only they know is missing.');
});

test('an error of a node is no empty report', async () => {
  const bus = fakeBus(
    () => answersOf({}),
    () => {
      throw new SwitchError('CALL_INVALID', 'n1: there is no call "standin.report"');
    },
  );
  await assert.rejects(standInReport(bus), { code: 'CALL_INVALID' });
});
