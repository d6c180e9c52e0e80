import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { z } from 'zod';

import { waitFor } from '../../base/clock.ts';
import type { Clock } from '../../base/clock.ts';
import { describeError, SwitchError } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { voters } from '../../base/topology.ts';
import type { Topology } from '../../base/topology.ts';
import { acquireFolderLock } from '../../store/folder-lock.ts';
import type { FolderLock } from '../../store/folder-lock.ts';
import { brokerConfigurationFile, brokerFolder, writeBrokerConfigurations } from './brokers.ts';
import type { RouteTo } from './brokers.ts';
import {
  checkPortsFree,
  claimDataFolder,
  ensureNatsServer,
  eraseDataFolder,
  inspectDataFolder,
  natsGreeting,
  thisMachine,
} from './preflight.ts';
import { isRunning, recordedProcesses, recordProcesses, runFile, signalProcess } from './run-record.ts';
import { ensureSecrets } from './secrets.ts';

export interface ClusterOptions {
  readonly topology: Topology;
  /** The file that `topology` was read from; every process reads it again. */
  readonly configFile: string;
  readonly dataFolder: string;
  /** Receives lines for the person who started the cluster. */
  readonly print: (line: string) => void;
  /** Begins with empty data. Whoever calls has asked. */
  readonly fresh?: boolean;
  /** Path of nats-server; found, or installed without asking where that needs no password, when not given. */
  readonly natsServer?: string;
  /** Arguments of Node that run the `quadrant` command. */
  readonly program?: readonly string[];
  readonly readyTimeoutMs?: number;
  /**
   * For processes in network namespaces: the command that becomes the given one there. Their addresses are none of this
   * namespace's, so that nobody looks whether their ports are free.
   */
  readonly launch?: (id: string, program: string, args: readonly string[]) => Launch;
  /** Where a broker finds another one, when not at that one's own address. */
  readonly routeTo?: RouteTo;
  /** Called before the first process is started, so that a start can be stopped while it goes on. */
  readonly onOpened?: (cluster: RunningCluster) => void;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface Launch {
  readonly program: string;
  readonly args: readonly string[];
}

export interface RunningCluster {
  /** Pids of what runs now, by id: brokers, nodes, witness. */
  readonly processes: ReadonlyMap<string, number>;
  /** Ids whose keys were generated at this start. */
  readonly keysCreated: readonly string[];
  /** Sends a signal; when it ends the process, resolves after its end. */
  kill(id: string, signal: NodeJS.Signals): Promise<void>;
  /** Starts a process that has ended, and waits until it is ready. */
  restart(id: string): Promise<void>;
  /** Starts everything that has ended, brokers first. What cannot be started is printed. */
  revive(): Promise<void>;
  /** Ends everything in order: nodes and witness, then brokers. Idempotent; nothing runs when it resolves. */
  stop(): Promise<void>;
  /** Ends everything at once, with no chance to finish anything. */
  killNow(): void;
}

/** What a node's process tells the one that started it. */
const nodeMessage = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('ready') }),
  z.object({ kind: z.literal('failed'), message: z.string() }),
]);

const command = fileURLToPath(new URL('../quadrant.mjs', import.meta.url));
/**
 * A process has four threads, each with a heap of its own: young generations of the usual size would be most of its memory,
 * and so would what the allocator keeps for each thread.
 */
const nodeFlags = ['--max-semi-space-size=4'];
const nodeEnvironment = { MALLOC_ARENA_MAX: '2' };
const readyTimeoutMs = 60_000;
const graceMs = 5_000;

/**
 * Starts brokers, nodes and witness as processes of their own and resolves when all are ready. When anything fails,
 * everything that was started is stopped before it rejects, and nothing stays behind.
 *
 * Children are in process groups of their own, so that a terminal's Ctrl-C reaches this process alone and the order of
 * ending is ours. When this process is killed, nodes see their IPC channel close and end; brokers have no such channel
 * and are ended, by DATA/run.json, at the next start. It restarts nothing by itself.
 */
