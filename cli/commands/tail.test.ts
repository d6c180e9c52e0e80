import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { ManualClock } from '../../base/manual-clock.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { LogReader } from './log-reader.ts';
import { readProcesses, readSince, tail, type TailOptions } from './tail.ts';
import { topology } from './testing.ts';

const noonMs = Date.parse('2026-03-01T12:00:00.000Z');

/** A log line as a node writes it, so many milliseconds after noon. */
function logLine(afterMs: number, process: string, message: string, more: object = {}): string {
  const time = new Date(noonMs + afterMs).toISOString();
  return `${JSON.stringify({ level: 'info', time, process, pid: 1, ...more, msg: message })}\n`;
}

class Bench {
  readonly folder: string;
  readonly clock = new ManualClock();
  readonly printed: string[] = [];
  #end: () => void = () => undefined;
  #tail: Promise<void> = Promise.resolve();

  constructor(context: TestContext) {
    this.folder = join(temporaryFolder(context), 'data');
  }

  file(process: string, name = 'node.log'): string {
    mkdirSync(join(this.folder, process), { recursive: true });
    return join(this.folder, process, name);
  }

  write(process: string, ...lines: readonly string[]): void {
    appendFileSync(this.file(process), lines.join(''));
  }

  /** Everything that is there now. */
  async show(changes: Partial<TailOptions> = {}): Promise<readonly string[]> {
    await tail(this.#context, { ...everything, ...changes, follow: false }, Promise.resolve());
    return this.printed.splice(0);
  }

  follow(changes: Partial<TailOptions> = {}): void {
    const ended = new Promise<void>((resolve) => (this.#end = resolve));
    this.#tail = tail(this.#context, { ...everything, ...changes, follow: true }, ended);
  }

  /** What is printed in the next look, messages alone. */
  async look(): Promise<readonly string[]> {
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    this.clock.advance(200);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    return this.printed.splice(0).map((line) => line.replace(/^\S+ (\S+) +\w+ +/, '$1 '));
  }

  async end(): Promise<readonly string[]> {
    this.#end();
    await this.#tail;
    return this.printed.splice(0);
  }

  get #context(): Parameters<typeof tail>[0] {
    return { dataFolder: this.folder, clock: this.clock, print: (line) => void this.printed.push(line) };
  }
}

const everything: TailOptions = {
  processes: ['n1', 'n2', 'w1'],
  level: 'trace',
  sinceMs: undefined,
  text: undefined,
  json: false,
  follow: false,
};

test('the logs of all processes stand in the order of their times, in readable lines', async (context) => {
  const bench = new Bench(context);
  bench.write(
    'n1',
    logLine(10, 'n1', 'leads the group', { event: 'elected', group: 'a', term: 2 }),
    logLine(30, 'n1', 'x'),
  );
  bench.write('n2', logLine(20, 'n2', 'refused', { level: 'warn', reason: 'two words', at: { port: 1 } }));
  assert.deepEqual(await bench.show(), [
    '2026-03-01T12:00:00.010Z n1 info  leads the group  event=elected group=a term=2',
    '2026-03-01T12:00:00.020Z n2 warn  refused  reason="two words" at={"port":1}',
    '2026-03-01T12:00:00.030Z n1 info  x',
  ]);
});

test('as JSON the lines are as they are in the logs', async (context) => {
  const bench = new Bench(context);
  const line = logLine(10, 'n1', 'leads', { term: 2 });
  bench.write('n1', line);
  assert.deepEqual(await bench.show({ json: true }), [line.trimEnd()]);
});

test('processes, level, time and text choose lines; without time and text the last twenty are shown', async (context) => {
  const bench = new Bench(context);
  for (let at = 0; at < 30; at++) bench.write('n1', logLine(at * 1000, 'n1', `line ${at}`, { attempt: `n1.1.${at}` }));
  bench.write('n2', logLine(29_500, 'n2', 'bad', { level: 'error', attempt: 'n1.1.3' }));
  assert.equal((await bench.show()).length, 20);
  assert.equal((await bench.show({ processes: ['n2'] })).length, 1);
  assert.match((await bench.show({ level: 'warn' })).join(), /n2 error bad/);
  assert.equal((await bench.show({ sinceMs: noonMs + 5000 })).length, 26);
  const found = await bench.show({ text: '"n1.1.3"' });
  assert.deepEqual(
    found.map((line) => line.slice(25)),
    ['n1 info  line 3  attempt=n1.1.3', 'n2 error bad  attempt=n1.1.3'],
    'a request is found at its edge and at its owner, however long ago',
  );
});

test("a crash's last words are shown, and no card number and nothing that a terminal would act on", async (context) => {
  const bench = new Bench(context);
  bench.write('n1', logLine(10, 'n1', 'escape \u001b[2J'));
  writeFileSync(bench.file('n1', 'output.log'), 'quadrant: card 4000001234567899\n\n');
  const lines = await bench.show();
  assert.ok(lines.some((line) => line.endsWith('n1 info  escape \\x1b[2J')));
  assert.ok(lines.some((line) => line.endsWith('n1 error quadrant: card 400000******7899  event=output')));
});

test('it follows: lines of one look are merged, and end after what is there when it is ended', async (context) => {
  const bench = new Bench(context);
  bench.write('n1', logLine(0, 'n1', 'before'));
  bench.follow();
  assert.deepEqual(await bench.look(), ['n1 before']);
  bench.write('n1', logLine(100, 'n1', 'second'));
  assert.deepEqual(await bench.look(), []);
  bench.write('n2', logLine(50, 'n2', 'first'), logLine(150, 'n2', 'third'));
  assert.deepEqual(await bench.look(), ['n2 first', 'n1 second']);
  bench.write('w1', logLine(160, 'w1', 'last'));
  assert.deepEqual(
    (await bench.end()).map((line) => line.slice(25)),
    ['n2 info  third', 'w1 info  last'],
  );
});

test('a log that appears later is followed from its beginning, a line without its end is waited for', async (context) => {
  const bench = new Bench(context);
  bench.write('n1', logLine(0, 'n1', 'there'));
  bench.follow();
  await bench.look();
  const line = logLine(10, 'n2', 'new \u00e9');
  const bytes = Buffer.from(line);
  const middle = bytes.indexOf(0xc3) + 1;
  writeFileSync(bench.file('n2'), bytes.subarray(0, middle));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], []);
  appendFileSync(bench.file('n2'), bytes.subarray(middle));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], ['n2 new \u00e9']);
  await bench.end();
});

