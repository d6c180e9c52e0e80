import { inspect } from 'node:util';

/**
 * A primary account number (DE 2): 13 to 19 decimal digits.
 *
 * The digits live in a private field, so that no formatter, serializer or debugger's dump can print them by
 * accident: every conversion to text gives the masked form. `reveal()` is the one way to the digits; search for it
 * to find every place that handles clear card numbers.
 */
export class Pan {
  readonly #digits: string;

  private constructor(digits: string) {
    this.#digits = digits;
  }

  /** The card number in `text`, or undefined when it is not 13 to 19 digits (ISO 8583 allows up to n..19). */
  static parse(text: string): Pan | undefined {
    return /^[0-9]{13,19}$/.test(text) ? new Pan(text) : undefined;
  }

  /** The clear digits: for hashing, encryption, routing and the echo of DE 2 only. */
  reveal(): string {
    return this.#digits;
  }

  /** The first eight digits, which may be stored and shown: what cards of a range are found by. */
  bin(): string {
    return this.#digits.slice(0, 8);
  }

  /** First six and last four digits at most (PCI DSS 4.0.1, requirement 3.4.1). */
  masked(): string {
    return this.#digits.slice(0, 6) + '*'.repeat(this.#digits.length - 10) + this.#digits.slice(-4);
  }

  equals(other: Pan): boolean {
    return this.#digits === other.#digits;
  }

  /** ISO/IEC 7812-1 annex B check digit. */
  hasValidCheckDigit(): boolean {
    let sum = 0;
    for (let position = 0; position < this.#digits.length; position++) {
      const digit = this.#digits.charCodeAt(this.#digits.length - 1 - position) - 48;
      const doubled = position % 2 === 1 ? digit * 2 : digit;
      sum += doubled > 9 ? doubled - 9 : doubled;
    }
    return sum % 10 === 0;
  }

  toString(): string {
    return this.masked();
  }

  toJSON(): string {
    return this.masked();
  }

  [inspect.custom](): string {
    return `Pan(${this.masked()})`;
  }
}

// One digit as it can stand in text: any script's digit, or an escape of one (JSON, JavaScript, URL, HTML).
const digit = String.raw`(?:\p{Nd}|\\+u003[0-9]|\\+u\{0*3[0-9]\}|\\+x3[0-9]|%3[0-9]|&#(?:4[89]|5[0-7]);)`;
// What people and programs put between the digits of one number: at most two blanks, dashes or underscores, line ends
// and their escapes included. No dot, slash or comma: ids, paths and lists of numbers have those.
const between = String.raw`(?:[ \t\r\n\u00a0\u2007\u202f\u200b-\u200d_\-\u2010-\u2015\u2212]|\\+[tnr]){0,2}`;
const equalsSign = String.raw`(?:[=Dd]|\\+u003[dD]|\\+x3[dD]|%3[dD])`;
// The code of one ASCII digit, as a byte in a list of numbers.
const byteOfDigit = String.raw`(?:4[89]|5[0-7])`;

const shapes = {
  /** Track 1: format code, number, name, expiry and the rest, `%B4000...^NAME^2512...`. */
  track1: /[A-Za-z]?\d{8,19}\^[^^"]{0,40}\^[^"\s?]*\??/g,
  /** Track 2 whose number is too short to be caught as a run of digits. */
  shortTrack2: /\d{8,12}[=D]\d{7,}/g,
  /** A run of 13 digits or more and, where it is track 2, what follows the separator. */
  run: new RegExp(`${digit}(?:${between}${digit}){12,}(?:${equalsSign}${digit}*)?`, 'gu'),
  /** EBCDIC digits in hexadecimal. */
  ebcdic: /(?:[Ff]\d){13,}/g,
  /** ASCII digits as a list of bytes: a Buffer or typed array that was serialized, `[52,48, ...]`, `{"0":52,"1":48, ...}`. */
  bytes: new RegExp(
    String.raw`(?<!\d)(?:"?\d{1,3}"?:\s?)?${byteOfDigit}(?:\s?,\s?(?:"?\d{1,3}"?:\s?)?${byteOfDigit}(?!\d)){12,}`,
    'g',
  ),
} as const;

const masked = '*'.repeat(16);

/**
 * Text with every run of 13 or more digits masked, also when blanks or dashes stand between the digits, when digits
 * are escaped or of another script, and every track 1 and track 2 shape. It fails closed: any run long enough to be a
 * card number is masked, whether or not its check digit fits. Times in text must therefore be ISO 8601, not epoch
 * milliseconds, and fractions must be rounded. Text that is its own result: masking again changes nothing.
 * It cannot see through encodings of the whole (base64, compression): those must not be logged.
 */
export function maskCardData(text: string): string {
  return text
    .replace(shapes.track1, masked)
    .replace(shapes.run, maskRun)
    .replace(shapes.shortTrack2, masked)
    .replace(shapes.ebcdic, masked)
    .replace(shapes.bytes, masked);
}

function maskRun(run: string): string {
  const digits = run.replace(/[=Dd].*$/s, '').replace(/[ _-]/g, '');
  if (!/^[0-9]{13,19}$/.test(digits)) return masked;
  return `${digits.slice(0, 6)}${'*'.repeat(digits.length - 10)}${digits.slice(-4)}`;
}
