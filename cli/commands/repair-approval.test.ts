import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { Command } from 'commander';

import { realRandom } from '../../base/real.ts';
import type { Topology } from '../../base/topology.ts';
import type { SignedPlan } from '../../compare/approval.ts';
import { planRepair, type RepairPlan } from '../../compare/repair-plan.ts';
import { reportJson, type CompareResult } from '../../compare/report.ts';
import { ensureSecrets } from '../cluster/secrets.ts';
import { temporaryFolder } from '../cluster/testing.ts';
import { keepReport } from '../evidence-folder.ts';
import { commandRunner } from '../run-command.ts';
import { proposePlan, registerApproval } from './repair-approval.ts';
import { fakeContext, topology as plainTopology, type FakeContext } from './testing.ts';

const report: CompareResult = {
  compare: 'c0123456789abcdef',
  startedAt: '2026-01-02T03:04:05.678Z',
  durationMs: 1,
  groups: [
    {
      group: 'a',
      markIndex: 9,
      outcomes: [{ node: 'n3', table: 'card', outcome: 'different' }],
      replyBytes: 0,
      tables: [
        {
          table: 'card',
          reference: 'n1',
          rows: 1,
          blocks: 1,
          blocksThatDiffer: 1,
          unlisted: 0,
          nodesThatDiffer: ['n3'],
          differences: [
            {
              node: 'n3',
              group: 'a',
              table: 'card',
              key: { card_id: 'a.1.1.7' },
              kind: 'columns-differ',
              columns: [],
              row: { key: ['ta.1.1.7'], here: 'wrong', right: 'right', sources: ['n1'] },
            },
          ],
        },
      ],
    },
  ],
};

interface Scene {
  readonly context: FakeContext;
  readonly dataFolder: string;
  readonly keyOf: (person: string) => string;
  readonly carriedOut: { readonly plan: RepairPlan | undefined; readonly signed: SignedPlan }[];
  /** `quadrant repair ...`: the exit code. */
  readonly repair: (...args: readonly string[]) => Promise<number>;
}

function scene(test: TestContext): Scene {
  const dataFolder = temporaryFolder(test);
  const keyOf = (person: string): string => join(dataFolder, `${person}.key`);
  const people = ['alice', 'bob', 'mallory'].map((id) => {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    writeFileSync(keyOf(id), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    return { id, key: publicKey.export({ type: 'spki', format: 'der' }).toString('base64') };
  });
  const topology: Topology = {
    ...plainTopology,
    repair: { approvals: 2, planHours: 24, operators: people.slice(0, 2) },
  };
  ensureSecrets(topology, dataFolder, realRandom);
  const files = [{ name: 'report.json', text: `${reportJson(report)}\n` }];
  const { compare: id, startedAt: at } = report;
  keepReport(dataFolder, { kind: 'compare', id, cluster: topology.cluster, at, summary: {}, files });
  const context: FakeContext = { ...fakeContext(dataFolder), topology: () => topology };
  const carriedOut: Scene['carriedOut'] = [];
  return {
    context,
    dataFolder,
    keyOf,
    carriedOut,
    repair: async (...args) => {
      let code = -1;
      const command = new Command('repair');
      const run = commandRunner(context, (found) => {
        code = found;
      });
      registerApproval(
        command,
        run,
        {
          repair: (_context, plan, signed) => Promise.resolve(carriedOut.push({ plan, signed }) - 1),
          undo: (_context, _repair, signed) => Promise.resolve(carriedOut.push({ plan: undefined, signed }) - 1),
        },
        ({ steps }) => `${steps.length} rows`,
      );
      await command.parseAsync(args, { from: 'user' });
      return code;
    },
  };
}

const planned = planRepair(report.compare, report.groups);

test('a plan waits until another operator has approved it, and is carried out then, once', async (test) => {
  const { context, keyOf, repair, carriedOut } = scene(test);
  const { id } = proposePlan(context, { plan: planned, choice: {} }, keyOf('alice'));
  assert.equal(await repair('plans'), 0);
  assert.match(
    context.printed.join('\n'),
    new RegExp(`${id}  repair by ${report.compare}  1     alice      waits until`),
  );
  assert.equal(await repair('approve', id, '--key', keyOf('alice'), '--yes'), 1);
  assert.match(context.notes.join('\n'), /alice has signed plan p[0-9a-f]{12} already: another operator has to/);
  assert.equal(await repair('approve', id, '--key', keyOf('mallory'), '--yes'), 2);
  assert.match(context.notes.join('\n'), /nodes.yaml has no operator with this key/);
  assert.equal(carriedOut.length, 0);
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 0);
  assert.deepEqual(
    carriedOut.map(({ plan }) => plan),
    [planned],
  );
  assert.deepEqual(
    carriedOut[0]?.signed.signatures.map(({ operator }) => operator),
    ['alice', 'bob'],
  );
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 1);
  assert.match(context.notes.join('\n'), new RegExp(`no plan ${id} waits`));
});

test('a plan that nobody has proposed, as of the night, needs two; one that was killed is gone on with', async (test) => {
  const { context, keyOf, repair, carriedOut } = scene(test);
  const { id } = proposePlan(context, { undo: 'r0123456789abcdef' }, undefined);
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 3);
  assert.equal(carriedOut.length, 0);
  // The stub gives the number of calls before it for an exit code: 0 is good, 1 has failed.
  carriedOut.push({ plan: undefined, signed: {} as SignedPlan });
  assert.equal(await repair('approve', id, '--key', keyOf('alice'), '--yes'), 1);
  carriedOut.length = 0;
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 0);
  assert.deepEqual(
    carriedOut.map(({ signed }) => signed.action),
    ['undo'],
  );
});

test('a plan that has expired, or was changed after it was signed, is refused', async (test) => {
  const { context, dataFolder, keyOf, repair, carriedOut } = scene(test);
  const { id } = proposePlan(context, { plan: planned, choice: {} }, keyOf('alice'));
  const file = join(dataFolder, 'plans', `${id}.json`);
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.replace(/"expiresAt": "20../, '"expiresAt": "2999'));
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 1);
  assert.match(context.notes.join('\n'), new RegExp(`plan ${id} was changed after it was made`));
  // Another choice than was signed: the report asks for other changes then.
  writeFileSync(file, text.replace('"choice": {}', '"choice": { "reverse": true }'));
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 1);
  assert.match(context.notes.join('\n'), new RegExp(`plan ${id} is not what report ${report.compare} asks for`));
  writeFileSync(file, text);
  const late = Object.assign(Object.create(context.clock) as typeof context.clock, {
    wallMs: () => Date.parse('2999-01-01T00:00:00Z'),
  });
  Object.assign(context, { clock: late });
  assert.equal(await repair('approve', id, '--key', keyOf('bob'), '--yes'), 1);
  assert.match(context.notes.join('\n'), /the plan expired at/);
  assert.equal(carriedOut.length, 0);
});
