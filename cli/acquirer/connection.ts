import { connect, type Socket } from 'node:net';

import type { Clock, Timer } from '../../base/clock.ts';
import { assert } from '../../base/errors.ts';
import type { Endpoint } from '../../base/topology.ts';
import { pack, unpack } from '../../switch/iso8583/codec.ts';
import type { CodecError, IsoMessage } from '../../switch/iso8583/codec.ts';
import { Deframer, frame, length2 } from '../../switch/iso8583/framing.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';
import type { MessageSpec } from '../../switch/iso8583/spec.ts';
import { textOf } from './message-parts.ts';
import { systemErrorCode } from './usage.ts';

/** What became of one request on one connection. */
export type Outcome =
  | { readonly kind: 'answered'; readonly message: IsoMessage; readonly roundTripMs: number }
  /** It was sent, and no answer came within the time. Whether it was decided is not known. */
  | { readonly kind: 'timeout' }
  /** `sent` false: the connection was gone before, so nobody has seen the request. Else it may have been decided. */
  | { readonly kind: 'connection-lost'; readonly sent: boolean }
  /** The message has no form on the wire; nothing was sent. */
  | { readonly kind: 'unpackable'; readonly error: CodecError };

/**
 * An incoming message that settles no request. `late`: its request has timed out; `duplicate`: its request was
 * answered before; `unknown`: nobody asked; `undecodable`: a frame that is no message of the dialect.
 */
export type Stray =
  | { readonly kind: 'late' | 'duplicate' | 'unknown'; readonly message: IsoMessage }
  | { readonly kind: 'undecodable'; readonly error: CodecError };

export interface ConnectionOptions {
  readonly endpoint: Endpoint;
  readonly clock: Clock;
  readonly requestTimeoutMs: number;
  readonly connectTimeoutMs?: number;
  readonly spec?: MessageSpec;
  /** Told of every stray as it comes; the latest are also kept. */
  readonly onStray?: (stray: Stray) => void;
  /** Runs right before bytes go to the socket: what must be on record before it is sent. When it throws, nothing is
   * sent and the connection is lost. */
  readonly beforeWrite?: () => void;
}

export type Opened =
  | { readonly kind: 'connected'; readonly connection: AcquirerConnection }
  /** `reason`: the system's code (`ECONNREFUSED`), or `no connection within N ms`. */
  | { readonly kind: 'refused'; readonly reason: string };

const defaultConnectTimeoutMs = 3_000;
const largestFrame = 0xffff;
const straysKept = 100;

interface Waiting {
  readonly sentAtMs: number;
  readonly settle: (outcome: Outcome) => void;
}

/** Opens one connection to an ISO 8583 port. A connection that is lost stays lost: the caller opens another. */
export function openConnection(options: ConnectionOptions): Promise<Opened> {
  const { endpoint, clock } = options;
  const timeoutMs = options.connectTimeoutMs ?? defaultConnectTimeoutMs;
  return new Promise((resolve) => {
    const socket = connect({ host: endpoint.host, port: endpoint.port, noDelay: true });
    const refuse = (reason: string): void => {
      timer.cancel();
      socket.destroy();
      resolve({ kind: 'refused', reason });
    };
    const failed = (error: Error): void => {
      refuse(systemErrorCode(error));
    };
    const timer = clock.after(timeoutMs, () => {
      refuse(`no connection within ${timeoutMs} ms`);
    });
    socket.once('error', failed);
    socket.once('connect', () => {
      timer.cancel();
      socket.off('error', failed);
      resolve({ kind: 'connected', connection: new AcquirerConnection(socket, options) });
    });
  });
}

/**
 * An acquirer's end of a connection: requests are pipelined, answers come in any order and find their request by
 * (MTI class, DE 11, DE 41, DE 7), network messages (08xx) without DE 41, which their answers do not carry.
 * All requests of one turn of the event loop leave in one write. It never repeats or reconnects by itself.
 */
