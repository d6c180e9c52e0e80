import { isUtf8 } from 'node:buffer';
import { hash } from 'node:crypto';

import { maskCardData } from '../base/pan.ts';

/**
 * Canonical bytes of a row, format 2. Two copies of a row are equal when these bytes are. For each column, in the order
 * of the table's specification and with nothing in between, by the storage class of the value itself, not of its column:
 *
 *     number   decimal, then ','. A real always has a point, an exponent or `Inf` in it, and 17 significant digits at
 *              most, which read back as the same number
 *     text     length in bytes, ':', the bytes (UTF-8 as stored, valid or not)
 *     blob     'x', length in bytes, ':', the bytes
 *     NULL     'n'
 *
 * Example: (1, 'n1', NULL, '', x'', 1.0) is `1,2:n1n0:x0:1.0,`. No value's bytes are a prefix of another's, so a block's
 * bytes, its rows' one after the other in key order, say where each row and column ends; neither page layout nor the
 * order of insertion is in them. A digest is the first 16 bytes of their SHA-256. docs/COMPARE.md has test vectors.
 * Only the file's own SQL (`canonicalSql`) makes them: a block in one query, because stepping through rows in
 * JavaScript costs several times as much.
 */
export const canonicalFormat = 2;

export const digestBytes = 16;

export function digestOf(bytes: Buffer): Buffer {
  return leafOf(bytes).subarray(0, digestBytes);
}

/** SHA-256 of a block's bytes, whole: a leaf of its table's Merkle tree. The block's digest is its beginning. */
export function leafOf(bytes: Buffer): Buffer {
  return hash('sha256', bytes, 'buffer');
}

/** Digest, in base64, of values that were read one by one: of a row's derived columns, which are in no block. */
export function digestOfValues(values: readonly EncodedValue[]): string {
  return digestOf(Buffer.from(JSON.stringify(values))).toString('base64');
}

/** Digest of a block without rows. */
export const emptyDigest = digestOf(Buffer.alloc(0)).toString('base64');

/** Columns of one concat() call: SQLite takes 127 arguments at least. */
const columnsPerCall = 30;

/** The storage class that a column is declared to have. */
export type DeclaredClass = 'number' | 'text';

/**
 * SQL expression of a row's canonical bytes, as text. With the declared classes of the columns it is faster, and makes
 * the same bytes whatever the values really are: it looks first. Comparing says a value's class without a call: in
 * SQLite's order numbers come before all text, text before all blobs, and NULL compares with nothing.
 */
export function canonicalSql(columns: readonly string[], declared?: readonly DeclaredClass[]): string {
  const names = columns.map(identifierSql);
  const any = concatSql(
    names.map((name) => [
      `CASE WHEN ${name} < '' THEN concat(${name}, ',') WHEN ${name} < x'' THEN concat(octet_length(${name}), ':', ${name})` +
        ` WHEN ${name} IS NULL THEN 'n' ELSE concat('x', octet_length(${name}), ':', ${name}) END`,
    ]),
  );
  if (declared === undefined) return any;
  const isText = (at: number): boolean => declared[at] === 'text';
  const asDeclared = names.map((name, at) => (isText(at) ? `${name} >= '' AND ${name} < x''` : `${name} < ''`));
  const parts = names.map((name, at) => (isText(at) ? [`octet_length(${name})`, "':'", name] : [name, "','"]));
  return `CASE WHEN ${asDeclared.join(' AND ')} THEN ${concatSql(parts)} ELSE ${any} END`;
}

function concatSql(parts: readonly (readonly string[])[]): string {
  const calls: string[] = [];
  for (let at = 0; at < parts.length; at += columnsPerCall) {
    calls.push(
      `concat(${parts
        .slice(at, at + columnsPerCall)
        .flat()
        .join(', ')})`,
    );
  }
  return calls.join(' || ');
}

