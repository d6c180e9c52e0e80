import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { CardKeys } from '../../base/card-keys.ts';
import { groupId, type GroupId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { parseTopology } from '../../base/topology.ts';
import type { DriverEvent } from '../../replication/driver.ts';
import { chainEntry, encodeBody, type EntryBody, type LogEntry } from '../../store/entry.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { chained, temporaryFolder, writeFile } from '../../store/testing.ts';
import { Groups } from './groups.ts';

const group = groupId('a');
const expiry: EntryBody = { kind: 'expiry', at: 1, holds: [] };
const noOp: EntryBody = { kind: 'no-op', leader: 'n1', term: 1 };
const topology = parseTopology(
  `cluster: test
sites: [{ id: east }]
nodes: [{ id: n1, site: east, acquirer: { port: 9001 } }]
brokers: [{ id: b, site: east, client: { port: 9002 }, cluster: { port: 9003 } }]
`,
  'nodes.yaml',
);

interface Proposal {
  readonly group: GroupId;
  readonly epoch: number;
  readonly first: number;
  readonly count: number;
}

/** The deciding side of one group whose file holds `applied` entries, all applied. */
function deciding(
  context: TestContext,
  applied: readonly LogEntry[],
): {
  readonly groups: Groups;
  readonly clock: ManualClock;
  readonly proposals: Proposal[];
  readonly paused: GroupId[];
  readonly failed: readonly string[];
  readonly append: (body: EntryBody) => number | undefined;
} {
  const path = join(temporaryFolder(context), 'group-a.db');
  writeFile(path, group, applied, ledgerFold);
  const clock = new ManualClock();
  const proposals: Proposal[] = [];
  const paused: GroupId[] = [];
  const failed: string[] = [];
  const groups = new Groups({
    topology,
    clock,
    random: seededRandom(1),
    log: createLogger({ process: 'n1', level: 'silent', destination: { write: () => undefined } }),
    cardKeys: new CardKeys(1, Buffer.alloc(32, 1), Buffer.alloc(32, 2)),
    port: {
      configure: () => undefined,
      propose: (to, epoch, first, bodies) => proposals.push({ group: to, epoch, first, count: bodies.length }),
      paused: (which) => paused.push(which),
      fail: (which, _reason, cause) => failed.push(`${which} ${cause}`),
    },
    onMark: () => undefined,
    onLeader: () => undefined,
  });
  context.after(() => {
    groups.close();
  });
  groups.onEvent({ kind: 'opened', group, path, applied: applied.length });
  return { groups, clock, proposals, paused, failed, append: (body) => groups.ownerOf(group)?.append(body) };
}

function lead(epoch: number, applied: number, tail: readonly LogEntry[]): DriverEvent {
  const last = applied + tail.length;
  const progress = { commit: last, durable: last, leaseUntilMs: 0 };
  return { kind: 'lead', group, term: 1, epoch, applied, tail, progress };
}

test('entries get the indexes after the log that leading began with, and those of one turn travel together', (context) => {
  const log = chained(group, [noOp, expiry, expiry]);
  const { groups, clock, proposals, append } = deciding(context, log.slice(0, 2));
  groups.onEvent(lead(7, 2, log.slice(2)));
  assert.deepEqual([append(expiry), append(expiry)], [4, 5]);
  assert.deepEqual(proposals, [], 'nothing before the end of the turn');
  clock.advance(0);
  assert.deepEqual(append(expiry), 6);
  clock.advance(0);
  assert.deepEqual(proposals, [
    { group, epoch: 7, first: 4, count: 2 },
    { group, epoch: 7, first: 6, count: 1 },
  ]);
});

test('a file that is further than consensus had heard is not applied twice', (context) => {
  const log = chained(group, [noOp, expiry, expiry, expiry]);
  const { groups, append } = deciding(context, log.slice(0, 3));
  groups.onEvent(lead(1, 1, log.slice(1)));
  assert.equal(append(expiry), 5);
});

test('leading that was over before this thread heard of it begins nothing', (context) => {
  const log = chained(group, [noOp, expiry]);
  const [common] = log;
  assert.ok(common !== undefined);
  const later = chainEntry(common, 2, encodeBody({ kind: 'no-op', leader: 'n2', term: 2 }));
  // The file already holds the next leader's entry where this node's own once stood.
  const { groups, append } = deciding(context, [common, later]);
  groups.onEvent(lead(1, 1, log.slice(1)));
  assert.equal(append(expiry), undefined);
  assert.equal(groups.ownerOf(group)?.ready, false);
});

test('so is one after which the file went further than its log', (context) => {
  const log = chained(group, [noOp, expiry, expiry]);
  const { groups, append } = deciding(context, log);
  groups.onEvent(lead(1, 1, log.slice(1, 2)));
  assert.equal(append(expiry), undefined);
});

test('a pause hands over what was appended, then says so, and takes nothing until it ends', (context) => {
  const log = chained(group, [noOp]);
  const { groups, proposals, paused, append } = deciding(context, log);
  groups.onEvent(lead(3, 1, []));
  assert.equal(append(expiry), 2);
  groups.onEvent({ kind: 'pause', group, on: true });
  assert.deepEqual([proposals.length, paused], [1, [group]]);
  assert.equal(append(expiry), undefined);
  groups.onEvent({ kind: 'pause', group, on: false });
  assert.equal(append(expiry), 3);
});

test('what is said of an earlier epoch is about another log', (context) => {
  const log = chained(group, [noOp]);
  const { groups, append } = deciding(context, log);
  groups.onEvent(lead(1, 1, []));
  groups.onEvent({ kind: 'resign', group });
  assert.equal(append(expiry), undefined);
  groups.onEvent(lead(2, 1, []));
  const seen: string[] = [];
  const index = append(expiry);
  assert.equal(index, 2);
  groups.ownerOf(group)?.whenCommitted(
    2,
    () => seen.push('committed'),
    () => seen.push('lost'),
  );
  groups.onEvent({ kind: 'progress', group, epoch: 1, progress: { commit: 2, durable: 2, leaseUntilMs: 0 } });
  assert.deepEqual(seen, []);
  groups.onEvent({ kind: 'progress', group, epoch: 2, progress: { commit: 2, durable: 2, leaseUntilMs: 0 } });
  assert.deepEqual(seen, ['committed']);
});
