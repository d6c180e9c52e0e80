/** The only source of chance in the project. Real randomness is `base/real.ts`; tests inject `seededRandom`. */
export interface Random {
  bytes(length: number): Buffer;
  /** A uniform integer in 0 .. limit-1; `limit` is at most 2^32. */
  below(limit: number): number;
}

/** A repeatable source (SplitMix32 steps): one seed, one sequence. Not for keys or nonces of real data. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
  return {
    bytes: (length) => Buffer.from(Array.from({ length }, () => next() & 0xff)),
    below: (limit) => Math.floor((next() / 0x1_0000_0000) * limit),
  };
}