export function identifierSql(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * One value as text that keeps its type, for keys and rows that travel: `n` null, `i17` integer, `r1.5` real,
 * `tabc` text, `u00ff` text that is not valid UTF-8 (hex), `b00ff` blob (hex).
 */
export type EncodedValue = string;

/** The values of a table's key columns. */
export type EncodedKey = readonly EncodedValue[];

/** Between keys, `after` excluded and `through` included; null: no bound. */
export interface KeyRange {
  readonly after: EncodedKey | null;
  readonly through: EncodedKey | null;
}

/** Reads a value so that `encodeValue` loses nothing: SQL for its storage class and its bytes. */
export function exactValueSql(column: string): string {
  const name = identifierSql(column);
  return `typeof(${name}), CASE typeof(${name}) WHEN 'text' THEN CAST(${name} AS BLOB) ELSE ${name} END`;
}

/** `type` and `value` as `exactValueSql` gives them, integers as bigint. */
export function encodeValue(type: unknown, value: unknown): EncodedValue {
  if (type === 'null') return 'n';
  if (type === 'integer') return `i${String(value)}`;
  if (type === 'real') return `r${String(value)}`;
  const bytes = value as Buffer;
  if (type === 'blob') return `b${bytes.toString('hex')}`;
  return isUtf8(bytes) ? `t${bytes.toString('utf8')}` : `u${bytes.toString('hex')}`;
}

/** The first `count` values of a row that was read by `exactValueSql`: types and values take turns. */
export function encodeRow(row: readonly SqlScalar[], count: number): EncodedValue[] {
  return Array.from({ length: count }, (_, at) => encodeValue(row[2 * at], row[2 * at + 1]));
}

/** Where `decodeValue` is bound: text that is not UTF-8 comes as bytes. */
export function parameterSql(value: EncodedValue): string {
  return value.startsWith('u') ? 'CAST(? AS TEXT)' : '?';
}

const encodedShape = /^(?:n|i-?[0-9]{1,19}|r(?:-?(?:[0-9.]+(?:e[+-]?[0-9]+)?|Infinity))|t[^]*|[ub](?:[0-9a-f]{2})*)$/;

export function isEncodedValue(text: string): boolean {
  return encodedShape.test(text);
}

export type SqlScalar = string | number | bigint | Buffer | null;

/** The value as SQLite takes it. Text that is not UTF-8 comes as a Buffer, to be bound as `CAST(? AS TEXT)`. */
export function decodeValue(encoded: EncodedValue): SqlScalar {
  const rest = encoded.slice(1);
  switch (encoded[0]) {
    case 'i':
      return BigInt(rest);
    case 'r':
      return Number(rest);
    case 't':
      return rest;
    case 'u':
    case 'b':
      return Buffer.from(rest, 'hex');
    default:
      return null;
  }
}

const classRanks: Readonly<Record<string, number>> = { n: 0, i: 1, r: 1, t: 2, u: 2, b: 3 };

/** SQLite's own order of values (binary collation): numbers, then text by its bytes, then blobs. */
export function compareKeys(one: EncodedKey, other: EncodedKey): number {
  for (let at = 0; at < Math.max(one.length, other.length); at++) {
    const result = compareValues(one[at] ?? 'n', other[at] ?? 'n');
    if (result !== 0) return result;
  }
  return 0;
}

function compareValues(one: EncodedValue, other: EncodedValue): number {
  if (one === other) return 0;
  const rank = (classRanks[one.charAt(0)] ?? 0) - (classRanks[other.charAt(0)] ?? 0);
  if (rank !== 0) return rank;
  const [left, right] = [decodeValue(one), decodeValue(other)];
  if (left === null || right === null) return 0;
  if (typeof left === 'string' || typeof left === 'object' || typeof right === 'string' || typeof right === 'object') {
    return Buffer.compare(bytesOf(left), bytesOf(right));
  }
  return left < right ? -1 : left > right ? 1 : 0;
}

function bytesOf(value: string | number | bigint | Buffer): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(String(value));
}

/** Columns, and properties of a log entry's body, of which nothing but a hash may be shown. */
const hidden: ReadonlySet<string> = new Set(['pan_hash', 'pan_cipher', 'panHash', 'panCipher']);

/** A shown value is cut beyond this many characters. */
const maximumShown = 300;

/**
 * A value as a report may show it: as SQL would write it, with card data masked. Never the whole truth: what decides
 * whether two values are equal is their digest.
 */
export function showValue(column: string, encoded: EncodedValue): string {
  if (hidden.has(column) && encoded !== 'n') return hashTag(encoded);
  const rest = encoded.slice(1);
  switch (encoded[0]) {
    case 'n':
      return 'NULL';
    case 'i':
      return showNumber(rest);
    case 'r':
      return maskCardData(rest);
    case 't': {
      const text = maskCardData(rest);
      return `'${text.length > maximumShown ? `${text.slice(0, maximumShown)}…` : text}'`;
    }
    default:
      // Bytes could be a card number in any encoding: they are not shown.
      return `${encoded.startsWith('u') ? 'invalid text' : 'blob'} of ${rest.length / 2} bytes, ${hashTag(encoded)}`;
  }
}

/** The first 8 hex digits of a hash: enough to see that two hidden values differ. */
function hashTag(encoded: EncodedValue): string {
  return `hash ${hash('sha256', encoded, 'hex').slice(0, 8)}`;
}

/** Times of our days in milliseconds are shown as such; they have 13 digits, and masked nobody could read them. */
function showNumber(digits: string): string {
  const number = Number(digits);
  if (number >= 1_500_000_000_000 && number < 2_500_000_000_000) return new Date(number).toISOString();
  return maskCardData(digits);
}

/** Beyond this many properties, or this depth, a JSON text is shown as a whole only. */
const maximumLeaves = 200;
const maximumDepth = 10;

/** The properties of a JSON text by their paths, as encoded values; none when it is no JSON object or a large one. */
export function leavesOf(text: string): readonly (readonly [path: string, value: EncodedValue])[] {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return [];
  }
  const leaves: [string, EncodedValue][] = [];
  const visit = (path: string, value: unknown, depth: number): void => {
    if (leaves.length > maximumLeaves) return;
    if (typeof value === 'object' && value !== null && depth < maximumDepth) {
      for (const [name, each] of Object.entries(value)) visit(path === '' ? name : `${path}.${name}`, each, depth + 1);
    } else if (typeof value === 'number') {
      leaves.push([path, Number.isInteger(value) ? `i${value}` : `r${value}`]);
    } else {
      leaves.push([path, value === null ? 'n' : `t${typeof value === 'string' ? value : JSON.stringify(value)}`]);
    }
  };
  if (typeof content === 'object' && content !== null) visit('', content, 0);
  return leaves.length > maximumLeaves ? [] : leaves;
}
