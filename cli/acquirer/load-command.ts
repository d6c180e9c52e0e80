import { fileURLToPath } from 'node:url';

import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { exitCodeOf } from '../run-command.ts';
import { readAcquirerCards } from './cards.ts';
import { runLoad } from './load.ts';
import type { LoadOptions } from './load-options.ts';
import { defaultMix, operationNames, operations, parseMix } from './load-mix.ts';
import { formatLiveLine, formatSummary } from './load-summary.ts';
import { CommandFailure, parseDurationMs, parseWhole, targetsOf, UsageError } from './usage.ts';
import type { CommandContext } from './usage.ts';

/** `quadrant load`, as commander gives its flags. */
export interface LoadFlags {
  readonly rate?: string;
  readonly max?: boolean;
  readonly inFlight?: string;
  readonly duration?: string;
  readonly count?: string;
  readonly connections?: string;
  readonly nodes?: string;
  readonly mix?: string;
  readonly cards?: string;
  readonly seed?: string;
  /** False: `--no-journal`. */
  readonly journal?: string | boolean;
  readonly timeout?: string;
  readonly giveUp?: string;
  /** False: `--no-reversals`. */
  readonly reversals?: boolean;
  readonly json?: boolean;
}

/** Seeds give a terminal's name four characters in base 36. */
const seeds = 36 ** 4;
const ttyEveryMs = 1_000;
const plainEveryMs = 10_000;
export const sampleCardFile = fileURLToPath(new URL('../../config-db/samples/cards.csv', import.meta.url));

/**
 * Runs the load that the flags ask for. 0: every request was answered exactly once with its own echo; 1: not so, or
 * no card file or journal; 2: the flags are wrong; 4: no node could be reached. `signal` ends the load as Ctrl-C does.
 */
export async function loadCommand(flags: LoadFlags, context: CommandContext, signal?: AbortSignal): Promise<number> {
  try {
    const options = await readFlags(flags, context);
    let shownMs = 0;
    const everyMs = context.stderr.isTTY === true ? ttyEveryMs : plainEveryMs;
    const summary = await runLoad({
      ...options,
      ...(signal === undefined ? {} : { signal }),
      onProgress: (counts, elapsedMs) => {
        if (elapsedMs - shownMs < everyMs - ttyEveryMs / 2) return;
        shownMs = elapsedMs;
        const line = formatLiveLine(counts, elapsedMs);
        context.stderr.write(context.stderr.isTTY === true ? `\r\u001b[K${line}` : `${line}\n`);
      },
    });
    if (context.stderr.isTTY === true && shownMs > 0) context.stderr.write('\n');
    context.stdout.write(flags.json === true ? `${JSON.stringify(summary, undefined, 2)}\n` : formatSummary(summary));
    return summary.clean ? 0 : 1;
  } catch (error) {
    return reportFailure('load', error, context);
  }
}

/** A sentence on standard error, and the exit code. Anything that is no failure of its surroundings is thrown on. */
export function reportFailure(command: string, error: unknown, context: Pick<CommandContext, 'stderr'>): number {
  const known = error instanceof UsageError || error instanceof CommandFailure || error instanceof SwitchError;
  if (!known) throw error;
  context.stderr.write(`quadrant ${command}: ${describeError(error)}\n`);
  if (error instanceof SwitchError) context.stderr.write(`${error.hint}\n`);
  return exitCodeOf(error);
}

