import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { waitFor } from '../../base/clock.ts';
import { realClock } from '../../base/real.ts';
import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { readAcquirerCards } from './cards.ts';
import { FakeBank, startFakeSwitch } from './testing.ts';
import type { FakeSwitch, Fault } from './testing.ts';
import { readJournal } from './journal.ts';
import { sampleCardFile } from './load-command.ts';
import { defaultMix, parseMix } from './load-mix.ts';
import { formatLiveLine, formatSummary, LoadCounts } from './load-summary.ts';
import type { LoadSummary } from './load-summary.ts';
import { runLoad } from './load.ts';
import type { LoadControl, LoadOptions } from './load-options.ts';
import { AcquirerBooks } from './recompute.ts';

const folder = mkdtempSync(join(tmpdir(), 'load-'));
after(() => {
  rmSync(folder, { recursive: true });
});

const cards = (await readAcquirerCards(sampleCardFile)).slice(0, 24);
let files = 0;

interface Played {
  readonly summary: LoadSummary;
  readonly bank: FakeBank;
  readonly books: AcquirerBooks;
  readonly journalFile: string;
}

/** Runs a load against fake switches that share a bank, one for each fault function. */
async function play(
  faults: readonly ((message: IsoMessage, count: number) => Fault | undefined)[],
  changes: Partial<LoadOptions> = {},
  during?: (fakes: readonly FakeSwitch[]) => void,
): Promise<Played> {
  const bank = new FakeBank((message) => (Number(message.fields.get(4)) % 10 === 7 ? '51' : undefined));
  const fakes = await Promise.all(faults.map((fault) => startFakeSwitch({ bank, fault })));
  const journalFile = join(folder, `${(files += 1)}.jsonl`);
  try {
    const running = runLoad({
      targets: fakes.map(({ endpoint }, index) => ({ name: `n${index + 1}`, endpoint })),
      connections: 8,
      cards,
      cardFile: 'cards.csv',
      mix: defaultMix,
      pace: { kind: 'max', inFlight: 50 },
      count: 2_000,
      seed: 5,
      journalFile,
      requestTimeoutMs: 60_000,
      giveUpMs: 60_000,
      reverseUnanswered: true,
      clock: realClock,
      ...changes,
    });
    during?.(fakes);
    const summary = await running;
    const books = new AcquirerBooks(cards);
    for await (const line of readJournal(journalFile)) books.enter(line);
    return { summary, bank, books, journalFile };
  } finally {
    await Promise.all(fakes.map((fake) => fake.close()));
  }
}

/** What the switch holds is what the recomputation expects, for every card that it is sure of. */
function assertSameBalances({ bank, books }: Played, uncertainCards: number): void {
  const expected = books.balances();
  let uncertain = 0;
  for (const { line, pan } of cards) {
    const balance = expected.get(line);
    assert.ok(balance);
    const { held, posted } = bank.balances.get(pan.reveal()) ?? { held: 0, posted: 0 };
    const [heldLow, heldHigh] = balance.heldRange;
    const [postedLow, postedHigh] = balance.postedRange;
    assert.ok(
      heldLow <= BigInt(held) && BigInt(held) <= heldHigh,
      `card line ${line}: held ${held}, expected ${heldLow} to ${heldHigh}`,
    );
    assert.ok(
      postedLow <= BigInt(posted) && BigInt(posted) <= postedHigh,
      `card line ${line}: posted ${posted}, expected ${postedLow} to ${postedHigh}`,
    );
    if (balance.uncertain) uncertain += 1;
  }
  assert.ok(uncertain <= uncertainCards, `${uncertain} cards are uncertain`);
}

const faultless = (): undefined => undefined;

