import { hash } from 'node:crypto';

import type { CardId, GroupId, NodeId } from '../base/identifiers.ts';
import type { CardStatus } from './card-status.ts';

/**
 * One entry of a group's log. `body` is the JSON text of an EntryBody; its bytes, not its meaning, are what the
 * hash covers, so they are replicated and stored exactly as the leader wrote them.
 */
export interface LogEntry {
  readonly index: number;
  readonly term: number;
  readonly body: string;
  /** SHA-256 in hex over the hash before it, index, term and body: two logs that agree here agree on all before. */
  readonly hash: string;
}

/** Where a log stands: the position and hash of one entry; index 0 stands before the first. */
export interface LogPosition {
  readonly index: number;
  readonly term: number;
  readonly hash: string;
}

/** The hash before a group's first entry. The group's name is in it, so no log passes for another group's. */
export function originPosition(group: GroupId): LogPosition {
  return { index: 0, term: 0, hash: hash('sha256', `quadrant log format 1\n${group}`, 'hex') };
}

/** The entry that follows `previous` with this term and body. */
export function chainEntry(previous: LogPosition, term: number, body: string): LogEntry {
  const index = previous.index + 1;
  return { index, term, body, hash: hash('sha256', `${previous.hash} ${index} ${term}\n${body}`, 'hex') };
}

/** Message classes that the ledger records: the MTI with its repeat digit cleared. */
export type MtiClass = '0100' | '0120' | '0200' | '0220' | '0400' | '0420';

export type Durability = 'quorum' | 'local';

/**
 * What an entry keeps of the request that it decided: enough to recognise a repeat, to match reversals and
 * completions and to recompute totals; no card number (R4). Absent fields are empty strings. Amounts are minor
 * units as decimal text, because JSON numbers round.
 */
export interface RequestRecord {
  /** Duplicate key: link, DE 32, DE 41, DE 11, DE 7 and MTI class. */
  readonly key: string;
  readonly mtiClass: MtiClass;
  readonly link: string;
  /** The card's surrogate id; empty when no such card is on file. */
  readonly card: CardId | '';
  /** DE 32 */ readonly acquirer: string;
  /** DE 41 */ readonly terminal: string;
  /** DE 42 */ readonly merchant: string;
  /** DE 11 */ readonly stan: string;
  /** DE 7  */ readonly transmission: string;
  /** DE 37 */ readonly rrn: string;
  /** DE 3  */ readonly processingCode: string;
  /** DE 4  */ readonly amount: string;
  /** DE 49 */ readonly currency: string;
  /** The edge's business date, YYYY-MM-DD. */
  readonly businessDate: string;
}

interface Decided {
  /** Wall clock of the owner when it decided, milliseconds since 1970. */
  readonly at: number;
  /** Index of the `config` log whose fold the decision was made from. */
  readonly configIndex: number;
  readonly durability: Durability;
  /** Which delivery of the request this answers (R5): edge, its boot number, a counter. */
  readonly attempt: string;
  readonly request: RequestRecord;
  /** DE 39 */ readonly responseCode: string;
}

/** An authorization, financial request or advice, decided; with the effects that apply carries out. */
export interface DecisionEntry extends Decided {
  readonly kind: 'decision';
  /** DE 38, six characters when approved, else empty. */
  readonly authorizationCode: string;
  /** DE 54 of the answer, or empty. */
  readonly additionalAmounts: string;
  /** Placed on the card, billing currency, never negative. */
  readonly hold: string;
  readonly holdExpiresAt: number;
  /** Posted to the card, billing currency; negative for credits. */
  readonly post: string;
  /** Log index of the hold that this completes, or 0. */
  readonly completes: number;
  /** Its duplicate key, when there is one: names it in another log too, where its index is another's (R9). */
  readonly completesKey?: string;
}

/** A reversal (0400, 0420), decided. */
export interface ReversalEntry extends Decided {
  readonly kind: 'reversal';
  /** Log index of the transaction that is reversed; 0 when none matched. */
  readonly original: number;
  /** Its duplicate key, when one matched: names it in another log too, where its index is another's (R9). */
  readonly originalKey?: string;
  /** What remains of the original in billing currency: 0 for a full reversal, more after DE 95. */
  readonly remaining: string;
  /** No original was found: what to decline when it comes after all. */
  readonly tombstone: Tombstone | undefined;
}

/** How an original that comes after its reversal is recognised: the first of these that the reversal could give. */
export type Tombstone =
  | {
      readonly by: 'original-data';
      readonly mtiClass: string;
      readonly stan: string;
      readonly transmission: string;
      readonly acquirer: string;
    }
  | { readonly by: 'rrn'; readonly rrn: string }
  | { readonly by: 'stan'; readonly stan: string; readonly amount: string };

/** A card number as it is stored. Hash and ciphertext stand in the entry that brings the number and in the card's row only. */
export interface StoredNumber {
  /** First eight digits of the number (`base/pan.ts`): what the cards of a range are found by. */
  readonly bin: string;
  readonly panHash: string;
  readonly panKeyVersion: number;
  readonly panCipher: string;
}

