import type { Clock } from '../../base/clock.ts';
import { delay } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { configGroup } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Topology } from '../../base/topology.ts';
import { validateConfiguration, type Configuration } from '../../config-db/configuration.ts';
import { readConfiguration } from '../../config-db/configuration-fold.ts';
import { endOfMove, problemsOfRangeChanges } from '../../config-db/range-changes.ts';
import {
  configurationTables,
  encodeConfigurationChange,
  formatProblem,
  keyColumnsOf,
  toSqlRow,
  type ConfigurationChange,
  type ConfigurationTable,
} from '../../config-db/rows.ts';
import { encodeBody, type ConfigurationRowChange } from '../../store/entry.ts';
import type { Consensus } from './consensus.ts';
import type { Groups } from './groups.ts';

interface PlannedChange {
  readonly plan: (before: Configuration) => readonly ConfigurationChange[];
  readonly by: string;
  readonly origin: string;
  /** The move that the change ends. */
  readonly ends: string | undefined;
}

/**
 * Where changes of the configuration are entered: on the node that leads `config`. One change at a time is checked
 * against everything before it, appended, and awaited until it is committed and applied here.
 */
export class ConfigurationDesk {
  readonly #groups: Groups;
  readonly #consensus: Pick<Consensus, 'enter' | 'status'>;
  readonly #topology: Topology;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, 'info'>;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: {
    readonly groups: Groups;
    readonly consensus: Pick<Consensus, 'enter' | 'status'>;
    readonly topology: Topology;
    readonly clock: Clock;
    readonly log: Pick<Logger, 'info'>;
  }) {
    this.#groups = options.groups;
    this.#consensus = options.consensus;
    this.#topology = options.topology;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** The log index of the change; 0 when every row is as given already. Throws CONFIGURATION_REFUSED. */
  enter(changes: readonly ConfigurationChange[], by: string, origin: string): Promise<number> {
    return this.#inTurn({ plan: () => changes, by, origin, ends: undefined });
  }

  /** The end of a range's move (R12): the range is the heir's from here on. 0: that has been entered already. */
  endMove(move: string, origin: string): Promise<number> {
    return this.#inTurn({ plan: (before) => endOfMove(before, move), by: `move ${move}`, origin, ends: move });
  }

  #inTurn(change: PlannedChange): Promise<number> {
    const entered = this.#turn.then(() => this.#enter(change));
    this.#turn = entered.catch(() => undefined);
    return entered;
  }

  async #enter({ plan, by, origin, ends }: PlannedChange): Promise<number> {
    const hosted = this.#groups.hosted.get(configGroup);
    const replica = (await this.#consensus.status()).groups.find(({ group }) => group === configGroup);
    if (hosted === undefined || replica?.role !== 'leader') {
      throw new SwitchError('OWNER_UNREACHABLE', 'this node does not lead the configuration');
    }
    // A change of an earlier term may still be on its way into the fold: it counts too.
    await this.#whenApplied({ index: replica.last, term: replica.lastTerm });
    const before = readConfiguration(hosted.reader.database);
    const known = new Map(configurationTables.map((table) => [table, rowsByKey(before, table)]));
    const real = plan(before).filter((change) => changesSomething(known.get(change.table) ?? new Map(), change));
    if (real.length === 0) return 0;
    refuseOrders(before, real);
    const forbidden = problemsOfRangeChanges(before, real, ends);
    if (forbidden.length > 0) {
      throw new SwitchError('CONFIGURATION_REFUSED', forbidden.map(formatProblem).join('; '));
    }
    const after = applyChanges(before, real);
    const problems = validateConfiguration(after, this.#topology);
    if (problems.length > 0) {
      throw new SwitchError('CONFIGURATION_REFUSED', problems.map(formatProblem).join('; '));
    }
    const body = encodeBody({
      kind: 'configuration',
      at: this.#clock.wallMs(),
      by,
      origin,
      changes: real.map((change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationRowChange),
    });
    if (body.length > maximumEntryBytes) {
      throw new SwitchError(
        'CONFIGURATION_REFUSED',
        `the change has ${body.length} bytes; at most ${maximumEntryBytes} can be entered as one: load it in parts`,
      );
    }
    const entered = await this.#consensus.enter(configGroup, body);
    if (entered === undefined) throw new SwitchError('OWNER_UNREACHABLE', 'this node does not lead the configuration');
    await this.#whenApplied(entered);
    const tables = [...new Set(real.map(({ table }) => table))];
    this.#log.info(
      { event: 'configuration-entered', group: configGroup, ...entered, by, origin, rows: real.length, tables },
      'a change of the configuration was entered',
    );
    return entered.index;
  }

  /** Resolves when this very entry has been applied here; throws when a later leader has put another in its place. */
  async #whenApplied({ index, term }: { readonly index: number; readonly term: number }): Promise<void> {
    const deadline = this.#clock.monotonicMs() + 5000;
    for (;;) {
      const hosted = this.#groups.hosted.get(configGroup);
      if (hosted !== undefined && hosted.applied >= index) {
        const applied = hosted.reader.position(index);
        if (applied === undefined || applied.term === term) return;
        throw new SwitchError(
          'OWNER_UNREACHABLE',
          'the leader changed before the change was committed: enter it again',
        );
      }
      if (this.#clock.monotonicMs() > deadline) {
        throw new SwitchError(
          'OWNER_UNREACHABLE',
          'the configuration has no majority: whether the change is in is open until it has one; enter it again then',
        );
      }
      await delay(this.#clock, 10);
    }
  }
}

