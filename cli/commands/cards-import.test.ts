import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { seededRandom } from '../../base/random.ts';
import { Pan } from '../../base/pan.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import type { ImportedLine } from '../node/card-calls.ts';
import { importCardFile, type ImportSummary } from './cards-import.ts';
import { topology } from './testing.ts';

interface Asked {
  readonly file: string;
  readonly cards: readonly { readonly line: number; readonly pan: string; readonly limit: string }[];
}

/** A cluster that keeps cards and how far each file has been entered, as the folds do. */
class FakeCluster {
  readonly topology = topology;
  readonly cards = new Map<string, string>();
  readonly through = new Map<string, number>();
  readonly asked: string[] = [];
  /** Each is thrown once, before or after the lines have been entered. */
  readonly failures: {
    readonly node: string;
    readonly after: boolean;
    readonly code: 'NODE_UNREACHABLE' | 'OWNER_UNREACHABLE';
  }[] = [];
  effects = 0;

  readonly call = (node: string, method: string, parameters: unknown): Promise<unknown> => {
    const { file, cards } = parameters as Asked;
    if (method === 'cards.imported') return Promise.resolve({ through: this.through.get(file) ?? 0 });
    this.asked.push(`${node} ${cards[0]?.line ?? 0}-${cards.at(-1)?.line ?? 0}`);
    const failure = this.failures[0]?.node === node ? this.failures.shift() : undefined;
    const fail = (): Promise<never> => Promise.reject(new SwitchError(failure?.code ?? 'NODE_UNREACHABLE', 'away'));
    if (failure?.after === false) return fail();
    const results = cards.map((card): ImportedLine => this.#enter(file, card));
    return failure === undefined ? Promise.resolve(results) : fail();
  };

  #enter(file: string, { line, pan, limit }: Asked['cards'][number]): ImportedLine {
    if (line <= (this.through.get(file) ?? 0)) return { result: 'entered-before' };
    this.through.set(file, line);
    this.effects += 1;
    const known = this.cards.get(pan);
    this.cards.set(pan, limit);
    return { result: known === undefined ? 'added' : known === limit ? 'unchanged' : 'changed' };
  }
}

/** Numbers with a right check digit. */
const cardNumber = (number: number): string => {
  const digits = `990001${String(number).padStart(9, '0')}`;
  const all = Array.from({ length: 10 }, (_, check) => `${digits}${check}`);
  return all.find((each) => Pan.parse(each)?.hasValidCheckDigit() === true) ?? '';
};
const header = 'pan,expiry,status,currency,limit';
const line = (number: number, limit = 5): string => `${cardNumber(number)},3512,active,840,${limit}`;

class Bench {
  readonly cluster = new FakeCluster();
  readonly path: string;
  readonly results: string;
  readonly notes: string[] = [];

  constructor(context: TestContext, lines: readonly string[]) {
    const folder = temporaryFolder(context);
    this.path = join(folder, 'cards.csv');
    this.results = join(folder, 'results.csv');
    writeFileSync(this.path, `${[header, ...lines].join('\n')}\n`);
  }

  import(changes: Partial<Parameters<typeof importCardFile>[2]> = {}): Promise<ImportSummary> {
    const world = { clock: realClock, random: seededRandom(1), note: (text: string) => this.notes.push(text) };
    const options = { rate: 0, results: () => this.results, ...changes };
    return importCardFile(this.cluster, this.path, options, world);
  }

  /** Results without the title. */
  lines(): string[] {
    return readFileSync(this.results, 'utf8').trimEnd().split('\n').slice(2);
  }
}

