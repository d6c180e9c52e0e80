import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { voters } from '../base/topology.ts';
import { textOf } from '../cli/acquirer/message-parts.ts';
import { temporaryFolder } from '../cli/cluster/testing.ts';
import { ask, Cleanups, connectTo, firstCards, purchase, quadrantCommand, startTestCluster } from './harness.ts';
import type { TestCluster } from './harness.ts';
import { answersBeforeSync, parseTrace } from './sync-trace.ts';
import type { Call, ExpectedAnswer } from './sync-trace.ts';

const cleanups = new Cleanups();

after(() => cleanups.run());

/** Every process of the cluster under strace; ends when the supervisor lets go of it, as a node does. */
const tracer = `
import { spawn } from 'node:child_process';
const [, , folder, command, ...args] = process.argv;
const options = ['-f', '-ttt', '-T', '-yy', '-s', '65536', '-o', folder + '/' + args[2] + '.trace'];
const calls = ['-e', 'trace=pwrite64,write,writev,sendto,sendmsg,fdatasync,fsync'];
// Slow syncs: an answer that does not wait for one is early by so much that no trace can hide it.
const slow = ['-e', 'inject=fdatasync,fsync:delay_enter=5000'];
const child = spawn('strace', [...options, ...calls, ...slow, process.execPath, command, ...args], {
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
});
const end = () => { if (child.connected) child.disconnect(); };
child.on('message', (message) => process.send(message));
child.on('exit', (code) => process.exit(code ?? 1));
process.on('disconnect', end);
process.on('SIGTERM', end);
`;

/** Answers that are wanted of groups whose owner was the same before and after, and rounds made for them at most. */
const wantedAnswers = 256;
const mostRounds = 16;

/** Who leads which group in which term. */
async function ownersOf(
  cluster: TestCluster,
): Promise<ReadonlyMap<string, { readonly id: string; readonly term: number }>> {
  const statuses = await Promise.all(cluster.topology.nodes.map(({ id }) => cluster.bus.status(id)));
  return new Map(
    statuses.flatMap((status) =>
      (status?.groups ?? [])
        .filter(({ role }) => role === 'leader')
        .map(({ name, term }) => [name, { id: status?.id ?? '', term }] as const),
    ),
  );
}

/**
 * The same requests at every node for a card of every range; each approved. Slow disks may move ownership: what was
 * decided while it moved has no owner that the traces could be held against.
 */
async function traffic(cluster: TestCluster): Promise<readonly ExpectedAnswer[]> {
  const cards = await firstCards();
  const majority = Math.floor(voters(cluster.topology).length / 2) + 1;
  const answers: ExpectedAnswer[] = [];
  for (let round = 0; round < mostRounds && answers.length < wantedAnswers; round++) {
    const before = await ownersOf(cluster);
    const asked = await Promise.all(
      cluster.topology.nodes.map(async ({ id, acquirer }) => {
        const connection = await connectTo(cluster, id);
        const ofNode = await Promise.all(
          cards.map(async ({ range, ...card }) => {
            const answer = await ask(connection, purchase(card));
            assert.equal(textOf(answer, 39), '00', range.prefix);
            const group: string = range.group_id;
            const copies = range.durability === 'quorum' ? majority : 1;
            return { rrn: textOf(answer, 37), group, owner: before.get(group)?.id ?? '', copies, port: acquirer.port };
          }),
        );
        await connection.close();
        return ofNode;
      }),
    );
    const after = await ownersOf(cluster);
    const stayed = (group: string): boolean => {
      const [one, other] = [before.get(group), after.get(group)];
      return one !== undefined && one.id === other?.id && one.term === other.term;
    };
    answers.push(...asked.flat().filter(({ group }) => stayed(group)));
  }
  return answers;
}

test('no answer leaves before the fsync or fdatasync that covers its entry: at the owner, and at a majority with quorum', async (context) => {
  const strace = spawnSync('strace', ['--version'], { encoding: 'utf8' });
  assert.equal(strace.error, undefined, 'this test needs strace: .ci/run installs it');
  const folder = join(temporaryFolder(cleanups), 'traces');
  mkdirSync(folder);
  const program = join(folder, 'tracer.mjs');
  writeFileSync(program, tracer);
  const cluster = await startTestCluster(cleanups, { program: [program, folder, quadrantCommand] });
  const answers = await traffic(cluster);
  await cluster.bus.close();
  await cluster.running.stop();

  const traces = new Map<string, readonly Call[]>(
    voters(cluster.topology).map((id) => [id, parseTrace(readFileSync(join(folder, `${id}.trace`), 'latin1'))]),
  );
  const local = answers.filter(({ copies }) => copies === 1).length;
  const calls = [...traces.values()].flat();
  const syncs = calls.filter(({ name }) => name.includes('sync')).length;
  context.diagnostic(
    `${answers.length} answers, ${local} of them local; ${calls.length} calls, ${syncs} of them syncs`,
  );
  assert.ok(local >= 50 && answers.length - local >= 150 && syncs > 0);
  assert.deepEqual(answersBeforeSync(traces, answers), []);

  // The same traces without their syncs, and without those of a majority, prove that the check can fail.
  const withoutSyncs = (ids: readonly string[]): ReadonlyMap<string, readonly Call[]> =>
    new Map(
      [...traces].map(([id, all]) => [id, ids.includes(id) ? all.filter(({ name }) => !name.includes('sync')) : all]),
    );
  assert.equal(answersBeforeSync(withoutSyncs(voters(cluster.topology)), answers).length, answers.length);
  const followers = answersBeforeSync(withoutSyncs(['n3', 'n4', 'w1']), answers);
  assert.ok(followers.length >= answers.length - local, String(followers.length));
});

