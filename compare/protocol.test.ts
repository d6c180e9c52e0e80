import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { deflateRawSync } from 'node:zlib';

import fc from 'fast-check';

import { groupId } from '../base/identifiers.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { sampleLog, temporaryFolder, writeFile } from '../store/testing.ts';
import { SnapshotReader } from '../store/snapshot-reader.ts';
import { packMessage, unpackMessage } from './packing.ts';
import { limits, parseCompareCall, parseCompareReply, type CompareCall, type CompareFailed } from './protocol.ts';
import { tablesOf } from './tables.ts';
import { deskOf } from './testing.ts';

const group = groupId('a');
const address = { compare: 'compare-1', group: 'a' };

const calls: readonly CompareCall[] = [
  { kind: 'prepare', ...address, workers: 2, maximumLoad: 0.8 },
  { kind: 'open', ...address, index: 1_502 },
  { kind: 'split', ...address, table: 'card', after: null, through: null, parts: 3 },
  { kind: 'blocks', ...address, table: 'log', ranges: [{ after: null, through: null }], size: 1_024 },
  {
    kind: 'digests',
    ...address,
    table: 'card',
    ranges: [
      { after: ['ta.1.1.1'], ends: [['ta.1.1.2'], null] },
      { after: null, ends: [null] },
    ],
    size: 32,
    brief: true,
  },
  { kind: 'digests', ...address, table: 'log', ranges: [{ after: null, even: [0, 1_500] }], size: 256 },
  { kind: 'rows', ...address, table: 'card_transaction', ranges: [{ after: ['i5'], through: ['i9'] }] },
  { kind: 'columns', ...address, table: 'log', keys: [['i1'], ['i7'], ['i-7']] },
  { kind: 'chain', ...address, after: 0 },
  { kind: 'chain', ...address, after: 0, through: 100 },
  { kind: 'position', ...address, index: 7 },
  { kind: 'derived', ...address, table: 'card', after: null },
  { kind: 'integrity', ...address },
  { kind: 'recompute', ...address },
  { kind: 'rows', ...address, copy: 'recomputed', table: 'card', ranges: [{ after: null, through: null }] },
  { kind: 'close', ...address },
];

describe('every kind of call', () => {
  for (const call of calls) {
    test(`${JSON.stringify(call)} is read as it was sent, and its answer is one the coordinator takes`, (context) => {
      assert.deepEqual(parseCompareCall(JSON.parse(JSON.stringify(call))), call);
      const path = join(temporaryFolder(context), 'a.db');
      writeFile(path, group, sampleLog(group, 1_500), ledgerFold);
      const reader = SnapshotReader.open(path);
      const answer = JSON.parse(JSON.stringify(deskOf(reader, tablesOf(group)).answer(call))) as unknown;
      reader.close();
      const { kind } = parseCompareReply(call.kind, answer);
      if (call.copy !== undefined || call.kind === 'recompute') {
        assert.deepEqual((answer as CompareFailed).reason, 'not-recomputed');
        return;
      }
      // Rows of a table with card data never travel.
      assert.equal(
        kind,
        { prepare: 'prepared', open: 'opened', close: 'closed', derived: 'failed' }[call.kind as string] ?? call.kind,
      );
    });
  }
});

test('a call that is none is not taken', () => {
  const blocks = calls.find(({ kind }) => kind === 'blocks');
  const digests = { ...blocks, kind: 'digests' };
  const wrong: readonly unknown[] = [
    undefined,
    {},
    { ...blocks, kind: 'drop' },
    { ...blocks, size: 0 },
    { ...blocks, size: limits.blockRows + 1 },
    { ...blocks, ranges: [{ after: ['x1'], through: null }] },
    { ...blocks, ranges: [{ after: [], through: null }] },
    { ...blocks, ranges: [] },
    { ...digests, ranges: [{ after: null, even: [0, 1_000_000_000] }] },
    { ...blocks, sql: '' },
  ];
  for (const each of wrong) assert.equal(parseCompareCall(each), undefined, JSON.stringify(each));
});

test('a call about a key of another shape, an unknown table or a closed snapshot is answered failed', (context) => {
  const path = join(temporaryFolder(context), 'a.db');
  writeFile(path, group, sampleLog(group, 10), ledgerFold);
  const reader = SnapshotReader.open(path);
  const desk = deskOf(reader, tablesOf(group));
  const kindOf = (call: CompareCall): string => desk.answer(call).kind;
  assert.equal(
    kindOf({ kind: 'rows', ...address, table: 'log', ranges: [{ after: ['i1', 'i2'], through: null }] }),
    'failed',
  );
  assert.equal(kindOf({ kind: 'rows', ...address, table: 'meta', ranges: [{ after: null, through: null }] }), 'failed');
  assert.equal(kindOf({ kind: 'close', ...address }), 'closed');
  assert.equal(kindOf({ kind: 'close', ...address }), 'closed');
  assert.equal(kindOf({ kind: 'chain', ...address, after: 0 }), 'failed');
});

test('reading an answer never throws, and tells nothing of what was in garbage', () => {
  fc.assert(
    fc.property(fc.constantFrom(...calls.map(({ kind }) => kind)), fc.anything(), (kind, content) => {
      const reply = parseCompareReply(kind, content);
      if (reply.kind === 'garbage') assert.match(reply.message, /^answer to [a-z]+, [a-z0-9.]*: [a-z_]+$/);
    }),
  );
  const reply = parseCompareReply('rows', {
    kind: 'rows',
    ranges: [{ keys: ['4761739001010119'], digests: '', done: true }],
  });
  assert.ok(!JSON.stringify(reply).includes('4761739001010119'));
});

test('what travels is packed where that makes it shorter, and what only looks packed is nothing', () => {
  const long = { kind: 'rows', keys: Array.from({ length: 500 }, (_, at) => [`i${at}`]) };
  assert.ok(JSON.stringify(packMessage(long)).length * 2 < JSON.stringify(long).length);
  assert.deepEqual(unpackMessage(packMessage(long)), long);
  fc.assert(
    fc.property(fc.jsonValue(), (content) => {
      assert.deepEqual(
        unpackMessage(JSON.parse(JSON.stringify(packMessage(content)))),
        JSON.parse(JSON.stringify(content)),
      );
    }),
  );
  const ofZeros = deflateRawSync(Buffer.alloc(50_000_000, '0')).toString('base64');
  for (const deflated of ['', 'AAAA', ofZeros]) assert.equal(unpackMessage({ kind: 'packed', deflated }), undefined);
});
