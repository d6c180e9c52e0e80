import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { CardKeys } from '../../base/card-keys.ts';
import { groupId, nodeId, type NodeId } from '../../base/identifiers.ts';
import { seededRandom, type Random } from '../../base/random.ts';
import { ConfigurationView } from '../../config-db/configuration-view.ts';
import { encodeBody } from '../../store/entry.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { Acquirers, localPrefix, quorumPrefix } from './acquirers.ts';
import { calm, SimulatedBus } from './bus.ts';
import { Checks, contentOf, Violation } from './checks.ts';
import { crashPoints, SwitchProcess } from './process.ts';
import { Scheduler } from './scheduler.ts';

export interface ClusterOptions {
  readonly seed: number;
  readonly voters: number;
  /** fixed: the first voter campaigns, the others never. moving: the seed moves the right from one to another. */
  readonly leadership: 'fixed' | 'moving';
  /** Where the files lie; memory when undefined and the machine has such a folder. */
  readonly folder?: string;
}

const group = groupId('a');
/** Longest simulated time in which a healed cluster has to agree. */
const healingMs = 30_000;

/** A cluster in one thread, driven by one seed. `close` when done. */
export class Cluster {
  readonly scheduler = new Scheduler();
  readonly bus: SimulatedBus;
  readonly processes: readonly SwitchProcess[];
  readonly acquirers: Acquirers;
  readonly checks: Checks;
  /** How often each thing happened. */
  readonly events = new Map<string, number>();
  readonly #options: ClusterOptions;
  readonly #random: Random;
  readonly #folder: string;
  readonly #files = new Map<NodeId, GroupReader>();
  /** Who may campaign, as indexes of processes. */
  #candidates: readonly number[] = [0];
  #healed = false;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    const parent = options.folder ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir());
    this.#folder = mkdtempSync(join(parent, 'quadrant-simulation-'));
    this.bus = new SimulatedBus(this.scheduler, this.#random);
    this.checks = new Checks(options.voters, this.#files);
    const voters = Array.from({ length: options.voters }, (_, index) => nodeId(`n${index + 1}`));
    const cardKeys = new CardKeys(1, Buffer.alloc(32, 1), Buffer.alloc(32, 2));
    const configuration = configurationOf(voters);
    this.processes = voters.map(
      (id, index) =>
        new SwitchProcess({
          id,
          group,
          voters,
          folder: this.#folder,
          scheduler: this.scheduler,
          random: this.#random,
          bus: this.bus,
          cardKeys,
          sealingKey: Buffer.alloc(32, 3),
          configuration,
          ticksTogether: options.seed % 4 === 1,
          mayCampaign: () => this.#candidates.includes(index),
          checks: () => this.checks,
          onEvent: (event) => {
            this.#count(event);
          },
          onCrash: (point) => {
            if (point !== undefined) this.#count(`crash ${point}`);
            this.#restartLater(index);
          },
        }),
    );
    const localLasts = options.leadership === 'fixed';
    this.acquirers = new Acquirers(this.scheduler, this.#random, cardKeys, this.processes, localLasts);
    for (const process of this.processes) {
      process.start();
      this.#files.set(process.id, new GroupReader(process.path, group));
    }
    this.#enterCards();
  }

  /** Traffic and faults for `durationMs`, then healing and the final checks. */
  runFaults(durationMs: number): void {
    const random = this.#random;
    this.bus.faults = {
      lostPercent: random.below(3) * random.below(11),
      duplicatedPercent: random.below(2) * random.below(21),
      latePercent: random.below(3) * random.below(11),
      lateMs: 20 + random.below(600),
    };
    this.acquirers.start(12);
    this.#faultLater();
    if (this.#options.leadership === 'moving') this.#seekLeader();
    this.scheduler.run(durationMs);
    this.heal();
  }

  /** All faults end; every copy must become the same, and hold what acquirers were told. */
  heal(): void {
    this.scheduler.trace('cluster', 'heals');
    this.#healed = true;
    this.acquirers.stop();
    this.bus.faults = calm;
    this.bus.healPartitions();
    for (const process of this.processes) process.start();
    if (this.#options.leadership === 'moving') this.#moveLeadership();
    const endMs = this.scheduler.nowMs + healingMs;
    while (!this.#agree()) {
      if (this.scheduler.nowMs >= endMs) throw new Violation(`not healed after ${healingMs} ms: ${this.#positions()}`);
      // Whoever has the newest log has to be let campaign some time.
      if (this.#options.leadership === 'moving' && this.#leader() === undefined) this.#moveLeadership();
      this.scheduler.run(1_300, () => this.#agree());
    }
    this.#checkCopies();
  }

  /** Entries of the leader's own, in batches, without waiting for their commit. */
  propose(count: number): void {
    const leader = this.#leader();
    if (leader === undefined) throw new Error('nobody leads');
    leader.act(({ replica }) => {
      const body = encodeBody({ kind: 'expiry', at: 0, holds: [] });
      // The size of a decision.
      const padded = `${body.slice(0, -1)},"padding":"${'x'.repeat(600)}"}`;
      replica.propose(Array.from({ length: count }, () => padded));
    });
  }

  process(index: number): SwitchProcess {
    const process = this.processes[index];
    if (process === undefined) throw new Error(`no process ${index}`);
    return process;
  }

  /** Stays down until it is started by hand or the cluster heals. */
  stopForLong(index: number): void {
    this.#staysDown.add(index);
    this.process(index).crash('for long');
  }

  startAgain(index: number): void {
    this.#staysDown.delete(index);
    this.process(index).start();
  }

  close(): void {
    this.#healed = true;
    for (const process of this.processes) process.crash();
    for (const file of this.#files.values()) file.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  readonly #staysDown = new Set<number>();

  #leader(): SwitchProcess | undefined {
    const leaders = this.processes.filter(({ running }) => running?.replica.raft.role === 'leader');
    return leaders.sort((one, other) => termOf(other) - termOf(one))[0];
  }

  #enterCards(): void {
    this.#leader()?.act(({ owner, clock }) => {
      this.acquirers.enterCards(owner, clock.wallMs());
    });
    this.scheduler.after(100, () => {
      this.#enterCards();
    });
  }

  #restartLater(index: number): void {
    if (this.#staysDown.has(index)) return;
    const afterMs = this.#healed ? 100 : 20 + this.#random.below(this.#random.below(3) === 0 ? 2_500 : 300);
    this.scheduler.after(afterMs, () => {
      if (!this.#staysDown.has(index)) this.process(index).start();
    });
  }

  #faultLater(): void {
    this.scheduler.after(30 + this.#random.below(350), () => {
      if (this.#healed) return;
      this.#fault();
      this.#faultLater();
    });
  }

  #fault(): void {
    const random = this.#random;
    const count = this.processes.length;
    const one = random.below(count);
    const process = this.process(one);
    const other = this.process((one + 1 + random.below(count - 1)) % count);
    const name = faults[random.below(faults.length)] ?? 'crash';
    this.#count(name);
    this.scheduler.trace('cluster', `${name} ${process.id} ${other.id}`);
    switch (name) {
      case 'crash':
        process.crash('at any moment');
        break;
      case 'leader crash':
        this.#leader()?.crash('at any moment');
        break;
      case 'crash at a point': {
        const point = crashPoints[random.below(crashPoints.length)] ?? 'after the write';
        const victim = random.below(2) === 0 ? process : (this.#leader() ?? process);
        // Terms change seldom: the next time counts.
        victim.arm(point, point.includes('vote') ? 1 : 1 + random.below(6));
        break;
      }
      case 'two-way partition':
        this.bus.block(process.id, other.id);
        this.bus.block(other.id, process.id);
        break;
      case 'one-way partition':
        this.bus.block(process.id, other.id);
        break;
      case 'isolation':
        this.#isolate(process.id);
        break;
      case 'brokers away':
        this.bus.silent = true;
        break;
      case 'slow disk':
        process.stallMs = 50 + random.below(400);
        break;
      case 'partitions end':
      case 'all partitions end':
        this.bus.healPartitions();
        break;
      case 'takeover': {
        const leader = this.#leader();
        if (this.#options.leadership === 'fixed' || leader === undefined) break;
        if (random.below(2) === 0) leader.crash('at any moment');
        else this.#isolate(leader.id);
        this.#moveLeadership();
        break;
      }
    }
  }

  /** While nobody leads, the right to campaign goes round. */
  #seekLeader(): void {
    this.scheduler.after(350, () => {
      if (this.#healed) return;
      if (this.#leader() === undefined) this.#moveLeadership();
      this.#seekLeader();
    });
  }

  #isolate(process: NodeId): void {
    for (const { id } of this.processes) {
      this.bus.block(process, id);
      this.bus.block(id, process);
    }
  }

  /** Another may campaign; while there are faults, sometimes two at once, which must not harm. */
  #moveLeadership(): void {
    const count = this.processes.length;
    const next = ((this.#candidates[0] ?? 0) + 1 + this.#random.below(count - 1)) % count;
    const rival = (next + 1) % count;
    this.#candidates = this.#healed || this.#random.below(2) === 0 ? [next] : [next, rival];
    if (this.#candidates.length > 1 && this.#random.below(2) === 0) {
      // Rivals that do not hear of each other: the voters alone keep their terms apart.
      this.bus.block(this.process(next).id, this.process(rival).id);
      this.bus.block(this.process(rival).id, this.process(next).id);
    }
    this.scheduler.trace('cluster', `may campaign: ${this.#candidates.map((index) => `n${index + 1}`).join(', ')}`);
  }

  /** All up, one leader, all logs equally long, all applied to their end. */
  #agree(): boolean {
    const leader = this.#leader()?.running?.replica;
    if (leader === undefined || leader.raft.commit < leader.log.last.index) return false;
    return this.processes.every(
      ({ running }) =>
        running?.replica.raft.term === leader.raft.term &&
        running.replica.log.last.hash === leader.log.last.hash &&
        running.replica.applied === leader.log.last.index,
    );
  }

  #positions(): string {
    return this.processes
      .map(({ id, running }) => {
        if (running === undefined) return `${id} down`;
        const { raft, log, applied } = running.replica;
        return `${id} ${raft.role} term ${raft.term} last ${log.last.index} commit ${raft.commit} applied ${applied}`;
      })
      .join('; ');
  }

  #checkCopies(): void {
    const [first, ...others] = this.processes.map(({ id }) => {
      const reader = this.#files.get(id);
      if (reader === undefined) throw new Error(`no file of ${id}`);
      this.acquirers.checkCopy(id, reader);
      return { id, content: contentOf(reader) };
    });
    for (const other of others) {
      for (const [table, rows] of first?.content ?? []) {
        const theirs = other.content.get(table) ?? [];
        const at = rows.findIndex((row, index) => row !== theirs[index]);
        if (at !== -1 || rows.length !== theirs.length) {
          throw new Violation(`${table} differs between ${first?.id ?? ''} and ${other.id} at row ${at}`);
        }
      }
    }
    this.scheduler.trace('cluster', `agrees at ${this.checks.committed}: ${JSON.stringify(this.acquirers.counts)}`);
  }

  #count(name: string): void {
    this.events.set(name, (this.events.get(name) ?? 0) + 1);
  }
}

/** What a seed draws from; what is wanted more often stands more often. */
const faults = [
  'crash',
  'leader crash',
  'crash at a point',
  'crash at a point',
  'crash at a point',
  'two-way partition',
  'one-way partition',
  'isolation',
  'brokers away',
  'slow disk',
  'partitions end',
  'all partitions end',
  'all partitions end',
  'takeover',
  'takeover',
  'takeover',
] as const;

function termOf({ running }: SwitchProcess): number {
  return running?.replica.raft.term ?? 0;
}

function configurationOf(voters: readonly NodeId[]): ConfigurationView {
  const range = { group_id: group, description: '', issuer: 'test', hold_days: 7 };
  return new ConfigurationView(
    0,
    {
      failover_map: [{ group_id: group, failover_order: voters.join('>') }],
      pan_range: [
        { ...range, prefix: '', durability: 'quorum' },
        { ...range, prefix: quorumPrefix, durability: 'quorum' },
        { ...range, prefix: localPrefix, durability: 'local' },
      ],
      range_limit: [],
      acquirer_link: [
        {
          link_id: 'pos',
          acquiring_institutions: '*',
          partial_approval: false,
          deadline_ms: 1_500,
          unmatched_reversal_request_code: '25',
        },
      ],
      rewrite_rule_set: [],
    },
    [],
  );
}

/** What one seed's run came to. */
export interface RunResult {
  readonly seed: number;
  readonly traceHash: string;
  readonly committed: number;
  readonly events: ReadonlyMap<string, number>;
  readonly counts: Acquirers['counts'];
  /** What was found, with seed and trace; undefined when nothing was. */
  readonly violation: string | undefined;
}

/** One seed: its own number of voters, its own kind of leadership, its own faults. */
export function runSeed(seed: number, durationMs = 2_200): RunResult {
  const leadership = seed % 2 === 0 ? 'fixed' : 'moving';
  const cluster = new Cluster({ seed, voters: 3 + (Math.floor(seed / 2) % 3), leadership });
  let violation: string | undefined;
  try {
    cluster.runFaults(durationMs);
  } catch (error) {
    const reason = error instanceof Violation ? error.message : error instanceof Error ? error.stack : String(error);
    violation = `seed ${seed} (${leadership}): ${reason ?? ''}\nQUADRANT_SEED=${seed} replays it. Trace: ${cluster.scheduler.traceTail()}`;
  }
  const result = {
    seed,
    traceHash: cluster.scheduler.traceHash(),
    committed: cluster.checks.committed,
    events: cluster.events,
    counts: cluster.acquirers.counts,
    violation,
  };
  cluster.close();
  return result;
}
