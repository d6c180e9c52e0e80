import assert from 'node:assert/strict';
import { test } from 'node:test';

import Database from 'better-sqlite3';

import type { GroupId, NodeId } from '../base/identifiers.ts';
import { ManualClock } from '../base/manual-clock.ts';
import { seededRandom, type Random } from '../base/random.ts';
import { chainEntry, decodeBody, encodeBody, originPosition, type EntryBody, type LogEntry } from '../store/entry.ts';
import { applyToLedger, isApproval, type TransactionRow } from '../store/ledger.ts';
import { ledgerSchema, SqliteLedger } from '../store/ledger-sqlite.ts';
import { salvageableEntry, type SalvagedEntry, type SalvageOutcome } from '../store/salvage.ts';
import { Edge } from './edge.ts';
import { GroupOwner } from './owner.ts';
import {
  cardKeys,
  cardsEntry,
  group,
  localPan,
  n1,
  n2,
  n3,
  noOpEntry,
  pan,
  purchaseMessage,
  standInView,
  TestStore,
} from './testing.ts';

/*
 * Three nodes, each an edge, an owner and a copy of one group's log, over a log that behaves as consensus does: entries
 * are proposed, synced, committed; leadership moves to any copy that has what committed, the old leader may not know it
 * for a while, and what only it had is cut and salvaged. Datagrams are lost, late and doubled. An acquirer asks, asks
 * again elsewhere, and reverses. In the end every copy must hold what it was told.
 */

interface Exchange {
  readonly number: number;
  readonly local: boolean;
  /** DE 39 of what each attempt was answered. */
  readonly codes: string[];
  open: number;
  reversed: boolean;
}

class Salvage {
  readonly entries: (SalvagedEntry & { outcome?: SalvageOutcome })[] = [];

  add(lost: readonly LogEntry[]): void {
    for (const entry of lost) {
      const body = salvageableEntry(decodeBody(entry.body));
      const known = this.entries.some(({ term, index }) => term === entry.term && index === entry.index);
      if (body?.durability === 'local' && !known) this.entries.push({ group, ...entry });
    }
    this.entries.sort((one, other) => one.term - other.term || one.index - other.index);
  }

  groups(): readonly GroupId[] {
    return this.#open().length > 0 ? [group] : [];
  }

  pending(_group: GroupId, limit: number): readonly SalvagedEntry[] {
    return this.#open().slice(0, limit);
  }

  resolve(_group: GroupId, term: number, index: number, outcome: SalvageOutcome): boolean {
    const entry = this.entries.find((each) => each.term === term && each.index === index);
    if (entry !== undefined) entry.outcome = outcome;
    return true;
  }

  #open(): typeof this.entries {
    return this.entries.filter(({ outcome }) => outcome === undefined);
  }
}

class Node {
  readonly id: NodeId;
  readonly store = new TestStore();
  readonly salvage = new Salvage();
  readonly ledger: SqliteLedger;
  readonly owner: GroupOwner;
  readonly edge: Edge;
  log: LogEntry[] = [];
  applied = 0;
  /** As far as this node knows. */
  committed = 0;
  durable = 0;
  term = 0;
  leads = false;
  leased = false;
  /** Who leads, as this node believes. */
  leader: NodeId | undefined;

  constructor(id: NodeId, world: World) {
    this.id = id;
    const database = world.open();
    this.ledger = new SqliteLedger(database);
    const { clock, random } = world;
    this.owner = new GroupOwner({
      group,
      log: { propose: (bodies) => this.append(bodies.map((body) => decodeBody(body))) },
      ledger: this.ledger,
      configuration: () => standInView(),
      cardKeys,
      clock,
      random,
      localTailEntries: 100,
      localTailMs: 10_000,
      stalledMs: 10_000,
      leaseUntilMs: () => (this.leased ? Number.POSITIVE_INFINITY : 0),
      onUnreadable: (error) => assert.fail(String(error)),
    });
    this.edge = new Edge({
      self: id,
      boot: 1,
      clock,
      configuration: () => standInView(),
      leaderOf: () => this.leader,
      ownerOf: () => this.owner,
      forwarder: {
        sendRequest: (to, request) => {
          world.send(to, (node) => {
            node.edge.onRequest(id, request);
          });
        },
        sendAnswer: (to, answer) => {
          world.send(to, (node) => {
            node.edge.onAnswer(answer);
          });
        },
        sendClaim: (to, claim) => {
          world.send(to, (node) => {
            node.edge.onClaim(id, claim);
          });
        },
        sendSettlement: (to, settlement) => {
          world.send(to, (node) => {
            node.edge.onSettlement(settlement);
          });
        },
      },
      store: this.store,
      salvage: this.salvage,
      cardKeys,
      ledgerOf: () => this.ledger,
      standIn: {
        random,
        afterMs: 1_000,
        maximumCount: 20,
        maximumMinor: 1_000_000n,
      },
      requestDeadlineMs: 3_000,
    });
  }

