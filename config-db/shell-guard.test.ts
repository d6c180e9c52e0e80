import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { emptyGroupFile } from '../store/snapshot-install.ts';
import { readByHand } from '../store/testing.ts';
import { ConfigFile, shell } from './testing.ts';

interface Edit {
  readonly outcome: string;
  readonly reason: string | null;
  readonly proposal: string | null;
  readonly rows: string;
  readonly edited_at: string | null;
}

function edits({ path }: { readonly path: string }): Edit[] {
  return readByHand(
    path,
    "SELECT json_object('outcome', outcome, 'reason', reason, 'proposal', proposal, 'rows', rows, 'edited_at', edited_at) FROM shell_edit ORDER BY sequence",
  ).map((text) => JSON.parse(String(text)) as Edit);
}

/** All rows of the configuration's tables, and the copies by which the node works. */
function content({ path }: ConfigFile, prefix = ''): string {
  return ['failover_map', 'pan_range', 'range_limit', 'acquirer_link', 'rewrite_rule_set']
    .map((table) => shell(path, `.mode insert x\nSELECT * FROM ${prefix}${table} ORDER BY 1, 2;`))
    .join('\n');
}

const summary = (edit: Edit | undefined): string[] =>
  (JSON.parse(edit?.rows ?? '[]') as { table: string; key: string; edit: string; columns: string[] }[]).map((row) =>
    [row.edit, row.table, row.key, ...row.columns].join(' '),
  );

