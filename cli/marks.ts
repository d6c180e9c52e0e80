import { SwitchError } from '../base/errors.ts';
import type { OperatorBus } from './operator-bus.ts';

/** Enters a mark into the group's log: any node passes it on to the leader. Throws OWNER_UNREACHABLE, NODE_UNREACHABLE. */
export async function enterMark(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  group: string,
  mark: string,
): Promise<{ readonly index: number; readonly leader: string }> {
  let failure: unknown;
  for (const { id } of bus.topology.nodes) {
    try {
      return (await bus.call(id, 'compare.mark', { group, compare: mark })) as { index: number; leader: string };
    } catch (error) {
      if (!(error instanceof SwitchError) || !error.retryable) throw error;
      failure = error;
    }
  }
  throw failure;
}
