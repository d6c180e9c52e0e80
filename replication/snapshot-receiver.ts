import type { Clock, Timer } from '../base/clock.ts';
import type { GroupId, NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import type { LogPosition } from '../store/entry.ts';
import type { SnapshotEnd, SnapshotHeader } from '../store/group-snapshot.ts';
import type { Holding } from '../store/snapshot-shelf.ts';
import type { GroupWriter, WriterEvent } from '../store/writer.ts';
import { encodeSnapshotMessage, type SnapshotMessage } from './snapshot-wire.ts';

/** Chunks beyond the written ones that a receiver has asked for or holds. */
const windowChunks = 4;
const resendMs = 500;
/** A sender that the receiver has not heard for this long has gone; when another one is at hand, for `switchMs`. */
const receiverPatienceMs = 20_000;
const switchMs = 3_000;
/** After a failure, how long until the next attempt. */
const pauseMs = 1_000;

export type SnapshotOutcome =
  | { readonly kind: 'begun'; readonly from: NodeId; readonly position: LogPosition }
  | { readonly kind: 'installed'; readonly from: NodeId; readonly position: LogPosition }
  | { readonly kind: 'given-up'; readonly from: NodeId; readonly reason: string };

export interface SnapshotReceiverOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly holding: Holding;
  readonly writer: Pick<GroupWriter, 'snapshot'>;
  readonly send: (to: NodeId, datagram: Buffer) => void;
  /**
   * The snapshot is whole: whether it may replace the group's file now. Whoever says yes has put aside what of the log's
   * tail must not be lost (R9), and hands the writer nothing for the group until `installed` or `snapshot-refused`.
   */
  readonly mayInstall: (group: GroupId, position: LogPosition) => boolean;
  /** For the log. */
  readonly onOutcome: (group: GroupId, outcome: SnapshotOutcome) => void;
}

interface Arrived {
  readonly bytes: Buffer;
  readonly end: SnapshotEnd | null;
}

interface Incoming {
  readonly group: GroupId;
  readonly from: NodeId;
  /** Also the writer's name for it. */
  readonly attempt: string;
  state: 'asking' | 'beginning' | 'receiving' | 'installing';
  /** The sender's name for it, and what it is to be. */
  offered: { readonly transfer: string; readonly header: SnapshotHeader } | undefined;
  /** The chunk that is to be written next, or is being written. */
  next: number;
  writing: Arrived | undefined;
  /** How many chunks there are, when the last one has come. */
  chunks: number;
  readonly arrived: Map<number, Arrived>;
  /** When each chunk was asked for last. */
  readonly askedMs: Map<number, number>;
  rows: number;
  heardMs: number;
  timer: Timer;
}

/** Fetches snapshots for the groups of one process, one at a time for each group. */
export class SnapshotReceiver {
  readonly #options: SnapshotReceiverOptions;
  readonly #incoming = new Map<GroupId, Incoming>();
  readonly #pausedUntilMs = new Map<GroupId, number>();

  constructor(options: SnapshotReceiverOptions) {
    this.#options = options;
  }

