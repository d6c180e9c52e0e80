import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { CardId } from '../../base/identifiers.ts';
import { nodeId } from '../../base/identifiers.ts';
import type { DecisionEntry, EntryBody, RequestRecord, ReversalEntry } from '../../store/entry.ts';
import { Books } from './books.ts';
import type { Exchange, Purchase } from './journal.ts';
import { checkJournals, type Resolutions } from './model.ts';
import { Violation } from './violation.ts';

/*
 * The second reading of a log, and the journals that it is held against; each promise broken on purpose.
 */

const card = 'a.1.1.0' as CardId;
const n1 = nodeId('n1');

const record = (key: string, mtiClass: RequestRecord['mtiClass'] = '0100'): RequestRecord => ({
  key,
  mtiClass,
  link: 'pos',
  card,
  acquirer: '12345',
  terminal: 'TERM0001',
  merchant: '',
  stan: '000001',
  transmission: '0301120000',
  rrn: '',
  processingCode: '000000',
  amount: '100',
  currency: '978',
  businessDate: '2026-03-01',
});

const cards: EntryBody = {
  kind: 'cards',
  at: 0,
  by: 'test',
  added: [
    {
      bin: '',
      panHash: '',
      panKeyVersion: 1,
      panCipher: '',
      expiry: '3012',
      status: 'active',
      currency: '978',
      limit: '250',
    },
  ],
  origin: 'n1',
  changes: [],
};

const decision = (key: string, changes: Partial<DecisionEntry> = {}): DecisionEntry => ({
  kind: 'decision',
  at: 0,
  configIndex: 1,
  durability: 'quorum',
  attempt: `n1.1.${key}`,
  request: record(key),
  responseCode: '00',
  authorizationCode: '111111',
  additionalAmounts: '',
  hold: '100',
  holdExpiresAt: 0,
  post: '0',
  completes: 0,
  ...changes,
});

const reversal = (key: string, original: number): ReversalEntry => ({
  kind: 'reversal',
  at: 0,
  configIndex: 1,
  durability: 'quorum',
  attempt: `n1.1.${key}`,
  request: record(key, '0400'),
  responseCode: '00',
  original,
  remaining: '0',
  tombstone: undefined,
});

const completion = (key: string, completes: number): DecisionEntry =>
  decision(key, { request: record(key, '0220'), hold: '0', post: '80', completes });

const undelivered = (attempt: string, transaction: number, releases: boolean): EntryBody => ({
  kind: 'undelivered',
  at: 0,
  attempt,
  key: 'p',
  transaction,
  releases,
});

/** The books of a log: its first entry is the card's. */
function booksOf(...entries: readonly EntryBody[]): Books {
  const books = new Books('a');
  [cards, ...entries].forEach((entry, at) => {
    books.apply(at + 1, 1, entry);
  });
  return books;
}

function finds(pattern: RegExp, action: () => void): void {
  assert.throws(action, (error: unknown) => error instanceof Violation && pattern.test(error.message));
}

describe('the books of a log', () => {
  test('add up what stands: holds, completions, what was reversed once or twice', () => {
    assert.deepEqual(booksOf(decision('p')).balance(card), { held: 100n, posted: 0n });
    assert.deepEqual(booksOf(decision('p'), completion('c', 2)).balance(card), { held: 0n, posted: 80n });
    assert.deepEqual(booksOf(decision('p'), reversal('r', 2), reversal('s', 2)).balance(card), {
      held: 0n,
      posted: 0n,
    });
    assert.deepEqual(booksOf(decision('p'), { kind: 'expiry', at: 0, holds: [2] }, reversal('r', 2)).balance(card), {
      held: 0n,
      posted: 0n,
    });
  });

  const broken: readonly (readonly [name: string, pattern: RegExp, entries: readonly EntryBody[]])[] = [
    ['a request that is decided twice', /p is decided again at 3/, [decision('p'), decision('p')]],
    ['a reversal that is decided twice', /r is decided again/, [decision('p'), reversal('r', 2), reversal('r', 2)]],
    [
      'a hold that is completed twice',
      /completes 2, which is completed/,
      [decision('p'), completion('c', 2), completion('d', 2)],
    ],
    [
      'a completion of what was reversed',
      /completes 2, which is reversed/,
      [decision('p'), reversal('r', 2), completion('c', 2)],
    ],
    ['a decline that holds', /declines and charges/, [decision('p', { responseCode: '51' })]],
    [
      'a card that is charged beyond its limit',
      /approves 100, and 300 of 250 is used/,
      [decision('p'), decision('q'), decision('r')],
    ],
    ['a reference to nothing', /refers to 9, a decision of nobody/, [reversal('r', 9)]],
    [
      'an approval that is taken back while somebody may have it',
      /takes back 2, which n2\.1\.1 may have got/,
      [
        decision('p'),
        { kind: 'attempt', at: 0, durability: 'quorum', key: 'p', transaction: 2, attempt: 'n2.1.1' },
        undelivered('n1.1.p', 2, true),
      ],
    ],
    [
      'a report about an attempt that was not entered',
      /that was not entered/,
      [decision('p'), undelivered('n9.1.1', 2, false)],
    ],
  ];
  for (const [name, pattern, entries] of broken) {
    test(`find ${name}`, () => {
      finds(pattern, () => booksOf(...entries));
    });
  }

  test('take back what no edge has delivered, and say so', () => {
    const books = booksOf(decision('p'), undelivered('n1.1.p', 2, true));
    assert.deepEqual(books.balance(card), { held: 0n, posted: 0n });
    assert.ok(books.resolved.undelivered.has('p'));
  });

  test('count an approval in stand-in once, also over a decline of the owner', () => {
    const standIn = (transaction: number): EntryBody => ({
      kind: 'stand-in',
      at: 0,
      node: n1,
      sequence: 1,
      amount: '100',
      outcome: 'counted',
      decision: decision('p', { attempt: 'n2.1.1', authorizationCode: '222222' }),
      transaction,
      overspent: '0',
    });
    assert.deepEqual(booksOf(standIn(0)).balance(card), { held: 100n, posted: 0n });
    const declined = decision('p', { responseCode: '51', hold: '0', authorizationCode: '' });
    assert.deepEqual(booksOf(declined, standIn(2)).balance(card), { held: 100n, posted: 0n });
    finds(/counts 2 a second time/, () => booksOf(decision('p'), standIn(2)));
  });
});

