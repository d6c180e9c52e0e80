import { formatMetrics, type Histogram, type MetricFamily } from '../../base/metrics.ts';
import type { GroupCounts } from '../../replication/driver.ts';
import type { RequestMeters, SharedMeters } from './meters.ts';
import type { GroupStatus, ProcessStatus } from './status.ts';

/** What a scrape of `/metrics` is made from. */
export interface MetricsSource {
  readonly status: ProcessStatus;
  /** Started, and not stopping. */
  readonly isServing: boolean;
  readonly requests: RequestMeters;
  readonly shared: SharedMeters;
  readonly counts: ReadonlyMap<string, GroupCounts>;
  /** Times that a thread lost its broker since the start of the process. */
  readonly disconnects: { readonly main: number; readonly consensus: number };
  readonly connected: { readonly main: boolean; readonly consensus: boolean };
  readonly resources: ProcessResources;
}

/** What the operating system says of the process. */
export interface ProcessResources {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly heapBytes: number;
  readonly startedAtSeconds: number;
  /** Undefined where it cannot be told. */
  readonly openFiles: number | undefined;
}

type Sample = (MetricFamily & { type: 'gauge' })['samples'][number];

/**
 * The text of `/metrics`. Every label's values are of a fixed set (processes, groups, files, kinds, MTIs, response
 * codes), so that no card number, track or key can get in, and the number of series is bounded.
 */
export function metricsText(source: MetricsSource): string {
  return formatMetrics([
    ...ofProcess(source),
    ...ofRequests(source),
    ...ofGroups(source),
    ...ofPeers(source.status),
    ...ofDisk(source),
  ]);
}

function ofProcess({
  status,
  isServing,
  disconnects,
  connected,
  resources,
  requests,
  shared,
}: MetricsSource): MetricFamily[] {
  const { id, role, site, version } = status;
  return [
    gauge('quadrant_build_info', 'which process this is; always 1', [
      { labels: { process: id, role, site, version }, value: 1 },
    ]),
    gauge('quadrant_ready', '1 when the process serves and nothing needs a look, as /readyz', [
      { value: flag(isServing && status.state === 'ready') },
    ]),
    gauge('quadrant_draining', '1 while it hands on what it leads', [{ value: flag(status.draining) }]),
    gauge('quadrant_decider_stalled_seconds', 'how long the deciding thread stands still, when that is too long', [
      { value: status.stalledMs / 1000 },
    ]),
    gauge('quadrant_broker_connected', '1 when the thread has a broker', [
      { labels: { thread: 'main' }, value: flag(connected.main) },
      { labels: { thread: 'consensus' }, value: flag(connected.consensus) },
    ]),
    counter('quadrant_broker_disconnects_total', 'brokers that were lost', [
      { labels: { thread: 'main' }, value: disconnects.main },
      { labels: { thread: 'consensus' }, value: disconnects.consensus },
    ]),
    {
      name: 'quadrant_loop_delay_seconds',
      help: 'how late a thread came to its ticks',
      type: 'histogram',
      scale: 0.001,
      samples: [
        { labels: { thread: 'main' }, histogram: requests.loopDelayMs },
        { labels: { thread: 'consensus' }, histogram: shared.consensusDelayMs },
      ],
    },
    counter('quadrant_messages_rejected_total', 'messages between processes that were not taken', [
      { labels: { kind: 'damaged' }, value: status.counters['damaged-datagrams'] ?? 0 },
      { labels: { kind: 'not-sealed' }, value: status.counters['refused-forwards'] ?? 0 },
      { labels: { kind: 'too-large' }, value: status.counters['messages-too-large'] ?? 0 },
    ]),
    counter('process_cpu_seconds_total', 'processor time of all threads', [{ value: resources.cpuSeconds }]),
    gauge('process_resident_memory_bytes', 'memory of all threads', [{ value: resources.residentBytes }]),
    gauge('process_heap_bytes', "heap of the main thread's JavaScript", [{ value: resources.heapBytes }]),
    gauge('process_start_time_seconds', 'when the process was started, since 1970', [
      { value: resources.startedAtSeconds },
    ]),
    gauge(
      'process_open_fds',
      'open files and sockets',
      resources.openFiles === undefined ? [] : [{ value: resources.openFiles }],
    ),
  ];
}

