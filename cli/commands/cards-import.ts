import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { statSync } from 'node:fs';

import type { Command } from 'commander';

import { delay, type Clock } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { readCardFile, type CardFileCard, type CardFileLine } from '../../config-db/card-file.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, nodeOf, operatorName, type CommandContext } from '../context.ts';
import { maximumCardsPerCall, type ImportedLine } from '../node/card-calls.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { ImportResults } from './import-results.ts';
import { readFile } from './reading.ts';

export interface ImportSummary {
  readonly lines: number;
  readonly added: number;
  readonly changed: number;
  readonly unchanged: number;
  /** An earlier line of the file is for the same card; the last one counts. */
  readonly duplicates: number;
  /** Entered by an earlier try, or by another import of the same file. */
  readonly enteredBefore: number;
  /** The file would have lifted a restriction: the stricter status stays until somebody lifts it. */
  readonly keptRestriction: number;
  readonly bad: readonly { readonly line: number; readonly reason: string }[];
  /** Bad lines beyond those listed. */
  readonly badNotListed: number;
  readonly seconds: number;
  /** Where each line's result is written; '': nowhere. */
  readonly results: string;
}

export interface ImportOptions {
  /** Tried first; the others when it does not answer. */
  readonly node?: NodeId | undefined;
  /** Cards a second at most; 0: as fast as it goes. */
  readonly rate: number;
  /** Where one line for each of the file's is written, by the beginning of its name; absent: nowhere. */
  readonly results?: (name: string) => string;
  /** Enters lines that have been entered before. */
  readonly again?: boolean;
}

/** What is asked of an importer's surroundings. */
type World = Pick<CommandContext, 'clock' | 'note' | 'random'>;

const listedBadLines = 1000;
const progressMs = 1000;
/** Calls a second while the rate is limited: a steady trickle rather than bursts. */
const callsPerSecond = 10;
/** How long nodes and owners may be away before the import gives up; the same command goes on from there. */
const patienceMs = 60_000;
const retryMs = 500;

/**
 * Imports an issuer's card file: streamed, some lines at a time and in their order, each call awaited until all of it has
 * committed. The folds keep how far the file, named by its content, has been entered: lines that come again have no
 * second effect, whoever brings them. So it goes on at another node when one does not answer, it may be begun again
 * anywhere, and it may run twice at once. Bad lines are reported and passed over. Throws when the file cannot be read, or
 * lines cannot be entered for a minute; what was entered until then stays.
 */
export async function importCardFile(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  path: string,
  options: ImportOptions,
  world: World,
): Promise<ImportSummary> {
  const { clock, note } = world;
  const startedMs = clock.monotonicMs();
  const file = await nameOf(path, options.again === true, world);
  const importer = new Importer(bus, file, options.node, world);
  const resultsFile = options.results?.(file.slice(0, 12));
  const results = resultsFile === undefined ? undefined : new ImportResults(resultsFile, basename(path), file);
  const known = results?.through ?? 0;
  const counts = { added: 0, changed: 0, unchanged: 0, duplicates: 0, enteredBefore: 0, keptRestriction: 0 };
  const bad: { line: number; reason: string }[] = [];
  let badNotListed = 0;
  let lines = 0;
  let bytes = 0;
  let shownMs = startedMs;
  const refuse = (line: number, card: string, reason: string): void => {
    if (bad.length < listedBadLines) bad.push({ line, reason });
    else badNotListed += 1;
    if (line > known) results?.add(line, card, 'bad', reason);
  };
  const take = (line: number, card: string, { result, reason }: ImportedLine): void => {
    const text = refusals[result] ?? (result === 'failed' ? reason : undefined);
    if (text !== undefined) {
      refuse(line, card, text);
      return;
    }
    counts[countedAs[result as keyof typeof countedAs]] += 1;
    results?.add(line, card, result, reason ?? '');
  };
  // What the results have is committed; where they are lost, what this file's entries say counts, to whole calls.
  const through = Math.max(known, wholeCalls(await importer.through()));
  if (through > 0) note(`goes on after line ${through}, which has been entered before`);
  const pace = new Pace(clock, options.rate);
  // Lines that are bad wait with the others: results stand in the order of the file.
  let batch: CardFileLine[] = [];
  let cards = 0;
  const enter = async (): Promise<void> => {
    const asked = batch.filter((each) => each.kind === 'card');
    if (asked.length > 0) await pace.wait(asked.length);
    const entered = asked.length > 0 ? await importer.enter(asked) : [];
    let at = 0;
    for (const each of batch) {
      if (each.kind === 'bad') refuse(each.line, '', each.reason);
      else take(each.line, each.card.pan.masked(), entered[at++] ?? { result: 'failed', reason: 'no result' });
    }
    results?.flush();
    batch = [];
    cards = 0;
  };
  try {
    for await (const each of readCardFile(counted(readFile(path), (size) => (bytes += size)))) {
      lines += 1;
      if (each.line > through) {
        batch.push(each);
        if (each.kind === 'card') cards += 1;
        // A call ends with its block of lines: whoever goes on begins with a whole one.
        const isFull = cards >= pace.callSize || batch.length >= maximumCardsPerCall;
        if (isFull || each.line % maximumCardsPerCall === 0) await enter();
      } else if (each.kind === 'bad') {
        refuse(each.line, '', each.reason);
      } else {
        counts.enteredBefore += 1;
        if (each.line > known) results?.add(each.line, each.card.pan.masked(), 'entered-before', '');
      }
      const nowMs = clock.monotonicMs();
      if (nowMs - shownMs < progressMs) continue;
      shownMs = nowMs;
      const rate = Math.round((lines - counts.enteredBefore) / ((nowMs - startedMs) / 1000));
      note(`${percentOf(bytes, path)} %, ${lines} lines read, ${counts.added} cards added, ${rate} lines/s`);
    }
    await enter();
  } finally {
    results?.close();
  }
  const seconds = (clock.monotonicMs() - startedMs) / 1000;
  return { lines, ...counts, bad, badNotListed, seconds, results: resultsFile ?? '' };
}

