/**
 * A stand-in for the part of `@std/bytes` that vhostd uses, for machines that
 * cannot reach JSR. Where the package can be had, remove `compat/std`.
 *
 * @module
 */

import { Buffer } from "node:buffer";

/** Joins byte arrays into one new array. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

/** Tells whether two byte arrays hold the same bytes. */
export function equals(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
