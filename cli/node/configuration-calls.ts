import { z } from 'zod';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { configGroup, nodeId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Topology } from '../../base/topology.ts';
import { absent, keyOfChange, type VersionedChange } from '../../config-db/configuration-change.ts';
import { readVersions } from '../../config-db/configuration-fold.ts';
import { endOfMove } from '../../config-db/range-changes.ts';
import { decodeConfigurationChange, encodeConfigurationChange } from '../../config-db/rows.ts';
import { readShellEdits } from '../../config-db/shell-edits.ts';
import { by, pan, parse } from './call-parameters.ts';
import {
  ConfigurationDesk,
  type ChangeReply,
  type ChangeRequest,
  type ConfigurationLog,
  type EntryPosition,
} from './configuration-desk.ts';
import { ConfigurationReports } from './configuration-reports.ts';
import type { Consensus } from './consensus.ts';
import type { KeptChange } from './change-carrier.ts';
import type { ChangeQueue, QueuedReport } from './change-queue.ts';
import type { Groups, HostedGroup } from './groups.ts';
import type { CallRequest } from './peer-calls.ts';

const versionedChanges = z
  .array(z.strictObject({ change: z.string().max(200_000), replaces: z.int().min(0) }))
  .max(10_000);

const schemas = {
  'configuration.list': z.strictObject({ from: z.int().min(0) }),
  'configuration.history': z.strictObject({
    from: z.int().min(0),
    table: z.string().max(100).optional(),
    key: z.string().max(200).optional(),
  }),
  'configuration.edits': z.strictObject({}),
  'configuration.preview': z.strictObject({ changes: versionedChanges }),
  'configuration.explain': z.strictObject({ pan }),
  'configuration.enter': z.strictObject({ by, changes: versionedChanges }),
  'configuration.queue': z.strictObject({ by, changes: versionedChanges }),
  'configuration.queued': z.strictObject({}),
  'configuration.drop': z.strictObject({ id: z.string().max(100), by }),
  'configuration.lead': z.strictObject({
    id: z.string().min(1).max(100),
    by,
    origin: z.string(),
    changes: versionedChanges,
    ends: z.string().max(40).optional(),
  }),
} as const;

/** Edits by the shell in one answer. */
const maximumShownEdits = 100;

/** An operator who queues a change hears what became of it when that is known so soon. */
const queuedAnswerMs = 2000;

/** Those that only nodes make to each other. */
export const configurationPeerMethods = ['configuration.lead'] as const;

export interface ConfigurationCallsOptions {
  readonly self: NodeId;
  readonly topology: Topology;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly groups: Groups;
  readonly consensus: Pick<Consensus, 'enter' | 'status'>;
  /** Changes that wait at this node. */
  readonly changeQueue: () => ChangeQueue;
}

/** What these calls need of the node's other calls. */
export interface ConfigurationTools {
  readonly atOwner: (group: GroupId, method: string, parameters: unknown) => Promise<unknown>;
  /** Throws OWNER_UNREACHABLE when the group is not open here. */
  readonly hosted: (group: GroupId) => HostedGroup;
}

/** What a node does when it is called about its configuration. */
export class ConfigurationCalls {
  readonly #options: ConfigurationCallsOptions;
  readonly #tools: ConfigurationTools;
  readonly #desk: ConfigurationDesk;
  readonly #reports: ConfigurationReports;

