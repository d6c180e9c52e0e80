import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import Database from 'better-sqlite3';

import { cardId, type CardId, type GroupId } from '../base/identifiers.ts';
import { seededRandom } from '../base/random.ts';
import {
  chainEntry,
  encodeBody,
  originPosition,
  type CardImport,
  type EntryBody,
  type LogEntry,
  type RequestRecord,
} from './entry.ts';
import { GroupFile, type Fold } from './group-file.ts';

/** For tests and benches of compare: files of groups as nodes make them, and what a person does to one in a shell. */

export function temporaryFolder(context: Pick<TestContext, 'after'>): string {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-compare-'));
  context.after(() => {
    rmSync(folder, { recursive: true });
  });
  return folder;
}

/** A purchase of 50.00 USD. */
export function requestRecord(card: CardId, key: string, changes: Partial<RequestRecord> = {}): RequestRecord {
  return {
    key,
    mtiClass: '0100',
    link: 'link-1',
    card,
    acquirer: '1',
    terminal: 'TERM0001',
    merchant: 'M',
    stan: '000001',
    transmission: '0301120000',
    rrn: '1',
    processingCode: '000000',
    amount: '5000',
    currency: '840',
    businessDate: '2026-03-01',
    ...changes,
  };
}

/** A card in good standing, with nobody's number. */
export function cardImport(changes: Partial<CardImport> = {}): CardImport {
  return {
    bin: '40000000',
    panHash: 'hash',
    panKeyVersion: 1,
    panCipher: 'cipher',
    expiry: '2812',
    status: 'active',
    currency: '840',
    limit: '100000',
    ...changes,
  };
}

/** A log that ends with the mark: cards first, then decisions, some reversals of requests nobody has seen. */
export function sampleLog(group: GroupId, decisions: number, cards = 50): LogEntry[] {
  const random = seededRandom(decisions);
  const at = 1_760_000_000_000;
  const hex = (length: number): string => random.bytes(length).toString('hex');
  const request = (index: number, mtiClass: '0100' | '0400') => ({
    key: `1009085320|${String(index % 1_000_000).padStart(6, '0')}|link1|40000000001|TERM0001|${mtiClass}|${index}`,
    mtiClass,
    link: 'link1',
    card: cardId(group, 1, 1, index % cards),
    acquirer: '40000000001',
    terminal: 'TERM0001',
    merchant: 'MERCHANT0000001',
    stan: String(index % 1_000_000).padStart(6, '0'),
    transmission: '1009085320',
    rrn: String(index).padStart(12, '0'),
    processingCode: '000000',
    amount: String(100 + random.below(9_900)),
    currency: '840',
    businessDate: '2025-10-09',
  });
  const bodyAt = (index: number): EntryBody => {
    if (index === 1) {
      const added = Array.from({ length: cards }, () => ({
        bin: '40000000',
        panHash: hex(32),
        panKeyVersion: 1,
        panCipher: random.bytes(44).toString('base64'),
        expiry: '2812',
        status: 'active' as const,
        currency: '840',
        limit: '500000',
      }));
      return { kind: 'cards', at, by: 'sample', added, origin: 'n1', changes: [] };
    }
    const decided = { at: at + index, configIndex: 3, durability: 'quorum', attempt: `n1.1.${index}` } as const;
    if (index % 20 === 0) {
      const tombstone = { by: 'rrn', rrn: `R${index}` } as const;
      const reversal = { ...decided, kind: 'reversal', request: request(index, '0400'), responseCode: '25' } as const;
      return { ...reversal, original: 0, remaining: '0', tombstone };
    }
    const asked = request(index, '0100');
    const answer = { responseCode: '00', authorizationCode: hex(3).toUpperCase(), additionalAmounts: '' };
    const effects = { hold: asked.amount, holdExpiresAt: at + 604_800_000 + index, post: '0', completes: 0 };
    return { ...decided, kind: 'decision', request: asked, ...answer, ...effects };
  };
  return chained(group, [
    ...Array.from({ length: decisions + 1 }, (_, position) => bodyAt(position + 1)),
    { kind: 'mark', at, compare: 'compare-1' },
  ]);
}

/** The bodies as entries of term 1. */
export function chained(group: GroupId, bodies: readonly EntryBody[]): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const body of bodies) entries.push(chainEntry(entries.at(-1) ?? originPosition(group), 1, encodeBody(body)));
  return entries;
}

/** Writes the log into a file and applies it to its end; only what stands in the file's main part is left. */
export function writeFile(path: string, group: GroupId, entries: readonly LogEntry[], fold: Fold): void {
  const file = GroupFile.open(path, group, 'test', fold);
  const batch = 10_000;
  for (let at = 0; at < entries.length; at += batch) {
    const part = entries.slice(at, at + batch);
    file.write({ entries: part, keepThrough: undefined, applyThrough: entries.length });
  }
  while (file.applied < entries.length) {
    file.write({ entries: [], keepThrough: undefined, applyThrough: entries.length });
  }
  file.close();
}

/** A second copy, byte by byte. */
export function copyFile(from: string, to: string): string {
  copyFileSync(from, to);
  return to;
}

/** The same rows in another page layout: inserted in random order, with other pages, vacuumed. */
export function relayFile(path: string, pageSize: number): void {
  const database = new Database(path);
  const tables = database
    .prepare<[], string>("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    .pluck()
    .all();
  database.pragma('journal_mode = DELETE');
  for (const table of tables) {
    database.exec(
      `CREATE TEMP TABLE shuffled AS SELECT * FROM ${table} ORDER BY random(); DELETE FROM ${table};
       INSERT INTO ${table} SELECT * FROM shuffled; DROP TABLE shuffled;`,
    );
  }
  database.pragma(`page_size = ${pageSize}`);
  database.exec('VACUUM');
  database.pragma('journal_mode = WAL');
  database.close();
}

/** What a person does with the plain shell: past the node, its log and its checks. Gives the number of changed rows. */
export function editByHand(path: string, sql: string, ...parameters: unknown[]): number {
  const database = new Database(path);
  database.pragma('synchronous = OFF');
  try {
    return database.prepare(sql).run(...parameters).changes;
  } finally {
    database.close();
  }
}

/** Several statements at once. */
export function runByHand(path: string, sql: string): void {
  const database = new Database(path);
  database.pragma('synchronous = OFF');
  try {
    database.exec(sql);
  } finally {
    database.close();
  }
}

/** First columns of a query's rows. */
export function readByHand(path: string, sql: string): unknown[] {
  const database = new Database(path, { readonly: true });
  try {
    return database.prepare(sql).pluck().all();
  } finally {
    database.close();
  }
}

/** A query's rows, whole. */
export function rowsByHand(path: string, sql: string): unknown[] {
  const database = new Database(path, { readonly: true });
  try {
    return database.prepare(sql).raw().all();
  } finally {
    database.close();
  }
}