describe('the journals of acquirers', () => {
  const none: Omit<Resolutions, 'resolved'> = { lostWithDisk: new Set(), forgetful: new Map() };
  const exchange = (kind: Exchange['kind'], key: string, responseCode?: string): Exchange => ({
    kind,
    key,
    node: n1,
    sentMs: 100,
    answer:
      responseCode === undefined
        ? undefined
        : { atMs: 110, responseCode, authorizationCode: kind === 'request' && responseCode === '00' ? '111111' : '' },
    over: true,
  });
  const purchase = (exchanges: Exchange[], promise: Purchase['promise'] = 'quorum'): Purchase => ({
    number: 1,
    pan: '',
    group: 'a' as Purchase['group'],
    promise,
    amount: 100n,
    completedAmount: 80n,
    exchanges,
  });
  const check = (
    exchanges: Exchange[],
    entries: readonly EntryBody[],
    more: Partial<Resolutions> = {},
    promise?: Purchase['promise'],
  ) => {
    const books = booksOf(...entries);
    return checkJournals([purchase(exchanges, promise)], books, { ...none, resolved: books.resolved, ...more });
  };
  const approved = exchange('request', 'p', '00');

  test('agree with a log that has what they were told', () => {
    check([approved], [decision('p')]);
    check([approved, exchange('completion', 'c', '00')], [decision('p'), completion('c', 2)]);
    check([approved, exchange('reversal', 'r', '00')], [decision('p'), reversal('r', 2)]);
    check([exchange('request', 'p', '51')], [decision('p', { responseCode: '51', hold: '0', authorizationCode: '' })]);
    check([exchange('request', 'p', '91')], []);
  });

  const broken: readonly (readonly [name: string, pattern: RegExp, Exchange[], readonly EntryBody[]])[] = [
    ['an approval that is lost', /stands for nothing at its owner, and .* holds 100/, [approved], []],
    [
      'another approval than was answered',
      /stands as 222222/,
      [approved],
      [decision('p', { authorizationCode: '222222' })],
    ],
    ['an approval that was taken back', /stands for nothing/, [approved], [decision('p'), reversal('r', 2)]],
    [
      'a hold that stands after its reversal',
      /holds 100, posts 0 at its owner/,
      [approved, exchange('reversal', 'r', '00')],
      [decision('p'), reversal('r', 0)],
    ],
    [
      'a hold that stands after its completion',
      /holds 100, posts 80 at its owner/,
      [approved, exchange('completion', 'c', '00')],
      [decision('p'), completion('c', 0)],
    ],
    [
      'an approval of which the edge said 91',
      /holds 100, posts 0 at its owner, and .* stands for nothing/,
      [exchange('request', 'p', '91')],
      [decision('p')],
    ],
    ['money that no acquirer knows of', /card a\.1\.1\.0 holds 200/, [approved], [decision('p'), decision('q')]],
  ];
  for (const [name, pattern, exchanges, entries] of broken) {
    test(`show ${name}`, () => {
      finds(pattern, () => check(exchanges, entries));
    });
  }

  test('leave open only what an acquirer cannot know', () => {
    assert.deepEqual(check([exchange('request', 'p')], [decision('p')]), { unknown: 1 });
    assert.deepEqual(check([exchange('request', 'p')], []), { unknown: 1 });
    const forgetful = new Map([['n1', 500]]);
    assert.deepEqual(check([exchange('request', 'p', '91')], [decision('p')], { forgetful }), { unknown: 1 });
    finds(/stands for nothing/, () =>
      check([exchange('request', 'p', '91')], [decision('p')], { forgetful: new Map([['n1', 50]]) }),
    );
  });

  test('do without a local approval only where it is listed', () => {
    check([approved], [], { lostWithDisk: new Set(['p']) }, 'local');
    finds(/stands for nothing/, () => check([approved], [], {}, 'local'));
    finds(/stands for nothing/, () => check([approved], [], { lostWithDisk: new Set(['p']) }, 'quorum'));
  });
});
