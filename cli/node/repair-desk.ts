import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import type { z } from 'zod';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { groupId, type GroupId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Topology } from '../../base/topology.ts';
import { digestOfCall, refusalOf, type SignedPlan } from '../../compare/approval.ts';
import { maximumRepairRows, repairCalls, type RepairMethod, type RepairParameters } from '../../compare/repair.ts';
import type { RepairBatch } from '../../store/group-file.ts';
import { readUndo, type RowChange, type RowOutcome, type RowState } from '../../store/row-repair.ts';
import type { EncodedKey } from '../../store/canonical.ts';
import type { CallRequest } from './peer-calls.ts';

export interface RepairDeskOptions {
  readonly id: string;
  /** Whose approvals a repair needs; `approvals` 1: none but the caller's. */
  readonly rules: Pick<Topology, 'cluster' | 'repair'>;
  /** The process's data folder: undo files are in `repairs` there. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly hasGroup: (group: GroupId) => boolean;
  readonly repair: (group: GroupId, batch: RepairBatch) => Promise<readonly RowOutcome[]>;
  readonly readRows: (
    group: GroupId,
    mark: string,
    table: string,
    keys: readonly EncodedKey[],
    copy: 'recomputed' | undefined,
  ) => Promise<readonly (RowState | null)[]>;
}

/** A repair that is not heard of for so long is over: whoever made it was killed. */
const forgottenAfterMs = 30_000;

/** What a process does for repairs, a witness too; `runRepair` tells in which order it is asked. */
export class RepairDesk {
  readonly #options: RepairDeskOptions;
  /** By group the mark at which apply waits for the rows. */
  readonly #held = new Map<string, string>();
  /** Plans that so many operators have signed, by action and repair, each with the digests of its changes. */
  readonly #approved = new Map<string, { readonly plan: SignedPlan; readonly changes: ReadonlySet<string> }>();
  #running: { readonly repair: string; readonly untilMs: number } | undefined;

  constructor(options: RepairDeskOptions) {
    this.#options = options;
  }

  static serves(method: string): method is RepairMethod {
    return method in repairCalls;
  }

  /** Whether apply, which stands at this mark, is to stay there until the rows have come. */
  holds(group: GroupId, mark: string): boolean {
    return this.#held.get(group) === mark;
  }

  async serve(request: CallRequest & { readonly method: RepairMethod }): Promise<unknown> {
    switch (request.method) {
      case 'repair.hold': {
        const { repair, group, mark } = parse('repair.hold', request);
        this.#check('repair', repair);
        this.#begin(repair);
        if (!this.#options.hasGroup(groupId(group))) {
          throw new SwitchError('REPAIR_REFUSED', `this process has no group ${group}`);
        }
        this.#held.set(group, mark);
        return {};
      }
      case 'repair.read': {
        const { group, mark, table, keys, copy } = parse('repair.read', request);
        return { rows: await this.#options.readRows(groupId(group), mark, table, keys, copy) };
      }
      case 'repair.apply': {
        const { repair, group, at, changes } = parse('repair.apply', request);
        this.#check('repair', repair, group, changes);
        this.#begin(repair);
        const undoFile = this.#undoFile(repair, group);
        try {
          const outcomes = await this.#options.repair(groupId(group), { at, changes, undoFile });
          const changed = outcomes.filter((each) => each === 'changed').length;
          if (changed > 0) this.#log(repair, group, changed, 'rows of this copy were repaired');
          return { outcomes };
        } finally {
          this.#held.delete(group);
        }
      }
      case 'repair.approve':
        this.#approve(parse('repair.approve', request).plan);
        return {};
      case 'repair.undo':
        return this.#undo(parse('repair.undo', request).repair);
      case 'repair.end': {
        const { repair } = parse('repair.end', request);
        if (this.#running?.repair === repair) this.#running = undefined;
        return {};
      }
    }
  }

  /** One repair at a time; the same one may go on after whoever made it was killed. */
  #begin(repair: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    const running = this.#running;
    if (running !== undefined && running.repair !== repair && nowMs < running.untilMs) {
      throw new SwitchError('REPAIR_RUNNING', `repair ${running.repair} is under way`);
    }
    this.#running = { repair, untilMs: nowMs + forgottenAfterMs };
  }

  #approve(plan: SignedPlan): void {
    const refusal = this.#refusal(plan);
    if (refusal !== undefined) throw new SwitchError('REPAIR_NOT_APPROVED', refusal);
    this.#approved.set(`${plan.action} ${plan.repair}`, { plan, changes: new Set(plan.changes) });
  }

  #refusal(plan: SignedPlan): string | undefined {
    const { cluster, repair } = this.#options.rules;
    return refusalOf(plan, { cluster, ...repair }, this.#options.clock.wallMs());
  }

  /** Nothing is changed that is not in a plan which was signed, and is still in force. */
  #check(action: SignedPlan['action'], repair: string, group = '', changes: readonly RowChange[] = []): void {
    if (this.#options.rules.repair.approvals < 2) return;
    const approved = this.#approved.get(`${action} ${repair}`);
    if (approved === undefined)
      throw new SwitchError('REPAIR_NOT_APPROVED', `${action} ${repair} has no approved plan here`);
    const refusal = this.#refusal(approved.plan);
    if (refusal !== undefined) throw new SwitchError('REPAIR_NOT_APPROVED', refusal);
    const { id } = this.#options;
    if (changes.every((change) => approved.changes.has(digestOfCall(id, group, change)))) return;
    throw new SwitchError('REPAIR_NOT_APPROVED', `a change of a row of group ${group} is not in the approved plan`);
  }

  async #undo(repair: string): Promise<Readonly<Record<RowOutcome, number>> & { readonly known: boolean }> {
    this.#check('undo', repair);
    this.#begin(repair);
    const counts = { changed: 0, already: 0, newer: 0 };
    let known = false;
    for (const group of this.#undoGroups(repair)) {
      known = true;
      const changes = readUndo(this.#undoFile(repair, group));
      for (let from = 0; from < changes.length; from += maximumRepairRows) {
        const part = changes.slice(from, from + maximumRepairRows);
        const outcomes = await this.#options.repair(groupId(group), {
          at: undefined,
          changes: part,
          undoFile: undefined,
        });
        for (const outcome of outcomes) counts[outcome] += 1;
      }
      this.#log(repair, group, counts.changed, 'a repair of this copy was undone');
    }
    this.#running = undefined;
    return { ...counts, known };
  }

  #undoGroups(repair: string): readonly string[] {
    const folder = join(this.#options.folder, 'repairs', repair);
    if (!existsSync(folder)) return [];
    return readdirSync(folder).flatMap((name) => (name.endsWith('.jsonl') ? [name.slice(0, -'.jsonl'.length)] : []));
  }

  #undoFile(repair: string, group: string): string {
    return join(this.#options.folder, 'repairs', repair, `${groupId(group)}.jsonl`);
  }

  #log(repair: string, group: string, rows: number, message: string): void {
    this.#options.log.warn({ event: 'repair', repair, group, rows }, message);
  }
}

function parse<Method extends RepairMethod>(method: Method, request: CallRequest): RepairParameters<Method> {
  const schema: z.ZodType<RepairParameters<Method>> = repairCalls[method] as never;
  const result = schema.safeParse(request.parameters);
  if (result.success) return result.data;
  throw new SwitchError('CALL_INVALID', `${method}: ${result.error.issues[0]?.path.join('.') ?? 'invalid'}`);
}
