import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { AnswerChecks, type LeavingAnswer } from './answer-checks.ts';
import { judgeQuorum } from './acquirers.ts';
import type { Exchange, Purchase } from './journal.ts';
import { Violation } from './violation.ts';

/*
 * Each promise about answers, broken on purpose: a check that cannot fail proves nothing.
 */

const group = groupId('a');
const [n1, n2] = ['n1', 'n2'].map(nodeId) as [NodeId, NodeId];

const local: LeavingAnswer = {
  id: n1,
  group,
  term: 3,
  index: 7,
  durability: 'local',
  isCommitted: false,
  isOnDisk: true,
};

function finds(pattern: RegExp, action: () => void): void {
  assert.throws(action, (error: unknown) => error instanceof Violation && pattern.test(error.message));
}

describe('the checks of answers', () => {
  test('find an answer whose entry is not on the disk of its owner', () => {
    finds(/entry 7 of a, which is not on its disk/, () => {
      new AnswerChecks().left({ ...local, isOnDisk: false });
    });
  });

  test('find a quorum answer that leaves before its entry is committed', () => {
    const checks = new AnswerChecks();
    checks.left({ ...local, durability: 'quorum', isCommitted: true });
    finds(/entry 7 of a before its commit/, () => {
      checks.left({ ...local, durability: 'quorum' });
    });
  });

  test('find an owner that answers by itself when a later one has begun to', () => {
    const checks = new AnswerChecks();
    checks.left(local);
    checks.left({ ...local, id: n2, term: 4 });
    finds(/n1 answers for a by itself in term 3: n2 does in term 4/, () => {
      checks.left(local);
    });
  });

  test('let an owner of an earlier term answer with what is committed', () => {
    const checks = new AnswerChecks();
    checks.left({ ...local, id: n2, term: 4 });
    checks.left({ ...local, isCommitted: true });
  });

  test('find two leases at one instant, unless clocks are worse than leases allow for', () => {
    const checks = new AnswerChecks();
    const [older, newer] = [
      { id: n1, term: 3 },
      { id: n2, term: 4 },
    ];
    checks.leases(group, newer, [newer]);
    for (const [decider, valid] of [
      [newer, [older]],
      [newer, [older, newer]],
      [older, [older, newer]],
    ] as const) {
      finds(/decides for a while n[12] may still answer by itself/, () => {
        checks.leases(group, decider, valid);
      });
    }
    // Whoever has no lease any more may hand out what is committed.
    checks.leases(group, older, [newer]);
    checks.clocksKeepTheMargin = false;
    checks.leases(group, newer, [older, newer]);
  });
});

describe('an acquirer of a quorum range finds', () => {
  const request = (code: string, sentMs: number, authorizationCode = code === '00' ? '111111' : ''): Exchange => ({
    kind: 'request',
    key: 'k',
    node: n1,
    sentMs,
    answer: { atMs: sentMs + 10, responseCode: code, authorizationCode },
    over: true,
  });
  const reversal = (code: string, sentMs: number): Exchange => ({ ...request(code, sentMs, ''), kind: 'reversal' });

  /** What the last of these exchanges shows. */
  function judge(...exchanges: Exchange[]): void {
    const purchase: Purchase = {
      number: 1,
      pan: '',
      group,
      promise: 'quorum',
      amount: 1n,
      completedAmount: 1n,
      exchanges,
    };
    const last = exchanges.at(-1);
    assert.ok(last);
    judgeQuorum(purchase, last, last.answer?.responseCode ?? '');
  }

  test('nothing wrong with a repeat that gets the same answer, nor with 91 in between', () => {
    judge(request('91', 0), request('00', 100), request('91', 200), request('00', 300));
    judge(request('51', 0), request('51', 100));
    judge(request('00', 0), reversal('00', 100), request('94', 200));
  });

  const broken: readonly (readonly [name: string, pattern: RegExp, exchanges: readonly Exchange[]])[] = [
    ['two approvals', /approved as 111111 and as 222222/, [request('00', 0), request('00', 100, '222222')]],
    ['a repeat that is declined', /answered with 00, and its repeat with 51/, [request('00', 0), request('51', 100)]],
    ['a repeat that is approved', /answered with 51, and its repeat with 00/, [request('51', 0), request('00', 100)]],
    ['an approval after the reversal', /approved after it was reversed/, [reversal('00', 0), request('00', 100)]],
    ['a reversal that finds nothing', /its reversal found nothing/, [request('00', 0), reversal('25', 100)]],
    ['a reversal with two answers', /answered in two ways/, [reversal('25', 0), reversal('00', 100)]],
  ];
  for (const [name, pattern, exchanges] of broken) {
    test(name, () => {
      finds(pattern, () => {
        judge(...exchanges);
      });
    });
  }

  test('nothing in answers that crossed on their way', () => {
    // Both were asked before either was answered.
    judge(request('91', 0), { ...request('00', 5), sentMs: 5 }, { ...reversal('00', 6), sentMs: 6 });
  });
});
