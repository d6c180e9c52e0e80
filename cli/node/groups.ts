import type { CardKeys } from '../../base/card-keys.ts';
import type { Clock } from '../../base/clock.ts';
import { assert, describeError } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { voters, type Topology } from '../../base/topology.ts';
import { readConfigurationView } from '../../config-db/configuration-fold.ts';
import type { ConfigurationView } from '../../config-db/configuration-view.ts';
import type { Bus } from '../../replication/bus.ts';
import type { RaftMessage } from '../../replication/raft.ts';
import { Replica, type ReplicaListener } from '../../replication/replica.ts';
import { decodeGroupMessages, encodeGroupMessages, type GroupMessage } from '../../replication/wire.ts';
import type { LogEntry } from '../../store/entry.ts';
import { SqliteLedger } from '../../store/ledger-sqlite.ts';
import { GroupReader } from '../../store/log-reader.ts';
import type { NodeState } from '../../store/node-state.ts';
import type { WriterEvent } from '../../store/writer.ts';
import { GroupOwner } from '../../switch/owner.ts';
import type { ThreadWriter } from './thread-writer.ts';

export interface GroupsOptions {
  readonly self: NodeId;
  readonly topology: Topology;
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly state: NodeState;
  readonly bus: Bus;
  /** Absent at the witness, which decides nothing. */
  readonly cardKeys: CardKeys | undefined;
  /** Apply of a group stands at a mark: snapshots are opened, then `writer.resume` is called. */
  readonly onMark: (group: GroupId, path: string, compare: string, index: number) => void;
}

export interface HostedGroup {
  readonly group: GroupId;
  readonly replica: Replica;
  readonly reader: GroupReader;
  readonly path: string;
  /** Card groups on a node; undefined for `config` and at the witness. */
  readonly owner: GroupOwner | undefined;
  readonly ledger: SqliteLedger | undefined;
  /** Why this copy has stopped, or undefined. */
  failure: string | undefined;
}

/** Groups one process takes part in at most: a bound on what peers can make it open. */
const maximumGroups = 256;

/** Raft bytes in one datagram, headers included: well below the bus's limit. */
const maximumBatchBytes = 600 * 1024;

/**
 * The groups of one process: opens their files, runs their replicas and owners, batches what they tell their peers.
 * A node opens the groups of its failover map; a witness, and a node whose configuration is behind, opens a group
 * when a voter's leader first sends to it.
 */
export class Groups {
  readonly #options: GroupsOptions;
  readonly #writer: ThreadWriter;
  readonly #hosted = new Map<GroupId, HostedGroup>();
  readonly #opening = new Map<GroupId, Promise<void>>();
  readonly #outgoing = new Map<NodeId, GroupMessage[]>();
  readonly #voters: readonly NodeId[];
  #flushScheduled = false;
  #configuration: ConfigurationView | undefined;
  #configurationReader: GroupReader | undefined;
  #configurationFault: string | undefined;
  #damaged = 0;

  constructor(options: GroupsOptions, writer: ThreadWriter) {
    this.#options = options;
    this.#writer = writer;
    this.#voters = voters(options.topology);
  }

  get configuration(): ConfigurationView | undefined {
    return this.#configuration;
  }

  /** Why the configuration in this node's file cannot be read, or undefined. */
  get configurationFault(): string | undefined {
    return this.#configurationFault;
  }

  get hosted(): ReadonlyMap<GroupId, HostedGroup> {
    return this.#hosted;
  }

  /** Datagrams that could not be read. */
  get damaged(): number {
    return this.#damaged;
  }

  leaderOf(group: GroupId): NodeId | undefined {
    return this.#hosted.get(group)?.replica.raft.leader;
  }

  ownerOf(group: GroupId): GroupOwner | undefined {
    return this.#hosted.get(group)?.owner;
  }

  /** Opens `config`, the groups that it names and `others` (files found from an earlier run). */
  async start(others: readonly GroupId[]): Promise<void> {
    await this.#open(configGroup);
    for (const group of others) if (group !== configGroup) await this.#open(group);
    await this.#openConfigured();
  }

