import type { EncodedKey, KeyRange } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import {
  answerOf,
  inParallel,
  ofEach,
  type BlockDigests,
  type DigestWidth,
  type RangeOfBlocks,
  type SideCaller,
} from './caller.ts';
import type { Leaves } from './leaves.ts';
import { limits } from './protocol.ts';

/** A range in which these sides differ from the reference, which has `rows` rows there. */
export interface Suspect {
  readonly range: KeyRange;
  readonly rows: number;
  readonly sides: readonly { readonly side: SideCaller; readonly empty: boolean }[];
}

interface BlocksOfSide {
  readonly side: SideCaller;
  readonly blocks: BlockDigests;
}

/** Answers that the reference is ahead of the slowest side. */
const answersAhead = 4;
const noBlocks: BlockDigests = { ends: [], digests: [], rows: [], leaves: [] };

/** Those of the reference's blocks, the first one after `after`, that others have otherwise. */
function unequalIn(after: EncodedKey | null, own: BlockDigests, others: readonly BlocksOfSide[]): Suspect[] {
  return own.ends.flatMap((through, at) => {
    const sides = others
      .filter(({ blocks }) => blocks.digests[at] !== own.digests[at])
      .map(({ side, blocks }) => ({ side, empty: blocks.rows[at] === 0 }));
    const range = { after: at === 0 ? after : (own.ends[at - 1] ?? null), through };
    return sides.length === 0 ? [] : [{ range, rows: own.rows[at] ?? 0, sides }];
  });
}

/** As many together as one call may ask for: ranges, and rows in them. */
export function batchesOf(suspects: readonly Suspect[], mostRows: number): Suspect[][] {
  const batches: Suspect[][] = [];
  let rows = Infinity;
  for (const suspect of suspects) {
    const batch = batches.at(-1);
    if (batch === undefined || rows + suspect.rows > mostRows || batch.length >= limits.ranges) {
      batches.push([suspect]);
      rows = suspect.rows;
    } else {
      batch.push(suspect);
      rows += suspect.rows;
    }
  }
  return batches;
}

export interface SearchOptions {
  readonly table: TableSpecification;
  readonly reference: SideCaller;
  /** Rows of a block, the largest first. */
  readonly blockSizes: readonly number[];
  /** Of a log: the indexes that the range's entries have, if none is missing; the first one excluded. */
  readonly even?: { readonly from: number; readonly through: number } | undefined;
  readonly workers: number;
  /** Takes the leaves of the reference's largest blocks, in key order for each range that is begun. */
  readonly leaves?: Pick<Leaves, 'begin'> | undefined;
  /** Told the largest blocks of the reference, as they come. */
  readonly onBlocks: (blocks: BlockDigests) => void;
}

/**
 * Finds where sides differ from the reference: the blocks of a range that do, then the smaller parts of these. Throws
 * SideFailed when the reference fails; a side that fails is left out.
 */
export class BlockSearch {
  readonly #options: SearchOptions;
  readonly #table: TableSpecification;
  readonly #reference: SideCaller;

  constructor(options: SearchOptions) {
    this.#options = options;
    this.#table = options.table;
    this.#reference = options.reference;
  }

