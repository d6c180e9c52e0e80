import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';

import { ManualClock } from '../../base/manual-clock.ts';
import { realClock } from '../../base/real.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import { openConnection } from './connection.ts';
import type { AcquirerConnection, ConnectionOptions, Stray } from './connection.ts';
import { FakeBank, nextTurn, startFakeSwitch } from './testing.ts';
import type { FakeSwitch, Fault } from './testing.ts';

function purchase(stan: number, changes: Readonly<Record<number, string>> = {}): IsoMessage {
  const fields = new Map<number, FieldValue>([
    [2, '9900010000000019'],
    [3, '000000'],
    [4, '000000001250'],
    [7, '0301120000'],
    [11, String(stan).padStart(6, '0')],
    [41, 'TERM0001'],
    ...Object.entries(changes).map(([field, value]): [number, string] => [Number(field), value]),
  ]);
  return { mti: '0100', fields };
}

/** Runs `body` with a connection to a fake switch, and ends both. */
async function connected(
  fault: ((message: IsoMessage, count: number) => Fault | undefined) | undefined,
  body: (connection: AcquirerConnection, fake: FakeSwitch, strays: readonly Stray[]) => Promise<void>,
  options: Partial<ConnectionOptions> = {},
): Promise<void> {
  const fake = await startFakeSwitch({ bank: new FakeBank(), ...(fault === undefined ? {} : { fault }) });
  const strays: Stray[] = [];
  try {
    const opened = await openConnection({
      endpoint: fake.endpoint,
      clock: realClock,
      requestTimeoutMs: 60_000,
      onStray: (stray) => strays.push(stray),
      ...options,
    });
    assert.equal(opened.kind, 'connected');
    await body(opened.connection, fake, strays);
    opened.connection.destroy();
  } finally {
    await fake.close();
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await nextTurn();
}

test('pipelined requests each get their own answer, in whatever order answers come', async () => {
  // The first of three is held back until the next arrives, and so overtaken.
  await connected(
    (_, count) => (count % 3 === 1 ? 'hold-back' : undefined),
    async (connection, fake) => {
      const stans = Array.from({ length: 100 }, (_, index) => index + 1);
      const outcomes = stans.map((stan) => connection.request(purchase(stan)));
      assert.equal(connection.inFlight, 100);
      await until(() => fake.received.length === 100);
      fake.release();
      for (const [index, outcome] of (await Promise.all(outcomes)).entries()) {
        assert.equal(outcome.kind, 'answered');
        assert.equal(outcome.message.mti, '0110');
        assert.equal(outcome.message.fields.get(11), String(index + 1).padStart(6, '0'));
      }
      assert.equal(connection.inFlight, 0);
    },
  );
});

test('requests that differ only in MTI class, terminal or DE 7 are told apart', async () => {
  await connected(undefined, async (connection) => {
    const requests = [
      purchase(1),
      purchase(1, { 41: 'TERM0002' }),
      purchase(1, { 7: '0301120001' }),
      { ...purchase(1), mti: '0200' },
      { ...purchase(1), mti: '0420' },
    ];
    const outcomes = await Promise.all(requests.map((request) => connection.request(request)));
    assert.deepEqual(
      outcomes.map((outcome) => outcome.kind === 'answered' && [outcome.message.mti, outcome.message.fields.get(41)]),
      [
        ['0110', 'TERM0001'],
        ['0110', 'TERM0002'],
        ['0110', 'TERM0001'],
        ['0210', 'TERM0001'],
        ['0430', 'TERM0001'],
      ],
    );
  });
});

test('a network message is matched without DE 41', async () => {
  await connected(undefined, async (connection) => {
    const echo = {
      mti: '0800',
      fields: new Map<number, FieldValue>([
        [7, '0301120000'],
        [11, '000001'],
        [70, '301'],
      ]),
    };
    const outcome = await connection.request(echo);
    assert.equal(outcome.kind, 'answered');
    assert.equal(outcome.message.mti, '0810');
  });
});

test('a request without an answer times out, and an answer that comes later is kept as late', async () => {
  const clock = new ManualClock({ soon: 'event-loop' });
  await connected(
    (_, count) => (count === 1 ? 'hold-back' : undefined),
    async (connection, fake, strays) => {
      const first = connection.request(purchase(1));
      await until(() => fake.received.length === 1);
      clock.advance(999);
      assert.equal(connection.inFlight, 1);
      clock.advance(1);
      assert.deepEqual(await first, { kind: 'timeout' });
      fake.release();
      await until(() => strays.length === 1);
      assert.equal(strays[0]?.kind, 'late');
      const second = await connection.request(purchase(2));
      assert.equal(second.kind, 'answered');
    },
    { clock, requestTimeoutMs: 1_000 },
  );
});

test('each request has its own deadline', async () => {
  const clock = new ManualClock({ soon: 'event-loop' });
  await connected(
    () => 'silent',
    async (connection) => {
      const settled: number[] = [];
      for (const stan of [1, 2, 3]) {
        void connection.request(purchase(stan)).then(() => settled.push(stan));
        clock.advance(300);
      }
      const states: number[][] = [];
      for (let step = 0; step < 4; step++) {
        clock.advance(step === 0 ? 100 : 300);
        await nextTurn();
        states.push([...settled]);
      }
      assert.deepEqual(states, [[1], [1, 2], [1, 2, 3], [1, 2, 3]]);
    },
    { clock, requestTimeoutMs: 1_000 },
  );
});

const strayTable: readonly (readonly [string, Fault, Stray['kind']])[] = [
  ['a second answer', 'twice', 'duplicate'],
  ['an answer to nothing', 'unasked', 'unknown'],
  ['a frame that is no message', 'garbage', 'undecodable'],
];
for (const [what, fault, kind] of strayTable) {
  test(`${what} is counted as ${kind} and kept, and disturbs no other request`, async () => {
    await connected(
      (_, count) => (count === 2 ? fault : undefined),
      async (connection, _fake, strays) => {
        for (const stan of [1, 2, 3]) assert.equal((await connection.request(purchase(stan))).kind, 'answered');
        assert.deepEqual(
          strays.map((stray) => stray.kind),
          [kind],
        );
        assert.equal(connection.strayCounts[kind], 1);
        assert.equal(connection.strays.length, 1);
      },
    );
  });
}

test('when the connection is lost, what is in flight is lost, and later requests are known not to be sent', async () => {
  await connected(
    (_, count) => (count === 3 ? 'hang-up' : 'silent'),
    async (connection) => {
      const outcomes = await Promise.all([1, 2, 3, 4].map((stan) => connection.request(purchase(stan))));
      assert.deepEqual(new Set(outcomes.map((outcome) => outcome.kind)), new Set(['connection-lost']));
      await connection.closed;
      assert.equal(connection.isOpen, false);
      assert.deepEqual(await connection.request(purchase(5)), { kind: 'connection-lost', sent: false });
    },
  );
});

test('a message with no form on the wire is named by its field, and nothing is sent', async () => {
  await connected(undefined, async (connection, fake) => {
    const outcome = await connection.request(purchase(1, { 4: '12.50' }));
    assert.equal(outcome.kind, 'unpackable');
    assert.equal(outcome.error.field, 4);
    await connection.request(purchase(2));
    assert.equal(fake.received.length, 1);
  });
});

test('what must be on record is on record before the bytes leave; when that fails, nothing leaves', async () => {
  let allowed = true;
  let recorded = 0;
  await connected(
    undefined,
    async (connection, fake) => {
      await connection.request(purchase(1));
      assert.equal(recorded, 1);
      allowed = false;
      assert.deepEqual(await connection.request(purchase(2)), { kind: 'connection-lost', sent: true });
      assert.equal(fake.received.length, 1);
    },
    {
      beforeWrite: () => {
        if (!allowed) throw new Error('disk full');
        recorded += 1;
      },
    },
  );
});

test('a peer that does not read makes the connection congested until it reads again', async () => {
  await connected(undefined, async (connection, fake) => {
    fake.pause();
    const outcomes: Promise<unknown>[] = [];
    for (let stan = 1; !connection.congested;) {
      for (let index = 0; index < 500; index++)
        outcomes.push(connection.request(purchase(stan++, { 48: 'x'.repeat(999) })));
      await nextTurn();
    }
    const drained = connection.drained();
    fake.resume();
    await drained;
    await Promise.all(outcomes);
    assert.equal(connection.congested, false);
    assert.equal(fake.received.length, outcomes.length);
  });
});

test('a port where nobody listens is refused with the reason', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const opened = await openConnection({ endpoint: { host: '127.0.0.1', port }, clock: realClock, requestTimeoutMs: 1 });
  assert.deepEqual(opened, { kind: 'refused', reason: 'ECONNREFUSED' });
});
