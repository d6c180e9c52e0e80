import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

import type { Clock } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import { maskCardData } from '../../base/pan.ts';
import type { Endpoint } from '../../base/topology.ts';

export interface MonitorOptions {
  readonly endpoint: Endpoint;
  readonly clock: Clock;
  /** The text of `/metrics`. It names no card, link or request: labels are of fixed sets. */
  readonly metrics: () => Promise<string>;
  /** Why the process does not serve as it should, in words; none: it is ready. */
  readonly reasons: () => Promise<readonly string[]>;
}

/** What was collected is given to everybody who asks within this time: asking often costs no more than asking now and then. */
const freshMs = 500;
/** A process that cannot say in this time how it is is not ready. */
const collectMs = 2000;
/** Whoever has not sent its request, or does not take its answer, in this time is disconnected. */
const patienceMs = 5000;
const maximumConnections = 32;
const maximumHeaderBytes = 4096;

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

/**
 * How a process tells monitoring of itself: `/metrics`, `/livez`, `/readyz` over HTTP. It only answers; nothing can be
 * changed through it, and it asks nobody who they are, so it belongs on loopback or a network of one's own.
 *
 * It shares the main thread with the deciding, so what can be asked of it is bounded: connections, header bytes, time,
 * and how often something is collected at all.
 */
export class Monitor {
  readonly #options: MonitorOptions;
  readonly #server: Server;
  readonly #metrics: () => Promise<Answer>;
  readonly #readiness: () => Promise<Answer>;

  constructor(options: MonitorOptions) {
    this.#options = options;
    this.#metrics = this.#collected(async () => ({
      status: 200,
      type: 'text/plain; version=0.0.4; charset=utf-8',
      body: await options.metrics(),
    }));
    this.#readiness = this.#collected(async () => readiness(await options.reasons()));
    this.#server = createServer(
      {
        maxHeaderSize: maximumHeaderBytes,
        headersTimeout: patienceMs,
        requestTimeout: patienceMs,
        keepAliveTimeout: patienceMs,
        connectionsCheckingInterval: 1000,
      },
      (request, response) => {
        void this.#serve(request, response);
      },
    );
    this.#server.maxConnections = maximumConnections;
    this.#server.setTimeout(patienceMs);
  }

  /** Throws PORT_TAKEN. */
  async listen(): Promise<void> {
    const { host, port } = this.#options.endpoint;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => {
        const reason = error.code ?? error.message;
        reject(new SwitchError('PORT_TAKEN', `cannot listen for monitoring at ${host}:${port} (${reason})`));
      });
      this.#server.listen({ host, port }, resolve);
    });
    // Out of file descriptors: who asks now is not served.
    this.#server.removeAllListeners('error').on('error', () => undefined);
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
      this.#server.closeAllConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request;
    // Nobody needs to send anything; what comes all the same is dropped.
    request.resume();
    const answer =
      method === 'GET' || method === 'HEAD'
        ? await this.#answer(url.split('?')[0] ?? '')
        : plain(405, 'only GET and HEAD are answered');
    if (response.destroyed) return;
    const body = Buffer.from(answer.body);
    response.writeHead(answer.status, {
      'content-type': answer.type,
      'content-length': body.length,
      'cache-control': 'no-store',
      ...(answer.status === 405 ? { allow: 'GET, HEAD', connection: 'close' } : {}),
    });
    response.end(method === 'HEAD' ? undefined : body);
  }

  #answer(path: string): Promise<Answer> {
    switch (path) {
      case '/livez':
        // That this line runs is the answer.
        return Promise.resolve(plain(200, 'alive'));
      case '/readyz':
        return this.#readiness();
      case '/metrics':
        return this.#metrics();
      default:
        return Promise.resolve(plain(404, 'there are /metrics, /livez and /readyz'));
    }
  }

  /** `collect`, at most once at a time and once in `freshMs`; whoever asks meanwhile gets the same. */
  #collected(collect: () => Promise<Answer>): () => Promise<Answer> {
    const { clock } = this.#options;
    let last: { readonly answer: Promise<Answer>; doneMs: number } | undefined;
    return () => {
      if (last !== undefined && clock.monotonicMs() - last.doneMs < freshMs) return last.answer;
      const answer = withinTime(clock, collect);
      const current = { answer, doneMs: Number.POSITIVE_INFINITY };
      last = current;
      void answer.then(() => {
        current.doneMs = clock.monotonicMs();
      });
      return answer;
    };
  }
}

function readiness(reasons: readonly string[]): Answer {
  return reasons.length === 0 ? plain(200, 'ready') : plain(503, reasons.join('\n'));
}

/** Never rejects: what cannot be collected is an answer too. */
function withinTime(clock: Clock, collect: () => Promise<Answer>): Promise<Answer> {
  return new Promise((resolve) => {
    const timer = clock.after(collectMs, () => {
      resolve(plain(503, `the process could not say in ${collectMs} ms how it is: a thread of it stands still`));
    });
    collect()
      .catch((error: unknown) => plain(503, describeError(error)))
      .then(
        (answer) => {
          timer.cancel();
          resolve(answer);
        },
        () => undefined,
      );
  });
}

function plain(status: number, text: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${maskCardData(text)}\n` };
}