function ofRequests({ status, requests, shared }: MetricsSource): MetricFamily[] {
  if (status.role === 'witness') return [];
  const oddities = ['unreadable', 'format-error', 'unmatched', 'unpackable-answer'] as const;
  return [
    counter(
      'quadrant_requests_total',
      'messages of acquirers, by MTI',
      [...requests.requests].map(([mti, value]) => ({ labels: { mti }, value })),
    ),
    counter(
      'quadrant_answers_total',
      'answers to acquirers, by MTI and response code',
      [...requests.answers].flatMap(([mti, codes]) =>
        [...codes].map(([code, value]) => ({ labels: { mti, code }, value })),
      ),
    ),
    seconds('quadrant_request_seconds', 'from a request read at this edge to its answer', requests.requestMs),
    seconds('quadrant_durable_seconds', 'from a decision at this owner until it was durable', requests.durableMs),
    {
      name: 'quadrant_group_commit_entries',
      help: 'log entries of one transaction, one sync',
      type: 'histogram',
      scale: 1,
      samples: [{ histogram: shared.commitEntries }],
    },
    counter('quadrant_acquirer_oddities_total', 'messages that could not be read or answered as they were', [
      ...oddities.map((kind) => ({ labels: { kind }, value: status.counters[kind] ?? 0 })),
    ]),
    counter('quadrant_acquirer_disconnects_total', 'connections that were ended for a fault', [
      { value: status.counters['closed'] ?? 0 },
    ]),
    gauge('quadrant_acquirer_connections', 'connections of acquirers', [{ value: status.connections }]),
    gauge('quadrant_requests_in_flight', 'requests that wait for their owner', [{ value: status.inFlight }]),
    counter('quadrant_late_answers_total', "owners' answers that came after the deadline", [
      { value: status.counters['late-answers'] ?? 0 },
    ]),
    counter('quadrant_decisions_open_total', 'decisions that were not durable when leadership ended', [
      { value: requests.losses.value },
    ]),
    counter('quadrant_overloads_total', 'requests that were not decided because too much waits for a majority', [
      { value: requests.overloads.value },
    ]),
    gauge('quadrant_undelivered_pending', 'approvals no acquirer received that owners have not confirmed yet', [
      { value: status.reversalsDue },
    ]),
    counter('quadrant_undelivered_unsynced_total', 'of those, the ones that could not be written to disk', [
      { value: status.counters['unsynced-reversals'] ?? 0 },
    ]),
    gauge('quadrant_stand_in_pending', 'approvals in stand-in that no log has yet', [
      { value: status.standIn.pending },
    ]),
    gauge('quadrant_shell_edits_waiting', 'edits of config.db by the sqlite3 shell that are not entered yet', [
      { value: status.edits.waiting },
    ]),
    counter('quadrant_shell_edits_total', 'what became of edits of config.db by the sqlite3 shell', [
      { labels: { outcome: 'entered' }, value: status.edits.entered },
      { labels: { outcome: 'undone' }, value: status.edits.refused },
    ]),
    gauge('quadrant_configuration_changes_queued', 'changes of the configuration that wait at this node', [
      { value: status.queue.waiting },
    ]),
    counter('quadrant_shell_watch_restored_total', 'times the triggers of config.db had been changed by hand', [
      { value: status.edits.restored },
    ]),
  ];
}

