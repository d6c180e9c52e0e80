import { maskCardData } from '../base/pan.ts';
import { compareKeys, showValue, type EncodedKey, type KeyRange } from '../store/canonical.ts';
import type { TableSpecification } from '../store/snapshot-reader.ts';
import { batchesOf, BlockSearch, type Suspect } from './block-search.ts';
import {
  answerOf,
  inParallel,
  ofEach,
  SideFailed,
  type RowOfSide,
  type RowsOfSide,
  type SideCaller,
} from './caller.ts';
import type { Leaves } from './leaves.ts';
import { limits } from './protocol.ts';
import type { ColumnDifference, Difference, RowAsFound, TableResult } from './result.ts';

export interface TableOptions {
  readonly group: string;
  readonly table: TableSpecification;
  /** Two copies or more; the first one is the reference: it sets the blocks, and it is right when votes are equal. */
  readonly sides: readonly SideCaller[];
  /** The fold as the log's entries make it: right whatever the copies have. */
  readonly expected?: SideCaller | undefined;
  /** Rows of a block, the largest first; below the last size rows are compared one by one. */
  readonly blockSizes: readonly number[];
  /** Differences that are listed; beyond them they are counted. */
  readonly maximumListed: number;
  /** Of a log: the stretch whose hash chain is recomputed; undefined: none. */
  readonly chain: LogStretch | undefined;
  /** Told how many rows of the reference have been compared by blocks. */
  readonly onRows?: (rows: number) => void;
  /** Only rows with these keys; default all. */
  readonly range?: KeyRange;
  /** Of a log: the indexes that the range's entries have, if none is missing; the first one excluded. */
  readonly even?: { readonly from: number; readonly through: number } | undefined;
  /** Calls that each side has at a time, for parts of the table. */
  readonly workers: number;
  /** Collects what the Merkle root is made of; undefined: nobody wants one. */
  readonly leaves?: Leaves | undefined;
}

/** Entries after an index, up to another one or to the end. */
export interface LogStretch {
  readonly after: number;
  readonly through: number | undefined;
}

/** Blocks that are looked into together: bounds what is known of them at a time where everything differs. */
const suspectsAtOnce = 32;
const noRows: RowsOfSide = { rows: [], done: true };

interface Finding {
  readonly key: EncodedKey;
  /** The copies that are right, and the digest of what they have; undefined: no row. */
  readonly right: readonly SideCaller[];
  readonly digest: string | undefined;
  /** The recomputed fold, where most copies have something else. */
  readonly expected: SideCaller | undefined;
  readonly wrong: readonly {
    readonly side: SideCaller;
    readonly kind: RowDifferenceKind;
    readonly digest: string | undefined;
  }[];
}

type RowDifferenceKind = 'only-here' | 'missing-here' | 'columns-differ' | 'wrong-fold';

/**
 * One table of all sides, from blocks down to columns; the protocol is told in protocol.ts.
 *
 * Right is, row by row, what most copies have; with as many on both sides, what the reference has. In a log the copies
 * whose hash chain verifies come before all others. A side that fails is left out of what is still to be judged, its
 * failure tells so; when the reference fails, the SideFailed is thrown and the table must be begun anew.
 */
export async function compareTable(options: TableOptions): Promise<TableResult> {
  return new TablePass(options).run();
}

class TablePass {
  readonly #options: TableOptions;
  readonly #table: TableSpecification;
  readonly #reference: SideCaller;
  readonly #differences: Difference[] = [];
  /** Nodes whose log's hash chain does not verify. */
  readonly #broken = new Set<string>();
  /** Where: `node index`. */
  readonly #faults = new Set<string>();
  readonly #nodesThatDiffer = new Set<string>();
  #pending: Finding[] = [];
  #unlisted = 0;
  #rows = 0;
  #blocks = 0;
  readonly #search: BlockSearch;

