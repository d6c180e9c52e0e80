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

/** The operating system's randomness. */
export const realRandom: Random = {
  bytes: (length) => randomBytes(length),
  below: (limit) => randomInt(limit),
};
