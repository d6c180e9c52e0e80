import { isKnownCurrency } from '../base/money.ts';
import { Pan } from '../base/pan.ts';
import type { CardStatus } from '../store/card-status.ts';
import type { MtiClass, RequestRecord } from '../store/entry.ts';
import type { FieldValue, IsoMessage } from './iso8583/codec.ts';

/** DE 90: which message a reversal means. DE 7 and DE 32 as they were there, DE 32 zero-filled to 11. */
export interface OriginalDataElements {
  readonly mtiClass: string;
  readonly stan: string;
  readonly transmission: string;
  readonly acquirer: string;
}

/**
 * A request as an owner decides it: the fields of domain.md's rules, checked and typed; absent text fields are ''.
 * It holds a clear card number, so it leaves a process sealed only.
 */
export interface SwitchRequest {
  readonly mtiClass: MtiClass;
  /** The MTI had its repeat digit set. It changes nothing: a repeat with no original is decided as new. */
  readonly repeat: boolean;
  readonly link: string;
  /** DE 2 or from DE 35 */ readonly pan: Pan;
  /** DE 14 or from DE 35, YYMM */ readonly expiry: string;
  /** DE 3  */ readonly processingCode: string;
  /** DE 4, transaction currency */ readonly amount: bigint;
  /** DE 49 */ readonly currency: string;
  /** DE 6 and DE 51, when the acquirer converts. */
  readonly billing: { readonly amount: bigint; readonly currency: string } | undefined;
  /** DE 7  */ readonly transmission: string;
  /** DE 11 */ readonly stan: string;
  /** DE 18, or '' */ readonly merchantCategory: string;
  /** DE 32 */ readonly acquirer: string;
  /** DE 37 */ readonly rrn: string;
  /** DE 38 */ readonly authorizationCode: string;
  /** DE 39 of an advice */ readonly responseCode: string;
  /** DE 41 */ readonly terminal: string;
  /** DE 42 */ readonly merchant: string;
  /** DE 90 */ readonly originalDataElements: OriginalDataElements | undefined;
  /** DE 95, first twelve digits: what remains of the original. */ readonly replacementAmount: bigint | undefined;
  /** Stamped by the edge, YYYY-MM-DD, so that owners agree. */
  readonly businessDate: string;
  /** What a node through which it came knows against the card, before the log has it (R11). */
  readonly restriction?: CardStatus;
}

/** What DE 3 asks for. */
export type Purpose = 'debit' | 'refund' | 'balance-inquiry' | 'verification';

const purposes: ReadonlyMap<string, Purpose> = new Map([
  ['00', 'debit'],
  ['01', 'debit'],
  ['09', 'debit'],
  ['20', 'refund'],
  ['31', 'balance-inquiry'],
  ['38', 'verification'],
]);

/** The purpose of a processing code (DE 3, first two digits), or undefined for one that no profile here allows. */
export function purposeOf(processingCode: string): Purpose | undefined {
  return purposes.get(processingCode.slice(0, 2));
}

export type ReadRequest =
  | { readonly kind: 'request'; readonly request: SwitchRequest }
  /** Answered by the edge with this DE 39; `reason` is for the log and holds no card data. */
  | { readonly kind: 'refused'; readonly responseCode: string; readonly reason: string };

const classes: ReadonlySet<string> = new Set(['0100', '0120', '0200', '0220', '0400', '0420']);

/** MTI with its repeat digit cleared: 0101 is of class 0100. */
export function mtiClassOf(mti: string): string {
  return mti.slice(0, 3) + (mti.endsWith('1') ? '0' : mti.slice(3));
}

/** Whether the MTI is one that a card's owner decides. */
export function isOwnersMessage(mti: string): boolean {
  return classes.has(mtiClassOf(mti));
}

/**
 * Duplicate key: DE 7, DE 11, link, DE 32, DE 41, MTI class. All but link and DE 32 have fixed lengths, and those two have
 * no separator in them, so it is unambiguous. Time comes first: what is entered together then stands together in the index
 * over the keys, and a group commit writes few of its pages.
 */
export function duplicateKey(request: SwitchRequest): string {
  const { link, acquirer, terminal, stan, transmission, mtiClass } = request;
  return `${transmission}|${stan}|${link}|${acquirer}|${terminal}|${mtiClass}`;
}

/** What a duplicate key says of its request; undefined when it is none. */
export function partsOfKey(
  key: string,
): Pick<RequestRecord, 'transmission' | 'stan' | 'acquirer' | 'mtiClass'> | undefined {
  const parts = key.split('|');
  const [transmission, stan, , acquirer] = parts;
  // DE 41, between DE 32 and the class, may hold any character.
  const mtiClass = parts.length < 6 ? undefined : parts.at(-1);
  if (transmission === undefined || stan === undefined || acquirer === undefined || mtiClass === undefined) {
    return undefined;
  }
  return { transmission, stan, acquirer, mtiClass: mtiClass as MtiClass };
}

/**
 * Reads a decoded message of an owner's class. What is wrong with the message itself is refused here, by one fixed
 * order: 30 before 13 before 57 before 14 (check digit). What depends on the card is the owner's.
 */
