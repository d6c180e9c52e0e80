import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/errors.ts';
import { maskCardData } from '../base/pan.ts';
import { digestBytes, type EncodedKey, type KeyRange } from '../store/canonical.ts';
import {
  areRising,
  digestsOf,
  digestWidth,
  endsOf,
  parseCompareReply,
  type CompareCall,
  type CompareCallKind,
  type CompareSide,
  type ParsedReply,
} from './protocol.ts';
import { unpackMessage } from './packing.ts';
import type { Inconclusive, InconclusiveReason } from './result.ts';

/** A side gave no answer that can be used; from then on it is not asked again. */
export class SideFailed extends Error {
  readonly caller: SideCaller;

  constructor(caller: SideCaller, message: string) {
    super(message);
    this.name = 'SideFailed';
    this.caller = caller;
  }
}

type ContentOf<Kind extends CompareCallKind> = Omit<
  Extract<CompareCall, { kind: Kind }>,
  'kind' | 'compare' | 'group' | 'copy'
>;

/** Blocks of a range: their ends, digests and numbers of rows, in key order. */
export interface BlockDigests {
  readonly ends: readonly (EncodedKey | null)[];
  readonly digests: readonly string[];
  readonly rows: readonly number[];
  /** Each block's whole SHA-256, of which its digest is the beginning; none when nobody asked for them. */
  readonly leaves: readonly Buffer[];
}

interface BlocksOfReference extends BlockDigests {
  readonly done: boolean;
}

/** `brief`: half of each digest. `with-leaves`: the whole SHA-256 besides, for the Merkle root. */
export type DigestWidth = 'whole' | 'brief' | 'with-leaves';

const leafBytes = 32;

function flagOf(width: DigestWidth): { brief?: true; leaves?: true } {
  return width === 'brief' ? { brief: true } : width === 'with-leaves' ? { leaves: true } : {};
}

/** A range whose blocks' ends are known: listed, or every `size` whole numbers between two. */
export type RangeOfBlocks = Extract<CompareCall, { kind: 'digests' }>['ranges'][number];

export interface RowOfSide {
  readonly key: EncodedKey;
  readonly digest: string;
}

export interface RowsOfSide {
  readonly rows: readonly RowOfSide[];
  readonly done: boolean;
}

/**
 * Calls one side and believes nothing: time limit, shape, sizes and order of every answer are checked here, so that
 * what is behind sees well-formed answers only. All failures are one SideFailed, and final.
 */
export class SideCaller {
  readonly node: string;
  readonly holds: CompareSide['holds'];
  failure: Inconclusive | undefined;
  /** The table that was being read then. */
  failedAt: string | undefined;
  replyBytes = 0;
  /** Index after which its log begins: what is before has been trimmed. */
  base = 0;
  readonly #side: CompareSide;
  readonly #address: { readonly compare: string; readonly group: string };
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #stop: AbortSignal | undefined;

  constructor(
    side: CompareSide,
    address: { readonly compare: string; readonly group: string },
    clock: Clock,
    timeoutMs: number,
    stop?: AbortSignal,
  ) {
    this.node = side.node;
    this.holds = side.holds;
    this.#side = side;
    this.#address = address;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#stop = stop;
  }

  async open(index: number, format: string, timeoutMs: number): Promise<void> {
    const reply = await this.#call('open', { index }, timeoutMs);
    if (reply.format !== format) this.#fail('format-differs', `it compares by format ${reply.format}, we by ${format}`);
    if (reply.index !== index) this.#fail('garbage', `it opened index ${reply.index} for ${index}`);
    if (reply.base > index) this.#fail('garbage', `its log begins after ${reply.base}, its fold is at ${index}`);
    this.base = reply.base;
  }

  /** Keys, rising, that cut the range into parts with about as many rows. */
  async split(table: string, range: KeyRange, parts: number): Promise<readonly EncodedKey[]> {
    const { keys } = await this.#call('split', { table, ...range, parts });
    if (keys.length >= parts || !areRising(range.after, keys, range.through)) {
      this.#fail('garbage', 'its parts are not in the range');
    }
    return keys;
  }

