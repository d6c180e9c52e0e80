import { fileURLToPath } from 'node:url';

import { waitFor } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { realClock, realRandom } from '../../base/real.ts';
import type { Topology } from '../../base/topology.ts';
import { loadConfiguration } from '../commands/config-change.ts';
import { importCardFile } from '../commands/cards-import.ts';
import type { ProcessStatus } from '../node/status.ts';
import { OperatorBus } from '../operator-bus.ts';
import type { ClusterOverview } from './overview.ts';
import { shellWord } from './supervisor.ts';

const sample = (name: string): string => fileURLToPath(new URL(`../../config-db/samples/${name}`, import.meta.url));

/** A card of the samples that works: in group a, active, in US dollars. */
const sampleCard = '9900010000000019';

const readyTimeoutMs = 30_000;

/**
 * What follows the start of the processes: an empty cluster gets the sample configuration and the sample cards; then
 * every node is awaited until it serves every group. `samples` names other files.
 */
export async function prepareCluster(options: {
  readonly topology: Topology;
  readonly configFile: string;
  readonly dataFolder: string;
  readonly print: (line: string) => void;
  readonly samples?: { readonly configuration: string; readonly cards: string | undefined };
}): Promise<ClusterOverview> {
  const { topology, dataFolder, print } = options;
  const samples = options.samples ?? { configuration: sample('configuration.yaml'), cards: sample('cards.csv') };
  const bus = await OperatorBus.connect(topology, dataFolder);
  try {
    const [first] = topology.nodes;
    if (first === undefined) throw new SwitchError('CONFIG_INVALID', 'nodes.yaml has no nodes');
    const before = await statuses(bus, topology);
    if (before.every((status) => status.configurationIndex === 0)) {
      print('Entering the sample configuration and the sample cards ...');
      await loadConfiguration(bus, first.id, { configuration: samples.configuration, rules: undefined });
    }
    await waitUntilReady(bus, topology);
    const world = { clock: realClock, random: realRandom, note: print };
    if (samples.cards !== undefined && (await isWithoutCards(bus, topology))) {
      const summary = await importCardFile(bus, samples.cards, { node: first.id, rate: 0 }, world);
      print(`${summary.added} sample cards are on file.`);
    }
    return overview(await statuses(bus, topology), options);
  } finally {
    await bus.close();
  }
}

async function statuses(bus: OperatorBus, topology: Topology): Promise<ProcessStatus[]> {
  const all = await Promise.all(topology.nodes.map(({ id }) => bus.status(id)));
  return all.filter((status) => status !== undefined);
}

async function waitUntilReady(bus: OperatorBus, topology: Topology): Promise<void> {
  let last: readonly ProcessStatus[] = [];
  await waitFor(
    realClock,
    async () => {
      last = await statuses(bus, topology);
      return last.length === topology.nodes.length && last.every((status) => status.state === 'ready')
        ? true
        : undefined;
    },
    {
      timeoutMs: readyTimeoutMs,
      onTimeout: () => {
        const reasons = last.flatMap((status) => status.reasons.map((reason) => `${status.id}: ${reason}`));
        const missing = topology.nodes.filter(({ id }) => !last.some((status) => status.id === id));
        for (const { id } of missing) reasons.push(`${id}: does not answer`);
        return new SwitchError('NODE_UNREACHABLE', `the cluster is not ready: ${reasons.join('; ')}`);
      },
    },
  );
}

/** Only `no-op`s and nothing else in any group with cards. */
async function isWithoutCards(bus: OperatorBus, topology: Topology): Promise<boolean> {
  const all = await statuses(bus, topology);
  return all.every((status) => status.groups.every((group) => group.name === 'config' || group.applied <= group.term));
}

function overview(
  all: readonly ProcessStatus[],
  cluster: { readonly topology: Topology; readonly configFile: string; readonly dataFolder: string },
): ClusterOverview {
  const { topology } = cluster;
  const flags = clusterFlags(cluster);
  const other = topology.nodes.at(1)?.id ?? topology.nodes[0]?.id ?? '';
  return {
    nodes: topology.nodes.map((node) => ({
      id: node.id,
      site: node.site,
      acquirer: `${node.acquirer.host}:${node.acquirer.port}`,
      owns: (all.find((status) => status.id === node.id)?.groups ?? [])
        .filter((group) => group.role === 'leader' && group.name !== 'config')
        .map((group) => `group ${group.name}`),
    })),
    tryIt: [
      `npx quadrant send --to ${other} --pan ${sampleCard} --amount 1250 --currency 840${flags}`,
      `npx quadrant load --rate 200 --duration 10s${flags}`,
      `npx quadrant compare${flags}`,
      `npx quadrant status${flags}`,
    ],
  };
}

/** What a second terminal has to be told to find this cluster: nothing, for the usual one. */
function clusterFlags({
  configFile,
  dataFolder,
}: {
  readonly configFile: string;
  readonly dataFolder: string;
}): string {
  const config = configFile === 'nodes.yaml' ? '' : ` --config ${shellWord(configFile)}`;
  const data = dataFolder === 'data' ? '' : ` --data ${shellWord(dataFolder)}`;
  return config + data;
}
