/**
 * A store in memory: a memory file, which all queue threads use as the file
 * that it is.
 *
 * It is not mapped on purpose. Reading an empty page of a mapping allocates it,
 * so a guest that reads an empty disk once would cost the host all of it; and
 * a page that cannot be had, or that a shrinking file has lost, is a SIGBUS to
 * a mapping, which ends the process, but an errno to a system call.
 *
 * @module
 */

import { createMemfd, resizeFile } from "../../src/linux/mod.ts";
import { allocatedBytes } from "./file_store.ts";
import type { OpenStore } from "./store.ts";

/**
 * Opens an empty store of `bytes` bytes. It takes memory as it is written.
 *
 * @throws {LinuxError} When there cannot be so large a memory file.
 */
export function openMemoryStore(bytes: number, { readOnly }: { readOnly: boolean }): OpenStore {
  const fd = createMemfd("vhostd-blk", bytes);
  return {
    kind: "memory",
    abilities: {
      readOnly,
      durable: false,
      discard: !readOnly,
      unmap: !readOnly,
      logicalBlockBytes: 512,
      physicalBlockBytes: 4096,
      minIoBytes: 4096,
      optimalIoBytes: 0,
    },
    // Memory answers at once: nothing is won by asking for it and waiting.
    handle: {
      kind: "file",
      fd: fd.number,
      isBlockDevice: false,
      io: "sync",
      directFd: -1,
      directOffsetAlign: 1,
      directMemoryAlign: 1,
    },
    bytes: () => bytes,
    resize(wanted) {
      resizeFile(fd.number, wanted);
      bytes = wanted;
    },
    describe: () => ({ allocatedBytes: allocatedBytes(fd.number) }),
    [Symbol.dispose]: () => fd.close(),
  };
}
