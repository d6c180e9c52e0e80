import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import {
  cardKeys,
  cardsEntry as cards,
  foreignPan,
  localPan,
  namedBy,
  noOpEntry as noOp,
  OwnerBench as Bench,
  pan,
  requestOf,
} from './testing.ts';

describe('an owner decides nothing', () => {
  test('before it leads', () => {
    const bench = new Bench();
    bench.ask('r');
    assert.deepEqual(bench.came(), ['r not-the-owner']);
    assert.equal(bench.owner.append(noOp), undefined);
  });
  test('before the first entry of its term has committed, on disk or not', () => {
    const bench = new Bench().lead(cards, noOp);
    bench.ask('r');
    bench.progress(1, 2);
    bench.ask('r');
    assert.equal(bench.owner.ready, false);
    assert.equal(bench.owner.append(noOp), undefined);
    bench.progress(2, 2);
    assert.equal(bench.owner.ready, true);
    assert.deepEqual(bench.came(), ['r not-ready', 'r not-ready']);
    assert.equal(bench.last, 2);
  });
  test('while its configuration is older than one that the log was decided at', () => {
    const bench = new Bench();
    bench.configIndex = 7;
    bench.ready();
    bench.ask('first');
    bench.configIndex = 6;
    bench.ask('r', { stan: '000002' });
    assert.deepEqual(bench.came(), ['r not-ready']);
    bench.configIndex = 7;
    bench.ask('r', { stan: '000002' });
    bench.progress(4, 4);
    assert.deepEqual(bench.came(), ['first 00', 'r 00']);
  });
  test('without a configuration', () => {
    const bench = new Bench({ configuration: () => undefined }).ready();
    bench.ask('r');
    assert.deepEqual(bench.came(), ['r not-ready']);
  });
  test('for the cards of another group, or for a link that it does not know', () => {
    const bench = new Bench().ready();
    bench.ask('card', { pan: foreignPan });
    bench.ask('link', { link: 'link-9' });
    assert.deepEqual(bench.came(), ['card other-group', 'link 58']);
  });
  test('when the log says that another leads', () => {
    const bench = new Bench().ready();
    bench.leads = false;
    bench.ask('r');
    assert.deepEqual(bench.came(), ['r not-the-owner']);
  });
});

describe('an answer leaves', () => {
  test('of a quorum range when its entry is committed and on this disk', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    assert.equal(bench.last, 3);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), [], 'on disk alone is not enough');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
    assert.equal(bench.owner.waiting, 0);
  });
  test('of a quorum range not when others have committed it and this disk has not', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    bench.progress(3, 2);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
  test('of a local range when it is on this disk', () => {
    const bench = new Bench().ready();
    bench.ask('r', { pan: localPan });
    assert.deepEqual(bench.came(), []);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
  test('of each range by its own rule, in one log', () => {
    const bench = new Bench().ready();
    bench.ask('quorum', { stan: '000001' });
    bench.ask('local', { stan: '000002', pan: localPan });
    bench.ask('declined', { stan: '000003', amount: 900_000n });
    bench.progress(2, 5);
    assert.deepEqual(bench.came(), ['local 00']);
    bench.progress(3, 5);
    assert.deepEqual(bench.came(), ['quorum 00']);
    bench.progress(5, 5);
    assert.deepEqual(bench.came(), ['declined 51'], 'a decline too is an entry');
  });
  test('at once when nothing has to be recorded', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    bench.ask('other amount', { amount: 1n });
    assert.deepEqual(bench.came(), ['other amount 94']);
  });
  test('exactly once', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    for (let time = 0; time < 3; time++) bench.progress(3, 3);
    bench.owner.resign();
    assert.deepEqual(bench.came(), ['r 00']);
  });
});

