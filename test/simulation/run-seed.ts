import { Cluster } from './cluster.ts';
import { Faults, type FaultKind } from './faults.ts';
import { Violation } from './violation.ts';

/** What one seed's run came to. */
export interface RunResult {
  readonly seed: number;
  readonly traceHash: string;
  readonly simulatedMs: number;
  readonly committed: number;
  readonly events: Readonly<Record<string, number>>;
  readonly counts: Readonly<Record<string, number>>;
  /** What was found; undefined when nothing was. */
  readonly violation: string | undefined;
  /** The end of the trace, when something was found. */
  readonly trace: string | undefined;
}

const trafficMs = 62_000;
const foldChecks = 2;
/** Ranges are carved, moved and merged so often, in every other seed. */
const movesInARun = 24;
/** A group more is entered when the run has lasted so long. */
const laterGroupMs = 12_000;

function rangesMove(seed: number): boolean {
  return seed % 2 === 0;
}

/** Half of the runs in which ranges move, and half of the others. */
function configurationChanges(seed: number): boolean {
  return seed % 4 >= 2;
}

/** A purchase about every so often: some 550 in a run. */
const purchaseEveryMs = 95;

/**
 * One seed: its own cluster, its own traffic, its own faults. `print` gets every line of the trace; `only` draws faults of
 * these kinds alone, for what all kinds together bring about too seldom to be waited for.
 */
export function runSeed(seed: number, print?: (line: string) => void, only?: readonly FaultKind[]): RunResult {
  // 3 to 5 voters, and every way to have them.
  const [nodes, witness] = (
    [
      [3, false],
      [3, true],
      [4, false],
      [4, true],
      [5, false],
    ] as const
  )[seed % 5] ?? [3, false];
  const cluster = new Cluster({
    seed,
    nodes,
    witness,
    groups: 2 + (Math.floor(seed / 5) % 2),
    laterGroup: rangesMove(seed),
    configurationChanges: configurationChanges(seed),
    ...(print === undefined ? {} : { print }),
  });
  let violation: string | undefined;
  try {
    run(cluster, only);
  } catch (error) {
    violation = error instanceof Violation ? error.message : error instanceof Error ? error.stack : String(error);
    cluster.scheduler.trace('cluster', `VIOLATION: ${violation ?? ''}`);
  }
  const { scheduler, observer, acquirers } = cluster;
  const result: RunResult = {
    seed,
    traceHash: scheduler.traceHash(),
    simulatedMs: scheduler.nowMs,
    committed: [...cluster.orders.keys()].reduce((sum, group) => sum + observer.committedLog(group).length, 0),
    events: Object.fromEntries(observer.events),
    counts: { ...acquirers.counts },
    violation,
    trace: violation === undefined ? undefined : scheduler.traceTail(150),
  };
  cluster.close();
  return result;
}

function run(cluster: Cluster, only: readonly FaultKind[] | undefined): void {
  const { scheduler, random, acquirers } = cluster;
  cluster.enterCards();
  const faults = new Faults(cluster, only);
  faults.spread(6 + random.below(14), trafficMs - 2_000);
  if (rangesMove(cluster.seed)) {
    cluster.moves.spread(movesInARun, trafficMs - 2_000);
    scheduler.after(laterGroupMs, () => {
      cluster.addLaterGroup();
    });
  }
  acquirers.start(purchaseEveryMs);
  cluster.changes.start();
  cluster.configurationChanges?.start();
  for (let check = 0; check < foldChecks; check++) {
    scheduler.run(trafficMs / foldChecks);
    cluster.checkFolds();
  }
  faults.endAll();
  cluster.settle();
}
