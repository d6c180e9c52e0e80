import type { Clock, Timer } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import type { Random } from '../../base/random.ts';
import { ReplayGuard } from '../../base/replay-guard.ts';
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
  | { readonly kind: 'call'; readonly id: string; readonly at: number; readonly request: CallRequest }
  | { readonly kind: 'reply'; readonly id: string; readonly reply: CallReply };

interface Waiting {
  readonly to: NodeId;
  readonly settle: (reply: CallReply | undefined) => void;
  readonly timer: Timer;
}

export interface PeerCallsOptions {
  readonly self: NodeId;
  readonly sealer: Sealer;
  readonly clock: Clock;
  readonly random: Random;
  readonly send: (to: NodeId, bytes: Buffer) => void;
  readonly serve: (from: NodeId, request: CallRequest) => Promise<CallReply>;
}

/**
 * Calls between nodes on the bus's channel `call`, sealed. A call that gets no reply in time fails as retryable:
 * whether it was carried out is not known, so only calls that may be repeated are made this way.
 */
export class PeerCalls {
  readonly #options: PeerCallsOptions;
  readonly #guard: ReplayGuard;
  /** Makes the ids of this start different from those of any other. */
  readonly #start: string;
  readonly #waiting = new Map<string, Waiting>();
  #nextId = 1;

  constructor(options: PeerCallsOptions) {
    this.#options = options;
    this.#guard = new ReplayGuard(options.clock);
    this.#start = options.random.bytes(8).toString('hex');
  }

  async call(to: NodeId, request: CallRequest, timeoutMs: number): Promise<CallReply> {
    const id = `${this.#start}.${this.#nextId++}`;
    const reply = await new Promise<CallReply | undefined>((resolve) => {
      const settle = (settled: CallReply | undefined): void => {
        this.#waiting.get(id)?.timer.cancel();
        this.#waiting.delete(id);
        resolve(settled);
      };
      const timer = this.#options.clock.after(timeoutMs, () => {
        settle(undefined);
      });
      this.#waiting.set(id, { to, settle, timer });
      this.#send(to, { kind: 'call', id, at: this.#options.clock.wallMs(), request });
    });
    return (
      reply ?? errorReply(new SwitchError('NODE_UNREACHABLE', `${to} did not answer within ${Math.ceil(timeoutMs)} ms`))
    );
  }

  receive(from: NodeId, bytes: Buffer): void {
    const { sealer, self, serve } = this.#options;
    const clear = sealer.open(`call ${from} ${self}`, bytes);
    if (clear === undefined) return;
    const wire = JSON.parse(clear.toString('utf8')) as Wire;
    if (wire.kind === 'reply') {
      const waiting = this.#waiting.get(wire.id);
      if (waiting?.to === from) waiting.settle(wire.reply);
      return;
    }
    if (this.#guard.refuse(wire.id, wire.at) !== undefined) return;
    void serve(from, wire.request).then((reply) => {
      this.#send(from, { kind: 'reply', id: wire.id, reply });
    });
  }

  #send(to: NodeId, wire: Wire): void {
    const { sealer, self, send } = this.#options;
    send(to, sealer.seal(`call ${self} ${to}`, Buffer.from(JSON.stringify(wire))));
  }
}
