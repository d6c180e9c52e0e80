import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import type { NodeId } from '../base/identifiers.ts';
import { seededRandom, type Random } from '../base/random.ts';
import type { RaftMessage } from './raft.ts';
import { Disk, firstVoters, Machine } from './testing.ts';

/*
 * R3 as a property: when somebody is elected, no lease is left that an earlier leader, or the deciding thread behind it, may
 * still go by. Five machines, each with a clock of its own that goes up to 2 % wrong; messages late, lost, reordered;
 * members cut off, stopped and started; hand-overs; leaders that step down with a deciding thread that does not notice.
 */

interface World {
  /** How wrong each clock goes, thousandths. */
  readonly rates: readonly number[];
  /** A message from one to another takes so long at most (each way its own, by turns), and one of ten up to `lateMs`. */
  readonly delaysMs: readonly number[];
  readonly lateMs: number;
  readonly lossPercent: number;
  readonly seed: number;
}

interface Member {
  readonly id: NodeId;
  readonly rate: number;
  readonly offsetMs: number;
  disk: Disk;
  machine: Machine | undefined;
  /** What the deciding thread was told last: answers leave until then on its own clock. */
  lease: { readonly term: number; readonly untilMs: number };
  ledTerm: number;
}

interface Outcome {
  elections: number;
  /** Elections at which somebody's lease had ended less than 200 ms before. */
  close: number;
  leases: number;
}

const tickMs = 20;
const durationMs = 6_000;

class Run {
  readonly #world: World;
  readonly #random: Random;
  readonly #members: Member[];
  readonly #outcome: Outcome;
  #nowMs = 0;
  #packets: { readonly atMs: number; readonly from: NodeId; readonly to: NodeId; readonly message: RaftMessage }[] = [];
  #cutOff = new Set<NodeId>();
  /** Ways on which entries and heartbeats are lost, and votes are not. */
  readonly #unheard = new Set<string>();