/** A card as an issuer's file or an operator gives it, and as it comes onto file. */
export interface CardImport extends StoredNumber {
  readonly expiry: string;
  readonly status: CardStatus;
  readonly currency: string;
  readonly limit: string;
}

/**
 * What happens to a card on file; each makes a version of it. Restrictions are named by ids that never come again, so
 * that one which is brought twice counts once, and a lift takes away what it names and nothing else (R11).
 */
export type CardChange =
  | { readonly kind: 'set'; readonly card: CardId; readonly expiry: string; readonly limit: string }
  | {
      readonly kind: 'restrict';
      readonly card: CardId;
      /** Which of the card's numbers: a replaced one may be reported stolen, too. */
      readonly number: number;
      readonly restriction: string;
      readonly status: CardStatus;
      /** Wall clock where it was entered. */
      readonly at: number;
    }
  | { readonly kind: 'lift'; readonly card: CardId; readonly restrictions: readonly string[] }
  | ({
      /** Another number for what the card has: limit, holds, postings, usage. */
      readonly kind: 'replace';
      readonly card: CardId;
      readonly expiry: string;
      /** What the old number is from now on, and the name of the restriction that says so. */
      readonly status: CardStatus;
      readonly restriction: string;
    } & StoredNumber)
  /** Closed; to be purged when nothing can come back for it. */
  | { readonly kind: 'delete'; readonly card: CardId; readonly restriction: string }
  | { readonly kind: 'purge'; readonly card: CardId };

export interface CardsEntry {
  readonly kind: 'cards';
  readonly at: number;
  /** Who entered it, and at which node: for the history. */
  readonly by: string;
  readonly origin: string;
  /** Of a card file: which, and the last of its lines that are here, for each prefix of a mark (`import-marks.ts`). */
  readonly file?: { readonly hash: string; readonly through: Readonly<Record<string, number>> };
  /** New cards: their ids are this entry's term and index and the position here. */
  readonly added: readonly CardImport[];
  readonly changes: readonly CardChange[];
}

/** Holds whose time is over, named by the owner: a node's clock never decides that (R9). */
export interface ExpiryEntry {
  readonly kind: 'expiry';
  readonly at: number;
  readonly holds: readonly number[];
}

/** A change of the configuration, entered as one: `config` group only. */
export interface ConfigurationEntry {
  readonly kind: 'configuration';
  /** Names the change for good, however often it is brought. */
  readonly id: string;
  /**
   * Index of the last change that it was checked against, 0 for none. Where another stands before it in the log it has
   * no effect: nobody overwrites what he has not seen, and nothing is entered that was not checked.
   */
  readonly checkedAt: number;
  readonly at: number;
  readonly by: string;
  /** The node at which the change was entered: `origin` of the rewrite rules. */
  readonly origin: string;
  readonly changes: readonly ConfigurationRowChange[];
}

export type ConfigurationRowChange =
  | {
      readonly operation: 'put';
      readonly table: string;
      readonly row: Readonly<Record<string, string | number | null>>;
    }
  | {
      readonly operation: 'delete';
      readonly table: string;
      readonly key: Readonly<Record<string, string | number | null>>;
    };

/** A new leader's first entry: nothing of earlier terms counts as committed before it is (R1, R6). */
export interface NoOpEntry {
  readonly kind: 'no-op';
  readonly leader: string;
  readonly term: number;
}

/** Where copies are compared: apply pauses here until the comparing reader has its snapshot (R14). */
export interface MarkEntry {
  readonly kind: 'mark';
  readonly at: number;
  readonly compare: string;
}

/** One voter or learner: a process, and which of its disks. A lost or old disk comes back as a new member (R8). */
export interface Member {
  readonly id: NodeId;
  readonly incarnation: number;
}

/** Who takes part in the group from this entry on, committed or not; undone when the entry is cut (R6). */
export interface MembershipEntry {
  readonly kind: 'membership';
  readonly at: number;
  /** Who asked for it: a person, or a rule of the protocol. */
  readonly by: string;
  readonly voters: readonly Member[];
  /** Receive entries, do not vote and are not counted. */
  readonly learners: readonly Member[];
  /** Members that an operator gave up for lost together with a majority; else empty. */
  readonly lost: readonly NodeId[];
}

/**
 * A repeat that is going to get a stored approval (R5): entered before the answer leaves, so that nobody releases the
 * approval while one of those who asked for it may have it.
 */
export interface AttemptEntry {
  readonly kind: 'attempt';
  readonly at: number;
  readonly durability: Durability;
  /** Duplicate key of the transaction, and its log index. */
  readonly key: string;
  readonly transaction: number;
  readonly attempt: string;
}

/** An edge's word that an attempt was answered 91: its approval, if there is one, was never delivered (R5). */
export interface UndeliveredEntry {
  readonly kind: 'undelivered';
  readonly at: number;
  readonly attempt: string;
  readonly key: string;
  /** Log index of the transaction that the attempt was entered for; 0: never seen, and refused when it comes. */
  readonly transaction: number;
  /** With it every attempt of the transaction is reported: its effect is taken back, as by a full reversal. */
  readonly releases: boolean;
}