  constructor(options: ConfigurationCallsOptions, tools: ConfigurationTools) {
    this.#options = options;
    this.#tools = tools;
    const { self, topology, clock, consensus, groups, log } = options;
    this.#desk = new ConfigurationDesk({
      hosted: () => groups.hosted.get(configGroup),
      log: configurationLog(consensus),
      topology,
      clock,
      journal: log,
    });
    this.#reports = new ConfigurationReports({ self, topology, groups, hosted: tools.hosted });
  }

  async serve(request: CallRequest): Promise<unknown> {
    switch (request.method) {
      case 'configuration.list':
        return this.#reports.list(parse(schemas['configuration.list'], request).from);
      case 'configuration.history':
        return this.#reports.history(parse(schemas['configuration.history'], request));
      case 'configuration.explain':
        return this.#reports.explain(parse(schemas['configuration.explain'], request).pan);
      case 'configuration.edits':
        parse(schemas['configuration.edits'], request);
        return readShellEdits(this.#tools.hosted(configGroup).reader.database, maximumShownEdits);
      case 'configuration.preview':
        return this.#reports.preview(decodeChanges(parse(schemas['configuration.preview'], request).changes));
      case 'configuration.enter': {
        const parameters = parse(schemas['configuration.enter'], request);
        const { self: origin } = this.#options;
        return this.#tools.atOwner(configGroup, 'configuration.lead', { ...parameters, id: this.#newId(), origin });
      }
      case 'configuration.queue':
        return this.#queue(parse(schemas['configuration.queue'], request));
      case 'configuration.queued':
        parse(schemas['configuration.queued'], request);
        return this.#options.changeQueue().list();
      case 'configuration.drop': {
        const { id, by: who } = parse(schemas['configuration.drop'], request);
        return asPromise<QueuedReport>((done) => {
          this.#options.changeQueue().drop(id, who, done);
        });
      }
      case 'configuration.lead': {
        const { changes, origin, ends, ...rest } = parse(schemas['configuration.lead'], request);
        const change = { ...rest, origin: nodeId(origin), changes: decodeChanges(changes) };
        return this.#enterChange(ends === undefined ? change : { ...change, ends });
      }
      default:
        throw new SwitchError('CALL_INVALID', `there is no call "${request.method.slice(0, 40)}"`);
    }
  }

  /** All of a range that moves has come to its heir: enters that the range is the heir's (R12). */
  async endMove(move: string): Promise<void> {
    const { database } = this.#tools.hosted(configGroup).reader;
    const before = database.transaction(() => readVersions(database))();
    const changes = endOfMove(before.rows, move).map((change) => ({
      change,
      replaces: before.versionOf(change.table, keyOfChange(change))?.version ?? absent,
    }));
    if (changes.length === 0) return;
    await this.#tools.atOwner(configGroup, 'configuration.lead', {
      ...{ id: `end of move ${move}`, by: `move ${move}`, origin: this.#options.self, ends: move },
      changes: encodeChanges(changes),
    });
  }

  /** A change that this node keeps until it is known what became of it: the log index, 0 when nothing had to be changed. */
  async enterKept(change: KeptChange): Promise<number> {
    const parameters = { ...change, origin: this.#options.self };
    return (await this.#tools.atOwner(configGroup, 'configuration.lead', parameters)) as number;
  }

  /** Names a change for good. */
  #newId(): string {
    return `${this.#options.self}-${this.#options.random.bytes(12).toString('hex')}`;
  }

  /** Keeps a change here, and says what has become of it when it has been brought, or that it waits. */
  async #queue({ by: who, changes }: z.infer<(typeof schemas)['configuration.queue']>): Promise<QueuedReport> {
    const queue = this.#options.changeQueue();
    const id = this.#newId();
    // What no configuration may hold is told at once, and not kept.
    decodeChanges(changes);
    await asPromise<undefined>((done) => {
      queue.add({ id, by: who, changes }, done);
    });
    return asPromise<QueuedReport>((done) => {
      queue.whenEnded(id, queuedAnswerMs, done);
    });
  }

  async #enterChange(request: ChangeRequest): Promise<number> {
    const reply = await new Promise<ChangeReply>((resolve) => {
      this.#desk.enter(request, resolve);
    });
    if (reply.kind === 'failed') throw reply.error;
    return reply.index;
  }
}

/** A change as it travels: its canonical JSON, and the version that it replaces. */
export function encodeChanges(changes: readonly VersionedChange[]): { change: string; replaces: number }[] {
  return changes.map(({ change, replaces }) => ({ change: encodeConfigurationChange(change), replaces }));
}

function decodeChanges(changes: readonly { readonly change: string; readonly replaces: number }[]): VersionedChange[] {
  return changes.map(({ change, replaces }) => ({ change: decodeConfigurationChange(change), replaces }));
}

/** The log of `config` in the thread of consensus. */
function configurationLog(consensus: Pick<Consensus, 'enter' | 'status'>): ConfigurationLog {
  return {
    end: (done) => {
      const read = async (): Promise<EntryPosition | undefined> => {
        const replica = (await consensus.status()).groups.find(({ group }) => group === configGroup);
        return replica?.role === 'leader' ? { index: replica.last, term: replica.lastTerm } : undefined;
      };
      void orNothing(read()).then(done);
    },
    enter: (body, done) => {
      void orNothing(consensus.enter(configGroup, body)).then(done);
    },
  };
}

function asPromise<Value>(ask: (done: (outcome: Value | SwitchError) => void) => void): Promise<Value> {
  return new Promise((resolve, reject) => {
    ask((outcome) => {
      if (outcome instanceof SwitchError) reject(outcome);
      else resolve(outcome);
    });
  });
}

/** Consensus has ended where it rejects: the node is stopping. */
function orNothing<T>(promise: Promise<T | undefined>): Promise<T | undefined> {
  return promise.catch(() => undefined);
}
