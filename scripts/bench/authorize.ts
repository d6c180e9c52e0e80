/**
 * Durable approved authorizations per second over TCP: real processes, real brokers, 100,000 cards. One node alone,
 * and the cluster of nodes.yaml's shape. The load generator runs in this process and takes its share of the machine.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { realClock, realRandom } from '../../base/real.ts';
import { seededRandom } from '../../base/random.ts';
import { medianOf } from '../../base/statistics.ts';
import { parseTopology, type Topology } from '../../base/topology.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { runLoad } from '../../cli/acquirer/load.ts';
import { parseMix } from '../../cli/acquirer/load-mix.ts';
import { targetsOf } from '../../cli/acquirer/usage.ts';
import { prepareCluster } from '../../cli/cluster/first-start.ts';
import { startCluster } from '../../cli/cluster/supervisor.ts';

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
const firstPort = 18_000;

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

/** One node, one broker; or the four nodes, three brokers and the witness of the sample. */
function topologyText(nodes: number): string {
  const sites = nodes === 1 ? ['east'] : ['east', 'west', 'north'];
  const lines = [
    `cluster: bench-${nodes}`,
    'sites:',
    ...sites.map((site) => `  - { id: ${site}, description: ${site} }`),
  ];
  lines.push('nodes:');
  for (let node = 0; node < nodes; node++) {
    const site = sites[Math.floor((node * 2) / nodes)] ?? 'east';
    lines.push(
      `  - { id: n${node + 1}, site: ${nodes === 1 ? 'east' : site}, acquirer: { port: ${firstPort + node} } }`,
    );
  }
  if (nodes > 1) lines.push('witness: { id: w1, site: north }');
  lines.push('brokers:');
  sites.forEach((site, at) => {
    lines.push(
      `  - { id: b-${site}, site: ${site}, client: { port: ${firstPort + 100 + at} }, cluster: { port: ${firstPort + 200 + at} } }`,
    );
  });
  return `${lines.join('\n')}\n`;
}

/** A range for each node's group, all `quorum`. */
function configurationText(topology: Topology): string {
  const ids = topology.nodes.map((node) => node.id);
  const lines = ['failover_map:'];
  ids.forEach((_id, at) => {
    lines.push(`  - { group_id: g${at}, failover_order: ${[...ids.slice(at), ...ids.slice(0, at)].join('>')} }`);
  });
  lines.push('pan_range:');
  const range = (prefix: string, group: number): string =>
    `  - { prefix: '${prefix}', group_id: g${group}, description: bench, issuer: bench, durability: quorum, hold_days: 7 }`;
  ids.forEach((_id, at) => lines.push(range(`99001${at}`, at)));
  lines.push(range('', 0), 'acquirer_link:');
  lines.push("  - { link_id: acquirer, acquiring_institutions: '*', partial_approval: false, deadline_ms: 10000 }");
  return `${lines.join('\n')}\n`;
}

function cardText(nodes: number): string {
  const random = seededRandom(1);
  const lines = ['pan,expiry,status,currency,limit'];
  for (let card = 0; card < cardCount; card++) {
    const digits = `99001${card % nodes}${String(card).padStart(6, '0')}${String(random.below(1000)).padStart(3, '0')}`;
    lines.push(`${digits}${checkDigit(digits)},4012,active,840,900000000000`);
  }
  return `${lines.join('\n')}\n`;
}

function checkDigit(digits: string): number {
  let sum = 0;
  for (let position = 0; position < digits.length; position++) {
    const digit = Number(digits.charAt(digits.length - 1 - position)) * (position % 2 === 0 ? 2 : 1);
    sum += digit > 9 ? digit - 9 : digit;
  }
  return (10 - (sum % 10)) % 10;
}
