import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { type Command, InvalidArgumentError } from 'commander';

import { delay, type Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { isLogLevel, logLevels, type LogLevel } from '../../base/log.ts';
import { maskCardData } from '../../base/pan.ts';
import { voters, type Topology } from '../../base/topology.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, type CommandContext } from '../context.ts';
import type { RunCommand } from '../run-command.ts';
import { LogReader } from './log-reader.ts';

/** What to show of the logs. */
export interface TailOptions {
  /** Ids of processes; all of nodes.yaml when not given. */
  readonly processes: readonly string[];
  readonly level: LogLevel;
  /** Wall clock, milliseconds; undefined: the last lines alone. */
  readonly sinceMs: number | undefined;
  /** Only lines that have this text. */
  readonly text: string | undefined;
  readonly json: boolean;
  readonly follow: boolean;
}

/** The logs are looked at so often. A line is shown after the next look, so that other processes' lines find their place. */
const pollMs = 200;
/** Without `--since`: so many lines of all processes together, out of so much of each log's end. */
const lastLines = 20;
const endBytes = 256 * 1024;

interface Line {
  readonly process: string;
  readonly timeMs: number;
  readonly level: LogLevel;
  readonly text: string;
  readonly record: Readonly<Record<string, unknown>>;
}

/** A process's log, or what it wrote besides: a crash's last words, which are text without times. */
interface Source {
  readonly process: string;
  readonly kind: 'log' | 'output';
  readonly reader: LogReader;
}

/**
 * Prints the logs of several processes in the order of their times, and goes on until `ended`. Throws LOG_MISSING when
 * none of them has one; a log that appears later is shown from its beginning.
 */
export async function tail(
  context: Pick<CommandContext, 'dataFolder' | 'clock' | 'print'>,
  options: TailOptions,
  ended: Promise<unknown>,
): Promise<void> {
  const sources = options.processes.flatMap((process): Source[] => [
    { process, kind: 'log', reader: new LogReader(join(context.dataFolder, process, 'node.log')) },
    { process, kind: 'output', reader: new LogReader(join(context.dataFolder, process, 'output.log')) },
  ]);
  try {
    if (!sources.some(({ reader }) => reader.exists)) {
      const where = existsSync(context.dataFolder) ? '' : ', and there is no such folder';
      const who = options.processes.join(', ');
      throw new SwitchError('LOG_MISSING', `no log of ${who} is in ${resolve(context.dataFolder)}${where}`);
    }
    const shown = show(options, context.print);
    const backlog = readBacklog(sources, options);
    shown(options.sinceMs === undefined && options.text === undefined ? backlog.slice(-lastLines) : backlog);
    if (options.follow) await follow(sources, context.clock, options, shown, ended);
  } finally {
    for (const { reader } of sources) reader.close();
  }
}

/** What is in the logs now, filtered and in order. */
function readBacklog(sources: readonly Source[], options: TailOptions): Line[] {
  const { sinceMs, text } = options;
  const lines = sources.flatMap((source) => {
    const { reader, kind } = source;
    // Output has no times: what was written last then counts as all of it.
    const nowMs = reader.modifiedMs;
    if (sinceMs !== undefined && kind === 'log') reader.seek((line) => timeOf(line) < sinceMs);
    else if (text === undefined || kind === 'output') reader.seekEnd(endBytes);
    return newLines(source, options, nowMs);
  });
  return lines.sort(byTime);
}

async function follow(
  sources: readonly Source[],
  clock: Clock,
  options: TailOptions,
  shown: (lines: readonly Line[]) => void,
  ended: Promise<unknown>,
): Promise<void> {
  const state = { ended: false };
  const end = ended.then(() => {
    state.ended = true;
  });
  let held: Line[] = [];
  for (;;) {
    const came = sources.flatMap((source) => newLines(source, options, clock.wallMs()));
    const latestMs = held.reduce((latest, { timeMs }) => Math.max(latest, timeMs), Number.NEGATIVE_INFINITY);
    const due = [...held, ...came.filter(({ timeMs }) => timeMs <= latestMs)];
    shown(due.sort(byTime));
    held = came.filter(({ timeMs }) => timeMs > latestMs);
    if (state.ended) break;
    await Promise.race([delay(clock, pollMs), end]);
  }
  shown(held.sort(byTime));
}

function isWanted(line: Line, { level, sinceMs }: TailOptions): boolean {
  const isImportant = logLevels.indexOf(line.level) >= logLevels.indexOf(level);
  return isImportant && (sinceMs === undefined || line.timeMs >= sinceMs);
}

/** What is wanted of what a log has got. A line without a time of its own has that of the one before it. */
function newLines({ process, kind, reader }: Source, options: TailOptions, nowMs: number): Line[] {
  const lines: Line[] = [];
  let timeMs = nowMs;
  reader.read((text) => {
    if (text.trim() === '') return;
    const ownMs = timeOf(text);
    if (kind === 'log' && Number.isFinite(ownMs)) timeMs = ownMs;
    // Before it is parsed, which costs much more: a whole log may be searched for one request.
    if (options.text !== undefined && !text.includes(options.text)) return;
    const line = lineOf(process, timeMs, text, kind === 'log' ? recordOf(text) : undefined);
    if (isWanted(line, options)) lines.push(line);
  });
  return lines;
}

function lineOf(process: string, timeMs: number, text: string, record: Line['record'] | undefined): Line {
  if (record === undefined) {
    const time = new Date(timeMs).toISOString();
    const written = { level: 'error', time, process, event: 'output', msg: text } as const;
    return { process, timeMs, level: 'error', text: JSON.stringify(written), record: written };
  }
  const level = String(record['level']);
  return { process, timeMs, level: isLogLevel(level) ? level : 'info', text, record };
}

function recordOf(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** NaN when the line has no time. */
function timeOf(text: string): number {
  return Date.parse(/"time":"([^"]*)"/.exec(text)?.[1] ?? '');
}

function byTime(one: Line, other: Line): number {
  return one.timeMs - other.timeMs;
}

function show({ json, processes }: TailOptions, print: (line: string) => void): (lines: readonly Line[]) => void {
  const width = Math.max(...processes.map((id) => id.length));
  return (lines) => {
    // Logs are masked as they are written; what else a process has put out is not.
    for (const line of lines) print(maskCardData(json ? line.text : readable(line, width)));
  };
}

const notRepeated: ReadonlySet<string> = new Set(['level', 'time', 'process', 'pid', 'msg']);

/** `2026-11-22T19:42:41.607Z n1 info  leads the group  event=elected group=d term=2` */
function readable({ process, timeMs, level, record }: Line, width: number): string {
  const message = typeof record['msg'] === 'string' ? record['msg'] : '';
  const details = Object.entries(record).flatMap(([key, value]) =>
    notRepeated.has(key) || value === undefined ? [] : [`${key}=${valueText(value)}`],
  );
  const head = `${new Date(timeMs).toISOString()} ${process.padEnd(width)} ${level.padEnd(5)} ${message}`;
  return withoutControls([head, details.join(' ')].filter((part) => part !== '').join('  '));
}

function valueText(value: unknown): string {
  if (typeof value === 'string' && /^[^\s"=]+$/.test(value)) return value;
  return JSON.stringify(value);
}

/** A log line may hold what somebody sent: a terminal must not act on it. */
function withoutControls(text: string): string {
  return text.replace(/\p{Cc}/gu, (control) => `\\x${(control.codePointAt(0) ?? 0).toString(16).padStart(2, '0')}`);
}

// ---- the command line ------------------------------------------------------------------------------------------------

const unitMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `10m`, `2h`: so long before now; or an ISO 8601 time. Undefined when it is neither. */
export function readSince(text: string, nowMs: number): number | undefined {
  const [, count, unit = ''] = /^([0-9]{1,6})([smhd])$/.exec(text) ?? [];
  if (count !== undefined) return nowMs - Number(count) * (unitMs[unit] ?? 0);
  if (!/^[0-9]{4}-[0-9]{2}-[0-9]{2}/.test(text)) return undefined;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : at;
}

/** The processes that `--node` names; all of them when it does not. Throws UsageError. */
export function readProcesses(topology: Topology, flag: string | undefined): readonly string[] {
  const known: readonly string[] = voters(topology);
  if (flag === undefined) return known;
  const named = flag.split(',');
  const unknown = named.find((id) => !known.includes(id));
  if (unknown !== undefined) {
    throw new UsageError(`there is no node or witness "${unknown}"; nodes.yaml has ${known.join(', ')}`);
  }
  return known.filter((id) => named.includes(id));
}

function readLevel(text: string): LogLevel {
  if (isLogLevel(text)) return text;
  throw new InvalidArgumentError(`it can be ${logLevels.join(', ')}`);
}

function interrupted(): Promise<void> {
  return new Promise((resolveEnd) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        resolveEnd();
      });
    }
  });
}

