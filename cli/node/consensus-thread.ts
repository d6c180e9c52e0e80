import { join } from 'node:path';
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';

import { assert, describeError, type StoreFailure } from '../../base/errors.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { voters, type Endpoint, type Topology } from '../../base/topology.ts';
import { Driver, type DriverEvent, type ReplicaStatus } from '../../replication/driver.ts';
import { connectNatsBus, type NatsBus } from '../../replication/nats-bus.ts';
import { openedGroup, type OpenedGroup } from '../../replication/opened-group.ts';
import type { EditOutcome, RepairBatch } from '../../store/group-file.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { NodeState } from '../../store/node-state.ts';
import { SalvageFile } from '../../store/salvage.ts';
import { brokerLine } from './broker-line.ts';
import { SnapshotPort } from './maintenance.ts';
import { LoopDelay, SharedMeters } from './meters.ts';
import { ThreadWriter } from './thread-writer.ts';

/** What the thread is started with. */
export interface ConsensusThreadData {
  readonly self: NodeId;
  readonly topology: Topology;
  readonly folder: string;
  readonly brokers: readonly Endpoint[];
  readonly nkeySeed: string;
  /** To the maintenance thread; transferred. */
  readonly maintenance: MessagePort;
  /** `SharedMeters`: what this thread and the writer count. */
  readonly meters: SharedArrayBuffer;
  /** One Float64: when the deciding thread last ticked, monotonic milliseconds. */
  readonly ticked: SharedArrayBuffer;
}

export type ToConsensusThread =
  | { readonly kind: 'call'; readonly call: number; readonly request: ConsensusRequest }
  | {
      readonly kind: 'propose';
      readonly group: GroupId;
      readonly epoch: number;
      readonly first: number;
      readonly bodies: readonly string[];
    }
  | { readonly kind: 'paused'; readonly group: GroupId }
  | { readonly kind: 'fail'; readonly group: GroupId; readonly reason: string; readonly cause: StoreFailure }
  | {
      readonly kind: 'configure';
      readonly orders: readonly (readonly [GroupId, readonly NodeId[]])[];
      readonly ranks: readonly (readonly [GroupId, number])[];
    }
  | { readonly kind: 'resume'; readonly group: GroupId }
  | { readonly kind: 'finish-checkpoint'; readonly group: GroupId }
  | { readonly kind: 'close-edit'; readonly group: GroupId; readonly outcome: EditOutcome };

/** What the deciding thread asks and gets an answer to. */
export type ConsensusRequest =
  | { readonly kind: 'open'; readonly group: GroupId }
  | { readonly kind: 'serve' }
  | { readonly kind: 'enter'; readonly group: GroupId; readonly body: string }
  | { readonly kind: 'status' }
  | { readonly kind: 'drain'; readonly on: boolean }
  | { readonly kind: 'failback'; readonly groups: readonly GroupId[] }
  | { readonly kind: 'rebuild'; readonly group: GroupId }
  | { readonly kind: 'repair'; readonly group: GroupId; readonly batch: RepairBatch }
  | { readonly kind: 'recover'; readonly group: GroupId; readonly lost: readonly NodeId[]; readonly by: string }
  | { readonly kind: 'close' };

export type FromConsensusThread =
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly code: string | undefined; readonly message: string }
  | { readonly kind: 'events'; readonly events: readonly ConsensusEvent[] }
  | { readonly kind: 'result'; readonly call: number; readonly result: unknown }
  | { readonly kind: 'refused'; readonly call: number; readonly code: string | undefined; readonly message: string };

export type ConsensusEvent =
  | DriverEvent
  | {
      readonly kind: 'log';
      readonly level: 'info' | 'warn' | 'error';
      readonly details: object;
      readonly message: string;
    };

