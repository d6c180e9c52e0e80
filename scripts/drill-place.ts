import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { SwitchError } from '../base/errors.ts';
import { realClock, realRandom } from '../base/real.ts';
import { loadTopology } from '../base/topology.ts';
import type { Endpoint, Topology } from '../base/topology.ts';
import { checkPortsFree } from '../cli/cluster/preflight.ts';

export interface DrillPlace {
  readonly topology: Topology;
  readonly configFile: string;
}

/** The shape of nodes.yaml at ports that are free, so that a drill can run beside a cluster. Written into `folder`. */
export async function placeForDrill(folder: string, cluster: string): Promise<DrillPlace> {
  const sample = loadTopology(fileURLToPath(new URL('../nodes.yaml', import.meta.url)));
  const configFile = join(folder, 'nodes.yaml');
  for (let attempt = 1; ; attempt++) {
    const shift = 1_000 + realRandom.below(40_000);
    const shifted = (endpoint: Endpoint): Endpoint => ({ ...endpoint, port: endpoint.port + shift });
    const topology: Topology = {
      ...sample,
      cluster,
      nodes: sample.nodes.map((node) => ({
        ...node,
        acquirer: shifted(node.acquirer),
        ...(node.monitor === undefined ? {} : { monitor: shifted(node.monitor) }),
      })),
      witness:
        sample.witness?.monitor === undefined
          ? sample.witness
          : { ...sample.witness, monitor: shifted(sample.witness.monitor) },
      brokers: sample.brokers.map((broker) => ({
        ...broker,
        client: shifted(broker.client),
        cluster: shifted(broker.cluster),
      })),
    };
    try {
      await checkPortsFree(topology, realClock);
      // JSON is YAML.
      writeFileSync(configFile, JSON.stringify(topology, undefined, 2));
      return { topology: loadTopology(configFile), configFile };
    } catch (error) {
      if (!(error instanceof SwitchError && error.code === 'PORT_TAKEN') || attempt === 20) throw error;
    }
  }
}

/** The whole number that a flag gives. Throws RangeError. */
export function readWhole(name: string, text: string, least: number, most: number): number {
  const value = /^[0-9]{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) throw new RangeError(`--${name} takes ${least} to ${most}`);
  return value;
}
