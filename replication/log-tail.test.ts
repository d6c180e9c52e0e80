import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { groupId } from '../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry } from '../store/entry.ts';
import { LogTail, type EntrySource } from './log-tail.ts';

const origin = originPosition(groupId('a'));

/** A file that holds what was last synced, like a group's. */
class ArraySource implements EntrySource {
  file: LogEntry[] = [];
  last = () => this.file.at(-1) ?? origin;
  position = (index: number) => (index === 0 ? origin : this.file[index - 1]);
  entries = (from: number, count: number) => this.file.slice(from - 1, from - 1 + count);
}

const everything = Number.MAX_SAFE_INTEGER;

function readAll(tail: LogTail): LogEntry[] {
  const entries: LogEntry[] = [];
  while (entries.length < tail.last.index) {
    const more = tail.entries(entries.length + 1, everything);
    assert.ok(more.length > 0, 'there is always at least one when there is one');
    entries.push(...more);
  }
  return entries;
}

describe('a log in two parts', () => {
  test('reads as one plain array, however it is appended to, cut and synced', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 6_000 }) }),
      fc.record({ kind: fc.constant('cut' as const), back: fc.nat({ max: 12_000 }) }),
      fc.record({ kind: fc.constant('sync' as const), lag: fc.nat({ max: 3_000 }) }),
      fc.record({ kind: fc.constant('reopen' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 14 }), (steps) => {
        const source = new ArraySource();
        let tail = new LogTail(source);
        let model: LogEntry[] = [];
        let durable = 0;
        let term = 1;
        for (const each of steps) {
          if (each.kind === 'append') {
            for (let count = 0; count < each.count; count++) {
              const entry = chainEntry(model.at(-1) ?? origin, term, '"x"');
              tail.append(entry);
              model.push(entry);
            }
          } else if (each.kind === 'cut') {
            term += 1;
            const keepThrough = Math.max(0, model.length - each.back);
            tail.cut(keepThrough);
            model = model.slice(0, keepThrough);
            // What the file holds above it stays there until the next write.
            durable = Math.min(durable, keepThrough);
          } else if (each.kind === 'sync') {
            durable = Math.max(durable, model.length - each.lag);
            source.file = model.slice(0, durable);
            tail.onDurable(durable);
          } else {
            source.file = source.file.slice(0, durable);
            tail = new LogTail(source);
            model = model.slice(0, durable);
          }
          assert.equal(tail.last.hash, (model.at(-1) ?? origin).hash);
          assert.ok(tail.kept <= 2 * 4096 + model.length - durable, 'memory is bounded by what is not on disk');
          for (const index of [0, 1, durable, durable + 1, model.length - 1, model.length, model.length + 1]) {
            if (index < 0) continue;
            assert.equal(tail.position(index)?.hash, index === 0 ? origin.hash : model[index - 1]?.hash, `${index}`);
          }
        }
        assert.deepEqual(
          readAll(tail).map(({ hash }) => hash),
          model.map(({ hash }) => hash),
        );
      }),
      { numRuns: 60 },
    );
  });

  test('a long log that is synced as it grows keeps some thousand entries in memory', () => {
    const source = new ArraySource();
    const tail = new LogTail(source);
    let most = 0;
    for (let batch = 0; batch < 1_000; batch++) {
      for (let count = 0; count < 100; count++) {
        const entry = chainEntry(tail.last, 1, '"x"');
        tail.append(entry);
        source.file.push(entry);
      }
      tail.onDurable(tail.last.index);
      most = Math.max(most, tail.kept);
    }
    assert.ok(most <= 8_192 + 100, `${most}`);
    assert.equal(tail.entries(1, everything)[0]?.index, 1, 'what left memory is read from the file');
  });

  test('a message holds as many entries as fit, and at least one', () => {
    const tail = new LogTail(new ArraySource());
    for (let count = 0; count < 10; count++) tail.append(chainEntry(tail.last, 1, 'x'.repeat(100)));
    assert.equal(tail.entries(1, 350).length, 3);
    assert.equal(tail.entries(1, 10).length, 1);
    assert.equal(tail.entries(11, 350).length, 0);
  });

  test('an entry that does not follow the last one is a broken invariant', () => {
    const tail = new LogTail(new ArraySource());
    const entry = chainEntry(chainEntry(origin, 1, '"x"'), 1, '"y"');
    assert.throws(() => {
      tail.append(entry);
    }, /broken invariant/);
  });
});
