import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { loadTopology } from '../base/topology.ts';
import { realRandom } from '../base/real.ts';
import { ensureSecrets } from './cluster/secrets.ts';
import { temporaryFolder } from './cluster/testing.ts';
import { evidenceFolder, evidenceRecords, keepReport, type KeptReport } from './evidence-folder.ts';

const report: KeptReport = {
  kind: 'compare',
  id: 'c1',
  cluster: 'quadrant',
  at: '2026-01-02T03:04:05.678Z',
  summary: {},
  files: [{ name: 'report.json', text: '{}' }],
};

function dataFolder(context: TestContext): string {
  const folder = temporaryFolder(context);
  ensureSecrets(loadTopology(new URL('../nodes.yaml', import.meta.url).pathname), folder, realRandom);
  return folder;
}

test('a report that cannot be written is said, and what was kept before is as it was', (context) => {
  const folder = dataFolder(context);
  const first = keepReport(folder, report);
  assert.deepEqual([first.sequence, evidenceRecords(folder).length], [1, 1]);
  // Where its folder would be, something else is: as unwritable as a full disk.
  writeFileSync(join(folder, 'reports', 'c2'), '');
  assert.throws(() => keepReport(folder, { ...report, id: 'c2' }), { code: 'REPORT_NOT_KEPT' });
  assert.equal(readFileSync(join(folder, 'reports', 'c1', 'report.json'), 'utf8'), '{}');
  assert.equal(evidenceRecords(folder).length, 1);
  rmSync(join(folder, 'reports', 'c2'));
  assert.equal(keepReport(folder, { ...report, id: 'c2' }).sequence, 2);
});

test('nothing is added to a chain whose last record was edited', (context) => {
  const folder = dataFolder(context);
  keepReport(folder, report);
  const path = join(evidenceFolder(folder), '000001.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('quadrant', 'another'));
  assert.throws(() => keepReport(folder, { ...report, id: 'c2' }), { code: 'EVIDENCE_BROKEN' });
});
