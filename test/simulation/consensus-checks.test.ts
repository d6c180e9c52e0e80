import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';

import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition } from '../../store/entry.ts';
import { ConsensusChecks, type Life } from './consensus-checks.ts';
import { Violation } from './violation.ts';

/*
 * Each promise of consensus, broken on purpose: a check that cannot fail proves nothing.
 */

const group = groupId('a');
const [n1, n2, n3] = ['n1', 'n2', 'n3'].map(nodeId) as [NodeId, NodeId, NodeId];
const voters = [n1, n2, n3];

/** A log of entries of these terms; `mark` makes another log of the same shape. */
function logOf(terms: readonly number[], mark = ''): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const term of terms) {
    const previous: LogPosition = entries.at(-1) ?? originPosition(group);
    entries.push(chainEntry(previous, term, `"${previous.index + 1} ${mark}"`));
  }
  return entries;
}

class Member implements Life {
  readonly id: NodeId;
  entries: LogEntry[];
  base: number;
  /** How much of the log is on disk. */
  synced: number;

  constructor(id: NodeId, entries: LogEntry[], base = 0) {
    this.id = id;
    this.entries = entries;
    this.base = base;
    this.synced = entries.length;
  }

  get log() {
    const { entries, base } = this;
    return {
      last: entries.at(-1) ?? originPosition(group),
      base,
      position: (index: number) => (index <= base ? undefined : entries[index - 1]),
    };
  }
}

