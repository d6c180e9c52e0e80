import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { nkeys } from '@nats-io/transport-node';

import { nodeId } from '../../base/identifiers.ts';
import { seededRandom } from '../../base/random.ts';
import { loadTopology } from '../../base/topology.ts';
import { ensureSecrets, readSecrets, secretsFolder } from './secrets.ts';
import { temporaryFolder } from './testing.ts';

const topology = loadTopology(new URL('../../nodes.yaml', import.meta.url).pathname);
const random = seededRandom(1);

test('every process has a folder of its own with what it needs and no more, closed to others', (context) => {
  const folder = temporaryFolder(context);
  ensureSecrets(topology, folder, random);
  const all = ['nkey.seed', 'pan-cipher.key', 'pan-hash.key', 'sealing.key'];
  for (const [id, files] of [
    ['n1', all],
    ['n4', all],
    ['w1', ['nkey.seed']],
    ['operator', ['evidence.key', 'evidence.pub', 'nkey.seed', 'sealing.key']],
    ['auditor', ['evidence.pub', 'nkey.seed']],
    ['brokers', ['routes.password']],
  ] as const) {
    assert.deepEqual(readdirSync(secretsFolder(folder, id)).sort(), [...files], id);
    assert.equal(statSync(secretsFolder(folder, id)).mode & 0o777, 0o700);
    for (const file of files) assert.equal(statSync(join(secretsFolder(folder, id), file)).mode & 0o777, 0o600);
  }
  const [n1, n2] = [readSecrets(folder, 'n1'), readSecrets(folder, 'n2')];
  assert.notEqual(n1.nkeySeed, n2.nkeySeed);
  assert.equal(n1.sealingKey?.length, 32);
  assert.deepEqual(n1.sealingKey, readSecrets(folder, 'operator').sealingKey);
  assert.deepEqual(n1.panHashKey, n2.panHashKey);
  assert.deepEqual(n1.panCipherKey, n2.panCipherKey);
  assert.notDeepEqual(n1.panHashKey, n1.panCipherKey);
  assert.equal(readSecrets(folder, 'w1').sealingKey, undefined);
});

test('what is there is kept, and a node that is added gets the keys of the others', (context) => {
  const folder = temporaryFolder(context);
  const before = ensureSecrets(topology, folder, random);
  const n1 = readSecrets(folder, 'n1');
  const added = {
    ...topology,
    nodes: [...topology.nodes, { id: nodeId('n5'), site: 'west', acquirer: { host: 'h', port: 1 } }],
  };
  const after = ensureSecrets(added, folder, random);
  assert.deepEqual(after.created, ['n5']);
  assert.deepEqual(readSecrets(folder, 'n1'), n1);
  assert.deepEqual(readSecrets(folder, 'n5').panCipherKey, n1.panCipherKey);
  assert.equal(after.publicKeys.get('n1'), before.publicKeys.get('n1'));
  assert.deepEqual(after.routes, before.routes);
  assert.deepEqual(ensureSecrets(added, folder, random).created, []);
});

test('the public key is that of the seed', (context) => {
  const folder = temporaryFolder(context);
  const { publicKeys } = ensureSecrets(topology, folder, random);
  const seed = new TextEncoder().encode(readSecrets(folder, 'n2').nkeySeed);
  assert.equal(publicKeys.get('n2'), nkeys.fromSeed(seed).getPublicKey());
  assert.match(publicKeys.get('n2') ?? '', /^U[A-Z2-7]{55}$/);
});

test('keys that data was written with are never replaced by new ones', (context) => {
  const folder = temporaryFolder(context);
  ensureSecrets(topology, folder, random);
  mkdirSync(join(folder, 'n1'));
  writeFileSync(join(folder, 'n1', 'config.db'), '');
  rmSync(secretsFolder(folder), { recursive: true });
  assert.throws(() => ensureSecrets(topology, folder, random), { code: 'SECRETS_INVALID', message: /no longer in/ });
  assert.ok(!existsSync(secretsFolder(folder)));
});

test('damaged, differing or missing secrets are named, and never quoted', (context) => {
  const folder = temporaryFolder(context);
  ensureSecrets(topology, folder, random);
  const key = join(secretsFolder(folder, 'n2'), 'sealing.key');
  const good = readFileSync(key, 'utf8');
  for (const [text, message] of [
    ['a'.repeat(64), /sealing\.key and .*sealing\.key differ/],
    ['5ec3e7', /sealing\.key is no key/],
  ] as const) {
    writeFileSync(key, text);
    assert.throws(() => ensureSecrets(topology, folder, random), { code: 'SECRETS_INVALID', message });
  }
  writeFileSync(key, good);
  writeFileSync(join(secretsFolder(folder, 'n3'), 'nkey.seed'), 'SUANOTASEED');
  assert.throws(
    () => readSecrets(folder, 'n3'),
    (error: Error) => error.message.includes('nkey.seed is no nkey seed') && !error.message.includes('SUANOTASEED'),
  );
  assert.throws(() => readSecrets(folder, 'n9'), { code: 'SECRETS_INVALID', message: /no secrets for n9/ });
});
