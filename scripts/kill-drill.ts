/**
 * `npm run drill:kill [-- --runs N --seed S]`: a cluster of its own, a load at all its ports, `kill -9` of every
 * process (nodes, witness, brokers) at a random moment, a restart; N times over the same data. After each restart every
 * approval that the acquirer received since the drill began must be in its group's log once, at every node.
 * Exit codes: 0 nothing was lost, 1 something was, or the drill could not be made, 2 wrong usage.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { waitFor } from '../base/clock.ts';
import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import type { Random } from '../base/random.ts';
import { realClock, realRandom } from '../base/real.ts';
import type { Topology } from '../base/topology.ts';
import { readAcquirerCards } from '../cli/acquirer/cards.ts';
import { runLoad } from '../cli/acquirer/load.ts';
import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import { defaultMix } from '../cli/acquirer/load-mix.ts';
import { targetsOf } from '../cli/acquirer/usage.ts';
import { prepareCluster } from '../cli/cluster/first-start.ts';
import { startCluster } from '../cli/cluster/supervisor.ts';
import type { RunningCluster } from '../cli/cluster/supervisor.ts';
import { compareCluster } from '../cli/commands/compare.ts';
import { readBooks, verifyNode } from '../cli/commands/verify.ts';
import type { NodeVerification } from '../cli/commands/verify.ts';
import { OperatorBus } from '../cli/operator-bus.ts';
import { verdictOf } from '../compare/report.ts';
import type { CompareResult, Verdict } from '../compare/report.ts';
import { placeForDrill, readWhole } from './drill-place.ts';

export interface DrillOptions {
  readonly topology: Topology;
  readonly configFile: string;
  readonly dataFolder: string;
  /** Where the acquirer's journals go; outside the data folder. */
  readonly journalFolder: string;
  readonly runs: number;
  /** Chooses the moments. */
  readonly random: Random;
  readonly clock: Clock;
  readonly natsServer?: string;
  /** Called with each cluster before its first process starts, so that the drill can be ended in between. */
  readonly onOpened?: (cluster: RunningCluster) => void;
  /** Called after each run. */
  readonly onRun: (run: DrillRun) => void;
}

export interface DrillRun {
  readonly run: number;
  /** Answered requests of this run, and approvals of all runs so far, which is what was looked for. */
  readonly answers: number;
  readonly approvals: number;
  /** Requests that had no answer when everything was killed. */
  readonly open: number;
  /** Over all nodes. */
  readonly missing: number;
  readonly doubled: number;
  readonly contradicted: number;
  readonly wrongBalances: number;
  readonly compared: Verdict;
}

export function isClean(run: DrillRun): boolean {
  return run.missing + run.doubled + run.contradicted + run.wrongBalances === 0 && run.compared === 'equal';
}

/** How much the load has sent, at least and at most, when the power goes. */
const leastJournalBytes = 200_000;
const mostJournalBytes = 1_200_000;
const loadTimeoutMs = 60_000;

/** Runs the drill and stops the cluster. Throws when the cluster does not come back, or takes no load. */
export async function runKillDrill(options: DrillOptions): Promise<readonly DrillRun[]> {
  const journals: string[] = [];
  const runs: DrillRun[] = [];
  let cluster = await start(options);
  try {
    for (let run = 1; run <= options.runs; run++) {
      const journalFile = join(options.journalFolder, `drill-${run}.journal.jsonl`);
      journals.push(journalFile);
      const { answers, open } = await loadUntilKilled(cluster, journalFile, options);
      cluster = await start(options);
      const bus = await OperatorBus.connect(options.topology, options.dataFolder);
      const { compared, verified } = await judge(bus, journals).finally(() => bus.close());
      const total = (count: (one: NodeVerification) => number): number =>
        verified.reduce((sum, one) => sum + count(one), 0);
      const result: DrillRun = {
        run,
        answers,
        approvals: verified[0]?.approvals ?? 0,
        open,
        missing: total(({ missing }) => missing.length),
        doubled: total(({ doubled }) => doubled.length),
        contradicted: total(({ contradicted }) => contradicted.length),
        wrongBalances: total(({ wrongBalances }) => wrongBalances.length),
        compared: verdictOf(compared.groups),
      };
      runs.push(result);
      options.onRun(result);
    }
    return runs;
  } finally {
    await cluster.stop();
  }
}

/**
 * Holds acquirers' journals against every node and compares all copies: what a person does with `verify` and `compare`.
 */
export async function judge(
  bus: OperatorBus,
  journals: readonly string[],
): Promise<{ readonly compared: CompareResult; readonly verified: readonly NodeVerification[] }> {
  const context = { clock: realClock, random: realRandom, note: () => undefined };
  // First, for its mark stands behind all that the journals are about: after it every copy has applied that.
  const compared = await compareCluster(bus, context, undefined);
  const cards = await readAcquirerCards(sampleCardFile);
  const books = await readBooks(cards, journals);
  const approvals = books.approvals();
  const balances = books.balances();
  const verified = await Promise.all(
    bus.topology.nodes.map(({ id }) => verifyNode(bus, id, cards, approvals, balances)),
  );
  return { compared, verified };
}

