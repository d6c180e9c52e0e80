import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { ManualClock } from '../base/manual-clock.ts';
import { refusal } from './authorizer.ts';
import type { ForwardedRequest } from './forward.ts';
import {
  configurationView,
  approvalOutcome as approval,
  bounceOutcome as bounce,
  EdgeBench as Bench,
  foreignPan,
  group,
  n1,
  n2,
  n3,
  otherGroup,
  requestOf,
} from './testing.ts';

describe("a request for another node's card", () => {
  test('is forwarded at once to the owner and answered with what it decided', () => {
    const bench = new Bench();
    bench.handle();
    assert.equal(bench.edge.inFlight, 1);
    const { request, attempt, remainingMs } = bench.firstSent;
    assert.equal(bench.sent[0]?.[0], n2);
    assert.equal(attempt, 'n1.4.1');
    assert.equal(remainingMs, 3000);
    assert.equal(request.businessDate, '2026-03-01');
    bench.outcome(approval);
    const [answer] = bench.answers;
    assert.equal(answer?.mti, '0110');
    assert.deepEqual([answer.fields.get(39), answer.fields.get(38)], ['00', '123456']);
    assert.equal(bench.edge.inFlight, 0);
  });
  test('is sent again with the same attempt until it is answered, and answered once', () => {
    const bench = new Bench();
    bench.handle();
    bench.pass(275);
    assert.equal(bench.sent.length, 1);
    bench.pass(25);
    assert.equal(bench.sent.length, 2);
    bench.pass(600);
    assert.equal(bench.sent.length, 4);
    assert.equal(new Set(bench.sent.map(([, { id, attempt }]) => `${id} ${attempt}`)).size, 1);
    assert.equal(bench.sent[3]?.[1].remainingMs, 2100);
    bench.outcome(approval);
    bench.outcome(approval);
    bench.pass(5000);
    assert.deepEqual(bench.codes(), ['00']);
    assert.equal(bench.sent.length, 4);
  });
  test('goes to the new owner when the group has another', () => {
    const bench = new Bench();
    bench.handle();
    bench.leaders.set(group, n3);
    bench.pass(300);
    assert.deepEqual(
      bench.sent.map(([to]) => to),
      ['n2', 'n3'],
    );
  });
  test('waits for an owner when the group has none, and tries every 50 ms', () => {
    const bench = new Bench();
    bench.leaders.set(group, undefined);
    bench.handle();
    bench.pass(500);
    assert.deepEqual(bench.sent, []);
    bench.leaders.set(group, n2);
    bench.pass(50);
    assert.equal(bench.sent.length, 1);
  });
  for (const reason of ['not-the-owner', 'not-ready'] as const) {
    test(`is tried again 50 ms after it bounced: ${reason}`, () => {
      const bench = new Bench();
      bench.handle();
      bench.outcome(bounce(reason));
      bench.pass(25);
      assert.equal(bench.sent.length, 1);
      bench.pass(25);
      assert.equal(bench.sent.length, 2);
      bench.outcome(approval);
      assert.deepEqual(bench.codes(), ['00']);
    });
  }
  test('gets 91 at once from an owner without its majority', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome(bounce('overloaded'));
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.edge.inFlight, 0);
  });
  test("gets 91 early enough for a sync before the link's deadline, and what the owner says then is never delivered", () => {
    const bench = new Bench();
    bench.handle();
    bench.pass(2825);
    assert.deepEqual(bench.codes(), []);
    bench.pass(25);
    assert.deepEqual(bench.codes(), ['91']);
    bench.outcome(approval);
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.edge.late, 1);
    bench.outcome(bounce('not-ready'));
    assert.equal(bench.edge.late, 1, 'a late bounce is nothing');
    bench.pass(3000);
    assert.equal(bench.sent.length, 10);
  });
  test('gets 91 when the approval comes after the deadline though no tick has noticed it', () => {
    const bench = new Bench();
    bench.handle();
    bench.clock.advance(3000);
    bench.outcome(approval);
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.edge.late, 1);
  });
  test('gets 96 rather than an answer that nobody could read', () => {
    const bench = new Bench();
    bench.handle();
    bench.outcome({ kind: 'answer', answer: { responseCode: '', authorizationCode: '', additionalAmounts: '' } });
    assert.deepEqual(bench.codes(), ['96']);
  });
});

