import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, globSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import { assert } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import { realClock } from '../../base/real.ts';
import { voters } from '../../base/topology.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { sampleCardFile } from '../../cli/acquirer/load-command.ts';
import type { LoadSummary } from '../../cli/acquirer/load-summary.ts';
import type { CompareResult } from '../../compare/report.ts';
import type { Difference } from '../../compare/result.ts';
import { pageBytes } from '../../store/group-file.ts';
import { rowsByHand } from '../../store/testing.ts';
import {
  load,
  quadrant,
  quadrantCommand,
  until,
  untilReady,
  type CommandResult,
  type TestCluster,
} from '../harness.ts';
import { describePlant, Planter, plantKinds, unnamedAt, type Plant } from './plants.ts';

/**
 * Compare and repair held against differences that somebody plants in the files of a cluster under load: every one must
 * be found and named, repaired, and then nothing may differ; a repair that is killed is finished by making it again, and
 * its undo files bring back exactly what was there before.
 */

/** Cards that the load goes on using; the others rest, so that what is planted in their rows stays as it was planted. */
const hotCards = 24;
/** A repair's command is about through after this time. */
const firstMs = 5_000;

/** A cluster whose cards have a past, of which most rest while a load goes on. */
export class ProvingGround {
  readonly planter: Planter;
  readonly #cluster: TestCluster;
  readonly #loading: Promise<LoadSummary>;
  readonly #stop: AbortController;
  readonly journals: readonly string[];

  /** `rate` in requests per second; `past` of requests that are decided before; 0: there are some. */
  static async open(
    cluster: TestCluster,
    random: Random,
    { rate, past }: { readonly rate: number; readonly past: number },
  ): Promise<ProvingGround> {
    await untilReady(cluster);
    const journals = ['past', 'load'].map((name) => join(cluster.folder, `${name}-${random.below(1e9)}.jsonl`));
    const [pastJournal = '', loadJournal = ''] = journals;
    if (past > 0) await load(cluster, { count: past, journalFile: pastJournal });
    // Of each range some: every group has cards that rest and cards that do not.
    const cards = (await readAcquirerCards(sampleCardFile)).filter((_, at) => at % 16 === 3).slice(0, hotCards);
    const stop = new AbortController();
    const before = await appliedIndexes(cluster);
    const loading = load(cluster, {
      cards,
      journalFile: loadJournal,
      pace: { kind: 'rate', perSecond: rate },
      durationMs: 3_600_000,
      signal: stop.signal,
    });
    // Until every card that is not to rest has been used.
    await delay(realClock, Math.max(3_000, (hotCards * 20 * 1_000) / rate));
    const ground = {
      dataFolder: cluster.dataFolder,
      nodes: cluster.topology.nodes.map(({ id }) => id),
      witness: cluster.topology.witness?.id ?? '',
      groups: [...before.keys()],
      coldBefore: before,
    };
    return new ProvingGround(cluster, new Planter(ground, random), loading, stop, journals);
  }

  private constructor(
    cluster: TestCluster,
    planter: Planter,
    loading: Promise<LoadSummary>,
    stop: AbortController,
    journals: readonly string[],
  ) {
    this.#cluster = cluster;
    this.planter = planter;
    this.#loading = loading;
    this.#stop = stop;
    this.journals = journals;
  }

  /** Nothing differs now. */
  plant(each: number): readonly Plant[] {
    this.planter.forget();
    return Array.from({ length: each }, () => plantKinds.map((kind) => this.planter.plant(kind))).flat();
  }

  /** The rows in question at every node whose copy was made wrong, as they are now. */
  state(plants: readonly Plant[]): readonly string[] {
    return plants.flatMap((plant) =>
      plant.nodes.map((node) => {
        const rows = JSON.stringify(rowsByHand(this.planter.fileOf(node, plant.group), plant.select));
        return `${node} ${describePlant(plant)}: ${rows}`;
      }),
    );
  }

