import type { Clock } from '../../base/clock.ts';
import { nearest } from '../../base/nearest.ts';
import type { Random } from '../../base/random.ts';
import type { Endpoint, Topology } from '../../base/topology.ts';

/** What the acquirer's commands need of the process that they run in. */
export interface CommandContext {
  /** Read when a command needs it, so that `--to host:port` works where no nodes.yaml is. */
  readonly topology: () => Topology;
  readonly clock: Clock;
  readonly random: Random;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean };
  readonly stdin: AsyncIterable<Buffer | string>;
}

/** A command line that cannot be carried out as it stands: exit 2. The message never holds card data. */
export class UsageError extends Error {}

/** Something outside the program stands in the way (a file, a node): exit 1. The message never holds card data. */
export class CommandFailure extends Error {}

export interface Target {
  /** The node's id, or the address as it was given. */
  readonly name: string;
  readonly endpoint: Endpoint;
}

/** Acquirer ports of the named nodes; of all nodes when none is named. */
export function targetsOf(topology: Topology, names: string | undefined): readonly Target[] {
  const all = topology.nodes.map((node) => ({ name: node.id, endpoint: node.acquirer }));
  if (names === undefined) return all;
  return names.split(',').map((name) => {
    const found = all.find((target) => target.name === name.trim());
    if (found !== undefined) return found;
    const known = all.map((target) => target.name);
    const meant = nearest(name.trim(), known);
    const advice =
      meant === undefined ? `known: ${known.join(', ')}` : `did you mean "${meant}"? Known: ${known.join(', ')}`;
    throw new UsageError(`no node "${name.trim()}"; ${advice}`);
  });
}

/** `n2`, `host:port` or `[address]:port`. */
export function targetOf(text: string, topology: () => Topology): Target {
  const parts = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(text);
  if (parts === null) {
    const [target] = targetsOf(topology(), text);
    if (target === undefined || text.includes(',')) throw new UsageError('--to takes one node');
    return target;
  }
  const port = Number(parts[3]);
  if (port < 1 || port > 65_535) throw new UsageError(`--to: port ${port} is not one of 1 to 65535`);
  return { name: text, endpoint: { host: parts[1] ?? parts[2] ?? '', port } };
}

const unitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** `500ms`, `10s`, `2m`, `1h`; a bare number counts seconds. */
export function parseDurationMs(flag: string, text: string): number {
  const parts = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?$/.exec(text);
  const durationMs = Number(parts?.[1]) * (unitsMs[parts?.[2] ?? 's'] ?? Number.NaN);
  if (!Number.isFinite(durationMs) || durationMs <= 0 || durationMs > 7 * 24 * 3_600_000) {
    throw new UsageError(`${flag}: "${text}" is not a duration; examples: 500ms, 10s, 2m, 1h`);
  }
  return durationMs;
}

export function parseWhole(flag: string, text: string, least: number, most: number): number {
  const value = /^[0-9]{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    throw new UsageError(`${flag}: "${text}" is not a whole number from ${least} to ${most}`);
  }
  return value;
}

/** The `code` of a system error (`ECONNREFUSED`), else what can be said of it. */
export function systemErrorCode(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown reason';
}
