/**
 * Formats numbers for people.
 *
 * @module
 */

/** A count with groups of three digits: `1 234 567`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, " ");
}

/** A duration: `0.250s`, `1m58s`, `2h03m`, `3d04h`. */
export function formatDuration(ms: number): string {
  if (ms < 60_000) return `${(Math.max(ms, 0) / 1000).toFixed(3)}s`;
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const two = (n: number) => String(n).padStart(2, "0");
  if (hours === 0) return `${minutes}m${two(seconds % 60)}s`;
  if (hours < 24) return `${hours}h${two(minutes % 60)}m`;
  return `${Math.floor(hours / 24)}d${two(hours % 24)}h`;
}

/** A ratio: `0.50`, or `–` for a division by 0. */
export function formatRatio(count: number, per: number): string {
  if (per === 0) return "–";
  const ratio = count / per;
  return ratio >= 100 ? ratio.toFixed(0) : ratio >= 10 ? ratio.toFixed(1) : ratio.toFixed(2);
}

/** A duration of microseconds: `0.85 µs`, `12.3 µs`, `1.20 ms`, `3.40 s`. */
export function formatMicroseconds(us: number): string {
  const [value, unit] = us < 999.5 ? [us, "µs"] : us < 999_500 ? [us / 1e3, "ms"] : [us / 1e6, "s"];
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit}`;
}
