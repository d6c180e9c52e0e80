import type { Command } from 'commander';

import { maximumAmount } from '../../base/money.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { readCardChanges, type CardFileChange } from '../../config-db/card-file.ts';
import { cardStatuses, isCardStatus, type CardStatus } from '../../store/card-status.ts';
import { UsageError } from '../acquirer/usage.ts';
import { exitCode, formatTable, operatorName, reachableNode, type CommandContext } from '../context.ts';
import type { CardView } from '../node/cards-desk.ts';
import { maximumChangesPerCall, type RestrictionReply } from '../node/card-calls.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { RunCommand } from '../run-command.ts';
import { confirm, readCardNumber, readCardNumbers } from './asking.ts';
import { registerCardImport } from './cards-import.ts';
import { readFile } from './reading.ts';

/** What the node is asked: `cards.change` of operations.ts. */
type AskedChange = Readonly<Record<string, unknown>>;

interface Common {
  readonly node?: string;
  readonly json?: boolean;
}

export function registerCards(program: Command, run: RunCommand): void {
  const cards = program.command('cards').description('cards on file: look, change, restrict, import');
  registerLooking(cards, run);
  registerChanges(cards, run);
  registerRestrictions(cards, run);
  registerApply(cards, run);
  registerCardImport(cards, run);
}

const panText = 'card number; - or nothing reads standard input';
const nodeText = 'where to enter it (default: the first node that answers)';
const replacesText = 'the version that this replaces: refused when it is another by now (default: the present one)';

// ---- looking ---------------------------------------------------------------------------------------------------------

function registerLooking(cards: Command, run: RunCommand): void {
  for (const [name, description] of [
    ['get', 'the card as its owner has it, with its version and the restrictions that stand'],
    ['history', 'every change of the card: who, when, at which node'],
  ] as const) {
    cards
      .command(name)
      .argument('[pan]', panText)
      .description(description)
      .option('--node <id>', 'whom to ask (default: the first node that answers)')
      .option('--json', 'as JSON')
      .action((pan: string | undefined, options: Common) =>
        run(async (context) => {
          const number = await readCardNumber(context, pan);
          const view = await context.withCluster(async (bus) =>
            readCard(bus, await reachableNode(bus, options.node), number),
          );
          if (!view.isFromOwner) context.note('Nobody leads the card’s group: this is a copy, which may be behind.');
          if (options.json === true) context.printJson(view);
          else context.print(name === 'get' ? showCard(view) : showHistory(view));
          return exitCode.good;
        }),
      );
  }
}

type Found = CardView & { readonly isFromOwner: boolean };

async function readCard(bus: OperatorBus, node: NodeId, pan: string): Promise<Found> {
  return (await bus.call(node, 'cards.get', { pan })) as Found;
}

function showCard(view: CardView): string {
  const closed = view.deletedAt === 0 ? '' : `, deleted ${timeOf(view.deletedAt)}`;
  return [
    `card ${view.card} of group ${view.group}, version ${view.version}: ${view.change}, ${enteredText(view)}`,
    `status ${view.status}${closed}, expiry ${view.expiry}, currency ${view.currency}, limit ${view.limit}`,
    `held ${view.held}, posted ${view.posted}`,
    ...(view.isPresent ? [] : [`This is an earlier number of the card, which has had ${view.numbers}.`]),
    ...view.restrictions.map(
      ({ id, status, at, by, origin }) => `restriction ${id}: ${status}, ${timeOf(at)} by ${by} at ${origin}`,
    ),
  ].join('\n');
}

function showHistory(view: CardView): string {
  const rows = [...view.history, view].map((each) => [
    String(each.version),
    timeOf(each.enteredAt),
    each.enteredBy,
    each.origin,
    each.status,
    each.expiry,
    each.limit,
    each.change,
  ]);
  return formatTable([['version', 'entered', 'by', 'at', 'status', 'expiry', 'limit', 'change'], ...rows]);
}

function enteredText({ enteredAt, enteredBy, origin }: CardView): string {
  return `${timeOf(enteredAt)} by ${enteredBy} at ${origin}`;
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString();
}

// ---- changes ---------------------------------------------------------------------------------------------------------

interface ChangeOptions extends Common {
  readonly replaces?: string;
  readonly status?: string;
  readonly limit?: string;
  readonly expiry?: string;
  readonly currency?: string;
  readonly yes?: boolean;
}

