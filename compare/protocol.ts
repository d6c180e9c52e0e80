import { z } from 'zod';

import { describeError } from '../base/errors.ts';
import { compareKeys, digestBytes, isEncodedValue, type EncodedKey } from '../store/canonical.ts';
import { isDamage, type SnapshotReader, type TableSpecification } from '../store/snapshot-reader.ts';
import { formatOf, isConfigurationTable } from './tables.ts';

const value = z.string().refine(isEncodedValue, 'not an encoded value');
const key = z.array(value).min(1).max(8).readonly();
const count = z.int().min(0);
const name = z.string().min(1).max(64);

/** Digests one after the other, in base64: a list of short texts would be a third longer. */
const digests = z
  .base64()
  .transform((text, context) =>
    partsOf(Buffer.from(text, 'base64'), digestBytes, context).map((digest) => digest.toString('base64')),
  );

/** SHA-256 of blocks, whole, one after the other. */
const leaves = z.base64().transform((text, context) => partsOf(Buffer.from(text, 'base64'), 32, context));

function partsOf(bytes: Buffer, length: number, context: { addIssue(message: string): void }): Buffer[] {
  if (bytes.length % length !== 0) context.addIssue('not a whole number of digests');
  return Array.from({ length: Math.floor(bytes.length / length) }, (_, at) =>
    bytes.subarray(at * length, (at + 1) * length),
  );
}

/** Most blocks, rows and keys that one call asks for: keeps a call below some 50 ms and a reply below 256 kB or so. */
export const limits = {
  blocks: 32,
  blockRows: 4_096,
  /** Of all blocks of one answer. */
  digestedRows: 32_768,
  rows: 1_024,
  keys: 16,
  chainEntries: 8_192,
  recomputedEntries: 1_000,
} as const;

/** `copy`: of the fold as it was recomputed from the log, instead of the one in the file. */
const compared = { compare: name, group: name, copy: z.literal('recomputed').optional() };
const ofTable = { ...compared, table: name, after: key.nullable() };

const requestSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('open'), ...compared, index: count }),
  z.strictObject({
    kind: z.literal('blocks'),
    ...ofTable,
    through: key.nullable(),
    size: count.min(1).max(limits.blockRows),
    leaves: z.literal(true).optional(),
  }),
  z.strictObject({
    kind: z.literal('digests'),
    ...ofTable,
    ends: z.array(key.nullable()).min(1).max(limits.blocks).readonly(),
    size: count.min(1).max(limits.blockRows),
  }),
  z.strictObject({ kind: z.literal('rows'), ...ofTable, through: key.nullable() }),
  z.strictObject({
    kind: z.literal('columns'),
    ...compared,
    table: name,
    keys: z.array(key).min(1).max(limits.keys).readonly(),
  }),
  z.strictObject({ kind: z.literal('chain'), ...compared, after: count, through: count.optional() }),
  z.strictObject({ kind: z.literal('position'), ...compared, index: count }),
  z.strictObject({ kind: z.literal('derived'), ...ofTable }),
  z.strictObject({ kind: z.literal('integrity'), ...compared }),
  z.strictObject({ kind: z.literal('recompute'), ...compared, from: name.optional() }),
  z.strictObject({ kind: z.literal('close'), ...compared }),
]);

/** A call of the coordinator to one side; see `answerCompareCall`. */
export type CompareCall = z.infer<typeof requestSchema>;
export type CompareCallKind = CompareCall['kind'];

/** Reads a call that came over the wire; undefined when it is none. */
export function parseCompareCall(content: unknown): CompareCall | undefined {
  return requestSchema.safeParse(content).data;
}

/**
 * unreachable: no answer in time. mark-not-reached, snapshot-not-opened: the node applied the mark too late, or went on
 * before its snapshot was open. snapshot-closed: it was cut off (the write-ahead log grew too long, the node restarted).
 * damaged: SQLite cannot make sense of the file. not-recomputed: the log does not say how the fold came about.
 */
const failureReasons = [
  'mark-not-reached',
  'snapshot-not-opened',
  'snapshot-closed',
  'damaged',
  'not-recomputed',
  'error',
] as const;
export type FailureReason = (typeof failureReasons)[number];

