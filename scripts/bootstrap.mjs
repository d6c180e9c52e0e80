// Runs a script of this project on the pinned Node, whatever the machine has: `node scripts/bootstrap.mjs TARGET [args]`.
// It installs what is missing first. Plain JavaScript with no dependency, because nothing is installed yet, and in a
// syntax that old versions of Node can read, so that they get a sentence and no SyntaxError.
import childProcess from 'child_process';
import crypto from 'crypto';
import fs from 'fs';
import path from 'path';
import url from 'url';

const root = path.dirname(path.dirname(url.fileURLToPath(import.meta.url)));
const modules = path.join(root, 'node_modules');
const stampFile = path.join(modules, '.quadrant-install.json');
const targets = {
  start: 'scripts/start.ts',
  test: 'scripts/test.ts',
  check: 'scripts/check.ts',
  bench: 'scripts/bench.ts',
  'bench:compare': 'scripts/bench/compare.ts',
  drills: 'scripts/drills.ts',
  simulate: 'scripts/simulate.ts',
  planted: 'scripts/planted.ts',
};

function fail(sentence) {
  process.stderr.write(sentence + '\n');
  process.exit(1);
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

const [target, ...args] = process.argv.slice(2);
if (Number(process.versions.node.split('.')[0]) < 20) {
  fail(`Quadrant needs Node 20 or newer to install itself; this is ${process.version}.`);
}
if (!Object.hasOwn(targets, target)) {
  fail(`usage: node scripts/bootstrap.mjs ${Object.keys(targets).join('|')} [arguments]`);
}
const lockText = fs.readFileSync(path.join(root, 'package-lock.json'));
const lock = JSON.parse(lockText);
const lockHash = crypto.createHash('sha256').update(lockText).digest('hex');
const pinnedVersion = 'v' + lock.packages['node_modules/node'].version;
const pinnedNode = path.join(modules, 'node', 'bin', 'node');

if (!packagesAreComplete()) installPackages();
if (versionOf(pinnedNode) !== pinnedVersion) installPinnedNode();
linkCommand();
fs.writeFileSync(stampFile, JSON.stringify({ packageLock: lockHash }) + '\n');
run(path.join(root, targets[target]), args);

/** Whether node_modules is what package-lock.json says: by the stamp of our last install, else by npm's own record. */
function packagesAreComplete() {
  const direct = Object.keys(Object.assign({}, lock.packages[''].dependencies, lock.packages[''].devDependencies));
  if (!direct.every((name) => fs.existsSync(path.join(modules, name, 'package.json')))) return false;
  const stamp = readJson(stampFile);
  if (stamp !== undefined && stamp.packageLock === lockHash) return true;
  const installed = readJson(path.join(modules, '.package-lock.json'));
  if (installed === undefined) return false;
  return Object.keys(lock.packages).every((place) => {
    const wanted = lock.packages[place];
    const found = installed.packages[place];
    if (place === '') return true;
    return found === undefined ? wanted.optional === true : found.integrity === wanted.integrity;
  });
}

/**
 * No package's scripts are run: npm before 11 would compile better-sqlite3, which brings its binaries along. The one
 * script that is needed, the pinned Node's own installer, is run by name afterwards.
 */
function installPackages() {
  process.stdout.write('Installing packages (npm ci) ...\n');
  npm(
    ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund'],
    root,
    'The packages could not be installed',
  );
}

function installPinnedNode() {
  process.stdout.write(`Installing Node ${pinnedVersion} for this project ...\n`);
  const folder = path.join(modules, 'node');
  const result = childProcess.spawnSync(outsideNode(), ['installArchSpecificPackage.js'], {
    cwd: folder,
    env: Object.assign({}, process.env, { PATH: path.dirname(outsideNode()) + path.delimiter + process.env.PATH }),
    encoding: 'utf8',
  });
  const version = versionOf(pinnedNode);
  if (version === pinnedVersion) return;
  const output = `${result.stdout || ''}${result.stderr || ''}`;
  process.stderr.write(output);
  fail(
    version === undefined
      ? `Node ${pinnedVersion} could not be installed for ${process.platform} ${process.arch}: ${reason(output)}`
      : `node_modules/node is ${version} and package-lock.json asks for ${pinnedVersion}: remove node_modules and try again.`,
  );
}

function npm(npmArguments, cwd, failure) {
  const script = process.env.npm_execpath;
  const viaScript = script !== undefined && /npm-cli\.c?js$/.test(script) && fs.existsSync(script);
  const result = childProcess.spawnSync(
    viaScript ? outsideNode() : 'npm',
    viaScript ? [script].concat(npmArguments) : npmArguments,
    { cwd, stdio: ['ignore', 'inherit', 'pipe'], encoding: 'utf8' },
  );
  if (result.error !== undefined && result.error.code === 'ENOENT')
    fail('npm was not found on PATH; it comes with Node.');
  if (result.status === 0) return;
  process.stderr.write(result.stderr || '');
  fail(`${failure}: ${reason(result.stderr || '')}`);
}

function reason(output) {
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|network/i.test(output)) {
    return 'the npm registry cannot be reached. Check the network, or npm\'s "registry" and "proxy" settings.';
  }
  if (/E404|ETARGET|notarget/.test(output)) return 'the npm registry does not have it.';
  if (/ENOSPC/.test(output)) return 'the disk is full.';
  if (/EACCES|EPERM|EROFS/.test(output)) return 'this folder cannot be written.';
  return 'npm says why above.';
}

/** A Node that is not in node_modules, which npm is about to replace. */
function outsideNode() {
  const candidates = [process.env.npm_node_execpath, process.execPath];
  for (const folder of (process.env.PATH || '').split(path.delimiter)) candidates.push(path.join(folder, 'node'));
  const inside = modules + path.sep;
  const found = candidates.find((file) => {
    return (
      file !== undefined && fs.existsSync(file) && !file.startsWith(inside) && !fs.realpathSync(file).startsWith(inside)
    );
  });
  return found === undefined ? process.execPath : found;
}

function versionOf(node) {
  const result = childProcess.spawnSync(node, ['--version'], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

/** npm links the commands of dependencies but not the project's own, and `npx quadrant` would look for one elsewhere. */
function linkCommand() {
  const link = path.join(modules, '.bin', 'quadrant');
  const command = path.join('..', '..', 'cli', 'quadrant.mjs');
  try {
    if (fs.readlinkSync(link) === command) return;
  } catch {
    // Not there, or not a link.
  }
  fs.rmSync(link, { force: true });
  fs.symlinkSync(command, link);
}

/** Runs the script in the foreground: its exit code and signals are ours, and it sees our end as a 'disconnect'. */
function run(script, scriptArguments) {
  const child = childProcess.spawn(
    pinnedNode,
    ['--disable-warning=ExperimentalWarning', script].concat(scriptArguments),
    {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    },
  );
  const terminal = process.stdin.isTTY || process.stdout.isTTY;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the child as well; once is enough.
      if (signal !== 'SIGINT' || !terminal) child.kill(signal);
    });
  }
  child.on('error', (error) => fail(`Node ${pinnedVersion} could not be started: ${error.message}`));
  child.on('exit', (code, signal) => {
    if (signal !== null) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    } else {
      process.exit(code);
    }
  });
}
