/**
 * Which requests may go past the page cache (O_DIRECT).
 *
 * @module
 */

import type { FileHandle, StoreRequest } from "./store.ts";

/**
 * The descriptor for what is left of a request after `done` bytes: past the page cache where there
 * is such a one and the rest is aligned as it asks for, else through it. The kernel keeps the two
 * coherent.
 */
export function descriptorFor(handle: FileHandle, request: StoreRequest, done: number): number {
  const { fd, directFd, directOffsetAlign, directMemoryAlign } = handle;
  if (directFd < 0) return fd;
  const bytes = request.bytes - done;
  return (request.offset + done) % directOffsetAlign === 0 && bytes % directOffsetAlign === 0 &&
      request.data.isAligned(directMemoryAlign, request.dataOffset + done, bytes)
    ? directFd
    : fd;
}
