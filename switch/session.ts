import { buildRefusal, expectsAnswer, type Answerable } from './answer.ts';
import { pack, unpack, type IsoMessage } from './iso8583/codec.ts';
import type { MessageSpec } from './iso8583/spec.ts';
import { isOwnersMessage } from './request.ts';

/** DE 70 */
const signOn = '001';
const signOff = '002';
const echoTest = '301';

/** A connection that has sent so many messages that cannot even be answered is no acquirer's. */
const maximumUnreadable = 100;

export interface SessionOptions {
  readonly link: string;
  readonly spec: MessageSpec;
  /** Brings a message of an owner's class to its decision; calls back exactly once. */
  readonly handle: (message: IsoMessage, link: string, respond: (answer: IsoMessage) => void) => void;
  /** Ends the connection: what comes is no ISO 8583. */
  readonly close: (reason: string) => void;
  /** Something worth a look that gets no answer or a format error; never with field contents. */
  readonly onOddity: (kind: Oddity, detail: string) => void;
  /** Counts; called for every message, so it has to be quick. */
  readonly meter?: SessionMeter;
  /** The link signed on (true) or off. */
  readonly onSign?: (on: boolean) => void;
}

export interface SessionMeter {
  /** A message that could be read, or whose MTI could. */
  request(mti: string): void;
  answer(mti: string, responseCode: string): void;
}

/** unreadable: no answer is possible. format-error: answered with 30. unmatched: a response nobody asked for. */
export type Oddity = 'unreadable' | 'format-error' | 'unmatched' | 'unpackable-answer';

/**
 * What one connection of an acquirer may do, message by message; no socket here. A link need not sign on first, but
 * after it has signed off its requests get 91 until it signs on again.
 */
export class Session {
  readonly #options: SessionOptions;
  #signedOff = false;
  #unreadable = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Handles one frame. `send` is called at most once, with the packed answer, now or later. */
  receive(frame: Buffer, send: (answer: Buffer | undefined) => void): void {
    const { spec, onOddity, link } = this.#options;
    const unpacked = unpack(frame, spec);
    if (unpacked.kind === 'invalid') {
      const { error, readable } = unpacked;
      const detail = `${error.code} at offset ${error.offset}: ${error.message}`;
      if (readable.mti === undefined || !expectsAnswer(readable.mti) || !readable.fields.has(11)) {
        onOddity('unreadable', detail);
        send(undefined);
        this.#unreadable += 1;
        if (this.#unreadable >= maximumUnreadable) this.#options.close(`${this.#unreadable} unreadable messages`);
        return;
      }
      onOddity('format-error', detail);
      this.#options.meter?.request(readable.mti);
      this.#send(buildRefusal({ mti: readable.mti, fields: readable.fields }, '30'), send);
      return;
    }
    const { message } = unpacked;
    this.#options.meter?.request(message.mti);
    if (!expectsAnswer(message.mti)) {
      onOddity('unmatched', `MTI ${message.mti}`);
      send(undefined);
    } else if (message.mti.startsWith('08')) {
      this.#send(buildRefusal(message, this.#network(message)), send);
    } else if (!isOwnersMessage(message.mti)) {
      this.#send(buildRefusal(message, '12'), send);
    } else if (this.#signedOff) {
      this.#send(buildRefusal(message, '91'), send);
    } else {
      this.#options.handle(message, link, (answer) => {
        this.#send(answer, send);
      });
    }
  }

  /** DE 39 of the answer to a network message. */
  #network(message: Answerable): string {
    switch (message.fields.get(70)) {
      case signOn:
        this.#signedOff = false;
        this.#options.onSign?.(true);
        return '00';
      case signOff:
        this.#signedOff = true;
        this.#options.onSign?.(false);
        return '00';
      case echoTest:
        return '00';
      case undefined:
        return '30';
      default:
        return '12';
    }
  }

  #send(answer: IsoMessage, send: (answer: Buffer | undefined) => void): void {
    const packed = pack(answer, this.#options.spec);
    if (packed.kind === 'packed') {
      const responseCode = answer.fields.get(39);
      if (typeof responseCode === 'string') this.#options.meter?.answer(answer.mti, responseCode);
      send(packed.bytes);
      return;
    }
    this.#options.onOddity('unpackable-answer', packed.error.message);
    send(undefined);
  }
}
