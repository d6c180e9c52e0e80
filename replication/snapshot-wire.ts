import { crc32 } from 'node:zlib';

import { isIdentifier, type GroupId } from '../base/identifiers.ts';
import type { LogPosition } from '../store/entry.ts';
import type { SnapshotEnd, SnapshotHeader, SnapshotTable } from '../store/group-snapshot.ts';
import type { Holding } from '../store/snapshot-shelf.ts';

/*
 * What travels on the channel `snapshot`, one message in a datagram; what the messages mean is told in
 * snapshot-transfer.ts.
 *
 *   4 bytes  CRC-32 of everything that follows, big-endian
 *   4 bytes  length of the header
 *   header   JSON: {version, ...message without bytes}
 *   bytes    of a chunk; else nothing
 */

export type SnapshotMessage = { readonly group: GroupId } & (
  | { readonly kind: 'begin'; readonly attempt: string; readonly holding: Holding }
  | {
      readonly kind: 'header';
      readonly attempt: string;
      readonly transfer: string;
      readonly header: SnapshotHeader;
    }
  | { readonly kind: 'unavailable'; readonly attempt: string; readonly reason: string }
  | { readonly kind: 'want'; readonly transfer: string; readonly chunks: readonly number[] }
  | {
      readonly kind: 'chunk';
      readonly transfer: string;
      readonly chunk: number;
      /** With the last one. */
      readonly end: SnapshotEnd | null;
      readonly bytes: Buffer;
    }
  | { readonly kind: 'gone'; readonly transfer: string }
  | { readonly kind: 'done'; readonly transfer: string }
);

const wireVersion = 1;
const crcBytes = 4;
const prefixBytes = 8;
/** Chunks that one message asks for at most. */
export const maximumWanted = 64;

export function encodeSnapshotMessage(message: SnapshotMessage): Buffer {
  const { bytes, ...rest } = { bytes: Buffer.alloc(0), ...message };
  const header = Buffer.from(JSON.stringify({ version: wireVersion, ...rest }));
  const datagram = Buffer.concat([Buffer.alloc(prefixBytes), header, bytes]);
  datagram.writeUInt32BE(header.length, crcBytes);
  datagram.writeUInt32BE(crc32(datagram.subarray(crcBytes)));
  return datagram;
}

/** The message; undefined when it is not one of ours, is of another version or is damaged. */
export function decodeSnapshotMessage(datagram: Buffer): SnapshotMessage | undefined {
  try {
    if (crc32(datagram.subarray(crcBytes)) !== datagram.readUInt32BE(0)) return undefined;
    const headerEnd = prefixBytes + datagram.readUInt32BE(crcBytes);
    const content = JSON.parse(datagram.toString('utf8', prefixBytes, headerEnd)) as Record<string, unknown>;
    if (content['version'] !== wireVersion || !isText(content['group']) || !isIdentifier(content['group'])) {
      return undefined;
    }
    const { version: _, ...message } = content;
    const kind = message['kind'] as SnapshotMessage['kind'];
    if (!Object.hasOwn(shapes, kind) || !shapes[kind](message)) return undefined;
    // A copy: the datagram's memory may be part of a much larger buffer.
    const bytes = kind === 'chunk' ? { bytes: Buffer.from(datagram.subarray(headerEnd)) } : {};
    return { ...message, ...bytes } as unknown as SnapshotMessage;
  } catch {
    return undefined;
  }
}

type Content = Readonly<Record<string, unknown>>;

/** Whether a message has the parts of its kind: what a broken or forged peer sends may not be kept. */
const shapes: Readonly<Record<SnapshotMessage['kind'], (message: Content) => boolean>> = {
  begin: (message) => isText(message['attempt']) && ['log', 'log-and-fold'].includes(message['holding'] as string),
  header: (message) => isText(message['attempt']) && isText(message['transfer']) && isHeader(message['header']),
  unavailable: (message) => isText(message['attempt']) && typeof message['reason'] === 'string',
  want: (message) =>
    isText(message['transfer']) && isList(message['chunks'], isCount) && message['chunks'].length <= maximumWanted,
  chunk: (message) =>
    isText(message['transfer']) && isCount(message['chunk']) && (message['end'] === null || isEnd(message['end'])),
  gone: (message) => isText(message['transfer']),
  done: (message) => isText(message['transfer']),
};

/** A name of ours; no longer than one can be. */
function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= 128;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isList<Item>(value: unknown, isItem: (item: unknown) => item is Item): value is readonly Item[] {
  return Array.isArray(value) && value.every(isItem);
}

function isRecord(value: unknown): value is Content {
  return typeof value === 'object' && value !== null;
}

function isEnd(value: unknown): value is SnapshotEnd {
  return isRecord(value) && isCount(value['chunks']) && isText(value['sha256']);
}

function isPosition(value: unknown): value is LogPosition {
  return isRecord(value) && isCount(value['index']) && isCount(value['term']) && isText(value['hash']);
}

function isTable(value: unknown): value is SnapshotTable & { readonly rows: number } {
  return isRecord(value) && isText(value['name']) && isList(value['columns'], isText) && isCount(value['rows']);
}

function isHeader(value: unknown): value is SnapshotHeader {
  if (!isRecord(value)) return false;
  const { format, cluster, group, position, membership, tables } = value;
  const hasMembership =
    membership === null ||
    (isRecord(membership) && isCount(membership['index']) && typeof membership['body'] === 'string');
  return (
    isCount(format) &&
    isText(cluster) &&
    isText(group) &&
    isPosition(position) &&
    hasMembership &&
    isList(tables, isTable)
  );
}
