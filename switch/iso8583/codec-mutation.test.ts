import assert from 'node:assert/strict';
import { it } from 'node:test';

import { seededRandom } from '../../base/random.ts';
import type { Random } from '../../base/random.ts';
import { pack, unpack } from './codec.ts';
import { goldenBytes, goldenMessages } from './golden-messages.ts';
import { iso87Ascii } from './spec.ts';

const seed = 8583;
const mutants = 100_000;
const goldens = goldenMessages.map(goldenBytes);

function flipped(bytes: Buffer, at: number, random: Random): Buffer {
  bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
  return bytes;
}

/** One change of a kind that lines, senders and attackers make. */
function mutate(bytes: Buffer, random: Random): Buffer {
  const at = random.below(bytes.length);
  const count = 1 + random.below(Math.min(8, bytes.length - at));
  const changed = Buffer.from(bytes);
  switch (random.below(7)) {
    case 0: // a bit turned
      return flipped(changed, at, random);
    case 1: // a byte replaced
      changed[at] = random.below(0x100);
      return changed;
    case 2: // a digit replaced by another, which often gives a valid message
      changed[at] = 0x30 + random.below(10);
      return changed;
    case 3: // a bit of the bitmaps turned
      return flipped(changed, Math.min(4 + random.below(16), bytes.length - 1), random);
    case 4: // bytes lost
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]);
    case 5: // bytes twice
      return Buffer.concat([bytes.subarray(0, at + count), bytes.subarray(at)]);
    default: // the rest lost
      return bytes.subarray(0, at);
  }
}

/** The one thing that packing does not give back: a secondary bitmap with no bit set. */
function canonical(bytes: Buffer): Buffer {
  const first = bytes[4] ?? 0;
  if ((first & 0x80) === 0 || bytes.subarray(12, 20).some((byte) => byte !== 0)) return bytes;
  return Buffer.concat([bytes.subarray(0, 4), Buffer.from([first & 0x7f]), bytes.subarray(5, 12), bytes.subarray(20)]);
}

it(`${mutants} mutated messages: none throws, what is accepted packs to the same bytes, no beginning of it is accepted`, () => {
  const random = seededRandom(seed);
  let accepted = 0;
  for (let count = 0; count < mutants; count++) {
    const original = goldens[random.below(goldens.length)] ?? assert.fail();
    let bytes = mutate(original, random);
    while (bytes.length > 4 && random.below(3) === 0) bytes = mutate(bytes, random);
    const result = unpack(bytes, iso87Ascii);
    if (result.kind === 'invalid') {
      assert.doesNotMatch(result.error.message, /\d{4}/, 'an error repeats no content');
      assert.ok(result.error.offset >= 0 && result.error.offset <= bytes.length);
      continue;
    }
    accepted += 1;
    const again = pack(result.message, iso87Ascii);
    assert.ok(again.kind === 'packed' && again.bytes.equals(canonical(bytes)), `mutant ${count} of seed ${seed}`);
    const shorter = bytes.subarray(0, random.below(bytes.length));
    assert.equal(unpack(shorter, iso87Ascii).kind, 'invalid', `a beginning of mutant ${count} of seed ${seed}`);
  }
  assert.ok(accepted > mutants / 20 && accepted < mutants, `a run that accepts ${accepted} tests too little`);
});

it('20000 frames of noise: none throws', () => {
  const random = seededRandom(seed + 1);
  for (let count = 0; count < 20_000; count++) {
    const noise = random.bytes(random.below(64));
    const bytes = random.below(2) === 0 ? noise : Buffer.concat([Buffer.from('0100'), noise]);
    assert.ok(['message', 'invalid'].includes(unpack(bytes, iso87Ascii).kind));
  }
});
