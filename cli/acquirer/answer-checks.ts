import type { IsoMessage } from '../../switch/iso8583/codec.ts';
import { isApproval } from './load-summary.ts';
import { textOf, undecidedCodes } from './message-parts.ts';

/** What an answer decides. */
export interface Decision {
  readonly responseCode: string;
  readonly authorizationCode: string;
}

/** DE 2, 3, 4, 7, 11, 37, 41, 42, 49 come back as they were sent. */
const echoedFields: readonly number[] = [2, 3, 4, 7, 11, 37, 41, 42, 49];

/** What is wrong with an answer's MTI, DE 38, DE 39 and echo, in words without content. */
export function echoFaults(sent: IsoMessage, answer: IsoMessage): readonly string[] {
  const faults: string[] = [];
  if (answer.mti !== `${sent.mti.slice(0, 2)}${Number(sent.mti[2]) + 1}0`) faults.push(`mti ${answer.mti}`);
  const responseCode = textOf(answer, 39);
  if (responseCode === '') faults.push('no DE 39');
  for (const field of echoedFields) {
    const before = sent.fields.get(field);
    if (before === undefined || answer.fields.get(field) === before) continue;
    // An approval in part has the approved amount in DE 4.
    if (field === 4 && responseCode === '10') continue;
    faults.push(`DE ${field}${answer.fields.has(field) ? ' is another' : ' is missing'}`);
  }
  const request = sent.mti.startsWith('010') || sent.mti.startsWith('020');
  if (request && isApproval(responseCode) && !answer.fields.has(38)) faults.push('no DE 38 in an approval');
  return faults;
}

/** Two answers to one request that cannot both be right; an answer that nobody decided contradicts nothing. */
export function contradicts(before: Decision, after: Decision): boolean {
  if (undecidedCodes.has(before.responseCode) || undecidedCodes.has(after.responseCode)) return false;
  return before.responseCode !== after.responseCode || before.authorizationCode !== after.authorizationCode;
}

/** Terminal, STAN, DE 7 and the exchange: the same for a request, its repeats and its answers. */
export function watchKey(message: IsoMessage): string {
  const exchange = `${message.mti.slice(0, 2)}${Number(message.mti[2]) & ~1}`;
  return `${exchange}|${textOf(message, 41)}|${textOf(message, 11)}|${textOf(message, 7)}`;
}
