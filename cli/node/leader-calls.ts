import type { Clock } from '../../base/clock.ts';
import { errorCatalogue, SwitchError, type ErrorCode } from '../../base/errors.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import { errorReply, type CallReply, type CallRequest } from './peer-calls.ts';

export interface LeaderCallsOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly leaderOf: (group: GroupId) => NodeId | undefined;
  /** The same call made to this node itself. */
  readonly serve: (request: CallRequest, done: (reply: CallReply) => void) => void;
  readonly callPeer: (to: NodeId, request: CallRequest, timeoutMs: number, done: (reply: CallReply) => void) => void;
}

/** A call that finds no leader, or one that is none any more, is made again for so long. */
export const leaderTimeoutMs = 5000;
const retryMs = 100;

/**
 * Has a group's leader carry out a call that may be repeated, whoever leads; `done` is called once. A call is made again
 * only after the one before it was answered, so that two of one asker are never under way; one that was not answered
 * in time fails, and whether it was carried out is open.
 */
export function callLeader(
  options: LeaderCallsOptions,
  group: GroupId,
  request: CallRequest,
  done: (reply: CallReply) => void,
): void {
  const { self, clock, leaderOf, serve, callPeer } = options;
  const deadline = clock.monotonicMs() + leaderTimeoutMs;
  const answered = (reply: CallReply): void => {
    if (reply.kind === 'result' || !isRetryable(reply.code) || clock.monotonicMs() >= deadline) done(reply);
    else clock.after(retryMs, ask);
  };
  const ask = (): void => {
    const leader = leaderOf(group);
    if (leader === undefined) {
      answered(errorReply(new SwitchError('OWNER_UNREACHABLE', `nobody leads group ${group}`)));
    } else if (leader === self) {
      serve(request, answered);
    } else {
      callPeer(leader, request, Math.max(deadline - clock.monotonicMs(), 1), answered);
    }
  };
  ask();
}

function isRetryable(code: string): boolean {
  return code in errorCatalogue && errorCatalogue[code as ErrorCode].retryable;
}
