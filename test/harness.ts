import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { waitFor } from '../base/clock.ts';
import { Pan } from '../base/pan.ts';
import { realClock, realRandom } from '../base/real.ts';
import { loadTopology } from '../base/topology.ts';
import type { Topology } from '../base/topology.ts';
import { readAcquirerCards } from '../cli/acquirer/cards.ts';
import type { AcquirerCard } from '../cli/acquirer/cards.ts';
import { openConnection } from '../cli/acquirer/connection.ts';
import type { AcquirerConnection } from '../cli/acquirer/connection.ts';
import { runLoad } from '../cli/acquirer/load.ts';
import type { LoadOptions } from '../cli/acquirer/load-options.ts';
import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import { defaultMix } from '../cli/acquirer/load-mix.ts';
import type { LoadSummary } from '../cli/acquirer/load-summary.ts';
import { acquiringInstitution, textOf, transmissionDateAndTime } from '../cli/acquirer/message-parts.ts';
import { targetsOf } from '../cli/acquirer/usage.ts';
import { prepareCluster } from '../cli/cluster/first-start.ts';
import { startCluster } from '../cli/cluster/supervisor.ts';
import type { RunningCluster } from '../cli/cluster/supervisor.ts';
import { requireNatsServer, temporaryFolder, topologyOnFreePorts } from '../cli/cluster/testing.ts';
import { compareCluster } from '../cli/commands/compare.ts';
import { readBooks, verifyNode } from '../cli/commands/verify.ts';
import type { NodeVerification } from '../cli/commands/verify.ts';
import { OperatorBus } from '../cli/operator-bus.ts';
import type { CompareResult } from '../compare/report.ts';
import { loadConfigurationFile } from '../config-db/configuration.ts';
import { RangeTable } from '../config-db/routing.ts';
import type { PanRangeRow } from '../config-db/rows.ts';
import type { FieldValue, IsoMessage } from '../switch/iso8583/codec.ts';

/** For end-to-end tests: a whole cluster on free ports in a temporary folder, and ways to drive it. */

/** What a file's tests leave to be undone, the latest first. */
export class Cleanups {
  readonly #actions: (() => unknown)[] = [];

  /** As `TestContext.after`, for a whole file. */
  after(action: () => unknown): void {
    this.#actions.unshift(action);
  }

