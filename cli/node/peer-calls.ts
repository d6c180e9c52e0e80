import type { Clock, Timer } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import type { Sealer } from '../../base/sealing.ts';

/** A call by name with JSON parameters, answered with JSON or an error that is made for people to read. */
export interface CallRequest {
  readonly method: string;
  readonly parameters: unknown;
}

export type CallReply =
  | { readonly kind: 'result'; readonly result: unknown }
  | { readonly kind: 'error'; readonly code: string; readonly message: string; readonly hint: string };

export function errorReply(error: unknown): CallReply {
  return error instanceof SwitchError
    ? { kind: 'error', code: error.code, message: error.message, hint: error.hint }
    : { kind: 'error', code: 'INTERNAL', message: describeError(error), hint: '' };
}

type Wire =
  | { readonly kind: 'call'; readonly id: number; readonly request: CallRequest }
  | { readonly kind: 'reply'; readonly id: number; readonly reply: CallReply };

export interface PeerCallsOptions {
  readonly self: NodeId;
  readonly sealer: Sealer;
  readonly clock: Clock;
  readonly send: (to: NodeId, bytes: Buffer) => void;
  readonly serve: (from: NodeId, request: CallRequest) => Promise<CallReply>;
}

/**
 * Calls between nodes on the bus's channel `call`, sealed. A call that gets no reply in time fails as retryable:
 * whether it was carried out is not known, so only calls that may be repeated are made this way.
 */
export class PeerCalls {
  readonly #options: PeerCallsOptions;
  readonly #waiting = new Map<
    number,
    { readonly settle: (reply: CallReply | undefined) => void; readonly timer: Timer }
  >();
  #nextId = 1;

  constructor(options: PeerCallsOptions) {
    this.#options = options;
  }

  async call(to: NodeId, request: CallRequest, timeoutMs: number): Promise<CallReply> {
    const id = this.#nextId++;
    const reply = await new Promise<CallReply | undefined>((resolve) => {
      const settle = (settled: CallReply | undefined): void => {
        this.#waiting.get(id)?.timer.cancel();
        this.#waiting.delete(id);
        resolve(settled);
      };
      const timer = this.#options.clock.after(timeoutMs, () => {
        settle(undefined);
      });
      this.#waiting.set(id, { settle, timer });
      this.#send(to, { kind: 'call', id, request });
    });
    return reply ?? errorReply(new SwitchError('NODE_UNREACHABLE', `${to} did not answer within ${timeoutMs} ms`));
  }

  receive(from: NodeId, bytes: Buffer): void {
    const { sealer, self, serve } = this.#options;
    const clear = sealer.open(`call ${from} ${self}`, bytes);
    if (clear === undefined) return;
    const wire = JSON.parse(clear.toString('utf8')) as Wire;
    if (wire.kind === 'reply') {
      this.#waiting.get(wire.id)?.settle(wire.reply);
      return;
    }
    void serve(from, wire.request).then((reply) => {
      this.#send(from, { kind: 'reply', id: wire.id, reply });
    });
  }

  #send(to: NodeId, wire: Wire): void {
    const { sealer, self, send } = this.#options;
    send(to, sealer.seal(`call ${self} ${to}`, Buffer.from(JSON.stringify(wire))));
  }
}
