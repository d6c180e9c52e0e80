import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { seededRandom } from '../base/random.ts';
import type { CompareResult } from '../compare/report.ts';
import { editByHand, readByHand } from '../store/testing.ts';
import { Cleanups, judge, load, quadrant, startTestCluster, untilReady, type TestCluster } from './harness.ts';
import { provePlants, ProvingGround } from './planted/proof.ts';

/** A cluster whose files somebody has edited, mended by its own commands. */

const cleanups = new Cleanups();
let cluster: TestCluster;

before(async () => {
  cluster = await startTestCluster(cleanups);
  await untilReady(cluster);
  await load(cluster, { count: 400, journalFile: join(cluster.folder, 'before.jsonl') });
});
after(() => cleanups.run());

const fileOf = (node: string, group: string): string =>
  join(cluster.dataFolder, node, group === 'config' ? 'config.db' : `group-${group}.db`);

/** Every kind of damage, at the owner of the group, at another node and at the witness. */
function plant(): void {
  const [first, second, third] = readByHand(
    fileOf('n3', 'a'),
    'SELECT log_index FROM card_transaction LIMIT 3',
  ) as number[];
  editByHand(fileOf('n1', 'a'), 'UPDATE card SET held_minor = held_minor + 1000, usage_count = usage_count + 7');
  editByHand(fileOf('n3', 'a'), 'UPDATE card_transaction SET amount_minor = 1 WHERE log_index = ?', first);
  editByHand(fileOf('n3', 'a'), 'DELETE FROM card_transaction WHERE log_index = ?', second);
  editByHand(
    fileOf('n2', 'a'),
    `INSERT INTO card_transaction SELECT * FROM (SELECT 999999999, request_key || 'x', mti_class, link, card_id, acquirer, terminal, merchant, stan, transmission, rrn, processing_code, amount_minor, currency, business_date, response_code, authorization_code, additional_amounts, decided_at_ms, state, billed_minor, held_minor, posted_minor, hold_expires_at_ms, original_index, restores_minor, config_index, attempt FROM card_transaction WHERE log_index = ?)`,
    third,
  );
  editByHand(fileOf('w1', 'a'), "UPDATE log SET body = '{}' WHERE log_index = ?", first);
  editByHand(fileOf('n4', 'a'), "UPDATE log SET hash = 'no' WHERE log_index = ?", third);
  editByHand(fileOf('n2', 'b'), 'DELETE FROM log WHERE log_index = 2');
}

const command = (args: readonly string[]): ReturnType<typeof quadrant> => quadrant(cluster, args);

async function compare(expected: number): Promise<CompareResult> {
  const { code, stdout, stderr } = await command(['compare', '--json']);
  assert.equal(code, expected, `${stdout.slice(0, 3_000)}\n${stderr}`);
  return JSON.parse(stdout) as CompareResult;
}

const rowsThatDiffer = ({ groups }: CompareResult): string[] =>
  groups
    .flatMap(({ tables }) => tables.flatMap(({ differences }) => differences))
    .filter(({ kind }) => kind !== 'broken-chain')
    .map(({ node, group, table, key, kind }) => `${node} ${group} ${table} ${JSON.stringify(key)} ${kind}`)
    .sort();

let report: CompareResult;

test('what was planted is found, shown by a dry run that changes nothing, repaired, and then nothing differs', async () => {
  plant();
  report = await compare(3);
  const found = rowsThatDiffer(report);
  for (const node of ['n1', 'n2', 'n3', 'n4', 'w1'])
    assert.ok(
      found.some((each) => each.startsWith(node)),
      node,
    );
  const dry = await command(['repair', report.compare, '--dry-run']);
  assert.equal(dry.code, 3, dry.stderr);
  assert.match(dry.stdout, /n3 {2}group a {2}card_transaction {2}log_index=\d+ {2}is written as it is at/);
  assert.match(dry.stdout, /amount_minor: 1 -> \d/);
  assert.deepEqual(rowsThatDiffer(await compare(3)), found);
  const repaired = await command(['repair', report.compare, '--yes', '--json']);
  assert.equal(repaired.code, 0, repaired.stdout.slice(0, 4_000) + repaired.stderr);
  const counts = JSON.parse(repaired.stdout) as { repair: string; changed: number; newer: number; failed: number };
  assert.equal(counts.changed, found.length);
  await compare(0);
});

test('the owner decides by the repaired rows at once: more load, and balances and copies are right', async () => {
  await load(cluster, { count: 300, journalFile: join(cluster.folder, 'after.jsonl') });
  const { compared } = await judge(cluster.bus, []);
  assert.deepEqual(rowsThatDiffer(compared), []);
});

test('a repair made again changes nothing; undone, it leaves what there was before but for rows that were written since', async () => {
  const again = await command(['repair', report.compare, '--yes', '--json']);
  assert.equal((JSON.parse(again.stdout) as { changed: number }).changed, 0);
  const { repair } = JSON.parse(again.stdout) as { repair: string };
  const undone = await command(['repair', 'undo', repair, '--yes']);
  assert.ok([0, 3].includes(undone.code ?? -1), undone.stderr);
  const now = rowsThatDiffer(await compare(3));
  const before = rowsThatDiffer(report).filter((each) => !each.includes(' card '));
  assert.deepEqual(
    before.filter((each) => !now.includes(each)),
    [],
  );
  const redone = await command(['repair', report.compare, '--yes']);
  assert.ok([0, 3].includes(redone.code ?? -1), redone.stdout + redone.stderr);
  const rest = await command(['compare', '--json']);
  if (rest.code === 3) {
    const left = JSON.parse(rest.stdout) as CompareResult;
    assert.equal((await command(['repair', left.compare, '--yes'])).code, 0);
  }
  await compare(0);
});

