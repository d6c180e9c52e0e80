import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { calm, type BusFaults } from './bus.ts';
import type { Cluster } from './cluster.ts';
import { crashPoints, threads, type SwitchProcess, type Trap } from './process.ts';

/** What a seed draws from; what is wanted more often has more weight. */
const kinds = [
  ['kill', 2],
  ['power loss', 2],
  ['leader killed', 3],
  ['crash at a point', 8],
  ['two-way partition', 2],
  ['one-way partition', 2],
  ['isolation', 3],
  ['leader isolated', 3],
  ['leader unheard', 2],
  ['sites apart', 1],
  ['brokers away', 1],
  ['bad network', 2],
  ['process pause', 2],
  ['thread stall', 3],
  ['wall clock jump', 2],
  ['flapping', 2],
  ['drain', 2],
  ['planned stop', 2],
  ['failback', 1],
  ['disk goes back', 3],
  ['disk lost', 2],
  ['old majority', 2],
  ['disk full', 2],
  ['copy made anew', 1],
] as const;
export type FaultKind = (typeof kinds)[number][0];
export const faultKinds: readonly FaultKind[] = kinds.map(([name]) => name);

/** Steps of what happens a few times in a run, or not at all. */
const seldom = /vote|incarnation|move|salvage|reversal due|stand-in|restriction|snapshot/;

/** Made in a run, each of any process's disk at any time: what may come back as an old disk. */
const copiesOfDisks = 12;

/** Breaks things, at times and for so long as the seed says. */
export class Faults {
  readonly #cluster: Cluster;
  readonly #kinds: readonly (readonly [FaultKind, number])[];
  /** What ends the faults that are still on. */
  readonly #ends = new Set<() => void>();
  readonly #traps: Trap[] = [];

  /** `only`: kinds that are drawn; all of them when not given. */
  constructor(cluster: Cluster, only?: readonly FaultKind[]) {
    this.#cluster = cluster;
    this.#kinds = kinds.filter(([name]) => only === undefined || only.includes(name));
  }

  /** `count` faults over `durationMs`; what is still on at the end is ended by `endAll`. */
  spread(count: number, durationMs: number): void {
    const { scheduler, random, processes, disks } = this.#cluster;
    for (let each = 0; each < count; each++) {
      scheduler.after(random.below(durationMs), () => {
        if (!this.#cluster.healed) this.#strike(this.#draw());
      });
    }
    for (let copy = 0; copy < copiesOfDisks; copy++) {
      scheduler.after(random.below(durationMs), () => {
        const process = processes[random.below(processes.length)];
        if (process !== undefined) disks.copy(process);
      });
    }
  }

  endAll(): void {
    for (const end of this.#ends) end();
    this.#ends.clear();
    for (const trap of this.#traps) trap.passes = 0;
    this.#cluster.bus.faults = calm;
  }

  #draw(): FaultKind {
    let left = this.#cluster.random.below(this.#kinds.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [name, weight] of this.#kinds) {
      left -= weight;
      if (left < 0) return name;
    }
    return 'kill';
  }

  #strike(kind: FaultKind): void {
    const { random, processes, observer, scheduler } = this.#cluster;
    const one = random.below(processes.length);
    const process = processes[one];
    const other = processes[(one + 1 + random.below(processes.length - 1)) % processes.length];
    if (process === undefined || other === undefined) return;
    observer.count(kind);
    scheduler.trace('cluster', `${kind}: ${process.id}, ${other.id}`);
    this.#carryOut(kind, process, other);
  }

