import { z } from 'zod';

import type { CardKeys } from '../../base/card-keys.ts';
import { nextTurn, type Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import type { GroupId, NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import { maximumAmount } from '../../base/money.ts';
import type { Pan } from '../../base/pan.ts';
import type { Random } from '../../base/random.ts';
import { cardStatuses } from '../../store/card-status.ts';
import type { CardImportResult, CardRequest } from '../../switch/card-changes.ts';
import type { Edge } from '../../switch/edge.ts';
import { by, pan, parse } from './call-parameters.ts';
import {
  enterRequests,
  importCards,
  sealCard,
  sealNumber,
  viewCard,
  type CardFileInput,
  type CardView,
  type DeskTools,
} from './cards-desk.ts';
import type { Groups, HostedGroup } from './groups.ts';
import type { CallRequest } from './peer-calls.ts';

/** Cards in one call of an import: what the CLI sends at a time, and what a call to one owner has room for. */
export const maximumCardsPerCall = 2000;
/** Cards of a call that are looked at, hashed and encrypted in one turn of the event loop: two milliseconds or so. */
const cardsPerTurn = 50;
/** Changes of cards in one call, which is all of them or nothing. */
export const maximumChangesPerCall = 200;

const cardStatus = z.enum(cardStatuses as [(typeof cardStatuses)[number]]);
const limit = z.string().regex(/^[0-9]{1,12}$/);
const card = z.strictObject({
  pan,
  expiry: z.string().regex(/^[0-9]{4}$/),
  status: cardStatus,
  currency: z.string(),
  limit,
});
const cardInput = z.strictObject({
  bin: z.string().regex(/^[0-9]{8}$/),
  panHash: z.string().regex(/^[0-9a-f]{64}$/),
  panKeyVersion: z.int(),
  panCipher: z.string().max(200),
  expiry: z.string(),
  status: cardStatus,
  currency: z.string(),
  limit,
});

const expiry = z.string().regex(/^[0-9]{2}(?:0[1-9]|1[0-2])$/);
const replaces = z.int().min(1);
const restrictions = z.array(z.string().max(60)).min(1).max(50);
const panHash = z.string().regex(/^[0-9a-f]{64}$/);
/** SHA-256 of a card file; another name for one that is to be entered again. */
const file = z.string().regex(/^[0-9a-f]{64}$/);
const line = z.int().min(1);
const cardSetting = { replaces, expiry: expiry.optional(), limit: limit.optional(), status: cardStatus.optional() };
/** What operators ask, by card number. */
const cardChange = z.discriminatedUnion('kind', [
  card.extend({ kind: z.literal('add'), expiry }),
  z.strictObject({ kind: z.literal('set'), pan, ...cardSetting }),
  z.strictObject({ kind: z.literal('replace'), pan, replaces, newPan: pan, expiry, status: cardStatus }),
  z.strictObject({ kind: z.literal('delete'), pan, replaces }),
  z.strictObject({ kind: z.literal('lift'), pan, restrictions }),
]);
/** The same as it comes to the owner. */
const cardRequest = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('add'), card: cardInput }),
  z.strictObject({ kind: z.literal('set'), panHash, ...cardSetting }),
  z.strictObject({
    kind: z.literal('replace'),
    panHash,
    replaces,
    by: cardInput.pick({ bin: true, panHash: true, panKeyVersion: true, panCipher: true }),
    expiry,
    status: cardStatus,
  }),
  z.strictObject({ kind: z.literal('delete'), panHash, replaces }),
  z.strictObject({ kind: z.literal('lift'), panHash, restrictions }),
]);

/** Cards of an import, looked at some at a time. */
const importedCards = z.array(card.extend({ line }));
const enteredCards = z.array(cardInput.extend({ line }));

