import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { delimiter, join } from 'node:path';

import { z } from 'zod';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { endpoints, pathText } from '../../base/topology.ts';
import type { Endpoint, Topology } from '../../base/topology.ts';
import { acquireFolderLock, folderLockFiles } from '../../store/folder-lock.ts';

// ---- nats-server ----------------------------------------------------------------------------------------------------

/** What the search for nats-server needs of the machine; tests give a machine of their own. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly isRoot: boolean;
  /** Whether there is a person to ask. */
  readonly hasTerminal: boolean;
  readonly searchPath: readonly string[];
  /** `ID` of /etc/os-release, where there is one. */
  readonly distribution: string | undefined;
  exists(file: string): boolean;
  /** Runs a program to its end, unseen; undefined when there is none of that name. */
  run(program: string, args: readonly string[]): { readonly status: number; readonly output: string } | undefined;
  /** Asks a yes-or-no question. */
  ask(question: string): Promise<boolean>;
  print(line: string): void;
}

const oldestNatsServer = [2, 9] as const;

/** The machine that this process runs on. */
export function thisMachine(person: Pick<Machine, 'hasTerminal' | 'ask' | 'print'>): Machine {
  return {
    ...person,
    platform: process.platform,
    isRoot: process.getuid?.() === 0,
    searchPath: (process.env['PATH'] ?? '').split(delimiter),
    distribution: existsSync('/etc/os-release')
      ? /^ID=["']?([a-z0-9._-]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
      : undefined,
    exists: existsSync,
    run(program, args) {
      const result = spawnSync(program, args, {
        encoding: 'utf8',
        env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      return result.error === undefined
        ? { status: result.status ?? 1, output: result.stdout + result.stderr }
        : undefined;
    },
  };
}

/**
 * The path of a nats-server of version 2.9 or newer: the one that is installed, else Debian's package, installed as
 * root, or through sudo when the person at the terminal agrees. Otherwise NATS_SERVER_MISSING with the one line that
 * helps on this operating system.
 */
export async function ensureNatsServer(machine: Machine): Promise<string> {
  const found = findNatsServer(machine);
  if (found.kind === 'usable') return found.path;
  const lack =
    found.kind === 'missing' ? 'nats-server was not found' : `${found.path} is ${found.version}, older than 2.9`;

  const apt = which('apt-get', machine);
  if (apt !== undefined && (machine.isRoot || which('sudo', machine) !== undefined)) {
    const command = machine.isRoot ? [apt] : ['sudo', apt];
    const agreed =
      machine.isRoot ||
      (machine.hasTerminal &&
        (await machine.ask(`${lack}. Install Debian's package with "sudo apt-get install nats-server"?`)));
    if (agreed) {
      machine.print(`${lack}: installing Debian's package (apt-get update, apt-get install nats-server) ...`);
      installNatsServer(machine, command);
      const installed = findNatsServer(machine);
      if (installed.kind === 'usable') return installed.path;
      throw new SwitchError('NATS_SERVER_MISSING', `Debian's package gave no nats-server of version 2.9 or newer`);
    }
  }
  throw new SwitchError('NATS_SERVER_MISSING', `${lack}: ${installAdvice(machine)}`);
}

type Found =
  | { readonly kind: 'usable'; readonly path: string }
  | { readonly kind: 'old'; readonly path: string; readonly version: string }
  | { readonly kind: 'missing' };

/** The first usable nats-server on PATH or where Debian puts it (/usr/sbin is not on everyone's PATH). */
export function findNatsServer(machine: Machine): Found {
  let old: Found = { kind: 'missing' };
  for (const folder of [...machine.searchPath, '/usr/sbin', '/usr/local/sbin', '/usr/local/bin']) {
    const path = join(folder, 'nats-server');
    if (folder === '' || !machine.exists(path)) continue;
    const version = /v?(\d+)\.(\d+)\.(\d+)/.exec(machine.run(path, ['--version'])?.output ?? '');
    if (version === null) continue;
    const [major, minor] = [Number(version[1]), Number(version[2])];
    const [leastMajor, leastMinor] = oldestNatsServer;
    if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return { kind: 'usable', path };
    if (old.kind === 'missing') old = { kind: 'old', path, version: version[0] };
  }
  return old;
}

function installNatsServer(machine: Machine, apt: readonly string[]): void {
  const [program = 'apt-get', ...prefix] = apt;
  for (const args of [
    ['update', '-q'],
    ['install', '-y', '-q', '--no-install-recommends', 'nats-server'],
  ]) {
    const result = machine.run(program, [...prefix, ...args]);
    if (result?.status === 0) continue;
    const reason = (result?.output ?? 'it could not be run').trim().split('\n').slice(-3).join(' ');
    throw new SwitchError('NATS_SERVER_MISSING', `apt-get ${args[0] ?? ''} failed: ${reason}`);
  }
  // The package starts a server of its own, open to everyone, where systemd runs; nobody asked for that one.
  if (machine.exists('/run/systemd/system')) {
    const systemctl = [...(machine.isRoot ? [] : ['sudo']), 'systemctl', 'disable', '--now', 'nats-server'];
    machine.run(systemctl[0] ?? '', systemctl.slice(1));
  }
}

function installAdvice(machine: Machine): string {
  if (machine.platform === 'darwin') return 'install it with "brew install nats-server" and start again.';
  if (machine.platform !== 'linux') return 'install nats-server 2.9 or newer, put it on PATH and start again.';
  switch (machine.distribution) {
    case 'debian':
    case 'ubuntu':
    case 'linuxmint':
    case 'raspbian':
      return 'install it with "sudo apt-get install nats-server" and start again.';
    case 'alpine':
      return 'install it with "sudo apk add nats-server" and start again.';
    case 'arch':
      return 'install it with "sudo pacman -S nats-server" and start again.';
    default:
      return 'install nats-server 2.9 or newer from your distribution or the NATS project, put it on PATH and start again.';
  }
}

function which(program: string, machine: Machine): string | undefined {
  return machine.searchPath.map((folder) => join(folder, program)).find((file) => machine.exists(file));
}

// ---- ports ----------------------------------------------------------------------------------------------------------

/** Throws PORT_TAKEN, a line for each address of the topology that another program listens at. */
export async function checkPortsFree(topology: Topology, clock: Clock): Promise<void> {
  const problems: string[] = [];
  for (const { path, host, port } of endpoints(topology)) {
    const failure = await listenOnce({ host, port });
    if (failure === undefined) continue;
    const where = `${host}:${port} (${pathText(path)}.port)`;
    if (failure === 'EADDRINUSE') problems.push(`${where} is taken${await whoListens({ host, port }, clock)}`);
    else if (failure === 'EADDRNOTAVAIL') problems.push(`${where} is no address of this machine`);
    else problems.push(`${where} cannot be listened at (${failure})`);
  }
  if (problems.length > 0) throw new SwitchError('PORT_TAKEN', problems.join('\n'));
}

/** The error code with which listening fails, or undefined when it works. */
function listenOnce(endpoint: Endpoint): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? error.message);
    });
    server.listen({ ...endpoint, exclusive: true }, () => {
      server.close(() => {
        resolve(undefined);
      });
    });
  });
}

