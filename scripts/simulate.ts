/**
 * `npm run simulate -- [arguments]`: the simulation of the cluster over many seeds, or one seed with its trace. The
 * arguments are explained in test/simulation/simulate.ts.
 */
import { runTestProgram } from './test-program.ts';

runTestProgram(new URL('../test/simulation/simulate.ts', import.meta.url));
