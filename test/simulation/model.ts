import type { BookedTransaction, Books } from './books.ts';
import { answersTo, approvalsOf, approved, inoperative, isConfirmed, isDeclined, wasSent } from './journal.ts';
import type { Purchase } from './journal.ts';
import { Violation } from './violation.ts';

/** What one purchase comes to on its card. */
interface Amounts {
  readonly held: bigint;
  readonly posted: bigint;
}

const nothing: Amounts = { held: 0n, posted: 0n };

/** Books of a group, or of all groups together. */
type Accounts = Pick<Books, 'byKey' | 'balance'>;

/** What the model knows of a group's log: what became of approvals other than through their acquirers. */
export interface Resolutions extends Pick<Books, 'resolved'> {
  /** Keys of answered `local` entries that were on one disk only, which was lost or went back. */
  readonly lostWithDisk: ReadonlySet<string>;
  /** Nodes that have forgotten what they had to report (R5): when their disks were lost or went back. */
  readonly forgetful: ReadonlyMap<string, number>;
}

/**
 * What a purchase must come to by its acquirer's journal and the resolutions alone. More than one possibility only
 * where the acquirer itself cannot know: it gave up without an answer of any kind, or a `local` answer was resolved.
 */
export function possibleAmounts(purchase: Purchase, resolutions: Resolutions): readonly Amounts[] {
  const { amount, completedAmount } = purchase;
  const { resolved, lostWithDisk } = resolutions;
  const keys = new Set(purchase.exchanges.map(({ key }) => key));
  const isListed = (list: ReadonlySet<string>): boolean => [...keys].some((key) => list.has(key));
  const held: Amounts = { held: amount, posted: 0n };
  const completed: Amounts = { held: 0n, posted: completedAmount };
  if (
    purchase.promise !== 'quorum' &&
    (isListed(resolved.adopted) || isListed(resolved.voided) || isListed(lostWithDisk))
  ) {
    return [nothing, held, completed];
  }
  if (answersTo(purchase, 'reversal').some(({ responseCode }) => responseCode !== inoperative)) return [nothing];
  if (isConfirmed(purchase, 'completion')) return [completed];
  if (isListed(resolved.expired)) return [nothing];
  if (wasSent(purchase, 'reversal')) throw new Error(`the reversal of purchase ${purchase.number} was never answered`);
  if (approvalsOf(purchase).length > 0) return [held];
  // An edge that approved by itself may not have lived to say so; nor may the owner whose entry that edge met.
  if (isListed(resolved.standIn)) return [nothing, held];
  if (isDeclined(purchase) || isListed(resolved.undelivered)) return [nothing];
  return mayStand(purchase, resolutions) ? [nothing, held] : [nothing];
}

/**
 * An edge that answers 91 takes the approval back, if there is one (R5). What stays is where no answer came, because
 * the edge died: its attempts wait for the acquirer's reversal or the hold's expiry. So with an edge whose disk was lost.
 */
function mayStand({ exchanges }: Purchase, { forgetful }: Resolutions): boolean {
  return exchanges.some(
    ({ kind, answer, node, sentMs }) =>
      kind === 'request' && (answer === undefined || sentMs < (forgetful.get(node) ?? Number.NEGATIVE_INFINITY)),
  );
}

/** Holds a group's log against its acquirers' journals: throws when one of them was promised something else. */
export function checkJournals(
  purchases: readonly Purchase[],
  books: Accounts,
  resolutions: Resolutions,
): { readonly unknown: number } {
  const byCard = new Map<string, { books: Amounts; model: Amounts }>();
  let unknown = 0;
  for (const purchase of purchases) {
    const keys = new Set(purchase.exchanges.map(({ key }) => key));
    const booked = [...keys].flatMap((key) => books.byKey.get(key) ?? []);
    const stands = booked.reduce(plus, nothing);
    const possible = possibleAmounts(purchase, resolutions);
    const found = possible.find((amounts) => same(amounts, stands));
    if (found === undefined) {
      throw new Violation(
        `purchase ${purchase.number} (${purchase.promise}, ${describe(purchase)}) ${shown(stands)} at its owner, ` +
          `and by its acquirer's journal ${possible.map(shown).join(' or ')}`,
      );
    }
    if (possible.length > 1) unknown += 1;
    checkAnswers(purchase, books, resolutions);
    const card = booked.find((transaction) => transaction.card !== '')?.card ?? '';
    const sums = byCard.get(card) ?? { books: nothing, model: nothing };
    byCard.set(card, { books: plus(sums.books, stands), model: plus(sums.model, found) });
  }
  for (const [card, { model }] of byCard) {
    if (card !== '' && !same(books.balance(card), model)) {
      throw new Violation(`card ${card} ${shown(books.balance(card))}, and by the journals ${shown(model)}`);
    }
  }
  return { unknown };
}

/** Every answer that said yes has its entry, with the same words. */
function checkAnswers(purchase: Purchase, books: Accounts, { resolved, lostWithDisk }: Resolutions): void {
  for (const { kind, key, answer } of purchase.exchanges) {
    if (answer?.responseCode !== approved) continue;
    const listed = resolved.adopted.has(key) || resolved.voided.has(key) || lostWithDisk.has(key);
    if ((purchase.promise !== 'quorum' && listed) || resolved.standIn.has(key)) continue;
    const booked = books.byKey.get(key);
    if (booked === undefined)
      throw new Violation(`the ${kind} of purchase ${purchase.number} was answered, and is lost`);
    if (kind === 'request' && booked.authorizationCode !== answer.authorizationCode) {
      throw new Violation(
        `purchase ${purchase.number} was approved as ${answer.authorizationCode}, and stands as ${booked.authorizationCode}`,
      );
    }
  }
}

function plus(one: Amounts, other: Pick<BookedTransaction, 'held' | 'posted'>): Amounts {
  return { held: one.held + other.held, posted: one.posted + other.posted };
}

function same(one: Amounts, other: Amounts): boolean {
  return one.held === other.held && one.posted === other.posted;
}

function shown({ held, posted }: Amounts): string {
  return held === 0n && posted === 0n ? 'stands for nothing' : `holds ${held}, posts ${posted}`;
}

function describe(purchase: Purchase): string {
  return purchase.exchanges
    .map(({ kind, node, answer }) => `${kind} at ${node}: ${answer?.responseCode ?? 'no answer'}`)
    .join('; ');
}
