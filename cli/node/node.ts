/*
 * Over 500 lines because it is the composition root: who needs whom can only be seen in one place.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { CardKeys } from '../../base/card-keys.ts';
import { delay, type Clock, type Timer } from '../../base/clock.ts';
import { describeError, SwitchError, whenReadable } from '../../base/errors.ts';
import { configGroup, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import { Remarks } from '../../base/remarks.ts';
import type { Random } from '../../base/random.ts';
import { ReplayGuard } from '../../base/replay-guard.ts';
import { Sealer } from '../../base/sealing.ts';
import { voters, type Endpoint, type NodeSpecification, type Topology } from '../../base/topology.ts';
import { connectNatsBus, type NatsBus } from '../../replication/nats-bus.ts';
import { indexOfChange } from '../../config-db/configuration-history.ts';
import { closedShellEdits } from '../../config-db/shell-edits.ts';
import { acquireFolderLock, type FolderLock } from '../../store/folder-lock.ts';
import { EdgeFile } from '../../store/edge-store.ts';
import { countStandIns } from '../../store/ledger-reports.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import { NodeState } from '../../store/node-state.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import { SalvageFile } from '../../store/salvage.ts';
import { AcquirerServer } from '../../switch/acquirer-server.ts';
import { Edge } from '../../switch/edge.ts';
import { Forwarder } from '../../switch/forward.ts';
import { RangeMover } from '../../switch/range-mover.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';
import { Session } from '../../switch/session.ts';
import { operatorId, readSecrets, type ProcessSecrets } from '../cluster/secrets.ts';
import { purgeCards } from './cards-desk.ts';
import { ChangeQueue } from './change-queue.ts';
import type { Bring } from './change-carrier.ts';
import { Consensus } from './consensus.ts';
import { brokerLine } from './broker-line.ts';
import type { ConsensusEvent, ConsensusStatus } from './consensus-thread.ts';
import { Groups } from './groups.ts';
import { Maintenance } from './maintenance.ts';
import { LoopDelay, RequestMeters } from './meters.ts';
import { metricsText } from './metrics.ts';
import { Monitor } from './monitor.ts';
import { Operations } from './operations.ts';
import { errorReply, PeerCalls, type CallReply, type CallRequest } from './peer-calls.ts';
import { RepairDesk } from './repair-desk.ts';
import { processStatus, siteOf } from './process-status.ts';
import { diskStatus, processResources } from './resources.ts';
import { noEdits, noQueue, type ProcessStatus } from './status.ts';
import { ShellDesk } from './shell-desk.ts';
import { groupFileName, groupOfFile } from './thread-writer.ts';

export interface NodeOptions {
  readonly id: NodeId;
  readonly topology: Topology;
  readonly dataFolder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Something that the process cannot go on after: a broken invariant, a dead thread. */
  readonly onFatal: (error: Error) => void;
}

/** The link that every connection to a node's acquirer port belongs to in this release. */
const onlyLink = 'acquirer';

/** Answers to operators; the bus takes a little more. */
const maximumAnswerBytes = 950_000;
const tickMs = 25;
const slowTickMs = 1000;
/** How soon a change that this node keeps, of the sqlite3 shell or queued, goes on its way. */
const keptTickMs = 100;
/** A pause of the deciding thread that acquirers notice. */
const longDelayMs = 250;
const closeGraceMs = 3000;
/** Election timeouts without an owner after which an edge may stand in: takeovers need less. */
const standInAfterTimeouts = 2;
/** How long a stopping node waits for others to take over what it leads. */
const handOverMs = 1500;
/** Each second, for each group: more than a group can approve. */
const expiriesPerTick = 10_000;

/**
 * One process of the cluster, put together: bus, groups, and on a node the edge with its acquirers' port. Nothing
 * is decided here; this file only knows who needs whom, and the order of starting and stopping.
 */