test('an answer to an attempt of this node before its restart is not taken for one of a request of today', () => {
  const before = new Bench();
  before.handle();
  const after = new Bench({ boot: 5 });
  after.handle({ 11: '000002' });
  assert.equal(after.firstSent.id, before.firstSent.id);
  const { id, attempt } = before.firstSent;
  after.edge.onAnswer({ id, attempt, outcome: approval });
  assert.deepEqual(after.codes(), []);
  assert.equal(after.edge.late, 1);
  after.outcome({ kind: 'answer', answer: { responseCode: '51', authorizationCode: '', additionalAmounts: '' } });
  assert.deepEqual(after.codes(), ['51']);
});

describe('a request for a card of this node', () => {
  const own = (): Bench => {
    const bench = new Bench();
    bench.leaders.set(group, n1);
    return bench;
  };
  test('is decided here, asked once, and nothing is sent', () => {
    const bench = own();
    bench.handle();
    bench.pass(1000);
    assert.equal(bench.asked.length, 1);
    bench.asked[0]?.(approval);
    assert.deepEqual(bench.codes(), ['00']);
    assert.deepEqual(bench.sent, []);
  });
  test('is tried again after a bounce, elsewhere when another owns it by then', () => {
    const bench = own();
    bench.handle();
    bench.asked[0]?.(bounce('not-ready'));
    bench.pass(50);
    assert.equal(bench.asked.length, 2);
    bench.leaders.set(group, n2);
    bench.asked[1]?.(bounce('not-the-owner'));
    bench.pass(50);
    assert.equal(bench.sent.length, 1);
    bench.outcome(approval);
    assert.deepEqual(bench.codes(), ['00']);
  });
  test('gets 91 at the deadline when its entry does not commit', () => {
    const bench = own();
    bench.handle();
    bench.pass(3000);
    assert.deepEqual(bench.codes(), ['91']);
    bench.asked[0]?.(approval);
    assert.deepEqual(bench.codes(), ['91']);
    assert.equal(bench.edge.late, 1);
  });
});

describe('what the edge itself refuses', () => {
  test('is answered at once, with the echo and nothing of the track', () => {
    const bench = new Bench();
    bench.handle({ 4: '000000000000' });
    const [answer] = bench.answers;
    assert.equal(answer?.fields.get(39), '13');
    assert.equal(answer.fields.get(11), '000001');
    assert.equal(answer.fields.get(35), undefined);
    assert.deepEqual(bench.sent, []);
  });
  test('is everything that came, and found no configuration until its deadline: 91', () => {
    const bench = new Bench({ configuration: () => undefined });
    bench.handle();
    bench.pass(2_975);
    assert.deepEqual([bench.codes(), bench.edge.inFlight], [[], 1]);
    bench.pass(25);
    assert.deepEqual([bench.codes(), bench.edge.inFlight], [['91'], 0]);
  });
  test('is not what came a moment before the configuration did: its time counts from when it came', () => {
    const known: ReturnType<typeof configurationView>[] = [];
    const bench = new Bench({ configuration: () => known[0] });
    bench.handle();
    bench.pass(200);
    assert.equal(bench.sent.length, 0);
    known.push(configurationView());
    bench.pass(25);
    assert.deepEqual(
      bench.sent.map(([, { remainingMs }]) => remainingMs),
      [2_775],
    );
    bench.outcome(approval);
    assert.deepEqual(bench.codes(), ['00']);
  });
  test('is what was read after the event loop stood longer than the deadline: 91, and it is not forwarded', () => {
    const bench = new Bench();
    bench.pass(100);
    bench.clock.advance(3001);
    bench.handle();
    assert.deepEqual(bench.codes(), ['91']);
    assert.deepEqual(bench.sent, []);
    bench.edge.tick();
    bench.handle();
    assert.equal(bench.sent.length, 1, 'after the next turn it is taken again');
  });
  test('is not what was read after a shorter pause', () => {
    const bench = new Bench();
    bench.clock.advance(3000);
    bench.handle();
    assert.equal(bench.sent.length, 1);
  });
  test('is a key that comes again for a card of another owner: 94', () => {
    const bench = new Bench();
    bench.handle();
    bench.handle({ 2: foreignPan.reveal(), 35: undefined });
    assert.deepEqual(bench.codes(), ['94']);
    assert.equal(bench.sent.length, 1);
    bench.handle({ 11: '000002', 2: foreignPan.reveal(), 35: undefined });
    assert.equal(bench.sent.length, 2, 'another key is taken');
    bench.handle({}, '0101');
    assert.equal(bench.sent.length, 3, "the same card again is the owner's to recognise");
  });
});

