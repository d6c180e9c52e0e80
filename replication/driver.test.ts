import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { configGroup, type NodeId } from '../base/identifiers.ts';
import { at, electionTimeoutMs, leaseMs } from './testing.ts';
import { group, n1, n2, n3, n4, w1, everybody, failbackMs, type Process, Cluster, formed } from './driver/testing.ts';

/* Who leads and who hands over to whom (R7), and when a lease has to be over for that (R3). */

describe('who leads (R7)', () => {
  test('the first of the failover order, from the start', () => {
    const cluster = new Cluster();
    assert.ok(cluster.until(n1) < electionTimeoutMs);
    cluster.advance(5_000);
    assert.equal(cluster.leader(), n1);
    assert.equal(cluster.of(n1).status().term, 1, 'at once, and for good');
  });

  test('every election, and why a leader ceased to be it, is told and counted', () => {
    const cluster = formed();
    const said = (id: NodeId): string[] =>
      cluster
        .of(id)
        .loggedEvents.filter((each) => each.group === group)
        .map(({ event, term = 0, reason = '' }) => `${event} ${term} ${reason}`.trim())
        .filter((text) => /^(election|elected|leads-no-longer)/.test(text));
    assert.deepEqual(said(n1), ['election 1 timeout', 'elected 1']);
    cluster.of(n1).driver.drain(true);
    cluster.until(n2);
    assert.deepEqual(said(n1).slice(2), [`leads-no-longer 2 n2 asks for votes in term 2 (transfer)`]);
    assert.deepEqual(said(n2), ['election 2 transfer', 'elected 2']);
    const { counts } = cluster.of(n1).status();
    assert.deepEqual(counts, { elections: 1, won: 1, handOvers: 1, handOversFailed: 0, leaderChanges: 2 });
  });

  test('followers that do not hear their leader any more say so; those who are asked for a vote after that do not', () => {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    const silent = [n2, n3, n4, w1].flatMap((id) =>
      cluster.of(id).loggedEvents.filter((each) => each.event === 'leader-silent' && each.group === group),
    );
    assert.ok(silent.length >= 1 && silent.length <= 4);
    assert.ok(silent.every(({ term }) => term === 1));
    cluster.advance(1000);
    cluster.of(n2).driver.drain(true);
    cluster.until(n3);
    const later = [n3, n4, w1].flatMap((id) => cluster.of(id).loggedEvents.filter(({ term }) => term === 3));
    assert.ok(later.length > 0 && later.every(({ event }) => event !== 'leader-silent'), 'a hand-over is no silence');
  });

  test('a leader that hears no majority says that it ceases for that', () => {
    const cluster = formed();
    for (const id of [n2, n3, n4, w1]) cluster.kill(id);
    cluster.advance(2 * electionTimeoutMs);
    const ended = cluster
      .of(n1)
      .loggedEvents.find(({ event, group: of }) => event === 'leads-no-longer' && of === group);
    assert.equal(ended?.reason, `no majority has answered for ${electionTimeoutMs} ms`);
  });

  test('each group by its own order', () => {
    const cluster = new Cluster([]);
    cluster.order = [n3, n4, n1, n2];
    for (const id of everybody) cluster.start(id);
    cluster.until(n3);
    assert.equal(cluster.leader(configGroup), n3);
  });

  test('when it dies, the next one, well within a second', () => {
    const cluster = formed();
    cluster.kill(n1);
    assert.ok(cluster.until(n2) <= 800);
    cluster.kill(n2);
    assert.ok(cluster.until(n3) <= 800);
  });

  test('a node without a rank in its own rows is not willing, and leads only for want of another', () => {
    const cluster = formed();
    cluster.of(n2).driver.configure(new Map([[group, cluster.order]]), new Map());
    cluster.kill(n1);
    cluster.until(n3);
    assert.equal(cluster.of(n2).status().rank, undefined);
  });

  test('the first one takes over again when it is back and level, and has been for the failback time', () => {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    cluster.advance(3 * failbackMs);
    cluster.start(n1);
    const tookMs = cluster.until(n1);
    assert.ok(tookMs >= failbackMs && tookMs < failbackMs + 1_500, `${tookMs} ms`);
  });

  test('at once where the leader has only just begun, as after a start of all', () => {
    const cluster = new Cluster([n2, n3, n4, w1]);
    cluster.until(n2);
    cluster.start(n1);
    assert.ok(cluster.until(n1) < 1_000);
  });

  test('more slowly the more often leadership has moved lately', () => {
    const cluster = formed();
    const times: number[] = [];
    for (let turn = 0; turn < 3; turn++) {
      cluster.kill(n1);
      cluster.until(n2);
      cluster.start(n1);
      times.push(cluster.until(n1, 60_000));
    }
    assert.ok(at(times[1]) >= 2 * failbackMs, times.join(' '));
    assert.ok(at(times[2]) >= 2 * at(times[1]) - 1_500, times.join(' '));
    cluster.advance(61_000);
    cluster.kill(n1);
    cluster.until(n2);
    cluster.start(n1);
    assert.ok(cluster.until(n1) < 2 * failbackMs, 'a minute later it is forgotten');
  });

  test('never goes back to one that is behind, silent or not willing', () => {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    cluster.advance(failbackMs);
    cluster.start(n1).driver.drain(true);
    cluster.advance(5 * failbackMs);
    assert.equal(cluster.leader(), n2);
  });
});

