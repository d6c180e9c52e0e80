import type { Clock, Timer } from '../base/clock.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import type { SnapshotHeader } from '../store/group-snapshot.ts';
import type { SnapshotReading } from '../store/snapshot-shelf.ts';
import { encodeSnapshotMessage, maximumWanted, type SnapshotMessage } from './snapshot-wire.ts';

/** Bytes a second that a sender reads for all its receivers together. */
const defaultBytesPerSecond = 32 * 1024 * 1024;
/** Transfers that a sender serves at once. */
const maximumOutgoing = 8;
/** A receiver that the sender has not heard for this long has gone. */
const senderPatienceMs = 30_000;
/** Ended attempts that are remembered, so that a late `begin` of one does not end the present one. */
const rememberedAttempts = 64;

export interface SnapshotSenderOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly reading: SnapshotReading;
  readonly send: (to: NodeId, datagram: Buffer) => void;
  readonly bytesPerSecond?: number;
}

interface Outgoing {
  readonly group: GroupId;
  readonly to: NodeId;
  readonly attempt: string;
  readonly transfer: string;
  /** Undefined while the file is being opened. */
  opened: { readonly snapshot: number; readonly header: SnapshotHeader } | undefined;
  readonly wanted: Set<number>;
  /** The highest chunk that has been read: what is asked for far beyond it is no honest question. */
  highest: number;
  heardMs: number;
  patience: Timer;
}

/** Serves snapshots of the groups of one process. */
export class SnapshotSender {
  readonly #options: SnapshotSenderOptions;
  /** By group and receiver, the one that was served last at the end. */
  readonly #outgoing = new Map<string, Outgoing>();
  #endedAttempts: string[] = [];
  #reading = false;
  #pumpTimer: Timer | undefined;
  #freeAtMs = 0;

  constructor(options: SnapshotSenderOptions) {
    this.#options = options;
  }

  /** The lowest index of the group's snapshots that are under way: their receivers will need the entries after it. */
  heldIndex(group: GroupId): number | undefined {
    const held = [...this.#outgoing.values()].flatMap((outgoing) =>
      outgoing.group === group && outgoing.opened !== undefined ? [outgoing.opened.header.position.index] : [],
    );
    return held.length === 0 ? undefined : Math.min(...held);
  }

  receive(from: NodeId, message: SnapshotMessage): void {
    switch (message.kind) {
      case 'begin':
        this.#begin(from, message);
        return;
      case 'want':
        this.#want(from, message);
        return;
      case 'done': {
        const outgoing = this.#find(from, message.group, message.transfer);
        if (outgoing !== undefined) this.#end(outgoing);
        return;
      }
      case 'header':
      case 'unavailable':
      case 'chunk':
      case 'gone':
        return;
    }
  }

  stop(): void {
    this.#pumpTimer?.cancel();
    for (const outgoing of [...this.#outgoing.values()]) this.#end(outgoing);
  }

  #begin(from: NodeId, { group, attempt, holding }: SnapshotMessage & { kind: 'begin' }): void {
    const { clock, random, reading } = this.#options;
    const key = keyOf(group, from);
    const present = this.#outgoing.get(key);
    if (present?.attempt === attempt) {
      present.heardMs = clock.monotonicMs();
      this.#sendHeader(present);
      return;
    }
    if (this.#endedAttempts.includes(attempt)) return;
    if (present !== undefined) this.#end(present);
    if (this.#outgoing.size >= maximumOutgoing) {
      this.#send(from, { kind: 'unavailable', group, attempt, reason: 'too many snapshots are being sent' });
      return;
    }
    const outgoing: Outgoing = {
      group,
      to: from,
      attempt,
      transfer: random.bytes(8).toString('hex'),
      opened: undefined,
      wanted: new Set(),
      highest: 0,
      heardMs: clock.monotonicMs(),
      patience: clock.after(senderPatienceMs, () => {
        this.#checkPatience(outgoing);
      }),
    };
    this.#outgoing.set(key, outgoing);
    reading.open(group, holding, (reply) => {
      const isPresent = this.#outgoing.get(key) === outgoing;
      if (reply.kind === 'opened' && isPresent) {
        outgoing.opened = reply;
        this.#sendHeader(outgoing);
      } else if (reply.kind === 'opened') {
        reading.close(reply.snapshot);
      } else if (isPresent) {
        outgoing.patience.cancel();
        this.#outgoing.delete(key);
        this.#send(from, { kind: 'unavailable', group, attempt, reason: reply.reason });
      }
    });
  }

  #sendHeader({ group, to, attempt, transfer, opened }: Outgoing): void {
    if (opened === undefined) return;
    this.#send(to, { kind: 'header', group, attempt, transfer, header: opened.header });
  }

  #want(from: NodeId, { group, transfer, chunks }: SnapshotMessage & { kind: 'want' }): void {
    const outgoing = this.#find(from, group, transfer);
    if (outgoing === undefined) {
      this.#send(from, { kind: 'gone', group, transfer });
      return;
    }
    outgoing.heardMs = this.#options.clock.monotonicMs();
    for (const chunk of chunks) {
      if (chunk <= outgoing.highest + maximumWanted && outgoing.wanted.size < maximumWanted) outgoing.wanted.add(chunk);
    }
    this.#pump();
  }

