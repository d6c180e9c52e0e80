import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import type { HistoryRecord } from '../../config-db/configuration-history.ts';
import { UsageError } from '../acquirer/usage.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import type { ListedRow } from '../node/configuration-reports.ts';
import type { OperatorBus } from '../operator-bus.ts';
import { changeOfSettings, loadConfiguration, previewText } from './config-change.ts';
import { historyText } from './config-show.ts';
import { answersOf, fakeBus } from './testing.ts';

const link: ListedRow = {
  table: 'acquirer_link',
  key: 'acquirer',
  row: {
    link_id: 'acquirer',
    acquiring_institutions: '*',
    partial_approval: 0,
    deadline_ms: 3000,
    unmatched_reversal_request_code: '25',
  },
  derived: undefined,
  version: 12,
  by: 'alice',
  origin: 'n2',
  at: 0,
};

describe('config set', () => {
  const set = (key: string, settings: readonly string[], replaces?: string) =>
    changeOfSettings([link], 'acquirer_link', key, settings, replaces);

  test('changes the named columns of the row that is there, and says which version it replaces', () => {
    const { change, replaces } = set('acquirer', ['deadline_ms=500', 'partial_approval=true']);
    assert.equal(replaces, 12);
    assert.deepEqual(change.operation === 'put' && change.row, {
      link_id: 'acquirer',
      acquiring_institutions: '*',
      partial_approval: true,
      deadline_ms: 500,
      unmatched_reversal_request_code: '25',
    });
    assert.equal(set('acquirer', ['deadline_ms=500'], '9').replaces, 9, 'what the operator says he has seen');
  });
  test('enters a new row where there is none', () => {
    const fields = ['acquiring_institutions=*', 'partial_approval=false', 'deadline_ms=100'];
    assert.equal(set('other', fields).replaces, 0);
    assert.throws(() => set('other', ['deadline_ms=100']), { code: 'CONFIGURATION_ROW_INVALID' });
  });
  test('does not change a key, and takes nothing but column=value', () => {
    for (const setting of ['link_id=x', 'deadline_ms', '=3']) {
      assert.throws(() => set('acquirer', [setting]), UsageError, setting);
    }
    assert.throws(() => set('acquirer', ['deadline_ms=1'], 'latest'), UsageError);
  });
});

describe('config apply', () => {
  /** What the node is asked to enter when it has these rows. */
  async function entering(
    context: Parameters<typeof temporaryFolder>[0],
    yaml: string,
    there: readonly ListedRow[],
  ): Promise<{ change: string; replaces: number }[]> {
    const file = join(temporaryFolder(context), 'configuration.yaml');
    writeFileSync(file, yaml);
    const bus = fakeBus(
      () => answersOf({}),
      (_to, method) => (method === 'configuration.list' ? { rows: there, next: undefined } : 17),
    );
    const index = await loadConfiguration(bus as unknown as OperatorBus, 'n3', {
      configuration: file,
      rules: undefined,
    });
    assert.equal(index, 17);
    const call = bus.calls.find(({ method }) => method === 'configuration.enter');
    assert.equal(call?.to, 'n3');
    return (call.parameters as { changes: { change: string; replaces: number }[] }).changes;
  }
  const yaml = `acquirer_link:
  - { link_id: acquirer, acquiring_institutions: '1', partial_approval: false, deadline_ms: 1 }
  - { link_id: second, acquiring_institutions: '1', partial_approval: false, deadline_ms: 1, replaces: 5 }
`;

  test('replaces what is there now, or what the file says', async (context) => {
    const rules: ListedRow = { ...link, table: 'rewrite_rule_set', key: '1' };
    const changes = await entering(context, yaml, [link, rules]);
    assert.deepEqual(
      changes.map(({ replaces }) => replaces),
      [12, 5],
    );
  });
  test('enters the shipped rules when there are none', async (context) => {
    const changes = await entering(context, yaml, [link]);
    assert.match(changes.at(-1)?.change ?? '', /rewrite_rule_set/);
  });
});

test('a dry run shows the row before and after, and what each node makes of it by which rule', () => {
  const text = previewText({
    index: 4,
    more: 0,
    rows: [
      {
        table: 'failover_map',
        key: 'a',
        version: 3,
        before: '{"failover_order":"n1>n2"}',
        after: '{"failover_order":"n2>n1"}',
        nodes: [{ node: 'n1' as never, columns: [{ column: 'rank', before: 1, after: 2, rule: 'rank-by-order' }] }],
      },
    ],
  });
  assert.match(text, /^Nothing was entered\./);
  assert.match(text, /failover_map a: changed, replaces version 3\n {2}before .*n1>n2.*\n {2}after {2}.*n2>n1/);
  assert.match(text, /n1 +rank +1 +-> +2 +rank-by-order/);
});

test('a change in the history names who, where, when, what it replaced, and under which rules', () => {
  const record: HistoryRecord = {
    index: 12,
    table: 'acquirer_link',
    key: 'acquirer',
    before: '{"deadline_ms":3000,"partial_approval":false}',
    after: '{"deadline_ms":500,"partial_approval":false}',
    ruleSetVersion: 2,
    change: 'n2-abc',
    origin: 'n2',
    by: 'alice',
    at: 0,
  };
  assert.equal(
    historyText(record),
    `12  acquirer_link acquirer changed by alice at n2 on 1970-01-01T00:00:00.000Z
    change n2-abc, rule set 2
    deadline_ms: 3000 -> 500`,
  );
  assert.match(historyText({ ...record, before: null }), /entered by alice/);
  assert.match(historyText({ ...record, after: null }), /deleted by alice/);
});
