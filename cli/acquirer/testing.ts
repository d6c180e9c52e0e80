import { createServer, type AddressInfo, type Socket } from 'node:net';

import { realClock } from '../../base/real.ts';
import type { Endpoint } from '../../base/topology.ts';
import { pack, unpack } from '../../switch/iso8583/codec.ts';
import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import { Deframer, frame, length2 } from '../../switch/iso8583/framing.ts';
import { iso87Ascii } from '../../switch/iso8583/spec.ts';

/**
 * A stand-in for the switch in the acquirer's tests: ISO 8583 over loopback, in this process, with faults on demand.
 * It keeps balances in the simplest way that is right for one card at a time, so that a whole load can be checked
 * against the recomputation.
 */
export type Fault =
  /** Decides, and never answers. */
  | 'silent'
  | 'twice'
  /** Answers when the connection's next request comes, or `release` is called. */
  | 'hold-back'
  /** Closes the connection after deciding, or before. */
  | 'hang-up'
  | 'hang-up-undecided'
  | 'wrong-stan'
  | 'wrong-amount'
  | 'wrong-mti'
  | 'without-rrn'
  /** Before its answer: a frame that is no message, or an answer to nothing. */
  | 'garbage'
  | 'unasked';

export interface FakeSwitch {
  readonly endpoint: Endpoint;
  /** Everything that arrived, in order. */
  readonly received: readonly IsoMessage[];
  release(): void;
  /** Cuts all connections; the port stays open. */
  hangUp(): void;
  /** Stops or goes on reading from all connections. */
  pause(): void;
  resume(): void;
  close(): Promise<void>;
}

export async function startFakeSwitch(options: {
  readonly bank: Bank;
  /** What to do wrong with this message; `count` is 1 for the first that arrives. */
  readonly fault?: (message: IsoMessage, count: number) => Fault | undefined;
  /** Where an earlier one was; any free port when not given. */
  readonly port?: number;
}): Promise<FakeSwitch> {
  const sockets = new Set<Socket>();
  const received: IsoMessage[] = [];
  const heldBack: { readonly socket: Socket; readonly bytes: Buffer }[] = [];
  const release = (socket?: Socket): void => {
    for (const held of heldBack.splice(0)) {
      if (socket === undefined || held.socket === socket) held.socket.write(held.bytes);
      else heldBack.push(held);
    }
  };
  const handle = (socket: Socket, message: IsoMessage): void => {
    received.push(message);
    const fault = options.fault?.(message, received.length);
    if (fault === 'hang-up-undecided') {
      socket.destroy();
      return;
    }
    const answer = answerTo(message, options.bank.decide(message));
    release(socket);
    switch (fault) {
      case 'silent':
        return;
      case 'hang-up':
        socket.destroy();
        return;
      case 'hold-back':
        heldBack.push({ socket, bytes: wire(answer) });
        return;
      case 'twice':
        socket.write(Buffer.concat([wire(answer), wire(answer)]));
        return;
      case 'garbage':
        socket.write(Buffer.concat([frame(Buffer.from('0110 what?'), length2), wire(answer)]));
        return;
      case 'unasked':
        socket.write(Buffer.concat([wire(withField(answer, 11, '999999')), wire(answer)]));
        return;
      case 'wrong-stan':
        socket.write(wire(withField(answer, 11, '999999')));
        return;
      case 'wrong-amount':
        socket.write(wire(withField(answer, 4, '000000000001')));
        return;
      case 'without-rrn':
        socket.write(wire(withField(answer, 37, undefined)));
        return;
      case 'wrong-mti':
        socket.write(wire({ ...answer, mti: `${answer.mti.slice(0, 3)}1` }));
        return;
      case undefined:
        socket.write(wire(answer));
    }
  };
  const server = createServer({ noDelay: true }, (socket) => {
    const deframer = new Deframer(length2, 0xffff);
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      socket.cork();
      for (const event of deframer.push(chunk)) {
        if (event.kind !== 'frame') continue;
        const unpacked = unpack(event.bytes, iso87Ascii);
        if (unpacked.kind === 'invalid') throw new Error(unpacked.error.message);
        handle(socket, unpacked.message);
      }
      socket.uncork();
    });
  });
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve));
  const hangUp = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    endpoint: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    received,
    release,
    hangUp,
    pause: () => {
      for (const socket of sockets) socket.pause();
    },
    resume: () => {
      for (const socket of sockets) socket.resume();
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        hangUp();
      }),
  };
}

function wire(message: IsoMessage): Buffer {
  const packed = pack(message, iso87Ascii);
  if (packed.kind === 'invalid') throw new Error(packed.error.message);
  return frame(packed.bytes, length2);
}

function withField(message: IsoMessage, number: number, value: string | undefined): IsoMessage {
  const fields = new Map(message.fields);
  if (value === undefined) fields.delete(number);
  else fields.set(number, value);
  return { ...message, fields };
}

const echoed = [2, 3, 4, 7, 11, 12, 13, 32, 37, 41, 42, 49, 70];

function answerTo(message: IsoMessage, decision: FakeDecision): IsoMessage {
  const fields = new Map<number, FieldValue>();
  for (const field of echoed) {
    const value = message.fields.get(field);
    if (value !== undefined) fields.set(field, value);
  }
  if (decision.authorizationCode !== '') fields.set(38, decision.authorizationCode);
  fields.set(39, decision.responseCode);
  return { mti: `${message.mti.slice(0, 2)}${Number(message.mti[2]) + 1}0`, fields };
}

