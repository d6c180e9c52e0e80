import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { parse } from 'yaml';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(`${root}/${file}`, 'utf8');

const operations = read('docs/OPERATIONS.md');
const alerts = parse(read('docs/alerts.yaml')) as {
  readonly groups: readonly { readonly rules: readonly { readonly alert: string; readonly expr: string }[] }[];
};
const rules = alerts.groups.flatMap((group) => group.rules);

function wordsIn(text: string, pattern: RegExp): Set<string> {
  return new Set([...text.matchAll(pattern)].map(([, word = '']) => word));
}

test('every metric that alerts and the operations manual name is one that processes tell', () => {
  const sources = ['cli/node/metrics.ts', 'cli/commands/nightly.ts'].map(read).join('\n');
  const told = wordsIn(sources, /'((?:quadrant|process)_[a-z_]+)'/g);
  const named = wordsIn([operations, ...rules.map(({ expr }) => expr)].join('\n'), /\b((?:quadrant|process)_[a-z_]+)/g);
  for (const name of named) {
    const family = name.replace(/_(?:bucket|count)$/, '');
    assert.ok(told.has(family), `${name} is not a metric`);
  }
});

test('every sample alert is in the operations manual, and the other way round', () => {
  const described = wordsIn(operations, /`(Quadrant[A-Za-z0-9]+)`/g);
  assert.deepEqual([...described].sort(), rules.map(({ alert }) => alert).sort());
});

test('every event that a log line can have is in the operations manual, and the other way round', () => {
  const files = globSync(['{base,replication,switch,store}/**/*.ts', 'cli/node/*.ts', 'cli/commands/node.ts'], {
    cwd: root,
  });
  const sources = files.filter((file) => !/(?:\.test|testing)\.ts$/.test(file)).map(read);
  const patterns = [
    /event: '([a-z-]+)'/g,
    /event = '([a-z-]+)'/g,
    /remarks\.say\(\s*'(?:info|warn)',\s*'([a-z-]+)'/g,
    /\['([a-z-]+)', '[^']* [^']*'\]/g,
  ];
  const said = new Set(sources.flatMap((text) => patterns.flatMap((pattern) => [...wordsIn(text, pattern)])));
  // `snapshot-` and the outcome's kind (replication/driver.ts); what a crash wrote, as `tail` shows it.
  for (const kind of ['begun', 'installed', 'given-up']) said.add(`snapshot-${kind}`);
  said.delete('output');
  const [, table = ''] = /\| `event` \| When \|\n\|---\|---\|\n((?:\|.*\n)+)/.exec(operations) ?? [];
  const described = new Set(table.split('\n').flatMap((row) => [...wordsIn(row.split('|')[1] ?? '', /`([a-z-]+)`/g)]));
  assert.deepEqual([...said].sort(), [...described].sort());
});
