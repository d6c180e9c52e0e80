import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { SwitchError } from '../base/errors.ts';
import type { Cluster } from './driver/testing.ts';
import { formed, group, n1, n2, n3, n4, w1, type Process } from './driver/testing.ts';
import { at, electionTimeoutMs, heartbeatMs } from './testing.ts';

/* Disks that are full, slow or away, and copies that are made anew while the process runs. */

const full = 'database or disk is full';
const eventsOf = ({ loggedEvents }: Process): string[] =>
  loggedEvents.filter((each) => each.group === group).map(({ event }) => event);

/** `count` entries of the owner, and time until every process has them. */
function enter(cluster: Cluster, count: number): void {
  const leader = cluster.of(at(cluster.leader()));
  for (let each = 0; each < count; each++) leader.propose(group, '"x"');
  cluster.advance(500);
}

describe('a disk that cannot be written', () => {
  test('costs its process the leadership and nobody an entry; mended, it is in its place again', () => {
    const cluster = formed();
    enter(cluster, 5);
    const owner = cluster.of(n1);
    owner.diskFailure = full;
    owner.propose(group, '"lost with it"');
    cluster.advance(heartbeatMs);
    assert.equal(owner.status().failure, full);
    assert.deepEqual(owner.told('resign', 'failure'), ['resign', 'failure']);
    assert.ok(cluster.until(n2) < 2 * electionTimeoutMs);
    enter(cluster, 5);
    cluster.advance(10_000);
    assert.deepEqual(owner.openings, Array(3).fill('a again'), 'tried again, less and less often');
    assert.equal(eventsOf(owner).filter((event) => event === 'disk-failed').length, 1, 'one line for one reason');
    owner.diskFailure = undefined;
    cluster.advance(10_000);
    assert.equal(owner.status().failure, undefined);
    assert.equal(cluster.leader(), n1, 'failback');
    assert.ok(eventsOf(owner).includes('disk-mended'));
    const [one, other] = [owner.folder.diskOf(group), cluster.of(n3).folder.diskOf(group)];
    assert.equal(one.last().hash, other.last().hash);
    assert.equal(owner.status().incarnation, 1, 'it is the member that it was');
  });

  test('says so again when it is for another reason', () => {
    const cluster = formed();
    const follower = cluster.of(n3);
    follower.diskFailure = full;
    enter(cluster, 1);
    follower.diskFailure = 'attempt to write a readonly database';
    cluster.advance(10_000);
    assert.equal(follower.status().failure, 'attempt to write a readonly database');
    assert.equal(eventsOf(follower).filter((event) => event === 'disk-failed').length, 2);
    assert.equal(cluster.leader(), n1, 'nobody else has noticed');
  });

  test('that does not answer for seconds costs the leadership as well', () => {
    const cluster = formed();
    enter(cluster, 5);
    const owner = cluster.of(n1);
    owner.diskStands = true;
    owner.propose(group, '"waits"');
    cluster.advance(1_000);
    assert.equal(cluster.leader(), n1, 'an outlier is none');
    assert.ok(cluster.until(n2) < 3_000);
    assert.match(
      owner.loggedEvents.find(({ event, group: of }) => event === 'leads-no-longer' && of === group)?.reason ?? '',
      /^its disk has taken 1[0-9]{3} ms for a write$/,
    );
    cluster.advance(10_000);
    assert.equal(cluster.leader(), n2, 'it does not stand for election meanwhile');
    owner.diskStands = false;
    cluster.until(n1, 90_000);
  });
});

