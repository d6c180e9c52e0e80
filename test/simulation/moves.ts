import { configGroup, groupId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import type { Configuration } from '../../config-db/configuration.ts';
import { readConfiguration } from '../../config-db/configuration-fold.ts';
import { lastChangeIndex } from '../../config-db/configuration-history.ts';
import { endOfMove, problemsOfRangeChanges } from '../../config-db/range-changes.ts';
import { encodeConfigurationChange, type ConfigurationChange } from '../../config-db/rows.ts';
import { encodeBody, type ConfigurationRowChange } from '../../store/entry.ts';
import type { Observer } from './observer.ts';
import type { SwitchProcess } from './process.ts';
import type { Scheduler } from './scheduler.ts';

/** What of a cluster the moves of its ranges need to know. */
interface MovingCluster {
  readonly scheduler: Scheduler;
  readonly observer: Observer;
  readonly processes: readonly SwitchProcess[];
  readonly healed: boolean;
  readonly pans: readonly string[];
  leaderOf(group: GroupId): SwitchProcess | undefined;
}

/**
 * An operator who divides ranges, moves them to other groups and merges them again, at random times, whatever else goes on.
 * The configuration is entered as the node's desk does it: on top of everything before, on the node that leads it.
 */
export class Moves {
  readonly #cluster: MovingCluster;
  readonly #random: Random;
  #begun = 0;
  #entered = 0;

  constructor(cluster: MovingCluster, seed: number) {
    this.#cluster = cluster;
    // Of its own, so that seeds without moves are what they were.
    this.#random = seededRandom(seed + 1_000_003);
  }

  spread(count: number, durationMs: number): void {
    for (let each = 0; each < count; each++) {
      this.#cluster.scheduler.after(this.#random.below(durationMs), () => {
        if (this.#cluster.healed) return;
        const wish = this.#random.below(8);
        if (wish === 0) this.#enter('carve', (configuration) => this.#carve(configuration));
        else if (wish === 1) this.#enter('merge', (configuration) => this.#merge(configuration));
        else this.#enter('move', (configuration) => this.#move(configuration));
      });
    }
  }

  /** A group that is entered while the cluster runs: it has no cards until a range moves there. */
  addGroup(group: GroupId, order: readonly NodeId[]): void {
    const row = { group_id: group, failover_order: order.join('>') };
    const isIn = ({ failover_map: map }: Configuration): boolean => map.some((each) => each.group_id === group);
    const again = (): void => {
      if (this.#hasGroup(group)) return;
      this.#enter('group added', (configuration) =>
        isIn(configuration) ? [] : [{ table: 'failover_map', operation: 'put', row }],
      );
      this.#cluster.scheduler.after(500, again);
    };
    again();
  }

  #hasGroup(group: GroupId): boolean {
    return this.#cluster.processes.some(({ running }) => running?.groups.configuration?.orders.has(group));
  }

  /** As the node that has the heir's owner asks for it. */
  end(move: string): void {
    this.#enter('end of a move', (configuration) => endOfMove(configuration, move), move);
  }

  /** No range is on its way, and everybody knows it. */
  get haveEnded(): boolean {
    return this.#cluster.processes.every(
      ({ isWitness, running }) => isWitness || running?.groups.configuration?.moves.length === 0,
    );
  }

  #enter(what: string, plan: (configuration: Configuration) => readonly ConfigurationChange[], ends?: string): void {
    const { observer, scheduler } = this.#cluster;
    const leader = this.#cluster.leaderOf(configGroup);
    leader?.inThread('consensus', ({ driver, threads }) => {
      const replica = driver.replica(configGroup);
      const reader = observer.file(leader, configGroup);
      if (replica === undefined || reader === undefined || replica.applied !== replica.log.last.index) return;
      const before = readConfiguration(reader.database);
      const changes = plan(before);
      const problems = problemsOfRangeChanges(before, changes, ends);
      if (changes.length === 0 || problems.length > 0) return;
      const at = threads.consensus.wallMs();
      const rows = changes.map((change) => JSON.parse(encodeConfigurationChange(change)) as ConfigurationRowChange);
      const checked = { id: `${what} ${String(++this.#entered)}`, checkedAt: lastChangeIndex(reader.database) };
      const body = encodeBody({
        kind: 'configuration',
        ...checked,
        at,
        by: 'simulation',
        origin: leader.id,
        changes: rows,
      });
      if (driver.enter(configGroup, [body]) === undefined) return;
      observer.count(what);
      scheduler.trace('cluster', `${what}: ${JSON.stringify(changes)}`);
    });
  }

  #one<T>(all: readonly T[]): T | undefined {
    return all[this.#random.below(Math.max(1, all.length))];
  }

  #move({ pan_range: ranges, failover_map: map }: Configuration): readonly ConfigurationChange[] {
    const range = this.#one(ranges.filter(({ prefix }) => prefix !== ''));
    const heir = this.#one(map.filter(({ group_id: group }) => group !== range?.group_id));
    if (range === undefined || heir === undefined) return [];
    this.#begun += 1;
    const row = { prefix: range.prefix, to_group: groupId(heir.group_id), move_id: `move-${this.#begun}` };
    return [{ table: 'range_move', operation: 'put', row }];
  }

  /** A range of one card or of a few, by a short prefix or by one that only the whole number shows. */
  #carve({ pan_range: ranges }: Configuration): readonly ConfigurationChange[] {
    const pan = this.#one(this.#cluster.pans) ?? '';
    const prefix = pan.slice(0, 7 + this.#random.below(9));
    const around = ranges
      .filter((range) => range.prefix !== '' && prefix.startsWith(range.prefix))
      .sort((one, other) => other.prefix.length - one.prefix.length)[0];
    if (around === undefined || around.prefix === prefix) return [];
    return [{ table: 'pan_range', operation: 'put', row: { ...around, prefix } }];
  }

  #merge({ pan_range: ranges, range_limit: limits }: Configuration): readonly ConfigurationChange[] {
    const inner = ranges.filter(
      ({ prefix }) =>
        limits.every((limit) => limit.prefix !== prefix) &&
        ranges.some((range) => range.prefix !== '' && prefix !== range.prefix && prefix.startsWith(range.prefix)),
    );
    const range = this.#one(inner);
    return range === undefined ? [] : [{ table: 'pan_range', operation: 'delete', key: { prefix: range.prefix } }];
  }
}
