import { statSync } from 'node:fs';
import { join } from 'node:path';

import { delay, waitFor } from '../base/clock.ts';
import type { Clock } from '../base/clock.ts';
import type { NodeId } from '../base/identifiers.ts';
import type { Random } from '../base/random.ts';
import { realRandom } from '../base/real.ts';
import type { Topology } from '../base/topology.ts';
import { readAcquirerCards } from '../cli/acquirer/cards.ts';
import type { AcquirerCard } from '../cli/acquirer/cards.ts';
import type { JournalLine } from '../cli/acquirer/journal.ts';
import { readJournal } from '../cli/acquirer/journal.ts';
import { runLoad } from '../cli/acquirer/load.ts';
import { sampleCardFile } from '../cli/acquirer/load-command.ts';
import { defaultMix } from '../cli/acquirer/load-mix.ts';
import type { LoadSummary } from '../cli/acquirer/load-summary.ts';
import { exchangesOf, firstApprovalAfter, longestGapMs, serviceIn } from '../cli/acquirer/outage.ts';
import type { Exchange, IsConcerned } from '../cli/acquirer/outage.ts';
import { AcquirerBooks } from '../cli/acquirer/recompute.ts';
import type { ExpectedBalance } from '../cli/acquirer/recompute.ts';
import { targetsOf } from '../cli/acquirer/usage.ts';
import { prepareCluster } from '../cli/cluster/first-start.ts';
import { startCluster } from '../cli/cluster/supervisor.ts';
import type { RunningCluster } from '../cli/cluster/supervisor.ts';
import { compareCluster } from '../cli/commands/compare.ts';
import { listRows } from '../cli/commands/config.ts';
import { drainNode } from '../cli/commands/drain.ts';
import { behind, findings, viewGroups } from '../cli/commands/situation.ts';
import type { ClusterAnswers, GroupView } from '../cli/commands/situation.ts';
import { askAll } from '../cli/commands/status.ts';
import { readBooks, verifyNode } from '../cli/commands/verify.ts';
import { OperatorBus } from '../cli/operator-bus.ts';
import { verdictOf } from '../compare/report.ts';
import { RangeTable } from '../config-db/routing.ts';
import type { FailoverRun, Fault, FinalFindings, Findings } from './failover-report.ts';

export interface FailoverOptions {
  readonly topology: Topology;
  readonly configFile: string;
  readonly dataFolder: string;
  /** Where the acquirer's journals go; outside the data folder. */
  readonly journalFolder: string;
  readonly fault: Fault;
  /** Undefined: the owner of the group with most traffic. */
  readonly target: NodeId | undefined;
  readonly runs: number;
  /** Requests per second. */
  readonly rate: number;
  /** Chooses moments and requests. */
  readonly random: Random;
  readonly clock: Clock;
  readonly natsServer?: string;
  readonly onOpened?: (cluster: RunningCluster) => void;
  readonly onRun: (run: FailoverRun) => void;
  readonly note: (line: string) => void;
}

const connections = 20;
/** Before the first fault, and at least and at most before the later ones. */
const firstWarmUpMs = 10_000;
const leastWarmUpMs = 4_000;
const mostWarmUpMs = 6_000;
/** How long what was stopped stays so; how long a drained node stays drained. */
const awayMs = 5_000;
const drainedMs = 2_000;
/** The load goes on for so long when everything is as before. */
const afterwardsMs = 2_000;
const recoveryTimeoutMs = 90_000;
const loadTimeoutMs = 10 * 60_000;
/** Beyond the deadline: an acquirer waits a little longer than the switch may take. */
const patienceMs = 1_000;
/** An edge counts from when it has read the request, and looks for requests that are out of time every 25 ms. */
const wayMs = 100;
/** Entries that a copy may be behind under load and count as caught up; compare waits for the rest. */
const usualLag = 500;

interface Range {
  readonly prefix: string;
  readonly group: string;
  readonly durability: string;
}

