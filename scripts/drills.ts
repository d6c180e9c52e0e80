/**
 * `npm run drills [-- --runs N --rate N --only kill,site --short]`: every drill of the table, one after the other, and
 * one page of HTML with all of them. Those that need root are left out without it, and counted as skipped.
 *
 * `--short` is one run of each that needs no root, nearly all on one cluster, with little load and no limits on times:
 * whether anything is lost, doubled or different, on any machine, in about two minutes.
 *
 * The last line is `N passed, N failed, N skipped`. Exit codes: 0 none failed, 1 some did, 2 wrong usage.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { describeError, SwitchError } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import { realClock, realRandom } from '../base/real.ts';
import { parseWhole } from '../cli/acquirer/usage.ts';
import { drillKinds } from '../cli/drill/fault.ts';
import type { DrillKind, FaultOptions, Ground } from '../cli/drill/fault.ts';
import { faults } from '../cli/drill/faults.ts';
import { openOwnGround } from '../cli/drill/ground.ts';
import { reportHtml } from '../cli/drill/html.ts';
import { isRoot } from '../cli/drill/machine.ts';
import { makeFolder, performOn, performOnOwnCluster, stampOf } from '../cli/drill/perform.ts';
import type { DrillRequest } from '../cli/drill/runner.ts';
import { headLine, reportJson, runLine, titleOf } from '../cli/drill/report.ts';
import type { DrillReport } from '../cli/drill/report.ts';
import { inSession } from '../cli/drill/session.ts';
import { drillStateFolder } from '../cli/drill/undo.ts';
import type { UndoJournal } from '../cli/drill/undo.ts';

const usage = `usage: npm run drills -- [options]
  --short        one run of each drill that needs no root, without limits on times
  --only KINDS   for example kill,site,partition
  --runs N       of each drill (default 20)
  --rate N       requests per second (default 500)
  --seed S       the same moments and requests again
  --reports DIR  where the page goes (default reports)`;

interface Row {
  readonly kind: DrillKind;
  readonly options: Partial<FaultOptions>;
  /** How long the fault lasts in a short drill: longer than a lease. */
  readonly shortHoldMs: number;
  readonly shortOptions?: Partial<FaultOptions>;
}

/** The table first, then what is asked of loss and copies alone. */
const table: readonly Row[] = [
  { kind: 'kill', options: {}, shortHoldMs: 1_500 },
  { kind: 'kill', options: { withBroker: true }, shortHoldMs: 1_500 },
  { kind: 'freeze', options: {}, shortHoldMs: 2_000 },
  { kind: 'site', options: {}, shortHoldMs: 1_500 },
  { kind: 'broker', options: {}, shortHoldMs: 1_500 },
  { kind: 'amnesia', options: {}, shortHoldMs: 1 },
  { kind: 'move', options: {}, shortHoldMs: 2_000 },
  { kind: 'partition', options: {}, shortHoldMs: 2_000 },
  { kind: 'partition', options: { oneWay: 'out' }, shortHoldMs: 2_000 },
  { kind: 'partition', options: { oneWay: 'in' }, shortHoldMs: 2_000 },
  { kind: 'partition', options: { target: 'east' }, shortHoldMs: 2_000 },
  { kind: 'partition', options: { target: 'b-east' }, shortHoldMs: 2_000 },
  { kind: 'upgrade', options: {}, shortHoldMs: 1, shortOptions: { target: 'n2' } },
  { kind: 'stop', options: {}, shortHoldMs: 1_500 },
  { kind: 'drain', options: {}, shortHoldMs: 1_500 },
  { kind: 'brokers', options: {}, shortHoldMs: 1_500 },
  { kind: 'disk', options: {}, shortHoldMs: 1_000 },
  { kind: 'rollback', options: {}, shortHoldMs: 1_000 },
  { kind: 'kill', options: { target: 'all' }, shortHoldMs: 1 },
  { kind: 'partition', options: { delayMs: 25 }, shortHoldMs: 2_000 },
  { kind: 'stall', options: { mode: 'full' }, shortHoldMs: 2_000 },
  { kind: 'stall', options: { mode: 'slow' }, shortHoldMs: 2_000 },
];

const noOptions: FaultOptions = {
  target: undefined,
  withBroker: false,
  oneWay: undefined,
  delayMs: undefined,
  mode: 'full',
};
const short = { rate: 100, warmUpMs: 1_000 } as const;
const mostSeed = 999_999_999;

interface Options {
  readonly short: boolean;
  readonly only: readonly string[] | undefined;
  readonly runs: number;
  readonly rate: number;
  readonly seed: number;
  readonly reports: string;
}

