/**
 * Durable approved authorizations per second over TCP: real processes, real brokers, 100,000 cards. One node alone,
 * and the cluster of nodes.yaml's shape. The load generator runs in this process and takes its share of the machine.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { medianOf } from '../../base/statistics.ts';
import { BenchCluster } from './cluster.ts';
import { cardLine } from './place.ts';

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
  const cluster = BenchCluster.ofNodes(options.nodes);
  const cardFile = join(cluster.folder, 'cards.csv');
  writeFileSync(cardFile, cardText(options.nodes));
  try {
    options.print(`${options.nodes} node(s): importing ${cardCount} cards ...`);
    await cluster.start(cardFile);
    const runs: { rate: number; p50: number; p99: number }[] = [];
    for (let run = 0; run <= options.runs; run++) {
      const summary = await cluster.load(cardFile, {
        connections,
        pace: { kind: 'max', inFlight: options.inFlight },
        durationMs: options.secondsPerRun * 1000,
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
    await cluster.remove();
  }
}

function cardText(nodes: number): string {
  const lines = Array.from({ length: cardCount }, (_, card) => cardLine(card, nodes));
  return `pan,expiry,status,currency,limit\n${lines.join('\n')}\n`;
}
