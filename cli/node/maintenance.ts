import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';

import type { GroupId } from '../../base/identifiers.ts';
import type { EncodedKey } from '../../store/canonical.ts';
import type { RowState } from '../../store/row-repair.ts';
import type { Holding, OpenReply, ReadReply, SnapshotReading } from '../../store/snapshot-shelf.ts';
import type { FromMaintenanceThread, MaintenanceThreadData, ToMaintenanceThread } from './maintenance-thread.ts';

type Request = ToMaintenanceThread['request'];

/** Calls to the maintenance thread, from any thread, through a port of one's own. */
class MaintenanceCalls {
  readonly #port: Pick<MessagePort, 'postMessage'>;
  readonly #waiting = new Map<number, (reply: FromMaintenanceThread) => void>();
  #next = 1;

  constructor(port: Pick<MessagePort, 'postMessage'>) {
    this.#port = port;
  }

  ask(request: Request, done: (reply: FromMaintenanceThread) => void): void {
    const call = this.#next++;
    this.#waiting.set(call, done);
    const transferred = request.kind === 'connect' ? [request.port] : [];
    this.#port.postMessage({ call, request } satisfies ToMaintenanceThread, transferred);
  }

  settle(reply: FromMaintenanceThread): void {
    const done = this.#waiting.get(reply.call);
    this.#waiting.delete(reply.call);
    done?.(reply);
  }
}

/** The maintenance thread, as the main thread uses it: checkpoints, and the snapshots that compares read. */
export class Maintenance {
  readonly #worker: Worker;
  readonly #calls: MaintenanceCalls;
  readonly #onCheckpointFailed: (reason: string) => void;
  #closed = false;
  #checkpointing = false;

  constructor(options: {
    readonly data: MaintenanceThreadData;
    readonly onDeath: (error: Error) => void;
    /** A write-ahead log could not be moved into its file: it grows until it can. */
    readonly onCheckpointFailed?: (reason: string) => void;
  }) {
    this.#onCheckpointFailed = options.onCheckpointFailed ?? ((): void => undefined);
    this.#worker = new Worker(new URL('./maintenance-thread.ts', import.meta.url), {
      workerData: options.data,
    });
    this.#calls = new MaintenanceCalls(this.#worker);
    this.#worker.on('message', (reply: FromMaintenanceThread) => {
      this.#calls.settle(reply);
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
    if (reply.kind === 'refused') this.#onCheckpointFailed(reply.reason);
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

  /** Rows as the snapshot of this mark has them: the first ones of the keys, as many as an answer takes. */
  async readRows(
    group: GroupId,
    compare: string,
    table: string,
    keys: readonly EncodedKey[],
    copy: 'recomputed' | undefined,
  ): Promise<readonly (RowState | null)[]> {
    const reply = await this.#call({ kind: 'read-rows', group, compare, table, keys, copy });
    if (reply.kind !== 'rows') throw new Error(reply.kind === 'refused' ? reply.reason : `answered ${reply.kind}`);
    return reply.rows;
  }

  /** A port for another thread of the process, which `SnapshotPort` takes: to be transferred to it. */
  connect(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    this.#calls.ask({ kind: 'connect', port: port1 }, () => undefined);
    return port2;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#call({ kind: 'close' });
  }

  #call(request: Request): Promise<FromMaintenanceThread> {
    return new Promise((resolve) => {
      this.#calls.ask(request, resolve);
    });
  }
}

/** The maintenance thread, as the thread of consensus uses it: it reads what members that are far behind ask for. */
export class SnapshotPort implements SnapshotReading {
  readonly #port: MessagePort;
  readonly #calls: MaintenanceCalls;

  constructor(port: MessagePort) {
    this.#port = port;
    this.#calls = new MaintenanceCalls(port);
    port.on('message', (reply: FromMaintenanceThread) => {
      this.#calls.settle(reply);
    });
  }

  open(group: GroupId, holding: Holding, done: (reply: OpenReply) => void): void {
    this.#calls.ask({ kind: 'snapshot-open', group, holding }, (reply) => {
      done(reply.kind === 'snapshot-opened' ? reply.reply : refusalOf(reply));
    });
  }

  read(snapshot: number, chunk: number, done: (reply: ReadReply) => void): void {
    this.#calls.ask({ kind: 'snapshot-read', snapshot, chunk }, (reply) => {
      if (reply.kind !== 'snapshot-chunk') done(refusalOf(reply));
      else if (reply.reply.kind !== 'chunk') done(reply.reply);
      else {
        // Between threads a Buffer becomes a plain array of bytes.
        const { buffer, byteOffset, byteLength } = reply.reply.bytes;
        done({ ...reply.reply, bytes: Buffer.from(buffer, byteOffset, byteLength) });
      }
    });
  }

  close(snapshot: number): void {
    this.#calls.ask({ kind: 'snapshot-close', snapshot }, () => undefined);
  }

  /** Lets the thread that has the port end. */
  disconnect(): void {
    this.#port.close();
  }
}

function refusalOf(reply: FromMaintenanceThread): { readonly kind: 'refused'; readonly reason: string } {
  return { kind: 'refused', reason: reply.kind === 'refused' ? reply.reason : `answered ${reply.kind}` };
}
