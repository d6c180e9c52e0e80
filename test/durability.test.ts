import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { realClock } from '../base/real.ts';
import { repeatOf, textOf } from '../cli/acquirer/message-parts.ts';
import { requireNatsServer } from '../cli/cluster/testing.ts';
import { performOnOwnCluster } from '../cli/drill/perform.ts';
import { UndoJournal } from '../cli/drill/undo.ts';
import { verdictOf } from '../compare/report.ts';
import type { IsoMessage } from '../switch/iso8583/codec.ts';
import {
  ask,
  askAt,
  Cleanups,
  connectTo,
  firstCards,
  judge,
  load,
  makePlace,
  purchase,
  sampleCards,
  startTestCluster,
  untilReady,
} from './harness.ts';
import type { SampleCard, TestCluster } from './harness.ts';

// `quadrant drill kill all --runs 20` does the first test's drill twenty times.

const cleanups = new Cleanups();
let cluster: TestCluster;
let cards: readonly SampleCard[];

/** Requests decided before n2 was killed, with their answers. */
const decided: { readonly request: IsoMessage; readonly answer: IsoMessage }[] = [];
/** Requests that got 91 while it was away. */

const ofGroupB = (card: SampleCard): boolean => card.range.group_id === 'b';

before(async () => {
  cards = await firstCards();
});

after(() => cleanups.run());

test('after kill -9 of every process under load, every approval received is in its log once, and copies are equal', async (context) => {
  const place = await makePlace(context);
  const undo = UndoJournal.open(join(place.folder, 'drill-state'), 'kill', realClock);
  const report = await performOnOwnCluster(
    {
      kind: 'kill',
      options: { target: 'all', withBroker: false, oneWay: undefined, delayMs: undefined, mode: 'full' },
      runs: 2,
      rate: 150,
      seed: 2026,
      limits: 'safety',
      holdMs: 1,
      warmUpMs: 2_000,
      hurry: true,
    },
    {
      undo,
      clock: realClock,
      note: (line) => {
        context.diagnostic(line);
      },
      keep: join(place.folder, 'drill'),
      place,
      natsServer: requireNatsServer(),
    },
  );
  undo.release();
  assert.deepEqual(
    report.checks.filter(({ good }) => !good),
    [],
  );
  assert.equal(report.runs.length, 2);
  for (const run of report.runs) {
    // It was under load: some were answered, some were on their way.
    assert.ok(run.quorum.approvals > 0 && run.local.approvals > 0 && run.failedAttempts > 0, JSON.stringify(run));
  }
  assert.deepEqual(undo.pending, []);
});

test('when an owner is killed, another decides for its cards within the deadline, at every other node', async () => {
  cluster = await startTestCluster(cleanups);
  for (const card of cards) {
    const request = purchase(card);
    const answer = await askAt(cluster, 'n2', request);
    assert.equal(textOf(answer, 39), '00', card.range.prefix);
    decided.push({ request, answer });
  }
  await cluster.running.kill('n2', 'SIGKILL');
  assert.match(
    cluster.printed.at(-1) ?? '',
    /^n2 ended \(SIGKILL\)\. Its cards are with the next node of their order until it is back: npx /,
  );
  await Promise.all(
    ['n1', 'n3', 'n4'].map(async (node) => {
      // The link's deadline is five seconds: an acquirer that waits a little longer sees no timeout.
      const connection = await connectTo(cluster, node, 8_000);
      for (const card of cards.filter(ofGroupB)) {
        const request = purchase(card);
        const answer = await ask(connection, request);
        assert.equal(textOf(answer, 39), '00', `${card.range.prefix} at ${node}`);
        decided.push({ request, answer });
      }
      await connection.close();
    }),
  );
});

test('what the dead owner had answered is answered the same by the one that took over', async () => {
  for (const { request, answer } of decided) {
    assert.deepEqual(await askAt(cluster, 'n3', { ...request, mti: repeatOf(request.mti) }), answer);
  }
});

test("meanwhile no other group's card is affected, at any node that lives", async () => {
  const summary = await load(cluster, {
    nodes: 'n1,n3,n4',
    cards: (await sampleCards()).filter((card) => !ofGroupB(card)),
    // A card that is in no file belongs to the catch-all range, and that to group a.
    count: 1_000,
    journalFile: join(cluster.folder, 'others.journal.jsonl'),
  });
  assert.ok(summary.clean, JSON.stringify(summary));
  assert.equal(summary.repeats, 0);
  const codes = Object.values(summary.byMti).flatMap((ofMti) => Object.keys(ofMti));
  assert.ok(codes.includes('00') && !codes.includes('91'), codes.join());
});

test('back again, it answers, and what was decided before it died is answered as it was, at whichever node', async () => {
  await cluster.running.restart('n2');
  await untilReady(cluster);
  for (const [index, { request, answer }] of decided.entries()) {
    const node = cluster.topology.nodes[index % cluster.topology.nodes.length]?.id ?? '';
    const repeated = await askAt(cluster, node, { ...request, mti: repeatOf(request.mti) });
    assert.deepEqual(repeated, answer, `STAN ${textOf(request, 11)} at ${node}`);
  }
  const { compared } = await judge(cluster.bus, []);
  assert.equal(verdictOf(compared.groups), 'equal');
});

test('an acquirer whose node is killed gets its stored answers at another node', async () => {
  const own = cards.filter(({ range }) => range.group_id === 'a');
  const requests = own.map((card) => purchase(card));
  const connection = await connectTo(cluster, 'n4');
  const answers = await Promise.all(requests.map((request) => ask(connection, request)));
  await cluster.running.kill('n4', 'SIGKILL');
  await connection.closed;
  for (const [index, request] of requests.entries()) {
    const repeated = await askAt(cluster, 'n3', { ...request, mti: repeatOf(request.mti) });
    assert.deepEqual(repeated, answers[index]);
  }
});
