import assert from 'node:assert/strict';
import { test } from 'node:test';

import { groupId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { Histogram } from '../../base/metrics.ts';
import { Remarks } from '../../base/remarks.ts';
import { processOf, copyOf } from '../commands/testing.ts';
import { LoopDelay, RequestMeters, SharedMeters } from './meters.ts';
import { metricsText, type MetricsSource } from './metrics.ts';

const group = groupId('a');

function meters(): { readonly requests: RequestMeters; readonly lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as Record<string, unknown>);
  return { requests: new RequestMeters(new Remarks(createLogger({ process: 'n1', destination: { write } }))), lines };
}

function answered(
  changes: Partial<Parameters<RequestMeters['answered']>[0]>,
): Parameters<RequestMeters['answered']>[0] {
  return { attempt: 'n1.1.7', mti: '0100', responseCode: '00', group, asked: undefined, durationMs: 5, ...changes };
}

function source(requests: RequestMeters, changes: Partial<MetricsSource> = {}): MetricsSource {
  return {
    status: processOf('n1'),
    isServing: true,
    requests,
    shared: new SharedMeters(),
    counts: new Map(),
    disconnects: { main: 0, consensus: 0 },
    connected: { main: true, consensus: true },
    resources: { cpuSeconds: 1, residentBytes: 2, heapBytes: 3, startedAtSeconds: 4, openFiles: undefined },
    ...changes,
  };
}

test('a request that is answered 91 or takes long has a line at its edge and at its owner with the same attempt', () => {
  const { requests, lines } = meters();
  requests.answered(answered({}));
  requests.durable(group, 'n1.1.7', 40, 3);
  assert.deepEqual(lines, []);
  requests.answered(answered({ responseCode: '91', durationMs: 3000.4 }));
  requests.lost(group, 'n1.1.7', 41, 12.6);
  requests.settled(group, { kind: 'undelivered', group, attempt: 'n1.1.7', key: 'k' }, 'entered');
  requests.answered(answered({ durationMs: 1200, attempt: 'n1.1.8' }));
  requests.durable(group, 'n1.1.8', 42, 1100);
  requests.overloaded(group, 'n1.1.9');
  requests.refused('no configuration has been entered yet');
  assert.deepEqual(
    lines.map(({ event, attempt, durationMs }) => [event, attempt, durationMs]),
    [
      ['inoperative', 'n1.1.7', 3000],
      ['decision-open', 'n1.1.7', 13],
      ['undelivered', 'n1.1.7', undefined],
      ['slow-request', 'n1.1.8', 1200],
      ['slow-commit', 'n1.1.8', 1100],
      ['overloaded', 'n1.1.9', undefined],
      ['inoperative', undefined, undefined],
    ],
  );
  assert.equal(requests.requestMs.count, 3);
  assert.equal(requests.durableMs.count, 2);
});

test('a duplicate key stands in no log line: it names terminal and acquirer', () => {
  const { requests, lines } = meters();
  requests.settled(group, { kind: 'undelivered', group, attempt: 'n1.1.7', key: 'SECRET' }, 'entered');
  assert.doesNotMatch(JSON.stringify(lines), /SECRET/);
});

test('acquirers cannot make it remember more than so many kinds of message', () => {
  const { requests } = meters();
  for (let mti = 0; mti < 1000; mti++) {
    requests.request(String(mti).padStart(4, '0'));
    requests.answer(String(mti).padStart(4, '0'), String(mti % 100));
  }
  assert.equal(requests.requests.size, 65);
  assert.equal(requests.requests.get('other'), 1000 - 64);
  assert.equal(requests.answers.size, 65);
  assert.ok((requests.answers.get('other')?.size ?? 0) <= 65);
});