  async run(): Promise<void> {
    for (const action of this.#actions.splice(0)) await action();
  }
}

/** Where a test's cluster is; it may run or not. */
export interface Place {
  /** Outside the data folder: for journals and card files. */
  readonly folder: string;
  readonly topology: Topology;
  readonly configFile: string;
  readonly dataFolder: string;
}

/** A cluster of the sample's shape. `settings`: further sections of nodes.yaml. */
export async function makePlace(cleanups: Pick<Cleanups, 'after'>, settings = ''): Promise<Place> {
  const folder = temporaryFolder(cleanups);
  const { file } = await topologyOnFreePorts(folder);
  appendFileSync(file, settings);
  return { folder, topology: loadTopology(file), configFile: file, dataFolder: join(folder, 'data') };
}

export interface TestCluster extends Place {
  readonly running: RunningCluster;
  readonly bus: OperatorBus;
  /** Lines that its supervisor printed. */
  readonly printed: readonly string[];
}

/** Starts a cluster with the sample configuration and cards; it is stopped by `cleanups`. */
export async function startTestCluster(
  cleanups: Pick<Cleanups, 'after'>,
  options: {
    readonly settings?: string;
    readonly program?: readonly string[];
    /** Called when the processes run and nothing has been entered yet. */
    readonly onStarted?: (place: Place) => Promise<void>;
  } = {},
): Promise<TestCluster> {
  const place = await makePlace(cleanups, options.settings);
  const printed: string[] = [];
  const print = (line: string): void => void printed.push(line);
  const { program } = options;
  const running = await startCluster({
    ...place,
    print,
    natsServer: requireNatsServer(),
    ...(program === undefined ? {} : { program }),
  });
  cleanups.after(() => running.stop());
  await options.onStarted?.(place);
  await prepareCluster({ ...place, print });
  const bus = await OperatorBus.connect(place.topology, place.dataFolder);
  cleanups.after(() => bus.close());
  return { ...place, running, bus, printed };
}

/**
 * Holds acquirers' journals against every node and compares all copies: what a person does with `verify` and `compare`.
 */
export async function judge(
  bus: OperatorBus,
  journals: readonly string[],
): Promise<{ readonly compared: CompareResult; readonly verified: readonly NodeVerification[] }> {
  const context = { clock: realClock, random: realRandom, note: () => undefined };
  // First, for its mark stands behind all that the journals are about: after it every copy has applied that.
  const compared = await compareCluster(bus, context, undefined);
  const cards = await readAcquirerCards(sampleCardFile);
  const books = await readBooks(cards, journals);
  const approvals = books.approvals();
  const balances = books.balances();
  const verified = await Promise.all(
    bus.topology.nodes.map(({ id }) => verifyNode(bus, id, cards, approvals, balances)),
  );
  return { compared, verified };
}

// ---- the command line ------------------------------------------------------------------------------------------------

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export const quadrantCommand = fileURLToPath(new URL('../cli/quadrant.mjs', import.meta.url));

/** Runs `quadrant ...` for this place, as a person does. */
export function quadrant(
  place: Pick<Place, 'configFile' | 'dataFolder' | 'folder'>,
  args: readonly string[],
  input = '',
): Promise<CommandResult> {
  const flags = ['--config', place.configFile, '--data', place.dataFolder];
  return runProgram(process.execPath, [quadrantCommand, ...args, ...flags], place.folder, input);
}

/** Runs a program to its end. */
export async function runProgram(
  program: string,
  args: readonly string[],
  folder: string,
  input = '',
): Promise<CommandResult> {
  mkdirSync(folder, { recursive: true });
  const child = spawn(program, args, { cwd: folder, stdio: 'pipe' });
  // Should the tests end before it does.
  const end = (): void => void child.kill('SIGKILL');
  process.once('exit', end);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // A program that ends without reading its input is no failure.
  child.stdin.on('error', () => undefined).end(input);
  const [code] = (await once(child, 'close')) as [number | null];
  process.off('exit', end);
  return { code, stdout, stderr };
}

// ---- processes -------------------------------------------------------------------------------------------------------

/** Pids of the processes whose command line has `text`, such as the path of a data folder. */
export function processesNaming(text: string): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => Number(pid) !== process.pid && readProcess(pid, 'cmdline').includes(text))
    .map(Number);
}

/** Resident memory of a process, in megabytes; undefined when it does not run. */
export function residentMegabytes(pid: number): number | undefined {
  const kilobytes = /^VmRSS:\s+([0-9]+) kB/m.exec(readProcess(String(pid), 'status'))?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) / 1024;
}

