import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import fc from 'fast-check';

import { unpack } from './codec.ts';
import { Deframer, frame, length2 } from './framing.ts';
import type { DeframerEvent, FrameFormat } from './framing.ts';
import { goldenBytes, goldenMessages } from './golden-messages.ts';
import { iso87Ascii } from './spec.ts';

const countsItself: FrameFormat = { kind: 'length2', includesItself: true };
const limit = 1000;

function byteByByte(deframer: Deframer, bytes: Buffer): DeframerEvent[] {
  return [...bytes].flatMap((byte) => deframer.push(Buffer.from([byte])));
}

describe('a deframer', () => {
  for (const format of [length2, countsItself]) {
    const name = format.includesItself ? 'a length that counts itself' : 'a length that does not count itself';

    it(`${name}: gives golden messages fed byte by byte, each with its last byte`, () => {
      const deframer = new Deframer(format, limit);
      for (const golden of goldenMessages) {
        const bytes = goldenBytes(golden);
        const framed = frame(bytes, format);
        assert.deepEqual(byteByByte(deframer, framed.subarray(0, -1)), []);
        assert.equal(deframer.pendingBytes, framed.length - 1);
        assert.deepEqual(deframer.push(framed.subarray(-1)), [{ kind: 'frame', bytes }]);
        assert.equal(deframer.pendingBytes, 0);
        assert.equal(unpack(bytes, iso87Ascii).kind, 'message');
      }
    });

    it(`${name}: gives the same events however the stream is cut`, () => {
      const content = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
      const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 });
      fc.assert(
        fc.property(fc.array(content, { maxLength: 20 }), cuts, (contents, sizes) => {
          const stream = Buffer.concat(contents.map((bytes) => frame(bytes, format)));
          const deframer = new Deframer(format, limit);
          const events: DeframerEvent[] = [];
          for (let at = 0, turn = 0; at < stream.length; turn++) {
            const size = sizes[turn % sizes.length] ?? 1;
            events.push(...deframer.push(stream.subarray(at, at + size)));
            at += size;
          }
          const expected = contents.map((bytes) => (bytes.length === 0 ? { kind: 'poll' } : { kind: 'frame', bytes }));
          assert.deepEqual(events, expected);
          assert.equal(deframer.pendingBytes, 0);
        }),
      );
    });
  }

  it('gives several frames and polls of one chunk, in order', () => {
    const chunk = Buffer.from('0002' + '4142' + '0000' + '0001' + '43' + '00', 'hex');
    const deframer = new Deframer(length2, limit);
    assert.deepEqual(deframer.push(chunk), [
      { kind: 'frame', bytes: Buffer.from('AB') },
      { kind: 'poll' },
      { kind: 'frame', bytes: Buffer.from('C') },
    ]);
    assert.equal(deframer.pendingBytes, 1);
  });

  it('takes a frame of exactly the limit, and breaks at one byte more', () => {
    const deframer = new Deframer(length2, 4);
    assert.deepEqual(deframer.push(frame(Buffer.from('ABCD'), length2)), [
      { kind: 'frame', bytes: Buffer.from('ABCD') },
    ]);
    assert.deepEqual(deframer.push(Buffer.from('0005', 'hex')), [{ kind: 'broken', reason: 'too-long' }]);
  });

  it('breaks at a length that does not even cover itself', () => {
    for (const length of ['0000', '0001']) {
      const events = new Deframer(countsItself, limit).push(Buffer.from(length, 'hex'));
      assert.deepEqual(events, [{ kind: 'broken', reason: 'impossible-length' }]);
    }
  });

  it('ignores everything after it broke, and holds nothing', () => {
    const deframer = new Deframer(length2, 4);
    const before = Buffer.from('0001' + '41' + 'FFFF' + '0001' + '42', 'hex');
    assert.deepEqual(
      deframer.push(before).map((event) => event.kind),
      ['frame', 'broken'],
    );
    assert.deepEqual(deframer.push(frame(Buffer.from('AB'), length2)), []);
    assert.equal(deframer.pendingBytes, 0);
  });

  it('gives frames that outlive the chunk', () => {
    const chunk = frame(Buffer.from('AB'), length2);
    const events = new Deframer(length2, limit).push(chunk);
    chunk.fill(0);
    assert.deepEqual(events, [{ kind: 'frame', bytes: Buffer.from('AB') }]);
  });

  it('survives any noise with events in bounds', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 }), (chunks) => {
        const deframer = new Deframer(length2, 100);
        for (const chunk of chunks) {
          for (const event of deframer.push(Buffer.from(chunk))) {
            if (event.kind === 'frame') assert.ok(event.bytes.length > 0 && event.bytes.length <= 100);
          }
          assert.ok(deframer.pendingBytes < 102);
        }
      }),
    );
  });
});

it('a message that no two-byte length can tell is a broken invariant', () => {
  assert.equal(frame(Buffer.alloc(65_535), length2).length, 65_537);
  assert.throws(() => frame(Buffer.alloc(65_534), countsItself), /broken invariant/);
});
