import { SwitchError } from '../../base/errors.ts';
import { hasEvidenceKey } from '../cluster/secrets.ts';
import type { CommandContext } from '../context.ts';
import { enterHead, keepReport } from '../evidence-folder.ts';
import { reportHtml } from './html.ts';
import { reportJson, reportText, type DrillReport } from './report.ts';

/**
 * Enters a drill's report into the chain of evidence of DATA, if there is one: an own cluster's drill says something of
 * the installation that it was made with. Gives the report's name there.
 */
export async function chainReport(
  context: Pick<CommandContext, 'dataFolder' | 'random' | 'withCluster' | 'note'>,
  report: DrillReport,
): Promise<string | undefined> {
  const { dataFolder, random } = context;
  if (!hasEvidenceKey(dataFolder)) return undefined;
  const { drill, variant, cluster, ownCluster, startedAt, passed, seed, conditions, runs, checks } = report;
  const id = `drill-${drill}-${random.bytes(4).toString('hex')}`;
  const failed = checks.filter(({ good }) => !good).map(({ claim }) => claim);
  const kept = keepReport(dataFolder, {
    kind: 'drill',
    id,
    cluster,
    at: startedAt,
    summary: { drill, variant, ownCluster, passed, seed, runs: runs.length, rate: conditions.rate, failed },
    files: [
      { name: 'report.json', text: `${reportJson(report)}\n` },
      { name: 'report.txt', text: reportText(report) },
      { name: 'report.html', text: reportHtml([report]) },
    ],
  });
  let isEntered = false;
  try {
    isEntered = await context.withCluster((bus) => enterHead(bus, kept));
  } catch (error) {
    // The cluster of DATA need not run for a drill on one of its own.
    if (!(error instanceof SwitchError)) throw error;
  }
  if (!isEntered)
    context.note('The chain of evidence was not entered into the log of config: the next report does it.');
  return id;
}
