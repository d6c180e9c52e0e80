import { formatAmount } from '../../base/money.ts';
import { maskCardData, Pan } from '../../base/pan.ts';
import type { FieldValue, IsoMessage } from './codec.ts';
import { describeMti, processingCodes, responseCodes } from './meanings.ts';
import type { FieldSpec, MessageSpec } from './spec.ts';
import type { TlvElement } from './tlv.ts';

/**
 * A message for people: logs, the shell, reports. Masking fails closed (PCI DSS 4.0.1): what is not known to be
 * harmless, or does not parse as what it should be, is masked whole. Fields that the table calls sensitive never
 * show, except a card number's first six and last four digits; of DE 55, only values of tags known to be harmless.
 * Free text is searched for card numbers besides.
 */
export interface DescribedField {
  /** 0 for the MTI. */
  readonly field: number;
  /** ISO's name; `unknown` for a field that the table does not have. */
  readonly name: string;
  readonly value: string;
}

export function describe(message: IsoMessage, spec: MessageSpec): readonly DescribedField[] {
  const { mti } = message;
  const mtiText = /^[0-9]{4}$/.test(mti) ? describeMti(mti) : hidden(mti);
  const rows: DescribedField[] = [{ field: 0, name: 'messageTypeIndicator', value: mtiText }];
  for (const number of [...message.fields.keys()].sort((left, right) => left - right)) {
    const field = spec.fields.get(number);
    const value = message.fields.get(number);
    if (value === undefined) continue;
    rows.push({
      field: number,
      name: field?.name ?? 'unknown',
      value: field === undefined ? hidden(value) : describeField(field, value, message),
    });
  }
  return rows;
}

/** Says that something is there, and how long, not what. */
function hidden(value: FieldValue): string {
  if (typeof value === 'string') return `[hidden, ${value.length} characters]`;
  return `[hidden, ${value.length} ${Buffer.isBuffer(value) ? 'bytes' : 'elements'}]`;
}

function describeField(field: FieldSpec, value: FieldValue, message: IsoMessage): string {
  if (isElements(value)) return field.format.kind === 'tlv' ? describeElements(value) : hidden(value);
  if (typeof value !== 'string') return hidden(value);
  if (field.sensitive === 'pan') return Pan.parse(value)?.masked() ?? hidden(value);
  if (field.sensitive !== undefined) return hidden(value);
  return maskCardData(readers.get(field.number)?.(value, message) ?? printable(value));
}

function isElements(value: FieldValue): value is readonly TlvElement[] {
  return Array.isArray(value);
}

/** Control characters cannot pass the codec, but a message can also be made by hand: no line breaks into a log. */
function printable(value: string): string {
  return value.replace(/[^\x20-\x7e]/g, '?');
}

type Reader = (value: string, message: IsoMessage) => string | undefined;

/** An amount in the currency that the field `currencyField` names. A leading `C` or `D` is kept as a word. */
function amount(currencyField: number): Reader {
  return (value, message) => {
    const parts = /^([CD]?)([0-9]{1,16})$/.exec(value);
    if (parts === null) return undefined;
    return amountText(parts[2] ?? '', currencyOf(message, currencyField)) + signWord(parts[1]);
  };
}

function currencyOf(message: IsoMessage, field: number): string | undefined {
  const code = message.fields.get(field);
  return typeof code === 'string' && /^[0-9]{3}$/.test(code) ? code : undefined;
}

function amountText(digits: string, currency: string | undefined): string {
  return currency === undefined ? `${BigInt(digits)} minor units` : formatAmount(BigInt(digits), currency);
}

function signWord(sign: string | undefined): string {
  if (sign === 'C') return ' credit';
  return sign === 'D' ? ' debit' : '';
}

function meaning(table: Readonly<Record<string, string>>, keyLength: number): Reader {
  return (value) => {
    const key = value.slice(0, keyLength);
    return Object.hasOwn(table, key) ? `${value} ${table[key]}` : undefined;
  };
}

