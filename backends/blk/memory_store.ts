/**
 * A store in memory: a memory file. A guest that reads an empty disk takes no memory for it: see
 * `mapped_store.ts`.
 *
 * @module
 */

import { createMemfd, resizeFile } from "../../src/linux/mod.ts";
import { allocatedBytes } from "./file_store.ts";
import { MappedFile } from "./mapped_store.ts";
import { type FileHandle, type OpenStore, volatileAbilities } from "./store.ts";

/**
 * Opens an empty store of `bytes` bytes. It takes memory as it is written.
 *
 * @throws {LinuxError} When there cannot be so large a memory file.
 */
export function openMemoryStore(
  bytes: number,
  { readOnly }: { readOnly: boolean },
): OpenStore<FileHandle> {
  const fd = createMemfd("vhostd-blk", bytes);
  const mapped = MappedFile.open(fd.number, bytes, false);
  return {
    kind: "memory",
    abilities: volatileAbilities(readOnly),
    // Memory answers at once: nothing is won by asking for it and waiting.
    handle: {
      kind: "file",
      fd: fd.number,
      isBlockDevice: false,
      start: 0,
      io: "sync",
      directFd: -1,
      directOffsetAlign: 1,
      directMemoryAlign: 1,
      map: mapped?.handle,
    },
    bytes: () => bytes,
    resize(wanted) {
      if (mapped === undefined) resizeFile(fd.number, wanted);
      else mapped.resize(() => resizeFile(fd.number, wanted));
      bytes = wanted;
    },
    describe: () => ({ allocatedBytes: allocatedBytes(fd.number) }),
    [Symbol.dispose]() {
      mapped?.[Symbol.dispose]();
      fd.close();
    },
  };
}
