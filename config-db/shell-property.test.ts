import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import fc from 'fast-check';

import { SwitchError } from '../base/errors.ts';
import { configGroup } from '../base/identifiers.ts';
import type { LogEntry } from '../store/entry.ts';
import { GroupReader } from '../store/log-reader.ts';
import { readByHand } from '../store/testing.ts';
import { planChanges, type VersionedChange } from './configuration-change.ts';
import { readVersions } from './configuration-fold.ts';
import { lastChangeIndex } from './configuration-history.ts';
import { decodeConfigurationChange, encodeConfigurationChange } from './rows.ts';
import { readProposal, readShellEdits } from './shell-edits.ts';
import { ConfigFile, shell, topology } from './testing.ts';

/** What people type, right and wrong, on few rows, so that they meet. */
const prefixes = ["'990001'", "'990002'", "'99000101'", "''", "'99000100000000000000'"];
const prefix = fc.constantFrom(...prefixes);
const number = fc.constantFrom('0', '7', '30', '-1', '9007199254740992', 'NULL');
const statement = fc.oneof(
  fc.tuple(prefix, number).map(([at, to]) => `UPDATE pan_range SET hold_days = ${to} WHERE prefix = ${at}`),
  fc.tuple(prefix, number).map(([at, to]) => `UPDATE range_limit SET daily_maximum_count = ${to} WHERE prefix = ${at}`),
  fc
    .tuple(fc.constantFrom('', ' OR REPLACE', ' OR IGNORE'), prefix, number)
    .map(
      ([or, at, to]) =>
        `INSERT${or} INTO range_limit (prefix, currency, daily_maximum_minor) VALUES (${at}, '840', ${to})`,
    ),
  fc.tuple(prefix).map(([at]) => `DELETE FROM range_limit WHERE prefix = ${at}`),
  fc.tuple(prefix, prefix).map(([at, to]) => `UPDATE OR REPLACE range_limit SET prefix = ${to} WHERE prefix = ${at}`),
  fc.tuple(prefix, prefix).map(([at, to]) => `UPDATE OR REPLACE pan_range SET prefix = ${to} WHERE prefix = ${at}`),
  fc.tuple(prefix).map(([at]) => `DELETE FROM pan_range WHERE prefix = ${at}`),
  fc.constantFrom(
    "UPDATE failover_map SET rank = 5 - rank WHERE group_id = 'a'",
    "UPDATE failover_map SET failover_order = 'n2>n1>n3>n4' WHERE group_id = 'a'",
    "UPDATE failover_map SET failover_order = 'n2>n1' WHERE group_id = 'a'",
    'UPDATE acquirer_link SET deadline_ms = deadline_ms + 1',
    "UPDATE acquirer_link SET entered_by = 'me'",
    'DROP TRIGGER shell_update_range_limit',
    'DROP TRIGGER shell_insert_range_limit; DROP TABLE shell_touched_pan_range',
  ),
);
const script = fc
  .tuple(fc.array(statement, { minLength: 1, maxLength: 3 }), fc.constantFrom('', 'COMMIT', 'ROLLBACK'))
  .map(([statements, end]) => (end === '' ? statements.join(';\n') : `BEGIN;\n${statements.join(';\n')};\n${end}`));
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('shell' as const), node: fc.nat(2), sql: script }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('tend' as const), node: fc.nat(2) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('bring' as const),
      node: fc.nat(2),
      times: fc.integer({ min: 1, max: 2 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('desk' as const), days: fc.integer({ min: 1, max: 90 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('apply' as const), node: fc.nat(2) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const), node: fc.nat(2) }) },
);

/** Three nodes' files over one log. The first one leads: it has every entry at once, the others when they apply. */
class Nodes {
  readonly files: readonly ConfigFile[];
  readonly #log: LogEntry[] = [];
  readonly #context: TestContext;
  #changes = 0;

  constructor(context: TestContext) {
    this.#context = context;
    this.files = topology.nodes.slice(0, 3).map(({ id }) => new ConfigFile(context, id).enterSample());
  }

  /** As the desk does it: once for each id, on top of what is there, or not at all with a reason. */
  enter(id: string, by: string, changes: readonly VersionedChange[]): 'entered' | 'nothing' | { refused: string } {
    const leader = this.leader;
    return reading(leader, (database) => {
      if (database.prepare('SELECT 1 FROM configuration_history WHERE change_id = ?').get(id) !== undefined)
        return 'entered';
      try {
        const planned = planChanges(readVersions(database), changes, topology);
        if (planned.length === 0) return 'nothing';
        leader.enterText(planned.map(encodeConfigurationChange), { id, by, checkedAt: lastChangeIndex(database) });
        this.#log.push(...reading(leader, (_, reader) => reader.entries(leader.file.last.index, 1)));
        return 'entered';
      } catch (error) {
        if (error instanceof SwitchError) return { refused: error.message };
        throw error;
      }
    });
  }

  get leader(): ConfigFile {
    const [leader] = this.files;
    assert.ok(leader);
    return leader;
  }

  /** Brings the first edit that waits; `told`: the node hears what became of it. */
  bring(at: number, told: boolean): void {
    const { config, edit, proposal } = this.#waiting(at) ?? {};
    if (config === undefined || edit === undefined || proposal === undefined) return;
    const changes = proposal.map(({ change, replaces }) => ({ change: decodeConfigurationChange(change), replaces }));
    const outcome = this.enter(edit.change, `shell@n${at + 1}`, changes);
    if (told && outcome !== 'entered') {
      config.file.tendEdits([{ change: edit.change, reason: outcome === 'nothing' ? undefined : outcome.refused }]);
    }
  }

