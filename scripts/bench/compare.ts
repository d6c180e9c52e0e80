import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

import Database from 'better-sqlite3';

import { groupId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { compareGroup } from '../../compare/compare.ts';
import { answerCompareCall, type CompareCall, type CompareSide } from '../../compare/protocol.ts';
import { tablesOf } from '../../compare/tables.ts';
import { chainEntry, encodeBody, originPosition, type LogEntry } from '../../store/entry.ts';
import { GroupFile, noFold } from '../../store/group-file.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';

/**
 * Compare of two copies of a log, each behind a worker thread of one process, messages as JSON text: time and bytes of
 * answers, for copies that are equal and for ten differences. `node scripts/bench/compare.ts [ROWS]`.
 */
const group = groupId('a');
const tables = tablesOf(group).slice(0, 1);

if (isMainThread) await main(Number(process.argv[2] ?? 1_000_000));
else answer(String(workerData));

function answer(path: string): void {
  const reader = SnapshotReader.open(path);
  parentPort?.on('message', (text: string) => {
    parentPort?.postMessage(
      JSON.stringify(
        answerCompareCall(
          reader,
          tables,
          JSON.parse(text) as Exclude<CompareCall, { kind: 'integrity' | 'recompute' | 'close' }>,
        ),
      ),
    );
  });
}

async function main(rows: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-'));
  try {
    const first = join(folder, 'n1.db');
    writeLog(first, rows);
    const second = join(folder, 'n2.db');
    copyFileSync(first, second);
    await report('equal', rows, [first, second], false);
    await report('equal, chain verified', rows, [first, second], true);
    const every = Math.floor(rows / 10);
    const database = new Database(second);
    database.exec(`UPDATE log SET term = term + 1 WHERE log_index % ${every} = ${Math.floor(every / 2)}`);
    database.close();
    await report('10 differences', rows, [first, second], false);
    await report('10 differences, chains verified', rows, [first, second], true);
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

async function report(name: string, rows: number, paths: readonly string[], verifyChain: boolean): Promise<void> {
  const workers = paths.map((path) => new Worker(new URL(import.meta.url), { workerData: path }));
  const sides = workers.map((worker, at): CompareSide => {
    const waiting: ((reply: unknown) => void)[] = [];
    worker.on('message', (text: string) => waiting.shift()?.(JSON.parse(text)));
    return {
      node: `n${at + 1}`,
      holds: 'log',
      call: (call) =>
        new Promise((resolve) => {
          waiting.push(resolve);
          worker.postMessage(JSON.stringify(call));
        }),
    };
  });
  const start = realClock.monotonicMs();
  const result = await compareGroup({
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
  const seconds = ((realClock.monotonicMs() - start) / 1_000).toFixed(2);
  const [table] = result.tables;
  const found = (table?.differences.length ?? 0) + (table?.unlisted ?? 0);
  process.stdout.write(
    `${name}: ${rows} rows, ${table?.blocks ?? 0} blocks, ${found} findings, ${seconds} s, ${result.replyBytes} bytes of answers\n`,
  );
  await Promise.all(workers.map((worker) => worker.terminate()));
}