async function start(options: DrillOptions): Promise<RunningCluster> {
  const { topology, configFile, dataFolder, natsServer, onOpened, clock } = options;
  const print = (): void => undefined;
  const given = {
    ...(natsServer === undefined ? {} : { natsServer }),
    ...(onOpened === undefined ? {} : { onOpened }),
  };
  const cluster = await startCluster({ topology, configFile, dataFolder, print, clock, ...given });
  try {
    await prepareCluster({ topology, configFile, dataFolder, print });
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}

async function loadUntilKilled(
  cluster: RunningCluster,
  journalFile: string,
  { topology, random, clock }: DrillOptions,
): Promise<{ readonly answers: number; readonly open: number }> {
  const end = new AbortController();
  const loading = runLoad({
    targets: targetsOf(topology, undefined),
    connections: 20,
    cards: await readAcquirerCards(sampleCardFile),
    cardFile: sampleCardFile,
    mix: defaultMix,
    pace: { kind: 'max', inFlight: 100 },
    durationMs: loadTimeoutMs,
    seed: random.below(1_000_000),
    journalFile,
    requestTimeoutMs: 8_000,
    giveUpMs: 20_000,
    reverseUnanswered: false,
    drainMs: 1,
    clock,
    signal: end.signal,
  });
  const killed = (async () => {
    try {
      // The journal grows with the traffic, so this is a moment under load, however fast the machine is.
      const bytes = leastJournalBytes + random.below(mostJournalBytes - leastJournalBytes);
      await waitFor(clock, () => sizeOf(journalFile) >= bytes || undefined, {
        timeoutMs: loadTimeoutMs,
        everyMs: 1,
        onTimeout: () => new Error('the cluster takes no load'),
      });
    } finally {
      cluster.killNow();
      end.abort();
      // Waits for the end of every process and gives the data folder's lock back.
      await cluster.stop();
    }
  })();
  const [summary] = await Promise.all([loading, killed]);
  return { answers: summary.answers, open: summary.requests - summary.answers };
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

// ---- the script ------------------------------------------------------------------------------------------------------

const usage = 'usage: npm run drill:kill [-- --runs N --seed S]';

function readArguments(): { readonly runs: number; readonly seed: number } {
  const { values } = parseArgs({
    options: { runs: { type: 'string', default: '20' }, seed: { type: 'string' } },
  });
  const seed = values.seed ?? String(realRandom.below(1_000_000));
  return { runs: readWhole('runs', values.runs, 1, 100_000), seed: readWhole('seed', seed, 0, 999_999_999) };
}

async function main(): Promise<number> {
  let runs: number;
  let seed: number;
  try {
    ({ runs, seed } = readArguments());
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n${usage}\n`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-drill-'));
  const print = (line: string): void => void process.stdout.write(`${line}\n`);
  print(`kill -9 of every process under load, ${runs} times (seed ${seed}), data in ${folder}`);
  print('run  answers  open  approvals so far  missing  doubled  contradicted  wrong balances  compare');
  let clean = false;
  let cluster: RunningCluster | undefined;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      cluster?.killNow();
      print(`Stopped. Data and journals stay in ${folder}.`);
      process.exit(1);
    });
  }
  try {
    const place = await placeForDrill(folder, 'kill-drill');
    const results = await runKillDrill({
      ...place,
      dataFolder: join(folder, 'data'),
      journalFolder: folder,
      runs,
      random: seededRandom(seed),
      clock: realClock,
      onOpened: (opened) => {
        cluster = opened;
      },
      onRun: (run) => {
        const cells: readonly (readonly [string | number, number])[] = [
          [run.run, 3],
          [run.answers, 9],
          [run.open, 6],
          [run.approvals, 18],
          [run.missing, 9],
          [run.doubled, 9],
          [run.contradicted, 14],
          [run.wrongBalances, 16],
          [run.compared, 9],
        ];
        print(cells.map(([cell, width]) => String(cell).padStart(width)).join(''));
      },
    });
    clean = results.length === runs && results.every(isClean);
    const last = results.at(-1);
    print(
      clean
        ? `PASSED: ${last?.approvals ?? 0} approvals that the acquirer received, each in its group's log once at every node.`
        : `FAILED: approvals were lost, doubled or changed, or copies differ. Data and journals stay in ${folder}.`,
    );
  } catch (error) {
    process.stderr.write(
      `The drill could not be made: ${describeError(error)}. Data and journals stay in ${folder}.\n`,
    );
    return 1;
  }
  if (clean) rmSync(folder, { recursive: true, force: true });
  return clean ? 0 : 1;
}

if (import.meta.main) {
  process.exitCode = await main();
  process.exit();
}
