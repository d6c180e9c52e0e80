import { hash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Command } from 'commander';

import { assert } from '../../base/errors.ts';
import { configGroup, type GroupId } from '../../base/identifiers.ts';
import { readHeadMark, verifyChain, type ChainVerdict } from '../../compare/evidence.ts';
import type { CompareResult } from '../../compare/report.ts';
import { checkRoots, type RootVerdict } from '../../compare/roots.ts';
import { tablesOf } from '../../compare/tables.ts';
import { configurationFold } from '../../config-db/configuration-fold.ts';
import { ledgerFold } from '../../store/ledger-fold.ts';
import { marksIn } from '../../store/log-reader.ts';
import { SnapshotReader } from '../../store/snapshot-reader.ts';
import { UsageError } from '../acquirer/usage.ts';
import { currentGroupFile } from '../../store/snapshot-install.ts';
import { evidencePublicKey } from '../cluster/secrets.ts';
import { exitCode, type CommandContext } from '../context.ts';
import { evidenceFolder, evidenceRecords, reportFolder } from '../evidence-folder.ts';
import { loadCompare } from '../kept-compare.ts';
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

/** A report's roots held against the file of one copy of a group. */
export function auditRoots(
  context: Pick<CommandContext, 'topology' | 'note' | 'random'>,
  report: CompareResult,
  path: string,
): { readonly group: string; readonly roots: readonly RootVerdict[] } {
  if (!existsSync(path)) throw new UsageError(`there is no file ${path}`);
  const { group } = openGroup(path);
  const reported = report.groups.find((each) => each.group === group);
  if (reported === undefined) throw new UsageError(`${path} is of group "${group}", of which the report says nothing`);
  if (!reported.tables.some(({ evidence }) => evidence !== undefined)) {
    throw new UsageError(`the report has no Merkle roots: they are made by quadrant compare --evidence`);
  }
  const { nodes } = context.topology();
  const [self] = nodes;
  assert(self !== undefined, 'a cluster has nodes');
  const roots = checkRoots(reported, {
    path,
    tables: tablesOf(group),
    // Whose derived columns come out does not matter: they are in no root.
    fold: group === configGroup ? configurationFold(self.id, { nodes }) : ledgerFold,
    temporary: join(tmpdir(), `quadrant-roots-${context.random.bytes(6).toString('hex')}.tmp`),
    onEntries: (through) => {
      if (through < reported.markIndex) context.note(`${through} of ${reported.markIndex} entries ...`);
    },
  });
  return { group, roots };
}

function openGroup(path: string): { readonly group: GroupId } {
  const reader = SnapshotReader.open(path);
  reader.close();
  return reader;
}

function rootsText(path: string, { group, roots }: ReturnType<typeof auditRoots>): string {
  const wrong = roots.filter(({ reported, found }) => found !== undefined && found !== reported);
  const open = roots.filter(({ found }) => found === undefined);
  return [
    wrong.length > 0
      ? `NOT SO: ${path} gives other roots for ${wrong.length} tables of group ${group} than the report.`
      : open.length > 0
        ? `OPEN: ${path} cannot tell of ${open.length} tables of group ${group}.`
        : `SO: ${path} gives the roots that the report has, of all ${roots.length} tables of group ${group}.`,
    ...roots.map(({ table, reported, found, reason }) =>
      found === reported
        ? `  ${reported}  ${table}`
        : `  ${reported}  ${table}: ${found === undefined ? (reason ?? '') : `here ${found}`}`,
    ),
  ].join('\n');
}

export function registerAudit(program: Command, run: RunCommand): void {
  const audit = program
    .command('audit')
    .description('checks the evidence that reports of compares, repairs and drills leave');
  audit
    .command('root')
    .argument('<report>', 'a report of `quadrant compare --evidence`: its name, or the path of its report.json')
    .argument('<file>', "a copy's file of one group: config.db or group-a.db of a node, at work or copied")
    .description("makes the report's Merkle roots again from the log of one copy")
    .option('--json', 'as JSON')
    .addHelpText('after', rootHelp)
    .action((report: string, file: string, flags: { json?: boolean }) =>
      run((context) => {
        const found = auditRoots(context, loadCompare(context, report), file);
        if (flags.json === true) context.printJson(found);
        else context.print(rootsText(file, found));
        if (found.roots.some(({ reported, found: here }) => here !== undefined && here !== reported)) {
          return Promise.resolve(exitCode.differences);
        }
        const isOpen = found.roots.some(({ found: here }) => here === undefined);
        return Promise.resolve(isOpen ? exitCode.failed : exitCode.good);
      }),
    );
  audit
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

const rootHelp = `
Nothing but the file and the signed report is needed. The log is taken as it was at the report's mark, and the fold is made
anew from it; what came later does not matter. A file whose log was trimmed has to be a copy made at the mark.

Exit codes: 0 the same roots, 3 others, 1 the file cannot tell, 2 usage
`;

const help = `
Nothing but files is needed: DATA/evidence, DATA/reports, the public key, and config.db of any node, which knows the head of
the chain.

Exit codes: 0 sound, 1 something is missing, edited or cut off, 2 usage
`;
