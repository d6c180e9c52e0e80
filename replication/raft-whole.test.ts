import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import type { NodeId } from '../base/identifiers.ts';
import { seededRandom, type Random } from '../base/random.ts';
import type { LogPosition, Member } from '../store/entry.ts';
import type { Membership, RaftMessage } from './raft.ts';
import { Disk, firstVoters, Machine, membershipBody } from './testing.ts';

/*
 * The whole protocol at random: five members, or three, whose messages are lost, delayed, doubled and reordered
 * at will, whose clocks have nothing to do with each other, who die at any step and come back, with the disk they had or
 * an old or empty one, while leadership is handed over, members come and go, logs are trimmed and snapshots sent. After
 * every step the four properties of the thesis (3.2) are checked against everything that was ever seen. Over 500 lines
 * because what can happen and what must hold then are read together.
 */

type Packet = { readonly from: NodeId; readonly to: NodeId } & (
  | { readonly message: RaftMessage }
  | { readonly snapshot: { readonly position: LogPosition; readonly membership: Membership } }
);

interface Host {
  readonly id: NodeId;
  disk: Disk;
  /** Undefined: the process is dead. */
  machine: Machine | undefined;
  /** The disk as it was. */
  backup: Disk | undefined;
  /** The disk has been put back, and nobody knows it yet. */
  lostDisk: boolean;
  checkedCommit: number;
  checkedLast: LogPosition | undefined;
  nowMs: number;
}

/** What happens, and how often of a thousand steps. */
interface Weights {
  readonly deliver: number;
  readonly tick: number;
  readonly silence: number;
  readonly write: number;
  readonly propose: number;
  readonly crash: number;
  readonly start: number;
  readonly transfer: number;
  readonly step: number;
  readonly remove: number;
  readonly partition: number;
  readonly heal: number;
  readonly trim: number;
  readonly backup: number;
  readonly rollBack: number;
  readonly stepDown: number;
}

const calm: Weights = {
  deliver: 540,
  tick: 100,
  silence: 15,
  write: 180,
  propose: 40,
  crash: 3,
  start: 40,
  transfer: 3,
  step: 10,
  remove: 0,
  partition: 4,
  heal: 10,
  trim: 0,
  backup: 0,
  rollBack: 0,
  stepDown: 1,
};

const profiles: Readonly<Record<string, Weights>> = {
  'crashes and partitions': { ...calm, crash: 10, partition: 10, silence: 30 },
  'hand-overs': { ...calm, transfer: 25, stepDown: 4 },
  'changes of membership': { ...calm, remove: 8, step: 40 },
  'trimmed logs and snapshots': { ...calm, trim: 15, crash: 8, partition: 10 },
  'old and empty disks': { ...calm, backup: 15, rollBack: 20, crash: 8, start: 25, step: 40 },
  everything: { ...calm, transfer: 8, remove: 5, trim: 8, backup: 10, rollBack: 10, crash: 6, step: 40, silence: 30 },
};

/** How often something happened: a run in which it never did says nothing about it. */
type Tally = Record<
  'elections' | 'commits' | 'cuts' | 'transfers' | 'memberships' | 'snapshots' | 'newIncarnations' | 'crashes',
  number
>;

class World {
  readonly hosts = new Map<NodeId, Host>();
  readonly random: Random;
  readonly tally: Tally;
  readonly #weights: Weights;
  readonly #formedWith: readonly Member[];
  readonly #heals: boolean;
  #packets: Packet[] = [];
  #cutOff = new Set<NodeId>();
  #lossPercent = 5;
  /** Whose disk has been put back, until it has found out. */
  #rolledBack: NodeId | undefined;
  #bodies = 0;
  readonly #leaders = new Map<number, string>();
  readonly #entries = new Map<string, string>();
  /** Hash of the entry that is committed at an index. */
  readonly #committed: string[] = [];

