import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { nodeId, type NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { seededRandom } from '../base/random.ts';
import { Sealer } from '../base/sealing.ts';
import type { Claim } from './claims.ts';
import { Forwarder, type ForwardedAnswer, type ForwardedRequest, type Settlement } from './forward.ts';
import type { SwitchRequest } from './request.ts';
import { everyClass, group, otherPan, pan, panOf, requestOf } from './testing.ts';

const [n1, n2, n3] = [nodeId('n1'), nodeId('n2'), nodeId('n3')];
const clusterKey = Buffer.alloc(32, 1);

interface Datagram {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly bytes: Buffer;
}

/** A node's end of the channel; what it sends lies in `sent` until the test brings it somewhere. */
class End {
  readonly clock = new ManualClock();
  readonly sent: Datagram[] = [];
  readonly requests: [NodeId, ForwardedRequest][] = [];
  readonly answers: [NodeId, ForwardedAnswer][] = [];
  readonly claims: [NodeId, Claim][] = [];
  readonly settlements: [NodeId, Settlement][] = [];
  /** What was heard, in order. */
  readonly order: string[] = [];
  readonly forwarder: Forwarder;

  constructor(self: NodeId, seed: number, key = clusterKey) {
    this.forwarder = new Forwarder({
      self,
      sealer: new Sealer(key, seededRandom(seed)),
      clock: this.clock,
      send: (to, bytes) => this.sent.push({ from: self, to, bytes }),
      onRequest: (from, request) => {
        this.requests.push([from, request]);
        this.order.push('request');
      },
      onAnswer: (from, answer) => {
        this.answers.push([from, answer]);
        this.order.push('answer');
      },
      onClaim: (from, claim) => {
        this.claims.push([from, claim]);
        this.order.push('claim');
      },
      onSettlement: (from, settlement) => {
        this.settlements.push([from, settlement]);
        this.order.push('settlement');
      },
    });
  }

  /** Sends what has gathered, and takes it. */
  flush(): Datagram[] {
    this.clock.runSoon();
    return this.sent.splice(0);
  }

  get heard(): number {
    return this.order.length;
  }
}

const forwarded = (request: SwitchRequest, id = 1): ForwardedRequest => ({
  id,
  attempt: `n1.1.${id}`,
  group,
  remainingMs: 2987,
  request,
});
const answer: ForwardedAnswer = {
  id: 1,
  attempt: 'n1.1.1',
  outcome: { kind: 'answer', answer: { responseCode: '00', authorizationCode: '123456', additionalAmounts: '' } },
};

const digits = (length: number): fc.Arbitrary<string> => fc.stringMatching(new RegExp(`^[0-9]{${length}}$`));
const plain = { noNullPrototype: true };
const amount = fc.bigInt({ min: 0n, max: 999_999_999_999n });
const text = fc.string({ maxLength: 15, unit: 'binary' });
const anyRequest: fc.Arbitrary<SwitchRequest> = fc.record(
  {
    mtiClass: fc.constantFrom(...everyClass),
    repeat: fc.boolean(),
    link: fc.constantFrom('link-1', 'other'),
    pan: fc.constantFrom(pan, otherPan, panOf('999999999999'), panOf('999999999999999999')),
    expiry: fc.oneof(fc.constant(''), digits(4)),
    processingCode: digits(6),
    amount,
    currency: fc.oneof(fc.constant(''), digits(3)),
    billing: fc.option(fc.record({ amount, currency: digits(3) }, plain), { nil: undefined }),
    transmission: digits(10),
    stan: digits(6),
    acquirer: fc.stringMatching(/^[0-9]{0,11}$/),
    rrn: text,
    authorizationCode: text,
    responseCode: text,
    terminal: text,
    merchant: text,
    merchantCategory: text,
    originalDataElements: fc.option(
      fc.record({ mtiClass: digits(4), stan: digits(6), transmission: digits(10), acquirer: digits(11) }, plain),
      { nil: undefined },
    ),
    replacementAmount: fc.option(amount, { nil: undefined }),
    businessDate: fc.constant('2026-03-01'),
  },
  plain,
);

test('every request arrives as it was sent, to the last digit', () => {
  const [edge, owner] = [new End(n1, 1), new End(n2, 2)];
  fc.assert(
    fc.property(anyRequest, (request) => {
      edge.forwarder.sendRequest(n2, forwarded(request));
      for (const { bytes } of edge.flush()) owner.forwarder.receive(n1, bytes);
      const [from, arrived] = owner.requests.pop() ?? [];
      assert.equal(from, n1);
      assert.ok(arrived?.request.pan.equals(request.pan));
      assert.deepEqual(arrived, forwarded(request));
    }),
  );
});

test('answers and bounces arrive as they were sent', () => {
  const [edge, owner] = [new End(n1, 1), new End(n2, 2)];
  const bounce: ForwardedAnswer = { id: 2, attempt: 'n1.1.2', outcome: { kind: 'bounce', reason: 'not-ready' } };
  owner.forwarder.sendAnswer(n1, answer);
  owner.forwarder.sendAnswer(n1, bounce);
  const [datagram, ...others] = owner.flush();
  assert.deepEqual(others, [], 'one datagram');
  edge.forwarder.receive(n2, datagram?.bytes ?? Buffer.alloc(0));
  assert.deepEqual(edge.answers, [
    [n2, answer],
    [n2, bounce],
  ]);
});

test('what gathers in one turn leaves in one datagram for each node, and no more than 512 in one', () => {
  const edge = new End(n1, 1);
  for (let id = 1; id <= 1025; id++) edge.forwarder.sendRequest(n2, forwarded(requestOf(), id));
  edge.forwarder.sendRequest(n3, forwarded(requestOf(), 9));
  edge.forwarder.sendAnswer(n2, answer);
  assert.deepEqual(edge.sent, []);
  const sent = edge.flush();
  assert.deepEqual(
    sent.map(({ to }) => to),
    [n2, n2, n2, n3],
  );
  for (const { bytes } of sent) assert.ok(bytes.length < 512 * 1024, 'well below the limit of the bus');
  const owner = new End(n2, 2);
  for (const { to, bytes } of sent) if (to === n2) owner.forwarder.receive(n1, bytes);
  assert.deepEqual(
    owner.requests.map(([, { id }]) => id),
    Array.from({ length: 1025 }, (_, at) => at + 1),
  );
  assert.equal(owner.answers.length, 1);
  assert.deepEqual(edge.flush(), [], 'nothing is sent twice');
});

const claim: Claim = {
  kind: 'undelivered',
  group,
  attempt: 'n1.1.1',
  key: '0301120000|000001|link-1|123456|TERM0001|0100',
};
const settlement: Settlement = { group, id: 'undelivered n1.1.1', outcome: 'entered' };

test('claims and settlements arrive as they were sent, claims before the requests of the same turn', () => {
  const edge = new End(n1, 1);
  edge.forwarder.sendRequest(n2, forwarded(requestOf()));
  edge.forwarder.sendSettlement(n2, settlement);
  edge.forwarder.sendAnswer(n2, answer);
  edge.forwarder.sendClaim(n2, claim);
  const [datagram, ...others] = edge.flush();
  assert.deepEqual(others, [], 'one datagram');
  const owner = new End(n2, 2);
  owner.forwarder.receive(n1, datagram?.bytes ?? Buffer.alloc(0));
  assert.deepEqual(owner.order, ['claim', 'request', 'answer', 'settlement']);
  assert.deepEqual(owner.claims, [[n1, claim]]);
  assert.deepEqual(owner.settlements, [[n1, settlement]]);
});

test('claims, which may hold an entry each, go in smaller datagrams, in their order', () => {
  const edge = new End(n1, 1);
  const body = 'x'.repeat(4_000);
  for (let index = 1; index <= 130; index++) {
    edge.forwarder.sendClaim(n2, { kind: 'salvaged', group, term: 1, index, hash: 'h', body });
  }
  const sent = edge.flush();
  assert.equal(sent.length, 3);
  const owner = new End(n2, 2);
  for (const { bytes } of sent) {
    assert.ok(bytes.length < 512 * 1024, 'well below the limit of the bus');
    owner.forwarder.receive(n1, bytes);
  }
  assert.deepEqual(
    owner.claims.map(([, each]) => (each.kind === 'salvaged' ? each.index : 0)),
    Array.from({ length: 130 }, (_, at) => at + 1),
  );
});

test('a datagram of a version that knows no claims is read', () => {
  const sealer = new Sealer(clusterKey, seededRandom(9));
  const clear = Buffer.from(JSON.stringify({ requests: [], answers: [answer] }));
  const edge = new End(n1, 1);
  edge.forwarder.receive(n2, sealer.seal('forward n2 n1', clear));
  assert.deepEqual(edge.answers, [[n2, answer]]);
});

describe('a datagram is refused, counted and not read when', () => {
  const sealedFor = (to: NodeId): Buffer => {
    const edge = new End(n1, 1);
    edge.forwarder.sendRequest(to, forwarded(requestOf()));
    edge.forwarder.sendAnswer(to, answer);
    return edge.flush()[0]?.bytes ?? Buffer.alloc(0);
  };
  const cases: [name: string, from: NodeId, bytes: () => Buffer][] = [
    ['it was sealed for another node', n1, () => sealedFor(n3)],
    ["it comes under another sender's name", n3, () => sealedFor(n2)],
    [
      'it was sealed with another key',
      n1,
      () => {
        const stranger = new End(n1, 1, Buffer.alloc(32, 2));
        stranger.forwarder.sendRequest(n2, forwarded(requestOf()));
        return stranger.flush()[0]?.bytes ?? Buffer.alloc(0);
      },
    ],
    ['it is empty', n1, () => Buffer.alloc(0)],
    ['it is clear text', n1, () => Buffer.from(JSON.stringify({ requests: [], answers: [answer] }))],
    ['it was cut off', n1, () => sealedFor(n2).subarray(0, -1)],
  ];
  for (const [name, from, bytes] of cases) {
    test(name, () => {
      const owner = new End(n2, 2);
      owner.forwarder.receive(from, bytes());
      assert.deepEqual([owner.forwarder.refused, owner.heard], [1, 0]);
    });
  }
  test('any of its bits was turned', () => {
    const owner = new End(n2, 2);
    const bytes = sealedFor(n2);
    fc.assert(
      fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
        const turned = Buffer.from(bytes);
        turned[bit >> 3] = (turned[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        owner.forwarder.receive(n1, turned);
        assert.equal(owner.heard, 0);
      }),
    );
  });
});

test('nothing of a card can be read in what is sent', () => {
  const edge = new End(n1, 1);
  edge.forwarder.sendRequest(n2, forwarded(requestOf()));
  const [datagram] = edge.flush();
  for (const encoding of ['latin1', 'base64', 'hex'] as const) {
    const needle = encoding === 'latin1' ? pan.reveal() : Buffer.from(pan.reveal()).toString(encoding).slice(0, 16);
    assert.ok(!datagram?.bytes.toString(encoding).includes(needle));
  }
});