describe('an edit by the sqlite3 shell', () => {
  const proposed: readonly (readonly [what: string, sql: string, rows: string[]])[] = [
    ['UPDATE', "UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001'", ['update pan_range 990001 hold_days']],
    [
      'INSERT naming the columns that people enter',
      "INSERT INTO range_limit (prefix, currency, daily_maximum_count) VALUES ('990001', '036', 3)",
      ['insert range_limit 990001/036'],
    ],
    [
      'DELETE',
      "DELETE FROM range_limit WHERE prefix = '990001' AND currency = '840'",
      ['delete range_limit 990001/840'],
    ],
    [
      'INSERT OR REPLACE',
      "INSERT OR REPLACE INTO range_limit (prefix, currency, daily_maximum_count) VALUES ('990001', '840', 3)",
      [
        'update range_limit 990001/840 transaction_maximum_minor daily_maximum_minor daily_maximum_count' +
          ' stand_in_floor_minor stand_in_card_count stand_in_card_minor',
      ],
    ],
    [
      'a key, which is a row less and a row more',
      "UPDATE OR REPLACE pan_range SET prefix = '990077' WHERE prefix = '990001'",
      ['delete pan_range 990001', 'insert pan_range 990077'],
    ],
    [
      'many rows of several tables in one transaction',
      "BEGIN; UPDATE acquirer_link SET deadline_ms = 999; UPDATE pan_range SET hold_days = hold_days + 1 WHERE prefix IN ('990001', '990002'); COMMIT",
      [
        'update pan_range 990001 hold_days',
        'update pan_range 990002 hold_days',
        'update acquirer_link acquirer deadline_ms',
      ],
    ],
    [
      'an UPSERT',
      "INSERT INTO range_limit (prefix, currency, daily_maximum_count) VALUES ('990001', '840', 3) ON CONFLICT DO UPDATE SET daily_maximum_count = 4",
      ['update range_limit 990001/840 daily_maximum_count'],
    ],
  ];
  for (const [what, sql, rows] of proposed) {
    test(`${what} is taken as one proposal, and the rows are put back to what the log says`, (context) => {
      const config = new ConfigFile(context).enterSample();
      const before = content(config);
      shell(config.path, `${sql};`);
      assert.notEqual(content(config), before);
      assert.equal(config.file.tendEdits([]), true);
      assert.equal(content(config), before);
      const [edit, ...more] = edits(config);
      assert.deepEqual(more, []);
      assert.equal(edit?.outcome, 'waiting', edit?.reason ?? '');
      assert.deepEqual(summary(edit), rows);
      assert.match(edit.edited_at ?? '', /^20\d\d-/);
      assert.equal(config.file.tendEdits([]), false);
    });
  }

  test('names the version of each row that it replaces', (context) => {
    const config = new ConfigFile(context).enterSample();
    shell(
      config.path,
      "UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001'; INSERT INTO range_limit (prefix, currency) VALUES ('990001', '036');",
    );
    config.file.tendEdits([]);
    const proposal = JSON.parse(edits(config)[0]?.proposal ?? '[]') as { change: string; replaces: number }[];
    assert.deepEqual(
      proposal.map(({ replaces }) => replaces),
      [1, 0],
    );
    assert.match(proposal[0]?.change ?? '', /"hold_days":9/);
  });

  const refused: readonly (readonly [what: string, sql: string, reason: RegExp])[] = [
    [
      'a derived column',
      "UPDATE failover_map SET rank = 4 WHERE group_id = 'a'",
      /failover_map a: rank is made by the nodes/,
    ],
    [
      'bookkeeping',
      "UPDATE acquirer_link SET entered_by = 'me', changed_at_index = 99",
      /entered_by, changed_at_index are made by the nodes/,
    ],
    [
      'a limit of 2^53',
      'UPDATE range_limit SET daily_maximum_minor = 9007199254740992',
      /daily_maximum_minor: expected whole minor units/,
    ],
    [
      'a prefix of 20 digits',
      "UPDATE pan_range SET prefix = '99000100000000000000' WHERE prefix = '990001'",
      /prefix: expected 0 to 19 digits/,
    ],
    [
      'a truth that is none',
      'UPDATE acquirer_link SET partial_approval = 7',
      /partial_approval: expected true or false/,
    ],
    [
      'a card number in a text',
      "UPDATE pan_range SET description = 'card 4111111111111111' WHERE prefix = '990001'",
      /description: looks like a card number/,
    ],
  ];
  for (const [what, sql, reason] of refused) {
    test(`of ${what} is undone and the reason is kept`, (context) => {
      const config = new ConfigFile(context).enterSample();
      const before = content(config);
      shell(config.path, `${sql};`);
      config.file.tendEdits([]);
      assert.equal(content(config), before);
      const [edit] = edits(config);
      assert.equal(edit?.outcome, 'refused');
      assert.match(edit.reason ?? '', reason);
      assert.equal(edit.proposal, null);
      assert.doesNotMatch(JSON.stringify(edit), /4111111111111111/);
    });
  }

  test('of which one row is wrong is refused as a whole', (context) => {
    const config = new ConfigFile(context).enterSample();
    shell(
      config.path,
      "BEGIN; UPDATE acquirer_link SET deadline_ms = 999; UPDATE failover_map SET rank = 4 WHERE group_id = 'a'; COMMIT;",
    );
    config.file.tendEdits([]);
    const [edit, ...more] = edits(config);
    assert.deepEqual([edit?.outcome, summary(edit).length, more], ['refused', 2, []]);
  });

  for (const [what, sql] of [
    ['leaves the row as it was', "UPDATE pan_range SET hold_days = hold_days WHERE prefix = '990001'"],
    [
      'is taken back in the same transaction',
      'BEGIN; UPDATE acquirer_link SET deadline_ms = deadline_ms + 1; UPDATE acquirer_link SET deadline_ms = deadline_ms - 1; COMMIT',
    ],
    ['is ignored by the shell itself', "INSERT OR IGNORE INTO range_limit (prefix, currency) VALUES ('990001', '840')"],
    ['gives the columns that nodes make their defaults', "UPDATE acquirer_link SET entered_by = ''"],
    ['is rolled back', 'BEGIN; DELETE FROM pan_range; ROLLBACK'],
  ] as const) {
    test(`that ${what} is no change`, (context) => {
      const config = new ConfigFile(context).enterSample();
      const before = content(config);
      shell(config.path, `${sql};`);
      config.file.tendEdits([]);
      assert.equal(content(config), before);
      assert.deepEqual(edits(config), []);
    });
  }

  test('is put back before the next entry is applied, which then counts alone', (context) => {
    const config = new ConfigFile(context).enterSample();
    shell(config.path, 'UPDATE acquirer_link SET deadline_ms = 999, partial_approval = 1 - partial_approval;');
    const [link] = readByHand(config.path, 'SELECT link_id FROM acquirer_link');
    const [partial] = readByHand(config.path, 'SELECT partial_approval FROM shell_logged_acquirer_link');
    config.enter([
      {
        table: 'acquirer_link',
        operation: 'put',
        row: {
          link_id: String(link),
          acquiring_institutions: '*',
          partial_approval: partial === 1,
          deadline_ms: 1234,
          unmatched_reversal_request_code: '25',
        },
      },
    ]);
    assert.deepEqual(readByHand(config.path, 'SELECT deadline_ms FROM acquirer_link'), [1234]);
    assert.deepEqual(readByHand(config.path, 'SELECT partial_approval FROM acquirer_link'), [partial]);
    assert.equal(content(config), content(config, 'shell_logged_').replaceAll('shell_logged_', ''));
    assert.deepEqual(
      edits(config).map(({ outcome }) => outcome),
      ['waiting'],
    );
  });

  test('while the node is down is found when it starts', (context) => {
    const config = new ConfigFile(context).enterSample();
    const before = content(config);
    config.file.close();
    shell(config.path, 'UPDATE acquirer_link SET deadline_ms = 999;');
    config.restart();
    config.file.tendEdits([]);
    assert.equal(content(config), before);
    assert.deepEqual(summary(edits(config)[0]), ['update acquirer_link acquirer deadline_ms']);
  });
});