describe('failback by command', () => {
  test('is at once, whatever the times are, and says what went where', () => {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    cluster.advance(3 * failbackMs);
    cluster.start(n1);
    cluster.advance(1_500);
    assert.equal(cluster.leader(), n2);
    const { handedOver, kept } = cluster.of(n2).driver.failback([group]);
    assert.deepEqual([handedOver, kept], [[{ group, to: n1 }], []]);
    assert.deepEqual(cluster.of(n2).driver.failback([group]).kept, [{ group, reason: 'a hand-over is under way' }]);
    assert.ok(cluster.until(n1) <= 100);
  });

  test('says why the rest stays', () => {
    const cluster = formed();
    const reason = 'no better-placed node is up and has caught up';
    assert.deepEqual(cluster.of(n1).driver.failback([]).kept, [
      { group: configGroup, reason },
      { group, reason },
    ]);
    assert.deepEqual(cluster.of(n2).driver.failback([]), { handedOver: [], kept: [] });
  });
});

describe('a draining node', () => {
  test('hands over without waiting, to the next that is willing, and is led from then on', () => {
    const cluster = formed();
    cluster.of(n2).driver.drain(true);
    cluster.of(n1).driver.drain(true);
    cluster.advance(100);
    assert.equal(cluster.leader(), n3);
    cluster.advance(5 * failbackMs);
    assert.equal(cluster.leader(), n3);
    assert.deepEqual(cluster.of(n1).driver.leads, []);
  });

  test('takes its place again when it drains no more', () => {
    const cluster = formed();
    cluster.of(n1).driver.drain(true);
    cluster.advance(5 * failbackMs);
    assert.equal(cluster.leader(), n2);
    cluster.of(n1).driver.drain(false);
    cluster.until(n1);
  });

  test('leads on while nobody else can: no one is worse off', () => {
    const cluster = formed();
    for (const id of [n2, n3, n4]) cluster.of(id).driver.drain(true);
    cluster.advance(200);
    cluster.of(n1).driver.drain(true);
    cluster.advance(5_000);
    assert.deepEqual([cluster.leader(), cluster.of(n1).driver.canHandOver], [n1, false]);
    cluster.of(n4).driver.drain(false);
    cluster.until(n4);
  });
});

describe('a witness', () => {
  test('that wins, because only it has the newest entries, hands on as soon as another has them', () => {
    const cluster = formed();
    cluster.kill(n4);
    // n2 and n3 hear nothing of what the witness and n1 have; without the witness they are no majority.
    cluster.cutOff = new Set([n1, w1]);
    cluster.of(n1).propose(group, '"new"');
    cluster.advance(50);
    cluster.kill(n1);
    cluster.cutOff = new Set();
    cluster.until(w1, 3_000);
    assert.deepEqual(cluster.of(w1).told('lead'), [], 'it decides nothing');
    assert.ok(cluster.until(n2) < 1_000);
    assert.ok(
      cluster
        .of(n2)
        .folder.diskOf(group)
        .log.some(({ body }) => body === '"new"'),
    );
  });
});

