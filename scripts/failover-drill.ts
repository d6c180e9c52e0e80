/**
 * `npm run drill:failover -- --fault kill|kill-broker|stop|broker|drain`: a cluster of its own, a load at all its ports,
 * and in the middle of it the fault; what was stopped is started again under the same load. What it was like is read
 * from the acquirer's journal; what is in the logs is held against it. N times over the same data.
 *
 *   kill         kill -9 of the owner of the group with most traffic, or of --target
 *   kill-broker  the same, and at the same moment its site's broker
 *   stop         SIGTERM to that node
 *   broker       kill -9 of that site's broker alone
 *   drain        `quadrant drain` of that node, and after a while `undrain`
 *
 * Exit codes: 0 the figures asked for were kept, 1 they were not, or the drill could not be made, 2 wrong usage.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { describeError } from '../base/errors.ts';
import type { NodeId } from '../base/identifiers.ts';
import { seededRandom } from '../base/random.ts';
import { realClock, realRandom } from '../base/real.ts';
import type { RunningCluster } from '../cli/cluster/supervisor.ts';
import { placeForDrill, readWhole, type DrillPlace } from './drill-place.ts';
import { checkLines, checksOf, faults, headLine, legend, runLine, summaryLines } from './failover-report.ts';
import type { Fault } from './failover-report.ts';
import { runFailoverDrill } from './failover-runner.ts';

const usage = `usage: npm run drill:failover -- --fault ${faults.join('|')} [options]
  --runs N     how often (default 5)
  --rate N     requests per second over all ports (default 500)
  --seed S     the same moments and requests again
  --target ID  which node (default: the owner of the group with most traffic)
  --json       the result as JSON, on standard output
  --keep DIR   cluster, journals and data into this folder, which stays`;

export interface DrillArguments {
  readonly fault: Fault;
  readonly runs: number;
  readonly rate: number;
  readonly seed: number;
  readonly target: string | undefined;
  readonly json: boolean;
  readonly keep: string | undefined;
}

/** Throws RangeError or TypeError with a sentence when the command line is wrong. */
export function readArguments(args: readonly string[]): DrillArguments | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      fault: { type: 'string' },
      runs: { type: 'string', default: '5' },
      rate: { type: 'string', default: '500' },
      seed: { type: 'string' },
      target: { type: 'string' },
      json: { type: 'boolean', default: false },
      keep: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  const fault = faults.find((each) => each === values.fault);
  if (fault === undefined) throw new RangeError(`--fault takes ${faults.join(', ')}`);
  return {
    fault,
    runs: readWhole('runs', values.runs, 1, 1_000),
    rate: readWhole('rate', values.rate, 1, 100_000),
    seed: readWhole('seed', values.seed ?? String(realRandom.below(1_000_000)), 0, 999_999_999),
    target: values.target,
    json: values.json,
    keep: values.keep,
  };
}

function makeFolder(keep: string | undefined): string {
  if (keep === undefined) return mkdtempSync(join(tmpdir(), 'quadrant-drill-'));
  const folder = resolve(keep);
  if (existsSync(folder) && readdirSync(folder).length > 0)
    throw new RangeError(`--keep ${keep}: the folder is not empty`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

async function main(): Promise<number> {
  let given: DrillArguments;
  let folder = '';
  let target: NodeId | undefined;
  let place: DrillPlace;
  try {
    const read = readArguments(process.argv.slice(2));
    if (read === 'help') {
      process.stdout.write(`${usage}\n`);
      return 0;
    }
    given = read;
    folder = makeFolder(given.keep);
    place = await placeForDrill(folder, 'failover-drill');
    target = place.topology.nodes.find(({ id }) => id === given.target)?.id;
    if (given.target !== undefined && target === undefined) throw new RangeError(`--target: no node "${given.target}"`);
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n${usage}\n`);
    if (folder !== '') rmSync(folder, { recursive: true, force: true });
    return 2;
  }
  const { fault, runs, rate, seed, json, keep } = given;
  const print = (line: string): void => void (json ? process.stderr : process.stdout).write(`${line}\n`);
  const endEarly = { cluster: undefined as RunningCluster | undefined };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      endEarly.cluster?.killNow();
      print(`Stopped. Data and journals stay in ${folder}.`);
      process.exit(1);
    });
  }
  print(`fault "${fault}" under ${rate} requests/s, ${runs} times (seed ${seed}), data in ${folder}`);
  print(legend);
  print(headLine(fault));
  try {
    const { runs: results, final } = await runFailoverDrill({
      ...place,
      dataFolder: join(folder, 'data'),
      journalFolder: folder,
      fault,
      target,
      runs,
      rate,
      random: seededRandom(seed),
      clock: realClock,
      onOpened: (opened) => {
        endEarly.cluster = opened;
      },
      onRun: (run) => {
        print(runLine(fault, run));
      },
      note: (line) => void process.stderr.write(`${line}\n`),
    });
    for (const line of summaryLines(fault, results)) print(line);
    const checks = checksOf(fault, results, final);
    for (const line of checkLines(checks)) print(line);
    const passed = checks.every(({ good }) => good);
    print(passed ? 'PASSED' : `FAILED. Data and journals stay in ${folder}.`);
    if (json) {
      const slim = results.map(({ latenciesMs: _latencies, ...run }) => run);
      process.stdout.write(
        `${JSON.stringify({ fault, rate, seed, runs: slim, final, checks, passed }, undefined, 2)}\n`,
      );
    }
    if (passed && keep === undefined) rmSync(folder, { recursive: true, force: true });
    return passed ? 0 : 1;
  } catch (error) {
    process.stderr.write(
      `The drill could not be made: ${describeError(error)}. Data and journals stay in ${folder}.\n`,
    );
    return 1;
  }
}

if (import.meta.main) {
  process.exitCode = await main();
  process.exit();
}