test('a tick that comes late counts as so much delay, and the first one as none', () => {
  const clock = new ManualClock();
  const histogram = new Histogram([10, 100]);
  const delay = new LoopDelay(clock, 25, histogram);
  clock.advance(5000);
  assert.equal(delay.tick(), 0);
  clock.advance(25);
  assert.equal(delay.tick(), 0);
  clock.advance(125);
  assert.equal(delay.tick(), 100);
  assert.deepEqual(histogram.counts, [2, 1, 0]);
});

test('what the writer thread counts is in the text', () => {
  const shared = new SharedMeters();
  const { writer } = new SharedMeters(shared.buffer);
  writer.committed(3, 1.5);
  writer.failed();
  writer.locked();
  const text = metricsText(source(meters().requests, { shared }));
  assert.match(text, /^quadrant_group_commit_entries_bucket\{le="5"\} 1$/m);
  assert.match(text, /^quadrant_group_commit_seconds_sum 0\.0015$/m);
  assert.match(text, /^quadrant_disk_failures_total 1$/m);
  assert.match(text, /^quadrant_file_locked_total 1$/m);
});

test('the text has requests, groups, peers and disk; what is not known is left out', () => {
  const { requests } = meters();
  requests.request('0100');
  requests.answer('0110', '00');
  requests.answer('0110', '00');
  requests.answered(answered({ durationMs: 30 }));
  const leads = copyOf('a', {
    role: 'leader',
    leader: 'n1',
    leaseMs: 520,
    followers: [{ id: 'n2', match: 90, applied: 80, silenceMs: 1500 }],
    salvage: { pending: 2, adopted: 3, voided: 4 },
  });
  const status = processOf('n1', {
    groups: [leads, copyOf('b', { failure: 'the disk is full' })],
    counters: { 'late-answers': 7, 'unsynced-reversals': 1 },
    reversalsDue: 5,
    disk: { freeBytes: 1e9, walBytes: { 'group-a.db': 4096 } },
  });
  const counts = new Map([['a', { elections: 2, won: 1, handOvers: 4, handOversFailed: 3, leaderChanges: 5 }]]);
  const text = metricsText(source(requests, { status, counts, isServing: false }));
  for (const line of [
    'quadrant_build_info{process="n1",role="node",site="east",version="0.1.0"} 1',
    'quadrant_ready 0',
    'quadrant_requests_total{mti="0100"} 1',
    'quadrant_answers_total{mti="0110",code="00"} 2',
    'quadrant_request_seconds_bucket{le="0.05"} 1',
    'quadrant_late_answers_total 7',
    'quadrant_undelivered_pending 5',
    'quadrant_undelivered_unsynced_total 1',
    'quadrant_group_leader{group="a",leader="n1"} 1',
    'quadrant_group_leads{group="a"} 1',
    'quadrant_group_lease_seconds{group="a"} 0.52',
    'quadrant_group_stopped{group="b"} 1',
    'quadrant_elections_total{group="a"} 2',
    'quadrant_elections_won_total{group="a"} 1',
    'quadrant_hand_overs_failed_total{group="a"} 3',
    'quadrant_leader_changes_total{group="a"} 5',
    'quadrant_salvage_pending{group="a"} 2',
    'quadrant_salvage_voided{group="a"} 4',
    'quadrant_peer_lag_entries{group="a",peer="n2"} 10',
    'quadrant_peer_silence_seconds{group="a",peer="n2"} 1.5',
    'quadrant_disk_free_bytes 1000000000',
    'quadrant_wal_bytes{file="group-a.db"} 4096',
  ]) {
    assert.ok(text.split('\n').includes(line), line);
  }
  assert.doesNotMatch(text, /quadrant_group_leader\{group="b"|lease_seconds\{group="b"|process_open_fds/);
});

test('the witness tells of its groups and of itself, and of no requests', () => {
  const status = processOf('w1', { groups: [copyOf('a')] });
  const text = metricsText(source(meters().requests, { status }));
  assert.match(text, /^quadrant_group_term\{group="a"\} 3$/m);
  assert.doesNotMatch(text, /requests|salvage|undelivered/);
});
