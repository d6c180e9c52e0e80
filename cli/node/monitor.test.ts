import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';

import { ManualClock } from '../../base/manual-clock.ts';
import { freePorts } from '../cluster/testing.ts';
import { Monitor, type MonitorOptions } from './monitor.ts';

interface Running {
  readonly url: string;
  readonly port: number;
  readonly clock: ManualClock;
  readonly collected: { metrics: number; reasons: number };
}

async function start(context: TestContext, options: Partial<MonitorOptions> = {}): Promise<Running> {
  const [port = 0] = await freePorts(1);
  const clock = new ManualClock();
  const collected = { metrics: 0, reasons: 0 };
  const monitor = new Monitor({
    endpoint: { host: '127.0.0.1', port },
    clock,
    ...options,
    metrics: () => {
      collected.metrics += 1;
      return options.metrics?.() ?? Promise.resolve('up 1\n');
    },
    reasons: () => {
      collected.reasons += 1;
      return options.reasons?.() ?? Promise.resolve([]);
    },
  });
  await monitor.listen();
  context.after(() => monitor.close());
  return { url: `http://127.0.0.1:${port}`, port, clock, collected };
}

async function ask(url: string, method = 'GET'): Promise<{ status: number; body: string; headers: Headers }> {
  const response = await fetch(url, { method });
  return { status: response.status, body: await response.text(), headers: response.headers };
}

/** Sends bytes as they are; what came back until the other side closed. */
async function send(port: number, bytes: string): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  let answer = '';
  socket.on('data', (data) => (answer += data.toString()));
  socket.on('error', () => undefined);
  socket.end(bytes);
  await once(socket, 'close');
  return answer;
}

test('a process whose event loop runs is alive, whatever else is wrong with it', async (context) => {
  const { url } = await start(context, { reasons: () => Promise.resolve(['nobody leads group a']) });
  assert.deepEqual(await ask(`${url}/livez`).then(({ status, body }) => [status, body]), [200, 'alive\n']);
});

test('a process is ready when there is nothing against it, and otherwise says what there is', async (context) => {
  let reasons: string[] = [];
  const { url, clock } = await start(context, { reasons: () => Promise.resolve(reasons) });
  assert.equal((await ask(`${url}/readyz`)).status, 200);
  reasons = ['no broker can be reached', 'group a: nobody leads it; requests get 91'];
  clock.advance(1000);
  const { status, body } = await ask(`${url}/readyz`);
  assert.deepEqual([status, body], [503, 'no broker can be reached\ngroup a: nobody leads it; requests get 91\n']);
});

test('metrics are text for Prometheus, and HEAD has the headers alone', async (context) => {
  const { url } = await start(context);
  const { status, body, headers } = await ask(`${url}/metrics?name=x`);
  assert.deepEqual([status, body], [200, 'up 1\n']);
  assert.equal(headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  const head = await ask(`${url}/metrics`, 'HEAD');
  assert.deepEqual([head.status, head.body, head.headers.get('content-length')], [200, '', '5']);
});

test('however often it is asked, it collects once at a time and once in half a second', async (context) => {
  const begun = new EventEmitter();
  const { url, clock, collected } = await start(context, {
    metrics: () => new Promise((resolve) => begun.emit('collecting', resolve)),
  });
  const finishNext = async (text: string): Promise<void> => {
    const [finish] = (await once(begun, 'collecting')) as [(text: string) => void];
    finish(text);
  };
  const first = finishNext('one\n');
  const asked = Array.from({ length: 8 }, () => ask(`${url}/metrics`));
  await first;
  assert.deepEqual(new Set((await Promise.all(asked)).map(({ body }) => body)), new Set(['one\n']));
  assert.equal(collected.metrics, 1);
  await ask(`${url}/metrics`);
  assert.equal(collected.metrics, 1);
  clock.advance(500);
  const second = finishNext('two\n');
  const again = await ask(`${url}/metrics`);
  await second;
  assert.equal(again.body, 'two\n');
});

test('a process that cannot say in time how it is is not ready', async (context) => {
  const { url, clock } = await start(context, {
    reasons: () => {
      queueMicrotask(() => {
        clock.advance(2000);
      });
      return new Promise(() => undefined);
    },
  });
  const { status, body } = await ask(`${url}/readyz`);
  assert.equal(status, 503);
  assert.match(body, /could not say in 2000 ms how it is/);
});

test('what cannot be collected is a 503 with its reason, and no card number in it', async (context) => {
  const { url } = await start(context, {
    metrics: () => Promise.reject(new Error('no file for 4000001234567899')),
    reasons: () => Promise.resolve(['card 4000001234567899']),
  });
  const metrics = await ask(`${url}/metrics`);
  assert.deepEqual([metrics.status, metrics.body], [503, 'no file for 400000******7899\n']);
  assert.equal((await ask(`${url}/readyz`)).body, 'card 400000******7899\n');
});

test('anything but GET and HEAD of the three paths is refused', async (context) => {
  const { url, port } = await start(context);
  for (const path of ['/', '/metrics/', '/../etc/passwd', '/metricsx', '//metrics']) {
    assert.equal((await ask(`${url}${path}`)).status, 404, path);
  }
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
    const { status, headers } = await ask(`${url}/metrics`, method);
    assert.deepEqual([status, headers.get('allow')], [405, 'GET, HEAD'], method);
  }
  assert.match(await send(port, 'no http at all\r\n\r\n'), /^HTTP\/1\.1 400 /);
  assert.match(
    await send(port, `GET /livez HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(10_000)}\r\n\r\n`),
    /^HTTP\/1\.1 431 /,
  );
  assert.match(await send(port, 'GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'), /^HTTP\/1\.1 200 /);
});

test('a port that is taken is PORT_TAKEN', async (context) => {
  const { port } = await start(context);
  const second = new Monitor({
    endpoint: { host: '127.0.0.1', port },
    clock: new ManualClock(),
    metrics: () => Promise.resolve(''),
    reasons: () => Promise.resolve([]),
  });
  await assert.rejects(second.listen(), {
    code: 'PORT_TAKEN',
    message: `cannot listen for monitoring at 127.0.0.1:${port} (EADDRINUSE)`,
  });
  await second.close();
});
