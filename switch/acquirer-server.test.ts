import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, test, type TestContext } from 'node:test';

import { realClock } from '../base/real.ts';
import { SwitchError } from '../base/errors.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { AcquirerServer, type AcquirerServerOptions } from './acquirer-server.ts';
import { Deframer, frame, length2 } from './iso8583/framing.ts';

/*
 * Real sockets on the loopback, and a clock of the test's. What has no event of its own is waited for turn by turn of
 * the event loop.
 */

/** Lets the event loop turn until `done`; the runner's time limit ends a test that never gets there. */
async function until(done: () => boolean): Promise<void> {
  while (!done())
    await new Promise<void>((resolve) => {
      realClock.soon(resolve);
    });
}

/** A number of turns in which whatever is on the loopback arrives. */
async function turns(count = 50): Promise<void> {
  let left = count;
  await until(() => left-- === 0);
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

interface Asked {
  readonly remote: string;
  readonly text: string;
  readonly send: (answer: Buffer | undefined) => void;
}

/** A server whose requests lie in `asked` until the test answers them; with `echo` each is answered at once. */
class Bench {
  readonly clock = new ManualClock({ soon: 'event-loop' });
  readonly asked: Asked[] = [];
  readonly closed: string[] = [];
  echo = false;
  readonly server: AcquirerServer;
  readonly port: number;

  private constructor(port: number, changes: Partial<AcquirerServerOptions>) {
    this.port = port;
    this.server = new AcquirerServer({
      endpoint: { host: '127.0.0.1', port },
      clock: this.clock,
      openSession: (remote) => ({
        receive: (bytes, send) => {
          if (this.echo) send(bytes);
          else this.asked.push({ remote, text: bytes.toString('latin1'), send });
        },
      }),
      maximumConnections: 4096,
      maximumInFlight: 1000,
      maximumFrameBytes: 8192,
      partialFrameMs: 30_000,
      slowReaderMs: 30_000,
      onClosed: (_remote, reason) => this.closed.push(reason),
      ...changes,
    });
  }

  static async start(t: TestContext, changes: Partial<AcquirerServerOptions> = {}): Promise<Bench> {
    const bench = new Bench(await freePort(), changes);
    await bench.server.listen();
    t.after(async () => {
      const closed = bench.server.close(0);
      bench.clock.advance(1);
      await closed;
    });
    return bench;
  }

  async client(t: TestContext): Promise<Client> {
    const client = new Client(this.port);
    t.after(() => client.socket.destroy());
    await once(client.socket, 'connect');
    await until(() => this.server.connections > 0);
    return client;
  }

  answer(text: string): void {
    const at = this.asked.findIndex((each) => each.text === text);
    assert.notEqual(at, -1, `${text} has been asked`);
    this.asked.splice(at, 1)[0]?.send(Buffer.from(`to ${text}`));
  }

  texts(): string[] {
    return this.asked.map(({ text }) => text);
  }
}

class Client {
  readonly socket: Socket;
  readonly received: string[] = [];
  ended = false;
  closed = false;
  readonly #deframer = new Deframer(length2, 65_535);

  constructor(port: number) {
    this.socket = connect({ host: '127.0.0.1', port, noDelay: true });
    this.socket.on('data', (chunk) => {
      for (const event of this.#deframer.push(chunk)) {
        if (event.kind === 'frame') this.received.push(event.bytes.toString('latin1'));
      }
    });
    this.socket.on('end', () => (this.ended = true));
    this.socket.on('close', () => (this.closed = true));
    this.socket.on('error', () => undefined);
  }

  send(...texts: string[]): void {
    this.socket.write(framed(...texts));
  }
}

function framed(...texts: string[]): Buffer {
  return Buffer.concat(texts.map((text) => frame(Buffer.from(text, 'latin1'), length2)));
}

describe('frames', () => {
  test('that come in one piece are told apart, and answered in any order', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.send('a', 'bb', 'ccc');
    await until(() => bench.asked.length === 3);
    assert.deepEqual(bench.texts(), ['a', 'bb', 'ccc']);
    for (const text of ['ccc', 'a', 'bb']) bench.answer(text);
    await until(() => client.received.length === 3);
    assert.deepEqual(client.received, ['to ccc', 'to a', 'to bb']);
  });
  test('that come byte by byte are put together', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    for (const byte of framed('first', 'second')) {
      client.socket.write(Buffer.from([byte]));
      await turns(2);
    }
    await until(() => bench.asked.length === 2);
    assert.deepEqual(bench.texts(), ['first', 'second']);
  });
  test('cut anywhere, with the beginning of the next, are put together', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    const bytes = framed('first', 'second');
    for (let cut = 1; cut < bytes.length; cut++) {
      client.socket.write(bytes.subarray(0, cut));
      await turns(2);
      client.socket.write(bytes.subarray(cut));
      await until(() => bench.asked.length === 2);
      assert.deepEqual(bench.texts(), ['first', 'second']);
      bench.asked.splice(0);
    }
  });
  test('of length 0 are polls: no request, no answer, the connection stays', async (t) => {
    const bench = await Bench.start(t);
    bench.echo = true;
    const client = await bench.client(t);
    client.send('', '', 'x', '');
    await until(() => client.received.length === 1);
    assert.deepEqual(client.received, ['x']);
    assert.ok(!client.closed);
  });
  test('over the limit close their connection alone', async (t) => {
    const bench = await Bench.start(t);
    const [good, bad] = [await bench.client(t), await bench.client(t)];
    good.send('before');
    await until(() => bench.asked.length === 1);
    bad.socket.write(Buffer.from([0x20, 0x01]));
    await until(() => bad.closed);
    assert.deepEqual(bench.closed, ['frame too-long']);
    await until(() => bench.server.connections === 1);
    bench.answer('before');
    await until(() => good.received.length === 1);
    good.send('after', 'x'.repeat(8192));
    await until(() => bench.asked.length === 2);
  });
  test('of 65,535 bytes announced hold no such memory and close too', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.socket.write(Buffer.from([0xff, 0xff]));
    await until(() => client.closed);
  });
});

