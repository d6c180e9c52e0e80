import { hash } from 'node:crypto';

import type { GroupId } from '../base/identifiers.ts';
import type { MovedRow, RangeOfCards } from './entry.ts';

/** A range on its way out of the group or into it (R12), as far as this group's log says. */
export interface RangeMoveRow extends RangeOfCards {
  readonly move: string;
  readonly direction: 'out' | 'in';
  /** out: to where; in: from where. */
  readonly other: GroupId;
  /** Log index of the entry that began it here. */
  readonly index: number;
  /** Log index of the entry that ended it here: all cards have left, or all rows have come; 0: it is under way. */
  readonly endIndex: number;
  /** Entries that told of cards or rows, and the cards in them. */
  readonly parts: number;
  readonly cards: number;
  /** How far they have come (`RangeReader`). */
  readonly through: string;
  /** in: SHA-256 over the rows that have come. */
  readonly hash: string;
  /** The newest configuration that the move was begun or brought on by, at either group. */
  readonly configIndex: number;
}

/** Extends the hash of the rows before by these. */
export function hashOfRows(before: string, rows: readonly MovedRow[]): string {
  return hash('sha256', `${before}\n${JSON.stringify(rows)}`, 'hex');
}

/** Rows of one entry at most; a table of moved rows would need another way to number them beyond that. */
const maximumRows = 2 ** 20;

/**
 * What stands in the place of a log index in row `position` of a range-rows entry: unique in the group, in the order in
 * which the rows come, and before every entry of the group's own log. Index 0 stays what it is: none.
 */
export function movedIndex(index: number, position: number): bigint {
  return BigInt(index) * BigInt(maximumRows) + BigInt(position) - 2n ** 52n;
}

/** How many leading digits of a number are known without decrypting it (`Pan.bin`). */
export const binDigits = 8;

/**
 * Whether a card is in the range. `digits` is asked for the whole number only where the first eight do not say; undefined:
 * it cannot be read, and the card is taken for one of the range, so that it is not left behind without an owner.
 */
export function isInRange({ prefix, nested }: RangeOfCards, bin: string, digits: () => string | undefined): boolean {
  const has = (start: string): boolean => hasPrefix(start, bin, digits) ?? start === prefix;
  return has(prefix) && !nested.some(has);
}

/** Whether a card's number begins so; undefined: the first eight digits do not say, and the others cannot be read. */
export function hasPrefix(prefix: string, bin: string, digits: () => string | undefined): boolean | undefined {
  if (prefix.length <= binDigits) return bin.startsWith(prefix);
  return prefix.startsWith(bin) ? digits()?.startsWith(prefix) : false;
}