async function readFlags(flags: LoadFlags, context: CommandContext): Promise<LoadOptions> {
  const { clock, random } = context;
  if (flags.max === true && flags.rate !== undefined) throw new UsageError('--rate and --max exclude each other');
  if (flags.inFlight !== undefined && flags.max !== true) throw new UsageError('--in-flight belongs to --max');
  const seed = flags.seed === undefined ? random.below(seeds) : parseWhole('--seed', flags.seed, 0, seeds - 1);
  const pace: LoadOptions['pace'] =
    flags.max === true
      ? { kind: 'max', inFlight: parseWhole('--in-flight', flags.inFlight ?? '200', 1, 1_000_000) }
      : { kind: 'rate', perSecond: parseWhole('--rate', flags.rate ?? '100', 1, 1_000_000) };
  const count = flags.count === undefined ? undefined : parseWhole('--count', flags.count, 1, 1_000_000_000);
  const durationMs =
    flags.duration !== undefined
      ? parseDurationMs('--duration', flags.duration)
      : count === undefined
        ? 10_000
        : undefined;
  const connections = parseWhole('--connections', flags.connections ?? '8', 1, 10_000);
  const mix = flags.mix === undefined ? defaultMix : parseMix(flags.mix);
  const requestTimeoutMs = parseDurationMs('--timeout', flags.timeout ?? '4s');
  const giveUpMs = parseDurationMs('--give-up', flags.giveUp ?? '10s');
  const journalFile =
    flags.journal === false
      ? undefined
      : typeof flags.journal === 'string'
        ? flags.journal
        : `load-${seed}.journal.jsonl`;
  const targets = targetsOf(context.topology(), flags.nodes);
  const cardFile = flags.cards ?? sampleCardFile;
  return {
    targets,
    connections,
    cards: await readAcquirerCards(cardFile),
    cardFile,
    mix,
    pace,
    ...(durationMs === undefined ? {} : { durationMs }),
    ...(count === undefined ? {} : { count }),
    seed,
    journalFile,
    requestTimeoutMs,
    giveUpMs,
    reverseUnanswered: flags.reversals !== false,
    clock,
  };
}

function helpText(): string {
  const rows = operationNames.map((name) => {
    const { defaultWeight, meaning } = operations[name];
    return `  ${name.padEnd(21)} ${String(defaultWeight).padStart(2)}  ${meaning}`;
  });
  return `
Operations of --mix, with their weights when it is not given:
${rows.join('\n')}

Exit code: 0 every request was answered exactly once and echoed as sent, 1 not so, 2 wrong flags, 4 no node reached.
Ctrl-C ends the sending, waits up to 5 s for answers and prints the summary; twice, it ends at once.

Examples:
  quadrant load --rate 500 --duration 30s
  quadrant load --max --in-flight 400 --connections 50 --count 10000 --seed 7 --journal run.journal.jsonl
  quadrant load --nodes n2,n3 --mix purchase=60,completion=30,reversal=10 --json
`;
}

/** Adds `load` to the program. */
export function registerLoad(program: Command, context: CommandContext): void {
  program
    .command('load')
    .description('an acquirer: sends mixed requests at a rate, or as fast as answers come, and checks every answer')
    .option('--rate <n>', 'requests per second, whatever the answers do (default: 100)')
    .option('--max', 'instead of a rate: the next request as soon as an answer comes')
    .option('--in-flight <n>', 'with --max: requests in flight, over all connections (default: 200)')
    .option('--duration <time>', 'how long to send: 500ms, 10s, 2m (default: 10s, or until --count)')
    .option('--count <n>', 'how many requests to send')
    .option('--connections <n>', 'over all nodes, which take turns (default: 8)')
    .option('--nodes <ids>', 'for example n1,n3 (default: all)')
    .option('--mix <weights>', 'what to send, for example purchase=60,cash=5,reversal=6')
    .option('--cards <file>', 'card file (default: the sample cards)')
    .option('--seed <n>', 'repeats the same choices (default: by chance, and printed)')
    .option('--journal <file>', 'where every request and answer is recorded (default: load-<seed>.journal.jsonl)')
    .option('--no-journal', 'record nothing')
    .option('--timeout <time>', 'without an answer, a request is repeated at another node after this (default: 4s)')
    .option('--give-up <time>', 'and given up after this (default: 10s)')
    .option('--no-reversals', 'do not reverse by 0420 what was given up')
    .option('--json', 'print the summary as JSON')
    .addHelpText('after', helpText())
    .action(async (flags: LoadFlags) => {
      const interrupt = new AbortController();
      const onSignal = (): void => {
        interrupt.abort();
      };
      process.once('SIGINT', onSignal);
      process.exitCode = await loadCommand(flags, context, interrupt.signal);
      process.off('SIGINT', onSignal);
    });
}