describe('a connection', () => {
  test('that stops in the middle of a frame is closed when its time is over, and not before', async (t) => {
    const bench = await Bench.start(t);
    const [partial, header, idle] = [await bench.client(t), await bench.client(t), await bench.client(t)];
    partial.socket.write(framed('whole').subarray(0, 4));
    header.socket.write(Buffer.from([0]));
    idle.send('x');
    await until(() => bench.asked.length === 1);
    await turns();
    bench.clock.advance(30_000);
    bench.server.tick();
    await turns();
    assert.deepEqual(bench.closed, []);
    bench.clock.advance(1);
    bench.server.tick();
    await until(() => partial.closed && header.closed);
    assert.equal(bench.closed.length, 2);
    assert.match(bench.closed.join(), /not finished within 30000 ms/);
    assert.ok(!idle.closed);
  });
  test('that sends a byte now and then does not buy time with it', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    for (const byte of framed('0123456789').subarray(0, 8)) {
      client.socket.write(Buffer.from([byte]));
      await turns();
      bench.clock.advance(4000);
      bench.server.tick();
    }
    await until(() => client.closed);
  });
  test('has a new time for each frame', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    const bytes = framed('x');
    for (let time = 1; time <= 5; time++) {
      client.socket.write(bytes.subarray(0, 1));
      await turns();
      bench.clock.advance(20_000);
      bench.server.tick();
      client.socket.write(Buffer.concat([bytes.subarray(1), bytes.subarray(0, 1)]));
      await until(() => bench.asked.length === time);
      client.socket.write(bytes.subarray(1));
      await until(() => bench.asked.length === time + 1);
      bench.asked.splice(0, 1);
    }
    assert.ok(!client.closed);
  });
  test('with too many requests in flight is not read until some are answered', async (t) => {
    const bench = await Bench.start(t, { maximumInFlight: 3 });
    const client = await bench.client(t);
    for (let at = 0; at < 10; at++) {
      client.send(`r${at}`);
      await turns(5);
    }
    await turns();
    assert.deepEqual(bench.texts(), ['r0', 'r1', 'r2']);
    bench.answer('r1');
    await until(() => bench.asked.length > 2);
    for (const text of ['r0', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8', 'r9']) {
      await until(() => bench.texts().includes(text));
      bench.answer(text);
    }
    await until(() => client.received.length === 10);
  });
  test('that half-closes gets what is in flight, and then the end', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.send('a', 'b');
    client.socket.end();
    await until(() => bench.asked.length === 2);
    await turns();
    assert.ok(!client.ended);
    bench.answer('b');
    bench.answer('a');
    await until(() => client.closed);
    assert.deepEqual(client.received, ['to b', 'to a']);
    await until(() => bench.server.connections === 0);
  });
  test('that is gone does not hurt when its answer comes', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.send('a');
    await until(() => bench.asked.length === 1);
    client.socket.resetAndDestroy();
    await until(() => bench.server.connections === 0);
    bench.answer('a');
    await turns();
    const next = await bench.client(t);
    next.send('b');
    await until(() => bench.asked.length === 1);
  });
  test('gets nothing for a request that has no answer, and goes on', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.send('a', 'b');
    await until(() => bench.asked.length === 2);
    const [first] = bench.asked.splice(0, 1);
    first?.send(undefined);
    first?.send(Buffer.from('twice'));
    bench.answer('b');
    await until(() => client.received.length === 1);
    await turns();
    assert.deepEqual(client.received, ['to b']);
  });
});

