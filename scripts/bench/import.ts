/**
 * A card file at scale: how long until its cards are on all four nodes, how long a cluster takes to start with them, how much
 * memory a node has, and what authorizations feel of an import with the usual limit. Real processes, brokers, disks; the
 * baselines are measured in the same run.
 */
import { createWriteStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import Database from 'better-sqlite3';

import { waitFor } from '../../base/clock.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { parseTopology, type Topology } from '../../base/topology.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { runLoad } from '../../cli/acquirer/load.ts';
import { parseMix } from '../../cli/acquirer/load-mix.ts';
import { targetsOf } from '../../cli/acquirer/usage.ts';
import { prepareCluster } from '../../cli/cluster/first-start.ts';
import { startCluster, type RunningCluster } from '../../cli/cluster/supervisor.ts';
import { importCardFile } from '../../cli/commands/cards-import.ts';
import { OperatorBus } from '../../cli/operator-bus.ts';
import { cardsSchema } from '../../store/cards-sqlite.ts';
import { cardLine, configurationText, topologyText } from './place.ts';

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
  readonly residentMegabytes: readonly number[];
  readonly restartedMegabytes: readonly number[];
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

export async function benchImport(options: {
  readonly cards: number;
  readonly print: (line: string) => void;
}): Promise<ImportBench> {
  const { cards, print } = options;
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  const configFile = join(folder, 'nodes.yaml');
  const topology = parseTopology(topologyText(nodes), configFile);
  writeFileSync(configFile, topologyText(nodes));
  const configuration = join(folder, 'configuration.yaml');
  writeFileSync(configuration, configurationText(topology));
  const place = { topology, configFile, dataFolder: join(folder, 'data'), print: () => undefined };
  let cluster: RunningCluster | undefined;
  const start = async (): Promise<number> => {
    const beginMs = realClock.monotonicMs();
    cluster = await startCluster(place);
    await prepareCluster({ ...place, samples: { configuration, cards: undefined } });
    return (realClock.monotonicMs() - beginMs) / 1000;
  };
  try {
    await start();
    await cluster?.stop();
    const emptyStartSeconds = await start();
    const emptyMegabytes = residentOf(cluster, topology);
    print(`starts empty in ${emptyStartSeconds.toFixed(1)} s; importing ${cards} cards ...`);

    const cardFile = join(folder, 'cards.csv');
    await writeCards(cardFile, 0, cards);
    const importSeconds = await importEverywhere(topology, place.dataFolder, cardFile, print);
    const residentMegabytes = residentOf(cluster, topology);
    print(`imported in ${importSeconds.toFixed(1)} s; nodes have ${residentMegabytes.join(', ')} MB`);
    const barePerSecond = Math.round(cards / bareInserts(join(folder, 'bare.db'), cards));

    await cluster?.stop();
    const startSeconds = await start();
    print(`starts with them in ${startSeconds.toFixed(1)} s`);
    const boughtFile = join(folder, 'bought.csv');
    await writeCards(boughtFile, 0, Math.min(cards, 20_000));
    const quiet: number[] = [];
    const importing: number[] = [];
    // The first round warms up: compilers, caches, files.
    for (let round = 0; round <= rounds; round++) {
      const file = join(folder, `more-${round}.csv`);
      await writeCards(file, cards + round * importRate * roundSeconds, importRate * roundSeconds);
      const without = await authorize(topology, boughtFile);
      const [during] = await Promise.all([
        authorize(topology, boughtFile),
        importEverywhere(topology, place.dataFolder, file, () => undefined, importRate),
      ]);
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
      residentMegabytes,
      restartedMegabytes: residentOf(cluster, topology),
      authorizationsPerSecond,
      rounds,
      p99Ms,
      importingP99Ms,
      p99Ratio: importingP99Ms / p99Ms,
    };
  } finally {
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
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
  topology: Topology,
  dataFolder: string,
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

/** p99 in milliseconds. */
async function authorize(topology: Topology, cardFile: string): Promise<number> {
  const cards = await readAcquirerCards(cardFile);
  const summary = await runLoad({
    targets: targetsOf(topology, undefined),
    connections: 8,
    cards,
    cardFile,
    mix: parseMix('purchase=1'),
    pace: { kind: 'rate', perSecond: authorizationsPerSecond },
    durationMs: roundSeconds * 1000,
    seed: realRandom.below(1_000_000_000),
    journalFile: undefined,
    requestTimeoutMs: 10_000,
    giveUpMs: 20_000,
    reverseUnanswered: false,
    clock: realClock,
  });
  return summary.latencyMs.p99;
}

/** Seconds for the rows of the same cards in one synced file. */
function bareInserts(path: string, cards: number): number {
  const database = new Database(path);
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.exec(cardsSchema);
  const insert = database.prepare(`INSERT INTO card VALUES (${Array.from({ length: 21 }, () => '?').join(', ')})`);
  const transaction = database.transaction((from: number) => {
    for (let card = from; card < Math.min(from + 250, cards); card++) {
      const hash = realRandom.bytes(32).toString('hex');
      const cipher = realRandom.bytes(44).toString('base64');
      insert.run(
        `g.1.1.${card}`,
        hash,
        1,
        cipher,
        '4012',
        'active',
        '840',
        1,
        0,
        0,
        '',
        0,
        0,
        1,
        1,
        1,
        'x',
        1,
        'x',
        'n1',
        0,
      );
    }
  });
  const beginMs = realClock.monotonicMs();
  for (let from = 0; from < cards; from += 250) transaction(from);
  const seconds = (realClock.monotonicMs() - beginMs) / 1000;
  database.close();
  return seconds;
}

function residentOf(cluster: RunningCluster | undefined, topology: Topology): number[] {
  return topology.nodes.map(({ id }) => {
    const pid = cluster?.processes.get(id);
    const text = pid === undefined ? '' : readFileSync(`/proc/${pid}/status`, 'utf8');
    return Math.round(Number(/^VmRSS:\s+([0-9]+) kB$/m.exec(text)?.[1] ?? 0) / 1024);
  });
}
