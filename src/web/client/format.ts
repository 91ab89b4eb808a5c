/**
 * Numbers for people.
 *
 * @module
 */

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count in at most five characters or so: `12.3K`. */
export function short(count: number): string {
  return count < 10_000 ? plain.format(count) : compact.format(count);
}

/** A whole count: `12,345`. */
export function whole(count: number): string {
  return plain.format(count);
}

/** A number of bytes, in powers of 1024: `8.0 KiB`. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1023.95 && unit < units.length - 1) {
    count /= 1024;
    unit++;
  }
  return `${unit === 0 || count >= 100 ? count.toFixed(0) : count.toFixed(1)} ${units[unit]}`;
}

/** A duration in milliseconds: `12 ms`, `3.4 s`, `2 m 05 s`, `3 h 07 m`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  const seconds = Math.floor(ms / 1000);
  const two = (n: number) => String(n).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor(seconds / 60) % 60)} m`;
}

/** A latency in microseconds: `87 µs`, `1.4 ms`. */
export function latency(us: number): string {
  return us < 1000 ? `${Math.round(us)} µs` : duration(us / 1000);
}

/** A byte in hexadecimal: `0x0f`. */
export function hex(value: number): string {
  return `0x${value.toString(16).padStart(2, "0")}`;
}