test('requests of one connection are answered in any order, each with its own keys', () => {
  const bench = new Bench();
  for (let at = 1; at <= 3; at++) bench.handle({ 11: `00000${at}` });
  for (const at of [2, 0, 1]) bench.outcome(approval, at);
  assert.deepEqual(
    bench.answers.map(({ fields }) => fields.get(11)),
    ['000003', '000001', '000002'],
  );
});

describe('as the owner, the node', () => {
  const request = requestOf();
  const forwarded: ForwardedRequest = { id: 77, attempt: 'n2.9.77', group, remainingMs: 2000, request };
  test('decides what another edge forwards and returns the answer under its id and attempt', () => {
    const bench = new Bench();
    bench.edge.onRequest(n2, forwarded);
    bench.asked[0]?.(approval);
    assert.deepEqual(bench.returned, [[n2, { id: 77, attempt: 'n2.9.77', outcome: approval }]]);
  });
  test('bounces what is no group of its own', () => {
    const bench = new Bench();
    bench.edge.onRequest(n2, { ...forwarded, group: otherGroup });
    assert.deepEqual(bench.returned, [[n2, { id: 77, attempt: 'n2.9.77', outcome: bounce('not-the-owner') }]]);
  });
});

test('the business date is the UTC day of the edge', () => {
  for (const [at, date] of [
    [Date.UTC(2026, 11, 31, 23, 59, 59, 999), '2026-12-31'],
    [Date.UTC(2027, 0, 1), '2027-01-01'],
  ] as const) {
    const bench = new Bench({ clock: new ManualClock({ startWallMs: at }) });
    bench.handle();
    assert.equal(bench.sent[0]?.[1].request.businessDate, date);
  }
});

test('its meter hears of every request that it brought to an owner when it is answered, with attempt and owner', () => {
  const heard: unknown[] = [];
  const refused: string[] = [];
  const meter = {
    answered: (answered: unknown) => void heard.push(answered),
    refused: (reason: string) => void refused.push(reason),
  };
  const bench = new Bench({ meter });
  bench.handle();
  bench.clock.advance(40);
  const [, { id, attempt }] = bench.sent[0] ?? assert.fail('it was sent');
  bench.edge.onAnswer({ id, attempt, outcome: { kind: 'answer', answer: refusal('51') } });
  bench.handle({ 11: '000002' });
  bench.pass(3025);
  const common = { mti: '0100', group, asked: n2 };
  assert.deepEqual(heard, [
    { ...common, attempt, responseCode: '51', durationMs: 40 },
    { ...common, attempt: 'n1.4.2', responseCode: '91', durationMs: 2850 },
  ]);
  bench.clock.advance(10_000);
  bench.handle({ 11: '000003' });
  assert.deepEqual(refused, ['it was read after a pause']);
});