function readProcess(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

/** `waitFor` on the machine's clock; `what` is the complaint when it does not come true. */
export function until<T>(
  what: string,
  condition: () => T | undefined | Promise<T | undefined>,
  timeoutMs = 30_000,
): Promise<T> {
  return waitFor(realClock, condition, {
    timeoutMs,
    everyMs: 20,
    onTimeout: () => new Error(`not so in time: ${what}`),
  });
}

/** Waits until every node says that it serves every group. */
export async function untilReady(cluster: Pick<TestCluster, 'bus' | 'topology'>): Promise<void> {
  await until('every node is ready', async () => {
    const statuses = await Promise.all(cluster.topology.nodes.map(({ id }) => cluster.bus.status(id)));
    return statuses.every((status) => status?.state === 'ready') || undefined;
  });
}

// ---- an acquirer -----------------------------------------------------------------------------------------------------

const sampleConfiguration = new URL('../config-db/samples/configuration.yaml', import.meta.url);

/** A sample card and the range that it is in. */
export interface SampleCard extends AcquirerCard {
  readonly range: PanRangeRow;
}

/** The sample cards, working or not, in the order of their file. */
export async function sampleCards(): Promise<readonly SampleCard[]> {
  const file = fileURLToPath(sampleConfiguration);
  const ranges = new RangeTable(loadConfigurationFile(readFileSync(file, 'utf8'), file).pan_range);
  const cards = await readAcquirerCards(sampleCardFile);
  return cards.map((card) => ({ ...card, range: ranges.find(card.pan.reveal()) }));
}

/** The first card of every range but the catch-all: active, in date, in US dollars, with room to spend. */
export async function firstCards(): Promise<readonly SampleCard[]> {
  const cards = await sampleCards();
  return cards.filter(({ range }, index) => cards.findIndex((card) => card.range === range) === index);
}

/** `digits` and the check digit that they ask for (ISO/IEC 7812-1). */
export function withCheckDigit(digits: string): string {
  const found = Array.from({ length: 10 }, (_, digit) => `${digits}${digit}`).find((text) =>
    Pan.parse(text)?.hasValidCheckDigit(),
  );
  if (found === undefined) throw new RangeError('12 to 18 digits are needed');
  return found;
}

let stans = 0;

export function nextStan(): string {
  stans += 1;
  return String(stans).padStart(6, '0');
}

/** A 0100 purchase of 12.34 with a trace number of its own; `fields` over the usual ones, undefined leaves one out. */
export function purchase(
  card: Pick<AcquirerCard, 'pan' | 'expiry' | 'currency'>,
  fields: Readonly<Record<number, FieldValue | undefined>> = {},
  mti = '0100',
): IsoMessage {
  const stan = nextStan();
  const usual: Record<number, FieldValue | undefined> = {
    2: card.pan.reveal(),
    3: '000000',
    4: '000000001234',
    7: transmissionDateAndTime(realClock.wallMs()),
    11: stan,
    14: card.expiry,
    18: '5999',
    22: '012',
    25: '00',
    32: acquiringInstitution,
    37: `RRN${String(process.pid % 1000).padStart(3, '0')}${stan}`,
    41: 'E2ETERM1',
    42: 'E2EMERCHANT0001',
    49: card.currency,
    ...fields,
  };
  const present = Object.entries(usual).flatMap(([field, value]) =>
    value === undefined ? [] : [[Number(field), value] as const],
  );
  return { mti, fields: new Map(present) };
}

export async function connectTo(
  place: Pick<Place, 'topology'>,
  node: string,
  requestTimeoutMs = 15_000,
): Promise<AcquirerConnection> {
  const [target] = targetsOf(place.topology, node);
  if (target === undefined) throw new RangeError(node);
  const opened = await openConnection({ endpoint: target.endpoint, clock: realClock, requestTimeoutMs });
  if (opened.kind === 'refused') throw new Error(`no connection to ${node}: ${opened.reason}`);
  return opened.connection;
}

/** Sends one message and gives the answer; throws when none comes. */
export async function ask(connection: AcquirerConnection, message: IsoMessage): Promise<IsoMessage> {
  const outcome = await connection.request(message);
  if (outcome.kind !== 'answered') throw new Error(`no answer to STAN ${textOf(message, 11)}: ${outcome.kind}`);
  return outcome.message;
}

/** Sends one message over a connection of its own. */
export async function askAt(place: Pick<Place, 'topology'>, node: string, message: IsoMessage): Promise<IsoMessage> {
  const connection = await connectTo(place, node);
  try {
    return await ask(connection, message);
  } finally {
    await connection.close();
  }
}

/** A mixed load over the sample cards, with a journal. */
export async function load(
  place: Pick<Place, 'topology'>,
  options: Partial<LoadOptions> & { readonly journalFile: string; readonly nodes?: string },
): Promise<LoadSummary> {
  const { nodes, ...given } = options;
  return runLoad({
    targets: targetsOf(place.topology, nodes),
    connections: 16,
    cards: await readAcquirerCards(sampleCardFile),
    cardFile: sampleCardFile,
    mix: defaultMix,
    pace: { kind: 'max', inFlight: 64 },
    seed: realRandom.below(1_000_000),
    requestTimeoutMs: 8_000,
    giveUpMs: 20_000,
    reverseUnanswered: true,
    clock: realClock,
    ...given,
  });
}

/** Requests that a journal holds by now. */
export function journaledRequests(file: string): number {
  return existsSync(file) ? (readFileSync(file, 'latin1').match(/^\{"kind":"request"/gm)?.length ?? 0) : 0;
}