// ---- the check itself ------------------------------------------------------------------------------------------------

const wal = '21</data/n1/group-a.db-wal>';
const socket = '30<TCP:[127.0.0.1:8581->127.0.0.1:40000]>';
const rrn = '2RXEM85P0000';
const page = String.raw`"\0\5{\"request\":{\"rrn\":\"${rrn}\"}}"...`;
const write = `7 100.000100 pwrite64(${wal}, ${page}, 2048, 56) = 2048 <0.000010>`;
const sync = `7 100.000200 fdatasync(${wal}) = 0 <0.000300>`;
const answer = `6 100.000900 write(${socket}, "\\0\\2220110${rrn}00", 146) = 146 <0.000050>`;
const expected: ExpectedAnswer = { rrn, group: 'a', owner: 'n1', copies: 1, port: 8581 };

function findings(lines: readonly string[], copies = 1, others: Readonly<Record<string, readonly string[]>> = {}) {
  const texts = Object.entries({ n1: lines, ...others });
  const traces = new Map(texts.map(([id, text]) => [id, parseTrace(text.join('\n'))]));
  return answersBeforeSync(traces, [{ ...expected, copies }]);
}

test('the check accepts an answer after the sync of its entry, also when strace tells the calls in parts', () => {
  assert.deepEqual(findings([write, sync, answer]), []);
  const inParts = [
    `7 100.000100 pwrite64(${wal}, ${page}, 2048, 56 <unfinished ...>`,
    `6 100.000105 write(29<anon_inode:[eventfd]>, "\\1", 8) = 8 <0.000004>`,
    '7 100.000110 <... pwrite64 resumed>) = 2048 <0.000010>',
    `7 100.000200 fdatasync(${wal} <unfinished ...>`,
    '7 100.000500 <... fdatasync resumed>)  = 0 (DELAYED) <0.000300>',
    answer,
  ];
  assert.deepEqual(findings(inParts), []);
});

test('the check finds an answer before its sync, in whatever way it is before', () => {
  const early = (lines: readonly string[]): void => {
    assert.match(findings(lines).join(), /^2RXEM85P0000: answered when it was on no disk/);
  };
  const endless = `7 100.000200 fdatasync(${wal} <unfinished ...>`;
  early([write, answer]);
  early([write, endless, answer]);
  early([write, endless, answer, '7 100.000950 <... fdatasync resumed>) = 0 <0.000750>']);
  early([write, sync.replace('<0.000300>', '<0.000800>'), answer]);
  early([write, sync.replace('100.000200', '100.001200'), answer]);
  // A sync that began before the write had ended, of another file or descriptor, or that failed.
  early([write, sync.replace('100.000200', '100.000105'), answer]);
  early([write, sync.replace('group-a', 'group-b'), answer]);
  early([write, sync.replace('21<', '22<'), answer]);
  early([write, sync.replace('= 0', '= -1 EIO (Input/output error)'), answer]);
  // An entry that was never written, or to something else than the log; the fold's row has no JSON around its RRN.
  early([sync, answer]);
  early([write.replace('-wal', ''), sync.replace('-wal', ''), answer]);
  early([write.replaceAll('\\"', ''), sync, answer]);
});

test('the check wants a majority where the range is quorum, and the owner among those who have the entry', () => {
  const at = (id: string): readonly string[] => [write, sync].map((line) => line.replace('/n1/', `/${id}/`));
  assert.deepEqual(findings([write, sync, answer], 3, { n2: at('n2'), w1: at('w1') }), []);
  assert.match(findings([write, sync, answer], 3, { n2: at('n2') }).join(), /on the disk of n1, n2 only; it needs 3/);
  assert.match(findings([answer], 1, { n2: at('n2') }).join(), /on the disk of n2 only; it needs 1, that of n1/);
});

test('the check does not pass what the traces do not show', () => {
  assert.match(findings([write, sync]).join(), /no trace has its answer/);
  assert.match(findings([write, sync, answer.replace(':8581', ':7421')]).join(), /no trace has its answer/);
});
