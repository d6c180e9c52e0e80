import { Worker } from 'node:worker_threads';

import type { RunResult } from './run-seed.ts';
import type { SeedWorkerData } from './seed-worker.ts';

export interface PoolOptions {
  readonly seeds: Iterable<number>;
  readonly workers: number;
  readonly mutant?: string;
  /** Called in the order in which runs end; `false`: no further seed is begun. */
  readonly onResult: (result: RunResult) => boolean;
}

/** Runs seeds in threads of their own, each seed in one. Resolves when all that were begun have ended. */
export async function runSeeds({ seeds, workers, mutant, onResult }: PoolOptions): Promise<void> {
  const waiting = seeds[Symbol.iterator]();
  let goesOn = true;
  const next = (): number | undefined => {
    if (!goesOn) return undefined;
    const following: IteratorResult<number, unknown> = waiting.next();
    return following.done === true ? undefined : following.value;
  };
  const data: SeedWorkerData = { mutant };
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./seed-worker.ts', import.meta.url), { workerData: data });
      const begin = (): void => {
        const seed = next();
        if (seed === undefined)
          void worker.terminate().then(() => {
            resolve();
          });
        else worker.postMessage(seed);
      };
      worker.on('message', (result: RunResult) => {
        goesOn = onResult(result) && goesOn;
        begin();
      });
      worker.on('error', reject);
      begin();
    });
  await Promise.all(Array.from({ length: workers }, one));
}
