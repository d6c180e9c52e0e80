import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import type { EntryBody } from '../store/entry.ts';
import { cardsEntry, localPan, noOpEntry, OwnerBench, requestOf, range, emptyLedger } from './testing.ts';

const local = { pan: localPan };

describe('a local answer', () => {
  test('leaves while the lease is valid at that very moment', () => {
    for (const [leaseUntilMs, nowMs, leaves] of [
      [0, 0, false],
      [100, 99, true],
      [100, 100, false],
      [100, 101, false],
    ] as const) {
      const bench = new OwnerBench().ready();
      bench.leaseUntilMs = leaseUntilMs;
      bench.ask('r', local);
      bench.clock.advance(nowMs);
      bench.progress(2, 3);
      assert.deepEqual(bench.came(), leaves ? ['r 00'] : [], `lease ${leaseUntilMs} at ${nowMs}`);
    }
  });
  test('waits for the commit when the lease has ended between the decision and the sync', () => {
    const bench = new OwnerBench().ready();
    bench.leaseUntilMs = 50;
    bench.ask('r', local);
    bench.clock.advance(60);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
  test('leaves with the next progress when the lease is valid again', () => {
    const bench = new OwnerBench().ready();
    bench.leaseUntilMs = 0;
    bench.ask('first', local);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), []);
    bench.leaseUntilMs = 500;
    bench.ask('other', { ...local, stan: '000002' });
    bench.progress(2, 4);
    assert.deepEqual(bench.came(), ['first 00', 'other 00']);
  });
  test('of a repeat obeys the same: for the decision that it joins, and for its own attempt', () => {
    const bench = new OwnerBench().ready();
    bench.leaseUntilMs = 0;
    bench.ask('r', local);
    bench.ask('r', local);
    bench.ask('again', local);
    bench.progress(2, 4);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 4);
    assert.deepEqual(bench.came(), ['r 00', 'r 00']);
    bench.progress(4, 4);
    assert.deepEqual(bench.came(), ['again 00']);
  });
  test('of a quorum range in the same log takes no notice of the lease', () => {
    const bench = new OwnerBench().ready();
    bench.leaseUntilMs = 0;
    bench.ask('r');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
});

test('no stored approval leaves an owner that was replaced without knowing it', () => {
  for (const changes of [{}, local]) {
    const bench = new OwnerBench().ready();
    bench.ask('first', changes);
    bench.progress(3, 3);
    bench.came();
    // Nobody hears it any more, and it does not know yet: its disk goes on, nothing commits, its lease has ended.
    bench.leaseUntilMs = bench.clock.monotonicMs();
    bench.ask('again', changes);
    bench.progress(3, 4);
    assert.deepEqual(bench.came(), []);
    bench.owner.resign();
    assert.deepEqual(bench.came(), ['again not-the-owner']);
  }
});

describe('while a hand-over is under way', () => {
  test('new requests bounce, nothing is appended, and who waits gets the answer', () => {
    const bench = new OwnerBench().ready();
    bench.ask('waiting');
    bench.owner.pause(true);
    bench.ask('new', { stan: '000002' });
    bench.ask('waiting');
    bench.claim({ kind: 'undelivered', group: range.group_id, attempt: 'n3.1.1', key: 'k' });
    assert.equal(bench.owner.ready, false);
    assert.equal(bench.owner.append(cardsEntry), undefined);
    assert.deepEqual(bench.came(), ['new not-ready', 'waiting not-ready']);
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['waiting 00']);
    assert.equal(bench.last, 3);
  });
  test('that came to nothing, the owner goes on', () => {
    const bench = new OwnerBench().ready();
    bench.owner.pause(true);
    bench.owner.pause(false);
    bench.ask('r');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r 00']);
  });
  test('a new term ends the pause of the last one', () => {
    const bench = new OwnerBench().ready();
    bench.owner.pause(true);
    bench.term = 2;
    bench.ready();
    assert.equal(bench.owner.ready, true);
    bench.owner.pause(true);
    bench.owner.resign();
    bench.term = 3;
    bench.ready();
    assert.equal(bench.owner.ready, true);
  });
});