describe('a repeat', () => {
  test('of a request that is being decided joins it: decided once, one answer, when its own attempt is entered', () => {
    const bench = new Bench().ready();
    bench.ask('first');
    bench.ask('again', { repeat: true });
    bench.ask('and again');
    assert.deepEqual(bench.kinds(), ['decision', 'attempt', 'attempt']);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 5);
    assert.deepEqual(bench.came(), ['first 00']);
    bench.progress(5, 5);
    assert.deepEqual(bench.came(), ['again 00', 'and again 00']);
  });
  test('of a committed approval waits for the entry of its attempt, by the rule of its range', () => {
    for (const [changes, committed] of [
      [{}, 4],
      [{ pan: localPan }, 3],
    ] as const) {
      const bench = new Bench().ready();
      bench.ask('first', changes);
      bench.progress(3, 3);
      bench.ask('again', changes);
      assert.deepEqual(bench.came(), ['first 00']);
      bench.progress(3, 3);
      assert.deepEqual(bench.came(), [], 'it is on no disk');
      bench.progress(committed, 4);
      assert.deepEqual(bench.came(), ['again 00']);
    }
  });
  test('that the edge sends again with the same attempt enters nothing, and waits for what it waited for', () => {
    const bench = new Bench().ready();
    bench.ask('first');
    bench.ask('first');
    bench.ask('again');
    bench.ask('again');
    assert.deepEqual(bench.kinds(), ['decision', 'attempt']);
    bench.progress(3, 4);
    assert.deepEqual(bench.came(), ['first 00', 'first 00']);
    bench.progress(4, 4);
    assert.deepEqual(bench.came(), ['again 00', 'again 00']);
    bench.ask('first');
    bench.ask('again');
    assert.deepEqual(bench.came(), ['first 00', 'again 00'], 'all of it has committed');
  });
  test('enters no attempt where no money moved, or where none is taken back', () => {
    const bench = new Bench().ready();
    const asked = [
      { stan: '000001', amount: 900_000n },
      { stan: '000002', processingCode: '310000', amount: 0n },
      { stan: '000003', mtiClass: '0120' },
      { stan: '000004', mtiClass: '0220' },
      { stan: '000005', mtiClass: '0400' },
      { stan: '000006', mtiClass: '0420' },
    ] as const;
    for (const changes of asked) bench.ask('first', changes);
    for (const changes of asked) bench.ask('again', changes);
    assert.ok(!bench.kinds().includes('attempt'));
    bench.progress(8, 8);
    assert.equal(bench.came().length, 12);
  });
  test('of what an earlier leader decided waits for its own term', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    const decided = bench.log.slice(2);
    const next = new Bench().lead(cards, ...decided, noOp);
    next.progress(2, 3);
    assert.equal(next.owner.ready, false);
    next.ask('again');
    next.progress(3, 3);
    next.ask('again');
    next.ask('r');
    assert.deepEqual(next.came(), ['again not-ready', 'r 00'], 'the very attempt needs no entry');
    next.progress(4, 4);
    assert.deepEqual(next.came(), ['again 00']);
  });
  test('after the reversal, both still on the way to the disk, is declined', () => {
    const bench = new Bench().ready();
    bench.ask('first');
    bench.ask('reversal', { mtiClass: '0420', stan: '000900', originalDataElements: namedBy(requestOf()) });
    bench.ask('again', { repeat: true });
    bench.progress(4, 4);
    assert.deepEqual(bench.came().sort(), ['again 94', 'first 00', 'reversal 00']);
  });
  test('that joined an old entry late is not held up behind newer ones for good', () => {
    const bench = new Bench({ localTailEntries: 2 }).ready();
    bench.ask('first', { pan: localPan });
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), ['first 00']);
    for (let at = 2; at < 6; at++) bench.ask(`r${at}`, { pan: localPan, stan: `00000${at}` });
    bench.ask('first', { pan: localPan, repeat: true });
    bench.progress(7, 7);
    assert.equal(bench.came().length, 5);
    assert.equal(bench.owner.waiting, 0);
  });
});

