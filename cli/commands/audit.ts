import { hash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { Command } from 'commander';

import { configGroup } from '../../base/identifiers.ts';
import { readHeadMark, verifyChain, type ChainVerdict } from '../../compare/evidence.ts';
import { marksIn } from '../../store/log-reader.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import { evidencePublicKey } from '../cluster/secrets.ts';
import { exitCode, type CommandContext } from '../context.ts';
import { evidenceFolder, evidenceRecords, reportFolder } from '../evidence-folder.ts';
import { groupFileName } from '../node/thread-writer.ts';
import type { RunCommand } from '../run-command.ts';

interface Audit extends ChainVerdict {
  /** Nodes whose log of `config` was read for the chain's head. */
  readonly heads: readonly string[];
}

/** Checks DATA/evidence from files alone; with the logs of `config` that are under DATA, where there are any. */
export function auditEvidence({ dataFolder }: Pick<CommandContext, 'dataFolder'>, publicKey: string): Audit {
  const files = configFiles(dataFolder);
  const heads = files.flatMap(({ path }) => marksIn(path, 'evidence.').flatMap((mark) => readHeadMark(mark) ?? []));
  const verdict = verifyChain(evidenceRecords(dataFolder), {
    publicKey,
    cluster: undefined,
    sha256Of: (id, name) => {
      const path = join(reportFolder(dataFolder, id), name);
      return existsSync(path) ? hash('sha256', readFileSync(path), 'hex') : undefined;
    },
    heads,
  });
  return { ...verdict, heads: files.map(({ node }) => node) };
}

function configFiles(dataFolder: string): readonly { readonly node: string; readonly path: string }[] {
  if (!existsSync(dataFolder)) return [];
  return readdirSync(dataFolder).flatMap((node) => {
    const first = join(dataFolder, node, groupFileName(configGroup));
    if (!existsSync(join(dataFolder, node, 'lock.db')) && !existsSync(first)) return [];
    const path = currentGroupFile(first);
    return existsSync(path) ? [{ node, path }] : [];
  });
}

export function registerAudit(program: Command, run: RunCommand): void {
  program
    .command('audit')
    .description('checks the evidence that reports of compares and repairs leave')
    .command('verify')
    .description('checks every record of the chain, its signature and its report; names the first that is not right')
    .option('--key <file>', "the public key in PEM (default: evidence.pub of the auditor's secrets)")
    .option('--json', 'as JSON')
    .addHelpText('after', help)
    .action((flags: { key?: string; json?: boolean }) =>
      run((context) => {
        const key = flags.key === undefined ? evidencePublicKey(context.dataFolder) : readFileSync(flags.key, 'utf8');
        const audit = auditEvidence(context, key);
        if (flags.json === true) context.printJson(audit);
        else context.print(auditText(audit, evidenceFolder(context.dataFolder)));
        return Promise.resolve(audit.fault === undefined && audit.records > 0 ? exitCode.good : exitCode.failed);
      }),
    );
}

function auditText({ records, fault, samples, heads }: Audit, folder: string): string {
  const lines = [
    fault === undefined
      ? records === 0
        ? `There is no evidence in ${folder}.`
        : `SOUND: ${records} records follow from each other, and every report is as it was signed.`
      : `BROKEN at ${fault.record}: ${fault.what}. The ${records} records before it are sound.`,
    heads.length === 0
      ? 'No log of config was found beside it: records cut off at the end would not be missed.'
      : `Held against the log of config at ${heads.join(', ')}.`,
  ];
  if (samples > 0) lines.push(`${samples} records are signed with a sample key, which vouches for nobody.`);
  return lines.join('\n');
}

const help = `
Nothing but files is needed: DATA/evidence, DATA/reports, the public key, and config.db of any node, which knows the head of
the chain.

Exit codes: 0 sound, 1 something is missing, edited or cut off, 2 usage
`;
