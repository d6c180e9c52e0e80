import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { SwitchError } from '../../base/errors.ts';
import { configGroup, type GroupId } from '../../base/identifiers.ts';
import type { LogPosition } from '../../store/entry.ts';
import type { GroupWriter, WriteRequest, WriterEvent } from '../../store/writer.ts';
import type { FromWriterThread, ToWriterThread, WriterThreadData } from './writer-thread.ts';

/** Name of a group's file in a process's data folder. */
export function groupFileName(group: GroupId): string {
  return group === configGroup ? 'config.db' : `group-${group}.db`;
}

/** The group whose file this is; undefined for other files. */
export function groupOfFile(name: string): GroupId | undefined {
  if (name === groupFileName(configGroup)) return configGroup;
  return /^group-([a-z][a-z0-9-]{0,15})\.db$/.exec(name)?.[1] as GroupId | undefined;
}

/** The writer thread, as the main thread uses it. */
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

  async open(group: GroupId): Promise<{ last: LogPosition; applied: number; path: string }> {
    const path = join(this.#folder, groupFileName(group));
    const reply = await this.#call((call) => ({ kind: 'open', call, group, path }));
    if (reply.kind === 'refused') throw new SwitchError(reply.code ?? 'STORE_UNREADABLE', reply.message);
    if (reply.kind !== 'opened') throw new Error(`writer thread answered open with ${reply.kind}`);
    return { last: reply.last, applied: reply.applied, path };
  }

  /** Requests of one turn of the event loop travel together. */
  submit(request: WriteRequest): void {
    if (this.#submitted.length === 0) {
      queueMicrotask(() => {
        const requests = this.#submitted;
        this.#submitted = [];
        this.#post({ kind: 'submit', requests });
      });
    }
    this.#submitted.push(request);
  }

  resume(group: GroupId): void {
    this.#post({ kind: 'resume', group });
  }

  /** The bulk of the group's write-ahead log has been moved into its file: has the writer move the rest. */
  finishCheckpoint(group: GroupId): void {
    if (!this.#closed) this.#post({ kind: 'finish-checkpoint', group });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#call((call) => ({ kind: 'close', call }));
  }

  #call(make: (call: number) => ToWriterThread): Promise<FromWriterThread> {
    const call = this.#nextCall++;
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#post(make(call));
    });
  }

  #post(message: ToWriterThread): void {
    this.#worker.postMessage(message);
  }

  #settle(reply: Exclude<FromWriterThread, { kind: 'events' }>): void {
    this.#calls.get(reply.call)?.resolve(reply);
    this.#calls.delete(reply.call);
  }
}
