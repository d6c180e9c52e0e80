import { isMap, isNode, isScalar, LineCounter, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';

import { SwitchError, type ErrorCode } from '../base/errors.ts';
import { formatProblem, problemsOfIssue } from './rows.ts';

const shownProblems = 10;

/**
 * YAML text read by a schema. Throws a SwitchError of the given code that names every place as `file:line: path`;
 * neither the file's text nor a value is repeated in it. Aliases are bounded, duplicate keys refused.
 */
export function readYamlDocument<T>(text: string, fileName: string, schema: z.ZodType<T>, code: ErrorCode): T {
  return readYamlWithLines(text, fileName, schema, code).content;
}

/** The same, and the line of what stands at a path (`rules[2].set.rank`), or of the nearest thing around it. */
export function readYamlWithLines<T>(
  text: string,
  fileName: string,
  schema: z.ZodType<T>,
  code: ErrorCode,
): { readonly content: T; readonly lineOf: (path: string) => number } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const fault = document.errors[0];
  if (fault !== undefined) {
    // The parser's own message may quote the text; its code says the same without quoting.
    const kind = fault.code.toLowerCase().replaceAll('_', ' ');
    throw new SwitchError(code, `${fileName}:${lines.linePos(fault.pos[0]).line}: not valid YAML (${kind})`);
  }
  let content: unknown;
  try {
    content = document.toJS({ maxAliasCount: 100 });
  } catch {
    throw new SwitchError(code, `${fileName}: not valid YAML (too many aliases, or one that points nowhere)`);
  }
  const result = schema.safeParse(content);
  if (result.success) {
    const stepsOf = (path: string): PropertyKey[] =>
      (path.match(/[^.[\]]+/g) ?? []).map((step) => (/^[0-9]+$/.test(step) ? Number(step) : step));
    return { content: result.data, lineOf: (path) => lineOf(document, lines, stepsOf(path), undefined) };
  }

  const messages = result.error.issues.flatMap((issue) => {
    const key = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
    const place = `${fileName}:${lineOf(document, lines, issue.path, key)}`;
    return problemsOfIssue(issue).map((problem) => `${place}: ${formatProblem(problem)}`);
  });
  const more = messages.length > shownProblems ? [`and ${messages.length - shownProblems} more`] : [];
  throw new SwitchError(code, [...messages.slice(0, shownProblems), ...more].join('\n'));
}

/** The line of the value at `path`, or of the nearest thing around it that is there. */
function lineOf(document: Document, lines: LineCounter, path: readonly PropertyKey[], key: string | undefined): number {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (!isNode(node)) continue;
    const keyNode =
      isMap(node) && length === path.length
        ? node.items.map((pair) => pair.key).find((item) => isScalar(item) && String(item.value) === key)
        : undefined;
    const range = (isScalar(keyNode) ? keyNode : node).range;
    if (range !== null && range !== undefined) return lines.linePos(range[0]).line;
  }
  return 1;
}
