import type { Command } from 'commander';

import { exitCode, formatTable, type CommandContext } from '../context.ts';
import type { ProcessStatus } from '../node/status.ts';
import type { RunCommand } from '../run-command.ts';
import { loadBrokerStates, type BrokerState } from './brokers.ts';

/** `quadrant status --json`. */
export interface ClusterStatus {
  readonly cluster: string;
  readonly nodes: readonly NodeStatus[];
  readonly witness: (ProcessSummary & { readonly applied: Readonly<Record<string, number>> }) | undefined;
  readonly brokers: readonly BrokerState[];
  readonly problems: readonly string[];
}

interface ProcessSummary {
  readonly id: string;
  readonly site: string;
  readonly pid: number | undefined;
  readonly state: 'ready' | 'starting' | 'degraded' | 'unreachable';
}

export interface NodeStatus extends ProcessSummary {
  readonly acquirer: { readonly host: string; readonly port: number };
  /** Groups that the node leads. */
  readonly groups: readonly { readonly name: string; readonly term: number }[];
  /** Applied index by group. */
  readonly applied: Readonly<Record<string, number>>;
  /** Entries that the node's copy is behind the group's highest commit, by group. */
  readonly lag: Readonly<Record<string, number>>;
  readonly broker: string | undefined;
  readonly connections: number;
  readonly inFlight: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly reasons: readonly string[];
}

/** Asks every process; those that do not answer are `unreachable`. */
export async function clusterStatus(context: CommandContext): Promise<ClusterStatus> {
  const topology = context.topology();
  const brokers = await loadBrokerStates(topology, context.clock);
  const answers = brokers.some((broker) => broker.state === 'ready')
    ? await context.withCluster(async (bus) =>
        Promise.all(bus.processes.map(async (id) => [id as string, await bus.status(id)] as const)),
      )
    : [];
  const known = new Map<string, ProcessStatus | undefined>(answers);
  const highest = highestCommits([...known.values()]);
  const nodes = topology.nodes.map((node): NodeStatus => {
    const status = known.get(node.id);
    return {
      id: node.id,
      site: node.site,
      pid: status?.pid,
      state: status?.state ?? 'unreachable',
      acquirer: node.acquirer,
      groups: (status?.groups ?? [])
        .filter((group) => group.role === 'leader')
        .map((group) => ({ name: group.name, term: group.term })),
      applied: byGroup(status, (group) => group.applied),
      lag: byGroup(status, (group) => Math.max(0, (highest.get(group.name) ?? 0) - group.applied)),
      broker: status?.broker,
      connections: status?.connections ?? 0,
      inFlight: status?.inFlight ?? 0,
      counters: status?.counters ?? {},
      reasons: status?.reasons ?? ['it does not answer: look at its process and its log'],
    };
  });
  const witness = topology.witness === undefined ? undefined : known.get(topology.witness.id);
  const problems = [
    ...brokers.filter((broker) => broker.state !== 'ready').map((broker) => `broker ${broker.id} does not answer`),
    ...nodes.flatMap((node) => node.reasons.map((reason) => `${node.id}: ${reason}`)),
    ...(topology.witness !== undefined && witness === undefined ? [`${topology.witness.id}: it does not answer`] : []),
    ...(witness?.reasons ?? []).map((reason) => `${witness?.id ?? ''}: ${reason}`),
  ];
  return {
    cluster: topology.cluster,
    nodes,
    witness:
      topology.witness === undefined
        ? undefined
        : {
            id: topology.witness.id,
            site: topology.witness.site,
            pid: witness?.pid,
            state: witness?.state ?? 'unreachable',
            applied: byGroup(witness, (group) => group.applied),
          },
    brokers,
    problems,
  };
}

function byGroup(
  status: ProcessStatus | undefined,
  value: (group: ProcessStatus['groups'][number]) => number,
): Record<string, number> {
  return Object.fromEntries((status?.groups ?? []).map((group) => [group.name, value(group)]));
}

function highestCommits(statuses: readonly (ProcessStatus | undefined)[]): Map<string, number> {
  const highest = new Map<string, number>();
  for (const group of statuses.flatMap((status) => status?.groups ?? [])) {
    highest.set(group.name, Math.max(highest.get(group.name) ?? 0, group.commit));
  }
  return highest;
}

export function formatStatus(status: ClusterStatus): string {
  const groups = [...new Set(status.nodes.flatMap((node) => Object.keys(node.applied)))].sort();
  const nodes = status.nodes.map((node) => [
    node.id,
    node.site,
    node.state,
    node.pid === undefined ? '-' : String(node.pid),
    `${node.acquirer.host}:${node.acquirer.port}`,
    node.groups.map((group) => `${group.name}@${group.term}`).join(' ') || '-',
    ...groups.map((group) => shown(node.applied[group], node.lag[group])),
    String(node.connections),
  ]);
  const { witness } = status;
  const last =
    witness === undefined
      ? []
      : [
          [
            witness.id,
            witness.site,
            witness.state,
            witness.pid === undefined ? '-' : String(witness.pid),
            'witness',
            '-',
            ...groups.map((group) => shown(witness.applied[group], undefined)),
          ],
        ];
  const heads = [
    'node',
    'site',
    'state',
    'pid',
    'ISO 8583',
    'owns@term',
    ...groups.map((group) => `applied ${group}`),
    'connections',
  ];
  const brokers = status.brokers.map((broker) => `${broker.id} ${broker.address} ${broker.state}`);
  const problems =
    status.problems.length === 0
      ? ['Everything answers and has its owner.']
      : status.problems.map((each) => `! ${each}`);
  return [
    `cluster ${status.cluster}`,
    formatTable([heads, ...nodes, ...last]),
    `brokers: ${brokers.join(', ')}`,
    ...problems,
  ].join('\n');
}

function shown(applied: number | undefined, lag: number | undefined): string {
  if (applied === undefined) return '-';
  return lag === undefined || lag === 0 ? String(applied) : `${applied} (-${lag})`;
}

export function registerStatus(program: Command, run: RunCommand): void {
  program
    .command('status')
    .description('what every node, the witness and every broker is doing, and what is wrong')
    .option('--json', 'as JSON')
    .action((options: { json?: boolean }) =>
      run(async (context) => {
        const status = await clusterStatus(context);
        if (options.json === true) context.printJson(status);
        else context.print(formatStatus(status));
        const processes = [...status.nodes, ...(status.witness === undefined ? [] : [status.witness])];
        const away = [...processes, ...status.brokers].some((each) => each.state === 'unreachable');
        if (away) return exitCode.unreachable;
        return status.problems.length > 0 ? exitCode.failed : exitCode.good;
      }),
    );
}
