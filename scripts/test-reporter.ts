import type { TestEvent } from 'node:test/reporters';

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

/** A reporter for node:test that prints the closing line only; another reporter tells the rest. */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  let counts: Counts = { tests: 0, passed: 0, cancelled: 0, skipped: 0, todo: 0 };
  for await (const event of source) {
    // A summary with no file is that of the whole run.
    if (event.type === 'test:summary' && event.data.file === undefined) counts = event.data.counts;
  }
  const { line, ok } = closingLine(counts);
  if (!ok) process.exitCode = 1;
  yield `\n${line}\n`;
}
