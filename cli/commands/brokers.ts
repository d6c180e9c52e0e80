import type { Clock } from '../../base/clock.ts';
import type { Topology } from '../../base/topology.ts';
import { natsGreeting } from '../cluster/preflight.ts';

export interface BrokerState {
  readonly id: string;
  readonly site: string;
  readonly address: string;
  readonly state: 'ready' | 'unreachable';
}

/** Asks every broker for its greeting. */
export async function loadBrokerStates(topology: Topology, clock: Clock): Promise<readonly BrokerState[]> {
  return Promise.all(
    topology.brokers.map(async ({ id, site, client }): Promise<BrokerState> => {
      const greeting = await natsGreeting(client, clock);
      const state = greeting === undefined ? 'unreachable' : 'ready';
      return { id, site, address: `${client.host}:${client.port}`, state };
    }),
  );
}
