/** Medians and their spread. */

export interface Summary {
  /** The one in the middle, or between the two there. */
  median: number;
  least: number;
  most: number;
}

/**
 * Sums up measurements; what is no number was not measured and does not count; returns `undefined`
 * where nothing was measured.
 */
export function summary(values: readonly number[]): Summary | undefined {
  const sorted = values.filter(Number.isFinite).toSorted((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1
    ? sorted[middle]
    : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, least: sorted[0], most: sorted[sorted.length - 1] };
}

/**
 * Sums up the ratios of measurements that were made in pairs. The machine is not equally fast all
 * the time, so only what was measured one after the other is compared.
 */
export function ratioSummary(
  subject: readonly number[],
  reference: readonly number[],
): Summary | undefined {
  if (subject.length !== reference.length) {
    throw new RangeError(
      `Expected pairs, got ${subject.length} and ${reference.length} measurements`,
    );
  }
  return summary(subject.map((value, i) => value / reference[i]));
}
