/**
 * The stores that there are, by the options that choose them.
 *
 * @module
 */

import { FileStore, openFileStore } from "./file_store.ts";
import { MappedStore } from "./mapped_store.ts";
import { openMemoryStore } from "./memory_store.ts";
import { attachNullStore, openNullStore } from "./null_store.ts";
import type { BlkOptions } from "./options.ts";
import type { FileHandle, OpenStore, Store, StoreHandle, StoreHost } from "./store.ts";
import { UringStore } from "./uring_store.ts";

/**
 * Opens the store that the options ask for.
 *
 * @throws {Error} When they ask for none or for several, or it cannot be had.
 */
export function openStore(options: BlkOptions, log: (message: string) => void): OpenStore {
  const { blkFile, size, null: isNull, readOnly } = options;
  if (blkFile !== undefined) {
    if (isNull) throw new Error("--blk-file and --null exclude each other");
    if (size !== undefined) {
      throw new Error("--blk-file and --size exclude each other: a file has its own size");
    }
    return openFileStore(blkFile, {
      readOnly,
      io: options.io,
      direct: options.cache === "none",
      lock: options.lock === "on",
      log,
    });
  }
  if (size === undefined) {
    throw new Error(
      isNull
        ? "--null needs a size, such as --null --size=1G"
        : "Expected what to serve: --blk-file=PATH, --size=SIZE (memory) or --null --size=SIZE",
    );
  }
  return isNull ? openNullStore(size, { readOnly }) : openMemoryStore(size, { readOnly });
}

/** Attaches a queue thread to a store. */
export function attachStore(handle: StoreHandle, host: StoreHost): Store {
  switch (handle.kind) {
    case "file":
      return attachFileStore(handle, host);
    case "null":
      return attachNullStore();
  }
}

/** Attaches a queue thread to a file. */
function attachFileStore(handle: FileHandle, host: StoreHost): Store {
  const store = new FileStore(handle, host);
  if (handle.map !== undefined) return new MappedStore(handle, handle.map, host, store);
  const { io } = host;
  return io === undefined || handle.io === "sync" ? store : new UringStore(handle, host, io, store);
}
