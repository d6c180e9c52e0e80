/** How long a change that is entered at n3 takes until the other nodes work by it, under load; real processes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { ascending } from '../../base/statistics.ts';
import { readAcquirerCards } from '../../cli/acquirer/cards.ts';
import { sampleCardFile } from '../../cli/acquirer/load-command.ts';
import { defaultMix } from '../../cli/acquirer/load-mix.ts';
import { runLoad } from '../../cli/acquirer/load.ts';
import { targetsOf } from '../../cli/acquirer/usage.ts';
import { encodeChanges } from '../../cli/node/configuration-calls.ts';
import type { OperatorBus } from '../../cli/operator-bus.ts';
import type { VersionedChange } from '../../config-db/configuration-change.ts';
import type { ConfigurationChange } from '../../config-db/rows.ts';
import { withCluster } from './changes.ts';

export interface ChangeLatencyBench {
  readonly changes: number;
  readonly ranges: number;
  readonly authorizationsPerSecond: number;
  /** From the call at n3 to the last of the other nodes working by it. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly mostMs: number;
  /** From the call to its answer, at n3. */
  readonly answerP50Ms: number;
}

export function benchChangeLatency(options: {
  readonly changes: number;
  readonly ranges: number;
  readonly authorizationsPerSecond: number;
  readonly print: (line: string) => void;
}): Promise<ChangeLatencyBench> {
  const { changes, ranges, authorizationsPerSecond, print } = options;
  return withCluster('latency', async ({ place: { topology }, bus, dataFolder }) => {
    const [, , at] = topology.nodes;
    if (at === undefined) throw new Error('the sample has four nodes');
    await addRanges(bus, at.id, ranges);
    print(
      `${changes} changes at ${at.id} under ${authorizationsPerSecond} authorizations/s, ${ranges} more ranges ...`,
    );
    const end = new AbortController();
    const load = runLoad({
      targets: targetsOf(topology, undefined),
      connections: 16,
      cards: await readAcquirerCards(sampleCardFile),
      cardFile: sampleCardFile,
      mix: defaultMix,
      pace: { kind: 'rate', perSecond: authorizationsPerSecond },
      durationMs: 3_600_000,
      seed: realRandom.below(1_000_000),
      journalFile: undefined,
      requestTimeoutMs: 4_000,
      giveUpMs: 12_000,
      reverseUnanswered: true,
      clock: realClock,
      signal: end.signal,
    });
    await delay(realClock, 3_000);
    const asked: { readonly atMs: number; readonly index: number; readonly answeredMs: number }[] = [];
    for (let count = 0; count < changes; count++) {
      const row = { node_id: 'n4', state: 'in-service', reason: `change ${count}` };
      const change = { table: 'node_state', operation: 'put', row } as ConfigurationChange;
      const replaces = asked.at(-1)?.index ?? 0;
      const parameters = { by: 'bench', changes: encodeChanges([{ change, replaces }]) };
      const atMs = realClock.wallMs();
      const index = (await bus.call(at.id, 'configuration.enter', parameters)) as number;
      asked.push({ atMs, index, answeredMs: realClock.wallMs() - atMs });
      await delay(realClock, 60);
    }
    await delay(realClock, 2_000);
    end.abort();
    await load;
    const others = topology.nodes.filter(({ id }) => id !== at.id).map(({ id }) => inForceAt(dataFolder, id));
    const took = asked.map(({ atMs, index }) => {
      return Math.max(...others.map((times) => (times.find((each) => each.index >= index)?.atMs ?? Infinity) - atMs));
    });
    return {
      changes,
      ranges,
      authorizationsPerSecond,
      p50Ms: percentile(took, 50),
      p99Ms: percentile(took, 99),
      mostMs: Math.max(...took),
      answerP50Ms: percentile(
        asked.map(({ answeredMs }) => answeredMs),
        50,
      ),
    };
  });
}

function percentile(values: readonly number[], percent: number): number {
  return ascending(values)[Math.max(0, Math.ceil((values.length * percent) / 100) - 1)] ?? Infinity;
}

/** More ranges in one group, inside one that is there. */
async function addRanges(bus: OperatorBus, node: NodeId, ranges: number): Promise<void> {
  for (let first = 0; first < ranges; first += 500) {
    const changes = Array.from({ length: Math.min(500, ranges - first) }, (_, at): VersionedChange => {
      const row = {
        prefix: `9911${String(first + at).padStart(5, '0')}`,
        group_id: 'a',
        description: 'bench',
        issuer: 'bench',
        durability: 'quorum',
        hold_days: 7,
      };
      return { change: { table: 'pan_range', operation: 'put', row } as unknown as ConfigurationChange, replaces: 0 };
    });
    await bus.call(node, 'configuration.enter', { by: 'bench', changes: encodeChanges(changes) }, 60_000);
  }
}

/** When a node began to work by the configuration of an index, by its own log; the clocks are this machine's. */
function inForceAt(dataFolder: string, id: NodeId): { readonly index: number; readonly atMs: number }[] {
  return readFileSync(join(dataFolder, id, 'node.log'), 'utf8')
    .split('\n')
    .flatMap((line) => {
      if (!line.includes('"configuration-in-force"')) return [];
      const { time, index } = JSON.parse(line) as { readonly time: string; readonly index: number };
      return [{ index, atMs: Date.parse(time) }];
    });
}
