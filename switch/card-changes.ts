import type { CardId } from '../base/identifiers.ts';
import { moreRestrictive } from '../config-db/cards.ts';
import type { CardImport, CardsEntry, CardStatus } from '../store/entry.ts';
import type { LedgerReader } from '../store/ledger.ts';

/** A card as an issuer's file or an operator gives it, its number already hashed and encrypted. */
export interface CardInput {
  readonly bin: string;
  readonly panHash: string;
  readonly panKeyVersion: number;
  readonly panCipher: string;
  readonly expiry: string;
  readonly status: CardStatus;
  readonly currency: string;
  readonly limit: string;
}

/** added, changed, unchanged: as they say. kept-restriction: changed or not, but a stricter status on file stays. */
export type CardInputResult = 'added' | 'changed' | 'unchanged' | 'kept-restriction' | 'other-currency';

export interface CardChangePlan {
  /** To be appended, in order; none when nothing changes. */
  readonly added: readonly CardImport[];
  readonly changed: CardsEntry['changed'];
  readonly results: readonly CardInputResult[];
}

/**
 * What a batch of an issuer's file does to the cards on file. The more restrictive status wins until somebody lifts
 * it, so a file never unblocks a card; a card's currency never changes, for its balance is in it. The same batch
 * again plans nothing. The inputs of one batch are different cards.
 */
export function planImport(ledger: LedgerReader, cards: readonly CardInput[]): CardChangePlan {
  const added: CardImport[] = [];
  const changed: { card: CardId; expiry: string; status: CardStatus; limit: string }[] = [];
  const results = cards.map((input): CardInputResult => {
    const known = ledger.cardByPanHash(input.panHash);
    if (known === undefined) {
      added.push(input);
      return 'added';
    }
    if (known.currency !== input.currency) return 'other-currency';
    const status = moreRestrictive(known.status, input.status);
    const same = known.expiry === input.expiry && known.status === status && known.limit === BigInt(input.limit);
    if (!same) changed.push({ card: known.cardId, expiry: input.expiry, status, limit: input.limit });
    if (status !== input.status) return 'kept-restriction';
    return same ? 'unchanged' : 'changed';
  });
  return { added, changed, results };
}

/** What an operator asks for one card; absent: as it is. Unlike a file, this lifts restrictions too. */
export interface CardSetting {
  readonly panHash: string;
  readonly status: CardStatus | undefined;
  readonly limit: string | undefined;
}

/** The change that a setting makes; undefined when there is no such card, an empty list when nothing changes. */
export function planSetting(ledger: LedgerReader, setting: CardSetting): CardsEntry['changed'] | undefined {
  const known = ledger.cardByPanHash(setting.panHash);
  if (known === undefined) return undefined;
  const status = setting.status ?? known.status;
  const limit = setting.limit ?? known.limit.toString();
  if (status === known.status && limit === known.limit.toString()) return [];
  return [{ card: known.cardId, expiry: known.expiry, status, limit }];
}
