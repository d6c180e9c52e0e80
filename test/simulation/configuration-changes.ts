import { readFileSync } from 'node:fs';

import { configGroup, type NodeId } from '../../base/identifiers.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import type { CallReply } from '../../cli/node/peer-calls.ts';
import {
  absent,
  keyOfChange,
  type VersionedChange,
  type VersionedConfiguration,
} from '../../config-db/configuration-change.ts';
import { readVersions } from '../../config-db/configuration-fold.ts';
import { readHistory, type HistoryRecord } from '../../config-db/configuration-history.ts';
import { readRuleSetFile } from '../../config-db/rule-file.ts';
import {
  encodeConfigurationChange,
  type ConfigurationChange,
  type ConfigurationRows,
  type ConfigurationTable,
} from '../../config-db/rows.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import { configurationCrashPoints, type SwitchProcess } from './process.ts';
import { ShellEdits, type ConfiguredCluster } from './shell-edits.ts';
import { Violation } from './violation.ts';

/** A change that an operator has made, and what was said of it. */
interface MadeChange {
  readonly node: NodeId;
  readonly atMs: number;
  /** `table key` of each row, with the version that its author saw. */
  readonly replaces: ReadonlyMap<string, number>;
  /** Queued: on the node's disk. */
  isKept: boolean;
  /** Said to be in the log; 0: nothing had to be changed. */
  enteredAt: number | undefined;
  refusal: string | undefined;
}

const everyMs = 900;
/** So long an operator looks at what there is before the change is entered, at most. */
const lookMs = 600;
const rules = ['../../config-db/rewrite-rules.yaml', '../../config-db/samples/same-site-first.yaml'].map((file) =>
  readRuleSetFile(readFileSync(new URL(file, import.meta.url), 'utf8'), file),
);

/**
 * Operators who change rows of the configuration at any node, in calls, in queues and with the sqlite3 shell, for the
 * versions that they have seen at another node or a while ago. What is promised:
 *
 * - An acknowledged change is in the history, once; one that was refused has no effect; a queued one that was acknowledged
 *   is one of the two in the end.
 * - Nobody replaces a version that the author of the change has not seen.
 * - What was committed in the shell is entered as one change, or undone and reported (`ShellEdits`).
 */
export class ConfigurationChanges {
  readonly #cluster: ConfiguredCluster;
  readonly #random: Random;
  readonly #made = new Map<string, MadeChange>();
  readonly #shell: ShellEdits;
  #stopped = false;
  #count = 0;

  constructor(cluster: ConfiguredCluster, seed: number) {
    this.#cluster = cluster;
    this.#random = seededRandom(seed + 1_000_005);
    this.#shell = new ShellEdits(cluster, this.#random);
  }

