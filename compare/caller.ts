import type { Clock, Timer } from '../base/clock.ts';
import { describeError } from '../base/errors.ts';
import { maskCardData } from '../base/pan.ts';
import { digestBytes, type EncodedKey, type KeyRange } from '../store/canonical.ts';
import {
  areRising,
  parseCompareReply,
  type CompareCall,
  type CompareCallKind,
  type CompareSide,
  type ParsedReply,
} from './protocol.ts';
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

interface BlocksOfReference {
  readonly ends: readonly (EncodedKey | null)[];
  readonly digests: readonly string[];
  readonly rows: number;
  readonly done: boolean;
  readonly leaves?: readonly Buffer[] | undefined;
}

export interface RowOfSide {
  readonly key: EncodedKey;
  readonly digest: string;
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

  /** `withLeaves`: each block's whole SHA-256 besides, of which the digest has to be the beginning. */
  async blocks(table: string, range: KeyRange, size: number, withLeaves = false): Promise<BlocksOfReference> {
    const reply = await this.#call('blocks', { table, ...range, size, ...(withLeaves && { leaves: true as const }) });
    const inner = reply.ends.filter((end) => end !== null);
    const last = reply.ends.at(-1) ?? null;
    const nullEnds = reply.ends.length - inner.length;
    const endsWell = reply.done
      ? JSON.stringify(last) === JSON.stringify(range.through) && nullEnds === (range.through === null ? 1 : 0)
      : nullEnds === 0;
    if (reply.digests.length !== reply.ends.length || !endsWell || !areRising(range.after, inner, range.through)) {
      this.#fail('garbage', 'its blocks do not cover the range');
    }
    const begin = (leaf: Buffer): string => leaf.subarray(0, digestBytes).toString('base64');
    if (withLeaves && JSON.stringify(reply.leaves?.map(begin)) !== JSON.stringify(reply.digests)) {
      this.#fail('garbage', 'its leaves are not those of its blocks');
    }
    return reply;
  }

  async digests(
    table: string,
    after: EncodedKey | null,
    ends: readonly (EncodedKey | null)[],
    size: number,
  ): Promise<readonly string[]> {
    const { digests } = await this.#call('digests', { table, after, ends, size });
    if (digests.length !== ends.length) this.#fail('garbage', `${digests.length} digests for ${ends.length} blocks`);
    return digests;
  }

  async rows(table: string, range: KeyRange): Promise<{ readonly rows: readonly RowOfSide[]; readonly done: boolean }> {
    const { keys, digests, done } = await this.#call('rows', { table, ...range });
    if (
      digests.length !== keys.length ||
      (!done && keys.length === 0) ||
      !areRising(range.after, keys, range.through)
    ) {
      this.#fail('garbage', 'its rows are not in the range and order that were asked for');
    }
    return { rows: keys.map((key, at) => ({ key, digest: digests[at] ?? '' })), done };
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

  async #call<Kind extends CompareCallKind>(
    kind: Kind,
    asked: ContentOf<Kind>,
    timeoutMs = this.#timeoutMs,
  ): Promise<ParsedReply<Kind>> {
    if (this.failure !== undefined) throw new SideFailed(this, this.failure.message);
    if (this.#stop?.aborted === true) return this.#fail('not-covered', describeError(this.#stop.reason));
    let content: unknown;
    try {
      // A generic member of the union, put together again: the compiler cannot follow which one it is.
      const call = { kind, ...asked, ...this.#address } as unknown as CompareCall;
      content = await withTimeout(this.#clock, timeoutMs, this.#side.call(call));
    } catch (error) {
      return this.#fail('unreachable', describeError(error));
    }
    this.replyBytes += sizeOf(content);
    const reply = parseCompareReply(kind, content);
    if (reply.kind === 'failed' && 'table' in asked) this.failedAt = asked.table as string;
    if (reply.kind === 'garbage') return this.#fail('garbage', (reply as { message: string }).message);
    if (reply.kind === 'failed') {
      const { reason, message } = reply as { reason: InconclusiveReason; message: string };
      return this.#fail(reason, describeError(message));
    }
    return reply;
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
