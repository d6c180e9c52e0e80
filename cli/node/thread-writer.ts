import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { SwitchError } from '../../base/errors.ts';
import { configGroup, type GroupId } from '../../base/identifiers.ts';
import type { EditOutcome, RepairBatch } from '../../store/group-file.ts';
import type { RowOutcome } from '../../store/row-repair.ts';
import type { GroupWriter, OpenedGroup, SnapshotRequest, WriteRequest, WriterEvent } from '../../store/writer.ts';
import type { FromWriterThread, ToWriterThread, WriterThreadData } from './writer-thread.ts';

/** Name of a group's first file in a process's data folder. */
export function groupFileName(group: GroupId): string {
  return group === configGroup ? 'config.db' : `group-${group}.db`;
}

/** The group whose file this is, of any generation (store/snapshot-install.ts); undefined for other files. */
export function groupOfFile(name: string): GroupId | undefined {
  const [, stem = ''] = /^([^.]+)(?:\.g[1-9][0-9]{0,8})?\.db$/.exec(name) ?? [];
  if (stem === configGroup) return configGroup;
  return /^group-([a-z][a-z0-9-]{0,15})$/.exec(stem)?.[1] as GroupId | undefined;
}

/** The writer thread, as the thread that started it uses it. */
export class ThreadWriter implements GroupWriter {
  readonly #folder: string;
  readonly #worker: Worker;
  readonly #onEvents: (events: readonly WriterEvent[]) => void;
  readonly #calls = new Map<number, { resolve: (reply: FromWriterThread) => void; reject: (error: Error) => void }>();
  #nextCall = 1;
  #closed = false;
  #submitted: WriteRequest[] = [];

  /** `onDeath` is called when the thread ends without having been asked to: the process cannot go on. */
  constructor(options: {
    readonly folder: string;
    readonly data: WriterThreadData;
    readonly onEvents: (events: readonly WriterEvent[]) => void;
    readonly onDeath: (error: Error) => void;
  }) {
    this.#folder = options.folder;
    this.#onEvents = options.onEvents;
    this.#worker = new Worker(new URL('./writer-thread.ts', import.meta.url), { workerData: options.data });
    this.#worker.on('message', (message: FromWriterThread) => {
      if (message.kind === 'events') this.#onEvents(message.events);
      else this.#settle(message);
    });
    this.#worker.on('error', (error) => {
      options.onDeath(error instanceof Error ? error : new Error(String(error)));
    });
    this.#worker.on('exit', () => {
      if (!this.#closed) options.onDeath(new Error('the writer thread ended'));
    });
  }

  open(group: GroupId): Promise<OpenedGroup> {
    const path = join(this.#folder, groupFileName(group));
    return this.#opened((call) => ({ kind: 'open', call, group, path }));
  }

  reopen(group: GroupId, empty = false): Promise<OpenedGroup> {
    const path = join(this.#folder, groupFileName(group));
    return this.#opened((call) => ({ kind: 'reopen', call, group, path, empty }));
  }

  /** Requests of one turn of the event loop travel together. */
  submit(request: WriteRequest): void {
    if (this.#submitted.length === 0) {
      queueMicrotask(() => {
        this.#handOver();
      });
    }
    this.#submitted.push(request);
  }

  trim(group: GroupId, through: number): void {
    this.#post({ kind: 'trim', group, through });
  }

  resume(group: GroupId): void {
    this.#post({ kind: 'resume', group });
  }

  finishCheckpoint(group: GroupId): void {
    this.#post({ kind: 'finish-checkpoint', group });
  }

  /** Has it noted what became of an edit by the sqlite3 shell. */
  closeEdit(group: GroupId, outcome: EditOutcome): void {
    this.#post({ kind: 'close-edit', group, outcome });
  }

  snapshot(request: SnapshotRequest): void {
    this.#post({ kind: 'snapshot', request });
  }

  /** Rejects with REPAIR_REFUSED when nothing was changed. */
  async repair(group: GroupId, batch: RepairBatch): Promise<readonly RowOutcome[]> {
    const reply = await this.#call((call) => ({ kind: 'repair', call, group, batch }));
    if (reply.kind === 'refused') throw new SwitchError(reply.code ?? 'REPAIR_REFUSED', reply.message);
    if (reply.kind !== 'repaired') throw new Error(`writer thread answered repair with ${reply.kind}`);
    return reply.outcomes;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    const closed = this.#call((call) => ({ kind: 'close', call }));
    this.#closed = true;
    await closed;
  }

  async #opened(make: (call: number) => ToWriterThread): Promise<OpenedGroup> {
    const reply = await this.#call(make);
    if (reply.kind === 'refused') throw new SwitchError(reply.code ?? 'STORE_UNREADABLE', reply.message);
    if (reply.kind !== 'opened') throw new Error(`writer thread answered open with ${reply.kind}`);
    const { last, applied, base, path } = reply;
    return { last, applied, base, path };
  }

  #call(make: (call: number) => ToWriterThread): Promise<FromWriterThread> {
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#post(make(call));
    });
  }

  /** After what was submitted before it: the thread does things in the order in which they were asked for. */
  #post(message: ToWriterThread): void {
    if (this.#closed) return;
    this.#handOver();
    this.#worker.postMessage(message);
  }

  #handOver(): void {
    if (this.#submitted.length === 0 || this.#closed) return;
    const requests = this.#submitted;
    this.#submitted = [];
    this.#worker.postMessage({ kind: 'submit', requests } satisfies ToWriterThread);
  }

  #settle(reply: Exclude<FromWriterThread, { kind: 'events' }>): void {
    this.#calls.get(reply.call)?.resolve(reply);
    this.#calls.delete(reply.call);
  }
}
