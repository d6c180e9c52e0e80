import type { DecidedAnswer } from './authorizer.ts';
import type { FieldValue, IsoMessage } from './iso8583/codec.ts';

/** Fields that an answer repeats from its request when the request had them; never 35, 45, 48 or 52. */
const echoed: readonly number[] = [2, 3, 4, 7, 11, 12, 13, 15, 18, 32, 33, 37, 41, 42, 49, 63];
const echoedByNetwork: readonly number[] = [7, 11, 70];

/** What an answer is made from: a decoded request, or what could be read of a faulty one. */
export interface Answerable {
  readonly mti: string;
  readonly fields: ReadonlyMap<number, FieldValue>;
}

/** Whether the MTI is one that expects an answer: its third digit (function) is even. */
export function expectsAnswer(mti: string): boolean {
  return /^0[1-8][02468][01]$/.test(mti);
}

/** The MTI of the answer: 10 more, with the repeat digit cleared (0101 and 0100 give 0110, 0421 gives 0430). */
export function answerMti(mti: string): string {
  return `${mti.slice(0, 2)}${Number(mti[2]) + 1}0`;
}

/** The answer to an owner's message. */
export function buildAnswer(request: Answerable, decided: DecidedAnswer): IsoMessage {
  const fields = echo(request, echoed);
  if (decided.authorizationCode !== '') fields.set(38, decided.authorizationCode);
  fields.set(39, decided.responseCode);
  if (decided.additionalAmounts !== '') fields.set(54, decided.additionalAmounts);
  return { mti: answerMti(request.mti), fields };
}

/** The answer to a request that no owner decides: only DE 39 is added. */
export function buildRefusal(request: Answerable, responseCode: string): IsoMessage {
  const network = request.mti.startsWith('08');
  const fields = echo(request, network ? echoedByNetwork : echoed);
  fields.set(39, responseCode);
  return { mti: answerMti(request.mti), fields };
}

function echo(request: Answerable, numbers: readonly number[]): Map<number, FieldValue> {
  const fields = new Map<number, FieldValue>();
  for (const number of numbers) {
    const value = request.fields.get(number);
    if (value !== undefined) fields.set(number, value);
  }
  return fields;
}
