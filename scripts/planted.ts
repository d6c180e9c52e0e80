/**
 * `npm run planted -- [arguments]`: differences planted in a cluster under load, found and mended, and repairs killed. The
 * arguments are explained in test/planted/run.ts.
 */
import { runTestProgram } from './test-program.ts';

runTestProgram(new URL('../test/planted/run.ts', import.meta.url));
