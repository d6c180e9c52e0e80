import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

interface Counts {
  readonly tests: number;
  readonly passed: number;
  readonly cancelled: number;
  readonly skipped: number;
  readonly todo: number;
}

/**
 * The last line of a test run, `N passed, N failed, N skipped`, from the runner's own counts. A run of no tests is a
 * failure, and so are tests that were cancelled.
 */
export function closingLine(counts: Counts): { readonly line: string; readonly ok: boolean } {
  const failed = counts.tests - counts.passed - counts.skipped - counts.todo;
  const line = `${counts.passed} passed, ${failed} failed, ${counts.skipped + counts.todo} skipped`;
  return { line, ok: failed === 0 && counts.passed > 0 };
}

/** A suite that fails because a test in it did, which has been told by itself. */
function isOfSubtests(error: Error): boolean {
  return 'failureType' in error && error.failureType === 'subtestsFailed';
}

/** What the test threw: the runner wraps it. */
function causeOf(error: Error): unknown {
  return error.cause === undefined ? error : error.cause;
}

/** How many of the slowest files are named at the end. */
const slowestNamed = 8;

/**
 * A reporter for node:test beside one that tells the rest: it prints a failure in full as soon as it is seen, for a run that is ended
 * from outside has no end at which to tell it; at the end the slowest files and the closing line.
 */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let counts: Counts = { tests: 0, passed: 0, cancelled: 0, skipped: 0, todo: 0 };
  const files: { readonly file: string; readonly ms: number }[] = [];
  for await (const event of source) {
    if (event.type === 'test:summary') {
      // A summary with no file is that of the whole run.
      if (event.data.file === undefined) counts = event.data.counts;
      else files.push({ file: relative(process.cwd(), event.data.file), ms: event.data.duration_ms });
    } else if (event.type === 'test:fail' && !isOfSubtests(event.data.details.error)) {
      const { name, file, details } = event.data;
      const at = file === undefined ? '' : ` (${relative(process.cwd(), file)})`;
      yield `\nFAILED: ${name}${at}\n${inspect(causeOf(details.error), { depth: 6 })}\n\n`;
    }
  }
  if (files.length > 1) {
    const slowest = files.sort((one, other) => other.ms - one.ms).slice(0, slowestNamed);
    yield `\nslowest files: ${slowest.map(({ file, ms }) => `${file} ${Math.round(ms / 1_000)} s`).join(', ')}\n`;
  }
  const { line, ok } = closingLine(counts);
  if (!ok) process.exitCode = 1;
  yield `\n${line}\n`;
}