/** DE 7: MMDDhhmmss, UTC. */
function dateAndTime(value: string): string | undefined {
  const parts = /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(value);
  return parts === null ? undefined : `${parts[1]}-${parts[2]}, ${parts[3]}:${parts[4]}:${parts[5]} UTC`;
}

/** DE 54: up to six sets of account type 2, amount type 2, currency 3, sign 1, amount 12. */
function additionalAmounts(value: string): string {
  const set = /([0-9]{2})([0-9]{2})([0-9]{3})([CD])([0-9]{12})/y;
  const sets: string[] = [];
  for (let parts = set.exec(value); parts !== null; parts = set.exec(value)) {
    const [, account, type, currency, sign, digits] = parts;
    sets.push(`account ${account}, type ${type}: ${amountText(digits ?? '', currency)}${signWord(sign)}`);
  }
  return sets.length > 0 && sets.length * 20 === value.length ? sets.join('; ') : hidden(value);
}

/** DE 90: original MTI 4, STAN 6, DE 7 10, DE 32 11, DE 33 11. Commas keep it from looking like one long number. */
function originalDataElements(value: string): string | undefined {
  const parts = /^(\d{4})(\d{6})(\d{10})(\d{11})(\d{11})$/.exec(value);
  if (parts === null) return undefined;
  return `mti ${parts[1]}, trace ${parts[2]}, sent ${parts[3]}, acquirer ${parts[4]}, forwarder ${parts[5]}`;
}

/** DE 95: actual amount of the transaction 12, of the settlement 12, actual fees x+n8 each. */
function replacementAmounts(value: string, message: IsoMessage): string {
  const parts = /^([0-9]{12})([0-9]{12})([CD0][0-9]{8})([CD0][0-9]{8})$/.exec(value);
  if (parts === null) return hidden(value);
  const transaction = amountText(parts[1] ?? '', currencyOf(message, 49));
  const settlement = amountText(parts[2] ?? '', currencyOf(message, 50));
  return `transaction ${transaction}, settlement ${settlement}, fees ${parts[3]}, ${parts[4]}`;
}

/** How a field's text is made readable; undefined from a reader means: show it as it is. */
const readers: ReadonlyMap<number, Reader> = new Map<number, Reader>([
  [3, meaning(processingCodes, 2)],
  [4, amount(49)],
  [5, amount(50)],
  [6, amount(51)],
  [7, dateAndTime],
  [8, amount(51)],
  [28, amount(49)],
  [29, amount(50)],
  [30, amount(49)],
  [31, amount(50)],
  [39, meaning(responseCodes, 2)],
  [54, additionalAmounts],
  ...[82, 83, 84, 85, 86, 87, 88, 89, 97].map((field): [number, Reader] => [field, amount(50)]),
  [90, originalDataElements],
  [95, replacementAmounts],
]);

/**
 * Tags of DE 55 whose values identify no card and no cardholder and prove nothing: amounts, dates, countries,
 * results, counters. All others are hidden: 5A, 57, 5F20, 9F1F, 9F6B, 56, 99 as much as tags nobody knows, and
 * templates with what is in them.
 */
const harmlessTags: ReadonlySet<string> = new Set(
  '82 95 9A 9B 9C 5F2A 5F34 9F02 9F03 9F09 9F1A 9F21 9F27 9F33 9F34 9F35 9F36 9F41 9F53'.split(' '),
);
/** The longest of them is six bytes; a longer value is not what its tag says. */
const longestHarmlessValue = 6;

function describeElements(elements: readonly TlvElement[]): string {
  return elements
    .map(({ tag, value }) => {
      const harmless = harmlessTags.has(tag) && value.length <= longestHarmlessValue;
      return `${tagText(tag)}=${harmless ? value.toString('hex').toUpperCase() : '[hidden]'}`;
    })
    .join('; ');
}

/** A tag is at most four bytes; anything else was not made by the codec and may be anything. */
function tagText(tag: string): string {
  return /^(?:[0-9A-F]{2}){1,4}$/.test(tag) ? tag : '[hidden]';
}
