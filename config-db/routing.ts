import { assert } from '../base/errors.ts';
import type { PanRangeRow } from './rows.ts';

/**
 * Which range a card number is in: the longest prefix wins, and the catch-all ('') takes what no other does, so every
 * card has a range. Immutable: a changed configuration makes a new table. One map for each prefix length in use, so a
 * lookup costs as many probes as there are lengths (2 or 3), however many ranges there are.
 */
export class RangeTable<Row extends { readonly prefix: string } = PanRangeRow> {
  readonly #byLength: readonly { readonly length: number; readonly rows: ReadonlyMap<string, Row> }[];
  readonly #catchAll: Row;

  /** The rows must be a valid configuration's: prefixes differ, exactly one is ''. */
  constructor(rows: Iterable<Row>) {
    const byLength = new Map<number, Map<string, Row>>();
    let catchAll: Row | undefined;
    for (const row of rows) {
      if (row.prefix === '') {
        assert(catchAll === undefined, 'one range is the catch-all');
        catchAll = row;
        continue;
      }
      const ofLength = byLength.get(row.prefix.length) ?? new Map<string, Row>();
      assert(!ofLength.has(row.prefix), 'prefixes of ranges differ');
      byLength.set(row.prefix.length, ofLength.set(row.prefix, row));
    }
    assert(catchAll !== undefined, 'the ranges have a catch-all');
    this.#catchAll = catchAll;
    this.#byLength = [...byLength]
      .map(([length, ofLength]) => ({ length, rows: ofLength }))
      .sort((one, other) => other.length - one.length);
  }

  /** The range of a card number, or of its leading digits as far as they are known. */
  find(digits: string): Row {
    for (const { length, rows } of this.#byLength) {
      if (length > digits.length) continue;
      const row = rows.get(digits.slice(0, length));
      if (row !== undefined) return row;
    }
    return this.#catchAll;
  }

  get catchAll(): Row {
    return this.#catchAll;
  }
}