  constructor(world: World, outcome: Outcome) {
    this.#world = world;
    this.#outcome = outcome;
    this.#random = seededRandom(world.seed);
    this.#members = firstVoters(5).map(({ id }, place) => ({
      id,
      rate: 1 + (world.rates[place] ?? 0) / 1000,
      offsetMs: this.#random.below(1_000_000),
      disk: new Disk(firstVoters(5)),
      machine: undefined,
      lease: { term: 0, untilMs: 0 },
      ledTerm: 0,
    }));
    for (const member of this.#members) this.#start(member, false);
  }

  run(): void {
    for (; this.#nowMs < durationMs; this.#nowMs += tickMs / 2) {
      for (const member of this.#members) if (this.#random.below(2) === 0) this.#tick(member);
      if (this.#random.below(60) === 0) this.#happen();
      const due = this.#packets.filter(({ atMs }) => atMs <= this.#nowMs);
      this.#packets = this.#packets.filter(({ atMs }) => atMs > this.#nowMs);
      for (const { from, to, message } of due) this.#deliver(from, to, message);
    }
  }

  #local({ rate, offsetMs }: Member): number {
    return offsetMs + this.#nowMs * rate;
  }

  #start(member: Member, again: boolean): void {
    const { id, disk } = member;
    const options = { nowMs: this.#local(member), justStarted: again, seed: this.#random.below(1e6) };
    member.machine = new Machine(id, options, disk);
  }

  #tick(member: Member): void {
    const { machine } = member;
    if (machine === undefined) return;
    machine.nowMs = this.#local(member);
    machine.raft.tick(machine.nowMs);
    this.#carryOut(member);
  }

  #deliver(from: NodeId, to: NodeId, message: RaftMessage): void {
    const member = this.#members.find(({ id }) => id === to);
    const machine = member?.machine;
    if (member === undefined || machine === undefined) return;
    if (this.#cutOff.has(from) !== this.#cutOff.has(to)) return;
    machine.nowMs = this.#local(member);
    machine.receive(from, message);
    this.#carryOut(member);
  }

  #happen(): void {
    for (let count = this.#random.below(3); count >= 0; count--) {
      const member = this.#members[this.#random.below(5)];
      if (member !== undefined) this.#befall(member);
    }
  }

  #befall(member: Member): void {
    const random = this.#random;
    const leader = this.#members.find(({ machine }) => machine?.raft.role === 'leader');
    switch (random.below(9)) {
      case 0:
        this.#cutOff = new Set([leader?.id ?? member.id, member.id]);
        return;
      case 1:
        this.#cutOff.clear();
        return;
      case 2:
      case 3:
        for (const { id } of this.#members) if (random.below(2) === 0) this.#unheard.add(`${member.id} ${id}`);
        return;
      case 4:
        this.#unheard.clear();
        return;
      case 5:
        member.machine = undefined;
        member.lease = { term: 0, untilMs: 0 };
        if (random.below(2) === 0) this.#start(member, true);
        return;
      case 6:
        for (const each of this.#members) if (each.machine === undefined) this.#start(each, true);
        return;
      case 7:
        if (leader !== undefined) this.#handOver(leader, member);
        return;
      case 8:
        // Its deciding thread has stalled, and goes by what it was told last when it wakes.
        leader?.machine?.raft.stepDown(this.#local(leader));
    }
  }

  /** As a node does it: no more leases first, then the transfer. */
  #handOver(from: Member, to: Member): void {
    const { machine } = from;
    if (machine === undefined) return;
    machine.raft.endLease();
    from.lease = { term: 0, untilMs: 0 };
    machine.raft.transfer(to.id, this.#local(from));
    this.#carryOut(from);
  }

  #carryOut(member: Member): void {
    const { machine } = member;
    if (machine === undefined) return;
    const { raft } = machine;
    for (const ready of [machine.take(), machine.take()]) {
      for (const { to, message } of ready.messages) this.#send(member.id, to, message);
    }
    if (raft.role !== 'leader') return;
    if (member.ledTerm !== raft.term) {
      member.ledTerm = raft.term;
      this.#checkElection(raft.term, member);
    }
    const { leaseUntilMs } = raft;
    if (leaseUntilMs > member.lease.untilMs || member.lease.term !== raft.term) {
      member.lease = { term: raft.term, untilMs: leaseUntilMs };
      this.#outcome.leases += 1;
    }
  }

  #send(from: NodeId, to: NodeId, message: RaftMessage): void {
    const { delaysMs, lateMs, lossPercent } = this.#world;
    if (this.#random.below(100) < lossPercent) return;
    if (message.kind === 'append' && this.#unheard.has(`${from} ${to}`)) return;
    const way = 5 * this.#members.findIndex(({ id }) => id === from) + this.#members.findIndex(({ id }) => id === to);
    const within = this.#random.below(10) === 0 ? lateMs : (delaysMs[way % delaysMs.length] ?? 0);
    this.#packets.push({ atMs: this.#nowMs + this.#random.below(within + 1), from, to, message });
  }

  #checkElection(term: number, elected: Member): void {
    this.#outcome.elections += 1;
    for (const other of this.#members) {
      if (other === elected || other.lease.term > term) continue;
      const leftMs = other.lease.untilMs - this.#local(other);
      assert.ok(leftMs < 0, `${elected.id} is elected in term ${term}, ${other.id} has a lease for ${leftMs} ms more`);
      if (other.lease.untilMs > 0 && leftMs > -200) this.#outcome.close += 1;
    }
  }
}

test('nobody is elected while an earlier leader’s lease goes, clocks being within 2 % of each other [6.4.1] (R3)', (context) => {
  const outcome: Outcome = { elections: 0, close: 0, leases: 0 };
  const arbitraryWorld: fc.Arbitrary<World> = fc.record({
    rates: fc.array(fc.integer({ min: -20, max: 20 }), { minLength: 5, maxLength: 5 }),
    delaysMs: fc.array(fc.constantFrom(0, 0, 5, 40, 300), { minLength: 1, maxLength: 25 }),
    lateMs: fc.constantFrom(0, 100, 600, 1_500),
    lossPercent: fc.constantFrom(0, 2, 20),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(arbitraryWorld, (world) => {
      new Run(world, outcome).run();
    }),
    { numRuns: Number(process.env['RAFT_RUNS'] ?? 400), seed: Number(process.env['RAFT_SEED'] ?? 1) },
  );
  context.diagnostic(JSON.stringify(outcome));
  assert.ok(outcome.elections > 100 && outcome.leases > 1_000);
  assert.ok(outcome.close > 10, `${outcome.close} elections came soon after a lease: only those could show anything`);
});
