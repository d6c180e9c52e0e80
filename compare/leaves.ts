import { compareKeys, leafOf, type EncodedKey } from '../store/canonical.ts';
import { merkleRoot } from '../store/merkle.ts';

/** What of a table is in a report as evidence: anybody who has the rows can make the root again (store/merkle.ts). */
export interface TableEvidence {
  /** SHA-256, in hex. */
  readonly root: string;
  readonly leaves: number;
  /** Keys after which leaves were begun anew, because ranges of keys were compared one by one; null: the table's start. */
  readonly ranges: readonly (EncodedKey | null)[];
}

const noRows = leafOf(Buffer.alloc(0));

/** Leaves of the reference's rows as they come in, by the range of keys that they are of. */
export class Leaves {
  readonly #ranges: { readonly after: EncodedKey | null; readonly leaves: Buffer[] }[] = [];

  /** A range is begun; takes its leaves, in key order. Ranges may come in any order, and at the same time. */
  begin(after: EncodedKey | null): (leaves: readonly Buffer[]) => void {
    const range = { after, leaves: [] as Buffer[] };
    this.#ranges.push(range);
    return (leaves) => void range.leaves.push(...leaves.filter((leaf) => !leaf.equals(noRows)));
  }

  evidence(): TableEvidence {
    const ranges = this.#ranges.filter(({ leaves }) => leaves.length > 0);
    ranges.sort((one, other) =>
      one.after === null || other.after === null
        ? Number(one.after !== null) - Number(other.after !== null)
        : compareKeys(one.after, other.after),
    );
    const leaves = ranges.flatMap((range) => range.leaves);
    const root = merkleRoot(leaves).toString('hex');
    return { root, leaves: leaves.length, ranges: ranges.map(({ after }) => after) };
  }
}