  /** What is under way, and how much of it has been written. */
  progress(): readonly { readonly group: GroupId; readonly from: NodeId; readonly percent: number }[] {
    return [...this.#incoming.values()].map(({ group, from, rows, offered }) => {
      const all = (offered?.header.tables ?? []).reduce((sum, table) => sum + table.rows, 0);
      return { group, from, percent: all === 0 ? 0 : Math.floor((100 * rows) / all) };
    });
  }

  /** The group needs a snapshot, and `from` has one. May be said as often as it is true. */
  fetch(group: GroupId, from: NodeId): void {
    const { clock, random } = this.#options;
    const nowMs = clock.monotonicMs();
    const present = this.#incoming.get(group);
    if (present !== undefined) {
      const isRemote = present.state === 'asking' || present.state === 'receiving';
      if (!isRemote || present.from === from || nowMs - present.heardMs < switchMs) return;
      this.#giveUp(present, `it is silent, and ${from} is there`);
    } else if (nowMs < (this.#pausedUntilMs.get(group) ?? 0)) {
      return;
    }
    const incoming: Incoming = {
      group,
      from,
      attempt: random.bytes(8).toString('hex'),
      state: 'asking',
      offered: undefined,
      next: 0,
      writing: undefined,
      chunks: Number.POSITIVE_INFINITY,
      arrived: new Map(),
      askedMs: new Map(),
      rows: 0,
      heardMs: nowMs,
      timer: clock.after(resendMs, () => {
        this.#onTimer(incoming);
      }),
    };
    this.#incoming.set(group, incoming);
    this.#sendBegin(incoming);
  }

  receive(from: NodeId, message: SnapshotMessage): void {
    const incoming = this.#incoming.get(message.group);
    if (incoming?.from !== from) return;
    switch (message.kind) {
      case 'header':
        if (message.attempt === incoming.attempt) this.#onHeader(incoming, message);
        return;
      case 'unavailable':
        if (message.attempt === incoming.attempt && incoming.state === 'asking') {
          this.#giveUp(incoming, message.reason);
        }
        return;
      case 'chunk':
        if (message.transfer === incoming.offered?.transfer) this.#onChunk(incoming, message);
        return;
      case 'gone':
        if (message.transfer === incoming.offered?.transfer && incoming.state !== 'installing') {
          this.#giveUp(incoming, 'it has given the snapshot up');
        }
        return;
      case 'begin':
      case 'want':
      case 'done':
        return;
    }
  }

  onWriter(event: WriterEvent): void {
    const incoming = this.#incoming.get(event.group);
    if (incoming === undefined || ('transfer' in event && event.transfer !== incoming.attempt)) return;
    switch (event.kind) {
      case 'failed':
        this.#giveUp(incoming, event.reason);
        return;
      case 'snapshot-begun':
        incoming.state = 'receiving';
        incoming.heardMs = this.#options.clock.monotonicMs();
        this.#ask(incoming);
        return;
      case 'snapshot-written':
        this.#onWritten(incoming);
        return;
      case 'snapshot-refused':
        this.#giveUp(incoming, event.reason);
        return;
      case 'installed':
        this.#forget(incoming);
        this.#options.onOutcome(incoming.group, {
          kind: 'installed',
          from: incoming.from,
          position: event.position,
        });
        return;
      case 'written':
      case 'mark':
      case 'trimmed':
        return;
    }
  }

  /** What has been received and not installed is thrown away when the group's file is opened the next time. */
  stop(): void {
    for (const incoming of [...this.#incoming.values()]) this.#forget(incoming);
  }

  #onHeader(incoming: Incoming, { transfer, header }: SnapshotMessage & { kind: 'header' }): void {
    if (incoming.state !== 'asking') return;
    const { group, from, attempt } = incoming;
    incoming.offered = { transfer, header };
    incoming.state = 'beginning';
    this.#options.onOutcome(group, { kind: 'begun', from, position: header.position });
    this.#options.writer.snapshot({ kind: 'begin', group, transfer: attempt, header });
  }

  #onChunk(incoming: Incoming, { chunk, end, bytes }: SnapshotMessage & { kind: 'chunk' }): void {
    if (incoming.state !== 'receiving') return;
    incoming.heardMs = this.#options.clock.monotonicMs();
    if (!this.#lacks(incoming, chunk) || (end !== null && end.chunks !== chunk + 1)) return;
    incoming.arrived.set(chunk, { bytes, end });
    if (end !== null) incoming.chunks = end.chunks;
    incoming.askedMs.delete(chunk);
    this.#write(incoming);
  }

  /** Whether the chunk is in the window and has not come. */
  #lacks({ next, arrived, writing, chunks }: Incoming, chunk: number): boolean {
    if (chunk < next || chunk >= Math.min(next + windowChunks, chunks) || arrived.has(chunk)) return false;
    return writing === undefined || chunk > next;
  }

  #write(incoming: Incoming): void {
    const { group, attempt, next, arrived } = incoming;
    const chunk = arrived.get(next);
    if (incoming.writing !== undefined || chunk === undefined) return;
    arrived.delete(next);
    incoming.writing = chunk;
    this.#options.writer.snapshot({ kind: 'write', group, transfer: attempt, chunk: next, bytes: chunk.bytes });
  }

  #onWritten(incoming: Incoming): void {
    const { group, attempt, writing, offered } = incoming;
    if (writing === undefined || offered === undefined) return;
    incoming.writing = undefined;
    incoming.next += 1;
    incoming.rows += rowsIn(writing.bytes);
    if (writing.end === null) {
      this.#write(incoming);
      this.#ask(incoming);
      return;
    }
    this.#sendDone(incoming);
    if (!this.#options.mayInstall(group, offered.header.position)) {
      this.#giveUp(incoming, 'it may not be put in place of the file now');
      return;
    }
    incoming.state = 'installing';
    this.#options.writer.snapshot({ kind: 'install', group, transfer: attempt, end: writing.end });
  }

  /** Asks for what of the window has not come and was not asked for lately. */
  #ask(incoming: Incoming, evenForNothing = false): void {
    const { group, from, offered, next, askedMs } = incoming;
    if (offered === undefined) return;
    const nowMs = this.#options.clock.monotonicMs();
    const chunks: number[] = [];
    let lacks = false;
    for (let chunk = next; chunk < next + windowChunks; chunk++) {
      if (!this.#lacks(incoming, chunk)) continue;
      lacks = true;
      if (nowMs - (askedMs.get(chunk) ?? Number.NEGATIVE_INFINITY) < resendMs) continue;
      askedMs.set(chunk, nowMs);
      chunks.push(chunk);
    }
    // While this process's own writer is what is waited for, the sender owes nothing.
    if (!lacks) incoming.heardMs = nowMs;
    if (chunks.length === 0 && !evenForNothing) return;
    this.#send(from, { kind: 'want', group, transfer: offered.transfer, chunks });
  }

  #onTimer(incoming: Incoming): void {
    const { clock } = this.#options;
    incoming.timer = clock.after(resendMs, () => {
      this.#onTimer(incoming);
    });
    switch (incoming.state) {
      case 'asking':
        if (!this.#hasGone(incoming)) this.#sendBegin(incoming);
        return;
      case 'receiving':
        if (!this.#hasGone(incoming)) this.#ask(incoming, true);
        return;
      case 'beginning':
      case 'installing':
        return;
    }
  }

  #hasGone(incoming: Incoming): boolean {
    const hasGone = this.#options.clock.monotonicMs() - incoming.heardMs >= receiverPatienceMs;
    if (hasGone) this.#giveUp(incoming, 'it does not answer');
    return hasGone;
  }

  #giveUp(incoming: Incoming, reason: string): void {
    const { group, from, attempt, state } = incoming;
    this.#forget(incoming);
    this.#pausedUntilMs.set(group, this.#options.clock.monotonicMs() + pauseMs);
    this.#sendDone(incoming);
    if (state !== 'asking') this.#options.writer.snapshot({ kind: 'abandon', group, transfer: attempt });
    this.#options.onOutcome(group, { kind: 'given-up', from, reason });
  }

  #forget(incoming: Incoming): void {
    incoming.timer.cancel();
    this.#incoming.delete(incoming.group);
  }

  #sendBegin({ group, from, attempt }: Incoming): void {
    this.#send(from, { kind: 'begin', group, attempt, holding: this.#options.holding });
  }

  #sendDone({ group, from, offered }: Incoming): void {
    if (offered !== undefined) this.#send(from, { kind: 'done', group, transfer: offered.transfer });
  }

  #send(to: NodeId, message: SnapshotMessage): void {
    this.#options.send(to, encodeSnapshotMessage(message));
  }
}

/** Each row is a line. */
function rowsIn(bytes: Buffer): number {
  let rows = 0;
  for (let at = bytes.indexOf(0x0a); at !== -1; at = bytes.indexOf(0x0a, at + 1)) rows += 1;
  return rows;
}