const replySchemas = {
  open: z.strictObject({
    kind: z.literal('opened'),
    index: count,
    base: count.default(0),
    lastLogIndex: count,
    format: z.string().max(64),
  }),
  blocks: z.strictObject({
    kind: z.literal('blocks'),
    ends: z.array(key.nullable()).min(1).max(limits.blocks).readonly(),
    digests,
    rows: count,
    done: z.boolean(),
    leaves: leaves.optional(),
  }),
  digests: z.strictObject({ kind: z.literal('digests'), digests }),
  rows: z.strictObject({
    kind: z.literal('rows'),
    keys: z.array(key).max(limits.rows).readonly(),
    digests,
    done: z.boolean(),
  }),
  columns: z.strictObject({
    kind: z.literal('columns'),
    rows: z
      .array(
        z
          .array(
            z.strictObject({ column: z.string().max(1_000), digest: z.string().max(32), shown: z.string().max(2_000) }),
          )
          .max(2_000)
          .nullable(),
      )
      .max(limits.keys),
  }),
  chain: z.strictObject({
    kind: z.literal('chain'),
    faults: z
      .array(z.strictObject({ index: z.int(), fault: z.enum(['missing', 'hash']) }))
      .max(limits.chainEntries + 1),
    next: count.nullable(),
  }),
  position: z.strictObject({ kind: z.literal('position'), hash: z.string().max(64).nullable() }),
  derived: z.strictObject({
    kind: z.literal('derived'),
    rows: z.array(z.strictObject({ key, values: z.array(value).max(64) })).max(limits.rows),
    done: z.boolean(),
  }),
  integrity: z.strictObject({
    kind: z.literal('integrity'),
    /** null: it is still being looked at. */
    faults: z.array(z.string().max(500)).max(100).nullable(),
  }),
  recompute: z.strictObject({ kind: z.literal('recomputed'), through: count, done: z.boolean() }),
  close: z.strictObject({ kind: z.literal('closed') }),
} as const satisfies Record<CompareCallKind, z.ZodType>;

const failedSchema = z.strictObject({
  kind: z.literal('failed'),
  reason: z.enum(failureReasons),
  message: z.string().max(2_000),
});

export type CompareFailed = z.infer<typeof failedSchema>;

/** What a call of the kind is answered with, as it travels: JSON. */
export type CompareReply =
  { [Kind in CompareCallKind]: z.input<(typeof replySchemas)[Kind]> }[CompareCallKind] | CompareFailed;

/** The same as the coordinator reads it: digests taken apart. */
export type ParsedReply<Kind extends CompareCallKind> = z.output<(typeof replySchemas)[Kind]>;

/**
 * Reads an answer to a call of this kind. A peer is not trusted to be right, nor to be of our version: what has not the
 * agreed shape is `garbage`, with what is wrong, and nothing of what was in it.
 */
export function parseCompareReply<Kind extends CompareCallKind>(
  kind: Kind,
  content: unknown,
): ParsedReply<Kind> | CompareFailed | { readonly kind: 'garbage'; readonly message: string } {
  const failed = failedSchema.safeParse(content);
  if (failed.success) return failed.data;
  const parsed = replySchemas[kind].safeParse(content);
  if (parsed.success) return parsed.data as ParsedReply<Kind>;
  const issue = parsed.error.issues[0];
  return {
    kind: 'garbage',
    message: `answer to ${kind}, ${issue?.path.join('.') ?? ''}: ${issue?.code ?? 'unreadable'}`,
  };
}

/** Whether keys rise strictly, above `after` and up to `through`: what every honest answer's keys do. */
export function areRising(after: EncodedKey | null, keys: readonly EncodedKey[], through: EncodedKey | null): boolean {
  let previous = after;
  for (const each of keys) {
    if (previous !== null && compareKeys(previous, each) >= 0) return false;
    if (through !== null && compareKeys(each, through) > 0) return false;
    previous = each;
  }
  return true;
}

/** A copy of a group: a node's, or the witness's, which has the log only. */
export interface CompareSide {
  readonly node: string;
  readonly holds: 'log' | 'log-and-fold';
  /** Delivers the call and gives what came back, whatever it is. Rejects when the side cannot be reached. */
  call(call: CompareCall): Promise<unknown>;
}

/** Bytes of values after which an answer is cut, to be continued by the next call. */
const maximumReplyBytes = 200_000;

/**
 * One side's part of a compare. The coordinator asks, a side answers from its snapshot of one group's file, and rows
 * never travel as long as they are equal: digests of them do.
 *
 *   coordinator                                          side
 *   has the group's leader append a mark entry      →    applies exactly up to the mark, pins its snapshot, goes on
 *   open     compare, group, index of the mark      →    opened: the snapshot's index, the log's base and end, table
 *                                                        format
 *   blocks   table, range, size                     →    of the reference: ends of blocks of `size` rows, their
 *                                                        digests, how many rows; done, or go on after the last end.
 *                                                        `leaves`: with the whole SHA-256 of each block, for the root
 *   digests  table, after, these ends, size         →    of every other side: digests of its rows between these ends
 *            the first range has no lower bound and the last no upper one: rows before the first and after the last
 *            key of the reference are found. Blocks that differ are set aside until the table has been passed.
 *   blocks, digests within each of those, with a smaller size
 *   rows     table, range                           →    keys and digests of rows; done, or go on after the last key
 *   columns  table, keys                            →    for each row its columns: digest, and what may be shown of
 *                                                        it (card data masked); null for a row that is not there
 *   chain    after an index, through another        →    entries whose hash does not follow from what is before
 *   position an index                               →    the hash of the entry there, or of a trimmed log's base;
 *                                                        null when there is none
 *   derived  table of config, after a key           →    rows in clear with their derived columns: no card data there
 *   integrity                                       →    what SQLite finds wrong in the file's pages and indexes, or
 *                                                        null as long as it looks: asked again until then
 *   recompute                                       →    how far a fold of its own has been made from the log's entries;
 *                                                        asked again until done: then `copy` in the calls above asks
 *                                                        for that fold's rows, as of another side. `from` names an
 *                                                        earlier compare here whose fold is gone on with
 *   close                                           →    closed; the snapshot is given up
 *
 * `integrity`, `recompute` and `close` are answered by who keeps the snapshot (`CompareDesk`), all others from it.
 * Any call may be answered `failed` with a reason. Calls of one compare and group come one at a time per side, each is
 * bounded (`limits`) and none changes anything, so that a lost one may be sent again. `columns` may answer fewer rows
 * than keys were asked for, but one at least: the coordinator asks again for the rest.
 *
 * Keys travel as they are. Keys of our tables are surrogates, indexes and prefixes; but a row that somebody entered by
 * hand may have anything for a key, so calls and replies must travel sealed. Reports mask keys too.
 */
