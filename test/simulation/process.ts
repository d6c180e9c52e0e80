import { join } from 'node:path';

import type { CardKeys } from '../../base/card-keys.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { Random } from '../../base/random.ts';
import { Sealer } from '../../base/sealing.ts';
import type { ConfigurationView } from '../../config-db/configuration-view.ts';
import type { Channel } from '../../replication/bus.ts';
import { Replica, type ReplicaListener } from '../../replication/replica.ts';
import { decodeGroupMessages, encodeGroupMessages, type GroupMessage } from '../../replication/wire.ts';
import type { LogEntry } from '../../store/entry.ts';
import { GroupFile } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { SqliteLedger } from '../../store/ledger-sqlite.ts';
import { GroupReader } from '../../store/log-reader.ts';
import { NodeState } from '../../store/node-state.ts';
import { WriteQueue } from '../../store/write-queue.ts';
import type { GroupWriter, WriteRequest } from '../../store/writer.ts';
import { Edge } from '../../switch/edge.ts';
import { Forwarder } from '../../switch/forward.ts';
import { GroupOwner } from '../../switch/owner.ts';
import type { SimulatedBus } from './bus.ts';
import { Violation, type Checks } from './checks.ts';
import { ProcessClock, type Scheduler } from './scheduler.ts';

/** Steps at which a process can be made to crash, besides any moment between two events. */
export const crashPoints = [
  'before the vote is synced',
  'after the vote is synced',
  'between two messages',
  'after an append is handed over',
  'before the write',
  'after the write',
  'before the answer',
] as const;
export type CrashPoint = (typeof crashPoints)[number];

export interface ProcessOptions {
  readonly id: NodeId;
  readonly group: GroupId;
  readonly voters: readonly NodeId[];
  readonly folder: string;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly bus: SimulatedBus;
  readonly cardKeys: CardKeys;
  readonly sealingKey: Buffer;
  readonly configuration: ConfigurationView;
  readonly mayCampaign: () => boolean;
  /** All processes tick at the same moments, so that rivals campaign at once. */
  readonly ticksTogether: boolean;
  readonly checks: () => Checks;
  /** Elections, truncations and the like, to be counted. */
  readonly onEvent: (event: string) => void;
  /** `point` is undefined at the end of the simulation. */
  readonly onCrash: (point: string | undefined) => void;
}

/** Thrown at an armed crash point; ends the process, not the simulation. */
class Crash extends Error {}

/** What lives in a process's memory, from start to crash. */
export interface Running {
  readonly clock: ProcessClock;
  readonly file: GroupFile;
  readonly reader: GroupReader;
  readonly state: NodeState;
  readonly replica: Replica;
  readonly owner: GroupOwner;
  readonly edge: Edge;
}

const tickMs = 24;
// Shorter than in the sample, so that more happens in a second.
const heartbeatMs = 50;
const electionTimeoutMs = 200;

/** One switch process: the product's own parts on real files, with this simulation's clock, bus and writer thread. */
export class SwitchProcess {
  readonly id: NodeId;
  readonly path: string;
  /** The writer thread does nothing for this long with what comes next: a stalled disk. */
  stallMs = 0;
  running: Running | undefined;
  readonly #options: ProcessOptions;
  #boot = 0;
  #armed: { readonly point: CrashPoint; passes: number } | undefined;
  #crashing: string | undefined;
  #doing = false;

  constructor(options: ProcessOptions) {
    this.#options = options;
    this.id = options.id;
    this.path = join(options.folder, `${options.id}.db`);
  }

  /** The process crashes when it comes to `point` for the `passes`th time from now. */
  arm(point: CrashPoint, passes: number): void {
    this.#armed = { point, passes };
  }

