import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { arbitraryMessage } from './iso8583/arbitrary-messages.ts';
import type { FieldValue, IsoMessage } from './iso8583/codec.ts';
import { iso87Ascii } from './iso8583/spec.ts';
import {
  duplicateKey,
  isOwnersMessage,
  mtiClassOf,
  partsOfKey,
  purposeOf,
  readRequest,
  type SwitchRequest,
} from './request.ts';
import { otherPan, pan, requestOf } from './testing.ts';

type Fields = Readonly<Record<number, string | undefined>>;

const purchase: Fields = {
  2: pan.reveal(),
  3: '000000',
  4: '000000005000',
  7: '0301120000',
  11: '000001',
  32: '123456',
  41: 'TERM0001',
  42: 'MERCHANT0000001',
  49: '840',
};

function message(changes: Fields = {}, mti = '0100'): IsoMessage {
  const fields = new Map<number, FieldValue>();
  for (const [number, value] of Object.entries({ ...purchase, ...changes })) {
    if (value !== undefined) fields.set(Number(number), value);
  }
  return { mti, fields };
}

const read = (changes: Fields = {}, mti = '0100') => readRequest(message(changes, mti), 'link-1', '2026-03-01');

function accepted(changes: Fields = {}, mti = '0100'): SwitchRequest {
  const result = read(changes, mti);
  assert.equal(result.kind, 'request', result.kind === 'refused' ? result.reason : '');
  return result.request;
}

function refusedWith(changes: Fields, mti = '0100'): string {
  const result = read(changes, mti);
  assert.equal(result.kind, 'refused');
  return result.responseCode;
}

describe('a readable request', () => {
  test('becomes its checked and typed fields, absent ones empty', () => {
    assert.deepEqual(accepted({ 18: '5411' }), requestOf({ acquirer: '123456' }));
    assert.equal(accepted().merchantCategory, '');
    const bare = accepted({ 32: undefined, 41: undefined, 42: undefined });
    assert.deepEqual(
      [bare.acquirer, bare.terminal, bare.merchant, bare.rrn, bare.authorizationCode],
      ['', '', '', '', ''],
    );
  });

  test('has its repeat digit in `repeat` only', () => {
    for (const mti of ['0100', '0120', '0200', '0220', '0400', '0420']) {
      const repeat = `${mti.slice(0, 3)}1`;
      assert.equal(mtiClassOf(repeat), mti);
      assert.deepEqual({ ...accepted({}, repeat), repeat: false }, accepted({}, mti));
      assert.ok(accepted({}, repeat).repeat);
      assert.equal(duplicateKey(accepted({}, repeat)), duplicateKey(accepted({}, mti)));
    }
  });

  test('keeps its amounts exactly, up to the largest', () => {
    const request = accepted({ 4: '999999999999', 6: '999999999998', 51: '978' });
    assert.equal(request.amount, 999_999_999_999n);
    assert.deepEqual(request.billing, { amount: 999_999_999_998n, currency: '978' });
  });
});

test("only the six classes and their repeats are an owner's; responses and others are not", () => {
  for (const mti of ['0100', '0101', '0120', '0121', '0200', '0201', '0220', '0221', '0400', '0401', '0420', '0421']) {
    assert.ok(isOwnersMessage(mti), mti);
  }
  for (const mti of ['0110', '0130', '0210', '0230', '0300', '0410', '0430', '0500', '0800', '0102', '1100', '0140']) {
    assert.ok(!isOwnersMessage(mti), mti);
  }
});

describe('a field without which nothing can be decided is a format error:', () => {
  for (const field of [3, 7, 11, 4, 49]) {
    test(`DE ${field}`, () => {
      assert.equal(refusedWith({ [field]: undefined }), '30');
    });
  }
  test('neither DE 2 nor DE 35', () => {
    assert.equal(refusedWith({ 2: undefined }), '30');
  });
  test('a reversal needs no DE 49', () => {
    assert.equal(accepted({ 49: undefined }, '0400').currency, '');
  });
  test('an inquiry and a verification need neither DE 4 nor DE 49', () => {
    for (const code of ['310000', '380000'])
      assert.equal(accepted({ 3: code, 4: undefined, 49: undefined }).amount, 0n);
  });
  test('DE 6 and DE 51 come together', () => {
    assert.equal(refusedWith({ 6: '000000004600' }), '30');
    assert.equal(refusedWith({ 51: '978' }), '30');
  });
});

