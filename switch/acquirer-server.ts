import { createServer, type Server, type Socket } from 'node:net';

import type { Clock } from '../base/clock.ts';
import { SwitchError } from '../base/errors.ts';
import type { Endpoint } from '../base/topology.ts';
import { Deframer, frame, length2 } from './iso8583/framing.ts';

/** What the server needs of a session: frames in, answers out. */
export interface FrameHandler {
  /** `send` is called once for each frame; with undefined when there is no answer. */
  receive(frame: Buffer, send: (answer: Buffer | undefined) => void): void;
}

export interface AcquirerServerOptions {
  readonly endpoint: Endpoint;
  readonly clock: Clock;
  /** `close` ends the connection at once. */
  readonly openSession: (remote: string, close: (reason: string) => void) => FrameHandler;
  readonly maximumConnections: number;
  readonly maximumInFlight: number;
  readonly maximumFrameBytes: number;
  readonly partialFrameMs: number;
  readonly slowReaderMs: number;
  /** Why a connection ended, for the log. */
  readonly onClosed: (remote: string, reason: string) => void;
  /** A connection has ended, for whichever reason. */
  readonly onEnded?: (remote: string) => void;
  /** A connection was turned away: there are as many as there may be. */
  readonly onRefused?: (remote: string) => void;
}

/** Answers that lie unsent in a connection beyond this: the node stops reading its requests. */
const maximumUnsentBytes = 256 * 1024;

interface Connection {
  readonly socket: Socket;
  readonly remote: string;
  readonly deframer: Deframer;
  readonly session: FrameHandler;
  inFlight: number;
  outgoing: Buffer[];
  flushScheduled: boolean;
  /** When the frame that is being received began, or undefined between frames. */
  partialSinceMs: number | undefined;
  /** When the peer stopped taking answers, or undefined while it takes them. */
  blockedSinceMs: number | undefined;
  /** No more requests will come; the connection ends when the last answer has left. */
  ending: boolean;
}

/**
 * The acquirers' port: many connections, each with pipelined requests and answers in any order. The one file that
 * has the acquirers' sockets.
 *
 * Memory is bounded for each connection: an unfinished frame up to its limit, `maximumInFlight` requests, and
 * `maximumUnsentBytes` of answers plus those in flight; beyond that the node stops reading it. A frame that cannot
 * be followed closes its connection alone.
 */
export class AcquirerServer {
  readonly #options: AcquirerServerOptions;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();

