import { parentPort, workerData } from 'node:worker_threads';

import { assert } from '../../base/errors.ts';
import { loadMutant, mutants } from './mutants.ts';
import { runSeed, type RunResult } from './run-seed.ts';

/** One thread of a pool: runs the seeds that it is given, one after the other. */
export interface SeedWorkerData {
  /** Name of the mutant whose defect is to be in the product; undefined: none. */
  readonly mutant: string | undefined;
}

export type FromSeedWorker = RunResult;

const port = parentPort;
assert(port !== null, 'seeds run in threads of a pool');
const data = workerData as SeedWorkerData;
const mutant = mutants.find(({ name }) => name === data.mutant);
assert(mutant !== undefined || data.mutant === undefined, `there is a mutant "${data.mutant ?? ''}"`);
const run = mutant === undefined ? runSeed : (await loadMutant(mutant)).runSeed;

port.on('message', (seed: number) => {
  const result: FromSeedWorker = run(seed, undefined, mutant?.faults);
  port.postMessage(result);
});
