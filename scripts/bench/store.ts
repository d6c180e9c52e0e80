/**
 * The store alone: a group's file appending and applying decisions in groups of fixed size, durably, against bare
 * better-sqlite3 inserting the same bytes in transactions of the same size on the same disk.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { realClock } from '../../base/real.ts';
import { cardId, groupId } from '../../base/identifiers.ts';
import { medianOf } from '../../base/statistics.ts';
import {
  chainEntry,
  encodeBody,
  originPosition,
  type EntryBody,
  type LogEntry,
  type LogPosition,
} from '../../store/entry.ts';
import { GroupFile } from '../../store/group-file.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { BareInserts } from './bare-inserts.ts';

export interface StoreBench {
  readonly groupSize: number;
  readonly oursPerSecond: number;
  readonly barePerSecond: number;
  /** Ours over bare. */
  readonly ratio: number;
}

const entriesPerRun = 6_000;
const runs = 5;
const group = groupId('bench');

export function benchStore(groupSize: number): StoreBench {
  const folder = mkdtempSync(join(tmpdir(), 'quadrant-bench-store-'));
  try {
    const file = GroupFile.open(join(folder, 'group.db'), group, 'bench', ledgerFold);
    const bare = new BareInserts(join(folder, 'bare.db'));
    const cards = chainEntry(originPosition(group), 1, encodeBody(cardsEntry()));
    file.write({ entries: [cards], keepThrough: undefined, applyThrough: 1 });
    let position: LogPosition = cards;
    const ours: number[] = [];
    const baseline: number[] = [];
    for (let run = 0; run < runs; run++) {
      const batches: LogEntry[][] = [];
      for (let from = 0; from < entriesPerRun; from += groupSize) {
        const batch: LogEntry[] = [];
        for (let at = 0; at < groupSize; at++) {
          const entry = chainEntry(position, 1, encodeBody(decision(position.index)));
          batch.push(entry);
          position = entry;
        }
        batches.push(batch);
      }
      ours.push(
        rate(batches, (batch) =>
          file.write({ entries: batch, keepThrough: undefined, applyThrough: batch.at(-1)?.index ?? 0 }),
        ),
      );
      baseline.push(
        rate(batches, (batch) => {
          bare.insert(batch);
        }),
      );
    }
    file.close();
    bare.close();
    const oursPerSecond = Math.round(medianOf(ours));
    const barePerSecond = Math.round(medianOf(baseline));
    return { groupSize, oursPerSecond, barePerSecond, ratio: oursPerSecond / barePerSecond };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function rate(batches: readonly LogEntry[][], write: (batch: LogEntry[]) => void): number {
  const startedMs = realClock.monotonicMs();
  for (const batch of batches) write(batch);
  const seconds = (realClock.monotonicMs() - startedMs) / 1000;
  return batches.reduce((sum, batch) => sum + batch.length, 0) / seconds;
}

const cardCount = 25_000;

function cardsEntry(): EntryBody {
  return {
    kind: 'cards',
    at: 0,
    by: 'bench',
    origin: 'n1',
    changes: [],
    added: Array.from({ length: cardCount }, (_, at) => ({
      bin: '40000000',
      panHash: at.toString(16).padStart(64, '0'),
      panKeyVersion: 1,
      panCipher: 'c2FtcGxl'.repeat(7),
      expiry: '4012',
      status: 'active',
      currency: '840',
      limit: '900000000000',
    })),
  };
}

function decision(seed: number): EntryBody {
  const stan = String(seed % 1_000_000).padStart(6, '0');
  const transmission = String(1_000_000_000 + seed);
  return {
    kind: 'decision',
    at: 1_764_000_000_000 + seed,
    configIndex: 2,
    durability: 'quorum',
    attempt: `n1.1.${seed}`,
    request: {
      key: `acquirer|900001|TERM0001|${stan}|${transmission}|0100`,
      mtiClass: '0100',
      link: 'acquirer',
      card: cardId(group, 1, 1, (seed * 7919) % cardCount),
      acquirer: '900001',
      terminal: 'TERM0001',
      merchant: 'MERCHANT0000001',
      stan,
      transmission,
      rrn: String(100_000_000_000 + seed),
      processingCode: '000000',
      amount: '1250',
      currency: '840',
      businessDate: '2026-01-01',
    },
    responseCode: '00',
    authorizationCode: stan,
    additionalAmounts: '',
    hold: '1250',
    holdExpiresAt: 1_764_600_000_000,
    post: '0',
    completes: 0,
  };
}
