/**
 * Looks for card data in bytes of any kind: databases, logs, what went over the broker. It knows what was used, so it
 * finds exactly that, in the forms in which programs write things down; compression and encryption hide it, and should.
 */
export interface Secret {
  /** Says what it is in a finding, without being it. */
  readonly label: string;
  readonly text?: string;
  readonly bytes?: Buffer;
}

interface Needle {
  readonly label: string;
  readonly bytes: Buffer;
}

/** Shorter needles would be found by chance. */
const shortestNeedle = 6;

/** A card number as text and packed two digits to a byte, beginning in either half of one. */
export function cardNumber(label: string, digits: string): readonly Secret[] {
  return [
    { label, text: digits },
    { label: `${label}, packed`, bytes: packed(digits) },
    { label: `${label}, packed`, bytes: packed(digits.slice(1)) },
  ];
}

/** Whole bytes only: what stands in the other half of a last one is not known. */
function packed(digits: string): Buffer {
  return Buffer.from(digits.slice(0, digits.length - (digits.length % 2)), 'hex');
}

export class CardDataScanner {
  /** By their last four bytes: card numbers of one issuer all begin alike. */
  readonly #bySuffix = new Map<number, Needle[]>();
  /** Which hashes those have: most positions need no more than one look here. */
  readonly #hashes = new Uint8Array(0x1_0000);

  constructor(secrets: Iterable<Secret>) {
    for (const { label, text, bytes } of secrets) {
      const clear = bytes ?? Buffer.from(text ?? '', 'latin1');
      this.#add(label, clear);
      this.#add(`${label}, in hexadecimal`, Buffer.from(clear.toString('hex')));
      this.#add(`${label}, in hexadecimal`, Buffer.from(clear.toString('hex').toUpperCase()));
      this.#add(`${label}, in UTF-16`, Buffer.from(clear.toString('latin1'), 'utf16le'));
      for (const encoded of base64Forms(clear)) this.#add(`${label}, in base64`, Buffer.from(encoded));
    }
  }

  /** What is in `bytes`, as `label at offset`; at most twenty findings. */
  scan(bytes: Buffer): readonly string[] {
    const findings: string[] = [];
    let word = 0;
    for (let next = 0; next < bytes.length && findings.length < 20; next++) {
      word = ((word << 8) | (bytes[next] ?? 0)) >>> 0;
      if (this.#hashes[hashOf(word)] === 0) continue;
      for (const { label, bytes: needle } of this.#bySuffix.get(word) ?? []) {
        const at = next + 1 - needle.length;
        if (at < 0 || bytes.compare(needle, 0, needle.length, at, next + 1) !== 0) continue;
        findings.push(`${label} at ${at}`);
      }
    }
    return findings;
  }

  #add(label: string, bytes: Buffer): void {
    if (bytes.length < shortestNeedle) throw new RangeError(`${label} is too short to be looked for`);
    const suffix = bytes.readUInt32BE(bytes.length - 4);
    const known = this.#bySuffix.get(suffix) ?? [];
    if (known.some((needle) => needle.bytes.equals(bytes))) return;
    this.#bySuffix.set(suffix, [...known, { label, bytes }]);
    this.#hashes[hashOf(suffix)] = 1;
  }
}

function hashOf(word: number): number {
  return Math.imul(word, 0x9e37_79b1) >>> 16;
}

/** What of a text's base64 does not depend on its surroundings, for each of the three places where it can begin. */
function base64Forms(bytes: Buffer): readonly string[] {
  const forms = [0, 1, 2].flatMap((before) => {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    const from = before === 0 ? 0 : before + 1;
    const to = Math.floor(((before + bytes.length) * 8) / 6);
    const form = whole.slice(from, to);
    return [form, form.replaceAll('+', '-').replaceAll('/', '_')];
  });
  return [...new Set(forms)];
}
