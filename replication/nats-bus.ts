import {
  AuthorizationError,
  connect,
  nkeyAuthenticator,
  UserAuthenticationExpiredError,
  type Msg,
  type NatsConnection,
} from '@nats-io/transport-node';

import { delay, type Clock, type Timer } from '../base/clock.ts';
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
  /** How often a process that had to go to another broker asks whether its own is back; 2 s when not given. */
  readonly homewardMs?: number;
  /** A handler has thrown: a broken invariant, which the client's own reading loop would swallow. */
  readonly onFatal: (error: Error) => void;
  /** Connected, disconnected and the like, for the log. */
  readonly onStatus: (status: string, detail: string) => void;
}

/** How long a process that starts waits for a broker. */
const patienceMs = 20_000;
/**
 * How long connecting to one broker may take. When all brokers restart, a lease must be longer than this and the pause
 * before the next one; a round in which none has answered (a busy machine, a slow line) gives each of them more.
 */
const firstHandshakeMs = 300;
const mostHandshakeMs = 2_000;
/** How often a process that starts tries for its own site's broker before it takes another. */
const ownBrokerAttempts = 3;
const homewardMs = 2_000;
/** What brokers need to tell each other where a process is heard now, before it listens there alone. */
const settleMs = 200;
/** Answers to what came over the connection that is being left may still go out over it. */
const leaveMs = 1_000;

/*
 * The library connects and speaks the protocol; which broker, when, and when to give one up is decided here. Its own
 * reconnection is off, for three reasons that were seen (transport-node 3.4):
 *
 * - A broker that falls silent (its machine cut off, no RST) is found stale after two pings, and is then not left: the
 *   library flushes first, and waits for a socket that nobody reads until TCP gives up, a quarter of an hour later.
 * - A broker killed during the handshake is waited for until the handshake's own limit.
 * - Once at another site's broker a process stays there, and falls with that site.
 */

/**
 * The bus over core NATS: subject `q.<channel>.<to>.<from>`. The broker lets each process publish only subjects that
 * end in its own id and hear only those addressed to it, so `from` is as good as its nkey.
 * Throws BROKER_UNREACHABLE when every broker refuses the key, or none has answered after a while.
 */
export async function connectNatsBus(options: NatsBusOptions): Promise<NatsBus> {
  const { brokers, clock } = options;
  const deadlineMs = clock.monotonicMs() + (options.patienceMs ?? patienceMs);
  let handshakeMs = firstHandshakeMs;
  for (let attempt = 1; ; attempt++) {
    // While a process loads, its own broker's greeting may wait longer than that.
    const among = attempt < ownBrokerAttempts ? brokers.slice(0, 1) : brokers;
    const outcome = await connectToAny(options, among, handshakeMs);
    if (!(outcome instanceof Error)) return new NatsBus(outcome, options);
    const refused = outcome instanceof AuthorizationError || outcome instanceof UserAuthenticationExpiredError;
    if ((refused && among.length === brokers.length) || clock.monotonicMs() >= deadlineMs) {
      throw new SwitchError('BROKER_UNREACHABLE', `${options.self} cannot use any broker: ${describeError(outcome)}`, {
        cause: outcome,
      });
    }
    options.onStatus('waiting for a broker', describeError(outcome));
    handshakeMs = Math.min(2 * handshakeMs, mostHandshakeMs);
    await delay(clock, options.reconnectMs * (among.length === brokers.length ? 5 : 1));
  }
}

/** Where a connection leads. */
interface Line {
  readonly broker: Endpoint;
  readonly connection: NatsConnection;
}

/** The first of the brokers that answers; the last one's error when none does. */
async function connectToAny(
  options: NatsBusOptions,
  brokers: readonly Endpoint[],
  handshakeMs: number,
): Promise<Line | Error> {
  let failure = new Error('there is no broker');
  for (const broker of brokers) {
    const outcome = await connectTo(options, broker, handshakeMs);
    if (!(outcome instanceof Error)) return { broker, connection: outcome };
    failure = outcome;
  }
  return failure;
}

