import { createInterface } from 'node:readline/promises';

import { SwitchError } from '../../base/errors.ts';
import { UsageError } from '../acquirer/usage.ts';
import { nodeOf, type CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';

/** What one node answers, or each; `missing`: those that did not. */
export async function askNodes(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  node: string | undefined,
  method: string,
): Promise<{ readonly answers: { readonly node: string; readonly answer: unknown }[]; readonly missing: string[] }> {
  const asked = node === undefined ? bus.topology.nodes.map(({ id }) => id) : [nodeOf(bus.topology, node)];
  const missing: string[] = [];
  const answers = await Promise.all(
    asked.map(async (id) => {
      try {
        return [{ node: id, answer: await bus.call(id, method, {}) }];
      } catch (error) {
        if (!(error instanceof SwitchError && error.code === 'NODE_UNREACHABLE')) throw error;
        missing.push(id);
        return [];
      }
    }),
  );
  return { answers: answers.flat(), missing };
}

/** Asks before something is destroyed or entered. Without a terminal, only `--yes` can say so: UsageError. */
export async function confirm(context: CommandContext, question: string, yes: boolean): Promise<boolean> {
  if (yes) return true;
  if (context.stdin.isTTY !== true) throw new UsageError(`${question} There is no terminal to ask: say --yes.`);
  const terminal = createInterface({ input: context.stdin, output: context.stdout });
  try {
    const answer = await terminal.question(`${question} [y/N] `);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

/** A card number from an argument or, better for the shell's history, from standard input. */
export async function readCardNumber(context: CommandContext, argument: string | undefined): Promise<string> {
  const text = argument === undefined || argument === '-' ? await readInput(context) : argument;
  const digits = text.replace(/[ -]/g, '');
  if (!/^[0-9]{13,19}$/.test(digits)) throw new UsageError('a card number has 13 to 19 digits');
  return digits;
}

/** Two of them; both from standard input when the first one does not come as an argument. */
export async function readCardNumbers(
  context: CommandContext,
  one: string | undefined,
  other: string | undefined,
): Promise<readonly [string, string]> {
  if (one !== undefined && one !== '-') {
    if (other === undefined) throw new UsageError('name the old card number and the new one');
    return [await readCardNumber(context, one), await readCardNumber(context, other)];
  }
  const [first, second, third] = (await readInput(context)).split(/\s+/);
  if (first === undefined || second === undefined || third !== undefined) {
    throw new UsageError('standard input has to hold the old card number and the new one');
  }
  return [await readCardNumber(context, first), await readCardNumber(context, second)];
}

async function readInput(context: CommandContext): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of context.stdin) chunks.push(Buffer.from(chunk as Buffer));
  return Buffer.concat(chunks).toString('utf8').trim();
}