test('--source takes the word of one copy, and the others are overwritten', async () => {
  const [card] = readByHand(fileOf('n3', 'b'), 'SELECT card_id FROM card LIMIT 1') as string[];
  const select = `SELECT limit_minor FROM card WHERE card_id = '${card ?? ''}'`;
  const values = (): unknown[] => ['n1', 'n2', 'n3', 'n4'].map((node) => readByHand(fileOf(node, 'b'), select)[0]);
  const [right] = values();
  editByHand(fileOf('n3', 'b'), 'UPDATE card SET limit_minor = 4321 WHERE card_id = ?', card);
  const { compare: id } = await compare(3);
  const reversed = await command(['repair', id, '--source', 'n3', '--yes']);
  assert.equal(reversed.code, 0, reversed.stderr);
  assert.deepEqual(values(), [4321, 4321, 4321, 4321]);
  assert.equal((await command(['repair', 'undo', /undo (r\w+)/.exec(reversed.stdout)?.[1] ?? '', '--yes'])).code, 0);
  assert.deepEqual(values(), [right, right, 4321, right]);
  const back = await compare(3);
  assert.equal((await command(['repair', back.compare, '--yes'])).code, 0);
  await compare(0);
});

test('what is planted at random while requests go on is named and mended, a fold that all copies have wrong as well', async () => {
  const random = seededRandom(20);
  const ground = await ProvingGround.open(cluster, random, { rate: 60, past: 0 });
  try {
    const { planted, namedAtOnce, namedLater, unnamed } = await provePlants(ground, [1]);
    assert.deepEqual([planted, namedAtOnce + namedLater, unnamed], [6, 6, []]);
  } finally {
    await ground.close();
  }
});

test('a night ends with evidence and metrics; roots are made again from any copy, and a difference is left where nobody said to repair', async () => {
  const night = await command(['nightly', '--json']);
  assert.equal(night.code, 0, night.stdout + night.stderr);
  const { compares } = JSON.parse(night.stdout) as { compares: string[] };
  const metrics = (): string => readFileSync(join(cluster.dataFolder, 'nightly', 'nightly.prom'), 'utf8');
  const success = /^quadrant_nightly_last_success_timestamp_seconds ([0-9]{10})$/m;
  const [, at] = success.exec(metrics()) ?? [];
  assert.ok(at !== undefined, metrics());
  for (const [node, group] of [
    ['n2', 'a'],
    ['n4', 'config'],
  ] as const) {
    const same = await command(['audit', 'root', compares[0] ?? '', fileOf(node, group)]);
    assert.equal(same.code, 0, same.stdout + same.stderr);
    assert.match(same.stdout, /^SO: .* of all \d+ tables/);
  }
  editByHand(fileOf('n4', 'b'), 'UPDATE log SET term = term + 1 WHERE log_index = 9');
  assert.equal((await command(['audit', 'root', compares[0] ?? '', fileOf('n4', 'b')])).code, 3);
  const bad = await command(['nightly', '--json']);
  assert.equal(bad.code, 3, bad.stdout + bad.stderr);
  assert.match(metrics(), new RegExp(`^quadrant_nightly_last_success_timestamp_seconds ${at}$`, 'm'));
  assert.match(metrics(), /^quadrant_nightly_last_exit_code 3$/m);
  const [found = ''] = (JSON.parse(bad.stdout) as { compares: string[] }).compares;
  assert.equal((await command(['repair', found, '--yes'])).code, 0);
});

test('a report that was edited is refused, and so is an unknown one', async () => {
  const path = join(cluster.dataFolder, 'reports', report.compare, 'report.json');
  const text = readFileSync(path, 'utf8');
  writeFileSync(path, text.replace('"n3"', '"n2"'));
  const refused = await command(['repair', report.compare, '--yes']);
  writeFileSync(path, text);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /not as it was signed/);
  assert.match((await command(['repair', 'c0', '--yes'])).stderr, /there is no report c0/);
});

test('the chain of evidence is sound, and a record that is edited, gone or cut off is named', async () => {
  const folder = join(cluster.dataFolder, 'evidence');
  const names = readdirSync(folder).sort();
  const audit = (): ReturnType<typeof command> => command(['audit', 'verify']);
  const sound = await audit();
  assert.equal(sound.code, 0, sound.stdout + sound.stderr);
  assert.match(sound.stdout, new RegExp(`SOUND: ${names.length} records`));
  assert.match(sound.stdout, /sample key/);
  const [, second = '', third = ''] = names;
  const broken = async (path: string, expected: RegExp, text?: (before: string) => string): Promise<void> => {
    const kept = readFileSync(path, 'utf8');
    if (text === undefined) rmSync(path);
    else writeFileSync(path, text(kept));
    const { code, stdout } = await audit();
    writeFileSync(path, kept);
    assert.equal(code, 1);
    assert.match(stdout, expected);
  };
  await broken(join(folder, second), /BROKEN at 000002\.json: it was edited/, (line) =>
    line.replace('verdict', 'verdicts').replace('repair', 'Repair'),
  );
  await broken(join(folder, third), /BROKEN at 000003\.json: it is missing/);
  await broken(join(folder, names.at(-1) ?? ''), /it is missing: the chain was cut off, by the log of config/);
  await broken(
    join(cluster.dataFolder, 'reports', report.compare, 'findings.jsonl'),
    /findings\.jsonl was edited/,
    (lines) => lines.replace('n', 'm'),
  );
});
