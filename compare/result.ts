import type { EncodedKey } from '../store/canonical.ts';
import type { TableEvidence } from './leaves.ts';

/** Why nothing can be said of a copy. */
export type InconclusiveReason =
  | 'unreachable'
  | 'mark-not-reached'
  | 'snapshot-not-opened'
  | 'snapshot-closed'
  | 'damaged'
  | 'error'
  | 'garbage'
  | 'format-differs'
  | 'no-other-copy'
  | 'rules-unreadable'
  | 'not-covered'
  | 'not-recomputed';

export interface Inconclusive {
  readonly reason: InconclusiveReason;
  readonly message: string;
}

/** Of one table at one node, held against the other copies. */
export type Outcome = { readonly node: string; readonly table: string } & (
  { readonly outcome: 'equal' | 'different' } | ({ readonly outcome: 'inconclusive' } & Inconclusive)
);

export interface ColumnDifference {
  /** A column, or a property within one: `body.request.amount`. */
  readonly column: string;
  /** As it may be shown: card data masked. Two that read the same can differ where they are masked. */
  readonly here: string;
  /** What the copies that are right have. */
  readonly others: string;
}

/** What a repair goes by: it changes a row only where these digests are still those of the rows. */
export interface RowAsFound {
  /** As it is, not masked. */
  readonly key: EncodedKey;
  /**
   * Digests of the row's canonical bytes, here and where it is right; null: no such row. Of derived columns: of what
   * stands in them here, and of what the rules make.
   */
  readonly here: string | null;
  readonly right: string | null;
  /** The copies that have the right row; none when the node can make it by itself, or there is to be no row. */
  readonly sources: readonly string[];
}

interface Place {
  readonly node: string;
  readonly group: string;
  readonly table: string;
  /** Key columns and their values, masked; empty when the file is damaged and no row can be named. */
  readonly key: Readonly<Record<string, string>>;
  /** Absent when the key reads like card data, or no single row is what is wrong: then there is nothing to mend by row. */
  readonly row?: RowAsFound;
}

/**
 * What is wrong in one copy. A row is only-here, missing-here or differs in columns beside the copies that are right.
 * wrong-fold: copies agree on the row, and it is not what the log's entries add up to. derived-differs: a column that the
 * node has made for itself is not what the rewrite rules make of the row there. broken-chain: the entry's hash does not
 * follow from the entry before it, or the entry is not there. damaged: the file's pages contradict each other, or cannot
 * be read.
 */
export type Difference = Place &
  (
    | { readonly kind: 'only-here' | 'missing-here' | 'broken-chain' }
    | { readonly kind: 'columns-differ'; readonly columns: readonly ColumnDifference[] }
    | {
        readonly kind: 'derived-differs' | 'wrong-fold';
        readonly columns: readonly { readonly column: string; readonly here: string; readonly expected: string }[];
      }
    | { readonly kind: 'damaged'; readonly message: string }
  );

export interface TableResult {
  readonly table: string;
  /** Whose block boundaries were used; undefined when no node answered. */
  readonly reference: string | undefined;
  /** Rows and blocks of the reference. */
  readonly rows: number;
  readonly blocks: number;
  readonly blocksThatDiffer: number;
  readonly differences: readonly Difference[];
  /** Differences found beyond those listed. */
  readonly unlisted: number;
  /** The nodes that have any, listed or not. */
  readonly nodesThatDiffer: readonly string[];
  /** Of the reference's rows, when evidence was asked for. */
  readonly evidence?: TableEvidence;
}

/** A fold made anew from the log's entries up to the mark at one node, or why none could be: then copies alone were judged. */
export type Recomputation =
  { readonly node: string; readonly entries: number } | { readonly node: undefined; readonly message: string };

export interface GroupResult {
  readonly group: string;
  /** The index at which the copies were compared (R14). */
  readonly markIndex: number;
  /** Hash of the log's entry there, which covers all entries before it; undefined when nobody could tell. */
  readonly markHash?: string;
  /** Of `config`: the version of the rewrite rules that the derived columns were held against. */
  readonly ruleSetVersion?: number;
  readonly tables: readonly TableResult[];
  readonly outcomes: readonly Outcome[];
  /** What the folds were held against besides each other; undefined when nobody asked for it. */
  readonly recomputation?: Recomputation;
  /** Bytes of all answers as JSON. */
  readonly replyBytes: number;
}
