import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { realClock, realRandom } from '../../base/real.ts';
import { parseTopology, type Topology } from '../../base/topology.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { parseMix } from '../../cli/acquirer/load-mix.ts';
import type { LoadOptions } from '../../cli/acquirer/load-options.ts';
import type { LoadSummary } from '../../cli/acquirer/load-summary.ts';
import { runLoad } from '../../cli/acquirer/load.ts';
import { targetsOf } from '../../cli/acquirer/usage.ts';
import { prepareCluster } from '../../cli/cluster/first-start.ts';
import { startCluster, type RunningCluster } from '../../cli/cluster/supervisor.ts';
import { placeForDrill } from '../../cli/drill/place.ts';
import { configurationText, topologyText } from './place.ts';

type Samples = NonNullable<Parameters<typeof prepareCluster>[0]['samples']>;

/** A cluster of real processes and brokers that is measured, in a folder of its own, which goes with it. */
export class BenchCluster {
  readonly folder: string;
  readonly topology: Topology;
  readonly dataFolder: string;
  readonly #configFile: string;
  /** Undefined: the sample's. */
  readonly #configuration: string | undefined;
  #running: RunningCluster | undefined;

  /** `nodes` nodes, each of which owns a group of cards with a range of its own (`place.ts`). */
  static ofNodes(nodes: number): BenchCluster {
    const folder = newFolder();
    const configFile = join(folder, 'nodes.yaml');
    const topology = parseTopology(topologyText(nodes), configFile);
    writeFileSync(configFile, topologyText(nodes));
    const configuration = join(folder, 'configuration.yaml');
    writeFileSync(configuration, configurationText(topology));
    return new BenchCluster(folder, topology, configFile, configuration);
  }

  /** The cluster of nodes.yaml with the sample's configuration and cards. */
  static async ofSample(name: string): Promise<BenchCluster> {
    const folder = newFolder();
    const { topology, configFile } = await placeForDrill(folder, name);
    return new BenchCluster(folder, topology, configFile, undefined);
  }

  private constructor(folder: string, topology: Topology, configFile: string, configuration: string | undefined) {
    this.folder = folder;
    this.topology = topology;
    this.dataFolder = join(folder, 'data');
    this.#configFile = configFile;
    this.#configuration = configuration;
  }

  /** Pids by id. */
  get processes(): ReadonlyMap<string, number> {
    return this.#running?.processes ?? new Map<string, number>();
  }

  /** Seconds until it serves, with the cards of a file in it. */
  async start(cards?: string): Promise<number> {
    const place = {
      topology: this.topology,
      configFile: this.#configFile,
      dataFolder: this.dataFolder,
      print: () => undefined,
    };
    const samples: Samples | undefined =
      this.#configuration === undefined ? undefined : { configuration: this.#configuration, cards };
    const beginMs = realClock.monotonicMs();
    this.#running = await startCluster(place);
    await prepareCluster({ ...place, ...(samples === undefined ? {} : { samples }) });
    return (realClock.monotonicMs() - beginMs) / 1000;
  }

  async stop(): Promise<void> {
    await this.#running?.stop();
    this.#running = undefined;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Purchases for the cards of a file at all nodes, unless it is said otherwise. */
  async load(
    cardFile: string,
    changes: Pick<LoadOptions, 'connections' | 'pace' | 'durationMs'> & Partial<LoadOptions>,
  ): Promise<LoadSummary> {
    return runLoad({
      targets: targetsOf(this.topology, undefined),
      cards: await readAcquirerCards(cardFile),
      cardFile,
      mix: parseMix('purchase=1'),
      seed: realRandom.below(1_000_000_000),
      journalFile: undefined,
      requestTimeoutMs: 10_000,
      giveUpMs: 20_000,
      reverseUnanswered: false,
      clock: realClock,
      ...changes,
    });
  }
}

function newFolder(): string {
  return mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
}
