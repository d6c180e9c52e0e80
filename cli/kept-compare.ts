import { hash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { SwitchError } from '../base/errors.ts';
import { openRecord } from '../compare/evidence.ts';
import { findingsOf, reportJson, reportText, verdictOf, type CompareResult } from '../compare/report.ts';
import { evidencePublicKey } from './cluster/secrets.ts';
import { compareHtml } from './compare-html.ts';
import type { CommandContext } from './context.ts';
import { enterHead, evidenceRecords, keepReport, reportFolder } from './evidence-folder.ts';
import type { OperatorBus } from './operator-bus.ts';

/** Differences that the text lists; the page and the JSON lines have all. */
const textLines = 1_000;

/** Keeps a compare's report (text, JSON, every finding as a JSON line, a page) with its evidence; the folder. */
export async function keepCompare(
  context: Pick<CommandContext, 'dataFolder' | 'note' | 'topology'>,
  bus: OperatorBus,
  result: CompareResult,
  more: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { cluster } = context.topology();
  const { groups, compare, startedAt, durationMs } = result;
  const kept = keepReport(context.dataFolder, {
    kind: 'compare',
    id: compare,
    cluster,
    at: startedAt,
    summary: {
      verdict: verdictOf(groups),
      durationMs,
      ...more,
      groups: groups.map(({ group, markIndex, markHash, ruleSetVersion, tables }) => ({
        group,
        markIndex,
        markHash,
        ruleSetVersion,
        roots: Object.fromEntries(
          tables.flatMap(({ table, evidence }) => (evidence === undefined ? [] : [[table, evidence.root]])),
        ),
        rows: tables.reduce((sum, { rows }) => sum + rows, 0),
        differences: tables.reduce((sum, { differences, unlisted }) => sum + differences.length + unlisted, 0),
      })),
    },
    files: [
      { name: 'report.json', text: `${reportJson(result)}\n` },
      { name: 'report.txt', text: `${reportText(result, textLines)}\n` },
      { name: 'report.html', text: compareHtml(result, cluster) },
      {
        name: 'findings.jsonl',
        text: findingsOf(groups)
          .map((each) => `${JSON.stringify(each)}\n`)
          .join(''),
      },
    ],
  });
  if (!(await enterHead(bus, kept))) context.note('The chain of evidence was not entered into the log of config.');
  context.note(`Report ${compare}: ${kept.folder}`);
  return kept.folder;
}

/**
 * A compare's report by its name or path, as it was signed. Throws REPAIR_REFUSED when it was edited, is of another
 * cluster or not in the chain of evidence.
 */
export function loadCompare(
  { dataFolder, topology }: Pick<CommandContext, 'dataFolder' | 'topology'>,
  nameOrPath: string,
): CompareResult {
  const path = existsSync(nameOrPath) ? nameOrPath : join(reportFolder(dataFolder, nameOrPath), 'report.json');
  if (!existsSync(path))
    throw new SwitchError('REPAIR_REFUSED', `there is no report ${nameOrPath}: ${path} is missing`);
  const text = readFileSync(path, 'utf8');
  const sha256 = hash('sha256', text, 'hex');
  const publicKey = evidencePublicKey(dataFolder);
  const records = evidenceRecords(dataFolder).map((each) => openRecord(each.text, publicKey));
  const record = records.find(
    (each) =>
      'record' in each && each.record.kind === 'compare' && each.record.files.some((file) => file.sha256 === sha256),
  );
  if (record === undefined || !('record' in record)) {
    throw new SwitchError('REPAIR_REFUSED', `${path} is not as it was signed: it was edited, or is of another cluster`);
  }
  const { cluster } = topology();
  if (record.record.cluster !== cluster) {
    throw new SwitchError('REPAIR_REFUSED', `${path} is of cluster ${record.record.cluster}, this is ${cluster}`);
  }
  return JSON.parse(text) as CompareResult;
}
