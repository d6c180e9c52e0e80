import { assert } from '../../base/errors.ts';

/**
 * How messages are told apart in a byte stream. `length2`: a two-byte big-endian length before each message, which
 * may count itself. Other framings are further members of this union.
 */
export interface FrameFormat {
  readonly kind: 'length2';
  readonly includesItself: boolean;
}

/** Two-byte length that does not count itself: the default of a link. */
export const length2: FrameFormat = { kind: 'length2', includesItself: false };

export type DeframerEvent =
  /** A whole message without its header, in memory of its own. */
  | { readonly kind: 'frame'; readonly bytes: Buffer }
  /** A frame with nothing in it: the peer asks whether the line lives. */
  | { readonly kind: 'poll' }
  /** The stream cannot be followed any more; the connection is to be closed. */
  | { readonly kind: 'broken'; readonly reason: BrokenReason };

/** `too-long`: more than the limit is announced. `impossible-length`: less than the header itself. */
export type BrokenReason = 'too-long' | 'impossible-length';

const headerBytes = 2;
const largestLength = 0xffff;
const empty = Buffer.alloc(0);

/**
 * Cuts a stream into frames, however the network has cut it: pure, no socket and no timer. Work is linear in the
 * bytes pushed, and no more than `maximumBytes` of an unfinished frame are held. It never keeps or returns a view of
 * a chunk, so the caller may reuse the chunk's memory. After `broken` it ignores everything.
 */
export class Deframer {
  readonly #format: FrameFormat;
  readonly #maximumBytes: number;
  /** Bytes of the present header that have been read, and their value so far. */
  #headerRead = 0;
  #announced = 0;
  /** The present frame, allocated when its header is complete, and how much of it has been filled. */
  #body = empty;
  #bodyRead = 0;
  #broken = false;

  /** `maximumBytes`: the largest message, its header not counted. */
  constructor(format: FrameFormat, maximumBytes: number) {
    assert(Number.isInteger(maximumBytes) && maximumBytes > 0, 'a frame limit is a positive number of bytes');
    this.#format = format;
    this.#maximumBytes = maximumBytes;
  }

  /** Bytes of a frame that has begun and is not complete, header included: 0 between frames. */
  get pendingBytes(): number {
    return this.#headerRead + this.#bodyRead;
  }

  /** Everything that `chunk` completes, in order. */
  push(chunk: Buffer): readonly DeframerEvent[] {
    const events: DeframerEvent[] = [];
    let at = 0;
    while (at < chunk.length && !this.#broken) {
      if (this.#headerRead < headerBytes) {
        this.#announced = this.#announced * 0x100 + (chunk[at] ?? 0);
        this.#headerRead += 1;
        at += 1;
        if (this.#headerRead === headerBytes) this.#beginBody(events);
      } else {
        const copied = chunk.copy(this.#body, this.#bodyRead, at);
        at += copied;
        this.#bodyRead += copied;
        if (this.#bodyRead === this.#body.length) {
          events.push({ kind: 'frame', bytes: this.#body });
          this.#reset();
        }
      }
    }
    return events;
  }

  #beginBody(events: DeframerEvent[]): void {
    const length = this.#format.includesItself ? this.#announced - headerBytes : this.#announced;
    if (length < 0 || length > this.#maximumBytes) {
      events.push({ kind: 'broken', reason: length < 0 ? 'impossible-length' : 'too-long' });
      this.#reset();
      this.#broken = true;
    } else if (length === 0) {
      events.push({ kind: 'poll' });
      this.#reset();
    } else {
      this.#body = Buffer.allocUnsafe(length);
    }
  }

  #reset(): void {
    this.#headerRead = 0;
    this.#announced = 0;
    this.#body = empty;
    this.#bodyRead = 0;
  }
}

/** `bytes` with its header, in memory of its own. No bytes give a poll. */
export function frame(bytes: Buffer, format: FrameFormat): Buffer {
  const length = bytes.length + (format.includesItself ? headerBytes : 0);
  assert(length <= largestLength, 'a message fits the two-byte length of its frame');
  const framed = Buffer.allocUnsafe(headerBytes + bytes.length);
  framed.writeUInt16BE(length, 0);
  bytes.copy(framed, headerBytes);
  return framed;
}
