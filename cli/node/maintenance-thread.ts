import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

import { assert, describeError } from '../../base/errors.ts';
import type { GroupId } from '../../base/identifiers.ts';
import { checkpoint } from '../../store/checkpoint.ts';

export interface ToMaintenanceThread {
  readonly call: number;
  readonly request:
    | { readonly kind: 'checkpoint' }
    | {
        readonly kind: 'open';
        readonly group: GroupId;
        readonly path: string;
        readonly compare: string;
        readonly index: number;
      }
    | { readonly kind: 'compare'; readonly parameters: unknown }
    | { readonly kind: 'close' };
}

export type FromMaintenanceThread =
  | { readonly call: number; readonly kind: 'done' }
  | { readonly call: number; readonly kind: 'checkpointed'; readonly files: readonly string[] }
  | { readonly call: number; readonly kind: 'result'; readonly result: unknown }
  | { readonly call: number; readonly kind: 'refused'; readonly reason: string };

/** A write-ahead log is moved into its file when it is larger than this. */
const checkpointBytes = 4 * 1024 * 1024;

const port = parentPort;
assert(port !== null, 'maintenance runs in a thread of its own');
const { folder } = workerData as { readonly folder: string };

function checkpointLarge(): string[] {
  const large = readdirSync(folder)
    .filter((name) => name.endsWith('.db-wal') && statSync(join(folder, name)).size > checkpointBytes)
    .map((name) => name.slice(0, -'-wal'.length));
  for (const name of large) checkpoint(join(folder, name));
  return large;
}

type Reply = FromMaintenanceThread extends infer Each ? (Each extends unknown ? Omit<Each, 'call'> : never) : never;

function carryOut(request: ToMaintenanceThread['request']): Reply {
  switch (request.kind) {
    case 'checkpoint':
      return { kind: 'checkpointed', files: checkpointLarge() };
    case 'open':
      return { kind: 'done' };
    case 'compare':
      return { kind: 'result', result: undefined };
    case 'close':
      return { kind: 'done' };
  }
}

port.on('message', ({ call, request }: ToMaintenanceThread) => {
  let reply: FromMaintenanceThread;
  try {
    reply = { call, ...carryOut(request) } as FromMaintenanceThread;
  } catch (error) {
    reply = { call, kind: 'refused', reason: describeError(error) };
  }
  port.postMessage(reply);
  if (request.kind === 'close') port.close();
});
