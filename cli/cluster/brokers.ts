import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import type { BrokerSpecification, Endpoint, Topology } from '../../base/topology.ts';
import { auditorId, operatorId } from './secrets.ts';
import type { ClusterSecrets } from './secrets.ts';

/** What a client of the brokers may publish and subscribe. */
interface Permissions {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
}

/**
 * Subjects are `q.<channel>.<to>.<from>`, so that the broker itself keeps a process from speaking in another's name or
 * reading another's mail:
 *
 *   node X     publishes q.*.*.X and answers to the operator; subscribes q.*.X.*
 *   witness W  the same, in the channels `raft`, `snapshot` and `admin` only
 *   operator   publishes q.admin.*.operator; subscribes its own inboxes
 *   auditor    subscribes everything; publishes nothing
 *
 * Everyone else, known key or not, is refused: there is no user without an nkey.
 */
export function permissionsByProcess(topology: Topology): ReadonlyMap<string, Permissions> {
  const answers = `_INBOX.${operatorId}.>`;
  const permissions = new Map<string, Permissions>();
  for (const { id } of topology.nodes) {
    permissions.set(id, { publish: [`q.*.*.${id}`, answers], subscribe: [`q.*.${id}.*`] });
  }
  if (topology.witness !== undefined) {
    const { id } = topology.witness;
    permissions.set(id, {
      publish: [`q.raft.*.${id}`, `q.snapshot.*.${id}`, answers],
      subscribe: [`q.raft.${id}.*`, `q.snapshot.${id}.*`, `q.admin.${id}.${operatorId}`],
    });
  }
  permissions.set(operatorId, { publish: [`q.admin.*.${operatorId}`], subscribe: [answers] });
  permissions.set(auditorId, { publish: [], subscribe: ['>'] });
  return permissions;
}

/** DATA/brokers/<id>: configuration and log of one broker. It keeps no messages. */
export function brokerFolder(dataFolder: string, brokerId: string): string {
  return resolve(dataFolder, 'brokers', brokerId);
}

/** The absolute path of a broker's configuration; also how a running broker of this data folder is recognized. */
export function brokerConfigurationFile(dataFolder: string, brokerId: string): string {
  return join(brokerFolder(dataFolder, brokerId), 'nats.conf');
}

/** The address at which the broker `from` finds the broker `to`. */
export type RouteTo = (from: BrokerSpecification, to: BrokerSpecification) => Endpoint;

/**
 * The configuration of one broker, for nats-server 2.9 and newer: core NATS only (no JetStream, no monitoring port),
 * meshed with all other brokers.
 */
export function brokerConfiguration(
  topology: Topology,
  broker: BrokerSpecification,
  secrets: ClusterSecrets,
  dataFolder: string,
  routeTo: RouteTo = (_from, to) => to.cluster,
): string {
  const { user, password } = secrets.routes;
  const routes = topology.brokers
    .filter((other) => other.id !== broker.id)
    .map((other) => `    nats-route://${user}:${password}@${address(routeTo(broker, other))}`);
  const users = [...permissionsByProcess(topology)].map(([id, { publish, subscribe }]) => {
    const nkey = secrets.publicKeys.get(id);
    if (nkey === undefined) throw new Error(`broken invariant: ${id} has no nkey`);
    const publishing = publish.length === 0 ? '{ deny: [">"] }' : `{ allow: ${JSON.stringify(publish)} }`;
    const subscribing = `{ allow: ${JSON.stringify(subscribe)} }`;
    return `    # ${id}\n    { nkey: ${nkey}, permissions: { publish: ${publishing}, subscribe: ${subscribing} } }`;
  });
  return `# Written by Quadrant at each start; a change is lost.
server_name: ${JSON.stringify(broker.id)}
listen: ${JSON.stringify(address(broker.client))}
log_file: ${JSON.stringify(join(brokerFolder(dataFolder, broker.id), 'nats.log'))}
logfile_size_limit: 10MB

max_payload: 1MB
max_pending: 64MB
write_deadline: "2s"
ping_interval: "1s"
ping_max: 2

cluster {
  name: ${JSON.stringify(topology.cluster)}
  listen: ${JSON.stringify(address(broker.cluster))}
  no_advertise: true
  authorization { user: ${JSON.stringify(user)}, password: ${JSON.stringify(password)} }
  routes: [
${routes.join('\n')}
  ]
}

authorization {
  timeout: 2
  users: [
${users.join('\n')}
  ]
}
`;
}

/** Writes every broker's configuration, readable for its owner alone. */
export function writeBrokerConfigurations(
  topology: Topology,
  secrets: ClusterSecrets,
  dataFolder: string,
  routeTo?: RouteTo,
): void {
  for (const broker of topology.brokers) {
    mkdirSync(brokerFolder(dataFolder, broker.id), { recursive: true, mode: 0o700 });
    const text = brokerConfiguration(topology, broker, secrets, dataFolder, routeTo);
    writeFileSync(brokerConfigurationFile(dataFolder, broker.id), text, { mode: 0o600 });
  }
}

function address({ host, port }: { readonly host: string; readonly port: number }): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
