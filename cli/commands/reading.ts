import { createReadStream } from 'node:fs';

import { SwitchError } from '../../base/errors.ts';
import { systemErrorCode, UsageError } from '../acquirer/usage.ts';

/** Whatever is read of a file on this machine. Throws UsageError when it cannot be. */
export async function* readFile(file: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(file)) yield chunk as Buffer;
  } catch (error) {
    if (error instanceof SwitchError) throw error;
    throw new UsageError(`cannot read ${file}: ${systemErrorCode(error)}`);
  }
}