const schemas = {
  'cards.import': z.strictObject({ by, file, cards: z.array(z.unknown()).max(maximumCardsPerCall) }),
  'cards.imported': z.strictObject({ file }),
  'cards.enter': z.strictObject({
    by,
    origin: z.string(),
    group: z.string(),
    file,
    cards: z.array(z.unknown()).max(maximumCardsPerCall),
  }),
  'cards.change': z.strictObject({
    by,
    check: z.boolean(),
    changes: z.array(cardChange).min(1).max(maximumChangesPerCall),
  }),
  'cards.lead': z.strictObject({
    by,
    origin: z.string(),
    group: z.string(),
    check: z.boolean(),
    requests: z.array(cardRequest).min(1).max(maximumChangesPerCall),
    places: z.array(z.int()).optional(),
  }),
  'cards.restrict': z.strictObject({ by, pan, status: z.enum(['blocked', 'lost', 'stolen']) }),
  'cards.get': z.strictObject({ pan }),
  'cards.read': z.strictObject({ group: z.string(), panHash }),
} as const;

/** Those that only nodes make to each other. */
export const cardPeerMethods = ['cards.enter', 'cards.lead', 'cards.read'] as const;

/** A restriction that works at `node`; entered: the card's log has it, so that it works everywhere. */
export interface RestrictionReply {
  readonly restriction: string;
  readonly node: string;
  readonly isEntered: boolean;
}

/** How long a restriction's caller waits to hear that it has been entered. */
const deliveryMs = 1_500;

/** What became of a line of a card file. */
export interface ImportedLine {
  readonly result: CardImportResult | 'failed';
  readonly reason?: string;
}

export interface CardCallsOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Pick<Logger, 'info'>;
  readonly groups: Groups;
  readonly cardKeys: CardKeys;
  /** Restricts a card at this node at once (R11). */
  readonly restrict: Edge['restrict'];
}

/** What calls about cards need of the node's other calls. */
export interface CallTools {
  readonly atOwner: (group: GroupId, method: string, parameters: unknown) => Promise<unknown>;
  readonly owner: (group: string) => NonNullable<HostedGroup['owner']>;
  readonly hosted: (group: string) => HostedGroup;
  readonly configuration: () => NonNullable<Groups['configuration']>;
}

/** Calls about cards: operators' at any node, and what these have the cards' owners do. */
export class CardCalls {
  readonly #options: CardCallsOptions;
  readonly #tools: CallTools;

  constructor(options: CardCallsOptions, tools: CallTools) {
    this.#options = options;
    this.#tools = tools;
  }

