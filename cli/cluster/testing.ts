import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { parseTopology } from '../../base/topology.ts';
import type { Topology } from '../../base/topology.ts';
import { findNatsServer, thisMachine } from './preflight.ts';

/** For tests only: temporary folders, free ports, and a nats-server that must be there. */

export function temporaryFolder(context: Pick<TestContext, 'after'>): string {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-'));
  context.after(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** TCP ports of 127.0.0.1 that are free now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
      });
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(
    servers.map(async (server) => {
      await new Promise((resolve) => server.close(resolve));
    }),
  );
  return ports;
}

/** The path of nats-server; without it a test fails, and says why, rather than being skipped. */
export function requireNatsServer(): string {
  const machine = thisMachine({ hasTerminal: false, ask: () => Promise.resolve(false), print: () => undefined });
  const found = findNatsServer(machine);
  if (found.kind !== 'usable') throw new Error('this test needs nats-server 2.9 or newer: .ci/run installs it');
  return found.path;
}

/** The sample's shape (four nodes, two sites, a witness at a third) on free ports, written to a file. */
export async function topologyOnFreePorts(
  folder: string,
): Promise<{ readonly topology: Topology; readonly file: string }> {
  const ports = await freePorts(15);
  const port = (position: number): string => `{ port: ${ports[position] ?? 0} }`;
  const text = `cluster: test
sites: [{ id: east }, { id: west }, { id: north }]
nodes:
  - { id: n1, site: east, acquirer: ${port(0)}, monitor: ${port(10)} }
  - { id: n2, site: east, acquirer: ${port(1)}, monitor: ${port(11)} }
  - { id: n3, site: west, acquirer: ${port(2)}, monitor: ${port(12)} }
  - { id: n4, site: west, acquirer: ${port(3)}, monitor: ${port(13)} }
witness: { id: w1, site: north, monitor: ${port(14)} }
brokers:
  - { id: b-east, site: east, client: ${port(4)}, cluster: ${port(5)} }
  - { id: b-west, site: west, client: ${port(6)}, cluster: ${port(7)} }
  - { id: b-north, site: north, client: ${port(8)}, cluster: ${port(9)} }
`;
  const file = join(folder, 'nodes.yaml');
  writeFileSync(file, text);
  return { topology: parseTopology(text, file), file };
}
