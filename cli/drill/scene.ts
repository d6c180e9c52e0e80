import { waitFor } from '../../base/clock.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { RangeTable } from '../../config-db/routing.ts';
import { readAcquirerCards } from '../acquirer/cards.ts';
import { UsageError } from '../acquirer/usage.ts';
import { listRows } from '../commands/config-rows.ts';
import { failBack } from '../commands/failback.ts';
import { behind, findings, viewGroups } from '../commands/situation.ts';
import type { ClusterAnswers, GroupView } from '../commands/situation.ts';
import { askAll } from '../commands/status.ts';
import { reachableNode } from '../context.ts';
import { OperatorBus } from '../operator-bus.ts';
import type { Ground, Scene } from './fault.ts';

/** What the drilled cluster is like: who owns what when nothing is wrong, and whether nothing is. */

const homeTimeoutMs = 90_000;
const askAgainMs = 500;
/** Entries that a copy may be behind under load and count as caught up; compare waits for the rest. */
const usualLag = 500;

/** The operator's connection may be through the very broker that is killed: each phase has its own. */
export async function withBus<T>(ground: Ground, action: (bus: OperatorBus) => Promise<T>): Promise<T> {
  const bus = await OperatorBus.connect(ground.topology, ground.dataFolder);
  try {
    return await action(bus);
  } finally {
    await bus.close();
  }
}

export async function lookAround(ground: Ground): Promise<Scene> {
  const cards = await readAcquirerCards(ground.cardFile);
  return withBus(ground, async (bus) => {
    const rows = await listRows(bus, await reachableNode(bus, undefined));
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
      ground,
      cards,
      rangeOfCard: new Map(cards.map(({ line, pan }) => [line, ranges.find(pan.reveal())])),
      deadlineMs: Math.max(...deadlines),
      home: new Map(groups.map(({ name, order, owner }) => [name, order[0] ?? owner ?? ''])),
    };
  });
}

export interface HomeOptions {
  readonly timeoutMs?: number;
  /** Asks for ownership to return, as `quadrant failback` does. */
  readonly hurry?: boolean;
  /** Sees every look at the cluster. */
  readonly onLook?: (answers: ClusterAnswers) => void;
}

/** Waits until every process answers and every group is whole and where it belongs; gives what they answered then. */
export async function untilAllIsHome(
  { ground, home }: Scene,
  bus: OperatorBus,
  { timeoutMs = homeTimeoutMs, hurry = false, onLook }: HomeOptions = {},
): Promise<ClusterAnswers> {
  const { topology, clock } = ground;
  let last: ClusterAnswers = new Map();
  let askedMs = 0;
  return waitFor(
    clock,
    async () => {
      last = await askAll(bus);
      onLook?.(last);
      if (isAllHome(topology, home, last)) return last;
      if (hurry && clock.monotonicMs() - askedMs >= askAgainMs) {
        askedMs = clock.monotonicMs();
        await failBack(bus, { clock, note: () => undefined }, [], 0);
      }
      return undefined;
    },
    {
      timeoutMs,
      everyMs: 100,
      onTimeout: () => {
        const said = findings(topology, last).map(({ text }) => text);
        return new Error(`after ${timeoutMs / 1000} s the cluster is not whole: ${said.join('; ')}`);
      },
    },
  );
}

function isAllHome(topology: Ground['topology'], home: Scene['home'], answers: ClusterAnswers): boolean {
  const groups = viewGroups(topology, answers);
  const whole = [...answers.values()].every(
    (status) => status !== undefined && !status.draining && status.rebuilding.length === 0,
  );
  const inPlace = [...home].every(([name, owner]) => groups.find((group) => group.name === name)?.owner === owner);
  return whole && inPlace && groups.every((group) => isWhole(group, answers));
}

function isWhole(group: GroupView, answers: ClusterAnswers): boolean {
  return [...answers].every(([id, status]) => {
    const copy = group.copies.get(id);
    if (status === undefined || copy === undefined) return false;
    return copy.votes && copy.salvage.pending === 0 && behind(group, id, status.role) <= usualLag;
  });
}

/** Whether the group has the owner and the term that it had. */
export function isAsBefore({ name, owner, term }: GroupView, before: ClusterAnswers): boolean {
  return [...before.values()].some(
    (status) =>
      status?.id === owner &&
      status?.groups.some((group) => group.name === name && group.role === 'leader' && group.term === term) === true,
  );
}

// ---- who is meant ----------------------------------------------------------------------------------------------------

/** The load draws cards evenly: most traffic is where most cards are. */
export function ownerOfMostTraffic({ rangeOfCard, home, ground }: Scene): NodeId {
  const cards = new Map<string, number>();
  for (const { group } of rangeOfCard.values()) cards.set(group, (cards.get(group) ?? 0) + 1);
  const [most] = [...cards].sort(([one, its], [other, others]) => others - its || (one < other ? -1 : 1));
  const owner = ground.topology.nodes.find(({ id }) => id === home.get(most?.[0] ?? ''));
  if (owner === undefined) throw new Error('no node owns the group with most cards');
  return owner.id;
}

/** The node that is named, or the owner of the group with most traffic. */
export function nodeMeant(scene: Scene, target: string | undefined): NodeId {
  if (target === undefined) return ownerOfMostTraffic(scene);
  const { nodes } = scene.ground.topology;
  const found = nodes.find(({ id }) => id === target);
  if (found === undefined) {
    throw new UsageError(`there is no node "${target}"; nodes.yaml has ${nodes.map(({ id }) => id).join(', ')}`);
  }
  return found.id;
}

/** The site that is named, or that of the owner of the group with most traffic. */
export function siteMeant(scene: Scene, target: string | undefined): string {
  const { nodes } = scene.ground.topology;
  const sites = [...new Set(nodes.map(({ site }) => site))];
  if (target !== undefined && !sites.includes(target)) {
    throw new UsageError(`there is no site "${target}" with nodes; nodes.yaml has ${sites.join(', ')}`);
  }
  return target ?? siteOf(scene, ownerOfMostTraffic(scene));
}

export function siteOf({ ground }: Scene, node: string): string {
  return ground.topology.nodes.find(({ id }) => id === node)?.site ?? '';
}

export function nodesOf({ ground }: Scene, site: string): readonly NodeId[] {
  return ground.topology.nodes.filter((node) => node.site === site).map(({ id }) => id);
}

export function brokersOf({ ground }: Scene, site: string): readonly string[] {
  return ground.topology.brokers.filter((broker) => broker.site === site).map(({ id }) => id);
}

/** Groups that belong to one of the nodes. */
export function groupsOf({ home }: Scene, nodes: readonly string[]): readonly string[] {
  return [...home].filter(([, owner]) => nodes.includes(owner)).map(([group]) => group);
}
