/**
 * A stand-in for the part of `@std/bytes` that vhostd uses, where JSR cannot be reached. Remove
 * `compat/std` to use the package.
 *
 * @module
 */

/** Joins byte arrays into a new one. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((bytes, part) => bytes + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** Whether two byte arrays hold the same bytes. */
export function equals(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && startsWith(a, b);
}

/** Whether `source` begins with the bytes of `prefix`. */
export function startsWith(source: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.length <= source.length && prefix.every((byte, i) => byte === source[i]);
}

/** The first index, from `start` on, at which `source` holds the bytes of `needle`; else -1. */
export function indexOfNeedle(source: Uint8Array, needle: Uint8Array, start = 0): number {
  for (let at = start; at <= source.length - needle.length; at++) {
    if (startsWith(source.subarray(at), needle)) return at;
  }
  return -1;
}
