import { z } from 'zod';

import { delay, type Clock } from '../base/clock.ts';
import { describeError, SwitchError } from '../base/errors.ts';
import { isEncodedValue, type EncodedKey } from '../store/canonical.ts';
import type { RowChange, RowOutcome, RowState } from '../store/row-repair.ts';
import type { RepairPlan, RepairStep } from './repair-plan.ts';

const value = z.string().refine(isEncodedValue, 'not an encoded value');
const key = z.array(value).min(1).max(8).readonly();
const name = z.string().min(1).max(100);
const repair = z.string().regex(/^r[0-9a-f]{16}$/);
const digest = z.string().max(32);
const row = { table: name, key, found: digest.nullable() };

/** Rows of one call at most. */
export const maximumRepairRows = 64;

/** What a node is asked during a repair; see `runRepair`. */
export const repairCalls = {
  'repair.hold': z.strictObject({ repair, group: name, mark: name }),
  'repair.read': z.strictObject({
    mark: name,
    group: name,
    table: name,
    keys: z.array(key).min(1).max(maximumRepairRows),
  }),
  'repair.apply': z.strictObject({
    repair,
    group: name,
    at: z.int().min(0).optional(),
    changes: z
      .array(
        z.discriminatedUnion('kind', [
          z.strictObject({ ...row, kind: z.literal('put'), values: z.array(value).max(256), right: digest }),
          z.strictObject({ ...row, kind: z.literal('delete') }),
          z.strictObject({ ...row, kind: z.literal('derive'), right: digest }),
        ]),
      )
      .max(maximumRepairRows),
  }),
  'repair.undo': z.strictObject({ repair }),
  'repair.end': z.strictObject({ repair }),
} as const;

export type RepairMethod = keyof typeof repairCalls;
export type RepairParameters<Method extends RepairMethod> = z.infer<(typeof repairCalls)[Method]>;

/** The cluster as a repair uses it. */
export interface RepairCluster {
  readonly call: <Method extends RepairMethod>(
    node: string,
    method: Method,
    parameters: RepairParameters<Method>,
  ) => Promise<unknown>;
  /** Enters a mark into the group's log and has the sources pin their snapshots there; its index. */
  readonly mark: (group: string, mark: string, sources: readonly string[]) => Promise<number>;
  readonly unmark: (group: string, mark: string, sources: readonly string[]) => Promise<void>;
}

export interface StepResult {
  readonly step: RepairStep;
  readonly outcome: RowOutcome | 'failed';
  readonly reason?: string;
}

const attempts = 4;
const retryMs = 200;

/**
 * Carries out a plan, some rows at a time, group by group:
 *
 *   hold    every node that is to be mended: apply stands at the mark that comes next until its rows are there, or two
 *           seconds (R14); appends go on, so that the deciding thread waits for nothing
 *   mark    the group's leader enters a mark; those who have the right rows pin a snapshot there
 *   read    the right rows, from these snapshots: whole, sealed, and not kept anywhere on the way
 *   apply   the writer thread of each node changes the rows in one transaction, if its fold is at the mark and each row
 *           is still as it was found. What was there before is synced into the undo file first
 *
 * So the right row and the row that it replaces are of the same index: none is ever older than what it replaces. Rows of
 * either side that have changed since the report are left alone, and said: they have to be compared anew. Rows that are
 * as they should be by now count as such, so that a repair which was killed is finished by making it again. What a node
 * changes is in no log: it is not sent on.
 */
export async function runRepair(
  plan: RepairPlan,
  cluster: RepairCluster,
  clock: Clock,
  onProgress: (done: number) => void = () => undefined,
): Promise<readonly StepResult[]> {
  const results: StepResult[] = [];
  const nodes = [...new Set(plan.steps.map(({ node }) => node))];
  try {
    for (const group of new Set(plan.steps.map((step) => step.group))) {
      const steps = plan.steps.filter((step) => step.group === group);
      for (let from = 0; from < steps.length; from += maximumRepairRows) {
        const part = steps.slice(from, from + maximumRepairRows);
        results.push(...(await repairPart(plan.repair, group, part, cluster, clock)));
        onProgress(results.length);
      }
    }
  } finally {
    await Promise.allSettled(nodes.map((node) => cluster.call(node, 'repair.end', { repair: plan.repair })));
  }
  return results;
}

let marks = 0;