/** Whatever decides behind a fake switch. */
export interface Bank {
  decide(message: IsoMessage): FakeDecision;
}

export interface FakeDecision {
  readonly responseCode: string;
  readonly authorizationCode: string;
}

interface Entry {
  readonly mtiClass: string;
  readonly pan: string;
  readonly terminal: string;
  readonly stan: string;
  readonly transmission: string;
  readonly rrn: string;
  readonly merchant: string;
  readonly amount: number;
  readonly decision: FakeDecision;
  state: 'held' | 'posted' | 'completed' | 'closed';
  value: number;
  /** The hold that this completed, and what it held. */
  hold: Entry | undefined;
  restores: number;
}

/** What several fake switches share: they are one switch with several ports. */
export class FakeBank implements Bank {
  readonly balances = new Map<string, { held: number; posted: number }>();
  readonly #declines: (message: IsoMessage) => string | undefined;
  readonly #entries = new Map<string, Entry>();
  readonly #ofCard = new Map<string, Entry[]>();
  #codes = 0;

  /** `declines`: DE 39 for a request that is to be declined. */
  constructor(declines: (message: IsoMessage) => string | undefined = () => undefined) {
    this.#declines = declines;
  }

  decide(message: IsoMessage): FakeDecision {
    const text = (field: number): string => {
      const value = message.fields.get(field);
      return typeof value === 'string' ? value : '';
    };
    const mtiClass = `${message.mti.slice(0, 3)}0`;
    if (mtiClass === '0800') return { responseCode: '00', authorizationCode: '' };
    const key = [mtiClass, text(41), text(11), text(7)].join('|');
    const known = this.#entries.get(key);
    if (known !== undefined) return known.decision;
    const responseCode = this.#declines(message) ?? '00';
    this.#codes += 1;
    const coded = responseCode === '00' && (mtiClass === '0100' || mtiClass === '0200');
    const entry: Entry = {
      mtiClass,
      pan: text(2),
      terminal: text(41),
      stan: text(11),
      transmission: text(7),
      rrn: text(37),
      merchant: text(42),
      amount: Number(text(4)),
      decision: { responseCode, authorizationCode: coded ? String(this.#codes % 1_000_000).padStart(6, '0') : '' },
      state: 'closed',
      value: 0,
      hold: undefined,
      restores: 0,
    };
    const earlier = this.#ofCard.get(entry.pan) ?? [];
    if (responseCode === '00') this.#apply(entry, earlier, text(3).slice(0, 2), text(38), text(90), text(95));
    this.#entries.set(key, entry);
    earlier.push(entry);
    if (earlier.length > 5_000) earlier.splice(0, 1_000);
    this.#ofCard.set(entry.pan, earlier);
    return entry.decision;
  }

  #apply(
    entry: Entry,
    earlier: readonly Entry[],
    purpose: string,
    code: string,
    original: string,
    final: string,
  ): void {
    const balance = this.balances.get(entry.pan) ?? { held: 0, posted: 0 };
    this.balances.set(entry.pan, balance);
    const debit = purpose === '00' || purpose === '01' || purpose === '09';
    if (entry.mtiClass === '0100' && debit) {
      entry.state = 'held';
      entry.value = entry.amount;
      balance.held += entry.value;
    } else if ((entry.mtiClass === '0200' || entry.mtiClass === '0220') && (debit || purpose === '20')) {
      entry.state = 'posted';
      entry.value = debit ? entry.amount : -entry.amount;
      balance.posted += entry.value;
      const held = entry.mtiClass === '0220' ? earlier.filter((hold) => hold.state === 'held') : [];
      const hold =
        held.find((one) => one.rrn === entry.rrn && one.terminal === entry.terminal) ??
        held.find((one) => code !== '' && one.decision.authorizationCode === code && one.merchant === entry.merchant);
      if (entry.mtiClass === '0220' && debit && hold !== undefined) {
        entry.hold = hold;
        entry.restores = hold.value;
        balance.held -= hold.value;
        hold.state = 'completed';
      }
    } else if (entry.mtiClass.startsWith('04')) {
      const live = earlier.filter((one) => one.state === 'held' || one.state === 'posted');
      const target = live.find((one) =>
        original !== ''
          ? original.startsWith(`${one.mtiClass}${one.stan}${one.transmission}`) && one.terminal === entry.terminal
          : entry.rrn !== ''
            ? one.rrn === entry.rrn && one.terminal === entry.terminal
            : one.amount === entry.amount && one.stan === entry.stan && one.terminal === entry.terminal,
      );
      if (target !== undefined) this.#reverse(target, balance, Number(final.slice(0, 12)));
    }
  }

  #reverse(target: Entry, balance: { held: number; posted: number }, final: number): void {
    const kept = Math.min(Math.abs(target.value), final) * Math.sign(target.value);
    if (target.state === 'held') balance.held -= target.value - kept;
    else balance.posted -= target.value - kept;
    target.value = kept;
    if (kept !== 0) return;
    target.state = 'closed';
    if (target.hold === undefined) return;
    target.hold.state = 'held';
    target.hold.value = target.restores;
    balance.held += target.restores;
  }
}

/** Resolves after everything that the event loop has ready now. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    realClock.soon(resolve);
  });
}
