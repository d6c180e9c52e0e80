/**
 * Amounts are integer minor units in a `bigint` (DE 4, DE 5, DE 6: n12). Nothing in the project holds money in a
 * floating-point number.
 */
export type MinorUnits = bigint;

/** ISO 4217 numeric code (DE 49, DE 51), three digits. */
export type CurrencyCode = string;

/** Largest amount that DE 4 can carry. */
export const maximumAmount: MinorUnits = 999_999_999_999n;

interface Currency {
  readonly alphabetic: string;
  /** Digits after the decimal separator of the major unit. */
  readonly exponent: number;
}

const currencies: ReadonlyMap<CurrencyCode, Currency> = new Map([
  ['036', { alphabetic: 'AUD', exponent: 2 }],
  ['048', { alphabetic: 'BHD', exponent: 3 }],
  ['124', { alphabetic: 'CAD', exponent: 2 }],
  ['156', { alphabetic: 'CNY', exponent: 2 }],
  ['208', { alphabetic: 'DKK', exponent: 2 }],
  ['356', { alphabetic: 'INR', exponent: 2 }],
  ['392', { alphabetic: 'JPY', exponent: 0 }],
  ['410', { alphabetic: 'KRW', exponent: 0 }],
  ['414', { alphabetic: 'KWD', exponent: 3 }],
  ['484', { alphabetic: 'MXN', exponent: 2 }],
  ['578', { alphabetic: 'NOK', exponent: 2 }],
  ['702', { alphabetic: 'SGD', exponent: 2 }],
  ['752', { alphabetic: 'SEK', exponent: 2 }],
  ['756', { alphabetic: 'CHF', exponent: 2 }],
  ['826', { alphabetic: 'GBP', exponent: 2 }],
  ['840', { alphabetic: 'USD', exponent: 2 }],
  ['978', { alphabetic: 'EUR', exponent: 2 }],
  ['986', { alphabetic: 'BRL', exponent: 2 }],
]);

export function isKnownCurrency(code: CurrencyCode): boolean {
  return currencies.has(code);
}

/** The numeric code of a known currency, given as `840` or `USD`; undefined for anything else. */
export function currencyCode(text: string): CurrencyCode | undefined {
  if (currencies.has(text)) return text;
  for (const [code, currency] of currencies) if (currency.alphabetic === text) return code;
  return undefined;
}

/** `12.34 USD` for people. An unknown currency is shown in minor units, never guessed. */
export function formatAmount(amount: MinorUnits, code: CurrencyCode): string {
  const currency = currencies.get(code);
  if (currency === undefined) return `${amount} minor units of currency ${code}`;
  const sign = amount < 0n ? '-' : '';
  const digits = (amount < 0n ? -amount : amount).toString().padStart(currency.exponent + 1, '0');
  const whole = digits.slice(0, digits.length - currency.exponent);
  const fraction = currency.exponent === 0 ? '' : `.${digits.slice(-currency.exponent)}`;
  return `${sign}${whole}${fraction} ${currency.alphabetic}`;
}
