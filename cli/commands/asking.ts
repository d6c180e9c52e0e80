import { createInterface } from 'node:readline/promises';

import { UsageError } from '../acquirer/usage.ts';
import type { CommandContext } from '../context.ts';

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
  let text = argument;
  if (text === undefined || text === '-') {
    const chunks: Buffer[] = [];
    for await (const chunk of context.stdin) chunks.push(Buffer.from(chunk as Buffer));
    text = Buffer.concat(chunks).toString('utf8').trim();
  }
  const digits = text.replace(/[ -]/g, '');
  if (!/^[0-9]{13,19}$/.test(digits)) throw new UsageError('a card number has 13 to 19 digits');
  return digits;
}