describe('a hand-over', () => {
  /** n2 leads, n1 is level and better placed. */
  function aboutToHandOver(): { readonly cluster: Cluster; readonly leader: Process } {
    const cluster = formed();
    cluster.kill(n1);
    cluster.until(n2);
    cluster.advance(3 * failbackMs);
    cluster.start(n1);
    cluster.advance(1_500);
    const leader = cluster.of(n2);
    leader.events.length = 0;
    return { cluster, leader };
  }

  test('begins with a pause: nothing is proposed after it, and the other has everything before it leads', () => {
    const { cluster, leader } = aboutToHandOver();
    leader.propose(group, '"last"');
    leader.driver.failback([group]);
    assert.deepEqual(leader.told('pause', 'resign', 'lead'), ['pause on']);
    cluster.advance(100);
    assert.equal(cluster.leader(), n1);
    assert.deepEqual(leader.told('pause', 'resign', 'lead'), ['resign']);
    assert.equal(cluster.of(n1).folder.diskOf(group).log.at(-2)?.body, '"last"');
  });

  test('ends the lease before the pause is asked for, for the rest of the term (R3)', () => {
    const { leader } = aboutToHandOver();
    assert.ok(leader.status().leaseMs > 0);
    leader.driver.failback([group]);
    assert.equal(leader.status().leaseMs, 0);
  });

  test('waits for a deciding thread that does not answer until its last lease is over, not longer (R3)', () => {
    const { cluster, leader } = aboutToHandOver();
    leader.answersPause = false;
    const { leaseMs: left } = leader.status();
    assert.ok(left > 300 && left <= leaseMs);
    leader.driver.failback([group]);
    cluster.advance(Math.floor(left / 25) * 25 - 25);
    assert.equal(cluster.leader(), n2);
    assert.equal(leader.status().transferringTo, undefined);
    cluster.advance(150);
    assert.equal(cluster.leader(), n1);
  });

  test('of a group that has no owner needs no pause', () => {
    const { cluster, leader } = aboutToHandOver();
    const config = at(cluster.leader(configGroup));
    assert.equal(config, n2);
    leader.driver.failback([configGroup]);
    assert.deepEqual(leader.told('pause'), []);
    cluster.advance(50);
    assert.equal(cluster.leader(configGroup), n1);
  });

  test('that comes to nothing ends the pause after an election timeout; the leader goes on, without a lease', () => {
    const { cluster, leader } = aboutToHandOver();
    // n1 is heard for a moment longer than it hears.
    leader.driver.failback([group]);
    cluster.cutOff = new Set([n1]);
    cluster.advance(electionTimeoutMs + 100);
    assert.deepEqual(leader.told('pause', 'resign'), ['pause on', 'pause off']);
    assert.deepEqual([cluster.leader(), leader.status().leaseMs], [n2, 0]);
    leader.propose(group, '"on"');
    cluster.advance(100);
    assert.equal(leader.folder.diskOf(group).log.at(-1)?.body, '"on"');
  });

  test('that came to nothing is not tried again for a second', () => {
    const { cluster, leader } = aboutToHandOver();
    leader.driver.failback([group]);
    cluster.cutOff = new Set([n1]);
    cluster.advance(electionTimeoutMs + 100);
    cluster.cutOff = new Set();
    leader.events.length = 0;
    leader.driver.drain(true);
    cluster.advance(500);
    assert.deepEqual(leader.told('pause'), []);
    cluster.advance(1_000);
    assert.deepEqual(leader.told('pause'), ['pause on']);
    assert.notEqual(cluster.leader(), n2);
  });

  test('a proposal that was on its way when the target was told is dropped, and the owner told so', () => {
    const { cluster, leader } = aboutToHandOver();
    leader.driver.failback([group]);
    cluster.clock.advance(1);
    leader.propose(group, '"late"');
    assert.deepEqual(leader.told('resign'), ['resign']);
    cluster.advance(200);
    assert.equal(cluster.leader(), n1);
    for (const { folder } of cluster.processes.values()) {
      assert.ok(!folder.diskOf(group).log.some(({ body }) => body === '"late"'));
    }
  });
});

describe('a deciding thread that has stalled', () => {
  test('for more than 300 ms costs the node its groups: another leads, after the last lease', () => {
    const cluster = formed();
    const stalled = cluster.of(n1);
    const { leaseMs: left } = stalled.status();
    stalled.stall();
    cluster.advance(300);
    assert.equal(cluster.leader(), n1, 'a pause of the collector is none');
    const tookMs = cluster.until(n2);
    assert.ok(tookMs + 300 > left, 'nobody answers while it may wake up and answer, too');
    assert.ok(tookMs < 1_000);
    cluster.advance(3 * failbackMs);
    assert.equal(cluster.leader(), n2, 'while it is stalled it is not willing');
    stalled.wake();
    cluster.until(n1);
  });

  test('and nobody else that could lead: the leader stops leading, rather than keep everybody waiting', () => {
    const cluster = formed();
    for (const id of [n2, n3, n4]) cluster.of(id).driver.drain(true);
    cluster.advance(200);
    const stalled = cluster.of(n1);
    stalled.events.length = 0;
    stalled.stall();
    cluster.advance(400);
    assert.deepEqual(stalled.told('resign'), ['resign']);
  });

  test('does not matter to groups that it does not decide for', () => {
    const cluster = new Cluster();
    cluster.until(n1);
    cluster.advance(failbackMs);
    cluster.of(w1).stall();
    cluster.advance(5_000);
    assert.equal(cluster.leader(), n1);
  });
});
