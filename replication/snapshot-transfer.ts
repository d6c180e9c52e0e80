import type { NodeId } from '../base/identifiers.ts';
import { SnapshotReceiver, type SnapshotReceiverOptions } from './snapshot-receiver.ts';
import { SnapshotSender, type SnapshotSenderOptions } from './snapshot-sender.ts';
import { decodeSnapshotMessage } from './snapshot-wire.ts';

/*
 * How a member whose log ends before what its peers have kept gets the group from one of them (R10). Consensus says
 * that it is so, and whom to ask; any member that has applied more will do, for what it has applied is committed.
 * Datagrams may be lost, doubled and late, so the receiver asks, as often as it must, and the sender only answers:
 *
 *   receiver                                    sender
 *   begin   attempt, what it holds       →      pins its file in a read transaction: one for each group and receiver
 *                                        ←      header  transfer, SnapshotHeader   (or unavailable: reason)
 *   want    transfer, numbers of chunks  →      reads them, no faster than it may
 *                                        ←      chunk   transfer, number, bytes; with the last one how many there were
 *                                               and their SHA-256
 *   done    transfer                     →      lets its file go
 *                                        ←      gone    transfer: to any question about one that it does not have
 *
 *   - `attempt` is the receiver's name for the whole. The same one again is answered by the same header; another one
 *     ends the one before, of which nothing is taken up again: a receiver that restarts begins anew.
 *   - The receiver has a window of chunks in memory, and hands them to its writer one by one in order. It asks again for
 *     what has not come, and a question for nothing tells the sender that it is still there.
 *   - The writer puts the file in place of the group's when the last chunk has been taken and all of it is as it was
 *     sent, and tells consensus with an `installed` event; until then the group is as it was.
 *   - Who hears nothing for long gives up: the sender lets its file go, the receiver throws away what it has. Consensus
 *     then says again that a snapshot is needed, and from whom: by then perhaps a newer one, of another member.
 */

/** Sender and receiver of one process, behind one channel. */
export class SnapshotTransfers {
  readonly sender: SnapshotSender;
  readonly receiver: SnapshotReceiver;
  #damaged = 0;

  constructor(options: SnapshotSenderOptions & SnapshotReceiverOptions) {
    this.sender = new SnapshotSender(options);
    this.receiver = new SnapshotReceiver(options);
  }

  /** Datagrams that could not be read. */
  get damaged(): number {
    return this.#damaged;
  }

  receive(from: NodeId, datagram: Buffer): void {
    const message = decodeSnapshotMessage(datagram);
    if (message === undefined) {
      this.#damaged += 1;
      return;
    }
    this.sender.receive(from, message);
    this.receiver.receive(from, message);
  }

  stop(): void {
    this.sender.stop();
    this.receiver.stop();
  }
}
