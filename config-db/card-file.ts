import { currencyCode, maximumAmount, type CurrencyCode, type MinorUnits } from '../base/money.ts';
import { Pan } from '../base/pan.ts';
import { cardStatuses, isCardStatus, type CardStatus } from '../store/card-status.ts';
import { readCsv, type CsvLine } from './csv-lines.ts';

/** A card as an issuer's file gives it. */
export interface CardFileCard {
  readonly pan: Pan;
  /** DE 14: YYMM, valid to the end of the month. */
  readonly expiry: string;
  readonly status: CardStatus;
  readonly currency: CurrencyCode;
  readonly limitMinor: MinorUnits;
}

/** One line of the file, blank ones left out. `line` counts from 1; `reason` holds nothing of the line's content. */
export type CardFileLine =
  | { readonly kind: 'card'; readonly line: number; readonly card: CardFileCard }
  | { readonly kind: 'bad'; readonly line: number; readonly reason: string };

const columns = ['pan', 'expiry', 'status', 'currency', 'limit'] as const;

/**
 * Reads an issuer's card file line by line in constant memory (`csv-lines.ts`). Every line after the header is reported,
 * good or bad. Only the header, statuses and alphabetic currencies may be in either case. The same card twice in a file is
 * not noticed here. Throws CARD_FILE_HEADER_INVALID.
 */
export async function* readCardFile(chunks: AsyncIterable<Buffer>): AsyncGenerator<CardFileLine, void, undefined> {
  for await (const line of readCsv(chunks, { columns })) yield line.kind === 'bad' ? line : readCardLine(line);
}

function readCardLine({ line, value }: CsvLine<(typeof columns)[number]> & { readonly kind: 'row' }): CardFileLine {
  const read = new FieldReader();
  const pan = read.pan('pan', value('pan'));
  const expiry = read.expiry(value('expiry'));
  const status = read.status(value('status'));
  const currency = read.currency(value('currency'));
  const limit = read.limit(value('limit'));
  if (
    pan === undefined ||
    expiry === undefined ||
    status === undefined ||
    currency === undefined ||
    limit === undefined
  )
    return { kind: 'bad', line, reason: read.faults };
  return { kind: 'card', line, card: { pan, expiry, status, currency, limitMinor: limit } };
}

/** Reads the fields of a line; what is wrong with them gathers, without their content. */
class FieldReader {
  readonly #faults: string[] = [];

  get faults(): string {
    return this.#faults.join('; ');
  }

  pan(column: string, digits: string): Pan | undefined {
    const pan = Pan.parse(digits);
    if (pan !== undefined)
      return this.#held(pan.hasValidCheckDigit() ? pan : undefined, `${column}: wrong check digit`);
    const isNumber = /^[0-9]*$/.test(digits);
    return this.#held<Pan>(
      undefined,
      `${column}: ${isNumber ? `${digits.length} digits, expected 13 to 19` : 'not digits only'}`,
    );
  }

  expiry(text: string): string | undefined {
    const isMonth = /^[0-9]{2}(?:0[1-9]|1[0-2])$/.test(text);
    return this.#held(isMonth ? text : undefined, 'expiry: expected YYMM with a month of 01 to 12');
  }

  status(text: string): CardStatus | undefined {
    const status = text.toLowerCase();
    return this.#held(isCardStatus(status) ? status : undefined, `status: expected ${cardStatuses.join(', ')}`);
  }

  currency(text: string): CurrencyCode | undefined {
    return this.#held(currencyCode(text.toUpperCase()), 'currency: not a known ISO 4217 code');
  }

  limit(text: string): MinorUnits | undefined {
    const isAmount = /^[0-9]{1,12}$/.test(text);
    return this.#held(isAmount ? BigInt(text) : undefined, `limit: expected whole minor units, 0 to ${maximumAmount}`);
  }

  version(text: string): number | undefined {
    return this.#held(
      /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : undefined,
      'replaces: expected the version that the change replaces, as `quadrant cards get` shows it',
    );
  }

  /** One that may be empty. */
  ifGiven<Value>(text: string, read: (text: string) => Value | undefined): Value | undefined {
    return text === '' ? undefined : read(text);
  }

  fault(reason: string): void {
    this.#faults.push(reason);
  }

  #held<Value>(value: Value | undefined, fault: string): Value | undefined {
    if (value === undefined) this.#faults.push(fault);
    return value;
  }
}