  constructor(options: TableOptions) {
    const [reference] = options.sides;
    if (reference === undefined) throw new RangeError('a table is compared between sides');
    this.#options = options;
    this.#table = options.table;
    this.#reference = reference;
    this.#search = new BlockSearch({
      ...options,
      reference,
      onBlocks: (blocks) => {
        this.#rows += blocks.rows.reduce((sum, each) => sum + each, 0);
        this.#blocks += blocks.ends.length;
        options.onRows?.(this.#rows);
      },
    });
  }

  async run(): Promise<TableResult> {
    const { range = { after: null, through: null }, chain } = this.#options;
    const { sides, expected } = this.#options;
    const others = expected === undefined ? sides.slice(1) : [...sides.slice(1), expected];
    const suspects = await this.#search.setAside(range, others);
    if (chain !== undefined) await this.#verifyChains(suspects, chain);
    for (let at = 0; at < suspects.length; at += suspectsAtOnce) {
      await this.#lookInto(suspects.slice(at, at + suspectsAtOnce));
    }
    await this.#describe();
    return {
      table: this.#table.name,
      reference: this.#reference.node,
      rows: this.#rows,
      blocks: this.#blocks,
      blocksThatDiffer: suspects.length,
      differences: this.#differences,
      unlisted: this.#unlisted,
      nodesThatDiffer: [...this.#nodesThatDiffer],
    };
  }

  /** From blocks down to rows: all of these with each step, so that a step is a call or two. */
  async #lookInto(suspects: readonly Suspect[]): Promise<void> {
    const smaller = await this.#search.lookInto(suspects, (suspect) => this.#isKnownEnough(suspect));
    for (const batch of batchesOf(smaller, limits.rows)) await this.#compareRows(batch);
  }

  /** Listing is over, and how many rows are missing is known: no more need travel. */
  #isKnownEnough(suspect: Suspect): boolean {
    if (!this.#isFull() || !suspect.sides.every(({ empty }) => empty)) return false;
    const lacking = new Set(suspect.sides.map(({ side }) => side));
    const votes = this.#voters().map((side) => ({ side, digest: lacking.has(side) ? undefined : 'present' }));
    this.#countUnlisted(wrongVotes(votes, this.#broken).wrong, suspect.rows);
    return true;
  }

  /** Asks each side once for the first rows of all of these, then walks one after the other. */
  async #compareRows(batch: readonly Suspect[]): Promise<void> {
    const sides = [...new Set(batch.flatMap((suspect) => suspect.sides.map(({ side }) => side)))];
    const table = this.#table.name;
    const answers = await ofEach([this.#reference, ...sides], async (side) => {
      const mine = batch.filter(
        (suspect) => side === this.#reference || suspect.sides.some((each) => each.side === side && !each.empty),
      );
      const rows =
        mine.length === 0
          ? []
          : await side.rows(
              table,
              mine.map(({ range }) => range),
            );
      return new Map(mine.map((suspect, at) => [suspect, rows[at]]));
    });
    answerOf(this.#reference, answers);
    for (const suspect of batch) {
      await this.#walk(suspect, (side) => answers.find((each) => each.side === side)?.answer.get(suspect));
    }
  }

  /** Walks the rows of the reference and of the sides that differ together, in key order. */
  async #walk({ range, sides }: Suspect, first: (side: SideCaller) => RowsOfSide | undefined): Promise<void> {
    const unequal = sides.filter(({ side }) => side.failure === undefined);
    const stream = (side: SideCaller, empty: boolean): RowStream =>
      new RowStream(side, this.#table.name, range, empty ? noRows : first(side));
    const reference = stream(this.#reference, false);
    const streams = unequal.map(({ side, empty }) => stream(side, empty));
    // What is not walked is as the reference: its block has the same digest.
    const alike = this.#voters().filter((side) => !unequal.some((each) => each.side === side));
    for (;;) {
      const heads = await ofEach(streams, (each) => each.head());
      const first = await reference.head();
      const lowest = [first, ...heads.map(({ answer }) => answer)].reduce(lowerRow, undefined);
      if (lowest === undefined) return;
      const take = (from: RowStream, head: RowOfSide | undefined): string | undefined => {
        if (head === undefined || compareKeys(head.key, lowest.key) !== 0) return undefined;
        from.advance();
        return head.digest;
      };
      const ofReference = take(reference, first);
      const { expected } = this.#options;
      const taken = heads.map(({ side: each, answer }): Vote => ({ side: each.side, digest: take(each, answer) }));
      // The reference is among those that are alike, and first.
      const votes: Vote[] = [
        ...alike.map((side) => ({ side, digest: ofReference })),
        ...taken.filter(({ side }) => side !== expected),
      ];
      const standing = expected?.failure === undefined ? expected : undefined;
      const wanted =
        standing && (taken.find(({ side }) => side === expected) ?? { side: standing, digest: ofReference });
      if ([...votes, ...(wanted ? [wanted] : [])].some(({ digest }) => digest !== ofReference)) {
        await this.#judge(lowest.key, votes, wanted);
      }
    }
  }

  async #judge(key: EncodedKey, votes: readonly Vote[], expected: Vote | undefined): Promise<void> {
    const most = wrongVotes(votes, this.#broken, this.#faultyAt(key)).right;
    const right = expected ?? most;
    const wrong = votes.filter(({ digest }) => digest !== right.digest);
    if (this.#isFull()) {
      this.#countUnlisted(wrong, 1);
      return;
    }
    const kindOf = ({ digest }: Vote): RowDifferenceKind => {
      if (right.digest !== most.digest) return 'wrong-fold';
      return digest === undefined ? 'missing-here' : right.digest === undefined ? 'only-here' : 'columns-differ';
    };
    this.#pending.push({
      key,
      right: votes.filter(({ digest }) => digest === right.digest).map(({ side }) => side),
      expected: right.digest === most.digest ? undefined : right.side,
      digest: right.digest,
      wrong: wrong.map((vote) => ({ ...vote, kind: kindOf(vote) })),
    });
    if (this.#pending.length >= limits.keys) await this.#describe();
  }

  /** Turns what is pending into differences, with the columns of the rows that differ. */
  async #describe(): Promise<void> {
    const findings = this.#pending;
    this.#pending = [];
    const rows = new Map<string, RowColumns>();
    const rightRow = (key: EncodedKey, right: readonly SideCaller[]): RowColumns =>
      right.map((side) => rows.get(rowName(side, key))).find((row) => row !== undefined) ?? null;
    // Again as long as one that was asked has failed and another one that is right can be asked instead.
    for (;;) {
      const wanted = new Map<SideCaller, EncodedKey[]>();
      for (const { key, right, digest, expected, wrong } of findings) {
        const differing = wrong
          .filter((each) => each.digest !== undefined && digest !== undefined)
          .map(({ side }) => side);
        const sources = witnesses(right, expected);
        const source = sources.find(({ failure }) => failure === undefined);
        const others = source === undefined || rightRow(key, sources) !== null ? [] : [source];
        for (const side of differing.length === 0 ? [] : [...others, ...differing]) {
          if (side.failure !== undefined || rows.has(rowName(side, key))) continue;
          wanted.set(side, [...(wanted.get(side) ?? []), key]);
        }
      }
      if (wanted.size === 0) break;
      await ofEach([...wanted], async ([side, keys]) => {
        for (let at = 0; at < keys.length;) {
          const found = await side.columns(this.#table.name, keys.slice(at));
          for (const row of found) rows.set(rowName(side, keys[at++] ?? []), row);
        }
      });
    }
    for (const { key, right, digest, expected, wrong } of findings) {
      const sources = digest === undefined ? [] : right.map(({ node }) => node);
      for (const { side, kind, digest: here } of wrong) {
        const row = rowAsFound({ key, here: here ?? null, right: digest ?? null, sources });
        const place = { node: side.node, ...this.#place(key), ...row };
        if (kind === 'only-here' || kind === 'missing-here') {
          this.#add({ ...place, kind });
          continue;
        }
        const columns = differingColumns(
          rows.get(rowName(side, key)) ?? null,
          rightRow(key, witnesses(right, expected)),
        );
        if (kind === 'columns-differ') {
          this.#add({ ...place, kind, columns });
        } else if (here === undefined || digest === undefined) {
          const [is, ought] = here === undefined ? ['absent', 'present'] : ['present', 'absent'];
          this.#add({ ...place, kind, columns: [{ column: 'row', here: is, expected: ought }] });
        } else {
          const unexpected = columns.map(({ column, here: is, others }) => ({ column, here: is, expected: others }));
          this.#add({ ...place, kind, columns: unexpected });
        }
      }
    }
  }

  /**
   * Recomputes the log's chain at the reference, which stands for all sides whose log is equal to it, and at every side
   * that differs.
   */
  async #verifyChains(suspects: readonly Suspect[], { after: start, through }: LogStretch): Promise<void> {
    const unequal = new Set(suspects.flatMap(({ sides }) => sides.map(({ side }) => side)));
    const { workers, even } = this.#options;
    const share = Math.ceil(((even?.through ?? start) - start) / workers);
    const parts = Array.from({ length: workers }, (_, at) => ({
      from: start + at * share,
      to: at === workers - 1 ? through : start + (at + 1) * share,
    }));
    const answers = await ofEach([this.#reference, ...unequal], async (side) => {
      const faults = await inParallel(parts, workers, async ({ from, to }) => {
        const indexes: number[] = [];
        for (let after: number | null = from; after !== null;) {
          const reply: Awaited<ReturnType<SideCaller['chain']>> = await side.chain(after, to);
          indexes.push(...reply.faults.map(({ index }) => index));
          after = reply.next;
        }
        return indexes;
      });
      return faults.flat();
    });
    if (this.#reference.failure !== undefined) throw new SideFailed(this.#reference, this.#reference.failure.message);
    for (const { side, answer } of answers) {
      const bearers = side === this.#reference ? this.#voters().filter((each) => !unequal.has(each)) : [side];
      for (const bearer of bearers) {
        for (const index of answer) {
          this.#broken.add(bearer.node);
          this.#faults.add(`${bearer.node} ${index}`);
          this.#add({ node: bearer.node, ...this.#place([`i${index}`]), kind: 'broken-chain' });
        }
      }
    }
  }

  /**
   * Nodes whose chain is broken at this entry: its hash does not follow, or the next one's does not follow from it. They
   * are asked for when no chain is whole: two entries that were changed at different nodes leave all of them broken, and
   * still most know what each entry was.
   */
  #faultyAt(key: EncodedKey): ReadonlySet<string> {
    if (this.#options.chain === undefined || this.#faults.size === 0) return new Set();
    const index = Number(key[0]?.slice(1));
    const nodes = this.#options.sides.map(({ node }) => node);
    return new Set(
      nodes.filter((node) => this.#faults.has(`${node} ${index}`) || this.#faults.has(`${node} ${index + 1}`)),
    );
  }

  #voters(): SideCaller[] {
    return this.#options.sides.filter(({ failure }) => failure === undefined);
  }

  #place(key: EncodedKey): Pick<Difference, 'group' | 'table' | 'key'> {
    const shown = this.#table.keyColumns.map((column, at) => [column, showKey(column, key[at] ?? 'n')]);
    return { group: this.#options.group, table: this.#table.name, key: Object.fromEntries(shown) as Difference['key'] };
  }

  #isFull(): boolean {
    return this.#differences.length + this.#pending.length >= this.#options.maximumListed;
  }

  #countUnlisted(wrong: readonly Vote[], rows: number): void {
    this.#unlisted += rows * wrong.length;
    for (const { side } of wrong) this.#nodesThatDiffer.add(side.node);
  }

  #add(difference: Difference): void {
    this.#nodesThatDiffer.add(difference.node);
    if (this.#differences.length < this.#options.maximumListed) this.#differences.push(difference);
    else this.#unlisted++;
  }
}

