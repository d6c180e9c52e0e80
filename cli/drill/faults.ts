import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { delay } from '../../base/clock.ts';
import type { NodeId } from '../../base/identifiers.ts';
import { realRandom } from '../../base/real.ts';
import { voters } from '../../base/topology.ts';
import { UsageError } from '../acquirer/usage.ts';
import { brokerFolder, writeBrokerConfigurations } from '../cluster/brokers.ts';
import { ensureSecrets } from '../cluster/secrets.ts';
import { drainNode, undrainNode } from '../commands/drain.ts';
import type { Act, Aim, DrillKind, Fault, Scene } from './fault.ts';
import { aimAtMove, beginMove, longestMoveMs, untilMoveHasEnded } from './move.ts';
import { brokersOf, groupsOf, nodeMeant, nodesOf, siteMeant, siteOf, untilAllIsHome, withBus } from './scene.ts';

/** The table of faults: what each does, to whom, and how it ends. */

const ownNode = 'a node (default: the owner of the group with most traffic)';
const anywhere = (): readonly [] => [];
const nothing = (): undefined => undefined;

/** The aim of a fault that takes one node away. */
function atNode(scene: Scene, target: string | undefined, more: Partial<Aim> = {}): Aim {
  const node = nodeMeant(scene, target);
  return {
    target: node,
    processes: [node],
    groups: groupsOf(scene, [node]),
    expectation: 'takeover',
    silent: [],
    cutOff: [],
    rebuilt: [],
    ...more,
  };
}

function signalAll(signal: NodeJS.Signals): (act: Act) => Promise<void> {
  return async ({ scene, aim }) => {
    await Promise.all(aim.processes.map((id) => scene.ground.cluster.kill(id, signal)));
  };
}

/** Brokers first, together; then nodes, together. */
async function restartAll({ scene, aim }: Act): Promise<void> {
  const { cluster, topology } = scene.ground;
  const isBroker = (id: string): boolean => topology.brokers.some((broker) => broker.id === id);
  await Promise.all(aim.processes.filter(isBroker).map((id) => cluster.restart(id)));
  await Promise.all(aim.processes.filter((id) => !isBroker(id)).map((id) => cluster.restart(id)));
}

const everything = 'all';

