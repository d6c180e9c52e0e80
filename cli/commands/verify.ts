import type { Command } from 'commander';

import { waitFor } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { realClock } from '../../base/real.ts';
import { readAcquirerCards, type AcquirerCard } from '../acquirer/cards.ts';
import { readJournal } from '../acquirer/journal.ts';
import { AcquirerBooks, type Approval, type ExpectedBalance } from '../acquirer/recompute.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, nodeOf, type CommandContext } from '../context.ts';
import type { LedgerCard, LedgerTransaction, LedgerVoided } from '../node/operations.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';

/** What an acquirer's journals and one node's copies say of each other. */
export interface NodeVerification {
  readonly node: string;
  readonly approvals: number;
  /** Approvals that the acquirer received and the node's copies do not have once, as approved, with the same DE 38. */
  readonly missing: readonly string[];
  /** `local` approvals that were lost with an owner and voided since: listed, with the reason, and no fault (R9). */
  readonly voided: readonly string[];
  readonly doubled: readonly string[];
  readonly contradicted: readonly string[];
  readonly cards: number;
  /** Cards whose balance the journals leave open (requests without an answer). */
  readonly uncertain: number;
  readonly wrongBalances: readonly string[];
  /**
   * Balances that are not what the journals alone say, of cards that had `local` entries lost with an owner and adopted
   * or voided since: what the acquirer was told meanwhile was decided without them. Listed, and no fault (R9).
   */
  readonly resolvedBalances: readonly string[];
}

const perCall = 1000;

/** Holds what acquirers saw against what a node has: an independent recomputation of approvals and balances. */
export async function verifyNode(
  bus: OperatorBus,
  node: NodeId,
  cards: readonly AcquirerCard[],
  approvals: readonly Approval[],
  balances: ReadonlyMap<number, ExpectedBalance>,
): Promise<NodeVerification> {
  await waitUntilApplied(bus, node);
  const found = new Map<string, LedgerTransaction[]>();
  for (const keys of chunks(approvals.map((approval) => approval.key))) {
    const rows = (await bus.call(node, 'ledger.transactions', { keys })) as LedgerTransaction[];
    for (const row of rows) found.set(row.key, [...(found.get(row.key) ?? []), row]);
  }
  const notThere: string[] = [];
  const doubled: string[] = [];
  const otherwise: string[] = [];
  for (const approval of approvals) {
    const rows = found.get(approval.key) ?? [];
    if (rows.length === 0) notThere.push(approval.key);
    else if (rows.length > 1) doubled.push(approval.key);
    else if (!agrees(approval, rows[0])) otherwise.push(approval.key);
  }
  const reasons = new Map<string, string>();
  for (const keys of chunks([...notThere, ...otherwise])) {
    const rows = (await bus.call(node, 'ledger.voided', { keys })) as LedgerVoided[];
    for (const { key, reason } of rows) reasons.set(key, reason);
  }
  const concerned = cards.filter((card) => balances.has(card.line));
  const wrongBalances: string[] = [];
  const resolvedBalances: string[] = [];
  let uncertain = 0;
  for (const chunk of chunks(concerned)) {
    const rows = (await bus.call(node, 'ledger.cards', {
      pans: chunk.map((card) => card.pan.reveal()),
    })) as LedgerCard[];
    chunk.forEach((card, position) => {
      const expected = balances.get(card.line);
      const row = rows[position];
      if (expected === undefined || row === undefined) return;
      if (expected.uncertain) uncertain += 1;
      if (fits(BigInt(row.held), expected.heldRange) && fits(BigInt(row.posted), expected.postedRange)) return;
      (row.resolutions > 0 ? resolvedBalances : wrongBalances).push(
        `line ${card.line} (${card.pan.masked()}): held ${row.held}, posted ${row.posted}; ` +
          `expected held ${expected.held}, posted ${expected.posted}`,
      );
    });
  }
  return {
    node,
    approvals: approvals.length,
    missing: notThere.filter((key) => !reasons.has(key)),
    voided: [...reasons].map(([key, reason]) => `${key} (${reason})`),
    doubled,
    contradicted: otherwise.filter((key) => !reasons.has(key)),
    cards: concerned.length,
    uncertain,
    wrongBalances,
    resolvedBalances,
  };
}

