import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { nkeys } from '@nats-io/transport-node';

import { SwitchError } from '../../base/errors.ts';
import type { Random } from '../../base/random.ts';
import type { Topology } from '../../base/topology.ts';
import { publicKeyOf, sampleKeyNote, type Signer } from '../../compare/evidence.ts';

/** The identity that the CLI connects to the brokers with. */
export const operatorId = 'operator';
/** An identity that sees every subject and may publish on none. */
export const auditorId = 'auditor';

/**
 * What one process may know. A key's version is 1 until keys rotate.
 * `nkeySeed` proves the process to the brokers; `sealingKey` (AES-256-GCM) seals forwarded requests, for nodes and
 * operator; `panHashKey` (HMAC-SHA-256) and `panCipherKey` (AES-256-GCM) hide stored card numbers, for nodes only.
 */
export interface ProcessSecrets {
  readonly nkeySeed: string;
  readonly sealingKey: Buffer | undefined;
  readonly panHashKey: Buffer | undefined;
  readonly panCipherKey: Buffer | undefined;
}

export interface ClusterSecrets {
  /** Public nkeys (`U...`) by process id: nodes, witness, operator, auditor. */
  readonly publicKeys: ReadonlyMap<string, string>;
  readonly routes: { readonly user: string; readonly password: string };
  /** Ids whose files this call made. */
  readonly created: readonly string[];
}

const clusterKeys = ['sealing.key', 'pan-hash.key', 'pan-cipher.key'] as const;
type ClusterKey = (typeof clusterKeys)[number];

const seedFile = 'nkey.seed';
const keyBytes = 32;

/**
 * Makes what is missing of DATA/secrets and keeps what is there. Every process has a folder of its own, so that it can
 * be given that one alone; keys of the whole cluster stand in the folder of each process that needs them, and a node
 * that is added later gets the others' keys. Generated keys are for trying Quadrant out: real ones come from outside.
 *
 * Keys that the data was written with are never replaced: when they are gone, SECRETS_INVALID.
 */
export function ensureSecrets(topology: Topology, dataFolder: string, random: Random): ClusterSecrets {
  const holders = keysByProcess(topology);
  const shared = new Map(clusterKeys.map((key) => [key, sharedKey(key, topology, dataFolder, holders, random)]));
  const created: string[] = [];
  const publicKeys = new Map<string, string>();

  makeFolder(secretsFolder(dataFolder));
  for (const [id, keys] of holders) {
    const folder = secretsFolder(dataFolder, id);
    if (!existsSync(join(folder, seedFile))) created.push(id);
    makeFolder(folder);
    const seed = ensureFile(join(folder, seedFile), newSeed);
    publicKeys.set(id, nkeyOf(seed, join(folder, seedFile)));
    for (const key of keys) ensureFile(join(folder, key), () => shared.get(key) ?? '');
  }

  ensureEvidenceKeys(dataFolder);
  const brokers = secretsFolder(dataFolder, 'brokers');
  makeFolder(brokers);
  const password = ensureFile(join(brokers, 'routes.password'), () => random.bytes(24).toString('hex'));
  return { publicKeys, routes: { user: 'broker', password }, created };
}

const evidenceKeyFile = 'evidence.key';
const evidencePublicFile = 'evidence.pub';

/** The operator signs reports; the auditor gets what they are checked with, and no more. */
function ensureEvidenceKeys(dataFolder: string): void {
  const file = join(secretsFolder(dataFolder, operatorId), evidenceKeyFile);
  const text = ensureFile(file, () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    return `${sampleKeyNote}\n${privateKey.export({ type: 'pkcs8', format: 'pem' }).toString().trim()}`;
  });
  const publicKey = publicKeyOf(privateKeyIn(text, file)).trim();
  for (const holder of [operatorId, auditorId]) {
    ensureFile(join(secretsFolder(dataFolder, holder), evidencePublicFile), () => publicKey);
  }
}

export function hasEvidenceKey(dataFolder: string): boolean {
  return existsSync(join(secretsFolder(dataFolder, operatorId), evidenceKeyFile));
}

/** The operator's key for signing reports. Throws SECRETS_INVALID. */
export function evidenceKeys(dataFolder: string): Signer {
  const file = join(secretsFolder(dataFolder, operatorId), evidenceKeyFile);
  const text = readText(file);
  if (text === undefined) throw new SwitchError('SECRETS_INVALID', `there is no key to sign reports with: ${file}`);
  return { privateKey: privateKeyIn(text, file), sample: text.includes(sampleKeyNote) };
}

