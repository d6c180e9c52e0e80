import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { groupId } from '../../base/identifiers.ts';
import { seededRandom } from '../../base/random.ts';
import { realClock } from '../../base/real.ts';
import { LedgerOverlay } from '../../store/ledger-overlay.ts';
import { applyToLedger } from '../../store/ledger.ts';
import { decide } from '../../switch/authorizer.ts';
import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { readRequest } from '../../switch/request.ts';
import { emptyLedger } from '../../switch/testing.ts';
import { readAcquirerCards } from './cards.ts';
import type { AcquirerCard } from './cards.ts';
import { readJournal } from './journal.ts';
import { sampleCardFile } from './load-command.ts';
import { defaultMix, parseMix } from './load-mix.ts';
import type { Mix } from './load-mix.ts';
import { formatSummary } from './load-summary.ts';
import { runLoad } from './load.ts';
import { AcquirerBooks } from './recompute.ts';
import { startFakeSwitch } from './testing.ts';
import type { Bank, FakeDecision, Fault } from './testing.ts';

const folder = mkdtempSync(join(tmpdir(), 'recompute-'));
after(() => {
  rmSync(folder, { recursive: true });
});

const group = groupId('a');

/** The switch's own rules and ledger, in memory: what a load does to them is what it does to the switch. */
class LedgerBank implements Bank {
  readonly ledger = new LedgerOverlay(emptyLedger);
  readonly #random = seededRandom(9);
  #index = 1;

  constructor(cards: readonly AcquirerCard[]) {
    this.ledger.begin(1);
    applyToLedger(this.ledger, group, 1, 1, {
      kind: 'cards',
      at: 0,
      by: 'test',
      origin: 'n1',
      changes: [],
      added: cards.map(({ pan, expiry, currency }) => ({
        bin: pan.bin(),
        panHash: pan.reveal(),
        panKeyVersion: 1,
        panCipher: '',
        expiry,
        status: 'active',
        currency,
        // Low enough for some declines.
        limit: '60000',
      })),
    });
  }

  decide(message: IsoMessage): FakeDecision {
    if (message.mti.startsWith('08')) return { responseCode: '00', authorizationCode: '' };
    const read = readRequest(message, 'acquirer', '2026-03-01');
    if (read.kind === 'refused') return { responseCode: read.responseCode, authorizationCode: '' };
    const decision = decide(read.request, {
      ledger: this.ledger,
      panHash: read.request.pan.reveal(),
      range: { prefix: '99', group_id: group, description: '', issuer: '', durability: 'quorum', hold_days: 7 },
      limits: () => undefined,
      merchantLimit: () => undefined,
      link: {
        link_id: 'acquirer',
        acquiring_institutions: '*',
        partial_approval: true,
        deadline_ms: 5_000,
        unmatched_reversal_request_code: '25',
      },
      configIndex: 1,
      durability: 'quorum',
      attempt: '',
      at: Date.UTC(2026, 2, 1, 12),
      random: this.#random,
    });
    if (decision.kind === 'refused') return { responseCode: decision.responseCode, authorizationCode: '' };
    if (decision.kind === 'stored') return decision.answer;
    assert.ok(decision.kind === 'decided', 'every request here has the same attempt');
    this.#index += 1;
    this.ledger.begin(this.#index);
    applyToLedger(this.ledger, group, this.#index, 1, decision.entry);
    const { entry } = decision;
    return {
      responseCode: entry.responseCode,
      authorizationCode: entry.kind === 'decision' ? entry.authorizationCode : '',
    };
  }
}

const references = parseMix(
  'purchase=30,financial=10,refund=6,completion=15,completion-reversal=8,reversal=8,reversal-advice=6,partial-reversal=12,repeat=5',
);
const everyTwentieth = (_: IsoMessage, count: number): Fault | undefined => (count % 20 === 10 ? 'hang-up' : undefined);

const table: readonly (readonly [claim: string, mix: Mix, fault: typeof everyTwentieth])[] = [
  ['the default mix', defaultMix, () => undefined],
  ['a mix full of completions and reversals', references, () => undefined],
  ['the same while connections are lost', references, everyTwentieth],
];
for (const [claim, mix, fault] of table) {
  test(`the switch's ledger holds what the acquirer's journal says: ${claim}`, async () => {
    const cards = (await readAcquirerCards(sampleCardFile)).slice(0, 12);
    const bank = new LedgerBank(cards);
    const fakes = await Promise.all([startFakeSwitch({ bank, fault }), startFakeSwitch({ bank })]);
    const journalFile = join(folder, `${claim}.jsonl`);
    const summary = await runLoad({
      targets: fakes.map(({ endpoint }, index) => ({ name: `n${index + 1}`, endpoint })),
      connections: 6,
      cards,
      cardFile: sampleCardFile,
      mix,
      pace: { kind: 'max', inFlight: 30 },
      count: 3_000,
      seed: 11,
      journalFile,
      requestTimeoutMs: 60_000,
      giveUpMs: 60_000,
      reverseUnanswered: true,
      clock: realClock,
    });
    await Promise.all(fakes.map((fake) => fake.close()));
    assert.equal(summary.clean, true, formatSummary(summary));
    assert.ok((summary.byMti['0100']?.['51'] ?? 0) > 0, 'some requests are declined');
    assert.equal(summary.byMti['0400']?.['25'], undefined, 'every reversal finds its original');

    const books = new AcquirerBooks(cards);
    for await (const line of readJournal(journalFile)) books.enter(line);
    for (const [line, balance] of books.balances()) {
      const pan = cards.find((card) => card.line === line)?.pan.reveal() ?? '';
      const row = bank.ledger.cardByPanHash(pan);
      assert.deepEqual([balance.held, balance.posted], [row?.held, row?.posted], `card line ${line}`);
      assert.deepEqual(balance.reasons, []);
    }
    for (const { key, authorizationCode, responseCode } of books.approvals()) {
      const row = bank.ledger.transactionByKey(key);
      assert.deepEqual([row?.authorizationCode, row?.responseCode], [authorizationCode, responseCode]);
    }
  });
}
