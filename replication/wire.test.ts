import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { crc32 } from 'node:zlib';

import fc from 'fast-check';

import { groupId, nodeId } from '../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition } from '../store/entry.ts';
import type { RaftMessage } from './raft.ts';
import { decodeGroupMessages, encodeGroupMessages, type GroupMessage } from './wire.ts';

const plain = { noNullPrototype: true } as const;
const counter = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const topology = '0123456789abcdef';
const body = fc.oneof(
  fc.json(),
  fc.string({ unit: 'grapheme', maxLength: 200 }).map((text) => JSON.stringify(text)),
);

const entriesAfter = (previous: LogPosition, contents: readonly (readonly [number, string])[]): LogEntry[] => {
  const entries: LogEntry[] = [];
  for (const [term, text] of contents) entries.push(chainEntry(entries.at(-1) ?? previous, term, text));
  return entries;
};

const sender = { incarnation: counter, term: counter };
const kind = <Kind extends RaftMessage['kind']>(name: Kind): fc.Arbitrary<Kind> => fc.constant(name);
const position = { lastIndex: counter, lastTerm: counter };
const stamp = { sequence: counter, sentMs: counter };

const arbitraryMessage: fc.Arbitrary<RaftMessage> = fc.oneof(
  fc.record({ kind: kind('hello'), ...sender, lastIndex: counter }, plain),
  fc.record(
    { kind: kind('hello-reply'), ...sender, knownIncarnation: counter, knownTerm: counter, knownIndex: counter },
    plain,
  ),
  fc.record({ kind: kind('pre-vote'), ...sender, ...position }, plain),
  fc.record({ kind: kind('pre-vote-reply'), ...sender, granted: fc.boolean() }, plain),
  fc.record(
    { kind: kind('vote'), ...sender, ...position, reason: fc.constantFrom('timeout', 'transfer', 'recovery') },
    plain,
  ),
  fc.record({ kind: kind('vote-reply'), ...sender, granted: fc.boolean() }, plain),
  fc.record(
    {
      kind: kind('append-reply'),
      ...sender,
      ...stamp,
      accepted: fc.boolean(),
      match: counter,
      applied: counter,
      willing: fc.boolean(),
    },
    plain,
  ),
  fc.record({ kind: kind('behind'), ...sender, ...stamp, base: counter }, plain),
  fc.record({ kind: kind('take-over'), ...sender }, plain),
  fc
    .record({
      ...sender,
      ...stamp,
      index: fc.nat(),
      contents: fc.array(fc.tuple(fc.nat(), body), { maxLength: 8 }),
      commit: counter,
      acknowledged: fc.array(
        fc.record(
          { id: fc.constantFrom('n1', 'n2').map(nodeId), incarnation: counter, index: counter, applied: counter },
          plain,
        ),
        { maxLength: 5 },
      ),
    })
    .map(({ index, contents, ...rest }): RaftMessage => {
      const previous = { ...originPosition(groupId('a')), index };
      return { kind: 'append', previous, entries: entriesAfter(previous, contents), ...rest };
    }),
);

const arbitraryMessages: fc.Arbitrary<readonly GroupMessage[]> = fc.array(
  fc.record({ group: fc.constantFrom('a', 'b', 'config').map(groupId), message: arbitraryMessage }, plain),
  { maxLength: 6 },
);

describe('a datagram of messages of several groups', () => {
  test('is decoded to what was encoded, entries with their hashes', () => {
    const description = fc.option(fc.string({ unit: 'grapheme' }), { nil: undefined });
    fc.assert(
      fc.property(arbitraryMessages, description, (messages, text) => {
        const decoded = decodeGroupMessages(encodeGroupMessages(topology, messages, text));
        assert.deepEqual(decoded, { topology, description: text, messages });
      }),
      { numRuns: 500 },
    );
  });

  test('that was cut off anywhere, or has bytes too many, is none', () => {
    fc.assert(
      fc.property(arbitraryMessages, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 40 }), (messages, at, more) => {
        const bytes = encodeGroupMessages(topology, messages);
        assert.equal(decodeGroupMessages(bytes.subarray(0, at % bytes.length)), undefined);
        assert.equal(decodeGroupMessages(Buffer.concat([bytes, more])), undefined);
      }),
      { numRuns: 1_000 },
    );
  });

  test('with damaged bytes is none: no other entry, vote or commit index comes out of it', () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(arbitraryMessages, damage, (messages, changes) => {
        const bytes = encodeGroupMessages(topology, messages);
        const damaged = Buffer.from(bytes);
        for (const [at, mask] of changes) damaged[at % damaged.length] = (damaged[at % damaged.length] ?? 0) ^ mask;
        const decoded = decodeGroupMessages(damaged);
        if (!damaged.equals(bytes)) assert.equal(decoded, undefined);
      }),
      { numRuns: 3_000 },
    );
  });

  test('may be any bytes at all, and none is an exception', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        assert.equal(decodeGroupMessages(Buffer.from(bytes)), undefined);
      }),
      { numRuns: 2_000 },
    );
  });

  test('with 375 entries of 700 bytes stays far below the limit of the bus', () => {
    const previous = originPosition(groupId('a'));
    const entries = entriesAfter(
      previous,
      Array.from({ length: 375 }, () => [1, `"${'x'.repeat(698)}"`] as const),
    );
    const message: RaftMessage = {
      kind: 'append',
      incarnation: 1,
      term: 1,
      previous,
      entries,
      commit: 0,
      sequence: 1,
      sentMs: 0,
      acknowledged: [],
    };
    assert.ok(encodeGroupMessages(topology, [{ group: groupId('a'), message }]).length < 300 * 1024);
  });
});