  start(): void {
    if (this.running !== undefined) return;
    const { id, group, voters, folder, scheduler, random, bus, cardKeys, sealingKey, configuration } = this.#options;
    const clock = new ProcessClock(scheduler, (action) => {
      this.#do(action);
    });
    const file = GroupFile.open(this.path, group, 'simulation', ledgerFold);
    const reader = new GroupReader(this.path, group);
    const state = new NodeState(join(folder, `${id}-state.db`));
    this.#armed = undefined;
    this.#boot += 1;

    const queue = new WriteQueue(clock, (event) => {
      this.#passes('after the write', false);
      fromWriter(() => {
        replica.onWriter(event);
      });
    });
    queue.add(group, file);
    const toWriter = this.#channel(clock, () => this.#takeStall());
    const fromWriter = this.#channel(clock, () => 0);
    let handedOver: WriteRequest[] = [];
    const writer: GroupWriter = {
      open: () => Promise.reject(new Error('files are opened at the start')),
      submit: (request) => {
        if (handedOver.length === 0) {
          toWriter(() => {
            this.#passes('before the write');
            const requests = handedOver;
            handedOver = [];
            for (const each of requests) queue.submit(each);
          });
        }
        handedOver.push(request);
        if (request.keepThrough !== undefined) this.#options.onEvent('truncation');
        this.#passes('after an append is handed over');
      },
      resume: (which) => {
        toWriter(() => {
          queue.resume(which);
        });
      },
      close: () => Promise.resolve(),
    };

    const outgoing = new Map<NodeId, GroupMessage[]>();
    const send = (to: NodeId, message: GroupMessage): void => {
      if (outgoing.size === 0) clock.soon(flush);
      outgoing.set(to, [...(outgoing.get(to) ?? []), message]);
    };
    const flush = (): void => {
      for (const [to, messages] of outgoing) {
        for (const message of messages) bus.send(id, to, 'raft', encodeGroupMessages([message]));
        this.#passes('between two messages');
      }
      outgoing.clear();
    };
    const replica = new Replica({
      group,
      self: id,
      voters,
      mayCampaign: this.#options.mayCampaign,
      hardState: state.hardState(group),
      source: reader,
      applied: file.applied,
      heartbeatMs,
      electionTimeoutMs,
      clock,
      writer,
      saveHardState: (hardState) => {
        this.#passes('before the vote is synced');
        state.saveHardState(group, hardState);
        this.#passes('after the vote is synced');
      },
      send: (to, message) => {
        send(to, { group, message });
      },
      listener: this.#listener(),
    });
    const owner = new GroupOwner({
      group,
      log: replica,
      ledger: new SqliteLedger(reader.database),
      configuration: () => configuration,
      cardKeys,
      clock,
      random,
      localTailEntries: 2_000,
      localTailMs: 500,
      stalledMs: 3_000,
    });
    owner.onApplied(file.applied);
    const forwarder = new Forwarder({
      self: id,
      sealer: new Sealer(sealingKey, random),
      clock,
      send: (to, bytes) => {
        bus.send(id, to, 'forward', bytes);
      },
      onRequest: (from, request) => {
        edge.onRequest(from, request);
      },
      onAnswer: (_, answer) => {
        edge.onAnswer(answer);
      },
    });
    const edge = new Edge({
      self: id,
      boot: this.#boot,
      clock,
      configuration: () => configuration,
      leaderOf: () => replica.raft.leader,
      ownerOf: () => owner,
      forwarder,
      requestDeadlineMs: 1_500,
    });
    this.running = { clock, file, reader, state, replica, owner, edge };
    this.#options.checks().started(id, replica);
    scheduler.trace(id, `starts: applied ${file.applied}, last ${file.last.index}, term ${replica.raft.term}`);

    bus.attach(id, (from, channel, bytes) => {
      this.#do(() => {
        this.#receive(from, channel, bytes, forwarder);
      });
    });
    const tick = (): void => {
      replica.tick();
      edge.tick();
      clock.after(tickMs, tick);
    };
    const phaseMs = this.#options.ticksTogether ? 0 : random.below(tickMs);
    clock.after(tickMs - (scheduler.nowMs % tickMs) + phaseMs, tick);
  }

  crash(point?: string): void {
    const { running } = this;
    if (running === undefined) return;
    const { scheduler, bus, id, onCrash } = this.#options;
    this.running = undefined;
    running.clock.stop();
    bus.detach(id);
    running.reader.close();
    running.file.close();
    running.state.close();
    scheduler.trace(id, `crashes ${point ?? 'at the end'}: last ${running.file.last.index}`);
    onCrash(point);
  }

  /** Runs `action` as the process: a crash in it ends the process. */
  act<T>(action: (running: Running) => T): T | undefined {
    let result: T | undefined;
    const { running } = this;
    if (running === undefined) return undefined;
    this.#do(() => {
      result = action(running);
    });
    return result;
  }

  /** An answer is about to leave the process. */
  answering(): void {
    this.#passes('before the answer');
  }

  #do(action: () => void): void {
    if (this.#doing) {
      action();
      return;
    }
    this.#doing = true;
    try {
      action();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
    } finally {
      this.#doing = false;
    }
    if (this.#crashing === undefined) return;
    const point = this.#crashing;
    this.#crashing = undefined;
    this.crash(point);
  }

  #passes(point: CrashPoint, atOnce = true): void {
    const armed = this.#armed;
    if (armed?.point !== point) return;
    armed.passes -= 1;
    if (armed.passes > 0) return;
    this.#armed = undefined;
    this.#crashing = point;
    if (atOnce) throw new Crash(point);
  }

  #receive(from: NodeId, channel: Channel, bytes: Buffer, forwarder: Forwarder): void {
    const { running } = this;
    if (running === undefined) return;
    if (channel === 'forward') {
      forwarder.receive(from, bytes);
      return;
    }
    const messages = decodeGroupMessages(bytes);
    if (messages === undefined) throw new Violation(`${this.id} cannot read what ${from} sent`);
    for (const { message } of messages) running.replica.receive(from, message);
  }

  /** Messages between the process's two threads: in order, after a little while. */
  #channel(clock: ProcessClock, extraMs: () => number): (action: () => void) => void {
    let lastMs = 0;
    return (action) => {
      const nowMs = clock.monotonicMs();
      lastMs = Math.max(lastMs, nowMs + 0.05 + this.#options.random.below(800) / 1000 + extraMs());
      clock.after(lastMs - nowMs, action);
    };
  }

  #takeStall(): number {
    const { stallMs } = this;
    this.stallMs = 0;
    return stallMs;
  }

  #listener(): ReplicaListener {
    const { id, scheduler, checks } = this.#options;
    const now = (): Running => {
      if (this.running === undefined) throw new Violation(`${id} works on after its crash`);
      return this.running;
    };
    return {
      onRole: (_, leading, term) => {
        const { replica, owner } = now();
        this.#options.onEvent(leading ? 'election' : 'deposition');
        scheduler.trace(id, leading ? `leads term ${term}` : `leads no longer`);
        if (leading) {
          checks().leads(id, replica, term);
          owner.lead(term, replica.applied, tailOf(replica));
        } else {
          owner.resign();
        }
      },
      onProgress: (_, progress) => {
        const { replica, owner } = now();
        checks().progressed(id, replica, progress.commit, progress.durable);
        scheduler.trace(id, `commit ${progress.commit} durable ${progress.durable} term ${replica.raft.term}`);
        owner.onProgress(progress);
      },
      onApplied: (_, applied) => {
        const { replica, owner } = now();
        checks().applied(id, replica, applied);
        owner.onApplied(applied);
      },
      onMark: () => undefined,
      onFailure: (_, reason) => {
        throw new Violation(`${id} has stopped: ${reason}`);
      },
    };
  }
}

function tailOf(replica: Replica): LogEntry[] {
  const tail: LogEntry[] = [];
  for (let next = replica.applied + 1; next <= replica.log.last.index; next = (tail.at(-1)?.index ?? next) + 1) {
    tail.push(...replica.log.entries(next, Number.MAX_SAFE_INTEGER));
  }
  return tail;
}