const countedAs = {
  added: 'added',
  changed: 'changed',
  unchanged: 'unchanged',
  duplicate: 'duplicates',
  'entered-before': 'enteredBefore',
  'kept-restriction': 'keptRestriction',
} as const;

const refusals: Readonly<Record<string, string | undefined>> = {
  'other-currency': 'the card is on file in another currency',
  replaced: 'the number was replaced by another',
};

/** Calls cover whole blocks of lines, so the last one before this line is complete. */
function wholeCalls(through: number): number {
  return Math.floor(Math.max(0, through - 1) / maximumCardsPerCall) * maximumCardsPerCall;
}

async function* counted(chunks: AsyncIterable<Buffer>, onBytes: (size: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    onBytes(chunk.length);
    yield chunk;
  }
}

function percentOf(bytes: number, path: string): string {
  const size = statSync(path).size;
  return size === 0 ? '100' : String(Math.min(100, Math.floor((bytes / size) * 100)));
}

/** By its content, so that nobody takes another file of this name for it. */
async function nameOf(path: string, again: boolean, { clock, note, random }: World): Promise<string> {
  const hash = createHash('sha256');
  let bytes = 0;
  let shownMs = clock.monotonicMs();
  for await (const chunk of readFile(path)) {
    hash.update(chunk);
    bytes += chunk.length;
    if (clock.monotonicMs() - shownMs < progressMs) continue;
    shownMs = clock.monotonicMs();
    note(`reads the file once before it begins: ${percentOf(bytes, path)} %`);
  }
  if (again) hash.update(`again ${random.bytes(16).toString('hex')}`);
  return hash.digest('hex');
}

/** At most so many cards a second, in even portions. */
class Pace {
  readonly callSize: number;
  readonly #clock: Clock;
  readonly #rate: number;
  #nextMs: number;

  constructor(clock: Clock, rate: number) {
    this.#clock = clock;
    this.#rate = rate;
    this.#nextMs = clock.monotonicMs();
    this.callSize =
      rate === 0 ? maximumCardsPerCall : Math.min(maximumCardsPerCall, Math.max(1, Math.round(rate / callsPerSecond)));
  }