  /** The first blocks of each range, all of them where `done`. */
  async blocks(
    table: string,
    ranges: readonly KeyRange[],
    size: number,
    width: DigestWidth = 'whole',
  ): Promise<BlocksOfReference[]> {
    const reply = await this.#call('blocks', { table, ranges: [...ranges], size, ...flagOf(width) });
    if (reply.ranges.length !== ranges.length) this.#fail('garbage', 'it does not answer for the ranges asked');
    return reply.ranges.map(({ ends, digests, leaves, rows, done }, at) => {
      const range = ranges[at] ?? { after: null, through: null };
      const inner = ends.filter((end) => end !== null);
      const nullEnds = ends.length - inner.length;
      const endsWell = done
        ? JSON.stringify(ends.at(-1) ?? null) === JSON.stringify(range.through) &&
          nullEnds === (range.through === null ? 1 : 0)
        : nullEnds === 0;
      if (!endsWell || rows.length !== ends.length || !areRising(range.after, inner, range.through)) {
        this.#fail('garbage', 'its blocks do not cover the range');
      }
      return { ends, ...this.#digestsAndLeaves(digests, leaves, width, ends.length), rows, done };
    });
  }

  async digests(
    table: string,
    ranges: readonly RangeOfBlocks[],
    size: number,
    width: DigestWidth = 'whole',
  ): Promise<readonly BlockDigests[]> {
    const reply = await this.#call('digests', { table, ranges: [...ranges], size, ...flagOf(width) });
    if (reply.ranges.length !== ranges.length) this.#fail('garbage', 'it does not answer for the ranges asked');
    return ranges.map((range, at) => {
      const ends = endsOf(range, size);
      const { digests, leaves, rows } = reply.ranges[at] ?? { digests: '', leaves: undefined, rows: [] };
      if (rows.length !== ends.length) this.#fail('garbage', `${rows.length} answers for ${ends.length} blocks`);
      return { ends, ...this.#digestsAndLeaves(digests, leaves, width, ends.length), rows };
    });
  }

  async rows(table: string, ranges: readonly KeyRange[]): Promise<readonly RowsOfSide[]> {
    const reply = await this.#call('rows', { table, ranges: [...ranges] });
    if (reply.ranges.length !== ranges.length) this.#fail('garbage', 'it does not answer for the ranges asked');
    return ranges.map((range, at) => {
      const { keys, digests, done } = reply.ranges[at] ?? { keys: [], digests: '', done: false };
      if ((!done && keys.length === 0) || !areRising(range.after, keys, range.through)) {
        this.#fail('garbage', 'its rows are not in the range and order that were asked for');
      }
      const taken = this.#digests(digests, false, keys.length);
      return { rows: keys.map((key, index) => ({ key, digest: taken[index] ?? '' })), done };
    });
  }

  async columns(table: string, keys: readonly EncodedKey[]): Promise<ParsedReply<'columns'>['rows']> {
    const { rows } = await this.#call('columns', { table, keys });
    if (rows.length === 0 || rows.length > keys.length)
      this.#fail('garbage', `${rows.length} rows for ${keys.length} keys`);
    return rows;
  }

  async position(index: number): Promise<string | undefined> {
    return (await this.#call('position', { index })).hash ?? undefined;
  }

  /** Of entries up to `through`, or to the end. */
  async chain(after: number, through: number | undefined): Promise<ParsedReply<'chain'>> {
    const reply = await this.#call('chain', { after, through });
    if (reply.next !== null && reply.next <= after) this.#fail('garbage', 'its check of the chain does not get on');
    return reply;
  }

  async derived(table: string, after: EncodedKey | null): Promise<ParsedReply<'derived'>> {
    const reply = await this.#call('derived', { table, after });
    const keys = reply.rows.map(({ key }) => key);
    if ((!reply.done && keys.length === 0) || !areRising(after, keys, null)) {
      this.#fail('garbage', 'its rows are not in the order that was asked for');
    }
    return reply;
  }

  /** What is wrong in the file's pages; undefined as long as it is being looked at. */
  async integrity(): Promise<readonly string[] | undefined> {
    return (await this.#call('integrity', {})).faults ?? undefined;
  }

  /** Goes on with making the fold anew. */
  async recompute(): Promise<ParsedReply<'recompute'>> {
    return this.#call('recompute', {});
  }

  /** The fold that `recompute` has made, as a side of its own. */
  recomputed(): SideCaller {
    const { node, holds } = this.#side;
    const side: CompareSide = {
      node: `${node} recomputed`,
      holds,
      call: (call) => this.#side.call({ ...call, copy: 'recomputed' }),
    };
    return new SideCaller(side, this.#address, this.#clock, this.#timeoutMs, this.#stop);
  }

  /** Also after a failure: the snapshot may be open. Nothing depends on the answer; a snapshot has a time limit too. */
  async close(): Promise<void> {
    if (this.failure?.reason === 'unreachable') return;
    const answered = this.#side.call({ kind: 'close', ...this.#address });
    await withTimeout(this.#clock, this.#timeoutMs, answered).catch(() => undefined);
  }

  #digestsAndLeaves(
    packed: string,
    packedLeaves: string | undefined,
    width: DigestWidth,
    expected: number,
  ): Pick<BlockDigests, 'digests' | 'leaves'> {
    const digests = this.#digests(packed, width === 'brief', expected);
    if (width !== 'with-leaves') return { digests, leaves: [] };
    const leaves = (digestsOf(packedLeaves ?? '', leafBytes, expected) ?? []).map((leaf) =>
      Buffer.from(leaf, 'base64'),
    );
    const begin = (leaf: Buffer): string => leaf.subarray(0, digestBytes).toString('base64');
    if (JSON.stringify(leaves.map(begin)) !== JSON.stringify(digests)) {
      this.#fail('garbage', 'its leaves are not those of its blocks');
    }
    return { digests, leaves };
  }

  #digests(packed: string, brief: boolean, expected: number): string[] {
    return (
      digestsOf(packed, digestWidth(brief), expected) ??
      this.#fail('garbage', `not ${expected} digests where they ought to be`)
    );
  }

  async #call<Kind extends CompareCallKind>(
    kind: Kind,
    asked: ContentOf<Kind>,
    timeoutMs = this.#timeoutMs,
  ): Promise<ParsedReply<Kind>> {
    if (this.failure !== undefined) throw new SideFailed(this, this.failure.message);
    this.#heedStop();
    let content: unknown;
    try {
      // A generic member of the union, put together again: the compiler cannot follow which one it is.
      const call = { kind, ...asked, ...this.#address } as unknown as CompareCall;
      content = await unlessStopped(this.#stop, withTimeout(this.#clock, timeoutMs, this.#side.call(call)));
    } catch (error) {
      this.#heedStop();
      return this.#fail('unreachable', describeError(error));
    }
    this.replyBytes += sizeOf(content);
    const reply = parseCompareReply(kind, unpackMessage(content));
    if (reply.kind === 'failed' && 'table' in asked) this.failedAt = asked.table as string;
    if (reply.kind === 'garbage') return this.#fail('garbage', (reply as { message: string }).message);
    if (reply.kind === 'failed') {
      const { reason, message } = reply as { reason: InconclusiveReason; message: string };
      return this.#fail(reason, describeError(message));
    }
    return reply;
  }

  #heedStop(): void {
    if (this.#stop?.aborted === true) this.#fail('not-covered', describeError(this.#stop.reason));
  }

  #fail(reason: InconclusiveReason, message: string): never {
    // It may repeat what the peer said.
    this.failure ??= { reason, message: maskCardData(message) };
    throw new SideFailed(this, `${this.node}: ${message}`);
  }
}

function sizeOf(content: unknown): number {
  try {
    return Buffer.byteLength(JSON.stringify(content));
  } catch {
    return 0;
  }
}

/** Rejects at once when the compare is ended: nobody waits for an answer that is not needed. */
async function unlessStopped<Result>(stop: AbortSignal | undefined, promise: Promise<Result>): Promise<Result> {
  if (stop === undefined) return promise;
  let onAbort: (() => void) | undefined;
  const stopped = new Promise<never>((_, reject) => {
    onAbort = (): void => {
      reject(new Error('stopped'));
    };
    stop.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([promise, stopped]);
  } finally {
    if (onAbort !== undefined) stop.removeEventListener('abort', onAbort);
  }
}

async function withTimeout<Result>(clock: Clock, timeoutMs: number, promise: Promise<Result>): Promise<Result> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = clock.after(timeoutMs, () => {
      reject(new Error(`no answer within ${timeoutMs} ms`));
    });
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer?.cancel();
  }
}

/** Results in the order of the items; at most so many at a time. */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const at = next++;
      results[at] = await work(items[at] as Item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}

/** Asks all at once; those that fail are left out, and have noted why. Any other error is ours. */
export async function ofEach<Side, Answer>(
  sides: readonly Side[],
  ask: (side: Side) => Promise<Answer>,
): Promise<{ readonly side: Side; readonly answer: Answer }[]> {
  const answers = await Promise.all(
    sides.map(async (side) => {
      try {
        return [{ side, answer: await ask(side) }];
      } catch (error) {
        if (error instanceof SideFailed) return [];
        throw error;
      }
    }),
  );
  return answers.flat();
}

/** What this side answered among all. Throws when it did not: what the others said is then held against nothing. */
export function answerOf<Answer>(
  wanted: SideCaller,
  answers: readonly { readonly side: SideCaller; readonly answer: Answer }[],
): Answer {
  const own = answers.find(({ side }) => side === wanted);
  if (own === undefined) throw new SideFailed(wanted, wanted.failure?.message ?? 'no answer');
  return own.answer;
}
