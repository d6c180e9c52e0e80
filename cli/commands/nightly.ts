import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import type { Command } from 'commander';

import { describeError } from '../../base/errors.ts';
import { formatMetrics } from '../../base/metrics.ts';
import { publicKeyOf, openRecord } from '../../compare/evidence.ts';
import { exitCodes, totalsOf, verdictOf, type CompareResult } from '../../compare/report.ts';
import { planRepair } from '../../compare/repair-plan.ts';
import { acquireFolderLock } from '../../store/folder-lock.ts';
import { evidenceKeys } from '../cluster/secrets.ts';
import { exitCode, type CommandContext } from '../context.ts';
import { enterHead, evidenceRecords, keepReport, reportFolder, writeDurably } from '../evidence-folder.ts';
import { keepCompare } from '../kept-compare.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { compareCluster } from './compare.ts';
import { countsOf, repairByReport } from './repair.ts';
import { needsApproval, proposePlan, waitingText } from './repair-approval.ts';

/** What one night came to. */
interface Night {
  readonly startedAt: string;
  readonly durationMs: number;
  /** Names of the reports of its compares, the last one of which counts. */
  readonly compares: readonly string[];
  readonly verdict: ReturnType<typeof verdictOf>;
  readonly differences: number;
  readonly repaired: number;
  /** A plan that waits for approval. */
  readonly plan: string | undefined;
  readonly removedReports: readonly string[];
}

/** Rows of cards that are used all the time may need another round: they have changed since they were found. */
const mostRepairs = 3;

/** Compares with evidence, repairs as nodes.yaml says, compares what was repaired, and removes old reports. */
async function night(context: CommandContext, bus: OperatorBus): Promise<Night> {
  const { clock } = context;
  const { repair, budgetMinutes, keepDays } = context.topology().nightly;
  const startedAt = new Date(clock.wallMs()).toISOString();
  const beganMs = clock.monotonicMs();
  const stop = new AbortController();
  const budget = clock.after(budgetMinutes * 60_000, () => {
    stop.abort(new Error(`the night's budget of ${budgetMinutes} minutes is spent`));
  });
  const compares: string[] = [];
  const compare = async (): Promise<CompareResult> => {
    const result = await compareCluster(bus, context, undefined, {
      recompute: true,
      checkIntegrity: true,
      evidence: true,
      stop: stop.signal,
    });
    await keepCompare(context, bus, result, { nightly: true });
    compares.push(result.compare);
    return result;
  };
  try {
    let result = await compare();
    let repaired = 0;
    let waiting: string | undefined;
    for (
      let round = 0;
      repair === 'copies' && round < mostRepairs && verdictOf(result.groups) === 'different';
      round++
    ) {
      const plan = planRepair(result.compare, result.groups);
      if (plan.steps.length === 0) break;
      if (needsApproval(context)) {
        const { id, signed } = proposePlan(context, { plan, choice: {} }, undefined);
        context.note(waitingText(context, id, signed));
        waiting = id;
        break;
      }
      const { changed } = countsOf(await repairByReport(context, bus, plan));
      repaired += changed;
      result = await compare();
    }
    return {
      startedAt,
      durationMs: Math.round(clock.monotonicMs() - beganMs),
      compares,
      verdict: verdictOf(result.groups),
      differences: totalsOf(result.groups).differences,
      repaired,
      plan: waiting,
      removedReports: await removeOldReports(context, bus, keepDays),
    };
  } finally {
    budget.cancel();
  }
}

/**
 * Removes the files of reports that are older than so many days. Their records stay, and a record of their removal is
 * signed first: so the chain verifies, and what is gone without one is missed.
 */
export async function removeOldReports(
  context: Pick<CommandContext, 'dataFolder' | 'clock' | 'random' | 'topology'>,
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  keepDays: number,
): Promise<readonly string[]> {
  const { dataFolder, clock, random } = context;
  const nowMs = clock.wallMs();
  const before = nowMs - keepDays * 86_400_000;
  const publicKey = publicKeyOf(evidenceKeys(dataFolder).privateKey);
  const old = evidenceRecords(dataFolder).flatMap(({ text }) => {
    const opened = openRecord(text, publicKey);
    if (!('record' in opened) || opened.record.files.length === 0) return [];
    const { id, at } = opened.record;
    return Date.parse(at) < before && existsSync(reportFolder(dataFolder, id)) ? [id] : [];
  });
  if (old.length === 0) return [];
  const kept = keepReport(dataFolder, {
    kind: 'removal',
    id: `removal-${random.bytes(4).toString('hex')}`,
    cluster: context.topology().cluster,
    at: new Date(nowMs).toISOString(),
    summary: { removed: old, keepDays },
    files: [],
  });
  await enterHead(bus, kept);
  for (const id of old) rmSync(reportFolder(dataFolder, id), { recursive: true, force: true });
  return old;
}