  async wait(cards: number): Promise<void> {
    if (this.#rate === 0) return;
    const nowMs = this.#clock.monotonicMs();
    if (this.#nextMs > nowMs) await delay(this.#clock, this.#nextMs - nowMs);
    // What was lost is not made up for: that would be a burst.
    this.#nextMs = Math.max(this.#nextMs, nowMs) + (cards / this.#rate) * 1000;
  }
}

/** Calls one node, and another when that does not answer. */
class Importer {
  readonly #bus: Pick<OperatorBus, 'call'>;
  readonly #file: string;
  readonly #nodes: readonly NodeId[];
  readonly #world: World;
  #at = 0;

  constructor(bus: Pick<OperatorBus, 'call' | 'topology'>, file: string, first: NodeId | undefined, world: World) {
    this.#bus = bus;
    this.#file = file;
    const ids = bus.topology.nodes.map(({ id }) => id);
    this.#nodes = first === undefined ? ids : [first, ...ids.filter((id) => id !== first)];
    this.#world = world;
  }

  async through(): Promise<number> {
    const { through } = (await this.#call('cards.imported', { file: this.#file })) as { through: number };
    return through;
  }

  async enter(batch: readonly { readonly line: number; readonly card: CardFileCard }[]): Promise<ImportedLine[]> {
    const cards = batch.map(({ line, card: { pan, expiry, status, currency, limitMinor } }) => ({
      ...{ line, pan: pan.reveal(), expiry, status, currency },
      limit: limitMinor.toString(),
    }));
    return (await this.#call('cards.import', { by: operatorName(), file: this.#file, cards })) as ImportedLine[];
  }

  async #call(method: string, parameters: unknown): Promise<unknown> {
    const { clock, note } = this.#world;
    const untilMs = clock.monotonicMs() + patienceMs;
    for (let tries = 0; ; tries++) {
      const node = this.#nodes[this.#at % this.#nodes.length];
      try {
        if (node === undefined) throw new SwitchError('NODE_UNREACHABLE', 'nodes.yaml has no node');
        return await this.#bus.call(node, method, parameters, 15_000);
      } catch (error) {
        if (!(error instanceof SwitchError) || !error.retryable || clock.monotonicMs() >= untilMs) throw error;
        if (error.code === 'NODE_UNREACHABLE') this.#at += 1;
        if (tries === 0) note(`tries again: ${describeError(error)}`);
        await delay(clock, retryMs);
      }
    }
  }
}

const defaultRate = 2_000;

interface ImportFlags {
  readonly node?: string;
  readonly rate: string;
  readonly results?: string;
  readonly again?: boolean;
  readonly json?: boolean;
}

export function registerCardImport(cards: Command, run: RunCommand): void {
  cards
    .command('import')
    .argument('<file>', 'CSV with the columns pan,expiry,status,currency,limit (expiry YYMM, limit in minor units)')
    .description("enters an issuer's card file; every node has the cards afterwards")
    .option(
      '--rate <cards>',
      'cards a second at most; 0: as fast as it goes, which authorizations feel',
      String(defaultRate),
    )
    .option(
      '--results <file>',
      'one line for each line of the file, card numbers masked (default: FILE.<name of the import>.results.csv)',
    )
    .option('--again', 'enters lines that were entered before, over what was changed since')
    .option('--node <id>', 'where to begin (default: the first node; the others when it does not answer)')
    .option('--json', 'as JSON')
    .addHelpText('after', importHelp)
    .action((file: string, options: ImportFlags) =>
      run(async (context) => {
        if (!/^[0-9]{1,6}$/.test(options.rate))
          throw new UsageError('--rate takes whole cards a second, 0 for no limit');
        const node = options.node === undefined ? undefined : nodeOf(context.topology(), options.node);
        const results = (name: string): string => options.results ?? `${file}.${name}.results.csv`;
        const again = options.again === true;
        const importing = { node, rate: Number(options.rate), results, again };
        const summary = await context.withCluster((bus) => importCardFile(bus, file, importing, context));
        const badLines = summary.bad.length + summary.badNotListed;
        if (options.json === true) context.printJson(summary);
        else showSummary(context, summary);
        return badLines === 0 ? exitCode.good : exitCode.failed;
      }),
    );
}

function showSummary(context: CommandContext, summary: ImportSummary): void {
  const { results, lines, added, changed, unchanged, duplicates, enteredBefore, keptRestriction, bad, badNotListed } =
    summary;
  for (const { line, reason } of bad) context.print(`line ${line}: ${reason}`);
  if (badNotListed > 0) context.print(`and ${badNotListed} bad lines more`);
  const more = [
    ...(duplicates === 0 ? [] : [`${duplicates} twice in the file`]),
    ...(enteredBefore === 0 ? [] : [`${enteredBefore} entered before`]),
  ];
  context.print(
    `${lines} lines: ${added} cards added, ${changed} changed, ${unchanged} as they were, ` +
      `${keptRestriction} kept a stricter status, ${[...more, `${bad.length + badNotListed} bad`].join(', ')}`,
  );
  context.note(`${results} has a line for each`);
}

const importHelp = `
A line is entered once, whatever happens: what was broken off goes on when the same command is given again, at any node,
and the same file at two nodes at once has one effect. A card that is in the file twice is as its last line says. A file
never lifts a restriction.
`;