  async compare(): Promise<CompareResult> {
    const { code, stdout, stderr } = await quadrant(this.#cluster, ['compare', '--json']);
    if (code !== 0 && code !== 3)
      throw new Error(`compare ended with ${code ?? 'a signal'}: ${stderr}\n${stdout.slice(0, 2_000)}`);
    return JSON.parse(stdout) as CompareResult;
  }

  repair(report: string): Promise<CommandResult> {
    return quadrant(this.#cluster, ['repair', report, '--yes', '--json']);
  }

  undo(repair: string): Promise<CommandResult> {
    return quadrant(this.#cluster, ['repair', 'undo', repair, '--yes', '--json']);
  }

  /** Ends the load. */
  async close(): Promise<LoadSummary> {
    this.#stop.abort();
    return this.#loading;
  }
}

/** By group, what everybody has applied. */
async function appliedIndexes(cluster: TestCluster): Promise<ReadonlyMap<string, number>> {
  const statuses = await Promise.all(cluster.topology.nodes.map(({ id }) => cluster.bus.status(id)));
  const applied = new Map<string, number>();
  for (const { name, applied: index } of statuses.flatMap((status) => status?.groups ?? [])) {
    applied.set(name, Math.min(index, applied.get(name) ?? Infinity));
  }
  return applied;
}

export interface PlantsProof {
  readonly planted: number;
  /** Named by the first compare after they were planted, and by a later one: a wrong fold is found once a log is whole. */
  readonly namedAtOnce: number;
  readonly namedLater: number;
  readonly unnamed: readonly string[];
  /** Compares and repairs of each batch until nothing differed. */
  readonly rounds: readonly number[];
}

const mostRounds = 8;

/** Plants, compares, repairs and compares again until nothing differs. Throws when that does not come about. */
export async function provePlants(
  ground: ProvingGround,
  batches: readonly number[],
  note: (line: string) => void = () => undefined,
): Promise<PlantsProof> {
  const sum = { planted: 0, namedAtOnce: 0, namedLater: 0 };
  const unnamed: string[] = [];
  const rounds: number[] = [];
  for (const [batch, each] of batches.entries()) {
    const plants = ground.plant(each);
    sum.planted += plants.length;
    let open: readonly Plant[] = plants;
    for (let round = 1; ; round++) {
      const report = await ground.compare();
      const still = open.filter((plant) => unnamedAt(plant, report).length > 0);
      if (round === 1) sum.namedAtOnce += open.length - still.length;
      else sum.namedLater += open.length - still.length;
      open = still;
      const differences = differencesIn(report);
      note(
        `batch ${batch + 1} of ${batches.length}, compare ${round}: ${differences.length} findings, ${open.length} of ${plants.length} not named yet`,
      );
      if (isEqual(report)) {
        rounds.push(round);
        break;
      }
      if (round === mostRounds) {
        const left = differences.slice(0, 10).map((found) => JSON.stringify(found).slice(0, 600));
        const odd = report.groups.flatMap(({ outcomes }) =>
          outcomes.filter(({ outcome }) => outcome === 'inconclusive'),
        );
        throw new Error(`batch ${batch + 1} still differs:\n${left.join('\n')}\n${JSON.stringify(odd.slice(0, 5))}`);
      }
      const repaired = await ground.repair(report.compare);
      note(`  repair: ${summaryOf(repaired)}`);
    }
    unnamed.push(...open.map(describePlant));
  }
  return { ...sum, unnamed, rounds };
}

function summaryOf({ code, stdout, stderr }: CommandResult): string {
  try {
    const { changed, already, newer, failed, rebuild, results } = JSON.parse(stdout) as Record<string, unknown> & {
      rebuild: unknown[];
      results: {
        outcome: string;
        reason?: string;
        step: { table: string; node: string; group: string; shown: string };
      }[];
    };
    const bad = results.filter(({ outcome }) => outcome === 'failed' || outcome === 'newer').slice(0, 5);
    return [
      `${String(changed)} changed, ${String(already)} already, ${String(newer)} newer, ${String(failed)} failed`,
      ...rebuild.map((each) => JSON.stringify(each)),
      ...bad.map(
        ({ outcome, reason, step }) =>
          `${outcome} ${step.node} ${step.group} ${step.table} ${step.shown} ${reason ?? ''}`,
      ),
    ].join('\n    ');
  } catch {
    return `exit code ${code ?? 'none'}: ${stderr}`;
  }
}

export interface KillProof {
  readonly kills: number;
  /** What was killed, and how long after the repair had begun. */
  readonly points: readonly string[];
  /** Kills that came while some rows had been changed and others had not. */
  readonly midway: number;
}

/**
 * Plants, begins a repair, kills the command, a node that is being mended, or both, at random; makes the repair again
 * until it is through; then nothing differs. Then undoes it: every row is as it was when the repair began, and the next
 * one has the same to mend.
 */
export async function proveKills(
  ground: ProvingGround,
  cluster: TestCluster,
  random: Random,
  kills: number,
  each: number,
  note: (line: string) => void = () => undefined,
): Promise<KillProof> {
  const points: string[] = [];
  let midway = 0;
  const plants = ground.plant(each);
  const before = ground.state(plants);
  for (let kill = 1; kill <= kills; kill++) {
    let report = await ground.compare();
    const what = (['command', 'node', 'both'] as const)[random.below(3)] ?? 'command';
    const victim = cluster.topology.nodes[random.below(cluster.topology.nodes.length)]?.id ?? '';
    // Half of them at some time after the command was given, half of them after so many rows were changed.
    const afterMs = random.below(2) === 0 ? random.below(firstMs) : undefined;
    const afterRows = undoLines(cluster) + 1 + random.below(before.length);
    const child = spawn(
      process.execPath,
      [
        quadrantCommand,
        'repair',
        report.compare,
        '--yes',
        '--config',
        cluster.configFile,
        '--data',
        cluster.dataFolder,
      ],
      { stdio: 'ignore' },
    );
    const ended = once(child, 'exit');
    if (afterMs !== undefined) await delay(realClock, afterMs);
    else while (child.exitCode === null && undoLines(cluster) < afterRows) await delay(realClock, 2);
    if (what !== 'node') child.kill('SIGKILL');
    if (what !== 'command') await cluster.running.kill(victim, 'SIGKILL');
    await ended;
    const after = ground.state(plants);
    const changed = before.filter((line, at) => line !== after[at]).length;
    if (changed > 0 && changed < before.length) midway += 1;
    const point = `${what}${what === 'command' ? '' : ` ${victim}`} ${afterMs === undefined ? 'by progress' : `after ${afterMs} ms`}, ${changed} of ${before.length} rows changed`;
    points.push(point);
    note(`kill ${kill} of ${kills}: ${point}`);
    if (what !== 'command') {
      await cluster.running.restart(victim);
      await untilReady(cluster);
    }
    const name = await finish(ground, report.compare, note);
    // What the load changes between a compare and its repair, and wrong folds of logs that were broken, take another round.
    const later: string[] = [];
    for (let round = 1; ; round++) {
      report = await ground.compare();
      if (isEqual(report)) break;
      note(`  compare ${round} after it: ${differencesIn(report).length} differ`);
      assert(
        round < mostRounds,
        `repair ${name} was finished, and copies differ: ${JSON.stringify(differencesIn(report).slice(0, 5))}`,
      );
      later.push(await finish(ground, report.compare, note));
    }
    for (const repair of [...later.reverse(), name]) {
      const undone = await ground.undo(repair);
      assert(
        undone.code === 0,
        `undo of ${repair} ended with ${undone.code ?? 'a signal'}: ${undone.stdout}${undone.stderr}`,
      );
    }
    const back = ground.state(plants);
    const lost = before.filter((line, at) => line !== back[at]);
    assert(
      lost.length === 0,
      `undone, these are not as they were:\n${lost.join('\n')}\nbut\n${back.filter((line) => !before.includes(line)).join('\n')}`,
    );
    note(`  finished, nothing differed, undone`);
  }
  await provePlantsGone(ground);
  return { kills, points, midway };
}

export interface RotProof {
  readonly flips: number;
  /** Flips that changed nothing: in space that holds nothing, or in a page of which the write-ahead log had a newer one. */
  readonly harmless: number;
  readonly repaired: number;
  readonly rebuilt: number;
}

/** Flips a bit of a page on disk, of any copy, its owner's too; it is found, and mended by repair or by a rebuild. */
export async function proveRot(
  ground: ProvingGround,
  cluster: TestCluster,
  random: Random,
  flips: number,
  note: (line: string) => void = () => undefined,
): Promise<RotProof> {
  const counts = { harmless: 0, repaired: 0, rebuilt: 0 };
  const processes = voters(cluster.topology);
  for (let flip = 1; flip <= flips; flip++) {
    const group = ['a', 'b', 'c', 'd', 'config'][random.below(5)] ?? 'a';
    const leader = await leaderOf(cluster, group);
    const node = flip % 3 === 0 ? leader : (processes[random.below(processes.length)] ?? leader);
    const where = flipBit(ground.planter.fileOf(node, group), random);
    const told = `flip ${flip} of ${flips}: group ${group} at ${node}${node === leader ? ', its owner' : ''}, ${where}`;
    let report = await ground.compare();
    if (isEqual(report)) {
      counts.harmless += 1;
      note(`${told}: holds nothing`);
      continue;
    }
    const kinds = [...new Set(differencesIn(report).map(({ kind }) => kind))].join(', ');
    await ground.repair(report.compare);
    report = await ground.compare();
    if (isEqual(report)) {
      counts.repaired += 1;
      note(`${told}: ${kinds}; repaired`);
      continue;
    }
    const wrong = [
      ...new Set(
        report.groups.flatMap((each) =>
          each.outcomes.flatMap(({ node: at, outcome }) => (outcome === 'equal' ? [] : [`${at} ${each.group}`])),
        ),
      ),
    ];
    assert(
      wrong.every((each) => each === `${node} ${group}`),
      `only ${node} was damaged, not ${wrong.join(', ')}`,
    );
    const rebuilt = await quadrant(cluster, ['node', 'rebuild', node, '--group', group, '--yes']);
    assert(rebuilt.code === 0, `rebuild ended with ${rebuilt.code ?? 'a signal'}: ${rebuilt.stdout}${rebuilt.stderr}`);
    report = await ground.compare();
    assert(isEqual(report), `after the rebuild ${JSON.stringify(differencesIn(report).slice(0, 5))}`);
    counts.rebuilt += 1;
    note(`${told}: ${kinds}; made anew`);
  }
  return { flips, ...counts };
}

/** The first page has the file's own description: without it there is no file. Gives where it was. */
function flipBit(path: string, random: Random): string {
  const file = openSync(path, 'r+');
  try {
    const at = pageBytes + random.below(fstatSync(file).size - pageBytes);
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, at);
    const bit = random.below(8);
    byte[0] = (byte[0] ?? 0) ^ (1 << bit);
    writeSync(file, byte, 0, 1, at);
    return `page ${1 + Math.floor(at / pageBytes)}, byte ${at % pageBytes}, bit ${bit}`;
  } finally {
    closeSync(file);
  }
}

async function leaderOf(cluster: TestCluster, group: string): Promise<string> {
  return until(`group ${group} has a leader`, async () => {
    const statuses = await Promise.all(cluster.topology.nodes.map(({ id }) => cluster.bus.status(id)));
    return statuses.find((status) => status?.groups.some(({ name, role }) => name === group && role === 'leader'))?.id;
  });
}

function isEqual({ groups }: CompareResult): boolean {
  return groups.every(({ outcomes }) => outcomes.every(({ outcome }) => outcome === 'equal'));
}

/** Rows that all nodes have noted in undo files: how far repairs are. */
function undoLines({ dataFolder, topology }: TestCluster): number {
  const files = globSync(`${dataFolder}/{${voters(topology).join(',')}}/repairs/*/*.jsonl`);
  return files.reduce((sum, file) => sum + readFileSync(file, 'latin1').split('\n').length - 1, 0);
}

/** Makes a repair until it fails no more; its name. */
async function finish(ground: ProvingGround, report: string, note: (line: string) => void): Promise<string> {
  return until(
    `repair of ${report} is through`,
    async () => {
      const result = await ground.repair(report);
      const { code, stdout } = result;
      if (code !== 0 && code !== 3) note(`  made again: ${summaryOf(result)}`);
      return code === 0 || code === 3 ? (JSON.parse(stdout) as { repair: string }).repair : undefined;
    },
    90_000,
  );
}

function differencesIn({ groups }: CompareResult): readonly Difference[] {
  return groups.flatMap(({ tables }) => tables.flatMap(({ differences }) => differences));
}

async function provePlantsGone(ground: ProvingGround): Promise<void> {
  for (let round = 1; ; round++) {
    const report = await ground.compare();
    if (isEqual(report)) return;
    assert(round < mostRounds, 'what was undone cannot be repaired again');
    await ground.repair(report.compare);
  }
}
