const bucketsOfOctave = 64;
const octaves = 32;

/**
 * Latencies in constant memory: 64 buckets for each power of two of microseconds, so a quantile is at most 1.6 %
 * above the true one and never below it; the maximum is exact.
 */
export class LatencyHistogram {
  readonly #counts = new Float64Array(bucketsOfOctave * octaves);
  #count = 0;
  #maximumMs = 0;

  get count(): number {
    return this.#count;
  }

  get maximumMs(): number {
    return this.#maximumMs;
  }

  record(latencyMs: number): void {
    const bucket = bucketOf(Math.max(0, Math.ceil(latencyMs * 1_000)));
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count += 1;
    if (latencyMs > this.#maximumMs) this.#maximumMs = latencyMs;
  }

  /** Milliseconds that the fraction `quantile` of all recorded values does not exceed; 0 when there is none. */
  quantileMs(quantile: number): number {
    const rank = Math.max(1, Math.ceil(this.#count * quantile));
    let seen = 0;
    for (let bucket = 0; bucket < this.#counts.length && this.#count > 0; bucket++) {
      seen += this.#counts[bucket] ?? 0;
      if (seen >= rank) return Math.min(upperMicroseconds(bucket) / 1_000, this.#maximumMs);
    }
    return 0;
  }

  reset(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#maximumMs = 0;
  }
}

/** Values under 64 have a bucket each; above, the top seven bits choose it. */
function bucketOf(microseconds: number): number {
  if (microseconds < bucketsOfOctave) return microseconds;
  const exponent = Math.floor(Math.log2(microseconds)) - 6;
  const bucket = bucketsOfOctave * exponent + Math.floor(microseconds / 2 ** exponent);
  return Math.min(bucket, bucketsOfOctave * octaves - 1);
}

/** Largest whole number of microseconds that falls into the bucket. */
function upperMicroseconds(bucket: number): number {
  if (bucket < 2 * bucketsOfOctave) return bucket;
  const exponent = Math.floor(bucket / bucketsOfOctave) - 1;
  return (bucket - bucketsOfOctave * exponent + 1) * 2 ** exponent - 1;
}