/** Never longer than `handshakeMs`; what comes after that is closed. */
function connectTo(options: NatsBusOptions, broker: Endpoint, handshakeMs: number): Promise<NatsConnection | Error> {
  const connecting = connect({
    servers: addressOf(broker),
    name: options.self,
    authenticator: nkeyAuthenticator(options.nkeySeed),
    ignoreClusterUpdates: true,
    noEcho: true,
    reconnect: false,
    pingInterval: options.pingMs,
    maxPingOut: 2,
    noAsyncTraces: true,
    timeout: handshakeMs,
  });
  return new Promise((resolve) => {
    let isLate = false;
    const limit = options.clock.after(handshakeMs, () => {
      isLate = true;
      resolve(new Error(`${addressOf(broker)} has not answered for ${handshakeMs} ms`));
    });
    connecting.then(
      (connection) => {
        limit.cancel();
        if (isLate) abandon(connection);
        else resolve(connection);
      },
      (error: unknown) => {
        limit.cancel();
        resolve(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}

function addressOf({ host, port }: Endpoint): string {
  return `${host}:${port}`;
}

/** Closing may take as long as TCP takes to give up: nobody waits for it. */
function abandon(connection: NatsConnection): void {
  connection.close().catch(() => undefined);
}

export class NatsBus implements Bus {
  readonly #options: NatsBusOptions;
  readonly #subscriptions: ((line: Line) => void)[] = [];
  #line: Line | undefined;
  #closed = false;
  #tooLarge = 0;
  #disconnects = 0;
  #homeward: Timer | undefined;

  constructor(line: Line, options: NatsBusOptions) {
    this.#options = options;
    this.#take(line);
  }

  get connected(): boolean {
    return this.#line !== undefined;
  }

  /** Messages that were too large to send: a fault of whoever made them. */
  get tooLarge(): number {
    return this.#tooLarge;
  }

  /** Times that it lost its broker. */
  get disconnects(): number {
    return this.#disconnects;
  }

  /** Where the process is connected now, `host:port`. */
  get broker(): string | undefined {
    return this.#line === undefined ? undefined : addressOf(this.#line.broker);
  }

  /** Dropped while there is no broker: what is late is of no use to anybody here, and memory stays bounded. */
  send(to: NodeId, channel: Channel, bytes: Buffer): void {
    const { connection } = this.#line ?? {};
    if (connection === undefined || connection.isClosed()) return;
    if (bytes.length > maximumMessageBytes) {
      this.#tooLarge += 1;
      return;
    }
    connection.publish(`q.${channel}.${to}.${this.#options.self}`, bytes);
  }

  receive(channels: readonly Channel[], handler: (from: NodeId, channel: Channel, bytes: Buffer) => void): void {
    for (const channel of channels) {
      this.#subscribe(`q.${channel}.${this.#options.self}.*`, ({ subject, data }) => {
        const from = subject.split('.')[3];
        if (from === undefined) return;
        try {
          handler(from as NodeId, channel, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
        } catch (failure) {
          this.#options.onFatal(failure instanceof Error ? failure : new Error(String(failure)));
        }
      });
    }
  }

  /** Answers calls of one outside caller (the operator): the request's bytes in, the answer's bytes out. */
  serveCaller(caller: string, handler: (bytes: Buffer) => Promise<Buffer>): void {
    this.#subscribe(`q.admin.${this.#options.self}.${caller}`, (message, { connection }) => {
      void handler(Buffer.from(message.data))
        .then((answer) => {
          if (!connection.isClosed()) message.respond(answer);
        })
        .catch((failure: unknown) => {
          this.#options.onStatus('an answer could not be sent', describeError(failure));
        });
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#homeward?.cancel();
    const line = this.#line;
    this.#line = undefined;
    if (line !== undefined && !line.connection.isClosed()) await line.connection.close();
  }

  /** Now, and at every broker that the process comes to. */
  #subscribe(subject: string, handler: (message: Msg, line: Line) => void): void {
    const subscribe = (line: Line): void => {
      line.connection.subscribe(subject, {
        callback: (error, message) => {
          // With an error (the broker refused the subscription) there is no message.
          // Of two lines only one is listened to: what came twice would be taken for a call that is played again.
          if (error === null && line === this.#line) handler(message, line);
        },
      });
    };
    this.#subscriptions.push(subscribe);
    if (this.#line !== undefined) subscribe(this.#line);
  }

  #take(line: Line): void {
    for (const subscribe of this.#subscriptions) subscribe(line);
    this.#listenTo(line);
  }

  #listenTo(line: Line): void {
    this.#line = line;
    void this.#follow(line);
    this.#lookHomeward();
  }

  /** A line is lost when it has ended, or when the library calls it stale: nothing is awaited from it then. */
  async #follow(line: Line): Promise<void> {
    for await (const status of line.connection.status()) {
      if (status.type === 'error') this.#options.onStatus('error', String(status.error));
      if (status.type === 'disconnect' || status.type === 'staleConnection' || status.type === 'close') break;
    }
    this.#lose(line);
  }

  #lose(line: Line): void {
    abandon(line.connection);
    if (this.#line !== line || this.#closed) return;
    this.#line = undefined;
    this.#disconnects += 1;
    this.#homeward?.cancel();
    this.#options.onStatus('disconnect', addressOf(line.broker));
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    const { brokers, clock, reconnectMs } = this.#options;
    for (let handshakeMs = firstHandshakeMs; ; handshakeMs = Math.min(2 * handshakeMs, mostHandshakeMs)) {
      const line = await connectToAny(this.#options, brokers, handshakeMs);
      if (this.#closed) {
        if (!(line instanceof Error)) abandon(line.connection);
        return;
      }
      if (!(line instanceof Error)) {
        this.#take(line);
        this.#options.onStatus('reconnect', addressOf(line.broker));
        return;
      }
      await delay(clock, reconnectMs);
    }
  }

  /** At another site's broker the process depends on that site, too: it goes back to its own as soon as that answers. */
  #lookHomeward(): void {
    const [own] = this.#options.brokers;
    const line = this.#line;
    if (own === undefined || line === undefined || line.broker === own) return;
    this.#homeward = this.#options.clock.after(this.#options.homewardMs ?? homewardMs, () => {
      void this.#goHome(own, line);
    });
  }

  async #goHome(own: Endpoint, from: Line): Promise<void> {
    const connection = await connectTo(this.#options, own, firstHandshakeMs);
    const line = connection instanceof Error ? undefined : { broker: own, connection };
    if (line !== undefined && this.#line === from) {
      for (const subscribe of this.#subscriptions) subscribe(line);
      await delay(this.#options.clock, settleMs);
    }
    if (this.#line !== from || this.#closed || line?.connection.isClosed() === true) {
      if (line !== undefined) abandon(line.connection);
      if (this.#line === from && !this.#closed) this.#lookHomeward();
      return;
    }
    if (line === undefined) {
      this.#lookHomeward();
      return;
    }
    this.#listenTo(line);
    this.#options.onStatus('home', addressOf(own));
    this.#options.clock.after(leaveMs, () => {
      abandon(from.connection);
    });
  }
}
