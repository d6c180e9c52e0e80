import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { temporaryFolder, topologyOnFreePorts } from '../cluster/testing.ts';
import type { OperatorBus } from '../operator-bus.ts';
import { loadConfiguration } from './config-change.ts';

/** A cluster that must not be asked: what is wrong with the file is found before. */
async function loading(context: Parameters<typeof temporaryFolder>[0], yaml: string): Promise<unknown> {
  const folder = temporaryFolder(context);
  const file = join(folder, 'configuration.yaml');
  writeFileSync(file, yaml);
  const { topology } = await topologyOnFreePorts(folder);
  const bus = { topology, call: () => Promise.reject(new Error('the cluster was asked')) } as unknown as OperatorBus;
  return loadConfiguration(bus, topology.nodes[0]?.id ?? '', { configuration: file, rules: undefined });
}

test('a configuration that contradicts itself is refused as a whole, with the rows', async (context) => {
  const yaml = `failover_map: [{ group_id: a, failover_order: n1 }]
pan_range: [{ prefix: '', group_id: b, description: d, issuer: i, durability: quorum, hold_days: 7 }]
`;
  await assert.rejects(loading(context, yaml), (error) => {
    assert.ok(error instanceof SwitchError && error.code === 'CONFIGURATION_REFUSED');
    assert.match(error.message, /pan_range\[0\]\.group_id: no group b/);
    return true;
  });
});