  /** Reads what is wanted, one chunk at a time, the receivers in turn. */
  #pump(): void {
    if (this.#reading || this.#pumpTimer !== undefined) return;
    const next = [...this.#outgoing.values()].find(({ opened, wanted }) => opened !== undefined && wanted.size > 0);
    const [chunk] = next?.wanted ?? [];
    if (next?.opened === undefined || chunk === undefined) return;
    const { clock, reading, bytesPerSecond = defaultBytesPerSecond } = this.#options;
    const waitMs = this.#freeAtMs - clock.monotonicMs();
    if (waitMs > 0) {
      this.#pumpTimer = clock.after(waitMs, () => {
        this.#pumpTimer = undefined;
        this.#pump();
      });
      return;
    }
    const { group, to, transfer } = next;
    next.wanted.delete(chunk);
    this.#outgoing.delete(keyOf(group, to));
    this.#outgoing.set(keyOf(group, to), next);
    this.#reading = true;
    reading.read(next.opened.snapshot, chunk, (reply) => {
      this.#reading = false;
      clock.soon(() => {
        this.#pump();
      });
      if (this.#find(to, group, transfer) === undefined) return;
      if (reply.kind === 'refused') {
        this.#end(next);
        this.#send(to, { kind: 'gone', group, transfer });
      } else if (reply.kind === 'chunk') {
        next.highest = Math.max(next.highest, chunk);
        this.#freeAtMs = clock.monotonicMs() + (reply.bytes.length * 1_000) / bytesPerSecond;
        this.#send(to, { kind: 'chunk', group, transfer, chunk, end: reply.end ?? null, bytes: reply.bytes });
      }
    });
  }

  #checkPatience(outgoing: Outgoing): void {
    const silentMs = this.#options.clock.monotonicMs() - outgoing.heardMs;
    if (silentMs >= senderPatienceMs) {
      this.#end(outgoing);
      return;
    }
    outgoing.patience = this.#options.clock.after(senderPatienceMs - silentMs, () => {
      this.#checkPatience(outgoing);
    });
  }

  #end(outgoing: Outgoing): void {
    outgoing.patience.cancel();
    this.#outgoing.delete(keyOf(outgoing.group, outgoing.to));
    this.#endedAttempts = [...this.#endedAttempts, outgoing.attempt].slice(-rememberedAttempts);
    if (outgoing.opened !== undefined) this.#options.reading.close(outgoing.opened.snapshot);
  }

  #find(from: NodeId, group: GroupId, transfer: string): Outgoing | undefined {
    const outgoing = this.#outgoing.get(keyOf(group, from));
    return outgoing?.transfer === transfer ? outgoing : undefined;
  }

  #send(to: NodeId, message: SnapshotMessage): void {
    this.#options.send(to, encodeSnapshotMessage(message));
  }
}

function keyOf(group: GroupId, to: NodeId): string {
  return `${group} ${to}`;
}