/** What does not change from run to run. */
interface Scene {
  readonly options: FailoverOptions;
  readonly cluster: RunningCluster;
  readonly cards: readonly AcquirerCard[];
  /** By line of the card file. */
  readonly rangeOfCard: ReadonlyMap<number, Range>;
  /** The longest deadline of the configured links. */
  readonly deadlineMs: number;
  /** Where each group is when nothing is wrong. */
  readonly home: ReadonlyMap<string, string>;
}

/** When things happened, by the clock that the journal has its times of. Epoch milliseconds. */
interface Moments {
  /** Just before the fault, and when all of it had happened. */
  readonly faultMs: number;
  readonly doneMs: number;
  /** What was stopped is started again, or the drain ended. */
  readonly endedMs: number;
  /** Everything is as before. */
  readonly returnedMs: number;
}

export interface FailoverResult {
  readonly runs: readonly FailoverRun[];
  readonly final: FinalFindings;
}

/** Runs the drill and stops the cluster. Throws when the cluster does not come back, or takes no load. */
export async function runFailoverDrill(options: FailoverOptions): Promise<FailoverResult> {
  const { topology, configFile, dataFolder, clock, natsServer, onOpened, note } = options;
  note('starting a cluster ...');
  const cluster = await startCluster({
    topology,
    configFile,
    dataFolder,
    print: () => undefined,
    clock,
    ...(natsServer === undefined ? {} : { natsServer }),
    ...(onOpened === undefined ? {} : { onOpened }),
  });
  try {
    await prepareCluster({ topology, configFile, dataFolder, print: () => undefined });
    const scene = await lookAround(options, cluster);
    const runs: FailoverRun[] = [];
    for (let run = 1; run <= options.runs; run++) {
      const result = await runOnce(scene, run);
      runs.push(result);
      options.onRun(result);
    }
    note('holding all journals against all nodes ...');
    return { runs, final: await judgeAll(scene) };
  } finally {
    await cluster.stop();
  }
}

async function lookAround(options: FailoverOptions, cluster: RunningCluster): Promise<Scene> {
  const cards = await readAcquirerCards(sampleCardFile);
  return withBus(options, async (bus) => {
    const [first] = bus.topology.nodes;
    if (first === undefined) throw new Error('nodes.yaml has no nodes');
    const rows = await listRows(bus, first.id);
    const text = (value: string | number | null | undefined): string => String(value ?? '');
    const ranges = new RangeTable(
      rows
        .filter(({ table }) => table === 'pan_range')
        .map(({ row }) => ({
          prefix: text(row['prefix']),
          group: text(row['group_id']),
          durability: text(row['durability']),
        })),
    );
    const deadlines = rows.flatMap(({ table, row }) => (table === 'acquirer_link' ? [Number(row['deadline_ms'])] : []));
    const groups = viewGroups(bus.topology, await askAll(bus));
    return {
      options,
      cluster,
      cards,
      rangeOfCard: new Map(cards.map(({ line, pan }) => [line, ranges.find(pan.reveal())])),
      deadlineMs: Math.max(...deadlines),
      home: new Map(groups.map(({ name, order, owner }) => [name, order[0] ?? owner ?? ''])),
    };
  });
}