export async function startCluster(options: ClusterOptions): Promise<RunningCluster> {
  const dataFolder = resolve(options.dataFolder);
  const print = options.print;
  const natsServer =
    options.natsServer ??
    (await ensureNatsServer(thisMachine({ hasTerminal: false, ask: () => Promise.resolve(false), print })));

  if (options.fresh !== true) inspectDataFolder(dataFolder, options.topology.cluster);
  const lock = acquireFolderLock(dataFolder, 'quadrant start');
  const clock = options.clock ?? realClock;
  let cluster: Cluster | undefined;
  try {
    await endOrphans(dataFolder, clock);
    // Before anything is erased or written: a start that cannot succeed leaves the data as it was.
    if (options.launch === undefined) await checkPortsFree(options.topology, clock);
    if (options.fresh === true) eraseDataFolder(dataFolder);
    claimDataFolder(dataFolder, options.topology.cluster, clock);
    const secrets = ensureSecrets(options.topology, dataFolder, options.random ?? realRandom);
    writeBrokerConfigurations(options.topology, secrets, dataFolder, options.routeTo);
    cluster = new Cluster({ ...options, dataFolder, natsServer, clock }, lock, secrets.created);
    options.onOpened?.(cluster);
    await cluster.startAll();
    return cluster;
  } catch (error) {
    await cluster?.stop();
    lock.release();
    throw error;
  }
}

interface Supervised {
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
  hasEnded: boolean;
  /** It has not served yet, or we end it: its end is nothing to report. */
  isExpectedToEnd: boolean;
}

type Settings = ClusterOptions & { readonly natsServer: string; readonly clock: Clock };

class Cluster implements RunningCluster {
  readonly keysCreated: readonly string[];
  readonly #settings: Settings;
  readonly #lock: FolderLock;
  readonly #children = new Map<string, Supervised>();
  #stopping: Promise<void> | undefined;

  constructor(settings: Settings, lock: FolderLock, keysCreated: readonly string[]) {
    this.#settings = settings;
    this.#lock = lock;
    this.keysCreated = keysCreated;
  }

