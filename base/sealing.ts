import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';

import type { Random } from './random.ts';

const saltBytes = 16;
const counterBytes = 8;
const tagBytes = 16;
const rememberedSalts = 256;

/**
 * Seals what carries card numbers between processes (AES-256-GCM), so that brokers and whoever listens to them see
 * nothing. Each sender derives its own key from the cluster's key and a random salt, drawn at its start, and counts
 * its nonces under it: no two messages ever share key and nonce, with no state on disk.
 *
 * Sealed bytes: salt (16), counter (8), tag (16), ciphertext. `context` (the subject it travels on) is
 * authenticated with it, so a message cannot be replayed to another receiver or as another kind. A replay to the
 * same one is harmless only where handling is idempotent, which forwarded requests are by their duplicate key.
 */
export class Sealer {
  readonly #clusterKey: Buffer;
  readonly #salt: Buffer;
  readonly #key: KeyObject;
  #counter = 0n;
  readonly #keysBySalt = new Map<string, KeyObject>();

  constructor(clusterKey: Buffer, random: Random) {
    if (clusterKey.length !== 32) throw new RangeError('a sealing key has 32 bytes');
    this.#clusterKey = clusterKey;
    this.#salt = random.bytes(saltBytes);
    this.#key = derive(clusterKey, this.#salt);
  }

  seal(context: string, clear: Buffer): Buffer {
    this.#counter += 1n;
    const header = Buffer.alloc(saltBytes + counterBytes);
    this.#salt.copy(header);
    header.writeBigUInt64BE(this.#counter, saltBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(header));
    cipher.setAAD(Buffer.from(context));
    const sealed = cipher.update(clear);
    cipher.final();
    return Buffer.concat([header, cipher.getAuthTag(), sealed]);
  }

  /** The clear bytes, or undefined when they were not sealed with this cluster's key for this context. */
  open(context: string, sealed: Buffer): Buffer | undefined {
    const headerEnd = saltBytes + counterBytes;
    if (sealed.length < headerEnd + tagBytes) return undefined;
    const decipher = createDecipheriv('aes-256-gcm', this.#keyOf(sealed.subarray(0, saltBytes)), nonceOf(sealed));
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(sealed.subarray(headerEnd, headerEnd + tagBytes));
    try {
      const clear = decipher.update(sealed.subarray(headerEnd + tagBytes));
      decipher.final();
      return clear;
    } catch {
      return undefined;
    }
  }

  #keyOf(salt: Buffer): KeyObject {
    const name = salt.toString('latin1');
    const known = this.#keysBySalt.get(name);
    if (known !== undefined) return known;
    const key = derive(this.#clusterKey, salt);
    if (this.#keysBySalt.size >= rememberedSalts) this.#keysBySalt.clear();
    this.#keysBySalt.set(name, key);
    return key;
  }
}

/** As a KeyObject: with bytes for a key, Node 24 takes four times as long for each message. */
function derive(clusterKey: Buffer, salt: Buffer): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync('sha256', clusterKey, salt, 'quadrant sealing 1', 32)));
}

/** GCM's 12-byte nonce: four zero bytes and the counter. */
function nonceOf(header: Buffer): Buffer {
  const nonce = Buffer.alloc(12);
  header.copy(nonce, 4, saltBytes, saltBytes + counterBytes);
  return nonce;
}
