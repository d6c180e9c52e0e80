import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto';

import { assert } from './errors.ts';
import { Pan } from './pan.ts';
import type { Random } from './random.ts';

/**
 * The keys under which card numbers are stored: a keyed hash to find a card by (HMAC-SHA-256), and a ciphertext
 * (AES-256-GCM) where the number itself is needed again. Both carry the key's version, so that keys can rotate.
 */
export class CardKeys {
  readonly version: number;
  readonly #hashKey: KeyObject;
  readonly #cipherKey: KeyObject;

  constructor(version: number, hashKey: Buffer, cipherKey: Buffer) {
    assert(hashKey.length === 32 && cipherKey.length === 32, 'card keys have 32 bytes');
    this.version = version;
    this.#hashKey = createSecretKey(hashKey);
    this.#cipherKey = createSecretKey(cipherKey);
  }

  /** Lookup key of a card: 64 hex digits. */
  hash(pan: Pan): string {
    return createHmac('sha256', this.#hashKey).update(pan.reveal()).digest('hex');
  }

  /** Nonce, tag and ciphertext in base64. Made once, when the card comes onto file; copies keep the same bytes. */
  encrypt(pan: Pan, random: Random): string {
    const nonce = random.bytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#cipherKey, nonce);
    const sealed = Buffer.concat([cipher.update(pan.reveal(), 'latin1'), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64');
  }

  /** The number, or undefined when the bytes were changed or made with another key. */
  decrypt(stored: string): Pan | undefined {
    const bytes = Buffer.from(stored, 'base64');
    if (bytes.length < 28) return undefined;
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#cipherKey, bytes.subarray(0, 12));
      decipher.setAuthTag(bytes.subarray(12, 28));
      return Pan.parse(Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString('latin1'));
    } catch {
      return undefined;
    }
  }
}
