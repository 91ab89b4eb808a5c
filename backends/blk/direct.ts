/**
 * Which requests may go past the page cache (O_DIRECT).
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import type { FileHandle } from "./store.ts";

/**
 * The descriptor for `bytes` bytes at `offset`: past the page cache where there
 * is such a one and the request is aligned as it asks for, else through it.
 * (The kernel keeps the two coherent.)
 */
export function descriptorFor(
  handle: FileHandle,
  data: Parts,
  offset: number,
  bytes: number,
): number {
  const { fd, directFd, directOffsetAlign, directMemoryAlign } = handle;
  if (directFd < 0 || offset % directOffsetAlign !== 0 || bytes % directOffsetAlign !== 0) {
    return fd;
  }
  for (let i = 0; i < data.count; i++) {
    if (data.index(i) % directMemoryAlign !== 0 || data.length(i) % directMemoryAlign !== 0) {
      return fd;
    }
  }
  return directFd;
}
