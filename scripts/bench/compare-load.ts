import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import type { RunningCluster } from '../../cli/cluster/supervisor.ts';
import { compareCluster } from '../../cli/commands/compare.ts';
import { placeForDrill } from '../../cli/drill/place.ts';
import { OperatorBus } from '../../cli/operator-bus.ts';
import { totalsOf, verdictOf, type CompareResult } from '../../compare/report.ts';
import { extendLogs, startPlace, underLoad } from './recovery.ts';

const requestsPerSecond = 1_000;
const rounds = 3;
const quietMs = 10_000;

/**
 * The whole cluster of the sample compared while it answers 1,000 requests/s, with `rows` entries in its logs: how long it
 * takes, whether a copy was found different or could not be judged, and what authorizations felt of it. Each round has
 * the same load without a compare before it.
 */
export async function measureUnderLoad(rows: number, print: (line: string) => void): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  const place = await placeForDrill(folder, 'compare');
  const dataFolder = join(folder, 'data');
  const { topology } = place;
  let cluster: RunningCluster | undefined;
  try {
    cluster = await startPlace(place, dataFolder);
    await cluster.stop();
    extendLogs(dataFolder, topology, rows, undefined);
    cluster = await startPlace(place, dataFolder);
    await underLoad(topology, () => delay(realClock, quietMs), requestsPerSecond);
    const measured: { readonly compared: CompareResult; readonly before: number; readonly during: number }[] = [];
    for (let round = 0; round < rounds; round++) {
      const before = await underLoad(topology, () => delay(realClock, quietMs), requestsPerSecond);
      const during = await underLoad(topology, () => compareOnce(topology, dataFolder), requestsPerSecond);
      measured.push({
        compared: during.result,
        before: before.summary.latencyMs.p99,
        during: during.summary.latencyMs.p99,
      });
    }
    const count = (verdict: string): number =>
      measured.filter(({ compared }) => verdictOf(compared.groups) === verdict).length;
    const seconds = medianOf(measured.map(({ compared }) => compared.durationMs / 1_000));
    const [before, during] = [
      medianOf(measured.map((each) => each.before)),
      medianOf(measured.map((each) => each.during)),
    ];
    print(
      `cluster of ${topology.nodes.length} nodes at ${requestsPerSecond} requests/s, ${totalsOf(measured[0]?.compared.groups ?? []).rows} rows in` +
        ` each copy: ${seconds.toFixed(1)} s; of ${rounds} compares ${count('equal')} equal, ${count('different')} false,` +
        ` ${count('inconclusive')} inconclusive; p99 of authorizations ${before.toFixed(1)} ms, comparing ${during.toFixed(1)} ms` +
        ` (${(during / before).toFixed(2)} times; medians)`,
    );
  } finally {
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** All that `quadrant compare` does but for what needs minutes: making folds anew from the entries. */
async function compareOnce(topology: OperatorBus['topology'], dataFolder: string): Promise<CompareResult> {
  const bus = await OperatorBus.connect(topology, dataFolder);
  try {
    return await compareCluster(bus, { clock: realClock, random: realRandom, note: () => undefined }, undefined);
  } finally {
    await bus.close();
  }
}