const metricsFile = 'nightly.prom';

/** For the textfile collector of Prometheus' node_exporter. A night that failed keeps the time of the last good one. */
function writeMetrics(folder: string, nowMs: number, code: number, found: Night | undefined): void {
  const file = join(folder, metricsFile);
  const before = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const earlier = Number(/^quadrant_nightly_last_success_timestamp_seconds ([0-9.]+)$/m.exec(before)?.[1] ?? 0);
  const seconds = Math.floor(nowMs / 1_000);
  const gauge = (name: string, help: string, value: number) => ({
    name,
    help,
    type: 'gauge' as const,
    samples: [{ labels: {}, value }],
  });
  const text = formatMetrics([
    gauge('quadrant_nightly_last_run_timestamp_seconds', 'when quadrant nightly last ended', seconds),
    gauge(
      'quadrant_nightly_last_success_timestamp_seconds',
      'when quadrant nightly last ended with all copies equal; 0: never',
      code === exitCode.good ? seconds : earlier,
    ),
    gauge('quadrant_nightly_last_exit_code', 'its exit code: 0 equal, 3 different, 4 inconclusive, 1 failed', code),
    gauge('quadrant_nightly_last_duration_seconds', 'how long it took', (found?.durationMs ?? 0) / 1_000),
    gauge('quadrant_nightly_last_differences', 'differences that it left', found?.differences ?? 0),
    gauge('quadrant_nightly_last_repaired_rows', 'rows that it repaired', found?.repaired ?? 0),
  ]);
  mkdirSync(folder, { recursive: true });
  writeDurably(file, text, 0o644);
}

export function registerNightly(program: Command, run: RunCommand): void {
  program
    .command('nightly')
    .description('compares everything with evidence, repairs as nodes.yaml says, keeps the reports, removes old ones')
    .option(
      '--textfile <dir>',
      "where its metrics are written for Prometheus' textfile collector (default: DATA/nightly)",
    )
    .option('--json', 'as JSON')
    .addHelpText('after', help)
    .action((flags: { readonly textfile?: string; readonly json?: boolean }) =>
      run(async (context) => {
        const { dataFolder, clock } = context;
        const lock = acquireFolderLock(join(dataFolder, 'nightly'), 'another quadrant nightly');
        const folder = flags.textfile ?? join(dataFolder, 'nightly');
        let found: Night | undefined;
        // Until it is known better: what throws has failed.
        let code: number = exitCode.failed;
        try {
          found = await context.withCluster((bus) => night(context, bus));
          code = found.plan === undefined ? exitCodes[found.verdict] : exitCode.differences;
          if (flags.json === true) context.printJson(found);
          else context.print(nightText(found));
          return code;
        } finally {
          try {
            writeMetrics(folder, clock.wallMs(), code, found);
          } catch (error) {
            context.note(`The metrics of the night cannot be written: ${describeError(error)}`);
          }
          lock.release();
        }
      }),
    );
}

function nightText({ verdict, differences, repaired, compares, plan, durationMs, removedReports }: Night): string {
  return [
    `${verdict.toUpperCase()} after ${Math.round(durationMs / 1_000)} s: ${differences} differences left, ${repaired} rows repaired.`,
    `Reports: ${compares.join(', ')}`,
    ...(plan === undefined ? [] : [`Plan ${plan} waits for approval: quadrant repair plans`]),
    ...(removedReports.length === 0 ? [] : [`${removedReports.length} old reports were removed.`]),
  ].join('\n');
}

const help = `
nodes.yaml says under nightly what is done: repair (none, or copies: rows that differ from what most copies or the log have,
where no approval is asked for; with approvals a plan is made that waits for them), budgetMinutes, keepDays. The
systemd service and timer are in scripts/systemd; docs/OPERATIONS.md, Nightly, has the instructions.

Exit codes: 0 all copies are equal now, 3 differences are left or wait for approval, 4 some copy could not be judged or
nobody can be reached, 1 failed, 2 usage
`;