export class AcquirerConnection {
  /** Settles when the connection is gone, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #spec: MessageSpec;
  readonly #requestTimeoutMs: number;
  readonly #onStray: ((stray: Stray) => void) | undefined;
  readonly #beforeWrite: (() => void) | undefined;
  readonly #deframer = new Deframer(length2, largestFrame);
  /** In the order of sending, which is the order of deadlines too: one timer, for the first, serves all. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #settled = new RecentFates();
  readonly #strays: Stray[] = [];
  readonly #strayCounts = { late: 0, duplicate: 0, unknown: 0, undecodable: 0 };
  #outgoing: Buffer[] = [];
  #timer: Timer | undefined;
  #open = true;

  /** `socket` is connected. */
  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#spec = options.spec ?? iso87Ascii;
    this.#requestTimeoutMs = options.requestTimeoutMs;
    this.#onStray = options.onStray;
    this.#beforeWrite = options.beforeWrite;
    socket.on('data', (chunk: Buffer) => {
      this.#receive(chunk);
    });
    // 'close' follows every error and carries the consequences.
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#lose();
        resolve();
      });
    });
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  /** The peer does not read as fast as we write: wait for `drained` before the next request, or memory grows. */
  get congested(): boolean {
    return this.#socket.writableNeedDrain;
  }

  get strayCounts(): Readonly<Record<Stray['kind'], number>> {
    return this.#strayCounts;
  }

  /** The latest strays, at most 100, for a look. They hold card data: show them through `describe` only. */
  get strays(): readonly Stray[] {
    return this.#strays;
  }

  /** Resolves when the connection is not congested, or lost. */
  drained(): Promise<void> {
    if (!this.congested || !this.#open) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#socket.off('drain', done);
        this.#socket.off('close', done);
        resolve();
      };
      this.#socket.on('drain', done);
      this.#socket.on('close', done);
    });
  }

  /**
   * Sends `message` and waits for its answer. Never rejects. The same key must not be in flight on this connection:
   * no answer could be told from the other's.
   */
  request(message: IsoMessage): Promise<Outcome> {
    return new Promise((settle) => {
      this.send(message, settle);
    });
  }

  /** As `request`, for callers with tens of thousands of requests a second. `settle` is called once, perhaps at once. */
  send(message: IsoMessage, settle: (outcome: Outcome) => void): void {
    if (!this.#open) {
      settle({ kind: 'connection-lost', sent: false });
      return;
    }
    const packed = pack(message, this.#spec);
    if (packed.kind === 'invalid') {
      settle({ kind: 'unpackable', error: packed.error });
      return;
    }
    const key = exchangeKey(message);
    assert(!this.#waiting.has(key), 'a key is in flight once');
    this.#waiting.set(key, { sentAtMs: this.#clock.monotonicMs(), settle });
    this.#timer ??= this.#clock.after(this.#requestTimeoutMs, this.#expire);
    // After everything else that this turn receives and sends: one write to the socket, one to the journal.
    if (this.#outgoing.length === 0) this.#clock.soon(this.#flush);
    this.#outgoing.push(frame(packed.bytes, length2));
  }

  /** Ends the connection. What is still in flight is lost: wait for it first. */
  close(): Promise<void> {
    this.#socket.destroySoon();
    return this.closed;
  }

  /** Ends the connection at once, unsent bytes included. */
  destroy(): void {
    this.#lose();
    this.#socket.destroy();
  }

  readonly #flush = (): void => {
    const frames = this.#outgoing;
    this.#outgoing = [];
    const [only] = frames;
    if (!this.#open || only === undefined) return;
    try {
      this.#beforeWrite?.();
    } catch {
      this.destroy();
      return;
    }
    this.#socket.write(frames.length === 1 ? only : Buffer.concat(frames));
  };

  readonly #expire = (): void => {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    for (const [key, waiting] of this.#waiting) {
      const leftMs = waiting.sentAtMs + this.#requestTimeoutMs - now;
      if (leftMs > 0) {
        this.#timer = this.#clock.after(Math.ceil(leftMs), this.#expire);
        return;
      }
      this.#waiting.delete(key);
      this.#settled.add(key, 'late');
      waiting.settle({ kind: 'timeout' });
    }
  };

  #receive(chunk: Buffer): void {
    for (const event of this.#deframer.push(chunk)) {
      if (event.kind === 'broken') {
        this.destroy();
        return;
      }
      if (event.kind === 'frame') this.#receiveFrame(event.bytes);
    }
  }

  #receiveFrame(bytes: Buffer): void {
    const unpacked = unpack(bytes, this.#spec);
    if (unpacked.kind === 'invalid') {
      this.#stray({ kind: 'undecodable', error: unpacked.error });
      return;
    }
    const { message } = unpacked;
    const key = exchangeKey(message);
    const waiting = isAnswer(message.mti) ? this.#waiting.get(key) : undefined;
    if (waiting === undefined) {
      this.#stray({ kind: this.#settled.get(key) ?? 'unknown', message });
      return;
    }
    this.#waiting.delete(key);
    this.#settled.add(key, 'duplicate');
    waiting.settle({ kind: 'answered', message, roundTripMs: this.#clock.monotonicMs() - waiting.sentAtMs });
  }

  #stray(stray: Stray): void {
    this.#strayCounts[stray.kind] += 1;
    this.#strays.push(stray);
    if (this.#strays.length > straysKept) this.#strays.shift();
    this.#onStray?.(stray);
  }

  #lose(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#outgoing = [];
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { settle } of waiting) settle({ kind: 'connection-lost', sent: true });
  }
}

/** MTI 0110 and 0101 are of the exchange 0100: response bit and repeat digit cleared. */
function exchangeOf(mti: string): string {
  return `${mti.slice(0, 2)}${Number(mti[2]) & ~1}0`;
}

function isAnswer(mti: string): boolean {
  return Number(mti[2]) % 2 === 1;
}

function exchangeKey(message: IsoMessage): string {
  const { mti } = message;
  return `${exchangeOf(mti)}|${textOf(message, 11)}|${mti[1] === '8' ? '' : textOf(message, 41)}|${textOf(message, 7)}`;
}

const generationSize = 8_192;

/** How recent requests were settled, so that a second answer can be named: the last 8,192 at least, bounded. */
class RecentFates {
  #young = new Map<string, 'late' | 'duplicate'>();
  #old = new Map<string, 'late' | 'duplicate'>();

  /** `strayKind`: what another answer to this request would be. */
  add(key: string, strayKind: 'late' | 'duplicate'): void {
    this.#young.set(key, strayKind);
    if (this.#young.size < generationSize) return;
    this.#old = this.#young;
    this.#young = new Map();
  }

  get(key: string): 'late' | 'duplicate' | undefined {
    return this.#young.get(key) ?? this.#old.get(key);
  }
}