/** What consensus says of itself, for `status`. */
export interface ConsensusStatus {
  readonly groups: readonly ReplicaStatus[];
  readonly draining: boolean;
  /** How long the deciding thread has not moved, when that is too long; else 0. */
  readonly stalledMs: number;
  readonly canHandOver: boolean;
  readonly damaged: number;
  readonly tooLarge: number;
  readonly connected: boolean;
  readonly disconnects: number;
  readonly rebuilding: readonly { readonly group: GroupId; readonly percent: number }[];
  readonly mismatches: readonly { readonly peer: NodeId; readonly difference: string }[];
}

/*
 * The thread of consensus (R7): the replicas of all groups, their own connection to the broker, term and vote. It
 * renews leases and heartbeats whatever the deciding thread is busy with, and stops doing so when that has not ticked
 * for a while. Files are written by the writer thread, which reports here.
 */
const port = parentPort;
assert(port !== null, 'consensus runs in a thread of its own');
const data = workerData as ConsensusThreadData;
const ticked = new Float64Array(data.ticked);
const meters = new SharedMeters(data.meters);
const tickMs = 25;
const loopDelay = new LoopDelay(realClock, tickMs, meters.consensusDelayMs);

const post = (message: FromConsensusThread): void => {
  port.postMessage(message);
};
let events: ConsensusEvent[] = [];
const emit = (event: ConsensusEvent): void => {
  if (events.length === 0) {
    queueMicrotask(() => {
      post({ kind: 'events', events });
      events = [];
    });
  }
  events.push(event);
};
const log = (level: 'info' | 'warn' | 'error', details: object, message: string): void => {
  emit({ kind: 'log', level, details, message });
};
/** A broken invariant ends the process: the deciding thread sees this thread die. */
const die = (error: Error): void => {
  post({ kind: 'events', events });
  throw error;
};

const { self, topology, folder } = data;
const isNode = topology.nodes.some((node) => node.id === self);
const state = new NodeState(join(folder, 'consensus.db'));
const salvage = isNode ? new SalvageFile(join(folder, 'salvage.db')) : undefined;
let bus: NatsBus | undefined;

const writer = new ThreadWriter({
  folder,
  data: {
    self,
    cluster: topology.cluster,
    topology: { nodes: topology.nodes },
    witness: !isNode,
    meters: data.meters,
  },
  onEvents: (written) => {
    for (const event of written) driver.onWriter(event);
  },
  onDeath: die,
});

/** Reads what members that are far behind ask for, in the maintenance thread. */
const snapshots = new SnapshotPort(data.maintenance);

const driver: Driver = new Driver({
  self,
  topology,
  clock: realClock,
  random: realRandom,
  writer,
  state: {
    hardState: (group) => state.hardState(group),
    saveHardState: (group, hardState) => {
      state.saveHardState(group, hardState);
    },
    incarnation: (group) => state.incarnation(group),
    saveIncarnation: (group, incarnation) => {
      state.saveIncarnation(group, incarnation);
    },
    acknowledged: (group) =>
      voters(topology).flatMap((id) => {
        const known = state.acknowledgedBy(group, id);
        return known === undefined ? [] : [{ id, ...known }];
      }),
    rememberAcknowledged: (memory) => {
      state.rememberAcknowledged(memory);
    },
  },
  send: (to, bytes) => {
    bus?.send(to, 'raft', bytes);
  },
  emit,
  open: (group, how, done) => {
    const opening = how === 'first' ? writer.open(group) : writer.reopen(group, how === 'empty');
    opening
      .then(({ path, applied }) => openReader(path, group, applied))
      .catch((error: unknown) => (error instanceof Error ? error : new Error(describeError(error))))
      .then(done)
      .catch(die);
  },
  openInstalled: (group, path, applied) => openReader(path, group, applied),
  reading: snapshots,
  sendSnapshot: (to, bytes) => {
    bus?.send(to, 'snapshot', bytes);
  },
  salvage: (group, entries) => {
    salvage?.add(group, entries);
  },
  deciderSilentMs: () => realClock.monotonicMs() - (ticked[0] ?? 0),
  log,
});