  tick(): void {
    for (const { replica } of this.#hosted.values()) replica.tick();
  }

  receive(from: NodeId, bytes: Buffer): void {
    const messages = decodeGroupMessages(bytes);
    if (messages === undefined) {
      this.#damaged += 1;
      return;
    }
    for (const { group, message } of messages) {
      const hosted = this.#hosted.get(group);
      if (hosted !== undefined) hosted.replica.receive(from, message);
      else if (this.#voters.includes(from)) this.#openOnDemand(group);
    }
  }

  onWriterEvents(events: readonly WriterEvent[]): void {
    for (const event of events) this.#hosted.get(event.group)?.replica.onWriter(event);
  }

  stop(): void {
    for (const { replica, owner } of this.#hosted.values()) {
      replica.stop();
      owner?.resign();
    }
  }

  close(): void {
    for (const { reader } of this.#hosted.values()) reader.close();
  }

  #openOnDemand(group: GroupId): void {
    if (this.#hosted.size >= maximumGroups || !/^[a-z][a-z0-9-]{0,15}$/.test(group)) return;
    this.#open(group).catch((error: unknown) => {
      this.#options.log.error({ group }, `cannot open the group: ${describeError(error)}`);
    });
  }

  async #openConfigured(): Promise<void> {
    for (const group of this.#configuration?.orders.keys() ?? []) await this.#open(group);
  }

  #open(group: GroupId): Promise<void> {
    if (this.#hosted.has(group)) return Promise.resolve();
    let opening = this.#opening.get(group);
    if (opening === undefined) {
      opening = this.#openFile(group).finally(() => {
        this.#opening.delete(group);
      });
      this.#opening.set(group, opening);
    }
    return opening;
  }

  async #openFile(group: GroupId): Promise<void> {
    const { self, topology, clock, random, state, cardKeys, log } = this.#options;
    const { applied, path } = await this.#writer.open(group);
    const reader = new GroupReader(path, group);
    const isCardGroup = group !== configGroup && cardKeys !== undefined;
    if (group === configGroup && cardKeys !== undefined) {
      this.#configurationReader = reader;
      this.#readConfiguration(reader);
    }
    const replica = new Replica({
      group,
      self,
      voters: this.#voters,
      mayCampaign: () => this.#isFirst(group),
      hardState: state.hardState(group),
      source: reader,
      applied,
      patient: this.#patientPeers(group),
      heartbeatMs: topology.timings.heartbeatMs,
      electionTimeoutMs: topology.timings.electionTimeoutMs,
      clock,
      writer: this.#writer,
      saveHardState: (hardState) => {
        state.saveHardState(group, hardState);
      },
      send: (to, message) => {
        this.#send(to, group, message);
      },
      listener: this.#listener,
    });
    const ledger = isCardGroup ? new SqliteLedger(reader.database) : undefined;
    const owner =
      ledger === undefined || cardKeys === undefined
        ? undefined
        : new GroupOwner({
            group,
            log: replica,
            ledger,
            configuration: () => this.#configuration,
            cardKeys,
            clock,
            random,
            localTailEntries: topology.limits.localTailEntries,
            localTailMs: topology.limits.localTailMs,
            stalledMs: topology.timings.requestDeadlineMs,
          });
    owner?.onApplied(applied);
    this.#hosted.set(group, { group, replica, reader, path, owner, ledger, failure: undefined });
    log.info({ group, applied, last: replica.log.last.index, term: replica.raft.term }, 'group opened');
  }

  /** In this release the first node of an order leads for good; its own derived row says whether it is that node. */
  #isFirst(group: GroupId): boolean {
    const { self, topology } = this.#options;
    if (group === configGroup) return topology.nodes[0]?.id === self;
    return this.#configuration?.rankIn(group) === 1;
  }

  /**
   * The last of a group's order, and the witness after them: whoever is not in the first majority of its voters. Under
   * steady load they take entries in larger steps, which halves what following costs them.
   */
  #patientPeers(group: GroupId): ReadonlySet<NodeId> {
    const order = this.#configuration?.orders.get(group) ?? [];
    const rest = this.#voters.filter((voter) => !order.includes(voter));
    return new Set([...order, ...rest].slice(Math.floor(this.#voters.length / 2) + 1));
  }

  readonly #listener: ReplicaListener = {
    onRole: (group, leading, term) => {
      const hosted = this.#mustHost(group);
      this.#options.log.info({ group, term }, leading ? 'leads the group' : 'leads the group no longer');
      if (leading) lead(hosted, term);
      else hosted.owner?.resign();
    },
    onProgress: (group, progress) => {
      this.#mustHost(group).owner?.onProgress(progress);
    },
    onApplied: (group, applied) => {
      const hosted = this.#mustHost(group);
      hosted.owner?.onApplied(applied);
      if (group === configGroup) this.#reloadConfiguration();
    },
    onMark: (group, compare, index) => {
      this.#options.onMark(group, this.#mustHost(group).path, compare, index);
    },
    onFailure: (group, reason) => {
      const hosted = this.#mustHost(group);
      hosted.failure = reason;
      hosted.owner?.resign();
      this.#options.log.error({ group, reason }, 'this copy of the group has stopped: rebuild it from the others');
    },
  };

  #reloadConfiguration(): void {
    if (this.#configurationReader === undefined) return;
    this.#readConfiguration(this.#configurationReader);
    this.#openConfigured().catch((error: unknown) => {
      this.#options.log.error(`cannot open a configured group: ${describeError(error)}`);
    });
  }

  /** Rows that somebody has changed by hand may make no sense: the last good view stays at work, and `status` tells. */
  #readConfiguration(reader: GroupReader): void {
    try {
      this.#configuration = readConfigurationView(reader.database);
      this.#configurationFault = undefined;
    } catch (error) {
      this.#configurationFault = describeError(error);
      this.#options.log.error({ reason: this.#configurationFault }, 'the configuration cannot be read: compare it');
    }
  }

  #mustHost(group: GroupId): HostedGroup {
    const hosted = this.#hosted.get(group);
    assert(hosted !== undefined, `group ${group} is open`);
    return hosted;
  }

  #send(to: NodeId, group: GroupId, message: RaftMessage): void {
    const waiting = this.#outgoing.get(to);
    if (waiting === undefined) this.#outgoing.set(to, [{ group, message }]);
    else waiting.push({ group, message });
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#options.clock.soon(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  /** All groups' messages to one peer travel together, as far as they fit. */
  #flush(): void {
    for (const [to, messages] of this.#outgoing) {
      let batch: GroupMessage[] = [];
      let bytes = 0;
      for (const each of messages) {
        const size = sizeOf(each.message);
        if (batch.length > 0 && bytes + size > maximumBatchBytes) {
          this.#options.bus.send(to, 'raft', encodeGroupMessages(batch));
          batch = [];
          bytes = 0;
        }
        batch.push(each);
        bytes += size;
      }
      if (batch.length > 0) this.#options.bus.send(to, 'raft', encodeGroupMessages(batch));
    }
    this.#outgoing.clear();
  }
}

function sizeOf(message: RaftMessage): number {
  const entries = message.kind === 'append' ? message.entries : [];
  return entries.reduce((sum, entry) => sum + entry.body.length + 24, 300);
}

/**
 * The owner's overlay begins where the file stands: index and rows are of one snapshot, for the writing thread may be
 * further than this thread has been told, and nothing may be applied twice.
 */
function lead({ owner, reader, replica }: HostedGroup, term: number): void {
  if (owner === undefined) return;
  reader.database.transaction(() => {
    const applied = reader.applied();
    owner.lead(term, applied, tailAfter(replica, applied));
  })();
}

/** Every entry of the log after this index. */
function tailAfter(replica: Replica, applied: number): LogEntry[] {
  const tail: LogEntry[] = [];
  const last = replica.log.last.index;
  for (let next = applied + 1; next <= last;) {
    const entries = replica.log.entries(next, Number.MAX_SAFE_INTEGER);
    tail.push(...entries);
    next += entries.length;
    assert(entries.length > 0, `log of ${replica.group} has entry ${next}`);
  }
  return tail;
}
