import type { Command } from 'commander';

import { delay } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { parseDurationMs } from '../acquirer/usage.ts';
import { exitCode, nodeOf, type CommandContext } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { groupNames, lasting } from './wording.ts';

export interface DrainResult {
  readonly node: string;
  readonly draining: boolean;
  /** Groups that the node leads still. */
  readonly leads: readonly string[];
  readonly tookMs: number;
}

/** What `node.drain` answers. */
interface DrainAnswer {
  readonly draining: boolean;
  readonly leads: readonly string[];
}

const pollMs = 50;
const progressMs = 1000;

/**
 * Has a node hand over everything that it leads and take nothing over, and waits until it leads nothing. When that does
 * not come about in time, the node goes on draining, and the result names what it leads still.
 */
export async function drainNode(
  bus: Pick<OperatorBus, 'call' | 'status'>,
  { clock, note }: Pick<CommandContext, 'clock' | 'note'>,
  node: NodeId,
  timeoutMs: number,
): Promise<DrainResult> {
  const beginMs = clock.monotonicMs();
  let saidMs = beginMs;
  let { draining, leads } = (await bus.call(node, 'node.drain', { on: true })) as DrainAnswer;
  for (;;) {
    const nowMs = clock.monotonicMs();
    if (leads.length === 0 || nowMs - beginMs >= timeoutMs) {
      return { node, draining, leads, tookMs: Math.round(nowMs - beginMs) };
    }
    if (nowMs - saidMs >= progressMs) {
      saidMs = nowMs;
      note(`${node} still owns ${groupNames(leads)} after ${lasting(nowMs - beginMs)} ...`);
    }
    await delay(clock, pollMs);
    const status = await bus.status(node);
    if (status === undefined) {
      throw new SwitchError('NODE_UNREACHABLE', `${node} was told to drain, and does not answer any more`);
    }
    draining = status.draining;
    leads = status.groups.filter(({ role }) => role === 'leader').map(({ name }) => name);
  }
}

/** The node may own cards again. */
export async function undrainNode(bus: Pick<OperatorBus, 'call'>, node: NodeId): Promise<DrainAnswer> {
  return (await bus.call(node, 'node.drain', { on: false })) as DrainAnswer;
}

export function registerDrain(program: Command, run: RunCommand): void {
  program
    .command('drain')
    .argument('<node>', 'a node of nodes.yaml')
    .description('a node hands over what it owns and owns nothing until `undrain`; it goes on serving its acquirers')
    .option('--timeout <time>', 'how long to wait until it owns nothing (default: 10s)')
    .option('--json', 'as JSON')
    .addHelpText('after', drainHelp)
    .action((id: string, options: { timeout?: string; json?: boolean }) =>
      run(async (context) => {
        const node = nodeOf(context.topology(), id);
        const timeoutMs = parseDurationMs('--timeout', options.timeout ?? '10s');
        const result = await context.withCluster((bus) => drainNode(bus, context, node, timeoutMs));
        if (options.json === true) context.printJson(result);
        else context.print(drainText(result));
        return result.leads.length === 0 ? exitCode.good : exitCode.failed;
      }),
    );
  program
    .command('undrain')
    .argument('<node>', 'a node that was drained')
    .description('a drained node may own cards again; what is its own by the failover order returns by itself')
    .option('--json', 'as JSON')
    .action((id: string, options: { json?: boolean }) =>
      run(async (context) => {
        const node = nodeOf(context.topology(), id);
        const answer = await context.withCluster((bus) => undrainNode(bus, node));
        if (options.json === true) context.printJson({ node, ...answer });
        else {
          context.print(
            `${node} may own cards again. What is its own by the failover order returns by itself; ` +
              '`quadrant failback` does it now.',
          );
        }
        return exitCode.good;
      }),
    );
}

function drainText({ node, leads, tookMs }: DrainResult): string {
  return leads.length === 0
    ? `${node} owns nothing any more (${lasting(tookMs)}). It stays so until \`quadrant undrain ${node}\`.`
    : `${node} still owns ${groupNames(leads)} after ${lasting(tookMs)}: no other node of the order could take over. ` +
        `It goes on trying; see \`quadrant status\`, or end it with \`quadrant undrain ${node}\`.`;
}

const drainHelp = `
Use it before a node is stopped for maintenance: acquirers notice nothing. The node hands each group to the first node
of its order that has caught up, and stays drained until it is told otherwise or its process starts anew.

Exit codes: 0 it owns nothing, 1 it still owns something after --timeout, 2 usage, 4 it cannot be reached
`;