function registerChanges(cards: Command, run: RunCommand): void {
  cards
    .command('add')
    .argument('[pan]', panText)
    .description('a new card')
    .requiredOption('--expiry <yymm>', 'DE 14, valid to the end of the month')
    .requiredOption('--currency <code>', 'ISO 4217, three digits')
    .requiredOption('--limit <minor>', 'limit in minor units of its currency')
    .option('--status <status>', cardStatuses.join(', '), 'active')
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: ChangeOptions) =>
      run(async (context) => {
        const given = { ...settingOf(options), currency: options.currency };
        const number = await readCardNumber(context, pan);
        return change(context, options, () => Promise.resolve({ kind: 'add', pan: number, ...given }));
      }),
    );
  cards
    .command('set')
    .argument('[pan]', panText)
    .description(
      'changes status, limit or expiry of one card; lifts every restriction that stands when --status says so',
    )
    .option('--status <status>', cardStatuses.join(', '))
    .option('--limit <minor>', 'limit in minor units of the card’s currency')
    .option('--expiry <yymm>', 'DE 14, valid to the end of the month')
    .option('--replaces <version>', replacesText)
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: ChangeOptions) =>
      run(async (context) => {
        const setting = settingOf(options);
        if (Object.keys(setting).length === 0) throw new UsageError('say what to set: --status, --limit or --expiry');
        const number = await readCardNumber(context, pan);
        return change(context, options, async (bus, node) => {
          const replaces = await versionOf(bus, node, number, options, context);
          return { kind: 'set', pan: number, replaces, ...setting };
        });
      }),
    );
  cards
    .command('replace')
    .argument(
      '[pan]',
      'the old card number; - or nothing reads old and new one from standard input, with a space between',
    )
    .argument('[new-pan]', 'the new one, of the same range')
    .description('another number for the same card: limit, holds, postings and usage stay, the old number is declined')
    .requiredOption('--expiry <yymm>', 'DE 14 of the new one')
    .option('--status <status>', 'what the old number is from now on: closed, lost or stolen', 'closed')
    .option('--replaces <version>', replacesText)
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .action((pan: string | undefined, newPan: string | undefined, options: ChangeOptions) =>
      run(async (context) => {
        const { expiry, status } = settingOf(options);
        if (status === 'active') throw new UsageError('--status: the old number cannot stay active');
        const [number, other] = await readCardNumbers(context, pan, newPan);
        return change(context, options, async (bus, node) => {
          const replaces = await versionOf(bus, node, number, options, context);
          return { kind: 'replace', pan: number, newPan: other, replaces, expiry, status };
        });
      }),
    );
  cards
    .command('delete')
    .argument('[pan]', panText)
    .description('closes the card; it is purged 30 days after its last transaction, when nothing can come back for it')
    .option('--replaces <version>', replacesText)
    .option('--node <id>', nodeText)
    .option('--yes', 'do not ask')
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: ChangeOptions) =>
      run(async (context) => {
        const number = await readCardNumber(context, pan);
        if (!(await confirm(context, 'The card is closed, and purged in the end.', options.yes === true))) {
          context.print('Nothing was changed.');
          return exitCode.failed;
        }
        return change(context, options, async (bus, node) => {
          const replaces = await versionOf(bus, node, number, options, context);
          return { kind: 'delete', pan: number, replaces };
        });
      }),
    );
}

/** What the flags set; those that are absent are left out. */
function settingOf({ status, limit, expiry }: ChangeOptions): {
  status?: CardStatus;
  limit?: string;
  expiry?: string;
} {
  if (status !== undefined && !isCardStatus(status)) {
    throw new UsageError(`--status: "${status}" is none of ${cardStatuses.join(', ')}`);
  }
  if (limit !== undefined && !(/^[0-9]{1,12}$/.test(limit) && BigInt(limit) <= maximumAmount)) {
    throw new UsageError('--limit takes whole minor units, at most 12 digits');
  }
  if (expiry !== undefined && !/^[0-9]{2}(?:0[1-9]|1[0-2])$/.test(expiry)) {
    throw new UsageError('--expiry takes YYMM with a month of 01 to 12');
  }
  return {
    ...(status === undefined ? {} : { status }),
    ...(limit === undefined ? {} : { limit }),
    ...(expiry === undefined ? {} : { expiry }),
  };
}

/** The version that the operator names, or the one that is there, which he is told. */
async function versionOf(
  bus: OperatorBus,
  node: NodeId,
  pan: string,
  { replaces }: ChangeOptions,
  context: CommandContext,
): Promise<number> {
  if (replaces === undefined) {
    const view = await readCard(bus, node, pan);
    context.note(`replaces version ${view.version}: ${view.change}, ${enteredText(view)}`);
    return view.version;
  }
  if (!/^[1-9][0-9]{0,8}$/.test(replaces)) throw new UsageError('--replaces takes a version as `cards get` shows it');
  return Number(replaces);
}

async function change(
  context: CommandContext,
  options: Common,
  ask: (bus: OperatorBus, node: NodeId) => Promise<AskedChange>,
): Promise<number> {
  const { changed } = await context.withCluster(async (bus) => {
    const node = await reachableNode(bus, options.node);
    return enterChanges(bus, node, [await ask(bus, node)], false);
  });
  if (options.json === true) context.printJson({ changed: changed > 0 });
  else context.print(changed > 0 ? 'Changed.' : 'Nothing to change: the card is so already.');
  return exitCode.good;
}

