import { networkInterfaces } from 'node:os';

import { SwitchError } from '../../base/errors.ts';
import { voters } from '../../base/topology.ts';
import type { Topology } from '../../base/topology.ts';
import type { Launch } from '../cluster/supervisor.ts';
import { ip, must, programPath } from './machine.ts';
import { relocated } from './place.ts';
import type { UndoJournal } from './undo.ts';

/**
 * A network namespace for each process of a cluster, all at one bridge, at which the drill and its acquirers are, too.
 * A cut makes packets from one process to another vanish on the way: the sender's neighbour entry for that address
 * points to a MAC address that nobody has. The sender gets no error, packets the other way still arrive, and TCP finds
 * out by itself, as it does when a line is cut. Needs root and iproute2.
 */
export class DrillNetwork {
  readonly topology: Topology;
  readonly #addresses: ReadonlyMap<string, string>;

  /** `topology` gets the addresses in the namespaces; its ports stay. */
  static make(topology: Topology, undo: UndoJournal): DrillNetwork {
    if (programPath('ip') === undefined) throw new SwitchError('DRILL_REFUSED', 'ip (iproute2) is not installed');
    const subnet = freeSubnet();
    const ids = [...voters(topology), ...topology.brokers.map(({ id }) => id)];
    const addresses = new Map<string, string>(ids.map((id, index) => [id, `${subnet}.${index + 1}`]));
    undo.record({ kind: 'link', name: bridge });
    must(ip('link', 'add', bridge, 'type', 'bridge'));
    must(ip('addr', 'add', `${subnet}.254/24`, 'dev', bridge));
    must(ip('link', 'set', bridge, 'up'));
    ids.forEach((id, index) => {
      const name = namespaceOf(id);
      const port = `qdrill${index + 1}`;
      undo.record({ kind: 'namespace', name });
      must(ip('netns', 'add', name));
      // With its namespace its other end goes, too; this record is for a drill that ends in between.
      undo.record({ kind: 'link', name: port });
      must(ip('link', 'add', port, 'type', 'veth', 'peer', 'name', inside, 'netns', name));
      must(ip('link', 'set', port, 'master', bridge, 'up'));
      must(ip('-n', name, 'addr', 'add', `${addresses.get(id) ?? ''}/24`, 'dev', inside));
      must(ip('-n', name, 'link', 'set', 'lo', 'up'));
      must(ip('-n', name, 'link', 'set', inside, 'up'));
    });
    return new DrillNetwork(topology, addresses);
  }

  private constructor(topology: Topology, addresses: ReadonlyMap<string, string>) {
    this.#addresses = addresses;
    this.topology = relocated(topology, (endpoint, id) => ({ ...endpoint, host: addresses.get(id) ?? endpoint.host }));
  }

  get processes(): readonly string[] {
    return [...this.#addresses.keys()];
  }

  launch(id: string, program: string, args: readonly string[]): Launch {
    return { program: programPath('ip') ?? 'ip', args: ['netns', 'exec', namespaceOf(id), program, ...args] };
  }

  /** Nothing that a process of `from` sends reaches one of `to`, until `mend`. */
  cut(from: readonly string[], to: readonly string[]): void {
    for (const sender of from) {
      for (const receiver of to) {
        const address = this.#addresses.get(receiver) ?? '';
        const entry = [address, 'lladdr', nobody, 'nud', 'permanent', 'dev', inside];
        must(ip('-n', namespaceOf(sender), 'neigh', 'replace', ...entry));
      }
    }
  }

  mend(): void {
    for (const sender of this.processes) {
      // Those that are not permanent are learned again at once.
      must(ip('-n', namespaceOf(sender), 'neigh', 'flush', 'dev', inside, 'nud', 'permanent'));
    }
  }
}

const bridge = 'qdrill0';
const inside = 'eth0';
/** A locally administered address. */
const nobody = '02:00:00:00:00:01';

function namespaceOf(id: string): string {
  return `quadrant-${id}`;
}

/** A subnet of the block that is set apart for tests of network devices (RFC 2544), that this machine does not use. */
function freeSubnet(): string {
  const used = Object.values(networkInterfaces())
    .flat()
    .map((each) => each?.address ?? '');
  for (let third = 77; third < 256; third++) {
    const subnet = `198.18.${third}`;
    if (!used.some((address) => address.startsWith(`${subnet}.`))) return subnet;
  }
  throw new SwitchError('DRILL_REFUSED', 'no free subnet in 198.18.0.0/16');
}
