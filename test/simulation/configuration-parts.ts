import type { Random } from '../../base/random.ts';
import { configGroup, type NodeId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import type { Bring } from '../../cli/node/change-carrier.ts';
import { ChangeQueue } from '../../cli/node/change-queue.ts';
import { ConfigurationDesk, type ChangeRequest } from '../../cli/node/configuration-desk.ts';
import type { Groups } from '../../cli/node/groups.ts';
import { callLeader } from '../../cli/node/leader-calls.ts';
import { errorReply, type CallReply, type CallRequest } from '../../cli/node/peer-calls.ts';
import { ShellDesk } from '../../cli/node/shell-desk.ts';
import { errorCatalogue, SwitchError, type ErrorCode } from '../../base/errors.ts';
import type { RewriteTopology } from '../../config-db/rewrite.ts';
import { decodeConfigurationChange } from '../../config-db/rows.ts';
import { indexOfChange } from '../../config-db/configuration-history.ts';
import type { Driver } from '../../replication/driver.ts';
import type { EdgeFile } from '../../store/edge-store.ts';
import type { EditOutcome } from '../../store/group-file.ts';
import type { Thread } from './machine.ts';

/** A change as it goes from the node where it was entered to the leader of `config`. */
interface CarriedRequest extends Omit<ChangeRequest, 'changes'> {
  readonly changes: readonly { readonly change: string; readonly replaces: number }[];
}

type Wire =
  | { readonly kind: 'call'; readonly id: string; readonly request: CallRequest }
  | { readonly kind: 'reply'; readonly id: string; readonly reply: CallReply };

export interface ConfigurationPartsOptions {
  readonly self: NodeId;
  readonly main: Thread;
  readonly consensus: Thread;
  readonly random: Random;
  readonly topology: RewriteTopology;
  readonly groups: Groups;
  readonly driver: Driver;
  readonly store: Pick<EdgeFile, 'submit' | 'queuedChanges'>;
  readonly send: (to: NodeId, bytes: Buffer) => void;
  readonly closeEdit: (outcome: EditOutcome) => void;
}

const tickMs = 100;
const silent = createLogger({ process: 'simulation', level: 'silent' });

/**
 * What a node does about changes of the configuration: the desk, the queue and what is edited by the shell, put together
 * as cli/node does, with calls between nodes over this simulation's bus.
 */
export class ConfigurationParts {
  readonly queue: ChangeQueue;
  readonly #options: ConfigurationPartsOptions;
  readonly #desk: ConfigurationDesk;
  readonly #shell: ShellDesk;
  readonly #waiting = new Map<string, (reply: CallReply) => void>();
  /** A call that the bus doubles is carried out once (cli/node/peer-calls.ts). */
  readonly #taken = new Set<string>();
  readonly #start: string;
  #calls = 0;

  constructor(options: ConfigurationPartsOptions) {
    const { self, main, consensus, random, topology, groups, driver, store, closeEdit } = options;
    this.#options = options;
    this.#start = `${self}.${String(random.below(1_000_000_000))}`;
    const toConsensus = consensus.channel(random);
    const toMain = main.channel(random);
    const inConsensus = <Answer>(ask: () => Answer, done: (answer: Answer) => void): void => {
      toConsensus(() => {
        const answer = ask();
        toMain(() => {
          done(answer);
        });
      });
    };
    this.#desk = new ConfigurationDesk({
      hosted: () => groups.hosted.get(configGroup),
      log: {
        end: (done) => {
          inConsensus(() => {
            const found = driver.status().find(({ group }) => group === configGroup);
            return found?.role === 'leader' ? { index: found.last, term: found.lastTerm } : undefined;
          }, done);
        },
        enter: (body, done) => {
          inConsensus(() => driver.enter(configGroup, [body]), done);
        },
      },
      topology,
      clock: main,
      journal: silent,
    });
    const database = () => groups.hosted.get(configGroup)?.reader.database;
    const bring: Bring = (change, done) => {
      this.enter({ ...change, origin: self }, (reply) => {
        if (reply.kind === 'result') done(reply.result as number);
        else if (reply.code in errorCatalogue) done(new SwitchError(reply.code as ErrorCode, reply.message));
        else done(new Error(reply.message));
      });
    };
    this.queue = new ChangeQueue({
      clock: main,
      log: silent,
      store,
      bring,
      indexOf: (id) => {
        const file = database();
        return file && indexOfChange(file, id);
      },
    });
    this.#shell = new ShellDesk({
      self,
      clock: main,
      log: silent,
      database,
      bring,
      close: closeEdit,
      closedBefore: [],
    });
    const tick = (): void => {
      this.#shell.tick();
      this.queue.tick();
      main.after(tickMs, tick);
    };
    main.after(random.below(tickMs), tick);
  }

  /** Has the leader of `config` enter a change, from this node, as an operator's call or a kept change does. */
  enter(change: CarriedRequest, done: (reply: CallReply) => void): void {
    const { self, main, groups } = this.#options;
    callLeader(
      {
        self,
        clock: main,
        leaderOf: (group) => groups.leaderOf(group),
        serve: (request, answered) => {
          this.#serve(request, answered);
        },
        callPeer: (to, request, timeoutMs, answered) => {
          this.#call(to, request, timeoutMs, answered);
        },
      },
      configGroup,
      { method: 'configuration.lead', parameters: change },
      done,
    );
  }

  receive(from: NodeId, bytes: Buffer): void {
    const wire = JSON.parse(bytes.toString('utf8')) as Wire;
    if (wire.kind === 'reply') {
      this.#waiting.get(wire.id)?.(wire.reply);
      return;
    }
    if (this.#taken.has(wire.id)) return;
    this.#taken.add(wire.id);
    this.#serve(wire.request, (reply) => {
      this.#send(from, { kind: 'reply', id: wire.id, reply });
    });
  }

  #serve({ parameters }: CallRequest, answered: (reply: CallReply) => void): void {
    const change = parameters as CarriedRequest;
    const changes = change.changes.map((each) => ({ ...each, change: decodeConfigurationChange(each.change) }));
    this.#desk.enter({ ...change, changes }, (reply) => {
      answered(reply.kind === 'entered' ? { kind: 'result', result: reply.index } : errorReply(reply.error));
    });
  }

  #call(to: NodeId, request: CallRequest, timeoutMs: number, answered: (reply: CallReply) => void): void {
    const id = `${this.#start}.${String(++this.#calls)}`;
    const settle = (reply: CallReply): void => {
      if (!this.#waiting.delete(id)) return;
      timer.cancel();
      answered(reply);
    };
    const timer = this.#options.main.after(timeoutMs, () => {
      settle(errorReply(new SwitchError('NODE_UNREACHABLE', `${to} did not answer`)));
    });
    this.#waiting.set(id, settle);
    this.#send(to, { kind: 'call', id, request });
  }

  #send(to: NodeId, wire: Wire): void {
    this.#options.send(to, Buffer.from(JSON.stringify(wire)));
  }
}