test('a mixed load on a faultless switch is clean, and its journal gives the balances of the switch', async () => {
  const played = await play([faultless, faultless]);
  const { summary } = played;
  assert.equal(summary.clean, true, formatSummary(summary));
  assert.equal(summary.requests, 2_000);
  assert.equal(summary.answers, 2_000);
  assert.deepEqual(summary.unexpected, {
    unknown: 0,
    duplicate: 0,
    late: 0,
    undecodable: 0,
    wrongEcho: 0,
    contradicting: 0,
  });
  assert.ok((summary.byNode['n1'] ?? 0) > 500 && (summary.byNode['n2'] ?? 0) > 500);
  assert.ok((summary.byMti['0100']?.['51'] ?? 0) > 0);
  assertSameBalances(played, 0);
});

test('every answer is in the journal and the journal has no card number', async () => {
  const { journalFile, summary, books } = await play([faultless]);
  const text = readFileSync(journalFile, 'utf8');
  for (const { pan } of cards) assert.ok(!text.includes(pan.reveal()));
  const kinds = text
    .trimEnd()
    .split('\n')
    .map((line) => (JSON.parse(line) as { kind: string }).kind);
  assert.equal(kinds.filter((kind) => kind === 'request').length, summary.requests);
  assert.equal(kinds.filter((kind) => kind === 'answer').length, summary.answers);
  assert.equal(kinds[0], 'run');
  assert.equal(kinds.at(-1), 'end');
  // Repeats are approved too, but they are their originals; echoes are no approvals.
  const repeatsAndEchoes = (summary.byOperation['repeat'] ?? 0) + (summary.byOperation['echo'] ?? 0);
  assert.ok(
    books.approvals().length >= summary.approved - repeatsAndEchoes && books.approvals().length < summary.approved,
  );
});

test('when connections are lost, requests are repeated at another node and every one is answered', async () => {
  const everyHundredth = (fault: Fault) => (_: IsoMessage, count: number) => (count % 100 === 50 ? fault : undefined);
  const played = await play([everyHundredth('hang-up'), everyHundredth('hang-up-undecided'), faultless]);
  const { summary } = played;
  assert.equal(summary.clean, true, formatSummary(summary));
  assert.equal(summary.answers, 2_000);
  assert.ok(summary.repeats > 5);
  assert.equal(summary.repeats, summary.failedAttempts['connection-lost']);
  assertSameBalances(played, 0);
});

test('while a node is away its requests go to another, under the same key, and it is used again when it is back', async () => {
  const bank = new FakeBank();
  const first = await startFakeSwitch({ bank });
  const other = await startFakeSwitch({ bank });
  let back: FakeSwitch | undefined;
  const journalFile = join(folder, 'failover.jsonl');
  const end = new AbortController();
  const running = runLoad({
    targets: [first, other].map(({ endpoint }, index) => ({ name: `n${index + 1}`, endpoint })),
    connections: 4,
    cards,
    cardFile: 'cards.csv',
    mix: defaultMix,
    pace: { kind: 'rate', perSecond: 400 },
    durationMs: 60_000,
    seed: 8,
    journalFile,
    requestTimeoutMs: 60_000,
    giveUpMs: 60_000,
    reverseUnanswered: true,
    clock: realClock,
    signal: end.signal,
  });
  const arrived = (at: () => number, count: number): Promise<true> =>
    waitFor(realClock, () => at() >= count || undefined, {
      timeoutMs: 30_000,
      everyMs: 5,
      onTimeout: () => new Error(`${at()} requests arrived, not ${count}`),
    });
  try {
    await arrived(() => first.received.length, 100);
    await first.close();
    const before = other.received.length;
    await arrived(() => other.received.length, before + 200);
    back = await startFakeSwitch({ bank, port: first.endpoint.port });
    const again = back;
    await arrived(() => again.received.length, 100);
  } finally {
    end.abort();
  }
  const summary = await running;
  await Promise.all([other.close(), back.close()]);
  assert.equal(summary.clean, true, formatSummary(summary));
  assert.equal(summary.answers, summary.requests);
  assert.equal(summary.repeats, summary.failedAttempts['connection-lost'] ?? 0);
  const attempts = new Map<string, string[]>();
  for await (const line of readJournal(journalFile)) {
    if (line.kind === 'request')
      attempts.set(line.id, [...(attempts.get(line.id) ?? []), `${line.node} ${line.mti[3]}`]);
  }
  for (const tries of attempts.values()) {
    if (tries.length > 1) assert.deepEqual(tries, ['n1 0', 'n2 1']);
  }
});

