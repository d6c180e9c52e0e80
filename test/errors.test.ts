import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { errorCatalogue, SwitchError } from '../base/errors.ts';
import type { ErrorCode } from '../base/errors.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const codes = Object.keys(errorCatalogue) as ErrorCode[];

interface Row {
  readonly code: string;
  readonly meaning: string;
  readonly retryable: string;
  readonly advice: string;
}

/** Rows of the table in docs/ERRORS.md: | `CODE` | meaning | yes or no | what to do |. */
const documented: readonly Row[] = readFileSync(`${root}docs/ERRORS.md`, 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) => {
    const [code = '', meaning = '', retryable = '', advice = ''] = line
      .split('|')
      .slice(1)
      .map((cell) => cell.trim());
    return { code: code.replaceAll('`', ''), meaning, retryable, advice };
  });

const sources = globSync('{base,store,config-db,switch,replication,compare,cli,scripts,test}/**/*.ts', {
  cwd: root,
}).map((file) => ({ file, text: readFileSync(root + file, 'utf8') }));
const isTest = (file: string): boolean => file.endsWith('.test.ts') && file !== 'test/errors.test.ts';

test('docs/ERRORS.md and the catalogue have the same codes, each once, in alphabetical order', () => {
  assert.deepEqual(
    documented.map((row) => row.code),
    [...codes].sort(),
  );
});

test('docs/ERRORS.md says of each code what it means, what to do, and whether it passes by itself', () => {
  for (const { code, meaning, retryable, advice } of documented) {
    assert.ok(meaning.length > 15 && advice.length > 15, code);
    const isRetryable = errorCatalogue[code as ErrorCode].retryable;
    assert.equal(retryable, isRetryable ? 'yes' : 'no', code);
  }
});

test('every code is used somewhere outside the catalogue, and some test names it', () => {
  for (const code of codes) {
    const thrown = sources.some(
      ({ file, text }) => file !== 'base/errors.ts' && !file.endsWith('.test.ts') && text.includes(`'${code}'`),
    );
    assert.ok(thrown, `${code} is thrown nowhere`);
    assert.ok(
      sources.some(({ file, text }) => isTest(file) && text.includes(`'${code}'`)),
      `no test names ${code}`,
    );
  }
});

test("an error has the catalogue's hint and no card number in its message", () => {
  const error = new SwitchError('PORT_TAKEN', 'the card 4000001234567899', { cause: new Error('inner') });
  assert.equal(error.message, 'the card 400000******7899');
  assert.deepEqual([error.code, error.retryable, error.hint], ['PORT_TAKEN', true, errorCatalogue.PORT_TAKEN.hint]);
  assert.equal(new SwitchError('PORT_TAKEN', 'x', { hint: 'another' }).hint, 'another');
});
