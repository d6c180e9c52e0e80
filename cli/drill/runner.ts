import { statSync } from 'node:fs';
import { join } from 'node:path';

import { delay, type Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { realRandom } from '../../base/real.ts';
import { verdictOf } from '../../compare/report.ts';
import { readJournal } from '../acquirer/journal.ts';
import type { JournalLine } from '../acquirer/journal.ts';
import { runLoad } from '../acquirer/load.ts';
import { defaultMix } from '../acquirer/load-mix.ts';
import type { LoadControl } from '../acquirer/load-options.ts';
import type { LoadSummary } from '../acquirer/load-summary.ts';
import { undecidedCodes } from '../acquirer/message-parts.ts';
import { exchangesOf } from '../acquirer/outage.ts';
import { AcquirerBooks } from '../acquirer/recompute.ts';
import type { ExpectedBalance } from '../acquirer/recompute.ts';
import { targetsOf } from '../acquirer/usage.ts';
import { compareCluster } from '../commands/compare.ts';
import { findings, viewGroups } from '../commands/situation.ts';
import type { ClusterAnswers } from '../commands/situation.ts';
import { askAll } from '../commands/status.ts';
import { readBooks, verifyNode } from '../commands/verify.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { Act, Aim, DrillKind, Fault, FaultOptions, Ground, Scene } from './fault.ts';
import { outageFigures } from './figures.ts';
import type { Contradictions, DrillRun, FinalFindings, Findings, Moments } from './figures.ts';
import { checksOf, limitsText } from './limits.ts';
import type { LimitSet } from './limits.ts';
import { sampleTopology } from './place.ts';
import type { DrillReport } from './report.ts';
import { isAsBefore, lookAround, untilAllIsHome, withBus } from './scene.ts';

/**
 * One drill: several runs over the same cluster and data. Each run is a load at all acquirers' ports and, in the middle
 * of it, the fault; it is ended under the same load; when everything is as before, the acquirer's journal is read and
 * held against every node's log, and all copies are compared. At the end all journals are held against all nodes.
 */

/** A drill as it was asked for. */
export interface DrillRequest {
  readonly kind: DrillKind;
  readonly options: FaultOptions;
  readonly runs: number;
  /** Requests per second. */
  readonly rate: number;
  readonly seed: number;
  readonly limits: LimitSet;
  /** Undefined: the fault's own. */
  readonly holdMs: number | undefined;
  /** Load before the fault; undefined: longer in the first run, by chance in the others. */
  readonly warmUpMs: number | undefined;
  /** Ownership is asked to return when everything is up, which it would do by itself, but later. */
  readonly hurry: boolean;
}

export interface DrillOptions extends DrillRequest {
  readonly fault: Fault;
  /** What `options` say, for the report. */
  readonly variant: string;
  readonly onAim?: (aim: Aim) => void;
  readonly onRun?: (run: DrillRun, aim: Aim) => void;
}

const connections = 20;
/** Before the first fault, and at least and at most before the later ones. */
const firstWarmUpMs = 10_000;
const leastWarmUpMs = 4_000;
const mostWarmUpMs = 6_000;
/** The load goes on for so long when everything is as before. */
const afterwardsMs = 1_500;
const loadTimeoutMs = 10 * 60_000;
/** Beyond the deadline: an acquirer waits a little longer than the switch may take. */
const patienceMs = 1_000;
/** How long a cluster that the drill did not start may take to be whole before the drill begins. */
const wholeTimeoutMs = 5_000;
/** How long edges may take, when the load is over, to bring to the owners what these have to enter; and how often they are asked. */
const deliveryTimeoutMs = 60_000;
const askAgainMs = 500;
const terminalNames = 36 ** 4;

/** Throws DRILL_REFUSED when something is wrong with the cluster before anything was done to it. */
export async function runDrill(ground: Ground, drill: DrillOptions): Promise<DrillReport> {
  const { clock } = ground;
  const startedAtMs = clock.wallMs();
  const startedMs = clock.monotonicMs();
  await refuseUnlessWhole(ground);
  const scene = await lookAround(ground);
  const aim = drill.fault.aim(scene, drill.options);
  drill.onAim?.(aim);
  const runs: DrillRun[] = [];
  for (let run = 1; run <= drill.runs; run++) {
    const result = await runOnce(scene, drill, aim, run);
    runs.push(result);
    drill.onRun?.(result, aim);
  }
  ground.note('holding all journals against all nodes ...');
  const final = await judgeAll(scene);
  const conditions = { rate: drill.rate, runs: runs.length, sampleTimings: hasSampleTimings(ground) };
  const checks = checksOf(aim.expectation, drill.limits, runs, final);
  return {
    drill: drill.kind,
    variant: drill.variant,
    expectation: aim.expectation,
    cluster: ground.topology.cluster,
    ownCluster: ground.own,
    startedAt: new Date(startedAtMs).toISOString(),
    durationMs: Math.round(clock.monotonicMs() - startedMs),
    seed: drill.seed,
    conditions,
    limits: { set: drill.limits, text: limitsText(drill.limits, conditions) },
    runs,
    final,
    checks,
    passed: checks.every(({ good }) => good),
    journals: undefined,
  };
}

/** A node that is down already, a broker that is away, a group that is elsewhere: the drill would measure that, too. */
async function refuseUnlessWhole(ground: Ground): Promise<void> {
  await withBus(ground, async (bus) => {
    const groups = viewGroups(bus.topology, await askAll(bus));
    const home = new Map(groups.map(({ name, order, owner }) => [name, order[0] ?? owner ?? '']));
    const scene = { ground, home, cards: [], rangeOfCard: new Map<number, never>(), deadlineMs: 0 };
    try {
      await untilAllIsHome(scene, bus, { timeoutMs: ground.own ? 60_000 : wholeTimeoutMs });
    } catch (error) {
      const said = findings(bus.topology, await askAll(bus)).map(({ text }) => text);
      const what = said.length === 0 ? 'not every group is where it belongs' : said.join('; ');
      throw new SwitchError('DRILL_REFUSED', `the cluster is not whole before the drill: ${what}`, { cause: error });
    }
  });
}

function hasSampleTimings({ topology }: Ground): boolean {
  return JSON.stringify(topology.timings) === JSON.stringify(sampleTopology(topology.cluster).timings);
}

async function runOnce(scene: Scene, drill: DrillOptions, aim: Aim, run: number): Promise<DrillRun> {
  const { ground, rangeOfCard, deadlineMs } = scene;
  const { clock, topology } = ground;
  await drill.fault.prepare?.({ scene, aim, options: drill.options });
  const before = await withBus(ground, (bus) => untilAllIsHome(scene, bus));
  const journalFile = join(ground.folder, `drill-${ground.journals.length + 1}-${drill.kind}.journal.jsonl`);
  ground.journals.push(journalFile);
  const noticed = new Set<string>();
  const { summary, moments } = await underLoad(scene, drill, journalFile, run, (load) =>
    makeFault({ scene, aim, options: drill.options, load, holdMs: drill.holdMs ?? drill.fault.holdMs }, drill, noticed),
  );
  const lines: JournalLine[] = [];
  for await (const line of readJournal(journalFile)) lines.push(line);
  const books = new AcquirerBooks(scene.cards, { undecidedCodes });
  for (const line of lines) books.enter(line);
  const { after, compared, quorum, local } = await withBus(ground, async (bus) => {
    // First, for its mark stands behind all that the journal is about: after it every copy has applied that.
    const context = { clock, random: realRandom, note: () => undefined };
    const verdict = verdictOf((await compareCluster(bus, context, undefined)).groups);
    const found = await verify(scene, bus, books, undefined);
    return { ...found, compared: verdict, after: await askAll(bus) };
  });
  // Contradictions are counted from the journal, by range.
  const { late, contradicting: _contradicting, ...faulty } = summary.unexpected;
  return {
    run,
    target: aim.target,
    groups: aim.groups,
    ...outageFigures(exchangesOf(lines), moments, {
      ...aim,
      groupOfCard: new Map([...rangeOfCard].map(([line, { group }]) => [line, group])),
      deadlineMs,
      requestTimeoutMs: deadlineMs + patienceMs,
      afterwardsMs,
    }),
    failedAttempts: sum(summary.failedAttempts),
    faultyAnswers: sum(faulty),
    lateAnswers: late,
    unanswered: summary.unanswered,
    contradictions: contradictionsOf(scene, books),
    ownersChanged: viewGroups(topology, after)
      .filter((group) => scene.home.has(group.name) && !isAsBefore(group, before))
      .map(({ name }) => name),
    rebuilt: { expected: aim.rebuilt.length, noticed: noticed.size },
    quorum,
    local,
    adopted: salvaged(after, 'adopted') - salvaged(before, 'adopted'),
    voided: salvaged(after, 'voided') - salvaged(before, 'voided'),
    compared,
  };
}

/** Puts load on all ports while `happening` goes on, after a time of warming up. */
async function underLoad(
  scene: Scene,
  drill: DrillOptions,
  journalFile: string,
  run: number,
  happening: (load: LoadControl) => Promise<Moments>,
): Promise<{ readonly summary: LoadSummary; readonly moments: Moments }> {
  const { ground, cards, deadlineMs } = scene;
  const { clock, random } = ground;
  const end = new AbortController();
  const begun = Promise.withResolvers<LoadControl>();
  const loading = runLoad({
    targets: targetsOf(ground.topology, undefined),
    connections,
    cards,
    cardFile: ground.cardFile,
    mix: defaultMix,
    pace: { kind: 'rate', perSecond: drill.rate },
    durationMs: loadTimeoutMs,
    // A run's terminals are named after it: no key comes back in a later run.
    seed: (random.below(1_000) + ground.journals.length * 1_000) % terminalNames,
    journalFile,
    requestTimeoutMs: deadlineMs + patienceMs,
    giveUpMs: 4 * deadlineMs,
    reverseUnanswered: true,
    drainMs: 4 * deadlineMs,
    clock,
    signal: end.signal,
    onControl: begun.resolve,
  });
  const chance = leastWarmUpMs + random.below(mostWarmUpMs - leastWarmUpMs);
  const happened = (async (): Promise<Moments> => {
    try {
      const load = await begun.promise;
      await delay(clock, drill.warmUpMs ?? (run === 1 ? firstWarmUpMs : chance));
      if ((statSync(journalFile, { throwIfNoEntry: false })?.size ?? 0) === 0) {
        throw new Error('the cluster takes no load');
      }
      const moments = await happening(load);
      await delay(clock, afterwardsMs);
      return moments;
    } finally {
      end.abort();
    }
  })();
  loading.catch(begun.reject);
  const [summary, moments] = await Promise.all([loading, happened]);
  return { summary, moments };
}

/** Makes the fault, ends it after a while, and waits until everything is as before. */
async function makeFault(act: Act, drill: DrillOptions, noticed: Set<string>): Promise<Moments> {
  const { scene, aim, holdMs } = act;
  const { clock } = scene.ground;
  const faultMs = clock.wallMs();
  await drill.fault.inject(act);
  const doneMs = clock.wallMs();
  await delay(clock, holdMs);
  const endedMs = clock.wallMs();
  const ending = drill.fault.heal(act);
  await Promise.all([ending, seeRebuilt(scene, aim, ending, noticed, drill.hurry)]);
  await withBus(scene.ground, (bus) => untilAllIsHome(scene, bus, { hurry: drill.hurry }));
  // A node that is told to end hands over first: it counts from there, for nobody waits for its end.
  const countsAtOnce = drill.kind === 'stop' || drill.kind === 'drain' || drill.kind === 'upgrade';
  return { faultMs, doneMs: countsAtOnce ? faultMs : doneMs, endedMs, returnedMs: clock.wallMs() };
}

/** Watches a node whose disk went back until it does not vote, which has to be so at some time before it is whole. */
async function seeRebuilt(
  scene: Scene,
  aim: Aim,
  ending: Promise<void>,
  noticed: Set<string>,
  hurry: boolean,
): Promise<void> {
  if (aim.rebuilt.length === 0) return;
  await ending;
  await withBus(scene.ground, (bus) =>
    untilAllIsHome(scene, bus, {
      hurry,
      onLook: (answers) => {
        for (const id of aim.rebuilt) {
          if (answers.get(id)?.groups.some(({ votes }) => !votes) === true) noticed.add(id);
        }
      },
    }),
  );
}

function contradictionsOf({ rangeOfCard }: Scene, books: AcquirerBooks): DrillRun['contradictions'] {
  const of = (durability: string): Contradictions => {
    const these = books
      .contradictions()
      .filter(
        ({ cardLine }) => (rangeOfCard.get(cardLine)?.durability === 'local' ? 'local' : 'quorum') === durability,
      );
    const approvedTwice = these.filter((each) => each.approvedTwice).length;
    return { approvedTwice, others: these.length - approvedTwice };
  };
  return { quorum: of('quorum'), local: of('local') };
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

function salvaged(answers: ClusterAnswers, outcome: 'adopted' | 'voided'): number {
  const groups = [...answers.values()].flatMap((status) => status?.groups ?? []);
  return groups.reduce((total, { salvage }) => total + salvage[outcome], 0);
}

// ---- what is in the logs ---------------------------------------------------------------------------------------------

/** Without balances: the journal is not all that happened to the cards. */
async function verify(
  { cards, rangeOfCard, ground }: Scene,
  bus: OperatorBus,
  books: AcquirerBooks,
  balances: ReadonlyMap<number, ExpectedBalance> | undefined,
): Promise<FinalFindings> {
  const isLocal = (line: number): boolean => rangeOfCard.get(line)?.durability === 'local';
  const approvals = books.approvals();
  const findingsOf = async (local: boolean): Promise<{ readonly found: Findings; readonly wrong: number }> => {
    const these = approvals.filter(({ cardLine }) => isLocal(cardLine) === local);
    const expected = new Map([...(balances ?? [])].filter(([line]) => isLocal(line) === local));
    const verified = await Promise.all(
      ground.topology.nodes.map(({ id }) => verifyNode(bus, id, cards, these, expected)),
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
  const known = balances !== undefined;
  return {
    undelivered: undelivered(await askAll(bus)),
    quorum: quorum.found,
    local: local.found,
    wrongBalances: known ? quorum.wrong : undefined,
    wrongLocalBalances: known ? local.wrong : undefined,
  };
}

async function judgeAll(scene: Scene): Promise<FinalFindings> {
  const { ground, cards } = scene;
  const books = await readBooks(cards, ground.journals);
  return withBus(ground, async (bus) => {
    await untilDelivered(bus, ground.clock);
    return verify(scene, bus, books, ground.own ? books.balances() : undefined);
  });
}

/** What edges have yet to take back, or to have entered, stands otherwise in the logs than the acquirer was told. */
function undelivered(answers: ClusterAnswers): number {
  const processes = [...answers.values()].filter((status) => status !== undefined);
  return processes.reduce((total, { reversalsDue, standIn }) => total + reversalsDue + standIn.pending, 0);
}

/** Waits for edges to have brought it to the owners; whoever waited in vain finds it counted. */
async function untilDelivered(bus: OperatorBus, clock: Clock): Promise<void> {
  const untilMs = clock.monotonicMs() + deliveryTimeoutMs;
  while (undelivered(await askAll(bus)) > 0 && clock.monotonicMs() < untilMs) await delay(clock, askAgainMs);
}
