import type { Clock } from '../base/clock.ts';
import type { EncodedKey } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import { ofEach, SideCaller } from './caller.ts';
import { limits, type CompareSide } from './protocol.ts';
import type { Difference, TableResult } from './result.ts';
import { formatOf } from './tables.ts';

/** A later mark of the same group, at which what differed is looked at once more. */
export interface LaterMark {
  readonly compare: string;
  readonly index: number;
  readonly sides: readonly CompareSide[];
}

interface LookOptions {
  readonly group: string;
  readonly tables: readonly TableSpecification[];
  readonly clock: Clock;
  readonly openTimeoutMs: number;
  readonly callTimeoutMs: number;
  readonly stop?: AbortSignal;
  readonly laterMark: () => Promise<LaterMark>;
}

const ofRows: ReadonlySet<Difference['kind']> = new Set(['only-here', 'missing-here', 'columns-differ']);

/**
 * Looks at every row that is listed as different once more, at a later mark, and notes with the difference whether it is
 * there still. Nothing is taken away: at the first mark both copies had applied the same entries, so what differed there
 * was no copy that was late. That it is gone says that somebody wrote the row since. Only rows are looked at: an entry's
 * hash, a damaged page and what a fold ought to be are not found by holding copies against each other.
 *
 * Costs nothing when nothing differed. What could not be looked at stays as it was found.
 */
export async function lookAgain(
  results: readonly TableResult[],
  options: LookOptions,
): Promise<readonly TableResult[]> {
  if (!results.some(({ differences }) => differences.some(isOfRow)) || options.stop?.aborted === true) return results;
  const { group, clock, callTimeoutMs, openTimeoutMs, tables, stop } = options;
  let mark: LaterMark;
  try {
    mark = await options.laterMark();
  } catch {
    // Without a leader there is no later mark; the differences stand.
    return results;
  }
  const sides = mark.sides.map(
    (side) => new SideCaller(side, { compare: mark.compare, group }, clock, callTimeoutMs, stop),
  );
  await ofEach(sides, (side) => side.open(mark.index, formatOf(tables), openTimeoutMs));
  const looked: TableResult[] = [];
  for (const result of results) {
    const differing = result.differences.filter(isOfRow);
    const nodes = new Set(differing.flatMap(({ node, row }) => [node, ...(row?.sources ?? [])]));
    const keys = [...new Map(differing.map(({ row }) => [nameOf(row?.key ?? []), row?.key ?? []])).values()];
    const answers = await ofEach(
      sides.filter(({ node, failure }) => failure === undefined && nodes.has(node) && keys.length > 0),
      (side) => rowsAt(side, result.table, keys),
    );
    const rowsOf = new Map(answers.map(({ side, answer }) => [side.node, answer]));
    looked.push({ ...result, differences: result.differences.map((each) => withLook(each, rowsOf, mark.index)) });
  }
  await Promise.all(sides.map((side) => side.close()));
  return looked;
}

/** What a row has at one side, in a form that is equal when the rows are; undefined: it was not told. */
type Rows = ReadonlyMap<string, string>;

async function rowsAt(side: SideCaller, table: string, keys: readonly EncodedKey[]): Promise<Rows> {
  const rows = new Map<string, string>();
  for (let at = 0; at < keys.length;) {
    const asked = keys.slice(at, at + limits.keys);
    const found = await side.columns(table, asked);
    for (const row of found) {
      rows.set(
        nameOf(keys[at++] ?? []),
        row === null ? absent : JSON.stringify(row.map(({ column, digest }) => [column, digest])),
      );
    }
  }
  return rows;
}

const absent = 'no row';

function withLook(difference: Difference, rowsOf: ReadonlyMap<string, Rows>, index: number): Difference {
  if (!isOfRow(difference)) return difference;
  const { key, sources } = difference.row ?? { key: [], sources: [] };
  const name = nameOf(key);
  const here = rowsOf.get(difference.node)?.get(name);
  const right =
    difference.kind === 'only-here'
      ? absent
      : sources.map((node) => rowsOf.get(node)?.get(name)).find((row) => row !== undefined);
  if (here === undefined || right === undefined) return difference;
  return { ...difference, again: { index, found: here === right ? 'gone' : 'still' } };
}

/** One row is what differs, and its key may be told. */
function isOfRow({ kind, row }: Difference): boolean {
  return ofRows.has(kind) && row !== undefined;
}

function nameOf(key: EncodedKey): string {
  return JSON.stringify(key);
}
