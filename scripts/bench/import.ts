/**
 * A card file at scale: how long until its cards are on all four nodes, how long a cluster takes to start with them, how much
 * memory a node has, and what authorizations feel of an import with the usual limit. Real processes, brokers, disks; the
 * baselines are measured in the same run.
 */
import { createWriteStream, readFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';

import Database from 'better-sqlite3';

import { waitFor } from '../../base/clock.ts';
import type { CardId } from '../../base/identifiers.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { importCardFile } from '../../cli/commands/cards-import.ts';
import { OperatorBus } from '../../cli/operator-bus.ts';
import type { CardRow } from '../../store/cards.ts';
import { cardsSchema, cardTable } from '../../store/cards-sqlite.ts';
import { prepareWrite } from '../../store/table-shape.ts';
import { BenchCluster } from './cluster.ts';
import { cardLine } from './place.ts';

export interface ImportBench {
  readonly cards: number;
  readonly importSeconds: number;
  readonly cardsPerSecond: number;
  /** One process, one file, nothing but the rows of the same cards, in transactions of as many. */
  readonly barePerSecond: number;
  readonly ratio: number;
  readonly startSeconds: number;
  readonly emptyStartSeconds: number;
  readonly emptyMegabytes: readonly number[];
  /** Resident, of each node: after the import, after the start with the cards, after all rounds of load. */
  readonly importedMegabytes: readonly number[];
  readonly startedMegabytes: readonly number[];
  readonly loadedMegabytes: readonly number[];
  readonly authorizationsPerSecond: number;
  readonly rounds: number;
  readonly p99Ms: number;
  readonly importingP99Ms: number;
  readonly p99Ratio: number;
}

const nodes = 4;
const authorizationsPerSecond = 200;
const rounds = 3;
const roundSeconds = 15;
const importRate = 2_000;
const header = 'pan,expiry,status,currency,limit';
const bareCard: Omit<CardRow, 'cardId' | 'panHash' | 'panCipher'> = {
  panKeyVersion: 1,
  expiry: '4012',
  status: 'active',
  currency: '840',
  limit: 1n,
  held: 0n,
  posted: 0n,
  usageDate: '',
  usageCount: 0,
  usageAmount: 0n,
  changedAt: 1,
  number: 1,
  version: 1,
  change: 'added',
  enteredAt: 1,
  enteredBy: 'bench',
  origin: 'n1',
  deletedAt: 0,
};

export async function benchImport(options: {
  readonly cards: number;
  readonly print: (line: string) => void;
}): Promise<ImportBench> {
  const { cards, print } = options;
  const cluster = BenchCluster.ofNodes(nodes);
  const { folder } = cluster;
  try {
    await cluster.start();
    await cluster.stop();
    const emptyStartSeconds = await cluster.start();
    const emptyMegabytes = residentOf(cluster);
    print(`starts empty in ${emptyStartSeconds.toFixed(1)} s; importing ${cards} cards ...`);

    const cardFile = join(folder, 'cards.csv');
    await writeCards(cardFile, 0, cards);
    const importSeconds = await importEverywhere(cluster, cardFile, print);
    const importedMegabytes = residentOf(cluster);
    print(`imported in ${importSeconds.toFixed(1)} s; nodes have ${importedMegabytes.join(', ')} MB`);
    const barePerSecond = Math.round(cards / bareInserts(join(folder, 'bare.db'), cards));

    await cluster.stop();
    const startSeconds = await cluster.start();
    const startedMegabytes = residentOf(cluster);
    print(`starts with them in ${startSeconds.toFixed(1)} s; nodes have ${startedMegabytes.join(', ')} MB`);
    const boughtFile = join(folder, 'bought.csv');
    await writeCards(boughtFile, 0, Math.min(cards, 20_000));
    const authorize = async (): Promise<number> => {
      const pace = { kind: 'rate', perSecond: authorizationsPerSecond } as const;
      const summary = await cluster.load(boughtFile, { connections: 8, pace, durationMs: roundSeconds * 1000 });
      return summary.latencyMs.p99;
    };
    const quiet: number[] = [];
    const importing: number[] = [];
    // The first round warms up: compilers, caches, files.
    for (let round = 0; round <= rounds; round++) {
      const file = join(folder, `more-${round}.csv`);
      await writeCards(file, cards + round * importRate * roundSeconds, importRate * roundSeconds);
      const without = await authorize();
      const [during] = await Promise.all([authorize(), importEverywhere(cluster, file, () => undefined, importRate)]);
      print(
        `${round === 0 ? 'warm-up' : `round ${round}`}: p99 ${without.toFixed(1)} ms, importing ${during.toFixed(1)} ms`,
      );
      if (round === 0) continue;
      quiet.push(without);
      importing.push(during);
    }
    const p99Ms = medianOf(quiet);
    const importingP99Ms = medianOf(importing);
    return {
      cards,
      importSeconds,
      cardsPerSecond: Math.round(cards / importSeconds),
      barePerSecond,
      ratio: cards / importSeconds / barePerSecond,
      startSeconds,
      emptyStartSeconds,
      emptyMegabytes,
      importedMegabytes,
      startedMegabytes,
      loadedMegabytes: residentOf(cluster),
      authorizationsPerSecond,
      rounds,
      p99Ms,
      importingP99Ms,
      p99Ratio: importingP99Ms / p99Ms,
    };
  } finally {
    await cluster.remove();
  }
}

async function writeCards(path: string, from: number, count: number): Promise<void> {
  const stream = createWriteStream(path);
  stream.write(`${header}\n`);
  for (let at = 0; at < count; at += 1000) {
    const lines = Array.from({ length: Math.min(1000, count - at) }, (_, line) => cardLine(from + at + line, nodes));
    if (!stream.write(`${lines.join('\n')}\n`)) await once(stream, 'drain');
  }
  stream.end();
  await once(stream, 'finish');
}

/** Seconds until the cards are applied on every node. */
async function importEverywhere(
  { topology, dataFolder }: BenchCluster,
  file: string,
  note: (line: string) => void,
  rate = 0,
): Promise<number> {
  const bus = await OperatorBus.connect(topology, dataFolder);
  const beginMs = realClock.monotonicMs();
  let shown = 0;
  const noteSome = (line: string): void => {
    if (shown++ % 15 === 14) note(line);
  };
  try {
    const { added } = await importCardFile(
      bus,
      file,
      { rate },
      { clock: realClock, random: realRandom, note: noteSome },
    );
    if (added === 0) throw new Error(`no card of ${file} was added`);
    const isEverywhere = async (): Promise<true | undefined> => {
      const all = await Promise.all(topology.nodes.map(({ id }) => bus.status(id)));
      const last = (name: string): number =>
        Math.max(...all.map((status) => status?.groups.find((group) => group.name === name)?.commit ?? 0));
      const isThere = all.every(
        (status) => status?.groups.every((group) => group.applied >= last(group.name)) === true,
      );
      return isThere ? true : undefined;
    };
    await waitFor(realClock, isEverywhere, {
      timeoutMs: 120_000,
      onTimeout: () => new Error('not applied everywhere'),
    });
    return (realClock.monotonicMs() - beginMs) / 1000;
  } finally {
    await bus.close();
  }
}

/** Seconds for the rows of the same cards in one synced file. */
function bareInserts(path: string, cards: number): number {
  const database = new Database(path);
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.exec(cardsSchema);
  const insert = prepareWrite(database, cardTable.insert());
  const transaction = database.transaction((from: number) => {
    for (let card = from; card < Math.min(from + 250, cards); card++) {
      insert({
        ...bareCard,
        cardId: `g.1.1.${card}` as CardId,
        panHash: realRandom.bytes(32).toString('hex'),
        panCipher: realRandom.bytes(44).toString('base64'),
      });
    }
  });
  const beginMs = realClock.monotonicMs();
  for (let from = 0; from < cards; from += 250) transaction(from);
  const seconds = (realClock.monotonicMs() - beginMs) / 1000;
  database.close();
  return seconds;
}

function residentOf({ topology, processes }: BenchCluster): number[] {
  return topology.nodes.map(({ id }) => {
    const pid = processes.get(id);
    const text = pid === undefined ? '' : readFileSync(`/proc/${pid}/status`, 'utf8');
    return Math.round(Number(/^VmRSS:\s+([0-9]+) kB$/m.exec(text)?.[1] ?? 0) / 1024);
  });
}
