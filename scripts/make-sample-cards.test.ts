import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { loadConfigurationFile } from '../config-db/configuration.ts';
import { RangeTable } from '../config-db/routing.ts';
import { makeSampleCards } from './make-sample-cards.ts';

const read = (name: string): string => readFileSync(new URL(`../config-db/samples/${name}`, import.meta.url), 'utf8');
const configuration = loadConfigurationFile(read('configuration.yaml'), 'configuration.yaml');

test('the sample cards in the repository are the ones that the script makes', () => {
  assert.equal(makeSampleCards(configuration), read('cards.csv'));
});

test('every range but the catch-all has sample cards', () => {
  const ranges = new RangeTable(configuration.pan_range);
  const pans = read('cards.csv')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(',')[0] ?? '');
  const used = new Set(pans.map((pan) => ranges.find(pan).prefix));
  assert.deepEqual(
    used,
    new Set(configuration.pan_range.map(({ prefix }) => prefix).filter((prefix) => prefix !== '')),
  );
});

test('the cards in the README of the samples are in the file, where it says', () => {
  const ranges = new RangeTable(configuration.pan_range);
  const rows = [...read('README.md').matchAll(/^\| (\d{13,19}) \| (\d+) \| (\w): (\S+) \| (.*) \|$/gm)];
  assert.ok(rows.length >= 3);
  for (const [, pan = '', prefix, group, order, text = ''] of rows) {
    assert.match(read('cards.csv'), new RegExp(`^${pan},.*,${text.startsWith('stolen') ? 'stolen' : 'active'},`, 'm'));
    const range = ranges.find(pan);
    assert.deepEqual([range.prefix, range.group_id], [prefix, group]);
    assert.equal(configuration.failover_map.find((row) => row.group_id === range.group_id)?.failover_order, order);
  }
});
