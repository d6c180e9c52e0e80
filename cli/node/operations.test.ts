import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CardKeys } from '../../base/card-keys.ts';
import { SwitchError } from '../../base/errors.ts';
import { nodeId } from '../../base/identifiers.ts';
import { createLogger } from '../../base/log.ts';
import { ManualClock } from '../../base/manual-clock.ts';
import { seededRandom } from '../../base/random.ts';
import { parseTopology } from '../../base/topology.ts';
import type { GroupOwner } from '../../switch/owner.ts';
import { emptyLedger } from '../../switch/testing.ts';
import { enterRequests, importCards } from './cards-desk.ts';
import type { Consensus } from './consensus.ts';
import type { Groups } from './groups.ts';
import { Operations } from './operations.ts';

const topology = parseTopology(
  `cluster: test
sites: [{ id: east, description: east }]
nodes: [{ id: n1, site: east, acquirer: { port: 9001 } }]
brokers: [{ id: b, site: east, client: { port: 9002 }, cluster: { port: 9003 } }]
`,
  'nodes.yaml',
);

/** A node that has no configuration and no groups yet. */
function operations(): Operations {
  const groups = { configuration: undefined, hosted: new Map(), leaderOf: () => undefined } as unknown as Groups;
  return new Operations({
    self: nodeId('n1'),
    topology,
    clock: new ManualClock(),
    random: seededRandom(1),
    log: createLogger({ process: 'n1', level: 'silent', destination: { write: () => undefined } }),
    consensus: { status: () => Promise.reject(new Error('nobody is asked')) } as unknown as Consensus,
    groups,
    cardKeys: new CardKeys(1, Buffer.alloc(32, 1), Buffer.alloc(32, 2)),
    pendingStandIns: () => [],
    changeQueue: () => {
      throw new Error('nothing is queued');
    },
    restrict: () => undefined,
    callPeer: () => Promise.reject(new Error('nobody is called')),
  });
}

async function codeOf(caller: 'operator' | 'peer', method: string, parameters: unknown): Promise<string> {
  const reply = await operations().serve(caller, { method, parameters });
  return reply.kind === 'error' ? reply.code : 'none';
}

const file = 'f'.repeat(64);

test('a call that does not exist, is not for its caller, or has wrong parameters is CALL_INVALID', async () => {
  assert.equal(await codeOf('operator', 'nonsense', {}), 'CALL_INVALID');
  assert.equal(
    await codeOf('operator', 'cards.enter', { by: 'me', origin: 'n1', group: 'a', file, cards: [] }),
    'CALL_INVALID',
  );
  assert.equal(await codeOf('peer', 'cards.change', { by: 'me' }), 'CALL_INVALID');
  assert.equal(await codeOf('operator', 'cards.get', { pan: '1234' }), 'CALL_INVALID');
});

test('an error for a wrong card number does not repeat it', async () => {
  const reply = await operations().serve('operator', {
    method: 'cards.get',
    parameters: { pan: '99000100000000190000' },
  });
  assert.ok(!JSON.stringify(reply).includes('99000100000000190000'));
});

test('what needs an owner or a configuration that is not there is OWNER_UNREACHABLE', async () => {
  assert.equal(await codeOf('operator', 'ledger.cards', { pans: ['9900010000000019'] }), 'OWNER_UNREACHABLE');
  assert.equal(
    await codeOf('peer', 'cards.enter', { by: 'me', origin: 'n1', group: 'a', file, cards: [] }),
    'OWNER_UNREACHABLE',
  );
});

const failsWith = (code: string) => (error: unknown) => error instanceof SwitchError && error.code === code;

/** An owner that has no cards and takes no entries. */
const closedOwner = { ledger: emptyLedger, append: () => undefined } as unknown as GroupOwner;

const entered = { by: 'me', origin: 'n1' };
const tools = { clock: new ManualClock(), random: seededRandom(2) };

test('setting a card that is not on file is CARD_UNKNOWN', async () => {
  const requests = [{ kind: 'set', panHash: 'x', replaces: 1, status: 'lost' }] as const;
  await assert.rejects(
    enterRequests(closedOwner, { requests, check: false }, entered, tools),
    failsWith('CARD_UNKNOWN'),
  );
});

test('cards for an owner that takes no entries are not entered: OWNER_UNREACHABLE', async () => {
  const card = {
    line: 2,
    bin: '40000000',
    panHash: 'x',
    panKeyVersion: 1,
    panCipher: 'y',
    expiry: '3012',
    status: 'active',
    currency: '840',
    limit: '1',
  } as const;
  await assert.rejects(
    importCards(closedOwner, { file: 'f', cards: [card] }, entered, {
      ...tools,
      cardKeys: { decrypt: () => undefined },
    }),
    failsWith('OWNER_UNREACHABLE'),
  );
});
