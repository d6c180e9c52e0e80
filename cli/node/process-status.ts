import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { NodeSpecification, Topology } from '../../base/topology.ts';
import type { ConfigurationView } from '../../config-db/configuration-view.ts';
import type { ReplicaStatus } from '../../replication/driver.ts';
import type { ConsensusStatus } from './consensus-thread.ts';
import type { DiskStatus, GroupStatus, ProcessStatus } from './status.ts';

/** A leader that was not heard for this long counts as away. */
const awayMs = 2000;

export interface StatusParts {
  readonly id: NodeId;
  readonly topology: Topology;
  readonly version: string;
  readonly specification: NodeSpecification | undefined;
  readonly consensus: ConsensusStatus;
  readonly configuration: ConfigurationView | undefined;
  readonly configurationFault: string | undefined;
  readonly broker: string | undefined;
  readonly connections: number;
  readonly inFlight: number;
  readonly reversalsDue: number;
  readonly standIn: ProcessStatus['standIn'];
  readonly edits: ProcessStatus['edits'];
  readonly queue: ProcessStatus['queue'];
  readonly restrictionsUndelivered: number;
  readonly salvage: (group: GroupId) => GroupStatus['salvage'];
  readonly counters: Readonly<Record<string, number>>;
  readonly disk: DiskStatus | undefined;
}

/** What a process says of itself: what its parts know, and in `reasons` what needs a look. */
export function processStatus(parts: StatusParts): ProcessStatus {
  const { consensus, specification, configuration, configurationFault } = parts;
  const groups = consensus.groups.map((group) => groupStatus(group, parts.salvage(group.group)));
  const reasons = groups.flatMap(reasonsOf);
  const configured = configuration !== undefined || specification === undefined;
  if (configurationFault !== undefined) {
    reasons.push(`this copy of the configuration cannot be read (${configurationFault}): compare it`);
  } else if (!configured) {
    reasons.push('no configuration has been entered yet');
  }
  if (parts.broker === undefined || !consensus.connected) reasons.push('no broker can be reached');
  for (const { peer, difference } of consensus.mismatches) {
    reasons.push(`${peer} is refused, its nodes.yaml is another: ${difference}`);
  }
  return {
    id: parts.id,
    site: siteOf(parts.topology, parts.id),
    role: specification === undefined ? 'witness' : 'node',
    pid: process.pid,
    version: parts.version,
    state: !configured ? 'starting' : reasons.length === 0 ? 'ready' : 'degraded',
    reasons,
    acquirer: specification?.acquirer,
    broker: parts.broker,
    connections: parts.connections,
    inFlight: parts.inFlight,
    configurationIndex: configuration?.index ?? 0,
    groups,
    counters: {
      ...parts.counters,
      'damaged-datagrams': consensus.damaged,
      'messages-too-large': (parts.counters['messages-too-large'] ?? 0) + consensus.tooLarge,
    },
    draining: consensus.draining,
    rebuilding: consensus.rebuilding,
    stalledMs: consensus.stalledMs,
    reversalsDue: parts.reversalsDue,
    standIn: parts.standIn,
    edits: parts.edits,
    queue: parts.queue,
    restrictionsUndelivered: parts.restrictionsUndelivered,
    disk: parts.disk,
    ...(consensus.mismatches.length > 0 ? { mismatch: consensus.mismatches } : {}),
  };
}

function groupStatus(status: ReplicaStatus, salvage: GroupStatus['salvage']): GroupStatus {
  const { group, silenceMs, leaseMs, rank, transferringTo, confirmed, votes, voters, learners, ...rest } = status;
  return {
    name: group,
    role: rest.role,
    leader: rest.leader,
    term: rest.term,
    last: rest.last,
    lastTerm: rest.lastTerm,
    durable: rest.durable,
    commit: rest.commit,
    applied: rest.applied,
    silenceMs: Number.isFinite(silenceMs) ? Math.round(silenceMs) : undefined,
    failure: rest.failure,
    followers: rest.followers,
    ...(rank === undefined ? {} : { rank }),
    order: rest.order,
    voters: voters.map(({ id }) => id),
    learners: learners.map(({ id }) => id),
    ...(rest.role === 'leader' && Number.isFinite(leaseMs) ? { leaseMs: Math.round(leaseMs) } : {}),
    ...(transferringTo === undefined ? {} : { transferring: transferringTo }),
    votes,
    ...(votes ? {} : { votesReason: votesReason(status, confirmed) }),
    salvage,
  };
}

function votesReason({ incarnation }: ReplicaStatus, confirmed: boolean): string {
  if (!confirmed) return 'its peers have not confirmed yet where its log ends';
  return incarnation > 1
    ? 'its disk is older than what its peers remember: it is being added again'
    : 'it is not a member: it is being added';
}

function reasonsOf(group: GroupStatus): string[] {
  if (group.failure !== undefined) return [`group ${group.name} has stopped here: ${group.failure}`];
  if (group.leader === undefined) return [`group ${group.name}: nobody leads it; requests get 91`];
  const away = (group.silenceMs ?? Number.POSITIVE_INFINITY) > awayMs;
  const reasons: string[] = [];
  if (!group.votes) reasons.push(`group ${group.name}: does not vote here: ${group.votesReason ?? ''}`);
  if (away && group.role === 'leader') reasons.push(`group ${group.name}: no majority answers; requests get 91`);
  else if (away) reasons.push(`group ${group.name}: its owner ${group.leader} is away`);
  return reasons;
}

/** The site of a process of the topology; '' when it is none. */
export function siteOf(topology: Topology, id: NodeId): string {
  if (topology.witness?.id === id) return topology.witness.site;
  return topology.nodes.find((node) => node.id === id)?.site ?? '';
}