function ofGroups({ status, counts }: MetricsSource): MetricFamily[] {
  const { groups, role } = status;
  const each = (value: (group: GroupStatus) => number | undefined): Sample[] =>
    groups.flatMap((group) => {
      const found = value(group);
      return found === undefined ? [] : [{ labels: { group: group.name }, value: found }];
    });
  const counted = (value: (of: GroupCounts) => number): Sample[] =>
    [...counts].map(([group, of]) => ({ labels: { group }, value: value(of) }));
  const families = [
    gauge(
      'quadrant_group_leader',
      '1 for the owner of the group as this process knows it; none: it knows of none',
      groups.flatMap(({ name, leader }) =>
        leader === undefined ? [] : [{ labels: { group: name, leader }, value: 1 }],
      ),
    ),
    gauge(
      'quadrant_group_leads',
      '1 when this process leads the group',
      each((group) => flag(group.role === 'leader')),
    ),
    gauge(
      'quadrant_group_term',
      'term of the group',
      each((group) => group.term),
    ),
    gauge(
      'quadrant_group_last_index',
      "last entry of this copy's log",
      each((group) => group.last),
    ),
    gauge(
      'quadrant_group_commit_index',
      'last entry that this process knows to be committed',
      each((group) => group.commit),
    ),
    gauge(
      'quadrant_group_applied_index',
      'last entry in the fold; 0 at the witness',
      each((group) => group.applied),
    ),
    gauge(
      'quadrant_group_lease_seconds',
      'at the leader, how much longer its lease is valid',
      each((group) => (group.leaseMs === undefined ? undefined : group.leaseMs / 1000)),
    ),
    gauge(
      'quadrant_group_silence_seconds',
      'since the leader was heard; at the leader, since a majority was',
      each((group) => (group.silenceMs === undefined ? undefined : group.silenceMs / 1000)),
    ),
    gauge(
      'quadrant_group_votes',
      '1 when this process votes in the group',
      each((group) => flag(group.votes)),
    ),
    gauge(
      'quadrant_group_stopped',
      '1 when this copy has stopped: its log is broken or its disk cannot be written',
      each((group) => flag(group.failure !== undefined)),
    ),
    counter(
      'quadrant_elections_total',
      'elections that this process stood for',
      counted((of) => of.elections),
    ),
    counter(
      'quadrant_elections_won_total',
      'elections that it won',
      counted((of) => of.won),
    ),
    counter(
      'quadrant_leader_changes_total',
      'times that it heard of another leader than before',
      counted((of) => of.leaderChanges),
    ),
    counter(
      'quadrant_hand_overs_total',
      'hand-overs that it began as leader',
      counted((of) => of.handOvers),
    ),
    counter(
      'quadrant_hand_overs_failed_total',
      'of those, the ones that came to nothing',
      counted((of) => of.handOversFailed),
    ),
    gauge(
      'quadrant_rebuilding_ratio',
      'how much of a copy that is made anew is there',
      status.rebuilding.map(({ group, percent }) => ({ labels: { group }, value: percent / 100 })),
    ),
  ];
  if (role === 'witness') return families;
  return [
    ...families,
    gauge(
      'quadrant_salvage_pending',
      '`local` answers that a log lost and no owner has settled yet',
      each((group) => group.salvage.pending),
    ),
    gauge(
      'quadrant_salvage_adopted',
      'of those, how many count',
      each((group) => group.salvage.adopted),
    ),
    gauge(
      'quadrant_salvage_voided',
      'of those, how many do not',
      each((group) => group.salvage.voided),
    ),
  ];
}

/** Only leaders know of the others. */
function ofPeers({ groups }: ProcessStatus): MetricFamily[] {
  const each = (value: (peer: GroupStatus['followers'][number], group: GroupStatus) => number): Sample[] =>
    groups.flatMap((group) =>
      group.followers.map((peer) => ({ labels: { group: group.name, peer: peer.id }, value: value(peer, group) })),
    );
  return [
    gauge(
      'quadrant_peer_lag_entries',
      'at the leader, entries that are not on the disk of the peer yet',
      each((peer, group) => Math.max(0, group.last - peer.match)),
    ),
    gauge(
      'quadrant_peer_silence_seconds',
      'at the leader, since the peer was heard',
      each((peer) => peer.silenceMs / 1000),
    ),
  ];
}

function ofDisk({ status, shared }: MetricsSource): MetricFamily[] {
  const { disk } = status;
  return [
    seconds('quadrant_group_commit_seconds', 'one transaction with its sync', shared.commitMs),
    counter('quadrant_disk_failures_total', 'copies that stopped because their file could not be written', [
      { value: shared.writeFailures.value },
    ]),
    counter('quadrant_file_locked_total', 'times that somebody else had a file locked', [
      { value: shared.writeLocked.value },
    ]),
    gauge('quadrant_disk_free_bytes', "free on the data folder's file system", [
      ...(disk === undefined ? [] : [{ value: disk.freeBytes }]),
    ]),
    gauge(
      'quadrant_wal_bytes',
      'write-ahead log that is not in its file yet',
      Object.entries(disk?.walBytes ?? {}).map(([file, value]) => ({ labels: { file }, value })),
    ),
  ];
}

function seconds(name: string, help: string, histogram: Histogram): MetricFamily {
  return { name, help, type: 'histogram', scale: 0.001, samples: [{ histogram }] };
}

function gauge(name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { name, help, type: 'gauge', samples };
}

function counter(name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { name, help, type: 'counter', samples };
}

function flag(value: boolean): number {
  return value ? 1 : 0;
}
