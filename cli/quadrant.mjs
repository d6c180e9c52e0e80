#!/usr/bin/env node
// The `quadrant` command: runs cli/quadrant.ts on the project's pinned Node. Plain JavaScript, because an older Node
// cannot read TypeScript, and in a syntax that old versions can read.
import childProcess from 'child_process';
import fs from 'fs';
import module from 'module';
import path from 'path';
import url from 'url';

const here = path.dirname(fs.realpathSync(url.fileURLToPath(import.meta.url)));
const pinnedNode = path.join(here, '..', 'node_modules', 'node', 'bin', 'node');

if (!fs.existsSync(path.join(here, '..', 'node_modules', 'commander'))) {
  process.stderr.write('quadrant is not installed yet: run `npm start` in its folder first.\n');
  process.exitCode = 1;
} else if (Number(process.versions.node.split('.')[0]) >= 24) {
  keepCompiledCode();
  import('./quadrant.ts');
} else if (!fs.existsSync(pinnedNode)) {
  process.stderr.write(
    `quadrant's own Node is not installed yet (this is ${process.version}): run \`npm start\` first.\n`,
  );
  process.exitCode = 1;
} else {
  rerun();
}

/**
 * Compiled code is kept beside the packages, for this process, its threads and its children: they start in half the time,
 * and no thread needs a compiler of TypeScript of its own, which has some 12 MB. Where it cannot be kept, nothing is lost.
 */
function keepCompiledCode() {
  if (module.enableCompileCache === undefined) return;
  if (process.env.NODE_COMPILE_CACHE === undefined) {
    process.env.NODE_COMPILE_CACHE = path.join(here, '..', 'node_modules', '.cache', 'quadrant');
  }
  module.enableCompileCache(process.env.NODE_COMPILE_CACHE);
}

/** The same command line on the pinned Node, with its exit code and signals. */
function rerun() {
  const terminal = process.stdin.isTTY || process.stdout.isTTY;
  const child = childProcess.spawn(pinnedNode, [path.join(here, 'quadrant.mjs')].concat(process.argv.slice(2)), {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the child as well; once is enough.
      if (signal !== 'SIGINT' || !terminal) child.kill(signal);
    });
  }
  child.on('error', (error) => {
    process.stderr.write(`quadrant's own Node could not be started: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal !== null) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else {
      process.exit(code);
    }
  });
}
