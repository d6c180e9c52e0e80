import type { Command } from 'commander';

import type { Topology } from '../../base/topology.ts';
import { exitCode, formatTable, wrapText, type CommandContext } from '../context.ts';
import { completeStatus, type AnsweredStatus, type ProcessStatus } from '../node/status.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { loadBrokerStates, type BrokerState } from './brokers.ts';
import { behind, findings, viewGroups, type ClusterAnswers, type GroupView } from './situation.ts';
import type { Finding } from './wording.ts';

/** `quadrant status --json`. */
export interface ClusterStatus {
  readonly cluster: string;
  readonly nodes: readonly NodeStatus[];
  readonly witness: (ProcessSummary & { readonly applied: Readonly<Record<string, number>> }) | undefined;
  readonly brokers: readonly BrokerState[];
  readonly groups: readonly GroupSummary[];
  /** What is wrong or missing. */
  readonly problems: readonly string[];
  /** Groups that are not with the first node of their order, why, and what brings them back. */
  readonly displaced: readonly string[];
  readonly notes: readonly string[];
}

interface ProcessSummary {
  readonly id: string;
  readonly site: string;
  readonly pid: number | undefined;
  readonly state: 'ready' | 'starting' | 'degraded' | 'unreachable';
}

interface NodeStatus extends ProcessSummary {
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
  readonly draining: boolean;
  readonly counters: Readonly<Record<string, number>>;
  readonly reasons: readonly string[];
}

interface GroupSummary extends Omit<GroupView, 'copies'> {
  /** How many entries each process's copy is behind; null: it has none, or does not answer. */
  readonly behind: Readonly<Record<string, number | null>>;
}

/** Asks every process of the cluster what it has to say of itself. */
export async function askAll(bus: Pick<OperatorBus, 'processes' | 'status'>): Promise<ClusterAnswers> {
  const answers = await Promise.all(
    bus.processes.map(async (id) => {
      const answered: AnsweredStatus | undefined = await bus.status(id);
      return [id, answered === undefined ? undefined : completeStatus(answered)] as const;
    }),
  );
  return new Map<string, ProcessStatus | undefined>(answers);
}

async function clusterStatus(context: CommandContext): Promise<ClusterStatus> {
  const topology = context.topology();
  const brokers = await loadBrokerStates(topology, context.clock);
  const answers = brokers.some((broker) => broker.state === 'ready')
    ? await context.withCluster(askAll)
    : nobody(topology);
  return describeCluster(topology, brokers, answers);
}

/** Everything that `status` says, from what brokers and processes answered. */
export function describeCluster(
  topology: Topology,
  brokers: readonly BrokerState[],
  answers: ClusterAnswers,
): ClusterStatus {
  const groups = viewGroups(topology, answers);
  const nodes = topology.nodes.map((node): NodeStatus => {
    const status = answers.get(node.id);
    return {
      ...summary(node, status),
      acquirer: node.acquirer,
      groups: (status?.groups ?? [])
        .filter((group) => group.role === 'leader')
        .map((group) => ({ name: group.name, term: group.term })),
      applied: byGroup(status, (group) => group.applied),
      lag: Object.fromEntries(
        groups.flatMap((group) => (group.copies.has(node.id) ? [[group.name, behind(group, node.id, 'node')]] : [])),
      ),
      broker: status?.broker,
      connections: status?.connections ?? 0,
      inFlight: status?.inFlight ?? 0,
      draining: status?.draining ?? false,
      counters: status?.counters ?? {},
      reasons: status?.reasons ?? ['it does not answer: look at its process and its log'],
    };
  });
  const witness = topology.witness === undefined ? undefined : answers.get(topology.witness.id);
  const found = findings(topology, answers);
  const texts = (kind: Finding['kind']): readonly string[] =>
    found.filter((finding) => finding.kind === kind).map(({ text }) => text);
  return {
    cluster: topology.cluster,
    nodes,
    witness:
      topology.witness === undefined
        ? undefined
        : { ...summary(topology.witness, witness), applied: byGroup(witness, (group) => group.applied) },
    brokers,
    groups: groups.map(({ copies, ...group }) => ({
      ...group,
      behind: Object.fromEntries(
        [...answers].map(([id, status]) => [
          id,
          status === undefined || !copies.has(id) ? null : behind({ ...group, copies }, id, status.role),
        ]),
      ),
    })),
    problems: [
      ...troubleWithBrokers(brokers),
      // Nobody could be asked: what processes do is not known, and nothing should be started because of that.
      ...(brokers.some(({ state }) => state === 'ready') ? texts('problem') : []),
    ],
    displaced: texts('displaced'),
    notes: texts('note'),
  };
}

