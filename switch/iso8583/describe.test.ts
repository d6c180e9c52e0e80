import assert from 'node:assert/strict';
import { describe as suite, it } from 'node:test';

import fc from 'fast-check';

import { maskCardData } from '../../base/pan.ts';
import { arbitraryMessage } from './arbitrary-messages.ts';
import { unpack } from './codec.ts';
import type { FieldValue, IsoMessage } from './codec.ts';
import { describe } from './describe.ts';
import { goldenBytes, goldenMessages } from './golden-messages.ts';
import { iso87Ascii } from './spec.ts';

function message(mti: string, fields: Readonly<Record<number, FieldValue>>): IsoMessage {
  return { mti, fields: new Map(Object.entries(fields).map(([number, value]) => [Number(number), value])) };
}

function shown(described: IsoMessage, field: number): string | undefined {
  return describe(described, iso87Ascii).find((row) => row.field === field)?.value;
}

function golden(name: string): IsoMessage {
  const found = goldenMessages.find((candidate) => candidate.name.startsWith(name)) ?? assert.fail(name);
  const result = unpack(goldenBytes(found), iso87Ascii);
  return result.kind === 'message' ? result.message : assert.fail(result.error.message);
}

suite('a described message', () => {
  it('names the message, its fields and its codes in the words of the trade', () => {
    assert.deepEqual(describe(golden('0110'), iso87Ascii), [
      { field: 0, name: 'messageTypeIndicator', value: '0110 authorization response' },
      { field: 3, name: 'processingCode', value: '000000 purchase' },
      { field: 4, name: 'amountTransaction', value: '50.00 USD' },
      { field: 7, name: 'transmissionDateAndTime', value: '11-22, 13:28:43 UTC' },
      { field: 11, name: 'systemTraceAuditNumber', value: '123456' },
      { field: 37, name: 'retrievalReferenceNumber', value: '632613123456' },
      { field: 38, name: 'authorizationIdentificationResponse', value: 'A1B2C3' },
      { field: 39, name: 'responseCode', value: '00 approved' },
      { field: 41, name: 'cardAcceptorTerminalIdentification', value: 'TERM0001' },
      { field: 49, name: 'currencyCodeTransaction', value: '840' },
    ]);
    assert.equal(shown(message('0421', {}), 0), '0421 reversal advice, repeat');
  });

  it('shows amounts in their own currency, and never guesses one', () => {
    assert.equal(shown(golden('0200'), 4), '10000 JPY');
    assert.equal(shown(golden('0200'), 28), '150 JPY debit');
    assert.equal(shown(message('0100', { 4: '000000005000' }), 4), '5000 minor units');
    assert.equal(shown(golden('0220'), 54), 'account 00, type 40: 5.00 USD debit');
    assert.equal(shown(golden('0510'), 97), '4711 minor units credit');
  });

  it('takes DE 90 and 95 apart, so that no mask takes them for a card', () => {
    const original = 'mti 0200, trace 123456, sent 1122132843, acquirer 40000000001, forwarder 00000000000';
    assert.equal(shown(golden('0420'), 90), original);
    assert.equal(maskCardData(original), original);
    const replacement = 'transaction 20.00 USD, settlement 2000 minor units, fees D00000000, C00000000';
    assert.equal(shown(golden('0420'), 95), replacement);
  });

  it('shows six and four digits of a card number, and nothing of tracks, PIN data, MAC and private fields', () => {
    assert.equal(shown(golden('0200'), 2), '476173******0119');
    assert.equal(shown(golden('0100 purchase with track'), 35), '[hidden, 34 characters]');
    assert.equal(shown(golden('0100 purchase with track'), 52), '[hidden, 8 bytes]');
    assert.equal(shown(golden('0220'), 48), '[hidden, 8 characters]');
    assert.equal(shown(golden('0420'), 64), '[hidden, 8 bytes]');
    assert.equal(shown(message('0100', { 45: 'B4761739001010119^DOE/J^2812201' }), 45), '[hidden, 31 characters]');
  });

  it('shows of chip data the harmless tags only', () => {
    const chip = '9F02=000000012345; 5A=[hidden]; 9F36=001E; DF8A7F=[hidden]';
    assert.equal(shown(golden('0100 purchase with card number'), 55), chip);
  });

  it('hides a harmless tag whose value is longer than the tag ever is', () => {
    const elements = [{ tag: '9F02', value: Buffer.from('4761739001010119', 'hex') }];
    assert.equal(shown(message('0100', { 55: elements }), 55), '9F02=[hidden]');
  });

  it('hides what does not parse as what it should be', () => {
    assert.equal(shown(message('0100', { 2: '47617390010101' + 'x' }), 2), '[hidden, 15 characters]');
    assert.equal(shown(message('0100', { 54: '0040840D00000000050' }), 54), '[hidden, 19 characters]');
    assert.equal(shown(message('0100', { 95: 'A'.repeat(42) }), 95), '[hidden, 42 characters]');
    assert.equal(shown(message('0100', { 4: Buffer.from('4761739001010119') }), 4), '[hidden, 16 bytes]');
    assert.equal(shown(message('0100', { 200: '4761739001010119' }), 200), '[hidden, 16 characters]');
    assert.equal(shown(message('4761739001010119', {}), 0), '[hidden, 16 characters]');
    assert.equal(shown(message('0100', { 39: 'ZZ' }), 39), 'ZZ');
  });

  it('lets no line break and no card number through free text', () => {
    const place = 'CARD 4761 7390 0101 0119\nBOSTON';
    assert.equal(shown(message('0100', { 43: place }), 43), 'CARD 476173******0119?BOSTON');
  });

  it('shows no card number, track or secret of any message, also when one repeats it where it does not belong', () => {
    const digits = fc.string({ unit: fc.constantFrom(...Array.from('0123456789')), minLength: 13, maxLength: 19 });
    fc.assert(
      fc.property(arbitraryMessage(iso87Ascii), digits, (generated, pan) => {
        const fields = new Map(generated.fields);
        fields.set(2, pan);
        fields.set(35, `${pan.slice(0, 16)}=2812201`);
        fields.set(43, `SHOP ${pan}`.padEnd(40));
        fields.set(44, pan);
        fields.set(55, [{ tag: '5A', value: Buffer.from(pan.padEnd(20, 'F'), 'hex') }]);
        fields.set(63, `CVV ${pan}`);
        const text = JSON.stringify(describe({ mti: generated.mti, fields }, iso87Ascii));
        assert.ok(!text.includes(pan));
        for (const [number, value] of fields) {
          const sensitive = iso87Ascii.fields.get(number)?.sensitive;
          if (sensitive === undefined || value.length < 8) continue;
          if (typeof value === 'string') assert.ok(!text.includes(JSON.stringify(value).slice(1, -1)), `DE ${number}`);
          if (Buffer.isBuffer(value)) assert.ok(!text.toLowerCase().includes(value.toString('hex')), `DE ${number}`);
        }
      }),
      { numRuns: 200 },
    );
  });
});
