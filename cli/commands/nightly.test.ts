import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { test } from 'node:test';

import { realRandom } from '../../base/real.ts';
import { evidencePublicKey, ensureSecrets } from '../cluster/secrets.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { keepReport, reportFolder } from '../evidence-folder.ts';
import { auditEvidence } from './audit.ts';
import { removeOldReports } from './nightly.ts';
import { answersOf, fakeBus, fakeContext, topology } from './testing.ts';

test('reports that are old are removed with a record that says so, and the chain verifies; without one they are missed', async (context) => {
  const dataFolder = temporaryFolder(context);
  ensureSecrets(topology, dataFolder, realRandom);
  const command = fakeContext(dataFolder);
  const day = 86_400_000;
  const nowMs = command.clock.wallMs();
  const keep = (id: string, ageDays: number): void => {
    keepReport(dataFolder, {
      kind: 'compare',
      id,
      cluster: topology.cluster,
      at: new Date(nowMs - ageDays * day).toISOString(),
      summary: {},
      files: [{ name: 'report.json', text: '{}' }],
    });
  };
  keep('c1', 100);
  keep('c2', 91);
  keep('c3', 89);
  const bus = fakeBus(
    () => answersOf({}),
    () => ({ index: 1, leader: 'n1' }),
  );
  assert.deepEqual(await removeOldReports(command, bus, 90), ['c1', 'c2']);
  assert.deepEqual(
    ['c1', 'c2', 'c3'].map((id) => existsSync(reportFolder(dataFolder, id))),
    [false, false, true],
  );
  assert.deepEqual(
    bus.calls.map(({ method }) => method),
    ['compare.mark'],
  );
  const audit = (): ReturnType<typeof auditEvidence> => auditEvidence(command, evidencePublicKey(dataFolder));
  assert.deepEqual([audit().records, audit().fault], [4, undefined]);
  assert.deepEqual(await removeOldReports(command, bus, 90), []);
  rmSync(reportFolder(dataFolder, 'c3'), { recursive: true });
  assert.deepEqual(audit().fault, { record: '000003.json', what: 'its file c3/report.json is missing' });
});
