/**
 * `npm run simulate -- [--seeds A-B] [--seed N] [--mutants] [--workers N] [--report FOLDER]`
 *
 * Runs the simulation over many seeds, in as many threads as there are processors, and keeps a report: FOLDER has a line
 * of JSON for each seed (results.jsonl), what they come to (summary.json, summary.txt) and the trace of every seed that
 * found something. A run that is broken off goes on where it was, as long as the code is the same. Exit code 1 when a
 * seed found something, or something never happened.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, globSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { describeError } from '../../base/errors.ts';
import { realClock } from '../../base/real.ts';
import { mutants } from './mutants.ts';
import { runSeed, type RunResult } from './run-seed.ts';
import { runSeeds } from './seed-pool.ts';
import { Totals } from './totals.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const progressEveryMs = 2_000;
/** With so few seeds something may well never happen. */
const seedsForCoverage = 200;
const mostSeedsForMutant = 500;

const usage = `usage: npm run simulate -- [options]
  --seeds A-B      these seeds (default 1-20000)
  --seed N         one seed, with its whole trace on standard output
  --mutants        for each defect of mutants.ts, the first seed that finds it
  --workers N      in so many threads (default: one for each processor)
  --report FOLDER  where the report is kept (default simulation-report)`;

const values = readOptions();
const workers = whole('--workers', values.workers);

if (values.seed !== undefined) process.exitCode = replay(whole('--seed', values.seed));
else if (values.mutants) process.exitCode = await huntMutants();
else process.exitCode = await runRange(values.seeds, values.report);

function replay(seed: number): number {
  const { violation, traceHash, counts, events } = runSeed(seed, (line) => {
    process.stdout.write(`${line}\n`);
  });
  process.stdout.write(`${JSON.stringify({ seed, traceHash, counts, events })}\n`);
  process.stdout.write(violation === undefined ? `seed ${seed}: nothing found\n` : `seed ${seed}: ${violation}\n`);
  return violation === undefined ? 0 : 1;
}

async function runRange(range: string, folder: string): Promise<number> {
  const [first, last] = range.split('-').map((bound) => whole('--seeds', bound));
  if (first === undefined || last === undefined || last < first) fail('--seeds A-B: two whole numbers, A up to B');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'results.jsonl');
  const done = earlierResults(file);
  const totals = new Totals();
  const found: number[] = [];
  const take = (result: RunResult): void => {
    totals.add(result);
    if (result.violation !== undefined) found.push(result.seed);
  };
  const wanted = [];
  for (let seed = first; seed <= last; seed++) {
    const before = done.get(seed);
    if (before === undefined) wanted.push(seed);
    else take(before);
  }
  const beginMs = realClock.monotonicMs();
  let shownMs = 0;
  let count = 0;
  await runSeeds({
    seeds: wanted,
    workers,
    onResult: (result) => {
      const { trace, ...kept } = result;
      appendFileSync(file, `${JSON.stringify(kept)}\n`);
      take(result);
      count += 1;
      if (result.violation !== undefined) {
        writeFileSync(join(folder, `seed-${result.seed}.txt`), `${result.violation}\n\n${trace ?? ''}\n`);
        process.stdout.write(`\nseed ${result.seed}: ${result.violation}\n${lastLines(trace ?? '', 40)}\n`);
      }
      const nowMs = realClock.monotonicMs();
      if (nowMs - shownMs >= progressEveryMs) {
        shownMs = nowMs;
        const perSecond = (count * 1000) / (nowMs - beginMs);
        const leftMinutes = Math.ceil((wanted.length - count) / perSecond / 60);
        process.stdout.write(
          `${totals.seeds} of ${last - first + 1} seeds, ${perSecond.toFixed(1)}/s, ` +
            `${found.length} found something, about ${leftMinutes} min left\n`,
        );
      }
      return true;
    },
  });
  const enough = totals.seeds >= seedsForCoverage;
  const problems = [
    ...found.sort((one, other) => one - other).map((seed) => `seed ${seed} found something: seed-${seed}.txt`),
    ...totals.slight,
    ...(enough ? totals.missing.map((name) => `never happened: ${name}`) : []),
  ];
  const verdict = problems.length === 0 ? 'No promise was broken.' : problems.join('\n');
  const text = `${totals.describe()}\n\n${verdict}\n`;
  writeFileSync(join(folder, 'summary.txt'), text);
  writeFileSync(
    join(folder, 'summary.json'),
    `${JSON.stringify({ code: codeHash(), seeds: range, found, problems, committed: totals.committed, events: Object.fromEntries(totals.events), counts: Object.fromEntries(totals.counts) }, undefined, 2)}\n`,
  );
  process.stdout.write(`\n${text}Report: ${folder}\n`);
  return problems.length === 0 ? 0 : 1;
}

/** Results of this very code from a run that was broken off; those of other code are put aside. */
function earlierResults(file: string): ReadonlyMap<number, RunResult> {
  const head = JSON.stringify({ code: codeHash() });
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : [];
  if (lines[0] === head) {
    const results = lines.slice(1).flatMap((line) => parsed(line) ?? []);
    return new Map(results.map((result) => [result.seed, { ...result, trace: undefined }]));
  }
  if (lines.length > 0) renameSync(file, `${file}.earlier`);
  writeFileSync(file, `${head}\n`);
  return new Map();
}

/** The last line may have been cut off when the run was. */
function parsed(line: string): RunResult | undefined {
  try {
    return JSON.parse(line) as RunResult;
  } catch {
    return undefined;
  }
}

/** Changes with everything that a run is made of. */
function codeHash(): string {
  const hash = createHash('sha256');
  const files = globSync('{base,store,config-db,switch,replication,cli,test/simulation}/**/*.{ts,yaml}', { cwd: root });
  for (const file of files.sort())
    if (!file.endsWith('.test.ts')) hash.update(file).update(readFileSync(join(root, file)));
  return hash.digest('hex').slice(0, 16);
}

async function huntMutants(): Promise<number> {
  let missed = 0;
  for (const { name } of mutants) {
    const runs = new Map<number, RunResult>();
    await runSeeds({
      seeds: Array.from({ length: mostSeedsForMutant }, (_, index) => index + 1),
      workers,
      mutant: name,
      onResult: (result) => {
        runs.set(result.seed, result);
        return result.violation === undefined;
      },
    });
    const first = [...runs.values()].sort((one, other) => one.seed - other.seed).find(({ violation }) => violation);
    if (first === undefined) missed += 1;
    const reason = first?.violation?.split('\n')[0] ?? `not found in ${mostSeedsForMutant} seeds`;
    process.stdout.write(`${String(first?.seed ?? '-').padStart(4)}  ${name}: ${reason}\n`);
  }
  return missed === 0 ? 0 : 1;
}

function readOptions() {
  try {
    const { values: given } = parseArgs({
      options: {
        help: { type: 'boolean', default: false },
        seeds: { type: 'string', default: '1-20000' },
        seed: { type: 'string' },
        mutants: { type: 'boolean', default: false },
        workers: { type: 'string', default: String(availableParallelism()) },
        report: { type: 'string', default: 'simulation-report' },
      },
    });
    if (!given.help) return given;
  } catch (error) {
    fail(`${describeError(error)}\n${usage}`);
  }
  process.stdout.write(`${usage}\n`);
  process.exit(0);
}

function lastLines(text: string, count: number): string {
  return text.split('\n').slice(-count).join('\n');
}

function whole(option: string, text: string): number {
  if (!/^[1-9][0-9]{0,8}$/.test(text)) fail(`${option}: a whole number is expected, not "${text}"`);
  return Number(text);
}

function fail(sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(2);
}
