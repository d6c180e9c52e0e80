import { hash } from 'node:crypto';

/**
 * Merkle root, format 1, over the rows of a table: a leaf is the SHA-256 of the canonical bytes (canonical.ts) of
 * `leafRows` rows one after the other in key order, the last leaf of fewer; above them
 *
 *     root of one leaf     the leaf
 *     root of n leaves     SHA-256 of a byte 1, the root of the first k leaves and the root of the others, where k is the
 *                          largest power of two below n
 *     root of no rows      the leaf of no bytes
 *
 * Canonical bytes never begin with a byte 1, so no leaf can be taken for what is above it. The shape is that of RFC 6962.
 */
export const leafRows = 4_096;

export function merkleRoot(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (only === undefined) return hash('sha256', Buffer.alloc(0), 'buffer');
  if (leaves.length === 1) return only;
  let left = 1;
  while (2 * left < leaves.length) left *= 2;
  const above = Buffer.concat([Buffer.from([1]), merkleRoot(leaves.slice(0, left)), merkleRoot(leaves.slice(left))]);
  return hash('sha256', above, 'buffer');
}