async function whoListens(endpoint: Endpoint, clock: Clock): Promise<string> {
  const cluster = /"cluster":"([^"]*)"/.exec((await natsGreeting(endpoint, clock)) ?? '')?.[1];
  return cluster === undefined ? '' : ` by a broker of cluster "${cluster}": another Quadrant may be running`;
}

/** What a NATS server says to everyone who connects (`INFO {...}`), or undefined when none is there to say it. */
export function natsGreeting(endpoint: Endpoint, clock: Clock): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(endpoint);
    const finish = (greeting: string | undefined): void => {
      timer.cancel();
      socket.destroy();
      resolve(greeting);
    };
    const timer = clock.after(300, () => {
      finish(undefined);
    });
    socket.on('error', () => {
      finish(undefined);
    });
    socket.once('close', () => {
      finish(undefined);
    });
    socket.once('data', (data) => {
      const text = data.toString('utf8');
      finish(text.startsWith('INFO ') ? text : undefined);
    });
  });
}

// ---- data folder ----------------------------------------------------------------------------------------------------

const clusterFile = 'cluster.json';
const dataFormat = 1;
const clusterRecord = z.object({ cluster: z.string(), format: z.number(), created: z.string() });

/** Whether the folder is new (missing or empty) or has data of this cluster; throws DATA_FOLDER_FOREIGN for any other. */
export function inspectDataFolder(dataFolder: string, cluster: string): 'new' | 'continued' {
  const owner = ownerOf(dataFolder);
  if (owner.kind === 'empty') return 'new';
  if (owner.kind === 'unknown') {
    throw new SwitchError(
      'DATA_FOLDER_FOREIGN',
      `${dataFolder} has files, and they are not Quadrant's (no ${clusterFile})`,
    );
  }
  if (owner.cluster !== cluster) {
    throw new SwitchError(
      'DATA_FOLDER_FOREIGN',
      `${dataFolder} has the data of cluster "${owner.cluster}", not "${cluster}"`,
    );
  }
  if (owner.format !== dataFormat) {
    const formats = `format ${owner.format}; this version of Quadrant reads format ${dataFormat}`;
    throw new SwitchError('DATA_FOLDER_FOREIGN', `${dataFolder} has data of ${formats}`);
  }
  return 'continued';
}

