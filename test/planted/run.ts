/**
 * `npm run planted -- [--each N] [--batches N] [--kills N] [--flips N] [--rate N] [--seed N]`
 *
 * Starts a cluster of its own under load, plants N differences of each kind in its files at random, in so many batches,
 * and has them found, named and repaired; then kills N repairs at random, finishes and undoes them; then flips N bits of
 * pages on disk, of any copy, and has them mended. At the end the acquirers' journals are held against the nodes. Exit code 1 when anything is not as it should be.
 */
import { parseArgs } from 'node:util';

import { describeError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { realClock, realRandom } from '../../base/real.ts';
import { Cleanups, judge, startTestCluster } from '../harness.ts';
import { plantKinds } from './plants.ts';
import { proveKills, provePlants, proveRot, ProvingGround } from './proof.ts';

const { values } = parseArgs({
  options: {
    each: { type: 'string', default: '50' },
    batches: { type: 'string', default: '10' },
    kills: { type: 'string', default: '20' },
    flips: { type: 'string', default: '20' },
    rate: { type: 'string', default: '200' },
    seed: { type: 'string', default: String(realRandom.below(1_000_000)) },
  },
});
const each = Number(values.each);
const batches = Number(values.batches);
const kills = Number(values.kills);
const flips = Number(values.flips);
const rate = Number(values.rate);
const seed = Number(values.seed);

const print = (line: string): void => void process.stdout.write(`${line}\n`);
const cleanups = new Cleanups();
const random = seededRandom(seed);
const beganMs = realClock.monotonicMs();
print(
  `seed ${seed}: ${each} of each of ${plantKinds.join(', ')} in ${batches} batches, ${kills} kills, ${flips} flipped bits, ${rate} requests/s`,
);
try {
  const cluster = await startTestCluster(cleanups);
  const ground = await ProvingGround.open(cluster, random, { rate, past: 6_000 });
  const sizes = Array.from(
    { length: batches },
    (_, at) => Math.floor((each * (at + 1)) / batches) - Math.floor((each * at) / batches),
  );
  const found = await provePlants(
    ground,
    sizes.filter((size) => size > 0),
    print,
  );
  print(
    `planted ${found.planted}: named at once ${found.namedAtOnce}, by a later compare ${found.namedLater}, never ${found.unnamed.length};` +
      ` compares until nothing differed ${found.rounds.join(', ')}`,
  );
  for (const line of found.unnamed) print(`  not named: ${line}`);
  const killed = kills === 0 ? { kills, midway: 0 } : await proveKills(ground, cluster, random, kills, 2, print);
  print(
    `killed ${killed.kills} repairs, ${killed.midway} of them midway: each finished, then nothing differed; undone, all was as before`,
  );
  const rotten = await proveRot(ground, cluster, random, flips, print);
  print(
    `flipped ${rotten.flips} bits: ${rotten.harmless} hold nothing, ${rotten.repaired} repaired, ${rotten.rebuilt} copies made anew`,
  );
  const summary = await ground.close();
  const { verified } = await judge(cluster.bus, ground.journals);
  const wrong = verified.filter(({ missing }) => missing.length > 0);
  print(
    `load: ${summary.requests} requests, p99 ${summary.latencyMs.p99} ms, ${summary.unanswered} without an answer; approvals missing at ${wrong.length} nodes`,
  );
  process.exitCode = found.unnamed.length === 0 && wrong.length === 0 ? 0 : 1;
} catch (error) {
  print(describeError(error));
  process.exitCode = 1;
} finally {
  await cleanups.run();
}
print(`${Math.round((realClock.monotonicMs() - beganMs) / 1_000)} s`);
process.exit();
