import assert from 'node:assert/strict';
import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { groupId } from '../base/identifiers.ts';
import type { EncodedKey } from './canonical.ts';
import { GroupFile } from './group-file.ts';
import { ledgerFold } from './ledger-fold.ts';
import { readUndo, type RowChange, type RowState } from './row-repair.ts';
import { SnapshotReader, type TableSpecification } from './snapshot-reader.ts';
import { copyFile, editByHand, readByHand, sampleLog, temporaryFolder, writeFile } from './testing.ts';

const group = groupId('a');
const cardOf = (path: string): TableSpecification => ({
  name: 'card',
  keyColumns: ['card_id'],
  columns: readByHand(path, "SELECT name FROM pragma_table_info('card')") as string[],
  derivedColumns: [],
  jsonColumns: [],
  throughApplied: false,
});
const key: EncodedKey = ['ta.1.1.7'];

/** Two copies of a file, and a card's row of the second. */
function copies(context: TestContext): {
  right: RowState;
  wrong: string;
  undo: string;
  rowOf: (path: string) => RowState;
} {
  const folder = temporaryFolder(context);
  const entries = sampleLog(group, 100);
  writeFile(join(folder, 'right.db'), group, entries, ledgerFold);
  const wrong = copyFile(join(folder, 'right.db'), join(folder, 'wrong.db'));
  const rowOf = (path: string): RowState => {
    const reader = SnapshotReader.open(path);
    const row = reader.row(cardOf(path), key);
    reader.close();
    assert.ok(row);
    return row;
  };
  const right = rowOf(join(folder, 'right.db'));
  return { right, wrong, undo: join(folder, 'repairs', 'undo.jsonl'), rowOf };
}

function repair(
  path: string,
  changes: readonly RowChange[],
  undoFile: string | undefined,
  at?: number,
): readonly string[] {
  const file = GroupFile.open(path, group, 'test', ledgerFold);
  try {
    return file.repair({ at, changes, undoFile }, [cardOf(path)]);
  } finally {
    file.close();
  }
}

test('a row is changed while it is as it was found, and put back by its undo file, also from one that a crash has torn', (context) => {
  const { right, wrong, undo, rowOf } = copies(context);
  editByHand(wrong, "UPDATE card SET held_minor = 5 WHERE card_id = 'a.1.1.7'");
  const found = rowOf(wrong).digest;
  const put: RowChange = { kind: 'put', table: 'card', key, found, right: right.digest, values: right.values };
  assert.deepEqual(repair(wrong, [put], undo), ['changed']);
  assert.deepEqual(rowOf(wrong), right);
  assert.deepEqual(repair(wrong, [put], undo), ['already'], 'made again');
  appendFileSync(undo, '{"table":"card","key":["t');
  assert.equal(readUndo(undo).length, 1);
  assert.deepEqual(repair(wrong, readUndo(undo), undefined), ['changed']);
  assert.equal(rowOf(wrong).digest, found);
  assert.deepEqual(repair(wrong, readUndo(undo), undefined), ['already']);
  assert.deepEqual(repair(wrong, [put], undo), ['changed']);
  assert.ok(!readFileSync(undo, 'utf8').includes('"key":["t{'), 'the torn line is gone');
  assert.equal(readUndo(undo).length, 1);
});

test('a row that was written since it was found is left alone', (context) => {
  const { right, wrong, undo, rowOf } = copies(context);
  editByHand(wrong, "UPDATE card SET held_minor = 5 WHERE card_id = 'a.1.1.7'");
  const found = rowOf(wrong).digest;
  editByHand(wrong, "UPDATE card SET held_minor = 6 WHERE card_id = 'a.1.1.7'");
  const put: RowChange = { kind: 'put', table: 'card', key, found, right: right.digest, values: right.values };
  assert.deepEqual(repair(wrong, [put, { kind: 'delete', table: 'card', key, found }], undo), ['newer', 'newer']);
  assert.deepEqual(readByHand(wrong, "SELECT held_minor FROM card WHERE card_id = 'a.1.1.7'"), [6]);
});

test('all of a batch or nothing: a fold that has gone on, or a row that is not what it was said to be, refuses it', (context) => {
  const { right, wrong, undo, rowOf } = copies(context);
  const found = rowOf(wrong).digest;
  const remove: RowChange = { kind: 'delete', table: 'card', key, found };
  assert.throws(() => repair(wrong, [remove], undo, 7), { code: 'REPAIR_REFUSED' });
  const other: EncodedKey = ['ta.1.1.8'];
  const garbage: RowChange = { kind: 'put', table: 'card', key: other, found: null, right: 'x', values: right.values };
  assert.throws(() => repair(wrong, [remove, { ...garbage, found: null }, { ...garbage, key: ['tnew'] }], undo));
  assert.equal(rowOf(wrong).digest, found);
  assert.deepEqual(readUndo(undo), []);
});