test('a request without an answer is repeated after the timeout, and the late answer is no fault', async () => {
  const played = await play([(_, count) => (count % 200 === 100 ? 'hold-back' : undefined), faultless], {
    requestTimeoutMs: 100,
    count: 1_000,
    // The held back answers are released by the next request on their connection: a single one in flight waits.
    connections: 4,
    pace: { kind: 'max', inFlight: 4 },
  });
  assert.equal(played.summary.clean, true, formatSummary(played.summary));
  assertSameBalances(played, 0);
});

test('what nobody answers is given up and reversed by 0420, and then its card is certain again', async () => {
  const lost = (message: IsoMessage): Fault | undefined =>
    message.mti.startsWith('010') && Number(message.fields.get(11)) % 40 === 0 ? 'silent' : undefined;
  const played = await play([lost, lost], {
    requestTimeoutMs: 250,
    giveUpMs: 500,
    count: 600,
    mix: parseMix('purchase=1'),
  });
  const { summary } = played;
  assert.ok(summary.unanswered > 0);
  assert.equal(summary.reversalsOfUnanswered, summary.unanswered);
  assert.equal(summary.clean, false);
  assert.equal(summary.byMti['0420']?.['00'], summary.reversalsOfUnanswered);
  assertSameBalances(played, 0);
});

test('without reversals, what nobody answered leaves its card uncertain, and the true balance in range', async () => {
  const lost = (message: IsoMessage): Fault | undefined =>
    message.mti.startsWith('010') && Number(message.fields.get(11)) % 100 === 0 ? 'silent' : undefined;
  const played = await play([lost, lost], {
    requestTimeoutMs: 250,
    giveUpMs: 500,
    count: 600,
    mix: parseMix('purchase=1'),
    reverseUnanswered: false,
  });
  assert.ok(played.summary.unanswered > 0);
  assert.ok([...played.books.balances().values()].some(({ uncertain }) => uncertain));
  assertSameBalances(played, played.summary.unanswered);
});

const faultTable: readonly (readonly [string, Fault, keyof LoadSummary['unexpected']])[] = [
  ['an answer sent twice', 'twice', 'duplicate'],
  ['an answer that nobody asked for', 'unasked', 'unknown'],
  ['another amount in an answer', 'wrong-amount', 'wrongEcho'],
  ['an answer without its RRN', 'without-rrn', 'wrongEcho'],
  ['an answer with a wrong MTI', 'wrong-mti', 'wrongEcho'],
  ['a frame that is no message', 'garbage', 'undecodable'],
];
for (const [what, fault, counter] of faultTable) {
  test(`${what} is counted and makes the load unclean`, async () => {
    const { summary } = await play([(_, count) => (count === 100 ? fault : undefined)], {
      count: 300,
      mix: parseMix('purchase=1'),
    });
    assert.equal(summary.clean, false);
    assert.equal(summary.unexpected[counter], 1, formatSummary(summary));
    assert.equal(summary.examples.length, 1);
    assert.match(formatSummary(summary), /NOT clean/);
  });
}

test('an answer with another STAN answers nothing: it is unknown, and its request is repeated', async () => {
  const { summary } = await play([(_, count) => (count === 50 ? 'wrong-stan' : undefined)], {
    count: 100,
    requestTimeoutMs: 500,
    mix: parseMix('purchase=1'),
  });
  assert.equal(summary.unexpected.unknown, 1);
  assert.equal(summary.repeats, 1);
  assert.equal(summary.clean, false);
});

test('an open loop keeps its rate', async () => {
  const { summary } = await play([faultless], { pace: { kind: 'rate', perSecond: 500 }, count: 100 });
  assert.equal(summary.clean, true);
  assert.equal(summary.requests, 100);
  assert.ok(summary.durationMs >= 190, `${summary.durationMs} ms`);
});

