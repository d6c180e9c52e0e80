import { hash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

import { describeError, SwitchError } from '../base/errors.ts';
import { configGroup } from '../base/identifiers.ts';
import {
  headMark,
  openRecord,
  publicKeyOf,
  recordName,
  sealRecord,
  type EvidenceRecord,
  type Signer,
} from '../compare/evidence.ts';
import { evidenceKeys } from './cluster/secrets.ts';
import { enterMark } from './marks.ts';
import type { OperatorBus } from './operator-bus.ts';

/** A report to be kept: its files, and what the record says of it in clear. */
export interface KeptReport extends Pick<EvidenceRecord, 'kind' | 'id' | 'cluster' | 'at' | 'summary'> {
  readonly files: readonly { readonly name: string; readonly text: string }[];
}

export interface KeptEvidence {
  readonly folder: string;
  readonly sequence: number;
  readonly hash: string;
}

/** DATA/reports has a folder for each report, DATA/evidence a signed record of each. */
export function reportFolder(dataFolder: string, id: string): string {
  return join(dataFolder, 'reports', id);
}

export function evidenceFolder(dataFolder: string): string {
  return join(dataFolder, 'evidence');
}

/**
 * Keeps a report and enters it into the chain of evidence. A file is there whole or not at all: when the disk is full,
 * REPORT_NOT_KEPT, and what was kept before is as it was.
 */
export function keepReport(dataFolder: string, report: KeptReport): KeptEvidence {
  const folder = reportFolder(dataFolder, report.id);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const { name, text } of report.files) writeDurably(join(folder, name), text);
    return { folder, ...appendRecord(dataFolder, report, evidenceKeys(dataFolder)) };
  } catch (error) {
    if (error instanceof SwitchError) throw error;
    throw new SwitchError('REPORT_NOT_KEPT', `the report cannot be kept in ${folder}: ${describeError(error)}`, {
      cause: error,
    });
  }
}

function appendRecord(
  dataFolder: string,
  { files, ...report }: KeptReport,
  signer: Signer,
): { readonly sequence: number; readonly hash: string } {
  const folder = evidenceFolder(dataFolder);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const hashed = files.map(({ name, text }) => ({ name, sha256: hash('sha256', text, 'hex') }));
  for (;;) {
    const last = evidenceRecords(dataFolder).at(-1);
    const sequence = last === undefined ? 1 : Number(last.name.slice(0, -'.json'.length)) + 1;
    const before = last === undefined ? undefined : openRecord(last.text, publicKeyOf(signer.privateKey));
    if (before !== undefined && 'fault' in before) {
      throw new SwitchError('EVIDENCE_BROKEN', `record ${last?.name ?? ''} of ${folder}: ${before.fault}`);
    }
    const sealed = sealRecord({ ...report, files: hashed, sequence, previous: before?.hash ?? '' }, signer);
    const path = join(folder, recordName(sequence));
    const temporary = `${path}.${process.pid}.new`;
    writeAndSync(temporary, sealed.text);
    try {
      // Fails when another report has taken the number meanwhile; then this one follows it.
      linkSync(temporary, path);
      syncFolder(folder);
      return { sequence, hash: sealed.hash };
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    } finally {
      rmSync(temporary, { force: true });
    }
  }
}

/** The records, oldest first. */
export function evidenceRecords(dataFolder: string): readonly { readonly name: string; readonly text: string }[] {
  const folder = evidenceFolder(dataFolder);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => /^[0-9]{6,}\.json$/.test(name))
    .sort()
    .map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
}

/** Enters the head of the chain into the log of `config`. A cluster that takes no entries now gets it with the next. */
export async function enterHead(
  bus: Pick<OperatorBus, 'call' | 'topology'>,
  { sequence, hash: head }: Pick<KeptEvidence, 'sequence' | 'hash'>,
): Promise<boolean> {
  try {
    await enterMark(bus, configGroup, headMark(sequence, head));
    return true;
  } catch (error) {
    if (!(error instanceof SwitchError)) throw error;
    return false;
  }
}

/** Writes the file beside its place, syncs it and puts it there: never half of it. */
export function writeDurably(path: string, text: string, mode = 0o600): void {
  const temporary = `${path}.${process.pid}.new`;
  try {
    writeAndSync(temporary, text, mode);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

function writeAndSync(path: string, text: string, mode = 0o600): void {
  writeFileSync(path, text, { mode, flush: true });
}

function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
