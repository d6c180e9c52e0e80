import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { waitFor } from '../../base/clock.ts';
import { configGroup, groupId, nodeId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { loadConfigurationFile, changesOf } from '../../config-db/configuration.ts';
import { configurationFold, readDerivedRows } from '../../config-db/configuration-fold.ts';
import { readRuleSetFile } from '../../config-db/rule-file.ts';
import { encodeConfigurationChange } from '../../config-db/rows.ts';
import { SnapshotTransfers } from '../../replication/snapshot-transfer.ts';
import {
  chainEntry,
  encodeBody,
  type ConfigurationEntry,
  type EntryBody,
  type LogEntry,
  type LogPosition,
} from '../../store/entry.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { GroupReader } from '../../store/log-reader.ts';
import type { Fold } from '../../store/group-file.ts';
import { chained, readByHand, sampleLog, temporaryFolder, writeFile } from '../../store/testing.ts';
import type { WriterEvent } from '../../store/writer.ts';
import { Maintenance, SnapshotPort } from './maintenance.ts';
import { SharedMeters } from './meters.ts';
import { groupFileName, groupOfFile, ThreadWriter } from './thread-writer.ts';

// The real threads, on one machine without a broker: datagrams go straight from one to the other.
const group = groupId('a');
const [n1, n3] = [nodeId('n1'), nodeId('n3')];
const topology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, at) => ({ id: nodeId(id), site: at < 2 ? 'east' : 'west' })),
};
const noOp: EntryBody = { kind: 'no-op', leader: 'n1', term: 1 };
const fatal = (error: Error): void => {
  throw error;
};

interface Writing {
  readonly writer: ThreadWriter;
  readonly folder: string;
  /** Resolves with the first event of the kind that has not been taken before. */
  readonly next: <Kind extends WriterEvent['kind']>(kind: Kind) => Promise<WriterEvent & { readonly kind: Kind }>;
  onEvent: (event: WriterEvent) => void;
}

function startWriter(context: TestContext, self: NodeId): Writing {
  const folder = temporaryFolder(context);
  const events: WriterEvent[] = [];
  const writer = new ThreadWriter({
    folder,
    data: { self, cluster: 'test', topology, witness: false, meters: new SharedMeters().buffer },
    onEvents: (written) => {
      for (const event of written) writing.onEvent(event);
      events.push(...written);
    },
    onDeath: fatal,
  });
  context.after(() => writer.close());
  const writing: Writing = {
    writer,
    folder,
    next: <Kind extends WriterEvent['kind']>(kind: Kind) =>
      waitFor(
        realClock,
        () => {
          const at = events.findIndex((event) => event.kind === kind);
          return at === -1 ? undefined : (events.splice(at, 1)[0] as WriterEvent & { readonly kind: Kind });
        },
        { timeoutMs: 30_000, everyMs: 5, onTimeout: () => new Error(`no event ${kind}`) },
      ),
    onEvent: () => undefined,
  };
  return writing;
}

/** A node with its file, which serves snapshots from its maintenance thread. */
function startReading(context: TestContext, of: GroupId, entries: readonly LogEntry[], fold: Fold): SnapshotPort {
  const folder = temporaryFolder(context);
  writeFile(join(folder, groupFileName(of)), of, entries, fold);
  const maintenance = new Maintenance({ data: { folder, folds: undefined }, onDeath: fatal });
  const reading = new SnapshotPort(maintenance.connect());
  context.after(async () => {
    reading.disconnect();
    await maintenance.close();
  });
  return reading;
}

/** Has the writer fetch the group's snapshot. */
async function fetch(context: TestContext, of: GroupId, reading: SnapshotPort, writing: Writing): Promise<string> {
  const ends = new Map<NodeId, SnapshotTransfers>();
  for (const id of [n1, n3]) {
    const transfers = new SnapshotTransfers({
      clock: realClock,
      random: realRandom,
      reading,
      holding: 'log-and-fold',
      writer: writing.writer,
      send: (to, datagram) => {
        realClock.soon(() => ends.get(to)?.receive(id, datagram));
      },
      mayInstall: () => true,
      onOutcome: () => undefined,
    });
    ends.set(id, transfers);
    context.after(() => {
      transfers.stop();
    });
  }
  const receiver = ends.get(n3)?.receiver;
  writing.onEvent = (event) => receiver?.onWriter(event);
  receiver?.fetch(of, n1);
  const { path } = await writing.next('installed');
  return path;
}