  #waiting(at: number) {
    const config = this.files[at];
    assert.ok(config);
    return reading(config, (database) => {
      const edit = readShellEdits(database, -1)
        .reverse()
        .find(({ outcome }) => outcome === 'waiting');
      return edit && { config, edit, proposal: readProposal(database, edit.sequence) };
    });
  }

  apply(at: number): void {
    const config = this.files[at];
    assert.ok(config);
    const entries = this.#log.filter(({ index }) => index > config.file.last.index);
    if (at > 0) config.file.write({ entries, keepThrough: undefined, applyThrough: this.leader.file.last.index });
  }

  changeAtDesk(days: number): void {
    const [row] = reading(this.leader, (database) => readVersions(database).rows.pan_range);
    assert.ok(row);
    const replaces = Number(
      readByHand(
        this.leader.path,
        `SELECT changed_at_index FROM shell_logged_pan_range WHERE prefix = '${row.prefix}'`,
      )[0],
    );
    const change = { table: 'pan_range', operation: 'put', row: { ...row, hold_days: days } } as const;
    this.#changes += 1;
    this.enter(`desk-${this.#changes}`, 'operator', [{ change, replaces }]);
  }

  /** Everything that is under way comes to its end. */
  settle(): void {
    for (let round = 0; round < 100; round++) {
      this.files.forEach((config, at) => {
        config.file.tendEdits([]);
        this.apply(at);
      });
      const open = this.files.flatMap((_, at) => (this.#waiting(at) === undefined ? [] : [at]));
      if (open.length === 0) return;
      for (const at of open) this.bring(at, true);
    }
    assert.fail('edits wait for ever');
  }

  /** A file that has applied the same log and that nobody has edited. */
  recomputed(): ConfigFile {
    const fresh = new ConfigFile(this.#context).enterSample();
    fresh.file.write({ entries: this.#log, keepThrough: undefined, applyThrough: this.leader.file.last.index });
    return fresh;
  }
}

function reading<T>(config: ConfigFile, action: (database: GroupReader['database'], reader: GroupReader) => T): T {
  const reader = new GroupReader(config.path, configGroup);
  try {
    return action(reader.database, reader);
  } finally {
    reader.close();
  }
}

const canonical = `
  SELECT json_array(group_id, failover_order, entered_by, changed_at_index) FROM failover_map UNION ALL
  SELECT json_array(prefix, group_id, description, issuer, durability, hold_days, entered_by, changed_at_index) FROM pan_range UNION ALL
  SELECT json_array(prefix, currency, transaction_maximum_minor, daily_maximum_minor, daily_maximum_count, entered_by, changed_at_index) FROM range_limit UNION ALL
  SELECT json_array(link_id, acquiring_institutions, partial_approval, deadline_ms, entered_by, changed_at_index) FROM acquirer_link UNION ALL
  SELECT json_array(version, rules, changed_at_index) FROM rewrite_rule_set UNION ALL
  SELECT json_array(log_index, position, row_key, before, after, change_id) FROM configuration_history ORDER BY 1`;
const derived =
  'SELECT json_array(prefix, rank, action, takeover_after, forward_to, derived_by) FROM pan_range ORDER BY 1';

/** Whatever the shell thinks of the statements: a mistake is one of the things that people type. */
function type(path: string, sql: string): void {
  try {
    shell(path, `${sql};`);
  } catch (error) {
    // -bail has ended it at the mistake; what was committed before counts.
    assert.match(String(error), /error near line/);
  }
}

test('whatever people type into the sqlite3 shell of whichever node, all copies are what the log says, and every edit has one end', (context) => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 4, maxLength: 14 }), (steps) => {
      const nodes = new Nodes(context);
      for (const each of steps) {
        const config = each.kind === 'desk' ? undefined : nodes.files[each.node];
        if (each.kind === 'shell') type(config?.path ?? '', each.sql);
        else if (each.kind === 'tend') config?.file.tendEdits([]);
        else if (each.kind === 'bring') for (let at = 0; at < each.times; at++) nodes.bring(each.node, false);
        else if (each.kind === 'desk') nodes.changeAtDesk(each.days);
        else if (each.kind === 'apply') nodes.apply(each.node);
        else config?.restart();
      }
      nodes.settle();
      const fresh = nodes.recomputed();
      const expected = readByHand(fresh.path, canonical);
      for (const { path } of nodes.files) assert.deepEqual(readByHand(path, canonical), expected);
      assert.deepEqual(readByHand(nodes.leader.path, derived), readByHand(fresh.path, derived));
      for (const { path } of nodes.files) {
        const entered = readByHand(path, "SELECT change_id FROM shell_edit WHERE outcome = 'entered'");
        const ended = readByHand(
          path,
          "SELECT count(*) FROM shell_edit WHERE outcome <> 'entered' AND outcome NOT IN ('refused', 'restored', 'nothing to change')",
        );
        assert.deepEqual(ended, [0]);
        for (const change of entered) {
          const indexes = readByHand(
            path,
            `SELECT DISTINCT log_index FROM configuration_history WHERE change_id = '${String(change)}'`,
          );
          assert.equal(indexes.length, 1);
        }
      }
      for (const { file } of [...nodes.files, fresh]) file.close();
    }),
    { numRuns: Number(process.env['QUADRANT_SHELL_RUNS'] ?? 12), endOnFailure: true },
  );
});
