import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { extname } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Files that are, or are about to be, in the repository. */
function projectFiles(): readonly string[] {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
  });
  return listed.split('\n').filter((file) => file !== '' && existsSync(root + file));
}

const binary = new Set(['.png', '.ico', '.db', '.gz', '.zip', '.bin']);
const textFiles = projectFiles().filter((file) => !binary.has(extname(file)));
const read = (file: string): string => readFileSync(root + file, 'utf8');

interface LockedPackage {
  readonly resolved?: string;
  readonly integrity?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const lock = JSON.parse(read('package-lock.json')) as { readonly packages: Readonly<Record<string, LockedPackage>> };

test('no file names a path of the machine it was written on', () => {
  // Shorter folders (/, /app) would be found in any text.
  const places = [root.replace(/\/$/, ''), homedir()].filter((place) => place.split('/').length > 2);
  const general = /\/(?:home|Users)\/[a-z][a-z0-9_-]*\//;
  for (const file of textFiles) {
    const text = read(file);
    for (const place of places) assert.ok(!text.includes(place), `${file} names ${place}`);
    assert.doesNotMatch(text, general, file);
  }
});

test('package-lock.json names no registry, and every package in it has a hash', () => {
  for (const [place, { resolved, integrity }] of Object.entries(lock.packages)) {
    assert.equal(resolved, undefined, `${place}: install with omit-lockfile-registry-resolved=true`);
    if (place !== '') assert.match(integrity ?? '', /^sha512-/, place);
  }
});

test('package-lock.json has the packages of every platform, without which npm 11 refuses "npm ci"', () => {
  const known = new Set(
    Object.keys(lock.packages).map((place) => place.slice(place.lastIndexOf('node_modules/') + 13)),
  );
  for (const [place, { optionalDependencies }] of Object.entries(lock.packages)) {
    for (const name of Object.keys(optionalDependencies ?? {})) {
      assert.ok(known.has(name), `${place} can bring ${name}, which the lock file does not have`);
    }
  }
});

test('a file of more than 500 lines says in its first comment why it is not two', () => {
  for (const file of textFiles.filter((name) => /\.(ts|mjs|js|cjs)$/.test(name))) {
    const text = read(file);
    if (text.split('\n').length <= 500) continue;
    assert.ok(
      /over 500 lines/i.test(text.slice(0, 3_000)),
      `${file} is over 500 lines and gives no reason ("Over 500 lines because ...")`,
    );
  }
});

test('every source file is in a folder that the import rules cover', () => {
  const covered = /^(base|store|config-db|switch|replication|compare|cli|scripts|test)\//;
  for (const file of textFiles.filter((name) => name.endsWith('.ts'))) assert.match(file, covered);
});

test('no test is skipped, focused or left to be written', () => {
  const shy = /(?:test|it|describe|suite|context|t)\.(?:skip|only|todo)\(/;
  for (const file of textFiles.filter((name) => name.endsWith('.test.ts'))) assert.doesNotMatch(read(file), shy, file);
});
