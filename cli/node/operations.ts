/*
 * Over 500 lines because every call that a node takes, with the shape of its parameters, is to be seen in one place.
 */
import { z } from 'zod';

import type { CardKeys } from '../../base/card-keys.ts';
import { waitFor } from '../../base/clock.ts';
import { describeError, SwitchError, type ErrorCode, errorCatalogue } from '../../base/errors.ts';
import { groupId, nodeId, type GroupId, type NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import type { Pan } from '../../base/pan.ts';
import { voters } from '../../base/topology.ts';
import { decodeConfigurationChange } from '../../config-db/rows.ts';
import type { StandIn } from '../../store/edge-store.ts';
import { encodeBody } from '../../store/entry.ts';
import {
  countResolutions,
  pendingStandIns,
  readStandIns,
  voidedByKey,
  type StandInApproval,
} from '../../store/ledger-reports.ts';
import { by, pan, parse } from './call-parameters.ts';
import { CardCalls, cardPeerMethods, type CardCallsOptions } from './card-calls.ts';
import { ConfigurationCalls, configurationPeerMethods, type ConfigurationCallsOptions } from './configuration-calls.ts';
import type { Consensus } from './consensus.ts';
import type { Groups, HostedGroup } from './groups.ts';
import { planRanges, rangesOnTheirWay } from './range-desk.ts';
import type { KeptChange } from './change-carrier.ts';
import { callLeader, leaderTimeoutMs } from './leader-calls.ts';
import { errorReply, type CallReply, type CallRequest } from './peer-calls.ts';

export interface OperationsOptions extends ConfigurationCallsOptions, CardCallsOptions {
  readonly log: Logger;
  readonly consensus: Consensus;
  readonly cardKeys: CardKeys;
  /** Approvals that this node gave by itself and no log has yet. */
  readonly pendingStandIns: () => readonly StandIn[];
  readonly callPeer: (to: NodeId, request: CallRequest, timeoutMs: number) => Promise<CallReply>;
}

const schemas = {
  'ranges.plan': z.strictObject({ changes: z.array(z.string().max(200_000)).max(1_000) }),
  'ranges.status': z.strictObject({}),
  'compare.mark': z.strictObject({ group: z.string(), compare: z.string().max(100) }),
  'node.drain': z.strictObject({ on: z.boolean() }),
  'node.failback': z.strictObject({ groups: z.array(z.string()).max(1000) }),
  'node.rebuild': z.strictObject({ groups: z.array(z.string()).max(1000), by }),
  'node.recover': z.strictObject({ group: z.string(), lost: z.array(z.string()).min(1).max(100), by }),
  'standin.report': z.strictObject({}),
  'ledger.cards': z.strictObject({ pans: z.array(pan).max(2000) }),
  'ledger.voided': z.strictObject({ keys: z.array(z.string().max(100)).max(2000) }),
  'ledger.transactions': z.strictObject({ keys: z.array(z.string().max(100)).max(2000) }),
} as const;

/** Calls that only nodes make to each other; the rest are operators'. */
const peerMethods: ReadonlySet<string> = new Set([...configurationPeerMethods, ...cardPeerMethods, 'compare.mark']);

export interface LedgerCard {
  readonly found: boolean;
  readonly group: string;
  readonly held: string;
  readonly posted: string;
  /** Entries of the card that were lost with an owner and adopted or voided since (R9). */
  readonly resolutions: number;
}

export interface LedgerTransaction {
  readonly key: string;
  readonly group: string;
  readonly index: number;
  readonly responseCode: string;
  readonly authorizationCode: string;
  readonly state: string;
}

/** A decision that is in no log any more, and why its owner's claim was not entered (R9). */
export interface LedgerVoided {
  readonly key: string;
  readonly group: string;
  readonly reason: string;
}

/** Approvals in stand-in of one group in one report, the newest: what fits an answer. */
const maximumStandIns = 500;

/**
 * What a node does when it is called, by an operator or by another node: every method with the shape of its
 * parameters in one place. What another node has to do (the owner of a card, the leader of the configuration) is
 * passed on from here, so that any node takes any call.
 */
export class Operations {
  readonly #options: OperationsOptions;
  readonly #configurations: ConfigurationCalls;
  readonly #cards: CardCalls;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#configurations = new ConfigurationCalls(options, {
      atOwner: (group, method, asked) => this.#atOwner(group, method, asked),
      hosted: (group) => this.#hosted(group),
    });
    this.#cards = new CardCalls(options, {
      atOwner: (group, method, asked) => this.#atOwner(group, method, asked),
      owner: (group) => this.#owner(group),
      hosted: (group) => this.#hosted(group),
      configuration: () => this.#configuration(),
    });
  }

  /** A change that this node keeps until it is known what became of it: the log index, 0 when nothing had to be changed. */
  enterKept(change: KeptChange): Promise<number> {
    return this.#configurations.enterKept(change);
  }

  async serve(caller: 'operator' | 'peer', request: CallRequest): Promise<CallReply> {
    try {
      if ((caller === 'peer') !== peerMethods.has(request.method) && request.method !== 'compare.mark') {
        throw new SwitchError('CALL_INVALID', `${request.method} is not a call that a ${caller} can make`);
      }
      return { kind: 'result', result: await this.#dispatch(request) };
    } catch (error) {
      return errorReply(error);
    }
  }

  async #dispatch(request: CallRequest): Promise<unknown> {
    if (request.method.startsWith('cards.')) return this.#cards.serve(request);
    if (request.method.startsWith('configuration.')) return this.#configurations.serve(request);
    switch (request.method) {
      case 'ranges.plan': {
        const changes = parse(schemas['ranges.plan'], request).changes.map(decodeConfigurationChange);
        return planRanges(this.#options.groups, this.#configuration(), changes, this.#options.clock);
      }
      case 'ranges.status':
        parse(schemas['ranges.status'], request);
        return { moves: rangesOnTheirWay(this.#options.groups, this.#configuration()) };
      case 'compare.mark': {
        const parameters = parse(schemas['compare.mark'], request);
        return this.#mark(parameters.group, parameters.compare);
      }
      case 'node.drain': {
        const { on } = parse(schemas['node.drain'], request);
        return { draining: on, leads: await this.#options.consensus.drain(on) };
      }
      case 'node.failback':
        return this.#options.consensus.failback(parse(schemas['node.failback'], request).groups.map(groupId));
      case 'node.rebuild':
        return this.#rebuild(parse(schemas['node.rebuild'], request));
      case 'node.recover':
        return this.#recover(parse(schemas['node.recover'], request));
      case 'standin.report':
        parse(schemas['standin.report'], request);
        return { approvals: this.#standIns() };
      case 'ledger.cards':
        return parse(schemas['ledger.cards'], request).pans.map((each) => this.#ledgerCard(each));
      case 'ledger.voided':
        return this.#ledgerVoided(parse(schemas['ledger.voided'], request).keys);
      case 'ledger.transactions':
        return parse(schemas['ledger.transactions'], request).keys.flatMap((key) => this.#ledgerTransactions(key));
      default:
        throw new SwitchError('CALL_INVALID', `there is no call "${request.method.slice(0, 40)}"`);
    }
  }

  /** Has the configuration say that a range's move has ended: asked for again while it does not. */
  endMove(move: string): void {
    void this.#configurations.endMove(move).catch((error: unknown) => {
      this.#options.log.warn(
        { event: 'range-move-open', move, reason: describeError(error) },
        'a move has ended, and config does not say so yet',
      );
    });
  }

  /** Has the group's leader carry out a call that may be repeated; tries for a while when it is not there. */
  async #atOwner(group: GroupId, method: string, parameters: unknown): Promise<unknown> {
    const { clock, self, groups, callPeer } = this.#options;
    const reply = await new Promise<CallReply>((resolve) => {
      const options = {
        self,
        clock,
        leaderOf: (of: GroupId) => groups.leaderOf(of),
        serve: (request: CallRequest, done: (reply: CallReply) => void) => void this.#servePeer(request).then(done),
        callPeer: (to: NodeId, request: CallRequest, timeoutMs: number, done: (reply: CallReply) => void) =>
          void callPeer(to, request, timeoutMs).then(done),
      };
      callLeader(options, group, { method, parameters }, resolve);
    });
    if (reply.kind === 'result') return reply.result;
    if (reply.code in errorCatalogue)
      throw new SwitchError(reply.code as ErrorCode, reply.message, { hint: reply.hint });
    throw new Error(reply.message);
  }

  /** The same call made to this node itself: parameters take the same way as over the bus. */
  #servePeer(request: CallRequest): Promise<CallReply> {
    return this.serve('peer', JSON.parse(JSON.stringify(request)) as CallRequest);
  }

  async #mark(group: string, compare: string): Promise<unknown> {
    const hosted = this.#hosted(group);
    if (hosted.leader !== this.#options.self) return this.#atOwner(hosted.group, 'compare.mark', { group, compare });
    const body = { kind: 'mark', at: this.#options.clock.wallMs(), compare } as const;
    const index =
      hosted.owner === undefined
        ? (await this.#options.consensus.enter(hosted.group, encodeBody(body)))?.index
        : hosted.owner.append(body);
    if (index === undefined) throw new SwitchError('OWNER_UNREACHABLE', `group ${group} takes no entries now`);
    return { index, term: hosted.term, leader: this.#options.self };
  }

  /** This node goes on without members that an operator has given up; resolves when it leads the group. */
  /** The groups of which an empty copy is being filled; [] names all. */
  async #rebuild({ groups, by: who }: z.infer<(typeof schemas)['node.rebuild']>): Promise<unknown> {
    const { consensus, log, groups: here } = this.#options;
    const known = (await consensus.status()).groups.map(({ group }) => group);
    const wanted = groups.length === 0 ? [...new Set([...known, ...here.hosted.keys()])] : groups.map(groupId);
    log.warn({ event: 'rebuild-asked', groups: wanted, by: who }, 'an operator has copies made anew');
    for (const group of wanted) await consensus.rebuild(group);
    return { groups: wanted };
  }

  async #recover({ group, lost, by: who }: z.infer<(typeof schemas)['node.recover']>): Promise<unknown> {
    const { clock, consensus, self, topology, log } = this.#options;
    const hosted = this.#hosted(group);
    const ids = voters(topology);
    const unknown = lost.find((id) => !ids.some((each) => each === id) || id === self);
    if (unknown !== undefined) throw new SwitchError('CALL_INVALID', `${unknown} is not another member of the cluster`);
    log.warn({ event: 'recover', group, lost, by: who }, 'an operator gives up members for lost');
    await consensus.recover(hosted.group, lost.map(nodeId), who);
    const now = async (): Promise<object | undefined> => {
      const status = (await consensus.status()).groups.find((each) => each.group === hosted.group);
      if (status?.role !== 'leader' || status.commit < status.last) return undefined;
      return { group, term: status.term, index: status.last, voters: status.voters.map(({ id }) => id) };
    };
    return waitFor(clock, now, {
      timeoutMs: leaderTimeoutMs,
      onTimeout: () =>
        new SwitchError('OWNER_UNREACHABLE', `the others left in group ${group} do not vote for ${self}`),
    });
  }

  /** This node's pending approvals in stand-in, and every node's that the groups' logs have. */
  #standIns(): StandInApproval[] {
    const { self, groups, pendingStandIns: pending } = this.#options;
    const entered = [...groups.hosted.values()].flatMap(({ group, ledger, reader }) =>
      ledger === undefined ? [] : readStandIns(reader.database, group, maximumStandIns),
    );
    return [...pendingStandIns(self, pending()), ...entered];
  }

  #ledgerCard(number: Pan): LedgerCard {
    const { group_id: group } = this.#configuration().rangeOf(number);
    const hosted = this.#options.groups.hosted.get(group);
    const row = hosted?.ledger?.cardByPanHash(this.#options.cardKeys.hash(number));
    return {
      found: row !== undefined,
      group,
      held: (row?.held ?? 0n).toString(),
      posted: (row?.posted ?? 0n).toString(),
      resolutions: hosted === undefined || row === undefined ? 0 : countResolutions(hosted.reader.database, row.cardId),
    };
  }

  #ledgerTransactions(key: string): LedgerTransaction[] {
    return [...this.#options.groups.hosted.values()].flatMap(({ group, ledger }) => {
      const row = ledger?.transactionByKey(key);
      // Of a card that has left the row says only where it was.
      if (
        row === undefined ||
        ledger === undefined ||
        (row.request.card !== '' && ledger.leftBy(row.request.card) !== '')
      )
        return [];
      const { index, responseCode, authorizationCode, state } = row;
      return [{ key, group, index, responseCode, authorizationCode, state }];
    });
  }

  #ledgerVoided(keys: readonly string[]): LedgerVoided[] {
    return [...this.#options.groups.hosted.values()].flatMap(({ group, ledger, reader }) =>
      ledger === undefined
        ? []
        : [...voidedByKey(reader.database, keys)].map(([key, reason]) => ({ key, group, reason })),
    );
  }

  #owner(group: string): NonNullable<HostedGroup['owner']> {
    const { owner } = this.#hosted(group);
    if (owner?.ready !== true) throw new SwitchError('OWNER_UNREACHABLE', `this node does not own group ${group}`);
    return owner;
  }

  #hosted(group: string): HostedGroup {
    const hosted = this.#options.groups.hosted.get(groupId(group));
    if (hosted === undefined) throw new SwitchError('OWNER_UNREACHABLE', `this node has no group ${group} yet`);
    return hosted;
  }

  #configuration(): NonNullable<Groups['configuration']> {
    const { configuration } = this.#options.groups;
    if (configuration === undefined) {
      throw new SwitchError('OWNER_UNREACHABLE', 'no configuration has been entered into this cluster yet');
    }
    return configuration;
  }
}
