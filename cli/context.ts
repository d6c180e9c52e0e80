import type { Readable, Writable } from 'node:stream';

import type { Clock } from '../base/clock.ts';
import { SwitchError } from '../base/errors.ts';
import { realClock, realRandom } from '../base/real.ts';
import type { Random } from '../base/random.ts';
import { loadTopology, type Topology } from '../base/topology.ts';
import type { NodeId } from '../base/identifiers.ts';
import { UsageError } from './acquirer/usage.ts';
import { OperatorBus } from './operator-bus.ts';

/** Exit codes of every command. */
export const exitCode = { good: 0, failed: 1, usage: 2, differences: 3, unreachable: 4 } as const;

/** What commands work with: the cluster they were pointed at, and the world around the process. */
export interface CommandContext {
  readonly configFile: string;
  readonly dataFolder: string;
  readonly topology: () => Topology;
  readonly clock: Clock;
  readonly random: Random;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  /** Connects to the cluster, runs `action`, disconnects. */
  withCluster<T>(action: (bus: OperatorBus) => Promise<T>): Promise<T>;
  print(line: string): void;
  printJson(value: unknown): void;
  /** Progress and remarks, beside what a pipe would read. */
  note(line: string): void;
}

export function createContext(configFile: string, dataFolder: string): CommandContext {
  let loaded: Topology | undefined;
  const topology = (): Topology => (loaded ??= loadTopology(configFile));
  return {
    configFile,
    dataFolder,
    topology,
    clock: realClock,
    random: realRandom,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    async withCluster(action) {
      const bus = await OperatorBus.connect(topology(), dataFolder);
      try {
        return await action(bus);
      } finally {
        await bus.close();
      }
    },
    print(line) {
      process.stdout.write(`${line}\n`);
    },
    printJson(value) {
      const text = JSON.stringify(
        value,
        (_key, each: unknown) => (typeof each === 'bigint' ? each.toString() : each),
        2,
      );
      process.stdout.write(`${text}\n`);
    },
    note(line) {
      process.stderr.write(`${line}\n`);
    },
  };
}

/** The node that a flag names; the first node of nodes.yaml when the flag is absent. */
export function nodeOf(topology: Topology, flag: string | undefined): NodeId {
  const ids = topology.nodes.map((node) => node.id);
  const found = flag === undefined ? ids[0] : ids.find((id) => id === flag);
  if (found === undefined) throw new UsageError(`there is no node "${flag ?? ''}"; nodes.yaml has ${ids.join(', ')}`);
  return found;
}

/** A node to send a call to: the one the flag names, or the first one that answers. */
export async function reachableNode(bus: OperatorBus, flag: string | undefined): Promise<NodeId> {
  if (flag !== undefined) return nodeOf(bus.topology, flag);
  for (const { id } of bus.topology.nodes) {
    if ((await bus.status(id)) !== undefined) return id;
  }
  throw new SwitchError('NODE_UNREACHABLE', 'no node of the cluster answers');
}

/** Who the history names for a change. */
export function operatorName(): string {
  return process.env['QUADRANT_OPERATOR'] ?? process.env['USER'] ?? 'operator';
}

/** Rows in columns, the first row their heads. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Text in lines of at most `width` characters, broken at spaces; all but the first begin with `indent` spaces. */
export function wrapText(text: string, width: number, indent: number): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`;
    const margin = lines.length === 0 ? 0 : indent;
    if (line !== '' && margin + longer.length > width) {
      lines.push(' '.repeat(margin) + line);
      line = word;
    } else {
      line = longer;
    }
  }
  lines.push(' '.repeat(lines.length === 0 ? 0 : indent) + line);
  return lines.join('\n');
}
