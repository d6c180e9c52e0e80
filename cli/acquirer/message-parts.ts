import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';

/** DE 32 of this acquirer. */
export const acquiringInstitution = '900001';

/** DE 43: name 25, city 13, country 2. */
export function nameAndLocation(name: string): string {
  return `${name.padEnd(25)}${'BOSTON'.padEnd(13)}US`;
}

/** DE 39 of answers that come from a switch which could not decide: asked again, the answer may be another. */
export const undecidedCodes: ReadonlySet<string> = new Set(['30', '68', '91', '92', '94', '96']);

/** The text of a field; '' when it is absent or binary. */
export function textOf(message: { readonly fields: ReadonlyMap<number, FieldValue> }, field: number): string {
  const value = message.fields.get(field);
  return typeof value === 'string' ? value : '';
}

/** DE 7 of a time in epoch milliseconds: MMDDhhmmss, UTC. */
export function transmissionDateAndTime(wallMs: number): string {
  return new Date(wallMs)
    .toISOString()
    .slice(5, 19)
    .replace(/[^0-9]/g, '');
}

/** DE 90 that names `original`: MTI 4, STAN 6, DE 7 10, DE 32 11 and DE 33 11, both zero-filled. */
export function originalDataElements(original: IsoMessage): string {
  const text = (field: number): string => textOf(original, field);
  return original.mti.slice(0, 3) + '0' + text(11) + text(7) + text(32).padStart(11, '0') + text(33).padStart(11, '0');
}

/** The MTI with its repeat digit set. */
export function repeatOf(mti: string): string {
  return `${mti.slice(0, 3)}1`;
}

/**
 * RRNs: eight characters of time and four of a counter, in base 36. The time is that of the run's start and moves by
 * one millisecond for each 1,679,616 RRNs, which takes far longer than that; so runs never meet.
 */
export class RrnCounter {
  #prefixMs: number;
  #prefix: string;
  #count = 0;

  constructor(startedAtMs: number) {
    this.#prefixMs = startedAtMs - Date.UTC(2020);
    this.#prefix = base36(this.#prefixMs, 8);
  }

  take(): string {
    if (this.#count === 36 ** 4) {
      this.#count = 0;
      this.#prefixMs += 1;
      this.#prefix = base36(this.#prefixMs, 8);
    }
    return this.#prefix + base36(this.#count++, 4);
  }
}

/** The last `length` digits of `value` in base 36. */
export function base36(value: number, length: number): string {
  return (value % 36 ** length).toString(36).toUpperCase().padStart(length, '0');
}

/** 0800 with DE 70: 001 sign-on, 002 sign-off. Its STAN is free as long as nothing else is in flight. */
export function networkMessage(wallMs: number, networkCode: string): IsoMessage {
  return {
    mti: '0800',
    fields: new Map<number, FieldValue>([
      [7, transmissionDateAndTime(wallMs)],
      [11, '000001'],
      [70, networkCode],
    ]),
  };
}