describe('a peer that is broken, or not one of ours', () => {
  /** A datagram that is well formed outside, with this header. */
  function withHeader(header: object): Buffer {
    const bytes = Buffer.from(JSON.stringify(header));
    const prefix = Buffer.alloc(8);
    prefix.writeUInt32BE(bytes.length);
    prefix.writeUInt32BE(crc32(bytes), 4);
    return Buffer.concat([prefix, bytes]);
  }

  const vote = { group: 'a', kind: 'vote', incarnation: 1, term: 2, lastIndex: 3, lastTerm: 1, reason: 'timeout' };
  const reply = {
    group: 'a',
    kind: 'append-reply',
    incarnation: 1,
    term: 2,
    accepted: true,
    match: 1,
    applied: 0,
    sequence: 1,
    sentMs: 0,
    willing: true,
  };
  const { hash } = originPosition(groupId('a'));
  const append = {
    group: 'a',
    kind: 'append',
    incarnation: 1,
    term: 2,
    previous: { index: 0, term: 0, hash },
    entries: [],
    lastHash: '',
    commit: 0,
    sequence: 1,
    sentMs: 0,
    acknowledged: [],
  };
  const decode = (...messages: readonly object[]): unknown =>
    decodeGroupMessages(withHeader({ version: 2, topology, messages }));

  test('what these are made from is well formed', () => {
    for (const message of [vote, reply, append]) assert.notEqual(decode(message), undefined);
  });

  for (const [what, message] of [
    ['a negative term', { ...vote, term: -1 }],
    ['a fractional index', { ...vote, lastIndex: 1.5 }],
    ['an index that no log can have', { ...vote, lastIndex: 1e300 }],
    ['a term that is text', { ...vote, term: '7' }],
    ['no incarnation', { ...vote, incarnation: undefined }],
    ['a kind that there is not', { ...vote, kind: 'command' }],
    ['a kind that every object has', { ...vote, kind: 'constructor' }],
    ['a vote without a reason, which would not be told from a transfer', { ...vote, reason: undefined }],
    ['a vote with another reason', { ...vote, reason: 'because' }],
    ['an acceptance that is neither yes nor no', { ...reply, accepted: 'false' }],
    ['a willingness that is neither yes nor no', { ...reply, willing: 1 }],
    ['a grant that is neither yes nor no', { group: 'a', kind: 'vote-reply', incarnation: 1, term: 2, granted: 'no' }],
    ['a previous entry without a hash', { ...append, previous: { index: 0, term: 0 } }],
    ['no previous entry', { ...append, previous: undefined }],
    ['no list of entries', { ...append, entries: undefined }],
    ['no list of acknowledgements', { ...append, acknowledged: undefined }],
    ['an entry of no term', { ...append, entries: [[null, 0]] }],
    ['an entry of negative length', { ...append, entries: [[1, -5]] }],
    [
      'an acknowledgement of half an index',
      { ...append, acknowledged: [{ id: 'n1', incarnation: 1, index: 0.5, applied: 0 }] },
    ],
  ] as const) {
    test(`${what} is not listened to`, () => {
      assert.equal(decode(message), undefined);
      assert.equal(decode(append, message), undefined, 'nor to what came with it');
    });
  }

  test('another version, or no topology, is not listened to', () => {
    for (const header of [
      { version: 1, topology, messages: [vote] },
      { version: 2, messages: [vote] },
      { version: 2, topology, messages: 'none' },
    ]) {
      assert.equal(decodeGroupMessages(withHeader(header)), undefined);
    }
  });

  test('bodies other than the hash at the end is for are not taken', () => {
    const previous = originPosition(groupId('a'));
    const [entry] = entriesAfter(previous, [[1, '"x"']]);
    assert.ok(entry !== undefined);
    const bytes = encodeGroupMessages(topology, [
      { group: groupId('a'), message: { ...append, previous, entries: [entry] } as unknown as RaftMessage },
    ]);
    bytes[bytes.length - 2] = 'y'.charCodeAt(0);
    assert.equal(decodeGroupMessages(bytes), undefined);
  });
});
