import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { CommandFailure, UsageError } from '../acquirer/usage.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { planRecovery, recover } from './recover.ts';
import type { ClusterAnswers } from './situation.ts';
import { answersOf, copyOf, fakeBus, fakeContext, processOf, topology } from './testing.ts';

const lost = ['n3', 'n4', 'w1'];
const nobody = { a: undefined, b: undefined, config: undefined };
const twoLeft = answersOf({
  away: { n3: 1, n4: 1, w1: 1 },
  owners: nobody,
  copies: {
    // A higher term of its own does not make n1's log the newer one: its last entry is of an earlier term.
    n1: { a: { term: 9, lastTerm: 2, last: 500 }, b: { last: 90 } },
    n2: { a: { term: 4, lastTerm: 4, last: 120 } },
  },
});

test('each group goes on with the newest log: by the term of its last entry, then by its length, then by the order', () => {
  const plan = planRecovery(topology, twoLeft, lost);
  assert.deepEqual(
    plan.groups.map(({ group, at }) => [group, at]),
    [
      ['config', 'n1'],
      ['a', 'n2'],
      ['b', 'n2'],
    ],
  );
  assert.deepEqual(plan.groups[1]?.logs, [
    { node: 'n2', lastTerm: 4, last: 120 },
    { node: 'n1', lastTerm: 2, last: 500 },
  ]);
  assert.deepEqual([plan.survivors, plan.untouched], [['n1', 'n2'], []]);
});

test('a copy that has stopped is not gone on with, and a witness only when its log is the newest', () => {
  const answers = answersOf({
    away: { n2: 1, n3: 1, n4: 1 },
    owners: nobody,
    copies: { n1: { a: { last: 99 }, b: { failure: 'hash' } } },
  });
  const plan = planRecovery(topology, answers, ['n2', 'n3', 'n4']);
  assert.deepEqual(
    plan.groups.map(({ group, at }) => [group, at]),
    [
      ['config', 'n1'],
      ['a', 'w1'],
      ['b', 'w1'],
    ],
  );
});

test('groups that have a majority without the lost members are left alone', () => {
  const answers = answersOf({
    away: { n3: 1, n4: 1, w1: 1 },
    owners: { ...nobody, b: 'n2' },
    copies: { n1: { b: { voters: ['n1', 'n2', 'n3'] } }, n2: { b: { voters: ['n1', 'n2', 'n3'] } } },
  });
  const plan = planRecovery(topology, answers, lost);
  assert.deepEqual([plan.groups.map(({ group }) => group), plan.untouched], [['config', 'a'], ['b']]);
});

const refusals: readonly (readonly [
  claim: string,
  answers: ClusterAnswers,
  lost: readonly string[],
  error: {
    readonly code?: string;
    readonly type?: typeof UsageError | typeof CommandFailure;
    readonly message: RegExp;
  },
])[] = [
  [
    'a member that is not there',
    twoLeft,
    ['n3', 'n5'],
    { type: UsageError, message: /^--lost: there is no member "n5"; did you mean "n[1-4]"\?$/ },
  ],
  [
    'a member that answers',
    answersOf({ away: { n4: 1, w1: 1 }, owners: nobody }),
    lost,
    { type: CommandFailure, message: /^n3 answers, and is not lost\. Nothing was changed/ },
  ],
  [
    'a survivor that does not answer, for it may have the newest log',
    answersOf({ away: { n2: 1, n3: 1, n4: 1, w1: 1 }, owners: nobody }),
    lost,
    { code: 'NODE_UNREACHABLE', message: /^n2 is not named as lost and does not answer$/ },
  ],
  [
    'to go on with the witness alone',
    answersOf({ away: { n1: 1, n2: 1, n3: 1, n4: 1 }, owners: nobody }),
    ['n1', 'n2', 'n3', 'n4'],
    { type: CommandFailure, message: /^no node would be left to own cards/ },
  ],
  [
    'when there is a majority',
    answersOf({ away: { n4: 1 } }),
    ['n4'],
    { type: CommandFailure, message: /^every group has its majority without them/ },
  ],
  [
    'when no survivor has a good copy',
    new Map([
      ['n1', processOf('n1', { groups: [copyOf('a', { failure: 'hash' })] })],
      ['n2', processOf('n2')],
    ]),
    lost,
    { type: CommandFailure, message: /^no survivor has a good copy of group a/ },
  ],
];
for (const [claim, answers, members, expected] of refusals) {
  test(`recovery refuses ${claim}`, () => {
    assert.throws(
      () => planRecovery(topology, answers, members),
      (error) => {
        assert.ok(error instanceof Error);
        assert.match(error.message, expected.message);
        if (expected.type !== undefined) assert.ok(error instanceof expected.type);
        if (expected.code !== undefined) assert.equal((error as Error & { code?: string }).code, expected.code);
        return true;
      },
    );
  });
}