function keyOf(table: ConfigurationTable, row: Readonly<Record<string, unknown>>): string {
  return keyColumnsOf(table)
    .map((column) => String(row[column]))
    .join(' ');
}

function rowsByKey(configuration: Configuration, table: ConfigurationTable): Map<string, Record<string, unknown>> {
  return new Map(
    configuration[table].map((row) => {
      const values = toSqlRow(row);
      return [keyOf(table, values), values];
    }),
  );
}

function changesSomething(rows: ReadonlyMap<string, Record<string, unknown>>, change: ConfigurationChange): boolean {
  const content = change.operation === 'put' ? toSqlRow(change.row) : toSqlRow(change.key as never);
  const known = rows.get(keyOf(change.table, content));
  if (change.operation === 'delete') return known !== undefined;
  return known === undefined || Object.entries(content).some(([column, value]) => known[column] !== value);
}

/** An entry has to fit one message of the bus, with room for everything else in it. */
export const maximumEntryBytes = 600_000;

/** The failover order of a group with cards does not change in this release. */
function refuseOrders(before: Configuration, changes: readonly ConfigurationChange[]): void {
  const problems = changes.flatMap((change) => {
    if (change.table !== 'failover_map') return [];
    const group = change.operation === 'put' ? change.row.group_id : change.key.group_id;
    return before.failover_map.some((row) => row.group_id === group)
      ? [`failover_map ${group}: the order of a group with cards cannot be changed yet`]
      : [];
  });
  if (problems.length > 0) throw new SwitchError('CONFIGURATION_REFUSED', problems.join('; '));
}

function applyChanges(before: Configuration, changes: readonly ConfigurationChange[]): Configuration {
  const tables = configurationTables.map((table) => {
    const rows = new Map<string, unknown>(
      before[table].map((row): [string, unknown] => [keyOf(table, toSqlRow(row)), row]),
    );
    for (const change of changes) {
      if (change.table !== table) continue;
      if (change.operation === 'put') rows.set(keyOf(table, toSqlRow(change.row)), change.row);
      else rows.delete(keyOf(table, toSqlRow(change.key as never)));
    }
    return [table, [...rows.values()]] as const;
  });
  return Object.fromEntries(tables) as unknown as Configuration;
}