test('a log that is renamed or cut goes on: nothing is lost, nothing comes twice', async (context) => {
  const bench = new Bench(context);
  bench.write('n1', logLine(0, 'n1', 'one'));
  bench.follow();
  await bench.look();
  bench.write('n1', logLine(10, 'n1', 'two'));
  renameSync(bench.file('n1'), bench.file('n1', 'node.log.1'));
  appendFileSync(bench.file('n1', 'node.log.1'), logLine(20, 'n1', 'three'));
  bench.write('n1', logLine(30, 'n1', 'four'));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], ['n1 two', 'n1 three', 'n1 four']);
  truncateSync(bench.file('n1'), 0);
  bench.write('n1', logLine(40, 'n1', '5'));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], ['n1 5']);
  rmSync(bench.file('n1'));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], []);
  bench.write('n1', logLine(50, 'n1', 'six'));
  assert.deepEqual([...(await bench.look()), ...(await bench.look())], ['n1 six']);
  await bench.end();
});

test('where there is no log at all it says so and where it looked', async (context) => {
  const bench = new Bench(context);
  await assert.rejects(bench.show(), { code: 'LOG_MISSING', message: /^no log of n1, n2, w1 is in .*no such folder$/ });
  bench.write('n1', logLine(0, 'n1', 'x'));
  await assert.rejects(bench.show({ processes: ['n2'] }), { code: 'LOG_MISSING', message: /^no log of n2 is in/ });
});

test('in a large log the lines since a time, and the last ones, are found without reading it all', (context) => {
  const file = join(temporaryFolder(context), 'node.log');
  const filler = '\u00e9'.repeat(200);
  const count = 8000;
  const line = (at: number): string => JSON.stringify({ time: new Date(noonMs + at).toISOString(), at, filler });
  writeFileSync(file, Array.from({ length: count }, (_, at) => `${line(at)}\n`).join(''));
  const rest = (reader: LogReader): number[] => {
    const found: number[] = [];
    reader.read((text) => found.push((JSON.parse(text) as { at: number }).at));
    reader.close();
    return found;
  };
  for (const since of [0, 1, 3999, 7998, 7999, 8000]) {
    const reader = new LogReader(file);
    let asked = 0;
    reader.seek((text) => {
      asked += 1;
      return (JSON.parse(text) as { at: number }).at < since;
    });
    const found = rest(reader);
    assert.ok(found[0] === undefined || found[0] <= since, `begins at ${found[0] ?? 'the end'}`);
    assert.equal(found.at(-1), count - 1);
    assert.ok(found.length < count - since + 2000 && asked < 10, `${found.length} lines, ${asked} looks`);
  }
  const length = Buffer.byteLength(`${line(count - 1)}\n`);
  for (const [bytes, first] of [
    [length, count - 1],
    [length + 1, count - 1],
    [length - 1, undefined],
    [2 * length, count - 2],
    [1e9, 0],
  ] as const) {
    const reader = new LogReader(file);
    reader.seekEnd(bytes);
    assert.equal(rest(reader)[0], first, `${bytes} bytes`);
  }
});

test('times and processes of the command line', () => {
  assert.equal(readSince('30s', noonMs), noonMs - 30_000);
  assert.equal(readSince('2h', noonMs), noonMs - 7_200_000);
  assert.equal(readSince('2026-03-01T11:00:00Z', noonMs), noonMs - 3_600_000);
  for (const text of ['', '10', 'yesterday', '2026-13-01', '10 m'])
    assert.equal(readSince(text, noonMs), undefined, text);
  assert.deepEqual(readProcesses(topology, undefined), ['n1', 'n2', 'n3', 'n4', 'w1']);
  assert.deepEqual(readProcesses(topology, 'w1,n2'), ['n2', 'w1']);
  assert.throws(() => readProcesses(topology, 'n2,n9'), { message: /there is no node or witness "n9"/ });
});