/** Who can say what the right row is. */
function witnesses(right: readonly SideCaller[], expected: SideCaller | undefined): readonly SideCaller[] {
  return expected === undefined ? right : [...right, expected];
}

export interface Vote {
  readonly side: SideCaller;
  readonly digest: string | undefined;
}

type RowColumns = readonly { readonly column: string; readonly digest: string; readonly shown: string }[] | null;

/**
 * Which vote is right, and whose are not: what most of those say whose chain is whole; where none is, of those who are not
 * faulty here. The first vote decides between equal numbers.
 */
export function wrongVotes(
  votes: readonly Vote[],
  broken: ReadonlySet<string>,
  faultyHere: ReadonlySet<string> = new Set(),
): { readonly right: Vote; readonly wrong: Vote[] } {
  const sound = votes.filter(({ side }) => !broken.has(side.node));
  const soundHere = votes.filter(({ side }) => !faultyHere.has(side.node));
  const heard = sound.length > 0 ? sound : soundHere.length > 0 ? soundHere : votes;
  const counts = new Map<string | undefined, number>();
  for (const { digest } of heard) counts.set(digest, (counts.get(digest) ?? 0) + 1);
  const most = Math.max(...counts.values());
  const right = heard.find(({ digest }) => counts.get(digest) === most);
  if (right === undefined) throw new RangeError('nobody voted');
  return { right, wrong: votes.filter(({ digest }) => digest !== right.digest) };
}