  append(bodies: readonly EntryBody[]): number | undefined {
    if (!this.leads) return undefined;
    const first = this.log.length + 1;
    for (const body of bodies) {
      const before = this.log.at(-1) ?? originPosition(group);
      this.log.push(chainEntry(before, this.term, encodeBody(body)));
    }
    return first;
  }

  apply(): void {
    const index = this.committed;
    for (const entry of this.log.slice(this.applied, index)) {
      applyToLedger(this.ledger, group, entry.index, entry.term, decodeBody(entry.body));
    }
    this.applied = Math.max(this.applied, index);
    this.owner.onApplied(this.applied);
  }
}

class World {
  readonly clock = new ManualClock();
  readonly random: Random;
  readonly nodes: readonly Node[];
  readonly exchanges: Exchange[] = [];
  readonly counts = { moves: 0, salvaged: 0, dues: 0, standIns: 0 };
  readonly #databases: Database.Database[] = [];
  #leader: Node;
  #committed = 0;
  #firstOfTerm = 0;
  #calm = false;

  constructor(seed: number) {
    this.random = seededRandom(seed);
    this.nodes = [n1, n2, n3].map((id) => new Node(id, this));
    const [first] = this.nodes;
    assert.ok(first !== undefined);
    this.#leader = first;
    first.leads = true;
    first.term = 1;
    first.append([cardsEntry]);
    this.#firstOfTerm = 1;
    this.#sync();
    this.#commit();
    this.#elect(first);
  }

  open(): Database.Database {
    const database = new Database(':memory:');
    database.exec(ledgerSchema);
    this.#databases.push(database);
    return database;
  }

  close(): void {
    for (const database of this.#databases) database.close();
  }

  send(to: NodeId, deliver: (node: Node) => void): void {
    const { random } = this;
    if (!this.#calm && random.below(8) === 0) return;
    for (let copies = !this.#calm && random.below(10) === 0 ? 2 : 1; copies > 0; copies--) {
      const delayMs = !this.#calm && random.below(12) === 0 ? random.below(4_000) : 1 + random.below(20);
      this.clock.after(delayMs, () => {
        const node = this.nodes.find(({ id }) => id === to);
        if (node !== undefined) deliver(node);
      });
    }
  }

  run(): void {
    for (let step = 0; step < 400; step++) {
      this.#step();
      this.#pass();
    }
    this.#calm = true;
    this.#elect(this.#pick(this.nodes));
    for (let step = 0; step < 500; step++) {
      this.#sync();
      this.#commit();
      this.#pass();
    }
    for (const node of this.nodes) node.apply();
    this.#check();
  }

  #pick<T>(all: readonly T[]): T {
    const one = all[this.random.below(all.length)];
    assert.ok(one !== undefined);
    return one;
  }

  #pass(): void {
    this.clock.advance(25);
    for (const node of this.nodes) node.edge.tick();
  }

