import {
  AuthorizationError,
  connect,
  nkeyAuthenticator,
  UserAuthenticationExpiredError,
  type NatsConnection,
} from '@nats-io/transport-node';

import { delay, type Clock } from '../base/clock.ts';
import { describeError, SwitchError } from '../base/errors.ts';
import type { NodeId } from '../base/identifiers.ts';
import type { Endpoint } from '../base/topology.ts';
import { maximumMessageBytes, type Bus, type Channel } from './bus.ts';

export interface NatsBusOptions {
  readonly self: NodeId;
  /** Brokers, the nearest first; the others are fallbacks. */
  readonly brokers: readonly Endpoint[];
  /** Private part of the process's nkey; the broker knows the public part and what it may publish and hear. */
  readonly nkeySeed: Buffer;
  readonly clock: Clock;
  readonly pingMs: number;
  readonly reconnectMs: number;
  /** How long to wait for a broker at the start; 20 s when not given. */
  readonly patienceMs?: number;
  /** A handler has thrown: a broken invariant, which the client's own reading loop would swallow. */
  readonly onFatal: (error: Error) => void;
  /** Connected, disconnected and the like, for the log. */
  readonly onStatus: (status: string, detail: string) => void;
}

/** How long a process that starts waits for a broker. */
const patienceMs = 20_000;
/**
 * How long connecting to one broker may take, now and at every reconnection. A broker that dies while it greets us is
 * noticed only then: when all brokers restart, a lease must be longer than this and the pause before the next one.
 * A process that does not get along with it when it starts (a busy machine, a slow line) goes on with more.
 */
const firstHandshakeMs = 300;
const mostHandshakeMs = 2_000;
/** How often a process that starts tries for its own site's broker before it takes another. */
const ownBrokerAttempts = 3;

/**
 * The bus over core NATS: subject `q.<channel>.<to>.<from>`. The broker lets each process publish only subjects that
 * end in its own id and hear only those addressed to it, so `from` is as good as its nkey.
 * Throws BROKER_UNREACHABLE when every broker refuses the key, or none has answered after a while.
 */
export async function connectNatsBus(options: NatsBusOptions): Promise<NatsBus> {
  const { clock } = options;
  const deadlineMs = clock.monotonicMs() + (options.patienceMs ?? patienceMs);
  let handshakeMs = firstHandshakeMs;
  for (let attempt = 1; ; attempt++) {
    try {
      const connection = await connectOnce(options, handshakeMs);
      if (attempt >= ownBrokerAttempts || isAtOwnBroker(connection, options)) return new NatsBus(connection, options);
      // While a process loads, its own broker's greeting may wait longer than that: nobody would bring it back there.
      await connection.close();
    } catch (error) {
      const refused = error instanceof AuthorizationError || error instanceof UserAuthenticationExpiredError;
      if (refused || clock.monotonicMs() >= deadlineMs) {
        throw new SwitchError('BROKER_UNREACHABLE', `${options.self} cannot use any broker: ${describeError(error)}`, {
          cause: error,
        });
      }
      options.onStatus('waiting for a broker', describeError(error));
      handshakeMs = Math.min(2 * handshakeMs, mostHandshakeMs);
      await delay(clock, options.reconnectMs * 5);
    }
  }
}

function isAtOwnBroker(connection: NatsConnection, { brokers: [own] }: NatsBusOptions): boolean {
  return own === undefined || connection.getServer() === `${own.host}:${own.port}`;
}

function connectOnce(options: NatsBusOptions, handshakeMs: number): Promise<NatsConnection> {
  return connect({
    servers: options.brokers.map((broker) => `${broker.host}:${broker.port}`),
    name: options.self,
    authenticator: nkeyAuthenticator(options.nkeySeed),
    noRandomize: true,
    ignoreClusterUpdates: true,
    noEcho: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: options.reconnectMs,
    reconnectJitter: options.reconnectMs,
    pingInterval: options.pingMs,
    maxPingOut: 2,
    ignoreAuthErrorAbort: true,
    noAsyncTraces: true,
    timeout: handshakeMs,
  });
}

export class NatsBus implements Bus {
  readonly #connection: NatsConnection;
  readonly #self: NodeId;
  readonly #onFatal: NatsBusOptions['onFatal'];
  readonly #onStatus: NatsBusOptions['onStatus'];
  #connected = true;
  #tooLarge = 0;

  constructor(connection: NatsConnection, options: NatsBusOptions) {
    this.#connection = connection;
    this.#self = options.self;
    this.#onFatal = options.onFatal;
    this.#onStatus = options.onStatus;
    void this.#followStatus();
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** Messages that were too large to send: a fault of whoever made them. */
  get tooLarge(): number {
    return this.#tooLarge;
  }

  /** Where the process is connected now, `host:port`. */
  get broker(): string | undefined {
    return this.#connected ? this.#connection.getServer() : undefined;
  }

  send(to: NodeId, channel: Channel, bytes: Buffer): void {
    // The client would keep what is published while it is away from its broker, without bound, and deliver it late.
    if (!this.#connected || this.#connection.isClosed()) return;
    if (bytes.length > maximumMessageBytes) {
      this.#tooLarge += 1;
      return;
    }
    this.#connection.publish(`q.${channel}.${to}.${this.#self}`, bytes);
  }

  receive(channels: readonly Channel[], handler: (from: NodeId, channel: Channel, bytes: Buffer) => void): void {
    for (const channel of channels) {
      this.#connection.subscribe(`q.${channel}.${this.#self}.*`, {
        callback: (error, message) => {
          // With an error (the broker refused the subscription) there is no message.
          if (error !== null) return;
          const from = message.subject.split('.')[3];
          if (from === undefined) return;
          const { data } = message;
          try {
            handler(from as NodeId, channel, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
          } catch (failure) {
            this.#onFatal(failure instanceof Error ? failure : new Error(String(failure)));
          }
        },
      });
    }
  }

  /** Answers calls of one outside caller (the operator): the request's bytes in, the answer's bytes out. */
  serveCaller(caller: string, handler: (bytes: Buffer) => Promise<Buffer>): void {
    this.#connection.subscribe(`q.admin.${this.#self}.${caller}`, {
      callback: (error, message) => {
        if (error !== null) return;
        void handler(Buffer.from(message.data))
          .then((answer) => {
            if (this.#connected && !this.#connection.isClosed()) message.respond(answer);
          })
          .catch((failure: unknown) => {
            this.#onStatus('an answer could not be sent', describeError(failure));
          });
      },
    });
  }

  async close(): Promise<void> {
    if (!this.#connection.isClosed()) await this.#connection.close();
  }

  async #followStatus(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type === 'disconnect') this.#connected = false;
      if (status.type === 'reconnect') this.#connected = true;
      if (status.type === 'ping') continue;
      this.#onStatus(status.type, 'server' in status ? status.server : 'error' in status ? String(status.error) : '');
    }
  }
}