function differingColumns(here: RowColumns, others: RowColumns): ColumnDifference[] {
  // One of the two could not be read any more: that it differs is known, in what is not.
  if (here === null || others === null) return [];
  const shownOf = (row: NonNullable<RowColumns>, name: string) => row.find(({ column }) => column === name);
  const names = new Set([...here, ...others].map(({ column }) => column));
  return [...names].flatMap((column): ColumnDifference[] => {
    const [one, other] = [shownOf(here, column), shownOf(others, column)];
    return one?.digest === other?.digest
      ? []
      : [{ column, here: maskCardData(one?.shown ?? 'absent'), others: maskCardData(other?.shown ?? 'absent') }];
  });
}

/** Nothing, where the key may not be told: reports hold no card data. */
export function rowAsFound(row: RowAsFound): { readonly row?: RowAsFound } {
  return row.key.every((value) => maskCardData(value) === value) ? { row } : {};
}

/** Texts in keys are identifiers: they stand without quotes. */
function showKey(column: string, value: string): string {
  const shown = showValue(column, value);
  return value.startsWith('t') && value !== 't' ? shown.slice(1, -1) : shown;
}

function rowName(side: SideCaller, key: EncodedKey): string {
  return JSON.stringify([side.node, ...key]);
}

function lowerRow(one: RowOfSide | undefined, other: RowOfSide | undefined): RowOfSide | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return compareKeys(other.key, one.key) < 0 ? other : one;
}

/** Rows of a range at one side, fetched as they are needed. */
class RowStream {
  readonly side: SideCaller;
  readonly #table: string;
  readonly #through: EncodedKey | null;
  #after: EncodedKey | null;
  #rows: readonly RowOfSide[] = [];
  #at = 0;
  #done = false;

  /** `first`: its first rows, when they have been fetched. */
  constructor(side: SideCaller, table: string, range: KeyRange, first: RowsOfSide | undefined) {
    this.side = side;
    this.#table = table;
    this.#after = range.after;
    this.#through = range.through;
    if (first !== undefined) this.#take(first);
  }

  async head(): Promise<RowOfSide | undefined> {
    if (this.#at >= this.#rows.length && !this.#done) {
      const [page = noRows] = await this.side.rows(this.#table, [{ after: this.#after, through: this.#through }]);
      this.#take(page);
    }
    return this.#rows[this.#at];
  }

  #take({ rows, done }: RowsOfSide): void {
    this.#rows = rows;
    this.#at = 0;
    this.#done = done;
    this.#after = rows.at(-1)?.key ?? this.#after;
  }

  advance(): void {
    this.#at++;
  }
}
