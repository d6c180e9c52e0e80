import type Database from 'better-sqlite3';

import type { CardId } from '../base/identifiers.ts';
import { maskCardData } from '../base/pan.ts';
import type { StandIn } from './edge-store.ts';
import type { ResolutionReason, StandInOutcome } from './entry.ts';

/** What became of entries that logs of the group lost (R9), over all nodes. */
export interface ResolutionCounts {
  readonly adopted: number;
  readonly voided: number;
}

/** From a connection to a card group's file. */
export function readResolutionCounts(database: Database.Database): ResolutionCounts {
  const rows = database
    .prepare<[], { outcome: string; count: number }>('SELECT outcome, count(*) AS count FROM resolution GROUP BY 1')
    .all();
  const of = (outcome: string): number => rows.find((row) => row.outcome === outcome)?.count ?? 0;
  return { adopted: of('adopted'), voided: of('voided') };
}

/** An approval that an edge gave by itself; money as whole minor units in the card's currency, no card data. */
export interface StandInApproval {
  /** The edge, and its own number for it. */
  readonly node: string;
  readonly sequence: number;
  readonly group: string;
  /** Surrogate id, masked as everything that is shown. */
  readonly card: string;
  readonly amountMinor: string;
  readonly currency: string;
  /** When the edge approved, milliseconds since 1970. */
  readonly at: number;
  /** pending: in the edge's own file only. entered: in the group's log. */
  readonly state: 'pending' | 'entered';
  /** Of an entered one. */
  readonly outcome: StandInOutcome | '';
  /** By how much it went over what the card had left when it was entered. */
  readonly overspentMinor: string;
}

interface StandInRow {
  readonly node: string;
  readonly sequence: bigint;
  readonly card_id: string;
  readonly amount_minor: bigint;
  readonly currency: string | null;
  readonly approved_at_ms: bigint;
  readonly outcome: StandInOutcome;
  readonly overspent_minor: bigint;
}

/** The newest approvals in stand-in that a card group's log has, from a connection to its file. */
export function readStandIns(database: Database.Database, group: string, limit: number): StandInApproval[] {
  return database
    .prepare<[number], StandInRow>(
      'SELECT stand_in.*, card.currency FROM stand_in LEFT JOIN card USING (card_id) ORDER BY log_index DESC LIMIT ?',
    )
    .safeIntegers(true)
    .all(limit)
    .map((row) => ({
      node: row.node,
      sequence: Number(row.sequence),
      group,
      card: maskCardData(row.card_id),
      amountMinor: row.amount_minor.toString(),
      currency: row.currency ?? '',
      at: Number(row.approved_at_ms),
      state: 'entered',
      outcome: row.outcome,
      overspentMinor: row.overspent_minor.toString(),
    }));
}

/** How many of this edge's approvals the card group's log has. */
export function countStandIns(database: Database.Database, node: string): number {
  const count = database.prepare<[string], number>('SELECT count(*) FROM stand_in WHERE node = ?').pluck().get(node);
  return count ?? 0;
}

/** Those of this edge that no log has yet. */
export function pendingStandIns(node: string, standIns: Iterable<StandIn>): StandInApproval[] {
  return [...standIns].map(({ sequence, group, currency, decision }) => ({
    node,
    sequence,
    group,
    card: maskCardData(decision.request.card),
    amountMinor: (BigInt(decision.hold) + BigInt(decision.post)).toString(),
    currency,
    at: decision.at,
    state: 'pending',
    outcome: '',
    overspentMinor: '0',
  }));
}

/** What came of approvals that were lost with an owner and are not in the log any more (R9), by duplicate key. */
export function voidedByKey(
  database: Database.Database,
  keys: readonly string[],
): ReadonlyMap<string, ResolutionReason> {
  const rows = database
    .prepare<[string], { key: string; reason: ResolutionReason }>(
      'SELECT request_key AS "key", reason FROM resolution' +
        " WHERE outcome = 'voided' AND request_key IN (SELECT value FROM json_each(?))",
    )
    .all(JSON.stringify(keys));
  return new Map(rows.map(({ key, reason }) => [key, reason]));
}

/** How many entries of the card were lost with an owner and adopted or voided since (R9). */
export function countResolutions(database: Database.Database, card: CardId): number {
  const sql = 'SELECT count(*) FROM resolution WHERE card_id = ?';
  return database.prepare<[CardId], number>(sql).pluck().get(card) ?? 0;
}
