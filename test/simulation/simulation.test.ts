import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { availableParallelism } from 'node:os';
import { mutants } from './mutants.ts';
import { runSeed, type RunResult } from './run-seed.ts';
import { runSeeds } from './seed-pool.ts';
import { Totals } from './totals.ts';

/*
 * The whole cluster in one thread, one clock, one seed: consensus, files, owners and edges are the product's own.
 *
 *   QUADRANT_SEEDS=N         runs seeds 1 .. N instead of 1 .. 200
 *   npm run simulate         many more, with a report; `-- --seed N` replays one with its trace
 */
const count = Number(process.env['QUADRANT_SEEDS'] ?? 200);
const seeds = Array.from({ length: count }, (_, at) => at + 1);
const workers = Math.max(2, availableParallelism());
/** Fewer may well miss something. */
const seedsForCoverage = 200;

describe('a simulated cluster', () => {
  const results = new Map<number, RunResult>();
  const totals = new Totals();

  test(`keeps every promise in ${count} seeds of faults`, { timeout: 3_600_000 }, async (context) => {
    await runSeeds({
      seeds,
      workers,
      onResult: (result) => {
        results.set(result.seed, result);
        totals.add(result);
        return result.violation === undefined;
      },
    });
    for (const { seed, violation, trace } of results.values()) {
      if (violation === undefined) continue;
      assert.fail(`seed ${seed}: ${violation}\n"npm run simulate -- --seed ${seed}" replays it. ${trace ?? ''}`);
    }
    context.diagnostic(totals.describe());
  });

  test('is run for long enough, with enough requests and faults, by every seed', () => {
    assert.deepEqual(totals.slight, []);
  });

  test('has come to every crash point and every kind of fault', () => {
    if (count >= seedsForCoverage) assert.deepEqual(totals.missing, []);
  });

  test('has one trace for one seed', { timeout: 120_000 }, () => {
    for (const seed of seeds.slice(0, 3)) {
      assert.equal(runSeed(seed).traceHash, results.get(seed)?.traceHash, `seed ${seed}`);
    }
    const traces = new Set([...results.values()].map(({ traceHash }) => traceHash));
    assert.equal(traces.size, results.size, 'another seed has another');
  });
});

describe('the simulation finds that', { concurrency: workers }, () => {
  for (const mutant of mutants) {
    test(mutant.name, { timeout: 3_600_000 }, async (context) => {
      const others = Array.from({ length: 30 }, (_, at) => at + 1).filter((seed) => seed !== mutant.foundBy);
      let found: RunResult | undefined;
      await runSeeds({
        seeds: [mutant.foundBy, ...others],
        workers: 1,
        mutant: mutant.name,
        onResult: (result) => {
          if (result.violation !== undefined) found ??= result;
          return found === undefined;
        },
      });
      assert.ok(found, `no seed finds that ${mutant.name}`);
      context.diagnostic(`seed ${found.seed}: ${found.violation?.split('\n')[0] ?? ''}`);
    });
  }
});