describe('an import', () => {
  test('writes a result for every line, in their order, with masked numbers', async (context) => {
    const bench = new Bench(context, [line(1), 'nonsense', line(2), '', line(1, 9), line(1, 9)]);
    const summary = await bench.import();
    assert.deepEqual(
      bench.lines().map((each) => each.replace(/,[0-9]{6}\*+[0-9]{4},/, ',masked,')),
      [
        '2,masked,added,',
        '3,,bad,"1 fields, expected 5"',
        '4,masked,added,',
        '6,masked,changed,',
        '7,masked,unchanged,',
      ],
    );
    assert.deepEqual([summary.lines, summary.added, summary.changed, summary.bad.length], [5, 2, 1, 1]);
  });
  test('takes bad lines along with good ones: they cost no calls', async (context) => {
    const bench = new Bench(
      context,
      Array.from({ length: 40 }, (_, at) => (at % 2 === 0 ? line(at) : 'nonsense')),
    );
    const summary = await bench.import();
    assert.deepEqual([bench.cluster.asked, summary.added, summary.bad.length], [['n1 2-40'], 20, 20]);
    assert.deepEqual(
      bench.lines().map((each) => Number(each.split(',')[0])),
      Array.from({ length: 40 }, (_, at) => 2 + at),
    );
  });
  test('that was broken off goes on where its results end, and mends a line that was not written whole', async (context) => {
    const all = Array.from({ length: 2300 }, (_, at) => line(at));
    const bench = new Bench(context, all);
    for (let time = 0; time < 2; time++)
      bench.cluster.failures.push({ node: 'n1', after: time === 1, code: 'NODE_UNREACHABLE' });
    await bench.import({ node: nodeId('n1') });
    const whole = bench.lines();
    assert.equal(whole.length, 2300);
    const kept = readFileSync(bench.results, 'utf8').split('\n').slice(0, 2202);
    writeFileSync(bench.results, `${kept.join('\n')}\n2202,9900`);
    const before = bench.cluster.asked.length;
    const summary = await bench.import();
    assert.deepEqual([bench.lines().length, bench.cluster.effects], [2300, 2300]);
    assert.equal(bench.cluster.asked[before], 'n1 2202-2301');
    assert.equal(summary.enteredBefore, 2300);
  });
  test('whose results are lost does not send again what is in the log', async (context) => {
    const bench = new Bench(
      context,
      Array.from({ length: 2300 }, (_, at) => line(at)),
    );
    await bench.import();
    const before = bench.cluster.asked.length;
    const summary = await bench.import({ results: () => `${bench.results}.2` });
    assert.deepEqual(bench.cluster.asked.slice(before), ['n1 2001-2301']);
    assert.deepEqual([summary.enteredBefore, bench.cluster.effects], [2300, 2300]);
    assert.ok(bench.notes.some((note) => note.startsWith('goes on after line 2000')));
  });
  test('goes on at another node when one dies, before or after it has entered the lines', async (context) => {
    for (const after of [false, true]) {
      const bench = new Bench(
        context,
        Array.from({ length: 300 }, (_, at) => line(at)),
      );
      bench.cluster.failures.push({ node: 'n3', after, code: 'NODE_UNREACHABLE' });
      const summary = await bench.import({ node: nodeId('n3') });
      assert.deepEqual(
        bench.cluster.asked.map((asked) => asked.slice(0, 2)),
        ['n3', 'n1'],
      );
      assert.deepEqual(
        [bench.cluster.effects, summary.added + summary.enteredBefore, bench.lines().length],
        [300, 300, 300],
      );
    }
  });
  test('stays at its node while an owner cannot be reached', async (context) => {
    const bench = new Bench(context, [line(1)]);
    bench.cluster.failures.push({ node: 'n2', after: false, code: 'OWNER_UNREACHABLE' });
    await bench.import({ node: nodeId('n2') });
    assert.deepEqual(bench.cluster.asked, ['n2 2-2', 'n2 2-2']);
    assert.deepEqual(
      bench.notes.filter((note) => note.startsWith('tries again')),
      ['tries again: away'],
    );
  });
  test('of one file twice at once has one effect', async (context) => {
    const bench = new Bench(
      context,
      Array.from({ length: 900 }, (_, at) => line(at % 700, at)),
    );
    const both = await Promise.all([
      bench.import({ node: nodeId('n1') }),
      bench.import({ node: nodeId('n4'), results: () => `${bench.results}.2` }),
    ]);
    assert.equal(bench.cluster.effects, 900);
    for (const { added, changed, enteredBefore } of both) assert.equal(added + changed + enteredBefore, 900);
  });
  test('of a file that was entered changes nothing, unless it is asked for again', async (context) => {
    const bench = new Bench(context, [line(1)]);
    await bench.import();
    bench.cluster.cards.set(cardNumber(1), 'changed since');
    await bench.import();
    assert.equal(bench.cluster.cards.get(cardNumber(1)), 'changed since');
    await bench.import({ results: () => `${bench.results}.again`, again: true });
    assert.equal(bench.cluster.cards.get(cardNumber(1)), '5');
  });
  test('never adds to the results of another file', async (context) => {
    const bench = new Bench(context, [line(1)]);
    await bench.import();
    appendFileSync(bench.path, `${line(2)}\n`);
    await assert.rejects(bench.import(), /has the results of another import: remove it/);
    assert.equal(bench.cluster.effects, 1);
  });
  test('keeps to its rate, in portions', async (context) => {
    const bench = new Bench(
      context,
      Array.from({ length: 60 }, (_, at) => line(at)),
    );
    const startMs = realClock.monotonicMs();
    await bench.import({ rate: 200 });
    assert.ok(realClock.monotonicMs() - startMs >= 190, 'two waits of 100 ms');
    assert.equal(bench.cluster.asked.length, 3);
  });
});
