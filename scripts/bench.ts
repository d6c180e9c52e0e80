/**
 * `npm run bench`: figures to compare later releases with, each beside its baseline in the same run, medians of five.
 * Arguments: any of codec, store, node, cluster (default: all these), import, changes, latency; --json. `import` takes --cards N
 * (default 1,000,000), some minutes and two gigabytes. `changes` makes --changes N random changes of the configuration
 * (default 10,000, some minutes) under faults and holds them against the history: exit code 1 when something is not as
 * promised. `latency` measures how soon a change at n3 is at work on the other nodes, with few ranges and with many.
 */
import { benchAuthorize } from './bench/authorize.ts';
import { benchChangeLatency } from './bench/change-latency.ts';
import { benchChanges } from './bench/changes.ts';
import { benchCodec } from './bench/codec.ts';
import { benchImport } from './bench/import.ts';
import { benchStore } from './bench/store.ts';
import { realRandom } from '../base/real.ts';

const known = ['codec', 'store', 'node', 'cluster', 'import', 'changes', 'latency'] as const;
const onlyByName: readonly string[] = ['import', 'changes', 'latency'];
const args = process.argv.slice(2);
if (args.includes('--help')) {
  process.stdout.write(`usage: npm run bench -- [${known.join('|')} ...] [--json] [--cards N]\n`);
  process.exit(0);
}
const json = args.includes('--json');
const cards = numberFlag('--cards', 1_000_000, 1000);
const changes = numberFlag('--changes', 10_000, 100);
const chosen = args.filter((argument) => argument !== '--json');
const unknown = chosen.find((argument) => !known.some((name) => name === argument));
if (unknown !== undefined) {
  process.stderr.write(`bench: "${unknown}" is none of ${known.join(', ')}, --json\n`);
  process.exit(2);
}
const wants = (name: (typeof known)[number]): boolean =>
  chosen.length === 0 ? !onlyByName.includes(name) : chosen.includes(name);
const print = (line: string): void => {
  (json ? process.stderr : process.stdout).write(`${line}\n`);
};
const results: Record<string, unknown> = {};

if (wants('codec')) {
  const codec = benchCodec();
  results['codec'] = codec;
  print(`codec, ${codec.messageBytes}-byte 0100, beside iso_8583 in the same run:`);
  print(
    `  unpack ${codec.ours.unpackPerSecond}/s, ${codec.unpackRatio.toFixed(1)} times iso_8583's ${codec.baseline.unpackPerSecond}/s`,
  );
  print(
    `  pack   ${codec.ours.packPerSecond}/s, ${codec.packRatio.toFixed(1)} times iso_8583's ${codec.baseline.packPerSecond}/s`,
  );
}
if (wants('store')) {
  print(
    'store, entries appended and applied per second, beside bare better-sqlite3 inserts in groups of the same size:',
  );
  results['store'] = [10, 50, 200].map((groupSize) => {
    const store = benchStore(groupSize);
    print(
      `  groups of ${groupSize}: ${store.oursPerSecond}/s, ${store.ratio.toFixed(2)} of bare ${store.barePerSecond}/s`,
    );
    return store;
  });
}
for (const [name, nodes] of [
  ['node', 1],
  ['cluster', 4],
] as const) {
  if (!wants(name)) continue;
  const result = await benchAuthorize({ nodes, runs: 5, secondsPerRun: 8, inFlight: 400, print });
  results[name] = result;
  print(
    `${name}: ${result.approvedPerSecond} durable approvals/s (${result.least} to ${result.most}), p50 ${result.p50Ms.toFixed(1)} ms, ` +
      `p99 ${result.p99Ms.toFixed(1)} ms, ${result.connections} connections, ${result.inFlight} in flight, ${result.cards} cards`,
  );
}
if (wants('import')) {
  const result = await benchImport({ cards, print });
  results['import'] = result;
  print(
    `import: ${cards} cards on all four nodes in ${result.importSeconds.toFixed(1)} s, ${result.cardsPerSecond}/s; bare inserts of ` +
      `the same cards into one file ${result.barePerSecond}/s (${result.ratio.toFixed(2)})`,
  );
  print(
    `  start with them ${result.startSeconds.toFixed(1)} s, of the same cluster without ${result.emptyStartSeconds.toFixed(1)} s; ` +
      `the largest node has ${Math.max(...result.emptyMegabytes)} MB without cards, ${Math.max(...result.importedMegabytes)} MB after the ` +
      `import, ${Math.max(...result.startedMegabytes)} MB after the start, ${Math.max(...result.loadedMegabytes)} MB after the rounds below`,
  );
  print(
    `  p99 of authorizations at ${result.authorizationsPerSecond}/s: ${result.p99Ms.toFixed(1)} ms, during an import of 2000 cards/s ` +
      `${result.importingP99Ms.toFixed(1)} ms (${result.p99Ratio.toFixed(2)} times; medians of ${result.rounds})`,
  );
}
if (wants('changes')) {
  const seed = realRandom.below(1_000_000);
  const result = await benchChanges({ changes, seed, print });
  results['changes'] = result;
  print(`changes: ${result.changes} in ${result.seconds.toFixed(0)} s under faults ${JSON.stringify(result.faults)}`);
  for (const [way, { made, entered, refused, open }] of Object.entries(result.byWay)) {
    print(`  ${way}: ${made} made, ${entered} acknowledged, ${refused} refused, ${open} without an answer`);
  }
  for (const problem of result.problems.slice(0, 50)) print(`  ! ${problem}`);
  print(
    `  ${result.historyRecords} rows of history, ${result.problems.length} not as promised, ` +
      (result.problems.length === 0 ? 'copies equal' : 'see above'),
  );
  if (result.problems.length > 0) process.exitCode = 1;
}
if (wants('latency')) {
  results['latency'] = [];
  for (const ranges of [0, 3_000]) {
    const result = await benchChangeLatency({ changes: 200, ranges, authorizationsPerSecond: 500, print });
    (results['latency'] as unknown[]).push(result);
    print(
      `latency: a change at n3 is at work on the other nodes after ${result.p50Ms} ms (p50), ${result.p99Ms} ms (p99), ` +
        `${result.mostMs} ms at most; answered after ${result.answerP50Ms} ms; ${result.authorizationsPerSecond} authorizations/s, ` +
        `${ranges} more ranges`,
    );
  }
}
if (json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
process.exit();

function numberFlag(name: string, otherwise: number, least: number): number {
  const at = args.indexOf(name);
  const number = at === -1 ? otherwise : Number(args.splice(at, 2)[1]);
  if (Number.isSafeInteger(number) && number >= least) return number;
  process.stderr.write(`bench: ${name} takes a number, at least ${least}\n`);
  process.exit(2);
}
