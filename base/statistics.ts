/** Infinities, too: an owner that never came back. */
export function ascending(values: readonly number[]): readonly number[] {
  return [...values].sort((one, other) => (one === other ? 0 : one < other ? -1 : 1));
}

/** Of an even number of values the mean of the two in the middle. */
export function medianOf(values: readonly number[]): number {
  const inOrder = ascending(values);
  const upper = inOrder[Math.floor(inOrder.length / 2)] ?? Infinity;
  return inOrder.length % 2 === 1 ? upper : ((inOrder[inOrder.length / 2 - 1] ?? Infinity) + upper) / 2;
}