  #carryOut(kind: FaultKind, process: SwitchProcess, other: SwitchProcess): void {
    const { random, bus, processes, scheduler } = this.#cluster;
    const ids = processes.map(({ id }) => id);
    switch (kind) {
      case 'kill':
        process.crash('killed');
        return;
      case 'power loss':
        process.crash('without power', true);
        return;
      case 'leader killed':
        this.#leader()?.crash('killed', random.below(2) === 0);
        return;
      case 'crash at a point':
        this.#setTrap(process);
        return;
      case 'two-way partition':
        this.#forAWhile([bus.cut(process.id, other.id), bus.cut(other.id, process.id)]);
        return;
      case 'one-way partition': {
        // Half the time somebody does not hear its leader, which all others do.
        const deaf = this.#leader();
        const from = deaf === undefined || deaf.id === other.id || random.below(2) === 0 ? process : deaf;
        this.#forAWhile([bus.cut(from.id, other.id)]);
        return;
      }
      case 'isolation':
        this.#isolate(process.id);
        return;
      case 'leader isolated':
        this.#isolate((this.#leader() ?? process).id);
        return;
      case 'leader unheard':
        this.#unhear((this.#leader() ?? process).id);
        return;
      case 'sites apart':
        this.#forAWhile(
          ids.flatMap((from, at) =>
            ids.flatMap((to, position) => (at % 2 === position % 2 ? [] : [bus.cut(from, to)])),
          ),
        );
        return;
      case 'brokers away':
        this.#forAWhile(ids.flatMap((from) => ids.flatMap((to) => (from === to ? [] : [bus.cut(from, to)]))));
        return;
      case 'bad network':
        this.#badNetwork({
          lostPercent: random.below(15),
          duplicatedPercent: random.below(15),
          latePercent: random.below(20),
          lateMs: 20 + random.below(1_000),
        });
        return;
      case 'process pause': {
        const pauseMs = 100 + random.below(random.below(3) === 0 ? 6_000 : 1_200);
        for (const thread of threads) process.running?.threads[thread].stall(pauseMs);
        return;
      }
      case 'thread stall': {
        const thread = threads[random.below(threads.length)] ?? 'main';
        const victim = random.below(2) === 0 ? process : (this.#leader() ?? process);
        victim.running?.threads[thread].stall(50 + random.below(1_500));
        return;
      }
      case 'flapping':
        this.#flap(process);
        return;
      case 'drain':
        this.#drain(process, true);
        this.#forAWhile([
          () => {
            this.#drain(process, false);
          },
        ]);
        return;
      case 'planned stop':
        this.#drain(process, true);
        scheduler.after(200 + random.below(1_500), () => {
          process.crash('stopped');
        });
        return;
      case 'failback':
        process.inThread('consensus', ({ driver }) => {
          driver.failback([]);
        });
        return;
      case 'disk goes back':
      case 'disk lost': {
        const isDone = this.#cluster.disks.lose(process, kind === 'disk lost' ? 'empty' : 'old');
        this.#cluster.observer.count(isDone ? `${kind}, carried out` : `${kind}, spared`);
        return;
      }
      case 'old majority':
        this.#oldMajority();
        return;
      case 'disk full': {
        const victim = random.below(2) === 0 ? process : (this.#leader() ?? process);
        victim.fillDisk(true);
        this.#forAWhile([
          () => {
            victim.fillDisk(false);
          },
        ]);
        return;
      }
      case 'copy made anew':
        this.#cluster.disks.rebuild(process);
        return;
      case 'wall clock jump': {
        const limitMs = random.below(2) === 0 ? 2 * 86_400_000 : 600_000;
        process.machine.wallErrorMs = random.below(2 * limitMs) - limitMs;
        return;
      }
    }
  }

  /** Nothing that the process says is heard; it hears for a while what was sent to it before, and then nothing either. */
  #unhear(id: NodeId): void {
    const { bus, processes, random, scheduler } = this.#cluster;
    const others = processes.filter((other) => other.id !== id);
    if (random.below(3) !== 0) {
      this.#badNetwork({ lostPercent: 0, duplicatedPercent: 0, latePercent: 50, lateMs: 900 });
    }
    const ends = others.map((other) => bus.cut(id, other.id));
    const end = this.#forAWhile(ends, 1_500);
    scheduler.after(200 + random.below(500), () => {
      if (this.#ends.has(end)) ends.push(...others.map((other) => bus.cut(other.id, id)));
    });
  }

  /**
   * Of three voters one hears nothing for a while. Then the other follower's disk goes back to before that, the leader
   * dies, and the two that are left are a majority of voters that has nothing of what was committed meanwhile.
   */
  #oldMajority(): void {
    const { bus, disks, observer, processes, random, scheduler, staysDown } = this.#cluster;
    const leader = this.#leader();
    const followers = processes.filter(({ id }) => id !== leader?.id);
    const [one, two] = random.below(2) === 0 ? followers : [...followers].reverse();
    if (leader === undefined || one === undefined || two === undefined || processes.length !== 3) return;
    disks.copy(one);
    const cuts = processes.flatMap(({ id }) => (id === two.id ? [] : [bus.cut(id, two.id), bus.cut(two.id, id)]));
    scheduler.after(1_500 + random.below(2_500), () => {
      for (const end of cuts) end();
      if (this.#cluster.healed) return;
      const isDone = disks.lose(one, 'old');
      observer.count(isDone ? 'old majority, carried out' : 'old majority, spared');
      if (!isDone) return;
      staysDown.add(leader.id);
      leader.crash('killed');
      this.#forAWhile(
        [
          () => {
            staysDown.delete(leader.id);
            leader.start();
          },
        ],
        3_000,
      );
    });
  }

  #badNetwork(faults: BusFaults): void {
    const { bus } = this.#cluster;
    bus.faults = faults;
    this.#forAWhile([
      () => {
        bus.faults = calm;
      },
    ]);
  }

  /** Points that are seldom come to wait for whoever comes there first, the others for one process. */
  #setTrap(process: SwitchProcess): void {
    const { random, processes } = this.#cluster;
    const point = crashPoints[random.below(crashPoints.length)] ?? 'after the write';
    const isSeldom = seldom.test(point);
    const trap: Trap = { point, passes: isSeldom ? 1 : 1 + random.below(10), powerFails: random.below(2) === 0 };
    this.#traps.push(trap);
    const victim = random.below(2) === 0 ? process : (this.#leader() ?? process);
    for (const each of isSeldom ? processes : [victim]) each.arm(trap);
  }

  #drain(process: SwitchProcess, on: boolean): void {
    process.inThread('consensus', ({ driver }) => {
      driver.drain(on);
    });
  }

  /** A process that comes up and dies again, while what others have sent it is slow: its past lives get their answers. */
  #flap(process: SwitchProcess): void {
    const { random, scheduler, acquirers } = this.#cluster;
    this.#badNetwork({ lostPercent: 0, duplicatedPercent: 20, latePercent: 50, lateMs: 1_500 });
    for (let life = 0; life < 3; life++) {
      scheduler.after(life * 500, () => {
        process.crash('killed');
        process.start();
        for (let count = 0; count < 4; count++) {
          scheduler.after(30 + random.below(300), () => {
            acquirers.buyAt(process.id);
          });
        }
      });
    }
  }

  /** The leader of some group. */
  #leader(): SwitchProcess | undefined {
    const groups: readonly GroupId[] = [...this.#cluster.orders.keys()];
    const group = groups[this.#cluster.random.below(groups.length)];
    return group === undefined ? undefined : this.#cluster.leaderOf(group);
  }

  #isolate(id: NodeId): void {
    const { bus, processes } = this.#cluster;
    this.#forAWhile(
      processes.flatMap((other) => (other.id === id ? [] : [bus.cut(id, other.id), bus.cut(other.id, id)])),
    );
  }

  #forAWhile(ends: readonly (() => void)[], atLeastMs = 200): () => void {
    const { random, scheduler } = this.#cluster;
    const end = (): void => {
      if (!this.#ends.delete(end)) return;
      scheduler.trace('cluster', 'a fault ends');
      for (const each of ends) each();
    };
    this.#ends.add(end);
    scheduler.after(atLeastMs + random.below(random.below(2) === 0 ? 1_500 : 6_000), end);
    return end;
  }
}
