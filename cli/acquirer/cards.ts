import { createReadStream } from 'node:fs';

import { SwitchError } from '../../base/errors.ts';
import type { Pan } from '../../base/pan.ts';
import { readCardFile } from '../../config-db/card-file.ts';
import { CommandFailure, systemErrorCode } from './usage.ts';

/** A card of an issuer's file as an acquirer knows it. `line` is its line in the file: the journal's name for it. */
export interface AcquirerCard {
  readonly line: number;
  readonly pan: Pan;
  /** DE 14, YYMM */
  readonly expiry: string;
  /** DE 49 */
  readonly currency: string;
}

/** The good lines of a card file, in order. Bad lines are left out: an import reports them. */
export async function readAcquirerCards(file: string): Promise<readonly AcquirerCard[]> {
  const cards: AcquirerCard[] = [];
  try {
    for await (const line of readCardFile(createReadStream(file) as AsyncIterable<Buffer>)) {
      if (line.kind !== 'card') continue;
      const { pan, expiry, currency } = line.card;
      cards.push({ line: line.line, pan, expiry, currency });
    }
  } catch (error) {
    if (error instanceof SwitchError) throw error;
    throw new CommandFailure(`the card file ${file} cannot be read (${systemErrorCode(error)})`);
  }
  if (cards.length === 0) throw new CommandFailure(`the card file ${file} has no good card`);
  return cards;
}