describe('what nodes bring', () => {
  const claim = { kind: 'undelivered', group: range.group_id, attempt: 'n2.1.late', key: 'k' } as const;
  test('is settled when its entry has committed, of local ranges, too, and is entered once', () => {
    const bench = new OwnerBench().ready();
    bench.claim(claim);
    bench.claim(claim);
    assert.equal(bench.last, 3);
    bench.progress(2, 3);
    assert.deepEqual(bench.came(), []);
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['undelivered entered', 'undelivered entered']);
    bench.claim(claim);
    assert.deepEqual([bench.came(), bench.last], [['undelivered entered'], 3]);
  });
  test('and was never seen is refused when it comes: nothing is decided for it', () => {
    const bench = new OwnerBench().ready();
    bench.claim(claim);
    bench.ask('late');
    bench.ask('in time');
    bench.progress(9, 9);
    assert.deepEqual(bench.came(), ['late given-up', 'undelivered entered', 'in time 00']);
    assert.deepEqual(bench.kinds(), ['undelivered', 'decision']);
  });
  test('is not settled by an owner that lost its entry, or that does not lead or is not ready', () => {
    const bench = new OwnerBench();
    bench.claim(claim);
    bench.lead(cardsEntry, noOpEntry);
    bench.claim(claim);
    assert.equal(bench.last, 2);
    bench.progress(2, 2);
    bench.claim(claim);
    bench.owner.resign();
    bench.progress(9, 9);
    bench.claim(claim);
    assert.deepEqual(bench.came(), []);
  });
  test('waits while the configuration is older than the log, and while the group has no majority', () => {
    const bench = new OwnerBench({ ledger: { ...emptyLedger, lastConfigIndex: () => 7 } });
    bench.ready();
    bench.claim(claim);
    bench.configIndex = 7;
    bench.ask('r');
    bench.clock.advance(3001);
    bench.claim(claim);
    assert.equal(bench.last, 3);
    bench.progress(3, 3);
    bench.claim(claim);
    assert.deepEqual(bench.kinds(), ['decision', 'undelivered']);
  });
});

describe('when leadership moves', () => {
  const next = (bench: OwnerBench, ...tail: EntryBody[]): OwnerBench => {
    bench.term += 1;
    return bench.lead(cardsEntry, noOpEntry, ...tail, { ...noOpEntry, term: bench.term });
  };
  test('a later term without a resignation between tells everyone to ask again, once', () => {
    const bench = new OwnerBench().ready();
    bench.ask('r');
    const seen: string[] = [];
    bench.owner.whenCommitted(
      3,
      () => seen.push('committed'),
      () => seen.push('lost'),
    );
    next(bench);
    assert.deepEqual([bench.came(), seen], [['r not-the-owner'], ['lost']]);
    bench.progress(9, 9);
    bench.owner.resign();
    assert.deepEqual([bench.came(), seen], [[], ['lost']]);
  });
  test('what the later term finds in its log is answered from it to the same attempt, with nothing entered', () => {
    const bench = new OwnerBench().ready();
    bench.ask('r');
    next(bench, ...bench.log.slice(2));
    bench.ask('r');
    bench.progress(4, 4);
    bench.ask('r');
    assert.deepEqual(bench.came(), ['r not-the-owner', 'r not-ready', 'r 00']);
    assert.equal(bench.last, 4);
  });
  test('what the later term does not find is decided anew', () => {
    const bench = new OwnerBench().ready();
    bench.ask('r');
    next(bench).progress(3, 3);
    bench.ask('r');
    assert.deepEqual(bench.kinds(), ['no-op', 'decision']);
  });
  test('progress of another term releases nobody and makes nobody ready', () => {
    const bench = new OwnerBench().ready();
    bench.ask('old');
    next(bench);
    bench.progress(9, 9, 1);
    assert.equal(bench.owner.ready, false, 'the entries of term 1 are not those of term 2');
    bench.progress(3, 3);
    bench.ask('new', { stan: '000002' });
    bench.progress(4, 4, 1);
    bench.progress(4, 4, 3);
    assert.deepEqual(bench.came(), ['old not-the-owner']);
    bench.progress(4, 4);
    assert.deepEqual(bench.came(), ['new 00']);
  });
  test('an owner decides by no configuration older than one that its fold was decided at', () => {
    const bench = new OwnerBench({ ledger: { ...emptyLedger, lastConfigIndex: () => 7 } });
    bench.configIndex = 6;
    bench.ready();
    bench.ask('r');
    bench.configIndex = 7;
    bench.ask('r');
    bench.progress(3, 3);
    assert.deepEqual(bench.came(), ['r not-ready', 'r 00']);
  });
});

