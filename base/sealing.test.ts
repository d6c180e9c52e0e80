import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { CardKeys } from './card-keys.ts';
import { currencyCode, formatAmount, isKnownCurrency } from './money.ts';
import { Pan } from './pan.ts';
import { seededRandom } from './random.ts';
import { Sealer } from './sealing.ts';

const key = Buffer.alloc(32, 7);
const sealer = (seed: number, of = key): Sealer => new Sealer(of, seededRandom(seed));
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

describe('a sealed message', () => {
  test('opens for everyone with the key, for its context, to the same bytes', () => {
    const [from, to] = [sealer(1), sealer(2)];
    fc.assert(
      fc.property(bytes, fc.string(), (clear, context) => {
        assert.deepEqual(to.open(context, from.seal(context, clear)), clear);
        assert.deepEqual(from.open(context, from.seal(context, clear)), clear);
      }),
    );
  });
  test('does not open for another context or with another key', () => {
    const from = sealer(1);
    const sealed = from.seal('forward n1 n2', Buffer.from('x'));
    assert.equal(sealer(2).open('forward n1 n3', sealed), undefined);
    assert.equal(sealer(2, Buffer.alloc(32, 8)).open('forward n1 n2', sealed), undefined);
  });
  test('does not open when a bit was turned, when it is cut off, or when it never was one', () => {
    const sealed = sealer(1).seal('c', Buffer.from('clear bytes'));
    const to = sealer(2);
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const turned = Buffer.from(sealed);
      turned[bit >> 3] = (turned[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.equal(to.open('c', turned), undefined, String(bit));
    }
    for (let length = 0; length < sealed.length; length++)
      assert.equal(to.open('c', sealed.subarray(0, length)), undefined);
    fc.assert(fc.property(bytes, (noise) => to.open('c', noise) === undefined));
  });
  test('is never the same twice, and two starts of a process share no key', () => {
    const [one, other] = [sealer(1), sealer(2)];
    const sealed = [one, one, other].map((each) => each.seal('c', Buffer.from('same')).toString('hex'));
    assert.equal(new Set(sealed).size, 3);
    assert.notEqual(sealed[0]?.slice(0, 32), sealed[2]?.slice(0, 32));
  });
  test('opens still when more senders than are remembered have come by', () => {
    const to = sealer(0);
    const first = sealer(1).seal('c', Buffer.from('first'));
    for (let seed = 2; seed < 600; seed++)
      assert.ok(to.open('c', sealer(seed).seal('c', Buffer.from('x'))) !== undefined);
    assert.equal(to.open('c', first)?.toString(), 'first');
  });
  test('needs a key of 32 bytes', () => {
    assert.throws(() => sealer(1, Buffer.alloc(16)), RangeError);
  });
});

describe('card keys', () => {
  const keys = new CardKeys(3, Buffer.alloc(32, 1), Buffer.alloc(32, 2));
  const pan = Pan.parse('9900010000000019');
  assert.ok(pan !== undefined);
  const anyPan = fc.stringMatching(/^[0-9]{13,19}$/).map((digits) => {
    const parsed = Pan.parse(digits);
    assert.ok(parsed !== undefined);
    return parsed;
  });

  test('find a card by a hash that depends on its number and the key only', () => {
    assert.match(keys.hash(pan), /^[0-9a-f]{64}$/);
    assert.equal(keys.hash(pan), new CardKeys(4, Buffer.alloc(32, 1), Buffer.alloc(32, 9)).hash(pan));
    assert.notEqual(keys.hash(pan), new CardKeys(3, Buffer.alloc(32, 9), Buffer.alloc(32, 2)).hash(pan));
    fc.assert(fc.property(anyPan, anyPan, (one, other) => (keys.hash(one) === keys.hash(other)) === one.equals(other)));
  });
  test('give the number back from its ciphertext, which is another each time and shows nothing of it', () => {
    const random = seededRandom(1);
    fc.assert(
      fc.property(anyPan, (each) => {
        const stored = keys.encrypt(each, random);
        assert.ok(keys.decrypt(stored)?.equals(each));
        assert.notEqual(stored, keys.encrypt(each, random));
        assert.ok(!Buffer.from(stored, 'base64').toString('latin1').includes(each.reveal()));
      }),
    );
  });
  test("give nothing back from changed bytes, another key's or none", () => {
    const stored = Buffer.from(keys.encrypt(pan, seededRandom(1)), 'base64');
    for (let at = 0; at < stored.length; at++) {
      const changed = Buffer.from(stored);
      changed[at] = (changed[at] ?? 0) ^ 1;
      assert.equal(keys.decrypt(changed.toString('base64')), undefined);
    }
    const others = new CardKeys(3, Buffer.alloc(32, 1), Buffer.alloc(32, 3));
    assert.equal(others.decrypt(stored.toString('base64')), undefined);
    for (const text of ['', 'x', 'AAAA']) assert.equal(keys.decrypt(text), undefined);
  });
  test('have 32 bytes', () => {
    assert.throws(() => new CardKeys(1, Buffer.alloc(31), Buffer.alloc(32)), /broken invariant/);
  });
});

describe('an amount for people', () => {
  for (const [amount, currency, text] of [
    [0n, '840', '0.00 USD'],
    [5n, '840', '0.05 USD'],
    [123_456n, '840', '1234.56 USD'],
    [-5n, '840', '-0.05 USD'],
    [-123_456n, '978', '-1234.56 EUR'],
    [1234n, '392', '1234 JPY'],
    [0n, '392', '0 JPY'],
    [1234n, '414', '1.234 KWD'],
    [7n, '048', '0.007 BHD'],
    [9_007_199_254_740_993n, '840', '90071992547409.93 USD'],
    [12n, '000', '12 minor units of currency 000'],
  ] as const) {
    test(`${amount} of ${currency} is ${text}`, () => {
      assert.equal(formatAmount(amount, currency), text);
    });
  }
  test('reads back as the same minor units', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: -(10n ** 15n), max: 10n ** 15n }),
        fc.constantFrom('840', '392', '414'),
        (amount, code) => {
          assert.equal(BigInt(formatAmount(amount, code).replace(/[. A-Z]/g, '')), amount);
        },
      ),
    );
  });
});

test('a currency is known by number and by letters, and nothing else is guessed', () => {
  assert.equal(currencyCode('840'), '840');
  assert.equal(currencyCode('USD'), '840');
  for (const text of ['usd', '84', '0840', '', 'XXX', '999']) assert.equal(currencyCode(text), undefined);
  assert.ok(isKnownCurrency('036') && !isKnownCurrency('36'));
});
