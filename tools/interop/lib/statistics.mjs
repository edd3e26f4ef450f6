// Percentiles, and a random sequence that a seed repeats.

/** The smallest value that at least `percent` % of `values` do not exceed (nearest rank). */
export function percentile(values, percent) {
  if (values.length === 0) throw new Error('no percentile of no values');
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)];
}

/** A generator of numbers in [0, 1) from a 32-bit seed: an xorshift, good enough to vary a load. */
export function randomFrom(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}
