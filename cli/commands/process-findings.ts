import type { Topology } from '../../base/topology.ts';
import type { ProcessStatus } from '../node/status.ts';
import { counted, listed, note, problem, type Finding } from './wording.ts';

/* What is to be said of a process's disk, broker and version, which no group is needed for. */

/** A copy whose file cannot grow stops: there should be time to act before. */
const leastFreeBytes = 1024 ** 3;
/** Checkpoints begin at a few megabytes: so much lies there only when they do not get through. */
const largestWalBytes = 512 * 1024 ** 2;

export function troubleWithDisk({ id, disk, counters }: ProcessStatus): Finding[] {
  const found: Finding[] = [];
  if (disk !== undefined && disk.freeBytes < leastFreeBytes) {
    found.push(
      ...problem(
        `${id}'s disk has only ${megabytes(disk.freeBytes)} free: make room. A copy that cannot be written stops and ` +
          'has to be rebuilt',
      ),
    );
  }
  for (const [file, bytes] of Object.entries(disk?.walBytes ?? {})) {
    if (bytes < largestWalBytes) continue;
    found.push(
      ...problem(
        `${id}'s ${file} has ${megabytes(bytes)} in its write-ahead log: something reads the file without end, or holds ` +
          'it locked, a shell or a backup. Reads get slower until it lets go',
      ),
    );
  }
  const unsynced = counters['unsynced-reversals'] ?? 0;
  if (unsynced > 0) {
    found.push(
      ...problem(
        `${id} could not write ${counted(unsynced, 'approval')} to take back into its edge.db: look at its disk. They are ` +
          'in its memory alone: do not stop it while it has approvals to take back',
      ),
    );
  }
  return found;
}

/** Edits of a node's config.db by the sqlite3 shell: those that wait, and the last that came to nothing. */
export function editsByShell({ id, edits }: ProcessStatus): Finding[] {
  const found: Finding[] = [];
  if (edits.waiting > 0) {
    found.push(
      ...note(
        `${id} has ${counted(edits.waiting, 'edit')} of its config.db by the sqlite3 shell that ` +
          `${edits.waiting === 1 ? 'waits' : 'wait'} for the leader of config`,
      ),
    );
  }
  if (edits.last !== null) {
    const what =
      edits.last.outcome === 'refused'
        ? `an edit of ${id}'s config.db by the sqlite3 shell was undone`
        : `what watches ${id}'s config.db for edits had been changed and was put in order`;
    found.push(...note(`${what}: ${edits.last.reason}. \`quadrant config shell\` lists what became of edits`));
  }
  return found;
}

/** Changes that an operator had kept at a node until `config` has a majority. */
export function changesQueued({ id, queue }: ProcessStatus): Finding[] {
  const found: Finding[] = [];
  if (queue.waiting > 0) {
    const [changes, wait] = [counted(queue.waiting, 'change'), queue.waiting === 1 ? 'waits' : 'wait'];
    found.push(...note(`${id} has ${changes} of the configuration queued that ${wait} for the leader of config`));
  }
  if (queue.last !== null) {
    found.push(
      ...note(`a change that was queued at ${id} was refused: ${queue.last}. \`quadrant config queue\` lists them`),
    );
  }
  return found;
}

/** Nodes that had to go to another site's broker ask every two seconds whether their own is back. */
export function awayFromTheirBrokers(topology: Topology, answered: readonly ProcessStatus[]): Finding[] {
  const byBroker = new Map<string, string[]>();
  for (const { id, site, broker } of answered) {
    const used = topology.brokers.find(({ client }) => `${client.host}:${client.port}` === broker);
    const own = topology.brokers.filter((each) => each.site === site).map((each) => each.id);
    if (used === undefined || used.site === site || own.length === 0) continue;
    const way = `broker ${used.id} of site ${used.site} instead of ${listed(own)}`;
    byBroker.set(way, [...(byBroker.get(way) ?? []), id]);
  }
  return [...byBroker].flatMap(([way, ids]) => {
    const use = ids.length === 1 ? 'uses' : 'use';
    return note(
      `${listed(ids)} ${use} ${way}: all is served, by a longer way. They return as soon as their own answers`,
    );
  });
}

export function versionsApart(answered: readonly ProcessStatus[]): Finding[] {
  const byVersion = new Map<string, string[]>();
  for (const { id, version } of answered) byVersion.set(version, [...(byVersion.get(version) ?? []), id]);
  if (byVersion.size < 2) return [];
  const versions = [...byVersion].map(([version, ids]) => `${version} on ${listed(ids)}`);
  return note(`the processes have different versions: ${versions.join('; ')}. Finish the upgrade`);
}

function megabytes(bytes: number): string {
  return `${Math.floor(bytes / 1024 ** 2)} MB`;
}
