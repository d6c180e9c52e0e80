/**
 * `npm start`: the cluster of nodes.yaml on this machine, in the foreground until Ctrl-C.
 * Exit codes: 0 stopped as asked, 1 could not start (a sentence says why; nothing is left running), 2 wrong usage.
 */
import { createInterface } from 'node:readline/promises';
import { parseArgs } from 'node:util';

import { describeError, SwitchError } from '../base/errors.ts';
import { realClock } from '../base/real.ts';
import { loadTopology } from '../base/topology.ts';
import { prepareCluster } from '../cli/cluster/first-start.ts';
import { formatOverview } from '../cli/cluster/overview.ts';
import { ensureNatsServer, mayErase, thisMachine } from '../cli/cluster/preflight.ts';
import { startCluster } from '../cli/cluster/supervisor.ts';
import type { RunningCluster } from '../cli/cluster/supervisor.ts';

const usage = `usage: npm start -- [--config FILE] [--data DIR] [--fresh [--yes]]
  --config FILE  the cluster's nodes.yaml   (QUADRANT_CONFIG, else ./nodes.yaml)
  --data DIR     where it keeps its data    (QUADRANT_DATA, else ./data)
  --fresh        erase that data first, after asking
  --yes          do not ask`;

interface Options {
  readonly configFile: string;
  readonly dataFolder: string;
  readonly fresh: boolean;
  readonly yes: boolean;
}

/** A mistake in how the command was given: exit code 2. */
class UsageError extends Error {}

function readOptions(args: readonly string[]): Options | 'help' {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        config: { type: 'string' },
        data: { type: 'string' },
        fresh: { type: 'boolean', default: false },
        yes: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return 'help';
    return {
      configFile: values.config ?? process.env['QUADRANT_CONFIG'] ?? 'nodes.yaml',
      dataFolder: values.data ?? process.env['QUADRANT_DATA'] ?? 'data',
      fresh: values.fresh,
      yes: values.yes,
    };
  } catch (error) {
    throw new UsageError(`${describeError(error)}\n${usage}`);
  }
}

const hasTerminal = process.stdin.isTTY && process.stdout.isTTY;

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function ask(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}

/** Whether the person wants the data erased; false ends the start. */
async function confirmErasure(options: Options): Promise<boolean> {
  if (!options.fresh) return true;
  if (!mayErase(options.dataFolder)) {
    const reason = `${options.dataFolder} has files that are not Quadrant's: --fresh does not erase it`;
    throw new SwitchError('DATA_FOLDER_FOREIGN', reason);
  }
  if (options.yes) return true;
  if (!hasTerminal) throw new UsageError('--fresh erases data and there is no terminal to ask at: add --yes.');
  return ask(`Erase all data in ${options.dataFolder}?`);
}

/**
 * The person's wish to stop: a signal, or the end of whoever started this process. npm passes a terminal's Ctrl-C on,
 * so that it can arrive twice at once: only one that comes a while later is a second one, and kills.
 */
class Interruption {
  cluster: RunningCluster | undefined;
  readonly requested: Promise<void>;
  #firstMs: number | undefined;

  constructor() {
    this.requested = new Promise((resolve) => {
      const onRequest = (): void => {
        this.#act();
        resolve();
      };
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onRequest);
      process.on('disconnect', onRequest);
    });
    // For drills: `npm start` starts again what one of them has ended.
    process.on('SIGUSR2', () => {
      void this.cluster?.revive();
    });
  }

  get isRequested(): boolean {
    return this.#firstMs !== undefined;
  }

  #act(): void {
    if (this.#firstMs === undefined) {
      this.#firstMs = realClock.monotonicMs();
      print('Stopping ...');
      // Before the first process runs there is nothing to wait for.
      if (this.cluster === undefined) process.exit(0);
      this.cluster.stop().catch(fail);
    } else if (realClock.monotonicMs() - this.#firstMs > 500) {
      print('Killed.');
      this.cluster?.killNow();
      process.exit(1);
    }
  }
}

function fail(error: unknown): void {
  process.stderr.write(`${describeError(error)}\n`);
  if (error instanceof SwitchError) process.stderr.write(`${error.hint}\n`);
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') {
    print(usage);
    return 0;
  }
  const { configFile, dataFolder } = options;
  const topology = loadTopology(configFile);
  if (!(await confirmErasure(options))) {
    print('Nothing was erased, nothing was started.');
    return 0;
  }
  const natsServer = await ensureNatsServer(thisMachine({ hasTerminal, ask, print }));
  print(`Starting cluster "${topology.cluster}" of ${configFile}, data in ${dataFolder} ...`);
  const interruption = new Interruption();
  try {
    const cluster = await startCluster({
      topology,
      configFile,
      dataFolder,
      print,
      natsServer,
      fresh: options.fresh,
      onOpened: (opened) => {
        interruption.cluster = opened;
      },
    });
    if (cluster.keysCreated.length > 0) {
      const ids = cluster.keysCreated.join(', ');
      print(`SAMPLE KEYS were generated in ${dataFolder}/secrets for ${ids}: for trying out, not for real cards.`);
    }
    print(formatOverview(await prepareCluster({ topology, configFile, dataFolder, print })));
    print('Ready. Ctrl-C stops the cluster; the data stays.');
    await interruption.requested;
  } catch (error) {
    await interruption.cluster?.stop();
    if (!interruption.isRequested) throw error;
  }
  await interruption.cluster?.stop();
  print('Stopped.');
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof UsageError) process.stderr.write(`${error.message}\n`);
  else fail(error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
// The channel to the bootstrap, the terminal or a handler would keep this process alive.
process.exit();
