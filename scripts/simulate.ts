/**
 * `npm run simulate -- [arguments]`: the simulation of the cluster over many seeds, or one seed with its trace. The
 * arguments are explained in test/simulation/simulate.ts.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../test/simulation/simulate.ts', import.meta.url));
const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, ...process.argv.slice(2)], {
  stdio: 'inherit',
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    child.kill(signal);
  });
}
child.on('exit', (code, signal) => {
  process.exitCode = signal === null ? (code ?? 1) : 1;
});
