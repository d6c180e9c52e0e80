import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import type { LoadSummary } from '../cli/acquirer/load-summary.ts';
import { repeatOf, textOf } from '../cli/acquirer/message-parts.ts';
import type { ClusterStatus } from '../cli/commands/status.ts';
import type { NodeVerification } from '../cli/commands/verify.ts';
import type { Explanation } from '../config-db/explain.ts';
import type { IsoMessage } from '../switch/iso8583/codec.ts';
import {
  askAt,
  Cleanups,
  firstCards,
  makePlace,
  processesNaming,
  purchase,
  quadrant,
  quadrantCommand,
  runProgram,
  until,
} from './harness.ts';
import type { CommandResult, Place } from './harness.ts';

// One cluster, started as `npm start` does it and driven as people drive it; the tests build on each other in order.

const root = fileURLToPath(new URL('..', import.meta.url));
/** package.json: `npm start` is `exec node scripts/bootstrap.mjs start`. */
const bootstrap = join(root, 'scripts', 'bootstrap.mjs');
const requests = process.env['QUADRANT_FULL'] === '1' ? 10_000 : 2_000;

const cleanups = new Cleanups();
let place: Place;
let started: Started;
/** Approved before the first stop; what a later start knows of it tells whether it continued. */
let remembered: { readonly request: IsoMessage; readonly answer: IsoMessage };

interface Started {
  readonly process: ChildProcess;
  readonly output: () => string;
}

