import type { Clock } from '../../base/clock.ts';
import type { Random } from '../../base/random.ts';
import type { Topology } from '../../base/topology.ts';
import type { AcquirerCard } from '../acquirer/cards.ts';
import type { LoadControl } from '../acquirer/load-options.ts';
import type { RunningCluster } from '../cluster/supervisor.ts';
import type { RouteDelays } from './delays.ts';
import type { StallableDisk } from './disk.ts';
import type { DrillNetwork } from './network.ts';
import type { UndoJournal } from './undo.ts';

export const drillKinds = [
  'kill',
  'stop',
  'drain',
  'freeze',
  'broker',
  'brokers',
  'amnesia',
  'disk',
  'rollback',
  'site',
  'partition',
  'stall',
  'move',
  'upgrade',
] as const;
export type DrillKind = (typeof drillKinds)[number];

/** What a person may say about the fault. */
export interface FaultOptions {
  readonly target: string | undefined;
  /** kill: the broker of the node's site, too. */
  readonly withBroker: boolean;
  /** partition: `out`, what is cut off is not heard; `in`, it does not hear; undefined: neither way. */
  readonly oneWay: 'out' | 'in' | undefined;
  /** partition: nothing is cut, but everything between sites takes so much longer, in each direction. */
  readonly delayMs: number | undefined;
  /** stall: what happens to the disk. */
  readonly mode: 'full' | 'slow';
}

/**
 * What is asked of the service while the fault lasts:
 *
 *   takeover       ownership moves within the limits for one node
 *   site-takeover  the same for a site
 *   undisturbed    no owner changes and no answer is slow
 *   unnoticed      no request fails and no answer is slow
 *   none           only what is asked of every drill
 */
export type Expectation = 'takeover' | 'site-takeover' | 'undisturbed' | 'unnoticed' | 'none';

/** Whom a fault hits. */
export interface Aim {
  /** For people: `n1`, `n1 and b-east`, `site east`. */
  readonly target: string;
  /** Processes that the fault is done to. */
  readonly processes: readonly string[];
  /** Groups whose cards are concerned. */
  readonly groups: readonly string[];
  readonly expectation: Expectation;
  /** Nodes that take requests during the fault and say nothing: their acquirers wait and go elsewhere. */
  readonly silent: readonly string[];
  /** Nodes that serve acquirers during the fault and reach no majority: they have to say so in time. */
  readonly cutOff: readonly string[];
  /** Nodes whose disk goes back, which has to be noticed. */
  readonly rebuilt: readonly string[];
}

export interface Range {
  readonly prefix: string;
  readonly group: string;
  readonly durability: string;
}

/** What a drill made for a fault before the cluster was started. */
export interface Equipment {
  readonly network?: DrillNetwork;
  readonly delays?: RouteDelays;
  readonly disk?: StallableDisk;
}

/** The processes of a cluster, the drill's own or another's. */
export type DrilledCluster = Pick<RunningCluster, 'processes' | 'kill' | 'restart'>;

/** Where a drill takes place: a running cluster and what the drill may do with it. */
export interface Ground {
  readonly topology: Topology;
  readonly configFile: string;
  readonly dataFolder: string;
  /** For journals and copies; outside the data folder. */
  readonly folder: string;
  readonly cardFile: string;
  /** Whether the drill started the cluster, so that nothing has happened to its cards but the drill. */
  readonly own: boolean;
  readonly cluster: DrilledCluster;
  readonly equipment: Equipment;
  readonly undo: UndoJournal;
  readonly clock: Clock;
  readonly random: Random;
  /** All acquirers' journals since the cluster was started. */
  readonly journals: string[];
  readonly note: (line: string) => void;
  /** Ends what the drill started and undoes the rest. */
  close(): Promise<void>;
}

/** What does not change from run to run. */
export interface Scene {
  readonly ground: Ground;
  readonly cards: readonly AcquirerCard[];
  /** By line of the card file. */
  readonly rangeOfCard: ReadonlyMap<number, Range>;
  /** The longest deadline of the configured links. */
  readonly deadlineMs: number;
  /** Where each group is when nothing is wrong. */
  readonly home: ReadonlyMap<string, string>;
}

/** A fault under way. */
export interface Act {
  readonly scene: Scene;
  readonly aim: Aim;
  readonly options: FaultOptions;
  readonly load: LoadControl;
  /** How long the fault lasts. */
  readonly holdMs: number;
}

export type Need =
  | 'root'
  /** Only on a cluster that the drill itself starts. */
  | 'own-cluster';

/**
 * One kind of drill. `inject` makes the fault, `heal` ends it; both are awaited, and what has to be undone should
 * neither end is in the undo journal before it is done.
 */
export interface Fault {
  readonly summary: string;
  /** What TARGET may be, and which it is when it is not given. */
  readonly target: string;
  /** What it does, what to expect, how it is done: for --help. */
  readonly details: string;
  /** How long the fault lasts when nobody says otherwise. */
  readonly holdMs: number;
  needs(options: FaultOptions): readonly Need[];
  /** What has to be there before the cluster starts. */
  equipment(options: FaultOptions): 'network' | 'delays' | 'disk' | undefined;
  /** Throws UsageError when there is no such target. */
  aim(scene: Scene, options: FaultOptions): Aim;
  /** Before the load begins. */
  prepare?(act: Omit<Act, 'load' | 'holdMs'>): Promise<void>;
  inject(act: Act): Promise<void>;
  heal(act: Act): Promise<void>;
}