describe('a reader that does not read', () => {
  /** Sends for as long as the server takes it; the answers are as large as frames may be. */
  async function flood(bench: Bench, client: Client): Promise<number> {
    bench.echo = true;
    client.socket.pause();
    const bytes = framed('x'.repeat(8000));
    let sent = 0;
    let quiet = 0;
    let read = -1;
    // Until the server has read nothing more for a good while: it has stopped, or never will.
    while (quiet < 200 && sent < 8000) {
      if (client.socket.writableLength < 64 * 1024) {
        client.socket.write(bytes);
        sent += 1;
      }
      await turns(1);
      quiet = client.socket.bytesWritten - client.socket.writableLength === read ? quiet + 1 : 0;
      read = client.socket.bytesWritten - client.socket.writableLength;
    }
    return sent;
  }
  test('is not read any more, costs bounded memory, and gets everything when it reads again', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    const sent = await flood(bench, client);
    assert.ok(sent < 8000, 'the server stopped reading');
    bench.clock.advance(30_000);
    bench.server.tick();
    assert.deepEqual(bench.closed, []);
    client.socket.resume();
    await until(() => client.received.length === sent);
    bench.clock.advance(60_000);
    bench.server.tick();
    await turns();
    assert.ok(!client.closed, 'it has read since');
  });
  test('is disconnected when its time is over, and nobody else', async (t) => {
    const bench = await Bench.start(t);
    const [slow, good] = [await bench.client(t), await bench.client(t)];
    await flood(bench, slow);
    bench.clock.advance(30_001);
    bench.server.tick();
    await until(() => bench.server.connections === 1);
    assert.deepEqual(bench.closed, ['answers were not read for 30000 ms']);
    good.send('x');
    await until(() => good.received.length === 1);
  });
});

describe('many connections', () => {
  test('of which a thousand say nothing hinder nobody', async (t) => {
    const bench = await Bench.start(t);
    bench.echo = true;
    const silent = Array.from({ length: 1000 }, () => new Client(bench.port));
    t.after(() => {
      for (const { socket } of silent) socket.destroy();
    });
    await until(() => bench.server.connections === 1000);
    const client = await bench.client(t);
    client.send('x');
    await until(() => client.received.length === 1);
    bench.clock.advance(600_000);
    bench.server.tick();
    assert.equal(bench.server.connections, 1001, 'silence is no fault');
  });
  test('beyond the limit are refused, and taken again when others have gone', async (t) => {
    const bench = await Bench.start(t, { maximumConnections: 2 });
    bench.echo = true;
    const [first] = [await bench.client(t), await bench.client(t)];
    const third = new Client(bench.port);
    await until(() => third.closed);
    first.socket.destroy();
    await until(() => bench.server.connections === 1);
    const fourth = await bench.client(t);
    fourth.send('x');
    await until(() => fourth.received.length === 1);
  });
});

describe('a server that closes', () => {
  test('answers what is in flight, takes nothing new, and is done without waiting for its grace', async (t) => {
    const bench = await Bench.start(t);
    const [busy, idle] = [await bench.client(t), await bench.client(t)];
    busy.send('a', 'b');
    await until(() => bench.asked.length === 2);
    const ends: string[] = [];
    const closed = bench.server.close(5000).then(() => ends.push('closed'));
    busy.send('c');
    await until(() => idle.closed);
    await turns();
    assert.deepEqual([ends, busy.ended], [[], false]);
    assert.deepEqual(bench.texts(), ['a', 'b']);
    bench.answer('b');
    bench.answer('a');
    await closed;
    await until(() => busy.closed);
    assert.deepEqual(busy.received, ['to b', 'to a']);
    assert.equal(bench.clock.timers, 0);
    const late = new Client(bench.port);
    await until(() => late.closed);
  });
  test('does not wait beyond its grace for answers that do not come', async (t) => {
    const bench = await Bench.start(t);
    const client = await bench.client(t);
    client.send('a');
    await until(() => bench.asked.length === 1);
    const closed = bench.server.close(5000);
    bench.clock.advance(5000);
    await closed;
    await until(() => client.closed);
    assert.deepEqual(bench.closed, ['the node stops']);
  });
});

test('a taken port is an error with a code, and names the address', async (t) => {
  const bench = await Bench.start(t);
  const second = new AcquirerServer({
    endpoint: { host: '127.0.0.1', port: bench.port },
    clock: bench.clock,
    openSession: () => ({ receive: () => undefined }),
    maximumConnections: 1,
    maximumInFlight: 1,
    maximumFrameBytes: 1,
    partialFrameMs: 1,
    slowReaderMs: 1,
    onClosed: () => undefined,
  });
  await assert.rejects(second.listen(), (error) => {
    assert.ok(error instanceof SwitchError);
    assert.equal(error.code, 'PORT_TAKEN');
    assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${bench.port}`));
    return true;
  });
});
