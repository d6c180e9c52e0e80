import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { join } from 'node:path';

import { configGroup, groupId, nodeId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { absent, type VersionedChange } from '../../config-db/configuration-change.ts';
import { changesOf, loadConfigurationFile } from '../../config-db/configuration.ts';
import { configurationFold, readConfiguration } from '../../config-db/configuration-fold.ts';
import { readRuleSetFile } from '../../config-db/rule-file.ts';
import { chainEntry, type LogPosition } from '../../store/entry.ts';
import { GroupFile } from '../../store/group-file.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { ConfigurationDesk, type ChangeReply, type ChangeRequest } from './configuration-desk.ts';
import type { HostedGroup } from './groups.ts';

const read = (name: string): string => readFileSync(new URL(`../../config-db/${name}`, import.meta.url), 'utf8');
const sample = {
  ...loadConfigurationFile(read('samples/configuration.yaml'), 'configuration.yaml'),
  rewrite_rule_set: [readRuleSetFile(read('rewrite-rules.yaml'), 'rewrite-rules.yaml')],
};
const topology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, at) => ({ id: nodeId(id), site: at < 2 ? 'east' : 'west' })),
};

/** The leader of `config`, its file, and its desk; entries commit when `commit` is called. */
class Leader {
  readonly clock = new ManualClock();
  readonly desk: ConfigurationDesk;
  leads = true;
  readonly #file: GroupFile;
  readonly #hosted: { reader: GroupReader; applied: number };
  #last: LogPosition;

  constructor(context: TestContext) {
    const path = join(temporaryFolder(context), 'config.db');
    this.#file = GroupFile.open(path, configGroup, 'test', configurationFold(nodeId('n1'), topology));
    this.#last = this.#file.last;
    this.#hosted = { reader: new GroupReader(path, configGroup), applied: 0 };
    context.after(() => {
      this.#hosted.reader.close();
      this.#file.close();
    });
    this.desk = new ConfigurationDesk({
      hosted: () => this.#hosted as unknown as HostedGroup,
      log: {
        end: (done) => {
          done(this.leads ? this.#last : undefined);
        },
        enter: (body, done) => {
          done(this.leads ? this.append(body) : undefined);
        },
      },
      topology,
      clock: this.clock,
      journal: { info: () => undefined },
    });
  }

  append(body: string): LogPosition {
    const entry = chainEntry(this.#last, 1, body);
    this.#last = entry;
    this.#file.write({ entries: [entry], keepThrough: undefined, applyThrough: 0 });
    return entry;
  }

  commit(): void {
    this.#file.write({ entries: [], keepThrough: undefined, applyThrough: this.#last.index });
    this.#hosted.applied = this.#last.index;
    this.clock.advance(10);
  }

  get configuration(): ReturnType<typeof readConfiguration> {
    return readConfiguration(this.#hosted.reader.database);
  }

  /** The replies as they come. */
  enter(id: string, changes: readonly VersionedChange[], by = 'alice'): ChangeReply[] {
    const replies: ChangeReply[] = [];
    const request: ChangeRequest = { id, by, origin: nodeId('n3'), changes };
    this.desk.enter(request, (reply) => replies.push(reply));
    return replies;
  }
}

function loaded(context: TestContext): Leader {
  const leader = new Leader(context);
  leader.enter(
    'first',
    changesOf(sample).map((change) => ({ change, replaces: absent })),
  );
  leader.commit();
  return leader;
}

const order = (failover_order: string, replaces: number): VersionedChange => {
  const [row] = sample.failover_map;
  assert.ok(row !== undefined);
  return {
    change: { table: 'failover_map', operation: 'put', row: { ...row, group_id: groupId('a'), failover_order } },
    replaces,
  };
};
const codeOf = ([reply]: readonly ChangeReply[]): string =>
  reply === undefined ? 'no reply' : reply.kind === 'entered' ? `entered ${reply.index}` : reply.error.code;

test('a change is answered when it is committed and applied, not before', (context) => {
  const leader = loaded(context);
  const replies = leader.enter('x', [order('n2>n1>n3>n4', 1)]);
  leader.clock.advance(100);
  assert.equal(codeOf(replies), 'no reply');
  leader.commit();
  assert.equal(codeOf(replies), 'entered 2');
  assert.equal(leader.configuration.failover_map[0]?.failover_order, 'n2>n1>n3>n4');
});

test('the same change brought twice has an effect once, and the same answer', (context) => {
  const leader = loaded(context);
  leader.enter('x', [order('n2>n1>n3>n4', 1)]);
  leader.commit();
  leader.enter('y', [order('n4>n3>n2>n1', 2)]);
  leader.commit();
  assert.equal(codeOf(leader.enter('x', [order('n2>n1>n3>n4', 1)])), 'entered 2');
  assert.equal(leader.configuration.failover_map[0]?.failover_order, 'n4>n3>n2>n1');
});

test('of two operators who have seen the same version the second is told, also when both are under way', (context) => {
  const leader = loaded(context);
  const alice = leader.enter('x', [order('n2>n1>n3>n4', 1)], 'alice');
  const bob = leader.enter('y', [order('n4>n3>n2>n1', 1)], 'bob');
  leader.commit();
  leader.commit();
  assert.equal(codeOf(alice), 'entered 2');
  assert.equal(codeOf(bob), 'VERSION_CONFLICT');
  assert.match(bob[0]?.kind === 'failed' ? bob[0].error.message : '', /version 2 is there, entered by alice at n3/);
});

test('a change that another leader entered in between is seen before this one takes effect', (context) => {
  const leader = loaded(context);
  const replies = leader.enter('x', [order('n2>n1>n3>n4', 1)]);
  assert.equal(codeOf(replies), 'no reply');
  // As it would stand in the log had leadership gone and come back between check and entry: it was checked before `x`.
  const [row] = sample.failover_map;
  const body = JSON.stringify({
    kind: 'configuration',
    id: 'late',
    checkedAt: 1,
    at: 1,
    by: 'bob',
    origin: 'n2',
    changes: [{ table: 'failover_map', operation: 'put', row: { ...row, failover_order: 'n4>n3>n2>n1' } }],
  });
  leader.append(body);
  leader.commit();
  assert.equal(codeOf(replies), 'entered 2');
  assert.equal(leader.configuration.failover_map[0]?.failover_order, 'n2>n1>n3>n4');
});

test('without a majority the operator is told that it is open: OWNER_UNREACHABLE', (context) => {
  const leader = loaded(context);
  const replies = leader.enter('x', [order('n2>n1>n3>n4', 1)]);
  for (let waited = 0; waited < 600; waited++) leader.clock.advance(10);
  assert.equal(codeOf(replies), 'OWNER_UNREACHABLE');
  leader.leads = false;
  assert.equal(codeOf(leader.enter('y', [order('n2>n1>n3>n4', 1)])), 'OWNER_UNREACHABLE');
});

test('more rows than one entry takes are refused: CONFIGURATION_REFUSED', (context) => {
  const leader = loaded(context);
  const [row] = sample.pan_range;
  assert.ok(row !== undefined);
  const many = Array.from({ length: 4000 }, (_, at): VersionedChange => ({
    change: {
      table: 'pan_range',
      operation: 'put',
      row: { ...row, prefix: `990001${10_000 + at}`, description: 'x'.repeat(90) },
    },
    replaces: absent,
  }));
  assert.equal(codeOf(leader.enter('x', many)), 'CONFIGURATION_REFUSED');
});
