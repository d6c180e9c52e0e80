import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import type { FieldValue, IsoMessage } from '../../switch/iso8583/codec.ts';
import { JournalWriter, readJournal } from './journal.ts';
import type { JournalLine } from './journal.ts';

const folder = mkdtempSync(join(tmpdir(), 'journal-'));
after(() => {
  rmSync(folder, { recursive: true });
});

async function linesOf(file: string): Promise<JournalLine[]> {
  const lines: JournalLine[] = [];
  for await (const line of readJournal(file)) lines.push(line);
  return lines;
}

function message(mti: string, fields: Readonly<Record<number, FieldValue>>): IsoMessage {
  return { mti, fields: new Map(Object.entries(fields).map(([number, value]) => [Number(number), value])) };
}

const request = {
  id: 'r-1',
  attempt: 1,
  operation: 'purchase',
  node: 'n1',
  sentAt: '2026-03-01T12:00:00.000Z',
  card: 2,
  pan: '990001******0019',
};

test('what was written is read back, and card data never gets in', async () => {
  const file = join(folder, 'whole.jsonl');
  const journal = new JournalWriter(file);
  journal.append({ kind: 'run', run: 'r', startedAt: '2026-03-01T12:00:00.000Z', seed: 7, cardFile: 'cards.csv' });
  journal.appendRequest(
    request,
    message('0100', {
      2: '9900010000000019',
      4: '000000001250',
      14: '3508',
      35: '9900010000000019=3508101',
      37: '2RXDGXMX0000',
      41: 'T"\\RM 01',
      52: Buffer.from('0123456789abcdef', 'hex'),
    }),
  );
  journal.appendAnswer(
    { id: 'r-1', attempt: 1, node: 'n1', answeredAt: '2026-03-01T12:00:00.004Z', late: true },
    message('0110', { 38: '123456', 39: '00' }),
  );
  journal.close();
  assert.deepEqual(await linesOf(file), [
    { kind: 'run', run: 'r', startedAt: '2026-03-01T12:00:00.000Z', seed: 7, cardFile: 'cards.csv' },
    { kind: 'request', ...request, mti: '0100', fields: { 4: '000000001250', 37: '2RXDGXMX0000', 41: 'T"\\RM 01' } },
    {
      kind: 'answer',
      id: 'r-1',
      attempt: 1,
      mti: '0110',
      node: 'n1',
      answeredAt: '2026-03-01T12:00:00.004Z',
      late: true,
      fields: { 38: '123456', 39: '00' },
    },
  ]);
  assert.doesNotMatch(readFileSync(file, 'utf8'), /9900010000000019|3508|0123456789abcdef/i);
});

test('a request is in the file after flush, before anything else happens', () => {
  const file = join(folder, 'flushed.jsonl');
  const journal = new JournalWriter(file);
  journal.appendRequest(request, message('0100', {}));
  assert.equal(readFileSync(file, 'utf8'), '');
  journal.flush();
  assert.match(readFileSync(file, 'utf8'), /"id":"r-1".*\n$/);
  journal.close();
});

test('a journal of a killed run is continued: its torn last line costs itself only', async () => {
  const file = join(folder, 'torn.jsonl');
  appendFileSync(file, '{"kind":"unanswered","id":"r-1","at":"x"}\n{"kind":"request","id":"r-2","att');
  const journal = new JournalWriter(file);
  journal.append({ kind: 'unanswered', id: 'r-3', at: 'y' });
  journal.close();
  assert.deepEqual(await linesOf(file), [
    { kind: 'unanswered', id: 'r-1', at: 'x' },
    { kind: 'unanswered', id: 'r-3', at: 'y' },
  ]);
});

test('memory is bounded: lines go to the file without a flush when there are many', () => {
  const file = join(folder, 'many.jsonl');
  const journal = new JournalWriter(file);
  for (let index = 0; index < 2_000; index++) journal.append({ kind: 'unanswered', id: `r-${index}`, at: 'z' });
  assert.ok(readFileSync(file).length > 0);
  journal.close();
  assert.equal(readFileSync(file, 'utf8').split('\n').length, 2_001);
});

test('a file that cannot be written or read is named with the reason', async () => {
  const nowhere = join(folder, 'no', 'such', 'folder.jsonl');
  assert.throws(() => new JournalWriter(nowhere), { message: `the journal ${nowhere} cannot be written (ENOENT)` });
  await assert.rejects(linesOf(nowhere), { message: `the journal ${nowhere} cannot be read (ENOENT)` });
});