describe('an owner that resigns', () => {
  test('tells everyone who waits to look for the owner, once', () => {
    const bench = new Bench().ready();
    bench.ask('first');
    bench.ask('again');
    const seen: string[] = [];
    bench.owner.whenCommitted(
      3,
      () => seen.push('committed'),
      () => seen.push('lost'),
    );
    bench.owner.resign();
    bench.progress(9, 9);
    bench.ask('late');
    assert.deepEqual(bench.came(), ['first not-the-owner', 'again not-the-owner', 'late not-the-owner']);
    assert.deepEqual(seen, ['lost']);
    assert.equal(bench.owner.waiting, 0);
  });
  test('and leads again sees the log as it is then, without what was cut off', () => {
    const bench = new Bench().ready();
    bench.ask('lost');
    bench.owner.resign();
    bench.lead(cards, { ...noOp, term: 2 }).progress(2, 2);
    assert.deepEqual(bench.came(), ['lost not-the-owner']);
    bench.ask('anew');
    assert.equal(bench.last, 3, 'it is decided anew');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['anew 00']);
  });
});

describe('the tail of a local range is bounded:', () => {
  const five = (bench: Bench, count: number): void => {
    for (let at = 1; at <= count; at++) bench.ask(`r${at}`, { pan: localPan, stan: `00000${at}`, amount: 1n });
  };
  test('beyond its entries answers wait for the commit', () => {
    const bench = new Bench().ready();
    five(bench, 6);
    bench.progress(2, 8);
    assert.deepEqual(bench.came(), [], 'six entries are not committed');
    bench.progress(3, 8);
    assert.equal(bench.came().length, 6, 'five are');
  });
  test('beyond its age answers wait for the commit', () => {
    const bench = new Bench().ready();
    five(bench, 1);
    bench.clock.advance(501);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r1 00']);
    bench.ask('later', { pan: localPan, stan: '000009' });
    bench.progress(3, 4);
    assert.deepEqual(bench.came(), ['later 00'], 'what committed no longer counts');
  });
});

describe('a group without its majority', () => {
  test('takes nothing new when its oldest entry has waited too long, and takes it again when that commits', () => {
    const bench = new Bench().ready();
    bench.ask('r');
    bench.clock.advance(3000);
    bench.ask('still', { stan: '000002' });
    bench.clock.advance(1);
    bench.ask('refused', { stan: '000003' });
    assert.deepEqual(bench.came(), ['refused overloaded']);
    bench.progress(4, 4);
    bench.ask('taken', { stan: '000004' });
    bench.progress(5, 5);
    assert.deepEqual(bench.came(), ['r 00', 'still 00', 'taken 00']);
  });
  test('is not stalled by having been idle', () => {
    const bench = new Bench().ready();
    bench.clock.advance(1_000_000);
    bench.ask('r');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
});

describe("the owner's own entries", () => {
  test('are seen by the next decision, and reported when they commit', () => {
    const bench = new Bench().lead(noOp).progress(1, 1);
    bench.ask('unknown', { stan: '000001' });
    const index = bench.owner.append(cards);
    assert.equal(index, 3);
    const seen: string[] = [];
    const wait = (): void => {
      bench.owner.whenCommitted(
        3,
        () => seen.push('committed'),
        () => seen.push('lost'),
      );
    };
    wait();
    bench.ask('known', { stan: '000002' });
    bench.progress(2, 4);
    assert.deepEqual(seen, []);
    bench.progress(4, 4);
    wait();
    assert.deepEqual(seen, ['committed', 'committed']);
    assert.deepEqual(bench.came(), ['unknown 14', 'known 00']);
  });
  test('do not end the wait for a local card before they commit', () => {
    const bench = new Bench().ready();
    const index = bench.owner.append({ ...cards, added: [] });
    const seen: string[] = [];
    bench.owner.whenCommitted(
      index ?? 0,
      () => seen.push('committed'),
      () => seen.push('lost'),
    );
    bench.progress(2, 3);
    assert.deepEqual(seen, []);
  });
});

test('what the file has applied leaves memory', () => {
  const bench = new Bench().ready();
  bench.ask('r');
  bench.progress(3, 3);
  const before = bench.owner.ledger.cardByPanHash(cardKeys.hash(pan));
  assert.equal(before?.held, 5000n);
  bench.owner.onApplied(3);
  assert.equal(bench.owner.ledger.transaction(3), undefined, 'the file of this test is empty');
});
