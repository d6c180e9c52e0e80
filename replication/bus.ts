import type { NodeId } from '../base/identifiers.ts';

/**
 * Channels between the processes of a cluster. raft: consensus and log entries. snapshot: a group's fold for a member
 * that is far behind (R10). forward: sealed requests to an owner and their answers. call: sealed calls of one node to
 * another (an import's cards to their owner).
 */
export type Channel = 'raft' | 'snapshot' | 'forward' | 'call';

/**
 * Datagrams between processes: a message arrives once, more than once, late, out of order or never, and nobody is
 * told. What must arrive is sent again by whoever needs it. The broker proves the sender's identity.
 */
export interface Bus {
  /** At most `maximumMessageBytes`. While no broker can be reached, messages are dropped, never queued. */
  send(to: NodeId, channel: Channel, bytes: Buffer): void;
  receive(channels: readonly Channel[], handler: (from: NodeId, channel: Channel, bytes: Buffer) => void): void;
  readonly connected: boolean;
  close(): Promise<void>;
}

/** Largest message on the bus; brokers are configured with 1 MiB. */
export const maximumMessageBytes = 1000 * 1024;
