import type { Command } from 'commander';

import { nearest } from '../../base/nearest.ts';
import { sampleCardFile } from '../acquirer/load-command.ts';
import { parseDurationMs, parseWhole, UsageError } from '../acquirer/usage.ts';
import { exitCode, wrapText, type CommandContext } from '../context.ts';
import type { RunCommand } from '../run-command.ts';
import { drillKinds } from './fault.ts';
import type { Aim, DrillKind, FaultOptions } from './fault.ts';
import { chainReport } from './evidence.ts';
import { faults } from './faults.ts';
import type { DrillRun } from './figures.ts';
import { limitSets } from './limits.ts';
import { checkNeeds, keepReport, performOnOwnCluster, performOnRunningCluster } from './perform.ts';
import { closingLines, headLine, legend, reportJson, runLine } from './report.ts';
import type { DrillRequest } from './runner.ts';
import { inSession } from './session.ts';
import { drillStateFolder } from './undo.ts';
import type { UndoJournal } from './undo.ts';

/** `quadrant drill KIND`, as commander gives its flags. */
export interface DrillFlags {
  readonly runs?: string;
  readonly rate?: string;
  readonly seed?: string;
  readonly hold?: string;
  readonly warmUp?: string;
  readonly limits?: string;
  readonly failback?: boolean;
  readonly withBroker?: boolean;
  readonly oneWay?: string;
  readonly delay?: string;
  readonly mode?: string;
  readonly here?: boolean;
  readonly yes?: boolean;
  readonly cards?: string;
  readonly keep?: string;
  readonly reports?: string;
  readonly json?: boolean;
}

const mostSeed = 999_999_999;

function oneOf<const Value extends string>(flag: string, text: string, known: readonly Value[]): Value {
  const found = known.find((each) => each === text);
  if (found !== undefined) return found;
  const meant = nearest(text, [...known]);
  throw new UsageError(`${flag}: "${text}" is none of ${known.join(', ')}${meant === undefined ? '' : `; ${meant}?`}`);
}

/** Throws UsageError. */
export function readRequest(
  kind: DrillKind,
  target: string | undefined,
  flags: DrillFlags,
  random: CommandContext['random'],
): DrillRequest {
  const duration = (flag: string, text: string | undefined): number | undefined =>
    text === undefined ? undefined : parseDurationMs(flag, text);
  const options: FaultOptions = {
    target,
    withBroker: flags.withBroker === true,
    oneWay: flags.oneWay === undefined ? undefined : oneOf('--one-way', flags.oneWay, ['out', 'in']),
    delayMs: duration('--delay', flags.delay),
    mode: oneOf('--mode', flags.mode ?? 'full', ['full', 'slow']),
  };
  if (options.delayMs !== undefined && options.oneWay !== undefined) {
    throw new UsageError('--delay and --one-way exclude each other');
  }
  return {
    kind,
    options,
    runs: parseWhole('--runs', flags.runs ?? '5', 1, 1_000),
    rate: parseWhole('--rate', flags.rate ?? '500', 1, 100_000),
    seed: flags.seed === undefined ? random.below(mostSeed) : parseWhole('--seed', flags.seed, 0, mostSeed),
    limits: oneOf('--limits', flags.limits ?? 'table', limitSets),
    holdMs: duration('--hold', flags.hold),
    warmUpMs: duration('--warm-up', flags.warmUp),
    hurry: flags.failback === true,
  };
}

/** 0: everything was as asked for; 1: not so, or the drill could not be made. */
async function drill(
  context: CommandContext,
  request: DrillRequest,
  flags: DrillFlags,
  pointed: boolean,
): Promise<number> {
  const running = flags.here === true || pointed;
  checkNeeds(request, !running);
  const { clock, configFile, dataFolder } = context;
  if (running && flags.yes !== true) {
    const what = `drill ${request.kind} would be made on the running cluster of ${dataFolder}, not on one of its own`;
    throw new UsageError(`${what}: add --yes if that is meant`);
  }
  if (!running && flags.cards !== undefined) throw new UsageError('--cards belongs to --here');
  const print = (line: string): void => {
    if (flags.json === true) context.note(line);
    else context.print(line);
  };
  const around = (undo: UndoJournal) => ({
    undo,
    clock,
    note: (line: string): void => {
      context.note(line);
    },
    keep: flags.keep,
    onAim: ({ target, expectation }: Aim): void => {
      print(`drill ${request.kind} of ${target} under ${request.rate} requests/s, seed ${request.seed}`);
      print(legend);
      print(headLine(expectation));
    },
    onRun: (run: DrillRun, { expectation }: Aim): void => {
      print(runLine(expectation, run));
    },
  });
  const session = sessionOptions(context, request.kind);
  const report = await inSession(session, (undo) =>
    running
      ? performOnRunningCluster(request, {
          ...around(undo),
          configFile,
          dataFolder,
          cardFile: flags.cards ?? sampleCardFile,
        })
      : performOnOwnCluster(request, around(undo)),
  );
  for (const line of closingLines(report)) print(line);
  print(`Report: ${keepReport(report, flags.reports ?? 'reports')}.{txt,json,html}`);
  const chained = await chainReport(context, report);
  if (chained !== undefined) print(`In the chain of evidence as ${chained}.`);
  if (flags.json === true) context.print(reportJson(report));
  return report.passed ? exitCode.good : exitCode.failed;
}

