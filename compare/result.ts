import type { EncodedKey } from '../store/canonical.ts';

/** Why nothing can be said of a copy. */
export type InconclusiveReason =
  | 'unreachable'
  | 'mark-not-reached'
  | 'snapshot-not-opened'
  | 'snapshot-closed'
  | 'error'
  | 'garbage'
  | 'format-differs'
  | 'no-other-copy'
  | 'rules-unreadable'
  | 'not-covered';

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

interface Place {
  readonly node: string;
  readonly group: string;
  readonly table: string;
  /** Key columns and their values, masked; empty for a fault of the file. */
  readonly key: Readonly<Record<string, string>>;
}

/** A row as the copies have it: what a repair goes by. Of derived columns: only the node's own (`digestOfValues`). */
export interface RowAsFound {
  /** The key itself; null where masking hides some of it: then a report cannot name the row to anybody. */
  readonly exactKey: EncodedKey | null;
  /** Index of the mark at which it was found. */
  readonly markIndex: number;
  /** Digest of the row at each node that was asked, in base64; null: it has no such row. */
  readonly copies: readonly { readonly node: string; readonly digest: string | null }[];
  /** The nodes whose copy is right, in the order of the sides; none when only the log's entries tell what is right. */
  readonly right: readonly string[];
}

export interface UnexpectedColumn {
  readonly column: string;
  readonly here: string;
  readonly expected: string;
}

/**
 * What is wrong in one copy. A row is only-here, missing-here or differs in columns beside the copies that are right.
 * wrong-fold: most copies have the row so, and it is not what the log's entries add up to. derived-differs: a column
 * that the node has made for itself is not what the rewrite rules make of the row there. broken-chain: the entry's hash
 * does not follow from the entry before it, or the entry is not there. damaged: the file's pages contradict each other,
 * or cannot be read; no row is named.
 */
export type Difference = Place &
  (
    | { readonly kind: 'broken-chain' }
    | { readonly kind: 'only-here' | 'missing-here'; readonly row?: RowAsFound }
    | { readonly kind: 'columns-differ'; readonly columns: readonly ColumnDifference[]; readonly row?: RowAsFound }
    | { readonly kind: 'wrong-fold'; readonly columns: readonly UnexpectedColumn[]; readonly row?: RowAsFound }
    | { readonly kind: 'derived-differs'; readonly columns: readonly UnexpectedColumn[]; readonly row?: RowAsFound }
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
  /** The stretches of keys that were compared, in key order, each at a mark of its own. */
  readonly slices?: readonly SliceResult[];
}

/** Keys of a table that were compared at one mark. */
export interface SliceResult {
  /** Key columns' values, masked; null: from the table's first row, to its last one. */
  readonly after: readonly string[] | null;
  readonly through: readonly string[] | null;
  readonly markIndex: number;
  readonly rows: number;
  readonly blocks: number;
  /** Positions of the blocks that differ, from 0. */
  readonly unequalBlocks: readonly number[];
  /** Hex; SHA-256 Merkle root over the canonical rows as the reference has them (docs/COMPARE.md). */
  readonly root: string;
}

export interface GroupResult {
  readonly group: string;
  /** The index at which the copies were compared (R14). */
  readonly markIndex: number;
  readonly tables: readonly TableResult[];
  readonly outcomes: readonly Outcome[];
  /** Bytes of all answers as JSON. */
  readonly replyBytes: number;
}
