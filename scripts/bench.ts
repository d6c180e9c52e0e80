/**
 * `npm run bench`: figures to compare later releases with, each beside its baseline in the same run, medians of five.
 * Arguments: any of codec, store, node, cluster (default: all these), import; --json. `import` takes --cards N (default
 * 1,000,000), some minutes and two gigabytes.
 */
import { benchAuthorize } from './bench/authorize.ts';
import { benchCodec } from './bench/codec.ts';
import { benchImport } from './bench/import.ts';
import { benchStore } from './bench/store.ts';

const known = ['codec', 'store', 'node', 'cluster', 'import'] as const;
const args = process.argv.slice(2);
if (args.includes('--help')) {
  process.stdout.write(`usage: npm run bench -- [${known.join('|')} ...] [--json] [--cards N]\n`);
  process.exit(0);
}
const json = args.includes('--json');
const cardsAt = args.indexOf('--cards');
const cards = cardsAt === -1 ? 1_000_000 : Number(args.splice(cardsAt, 2)[1]);
if (!Number.isSafeInteger(cards) || cards < 1000) {
  process.stderr.write('bench: --cards takes a number of cards, at least 1000\n');
  process.exit(2);
}
const chosen = args.filter((argument) => argument !== '--json');
const unknown = chosen.find((argument) => !known.some((name) => name === argument));
if (unknown !== undefined) {
  process.stderr.write(`bench: "${unknown}" is none of ${known.join(', ')}, --json\n`);
  process.exit(2);
}
const wants = (name: (typeof known)[number]): boolean =>
  chosen.length === 0 ? name !== 'import' : chosen.includes(name);
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
if (json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
process.exit();
