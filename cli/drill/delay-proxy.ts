import { createServer, connect } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';

import { z } from 'zod';

import type { Clock } from '../../base/clock.ts';
import { realClock } from '../../base/real.ts';

/**
 * A process between brokers: `node delay-proxy.ts '[{"host":"127.0.0.1","port":7431}, ...]'` listens at a port of its
 * own for each address, tells them over its channel, and passes on what comes, each piece so many milliseconds after it
 * came, in each direction, in order. The delay is changed over the channel. It ends with the process that started it.
 */
export const proxyTargets = z.array(z.object({ host: z.string(), port: z.int() }));
export const proxyMessage = z.object({ ports: z.array(z.int()) });
export const delayMessage = z.object({ delayMs: z.number().min(0) });

let delayMs = 0;

function listen(target: { readonly host: string; readonly port: number }, clock: Clock): Promise<number> {
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (incoming) => {
    const outgoing = connect({ ...target, noDelay: true, allowHalfOpen: true });
    pass(incoming, outgoing, clock);
    pass(outgoing, incoming, clock);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      resolve((server.address() as AddressInfo).port);
    });
  });
}

function pass(from: Socket, to: Socket, clock: Clock): void {
  // A shorter delay does not let later bytes overtake: each piece waits for those before it.
  let lastMs = 0;
  const later = (action: () => void): void => {
    const nowMs = clock.monotonicMs();
    lastMs = Math.max(lastMs, nowMs + delayMs);
    if (lastMs <= nowMs) action();
    else clock.after(lastMs - nowMs, action);
  };
  from.on('data', (chunk) => {
    later(() => to.write(chunk));
  });
  from.on('end', () => {
    later(() => to.end());
  });
  from.on('error', () => {
    to.destroy();
  });
  from.on('close', () => {
    later(() => to.destroy());
  });
}

if (import.meta.main) {
  process.on('disconnect', () => {
    process.exit();
  });
  process.on('message', (message) => {
    const parsed = delayMessage.safeParse(message);
    if (parsed.success) delayMs = parsed.data.delayMs;
  });
  const targets = proxyTargets.parse(JSON.parse(process.argv[2] ?? '[]'));
  const ports = await Promise.all(targets.map((target) => listen(target, realClock)));
  process.send?.({ ports });
}
