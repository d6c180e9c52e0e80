import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { SwitchError } from '../../base/errors.ts';
import type { BrokerSpecification, Endpoint, Topology } from '../../base/topology.ts';
import { proxyMessage } from './delay-proxy.ts';
import type { UndoJournal } from './undo.ts';

const program = fileURLToPath(new URL('./delay-proxy.ts', import.meta.url));

/** The routes between brokers of different sites, through a proxy process that can hold back what goes along them. */
export class RouteDelays {
  readonly #proxy: ChildProcess;
  /** The proxy's port for the route from one broker to another. */
  readonly #ports: ReadonlyMap<string, number>;

  static async start(topology: Topology, undo: UndoJournal): Promise<RouteDelays> {
    const routes = topology.brokers.flatMap((from) =>
      topology.brokers.filter((to) => to.site !== from.site).map((to) => ({ from, to })),
    );
    const targets = JSON.stringify(routes.map(({ to }) => to.cluster));
    // Not in the terminal's process group: Ctrl-C is the drill's alone.
    const proxy = spawn(process.execPath, [program, targets], {
      detached: true,
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    if (proxy.pid !== undefined) {
      undo.record({ kind: 'process', what: 'the delaying proxy', pid: proxy.pid, marks: [program] });
    }
    const ports = await new Promise<readonly number[]>((resolve, reject) => {
      proxy.once('message', (message) => {
        const parsed = proxyMessage.safeParse(message);
        if (parsed.success) resolve(parsed.data.ports);
      });
      proxy.once('exit', () => {
        reject(new SwitchError('START_FAILED', 'the delaying proxy could not be started'));
      });
    });
    return new RouteDelays(proxy, new Map(routes.map(({ from, to }, index) => [key(from, to), ports[index] ?? 0])));
  }

  private constructor(proxy: ChildProcess, ports: ReadonlyMap<string, number>) {
    this.#proxy = proxy;
    this.#ports = ports;
  }

  readonly routeTo = (from: BrokerSpecification, to: BrokerSpecification): Endpoint => {
    const port = this.#ports.get(key(from, to));
    return port === undefined ? to.cluster : { host: '127.0.0.1', port };
  };

  /** From now on, in each direction. */
  set(delayMs: number): void {
    this.#proxy.send({ delayMs });
  }
}

function key(from: BrokerSpecification, to: BrokerSpecification): string {
  return `${from.id} ${to.id}`;
}
