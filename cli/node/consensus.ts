import { Worker } from 'node:worker_threads';

import { errorCatalogue, SwitchError, type ErrorCode } from '../../base/errors.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { RepairBatch } from '../../store/group-file.ts';
import type { RowOutcome } from '../../store/row-repair.ts';
import type {
  ConsensusEvent,
  ConsensusRequest,
  ConsensusStatus,
  ConsensusThreadData,
  FromConsensusThread,
  ToConsensusThread,
} from './consensus-thread.ts';
import { SharedMeters } from './meters.ts';

export interface ConsensusOptions {
  readonly data: Omit<ConsensusThreadData, 'ticked' | 'meters'>;
  readonly onEvent: (event: ConsensusEvent) => void;
  /** The thread has ended without having been asked to: the process cannot go on. */
  readonly onDeath: (error: Error) => void;
}

/** The thread of consensus, as the deciding thread uses it. */
export class Consensus {
  /** What the threads of consensus and of the writer count. */
  readonly meters = new SharedMeters();
  readonly #worker: Worker;
  readonly #ticked: Float64Array;
  readonly #calls = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  readonly #onEvent: ConsensusOptions['onEvent'];
  #nextCall = 1;
  #closed = false;

  /** Resolves when the thread has its broker. Throws BROKER_UNREACHABLE, STORE_UNREADABLE. */
  static start(options: ConsensusOptions): Promise<Consensus> {
    return new Promise((resolve, reject) => {
      const consensus: Consensus = new Consensus(
        options,
        () => {
          resolve(consensus);
        },
        reject,
      );
    });
  }

  private constructor(options: ConsensusOptions, onReady: () => void, onFailed: (error: Error) => void) {
    const ticked = new SharedArrayBuffer(Float64Array.BYTES_PER_ELEMENT);
    this.#ticked = new Float64Array(ticked);
    this.#onEvent = options.onEvent;
    const data: ConsensusThreadData = { ...options.data, ticked, meters: this.meters.buffer };
    this.#worker = new Worker(new URL('./consensus-thread.ts', import.meta.url), {
      workerData: data,
      transferList: [data.maintenance],
    });
    let isReady = false;
    this.#worker.on('message', (message: FromConsensusThread) => {
      if (message.kind === 'events') {
        for (const event of message.events) this.#onEvent(event);
      } else if (message.kind === 'ready') {
        isReady = true;
        onReady();
      } else if (message.kind === 'failed') {
        this.#closed = true;
        void this.#worker.terminate();
        onFailed(errorOf(message));
      } else {
        this.#settle(message);
      }
    });
    const onDeath = (error: Error): void => {
      if (this.#closed) return;
      if (isReady) options.onDeath(error);
      else onFailed(error);
    };
    this.#worker.on('error', (error) => {
      onDeath(error instanceof Error ? error : new Error(String(error)));
    });
    this.#worker.on('exit', () => {
      onDeath(new Error('the consensus thread ended'));
    });
  }

  /** The deciding thread is at work: call every few tens of milliseconds. */
  ticked(monotonicMs: number): void {
    this.#ticked[0] = monotonicMs;
  }

  post(message: Exclude<ToConsensusThread, { kind: 'call' }>): void {
    if (!this.#closed) this.#worker.postMessage(message);
  }

  async open(group: GroupId): Promise<void> {
    await this.#call({ kind: 'open', group });
  }

  /** From now on peers are heard and the clock runs. */
  async serve(): Promise<void> {
    await this.#call({ kind: 'serve' });
  }

  /** Enters an entry of a group that has no owner here; undefined when this process does not lead it. */
  enter(group: GroupId, body: string): Promise<{ readonly index: number; readonly term: number } | undefined> {
    return this.#call({ kind: 'enter', group, body }) as ReturnType<Consensus['enter']>;
  }

  status(): Promise<ConsensusStatus> {
    return this.#call({ kind: 'status' }) as Promise<ConsensusStatus>;
  }

  /** The groups that this process still leads. */
  drain(on: boolean): Promise<readonly GroupId[]> {
    return this.#call({ kind: 'drain', on }) as Promise<readonly GroupId[]>;
  }

  failback(groups: readonly GroupId[]): Promise<unknown> {
    return this.#call({ kind: 'failback', groups });
  }

  /** Rejects with REBUILD_REFUSED, or what its disk says. */
  async rebuild(group: GroupId): Promise<void> {
    await this.#call({ kind: 'rebuild', group });
  }

  /** Changes rows of the group's file here. Rejects with REPAIR_REFUSED: nothing was changed then. */
  repair(group: GroupId, batch: RepairBatch): Promise<readonly RowOutcome[]> {
    return this.#call({ kind: 'repair', group, batch }) as Promise<readonly RowOutcome[]>;
  }

  recover(group: GroupId, lost: readonly NodeId[], by: string): Promise<unknown> {
    return this.#call({ kind: 'recover', group, lost, by });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    const closed = this.#call({ kind: 'close' });
    this.#closed = true;
    await closed;
  }

  #call(request: ConsensusRequest): Promise<unknown> {
    if (this.#closed) return Promise.reject(new Error('consensus has ended'));
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      const message: ToConsensusThread = { kind: 'call', call, request };
      this.#worker.postMessage(message);
    });
  }

  #settle(message: FromConsensusThread & { readonly call: number }): void {
    const waiting = this.#calls.get(message.call);
    this.#calls.delete(message.call);
    if (message.kind === 'refused') waiting?.reject(errorOf(message));
    else if (message.kind === 'result') waiting?.resolve(message.result);
  }
}

function errorOf({ code, message }: { readonly code: string | undefined; readonly message: string }): Error {
  const known = code !== undefined && code in errorCatalogue;
  return known ? new SwitchError(code as ErrorCode, message) : new Error(message);
}
