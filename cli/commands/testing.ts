import { PassThrough } from 'node:stream';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { parseTopology, voters, type Topology } from '../../base/topology.ts';
import type { CommandContext } from '../context.ts';
import { completeStatus, type GroupStatus, type ProcessStatus } from '../node/status.ts';
import type { ClusterAnswers } from './situation.ts';

/** For tests only: what processes of a cluster answer, and a cluster that answers so. */

export const topology: Topology = parseTopology(
  `
cluster: test
sites: [{ id: east }, { id: west }, { id: north }]
nodes:
  - { id: n1, site: east, acquirer: { port: 8581 } }
  - { id: n2, site: east, acquirer: { port: 8582 } }
  - { id: n3, site: west, acquirer: { port: 8583 } }
  - { id: n4, site: west, acquirer: { port: 8584 } }
witness: { id: w1, site: north }
brokers:
  - { id: b-east, site: east, client: { port: 7421 }, cluster: { port: 7431 } }
  - { id: b-west, site: west, client: { port: 7422 }, cluster: { port: 7432 } }
  - { id: b-north, site: north, client: { port: 7423 }, cluster: { port: 7433 } }
`,
  'nodes.yaml',
);

const members: readonly string[] = voters(topology);
const orders: Readonly<Record<string, readonly string[]>> = {
  a: ['n1', 'n2', 'n3', 'n4'],
  b: ['n2', 'n1', 'n4', 'n3'],
  config: ['n1', 'n2', 'n3', 'n4'],
};

/** A copy of a group with nothing special about it: log and commit at 100, in term 3. */
export function copyOf(name: string, changes: Partial<GroupStatus> = {}): GroupStatus {
  return {
    name,
    role: 'follower',
    leader: undefined,
    term: 3,
    last: 100,
    lastTerm: 3,
    durable: 100,
    commit: 100,
    applied: 100,
    silenceMs: 40,
    failure: undefined,
    followers: [],
    order: orders[name] ?? [],
    voters: members,
    learners: [],
    votes: true,
    salvage: { pending: 0, adopted: 0, voided: 0 },
    ...changes,
  };
}

/** A process with nothing special about it. */
export function processOf(id: string, changes: Partial<ProcessStatus> = {}): ProcessStatus {
  const isWitness = topology.witness?.id === id;
  return completeStatus({
    id,
    site: 'east',
    role: isWitness ? 'witness' : 'node',
    pid: 4000 + members.indexOf(id),
    version: '0.1.0',
    state: 'ready',
    reasons: [],
    acquirer: isWitness ? undefined : { host: '127.0.0.1', port: 8580 },
    broker: '127.0.0.1:7421',
    connections: 5,
    inFlight: 0,
    configurationIndex: 1,
    groups: [],
    counters: {},
    ...changes,
  });
}

/**
 * Groups a, b and config, each with the owner that is named; `changes` by process and group. Processes in `away` do not
 * answer, and owners know for how long.
 */
export function answersOf(options: {
  readonly owners?: Readonly<Record<string, string | undefined>>;
  readonly away?: Readonly<Record<string, number>>;
  readonly processes?: Readonly<Record<string, Partial<ProcessStatus>>>;
  readonly copies?: Readonly<Record<string, Readonly<Record<string, Partial<GroupStatus>>>>>;
}): ClusterAnswers {
  const { away = {}, processes = {}, copies = {} } = options;
  const owners = { a: 'n1', b: 'n2', config: 'n1', ...options.owners };
  return new Map(
    members.map((id) => {
      if (away[id] !== undefined) return [id, undefined];
      const groups = Object.entries(owners).map(([name, owner]) =>
        copyOf(name, {
          leader: owner,
          ...(owner === id ? { role: 'leader', followers: followersOf(id, away) } : {}),
          ...copies[id]?.[name],
        }),
      );
      return [id, processOf(id, { groups, ...processes[id] })];
    }),
  );
}

function followersOf(owner: string, away: Readonly<Record<string, number>>): GroupStatus['followers'] {
  return members
    .filter((id) => id !== owner)
    .map((id) => ({ id, match: 100, applied: 100, silenceMs: away[id] ?? 60 }));
}

/** Time passes by itself, at once: whoever waits has waited. */
export class ImpatientClock extends ManualClock implements Clock {
  override after(delayMs: number, action: () => void): ReturnType<Clock['after']> {
    const timer = super.after(delayMs, action);
    queueMicrotask(() => {
      this.advance(delayMs);
    });
    return timer;
  }
}

export interface FakeBus {
  readonly topology: Topology;
  readonly processes: readonly NodeId[];
  call(to: NodeId, method: string, parameters: unknown): Promise<unknown>;
  status(of: NodeId): Promise<ProcessStatus | undefined>;
  /** Every call but `status`, in order. */
  readonly calls: readonly { readonly to: string; readonly method: string; readonly parameters: unknown }[];
}

/** `answers` is asked for at each `status`, so that it can change; `serve` answers the other calls. */
export function fakeBus(
  answers: () => ClusterAnswers,
  serve: (to: string, method: string, parameters: unknown) => unknown = () => undefined,
): FakeBus {
  const calls: { to: string; method: string; parameters: unknown }[] = [];
  return {
    topology,
    processes: voters(topology),
    calls,
    call: (to, method, parameters) => {
      calls.push({ to, method, parameters });
      return Promise.resolve().then(() => {
        if (answers().get(to) === undefined) throw new SwitchError('NODE_UNREACHABLE', `${to} cannot be reached`);
        return serve(to, method, parameters);
      });
    },
    status: (of) => Promise.resolve(answers().get(of)),
  };
}

export interface FakeContext extends CommandContext {
  readonly printed: string[];
  readonly notes: string[];
}

/** `answer`: what the person types at a terminal; without it there is none. */
export function fakeContext(dataFolder = '', answer?: string): FakeContext {
  const printed: string[] = [];
  const notes: string[] = [];
  const stdin = Object.assign(new PassThrough(), answer === undefined ? {} : { isTTY: true });
  if (answer !== undefined) stdin.write(`${answer}\n`);
  return {
    configFile: 'nodes.yaml',
    dataFolder,
    topology: () => topology,
    clock: new ImpatientClock(),
    random: seededRandom(1),
    stdin,
    stdout: new PassThrough(),
    stderr: new PassThrough(),
    withCluster: () => Promise.reject(new Error('no cluster in this test')),
    print: (line) => void printed.push(line),
    printJson: (value) => void printed.push(JSON.stringify(value)),
    note: (line) => void notes.push(line),
    printed,
    notes,
  };
}