describe('a copy that is made anew', () => {
  test('takes over what was edited in the one that it replaces, noticed or not, and what became of earlier edits', (context) => {
    const config = new ConfigFile(context).enterSample();
    shell(config.path, 'UPDATE failover_map SET rank = 4;');
    config.file.tendEdits([]);
    shell(config.path, 'UPDATE acquirer_link SET deadline_ms = 999;');
    config.file.tendEdits([]);
    shell(config.path, "UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001';");
    const [, waiting] = edits(config);
    config.file.close();
    const fresh = emptyGroupFile(config.path);
    config.restart();
    const found = edits({ path: fresh });
    assert.deepEqual(
      found.map(({ outcome }) => outcome),
      ['refused', 'waiting', 'waiting'],
    );
    assert.equal(found[1]?.proposal, waiting?.proposal);
    assert.match(found[2]?.proposal ?? '', /hold_days\\":9/);
    assert.equal(existsSync(config.path), false);
  });

  test('says so when what it replaces cannot be read', (context) => {
    const config = new ConfigFile(context).enterSample();
    config.file.close();
    writeFileSync(config.path, 'no database');
    const fresh = emptyGroupFile(config.path);
    config.restart();
    const [edit, ...more] = edits({ path: fresh });
    assert.deepEqual(more, []);
    assert.match(edit?.reason ?? '', /^what was edited in the copy that this one replaces cannot be read: /);
  });
});

describe('what watches the tables', () => {
  const past: readonly (readonly [what: string, sql: string, said: RegExp])[] = [
    ['a dropped trigger', 'DROP TRIGGER shell_update_pan_range', /shell_update_pan_range was missing and is restored/],
    [
      'an altered trigger',
      'DROP TRIGGER shell_update_pan_range; CREATE TRIGGER shell_update_pan_range AFTER UPDATE ON pan_range BEGIN SELECT 1; END',
      /trigger shell_update_pan_range was altered and is restored/,
    ],
    [
      'a dropped table of keys',
      'DROP TRIGGER shell_update_pan_range; DROP TABLE shell_touched_pan_range',
      /shell_touched_pan_range was missing/,
    ],
    [
      "somebody else's trigger and index",
      'DROP TRIGGER shell_update_pan_range; CREATE TRIGGER mine AFTER INSERT ON log BEGIN SELECT 1; END; CREATE UNIQUE INDEX one ON pan_range (description)',
      /trigger mine was removed; index one was removed/,
    ],
  ];
  for (const [what, sql, said] of past) {
    test(`${what} is noticed, reported and put in order, and what was edited past it is undone and reported`, (context) => {
      const config = new ConfigFile(context).enterSample();
      const before = content(config);
      const schema = shell(config.path, 'SELECT name, sql FROM sqlite_schema ORDER BY 1;');
      shell(config.path, `${sql}; UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001';`);
      assert.equal(config.file.tendEdits([]), true);
      assert.equal(content(config), before);
      assert.equal(shell(config.path, 'SELECT name, sql FROM sqlite_schema ORDER BY 1;'), schema);
      const [restored, edit] = edits(config);
      assert.equal(restored?.outcome, 'restored');
      assert.match(restored.reason ?? '', said);
      assert.equal(edit?.outcome, 'refused');
      assert.match(edit.reason ?? '', /pan_range 990001: edited past the triggers/);
      shell(config.path, "UPDATE pan_range SET hold_days = 9 WHERE prefix = '990001';");
      config.file.tendEdits([]);
      assert.equal(edits(config).at(-1)?.outcome, 'waiting');
    });
  }

  test('is not needed to find an edit of a shell that has switched triggers off', (context) => {
    const config = new ConfigFile(context).enterSample();
    const before = content(config);
    config.file.tendEdits([]);
    shell(config.path, '.dbconfig enable_trigger off\nUPDATE pan_range SET hold_days = 9;');
    config.file.tendEdits([]);
    assert.equal(content(config), before);
    assert.match(edits(config)[0]?.reason ?? '', /edited past the triggers/);
  });

  test('may be dropped while the node is down', (context) => {
    const config = new ConfigFile(context).enterSample();
    const before = content(config);
    config.file.close();
    shell(config.path, 'DROP TRIGGER shell_delete_range_limit; DELETE FROM range_limit;');
    config.restart();
    config.file.tendEdits([]);
    assert.equal(content(config), before);
    assert.equal(edits(config).at(-1)?.outcome, 'refused');
  });

  test('a table that was dropped comes back as it was', (context) => {
    const config = new ConfigFile(context).enterSample();
    const before = content(config);
    shell(config.path, 'DROP TABLE range_limit;');
    config.file.tendEdits([]);
    assert.equal(content(config), before);
    assert.match(edits(config)[0]?.reason ?? '', /range_limit was missing and is restored/);
  });
});
