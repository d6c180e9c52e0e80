import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { z } from 'zod';

import { waitFor } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { loadTopology } from '../../base/topology.ts';
import { acquireFolderLock } from '../../store/folder-lock.ts';
import type { FolderLock } from '../../store/folder-lock.ts';
import { recordedProcesses, signalProcess } from '../cluster/run-record.ts';
import { endOrphans } from '../cluster/supervisor.ts';
import { undrainNode } from '../commands/drain.ts';
import { OperatorBus } from '../operator-bus.ts';
import { ip, mayHaveFailed, run } from './machine.ts';
import { supervisorOf } from './supervisor-of.ts';

/**
 * What has to be undone when a drill ends, however it ends. A record is on disk before its act: a drill that was killed
 * is undone by the next one, or by `quadrant drill undo`. Undoing a thing that was not done, or twice, does nothing.
 */
const undoRecord = z.discriminatedUnion('kind', [
  /** Processes of a drill's own cluster: nodes end with their supervisor, brokers and what was stopped do not. */
  z.object({ kind: z.literal('cluster'), dataFolder: z.string() }),
  /** A process of a cluster that is not the drill's was stopped by SIGSTOP. */
  z.object({ kind: z.literal('continue'), id: z.string(), pid: z.int(), marks: z.array(z.string()) }),
  /** Processes of a cluster that is not the drill's were ended: its supervisor starts them again. */
  z.object({ kind: z.literal('revive'), dataFolder: z.string(), ids: z.array(z.string()) }),
  z.object({ kind: z.literal('undrain'), configFile: z.string(), dataFolder: z.string(), node: z.string() }),
  /** A process of the drill itself. */
  z.object({ kind: z.literal('process'), what: z.string(), pid: z.int(), marks: z.array(z.string()) }),
  z.object({ kind: z.literal('namespace'), name: z.string() }),
  z.object({ kind: z.literal('link'), name: z.string() }),
  z.object({ kind: z.literal('mount'), folder: z.string() }),
]);

export type UndoRecord = z.infer<typeof undoRecord>;

const journalLine = z.union([z.object({ at: z.int(), record: undoRecord }), z.object({ done: z.int() })]);

const reviveTimeoutMs = 60_000;
const undrainTimeoutMs = 30_000;

/** Where drills of this user on this machine keep their lock and their undo journal. */
export function drillStateFolder(): string {
  return process.env['QUADRANT_DRILL_STATE'] ?? join(tmpdir(), `quadrant-drill-${process.getuid?.() ?? 0}`);
}

export class UndoJournal {
  readonly #file: string;
  readonly #clock: Clock;
  readonly #lock: FolderLock;
  readonly #pending = new Map<number, UndoRecord>();
  readonly #atClose: (() => void)[] = [];
  #next = 1;
  #closed = false;

  /**
   * Takes the lock of all drills on this machine. Throws DRILL_RUNNING when another drill has it: two at once would
   * spoil each other's figures, and each other's network.
   */
  static open(folder: string, name: string, clock: Clock): UndoJournal {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    let lock: FolderLock;
    try {
      lock = acquireFolderLock(folder, `quadrant drill ${name}`);
    } catch (error) {
      if (!(error instanceof SwitchError && error.code === 'DATA_FOLDER_IN_USE')) throw error;
      const holder = existsSync(join(folder, 'lock.owner')) ? readFileSync(join(folder, 'lock.owner'), 'utf8') : '';
      throw new SwitchError(
        'DRILL_RUNNING',
        `another drill is under way on this machine (${holder.trim() || 'it does not say which'})`,
        { cause: error },
      );
    }
    return new UndoJournal(folder, clock, lock);
  }