export class QuadrantNode {
  readonly #options: NodeOptions;
  readonly #specification: NodeSpecification | undefined;
  readonly #folder: string;
  readonly #lock: FolderLock;
  readonly #state: NodeState;
  readonly #bus: NatsBus;
  readonly #consensus: Consensus;
  readonly #groups: Groups;
  readonly #maintenance: Maintenance;
  readonly #repairs: RepairDesk;
  readonly #sealer: Sealer | undefined;
  readonly #guard: ReplayGuard;
  #edge: Edge | undefined;
  #files: { readonly edgeFile: EdgeFile; readonly salvage: SalvageFile } | undefined;
  #forwarder: Forwarder | undefined;
  #calls: PeerCalls | undefined;
  #operations: Operations | undefined;
  #mover: RangeMover | undefined;
  #shellDesk: ShellDesk | undefined;
  #changeQueue: ChangeQueue | undefined;
  #server: AcquirerServer | undefined;
  #ticks: Timer[] = [];
  #stopping = false;
  #stopped = false;
  #serving = false;
  #unsynced = 0;
  #monitor: Monitor | undefined;
  readonly #remarks: Remarks;
  readonly #meters: RequestMeters;
  readonly #loopDelay: LoopDelay;
  readonly #startedAtSeconds: number;
  readonly #counters = { unreadable: 0, 'format-error': 0, unmatched: 0, 'unpackable-answer': 0, closed: 0 };

  /** Starts the process and resolves when it serves. Throws SwitchErrors; nothing is left running then. */
  static async start(options: NodeOptions): Promise<QuadrantNode> {
    const folder = join(options.dataFolder, options.id);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const lock = acquireFolderLock(folder, `quadrant node start ${options.id}`);
    let bus: NatsBus | undefined;
    let node: QuadrantNode | undefined;
    let consensus: Consensus | undefined;
    let maintenance: Maintenance | undefined;
    try {
      const secrets = readSecrets(options.dataFolder, options.id);
      bus = await connectNatsBus({
        self: options.id,
        brokers: brokersFor(options.topology, options.id),
        nkeySeed: Buffer.from(secrets.nkeySeed),
        clock: options.clock,
        pingMs: options.topology.timings.brokerPingMs,
        reconnectMs: options.topology.timings.brokerReconnectMs,
        onFatal: options.onFatal,
        onStatus: (status, detail) => {
          const line = brokerLine(status, detail, 'main');
          options.log[line.level](line.details, line.message);
        },
      });
      const started: { node: QuadrantNode | undefined } = { node: undefined };
      const isWitness = options.topology.witness?.id === options.id;
      maintenance = new Maintenance({
        data: {
          folder,
          folds: isWitness ? undefined : { self: options.id, topology: { nodes: options.topology.nodes } },
        },
        onDeath: options.onFatal,
        onCheckpointFailed: (reason) => {
          started.node?.onCheckpointFailed(reason);
        },
      });
      consensus = await Consensus.start({
        data: {
          self: options.id,
          topology: options.topology,
          folder,
          brokers: brokersFor(options.topology, options.id),
          nkeySeed: secrets.nkeySeed,
          maintenance: maintenance.connect(),
        },
        onEvent: (event) => {
          started.node?.onConsensus(event);
        },
        onDeath: options.onFatal,
      });
      node = new QuadrantNode(options, folder, lock, bus, secrets, consensus, maintenance);
      started.node = node;
      await node.#begin(folder);
      return node;
    } catch (error) {
      // Its threads would keep the process alive.
      if (node === undefined) {
        await consensus?.close();
        await maintenance?.close();
      } else {
        await node.stop();
      }
      await bus?.close();
      lock.release();
      throw error;
    }
  }