async function runOnce(scene: Scene, run: number): Promise<FailoverRun> {
  const { options, cards, rangeOfCard, home, deadlineMs } = scene;
  const { fault, random, clock, rate, topology } = options;
  const target = options.target ?? ownerOfMostTraffic(scene);
  const before = await withBus(options, (bus) => untilAllIsHome(scene, bus));
  const groups = groupsConcerned(scene, target);
  const journalFile = join(options.journalFolder, `failover-${run}.journal.jsonl`);
  const end = new AbortController();
  const loading = runLoad({
    targets: targetsOf(topology, undefined),
    connections,
    cards,
    cardFile: sampleCardFile,
    mix: defaultMix,
    pace: { kind: 'rate', perSecond: rate },
    durationMs: loadTimeoutMs,
    // A run's terminals are named after it: no key comes back in a later run.
    seed: (random.below(1_000) + run * 1_000) % 36 ** 4,
    journalFile,
    requestTimeoutMs: deadlineMs + patienceMs,
    giveUpMs: 4 * deadlineMs,
    reverseUnanswered: true,
    drainMs: 4 * deadlineMs,
    clock,
    signal: end.signal,
  });
  const happening = (async (): Promise<Moments> => {
    try {
      await delay(clock, run === 1 ? firstWarmUpMs : leastWarmUpMs + random.below(mostWarmUpMs - leastWarmUpMs));
      if ((statSync(journalFile, { throwIfNoEntry: false })?.size ?? 0) === 0) {
        throw new Error('the cluster takes no load');
      }
      const moments = await makeFault(scene, fault, target);
      await delay(clock, afterwardsMs);
      return moments;
    } finally {
      end.abort();
    }
  })();
  const [summary, moments] = await Promise.all([loading, happening]);
  const lines: JournalLine[] = [];
  for await (const line of readJournal(journalFile)) lines.push(line);
  const exchanges = exchangesOf(lines);
  const ofGroups: IsConcerned = ({ card }) => groups.includes(rangeOfCard.get(card)?.group ?? '');
  const { after, compared, quorum, local } = await withBus(options, async (bus) => {
    const context = { clock, random: realRandom, note: () => undefined };
    // First, for its mark stands behind all that the journal is about: after it every copy has applied that.
    const verdict = verdictOf((await compareCluster(bus, context, undefined)).groups);
    const books = new AcquirerBooks(cards);
    for (const line of lines) books.enter(line);
    const found = await verify(scene, bus, books, new Map());
    return { ...found, compared: verdict, after: await askAll(bus) };
  });
  return {
    run,
    target,
    groups,
    ...outage(exchanges, moments, groups, ofGroups, rangeOfCard, fault === 'drain'),
    ...totals(exchanges, summary, deadlineMs),
    ownersChanged: viewGroups(topology, after)
      .filter((group) => home.has(group.name) && !isAsBefore(group, before))
      .map(({ name }) => name),
    quorum,
    local,
    adopted: salvaged(after, 'adopted') - salvaged(before, 'adopted'),
    voided: salvaged(after, 'voided') - salvaged(before, 'voided'),
    compared,
  };
}

function outage(
  exchanges: readonly Exchange[],
  { faultMs, doneMs, endedMs, returnedMs }: Moments,
  groups: readonly string[],
  ofGroups: IsConcerned,
  rangeOfCard: ReadonlyMap<number, Range>,
  untilReturned: boolean,
): Pick<FailoverRun, 'firstApprovalMs' | 'gapMs' | 'othersGapMs' | 'returnGapMs' | 'returnedMs' | 'latenciesMs'> {
  const during = { fromMs: faultMs - 1000, toMs: endedMs };
  const returning = { fromMs: endedMs, toMs: returnedMs + afterwardsMs };
  const firsts = groups
    .filter((group) => [...rangeOfCard.values()].some((range) => range.group === group))
    .map((group) => firstApprovalAfter(exchanges, doneMs, ({ card }) => rangeOfCard.get(card)?.group === group));
  const known = firsts.filter((atMs) => atMs !== undefined);
  return {
    firstApprovalMs: known.length < firsts.length || known.length === 0 ? undefined : Math.max(...known) - faultMs,
    gapMs: longestGapMs(exchanges, ofGroups, during),
    othersGapMs: longestGapMs(exchanges, (request) => request.card !== 0 && !ofGroups(request), during),
    returnGapMs: longestGapMs(exchanges, ofGroups, returning),
    returnedMs: returnedMs - endedMs,
    latenciesMs: serviceIn(exchanges, { fromMs: faultMs, toMs: untilReturned ? returning.toMs : endedMs }, Infinity)
      .latenciesMs,
  };
}