const flags = { acceptLoss: true, lost: 'n3,n4, w1', by: 'J. Doe' };
const served = (to: string): unknown => {
  if (to === 'n1') throw new Error('the disk is full');
  return { group: 'a', term: 5, index: 121, voters: ['n1', 'n2'] };
};

test('a recovery is confirmed in plain words, carried out group by group, and recorded before and after', async (test) => {
  const folder = temporaryFolder(test);
  const context = fakeContext(folder, 'y');
  const bus = fakeBus(
    () => twoLeft,
    () => ({ term: 5, index: 121, voters: ['n1', 'n2'] }),
  );
  assert.equal(await recover(bus, context, flags), 0);
  assert.match(
    context.printed[0] ?? '',
    /^n3, n4, w1 will be given up, and n1, n2 go on alone with groups config, a and b\.$/m,
  );
  assert.match(context.printed[0] ?? '', /must never come back with the data it has now/);
  assert.deepEqual(
    bus.calls.map(({ to, method, parameters }) => [to, method, (parameters as { group: string }).group]),
    [
      ['n1', 'node.recover', 'config'],
      ['n2', 'node.recover', 'a'],
      ['n2', 'node.recover', 'b'],
    ],
  );
  assert.deepEqual(bus.calls[1]?.parameters, { group: 'a', lost, by: 'J. Doe' });
  assert.match(context.printed[1] ?? '', /^a +n2 +5 +121 +n1 n2 +n2 4\.120, n1 2\.500$/m);
  assert.match(context.printed[1] ?? '', /^Recorded in .*recoveries\.jsonl\.$/m);
  const record = readFileSync(join(folder, 'recoveries.jsonl'), 'utf8').trimEnd().split('\n');
  const lines = record.map(
    (line) => JSON.parse(line) as { kind: string; by: string; lost: string[]; groups: unknown[] },
  );
  assert.deepEqual(
    lines.map(({ kind, by }) => [kind, by]),
    [
      ['recovery-begun', 'J. Doe'],
      ['recovery-done', 'J. Doe'],
    ],
  );
  assert.deepEqual(lines[1]?.lost, lost);
  assert.equal(lines[1].groups.length, 3);
});

test('a group that fails is named, the others go on, and the exit code tells', async (test) => {
  const context = fakeContext(temporaryFolder(test));
  const bus = fakeBus(() => twoLeft, served);
  assert.equal(await recover(bus, context, { ...flags, yes: true }), 1);
  assert.match(context.printed.at(-1) ?? '', /^config +n1 +- +- +NOT recovered/m);
  assert.match(context.printed.at(-1) ?? '', /^! group config: the disk is full$/m);
  assert.equal(bus.calls.length, 3);
});

test('nothing is done without --accept-loss, without --lost, without a yes, or without a record', async (test) => {
  const folder = temporaryFolder(test);
  const bus = fakeBus(() => twoLeft, served);
  await assert.rejects(recover(bus, fakeContext(folder), { ...flags, acceptLoss: false }), UsageError);
  await assert.rejects(recover(bus, fakeContext(folder), { acceptLoss: true }), UsageError);
  await assert.rejects(recover(bus, fakeContext(folder), flags), UsageError);
  const refused = fakeContext(folder, 'no');
  assert.equal(await recover(bus, refused, flags), 1);
  assert.deepEqual(refused.notes, ['Nothing was changed.']);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  await assert.rejects(recover(bus, fakeContext(file), { ...flags, yes: true }), CommandFailure);
  assert.deepEqual(bus.calls, []);
});

test('with --json only the result is printed', async (test) => {
  const context = fakeContext(temporaryFolder(test));
  assert.equal(
    await recover(
      fakeBus(() => twoLeft, served),
      context,
      { ...flags, yes: true, json: true },
    ),
    1,
  );
  assert.equal(context.printed.length, 1);
  const result = JSON.parse(context.printed[0] ?? '') as { groups: { outcome: string }[] };
  assert.deepEqual(
    result.groups.map(({ outcome }) => outcome),
    ['failed', 'recovered', 'recovered'],
  );
});
