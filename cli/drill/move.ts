import { waitFor } from '../../base/clock.ts';
import { encodeConfigurationChange, parseConfigurationRow } from '../../config-db/rows.ts';
import { UsageError } from '../acquirer/usage.ts';
import { listRows } from '../commands/config-rows.ts';
import { operatorName, reachableNode } from '../context.ts';
import type { OperatorBus } from '../operator-bus.ts';
import type { Aim, FaultOptions, Scene } from './fault.ts';
import { groupsOf, ownerOfMostTraffic, withBus } from './scene.ts';

/** A range that moves while its owners are killed: which one, between whom, and whether it has arrived. */

/** The kill comes at any time of a move: the range of the sample takes less. */
export const longestMoveMs = 250;
const endTimeoutMs = 60_000;

/** Between the group that the range belongs to and that of the next node: so each run moves it, there or back. */
export function aimAtMove(scene: Scene, { target }: FaultOptions): Aim {
  const { prefix, group } = rangeMeant(scene, target);
  const { nodes } = scene.ground.topology;
  const owner = scene.home.get(group);
  const heir = nodes[(nodes.findIndex(({ id }) => id === owner) + 1) % nodes.length]?.id;
  if (owner === undefined || heir === undefined || heir === owner) {
    throw new UsageError('this drill needs groups with two owners at least');
  }
  if (!groupsOf(scene, [heir]).some((name) => name !== 'config')) {
    throw new UsageError(`${heir} owns no group that the range could move to`);
  }
  return {
    target: prefix,
    processes: [owner, heir],
    groups: groupsOf(scene, [owner, heir]),
    expectation: 'site-takeover',
    silent: [],
    cutOff: [],
    rebuilt: [],
  };
}

function rangeMeant(scene: Scene, target: string | undefined): { readonly prefix: string; readonly group: string } {
  const most = ownerOfMostTraffic(scene);
  const cards = new Map<string, { readonly group: string; count: number }>();
  for (const { prefix, group } of scene.rangeOfCard.values()) {
    const known = cards.get(prefix) ?? { group, count: 0 };
    known.count += 1;
    if (prefix !== '') cards.set(prefix, known);
  }
  const ranges = [...cards].map(([prefix, { group, count }]) => ({ prefix, group, count }));
  const meant = ranges
    .filter(({ prefix, group }) => (target === undefined ? scene.home.get(group) === most : prefix === target))
    .sort((one, other) => other.count - one.count)[0];
  if (meant === undefined) {
    throw new UsageError(
      `no range "${target ?? ''}" has cards; there are ${ranges.map(({ prefix }) => prefix).join(', ')}`,
    );
  }
  return meant;
}

/** Has the configuration say that the range is to move: away from where it is, to the other owner's group. */
export async function beginMove(scene: Scene, { target: prefix, groups }: Aim): Promise<void> {
  await withBus(scene.ground, async (bus) => {
    const node = await reachableNode(bus, undefined);
    const rows = (await listRows(bus, node)).flatMap(({ table, row }) => (table === 'pan_range' ? [row] : []));
    const group = rows.find((row) => row['prefix'] === prefix)?.['group_id'];
    const heir = groups.find((name) => name !== 'config' && scene.home.get(name) !== scene.home.get(String(group)));
    const move = `drill-${scene.ground.random.bytes(6).toString('hex')}`;
    const row = parseConfigurationRow('range_move', { prefix, to_group: heir, move_id: move });
    const change = encodeConfigurationChange({ table: 'range_move', operation: 'put', row });
    const changes = [{ change, replaces: 0 }];
    await bus.call(node, 'configuration.enter', { by: operatorName(), changes });
  });
}

export async function untilMoveHasEnded(scene: Scene): Promise<void> {
  await withBus(scene.ground, (bus) =>
    waitFor(scene.ground.clock, async () => ((await isOnItsWay(bus)) ? undefined : true), {
      timeoutMs: endTimeoutMs,
      everyMs: 200,
      onTimeout: () => new Error(`after ${endTimeoutMs / 1000} s the range is still on its way`),
    }),
  );
}

async function isOnItsWay(bus: OperatorBus): Promise<boolean> {
  const rows = await listRows(bus, await reachableNode(bus, undefined));
  return rows.some(({ table }) => table === 'range_move');
}
