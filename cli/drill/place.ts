import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { SwitchError } from '../../base/errors.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { loadTopology } from '../../base/topology.ts';
import type { Endpoint, Topology } from '../../base/topology.ts';
import { checkPortsFree } from '../cluster/preflight.ts';

export interface DrillPlace {
  readonly topology: Topology;
  readonly configFile: string;
}

const sampleConfigFile = fileURLToPath(new URL('../../nodes.yaml', import.meta.url));

export function sampleTopology(cluster: string): Topology {
  return { ...loadTopology(sampleConfigFile), cluster };
}

/** The same cluster at other addresses. */
export function relocated(topology: Topology, move: (endpoint: Endpoint, id: string) => Endpoint): Topology {
  return {
    ...topology,
    nodes: topology.nodes.map((node) => ({
      ...node,
      acquirer: move(node.acquirer, node.id),
      ...(node.monitor === undefined ? {} : { monitor: move(node.monitor, node.id) }),
    })),
    witness:
      topology.witness?.monitor === undefined
        ? topology.witness
        : { ...topology.witness, monitor: move(topology.witness.monitor, topology.witness.id) },
    brokers: topology.brokers.map((broker) => ({
      ...broker,
      client: move(broker.client, broker.id),
      cluster: move(broker.cluster, broker.id),
    })),
  };
}

/** The topology as nodes.yaml in `folder`. */
export function writePlace(folder: string, topology: Topology): DrillPlace {
  const configFile = join(folder, 'nodes.yaml');
  // JSON is YAML.
  writeFileSync(configFile, JSON.stringify(topology, undefined, 2));
  return { topology: loadTopology(configFile), configFile };
}

/** The shape of nodes.yaml at ports that are free, so that a drill can run beside a cluster. Written into `folder`. */
export async function placeForDrill(folder: string, cluster: string): Promise<DrillPlace> {
  const sample = sampleTopology(cluster);
  for (let attempt = 1; ; attempt++) {
    const shift = 1_000 + realRandom.below(20_000);
    const topology = relocated(sample, (endpoint) => ({ ...endpoint, port: endpoint.port + shift }));
    try {
      await checkPortsFree(topology, realClock);
      return writePlace(folder, topology);
    } catch (error) {
      if (!(error instanceof SwitchError && error.code === 'PORT_TAKEN') || attempt === 20) throw error;
    }
  }
}