test('an interrupted load sends nothing more, waits for its answers, and says so', async () => {
  const interrupt = new AbortController();
  const { count: _count, ...endless } = { count: 0 };
  const { summary } = await play(
    [
      (_, arrived) => {
        if (arrived === 200) interrupt.abort();
        return undefined;
      },
    ],
    { ...endless, count: 1_000_000, signal: interrupt.signal },
  );
  assert.equal(summary.interrupted, true);
  assert.equal(summary.clean, true, formatSummary(summary));
  assert.ok(summary.requests >= 200 && summary.requests < 1_000);
  assert.equal(summary.answers, summary.requests);
});

test('an interrupted load waits for a limited time', async () => {
  const interrupt = new AbortController();
  const { summary } = await play(
    [
      (_, arrived) => {
        if (arrived === 50) interrupt.abort();
        return 'silent';
      },
    ],
    { count: 1_000, drainMs: 20, signal: interrupt.signal },
  );
  assert.equal(summary.unanswered, summary.requests);
  assert.equal(summary.clean, false);
});

test('a load against nobody fails with the addresses', async () => {
  const fake = await startFakeSwitch({ bank: new FakeBank() });
  await fake.close();
  await assert.rejects(
    runLoad({
      targets: [{ name: 'n1', endpoint: fake.endpoint }],
      connections: 2,
      cards,
      cardFile: 'cards.csv',
      mix: defaultMix,
      pace: { kind: 'max', inFlight: 1 },
      count: 1,
      seed: 1,
      journalFile: undefined,
      requestTimeoutMs: 1_000,
      giveUpMs: 1_000,
      reverseUnanswered: true,
      clock: realClock,
    }),
    { message: `no node can be reached: n1 (127.0.0.1:${fake.endpoint.port}): ECONNREFUSED` },
  );
});

test('the live line says what people look for', () => {
  const counts = new LoadCounts();
  counts.started('purchase');
  counts.started('purchase');
  counts.started('purchase');
  counts.answered('0100', '00', 'n1', 2);
  counts.answered('0100', '51', 'n1', 3);
  assert.match(
    formatLiveLine(counts, 12_000),
    /^12 s · sent 3 · answered 2 · approved 1 · declined 1 \(51:1\) · in flight 1 · p50 2\.\d\d ms · p99 3\.\d\d ms · repeats 0$/,
  );
});

test('a node that the acquirer signed off from gets nothing until it signs on again, and no request fails for that', async () => {
  const told: string[] = [];
  let between = 0;
  const fault = (message: IsoMessage): undefined => {
    if (message.mti !== '0800') return undefined;
    const code = message.fields.get(70);
    if (code === '001' || code === '002') told.push(code);
    return undefined;
  };
  const controls = Promise.withResolvers<LoadControl>();
  const end = new AbortController();
  let first: FakeSwitch | undefined;
  const playing = play(
    [fault, () => undefined],
    {
      pace: { kind: 'max', inFlight: 20 },
      count: 1_000_000,
      signal: end.signal,
      onControl: controls.resolve,
    },
    (fakes) => {
      first = fakes[0];
    },
  );
  const control = await controls.promise;
  const received = (): number => first?.received.length ?? 0;
  const until = (condition: () => boolean): Promise<true> =>
    waitFor(realClock, () => condition() || undefined, {
      timeoutMs: 10_000,
      everyMs: 1,
      onTimeout: () => new Error('it does not come about'),
    });
  await until(() => received() > 20);
  await control.signOff('n1');
  between = received();
  assert.deepEqual(told, ['002', '002', '002', '002']);
  await control.signOn('n1');
  assert.equal(received(), between + 4);
  await until(() => received() > between + 20);
  end.abort();
  const { summary } = await playing;
  assert.deepEqual(told.slice(4), ['001', '001', '001', '001']);
  assert.ok(summary.clean && summary.repeats === 0, formatSummary(summary));
});
