import { pino } from 'pino';
import type { Logger as PinoLogger } from 'pino';

import { SwitchError } from './errors.ts';
import { maskCardData } from './pan.ts';

export type Logger = PinoLogger;

/** The least important first. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export function isLogLevel(text: string): text is LogLevel {
  return logLevels.some((level) => level === text);
}

/** Where finished lines go; each ends with a line feed. */
export interface LineSink {
  write(line: string): unknown;
}

/** Stands in for a line that could not be masked. */
const withheld = '{"level":"error","msg":"a log line was withheld: it could not be masked"}\n';

/** The level that QUADRANT_LOG_LEVEL asks for; `info` when it is not set. */
export function logLevel(environment: Readonly<Record<string, string | undefined>>): LogLevel {
  const text = environment['QUADRANT_LOG_LEVEL'] ?? 'info';
  if (isLogLevel(text)) return text;
  throw new SwitchError('CONFIG_INVALID', `QUADRANT_LOG_LEVEL is "${text}"; it can be ${logLevels.join(', ')}`);
}

/**
 * A logger of JSON lines with ISO 8601 times. The finished line is masked as the last step before the sink, so it does
 * not matter where in it a card number stood: message, nested object, key, number, error or stack. pino's own redact
 * knows paths only. A line that cannot be masked is replaced by a fixed notice, never written as it is.
 *
 * `destination` is a sink, or a file that is appended to line by line (a crash loses none); standard error by default.
 */
export function createLogger(options: {
  readonly process: string;
  readonly level?: LogLevel;
  readonly destination?: LineSink | string;
  readonly mask?: (text: string) => string;
}): Logger {
  const sink = lineSink(options.destination);
  const mask = options.mask ?? maskCardData;
  return pino(
    {
      level: options.level ?? 'info',
      base: { process: options.process, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err, error: pino.stdSerializers.err, cause: pino.stdSerializers.err },
    },
    { write: (line: string) => void sink.write(maskLine(line, mask)) },
  );
}

function lineSink(destination: LineSink | string | undefined): LineSink {
  if (typeof destination === 'object') return destination;
  return pino.destination({ dest: destination ?? 2, sync: true, append: true, mkdir: destination !== undefined });
}

// The tokens of a JSON line that can carry digits: the members of a typed array, a string, a list of numbers.
const token = /"\d+":\d+(?:,"\d+":\d+)+|"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*(?:,-?\d[\d.eE+-]*)*/g;

/**
 * A JSON line, masked and still JSON: numbers that are masked become a string. The second masking is of the whole
 * line, for what spans tokens; it may cost the line its form, never a card number its cover.
 */
function maskLine(line: string, mask: (text: string) => string): string {
  try {
    const masked = line.replace(token, (text) => {
      const hidden = mask(text);
      if (hidden === text) return text;
      if (!text.startsWith('"')) return `"${hidden}"`;
      return text.endsWith('"') ? hidden : `"masked":${JSON.stringify(hidden)}`;
    });
    return mask(masked);
  } catch {
    return withheld;
  }
}