  private constructor(
    options: NodeOptions,
    folder: string,
    lock: FolderLock,
    bus: NatsBus,
    secrets: ProcessSecrets,
    consensus: Consensus,
    maintenance: Maintenance,
  ) {
    const { id, topology, clock, random, log } = options;
    this.#options = options;
    this.#remarks = new Remarks(log);
    this.#meters = new RequestMeters(this.#remarks);
    this.#loopDelay = new LoopDelay(clock, tickMs, this.#meters.loopDelayMs);
    this.#startedAtSeconds = Math.round(clock.wallMs() / 1000 - process.uptime());
    this.#specification = topology.nodes.find((node) => node.id === id);
    this.#folder = folder;
    this.#lock = lock;
    this.#bus = bus;
    this.#guard = new ReplayGuard(clock);
    this.#state = new NodeState(join(folder, 'consensus.db'));
    const { sealingKey, panHashKey, panCipherKey } = secrets;
    const isNode = this.#specification !== undefined;
    if (isNode && (sealingKey === undefined || panHashKey === undefined || panCipherKey === undefined)) {
      throw new SwitchError('SECRETS_INVALID', `${id} has no sealing or card keys among its secrets`);
    }
    const cardKeys =
      panHashKey === undefined || panCipherKey === undefined ? undefined : new CardKeys(1, panHashKey, panCipherKey);
    this.#sealer = sealingKey === undefined ? undefined : new Sealer(sealingKey, random);
    this.#consensus = consensus;
    this.#maintenance = maintenance;
    this.#repairs = new RepairDesk({
      id,
      rules: topology,
      folder,
      clock,
      log,
      hasGroup: (group) => this.#groups.hosted.has(group),
      repair: (group, batch) => consensus.repair(group, batch),
      readRows: (group, mark, table, keys, copy) => maintenance.readRows(group, mark, table, keys, copy),
    });
    this.#groups = new Groups({
      topology,
      clock,
      random,
      log,
      cardKeys,
      meter: this.#meters,
      port: {
        configure: (orders, ranks) => {
          consensus.post({ kind: 'configure', orders, ranks });
        },
        propose: (group, epoch, first, bodies) => {
          consensus.post({ kind: 'propose', group, epoch, first, bodies });
        },
        paused: (group) => {
          consensus.post({ kind: 'paused', group });
        },
        fail: (group, reason, cause) => {
          consensus.post({ kind: 'fail', group, reason, cause });
        },
      },
      onMark: (group, path, compare, index) => {
        this.#onMark(group, path, compare, index);
      },
      onLeader: (group) => {
        this.#edge?.onLeader(group);
      },
    });
    if (this.#specification !== undefined && this.#sealer !== undefined && cardKeys !== undefined) {
      this.#buildEdge(this.#specification, this.#sealer, cardKeys);
    }
  }

  get id(): NodeId {
    return this.#options.id;
  }

  onConsensus(event: ConsensusEvent): void {
    if (event.kind === 'log') this.#options.log[event.level](event.details, event.message);
    else if (!this.#stopped) this.#groups.onEvent(event);
  }

  onCheckpointFailed(reason: string): void {
    this.#remarks.say('warn', 'checkpoint-failed', { reason }, 'a write-ahead log stays and grows: it is tried again');
  }

  async status(): Promise<ProcessStatus> {
    return this.#statusWith(await this.#consensus.status());
  }

  async #statusWith(consensus: ConsensusStatus): Promise<ProcessStatus> {
    return processStatus({
      id: this.id,
      topology: this.#options.topology,
      version,
      specification: this.#specification,
      consensus,
      disk: await diskStatus(this.#folder),
      configuration: this.#groups.configuration,
      configurationFault: this.#groups.configurationFault,
      broker: this.#bus.broker,
      connections: this.#server?.connections ?? 0,
      inFlight: this.#edge?.inFlight ?? 0,
      reversalsDue: this.#edge?.reversalsDue ?? 0,
      standIn: this.#standIns(),
      edits: this.#shellDesk?.status ?? noEdits,
      queue: this.#changeQueue?.status ?? noQueue,
      restrictionsUndelivered: this.#edge?.undeliveredRestrictions.length ?? 0,
      salvage: (group) => this.#files?.salvage.counts(group) ?? { pending: 0, adopted: 0, voided: 0 },
      counters: {
        ...this.#counters,
        'late-answers': this.#edge?.late ?? 0,
        'unsynced-reversals': this.#edge?.unsyncedReversals ?? 0,
        'refused-forwards': this.#forwarder?.refused ?? 0,
        'messages-too-large': this.#bus.tooLarge,
      },
    });
  }

  /** Takes no new requests, answers what is in flight, closes files. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#serving = false;
    await this.#handOver();
    await this.#server?.close(closeGraceMs);
    // Until here it has heard peers and consensus: what was in flight had to be answered.
    this.#stopped = true;
    await this.#monitor?.close();
    for (const timer of this.#ticks) timer.cancel();
    this.#groups.stop();
    await this.#bus.close();
    await this.#consensus.close();
    await this.#maintenance.close();
    this.#groups.close();
    this.#state.close();
    this.#files?.edgeFile.close();
    this.#files?.salvage.close();
    this.#lock.release();
  }

  #standIns(): ProcessStatus['standIn'] {
    const entered = [...this.#groups.hosted.values()].reduce(
      (sum, { ledger, reader }) =>
        sum + (ledger === undefined ? 0 : (whenReadable(() => countStandIns(reader.database, this.id)) ?? 0)),
      0,
    );
    return { pending: this.#edge?.standIns.length ?? 0, entered };
  }

  /** What this node leads goes to others first, so that nobody has to wait for an election (R7). */
  async #handOver(): Promise<void> {
    const { clock } = this.#options;
    const untilMs = clock.monotonicMs() + handOverMs;
    try {
      await this.#consensus.drain(true);
      while (clock.monotonicMs() < untilMs && (await this.#consensus.status()).canHandOver) await delay(clock, 10);
    } catch (error) {
      const reason = describeError(error);
      this.#options.log.warn({ event: 'hand-over-failed', reason }, 'could not hand over before stopping');
    }
  }

  async #begin(folder: string): Promise<void> {
    const { log } = this.#options;
    await this.#startMonitor();
    // The configuration first: it names the other groups, and this node's rank in each.
    await this.#consensus.open(configGroup);
    for (const file of readdirSync(folder)) {
      const group = groupOfFile(file);
      if (group !== undefined && group !== configGroup) await this.#consensus.open(group);
    }
    await this.#consensus.serve();
    if (this.#specification !== undefined) {
      this.#bus.receive(['forward', 'call'], (from, channel, bytes) => {
        this.#receive(from, channel, bytes);
      });
    }
    this.#bus.serveCaller(operatorId, (bytes) => this.#serveOperator(bytes));
    this.#every(tickMs, () => {
      const delayMs = Math.round(this.#loopDelay.tick());
      if (delayMs > longDelayMs)
        this.#remarks.say('warn', 'stood-still', { delayMs }, 'the deciding thread stood still');
      this.#consensus.ticked(this.#options.clock.monotonicMs());
      this.#edge?.tick();
      this.#mover?.tick();
    });
    this.#every(keptTickMs, () => {
      this.#shellDesk?.tick();
      this.#changeQueue?.tick();
    });
    this.#every(slowTickMs, () => {
      this.#lookAtEdgeFile();
      this.#remarks.endOfSecond();
      this.#server?.tick();
      this.#enterEnds();
      this.#checkpoint();
    });
    await this.#server?.listen();
    this.#serving = true;
    const { acquirer } = this.#specification ?? {};
    log.info(
      { event: 'serving', acquirer, monitor: this.#monitorEndpoint, broker: this.#bus.broker, version },
      'serving',
    );
  }

  #lookAtEdgeFile(): void {
    const unsynced = this.#edge?.unsyncedReversals ?? 0;
    if (unsynced === this.#unsynced) return;
    this.#unsynced = unsynced;
    const event = 'edge-file-failed';
    this.#options.log.error(
      { event, unsynced },
      'edge.db cannot be written: approvals to take back are in memory only',
    );
  }

  get #monitorEndpoint(): Endpoint | undefined {
    return (this.#specification ?? this.#options.topology.witness)?.monitor;
  }

  /** Before anything else is opened, so that monitoring can tell a start that takes long from a process that is away. */
  async #startMonitor(): Promise<void> {
    const endpoint = this.#monitorEndpoint;
    if (endpoint === undefined) return;
    this.#monitor = new Monitor({
      endpoint,
      clock: this.#options.clock,
      metrics: () => this.#metrics(),
      reasons: async () => {
        if (!this.#serving) return [this.#stopping ? 'it is stopping' : 'it is starting'];
        const { state, reasons } = await this.status();
        return state === 'ready' ? [] : [...reasons, ...(reasons.length === 0 ? [`it is ${state}`] : [])];
      },
    });
    await this.#monitor.listen();
  }

  async #metrics(): Promise<string> {
    const consensus = await this.#consensus.status();
    return metricsText({
      status: await this.#statusWith(consensus),
      isServing: this.#serving,
      requests: this.#meters,
      shared: this.#consensus.meters,
      counts: new Map(consensus.groups.map(({ group, counts }) => [group, counts])),
      disconnects: { main: this.#bus.disconnects, consensus: consensus.disconnects },
      connected: { main: this.#bus.connected, consensus: consensus.connected },
      resources: await processResources(this.#startedAtSeconds),
    });
  }

  #buildEdge(specification: NodeSpecification, sealer: Sealer, cardKeys: CardKeys): void {
    const { id, topology, clock, random } = this.#options;
    const bus = this.#bus;
    const groups = this.#groups;
    const forwarder = new Forwarder({
      self: id,
      sealer,
      clock,
      send: (to, bytes) => {
        bus.send(to, 'forward', bytes);
      },
      onRequest: (from, request) => {
        edge.onRequest(from, request);
      },
      onAnswer: (_from, answer) => {
        edge.onAnswer(answer);
      },
      onClaim: (from, claim) => {
        edge.onClaim(from, claim);
      },
      onSettlement: (_from, settlement) => {
        edge.onSettlement(settlement);
      },
    });
    const edgeFile = new EdgeFile(join(this.#folder, 'edge.db'), clock);
    const salvage = new SalvageFile(join(this.#folder, 'salvage.db'));
    this.#files = { edgeFile, salvage };
    const edge = new Edge({
      self: id,
      boot: this.#state.countBoot(Math.floor(clock.wallMs() / 1000)),
      clock,
      configuration: () => groups.configuration,
      leaderOf: (group) => groups.leaderOf(group),
      ownerOf: (group) => groups.ownerOf(group),
      forwarder,
      store: edgeFile,
      salvage,
      cardKeys,
      ledgerOf: (group) => {
        const hosted = groups.hosted.get(group);
        return hosted?.isCurrent === true ? hosted.ledger : undefined;
      },
      standIn: {
        random,
        afterMs: standInAfterTimeouts * topology.timings.electionTimeoutMs,
        maximumCount: topology.limits.standInCount,
        maximumMinor: BigInt(topology.limits.standInMinor),
      },
      requestDeadlineMs: topology.timings.requestDeadlineMs,
      meter: this.#meters,
    });
    const operations: Operations = new Operations({
      self: id,
      topology,
      clock,
      random,
      log: this.#options.log,
      groups,
      consensus: this.#consensus,
      cardKeys,
      pendingStandIns: () => edge.standIns,
      changeQueue: () => changeQueue,
      restrict: (card, kept, entered) => edge.restrict(card, kept, entered),
      callPeer: (to, request, timeoutMs) => calls.call(to, request, timeoutMs),
    });
    const calls = new PeerCalls({
      self: id,
      sealer,
      clock,
      random,
      send: (to, bytes) => {
        bus.send(to, 'call', bytes);
      },
      serve: (_from, request) => operations.serve('peer', request),
    });
    const bring: Bring = (change, done) => {
      void operations.enterKept(change).then(done, done);
    };
    const database = (): GroupReader['database'] | undefined => groups.hosted.get(configGroup)?.reader.database;
    const changeQueue = new ChangeQueue({
      clock,
      log: this.#options.log,
      store: edgeFile,
      bring,
      indexOf: (change) => {
        const file = database();
        return file && indexOfChange(file, change);
      },
    });
    this.#changeQueue = changeQueue;
    this.#shellDesk = new ShellDesk({
      self: id,
      clock,
      log: this.#options.log,
      database,
      bring,
      close: (outcome) => {
        this.#consensus.post({ kind: 'close-edit', group: configGroup, outcome });
      },
      closedBefore: closedShellEdits(currentGroupFile(join(this.#folder, groupFileName(configGroup)))),
    });
    this.#edge = edge;
    this.#forwarder = forwarder;
    this.#calls = calls;
    this.#operations = operations;
    this.#mover = new RangeMover({
      clock,
      configuration: () => groups.configuration,
      ownerOf: (group) => groups.ownerOf(group),
      foldOf: (group) => groups.foldOf(group),
      end: (move) => {
        operations.endMove(move);
      },
      onFault: (move, reason) => {
        this.#remarks.say('warn', 'range-move-failed', { move, reason }, 'a range cannot be taken over: compare it');
      },
    });
    this.#server = new AcquirerServer({
      endpoint: specification.acquirer,
      clock,
      openSession: (remote, close) => {
        this.#remarks.say('info', 'acquirer-connected', { remote }, 'an acquirer connected');
        return new Session({
          close,
          meter: this.#meters,
          onSign: (on) => {
            const [event, message] = on
              ? ['acquirer-signed-on', 'an acquirer signed on']
              : ['acquirer-signed-off', 'an acquirer signed off: its requests get 91'];
            this.#remarks.say('info', event, { remote, link: onlyLink }, message);
          },
          link: onlyLink,
          spec: iso87Ascii,
          handle: (message, link, respond) => {
            edge.handle(message, link, respond);
          },
          onOddity: (kind, detail) => {
            this.#counters[kind] += 1;
            this.#remarks.say('warn', 'acquirer-message', { remote, kind, detail }, 'message of an acquirer');
          },
        });
      },
      maximumConnections: topology.limits.acquirerConnections,
      maximumInFlight: topology.limits.requestsInFlightPerConnection,
      maximumFrameBytes: topology.limits.frameBytes,
      partialFrameMs: topology.timings.partialFrameMs,
      slowReaderMs: topology.timings.slowReaderMs,
      onClosed: (remote, reason) => {
        this.#counters.closed += 1;
        this.#remarks.say('warn', 'acquirer-closed', { remote, reason }, 'connection of an acquirer closed');
      },
      onEnded: (remote) => {
        this.#remarks.say('info', 'acquirer-disconnected', { remote }, 'the connection of an acquirer has ended');
      },
      onRefused: (remote) => {
        const limit = topology.limits.acquirerConnections;
        this.#remarks.say('warn', 'acquirer-refused', { remote, limit }, 'an acquirer was turned away: too many');
      },
    });
  }

  #receive(from: NodeId, channel: string, bytes: Buffer): void {
    if (this.#stopped || !voters(this.#options.topology).includes(from)) return;
    if (channel === 'forward') this.#forwarder?.receive(from, bytes);
    else this.#calls?.receive(from, bytes);
  }

  /** Calls of operators: sealed where card numbers may be in them, which is at every node; a witness has no key. */
  async #serveOperator(bytes: Buffer): Promise<Buffer> {
    const { id } = this.#options;
    const clear = this.#sealer === undefined ? bytes : this.#sealer.open(`admin ${operatorId} ${id}`, bytes);
    const reply =
      clear === undefined
        ? errorReply(new SwitchError('CALL_INVALID', 'the call is not sealed with the key of this cluster'))
        : await this.#carryOut(clear);
    let answer = Buffer.from(JSON.stringify(reply));
    if (answer.length > maximumAnswerBytes) {
      const tooLarge = new SwitchError('CALL_INVALID', `the answer has ${answer.length} bytes: ask for less at a time`);
      answer = Buffer.from(JSON.stringify(errorReply(tooLarge)));
    }
    return this.#sealer?.seal(`admin ${id} ${operatorId}`, answer) ?? answer;
  }

  async #carryOut(bytes: Buffer): Promise<CallReply> {
    try {
      const request = JSON.parse(bytes.toString('utf8')) as CallRequest & {
        readonly id: unknown;
        readonly at: unknown;
      };
      const refusal = this.#guard.refuse(request.id, request.at);
      if (refusal !== undefined) throw new SwitchError('CALL_INVALID', refusal);
      if (request.method === 'status') return { kind: 'result', result: await this.status() };
      if (request.method === 'compare.call') {
        return { kind: 'result', result: await this.#maintenance.compare(request.parameters) };
      }
      if (RepairDesk.serves(request.method)) {
        return { kind: 'result', result: await this.#repairs.serve({ ...request, method: request.method }) };
      }
      if (this.#operations === undefined) {
        return errorReply(new SwitchError('CALL_INVALID', `a witness does not know "${request.method.slice(0, 40)}"`));
      }
      return await this.#operations.serve('operator', request);
    } catch (error) {
      return errorReply(error);
    }
  }

  #onMark(group: GroupId, path: string, compare: string, index: number): void {
    void this.#maintenance.openSnapshot(group, path, compare, index).finally(() => {
      if (!this.#stopped && !this.#repairs.holds(group, compare)) this.#consensus.post({ kind: 'resume', group });
    });
  }

  /** The bulk is moved by the maintenance thread, what came meanwhile by the writer: only then the log starts anew. */
  #checkpoint(): void {
    void this.#maintenance.checkpoint().then((files) => {
      for (const file of files) {
        const group = groupOfFile(file);
        if (group !== undefined) this.#consensus.post({ kind: 'finish-checkpoint', group });
      }
    });
  }

  /** As owner: enters what time brings, holds that end and deleted cards (R9: an entry, never a node's clock at apply). */
  #enterEnds(): void {
    for (const { owner } of this.#groups.hosted.values()) {
      if (owner?.ready !== true) continue;
      owner.expireHolds(expiriesPerTick);
      owner.reading(() => {
        purgeCards(owner, this.#options.clock.wallMs(), this.id);
      });
    }
  }

  /** Repeats `action`; what it throws is a broken invariant and ends the process. */
  #every(intervalMs: number, action: () => void): void {
    const slot = this.#ticks.length;
    const next = (): void => {
      if (this.#stopped) return;
      try {
        action();
      } catch (error) {
        this.#options.onFatal(error instanceof Error ? error : new Error(describeError(error)));
        return;
      }
      this.#ticks[slot] = this.#options.clock.after(intervalMs, next);
    };
    this.#ticks.push(this.#options.clock.after(intervalMs, next));
  }
}

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { readonly version: string }
).version;

/** Brokers in the order in which a process tries them: its own site's first. */
export function brokersFor(topology: Topology, id: NodeId): readonly Endpoint[] {
  const site = siteOf(topology, id);
  return [...topology.brokers]
    .sort((one, other) => Number(other.site === site) - Number(one.site === site))
    .map((broker) => broker.client);
}