function troubleWithBrokers(brokers: readonly BrokerState[]): readonly string[] {
  const away = brokers.filter(({ state }) => state !== 'ready');
  if (away.length === brokers.length) {
    const all = brokers.map(({ id, address }) => `${id} (${address})`).join(', ');
    return [
      `no broker answers: ${all}. Without one the processes hear neither each other nor this command, and requests get ` +
        '91. Is the cluster running (`npm start`), and is this its nodes.yaml (--config)? Else start the brokers first',
    ];
  }
  return away.map(
    ({ id, address }) =>
      `broker ${id} does not answer at ${address}: start it again; the others carry its traffic, nothing is lost`,
  );
}

function nobody(topology: Topology): ClusterAnswers {
  const ids = [...topology.nodes, ...(topology.witness === undefined ? [] : [topology.witness])].map(({ id }) => id);
  return new Map(ids.map((id) => [id, undefined]));
}

function summary(
  { id, site }: { readonly id: string; readonly site: string },
  status: ProcessStatus | undefined,
): ProcessSummary {
  return { id, site, pid: status?.pid, state: status?.state ?? 'unreachable' };
}

function byGroup(
  status: ProcessStatus | undefined,
  value: (group: ProcessStatus['groups'][number]) => number,
): Record<string, number> {
  return Object.fromEntries((status?.groups ?? []).map((group) => [group.name, value(group)]));
}

/** Width of a text for people; tables keep within it as long as names are of the usual length. */
const columns = 100;
/** Groups and nodes that a table's cell names; of more it says how many. */
const namesInCell = 6;

export function formatStatus(status: ClusterStatus): string {
  const { witness } = status;
  const processes = formatTable([
    ['node', 'site', 'state', 'pid', 'ISO 8583', 'connections', 'owns'],
    ...status.nodes.map((node) => [
      node.id,
      node.site,
      node.draining ? `${node.state}, drained` : node.state,
      node.pid === undefined ? '-' : String(node.pid),
      `${node.acquirer.host}:${node.acquirer.port}`,
      String(node.connections),
      few(
        node.groups.map(({ name }) => name),
        'groups',
      ),
    ]),
    ...(witness === undefined
      ? []
      : [[witness.id, witness.site, witness.state, String(witness.pid ?? '-'), 'witness', '-', '-']]),
  ]);
  const groups = formatTable([
    ['group', 'owner', 'term', 'committed', 'order', 'copies'],
    ...status.groups.map((group) => [
      group.name,
      group.owner ?? '-',
      String(group.term),
      String(group.commit),
      group.order.length > namesInCell ? `${group.order.slice(0, namesInCell).join('>')}>...` : group.order.join('>'),
      copiesText(group),
    ]),
  ]);
  const brokers = status.brokers.map((broker) => `${broker.id} ${broker.address} ${broker.state}`);
  const fine = status.displaced.length === 0 ? 'Everything answers and has its owner.' : 'Everything answers.';
  return [
    `cluster ${status.cluster}`,
    processes,
    ...(status.groups.length === 0 ? [] : ['', groups]),
    '',
    wrapText(`brokers: ${brokers.join(', ')}`, columns, 2),
    ...(status.problems.length === 0 ? [fine] : status.problems.map((text) => wrapText(`! ${text}.`, columns, 2))),
    ...[...status.displaced, ...status.notes].map((text) => wrapText(`- ${text}.`, columns, 2)),
  ].join('\n');
}

function copiesText({ behind: behindBy }: GroupSummary): string {
  const wanting = Object.entries(behindBy).flatMap(([id, count]) =>
    count === 0 ? [] : [count === null ? `${id} none` : `${id} -${count}`],
  );
  return wanting.length === 0 ? 'up to date' : few(wanting, 'not up to date');
}

function few(names: readonly string[], what: string): string {
  if (names.length === 0) return '-';
  return names.length > namesInCell ? `${names.length} ${what}` : names.join(' ');
}

export function registerStatus(program: Command, run: RunCommand): void {
  program
    .command('status')
    .description('what every node, the witness and every broker is doing, what happened, and what is left to do')
    .option('--json', 'as JSON')
    .addHelpText('after', statusHelp)
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

const statusHelp = `
Lines with "!" need a look or heal by themselves, as they say; lines with "-" are for your information. "copies" are
the entries that copies are behind; under load a few are always on their way.

Exit codes: 0 good, 1 something needs a look, 4 a process or broker does not answer
`;
