/**
 * Durable approved authorizations per second over TCP: real processes, real brokers, 100,000 cards. One node alone,
 * and the cluster of nodes.yaml's shape. The load generator runs in this process and takes its share of the machine.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { realClock, realRandom } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { parseTopology } from '../../base/topology.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { runLoad } from '../../cli/acquirer/load.ts';
import { parseMix } from '../../cli/acquirer/load-mix.ts';
import { targetsOf } from '../../cli/acquirer/usage.ts';
import { prepareCluster } from '../../cli/cluster/first-start.ts';
import { startCluster } from '../../cli/cluster/supervisor.ts';
import { cardLine, configurationText, topologyText } from './place.ts';

export interface AuthorizeBench {
  readonly nodes: number;
  readonly cards: number;
  readonly connections: number;
  readonly inFlight: number;
  /** Approved requests per second: median, least and most of the runs. */
  readonly approvedPerSecond: number;
  readonly least: number;
  readonly most: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

export interface AuthorizeOptions {
  readonly nodes: number;
  readonly runs: number;
  readonly secondsPerRun: number;
  readonly inFlight: number;
  readonly print: (line: string) => void;
}

const cardCount = 100_000;
const connections = 50;

/** Measures one cluster size. Starts it in a folder of its own and removes it afterwards. */
export async function benchAuthorize(options: AuthorizeOptions): Promise<AuthorizeBench> {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  const topologyFile = join(folder, 'nodes.yaml');
  const cardFile = join(folder, 'cards.csv');
  const configurationFile = join(folder, 'configuration.yaml');
  const text = topologyText(options.nodes);
  const topology = parseTopology(text, topologyFile);
  writeFileSync(topologyFile, text);
  writeFileSync(configurationFile, configurationText(topology));
  writeFileSync(cardFile, cardText(options.nodes));
  const dataFolder = join(folder, 'data');
  const cluster = await startCluster({ topology, configFile: topologyFile, dataFolder, print: () => undefined });
  try {
    options.print(`${options.nodes} node(s): importing ${cardCount} cards ...`);
    const samples = { configuration: configurationFile, cards: cardFile };
    await prepareCluster({ topology, configFile: topologyFile, dataFolder, print: () => undefined, samples });
    const cards = await readAcquirerCards(cardFile);
    const runs: { rate: number; p50: number; p99: number }[] = [];
    for (let run = 0; run <= options.runs; run++) {
      const summary = await runLoad({
        targets: targetsOf(topology, undefined),
        connections,
        cards,
        cardFile,
        mix: parseMix('purchase=1'),
        pace: { kind: 'max', inFlight: options.inFlight },
        durationMs: options.secondsPerRun * 1000,
        seed: realRandom.below(1_000_000_000),
        journalFile: undefined,
        requestTimeoutMs: 10_000,
        giveUpMs: 20_000,
        reverseUnanswered: false,
        clock: realClock,
      });
      const rate = summary.approved / (summary.durationMs / 1000);
      // The first run warms up: compilers, caches, files.
      if (run > 0) runs.push({ rate, p50: summary.latencyMs.p50, p99: summary.latencyMs.p99 });
      options.print(
        `${options.nodes} node(s), ${run === 0 ? 'warm-up' : `run ${run}`}: ${Math.round(rate)} approved/s`,
      );
    }
    const rates = runs.map((run) => run.rate).sort((a, b) => a - b);
    return {
      nodes: options.nodes,
      cards: cardCount,
      connections,
      inFlight: options.inFlight,
      approvedPerSecond: Math.round(medianOf(rates)),
      least: Math.round(rates[0] ?? 0),
      most: Math.round(rates.at(-1) ?? 0),
      p50Ms: medianOf(runs.map((run) => run.p50)),
      p99Ms: medianOf(runs.map((run) => run.p99)),
    };
  } finally {
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

function cardText(nodes: number): string {
  const lines = Array.from({ length: cardCount }, (_, card) => cardLine(card, nodes));
  return `pan,expiry,status,currency,limit\n${lines.join('\n')}\n`;
}