function totals(
  exchanges: readonly Exchange[],
  summary: LoadSummary,
  deadlineMs: number,
): Pick<FailoverRun, 'requests' | 'beyondDeadline' | 'inoperative' | 'failedAttempts' | 'faultyAnswers'> {
  const { requests, beyondDeadline, inoperative } = serviceIn(
    exchanges,
    { fromMs: 0, toMs: Infinity },
    deadlineMs + wayMs,
  );
  const { late: _late, ...faulty } = summary.unexpected;
  const sum = (counts: Readonly<Record<string, number>>): number =>
    Object.values(counts).reduce((total, count) => total + count, 0);
  return {
    requests,
    beyondDeadline,
    inoperative,
    failedAttempts: sum(summary.failedAttempts),
    faultyAnswers: sum(faulty),
  };
}

// ---- the fault -------------------------------------------------------------------------------------------------------

/** Makes the fault, ends it after a while, and waits until everything is as before. */
async function makeFault(scene: Scene, fault: Fault, target: NodeId): Promise<Moments> {
  const { options, cluster } = scene;
  const { clock } = options;
  if (fault === 'drain') return drainAndBack(scene, target);
  const broker = brokerOf(options.topology, target);
  const ids = fault === 'broker' ? [broker] : fault === 'kill-broker' ? [broker, target] : [target];
  const signal = fault === 'stop' ? 'SIGTERM' : 'SIGKILL';
  const faultMs = clock.wallMs();
  await Promise.all(ids.map((id) => cluster.kill(id, signal)));
  const doneMs = clock.wallMs();
  await delay(clock, awayMs);
  const endedMs = clock.wallMs();
  for (const id of ids) await cluster.restart(id);
  await withBus(options, (bus) => untilAllIsHome(scene, bus));
  // A node that is told to end hands over first: it counts from there, for nobody waits for its end.
  return { faultMs, doneMs: fault === 'stop' ? faultMs : doneMs, endedMs, returnedMs: clock.wallMs() };
}

async function drainAndBack(scene: Scene, target: NodeId): Promise<Moments> {
  const { options } = scene;
  const { clock, note } = options;
  return withBus(options, async (bus) => {
    const faultMs = clock.wallMs();
    const { leads } = await drainNode(bus, { clock, note }, target, recoveryTimeoutMs / 3);
    if (leads.length > 0) throw new Error(`${target} was drained and still owns ${leads.join(', ')}`);
    const doneMs = clock.wallMs();
    await delay(clock, drainedMs);
    const endedMs = clock.wallMs();
    await bus.call(target, 'node.drain', { on: false });
    await untilAllIsHome(scene, bus);
    return { faultMs, doneMs, endedMs, returnedMs: clock.wallMs() };
  });
}

/** Waits until every process answers and every group is whole and where it belongs; gives what they answered then. */
async function untilAllIsHome({ options, home }: Scene, bus: OperatorBus): Promise<ClusterAnswers> {
  const { topology, clock } = options;
  let last: ClusterAnswers = new Map();
  return waitFor(
    clock,
    async () => {
      last = await askAll(bus);
      const groups = viewGroups(topology, last);
      const whole = [...last.values()].every(
        (status) => status !== undefined && !status.draining && status.rebuilding.length === 0,
      );
      const inPlace = [...home].every(([name, owner]) => groups.find((group) => group.name === name)?.owner === owner);
      return whole && inPlace && groups.every((group) => isWhole(group, last)) ? last : undefined;
    },
    {
      timeoutMs: recoveryTimeoutMs,
      everyMs: 100,
      onTimeout: () => {
        const said = findings(topology, last).map(({ text }) => text);
        return new Error(`after ${recoveryTimeoutMs / 1000} s the cluster is not as before: ${said.join('; ')}`);
      },
    },
  );
}

function isWhole(group: GroupView, answers: ClusterAnswers): boolean {
  return [...answers].every(([id, status]) => {
    const copy = group.copies.get(id);
    if (status === undefined || copy === undefined) return false;
    return copy.votes && copy.salvage.pending === 0 && behind(group, id, status.role) <= usualLag;
  });
}

/** The operator's connection may be through the very broker that is killed: each phase has its own. */
async function withBus<T>(
  { topology, dataFolder }: Pick<FailoverOptions, 'topology' | 'dataFolder'>,
  action: (bus: OperatorBus) => Promise<T>,
): Promise<T> {
  const bus = await OperatorBus.connect(topology, dataFolder);
  try {
    return await action(bus);
  } finally {
    await bus.close();
  }
}

