import type { Command } from 'commander';

import type { NodeId } from '../../base/identifiers.ts';
import { readCardFile, type CardFileCard } from '../../config-db/card-file.ts';
import { exitCode, operatorName, reachableNode, type CommandContext } from '../context.ts';
import { maximumCardsPerCall } from '../node/card-calls.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { readFile } from './reading.ts';

export interface ImportSummary {
  readonly lines: number;
  readonly added: number;
  readonly changed: number;
  readonly unchanged: number;
  /** The file would have lifted a restriction: the stricter status stays until somebody lifts it with `cards set`. */
  readonly keptRestriction: number;
  readonly bad: readonly { readonly line: number; readonly reason: string }[];
  /** Bad lines beyond those listed. */
  readonly badNotListed: number;
}

const listedBadLines = 1000;
const progressMs = 1000;

/**
 * Imports an issuer's card file at one node: streamed, batch by batch, each awaited until it is committed. Bad lines
 * are reported and passed over. Throws when the file cannot be read or a batch cannot be entered; what was entered
 * until then stays, and the same file again goes on from there.
 */
export async function importCardFile(
  bus: OperatorBus,
  node: NodeId,
  file: string,
  context: Pick<CommandContext, 'clock' | 'note'>,
): Promise<ImportSummary> {
  const counts = { added: 0, changed: 0, unchanged: 0, keptRestriction: 0 };
  const bad: { line: number; reason: string }[] = [];
  let badNotListed = 0;
  let lines = 0;
  let shownMs = context.clock.monotonicMs();
  const refuse = (line: number, reason: string): void => {
    if (bad.length < listedBadLines) bad.push({ line, reason });
    else badNotListed += 1;
  };
  let batch: { line: number; card: CardFileCard }[] = [];
  const enter = async (): Promise<void> => {
    if (batch.length === 0) return;
    const cards = batch.map(({ card }) => ({
      pan: card.pan.reveal(),
      expiry: card.expiry,
      status: card.status,
      currency: card.currency,
      limit: card.limitMinor.toString(),
    }));
    const entered = (await bus.call(node, 'cards.import', { by: operatorName(), cards }, 15_000)) as {
      result: string;
      reason?: string;
    }[];
    batch.forEach(({ line }, position) => {
      const { result, reason } = entered[position] ?? { result: 'failed', reason: 'no result' };
      if (result === 'added' || result === 'changed' || result === 'unchanged') counts[result] += 1;
      else if (result === 'kept-restriction') counts.keptRestriction += 1;
      else if (result === 'other-currency') refuse(line, 'the card is on file in another currency');
      else refuse(line, reason ?? result);
    });
    batch = [];
    const nowMs = context.clock.monotonicMs();
    if (nowMs - shownMs >= progressMs) {
      shownMs = nowMs;
      context.note(`${lines} lines read, ${counts.added} cards added`);
    }
  };
  for await (const each of readCardFile(readFile(file))) {
    lines += 1;
    if (each.kind === 'bad') refuse(each.line, each.reason);
    else batch.push({ line: each.line, card: each.card });
    if (batch.length >= maximumCardsPerCall) await enter();
  }
  await enter();
  return { lines, ...counts, bad, badNotListed };
}

export function registerCardImport(cards: Command, run: RunCommand): void {
  cards
    .command('import')
    .argument('<file>', 'CSV with the columns pan,expiry,status,currency,limit (expiry YYMM, limit in minor units)')
    .description("enters an issuer's card file at a node; every node has the cards afterwards")
    .option('--node <id>', 'where to enter it (default: the first node that answers)')
    .option('--json', 'as JSON')
    .action((file: string, options: { node?: string; json?: boolean }) =>
      run(async (context) => {
        const summary = await context.withCluster(async (bus) =>
          importCardFile(bus, await reachableNode(bus, options.node), file, context),
        );
        const badLines = summary.bad.length + summary.badNotListed;
        if (options.json === true) {
          context.printJson(summary);
        } else {
          for (const { line, reason } of summary.bad) context.print(`line ${line}: ${reason}`);
          if (summary.badNotListed > 0) context.print(`and ${summary.badNotListed} bad lines more`);
          context.print(
            `${summary.lines} lines: ${summary.added} cards added, ${summary.changed} changed, ` +
              `${summary.unchanged} as they were, ${summary.keptRestriction} kept a stricter status, ${badLines} bad`,
          );
        }
        return badLines === 0 ? exitCode.good : exitCode.failed;
      }),
    );
}
