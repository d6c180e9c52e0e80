import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { groupId } from '../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition } from '../store/entry.ts';
import type { RaftMessage } from './raft.ts';
import { decodeGroupMessages, encodeGroupMessages, type GroupMessage } from './wire.ts';

const plain = { noNullPrototype: true } as const;
const counter = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const body = fc.oneof(
  fc.json(),
  fc.string({ unit: 'grapheme', maxLength: 200 }).map((text) => JSON.stringify(text)),
);

const entriesAfter = (previous: LogPosition, contents: readonly (readonly [number, string])[]): LogEntry[] => {
  const entries: LogEntry[] = [];
  for (const [term, text] of contents) entries.push(chainEntry(entries.at(-1) ?? previous, term, text));
  return entries;
};

const arbitraryMessage: fc.Arbitrary<RaftMessage> = fc.oneof(
  fc.record({ kind: fc.constant('vote' as const), term: counter, lastIndex: counter, lastTerm: counter }, plain),
  fc.record({ kind: fc.constant('vote-reply' as const), term: counter, granted: fc.boolean() }, plain),
  fc.record(
    {
      kind: fc.constant('append-reply' as const),
      term: counter,
      accepted: fc.boolean(),
      match: counter,
      applied: counter,
      sequence: counter,
    },
    plain,
  ),
  fc
    .record({
      term: counter,
      index: fc.nat(),
      contents: fc.array(fc.tuple(fc.nat(), body), { maxLength: 8 }),
      commit: counter,
      sequence: counter,
    })
    .map(({ term, index, contents, commit, sequence }): RaftMessage => {
      const previous = { ...originPosition(groupId('a')), index };
      return { kind: 'append', term, previous, entries: entriesAfter(previous, contents), commit, sequence };
    }),
);

const arbitraryMessages: fc.Arbitrary<readonly GroupMessage[]> = fc.array(
  fc.record({ group: fc.constantFrom('a', 'b', 'config').map(groupId), message: arbitraryMessage }, plain),
  { maxLength: 6 },
);

test('what is decoded is what was encoded, entries with their hashes', () => {
  fc.assert(
    fc.property(arbitraryMessages, (messages) => {
      assert.deepEqual(decodeGroupMessages(encodeGroupMessages(messages)), messages);
    }),
    { numRuns: 500 },
  );
});

test('a datagram that was cut off anywhere, or has bytes too many, is no message', () => {
  fc.assert(
    fc.property(arbitraryMessages, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 40 }), (messages, at, more) => {
      const bytes = encodeGroupMessages(messages);
      assert.equal(decodeGroupMessages(bytes.subarray(0, at % bytes.length)), undefined);
      assert.equal(decodeGroupMessages(Buffer.concat([bytes, more])), undefined);
    }),
    { numRuns: 1_000 },
  );
});

test('a datagram with damaged bytes is no message: no other entry, vote or commit index comes out of it', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(arbitraryMessages, damage, (messages, changes) => {
      const bytes = encodeGroupMessages(messages);
      const damaged = Buffer.from(bytes);
      for (const [at, mask] of changes) damaged[at % damaged.length] = (damaged[at % damaged.length] ?? 0) ^ mask;
      const decoded = decodeGroupMessages(damaged);
      if (!damaged.equals(bytes)) assert.equal(decoded, undefined);
    }),
    { numRuns: 5_000 },
  );
});

test('any bytes at all are taken without an exception', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      assert.equal(decodeGroupMessages(Buffer.from(bytes)), undefined);
    }),
    { numRuns: 2_000 },
  );
});

test('an append with 375 entries of 700 bytes stays far below the limit of the bus', () => {
  const previous = originPosition(groupId('a'));
  const entries = entriesAfter(
    previous,
    Array.from({ length: 375 }, () => [1, `"${'x'.repeat(698)}"`] as const),
  );
  const message: RaftMessage = { kind: 'append', term: 1, previous, entries, commit: 0, sequence: 1 };
  assert.ok(encodeGroupMessages([{ group: groupId('a'), message }]).length < 300 * 1024);
});