describe('the card', () => {
  const track = (number = pan, expiry = '2812'): string => `${number.reveal()}=${expiry}2011758928889`;
  const cases: [name: string, fields: Fields, expected: 'ok' | '30', expiry?: string][] = [
    ['comes from DE 2', {}, 'ok', ''],
    ['comes from DE 35 when there is no DE 2', { 2: undefined, 35: track() }, 'ok', '2812'],
    ['comes from DE 35 with D as separator', { 2: undefined, 35: track().replace('=', 'D') }, 'ok', '2812'],
    ['is in DE 2 and 35 alike', { 35: track() }, 'ok', '2812'],
    ['has its expiry in DE 14', { 14: '2811' }, 'ok', '2811'],
    ['has its expiry in DE 14 and 35 alike', { 14: '2812', 35: track() }, 'ok', '2812'],
    ['has no expiry on a track without one', { 35: `${pan.reveal()}==` }, 'ok', ''],
    ['differs between DE 2 and 35', { 35: track(otherPan) }, '30'],
    ['has two expiries', { 14: '2811', 35: track() }, '30'],
    ['is not on the track', { 35: '12345=2812' }, '30'],
    ['is not on the track, and there is no DE 2', { 2: undefined, 35: '=2812' }, '30'],
    ['stands in DE 42 too, which logs keep', { 2: '990011000000018', 42: '990011000000018' }, '30'],
    ['has 12 digits', { 2: '990001000001' }, '30'],
    ['has 20 digits', { 2: '99000100000000000001' }, '30'],
    ['has 20 digits on the track', { 2: undefined, 35: '99000100000000000001=2812' }, '30'],
  ];
  for (const [name, fields, expected, expiry] of cases) {
    test(name, () => {
      if (expected === '30') assert.equal(refusedWith(fields), '30');
      else {
        const request = accepted(fields);
        assert.ok(request.pan.equals(pan));
        assert.equal(request.expiry, expiry);
      }
    });
  }
});

describe('DE 90', () => {
  const named = '0100' + '000009' + '0301115959' + '00000123456' + '00000000000';
  test('names the original: MTI with its repeat digit cleared, STAN, DE 7 and DE 32 as they stand', () => {
    const expected = { mtiClass: '0100', stan: '000009', transmission: '0301115959', acquirer: '00000123456' };
    assert.deepEqual(accepted({ 90: named }, '0400').originalDataElements, expected);
    assert.deepEqual(accepted({ 90: named.replace('0100', '0101') }, '0400').originalDataElements, expected);
  });
  test('of zeros only names nothing', () => {
    assert.equal(accepted({ 90: '0'.repeat(42) }, '0420').originalDataElements, undefined);
  });
  test("with an MTI that is no owner's is a format error", () => {
    for (const mti of ['0000', '0110', '0800', '9999']) {
      assert.equal(refusedWith({ 90: mti + named.slice(4) }, '0400'), '30');
    }
  });
});

describe('DE 95', () => {
  test('gives what remains of the original in its first twelve digits', () => {
    assert.equal(accepted({ 95: '000000003000'.padEnd(42, '0') }, '0400').replacementAmount, 3000n);
    assert.equal(accepted({ 95: '0'.repeat(42) }, '0400').replacementAmount, 0n);
    assert.equal(accepted({}, '0400').replacementAmount, undefined);
  });
  test('without twelve digits in front is a format error, though the field may hold letters', () => {
    for (const start of ['X00000000000', '0x0000000010', '0b1010101010', '00000000300C']) {
      assert.equal(refusedWith({ 95: start.padEnd(42, '0') }, '0400'), '30', start);
    }
  });
});

describe('an amount', () => {
  const cases: [mti: string, fields: Fields, expected: string][] = [
    ['0100', { 4: '000000000000' }, '13'],
    ['0200', { 4: '000000000000' }, '13'],
    ['0220', { 4: '000000000000' }, '13'],
    ['0400', { 4: '000000000000' }, '13'],
    ['0100', { 3: '200000', 4: '000000000000' }, '13'],
    ['0100', { 3: '310000', 4: '000000000000' }, 'ok'],
    ['0100', { 3: '310000', 4: '000000005000' }, 'ok'],
    ['0100', { 3: '380000', 4: '000000000000' }, 'ok'],
    ['0100', { 3: '380000', 4: '000000000001' }, '13'],
    ['0100', { 6: '000000000000', 51: '978' }, '13'],
    ['0220', { 6: '000000000000', 51: '978' }, '13'],
    ['0100', { 3: '310000', 4: '000000000000', 6: '000000000000', 51: '978' }, 'ok'],
  ];
  for (const [mti, fields, expected] of cases) {
    test(`${mti} ${JSON.stringify(fields)} gives ${expected}`, () => {
      if (expected === 'ok') accepted(fields, mti);
      else assert.equal(refusedWith(fields, mti), expected);
    });
  }
});

