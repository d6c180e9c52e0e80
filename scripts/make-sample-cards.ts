import { readFileSync, writeFileSync } from 'node:fs';

import { assert } from '../base/errors.ts';
import { Pan } from '../base/pan.ts';
import { seededRandom, type Random } from '../base/random.ts';
import type { CardStatus } from '../store/card-status.ts';
import { loadConfigurationFile, type Configuration } from '../config-db/configuration.ts';
import { RangeTable } from '../config-db/routing.ts';

/** Writes config-db/samples/cards.csv: made-up cards over every range of the sample configuration but the catch-all. */

const seed = 8583;
const cardsPerRange = 32;
const panDigits = 16;
const otherPanDigits: ReadonlyMap<string, number> = new Map([
  ['990010', 19],
  ['990011', 15],
]);
const currencyCycle = ['840', '978', '840', '392'] as const;
/** The last cards of each range are the odd ones; all before them are active, in date and have room to spend. */
const oddCards: readonly { readonly status: CardStatus; readonly expired?: true; readonly limit?: string }[] = [
  { status: 'active', limit: '500' },
  { status: 'active', limit: '0' },
  { status: 'blocked' },
  { status: 'lost' },
  { status: 'stolen' },
  { status: 'closed' },
  { status: 'active', expired: true },
  { status: 'active', expired: true },
];

/** The file's text; the same for the same configuration, since chance comes from a fixed seed. */
export function makeSampleCards(configuration: Configuration): string {
  const random = seededRandom(seed);
  const ranges = new RangeTable(configuration.pan_range);
  const seen = new Set<string>();
  const lines = ['pan,expiry,status,currency,limit'];
  configuration.pan_range
    .filter(({ prefix }) => prefix !== '')
    .forEach(({ prefix }, rangeIndex) => {
      const length = otherPanDigits.get(prefix) ?? panDigits;
      for (let index = 0; index < cardsPerRange; index++) {
        const odd = oddCards[index - (cardsPerRange - oddCards.length)];
        let pan: string;
        do {
          pan = withCheckDigit(prefix + accountDigits(random, index, length - prefix.length - 1));
        } while (seen.has(pan) || ranges.find(pan).prefix !== prefix);
        seen.add(pan);
        const year = odd?.expired ? 19 + random.below(5) : 35 + random.below(10);
        const expiry = `${year}${String(1 + random.below(12)).padStart(2, '0')}`;
        // The first card of a range is always in USD; the odd ones meet every currency from range to range.
        const currency =
          currencyCycle[(odd === undefined ? index : index + rangeIndex) % currencyCycle.length] ?? '840';
        const limit = odd?.limit ?? String(10_000_000 + random.below(40) * 1_000_000);
        lines.push([pan, expiry, odd?.status ?? 'active', currency, limit].join(','));
      }
    });
  return `${lines.join('\n')}\n`;
}

/** The first card of a range has account 1, so that examples are easy to read. */
function accountDigits(random: Random, index: number, length: number): string {
  if (index === 0) return '1'.padStart(length, '0');
  return Array.from({ length }, () => String(random.below(10))).join('');
}

function withCheckDigit(digits: string): string {
  const check = Array.from({ length: 10 }, (_, digit) => `${digits}${digit}`).find((text) =>
    Pan.parse(text)?.hasValidCheckDigit(),
  );
  assert(check !== undefined, 'every number has a check digit');
  return check;
}

if (import.meta.main) {
  const folder = new URL('../config-db/samples/', import.meta.url);
  const file = new URL('configuration.yaml', folder);
  const configuration = loadConfigurationFile(readFileSync(file, 'utf8'), 'config-db/samples/configuration.yaml');
  writeFileSync(new URL('cards.csv', folder), makeSampleCards(configuration));
}
