import type { Clock } from '../base/clock.ts';
import { whenReadable } from '../base/errors.ts';
import type { GroupId } from '../base/identifiers.ts';
import type { ConfigurationView } from '../config-db/configuration-view.ts';
import type { EntryBody } from '../store/entry.ts';
import type { LedgerReader } from '../store/ledger.ts';
import type { RangeMoveRow } from '../store/range-move.ts';
import type { RangeReader } from '../store/range-reader.ts';
import type { GroupOwner } from './owner.ts';
import { nextStep } from './range-moves.ts';

export interface RangeMoverOptions {
  readonly clock: Clock;
  readonly configuration: () => ConfigurationView | undefined;
  readonly ownerOf: (group: GroupId) => GroupOwner | undefined;
  /** This node's committed copy of a group's fold. */
  readonly foldOf: (group: GroupId) => { readonly ledger: LedgerReader; readonly ranges: RangeReader } | undefined;
  /** Has the end of a move entered into the configuration; may be called again and again. */
  readonly end: (move: string) => void;
  /** Of a range-rows entry, about: what this thread reads in one step. */
  readonly partBytes?: number;
  readonly cardsPerEntry?: number;
  /** A move that cannot go on: its range stays without an owner until somebody has looked. */
  readonly onFault: (move: string, reason: string) => void;
}

const usualPartBytes = 100_000;
const usualCardsPerEntry = 300;
const endAgainMs = 500;

/** Brings the moves on that this node has a part in: every leader of an old or new group does its own steps. */
export class RangeMover {
  readonly #options: RangeMoverOptions;
  readonly #askedToEndMs = new Map<string, number>();

  constructor(options: RangeMoverOptions) {
    this.#options = options;
  }

  /** Call every few tens of milliseconds: one step of each move at most. */
  tick(): void {
    const moves = this.#options.configuration()?.moves ?? [];
    if (moves.length === 0) this.#askedToEndMs.clear();
    for (const { prefix, to_group } of moves) {
      const range = this.#options.configuration()?.range(prefix);
      if (range === undefined) continue;
      for (const group of [range.group_id, to_group]) this.#bringOn(group, prefix);
    }
  }

  #bringOn(group: GroupId, prefix: string): void {
    const owner = this.#options.ownerOf(group);
    // By the configuration that the owner decides by: not every one is new enough for its log.
    const configuration = owner?.decidesBy;
    const move = configuration?.moveOf(prefix);
    const range = configuration?.range(prefix);
    if (owner === undefined || configuration === undefined || move === undefined || range === undefined) return;
    const from = this.#options.foldOf(range.group_id);
    // What cannot be read of either is tried again: its own copy's owner is told by its own reading.
    const left = whenReadable(() => from?.ledger.rangeMove(move.move_id));
    const state = owner.reading(() => owner.moveState(move.move_id));
    if (state === undefined) return;
    switch (nextStep(group, range, move, state, left)) {
      case 'out':
        owner.append({
          kind: 'range-out',
          at: this.#options.clock.wallMs(),
          configIndex: configuration.index,
          move: move.move_id,
          to: move.to_group,
          prefix,
          nested: configuration.nestedIn(prefix),
        });
        return;
      case 'leave':
        if (state.row !== undefined && from !== undefined) this.#leave(owner, state.row, from.ranges);
        return;
      case 'rows':
        if (left === undefined || from === undefined) return;
        this.#take(owner, configuration, range.group_id, state.row, left, from.ranges);
        return;
      case 'end':
        this.#end(move.move_id);
        return;
      case 'nothing':
        return;
    }
  }

  #leave(owner: GroupOwner, row: RangeMoveRow, ranges: RangeReader): void {
    const limit = this.#options.cardsPerEntry ?? usualCardsPerEntry;
    const page = owner.reading(() => ranges.cards(row, row.through, limit));
    if (page === undefined) return;
    const { cards, through, isLast } = page;
    const at = this.#options.clock.wallMs();
    owner.append({ kind: 'range-leave', at, move: row.move, cards, through, last: isLast });
  }

  #take(
    owner: GroupOwner,
    configuration: ConfigurationView,
    from: GroupId,
    come: RangeMoveRow | undefined,
    left: RangeMoveRow,
    ranges: RangeReader,
  ): void {
    const { parts, through, cards, hash } = come ?? { parts: 0, through: '', cards: 0, hash: '' };
    const next = whenReadable(() => ranges.part(left, through, this.#options.partBytes ?? usualPartBytes));
    if (next === undefined) return;
    const { move, prefix, endIndex: outIndex } = left;
    const at = this.#options.clock.wallMs();
    const about = { at, configIndex: configuration.index, move, prefix, from, outIndex };
    if (next.rows.length > 0) {
      const { rows, cards: begun } = next;
      owner.append({
        kind: 'range-rows',
        ...about,
        part: parts + 1,
        cards: begun,
        through: next.through,
        rows,
      } satisfies EntryBody);
    } else if (cards === left.cards) {
      owner.append({ kind: 'range-in', ...about, parts, cards, hash } satisfies EntryBody);
    } else {
      this.#options.onFault(move, `${left.cards} cards have left group ${from}, and its copy here has ${cards}`);
    }
  }

  #end(move: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - (this.#askedToEndMs.get(move) ?? Number.NEGATIVE_INFINITY) < endAgainMs) return;
    this.#askedToEndMs.set(move, nowMs);
    this.#options.end(move);
  }
}