test('whatever happens, everyone who asks is told once, and no answer leaves before its entry may', () => {
  const command = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('ask' as const), stan: fc.nat(5), attempt: fc.nat(3) }) },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('progress' as const),
        commit: fc.nat(3),
        durable: fc.nat(4),
        stale: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: 'lead' as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: 'resign' as const }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('pause' as const), on: fc.boolean() }) },
  );
  fc.assert(
    fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
      const bench = new OwnerBench().ready();
      let [commit, durable] = [2, 2];
      const told: number[] = [];
      for (const each of commands) {
        switch (each.kind) {
          case 'ask': {
            const number = told.push(0) - 1;
            const key = requestOf({ stan: String(each.stan).padStart(6, '0') });
            const attempt = `n2.1.${each.stan}-${each.attempt}`;
            bench.owner.request(key, attempt, (outcome) => {
              told[number] = (told[number] ?? 0) + 1;
              if (outcome.kind !== 'answer' || outcome.answer.responseCode !== '00') return;
              const entry = bench.log.findIndex(
                (body) =>
                  'attempt' in body &&
                  body.attempt === attempt &&
                  (body.kind === 'decision' || body.kind === 'attempt'),
              );
              assert.ok(entry !== -1, 'an approval has an entry of its attempt');
              assert.ok(entry + 1 <= Math.min(commit, durable), 'which is committed and on disk');
            });
            break;
          }
          case 'progress':
            if (each.stale) bench.progress(99, 99, bench.term - 1);
            else {
              commit = Math.min(bench.last, commit + each.commit);
              durable = Math.min(bench.last, durable + each.durable);
              bench.progress(commit, durable);
            }
            break;
          case 'lead': {
            // What had committed stays; of the rest the new term's log keeps a part.
            const kept = bench.log.slice(0, Math.max(commit, 2, bench.last - 1));
            bench.term += 1;
            bench.lead(...kept, { ...noOpEntry, term: bench.term });
            durable = Math.min(durable, commit);
            break;
          }
          case 'resign':
            bench.owner.resign();
            break;
          case 'pause':
            bench.owner.pause(each.on);
        }
      }
      bench.owner.resign();
      assert.ok(told.every((times) => times === 1));
    }),
  );
});

test('its meter hears how long a decision took to become durable, of those that were left open, and what was settled', () => {
  const heard: unknown[][] = [];
  const meter = {
    durable: (...all: unknown[]) => heard.push(['durable', ...all]),
    lost: (...all: unknown[]) => heard.push(['lost', ...all]),
    overloaded: (...all: unknown[]) => heard.push(['overloaded', ...all]),
    settled: (of: string, claim: { kind: string }, outcome: string) => heard.push(['settled', of, claim.kind, outcome]),
  };
  const bench = new OwnerBench({ meter }).ready();
  bench.ask('first');
  bench.clock.advance(12);
  bench.progress(3, 3);
  bench.ask('second', { stan: '000002' });
  bench.clock.advance(5);
  bench.owner.resign();
  assert.deepEqual(heard, [
    ['durable', 'a', 'n2.1.first', 3, 12],
    ['lost', 'a', 'n2.1.second', 4, 5],
  ]);
});

describe('an owner whose file cannot be read', () => {
  const corrupt = Object.assign(new Error('database disk image is malformed'), { code: 'SQLITE_CORRUPT' });

  test('owns no longer: nobody waits for it, nobody is declined by it, and consensus is told', () => {
    let isReadable = true;
    const ledger = {
      ...emptyLedger,
      transactionByKey: (key: string) => {
        if (!isReadable) throw corrupt;
        return emptyLedger.transactionByKey(key);
      },
    };
    const bench = new OwnerBench({ ledger }).ready();
    bench.ask('before');
    isReadable = false;
    bench.ask('unread', { stan: '000002' });
    assert.deepEqual(bench.came(), ['before not-the-owner', 'unread not-the-owner']);
    assert.deepEqual([bench.owner.ready, bench.unreadable], [false, [corrupt.message]]);
    bench.ask('after', { stan: '000003' });
    assert.deepEqual(bench.came(), ['after not-the-owner']);
  });

  test('expires nothing', () => {
    const ledger = {
      ...emptyLedger,
      holdsDue: () => {
        throw corrupt;
      },
    };
    const bench = new OwnerBench({ ledger }).ready();
    const before = bench.log.length;
    bench.owner.expireHolds(10);
    assert.deepEqual([bench.log.length, bench.unreadable], [before, [corrupt.message]]);
  });

  test('ends the process when it is no fault of the file', () => {
    const ledger = {
      ...emptyLedger,
      transactionByKey: () => {
        throw new TypeError('a defect');
      },
    };
    const bench = new OwnerBench({ ledger }).ready();
    assert.throws(() => {
      bench.ask('r');
    }, /a defect/);
  });
});
