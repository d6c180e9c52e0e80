import {
  connect,
  nkeyAuthenticator,
  NoRespondersError,
  RequestError,
  TimeoutError,
  type NatsConnection,
} from '@nats-io/transport-node';

import { describeError, errorCatalogue, SwitchError, type ErrorCode } from '../base/errors.ts';
import type { NodeId } from '../base/identifiers.ts';
import { realClock, realRandom } from '../base/real.ts';
import { Sealer } from '../base/sealing.ts';
import { voters, type Topology } from '../base/topology.ts';
import { operatorId, readSecrets } from './cluster/secrets.ts';
import type { CallReply } from './node/peer-calls.ts';
import type { ProcessStatus } from './node/status.ts';

/** An operator's connection to the cluster: calls to any process through any broker, sealed. */
export class OperatorBus {
  readonly topology: Topology;
  readonly #connection: NatsConnection;
  readonly #sealer: Sealer;

  /** Throws BROKER_UNREACHABLE when no broker of nodes.yaml takes the operator's key. */
  static async connect(topology: Topology, dataFolder: string): Promise<OperatorBus> {
    const secrets = readSecrets(dataFolder, operatorId);
    if (secrets.sealingKey === undefined) {
      throw new SwitchError('SECRETS_INVALID', `the operator has no sealing key in ${dataFolder}`);
    }
    try {
      const connection = await connect({
        servers: topology.brokers.map((broker) => `${broker.client.host}:${broker.client.port}`),
        name: operatorId,
        authenticator: nkeyAuthenticator(Buffer.from(secrets.nkeySeed)),
        inboxPrefix: `_INBOX.${operatorId}`,
        ignoreClusterUpdates: true,
        reconnect: true,
        timeout: 2000,
      });
      return new OperatorBus(connection, topology, new Sealer(secrets.sealingKey, realRandom));
    } catch (error) {
      const addresses = topology.brokers.map(({ client }) => `${client.host}:${client.port}`).join(', ');
      throw new SwitchError('BROKER_UNREACHABLE', `no broker answers at ${addresses}: ${describeError(error)}`, {
        cause: error,
        hint: 'Is the cluster running? Start it with `npm start`, or name another with --config and --data.',
      });
    }
  }

  private constructor(connection: NatsConnection, topology: Topology, sealer: Sealer) {
    this.#connection = connection;
    this.topology = topology;
    this.#sealer = sealer;
  }

  /** Every process that can be called: nodes, then the witness. */
  get processes(): readonly NodeId[] {
    return voters(this.topology);
  }

  /** Calls one process. Throws NODE_UNREACHABLE, or the error that the process answered with. */
  async call(to: NodeId, method: string, parameters: unknown, timeoutMs = 10_000): Promise<unknown> {
    const request = Buffer.from(
      JSON.stringify({ method, parameters, id: realRandom.bytes(16).toString('hex'), at: realClock.wallMs() }),
    );
    const sealed = this.topology.witness?.id !== to;
    const payload = sealed ? this.#sealer.seal(`admin ${operatorId} ${to}`, request) : request;
    const bytes = await this.#request(`q.admin.${to}.${operatorId}`, payload, to, timeoutMs);
    const clear = sealed ? this.#sealer.open(`admin ${to} ${operatorId}`, bytes) : bytes;
    if (clear === undefined) {
      throw new SwitchError('NODE_UNREACHABLE', `the answer of ${to} is not sealed with this cluster's key`);
    }
    const reply = JSON.parse(clear.toString('utf8')) as CallReply;
    if (reply.kind === 'result') return reply.result;
    if (reply.code in errorCatalogue) {
      throw new SwitchError(reply.code as ErrorCode, `${to}: ${reply.message}`, { hint: reply.hint });
    }
    throw new Error(`${to}: ${reply.message}`);
  }

  async status(of: NodeId): Promise<ProcessStatus | undefined> {
    try {
      return (await this.call(of, 'status', {}, 2000)) as ProcessStatus;
    } catch (error) {
      if (error instanceof SwitchError && error.code === 'NODE_UNREACHABLE') return undefined;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#connection.close();
  }

  async #request(subject: string, payload: Buffer, to: NodeId, timeoutMs: number): Promise<Buffer> {
    try {
      const { data } = await this.#connection.request(subject, payload, { timeout: timeoutMs });
      return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    } catch (error) {
      const away = error instanceof NoRespondersError || (error instanceof RequestError && error.isNoResponders());
      const reason = away
        ? 'it is not connected to any broker'
        : error instanceof TimeoutError
          ? 'no answer in time'
          : describeError(error);
      throw new SwitchError('NODE_UNREACHABLE', `${to} cannot be reached: ${reason}`, { cause: error });
    }
  }
}
