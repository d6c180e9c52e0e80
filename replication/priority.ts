import type { NodeId } from '../base/identifiers.ts';

/*
 * R7: the failover order of a group is a priority. Nothing here is needed for safety: whoever wins a vote leads, and
 * these functions only say how long a member waits before it asks for votes, and to whom a leader hands over.
 */

/** Whom a leader knows, as far as it matters here. */
export interface Candidate {
  readonly match: number;
  readonly lastHeardMs: number;
  readonly willing: boolean;
}

export interface Succession {
  readonly self: NodeId;
  /** The group's failover order; members that are not in it (a witness) come last. */
  readonly order: readonly NodeId[];
  readonly peers: ReadonlyMap<NodeId, Candidate>;
  /** Last index of the leader's log. */
  readonly last: number;
  readonly nowMs: number;
  readonly heartbeatMs: number;
}

/** So many entries behind is close enough: they are sent while the owner pauses. */
const caughtUpEntries = 2000;

/**
 * Milliseconds beyond the election timeout: a step for each better-placed member but the one that has fallen silent.
 * Members that are not willing, or not in the order, wait until all others have had their chance: they campaign only
 * because they may be the only ones with the newest entries, and hand on at once.
 */
export function campaignDelayMs(options: {
  readonly self: NodeId;
  readonly order: readonly NodeId[];
  readonly silent: NodeId | undefined;
  readonly willing: boolean;
  readonly stepMs: number;
}): number {
  const { self, order, silent, willing, stepMs } = options;
  const others = order.filter((id) => id !== silent || id === self);
  const place = others.indexOf(self);
  return (willing && place !== -1 ? place : others.length) * stepMs;
}

/** The best-placed willing member that has caught up; undefined when there is none, or the leader comes before all. */
export function betterPlaced(succession: Succession): NodeId | undefined {
  const { self, order } = succession;
  const place = order.indexOf(self);
  return firstReady(succession, place === -1 ? order : order.slice(0, place));
}

/** To whom a leader hands on that cannot stay: the best-placed willing member, whether before or after it. */
export function anySuccessor(succession: Succession): NodeId | undefined {
  return firstReady(
    succession,
    succession.order.filter((id) => id !== succession.self),
  );
}

function firstReady({ peers, last, nowMs, heartbeatMs }: Succession, among: readonly NodeId[]): NodeId | undefined {
  return among.find((id) => {
    const peer = peers.get(id);
    if (peer?.willing !== true) return false;
    return nowMs - peer.lastHeardMs <= 3 * heartbeatMs && last - peer.match <= caughtUpEntries;
  });
}
