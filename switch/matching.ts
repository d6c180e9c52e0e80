import type { CardId } from '../base/identifiers.ts';
import type { RequestRecord, Tombstone } from '../store/entry.ts';
import { tombstoneKey, type LedgerReader, type TombstoneRow, type TransactionRow } from '../store/ledger.ts';
import type { OriginalDataElements } from './request.ts';

/*
 * Which earlier message a later one means: originals of reversals, holds of completions, reversals that came first. All
 * of it reads what an entry keeps of its request, so that an entry which comes back from another log is matched by the
 * same rules as a request (R9).
 */

const dayMs = 86_400_000;

/**
 * live: exactly one transaction that still has an effect. settled: it has none left. several: which one is not sure.
 * completed: the hold went into a completion, which is what would have to be reversed.
 */
export type ReversalMatch =
  | { readonly kind: 'live' | 'settled'; readonly row: TransactionRow }
  | { readonly kind: 'several' | 'completed' | 'none' };

/** What a reversal of this card means. Several candidates are none: guessing would release somebody else's hold. */
export function matchReversal(
  reversal: RequestRecord,
  named: OriginalDataElements | undefined,
  card: CardId,
  ledger: LedgerReader,
): ReversalMatch {
  const candidates = findOriginals(reversal, named, card, ledger);
  // A hold that stands again because its completion was reversed is not what a further reversal of the pair means.
  const restored = new Set(candidates.flatMap((row) => (row.state === 'reversed' ? [row.original] : [])));
  const live = candidates.filter((row) => (row.state === 'held' && !restored.has(row.index)) || row.state === 'posted');
  const original = only(live);
  if (original !== undefined) return { kind: 'live', row: original };
  if (live.length > 1) return { kind: 'several' };
  const settled = candidates.find((row) => row.state === 'reversed') ?? candidates[0];
  if (settled === undefined) return { kind: 'none' };
  if (candidates.some((row) => row.state === 'completed')) return { kind: 'completed' };
  return { kind: 'settled', row: settled };
}

/** Transactions of the same link and card that the reversal can mean; by DE 90, else DE 37 + 41, else DE 4 + 11 + 41. */
function findOriginals(
  reversal: RequestRecord,
  named: OriginalDataElements | undefined,
  card: CardId,
  ledger: LedgerReader,
): readonly TransactionRow[] {
  const sameOrigin = (row: TransactionRow): boolean =>
    row.request.link === reversal.link && row.request.mtiClass !== '0400' && row.request.mtiClass !== '0420';
  const sameTerminal = (row: TransactionRow): boolean => row.request.terminal === reversal.terminal;
  if (named !== undefined) {
    return ledger
      .transactionsByStan(card, named.stan)
      .filter(
        (row) =>
          sameOrigin(row) &&
          (reversal.terminal === '' || row.request.terminal === '' || sameTerminal(row)) &&
          row.request.mtiClass === named.mtiClass &&
          row.request.transmission === named.transmission &&
          sameInstitution(row.request.acquirer, named.acquirer),
      );
  }
  if (reversal.rrn !== '' && reversal.terminal !== '') {
    return ledger.transactionsByRrn(card, reversal.rrn).filter((row) => sameOrigin(row) && sameTerminal(row));
  }
  return ledger
    .transactionsByStan(card, reversal.stan)
    .filter(
      (row) =>
        sameOrigin(row) &&
        sameTerminal(row) &&
        row.request.amount === reversal.amount &&
        nearDates(row.request.businessDate, reversal.businessDate),
    );
}

/** A STAN means something together with its day only; a reversal may follow its original over midnight. */
function nearDates(one: string, other: string): boolean {
  return Math.abs(Date.parse(one) - Date.parse(other)) <= dayMs;
}

/** DE 32 against DE 90's zero-filled form; all zeros there names no institution. */
function sameInstitution(acquirer: string, zeroFilled: string): boolean {
  return /^0*$/.test(zeroFilled) || acquirer.padStart(11, '0') === zeroFilled;
}

function only<T>(rows: readonly T[]): T | undefined {
  return rows.length === 1 ? rows[0] : undefined;
}

