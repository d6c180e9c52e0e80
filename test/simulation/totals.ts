import { faultKinds } from './faults.ts';
import { configurationCrashPoints, crashPoints } from './process.ts';
import type { RunResult } from './run-seed.ts';

/** What a run has to have at least, whatever its seed. */
const leastSimulatedMs = 60_000;
const leastRequests = 500;
const leastFaults = 5;

/** What must have happened at least once over the seeds, or the simulation does not try what it claims to. */
export const mustHappen: readonly string[] = [
  'election',
  'deposition',
  'transfer',
  'truncation',
  'trim',
  'snapshot installed',
  'fold compared',
  'adopted entry',
  'voided entry',
  'undelivered entry',
  'standIn entry',
  'expired entry',
  'range moved',
  'carve',
  'merge',
  'group added',
  'claim sent on',
  'edge.db: due',
  'edge.db: stand-in',
  'edge.db: restriction',
  'card change: restrict',
  'card change: lift',
  'card change: set',
  'card change: replace',
  'configuration change entered',
  'configuration change refused',
  'configuration change: VERSION_CONFLICT',
  'configuration change: CONFIGURATION_REFUSED',
  'configuration change: OWNER_UNREACHABLE',
  'queued change entered',
  'queued change refused',
  'shell edit: entered',
  'shell edit: refused',
  'shell transaction left open',
  'killed after a shell edit',
  'trial approved',
  'trial declined',
  'for an old disk',
  'for an empty disk',
  ...faultKinds,
  ...[...crashPoints, ...configurationCrashPoints].map((point) => `crash ${point}`),
];

/** What many runs come to together. */
export class Totals {
  seeds = 0;
  committed = 0;
  readonly events = new Map<string, number>();
  readonly counts = new Map<string, number>();
  /** Runs that were too short, too calm or too quiet: seed and why. */
  readonly slight: string[] = [];

  add({ seed, simulatedMs, committed, events, counts, violation }: RunResult): void {
    this.seeds += 1;
    this.committed += committed;
    for (const [name, count] of Object.entries(events)) this.events.set(name, (this.events.get(name) ?? 0) + count);
    for (const [name, count] of Object.entries(counts)) this.counts.set(name, (this.counts.get(name) ?? 0) + count);
    if (violation !== undefined) return;
    const faults = faultKinds.reduce((sum, kind) => sum + (events[kind] ?? 0), 0);
    const requests = counts['requests'] ?? 0;
    if (simulatedMs < leastSimulatedMs) this.slight.push(`seed ${seed}: ${simulatedMs} simulated ms`);
    if (requests < leastRequests) this.slight.push(`seed ${seed}: ${requests} requests`);
    if (faults < leastFaults) this.slight.push(`seed ${seed}: ${faults} faults`);
  }

  /** What ought to have happened and never did. */
  get missing(): readonly string[] {
    return mustHappen.filter((name) => (this.events.get(name) ?? 0) === 0);
  }

  /** Lines for a person: how often each thing happened. */
  describe(): string {
    const table = (counts: ReadonlyMap<string, number>): string =>
      [...counts]
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([name, count]) => `  ${String(count).padStart(10)}  ${name}`)
        .join('\n');
    return [
      `${this.seeds} seeds, ${this.committed} committed entries`,
      'What acquirers sent and got:',
      table(this.counts),
      'What happened:',
      table(this.events),
    ].join('\n');
  }
}
