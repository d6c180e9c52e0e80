import { join } from 'node:path';

import { waitFor } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { loadTopology, voters } from '../../base/topology.ts';
import type { Topology } from '../../base/topology.ts';
import { acquireFolderLock } from '../../store/folder-lock.ts';
import { sampleCardFile } from '../acquirer/load-command.ts';
import { prepareCluster } from '../cluster/first-start.ts';
import { claimDataFolder, inspectDataFolder, natsGreeting } from '../cluster/preflight.ts';
import { recordedProcesses, signalProcess } from '../cluster/run-record.ts';
import type { RecordedProcess } from '../cluster/run-record.ts';
import { startCluster } from '../cluster/supervisor.ts';
import type { RunningCluster } from '../cluster/supervisor.ts';
import { OperatorBus } from '../operator-bus.ts';
import { RouteDelays } from './delays.ts';
import { StallableDisk } from './disk.ts';
import type { DrilledCluster, Equipment, Ground } from './fault.ts';
import { DrillNetwork } from './network.ts';
import { placeForDrill, sampleTopology, writePlace } from './place.ts';
import type { DrillPlace } from './place.ts';
import { supervisorOf } from './supervisor-of.ts';
import type { UndoJournal } from './undo.ts';

interface GroundOptions {
  /** For nodes.yaml, data, journals and copies. */
  readonly folder: string;
  readonly undo: UndoJournal;
  readonly clock: Clock;
  readonly random: Random;
  readonly note: (line: string) => void;
}

export interface OwnGroundOptions extends GroundOptions {
  readonly equipment: 'network' | 'delays' | 'disk' | undefined;
  /** With equipment `disk`: whose. */
  readonly diskOf: string | undefined;
  /** Where the cluster is to be; a place of its own at free ports when not given. */
  readonly place?: DrillPlace;
  readonly natsServer?: string;
}

