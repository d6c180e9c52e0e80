import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { UsageError } from '../acquirer/usage.ts';
import type { Aim, Ground } from './fault.ts';
import { faults } from './faults.ts';
import type { DrillRun } from './figures.ts';
import { openOtherGround, openOwnGround } from './ground.ts';
import { reportHtml } from './html.ts';
import { isRoot } from './machine.ts';
import { reportJson, reportText } from './report.ts';
import type { DrillReport } from './report.ts';
import { runDrill, type DrillRequest } from './runner.ts';
import type { DrillPlace } from './place.ts';
import type { UndoJournal } from './undo.ts';

export interface DrillSurroundings {
  readonly undo: UndoJournal;
  readonly clock: Clock;
  readonly note: (line: string) => void;
  readonly onAim?: (aim: Aim) => void;
  readonly onRun?: (run: DrillRun, aim: Aim) => void;
}

/** Throws DRILL_REFUSED when something that the fault needs is not there. Does nothing else. */
export function checkNeeds(request: Pick<DrillRequest, 'kind' | 'options'>, own: boolean): void {
  const needs = faults[request.kind].needs(request.options);
  if (!own && needs.includes('own-cluster')) {
    throw new UsageError(`drill ${request.kind} is made on a cluster that it starts itself, not on one that runs`);
  }
  if (needs.includes('root') && !isRoot()) {
    throw new SwitchError('DRILL_REFUSED', `drill ${request.kind} needs root: run it with sudo`);
  }
}

/** A folder for a drill's cluster, journals and data: the one given, which must be empty, or a new one that may go. */
export function makeFolder(keep: string | undefined): string {
  if (keep === undefined) return mkdtempSync(join(tmpdir(), 'quadrant-drill-'));
  const folder = resolve(keep);
  if (existsSync(folder) && readdirSync(folder).length > 0) {
    throw new UsageError(`--keep ${keep}: the folder is not empty`);
  }
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return folder;
}

/** On a cluster that is started for it and ended after it. Its folder goes when all is well, unless it is to be kept. */
export async function performOnOwnCluster(
  request: DrillRequest,
  around: DrillSurroundings & {
    readonly keep: string | undefined;
    readonly place?: DrillPlace;
    readonly natsServer?: string;
  },
): Promise<DrillReport> {
  checkNeeds(request, true);
  const { undo, clock, note, keep, place, natsServer } = around;
  const folder = makeFolder(keep);
  let passed = false;
  try {
    const ground = await openOwnGround({
      folder,
      equipment: faults[request.kind].equipment(request.options),
      diskOf: request.options.target,
      undo,
      clock,
      random: seededRandom(request.seed),
      note,
      ...(place === undefined ? {} : { place }),
      ...(natsServer === undefined ? {} : { natsServer }),
    });
    const report = await performOn(ground, request, around).finally(() => ground.close());
    passed = report.passed;
    return { ...report, journals: passed && keep === undefined ? undefined : folder };
  } finally {
    if (passed && keep === undefined) rmSync(folder, { recursive: true, force: true });
    else if (!passed) note(`Data and journals stay in ${folder}.`);
  }
}

/** On a cluster that runs. Journals stay. */
export async function performOnRunningCluster(
  request: DrillRequest,
  around: DrillSurroundings & {
    readonly keep: string | undefined;
    readonly configFile: string;
    readonly dataFolder: string;
    readonly cardFile: string;
  },
): Promise<DrillReport> {
  checkNeeds(request, false);
  const { undo, clock, note, keep, configFile, dataFolder, cardFile } = around;
  const folder = makeFolder(keep);
  const random = seededRandom(request.seed);
  const given = { configFile: resolve(configFile), dataFolder: resolve(dataFolder), cardFile };
  const ground = openOtherGround({ ...given, folder, undo, clock, random, note });
  const report = await performOn(ground, request, around).finally(() => ground.close());
  return { ...report, journals: folder };
}

/** On a ground that is there, and stays. */
export function performOn(
  ground: Ground,
  request: DrillRequest,
  around: Pick<DrillSurroundings, 'onAim' | 'onRun'>,
): Promise<DrillReport> {
  return runDrill(ground, {
    ...request,
    fault: faults[request.kind],
    variant: variantOf(request),
    ...(around.onAim === undefined ? {} : { onAim: around.onAim }),
    ...(around.onRun === undefined ? {} : { onRun: around.onRun }),
  });
}

function variantOf({ kind, options, holdMs }: DrillRequest): string {
  return [
    ...(kind === 'kill' && options.withBroker ? ['with its broker'] : []),
    ...(kind === 'freeze' ? [`for ${(holdMs ?? faults.freeze.holdMs) / 1000} s`] : []),
  ].join(', ');
}

/** Writes text, JSON and HTML into the folder, named after drill and time; gives the names without their ends. */
export function keepReport(report: DrillReport, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const name = join(folder, `drill-${report.drill}-${stampOf(report.startedAt)}`);
  writeFileSync(`${name}.json`, `${reportJson(report)}\n`);
  writeFileSync(`${name}.txt`, reportText(report));
  writeFileSync(`${name}.html`, reportHtml([report]));
  return name;
}

/** `2026-05-01T12:00:00.000Z` as a part of a file's name: `2026-05-01-12.00.00`. */
export function stampOf(isoTime: string): string {
  return isoTime.slice(0, 19).replace('T', '-').replaceAll(':', '.');
}