// ---- who is concerned ------------------------------------------------------------------------------------------------

/** The load draws cards evenly: most traffic is where most cards are. */
function ownerOfMostTraffic({ rangeOfCard, home, options }: Scene): NodeId {
  const cards = new Map<string, number>();
  for (const { group } of rangeOfCard.values()) cards.set(group, (cards.get(group) ?? 0) + 1);
  const [most] = [...cards].sort(([one, its], [other, others]) => others - its || (one < other ? -1 : 1));
  const owner = options.topology.nodes.find(({ id }) => id === home.get(most?.[0] ?? ''));
  if (owner === undefined) throw new Error('no node owns the group with most cards');
  return owner.id;
}

/** Groups of the target; when a broker alone dies, those of every node of its site. */
function groupsConcerned({ options, home }: Scene, target: NodeId): readonly string[] {
  const { fault, topology } = options;
  const site = topology.nodes.find(({ id }) => id === target)?.site;
  const nodes: readonly string[] =
    fault === 'broker' ? topology.nodes.filter((node) => node.site === site).map(({ id }) => id) : [target];
  return [...home].filter(([, owner]) => nodes.includes(owner)).map(([group]) => group);
}

function brokerOf(topology: Topology, target: NodeId): string {
  const site = topology.nodes.find(({ id }) => id === target)?.site;
  const broker = topology.brokers.find((candidate) => candidate.site === site);
  if (broker === undefined) throw new Error(`${target} has no broker at its site`);
  return broker.id;
}

function isAsBefore({ name, owner, term }: GroupView, before: ClusterAnswers): boolean {
  return [...before.values()].some(
    (status) =>
      status?.id === owner &&
      status?.groups.some((group) => group.name === name && group.role === 'leader' && group.term === term) === true,
  );
}

function salvaged(answers: ClusterAnswers, outcome: 'adopted' | 'voided'): number {
  const groups = [...answers.values()].flatMap((status) => status?.groups ?? []);
  return groups.reduce((total, { salvage }) => total + salvage[outcome], 0);
}

// ---- what is in the logs ---------------------------------------------------------------------------------------------

async function verify(
  { cards, rangeOfCard, options }: Scene,
  bus: OperatorBus,
  books: AcquirerBooks,
  balances: ReadonlyMap<number, ExpectedBalance>,
): Promise<FinalFindings> {
  const isLocal = (line: number): boolean => rangeOfCard.get(line)?.durability === 'local';
  const approvals = books.approvals();
  const findingsOf = async (local: boolean): Promise<{ readonly found: Findings; readonly wrong: number }> => {
    const these = approvals.filter(({ cardLine }) => isLocal(cardLine) === local);
    const expected = new Map([...balances].filter(([line]) => isLocal(line) === local));
    const verified = await Promise.all(
      options.topology.nodes.map(({ id }) => verifyNode(bus, id, cards, these, expected)),
    );
    const distinct = (keys: (one: (typeof verified)[number]) => readonly string[]): number =>
      new Set(verified.flatMap(keys)).size;
    return {
      found: {
        approvals: these.length,
        missing: distinct(({ missing }) => missing),
        doubled: distinct(({ doubled }) => doubled),
        contradicted: distinct(({ contradicted }) => contradicted),
      },
      wrong: distinct(({ wrongBalances }) => wrongBalances),
    };
  };
  const [quorum, local] = await Promise.all([findingsOf(false), findingsOf(true)]);
  return { quorum: quorum.found, local: local.found, wrongBalances: quorum.wrong, wrongLocalBalances: local.wrong };
}

async function judgeAll(scene: Scene): Promise<FinalFindings> {
  const { options, cards } = scene;
  const journals = Array.from({ length: options.runs }, (_, index) =>
    join(options.journalFolder, `failover-${index + 1}.journal.jsonl`),
  );
  const books = await readBooks(cards, journals);
  return withBus(options, (bus) => verify(scene, bus, books, books.balances()));
}
