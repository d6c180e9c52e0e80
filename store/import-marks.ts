import type { ImportRow } from './cards.ts';
import type { RangeOfCards } from './entry.ts';
import { hasPrefix } from './range-move.ts';

/*
 * How far card files have been entered in a group. Each group enters its part of a file in the file's order, so a mark is
 * the last line that is in its log: a line up to there has been entered, whoever brings it again.
 *
 * Where a range has moved (R12), a line of one of its cards has been entered when the group says so that had the range
 * then. So a mark is for the cards with a prefix, and of those that fit a card the longest counts; that with '' is for all
 * others. Marks of a range are divided from the others by its `range-out`, for nothing is entered for the range from there
 * on. They travel with its rows and replace what the heir knew of the range: a line that the old group has is not entered
 * again, and one that it has not is not taken for entered because the heir was further in the file.
 */

/** The mark that counts for a card, of one file's. `digits` is asked only where the first eight do not say. */
export function markOf(
  marks: readonly ImportRow[],
  bin: string,
  digits: () => string | undefined,
): ImportRow | undefined {
  // One is the usual number of them.
  if (marks.length === 1 && marks[0]?.prefix === '') return marks[0];
  return longest(marks.filter(({ prefix }) => hasPrefix(prefix, bin, digits) === true));
}

/** The marks that a range and the ranges within it get of their own when the range begins to leave. */
export function dividedMarks(marks: readonly ImportRow[], { prefix, nested }: RangeOfCards): readonly ImportRow[] {
  return byFile(marks).flatMap(([, ofFile]) => [prefix, ...nested].flatMap((each) => dividedAt(ofFile, each)));
}

/** Those that go with the range, once they have been divided. */
export function leavingMarks(marks: readonly ImportRow[], { prefix, nested }: RangeOfCards): readonly ImportRow[] {
  return marks.filter((mark) => mark.prefix.startsWith(prefix) && !nested.some((each) => mark.prefix.startsWith(each)));
}

/** What becomes of a group's marks when a range comes with those that it has. */
export function arrivedMarks(
  marks: readonly ImportRow[],
  range: RangeOfCards,
  come: readonly ImportRow[],
): { readonly removed: readonly ImportRow[]; readonly put: readonly ImportRow[] } {
  const { prefix, nested } = range;
  const files = byFile([...marks, ...come]);
  // Of what a group knows nothing, nothing has been entered: the ranges within keep that, and the range brings it.
  const put = files.flatMap(([file, [any]]): readonly ImportRow[] => {
    if (any === undefined) return [];
    const here = marks.filter((mark) => mark.file === file);
    const own = nested.flatMap((each) => dividedAt([{ ...any, prefix: '', through: 0 }, ...here], each));
    return [...own, { ...any, prefix, through: 0 }];
  });
  return { removed: leavingMarks(marks, range), put: [...put, ...come] };
}

function dividedAt(ofFile: readonly ImportRow[], prefix: string): readonly ImportRow[] {
  const mark = longest(ofFile.filter((each) => prefix.startsWith(each.prefix)));
  return mark === undefined || mark.prefix === prefix ? [] : [{ ...mark, prefix }];
}

function longest(marks: readonly ImportRow[]): ImportRow | undefined {
  return marks.reduce<ImportRow | undefined>(
    (best, mark) => (best === undefined || mark.prefix.length >= best.prefix.length ? mark : best),
    undefined,
  );
}

function byFile(marks: readonly ImportRow[]): (readonly [string, readonly ImportRow[]])[] {
  return [...Map.groupBy(marks, ({ file }) => file)];
}