  constructor(seed: number, weights: Weights, tally: Tally, { heals }: { readonly heals: boolean }) {
    this.#heals = heals;
    this.random = seededRandom(seed);
    this.#weights = weights;
    this.tally = tally;
    const count = seed % 2 === 0 ? 5 : 3;
    this.#formedWith = firstVoters(count);
    for (const { id } of this.#formedWith) {
      const disk = new Disk(this.#formedWith);
      this.hosts.set(id, {
        id,
        disk,
        machine: undefined,
        backup: undefined,
        lostDisk: false,
        checkedCommit: 0,
        checkedLast: undefined,
        nowMs: this.random.below(100_000),
      });
    }
    for (const host of this.hosts.values()) this.#start(host, { formed: true });
  }

  run(steps: number): void {
    const actions = Object.entries(this.#weights).flatMap(([name, weight]) =>
      Array.from({ length: weight as number }, () => name as keyof Weights),
    );
    for (let step = 0; step < steps; step++) {
      const action = actions[this.random.below(actions.length)];
      if (action !== undefined) this.#do(action);
    }
  }

  /** No more faults: whoever is dead comes back, and time passes alike for all. */
  heal(): void {
    this.#cutOff.clear();
    this.#lossPercent = 0;
    for (const host of this.hosts.values()) if (host.machine === undefined) this.#start(host);
    for (let passed = 0; passed < 20_000; passed += 25) {
      for (const host of this.hosts.values()) {
        const { machine } = host;
        if (machine === undefined) continue;
        machine.nowMs += 25;
        machine.raft.tick(machine.nowMs);
        if (passed % 250 === 0) this.#stepMembership(machine);
        this.#carryOut(host);
        machine.write();
        this.#carryOut(host);
      }
      for (const packet of this.#packets.splice(0)) this.#deliver(packet);
      for (const host of this.hosts.values()) {
        host.machine?.write();
        this.#carryOut(host);
      }
      if (passed % 500 === 0 && passed > 1_000 && this.#isWhole()) return;
    }
    if (!this.#canHaveLeader) return;
    const described = [...this.hosts.values()].map(
      ({ id, machine }) =>
        `${id} ${machine?.raft.role} ${machine?.raft.term} ${machine?.tail.last.index} ${machine?.raft.incarnation} ` +
        `${machine?.raft.confirmed} ${JSON.stringify(machine?.raft.membership)} ${machine?.raft.failure}`,
    );
    assert.fail(`not whole again after 20 s:\n${described.join('\n')}`);
  }

  /** One leader, everybody a voter with the disk that it has, all logs equal and committed. */
  #isWhole(): boolean {
    const machines = [...this.hosts.values()].flatMap(({ machine }) => machine ?? []);
    const leader = machines.find(({ raft }) => raft.role === 'leader');
    if (leader === undefined) return false;
    const { voters } = leader.raft.membership;
    return machines.every(
      ({ raft, tail, self }) =>
        raft.leader === leader.self &&
        tail.last.hash === leader.tail.last.hash &&
        raft.commit === tail.last.index &&
        voters.some(({ id, incarnation }) => id === self && incarnation === raft.incarnation),
    );
  }

  /** Whether enough voters have the disks that the newest membership counts: else nobody can lead for good. */
  get #canHaveLeader(): boolean {
    const hosts = [...this.hosts.values()];
    const newest = hosts
      .map(({ disk }) => disk.membershipAt(Number.MAX_SAFE_INTEGER))
      .reduce((one, other) => (other.index > one.index ? other : one));
    const counted = newest.voters.filter(({ id, incarnation }) => this.#host(id).disk.incarnation === incarnation);
    return counted.length > newest.voters.length / 2;
  }

  // ---- steps -----------------------------------------------------------------------------------------------------

  #do(action: keyof Weights): void {
    const { random } = this;
    if (action === 'deliver') {
      for (let count = 1 + random.below(4); count > 0; count--) this.#deliverSome();
      return;
    }
    const hosts = this.#hostsFor(action);
    if (hosts.length === 0) return;
    const host = this.#any(hosts);
    const { machine } = host;
    if (machine === undefined) {
      if (action === 'start') this.#start(host);
      else this.#rollBack(host);
      return;
    }
    const { raft } = machine;
    switch (action) {
      case 'tick':
        machine.nowMs += 10 + random.below(50);
        raft.tick(machine.nowMs);
        break;
      case 'silence':
        this.#fallSilent();
        break;
      case 'write':
        this.#write(machine);
        break;
      case 'propose':
        machine.propose(...Array.from({ length: 1 + random.below(3) }, () => `"${this.#bodies++}"`));
        break;
      case 'crash':
        this.tally.crashes += 1;
        this.#stop(host);
        return;
      case 'transfer':
        if (raft.transfer(this.#any(raft.membership.voters).id, machine.nowMs)) this.tally.transfers += 1;
        break;
      case 'step':
        this.#stepMembership(machine);
        break;
      case 'remove':
        this.#remove(machine);
        break;
      case 'partition':
        this.#cutOff = new Set([this.#anyLeader() ?? host.id, this.#any([...this.hosts.keys()])]);
        break;
      case 'heal':
        this.#cutOff.clear();
        break;
      case 'trim':
        this.#trim(machine);
        break;
      case 'backup':
        host.backup = host.disk.copy();
        break;
      case 'stepDown':
        raft.stepDown(machine.nowMs);
        break;
      case 'start':
      case 'rollBack':
        break;
    }
    this.#carryOut(host);
  }

  #deliverSome(): void {
    const { random } = this;
    // Mostly in order: if nothing ever arrived in time, nobody would be elected.
    const at = random.below(4) > 0 ? 0 : random.below(this.#packets.length);
    const packet = this.#packets[at];
    if (packet === undefined) return;
    if (random.below(20) > 0) this.#packets.splice(at, 1);
    if (random.below(100) >= this.#lossPercent) this.#deliver(packet);
  }

  /** Where the action can do something. */
  #hostsFor(action: keyof Weights): Host[] {
    const hosts = [...this.hosts.values()];
    if (action === 'start' || action === 'rollBack') return hosts.filter(({ machine }) => machine === undefined);
    const alive = hosts.filter(({ machine }) => machine !== undefined);
    if (action === 'write') return alive.filter(({ machine }) => machine?.hasUnwritten === true);
    const forLeaders = ['propose', 'transfer', 'step', 'remove', 'stepDown'].includes(action);
    return forLeaders ? alive.filter(({ machine }) => machine?.raft.role === 'leader') : alive;
  }

  /** Nobody has been heard for an election timeout, as somebody finds out first. */
  #fallSilent(): void {
    for (const { machine } of this.hosts.values()) if (machine !== undefined) machine.nowMs += 650;
    for (const host of [this.#any([...this.hosts.values()]), this.#any([...this.hosts.values()])]) {
      for (let tick = 0; tick < 2 && host.machine !== undefined; tick++) {
        host.machine.nowMs += 40;
        host.machine.raft.tick(host.machine.nowMs);
        this.#carryOut(host);
      }
    }
  }

  #anyLeader(): NodeId | undefined {
    const leaders = [...this.hosts.values()].filter(({ machine }) => machine?.raft.role === 'leader');
    return leaders.length === 0 ? undefined : this.#any(leaders).id;
  }

  #any<T>(some: readonly T[]): T {
    const one = some[this.random.below(some.length)];
    assert.ok(one !== undefined);
    return one;
  }

  #host(id: NodeId): Host {
    const host = this.hosts.get(id);
    assert.ok(host !== undefined);
    return host;
  }

  #start(host: Host, { formed = false }: { readonly formed?: boolean } = {}): void {
    host.machine = new Machine(
      host.id,
      { justStarted: !formed, nowMs: host.nowMs, seed: this.random.below(1_000_000) },
      host.disk,
    );
    host.checkedCommit = host.disk.start.index;
    host.checkedLast = undefined;
    this.#carryOut(host);
  }