export function answerCompareCall(
  snapshot: SnapshotReader,
  tables: readonly TableSpecification[],
  call: Exclude<CompareCall, { kind: 'integrity' | 'recompute' | 'close' }>,
): CompareReply {
  try {
    switch (call.kind) {
      case 'open':
        if (snapshot.appliedIndex !== call.index) {
          return failed(
            'snapshot-not-opened',
            `the snapshot is at index ${snapshot.appliedIndex}, the mark at ${call.index}`,
          );
        }
        return {
          kind: 'opened',
          index: snapshot.appliedIndex,
          base: snapshot.base.index,
          lastLogIndex: snapshot.lastLogIndex,
          format: formatOf(tables),
        };
      case 'blocks': {
        const most = Math.min(limits.blocks, Math.max(1, Math.floor(limits.digestedRows / call.size)));
        const { blocks, done } = snapshot.blocks(tableOf(tables, call.table), call, call.size, most);
        return {
          kind: 'blocks',
          ends: blocks.map(({ end }) => end),
          digests: packed(blocks.map(({ digest }) => digest)),
          rows: blocks.reduce((sum, { rows }) => sum + rows, 0),
          done,
          ...(call.leaves && { leaves: packed(blocks.map(({ leaf }) => leaf)) }),
        };
      }
      case 'digests': {
        const found = snapshot.digests(tableOf(tables, call.table), call.after, call.ends, call.size);
        return { kind: 'digests', digests: packed(found) };
      }
      case 'rows': {
        const { rows, done } = snapshot.rows(tableOf(tables, call.table), call, limits.rows);
        return { kind: 'rows', keys: rows.map((row) => row.key), digests: packed(rows.map((row) => row.digest)), done };
      }
      case 'columns': {
        const table = tableOf(tables, call.table);
        const budget = new ReplyBudget();
        const rows = budget.take(call.keys, (each) => {
          const columns = snapshot.columns(table, each);
          return columns?.map((column) => ({ ...column, digest: column.digest.toString('base64') })) ?? null;
        });
        return { kind: 'columns', rows };
      }
      case 'chain': {
        const { faults, next } = snapshot.verifyChain(call.after, limits.chainEntries, call.through);
        return { kind: 'chain', faults: [...faults], next };
      }
      case 'position': {
        const found = snapshot.position(call.index);
        return { kind: 'position', hash: found?.index === call.index ? found.hash : null };
      }
      case 'derived': {
        const table = tableOf(tables, call.table);
        if (!isConfigurationTable(table.name)) throw new Error('rows of this table do not travel');
        const found = snapshot.values(table, { after: call.after, through: null }, limits.rows);
        const rows = new ReplyBudget().take(found.rows, (row) => ({ key: row.key, values: [...row.values] }));
        return { kind: 'derived', rows, done: found.done && rows.length === found.rows.length };
      }
    }
  } catch (error) {
    return failed(isDamage(error) ? 'damaged' : 'error', describeError(error));
  }
}

/** An answer that tells why there is none. */
export function failed(reason: FailureReason, message: string): CompareFailed {
  return { kind: 'failed', reason, message: message.slice(0, 2_000) };
}

function tableOf(tables: readonly TableSpecification[], wanted: string): TableSpecification {
  const table = tables.find((each) => each.name === wanted);
  if (table === undefined) throw new Error(`this side does not compare a table of the asked name`);
  return table;
}

function packed(list: readonly Buffer[]): string {
  return Buffer.concat(list).toString('base64');
}

/** Takes items into a reply until it is long enough; always the first one. */
class ReplyBudget {
  #left = maximumReplyBytes;

  take<Item, Result>(items: readonly Item[], make: (item: Item) => Result): Result[] {
    const results: Result[] = [];
    for (const item of items) {
      if (this.#left <= 0) break;
      const result = make(item);
      this.#left -= JSON.stringify(result).length;
      results.push(result);
    }
    return results;
  }
}