function readOptions(args: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      short: { type: 'boolean', default: false },
      only: { type: 'string' },
      runs: { type: 'string' },
      rate: { type: 'string' },
      seed: { type: 'string' },
      reports: { type: 'string', default: 'reports' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return 'help';
  const only = values.only?.split(',').map((kind) => kind.trim());
  const unknown = only?.find((kind) => !drillKinds.some((each) => each === kind));
  if (unknown !== undefined) throw new RangeError(`--only: "${unknown}" is none of ${drillKinds.join(', ')}`);
  return {
    short: values.short,
    only,
    runs: parseWhole('--runs', values.runs ?? (values.short ? '1' : '20'), 1, 1_000),
    rate: parseWhole('--rate', values.rate ?? (values.short ? String(short.rate) : '500'), 1, 100_000),
    seed: parseWhole('--seed', values.seed ?? String(realRandom.below(mostSeed)), 0, mostSeed),
    reports: values.reports,
  };
}

function requestOf(row: Row, options: Options): DrillRequest {
  return {
    kind: row.kind,
    options: { ...noOptions, ...row.options, ...(options.short ? row.shortOptions : {}) },
    runs: options.runs,
    rate: options.rate,
    seed: options.seed,
    limits: options.short ? 'safety' : 'table',
    holdMs: options.short ? row.shortHoldMs : undefined,
    warmUpMs: options.short ? short.warmUpMs : undefined,
    hurry: options.short,
  };
}

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const note = (line: string): void => void process.stderr.write(`${line}\n`);

/** How the drills went: reports of those that were made, and how many could not be. */
class Results {
  readonly reports: DrillReport[] = [];
  failed = 0;
  skipped = 0;

  add(report: DrillReport): void {
    this.reports.push(report);
    if (!report.passed) this.failed += 1;
    print(`${report.passed ? 'passed' : 'FAILED'} ${titleOf(report)}`);
    print(`  ${headLine(report.expectation)}`);
    for (const run of report.runs) print(`  ${runLine(report.expectation, run)}`);
    for (const { claim, measured, good } of report.checks) if (!good) print(`  FAILED ${claim}: ${measured}`);
    if (report.journals !== undefined) print(`  journals and data: ${report.journals}`);
  }

  couldNotBeMade(what: string, error: unknown): void {
    this.failed += 1;
    print(`FAILED ${what} could not be made: ${describeError(error)}`);
  }
}

function nameOf({ kind, options }: Row): string {
  return [kind, ...Object.values(options)].map(String).join(' ');
}

async function runAll(rows: readonly Row[], options: Options, undo: UndoJournal, results: Results): Promise<void> {
  const around = { undo, clock: realClock, note };
  for (const row of rows) {
    const request = requestOf(row, options);
    try {
      results.add(await performOnOwnCluster(request, { ...around, keep: undefined }));
    } catch (error) {
      results.couldNotBeMade(nameOf(row), error);
    }
  }
}

/** On one cluster, for starting one takes longer than a short drill. After one that failed the next gets a new one. */
async function runOnShared(rows: readonly Row[], options: Options, undo: UndoJournal, results: Results): Promise<void> {
  let ground: Ground | undefined;
  for (const row of rows) {
    try {
      ground ??= await openOwnGround({
        folder: makeFolder(undefined),
        equipment: undefined,
        diskOf: undefined,
        undo,
        clock: realClock,
        random: seededRandom(options.seed),
        note,
      });
      const report = await performOn(ground, requestOf(row, options), {});
      results.add({ ...report, journals: report.passed ? undefined : ground.folder });
      if (report.passed) continue;
    } catch (error) {
      results.couldNotBeMade(nameOf(row), error);
    }
    await ground?.close();
    ground = undefined;
  }
  await ground?.close();
  if (ground !== undefined) rmSync(ground.folder, { recursive: true, force: true });
}

async function main(): Promise<number> {
  let options: Options;
  try {
    const read = readOptions(process.argv.slice(2));
    if (read === 'help') {
      print(usage);
      return 0;
    }
    options = read;
  } catch (error) {
    note(`${describeError(error)}\n${usage}`);
    return 2;
  }
  const chosen = table.filter(({ kind }) => options.only?.includes(kind) !== false);
  const needsRoot = (row: Row): boolean => faults[row.kind].needs({ ...noOptions, ...row.options }).includes('root');
  const made = chosen.filter((row) => !needsRoot(row) || (isRoot() && !options.short));
  const results = new Results();
  const leftOut = chosen.length - made.length;
  if (!options.short) results.skipped = leftOut;
  const startedAt = new Date(realClock.wallMs()).toISOString();
  print(`${made.length} drills, ${options.rate} requests/s, ${options.runs} runs of each, seed ${options.seed}`);
  if (leftOut > 0) {
    print(
      `${leftOut} more ${options.short ? 'need root, and are no part of the short form' : 'are left out: they need root'}.`,
    );
  }
  const session = {
    stateFolder: drillStateFolder(),
    name: 's',
    clock: realClock,
    note,
    exit: (code: number) => process.exit(code),
  };
  await inSession(session, async (undo) => {
    const equipped = (row: Row): boolean => faults[row.kind].equipment({ ...noOptions, ...row.options }) !== undefined;
    const together = options.short ? made.filter((row) => !equipped(row)) : [];
    await runOnShared(together, options, undo, results);
    await runAll(
      made.filter((row) => !together.includes(row)),
      options,
      undo,
      results,
    );
  });
  mkdirSync(options.reports, { recursive: true });
  const name = join(options.reports, `drills-${stampOf(startedAt)}`);
  writeFileSync(`${name}.html`, reportHtml(results.reports));
  writeFileSync(`${name}.json`, `[${results.reports.map(reportJson).join(',\n')}]\n`);
  print(`Report: ${name}.{html,json}`);
  print(`${made.length - results.failed} passed, ${results.failed} failed, ${results.skipped} skipped`);
  return results.failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  note(describeError(error));
  if (error instanceof SwitchError) note(error.hint);
  process.exitCode = 1;
}
process.exit();
