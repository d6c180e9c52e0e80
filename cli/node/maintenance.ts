import { Worker } from 'node:worker_threads';

import type { GroupId } from '../../base/identifiers.ts';
import type { FromMaintenanceThread, ToMaintenanceThread } from './maintenance-thread.ts';

/** The maintenance thread, as the main thread uses it: checkpoints, and the snapshots that compares read. */
export class Maintenance {
  readonly #worker: Worker;
  readonly #calls = new Map<number, (reply: FromMaintenanceThread) => void>();
  #nextCall = 1;
  #closed = false;
  #checkpointing = false;

  constructor(options: { readonly folder: string; readonly onDeath: (error: Error) => void }) {
    this.#worker = new Worker(new URL('./maintenance-thread.ts', import.meta.url), {
      workerData: { folder: options.folder },
    });
    this.#worker.on('message', (reply: FromMaintenanceThread) => {
      this.#calls.get(reply.call)?.(reply);
      this.#calls.delete(reply.call);
    });
    this.#worker.on('error', (error) => {
      options.onDeath(error instanceof Error ? error : new Error(String(error)));
    });
    this.#worker.on('exit', () => {
      if (!this.#closed) options.onDeath(new Error('the maintenance thread ended'));
    });
  }

  /** Moves what is in the large write-ahead logs into their files; the names of those files. */
  async checkpoint(): Promise<readonly string[]> {
    if (this.#closed || this.#checkpointing) return [];
    this.#checkpointing = true;
    const reply = await this.#call({ kind: 'checkpoint' });
    this.#checkpointing = false;
    return reply.kind === 'checkpointed' ? reply.files : [];
  }

  /** Resolves when the snapshot is open, or cannot be. */
  async openSnapshot(group: GroupId, path: string, compare: string, index: number): Promise<void> {
    await this.#call({ kind: 'open', group, path, compare, index });
  }

  /** A call of the compare protocol, answered from the snapshot that it names. Throws what the thread refuses with. */
  async compare(parameters: unknown): Promise<unknown> {
    const reply = await this.#call({ kind: 'compare', parameters });
    if (reply.kind === 'refused') throw new Error(reply.reason);
    return reply.kind === 'result' ? reply.result : undefined;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#call({ kind: 'close' });
  }

  #call(request: ToMaintenanceThread['request']): Promise<FromMaintenanceThread> {
    const call = this.#nextCall++;
    return new Promise((resolve) => {
      this.#calls.set(call, resolve);
      this.#worker.postMessage({ call, request } satisfies ToMaintenanceThread);
    });
  }
}
