import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import Database from 'better-sqlite3';

import { groupId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { CompareReaders } from '../../cli/node/compare-readers.ts';
import { compareGroup } from '../../compare/compare.ts';
import { CompareDesk } from '../../compare/desk.ts';
import { packMessage, unpackMessage } from '../../compare/packing.ts';
import { parseCompareCall, type CompareCall, type CompareSide } from '../../compare/protocol.ts';
import type { GroupResult } from '../../compare/result.ts';
import { tablesOf } from '../../compare/tables.ts';
import { chainEntry, encodeBody, originPosition, type LogEntry } from '../../store/entry.ts';
import { GroupFile, noFold } from '../../store/group-file.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';

/**
 * `npm run bench:compare [ROWS]`: two copies of a log, each behind a process of its own, beside `sqldiff` (Debian:
 * sqlite3-tools) on the same two files in turn, medians of five; time, bytes between each process and the one that
 * compares, memory. The files are warm in the system's cache, for both. Then one side alone with one thread and with two,
 * and ten times the rows.
 */
const group = groupId('a');
const tables = tablesOf(group).slice(0, 1);
const compare = 'bench';
const differences = 10;
const runs = 5;
const side = process.argv[2] === 'side' ? process.argv.slice(3) : undefined;

/** As a node's maintenance thread does it. */
async function serve(path: string, workers: number): Promise<void> {
  const integrityFaults = (): Promise<readonly string[]> => Promise.resolve([]);
  const reader = SnapshotReader.open(path);
  const desk = new CompareDesk({ reader, tables, recomputation: undefined, integrityFaults });
  const readers = new CompareReaders(realClock);
  await readers.prepare(compare, { workers });
  await readers.open(compare, group, path, reader.appliedIndex);
  const answer = async (id: string, text: string): Promise<void> => {
    const call = parseCompareCall(unpackMessage(JSON.parse(text)));
    if (call === undefined) throw new Error('not a call');
    const reply = (await readers.answer(call)) ?? desk.answer(call);
    process.send?.(`${id} ${JSON.stringify(packMessage(reply))}`);
    if (call.kind !== 'close') return;
    process.send?.(`memory ${process.resourceUsage().maxRSS}`);
    readers.end();
    process.disconnect();
  };
  process.on('message', (message: string) => {
    const at = message.indexOf(' ');
    void answer(message.slice(0, at), message.slice(at + 1));
  });
  process.send?.('ready 0');
}

async function main(rows: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  try {
    const first = join(folder, 'n1.db');
    writeLog(first, rows);
    const same = join(folder, 'n2.db');
    copyFileSync(first, same);
    const other = join(folder, 'n3.db');
    copyFileSync(first, other);
    run(other, 'PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = WAL');
    print(
      `${rows} log rows of about ${Math.round(statSync(first).size / rows)} bytes, two processes, medians of ${runs}`,
    );
    const equal = await measure('no difference', rows, [first, same], 0, false);
    const every = Math.floor(rows / differences);
    for (const path of [same, other]) {
      run(path, `UPDATE log SET term = term + 1 WHERE log_index % ${every} = ${Math.floor(every / 2)}`);
    }
    await measure(`${differences} differences, same page layout`, rows, [first, same], differences, false);
    await measure(`${differences} differences, other page layout`, rows, [first, other], differences, false);
    await measure(`${differences} differences, hash chains verified`, rows, [first, same], differences, true);
    await measureAlone(rows, first);
    for (const path of [first, same, other]) rmSync(path);
    await measureTenfold(folder, rows, equal);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** One side digests its whole log, block by block. */
async function measureAlone(rows: number, path: string): Promise<void> {
  const seconds: number[][] = [[], []];
  for (let run = 0; run < runs; run++) {
    for (const workers of [1, 2]) {
      const callee = await Callee.start(path, workers);
      const step = 131_072;
      let from = 0;
      const start = realClock.monotonicMs();
      const worker = async (): Promise<void> => {
        while (from < rows) {
          const even: readonly [number, number] = [from, Math.min(rows, from + step)];
          from = even[1];
          const ranges = [{ after: [`i${even[0]}`], even }];
          await callee.call({ kind: 'digests', compare, group, table: 'log', ranges, size: 8_192 });
        }
      };
      await Promise.all(Array.from({ length: workers }, worker));
      seconds[workers - 1]?.push((realClock.monotonicMs() - start) / 1_000);
      await callee.call({ kind: 'close', compare, group });
    }
  }
  const [one = 0, two = 0] = seconds.map((each) => medianOf(each));
  print(
    `one side alone: ${one.toFixed(2)} s with one thread, ${two.toFixed(2)} s with two: ${(one / two).toFixed(2)} times faster`,
  );
}

async function measureTenfold(folder: string, rows: number, equal: number): Promise<void> {
  const first = join(folder, 'tenfold-1.db');
  writeLog(first, 10 * rows);
  const second = join(folder, 'tenfold-2.db');
  copyFileSync(first, second);
  await compareOnce(10 * rows, [first, second], false);
  const { seconds, memoryMb, bytes, found } = await compareOnce(10 * rows, [first, second], false);
  print(
    `${10 * rows} rows, no difference: ${seconds.toFixed(2)} s, ${(seconds / equal).toFixed(1)} times that of ${rows};` +
      ` bytes ${bytes.join(', ')}; memory of each ${memoryMb.join(', ')} MB${found === 0 ? '' : '; WRONG'}`,
  );
}

/** About 205 bytes a row with its hash, as in the figures of the design. */
function writeLog(path: string, rows: number): void {
  const file = GroupFile.open(path, group, 'bench', noFold);
  const filler = 'x'.repeat(90);
  const batch = 10_000;
  for (let at = 0; at < rows; at += batch) {
    const entries: LogEntry[] = [];
    for (let term = at; term < Math.min(at + batch, rows); term++) {
      const body = encodeBody({ kind: 'no-op', leader: filler, term });
      entries.push(chainEntry(entries.at(-1) ?? (at === 0 ? originPosition(group) : file.last), 1, body));
    }
    file.write({ entries, keepThrough: undefined, applyThrough: rows });
  }
  file.close();
}

async function measure(
  name: string,
  rows: number,
  paths: readonly [string, string],
  expected: number,
  verifyChain: boolean,
): Promise<number> {
  const [ours, theirs]: [Measured[], number[]] = [[], []];
  for (let run = 0; run < runs; run++) {
    theirs.push(sqldiffSeconds(paths));
    ours.push(await compareOnce(rows, paths, verifyChain));
  }
  const wrong = ours.find(({ found }) => found !== expected);
  const last = ours.at(-1);
  const seconds = medianOf(ours.map((each) => each.seconds));
  const baseline = medianOf(theirs);
  print(
    `${name}: ${seconds.toFixed(2)} s, sqldiff ${baseline.toFixed(2)} s, ratio ${(seconds / baseline).toFixed(2)};` +
      ` bytes to and from each side ${last?.bytes.join(', ') ?? ''}, together ${(last?.bytes ?? []).reduce((sum, each) => sum + each, 0)}; memory of each ${last?.memoryMb.join(', ') ?? ''} MB` +
      (wrong === undefined ? '' : `; WRONG: ${wrong.found} differences instead of ${expected}`),
  );
  return seconds;
}

interface Measured {
  readonly seconds: number;
  readonly bytes: readonly number[];
  readonly memoryMb: readonly number[];
  readonly found: number;
}

async function compareOnce(rows: number, paths: readonly string[], verifyChain: boolean): Promise<Measured> {
  // Both processes are up: what is measured is the compare.
  const callees = await Promise.all(paths.map((path) => Callee.start(path, 1)));
  const sides = callees.map((callee, at): CompareSide => {
    return { node: `n${at + 1}`, holds: 'log', call: (call) => callee.call(call) };
  });
  const start = realClock.monotonicMs();
  const result: GroupResult = await compareGroup({
    compare,
    group,
    markIndex: rows,
    sides,
    tables,
    topology: undefined,
    clock: realClock,
    openTimeoutMs: 60_000,
    callTimeoutMs: 60_000,
    verifyChain,
  });
  const seconds = (realClock.monotonicMs() - start) / 1_000;
  const memoryMb = await Promise.all(callees.map((callee) => callee.memoryMb));
  const rowsFound = result.tables.flatMap((table) => table.differences).filter(({ kind }) => kind !== 'broken-chain');
  return { seconds, bytes: callees.map(({ bytes }) => bytes), memoryMb, found: rowsFound.length };
}

/** A side in another process: every message is counted, as it would travel. */
class Callee {
  bytes = 0;
  readonly memoryMb: Promise<number>;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, (text: string) => void>();
  #next = 1;

  static async start(path: string, workers: number): Promise<Callee> {
    const callee = new Callee(fork(import.meta.filename, ['side', path, String(workers)]));
    await callee.#answerTo('ready');
    return callee;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.memoryMb = this.#answerTo('memory').then((text) => Math.round(Number(text) / 1_024));
    child.on('message', (message: string) => {
      const at = message.indexOf(' ');
      this.#waiting.get(message.slice(0, at))?.(message.slice(at + 1));
      this.#waiting.delete(message.slice(0, at));
    });
  }

  async call(call: CompareCall): Promise<unknown> {
    const id = String(this.#next++);
    const text = JSON.stringify(packMessage(call));
    const answer = this.#answerTo(id);
    this.#child.send(`${id} ${text}`);
    const reply = await answer;
    this.bytes += Buffer.byteLength(text) + Buffer.byteLength(reply);
    return JSON.parse(reply) as unknown;
  }

  #answerTo(id: string): Promise<string> {
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }
}

function run(path: string, sql: string): void {
  const database = new Database(path);
  database.exec(sql);
  database.close();
}

function sqldiffSeconds(paths: readonly [string, string]): number {
  const start = realClock.monotonicMs();
  const { status, error } = spawnSync('sqldiff', ['--table', 'log', ...paths], { maxBuffer: 64 * 1024 * 1024 });
  if (status !== 0) throw error ?? new Error('sqldiff failed; Debian has it in sqlite3-tools');
  return (realClock.monotonicMs() - start) / 1_000;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

if (side === undefined) {
  await main(Number(process.argv[2] ?? 1_000_000));
  process.exit();
}
await serve(side[0] ?? '', Number(side[1] ?? 1));