  #step(): void {
    const { random } = this;
    const dice = random.below(100);
    if (dice < 25) this.#ask();
    else if (dice < 32) this.#askAgain();
    else if (dice < 36) this.#reverse();
    else if (dice < 66) this.#sync();
    else if (dice < 88) this.#commit();
    else if (dice < 90) this.#elect(this.#pick(this.nodes));
    else if (dice < 92) this.#loseLeader();
    else this.#pick(this.nodes).apply();
  }

  #ask(): void {
    const number = this.exchanges.length + 1;
    const exchange = { number, local: this.random.below(3) === 0, codes: [], open: 0, reversed: false };
    this.exchanges.push(exchange);
    this.#send(exchange, '0100');
  }

  #askAgain(): void {
    const exchange = this.exchanges.at(-1 - this.random.below(6));
    if (exchange !== undefined && !exchange.reversed) this.#send(exchange, '0101');
  }

  #send(exchange: Exchange, mti: string): void {
    exchange.open += 1;
    const { edge } = this.#pick(this.nodes);
    edge.handle(this.#message(exchange, mti), 'link-1', (answer) => {
      exchange.open -= 1;
      exchange.codes.push(answer.fields.get(39) as string);
    });
  }

  /** Of something that was approved; until it is answered. */
  #reverse(): void {
    const exchange = this.exchanges.at(-1 - this.random.below(4));
    if (exchange === undefined || exchange.reversed || !exchange.codes.includes('00')) return;
    exchange.reversed = true;
    const repeat = (mti: string): void => {
      const { edge } = this.#pick(this.nodes);
      edge.handle(this.#message(exchange, mti), 'link-1', (answer) => {
        if (answer.fields.get(39) === '91') repeat('0421');
      });
    };
    repeat('0420');
  }

  #message({ number, local }: Exchange, mti: string): ReturnType<typeof purchaseMessage> {
    const reversal = mti.startsWith('04');
    const stan = String(number).padStart(6, '0');
    const original = `0100${stan}0301120000${'123456'.padStart(11, '0')}${'0'.repeat(11)}`;
    return purchaseMessage(
      {
        2: (local ? localPan : pan).reveal(),
        4: '000000000100',
        11: reversal ? `9${stan.slice(1)}` : stan,
        35: undefined,
        90: reversal ? original : undefined,
      },
      mti,
    );
  }

  #sync(): void {
    const leader = this.#leader;
    leader.durable = leader.log.length;
    this.#tell(leader);
    // A leader of the past goes on by itself until it hears of it.
    for (const node of this.nodes) {
      if (node === leader || !node.leads) continue;
      node.durable = node.log.length;
      node.owner.onProgress({ term: node.term, commit: node.applied, durable: node.durable });
    }
  }

  #commit(): void {
    const leader = this.#leader;
    if (!leader.leads) return;
    const most = leader.durable - this.#committed;
    const index = this.#committed + (this.#calm ? most : this.random.below(most + 1));
    if (index < this.#firstOfTerm) return;
    this.#committed = Math.max(this.#committed, index);
    leader.committed = this.#committed;
    for (const node of this.nodes) if (node !== leader && !node.leads) this.#replicate(node);
    this.#tell(leader);
  }

  #tell({ owner, term, durable }: Node): void {
    owner.onProgress({ term, commit: this.#committed, durable });
  }

  /** The node's log becomes the leader's, as far as that has committed; what only it had is salvaged. */
  #replicate(node: Node): void {
    const theirs = this.#leader.log;
    const differs = node.log.findIndex(({ hash }, at) => theirs[at]?.hash !== hash);
    if (differs !== -1) {
      this.counts.salvaged += 1;
      node.salvage.add(node.log.slice(differs));
    }
    node.log = theirs.slice(0, Math.max(this.#committed, differs === -1 ? node.log.length : differs));
    node.durable = node.log.length;
    node.committed = this.#committed;
  }

  /** Nobody leads for a while; the leader does not know it yet, or does at once. */
  #loseLeader(): void {
    this.#leader.leased = false;
    for (const node of this.nodes) node.leader = undefined;
    this.#depose(this.#leader);
    this.clock.after(this.random.below(5_000), () => {
      if (!this.#leader.leads && !this.#calm) this.#elect(this.#pick(this.nodes));
    });
  }

  #depose(node: Node): void {
    node.leads = false;
    node.owner.resign();
  }

  /** `node` has everything that committed, and perhaps a part of what the last leader had beyond. */
  #elect(node: Node): void {
    this.counts.moves += 1;
    const before = this.#leader;
    before.leased = false;
    if (node !== before && node.leads) this.#depose(node);
    if (node !== before && !node.leads) {
      this.#replicate(node);
      const beyond = before.log.length - node.log.length;
      const same = beyond > 0 && node.log.every(({ hash }, at) => before.log[at]?.hash === hash);
      if (same) node.log = before.log.slice(0, node.log.length + this.random.below(beyond + 1));
      const late = before;
      const known = (): void => {
        if (late !== this.#leader && late.leads) this.#depose(late);
      };
      if (this.#calm || this.random.below(2) === 0) known();
      this.clock.after(this.random.below(1_500), known);
    }
    this.#leader = node;
    const term = Math.max(...this.nodes.map((each) => each.term)) + 1;
    node.term = term;
    node.leads = true;
    node.append([{ ...noOpEntry, leader: node.id, term }]);
    node.durable = Math.min(node.durable, node.log.length - 1);
    this.#firstOfTerm = node.log.length;
    node.owner.lead(term, node.applied, node.log.slice(node.applied));
    node.leased = true;
    if (before !== node && this.#calm) this.#depose(before);
    for (const each of this.nodes) {
      const hear = (): void => {
        if (this.#leader !== node) return;
        each.leader = node.id;
        each.edge.onLeader(group);
      };
      if (each === node || this.#calm) hear();
      else this.clock.after(this.random.below(600), hear);
    }
  }

  #check(): void {
    const [first] = this.nodes;
    assert.ok(first !== undefined);
    for (const node of this.nodes) {
      assert.deepEqual([node.edge.inFlight, node.edge.reversalsDue, node.edge.standIns.length], [0, 0, 0], node.id);
      assert.deepEqual(node.salvage.groups(), [], 'all that was salvaged is resolved');
      assert.equal(node.log.at(-1)?.hash, first.log.at(-1)?.hash);
    }
    for (const [at, database] of this.#databases.entries()) {
      const content = (of: Database.Database): unknown[] =>
        ['card', 'card_transaction', 'repeat_attempt', 'undelivered_attempt', 'resolution', 'stand_in'].map((table) =>
          of.prepare(`SELECT * FROM ${table}`).all(),
        );
      const [one] = this.#databases;
      assert.ok(one !== undefined);
      assert.deepEqual(content(database), content(one), `copy ${at}`);
    }
    for (const { entries } of this.nodes.map(({ salvage }) => salvage))
      assert.ok(entries.every(({ outcome }) => outcome));
    let held = 0n;
    for (const exchange of this.exchanges) held += this.#checkExchange(exchange, first);
    const cards = [pan, localPan].map((number) => first.ledger.cardByPanHash(cardKeys.hash(number)));
    assert.equal(
      cards.reduce((sum, card) => sum + (card?.held ?? 0n), 0n),
      held,
      'the cards hold what the transactions do',
    );
    const bodies = first.log.map(({ body }) => decodeBody(body).kind);
    this.counts.dues += bodies.filter((kind) => kind === 'undelivered').length;
    this.counts.standIns += bodies.filter((kind) => kind === 'stand-in').length;
  }

  #checkExchange(exchange: Exchange, { ledger, log }: Node): bigint {
    const { number, local, codes, reversed, open } = exchange;
    assert.equal(open, 0, 'every attempt was answered');
    const key = `0301120000|${String(number).padStart(6, '0')}|link-1|123456|TERM0001|0100`;
    const row: TransactionRow | undefined = ledger.transactionByKey(key);
    const what = `${number} ${local ? 'local' : 'quorum'} ${codes.join(' ')}: ${row?.state ?? 'nothing'}`;
    const listed = log.some(({ body: text }) => {
      const body = decodeBody(text);
      return (
        body.kind === 'resolution' &&
        body.outcome === 'voided' &&
        (body.decision.kind === 'attempt' ? body.decision.key : body.decision.request.key) === key
      );
    });
    const stands = row !== undefined && isApproval(row.responseCode) && row.state === 'held';
    if (reversed) assert.ok(!stands, `what was reversed stands: ${what}`);
    else if (codes.includes('00'))
      assert.ok(stands || (local && listed), `an answered approval does not count: ${what}`);
    else assert.ok(!stands, `an approval that nobody has stands: ${what}`);
    return row?.held ?? 0n;
  }
}

test('wherever leadership goes and whatever is lost: what was answered counts once, what was not does not stand', () => {
  const counts = { moves: 0, salvaged: 0, dues: 0, standIns: 0 };
  for (let seed = 1; seed <= 40; seed++) {
    const world = new World(seed);
    try {
      world.run();
    } catch (error) {
      if (error instanceof Error) error.message = `seed ${seed}: ${error.message}`;
      throw error;
    } finally {
      world.close();
    }
    for (const name of Object.keys(counts) as (keyof typeof counts)[]) counts[name] += world.counts[name];
  }
  for (const [name, count] of Object.entries(counts)) assert.ok(count > 20, `${name}: ${count}`);
});
