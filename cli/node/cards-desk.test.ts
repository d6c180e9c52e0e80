import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Pan } from '../../base/pan.ts';
import { seededRandom } from '../../base/random.ts';
import type { CardsEntry } from '../../store/entry.ts';
import { cardImport, cardKeys, hashOf, otherPan, OwnerBench, pan } from '../../switch/testing.ts';
import { enterRequests, importCards, maximumCardsPerEntry, type CardFileInput } from './cards-desk.ts';

const entered = { by: 'ann', origin: 'n3' };
const file = 'f'.repeat(64);

const numbered = (line: number, changes: Parameters<typeof cardImport>[0] = {}): CardFileInput => ({
  ...cardImport(changes),
  line,
});
const thirdPan = Pan.parse('9900010000000035') ?? pan;

class Desk extends OwnerBench {
  readonly tools = { clock: this.clock, random: seededRandom(4), cardKeys };

  constructor() {
    super();
    this.ready();
  }

  async import(...cards: CardFileInput[]): Promise<string> {
    const done = importCards(this.owner, { file, cards }, entered, this.tools);
    // An entry a turn: no more turns than cards.
    for (let turn = 0; turn <= cards.length; turn++) {
      this.clock.runSoon();
      await Promise.resolve();
      this.progress(this.last, this.last);
    }
    return (await done).join(' ');
  }

  limitOf(number: Pan): bigint | undefined {
    return this.owner.ledger.cardByPanHash(cardKeys.hash(number))?.limit;
  }
}

test('lines of a file have one effect, whoever brings them, and however often', async () => {
  const desk = new Desk();
  const lines = [numbered(2, { pan: otherPan, limit: '5' }), numbered(3, { limit: '6' })];
  assert.equal(await desk.import(...lines), 'added changed');
  // Somebody changes a card that the file has changed: the file does not change it back.
  const changing = enterRequests(
    desk.owner,
    { requests: [{ kind: 'set', panHash: hashOf(otherPan), replaces: 1, limit: '9' }], check: false },
    entered,
    desk.tools,
  );
  desk.progress(desk.last, desk.last);
  await changing;
  assert.equal(await desk.import(...lines, numbered(4, { pan: thirdPan })), 'entered-before entered-before added');
  assert.deepEqual([desk.limitOf(otherPan), desk.limitOf(pan)], [9n, 6n]);
});

test('a line that changes nothing is entered, too: what is changed afterwards is not changed back by it', async () => {
  const desk = new Desk();
  assert.equal(await desk.import(numbered(2)), 'unchanged');
  const before = desk.last;
  assert.equal(await desk.import(numbered(2, { limit: '1' })), 'entered-before');
  assert.deepEqual([desk.last, desk.limitOf(pan)], [before, 100_000n]);
});

test('what comes again while its entry is on its way waits for that', async () => {
  const desk = new Desk();
  const first = importCards(desk.owner, { file, cards: [numbered(2, { pan: otherPan })] }, entered, desk.tools);
  let isDone = false;
  const second = importCards(desk.owner, { file, cards: [numbered(2, { pan: otherPan })] }, entered, desk.tools);
  void second.then(() => (isDone = true));
  await Promise.resolve();
  assert.equal(isDone, false);
  desk.progress(desk.last, desk.last);
  assert.deepEqual([await first, await second], [['added'], ['entered-before']]);
});

test('a card that is in the file twice is as its last line says, and that is told', async () => {
  const desk = new Desk();
  const twice = [numbered(2, { pan: otherPan, limit: '5' }), numbered(3, { pan: otherPan, limit: '7' })];
  assert.equal(await desk.import(...twice), 'added duplicate');
  assert.equal(desk.limitOf(otherPan), 7n);
  assert.equal(await desk.import(numbered(9, { pan: otherPan, limit: '7' })), 'duplicate');
});

test('entries are bounded, and each says how far the file is in them', async () => {
  const desk = new Desk();
  const from = 2;
  const cards = Array.from({ length: maximumCardsPerEntry + 2 }, (_, at) => ({
    ...numbered(from + at),
    panHash: `h${at}`,
  }));
  await desk.import(...cards);
  const entries = desk.log.slice(2) as CardsEntry[];
  assert.deepEqual(
    entries.map(({ added, file: of }) => [added.length, of?.through]),
    [
      [maximumCardsPerEntry, { '': maximumCardsPerEntry + 1 }],
      [2, { '': maximumCardsPerEntry + 3 }],
    ],
  );
});

test('a file that comes from two nodes at once is entered once, in its order, whichever is further', async () => {
  const desk = new Desk();
  const lines = Array.from({ length: 2 * maximumCardsPerEntry }, (_, at) => ({
    ...numbered(2 + at),
    panHash: `h${at}`,
  }));
  const both = [lines, lines].map((cards) => importCards(desk.owner, { file, cards }, entered, desk.tools));
  desk.clock.runSoon();
  await Promise.resolve();
  desk.clock.runSoon();
  for (let turn = 0; turn < 10; turn++) {
    desk.progress(desk.last, desk.last);
    await Promise.resolve();
    desk.clock.runSoon();
  }
  const [one = [], other = []] = await Promise.all(both);
  const entries = desk.log.slice(2) as CardsEntry[];
  assert.deepEqual(
    entries.flatMap(({ added }) => added.map(({ panHash }) => panHash)),
    lines.map(({ panHash }) => panHash),
  );
  assert.ok(one.every((result, at) => (result === 'added') !== (other[at] === 'added')));
});