  #stop(host: Host): void {
    host.nowMs = host.machine?.nowMs ?? host.nowMs;
    host.machine = undefined;
  }

  #write(machine: Machine): void {
    machine.write();
    const applied = Math.min(machine.raft.commit, machine.disk.last().index);
    machine.disk.applied = Math.max(machine.disk.applied, applied);
    machine.raft.onApplied(machine.disk.applied);
  }

  #stepMembership(machine: Machine): void {
    const step = machine.raft.membershipStep(machine.nowMs);
    if (step !== undefined) this.#changeMembership(machine, step.voters, step.learners);
  }

  /**
   * Somebody has a voter removed, perhaps the leader itself; or made a learner, if the group is to be whole again: who is
   * removed need not hear of it.
   */
  #remove(machine: Machine): void {
    const { membership } = machine.raft;
    if (membership.voters.length < 3) return;
    const removed = this.#any(membership.voters);
    this.#changeMembership(
      machine,
      membership.voters.filter((voter) => voter !== removed),
      this.#heals ? [...membership.learners, removed] : membership.learners,
    );
  }

  #changeMembership(machine: Machine, voters: readonly Member[], learners: readonly Member[]): void {
    if (machine.propose(membershipBody(voters, learners)) !== undefined) this.tally.memberships += 1;
  }

  #trim(machine: Machine): void {
    const { disk, tail } = machine;
    if (disk.applied <= disk.start.index) return;
    disk.trim(disk.start.index + 1 + this.random.below(disk.applied - disk.start.index));
    tail.onTrimmed(disk.start);
  }

  /**
   * The disk of a dead process is put back to what it was, or emptied; as far as the members' memory can tell, and one at
   * a time (R8: a rollback that nobody can notice is not a case).
   */
  #rollBack(host: Host): void {
    const suspect = this.#rolledBack === undefined ? undefined : this.#host(this.#rolledBack);
    if (suspect !== undefined && suspect.machine?.raft.confirmed !== true) return;
    this.#rolledBack = undefined;
    const old = this.random.below(3) === 0 || host.backup === undefined ? new Disk(this.#formedWith) : host.backup;
    const { index } = old.last();
    const knows = ({ disk }: Host): boolean => {
      const known = disk.remembered.get(host.id);
      if (known === undefined) return false;
      if (known.incarnation !== old.incarnation) return known.incarnation > old.incarnation;
      const { term } = old.hardState;
      return known.term > term || (known.term === term && known.index > index);
    };
    const { voters, learners } = old.membershipAt(Number.MAX_SAFE_INTEGER);
    const peers = [...voters, ...learners].filter(({ id }) => id !== host.id).map(({ id }) => this.#host(id));
    const needed = Math.min(2, Math.floor(voters.length / 2));
    if (peers.filter((peer) => !knows(peer)).length >= needed) return;
    host.disk = old;
    host.backup = undefined;
    host.lostDisk = true;
    this.#rolledBack = host.id;
    this.#start(host);
  }

  #deliver(packet: Packet): void {
    const { from, to } = packet;
    const host = this.#host(to);
    const { machine } = host;
    if (machine === undefined || this.#cutOff.has(from) !== this.#cutOff.has(to)) return;
    if ('snapshot' in packet) {
      this.#install(machine, packet.snapshot.position, packet.snapshot.membership);
    } else {
      const { message } = packet;
      machine.receive(from, message);
      if (message.kind === 'append' && machine.raft.leader === from && machine.raft.term === message.term) {
        this.#remember(host.disk, message.term, message.acknowledged);
      }
    }
    this.#carryOut(host);
  }

  #remember({ remembered }: Disk, term: number, acknowledged: readonly (Member & { readonly index: number })[]): void {
    for (const { id, incarnation, index } of acknowledged) {
      const known = remembered.get(id);
      const isOlder =
        known !== undefined &&
        (known.incarnation > incarnation ||
          (known.incarnation === incarnation && (known.term > term || (known.term === term && known.index >= index))));
      if (!isOlder) remembered.set(id, { incarnation, term, index });
    }
  }

  #install(machine: Machine, position: LogPosition, membership: Membership): void {
    const { kind } = machine.raft.takeSnapshot(position);
    if (kind !== 'install') return;
    if (this.random.below(5) === 0) {
      machine.raft.onSnapshotRefused();
      return;
    }
    this.tally.snapshots += 1;
    machine.installSnapshot(position, membership);
  }

  /** Carries out what the machine has ready, but for the writing, and checks what is to be seen then. */
  #carryOut(host: Host): void {
    const { machine } = host;
    if (machine === undefined) return;
    const { raft, disk } = machine;
    const { incarnation } = disk;
    const { messages, fetchSnapshotFrom, write } = machine.take({ sync: false });
    if (disk.incarnation !== incarnation) {
      this.tally.newIncarnations += 1;
      // Of a second one nobody may have heard yet: then its next start makes a third one of it, to be safe.
      assert.ok(host.lostDisk || incarnation > 1, `${host.id} has its disk, and what it acknowledged is on it`);
      host.lostDisk = false;
    }
    if (write?.keepThrough !== undefined) this.tally.cuts += 1;
    for (const { to, message } of messages) {
      // Who is not listened to greets all the time: most of that would only stand before everything else.
      if (message.kind === 'hello' && raft.confirmed && this.random.below(10) > 0) continue;
      this.#packets.push({ from: host.id, to, message });
    }
    if (this.#packets.length > 120) this.#packets.splice(0, 40);
    if (raft.role === 'leader') this.#remember(disk, raft.term, raft.acknowledgements());
    if (fetchSnapshotFrom !== undefined) this.#serveSnapshot(fetchSnapshotFrom, host.id);
    this.#check(host, machine);
  }

  #serveSnapshot(from: NodeId, to: NodeId): void {
    const { disk } = this.#host(from);
    const position = disk.position(disk.applied);
    assert.ok(position !== undefined);
    const { index, term, hash } = position;
    const membership = disk.membershipAt(disk.applied);
    this.#packets.push({ from, to, snapshot: { position: { index, term, hash }, membership } });
  }

  // ---- what must always hold (3.2) --------------------------------------------------------------------------------

  #check(host: Host, machine: Machine): void {
    const { raft, tail } = machine;
    assert.equal(raft.failure, undefined, 'no copy is broken');
    this.#checkLog(host, tail);
    if (raft.role === 'leader') this.#checkLeader(host, machine);
    for (let index = Math.max(host.checkedCommit, tail.base.index) + 1; index <= raft.commit; index++) {
      const hash = tail.position(index)?.hash;
      assert.ok(hash !== undefined, `${host.id} has what it calls committed`);
      const known = this.#committed[index];
      if (known === undefined) {
        this.#committed[index] = hash;
        this.tally.commits += 1;
      } else {
        assert.equal(hash, known, `state machine safety: ${host.id} at index ${index}`);
      }
    }
    host.checkedCommit = Math.max(host.checkedCommit, raft.commit);
  }

  /** An entry is named by index and term, and its hash covers all before it. */
  #checkLog(host: Host, tail: Machine['tail']): void {
    const { last, base } = tail;
    if (host.checkedLast?.hash === last.hash) return;
    for (let index = last.index; index > base.index; index--) {
      const { term, hash } = tail.position(index) ?? assert.fail(`${host.id} has entry ${index}`);
      if (host.checkedLast?.hash === hash) break;
      const known = this.#entries.get(`${index} ${term}`);
      if (known === undefined) this.#entries.set(`${index} ${term}`, hash);
      else assert.equal(hash, known, `log matching: ${host.id} at index ${index}, term ${term}`);
    }
    host.checkedLast = last;
  }

  #checkLeader({ id }: Host, { raft, tail }: Machine): void {
    const name = `${id} ${raft.incarnation}`;
    const known = this.#leaders.get(raft.term);
    assert.equal(known ?? name, name, `election safety: term ${raft.term}`);
    if (known !== undefined) return;
    this.#leaders.set(raft.term, name);
    this.tally.elections += 1;
    for (let index = tail.base.index + 1; index < this.#committed.length; index++) {
      const committed = this.#committed[index];
      if (committed === undefined) continue;
      assert.equal(
        tail.position(index)?.hash,
        committed,
        `leader completeness: ${id}, term ${raft.term}, index ${index}`,
      );
    }
  }
}

