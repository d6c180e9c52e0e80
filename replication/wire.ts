import { crc32 } from 'node:zlib';

import type { GroupId } from '../base/identifiers.ts';
import { chainEntry, type LogEntry, type LogPosition } from '../store/entry.ts';
import type { Acknowledgement, CampaignReason, RaftMessage } from './raft.ts';

/*
 * What travels on the channel `raft`: messages of several groups to one peer in one datagram.
 *
 *   4 bytes  length of the header, big-endian
 *   4 bytes  CRC-32 of the header
 *   header   JSON: {version, topology, description?, messages: [{group, ...message, entries: [[term, bytes], ...],
 *            lastHash}, ...]}
 *   bodies   the entries' bodies, one after the other, in the header's order
 *
 * Entries travel without hashes: the receiver computes the chain from `previous` and holds its end against
 * `lastHash`, so a body that was damaged on the way is dropped with its datagram; a damaged header (a vote, a commit
 * index) by its checksum. Against forgery stands the broker, which proves the sender's identity.
 *
 * `topology` names the voters and sites that the sender's nodes.yaml has: who counts majorities of other voters is not
 * listened to. `description` says them in full, to a peer with other ones, so that the difference can be named.
 */

const wireVersion = 2;
const prefixBytes = 8;

interface WireMessage {
  readonly group: string;
  readonly kind: RaftMessage['kind'];
  readonly entries?: readonly (readonly [number, number])[];
  readonly previous?: LogPosition;
  readonly lastHash?: string;
  readonly acknowledged?: readonly Acknowledgement[];
}

export interface GroupMessage {
  readonly group: GroupId;
  readonly message: RaftMessage;
}

export interface GroupDatagram {
  readonly topology: string;
  readonly description: string | undefined;
  readonly messages: readonly GroupMessage[];
}

export function encodeGroupMessages(topology: string, messages: readonly GroupMessage[], description?: string): Buffer {
  const bodies: Buffer[] = [];
  const wire = messages.map(({ group, message }) => {
    if (message.kind !== 'append') return { group, ...message };
    const { index, term, hash } = message.previous;
    const entries = message.entries.map((entry) => {
      const body = Buffer.from(entry.body);
      bodies.push(body);
      return [entry.term, body.length];
    });
    return {
      group,
      ...message,
      previous: { index, term, hash },
      entries,
      lastHash: message.entries.at(-1)?.hash ?? '',
    };
  });
  const header = Buffer.from(JSON.stringify({ version: wireVersion, topology, description, messages: wire }));
  const prefix = Buffer.alloc(prefixBytes);
  prefix.writeUInt32BE(header.length);
  prefix.writeUInt32BE(crc32(header), 4);
  return Buffer.concat([prefix, header, ...bodies]);
}

/** The messages in a datagram; undefined when it is not one of ours, is of another version or is damaged. */
export function decodeGroupMessages(bytes: Buffer): GroupDatagram | undefined {
  try {
    const headerEnd = prefixBytes + bytes.readUInt32BE(0);
    const headerBytes = bytes.subarray(prefixBytes, headerEnd);
    if (crc32(headerBytes) !== bytes.readUInt32BE(4)) return undefined;
    const header = JSON.parse(headerBytes.toString('utf8')) as {
      version: number;
      topology: string;
      description?: string;
      messages: WireMessage[];
    };
    if (header.version !== wireVersion || typeof header.topology !== 'string') return undefined;
    let offset = headerEnd;
    const messages: GroupMessage[] = [];
    for (const wire of header.messages) {
      const { group, lastHash, ...message } = wire;
      if (!isWellFormed(message)) return undefined;
      if (message.kind !== 'append') {
        messages.push({ group: group as GroupId, message: message as unknown as RaftMessage });
        continue;
      }
      if (message.previous === undefined) return undefined;
      let position: LogPosition = message.previous;
      const entries: LogEntry[] = [];
      for (const [term, length] of message.entries ?? []) {
        if (offset + length > bytes.length) return undefined;
        const entry = chainEntry(position, term, bytes.toString('utf8', offset, offset + length));
        offset += length;
        entries.push(entry);
        position = entry;
      }
      if (entries.length > 0 && position.hash !== lastHash) return undefined;
      messages.push({ group: group as GroupId, message: { ...message, entries } as unknown as RaftMessage });
    }
    const { topology, description } = header;
    return offset === bytes.length ? { topology, description, messages } : undefined;
  } catch {
    return undefined;
  }
}

const numbersOf: Readonly<Record<RaftMessage['kind'], readonly string[]>> = {
  hello: ['lastIndex'],
  'hello-reply': ['knownIncarnation', 'knownTerm', 'knownIndex'],
  'pre-vote': ['lastIndex', 'lastTerm'],
  'pre-vote-reply': [],
  vote: ['lastIndex', 'lastTerm'],
  'vote-reply': [],
  append: ['commit', 'sequence', 'sentMs'],
  'append-reply': ['match', 'applied', 'sequence', 'sentMs'],
  behind: ['base', 'sequence', 'sentMs'],
  'take-over': [],
};

const truthsOf: Readonly<Partial<Record<RaftMessage['kind'], readonly string[]>>> = {
  'pre-vote-reply': ['granted'],
  'vote-reply': ['granted'],
  'append-reply': ['accepted', 'willing'],
};

const campaignReasons: readonly CampaignReason[] = ['timeout', 'transfer', 'recovery'];

/** Whether every number is one that an index or a term can be: what a broken or forged peer sends may not be kept. */
function isWellFormed(message: Omit<WireMessage, 'group' | 'lastHash'>): boolean {
  const values = message as unknown as Readonly<Record<string, unknown>>;
  const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Object.hasOwn(numbersOf, message.kind)) return false;
  if (!isCount(values['term']) || !isCount(values['incarnation'])) return false;
  if (!numbersOf[message.kind].every((name) => isCount(values[name]))) return false;
  if (!(truthsOf[message.kind] ?? []).every((name) => typeof values[name] === 'boolean')) return false;
  if (message.kind === 'vote') return campaignReasons.some((reason) => reason === values['reason']);
  if (message.kind !== 'append') return true;
  const { previous, entries, acknowledged } = message;
  return (
    previous !== undefined &&
    entries !== undefined &&
    acknowledged !== undefined &&
    isCount(previous.index) &&
    isCount(previous.term) &&
    typeof previous.hash === 'string' &&
    entries.every(([term, length]) => isCount(term) && isCount(length)) &&
    acknowledged.every(({ incarnation, index, applied }) => [incarnation, index, applied].every(isCount))
  );
}
