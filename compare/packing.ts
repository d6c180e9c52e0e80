import { deflateRawSync, inflateRawSync } from 'node:zlib';

import { z } from 'zod';

/** Shorter texts get no shorter. */
const packedFrom = 150;
const maximumUnpackedBytes = 4 * 1024 * 1024;

const packedSchema = z.strictObject({ kind: z.literal('packed'), deflated: z.base64() });

/** A call or an answer of the compare protocol as it travels: deflated, since keys and names repeat. */
export function packMessage(content: unknown): unknown {
  const text = JSON.stringify(content);
  if (text.length < packedFrom) return content;
  const packed = { kind: 'packed', deflated: deflateRawSync(text).toString('base64') };
  return packed.deflated.length < text.length ? packed : content;
}

/** What was packed; anything else as it is, and nothing for what only looks packed. */
export function unpackMessage(content: unknown): unknown {
  const packed = packedSchema.safeParse(content).data;
  if (packed === undefined) return content;
  try {
    const options = { maxOutputLength: maximumUnpackedBytes };
    return JSON.parse(inflateRawSync(Buffer.from(packed.deflated, 'base64'), options).toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}
