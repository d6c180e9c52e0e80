import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { configGroup, groupId, nodeId } from '../base/identifiers.ts';
import { configurationFold } from '../config-db/configuration-fold.ts';
import { ledgerFold } from '../store/ledger-fold.ts';
import { readByHand, temporaryFolder, writeFile } from '../store/testing.ts';
import { formatOf, tablesOf } from './tables.ts';

const folds = [
  [groupId('a'), ledgerFold],
  [configGroup, configurationFold(nodeId('n1'), { nodes: [{ id: nodeId('n1'), site: 'east' }] })],
] as const;

for (const [group, fold] of folds) {
  test(`every table and column of a file of group ${group} is compared or derived, and none twice`, (context) => {
    const path = join(temporaryFolder(context), 'file.db');
    writeFile(path, group, [], fold);
    // `membership` has copies of the log's own entries; what watches for edits by the shell is the node's own.
    const names = readByHand(
      path,
      "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('meta', 'membership', 'sqlite_sequence') AND name NOT LIKE 'shell\\_%' ESCAPE '\\'",
    );
    const tables = tablesOf(group);
    assert.deepEqual(tables.map(({ name }) => name).sort(), names.sort());
    for (const { name, columns, derivedColumns, keyColumns } of tables) {
      const inFile = readByHand(path, `SELECT name FROM pragma_table_info('${name}')`);
      assert.deepEqual([...columns, ...derivedColumns].sort(), inFile.sort(), name);
      const keys = readByHand(path, `SELECT name FROM pragma_table_info('${name}') WHERE pk > 0 ORDER BY pk`);
      assert.deepEqual(keyColumns, keys, name);
    }
  });
}

test('the format names the columns: sides that compare others are told apart', () => {
  const tables = tablesOf(groupId('a'));
  assert.equal(formatOf(tables), formatOf(tablesOf(groupId('b'))));
  assert.notEqual(formatOf(tables), formatOf(tablesOf(configGroup)));
  assert.notEqual(formatOf(tables), formatOf(tables.slice(1)));
});