// ---- files of changes ------------------------------------------------------------------------------------------------

/** A change of a card as an operator's file gives it. */
export type CardFileChange =
  | ({ readonly kind: 'add' } & CardFileCard)
  | {
      readonly kind: 'set';
      readonly pan: Pan;
      readonly replaces: number;
      readonly expiry: string | undefined;
      readonly status: CardStatus | undefined;
      readonly limitMinor: MinorUnits | undefined;
    }
  | {
      readonly kind: 'replace';
      readonly pan: Pan;
      readonly replaces: number;
      readonly newPan: Pan;
      readonly expiry: string;
      readonly status: CardStatus;
    }
  | { readonly kind: 'delete'; readonly pan: Pan; readonly replaces: number }
  | { readonly kind: 'lift'; readonly pan: Pan; readonly restrictions: readonly string[] };

export type CardChangeLine =
  | { readonly kind: 'change'; readonly line: number; readonly change: CardFileChange }
  | { readonly kind: 'bad'; readonly line: number; readonly reason: string };

const changeColumns = [
  'change',
  'pan',
  'replaces',
  'expiry',
  'status',
  'currency',
  'limit',
  'new_pan',
  'restrictions',
] as const;
const optional = changeColumns.slice(2);

/**
 * Reads a file of changes; `csv-lines.ts`. The column `change` is add, set, replace, delete or lift; the others hold what the
 * flags of that command would. Throws CARD_FILE_HEADER_INVALID.
 */
export async function* readCardChanges(chunks: AsyncIterable<Buffer>): AsyncGenerator<CardChangeLine, void, undefined> {
  for await (const line of readCsv(chunks, { columns: changeColumns, optional })) {
    yield line.kind === 'bad' ? line : readChangeLine(line);
  }
}

function readChangeLine({
  line,
  value,
}: CsvLine<(typeof changeColumns)[number]> & { readonly kind: 'row' }): CardChangeLine {
  const read = new FieldReader();
  const change = readChange(read, value);
  return change === undefined || read.faults !== ''
    ? { kind: 'bad', line, reason: read.faults }
    : { kind: 'change', line, change };
}

function readChange(
  read: FieldReader,
  value: (column: (typeof changeColumns)[number]) => string,
): CardFileChange | undefined {
  const pan = read.pan('pan', value('pan'));
  const kind = value('change').toLowerCase();
  switch (kind) {
    case 'add': {
      const expiry = read.expiry(value('expiry'));
      const status = value('status') === '' ? 'active' : read.status(value('status'));
      const currency = read.currency(value('currency'));
      const limitMinor = read.limit(value('limit'));
      if (!pan || expiry === undefined || status === undefined || currency === undefined || limitMinor === undefined)
        return undefined;
      return { kind, pan, expiry, status, currency, limitMinor };
    }
    case 'set': {
      const replaces = read.version(value('replaces'));
      const expiry = read.ifGiven(value('expiry'), (text) => read.expiry(text));
      const status = read.ifGiven(value('status'), (text) => read.status(text));
      const limitMinor = read.ifGiven(value('limit'), (text) => read.limit(text));
      if (`${value('expiry')}${value('status')}${value('limit')}` === '')
        read.fault('expiry, status or limit: nothing to set');
      return pan && replaces ? { kind, pan, replaces, expiry, status, limitMinor } : undefined;
    }
    case 'replace': {
      const replaces = read.version(value('replaces'));
      const newPan = read.pan('new_pan', value('new_pan'));
      const expiry = read.expiry(value('expiry'));
      const status = value('status') === '' ? 'closed' : read.status(value('status'));
      if (status === 'active') read.fault('status: the old number cannot stay active');
      if (!pan || !newPan || replaces === undefined || expiry === undefined || status === undefined) return undefined;
      return { kind, pan, replaces, newPan, expiry, status };
    }
    case 'delete': {
      const replaces = read.version(value('replaces'));
      return pan && replaces ? { kind, pan, replaces } : undefined;
    }
    case 'lift': {
      const restrictions = value('restrictions')
        .split(' ')
        .filter((id) => id !== '');
      if (restrictions.length === 0) read.fault('restrictions: name those that are to be lifted, with spaces between');
      return pan ? { kind, pan, restrictions } : undefined;
    }
    default:
      read.fault('change: expected add, set, replace, delete or lift');
      return undefined;
  }
}
