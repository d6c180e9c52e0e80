import type { NodeId } from '../../base/identifiers.ts';
import type { Random } from '../../base/random.ts';
import type { Channel } from '../../replication/bus.ts';
import type { Scheduler } from './scheduler.ts';

/** How bad the network is; percentages of messages. */
export interface BusFaults {
  readonly lostPercent: number;
  readonly duplicatedPercent: number;
  /** Messages that take up to `lateMs` longer, and so arrive after younger ones. */
  readonly latePercent: number;
  readonly lateMs: number;
}

export const calm: BusFaults = { lostPercent: 0, duplicatedPercent: 0, latePercent: 0, lateMs: 0 };

type Receive = (from: NodeId, channel: Channel, bytes: Buffer) => void;

/** The brokers: bytes between processes, lost, doubled, late, out of order, cut off one way or both, as the seed says. */
export class SimulatedBus {
  faults: BusFaults = calm;
  readonly counts = { sent: 0, lost: 0, duplicated: 0, late: 0, blocked: 0 };
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #distanceMs: (from: NodeId, to: NodeId) => number;
  readonly #receivers = new Map<NodeId, Receive>();
  /** How many faults cut a way; a way with none is not in it. */
  readonly #cuts = new Map<string, number>();
  readonly #lastArrival = new Map<string, number>();
  readonly #underWay = new Map<string, number>();
  #mostUnderWay = 0;

  /** `distanceMs`: what a message takes at least, by where the two processes stand. */
  constructor(scheduler: Scheduler, random: Random, distanceMs: (from: NodeId, to: NodeId) => number = () => 0.2) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#distanceMs = distanceMs;
  }

  /** Most bytes that were ever under way from one process to one other. */
  get mostUnderWay(): number {
    return this.#mostUnderWay;
  }

  attach(id: NodeId, receive: Receive): void {
    this.#receivers.set(id, receive);
  }

  detach(id: NodeId): void {
    this.#receivers.delete(id);
  }

  /** Nothing gets from one to the other until the returned function is called. */
  cut(from: NodeId, to: NodeId): () => void {
    const way = `${from} ${to}`;
    this.#cuts.set(way, (this.#cuts.get(way) ?? 0) + 1);
    let open = false;
    return () => {
      if (open) return;
      open = true;
      const left = (this.#cuts.get(way) ?? 1) - 1;
      if (left === 0) this.#cuts.delete(way);
      else this.#cuts.set(way, left);
    };
  }

  /** Whether a message from the one would reach the other now. */
  reaches(from: NodeId, to: NodeId): boolean {
    return !this.#cuts.has(`${from} ${to}`);
  }

  /** Whether the other will yet get something that the one has sent, which may have died since. */
  isUnderWay(from: NodeId, to: NodeId): boolean {
    return this.reaches(from, to) && (this.#underWay.get(`${from} ${to}`) ?? 0) > 0;
  }

  send(from: NodeId, to: NodeId, channel: Channel, bytes: Buffer): void {
    this.counts.sent += 1;
    const { lostPercent, duplicatedPercent } = this.faults;
    if (!this.reaches(from, to)) {
      this.counts.blocked += 1;
    } else if (this.#happens(lostPercent)) {
      this.counts.lost += 1;
    } else {
      this.#deliver(from, to, channel, bytes);
      if (!this.#happens(duplicatedPercent)) return;
      this.counts.duplicated += 1;
      this.#deliver(from, to, channel, bytes);
    }
  }

  #deliver(from: NodeId, to: NodeId, channel: Channel, bytes: Buffer): void {
    const { latePercent, lateMs } = this.faults;
    const way = `${from} ${to}`;
    const { nowMs } = this.#scheduler;
    let arrivesMs = nowMs + this.#distanceMs(from, to) + this.#random.below(2_000) / 1_000;
    if (this.#happens(latePercent)) {
      this.counts.late += 1;
      arrivesMs += this.#random.below(lateMs);
    } else {
      // A broker keeps the order of what one sends to another.
      arrivesMs = Math.max(arrivesMs, this.#lastArrival.get(way) ?? 0);
      this.#lastArrival.set(way, arrivesMs);
    }
    const underWay = (this.#underWay.get(way) ?? 0) + bytes.length;
    this.#underWay.set(way, underWay);
    this.#mostUnderWay = Math.max(this.#mostUnderWay, underWay);
    this.#scheduler.after(arrivesMs - nowMs, () => {
      this.#underWay.set(way, (this.#underWay.get(way) ?? 0) - bytes.length);
      if (this.reaches(from, to)) this.#receivers.get(to)?.(from, channel, bytes);
      else this.counts.blocked += 1;
    });
  }

  #happens(percent: number): boolean {
    return percent > 0 && this.#random.below(100) < percent;
  }
}
