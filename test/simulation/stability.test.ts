import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { Stability, type Situation } from './stability.ts';
import { Violation } from './violation.ts';

const group = groupId('a');
const [n1, n2, n3] = ['n1', 'n2', 'n3'].map(nodeId) as [NodeId, NodeId, NodeId];
const voters = [n1, n2, n3];

/** n1 leads; by default all is well. */
function situation(nowMs: number, changes: Partial<Situation> = {}): Situation {
  return {
    nowMs,
    isCalm: true,
    sound: new Set(voters),
    areConnected: () => true,
    hears: () => true,
    leaders: [{ id: n1, group, term: 2, voters }],
    ...changes,
  };
}

function after(ms: number, changes: (nowMs: number) => Partial<Situation> = () => ({})): Stability {
  const stability = new Stability(1_000);
  for (let nowMs = 0; nowMs <= ms; nowMs += 50) stability.sample(situation(nowMs, changes(nowMs)));
  return stability;
}

function finds(pattern: RegExp, action: () => void): void {
  assert.throws(action, (error: unknown) => error instanceof Violation && pattern.test(error.message));
}

describe('the check of stability', () => {
  test('finds a leader that is deposed though a sound majority was connected to it', () => {
    const stability = after(3_000, () => ({ areConnected: (_, other) => other !== n3 }));
    finds(/n1 was deposed as leader of a in term 2: all had been well for 3000 ms/, () => {
      stability.deposed(n1, group, 3_000);
    });
  });

  const excuses: readonly (readonly [name: string, (nowMs: number) => Partial<Situation>])[] = [
    ['messages were lost', (nowMs) => ({ isCalm: nowMs < 2_000 })],
    ['a majority was not reached', (nowMs) => ({ areConnected: () => nowMs < 2_000 })],
    ['a majority was not sound', (nowMs) => ({ sound: new Set(nowMs < 2_000 ? voters : [n1]) })],
    ['the leader itself stood', (nowMs) => ({ sound: new Set(nowMs < 2_000 ? voters : [n2, n3]) })],
  ];
  for (const [name, changes] of excuses) {
    test(`takes it for an excuse that ${name}`, () => {
      after(2_500, changes).deposed(n1, group, 2_500);
    });
  }

  test('takes a hand-over for an excuse for the rest of the term', () => {
    const stability = after(9_000);
    stability.handsOver(n1, group);
    stability.deposed(n1, group, 9_000);
    finds(/was deposed/, () => {
      after(9_000).deposed(n1, group, 9_000);
    });
  });

  test('takes a member that starts in a later term for an excuse, and only for a while', () => {
    const stability = after(3_000);
    stability.startsAhead(group, 2_900);
    stability.deposed(n1, group, 3_000);
    const later = after(9_000);
    later.startsAhead(group, 2_900);
    finds(/was deposed/, () => {
      later.deposed(n1, group, 9_000);
    });
  });

  test('finds a leader that goes on without a majority', () => {
    finds(/n1 still leads a, and has had no majority for 1000 ms/, () => {
      after(4_000, (nowMs) => ({ hears: () => nowMs < 2_000 }));
    });
  });

  test('lets a leader that stands itself be', () => {
    after(4_000, (nowMs) => ({ hears: () => nowMs < 2_000, sound: new Set([n2, n3]) }));
  });

  test('lets a leader go on that is heard by nobody and still hears a majority', () => {
    after(4_000, () => ({ areConnected: () => false }));
  });
});