interface Flags {
  readonly node?: string;
  readonly level: LogLevel;
  readonly since?: string;
  readonly grep?: string;
  readonly json?: boolean;
  readonly follow: boolean;
}

export function registerTail(program: Command, run: RunCommand): void {
  program
    .command('tail')
    .description('the logs of all processes together, in the order of their times, and what is added to them')
    .option('--node <ids>', 'only these processes, separated by commas')
    .option('--level <level>', `only this level and above: ${logLevels.join(', ')}`, readLevel, 'trace')
    .option('--since <time>', 'from then on: 30s, 10m, 2h, 1d ago, or an ISO 8601 time')
    .option(
      '--grep <text>',
      'only lines that have this text, for example the attempt of a request; searches all of the logs',
    )
    .option('--no-follow', 'end after what is there now')
    .option('--json', 'the lines as they are in the logs')
    .addHelpText('after', tailHelp)
    .action((flags: Flags) =>
      run(async (context) => {
        const sinceMs = flags.since === undefined ? undefined : readSince(flags.since, context.clock.wallMs());
        if (flags.since !== undefined && sinceMs === undefined) {
          throw new UsageError(`--since takes 30s, 10m, 2h, 1d or an ISO 8601 time, not "${flags.since}"`);
        }
        const options: TailOptions = {
          processes: readProcesses(context.topology(), flags.node),
          level: flags.level,
          sinceMs,
          text: flags.grep,
          json: flags.json === true,
          follow: flags.follow,
        };
        await tail(context, options, flags.follow ? interrupted() : Promise.resolve());
        return exitCode.good;
      }),
    );
}

const tailHelp = `
Reads DATA/<id>/node.log of every process, and DATA/<id>/output.log, where a crash leaves its last words. Only logs on
this machine are read. Without --since and --grep it begins with the last ${lastLines} lines.

Exit codes: 0 good, 1 there is no log, 2 usage
`;