/** The node's folds may be a moment behind what was answered: waits until they hold all that is committed by now. */
async function waitUntilApplied(bus: OperatorBus, node: NodeId): Promise<void> {
  const statuses = await Promise.all(bus.topology.nodes.map(({ id }) => bus.status(id)));
  const commits = statuses.flatMap((status) => (status?.groups ?? []).map(({ name, commit }) => ({ name, commit })));
  await waitFor(
    realClock,
    async () => {
      const groups = (await bus.status(node))?.groups ?? [];
      const applied = new Map(groups.map((group) => [group.name, group.applied]));
      return commits.every(({ name, commit }) => (applied.get(name) ?? 0) >= commit) || undefined;
    },
    {
      timeoutMs: 30_000,
      onTimeout: () => new SwitchError('NODE_UNREACHABLE', `${node} is behind and does not catch up`),
    },
  );
}

function agrees(approval: Approval, row: LedgerTransaction | undefined): boolean {
  if (row === undefined) return false;
  return (
    row.responseCode === approval.responseCode &&
    (approval.authorizationCode === '' || row.authorizationCode === approval.authorizationCode)
  );
}

function fits(value: bigint, [least, most]: readonly [bigint, bigint]): boolean {
  return value >= least && value <= most;
}

function* chunks<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let from = 0; from < all.length; from += perCall) yield all.slice(from, from + perCall);
}

/** Journals are read line by line; only what the books need of them is kept. */
export async function readBooks(cards: readonly AcquirerCard[], journals: readonly string[]): Promise<AcquirerBooks> {
  const books = new AcquirerBooks(cards);
  for (const journal of journals) for await (const line of readJournal(journal)) books.enter(line);
  return books;
}

export function registerVerify(program: Command, run: RunCommand): void {
  program
    .command('verify')
    .argument('<journal...>', 'journals that `quadrant load` wrote, the oldest first')
    .requiredOption('--cards <file>', 'the card file that the load ran with')
    .option('--node <id>', 'only this node (default: every node)')
    .option('--json', 'as JSON')
    .description("holds acquirers' journals against the nodes' copies: approvals present once, balances as recomputed")
    .addHelpText('after', '\nThe journals must be all that has happened to the cards since they came onto file.')
    .action((journals: string[], options: { cards: string; node?: string; json?: boolean }) =>
      run((context) => verify(context, journals, options)),
    );
}

async function verify(
  context: CommandContext,
  journals: readonly string[],
  options: { readonly cards: string; readonly node?: string; readonly json?: boolean },
): Promise<number> {
  const cards = await readAcquirerCards(options.cards);
  if (cards.length === 0) throw new UsageError(`${options.cards} has no cards`);
  const books = await readBooks(cards, journals);
  const results = await context.withCluster(async (bus) => {
    const nodes =
      options.node === undefined ? bus.topology.nodes.map(({ id }) => id) : [nodeOf(bus.topology, options.node)];
    const approvals = books.approvals();
    const balances = books.balances();
    return Promise.all(nodes.map((node) => verifyNode(bus, node, cards, approvals, balances)));
  });
  if (options.json === true) context.printJson({ nodes: results });
  else for (const result of results) print(context, result);
  const clean = results.every(
    (result) =>
      result.missing.length + result.doubled.length + result.contradicted.length + result.wrongBalances.length === 0,
  );
  return clean ? exitCode.good : exitCode.differences;
}

const shownFindings = 20;

function print(context: CommandContext, result: NodeVerification): void {
  const lost = result.voided.length + result.resolvedBalances.length;
  context.print(
    `${result.node}: ${result.approvals} approvals: ${result.missing.length} missing, ${result.doubled.length} doubled, ` +
      `${result.contradicted.length} recorded otherwise; ${result.cards} cards: ${result.wrongBalances.length} with a wrong ` +
      `balance, ${result.uncertain} left open by unanswered requests` +
      (lost === 0 ? '' : `; ${lost} left to what became of \`local\` entries that were lost with an owner`),
  );
  const findings = [
    ...result.missing.map((key) => `missing: ${key}`),
    ...result.doubled.map((key) => `doubled: ${key}`),
    ...result.contradicted.map((key) => `recorded otherwise: ${key}`),
    ...result.wrongBalances,
    ...result.voided.map((key) => `voided: ${key}`),
    ...result.resolvedBalances.map((text) => `resolved: ${text}`),
  ];
  for (const finding of findings.slice(0, shownFindings)) context.print(`  ${finding}`);
  if (findings.length > shownFindings) context.print(`  and ${findings.length - shownFindings} more`);
}
