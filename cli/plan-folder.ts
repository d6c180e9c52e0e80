import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { z } from 'zod';

import { describeError, SwitchError } from '../base/errors.ts';
import { planHash, signedPlanSchema, type SignedPlan } from '../compare/approval.ts';
import { writeDurably } from './evidence-folder.ts';

const waitingSchema = z.strictObject({
  signed: signedPlanSchema,
  /** The report that it was made from, and what the operator chose; undefined of an undo. */
  report: z.string().max(64).optional(),
  choice: z.strictObject({ source: z.string().optional(), reverse: z.boolean().optional() }).optional(),
});

/** A plan that operators have to sign before it is carried out: DATA/plans has a file of each. */
export type WaitingPlan = z.infer<typeof waitingSchema>;

/** Names the plan by its content: one that was changed has another name. */
export function planId(signed: Omit<SignedPlan, 'signatures'>): string {
  return `p${planHash(signed).slice(0, 12)}`;
}

export function keepPlan(dataFolder: string, plan: WaitingPlan): string {
  const id = planId(plan.signed);
  const folder = folderOf(dataFolder);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeDurably(fileOf(dataFolder, id), `${JSON.stringify(plan, undefined, 2)}\n`);
  } catch (error) {
    throw new SwitchError('REPORT_NOT_KEPT', `the plan cannot be kept in ${folder}: ${describeError(error)}`, {
      cause: error,
    });
  }
  return id;
}

/** Throws REPAIR_NOT_APPROVED where there is none, or it is not what its name says. */
export function loadPlan(dataFolder: string, id: string): WaitingPlan {
  const file = fileOf(dataFolder, id);
  if (!/^p[0-9a-f]{12}$/.test(id) || !existsSync(file)) {
    throw new SwitchError('REPAIR_NOT_APPROVED', `no plan ${id} waits: ${file} is missing`);
  }
  const parsed = waitingSchema.safeParse(parseJson(readFileSync(file, 'utf8')));
  if (!parsed.success || planId(parsed.data.signed) !== id) {
    throw new SwitchError('REPAIR_NOT_APPROVED', `plan ${id} was changed after it was made: ${file}`);
  }
  return parsed.data;
}

/** It was carried out; its report has it. */
export function removePlan(dataFolder: string, id: string): void {
  rmSync(fileOf(dataFolder, id), { force: true });
}

export function planNames(dataFolder: string): readonly string[] {
  const folder = folderOf(dataFolder);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => /^p[0-9a-f]{12}\.json$/.test(name))
    .map((name) => name.slice(0, -'.json'.length))
    .sort();
}

function folderOf(dataFolder: string): string {
  return join(dataFolder, 'plans');
}

function fileOf(dataFolder: string, id: string): string {
  return join(folderOf(dataFolder), `${id}.json`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