/** The hold that a 0220 completes: by DE 37 and 41, else by DE 38, card and DE 42; even an expired one. */
export function findHold(
  completion: RequestRecord,
  authorizationCode: string,
  card: CardId,
  ledger: LedgerReader,
): TransactionRow | undefined {
  const open = (row: TransactionRow): boolean => isOpenHold(row) && row.request.link === completion.link;
  if (completion.rrn !== '' && completion.terminal !== '') {
    const holds = ledger
      .transactionsByRrn(card, completion.rrn)
      .filter((row) => open(row) && row.request.terminal === completion.terminal);
    if (holds.length > 0) return only(holds);
  }
  if (authorizationCode === '') return undefined;
  return only(
    ledger
      .holdsByAuthorizationCode(card, authorizationCode)
      .filter((row) => open(row) && row.request.merchant === completion.merchant),
  );
}

/** Whether a completion may take it: it stands, or its time is over. */
export function isOpenHold(row: TransactionRow): boolean {
  return row.state === 'held' || row.state === 'expired';
}

/**
 * Whether the completion of this request has come before it: a 0220 of the same link, RRN and terminal that found no
 * hold and posted by itself. Another hold beside it would charge the card twice until its time is over.
 */
export function wasCompletedBefore(request: RequestRecord, card: CardId, ledger: LedgerReader): boolean {
  const { rrn, terminal, link, mtiClass } = request;
  if (mtiClass !== '0100' || rrn === '' || terminal === '') return false;
  return ledger.transactionsByRrn(card, rrn).some((row) => {
    const { request: later, original, state } = row;
    const isCompletion = later.mtiClass === '0220' && original === 0 && state === 'posted';
    return isCompletion && later.link === link && later.terminal === terminal;
  });
}

export function tombstoneOf(reversal: RequestRecord, named: OriginalDataElements | undefined): Tombstone {
  if (named !== undefined) return { by: 'original-data', ...named };
  if (reversal.rrn !== '' && reversal.terminal !== '') return { by: 'rrn', rrn: reversal.rrn };
  return { by: 'stan', stan: reversal.stan, amount: reversal.amount };
}

/**
 * Whether the request was reversed before it came. An advice tells what has happened, so only a reversal that names
 * this very message (DE 90) takes its effect; an RRN or a STAN may be another's.
 */
export function wasReversedBefore(request: RequestRecord, card: CardId, ledger: LedgerReader): boolean {
  const { mtiClass, stan, transmission, rrn, terminal, amount } = request;
  const advice = mtiClass === '0120' || mtiClass === '0220';
  const forms: Tombstone[] = [{ by: 'original-data', mtiClass, stan, transmission, acquirer: '' }];
  if (!advice && rrn !== '') forms.push({ by: 'rrn', rrn });
  if (!advice) forms.push({ by: 'stan', stan, amount });
  const keys = forms.map((form) => tombstoneKey(form, terminal));
  return ledger.tombstones(card, keys).some((row) => meetsTombstone(request, row, ledger));
}

/** What a tombstone's key does not say: link, terminal where both have one, institution, and the day for a STAN. */
function meetsTombstone(request: RequestRecord, row: TombstoneRow, ledger: LedgerReader): boolean {
  if (row.link !== request.link) return false;
  switch (row.tombstone.by) {
    case 'original-data':
      return (
        (row.terminal === '' || request.terminal === '' || row.terminal === request.terminal) &&
        sameInstitution(request.acquirer, row.tombstone.acquirer)
      );
    case 'rrn':
      return true;
    case 'stan':
      return nearDates(ledger.transaction(row.index)?.request.businessDate ?? '', request.businessDate);
  }
}

/** Whether the same reversal has left its tombstone already: a second one would only make the card slower. */
export function standsAlready(
  reversal: RequestRecord,
  tombstone: Tombstone,
  card: CardId,
  ledger: LedgerReader,
): boolean {
  return ledger
    .tombstones(card, [tombstoneKey(tombstone, reversal.terminal)])
    .some(
      (row) =>
        row.link === reversal.link &&
        row.terminal === reversal.terminal &&
        JSON.stringify(row.tombstone) === JSON.stringify(tombstone) &&
        ledger.transaction(row.index)?.request.businessDate === reversal.businessDate,
    );
}