  constructor(options: AcquirerServerOptions) {
    this.#options = options;
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
      this.#accept(socket);
    });
    this.#server.maxConnections = options.maximumConnections;
    this.#server.on('drop', (data) => {
      options.onRefused?.(`${data?.remoteAddress ?? '?'}:${data?.remotePort ?? 0}`);
    });
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Throws PORT_TAKEN. */
  async listen(): Promise<void> {
    const { host, port } = this.#options.endpoint;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        reject(
          new SwitchError(
            'PORT_TAKEN',
            `cannot listen for acquirers at ${host}:${port} (${error.code ?? error.message})`,
            {
              cause: error,
            },
          ),
        );
      });
      this.#server.listen({ host, port, backlog: 1024 }, resolve);
    });
    // Out of file descriptors: the connections that there are go on, so the node does too.
    this.#server.removeAllListeners('error').on('error', (error) => {
      this.#options.onClosed('listener', error.message);
    });
  }

  /** Call about every second: closes connections that stopped in the middle of a frame or do not read. */
  tick(): void {
    const nowMs = this.#options.clock.monotonicMs();
    const { partialFrameMs, slowReaderMs } = this.#options;
    for (const connection of this.#connections) {
      const { partialSinceMs, blockedSinceMs } = connection;
      if (partialSinceMs !== undefined && nowMs - partialSinceMs > partialFrameMs) {
        this.#close(connection, `a frame was not finished within ${partialFrameMs} ms`);
      } else if (blockedSinceMs !== undefined && nowMs - blockedSinceMs > slowReaderMs) {
        this.#close(connection, `answers were not read for ${slowReaderMs} ms`);
      }
    }
  }

  /** Takes no new connections and requests; resolves when what was in flight has been answered or `graceMs` is over. */
  async close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    for (const connection of this.#connections) {
      connection.ending = true;
      connection.partialSinceMs = undefined;
      // Read on, into nothing: a paused socket would never notice that its peer has closed too.
      connection.socket.resume();
      this.#endWhenDone(connection);
    }
    const timer = this.#options.clock.after(graceMs, () => {
      for (const connection of this.#connections) this.#close(connection, 'the node stops');
    });
    await closed;
    timer.cancel();
  }

  #accept(socket: Socket): void {
    const { openSession, maximumFrameBytes, onClosed } = this.#options;
    const remote = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? 0}`;
    const connection: Connection = {
      socket,
      remote,
      deframer: new Deframer(length2, maximumFrameBytes),
      session: openSession(remote, (reason) => {
        this.#close(connection, reason);
      }),
      inFlight: 0,
      outgoing: [],
      flushScheduled: false,
      partialSinceMs: undefined,
      blockedSinceMs: undefined,
      ending: false,
    };
    this.#connections.add(connection);
    socket.on('data', (chunk) => {
      this.#onData(connection, chunk);
    });
    socket.on('drain', () => {
      connection.blockedSinceMs = undefined;
      this.#regulate(connection);
    });
    socket.on('end', () => {
      connection.ending = true;
      this.#endWhenDone(connection);
    });
    socket.on('error', (error) => {
      onClosed(remote, error.message);
    });
    socket.on('close', () => {
      this.#connections.delete(connection);
      this.#options.onEnded?.(remote);
    });
  }

  #onData(connection: Connection, chunk: Buffer): void {
    if (connection.ending) return;
    for (const event of connection.deframer.push(chunk)) {
      switch (event.kind) {
        case 'poll':
          break;
        case 'broken':
          this.#close(connection, `frame ${event.reason}`);
          return;
        case 'frame':
          connection.partialSinceMs = undefined;
          this.#onFrame(connection, event.bytes);
          break;
      }
    }
    if (connection.deframer.pendingBytes === 0) connection.partialSinceMs = undefined;
    else connection.partialSinceMs ??= this.#options.clock.monotonicMs();
    this.#regulate(connection);
  }

  #onFrame(connection: Connection, bytes: Buffer): void {
    connection.inFlight += 1;
    let answered = false;
    connection.session.receive(bytes, (answer) => {
      if (answered) return;
      answered = true;
      connection.inFlight -= 1;
      if (answer !== undefined) this.#send(connection, answer);
      this.#regulate(connection);
      this.#endWhenDone(connection);
    });
  }

  /** Answers that are ready in the same turn leave in one write. */
  #send(connection: Connection, answer: Buffer): void {
    if (connection.socket.destroyed) return;
    connection.outgoing.push(frame(answer, length2));
    if (connection.flushScheduled) return;
    connection.flushScheduled = true;
    this.#options.clock.soon(() => {
      connection.flushScheduled = false;
      const { socket, outgoing } = connection;
      connection.outgoing = [];
      if (!socket.destroyed && !socket.write(Buffer.concat(outgoing))) {
        connection.blockedSinceMs ??= this.#options.clock.monotonicMs();
      }
      this.#regulate(connection);
      this.#endWhenDone(connection);
    });
  }

  #regulate(connection: Connection): void {
    const { socket, inFlight } = connection;
    if (connection.ending) return;
    const full = inFlight >= this.#options.maximumInFlight || socket.writableLength > maximumUnsentBytes;
    if (full && !socket.isPaused()) socket.pause();
    else if (!full && socket.isPaused()) socket.resume();
  }

  #endWhenDone(connection: Connection): void {
    const done = connection.inFlight === 0 && connection.outgoing.length === 0 && !connection.flushScheduled;
    if (connection.ending && done && !connection.socket.destroyed) connection.socket.end();
  }

  #close(connection: Connection, reason: string): void {
    this.#options.onClosed(connection.remote, reason);
    connection.socket.destroy();
  }
}