/** Starts a cluster for the drill, with the sample configuration and cards. */
export async function openOwnGround(options: OwnGroundOptions): Promise<Ground> {
  const { folder, undo, clock, random, note, natsServer } = options;
  const dataFolder = join(folder, 'data');
  const network = options.equipment === 'network' ? DrillNetwork.make(sampleTopology('drill'), undo) : undefined;
  const place =
    network === undefined
      ? (options.place ?? (await placeForDrill(folder, 'drill')))
      : writePlace(folder, network.topology);
  const { topology, configFile } = place;
  const delays = options.equipment === 'delays' ? await RouteDelays.start(topology, undo) : undefined;
  undo.record({ kind: 'cluster', dataFolder });
  let disk: StallableDisk | undefined;
  if (options.equipment === 'disk') {
    claimDataFolder(dataFolder, topology.cluster, clock);
    disk = StallableDisk.make(options.diskOf ?? topology.nodes[0]?.id ?? '', dataFolder, folder, undo);
  }
  const print = (): void => undefined;
  note('starting a cluster ...');
  const cluster: RunningCluster = await startCluster({
    topology,
    configFile,
    dataFolder,
    print,
    clock,
    ...(natsServer === undefined ? {} : { natsServer }),
    ...(network === undefined ? {} : { launch: (id, program, args) => network.launch(id, program, args) }),
    ...(delays === undefined ? {} : { routeTo: delays.routeTo }),
  });
  try {
    await prepareCluster({ topology, configFile, dataFolder, print });
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  const equipment: Equipment = {
    ...(network === undefined ? {} : { network }),
    ...(delays === undefined ? {} : { delays }),
    ...(disk === undefined ? {} : { disk }),
  };
  return {
    topology,
    configFile,
    dataFolder,
    folder,
    cardFile: sampleCardFile,
    own: true,
    cluster,
    equipment,
    undo,
    clock,
    random,
    journals: [],
    note,
    async close() {
      network?.mend();
      await disk?.recover();
      await cluster.stop();
      await undo.undoAll(note);
    },
  };
}

export interface OtherGroundOptions extends GroundOptions {
  readonly configFile: string;
  readonly dataFolder: string;
  readonly cardFile: string;
}

/**
 * A cluster that `npm start` of this installation runs on this machine. What a drill ends there, its supervisor starts
 * again. Throws DRILL_REFUSED when there is none, and DATA_FOLDER_FOREIGN when the data are another cluster's.
 */
export function openOtherGround(options: OtherGroundOptions): Ground {
  const { configFile, dataFolder, cardFile, folder, undo, clock, random, note } = options;
  const topology = loadTopology(configFile);
  const runsNot = `no cluster runs with the data in ${dataFolder}: start it with \`npm start\`, or drill without --here`;
  if (inspectDataFolder(dataFolder, topology.cluster) === 'new') throw new SwitchError('DRILL_REFUSED', runsNot);
  if (isFree(dataFolder)) throw new SwitchError('DRILL_REFUSED', runsNot);
  if (supervisorOf(dataFolder) === undefined) {
    const reason = `the cluster in ${dataFolder} was not started by \`npm start\` of this installation`;
    throw new SwitchError('DRILL_REFUSED', `${reason}, which could start again what the drill ends`);
  }
  return {
    topology,
    configFile,
    dataFolder,
    folder,
    cardFile,
    own: false,
    cluster: new SupervisedCluster(topology, dataFolder, undo, clock),
    equipment: {},
    undo,
    clock,
    random,
    journals: [],
    note,
    async close() {
      await undo.undoAll(note);
    },
  };
}

function isFree(dataFolder: string): boolean {
  try {
    acquireFolderLock(dataFolder, 'quadrant drill').release();
    return true;
  } catch (error) {
    if (error instanceof SwitchError && error.code === 'DATA_FOLDER_IN_USE') return false;
    throw error;
  }
}

const endTimeoutMs = 10_000;
const readyTimeoutMs = 60_000;

/** The processes of a cluster that another process supervises. What is done to them is in the undo journal first. */
class SupervisedCluster implements DrilledCluster {
  readonly #topology: Topology;
  readonly #dataFolder: string;
  readonly #undo: UndoJournal;
  readonly #clock: Clock;
  readonly #toUndo = new Map<string, number>();

  constructor(topology: Topology, dataFolder: string, undo: UndoJournal, clock: Clock) {
    this.#topology = topology;
    this.#dataFolder = dataFolder;
    this.#undo = undo;
    this.#clock = clock;
  }

  get processes(): ReadonlyMap<string, number> {
    return new Map(recordedProcesses(this.#dataFolder).map(({ id, pid }) => [id, pid]));
  }

  async kill(id: string, signal: NodeJS.Signals): Promise<void> {
    const recorded = this.#find(id);
    if (recorded === undefined) throw new RangeError(`${id} does not run`);
    if (signal === 'SIGCONT') {
      signalProcess(recorded, signal);
      this.#undone(id);
      return;
    }
    const stops = signal === 'SIGSTOP';
    this.#undone(id);
    this.#toUndo.set(
      id,
      this.#undo.record(stops ? { kind: 'continue', ...recorded, marks: [...recorded.marks] } : this.#revival(id)),
    );
    signalProcess(recorded, signal);
    if (stops) return;
    await waitFor(this.#clock, () => this.#find(id) === undefined || undefined, {
      timeoutMs: endTimeoutMs,
      everyMs: 1,
      onTimeout: () => new SwitchError('START_FAILED', `${id} did not end after ${signal}`),
    });
  }

  async restart(id: string): Promise<void> {
    const supervisor = supervisorOf(this.#dataFolder);
    if (supervisor === undefined) throw new SwitchError('START_FAILED', 'the supervisor of the cluster has ended');
    const isReady = async (): Promise<true | undefined> => {
      // Again and again: the supervisor may not have seen yet that the process has ended.
      if (this.#find(id) === undefined) signalProcess(supervisor, 'SIGUSR2');
      return (await this.#isReady(id)) || undefined;
    };
    await waitFor(this.#clock, isReady, {
      timeoutMs: readyTimeoutMs,
      everyMs: 100,
      onTimeout: () => new SwitchError('START_FAILED', `${id} is not ready ${readyTimeoutMs / 1000} s after its start`),
    });
    this.#undone(id);
  }

  #find(id: string): RecordedProcess | undefined {
    return recordedProcesses(this.#dataFolder).find((each) => each.id === id);
  }

  #revival(id: string): { readonly kind: 'revive'; readonly dataFolder: string; readonly ids: string[] } {
    return { kind: 'revive', dataFolder: this.#dataFolder, ids: [id] };
  }

  #undone(id: string): void {
    const at = this.#toUndo.get(id);
    if (at !== undefined) this.#undo.done(at);
    this.#toUndo.delete(id);
  }

  async #isReady(id: string): Promise<boolean> {
    if (this.#find(id) === undefined) return false;
    const broker = this.#topology.brokers.find((each) => each.id === id);
    if (broker !== undefined) return (await natsGreeting(broker.client, this.#clock)) !== undefined;
    const voter = voters(this.#topology).find((each) => each === id);
    if (voter === undefined) throw new RangeError(`there is no process ${id}`);
    const bus = await OperatorBus.connect(this.#topology, this.#dataFolder);
    try {
      return (await bus.status(voter)) !== undefined;
    } finally {
      await bus.close();
    }
  }
}
