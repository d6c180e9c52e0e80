import type { CardKeys } from '../../base/card-keys.ts';
import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import type { CardFileCard } from '../../config-db/card-file.ts';
import type { CardsEntry } from '../../store/entry.ts';
import {
  planImport,
  planSetting,
  type CardInput,
  type CardInputResult,
  type CardSetting,
} from '../../switch/card-changes.ts';
import type { GroupOwner } from '../../switch/owner.ts';

/** Cards in one entry at most: bounds the size of an entry. */
export const maximumCardsPerEntry = 250;

/** A card from a file, ready for its owner: its number is hashed and encrypted where it was entered. */
export function sealCard(card: CardFileCard, keys: CardKeys, random: Random): CardInput {
  return {
    bin: card.pan.bin(),
    panHash: keys.hash(card.pan),
    panKeyVersion: keys.version,
    panCipher: keys.encrypt(card.pan, random),
    expiry: card.expiry,
    status: card.status,
    currency: card.currency,
    limit: card.limitMinor.toString(),
  };
}

/** At the owner: enters a batch of an issuer's file; resolves when what changes is committed. */
export async function importCards(
  owner: GroupOwner,
  cards: readonly CardInput[],
  by: string,
  clock: Clock,
): Promise<readonly CardInputResult[]> {
  const results: CardInputResult[] = [];
  let last = 0;
  for (const batch of distinctBatches(cards)) {
    const plan = planImport(owner.ledger, batch);
    results.push(...plan.results);
    if (plan.added.length === 0 && plan.changed.length === 0) continue;
    last = append(owner, { added: plan.added, changed: plan.changed }, by, clock);
  }
  if (last > 0) await committed(owner, last);
  return results;
}

/** At the owner: sets status and limit of one card; true when that changed something. Throws CARD_UNKNOWN. */
export async function setCard(owner: GroupOwner, setting: CardSetting, by: string, clock: Clock): Promise<boolean> {
  const changed = planSetting(owner.ledger, setting);
  if (changed === undefined) throw new SwitchError('CARD_UNKNOWN', 'no such card is on file');
  if (changed.length === 0) return false;
  await committed(owner, append(owner, { added: [], changed }, by, clock));
  return true;
}

/** A card that comes twice is changed by its second line, so the two cannot stand in one entry. */
function distinctBatches(cards: readonly CardInput[]): CardInput[][] {
  const batches: CardInput[][] = [];
  let seen = new Set<string>();
  for (const card of cards) {
    const current = batches.at(-1);
    if (current === undefined || current.length >= maximumCardsPerEntry || seen.has(card.panHash)) {
      batches.push([card]);
      seen = new Set([card.panHash]);
    } else {
      current.push(card);
      seen.add(card.panHash);
    }
  }
  return batches;
}

function append(owner: GroupOwner, content: Pick<CardsEntry, 'added' | 'changed'>, by: string, clock: Clock): number {
  const index = owner.append({ kind: 'cards', at: clock.wallMs(), by, ...content });
  if (index === undefined) throw new SwitchError('OWNER_UNREACHABLE', 'this node does not own the card');
  return index;
}

function committed(owner: GroupOwner, index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    owner.whenCommitted(index, resolve, () => {
      reject(new SwitchError('OWNER_UNREACHABLE', 'the owner changed before the change was committed: enter it again'));
    });
  });
}