function openReader(path: string, group: GroupId, applied: number): OpenedGroup {
  return openedGroup(new GroupReader(path, group, 1024), path, applied);
}

async function answer(request: ConsensusRequest): Promise<unknown> {
  switch (request.kind) {
    case 'open':
      await new Promise<void>((resolve, reject) => {
        driver.open(request.group, (error) => {
          if (error === undefined) resolve();
          else reject(error);
        });
      });
      return undefined;
    case 'serve':
      bus?.receive(['raft', 'snapshot'], (from, channel, bytes) => {
        if (channel === 'raft') driver.receive(from, bytes);
        else driver.receiveSnapshot(from, bytes);
      });
      tick();
      return undefined;
    case 'enter':
      return driver.enter(request.group, [request.body]);
    case 'status': {
      const { draining, canHandOver, damaged, mismatches } = driver;
      const status: ConsensusStatus = {
        groups: driver.status(),
        draining,
        stalledMs: driver.stalledMs,
        canHandOver,
        damaged,
        tooLarge: bus?.tooLarge ?? 0,
        connected: bus?.connected ?? false,
        disconnects: bus?.disconnects ?? 0,
        mismatches,
        rebuilding: driver.rebuilding,
      };
      return status;
    }
    case 'drain':
      driver.drain(request.on);
      return driver.leads;
    case 'failback':
      return driver.failback(request.groups);
    case 'rebuild':
      await new Promise<void>((resolve, reject) => {
        driver.rebuild(request.group, (error) => {
          if (error === undefined) resolve();
          else reject(error);
        });
      });
      return undefined;
    case 'repair': {
      const outcomes = await writer.repair(request.group, request.batch);
      if (outcomes.includes('changed')) driver.onRepaired(request.group);
      return outcomes;
    }
    case 'recover':
      return driver.recover(request.group, request.lost, request.by);
    case 'close':
      stopped = true;
      driver.stop();
      await bus?.close();
      await writer.close();
      salvage?.close();
      state.close();
      snapshots.disconnect();
      return undefined;
  }
}

let stopped = false;
function tick(): void {
  if (stopped) return;
  loopDelay.tick();
  driver.tick();
  realClock.after(tickMs, tick);
}

port.on('message', (message: ToConsensusThread) => {
  switch (message.kind) {
    case 'propose':
      driver.propose(message.group, message.epoch, message.first, message.bodies);
      break;
    case 'paused':
      driver.paused(message.group);
      break;
    case 'fail':
      driver.fail(message.group, message.reason, message.cause);
      break;
    case 'configure':
      driver.configure(new Map(message.orders), new Map(message.ranks));
      break;
    case 'resume':
      writer.resume(message.group);
      break;
    case 'finish-checkpoint':
      writer.finishCheckpoint(message.group);
      break;
    case 'close-edit':
      writer.closeEdit(message.group, message.outcome);
      break;
    case 'call': {
      const { call, request } = message;
      void answer(request)
        .then(
          (result) => {
            post({ kind: 'result', call, result });
          },
          (error: unknown) => {
            post({ kind: 'refused', call, code: codeOf(error), message: describeError(error) });
          },
        )
        .then(() => {
          if (request.kind === 'close') port.close();
        });
      break;
    }
  }
});

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

try {
  bus = await connectNatsBus({
    self,
    brokers: data.brokers,
    nkeySeed: Buffer.from(data.nkeySeed),
    clock: realClock,
    pingMs: topology.timings.brokerPingMs,
    reconnectMs: topology.timings.brokerReconnectMs,
    onFatal: die,
    onStatus: (status, detail) => {
      const line = brokerLine(status, detail, 'consensus');
      log(line.level, line.details, line.message);
    },
  });
  post({ kind: 'ready' });
} catch (error) {
  post({ kind: 'failed', code: codeOf(error), message: describeError(error) });
}