/** What may have been answered on the strength of the owner's disk alone, and so is worth salvaging (R9). */
export type SalvageableEntry = DecisionEntry | ReversalEntry | AttemptEntry;

/** Why a salvaged entry does not count, or counts otherwise than it was decided. */
export type ResolutionReason =
  | ''
  /** Adopted; what it referred to is not here: the reversal leaves a tombstone, the completion posts by itself. */
  | 'unmatched'
  /** Adopted without its hold: its completion has come since, and posted by itself. */
  | 'completed'
  /** Its duplicate key has its deciding entry here. */
  | 'decided'
  /** A reversal of it has come since. */
  | 'reversed'
  /** Its attempt was reported undelivered since. */
  | 'undelivered'
  /** The card is not on file here. */
  | 'card-unknown'
  /** The transaction that an attempt was for is not here. */
  | 'original-unknown'
  /** No sum of a card may come near what the store's integers hold. */
  | 'too-large';

/** What became of one entry that a log lost and a node kept (R9); `term` and `index` name it for good. */
export interface ResolutionEntry {
  readonly kind: 'resolution';
  readonly at: number;
  readonly offer: {
    /** Whose log lost it: not this one's, when the card's range has moved here since. */
    readonly group: GroupId;
    readonly term: number;
    readonly index: number;
    readonly hash: string;
    readonly from: NodeId;
  };
  readonly outcome: 'adopted' | 'voided';
  readonly reason: ResolutionReason;
  /** The salvaged entry; where it is adopted, with references as they are in this log. */
  readonly decision: SalvageableEntry;
}

/** counted: as an approval. same: the owner has approved it, too. reversed: the acquirer has taken it back since. */
export type StandInOutcome = 'counted' | 'same' | 'reversed' | 'card-unknown' | 'too-large';

/** An approval that an edge gave by itself while the group had no owner, entered afterwards. */
export interface StandInEntry {
  readonly kind: 'stand-in';
  readonly at: number;
  /** The edge and its own number, for people; the attempt in `decision` names the approval for good. */
  readonly node: NodeId;
  readonly sequence: number;
  /** What the edge approved, billing currency; `decision` has what of it is held or posted now. */
  readonly amount: string;
  readonly outcome: StandInOutcome;
  readonly decision: DecisionEntry;
  /** Log index of what the owner decided for the same key, or 0. */
  readonly transaction: number;
  /** By how much it went over what the card had left, billing currency. */
  readonly overspent: string;
}

/** The cards with a prefix, without those with one of the longer prefixes: a range without the ranges within it. */
export interface RangeOfCards {
  readonly prefix: string;
  readonly nested: readonly string[];
}

/** R12: from here on this group decides nothing for the range's cards; group `to` will. */
export interface RangeOutEntry extends RangeOfCards {
  readonly kind: 'range-out';
  readonly at: number;
  readonly configIndex: number;
  /** Names the move in both logs, and in the configuration. */
  readonly move: string;
  readonly to: GroupId;
}

/** R12: nothing changes the rows of these cards in this group any more, until they come back by another move. */
export interface RangeLeaveEntry {
  readonly kind: 'range-leave';
  readonly at: number;
  readonly move: string;
  readonly cards: readonly CardId[];
  /** All cards of the range up to here have left (`RangeReader`). */
  readonly through: string;
  /** The range has no more: its rows may be taken over. */
  readonly last: boolean;
}

/** A row of the old group's fold: its table and its values (`RangeReader`). */
export type MovedRow = readonly [table: string, ...values: (string | null)[]];

/** R12: some of the rows, as the old group's fold has had them since its entry `outIndex`. */
export interface RangeRowsEntry {
  readonly kind: 'range-rows';
  readonly at: number;
  readonly configIndex: number;
  readonly move: string;
  readonly prefix: string;
  readonly from: GroupId;
  readonly outIndex: number;
  /** Counted from 1. */
  readonly part: number;
  readonly cards: number;
  readonly through: string;
  readonly rows: readonly MovedRow[];
}

/** R12: that was all of it; from here on this group decides for the range. */
export interface RangeInEntry {
  readonly kind: 'range-in';
  readonly at: number;
  readonly configIndex: number;
  readonly move: string;
  readonly prefix: string;
  readonly from: GroupId;
  readonly outIndex: number;
  readonly parts: number;
  readonly cards: number;
  /** SHA-256 over all rows in order (`hashOfRows`). */
  readonly hash: string;
}

export type EntryBody =
  | MembershipEntry
  | RangeOutEntry
  | RangeLeaveEntry
  | RangeRowsEntry
  | RangeInEntry
  | DecisionEntry
  | ReversalEntry
  | AttemptEntry
  | UndeliveredEntry
  | ResolutionEntry
  | StandInEntry
  | CardsEntry
  | ExpiryEntry
  | ConfigurationEntry
  | NoOpEntry
  | MarkEntry;

export function encodeBody(body: EntryBody): string {
  return JSON.stringify(body);
}

/** Bodies come from our own log behind its hash chain; an unknown kind means a newer version wrote it. */
export function decodeBody(text: string): EntryBody {
  return JSON.parse(text) as EntryBody;
}