describe('the checks of consensus', () => {
  let members: Member[];
  let checks: ConsensusChecks;

  const member = (id: NodeId): Member => {
    const found = members.find((each) => each.id === id);
    assert.ok(found);
    return found;
  };
  /** All three with this log; the first one leads term 1. */
  const begin = (terms: readonly number[]): void => {
    members = voters.map((id) => new Member(id, logOf(terms)));
    checks = new ConsensusChecks(group, (id, index) => {
      const { base, synced, entries } = member(id);
      return index > synced ? undefined : index <= base ? 'trimmed' : entries[index - 1];
    });
    for (const each of members) checks.started(each, 0);
    checks.elected(member(n1), 1);
  };
  const finds = (pattern: RegExp, action: () => void): void => {
    assert.throws(action, (error: unknown) => error instanceof Violation && pattern.test(error.message));
  };

  beforeEach(() => {
    begin([1, 1, 1]);
  });

  test('find nothing where nothing is wrong', () => {
    checks.durableThrough(member(n1), 3);
    checks.committedThrough(member(n1), 3, 1, voters);
    checks.committedThrough(member(n2), 3, 1, undefined);
    checks.applied(member(n1), 3);
    checks.resigned(member(n1));
    checks.elected(member(n2), 2);
    assert.equal(checks.committed, 3);
  });

  test('find two leaders of one term', () => {
    finds(/election safety/, () => {
      checks.elected(member(n2), 1);
    });
  });

  test('find a process that wins its term again after a crash', () => {
    const again = new Member(n1, logOf([1, 1, 1]));
    checks.started(again, 0);
    finds(/election safety/, () => {
      checks.elected(again, 1);
    });
  });

  test('find a process that works on after its crash', () => {
    const before = member(n2);
    checks.started(new Member(n2, logOf([1])), 0);
    finds(/works on after its crash/, () => {
      checks.committedThrough(before, 1, 1, undefined);
    });
  });

  test('find a leader that replaces what it has entered', () => {
    checks.changed(member(n1));
    member(n1).entries = logOf([1, 1, 1, 1]);
    checks.changed(member(n1));
    member(n1).entries = logOf([1, 1, 1, 2, 2]);
    finds(/leader append-only: has replaced its entry 4 while it leads term 1/, () => {
      checks.changed(member(n1));
    });
  });

  test('find a committed entry that is cut', () => {
    checks.committedThrough(member(n1), 3, 1, voters);
    checks.committedThrough(member(n2), 3, 1, undefined);
    member(n2).entries = logOf([1, 1]);
    finds(/has cut committed entry 3/, () => {
      checks.changed(member(n2));
    });
  });

  test('find another entry at the same index and term', () => {
    checks.durableThrough(member(n1), 3);
    member(n2).entries = logOf([1, 1, 1], 'another');
    member(n2).synced = 0;
    checks.durableThrough(member(n2), 0);
    finds(/log matching/, () => {
      checks.durableThrough(member(n2), 3);
    });
  });

  test('find another log at a start', () => {
    finds(/log matching/, () => {
      checks.started(new Member(n3, logOf([1, 1], 'another')), 0);
    });
  });

  test('find a leader that lacks a committed entry', () => {
    checks.committedThrough(member(n1), 3, 1, voters);
    member(n2).entries = logOf([1, 1]);
    finds(/leader completeness: leads term 2 without committed entry 3/, () => {
      checks.elected(member(n2), 2);
    });
  });

  test('find a leader of a later term that lacks what an earlier term still commits', () => {
    member(n2).entries = logOf([1, 1]);
    checks.elected(member(n2), 2);
    finds(/leader completeness: leads term 2 without committed entry 3/, () => {
      checks.committedThrough(member(n1), 3, 1, voters);
    });
  });

  test('let a leader of an earlier term be without what a later one commits', () => {
    member(n1).entries = logOf([1, 1]);
    checks.elected(member(n2), 2);
    member(n2).entries = logOf([1, 1, 1, 2]);
    member(n3).entries = logOf([1, 1, 1, 2]);
    member(n2).synced = 4;
    member(n3).synced = 4;
    checks.committedThrough(member(n2), 4, 2, voters);
    assert.equal(checks.committed, 4);
  });

  test('find two entries committed at one index', () => {
    checks.committedThrough(member(n1), 3, 1, voters);
    member(n2).entries = logOf([1, 1, 1], 'another');
    finds(/state machine safety/, () => {
      checks.committedThrough(member(n2), 3, 1, undefined);
    });
  });

  test('find an entry committed by counting in a later term than its own', () => {
    checks.elected(member(n2), 2);
    finds(/counts entry 3 of term 1 in its own term 2/, () => {
      checks.committedThrough(member(n2), 3, 2, voters);
    });
  });

  test('find an entry committed that a majority does not have on disk', () => {
    member(n2).synced = 2;
    member(n3).synced = 2;
    finds(/1 of 3 voters have it on disk/, () => {
      checks.committedThrough(member(n1), 3, 1, voters);
    });
  });

  test('find an entry committed that the leader itself does not have on disk', () => {
    member(n1).synced = 2;
    finds(/which it does not have on its own disk/, () => {
      checks.committedThrough(member(n1), 3, 1, voters);
    });
  });

  test('count what was trimmed as on disk', () => {
    member(n2).base = 3;
    member(n3).synced = 0;
    checks.committedThrough(member(n1), 3, 1, voters);
    assert.equal(checks.committed, 3);
  });

  test('find a commit index that goes back', () => {
    checks.committedThrough(member(n1), 3, 1, voters);
    finds(/takes its commit index back from 3 to 2/, () => {
      checks.committedThrough(member(n1), 2, 1, voters);
    });
  });

  test('find an entry applied before it is committed', () => {
    finds(/applies 1, and knows 0 to be committed/, () => {
      checks.applied(member(n1), 1);
    });
  });

  test('find a fold that starts with more than is committed', () => {
    finds(/starts with 2 applied/, () => {
      checks.started(new Member(n3, logOf([1, 1])), 2);
    });
  });

  test('find a snapshot of another log, and one of what is not committed', () => {
    checks.committedThrough(member(n1), 3, 1, voters);
    const [, , other] = logOf([1, 1, 1], 'another');
    const [, , , beyond] = logOf([1, 1, 1, 1]);
    assert.ok(other !== undefined && beyond !== undefined);
    finds(/snapshot of another log at 3/, () => {
      checks.installed(member(n2), other);
    });
    finds(/snapshot at 4, which is not committed/, () => {
      checks.installed(member(n2), beyond);
    });
  });
});
