import assert from 'node:assert/strict';
import { test } from 'node:test';

import { nodeId, type NodeId } from '../../base/identifiers.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { Sealer } from '../../base/sealing.ts';
import { PeerCalls, type CallRequest } from './peer-calls.ts';

const [n1, n2, n3] = [nodeId('n1'), nodeId('n2'), nodeId('n3')];
const request: CallRequest = { method: 'cards.enter', parameters: { group: 'a' } };

/** Nodes that hear each other at once; `lost` swallows everything, `heard` keeps it. */
class Bench {
  readonly clock = new ManualClock();
  readonly served: string[] = [];
  readonly heard: { readonly from: NodeId; readonly to: NodeId; readonly bytes: Buffer }[] = [];
  lost = false;
  readonly #nodes = new Map<NodeId, PeerCalls>();

  node(self: NodeId, seed: number): PeerCalls {
    const calls = new PeerCalls({
      self,
      sealer: new Sealer(Buffer.alloc(32, 7), seededRandom(seed)),
      clock: this.clock,
      random: seededRandom(seed),
      send: (to, bytes) => {
        this.heard.push({ from: self, to, bytes });
        if (!this.lost) this.#nodes.get(to)?.receive(self, bytes);
      },
      serve: (from, { method }) => {
        this.served.push(`${method} of ${from}`);
        return Promise.resolve({ kind: 'result', result: 'done' });
      },
    });
    this.#nodes.set(self, calls);
    return calls;
  }
}

test('a call is carried out by the other node and answered', async () => {
  const bench = new Bench();
  bench.node(n2, 2);
  assert.deepEqual(await bench.node(n1, 1).call(n2, request, 1000), { kind: 'result', result: 'done' });
  assert.deepEqual(bench.served, ['cards.enter of n1']);
});

test('a call that nobody answers in time fails as NODE_UNREACHABLE', async () => {
  const bench = new Bench();
  bench.lost = true;
  const reply = bench.node(n1, 1).call(n2, request, 1000);
  bench.clock.advance(1000);
  const error = await reply;
  assert.equal(error.kind === 'error' && error.code, 'NODE_UNREACHABLE');
});

test('a call that was captured is not carried out a second time, nor one that was kept for a minute', async () => {
  const bench = new Bench();
  const other = bench.node(n2, 2);
  await bench.node(n1, 1).call(n2, request, 1000);
  const [captured] = bench.heard;
  assert.ok(captured);
  other.receive(n1, captured.bytes);
  assert.equal(bench.served.length, 1);
  bench.lost = true;
  void bench.node(n1, 3).call(n2, request, 120_000);
  const kept = bench.heard.at(-1);
  assert.ok(kept);
  bench.clock.advance(60_000);
  other.receive(n1, kept.bytes);
  assert.equal(bench.served.length, 1);
});

test('what is not sealed for this node by the one who sends it is not listened to', () => {
  const bench = new Bench();
  bench.lost = true;
  void bench.node(n1, 1).call(n2, request, 1000);
  const [captured] = bench.heard;
  assert.ok(captured);
  bench.node(n3, 3).receive(n1, captured.bytes);
  bench.node(n2, 2).receive(n3, captured.bytes);
  bench.node(n2, 2).receive(n1, Buffer.from('clear'));
  assert.deepEqual(bench.served, []);
});
