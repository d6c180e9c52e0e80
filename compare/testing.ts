import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { groupId, nodeId, type GroupId } from '../base/identifiers.ts';
import { realClock } from '../base/real.ts';
import { noFold } from '../store/group-file.ts';
import { integrityFaults } from '../store/integrity.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { copyFile, sampleLog, writeFile } from '../store/testing.ts';
import { SnapshotReader, type TableSpecification } from '../store/snapshot-reader.ts';
import { compareGroup, type CompareOptions } from './compare.ts';
import { CompareDesk } from './desk.ts';
import { parseCompareCall, type CompareSide } from './protocol.ts';
import { exitCodes, verdictOf } from './report.ts';
import type { Difference, GroupResult } from './result.ts';
import { tablesOf } from './tables.ts';

/** For tests of compare: copies of a group's file, sides over them, and what is found in short. */

export const group = groupId('a');
export const topology = {
  nodes: ['n1', 'n2', 'n3', 'n4'].map((id, at) => ({ id: nodeId(id), site: at < 2 ? 'east' : 'west' })),
};
export const nodes = topology.nodes.map(({ id }) => id);

/** A side in this process. What it answers goes through JSON, as it would on the wire. */
export function sideOf(
  context: Pick<TestContext, 'after'>,
  node: string,
  path: string,
  options: { readonly group?: GroupId; readonly holds?: CompareSide['holds'] } = {},
): CompareSide {
  const reader = SnapshotReader.open(path);
  const desk = new CompareDesk({
    reader,
    tables: tablesOf(options.group ?? group),
    recomputation: options.holds === 'log' ? undefined : { fold: ledgerFold, path: `${path}.recomputed` },
    integrityFaults: () => Promise.resolve(integrityFaults(path)),
  });
  context.after(() => {
    desk.close();
  });
  return {
    node,
    holds: options.holds ?? 'log-and-fold',
    call: (call) => {
      const received = parseCompareCall(JSON.parse(JSON.stringify(call)));
      assert.ok(received);
      return Promise.resolve(JSON.parse(JSON.stringify(desk.answer(received))) as unknown);
    },
  };
}

/** A side's own part over a snapshot, without a fold to be made anew. */
export function deskOf(reader: SnapshotReader, tables: readonly TableSpecification[]): CompareDesk {
  const integrity = (): Promise<readonly string[]> => Promise.resolve([]);
  return new CompareDesk({ reader, tables, recomputation: undefined, integrityFaults: integrity });
}

export function compareSides(
  sides: readonly CompareSide[],
  more: Partial<CompareOptions> & { markIndex: number },
): Promise<GroupResult> {
  return compareGroup({
    compare: 'compare-1',
    group,
    sides,
    tables: tablesOf(group),
    topology: undefined,
    clock: realClock,
    openTimeoutMs: 10_000,
    callTimeoutMs: 10_000,
    ...more,
  });
}

/** Copies of one group's file for the four nodes and the witness: `paths.n1` to `paths.n4`, `paths.w1`. */
export function copies(
  folder: string,
  decisions: number,
  cards = 50,
): { readonly paths: Record<string, string>; readonly markIndex: number } {
  const entries = sampleLog(group, decisions, cards);
  const first = join(folder, 'n1.db');
  writeFile(first, group, entries, ledgerFold);
  const witness = join(folder, 'w1.db');
  writeFile(witness, group, entries, noFold);
  const others = nodes.slice(1).map((node): [string, string] => [node, copyFile(first, join(folder, `${node}.db`))]);
  return { paths: { n1: first, w1: witness, ...Object.fromEntries(others) }, markIndex: entries.length };
}

export function sidesOf(context: Pick<TestContext, 'after'>, paths: Readonly<Record<string, string>>): CompareSide[] {
  return [...nodes, 'w1'].flatMap((node) => {
    const path = paths[node];
    return path === undefined ? [] : [sideOf(context, node, path, { holds: node === 'w1' ? 'log' : 'log-and-fold' })];
  });
}

export const differencesOf = (result: GroupResult): Difference[] =>
  result.tables.flatMap(({ differences }) => differences);

/** `n3 card card_id=a.1.1.7 columns-differ held_minor,status`; broken chains are left out unless asked for. */
export function summaries(result: GroupResult, chains = false): string[] {
  return differencesOf(result)
    .filter(({ kind }) => chains || kind !== 'broken-chain')
    .map((difference) => {
      const key = Object.entries(difference.key).map(([column, value]) => `${column}=${value}`);
      const columns = 'columns' in difference ? difference.columns.map(({ column }) => column) : [];
      const whole = columns.filter((column) => !column.includes('.'));
      return [
        difference.node,
        difference.table,
        ...key,
        difference.kind,
        ...(whole.length > 0 ? [whole.join()] : []),
      ].join(' ');
    })
    .sort();
}

export const verdict = (result: GroupResult): number => exitCodes[verdictOf([result])];