/** What reports are checked with: the auditor's copy, or the operator's. */
export function evidencePublicKey(dataFolder: string): string {
  for (const holder of [auditorId, operatorId]) {
    const text = readText(join(secretsFolder(dataFolder, holder), evidencePublicFile));
    if (text !== undefined) return text;
  }
  throw new SwitchError('SECRETS_INVALID', `there is no ${evidencePublicFile} in ${secretsFolder(dataFolder)}`);
}

function privateKeyIn(text: string, file: string): string {
  const pem = text.slice(Math.max(0, text.indexOf('-----BEGIN')));
  try {
    publicKeyOf(pem);
    return pem;
  } catch {
    throw new SwitchError('SECRETS_INVALID', `${file} is no Ed25519 key in PEM`);
  }
}

/** The secrets of one process, from its own folder. */
export function readSecrets(dataFolder: string, id: string): ProcessSecrets {
  const folder = secretsFolder(dataFolder, id);
  const nkeySeed = readText(join(folder, seedFile));
  if (nkeySeed === undefined) {
    throw new SwitchError('SECRETS_INVALID', `there are no secrets for ${id}: ${join(folder, seedFile)} is missing`);
  }
  nkeyOf(nkeySeed, join(folder, seedFile));
  const key = (name: ClusterKey): Buffer | undefined => {
    const text = readKey(join(folder, name));
    return text === undefined ? undefined : Buffer.from(text, 'hex');
  };
  return {
    nkeySeed,
    sealingKey: key('sealing.key'),
    panHashKey: key('pan-hash.key'),
    panCipherKey: key('pan-cipher.key'),
  };
}

/** DATA/secrets, or the folder of one process in it. */
export function secretsFolder(dataFolder: string, id?: string): string {
  return id === undefined ? join(dataFolder, 'secrets') : join(dataFolder, 'secrets', id);
}

function keysByProcess(topology: Topology): ReadonlyMap<string, readonly ClusterKey[]> {
  const holders = new Map<string, readonly ClusterKey[]>();
  for (const node of topology.nodes) holders.set(node.id, clusterKeys);
  if (topology.witness !== undefined) holders.set(topology.witness.id, []);
  holders.set(operatorId, ['sealing.key']);
  holders.set(auditorId, []);
  return holders;
}

/** The key that all holders have; a new one only when none has it and no data was written yet. */
function sharedKey(
  key: ClusterKey,
  topology: Topology,
  dataFolder: string,
  holders: ReadonlyMap<string, readonly ClusterKey[]>,
  random: Random,
): string {
  const copies = [...holders]
    .filter(([, keys]) => keys.includes(key))
    .map(([id]) => join(secretsFolder(dataFolder, id), key))
    .flatMap((file) => {
      const text = readKey(file);
      return text === undefined ? [] : [{ file, text }];
    });
  const first = copies[0];
  if (first === undefined) {
    if (holdsData(topology, dataFolder)) {
      const lost = `the data in ${dataFolder} was written with a ${key} that is no longer in ${secretsFolder(dataFolder)}`;
      throw new SwitchError('SECRETS_INVALID', lost);
    }
    return random.bytes(keyBytes).toString('hex');
  }
  const other = copies.find((copy) => copy.text !== first.text);
  if (other !== undefined) {
    throw new SwitchError('SECRETS_INVALID', `${first.file} and ${other.file} differ; they must be one key`);
  }
  return first.text;
}

function holdsData(topology: Topology, dataFolder: string): boolean {
  return topology.nodes.some((node) => {
    const folder = join(dataFolder, node.id);
    return existsSync(folder) && readdirSync(folder).some((name) => name.endsWith('.db') && name !== 'lock.db');
  });
}

/** nkeys takes its own randomness, the operating system's too, and no other. */
function newSeed(): string {
  return new TextDecoder().decode(nkeys.createUser().getSeed());
}

function nkeyOf(seed: string, file: string): string {
  try {
    return nkeys.fromSeed(new TextEncoder().encode(seed)).getPublicKey();
  } catch {
    // No cause: what nkeys says could quote the seed.
    throw new SwitchError('SECRETS_INVALID', `${file} is no nkey seed`);
  }
}

function readKey(file: string): string | undefined {
  const text = readText(file);
  if (text !== undefined && !/^[0-9a-f]{64}$/.test(text)) {
    throw new SwitchError('SECRETS_INVALID', `${file} is no key of ${keyBytes} bytes in hexadecimal`);
  }
  return text;
}

function readText(file: string): string | undefined {
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

function ensureFile(file: string, make: () => string): string {
  const present = readText(file);
  if (present !== undefined) {
    chmodSync(file, 0o600);
    return present;
  }
  const text = make();
  // Whole or not at all: half a key after a crash would be kept for ever.
  writeFileSync(`${file}.new`, `${text}\n`, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
  return text;
}

function makeFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
}
