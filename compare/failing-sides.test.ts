import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import type { Clock } from '../base/clock.ts';
import { realClock } from '../base/real.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { editByHand, runByHand, sampleLog, temporaryFolder, writeFile } from '../store/testing.ts';
import { compareSides, copies, group, sidesOf, summaries, verdict } from './testing.ts';
import { failed, type CompareCall, type CompareSide } from './protocol.ts';
import type { GroupResult } from './result.ts';

describe('a side that does not answer as it should', () => {
  const inconclusive = (result: GroupResult, node: string): string[] => [
    ...new Set(
      result.outcomes.flatMap((each) => (each.node === node && each.outcome === 'inconclusive' ? [each.reason] : [])),
    ),
  ];
  /** A clock whose time limits end at once where nothing else can happen any more. */
  const impatient: Clock = { ...realClock, after: (_delayMs, action) => realClock.after(20, action) };

  const faults: readonly (readonly [string, CompareSide['call'], string])[] = [
    ['throws', () => Promise.reject(new Error('no responders')), 'unreachable'],
    ['is silent', () => new Promise(() => undefined), 'unreachable'],
    ['answers nothing', () => Promise.resolve(undefined), 'garbage'],
    ['answers garbage', () => Promise.resolve({ kind: 'blocks', ends: 'x' }), 'garbage'],
    ['has not reached the mark', () => Promise.resolve(failed('mark-not-reached', 'at 3 of 9')), 'mark-not-reached'],
    ['opened too late', () => Promise.resolve(failed('snapshot-not-opened', 'went on')), 'snapshot-not-opened'],
    [
      'is of another version',
      (call) =>
        Promise.resolve({
          kind: 'opened',
          index: call.kind === 'open' ? call.index : 0,
          lastLogIndex: 1,
          format: '2.x',
        }),
      'format-differs',
    ],
  ];
  for (const [name, call, reason] of faults) {
    test(`${name}: inconclusive, the others are compared`, async (context) => {
      const { paths, markIndex } = copies(temporaryFolder(context), 100);
      editByHand(paths['n4'] ?? '', "UPDATE card SET status = 'lost' WHERE card_id = 'a.1.1.7'");
      // The leader is the one that fails, so that others must set the blocks.
      const sides = sidesOf(context, paths).map((side) => (side.node === 'n1' ? { ...side, call } : side));
      const result = await compareSides(sides, { markIndex, clock: impatient });
      assert.deepEqual(inconclusive(result, 'n1'), [reason]);
      assert.deepEqual(summaries(result), ['n4 card card_id=a.1.1.7 columns-differ status']);
      assert.equal(verdict(result), 3);
    });
  }

  test('fails at any call, with any nonsense: no crash, no hang, no false difference at the others', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 1_500);
    runByHand(paths['n3'] ?? '', 'UPDATE card_transaction SET held_minor = 1 WHERE log_index IN (2, 700)');
    const replies = fc.oneof(
      fc.jsonValue(),
      ...[
        { ends: [null], digests: '', rows: [0], done: false },
        { ends: [['i1']], digests: `${'A'.repeat(22)}==`, rows: [-1], done: true },
        { ends: [['i5'], ['i5']], digests: `${'A'.repeat(43)}=`, rows: [1, 1], done: false },
      ].map((range) => fc.constant({ kind: 'blocks', ranges: [range] })),
      ...[
        { keys: [], digests: '', done: false },
        { keys: [['i9'], ['i1']], digests: `${'A'.repeat(43)}=`, done: true },
      ].map((range) => fc.constant({ kind: 'rows', ranges: [range] })),
      fc.constant({ kind: 'packed', deflated: 'AAAA' }),
      fc.constant({ kind: 'split', keys: [['i9'], ['i1']] }),
      fc.constant({ kind: 'digests', ranges: [] }),
      fc.constant({ kind: 'digests', ranges: [{ digests: 'AAAA', rows: [1] }] }),
      fc.constant({ kind: 'columns', rows: [] }),
      fc.constant({ kind: 'chain', faults: [], next: 0 }),
      fc.constant(failed('snapshot-closed', 'the write-ahead log grew too long')),
    );
    const sides = sidesOf(context, paths);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom('n1', 'n2'), fc.nat(40), replies, fc.constantFrom(1, 3), async (...chosen) => {
        const [node, good, reply, workers] = chosen;
        let calls = 0;
        const spoiled = sides.map((side) => ({
          ...side,
          // The snapshots serve all runs.
          call: (call: CompareCall): Promise<unknown> => {
            if (call.kind === 'close') return Promise.resolve({ kind: 'closed' });
            return side.node === node && calls++ >= good ? Promise.resolve(reply) : side.call(call);
          },
        }));
        const result = await compareSides(spoiled, { markIndex, workers });
        const others = summaries(result).filter((line) => !line.startsWith(node));
        assert.deepEqual(
          others,
          [2, 700].map((index) => `n3 card_transaction log_index=${index} columns-differ held_minor`),
        );
      }),
      { numRuns: 40 },
    );
  });

  test('leaves a single copy, which proves nothing', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 10);
    const result = await compareSides(sidesOf(context, { n1: paths['n1'] ?? '' }), { markIndex });
    assert.deepEqual(inconclusive(result, 'n1'), ['no-other-copy']);
    assert.equal(verdict(result), 4);
  });

  test('lacks a table: that copy is damaged, and what comes after it inconclusive', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 10);
    runByHand(paths['n2'] ?? '', 'DROP TABLE reversal_tombstone');
    const result = await compareSides(sidesOf(context, paths), { markIndex });
    assert.deepEqual(inconclusive(result, 'n2'), ['damaged']);
    assert.deepEqual(summaries(result), ['n2 reversal_tombstone damaged']);
    assert.equal(verdict(result), 3);
  });

  test('has its snapshot at another index than the mark: inconclusive', async (context) => {
    const { paths, markIndex } = copies(temporaryFolder(context), 10);
    const late = join(temporaryFolder(context), 'late.db');
    writeFile(late, group, sampleLog(group, 9), ledgerFold);
    const result = await compareSides(sidesOf(context, { ...paths, n2: late }), { markIndex });
    assert.deepEqual(inconclusive(result, 'n2'), ['snapshot-not-opened']);
  });
});