/** `npm start -- --config F --data D ...`, up to `Ready`. */
async function npmStart(...flags: readonly string[]): Promise<Started> {
  const args = [bootstrap, 'start', '--config', place.configFile, '--data', place.dataFolder, ...flags];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  cleanups.after(() => child.kill('SIGTERM'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  await until(
    'npm start prints Ready',
    () => {
      assert.equal(child.exitCode, null, output);
      return output.includes('\nReady. Ctrl-C stops the cluster; the data stays.\n') || undefined;
    },
    90_000,
  );
  return { process: child, output: () => output };
}

/** `npm start` that is expected to end by itself. */
async function failedStart(...flags: readonly string[]): Promise<CommandResult> {
  return runProgram(process.execPath, [bootstrap, 'start', ...flags], root);
}

async function interrupt(one: Started): Promise<number | null> {
  const ended = once(one.process, 'exit') as Promise<[number | null]>;
  one.process.kill('SIGINT');
  return (await ended)[0];
}

before(async () => {
  place = await makePlace(cleanups);
  started = await npmStart();
});

after(() => cleanups.run());

test('the first start says what it made and shows every node, its site, its address and what it owns', () => {
  const output = started.output();
  assert.match(output, /SAMPLE KEYS were generated in \S+ for n1, n2, n3, n4, w1, operator, auditor: .* not for real/);
  assert.match(output, /\n512 sample cards are on file\.\n/);
  assert.match(output, /\nnode +site +ISO 8583 +owns\n/);
  place.topology.nodes.forEach(({ id, site, acquirer }, index) => {
    const group = ['a', 'b', 'c', 'd'][index] ?? '';
    const row = `\n${id} +${site} +${acquirer.host}:${acquirer.port} +group ${group}\n`;
    assert.match(output, new RegExp(row));
  });
});

test('status --json has what scripts need of every node, the witness and the brokers', async () => {
  const { code, stdout } = await quadrant(place, ['status', '--json']);
  assert.equal(code, 0);
  const status = JSON.parse(stdout) as ClusterStatus;
  assert.deepEqual(
    status.nodes.map(({ id, site, state, acquirer }) => ({ id, site, state, acquirer })),
    place.topology.nodes.map(({ id, site, acquirer }) => ({ id, site, state: 'ready', acquirer })),
  );
  const led = new Map(status.nodes.flatMap(({ id, groups }) => groups.map((group) => [group.name, { id, ...group }])));
  assert.deepEqual([...led.keys()].sort(), ['a', 'b', 'c', 'config', 'd']);
  assert.deepEqual(['config', 'a', 'b', 'c', 'd'].map((name) => led.get(name)?.id).join(), 'n1,n1,n2,n3,n4');
  for (const { term } of led.values()) assert.ok(Number.isInteger(term) && term >= 1);
  const pids = processesNaming(place.dataFolder);
  for (const { pid, applied, lag } of status.nodes) {
    assert.ok(pid !== undefined && pids.includes(pid));
    assert.deepEqual(Object.keys(applied).sort(), ['a', 'b', 'c', 'config', 'd']);
    assert.deepEqual(Object.keys(lag).sort(), ['a', 'b', 'c', 'config', 'd']);
    for (const index of Object.values(applied)) assert.ok(Number.isInteger(index) && index >= 1);
  }
  const { witness } = status;
  assert.deepEqual([witness?.id, witness?.site, witness?.state], ['w1', 'north', 'ready']);
  assert.ok(witness?.pid !== undefined && pids.includes(witness.pid));
  assert.deepEqual(
    status.brokers.map(({ id, site, address, state }) => [id, site, address, state]),
    place.topology.brokers.map(({ id, site, client }) => [id, site, `${client.host}:${client.port}`, 'ready']),
  );
  assert.deepEqual(status.problems, []);
});

test('config explain --json names range, group, order, owner, term and the derived row, which each node has its own of', async () => {
  const explanations = await Promise.all(
    place.topology.nodes.map(async ({ id }) => {
      const result = await quadrant(place, ['config', 'explain', '--json', '--node', id], '9900020000000018\n');
      assert.equal(result.code, 0, result.stderr);
      assert.ok(!result.stdout.includes('9900020000000018'));
      return JSON.parse(result.stdout) as Explanation;
    }),
  );
  explanations.forEach((explanation, index) => {
    assert.equal(explanation.range.prefix, '990002');
    assert.deepEqual([explanation.group, explanation.owner], ['b', 'n2']);
    assert.deepEqual(explanation.order, ['n2', 'n1', 'n4', 'n3']);
    assert.ok(Number.isInteger(explanation.term) && Number(explanation.term) >= 1);
    const { rank, action } = explanation.derived;
    assert.deepEqual({ rank, action }, { rank: [2, 1, 4, 3][index], action: index === 1 ? 'own' : 'standby' });
    assert.equal(typeof explanation.rules['rank'], 'string');
  });
});

test(`${requests} mixed requests at all ports from 50 connections are each answered once, and all copies and balances are right`, async () => {
  const journal = join(place.folder, 'mixed.journal.jsonl');
  const pace = ['--max', '--in-flight', '400', '--connections', '50', '--count', String(requests)];
  const loaded = await quadrant(place, ['load', ...pace, '--seed', '8583', '--journal', journal, '--json']);
  assert.equal(loaded.code, 0, loaded.stdout + loaded.stderr);
  const summary = JSON.parse(loaded.stdout) as LoadSummary;
  assert.ok(summary.clean);
  assert.equal(summary.answers, requests);
  assert.deepEqual(Object.keys(summary.byNode), ['n1', 'n2', 'n3', 'n4']);
  assert.deepEqual(
    Object.keys(summary.byMti)
      .filter((mti) => mti.endsWith('0'))
      .sort(),
    ['0100', '0200', '0220', '0400', '0420', '0800'],
  );
  assert.ok(summary.approved > requests / 2);

  const compared = await quadrant(place, ['compare']);
  assert.equal(compared.code, 0, compared.stdout + compared.stderr);
  const verified = await quadrant(place, ['verify', journal, '--cards', sampleCardFile, '--json']);
  assert.equal(verified.code, 0, verified.stdout + verified.stderr);
  const { nodes } = JSON.parse(verified.stdout) as { readonly nodes: readonly NodeVerification[] };
  assert.deepEqual(
    nodes.map(({ node, uncertain }) => [node, uncertain]),
    place.topology.nodes.map(({ id }) => [id, 0]),
  );
  for (const { approvals } of nodes) assert.ok(approvals > requests / 2);
});

test('a request is answered the same at whichever node it is repeated, for a card of every range', async () => {
  const nodes = place.topology.nodes.map(({ id }) => id);
  const cards = await firstCards();
  assert.equal(new Set(cards.map(({ range }) => range.group_id)).size, 4);
  for (const [index, card] of cards.entries()) {
    const request = purchase(card);
    const order = [...nodes.slice(index % nodes.length), ...nodes.slice(0, index % nodes.length)];
    const answers: IsoMessage[] = [];
    for (const node of order) answers.push(await askAt(place, node, request));
    const [first] = answers;
    assert.ok(first !== undefined);
    assert.equal(first.mti, '0110');
    assert.equal(textOf(first, 39), '00', `range ${card.range.prefix}`);
    assert.match(textOf(first, 38), /^[0-9A-Z]{6}$/);
    for (const answer of answers) assert.deepEqual(answer, first, `range ${card.range.prefix}`);
    const repeated = await askAt(place, order[1] ?? '', { ...request, mti: repeatOf(request.mti) });
    assert.deepEqual(repeated, first);
    remembered = { request, answer: first };
  }
});

test('every command that the start printed works as printed', async () => {
  const printed = [...started.output().matchAll(/^ {2}npx quadrant (.*)$/gm)].map(([, words = '']) => words.split(' '));
  assert.deepEqual(
    printed.map(([name]) => name),
    ['send', 'load', 'compare', 'status'],
  );
  for (const words of printed) {
    // The load as printed takes ten seconds and leaves a journal in the present folder; a later flag wins.
    const short = words[0] === 'load' ? ['--duration', '1s', '--no-journal'] : [];
    const result = await runProgram(process.execPath, [quadrantCommand, ...words, ...short], place.folder);
    assert.equal(result.code, 0, `${words.join(' ')}\n${result.stdout}${result.stderr}`);
    if (words[0] === 'send') assert.match(result.stdout, /39 {2}responseCode +00 approved/);
    if (words[0] === 'compare') assert.match(result.stdout, /^EQUAL: all copies agree\.$/m);
  }
});

test('npx runs the command from the project folder', async () => {
  const flags = ['--config', place.configFile, '--data', place.dataFolder];
  const { code, stdout } = await runProgram('npx', ['--no-install', 'quadrant', 'status', ...flags], root);
  assert.equal(code, 0);
  assert.match(stdout, /Everything answers and has its owner\./);
});

test('a second start in the same data folder, or at the same ports, is refused and harms nothing', async () => {
  const sameFolder = await failedStart('--config', place.configFile, '--data', place.dataFolder);
  assert.equal(sameFolder.code, 1);
  assert.match(sameFolder.stderr, new RegExp(`^${place.dataFolder} is in use by quadrant start, pid [0-9]+\n`));
  const other = join(place.folder, 'other-data');
  const samePorts = await failedStart('--config', place.configFile, '--data', other);
  assert.equal(samePorts.code, 1);
  assert.match(samePorts.stderr, /127\.0\.0\.1:[0-9]+ \(nodes\[0\]\.acquirer\.port\) is taken/);
  assert.deepEqual(processesNaming(other), []);
  const { code } = await quadrant(place, ['status']);
  assert.equal(code, 0);
});

test('Ctrl-C ends everything with exit code 0 and leaves no process behind', async () => {
  assert.ok(processesNaming(place.dataFolder).length >= 8);
  assert.equal(await interrupt(started), 0);
  assert.match(started.output(), /\nStopping \.\.\.\nStopped\.\n$/);
  assert.deepEqual(processesNaming(place.dataFolder), []);
});

test('a port that another program has is named with its key, and nothing is left running', async () => {
  const third = place.topology.nodes[2]?.acquirer;
  assert.ok(third !== undefined);
  const program = createServer().listen(third);
  await once(program, 'listening');
  const { code, stderr } = await failedStart('--config', place.configFile, '--data', place.dataFolder);
  program.close();
  assert.equal(code, 1);
  assert.match(stderr, new RegExp(`^127\\.0\\.0\\.1:${third.port} \\(nodes\\[2\\]\\.acquirer\\.port\\) is taken\n`));
  assert.deepEqual(processesNaming(place.dataFolder), []);
});

test('a nodes.yaml with an unknown key is refused with file, line and path, and nothing is started', async () => {
  const file = join(place.folder, 'misspelt.yaml');
  writeFileSync(file, readFileSync(place.configFile, 'utf8').replace('witness:', 'wittness:'));
  const data = join(place.folder, 'unmade');
  const { code, stderr } = await failedStart('--config', file, '--data', data);
  assert.equal(code, 1);
  assert.match(stderr, /misspelt\.yaml, line [0-9]+: wittness: unknown key; did you mean "witness"\?/);
  assert.ok(!existsSync(data));
});

test('the next start continues with the data: a request from before gets its stored answer, and copies are equal', async () => {
  started = await npmStart();
  assert.doesNotMatch(started.output(), /SAMPLE KEYS|sample cards are on file/);
  assert.deepEqual(await askAt(place, 'n3', remembered.request), remembered.answer);
  const { code, stdout } = await quadrant(place, ['compare']);
  assert.equal(code, 0, stdout);
  assert.equal(await interrupt(started), 0);
});

test('--fresh --yes begins with empty data: nobody knows the request from before', async () => {
  started = await npmStart('--fresh', '--yes');
  assert.match(started.output(), /\n512 sample cards are on file\.\n/);
  const anew = await askAt(place, 'n3', remembered.request);
  assert.equal(textOf(anew, 39), '00');
  assert.notEqual(textOf(anew, 38), textOf(remembered.answer, 38));
  assert.equal(await interrupt(started), 0);
  assert.deepEqual(processesNaming(place.dataFolder), []);
});