  /** Throws CALL_INVALID for a method that is not here. */
  async serve(request: CallRequest): Promise<unknown> {
    switch (request.method) {
      case 'cards.import':
        return this.#import(parse(schemas['cards.import'], request));
      case 'cards.imported':
        return { through: this.#importedThrough(parse(schemas['cards.imported'], request).file) };
      case 'cards.enter': {
        const { group, by: who, origin, file: name, cards } = parse(schemas['cards.enter'], request);
        const owner = this.#tools.owner(group);
        const inputs: CardFileInput[] = [];
        for await (const some of this.#inTurns(request.method, enteredCards, cards)) inputs.push(...some);
        const tools = { ...this.#desk, cardKeys: this.#options.cardKeys };
        const results = await importCards(owner, { file: name, cards: inputs }, { by: who, origin }, tools);
        const changed = results.filter((result) => result === 'added' || result === 'changed').length;
        if (changed > 0) this.#logCards(group, who, changed);
        return results;
      }
      case 'cards.change':
        return this.#change(parse(schemas['cards.change'], request));
      case 'cards.lead': {
        const { group, by: who, origin, ...asked } = parse(schemas['cards.lead'], request);
        const changed = await enterRequests(this.#tools.owner(group), asked, { by: who, origin }, this.#desk);
        if (changed > 0 && !asked.check) this.#logCards(group, who, changed);
        return changed;
      }
      case 'cards.restrict':
        return this.#restrict(parse(schemas['cards.restrict'], request));
      case 'cards.get':
        return this.#getCard(parse(schemas['cards.get'], request).pan);
      case 'cards.read': {
        const { group, panHash: number } = parse(schemas['cards.read'], request);
        const { ledger, owner } = this.#tools.hosted(group);
        if (ledger === undefined || owner?.ready !== true) {
          throw new SwitchError('OWNER_UNREACHABLE', `this node does not own group ${group}`);
        }
        return viewCard(ledger, group, number);
      }
      default:
        throw new SwitchError('CALL_INVALID', `there is no call "${request.method.slice(0, 40)}"`);
    }
  }

  /** Whoever changed them, never which: a card's own history is in the group's log. */
  #logCards(group: string, who: string, cards: number): void {
    this.#options.log.info({ event: 'cards-entered', group, by: who, cards }, 'cards were added or changed');
  }

  /**
   * Lines of a card file, in their order, each to its owner. All of them have been entered when it resolves; when one owner
   * cannot be reached it throws, and the same lines have to come again: those that others have entered are known.
   */
  async #import({ by: who, file: name, cards }: z.infer<(typeof schemas)['cards.import']>): Promise<ImportedLine[]> {
    const { cardKeys, random, self } = this.#options;
    const byGroup = new Map<GroupId, { readonly position: number; readonly input: CardFileInput }[]>();
    const results: ImportedLine[] = [];
    for await (const given of this.#inTurns('cards.import', importedCards, cards)) {
      const configuration = this.#tools.configuration();
      for (const { line: number, ...each } of given) {
        const position = results.length;
        const range = configuration.rangeOf(each.pan);
        if (range.prefix === '') {
          results.push({ result: 'failed', reason: 'no range has a prefix of this card number' });
        } else if (BigInt(each.limit) > maximumAmount) {
          results.push({ result: 'failed', reason: 'the limit is too large' });
        } else {
          results.push({ result: 'failed', reason: 'no result' });
          const input = { ...sealCard({ ...each, limitMinor: BigInt(each.limit) }, cardKeys, random), line: number };
          const ofGroup = byGroup.get(range.group_id);
          if (ofGroup === undefined) byGroup.set(range.group_id, [{ position, input }]);
          else ofGroup.push({ position, input });
        }
      }
    }
    const entering = [...byGroup].map(async ([group, inputs]) => {
      const asked = { by: who, origin: self, group, file: name, cards: inputs.map(({ input }) => input) };
      const entered = (await this.#tools.atOwner(group, 'cards.enter', asked)) as readonly CardImportResult[];
      inputs.forEach(({ position }, at) => {
        const result = entered[at];
        if (result !== undefined) results[position] = { result };
      });
    });
    const failed = (await Promise.allSettled(entering)).find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return results;
  }

  /** A call's cards, some in each turn of the event loop: the requests of acquirers do not wait for all of them. */
  async *#inTurns<Card>(
    method: string,
    schema: z.ZodType<Card[]>,
    cards: readonly unknown[],
  ): AsyncGenerator<readonly Card[]> {
    for (let from = 0; from < cards.length; from += cardsPerTurn) {
      if (from > 0) await nextTurn(this.#options.clock);
      yield parse(schema, { method, parameters: cards.slice(from, from + cardsPerTurn) });
    }
  }

  /** How far this node's copies say that a file has been entered; 0: they do not know it. */
  #importedThrough(name: string): number {
    const marks = [...this.#options.groups.hosted.values()].flatMap(({ ledger }) => ledger?.imported(name) ?? []);
    return Math.max(0, ...marks.map(({ through }) => through));
  }

  /**
   * Changes of cards, as one entry for each group that they are of. With several groups every owner checks its part before
   * any of them enters; what an owner that is lost between the two has left out, the error says.
   */
  async #change({ by: who, check, changes }: z.infer<(typeof schemas)['cards.change']>): Promise<unknown> {
    const { self } = this.#options;
    const byGroup = new Map<GroupId, { place: number; request: CardRequest }[]>();
    changes.forEach((change, place) => {
      const { group, request } = this.#sealedChange(change);
      byGroup.set(group, [...(byGroup.get(group) ?? []), { place: place + 1, request }]);
    });
    const enter = async (group: GroupId, checks: boolean): Promise<number> => {
      const parts = byGroup.get(group) ?? [];
      const places = changes.length === 1 ? undefined : parts.map(({ place }) => place);
      const requests = parts.map(({ request }) => request);
      return (await this.#tools.atOwner(group, 'cards.lead', {
        ...{ by: who, origin: self, group, check: checks, requests },
        ...(places === undefined ? {} : { places }),
      })) as number;
    };
    const groups = [...byGroup.keys()];
    if (check || groups.length > 1) for (const group of groups) await enter(group, true);
    if (check) return { changed: 0, checked: changes.length };
    let changed = 0;
    for (const [at, group] of groups.entries()) {
      try {
        changed += await enter(group, false);
      } catch (error) {
        if (at === 0 || !(error instanceof SwitchError)) throw error;
        const entered = groups.slice(0, at).join(', ');
        throw new SwitchError(error.code, `${error.message}; the changes of group ${entered} have been entered`);
      }
    }
    return { changed, checked: changes.length };
  }

