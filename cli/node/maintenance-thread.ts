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
  | { readonly call: number; readonly kind: 'result'; readonly result: unknown }
  | { readonly call: number; readonly kind: 'refused'; readonly reason: string };

/** A write-ahead log is moved into its file when it is larger than this. */
const checkpointBytes = 4 * 1024 * 1024;

const port = parentPort;
assert(port !== null, 'maintenance runs in a thread of its own');
const { folder } = workerData as { readonly folder: string };

function checkpointLarge(): void {
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.db-wal')) continue;
    const wal = join(folder, name);
    if (statSync(wal).size > checkpointBytes) checkpoint(wal.slice(0, -'-wal'.length));
  }
}

function carryOut(request: ToMaintenanceThread['request']): { kind: 'done' } | { kind: 'result'; result: unknown } {
  switch (request.kind) {
    case 'checkpoint':
      checkpointLarge();
      return { kind: 'done' };
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
    reply = { call, ...carryOut(request) };
  } catch (error) {
    reply = { call, kind: 'refused', reason: describeError(error) };
  }
  port.postMessage(reply);
  if (request.kind === 'close') port.close();
});