  /** The blocks of the range that differ, in key order. */
  async setAside(range: KeyRange, sides: readonly SideCaller[]): Promise<Suspect[]> {
    const { even, workers } = this.#options;
    if (even !== undefined) return this.#unequalEvenBlocks(range, even, sides);
    const cuts = workers === 1 ? [] : await this.#reference.split(this.#table.name, range, workers);
    const ends = [...cuts, range.through];
    const parts = ends.map((through, at) => ({ after: at === 0 ? range.after : (ends[at - 1] ?? null), through }));
    return (await Promise.all(parts.map((part) => this.#unequalBlocks(part, sides)))).flat();
  }

  get #widthOfReference(): DigestWidth {
    return this.#options.leaves === undefined ? 'whole' : 'with-leaves';
  }

  get #largestSize(): number {
    return this.#options.blockSizes[0] ?? 1_024;
  }

  /** Where the ends of blocks are known, all sides go through the range for themselves, none waits for another. */
  async #unequalEvenBlocks(
    range: KeyRange,
    { from, through }: { readonly from: number; readonly through: number },
    sides: readonly SideCaller[],
  ): Promise<Suspect[]> {
    const size = this.#largestSize;
    const step = size * Math.max(1, Math.floor(limits.digestedRows / size));
    const pages: RangeOfBlocks[] = [];
    for (let at = from; pages.length === 0 || at < through; at += step) {
      pages.push({ after: at === from ? range.after : [`i${at}`], even: [at, Math.min(at + step, through)] });
    }
    const answers = await ofEach([this.#reference, ...sides], (side) =>
      inParallel(pages, this.#options.workers, async (page) => {
        const width = side === this.#reference ? this.#widthOfReference : 'whole';
        const [blocks] = await side.digests(this.#table.name, [page], size, width);
        if (blocks === undefined) throw new RangeError('one answer for one range');
        if (side === this.#reference) this.#options.onBlocks(blocks);
        return blocks;
      }),
    );
    const ofReference = answerOf(this.#reference, answers);
    this.#options.leaves?.begin(range.after)(ofReference.flatMap(({ leaves }) => leaves));
    const others = answers.filter(({ side }) => side !== this.#reference);
    return pages.flatMap(({ after }, at) =>
      unequalIn(
        after,
        ofReference[at] ?? noBlocks,
        others.map(({ side, answer }) => ({ side, blocks: answer[at] ?? noBlocks })),
      ),
    );
  }

  /** The reference goes ahead, by a few answers at most; the others follow, each at its own pace. */
  async #unequalBlocks(range: KeyRange, sides: readonly SideCaller[]): Promise<Suspect[]> {
    const size = this.#largestSize;
    const suspects: Promise<Suspect[]>[] = [];
    const tails = new Map<SideCaller, Promise<unknown>>();
    const take = this.#options.leaves?.begin(range.after);
    for (let { after } = range; ;) {
      const start = after;
      const [page] = await this.#reference.blocks(
        this.#table.name,
        [{ after, through: range.through }],
        size,
        this.#widthOfReference,
      );
      if (page === undefined) throw new RangeError('one answer for one range');
      this.#options.onBlocks(page);
      take?.(page.leaves);
      const answers = ofEach(sides, (side) => {
        const answer = (tails.get(side) ?? Promise.resolve()).then(async () => {
          const [blocks = noBlocks] = await side.digests(this.#table.name, [{ after: start, ends: page.ends }], size);
          return blocks;
        });
        tails.set(
          side,
          answer.catch(() => undefined),
        );
        return answer;
      });
      suspects.push(
        answers.then((all) =>
          unequalIn(
            start,
            page,
            all.map(({ side, answer }) => ({ side, blocks: answer })),
          ),
        ),
      );
      // An error of ours is met where all are awaited.
      suspects.at(-1)?.catch(() => undefined);
      await suspects.at(-answersAhead);
      if (page.done) return (await Promise.all(suspects)).flat();
      after = page.ends.at(-1) ?? null;
    }
  }

  /** The smallest parts of these in which they differ, in key order, but for those that `isKnownEnough` leaves out. */
  async lookInto(
    suspects: readonly Suspect[],
    isKnownEnough: (suspect: Suspect) => boolean,
  ): Promise<readonly Suspect[]> {
    let smaller = suspects.filter((suspect) => !isKnownEnough(suspect));
    for (const size of this.#options.blockSizes.slice(1)) {
      smaller = (await this.#cut(smaller, size)).filter((suspect) => !isKnownEnough(suspect));
    }
    return smaller;
  }

  /** The parts of `size` rows in which they differ; what is no larger stays as it is. */
  async #cut(open: readonly Suspect[], size: number): Promise<Suspect[]> {
    const parts = new Map<Suspect, readonly Suspect[]>();
    const large = open.filter(({ rows }) => rows > size);
    for (const batch of batchesOf(large, limits.digestedRows)) {
      const found = await this.#cutTogether(batch, size);
      batch.forEach((suspect, at) => {
        const smaller = found[at] ?? [];
        // Two parts may agree in brief digests by chance: where nothing was found its rows are looked at one by one.
        const unexplained = suspect.sides.filter(
          ({ side }) =>
            side.failure === undefined && !smaller.some(({ sides }) => sides.some((each) => each.side === side)),
        );
        parts.set(
          suspect,
          unexplained.length === 0 ? smaller : [...smaller, { ...suspect, sides: unexplained, rows: 0 }],
        );
      });
    }
    return open.flatMap((suspect) => parts.get(suspect) ?? [suspect]);
  }

  async #cutTogether(batch: readonly Suspect[], size: number): Promise<Suspect[][]> {
    const table = this.#table.name;
    const found: Suspect[][] = batch.map(() => []);
    const note = (at: number, after: EncodedKey | null, own: BlockDigests, others: readonly BlocksOfSide[]): void => {
      found[at]?.push(...unequalIn(after, own, others));
    };
    const sides = [...new Set(batch.flatMap((suspect) => suspect.sides.map(({ side }) => side)))];
    const isAsked = (side: SideCaller, suspect: Suspect | undefined): boolean =>
      side === this.#reference || suspect?.sides.some((each) => each.side === side) === true;
    const even = batch.map(({ range }) => this.#evenRange(range));
    if (even.every((each) => each !== undefined)) {
      const answers = await ofEach([this.#reference, ...sides], async (side) => {
        const asked = even.filter((_, at) => isAsked(side, batch[at]));
        const blocks = await side.digests(table, asked, size, 'brief');
        return new Map(asked.map((range, at) => [range, blocks[at] ?? noBlocks]));
      });
      const own = answerOf(this.#reference, answers);
      even.forEach((range, at) => {
        const others = answers.filter(({ side, answer }) => side !== this.#reference && answer.has(range));
        note(
          at,
          range.after,
          own.get(range) ?? noBlocks,
          others.map(({ side, answer }) => ({ side, blocks: answer.get(range) ?? noBlocks })),
        );
      });
      return found;
    }
    let left = batch.map(({ range }, at) => ({ at, range }));
    while (left.length > 0) {
      const pages = await this.#reference.blocks(
        table,
        left.map(({ range }) => range),
        size,
        'brief',
      );
      const asked = left.map(({ at, range: { after } }, index) => ({
        at,
        after,
        own: pages[index] ?? { ...noBlocks, done: true },
      }));
      const answers = await ofEach(sides, async (side) => {
        const mine = asked.filter(({ at }) => isAsked(side, batch[at]));
        const blocks =
          mine.length === 0
            ? []
            : await side.digests(
                table,
                mine.map(({ after, own }) => ({ after, ends: own.ends })),
                size,
                'brief',
              );
        return new Map(mine.map(({ at }, index) => [at, blocks[index] ?? noBlocks]));
      });
      for (const { at, after, own } of asked) {
        const others = answers.filter(({ answer }) => answer.has(at));
        note(
          at,
          after,
          own,
          others.map(({ side, answer }) => ({ side, blocks: answer.get(at) ?? noBlocks })),
        );
      }
      left = asked
        .filter(({ own }) => !own.done)
        .map(({ at, own }) => ({
          at,
          range: { after: own.ends.at(-1) ?? null, through: batch[at]?.range.through ?? null },
        }));
    }
    return found;
  }

  /** A range of a log, whose blocks' ends need not be asked for. */
  #evenRange({ after, through }: KeyRange): RangeOfBlocks | undefined {
    const { even } = this.#options;
    const [from, to] = [after?.[0] ?? `i${even?.from ?? 0}`, through?.[0] ?? `i${even?.through ?? 0}`];
    return even === undefined ? undefined : { after, even: [Number(from.slice(1)), Number(to.slice(1))] };
  }
}
