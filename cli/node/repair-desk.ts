import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import type { z } from 'zod';

import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { groupId, type GroupId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import { maximumRepairRows, repairCalls, type RepairMethod, type RepairParameters } from '../../compare/repair.ts';
import type { RepairBatch } from '../../store/group-file.ts';
import { readUndo, type RowOutcome, type RowState } from '../../store/row-repair.ts';
import type { EncodedKey } from '../../store/canonical.ts';
import type { CallRequest } from './peer-calls.ts';

export interface RepairDeskOptions {
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
  ) => Promise<readonly (RowState | null)[]>;
}

/** A repair that is not heard of for so long is over: whoever made it was killed. */
const forgottenAfterMs = 30_000;

/** What a process does for repairs, a witness too; `runRepair` tells in which order it is asked. */
export class RepairDesk {
  readonly #options: RepairDeskOptions;
  /** By group the mark at which apply waits for the rows. */
  readonly #held = new Map<string, string>();
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
        this.#begin(repair);
        if (!this.#options.hasGroup(groupId(group))) {
          throw new SwitchError('REPAIR_REFUSED', `this process has no group ${group}`);
        }
        this.#held.set(group, mark);
        return {};
      }
      case 'repair.read': {
        const { group, mark, table, keys } = parse('repair.read', request);
        return { rows: await this.#options.readRows(groupId(group), mark, table, keys) };
      }
      case 'repair.apply': {
        const { repair, group, at, changes } = parse('repair.apply', request);
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

  async #undo(repair: string): Promise<Readonly<Record<RowOutcome, number>> & { readonly known: boolean }> {
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
