import { createPrivateKey, createPublicKey, hash, sign, verify } from 'node:crypto';

import { z } from 'zod';

/**
 * Evidence: a chain of signed records, one for each report. A record's text is its first line, its Ed25519 signature in
 * base64 the second. Its hash is the SHA-256 of the first line, in hex; the next record names it. Whoever has the public
 * key and the folder can check all of it, offline; the newest record's hash stands in the log of group `config` as well
 * (a mark named by `headMark`), so that records cut off at the end are missed.
 */
const recordSchema = z.strictObject({
  format: z.literal(1),
  sequence: z.int().min(1),
  /** Hash of the record before; empty for the first. */
  previous: z.string(),
  /** removal: the files of the reports in its summary have been removed, for they are old; their records stay. */
  kind: z.enum(['compare', 'repair', 'drill', 'removal']),
  id: z.string().regex(/^[a-z0-9-]{1,64}$/),
  cluster: z.string(),
  /** ISO 8601. */
  at: z.string(),
  /** In clear, for whoever reads the chain: verdict, counts, indexes, rule set, roots, times. */
  summary: z.record(z.string(), z.unknown()),
  /** The report's files and their SHA-256, in hex. */
  files: z.array(z.strictObject({ name: z.string().regex(/^[a-z0-9.-]+$/), sha256: z.string() })),
  /** SHA-256 of the public key; `sample`: the key was made at the first start, and vouches for nobody. */
  signer: z.strictObject({ key: z.string(), sample: z.boolean() }),
});

export type EvidenceRecord = z.infer<typeof recordSchema>;

export interface Signer {
  readonly privateKey: string;
  readonly sample: boolean;
}

export const sampleKeyNote = 'SAMPLE KEY, made at the first start: replace it before evidence is to convince anybody.';

export function sealRecord(
  content: Omit<EvidenceRecord, 'format' | 'signer'>,
  { privateKey, sample }: Signer,
): { readonly text: string; readonly hash: string } {
  const key = createPrivateKey(privateKey);
  const signer = { key: keyName(publicKeyOf(privateKey)), sample };
  const line = JSON.stringify({ format: 1, ...content, signer } satisfies EvidenceRecord);
  return { text: `${line}\n${sign(null, Buffer.from(line), key).toString('base64')}\n`, hash: recordHash(line) };
}

export function publicKeyOf(privateKey: string): string {
  return createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }).toString();
}

/** By what a record names its signer's key. */
export function keyName(publicKey: string): string {
  return hash('sha256', createPublicKey(publicKey).export({ type: 'spki', format: 'der' }), 'hex').slice(0, 32);
}

export function recordHash(line: string): string {
  return hash('sha256', line, 'hex');
}

/** Gives why the text is no record that this key has signed. */
export function openRecord(
  text: string,
  publicKey: string,
): { readonly record: EvidenceRecord; readonly hash: string } | { readonly fault: string } {
  const [line = '', signature = ''] = text.split('\n');
  let signed = false;
  try {
    signed = verify(null, Buffer.from(line), createPublicKey(publicKey), Buffer.from(signature, 'base64'));
  } catch {
    return { fault: 'its signature cannot be read' };
  }
  if (!signed) return { fault: 'it was edited, or signed with another key' };
  const parsed = recordSchema.safeParse(JSON.parse(line));
  return parsed.success ? { record: parsed.data, hash: recordHash(line) } : { fault: 'it is no record of evidence' };
}

/** The name of the mark that enters the chain's head into the log of `config`. */
export function headMark(sequence: number, recordsHash: string): string {
  return `evidence.${sequence}.${recordsHash}`;
}

/** Undefined for any other mark. */
export function readHeadMark(mark: string): { readonly sequence: number; readonly hash: string } | undefined {
  const [, sequence, found] = /^evidence\.([1-9][0-9]{0,9})\.([0-9a-f]{64})$/.exec(mark) ?? [];
  return sequence === undefined || found === undefined ? undefined : { sequence: Number(sequence), hash: found };
}

/** What an audit found: how long the sound part of the chain is, and the first fault. */
export interface ChainVerdict {
  readonly records: number;
  readonly fault: { readonly record: string; readonly what: string } | undefined;
  readonly samples: number;
}

/**
 * Checks a chain from its first record on. `records` are the files in the order of their names; `sha256Of` hashes a
 * file of a report, undefined when it is gone; `heads` are what logs of `config` say.
 */
export function verifyChain(
  records: readonly { readonly name: string; readonly text: string }[],
  options: {
    readonly publicKey: string;
    readonly cluster: string | undefined;
    readonly sha256Of: (id: string, name: string) => string | undefined;
    readonly heads: readonly { readonly sequence: number; readonly hash: string }[];
  },
): ChainVerdict {
  const hashes: string[] = [];
  let samples = 0;
  const at = (record: string, what: string): ChainVerdict => ({
    records: hashes.length,
    fault: { record, what },
    samples,
  });
  const removed = removedReports(records, options.publicKey);
  for (const { name, text } of records) {
    const expected = hashes.length + 1;
    if (name !== recordName(expected)) return at(recordName(expected), 'it is missing');
    const opened = openRecord(text, options.publicKey);
    if ('fault' in opened) return at(name, opened.fault);
    const { record } = opened;
    if (record.sequence !== expected) return at(name, `it says that it is record ${record.sequence}`);
    if (record.previous !== (hashes.at(-1) ?? '')) return at(name, 'it does not follow from the record before it');
    if (options.cluster !== undefined && record.cluster !== options.cluster) {
      return at(name, `it is of cluster ${record.cluster}`);
    }
    for (const file of record.files) {
      const found = options.sha256Of(record.id, file.name);
      if (found === undefined && removed.has(record.id)) continue;
      if (found === undefined) return at(name, `its file ${record.id}/${file.name} is missing`);
      if (found !== file.sha256) return at(name, `its file ${record.id}/${file.name} was edited`);
    }
    if (record.signer.sample) samples += 1;
    hashes.push(opened.hash);
  }
  for (const head of [...options.heads].sort((one, other) => one.sequence - other.sequence)) {
    if (hashes[head.sequence - 1] === head.hash) continue;
    const what =
      head.sequence > hashes.length ? 'it is missing: the chain was cut off' : 'it is another than was entered';
    return at(recordName(head.sequence), `${what}, by the log of config`);
  }
  return { records: hashes.length, fault: undefined, samples };
}

/** Reports whose files somebody with the key has removed, and has said so. */
function removedReports(records: readonly { readonly text: string }[], publicKey: string): ReadonlySet<unknown> {
  return new Set(
    records.flatMap(({ text }) => {
      const opened = openRecord(text, publicKey);
      if (!('record' in opened) || opened.record.kind !== 'removal') return [];
      const { removed } = opened.record.summary;
      return Array.isArray(removed) ? (removed as unknown[]) : [];
    }),
  );
}

export function recordName(sequence: number): string {
  return `${String(sequence).padStart(6, '0')}.json`;
}