export const faults: Readonly<Record<DrillKind, Fault>> = {
  kill: {
    summary: 'kill -9 of an owner, of it and its broker, or of everything',
    target: `${ownNode}, or "${everything}": every process of the cluster at once`,
    details:
      'The next node of the failover order takes over. What was killed is started again under the same load and gets its ' +
      'cards back. With "all" nothing answers until everything is started again, and then no approval may be missing.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target, withBroker }) {
      const { topology } = scene.ground;
      if (target === everything) {
        return {
          target: everything,
          processes: [...topology.brokers.map(({ id }) => id), ...voters(topology)],
          groups: [...scene.home.keys()],
          expectation: 'none',
          // There is nobody who could answer.
          silent: topology.nodes.map(({ id }) => id),
          cutOff: [],
          rebuilt: [],
        };
      }
      const aim = atNode(scene, target);
      if (!withBroker) return aim;
      const brokers = brokersOf(scene, siteOf(scene, aim.target));
      return { ...aim, target: [aim.target, ...brokers].join(' and '), processes: [...brokers, ...aim.processes] };
    },
    inject: signalAll('SIGKILL'),
    heal: restartAll,
  },

  stop: {
    summary: 'SIGTERM to an owner, which hands over before it ends',
    target: ownNode,
    details: 'What a service manager does. Ownership moves at once; requests wait for some milliseconds.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim: (scene, { target }) => atNode(scene, target),
    inject: signalAll('SIGTERM'),
    heal: restartAll,
  },

  drain: {
    summary: 'an owner hands over what it owns, and gets it back: drain, undrain',
    target: ownNode,
    details: 'What an operator does before work at a node, which goes on serving its acquirers. No request may fail.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim: (scene, { target }) => atNode(scene, target, { expectation: 'unnoticed' }),
    inject: ({ scene, aim }) => drain(scene, nodeMeant(scene, aim.target)),
    async heal({ scene, aim }) {
      const node = nodeMeant(scene, aim.target);
      await withBus(scene.ground, (bus) => undrainNode(bus, node));
      scene.ground.undo.doneWhere((record) => record.kind === 'undrain' && record.node === node);
    },
  },

  freeze: {
    summary: 'SIGSTOP of an owner for longer than its lease, then it runs on',
    target: ownNode,
    details:
      'Its connections stay open and silent: acquirers with a request there wait for their own timeout and repeat it at ' +
      'another node. When it runs on it still takes itself for the owner: nothing that it answers then may count twice.',
    holdMs: 10_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const aim = atNode(scene, target);
      return { ...aim, silent: [aim.target] };
    },
    inject: signalAll('SIGSTOP'),
    heal: signalAll('SIGCONT'),
  },

  broker: {
    summary: 'kill -9 of one broker',
    target: 'a broker or a site (default: that of the owner of the group with most traffic)',
    details: "Its site's nodes go on through the other brokers: no owner changes, no answer is slow.",
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const { brokers } = scene.ground.topology;
      const named = brokers.find(({ id }) => id === target);
      const known = [...brokers.map(({ id }) => id), ...new Set(brokers.map(({ site }) => site))];
      if (target !== undefined && !known.includes(target)) {
        throw new UsageError(`there is no broker or site "${target}"; nodes.yaml has ${known.join(', ')}`);
      }
      const site = named?.site ?? target ?? siteMeant(scene, undefined);
      const hit = named === undefined ? brokersOf(scene, site) : [named.id];
      return {
        target: hit.join(' and '),
        processes: hit,
        groups: groupsOf(scene, nodesOf(scene, site)),
        expectation: 'undisturbed',
        silent: [],
        cutOff: [],
        rebuilt: [],
      };
    },
    inject: signalAll('SIGKILL'),
    heal: restartAll,
  },

  brokers: {
    summary: 'kill -9 of all brokers, away for a while',
    target: 'none',
    details:
      'No process hears another: owners give up their leases, requests get 91 within their deadline. When the brokers are ' +
      'back, everything goes on by itself.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim: (scene, { target }) => atAllBrokers(scene, target, 'none'),
    inject: signalAll('SIGKILL'),
    heal: restartAll,
  },

  amnesia: {
    summary: 'kill -9 of all brokers, all that they keep erased, started again at once',
    target: 'none',
    details: 'Brokers hold nothing that matters: no owner changes, no answer is slow, and the copies stay equal.',
    holdMs: 0,
    needs: anywhere,
    equipment: nothing,
    aim: (scene, { target }) => atAllBrokers(scene, target, 'undisturbed'),
    async inject(act) {
      const { topology, dataFolder, equipment } = act.scene.ground;
      await signalAll('SIGKILL')(act);
      for (const { id } of topology.brokers) {
        const folder = brokerFolder(dataFolder, id);
        rmSync(folder, { recursive: true, force: true });
        mkdirSync(folder, { recursive: true, mode: 0o700 });
      }
      // Written at each start anyway, from keys that are no broker's.
      const secrets = ensureSecrets(topology, dataFolder, realRandom);
      writeBrokerConfigurations(topology, secrets, dataFolder, equipment.delays?.routeTo);
      await restartAll(act);
    },
    heal: () => Promise.resolve(),
  },

  disk: {
    summary: 'kill -9 of an owner and all its data erased, then it is started again',
    target: ownNode,
    details:
      'The next node takes over. The node notices that its disk lacks what its peers saw it acknowledge: it is removed ' +
      'from each group, gets snapshot and log from the others, is added again, and gets its cards back.',
    holdMs: 3_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const aim = atNode(scene, target);
      return { ...aim, rebuilt: [aim.target] };
    },
    inject: signalAll('SIGKILL'),
    async heal(act) {
      for (const id of act.aim.processes) eraseNode(join(act.scene.ground.dataFolder, id));
      await restartAll(act);
    },
  },

  rollback: {
    summary: 'kill -9 of an owner and an older copy of its data put back, then it is started again',
    target: ownNode,
    details:
      'The copy is made before the load, with the node stopped. Noticed and healed like an empty disk: what the old copy ' +
      'lacks it has acknowledged before, and must not vote without.',
    holdMs: 3_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const aim = atNode(scene, target);
      return { ...aim, rebuilt: [aim.target] };
    },
    async prepare({ scene, aim }) {
      const { cluster, dataFolder, folder } = scene.ground;
      for (const id of aim.processes) {
        await cluster.kill(id, 'SIGTERM');
        rmSync(olderCopy(folder, id), { recursive: true, force: true });
        cpSync(join(dataFolder, id), olderCopy(folder, id), { recursive: true });
        await cluster.restart(id);
      }
    },
    inject: signalAll('SIGKILL'),
    async heal(act) {
      const { dataFolder, folder } = act.scene.ground;
      for (const id of act.aim.processes) {
        eraseNode(join(dataFolder, id));
        const copy = olderCopy(folder, id);
        for (const name of dataOf(copy)) cpSync(join(copy, name), join(dataFolder, id, name), { recursive: true });
        rmSync(copy, { recursive: true, force: true });
      }
      await restartAll(act);
    },
  },

  site: {
    summary: 'kill -9 of all nodes and brokers of a site',
    target: 'a site (default: that of the owner of the group with most traffic)',
    details: 'The other site takes over all its cards; the witness makes the majority.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const site = siteMeant(scene, target);
      const nodes = nodesOf(scene, site);
      return {
        target: `site ${site}`,
        processes: [...brokersOf(scene, site), ...nodes],
        groups: groupsOf(scene, nodes),
        expectation: 'site-takeover',
        silent: [],
        cutOff: [],
        rebuilt: [],
      };
    },
    inject: signalAll('SIGKILL'),
    heal: restartAll,
  },

  partition: {
    summary:
      'a node, a site or a broker cut off from all other processes, both ways or one way, or 25 ms added between sites',
    target: `${ownNode}, or a site or broker; with --delay none`,
    details:
      'Each process runs in a network namespace of its own and they talk real TCP; a cut makes packets vanish (see ' +
      'network.ts). A broker that is cut off says nothing to anyone, as one whose machine lost its power. Acquirers still reach what is cut off: it has to answer 91 in time for what it cannot reach. ' +
      '--one-way out: the others do not hear it; --one-way in: it does not hear them. With --delay 25ms nothing is cut: ' +
      'a proxy between the brokers holds everything back that goes between sites, in each direction; owners stay. ' +
      'Needs root and iproute2, except with --delay. Only on a cluster that the drill starts.',
    holdMs: 10_000,
    needs: ({ delayMs }) => (delayMs === undefined ? ['root', 'own-cluster'] : ['own-cluster']),
    equipment: ({ delayMs }) => (delayMs === undefined ? 'network' : 'delays'),
    aim(scene, { target, oneWay, delayMs }) {
      if (delayMs !== undefined) {
        if (target !== undefined) throw new UsageError('partition --delay takes no target: it is between all sites');
        return {
          target: `${delayMs} ms between sites`,
          processes: [],
          groups: [...scene.home.keys()],
          expectation: 'undisturbed',
          silent: [],
          cutOff: [],
          rebuilt: [],
        };
      }
      const { sites, brokers } = scene.ground.topology;
      const isSite = sites.some(({ id }) => id === target);
      const way = oneWay === undefined ? '' : `, ${oneWay} only`;
      const broker = brokers.find(({ id }) => id === target);
      if (broker !== undefined) {
        return {
          target: `${broker.id}${way}`,
          processes: [broker.id],
          groups: groupsOf(scene, nodesOf(scene, broker.site)),
          // Its clients find out by their pings, which takes longer than a lease.
          expectation: 'site-takeover',
          silent: [],
          cutOff: [],
          rebuilt: [],
        };
      }
      if (!isSite) {
        const aim = atNode(scene, target);
        return { ...aim, target: `${aim.target}${way}`, cutOff: aim.processes };
      }
      const site = siteMeant(scene, target);
      const nodes = nodesOf(scene, site);
      return {
        target: `site ${site}${way}`,
        processes: [...nodes, ...brokersOf(scene, site)],
        groups: groupsOf(scene, nodes),
        expectation: 'site-takeover',
        silent: [],
        cutOff: nodes,
        rebuilt: [],
      };
    },
    async inject({ scene, aim, options }) {
      const { network, delays } = scene.ground.equipment;
      if (options.delayMs !== undefined) delays?.set(options.delayMs);
      if (network === undefined) return;
      const others = network.processes.filter((id) => !aim.processes.includes(id));
      if (options.oneWay !== 'in') network.cut(aim.processes, others);
      if (options.oneWay !== 'out') network.cut(others, aim.processes);
      await Promise.resolve();
    },
    heal({ scene }) {
      const { network, delays } = scene.ground.equipment;
      delays?.set(0);
      network?.mend();
      return Promise.resolve();
    },
  },

  stall: {
    summary: "an owner's disk is full, or slow",
    target: 'a node (default: the first of nodes.yaml)',
    details:
      'The node keeps its data on a small file system of its own, an ext4 image. --mode full: not a byte is left; the ' +
      'node has to end or hand over, and is started again when there is room. --mode slow: nine tenths of the time the ' +
      'file system is frozen (fsfreeze) and every write waits; a slow device cannot be had without a kernel module. ' +
      'Needs root, mkfs.ext4, mount and fsfreeze. Only on a cluster that the drill starts.',
    holdMs: 8_000,
    needs: () => ['root', 'own-cluster'],
    equipment: () => 'disk',
    aim: (scene, { target, mode }) => {
      const aim = atNode(scene, target ?? scene.ground.equipment.disk?.process, { expectation: 'none' });
      return { ...aim, target: `${aim.target}, disk ${mode}`, silent: aim.processes };
    },
    async inject({ scene, options }) {
      const { disk } = scene.ground.equipment;
      if (options.mode === 'full') await disk?.fill();
      else disk?.slowDown(scene.ground.clock);
    },
    async heal({ scene, aim }) {
      const { cluster, equipment } = scene.ground;
      await equipment.disk?.recover();
      equipment.disk?.empty();
      for (const id of aim.processes) if (!cluster.processes.has(id)) await cluster.restart(id);
    },
  },

  move: {
    summary: 'kill -9 of the old and the new owner of a range while it is being moved',
    target: 'the prefix of a range (default: of the group with most traffic, the one with most cards)',
    details:
      'The range moves to another group, and some milliseconds later the owners of both are killed. Others take both groups ' +
      'over and bring the move to its end. The next run moves the range back. What was decided before it moved is answered ' +
      'from store after it.',
    holdMs: 5_000,
    needs: anywhere,
    equipment: nothing,
    aim: aimAtMove,
    async inject(act) {
      const { clock, random } = act.scene.ground;
      await beginMove(act.scene, act.aim);
      await delay(clock, random.below(longestMoveMs));
      await signalAll('SIGKILL')(act);
    },
    async heal(act) {
      await restartAll(act);
      await untilMoveHasEnded(act.scene);
    },
  },

  upgrade: {
    summary: 'every node in turn: acquirers sign off, drain, stop, start, rejoin, sign on',
    target: 'one node (default: all, one after the other)',
    details: 'What a rolling upgrade does, with the same version. No request may fail.',
    holdMs: 0,
    needs: anywhere,
    equipment: nothing,
    aim(scene, { target }) {
      const nodes = target === undefined ? scene.ground.topology.nodes.map(({ id }) => id) : [nodeMeant(scene, target)];
      return {
        target: nodes.join(', '),
        processes: nodes,
        groups: groupsOf(scene, nodes),
        expectation: 'unnoticed',
        silent: [],
        cutOff: [],
        rebuilt: [],
      };
    },
    async inject({ scene, aim, load }) {
      for (const id of aim.processes) await upgradeOne(scene, id, load);
    },
    heal: () => Promise.resolve(),
  },
};

