import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { SwitchError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { realClock } from '../../base/real.ts';
import { UsageError } from '../acquirer/usage.ts';
import { claimDataFolder } from '../cluster/preflight.ts';
import { temporaryFolder, topologyOnFreePorts } from '../cluster/testing.ts';
import { readRequest } from './command.ts';
import type { DrillFlags } from './command.ts';
import { drillKinds } from './fault.ts';
import { faults } from './faults.ts';
import { openOtherGround } from './ground.ts';
import { checkNeeds, makeFolder } from './perform.ts';
import { UndoJournal } from './undo.ts';

const random = seededRandom(1);
const saysNothing = (line: string): void => {
  assert.fail(line);
};

test('a command line says what to do and how often; what it leaves out is as the table has it', () => {
  const flags: DrillFlags = { runs: '20', seed: '7', hold: '2s', withBroker: true, limits: 'safety' };
  assert.deepEqual(readRequest('kill', 'n2', flags, random), {
    kind: 'kill',
    options: { target: 'n2', withBroker: true, oneWay: undefined, delayMs: undefined, mode: 'full' },
    runs: 20,
    rate: 500,
    seed: 7,
    limits: 'safety',
    holdMs: 2_000,
    warmUpMs: undefined,
    hurry: false,
  });
  assert.deepEqual(
    [readRequest('site', undefined, {}, random).runs, readRequest('site', undefined, {}, random).limits],
    [5, 'table'],
  );
});

test('wrong flags are refused with a sentence', () => {
  const wrong: readonly (readonly [DrillFlags, RegExp])[] = [
    [{ runs: '0' }, /--runs/],
    [{ rate: 'many' }, /--rate/],
    [{ limits: 'tabel' }, /--limits: "tabel" is none of table, safety; table\?/],
    [{ oneWay: 'both' }, /--one-way/],
    [{ oneWay: 'in', delay: '25ms' }, /exclude each other/],
    [{ delay: 'long' }, /--delay/],
    [{ mode: 'broken' }, /--mode/],
    [{ hold: '0' }, /--hold/],
  ];
  for (const [flags, message] of wrong) {
    assert.throws(
      () => readRequest('partition', undefined, flags, random),
      (error) => error instanceof UsageError && message.test(error.message),
      JSON.stringify(flags),
    );
  }
});

test('every kind says what it does, to whom, and what to expect', () => {
  for (const kind of drillKinds) {
    const { summary, target, details } = faults[kind];
    assert.ok(summary.length > 10 && target.length > 3 && details.length > 40, kind);
  }
});

test('what needs namespaces or mounts is not made on a cluster that runs', () => {
  const request = (kind: 'partition' | 'stall', flags: DrillFlags = {}) => readRequest(kind, undefined, flags, random);
  for (const each of [request('partition'), request('stall'), request('partition', { delay: '25ms' })]) {
    assert.throws(() => {
      checkNeeds(each, false);
    }, UsageError);
  }
  checkNeeds(request('partition', { delay: '25ms' }), true);
});

test('a folder to keep things in has to be empty', (context) => {
  const folder = temporaryFolder(context);
  writeFileSync(join(folder, 'mine'), '');
  assert.throws(() => makeFolder(folder), UsageError);
});

test('without a cluster of ours that runs there, a drill on it is refused; so is the data folder of another', async (context) => {
  const folder = temporaryFolder(context);
  const { file, topology } = await topologyOnFreePorts(folder);
  const undo = UndoJournal.open(join(folder, 'state'), 'kill', realClock);
  context.after(() => {
    undo.release();
  });
  const dataFolder = join(folder, 'data');
  const refusal = (code: string) => (error: unknown) => error instanceof SwitchError && error.code === code;
  const openIt = (): unknown =>
    openOtherGround({
      configFile: file,
      dataFolder,
      cardFile: '',
      folder,
      undo,
      clock: realClock,
      random,
      note: saysNothing,
    });
  assert.throws(openIt, refusal('DRILL_REFUSED'));
  mkdirSync(dataFolder, { recursive: true });
  claimDataFolder(dataFolder, topology.cluster, realClock);
  assert.throws(openIt, refusal('DRILL_REFUSED'));
  const foreign = join(folder, 'foreign');
  claimDataFolder(foreign, 'another', realClock);
  assert.throws(
    () =>
      openOtherGround({
        configFile: file,
        dataFolder: foreign,
        cardFile: '',
        folder,
        undo,
        clock: realClock,
        random,
        note: saysNothing,
      }),
    refusal('DATA_FOLDER_FOREIGN'),
  );
});
