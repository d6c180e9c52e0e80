import { describeError } from '../base/errors.ts';
import type { Fold } from '../store/group-file.ts';
import { FoldRecomputation } from '../store/fold-recomputation.ts';
import { leafRows } from '../store/merkle.ts';
import { isDamage, SnapshotReader, type TableSpecification } from '../store/snapshot-reader.ts';
import { Leaves, type TableEvidence } from './leaves.ts';
import type { GroupResult } from './result.ts';

/** A table's root as a report has it, and as one copy's file gives it; or why that file cannot tell. */
export interface RootVerdict {
  readonly table: string;
  readonly reported: string;
  readonly found: string | undefined;
  readonly reason?: string;
}

export interface RootCheck {
  readonly path: string;
  readonly tables: readonly TableSpecification[];
  readonly fold: Fold;
  /** A file that may be made and is removed again: for a fold made anew. */
  readonly temporary: string;
  readonly onEntries?: (through: number) => void;
}

const blocksAtOnce = 32;
const entriesAtOnce = 10_000;

/**
 * Makes a report's Merkle roots again from a copy of the group's file: of the log as it was at the mark, and of a fold
 * made anew from that log. So nothing but the log and this program is believed. The file may be a node's at work, one
 * that was copied from it, or one of a node that has gone on for months; when its log has been trimmed it has to stand at the
 * mark.
 */
export function checkRoots(group: GroupResult, check: RootCheck): readonly RootVerdict[] {
  const reader = SnapshotReader.open(check.path, undefined, group.markIndex);
  let recomputation: FoldRecomputation | undefined;
  try {
    const wanted = group.tables.flatMap(({ table, evidence }) => (evidence === undefined ? [] : [{ table, evidence }]));
    const hash = reader.position(group.markIndex);
    const reaches = reader.appliedIndex === group.markIndex && hash?.index === group.markIndex;
    const isWhole = reader.base.index === 0;
    const standsThere = SnapshotReader.appliedIn(check.path) === group.markIndex;
    if (reaches && isWhole && wanted.some(({ table }) => table !== 'log')) {
      recomputation = new FoldRecomputation(reader, check.temporary, check.fold);
      for (;;) {
        const { through, done } = recomputation.advance(entriesAtOnce);
        check.onEntries?.(through);
        if (done) break;
      }
    }
    return wanted.map(({ table, evidence }): RootVerdict => {
      const reported = evidence.root;
      const cannot = (reason: string): RootVerdict => ({ table, reported, found: undefined, reason });
      const specification = check.tables.find(({ name }) => name === table);
      if (specification === undefined) return cannot('this version does not compare such a table');
      if (!reaches) return cannot(`the file's log ends before entry ${group.markIndex}`);
      const source = table === 'log' ? reader : (recomputation?.reader ?? (standsThere ? reader : undefined));
      const [first = null] = evidence.ranges;
      if (source === undefined) return cannot(`its log begins after entry ${reader.base.index}`);
      if (table === 'log' && reader.base.index > Number(first?.[0]?.slice(1) ?? 0)) {
        return cannot(`its log begins after entry ${reader.base.index}`);
      }
      try {
        return { table, reported, found: rootOf(source, specification, evidence) };
      } catch (error) {
        if (!isDamage(error)) throw error;
        return cannot(describeError(error));
      }
    });
  } finally {
    recomputation?.close();
    reader.close();
  }
}

function rootOf(reader: SnapshotReader, table: TableSpecification, { ranges }: TableEvidence): string {
  const leaves = new Leaves();
  ranges.forEach((after, at) => {
    const take = leaves.begin(after);
    const through = ranges[at + 1] ?? null;
    for (let from = after; ;) {
      const { blocks, done } = reader.blocks(table, { after: from, through }, leafRows, blocksAtOnce);
      take(blocks.map(({ leaf }) => leaf));
      if (done) return;
      from = blocks.at(-1)?.end ?? null;
    }
  });
  return leaves.evidence().root;
}