describe('a processing code', () => {
  const known: [string, ReturnType<typeof purposeOf>][] = [
    ['00', 'debit'],
    ['01', 'debit'],
    ['09', 'debit'],
    ['20', 'refund'],
    ['31', 'balance-inquiry'],
    ['38', 'verification'],
  ];
  test('says what for by its first two digits, and any other is not permitted', () => {
    for (let code = 0; code < 100; code++) {
      const text = String(code).padStart(2, '0');
      const purpose = known.find(([digits]) => digits === text)?.[1];
      assert.equal(purposeOf(`${text}3020`), purpose);
      if (purpose === undefined) assert.equal(refusedWith({ 3: `${text}0000` }), '57');
    }
  });
});

test('a currency that nobody knows is not permitted, and a reversal does not care', () => {
  assert.equal(refusedWith({ 49: '999' }), '57');
  accepted({ 49: '999' }, '0400');
});

test('when several things are wrong, 30 comes before 13, 13 before 57, and 57 before 14', () => {
  const badCheckDigit = `${pan.reveal().slice(0, -1)}${(Number(pan.reveal().at(-1)) + 1) % 10}`;
  const wrong: readonly [code: string, fields: Fields][] = [
    ['30', { 7: undefined }],
    ['13', { 4: '000000000000' }],
    ['57', { 3: '990000' }],
    ['57', { 49: '999' }],
    ['14', { 2: badCheckDigit }],
  ];
  for (const [at, [code, fields]] of wrong.entries()) {
    assert.equal(refusedWith(fields), code);
    for (const [, later] of wrong.slice(at)) assert.equal(refusedWith({ ...later, ...fields }), code);
  }
});

test('a duplicate key is read back, whatever DE 41 holds', () => {
  for (const terminal of ['TERM0001', '|0100|  ', '        ']) {
    const request = requestOf({ terminal, mtiClass: '0200', acquirer: '7' });
    const { transmission, stan } = request;
    assert.deepEqual(partsOfKey(duplicateKey(request)), { transmission, stan, acquirer: '7', mtiClass: '0200' });
  }
  for (const key of ['', 'a|b|c', '0301120000|000001|link-1|1|0100']) assert.equal(partsOfKey(key), undefined);
});

test('the duplicate key is made of link, DE 32, 41, 11, 7 and the class, and of nothing else', () => {
  const before = duplicateKey(requestOf());
  const inKey: Partial<SwitchRequest>[] = [
    { link: 'link-2' },
    { acquirer: '9' },
    { terminal: 'TERM0002' },
    { stan: '000002' },
    { transmission: '0301120001' },
    { mtiClass: '0200' },
  ];
  for (const change of inKey) assert.notEqual(duplicateKey(requestOf(change)), before, Object.keys(change).join());
  const notInKey: Partial<SwitchRequest>[] = [
    { pan: otherPan },
    { amount: 1n },
    { rrn: '1' },
    { repeat: true },
    { businessDate: '2026-03-02' },
  ];
  for (const change of notInKey) assert.equal(duplicateKey(requestOf(change)), before, Object.keys(change).join());
});

test('different keys never look the same, whatever stands in a terminal', () => {
  const part = fc.record({
    acquirer: fc.stringMatching(/^[0-9]{0,11}$/),
    terminal: fc.oneof(fc.constant(''), fc.string({ minLength: 8, maxLength: 8 }), fc.stringMatching(/^[|0-9]{8}$/)),
    stan: fc.stringMatching(/^[0-9]{6}$/),
    transmission: fc.stringMatching(/^[0-9]{10}$/),
  });
  fc.assert(
    fc.property(part, part, (one, other) => {
      const same = JSON.stringify(one) === JSON.stringify(other);
      assert.equal(duplicateKey(requestOf(one)) === duplicateKey(requestOf(other)), same);
    }),
  );
});

test('no message that the codec takes makes the reader throw, and no refusal names a card', () => {
  const classes = fc.constantFrom('0100', '0121', '0200', '0220', '0401', '0420');
  fc.assert(
    fc.property(arbitraryMessage(iso87Ascii), classes, fc.boolean(), (arbitrary, mti, complete) => {
      const base = complete ? message({}, mti).fields : new Map<number, FieldValue>();
      const result = readRequest({ mti, fields: new Map([...arbitrary.fields, ...base]) }, 'link-1', '2026-03-01');
      if (result.kind === 'refused') assert.doesNotMatch(result.reason, /[0-9]{12}/);
    }),
    { numRuns: 2000 },
  );
});

test('an advice is read whatever would have declined it: it has already happened', () => {
  const wrongCheckDigit = pan.reveal().slice(0, -1) + String((Number(pan.reveal().at(-1)) + 1) % 10);
  for (const mti of ['0120', '0121', '0220', '0221']) {
    accepted({ 3: '990000' }, mti);
    accepted({ 49: '999' }, mti);
    accepted({ 2: wrongCheckDigit }, mti);
  }
  assert.equal(refusedWith({ 2: wrongCheckDigit }, '0200'), '14');
});