  get processes(): ReadonlyMap<string, number> {
    const running = [...this.#children].filter(([, { hasEnded }]) => !hasEnded);
    return new Map(running.flatMap(([id, { child }]) => (child.pid === undefined ? [] : [[id, child.pid] as const])));
  }

  async startAll(): Promise<void> {
    const { topology } = this.#settings;
    await Promise.all(topology.brokers.map((broker) => this.#start(broker.id)));
    await Promise.all(voters(topology).map((id) => this.#start(id)));
  }

  async kill(id: string, signal: NodeJS.Signals): Promise<void> {
    const supervised = this.#children.get(id);
    if (supervised === undefined || supervised.hasEnded) throw new RangeError(`${id} does not run`);
    supervised.child.kill(signal);
    if (signal === 'SIGKILL' || signal === 'SIGTERM' || signal === 'SIGINT') await supervised.ended;
  }

  async restart(id: string): Promise<void> {
    if (this.#children.get(id)?.hasEnded === false) throw new RangeError(`${id} runs already`);
    await this.#start(id);
  }

  async revive(): Promise<void> {
    const { topology, print } = this.#settings;
    const ended = (ids: readonly string[]): readonly string[] =>
      ids.filter((id) => this.#children.get(id)?.hasEnded === true);
    const startEach = async (ids: readonly string[]): Promise<void> => {
      for (const result of await Promise.allSettled(ids.map((id) => this.#start(id)))) {
        if (result.status === 'rejected') print(describeError(result.reason));
      }
    };
    await startEach(ended(topology.brokers.map(({ id }) => id)));
    await startEach(ended(voters(topology)));
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  killNow(): void {
    for (const supervised of this.#children.values()) {
      supervised.isExpectedToEnd = true;
      supervised.child.kill('SIGKILL');
    }
  }

  async #stop(): Promise<void> {
    const brokers = new Set(this.#settings.topology.brokers.map((broker) => broker.id));
    await this.#end([...this.#children].filter(([id]) => !brokers.has(id)));
    await this.#end([...this.#children].filter(([id]) => brokers.has(id)));
    rmSync(runFile(this.#settings.dataFolder), { force: true });
    this.#lock.release();
  }

  async #end(children: readonly (readonly [string, Supervised])[]): Promise<void> {
    await Promise.all(
      children.map(async ([id, supervised]) => {
        supervised.isExpectedToEnd = true;
        supervised.child.kill('SIGTERM');
        // A process that was stopped by a signal acts on no other until it continues.
        supervised.child.kill('SIGCONT');
        const timer = this.#settings.clock.after(graceMs, () => {
          this.#settings.print(`${id} did not end within ${graceMs / 1000} s and is killed.`);
          supervised.child.kill('SIGKILL');
        });
        await supervised.ended;
        timer.cancel();
      }),
    );
  }

  async #start(id: string): Promise<void> {
    const broker = this.#settings.topology.brokers.find((candidate) => candidate.id === id);
    if (broker === undefined) {
      if (!voters(this.#settings.topology).some((voter) => voter === id))
        throw new RangeError(`there is no process ${id}`);
      await this.#startNode(id);
      return;
    }
    const file = brokerConfigurationFile(this.#settings.dataFolder, id);
    const folder = brokerFolder(this.#settings.dataFolder, id);
    const supervised = this.#spawn(id, folder, this.#settings.natsServer, ['-c', file], process.env);
    await waitFor(
      this.#settings.clock,
      async () => {
        if (supervised.hasEnded) throw this.#failure(id, 'ended before it served', join(folder, 'nats.log'));
        return natsGreeting(broker.client, this.#settings.clock);
      },
      { timeoutMs: 10_000, onTimeout: () => this.#failure(id, 'does not serve after 10 s', join(folder, 'nats.log')) },
    );
    supervised.isExpectedToEnd = this.#stopping !== undefined;
  }

  async #startNode(id: string): Promise<void> {
    const { dataFolder, configFile, program, clock } = this.#settings;
    const folder = join(dataFolder, id);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const args = [
      ...(program ?? [...nodeFlags, command]),
      'node',
      'start',
      id,
      '--config',
      resolve(configFile),
      '--data',
      dataFolder,
    ];
    const environment = { ...nodeEnvironment, ...process.env, QUADRANT_SUPERVISED: '1' };
    const supervised = this.#spawn(id, folder, process.execPath, args, environment);
    const log = join(folder, 'node.log');
    await new Promise<void>((resolveReady, reject) => {
      const timeoutMs = this.#settings.readyTimeoutMs ?? readyTimeoutMs;
      const timer = clock.after(timeoutMs, () => {
        reject(this.#failure(id, `is not ready after ${timeoutMs / 1000} s`, log));
      });
      supervised.child.on('message', (message) => {
        const parsed = nodeMessage.safeParse(message);
        if (!parsed.success) return;
        timer.cancel();
        if (parsed.data.kind === 'ready') resolveReady();
        else reject(new SwitchError('START_FAILED', `${id}: ${parsed.data.message}`));
      });
      void supervised.ended.then(() => {
        timer.cancel();
        reject(this.#failure(id, 'ended before it was ready', log));
      });
    });
    supervised.isExpectedToEnd = this.#stopping !== undefined;
  }

  #spawn(
    id: string,
    folder: string,
    program: string,
    args: readonly string[],
    environment: Readonly<Record<string, string | undefined>>,
  ): Supervised {
    if (this.#stopping !== undefined)
      throw new SwitchError('START_FAILED', `${id} is not started: the cluster is stopping`);
    const output = openSync(outputFile(folder), 'a', 0o600);
    const isNode = program === process.execPath;
    const launched = this.#settings.launch?.(id, program, args) ?? { program, args };
    const child = spawn(launched.program, launched.args, {
      detached: true,
      env: environment,
      stdio: isNode ? ['ignore', output, output, 'ipc'] : ['ignore', output, output],
    });
    closeSync(output);
    const supervised: Supervised = {
      child,
      hasEnded: false,
      isExpectedToEnd: true,
      ended: new Promise((resolveEnded) => {
        const finish = (reason: string): void => {
          if (supervised.hasEnded) return;
          supervised.hasEnded = true;
          if (!supervised.isExpectedToEnd) this.#reportEnd(id, reason);
          resolveEnded();
        };
        child.once('exit', (code, signal) => {
          finish(signal ?? `exit code ${code ?? 'unknown'}`);
        });
        child.once('error', (error) => {
          if (child.pid === undefined) finish(error.message);
        });
      }),
    };
    this.#children.set(id, supervised);
    this.#record();
    return supervised;
  }

  #reportEnd(id: string, reason: string): void {
    const { topology, dataFolder, configFile, print } = this.#settings;
    if (topology.brokers.some((broker) => broker.id === id)) {
      print(`Broker ${id} ended (${reason}). Nodes use the other brokers; the next npm start brings it back.`);
      return;
    }
    const flags = `--config ${shellWord(relative('', configFile))} --data ${shellWord(relative('', dataFolder) || '.')}`;
    const consequence =
      topology.witness?.id === id ? 'The cluster lacks its vote' : 'Its cards are with the next node of their order';
    print(`${id} ended (${reason}). ${consequence} until it is back: npx quadrant node start ${id} ${flags}`);
  }

  #failure(id: string, what: string, log: string): SwitchError {
    const output = [log, outputFile(join(log, '..'))].flatMap((file) => {
      const lines = lastLines(file, 5);
      return lines.length === 0 ? [] : [`last lines of ${file}:`, ...lines.map((line) => `  ${line}`)];
    });
    return new SwitchError('START_FAILED', [`${id} ${what}`, ...output].join('\n'));
  }

  /** What the next start has to look for, should this process not get to end its children. */
  #record(): void {
    const brokers = new Set(this.#settings.topology.brokers.map((broker) => broker.id));
    const processes = [...this.processes].map(([id, pid]) => {
      const { dataFolder } = this.#settings;
      return { id, pid, marks: brokers.has(id) ? [brokerConfigurationFile(dataFolder, id)] : ['node', id, dataFolder] };
    });
    recordProcesses(this.#settings.dataFolder, processes);
  }
}

/**
 * Ends what an earlier start of this data folder left running. Needs the folder's lock: then its supervisor is gone.
 * A pid may be another program's by now, so a process is ours only when its command line has the recorded marks.
 */
export async function endOrphans(dataFolder: string, clock: Clock): Promise<void> {
  await Promise.all(
    recordedProcesses(dataFolder).map(async ({ id, pid, marks }) => {
      const isGone = (): true | undefined => (isRunning({ pid, marks }) ? undefined : true);
      signalProcess({ pid, marks }, 'SIGTERM');
      // One that was stopped by a signal acts on no other until it continues.
      signalProcess({ pid, marks }, 'SIGCONT');
      const timer = clock.after(graceMs, () => {
        signalProcess({ pid, marks }, 'SIGKILL');
      });
      await waitFor(clock, isGone, {
        timeoutMs: 2 * graceMs,
        onTimeout: () => new SwitchError('START_FAILED', `${id}, pid ${pid}, of an earlier start cannot be ended`),
      });
      timer.cancel();
    }),
  );
  rmSync(runFile(dataFolder), { force: true });
}

/** What a process writes besides its log: a crash's last words. */
function outputFile(folder: string): string {
  return join(folder, 'output.log');
}

function lastLines(file: string, count: number): readonly string[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line.trim() !== '').slice(-count);
}

/** `text` as one word of a shell's command line. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9_./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
