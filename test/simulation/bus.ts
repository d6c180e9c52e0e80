import type { NodeId } from '../../base/identifiers.ts';
import type { Random } from '../../base/random.ts';
import type { Channel } from '../../replication/bus.ts';
import type { Scheduler } from './scheduler.ts';

/** How bad the network is; percentages of messages. */
export interface BusFaults {
  readonly lostPercent: number;
  readonly duplicatedPercent: number;
  /** Messages that take up to `lateMs` instead of a few milliseconds, and so arrive after younger ones. */
  readonly latePercent: number;
  readonly lateMs: number;
}

export const calm: BusFaults = { lostPercent: 0, duplicatedPercent: 0, latePercent: 0, lateMs: 0 };

type Receive = (from: NodeId, channel: Channel, bytes: Buffer) => void;

/** The brokers: bytes between processes, lost, doubled, late, out of order, cut off one way or both, as the seed says. */
export class SimulatedBus {
  faults: BusFaults = calm;
  /** All brokers are away. */
  silent = false;
  readonly counts = { sent: 0, lost: 0, duplicated: 0, late: 0, blocked: 0 };
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #receivers = new Map<NodeId, Receive>();
  readonly #blocked = new Set<string>();
  readonly #lastArrival = new Map<string, number>();
  readonly #underWay = new Map<string, number>();
  #mostUnderWay = 0;

  constructor(scheduler: Scheduler, random: Random) {
    this.#scheduler = scheduler;
    this.#random = random;
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

  block(from: NodeId, to: NodeId): void {
    this.#blocked.add(`${from} ${to}`);
  }

  healPartitions(): void {
    this.#blocked.clear();
    this.silent = false;
  }

  send(from: NodeId, to: NodeId, channel: Channel, bytes: Buffer): void {
    this.counts.sent += 1;
    if (this.#isCut(from, to)) return;
    const { lostPercent, duplicatedPercent } = this.faults;
    if (this.#happens(lostPercent)) {
      this.counts.lost += 1;
      return;
    }
    this.#deliver(from, to, channel, bytes);
    if (!this.#happens(duplicatedPercent)) return;
    this.counts.duplicated += 1;
    this.#deliver(from, to, channel, bytes);
  }

  #deliver(from: NodeId, to: NodeId, channel: Channel, bytes: Buffer): void {
    const { latePercent, lateMs } = this.faults;
    const link = `${from} ${to}`;
    const { nowMs } = this.#scheduler;
    let arrivesMs = nowMs + 0.2 + this.#random.below(3000) / 1000;
    if (this.#happens(latePercent)) {
      this.counts.late += 1;
      arrivesMs += this.#random.below(lateMs);
    } else {
      // A broker keeps the order of what one sends to another.
      arrivesMs = Math.max(arrivesMs, this.#lastArrival.get(link) ?? 0);
      this.#lastArrival.set(link, arrivesMs);
    }
    const underWay = (this.#underWay.get(link) ?? 0) + bytes.length;
    this.#underWay.set(link, underWay);
    this.#mostUnderWay = Math.max(this.#mostUnderWay, underWay);
    this.#scheduler.after(arrivesMs - nowMs, () => {
      this.#underWay.set(link, (this.#underWay.get(link) ?? 0) - bytes.length);
      if (!this.#isCut(from, to)) this.#receivers.get(to)?.(from, channel, bytes);
    });
  }

  #isCut(from: NodeId, to: NodeId): boolean {
    const cut = this.silent || this.#blocked.has(`${from} ${to}`);
    if (cut) this.counts.blocked += 1;
    return cut;
  }

  #happens(percent: number): boolean {
    return percent > 0 && this.#random.below(100) < percent;
  }
}