async function repairPart(
  repairId: string,
  group: string,
  steps: readonly RepairStep[],
  cluster: RepairCluster,
  clock: Clock,
): Promise<readonly StepResult[]> {
  const done = new Map<RepairStep, StepResult>();
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const left = steps.filter((step) => !done.has(step));
    if (left.length === 0) break;
    if (attempt > 1) await delay(clock, retryMs);
    const last = attempt === attempts;
    marks += 1;
    const mark = `${repairId}.${clock.wallMs()}.${marks}`;
    const fail = (failed: readonly RepairStep[], error: unknown): void => {
      const isFinal = last || (error instanceof SwitchError && error.code === 'REPAIR_RUNNING');
      if (isFinal) for (const step of failed) done.set(step, { step, outcome: 'failed', reason: describeError(error) });
    };
    const targets = [...new Set(left.map(({ node }) => node))];
    const held = new Set<string>();
    for (const node of targets) {
      try {
        await cluster.call(node, 'repair.hold', { repair: repairId, group, mark });
        held.add(node);
      } catch (error) {
        fail(
          left.filter((step) => step.node === node),
          error,
        );
      }
    }
    const due = left.filter((step) => held.has(step.node) && !done.has(step));
    const needs = due.filter(({ kind }) => kind === 'put');
    // The next source is asked when the one before does not answer.
    const sourceOf = (step: RepairStep): string => step.sources[(attempt - 1) % Math.max(1, step.sources.length)] ?? '';
    const sources = [...new Set(needs.map(sourceOf))];
    let index: number | undefined;
    const rows = new Map<RepairStep, RowState | null>();
    try {
      if (needs.length > 0) {
        index = await cluster.mark(group, mark, sources);
        for (const source of sources) {
          for (const table of new Set(needs.map((step) => step.table))) {
            const wanted = needs.filter((step) => sourceOf(step) === source && step.table === table);
            const found = await readAll(
              cluster,
              source,
              { group, mark, table },
              wanted.map((step) => step.key),
            );
            wanted.forEach((step, at) => rows.set(step, found[at] ?? null));
          }
        }
      }
    } catch (error) {
      fail(due, error);
      await cluster.unmark(group, mark, sources);
      continue;
    }
    for (const step of needs) {
      if (rows.get(step)?.digest !== step.right) done.set(step, { step, outcome: 'newer' });
    }
    await Promise.all(
      [...held].map(async (node) => {
        const mine = due.filter((step) => step.node === node && !done.has(step));
        // Later attempts go row by row: one that cannot be written must not keep the others from it.
        const parts = attempt < 3 ? [mine] : mine.map((step) => [step]);
        for (const part of parts) {
          try {
            const changes = part.map((step) => changeOf(step, rows.get(step)));
            const at = part.some(({ kind }) => kind === 'put') ? index : undefined;
            const { outcomes } = (await cluster.call(node, 'repair.apply', {
              repair: repairId,
              group,
              at,
              changes,
            })) as {
              outcomes: readonly RowOutcome[];
            };
            part.forEach((step, position) => done.set(step, { step, outcome: outcomes[position] ?? 'newer' }));
          } catch (error) {
            fail(part, error);
          }
        }
      }),
    );
    await cluster.unmark(group, mark, sources);
  }
  return steps.flatMap((step) => done.get(step) ?? []);
}

function changeOf(
  step: RepairStep,
  source: RowState | null | undefined,
): RepairParameters<'repair.apply'>['changes'][number] {
  const at = { table: step.table, key: step.key, found: step.found };
  if (step.kind === 'delete') return { ...at, kind: 'delete' };
  if (step.kind === 'derive') return { ...at, kind: 'derive', right: step.right ?? '' };
  return { ...at, kind: 'put', right: step.right ?? '', values: [...(source?.values ?? [])] } satisfies RowChange;
}

const rowSchema = z.object({ digest, values: z.array(value).max(256) });

/** A node answers as many rows as an answer takes, one at least. */
async function readAll(
  cluster: RepairCluster,
  source: string,
  from: { readonly group: string; readonly mark: string; readonly table: string },
  keys: readonly EncodedKey[],
): Promise<readonly (RowState | null)[]> {
  const rows: (RowState | null)[] = [];
  while (rows.length < keys.length) {
    const reply = await cluster.call(source, 'repair.read', { ...from, keys: keys.slice(rows.length) });
    const parsed = z.object({ rows: z.array(rowSchema.nullable()).min(1) }).safeParse(reply);
    if (!parsed.success) throw new SwitchError('REPAIR_REFUSED', `${source} does not answer with rows`);
    rows.push(...parsed.data.rows);
  }
  return rows;
}
