import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Runs a program of test/, which scripts must not import, with this process's arguments, to its end. */
export function runTestProgram(url: URL): void {
  const args = ['--disable-warning=ExperimentalWarning', fileURLToPath(url), ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, {
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
}