async function enterChanges(
  bus: OperatorBus,
  node: NodeId,
  changes: readonly AskedChange[],
  check: boolean,
): Promise<{ readonly changed: number; readonly checked: number }> {
  const parameters = { by: operatorName(), check, changes };
  return (await bus.call(node, 'cards.change', parameters, 15_000)) as { changed: number; checked: number };
}

// ---- restrictions ----------------------------------------------------------------------------------------------------

const restricting = ['blocked', 'lost', 'stolen'];

function registerRestrictions(cards: Command, run: RunCommand): void {
  cards
    .command('restrict')
    .argument('[pan]', panText)
    .description('declines the card from now on: at this node at once, also with no majority, then everywhere')
    .requiredOption('--status <status>', restricting.join(', '))
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: ChangeOptions) =>
      run(async (context) => {
        const { status = '' } = options;
        if (!restricting.includes(status)) throw new UsageError(`--status takes ${restricting.join(', ')}`);
        const number = await readCardNumber(context, pan);
        const reply = await context.withCluster(async (bus) => {
          const node = await reachableNode(bus, options.node);
          const parameters = { by: operatorName(), pan: number, status };
          return (await bus.call(node, 'cards.restrict', parameters)) as RestrictionReply;
        });
        const { restriction, node, isEntered } = reply;
        if (options.json === true) context.printJson(reply);
        else {
          context.print(
            isEntered
              ? `Restriction ${restriction}: ${status} everywhere.`
              : `Restriction ${restriction}: ${status} at ${node} from now on, and everywhere as soon as the card's owner ` +
                  'answers. `quadrant status` tells while it does not.',
          );
        }
        return exitCode.good;
      }),
    );
  cards
    .command('lift')
    .argument('[pan]', panText)
    .description('lifts the named restrictions of a card, and no other')
    .requiredOption('--restriction <id...>', 'as `quadrant cards get` lists them')
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .action((pan: string | undefined, options: Common & { restriction: readonly string[] }) =>
      run(async (context) => {
        const number = await readCardNumber(context, pan);
        const restrictions = options.restriction;
        return change(context, options, () => Promise.resolve({ kind: 'lift', pan: number, restrictions }));
      }),
    );
}

// ---- a file of changes -----------------------------------------------------------------------------------------------

function registerApply(cards: Command, run: RunCommand): void {
  cards
    .command('apply')
    .argument(
      '<file>',
      'CSV with the columns change,pan and, as needed, replaces,expiry,status,currency,limit,new_pan,restrictions',
    )
    .description(`changes of up to ${maximumChangesPerCall} cards, all or none: add, set, replace, delete, lift`)
    .option('--dry-run', 'only check them, at the cards’ owners')
    .option('--node <id>', nodeText)
    .option('--json', 'as JSON')
    .addHelpText('after', applyHelp)
    .action((file: string, options: Common & { dryRun?: boolean }) =>
      run(async (context) => {
        const changes: AskedChange[] = [];
        const bad: { line: number; reason: string }[] = [];
        for await (const line of readCardChanges(readFile(file))) {
          if (line.kind === 'bad') bad.push({ line: line.line, reason: line.reason });
          else changes.push(askedChange(line.change));
          if (changes.length > maximumChangesPerCall || bad.length > maximumChangesPerCall) break;
        }
        const tooMany = changes.length > maximumChangesPerCall;
        if (bad.length > 0 || tooMany) {
          if (options.json === true) context.printJson({ changed: 0, bad });
          for (const { line, reason } of bad) context.note(`line ${line}: ${reason}`);
          if (tooMany)
            context.note(`more than ${maximumChangesPerCall} changes: enter them in parts, or import a card file`);
          context.note('Nothing was changed.');
          return exitCode.failed;
        }
        if (changes.length === 0) throw new UsageError(`${file} has no changes`);
        const dryRun = options.dryRun === true;
        const { changed } = await context.withCluster(async (bus) =>
          enterChanges(bus, await reachableNode(bus, options.node), changes, dryRun),
        );
        if (options.json === true) context.printJson({ changed, bad, dryRun });
        else if (dryRun) context.print(`${changes.length} changes can be entered. Nothing was changed.`);
        else context.print(`${changed} cards changed.`);
        return exitCode.good;
      }),
    );
}

const applyHelp = `
The changes of one group are one entry of its log. Where a file has cards of several groups, every owner checks its part
before any is entered. A refused change is named by its place among the file's changes, counted from 1.
`;

function askedChange(given: CardFileChange): AskedChange {
  const { pan, ...rest } = given;
  const limit = 'limitMinor' in rest ? rest.limitMinor?.toString() : undefined;
  const { limitMinor: _limit, ...others } = { limitMinor: undefined, ...rest };
  return {
    ...others,
    pan: pan.reveal(),
    ...(limit === undefined ? {} : { limit }),
    ...('newPan' in rest ? { newPan: rest.newPan.reveal() } : {}),
  };
}