export function readRequest(message: IsoMessage, link: string, businessDate: string): ReadRequest {
  const text = (field: number): string => textOf(message.fields.get(field));
  const mtiClass = mtiClassOf(message.mti) as MtiClass;
  const reversal = mtiClass === '0400' || mtiClass === '0420';
  const advice = mtiClass === '0120' || mtiClass === '0220';

  for (const field of [3, 7, 11]) {
    if (!message.fields.has(field)) return refused('30', `DE ${field} is missing`);
  }
  const card = readCard(text(2), text(35), text(14));
  if (typeof card === 'string') return refused('30', card);
  // Of the fields that an entry keeps, DE 42 alone has room for a card number, and no log may hold one (R4).
  if (text(42).includes(card.pan.reveal())) return refused('30', 'DE 42 holds the card number');

  const processingCode = text(3);
  const purpose = purposeOf(processingCode);
  const withoutAmount = purpose === 'balance-inquiry' || purpose === 'verification';
  if (!withoutAmount && !message.fields.has(4)) return refused('30', 'DE 4 is missing');
  if (!withoutAmount && !reversal && !message.fields.has(49)) return refused('30', 'DE 49 is missing');
  if (message.fields.has(6) !== message.fields.has(51)) return refused('30', 'DE 6 and DE 51 come together');
  const originalDataElements = readOriginalDataElements(text(90));
  if (originalDataElements === 'unreadable') return refused('30', 'DE 90 names no message');
  // DE 95 is alphanumeric, so its amount is the one number here that the codec has not checked.
  const replacement = text(95).slice(0, 12);
  if (replacement !== '' && !/^[0-9]{12}$/.test(replacement)) return refused('30', 'DE 95 has no amount');

  const amount = BigInt(text(4) === '' ? '0' : text(4));
  if (purpose === 'verification' && amount !== 0n) return refused('13', 'a verification has no amount');
  if (!withoutAmount && amount === 0n) return refused('13', 'DE 4 is zero');
  const billing = message.fields.has(6) ? { amount: BigInt(text(6)), currency: text(51) } : undefined;
  if (!withoutAmount && !reversal && billing?.amount === 0n) return refused('13', 'DE 6 is zero');
  // What an advice tells has happened: it is recorded whatever else would have declined it.
  if (!advice) {
    if (purpose === undefined) return refused('57', 'DE 3 is not one that the link may use');
    if (!reversal && text(49) !== '' && !isKnownCurrency(text(49))) return refused('57', 'DE 49 is no known currency');
    if (!card.pan.hasValidCheckDigit()) return refused('14', 'check digit');
  }

  return {
    kind: 'request',
    request: {
      mtiClass,
      repeat: mtiClass !== message.mti,
      link,
      pan: card.pan,
      expiry: card.expiry,
      processingCode,
      amount,
      currency: text(49),
      billing,
      transmission: text(7),
      stan: text(11),
      merchantCategory: text(18),
      acquirer: text(32),
      rrn: text(37),
      authorizationCode: text(38),
      responseCode: text(39),
      terminal: text(41),
      merchant: text(42),
      originalDataElements,
      replacementAmount: replacement === '' ? undefined : BigInt(replacement),
      businessDate,
    },
  };
}

function refused(responseCode: string, reason: string): ReadRequest {
  return { kind: 'refused', responseCode, reason };
}

function textOf(value: FieldValue | undefined): string {
  return typeof value === 'string' ? value : '';
}

/** Card number and expiry from DE 2 and 14, else from DE 35; both present and different is a format error. */
function readCard(de2: string, track2: string, de14: string): { pan: Pan; expiry: string } | string {
  const track = track2 === '' ? undefined : /^([0-9]{13,19})[=D]([0-9]{4})?/.exec(track2);
  if (track === null) return 'DE 35 has no card number';
  const ofTrack = track?.[1] === undefined ? undefined : Pan.parse(track[1]);
  const ofField = Pan.parse(de2);
  if (de2 !== '' && ofField === undefined) return 'DE 2 has not 13 to 19 digits';
  const pan = ofField ?? ofTrack;
  if (pan === undefined) return 'neither DE 2 nor DE 35 has a card number';
  if (ofTrack !== undefined && !pan.equals(ofTrack)) return 'DE 2 and DE 35 have different card numbers';
  const trackExpiry = track?.[2] ?? '';
  if (de14 !== '' && trackExpiry !== '' && de14 !== trackExpiry) return 'DE 14 and DE 35 have different expiries';
  return { pan, expiry: de14 === '' ? trackExpiry : de14 };
}

function readOriginalDataElements(de90: string): OriginalDataElements | undefined | 'unreadable' {
  if (de90 === '') return undefined;
  // Zero-filled: the acquirer has the field but names nothing with it.
  if (/^0+$/.test(de90)) return undefined;
  const mtiClass = mtiClassOf(de90.slice(0, 4));
  if (!classes.has(mtiClass)) return 'unreadable';
  return {
    mtiClass,
    stan: de90.slice(4, 10),
    transmission: de90.slice(10, 20),
    acquirer: de90.slice(20, 31),
  };
}
