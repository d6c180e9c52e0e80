import { createReadStream } from 'node:fs';

import type { Command } from 'commander';

import { SwitchError } from '../../base/errors.ts';
import { maximumAmount } from '../../base/money.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { readCardFile, type CardFileCard } from '../../config-db/card-file.ts';
import { cardStatuses, isCardStatus } from '../../config-db/cards.ts';
import { systemErrorCode, UsageError } from '../acquirer/usage.ts';
import { exitCode, operatorName, reachableNode, type CommandContext } from '../context.ts';
import { maximumCardsPerCall } from '../node/operations.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { readCardNumber } from './asking.ts';

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

async function* readFile(file: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(file)) yield chunk as Buffer;
  } catch (error) {
    if (error instanceof SwitchError) throw error;
    throw new UsageError(`cannot read ${file}: ${systemErrorCode(error)}`);
  }
}

export function registerCards(program: Command, run: RunCommand): void {
  const cards = program.command('cards').description('cards on file');
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
  cards
    .command('set')
    .argument('[pan]', 'card number; - or nothing reads standard input')
    .description('changes status or limit of one card; lifts restrictions too')
    .option('--status <status>', cardStatuses.join(', '))
    .option('--limit <minor>', 'limit in minor units of the card’s currency')
    .option('--node <id>', 'where to enter it (default: the first node that answers)')
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: { status?: string; limit?: string; node?: string; json?: boolean }) =>
      run(async (context) => {
        const { status, limit } = options;
        if (status === undefined && limit === undefined) throw new UsageError('say what to set: --status or --limit');
        if (status !== undefined && !isCardStatus(status)) {
          throw new UsageError(`--status: "${status}" is none of ${cardStatuses.join(', ')}`);
        }
        if (limit !== undefined && !(/^[0-9]{1,12}$/.test(limit) && BigInt(limit) <= maximumAmount)) {
          throw new UsageError('--limit takes whole minor units, at most 12 digits');
        }
        const number = await readCardNumber(context, pan);
        const changed = await context.withCluster(async (bus) => {
          const node = await reachableNode(bus, options.node);
          return (await bus.call(node, 'cards.set', { by: operatorName(), pan: number, status, limit })) as boolean;
        });
        if (options.json === true) context.printJson({ changed });
        else context.print(changed ? 'Changed.' : 'Nothing to change: the card is so already.');
        return exitCode.good;
      }),
    );
}
