import { z } from 'zod';

import { delay, type Clock } from '../base/clock.ts';
import { describeError, SwitchError } from '../base/errors.ts';
import { isEncodedValue, type EncodedKey } from '../store/canonical.ts';
import type { RowChange, RowOutcome, RowState } from '../store/row-repair.ts';
import { signedPlanSchema } from './approval.ts';
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
    copy: z.literal('recomputed').optional(),
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
  'repair.approve': z.strictObject({ plan: signedPlanSchema }),
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
  /** Has the source make the group's fold anew up to the mark; going on from an earlier mark's, where it still has that. */
  readonly recompute: (group: string, mark: string, source: string, from: string | undefined) => Promise<void>;
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
 *   read    the right rows, from these snapshots: whole, sealed, and not kept anywhere on the way. Where no copy has the
 *           right row, from a fold that a node has made anew from its log: once at a mark of its own, before anybody is
 *           held, and from there on only what has been entered since
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
      const recomputations = new Recomputations(cluster, group);
      try {
        for (let from = 0; from < steps.length; from += maximumRepairRows) {
          const part = steps.slice(from, from + maximumRepairRows);
          results.push(...(await repairPart(plan.repair, group, part, cluster, clock, recomputations)));
          onProgress(results.length);
        }
      } finally {
        await recomputations.end();
      }
    }
  } finally {
    await Promise.allSettled(nodes.map((node) => cluster.call(node, 'repair.end', { repair: plan.repair })));
  }
  return results;
}

let marks = 0;

function newMark(repairId: string, clock: Clock): string {
  marks += 1;
  return `${repairId}.${clock.wallMs()}.${marks}`;
}

/** A group's fold made anew at each source that is asked for rows of it, and the mark at which it is now. */
class Recomputations {
  readonly #cluster: RepairCluster;
  readonly #group: string;
  readonly #markOf = new Map<string, string>();

  constructor(cluster: RepairCluster, group: string) {
    this.#cluster = cluster;
    this.#group = group;
  }

  has(source: string, mark: string): boolean {
    return this.#markOf.get(source) === mark;
  }

  /** Makes it, which takes long, while nobody waits. */
  async begin(source: string, mark: string): Promise<void> {
    if (this.#markOf.has(source)) return;
    await this.#cluster.mark(this.#group, mark, [source]);
    await this.#cluster.recompute(this.#group, mark, source, undefined);
    this.#markOf.set(source, mark);
  }

  /** Goes on to a mark that is pinned at the source. */
  async goOn(source: string, mark: string): Promise<void> {
    const before = this.#markOf.get(source);
    this.#markOf.delete(source);
    await this.#cluster.recompute(this.#group, mark, source, before);
    this.#markOf.set(source, mark);
    if (before !== undefined) await this.#cluster.unmark(this.#group, before, [source]);
  }

  async end(): Promise<void> {
    for (const [source, mark] of this.#markOf) await this.#cluster.unmark(this.#group, mark, [source]);
    this.#markOf.clear();
  }
}

async function repairPart(
  repairId: string,
  group: string,
  steps: readonly RepairStep[],
  cluster: RepairCluster,
  clock: Clock,
  recomputations: Recomputations,
): Promise<readonly StepResult[]> {
  const done = new Map<RepairStep, StepResult>();
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const left = steps.filter((step) => !done.has(step));
    if (left.length === 0) break;
    if (attempt > 1) await delay(clock, retryMs);
    const last = attempt === attempts;
    const mark = newMark(repairId, clock);
    const fail = (failed: readonly RepairStep[], error: unknown): void => {
      const isFinal = last || (error instanceof SwitchError && error.code === 'REPAIR_RUNNING');
      if (isFinal) for (const step of failed) done.set(step, { step, outcome: 'failed', reason: describeError(error) });
    };
    const targets = [...new Set(left.map(({ node }) => node))];
    const sourcesToRecompute = new Set(left.filter(({ recomputed }) => recomputed === true).map(sourceOf(attempt)));
    try {
      for (const source of sourcesToRecompute) await recomputations.begin(source, newMark(repairId, clock));
    } catch (error) {
      fail(
        left.filter(({ recomputed }) => recomputed === true),
        error,
      );
      sourcesToRecompute.clear();
    }
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
    const from = sourceOf(attempt);
    const due = left.filter(
      (step) =>
        held.has(step.node) && !done.has(step) && (step.recomputed !== true || sourcesToRecompute.has(from(step))),
    );
    const needs = due.filter(({ kind }) => kind === 'put');
    const sources = [...new Set(needs.map(from))];
    const unmark = (): Promise<void> =>
      cluster.unmark(
        group,
        mark,
        sources.filter((source) => !recomputations.has(source, mark)),
      );
    let index: number | undefined;
    const rows = new Map<RepairStep, RowState | null>();
    try {
      if (needs.length > 0) {
        index = await cluster.mark(group, mark, sources);
        for (const source of sources) {
          const ofSource = needs.filter((step) => from(step) === source);
          if (ofSource.some(({ recomputed }) => recomputed === true)) await recomputations.goOn(source, mark);
          for (const { table, copy } of tablesOf(ofSource)) {
            const wanted = ofSource.filter((step) => step.table === table && copyOf(step) === copy);
            const found = await readAll(
              cluster,
              source,
              { group, mark, table, ...(copy && { copy }) },
              wanted.map((step) => step.key),
            );
            wanted.forEach((step, at) => rows.set(step, found[at] ?? null));
          }
        }
      }
    } catch (error) {
      fail(due, error);
      await unmark();
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
    await unmark();
  }
  return steps.flatMap((step) => done.get(step) ?? []);
}

/** The next source is asked when the one before does not answer. */
function sourceOf(attempt: number): (step: RepairStep) => string {
  return ({ sources }) => sources[(attempt - 1) % Math.max(1, sources.length)] ?? '';
}

function copyOf({ recomputed }: RepairStep): 'recomputed' | undefined {
  return recomputed === true ? 'recomputed' : undefined;
}

/** Tables of these steps, and of which copy at the source their rows are. */
function tablesOf(
  steps: readonly RepairStep[],
): readonly { readonly table: string; readonly copy: 'recomputed' | undefined }[] {
  const all = steps.map((step) => ({ table: step.table, copy: copyOf(step) }));
  return [...new Map(all.map((each) => [`${each.table} ${each.copy ?? ''}`, each])).values()];
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
  from: { readonly group: string; readonly mark: string; readonly table: string; readonly copy?: 'recomputed' },
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