  #sealedChange(change: z.infer<typeof cardChange>): { readonly group: GroupId; readonly request: CardRequest } {
    const { cardKeys, random } = this.#options;
    const range = this.#tools.configuration().rangeOf(change.pan);
    if (range.prefix === '') {
      throw new SwitchError('CARD_CHANGE_REFUSED', 'no range has a prefix of this card number');
    }
    const group = range.group_id;
    const hash = cardKeys.hash(change.pan);
    if (change.kind === 'add') {
      const { kind, limit: to, ...given } = change;
      return { group, request: { kind, card: sealCard({ ...given, limitMinor: BigInt(to) }, cardKeys, random) } };
    }
    if (change.kind !== 'replace') {
      const { pan: _number, ...rest } = change;
      return { group, request: { ...rest, panHash: hash } };
    }
    const { newPan, pan: _old, ...rest } = change;
    // A card's numbers stay together: its range may move to another group.
    if (this.#tools.configuration().rangeOf(newPan).prefix !== range.prefix) {
      throw new SwitchError('CARD_CHANGE_REFUSED', 'the new number is of another range than the old one');
    }
    return { group, request: { ...rest, panHash: hash, by: sealNumber(newPan, cardKeys, random) } };
  }

  /** Resolves when this node keeps the restriction; waits a little to say whether the card's log has it, too. */
  #restrict({ pan: number, status, by: who }: z.infer<(typeof schemas)['cards.restrict']>): Promise<RestrictionReply> {
    const { restrict, self, clock, log } = this.#options;
    return new Promise((resolve, reject) => {
      const name = restrict(
        { pan: number, status, by: who },
        (failure, id) => {
          if (failure !== undefined) {
            reject(failure);
            return;
          }
          log.info(
            { event: 'card-restricted', restriction: id, status, by: who },
            'a card is restricted here from now on',
          );
          clock.after(deliveryMs, () => {
            resolve({ restriction: id, node: self, isEntered: false });
          });
        },
        (outcome) => {
          if (outcome === 'card-unknown') reject(new SwitchError('CARD_UNKNOWN', 'no such card is on file'));
          else resolve({ restriction: name ?? '', node: self, isEntered: true });
        },
      );
      if (name === undefined) {
        reject(new SwitchError('CARD_CHANGE_REFUSED', 'no range has a prefix of this card number'));
      }
    });
  }

  /** As the card's owner has it; as this node's copy has it while there is no owner. */
  async #getCard(number: Pan): Promise<CardView & { readonly isFromOwner: boolean }> {
    const { cardKeys, groups } = this.#options;
    const { group_id: group } = this.#tools.configuration().rangeOf(number);
    const hash = cardKeys.hash(number);
    try {
      return {
        ...((await this.#tools.atOwner(group, 'cards.read', { group, panHash: hash })) as CardView),
        isFromOwner: true,
      };
    } catch (error) {
      const ledger = groups.hosted.get(group)?.ledger;
      if (!(error instanceof SwitchError && error.retryable) || ledger === undefined) throw error;
      return { ...viewCard(ledger, group, hash), isFromOwner: false };
    }
  }

  get #desk(): DeskTools {
    return this.#options;
  }
}
