/**
 * Statuses of a card, the more restrictive later, each with the response code (DE 39) that a request for the card
 * gets; null: the status declines nothing. `blocked` can be lifted, `closed` is meant for good, and for `lost` and
 * `stolen` the terminal is also told to keep the card, so these outrank the rest.
 */
const statuses = [
  { status: 'active', responseCode: null },
  { status: 'blocked', responseCode: '62' },
  { status: 'closed', responseCode: '14' },
  { status: 'lost', responseCode: '41' },
  { status: 'stolen', responseCode: '43' },
] as const;

export type CardStatus = (typeof statuses)[number]['status'];

/** In rising severity. */
export const cardStatuses: readonly CardStatus[] = statuses.map(({ status }) => status);

export function isCardStatus(text: string): text is CardStatus {
  return statuses.some(({ status }) => status === text);
}

/** DE 39 that the status implies; null when it declines nothing. */
export function responseCodeOfStatus(status: CardStatus): string | null {
  const known = statuses.find((each) => each.status === status);
  // A status that nobody knows can only have been written by hand: it fails closed.
  return known === undefined ? '62' : known.responseCode;
}

/** Of two statuses the one that wins until it is lifted. */
export function moreRestrictive(one: CardStatus, other: CardStatus): CardStatus {
  return cardStatuses.indexOf(one) >= cardStatuses.indexOf(other) ? one : other;
}