function atAllBrokers(scene: Scene, target: string | undefined, expectation: Aim['expectation']): Aim {
  if (target !== undefined) throw new UsageError('this drill takes no target: it is about all brokers');
  return {
    target: 'all brokers',
    processes: scene.ground.topology.brokers.map(({ id }) => id),
    groups: [...scene.home.keys()],
    expectation,
    silent: [],
    cutOff: [],
    rebuilt: [],
  };
}

const drainTimeoutMs = 30_000;
/** Between two nodes: ownership has returned, and the service is as always for a moment. */
const betweenMs = 500;

/** Throws when the node keeps something. */
async function drain({ ground }: Scene, node: NodeId): Promise<void> {
  const { clock, note, configFile, dataFolder, undo } = ground;
  // The drill's own cluster is stopped, whatever happens.
  if (!ground.own) undo.record({ kind: 'undrain', configFile, dataFolder, node });
  const { leads } = await withBus(ground, (bus) => drainNode(bus, { clock, note }, node, drainTimeoutMs));
  if (leads.length > 0) throw new Error(`${node} was drained and still owns ${leads.join(', ')}`);
}

async function upgradeOne(scene: Scene, id: string, load: Act['load']): Promise<void> {
  const { clock, cluster, undo } = scene.ground;
  const node = nodeMeant(scene, id);
  await load.signOff(node);
  await drain(scene, node);
  await cluster.kill(node, 'SIGTERM');
  await cluster.restart(node);
  // A process that starts anew is not drained any more.
  undo.doneWhere((record) => record.kind === 'undrain' && record.node === node);
  await withBus(scene.ground, (bus) => untilAllIsHome(scene, bus));
  await load.signOn(node);
  await delay(clock, betweenMs);
}

function olderCopy(folder: string, id: string): string {
  return join(folder, `${id}.older`);
}

/** What a node's folder has besides its logs, which tell later what happened. */
function dataOf(folder: string): readonly string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => !name.endsWith('.log')) : [];
}

function eraseNode(folder: string): void {
  for (const name of dataOf(folder)) rmSync(join(folder, name), { recursive: true, force: true });
}