  private constructor(folder: string, clock: Clock, lock: FolderLock) {
    this.#file = join(folder, 'undo.jsonl');
    this.#clock = clock;
    this.#lock = lock;
    for (const line of existsSync(this.#file) ? readFileSync(this.#file, 'utf8').split('\n') : []) {
      const parsed = parseLine(line);
      if (parsed === undefined) continue;
      if ('done' in parsed) {
        this.#pending.delete(parsed.done);
      } else {
        this.#pending.set(parsed.at, parsed.record);
        this.#next = Math.max(this.#next, parsed.at + 1);
      }
    }
  }

  get pending(): readonly UndoRecord[] {
    return [...this.#pending.values()];
  }

  /** On disk when it returns. Throws when undoing has begun: nothing new is done then. */
  record(record: UndoRecord): number {
    if (this.#closed) throw new SwitchError('DRILL_REFUSED', 'the drill is being ended');
    const at = this.#next++;
    this.#append({ at, record });
    this.#pending.set(at, record);
    return at;
  }

  done(at: number): void {
    if (!this.#pending.delete(at)) return;
    if (this.#pending.size === 0) rmSync(this.#file, { force: true });
    else this.#append({ done: at });
  }

  /** Of what was recorded, what this is about has been undone. */
  doneWhere(isUndone: (record: UndoRecord) => boolean): void {
    for (const [at, record] of [...this.#pending]) if (isUndone(record)) this.done(at);
  }

  /** For what goes on by itself and would do again what is undone. */
  atClose(action: () => void): void {
    this.#atClose.push(action);
  }

  /** Nothing can be recorded from here on. */
  close(): void {
    this.#closed = true;
    for (const action of this.#atClose.splice(0)) action();
  }

  /** Undoes everything, the latest first. What cannot be undone is said, and stays on record. Whether all went well. */
  async undoAll(note: (line: string) => void): Promise<boolean> {
    let complete = true;
    for (const [at, record] of [...this.#pending].reverse()) {
      try {
        await undo(record, this.#clock);
        this.done(at);
      } catch (error) {
        complete = false;
        note(`could not undo ${describe(record)}: ${describeError(error)}`);
      }
    }
    return complete;
  }

  release(): void {
    this.#lock.release();
  }

  #append(line: z.infer<typeof journalLine>): void {
    const descriptor = openSync(this.#file, 'a', 0o600);
    try {
      writeSync(descriptor, `${JSON.stringify(line)}\n`);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }
}

function parseLine(line: string): z.infer<typeof journalLine> | undefined {
  try {
    return journalLine.safeParse(JSON.parse(line)).data;
  } catch {
    // Half written when the drill was killed: its act had not begun.
    return undefined;
  }
}

/** In words, for people. */
export function describe(record: UndoRecord): string {
  switch (record.kind) {
    case 'cluster':
      return `the processes of the cluster in ${record.dataFolder}`;
    case 'continue':
      return `the stop of ${record.id}`;
    case 'revive':
      return `the end of ${record.ids.join(', ')}`;
    case 'undrain':
      return `the drain of ${record.node}`;
    case 'process':
      return record.what;
    case 'namespace':
      return `the network namespace ${record.name}`;
    case 'link':
      return `the network link ${record.name}`;
    case 'mount':
      return `the mount at ${record.folder}`;
  }
}

async function undo(record: UndoRecord, clock: Clock): Promise<void> {
  switch (record.kind) {
    case 'cluster':
      await endOrphans(record.dataFolder, clock);
      return;
    case 'continue':
      signalProcess(record, 'SIGCONT');
      return;
    case 'revive':
      await revive(record, clock);
      return;
    case 'undrain':
      await undrain(record, clock);
      return;
    case 'process':
      signalProcess(record, 'SIGKILL');
      return;
    case 'namespace':
      mayHaveFailed(ip('netns', 'del', record.name), /No such file/);
      return;
    case 'link':
      mayHaveFailed(ip('link', 'del', record.name), /Cannot find device/);
      return;
    case 'mount':
      // A frozen file system lets nobody unmount it.
      run('fsfreeze', ['-u', record.folder]);
      mayHaveFailed(run('umount', ['-l', record.folder]), /not mounted|no mount point|not found|No such file/);
      return;
  }
}

/** The node may just be starting; then it is not drained, and says so soon. */
async function undrain(record: Extract<UndoRecord, { kind: 'undrain' }>, clock: Clock): Promise<void> {
  const bus = await OperatorBus.connect(loadTopology(record.configFile), record.dataFolder);
  let failure: unknown;
  const call = async (): Promise<true | undefined> => {
    try {
      await undrainNode(bus, nodeId(record.node));
      return true;
    } catch (error) {
      failure = error;
      return undefined;
    }
  };
  try {
    await waitFor(clock, call, { timeoutMs: undrainTimeoutMs, onTimeout: () => new Error(describeError(failure)) });
  } finally {
    await bus.close();
  }
}

/** Has the supervisor of a running cluster start again what ended, and waits until it runs. */
async function revive(record: Extract<UndoRecord, { kind: 'revive' }>, clock: Clock): Promise<void> {
  const { dataFolder, ids } = record;
  const missing = (): readonly string[] => {
    const running = recordedProcesses(dataFolder).map(({ id }) => id);
    return ids.filter((id) => !running.includes(id));
  };
  const supervisor = supervisorOf(dataFolder);
  // Without its supervisor the cluster was stopped meanwhile: nothing of it is to run.
  if (supervisor === undefined || missing().length === 0) return;
  const isRevived = (): true | undefined => {
    if (missing().length === 0) return true;
    // Again and again: the supervisor may not have seen yet what has ended.
    signalProcess(supervisor, 'SIGUSR2');
    return undefined;
  };
  await waitFor(clock, isRevived, {
    timeoutMs: reviveTimeoutMs,
    everyMs: 200,
    onTimeout: () => new SwitchError('START_FAILED', `${missing().join(', ')} did not start again`),
  });
}
