import { randomBytes, randomInt } from 'node:crypto';

import type { Clock } from './clock.ts';
import type { Random } from './random.ts';

/** The machine's clock: the one file that reads real time or sets real timers. */
export const realClock: Clock = {
  wallMs: () => Date.now(),
  // Not performance.now(): its origin is another one in each thread.
  monotonicMs: () => Number(process.hrtime.bigint()) / 1e6,
  after(delayMs, action) {
    const handle = setTimeout(action, delayMs);
    return {
      cancel: () => {
        clearTimeout(handle);
      },
    };
  },
  soon(action) {
    setImmediate(action);
  },
};

const poolBytes = 4096;
let pool = Buffer.alloc(0);

/** The operating system's randomness, fetched some at a time: a few bytes cost less than asking for them. */
function takeBytes(length: number): Buffer {
  if (length > poolBytes / 16) return randomBytes(length);
  if (pool.length < length) pool = randomBytes(poolBytes);
  // A copy, so that nobody has what the next one gets.
  const taken = Buffer.from(pool.subarray(0, length));
  pool = pool.subarray(length);
  return taken;
}

export const realRandom: Random = {
  bytes: takeBytes,
  below: (limit) => randomInt(limit),
};
