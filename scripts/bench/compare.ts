import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import Database from 'better-sqlite3';

import { groupId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { medianOf } from '../../base/statistics.ts';
import { compareGroup } from '../../compare/compare.ts';
import { CompareDesk } from '../../compare/desk.ts';
import type { CompareCall, CompareSide } from '../../compare/protocol.ts';
import type { GroupResult } from '../../compare/result.ts';
import { tablesOf } from '../../compare/tables.ts';
import { chainEntry, encodeBody, originPosition, type LogEntry } from '../../store/entry.ts';
import { GroupFile, noFold } from '../../store/group-file.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';

/**
 * `npm run bench:compare [ROWS]`: two copies of a log, each behind a process of its own, beside `sqldiff` (Debian:
 * sqlite3-tools) on the same two files in turn, medians of five; time, bytes of both sides' calls and answers, memory.
 * The files are warm in the system's cache, for both.
 */
const group = groupId('a');
const tables = tablesOf(group).slice(0, 1);
const differences = 10;
const runs = 5;
const side = process.argv[2] === 'side' ? process.argv[3] : undefined;

function answer(path: string): void {
  const integrityFaults = (): Promise<readonly string[]> => Promise.resolve([]);
  const reader = SnapshotReader.open(path);
  const desk = new CompareDesk({ reader, tables, recomputation: undefined, integrityFaults });
  process.on('message', (text: string) => {
    const call = JSON.parse(text) as CompareCall;
    process.send?.(JSON.stringify(desk.answer(call)));
    if (call.kind === 'close') {
      process.send?.(JSON.stringify(process.resourceUsage().maxRSS));
      process.disconnect();
    }
  });
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
    await measure('no difference', rows, [first, same], 0, false);
    const every = Math.floor(rows / differences);
    for (const path of [same, other]) {
      run(path, `UPDATE log SET term = term + 1 WHERE log_index % ${every} = ${Math.floor(every / 2)}`);
    }
    await measure(`${differences} differences, same page layout`, rows, [first, same], differences, false);
    await measure(`${differences} differences, other page layout`, rows, [first, other], differences, false);
    await measure(`${differences} differences, hash chains verified`, rows, [first, same], differences, true);
  } finally {
    rmSync(folder, { recursive: true });
  }
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
): Promise<void> {
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
      ` bytes to and from each side ${last?.bytes.join(', ') ?? ''}; memory of each ${last?.memoryMb.join(', ') ?? ''} MB` +
      (wrong === undefined ? '' : `; WRONG: ${wrong.found} differences instead of ${expected}`),
  );
}

interface Measured {
  readonly seconds: number;
  readonly bytes: readonly number[];
  readonly memoryMb: readonly number[];
  readonly found: number;
}

async function compareOnce(rows: number, paths: readonly string[], verifyChain: boolean): Promise<Measured> {
  const callees = paths.map((path) => new Callee(fork(import.meta.filename, ['side', path])));
  const sides = callees.map((callee, at): CompareSide => {
    return { node: `n${at + 1}`, holds: 'log', call: (call) => callee.call(call) };
  });
  // Both processes are up: what is measured is the compare.
  await Promise.all(callees.map((callee) => callee.call({ kind: 'position', compare: 'bench', group, index: 0 })));
  const start = realClock.monotonicMs();
  const result: GroupResult = await compareGroup({
    compare: 'bench',
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
  readonly #waiting: ((text: string) => void)[] = [];

  constructor(child: ChildProcess) {
    this.#child = child;
    this.memoryMb = new Promise((resolve) => {
      child.on('message', (text: string) => {
        const waiting = this.#waiting.shift();
        if (waiting === undefined) {
          resolve(Math.round(Number(text) / 1_024));
          return;
        }
        this.bytes += Buffer.byteLength(text);
        waiting(text);
      });
    });
  }

  async call(call: CompareCall): Promise<unknown> {
    const text = JSON.stringify(call);
    this.bytes += Buffer.byteLength(text);
    const reply = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.#child.send(text);
    return JSON.parse(await reply) as unknown;
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

if (side === undefined) await main(Number(process.argv[2] ?? 1_000_000));
else answer(side);