function sessionOptions(
  context: Pick<CommandContext, 'clock' | 'note'>,
  name: string,
): Parameters<typeof inSession>[0] {
  return {
    stateFolder: drillStateFolder(),
    name,
    clock: context.clock,
    note: (line) => {
      context.note(line);
    },
    exit: (code) => process.exit(code),
  };
}

/** Undoes what a drill that was killed has left. */
async function undoDrill(context: CommandContext): Promise<number> {
  const said: string[] = [];
  const note = (line: string): void => {
    said.push(line);
    context.note(line);
  };
  await inSession({ ...sessionOptions(context, 'undo'), note }, () => Promise.resolve());
  context.print(said.length > 0 ? 'Undone.' : 'There is nothing to undo.');
  return exitCode.good;
}

const help = `
A drill starts a cluster of its own in a temporary folder, puts a load on all its acquirers' ports, makes the fault in
the middle of it, ends it under the same load, and judges from the acquirers' journals: RTO, longest gap, answered
approvals missing from the logs, double approvals, holds, unexpected and late answers; then all copies are compared.
With --here, --config or --data it is made on a running cluster, and only with --yes. One drill at a time.

Ctrl-C undoes everything. What a drill that was killed itself has left (stopped processes, namespaces, mounts) is undone
by the next drill, or by: quadrant drill undo

Exit codes: 0 as asked for, 1 not so or the drill could not be made, 2 usage, 4 the cluster cannot be reached
`;

/** Adds `drill`. `pointed`: a cluster was named on the command line. */
export function registerDrill(program: Command, run: RunCommand, pointed: boolean): void {
  const drills = program
    .command('drill')
    .description('rehearses failures under load, and judges them from what acquirers saw')
    .addHelpText('after', help);
  for (const kind of drillKinds) {
    const fault = faults[kind];
    const command = drills
      .command(kind)
      .argument('[target]', fault.target)
      .description(fault.summary)
      .option('--runs <n>', 'how often, over the same data (default: 5)')
      .option('--rate <n>', 'requests per second over all ports (default: 500)')
      .option('--seed <n>', 'the same moments and requests again (default: by chance, and printed)')
      .option('--hold <time>', `how long the fault lasts (default: ${fault.holdMs / 1000}s)`)
      .option('--warm-up <time>', 'load before the fault (default: 10s, then 4 to 6s by chance)')
      .option('--limits <set>', 'table: limits on safety and times; safety: on safety alone (default: table)')
      .option('--failback', 'ask for ownership to return, rather than wait until it does by itself')
      .option('--here', 'on the running cluster of nodes.yaml and its data; --config and --data say so, too')
      .option('--yes', 'with --here: it is meant')
      .option('--cards <file>', 'with --here: cards that are on file there (default: the sample cards)')
      .option('--keep <dir>', 'journals, and the data of an own cluster, into this folder, which stays')
      .option('--reports <dir>', 'where the report is kept as text, JSON and HTML (default: reports)')
      .option('--json', 'the report as JSON on standard output')
      .addHelpText('after', `\n${wrapText(fault.details, 110, 0)}`);
    if (kind === 'kill') command.option('--with-broker', "the broker of the node's site at the same moment");
    if (kind === 'partition') {
      command.option('--one-way <way>', 'out: what is cut off is not heard; in: it does not hear');
      command.option('--delay <time>', 'instead of a cut: so much more between sites, in each direction');
    }
    if (kind === 'stall') command.option('--mode <mode>', 'full: the disk is full; slow: it is slow (default: full)');
    command.action((target: string | undefined, flags: DrillFlags) =>
      run((context) => drill(context, readRequest(kind, target, flags, context.random), flags, pointed)),
    );
  }
  drills
    .command('undo')
    .description('undoes what a drill that was killed has left')
    .action(() => run(undoDrill));
}