describe('the writer thread', () => {
  test('opens, appends, applies and trims, and tells what it did in its order', async (context) => {
    const { writer, folder, next } = startWriter(context, n1);
    const opened = await writer.open(group);
    assert.deepEqual(
      [opened.path, opened.last.index, opened.base.index, opened.applied],
      [join(folder, 'group-a.db'), 0, 0, 0],
    );
    const entries = chained(group, [noOp, noOp, noOp]);
    writer.submit({ group, entries: entries.slice(0, 2), keepThrough: undefined, applyThrough: 1 });
    writer.submit({ group, entries: entries.slice(2), keepThrough: undefined, applyThrough: 3 });
    writer.trim(group, 2);
    assert.equal((await next('written')).applied, 3);
    assert.equal((await next('trimmed')).base.index, 2);
    const again = await writer.reopen(group);
    assert.deepEqual([again.last.index, again.base.index, again.applied], [3, 2, 3]);
  });

  test('does what is asked for in one turn in the order in which it was asked for', async (context) => {
    const { writer, next } = startWriter(context, n1);
    await writer.open(group);
    const entries = chained(group, [noOp, noOp]);
    const position = entries[1];
    assert.ok(position !== undefined);
    writer.submit({ group, entries, keepThrough: undefined, applyThrough: 0 });
    const header = { format: 1, cluster: 'test', group, position, membership: null, tables: [] };
    writer.snapshot({ kind: 'begin', group, transfer: 't', header });
    assert.match((await next('snapshot-refused')).reason, /the log holds entry 2/);
  });

  test('refuses a file that is none, with its code', async (context) => {
    const { writer, folder } = startWriter(context, n1);
    writeFile(join(folder, 'group-a.db'), groupId('b'), [], ledgerFold);
    await assert.rejects(writer.open(group), { code: 'DATA_FOLDER_FOREIGN' });
  });

  test('gives up a file that cannot be written, until it is asked to open it again', async (context) => {
    const { writer, next } = startWriter(context, n1);
    await writer.open(group);
    const entries = chained(group, [noOp, noOp, noOp]);
    writer.submit({ group, entries: entries.slice(1), keepThrough: undefined, applyThrough: 0 });
    assert.match((await next('failed')).reason, /follows 0/);
    writer.submit({ group, entries, keepThrough: undefined, applyThrough: 0 });
    await next('failed');
    assert.equal((await writer.reopen(group)).last.index, 0);
    writer.submit({ group, entries, keepThrough: undefined, applyThrough: 0 });
    assert.equal((await next('written')).durable.index, 3);
  });
});

describe("a snapshot from one node's maintenance thread to another's writer thread", () => {
  test('replaces the file of a card group, which then goes on', async (context) => {
    const entries = sampleLog(group, 3_000);
    const reading = startReading(context, group, entries, ledgerFold);
    const writing = startWriter(context, n3);
    await writing.writer.open(group);
    writing.writer.submit({ group, entries: entries.slice(0, 500), keepThrough: undefined, applyThrough: 400 });
    const path = await fetch(context, group, reading, writing);
    assert.equal(path, join(writing.folder, 'group-a.g2.db'));
    assert.deepEqual(readByHand(path, 'SELECT count(*) FROM card_transaction'), [3_000]);
    const last: LogPosition | undefined = entries.at(-1);
    assert.ok(last !== undefined);
    const next = chainEntry(last, 1, encodeBody(noOp));
    writing.writer.submit({ group, entries: [next], keepThrough: undefined, applyThrough: next.index });
    await waitFor(realClock, async () => ((await writing.next('written')).applied === next.index ? true : undefined), {
      timeoutMs: 10_000,
      onTimeout: () => new Error('not applied'),
    });
    const opened = await writing.writer.reopen(group);
    assert.deepEqual([opened.path, opened.last.index, opened.base.index], [path, next.index, last.index]);
  });

  test('brings the configuration as it was entered, and the receiver derives its own columns', async (context) => {
    const read = (name: string): string => readFileSync(new URL(`../../config-db/${name}`, import.meta.url), 'utf8');
    const sample = {
      ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
      rewrite_rule_set: [readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml')],
    };
    const changes = changesOf(sample).map(
      (change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationEntry['changes'][number],
    );
    const entries = chained(configGroup, [
      noOp,
      { kind: 'configuration', id: 'i', checkedAt: 0, at: 1, by: 'operator', origin: 'n2', changes },
    ]);
    const derivedAt = (path: string): unknown => {
      const reader = new GroupReader(path, configGroup);
      try {
        return readDerivedRows(reader.database);
      } finally {
        reader.close();
      }
    };
    const replayed = new Map<NodeId, unknown>();
    for (const id of [n1, n3]) {
      const path = join(temporaryFolder(context), 'config.db');
      writeFile(path, configGroup, entries, configurationFold(id, topology));
      replayed.set(id, derivedAt(path));
    }
    const reading = startReading(context, configGroup, entries, configurationFold(n1, topology));
    const writing = startWriter(context, n3);
    await writing.writer.open(configGroup);
    const received = derivedAt(await fetch(context, configGroup, reading, writing));
    assert.deepEqual(received, replayed.get(n3));
    assert.notDeepEqual(received, replayed.get(n1));
  });

  test('is refused for a group that the node does not have', async (context) => {
    const reading = startReading(context, group, [], ledgerFold);
    const reply = await new Promise<{ kind: string }>((resolve) => {
      reading.open(groupId('b'), 'log-and-fold', resolve);
    });
    assert.equal(reply.kind, 'refused');
    const chunk = await new Promise<{ kind: string }>((resolve) => {
      reading.read(99, 0, resolve);
    });
    assert.equal(chunk.kind, 'refused');
  });
});

test("a group's file is known by its name, of any generation, and other files are not", () => {
  for (const [name, expected] of [
    ['group-a.db', 'a'],
    ['group-a.g2.db', 'a'],
    ['config.db', 'config'],
    ['config.g14.db', 'config'],
    ['group-a.db.incoming', undefined],
    ['group-a.2.db', undefined],
    ['group-A.db', undefined],
    ['consensus.db', undefined],
    ['group-a.db-wal', undefined],
  ] as const) {
    assert.equal(groupOfFile(name), expected, name);
  }
});