/** Marks a data folder as this cluster's. Needs the folder's lock. */
export function claimDataFolder(dataFolder: string, cluster: string, clock: Clock): void {
  if (inspectDataFolder(dataFolder, cluster) === 'continued') return;
  const record = { cluster, format: dataFormat, created: new Date(clock.wallMs()).toISOString() };
  const file = join(dataFolder, clusterFile);
  mkdirSync(dataFolder, { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, `${JSON.stringify(record, null, 2)}\n`, { flush: true });
  renameSync(`${file}.new`, file);
}

/** Whether `--fresh` may erase the folder: only what is Quadrant's own, of whichever cluster, or empty. */
export function mayErase(dataFolder: string): boolean {
  return ownerOf(dataFolder).kind !== 'unknown';
}

/** Erases a data folder whose lock this process has; a process of it that still runs is DATA_FOLDER_IN_USE. */
export function eraseDataFolder(dataFolder: string): void {
  if (!mayErase(dataFolder)) {
    throw new SwitchError('DATA_FOLDER_FOREIGN', `${dataFolder} has files that are not Quadrant's: it is not erased`);
  }
  const names = readdirSync(dataFolder).filter((name) => !folderLockFiles.includes(name));
  for (const name of names) {
    const folder = join(dataFolder, name);
    if (statSync(folder).isDirectory() && existsSync(join(folder, 'lock.db')))
      acquireFolderLock(folder, 'start').release();
  }
  // Last the file that says whose the folder is: until then an erasure that was interrupted can be tried again.
  for (const name of [...names.filter((name) => name !== clusterFile), clusterFile]) {
    rmSync(join(dataFolder, name), { recursive: true, force: true });
  }
}

type Owner =
  | { readonly kind: 'empty' }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'cluster'; readonly cluster: string; readonly format: number };

function ownerOf(dataFolder: string): Owner {
  const ours = new Set([...folderLockFiles, `${clusterFile}.new`]);
  if (!existsSync(dataFolder) || readdirSync(dataFolder).every((name) => ours.has(name))) return { kind: 'empty' };
  try {
    const record = clusterRecord.parse(JSON.parse(readFileSync(join(dataFolder, clusterFile), 'utf8')));
    return { kind: 'cluster', cluster: record.cluster, format: record.format };
  } catch {
    return { kind: 'unknown' };
  }
}