describe('election safety, log matching, leader completeness and state machine safety hold [3.2]', () => {
  const steps = 1_000;
  const runs = Number(process.env['RAFT_RUNS'] ?? 500);
  const firstSeed = Number(process.env['RAFT_SEED'] ?? 1);
  for (const [name, weights] of Object.entries(profiles)) {
    test(`${name}: ${runs} runs at random; afterwards the group is whole again`, (context) => {
      const tally: Tally = {
        elections: 0,
        commits: 0,
        cuts: 0,
        transfers: 0,
        memberships: 0,
        snapshots: 0,
        newIncarnations: 0,
        crashes: 0,
      };
      for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
        const heals = seed % 10 === 0;
        const world = new World(seed, weights, tally, { heals });
        try {
          world.run(steps);
          if (heals) world.heal();
        } catch (error) {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
        }
      }
      context.diagnostic(JSON.stringify(tally));
      assert.ok(tally.elections > runs && tally.commits > 10 * runs && tally.cuts > 0);
      assert.equal(tally.transfers > 0, weights.transfer > 0);
      assert.equal(tally.snapshots > 0, weights.trim > 0);
      assert.equal(tally.newIncarnations > 0, weights.rollBack > 0);
      assert.equal(tally.memberships > 0, weights.remove > 0 || weights.rollBack > 0);
    });
  }
});
