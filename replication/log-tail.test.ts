import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import fc from 'fast-check';

import { groupId } from '../base/identifiers.ts';
import { chainEntry, originPosition, type LogEntry, type LogPosition } from '../store/entry.ts';
import { LogTail, type EntrySource } from './log-tail.ts';

const origin = originPosition(groupId('a'));

/** A file that holds what was last synced, like a group's. */
class ArraySource implements EntrySource {
  start: LogPosition = origin;
  file: LogEntry[] = [];
  last = () => this.file.at(-1) ?? this.start;
  base = () => this.start;
  position = (index: number) => (index === this.start.index ? this.start : this.file[index - this.start.index - 1]);
  entries = (from: number, count: number) => {
    const first = from - this.start.index - 1;
    return first < 0 ? [] : this.file.slice(first, first + count);
  };

  trim(through: number): LogPosition {
    const base = this.position(through);
    assert.ok(base !== undefined);
    this.file = this.file.slice(through - this.start.index);
    this.start = base;
    return base;
  }
}

const everything = Number.MAX_SAFE_INTEGER;

function readAll(tail: LogTail): LogEntry[] {
  const entries: LogEntry[] = [];
  for (let next = tail.base.index + 1; next <= tail.last.index;) {
    const more = tail.entries(next, everything);
    assert.ok(more.length > 0, 'there is always at least one when there is one');
    assert.equal(more[0]?.index, next);
    entries.push(...more);
    next += more.length;
  }
  return entries;
}

describe('a log in two parts', () => {
  test('reads as one plain array, however it is appended to, cut, synced, trimmed and replaced', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('append' as const), count: fc.integer({ min: 1, max: 6_000 }) }),
      fc.record({ kind: fc.constant('cut' as const), back: fc.nat({ max: 12_000 }) }),
      fc.record({ kind: fc.constant('sync' as const), lag: fc.nat({ max: 3_000 }) }),
      fc.record({ kind: fc.constant('trim' as const), lag: fc.nat({ max: 6_000 }) }),
      fc.record({ kind: fc.constant('reopen' as const) }),
      fc.record({ kind: fc.constant('replace' as const), ahead: fc.integer({ min: 1, max: 500 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 14 }), (steps) => {
        let source = new ArraySource();
        let tail = new LogTail(source);
        /** Every entry there ever was at an index; those up to `base` have been trimmed. */
        let model: LogPosition[] = [];
        let base = 0;
        let durable = 0;
        let term = 1;
        const at = (index: number): LogPosition | undefined => (index === 0 ? origin : model[index - 1]);
        for (const each of steps) {
          switch (each.kind) {
            case 'append':
              for (let count = 0; count < each.count; count++) {
                const entry = chainEntry(model.at(-1) ?? origin, term, '"x"');
                tail.append(entry);
                model.push(entry);
              }
              break;
            case 'cut':
              term += 1;
              model = model.slice(0, Math.max(base, model.length - each.back));
              tail.cut(model.length);
              // What the file holds above it stays there until the next write.
              durable = Math.min(durable, model.length);
              break;
            case 'sync':
              durable = Math.max(durable, model.length - each.lag);
              source.file = model.slice(base, durable) as LogEntry[];
              tail.onDurable(durable);
              break;
            case 'trim':
              // No more than what is on disk, and has not been cut since.
              base = Math.max(base, durable - each.lag);
              tail.onTrimmed(source.trim(base));
              break;
            case 'reopen':
              source.file = source.file.slice(0, durable - base);
              tail = new LogTail(source);
              model = model.slice(0, durable);
              break;
            case 'replace': {
              term += 1;
              for (let count = 0; count < each.ahead; count++) {
                model.push(chainEntry(model.at(-1) ?? origin, term, '"y"'));
              }
              base = durable = model.length;
              const position = at(base) ?? origin;
              source = new ArraySource();
              source.start = position;
              tail.onReplaced(source);
              tail.reset(position);
              break;
            }
          }
          assert.equal(tail.last.hash, (model.at(-1) ?? origin).hash);
          assert.ok(tail.kept <= 2 * 4096 + model.length - durable, 'memory is bounded by what is not on disk');
          for (const index of [
            base,
            base + 1,
            durable,
            durable + 1,
            model.length - 1,
            model.length,
            model.length + 1,
          ]) {
            if (index >= base) assert.equal(tail.position(index)?.hash, at(index)?.hash, `${index}`);
          }
          assert.equal(tail.position(base - 1), undefined, 'what was trimmed is not known any more');
          assert.equal(tail.base.hash, at(base)?.hash);
        }
        assert.deepEqual(
          readAll(tail).map(({ hash }) => hash),
          model.slice(base).map(({ hash }) => hash),
        );
      }),
      { numRuns: 80 },
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

  test('long entries leave memory by their size, also those that are cut', () => {
    const source = new ArraySource();
    const tail = new LogTail(source);
    const body = 'x'.repeat(64 * 1024);
    for (let count = 0; count < 600; count++) {
      const entry = chainEntry(tail.last, 1, body);
      tail.append(entry);
      source.file.push(entry);
      tail.onDurable(tail.last.index);
      assert.ok(tail.kept <= 256 + 1, `${tail.kept} entries of 64 kB`);
    }
    assert.equal(tail.entries(1, everything)[0]?.index, 1);
    tail.cut(599);
    for (let count = 0; count < 255; count++) tail.append(chainEntry(tail.last, 2, '"x"'));
    tail.onDurable(tail.last.index);
    assert.ok(tail.kept > 255, 'short ones stay');
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