  /** Something about every second until `stop`. */
  start(): void {
    if (this.#stopped) return;
    const wish = this.#random.below(12);
    if (wish < 4) this.#shell.edit();
    else if (wish < 5) this.#armTrap();
    else this.#change(wish < 7);
    this.#cluster.scheduler.after(1 + this.#random.below(2 * everyMs), () => {
      this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#shell.stop();
  }

  /** Nothing waits at any node any more. */
  get settled(): boolean {
    return (
      this.#cluster.processes.every(({ isWitness, running }) => {
        if (isWitness) return true;
        const waits = running?.configuration?.queue.status.waiting;
        return waits === 0;
      }) && this.#shell.settled
    );
  }

  /** To be called when all copies are equal; `history`: that of the committed log. */
  check(history: GroupReader): void {
    const records = readHistory(history.database, { from: 0, limit: -1 }).reverse();
    const byChange = new Map<string, HistoryRecord[]>();
    for (const record of records) byChange.set(record.change, [...(byChange.get(record.change) ?? []), record]);
    for (const [id, found] of byChange) {
      if (found.some(({ index }) => index !== found[0]?.index)) throw new Violation(`change ${id} was entered twice`);
    }
    for (const [id, made] of this.#made) {
      const index = byChange.get(id)?.[0]?.index;
      this.#checkMade(id, made, index);
    }
    const versions = new Map<string, number>();
    for (const { table, key, index, change, after } of records) {
      const row = `${table} ${key}`;
      const seen = this.#made.get(change)?.replaces.get(row);
      const before = versions.get(row) ?? absent;
      if (seen !== undefined && seen !== before) {
        throw new Violation(`change ${change} replaces version ${before} of ${row}, and its author saw ${seen}`);
      }
      versions.set(row, after === null ? absent : index);
    }
    this.#shell.check(records);
  }

  #checkMade(id: string, made: MadeChange, index: number | undefined): void {
    const { enteredAt, refusal } = made;
    const count = this.#cluster.observer.count.bind(this.#cluster.observer);
    if (refusal !== undefined && index !== undefined) {
      throw new Violation(`change ${id} was refused (${refusal}), and is in the log at ${index}`);
    }
    if (enteredAt !== undefined && enteredAt !== (index ?? 0)) {
      throw new Violation(`change ${id} was entered at ${enteredAt}, and the history has it at ${String(index)}`);
    }
    if (refusal !== undefined) count('configuration change refused');
    if (index !== undefined) count('configuration change entered');
    const forgotMs = this.#cluster.disks.forgetful.get(made.node) ?? Number.NEGATIVE_INFINITY;
    if (!made.isKept || made.atMs <= forgotMs) return;
    const process = this.#cluster.processes.find((each) => each.id === made.node);
    const kept = process?.running?.configuration?.queue.list().find((each) => each.id === id);
    switch (kept?.outcome) {
      case 'entered':
        if (kept.index !== (index ?? 0)) {
          throw new Violation(
            `${id} is entered at ${kept.index} for its node, and the history has it at ${String(index)}`,
          );
        }
        count('queued change entered');
        return;
      case 'refused':
        if (index !== undefined) throw new Violation(`${id} is refused for its node, and is in the log at ${index}`);
        count('queued change refused');
        return;
      default:
        throw new Violation(`${made.node} kept the queued change ${id}, and says it is ${String(kept?.outcome)}`);
    }
  }

  #armTrap(): void {
    const point = this.#any(configurationCrashPoints);
    if (point === undefined) return;
    const trap = { point, passes: 1, powerFails: this.#random.below(2) === 0 };
    for (const process of this.#cluster.processes) process.arm(trap);
  }

  #change(isQueued: boolean): void {
    const { scheduler, observer } = this.#cluster;
    const seenAt = this.#node();
    const reader = seenAt && observer.file(seenAt, configGroup);
    if (reader === undefined) return;
    const before = reader.database.transaction(() => readVersions(reader.database))();
    // A copy that is being made anew has nothing yet.
    if (before.rows.rewrite_rule_set.length === 0) return;
    const changes = this.#draw(before);
    if (changes.length === 0) return;
    scheduler.after(this.#random.below(lookMs), () => {
      const node = this.#node();
      if (node !== undefined && !this.#stopped) this.#enter(node, changes, isQueued);
    });
  }

  #enter(node: SwitchProcess, changes: readonly VersionedChange[], isQueued: boolean): void {
    const { scheduler, observer } = this.#cluster;
    const id = `${node.id}-c${String(++this.#count)}`;
    const made: MadeChange = {
      node: node.id,
      atMs: scheduler.nowMs,
      replaces: new Map(changes.map(({ change, replaces }) => [`${change.table} ${keyOfChange(change)}`, replaces])),
      isKept: false,
      enteredAt: undefined,
      refusal: undefined,
    };
    this.#made.set(id, made);
    const encoded = changes.map(({ change, replaces }) => ({ change: encodeConfigurationChange(change), replaces }));
    scheduler.trace(node.id, `${isQueued ? 'queues' : 'is to enter'} ${id}: ${encoded.map(textOf).join(', ')}`);
    node.inThread('main', ({ configuration }) => {
      if (isQueued) {
        configuration?.queue.add({ id, by: 'operator', changes: encoded }, (failure) => {
          made.isKept = failure === undefined;
          observer.count('configuration change queued');
        });
      } else {
        configuration?.enter({ id, by: 'operator', origin: node.id, changes: encoded }, (reply) => {
          this.#noteReply(id, made, reply);
        });
      }
    });
  }

  #noteReply(id: string, made: MadeChange, reply: CallReply): void {
    this.#cluster.scheduler.trace(made.node, `${id}: ${reply.kind === 'result' ? String(reply.result) : reply.code}`);
    if (reply.kind === 'result') made.enteredAt = reply.result as number;
    else if (reply.code === 'VERSION_CONFLICT' || reply.code === 'CONFIGURATION_REFUSED') made.refusal = reply.message;
    this.#cluster.observer.count(
      reply.kind === 'result' ? 'configuration change acknowledged' : `configuration change: ${reply.code}`,
    );
  }

  /** One to three rows of a configuration as somebody sees it, each of another kind. */
  #draw(before: VersionedConfiguration): readonly VersionedChange[] {
    const changes = new Map<string, VersionedChange>();
    for (let count = 1 + this.#random.below(3); count > 0; count--) {
      const change = this.#drawOne(before);
      if (change === undefined) continue;
      const key = keyOfChange(change);
      const replaces = before.versionOf(change.table, key)?.version ?? absent;
      changes.set(`${change.table} ${key}`, { change, replaces });
    }
    return [...changes.values()];
  }

  #drawOne({ rows }: VersionedConfiguration): ConfigurationChange | undefined {
    const limit = this.#any(rows.range_limit);
    const group = this.#any(rows.failover_map);
    switch (this.#random.below(9)) {
      case 0:
      case 1:
        return limit && put('range_limit', { ...limit, daily_maximum_count: 100_000 + this.#random.below(100_000) });
      case 2:
        return this.#merchantLimit(rows.merchant_limit, limit);
      case 3:
      case 4:
        return this.#link(rows.acquirer_link);
      case 5:
        return this.#maintenance(rows.node_state);
      case 6: {
        if (group === undefined) return undefined;
        const nodes = group.failover_order.split('>');
        const moved = nodes.splice(this.#random.below(nodes.length), 1);
        return put('failover_map', { ...group, failover_order: [...moved, ...nodes].join('>') });
      }
      case 7: {
        const version = 1 + Math.max(...rows.rewrite_rule_set.map((row) => row.version));
        const shipped = this.#any(rules);
        return shipped && put('rewrite_rule_set', { ...shipped, version });
      }
      default: {
        const range = this.#any(rows.pan_range);
        return range && put('pan_range', { ...range, description: `range ${String(this.#random.below(1_000_000))}` });
      }
    }
  }

  #merchantLimit(
    rows: readonly ConfigurationRows['merchant_limit'][],
    limit: ConfigurationRows['range_limit'] | undefined,
  ): ConfigurationChange | undefined {
    const there = this.#any(rows);
    if (there !== undefined && this.#random.below(3) === 0) {
      const { prefix, merchant_category, currency } = there;
      return { table: 'merchant_limit', operation: 'delete', key: { prefix, merchant_category, currency } };
    }
    if (limit === undefined) return undefined;
    return put('merchant_limit', {
      prefix: limit.prefix,
      merchant_category: this.#any(['5411', '5812', '7995']) ?? '5411',
      currency: '978',
      transaction_maximum_minor: 1_000_000n + BigInt(this.#random.below(1_000_000)),
    });
  }

  /** Those that acquirers use keep what they go by. */
  #link(rows: readonly ConfigurationRows['acquirer_link'][]): ConfigurationChange | undefined {
    const spare = this.#any(['spare-1', 'spare-2', 'spare-3']) ?? 'spare-1';
    const there = rows.find((row) => row.link_id === spare);
    if (there !== undefined && this.#random.below(3) === 0) {
      return { table: 'acquirer_link', operation: 'delete', key: { link_id: spare } };
    }
    const [pattern] = rows;
    return (
      pattern && put('acquirer_link', { ...pattern, link_id: spare, deadline_ms: 1_000 + this.#random.below(1_900) })
    );
  }

  #maintenance(rows: readonly ConfigurationRows['node_state'][]): ConfigurationChange | undefined {
    const node = this.#any(this.#cluster.processes.filter(({ isWitness }) => !isWitness))?.id;
    if (node === undefined) return undefined;
    const there = rows.find((row) => row.node_id === node);
    if (there !== undefined && this.#random.below(3) === 0) {
      return { table: 'node_state', operation: 'delete', key: { node_id: node } };
    }
    const state = there?.state === 'maintenance' || this.#random.below(3) === 0 ? 'in-service' : 'maintenance';
    return put('node_state', { node_id: node, state, reason: `reason ${String(this.#random.below(1_000_000))}` });
  }

  #node(): SwitchProcess | undefined {
    return this.#any(this.#cluster.processes.filter(({ isWitness, running }) => !isWitness && running !== undefined));
  }

  #any<Item>(items: readonly Item[]): Item | undefined {
    return items.length === 0 ? undefined : items[this.#random.below(items.length)];
  }
}

function put<Table extends ConfigurationTable>(table: Table, row: ConfigurationRows[Table]): ConfigurationChange {
  // A row of the table's own type is the table's row; the union type cannot say so.
  return { table, operation: 'put', row } as ConfigurationChange;
}

function textOf({ change, replaces }: { readonly change: string; readonly replaces: number }): string {
  return `${change.length > 200 ? `${change.slice(0, 200)}...` : change} for ${String(replaces)}`;
}
