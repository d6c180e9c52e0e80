import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

import type { Command } from 'commander';

import { describeError, SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { createLogger, logLevel, type Logger } from '../../base/log.ts';
import { voters } from '../../base/topology.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, type CommandContext } from '../context.ts';
import { QuadrantNode } from '../node/node.ts';
import type { RunCommand } from '../run-command.ts';
import { registerRebuild } from './rebuild.ts';

/**
 * Runs one process of the cluster in the foreground until SIGTERM, SIGINT or the end of the one that supervises it.
 * Logs go to DATA/<id>/node.log. A broken invariant ends the process at once: the copies elsewhere are good.
 */
async function startNode(context: CommandContext, id: string): Promise<number> {
  const topology = context.topology();
  const ids = voters(topology);
  const self = ids.find((each) => each === id);
  if (self === undefined) throw new UsageError(`there is no node or witness "${id}"; nodes.yaml has ${ids.join(', ')}`);
  const dataFolder = resolve(context.dataFolder);
  const folder = join(dataFolder, id);
  // Files of a node are nobody else's business, whatever the shell's own mask is.
  process.umask(0o077);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const log = createLogger({ process: id, level: logLevel(process.env), destination: join(folder, 'node.log') });
  const supervised = process.env['QUADRANT_SUPERVISED'] === '1';
  log.info({ event: 'starting', supervised }, 'starting');
  try {
    const node = await QuadrantNode.start({
      id: nodeId(id),
      topology,
      dataFolder,
      clock: context.clock,
      random: context.random,
      log,
      onFatal: (error) => {
        die(log, error);
      },
    });
    process.on('uncaughtException', (error) => {
      die(log, error);
    });
    process.on('unhandledRejection', (error) => {
      die(log, error);
    });
    if (process.send !== undefined) process.send({ kind: 'ready' });
    else context.print(`${id} serves. Ctrl-C stops it. Log: ${join(folder, 'node.log')}`);
    await endRequested(supervised);
    log.info({ event: 'stopping' }, 'stopping');
    await node.stop();
    log.info({ event: 'stopped' }, 'stopped');
    // The supervisor's channel would keep the process alive.
    if (process.connected) process.disconnect();
    return exitCode.good;
  } catch (error) {
    const message = describeError(error);
    log.fatal({ event: 'start-failed', reason: message }, 'could not start');
    if (process.send !== undefined) process.send({ kind: 'failed', message });
    if (error instanceof SwitchError) throw error;
    throw new Error(`${id} could not start: ${message}`, { cause: error });
  }
}

function endRequested(supervised: boolean): Promise<void> {
  return new Promise((resolveEnd) => {
    const end = (): void => {
      resolveEnd();
    };
    process.once('SIGTERM', end);
    process.once('SIGINT', end);
    if (supervised) process.once('disconnect', end);
  });
}

function die(log: Logger, error: unknown): never {
  const stack = error instanceof Error ? error.stack : undefined;
  log.fatal({ event: 'broken-invariant', stack }, `broken invariant: ${describeError(error)}`);
  process.stderr.write(`quadrant: ${describeError(error)}\n`);
  process.exit(70);
}

export function registerNode(program: Command, run: RunCommand): void {
  const node = program.command('node').description('single processes of the cluster');
  node
    .command('start')
    .argument('<id>', 'a node or the witness of nodes.yaml')
    .description('runs one process in the foreground; `npm start` runs all of them')
    .action((id: string) => run((context) => startNode(context, id)));
  registerRebuild(node, run);
}