describe('a copy whose file is damaged', () => {
  const malformed = 'database disk image is malformed';

  test('is left to the others until it is made anew: it is not tried again', () => {
    const cluster = formed();
    enter(cluster, 5);
    const owner = cluster.of(n1);
    owner.diskFailure = malformed;
    owner.failureCause = 'damage';
    owner.propose(group, '"lost with it"');
    cluster.advance(heartbeatMs);
    assert.equal(owner.status().failure, malformed);
    assert.ok(cluster.until(n2) < 2 * electionTimeoutMs);
    cluster.advance(20_000);
    assert.deepEqual([owner.openings, eventsOf(owner).includes('copy-stopped')], [[], true]);
    owner.diskFailure = undefined;
    owner.driver.rebuild(group, () => undefined);
    cluster.advance(5_000);
    assert.deepEqual([owner.status().failure, owner.status().votes], [undefined, true]);
  });

  test('stops as well when the deciding thread alone has noticed', () => {
    const cluster = formed();
    const owner = cluster.of(n1);
    owner.driver.fail(group, malformed, 'damage');
    assert.deepEqual(owner.told('resign', 'failure'), ['resign', 'failure']);
    assert.equal(owner.status().failure, malformed);
    cluster.until(n2);
  });

  test('stops as well when consensus has to read from it, for a member that is behind', () => {
    const cluster = formed();
    cluster.kill(n4);
    enter(cluster, 50);
    // After a start nothing of the log is in memory.
    cluster.kill(n1);
    cluster.start(n1);
    cluster.until(n1, 90_000);
    const owner = cluster.of(n1);
    const disk = owner.folder.diskOf(group);
    disk.entries = () => {
      throw Object.assign(new Error(malformed), { code: 'SQLITE_CORRUPT' });
    };
    cluster.start(n4);
    cluster.until(n2);
    assert.equal(owner.status().failure, malformed);
  });
});

describe('a copy that is made anew', () => {
  const rebuild = ({ driver }: Process): (Error | undefined)[] => {
    const outcomes: (Error | undefined)[] = [];
    driver.rebuild(group, (error) => outcomes.push(error));
    return outcomes;
  };

  test('is a lost disk for the others: a new member, until it has caught up', () => {
    const cluster = formed();
    enter(cluster, 5);
    const process = cluster.of(n3);
    assert.deepEqual(rebuild(process), [undefined]);
    assert.deepEqual(process.openings, ['a empty']);
    assert.equal(process.status().votes, false);
    cluster.advance(5_000);
    const { votes, incarnation, failure } = process.status();
    assert.deepEqual({ votes, incarnation, failure }, { votes: true, incarnation: 2, failure: undefined });
    assert.equal(process.folder.diskOf(group).last().hash, cluster.of(n1).folder.diskOf(group).last().hash);
  });

  test('salvages first what nobody else may have', () => {
    const cluster = formed();
    enter(cluster, 2);
    const process = cluster.of(n1);
    cluster.cutOff = new Set([n1]);
    process.propose(group, '"one"', '"two"');
    const { last } = process.status();
    cluster.advance(2 * electionTimeoutMs);
    cluster.cutOff = new Set();
    for (let passed = 0; passed < 5_000 && process.status().leader !== n2; passed += 25) {
      process.salvaged.length = 0;
      cluster.advance(25);
    }
    assert.equal(process.status().leader, n2);
    // Whether it was cut by the new leader just now or is kept for the rebuilding: it is not lost.
    const before = [...process.salvaged];
    rebuild(process);
    assert.deepEqual(
      [...new Set([...before, ...process.salvaged])].filter((index) => index >= last - 1),
      [last - 1, last],
    );
  });

  test('is not the one of the leader, nor one that nobody leads', () => {
    const cluster = formed();
    assert.throws(
      () => rebuild(cluster.of(n1)),
      (error) => error instanceof SwitchError && error.code === 'REBUILD_REFUSED' && error.message.includes('leads it'),
    );
    for (const id of [n1, n2, w1]) cluster.kill(id);
    cluster.advance(3 * electionTimeoutMs);
    assert.throws(() => rebuild(cluster.of(n3)), { message: 'group a is not made anew: nobody leads it' });
    assert.deepEqual(cluster.of(n3).openings, []);
  });

  test('whose disk fails meanwhile goes on when it works again', () => {
    const cluster = formed();
    enter(cluster, 3);
    const process = cluster.of(n3);
    process.diskFailure = full;
    assert.equal(rebuild(process)[0]?.message, full);
    assert.equal(process.status().failure, full);
    process.diskFailure = undefined;
    cluster.advance(5_000);
    assert.deepEqual([process.status().failure, process.status().votes], [undefined, true]);
  });
});
